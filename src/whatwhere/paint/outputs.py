"""Finished paintings to files: which format goes with which input; each is written aside and moved to its place whole.

    picture  -> paletted PNG (or TIFF when large)          probabilities -> TIFF of one plane a class
    TIFF     -> tiled, compressed TIFF with a colour map   probabilities -> TIFF of one plane a class
    GeoTIFF  -> GeoTIFF in the same coordinates            probabilities -> GeoTIFF of one band a class
    Zarr     -> Zarr (OME-Zarr -> OME-Zarr)                probabilities -> Zarr (C, H, W)

Probabilities are stored as shares of 255 (uint8): readable everywhere, off by at most 0.002.
Files beside a picture that say where on Earth it lies come to lie beside what is painted from it.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from whatwhere.data.images import read_mask
from whatwhere.data.label_images import write_label_image
from whatwhere.data.tiffs import TIFF_SUFFIXES, open_tiff
from whatwhere.errors import DataError, PlanError
from whatwhere.paint.claims import claimed, writing
from whatwhere.paint.engine import Engine
from whatwhere.paint.files import LARGE, Opaque, state_of
from whatwhere.paint.geotiff import GeoSource, write_geotiff, write_planes_geotiff
from whatwhere.paint.overlay import write_overlay
from whatwhere.paint.paint import ArraySink, PaintReport, paint_source
from whatwhere.paint.placed import Place, files_of_place, lay, notes_of, place_of
from whatwhere.paint.scale import PixelSize, pixel_size
from whatwhere.paint.sources import ArraySource, Source
from whatwhere.paint.stores import JournaledSink, RawStore, Store, ZarrStore, as_shares, move
from whatwhere.paint.tiff import Plane, shrinkings, write_planes_tiff, write_tiff
from whatwhere.paint.work import Progress
from whatwhere.paint.zarrs import ZarrSource, add_levels, open_labels, sweep
from whatwhere.records import Box, Classes
from whatwhere.writing import is_there, shortened, whole_file

__all__ = ["Names", "Options", "Painter", "is_small", "lay_over", "names", "paint_to_files"]

Pair = tuple[int, int]


@dataclass(frozen=True)
class Names:
    """The files of one painting."""

    labels: Path
    overlay: Path
    probabilities: Path

    @property
    def partial(self) -> Path:
        """The folder of a large painting until it is finished."""
        return self.labels.with_name(shortened(self.labels.name) + ".partial")

    @property
    def made(self) -> Path:
        """In that folder the finished labels, until they come to their place."""
        return self.partial / f"labels{self.labels.suffix}"

    @property
    def sides(self) -> Path:
        """The folder that is held while anything beside labels is made: x.png and x.tif share the names of that."""
        return self.overlay.with_name(shortened(self.overlay.name) + ".partial")

    @property
    def files(self) -> tuple[Path, ...]:
        """All that there may be of it."""
        placed = *files_of_place(self.labels), *files_of_place(self.probabilities)
        return self.labels, self.overlay, self.probabilities, *placed

    def beside(self, options: Options) -> dict[str, Path]:
        """What is asked for beside the labels."""
        asked = {"overlay": options.overlay, "probabilities": options.probabilities}
        return {kind: getattr(self, kind) for kind, wanted in asked.items() if wanted}


@dataclass(frozen=True)
class Options:
    """What is written, and in what tiles it is computed."""

    overlay: bool = False
    probabilities: bool = False
    tile: int | tuple[int, int] | None = None
    batch: int = 1
    overwrite: bool = False

    def __post_init__(self) -> None:
        sides = (self.tile,) if isinstance(self.tile, int) else self.tile or ()
        if any(side < 1 for side in sides):
            raise PlanError(f"tile = {self.tile}", "at least 1 pixel", "leave it out, and memory decides")
        if self.batch < 1:
            raise PlanError(f"batch = {self.batch}", "at least 1", "")


def names(stem: Path, source: Path, size: tuple[int, int]) -> Names:
    """Where the painting of ``source`` goes: ``stem`` with the endings its kind asks for."""
    kind = source.suffix.lower()
    large = size[0] * size[1] > LARGE
    ending = ".zarr" if source.is_dir() else ".tif" if kind in TIFF_SUFFIXES or large else ".png"
    shares = ".zarr" if ending == ".zarr" else ".tif"
    return Names(
        stem.with_name(stem.name + ending),
        stem.with_name(stem.name + ".overlay.png"),
        stem.with_name(stem.name + ".probabilities" + shares),
    )


class Painter(Protocol):
    """What paints a source into a sink: this process (`paint_source`) or many."""

    def __call__(
        self, engine: Engine, source: Source, sink: JournaledSink, *, probabilities: bool, tile: int | Pair | None,
        batch: int, align: int, progress: Progress | None,
    ) -> PaintReport:  # fmt: skip
        ...


def is_small(source: Source) -> bool:
    """Whether an image is read, painted and written in memory, at once."""
    return isinstance(_inside(source), ArraySource) and source.size[0] * source.size[1] <= LARGE


def paint_to_files(
    engine: Engine,
    source: Source,
    target: Names,
    options: Options,
    work: dict[str, Any],
    progress: Progress | None = None,
    *,
    arrives: Callable[[Path], None],
    painter: Painter | None = None,
    still: Callable[[], None] | None = None,
    begins: Callable[[str], None] | None = None,
) -> PaintReport:
    """Paints one image to its files; the labels come last, and only when all is done.

    Args:
        work: what makes two runs the same, for continuing an interrupted one.
        arrives: called with the finished labels, which lie in the partial folder; puts them at their place.
        painter: who paints large images; None is this process.
        still: called before a small image's files are written; raises where nobody wants them any more.
        begins: called when the place is held and it is known what paints, with :attr:`Engine.how`; perhaps again.
    """
    with writing(target.labels.parent):
        target.labels.parent.mkdir(parents=True, exist_ok=True)
    place, notes = _place_of(source)
    if is_small(source):

        def check() -> None:
            _refuse_changed(work, _inside(source))
            if still:
                still()

        report = _paint_small(engine, source, target, options, place, arrives, progress, check, begins)
        return replace(report, notes=(*report.notes, *notes))
    classes, inner = engine.model.classes, _inside(source)
    store: Store = RawStore(source.size, classes.count if options.probabilities else 0)
    if isinstance(inner, ZarrSource) or painter is not None:  # chunks that several processes can write
        like = inner if isinstance(inner, ZarrSource) else None
        store = ZarrStore(source.size, classes, like, probabilities=options.probabilities)
    sink = JournaledSink(target.partial, work, store, asked=options.tile, overwrite=options.overwrite, begins=begins)
    with claimed(sink.folder):
        try:
            report = (painter or paint_source)(
                engine, source, sink, probabilities=options.probabilities, tile=sink.tile, batch=options.batch,
                align=store.align, progress=progress,
            )  # fmt: skip
            _refuse_changed(work, inner)
            with writing(target.labels):
                _finish(sink, source, target, options, classes, place, arrives)
        finally:
            sink.close()
        shutil.rmtree(sink.folder, ignore_errors=True)
    return replace(report, notes=(*sink.notes, *report.notes, *notes))


def _refuse_changed(work: dict[str, Any], inner: Source) -> None:
    """Of an image that was written anew while it was painted some tiles are of another one.

    A file that is taken away can be read to its end by who has opened it; of a Zarr folder each chunk is opened anew.
    """
    image = Path(work["image"])
    if (is_there(image) or isinstance(inner, ZarrSource)) and state_of(image) != (work["bytes"], work["modified"]):
        raise DataError(
            f"{image} was changed while it was painted",
            "an image that stays as it is until its painting is finished",
            "run the same command again, which begins anew",
        )


def _paint_small(
    engine: Engine, source: Source, target: Names, options: Options, place: Place, arrives: Callable[[Path], None],
    progress: Progress | None, check: Callable[[], None], begins: Callable[[str], None] | None,
) -> PaintReport:  # fmt: skip
    classes = engine.model.classes
    sink = ArraySink(source.size, classes.count if options.probabilities else None, as_shares, np.uint8, begins)
    report = paint_source(
        engine, source, sink, probabilities=options.probabilities, tile=options.tile, batch=options.batch,
        progress=progress,
    )  # fmt: skip
    check()
    if sink.probabilities is not None:
        shares = sink.probabilities
        lay(place, target.probabilities)
        with whole_file(target.probabilities) as partial:
            write_planes_tiff(partial, shares.shape, lambda plane, box: shares[plane][_slices(box)])
    if options.overlay:
        with whole_file(target.overlay) as partial:
            write_overlay(partial, source, lambda box: sink.labels[_slices(box)], classes)
    lay(place, target.labels)
    write_label_image(target.made, sink.labels, classes, pixel_size=_pixel_size(source))
    arrives(target.made)
    return report


def lay_over(source: Source, target: Names, classes: Classes) -> None:
    """Makes the overlay of a painting that is there."""
    with _finished(target.labels) as labels, whole_file(target.overlay) as partial:
        write_overlay(partial, source, labels, classes)


@contextmanager
def _finished(labels: Path) -> Iterator[Callable[[Box], NDArray[np.uint8]]]:
    """The class ids of a label file of ours, by windows."""
    if labels.suffix == ".tif":
        with open_tiff(labels) as file:
            plane = Plane(file.pages.first, str(labels))
            yield lambda box: plane.read(box, lambda _, decode: decode())[..., 0]
    else:
        whole = read_mask(labels) if labels.suffix == ".png" else open_labels(labels)
        yield lambda box: np.asarray(whole[_slices(box)])


def _finish(
    sink: JournaledSink, source: Source, target: Names, options: Options, classes: Classes, place: Place,
    arrives: Callable[[Path], None],
) -> None:  # fmt: skip
    """Builds the final files from the store, inside its folder, and moves them to their places, labels last."""
    store, inner, folder = sink.store, _inside(source), sink.folder
    labels, shares = target.made, folder / f"probabilities{target.probabilities.suffix}"
    if isinstance(inner, GeoSource):
        if options.probabilities:
            write_planes_geotiff(shares, inner, classes.count, store.probabilities)
        write_geotiff(labels, inner, store.labels, classes)
    elif isinstance(inner, ZarrSource):
        if inner.ome is not None:
            add_levels(labels, shrinkings(source.size))
        sweep(folder)
    else:
        if options.probabilities:
            write_planes_tiff(shares, (classes.count, *source.size), store.probabilities)
        write_tiff(labels, source.size, store.labels, classes, _pixel_size(source), store.align)
    if options.overlay:
        write_overlay(folder / "overlay.png", source, store.labels, classes)
        move(folder / "overlay.png", target.overlay)
    if options.probabilities:
        _lay(place, shares, target.probabilities)
        move(shares, target.probabilities)
    _lay(place, labels, target.labels)
    arrives(labels)


def _lay(place: Place, made: Path, target: Path) -> None:
    """Puts beside the place of what is finished what says where on Earth it lies."""
    if made.is_file():
        lay(replace(place, notes=place.notes or notes_of(made)), target)


def _place_of(source: Source) -> tuple[Place, list[str]]:
    """Where a picture lies on Earth by files beside it, and what is to be told of that.

    A GeoTIFF has brought such files with it, and what is painted from it is a GeoTIFF.
    """
    inner, path = _inside(source), Path(source.name)
    if not isinstance(inner, ArraySource) or path.suffix.lower() in TIFF_SUFFIXES:
        return Place(), []
    place = place_of(path)
    if place == Place() or not inner.turned:
        return place, []
    return Place(), ["not placed on Earth: a file beside the image does that for its pixels as stored, not upright"]


def _pixel_size(source: Source) -> PixelSize | None:
    path = Path(source.name)
    return pixel_size(path, source.size) if path.suffix.lower() in TIFF_SUFFIXES else None


def _inside(source: Source) -> Source:
    return source.inside if isinstance(source, Opaque) else source


def _slices(box: Box) -> tuple[slice, ...]:
    return tuple(slice(*span) for span in box)
