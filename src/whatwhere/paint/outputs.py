"""Finished paintings to files: which format goes with which input; each is written aside and moved to its place whole.

    picture  -> paletted PNG (or TIFF when large)          probabilities -> TIFF of one plane a class
    TIFF     -> tiled, compressed TIFF with a colour map   probabilities -> TIFF of one plane a class
    GeoTIFF  -> GeoTIFF in the same coordinates            probabilities -> GeoTIFF of one band a class
    Zarr     -> Zarr (OME-Zarr -> OME-Zarr)                probabilities -> Zarr (C, H, W)

Probabilities are stored as shares of 255 (uint8): readable everywhere, off by at most 0.002.
"""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from whatwhere.data.images import replacing, write_label_image
from whatwhere.network import Model
from whatwhere.paint.engine import Engine
from whatwhere.paint.files import LARGE, Opaque
from whatwhere.paint.geotiff import GeoSource, write_geotiff, write_planes_geotiff
from whatwhere.paint.overlay import write_overlay
from whatwhere.paint.paint import ArraySink, PaintReport, paint_source
from whatwhere.paint.sources import ArraySource, Source
from whatwhere.paint.stores import JournaledSink, RawStore, ZarrStore, as_shares, move, writing
from whatwhere.paint.tiff import write_planes_tiff, write_tiff
from whatwhere.paint.work import Progress
from whatwhere.paint.zarrs import CHUNK, ZarrSource

__all__ = ["Names", "Options", "names", "paint_to_files"]


@dataclass(frozen=True)
class Names:
    """The files of one painting."""

    labels: Path
    overlay: Path
    probabilities: Path


@dataclass(frozen=True)
class Options:
    """What is written, and in what tiles it is computed."""

    overlay: bool = False
    probabilities: bool = False
    tile: int | tuple[int, int] | None = None
    batch: int = 1


def names(stem: Path, source: Path, size: tuple[int, int]) -> Names:
    """Where the painting of ``source`` goes: ``stem`` with the endings its kind asks for."""
    kind = source.suffix.lower()
    large = size[0] * size[1] > LARGE
    ending = ".zarr" if source.is_dir() else ".tif" if kind in (".tif", ".tiff") or large else ".png"
    shares = ".zarr" if ending == ".zarr" else ".tif"
    return Names(
        stem.with_name(stem.name + ending),
        stem.with_name(stem.name + ".overlay.png"),
        stem.with_name(stem.name + ".probabilities" + shares),
    )


def paint_to_files(
    engine: Engine, source: Source, target: Names, options: Options, work: dict[str, Any], progress: Progress | None
) -> PaintReport:
    """Paints one image to its files; the label file appears last, and only when all is done.

    Args:
        work: what makes two runs the same, for continuing an interrupted one.
    """
    inner = _inside(source)
    small = isinstance(inner, ArraySource) and source.size[0] * source.size[1] <= LARGE
    run = _paint_small if small else _paint_zarr if isinstance(inner, ZarrSource) else _paint_large
    with writing(target.labels.parent):
        target.labels.parent.mkdir(parents=True, exist_ok=True)
    return run(engine, source, target, options, work, progress)


def _inside(source: Source) -> Source:
    return source.inside if isinstance(source, Opaque) else source


def _paint_small(
    engine: Engine, source: Source, target: Names, options: Options, _: dict[str, Any], progress: Progress | None
) -> PaintReport:
    classes = engine.model.classes
    sink = ArraySink(source.size, classes.count if options.probabilities else None)
    report = _run(engine, source, sink, options, progress)
    if sink.probabilities is not None:
        shares = as_shares(sink.probabilities)
        with replacing(target.probabilities) as part:
            write_planes_tiff(part, shares.shape, lambda plane, box: shares[plane][tuple(slice(*s) for s in box)])
    if options.overlay:
        with replacing(target.overlay) as part:
            write_overlay(part, source, lambda box: sink.labels[tuple(slice(*s) for s in box)], classes)
    write_label_image(target.labels, sink.labels, classes)
    return report


def _paint_large(
    engine: Engine, source: Source, target: Names, options: Options, work: dict[str, Any], progress: Progress | None
) -> PaintReport:
    classes, inner = engine.model.classes, _inside(source)
    store = RawStore(source.size, classes.count if options.probabilities else 0)
    folder = target.labels.with_name(target.labels.name + ".partial")
    sink = JournaledSink(folder, work, store)
    try:
        report = _run(engine, source, sink, options, progress)
        with writing(target.labels):
            if options.probabilities:
                made = folder / "probabilities.tif"
                if isinstance(inner, GeoSource):
                    write_planes_geotiff(made, inner, classes.count, store.probabilities)
                else:
                    write_planes_tiff(made, (classes.count, *source.size), store.probabilities)
                move(made, target.probabilities)
            _overlay(folder, source, target, options, store, engine.model)
            made = folder / "labels.tif"
            if isinstance(inner, GeoSource):
                write_geotiff(made, inner, store.labels, classes)
            else:
                write_tiff(made, source.size, store.labels, classes)
            move(made, target.labels)
    finally:
        sink.close()
    shutil.rmtree(folder, ignore_errors=True)
    return report


def _paint_zarr(
    engine: Engine, source: Source, target: Names, options: Options, work: dict[str, Any], progress: Progress | None
) -> PaintReport:
    inner = _inside(source)
    assert isinstance(inner, ZarrSource)
    store = ZarrStore(source.size, engine.model.classes, inner, probabilities=options.probabilities)
    folder = target.labels.with_name(target.labels.name + ".partial")
    sink = JournaledSink(folder, work, store)
    try:
        report = _run(engine, source, sink, options, progress, align=CHUNK)
        with writing(target.labels):
            _overlay(folder, source, target, options, store, engine.model)
            if options.probabilities:
                move(folder / "probabilities.zarr", target.probabilities)
            move(folder / "labels.zarr", target.labels)
    finally:
        sink.close()
    shutil.rmtree(folder, ignore_errors=True)
    return report


def _overlay(
    folder: Path, source: Source, target: Names, options: Options, store: RawStore | ZarrStore, model: Model
) -> None:
    if options.overlay:
        write_overlay(folder / "overlay.png", source, store.labels, model.classes)
        move(folder / "overlay.png", target.overlay)


def _run(
    engine: Engine, source: Source, sink: ArraySink | JournaledSink, options: Options, progress: Progress | None,
    align: int = 1,
) -> PaintReport:  # fmt: skip
    earlier = sink.tile if isinstance(sink, JournaledSink) and options.tile is None else None
    return paint_source(
        engine, source, sink, probabilities=options.probabilities, tile=options.tile or earlier, batch=options.batch,
        align=align, progress=progress,
    )  # fmt: skip
