"""An image in, painted labels out: ``paint(model, image)``. Knows arrays; files are read and written elsewhere."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from itertools import islice
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from whatwhere.errors import ModelError, in_a_line, is_out_of_memory
from whatwhere.network import Model
from whatwhere.network.machine import Precision
from whatwhere.paint.blend import blend_tiles
from whatwhere.paint.engine import BackendFailure, Engine
from whatwhere.paint.scheme import Scheme, scheme
from whatwhere.paint.sources import ArraySource, Source
from whatwhere.paint.tiles import Tiling
from whatwhere.paint.work import Painted, Progress, Sink, paint_tiles, read_tile
from whatwhere.plain_torch import plain_torch

__all__ = ["PaintReport", "Painting", "paint", "paint_source", "report_of", "with_room"]

Pair = tuple[int, int]
Shares = NDArray[np.float32]


@dataclass(frozen=True)
class PaintReport:
    """How an image was painted. Prints itself in one line.

    Attributes:
        size: height and width of the image.
        tile: height and width of what each tile read.
        tiles: how many.
        halo: for rows and columns, the pixels (before, after) read beyond what was written.
        overlap: the share of pixels computed more than once, in [0, 1).
        precision, device, backend: what it was computed in, on, and by.
        seconds: wall-clock time, reading and writing included.
        exact: labels are those of the whole image in one piece, to float rounding; where a note says so, of the image
            padded with zeros to the network's multiples.
        notes: what else is to be said (memory ran out, a network that sees everything).
        why: why that precision, where it is not the machine's.
    """

    size: Pair
    tile: Pair
    tiles: int
    halo: tuple[Pair, Pair]
    overlap: float
    precision: str
    device: str
    seconds: float
    exact: bool
    notes: tuple[str, ...] = ()
    backend: str = "eager"
    why: str = ""

    def __str__(self) -> str:
        height, width = self.size
        how = f"in {self.tiles} {'exact' if self.exact else 'blended'} tiles of {self.tile[0]}x{self.tile[1]}"
        halo = " and ".join(sorted({f"{before}+{after}" for before, after in self.halo}))
        cost = f"halo {halo}, {100 * self.overlap:.0f} % computed more than once"
        by = "" if self.backend == "eager" else f" by {self.backend}"
        parts = [
            f"{height}x{width} painted {'whole' if self.tiles == 1 else f'{how} ({cost})'}",
            f"{self.precision}{f' ({self.why})' if self.why else ''} on {self.device}{by}, {self.seconds:.1f} s",
            *self.notes,
        ]
        return "; ".join(parts)

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


@dataclass(frozen=True)
class Painting:
    """A painted image.

    Attributes:
        labels: ``(H, W)`` uint8 class ids; 255 where a file has no data.
        probabilities: ``(classes, H, W)`` float32 that add up to 1, or None when not asked for.
        confidence: ``(H, W)`` float32, the probability of the class that was painted, or None when not asked for.
        report: how it was painted.
    """

    labels: NDArray[np.uint8]
    probabilities: Shares | None
    report: PaintReport
    confidence: Shares | None = None


class ArraySink:
    """Finished boxes into arrays in memory: labels, and ``planes`` of what ``kept`` makes of the probabilities."""

    def __init__(
        self,
        size: Pair,
        planes: int | None,
        kept: Callable[[Shares], NDArray[Any]] | None = None,
        dtype: Any = np.float32,
        begins: Callable[[str], None] | None = None,
    ) -> None:
        self.labels = np.zeros(size, np.uint8)
        self.probabilities: NDArray[Any] | None = None if planes is None else np.zeros((planes, *size), dtype)
        self._kept, self._begins = kept, begins

    def begun(self) -> str:
        return ""

    def begin(self, plan: Scheme, how: str) -> frozenset[int]:  # noqa: ARG002 (an array has no journal)
        if self._begins:
            self._begins(how)
        return frozenset()

    def write(self, index: int, painted: Painted) -> None:  # noqa: ARG002
        (y0, y1), (x0, x1) = painted.box
        self.labels[y0:y1, x0:x1] = painted.labels
        if self.probabilities is not None and painted.probabilities is not None:
            shares = painted.probabilities
            self.probabilities[:, y0:y1, x0:x1] = shares if self._kept is None else self._kept(shares)


@plain_torch()
def paint(
    model: Model | Engine,
    image: NDArray[Any] | Source,
    *,
    probabilities: bool = False,
    confidence: bool = False,
    precision: Precision = "auto",
    tile: int | Pair | None = None,
    batch: int = 1,
    device: str = "auto",
    backend: str = "auto",
    progress: Progress | None = None,
) -> Painting:
    """Paints an image of any size with the model's classes, as if it passed through the network in one piece.

    Args:
        model: a model, or an :class:`Engine` made of one, to paint many images with one preparation.
        image: ``(H, W)`` or ``(H, W, C)``, in the dtype and units of the training images; or what reads it.
        probabilities: also return the softmax of the logits.
        confidence: instead of it, only the probability of the class that was painted: a plane, however many classes.
        precision, device, backend: as for :class:`Engine`; not used when an engine is given.
        tile: height and width of tiles; None chooses by memory, and takes the image whole if it fits.
        batch: tiles that pass through the network together.
        progress: called with (tiles done, tiles in all).

    Raises:
        ModelError: an image with other channels or units than the model was trained on.
        DataError: NaN or infinity in the image.

    >>> from whatwhere.network import Model, UNet
    >>> from whatwhere.records import Classes, Normalisation
    >>> classes = Classes(("ground", "cat"), ((0, 0, 0), (255, 160, 0)), ((0,), (1,)))
    >>> model = Model(UNet(3, 2, width=4, depth=2).eval(), classes, Normalisation((0.0,) * 3, (255.0,) * 3))
    >>> paint(model, np.zeros((50, 70, 3), np.uint8)).labels.shape
    (50, 70)
    """
    engine = model if isinstance(model, Engine) else Engine(model, precision, device, backend=backend)
    source = ArraySource(image) if isinstance(image, np.ndarray) else image
    if confidence:
        sink = ArraySink(source.size, 1, lambda shares: shares.max(axis=0, keepdims=True))
    else:
        sink = ArraySink(source.size, engine.model.classes.count if probabilities else None)
    report = paint_source(
        engine, source, sink, probabilities=probabilities or confidence, tile=tile, batch=batch, progress=progress
    )
    report = replace(report, notes=(*report.notes, *engine.notes))
    if confidence:
        assert sink.probabilities is not None
        return Painting(sink.labels, None, report, sink.probabilities[0])
    return Painting(sink.labels, sink.probabilities, report)


def paint_source(
    engine: Engine,
    source: Source,
    sink: Sink,
    *,
    probabilities: bool = False,
    tile: int | Pair | None = None,
    batch: int = 1,
    align: int = 1,
    progress: Progress | None = None,
) -> PaintReport:
    """Paints what ``source`` reads into ``sink``.

    When memory runs out, starts again with tiles of half the pixels; when a backend fails, with PyTorch itself.

    Raises:
        ModelError: memory runs out with the smallest tiles too; or what is painted does not fit the model.
    """
    start = time.perf_counter()
    again: list[str] = []

    def attempt(plan: Scheme) -> None:
        work = blend_tiles if plan.blended else paint_tiles
        while True:
            try:
                begun = sink.begun()
                engine.settle(plan.tiling.computed, partial(_middle, engine, source, plan.tiling), begun)
                if begun not in ("", engine.how):
                    again.append(f"begun anew, as {begun} is no longer available")
                done = sink.begin(plan, engine.how)
                work(engine, source, plan, sink, probabilities=probabilities, batch=batch, done=done, progress=progress)
            except BackendFailure as failure:
                engine.fall_back(failure)
            else:
                return

    schemes = partial(scheme, engine, source.size, tile=tile, batch=batch, align=align, probabilities=probabilities)
    plan, notes = with_room(schemes, attempt)
    return report_of(engine, plan, time.perf_counter() - start, [*again, *notes])


def with_room(schemes: Callable[..., Scheme], attempt: Callable[[Scheme], None]) -> tuple[Scheme, list[str]]:
    """Paints by the first of ``schemes(most=pixels of a tile)`` for which there is memory; says if it had to shrink.

    Raises:
        ModelError: memory runs out with the smallest tiles too.
    """
    plan = schemes(most=None)
    notes: list[str] = []
    while True:
        try:
            attempt(plan)
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
            said = in_a_line(error)
        else:
            return plan, notes
        # only here: while the error is held, so are the network's maps, and little memory seems to be free
        lost = plan.tiling.tile
        plan = schemes(most=lost[0] * lost[1] // 2)
        kept = plan.tiling.tile
        if kept[0] * kept[1] >= lost[0] * lost[1]:
            raise ModelError(
                f"memory ran out with tiles of {lost[0]}x{lost[1]} pixels, the smallest for this network ({said})",
                "a tile that fits",
                "close other programs, paint fewer tiles at once, or use another device",
            )
        notes = [f"memory ran out with tiles of {lost[0]}x{lost[1]}; went on with {kept[0]}x{kept[1]}"]


def _middle(engine: Engine, source: Source, tiling: Tiling) -> Tensor:
    """The tile in the middle as network input ``(1, C, h, w)``: what backends are compared on."""
    tile = next(islice(tiling, len(tiling) // 2, None))
    return read_tile(engine, source, tiling, tile)[0][None]


def report_of(engine: Engine, plan: Scheme, seconds: float, notes: Sequence[str] = ()) -> PaintReport:
    """What a scheme came to."""
    tiling = plan.tiling
    return PaintReport(
        size=tiling.size, tile=tiling.shape, tiles=len(tiling), halo=tiling.halo, overlap=tiling.overlap,
        precision=engine.precision, device=engine.device.type, seconds=seconds, exact=plan.exact,
        notes=(*notes, *([plan.note] if plan.note else [])), backend=engine.backend, why=engine.why,
    )  # fmt: skip
