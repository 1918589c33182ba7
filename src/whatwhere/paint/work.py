"""The work itself: windows in, network, labels out, all three at the same time. Knows nothing of files.

One thread reads ahead, the caller's thread computes, one thread writes behind; never more than a few tiles wait.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from itertools import cycle, islice
from typing import Protocol, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from whatwhere.errors import DataError, ModelError
from whatwhere.paint.engine import Engine
from whatwhere.paint.scheme import Scheme
from whatwhere.paint.sources import Source
from whatwhere.paint.tiles import Tile, Tiling
from whatwhere.records import VOID, Box

__all__ = ["Painted", "Sink", "batches", "overlapped", "paint_tiles", "read_tile"]

Item = TypeVar("Item")
Read = TypeVar("Read")
Done = TypeVar("Done")

Progress = Callable[[int, int], None]
"""Called with the tiles done and the tiles in all."""

_AHEAD = 2


@dataclass(frozen=True)
class Painted:
    """A finished box.

    Attributes:
        box: where it lies in the image.
        labels: ``(h, w)`` uint8 class ids; VOID where the image has no data.
        probabilities: ``(classes, h, w)`` float32, or None; 0 for all classes where the image has no data.
    """

    box: Box
    labels: NDArray[np.uint8]
    probabilities: NDArray[np.float32] | None


class Sink(Protocol):
    """Where finished boxes go."""

    def begun(self) -> str:
        """How an earlier run painted what is there of this work already; "" if nothing is."""
        ...

    def begin(self, plan: Scheme, how: str) -> frozenset[int]:
        """Called before the first box (again when tiles had to shrink); returns the indices it holds already.

        Boxes computed in another way than ``how`` (backend and precision) are not to be mixed with these.
        """
        ...

    def write(self, index: int, painted: Painted) -> None:
        """Takes box number ``index``. Called once a box, in any order, from one thread."""
        ...


@dataclass(frozen=True)
class _Batch:
    tiles: list[Tile]
    input: Tensor
    valid: list[NDArray[np.bool_] | None]


def overlapped(
    items: Iterable[Item],
    read: Callable[[Item], Read],
    compute: Callable[[Read], Done],
    write: Callable[[Done], None],
) -> Iterator[Item]:
    """``write(compute(read(item)))`` for each item in order, the three at the same time; yields what is computed.

    All is written when it is exhausted; an error in any of the three stops it and is raised here.

    >>> out = []
    >>> list(overlapped([1, 2, 3], lambda i: 10 * i, lambda i: i + 1, out.append)), out
    ([1, 2, 3], [11, 21, 31])
    """
    todo = iter(items)
    with ThreadPoolExecutor(1, "reader") as reader, ThreadPoolExecutor(1, "writer") as writer:
        coming: deque[tuple[Item, Future[Read]]] = deque()
        going: deque[Future[None]] = deque()
        try:
            while True:
                coming.extend((item, reader.submit(read, item)) for item in islice(todo, _AHEAD - len(coming)))
                if not coming:
                    break
                item, ready = coming.popleft()
                going.append(writer.submit(write, compute(ready.result())))
                while len(going) > _AHEAD:
                    going.popleft().result()
                yield item
            for last in going:
                last.result()
        finally:
            for _, ready in coming:
                ready.cancel()
            for late in going:
                late.cancel()


def read_tile(
    engine: Engine, source: Source, tiling: Tiling, tile: Tile, out: Tensor | None = None
) -> tuple[Tensor, NDArray[np.bool_] | None]:
    """Network input ``(C, h, w)`` of a tile: normalised, neutral where there is no data, zeros beyond the image.

    Into ``out`` where it is given.
    """
    box = tuple((start, min(stop, size)) for (start, stop), size in zip(tile.read, tiling.size))
    pixels, valid = source.read(box)
    if pixels.dtype.kind == "f":
        bad = ~np.isfinite(pixels).all(axis=-1)
        bad = bad if valid is None else bad & valid
        if bad.any():
            y, x = np.argwhere(bad)[0]
            raise DataError(
                f"{source.name} holds NaN or infinity at row {box[0][0] + y}, column {box[1][0] + x}",
                "numbers, or a no-data value in the file's own metadata",
                "replace them, or declare them as no data",
            )
    if valid is not None:
        pixels = np.where(valid[..., None], pixels, np.zeros((), pixels.dtype))
    found = torch.empty(pixels.shape[-1], *tiling.shape) if out is None else out
    height, width = pixels.shape[:2]
    inside = found[:, :height, :width]
    engine.model.normalise(pixels, source.name, inside)
    if valid is not None:
        inside *= torch.from_numpy(valid)  # the data set's mean, which is 0 once normalised
    found[:, height:] = 0
    found[:, :, width:] = 0
    return found, valid


def batches(tiles: Iterable[Tile], count: int) -> Iterator[list[Tile]]:
    """Tiles in groups of ``count``, the last maybe smaller."""
    group: list[Tile] = []
    for tile in tiles:
        group.append(tile)
        if len(group) == count:
            yield group
            group = []
    if group:
        yield group


def paint_tiles(
    engine: Engine,
    source: Source,
    scheme: Scheme,
    sink: Sink,
    *,
    probabilities: bool = False,
    batch: int = 1,
    done: frozenset[int] = frozenset(),
    progress: Progress | None = None,
) -> None:
    """Paints every tile of an exact scheme that is not ``done`` and hands it to the sink."""
    tiling = scheme.tiling
    # of the tiles that are read ahead and the one that is computed: one after the other asked for anew, they would
    # lie in the gaps that the network's maps are to fit in again
    shape = batch, engine.model.normalisation.channels, *tiling.shape
    pinned = engine.device.type == "cuda"  # which copies from such memory faster
    inputs = cycle([torch.empty(shape, pin_memory=pinned) for _ in range(_AHEAD + 1)])

    def read(tiles: list[Tile]) -> _Batch:
        taken = next(inputs)[: len(tiles)]
        valid = [read_tile(engine, source, tiling, tile, out)[1] for tile, out in zip(tiles, taken)]
        return _Batch(tiles, taken, valid)

    def compute(work: _Batch) -> list[tuple[int, Painted]]:
        logits = engine.logits(work.input)
        return [
            (tile.index, finish(logits[i][:, *tile.inner], tile.write, _cut(valid, tile), probabilities, source.name))
            for i, (tile, valid) in enumerate(zip(work.tiles, work.valid))
        ]

    def write(finished: list[tuple[int, Painted]]) -> None:
        for index, painted in finished:
            sink.write(index, painted)

    todo = [tile for tile in tiling if tile.index not in done]
    count = len(done)
    for group in overlapped(batches(todo, batch), read, compute, write):
        count += len(group)
        if progress:
            progress(count, len(tiling))


def finish(logits: Tensor, box: Box, valid: NDArray[np.bool_] | None, probabilities: bool, name: str) -> Painted:
    """Logits ``(classes, h, w)`` of the image ``name`` to labels, and to probabilities if wanted.

    Raises:
        ModelError: logits of NaN, which no label follows from.
    """
    if logits.amax().isnan():  # one look at all of them costs little
        _refuse_nan(logits, box, valid, name)
    labels = (logits[1] > logits[0] if logits.shape[0] == 2 else logits.argmax(0)).to(torch.uint8).cpu().numpy()
    shares = logits.softmax(0).cpu().numpy() if probabilities else None
    if valid is not None:
        labels[~valid] = VOID
        if shares is not None:
            shares[:, ~valid] = 0
    return Painted(box, labels, shares)


def _refuse_nan(logits: Tensor, box: Box, valid: NDArray[np.bool_] | None, name: str) -> None:
    """``ModelError`` where the image has data: the painting would be all of one class, without a word.

    Infinity is a number here: a network may switch a class off by it.
    """
    bad = logits.isnan().any(0).cpu().numpy()
    bad = bad if valid is None else bad & valid
    if bad.any():
        y, x = np.unravel_index(bad.argmax(), bad.shape)
        raise ModelError(
            f"the network gives NaN for {name} at row {box[0][0] + y}, column {box[1][0] + x}",
            "logits that are numbers",
            "look for NaN or infinity in its weights and batch statistics, and whether the image's values are in the "
            "units that it was trained on",
        )


def _cut(valid: NDArray[np.bool_] | None, tile: Tile) -> NDArray[np.bool_] | None:
    return None if valid is None else valid[tile.inner]
