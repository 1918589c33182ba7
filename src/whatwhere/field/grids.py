"""Where each layer's units stand on the image: found by watching how sizes grow with the image.

The module is exported on two canvases, much larger than any receptive field and of different proportions: an axis that
grows as spatial dimension ``d`` does belongs to it, and the two sizes give its stride. Knows nothing of tiles.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from difflib import SequenceMatcher
from fractions import Fraction
from functools import lru_cache
from math import ceil, floor, lcm

from whatwhere.field.graph import Graph, Step

__all__ = ["GROWTH", "Canvas", "Grid", "axis_strides", "common_period", "grid_of"]

GROWTH = (2, 3, 5)
"""How much larger the second canvas is, in each spatial dimension: factors that tell the dimensions apart."""


@dataclass(frozen=True)
class Canvas:
    """The module on an image of size `size`."""

    size: tuple[int, ...]
    graph: Graph


@dataclass(frozen=True)
class Grid:
    """How the units of a layer lie over the image.

    Attributes:
        axes: which axis of the layer's tensor is each spatial dimension; None where there is none.
        size: units in each spatial dimension, on the image given (1 where there is no axis).
        stride: input pixels between neighbouring units; a fraction below 1 where the layer is finer than the image;
            None where the number of units does not grow with the image.
        origin: input pixels before the first unit's cell (not 0 where convolutions without padding eat the rim).
    """

    axes: tuple[int | None, ...]
    size: tuple[int, ...]
    stride: tuple[Fraction | None, ...]
    origin: tuple[int, ...]

    def cell(self, unit: tuple[int, ...], image: tuple[int, ...]) -> tuple[tuple[int, int], ...]:
        """The block of pixels of the image that a unit answers for."""
        cells = []
        for place, size, stride, origin, pixels in zip(unit, self.size, self.stride, self.origin, image):
            step = Fraction(pixels, size) if stride is None else stride
            start, stop = floor(place * step) + origin, ceil((place + 1) * step) + origin
            cells.append((min(max(start, 0), pixels), min(max(stop, 0), pixels)))
        return tuple(cells)


def _dimension(small: int, large: int, dims: int) -> int | None:
    """Which spatial dimension an axis grows with."""
    if small == large or small == 0:
        return None
    ratio = large / small
    best = min(range(dims), key=lambda d: abs(GROWTH[d] - ratio))
    return best if abs(GROWTH[best] / ratio - 1) < 0.1 else None


def _simplest(low: Fraction, high: Fraction) -> Fraction:
    """Of all ratios from `low` to `high` the one of the smallest numbers.

    >>> _simplest(Fraction(4096, 147), Fraction(4096, 145))
    Fraction(28, 1)
    """
    if ceil(low) <= high:
        return Fraction(ceil(low))
    below = floor(low)
    return below + 1 / _simplest(1 / (high - below), 1 / (low - below))


@lru_cache(2**14)
def _stride(pixels: int, units: int) -> Fraction:
    """Pixels a unit: the simplest ratio by which so many pixels more bring so many units more.

    What pads to a multiple of its own, as windows of 7 do, brings a few more or less at the rim. How few is not known:
    of ranges that allow for ever more the first is believed in which chance alone would not put so simple a ratio.
    """
    nearest = Fraction(pixels, units).limit_denominator(64)
    if nearest.denominator == 1:
        return nearest
    few = 1
    while 4 * few <= units:
        low, high = Fraction(pixels, units + few), Fraction(pixels, units - few)
        found = _simplest(low, high)
        if found.denominator**2 * (high - low) < 1:  # so many ratios of such numbers lie there on average
            return found
        few *= 2
    coarse = _simplest(Fraction(pixels, units + 1), Fraction(pixels, units - 1))
    return min(coarse, nearest, key=lambda ratio: ratio.denominator)


def axis_strides(
    small: tuple[int, ...], large: tuple[int, ...], canvases: tuple[Canvas, Canvas]
) -> list[tuple[int, int, Fraction]]:
    """(axis, spatial dimension, stride) for each axis of a tensor that grows with one dimension of the image."""
    one, two = canvases
    found = []
    for axis, (n, m) in enumerate(zip(small, large)):
        d = _dimension(n, m, len(one.size))
        if d is not None:
            found.append((axis, d, _stride(two.size[d] - one.size[d], m - n)))
    return found


def grid_of(shape: tuple[int, ...], shapes: tuple[tuple[int, ...], tuple[int, ...]] | None,
            canvases: tuple[Canvas, Canvas] | None, image: tuple[int, ...]) -> Grid:  # fmt: skip
    """The grid of a layer from its shape on the image and on both canvases.

    Without canvases (a network for one size only) ``(N, C, *space)`` is taken for granted.
    """
    dims = len(image)
    axes: list[int | None] = [None] * dims
    strides: list[Fraction | None] = [None] * dims
    origins = [0] * dims
    if canvases is not None and shapes is not None:
        for axis, d, stride in axis_strides(*shapes, canvases):
            if axes[d] is None:
                axes[d], strides[d] = axis, stride
                origins[d] = floor((canvases[0].size[d] - shapes[0][axis] * stride) / 2)
    free = [axis for axis in range(2, len(shape)) if axis not in axes]
    if len(shape) == dims + 2 and all(axes[d] in (None, d + 2) for d in range(dims)):
        for d in range(dims):
            if axes[d] is None and d + 2 in free:
                axes[d] = d + 2
                if canvases is None and image[d] % shape[d + 2] == 0:
                    strides[d] = Fraction(image[d], shape[d + 2])
    size = tuple(1 if axis is None else shape[axis] for axis in axes)
    return Grid(tuple(axes), size, tuple(strides), tuple(origins))


def _pairs(small: Sequence[Step], large: Sequence[Step]) -> Iterator[tuple[Step, Step]]:
    """Steps of two graphs that are the same: one may cut off what was padded, where nothing was in the other."""
    ours, theirs = ([step.operator for step in steps] for steps in (small, large))
    if ours == theirs[: len(ours)]:
        yield from zip(small, large)
        return
    for here, there, count in SequenceMatcher(None, ours, theirs, autojunk=False).get_matching_blocks():
        yield from zip(small[here : here + count], large[there : there + count])


def common_period(canvases: tuple[Canvas, Canvas], last: int) -> tuple[int, ...]:
    """The smallest shift of the image, in each dimension, that moves every grid up to step `last` by whole units."""
    period = [1] * len(canvases[0].size)
    for small, large in _pairs(canvases[0].graph.steps[: last + 1], canvases[1].graph.steps):
        for _, d, stride in [*axis_strides(small.shape, large.shape, canvases), *_of_columns(small, large, canvases)]:
            period[d] = lcm(period[d], stride.numerator)
    return tuple(period)


def _of_columns(small: Step, large: Step, canvases: tuple[Canvas, Canvas]) -> Iterator[tuple[int, int, Fraction]]:
    """As `axis_strides`, of windows laid out as columns: an axis of both dimensions, whose size tells neither."""
    if small.operator not in ("im2col", "col2im"):
        return
    image, other = ((one.shape if one.operator == "col2im" else one.arguments["self"].shape) for one in (small, large))
    by = dict(zip((len(image) - 2, len(image) - 1), small.arguments["stride"]))
    for axis, d, stride in axis_strides(image, other, canvases):
        if axis in by:
            yield axis, d, stride * by[axis]
