"""A measured value with all that is needed to judge it: interval, number of images and pixels, method, seed.

Knows numbers only; nothing of networks, images or pixels.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from whatwhere.judge.bootstrap import draws, interval, sources_behind

__all__ = [
    "RESAMPLES",
    "Measured",
    "as_json",
    "balanced_accuracy",
    "measured_accuracy",
    "sides_accuracy",
]

RESAMPLES = 1000
"""Bootstrap resamples behind each 95 % interval; of what skips are worth a quarter as many, for time."""

Array = NDArray[Any]


@dataclass(frozen=True)
class Measured:
    """One measured value.

    Attributes:
        value: None where there was nothing to measure.
        low, high: 95 % bootstrap interval over images, or over the sources that bind them (see `judge.bootstrap`); None
            with fewer than two.
        images, pixels: on how many of each it was measured; the method says if pixels stand for units or regions.
        method: in one sentence.
        seed: of sampling and bootstrap.
        sources: of how many sources these images are, where the interval is over sources; else None.

    >>> print(Measured(0.912, 0.88, 0.94, images=20, pixels=2400, method="...", seed=0))
    0.91 [0.88, 0.94]
    """

    value: float | None
    low: float | None
    high: float | None
    images: int
    pixels: int
    method: str
    seed: int
    sources: int | None = None

    @property
    def independent(self) -> int:
        """How many independent things it was measured on: sources where they bind images, else images."""
        return self.images if self.sources is None else self.sources

    def __str__(self) -> str:
        if self.value is None:
            return "–"
        if self.low is None or self.high is None:
            return f"{self.value:.2f}"
        return f"{self.value:.2f} [{self.low:.2f}, {self.high:.2f}]"

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def balanced_accuracy(right: Array, total: Array) -> Array:
    """Mean over classes (the last axis) of the share right; classes without a pixel are left out, NaN if all are.

    >>> balanced_accuracy(np.array([9, 1, 0]), np.array([10, 2, 0]))
    array(0.7)
    """
    total = np.asarray(total, np.float64)
    share = np.divide(right, total, out=np.zeros(total.shape), where=total > 0)
    counted = (total > 0).sum(-1).astype(np.float64)
    mean: Array = np.divide(share.sum(-1), counted, out=np.full(counted.shape, np.nan), where=counted > 0)
    return mean


def sides_accuracy(right: Array, total: Array) -> Array:
    """Of what side of an edge a pixel is on; the last axis is ``own class * classes + the class that meets it``.

    For each pair of classes the mean of both sides' share right, and of the pairs the mean by their pixels: so an
    answer that does not look at the image is right half of the time, whatever it prefers and however many classes
    there are. Pairs of which one side has no pixel are left out, unless there are no others; NaN without any pixel.

    >>> always_the_first = np.array([0, 20, 10, 0, 0, 0, 0, 0, 0]), np.array([0, 20, 10, 20, 0, 0, 10, 0, 0])
    >>> sides_accuracy(*always_the_first)
    array(0.5)
    """
    total = np.asarray(total, np.float64)
    classes = round(total.shape[-1] ** 0.5)
    square = (*total.shape[:-1], classes, classes)
    share = np.divide(right, total, out=np.zeros(total.shape), where=total > 0).reshape(square)
    pixels = total.reshape(square)
    both = (pixels > 0) & (pixels.swapaxes(-1, -2) > 0)
    weight = np.where(both, pixels + pixels.swapaxes(-1, -2), 0)
    weight = np.where(both.any((-1, -2), keepdims=True), weight, pixels)
    of = weight.sum((-1, -2))
    mean: Array = np.divide((weight * share).sum((-1, -2)), of, out=np.full(of.shape, np.nan), where=of > 0)
    return mean


def measured_accuracy(
    right: Array,
    total: Array,
    method: str,
    seed: int,
    how: Callable[[Array, Array], Array] = balanced_accuracy,
    images: int | None = None,
) -> Measured:
    """Accuracy of all with its interval; ``right`` and ``total`` are ``(images, classes)``, or sides of them.

    Where sources bind images their rows are ``(sources, classes)``, and ``images`` says of how many images.
    """
    value = float(how(right.sum(0), total.sum(0)))
    independent = int((total.sum(1) > 0).sum())
    images = independent if images is None else images
    low = high = None
    if independent > 1:
        rng, everyone = np.random.default_rng(seed), np.arange(len(right))
        counts = right.astype(float), total.astype(float)  # BLAS knows no integers
        samples = []
        for _ in range(RESAMPLES // 100):  # the sides of edges of 1000 resamples of 150 classes would be 180 MB
            drawn = draws(everyone, 100, rng)
            samples.append(how(*(drawn @ count for count in counts)))
        low, high = interval(value, np.concatenate(samples), independent, (0.0, 1.0))
    sources = sources_behind(images, independent)
    found = None if np.isnan(value) else value
    return Measured(found, low, high, images, int(total.sum()), method, seed, sources)


def as_json(value: Any) -> Any:
    """A record, or tuples and dictionaries of records, as plain lists, numbers and text."""
    if isinstance(value, tuple | list):
        return [as_json(item) for item in value]
    if isinstance(value, dict):
        return {str(key): as_json(item) for key, item in value.items()}
    return value.to_json() if hasattr(value, "to_json") else value
