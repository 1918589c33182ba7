"""Levels and paths of a network that whatwhere did not make, found in its exported graph.

The bottleneck is the last result at the coarsest resolution. What was computed before it and is read again after it
came by a skip. Knows graphs; nothing of images, labels or what is measured.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache, partial

import torch
from torch import Tensor, fx, nn

from whatwhere.errors import ModelError, in_a_line
from whatwhere.explain.anatomy import Layer, Path, Windows, both_logits
from whatwhere.explain.padded import for_any_size
from whatwhere.field import Field
from whatwhere.field.graph import OPERATOR

__all__ = ["GraphAnatomy"]

_KEPT = 64
"""Sizes of images for which the graph is kept; some MB each."""


class GraphAnatomy:
    """Any module ``(N, C, H, W) -> (N, classes, H, W)`` that can be exported.

    Args:
        network: the module, in evaluation mode.
        shape: ``(1, C, H, W)`` of an example; other sizes are exported when they come.

    Attributes:
        network: the module; padding its images where it does not take all sizes.
    """

    def __init__(self, network: nn.Module, shape: Sequence[int]) -> None:
        self.network = for_any_size(network, shape[1])
        self.windows = Windows(self.network)
        self._shape = tuple(shape)
        self._program = lru_cache(_KEPT)(partial(_Program, self.network, self._may_be_map))

    def _may_be_map(self, node: fx.Node) -> bool:
        """Not of a result whose rows and columns are known to stand elsewhere: ConvNeXt and Swin have channels last."""
        windows, layer = self.windows(self._shape), f"{OPERATOR}{node.name}"
        grid = windows.grid(layer) if layer in windows.graph.layers else None
        if grid is None or None in grid.axes:
            return True
        if None in grid.stride:  # on larger images another operator has its name, as in Swin
            return _is_even(node)
        return grid.axes == (2, 3)

    @cached_property
    def layers(self) -> tuple[Layer, ...]:
        program, windows = self._program(self._shape), self.windows(self._shape)
        found = [Layer("pixel", "pixel", 0, "", 1, self._shape[1])]
        for name, node in program.parts.layers.items():
            found.append(_layer(name, node, program, windows))
        return tuple(found)

    @cached_property
    def paths(self) -> tuple[Path, ...]:
        parts = self._program(self._shape).parts
        levels = [parts.level(node) for node in parts.skips]
        names = [f"skip {level}" for level in levels]
        # two skips from one level are told apart by where they leave
        names = [f"{name} ({node.name})" if names.count(name) > 1 else name for name, node in zip(names, parts.skips)]
        skips = [Path(name, level) for name, level in zip(names, levels)]
        return (*skips, Path("bottleneck", parts.level(parts.bottleneck)))

    def read(self, image: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        program = self._program(tuple(image.shape))
        nodes = program.parts.layers
        logits, *features = program.run({program.image: image}, [program.logits, *nodes.values()])
        return both_logits(logits), {"pixel": image, **dict(zip(nodes, features))}

    def carried(self, image: Tensor) -> tuple[Tensor, ...]:
        program = self._program(tuple(image.shape))
        if not program.parts.are_as(self._program(self._shape).parts):
            # or what is carried would be held against what other paths carry
            raise _other_levels(self.network, image.shape, f"on images of {_sides(self._shape)} px")
        return tuple(program.run({program.image: image}, program.parts.cut))

    def decode(self, carried: Sequence[Tensor], size: tuple[int, int]) -> Tensor:
        program = self._program((*self._shape[:2], *size))
        (logits,) = program.run(dict(zip(program.parts.cut, carried)), [program.logits])
        return both_logits(logits)


class _Program:
    """The module as a graph for images of one size, of which any part can be run."""

    def __init__(self, network: nn.Module, may_be_map: Callable[[fx.Node], bool], shape: tuple[int, ...]) -> None:
        example = next((p for p in network.parameters()), torch.empty(0))
        try:
            with torch.inference_mode(False), torch.no_grad(), torch.autocast(example.device.type, enabled=False):
                exported = torch.export.export(network, (torch.zeros(shape, device=example.device),), strict=False)
            self.module = exported.module()
        except Exception as error:
            raise ModelError(
                f"{type(network).__name__} can't be followed ({in_a_line(error)})",
                "a module that torch.export takes",
                "remove what depends on values of the image",
            ) from error
        assert isinstance(self.module, fx.GraphModule)
        self.nodes = list(self.module.graph.nodes)
        self.image = next(node for node in self.nodes if node.op == "placeholder")
        self.logits = _first(self.nodes[-1].args[0])
        parts = _Parts.of(self.nodes, self.image, self.logits, may_be_map)
        if parts is None:
            raise _other_levels(network, shape, "on larger ones")
        self.parts = parts
        if self.image not in self.parts.cut and self.image in self._needed(self.parts.cut, [self.logits]):
            raise ModelError(
                f"{type(network).__name__} carries what is no map of features around its coarsest ones",
                "a network whose features are maps, (N, channels, height, width)",
                "its windows and exact tiles do not need this: field and predict take it",
            )

    def _needed(self, known: Iterable[fx.Node], wanted: Sequence[fx.Node]) -> set[fx.Node]:
        """What is computed on the way from some nodes to others, and what is known."""
        needed, stack = set(known), list(wanted)
        while stack:
            node = stack.pop()
            if node not in needed:
                needed.add(node)
                stack.extend(node.all_input_nodes)
        return needed

    def run(self, known: dict[fx.Node, Tensor], wanted: Sequence[fx.Node]) -> list[Tensor]:
        """The results of some nodes, from those of others; only what is needed for it is computed."""
        needed = self._needed(known, wanted)
        interpreter = fx.Interpreter(self.module, garbage_collect_values=False)
        interpreter.env.update(known)
        for node in self.nodes:
            if node in needed and node not in known:
                interpreter.env[node] = interpreter.run_node(node)
        return [interpreter.env[node] for node in wanted]


@dataclass(frozen=True)
class _Parts:
    """Which nodes are what.

    Attributes:
        halved: for each map and the image how often its rows and its columns were halved on the way.
        layers: by name, in the order of the computation.
        skips: nodes before the bottleneck that are read after it, from the finest to the coarsest.
        bottleneck: the last node at the coarsest resolution.
    """

    halved: dict[fx.Node, tuple[int, int]]
    layers: dict[str, fx.Node]
    skips: tuple[fx.Node, ...]
    bottleneck: fx.Node

    @property
    def cut(self) -> tuple[fx.Node, ...]:
        return (*self.skips, self.bottleneck)

    def level(self, node: fx.Node) -> int:
        return max(self.halved[node])

    def are_as(self, others: _Parts) -> bool:
        """Whether the same layers and paths were found: a map of one unit is none, and its level is lost."""
        levels, of_others = (
            [(parts.level(node), _channels(node)) for node in (*parts.cut, *parts.layers.values())]
            for parts in (self, others)
        )
        return list(self.layers) == list(others.layers) and levels == of_others

    @classmethod
    def of(
        cls, nodes: Sequence[fx.Node], image: fx.Node, logits: fx.Node, may_be_map: Callable[[fx.Node], bool]
    ) -> _Parts | None:
        """None where no result has more than one unit across and down, as on an image of one pixel."""
        after_image, before_logits = _descendants(nodes, {image}), _ancestors({logits})
        between = after_image & before_logits
        maps = [node for node in nodes if node in between and _is_map(node) and may_be_map(node)]
        answers = _same_as(logits)
        hidden = [node for node in maps if node not in answers and not _is_rimmed(node, image)] or maps
        if not hidden:
            return None
        down, across = (_halvings(image, maps, axis) for axis in (-2, -1))
        halved = {node: (down[node], across[node]) for node in down}
        levels = {node: max(both) for node, both in halved.items()}
        coarsest = max(levels[node] for node in hidden)
        bottleneck = [node for node in hidden if levels[node] == coarsest][-1]
        before, after = _ancestors({bottleneck}), _descendants(nodes, {bottleneck})
        way_down = {image, *before.intersection(after_image)}
        skips = _skips([node for node in (image, *maps) if node is not bottleneck], way_down, after)
        layers: dict[str, fx.Node] = {}
        for level in range(coarsest):
            found = [node for node in hidden if node in before and levels[node] == level]
            if found:
                layers[f"encoder.{level}"] = found[-1]
        layers["bottleneck"] = bottleneck
        for level in reversed(range(coarsest)):
            found = [node for node in hidden if node in after and levels[node] == level]
            if found:
                layers[f"decoder.{level}"] = found[-1]
        return cls(halved, layers, tuple(sorted(skips, key=levels.__getitem__)), bottleneck)


def _skips(maps: Sequence[fx.Node], way_down: set[fx.Node], after: set[fx.Node]) -> list[fx.Node]:
    """Maps that are read after the bottleneck and not made of it.

    A gate holds a projection of a skip against what comes from below: made beside the way down, of that skip alone, it
    is cut with it and is none of its own.
    """
    read = [node for node in maps if node not in after and any(user in after for user in node.users)]
    return [node for node in read if node in way_down or not _is_projection(node, set(read), way_down)]


def _is_projection(node: fx.Node, skips: set[fx.Node], way_down: set[fx.Node]) -> bool:
    """Whether a map is made of one skip alone, and of nothing else on the way down."""
    met: set[fx.Node] = set()
    seen, stack = {node}, [node]
    while stack:
        for source in stack.pop().all_input_nodes:
            if source in skips or source in way_down:
                met.add(source)
            elif source not in seen:
                seen.add(source)
                stack.append(source)
    return len(met) == 1 and met <= skips


def _layer(name: str, node: fx.Node, program: _Program, windows: Field) -> Layer:
    role, _, _ = name.partition(".")
    module = _known_as(node, windows)
    (rows, columns), origin = (2**times for times in program.parts.halved[node]), (0, 0)
    grid = windows.grid(module)
    if None not in grid.stride:
        rows, columns = (max(1, int(stride or 1)) for stride in grid.stride)
        origin = grid.origin[0], grid.origin[1]
    level, uneven = program.parts.level(node), None if rows == columns else (rows, columns)
    stride, channels = max(rows, columns), _channels(node)
    return Layer(name, role, level, module, stride, channels, origin, uneven)  # type: ignore[arg-type]


def _known_as(node: fx.Node, windows: Field) -> str:
    """The layer of `field` that a node's result is: of a module, if there is one, else of the operator itself.

    What is done to each value by itself, such as a ReLU that is no module, leaves windows as they are.
    """
    own, source = windows.result_of(node.name), node
    found = own
    while found.startswith(OPERATOR) and _is_pointwise(source):
        source = source.all_input_nodes[0]
        if source.op != "call_function":  # the image
            break
        found = windows.result_of(source.name)
    return own if found.startswith(OPERATOR) else found


_CUTS = ("slice", "pad", "index", "narrow", "select", "roll", "flip")
"""Operators that change how many rows there are, and not how far apart they stand."""


def _is_rimmed(node: fx.Node, image: fx.Node) -> bool:
    """Whether a map is the image with a rim, such as zeros: no features yet."""
    return node is image or ("pad" in _operator(node) and _is_rimmed(node.all_input_nodes[0], image))


def _operator(node: fx.Node) -> str:
    """Without the overload: ``aten.conv2d.padding`` cuts and pads nothing."""
    return str(node.target).rpartition(".")[0]


def _halvings(image: fx.Node, maps: Sequence[fx.Node], axis: int) -> dict[fx.Node, int]:
    """How often rows (or columns) were halved on the way to the image and each map, less how often they were doubled.

    Counted operator by operator: a network that mirrors the image at its edges, and then eats the rim, has other
    numbers of rows than powers of two.
    """

    def halved(source: fx.Node, node: fx.Node) -> int:
        return round(math.log2(source.meta["val"].shape[axis] / node.meta["val"].shape[axis]))

    found = {image: 0}
    for node in maps:
        cut = any(name in _operator(node) for name in _CUTS)
        steps = [
            found[source] + (0 if cut else halved(source, node)) for source in node.all_input_nodes if source in found
        ]
        # what comes of no map, such as a pooled vector that is spread out again, stands where its size says
        found[node] = max(0, *steps) if steps else max(0, halved(image, node))
    return found


def _is_map(node: fx.Node) -> bool:
    """Whether a node's result is features over space of one image: not pooled over it, nor windows of it in a batch."""
    value = node.meta.get("val")
    return isinstance(value, Tensor) and value.ndim == 4 and value.shape[0] == 1 and min(value.shape[-2:]) > 1


def _is_even(node: fx.Node) -> bool:
    """Whether a map's units are as far apart down as across, to within one: of rows and channels they hardly are."""
    image = next(one for one in node.graph.nodes if one.op == "placeholder")
    (height, width), (rows, columns) = (one.meta["val"].shape[-2:] for one in (image, node))
    return bool(abs(rows * width - columns * height) <= max(height, width))


def _is_pointwise(node: fx.Node) -> bool:
    """Whether each value comes of one value of one other result, at the same place."""
    tags = getattr(node.target, "tags", ())
    return torch.Tag.pointwise in tags and len(node.all_input_nodes) == 1 and _is_map(node.all_input_nodes[0])


_KEEPING = (*_CUTS, "upsample", "softmax", "dropout", "alias", "clone", "contiguous", "_to_copy", "aten.to.")
"""Operators that leave class scores class scores, besides those on each value by itself."""


def _same_as(logits: fx.Node) -> set[fx.Node]:
    """The logits, and the maps before them that were only cropped, resized or changed value by value since.

    Not every map with as many channels as there are classes: one of features may have them by chance.
    """
    found, node, classes = {logits}, logits, _channels(logits)
    while len(node.all_input_nodes) == 1 and (_is_pointwise(node) or any(one in str(node.target) for one in _KEEPING)):
        (node,) = node.all_input_nodes
        if not _is_map(node) or _channels(node) != classes:
            break
        found.add(node)
    return found


def _other_levels(network: nn.Module, shape: Sequence[int], than: str) -> ModelError:
    return ModelError(
        f"{type(network).__name__} has other levels on images of {_sides(shape)} px than {than}",
        "images large enough for more than one unit on its coarsest map",
        "leave the small images out",
    )


def _sides(shape: Sequence[int]) -> str:
    return "x".join(map(str, shape[-2:]))


def _channels(node: fx.Node) -> int:
    return int(node.meta["val"].shape[1])


def _first(result: object) -> fx.Node:
    while isinstance(result, tuple | list):
        result = result[0]
    assert isinstance(result, fx.Node)
    return result


def _descendants(nodes: Sequence[fx.Node], start: set[fx.Node]) -> set[fx.Node]:
    found: set[fx.Node] = set()
    for node in nodes:
        if any(source in start or source in found for source in node.all_input_nodes):
            found.add(node)
    return found


def _ancestors(start: set[fx.Node]) -> set[fx.Node]:
    found, stack = set(start), list(start)
    while stack:
        for source in stack.pop().all_input_nodes:
            if source not in found:
                found.add(source)
                stack.append(source)
    return found
