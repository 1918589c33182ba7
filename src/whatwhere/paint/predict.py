"""Many images to painted files: ``predict(model, ["cells/*.tif"], "painted")``. Knows what is done and what failed."""

from __future__ import annotations

import glob
import os
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, nullcontext, suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeVar, cast
from uuid import uuid4

from whatwhere.data.folder import bare
from whatwhere.data.images import IMAGE_SUFFIXES
from whatwhere.errors import DataError, FieldError, ModelError, PlaceError, PlanError, absent
from whatwhere.network import Holder, Model, as_model, name_of, own_config
from whatwhere.network.machine import Precision
from whatwhere.paint.backends import EAGER
from whatwhere.paint.claims import JOURNAL, TakenError, claimed, discard, in_turn, renamed
from whatwhere.paint.engine import Engine
from whatwhere.paint.files import check_name, find_images, fitted, is_image, open_image, state_of, whole_path
from whatwhere.paint.journal import Journal
from whatwhere.paint.ledger import Ledger, Work, without_paintings, work_of
from whatwhere.paint.outputs import Names, Options, is_small, lay_over, names, paint_to_files
from whatwhere.paint.paint import PaintReport
from whatwhere.paint.sources import Reading, Source
from whatwhere.paint.stores import is_same
from whatwhere.plain_torch import plain_torch
from whatwhere.writing import is_abandoned, is_there, left_behind, shortened

if TYPE_CHECKING:
    from whatwhere.paint.cluster import Workers

__all__ = ["Prediction", "Predictions", "find_inputs", "predict"]

Made = TypeVar("Made")

Progress = Callable[[str, int, int], None]
"""Called with the input's name, the tiles done and the tiles in all."""


@dataclass(frozen=True)
class Prediction:
    """What became of one input.

    Attributes:
        input: the image.
        output: the label file; None when it failed.
        status: ``"done"``, ``"skipped"`` (it had been done before) or ``"failed"``.
        error: why it failed, else "".
        report: how it was painted; None when it was not, as where only an overlay was made of finished labels.
        note: what is to be said of one that was not painted, else "".
    """

    input: str
    output: str | None
    status: Literal["done", "skipped", "failed"]
    error: str = ""
    report: PaintReport | None = None
    note: str = ""

    def __str__(self) -> str:
        if self.status == "failed":
            return f"{self.input}: failed: {self.error}"
        before = "done before" if self.status == "skipped" else "an overlay of the labels that were there"
        note = f"; {self.note}" if self.note else ""
        return f"{self.input} -> {self.output}: {self.report or before}{note}"


@dataclass(frozen=True)
class Predictions:
    """What became of all inputs, in their order. Prints itself.

    Attributes:
        items: one an input.
        notes: a line for each backend that could not be used.
    """

    items: tuple[Prediction, ...]
    notes: tuple[str, ...] = ()

    @property
    def failed(self) -> tuple[Prediction, ...]:
        return tuple(item for item in self.items if item.status == "failed")

    def __str__(self) -> str:
        counts = Counter(item.status for item in self.items)
        words = [f"{counts[status]} {status}" for status in ("done", "skipped", "failed") if counts[status]]
        number = "1 image" if len(self.items) == 1 else f"{len(self.items)} images"
        return "\n".join([*map(str, self.items), *self.notes, f"{number}: {', '.join(words)}"])

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


@plain_torch()
def predict(
    model: Model | Holder | Path | str | Engine,
    inputs: Path | str | Sequence[Path | str],
    out_dir: Path | str,
    *,
    overlay: bool = False,
    probabilities: bool = False,
    overwrite: bool = False,
    precision: Precision = "auto",
    tile: int | tuple[int, int] | None = None,
    batch: int = 1,
    device: str = "auto",
    backend: str = "auto",
    level: int = 0,
    fill_missing: bool = False,
    cluster: str | None = None,
    progress: Progress | None = None,
) -> Predictions:
    """Paints files, folders and globs into ``out_dir``. A bad image is reported, and the others are done.

    What is there already from the same model and image is skipped, and keeps its place. No painting is painted. A label
    file holds class ids, and 255 where the image has no data. Large images are written as they grow and go on where an
    interrupted run stopped. No image among the inputs is overwritten.

    Args:
        model: a model, its file or run folder, a ``Segmenter``, or a prepared engine.
        inputs: images, Zarr folders, folders of images (searched to their depths; of a
            data folder its images, not the masks), or globs such as ``"cells/*.tif"``.
        out_dir: made if needed. Inputs of equal names are kept apart by their folders' names, or by their endings.
        overlay: also write ``NAME.overlay.png``: labels over the image, of large images every second, third ... pixel.
        probabilities: also write ``NAME.probabilities.tif`` (or ``.zarr``): uint8 shares of 255, one plane a class.
        overwrite: paint again what is there.
        precision, device, backend: as for :class:`Engine`.
        tile, batch: as for :func:`paint`.
        level: of pyramids (slides, OME-TIFF, OME-Zarr, GeoTIFF with overviews): 0 is the largest, 1 the next smaller
            one ...; what is painted has that level's size, and its place on Earth or its pixel size in OME-Zarr.
        fill_missing: Zarr chunks that are not there mean the fill value.
        cluster: ``"local:4"`` for four worker processes, or the address of a Dask scheduler (``"tcp://..."``) whose
            workers see the same files; the model must then be a file. Needs the extra ``cluster``.

    Raises:
        DataError: no image among the inputs.
        ClusterError: workers that don't answer, or that all died.
        OutputError: ``out_dir`` can't be written, or takes no more. (One place in it that can't fails its image.)
        ModelError: the model's file can't be used.
        PlanError: a precision, device or backend that is not to be had here; a level, tile or batch that is none.
    """
    out_dir = Path(out_dir)
    runs = backend if cluster is None else _for_workers(backend)
    how = Reading(level, fill_missing)
    options = Options(overlay, probabilities, tile, batch, overwrite)
    ledger = Ledger(out_dir, overwrite)
    found = find_inputs(inputs, ledger)
    engine = (
        model
        if isinstance(model, Engine)
        else Engine(as_model(model), precision, device, backend=runs, images=len(found))
    )
    known = _known(engine, level, engine.asked if cluster is None else backend)
    images = frozenset(Path(os.path.realpath(path)) for path, _ in found)  # resolve() fails on links in a circle
    with ExitStack() as held, nullcontext() if cluster is None else _workers(cluster, model, engine, device) as workers:
        job = _Job(engine, known, options, ledger, images, how, progress, workers, held)
        return Predictions(tuple(job.predictions((path, out_dir / stem) for path, stem in found)), engine.notes)


def find_inputs(inputs: Path | str | Sequence[Path | str], ledger: Ledger | None = None) -> list[tuple[Path, Path]]:
    """All images that ``inputs`` name, each with the place of its painting relative to the output folder, no ending.

    Paintings are passed over, unless they are named themselves. An image that is named twice counts once. One of which
    there is a painting keeps its place, if the ledger of the output folder is given.

    Raises:
        DataError: an input that is not there, or no image at all.
    """
    given = [inputs] if isinstance(inputs, str | Path) else list(inputs)
    found: dict[Path, tuple[Path, Path]] = {}
    for one in given:
        for path, stem in _expand(Path(one)):
            found.setdefault(whole_path(path), (path, stem))
    if not found:
        raise DataError(
            f"no image in {', '.join(map(str, given)) or 'no input'} (paintings of earlier runs are passed over)",
            "images, folders or globs",
            f"images are files that end with {', '.join(sorted(IMAGE_SUFFIXES))}, and folders with .zarr",
        )
    return _apart(found, ledger)


def _expand(one: Path) -> list[tuple[Path, Path]]:
    if one.is_dir() and not is_image(one):
        return [(path, bare(path.relative_to(one))) for path in without_paintings(find_images(one))]
    check_name(one)
    if one.exists() or one.is_symlink():
        return [(one, bare(Path(one.name)))]
    matches = sorted(Path(match) for match in glob.glob(str(one), recursive=True))  # noqa: PTH207 (of absolute ones too)
    if not matches:
        raise absent(one)
    usable = without_paintings(match for match in matches if is_image(match) or match.is_dir())
    return [pair for match in usable for pair in _expand(match)]


def _apart(found: dict[Path, tuple[Path, Path]], ledger: Ledger | None) -> list[tuple[Path, Path]]:
    """Gives equal names different places: first by their folder below what all inputs share, then by their ending.

    Of the places that an image may get so, it keeps the one where a painting of it is, whatever came beside it since.
    """
    shared = Path(os.path.commonpath([image.parent for image in found]))
    kept: dict[Path, Path] = {}
    stems: dict[Path, Path] = {}
    taken: set[Path] = set()
    for image, (path, stem) in found.items():
        stems[image], longer = stem, bare(image.relative_to(shared))
        places = stem, longer, stem.with_name(path.name), longer.with_name(path.name)
        place = None if ledger is None else ledger.place_of(image, places)
        if place is not None and place not in taken:
            kept[image] = place
            taken.add(place)
    stems |= kept
    counts = Counter(stems.values())
    stems |= {image: bare(image.relative_to(shared)) for image in found if counts[stems[image]] > 1} | kept
    counts = Counter(stems.values())
    stems |= {image: stem.with_name(image.name) for image, stem in stems.items() if counts[stem] > 1} | kept
    return [(path, stems[image]) for image, (path, _) in found.items()]


@dataclass(frozen=True)
class _Job:
    """What is the same for all images of one call."""

    engine: Engine
    known: Work
    options: Options
    ledger: Ledger
    images: frozenset[Path]
    how: Reading
    progress: Progress | None
    workers: Workers | None
    held: ExitStack
    """Places of small images that workers paint, where the call ends before they do."""
    places: dict[Path, str] = field(default_factory=dict)
    """Where files go, and of which image each is."""
    left: dict[Path, list[Path]] = field(default_factory=dict)
    """What killed runs were writing, in each folder."""

    def predictions(self, images: Iterable[tuple[Path, Path]]) -> Iterator[Prediction]:
        """One after the other; with workers a few small ones are always on their way."""
        waiting = deque[Callable[[], Prediction]]()
        for path, stem in images:
            while len(waiting) >= (1 if self.workers is None else self.workers.ahead):
                yield waiting.popleft()()
            waiting.append(self._start(path, stem))
        for end in waiting:
            yield end()

    def _start(self, path: Path, stem: Path) -> Callable[[], Prediction]:
        """Begins an image, if others can do it meanwhile; what is returned ends it."""
        if self.workers is None:
            return lambda: self._guarded(path, lambda: self._paint(path, stem))
        place = self.held.enter_context(ExitStack())
        try:
            source, target, work = self._look(path, stem)
            source.close()
            if is_small(source) and self._lacks_labels(target, work):
                place.enter_context(self._holding(target, small=True))
                if self._lacks_labels(target, work):
                    run = renamed(target.partial)
                    self.ledger.begin(target, self.options, work, run)
                    coming = self.workers.submit(path, target, self.options, work, self.how, run)

                    def painted() -> PaintReport:
                        report = coming()
                        self.ledger.arrive(target, run, target.made)
                        return report

                    return lambda: self._guarded(path, lambda: self._painted(path, target, run, painted), place)
        except _OF_ONE_IMAGE as error:
            place.close()
            failed = Prediction(str(path), None, "failed", str(error))
            return lambda: failed
        place.close()
        return lambda: self._guarded(path, lambda: self._paint(path, stem))

    def _lacks_labels(self, target: Names, work: Work) -> bool:
        """Or what only the network can make: all but an overlay."""
        return bool(self.ledger.lacks(target, self.options, work) - {"overlay"})

    @contextmanager
    def _holding(self, target: Names, *, small: bool) -> Iterator[None]:
        """Keeps the place of a small image's labels, and of all that goes with labels (see `Names.sides`).

        Another process may have painted there meanwhile, with another model perhaps.
        """
        shared = target.partial.parent == self.ledger.folder
        with ExitStack() as held:
            if small:
                held.enter_context(in_turn(target.partial, shared=shared))
            if target.beside(self.options):
                held.enter_context((in_turn if small else claimed)(target.sides, shared=shared))
            self.ledger.renew()
            yield

    def _guarded(self, path: Path, end: Callable[[], Prediction], place: ExitStack | None = None) -> Prediction:
        try:
            with place or nullcontext():
                return end()
        except _OF_ONE_IMAGE as error:
            return Prediction(str(path), None, "failed", str(error))

    def _look(self, path: Path, stem: Path) -> tuple[Source, Names, Work]:
        state = state_of(path) if is_there(path) else (0, 0)  # who opens it says what is wrong
        source = open_image(path, self.how)
        try:
            target = names(stem, path, source.size)
            self._take(path, target)
            return source, target, work_of(self.known, path, state, source, self.options)
        except BaseException:
            source.close()
            raise

    def _take(self, path: Path, target: Names) -> None:
        """Two paintings never share a place, and none takes that of an image."""
        if any(self._is_image(place) for place in (target.labels, target.overlay, target.probabilities)):
            raise TakenError(
                f"the painting {target.labels} would take the place of an image that is to be painted",
                "a place of its own",
                "choose another folder with -o",
            )
        image = str(whole_path(path))
        for place in (target.labels, *target.beside(self.options).values()):
            other = self.places.setdefault(place, image)
            if other != image:
                raise TakenError(
                    f"{place} would be painted from {path}, and from {other} too",
                    "a place of its own for each",
                    "paint one of them into another folder with -o",
                )

    def _is_image(self, place: Path) -> bool:
        """Whether it is one of the images, or inside a Zarr folder that is one."""
        whole = place.resolve()
        return not self.images.isdisjoint((whole, *whole.parents))

    def _paint(self, path: Path, stem: Path) -> Prediction:
        source, target, work = self._look(path, stem)
        try:
            if not self.ledger.lacks(target, self.options, work):
                return self._made(path, source, target, work)
            with self._holding(target, small=is_small(source)):
                return self._made(path, source, target, work)
        finally:
            source.close()

    def _made(self, path: Path, source: Source, target: Names, work: Work) -> Prediction:
        lacking = self.ledger.lacks(target, self.options, work)
        if not lacking:
            stays = discard(target.partial, lambda: self._is_spent(target, work))
            discard(target.sides, lambda: False)
            self._sweep(target)
            note = f"{target.partial} holds another painting that was interrupted, and stays as it is" if stays else ""
            return Prediction(str(path), str(target.labels), "skipped", note=note)
        ready, mark = fitted(source, self.engine.model.normalisation.channels), uuid4().hex
        if lacking == {"overlay"}:
            self.ledger.add(target, self.options, mark)
            self._settled(target, mark, lambda: lay_over(ready, target, self.engine.model.classes))
            return Prediction(str(path), str(target.labels), "done")
        painter = None if self.workers is None else self.workers.painter(path, self.how, work)
        return self._painted(path, target, mark, lambda: paint_to_files(
            self.engine, ready, target, self.options, work, _reporter(self.progress, str(path)), painter=painter,
            begins=lambda how: self._begin(target, work, how, mark),
            arrives=lambda made: self.ledger.arrive(target, mark, made, durable=not is_small(source)),
        ))  # fmt: skip

    def _begin(self, target: Names, work: Work, how: str, mark: str) -> None:
        """Notes in the ledger that a painting begins whose place is held, and whether int8 paints it.

        Not before: who is refused then has begun nothing, and what another has finished meanwhile is known.
        """
        self.ledger.renew()
        self.ledger.lacks(target, self.options, work)
        int8 = {"precision": "int8"} if how.endswith(" int8") else {}
        self.ledger.begin(target, self.options, work | int8, mark)

    def _is_spent(self, target: Names, work: Work) -> bool:
        """Whether the boxes in a partial folder are those of the painting that is there.

        The same model may have begun once more, to paint it again or with more beside it.
        """
        return is_same(Journal.work(target.partial / JOURNAL), work) and self.ledger.began_last(target)

    def _painted(self, path: Path, target: Names, mark: str, paint: Callable[[], PaintReport]) -> Prediction:
        return Prediction(str(path), str(target.labels), "done", report=self._settled(target, mark, paint))

    def _settled(self, target: Names, mark: str, make: Callable[[], Made]) -> Made:
        """What is made of a painting whose line the ledger has by this mark, or gets once its place is held."""
        try:
            made = make()
        except _OF_ONE_IMAGE:
            self.ledger.fail(target, mark)
            raise
        self.ledger.settle(target)
        self._sweep(target)
        return made

    def _sweep(self, target: Names) -> None:
        """Removes what killed runs were writing of a painting that is there."""
        folder = target.labels.parent
        if folder not in self.left:  # looked through once, however many paintings go there
            self.left[folder] = [path for path in left_behind(folder / "*") if is_abandoned(path)]
        own = tuple(f".{shortened(file.name)}." for file in target.files)
        for path in self.left[folder]:
            if path.name.startswith(own):
                with suppress(OSError):
                    path.unlink(missing_ok=True)


def _for_workers(backend: str) -> str:
    """Workers on machines that differ would choose differently, and one image be painted in two ways."""
    if backend not in ("auto", EAGER.name):
        raise PlanError(f"backend is {backend!r} on a cluster", "auto or eager", "leave it out: workers use PyTorch")
    return EAGER.name


def _workers(cluster: str, model: object, engine: Engine, device: str) -> Workers:
    """Workers that compute in what this machine does: one image is not painted in two precisions."""
    from whatwhere.paint.cluster import Workers

    if own_config(engine.model.network) is None:
        raise ModelError(
            f"{name_of(engine.model.network)} on a cluster", "a network of whatwhere", "leave out the cluster"
        )
    if not isinstance(model, str | Path):
        raise ModelError("a model in memory", "a model file that all workers can read", "save it and give its path")
    return Workers(cluster, Path(model), engine.identity, cast("Precision", engine.job.precision), device)


_OF_ONE_IMAGE = (DataError, ModelError, FieldError, PlanError, PlaceError)
"""Errors that concern one image: the others are painted all the same."""


def _known(engine: Engine, level: int, asked: str) -> Work:
    """What makes paintings of one image different: weights and what they mean (as one hash), precision ..."""
    return {
        "model": engine.identity, "precision": engine.job.precision, "int8": not engine.insisted, "backend": asked,
        "level": level,
    }  # fmt: skip


def _reporter(progress: Progress | None, name: str) -> Callable[[int, int], None] | None:
    if progress is None:
        return None
    report = progress
    return lambda done, total: report(name, done, total)
