"""The clock that stops a peer's training and keeps its weights at the marks.

It counts from the moment that the process was asked for: imports, reading, planning and preprocessing are in it. A
recipe that stretches its learning rate over its epochs stretches it over the minutes, by ``progress``.
"""

from __future__ import annotations

import copy
import time
from dataclasses import dataclass

from torch import Tensor, nn

__all__ = ["Clock", "Snapshot"]


@dataclass(frozen=True)
class Snapshot:
    """The weights at a mark (minutes): taken after so many steps, so many seconds after the start."""

    mark: float
    seconds: float
    steps: int
    weights: dict[str, Tensor]


class Clock:
    """Say :meth:`begin` before the first step and ask :meth:`goes_on` after each.

    A step that runs when a mark passes is finished and counts (in favour of slow loops); a mark that passed before the
    first step gets the weights that training would begin with.

    Args:
        began: ``time.monotonic()`` when the process was started; the same in all processes of a machine.
        marks: minutes, rising; the last ends the training.
    """

    def __init__(self, began: float, marks: tuple[float, ...]) -> None:
        self._began, self._marks = began, marks
        self.steps = 0
        self.snapshots: list[Snapshot] = []

    @property
    def seconds(self) -> float:
        return time.monotonic() - self._began

    @property
    def progress(self) -> float:
        """The share of the time that has gone, in [0, 1]."""
        return min(1.0, self.seconds / (60 * self._marks[-1]))

    def begin(self, network: nn.Module) -> bool:
        self._keep(network)
        return not self._over

    def goes_on(self, network: nn.Module) -> bool:
        self.steps += 1
        self._keep(network)
        return not self._over

    @property
    def _over(self) -> bool:
        return len(self.snapshots) == len(self._marks)

    def _keep(self, network: nn.Module) -> None:
        while not self._over and self.seconds >= 60 * self._marks[len(self.snapshots)]:
            weights = copy.deepcopy(network.state_dict())
            self.snapshots.append(Snapshot(self._marks[len(self.snapshots)], self.seconds, self.steps, weights))
