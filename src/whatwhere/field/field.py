"""`Field`: which pixels of the image each unit of a torch module sees, and everything that follows from it.

The answers come from integer arithmetic on the exported graph: no weights are read, no image is computed. They can be
too large (an unknown operator is taken to see everything), never too small. Knows nothing of what a U-Net is.

Receptive-field arithmetic by the layer: Araujo, Norris, Sim, "Computing Receptive Fields of Convolutional Neural
Networks", Distill 2019, doi 10.23915/distill.00021. Halos for exact tiles: Majurski and Bajcsy 2021,
doi 10.6028/jres.126.009; overlap-tile: Ronneberger et al. 2015, arXiv 1505.04597.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from dataclasses import field as dataclass_field
from fractions import Fraction
from functools import cached_property
from math import lcm
from operator import index
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from whatwhere.errors import FieldError
from whatwhere.field.drawing import coarser_and_coarser, draw_field
from whatwhere.field.graph import MODULE, OPERATOR, OUTPUT, Graph
from whatwhere.field.grids import Canvas, Grid, common_period, grid_of
from whatwhere.field.obstacles import Obstacle, block_spans, find_obstacle
from whatwhere.field.reach import Halo, halo_of, image_box, reach_of
from whatwhere.field.rules import is_inexact
from whatwhere.field.table import FieldTable, by, make_table
from whatwhere.field.thresholds import find_threshold
from whatwhere.field.windows import trace
from whatwhere.records import Box

__all__ = ["Field"]


@dataclass(frozen=True)
class Field:
    """The windows of every layer of one module on one image size. Made by `field`.

    Attributes:
        name: the module's class.
        image: the image's spatial size, such as ``(64, 64)``.
        graph: the module on that image.
        canvases: the module on two much larger images, where no window is cut by the rim; None if it takes one size.
        refusal: what the module said to the larger images, if it takes one size.
        rounding: pixels, for each dimension, to multiples of which the module rounds the image's size up by itself, if
            that is more than its strides ask for; 1 if not. None if its sizes grow unevenly with the image's.
        turned: the module on a third canvas, upright where the others lie; None if it was not followed there.
        aligned: the module on an image of about that size, of whole periods; None if it was not followed there.
    """

    name: str
    image: tuple[int, ...]
    graph: Graph = dataclass_field(repr=False)
    canvases: tuple[Canvas, Canvas] | None = dataclass_field(repr=False)
    refusal: str = ""
    rounding: tuple[int, ...] | None = ()
    turned: Graph | None = dataclass_field(default=None, repr=False)
    aligned: Graph | None = dataclass_field(default=None, repr=False)

    # ---- layers and their grids

    @property
    def layers(self) -> tuple[str, ...]:
        """Names for the other methods: module paths in the order they run, and ``"output"``.

        A module that gives several results has a name for each, ``"path[0]"`` and so on; its second call has
        ``"path@1"``. A network's other results are ``"output[1]"`` and so on, by their places among all, and a module
        that is called ``output`` but is not the last is ``"output (module)"``. Not listed, but understood: an
        operator's name as `torch.export` has it, ``"%add_1"``.
        """
        names = [name for name in self.graph.layers if not name.startswith(OPERATOR)]
        return tuple(sorted(names, key=lambda name: (self.graph.layers[name], -len(name))))

    def result_of(self, operator: str) -> str:
        """The outermost layer whose result an operator's is, by its name in the exported graph; else itself as one."""
        own = f"{OPERATOR}{operator}"
        place = self._place(own)
        return next((name for name in reversed(self.layers) if self.graph.layers[name] == place), own)

    def _place(self, layer: str) -> int:
        if layer not in self.graph.layers:
            close = [name for name in self.layers if str(layer).split(".")[0] in name] or list(self.layers)
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
        """The block of pixels that a unit answers for: one stride, not what it sees.

        Args:
            layer: a name from `layers`.
            unit: its place in the layer's grid, ``(row, column)``, y before x.
        """
        at = _places(unit, "unit")
        self._checked(layer, tuple((place, place + 1) for place in at))
        return self.grid(layer).cell(at, self.image)

    def _checked(self, layer: str, box: Box) -> Box:
        """The box in integers, if it is one of units of a layer."""
        size = self.grid(layer).size
        try:
            box = tuple((index(start), index(stop)) for start, stop in box)
        except (TypeError, ValueError):  # no pairs, or no whole numbers
            inside = False
        else:
            inside = len(box) == len(size) and all(0 <= start < stop <= n for (start, stop), n in zip(box, size))
        if not inside:
            raise FieldError(
                f"{box} is not a box of units of {layer!r}",
                f"for each of {len(size)} dimensions (start, stop) with 0 <= start < stop <= size, size {size}",
                "give half-open ranges inside the layer's grid",
            )
        return box

    @property
    def levels(self) -> tuple[str, ...]:
        """The outermost modules that the network runs one after the other, and ``"output"``: a table's rows."""
        names = [name for name in self.layers if name.partition("[")[0] != OUTPUT]
        if not any(MODULE in name for name in names):  # else a module of that name is another
            names = [name for name in names if not name.startswith(f"{OUTPUT}.")]
        outer = _outermost(names)
        while len(outer) == 1 and len(names) > 1:  # a wrapper round the real network
            names = [name for name in names if name != outer[0]]
            outer = _outermost(names)
        return (*outer, "output")

    def table(self, layers: Sequence[str] | None = None) -> FieldTable:
        """For each layer its grid, stride, receptive field per side, the cell it answers for, and "where" in words.

        Args:
            layers: names from `layers`; the network's outermost modules (`levels`) by default.
        """
        return make_table(self, self.levels if layers is None else _names(layers))

    def to_json(self) -> dict[str, Any]:
        """The table, and what tiles need to know."""
        obstacle = self.obstacle()
        return {
            **self.table().to_json(),
            "period": self.period,
            "bounded": self.bounded,
            "halo": self.halo() if obstacle is None else None,
            "obstacle": None if obstacle is None else asdict(obstacle),
        }

    def __str__(self) -> str:
        return f"{self.table()}\n{self.explain()}"

    def draw(
        self,
        path: str | Path,
        pixel: Sequence[int] | None = None,
        layers: Sequence[str] | None = None,
        image: NDArray[Any] | None = None,
    ) -> Path:
        """Draw nested boxes over an image: the cell and receptive field of each layer's unit at `pixel` (the middle).

        Args:
            path: ``.png``, ``.svg`` or ``.pdf``.
            pixel: ``(row, column)``, y before x (:func:`whatwhere.explain` takes ``(x, y)``).
            layers: names from `layers`; by default the `levels` on the way down, one for each stride.
            image: ``HxW`` or ``HxWxC``, of the field's image size.
        """
        at = tuple(size // 2 for size in self.image) if pixel is None else self._pixel(pixel)
        return draw_field(self, at, coarser_and_coarser(self) if layers is None else _names(layers), Path(path), image)

    # ---- windows

    def window(self, layer: str, box: Box) -> Box:
        """The box of pixels that a box of a layer's units sees, cut to the image.

        Args:
            layer: a name from `layers`.
            box: half-open, in units of that layer: ``((y0, y1), (x0, x1))``.

        Returns:
            half-open, in pixels of the image. ``((0, 0), ...)`` if no pixel is seen.

        >>> from torch import nn
        >>> from whatwhere.field import field
        >>> conv = nn.Sequential(nn.Conv2d(1, 4, 3, padding=1), nn.Conv2d(4, 1, 3, padding=1))
        >>> field(conv, (1, 64, 64)).window("output", ((10, 11), (0, 1)))
        ((8, 13), (0, 3))
        """
        box = self._checked(layer, box)
        place = self._place(layer)
        spans = block_spans(self.graph.steps[place].shape, self.grid(layer), box)
        return image_box(trace(self.graph, place, spans), self.image)

    def receptive_field(self, layer: str, unit: Sequence[int]) -> Box:
        """The pixels that can influence one unit, cut to the image: ``((y0, y1), (x0, x1))``, half-open.

        Args:
            layer: a name from `layers`.
            unit: its place in the layer's grid, ``(row, column)``, y before x.
        """
        return self.window(layer, tuple((place, place + 1) for place in _places(unit, "unit")))

    def influenced(self, layer: str, pixel: Sequence[int]) -> Box:
        """The reverse question: the smallest box of a layer's units that holds all which see a pixel.

        Args:
            layer: a name from `layers`.
            pixel: ``(row, column)``, y before x (:func:`whatwhere.explain` takes ``(x, y)``).

        >>> from torch import nn
        >>> from whatwhere.field import field
        >>> field(nn.MaxPool2d(2), (1, 8, 8)).influenced("output", (5, 2))
        ((2, 3), (1, 2))
        """
        at = self._pixel(pixel)
        return tuple(self._seers(layer, d, at) for d in range(len(self.image)))

    def _pixel(self, given: Sequence[int]) -> tuple[int, ...]:
        at = _places(given, "pixel")
        if len(at) != len(self.image) or not all(0 <= place < size for place, size in zip(at, self.image)):
            raise FieldError(f"pixel {at}", f"a pixel of an image of size {self.image}", "")
        return at

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
                found: Obstacle | None = Obstacle("", "forward", self.refusal, unbounded=True)
            elif any(layer not in canvas.graph.layers for canvas in self.canvases):
                found = Obstacle("", "forward", "runs other operators at another image size", unbounded=True)
            else:
                found = find_obstacle(self.canvases, layer, self.grid(layer), self.layer_period(layer))
                found = found or self._uneven(layer)
            self._obstacles[layer] = found
        return self._obstacles[layer]

    def _uneven(self, layer: str) -> Obstacle | None:
        """What comparing the module on images of other sizes tells beside its windows."""
        assert self.canvases is not None
        found = self._threshold(self.canvases[1].graph, layer) or self._threshold(self.turned, layer)
        if found is None and self.rounding is None:
            why = "has sizes inside that do not grow evenly with the image's: it pads, cuts or resizes by itself"
            return Obstacle("", "forward", why, unbounded=False)
        return found or self._threshold(self.aligned, layer)

    def _threshold(self, graph: Graph | None, layer: str) -> Obstacle | None:
        assert self.canvases is not None
        return None if graph is None or layer not in graph.layers else find_threshold(graph, self.canvases, layer)

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

    @property
    def inexact(self) -> bool:
        """Whether some step resizes by a factor that is no power of two: torch rounds from where it reads then."""
        return any(map(is_inexact, self.graph.steps))

    def explain(self, layer: str = "output") -> str:
        """In words: how far a layer sees, and which operator of which module lets it see everything."""
        obstacle = self.obstacle(layer)
        if obstacle is None:
            row = self.table((layer,)).rows[0]
            sides = "; ".join(f"{before} before, {after} after" for before, after in row.reach or ())
            return f"{layer} sees a bounded window of {by(row.sees or ())} pixels; beyond its cell, {sides}."
        verdict = (
            "can see the whole image" if obstacle.unbounded else "sees a bounded window, but depends on more than that"
        )
        return f"{layer} {verdict}: {obstacle}."

    @property
    def period(self) -> tuple[int, ...]:
        """Pixels, for each dimension, after which the windows of the output repeat: the total stride."""
        return self.layer_period("output")

    def layer_period(self, layer: str) -> tuple[int, ...]:
        """Pixels, for each dimension, after which a layer's windows repeat; the image's size where not known."""
        if self.canvases is None:
            return self.image
        strides = common_period(self.canvases, self.canvases[0].graph.layers[layer])
        return tuple(lcm(*both) for both in zip(strides, self.rounding or (1,) * len(strides)))

    def reach(self, layer: str = "output") -> Halo | None:
        """How far beyond its cell a unit sees, over all phases, in an image without rim; None where unbounded.

        Returns:
            for each dimension (before, after) in pixels.
        """
        measured = self._measure(layer)
        return None if measured is None else measured[0]

    def extent(self, layer: str = "output") -> tuple[int, ...] | None:
        """The sides of the largest receptive field of a layer's units in an image without rim; None where unbounded."""
        measured = self._measure(layer)
        return None if measured is None else measured[1]

    def _measure(self, layer: str) -> tuple[Halo, tuple[int, ...]] | None:
        obstacle = self.obstacle(layer)
        if self.canvases is None or (obstacle is not None and obstacle.unbounded):
            return None
        if layer not in self._reaches:
            self._reaches[layer] = reach_of(self.canvases[0], layer, self.grid(layer), self.layer_period(layer))
        return self._reaches[layer]

    @cached_property
    def _reaches(self) -> dict[str, tuple[Halo, tuple[int, ...]]]:
        return {}

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
        return halo_of(self.canvases[0], self.grid("output"), self.period)


def _places(given: Sequence[int], what: str) -> tuple[int, ...]:
    try:
        return tuple(index(place) for place in given)
    except TypeError as error:
        expected = "whole numbers, one for each dimension of space"
        raise FieldError(f"{what} {given!r}", expected, "give a tuple such as (32, 32)") from error


def _names(layers: Sequence[str]) -> Sequence[str]:
    """Names of layers; a word is one name."""
    names = [layers] if isinstance(layers, str) else layers
    if not isinstance(names, Sequence) or not all(isinstance(name, str) for name in names):
        raise FieldError(f"layers {layers!r}", "names of layers, as Field.layers has them", "give a list of those")
    return names


def _outermost(names: Sequence[str]) -> list[str]:
    """Those that lie in no other module."""
    paths = {name.partition("[")[0].removesuffix(MODULE) for name in names}
    return [name for name in names if not any(name.startswith(f"{path}.") for path in paths)]
