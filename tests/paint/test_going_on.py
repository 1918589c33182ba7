"""A run that goes on with a large painting: what is kept when memory runs out, and what keeps nobody from painting."""

from __future__ import annotations

import os
import re
import shutil
import sys
from collections.abc import Callable
from contextlib import closing, nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
import torch
from painting import large_above, model_of, picture, unet, whole_logits
from PIL import Image
from torch import Tensor, nn

from whatwhere.paint import Engine, Tiling, paint, predict
from whatwhere.paint.backends import EAGER, Backend
from whatwhere.paint.candidates import Candidates
from whatwhere.paint.choice import insist
from whatwhere.paint.claims import TakenError, run_in
from whatwhere.paint.engine import BackendFailure
from whatwhere.paint.files import open_image, state_of
from whatwhere.paint.journal import Journal
from whatwhere.paint.ledger import work_of
from whatwhere.paint.outputs import Options, names, paint_to_files
from whatwhere.paint.paint import paint_source
from whatwhere.paint.scheme import Scheme
from whatwhere.paint.stores import JournaledSink, RawStore, move

MODEL = model_of(unet())


@pytest.fixture
def slide(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A TIFF that counts as large."""
    large_above(monkeypatch)
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
    assert not (tmp_path / "out/slide.tif.partial").exists(), "nothing of it is finished"
    item = _predict(slide, tmp_path / "out", tile=192)
    assert item.status == "done", item.error


# -- with workers and without: boxes are kept otherwise ----------------------------------------------------------------


class _Global(nn.Module):
    """Sees the whole image: its tiles are blended, and lie in the same places wherever they are kept."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.layers = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.InstanceNorm2d(4), nn.Conv2d(4, 3, 1))

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.layers(x)
        return logits


def _to_files(slide: Path, out: Path, network: nn.Module, tile: int, workers: bool, **options: Any) -> list[int]:
    """As ``predict`` does it with workers or without; returns the tiles done whenever it was told."""
    stop, seen = options.pop("stop", 0), list[int]()

    def progress(done: int, _all: int) -> None:
        seen.append(done)
        if done == stop:
            raise KeyboardInterrupt

    engine, source = Engine(model_of(network), "float32", backend="eager"), open_image(slide)
    with closing(source):
        target, wanted = names(out / "slide", slide, source.size), Options(tile=tile, **options)
        painter = paint_source if workers else None
        work = work_of({}, slide, state_of(slide), source, wanted)
        paint_to_files(
            engine, source, target, wanted, work, progress, painter=painter,
            arrives=lambda made: move(made, target.labels),
        )  # fmt: skip
    return seen


@pytest.mark.parametrize("workers", [True, False])
@pytest.mark.parametrize(
    ("make", "tile", "stop"), [(unet, 320, 3), pytest.param(_Global, 128, 20, marks=pytest.mark.slow)]
)
def test_what_was_begun_with_workers_or_without_is_not_thrown_away_by_the_other(
    make: Callable[[], nn.Module], tile: int, stop: int, workers: bool, slide: Path, tmp_path: Path
) -> None:
    pytest.importorskip("zarr")
    with pytest.raises(KeyboardInterrupt):
        _to_files(slide, tmp_path / "out", make(), tile, workers, stop=stop)
    journal = tmp_path / "out/slide.tif.partial/journal"
    before = _done(journal)
    assert before
    begun = "with" if workers else "without"
    with pytest.raises(TakenError, match=f"in another kind of store, begun {begun} --cluster; .*--overwrite"):
        _to_files(slide, tmp_path / "out", make(), tile, not workers)
    assert _done(journal) == before
    assert _to_files(slide, tmp_path / "out", make(), tile, workers)[0] > len(before), "it goes on"
    with pytest.raises(KeyboardInterrupt):
        _to_files(slide, tmp_path / "out", make(), tile, workers, stop=stop)
    assert _to_files(slide, tmp_path / "out", make(), tile, not workers, overwrite=True)[0] == 1, "it begins anew"


def _seeded(seed: int) -> Engine:
    return Engine(model_of(unet(seed=seed)), "float32", backend="eager")


@pytest.mark.parametrize("begun", ["another model", "the same model again", "with probabilities"])
def test_what_another_run_has_half_painted_outlives_a_painting_that_is_done_before(
    begun: str, slide: Path, tmp_path: Path
) -> None:
    """Hours of it: only what is left of the painting itself goes."""
    out, seen = tmp_path / "out", list[int]()
    other = _seeded(1 if begun == "another model" else 0)
    options: dict[str, Any] = {"probabilities": True} if begun == "with probabilities" else {"overwrite": True}
    assert not predict(_seeded(0), slide, out, tile=160).failed
    with pytest.raises(KeyboardInterrupt):
        predict(other, slide, out, tile=160, progress=_stop_after(3), **options)
    before = _done(out / "slide.tif.partial/journal")
    for _ in range(2):
        (item,) = predict(_seeded(0), slide, out, tile=160).items
        assert item.status == "skipped"
        assert str(item).endswith(f"done before; {out}/slide.tif.partial holds another painting that was interrupted, "
                                  "and stays as it is")  # fmt: skip
        assert _done(out / "slide.tif.partial/journal") == before
    (item,) = predict(other, slide, out, tile=160, progress=lambda *told: seen.append(told[1]), **options).items
    assert item.status == "done", item.error
    assert seen[0] > len(before) > 0, "it goes on"
    (item,) = predict(other, slide, out, tile=160).items
    assert str(item).endswith("done before")


def test_what_a_finished_painting_has_left_goes(slide: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr("whatwhere.paint.ledger.move", lambda made, target, **_: (move(made, target), killed()))
        with pytest.raises(KeyboardInterrupt):
            _predict(slide, tmp_path / "out", tile=160)
    assert (tmp_path / "out/slide.tif.partial/journal").exists()
    assert str(_predict(slide, tmp_path / "out", tile=160)).endswith("done before")
    assert not (tmp_path / "out/slide.tif.partial").exists()


@pytest.mark.parametrize("change", ["touched", "written anew"])
def test_an_image_that_changes_while_it_is_painted_is_not_painted_in_parts(
    change: str, slide: Path, tmp_path: Path
) -> None:
    other = 255 - picture(400, 380) if change == "written anew" else picture(400, 380)

    def change_it(_name: str, done: int, _all: int) -> None:
        if done == 3:
            tifffile.imwrite(tmp_path / "new.tif", other, photometric="rgb", tile=(64, 64))
            (tmp_path / "new.tif").replace(slide)

    item = _predict(slide, tmp_path / "out", tile=160, progress=change_it)
    assert item.status == "failed"
    assert "slide.tif was changed while it was painted" in item.error
    assert not (tmp_path / "out/slide.tif").exists()
    again = _predict(slide, tmp_path / "out", tile=160)
    assert "begun anew" in str(again.report)
    np.testing.assert_array_equal(
        tifffile.imread(tmp_path / "out/slide.tif"), paint(MODEL, other, precision="float32").labels
    )


@pytest.mark.parametrize("size", ["small", "large"])
def test_an_image_that_changes_right_after_it_was_opened_is_not_noted_as_the_new_one(
    size: str, slide: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if size == "small":
        slide = tmp_path / "a.png"
        Image.fromarray(picture(40, 40)).save(slide)
    other = 255 - picture(40, 40)

    def opened(path: Path, *how: Any) -> Any:
        source = open_image(path, *how)
        Image.fromarray(other).save(tmp_path / f"new{slide.suffix}")
        (tmp_path / f"new{slide.suffix}").replace(slide)
        return source

    with monkeypatch.context() as patched:
        patched.setattr(sys.modules["whatwhere.paint.predict"], "open_image", opened)
        item = _predict(slide, tmp_path / "out")
    assert item.status == "failed"
    assert f"{slide.name} was changed while it was painted" in item.error
    assert _predict(slide, tmp_path / "out").status == "done"
    assert _predict(slide, tmp_path / "out").status == "skipped"


def test_an_image_that_is_taken_away_while_it_is_painted_is_painted_to_its_end(slide: Path, tmp_path: Path) -> None:
    def remove(_name: str, done: int, _all: int) -> None:
        if done == 3:
            slide.unlink()

    assert _predict(slide, tmp_path / "out", tile=160, progress=remove).status == "done"


def test_what_was_painted_of_an_image_that_has_changed_or_gone_is_told(slide: Path, tmp_path: Path) -> None:
    _interrupt(slide, tmp_path / "out", 3, tile=160)
    os.utime(slide, (0, 0))
    note = str(_predict(slide, tmp_path / "out", tile=160).report)
    assert re.search("begun anew, [23] tiles were painted: the image has changed since", note)
    (tmp_path / "out/slide.tif").unlink()
    _interrupt(slide, tmp_path / "out", 3, tile=160)
    (tmp_path / "elsewhere").mkdir()
    moved = slide.rename(tmp_path / "elsewhere/slide.tif")
    note = str(_predict(moved, tmp_path / "out", tile=160).report)
    assert f"{slide} is not there any more" in note


def test_a_folder_that_is_taken_away_ends_its_painting(slide: Path, tmp_path: Path) -> None:
    seen = []

    def remove(_name: str, done: int, of: int) -> None:
        seen.append(of - done)
        if done == 3:
            shutil.rmtree(tmp_path / "out/slide.tif.partial")

    item = _predict(slide, tmp_path / "out", tile=160, progress=remove)
    assert item.status == "failed"
    assert "slide.tif.partial was taken away, or emptied, while it was painted into" in item.error
    assert seen[-1] > 4, "most is not painted into files that have no name any more"
    assert _predict(slide, tmp_path / "out", tile=160).status == "done"


def test_tiles_that_lie_in_other_places_do_not_throw_away_what_is_half_painted(tmp_path: Path) -> None:
    for halo, refused in ((4, False), (8, True), (4, False)):
        plan = Scheme(Tiling((64, 64), (32, 32), ((halo, halo), (halo, halo)), (4, 4)), exact=True)
        sink = JournaledSink(tmp_path / "partial", {"image": str(tmp_path)}, RawStore((64, 64)))
        with pytest.raises(TakenError, match="32x32 lie in other places") if refused else nullcontext():
            sink.begin(plan, "eager float32")
            sink.note(2)
        sink.close()
    assert _done(tmp_path / "partial/journal") == {2}


def test_what_is_made_anew_has_its_new_name_before_it_is_there(tmp_path: Path) -> None:
    """A worker of a killed run asks for the name, and writes where it is still its own."""

    class Watched(RawStore):
        def create(self, folder: Path) -> None:
            names_while_made.append(run_in(folder))
            super().create(folder)

    names_while_made: list[str | None] = []
    plan = Scheme(Tiling((64, 64), (32, 32)), exact=True)
    for image in ("one", "other"):
        sink = JournaledSink(tmp_path / "partial", {"image": image}, Watched((64, 64)))
        with closing(sink):
            sink.begin(plan, "")
            assert run_in(sink.folder) == sink.run == names_while_made[-1]
    assert len(set(names_while_made)) == 2


# -- int8, which only those get who ask for no precision ---------------------------------------------------------------


@pytest.fixture
def _quantised(monkeypatch: pytest.MonkeyPatch) -> None:
    """A quantised file that counts as kept beside the model, and as the fastest."""
    int8 = Backend("int8-onnx", EAGER.prepare, lambda _: "", precisions=("int8",), differs=lambda *_: "", content="x")

    def found(backend: object, _device: str, precision: str, *_: object) -> Candidates:
        return Candidates((int8,) if (backend, precision) == ("auto", "auto") else ())

    monkeypatch.setattr("whatwhere.paint.engine.candidates", found)
    monkeypatch.setattr("whatwhere.paint.engine.choose", lambda scene, able, store: insist(scene, able[0], store))


def _engine(precision: Any) -> Engine:
    return Engine(MODEL, precision, images=10**6)


def _asked() -> Any:
    """What the machine computes in, so that nothing else tells the paintings apart."""
    return Engine(MODEL).job.precision


@pytest.mark.usefixtures("_quantised")
@pytest.mark.parametrize("large", [True, False])
def test_a_painting_by_int8_is_not_that_of_a_precision_that_is_asked_for(
    large: bool, slide: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out, asked = tmp_path / "out", _asked()
    if not large:
        large_above(monkeypatch, 10**6)
    (item,) = predict(_engine("auto"), slide, out, tile=160).items
    assert item.report is not None
    assert item.report.precision == "int8"
    (item,) = predict(_engine(asked), slide, out, tile=160).items
    assert f"slide.tif is there already, with precision int8, and this one has precision {asked}" in item.error
    assert predict(_engine("auto"), slide, out, tile=160).items[0].status == "skipped"
    (item,) = predict(_engine(asked), slide, out, tile=160, overwrite=True).items
    assert item.report is not None
    assert item.report.precision == asked
    for precision in ("auto", asked):
        assert predict(_engine(precision), slide, out, tile=160).items[0].status == "skipped"


@pytest.mark.usefixtures("_quantised")
@pytest.mark.parametrize("begun_by_int8", [True, False])
def test_int8_and_a_precision_that_is_asked_for_do_not_go_on_with_each_other(
    begun_by_int8: bool, slide: Path, tmp_path: Path
) -> None:
    out, asked, seen = tmp_path / "out", _asked(), list[int]()
    first, second = ("auto", asked) if begun_by_int8 else (asked, "auto")
    with pytest.raises(KeyboardInterrupt):
        predict(_engine(first), slide, out, tile=160, progress=_stop_after(3))
    before = _done(out / "slide.tif.partial/journal")
    assert before
    if begun_by_int8:
        (item,) = predict(_engine(second), slide, out, tile=160).items
        assert "holds an interrupted painting that differs in: precision (begun in int8)" in item.error
        assert _done(out / "slide.tif.partial/journal") == before
        second = first
    (item,) = predict(_engine(second), slide, out, tile=160, progress=lambda *told: seen.append(told[1])).items
    assert item.report is not None, item.error
    assert item.report.precision == ("int8" if begun_by_int8 else asked)
    assert seen[0] > len(before), "it goes on"
    (item,) = predict(_engine(asked), slide, out, tile=160).items
    assert item.status == ("failed" if begun_by_int8 else "skipped")


@pytest.mark.usefixtures("_quantised")
def test_a_journal_that_does_not_say_whether_int8_will_do_is_gone_on_with(slide: Path, tmp_path: Path) -> None:
    """As earlier versions wrote them."""
    out, seen = tmp_path / "out", list[int]()
    with pytest.raises(KeyboardInterrupt):
        predict(_engine("auto"), slide, out, tile=160, progress=_stop_after(3))
    journal = out / "slide.tif.partial/journal"
    journal.write_bytes(journal.read_bytes().replace(b'"int8": true, ', b""))
    assert "int8" not in Journal.work(journal)
    assert "begun in int8" in predict(_engine(_asked()), slide, out, tile=160).items[0].error
    predict(_engine("auto"), slide, out, tile=160, progress=lambda *told: seen.append(told[1]))
    assert seen[0] > 1


@pytest.mark.usefixtures("_quantised")
def test_what_int8_began_and_could_not_end_is_known_as_what_ended_it(
    slide: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    honest = Engine.logits

    def breaks(self: Engine, batch: Tensor) -> Tensor:
        if self.backend != "eager":
            raise BackendFailure("int8-onnx is not used any more")
        return honest(self, batch)

    monkeypatch.setattr(Engine, "logits", breaks)
    (item,) = predict(_engine("auto"), slide, tmp_path / "out", tile=160).items
    assert item.report is not None
    assert item.report.precision == _asked()
    assert predict(_engine(_asked()), slide, tmp_path / "out", tile=160).items[0].status == "skipped"
