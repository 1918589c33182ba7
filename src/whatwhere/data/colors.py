"""Colours for classes whose masks have none: as many as are asked for, told apart by the colour-blind too.

Knows nothing of masks.
"""

from __future__ import annotations

from colorsys import hls_to_rgb
from functools import lru_cache
from itertools import product

import numpy as np
from numpy.typing import NDArray

from whatwhere.records import color_of, parse_color

__all__ = ["BACKGROUND", "distinct_colors"]

BACKGROUND = parse_color("#1f2430")

# Okabe & Ito, "Color Universal Design" (2008): told apart under every common colour blindness
_OKABE_ITO = ("#0072b2", "#e69f00", "#009e73", "#cc79a7", "#56b4e9", "#d55e00", "#f0e442")

_VISIONS = np.array(
    [
        np.eye(3),
        [[0.29275, 0.70725, 0], [0.29275, 0.70725, 0], [-0.02234, 0.02234, 1]],  # without green cones
        [[0.11238, 0.88762, 0], [0.11238, 0.88762, 0], [0.00401, -0.00401, 1]],  # without red cones
    ]
)
"""What linear RGB looks like (Vienot, Brettel & Mollon, 1999)."""

_CONES = np.array([[0.41222, 0.53633, 0.05145], [0.21190, 0.68070, 0.10740], [0.08830, 0.28172, 0.62998]])
_OKLAB = np.array([[0.21045, 0.79362, -0.00407], [1.97800, -2.42859, 0.45059], [0.02590, 0.78277, -0.80868]])
"""Of linear sRGB, and of the cube roots of that (Ottosson, 2020)."""


@lru_cache(maxsize=8)
def distinct_colors(count: int) -> tuple[tuple[int, int, int], ...]:
    """Okabe and Ito's seven, then of many hues and lightnesses the one farthest from all before it, and so on."""
    chosen = [parse_color(text) for text in _OKABE_ITO[:count]]
    hues = product(range(48), (0.35, 0.5, 0.7), (0.9, 0.55))
    others = [color_of(round(255 * part) for part in hls_to_rgb(h / 48, light, s)) for h, light, s in hues]
    looks = _as_seen(others)
    away = np.min([_apart(looks, look) for look in _as_seen([BACKGROUND, *chosen])], axis=0)
    while len(chosen) < count:
        best = int(away.argmax())
        chosen.append(others[best])
        away = np.minimum(away, _apart(looks, looks[best]))
    return tuple(chosen)


def _apart(looks: NDArray[np.float64], other: NDArray[np.float64]) -> NDArray[np.float64]:
    """How far colours are from another one to whom tells them apart least."""
    apart: NDArray[np.float64] = np.linalg.norm(looks - other, axis=-1).min(axis=-1)
    return apart


def _as_seen(colors: list[tuple[int, int, int]]) -> NDArray[np.float64]:
    """``(colours, visions, 3)`` OKLab, in which distances are about as they look."""
    srgb = np.array(colors) / 255
    linear = np.where(srgb > 0.04045, ((srgb + 0.055) / 1.055) ** 2.4, srgb / 12.92)
    seen = np.einsum("vij,nj->nvi", _VISIONS, linear).clip(0, 1)
    lab: NDArray[np.float64] = np.cbrt(seen @ _CONES.T) @ _OKLAB.T
    return lab
