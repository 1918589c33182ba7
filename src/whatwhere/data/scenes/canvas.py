"""Something to draw on, and fur to draw with: a supersampled canvas, strokes, noise and coats.

A picture is measured in *units* of 1/128 of its side, so one scene can be drawn at any size; a unit is one pixel of the
default size. Every drawn thing carries its class and part along, so that masks are the drawing itself, not a second
opinion about it. Knows nothing of cats, cushions or rooms.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

__all__ = ["SIDE", "SUPERSAMPLE", "Canvas", "Coat", "Color", "Floats", "Patch", "draw_coat", "noise", "smoothstep"]

SIDE = 128
"""Units along a side of the picture."""

SUPERSAMPLE = 3
"""Subpixels along a side of a pixel: odd, so that a line one pixel wide always owns the larger part of a pixel."""

Floats = NDArray[np.floating[Any]]
Color = tuple[float, float, float]
_Mask = NDArray[np.bool_]


def smoothstep(low: float, high: float, value: Floats) -> Floats:
    """0 at or below ``low``, 1 at or above ``high``, smooth between (``low > high`` turns it round)."""
    ramp: Floats = np.clip((value - low) / (high - low), 0.0, 1.0)
    smooth: Floats = ramp * ramp * (3.0 - 2.0 * ramp)
    return smooth


def noise(grid: Floats, x: Floats, y: Floats) -> Floats:
    """The square ``grid`` of random numbers read at (x, y) in cells, bilinearly, repeating itself for ever."""
    side = len(grid)
    cells = np.concatenate([grid, grid[:1]])
    cells = np.concatenate([cells, cells[:, :1]], axis=1).ravel().astype(np.float32)
    column, row = np.floor(x), np.floor(y)
    fx, fy = (x - column).astype(np.float32), (y - row).astype(np.float32)
    corner = (row.astype(np.int32) % side) * (side + 1) + column.astype(np.int32) % side
    upper, lower = cells.take(corner), cells.take(corner + side + 1)
    upper += fx * (cells.take(corner + 1) - upper)
    lower += fx * (cells.take(corner + side + 2) - lower)
    result: Floats = upper + fy * (lower - upper)
    return result


@dataclass(frozen=True)
class Patch:
    """A box of the canvas: its subpixels' places in units, and views of what is painted there."""

    x: Floats
    y: Floats
    color: Floats
    label: NDArray[np.uint8]
    part: NDArray[np.uint8]

    def paint(self, mask: _Mask, color: Floats | Color, label: int | None = None, part: int | None = None) -> None:
        """Cover ``mask`` with one colour, or with one colour for each of its subpixels."""
        self.color[mask] = color
        if label is not None and part is not None:
            self.label[mask] = label
            self.part[mask] = part

    def tint(self, alpha: Floats, color: Color) -> None:
        """Blend one colour over everything: shadows, glow. Labels stay."""
        for channel, value in enumerate(color):
            plane = self.color[..., channel]
            plane += alpha * (np.float32(value) - plane)


class Canvas:
    """Colours (float, 0 to 255), classes and parts of a square picture, ``fine`` times finer than its pixels."""

    def __init__(self, size: int, fine: int = SUPERSAMPLE) -> None:
        side = size * fine
        self.size = size
        self.scale = side / SIDE
        self.color = np.zeros((side, side, 3), np.float32)
        self.label = np.zeros((side, side), np.uint8)
        self.part = np.zeros((side, side), np.uint8)

    def patch(self, left: float = 0, top: float = 0, right: float = SIDE, bottom: float = SIDE) -> Patch:
        """The box between these units, clipped to the picture."""
        side = len(self.label)
        x0, y0 = (int(np.clip(np.floor(v * self.scale), 0, side)) for v in (left, top))
        x1, y1 = (int(np.clip(np.ceil(v * self.scale), 0, side)) for v in (right, bottom))
        shape = (y1 - y0, x1 - x0)
        x = np.broadcast_to((np.arange(x0, x1, dtype=np.float32) + 0.5) / np.float32(self.scale), shape)
        y = np.broadcast_to((np.arange(y0, y1, dtype=np.float32)[:, None] + 0.5) / np.float32(self.scale), shape)
        box = np.s_[y0:y1, x0:x1]
        return Patch(x, y, self.color[box], self.label[box], self.part[box])

    def lay(self, backdrop: Canvas) -> None:
        """Fill the canvas with the colours of one drawn at pixel size."""
        fine = len(self.color) // len(backdrop.color)
        self.color[:] = backdrop.color.repeat(fine, axis=0).repeat(fine, axis=1)

    def stroke(self, points: Floats, width: Floats, color: Color, label: int | None = None, part: int = 0) -> None:
        """A round brush moved through ``points`` (n, 2), as wide as ``width`` (n,) there; never under one pixel."""
        wide = np.maximum(width, SIDE / self.size)
        reach = wide.max()
        (left, top), (right, bottom) = points.min(0) - reach, points.max(0) + reach
        patch = self.patch(left, top, right, bottom)
        inside = np.zeros(patch.x.shape, np.bool_)
        for a, b, w in zip(points[:-1], points[1:], (wide[:-1] + wide[1:]) / 2):
            step = b - a
            along = ((patch.x - a[0]) * step[0] + (patch.y - a[1]) * step[1]) / max(float(step @ step), 1e-9)
            along = np.clip(along, 0, 1)
            away = (patch.x - a[0] - along * step[0]) ** 2 + (patch.y - a[1] - along * step[1]) ** 2
            inside |= away <= (w / 2) ** 2
        patch.paint(inside, color, label, part)

    def image(self) -> NDArray[np.uint8]:
        """The picture, size x size x 3: every pixel the mean of its subpixels."""
        s = SUPERSAMPLE
        mean = sum(self.color[row::s, column::s] for row in range(s) for column in range(s)) / np.float32(s * s)
        return np.clip(np.rint(mean), 0, 255).astype(np.uint8)

    def ids(self) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
        """Class and part of every pixel: that of most of its subpixels (ties go to the part drawn finer)."""
        joint = self.part * np.uint8(8) + self.label
        kinds = np.flatnonzero(np.bincount(joint.ravel()))[::-1]
        s = SUPERSAMPLE
        subpixels = [joint[row::s, column::s] for row in range(s) for column in range(s)]
        votes = np.stack([sum((sub == kind).astype(np.uint8) for sub in subpixels) for kind in kinds])
        winner = kinds[votes.argmax(0)]
        return (winner % 8).astype(np.uint8), (winner // 8).astype(np.uint8)


@dataclass(frozen=True)
class Coat:
    """One animal's, or one cushion's, fur: colours, markings and the noise that makes every hair.

    Attributes:
        base, mark, pale: RGB in 0..255 of the ground, the markings and the lightest fur.
        pattern: ``plain``, ``tabby``, ``patches``, ``spots`` or ``calico``.
        pitch: units from stripe to stripe, or from spot to spot.
        hairs: square grid of normal random numbers.
    """

    base: Color
    mark: Color
    pale: Color
    pattern: str
    pitch: float
    hairs: Floats

    def fur(self, along: Floats, across: Floats) -> Floats:
        """Colours (n, 3) at places given in units along and across the lie of the hair."""
        base, mark, pale = (np.asarray(c, np.float32) for c in (self.base, self.mark, self.pale))
        slow = noise(self.hairs, along / 9 + 3, across / 9 + 5)
        amount = self._marking(along, across, slow)[:, None]
        color = base + amount * (mark - base)
        if self.pattern in ("calico", "patches"):
            white = smoothstep(0.35, 0.6, noise(self.hairs, along / 13 + 31, across / 11 + 7))[:, None]
            color += white * (pale - color)
        strand = noise(self.hairs, along / 4.2, across / 0.75 + 0.12 * along)
        wisp = noise(self.hairs, along / 2.4 + 17, across / 1.3 + 29)
        light = 1 + 0.055 * strand + 0.045 * wisp + 0.03 * slow
        return np.asarray(color * light[:, None] + 3.0 * strand[:, None], np.float32)

    def ruffle(self, along: Floats, across: Floats) -> Floats:
        """How far single hairs stand out of the outline, about -2 to 2."""
        return noise(self.hairs, along / 1.1 + 23, across / 1.1 + 37)

    def _marking(self, along: Floats, across: Floats, slow: Floats) -> Floats:
        ragged = noise(self.hairs, along / 3 + 11, across / 1.1 + 2)
        if self.pattern == "tabby":
            wave = np.sin(2 * np.pi * (along + 2.2 * slow) / self.pitch) + 0.35 * ragged
            return 0.85 * smoothstep(0.15, 0.75, wave)
        if self.pattern == "spots":
            row = np.sin(2 * np.pi * (along + 1.8 * slow) / self.pitch)
            column = np.sin(2 * np.pi * (across + 0.5 * along + 1.5 * slow) / (0.9 * self.pitch))
            return 0.85 * smoothstep(0.3, 0.6, row * column + 0.12 * ragged)
        if self.pattern in ("patches", "calico"):
            return smoothstep(0.1, 0.3, noise(self.hairs, along / 12 + 41, across / 10 + 13) + 0.1 * ragged)
        return 0.18 * smoothstep(-0.5, 1.0, slow)


_COATS: tuple[tuple[Color, Color, Color], ...] = (
    ((226, 148, 78), (178, 92, 40), (250, 226, 192)),  # ginger
    ((152, 150, 152), (84, 84, 92), (226, 224, 222)),  # grey
    ((72, 68, 76), (42, 40, 48), (232, 228, 222)),  # charcoal
    ((240, 222, 192), (206, 168, 122), (252, 246, 234)),  # cream
    ((146, 104, 76), (84, 56, 44), (234, 212, 186)),  # brown
    ((128, 142, 164), (82, 94, 118), (222, 228, 236)),  # blue
    ((236, 230, 222), (92, 84, 86), (252, 250, 246)),  # white and soot
    ((214, 170, 128), (70, 58, 60), (250, 240, 224)),  # tortoise
)
_PATTERNS = ("plain", "tabby", "tabby", "patches", "spots", "calico")


def draw_coat(rng: np.random.Generator) -> Coat:
    """A coat by chance; whoever wears it has no say in it."""
    drift = rng.normal(0, 5, 3) + rng.normal(0, 6)
    colors = np.asarray(_COATS[rng.integers(len(_COATS))]) + drift * np.array([[1.0], [1.0], [0.3]])
    base, mark, pale = ((float(r), float(g), float(b)) for r, g, b in np.clip(colors, 20, 254))
    hairs = ndimage.gaussian_filter(rng.standard_normal((64, 64)), 0.5, mode="wrap")
    hairs = (hairs / hairs.std()).astype(np.float32)
    return Coat(base, mark, pale, _PATTERNS[rng.integers(len(_PATTERNS))], rng.uniform(6.5, 9.5), hairs)
