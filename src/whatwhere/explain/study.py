"""One look at every image: features at sampled pixels, what each path carries on average, the network's own answer.

Knows an anatomy and cases; nothing of probes or scores. Nothing larger than a sample is kept.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from whatwhere.explain.anatomy import Anatomy, Layer
from whatwhere.explain.cases import Case, check_finite, held_together
from whatwhere.explain.levels import Samples, gather
from whatwhere.explain.pixels import Spots

__all__ = ["CELLS", "Study", "look", "path_means", "pooled"]

CELLS = 4
"""Pooled features are kept for a grid of 4 x 4 cells an image, which can be joined to quarters or the whole."""

Array = NDArray[Any]
Progress = Callable[[float], None]


@dataclass(frozen=True, eq=False)
class Study:
    """What was seen.

    Attributes:
        samples: features at the spots, of the network.
        untrained: the same of its untrained twin.
        answers: the network's logits ``(n, classes)`` at interior and boundary spots.
        pooled: by layer, features averaged over cells: ``(images, CELLS, CELLS, channels)``.
        means: for each path its mean over images and places, ``(1, channels, 1, 1)``.
        silent: for each path the share of its channels that never change.
    """

    samples: Samples
    untrained: Samples
    answers: tuple[Array, Array]
    pooled: dict[str, Array]
    means: tuple[Tensor, ...]
    silent: tuple[float, ...]


@torch.inference_mode()
def look(
    anatomy: Anatomy,
    untrained: Anatomy,
    cases: Sequence[Case],
    spots: tuple[Spots, Spots],
    *,
    progress: Progress,
) -> Study:
    """Pass every image once through the network and once through its untrained twin."""
    trained = _Collector(anatomy, spots)
    fresh = _Collector(untrained, spots)
    sums = _PathSums(len(anatomy.paths))
    cells: dict[str, list[Array]] = {layer.name: [] for layer in anatomy.layers}
    for index, case in enumerate(cases):
        logits, features = trained.read(index, case.image)
        check_finite(logits, case)
        for layer in anatomy.layers:
            cells[layer.name].append(pooled(layer, features[layer.name], case.size))
        sums.add(anatomy.carried(case.image))
        fresh.read(index, case.image)
        progress((index + 1) / len(cases))
    groups = _groups(spots, cases, anatomy.layers)
    return Study(
        trained.samples(groups),
        fresh.samples(groups),
        (np.concatenate(trained.logits[0]), np.concatenate(trained.logits[1])),
        {name: np.stack(of) for name, of in cells.items()},
        *sums.result(),
    )


@torch.inference_mode()
def path_means(anatomy: Anatomy, images: Iterable[Tensor]) -> tuple[Tensor, ...]:
    """For each path its mean over images and places, ``(1, channels, 1, 1)``."""
    sums = _PathSums(len(anatomy.paths))
    for image in images:
        sums.add(anatomy.carried(image))
    return sums.result()[0]


class _Collector:
    """Features and logits of one network at the spots, image after image."""

    def __init__(self, anatomy: Anatomy, spots: tuple[Spots, Spots]) -> None:
        self.anatomy, self.spots = anatomy, spots
        self.found: tuple[dict[str, list[Array]], dict[str, list[Array]]] = ({}, {})
        self.corners: dict[str, list[Array]] = {}
        self.logits: tuple[list[Array], list[Array]] = ([], [])

    def read(self, index: int, image: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        logits, features = self.anatomy.read(image)
        for spots, found, answers in zip(self.spots, self.found, self.logits):
            at = np.flatnonzero(spots.image == index)
            rows, columns = spots.row[at], spots.column[at]
            answers.append(logits[0, :, rows, columns].T.float().cpu().numpy())
            for layer in self.anatomy.layers:
                found.setdefault(layer.name, []).append(gather(layer, features[layer.name], rows, columns))
        edge = self.spots[1].take(self.spots[1].image == index)
        for layer in self.anatomy.layers:
            corners = layer.corners(edge.row, edge.column, features[layer.name].shape)
            self.corners.setdefault(layer.name, []).append(corners)
        return logits, features

    def samples(self, groups: tuple[Array, Array]) -> Samples:
        interior, boundary, corners = (
            {name: np.concatenate(rows) for name, rows in found.items()} for found in (*self.found, self.corners)
        )
        return Samples(self.spots, (interior, boundary), groups, corners)


class _PathSums:
    """Sums over images and places of what each path carries."""

    def __init__(self, paths: int) -> None:
        self.sums: list[Tensor | None] = [None] * paths
        self.places = [0] * paths
        self.low: list[Tensor] = []
        self.high: list[Tensor] = []

    def add(self, carried: Sequence[Tensor]) -> None:
        lows, highs = ([getattr(one, kind)((0, 2, 3)) for one in carried] for kind in ("amin", "amax"))
        first = not self.low
        self.low = lows if first else [torch.minimum(a, b) for a, b in zip(self.low, lows)]
        self.high = highs if first else [torch.maximum(a, b) for a, b in zip(self.high, highs)]
        for path, one in enumerate(carried):
            total = one.double().sum((0, 2, 3))
            before = self.sums[path]
            self.sums[path] = total if before is None else before + total
            self.places[path] += one.shape[-2] * one.shape[-1]

    def result(self) -> tuple[tuple[Tensor, ...], tuple[float, ...]]:
        means = tuple(
            (total / places).float()[None, :, None, None]
            for total, places in zip(self.sums, self.places)
            if total is not None
        )
        silent = tuple(float((high - low <= 1e-6).float().mean()) for low, high in zip(self.low, self.high))
        return means, silent


def pooled(layer: Layer, features: Tensor, size: tuple[int, int]) -> Array:
    """Features averaged over cells of the image, ``(CELLS, CELLS, channels)``.

    Each unit counts by the pixels of the cell that it answers for: the grid of a deep layer may reach beyond the image.

    Args:
        features: ``(1, channels, h, w)``.
        size: of the image.
    """
    rows, columns = layer.units(np.arange(size[0]), np.arange(size[1]), features.shape)
    weights = [
        torch.from_numpy(_shares(units, count)).to(features.device)
        for units, count in zip((rows, columns), features.shape[-2:])
    ]
    with torch.autocast(features.device.type, enabled=False):  # einsum would compute in less
        cells: Array = torch.einsum("au,bv,cuv->abc", *weights, features[0].float()).cpu().numpy()
    return cells


def _shares(units: Array, count: int) -> NDArray[np.float32]:
    """For each cell along a side of the image the share of its pixels that each of ``count`` units answers for."""
    found = np.zeros((CELLS, count), np.float32)
    np.add.at(found, (np.arange(len(units)) * CELLS // len(units), units), 1)
    shares: NDArray[np.float32] = found / np.maximum(found.sum(1, keepdims=True), 1)
    return shares


def _groups(spots: tuple[Spots, Spots], cases: Sequence[Case], layers: Sequence[Layer]) -> tuple[Array, Array]:
    """Images are held out whole, with the others of their source; of a single image, quarters are.

    These end where the largest cells do: a unit that lay in two would be both fitted on and scored on.
    """
    if len(cases) > 1:
        together = held_together(cases)
        return together[spots[0].image], together[spots[1].image]
    row, column = (
        _between_cells(size, *max((layer.cell[axis], layer.origin[axis]) for layer in layers))
        for axis, size in enumerate(cases[0].size)
    )
    first, second = (2 * (of.row >= row) + (of.column >= column) for of in spots)
    return first, second


def _between_cells(size: int, side: int, origin: int) -> int:
    """The end of a cell that is nearest to the middle of an image, which may begin amid a cell or before the first.

    >>> _between_cells(64, 16, 0), _between_cells(64, 4, -6), _between_cells(10, 8, 3)
    (32, 30, 11)
    """
    start = max(origin, -(-origin % side))
    return start + side * max(1, round((size / 2 - start) / side))
