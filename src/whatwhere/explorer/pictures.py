"""Arrays as pictures that a browser shows. Knows arrays and PNG; nothing of networks."""

from __future__ import annotations

import base64
import io
import zlib
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

__all__ = ["data_url", "packed", "png", "stretched", "thumbnail"]

Array = NDArray[Any]

THUMBNAIL = 96
"""Longest side in px."""


def png(array: NDArray[np.uint8]) -> bytes:
    """``H x W`` or ``H x W x 3`` uint8 as a PNG; light compression, as it stays on this machine."""
    buffer = io.BytesIO()
    Image.fromarray(array).save(buffer, "PNG", compress_level=1)
    return buffer.getvalue()


def data_url(array: NDArray[np.uint8]) -> str:
    return "data:image/png;base64," + base64.b64encode(png(array)).decode()


def packed(values: NDArray[np.uint8]) -> str:
    """Bytes, row by row, deflated, as base64. A picture would not do: some browsers change what a canvas gives back."""
    return base64.b64encode(zlib.compress(np.ascontiguousarray(values).data, 1)).decode()


def stretched(values: Array) -> NDArray[np.uint8]:
    """``H x W`` from its smallest (black) to its largest (white)."""
    low, high = float(values.min()), float(values.max())
    grey: NDArray[np.uint8] = ((values - low) / max(high - low, 1e-12) * 255).round().astype(np.uint8)
    return grey


def thumbnail(rgb: NDArray[np.uint8]) -> NDArray[np.uint8]:
    picture = Image.fromarray(rgb)
    picture.thumbnail((THUMBNAIL, THUMBNAIL))
    return np.asarray(picture)
