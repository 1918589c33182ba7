"""One process at a time: who works in a folder holds a file of it to the end, whatever the end."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

fcntl: Any
try:
    import fcntl
except ImportError:  # on Windows nobody is kept from working twice in one folder
    fcntl = None

__all__ = ["Held", "alone"]

_HELD: set[IO[bytes]] = set()


@dataclass(frozen=True)
class Held:
    """A file that this process holds; ``file`` is None where none can be."""

    path: Path
    file: IO[bytes] | None

    def is_here(self) -> bool:
        """Whether it is still at its place; else all was removed, and another process may have begun there."""
        try:
            return self.file is not None and os.path.samestat(os.fstat(self.file.fileno()), self.path.stat())
        except OSError:
            return False


@contextmanager
def alone(path: Path) -> Iterator[Held | None]:
    """Holds a file, made for this, while the block runs; None if another process does. A killed one holds nothing.

    Where no file can be held, as on some network drives, everybody is alone.
    """
    try:
        file = path.open("ab") if fcntl else None  # network drives lock what may be written
    except FileNotFoundError:  # its folder went away with who held it
        yield None
        return
    except OSError:
        file = None
    held = Held(path, file)
    if file is None:
        yield held
        return
    with file:
        _HELD.add(file)
        ours = _taken(file) and held.is_here()  # or else who held it ended just now, and took it away
        try:
            yield held if ours else None
        finally:
            _HELD.discard(file)
            if ours and held.is_here():
                with suppress(OSError):
                    path.unlink()


def _taken(file: IO[bytes]) -> bool:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except (BlockingIOError, PermissionError):
        return False
    except OSError:  # a file system without locks
        pass
    return True


def _let_go() -> None:
    """A forked child has its parent's open files, and would hold them after the parent was killed."""
    while _HELD:
        _HELD.pop().close()


if fcntl:
    os.register_at_fork(after_in_child=_let_go)
