"""How much of a run is over: by steps, or by a clock on which only steps and validations pass."""

from __future__ import annotations

import time

from whatwhere.learn.plan import TrainingPlan
from whatwhere.learn.state import State

__all__ = ["Schedule"]


class Schedule:
    """Where a run stands between its beginning (0) and its end (1).

    Attributes:
        before: seconds of earlier sessions.
        training: seconds of steps in this session, validations and checkpoints left out.
        reserve: seconds of a time budget kept for the last validation.
    """

    def __init__(self, asked: TrainingPlan, state: State, steps_in_all: int, began: float) -> None:
        self._budget, self._state, self._steps_in_all, self._began = asked.seconds, state, steps_in_all, began
        self.before = self.training = self.reserve = 0.0

    def elapsed(self) -> float:
        """Seconds of wall time over all sessions."""
        return self.before + time.perf_counter() - self._began

    def progress(self) -> float:
        """The share that is over."""
        if self._budget is None:
            return self._state.counters.step / self._steps_in_all
        return self.progress_at(self.elapsed())

    def hundredths(self) -> int:
        return int(100 * self.progress())

    def progress_at(self, elapsed: float) -> float:
        """The share of a time budget that was over after so many seconds."""
        assert self._budget is not None
        begun = self._state.counters.begun  # before, images were read: no step of a schedule
        whole = self._budget - self.reserve - begun
        return (elapsed - begun) / whole if whole > 0 else 1.0

    def begin(self, now: float) -> None:
        """Steps begin after so many seconds, of which those since the last step were no steps of the schedule."""
        counters = self._state.counters
        if counters.step:  # prepared once more
            self.stand_still(self.progress_at(counters.elapsed), now - counters.elapsed)
        else:
            counters.begun = now

    def stand_still(self, progress: float, seconds: float) -> None:
        """Seconds that were no steps of the schedule: it goes on from where it was, in the time that is left."""
        if progress < 1.0:
            self._state.counters.begun += seconds / (1 - progress)
