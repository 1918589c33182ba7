"""One process at a time: who trains into a folder holds it to the end, whatever the end. Knows nothing of runs."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any

fcntl: Any
try:
    import fcntl
except ImportError:  # on Windows nobody is kept from training twice into one folder
    fcntl = None

__all__ = ["alone"]

_HELD: set[IO[bytes]] = set()


@contextmanager
def alone(path: Path) -> Iterator[bool]:
    """Holds a file, made for this, while the block runs; False if another process does. A killed one holds nothing.

    Where no file can be held, as on some network drives, everybody is alone.
    """
    try:
        file = path.open("ab") if fcntl else None  # network drives lock what may be written
    except OSError:
        file = None
    if file is None:
        yield True
        return
    with file:
        _HELD.add(file)
        ours = _taken(file, path)
        try:
            yield ours
        finally:
            _HELD.discard(file)
            if ours:
                with suppress(OSError):
                    path.unlink()


def _taken(file: IO[bytes], path: Path) -> bool:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except (BlockingIOError, PermissionError):
        return False
    except OSError:  # a file system without locks
        return True
    try:
        return os.path.samestat(os.fstat(file.fileno()), path.stat())
    except OSError:  # who held it ended just now, and took it away
        return False


def _let_go() -> None:
    """A forked child has its parent's open files, and would hold them after the parent was killed."""
    while _HELD:
        _HELD.pop().close()


if fcntl:
    os.register_at_fork(after_in_child=_let_go)
