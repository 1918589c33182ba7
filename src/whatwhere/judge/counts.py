"""What is counted in one image, so that every score is a function of sums over images.

Knows labels and probabilities; nothing of how counts become scores. Because counts add up, a pooled score, the score of
one image and the score of a bootstrap resample are the same function applied to different sums.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
from numpy.typing import NDArray

from whatwhere.judge.boundaries import Points, band, contour, dilation, distances, pieces
from whatwhere.records import VOID

__all__ = ["BINS", "Counts", "count_image"]

BINS = 15
"""Confidence bins of equal width for the calibration error (Guo et al. 2017, arXiv 1706.04599)."""

Array = NDArray[Any]


@dataclass(frozen=True)
class Counts:
    """Counts of one image, or of several along leading axes ``...``; C classes, B confidence bins.

    Attributes:
        confusion: ``(..., C, C)`` pixels; rows are the truth, columns the prediction.
        band: ``(..., 3, C)`` pixels within the Boundary IoU band: of the truth, of the prediction, of both.
        contour: ``(..., 4, C)`` contour pixels: of the truth, of these found; of the prediction, of these right.
        outline: ``(..., 2, C)`` px of outline, truth and prediction together: all, and within tolerance.
        hausdorff: ``(..., 2, C)`` sum of 95th-percentile Hausdorff distances in px, and number of images in it.
        calibration: ``(..., 3, B)`` pixels, sum of confidences, pixels right.
    """

    confusion: Array
    band: Array
    contour: Array
    outline: Array
    hausdorff: Array
    calibration: Array

    @classmethod
    def stack(cls, images: Sequence[Counts]) -> Counts:
        """One record with a leading axis of images."""
        return cls(*(np.stack([getattr(image, field.name) for image in images]) for field in fields(cls)))

    def weighted(self, weights: Array) -> Counts:
        """Sums over the leading axis: ``weights (..., n)`` says how often each of n images counts."""
        heavy, own = np.asarray(weights, np.float64), self.floating()
        return Counts(*(np.tensordot(heavy, getattr(own, field.name), axes=1) for field in fields(own)))

    def floating(self) -> Counts:
        """In double precision, which is exact below 2^53, and which numpy multiplies many times as fast as integers."""
        return Counts(*(np.asarray(getattr(self, field.name), np.float64) for field in fields(self)))

    def take(self, order: Sequence[int]) -> Counts:
        """The images of the leading axis in another order."""
        return Counts(*(getattr(self, field.name)[list(order)] for field in fields(self)))

    def total(self) -> Counts:
        return Counts(*(getattr(self, field.name).sum(0) for field in fields(self)))

    def to_json(self) -> dict[str, Any]:
        return {field.name: getattr(self, field.name).tolist() for field in fields(self)}

    @classmethod
    def from_json(cls, record: dict[str, Any]) -> Counts:
        return cls(*(np.asarray(record[field.name]) for field in fields(cls)))


def count_image(
    truth: NDArray[np.uint8],
    prediction: NDArray[np.uint8],
    confidence: Array | None,
    *,
    classes: int,
    tolerance: float,
    boundary: bool,
    contours_only: bool = False,
) -> Counts:
    """Count one image. Arrays are ``H x W`` and already checked; void is in the truth."""
    valid = truth != VOID
    pairs = truth[valid].astype(np.int64) * classes + prediction[valid]
    bands, contours = np.zeros((3, classes)), np.zeros((4, classes))
    outlines, hausdorff = np.zeros((2, classes)), np.zeros((2, classes))
    shown = np.where(valid, prediction, np.uint8(VOID))
    if boundary:
        contours, hausdorff = _count_contours(truth, shown, classes, tolerance)
    if boundary and not contours_only:
        bands, outlines = _count_bands(truth, shown, classes), _count_outlines(truth, shown, classes, tolerance)
    return Counts(
        np.bincount(pairs, minlength=classes**2).reshape(classes, classes),
        bands,
        contours,
        outlines,
        hausdorff,
        _count_confidence(truth, prediction, confidence),
    )


def _count_bands(truth: NDArray[np.uint8], prediction: NDArray[np.uint8], classes: int) -> Array:
    """Pixels near edges, for Boundary IoU; here and below both arrays have void at the same pixels."""
    width = dilation((truth.shape[0], truth.shape[1]))
    in_truth, in_prediction = band(truth, width), band(prediction, width)
    both = in_truth & in_prediction & (truth == prediction)
    return np.stack(
        [np.bincount(of, minlength=classes) for of in (truth[in_truth], prediction[in_prediction], truth[both])]
    )


def _count_contours(
    truth: NDArray[np.uint8], prediction: NDArray[np.uint8], classes: int, tolerance: float
) -> tuple[Array, Array]:
    """Pixels along edges, for Boundary F1, and their Hausdorff distances."""
    contours, hausdorff = np.zeros((4, classes), int), np.zeros((2, classes))
    edge_truth, edge_prediction = np.argwhere(contour(truth)), np.argwhere(contour(prediction))
    class_truth, class_prediction = truth[tuple(edge_truth.T)], prediction[tuple(edge_prediction.T)]
    for c in np.union1d(class_truth, class_prediction):
        of_truth, of_prediction = edge_truth[class_truth == c], edge_prediction[class_prediction == c]
        missed_by, wrong_by = distances(of_truth, of_prediction), distances(of_prediction, of_truth)
        contours[:, c] = (
            len(missed_by),
            np.count_nonzero(missed_by <= tolerance),
            len(wrong_by),
            np.count_nonzero(wrong_by <= tolerance),
        )
        if len(missed_by) and len(wrong_by):
            hausdorff[:, c] = max(np.percentile(missed_by, 95), np.percentile(wrong_by, 95)), 1
        else:
            hausdorff[:, c] = np.hypot(*truth.shape), 1
    return contours, hausdorff


def _count_outlines(truth: NDArray[np.uint8], prediction: NDArray[np.uint8], classes: int, tolerance: float) -> Array:
    """Lengths of outlines, for surface Dice."""
    outlines = np.zeros((2, classes))
    of_truth_pieces, of_prediction_pieces = pieces(truth), pieces(prediction)
    for c in of_truth_pieces.keys() | of_prediction_pieces.keys():
        outlines[:, c] = _outline_within(of_truth_pieces.get(c), of_prediction_pieces.get(c), tolerance)
    return outlines


def _outline_within(truth: Points | None, prediction: Points | None, tolerance: float) -> tuple[float, float]:
    """Length of both outlines, and the length of it that lies within tolerance of the other outline."""
    if truth is None or prediction is None:
        alone = truth or prediction
        return (float(alone.length.sum()) if alone else 0.0), 0.0
    near_truth = distances(truth.at, prediction.at) <= tolerance
    near_prediction = distances(prediction.at, truth.at) <= tolerance
    return (
        float(truth.length.sum() + prediction.length.sum()),
        float(truth.length[near_truth].sum() + prediction.length[near_prediction].sum()),
    )


def _count_confidence(truth: NDArray[np.uint8], prediction: NDArray[np.uint8], confidence: Array | None) -> Array:
    if confidence is None:
        return np.zeros((3, BINS))
    valid = truth != VOID
    sure = confidence[valid].astype(np.float64)
    right = truth[valid] == prediction[valid]
    # bin m holds confidences in ((m - 1) / BINS, m / BINS], as in the paper
    bins = np.clip(np.ceil(sure * BINS).astype(int) - 1, 0, BINS - 1)
    return np.stack([np.bincount(bins, weights=of, minlength=BINS) for of in (None, sure, right)])
