"""How an image of a given size will be painted: whole, in exact tiles, or in blended ones. Touches no pixel."""

from __future__ import annotations

import math
from dataclasses import dataclass

from whatwhere.errors import PlanError
from whatwhere.paint.engine import Engine
from whatwhere.paint.memory import free_memory
from whatwhere.paint.tiles import Tiling, choose_tile

__all__ = ["Scheme", "scheme"]

Pair = tuple[int, int]

_SCRATCH = 1.5
"""Operators' own scratch memory and the allocator's gaps, as a factor on the tensors' bytes."""

_BUDGET = 2**30
"""The most memory that a forward pass may take on a CPU, in bytes: peak memory stays under 2 GiB in all."""


_LARGEST = 2**22
"""Larger tiles save next to nothing, and wait in memory for their turn."""


@dataclass(frozen=True)
class Scheme:
    """The tiles of an image and what they promise.

    Attributes:
        tiling: where the tiles lie.
        exact: tiled logits equal the whole image's, to float rounding.
        blended: tiles overlap by half and are averaged, because the network sees farther than any halo.
        note: what is to be said about it, or "".
    """

    tiling: Tiling
    exact: bool
    blended: bool = False
    note: str = ""


def scheme(
    engine: Engine, size: Pair, *, tile: int | Pair | None = None, batch: int = 1, align: int = 1, shrink: int = 0
) -> Scheme:
    """Decides how to paint an image of ``size`` (height, width).

    Args:
        engine: the prepared model.
        size: height and width of the image.
        tile: what a tile reads, in pixels; None chooses by memory and the fewest pixels computed.
        batch: tiles that pass together.
        align: the chunk of the output: boxes written meet at its multiples.
        shrink: how often memory has run out; each time, tiles have half the pixels.
    """
    asked = (tile, tile) if isinstance(tile, int) else tile
    pixels = _affordable(engine) // batch if asked is None else asked[0] * asked[1]
    pixels >>= shrink
    whole = Tiling(size, size_up(size, engine.period), period=engine.period)
    fits = whole.tile[0] * whole.tile[1] <= pixels if asked is None or shrink else _within(whole.tile, asked)
    if fits:
        return Scheme(Tiling(size, size) if engine.pads_otherwise else whole, exact=True)
    if not engine.field.tileable:
        return _blended(engine, size, asked if asked and not shrink else None, pixels)
    halo = engine.halo
    most = min(pixels, _LARGEST)
    chosen = asked if asked and not shrink else choose_tile(size, halo, engine.period, pixels=most, align=align)
    note = ""
    if engine.pads_otherwise and whole.padded != size:
        height, width = whole.padded
        note = f"equal to the image padded with zeros to {height}x{width}; alone, the network pads otherwise"
    try:
        return Scheme(Tiling(size, chosen, halo, engine.period, align), exact=True, note=note)
    except ValueError as error:
        least = Tiling(size, size_up(size, engine.period), halo, engine.period, align).smallest
        raise PlanError(
            f"tiles of {chosen[0]}x{chosen[1]} pixels",
            f"at least {least[0]}x{least[1]} for this network, whose halo is {halo[0][0]} to {halo[0][1]} pixels",
            "ask for larger tiles, or leave the choice to whatwhere",
        ) from error


def size_up(size: Pair, period: Pair) -> Pair:
    return -(-size[0] // period[0]) * period[0], -(-size[1] // period[1]) * period[1]


def _within(tile: Pair, limit: Pair) -> bool:
    return tile[0] <= limit[0] and tile[1] <= limit[1]


def _affordable(engine: Engine) -> int:
    free = free_memory(engine.device)
    budget = min(_BUDGET, free // 4) if engine.device.type == "cpu" else free // 2
    return int(budget / (engine.bytes_per_pixel * _SCRATCH))


def _blended(engine: Engine, size: Pair, asked: Pair | None, pixels: int) -> Scheme:
    side = math.isqrt(pixels)
    whole = size_up(size, engine.period)
    height, width = (min(t, n) for t, n in zip(size_up(asked or (side, side), engine.period), whole))
    quarter = height // 4, width // 4
    halo = ((quarter[0], quarter[0]), (quarter[1], quarter[1]))
    note = f"approximate, in overlapping tiles that are blended: {engine.field.explain().rstrip('.')}"
    return Scheme(Tiling(size, (height, width), halo, engine.period), exact=False, blended=True, note=note)
