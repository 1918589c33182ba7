"""What was painted from what, by which model: ``predictions.jsonl`` of an output folder, a line a painting.

The line is written before the painting, with what lay at its place then. Labels come to their place by one rename,
after all that goes with them: another file there is the finished painting, whoever made it, and whoever was killed
right after. Knows nothing of pixels.
"""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

from whatwhere.errors import OutputError
from whatwhere.paint.files import state_of
from whatwhere.paint.outputs import Names, Options
from whatwhere.paint.sources import Source
from whatwhere.paint.stores import writing

__all__ = ["Ledger", "TakenError", "Work", "work_of"]

_RECORD = "predictions.jsonl"

Work = dict[str, Any]
"""What makes two paintings the same, as JSON."""


class TakenError(OutputError):
    """The place of one painting is taken by something else."""


class Ledger:
    """The paintings of one output folder.

    Args:
        folder: where they go.
        overwrite: what is there is painted again.
    """

    def __init__(self, folder: Path, overwrite: bool = False) -> None:
        self._path, self._overwrite = folder / _RECORD, overwrite
        self._known: dict[str, dict[str, Any]] = {}
        written = self._path.read_text(encoding="utf-8") if self._path.is_file() else ""
        self._cut_off = "" if written.endswith("\n") or not written else "\n"  # ends a line that a kill cut off
        for line in written.splitlines():
            try:
                entry = json.loads(line)
                self._known[entry["output"]] = {key: entry[key] for key in ("work", "beside", "before")}
            except (ValueError, KeyError, TypeError):
                continue  # its painting is done again
        names = (name for output, entry in self._known.items() for name in (output, *entry["beside"].values()))
        self._made = {os.path.abspath(folder / name) for name in names}  # noqa: PTH100 (no link is to be followed)

    def made(self, path: Path) -> bool:
        """Whether a file is a painting of this folder, or goes with one."""
        return os.path.abspath(path) in self._made  # noqa: PTH100

    def has(self, target: Names, options: Options, work: Work) -> bool:
        """Whether this painting is there. Raises when another one is at its place."""
        if self._overwrite or not target.labels.exists():
            return False
        known = self._known.get(self._name(target.labels))
        if known is None or known["work"] != _bare(work):
            raise TakenError(
                f"{target.labels} is there already, " + ("from another image or model" if known else "made elsewhere"),
                "a free place, or the same painting",
                "choose another folder with -o, or use --overwrite",
            )
        there = all(kind in known["beside"] and path.exists() for kind, path in _beside(target, options).items())
        return there and known["before"] != _state(target.labels)

    def begin(self, target: Names, options: Options, work: Work) -> None:
        """Notes that a painting begins. What went with an earlier one of another model or image is taken away."""
        name = self._name(target.labels)
        known = self._known.get(name, {"work": None, "beside": {}})
        beside = {kind: self._name(path) for kind, path in _beside(target, options).items()}
        if known["work"] == _bare(work):
            beside = known["beside"] | beside
        entry = {"work": _bare(work), "beside": beside, "before": _state(target.labels)}
        with writing(self._path.parent):
            self._path.parent.mkdir(parents=True, exist_ok=True)
        with writing(self._path):
            for stale in known["beside"].values() if known["work"] != entry["work"] else ():
                _remove(self._path.parent / stale)
            with self._path.open("a", encoding="utf-8") as file:
                file.write(self._cut_off + json.dumps({"output": name, **entry}) + "\n")
        self._known[name], self._cut_off = entry, ""

    def _name(self, path: Path) -> str:
        return path.relative_to(self._path.parent).as_posix()


def work_of(model: str, path: Path, source: Source, options: Options) -> Work:
    """What the painting of an image by a model (its fingerprint) is known by."""
    size, changed = state_of(path)
    return {
        "model": model, "image": os.path.abspath(path), "bytes": size, "modified": changed,  # noqa: PTH100
        "size": list(source.size), "probabilities": options.probabilities,
    }  # fmt: skip


def _bare(work: Work) -> Work:
    """The labels are the same with probabilities and without."""
    return {key: value for key, value in work.items() if key != "probabilities"}


def _beside(target: Names, options: Options) -> dict[str, Path]:
    """What is asked for beside the labels."""
    asked = {"overlay": options.overlay, "probabilities": options.probabilities}
    return {kind: getattr(target, kind) for kind, wanted in asked.items() if wanted}


def _state(path: Path) -> list[int] | None:
    """What tells a file from another one at its place."""
    if not path.exists():
        return None
    found = path.stat()
    return [found.st_mtime_ns, found.st_ino, found.st_size]


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
