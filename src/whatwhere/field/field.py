"""`field(module, image_shape)`: which pixels of the image each unit of any torch module sees.

The answers come from integer arithmetic on the exported graph: no weights are read, no image is computed. They can be too
large (an unknown operator is taken to see everything), never too small. Knows nothing of what a U-Net is.

Receptive-field arithmetic by the layer: Araujo, Norris, Sim, "Computing Receptive Fields of Convolutional Neural
Networks", Distill 2019, doi 10.23915/distill.00021. Halos for exact tiles: Majurski and Bajcsy 2021,
doi 10.6028/jres.126.009; overlap-tile: Ronneberger et al. 2015, arXiv 1505.04597.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import cached_property
from math import ceil
from typing import Any

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode

from whatwhere.errors import FieldError
from whatwhere.field.graph import Graph, export_graph
from whatwhere.field.grids import GROWTH, Canvas, Grid, common_period, grid_of
from whatwhere.field.obstacles import Obstacle, block_spans, find_obstacle, middle_block
from whatwhere.field.rules import has_rule
from whatwhere.field.windows import Trace, trace
from whatwhere.records import Box

__all__ = ["Field", "Halo", "field"]

Halo = tuple[tuple[int, int], ...]
"""Pixels ``(before, after)`` for each spatial dimension."""


@dataclass(frozen=True)
class Field:
    """The windows of every layer of one module on one image size. Made by `field`.

    Attributes:
        name: the module's class.
        image: the image's spatial size, such as ``(64, 64)``.
        graph: the module on that image.
        canvases: the module on two much larger images, where no window is cut by the rim; None if it takes one size.
        refusal: what the module said to the larger images, if it takes one size.
    """

    name: str
    image: tuple[int, ...]
    graph: Graph
    canvases: tuple[Canvas, Canvas] | None
    refusal: str = ""

    # ---- layers and their grids

    @property
    def layers(self) -> tuple[str, ...]:
        """Names for the other methods: module paths in the order they run, and ``"output"``."""
        return tuple(sorted(self.graph.layers, key=lambda name: (self.graph.layers[name], -len(name))))

    def _place(self, layer: str) -> int:
        if layer not in self.graph.layers:
            close = [name for name in self.layers if layer.split(".")[0] in name] or list(self.layers)
            raise FieldError(
                f"{self.name} has no layer {layer!r}",
                "a module path that runs, or 'output'",
                f"try one of {close[:12]}",
            )
        return self.graph.layers[layer]

    def grid(self, layer: str) -> Grid:
        """How the units of a layer lie over the image."""
        cached: dict[str, Grid] = self._grids
        if layer not in cached:
            shape, shapes = self.graph.steps[self._place(layer)].shape, None
            if self.canvases and all(layer in canvas.graph.layers for canvas in self.canvases):
                one, two = (canvas.graph.steps[canvas.graph.layers[layer]].shape for canvas in self.canvases)
                shapes = (one, two) if len(one) == len(two) == len(shape) else None
            cached[layer] = grid_of(shape, shapes, self.canvases if shapes else None, self.image)
        return cached[layer]

    @cached_property
    def _grids(self) -> dict[str, Grid]:
        return {}

    def stride(self, layer: str) -> tuple[Fraction | None, ...]:
        """Input pixels between neighbouring units, for each spatial dimension; None where units do not slide."""
        return self.grid(layer).stride

    def cell(self, layer: str, unit: Sequence[int]) -> Box:
        """The block of pixels that a unit answers for: one stride, not what it sees."""
        self._check_box(layer, tuple((index, index + 1) for index in unit))
        return self.grid(layer).cell(tuple(unit), self.image)

    def _check_box(self, layer: str, box: Box) -> None:
        size = self.grid(layer).size
        inside = len(box) == len(size) and all(0 <= start < stop <= n for (start, stop), n in zip(box, size))
        if not inside:
            raise FieldError(
                f"{box} is not a box of units of {layer!r}",
                f"for each of {len(size)} dimensions (start, stop) with 0 <= start < stop <= size, size {size}",
                "give half-open ranges inside the layer's grid",
            )

    # ---- windows

    def window(self, layer: str, box: Box) -> Box:
        """The box of pixels that a box of a layer's units sees, cut to the image.

        Args:
            layer: a name from `layers`.
            box: half-open, in units of that layer: ``((y0, y1), (x0, x1))``.

        Returns:
            half-open, in pixels of the image. ``((0, 0), ...)`` if no pixel is seen.

        >>> conv = nn.Sequential(nn.Conv2d(1, 4, 3, padding=1), nn.Conv2d(4, 1, 3, padding=1))
        >>> field(conv, (1, 64, 64)).window("output", ((10, 11), (0, 1)))
        ((8, 13), (0, 3))
        """
        self._check_box(layer, box)
        place = self._place(layer)
        return self._image_box(
            trace(self.graph, place, block_spans(self.graph.steps[place].shape, self.grid(layer), box))
        )

    def _image_box(self, result: Trace) -> Box:
        if result.image is None:
            return ((0, 0),) * len(self.image)
        return tuple((span.start, span.stop) for span in result.image[-len(self.image) :])

    def receptive_field(self, layer: str, unit: Sequence[int]) -> Box:
        """The pixels that can influence one unit, cut to the image."""
        return self.window(layer, tuple((index, index + 1) for index in unit))

    def influenced(self, layer: str, pixel: Sequence[int]) -> Box:
        """The reverse question: the smallest box of a layer's units that holds all which see a pixel.

        >>> field(nn.MaxPool2d(2), (1, 8, 8)).influenced("output", (5, 2))
        ((2, 3), (1, 2))
        """
        if len(pixel) != len(self.image) or not all(0 <= place < size for place, size in zip(pixel, self.image)):
            raise FieldError(f"pixel {tuple(pixel)}", f"a pixel of an image of size {self.image}", "")
        return tuple(self._seers(layer, d, tuple(pixel)) for d in range(len(self.image)))

    def _seers(self, layer: str, d: int, pixel: tuple[int, ...]) -> tuple[int, int]:
        """First and past-the-last index along dimension `d` of units that see a pixel, by halving."""
        size = self.grid(layer).size

        def sees(start: int, stop: int) -> bool:
            box = tuple((start, stop) if other == d else (0, n) for other, n in enumerate(size))
            return all(low <= place < high for place, (low, high) in zip(pixel, self.window(layer, box)))

        def search(start: int, stop: int, forward: bool) -> int | None:
            if not sees(start, stop):
                return None
            if stop - start == 1:
                return start
            middle = (start + stop) // 2
            halves = ((start, middle), (middle, stop))
            for half in halves if forward else halves[::-1]:
                found = search(*half, forward)
                if found is not None:
                    return found
            return None

        first, last = search(0, size[d], True), search(0, size[d], False)
        return (0, 0) if first is None or last is None else (first, last + 1)

    # ---- what does not depend on the image's size

    def obstacle(self, layer: str = "output") -> Obstacle | None:
        """What keeps a layer from having one bounded window that slides with it, or None."""
        if layer not in self._obstacles:
            self._place(layer)
            if self.canvases is None:
                found = Obstacle("", "forward", f"takes images of this one size only ({self.refusal})", unbounded=True)
            else:
                found = find_obstacle(self.canvases, layer, self.grid(layer), self.layer_period(layer))
            self._obstacles[layer] = found
        return self._obstacles[layer]

    @cached_property
    def _obstacles(self) -> dict[str, Obstacle | None]:
        return {}

    @property
    def bounded(self) -> bool:
        """Whether each unit of the output sees a window whose size does not grow with the image."""
        obstacle = self.obstacle()
        return obstacle is None or not obstacle.unbounded

    @property
    def tileable(self) -> bool:
        """Whether tiles can be exact: bounded, and the same computation at every multiple of the period."""
        return self.obstacle() is None

    def explain(self, layer: str = "output") -> str:
        """In words: how far a layer sees, and which operator of which module lets it see everything."""
        obstacle = self.obstacle(layer)
        if obstacle is None:
            sides = ", ".join(f"{before} before and {after} behind" for before, after in self.reach(layer) or ())
            return f"{layer} sees a bounded window: its cell and, per dimension, up to {sides} pixels more."
        verdict = (
            "can see the whole image" if obstacle.unbounded else "sees a bounded window, but weighs it by its place"
        )
        return f"{layer} {verdict}: {obstacle}."

    @property
    def period(self) -> tuple[int, ...]:
        """Pixels, for each dimension, after which the windows of the output repeat: the total stride."""
        return self.layer_period("output")

    def layer_period(self, layer: str) -> tuple[int, ...]:
        if self.canvases is None:
            return self.image
        return common_period(self.canvases, self.canvases[0].graph.layers[layer])

    def reach(self, layer: str = "output") -> Halo | None:
        """How far beyond its cell a unit sees, over all phases, in an image without rim; None where unbounded.

        Returns:
            for each dimension (before, after) in pixels.
        """
        obstacle = self.obstacle(layer)
        if self.canvases is None or (obstacle is not None and obstacle.unbounded):
            return None
        canvas, grid = self.canvases[0], self.grid(layer)
        place = canvas.graph.layers[layer]
        shape = canvas.graph.steps[place].shape
        strides = [stride if stride is not None else Fraction(1) for stride in grid.stride]
        counts = [max(1, int(pixels / stride)) for pixels, stride in zip(self.layer_period(layer), strides)]
        wide = Grid(grid.axes, tuple(shape[axis or 0] for axis in grid.axes), grid.stride, grid.origin)
        sides = [(0, 0)] * len(self.image)
        for phase in range(max(counts)):
            first = [n // count // 2 * count for n, count in zip(wide.size, counts)]
            unit = tuple(start + phase % count for start, count in zip(first, counts))
            box = tuple((index, index + 1) for index in unit)
            seen = self._image_box(trace(canvas.graph, place, block_spans(shape, grid, box)))
            cell = wide.cell(unit, canvas.size)
            sides = [
                (max(before, c[0] - w[0]), max(after, w[1] - c[1])) for (before, after), c, w in zip(sides, cell, seen)
            ]
        return tuple(sides)

    def halo(self) -> Halo:
        """What a tile must read beyond what it writes, for each dimension (before, after), in pixels.

        For tiles whose origin and size are multiples of `period`, cut from an image whose size is a multiple of it
        too, and that get no halo beyond the image's own rim. A multiple of `period` itself.

        Why it suffices: the halo is how far a block of output must stand from the rim of a canvas so that nothing
        computed for it, at any step, asks for anything beyond its tensor. In a tile with this halo the block stands
        at least that far from each cut, so at every step the same entries are read as in the whole image; at the
        image's own rim the tile has the same rim. That each step repeats with the period is checked by `obstacle`.

        Raises:
            FieldError: there is no such halo; names the operator (see `tileable`).
        """
        obstacle = self.obstacle()
        if obstacle is not None or self.canvases is None:
            raise FieldError(
                f"{self.name} has no exact halo: {obstacle}",
                "an output whose windows are bounded and repeat",
                "blend overlapping tiles and call the result approximate, or replace that layer by a local one",
            )
        return self._halo

    @cached_property
    def _halo(self) -> Halo:
        assert self.canvases is not None
        canvas, grid = self.canvases[0], self.grid("output")
        place = canvas.graph.layers["output"]
        shape = canvas.graph.steps[place].shape
        block = middle_block(shape, grid, self.period, (0,) * len(self.image))
        seen = self._image_box(trace(canvas.graph, place, block))
        sides = []
        for d, (period, (start, stop)) in enumerate(zip(self.period, seen)):
            axis, stride = grid.axes[d], grid.stride[d]
            assert axis is not None and stride is not None
            first = int(block[axis].start * stride) + grid.origin[d]
            reach = (first - start, stop - first - period)
            before, after = (max(self._rim(d, side), ceil(reach[side] / period)) for side in (0, 1))
            sides.append((before * period, after * period))
        return tuple(sides)

    def _rim(self, d: int, side: int) -> int:
        """How many periods a block of output must stand from one rim of the canvas so as not to touch it."""
        assert self.canvases is not None
        canvas, grid, periods = self.canvases[0], self.grid("output"), self.period
        place = canvas.graph.layers["output"]
        shape = canvas.graph.steps[place].shape
        units = [int(pixels / stride) for pixels, stride in zip(periods, grid.stride) if stride is not None]
        counts = [shape[axis] // n for axis, n in zip(grid.axes, units) if axis is not None]

        def touches(distance: int) -> bool:
            blocks = [count // 2 for count in counts]
            blocks[d] = distance if side == 0 else counts[d] - 1 - distance
            box = tuple((block * n, (block + 1) * n) for block, n in zip(blocks, units))
            return trace(canvas.graph, place, block_spans(shape, grid, box)).touched

        low, high = 0, counts[d] // 2
        while low < high:
            middle = (low + high) // 2
            low, high = (middle + 1, high) if touches(middle) else (low, middle)
        return low


def field(module: nn.Module, image_shape: Sequence[int], *, inputs: Sequence[Any] | None = None) -> Field:
    """The windows of every layer of a module, on images of one size.

    Args:
        module: any `torch.nn.Module` whose operators depend on shapes only. It is looked at in eval mode and left as it was.
        image_shape: ``(C, *space)`` or ``(N, C, *space)``, with 1, 2 or 3 dimensions of space.
        inputs: the arguments of ``forward``, if it takes more than the image; the first tensor of that shape is the image.

    Raises:
        FieldError: the shape is no image, the module does not run on it or decides by values, or its output has no
            axis of space.

    >>> print(field(nn.Conv2d(3, 8, 3, padding=1), (3, 64, 64)).receptive_field("output", (32, 32)))
    ((31, 34), (31, 34))
    """
    shape = _batched(module, tuple(int(size) for size in image_shape))
    space = shape[2:]
    graph = _export(module, shape, inputs)
    canvases: tuple[Canvas, Canvas] | None = None
    refusal = ""
    if inputs is None or len(inputs) == 1:
        base = tuple(size * 64 for size in space)
        sizes = (base, tuple(size * factor for size, factor in zip(base, GROWTH)))
        try:
            one, two = (Canvas(size, _export(module, (*shape[:2], *size), None)) for size in sizes)
            canvases = (one, two)
        except FieldError as error:
            refusal = error.given
    else:
        refusal = "several inputs were given"
    found = Field(type(module).__name__, space, graph, canvases, refusal)
    if all(axis is None for axis in found.grid("output").axes):
        raise FieldError(
            f"the output of {found.name} has shape {graph.steps[graph.layers['output']].shape} for an image of {space}",
            "an output with axes of space, such as one value for each pixel",
            "give the part of the network before its pooling and classifier",
        )
    return found


def _export(module: nn.Module, shape: tuple[int, ...], inputs: Sequence[Any] | None) -> Graph:
    if inputs is not None:
        places = [k for k, item in enumerate(inputs) if isinstance(item, Tensor) and tuple(item.shape) == shape]
        if not places:
            raise FieldError(f"no tensor of shape {shape} in inputs", "the image among the inputs", "")
        return export_graph(module, inputs, places[0], has_rule)
    tensors = [*module.parameters(), *module.buffers()]
    sample = next((tensor for tensor in tensors if tensor.is_floating_point()), torch.empty(0))
    with FakeTensorMode(allow_non_fake_inputs=True):  # shapes only: even an image of a terabyte costs nothing
        image = torch.empty(shape, dtype=sample.dtype, device=sample.device)
    return export_graph(module, (image,), 0, has_rule)


def _batched(module: nn.Module, shape: tuple[int, ...]) -> tuple[int, ...]:
    """``(N, C, *space)`` from a shape with or without the batch axis."""
    kinds = [type(part).__name__ for part in module.modules()]
    dims = next((int(name[-2]) for name in kinds if name[-2:] in ("1d", "2d", "3d")), None)
    if dims is None:
        dims = {2: 1, 3: 2, 4: 2, 5: 3}.get(len(shape), 0)
    if dims == 0 or len(shape) not in (dims + 1, dims + 2) or min(shape) < 1:
        raise FieldError(
            f"image_shape {shape} for {type(module).__name__}",
            f"the shape of an image with {dims or '1 to 3'} dimensions of space: (C, *space) or (N, C, *space)",
            "for an RGB image of 512x512 write (3, 512, 512)",
        )
    return shape if len(shape) == dims + 2 else (1, *shape)
