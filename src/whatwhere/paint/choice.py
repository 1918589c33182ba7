"""Which backend paints a job: those installed are started, compared with float32, timed for a moment, remembered.

A start costs seconds, so it is tried only where a job is long enough to win them back, and what was measured is kept
for the next run. Whatever another library raises makes a line, not an error: PyTorch itself can always go on.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor
from torch.nn import functional as F

from whatwhere.errors import in_a_line, is_out_of_memory
from whatwhere.paint.backends import EAGER, Backend, Job, Run
from whatwhere.paint.verdicts import Verdict, Verdicts
from whatwhere.paint.verify import agreement, difference

__all__ = ["Choice", "Scene", "choose", "insist", "middle"]

_REPAID = 4.0
"""What is left of a job must be so many times the expected start of a backend that was never measured."""

_SIDES = 256, 1024
"""Tiles are compared on at most so many pixels a side, and timed on at most so many, where any shape will do."""

_ROUNDS = 5
_SHARE = 0.02
"""At most so many rounds of timing, and no more of them once this share of the job has gone into it."""

_LACKING = ("NotImplemented", "Unsupported", "OpConversion")
"""In the names of what PyTorch, its exporters, ONNX Runtime and OpenVINO raise for an operator that they don't have."""


@dataclass(frozen=True)
class Scene:
    """A job and what is needed to judge who does it.

    Attributes:
        job: the network, its precision and device.
        eager: PyTorch's run of it, which is ready.
        reference: the network as given, in float32.
        tile: ``(1, C, h, w)`` network input of a tile of the user's own image, on the job's device.
        period: sizes are multiples of this.
        pixels: how many will pass through the network in all.
        key: names the network, shape, machine and versions.
    """

    job: Job
    eager: Run
    reference: Run
    tile: Tensor
    period: tuple[int, int]
    pixels: int
    key: str

    def crop(self, *sides: int) -> Tensor:
        """See `middle`."""
        return middle(self.tile, self.period, *sides)


def middle(tile: Tensor, period: tuple[int, int], *sides: int) -> Tensor:
    """The middle of a tile, with at most so many rows and columns (rounded up to the period)."""
    cut = tile
    for dim, side, step in zip((2, 3), sides, period):
        size = cut.shape[dim]
        length = min(-(-side // step) * step, size)
        cut = cut.narrow(dim, (size - length) // 2, length)
    missing = [-n % p for n, p in zip(cut.shape[2:], period)]
    return F.pad(cut, (0, missing[1], 0, missing[0])).contiguous()


@dataclass(frozen=True)
class Choice:
    """Who paints.

    Attributes:
        backend: its name.
        precision: what it computes in.
        run: the network by it.
        notes: a line for each backend that could not be used.
        why: why that precision, where it is not the machine's; else "".
    """

    backend: str
    precision: str
    run: Run
    notes: tuple[str, ...] = ()
    why: str = ""


@dataclass
class _Search:
    """What is known while one is chosen."""

    scene: Scene
    known: dict[str, Verdict]  # before
    verdicts: dict[str, Verdict]
    best: Choice
    notes: list[str] = field(default_factory=list)

    def estimate(self, name: str) -> float:
        """Seconds that the rest of the job takes with a backend that is measured and started."""
        return self.verdicts[name].pace * self.scene.pixels

    def refuse(self, backend: Backend, error: _RefusedError) -> None:
        """Says why, and remembers it if it lasts."""
        self.notes.append(f"{backend.name} is not used: {error}")
        if error.lasting:
            self.verdicts[backend.name] = Verdict(0.0, 0.0, str(error))


class _RefusedError(Exception):
    """A backend that can't be used, and why."""

    def __init__(self, reason: str, lasting: bool) -> None:
        super().__init__(reason)
        self.lasting = lasting


def choose(scene: Scene, backends: Sequence[Backend], store: Verdicts) -> Choice:
    """The backend that ends the job soonest, its start included.

    Args:
        scene: the job.
        backends: those installed that run on its device, without PyTorch itself.
        store: what was measured before; what is measured now is added.
    """
    search = _begun(scene, store)
    if not _timed(search, EAGER):
        try:
            pace = _paces({EAGER.name: scene.eager}, scene.crop(512, 512), 0.0)[EAGER.name]
        except Exception as error:
            if is_out_of_memory(error):
                raise
            return search.best  # a network for another size: painting tells, if it does not take the tile itself
        search.verdicts[EAGER.name] = Verdict(0.0, pace)
    timed = sorted((b for b in backends if _timed(search, b)), key=lambda b: _with_start(search, b))
    for backend in timed:
        if _with_start(search, backend) < search.estimate(search.best.backend):
            _take(search, backend)
    for backend in backends:
        left = search.estimate(search.best.backend)
        known_of = search.verdicts.get(backend.name)
        if backend in timed:
            continue
        if known_of is not None and known_of.refused:
            search.refuse(backend, _RefusedError(known_of.refused, lasting=True))
        elif left > max(backend.worth, _REPAID * backend.start):
            _try(search, backend)
    return _ended(search, store)


def insist(scene: Scene, backend: Backend, store: Verdicts) -> Choice:
    """The backend that was asked for; PyTorch itself, with a line, if it fails or computes something else."""
    search = _begun(scene, store)
    before = search.verdicts.get(backend.name)
    known = before is not None and not before.refused
    try:
        run, seconds = _started(scene, backend, known=known)
    except _RefusedError as error:
        search.refuse(backend, error)
    else:
        search.best = _chosen(scene, backend, run)
        if not known:
            search.verdicts[backend.name] = Verdict(seconds, 0.0)
    return _ended(search, store)


def _begun(scene: Scene, store: Verdicts) -> _Search:
    known = store.read(scene.key)
    return _Search(scene, known, dict(known), Choice(EAGER.name, scene.job.precision, scene.eager))


def _ended(search: _Search, store: Verdicts) -> Choice:
    """What was found; what is new is remembered, unless it is PyTorch's pace alone."""
    if search.verdicts.keys() - {EAGER.name} and search.verdicts != search.known:
        store.write(search.scene.key, search.verdicts)
    return replace(search.best, notes=tuple(search.notes))


def _timed(search: _Search, backend: Backend) -> bool:
    verdict = search.verdicts.get(backend.name)
    return verdict is not None and not verdict.refused and verdict.pace > 0


def _with_start(search: _Search, backend: Backend) -> float:
    return search.verdicts[backend.name].start + search.estimate(backend.name)


def _take(search: _Search, backend: Backend) -> None:
    """Starts a backend that was verified and timed by an earlier run."""
    try:
        run, _ = _started(search.scene, backend, known=True)
    except _RefusedError as error:
        search.refuse(backend, error)
    else:
        search.best = _chosen(search.scene, backend, run)


def _try(search: _Search, backend: Backend) -> None:
    """Starts, verifies and times a backend that is new here, in turn with the best so far."""
    best = search.best
    budget = _SHARE * search.estimate(best.backend)
    try:
        run, start = _started(search.scene, backend, known=False)
        paces = _compared(search.scene, best, backend, run, budget)
    except _RefusedError as error:
        search.refuse(backend, error)
        return
    search.verdicts[best.backend] = replace(search.verdicts[best.backend], pace=paces[best.backend])
    search.verdicts[backend.name] = Verdict(start, paces[backend.name])
    if paces[backend.name] < paces[best.backend]:
        search.best = _chosen(search.scene, backend, run)


def _compared(scene: Scene, best: Choice, backend: Backend, run: Run, budget: float) -> dict[str, float]:
    """Seconds a pixel of the best so far and of a new one, which must go on as it began or is refused."""
    try:
        return _paces({best.backend: best.run, backend.name: run}, _timing_tile(scene, backend), budget)
    except Exception as error:
        raise _RefusedError(in_a_line(error), lasting=False) from error


def _chosen(scene: Scene, backend: Backend, run: Run) -> Choice:
    return Choice(backend.name, _precision(scene, backend), run, why=backend.why)


def _timing_tile(scene: Scene, backend: Backend) -> Tensor:
    """The tile itself for a backend that would have to start once more for it."""
    return scene.crop(_SIDES[1], _SIDES[1]) if backend.any_shape else scene.tile


def _precision(scene: Scene, backend: Backend) -> str:
    return scene.job.precision if scene.job.precision in backend.precisions else backend.precisions[0]


def _started(scene: Scene, backend: Backend, *, known: bool) -> tuple[Run, float]:
    """A backend's run of the job and the seconds until its first result. ``_RefusedError`` if it fails or differs.

    One that is known to compute the same is not compared again; one that may compute something else is, as how much
    that changes depends on the pixels: what is found then counts for these only.
    """
    precision = _precision(scene, backend)
    begun = time.perf_counter()
    try:
        run = backend.prepare(replace(scene.job, precision=precision))
        with torch.inference_mode():
            run(_timing_tile(scene, backend))
        seconds = time.perf_counter() - begun
        differs = "" if known and backend.differs is None else _difference(scene, backend, run, precision)
    except Exception as error:  # whatever another library raises: it is not used, and a line says why
        raise _RefusedError(in_a_line(error), _lacks_an_operator(error)) from error
    if differs:
        raise _RefusedError(differs, lasting=backend.differs is None)
    return run, seconds


def _lacks_an_operator(error: BaseException | None) -> bool:
    """Whether it says so, or what brought it about; all else may be mended: a compiler, a library, a full disk."""
    while error is not None:
        if any(words in type(error).__name__ for words in _LACKING):
            return True
        error = getattr(error, "inner_exception", None) or error.__cause__  # the first is torch.compile's
    return False


def _difference(scene: Scene, backend: Backend, run: Run, precision: str) -> str:
    """In words, where the results are not float32's; "" where they are. On a tile, and on one of another shape."""
    large, small = _SIDES[0], _SIDES[0] // 2
    pieces = [scene.crop(large, large), scene.crop(small, large)] if backend.any_shape else [scene.tile]
    for piece in (*pieces, pieces[0].flip(-1)):  # once more in a shape that was seen, for what keeps its answers
        with torch.inference_mode():
            reference, logits, usual = scene.reference(piece), run(piece), 0.0
            if precision != "float32" and backend.differs is None:
                usual = difference(reference, scene.eager(piece).float())
        if backend.differs is not None:
            wrong = backend.differs(reference, logits)
        else:
            found = agreement(reference, logits, precision, usual=usual)
            wrong = "" if found.passed else str(found)
        if wrong:
            return wrong
    return ""


def _paces(runs: dict[str, Run], tile: Tensor, budget: float) -> dict[str, float]:
    """Seconds a pixel of each, in turn: after one call each, at least one round, and more while the budget lasts."""
    seconds: dict[str, list[float]] = {name: [] for name in runs}
    with torch.inference_mode():
        for run in runs.values():
            run(tile)
        _wait_for(tile.device)
        begun = time.perf_counter()
        for number in range(_ROUNDS):
            if number and time.perf_counter() - begun > budget:
                break
            for name, run in runs.items():
                start = time.perf_counter()
                run(tile)
                _wait_for(tile.device)
                seconds[name].append(time.perf_counter() - start)
    pixels = tile.shape[-2] * tile.shape[-1]
    return {name: statistics.median(values) / pixels for name, values in seconds.items()}


def _wait_for(device: torch.device) -> None:
    """Until a GPU has done what it was given."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
