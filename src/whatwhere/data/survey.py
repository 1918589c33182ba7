"""Read every file of a data folder once and keep what is to be known about it.

`check` and the plan are computed from a survey and open no file again. A survey judges nothing.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from whatwhere.data.class_lists import named_by
from whatwhere.data.facts import FileSurvey, ImageFacts, MaskFacts, Survey, relative
from whatwhere.data.folder import Folder, Sample
from whatwhere.data.images import (
    MaskTags,
    Palette,
    decoded_bytes,
    image_size,
    in_utf8,
    pixel_digest,
    read_image_and_tags,
    read_mask_and_tags,
)
from whatwhere.data.likeness import fingerprint
from whatwhere.data.mapping import as_classes_are, encode_mask, infer_classes
from whatwhere.data.pieces import places_tried, sample_pieces
from whatwhere.data.shapes import class_shapes
from whatwhere.data.values import ValueCounts, count_values
from whatwhere.errors import DataError
from whatwhere.records import VOID, Classes

__all__ = ["survey"]

_T = TypeVar("_T")

_IMAGES_CUT = 200
"""About so many images, evenly spread, are cut into pieces (see `pieces`)."""

_LOOKED_AT, _MOST_BYTES = 32, 2**32
"""Of so many images the header is read before, and no more are looked at together than take so many bytes."""

_COPIES, _A_PIXEL = 2, 16
"""An image is held so many times (as read, and channel by channel), beside so many bytes a pixel for double precision
and the classes."""


def survey(folder: Folder, *, workers: int | None = None, progress: Callable[[int, int], None] | None = None) -> Survey:
    """Read all files of a folder, in threads, and return what they hold. No bad file stops it.

    Where there is no ``classes.toml`` the masks are read twice: once to infer the classes, once to measure them; and
    once more where a value turns out to stand for "no data", as it is nowhere but where images have none.

    Args:
        folder: from `find`.
        workers: threads; as many as the machine has processors, at most 8, and fewer for huge images, when None.
        progress: called with files done and files in all, of both readings.
    """
    samples = [(split, sample) for split, items in folder.splits.items() for sample in items]
    masks = [sample.mask for _, sample in samples if sample.mask] if folder.classes is None else []
    total = len(masks) + len(samples)
    with ThreadPoolExecutor(workers or _threads([sample.image for _, sample in samples])) as pool:
        classes, problem = folder.classes, ""
        if classes is None:
            found = _counted(pool.map(_values_and_tags, masks), total, progress)
            classes, problem = _infer(folder.root, zip(masks, found))
        inferred, listed = classes, folder.class_list
        if classes and listed:
            classes = named_by(listed, classes)
        named = classes != inferred
        every = -(-len(samples) // _IMAGES_CUT)
        tried = places_tried(len(samples[::every]))
        jobs = ((*sample, 0 if place % every else tried) for place, sample in enumerate(samples))
        measure = partial(_measured, folder.root, tuple(jobs), pool)
        files = tuple(_counted(measure(classes), total, progress, len(masks)))
        if folder.classes is None and classes and (seen := _without_unseen(classes, files)) != classes:
            classes, files = seen, tuple(measure(seen))
    return Survey(
        root=in_utf8(str(folder.root)),
        files=files,
        classes=classes,
        mapping_error=problem,
        declared=folder.classes is not None,
        lone_masks=tuple(relative(path, folder.root) for path in folder.lone_masks),
        ignored=tuple(relative(path, folder.root) for path in folder.ignored),
        beside=tuple(relative(path, folder.root) for path in folder.beside),
        named=tuple(relative(path, folder.root) for path in folder.named),
        lists=tuple(relative(path, folder.root) for path in folder.lists),
        lost=tuple(relative(path, folder.root) for path in folder.lost),
        class_list=relative(listed.path, folder.root) if listed and named else "",
    )


def _measured(
    root: Path, jobs: Iterable[tuple[str, Sample, int]], pool: ThreadPoolExecutor, classes: Classes | None
) -> Iterator[FileSurvey]:
    return pool.map(lambda job: _survey_file(root, job[0], job[1], classes, tried=job[2]), jobs)


def _without_unseen(classes: Classes, files: Sequence[FileSurvey]) -> Classes:
    """With those values as void that masks have only where images have no data."""
    shown = {place for f in files if f.mask for place, shape in enumerate(f.mask.shapes) if shape.pixels}
    if not shown:
        return classes
    kept = sorted(shown)
    return replace(
        classes,
        names=tuple(classes.names[place] for place in kept),
        colors=tuple(classes.colors[place] for place in kept),
        values=tuple(classes.values[place] for place in kept),
        void=(*classes.void, *(v for place, values in enumerate(classes.values) if place not in shown for v in values)),
    )


def _threads(images: Sequence[Path]) -> int:
    """As many as there are processors, at most 8, and no more than huge images leave memory for."""
    largest = 1
    for path in images[:: max(1, len(images) // _LOOKED_AT)]:
        with suppress(DataError):  # told when it is read
            height, width = image_size(path)
            largest = max(largest, _COPIES * decoded_bytes(path) + _A_PIXEL * height * width)
    return max(1, min(8, os.cpu_count() or 1, _MOST_BYTES // largest))


def _counted(
    items: Iterable[_T], total: int, progress: Callable[[int, int], None] | None, before: int = 0
) -> Iterator[_T]:
    for done, item in enumerate(items, before + 1):
        if progress:
            progress(done, total)
        yield item


def _infer(
    root: Path, masks: Iterable[tuple[Path, tuple[ValueCounts, Palette | None, MaskTags] | None]]
) -> tuple[Classes | None, str]:
    read = {relative(path, root): found for path, found in masks if found}
    if not read:
        return None, ""
    try:
        return infer_classes(
            {name: counts for name, (counts, *_) in read.items()},
            {name: palette for name, (_, palette, _) in read.items() if palette is not None},
            {tags.no_data for _, _, tags in read.values() if tags.no_data is not None},
        ), ""
    except DataError as error:
        return None, str(error)


def _values_and_tags(path: Path) -> tuple[ValueCounts, Palette | None, MaskTags] | None:
    try:
        mask, palette, tags = read_mask_and_tags(path)
    except DataError:
        return None  # the second reading reports it
    return count_values(mask), palette, tags


def _survey_file(root: Path, split: str, sample: Sample, classes: Classes | None, *, tried: int) -> FileSurvey:
    """The facts of a sample; of its image as many pieces as places are tried for each class."""
    image, mask, pixels, valid = None, None, None, None
    image_error, mask_error, image_remedy, mask_remedy = "", "", "", ""
    if sample.mask is None:  # left out: neither of use, nor in the way
        return FileSurvey(sample.name, split, relative(sample.image, root), None)
    try:
        pixels, valid, orientation = read_image_and_tags(sample.image)
        with _without_warnings():
            image = replace(_image_facts(pixels, valid), orientation=orientation)
    except DataError as error:
        image_error, image_remedy = error.given, error.remedy
    try:
        array, palette, tags = read_mask_and_tags(sample.mask)
        array = as_classes_are(array, palette, classes)
        mask = MaskFacts((array.shape[0], array.shape[1]), count_values(array), tags=tags)
        if classes:
            labels = encode_mask(array, classes, str(sample.mask))
            if valid is not None and valid.shape == labels.shape:
                labels = np.where(valid, labels, np.uint8(VOID))
            void = int(np.count_nonzero(labels == VOID))
            mask = replace(mask, shapes=class_shapes(labels, classes.count), void=void, digest=pixel_digest(labels))
            if tried and pixels is not None and pixels.shape[:2] == labels.shape:
                with _without_warnings():
                    mask = replace(mask, pieces=sample_pieces(pixels, labels, classes.count, tried=tried))
    except DataError as error:
        mask_error, mask_remedy = str(error) if mask else error.given, error.remedy
    mask_path = relative(sample.mask, root)
    return FileSurvey(
        sample.name, split, relative(sample.image, root), mask_path, image, mask, image_error, mask_error,
        image_remedy, mask_remedy,
    )  # fmt: skip


def _without_warnings() -> np.errstate:
    """Of sums that overflow: the limits of floats in images are told by `check`."""
    return np.errstate(over="ignore", invalid="ignore")


def _image_facts(image: NDArray[Any], valid: NDArray[np.bool_] | None) -> ImageFacts:
    planes = [np.ascontiguousarray(image[:, :, channel]) for channel in range(image.shape[2])]
    pixels = planes[0].size if valid is None else int(np.count_nonzero(valid))
    counted = [plane[valid] for plane in planes] if valid is not None and pixels else planes
    moments = np.array([_moments(plane) for plane in counted])
    minimum, maximum, mean, std = (tuple(column.tolist()) for column in moments.T)
    return ImageFacts(
        size=(image.shape[0], image.shape[1]),
        pixels=pixels,
        dtype=str(image.dtype),
        minimum=minimum,
        maximum=maximum,
        mean=mean,
        std=std,
        gray=len(planes) in (3, 4) and all(np.array_equal(planes[0], plane) for plane in planes[1:3]),
        digest=pixel_digest(image),
        fingerprint=fingerprint(image),
    )


def _moments(plane: NDArray[Any]) -> tuple[float, float, float, float]:
    """Smallest, largest, mean and standard deviation of all values, in double precision."""
    if plane.dtype == np.uint8:  # ten times as fast
        counts = np.bincount(plane.ravel(), minlength=256)
        values = np.arange(256)
        mean = float(counts @ values / plane.size)
        present = np.flatnonzero(counts)
        return float(present[0]), float(present[-1]), mean, float(np.sqrt(counts @ (values - mean) ** 2 / plane.size))
    wide = plane.astype(np.float64)
    return float(wide.min()), float(wide.max()), float(wide.mean()), float(wide.std())
