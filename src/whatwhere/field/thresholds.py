"""What a module does otherwise on an image than on the canvases, because it decides by a size.

Graphs of both are laid side by side: the same steps, given the same results, numbers and weights. Knows nothing of
tiles.
"""

from __future__ import annotations

from collections.abc import Sequence

from whatwhere.field.graph import Graph, Step, numbers, sources
from whatwhere.field.grids import Canvas
from whatwhere.field.obstacles import Obstacle, depends_on_place
from whatwhere.field.rules_shape import wholes
from whatwhere.field.windows import trace

__all__ = ["find_threshold"]

_BY_LAYOUT = frozenset({"view", "_unsafe_view", "reshape", "clone", "contiguous", "alias", "expand"})
"""What torch takes one in place of another by the strides of a tensor, which are ambiguous where sizes are 1."""


def find_threshold(graph: Graph, canvases: tuple[Canvas, Canvas], layer: str) -> Obstacle | None:
    """What a module does otherwise on an image than on both canvases: other operators, numbers or weights, other
    steps' results or other places in them, by a size.
    """
    small, large = (canvas.graph for canvas in canvases)
    ours, theirs = _kept(graph), _kept(small)
    if [graph.steps[at].operator for at in ours] != [small.steps[at].operator for at in theirs]:
        return Obstacle("", "forward", "runs other operators at another image size", unbounded=True)
    place = graph.layers[layer]
    if _origin(graph, ours, place) != _origin(small, theirs, small.layers[layer]):
        return Obstacle("", "forward", "returns another step's result at another image size", unbounded=True)
    read = trace(graph, place, wholes(graph.steps[place].shape)).windows
    for at, there in zip(ours, theirs):
        step, other = graph.steps[at], small.steps[there]
        if at not in read:
            continue
        if _given(graph, ours, step) != _given(small, theirs, other):
            why = "is given another step's result at another image size"
            return Obstacle(step.module, step.operator, why, unbounded=True)
        position = depends_on_place(step, other) or _otherwise(step, other, large.steps[there])
        if position:
            return Obstacle(step.module, step.operator, position, unbounded=False)
    return None


def _kept(graph: Graph) -> dict[int, int]:
    """The places of all steps but those by layout, numbered."""
    places = (at for at, step in enumerate(graph.steps) if at == 0 or step.operator not in _BY_LAYOUT)
    return {at: number for number, at in enumerate(places)}


def _origin(graph: Graph, kept: dict[int, int], at: int) -> int:
    """The number of the step that made a result, before torch laid it out otherwise."""
    while at not in kept:
        at = next(sources(graph.steps[at].arguments)).step
    return kept[at]


def _given(graph: Graph, kept: dict[int, int], step: Step) -> list[int]:
    return [_origin(graph, kept, source.step) for source in sources(step.arguments)]


def _otherwise(step: Step, small: Step, large: Step) -> str | None:
    """What both canvases have alike and an image has not: sizes along axes that don't grow, and numbers."""
    if len(small.shape) != len(large.shape) or small.operator != large.operator:
        return None  # two canvases of other steps are told elsewhere
    if any(map(_changed, *(_shapes(one) for one in (step, small, large)))):
        return f"makes or reads a tensor of shape {step.shape}, whose windows or pieces depend on the image's size"
    if _changed(*(list(numbers(one.arguments)) for one in (step, small, large))):
        return "is given a number that depends on the image's size"
    return None


def _shapes(step: Step) -> list[tuple[int, ...]]:
    return [step.shape, *(source.shape for source in sources(step.arguments))]


def _changed(
    own: Sequence[int | float | str], one: Sequence[int | float | str], two: Sequence[int | float | str]
) -> bool:
    """Whether a number of one's own is another than that which both canvases have."""
    if len(one) != len(two):
        return False
    return len(own) != len(one) or any(n == m != number for number, n, m in zip(own, one, two))
