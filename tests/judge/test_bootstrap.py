"""Intervals miss the truth as often as they say: of few images, and where folders bind images that are alike."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import t

from whatwhere.explain.measured import measured_accuracy
from whatwhere.judge import Judge, Scores, compare
from whatwhere.judge.bootstrap import bound_by, draws, interval
from whatwhere.records import Classes

TWO = Classes(("rest", "cat"), ((0, 0, 0), (255, 0, 0)), ((0,), (1,)))


def missed(folders: int, each: int, *, bound: bool, runs: int = 400) -> float:
    """How often the interval of a mean of so many folders of images misses 0; folders differ as much as images do."""
    rng = np.random.default_rng(0)
    units = np.repeat(np.arange(folders), each) if bound else np.arange(folders * each)
    misses = 0
    for _ in range(runs):
        values = np.repeat(rng.normal(size=folders), each) * (each > 1) + rng.normal(size=folders * each)
        samples = draws(units, 500, rng) @ values
        low, high = interval(values.mean(), samples / len(values), len(np.unique(units)))
        assert low is not None
        assert high is not None
        misses += not low <= 0 <= high
    return misses / runs


@pytest.mark.parametrize("images", [4, 5, 12, 40])
def test_independent_images_are_missed_one_time_in_twenty(images: int) -> None:
    assert 0.02 <= missed(images, 1, bound=True) <= 0.085


def test_images_of_few_folders_are_worth_as_many_folders() -> None:
    assert missed(6, 10, bound=True) <= 0.085
    assert missed(6, 10, bound=False) > 0.3


def test_of_a_normal_mean_it_is_nearly_student_s_interval() -> None:
    values = np.random.default_rng(1).normal(size=8)
    samples = draws(np.arange(8), 20000, np.random.default_rng(2)) @ values / 8
    found = interval(values.mean(), samples, 8)
    wanted = t.interval(0.95, 7, values.mean(), values.std(ddof=1) / np.sqrt(8))
    assert found == pytest.approx(wanted, abs=0.1 * (wanted[1] - wanted[0]))


@given(st.lists(st.sampled_from(["", "a", "b", "c", "d", "e", "f/g"]), min_size=1, max_size=40))
def test_folders_bind_where_five_divide_the_images(folders: list[str]) -> None:
    units = bound_by(folders)
    assert sorted(set(units.tolist())) == list(range(len(set(units.tolist()))))
    named = [one for one in folders if one]
    if len(set(named)) < 5 or max(map(folders.count, named)) > len(folders) // 2:
        assert len(set(units.tolist())) == len(folders)
        return
    for one, unit in zip(folders, units):
        for other, its in zip(folders, units):
            assert (unit == its) == (one == other) or not one or not other
    loose = [unit for one, unit in zip(folders, units) if not one]
    assert len(set(loose)) == len(loose)


def test_half_of_the_images_are_not_most() -> None:
    assert bound_by([*"aaaa", *"bcde"]).tolist() == [0, 0, 0, 0, 1, 2, 3, 4]
    assert bound_by([*"aaaaa", *"bcde"]).tolist() == list(range(9))


def test_what_is_bound_is_drawn_together() -> None:
    drawn = draws(np.array([0, 1, 0, 2]), 50, np.random.default_rng(0))
    assert (drawn[:, 0] == drawn[:, 2]).all()
    assert (drawn[:, [0, 1, 3]].sum(1) == 3).all()
    assert (drawn[:, 0] != drawn[:, 1]).any()


def test_nothing_leaves_its_limits_and_one_alone_has_no_interval() -> None:
    samples = np.array([0.9, 0.95, 1.0])
    low, high = interval(0.95, samples, 3, (0.0, 1.0))
    assert low is not None
    assert 0 <= low < 0.9
    assert high == 1.0
    assert interval(0.05, 1 - samples, 3, (0.0, 1.0)) == pytest.approx((0.0, 1 - low))
    assert interval(0.95, samples, 1) == (None, None)
    assert interval(0.5, np.full(3, np.nan), 9) == (None, None)


@pytest.mark.parametrize("value", [0.2, 0.5, 0.8])
def test_it_holds_the_percentiles_also_where_resamples_lie_to_one_side(value: float) -> None:
    samples = np.linspace(0.4, 0.6, 201)
    low, high = interval(value, samples, 5)
    assert low is not None
    assert high is not None
    assert low <= np.percentile(samples, 2.5)
    assert high >= np.percentile(samples, 97.5)


def scores(names: list[str], shares: list[float]) -> Scores:
    judge = Judge(TWO, boundary=False)
    truth = np.zeros((32, 32), np.uint8)
    truth[:, 16:] = 1
    for number, (name, share) in enumerate(zip(names, shares)):
        wrong = np.random.default_rng(number).random(truth.shape) < share
        judge.add(name, truth, np.where(wrong, 1 - truth, truth).astype(np.uint8))
    return judge.result()


@pytest.mark.parametrize("name", ["patient {source}/{piece}", "slide{source}_{piece}_0", "cat{source}_aug{piece}"])
def test_comparisons_are_over_sources(name: str) -> None:
    """Each image is better by as much as its whole source is: of ten sources that is little, of forty images much."""
    gains = np.repeat(np.random.default_rng(3).normal(0.01, 0.03, 10), 4)
    alone, bound = [f"{i}" for i in range(40)], [name.format(source=i // 4, piece=i % 4) for i in range(40)]
    found = {}
    for kind, names in (("alone", alone), ("bound", bound)):
        a, b = scores(names, list(0.2 - gains)), scores(names, [0.2] * 40)
        compared = compare(a, b)
        found[kind] = compared["pixel_accuracy"]
        assert f"{compared.images} images" in str(compared)
        for said in (str(compared), str(a)):
            whole = "10 sources (folders; pieces or copies of one image), which are drawn whole" in " ".join(
                said.split()
            )
            assert whole is (kind == "bound")
    one, other = found["alone"], found["bound"]
    assert (one.images, one.independent, other.images, other.independent) == (40, 40, 40, 10)
    assert other.high - other.low > 1.5 * (one.high - one.low)
    assert one.difference == other.difference


def test_few_folders_are_told_to_be_few() -> None:
    few, none = (scores([f"{kind}{i % 3}/{i}" for i in range(9)], [0.1] * 9) for kind in ("p", ""))
    assert "if one is a patient, a flight or a single image, intervals are too narrow" in " ".join(str(few).split())
    loose = scores([f"{i}" for i in range(9)], [0.1] * 9)
    apart = scores([f"p{i}/{i}" for i in range(9)], [0.1] * 9)
    assert none.estimates == few.estimates == loose.estimates
    for one in (loose, apart):
        assert "too narrow" not in str(one)


def test_accuracies_of_folders_say_how_many_images_they_are_of() -> None:
    right, total = np.array([[3, 1], [2, 2], [4, 0]]), np.full((3, 2), 4)
    found = measured_accuracy(right, total, "", 0, images=12)
    assert (found.images, found.sources, found.independent) == (12, 3, 3)
    alone = measured_accuracy(right, total, "", 0)
    assert (alone.images, alone.sources, alone.independent) == (3, None, 3)
    assert (alone.low, alone.high) == (found.low, found.high)
