"""The scores of a model on a set of images: a record that prints itself and has a JSON form.

Knows counts and measures; nothing of images or networks.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rich.console import RenderableType

from whatwhere.data.split import sources_of
from whatwhere.errors import DataError
from whatwhere.judge.bootstrap import bound_by, over
from whatwhere.judge.boundaries import DILATION_RATIO
from whatwhere.judge.counts import BINS, Counts
from whatwhere.judge.measures import Estimate, estimate, limits_of, measures, resampled, tellers
from whatwhere.judge.tables import plain, scores_table
from whatwhere.records import Classes

__all__ = ["Bin", "Scores"]

_FORMAT = 1


@dataclass(frozen=True)
class Bin:
    """One bin of the reliability diagram: pixels whose confidence lies in ``(low, high]``.

    Attributes:
        confidence: their mean confidence, None if there are none.
        accuracy: the share of them that is right.
    """

    low: float
    high: float
    pixels: int
    confidence: float | None
    accuracy: float | None


@dataclass(frozen=True, eq=False)
class Scores:
    """Scores over images. Made by `Judge.result`; everything is computed from the counts when it is asked for.

    Attributes:
        classes: the classes that were judged.
        images: the names of the images.
        counts: what was counted, leading axis the images.
        tolerance: px, of boundary F1 and surface Dice.
        boundary: whether edges were measured.
        seed, resamples: of the bootstrap.
        part: which images of the data they are, in words; empty if not told.
    """

    classes: Classes
    images: tuple[str, ...]
    counts: Counts
    tolerance: float
    boundary: bool
    seed: int = 0
    resamples: int = 1000
    part: str = ""

    @cached_property
    def pooled(self) -> dict[str, float]:
        """Every score of all images together by name (``"mean_iou"``, ``"iou/cat"``); NaN where nothing is to score."""
        return {key: float(value) for key, value in measures(self.counts.total(), self.classes.names).items()}

    @cached_property
    def per_image(self) -> dict[str, NDArray[np.float64]]:
        """Every score of each image alone, ``(images,)`` by name; NaN where nothing is to score."""
        return measures(self.counts, self.classes.names)

    @cached_property
    def units(self) -> NDArray[np.int_]:
        """For each image a number that it shares with those that bootstraps draw with it: the others of its source."""
        return bound_by(sources_of(self.images))

    @cached_property
    def estimates(self) -> dict[str, Estimate]:
        """Every pooled score with its 95 % bootstrap interval over images or sources (none with fewer than 2)."""
        samples: dict[str, NDArray[np.float64]] = {}
        if len(self.images) > 1:
            (samples,) = resampled((self.counts,), self.classes.names, self.resamples, self.seed, self.units)
        told = tellers((self.counts,), self.classes.names)
        return {
            key: estimate(value, samples.get(key), len(np.unique(self.units[told[key]])), limits_of(key))
            for key, value in self.pooled.items()
        }

    @property
    def mean_iou(self) -> float:
        """Mean over the scored classes of IoU, pooled over all images; NaN if no pixel counts."""
        return self.pooled["mean_iou"]

    @property
    def iou(self) -> dict[str, float]:
        """IoU by class name, pooled; NaN for a class in neither truth nor prediction."""
        return {name: self.pooled[f"iou/{name}"] for name in self.classes.names}

    @property
    def confusion(self) -> NDArray[np.int64]:
        """``(C, C)`` pixels of all images; rows are the truth, columns the prediction."""
        total: NDArray[np.int64] = self.counts.confusion.sum(0)
        return total

    @property
    def reliability(self) -> tuple[Bin, ...]:
        """The reliability diagram of all pixels that count; empty if no probabilities were given."""
        pixels, confidence, right = self.counts.calibration.sum(0)
        if not pixels.any():
            return ()
        return tuple(
            Bin(m / BINS, (m + 1) / BINS, int(n), float(c / n) if n else None, float(r / n) if n else None)
            for m, (n, c, r) in enumerate(zip(pixels, confidence, right))
        )

    def worst(self, count: int = 10) -> list[tuple[str, float]]:
        """Names and mean IoU (over the classes of the image's truth) of the images that went worst, worst first.

        A stray pixel of another class spoils the class that it was taken from, and is none of its own. An image without
        a pixel that counts is not listed.
        """
        confusion = self.counts.confusion
        true, right = confusion.sum(-1), np.diagonal(confusion, axis1=-2, axis2=-1)
        union = np.maximum(true + confusion.sum(-2) - right, 1)
        shown = (true > 0).sum(-1)
        values = np.where(shown > 0, np.where(true > 0, right / union, 0).sum(-1) / np.maximum(shown, 1), np.nan)
        order = [i for i in np.argsort(values, kind="stable") if not np.isnan(values[i])]
        return [(self.images[i], float(values[i])) for i in order[:count]]

    @property
    def rules(self) -> tuple[str, ...]:
        """How the scores are defined, in plain words."""
        said = [
            "Pixels of all images are pooled. A class in neither truth nor prediction is not scored and in no mean."
            " Void pixels never count.",
            f"95 % intervals: bootstrap over {over(len(self.images), len(np.unique(self.units)))}, {self.resamples}"
            f" resamples, seed {self.seed}; wider for few, by Student's t."
            if len(self.images) > 1
            else "No intervals: one image says nothing about how images differ.",
        ]
        sources = sources_of(self.images)
        if 1 < len(set(sources)) < len(sources) == len(np.unique(self.units)):
            said.append(
                "The images are of few folders or sources, or most are of one, so they are drawn one by one: if one is "
                "a patient, a flight or a single image, intervals are too narrow."
            )
        if self.boundary:
            said.append(
                "An edge lies between two pixels that count; void and the image's frame make none."
                f" Boundary IoU: pixels within {DILATION_RATIO:.0%} of the diagonal of an edge."
                f" Boundary F1, surface Dice: tolerance {self.tolerance:g} px."
            )
            said.append(
                "HD95 (Hausdorff): the larger directed 95th percentile, mean over images;"
                " the image's diagonal where only truth or only prediction has an edge."
            )
        if self.reliability:
            said.append(f"Calibration error: {BINS} equal bins of the painted class's probability, all pixels pooled.")
        return tuple(said)

    def __rich__(self) -> RenderableType:
        return scores_table(self)

    def __str__(self) -> str:
        return plain(self)

    def to_json(self) -> dict[str, Any]:
        """Plain lists, numbers and text; None where nothing is to score. `from_json` needs ``counts`` to come back."""
        return {
            "format": _FORMAT,
            "rules": list(self.rules),
            "scores": {key: vars(found) for key, found in self.estimates.items()},
            "confusion": self.confusion.tolist(),
            "reliability": [vars(one) for one in self.reliability],
            "images": [
                {"name": name, **{key: _or_none(values[i]) for key, values in self.per_image.items()}}
                for i, name in enumerate(self.images)
            ],
            "classes": self.classes.to_json(),
            "tolerance": self.tolerance,
            "boundary": self.boundary,
            "seed": self.seed,
            "resamples": self.resamples,
            "part": self.part,
            "counts": self.counts.to_json(),
        }

    @classmethod
    def from_json(cls, record: dict[str, Any]) -> Scores:
        """The scores that `to_json` wrote.

        Raises:
            DataError: the record is not one of scores, or of another format.
        """
        if record.get("format") != _FORMAT or "counts" not in record:
            raise DataError(
                f"a record of format {record.get('format')!r} with {', '.join(sorted(record)[:5]) or 'nothing'}",
                f"scores of format {_FORMAT}",
                "write it with `whatwhere evaluate --json`",
            )
        return cls(
            classes=Classes.from_json(record["classes"]),
            images=tuple(image["name"] for image in record["images"]),
            counts=Counts.from_json(record["counts"]),
            tolerance=float(record["tolerance"]),
            boundary=bool(record["boundary"]),
            seed=int(record["seed"]),
            resamples=int(record["resamples"]),
            part=str(record.get("part", "")),
        )


def _or_none(value: float) -> float | None:
    return None if np.isnan(value) else float(value)
