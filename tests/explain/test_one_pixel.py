from __future__ import annotations

from dataclasses import replace
from itertools import combinations
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from explain_toys import as_cases, toys
from torch import Tensor, nn

from whatwhere.explain import words
from whatwhere.explain.anatomy import UNetAnatomy
from whatwhere.explain.pixel import PixelStory, cut_everywhere, integrated_gradients, sets_tried, tell_pixel
from whatwhere.network import Model

PIXEL = (22, 12)


@pytest.fixture(scope="module")
def told(healthy: Model) -> tuple[UNetAnatomy, PixelStory, list[Tensor]]:
    anatomy = UNetAnatomy(healthy.network.requires_grad_(False))  # type: ignore[arg-type]
    (case,) = as_cases(healthy, toys(1, start=40))
    means = [one.mean((0, 2, 3), keepdim=True) for one in anatomy.carried(case.image)]
    return anatomy, tell_pixel(anatomy, case, PIXEL, means, case.image.mean((2, 3), keepdim=True), {}), means


def test_evidence_adds_up_to_the_difference_of_the_logits(told: tuple[UNetAnatomy, PixelStory, list[Tensor]]) -> None:
    anatomy, story, _ = told
    logits = anatomy.read(story.case.image)[0][0, :, *PIXEL]
    assert story.margin == pytest.approx(float(logits[story.prediction] - logits[story.rival]), abs=1e-4)
    assert story.completeness <= 0.01
    assert story.evidence.sum() == pytest.approx(story.margin - story.baseline, rel=0.011)
    assert 0 < story.half < story.most


def test_evidence_is_that_of_captum() -> None:
    captum = pytest.importorskip("captum.attr")
    torch.manual_seed(0)
    smooth = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.Tanh(), nn.Conv2d(4, 1, 3, padding=1))
    smooth.requires_grad_(False)
    image, baseline = torch.randn(1, 3, 8, 8), torch.zeros(1, 3, 1, 1)

    def score(batch: Tensor) -> Tensor:
        return smooth(batch)[:, 0, 4, 4]

    found, missed, _, (end, begin) = integrated_gradients(score, image, baseline)
    reference = captum.IntegratedGradients(score).attribute(
        image, baseline.expand_as(image), n_steps=200, method="gausslegendre"
    )
    assert torch.allclose(found, reference, atol=1e-3 * float(reference.abs().max()))
    assert missed < 0.01
    assert (end, begin) == (pytest.approx(float(score(image))), pytest.approx(float(score(torch.zeros_like(image)))))


def test_steps_are_refined_until_complete() -> None:
    def kinked(batch: Tensor) -> Tensor:
        return (batch.sum((1, 2, 3)) - 0.93).clamp_min(0) * 100

    image = torch.full((1, 1, 1, 1), 1.0)
    _, missed, steps, _ = integrated_gradients(kinked, image, torch.zeros(1, 1, 1, 1))
    assert steps > 8
    assert missed <= 0.01


def test_few_steps_are_spread_over_the_whole_way_and_what_they_miss_is_told() -> None:
    torch.manual_seed(1)
    bent = nn.Sequential(nn.Conv2d(3, 32, 3), nn.ReLU(), nn.Conv2d(32, 32, 3), nn.ReLU(), nn.Conv2d(32, 1, 3))
    bent.requires_grad_(False)
    image, baseline = 3 * torch.randn(1, 3, 7, 7), torch.zeros(1, 3, 1, 1)

    def score(batch: Tensor) -> Tensor:
        return 10 * bent(batch)[:, 0, 0, 0]

    full, _, many, _ = integrated_gradients(score, image, baseline)
    found, missed, steps, (end, begin) = integrated_gradients(score, image, baseline, most=10)
    assert many > 10 >= steps
    moved = sum(abs(float(score(image * (i + 1) / 8)) - float(score(image * i / 8))) for i in range(8))
    assert missed == pytest.approx(abs(float(found.sum()) - (end - begin)) / moved, abs=1e-4)
    assert float(torch.corrcoef(torch.stack([found.flatten(), full.flatten()]))[0, 1]) > 0.99


def test_an_answer_that_ends_where_it_began_takes_no_more_steps_than_it_may() -> None:
    """The margin of the image may be that of the mean image: shares of their difference would be shares of nothing."""
    torch.manual_seed(0)
    bent = nn.Sequential(nn.Conv2d(1, 64, 3), nn.ReLU(), nn.Conv2d(64, 1, 1)).requires_grad_(False)
    image, taken = 4 * torch.randn(1, 1, 3, 3), 0
    hump = float(bent(image)), float(bent(0 * image))

    def score(batch: Tensor) -> Tensor:
        nonlocal taken
        taken += 1
        share = (batch * image).sum((1, 2, 3)) / image.square().sum()
        return bent(batch)[:, 0, 0, 0] - share * (hump[0] - hump[1]) + 5 * (share * (1 - share)).clamp_min(0)

    _, missed, steps, (end, begin) = integrated_gradients(score, image, torch.zeros(1, 1, 1, 1))
    assert end == pytest.approx(begin, abs=1e-4)
    assert missed <= 0.01
    assert steps <= taken <= 128


def test_the_page_says_where_evidence_is_rough(told: tuple[UNetAnatomy, PixelStory, list[Tensor]]) -> None:
    story = told[1]
    assert not story.rough
    assert not words._but_rough(story)
    assert "misses 30% of how far it moves" in words._but_rough(replace(story, completeness=0.3))


def test_cuts_and_the_smallest_flip_are_those_of_trying_all(
    told: tuple[UNetAnatomy, PixelStory, list[Tensor]],
) -> None:
    anatomy, story, means = told
    carried = anatomy.carried(story.case.image)
    names = [path.name for path in anatomy.paths]

    def without(absent: tuple[int, ...]) -> Tensor:
        given = [mean.expand_as(own) if p in absent else own for p, (own, mean) in enumerate(zip(carried, means))]
        return anatomy.decode(given, story.case.size)[0, :, *PIXEL].softmax(0)

    for player, cut in enumerate(story.cuts):
        assert cut.absent == (names[player],)
        assert cut.probability == pytest.approx(float(without((player,))[story.prediction]), abs=1e-5)
    flipping = {}
    for size in range(1, 4):
        for absent in combinations(range(3), size):
            chances = without(absent)
            if int(chances.argmax()) != story.prediction:
                flipping[absent] = float(chances[story.prediction])
    if not flipping:
        assert story.flip is None
    else:
        least = min(len(absent) for absent in flipping)
        best = min((a for a in flipping if len(a) == least), key=lambda a: flipping[a])
        assert story.flip is not None
        assert story.flip.absent == tuple(names[p] for p in best)


def test_of_many_paths_not_every_set_is_tried() -> None:
    asked: list[int] = []

    class Many:
        paths = tuple(SimpleNamespace(name=f"skip {path}") for path in range(12))

        def decode(self, given: list[Tensor], size: tuple[int, int]) -> Tensor:
            """Class 1 where no more than nine paths are there."""
            asked.append(12 - int(sum(float(one.mean()) for one in given)))
            return torch.tensor([0.0, 2.0 if asked[-1] > 2 else -2.0]).view(1, 2, 1, 1).expand(1, 2, *size)

    carried, means = [torch.ones(1, 1, 4, 4)] * 12, [torch.zeros(1, 1, 1, 1)] * 12
    singles, flip = cut_everywhere(Many(), carried, (4, 4), (1, 1), means, 0)  # type: ignore[arg-type]
    assert [cut.absent for cut in singles] == [(f"skip {path}",) for path in range(12)]
    assert flip is None
    assert sorted(asked) == [1] * 12 + [2] * 66
    assert sets_tried(12) == 2


def test_windows_grow_down_the_network(told: tuple[UNetAnatomy, PixelStory, list[Tensor]]) -> None:
    _, story, _ = told
    for (top, bottom), (left, right) in story.windows.values():
        assert top <= PIXEL[0] < bottom
        assert left <= PIXEL[1] < right
    sizes = [story.windows[name][0][1] - story.windows[name][0][0] for name in ("encoder.0", "encoder.1", "bottleneck")]
    assert sizes == sorted(sizes)
    assert np.count_nonzero(story.evidence) > 0
    (top, bottom), (left, right) = story.windows["output"]
    outside = story.evidence.copy()
    outside[top:bottom, left:right] = 0
    assert not outside.any()
