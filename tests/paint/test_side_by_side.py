"""Two runs that paint the same small images into one folder: each painting is of whom the folder says it is."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from painting import large_above, model_of, picture, unet
from PIL import Image

from whatwhere.errors import PlaceError
from whatwhere.network import save_model
from whatwhere.paint import Engine, outputs, predict
from whatwhere.paint.claims import TakenError, claimed, in_turn
from whatwhere.paint.ledger import Ledger
from whatwhere.writing import left_behind

MODELS = [model_of(unet(seed=seed)) for seed in (0, 1)]


@pytest.fixture
def images(tmp_path: Path) -> Path:
    folder = tmp_path / "images"
    folder.mkdir()
    for number in range(4):
        Image.fromarray(picture(90, 70, seed=number)).save(folder / f"{number}.png")
    return folder


def _started(*arguments: Any, **options: Any) -> tuple[threading.Thread, list[Any]]:
    found: list[Any] = []
    options |= {"precision": "float32", "backend": "eager"}
    thread = threading.Thread(target=lambda: found.append(predict(*arguments, **options)))
    thread.start()
    return thread, found


@pytest.mark.parametrize("same", [True, False])
def test_who_comes_second_waits_and_sees_what_was_painted(same: bool, images: Path, tmp_path: Path) -> None:
    first = MODELS[0] if same else MODELS[1]
    predict(first, images / "0.png", tmp_path / "elsewhere", precision="float32", backend="eager")
    out = tmp_path / "out"
    with claimed(out / "0.png.partial"):
        thread, found = _started(MODELS[0], images / "0.png", out)
        thread.join(1.0)
        assert thread.is_alive(), "it waits"
        for name in ("predictions.jsonl", "0.png"):
            (out / name).write_bytes((tmp_path / "elsewhere" / name).read_bytes())
        lines = (out / "predictions.jsonl").read_text("utf-8")
    thread.join()
    (item,) = found[0].items
    assert item.status == ("skipped" if same else "failed")
    if not same:
        assert "0.png is there already, from another model" in item.error
    assert (out / "predictions.jsonl").read_text("utf-8") == lines, "nothing was begun"
    assert not left_behind(out / "0.png")
    assert sorted(path.name for path in out.iterdir()) == ["0.png", "predictions.jsonl"]


@pytest.mark.parametrize("large", [False, True])
def test_what_lies_beside_labels_of_two_endings_is_made_by_one_at_a_time(
    large: bool, images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """0.overlay.png goes with 0.png or with 0.tif, which have places of their own."""
    out, options = tmp_path / "out", {"precision": "float32", "backend": "eager", "overlay": True}
    predict(MODELS[0], images / "0.png", tmp_path / "elsewhere", **options)
    tifffile.imwrite(tmp_path / "0.tif", picture(90, 70), photometric="rgb")
    if large:
        monkeypatch.setattr("whatwhere.paint.outputs.LARGE", 100)
    with claimed(out / "0.overlay.png.partial"):
        thread, found = _started(MODELS[0], tmp_path / "0.tif", out, overlay=True)
        thread.join(1.0)
        if large:
            thread.join()
        assert thread.is_alive() != large
        for name in ("predictions.jsonl", "0.png", "0.overlay.png"):
            (out / name).write_bytes((tmp_path / "elsewhere" / name).read_bytes())
    thread.join()
    (item,) = found[0].items
    assert ("is being painted by another process" if large else "goes with") in item.error
    assert (out / "0.overlay.png").read_bytes() == (tmp_path / "elsewhere/0.overlay.png").read_bytes()
    assert sorted(path.name for path in out.iterdir()) == ["0.overlay.png", "0.png", "predictions.jsonl"]


def test_nobody_waits_for_ever(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("whatwhere.paint.claims._PATIENCE", 0.2)
    refused = pytest.raises(TakenError, match="a is being painted by another process")
    with claimed(tmp_path / "a.partial"), refused, in_turn(tmp_path / "a.partial"):
        pass
    with in_turn(tmp_path / "a.partial"):
        assert (tmp_path / "a.partial").is_dir()
    assert not (tmp_path / "a.partial").exists()


def test_two_processes_with_two_models_mix_nothing_up(images: Path, tmp_path: Path) -> None:
    out, expected = tmp_path / "out", {}
    running = []
    for number, model in enumerate(MODELS):
        file = save_model(model, tmp_path / f"{number}.safetensors")
        options = ["-q", "--precision", "float32", "--backend", "eager"]
        predict(file, images, tmp_path / f"{number}", precision="float32", backend="eager")
        expected[number] = {path.name: np.asarray(Image.open(path)) for path in (tmp_path / f"{number}").glob("*.png")}
        command = [sys.executable, "-m", "whatwhere", "predict", file, images, "-o", out, *options]
        running.append(subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True))
    said = [process.communicate()[0] for process in running]
    painted = {path.name: np.asarray(Image.open(path)) for path in out.glob("*.png")}
    assert painted.keys() == expected[0].keys()
    for number, model in enumerate(MODELS):
        own = [name for name, labels in painted.items() if np.array_equal(labels, expected[number][name])]
        assert f"{len(own)} done" in said[number] or not own, said[number]
        again = predict(model, images, out, precision="float32", backend="eager")
        kept = [Path(item.output or "").name for item in again.items if item.status == "skipped"]
        assert sorted(kept) == sorted(own)


@pytest.mark.parametrize("moment", ["before its place is held", "after it has failed"])
def test_who_fails_does_not_cross_out_who_began_meanwhile(
    moment: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    large_above(monkeypatch)
    tifffile.imwrite(tmp_path / "0.tif", picture(90, 70), photometric="rgb", tile=(64, 64))
    first, second = (Engine(model, "float32", backend="eager") for model in MODELS)
    out, others, honest = tmp_path / "out", list[str](), Ledger.fail

    def other() -> None:
        others.append("begins")
        others.extend(item.status for item in predict(second, tmp_path / "0.tif", out, overwrite=True).items)

    def fails(*_given: Any, **_options: Any) -> None:
        raise PlaceError("0.tif can't be written", "room", "make room")

    @contextmanager
    def held(folder: Path, **options: Any) -> Iterator[None]:
        if not others:
            other()
            fails()
        with claimed(folder, **options):
            yield

    def failed(ledger: Ledger, *given: Any) -> None:
        if not others:
            other()
        honest(ledger, *given)

    finish = outputs._finish
    with monkeypatch.context() as patched:
        if moment == "before its place is held":
            patched.setattr(outputs, "claimed", held)
        else:
            patched.setattr(outputs, "_finish", lambda *given: finish(*given) if others else fails())
            patched.setattr(Ledger, "fail", failed)
        assert predict(first, tmp_path / "0.tif", out, overwrite=True).failed
    assert others == ["begins", "done"]
    assert predict(second, tmp_path / "0.tif", out).items[0].status == "skipped"
    assert "is there already, from another model" in predict(first, tmp_path / "0.tif", out).items[0].error


def test_lines_without_a_mark_are_read_as_they_were(images: Path, tmp_path: Path) -> None:
    """Of earlier versions: what failed was what began last, and nothing says what was done."""
    engine, out = Engine(MODELS[0], "float32", backend="eager"), tmp_path / "out"
    predict(engine, images / "0.png", out)
    ledger, state = out / "predictions.jsonl", (out / "0.png").stat()
    line = json.loads(ledger.read_text("utf-8").splitlines()[0])
    line = {key: line[key] for key in ("output", "work", "beside", "before")}
    again = {**line, "before": [state.st_mtime_ns, state.st_size], "work": {**line["work"], "model": "another"}}
    os.utime(out / "0.png", (0, 0))  # or else it shows already that it is not of the second
    for failed, status in ([], "failed"), ([{"output": "0.png", "failed": True}], "skipped"):
        ledger.write_text("".join(f"{json.dumps(one)}\n" for one in [line, again, *failed]), "utf-8")
        assert predict(engine, images / "0.png", out).items[0].status == status


@pytest.mark.parametrize("how", ["killed", "failed"])
def test_what_lies_beside_labels_is_made_again_where_another_painting_may_have_replaced_it(
    how: str, images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Probabilities come to their place before labels; who stops in between leaves his beside another's labels."""
    out, options = tmp_path / "out", {"probabilities": True, "precision": "float32", "backend": "eager"}
    predict(MODELS[0], images / "0.png", out, **options)
    first = (out / "0.probabilities.tif").read_bytes()

    def stops(*_given: Any, **_options: Any) -> None:
        raise KeyboardInterrupt if how == "killed" else PlaceError("0.png can't be written", "room", "make room")

    with monkeypatch.context() as patched:
        patched.setattr("whatwhere.paint.outputs.write_label_image", stops)
        if how == "killed":
            with pytest.raises(KeyboardInterrupt):
                predict(MODELS[1], images / "0.png", out, overwrite=True, **options)
        else:
            assert predict(MODELS[1], images / "0.png", out, overwrite=True, **options).failed
    assert (out / "0.probabilities.tif").read_bytes() != first
    (item,) = predict(MODELS[0], images / "0.png", out, **options).items
    assert item.status == "done"
    np.testing.assert_array_equal(
        tifffile.imread(out / "0.probabilities.tif"), tifffile.imread(io.BytesIO(first)), strict=True
    )
    (item,) = predict(MODELS[0], images / "0.png", out, **options).items
    assert item.status == "skipped", "once made again, it is known"


def test_a_place_that_is_given_up_in_this_moment_is_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    place, mkdir, refused = tmp_path / "a.partial", os.mkdir, []
    place.mkdir()

    def leaves(path: Any, mode: int = 0o777, **where: Any) -> None:
        try:
            mkdir(path, mode, **where)
        except FileExistsError:
            if not refused and Path(path) == place:
                refused.append(path)
                place.rmdir()
            raise

    monkeypatch.setattr(os, "mkdir", leaves)
    with claimed(place):
        assert place.is_dir()
        assert refused
    assert not place.exists()


@pytest.mark.parametrize("what", ["a file", "a link to nothing"])
def test_what_is_no_folder_is_no_place_to_paint(tmp_path: Path, what: str) -> None:
    place = tmp_path / "a.partial"
    if what == "a file":
        place.touch()
    else:
        place.symlink_to(tmp_path / "nowhere")
    with pytest.raises(PlaceError, match="can't be written"), claimed(place):
        pass


def test_many_that_take_turns_never_hold_a_place_together(tmp_path: Path) -> None:
    """Who leaves takes the folder away, between another's making it and holding it."""
    place, inside, most = tmp_path / "a.partial", [0], [0]

    def work() -> None:
        for _ in range(60):
            with in_turn(place):
                inside[0] += 1
                most[0] = max(most[0], inside[0])
                inside[0] -= 1

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert most == [1]
    assert not place.exists()
