from __future__ import annotations

import tracemalloc
from itertools import permutations

import numpy as np
import pytest
import torch
from explain_toys import CLASSES, as_cases, toys
from hypothesis import given, settings
from hypothesis import strategies as st

from whatwhere.explain import skips
from whatwhere.explain.anatomy import UNetAnatomy
from whatwhere.explain.pixels import regions
from whatwhere.explain.skips import MOVED, Tally, _moved, _sampled_orders, measure_skips, shapley_matrix
from whatwhere.judge import Judge
from whatwhere.judge.boundaries import contour
from whatwhere.network import Model, UNet
from whatwhere.records import Classes


def by_permutations(values: np.ndarray, players: int) -> np.ndarray:
    """The definition: each player's gain on joining, averaged over all orders."""
    gains = np.zeros(players)
    orders = list(permutations(range(players)))
    for order in orders:
        coalition = 0
        for player in order:
            gains[player] += values[coalition | 1 << player] - values[coalition]
            coalition |= 1 << player
    return gains / len(orders)


@given(st.integers(1, 5), st.integers(0, 1000))
@settings(max_examples=40, deadline=None)
def test_shapley_values_are_those_of_all_permutations(players: int, seed: int) -> None:
    values = np.random.default_rng(seed).normal(size=2**players)
    found = shapley_matrix(players) @ values
    assert np.allclose(found, by_permutations(values, players))
    assert found.sum() == pytest.approx(values[-1] - values[0])


def test_sampled_orders_add_up_and_come_near() -> None:
    players = 8
    rng = np.random.default_rng(0)
    worth = rng.uniform(0, 1, players)
    values = np.array([worth[[bool(c >> p & 1) for p in range(players)]].sum() ** 1.5 for c in range(2**players)])
    met, matrices = _sampled_orders(players, seed=0)
    assert len(met) < 2**players / 2
    assert matrices.shape == (6, players, len(met))  # each order with its reverse
    of_pairs = matrices @ values[list(met)]
    assert np.allclose(of_pairs.sum(1), values[-1] - values[0])
    found = of_pairs.mean(0)
    assert np.abs(found - shapley_matrix(players) @ values).max() < 0.2 * found.max()


def measured(model: Model, count: int = 3, *, alike: bool = False, edges: bool = True):
    pairs = toys(1, start=500) * count if alike else toys(count, start=500)
    assert isinstance(model.network, UNet)
    network = model.network.requires_grad_(False)
    anatomy, cases = UNetAnatomy(network), as_cases(model, pairs)
    carried = [anatomy.carried(case.image) for case in cases]
    means = [torch.cat(of).mean((0, 2, 3), keepdim=True) for of in zip(*carried)]
    images = [(case.image, case.truth) for case in cases]
    worths = measure_skips(
        anatomy, images, means, CLASSES, distance=3, seed=0, precision="float32", progress=lambda _: None, edges=edges
    )
    return worths, anatomy, cases, means


def test_every_score_is_shared_out_completely(healthy: Model) -> None:
    worths, *_ = measured(healthy)
    assert worths.exact
    for score, of in worths.worth.items():
        total = sum(one.shapley.value for one in of)
        assert total == pytest.approx(worths.full[score].value - worths.none[score].value), score
        assert np.allclose(
            [one.shapley.value for one in of],
            by_permutations(np.array([worths.coalitions[score][c] for c in range(8)]), 3),
        )
        for one in of:
            assert one.shapley.low <= one.shapley.value + 1e-9
            assert one.shapley.images == 3
            assert "coalitions" in one.shapley.method


def test_without_whole_edges_the_other_scores_are_the_same(healthy: Model) -> None:
    (full, *_), (quick, *_) = measured(healthy), measured(healthy, edges=False)
    assert set(full.worth) - set(quick.worth) == {"Boundary F1"}
    assert all(quick.worth[score] == full.worth[score] for score in quick.worth)


def test_sampled_orders_widen_the_intervals(healthy: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of images that are all the same nothing else can."""
    exact, *_ = measured(healthy, alike=True)
    monkeypatch.setattr(skips, "MOST_EXACT", 2)
    sampled, *_ = measured(healthy, alike=True)
    widths = [[one.shapley.high - one.shapley.low for one in of.worth["mean IoU"]] for of in (exact, sampled)]
    assert max(widths[0]) < 1e-9
    assert max(widths[1]) > 1e-3
    for one in sampled.worth["mean IoU"]:
        assert one.shapley.low <= one.shapley.value <= one.shapley.high
        assert "resampled too" in one.shapley.method


def test_a_coalition_scores_what_the_judge_says(healthy: Model) -> None:
    worths, anatomy, cases, means = measured(healthy)
    judge = Judge(CLASSES, tolerance=1.0)
    for case in cases:
        levels = anatomy.network.encode(case.image)
        logits = anatomy.network.decode(levels, {0: means[0], 2: means[2]}, size=case.size)  # only skip 1 passes
        judge.add(case.name, case.truth, logits[0].argmax(0).byte().numpy())
    assert worths.coalitions["mean IoU"][0b010] == pytest.approx(judge.result().mean_iou)
    assert worths.coalitions["Boundary F1"][0b010] == pytest.approx(judge.result().pooled["mean_boundary_f1"])


def test_of_many_classes_only_the_pairs_that_meet_are_kept() -> None:
    """150 classes have 22,500 sides of edges: counted in full, for each image and each way to cut."""
    count = 150
    classes = Classes(*(tuple(of(c) for c in range(count)) for of in (str, lambda c: (c, c, c), lambda c: (c,))))
    tally, rng = Tally(classes, edges=False), np.random.default_rng(0)
    tracemalloc.start()
    for _ in range(10):
        labels = rng.integers(0, count, (3, 3)).astype(np.uint8).repeat(8, axis=0).repeat(8, axis=1)
        tally.add(torch.zeros(1, count, *labels.shape), labels, regions(labels, 3))
    kept, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert kept < 1.5 * 10 * count**2 * 8, "hardly more than the confusion matrices"
    assert tally.edges.shape == (10, 2, count**2)
    assert tally.scores(np.ones((1, 10)))["boundary accuracy"] == 0.5


def test_a_path_that_nobody_listens_to_is_worth_nothing(healthy: Model) -> None:
    deaf = Model(UNet(**healthy.network.config).eval(), healthy.classes, healthy.normalisation)
    deaf.network.load_state_dict(healthy.network.state_dict())
    first = next(m for m in deaf.network.decoder[1].modules() if isinstance(m, torch.nn.Conv2d))
    with torch.no_grad():
        first.weight[:, : first.in_channels // 2] = 0  # what skip 1 carries comes first
    worths, *_ = measured(deaf)
    for of in worths.worth.values():
        assert of[1].shapley.value == pytest.approx(0, abs=1e-6)
        assert of[1].alone_missing.value == 0
        assert of[1].other_missing.value == 0
    assert worths.response[1] == pytest.approx(0, abs=1e-5)
    assert worths.response[0] > 0.05


def test_one_class_everywhere_is_moved_when_it_becomes_another() -> None:
    """An answer without place has no spread, and still depends on the image."""
    ones = torch.tensor([1.0, 0.0]).view(1, 2, 1, 1).expand(1, 2, 4, 4)
    assert _moved(ones.flip(1), ones) > MOVED
    assert _moved(ones, ones) == 0


def test_one_image_has_no_other_to_borrow_from(healthy: Model) -> None:
    worths, *_ = measured(healthy, count=1)
    assert all(one.other_missing is None and one.shapley.low is None for one in worths.worth["mean IoU"])


def test_an_edge_in_one_image_alone_is_of_one_image() -> None:
    flat, disc = np.zeros((24, 24), np.uint8), np.zeros((24, 24), np.uint8)
    disc[6:16, 6:16] = 1
    tally = Tally(CLASSES)
    for truth in (*[flat] * 6, disc):
        logits = torch.from_numpy(np.eye(3)[truth]).permute(2, 0, 1)[None].float()
        tally.add(logits, truth, regions(truth, 2))
    assert tally.pixels("Boundary F1") == 2 * int(contour(disc).sum()), "of the truth, and of the painting"
    assert tally.pixels("mean IoU") == 7 * 24 * 24
    held = {name: int(of.sum()) for name, of in tally.tellers().items()}
    assert (held["Boundary F1"], held["boundary accuracy"], held["interior accuracy"]) == (1, 1, 7)
    assert (held["IoU of ground"], held["IoU of apple"]) == (7, 1)
