"""Which boxes of a large painting are finished, kept so that an interrupted run goes on where it stopped.

A line of the journal is written only after what it speaks of is on disk. Knows nothing of pixels or networks.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from whatwhere.writing import on_disk

__all__ = ["Journal", "read_journal", "sync_file", "sync_folder", "write_all"]


class Journal:
    """An append-only file: what work it is, as JSON, then one finished index a line.

    >>> import tempfile
    >>> path = Path(tempfile.mkdtemp()) / "journal"
    >>> with Journal(path, {"model": 1, "tile": [64, 64]}) as journal:
    ...     journal.add(4)
    >>> sorted(Journal(path, {"model": 1, "tile": [64, 64]}).done), sorted(Journal(path, {"model": 2}).done)
    ([4], [])
    >>> Journal.work(path)
    {'model': 1, 'tile': [64, 64]}
    """

    def __init__(self, path: Path, work: dict[str, Any]) -> None:
        self._path, self._work = path, work
        found, done, length = read_journal(path)
        self.fits = found == work
        self.done, self._length = (done, length) if self.fits else (frozenset(), 0)
        self._handle = -1

    @staticmethod
    def work(path: Path) -> dict[str, Any]:
        """What an earlier run said that it did; {} if there was none."""
        return read_journal(path)[0]

    def __enter__(self) -> Journal:
        self._handle = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o644)
        os.ftruncate(self._handle, self._length)  # a line that was cut off is dropped
        if not self.fits:
            self._append(self._work)
            sync_folder(self._path.parent)
        return self

    def __exit__(self, *error: object) -> None:
        os.close(self._handle)
        self._handle = -1

    def add(self, index: int) -> None:
        """Notes that box ``index`` is finished and on disk."""
        self._append(index)

    def _append(self, record: object) -> None:
        write_all(self._handle, json.dumps(record).encode() + b"\n")
        on_disk(self._handle)


def read_journal(path: Path) -> tuple[dict[str, Any], frozenset[int], int]:
    """The work, its finished indices, and the length of the lines that are whole."""
    nothing: tuple[dict[str, Any], frozenset[int], int] = {}, frozenset(), 0
    if not path.is_file():
        return nothing
    whole = path.read_bytes().rpartition(b"\n")[0]
    lines = whole.split(b"\n")
    try:
        work = json.loads(lines[0])
        return (work, frozenset(int(line) for line in lines[1:]), len(whole) + 1) if isinstance(work, dict) else nothing
    except ValueError:
        return nothing


def write_all(handle: int, data: bytes | memoryview) -> None:
    """``os.write`` until everything is written."""
    rest = memoryview(data)
    while rest:
        rest = rest[os.write(handle, rest) :]


def sync_file(path: Path) -> None:
    """Waits until a file's content is on disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        on_disk(handle)
    finally:
        os.close(handle)


def sync_folder(path: Path) -> None:
    """Waits until a folder's entries are on disk."""
    sync_file(path)
