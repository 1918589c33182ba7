"""A network as a list of steps: operators, what they are given, and where layers end.

Each step has an operator's name, its arguments and the shape of its result. Tensors that depend on the image appear in
arguments as `Source`, all others as `Constant`. A number that is known only while it runs (``.item()``) is a step too.
Knows nothing of torch or of windows.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

__all__ = ["MODULE", "OPERATOR", "OUTPUT", "Constant", "Graph", "Source", "Step", "constants", "numbers", "sources"]

OUTPUT = "output"
"""Among layers, the network's own result; of several the first."""
MODULE = " (module)"
"""Ends the name of a module that is called as that, and is not it."""
OPERATOR = "%"
"""What an operator's name begins with among layers, and in torch's own print of a graph."""


@dataclass(frozen=True)
class Source:
    """The result of an earlier step, by its place in `Graph.steps`."""

    step: int
    shape: tuple[int, ...]


@dataclass(frozen=True)
class Constant:
    """A tensor that does not depend on the image: a weight, a buffer, coordinates."""

    shape: tuple[int, ...]
    values: tuple[int, ...] | None = None
    """The entries, for short vectors of integers (indices); of a mask the places that it picks."""
    filled: bool = False
    """One value everywhere (zeros, ones), as far as can be told."""
    numbers: tuple[str, ...] = ()
    """What it was made from, a weight's name or numbers: two constants that differ in them are not the same."""


@dataclass(frozen=True)
class Step:
    """One operator.

    Attributes:
        operator: its ATen name without overload and in-place mark, such as ``"conv2d"``.
        arguments: by the schema's names, with defaults filled in.
        shape: of the result (of result number `part`, where the operator has several).
        modules: the paths of the modules it ran in, outermost first; ``"stem"``, ``"stem.0"``.
        pointwise: torch says that each result depends on the same (broadcast) place of its inputs only.
        computed: a number among its arguments is known only while the network runs, as of ``.item()``.
        unsteady: why its result is another each time, though the image is the same; "" if it is not.
    """

    operator: str
    arguments: dict[str, Any]
    shape: tuple[int, ...]
    part: int = 0
    modules: tuple[str, ...] = ()
    pointwise: bool = False
    computed: bool = False
    unsteady: str = ""

    @property
    def module(self) -> str:
        return self.modules[-1] if self.modules else ""


@dataclass(frozen=True)
class Graph:
    """The steps in order; step 0 is the image.

    Attributes:
        layers: for each module path (and ``"output"``) the step that holds its result; ``"path[0]"``, ``"path[1]"`` for
            a module that gives several, ``"output"``, ``"output[1]"`` where the network does, by their places among all
            that it returns, made from the image or not; and for each operator that torch exported, by its name there:
            ``"%add_1"``.
    """

    steps: tuple[Step, ...]
    layers: dict[str, int]


def constants(arguments: Any) -> Iterator[Constant]:
    """All tensors in an argument (or arguments) that do not depend on the image."""
    if isinstance(arguments, Constant):
        yield arguments
    elif isinstance(arguments, dict | list | tuple):
        for value in arguments.values() if isinstance(arguments, dict) else arguments:
            yield from constants(value)


def sources(arguments: Any) -> Iterator[Source]:
    """All tensors in an argument (or arguments) that depend on the image."""
    if isinstance(arguments, Source):
        yield arguments
    elif isinstance(arguments, dict | list | tuple):
        for value in arguments.values() if isinstance(arguments, dict) else arguments:
            yield from sources(value)


def numbers(arguments: Any) -> Iterator[int | float | str]:
    """All numbers and words among an operator's arguments."""
    if isinstance(arguments, dict | list | tuple):
        for value in arguments.values() if isinstance(arguments, dict) else arguments:
            yield from numbers(value)
    elif isinstance(arguments, int | float | str):
        yield arguments
