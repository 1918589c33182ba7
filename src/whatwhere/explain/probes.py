"""Linear probes: what can be read from features by a weighted sum. Knows feature matrices; nothing of networks.

A probe is a regularised multinomial logistic regression (Alain & Bengio 2016, arXiv 1610.01644) on standardised
features. It is always scored on images that it was not fitted on.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GroupKFold
from threadpoolctl import ThreadpoolController

__all__ = [
    "FOLDS",
    "STRENGTH",
    "Probe",
    "fit_probe",
    "folds_over",
    "held_out_logits",
    "projected",
    "shown_both",
    "softmax",
    "unit_of",
]

FOLDS = 5
STRENGTH = 0.01
"""scikit-learn's ``C``, the inverse of the L2 penalty. Strong, because pixels of one image resemble each other."""

_ITERATIONS = 100

Array = NDArray[Any]


@dataclass(frozen=True, eq=False)
class Probe:
    """A fitted probe: ``logits = (x - mean) / scale @ weights.T + bias``, one row of weights a class.

    Classes it has not seen have a logit of minus infinity.
    """

    mean: Array
    scale: Array
    weights: Array
    bias: Array

    def logits(self, features: Array) -> Array:
        """``(n, features) -> (n, classes)``."""
        found: Array = ((features - self.mean) / self.scale) @ self.weights.T + self.bias
        return found


def fit_probe(features: Array, labels: Array, classes: int) -> Probe:
    """Fit on ``(n, features)`` and ``(n,)`` class ids; every class counts the same. Deterministic."""
    mean, scale = features.mean(0), features.std(0)
    scale = np.where(scale > 1e-8, scale, 1.0)
    seen = np.unique(labels)
    weights = np.zeros((classes, features.shape[1]))
    bias = np.full(classes, -np.inf)
    if len(seen) < 2:
        bias[seen] = 0.0
        return Probe(mean, scale, weights, bias)
    regression = LogisticRegression(C=STRENGTH, class_weight="balanced", max_iter=_ITERATIONS)
    # matrices of a few thousand numbers: to share them out takes longer than to multiply them
    with _threads().limit(limits=1, user_api="blas"), warnings.catch_warnings():
        # shuffled labels have no optimum worth waiting for
        warnings.simplefilter("ignore", ConvergenceWarning)
        regression.fit((features - mean) / scale, labels)
    if len(seen) == 2:
        half, offset = regression.coef_[0] / 2, regression.intercept_[0] / 2
        weights[seen[0]], weights[seen[1]] = -half, half
        bias[seen[0]], bias[seen[1]] = -offset, offset
    else:
        weights[seen], bias[seen] = regression.coef_, regression.intercept_
    return Probe(mean, scale, weights, bias)


@cache
def _threads() -> ThreadpoolController:
    return ThreadpoolController()


def held_out_logits(
    features: Array,
    labels: Array,
    groups: Array,
    classes: int,
    seed: int | Sequence[int] | None = None,
    folds: int = FOLDS,
) -> Array:
    """``(n, classes)`` logits of each row by a probe fitted on other groups (images) only; NaN if there are none.

    With ``seed``, the control: every probe is fitted on shuffled labels.
    """
    found = np.full((len(labels), classes), np.nan)
    rng = None if seed is None else np.random.default_rng(seed)
    for fitted, held_out in _parts(groups, folds):
        shown = labels[fitted] if rng is None else rng.permutation(labels[fitted])
        found[held_out] = fit_probe(features[fitted], shown, classes).logits(features[held_out])
    return found


def _parts(groups: Array, folds: int = FOLDS) -> Iterator[tuple[Array, Array]]:
    """Rows to fit on and rows to hold out, in turn; none where all are of one group."""
    count = len(np.unique(groups))
    if count > 1:
        yield from GroupKFold(min(folds, count)).split(groups, groups=groups)


def shown_both(labels: Array, groups: Array) -> Array:
    """Whether the probe that `held_out_logits` asks of a row was fitted on more than one label: else it knows no other.

    >>> shown_both(np.array([1, 1, 0, 0]), np.array([0, 0, 1, 1])).tolist()
    [False, False, False, False]
    """
    found = np.zeros(len(labels), bool)
    for fitted, held_out in _parts(groups):
        found[held_out] = len(np.unique(labels[fitted])) > 1
    return found


def unit_of(groups: Array, images: Array) -> str:
    """What rows of these images share that are held out together: an image, a source, or a quarter of the only one."""
    parts, shown = len(np.unique(groups)), len(np.unique(images))
    return "images" if parts == shown else "sources of images" if parts < shown else "quarters of the image"


def folds_over(groups: Array, images: Array) -> str:
    """How `held_out_logits` holds out rows of these images, in words.

    >>> folds_over(np.array([0, 0, 1]), np.array([0, 1, 2]))
    '2-fold over sources of images'
    """
    return f"{min(FOLDS, len(np.unique(groups)))}-fold over {unit_of(groups, images)}"


def projected(features: Array, count: int, seed: int) -> Array:
    """``count`` random directions of the standardised features, so that all levels have equally many."""
    if features.shape[1] <= count or not len(features):
        return features
    scale = features.std(0)
    directions = np.random.default_rng(seed).normal(size=(features.shape[1], count)) / np.sqrt(features.shape[1])
    found: Array = ((features - features.mean(0)) / np.where(scale > 1e-8, scale, 1.0)) @ directions
    return found.astype(np.float32)


def softmax(logits: Array) -> tuple[float, ...]:
    """The probabilities of the classes, from the logits of one row; of a class that was not seen 0.

    >>> softmax(np.array([1.0, 1.0, -np.inf]))
    (0.5, 0.5, 0.0)
    """
    powers = np.exp(logits - logits.max())
    return tuple(float(power) for power in powers / powers.sum())
