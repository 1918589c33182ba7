"""The paired bootstrap: antisymmetric, paired, right about what is chance, and strict about what it compares."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest

from whatwhere.errors import DataError
from whatwhere.judge import Comparison, Judge, Scores, compare
from whatwhere.records import Classes

TWO = Classes(("rest", "cat"), ((0, 0, 0), (255, 0, 0)), ((0,), (1,)))


def scores(shares: list[float], *, noise: int = 1, truth_seed: int = 0, **options: object) -> Scores:
    """Images whose truth depends on their number alone, with this share of wrong pixels each."""
    judge = Judge(options.pop("classes", TWO), **options)  # type: ignore[arg-type]
    for i, share in enumerate(shares):
        truth = np.zeros((32, 32), np.uint8)
        truth[4 + i % 5 : 20, 6 : 22 + (i + truth_seed) % 7] = 1
        wrong = np.random.default_rng([noise, i]).random(truth.shape) < share
        judge.add(f"{i}", truth, np.where(wrong, 1 - truth, truth).astype(np.uint8))
    return judge.result()


DIFFICULTY = np.random.default_rng(5).uniform(0.05, 0.4, 20)


def test_swapping_the_two_swaps_every_sign() -> None:
    a, b = scores(list(DIFFICULTY)), scores(list(DIFFICULTY * 0.8), noise=2)
    there, back = compare(a, b, seed=3), compare(b, a, seed=3)
    assert {found.score for found in there.differences} >= {"mean_iou", "iou/cat", "mean_boundary_f1", "recall/rest"}
    for one, other in zip(there.differences, back.differences):
        assert one.difference == pytest.approx(-other.difference)
        assert (one.low, one.high) == pytest.approx((-other.high, -other.low))
        assert one.a_better + other.a_better == pytest.approx(1)


def test_pairing_finds_a_small_difference_between_images_that_differ_much() -> None:
    a, b = scores(list(DIFFICULTY)), scores(list(DIFFICULTY + 0.03), noise=2)
    found = compare(a, b)["mean_iou"]
    assert found.clear
    assert found.a_better == 1
    alone = a.estimates["mean_iou"]
    assert alone.low < b.mean_iou < alone.high  # which intervals of the two alone would not show


def test_equal_models_are_not_told_apart() -> None:
    a = scores(list(DIFFICULTY))
    for found in compare(a, a).differences:
        assert found.difference == found.low == found.high == 0
        assert found.a_better == 0.5
        assert not found.clear
    chance = compare(a, scores(list(DIFFICULTY), noise=9))["pixel_accuracy"]
    assert chance.low < 0 < chance.high


def test_where_less_is_better() -> None:
    a, b = scores([0.0] * 4), scores([0.2] * 4)
    found = compare(a, b)["mean_hausdorff95"]
    assert found.lower_is_better
    assert found.difference < 0
    assert found.a_better == 1
    assert not compare(a, b)["mean_iou"].lower_is_better


def test_who_is_sure_of_what_is_right_is_better_than_who_doubts_it() -> None:
    truth = np.zeros((8, 8), np.uint8)
    truth[:, 4:] = 1
    judges = [Judge(TWO) for _ in "ab"]
    for number in range(6):
        for judge, sure in zip(judges, (0.95, 0.6)):
            judge.add(str(number), truth, truth, confidence=np.full(truth.shape, sure))
    found = compare(*(judge.result() for judge in judges))["calibration_error"]
    assert found.lower_is_better
    assert found.difference == pytest.approx(0.05 - 0.4)
    assert (found.a_better, found.clear) == (1, True)


def test_order_of_images_does_not_matter() -> None:
    a, b = scores(list(DIFFICULTY)), scores(list(DIFFICULTY * 0.8), noise=2)
    order = list(range(len(b.images)))[::-1]
    turned = Scores(TWO, tuple(b.images[i] for i in order), b.counts.take(order), b.tolerance, b.boundary)
    for one, other in zip(compare(a, turned).differences, compare(a, b).differences):
        assert (one.difference, one.low, one.high) == pytest.approx((other.difference, other.low, other.high))


def test_it_prints_itself_and_comes_back_from_json() -> None:
    found = compare(
        scores([0.1, 0.2]), scores([0.3, 0.2], noise=2), names=("with skips", "without [all]"), resamples=50
    )
    assert "with skips" in str(found)
    assert "without [all]" in str(found)
    assert "50 resamples" in str(found)
    assert Comparison.from_json(json.loads(json.dumps(found.to_json()))) == found
    with pytest.raises(KeyError, match="mean_iou"):
        found["nothing"]


def test_it_says_which_images_they_are() -> None:
    val = replace(scores([0.1, 0.2]), part="val; the weights were chosen by these, or some of them")
    found = compare(val, val)
    assert found.part == found.to_json()["part"] == val.part
    assert f"2 images ({val.part})." in str(found)
    record = found.to_json()
    del record["part"]
    assert Comparison.from_json(record).part == "", "of an older version"
    assert compare(val, replace(val, part="val")).part == f"to the first {val.part}; to the second val"
    assert "2 images (" not in str(compare(scores([0.1, 0.2]), scores([0.1, 0.2])))


def test_one_image_has_no_interval() -> None:
    found = compare(scores([0.1]), scores([0.2]))
    assert found["mean_iou"].low is None
    assert found["mean_iou"].a_better is None
    assert "no intervals" in str(found)


def test_what_cannot_be_compared_is_named() -> None:
    a = scores([0.1, 0.2])
    other = Classes(("rest", "dog"), TWO.colors, TWO.values)
    for b, words in (
        (scores([0.1, 0.2, 0.1]), r"1 images scored in one only: 2; expected the same images"),
        (scores([0.1, 0.2], classes=other), r"classes rest, cat and rest, dog"),
        (scores([0.1, 0.2], tolerance=3.0), r"edges judged within 2 px and within 3 px"),
        (scores([0.1, 0.2], boundary=False), r"within 2 px and not at all"),
        (scores([0.1, 0.2], truth_seed=3), r"the masks behind the two scores differ"),
    ):
        with pytest.raises(DataError, match=words):
            compare(a, b)


def test_what_one_image_holds_has_no_interval_and_few_images_no_verdict() -> None:
    """Resampled, one image is always itself: its interval would have no width, and every difference be clear."""
    rng = np.random.default_rng(0)
    judges = [Judge(Classes(("a", "b", "rare"), ((0, 0, 0), (1, 1, 1), (2, 2, 2)), ((0,), (1,), (2,)))) for _ in "ab"]
    for number in range(12):
        truth = rng.integers(0, 2, (20, 20)).astype(np.uint8)
        if number == 0:
            truth[:5] = 2
        for wrong, judge in zip((0.1, 0.3), judges):
            off = rng.random(truth.shape) < wrong
            judge.add(str(number), truth, np.where(off, 1 - np.minimum(truth, 1), truth).astype(np.uint8))
    one, other = (judge.result() for judge in judges)
    assert one.estimates["iou/rare"].low is None
    assert one.estimates["iou/a"].low is not None
    told = compare(one, other)
    assert (told["iou/rare"].images, told["iou/rare"].low, told["iou/rare"].clear) == (1, None, False)
    assert told["iou/rare"].a_better is None
    assert told["iou/a"].images == 12
    assert told["iou/a"].clear


def test_images_that_are_void_are_no_images_of_a_mean() -> None:
    """Of six images one has pixels that count: nothing is said of how images differ."""
    judges = [Judge(TWO) for _ in "ab"]
    for number in range(6):
        truth = np.full((32, 32), 255, np.uint8)
        if number == 0:
            truth[:] = 0
            truth[5:20, 5:20] = 1
        for judge, missed in zip(judges, (0, 9)):
            painted = np.where(truth == 1, 1, 0).astype(np.uint8)
            painted[:missed] = 0
            judge.add(str(number), truth, painted)
    one, other = (judge.result() for judge in judges)
    for score in ("mean_iou", "pixel_accuracy", "balanced_accuracy"):
        assert other.estimates[score].low is None
        found = compare(one, other)[score]
        assert (found.images, found.low, found.clear) == (1, None, False)


def test_images_without_a_class_tell_nothing_of_its_recall() -> None:
    """A dog is in the truth of one image alone; where both paint a stray pixel of it is no news of its recall."""
    judges = [Judge(Classes(("ground", "dog"), ((0, 0, 0), (1, 1, 1)), ((0,), (1,)))) for _ in "ab"]
    for number in range(8):
        truth = np.zeros((20, 20), np.uint8)
        truth[:4, :4] = number == 0
        for judge, missed in zip(judges, (0, 2)):
            painted = truth.copy()
            painted[:missed] = 0
            painted[10, 10] = number >= 2
            judge.add(str(number), truth, painted)
    one, other = (judge.result() for judge in judges)
    told = compare(one, other)
    assert (told["recall/dog"].images, told["recall/dog"].low, told["recall/dog"].clear) == (1, None, False)
    assert one.estimates["recall/dog"].low is None
    assert (told["precision/dog"].images, told["iou/dog"].images) == (7, 7)
    assert one.estimates["precision/dog"].low is not None
    assert (told["recall/ground"].images, told["precision/ground"].images) == (8, 8)


def test_images_that_nobody_paints_a_class_in_tell_nothing_of_its_precision() -> None:
    """A dog is in the truth of every image, and found in one: how right such findings are was seen once."""
    judges = [Judge(Classes(("ground", "dog"), ((0, 0, 0), (1, 1, 1)), ((0,), (1,)))) for _ in "ab"]
    for number in range(8):
        truth = np.zeros((20, 20), np.uint8)
        truth[:4, :4] = 1
        for judge, more in zip(judges, (0, 2)):
            painted = np.zeros_like(truth)
            painted[: 4 + more, :4] = number == 0
            judge.add(str(number), truth, painted)
    told = compare(*(judge.result() for judge in judges))
    assert (told["precision/dog"].images, told["precision/dog"].low, told["precision/dog"].clear) == (1, None, False)
    assert (told["recall/dog"].images, told["iou/dog"].images) == (8, 8)


@pytest.mark.parametrize(("images", "enough"), [(2, False), (4, False), (5, True)])
def test_fewer_than_five_images_are_too_few_for_a_verdict(images: int, enough: bool) -> None:
    wrong = np.linspace(0.05, 0.06, images)
    told = compare(scores(list(wrong)), scores(list(wrong + 0.25)))["mean_iou"]
    assert told.low is not None
    assert told.low > 0
    assert told.clear == enough


def test_the_worst_images_are_not_those_with_a_stray_pixel() -> None:
    judge = Judge(Classes(("a", "b", "c"), ((0, 0, 0), (1, 1, 1), (2, 2, 2)), ((0,), (1,), (2,))))
    truth = np.zeros((20, 20), np.uint8)
    stray = truth.copy()
    stray[0, 0] = 2
    judge.add("stray", truth, stray)
    bad = truth.copy()
    bad[:7] = 1
    judge.add("bad", truth, bad)
    assert [name for name, _ in judge.result().worst()] == ["bad", "stray"]
