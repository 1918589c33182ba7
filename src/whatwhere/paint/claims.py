"""Who paints into a partial folder, `NAME.partial`: one process at a time, and workers only for the run that is at it.

Knows nothing of what is in it.
"""

from __future__ import annotations

import shutil
import stat
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from uuid import uuid4

from whatwhere.errors import OutputError, PlaceError, unwritten
from whatwhere.lock import alone
from whatwhere.paint.journal import read_journal
from whatwhere.writing import is_there, reason

__all__ = [
    "JOURNAL", "LOCK", "RUN", "TakenError", "claimed", "discard", "in_turn", "renamed", "run_in", "taken_away",
    "writing",
]  # fmt: skip

LOCK = "lock"
"""A file of the partial folder; who paints there holds it."""

JOURNAL = "journal"

RUN = "run"
"""A file of the partial folder that names who paints there now: workers may be at work for somebody who is gone."""


class TakenError(PlaceError):
    """The place of one painting is taken by something else."""


_PATIENCE = 60.0
"""Seconds."""


@contextmanager
def claimed(folder: Path, *, shared: bool = False) -> Iterator[None]:
    """Makes a partial folder and holds it for this process; `TakenError` if another one paints there.

    Nothing is left of a painting of which no box is finished. ``shared`` is as of `writing`.
    """
    with writing(folder.parent, shared=shared):
        folder.parent.mkdir(parents=True, exist_ok=True)
    with writing(folder, shared=shared):
        _make(folder)
    with alone(folder / LOCK) as held:
        if held is None:
            raise TakenError(
                f"{folder.with_suffix('')} is being painted by another process",
                "one at a time",
                "wait for it, or choose another folder with -o",
            )
        try:
            yield
        finally:
            if held.is_here() and not read_journal(folder / JOURNAL)[1]:
                shutil.rmtree(folder, ignore_errors=True)
    with suppress(OSError):  # what a network drive keeps of an open file's folder
        folder.rmdir()


def _make(folder: Path) -> None:
    """Makes a folder if there is none; one that another process takes away in this moment is made anew."""
    while True:
        try:
            folder.mkdir()
            return
        except FileExistsError:
            with suppress(FileNotFoundError):
                if not stat.S_ISDIR(folder.lstat().st_mode) and not folder.is_dir():
                    raise
                return


@contextmanager
def in_turn(folder: Path, *, shared: bool = False) -> Iterator[None]:
    """As `claimed`, for what takes seconds: waits for who paints there, up to a minute."""
    last = time.monotonic() + _PATIENCE
    with ExitStack() as held:
        while True:
            try:
                held.enter_context(claimed(folder, shared=shared))
                break
            except TakenError:
                if time.monotonic() > last:
                    raise
                time.sleep(0.05)
        yield


def renamed(folder: Path) -> str:
    """A new name for who paints into a partial folder from now on; what bears another one writes there no more."""
    name = uuid4().hex
    with writing(folder):
        (folder / RUN).write_text(name)
    return name


def run_in(folder: Path) -> str | None:
    """By what name a partial folder is painted into; None where there is no such folder."""
    try:
        return (folder / RUN).read_text()
    except FileNotFoundError:
        return None


def taken_away(folder: Path) -> PlaceError:
    """What is said where a partial folder is not what it was."""
    return PlaceError(
        f"{folder} was taken away, or emptied, while it was painted into",
        "a folder that stays until its painting is finished",
        "run the same command again, which begins anew",
    )


def discard(folder: Path, is_spent: Callable[[], bool]) -> bool:
    """Removes what a run has left that was killed when all was done, unless another process paints there.

    What holds finished boxes stays, unless nobody needs them any more. Returns whether it stays for that.
    """
    if is_there(folder) and folder.is_dir():
        with suppress(TakenError), claimed(folder):
            if read_journal(folder / JOURNAL)[1] and not is_spent():
                return True
            shutil.rmtree(folder, ignore_errors=True)
    return False


@contextmanager
def writing(path: Path, *, shared: bool = False) -> Iterator[None]:
    """Turns what the system says when it can't write into an `OutputError` that names the place.

    It is a `PlaceError` if only that place can't be written; where all paintings share it, nothing can.
    """
    try:
        yield
    except OSError as error:
        raise (OutputError if shared else unwritten(error))(
            f"{path} can't be written ({reason(path, error)})",
            "a folder with write permission and free space",
            "make room or choose another folder; what is finished is kept and not done again",
        ) from error
