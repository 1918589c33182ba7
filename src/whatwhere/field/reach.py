"""How far a layer sees beyond its cell, and the halo that exact tiles need: measured in the middle and at the rim of a
canvas much larger than any window. Knows one canvas; knows nothing of the image given.
"""

from __future__ import annotations

from fractions import Fraction
from math import ceil

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


def reach_of(canvas: Canvas, layer: str, grid: Grid, period: tuple[int, ...]) -> tuple[Halo, tuple[int, ...]]:
    """Over the units within one period: the largest reach before and after the cell, and the largest window."""
    place = canvas.graph.layers[layer]
    shape = canvas.graph.steps[place].shape
    sizes = tuple(1 if axis is None else shape[axis] for axis in grid.axes)
    counts = [1 if stride is None else max(1, int(pixels / stride)) for pixels, stride in zip(period, grid.stride)]
    first = [size // count // 2 * count for size, count in zip(sizes, counts)]
    wide = Grid(grid.axes, sizes, grid.stride, grid.origin)
    sides, extent = [(0, 0)] * len(period), [0] * len(period)
    for phase in range(max(counts)):
        unit = tuple(start + phase % count for start, count in zip(first, counts))
        spans = block_spans(shape, grid, tuple((index, index + 1) for index in unit))
        found = trace(canvas.graph, place, spans)
        if found.image is None:
            continue  # a gap between what a transposed convolution spreads: it sees nothing, from nowhere
        cells, seen = wide.cell(unit, canvas.size), image_box(found, canvas.size)
        for d, (cell, window) in enumerate(zip(cells, seen)):
            before, after = sides[d]
            sides[d] = (max(before, cell[0] - window[0]), max(after, window[1] - cell[1]))
            extent[d] = max(extent[d], window[1] - window[0])
    return tuple(sides), tuple(extent)


def halo_of(canvas: Canvas, grid: Grid, period: tuple[int, ...]) -> Halo:
    """The halo of the output, in whole periods: what a block of one period sees, and its distance from every rim."""
    place = canvas.graph.layers["output"]
    block = middle_block(canvas.graph.steps[place].shape, grid, period, (0,) * len(period))
    seen = image_box(trace(canvas.graph, place, block), canvas.size)
    sides = []
    for d, (pixels, axis, (start, stop)) in enumerate(zip(period, grid.axes, seen)):
        first = int(block[axis or 0].start * (grid.stride[d] or Fraction(1))) + grid.origin[d]
        reach = (first - start, stop - first - pixels)
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
