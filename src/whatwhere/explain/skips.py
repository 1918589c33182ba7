"""What each skip delivers: exact Shapley values over every coalition of skips and the bottleneck path.

An absent path brings its data-set mean, the same at every place: no news. This ablates a *trained* network; a network
that never had the skip, and learnt to do without, is another matter (train one and compare). Knows paths and scores;
nothing of how features are made.

Shapley 1953; Lundberg & Lee 2017, arXiv 1705.07874. How large a loss to expect: Kamath et al., MICCAI 2023.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate
from math import factorial
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.sparse import csr_array
from torch import Tensor

from whatwhere.explain.anatomy import Anatomy, Path
from whatwhere.explain.levels import ahead, sides_of
from whatwhere.explain.measured import RESAMPLES, Measured, as_json, balanced_accuracy, sides_accuracy
from whatwhere.explain.pixels import Regions, regions
from whatwhere.judge import Judge
from whatwhere.judge.bootstrap import draws, interval, sources_behind
from whatwhere.judge.counts import Counts
from whatwhere.judge.measures import measures, tellers
from whatwhere.records import Classes

__all__ = [
    "MOST_EXACT",
    "MOVED",
    "TOLD",
    "TOLERANCE",
    "Tally",
    "Worth",
    "Worths",
    "coalition_players",
    "measure_skips",
    "shapley_matrix",
]

MOST_EXACT = 7
"""Up to this many paths every coalition is measured; beyond, sampled orders."""
TOLERANCE = 1.0
"""px, of Boundary F1."""
MOVED = 0.01
"""Share of their own spread from which on logits count as moved."""
TOLD = 0.005
"""What a path brings or costs at least, to be told: less is 0.00."""

_ORDERS = 12

_COUNTED = {"Boundary F1": "; pixels counts those of contours, in the labels and as the whole network paints them"}
"""What is said of scores that are not of all labelled pixels."""

Array = NDArray[Any]
Labels = NDArray[np.uint8]
Progress = Callable[[float], None]


@dataclass(frozen=True)
class Worth:
    """What one path delivers to one score.

    Attributes:
        path: the skip or the bottleneck.
        shapley: its share of ``full - none``, averaged over all orders of joining.
        alone_missing: the loss when only this path is absent (its data-set mean in its place).
        other_missing: the same with another image's features in its place; None where images differ in size.
    """

    path: Path
    shapley: Measured
    alone_missing: Measured
    other_missing: Measured | None

    def to_json(self) -> dict[str, Any]:
        return {name: as_json(value) for name, value in vars(self).items()}


@dataclass(frozen=True)
class Worths:
    """What every path delivers, by score.

    Attributes:
        paths: from the top skip to the bottleneck.
        full, none: each score with all paths, and with none.
        worth: for each score one record a path; their Shapley values add up to ``full - none``.
        coalitions: for each score its value for every coalition measured; bit p of the index is path p.
        exact: every coalition was measured; if not, how many random orders were.
        response: for each path, how much the logits move when it is absent, as a share of their own spread.
        constant: nothing moves whichever path is absent: the answer does not depend on the image.
    """

    paths: tuple[Path, ...]
    full: dict[str, Measured]
    none: dict[str, Measured]
    worth: dict[str, tuple[Worth, ...]]
    coalitions: dict[str, dict[int, float]]
    exact: bool
    response: tuple[float, ...]

    @property
    def constant(self) -> bool:
        return max(self.response) < MOVED

    def __str__(self) -> str:
        lines = []
        for score, worths in self.worth.items():
            parts = " + ".join(f"{one.path.name} {one.shapley.value or 0:+.2f}" for one in worths)
            lines.append(
                f"{score}: {self.full[score].value or 0:.2f} = none {self.none[score].value or 0:.2f} + {parts}"
            )
        return "\n".join(lines)

    def to_json(self) -> dict[str, Any]:
        return {name: as_json(value) for name, value in vars(self).items()}


def coalition_players(coalition: int, players: int) -> tuple[bool, ...]:
    """Which players are in a coalition.

    >>> coalition_players(0b101, 3)
    (True, False, True)
    """
    return tuple(bool(coalition >> player & 1) for player in range(players))


def shapley_matrix(players: int) -> Array:
    """``(players, 2**players)``: Shapley values are this matrix times the values of all coalitions.

    >>> shapley_matrix(2) @ np.array([0.0, 1.0, 0.0, 3.0])  # values of {}, {0}, {1}, {0, 1}
    array([2., 1.])
    """
    matrix = np.zeros((players, 2**players))
    for coalition in range(2**players):
        size = coalition.bit_count()
        for player in range(players):
            if coalition >> player & 1:
                matrix[player, coalition] += factorial(size - 1) * factorial(players - size) / factorial(players)
            else:
                matrix[player, coalition] -= factorial(size) * factorial(players - size - 1) / factorial(players)
    return matrix


def _all_orders(players: int) -> tuple[tuple[int, ...], Array]:
    return tuple(range(2**players)), shapley_matrix(players)[None]


def _sampled_orders(players: int, seed: int) -> tuple[tuple[int, ...], Array]:
    """Coalitions met along random orders of joining, and for each order with its reverse the matrix of mean gains.

    The matrices are ``(pairs, players, coalitions)``; the mean of all stands in for the Shapley matrix.
    """
    rng = np.random.default_rng(seed)
    orders = [rng.permutation(players).tolist() for _ in range(_ORDERS // 2)]
    pairs = [(order, order[::-1]) for order in orders]
    met = sorted({coalition for pair in pairs for order in pair for coalition in _joining(order)})
    places = {coalition: place for place, coalition in enumerate(met)}
    matrices = np.zeros((len(pairs), players, len(met)))
    for matrix, pair in zip(matrices, pairs):
        for order in pair:
            steps = [places[coalition] for coalition in _joining(order)]
            for player, before, after in zip(order, steps, steps[1:]):
                matrix[player, before] -= 1 / 2
                matrix[player, after] += 1 / 2
    return tuple(met), matrices


def _joining(order: Sequence[int]) -> list[int]:
    """The coalitions along an order of joining, from nobody to all.

    >>> _joining([2, 0, 1])
    [0, 4, 5, 7]
    """
    return list(accumulate((1 << player for player in order), initial=0))


class Tally:
    """Counts of one way to cut the network, over images: every score that is compared.

    Args:
        edges: False leaves out the scores of whole edges, which take most of the time.
    """

    def __init__(self, classes: Classes, *, edges: bool = True) -> None:
        self.judge = Judge(classes, tolerance=TOLERANCE, boundary=edges, contours_only=True)
        self.classes = classes.count
        self._inside: list[Array] = []
        self._edges: list[csr_array] = []  # of all pairs of classes few meet in an image

    def add(self, logits: Tensor, truth: Labels, found: Regions) -> None:
        logits = logits[0]
        prediction = logits.argmax(0).to(torch.uint8).cpu().numpy()
        self.judge.add(str(len(self)), truth, prediction)
        at = np.flatnonzero(found.boundary)
        own, rival = truth.ravel()[at].astype(int), found.rival.ravel()[at].astype(int)
        flat, sides = logits.flatten(1).cpu().numpy(), sides_of(own, rival, self.classes)
        self._inside.append(_counted(truth[found.interior], (prediction == truth)[found.interior], self.classes))
        self._edges.append(csr_array(_counted(sides, ahead(flat[own, at], flat[rival, at]), self.classes**2)))

    def __len__(self) -> int:
        return len(self._inside)

    @property
    def inside(self) -> Array:
        """Of each image and class how many interior pixels are right, and how many there are: ``(images, 2, C)``."""
        return np.stack(self._inside)

    @property
    def edges(self) -> Array:
        """The same of boundary pixels and sides of edges, ``(images, 2, C * C)``."""
        return np.stack([one.toarray() for one in self._edges])

    def pixels(self, score: str) -> int:
        """How many pixels a score is of; of Boundary F1 those of contours, in the truth and in the painting."""
        counts = self.judge.result().counts
        of = {
            "interior accuracy": self.inside[:, 1],
            "boundary accuracy": self.edges[:, 1],
            "Boundary F1": counts.contour[:, [0, 2]],
        }
        return int(of.get(score, counts.confusion).sum())

    def classes_inside(self) -> int:
        """How many classes have interior pixels."""
        return int((self.inside[:, 1].sum(0) > 0).sum())

    def tellers(self) -> dict[str, Array]:
        """Which images hold what a score is of."""
        held = tellers((self.judge.result().counts,), self.judge.classes.names)
        inner, edge = (of[:, 1].sum(1) > 0 for of in (self.inside, self.edges))
        scores = {"interior accuracy": inner, "boundary accuracy": edge, "mean IoU": held["mean_iou"]}
        scores |= {"Boundary F1": held["mean_boundary_f1"]}
        return scores | {f"IoU of {name}": held[f"iou/{name}"] for name in self.judge.classes.names}

    def scores(self, weights: Array) -> dict[str, Array]:
        """Each score for each resample, ``(resamples,)``; ``weights`` is ``(resamples, images)``."""
        names = self.judge.classes.names
        counts: Counts = self.judge.result().counts
        pooled = measures(counts.weighted(weights), names)
        inner, edge = (np.moveaxis(np.tensordot(weights, of, 1), 1, 0) for of in (self.inside, self.edges))
        return {
            "interior accuracy": balanced_accuracy(*inner),
            "boundary accuracy": sides_accuracy(*edge),
            "mean IoU": pooled["mean_iou"],
            "Boundary F1": pooled["mean_boundary_f1"],
            **{f"IoU of {name}": pooled[f"iou/{name}"] for name in names},
        }


def _counted(labels: Array, right: Array, count: int) -> Array:
    """Of each of ``count`` labels how many are right, and how many there are: ``(2, count)``."""
    return np.stack([np.bincount(labels, weights=right, minlength=count), np.bincount(labels, minlength=count)])


Cut = int | Path
"""A way to cut the network: the coalition of paths that pass, or the one path that brings another image's features."""


@torch.inference_mode()
def measure_skips(
    anatomy: Anatomy,
    images: Sequence[tuple[Tensor, Labels]],
    means: Sequence[Tensor],
    classes: Classes,
    *,
    distance: int,
    seed: int,
    precision: str,
    progress: Progress,
    edges: bool = True,
    units: Array | None = None,
) -> Worths:
    """Decode every coalition of every image once and share out each score.

    Args:
        images: ``(1, C, H, W)`` network input and ``H x W`` class ids of each.
        means: for each path its data-set mean, ``(1, channels, 1, 1)``.
        precision: what the caller lets decoders compute in, to be said with every value.
        edges: as of `Tally`.
        units: for each image a number that it shares with those it is drawn with in resamples; None: each goes alone.
    """
    units = np.arange(len(images)) if units is None else units
    players = len(anatomy.paths)
    whole = 2**players - 1
    met, matrices = _all_orders(players) if players <= MOST_EXACT else _sampled_orders(players, seed)
    coalitions = sorted({*met, *(whole & ~(1 << player) for player in range(players))})
    tallies: dict[Cut, Tally] = {}
    response = np.zeros(players)
    before = anatomy.carried(images[-1][0]) if len(images) > 1 else None
    for place, (image, truth) in enumerate(images):
        found, carried = regions(truth, distance), anatomy.carried(image)
        answer = anatomy.decode(carried, (image.shape[-2], image.shape[-1])).float()
        for cut, given in _cuts(anatomy, coalitions, carried, means, before):
            logits = anatomy.decode(given, (image.shape[-2], image.shape[-1])).float()
            tallies.setdefault(cut, Tally(classes, edges=edges)).add(logits, truth, found)
            if isinstance(cut, int) and (whole & ~cut).bit_count() == 1:
                response[(whole & ~cut).bit_length() - 1] += _moved(logits, answer) / len(images)
        before = carried if before is not None else None
        progress((place + 1) / len(images))
    return _share_out(anatomy.paths, tallies, met, matrices, units, seed, tuple(response.tolist()), precision)


def _cuts(
    anatomy: Anatomy,
    coalitions: Sequence[int],
    carried: Sequence[Tensor],
    means: Sequence[Tensor],
    before: Sequence[Tensor] | None,
) -> Iterator[tuple[Cut, list[Tensor]]]:
    """Every way to cut, and what the decoder is then given."""
    for coalition in coalitions:
        inside = coalition_players(coalition, len(carried))
        yield coalition, [own if here else mean.expand_as(own) for own, mean, here in zip(carried, means, inside)]
    if before is None or any(a.shape != b.shape for a, b in zip(before, carried)):
        return
    for player, path in enumerate(anatomy.paths):
        yield path, [before[p] if p == player else own for p, own in enumerate(carried)]


def _moved(logits: Tensor, answer: Tensor) -> float:
    """Root mean square change of what decides, in units of its own spread over pixels.

    What is added to all classes alike decides nothing, nor does what a class has of the answer everywhere. An answer
    that is the same at every place has no spread: whatever changes there is all of it.
    """
    change, own = (one - one.mean(1, keepdim=True) for one in (logits - answer, answer))
    spread = float((own - own.mean((2, 3), keepdim=True)).square().mean().sqrt())
    moved = float(change.square().mean().sqrt())
    return moved / spread if spread > 0 else float(moved > 0)


def _share_out(
    paths: tuple[Path, ...],
    tallies: dict[Cut, Tally],
    met: Sequence[int],
    matrices: Array,
    units: Array,
    seed: int,
    response: tuple[float, ...],
    precision: str,
) -> Worths:
    whole = 2 ** len(paths) - 1
    images = len(tallies[whole])
    weights = _as_seen_and_resampled(units, seed)
    drawn = _as_seen_and_resampled(np.arange(len(matrices)), seed + 1)  # not as the images are, however many there are
    scores = {cut: tally.scores(weights) for cut, tally in tallies.items() if len(tally) == images}
    # a class that only some ways to cut paint where there is none has an IoU there, and none elsewhere
    names = [name for name in scores[whole] if all(np.isfinite(scores[cut][name][0]) for cut in {*met, whole, 0})]
    if tallies[whole].classes_inside() < 2:  # of one class alone it says nothing of what
        names = [name for name in names if name != "interior accuracy"]
    pixels = {name: tallies[whole].pixels(name) for name in names}

    told = tallies[whole].tellers()

    def value(name: str, samples: Array, how: str, least: float = -1.0) -> Measured:
        of, independent = int(told[name].sum()), len(np.unique(units[told[name]]))
        low, high = interval(float(samples[0]), samples[1:], independent, (least, 1.0))
        found = float(samples[0]) if np.isfinite(samples[0]) else None
        method = f"{how}{_COUNTED.get(name, '')}; decoders in {precision}"
        return Measured(found, low, high, of, pixels[name], method, seed, sources_behind(of, independent))

    worth, ways = {}, _orders(len(paths))
    for name in names:
        of = {cut: found[name] for cut, found in scores.items()}
        values = np.stack([of[coalition] for coalition in met])
        shares = np.einsum("ro,opc,cr->pr", drawn / len(matrices), matrices, values)
        worth[name] = tuple(
            Worth(
                path,
                value(name, shares[player], f"Shapley value for {name} over {ways}; absent: data-set mean"),
                value(name, of[whole] - of[whole & ~(1 << player)], f"{name} lost when only this is its data-set mean"),
                value(name, of[whole] - of[path], f"{name} lost when only this path is another image's")
                if path in of
                else None,
            )
            for player, path in enumerate(paths)
        )
    return Worths(
        paths,
        {name: value(name, scores[whole][name], name, 0.0) for name in names},
        {name: value(name, scores[0][name], f"{name} with every path its data-set mean", 0.0) for name in names},
        worth,
        {name: {coalition: float(scores[coalition][name][0]) for coalition in met} for name in names},
        len(paths) <= MOST_EXACT,
        response,
    )


def _orders(players: int) -> str:
    if players <= MOST_EXACT:
        return f"all {2**players} coalitions"
    return f"{_ORDERS} sampled orders, which for the interval are resampled too"


def _as_seen_and_resampled(units: Array, seed: int) -> Array:
    """``(1 + resamples, count)``: how often each is drawn with those of its unit, as seen and in each resample."""
    drawn = draws(units, RESAMPLES // 4, np.random.default_rng(seed))
    return np.concatenate([np.ones((1, len(units)), int), drawn])
