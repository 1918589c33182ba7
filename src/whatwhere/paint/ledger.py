"""What was painted from what, by which model: ``predictions.jsonl`` of an output folder, a few lines a painting.

One when it begins, which says what lay at its place then. Labels come to their place by one rename, after all that goes
with them: a line before says what they are (``made``), and one after that they came (``done``). So a painting was
finished that is done, or that is what lies there, if its maker was killed right after the rename. If what lay there
before still does, what an earlier line says holds, but of what goes with it: that may have been replaced before. A
painting that failed is crossed out. Knows nothing of pixels.
"""

from __future__ import annotations

import json
import os
import shutil
from collections import defaultdict
from collections.abc import Iterable
from functools import cache
from pathlib import Path
from typing import Any

from whatwhere.paint.claims import TakenError, writing
from whatwhere.paint.files import whole_path
from whatwhere.paint.outputs import Names, Options
from whatwhere.paint.placed import files_of_place
from whatwhere.paint.sources import Source
from whatwhere.paint.stores import goes_on, move
from whatwhere.writing import is_there

__all__ = ["Ledger", "Work", "without_paintings", "work_of"]

_RECORD = "predictions.jsonl"

_ENDINGS = ".png", ".tif", ".zarr"
"""Of labels."""

_LEARNT = {"made", "done"}
"""What a line tells of a painting that has begun."""

Work = dict[str, Any]
"""What makes two paintings the same, as JSON."""


class Ledger:
    """The paintings of one output folder.

    Args:
        folder: where they go.
        overwrite: what is there is painted again.
    """

    def __init__(self, folder: Path, overwrite: bool = False) -> None:
        self._path, self._overwrite = folder / _RECORD, overwrite
        self._read()

    @property
    def folder(self) -> Path:
        return self._path.parent

    def renew(self) -> None:
        """Reads again, if another process has written."""
        if self._bytes != (self._path.stat().st_size if self._path.is_file() else 0):
            self._read()

    def _read(self) -> None:
        self._begun: dict[str, list[dict[str, Any]]] = defaultdict(list)
        raw = self._path.read_bytes() if self._path.is_file() else b""
        self._bytes, written = len(raw), raw.decode("utf-8", "replace")
        self._cut_off = "" if written.endswith("\n") or not written else "\n"  # ends a line that a kill cut off
        for line in written.splitlines():
            try:
                entry = json.loads(line)
                if entry.get("failed"):
                    self._cross_out(entry["output"], entry.get("id"))
                elif "work" in entry:
                    kept = {key: entry[key] for key in ("work", "beside", "before")}
                    # lines of earlier versions do not say it: then what is not what lay there before was finished
                    done = entry.get("done", "made" not in entry)
                    kept |= {"id": entry.get("id"), "made": entry.get("made"), "done": done}
                    self._begun[entry["output"]].append(kept)
                else:
                    self._learn(entry["output"], entry["id"], {key: entry[key] for key in entry.keys() & _LEARNT})
            except (ValueError, LookupError, TypeError, AttributeError):
                continue  # its painting is done again
        self._sides = defaultdict[str, set[str]](set)  # of each name, the labels that it was to lie beside
        for output, entries in self._begun.items():
            for entry in entries:
                self._add_sides(output, entry)

    def _add_sides(self, output: str, entry: dict[str, Any]) -> None:
        for name in entry["beside"].values():
            self._sides[name].add(output)

    def made(self, path: Path) -> bool:
        """Whether what is at a path now is a painting of this folder, or went with one."""
        if not self._begun:
            return False
        name = Path(os.path.relpath(path, self._path.parent)).as_posix()
        return name in self._sides or self._standing(name) is not None

    def lacks(self, target: Names, options: Options, work: Work) -> set[str]:
        """What is not there of this painting: ``"labels"`` (and all else then), or what is asked for beside them.

        Raises when another painting is at its place, or a file of somebody else's.
        """
        beside = target.beside(options)
        for place in (target.labels, *beside.values()):
            if (other := self._owner(self._name(place), self._name(target.labels))) is not None:
                raise TakenError(
                    f"{place} goes with {self._path.parent / other}, another painting that is there",
                    "a place of its own for each",
                    "choose another folder with -o, or take that painting away",
                )
        if self._overwrite:
            return {"labels", *beside}
        for place in beside.values():
            if is_there(place) and not self._goes_with(place):
                raise _taken(place, "made elsewhere")
        if not is_there(target.labels):
            return {"labels", *beside}
        there = self._standing(self._name(target.labels))
        if there is None:  # perhaps another process has painted it meanwhile
            self._read()
            there = self._standing(self._name(target.labels))
        other = "made elsewhere" if there is None else _difference(there["work"], _bare(work))
        if there is None or other:
            raise _taken(target.labels, other)
        doubtful = self._replaced_since(self._name(target.labels), there)
        self.settle(target)
        return {
            kind
            for kind, path in beside.items()
            if kind not in there["beside"] or there["beside"][kind] in doubtful or not is_there(path)
        }

    def place_of(self, image: Path, places: Iterable[Path]) -> Path | None:
        """The first of these places, named without endings, where a painting of this very image is."""
        for place in places:
            for ending in _ENDINGS:
                name = f"{place.as_posix()}{ending}"
                there = self._standing(name) if name in self._begun else None
                if there is not None and there["work"].get("image") == str(image):
                    return place
        return None

    def _owner(self, name: str, labels: str) -> str | None:
        """The labels of another painting that is there, which a file is or lies beside; None if there are none."""
        for other in ({name} | self._sides.get(name, set())) - {labels}:
            there = self._standing(other)
            if there is not None and name in (other, *there["beside"].values()):
                return other
        return None

    def _goes_with(self, place: Path) -> bool:
        """Whether a file belongs to a painting of this folder, perhaps one that another process has just made."""
        name = self._name(place)
        if name not in self._sides:
            self._read()
        return name in self._sides

    def begin(self, target: Names, options: Options, work: Work, mark: str) -> None:
        """Notes that a painting begins; again only if it does so as other work. ``mark`` is by what it is known."""
        name = self._name(target.labels)
        if any(entry["id"] == mark and entry["work"] == _bare(work) for entry in self._begun[name]):
            return
        beside = {kind: self._name(path) for kind, path in target.beside(options).items()}
        there = self._standing(name)
        if (
            there is not None
            and there["work"].get("precision") == work.get("precision")
            and not _difference(there["work"], _bare(work))
        ):
            beside = there["beside"] | beside
        with writing(self._path.parent, shared=True):
            self._path.parent.mkdir(parents=True, exist_ok=True)
        entry = {"id": mark, "work": _bare(work), "beside": beside, "before": _state(target.labels)}
        self._note(name, entry | {"made": None, "done": False})

    def arrive(self, target: Names, mark: str, made: Path, *, durable: bool = False) -> None:
        """Puts finished labels at their place; who is killed before or after knows by the lines whose are there."""
        name = self._name(target.labels)
        self._tell(name, mark, {"made": _state(made)})
        with writing(target.labels):
            move(made, target.labels, durable=durable)
        self._tell(name, mark, {"done": True})

    def _tell(self, name: str, mark: str, news: dict[str, Any]) -> None:
        self._write({"output": name, "id": mark, **news})
        self._learn(name, mark, news)

    def _learn(self, name: str, mark: str, news: dict[str, Any]) -> None:
        for entry in [entry for entry in self._begun[name] if entry["id"] == mark][-1:]:
            entry.update(news)

    def add(self, target: Names, options: Options, mark: str) -> None:
        """Notes that something is going to be made beside a painting that is there."""
        name = self._name(target.labels)
        there = self._standing(name)
        assert there is not None
        beside = {kind: self._name(path) for kind, path in target.beside(options).items()}
        self._note(name, {**there, "id": mark, "beside": there["beside"] | beside})

    def _note(self, name: str, entry: dict[str, Any]) -> None:
        self._write({"output": name, **entry})
        self._begun[name].append(entry)
        self._add_sides(name, entry)

    def fail(self, target: Names, mark: str) -> None:
        """Notes that a painting came to nothing, if it has begun."""
        name = self._name(target.labels)
        if any(entry["id"] == mark for entry in self._begun[name]):
            self._write({"output": name, "failed": True, "id": mark})
            self._cross_out(name, mark)

    def settle(self, target: Names) -> None:
        """Takes away what went with earlier paintings at the place of a finished one."""
        self.renew()
        name = self._name(target.labels)
        there = self._standing(name)
        if there is not None:
            earlier = {file for entry in self._begun[name] for file in entry["beside"].values()}
            stales = {file for file in earlier - set(there["beside"].values()) if self._owner(file, name) is None}
            with writing(self._path):
                for stale in stales:
                    for file in (self._path.parent / stale, *files_of_place(self._path.parent / stale)):
                        _remove(file)

    def _standing(self, name: str) -> dict[str, Any] | None:
        """The entry of the painting whose labels are there now; None if there are none, or made elsewhere."""
        now = _state(self._path.parent / name)
        if now is None:
            return None
        entries = (entry for entry in reversed(self._begun.get(name, ())) if not entry.get("failed"))
        came = (entry for entry in entries if not _was(entry["before"], now) and (entry["done"] or entry["made"]))
        last = next(came, None)
        # who was killed between made and done may have brought his labels or not: unless they are there as they were
        # made, somebody has changed what is there since, and nobody knows whose it is
        return last if last is not None and (last["done"] or last["made"] == now) else None

    def began_last(self, target: Names) -> bool:
        """Whether nothing has begun at this place since the painting that is there."""
        self.renew()
        name = self._name(target.labels)
        there = self._standing(name)
        return there is not None and self._begun[name][-1] is there

    def _replaced_since(self, name: str, there: dict[str, Any]) -> set[str]:
        """What paintings may have replaced that began after this one, and whose labels never came to their place."""
        entries = self._begun[name]
        begun = next(place for place, entry in enumerate(entries) if entry is there)
        return {file for entry in entries[begun + 1 :] for file in entry["beside"].values()}

    def _cross_out(self, name: str, mark: str | None) -> None:
        """It left no labels, but perhaps what goes with them. Earlier versions had no marks: the last that began."""
        begun = [entry for entry in self._begun[name] if not entry.get("failed")]
        for entry in begun[-1:] if mark is None else begun:
            entry["failed"] = mark is None or entry["id"] == mark

    def _write(self, line: dict[str, Any]) -> None:
        written = f"{self._cut_off}{json.dumps(line)}\n".encode()
        with writing(self._path, shared=True), self._path.open("ab") as file:
            file.write(written)
            file.flush()
            ours = file.tell() == self._bytes + len(written)
        self._bytes = self._bytes + len(written) if ours else -1  # others' lines are not known yet
        self._cut_off = ""

    def _name(self, path: Path) -> str:
        return path.relative_to(self._path.parent).as_posix()


def without_paintings(paths: Iterable[Path]) -> list[Path]:
    """Those that no folder above them knows as a painting of its own."""
    ledger = cache(Ledger)
    return [path for path in paths if not any(ledger(folder).made(path) for folder in path.absolute().parents)]


def work_of(how: Work, path: Path, state: tuple[int, int], source: Source, options: Options) -> Work:
    """What the painting of an image is known by; ``how`` names model, precision, backend and level.

    ``state`` is the image's (see `state_of`) before anything was read of it: what is read may be newer, never older.
    And whether int8 will do, as nobody asked for a precision. What int8 has painted has that precision in the ledger.
    """
    size, changed = state
    return {
        **how, "image": str(whole_path(path)), "bytes": size, "modified": changed,
        "size": list(source.size), "probabilities": options.probabilities,
    }  # fmt: skip


def _difference(there: Work, work: Work) -> str:
    """What tells another painting from the one asked for, in words; "" if nothing does."""
    for key in ("image", "bytes", "modified", "model", "level", "size", "precision", "backend"):
        before, now = there.get(key), work.get(key)
        if before == now:
            continue
        if key == "backend" and goes_on(before, now):
            continue
        if key == "precision" and before == "int8" and work.get("int8"):
            continue
        if key in ("precision", "backend", "level"):
            return f"with {key} {before}, and this one has {key} {now}"
        return "from another model" if key == "model" else "from another image, or one that has changed since"
    return ""


def _taken(place: Path, why: str) -> TakenError:
    return TakenError(
        f"{place} is there already, {why}",
        "a free place, or the same painting",
        "choose another folder with -o, or use --overwrite",
    )


def _bare(work: Work) -> Work:
    """The labels are the same with probabilities and without."""
    return {key: value for key, value in work.items() if key != "probabilities"}


def _state(path: Path) -> list[int] | None:
    """What tells a file from another one at its place."""
    if not is_there(path):
        return None
    found = path.stat()
    return [found.st_mtime_ns, found.st_size]  # nothing else survives a copy of the folder, or a drive mounted anew


def _was(before: list[int] | None, now: list[int]) -> bool:
    return before is not None and [before[0], before[-1]] == now  # earlier ledgers hold an inode between them


def _remove(path: Path) -> None:
    if not os.path.lexists(path):
        return
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
