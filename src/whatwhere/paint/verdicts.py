"""What was measured of backends on this machine, kept between runs. A convenience: losing it costs a few seconds.

One JSON file in the user's cache folder; what can't be read is forgotten, what can't be written is not kept.
"""

from __future__ import annotations

import json
import math
import os
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

__all__ = ["Verdict", "Verdicts", "cache_folder"]

_KEPT = 200
"""Networks and shapes that are remembered; the oldest is forgotten first."""


@dataclass(frozen=True)
class Verdict:
    """What is known of a backend for one network and shape of tile.

    Attributes:
        start: seconds until its first result.
        pace: seconds a pixel after that; 0 if it was verified but not timed.
        refused: why it is not to be used, or "".
    """

    start: float
    pace: float
    refused: str = ""


class Verdicts:
    """The file of all verdicts.

    Args:
        path: the file; None takes ``backends.json`` in the user's cache folder.
    """

    def __init__(self, path: Path | None = None) -> None:
        self._path = path or cache_folder() / "backends.json"

    def read(self, key: str) -> dict[str, Verdict]:
        """Verdicts by the backend's name; {} if there are none, or none that make sense."""
        try:
            return {name: _verdict(entry) for name, entry in self._all()[key].items()}
        except (KeyError, TypeError, ValueError, AttributeError):
            return {}

    def write(self, key: str, found: Mapping[str, Verdict]) -> None:
        """Replaces what is known under ``key``; the file is there whole or as it was."""
        known = self._all()
        known.pop(key, None)
        known[key] = {name: asdict(verdict) for name, verdict in found.items()}
        kept = dict(list(known.items())[-_KEPT:])
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            # a name of its own: several processes may write at a time, and the last one's file stays
            handle, name = tempfile.mkstemp(prefix=".backends", dir=self._path.parent)
            with os.fdopen(handle, "w", encoding="utf-8") as file:
                json.dump(kept, file, indent=1)
            Path(name).replace(self._path)
        except OSError:
            return  # a read-only home: the next run measures again

    def _all(self) -> dict[str, Any]:
        try:
            known = json.loads(self._path.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return {}
        return known if isinstance(known, dict) else {}


def _verdict(entry: Any) -> Verdict:
    verdict = Verdict(float(entry["start"]), float(entry["pace"]), str(entry["refused"]))
    if not (math.isfinite(verdict.start) and math.isfinite(verdict.pace) and min(verdict.start, verdict.pace) >= 0):
        raise ValueError("times are positive numbers")
    return verdict


def cache_folder() -> Path:
    """Where this system keeps what can be made again."""
    if asked := os.environ.get("XDG_CACHE_HOME"):
        return Path(asked) / "whatwhere"
    if sys.platform == "win32":
        return Path(os.environ.get("LOCALAPPDATA", Path.home())) / "whatwhere" / "cache"
    return Path.home() / ("Library/Caches" if sys.platform == "darwin" else ".cache") / "whatwhere"
