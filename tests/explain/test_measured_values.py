from __future__ import annotations

import tracemalloc

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import balanced_accuracy_score

from whatwhere.explain.measured import (
    Measured,
    balanced_accuracy,
    measured_accuracy,
    sides_accuracy,
)
from whatwhere.judge.bootstrap import interval


@given(st.integers(0, 10_000))
def test_balanced_accuracy_is_that_of_scikit_learn(seed: int) -> None:
    rng = np.random.default_rng(seed)
    truth, said = rng.integers(0, 3, 60), rng.integers(0, 3, 60)
    right = np.bincount(truth[truth == said], minlength=4)
    total = np.bincount(truth, minlength=4)  # class 3 is never there and not counted
    assert float(balanced_accuracy(right, total)) == pytest.approx(
        balanced_accuracy_score(
            truth, said if set(said) <= set(truth) else np.where(np.isin(said, truth), said, truth[0])
        )
        if set(said) <= set(truth)
        else float(np.mean([right[c] / total[c] for c in np.unique(truth)]))
    )


def test_the_interval_holds_the_value_and_narrows_with_images() -> None:
    rng = np.random.default_rng(0)

    def width(images: int) -> float:
        total = np.full((images, 2), 50)
        right = rng.binomial(50, rng.uniform(0.6, 0.9, (images, 1)), (images, 2))
        found = measured_accuracy(right, total, "", 0)
        assert found.low is not None
        assert found.high is not None
        assert found.value is not None
        assert found.low <= found.value <= found.high
        assert (found.images, found.pixels) == (images, 100 * images)
        return found.high - found.low

    assert width(100) < width(6)


def test_many_classes_take_little_memory_and_change_no_interval() -> None:
    """Of 150 classes there are 22,500 sides of edges: a thousand resamples of them are 180 MB, several times over."""
    rng = np.random.default_rng(0)
    total = rng.integers(0, 9, (6, 150**2)) * (rng.random((6, 150**2)) < 0.01)
    right = rng.binomial(total, 0.7) / 2
    few, few_right = total[:, :9], right[:, :9]
    drawn = np.random.default_rng(3).multinomial(6, np.full(6, 1 / 6), 1000)
    samples = sides_accuracy(*(drawn @ of for of in (few_right, few)))
    value = float(sides_accuracy(few_right.sum(0), few.sum(0)))
    expected = interval(value, samples, int((few.sum(1) > 0).sum()), (0.0, 1.0))
    found = measured_accuracy(few_right, few, "", 3, sides_accuracy)
    assert (found.low, found.high) == expected
    tracemalloc.start()
    found = measured_accuracy(right, total, "", 0, sides_accuracy)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert found.value is not None
    assert peak < 300e6


def test_one_image_has_no_interval_and_nothing_has_no_value() -> None:
    one = measured_accuracy(np.array([[3, 1]]), np.array([[4, 4]]), "how", 7)
    assert (one.value, one.low, one.high, one.images, one.seed) == (0.5, None, None, 1, 7)
    assert str(one) == "0.50"
    none = measured_accuracy(np.zeros((2, 2)), np.zeros((2, 2)), "", 0)
    assert none.value is None
    assert str(none) == "–"


def test_the_same_seed_gives_the_same_interval() -> None:
    right, total = np.array([[3, 1], [2, 2], [4, 0]]), np.full((3, 2), 4)
    assert measured_accuracy(right, total, "", 3) == measured_accuracy(right, total, "", 3)
    assert set(Measured(0.1, None, None, 1, 2, "m", 0).to_json()) == {
        "value", "low", "high", "images", "pixels", "method", "seed", "sources",
    }  # fmt: skip
