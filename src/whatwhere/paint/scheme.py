"""How an image of a given size will be painted: whole, in exact tiles, or in blended ones. Touches no pixel."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch

from whatwhere.errors import PlanError
from whatwhere.paint.engine import Engine
from whatwhere.paint.memory import free_memory
from whatwhere.paint.tiles import Tiling, choose_tile

__all__ = ["Scheme", "scheme", "size_up"]

Pair = tuple[int, int]

_SCRATCH = 1.5
"""Operators' own scratch memory and the allocator's gaps, as a factor on the tensors' bytes."""

_GAPS = 2
"""And once more on a CPU where one tile follows the other: glibc then leaves more gaps, others in each run."""

_BUDGET = 2**30
"""The most memory that a forward pass may take on a CPU, in bytes: peak memory stays under 2 GiB in all."""

_LARGEST = 2**21
"""Pixels of a tile. With twice as many 8192x8192 pixels take a tenth less time and over twice the memory."""

_WHOLE = 2**23
"""Pixels of an image that passes whole through a CPU though it could be cut. Cut, it takes longer (4096x4096 with a
network of base 4: 2.0 s, and 0.9 s whole), but memory stays the same however large the image is."""

_WAITING = 4
"""Tiles whose float32 probabilities are there at a time: one that is computed, those that wait, one that is written."""

_SUMS = 12
"""Bytes for each class and pixel of a row of blended tiles: float32 sums over the whole width, and copies of them."""

_ON_GPU, _WHOLE_ON_GPU = 2**22, 2**24
"""Pixels that pass through a GPU at once, and of an image that can't be cut into exact tiles: with more, features have
over 2**31 numbers, for which kernels of many versions of torch fail or answer wrongly."""


@dataclass(frozen=True)
class Scheme:
    """The tiles of an image and what they promise.

    Attributes:
        tiling: where the tiles lie.
        exact: tiled logits equal the whole image's, to float rounding.
        blended: tiles overlap and are averaged, because the network sees farther than any halo.
        note: what is to be said about it, or "".
    """

    tiling: Tiling
    exact: bool
    blended: bool = False
    note: str = ""


def scheme(
    engine: Engine,
    size: Pair,
    *,
    tile: int | Pair | None = None,
    batch: int = 1,
    align: int = 1,
    probabilities: bool = False,
    most: int | None = None,
) -> Scheme:
    """Decides how to paint an image of ``size`` (height, width).

    Args:
        engine: the prepared model.
        size: height and width of the image.
        tile: what a tile reads, in pixels; None chooses by memory and the fewest pixels computed.
        batch: tiles that pass together.
        align: the chunk of the output: boxes written meet at its multiples.
        probabilities: they are asked for, and wait in memory beside the labels.
        most: pixels of a tile, whatever is asked for, after memory has run out with larger ones.

    Raises:
        PlanError: tiles too small for the network, or a batch of none.
    """
    if batch < 1:
        raise PlanError(f"batch = {batch}", "at least 1", "")
    asked = (tile, tile) if isinstance(tile, int) else tile
    many = size[0] * size[1]
    pixels = _affordable(engine, many, probabilities) // batch if asked is None else asked[0] * asked[1]
    pixels = pixels if most is None else min(pixels, most)
    whole = Tiling(size, size_up(size, engine.geometry.period), period=engine.geometry.period)
    if asked is None or most:
        fits = whole.tile[0] * whole.tile[1] <= pixels
    else:
        fits = _within(whole.tile, asked) or (_within(size, asked) and engine.pads_otherwise(size))
    if engine.geometry.only and not (fits and engine.geometry.paints(whole.tile)):
        return _of_one_size(engine, size, asked)
    large = asked is None and engine.device.type == "cpu" and whole.tile[0] * whole.tile[1] > _WHOLE
    if fits and not (large and engine.geometry.tileable):
        return _whole(engine, whole)
    if engine.geometry.tileable:
        found = _exact(engine, whole, asked if not most else None, pixels, align)
        if engine.geometry.repeats(found.tiling.tile, whole.padded):
            return found
    return _blended(engine, size, asked if asked and not most else None, pixels)


def _whole(engine: Engine, whole: Tiling) -> Scheme:
    """In one piece: as it is where the network makes another painting of zeros at its far edges, else padded."""
    size, notes = whole.size, []
    if engine.pads_otherwise(size):
        tiling = Tiling(size, size)
    elif size == whole.padded:
        tiling = whole
    else:
        step = engine.step(size)
        tiling = Tiling(size, size_up(size, step), period=step)
        if engine.geometry.config is None:
            height, width = tiling.tile
            notes.append(f"padded with zeros to {height}x{width}, a size that the network takes")
    if not engine.geometry.steady:
        notes.append(
            "of the same image the network makes another painting each time: it draws random numbers, or counts"
        )
    return Scheme(tiling, exact=engine.geometry.steady, note="; ".join(notes))


def _exact(engine: Engine, whole: Tiling, asked: Pair | None, pixels: int, align: int) -> Scheme:
    """In tiles with a halo; ``whole`` is the image in one."""
    size, halo, short = whole.size, engine.geometry.halo, (0, 0)
    if engine.geometry.mirrored:
        short = whole.padded[0] - size[0], whole.padded[1] - size[1]
    if asked:
        chosen = asked
    else:
        wide = (halo[0][0], halo[0][1] + short[0]), (halo[1][0], halo[1][1] + short[1])
        room = pixels // _GAPS if engine.device.type == "cpu" else pixels
        chosen = choose_tile(size, wide, engine.geometry.period, pixels=min(room, _LARGEST), align=align)
    note = ""
    if whole.padded != size and short == (0, 0) and engine.pads_otherwise(size):
        height, width = whole.padded
        note = f"equal to the image padded with zeros to {height}x{width}; alone, the network pads otherwise"
    try:
        return Scheme(Tiling(size, chosen, halo, engine.geometry.period, align, short), exact=True, note=note)
    except ValueError as error:
        least = Tiling(size, whole.tile, halo, engine.geometry.period, align, short).smallest
        reach = f"{halo[0][0]} to {halo[0][1]} pixels"
        why = f", as the output has chunks of {align} and this network a halo of {reach}"
        raise PlanError(
            f"tiles of {chosen[0]}x{chosen[1]} pixels",
            f"at least {least[0]}x{least[1]}" + (why if align > 1 else f" for this network, whose halo is {reach}"),
            "ask for larger tiles, or leave the choice to whatwhere",
        ) from error


def size_up(size: Pair, period: Pair) -> Pair:
    return -(-size[0] // period[0]) * period[0], -(-size[1] // period[1]) * period[1]


def _within(tile: Pair, limit: Pair) -> bool:
    return tile[0] <= limit[0] and tile[1] <= limit[1]


def _affordable(engine: Engine, many: int, probabilities: bool) -> int:
    """Pixels of a tile: its features, and where probabilities are asked for, those of the tiles that wait."""
    free = free_memory(engine.device)
    waiting = 4 * engine.model.classes.count * _WAITING if probabilities else 0
    if engine.device.type == "cpu":
        return engine.footprint.affordable(min(_BUDGET, free // 4), _SCRATCH, waiting)
    whole = many > _ON_GPU and not engine.geometry.tileable  # asked only where it matters: it takes a second
    return min(engine.footprint.affordable(free // 2, _SCRATCH, waiting), _WHOLE_ON_GPU if whole else _ON_GPU)


def _of_one_size(engine: Engine, size: Pair, asked: Pair | None) -> Scheme:
    """In blended squares of the one size that the network takes."""
    side = engine.geometry.only
    if asked not in (None, (side, side)):
        raise PlanError(
            f"tiles of {asked[0]}x{asked[1]} pixels", f"{side}x{side}, the only size that this network takes", ""
        )
    periods = [1 if length > side else side for length in size]  # what is smaller is padded up to one
    tiling = Tiling(size, (side, side), ((side // 4, side // 4),) * 2, (periods[0], periods[1]))
    note = f"approximate, in overlapping tiles that are blended: the network takes images of {side}x{side} only"
    return Scheme(tiling, exact=False, blended=True, note=note)


def _blended(engine: Engine, size: Pair, asked: Pair | None, pixels: int) -> Scheme:
    least = 3 * engine.geometry.period[0], 3 * engine.geometry.period[1]
    whole = size_up(size, engine.geometry.period)
    if asked:
        wanted = size_up(asked, engine.geometry.period)
    else:
        memory = min(_BUDGET, free_memory(torch.device("cpu")) // 4)
        rows = memory // (_SUMS * engine.model.classes.count * whole[1])
        high = max(min(math.isqrt(pixels), rows), least[0])
        wanted = high, max(pixels // high, least[1])
    height, width = (min(t // p * p, n) for t, p, n in zip(wanted, engine.geometry.period, whole))
    if height < min(least[0], whole[0]) or width < min(least[1], whole[1]):
        raise PlanError(
            f"tiles of {height}x{width} pixels",
            f"at least {least[0]}x{least[1]} for this network, whose tiles are blended",
            "ask for larger tiles, or leave the choice to whatwhere",
        )
    quarter = height // 4, width // 4
    halo = ((quarter[0], quarter[0]), (quarter[1], quarter[1]))
    note = f"approximate, in overlapping tiles that are blended: {engine.geometry.obstacle.rstrip('.')}"
    return Scheme(Tiling(size, (height, width), halo, engine.geometry.period), exact=False, blended=True, note=note)
