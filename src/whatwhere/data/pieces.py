"""Can a small piece of an image tell its class by itself? A measure of how much context a data set asks for.

Where it can, objects are *filled*: their inside shows what they are, and a network needs almost no receptive field.
Where it can't, as with shapes of which only the outline is drawn, it needs one as large as the object (Loos et al.
2024, doi 10.1117/1.JMI.11.5.054004). Knows images and label maps; nothing of networks.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

__all__ = ["SIDE", "PieceTest", "Pieces", "judge_pieces", "places_tried", "sample_pieces"]

SIDE = 9
"""px; pieces are squares of this side that lie wholly in one class."""

_TRIED = 64
"""Places tried for each class of an image, where there are many; those near an edge of the class give no piece."""
_MOST, _FEWEST = 600, 50
"""Pieces of a class in each half of the images."""
_NEIGHBOURS = 15


@dataclass(frozen=True, eq=False)
class Pieces:
    """Pieces of one image.

    Attributes:
        features: ``(n, 2 C)``: mean and standard deviation of each channel.
        labels: ``(n,)`` class ids.
    """

    features: NDArray[np.float32]
    labels: NDArray[np.uint8]


@dataclass(frozen=True)
class PieceTest:
    """How often a piece alone tells its class, in images that were not learnt from.

    Attributes:
        accuracy: share rightly told, mean over classes.
        chance: of guessing.
        classes: ids of those that were asked: the others have no insides of ``SIDE`` px, or too few.
    """

    accuracy: float
    chance: float
    classes: tuple[int, ...]


def places_tried(images: int) -> int:
    """For each class of an image: the fewer images there are, the more."""
    return max(_TRIED, 2 * _MOST // max(1, images))


def sample_pieces(image: NDArray[Any], labels: NDArray[np.uint8], classes: int, *, tried: int = _TRIED) -> Pieces:
    """Pieces of every class of an image ``H x W x C`` with class ids ``H x W``; the same each time.

    >>> pieces = sample_pieces(np.zeros((20, 20, 1)), np.repeat(np.uint8([[0, 1]]), 10, axis=1).repeat(20, axis=0), 2)
    >>> set(pieces.labels.tolist()), pieces.features.shape[1]
    ({0, 1}, 2)
    """
    features, kept = [np.zeros((0, 2 * image.shape[2]), np.float32)], [np.zeros(0, np.uint8)]
    if min(labels.shape) >= SIDE:
        rng = np.random.default_rng(0)
        around, views = sliding_window_view(labels, (SIDE, SIDE)), sliding_window_view(image, (SIDE, SIDE), axis=(0, 1))
        middles = labels[SIDE // 2 : -(SIDE // 2), SIDE // 2 : -(SIDE // 2)]
        for class_id in range(classes):
            there = np.flatnonzero(middles == class_id)
            if len(there):
                rows, columns = np.divmod(there[rng.integers(len(there), size=tried)], middles.shape[1])
                inside = (around[rows, columns] == class_id).all((1, 2))
                seen = views[rows[inside], columns[inside]].astype(np.float64)
                features.append(np.concatenate([seen.mean((2, 3)), seen.std((2, 3))], 1).astype(np.float32))
                kept.append(np.full(int(inside.sum()), class_id, np.uint8))
    values, label = np.concatenate(features), np.concatenate(kept)
    finite = np.isfinite(values).all(1)
    return Pieces(values[finite], label[finite])


def judge_pieces(samples: Sequence[Pieces]) -> PieceTest | None:
    """Nearest neighbours among the pieces of every other image vote on those between, and the other way round.

    Images of other channels than most are left out. None where fewer than two classes have enough pieces in both
    halves.
    """
    if not samples:
        return None
    usual = Counter(one.features.shape[1] for one in samples).most_common(1)[0][0]
    samples = [one for one in samples if one.features.shape[1] == usual]
    halves = [_joined(samples[start::2]) for start in (0, 1)]
    enough = [set(np.flatnonzero(np.bincount(half.labels, minlength=256) >= _FEWEST)) for half in halves]
    asked = sorted(int(class_id) for class_id in enough[0] & enough[1])
    if len(asked) < 2:
        return None
    first, second = (_balanced(half, asked) for half in halves)
    right = [_vote(first, second), _vote(second, first)]
    accuracies = [np.mean([hits[of.labels == c].mean() for c in asked]) for hits, of in zip(right, (second, first))]
    return PieceTest(float(np.mean(accuracies)), 1 / len(asked), tuple(asked))


def _joined(samples: Sequence[Pieces]) -> Pieces:
    if not samples:  # one image has no other half
        return Pieces(np.zeros((0, 0), np.float32), np.zeros(0, np.uint8))
    return Pieces(np.concatenate([one.features for one in samples]), np.concatenate([one.labels for one in samples]))


def _balanced(half: Pieces, asked: Sequence[int]) -> Pieces:
    """Equally many pieces of each class, spread over the images."""
    places = [np.flatnonzero(half.labels == class_id) for class_id in asked]
    count = min(_MOST, *(len(one) for one in places))
    chosen = np.concatenate([one[np.linspace(0, len(one) - 1, count).round().astype(int)] for one in places])
    return Pieces(half.features[chosen], half.labels[chosen])


def _vote(known: Pieces, asked: Pieces) -> NDArray[np.bool_]:
    """Which of the asked pieces their nearest known ones give the right class."""
    from scipy.spatial import cKDTree  # slow to import, and only surveys need it

    features = known.features.astype(np.float64)  # in which the squares of all float32 numbers are finite
    mean, scale = features.mean(0), np.maximum(features.std(0), 1e-6)
    tree = cKDTree((features - mean) / scale)
    _, nearest = tree.query((asked.features - mean) / scale, k=min(_NEIGHBOURS, len(known.labels)))
    votes = np.stack([(known.labels[nearest] == c).sum(1) for c in np.unique(known.labels)], 1)
    right: NDArray[np.bool_] = np.unique(known.labels)[votes.argmax(1)] == asked.labels
    return right
