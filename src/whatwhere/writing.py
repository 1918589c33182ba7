"""Files that are there whole or not at all, and JSON that every reader reads. Knows nothing of what they mean."""

from __future__ import annotations

import hashlib
import json
import math
import os
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from whatwhere.errors import OutputError, PlaceError, in_a_line, unwritten

__all__ = [
    "check_place",
    "is_abandoned",
    "is_there",
    "left_behind",
    "on_disk",
    "reason",
    "shortened",
    "to_json",
    "whole_file",
    "write_json",
]

_OTHERWISE = "choose another place"

_LONGEST = 224
"""Bytes of a name to which something is added; file systems take names of 255."""


@contextmanager
def whole_file(path: Path | str, *, failures: type[Exception] = OSError, durable: bool = False) -> Iterator[Path]:
    """A name beside ``path`` to write to; when the block ends, the file there takes the place of ``path``.

    Folders on the way are made. When anything goes wrong, nothing is left behind and an older file stays as it was.
    A link stays one: what it leads to is written.

    Args:
        path: the file.
        failures: what the block's own library raises when it can't write, beside ``OSError``.
        durable: waits until it is on the disk, to outlive a power cut and not only the process; slow on a busy disk.

    Raises:
        OutputError: it can't be written; `PlaceError` if only its name, or what has it, is in the way.
    """
    path = _followed(Path(path))
    partial = _beside(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        partial.touch()
        mode = partial.stat().st_mode
        yield partial
        if partial.stat().st_mode != mode:  # some libraries write files that only their owner may read
            partial.chmod(mode)
        if durable:
            with partial.open("rb") as file:
                on_disk(file.fileno())
        partial.replace(path)
    except (OSError, failures) as error:
        _remove(partial)
        raise _failed(path, error) from error
    except BaseException:
        _remove(partial)
        raise


def on_disk(handle: int) -> None:
    """Waits until what was written to an open file outlives a power cut; macOS else leaves it to the drive."""
    if sys.platform == "darwin":
        import fcntl

        fcntl.fcntl(handle, fcntl.F_FULLFSYNC)
    else:
        os.fsync(handle)


def check_place(path: Path | str | None, remedy: str = _OTHERWISE) -> None:
    """Before long work: ``OutputError`` if its result can't be written there. A folder on the way is made.

    ``remedy`` says how another place is chosen.
    """
    if path is None:
        return
    path = _followed(Path(path))
    partial = _beside(path)
    try:
        partial.parent.mkdir(parents=True, exist_ok=True)
        partial.touch()
    except OSError as error:
        raise _failed(path, error, remedy) from error
    finally:
        _remove(partial)


def _followed(path: Path) -> Path:
    """Where links lead; `PlaceError` for one of /dev or /proc, or a circle.

    /dev/stdout is such a link, to a file where that is the screen's: a rename would take the place of one or the other.
    """
    here, met = path, set[Path]()
    while os.path.islink(here):  # noqa: PTH114 (a Path's own raises where one may not look)
        folder = os.path.realpath(here.parent)
        if folder == "/dev" or folder.startswith("/proc/") or here in met:
            raise _no_file(path)
        met.add(here)
        here = Path(folder, here.readlink())
    return here


def _beside(path: Path) -> Path:
    if not path.name or os.path.isdir(path):  # noqa: PTH112 (a Path's own raises where one may not look)
        raise PlaceError(f"{path} can't be written (it is a folder)", "the name of a file", "name a file in it")
    if is_there(path) and not path.is_file():  # a device, whose place in /dev a rename would take
        raise _no_file(path)
    thread = "" if threading.current_thread() is threading.main_thread() else f"{threading.get_native_id()}."
    return path.with_name(f".{shortened(path.name)}.{thread}{os.getpid()}.partial")


def _no_file(path: Path) -> PlaceError:
    return PlaceError(f"{path} can't be written (it is no file)", "the name of a file", _OTHERWISE)


def shortened(name: str) -> str:
    """A file's name to which something can be added: of a long one the beginning, and what tells it from others.

    >>> shortened("plate 1.png"), len(shortened("ü" * 120 + ".tif").encode())
    ('plate 1.png', 224)
    """
    whole = os.fsencode(name)
    if len(whole) <= _LONGEST:
        return name
    mark = hashlib.sha256(whole).hexdigest()[:16]
    return f"{whole[: _LONGEST - len(mark)].decode(errors='ignore')}{mark}"


def is_there(path: Path) -> bool:
    """Whether there is such a file or folder. (A Path's own question raises for a name that is too long.)"""
    return os.path.exists(path)  # noqa: PTH110


def left_behind(path: Path) -> list[Path]:
    """What killed processes were writing to take the place of a file, whose name may be a pattern."""
    return list(path.parent.glob(f".{shortened(path.name)}.[0-9]*.partial"))


def is_abandoned(left: Path) -> bool:
    """Whether nobody on this machine is writing one of `left_behind` any more."""
    number = left.name.split(".")[-2]
    if os.name != "posix" or not number.isdecimal():
        return False
    try:
        os.kill(int(number), 0)  # which only asks
    except ProcessLookupError:
        return True
    except (OSError, OverflowError):  # somebody else's; or no process has such a number
        pass
    return False


def _failed(path: Path, error: Exception, remedy: str = _OTHERWISE) -> OutputError:
    return unwritten(error)(f"{path} can't be written ({reason(path, error)})", "a writable place with room", remedy)


def reason(path: Path, error: Exception) -> str:
    """Why a place can't be written. Of a file where a folder has to be the system says "File exists", and not which."""
    if isinstance(error, FileExistsError | NotADirectoryError):
        file = next((place for place in (path, *path.parents) if place.is_file()), None)
        if file is not None:
            return f"{file} is a file, and no folder"
    return getattr(error, "strerror", None) or in_a_line(error.__cause__ or error)


def _remove(partial: Path) -> None:
    try:
        partial.unlink(missing_ok=True)
    except OSError:
        return  # where nothing can be written there is nothing to remove


def write_json(path: Path | str, record: Any) -> None:
    """Writes a record of dictionaries, lists, texts and numbers; what is not a finite number is null."""
    with whole_file(path) as partial:
        # of names that are no UTF-8, Python's escapes are JSON's
        partial.write_text(to_json(record, indent=1), encoding="utf-8", errors="backslashreplace")


def to_json(record: Any, indent: int | None = None) -> str:
    """JSON has no infinities and no NaN: a number that is not defined is null.

    >>> to_json({"iou": (0.5, float("nan"))})
    '{"iou": [0.5, null]}'
    """
    return json.dumps(_finite(record), indent=indent, ensure_ascii=False)


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {str(key): _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    if hasattr(value, "item"):  # numpy's own numbers
        value = value.item()
    return None if isinstance(value, float) and not math.isfinite(value) else value
