"""Scores as functions of counts, and their bootstrap over images or sources of them.

Knows counts and class names; nothing of labels, images or files. Every function works on counts with any leading axes,
so the same lines give the pooled scores, those of each image and those of each bootstrap resample.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import inf
from typing import Any

import numpy as np
from numpy.typing import NDArray

from whatwhere.judge.bootstrap import draws, interval
from whatwhere.judge.counts import Counts

__all__ = ["LOWER_IS_BETTER", "Estimate", "estimate", "limits_of", "measures", "resampled", "tellers"]

LOWER_IS_BETTER = ("hausdorff95", "calibration_error")
"""Beginnings of the names of those measures in which less is better (``mean_hausdorff95`` too)."""

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Estimate:
    """A value with its 95 % interval.

    Attributes:
        value: the score; None where there is nothing to score.
        low, high: the interval over images, or over the sources that bind them; None with fewer than two.
    """

    value: float | None
    low: float | None = None
    high: float | None = None

    def __str__(self) -> str:
        if self.value is None:
            return "-"
        digits = 3 if abs(self.value) < 2 else 1
        if self.low is None or self.high is None:
            return f"{self.value:.{digits}f}"
        return f"{self.value:.{digits}f} [{self.low:.{digits}f}, {self.high:.{digits}f}]"


def measures(counts: Counts, names: tuple[str, ...]) -> dict[str, Array]:
    """All scores by name: ``"mean_iou"`` and the like, ``"iou/cat"`` for a class. NaN where nothing is to score.

    A mean over classes leaves out the classes that are not scored: those in neither truth nor prediction (recall and
    with it balanced accuracy: those not in the truth).
    """
    per_class = _per_class(counts)
    right, pixels = np.trace(counts.confusion, axis1=-2, axis2=-1), counts.confusion.sum((-2, -1))
    found = {
        "mean_iou": _mean(per_class["iou"]),
        "mean_dice": _mean(per_class["dice"]),
        "pixel_accuracy": _ratio(right, pixels),
        "balanced_accuracy": _mean(per_class["recall"]),
        "mean_boundary_iou": _mean(per_class["boundary_iou"]),
        "mean_boundary_f1": _mean(per_class["boundary_f1"]),
        "mean_surface_dice": _mean(per_class["surface_dice"]),
        "mean_hausdorff95": _mean(per_class["hausdorff95"]),
        "calibration_error": _calibration_error(counts.calibration),
    }
    for key, values in per_class.items():
        found |= {f"{key}/{name}": values[..., c] for c, name in enumerate(names)}
    return found


def _per_class(counts: Counts) -> dict[str, Array]:
    both = np.diagonal(counts.confusion, axis1=-2, axis2=-1)
    truth, predicted = counts.confusion.sum(-1), counts.confusion.sum(-2)
    band_truth, band_predicted, band_both = np.moveaxis(counts.band, -2, 0)
    edge_truth, edge_found, edge_predicted, edge_right = np.moveaxis(counts.contour, -2, 0)
    outline, outline_near = np.moveaxis(counts.outline, -2, 0)
    distance, images = np.moveaxis(counts.hausdorff, -2, 0)
    return {
        "iou": _ratio(both, truth + predicted - both),
        "dice": _ratio(2 * both, truth + predicted),
        "recall": _ratio(both, truth),
        "precision": _ratio(both, predicted),
        "boundary_iou": _ratio(band_both, band_truth + band_predicted - band_both),
        "boundary_f1": _f1(_ratio(edge_found, edge_truth), _ratio(edge_right, edge_predicted)),
        "surface_dice": _ratio(outline_near, outline),
        "hausdorff95": _ratio(distance, images),
    }


def _ratio(part: Any, whole: Any) -> Array:
    whole = np.asarray(whole, np.float64)
    ratio: Array = np.divide(part, whole, out=np.full(whole.shape, np.nan), where=whole > 0)
    return ratio


def _f1(recall: Array, precision: Array) -> Array:
    """Harmonic mean; 0 where one side has no contour, NaN where neither has."""
    nothing = np.isnan(recall) & np.isnan(precision)
    recall, precision = np.nan_to_num(recall), np.nan_to_num(precision)
    f1: Array = np.nan_to_num(_ratio(2 * recall * precision, recall + precision))
    f1[nothing] = np.nan
    return f1


def _mean(values: Array) -> Array:
    """Mean over the last axis of what is not NaN."""
    scored = ~np.isnan(values)
    return _ratio(np.where(scored, values, 0).sum(-1), scored.sum(-1))


def _calibration_error(calibration: Array) -> Array:
    """Guo et al. 2017, equation 3: the gap of each bin, weighted with its pixels."""
    pixels, confidence, right = np.moveaxis(np.asarray(calibration, np.float64), -2, 0)
    return _ratio(np.abs(confidence - right).sum(-1), pixels.sum(-1))


def resampled(
    records: tuple[Counts, ...], names: tuple[str, ...], resamples: int, seed: int, units: NDArray[np.int_]
) -> tuple[dict[str, Array], ...]:
    """Scores of bootstrap resamples, ``(resamples,)`` each; every record gets the same resamples.

    Counts are resampled, not scores, so that a pooled score is pooled again in each resample.

    Args:
        units: for each image a number that it shares with those it is drawn with (`bootstrap.bound_by`).
    """
    rng = np.random.default_rng(seed)
    records = tuple(counts.floating() for counts in records)
    chunks = []
    # a hundred at a time: the confusion matrices of 2000 resamples of 150 classes would be 360 MB
    for part in np.array_split(np.arange(resamples), -(-resamples // 100)):
        weights = draws(units, len(part), rng)
        chunks.append([measures(counts.weighted(weights), names) for counts in records])
    return tuple({key: np.concatenate([chunk[key] for chunk in own]) for key in own[0]} for own in zip(*chunks))


_EDGES = {"boundary_iou": "band", "boundary_f1": "contour", "surface_dice": "outline", "hausdorff95": "contour"}
"""Scores of edges, and the counts that tell if an image has any."""

_SIDES = {"recall": "truth", "precision": "painting"}
"""Scores of which only one side tells: a stray pixel in an image without the class is no part of its recall."""


def tellers(records: tuple[Counts, ...], names: tuple[str, ...]) -> dict[str, NDArray[np.bool_]]:
    """Which images a score is of: ``"iou/cat"`` and the like, and the means.

    Those that hold the class, or an edge of it, in the truth or in a painting of the records; of recall those that hold
    it in the truth, of precision in a painting. A mean over areas is of all that have a pixel that counts.
    """
    held = {
        kind: np.any([getattr(counts, kind).sum(-2) > 0 for counts in records], axis=0) for kind in {*_EDGES.values()}
    }
    for side, axis in (("truth", -1), ("painting", -2)):
        held[side] = np.any([counts.confusion.sum(axis) > 0 for counts in records], axis=0)
    held["area"] = held["truth"] | held["painting"]
    told_by, found = {**_EDGES, **_SIDES}, {}
    for key in measures(records[0].total(), names):
        score, _, name = key.partition("/")
        kind = told_by.get(score.removeprefix("mean_"), "area")
        found[key] = held[kind][:, names.index(name)] if name else held[kind].any(1)
    return found


def limits_of(score: str, *, difference: bool = False) -> tuple[float, float]:
    """What a score can be, or the difference of two."""
    most = inf if "hausdorff" in score else 1.0
    return (-most if difference else 0.0), most


def estimate(
    value: float, samples: Array | None, independent: int, limits: tuple[float, float] = (-inf, inf)
) -> Estimate:
    """The value with the interval of its resamples; arguments as of `bootstrap.interval`."""
    if np.isnan(value):
        return Estimate(None)
    if samples is None:
        return Estimate(float(value))
    return Estimate(float(value), *interval(value, samples, independent, limits))
