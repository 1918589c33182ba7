"""From files to painted files: names, formats, what is skipped, what fails, and what a kill leaves behind."""

from __future__ import annotations

import errno
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
import zarr
from painting import COLORS, content, large_above, model_of, picture, spoil, unet, whole_logits
from PIL import Image

from whatwhere.errors import DataError, ModelError, OutputError, PlanError
from whatwhere.network import Model, save_model
from whatwhere.paint import Engine, predict, stores
from whatwhere.paint.claims import writing
from whatwhere.paint.geotiff import GeoSource, write_geotiff
from whatwhere.paint.journal import Journal
from whatwhere.paint.ledger import Ledger
from whatwhere.paint.stores import move

pytestmark = pytest.mark.filterwarnings(
    "ignore:Use `@` matmul:PendingDeprecationWarning"
)  # rasterio's own use of affine


@pytest.fixture(scope="module")
def engine() -> Engine:
    return Engine(model_of(unet()), "float32")


@pytest.fixture
def _windows(monkeypatch: pytest.MonkeyPatch) -> None:
    """Everything counts as large, so that small files take the way of large ones."""
    large_above(monkeypatch)


def save(path: Path, image: np.ndarray) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(image).save(path)
    return path


def expected(model: Model, image: np.ndarray) -> np.ndarray:
    return whole_logits(model, image).argmax(0).numpy().astype(np.uint8)


def test_pictures_folders_and_globs(tmp_path: Path, engine: Engine) -> None:
    images = {name: picture(40 + i, 50, seed=i) for i, name in enumerate(["a.png", "deep/b.PNG", "deep/c ü.png"])}
    for name, image in images.items():
        save(tmp_path / "in" / name, image)
    (tmp_path / "in/notes.txt").write_text("no image")
    done = predict(engine, tmp_path / "in", tmp_path / "out")
    assert [item.status for item in done.items] == ["done"] * 3
    for name, image in images.items():
        with Image.open((tmp_path / "out" / name).with_suffix(".png")) as painted:
            assert painted.mode == "P"
            assert tuple(painted.getpalette()[3:6]) == COLORS[1]
            np.testing.assert_array_equal(np.asarray(painted), expected(engine.model, image))
    found = predict(engine, str(tmp_path / "in" / "deep" / "*"), tmp_path / "glob")
    assert sorted(Path(item.output or "").name for item in found.items) == ["b.png", "c ü.png"]
    assert "3 images: 3 done" in str(done)
    assert "painted whole" in str(done)


def test_done_images_are_skipped_and_others_are_not_overwritten(tmp_path: Path, engine: Engine) -> None:
    one, two = save(tmp_path / "x/a.png", picture(30, 30)), save(tmp_path / "y/a.png", picture(30, 30, seed=2))
    out = tmp_path / "out"
    assert predict(engine, one, out).items[0].status == "done"
    before = (out / "a.png").stat().st_mtime_ns
    assert predict(engine, one, out).items[0].status == "skipped"
    assert (out / "a.png").stat().st_mtime_ns == before
    assert predict(engine, one, out, overlay=True).items[0].status == "done"
    assert (out / "a.overlay.png").exists()
    other = predict(engine, two, out).items[0]
    assert other.status == "failed"
    assert "a.png is there already, from another image, or one that has changed" in other.error
    assert "--overwrite" in other.error
    assert predict(engine, two, out, overwrite=True).items[0].status == "done"
    (tmp_path / "mine").mkdir()
    save(tmp_path / "mine/a.png", picture(5, 5))
    assert "made elsewhere" in predict(engine, one, tmp_path / "mine").items[0].error


def test_a_finished_painting_is_known_in_a_copy_of_its_folder(tmp_path: Path, engine: Engine) -> None:
    """Files that were copied may have other times, as on a drive that is mounted anew."""
    one = save(tmp_path / "a.png", picture(30, 30))
    predict(engine, one, tmp_path / "out")
    shutil.copytree(tmp_path / "out", tmp_path / "copy", copy_function=shutil.copyfile)
    os.utime(tmp_path / "copy/a.png", (10**9, 10**9))
    assert predict(engine, one, tmp_path / "copy").items[0].status == "skipped"


@pytest.mark.parametrize("overwrite", [False, True])
def test_no_image_is_ever_overwritten(tmp_path: Path, engine: Engine, overwrite: bool) -> None:
    image = picture(30, 30)
    save(tmp_path / "in/a.png", image)
    tifffile.imwrite(tmp_path / "in/b.tif", image, photometric="rgb")
    zarr.create_array(str(tmp_path / "in/c.zarr"), shape=image.shape, chunks=(16, 16, 3), dtype="uint8")[...] = image
    before = content(tmp_path / "in")
    done = predict(engine, tmp_path / "in", tmp_path / "in", overwrite=overwrite)
    assert len(done.failed) == 3
    assert "would take the place of an image" in done.items[0].error
    inside = predict(engine, tmp_path / "in/c.zarr", tmp_path / "in/c.zarr/painted", overwrite=overwrite)
    assert "would take the place of an image" in inside.items[0].error
    assert content(tmp_path / "in") == before


def test_linked_folders_are_painted_once_and_leftovers_not_at_all(tmp_path: Path, engine: Engine) -> None:
    save(tmp_path / "nas/a.png", picture(30, 30))
    save(tmp_path / "in/b.png", picture(30, 30))
    save(tmp_path / "in/c.tif.partial/overlay.png", picture(30, 30))
    save(tmp_path / "in/@eaDir/b.png", picture(30, 30))
    (tmp_path / "in/linked").symlink_to(tmp_path / "nas")
    (tmp_path / "in/round").symlink_to(tmp_path / "in")
    done = predict(engine, tmp_path / "in", tmp_path / "out")
    assert [Path(item.input).relative_to(tmp_path / "in").as_posix() for item in done.items] == [
        "b.png",
        "linked/a.png",
    ]


def test_links_to_what_is_not_there_are_told(tmp_path: Path, engine: Engine) -> None:
    save(tmp_path / "in/a.png", picture(30, 30))
    (tmp_path / "in/b.png").symlink_to(tmp_path / "gone.png")
    (tmp_path / "in/c.tif").symlink_to(tmp_path / "in/c.tif")
    for inputs in (tmp_path / "in", tmp_path / "in/*", sorted((tmp_path / "in").iterdir())):
        done = predict(engine, inputs, tmp_path / "out", overwrite=True)
        assert [item.status for item in done.items] == ["done", "failed", "failed"]
        assert f"b.png is a link to {tmp_path / 'gone.png'}, which does not exist" in done.failed[0].error
        assert "c.tif" in done.failed[1].error


def test_of_several_folders_of_masks_none_is_painted(tmp_path: Path, engine: Engine) -> None:
    """DRIVE has two: which one is learnt is asked, but for painting it is all the same."""
    for place in ("images", "mask", "1st_manual"):
        save(tmp_path / "test" / place / "01.png", picture(30, 30))
    for root in (tmp_path, tmp_path / "test"):
        done = predict(engine, root, tmp_path / "out" / root.name)
        assert [item.input for item in done.items] == [str(tmp_path / "test/images/01.png")]


def test_paintings_are_not_painted_again(tmp_path: Path, engine: Engine) -> None:
    save(tmp_path / "a.bmp", picture(30, 30))
    for out in (tmp_path / "painted", tmp_path):
        for status in ("done", "skipped"):
            done = predict(engine, tmp_path, out, overlay=True, probabilities=True)
            assert [(Path(item.input).name, item.status) for item in done.items] == [("a.bmp", status)]


def test_what_went_with_a_painting_of_another_model_does_not_stay(tmp_path: Path, engine: Engine) -> None:
    one, other = save(tmp_path / "a.png", picture(30, 30)), Engine(model_of(unet(seed=5)), "float32")
    sides = [tmp_path / "out/a.overlay.png", tmp_path / "out/a.probabilities.tif"]
    predict(engine, one, tmp_path / "out", overlay=True, probabilities=True)
    first = [side.read_bytes() for side in sides]
    assert predict(engine, one, tmp_path / "out").items[0].status == "skipped"
    predict(other, one, tmp_path / "out", overwrite=True)
    assert not any(side.exists() for side in sides)
    assert predict(other, one, tmp_path / "out", overlay=True, probabilities=True).items[0].status == "done"
    assert all(side.read_bytes() != old for side, old in zip(sides, first))


@pytest.mark.parametrize("painted", [False, True])
def test_what_somebody_else_has_put_beside_a_painting_is_not_replaced(
    painted: bool, tmp_path: Path, engine: Engine
) -> None:
    one, overlay = save(tmp_path / "a.png", picture(30, 30)), tmp_path / "out/a.overlay.png"
    if painted:
        predict(engine, one, tmp_path / "out")
    save(overlay, np.zeros((3, 3), np.uint8))
    theirs = overlay.read_bytes()
    failed = predict(engine, one, tmp_path / "out", overlay=True).items[0]
    assert failed.status == "failed"
    assert "a.overlay.png is there already, made elsewhere" in failed.error
    assert overlay.read_bytes() == theirs
    assert (tmp_path / "out/a.png").exists() == painted
    assert predict(engine, one, tmp_path / "out", overlay=True, overwrite=True).items[0].status == "done"
    assert overlay.read_bytes() != theirs


@pytest.mark.parametrize("kind", ["overlay", "probabilities"])
@pytest.mark.parametrize("overwrite", [False, True])
def test_what_lies_beside_one_painting_is_not_replaced_by_that_of_another_ending(
    kind: str, overwrite: bool, tmp_path: Path, engine: Engine
) -> None:
    """Labels of x.png and x.tif lie apart, and x.overlay.png is one name."""
    one, other, out = save(tmp_path / "x.png", picture(30, 30)), tmp_path / "x.tif", tmp_path / "out"
    tifffile.imwrite(other, picture(40, 50), photometric="rgb")
    predict(engine, one, out, **{kind: True})
    before = {name: data for name, data in content(out).items() if not name.endswith(".jsonl")}
    (item,) = predict(engine, other, out, overwrite=overwrite, **{kind: True}).items
    assert item.status == "failed"
    assert f"x.{kind}." in item.error
    assert f"goes with {out / 'x.png'}, another painting that is there" in item.error
    assert {name: data for name, data in content(out).items() if not name.endswith(".jsonl")} == before
    assert predict(engine, other, out, overwrite=overwrite).items[0].status == "done", "its labels have a place"
    assert "goes with" in predict(engine, other, out, overlay=True, probabilities=True).items[0].error
    assert predict(engine, one, out, **{kind: True}).items[0].status == "skipped"
    (out / "x.png").unlink()
    assert predict(engine, other, out, **{kind: True}).items[0].status == "done"


def test_what_went_with_an_earlier_painting_may_belong_to_another_by_now(tmp_path: Path, engine: Engine) -> None:
    one, other, out = save(tmp_path / "x.png", picture(30, 30)), tmp_path / "x.tif", tmp_path / "out"
    tifffile.imwrite(other, picture(40, 50), photometric="rgb")
    predict(engine, one, out, overlay=True)
    second = Engine(model_of(unet(seed=5)), "float32")
    predict(second, one, out, overwrite=True)
    assert predict(engine, other, out, overlay=True).items[0].status == "done"
    theirs = (out / "x.overlay.png").read_bytes()
    for overwrite in (False, True):
        assert not predict(second, one, out, overwrite=overwrite).failed
        assert (out / "x.overlay.png").read_bytes() == theirs
    assert predict(engine, other, out, overlay=True).items[0].status == "skipped"


def test_a_painting_that_was_finished_right_before_a_kill_counts(
    tmp_path: Path, engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = save(tmp_path / "a.png", picture(30, 30))

    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        predict(engine, one, tmp_path / "out", progress=killed)
    assert not (tmp_path / "out/a.png").exists()
    with monkeypatch.context() as patched:
        patched.setattr(Ledger, "settle", killed)  # right after the labels came to their place
        with pytest.raises(KeyboardInterrupt):
            predict(engine, one, tmp_path / "out")
    assert predict(engine, one, tmp_path / "out").items[0].status == "skipped"


def _interrupted(*arguments: Any, at: str = "whatwhere.paint.outputs.write_label_image", **options: Any) -> None:
    """A run that is killed before its labels come to their place, or where they do."""

    def killed(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(at, killed)
        with pytest.raises(KeyboardInterrupt):
            predict(*arguments, **options)


@pytest.mark.parametrize("at", ["whatwhere.paint.outputs.write_label_image", "whatwhere.paint.ledger.move"])
@pytest.mark.parametrize("how", ["touched", "copied", "replaced"])
def test_what_lay_there_before_is_not_the_painting_that_was_killed(
    tmp_path: Path, engine: Engine, how: str, at: str
) -> None:
    """Whatever became of it since: a copy may have other times, and somebody may have put another there."""
    one, second, out = save(tmp_path / "a.png", picture(30, 30)), Engine(model_of(unet(seed=5)), "float32"), tmp_path
    predict(engine, one, out / "0")
    _interrupted(second, one, out / "0", overwrite=True, at=at)
    shutil.copytree(out / "0", out / "1", copy_function=shutil.copyfile)
    if how == "touched":
        os.utime(out / "0/a.png")
    elif how == "replaced":
        save(out / "0/a.png", np.zeros((7, 7), np.uint8))
    (item,) = predict(second, one, out / ("1" if how == "copied" else "0")).items
    assert item.status == "failed"
    assert "a.png is there already" in item.error
    assert predict(second, one, out / "0", overwrite=True).items[0].status == "done"
    assert predict(second, one, out / "0").items[0].status == "skipped"


def test_an_overlay_that_a_killed_repainting_has_replaced_is_made_again(tmp_path: Path, engine: Engine) -> None:
    one, second = save(tmp_path / "a.png", picture(30, 30)), Engine(model_of(unet(seed=5)), "float32")
    out = tmp_path / "out"
    predict(engine, one, out, overlay=True)
    overlay = (out / "a.overlay.png").read_bytes()
    _interrupted(second, one, out, overlay=True, overwrite=True, at="whatwhere.paint.ledger.move")
    assert (out / "a.overlay.png").read_bytes() != overlay, "that of labels which never came"
    assert predict(engine, one, out, overlay=True).items[0].status == "done"
    assert (out / "a.overlay.png").read_bytes() == overlay


def test_a_zarr_that_another_model_painted_over_is_that_model_s(tmp_path: Path, engine: Engine) -> None:
    """Folders are as large as each other: what tells them apart is when they were made."""
    image, second = picture(60, 60), Engine(model_of(unet(seed=5)), "float32")
    zarr.create_array(str(tmp_path / "i.zarr"), shape=image.shape, chunks=(32, 32, 3), dtype="uint8")[...] = image
    predict(engine, tmp_path / "i.zarr", tmp_path / "out")
    assert predict(second, tmp_path / "i.zarr", tmp_path / "out", overwrite=True).items[0].status == "done"
    assert predict(second, tmp_path / "i.zarr", tmp_path / "out").items[0].status == "skipped"
    assert "from another model" in predict(engine, tmp_path / "i.zarr", tmp_path / "out").items[0].error


@pytest.mark.parametrize("at", ["whatwhere.paint.outputs.write_label_image", "whatwhere.paint.ledger.move"])
def test_what_somebody_puts_where_a_first_painting_was_killed_is_not_that(
    tmp_path: Path, engine: Engine, at: str
) -> None:
    one = save(tmp_path / "a.png", picture(30, 30))
    _interrupted(engine, one, tmp_path / "out", at=at)
    theirs = save(tmp_path / "out/a.png", np.zeros((7, 7), np.uint8)).read_bytes()
    (item,) = predict(engine, one, tmp_path / "out").items
    assert "a.png is there already, made elsewhere" in item.error
    assert (tmp_path / "out/a.png").read_bytes() == theirs


@pytest.mark.parametrize("size", ["small", "large"])
def test_labels_that_came_to_their_place_right_before_a_kill_are_known(
    tmp_path: Path, engine: Engine, monkeypatch: pytest.MonkeyPatch, size: str
) -> None:
    one, second, out = save(tmp_path / "a.png", picture(90, 80)), Engine(model_of(unet(seed=5)), "float32"), tmp_path
    if size == "large":
        large_above(monkeypatch)

    def killed(*arguments: Any, **options: Any) -> None:
        move(*arguments, **options)
        raise KeyboardInterrupt

    predict(engine, one, out / "out")
    with monkeypatch.context() as patched:
        patched.setattr("whatwhere.paint.ledger.move", killed)
        with pytest.raises(KeyboardInterrupt):
            predict(second, one, out / "out", overwrite=True)
    assert "from another model" in predict(engine, one, out / "out").items[0].error
    assert predict(second, one, out / "out").items[0].status == "skipped"


def test_a_repainting_that_fails_leaves_the_old_painting_as_it_was(tmp_path: Path, engine: Engine) -> None:
    one, other = save(tmp_path / "a.png", picture(30, 30)), Engine(model_of(unet(channels=1), channels=1), "float32")
    predict(engine, one, tmp_path / "out", overlay=True, probabilities=True)
    before = {name: data for name, data in content(tmp_path / "out").items() if not name.endswith(".jsonl")}
    assert predict(other, one, tmp_path / "out", overwrite=True).failed
    assert {name: data for name, data in content(tmp_path / "out").items() if name in before} == before
    again = predict(engine, one, tmp_path / "out", overlay=True, probabilities=True)
    assert [item.status for item in again.items] == ["skipped"]
    assert "is there already, from another model" in predict(other, one, tmp_path / "out").items[0].error


def test_a_repainting_that_fails_at_its_end_leaves_the_old_painting_known(
    tmp_path: Path, engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, second = save(tmp_path / "a.png", picture(30, 30)), Engine(model_of(unet(seed=5)), "float32")
    predict(engine, one, tmp_path / "out")

    def fail(*_: object, **__: object) -> None:
        raise DataError("it was changed", "one that stays as it is", "")

    with monkeypatch.context() as patched:
        patched.setattr("whatwhere.paint.outputs.write_label_image", fail)
        assert predict(second, one, tmp_path / "out", overwrite=True).items[0].status == "failed"
    assert predict(engine, one, tmp_path / "out").items[0].status == "skipped"
    assert "from another model" in predict(second, one, tmp_path / "out").items[0].error


def test_an_image_at_the_place_of_a_painting_that_failed_is_painted(tmp_path: Path, engine: Engine) -> None:
    other = Engine(model_of(unet(channels=1), channels=1), "float32")
    assert predict(other, save(tmp_path / "a.bmp", picture(30, 30)), tmp_path).failed
    save(tmp_path / "a.png", picture(30, 30))
    done = predict(engine, tmp_path, tmp_path / "out")
    assert [Path(item.input).name for item in done.items] == ["a.bmp", "a.png"]


def test_a_line_of_the_ledger_that_was_cut_off_spoils_no_other(tmp_path: Path, engine: Engine) -> None:
    one, two = save(tmp_path / "a.png", picture(30, 30)), save(tmp_path / "b.png", picture(30, 30))
    predict(engine, one, tmp_path / "out")
    ledger = tmp_path / "out/predictions.jsonl"
    ledger.write_text(ledger.read_text() + '{"output": "x.p')
    for status in ("done", "skipped"):
        assert [item.status for item in predict(engine, [one, two], tmp_path / "out").items] == ["skipped", status]


def test_a_zarr_that_was_written_again_is_painted_again(tmp_path: Path, engine: Engine) -> None:
    image = picture(60, 60)
    array = zarr.create_array(str(tmp_path / "i.zarr"), shape=image.shape, chunks=(32, 32, 3), dtype="uint8")
    array[...] = image
    assert predict(engine, tmp_path / "i.zarr", tmp_path / "out").items[0].status == "done"
    array[:32, :32] = 255 - image[:32, :32]
    assert (
        "from another image, or one that has" in predict(engine, tmp_path / "i.zarr", tmp_path / "out").items[0].error
    )


@pytest.mark.parametrize("kind", ["png", "tif", "zarr", "ome.zarr", "geotiff"])
def test_an_overlay_alone_is_made_of_the_labels_that_are_there(
    tmp_path: Path, engine: Engine, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    image, path = picture(70, 60), tmp_path / f"a.{'tif' if kind == 'geotiff' else kind}"
    if kind == "png":
        save(path, image)
    elif kind == "zarr":
        zarr.create_array(str(path), shape=image.shape, chunks=(32, 32, 3), dtype="uint8")[...] = image
    elif kind == "ome.zarr":
        group = zarr.open_group(str(path), mode="w")
        axes = [{"name": name, "type": "space"} for name in "yxc"]
        scales = [{"axes": axes, "datasets": [{"path": "0", "coordinateTransformations": []}]}]
        group.attrs["ome"] = {"version": "0.5", "multiscales": scales}
        group.create_array("0", shape=image.shape, chunks=(32, 32, 3), dtype="uint8")[...] = image
    else:
        placed = [(33550, "d", 3, (1.0, 1.0, 0.0), True), (33922, "d", 6, (0.0,) * 6, True)]
        tifffile.imwrite(path, image, photometric="rgb", extratags=placed if kind == "geotiff" else [])
    predict(engine, path, tmp_path / "out")
    predict(engine, path, tmp_path / "straight", overlay=True, probabilities=True)
    with monkeypatch.context() as patched:
        patched.setattr(Engine, "logits", None)
        item = predict(engine, path, tmp_path / "out", overlay=True).items[0]
        assert (item.status, item.report) == ("done", None), item.error
        assert str(item).endswith("an overlay of the labels that were there")
        assert predict(engine, path, tmp_path / "out", overlay=True).items[0].status == "skipped"
    for out in ("out", "straight"):
        (overlay,) = (tmp_path / out).glob("*.overlay.png")
        assert overlay.read_bytes() == next((tmp_path / "straight").glob("*.overlay.png")).read_bytes()
    assert predict(engine, path, tmp_path / "out", overlay=True, probabilities=True).items[0].report is not None


def test_a_painting_by_what_was_asked_for_is_no_painting_by_anything_else(tmp_path: Path) -> None:
    one, model = save(tmp_path / "a.png", picture(30, 30)), model_of(unet())

    def again(**asked: Any) -> str:
        (item,) = predict(model, one, tmp_path / "out", **asked).items
        return item.error or item.status

    assert again(backend="eager", precision="float32") == "done"
    assert again(backend="eager", precision="float32") == "skipped"
    assert again(precision="float32") == "skipped", "whatever computes the same will do"
    assert "with backend eager, and this one has backend openvino" in again(backend="openvino", precision="float32")
    assert "with precision float32, and this one has precision bfloat16" in again(precision="bfloat16")


def test_equal_names_do_not_collide(tmp_path: Path, engine: Engine) -> None:
    paths = [tmp_path / "x/a.png", tmp_path / "y/a.png", tmp_path / "x/b.png", tmp_path / "x/b.bmp"]
    for i, path in enumerate(paths):
        save(path, picture(20, 20, seed=i))
    done = predict(engine, paths, tmp_path / "out")
    names = [Path(item.output or "").relative_to(tmp_path / "out").as_posix() for item in done.items]
    assert names[:2] == ["x/a.png", "y/a.png"]
    assert len(set(names)) == 4
    assert not done.failed


def test_a_bad_image_is_reported_and_the_others_are_done(tmp_path: Path, engine: Engine) -> None:
    save(tmp_path / "in/a.png", picture(30, 30))
    save(tmp_path / "in/grey.png", picture(30, 30)[..., 0])
    save(tmp_path / "in/clear.png", np.dstack([picture(30, 30), picture(30, 30, 1)]))
    save(tmp_path / "in/opaque.png", np.dstack([picture(30, 30), np.full((30, 30), 255, np.uint8)]))
    (tmp_path / "in/text.png").write_text("no image")
    (tmp_path / "in/stub.tif").write_bytes(b"II*\0")
    tifffile.imwrite(tmp_path / "in/deep.tif", picture(30, 30, dtype="uint16"), photometric="rgb")
    nan = picture(30, 30, dtype="float32")
    nan[3, 4] = np.nan
    tifffile.imwrite(tmp_path / "in/nan.tif", nan, photometric="rgb")
    done = predict(engine, tmp_path / "in", tmp_path / "out")
    by_name = {Path(item.input).name: item for item in done.items}
    assert {name for name, item in by_name.items() if item.status == "done"} == {"a.png", "opaque.png"}
    assert "1 channel; expected 3 channels" in by_name["grey.png"].error
    assert "alpha" in by_name["clear.png"].error
    assert "is not an image" in by_name["text.png"].error
    assert "stub.tif" in by_name["stub.tif"].error
    assert "uint16" in by_name["deep.tif"].error
    assert "row 3, column 4" in by_name["nan.tif"].error
    assert not (tmp_path / "out/grey.png").exists()
    assert "8 images: 2 done, 6 failed" in str(done)
    assert done.to_json()["items"][0]["status"] == "done"


@pytest.mark.usefixtures("_windows")
def test_an_image_of_which_nothing_could_be_painted_leaves_nothing_behind(tmp_path: Path, engine: Engine) -> None:
    (tmp_path / "in").mkdir()
    tifffile.imwrite(tmp_path / "in/grey.tif", picture(90, 80, 1)[..., 0])
    tifffile.imwrite(tmp_path / "in/deep.tif", picture(90, 80, dtype="uint16"), photometric="rgb")
    tifffile.imwrite(tmp_path / "in/cut.tif", picture(90, 80), photometric="rgb")
    with (tmp_path / "in/cut.tif").open("r+b") as file:
        file.truncate(9000)
    array = zarr.create_array(str(tmp_path / "in/cut.zarr"), shape=(90, 80, 3), chunks=(90, 80, 3), dtype="uint8")
    array[...] = picture(90, 80)
    (tmp_path / "in/cut.zarr/c/0/0/0").write_bytes(b"")
    done = predict(engine, tmp_path / "in", tmp_path / "out", probabilities=True)
    assert len(done.failed) == 4
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["predictions.jsonl"]


@pytest.mark.parametrize("finished", [False, True])
def test_what_a_killed_run_was_writing_of_a_small_painting_goes_with_the_next(
    tmp_path: Path, engine: Engine, finished: bool
) -> None:
    one, out = save(tmp_path / "a.png", picture(30, 30)), tmp_path / "out"
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    out.mkdir()
    if finished:
        predict(engine, one, out)
    own = [f".{name}.{ended.pid}.partial" for name in ("a.png", "a.overlay.png", "a.probabilities.tif", "a.pgw")]
    others = [f".b.png.{ended.pid}.partial", f".a.png.{os.getppid()}.partial"]
    for name in (*own, *others):
        (out / name).touch()
    assert predict(engine, one, out).items[0].status == ("skipped" if finished else "done")
    assert sorted(path.name for path in out.iterdir() if path.name[0] == ".") == sorted(others)


def test_tiles_and_batches_of_nothing_are_refused_also_where_all_is_painted(tmp_path: Path, engine: Engine) -> None:
    one = save(tmp_path / "a.png", picture(30, 30))
    predict(engine, one, tmp_path / "out")
    for options, words in (({"tile": 0}, "tile = 0"), ({"tile": (64, -5)}, "tile = "), ({"batch": 0}, "batch = 0")):
        with pytest.raises(PlanError, match=rf"{words}.*expected at least 1"):
            predict(engine, one, tmp_path / "out", **options)


def test_nothing_to_paint_is_said(tmp_path: Path, engine: Engine) -> None:
    for nothing in (tmp_path / "no.png", str(tmp_path / "*.png")):
        with pytest.raises(DataError, match=r"png does not exist; expected an image"):
            predict(engine, nothing, tmp_path / "out")
    with pytest.raises(DataError, match="no image in"):
        predict(engine, tmp_path, tmp_path / "out")
    with pytest.raises(ModelError, match=r"there is no file .*m.safetensors"):
        predict(tmp_path / "m.safetensors", save(tmp_path / "a.png", picture(9, 9)), tmp_path / "out")


@pytest.mark.parametrize(
    ("missing", "words", "prove"),
    [("no.png", "no.png does not exist", []), ("a.png", "there is no file m", ["--prove"])],
)
def test_what_is_not_there_is_said_at_once(tmp_path: Path, missing: str, words: str, prove: list[str]) -> None:
    """PyTorch takes seconds to import."""
    save(tmp_path / "a.png", picture(9, 9))
    code = "import sys\nfrom whatwhere.cli import main\ntry: main()\nfinally: assert 'torch' not in sys.modules"
    arguments = ["predict", "m", "a.*", missing, "-o", "out", *prove]
    done = subprocess.run([sys.executable, "-c", code, *arguments], cwd=tmp_path, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith(f"error: {words}"), done.stderr


@pytest.mark.usefixtures("_windows")
def test_large_pictures_become_tiled_tiffs_with_everything_asked_for(tmp_path: Path, engine: Engine) -> None:
    image = picture(300, 280)
    tifffile.imwrite(tmp_path / "a.tif", image, photometric="rgb", tile=(64, 64), compression="zlib")
    save(tmp_path / "b.png", image)
    out = tmp_path / "out"
    done = predict(engine, [tmp_path / "a.tif", tmp_path / "b.png"], out, tile=128, overlay=True, probabilities=True)
    assert not done.failed, str(done)
    assert done.items[0].report is not None
    assert done.items[0].report.tiles > 4
    whole = whole_logits(engine.model, image)
    for name in ("a", "b"):
        np.testing.assert_array_equal(tifffile.imread(out / f"{name}.tif"), whole.argmax(0).numpy())
        shares = tifffile.imread(out / f"{name}.probabilities.tif") / 255
        np.testing.assert_allclose(shares, whole.softmax(0).numpy(), atol=0.0025)
        with Image.open(out / f"{name}.overlay.png") as overlay:
            assert overlay.size == (280, 300)
    assert not list(out.glob("*.partial"))


@pytest.mark.usefixtures("_windows")
def test_geotiff_in_geotiff_out(tmp_path: Path, engine: Engine) -> None:
    rasterio = pytest.importorskip("rasterio")
    image = np.maximum(picture(200, 190), 1)
    image[:50, :60] = 0
    transform = rasterio.transform.from_origin(500000, 4600000, 10, 10)
    with rasterio.open(
        tmp_path / "g.tif", "w", driver="GTiff", height=200, width=190, count=3, dtype="uint8", crs="EPSG:32633",
        transform=transform, nodata=0,
    ) as file:  # fmt: skip
        file.write(image.transpose(2, 0, 1))
    done = predict(engine, tmp_path / "g.tif", tmp_path / "out", tile=96, probabilities=True)
    assert not done.failed, str(done)
    with rasterio.open(tmp_path / "out/g.tif") as file:
        labels = file.read(1)
        assert (file.crs.to_epsg(), file.transform, file.nodata) == (32633, transform, 255)
    assert (labels[:50, :60] == 255).all()
    assert (labels[50:] != 255).all()
    filled = engine.model.normalise(image)
    filled[:, :50, :60] = 0
    truth = engine.logits(filled[None])[0].argmax(0).numpy()
    np.testing.assert_array_equal(labels[50:], truth[50:])
    with rasterio.open(tmp_path / "out/g.probabilities.tif") as file:
        assert file.count == 3
        assert not file.read()[:, :50, :60].any()


@pytest.mark.parametrize("missing", [-9999.0, np.nan])
def test_a_pixel_that_one_band_lacks_is_no_data(tmp_path: Path, missing: float) -> None:
    import rasterio

    engine = Engine(model_of(unet(), dtype="float32"), "float32")
    image = picture(60, 60, dtype="float32")
    image[:, :20, 1] = missing
    with rasterio.open(
        tmp_path / "g.tif", "w", driver="GTiff", height=60, width=60, count=3, dtype="float32", crs="EPSG:32633",
        transform=rasterio.transform.from_origin(0, 0, 10, 10), nodata=missing,
    ) as file:  # fmt: skip
        file.write(image.transpose(2, 0, 1))
    done = predict(engine, tmp_path / "g.tif", tmp_path / "out", overlay=True)
    assert not done.failed, str(done)
    with rasterio.open(tmp_path / "out/g.tif") as file:
        labels = file.read(1)
    assert (labels[:, :20] == 255).all()
    assert (labels[:, 20:] != 255).all()


def test_an_orthomosaic_with_clear_margins(tmp_path: Path, engine: Engine) -> None:
    import rasterio

    image = np.dstack([picture(60, 60), np.full((60, 60), 255, np.uint8)])
    image[:10] = 0
    with rasterio.open(
        tmp_path / "g.tif", "w", driver="GTiff", height=60, width=60, count=4, dtype="uint8", crs="EPSG:32633",
        transform=rasterio.transform.from_origin(0, 0, 10, 10), photometric="rgb", alpha="yes",
    ) as file:  # fmt: skip
        file.write(image.transpose(2, 0, 1))
    done = predict(engine, tmp_path / "g.tif", tmp_path / "out")
    assert not done.failed, str(done)
    with rasterio.open(tmp_path / "out/g.tif") as file:
        labels = file.read(1)
    assert (labels[:10] == 255).all()
    assert (labels[10:] != 255).all()


@pytest.mark.parametrize("form", [2, 3])
def test_zarr_in_zarr_out(tmp_path: Path, engine: Engine, form: Any) -> None:
    image = picture(700, 600)
    array = zarr.create_array(
        str(tmp_path / "i.zarr"), shape=image.shape, chunks=(128, 128, 3), dtype="uint8", zarr_format=form
    )
    array[...] = image
    done = predict(engine, tmp_path / "i.zarr", tmp_path / "out", tile=400, probabilities=True, overlay=True)
    assert not done.failed, str(done)
    labels = zarr.open_array(str(tmp_path / "out/i.zarr"), mode="r")
    assert labels.metadata.zarr_format == form
    whole = whole_logits(engine.model, image)
    np.testing.assert_array_equal(labels[...], whole.argmax(0).numpy())
    assert labels.attrs["classes"]["names"] == list(engine.model.classes.names)
    shares = zarr.open_array(str(tmp_path / "out/i.probabilities.zarr"), mode="r")[...] / 255
    np.testing.assert_allclose(shares, whole.softmax(0).numpy(), atol=0.0025)
    assert predict(engine, tmp_path / "i.zarr", tmp_path / "out").items[0].status == "skipped"


@pytest.mark.parametrize("form", [2, 3])
def test_a_zarr_may_lie_in_a_folder_of_any_name(tmp_path: Path, engine: Engine, form: Any) -> None:
    image, folder = picture(70, 60), tmp_path / "file::zip"
    array = zarr.create_array(str(tmp_path / "i.zarr"), shape=image.shape, chunks=(32, 32, 3), dtype="uint8",
                              zarr_format=form)  # fmt: skip
    array[...] = image
    folder.mkdir()
    shutil.move(tmp_path / "i.zarr", folder)
    done = predict(engine, folder, folder / "out", probabilities=True)
    assert not done.failed, str(done)
    shutil.move(folder / "out/i.zarr", tmp_path / "l.zarr")
    labels = zarr.open_array(str(tmp_path / "l.zarr"), mode="r")[...]
    np.testing.assert_array_equal(labels, expected(engine.model, image))


def test_tiles_that_are_too_small_for_the_chunks_of_the_output_say_so(tmp_path: Path, engine: Engine) -> None:
    image = picture(300, 300)
    zarr.create_array(str(tmp_path / "i.zarr"), shape=image.shape, chunks=(99, 99, 3), dtype="uint8")[...] = image
    (item,) = predict(engine, tmp_path / "i.zarr", tmp_path / "out", tile=64).items
    halo = engine.geometry.halo[0][0]
    wanted = f"at least {256 + 2 * halo}x{256 + 2 * halo}, as the output has chunks of 256 and this network a halo of"
    assert wanted in item.error


def test_a_journal_drops_a_line_that_was_cut_off_and_other_work(tmp_path: Path) -> None:
    path, work = tmp_path / "journal", {"a": 1}
    with Journal(path, work) as journal:
        journal.add(3)
        journal.add(12)
    path.write_bytes(path.read_bytes() + b"4")
    with Journal(path, work) as journal:
        assert journal.done == {3, 12}
        journal.add(5)
    assert Journal(path, work).done == {3, 5, 12}
    assert not Journal(path, {"a": 2}).fits
    path.write_bytes(b"not ours\n3\n")
    assert not Journal(path, work).fits


def test_a_tile_is_on_the_disk_before_its_line_and_that_before_the_next_tile(
    tmp_path: Path, engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A power cut keeps what was waited for and no more: no line may speak of a tile that is not there."""
    large_above(monkeypatch)
    synced, told = dict[int, bytes](), list[tuple[bool, ...]]()
    honest, keep = os.fsync, Journal.add

    def fsync(number: int) -> None:
        honest(number)
        with suppress(OSError):  # folders, and files that are open to be written only
            synced[os.fstat(number).st_ino] = os.pread(number, 2**24, 0)

    def durable(name: str) -> bool:
        (path,) = tmp_path.glob(f"out/*.partial/{name}")
        return synced.get(path.stat().st_ino) == path.read_bytes()

    def add(journal: Journal, index: int) -> None:
        before = durable("labels.raw"), durable("probabilities.raw")
        keep(journal, index)
        told.append((*before, durable("journal")))

    monkeypatch.setattr(os, "fsync", fsync)
    monkeypatch.setattr(Journal, "add", add)
    predict(engine, save(tmp_path / "a.png", picture(150, 130)), tmp_path / "out", tile=64, probabilities=True)
    assert len(told) > 3
    assert set(told) == {(True, True, True)}


KILLED = """
import os, signal, sys
sys.path.insert(0, sys.argv[1])
import whatwhere.paint.files, whatwhere.paint.outputs
whatwhere.paint.files.LARGE = whatwhere.paint.outputs.LARGE = 100
from painting import model_of, unet
from whatwhere.paint import Engine, predict
def progress(name, done, total):
    if done == 5:
        os.kill(os.getpid(), signal.SIGKILL)
predict(Engine(model_of(unet()), "float32"), sys.argv[2], sys.argv[3], tile=int(sys.argv[4]), progress=progress)
"""


@pytest.mark.parametrize("kind", ["tif", "zarr"])
@pytest.mark.usefixtures("_windows")
def test_a_killed_run_leaves_nothing_that_looks_done_and_goes_on_where_it_stopped(
    tmp_path: Path, engine: Engine, kind: str
) -> None:
    source = tmp_path / f"a.{kind}"
    image, tile = picture(700, 600), 160 if kind == "tif" else 320
    if kind == "tif":
        tifffile.imwrite(source, image, photometric="rgb", tile=(64, 64))
    else:
        zarr.create_array(str(source), shape=image.shape, chunks=(128, 128, 3), dtype="uint8")[...] = image
    arguments = [str(Path(__file__).parent), str(source), str(tmp_path / "killed"), str(tile)]
    killed = subprocess.run([sys.executable, "-c", KILLED, *arguments], capture_output=True, text=True)
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    left = sorted(path.name for path in (tmp_path / "killed").iterdir())
    assert left == [f"a.{kind}.partial", "predictions.jsonl"]
    seen: list[int] = []
    again = predict(engine, source, tmp_path / "killed", tile=tile, progress=lambda _, done, __: seen.append(done))
    straight = predict(engine, source, tmp_path / "straight", tile=tile)
    assert not again.failed + straight.failed
    assert seen[0] > 2  # it did not begin with the first tile
    assert content(tmp_path / f"killed/a.{kind}") == content(tmp_path / f"straight/a.{kind}")
    assert not (tmp_path / f"killed/a.{kind}.partial").exists()


IN_A_CHUNK = """
import os, pathlib, signal
rename = pathlib.Path.replace
def killed(path, target):
    if "labels.zarr" in path.parts and path.parent.name == "1":
        os.kill(os.getpid(), signal.SIGKILL)
    return rename(path, target)
pathlib.Path.replace = killed
"""


@pytest.mark.usefixtures("_windows")
def test_a_run_killed_while_it_writes_a_chunk_leaves_nothing_of_it_in_the_painting(
    tmp_path: Path, engine: Engine
) -> None:
    source = tmp_path / "a.zarr"
    zarr.create_array(str(source), shape=(700, 600, 3), chunks=(128, 128, 3), dtype="uint8")[...] = picture(700, 600)
    arguments = [str(Path(__file__).parent), str(source), str(tmp_path / "killed"), "320"]
    code = IN_A_CHUNK + KILLED.replace("done == 5", "False")  # on a busy machine five tiles come before that chunk
    killed = subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True)
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    assert list((tmp_path / "killed/a.zarr.partial/labels.zarr/c/1").iterdir())  # a chunk that has not its name yet
    predict(engine, source, tmp_path / "killed", tile=320)
    predict(engine, source, tmp_path / "straight", tile=320)
    assert content(tmp_path / "killed/a.zarr") == content(tmp_path / "straight/a.zarr")


@pytest.mark.parametrize("moves", [0, 1])
@pytest.mark.usefixtures("_windows")
def test_a_zarr_that_was_killed_while_its_files_came_to_their_places_goes_on(
    tmp_path: Path, engine: Engine, monkeypatch: pytest.MonkeyPatch, moves: int
) -> None:
    source, out = tmp_path / "a.zarr", tmp_path / "out"
    image = picture(300, 280)
    zarr.create_array(str(source), shape=image.shape, chunks=(128, 128, 3), dtype="uint8")[...] = image
    predict(engine, source, out, probabilities=True)
    before, made = {name: content(out / name) for name in ("a.zarr", "a.probabilities.zarr")}, []

    def killed(here: Path, there: Path, **_: Any) -> None:
        if len(made) == moves:
            raise KeyboardInterrupt
        made.append(there)
        move(here, there)

    with monkeypatch.context() as patched:
        for module in ("outputs", "ledger"):
            patched.setattr(f"whatwhere.paint.{module}.move", killed)
        with pytest.raises(KeyboardInterrupt):
            predict(engine, source, out, probabilities=True, overwrite=True)
    assert {name: content(out / name) for name in before} == before
    again = predict(engine, source, out, probabilities=True, overwrite=True)
    assert not again.failed, str(again)
    assert {name: content(out / name) for name in before} == before
    assert not list(out.glob("*.partial"))


@pytest.mark.usefixtures("_windows")
@pytest.mark.parametrize("before", ["eager", "onnx-int8"])
def test_what_a_backend_began_that_computes_the_same_goes_on_without_asking_for_it(
    tmp_path: Path, engine: Engine, before: str
) -> None:
    tifffile.imwrite(tmp_path / "a.tif", picture(700, 600), photometric="rgb", tile=(64, 64))

    def stop(_name: str, done: int, _all: int) -> None:
        if done == 3:
            raise KeyboardInterrupt

    asked = Engine(engine.model, "float32", backend="eager")
    with pytest.raises(KeyboardInterrupt):
        predict(asked, tmp_path / "a.tif", tmp_path / "out", tile=160, progress=stop)
    journal = tmp_path / "out/a.tif.partial/journal"
    journal.write_bytes(journal.read_bytes().replace(b'"backend": "eager"', f'"backend": "{before}"'.encode()))
    seen: list[int] = []
    done = predict(engine, tmp_path / "a.tif", tmp_path / "out", tile=160, progress=lambda *now: seen.append(now[1]))
    if before == "eager":
        assert not done.failed, str(done)
        assert seen[0] > 1, "it goes on"
        again = predict(asked, tmp_path / "a.tif", tmp_path / "other", tile=160)
        assert not again.failed
        assert content(tmp_path / "out/a.tif") == content(tmp_path / "other/a.tif")
    else:
        assert "differs in: backend (begun by onnx-int8)" in done.failed[0].error


@pytest.mark.parametrize("size", ["small", "large"])
def test_a_link_at_the_place_of_a_painting_stays_one(
    tmp_path: Path, engine: Engine, monkeypatch: pytest.MonkeyPatch, size: str
) -> None:
    if size == "large":
        large_above(monkeypatch)
    tifffile.imwrite(tmp_path / "a.tif", picture(90, 80), photometric="rgb")
    everything = {"overlay": True, "probabilities": True}
    predict(engine, tmp_path / "a.tif", tmp_path / "out", **everything)
    second = Engine(model_of(unet(seed=5)), "float32")
    predict(second, tmp_path / "a.tif", tmp_path / "second", **everything)
    names = ["a.tif", "a.overlay.png", "a.probabilities.tif"]
    (tmp_path / "drive").mkdir()
    for name in names:
        (tmp_path / "out" / name).rename(tmp_path / "drive" / name)
        (tmp_path / "out" / name).symlink_to(tmp_path / "drive" / name)
    assert predict(engine, tmp_path / "a.tif", tmp_path / "out", **everything).items[0].status == "skipped"
    assert not predict(second, tmp_path / "a.tif", tmp_path / "out", overwrite=True, **everything).failed
    for name in names:
        assert (tmp_path / "out" / name).is_symlink()
        assert (tmp_path / "drive" / name).read_bytes() == (tmp_path / "second" / name).read_bytes()
    assert predict(second, tmp_path / "a.tif", tmp_path / "out", **everything).items[0].status == "skipped"
    assert not list((tmp_path / "out").glob("*.partial"))


def test_a_folder_is_replaced_by_another_or_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def killed(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    for name in ("new", "old"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "chunk").write_text(name)
    with monkeypatch.context() as patched:
        patched.setattr(shutil, "rmtree", killed)
        with pytest.raises(KeyboardInterrupt):
            move(tmp_path / "new", tmp_path / "old")
    assert (tmp_path / "old/chunk").read_text() == "old"
    honest, calls = Path.replace, []

    def between(here: Path, there: Path) -> Path:
        calls.append(here)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return honest(here, there)

    with monkeypatch.context() as patched:
        patched.setattr(Path, "replace", between)
        with pytest.raises(KeyboardInterrupt):
            move(tmp_path / "new", tmp_path / "old")
    assert not (tmp_path / "old").exists()
    move(tmp_path / "new", tmp_path / "old")
    assert (tmp_path / "old/chunk").read_text() == "new"
    assert [entry.name for entry in tmp_path.iterdir()] == ["old"]


@pytest.mark.usefixtures("_windows")
def test_a_full_disk_is_one_clear_error_and_what_is_done_is_kept(
    tmp_path: Path, engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    tifffile.imwrite(tmp_path / "a.tif", picture(300, 280), photometric="rgb")
    written: list[int] = []

    def full(handle: int, data: bytes) -> None:
        written.append(handle)
        if len(written) > 500:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        honest(handle, data)

    honest = stores.write_all
    monkeypatch.setattr(stores, "write_all", full)
    with pytest.raises(OutputError, match=r"No space left on device.*make room.*what is finished is kept"):
        predict(engine, tmp_path / "a.tif", tmp_path / "out", tile=96)
    monkeypatch.setattr(stores, "write_all", honest)
    seen: list[int] = []
    assert not predict(
        engine, tmp_path / "a.tif", tmp_path / "out", tile=96, progress=lambda *a: seen.append(a[1])
    ).failed
    assert seen[0] > 1
    np.testing.assert_array_equal(
        tifffile.imread(tmp_path / "out/a.tif"), expected(engine.model, tifffile.imread(tmp_path / "a.tif"))
    )


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 256 KiB."""
    place = tmp_path / "small"
    place.mkdir()
    mount = shutil.which("mount")
    if not mount or os.geteuid() != 0:
        pytest.skip("mounting a small file system needs root")
    if subprocess.run([mount, "-t", "tmpfs", "-o", "size=256k", "tmpfs", str(place)], capture_output=True).returncode:
        pytest.skip("a small file system can't be mounted here")
    yield place
    subprocess.run([shutil.which("umount") or "umount", str(place)], check=True)


@pytest.mark.usefixtures("_windows")
@pytest.mark.parametrize("kind", ["tif", "geotiff", "zarr"])
def test_a_really_full_disk(tmp_path: Path, small_disk: Path, kind: str) -> None:
    image = picture(700, 600)
    source = tmp_path / ("a.zarr" if kind == "zarr" else "a.tif")
    if kind == "zarr":
        zarr.create_array(str(source), shape=image.shape, chunks=(128, 128, 3), dtype="uint8")[...] = image
    else:
        extra = [(42113, "s", 0, "0", True)] if kind == "geotiff" else []
        tifffile.imwrite(source, image, photometric="rgb", extratags=extra)
    engine = Engine(model_of(unet()), "float32")
    (small_disk / "ballast").write_bytes(b"0" * 200_000)
    with pytest.raises(OutputError, match="No space left"):
        predict(engine, source, small_disk / "out", tile=400, probabilities=True)
    assert not (small_disk / "out/a.tif").exists()
    assert not (small_disk / "out/a.zarr").exists()


def test_a_geotiff_is_whole_or_an_error_wherever_the_disk_fills_up(tmp_path: Path, small_disk: Path) -> None:
    """GDAL writes what it still holds when it closes a file, and says nothing if that fails."""
    pytest.importorskip("rasterio")
    labels = np.random.default_rng(0).integers(0, 3, (1400, 300), np.uint8)
    tifffile.imwrite(tmp_path / "a.tif", labels, extratags=[(42113, "s", 0, "9", True)])
    source, path, outcomes = GeoSource(tmp_path / "a.tif"), small_disk / "l.tif", set()
    for room in range(0, 250_000, 8192):
        (small_disk / "ballast").write_bytes(b"0" * (256 * 1024 - room))
        try:
            with writing(path):
                write_geotiff(path, source, lambda box: labels[box[0][0] : box[0][1]], model_of(unet()).classes)
            with tifffile.TiffFile(path) as file:
                levels = [page.asarray() for page in file.pages]
            np.testing.assert_array_equal(levels[0], labels)
            assert [level.shape for level in levels[1:]] == [(700, 150)]
            outcomes.add("whole")
        except OutputError as error:
            outcomes.add(next((words for words in ("Write error", "disk is full") if words in str(error)), str(error)))
        path.unlink(missing_ok=True)
    source.close()
    assert {"whole"} < outcomes <= {"whole", "Write error", "disk is full"}


def test_a_place_that_is_a_file_is_said(tmp_path: Path, engine: Engine) -> None:
    save(tmp_path / "a.png", picture(20, 20))
    (tmp_path / "out").write_text("a file")
    with pytest.raises(OutputError, match=r"can't be written \(.*out is a file, and no folder\).*choose another"):
        predict(engine, tmp_path / "a.png", tmp_path / "out")


@pytest.mark.parametrize("way", ["a folder of its name", "a file for its folder", "a name that is too long"])
def test_one_place_that_cannot_be_written_is_the_failure_of_one_image(tmp_path: Path, engine: Engine, way: str) -> None:
    bad = "x" * 245 if way == "a name that is too long" else "b"
    for name in ("a", f"s/{bad}", "s2/c"):
        save(tmp_path / f"in/{name}.png", picture(30, 30))
    if way == "a folder of its name":
        (tmp_path / "out/s/b.png").mkdir(parents=True)
    elif way == "a file for its folder":
        (tmp_path / "out").mkdir()
        (tmp_path / "out/s").touch()
    done = predict(engine, tmp_path / "in", tmp_path / "out", overlay=len(bad) > 1, overwrite=True)
    assert [item.status for item in done.items] == ["done", "failed", "done"]
    assert f"{bad[:9]}" in done.items[1].error
    assert "can't be written" in done.items[1].error
    (tmp_path / "file").touch()
    with pytest.raises(OutputError, match="file can't be written"):
        predict(engine, tmp_path / "in", tmp_path / "file")


@pytest.mark.parametrize("large", [False, True])
def test_names_may_be_as_long_as_a_file_system_takes(
    tmp_path: Path, engine: Engine, large: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if large:
        large_above(monkeypatch)
    name = "ü" * 125 + "x.tif"
    assert len(name.encode()) == 255
    (tmp_path / "in").mkdir()
    for other in (name, "y" + name[1:-5] + "z.tif"):
        tifffile.imwrite(tmp_path / "in" / other, picture(30, 30), photometric="rgb")
    for status in ("done", "skipped"):
        done = predict(engine, tmp_path / "in", tmp_path / "out")
        assert [item.status for item in done.items] == [status] * 2, str(done)
    found, given = ({path.name for path in (tmp_path / folder).iterdir()} for folder in ("out", "in"))
    assert found == given | {"predictions.jsonl"}


@pytest.mark.usefixtures("_windows")
def test_a_tile_damaged_in_the_middle_fails_that_image_only(tmp_path: Path, engine: Engine) -> None:
    path = tmp_path / "in/bad.tif"
    path.parent.mkdir()
    for name in ("bad", "good"):
        tifffile.imwrite(
            tmp_path / f"in/{name}.tif", picture(256, 256), tile=(64, 64), compression="zlib", photometric="rgb"
        )
    spoil(path, 9)
    done = predict(engine, tmp_path / "in", tmp_path / "out", tile=96)
    assert [item.status for item in done.items] == ["failed", "done"]
    assert "damaged tile at row 128, column 64" in done.items[0].error
    assert not (tmp_path / "out/bad.tif").exists()


def test_a_model_file_works_as_a_model(tmp_path: Path) -> None:
    model = model_of(unet())
    save_model(model, tmp_path / "m.safetensors")
    save(tmp_path / "a.png", picture(33, 44))
    done = predict(tmp_path / "m.safetensors", tmp_path / "a.png", tmp_path / "out", precision="float32")
    assert "float32" in str(done)
    with Image.open(tmp_path / "out/a.png") as painted:
        np.testing.assert_array_equal(np.asarray(painted), expected(model, picture(33, 44)))
