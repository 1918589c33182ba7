"""The brush: circles of an image made grey, blurred, or covered by another part of it. Knows arrays alone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter

__all__ = ["Edit", "altered"]

Array = NDArray[Any]


@dataclass(frozen=True)
class Edit:
    """One stroke.

    Attributes:
        kind: ``"grey"`` (the image's own mean), ``"blur"``, or ``"paste"`` of what lies around ``source``.
        x, y, radius: the circle, in pixels.
        source: for ``"paste"`` the centre of what is copied, ``(x, y)``.
    """

    kind: Literal["grey", "blur", "paste"]
    x: int
    y: int
    radius: int
    source: tuple[int, int] | None = None


def altered(raw: Array, edits: Sequence[Edit]) -> Array:
    """The image ``H x W x C`` after all strokes, in its own units and dtype."""
    changed = raw.copy()
    for edit in edits:
        top, left = max(0, edit.y - edit.radius), max(0, edit.x - edit.radius)
        bottom, right = min(raw.shape[0], edit.y + edit.radius + 1), min(raw.shape[1], edit.x + edit.radius + 1)
        if top >= bottom or left >= right:
            continue
        rows, columns = np.ogrid[top:bottom, left:right]
        inside = (rows - edit.y) ** 2 + (columns - edit.x) ** 2 <= edit.radius**2
        changed[top:bottom, left:right][inside] = _paint(changed, raw, edit, (top, bottom, left, right))[inside]
    return changed


def _paint(changed: Array, raw: Array, edit: Edit, box: tuple[int, int, int, int]) -> Array:
    top, bottom, left, right = box
    if edit.kind == "grey":
        grey = raw.reshape(-1, raw.shape[-1]).mean(0)
        return np.broadcast_to(grey, (bottom - top, right - left, raw.shape[-1])).astype(raw.dtype)
    if edit.kind == "blur":
        sigma = max(1.0, edit.radius / 3)
        margin = int(4 * sigma) + 1
        y0, x0 = max(0, top - margin), max(0, left - margin)
        piece = changed[y0 : bottom + margin, x0 : right + margin].astype(np.float32)
        soft = gaussian_filter(piece, (sigma, sigma, 0), mode="nearest")
        blurred: Array = soft[top - y0 : bottom - y0, left - x0 : right - x0].astype(raw.dtype)
        return blurred
    assert edit.source is not None
    rows = (np.arange(top, bottom) - edit.y + edit.source[1]).clip(0, raw.shape[0] - 1)
    columns = (np.arange(left, right) - edit.x + edit.source[0]).clip(0, raw.shape[1] - 1)
    copied: Array = changed[np.ix_(rows, columns)].copy()
    return copied
