"""The shapes in a label map: how large each class's objects are and how thin its structures.

Pure functions of label arrays. Knows nothing of files.
"""

from __future__ import annotations

from array import array
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from whatwhere.records import VOID

__all__ = ["ClassShape", "class_shapes"]

_EIGHT = np.ones((3, 3), np.int8)


@dataclass(frozen=True)
class ClassShape:
    """One class in one label map.

    Attributes:
        pixels: how many pixels have the class.
        extents: for each object (8-connected) the longer side of its bounding box, in pixels.
        areas: for each object its pixels. Both are packed: there may be 10^5 in a map, and thousands of maps.
        thickness: how many pixels along the middle of structures have which thickness in pixels. Thickness is the
            side of the largest square around a pixel that holds no other class.
    """

    pixels: int = 0
    extents: Sequence[int] = ()
    areas: Sequence[int] = ()
    thickness: Mapping[int, int] = field(default_factory=dict)


def class_shapes(labels: NDArray[np.uint8], count: int) -> tuple[ClassShape, ...]:
    """Measure each of ``count`` classes in ``HxW`` uint8 class ids (255 is void).

    >>> line = np.zeros((9, 9), np.uint8); line[4, 1:8] = 1
    >>> class_shapes(line, 2)[1]
    ClassShape(pixels=7, extents=array('i', [7]), areas=array('i', [7]), thickness={1: 7})
    """
    from scipy import ndimage  # slow to import, and only surveys need it

    pixels = np.bincount(labels.ravel(), minlength=count)
    thick = _thickness(labels)
    boxes = ndimage.find_objects(labels.astype(np.int16) + 1, max_label=count)
    shapes = []
    for place in range(count):
        box = boxes[place]
        if box is None:
            shapes.append(ClassShape())
            continue
        here = labels[box] == place
        extents, areas = _objects(here)
        values, counts = np.unique(thick[box][here & (thick[box] > 0)], return_counts=True)
        thickness = {int(value): int(n) for value, n in zip(values, counts)}
        shapes.append(ClassShape(int(pixels[place]), extents, areas, thickness))
    return tuple(shapes)


def _objects(mask: NDArray[np.bool_]) -> tuple[array[int], array[int]]:
    from scipy import ndimage

    parts, count = ndimage.label(mask, _EIGHT)
    areas = np.bincount(parts.ravel(), minlength=count + 1)[1:]
    extents = (max(y.stop - y.start, x.stop - x.start) for y, x in ndimage.find_objects(parts))
    return array("i", extents), array("i", areas.tolist())


def _thickness(labels: NDArray[np.uint8]) -> NDArray[np.int32]:
    """Thickness in pixels on the middle lines of structures, 0 elsewhere."""
    from scipy import ndimage

    edge = np.zeros(labels.shape, bool)
    for axis in (0, 1):
        a = labels.swapaxes(0, axis)
        differ = a[1:] != a[:-1]
        edge.swapaxes(0, axis)[1:] |= differ
        edge.swapaxes(0, axis)[:-1] |= differ
    if not edge.any():
        return np.zeros(labels.shape, np.int32)
    away = ndimage.distance_transform_cdt(~edge, "chessboard").astype(np.int32)
    ridge = _is_ridge(away, labels)
    thick: NDArray[np.int32] = np.where(ridge & (labels != VOID), 2 * away + 1, 0)
    return thick


def _is_ridge(away: NDArray[np.int32], labels: NDArray[np.uint8]) -> NDArray[np.bool_]:
    """Whether no neighbour of the same class lies further from its edge."""
    height, width = labels.shape
    ridge = np.ones(labels.shape, bool)
    for dy, dx in ((0, 1), (1, 0), (1, 1), (1, -1)):
        here = np.s_[: height - dy, max(0, -dx) : width - max(0, dx)]
        there = np.s_[dy:, max(0, dx) : width - max(0, -dx)]
        same = labels[here] == labels[there]
        ridge[here] &= ~(same & (away[there] > away[here]))
        ridge[there] &= ~(same & (away[here] > away[there]))
    return ridge
