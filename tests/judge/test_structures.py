"""Rand score of cells and recall of thin structures."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy.ndimage import label

from whatwhere.judge import thin_pixels, thin_recall, v_rand
from whatwhere.records import VOID

MASKS = arrays(np.uint8, (5, 6), elements=st.sampled_from([0, 0, 1]))
quick = settings(max_examples=60, deadline=None)


@quick
@given(MASKS, MASKS)
def test_v_rand_equals_counting_every_pair(truth: np.ndarray, prediction: np.ndarray) -> None:
    t, p = label(truth == 0)[0], label(prediction == 0)[0]
    both = in_truth = in_prediction = 0
    for a, b in combinations(zip(*np.nonzero(t)), 2):
        same_t, same_p = t[a] == t[b], p[a] == p[b] != 0
        both += same_t and same_p
        in_truth += same_t
        in_prediction += same_p
    expected = 2 * both / (in_truth + in_prediction) if in_truth else np.nan
    assert v_rand(truth, prediction) == pytest.approx(expected, nan_ok=True)


@pytest.mark.parametrize("seed", range(5))
def test_v_rand_equals_scikit_image_where_no_cell_is_painted_over(seed: int) -> None:
    metrics = pytest.importorskip("skimage.metrics")
    rng = np.random.default_rng(seed)
    truth = (rng.random((30, 30)) < 0.4).astype(np.uint8)
    prediction = np.where(rng.random((30, 30)) < 0.2, 0, truth).astype(np.uint8)  # membranes with gaps only
    error = metrics.adapted_rand_error(label(truth == 0)[0], label(prediction == 0)[0])[0]
    assert v_rand(truth, prediction) == pytest.approx(1 - error)


def test_v_rand_of_thick_membranes_thin_and_of_gaps() -> None:
    truth = np.zeros((20, 21), np.uint8)
    truth[:, 10] = 1
    thick = truth.copy()
    thick[:, 8:13] = 1
    assert v_rand(truth, thick) < 0.8
    assert v_rand(truth, thick, thin=True) == 1
    gap = truth.copy()
    gap[4, 10] = 0
    assert v_rand(truth, gap) == pytest.approx(2 * 0.5 / 1.5, abs=0.01)  # the two cells are one
    assert np.isnan(v_rand(np.ones_like(truth), truth))


@pytest.mark.parametrize("width", [1, 2, 3, 4, 5, 6])
@pytest.mark.parametrize("limit", [1, 2, 3, 4, 5])
@pytest.mark.parametrize("upright", [False, True])
def test_bars_are_thin_up_to_the_width_asked_for(width: int, limit: int, upright: bool) -> None:
    truth = np.zeros((30, 40), np.uint8)
    truth[10 : 10 + width] = 1
    truth = truth.T if upright else truth
    assert thin_pixels(truth, 1, limit).sum() == (truth.sum() if width <= limit else 0)


def test_a_tail_is_thin_and_its_body_is_not() -> None:
    y, x = np.indices((60, 90))
    truth = (np.hypot(y - 30, x - 25) < 18).astype(np.uint8)
    body = truth.astype(bool)
    truth[29:32, 40:85] = 1
    thin = thin_pixels(truth, 1, 3)
    assert not (thin & body).any()
    assert thin.sum() >= 3 * 40
    assert thin_recall(truth, body.astype(np.uint8), 1, 3) == 0
    assert thin_recall(truth, truth, 1, 3) == 1
    square = np.zeros((40, 40), np.uint8)
    square[10:30, 10:30] = 1
    square[9, 20] = 1  # a bump is no structure
    assert not thin_pixels(square, 1, 5).any()
    assert np.isnan(thin_recall(square, square, 1, 5))


def test_nothing_is_thin_because_it_is_cut_off() -> None:
    framed = np.zeros((30, 30), np.uint8)
    framed[:2] = 1  # the rest may lie above the picture
    assert not thin_pixels(framed, 1, 3).any()
    beside_void = np.zeros((30, 30), np.uint8)
    beside_void[10:12] = 1
    assert thin_pixels(beside_void, 1, 3).all(axis=1).sum() == 2
    beside_void[12:20] = VOID
    assert not thin_pixels(beside_void, 1, 3).any()
