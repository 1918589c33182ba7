"""Which pixels ask *what*, and which ask *where*.

Interior pixels lie farther than a stated distance from any label edge: there only the meaning is asked. Boundary pixels
lie within 2 px of an edge, and each is asked only which of the two classes that meet there it has: there only the place
of the edge is asked. Knows label arrays; nothing of networks.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import maximum_filter, minimum_filter

from whatwhere.records import VOID

__all__ = ["BOUNDARY_WIDTH", "Regions", "Spots", "interior_distance", "regions", "sample_spots"]

BOUNDARY_WIDTH = 2
"""Boundary pixels lie within this many px (chessboard distance) of a pixel of another class."""

_DISTANCES = (8, 5, 3)

Labels = NDArray[np.uint8]
Array = NDArray[Any]


@dataclass(frozen=True)
class Regions:
    """The two kinds of pixels of one label map.

    Attributes:
        interior: ``H x W`` bool.
        boundary: ``H x W`` bool.
        rival: ``H x W`` uint8, on boundary pixels the class that meets the pixel's own there; VOID elsewhere.
    """

    interior: NDArray[np.bool_]
    boundary: NDArray[np.bool_]
    rival: Labels


def regions(labels: Labels, distance: int) -> Regions:
    """Interior pixels (farther than ``distance`` px from another class) and boundary pixels of ``H x W`` class ids.

    >>> found = regions(np.repeat(np.uint8([[0, 1]]), 6, axis=1), distance=3)
    >>> found.interior.astype(int), found.boundary.astype(int)
    (array([[1, 1, 1, 0, 0, 0, 0, 0, 0, 1, 1, 1]]), array([[0, 0, 0, 0, 1, 1, 1, 1, 0, 0, 0, 0]]))
    """
    boundary = _near(labels, BOUNDARY_WIDTH)
    interior = (labels != VOID) & ~_near(labels, distance)
    return Regions(interior, boundary, _rival(labels))


def _near(labels: Labels, distance: int) -> NDArray[np.bool_]:
    """Pixels within ``distance`` px (chessboard) of another class, also across void: what lies there tells of it."""
    size, counts = 2 * distance + 1, labels != VOID
    lowest = minimum_filter(labels, size, mode="nearest")  # void is 255: it is never the lowest beside a class
    highest = maximum_filter(np.where(counts, labels, 0), size, mode="nearest")
    near: NDArray[np.bool_] = counts & (lowest != highest)
    return near


def _rival(labels: Labels) -> Labels:
    """For each pixel the class of the nearest pixel of another class within reach; of two as near the lower id."""
    reach = BOUNDARY_WIDTH
    height, width = labels.shape
    padded = np.pad(labels, reach, constant_values=VOID)
    steps = [(dy, dx) for dy in range(-reach, reach + 1) for dx in range(-reach, reach + 1) if dy or dx]
    nearest = np.full(labels.shape, 2 * reach * reach + 1, np.int32)
    rival = np.full(labels.shape, VOID, np.uint8)
    for dy, dx in steps:
        there = padded[reach + dy : reach + dy + height, reach + dx : reach + dx + width]
        away = dy * dy + dx * dx
        other = (there != labels) & (there != VOID) & (labels != VOID)
        nearer = other & ((away < nearest) | ((away == nearest) & (there < rival)))
        nearest[nearer], rival[nearer] = away, there[nearer]
    return rival


def interior_distance(labels: Sequence[Labels], classes: int) -> int:
    """The distance from edges that still leaves interior pixels to every class: 8 px, or 5 or 3 where objects are thin.

    A class counts as served if at least half of the images that hold it (with more than 50 px, or where the images are
    too small for that any) have interior pixels.
    """
    held = [np.bincount(one.ravel(), minlength=VOID + 1)[:classes] for one in labels]
    least = 50 if any((counts > 50).any() for counts in held) else 0
    for distance in _DISTANCES[:-1]:
        holding, served = np.zeros(classes), np.zeros(classes)
        for one, counts in zip(labels, held):
            inside = np.bincount(one[~_near(one, distance)], minlength=VOID + 1)[:classes]
            holding += counts > least
            served += (counts > least) & (inside > 0)
        if (served >= holding / 2).all():
            return distance
    return _DISTANCES[-1]


@dataclass(frozen=True)
class Spots:
    """Sampled pixels of several images, ``(n,)`` each.

    Attributes:
        image: which image; row, column: where in it.
        label: its class; rival: the class that meets it there (VOID for interior pixels).
        unit: what is drawn together in resamples, sources of images perhaps; the image, if None.
    """

    image: Array
    row: Array
    column: Array
    label: Array
    rival: Array
    unit: Array | None = None

    def __len__(self) -> int:
        return len(self.image)

    def take(self, chosen: Array) -> Spots:
        kept = {name: of[chosen] for name, of in vars(self).items() if of is not None}
        return Spots(**kept)


def sample_spots(
    labels: Sequence[Labels],
    distance: int,
    classes: int,
    seed: int,
    pixels: int = 2400,
    units: Array | None = None,
) -> tuple[Spots, Spots]:
    """Interior and boundary pixels, about ``pixels`` of each, the same number for each image and class where it
    can be.

    Args:
        units: for each image a number that it shares with those it is drawn with in resamples.
    """
    units = np.arange(len(labels)) if units is None else units
    each = int(np.clip(pixels / max(1, len(labels) * classes), 12, 400))
    rng = np.random.default_rng(seed)
    interior: list[Array] = []
    boundary: list[Array] = []
    for index, one in enumerate(labels):
        found = regions(one, distance)
        for class_id in range(classes):
            for mask, kept in ((found.interior, interior), (found.boundary, boundary)):
                at = np.flatnonzero(mask.ravel() & (one.ravel() == class_id))
                at = np.sort(rng.choice(at, min(each, len(at)), replace=False))
                rival = found.rival.ravel()[at] if mask is found.boundary else np.full(len(at), VOID)
                place = np.stack([np.full(len(at), index), *np.divmod(at, one.shape[1])])
                kept.append(
                    np.concatenate([place, [np.full(len(at), class_id), rival, np.full(len(at), units[index])]])
                )
    return Spots(*np.concatenate(interior, axis=1)), Spots(*np.concatenate(boundary, axis=1))
