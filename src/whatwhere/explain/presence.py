"""What if it only had to say yes or no? How well "is there a cat?" can be read from each level, pooled.

The 1x1 case: features averaged over the whole image, or over its parts where every image holds the class. Knows pooled
features and labels; nothing of networks.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from whatwhere.explain.measured import Measured, as_json, measured_accuracy
from whatwhere.explain.probes import folds_over, held_out_logits, shown_both
from whatwhere.records import VOID

__all__ = ["VISIBLE", "Presence", "cell_counts", "measure_presence", "region_features"]

VISIBLE = 0.005
"""Share of a region's pixels from which a class counts as there."""

_PARTS = {"image": 1, "quarter": 2, "sixteenth": 4}
"""Regions along a side of the image."""
_LEAST = 5
"""Regions with and without the class that there must be."""

Array = NDArray[Any]


@dataclass(frozen=True)
class Presence:
    """Whether classes are there, read from pooled features.

    Attributes:
        region: ``"image"``, ``"quarter"`` or ``"sixteenth"``: what was pooled and asked about.
        classes: ids of the classes asked for: those that some regions hold and others do not.
        accuracy: by layer name, share of yes and no answered rightly, mean over both and over classes.
        fewest: images that have one of the answers, of the answer that the fewest have.
    """

    region: str
    classes: tuple[int, ...]
    accuracy: dict[str, Measured]
    fewest: int

    def to_json(self) -> dict[str, Any]:
        return {name: as_json(value) for name, value in vars(self).items()}


def cell_counts(labels: NDArray[np.uint8], cells: int, classes: int) -> Array:
    """Pixels of each class in each cell of a grid, ``(cells, cells, classes)``."""
    rows = np.arange(labels.shape[0]) * cells // labels.shape[0]
    columns = np.arange(labels.shape[1]) * cells // labels.shape[1]
    place = (rows[:, None] * cells + columns[None, :]) * classes
    counted = labels != VOID
    flat = np.bincount((place + labels)[counted], minlength=cells * cells * classes)
    return flat.reshape(cells, cells, classes)


def measure_presence(
    pooled: Mapping[str, Array],
    counts: Sequence[Array],
    classes: int,
    seed: int,
    together: Array | None = None,
    units: Array | None = None,
) -> Presence | None:
    """Ask every layer; None if no class is both there and not there often enough, and in images enough to learn both.

    Args:
        pooled: by layer ``(images, cells, cells, channels)``.
        counts: for each image ``(cells, cells, classes)`` pixels.
        together: for each image a number that it shares with those that are held out with it; None: each goes alone.
        units: the same for those that are drawn with it in resamples.
    """
    pixels = np.stack(counts)
    groups, drawn = (np.arange(len(pixels)) if one is None else one for one in (together, units))
    for region in _PARTS:
        join = pixels.shape[1] // _PARTS[region]
        there, known = _there(pixels, join), _counted(pixels, join)
        images = np.nonzero(known)[0]
        asked = {c: kept for c in range(classes) if (kept := _asked(there[known][:, c], groups[images])) is not None}
        if asked:
            accuracy = {
                name: _ask(_joined(cells, join)[known], there[known], images, asked, groups, drawn, seed, region)
                for name, cells in pooled.items()
            }
            fewest = min(
                len(np.unique(drawn[images[kept & (there[known][:, c] == held)]]))
                for c, kept in asked.items()
                for held in (False, True)
            )
            return Presence(region, tuple(asked), accuracy, fewest)
    return None


def region_features(pooled: Array, counts: Array | None, region: str, class_id: int) -> tuple[Array, Array | None]:
    """Features ``(regions, channels)`` of all images' regions, and whether each holds the class; None without counts.

    With counts, regions without a pixel that counts are left out.

    Args:
        pooled: ``(images, cells, cells, channels)``.
        counts: ``(images, cells, cells, classes)`` pixels.
        region: as in :class:`Presence`.
    """
    join = pooled.shape[1] // _PARTS[region]
    joined = _joined(pooled, join)
    features = joined.reshape(-1, joined.shape[-1])
    if counts is None:
        return features, None
    known = _counted(counts, join).reshape(-1)
    return features[known], _there(counts, join)[..., class_id].reshape(-1)[known]


def _there(pixels: Array, join: int) -> Array:
    """Whether each class is in each region, from its pixels in each cell."""
    joined = _joined(pixels.astype(np.float64), join) * join * join
    found: Array = joined >= VISIBLE * joined.sum(-1, keepdims=True)
    return found


def _counted(pixels: Array, join: int) -> Array:
    """Whether a region has a pixel that counts."""
    found: Array = _joined(pixels, join).sum(-1) > 0
    return found


def _joined(cells: Array, join: int) -> Array:
    """Mean over blocks of ``join x join`` cells."""
    images, rows, columns, last = cells.shape
    found: Array = cells.reshape(images, rows // join, join, columns // join, join, last).mean((2, 4))
    return found


def _asked(there: Array, groups: Array) -> Array | None:
    """Of which regions a class is asked: those whose probe is shown yes and no; None with few of either answer."""
    kept = shown_both(there, groups)
    return kept if min((there & kept).sum(), (~there & kept).sum()) >= _LEAST else None


def _ask(
    x: Array,
    there: Array,
    images: Array,
    asked: Mapping[int, Array],
    groups: Array,
    drawn: Array,
    seed: int,
    region: str,
) -> Measured:
    right, total, rows = [], [], int(drawn.max()) + 1
    for class_id, kept in asked.items():
        answer = there[:, class_id].astype(int)
        said = held_out_logits(x, answer, groups[images], 2).argmax(1)
        for truth in (0, 1):
            asked_of = kept & (answer == truth)
            right.append(np.bincount(drawn[images], weights=asked_of & (said == truth), minlength=rows))
            total.append(np.bincount(drawn[images], weights=asked_of, minlength=rows))
    method = (
        f"share of {region}s rightly told to hold a class (at least {100 * VISIBLE:g} % of the pixels) or not, mean "
        f"over yes and no and over classes; linear probe on features averaged over the {region}, "
        f"{folds_over(groups[images], images)}; pixels counts {region}s"
    )
    every = np.any(list(asked.values()), axis=0)
    of = len(np.unique(images[every]))
    return replace(
        measured_accuracy(np.stack(right, 1), np.stack(total, 1), method, seed, images=of), pixels=int(every.sum())
    )
