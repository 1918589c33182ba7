"""A run that goes on with a large painting: what is kept when memory runs out, and what keeps nobody from painting."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from painting import model_of, picture, unet, whole_logits
from torch import Tensor

from whatwhere.paint import Engine, predict
from whatwhere.paint.journal import Journal

MODEL = model_of(unet())


@pytest.fixture
def slide(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A TIFF that counts as large."""
    for module in ("whatwhere.paint.files", "whatwhere.paint.outputs"):
        monkeypatch.setattr(f"{module}.LARGE", 100)
    tifffile.imwrite(tmp_path / "slide.tif", picture(400, 380), photometric="rgb", tile=(64, 64))
    return tmp_path / "slide.tif"


def _stop_after(tiles: int) -> Callable[[str, int, int], None]:
    def stop(_name: str, done: int, _all: int) -> None:
        if done == tiles:
            raise KeyboardInterrupt

    return stop


def _short_of_memory(monkeypatch: pytest.MonkeyPatch, pixels: int) -> None:
    honest = Engine.logits

    def scarce(self: Engine, batch: Tensor) -> Tensor:
        if batch.shape[-1] * batch.shape[-2] > pixels:
            raise RuntimeError("DefaultCPUAllocator: not enough memory")
        return honest(self, batch)

    monkeypatch.setattr(Engine, "logits", scarce)


def _predict(slide: Path, out: Path, **options: Any) -> Any:
    (item,) = predict(Engine(MODEL, "float32", backend="eager"), slide, out, **options).items
    return item


def _interrupt(slide: Path, out: Path, tiles: int = 3, **options: Any) -> Path:
    with pytest.raises(KeyboardInterrupt):
        _predict(slide, out, progress=_stop_after(tiles), **options)
    return out / "slide.tif.partial/journal"


def _done(journal: Path) -> frozenset[int]:
    return Journal(journal, Journal.work(journal)).done


def test_what_an_earlier_run_has_finished_is_kept_where_memory_runs_out(
    slide: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    journal = _interrupt(slide, tmp_path / "out", tile=192)
    before = _done(journal)
    assert before
    for asked in ({}, {"tile": 192}):
        with monkeypatch.context() as patched:
            _short_of_memory(patched, 100 * 100)
            item = _predict(slide, tmp_path / "out", **asked)
        assert item.status == "failed"
        assert "memory ran out with tiles of 192x192, in which" in item.error
        assert "run the same command again, or begin anew with --overwrite" in item.error
        assert _done(journal) == before
    seen: list[int] = []
    assert _predict(slide, tmp_path / "out", progress=lambda *told: seen.append(told[1])).status == "done"
    assert seen[0] > len(before), "it goes on"


def test_overwrite_begins_anew_in_smaller_tiles_where_memory_runs_out(
    slide: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _interrupt(slide, tmp_path / "out", tile=192)
    _short_of_memory(monkeypatch, 150 * 150)
    item = _predict(slide, tmp_path / "out", overwrite=True)
    assert item.status == "done", item.error
    assert "memory ran out with tiles of 192x192; went on with" in str(item.report)
    np.testing.assert_array_equal(
        tifffile.imread(tmp_path / "out/slide.tif"), whole_logits(MODEL, tifffile.imread(slide)).argmax(0)
    )


@pytest.mark.parametrize("again", [{"tile": 192}, {"tile": (192, 192)}, {}])
def test_the_same_command_goes_on_with_the_tiles_that_an_earlier_run_came_down_to(
    slide: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, again: dict[str, Any]
) -> None:
    with monkeypatch.context() as patched:
        _short_of_memory(patched, 150 * 150)
        journal = _interrupt(slide, tmp_path / "out", tile=192)
    before, work = _done(journal), Journal.work(journal)
    assert before
    assert work["tile"] != [192, 192]
    item = _predict(slide, tmp_path / "out", tile=256)
    assert "tiles of 256x256 are asked for" in item.error, "that is another command"
    _interrupt(slide, tmp_path / "out", len(before) + 2, **again)
    assert Journal.work(journal) == work
    seen: list[int] = []
    item = _predict(slide, tmp_path / "out", progress=lambda *told: seen.append(told[1]), **again)
    assert item.status == "done", item.error
    assert seen[0] > len(before)
    np.testing.assert_array_equal(
        tifffile.imread(tmp_path / "out/slide.tif"), whole_logits(MODEL, tifffile.imread(slide)).argmax(0)
    )


def test_a_journal_that_does_not_say_what_was_asked_for_is_gone_on_with(slide: Path, tmp_path: Path) -> None:
    """As earlier versions wrote them."""
    journal = _interrupt(slide, tmp_path / "out", tile=192)
    lines, before = journal.read_bytes(), _done(journal)
    journal.write_bytes(lines.replace(b'"asked": [192, 192], ', b""))
    assert "asked" not in Journal.work(journal)
    seen: list[int] = []
    assert _predict(slide, tmp_path / "out", tile=192, progress=lambda *told: seen.append(told[1])).status == "done"
    assert seen[0] > len(before)


def test_a_model_that_failed_in_its_first_tile_leaves_the_place_to_the_right_one(slide: Path, tmp_path: Path) -> None:
    wrong = Engine(model_of(unet(channels=1), channels=1), "float32", backend="eager")
    (item,) = predict(wrong, slide, tmp_path / "out", tile=192).items
    assert item.status == "failed"
    assert (tmp_path / "out/slide.tif.partial/journal").exists()
    item = _predict(slide, tmp_path / "out", tile=192)
    assert item.status == "done", item.error
