"""Scores that ask for structure, not pixels: are cells kept apart, are thin things found.

Knows label arrays only. Each function judges one image.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import binary_opening, distance_transform_edt, label

from whatwhere.records import VOID

__all__ = ["thin_pixels", "thin_recall", "v_rand"]

Labels = NDArray[np.uint8]


def v_rand(truth: Labels, prediction: Labels, membrane: int = 1, *, thin: bool = False) -> float:
    """Foreground-restricted Rand F-score of the cells that membranes keep apart.

    Cells are the 4-connected components of what is not membrane. Among all pairs of pixels that lie in cells of the
    truth, with "together" meaning in one cell: 2 x (pairs together in both) / (pairs together in the truth + pairs
    together in the prediction). A gap in a membrane merges two cells and costs much; a membrane one pixel off costs
    nothing. Predicted membrane is together with nothing.

    After V^Rand of Arganda-Carreras et al. 2015 (doi 10.3389/fnana.2015.00142), over pairs of different pixels:
    ``1 - adapted_rand_error`` of scikit-image, were each pixel of predicted membrane a segment of its own.

    Args:
        truth, prediction: ``H x W`` class ids; void pixels of the truth are in no cell of it.
        membrane: the class id of membrane.
        thin: first let the predicted cells grow until they meet, so that thick membranes cost nothing. The ISBI 2012
            challenge thinned to one pixel; here no width is left, which the truth's membrane hides but for few pixels.

    Returns:
        From 0 to 1; NaN if no two pixels of the truth are together.

    >>> truth = np.array([[0, 0, 1, 0, 0]] * 3, np.uint8)
    >>> v_rand(truth, truth), round(v_rand(truth, np.zeros_like(truth)), 3)
    (1.0, 0.625)
    """
    true_cells, _ = label((truth != membrane) & (truth != VOID))
    predicted_cells, number = label((prediction != membrane) & (prediction != VOID))
    if thin and number:
        nearest = distance_transform_edt(predicted_cells == 0, return_distances=False, return_indices=True)
        predicted_cells = predicted_cells[tuple(nearest)]
    foreground = true_cells > 0
    t = true_cells[foreground].astype(np.int64)
    p = predicted_cells[foreground].astype(np.int64)
    in_cells = p > 0
    together_truth = _pairs(t)
    together_prediction = _pairs(p[in_cells])
    together_both = _pairs(t[in_cells] * (number + 1) + p[in_cells])
    if together_truth == 0:
        return float("nan")
    return 2 * together_both / (together_truth + together_prediction)


def _pairs(groups: NDArray[np.int64]) -> float:
    """Number of pairs of different pixels in one group."""
    sizes = np.unique(groups, return_counts=True)[1].astype(np.float64)
    return float((sizes * (sizes - 1)).sum() / 2)


def thin_pixels(truth: Labels, class_id: int, max_width: int) -> NDArray[np.bool_]:
    """Pixels of a class that belong to structures at most ``max_width`` pixels wide.

    What an opening with a disc of diameter ``max_width + 1`` removes, less the rounded-off corners and bumps of wider
    structures: a removed piece that nowhere reaches farther than half the disc from what is left is no structure.
    Void, and what lies beyond the frame, may belong to the class, so nothing is thin because it is cut off there.

    >>> truth = np.zeros((9, 20), np.uint8)
    >>> truth[2:4] = 1  # 2 px wide
    >>> int(thin_pixels(truth, 1, 2).sum()), int(thin_pixels(truth, 1, 1).sum())
    (40, 0)
    """
    size = max_width + 1
    y, x = np.indices((size, size)) - (size - 1) / 2
    disc = np.hypot(y, x) <= size / 2
    mask = truth == class_id
    padded = np.pad(mask | (truth == VOID), size, mode="edge")
    opened = binary_opening(padded, disc)[size:-size, size:-size]
    removed: NDArray[np.bool_] = mask & ~opened
    if not opened.any() or not removed.any():
        return removed
    pieces, number = label(removed, np.ones((3, 3)))
    reach = np.zeros(number + 1)
    np.maximum.at(reach, pieces[removed], distance_transform_edt(~opened)[removed])
    removed &= (reach > size / 2)[pieces]
    return removed


def thin_recall(truth: Labels, prediction: Labels, class_id: int, max_width: int) -> float:
    """Share of the thin pixels of a class (see `thin_pixels`) that the prediction has too; NaN if there are none.

    >>> truth = np.zeros((9, 20), np.uint8)
    >>> truth[2:4] = 1
    >>> prediction = truth.copy()
    >>> prediction[:, 10:] = 0
    >>> thin_recall(truth, prediction, 1, max_width=2)
    0.5
    """
    thin = thin_pixels(truth, class_id, max_width)
    return float(np.mean(prediction[thin] == class_id)) if thin.any() else float("nan")
