"""What is told of each cause of a bad painting, and what the checks look at. Records only."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from whatwhere.explain.anatomy import Anatomy
from whatwhere.explain.cases import Case
from whatwhere.explain.measured import Measured
from whatwhere.explain.objects import ObjectSize
from whatwhere.explain.skips import Worths
from whatwhere.explain.study import Study
from whatwhere.judge import Scores
from whatwhere.network import Model

__all__ = ["CONSTANT", "Diagnosis", "Measurements", "Observed"]

CONSTANT = "Not asked: the answer does not depend on the image."
"""Said of causes that are told by what changes when a path is cut, where nothing does."""

Array = NDArray[Any]


@dataclass(frozen=True)
class Diagnosis:
    """One cause that was looked for.

    Attributes:
        cause: its short name.
        found: whether the measurements speak for it.
        words: what was measured, and what it means.
        remedy: what to do; empty if it was not found.
        numbers: what was measured.
    """

    cause: str
    found: bool
    words: str
    remedy: str = ""
    numbers: dict[str, float] = field(default_factory=dict)

    def __str__(self) -> str:
        return f"{self.cause}: {self.words}" + (f" {self.remedy}" if self.remedy else "")

    def to_json(self) -> dict[str, Any]:
        return dict(vars(self))


@dataclass(frozen=True, eq=False)
class Measurements:
    """What was measured before.

    Attributes:
        what, where: of the network's own answer; None where the labels do not ask.
        chance: of *what*.
        window: px, side of what an output pixel can see; None if unbounded.
        skips, objects, truth: see `Explanation`.
    """

    what: Measured | None
    where: Measured | None
    chance: float
    skips: Worths
    window: int | None
    objects: tuple[ObjectSize, ...]
    truth: bool


@dataclass(frozen=True, eq=False)
class Observed:
    """What the checks look at, computed once.

    Attributes:
        scores: of the paintings, edges within 1 px; loose: within 4 px.
        paintings: ``H x W`` class ids.
        chances: ``(classes, classes)``, mean probability of each class (column) on pixels of each class (row).
    """

    model: Model
    anatomy: Anatomy
    cases: Sequence[Case]
    study: Study
    measured: Measurements
    scores: Scores
    loose: Scores
    paintings: Sequence[NDArray[np.uint8]]
    chances: Array
