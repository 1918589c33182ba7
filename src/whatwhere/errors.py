"""The exception family. Each error says what was given, what was expected, and what to do.

    WhatwhereError
    ├── DataError         a folder, image or mask that cannot be used
    ├── PlanError         a plan with an unknown key, a wrong type, an impossible value
    ├── ModelError        a model file that is not ours, is damaged, or does not fit the image
    ├── FieldError        a module or input whose windows cannot be followed
    ├── OutputError       a place that cannot be written to
    │   └── PlaceError    one such place, though others can
    ├── TrainingError     a run that cannot go on, with the measured reason
    └── ClusterError      workers that cannot be reached

The command line prints one of these in one line and exits with code 2. Anything else is a bug.
"""

from __future__ import annotations

import errno
from pathlib import Path

__all__ = [
    "ClusterError",
    "DataError",
    "FieldError",
    "ModelError",
    "OutputError",
    "PlaceError",
    "PlanError",
    "TrainingError",
    "WhatwhereError",
    "absent",
    "in_a_line",
    "is_out_of_memory",
    "look_at",
    "no_model",
    "refused",
    "unwritten",
]

_LINE = 200
"""Characters of another library's words."""

_NO_MEMORY = (
    "not enough memory", "can't allocate memory", "cannot allocate memory", "failed to allocate memory",
    "out of memory", "bad_alloc", "bad allocation", "unable to find an engine", "status_alloc_failed",
    "status_not_initialized", "could not create a primitive",
)  # fmt: skip
"""How PyTorch, oneDNN (which says no more), cuDNN (which may only say that no engine runs), cuBLAS, OpenVINO and ONNX
Runtime say it."""


class WhatwhereError(Exception):
    """An error a person can act on.

    Args:
        given: what was found, with the file name, shape or value.
        expected: what would have been right.
        remedy: what to do now.

    >>> print(DataError("cells/a.png is 0 bytes", "an image", "delete it or copy it again"))
    cells/a.png is 0 bytes; expected an image; delete it or copy it again.
    """

    def __init__(self, given: str, expected: str = "", remedy: str = "") -> None:
        self.given = given
        self.expected = expected
        self.remedy = remedy
        parts = [given, f"expected {expected}" if expected else "", remedy]
        super().__init__("; ".join(part.rstrip(".") for part in parts if part) + ".")

    def __reduce__(self) -> tuple[type[WhatwhereError], tuple[str, str, str]]:
        # worker processes hand errors back: keep the three parts
        return type(self), (self.given, self.expected, self.remedy)


def in_a_line(error: BaseException) -> str:
    r"""An error of another library in one line of bounded length.

    >>> in_a_line(EOFError()), in_a_line(ValueError("no\n  rows"))
    ('EOFError', 'ValueError: no rows')
    """
    words = " ".join(str(error).split())
    words = words if len(words) <= _LINE else words[: _LINE - 3] + "..."
    return f"{type(error).__name__}: {words}" if words else type(error).__name__


class DataError(WhatwhereError):
    """A folder, image or mask that cannot be used."""


class PlanError(WhatwhereError):
    """A plan with an unknown key, a wrong type or an impossible value."""


class ModelError(WhatwhereError):
    """A model file that is not ours, is damaged, or does not fit the image."""


class FieldError(WhatwhereError):
    """A module or input whose windows cannot be followed."""


class OutputError(WhatwhereError):
    """A place that cannot be written to."""


class PlaceError(OutputError):
    """One place that cannot be written to, though others can: its name is too long, or something else is there."""


class TrainingError(WhatwhereError):
    """A training run that cannot go on, with the measured reason."""


class ClusterError(WhatwhereError):
    """Workers that cannot be reached or that all died."""


def look_at(path: Path) -> None:
    """PermissionError where a place may not be looked into: Python 3.14's paths say that nothing is there."""
    try:
        path.stat()
    except PermissionError:
        raise
    except (OSError, ValueError):  # nothing there, or no name that a file can have
        pass


def absent(given: object) -> DataError:
    """What is said of an input that names nothing."""
    look_at(Path(str(given)))
    return DataError(f"{given} does not exist", "an image, a folder or a glob that matches some", "check the path")


def no_model(path: object) -> ModelError:
    """What is said of a model's path that names nothing."""
    look_at(Path(str(path)))
    return ModelError(f"there is no file {path}", "a model file (.safetensors) or a run folder", "check the path")


_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO, errno.EROFS}
"""What is said of a place that takes no more, or nothing at all."""


_OF_ONE_PLACE = {errno.ENAMETOOLONG, errno.EISDIR, errno.ENOTDIR, errno.EEXIST}


def unwritten(error: BaseException) -> type[OutputError]:
    """What is raised where writing has failed: `PlaceError` if only the name, or what has it, is in the way.

    >>> unwritten(NotADirectoryError(errno.ENOTDIR, "Not a directory")).__name__
    'PlaceError'
    >>> unwritten(OSError(errno.ENOSPC, "No space left on device")).__name__
    'OutputError'
    """
    return PlaceError if getattr(error, "errno", None) in _OF_ONE_PLACE else OutputError


def refused(error: OSError) -> WhatwhereError | None:
    """What is said of a file or folder that may not be opened, or takes no more, wherever that was found.

    None where the error is another.

    >>> refused(PermissionError(13, "Permission denied", "/home/eve/run")).given
    '/home/eve/run cannot be opened (Permission denied)'
    >>> refused(OSError(errno.ENOSPC, "No space left on device")).given
    'the output cannot be written (No space left on device)'
    """
    if isinstance(error, PermissionError):
        given = f"{error.filename or 'a file'} cannot be opened ({error.strerror})"
        return DataError(given, "a place you may read", "change its permissions, or choose another")
    if error.errno in _FULL:
        given = f"{error.filename or 'the output'} cannot be written ({error.strerror})"
        return OutputError(given, "a place with room", "free some, or choose another")
    return None


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an allocation failed, on any device: a MemoryError, or a RuntimeError that says so, as torch's own does.

    >>> is_out_of_memory(RuntimeError("CUDA out of memory")), is_out_of_memory(RuntimeError("a bug"))
    (True, False)
    """
    if isinstance(error, MemoryError):
        return True
    return isinstance(error, RuntimeError) and any(words in str(error).lower() for words in _NO_MEMORY)
