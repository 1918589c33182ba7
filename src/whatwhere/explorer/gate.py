"""Whose turn it is to use torch: following a network (`torch.export`) goes alone, all else goes together.

While a network is being exported, torch is in a state that no other thread can compute in, so this is one gate for all
models of a desk. First come, first served: nobody waits for those who came later. Knows threads only.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager

__all__ = ["Gate", "Turn"]


class Gate:
    """Lets in one that goes alone, or any number that go together.

    >>> gate = Gate()
    >>> with gate.together() as one, gate.together():
    ...     one.pause()  # nobody waits
    >>> with gate.alone() as one:
    ...     one.pause()
    """

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._waiting: deque[object] = deque()
        self._inside = 0
        self._taken = False

    def together(self) -> AbstractContextManager[Turn]:
        """For what computes; not again by who is inside already."""
        return self._turn(alone=False)

    def alone(self) -> AbstractContextManager[Turn]:
        """For what follows a network."""
        return self._turn(alone=True)

    @contextmanager
    def _turn(self, *, alone: bool) -> Iterator[Turn]:
        self._enter(alone)
        try:
            yield Turn(self, alone)
        finally:
            self._leave()

    def _enter(self, alone: bool) -> None:
        mine = object()
        with self._changed:
            self._waiting.append(mine)
            self._changed.wait_for(
                lambda: self._waiting[0] is mine and not self._taken and not (alone and self._inside)
            )
            self._waiting.popleft()
            self._inside, self._taken = self._inside + 1, alone
            self._changed.notify_all()

    def _leave(self) -> None:
        with self._changed:
            self._inside, self._taken = self._inside - 1, False
            self._changed.notify_all()

    def _pause(self, alone: bool) -> None:
        with self._changed:
            nobody = not self._waiting
        if not nobody:
            self._leave()
            self._enter(alone)


class Turn:
    """Being inside."""

    def __init__(self, gate: Gate, alone: bool) -> None:
        self._gate, self._alone = gate, alone

    def pause(self) -> None:
        """Between two steps of something long: lets those in who wait, and goes on after them."""
        self._gate._pause(self._alone)
