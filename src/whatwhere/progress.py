"""How far something long is: a bar with the time left on a terminal, a plain line now and then anywhere else."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

__all__ = ["counted", "of_files", "shared"]

_EVERY = 15.0
"""Seconds between two plain lines, and before the first: what is done sooner says nothing."""

Update = Callable[..., None]
"""Takes ``description``, ``completed`` and ``total``; what is left out stays as it was."""


@contextmanager
def counted(console: Console, what: str, quiet: bool) -> Iterator[Callable[[int, int], None]]:
    """``(done, total)``."""
    with _told(console, quiet, what, MofNCompleteColumn()) as update:
        yield lambda done, total: update(completed=done, total=total)


@contextmanager
def of_files(console: Console, quiet: bool) -> Iterator[Callable[[str, int, int], None]]:
    """``(path, done, total)``, file after file."""
    with _told(console, quiet, "", MofNCompleteColumn(), apart=True) as update:
        yield lambda path, done, total: update(description=Path(path).name, completed=done, total=total)


@contextmanager
def shared(console: Console, quiet: bool) -> Iterator[Callable[[str, float], None]]:
    """``(what, share)``, of the whole that is done."""
    with _told(console, quiet, "") as update:
        update(total=1.0)
        yield lambda what, share: update(description=what, completed=share)


@contextmanager
def _told(
    console: Console, quiet: bool, what: str, *columns: MofNCompleteColumn, apart: bool = False
) -> Iterator[Update]:
    if quiet or not console.is_terminal:
        yield _Lines(console, what, apart).update
        return
    name = TextColumn("{task.description}", markup=False)
    shown = (name, BarColumn(), *columns, TextColumn("left"), TimeRemainingColumn())
    with Progress(*shown, console=console, transient=True) as bar:
        yield partial(bar.update, bar.add_task(what, total=None))


class _Lines:
    """Plain lines in the place of a bar.

    Args:
        apart: what has a description of its own is a work of its own, not a stage of the whole.
    """

    def __init__(self, console: Console, what: str, apart: bool) -> None:
        self._apart = apart
        self._console, self._what, self._total, self._done = console, what, 0.0, 0.0
        self._began = self._last = self._at = time.monotonic()

    def update(
        self, *, description: str | None = None, completed: float | None = None, total: float | None = None
    ) -> None:
        now = time.monotonic()
        next_one = self._apart and description not in (None, self._what)
        self._what = self._what if description is None else description
        self._total = self._total if total is None else total
        if completed is None:
            return
        if next_one or completed < self._done:
            self._began = self._at
        self._at = now
        self._done = completed
        if now - self._last < _EVERY or not 0 < completed < self._total:
            return
        self._last = now
        share = completed / self._total
        left = round((now - self._began) * (1 - share) / share)
        self._console.print(f"{self._what}: {share:.0%}, about {left // 60}:{left % 60:02d} left", markup=False)
