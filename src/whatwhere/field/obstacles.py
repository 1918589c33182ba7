"""Why a layer sees everything, or weighs the same window differently at another place.

Two windows one period apart are traced side by side; the first operator whose reading does not move along is the
obstacle. Knows the canvases; knows nothing of the image given, of tiles or of how answers are printed.
"""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction

from whatwhere.field.graph import Step, constants
from whatwhere.field.grids import Canvas, Grid, axis_strides
from whatwhere.field.rules import Spans, has_rule, varies_with_position
from whatwhere.field.spans import Span, whole
from whatwhere.field.windows import step_reads, trace

__all__ = ["Obstacle", "block_spans", "find_obstacle", "middle_block"]


@dataclass(frozen=True)
class Obstacle:
    """What keeps a layer from having one bounded window that slides with it.

    Attributes:
        module: path of the module that holds the operator; empty for the network's own forward.
        operator: its ATen name, such as ``"instance_norm"``.
        why: in words.
        unbounded: the layer sees arbitrarily far. If not, its windows are bounded but what it computes from them
            depends on where they lie, so tiles cannot be exact either.
    """

    module: str
    operator: str
    why: str
    unbounded: bool

    def __str__(self) -> str:
        place = f"`{self.module}`" if self.module else "the network's own forward"
        return f"{self.operator} in {place} {self.why}"


def block_spans(shape: tuple[int, ...], grid: Grid, box: tuple[tuple[int, int], ...]) -> Spans:
    """A box of a layer's units as a window of its tensor: whole in batch and channels."""
    spans = [whole(size) for size in shape]
    for axis, (start, stop) in zip(grid.axes, box):
        if axis is not None:
            spans[axis] = Span(start, stop)
    return tuple(spans)


def middle_block(shape: tuple[int, ...], grid: Grid, period: tuple[int, ...], shift: tuple[int, ...]) -> Spans:
    """The block of units over one period in the middle of a canvas, `shift` periods further on."""
    box = []
    for axis, stride, pixels, periods in zip(grid.axes, grid.stride, period, shift):
        if axis is None or stride is None:
            box.append((0, 1 if axis is None else shape[axis]))
            continue
        units = int(pixels / stride)
        first = (shape[axis] // units // 2 + periods) * units
        box.append((first, first + units))
    return block_spans(shape, grid, tuple(box))


def _moved(one: Spans, two: Spans, step: Step, larger: Step, canvases: tuple[Canvas, Canvas],
           period: tuple[int, ...], d: int) -> bool:  # fmt: skip
    """Whether the second window is the first, moved by one period of dimension `d`."""
    strides: dict[int, tuple[int, Fraction]] = {
        axis: (dim, stride) for axis, dim, stride in axis_strides(step.shape, larger.shape, canvases)
    }
    for axis, (first, second) in enumerate(zip(one, two)):
        grows = step.shape[axis] != larger.shape[axis]
        if axis in strides:
            dim, stride = strides[axis]
            by = int(period[d] / stride) if dim == d else 0
            if (first.start + by, first.stop + by) != (second.start, second.stop):
                return False
        elif (first[:2] == second[:2]) == grows:  # an axis of mixed dimensions must move, a fixed one must not
            return False
    return True


def find_obstacle(canvases: tuple[Canvas, Canvas], layer: str, grid: Grid, period: tuple[int, ...]) -> Obstacle | None:
    """The obstacle nearest to a layer on the way back to the image, or None."""
    small, large = canvases
    if len(small.graph.steps) != len(large.graph.steps):
        return Obstacle("", "forward", "runs other operators at another image size", unbounded=True)
    if all(axis is None for axis in grid.axes):
        step = small.graph.steps[small.graph.layers[layer]]
        return Obstacle(step.module, step.operator, f"has a result without an axis of space, shape {step.shape}", True)
    if None in grid.stride:
        return Obstacle(
            _maker(canvases, layer), "output", "has a number of units that does not grow with the image", True
        )
    place, dims = small.graph.layers[layer], len(period)
    here = trace(small.graph, place, middle_block(small.graph.steps[place].shape, grid, period, (0,) * dims))
    found: Obstacle | None = None
    for d in range(dims):
        shift = tuple(int(other == d) for other in range(dims))
        there = trace(small.graph, place, middle_block(small.graph.steps[place].shape, grid, period, shift))
        for at in sorted(here.windows, reverse=True):
            step = small.graph.steps[at]
            position = _position(step, large.graph.steps[at])
            if position and found is None:
                found = Obstacle(step.module, step.operator, position, unbounded=False)
            if at == 0 or at not in there.windows:
                continue
            theirs = {earlier: window for earlier, window, _ in step_reads(small.graph, at, there.windows[at])}
            for earlier, window, _ in step_reads(small.graph, at, here.windows[at]):
                other = large.graph.steps[earlier]
                if not _moved(window, theirs[earlier], small.graph.steps[earlier], other, canvases, period, d):
                    return Obstacle(step.module, step.operator, _why(step, window, small.graph.steps[earlier]), True)
    if found is None and here.touched:
        return Obstacle("", "forward", f"sees further than a canvas of {small.size} pixels", unbounded=True)
    return found or _round_trip(canvases, place, grid, period)


def _round_trip(canvases: tuple[Canvas, Canvas], place: int, grid: Grid, period: tuple[int, ...]) -> Obstacle | None:
    """The operator through which a block at the rim reads the opposite rim: circular padding, a roll."""
    small, large = canvases
    shape = small.graph.steps[place].shape
    strides = zip(grid.axes, grid.stride, period)
    blocks = [
        shape[axis] // int(pixels / stride) // 2 for axis, stride, pixels in strides if axis is not None and stride
    ]
    for d in range(len(period)):
        shift = tuple(-blocks[d] if other == d else 0 for other in range(len(period)))
        rim = trace(small.graph, place, middle_block(shape, grid, period, shift))
        for at in sorted(rim.windows, reverse=True)[:-1]:
            step, own = small.graph.steps[at], rim.windows[at]
            for earlier, window, touched in step_reads(small.graph, at, own):
                sizes = zip(small.graph.steps[earlier].shape, large.graph.steps[earlier].shape)
                ends = [w.stop - w.start == n != m for w, (n, m) in zip(window, sizes)]
                if touched and any(end and s.stop - s.start < w.stop - w.start for end, s, w in zip(ends, own, window)):
                    why = "wraps round: at one rim of the image it reads the opposite one"
                    return Obstacle(step.module, step.operator, why, unbounded=True)
    return None


def _maker(canvases: tuple[Canvas, Canvas], layer: str) -> str:
    """The module of the first step, walking back from a layer, before which sizes still grew."""
    small, large = canvases[0].graph, canvases[1].graph
    for at in range(small.layers[layer], 0, -1):
        if small.steps[at - 1].shape != large.steps[at - 1].shape:
            return small.steps[at].module
    return ""


def _position(step: Step, larger: Step) -> str | None:
    for small, large in zip(constants(step.arguments), constants(larger.arguments)):
        if small.shape != large.shape and not (small.filled and large.filled):
            return f"brings in a tensor of shape {small.shape} made from the image's size, such as coordinates"
    return varies_with_position(step)


def _why(step: Step, window: Spans, read: Step) -> str:
    if not has_rule(step.operator) and not step.pointwise:
        return "is an operator without a rule, taken to see everything"
    axes = [axis for axis, span in enumerate(window) if axis >= 1 and span.stop - span.start == read.shape[axis] > 1]
    return f"reads its input of shape {read.shape} from end to end (axes {', '.join(map(str, axes))})"
