"""The geometry of label edges: bands, contours, contour pieces, distances between them.

Knows label arrays only; nothing of scores, images or files.

One rule holds everywhere here: **an edge lies between two pixels that both count and have different classes.** So
neither void nor the frame of the image makes an edge. (The reference code of Boundary IoU and of surface Dice takes the
frame for an edge, which rewards every object that is merely cut off by it. Away from the frame the results are equal.)
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from whatwhere.records import VOID

__all__ = ["DILATION_RATIO", "Points", "band", "contour", "dilation", "distances", "pieces"]

DILATION_RATIO = 0.02
"""Width of the Boundary IoU band as a share of the image's diagonal (Cheng et al. 2021, arXiv 2103.16562)."""

Labels = NDArray[np.uint8]


@dataclass(frozen=True)
class Points:
    """Points on the edges of one class, with the length of edge that each stands for.

    Attributes:
        at: ``(n, 2)`` float, row and column in pixels.
        length: ``(n,)`` float, in pixels.
    """

    at: NDArray[np.float64]
    length: NDArray[np.float64]


def dilation(shape: tuple[int, int]) -> int:
    """Width in pixels of the Boundary IoU band of an image: ``DILATION_RATIO`` of its diagonal, at least 1.

    >>> dilation((320, 320))
    9
    """
    return max(1, round(DILATION_RATIO * float(np.hypot(*shape))))


def band(labels: Labels, width: int) -> NDArray[np.bool_]:
    """Pixels within ``width`` pixels (chessboard distance) of another class's pixel beside a pixel of their own.

    These are the inner bands of all classes at once: ``band(labels, d) & (labels == c)`` is that of class ``c``. Where
    there is no void, it is the mask minus the erosion of the mask by a 3x3 square ``width`` times; what is near across
    void alone makes no band.

    >>> band(np.array([[0, 0, 0, 1, 1, 1, 255, 0]], np.uint8), 1).astype(int)
    array([[0, 0, 1, 1, 0, 0, 0, 0]])
    """
    inside = np.zeros(labels.shape, bool)
    counts = labels != VOID
    present = np.flatnonzero(np.bincount(labels.ravel(), minlength=VOID)[:VOID])
    for first in range(0, len(present), 8):  # eight classes at once, each a bit of a byte
        some = present[first : first + 8]
        bits = np.zeros(VOID + 1, np.uint8)
        bits[some] = 1 << np.arange(len(some))
        inside |= _bands(bits[labels], counts, width)
    return inside


def _bands(own: Labels, counts: NDArray[np.bool_], width: int) -> NDArray[np.bool_]:
    """The bands of those classes that have a bit in ``own``."""
    beside = np.zeros_like(own)  # the bits of the classes next to a pixel, then without its own
    for here, there in ((beside, own), (beside.T, own.T)):
        here[1:] |= there[:-1]
        here[:-1] |= there[1:]
    beside &= ~own
    beside[~counts] = 0
    near = _spread(_spread(beside, width).T, width).T
    inside: NDArray[np.bool_] = (near & own) != 0
    return inside


def _spread(bits: Labels, width: int) -> Labels:
    """In each row the bits of all rows up to ``width`` above and below: windows of rows that grow by doubling."""
    width = min(width, len(bits))
    frame = np.zeros_like(bits[:width])
    bits = np.concatenate([frame, bits, frame])
    reach, whole = 1, 2 * width + 1
    while reach < whole:
        step = min(reach, whole - reach)
        bits = bits[:-step] | bits[step:]
        reach += step
    return bits


def contour(labels: Labels) -> NDArray[np.bool_]:
    """Pixels with a 4-neighbour of another class, void not counting: the contours of all classes at once.

    >>> contour(np.array([[0, 0, 1, 255, 0]], np.uint8)).astype(int)
    array([[0, 1, 1, 0, 0]])
    """
    edge = np.zeros(labels.shape, bool)
    for axis in (0, 1):
        before = np.moveaxis(labels, axis, 0)[:-1]
        after = np.moveaxis(labels, axis, 0)[1:]
        differ = (before != after) & (before != VOID) & (after != VOID)
        view = np.moveaxis(edge, axis, 0)
        view[:-1] |= differ
        view[1:] |= differ
    return edge


def pieces(labels: Labels) -> dict[int, Points]:
    """For each class the pieces of its outline with their true lengths, one a corner where four pixels meet.

    The marching-squares outline of Nikolov et al. 2018 (arXiv 1809.04430): a corner with one or three pixels of the
    class carries a diagonal of sqrt(0.5) px, one with two side by side 1 px, one with two across sqrt(2) px. Corners
    that touch void carry nothing.
    """
    corners = np.stack([labels[:-1, :-1], labels[:-1, 1:], labels[1:, :-1], labels[1:, 1:]])
    edge = (corners != VOID).all(0) & (corners != corners[0]).any(0)
    at = np.argwhere(edge) + 0.5
    four = corners[:, edge]
    found: dict[int, Points] = {}
    for class_id in np.unique(four):
        inside = four == class_id
        count = inside.sum(0)
        across = (inside[0] == inside[3]) & (count == 2)
        length = np.where(count == 2, np.where(across, np.sqrt(2.0), 1.0), np.sqrt(0.5))
        mine = (count > 0) & (count < 4)
        found[int(class_id)] = Points(at[mine], length[mine])
    return found


def distances(here: NDArray[np.float64], there: NDArray[np.float64]) -> NDArray[np.float64]:
    """Euclidean distance in px from each point of ``here`` to the nearest of ``there``; inf if there is none.

    A tree of points, not a distance transform: outlines are thin, so this is some ten times faster, and as exact.
    """
    if len(here) == 0 or len(there) == 0:
        return np.full(len(here), np.inf)
    nearest: NDArray[np.float64] = cKDTree(there).query(here)[0]
    return nearest
