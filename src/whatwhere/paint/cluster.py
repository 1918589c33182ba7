"""The same tiles on many machines: Dask workers that each prepare the model once and write their own chunks.

A tile is one task, and its chunks of the Zarr output belong to it alone; what a killed worker had not finished is done
by another. Needs the extra ``cluster`` (dask.distributed); scheduler and workers must see the same files.
"""

from __future__ import annotations

import logging
import signal
import socket
import threading
import time
from collections.abc import Callable, Generator, Iterator
from contextlib import closing, contextmanager, suppress
from functools import partial
from multiprocessing import resource_tracker
from pathlib import Path
from queue import Empty, Queue
from types import TracebackType
from typing import Any

import numpy as np
import torch
from torch import Tensor

from whatwhere.errors import ClusterError, DataError, ModelError, WhatwhereError, in_a_line, is_out_of_memory
from whatwhere.network import Model, load_model
from whatwhere.network.machine import Precision
from whatwhere.paint.backends import EAGER
from whatwhere.paint.claims import TakenError, run_in, taken_away
from whatwhere.paint.engine import Engine
from whatwhere.paint.files import fitted, open_image
from whatwhere.paint.outputs import Names, Options, Painter, paint_to_files
from whatwhere.paint.paint import PaintReport, paint_source, report_of, with_room
from whatwhere.paint.scheme import Scheme, scheme
from whatwhere.paint.sources import Reading, Source, extra
from whatwhere.paint.stores import JournaledSink, ZarrStore
from whatwhere.paint.tiles import Tile, Tiling
from whatwhere.paint.work import Progress, finish, read_tile
from whatwhere.writing import is_there

__all__ = ["Workers"]

Recipe = tuple[str, str, Precision, str]
"""The model's file and the identity of what is in it, precision, and device."""

Place = tuple[Path, Reading, Path, dict[str, Any], str]
"""The image's file, whether what it lacks is filled, the output, what makes two paintings the same, and whose run.

No link is followed: what kind an image is says its name, and where it lies on Earth say files beside that.
"""

_PATIENCE = 5
"""Seconds to wait for a scheduler, and then for its first worker."""

_LAST = 60.0
_MOMENT = 0.05
"""Seconds to wait at most for tiles that nobody wants any more, and between looks at them."""

_ALONE = 60.0
_LOOK = 5.0
"""Seconds to wait without any worker, as new ones may come; and for a tile, before it is asked if there are workers."""

_SHOWN = 5.0
"""Seconds in which a drive of a network shows what another machine has made."""


_LOG = logging.getLogger("distributed.client")
"""In which Dask tells of a lost scheduler by a traceback, before its error says it here in one line."""


def _is_fatal(record: logging.LogRecord) -> bool:
    return record.levelno > logging.ERROR


class Workers:
    """Dask workers that paint; a context that ends local ones.

    Args:
        address: ``"local:N"`` starts N processes of one thread each; else the address of a scheduler.
        model: a model file that all workers can read.
        identity: of the model that is in it: workers outlive models, and are to paint with none but this.
        precision, device: as for :class:`Engine`.

    Raises:
        ClusterError: nobody answers at the address, or there are no workers.
    """

    def __init__(
        self, address: str, model: Path, identity: str, precision: Precision = "auto", device: str = "auto"
    ) -> None:
        self._distributed = extra("distributed", "cluster", f"painting on {address!r} needs Dask")
        self._recipe: Recipe = (str(model.resolve()), identity, precision, device)
        self._local: Any = None
        if address.startswith("local:"):
            count = address.removeprefix("local:")
            if not count.isdecimal() or int(count) < 1:
                raise ClusterError(f"cluster is {address!r}", "local:N with N at least 1, or tcp://host:port", "")
            with _uninterrupted():
                self._local = self._distributed.LocalCluster(
                    n_workers=int(count), threads_per_worker=1, processes=True, dashboard_address="127.0.0.1:0",
                    silence_logs=logging.CRITICAL,
                )  # fmt: skip
        _LOG.addFilter(_is_fatal)
        try:
            self.client = self._distributed.Client(self._local or address, timeout=_PATIENCE, set_as_default=False)
            self.client.wait_for_workers(1, timeout=60 if self._local else _PATIENCE)
        except Exception as error:  # by the address: unknown schemes, certificates that lack
            self.close()
            raise ClusterError(
                f"no workers at {address} ({in_a_line(error)})",
                "the address of a running Dask scheduler with at least one worker",
                "start `dask scheduler` and `dask worker`, or use local:N",
            ) from error

    def __enter__(self) -> Workers:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        for part in (getattr(self, "client", None), self._local):
            if part is not None:
                part.close()
        _LOG.removeFilter(_is_fatal)

    @property
    def ahead(self) -> int:
        """How many small images to send before the first is waited for: as many as keep all threads at work."""
        with self._told():
            threads: dict[str, int] = self.client.nthreads()
        return 2 + 2 * sum(threads.values())

    def submit(
        self, path: Path, target: Names, options: Options, work: dict[str, Any], how: Reading, run: str
    ) -> Callable[[], PaintReport]:
        """Sends a small image to a worker; what is returned waits for it. ``run`` names who holds its place.

        The labels it leaves in the partial folder: who has the ledger puts them at their place.
        """
        place = (path.absolute(), how, target.partial.absolute(), work, run)
        finished: Queue[Any] = Queue()
        self._submit(_paint_file, self._recipe, place, _absolute(target), options).add_done_callback(finished.put)

        def result() -> PaintReport:
            with _there(path, target.partial):
                report: PaintReport = self._result(self._next(finished))
                return report

        return result

    def _next(self, finished: Queue[Any]) -> Any:
        """The task that is finished next; an error where there are no workers, or no scheduler, any more."""
        seen = time.monotonic()
        while True:
            with suppress(Empty):
                return finished.get(timeout=_LOOK)
            with self._told():
                if self.client.status == "running" and self.client.nthreads():
                    seen = time.monotonic()
            if time.monotonic() > seen + _ALONE:
                raise ClusterError(
                    f"no workers are left, for {_ALONE:.0f} s",
                    "workers that stay alive",
                    "start some and run again: finished tiles are kept",
                )

    def _submit(self, function: Callable[..., Any], *arguments: Any) -> Any:
        """Once more where a drive or a connection failed for a moment."""
        return self.client.submit(function, *arguments, pure=False, retries=1)

    def painter(self, path: Path, how: Reading, work: dict[str, Any]) -> Painter:
        """Paints the large image at ``path`` tile by tile on all workers, into a sink with a Zarr store."""

        def paint(
            engine: Engine, source: Source, sink: JournaledSink, *, probabilities: bool, tile: Any, batch: int,
            align: int, progress: Progress | None,
        ) -> PaintReport:  # fmt: skip
            start = time.perf_counter()
            runs = f"{EAGER.name} {engine.precision}"  # as the workers do it
            sink.refuse_all_but(runs)
            schemes = partial(scheme, engine, source.size, tile=tile, align=align, probabilities=probabilities)
            if schemes().blended:  # bands depend on each other
                return paint_source(
                    engine, source, sink, probabilities=probabilities, tile=tile, batch=batch, align=align,
                    progress=progress,
                )  # fmt: skip

            def attempt(plan: Scheme) -> None:
                done = sink.begin(plan, runs)
                place = (path.absolute(), how, sink.folder.absolute(), work, sink.run)
                with _there(path, sink.folder), closing(self._tiles(place, plan.tiling, done)) as tiles:
                    for count, index in enumerate(tiles, len(done) + 1):
                        sink.note(index)
                        if progress:
                            progress(count, len(plan.tiling))

            plan, notes = with_room(schemes, attempt)
            count = len(self.client.nthreads())
            return report_of(engine, plan, time.perf_counter() - start, [*notes, f"on {count} workers"])

        return paint

    def _tiles(self, place: Place, tiling: Tiling, done: frozenset[int]) -> Generator[int]:
        """Numbers of tiles as workers finish them; when it is closed, no worker writes any more."""
        todo = [tile for tile in tiling if tile.index not in done]
        futures = [self._submit(_paint_tile, self._recipe, place, tiling, tile) for tile in todo]
        finished: Queue[Any] = Queue()
        for future in futures:
            future.add_done_callback(finished.put)
        try:
            for _ in futures:
                yield self._result(self._next(finished))
        finally:
            self._stop(futures)

    def _stop(self, futures: list[Any]) -> None:
        """Takes back what is not begun, and waits for what is: it writes into a folder that may be emptied next."""
        waiting, last = {future.key for future in futures if not future.done()}, time.monotonic() + _LAST
        self.client.cancel(futures)
        with suppress(OSError, RuntimeError):  # of a scheduler that is lost, which was told where tiles came from
            while self.client.status == "running" and waiting & self._at_work() and time.monotonic() < last:
                time.sleep(_MOMENT)

    def _at_work(self) -> set[str]:
        """What workers are to do next or are in the middle of; of that the scheduler forgets what was taken back."""
        following, begun = self.client.processing(), self.client.run(_begun, on_error="ignore")
        return {key for keys in (*following.values(), *begun.values()) for key in keys}

    def _result(self, future: Any) -> Any:
        with self._told():
            return future.result()

    @contextmanager
    def _told(self) -> Iterator[None]:
        """In which whatever Dask or a lost connection raises becomes an error that says it in one line."""
        try:
            yield
        except WhatwhereError:
            raise
        except Exception as error:
            if is_out_of_memory(error):
                raise
            raise ClusterError(
                f"the workers gave up ({in_a_line(error)})",
                "workers that stay alive and see the same files",
                "look at their logs, then run again: finished tiles are kept",
            ) from error


@contextmanager
def _uninterrupted() -> Iterator[None]:
    """In which processes are started that Ctrl-C does not reach: each would tell of it, and who started them ends them.

    It waits for the end of the block here.
    """
    if not hasattr(signal, "pthread_sigmask"):  # on Windows
        yield
        return
    resource_tracker.ensure_running()  # whoever is first to start it lets Ctrl-C through again
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


@contextmanager
def _there(image: Path, folder: Path) -> Iterator[None]:
    """In which a place that workers do not see is told of as what it is where it is nowhere any more."""
    try:
        yield
    except ClusterError as error:
        if not is_there(image):
            raise DataError(f"{image} is not there any more", "an image that stays until it is painted", "") from error
        if not is_there(folder):
            raise taken_away(folder) from error
        raise


def _begun(dask_worker: Any) -> list[str]:
    """On a worker, by whose name Dask hands it over: what its threads are in the middle of."""
    return [task.key for task in dask_worker.state.all_running_tasks]


def _absolute(target: Names) -> Names:
    return Names(target.labels.absolute(), target.overlay.absolute(), target.probabilities.absolute())


def _shown(path: Path) -> Path:
    """On a worker: a place that it sees as well, if perhaps a moment later than who made it."""
    last = time.monotonic() + _SHOWN
    while not is_there(path):
        if time.monotonic() > last:
            raise ClusterError(
                f"the worker on {socket.gethostname()} does not see {path}",
                "workers that see the same files at the same places",
                "mount what holds it there, or leave that worker out",
            )
        time.sleep(_MOMENT)
    return path


def _check_wanted(folder: Path, run: str) -> None:
    """On a worker: whether a place is still held for the run that it works for; a killed one's may be another's now."""
    if run_in(_shown(folder)) != run:
        raise TakenError(f"{folder} is painted into by another run by now", "the run that asked for it", "")


def _paint_file(recipe: Recipe, place: Place, target: Names, options: Options) -> PaintReport:
    """On a worker: one small image from file to files."""
    path, how, folder, work, run = place
    _check_wanted(folder, run)
    engine = _bench(recipe).engine
    source = open_image(_shown(path), how)
    try:
        return paint_to_files(
            engine, fitted(source, engine.model.normalisation.channels), target, options, work,
            arrives=lambda _: None, still=lambda: _check_wanted(folder, run),
        )  # fmt: skip
    finally:
        source.close()


def _paint_tile(recipe: Recipe, place: Place, tiling: Tiling, tile: Tile) -> int:
    """On a worker: one tile from the image's file to its chunks of the output. Returns the tile's number."""
    path, how, folder, work, run = place
    _check_wanted(folder, run)
    probabilities = bool(work["probabilities"])
    bench = _bench(recipe)
    with bench.lock:
        source = bench.source(path, how, work)
        tensor, valid = read_tile(bench.engine, source, tiling, tile)
    logits = bench.engine.logits(tensor[None])[0][:, *tile.inner]
    inner: np.ndarray[Any, Any] | None = None if valid is None else valid[tile.inner]
    painted = finish(logits, tile.write, inner, probabilities, source.name)
    store = ZarrStore(tiling.size, bench.engine.model.classes, None, probabilities=probabilities)
    _check_wanted(folder, run)
    store.open(folder)
    store.write(painted)
    return tile.index


class _InTurns(Engine):
    """Threads of one worker go through the network one by one: a pass takes all their cores, and memory for one."""

    def __init__(self, model: Model, precision: Precision, device: str) -> None:
        super().__init__(model, precision, device, backend="eager")  # all workers alike
        self._turn = threading.Lock()

    def logits(self, batch: Tensor) -> Tensor:
        with self._turn:
            return super().logits(batch)


class _Bench:
    """What a worker keeps between tasks: the prepared model and the last image it opened."""

    def __init__(self, recipe: Recipe, name: object, threads: int) -> None:
        path, identity, precision, device = recipe
        device = _own_gpu(device, name)
        torch.set_num_threads(threads)
        self.engine = _InTurns(load_model(_shown(Path(path))), precision, device)
        if self.engine.identity != identity:
            raise ModelError(
                f"a worker finds another model in {path}",
                "the file that the painting was begun with",
                "leave it in its place until all is painted, or copy it to the worker's machine",
            )
        self.lock = threading.Lock()
        self._key: tuple[Path, Reading, dict[str, Any]] | None = None
        self._source: Source | None = None

    def source(self, path: Path, how: Reading, work: dict[str, Any]) -> Source:
        if self._source is None or self._key != (path, how, work):
            if self._source is not None:
                self._source.close()
            opened = open_image(_shown(path), how)
            self._source = fitted(opened, self.engine.model.normalisation.channels)
            self._key = path, how, work
        return self._source


def _bench(recipe: Recipe) -> _Bench:
    """The bench of the worker this runs on, made at its first task."""
    from distributed import get_worker

    worker = get_worker()
    with _setup:
        benches: dict[Any, _Bench] = worker.__dict__.setdefault("whatwhere_benches", {})
        if recipe not in benches:
            benches[recipe] = _Bench(recipe, worker.name, worker.state.nthreads)
            for older in [other for other in benches if other[0] == recipe[0] and other[1] != recipe[1]]:
                del benches[older]  # the file holds another model now
        return benches[recipe]


def _own_gpu(device: str, name: object) -> str:
    """Local workers, whose names are numbers, take the GPUs of the machine in turn."""
    if device in ("auto", "cuda") and isinstance(name, int) and torch.cuda.device_count() > 1:
        return f"cuda:{name % torch.cuda.device_count()}"
    return device


_setup = threading.Lock()
"""Two threads of one worker do not prepare the model twice."""
