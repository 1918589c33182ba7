from __future__ import annotations

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler

from whatwhere.explain.probes import STRENGTH, fit_probe, held_out_logits, projected


def clouds(classes: int, n: int = 300, apart: float = 2.0, features: int = 6) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(classes)
    labels = rng.integers(0, classes, n)
    return rng.normal(size=(n, features)) + apart * rng.normal(size=(classes, features))[labels], labels


@pytest.mark.parametrize("classes", [2, 3, 5])
def test_a_probe_is_a_logistic_regression_on_standardised_features(classes: int) -> None:
    x, y = clouds(classes)
    scaled = StandardScaler().fit_transform(x)
    reference = LogisticRegression(C=STRENGTH, class_weight="balanced").fit(scaled, y)
    logits = fit_probe(x, y, classes).logits(x)
    chances = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    assert np.allclose(chances, reference.predict_proba(scaled), atol=1e-3)


def test_a_class_it_never_saw_is_never_said() -> None:
    x, y = clouds(2)
    assert np.isneginf(fit_probe(x, y, 4).logits(x)[:, 2:]).all()
    assert (fit_probe(x, np.ones(len(x), int), 3).logits(x).argmax(1) == 1).all()


def test_a_feature_that_never_changes_does_no_harm() -> None:
    x, y = clouds(3)
    with_constant = np.concatenate([x, np.full((len(x), 1), 7.0)], 1)
    assert np.allclose(fit_probe(with_constant, y, 3).logits(with_constant), fit_probe(x, y, 3).logits(x))


def test_held_out_images_are_never_fitted_on() -> None:
    """Features that only name the image would give the label away, were images shared between fit and test."""
    groups = np.repeat(np.arange(10), 20)
    labels = np.repeat(np.random.default_rng(0).permutation([0, 1] * 5), 20)
    found = held_out_logits(np.eye(10)[groups], labels, groups, 2)
    assert (found.argmax(1) == labels).mean() < 0.6
    leaking = held_out_logits(np.eye(10)[groups], labels, np.arange(200), 2)
    assert (leaking.argmax(1) == labels).mean() == 1.0


def test_shuffled_labels_give_chance_and_everything_is_repeatable() -> None:
    x, y = clouds(3, n=600)
    groups = np.arange(600) % 12
    assert (held_out_logits(x, y, groups, 3).argmax(1) == y).mean() > 0.8
    assert (held_out_logits(x, y, groups, 3, seed=0).argmax(1) == y).mean() < 0.5
    assert (held_out_logits(x, y, groups, 3) == held_out_logits(x, y, groups, 3)).all()


def test_projections_are_as_many_as_asked_for() -> None:
    x, _ = clouds(3, features=40)
    assert projected(x, 8, seed=0).shape == (300, 8)
    assert projected(x, 40, seed=0) is x
    assert (projected(x, 8, 0) == projected(x, 8, 0)).all()
