"""The process dies at a change of the disk: at the first, the second ... or the last, each without one of its own.

Whatever changes the disk passes an audit hook of Python's or ``os.write``. From the chosen change on, none happens any
more: what the clean-up of the code under test would do is not done either, as after ``kill -9``.
"""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

__all__ = ["Killed", "deaths"]

_CHANGES = {"os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.link", "os.symlink", "os.truncate"}
_FIRST, _BETWEEN, _LAST = 8, 10, 16
_NEVER = sys.maxsize
_WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC


class Killed(BaseException):
    """The process is no more."""


class _Life:
    """Ends at the change after so many below a folder."""

    def __init__(self, root: Path, changes: int) -> None:
        self.root, self._changes, self.seen = str(root), changes, 0

    @property
    def over(self) -> bool:
        return self.seen > self._changes

    def change(self) -> None:
        self.seen += 1
        if self.over:
            raise Killed

    def heard(self, event: str, arguments: tuple[Any, ...]) -> None:
        opens = event == "open" and arguments[2] & _WRITES
        if (opens and self._concerns(arguments[0], -1)) or (
            event in _CHANGES and self._concerns(arguments[0], arguments[-1])
        ):
            self.change()

    def _concerns(self, path: object, folder: object) -> bool:
        """Whether a path is below the root; a bare name in an open folder is, as trees are removed that way."""
        if not isinstance(path, str | bytes | os.PathLike):
            return False
        name = os.fsdecode(path)
        return name.startswith(self.root) or (not Path(name).is_absolute() and isinstance(folder, int) and folder >= 0)

    def write(self, handle: int, data: Any) -> int:
        """``os.write``; the one that the kill falls into leaves half of what it was to write."""
        if not str(Path(f"/proc/self/fd/{handle}").readlink()).startswith(self.root):
            return _write(handle, data)
        lived = not self.over
        try:
            self.change()
        except Killed:
            if lived:
                _write(handle, bytes(data)[: len(data) // 2])
            raise
        return _write(handle, data)


_life: _Life | None = None
_hooked = False
_write = os.write


def _heard(event: str, arguments: tuple[Any, ...]) -> None:
    if _life is not None:
        _life.heard(event, arguments)


def deaths(
    root: Path, work: Callable[[Path], object], *, begun: Callable[[Path], object] = lambda _: None
) -> Iterator[tuple[int, Path]]:
    """Does ``work`` in new folders and dies in each at another change; yields that change's number and the folder.

    At every change if there are few; else at the first and last ones and some between. What is ``begun`` in a folder is
    done before, in safety.
    """
    rehearsal = root / "rehearsal"
    count = _lived(rehearsal, work, begun, _NEVER).seen
    shutil.rmtree(rehearsal)
    apart = max(1, count // _BETWEEN)
    for number in sorted({*range(min(_FIRST, count)), *range(0, count, apart), *range(max(0, count - _LAST), count)}):
        folder = root / str(number)
        if _lived(folder, work, begun, number).over:  # threads do not always come to as many
            yield number, folder


def _lived(folder: Path, work: Callable[[Path], object], begun: Callable[[Path], object], changes: int) -> _Life:
    global _life, _hooked
    if not _hooked:
        sys.addaudithook(_heard)
        _hooked = True
    folder.mkdir(parents=True)
    begun(folder)
    life = _life = _Life(folder, changes)
    os.write = life.write
    try:
        with suppress(Killed):
            work(folder)
    finally:
        _life, os.write = None, _write
    return life
