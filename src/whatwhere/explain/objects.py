"""How large the objects of the data are, to hold beside how far a network sees. Knows cases and label arrays only."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from whatwhere.data.shapes import class_shapes
from whatwhere.explain.cases import Case
from whatwhere.records import Classes

__all__ = ["ObjectSize", "object_sizes"]


@dataclass(frozen=True)
class ObjectSize:
    """The objects (connected parts) of one class.

    Attributes:
        class_id, name: which class.
        objects: how many.
        typical: px, the longer side of the object that a random pixel of the class lies in: the median by area.
        largest: px, the largest longer side.
        share: of all pixels that count.
        fills: its objects mostly fill the image, as a background does: nothing to see whole.
    """

    class_id: int
    name: str
    objects: int
    typical: float
    largest: int
    share: float
    fills: bool

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def object_sizes(cases: Sequence[Case], aims: Sequence[NDArray[np.uint8]], classes: Classes) -> tuple[ObjectSize, ...]:
    """One record for each class that occurs; of images that were cut, by the whole mask.

    Args:
        cases: the images.
        aims: ``H x W`` class ids of each.
    """
    shapes = [case.shapes or class_shapes(aim, classes.count) for case, aim in zip(cases, aims)]
    sides = [case.shorter if case.shapes else min(aim.shape) for case, aim in zip(cases, aims)]
    pixels = np.array([[shape.pixels for shape in of] for of in shapes], float).sum(0)
    found = []
    for class_id, name in enumerate(classes.names):
        extents = np.array([extent for of in shapes for extent in of[class_id].extents])
        areas = np.array([area for of in shapes for area in of[class_id].areas])
        whole = np.array([side for of, side in zip(shapes, sides) for _ in of[class_id].extents])
        if not len(extents):
            continue
        fills = _typical(extents / whole, areas) >= 0.9
        share = float(pixels[class_id] / max(1.0, pixels.sum()))
        typical = _typical(extents, areas)
        found.append(ObjectSize(class_id, name, len(extents), typical, int(extents.max()), share, fills))
    return tuple(found)


def _typical(values: NDArray[Any], areas: NDArray[Any]) -> float:
    """The median by area."""
    order = np.argsort(values)
    middle = np.searchsorted(np.cumsum(areas[order]), areas.sum() / 2)
    return float(values[order][min(middle, len(order) - 1)])
