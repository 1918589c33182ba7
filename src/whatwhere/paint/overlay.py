"""A picture of the image with its labels laid over it, to look at. Knows nothing of networks."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from whatwhere.data.label_images import palette
from whatwhere.paint.sources import Pixels, Source, Valid
from whatwhere.records import VOID, Box, Classes

__all__ = ["blend", "write_overlay"]

_LONGEST = 3072
"""Overlays of larger images are drawn smaller: every second, third ... pixel."""

_TINT = 0.45
_BAND = 512

Picture = NDArray[np.uint8]


def blend(image: Picture, labels: NDArray[np.uint8], classes: Classes) -> Picture:
    """``(H, W, 3)`` image and ``(H, W)`` labels to one picture.

    Each class but the first tints its pixels and has its outline in full colour; the first class (the ground) and void
    leave the image as it is, so that what was found stands out.
    """
    tint = np.full(256, _TINT, np.float32)
    tint[[0, VOID]] = 0
    edge = np.zeros(labels.shape, bool)
    edge[:-1] |= labels[:-1] != labels[1:]
    edge[1:] |= labels[:-1] != labels[1:]
    edge[:, :-1] |= labels[:, :-1] != labels[:, 1:]
    edge[:, 1:] |= labels[:, :-1] != labels[:, 1:]
    weight = np.where(edge & (tint[labels] > 0), np.float32(1), tint[labels])[..., None]
    drawn: Picture = np.rint(image * (1 - weight) + palette(classes)[labels] * weight).astype(np.uint8)
    return drawn


def write_overlay(path: Path, source: Source, labels: Callable[[Box], NDArray[np.uint8]], classes: Classes) -> None:
    """Writes the overlay as a PNG, read band by band, so that memory holds only what is drawn."""
    from whatwhere.judge.pictures import to_display  # the room is slow to import, and few paintings need it

    height, width = source.size
    step = -(-max(height, width) // _LONGEST)
    band = max(1, _BAND // step) * step
    images, ids = [], []
    for top in range(0, height, band):
        box = ((top, min(top + band, height)), (0, width))
        images.append(_thinned(*source.read(box), step))
        ids.append(labels(box)[::step, ::step])
    drawn = blend(to_display(np.concatenate(images)), np.concatenate(ids), classes)
    Image.fromarray(drawn).save(path, format="PNG")


def _thinned(pixels: Pixels, valid: Valid | None, step: int) -> Pixels:
    """Every ``step``-th pixel of the first three channels; where there is no data, what is shown black."""
    few = np.ascontiguousarray(pixels[::step, ::step, :3])
    if valid is not None:
        few = few if few.dtype == np.uint8 else few.astype(np.float64)
        few[~valid[::step, ::step]] = 0 if few.dtype == np.uint8 else np.nan
    return few
