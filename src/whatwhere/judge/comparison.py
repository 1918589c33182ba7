"""Is model A better than model B on these images? A paired bootstrap over images, or over sources of them.

Knows two records of scores; nothing of models or images.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rich.console import RenderableType

from whatwhere.errors import DataError
from whatwhere.judge.bootstrap import ENOUGH
from whatwhere.judge.measures import LOWER_IS_BETTER, estimate, limits_of, resampled, tellers
from whatwhere.judge.scores import Scores
from whatwhere.judge.tables import comparison_table, plain

__all__ = ["Comparison", "Difference", "compare"]


@dataclass(frozen=True)
class Difference:
    """One score of both, and how much of the difference is chance.

    Attributes:
        score: its name, ``"mean_iou"`` or ``"iou/cat"``.
        a, b: pooled over all images.
        difference: ``a - b``.
        low, high: 95 % interval of the difference over images or sources; None with fewer than two.
        a_better: share of resamples in which A is better, ties counting half; None with fewer than two.
        images: how many images tell of it: of a class those that hold it, in truth or either painting; of its recall
            only in truth, of its precision only in a painting.
        independent: how many of these are independent: as many, or the sources that they are of.
    """

    score: str
    a: float
    b: float
    difference: float
    low: float | None
    high: float | None
    a_better: float | None
    images: int = 0
    independent: int = 0

    @property
    def lower_is_better(self) -> bool:
        return self.score.removeprefix("mean_").startswith(LOWER_IS_BETTER)

    @property
    def clear(self) -> bool:
        """The interval does not hold 0, and comes of enough images to be worth its name."""
        if self.low is None or self.high is None or self.independent < ENOUGH:
            return False
        return self.low > 0 or self.high < 0


@dataclass(frozen=True)
class Comparison:
    """Two models on the same images; made by `compare`, prints itself.

    Attributes:
        differences: one for each score that both have.
        images: how many.
        independent: how many of these are independent: as many, or the sources that they are of.
        a, b: what to call the two.
        part: which images of the data they are, in words; empty if not told.
    """

    differences: tuple[Difference, ...]
    images: int
    resamples: int
    seed: int
    a: str = "A"
    b: str = "B"
    independent: int = 0
    part: str = ""

    def __getitem__(self, score: str) -> Difference:
        for found in self.differences:
            if found.score == score:
                return found
        raise KeyError(f"{score!r}; there are {', '.join(found.score for found in self.differences)}")

    def __rich__(self) -> RenderableType:
        return comparison_table(self)

    def __str__(self) -> str:
        return plain(self)

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_json(cls, record: dict[str, Any]) -> Comparison:
        differences = tuple(Difference(**found) for found in record["differences"])
        told = {name: record[name] for name in cls.__dataclass_fields__ if name in record}  # older ones lack the part
        return cls(**told | {"differences": differences})


def compare(
    scores_a: Scores, scores_b: Scores, *, resamples: int = 2000, seed: int = 0, names: tuple[str, str] = ("A", "B")
) -> Comparison:
    """Differences ``a - b`` of every pooled score, with paired bootstrap intervals.

    Each resample draws images with replacement, the same for both, pools their counts and takes the difference: what
    makes an image hard for both cancels out. Images of five sources or more are drawn with their source. This says how
    the two *trained models* differ on images like these, not how their recipes would differ over other training seeds.

    Args:
        scores_a, scores_b: of the same images with the same truth, in any order.
        names: what to call the two in the table.

    Raises:
        DataError: images, classes, truth or tolerance differ.
    """
    order = _same_images(scores_a, scores_b)
    counts_b = scores_b.counts.take(order)
    if not np.array_equal(scores_a.counts.confusion.sum(-1), counts_b.confusion.sum(-1)):
        raise DataError("the masks behind the two scores differ", "the same truth for both", "evaluate both again")
    samples_a: dict[str, NDArray[np.float64]] = {}
    samples_b: dict[str, NDArray[np.float64]] = {}
    both, units = (scores_a.counts, counts_b), scores_a.units
    if len(scores_a.images) > 1:
        samples_a, samples_b = resampled(both, scores_a.classes.names, resamples, seed, units)
    differences = []
    told = tellers(both, scores_a.classes.names)
    for key, a in scores_a.pooled.items():
        b = scores_b.pooled[key]
        if not np.isnan(a - b):
            samples = samples_a[key] - samples_b[key] if samples_a else None
            counted = int(told[key].sum()), len(np.unique(units[told[key]]))
            differences.append(_difference(key, a, b, samples, *counted))
    part = _part(scores_a.part, scores_b.part)
    return Comparison(
        tuple(differences), len(scores_a.images), resamples, seed, *names, independent=len(np.unique(units)), part=part
    )


def _part(a: str, b: str) -> str:
    """Which images they are; for each where it is not the same to both: one may have learnt from them."""
    return a if a == b else f"to the first {a or 'not told'}; to the second {b or 'not told'}"


def _difference(
    score: str, a: float, b: float, samples: NDArray[np.float64] | None, images: int, independent: int
) -> Difference:
    samples = samples if independent > 1 else None  # one resampled is always itself
    found = estimate(a - b, samples, independent, limits_of(score, difference=True))
    row = Difference(score, a, b, a - b, found.low, found.high, None, images, independent)
    if samples is None:
        return row
    gain = samples[~np.isnan(samples)] * (-1 if row.lower_is_better else 1)
    share = float(np.mean((np.sign(gain) + 1) / 2)) if len(gain) else None
    return replace(row, a_better=share)


def _same_images(a: Scores, b: Scores) -> list[int]:
    """Where in ``b`` the images of ``a`` are."""
    only = sorted(set(a.images) ^ set(b.images))
    if only:
        some = ", ".join(only[:3]) + (", ..." if len(only) > 3 else "")
        raise DataError(
            f"{len(only)} images scored in one only: {some}",
            "the same images in both",
            "evaluate both models on the same folder and split",
        )
    if a.classes.names != b.classes.names:
        raise DataError(
            f"classes {', '.join(a.classes.names)} and {', '.join(b.classes.names)}",
            "the same classes in the same order",
            "compare models that were trained for the same classes",
        )
    if (a.tolerance, a.boundary) != (b.tolerance, b.boundary):
        raise DataError(
            f"edges judged {_edges(a)} and {_edges(b)}", "the same way for both", "evaluate both with the same settings"
        )
    place = {name: i for i, name in enumerate(b.images)}
    return [place[name] for name in a.images]


def _edges(scores: Scores) -> str:
    return f"within {scores.tolerance:g} px" if scores.boundary else "not at all"
