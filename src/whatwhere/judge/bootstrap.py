"""95 % intervals by drawing again what is independent: images, or the sources that bind them.

A source is a folder (of a patient, a flight), or the image that others are pieces or copies of. Knows numbers and the
names of images; nothing of scores, images or files.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import inf, sqrt
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import stdtrit

from whatwhere.data.split import gathered

__all__ = ["ENOUGH", "bound_by", "draws", "interval", "over", "sources_behind"]

ENOUGH = 5
"""Nothing is called a difference by fewer images, or sources of images: of two the interval is all there can be."""

Array = NDArray[Any]


def bound_by(sources: Sequence[str]) -> NDArray[np.int_]:
    """For each image a number that it shares with those it is drawn with: the others of its source (`sources_of`).

    Images of one patient or one flight are alike, so twenty of five are worth about five. As where a folder of data is
    divided, sources bind where there are five or more and none holds most; elsewhere each image goes alone.

    >>> bound_by(["a", "a", "b", "c", "d", "e", ""]).tolist(), bound_by(["a", "a", "b"]).tolist()
    ([0, 0, 1, 2, 3, 4, 5], [0, 1, 2])
    """
    bound = gathered(sources)
    if not bound or max(map(len, bound)) > len(sources) // 2:
        return np.arange(len(sources))
    units = np.zeros(len(sources), int)
    for number, places in enumerate(bound):
        units[places] = number
    return units


def draws(units: Array, resamples: int, rng: np.random.Generator) -> Array:
    """``(resamples, images)``: how often each image is drawn, always with all that it is bound to."""
    count = len(np.unique(units))
    drawn: Array = rng.multinomial(count, np.full(count, 1 / count), resamples)[:, units]
    return drawn


def interval(
    value: float, samples: Array, independent: int, limits: tuple[float, float] = (-inf, inf)
) -> tuple[float | None, float | None]:
    """Percentiles of the samples that are defined, about the value as much wider as so few independent draws ask.

    A percentile interval is too narrow by ``sqrt((n - 1) / n)``, and by what Student's t with ``n - 1`` degrees of
    freedom is wider than a normal distribution (Hesterberg 2015, doi 10.1080/00031305.2015.1089789): of five images
    it would miss one time in six.

    Args:
        value: what was measured of all; NaN has no interval.
        independent: how many images, or sources of them, tell of it; fewer than two have no interval.
        limits: what the value can be at all.

    >>> interval(0.5, np.linspace(0.4, 0.6, 101), 5, (0.0, 1.0))
    (0.3495..., 0.6504...)
    """
    defined = samples[~np.isnan(samples)]
    if independent < 2 or not len(defined) or np.isnan(value):
        return None, None
    wider = stdtrit(independent - 1, 0.975) / stdtrit(inf, 0.975) * sqrt(independent / (independent - 1))
    low, high = np.percentile(defined, (2.5, 97.5))
    low, high = min(low, value - (value - low) * wider), max(high, value + (high - value) * wider)
    return float(max(low, limits[0])), float(min(high, limits[1]))


def sources_behind(images: int, independent: int) -> int | None:
    """Of how many sources so many images were drawn; None where each was drawn alone."""
    return None if images == independent else independent


def over(images: int, independent: int) -> str:
    """What was drawn, in words.

    >>> over(20, 20), over(20, 6)
    ('20 images', '20 images of 6 sources (folders; pieces or copies of one image), which are drawn whole')
    """
    counted, sources = f"{images} image{'s' if images > 1 else ''}", sources_behind(images, independent)
    if sources is None:
        return counted
    return f"{counted} of {sources} sources (folders; pieces or copies of one image), which are drawn whole"
