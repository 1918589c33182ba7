"""Paintings too large for memory while they grow: boxes in, bands out, all beside the final place until the end.

A store's folder is ``NAME.partial``. Finished boxes are noted in its journal; the final file is built in that folder
and moved to its place by one rename, so that no unfinished file ever has a finished file's name.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from whatwhere.paint.claims import JOURNAL, LOCK, RUN, TakenError, renamed, run_in, taken_away, writing
from whatwhere.paint.journal import Journal, read_journal, sync_file, sync_folder, write_all
from whatwhere.paint.scheme import Scheme
from whatwhere.paint.work import Painted
from whatwhere.paint.zarrs import CHUNK, ZarrSource, create_labels, create_planes, open_labels, sync_box
from whatwhere.records import Box, Classes
from whatwhere.writing import on_disk, whole_file

__all__ = [
    "JournaledSink",
    "RawStore",
    "Store",
    "ZarrStore",
    "as_shares",
    "goes_on",
    "is_same",
    "move",
]

Size = tuple[int, int]

_OF_IMAGE = ("bytes", "modified")
"""What tells whether an image was changed since."""


class Store(Protocol):
    """Where the boxes of one painting are kept. Boxes meet at multiples of ``align``; ``place`` holds their labels."""

    align: int
    place: str

    def create(self, folder: Path) -> None:
        """Makes empty storage in an empty folder."""
        ...

    def open(self, folder: Path) -> None:
        """Opens the storage of an earlier run."""
        ...

    def write(self, painted: Painted) -> None:
        """Takes a box; it is on disk when this returns."""
        ...

    def labels(self, box: Box) -> NDArray[np.uint8]:
        """``(h, w)`` labels of a box."""
        ...

    def probabilities(self, plane: int, box: Box) -> NDArray[np.uint8]:
        """``(h, w)`` shares of 255 of one class."""
        ...

    def close(self) -> None: ...


class JournaledSink:
    """A sink that survives being killed: what an earlier run of the same work finished is not done again.

    Args:
        folder: the partial folder.
        work: what makes two runs the same work (model, image, precision ...), as JSON.
        store: what holds the boxes inside the folder.
        asked: the tile that is asked for, if any.
        overwrite: what an interrupted run of other work, in other tiles or another kind of store, has left there goes;
            else it is a `TakenError`.
        begins: called with what paints whenever it begins, if nothing was refused.

    Attributes:
        run: by what name the folder is painted into since `begin`.
        notes: what is to be said of an earlier run's tiles.
    """

    def __init__(
        self,
        folder: Path,
        work: dict[str, Any],
        store: Store,
        *,
        asked: int | Size | None = None,
        overwrite: bool = False,
        begins: Callable[[str], None] | None = None,
    ) -> None:
        self.folder, self.store = folder, store
        self._work, self._overwrite, self._begins = work, overwrite, begins
        self._asked = (asked, asked) if isinstance(asked, int) else asked
        self._goes_on: bool | None = None
        self._journal: Journal | None = None
        self.run = ""
        self.notes: list[str] = []

    @property
    def tile(self) -> Size | None:
        """The tile to ask for: what an earlier run of this work, asked for the same, had chosen or come down to."""
        earlier = self._earlier()
        tile = earlier.get("tile")
        same = self._asked is None or list(self._asked) == earlier.get("asked")
        return (tile[0], tile[1]) if tile and same else self._asked

    def begun(self) -> str:
        """How an earlier run of this work has painted; "" if there was none."""
        return str(self._earlier().get("how", ""))

    def _earlier(self) -> dict[str, Any]:
        """What an earlier run of this work noted; {} if there was none."""
        found = Journal.work(self._path)
        return found if is_same(found, self._work) else {}

    def _refuse_others(self, there: dict[str, Any], tiles: int) -> None:
        """Hours of another model's work are not thrown away for a slip in a command.

        Those of an image that is not there any more are, and that is told.
        """
        image, changed = str(there.get("image")), any(there.get(key) != self._work.get(key) for key in _OF_IMAGE)
        same = image == self._work.get("image")
        if not Path(image).exists() or (same and changed):
            why = "the image has changed since" if same else f"{image} is not there any more"
            self.notes.append(f"begun anew, {tiles} tiles were painted: {why}")
            return
        other = _other(there, self._work)
        begun = {"backend": f"by {there.get('backend')}", "precision": f"in {_precision(there)}"}
        by = f" (begun {begun[other[0]]})" if other in (["backend"], ["precision"]) else ""
        raise TakenError(
            f"{self.folder} holds an interrupted painting that differs in: {', '.join(other)}{by}",
            "the same command, which goes on with it",
            "choose another folder with -o, or use --overwrite",
        )

    def refuse_all_but(self, how: str) -> None:
        """What an earlier run has finished by another backend is not thrown away either, where that can't go on."""
        begun = self.begun()
        if begun not in ("", how) and read_journal(self._path)[1] and not self._overwrite:
            raise TakenError(
                f"{self.folder} holds an interrupted painting begun by {begun}, and workers paint by {how}",
                "the same command, which goes on with it",
                "leave out the cluster, choose another folder with -o, or use --overwrite",
            )

    def _refuse_other_tiles(self, earlier: dict[str, Any], tiles: dict[str, Any]) -> None:
        """Nor are those of this work, that an earlier run finished in other tiles or in another kind of store."""
        if any((self.folder / kind.place).exists() for kind in (RawStore, ZarrStore) if kind.place != self.store.place):
            begun = "with" if self.store.place == RawStore.place else "without"
            raise TakenError(
                f"{self.folder} holds an interrupted painting in another kind of store, begun {begun} --cluster",
                "the same command, which goes on with it",
                "choose another folder with -o, or use --overwrite",
            )
        if all(earlier.get(key) == value for key, value in tiles.items()):
            return
        before, now = ("x".join(map(str, tile)) for tile in (earlier["tile"], tiles["tile"]))
        if before == now:
            raise TakenError(
                f"{self.folder} holds an interrupted painting whose tiles of {before} lie in other places",
                "the version of whatwhere that began it",
                "choose another folder with -o, or use --overwrite",
            )
        if self._goes_on is None:
            raise TakenError(
                f"{self.folder} holds an interrupted painting in tiles of {before}, and tiles of {now} are asked for",
                "the same tiles, which go on with it",
                "leave the tile out, choose another folder with -o, or use --overwrite",
            )
        raise TakenError(  # tiles only shrink where memory runs out
            f"memory ran out with tiles of {before}, in which {self.folder} holds an interrupted painting",
            "memory for the same tiles, which go on with it",
            "close other programs and run the same command again, or begin anew with --overwrite",
        )

    @property
    def _path(self) -> Path:
        return self.folder / JOURNAL

    def begin(self, plan: Scheme, how: str) -> frozenset[int]:
        self.close()
        tiles: dict[str, Any] = {"tile": list(plan.tiling.tile), "tiling": repr(plan.tiling)}
        there, finished, _ = read_journal(self._path)
        earlier = there if is_same(there, self._work) else {}
        held = bool(finished) if self._goes_on is None else self._goes_on
        if held and not self._overwrite and earlier:
            self._refuse_other_tiles(earlier, tiles)
        elif held and not self._overwrite:
            self._refuse_others(there, len(finished))
        asked = earlier.get("asked") if earlier.get("tile") == tiles["tile"] else self._asked
        work = {**(_bare(earlier) or self._work), **tiles, **({"asked": list(asked)} if asked else {}), "how": how}
        journal = Journal(self._path, work)
        with writing(self.folder):
            self.folder.mkdir(parents=True, exist_ok=True)
            self.run = renamed(self.folder)  # before anything is made anew that a worker of an earlier run might write
            if not (journal.fits and self._opened()):
                for entry in self.folder.iterdir():
                    if entry.name in (LOCK, RUN):
                        continue
                    shutil.rmtree(entry) if entry.is_dir() and not entry.is_symlink() else entry.unlink()
                self.store.create(self.folder)
                sync_folder(self.folder.parent)
                journal = Journal(self._path, work)
            self._journal = journal.__enter__()
        self._goes_on = bool(journal.done)
        if self._begins:
            self._begins(how)
        return journal.done

    def _opened(self) -> bool:
        """Whether all is there: a run that was killed while its files moved to their places has left a part."""
        try:
            self.store.open(self.folder)
        except (FileNotFoundError, ValueError):  # or of which a file was cut off
            self.store.close()
            return False
        return True

    def write(self, index: int, painted: Painted) -> None:
        assert self._journal is not None
        with writing(self.folder):
            self.store.write(painted)
        self.note(index)

    def note(self, index: int) -> None:
        """Box ``index`` is on disk, whoever wrote it."""
        assert self._journal is not None
        if run_in(self.folder) != self.run:  # else hours go on into files that have no name any more
            raise taken_away(self.folder)
        with writing(self.folder):
            self._journal.add(index)

    def close(self) -> None:
        if self._journal is not None:
            self._journal.__exit__()
            self.store.close()
            self._journal = None


def goes_on(before: object, now: object) -> bool:
    """Whether what one backend has painted counts where another is asked for: all but int8 compute the same."""
    return before == now or (now == "auto" and "int8" not in str(before))


def is_same(there: dict[str, Any], work: dict[str, Any]) -> bool:
    """Whether what a journal says is this work, by whatever backend that computes the same if none is asked for."""
    return not _other(there, work)


def _other(there: dict[str, Any], work: dict[str, Any]) -> list[str]:
    """In what it is not. Who asks for a precision does not go on with what int8 has begun."""
    other = {key for key in _bare(there).keys() | work.keys() if there.get(key) != work.get(key)} - {"int8"}
    if goes_on(there.get("backend"), work.get("backend")):
        other.discard("backend")
    if _precision(there) == "int8" and not work.get("int8", True):
        other.add("precision")
    return sorted(other)


def _precision(there: dict[str, Any]) -> str:
    """What an interrupted painting was begun in: "backend precision" is how."""
    return str(there.get("how", "")).partition(" ")[2] or str(there.get("precision"))


def _bare(work: dict[str, Any]) -> dict[str, Any]:
    """Without what is chosen anew in each run."""
    return {key: value for key, value in work.items() if key not in ("tile", "tiling", "asked", "how")}


class RawStore:
    """Labels as ``H * W`` bytes, probabilities as ``C * H * W``, each box written to its place row by row."""

    place = "labels.raw"

    def __init__(self, size: Size, planes: int = 0) -> None:
        self.size, self.align, self._planes = size, 1, planes
        self._labels = self._shares = -1

    def create(self, folder: Path) -> None:
        (folder / self.place).touch()
        (folder / "probabilities.raw").touch()
        self.open(folder)
        os.ftruncate(self._labels, self.size[0] * self.size[1])
        os.ftruncate(self._shares, self._planes * self.size[0] * self.size[1])

    def open(self, folder: Path) -> None:
        self._labels = os.open(folder / self.place, os.O_RDWR)
        self._shares = os.open(folder / "probabilities.raw", os.O_RDWR)

    def write(self, painted: Painted) -> None:
        self._put(self._labels, 0, painted.box, painted.labels)
        on_disk(self._labels)
        if painted.probabilities is not None:
            for plane, shares in enumerate(as_shares(painted.probabilities)):
                self._put(self._shares, plane, painted.box, shares)
            on_disk(self._shares)

    def labels(self, box: Box) -> NDArray[np.uint8]:
        """``(h, w)`` labels of a box."""
        return self._get(self._labels, 0, box)

    def probabilities(self, plane: int, box: Box) -> NDArray[np.uint8]:
        """``(h, w)`` shares of 255 of one class."""
        return self._get(self._shares, plane, box)

    def close(self) -> None:
        for handle in (self._labels, self._shares):
            if handle >= 0:
                os.close(handle)
        self._labels = self._shares = -1

    def _place(self, plane: int, y: int, x: int) -> int:
        return (plane * self.size[0] + y) * self.size[1] + x

    def _put(self, handle: int, plane: int, box: Box, values: NDArray[np.uint8]) -> None:
        (y0, _), (x0, _) = box
        for row, line in enumerate(np.ascontiguousarray(values)):
            os.lseek(handle, self._place(plane, y0 + row, x0), os.SEEK_SET)
            write_all(handle, line.data)

    def _get(self, handle: int, plane: int, box: Box) -> NDArray[np.uint8]:
        (y0, y1), (x0, x1) = box
        out = np.empty((y1 - y0, x1 - x0), np.uint8)
        for row, line in enumerate(out):
            line[...] = np.frombuffer(os.pread(handle, x1 - x0, self._place(plane, y0 + row, x0)), np.uint8)
        return out


class ZarrStore:
    """Labels and probabilities as the chunks of the final Zarr arrays."""

    place = "labels.zarr"

    def __init__(self, size: Size, classes: Classes, source: ZarrSource | None, *, probabilities: bool = False) -> None:
        self.size, self.align = size, CHUNK
        self._classes, self._source, self._probabilities = classes, source, probabilities
        self._arrays: tuple[Any, Any] = (None, None)

    def create(self, folder: Path) -> None:
        labels = create_labels(folder / self.place, self.size, self._classes, self._source)
        shares = None
        if self._probabilities:
            form = self._source.format if self._source else 3
            shares = create_planes(folder / "probabilities.zarr", (self._classes.count, *self.size), form)
        self._arrays = labels, shares

    def open(self, folder: Path) -> None:
        labels = open_labels(folder / self.place, "r+")
        self._arrays = labels, open_labels(folder / "probabilities.zarr", "r+") if self._probabilities else None

    def write(self, painted: Painted) -> None:
        labels, shares = self._arrays
        rows, columns = (slice(*span) for span in painted.box)
        labels[rows, columns] = painted.labels
        sync_box(labels, painted.box)
        if shares is not None and painted.probabilities is not None:
            shares[:, rows, columns] = as_shares(painted.probabilities)
            sync_box(shares, painted.box)

    def labels(self, box: Box) -> NDArray[np.uint8]:
        """``(h, w)`` labels of a box."""
        return np.asarray(self._arrays[0][tuple(slice(*span) for span in box)])

    def probabilities(self, plane: int, box: Box) -> NDArray[np.uint8]:
        """``(h, w)`` shares of 255 of one class."""
        return np.asarray(self._arrays[1][(plane, *(slice(*span) for span in box))])

    def close(self) -> None:
        self._arrays = None, None


def as_shares(probabilities: NDArray[np.float32]) -> NDArray[np.uint8]:
    """Probabilities in [0, 1] as shares of 255, as they are stored: off by at most 0.002.

    >>> as_shares(np.array([0.0, 0.5, 1.0], np.float32)).tolist()
    [0, 128, 255]
    """
    return np.rint(probabilities * 255).astype(np.uint8)


def move(made: Path, target: Path, *, durable: bool = True) -> None:
    """Puts a finished file or folder in its place, replacing what is there; on disk when this returns, if ``durable``.

    What is at ``target`` is whole, or for a moment not there: then a rerun paints it again. A link to a file stays one,
    as of `whole_file`; one to a folder is replaced.
    """
    if made.is_file() and target.is_symlink():  # perhaps to another drive, where nothing can be moved
        with whole_file(target, durable=durable) as partial:
            shutil.copy2(made, partial)  # with its time, by which the ledger knows it
        return
    old = made.with_name(f"{made.name}.old")
    if made.is_file():
        if durable:
            sync_file(made)
    elif target.exists():  # a folder can't be replaced by one rename: the old one leaves first
        shutil.rmtree(old, ignore_errors=True)  # of a run that was killed here
        target.replace(old)
    made.replace(target)
    if durable:
        sync_folder(target.parent)
    shutil.rmtree(old, ignore_errors=True)
