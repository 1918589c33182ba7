"""Where tiles lie: what each reads and what it writes. Plain integers; knows nothing of networks, pixels or files.

The rules that make tiling exact (the overlap-tile of Ronneberger et al. 2015, arXiv 1505.04597; the condition on
strides by Majurski & Bajcsy 2021, doi 10.6028/jres.126.009):

- the image is padded at its far edges to a multiple of the network's total stride (`period`), as the whole would be;
- every read starts and ends on a multiple of the period, so that each tile meets every stride in the same phase;
- a tile reads the halo around what it writes, but never beyond the padded image: there the network's own padding
  must act, exactly where it acts on the whole image;
- all reads have one shape: near the far edges the read shifts back inside instead of shrinking.

A network that mirrors an image of any size by itself must not be given padding. Then every read stops as many pixels
short of a multiple of the period as the image does (`short`), so that each tile is mirrored as the whole would be.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

from whatwhere.records import Box

__all__ = ["Tile", "Tiling", "choose_tile"]

Pair = tuple[int, int]

_TILE_OVERHEAD = 64 * 64
"""What starting one more tile costs, in pixels computed: enough to prefer few tiles among equals."""


@dataclass(frozen=True)
class Tile:
    """One tile.

    Attributes:
        index: its place in the reading order of its tiling.
        read: the box to read, in pixels of the *padded* image (beyond the image's size it is padding).
        write: the box to write, inside the image.
    """

    index: int
    read: Box
    write: Box

    @property
    def inner(self) -> tuple[slice, ...]:
        """Where the written box lies inside what was read."""
        return tuple(slice(w0 - r0, w1 - r0) for (r0, _), (w0, w1) in zip(self.read, self.write))


@dataclass(frozen=True)
class Tiling:
    """An image cut into tiles.

    Args:
        size: height and width of the image, in pixels.
        tile: height and width of what a tile reads; rounded down to the period, and no larger than the padded image.
        halo: for each dimension, the pixels needed before and after a box whose edges are multiples of the period.
        period: the total stride of the network, for each dimension.
        align: write boxes meet at multiples of this (and of the period): the chunk of the output, where it has one.
        short: pixels by which every read stops before its tile does; either none or what `padded` adds to `size`.

    Raises:
        ValueError: a tile too small to hold its halo and one aligned step.

    >>> tiling = Tiling((100, 40), tile=(64, 64), halo=((6, 6), (6, 6)), period=(4, 4))
    >>> [(tile.read[0], tile.write[0]) for tile in tiling]
    [((0, 64), (0, 56)), ((36, 100), (56, 100))]
    >>> print(tiling)
    2 tiles of 64x40, halo 8+8 x 8+8, 22 % of the pixels computed more than once
    """

    size: Pair
    tile: Pair
    halo: tuple[Pair, Pair] = ((0, 0), (0, 0))
    period: Pair = (1, 1)
    align: int = 1
    short: Pair = (0, 0)

    def __post_init__(self) -> None:
        if min(self.size) < 1 or min(self.period) < 1 or self.align < 1 or min(map(min, self.halo)) < 0:
            raise ValueError(f"size, period and align must be positive and halo not negative: {self}")
        fitted = tuple(min(t // p * p, whole) for t, p, whole in zip(self.tile, self.period, self.padded))
        rounded = tuple((_up(b, p), _up(a, p)) for (b, a), p in zip(self.halo, self.period))
        object.__setattr__(self, "tile", fitted)
        object.__setattr__(self, "halo", rounded)
        for name, tile, least, whole in zip(("height", "width"), fitted, self.smallest, self.padded):
            if tile < min(least, whole):
                raise ValueError(
                    f"tile {name} {tile} holds no halo of {rounded} and a step: at least {least} is needed"
                )

    @property
    def padded(self) -> Pair:
        """Height and width after padding at the far edges."""
        return _up(self.size[0], self.period[0]), _up(self.size[1], self.period[1])

    @property
    def smallest(self) -> Pair:
        """The smallest tile that makes progress on an image of any size."""
        least = [b + a + math.lcm(self.align, p) for (b, a), p in zip(self._reach, self.period)]
        return least[0], least[1]

    @property
    def _reach(self) -> tuple[Pair, Pair]:
        """The halo between what is written and the ends of the tile, in front of which reads stop short."""
        rows, columns = ((b, a + _up(s, p)) for (b, a), s, p in zip(self.halo, self.short, self.period))
        return rows, columns

    @cached_property
    def _spans(self) -> tuple[list[tuple[Pair, Pair]], ...]:
        return tuple(
            _spans(n, t, h, p, math.lcm(self.align, p))
            for n, t, h, p in zip(self.size, self.tile, self._reach, self.period)
        )

    def __len__(self) -> int:
        return math.prod(len(spans) for spans in self._spans)

    def __iter__(self) -> Iterator[Tile]:
        for index, (rows, columns) in enumerate(itertools.product(*self._spans)):
            read = tuple((start, stop - short) for (start, stop), short in zip((rows[0], columns[0]), self.short))
            yield Tile(index, read, (rows[1], columns[1]))

    @property
    def shape(self) -> Pair:
        """Height and width of what every tile reads."""
        return self.tile[0] - self.short[0], self.tile[1] - self.short[1]

    @property
    def computed(self) -> int:
        """Pixels that pass through the network."""
        return len(self) * self.shape[0] * self.shape[1]

    @property
    def overlap(self) -> float:
        """The share of all pixels computed that had been or will be computed by another tile too, in [0, 1)."""
        whole = (self.padded[0] - self.short[0]) * (self.padded[1] - self.short[1])
        return 1 - whole / self.computed

    def __str__(self) -> str:
        count = "1 tile" if len(self) == 1 else f"{len(self)} tiles"
        halo = " x ".join(f"{before}+{after}" for before, after in self.halo)
        return (
            f"{count} of {self.shape[0]}x{self.shape[1]}, halo {halo}, "
            f"{self.overlap:.0%} of the pixels computed more than once"
        ).replace("%", " %")


def _up(number: int, step: int) -> int:
    return -(-number // step) * step


def _spans(size: int, tile: int, halo: Pair, period: int, align: int) -> list[tuple[Pair, Pair]]:
    """Read and write spans along one dimension. Each tile writes as far as its halo allows."""
    before, after = halo
    last = _up(size, period) - tile
    spans, read, start = [], 0, 0
    while read < last:
        stop = (read + tile - after) // align * align
        spans.append(((read, read + tile), (start, stop)))
        read, start = min(stop - before, last), stop
    return [*spans, ((read, read + tile), (start, size))]


def choose_tile(
    size: Pair,
    halo: tuple[Pair, Pair],
    period: Pair,
    *,
    pixels: int,
    align: int = 1,
) -> Pair:
    """The tile size that computes the fewest pixels among those with at most `pixels` pixels.

    Args:
        size, halo, period, align: as for `Tiling`.
        pixels: how many pixels the network may hold at a time: memory divided by bytes per pixel.

    When not even the smallest tile that makes progress has so few pixels, that smallest tile is returned.

    >>> choose_tile((4096, 4096), ((94, 94), (94, 94)), (16, 16), pixels=1024 * 1024)
    (848, 1168)
    """
    sides = [_sides(n, h, p, math.lcm(align, p)) for n, h, p in zip(size, halo, period)]
    best, least = (sides[0][0][0], sides[1][0][0]), math.inf
    for (height, down), (width, across) in itertools.product(*sides):
        cost = down * across * (height * width + _TILE_OVERHEAD)
        if height * width <= pixels and cost < least:
            best, least = (height, width), cost
    return best


def _sides(size: int, halo: Pair, period: int, align: int) -> list[Pair]:
    """The useful tile lengths along one dimension, growing, each with its number of tiles."""
    whole = _up(size, period)
    before, after = (_up(h, period) for h in halo)
    smallest = min(before + after + align, whole)
    sides: dict[int, int] = {}
    for count in range(1, max(2, _up(size, align) // align) + 1):
        step = _up(-(-max(size - before - after, align) // count), align)
        length = min(max(step + before + after, smallest), whole) if count > 1 else whole
        if length not in sides:
            sides[length] = len(_spans(size, length, (before, after), period, align))
        if length <= smallest:
            break
    return sorted(sides.items())
