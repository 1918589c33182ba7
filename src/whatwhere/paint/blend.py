"""Overlapping tiles averaged with Gaussian weights, for networks that see the whole image: an approximation.

Used only where no halo can be enough. The weights are those of Isensee et al. 2021 (nnU-Net, doi
10.1038/s41592-020-01008-z): the middle of a tile counts most, because it has seen most. Works band by band, so that
memory grows with the image's width only.
"""

from __future__ import annotations

from itertools import groupby

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from whatwhere.paint.engine import Engine
from whatwhere.paint.scheme import Scheme
from whatwhere.paint.sources import Source
from whatwhere.paint.tiles import Tile
from whatwhere.paint.work import Painted, Progress, Sink, finish, overlapped, read_tile

__all__ = ["blend_tiles", "importance"]

_Read = tuple[Tile, Tensor, NDArray[np.bool_] | None]


def blend_tiles(
    engine: Engine,
    source: Source,
    scheme: Scheme,
    sink: Sink,
    *,
    probabilities: bool = False,
    batch: int = 1,  # noqa: ARG001 (bands are added up one tile at a time)
    done: frozenset[int] = frozenset(),
    progress: Progress | None = None,
) -> None:
    """Paints all bands that are not ``done``. Band i lies between the tops of the tile rows i and i + 1."""
    tiling = scheme.tiling
    rows = [list(row) for _, row in groupby(tiling, key=lambda tile: tile.read[0])]
    tops = [row[0].read[0][0] for row in rows]
    missing = [band for band in range(len(rows)) if band not in done]
    if not missing:
        return
    # bands that are done are computed again only as far as they reach into one that is not
    first = next(row for row, top in enumerate(tops) if top + tiling.tile[0] > tops[missing[0]])
    sums = _Band(engine.model.classes.count, tiling.tile, tiling.padded[1], tops[first])

    def read(tile: Tile) -> _Read:
        return tile, *read_tile(engine, source, tiling, tile)

    def compute(work: _Read) -> list[tuple[int, Painted]]:
        tile, tensor, valid = work
        band = tops.index(tile.read[0][0])
        sums.scroll(tops[band])
        sums.add(tile, engine.logits(tensor[None])[0].cpu(), valid)
        if tile is not rows[band][-1] or band in done:
            return []
        stop = tops[band + 1] if band + 1 < len(tops) else tiling.size[0]
        return [(band, sums.finished((tops[band], stop), tiling.size[1], probabilities, source.name))]

    def write(finished: list[tuple[int, Painted]]) -> None:
        for index, painted in finished:
            sink.write(index, painted)

    count = sum(map(len, rows[:first]))
    for _ in overlapped((tile for row in rows[first:] for tile in row), read, compute, write):
        count += 1
        if progress:
            progress(count, len(tiling))


def importance(height: int, width: int) -> Tensor:
    """Gaussian weights ``(height, width)`` of a tile, 1 in its middle, with a deviation of an eighth of its sides.

    >>> importance(9, 9)[4, 4].item()
    1.0
    """

    def bell(length: int) -> Tensor:
        return torch.exp(-0.5 * ((torch.arange(length) - (length - 1) / 2) / (length / 8)) ** 2)

    return (bell(height)[:, None] * bell(width)).clamp_min(1e-4)


class _Band:
    """Weighted sums of logits over the rows that tiles still can reach."""

    def __init__(self, classes: int, tile: tuple[int, int], width: int, top: int) -> None:
        shape = tile[0], width
        self.top = top
        self.importance = importance(*tile)
        self.logits = torch.zeros(classes, *shape)
        self.weights = torch.zeros(shape)
        self.valid = np.ones(shape, bool)

    def scroll(self, top: int) -> None:
        """Drops the rows above ``top``."""
        step = top - self.top
        if step:
            kept = self.weights.shape[0] - step
            for sums in (self.logits, self.weights):
                sums[..., :kept, :] = sums[..., step:, :].clone()
                sums[..., kept:, :] = 0
            self.valid[:kept] = self.valid[step:].copy()
            self.valid[kept:] = True
            self.top = top

    def add(self, tile: Tile, logits: Tensor, valid: NDArray[np.bool_] | None) -> None:
        (_, (x0, x1)) = tile.read
        self.logits[:, :, x0:x1] += logits * self.importance
        self.weights[:, x0:x1] += self.importance
        if valid is not None:
            self.valid[: valid.shape[0], x0 : x0 + valid.shape[1]] &= valid

    def finished(self, span: tuple[int, int], width: int, probabilities: bool, name: str) -> Painted:
        rows = slice(0, span[1] - span[0])
        mean = self.logits[:, rows, :width] / self.weights[rows, :width]
        valid = self.valid[rows, :width]
        return finish(mean, (span, (0, width)), None if valid.all() else valid, probabilities, name)
