"""Scores of images together and alone, void, absent classes, intervals, calibration, JSON, and what is refused."""

from __future__ import annotations

import io
import json
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from rich.console import Console
from sklearn.metrics import balanced_accuracy_score, confusion_matrix

from whatwhere.errors import DataError
from whatwhere.judge import Judge, Scores
from whatwhere.judge.measures import measures, resampled
from whatwhere.records import VOID, Classes

THREE = Classes(("sky", "tree", "road"), ((0, 0, 0), (0, 255, 0), (9, 9, 9)), ((0,), (1,), (2,)))
TWO = Classes(("rest", "cat"), ((0, 0, 0), (255, 0, 0)), ((0,), (1,)))
quick = settings(max_examples=60, deadline=None)


def judged(pairs: list[tuple[np.ndarray, np.ndarray]], classes: Classes = THREE, **options: object) -> Scores:
    judge = Judge(classes, **options)  # type: ignore[arg-type]
    for i, (truth, prediction) in enumerate(pairs):
        judge.add(f"image {i}", truth, prediction)
    return judge.result()


def noisy(
    seed: int, share: float, shape: tuple[int, int] = (24, 24), classes: int = 3
) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    truth = rng.integers(0, classes, shape, np.uint8)
    other = rng.integers(0, classes, shape, np.uint8)
    return truth, np.where(rng.random(shape) < share, other, truth)


@quick
@given(
    arrays(np.uint8, (6, 7), elements=st.sampled_from([0, 1, 2, VOID])),
    arrays(np.uint8, (6, 7), elements=st.sampled_from([0, 1, 2])),
)
def test_confusion_iou_dice_and_accuracies(truth: np.ndarray, prediction: np.ndarray) -> None:
    scores = judged([(truth, prediction)], boundary=False)
    valid = truth != VOID
    if valid.any():
        expected = confusion_matrix(truth[valid], prediction[valid], labels=[0, 1, 2])
        assert np.array_equal(scores.confusion, expected)
        assert scores.pooled["pixel_accuracy"] == pytest.approx((truth == prediction)[valid].mean())
        if set(prediction[valid]) <= set(truth[valid]) and len(set(truth[valid])) > 1:
            assert scores.pooled["balanced_accuracy"] == pytest.approx(
                balanced_accuracy_score(truth[valid], prediction[valid])
            )
    for c, name in enumerate(THREE.names):
        t, p = (truth == c) & valid, (prediction == c) & valid
        union = (t | p).sum()
        assert scores.iou[name] == pytest.approx((t & p).sum() / union if union else np.nan, nan_ok=True)
        dice = 2 * (t & p).sum() / (t.sum() + p.sum()) if union else np.nan
        assert scores.pooled[f"dice/{name}"] == pytest.approx(dice, nan_ok=True)


def test_resamples_are_those_of_integers_drawn_at_once() -> None:
    """Whole numbers below 2^53 in double precision, a hundred resamples at a time."""
    counts = judged([noisy(seed, 0.3) for seed in range(5)]).counts
    counts = replace(counts, confusion=counts.confusion * 10**11 + 1)
    weights = np.random.default_rng(3).multinomial(5, np.full(5, 0.2), 250)
    weighted = counts.weighted(weights)
    assert weighted.confusion.dtype == np.float64
    assert np.array_equal(weighted.confusion, np.einsum("rn,ncd->rcd", weights, counts.confusion))
    plain = {key: np.concatenate([measures(counts.weighted(part), THREE.names)[key] for part in np.split(weights, 5)])
             for key in measures(counts, THREE.names)}  # fmt: skip
    for found in resampled((counts, counts), THREE.names, 250, 3, np.arange(5)):
        assert found.keys() == plain.keys()
        for key, samples in found.items():
            np.testing.assert_allclose(samples, plain[key], rtol=1e-14)


def test_counts_are_pooled_not_averaged() -> None:
    full = np.ones((10, 10), np.uint8)
    tiny = np.zeros((10, 10), np.uint8)
    tiny[0, 0] = 1
    scores = judged([(full, full), (tiny, np.zeros_like(tiny))], TWO)
    assert scores.iou["cat"] == pytest.approx(100 / 101)
    assert scores.per_image["iou/cat"].tolist() == [1.0, 0.0]
    assert scores.worst(1) == [("image 1", pytest.approx(99 / 100 / 2))]


def test_absent_classes_are_in_no_mean_and_the_rule_is_printed() -> None:
    truth = np.zeros((8, 8), np.uint8)
    truth[:4] = 1
    scores = judged([(truth, truth)])
    assert scores.mean_iou == 1
    assert np.isnan(scores.iou["road"])
    assert "A class in neither truth nor prediction is not scored" in str(scores)
    wrong = truth.copy()
    wrong[0, 0] = 2  # now it is in the prediction: scored, and 0
    assert judged([(truth, wrong)]).iou["road"] == 0


def test_perfect_and_empty_predictions() -> None:
    truth = np.zeros((30, 30), np.uint8)
    truth[8:20, 9:21] = 1
    perfect = judged([(truth, truth)], TWO).pooled
    assert all(perfect[f"mean_{key}"] == 1 for key in ("iou", "dice", "boundary_iou", "boundary_f1", "surface_dice"))
    assert perfect["mean_hausdorff95"] == 0
    empty = judged([(truth, np.zeros_like(truth))], TWO).pooled
    assert all(empty[f"{key}/cat"] == 0 for key in ("iou", "dice", "boundary_iou", "boundary_f1", "surface_dice"))


def test_void_pixels_never_count() -> None:
    truth, prediction = noisy(0, 0.3)
    truth[5:12] = VOID
    changed = prediction.copy()
    changed[5:12] = np.random.default_rng(1).integers(0, 3, changed[5:12].shape)
    changed[6, 6] = VOID  # whatever a prediction holds there
    a, b = judged([(truth, prediction)]), judged([(truth, changed)])
    assert a.pooled == pytest.approx(b.pooled, nan_ok=True)


def test_an_image_of_void_alone_is_not_scored() -> None:
    void = np.full((5, 5), VOID, np.uint8)
    scores = judged([(void, np.zeros_like(void))])
    assert np.isnan(scores.mean_iou)
    assert scores.worst() == []
    assert json.loads(json.dumps(scores.to_json(), allow_nan=False))["scores"]["mean_iou"]["value"] is None


def test_without_edges_they_are_neither_measured_nor_shown() -> None:
    scores = judged([noisy(0, 0.2)], boundary=False)
    assert np.isnan(scores.pooled["mean_boundary_f1"])
    assert "Boundary" not in str(scores)
    assert "Boundary F1" in str(judged([noisy(0, 0.2)]))
    assert scores.mean_iou == judged([noisy(0, 0.2)]).mean_iou


def test_calibration_error_equals_a_plain_loop() -> None:
    rng = np.random.default_rng(3)
    probabilities = rng.dirichlet([1, 1, 1], (20, 20)).transpose(2, 0, 1)
    truth = rng.integers(0, 3, (20, 20), np.uint8)
    truth[:3] = VOID
    prediction = probabilities.argmax(0).astype(np.uint8)
    judge = Judge(THREE)
    judge.add("x", truth, prediction, probabilities)
    scores = judge.result()
    confidence, right = probabilities.max(0)[3:], (prediction == truth)[3:]
    expected = 0.0
    for low in np.arange(15) / 15:
        mine = (confidence > low) & (confidence <= low + 1 / 15)
        if mine.any():
            expected += mine.mean() * abs(right[mine].mean() - confidence[mine].mean())
    assert scores.pooled["calibration_error"] == pytest.approx(expected)
    assert sum(one.pixels for one in scores.reliability) == 17 * 20
    assert "calibration error" in str(scores)
    assert judged([(truth, prediction)]).reliability == ()


def test_intervals_hold_the_value_and_shrink_with_images() -> None:
    few = judged([noisy(i, 0.1 + 0.05 * (i % 5)) for i in range(5)], boundary=False).estimates["mean_iou"]
    many = judged([noisy(i, 0.1 + 0.05 * (i % 5)) for i in range(80)], boundary=False).estimates["mean_iou"]
    for found in (few, many):
        assert found.low is not None
        assert found.low < found.value < found.high
    assert many.high - many.low < (few.high - few.low) / 2


def test_the_interval_of_a_distance_is_in_pixels_and_ends_at_no_1() -> None:
    pairs = []
    for missed in (2, 4, 6, 8, 10):
        truth = np.zeros((30, 30), np.uint8)
        truth[10:20, 5:25] = 1
        painted = np.zeros_like(truth)
        painted[10:20, 5 + missed : 25] = 1
        pairs.append((truth, painted))
    found = judged(pairs, TWO).estimates["hausdorff95/cat"]
    assert found.low is not None
    assert 1 < found.low < found.value < found.high
    assert str(found) == f"{found.value:.1f} [{found.low:.1f}, {found.high:.1f}]"


def test_intervals_cover_the_truth_about_as_often_as_they_say() -> None:
    # images whose difficulty varies: the pooled accuracy of the population is 1 - mean(share) * 2/3
    rng = np.random.default_rng(0)
    covered = 0
    for trial in range(100):
        pairs = [noisy(1000 * trial + i, share, (12, 12)) for i, share in enumerate(rng.uniform(0.1, 0.7, 25))]
        found = judged(pairs, boundary=False).estimates["pixel_accuracy"]
        covered += found.low <= 1 - 0.4 * 2 / 3 <= found.high
    assert 85 <= covered <= 100


def test_one_image_has_no_interval_and_says_so() -> None:
    one = judged([noisy(0, 0.2)])
    assert one.estimates["mean_iou"].low is None
    assert "No intervals" in str(one)
    two = judged([noisy(0, 0.2), noisy(1, 0.3)])
    assert two.estimates["mean_iou"].low is not None
    assert "No intervals" not in str(two)


def test_same_seed_same_interval() -> None:
    pairs = [noisy(i, 0.3) for i in range(6)]
    a, b, c = (judged(pairs, seed=seed, boundary=False).estimates["mean_iou"] for seed in (0, 0, 1))
    assert a == b
    assert a != c


def test_scores_come_back_from_json() -> None:
    scores = judged([noisy(i, 0.2) for i in range(3)], tolerance=1.5)
    text = json.dumps(scores.to_json(), allow_nan=False)
    back = Scores.from_json(json.loads(text))
    assert back.estimates == scores.estimates
    assert str(back) == str(scores)
    assert json.loads(text)["images"][2]["name"] == "image 2"
    with pytest.raises(DataError, match=r"format None.*expected scores of format 1.*evaluate --json"):
        Scores.from_json({"a": 1})


def test_the_table_fits_its_width_and_shows_names_as_they_are() -> None:
    odd = Classes(("[bold]sky", "Bäume"), ((0, 0, 0),) * 2, ((0,), (1,)))
    scores = judged([noisy(i, 0.2, classes=2) for i in range(2)], odd)
    assert "[bold]sky" in str(scores)
    assert "Bäume" in str(scores)
    assert max(map(len, str(scores).splitlines())) <= 120
    console = Console(width=100, file=io.StringIO())
    console.print(scores)
    assert "Boundary F1" in console.file.getvalue()


def refused(*arguments: object, classes: Classes = TWO) -> str:
    judge = Judge(classes)
    judge.add("first", np.zeros((2, 3), np.uint8), np.zeros((2, 3), np.uint8))
    with pytest.raises(DataError) as caught:
        judge.add(*arguments)  # type: ignore[arg-type]
    assert len(judge) == 1
    return str(caught.value)


def test_what_cannot_be_judged_is_named() -> None:
    zeros = np.zeros((2, 3), np.uint8)
    assert "first was judged already" in refused("first", zeros, zeros)
    assert "truth of shape (2, 3) and prediction of shape (3, 2)" in refused("x", zeros, zeros.T)
    assert "x: truth holds the class ids 7; expected 0 to 1 or 255 (void)" in refused("x", zeros + 7, zeros)
    assert "x: prediction holds the class ids 255; expected 0 to 1" in refused("x", zeros, zeros + 255)
    assert "x: truth of dtype float64; expected class ids" in refused("x", zeros + 0.5, zeros)
    assert "probabilities of shape (2, 3); expected (2, 2, 3)" in refused("x", zeros, zeros, np.zeros((2, 3)))
    assert "apply softmax to logits first" in refused("x", zeros, zeros, np.full((2, 2, 3), 4.0))
    assert "from nan to nan" in refused("x", zeros, zeros, np.full((2, 2, 3), np.nan))
    with pytest.raises(DataError, match="no image to score"):
        Judge(TWO).result()


def test_one_image_with_edges_gives_scores_of_edges_no_interval() -> None:
    """Of twenty images one has a defect: resampled, it is always itself."""
    flat, holed = np.zeros((20, 20), np.uint8), np.zeros((20, 20), np.uint8)
    holed[5:12, 5:12] = 1
    found = judged([(flat, flat)] * 19 + [(holed, np.roll(holed, 2, 0))], TWO).estimates
    for key in ("mean_boundary_f1", "boundary_f1/rest", "mean_surface_dice", "boundary_iou/cat", "mean_hausdorff95"):
        assert found[key].value is not None
        assert found[key].low is None, key
    assert found["pixel_accuracy"].low is not None
