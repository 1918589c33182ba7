"""The room the figures lie in: wall, window, floor, rug, and the light of the hour. Everything here is background.

Its edges are soft by themselves, so it is drawn at the size of the pixels and laid under the figures.
Knows nothing of cats and cushions; it only promises a floor below ``Room.horizon``.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from whatwhere.data.scenes.canvas import SIDE, Canvas, Color, Floats, Patch, noise, smoothstep

__all__ = ["Room"]

_WALLS: tuple[Color, ...] = (
    (116, 146, 148), (150, 164, 138), (178, 142, 128), (128, 128, 160), (188, 168, 136), (104, 126, 150),
    (160, 124, 140),
)  # fmt: skip
_FLOORS: tuple[Color, ...] = (
    (160, 118, 84), (126, 88, 66), (178, 144, 106), (112, 100, 98), (142, 132, 120), (96, 110, 116),
)  # fmt: skip
_RUGS: tuple[tuple[Color, Color], ...] = (
    ((138, 62, 66), (222, 190, 148)),
    ((58, 86, 112), (206, 200, 184)),
    ((82, 110, 92), (224, 206, 160)),
    ((176, 128, 74), (92, 62, 66)),
    ((112, 86, 124), (214, 186, 190)),
)


@dataclass(frozen=True)
class Room:
    """A room by chance.

    Attributes:
        horizon: units from the top to where the wall meets the floor.
        seed: of everything in it.
    """

    horizon: float
    seed: np.random.SeedSequence

    def draw(self, canvas: Canvas) -> None:
        rng = np.random.default_rng(self.seed)
        grid = rng.standard_normal((64, 64)).astype(np.float32)
        self._wall(canvas.patch(0, 0, SIDE, self.horizon), rng)
        if self.horizon > 20 and rng.random() < 0.7:
            _window(canvas, float(rng.uniform(16, SIDE - 16)), self.horizon, rng)
        floor = canvas.patch(0, self.horizon, SIDE, SIDE)
        style = rng.integers(3)
        (_boards, _tiles, _carpet)[style](floor, self.horizon, _FLOORS[rng.integers(len(_FLOORS))], grid, rng)
        if rng.random() < 0.75:
            _rug(canvas, self.horizon, grid, rng)
        floor.tint(0.35 * smoothstep(self.horizon + 5, self.horizon, floor.y), (40, 30, 36))
        _light(canvas.patch(), rng)

    def _wall(self, patch: Patch, rng: np.random.Generator) -> None:
        color = np.asarray(_WALLS[rng.integers(len(_WALLS))], np.float32) + rng.normal(0, 6, 3).astype(np.float32)
        patch.color[:] = color
        pitch = float(rng.uniform(7, 11))
        u, v = (patch.x / pitch) % 1 - 0.5, (patch.y / pitch) % 1 - 0.5
        style = rng.integers(4)
        if style == 0:
            motif = smoothstep(0.2, 0.16, np.abs(u))
        elif style == 1:
            v = ((patch.y / pitch + 0.5 * (np.floor(patch.x / pitch) % 2)) % 1) - 0.5
            motif = smoothstep(0.2, 0.14, np.hypot(u, v))
        elif style == 2:
            motif = smoothstep(0.06, 0.02, np.minimum(np.abs(u + v) % 1, np.abs(u - v) % 1))
        else:
            motif = np.zeros_like(u)
        patch.tint(0.28 * motif, (246, 236, 216))
        skirting = patch.y > self.horizon - 4
        patch.paint(skirting, (226, 216, 200))
        patch.tint(0.4 * (np.abs(patch.y - self.horizon + 3.8) < 0.4).astype(np.float32), (60, 50, 50))


def _window(canvas: Canvas, middle: float, horizon: float, rng: np.random.Generator) -> None:
    """A sash window; the sill stays clear of the skirting."""
    wide, bottom = float(rng.uniform(11, 15)), horizon - 9
    patch = canvas.patch(middle - wide - 2, 0, middle + wide + 2, bottom + 3)
    x, y = patch.x - middle, patch.y
    sky = smoothstep(-10, bottom, y)[..., None]
    top, low = np.asarray((126, 172, 204), np.float32), np.asarray((240, 222, 194), np.float32)
    glass = (np.abs(x) < wide) & (y < bottom)
    hill = y - bottom + 5 + 2.5 * np.sin(x / 5 + float(rng.uniform(0, 6)))
    patch.paint((np.abs(x) < wide + 1.6) & (y < bottom + 1.6), (238, 230, 216))
    patch.paint(glass, (top + sky * (low - top))[glass])
    patch.tint(glass * smoothstep(-0.5, 0.5, hill), (132, 160, 122))
    patch.paint(glass & (np.abs(x) < 0.8), (238, 230, 216))
    patch.tint(0.35 * (np.abs(y - bottom - 1.9) < 0.5) * (np.abs(x) < wide + 1.6), (50, 40, 44))


def _boards(patch: Patch, horizon: float, color: Color, grid: Floats, rng: np.random.Generator) -> None:
    """Planks that widen towards the eye, each with its own tone, grain and joint."""
    depth = np.maximum(patch.y - horizon, 0) / (SIDE - horizon)
    row = 7.5 * depth**0.8 + float(rng.uniform(0, 1))
    plank = np.floor(row)
    shift = noise(grid, plank * 7.3 + 0.5, plank * 3.1 + 0.5) * 40
    joint = ((patch.x + shift) / 58) % 1
    board = plank * 5 + np.floor((patch.x + shift) / 58)
    tone = 1 + 0.05 * noise(grid, board * 11.7 + 0.5, board * 5.3 + 0.5)
    grain = noise(grid, patch.x / 9 + 13 * plank, row * 5.5) + 0.6 * noise(grid, patch.x / 3, row * 14)
    patch.color[:] = np.asarray(color, np.float32) * (tone + 0.028 * grain)[..., None]
    gap = np.maximum(smoothstep(0.07, 0.02, row - plank), smoothstep(0.012, 0.004, joint))
    patch.tint(0.5 * gap, (44, 28, 24))


def _tiles(patch: Patch, horizon: float, color: Color, grid: Floats, rng: np.random.Generator) -> None:
    """A chequered floor in perspective."""
    depth = 1 / (0.55 + (patch.y - horizon) / (SIDE - horizon))
    u = (patch.x - SIDE / 2) * depth / 15 + float(rng.uniform(0, 2))
    v = 7 * depth
    odd = (np.floor(u) + np.floor(v)) % 2
    mottle = noise(grid, u * 6, v * 6) + 0.5 * noise(grid, u * 19, v * 19)
    patch.color[:] = np.asarray(color, np.float32) * (0.97 + 0.12 * odd + 0.02 * mottle)[..., None]
    seam = np.maximum(
        smoothstep(0.06, 0.02, np.abs((u + 0.5) % 1 - 0.5)), smoothstep(0.06, 0.02, np.abs((v + 0.5) % 1 - 0.5))
    )
    patch.tint(0.35 * seam, (236, 226, 210))


def _carpet(patch: Patch, horizon: float, color: Color, grid: Floats, rng: np.random.Generator) -> None:
    """A plain woven floor."""
    del horizon, rng
    weave = noise(grid, patch.x / 1.2, patch.y / 0.8) + 0.8 * noise(grid, patch.x / 16 + 9, patch.y / 12)
    patch.color[:] = np.asarray(color, np.float32) * (1.04 + 0.035 * weave)[..., None]


def _rug(canvas: Canvas, horizon: float, grid: Floats, rng: np.random.Generator) -> None:
    """A round or long rug with two bands, lying on the floor."""
    ground, band = (np.asarray(c, np.float32) for c in _RUGS[rng.integers(len(_RUGS))])
    middle = float(rng.uniform(50, 78)), float(rng.uniform(0.5, 0.65)) * (SIDE - horizon) + horizon
    wide, deep = float(rng.uniform(46, 60)), float(rng.uniform(0.3, 0.42)) * (SIDE - horizon)
    power = 2.0 if rng.random() < 0.5 else 9.0
    patch = canvas.patch(middle[0] - 1.3 * wide, middle[1] - 1.1 * deep, middle[0] + 1.3 * wide, middle[1] + 1.1 * deep)
    x, y = (patch.x - middle[0]) / wide, (patch.y - middle[1]) / deep
    if power > 2:
        x = x / (1 + 0.14 * y)
    ring = np.hypot(x, y) if power == 2 else (np.abs(x) ** power + np.abs(y) ** power) ** (1 / power)
    weave = 1 + 0.05 * noise(grid, patch.x / 1.5, patch.y) + 0.03 * np.sin(patch.y * 5)
    patch.tint(0.4 * smoothstep(1.08, 0.98, ring), (30, 22, 28))
    stripe = _between(ring, 0.8, 0.9) + _between(ring, 0.62, 0.66)
    cloth = (ground + stripe[..., None] * (band - ground)) * weave[..., None]
    patch.color[:] += smoothstep(1.012, 0.988, ring)[..., None] * (cloth - patch.color)


def _between(value: Floats, low: float, high: float) -> Floats:
    """1 between the two, 0 outside, soft over a pixel or so."""
    return smoothstep(low - 0.012, low + 0.012, value) * smoothstep(high + 0.012, high - 0.012, value)


def _light(patch: Patch, rng: np.random.Generator) -> None:
    """A warm pool of light from one side, dusk in the far corners."""
    x, y = float(rng.uniform(20, 70)), float(rng.uniform(20, 70))
    away = np.hypot(patch.x - x, 1.15 * (patch.y - y)) / SIDE
    patch.tint(0.2 * smoothstep(0.55, 0.0, away), (255, 226, 178))
    patch.tint(0.3 * smoothstep(0.45, 1.15, away), (44, 36, 66))
