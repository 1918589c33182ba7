"""No two files that one call paints share a place."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import tifffile
from painting import model_of, picture, unet
from PIL import Image

from whatwhere.paint import Engine, predict


@pytest.fixture(scope="module")
def engine() -> Engine:
    return Engine(model_of(unet()), "float32", backend="eager")


def save(path: Path, seed: int) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(picture(30, 30, seed=seed)).save(path)
    return path


def labels(engine: Engine, path: Path, out: Path) -> np.ndarray:
    (item,) = predict(engine, path, out).items
    return np.asarray(Image.open(item.output or ""))


def test_of_two_images_whose_names_come_to_one_the_second_is_refused(tmp_path: Path, engine: Engine) -> None:
    paths = [save(tmp_path / name, seed) for seed, name in enumerate(("A/x.png", "B/x.png", "C/A/x.png"))]
    done = predict(engine, [paths[0], paths[1], tmp_path / "C"], tmp_path / "out", overwrite=True)
    assert [item.status for item in done.items] == ["done", "done", "failed"]
    assert f"would be painted from {paths[2]}, and from {paths[0]} too" in done.items[2].error
    found = np.asarray(Image.open(done.items[0].output or ""))
    np.testing.assert_array_equal(found, labels(engine, paths[0], tmp_path / "alone"))


def test_an_overlay_does_not_take_the_place_of_labels(tmp_path: Path, engine: Engine) -> None:
    one, two = save(tmp_path / "in/x.overlay.png", 0), save(tmp_path / "in/x.png", 1)
    done = predict(engine, tmp_path / "in", tmp_path / "out", overlay=True, overwrite=True)
    assert [(item.input, item.status) for item in done.items] == [(str(one), "done"), (str(two), "failed")]
    assert "x.overlay.png would be painted from" in done.items[1].error
    found = np.asarray(Image.open(tmp_path / "out/x.overlay.png"))
    np.testing.assert_array_equal(found, labels(engine, one, tmp_path / "alone"))
    both = predict(engine, tmp_path / "in", tmp_path / "labels")
    assert not both.failed, "without overlays each has a place of its own"


@pytest.mark.parametrize("again", ["in/../in/x.png", "in", "*/x.png"])
def test_an_image_that_is_named_twice_counts_once(
    tmp_path: Path, engine: Engine, monkeypatch: pytest.MonkeyPatch, again: str
) -> None:
    save(tmp_path / "in/x.png", 0)
    monkeypatch.chdir(tmp_path)
    done = predict(engine, [tmp_path / "in/x.png", again], "out")
    assert [(item.input, item.output) for item in done.items] == [(str(tmp_path / "in/x.png"), "out/x.png")]


def test_a_painting_keeps_its_place_whatever_comes_beside_its_image(tmp_path: Path, engine: Engine) -> None:
    """And goes back to no other place when that has gone."""
    first, other = save(tmp_path / "in/a.png", 0), save(tmp_path / "in/b.png", 1)
    predict(engine, tmp_path / "in", tmp_path / "out")
    newcomer = save(tmp_path / "in/a.bmp", 2)
    for status in ("done", "skipped"):
        done = predict(engine, tmp_path / "in", tmp_path / "out", overlay=True)
        places = {item.input: (item.status, Path(item.output or "").name) for item in done.items}
        assert places.pop(str(newcomer)) == (status, "a.bmp.png")
        assert places == {str(first): (status, "a.png"), str(other): (status, "b.png")}
    first.unlink()
    done = predict(engine, tmp_path / "in", tmp_path / "out", overlay=True)
    assert [Path(item.output or "").name for item in done.items] == ["a.bmp.png", "b.png"]


def test_paintings_of_one_name_that_were_painted_apart_keep_one_place_for_their_overlays(
    tmp_path: Path, engine: Engine
) -> None:
    save(tmp_path / "in/a.png", 0)
    tifffile.imwrite(tmp_path / "in/a.tif", picture(30, 30), photometric="rgb")
    for name in ("a.png", "a.tif"):
        predict(engine, tmp_path / "in" / name, tmp_path / "out")
    done = predict(engine, tmp_path / "in", tmp_path / "out", overlay=True)
    assert sorted(Path(item.output or "").name for item in done.items) == ["a.png", "a.tif.tif"], str(done)
