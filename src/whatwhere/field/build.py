"""`field(module, image_shape)`: export a module and hand back its `Field`.

Knows how to bring a module and an image shape together; knows nothing of rules or windows.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from math import lcm
from operator import index
from typing import Any

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.nn.parameter import is_lazy

from whatwhere.errors import FieldError
from whatwhere.field.export import export_graph
from whatwhere.field.field import Field
from whatwhere.field.graph import Graph
from whatwhere.field.grids import GROWTH, Canvas, axis_strides, common_period
from whatwhere.field.obstacles import Obstacle
from whatwhere.field.rules import has_rule
from whatwhere.field.rules_unfold import with_poolings
from whatwhere.field.thresholds import find_threshold

__all__ = ["elsewhere", "field"]


def field(
    module: nn.Module,
    image_shape: Sequence[int],
    *,
    dims: int | None = None,
    inputs: Sequence[Any] | Tensor | None = None,
    known: Field | None = None,
) -> Field:
    """The windows of every layer of a module, on images of one size.

    Args:
        module: any `torch.nn.Module` whose operators depend on shapes only. It is looked at in eval mode and left as
            it was.
        image_shape: ``(C, *space)`` or ``(N, C, *space)``, with 1, 2 or 3 dimensions of space.
        dims: how many dimensions of space, 1 to 3; where it is None and the shape leaves it open, most of the layers
            that are named after one decide.
        inputs: the arguments of ``forward``, if it takes more than the image; the first tensor of that shape is the
            image.
        known: what was found of this very module on images of another size: what all sizes have in common is taken
            from it, and that is most of the work.

    Raises:
        FieldError: the shape is no image, the module has lazy layers that never ran, does not run on it or decides by
            values, or its output has no axis of space.

    >>> print(field(nn.Conv2d(3, 8, 3, padding=1), (3, 64, 64)).receptive_field("output", (32, 32)))
    ((31, 34), (31, 34))
    """
    if not isinstance(module, nn.Module):
        raise FieldError(f"{_kind(module)} to follow", "a torch module", "make the network first, and give that")
    shape = _batched(module, _sizes(image_shape, module), dims)
    space = shape[2:]
    if any(map(is_lazy, (*module.parameters(), *module.buffers()))):
        raise FieldError(f"{type(module).__name__} has lazy layers", "layers with weights", "run it once on an image")
    if known is not None and not isinstance(known, Field):
        raise FieldError(f"known is {_kind(known)}", "what field() found of this module, or None", "leave it out")
    if known is not None and len(known.image) != len(space):
        raise FieldError(
            f"a known field of {len(known.image)} dimensions",
            f"one of {len(space)}, of the same module",
            "leave it out",
        )
    if isinstance(inputs, Tensor):
        inputs = [inputs]
    graph = _export(module, shape, inputs)
    canvases: tuple[Canvas, Canvas] | None = None
    rounding: tuple[int, ...] | None = ()
    turned: Graph | None = None
    refusal = "was given several inputs, of which no other sizes can be tried"
    if known is not None and known.canvases and _suffice(known.canvases, shape):
        canvases, rounding, turned, refusal = known.canvases, known.rounding, known.turned, ""
    elif inputs is None or len(inputs) == 1:
        try:
            canvases, refusal = _canvases(module, shape, _CALLS * len(graph.steps) + _CALLS), ""
            rounding, turned = _rounding(module, shape, canvases)
        except FieldError as error:
            refusal = f"takes images of this one size only ({error.given})"
    found = Field(type(module).__name__, space, graph, canvases, refusal, rounding, turned)
    if all(axis is None for axis in found.grid("output").axes):
        raise FieldError(
            f"the output of {found.name} has shape {graph.steps[graph.layers['output']].shape} for an image of {space}",
            "an output with axes of space, such as one value for each pixel",
            "give the part of the network before its pooling and classifier",
        )
    return replace(found, aligned=_aligned(module, shape, found, known))


def _aligned(module: nn.Module, shape: tuple[int, ...], found: Field, known: Field | None) -> Graph | None:
    """The module on whole periods, as on the canvases: another image may be padded first, which makes other steps."""
    if found.canvases is None or found.rounding is None:
        return None
    size = tuple(-(-pixels // period) * period for pixels, period in zip(found.image, found.period))
    if size == found.image:
        return found.graph
    if known is not None and known.aligned is not None:
        return known.aligned
    return _followed(module, shape, size)


_LONG = 2**18
"""Pixels that suffice for a canvas: on longer ones torch's own rounding of places blurs windows."""


_TIMES = 4, 64
"""How many times the image's size a canvas is, at least and at most."""


_FAR = 2**20
"""Pixels on which a period is found for sure."""


_FARTHEST = 2**24, 2**10
"""Pixels, or times the image's size, beyond which no canvas is tried."""


_GUESSES = 3
"""How often a period is guessed anew, each time on longer canvases."""


def _suffice(canvases: tuple[Canvas, Canvas], shape: tuple[int, ...]) -> bool:
    """Whether canvases that were made for another size are as large as those made for this one have to be."""
    return all(pixels >= _TIMES[0] * size for pixels, size in zip(canvases[0].size, shape[2:], strict=True))


_CALLS = 16
"""Calls of torch for each step on the image itself that a module may make on a canvas: most make one or two, and what
goes over rows 64 times as many."""


def _canvases(module: nn.Module, shape: tuple[int, ...], calls: int) -> tuple[Canvas, Canvas]:
    """The module on two images much larger than itself, whose sizes are multiples of its period.

    A period is found for sure only where they are: if not, it is a guess, and better on longer canvases. What calls
    torch more than ``calls`` times there goes over the image in a loop, which is a `FieldError`.
    """

    def export(multiples: tuple[int, ...]) -> tuple[Canvas, Canvas]:
        base = tuple(size * multiple for size, multiple in zip(shape[2:], multiples))
        sizes = (base, tuple(size * factor for size, factor in zip(base, GROWTH)))
        one, two = (Canvas(size, _export(module, (*shape[:2], *size), None, calls)) for size in sizes)
        return one, two

    least, most = _TIMES
    # powers of two, or else a period that is one too would have large multiples in common with them
    many = tuple(max(least, min(most, 1 << (_LONG // size).bit_length() >> 1)) for size in shape[2:])
    canvases = export(many)
    for _ in range(_GUESSES):
        period = common_period(canvases, len(canvases[0].graph.steps) - 1)
        if all(size % pixels == 0 for size, pixels in zip(canvases[0].size, period)):
            break
        canvases = export(_multiples(shape[2:], many, period, canvases[0].size))
    return canvases


def _multiples(
    image: tuple[int, ...], many: tuple[int, ...], period: tuple[int, ...], tried: tuple[int, ...]
) -> tuple[int, ...]:
    """How many times as large as the image a canvas is to be, to be a multiple of the period too."""
    pixels, times = _FARTHEST
    found = tuple(lcm(n, step) for n, step in zip(many, period))
    if all(n <= max(pixels // size, times) for n, size in zip(found, image)):
        return found
    if min(tried) >= _FAR:
        raise FieldError("takes sizes whose period is not found", "", "")
    return tuple(max(n, -(-_FAR // size)) for n, size in zip(many, image))


_ROUNDINGS = 7
"""How often the period is doubled in search of what a module rounds sizes up to: up to 64 times."""


def _rounding(
    module: nn.Module, shape: tuple[int, ...], canvases: tuple[Canvas, Canvas]
) -> tuple[tuple[int, ...] | None, Graph | None]:
    """To what multiples the module rounds the image's size up by itself; 1 where its strides are all that counts.

    At a canvas that is larger by one period all sizes inside must be larger by as many units as that has. Where they
    are not, or it does not take such an image, the period is doubled; None if that never helps. That canvas is upright
    where the others lie, as a module may look at that too.

    Returns:
        also the module on such a canvas.
    """
    period, turned = common_period(canvases, len(canvases[0].graph.steps) - 1), _turned(canvases)
    for doubled in range(_ROUNDINGS):
        step = tuple(pixels * 2**doubled for pixels in period)
        size = tuple(n + more for n, more in zip(turned, step))
        graph = _followed(module, shape, size)
        if graph and _grows_evenly(canvases, graph, tuple(n - m for n, m in zip(size, canvases[0].size))):
            return step if doubled else (1,) * len(step), graph
    return None, _followed(module, shape, turned)


def _followed(module: nn.Module, shape: tuple[int, ...], size: tuple[int, ...]) -> Graph | None:
    """The module on an image of another size, if it takes that."""
    try:
        return _export(module, (*shape[:2], *size), None)
    except FieldError:
        return None


def elsewhere(module: nn.Module, image_shape: Sequence[int], known: Field) -> Obstacle | None:
    """What a module does on images of one size otherwise than where it was followed; None if nothing.

    Some decide by a size, and none of those that were tried need be beyond their thresholds.

    Args:
        module: the one that is known.
        image_shape: ``(C, *space)``, in multiples of the period.
        known: its field, in which it is tileable.
    """
    assert known.canvases is not None
    graph = _followed(module, (1, *image_shape[:1]), tuple(image_shape[1:]))
    if graph is None or "output" not in graph.layers:
        return Obstacle("", "forward", "can't be followed", unbounded=True)
    return find_threshold(graph, known.canvases, "output")


def _turned(canvases: tuple[Canvas, Canvas]) -> tuple[int, ...]:
    """Multiples of the first canvas's sides, the longest where the second has its shortest, and so on."""
    sides, longest = list(canvases[0].size), 0
    for d in sorted(range(len(sides)), key=lambda d: -canvases[1].size[d]):
        sides[d] = longest = (longest // sides[d] + 1) * sides[d]
    return tuple(sides)


def _grows_evenly(canvases: tuple[Canvas, Canvas], graph: Graph, by: tuple[int, ...]) -> bool:
    """Whether a graph has the canvases' steps, and every size along an axis of space grew by as many units as `by`."""
    small, large = (canvas.graph.steps for canvas in canvases)
    if [step.operator for step in graph.steps] != [step.operator for step in small]:
        return False
    for one, two, other in zip(small, large, graph.steps):
        strides = {axis: (d, stride) for axis, d, stride in axis_strides(one.shape, two.shape, canvases)}
        for axis, (n, m, grown) in enumerate(zip(one.shape, two.shape, other.shape)):
            d, stride = strides.get(axis, (0, None))
            if stride is None and n != m:
                continue  # of several dimensions at once
            if grown - n != (by[d] / stride if stride else 0):
                return False
    return True


def _export(module: nn.Module, shape: tuple[int, ...], inputs: Sequence[Any] | None, most: int | None = None) -> Graph:
    if inputs is not None:
        places = [k for k, item in enumerate(inputs) if isinstance(item, Tensor) and tuple(item.shape) == shape]
        if not places:
            raise FieldError(f"no tensor of shape {shape} in inputs", "the image among the inputs", "")
        return with_poolings(export_graph(module, inputs, places[0], has_rule))
    tensors = [*module.parameters(), *module.buffers()]
    sample = next((tensor for tensor in tensors if tensor.is_floating_point()), torch.empty(0))
    with FakeTensorMode(allow_non_fake_inputs=True):  # shapes only: even an image of a terabyte costs nothing
        try:
            image = torch.empty(shape, dtype=sample.dtype, device=sample.device)
        except RuntimeError as error:  # more bytes than 64 bits count
            raise FieldError(f"an image of shape {shape}", "one whose bytes can be counted", "") from error
    return with_poolings(export_graph(module, (image,), 0, has_rule, most))


def _kind(given: Any) -> str:
    return f"the class {given.__name__}" if isinstance(given, type) else type(given).__name__


def _sizes(given: Sequence[int], module: nn.Module) -> tuple[int, ...]:
    try:
        return tuple(index(size) for size in given)
    except TypeError as error:
        raise FieldError(
            f"image_shape {given!r} for {type(module).__name__}",
            "whole numbers: (C, *space) or (N, C, *space)",
            "for an RGB image of 512x512 write (3, 512, 512)",
        ) from error


def _batched(module: nn.Module, shape: tuple[int, ...], dims: int | None) -> tuple[int, ...]:
    """``(N, C, *space)`` from a shape with or without the batch axis."""
    dims = _dims(module, len(shape)) if dims is None else dims
    dims = dims if dims in (1, 2, 3) else 0
    if dims == 0 or len(shape) not in (dims + 1, dims + 2) or min(shape) < 1:
        raise FieldError(
            f"image_shape {shape} for {type(module).__name__}",
            f"the shape of an image with {dims or '1 to 3'} dimensions of space: (C, *space) or (N, C, *space)",
            "for an RGB image of 512x512 write (3, 512, 512)",
        )
    return shape if len(shape) == dims + 2 else (1, *shape)


def _dims(module: nn.Module, axes: int) -> int:
    """How many dimensions of space an image of so many axes has, by the layers; 0 if neither tells."""
    kinds = [type(part).__name__ for part in module.modules()]
    named = Counter(int(name[-2]) for name in kinds if name[-2:] in ("1d", "2d", "3d"))
    fitting = [count for count in named if axes in (count + 1, count + 2)]
    # the most frequent that fits: networks for images may have 1-d parts, as for attention over channels
    by_axes = {2: 1, 3: 2, 4: 2, 5: 3}.get(axes, 0)
    return max(fitting or named, key=lambda count: (named[count], count), default=by_axes)
