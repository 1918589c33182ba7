"""How far a layer sees beyond its cell, and the halo that exact tiles need: measured in the middle and at the rim of a
canvas much larger than any window. Knows one canvas; knows nothing of the image given.
"""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction
from functools import cache
from heapq import heapify, heappop, heappush
from math import ceil, prod

from whatwhere.field.grids import Canvas, Grid
from whatwhere.field.obstacles import block_spans, middle_block
from whatwhere.field.windows import Trace, trace
from whatwhere.records import Box

__all__ = ["Halo", "halo_of", "image_box", "reach_of"]

Halo = tuple[tuple[int, int], ...]
"""Pixels ``(before, after)`` for each spatial dimension."""


def image_box(result: Trace, image: tuple[int, ...]) -> Box:
    """The pixels that a trace reached; empty at the origin if none."""
    if result.image is None:
        return ((0, 0),) * len(image)
    return tuple((span.start, span.stop) for span in result.image[-len(image) :])


_HALVINGS = 512
"""How often blocks of phases are halved in search of the largest, before the block's own bound is taken."""


def reach_of(canvas: Canvas, layer: str, grid: Grid, period: tuple[int, ...]) -> tuple[Halo, tuple[int, ...]]:
    """Over the units within one period: the largest reach before and after the cell, and the largest window.

    Of all phases of all axes, as what a unit sees along one may depend on where it stands along another: what was
    shuffled from channels to space does. Where it does not, a row of units sees what each of its units sees.
    """
    place = canvas.graph.layers[layer]
    shape = canvas.graph.steps[place].shape
    sizes = tuple(1 if axis is None else shape[axis] for axis in grid.axes)
    counts = [1 if stride is None else max(1, int(pixels / stride)) for pixels, stride in zip(period, grid.stride)]
    every = tuple((size // count // 2 * count, (size // count // 2 + 1) * count) for size, count in zip(sizes, counts))
    wide = Grid(grid.axes, sizes, grid.stride, grid.origin)

    @cache
    def seen(box: Box) -> Box | None:
        found = trace(canvas.graph, place, block_spans(shape, grid, box))
        return None if found.image is None else image_box(found, canvas.size)

    def far(d: int, box: Box) -> tuple[int, int, int]:
        """What a row of units, all in one place along dimension `d`, reaches before and after it, and sees of it."""
        window = seen(box)
        if window is None:  # a gap between what a transposed convolution spreads: it sees nothing, from nowhere
            return (0, 0, 0)
        cell, (start, stop) = wide.cell(tuple(first for first, _ in box), canvas.size)[d], window[d]
        return (max(cell[0] - start, 0), max(stop - cell[1], 0), stop - start)

    def largest(d: int, which: int) -> int:
        first, stop = every[d]
        rows = [(*every[:d], (unit, unit + 1), *every[d + 1 :]) for unit in range(first, stop)]
        return _largest(rows, lambda box: far(d, box)[which])

    dims = range(len(every))
    return tuple((largest(d, 0), largest(d, 1)) for d in dims), tuple(largest(d, 2) for d in dims)


def _largest(boxes: list[Box], bound: Callable[[Box], int]) -> int:
    """The largest value of a single unit in boxes of them, where a box has at least the value of each of its units."""
    heap = [(-bound(box), _units(box), box) for box in boxes]
    heapify(heap)
    for _ in range(_HALVINGS):
        least, _, box = heap[0]
        # where axes do not depend on each other, the first unit tried has its block's bound
        if bound(tuple((start, start + 1) for start, _ in box)) == -least:
            break
        heappop(heap)
        for half in _halves(box):
            heappush(heap, (-bound(half), _units(half), half))
    return -heap[0][0]


def _units(box: Box) -> int:
    return prod(stop - start for start, stop in box)


def _halves(box: Box) -> tuple[Box, Box]:
    """A box cut in two across its longest side."""
    d = max(range(len(box)), key=lambda d: box[d][1] - box[d][0])
    start, stop = box[d]
    middle = (start + stop) // 2
    return (*box[:d], (start, middle), *box[d + 1 :]), (*box[:d], (middle, stop), *box[d + 1 :])


def halo_of(canvas: Canvas, grid: Grid, period: tuple[int, ...]) -> Halo:
    """The halo of the output, in whole periods: what a block of one period sees, its distance from every rim, and what
    is cut off there.
    """
    place = canvas.graph.layers["output"]
    shape = canvas.graph.steps[place].shape
    block = middle_block(shape, grid, period, (0,) * len(period))
    seen = image_box(trace(canvas.graph, place, block), canvas.size)
    sides = []
    for d, (pixels, axis, (start, stop)) in enumerate(zip(period, grid.axes, seen)):
        stride, origin = grid.stride[d] or Fraction(1), grid.origin[d]
        first = int(block[axis or 0].start * stride) + origin
        behind = canvas.size[d] - origin - int(shape[axis or 0] * stride)
        reach = (max(first - start, origin), max(stop - first - pixels, behind))
        before, after = (max(_rim(canvas, grid, period, d, side), ceil(reach[side] / pixels)) for side in (0, 1))
        sides.append((before * pixels, after * pixels))
    return tuple(sides)


def _rim(canvas: Canvas, grid: Grid, period: tuple[int, ...], d: int, side: int) -> int:
    """How many periods a block of output must stand from one rim of the canvas so that nothing for it asks beyond."""
    place = canvas.graph.layers["output"]
    shape = canvas.graph.steps[place].shape
    units = [int(pixels / (stride or Fraction(1))) for pixels, stride in zip(period, grid.stride)]
    counts = [shape[axis or 0] // count for axis, count in zip(grid.axes, units)]

    def touches(distance: int) -> bool:
        blocks = [count // 2 for count in counts]
        blocks[d] = distance if side == 0 else counts[d] - 1 - distance
        box = tuple((block * count, (block + 1) * count) for block, count in zip(blocks, units))
        return trace(canvas.graph, place, block_spans(shape, grid, box)).touched

    low, high = 0, counts[d] // 2
    while low < high:
        middle = (low + high) // 2
        low, high = (middle + 1, high) if touches(middle) else (low, middle)
    return low
