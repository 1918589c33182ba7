"""The proof on the spot: tiled logits beside the whole image's, on a crop that fits; and what less halo would do."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from whatwhere.errors import PlanError
from whatwhere.network import Model
from whatwhere.network.machine import Precision
from whatwhere.paint.backends import INT8
from whatwhere.paint.engine import Engine
from whatwhere.paint.scheme import scheme, size_up
from whatwhere.paint.sources import ArraySource, Source
from whatwhere.paint.tiles import Tiling
from whatwhere.paint.verify import furthest, largest
from whatwhere.paint.work import read_tile

__all__ = ["Proof", "prove", "tiled_logits"]

_TOLERANCE = {"float32": 1e-5, "bfloat16": 2**-4, "int8": 2**-6}
"""Rounding, as a share of the largest logit: sums of some thousand products in another order (in int8: a few steps)."""

_PLACES = 2**-23
"""The same for each pixel of a side, where some step resizes by a factor that float32 does not hold: the weights of two
neighbours are off by as much as the place between them, counted from the image's rim."""

_CROP = 1024
"""Pixels a side that pass in one piece, where tiles are small enough."""

_ROOM = 8
"""Strides that the piece is larger than the smallest tile at least: networks that see far have large ones."""


@dataclass(frozen=True)
class Proof:
    """What tiles change. Prints itself.

    Attributes:
        size: height and width of the crop.
        tile: height and width of a tile; there are several.
        halo: pixels (before, after) for rows and columns.
        precision: what both were computed in.
        difference: the largest absolute difference between tiled and whole-image logits.
        largest: the largest absolute logit.
        changed: pixels whose label differs.
        unexplained: those of them whose best two classes lie farther apart than rounding could move them.
        less: the largest difference with one stride less of halo; None where there is no halo.
        backend: what both were computed by.
        inexact: some step resizes by a factor that is no power of two, for which torch rounds places.
    """

    size: tuple[int, int]
    tile: tuple[int, int]
    halo: tuple[tuple[int, int], tuple[int, int]]
    precision: str
    difference: float
    largest: float
    changed: int
    unexplained: int
    less: float | None
    backend: str = "eager"
    inexact: bool = False

    @property
    def passed(self) -> bool:
        """Whether the difference is float rounding."""
        return self.difference <= _rounding(self.precision, self.largest, self.size, self.inexact)

    def __str__(self) -> str:
        verdict = "tiles equal the whole image" if self.passed else "TILES DIFFER from the whole image"
        height, width = self.size
        beyond = f"{self.unexplained} by more than rounding" if self.unexplained else "all within rounding"
        changed = f"{self.changed} of {height * width:,} labels changed" + (f", {beyond}" if self.changed else "")
        by = "" if self.backend == "eager" else f" by {self.backend}"
        lines = [
            f"{verdict}: on {height}x{width} pixels in tiles of {self.tile[0]}x{self.tile[1]} ({self.precision}{by}), "
            f"logits up to {self.largest:.3g} differ by at most {self.difference:.2g}; {changed}"
        ]
        if self.inexact:
            most = _rounding(self.precision, self.largest, self.size, self.inexact)
            lines.append(f"it resizes by a factor that is no power of two: rounding of places makes up to {most:.2g}")
        if self.less is not None:
            lines.append(f"with one stride less of halo they would differ by {self.less:.2g}")
        return "\n".join(lines)

    def to_json(self) -> dict[str, Any]:
        return {**asdict(self), "passed": self.passed}


def prove(
    model: Model | Engine,
    image: NDArray[Any] | Source,
    *,
    precision: Precision = "float32",
    device: str = "auto",
    backend: str = "auto",
    tile: int | None = None,
    crop: int | None = None,
) -> Proof:
    """Compares tiles with the whole image on the middle ``crop`` x ``crop`` pixels.

    Args:
        model: the model; an engine keeps its own precision and backend.
        image: ``(H, W, C)`` array or anything read by windows.
        tile: what a tile reads; None takes the smallest that still writes as much as its halo.
        crop: at most this many pixels a side pass in one piece; None takes 1024, or more where a tile has to be larger.

    Raises:
        FieldError: a network that can't be tiled exactly; the error names the layer.
        PlanError: the image, or the crop of it, is no larger than a tile: that would prove nothing.
    """
    computed: Precision = "auto" if backend in ("int8", *INT8) else precision  # its file has one of its own
    engine = model if isinstance(model, Engine) else Engine(model, computed, device, backend=backend)
    source = image if not isinstance(image, np.ndarray) else ArraySource(image)
    least = zip(_least(engine), engine.geometry.period)
    sides = [max(_CROP, side + _ROOM * step) if crop is None else crop for side, step in least]
    corner = [max(0, (n - side) // 2) for n, side in zip(source.size, sides)]
    pixels, valid = source.read(tuple((c, min(n, c + side)) for c, n, side in zip(corner, source.size, sides)))
    if valid is not None:
        pixels = np.where(valid[..., None], pixels, np.zeros((), pixels.dtype))
    piece = ArraySource(pixels, source.name)
    exact, period = _several(engine, piece.size, tile), engine.geometry.period
    engine.settle(source.size[0] * source.size[1], lambda: read_tile(engine, piece, exact, next(iter(exact)))[0][None])
    full = size_up(piece.size, period)
    whole = tiled_logits(engine, piece, Tiling(piece.size, full, period=period, short=exact.short))
    tiled = tiled_logits(engine, piece, exact)
    most, inexact = largest(whole), engine.geometry.inexact
    rounding = _rounding(engine.precision, most, piece.size, inexact)
    changed = tiled.argmax(0) != whole.argmax(0)
    best = whole.topk(min(2, whole.shape[0]), dim=0).values
    margin = best[0] - best[-1]
    return Proof(
        piece.size, exact.tile, exact.halo, engine.precision, furthest(whole, tiled), most, int(changed.sum()),
        int((changed & (margin > 2 * rounding)).sum()), _with_less(engine, piece, exact, whole), engine.backend,
        inexact,
    )  # fmt: skip


def _rounding(precision: str, largest: float, size: tuple[int, int], inexact: bool) -> float:
    """How far rounding may move logits of which the largest is so large, of so many pixels."""
    return (_TOLERANCE[precision] + _PLACES * max(size) * inexact) * max(1.0, largest)


def _several(engine: Engine, size: tuple[int, int], asked: int | None) -> Tiling:
    """Tiles of the side asked for; else such that write as much as their halo, or else less, down to one stride."""
    least = _least(engine)
    halo = [sum(pair) for pair in engine.geometry.halo]
    most = [max(2 * side, side + 2 * step) for side, step in zip(halo, engine.geometry.period)]
    between = [max(low, (low + n) // 2) for low, n in zip(least, size)]
    for height, width in [(asked, asked)] if asked else [most, between, least]:
        found = scheme(engine, size, tile=(height, width)).tiling
        if len(found) > 1:
            return found
    raise PlanError(
        f"{size[0]}x{size[1]} pixels and tiles of {height}x{width}: one tile is the whole image, which proves nothing",
        "an image that takes several tiles",
        "ask for smaller tiles" if asked else "prove it on a larger image",
    )


def _least(engine: Engine) -> list[int]:
    """Height and width of the smallest tiles: the halo and one stride."""
    ends = int(engine.geometry.mirrored)  # reads stop short of the ends of its tiles
    return [sum(halo) + step * (1 + ends) for halo, step in zip(engine.geometry.halo, engine.geometry.period)]


def _with_less(engine: Engine, source: Source, exact: Tiling, whole: Tensor) -> float | None:
    """The largest difference when each side of the halo is one stride short."""
    rows, columns = ((max(0, before - p), max(0, after - p)) for (before, after), p in zip(exact.halo, exact.period))
    if (rows, columns) == exact.halo or len(exact) == 1:
        return None
    less = Tiling(exact.size, exact.tile, (rows, columns), exact.period, short=exact.short)
    return furthest(whole, tiled_logits(engine, source, less))


def tiled_logits(engine: Engine, source: Source, tiling: Tiling) -> Tensor:
    """Logits ``(classes, H, W)`` put together from tiles, on the CPU."""
    out = torch.empty(0)
    for tile in tiling:
        logits = engine.logits(read_tile(engine, source, tiling, tile)[0][None])[0].cpu()
        if not out.numel():
            out = torch.empty(logits.shape[0], *tiling.size)
        (y0, y1), (x0, x1) = tile.write
        out[:, y0:y1, x0:x1] = logits[:, *tile.inner]
    return out
