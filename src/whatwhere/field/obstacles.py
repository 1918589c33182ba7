"""Why a layer sees everything, or weighs the same window differently at another place.

Two windows one period apart are traced side by side; the first operator whose reading does not move along is the
obstacle. Knows nothing of tiles or of how answers are printed.
"""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction

from whatwhere.field.graph import Source, Step, constants, numbers, sources
from whatwhere.field.grids import Canvas, Grid, axis_strides
from whatwhere.field.rules import Spans, has_rule, scale_factors, varies_with_position
from whatwhere.field.rules_shape import run_written
from whatwhere.field.spans import Span, whole
from whatwhere.field.windows import Trace, is_empty, step_reads, trace

__all__ = ["Obstacle", "block_spans", "depends_on_place", "find_obstacle", "middle_block"]


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
            uneven = _resizes(at, canvases) or _seams(step, large.graph.steps[at])
            position = depends_on_place(step, large.graph.steps[at]) or uneven
            if position and found is None:
                found = Obstacle(step.module, step.operator, position, unbounded=False)
            if at == 0 or at not in there.windows:
                continue
            theirs = {earlier: window for earlier, window, _ in step_reads(small.graph, at, there.windows[at])}
            for earlier, window, _ in step_reads(small.graph, at, here.windows[at]):
                other = large.graph.steps[earlier]
                if earlier not in theirs or not _moved(
                    window, theirs[earlier], small.graph.steps[earlier], other, canvases, period, d
                ):
                    why = uneven or _why(step, window, small.graph.steps[earlier], other)
                    return Obstacle(step.module, step.operator, why, unbounded=uneven is None)
    if here.touched:
        return Obstacle("", "forward", f"sees further than a canvas of {small.size} pixels", unbounded=True)
    wide = _grows(canvases, layer, grid, period, here) or _round_trip(canvases, place, grid, period, here)
    return wide or found


def _grows(
    canvases: tuple[Canvas, Canvas], layer: str, grid: Grid, period: tuple[int, ...], here: Trace
) -> Obstacle | None:
    """The operator whose windows are larger in a larger image, though they slide."""
    small, large = canvases
    place = large.graph.layers[layer]
    if place != small.graph.layers[layer]:
        return None  # other operators, which is told elsewhere
    there = trace(large.graph, place, middle_block(large.graph.steps[place].shape, grid, period, (0,) * len(period)))
    for at in sorted(here.windows.keys() & there.windows.keys() - {0}, reverse=True):
        ours, theirs = (
            step_reads(one, at, seen.windows[at]) for one, seen in ((small.graph, here), (large.graph, there))
        )
        for (earlier, window, _), (_, wider, _) in zip(ours, theirs):
            sizes = zip(window, wider, small.graph.steps[earlier].shape, large.graph.steps[earlier].shape)
            if any(n != m and _much_longer(two, one) for one, two, n, m in sizes):
                step = small.graph.steps[at]
                return Obstacle(step.module, step.operator, "reads more of a larger image", unbounded=True)
    return None


def _much_longer(one: Span, other: Span) -> bool:
    """By more than what is allowed for torch's rounding of places, which is coarser on a larger canvas."""
    return 2 * one.length > 3 * other.length + 16


def _round_trip(
    canvases: tuple[Canvas, Canvas], place: int, grid: Grid, period: tuple[int, ...], here: Trace
) -> Obstacle | None:
    """The operator through which a block at a rim reads the opposite rim: circular padding, a roll, a join of both."""
    small = canvases[0].graph
    shape = small.steps[place].shape
    blocks = [
        shape[axis] // int(pixels / stride)
        for axis, stride, pixels in zip(grid.axes, grid.stride, period)
        if axis is not None and stride
    ]
    for d, count in enumerate(blocks):
        for far in (-(count // 2), count - 1 - count // 2):
            shift = tuple(far if other == d else 0 for other in range(len(period)))
            rim = trace(small, place, middle_block(shape, grid, period, shift))
            step = _leaves_its_place(canvases, here, rim, d, far * period[d])
            if step is not None:
                why = "wraps round: at one rim of the image it reads the opposite one"
                return Obstacle(step.module, step.operator, why, unbounded=True)
    return None


def _leaves_its_place(canvases: tuple[Canvas, Canvas], here: Trace, rim: Trace, d: int, pixels: int) -> Step | None:
    """The step that reads, for a block at a rim, far from what it reads in the middle, moved there by `pixels`."""
    small, large = (canvas.graph.steps for canvas in canvases)

    def misplaced(at: int, spans: Spans) -> bool:
        for axis, dim, stride in axis_strides(small[at].shape, large[at].shape, canvases):
            middle, there = here.windows[at][axis], spans[axis]
            # at a rim, mirrored pixels may be read; what wraps round is off by nearly the whole axis
            by, room = int(pixels / stride), max(middle.stop - middle.start + 1, small[at].shape[axis] // 4)
            if dim == d and not middle.start + by - room <= there.start < there.stop <= middle.stop + by + room:
                return True
        return False

    reader: dict[int, Step] = {}
    for at in sorted(rim.windows, reverse=True):
        if at in here.windows and misplaced(at, rim.windows[at]):
            return reader.get(at, small[at])
        for earlier, window, _ in step_reads(canvases[0].graph, at, rim.windows[at]) if at else ():
            if earlier in here.windows and not is_empty(window) and misplaced(earlier, window):
                reader[earlier] = small[at]  # of several readers only what itself reads there
    return None


def _maker(canvases: tuple[Canvas, Canvas], layer: str) -> str:
    """The module of the first step, walking back from a layer, before which sizes still grew."""
    small, large = canvases[0].graph, canvases[1].graph
    for at in range(small.layers[layer], 0, -1):
        if small.steps[at - 1].shape != large.steps[at - 1].shape:
            return small.steps[at].module
    return ""


_SIZED = frozenset({
    "view", "reshape", "_unsafe_view", "unflatten", "flatten", "expand", "broadcast_to", "slice", "slice_scatter",
    "narrow", "split", "split_with_sizes", "chunk", "select", "repeat", "tile", "layer_norm", "native_layer_norm",
    "rms_norm", "col2im", "max_unpool2d", "max_unpool3d",
})  # fmt: skip
"""Operators that are told sizes and places; what they read of them, windows tell."""


def depends_on_place(step: Step, larger: Step) -> str | None:
    """Why a step computes another thing at another place, or on an image of another size; None if it does not."""
    if step.unsteady:
        return step.unsteady
    for small, large in zip(constants(step.arguments), constants(larger.arguments)):
        if small.shape != large.shape and not (small.filled and large.filled):
            return f"brings in a tensor of shape {small.shape} made from the image's size, such as coordinates"
        if small.numbers != large.numbers:
            return "is given a constant that depends on the image's size"
    told = step.operator in _SIZED or "upsample_" in step.operator or "adaptive_" in step.operator
    if not told and list(numbers(step.arguments)) != list(numbers(larger.arguments)):
        return "is given a number that depends on the image's size"
    return varies_with_position(step)


def _seams(step: Step, larger: Step) -> str | None:
    """Of pieces joined along an axis, whether several grow with the image; or if one is written to a fixed place."""
    if step.operator in ("slice_scatter", "select_scatter"):
        axis, run = run_written(step)
        grows, all_of_it = step.shape[axis] != larger.shape[axis], run == range(step.shape[axis])
        return "writes to places counted from the image's rim" if grows and not all_of_it else None
    if step.operator not in ("cat", "concat", "concatenate"):
        return None
    axis = int(step.arguments.get("dim", 0)) % len(step.shape)
    pieces = [pair for pair in zip(step.arguments["tensors"], larger.arguments["tensors"]) if pair[0].shape != (0,)]
    growing = sum(one.shape[axis] != two.shape[axis] for one, two in pieces)
    if growing > 1:
        return "joins pieces whose sizes depend on the image's, so that the seams move"
    fixed = [one for one, two in pieces if isinstance(one, Source) and one.shape[axis] == two.shape[axis]]
    return "joins a piece of the image's rim, of a fixed size, to the rest" if growing and fixed else None


def _resizes(at: int, canvases: tuple[Canvas, Canvas]) -> str | None:
    """Why an interpolation does not repeat with the period; None if it does, or for another operator."""
    small, large = (canvas.graph.steps for canvas in canvases)
    factors = scale_factors(small[at])
    if factors is None:
        return None
    if factors != scale_factors(large[at]):
        return "resizes by a factor that depends on the image's size"
    source = next(sources(small[at].arguments)).step
    ins, outs = ({axis: stride for axis, _, stride in axis_strides(small[of].shape, large[of].shape, canvases)}
                 for of in (source, at))  # fmt: skip
    first = len(small[at].shape) - len(factors)
    for axis, factor in enumerate(factors, first):
        if axis in ins and axis in outs and outs[axis] != ins[axis] * factor:
            return f"resizes by {float(1 / factor):.6g}, which no shift by whole pixels repeats"
    return None


def _why(step: Step, window: Spans, read: Step, larger: Step) -> str:
    if not has_rule(step.operator) and not step.pointwise:
        return "is an operator without a rule, taken to see everything"
    sizes = enumerate(zip(window, read.shape, larger.shape))
    axes = [axis for axis, (span, n, m) in sizes if n != m and span.stop - span.start == n]
    if not axes:
        return f"reads its input of shape {read.shape} at places that do not move along with the image"
    return f"reads its input of shape {read.shape} from end to end (axes {', '.join(map(str, axes))})"
