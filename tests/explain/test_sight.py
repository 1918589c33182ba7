from __future__ import annotations

import tracemalloc
from dataclasses import replace

import numpy as np
import pytest
import torch
from explain_toys import as_cases, toys
from torch import Tensor, nn

from whatwhere.explain.anatomy import UNetAnatomy
from whatwhere.explain.graph_anatomy import GraphAnatomy
from whatwhere.explain.sight import (
    Leak,
    Sights,
    check_windows,
    containing,
    influence_maps,
    measure_sight,
    ring_profile,
)
from whatwhere.field import field
from whatwhere.network import Model, UNet


def test_ring_profile_is_its_definition() -> None:
    influence = np.random.default_rng(0).random((9, 9))
    expected = np.zeros(5)
    for row, column in np.ndindex(9, 9):
        expected[max(abs(row - 4), abs(column - 4))] += influence[row, column]
    assert np.allclose(ring_profile(influence), expected)


@pytest.mark.parametrize(("profile", "share", "side"), [
    ([1, 0, 0], 0.95, 0.95),  # all in the middle pixel
    ([0, 1, 0], 1.0, 3.0),  # all in the first ring
    ([0, 1, 1], 0.5, 3.0),
    ([0, 1, 1], 0.75, 4.0),  # half way through the second ring
])  # fmt: skip
def test_the_square_that_holds_a_share(profile: list[int], share: float, side: float) -> None:
    assert float(containing(np.array(profile, float), share)) == pytest.approx(side)


@pytest.fixture(scope="module")
def sights(healthy: Model) -> Sights:
    images = [case.image for case in as_cases(healthy, toys(4, start=700))]
    healthy.network.requires_grad_(False)
    return measure_sight(UNetAnatomy(healthy.network), images, seed=0, progress=lambda _: None)  # type: ignore[arg-type]


def test_nothing_is_seen_beyond_the_theoretical_window(healthy: Model, sights: Sights) -> None:
    windows = field(healthy.network, (3, 160, 160))  # no window in its middle is cut by a rim
    for sight in sights.sights:
        module = sight.layer
        stride = 1 if module == "output" else int(windows.stride(module)[0])
        units = range(80 // stride, 80 // stride + 4)
        boxes = [windows.receptive_field(module, (unit, unit)) for unit in units]
        assert sight.theoretical == max(stop - start for box in boxes for start, stop in box)
        assert f"{sight.theoretical}x{sight.theoretical}" in sight.words
        # measured squares are centred on the cell, windows reach a little farther to one side
        assert 0 < sight.half.value <= sight.most.value <= sight.theoretical + 2 * stride
        assert 0 < sight.share <= 1
    deeper = [sights[name].most.value for name in ("encoder.0", "encoder.1", "bottleneck")]
    assert deeper == sorted(deeper)


def test_what_can_be_seen_is_what_one_unit_can_see() -> None:
    """Units at even and odd places see farther to one side or the other; no single one sees both."""
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv2d(1, 2, 3, 2, 1), nn.ConvTranspose2d(2, 2, 2, 2), nn.Conv2d(2, 2, 3, padding=1))
    for parameter in network.parameters():
        parameter.data = 0.1 + torch.rand_like(parameter)
    seen = []
    for row in range(16, 20):
        image = torch.ones(1, 1, 32, 32, requires_grad=True)
        network(image)[0, 0, row, 16].backward()
        rows = image.grad[0, 0].sum(1).nonzero()
        seen.append(int(rows.max() - rows.min()) + 1)
    anatomy = GraphAnatomy(network.eval().requires_grad_(False), (1, 1, 32, 32))
    found = measure_sight(anatomy, [torch.randn(1, 1, 32, 32)], seed=0, progress=lambda _: None)["output"]
    assert found.theoretical == found.visible == max(seen)


def test_a_square_beyond_what_the_images_show_is_all_of_it(sights: Sights) -> None:
    out = sights["output"]
    assert replace(out, most=replace(out.most, value=out.visible + 3.0)).share == 1


def test_the_windows_hold_for_every_unit_tried(sights: Sights) -> None:
    assert {leak.layer for leak in sights.leaks} == {sight.layer for sight in sights.sights}
    for leak in sights.leaks:
        assert leak.tried > 0, leak
        assert leak.holds, leak
        assert leak.inside > 0


def test_a_leak_would_be_seen() -> None:
    assert not Leak("output", 2, outside=0.5, inside=1.0, untestable=0).holds
    assert Leak("output", 2, outside=1e-7, inside=1.0, untestable=0).holds


def test_influence_is_the_gradient(healthy: Model) -> None:
    network = healthy.network.requires_grad_(False)
    anatomy, (case,) = UNetAnatomy(network), as_cases(healthy, toys(1, start=3))  # type: ignore[arg-type]
    found = influence_maps(anatomy, [], case.image, (20, 20), np.random.default_rng(0))["output"]
    image = case.image.clone().requires_grad_(True)
    best = network(image)[0, :, 20, 20].sort(descending=True).values
    (best[0] - best[1]).backward()
    assert np.allclose(found, image.grad[0].abs().sum(0).numpy())


class Global(nn.Module):
    """Adds the mean of the whole image to every pixel."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Conv2d(3, 4, 3, padding=1)
        self.head = nn.Conv2d(4, 2, 1)

    def forward(self, image: Tensor) -> Tensor:
        features = self.body(image).relu()
        return self.head(features + features.mean((2, 3), keepdim=True))


def test_a_network_that_sees_everything_is_said_to() -> None:
    torch.manual_seed(0)
    network = Global().eval().requires_grad_(False)
    images = [torch.randn(1, 3, 24, 24) for _ in range(2)]
    found = measure_sight(GraphAnatomy(network, (1, 3, 24, 24)), images, seed=0, progress=lambda _: None)
    out = found["output"]
    assert out.theoretical is None
    assert out.share is None
    assert "can see the whole image" in out.words
    leak = next(leak for leak in found.leaks if leak.layer == "output")
    assert (leak.tried, leak.untestable) == (0, 1)


def test_the_check_needs_no_image_larger_than_the_window(healthy: Model) -> None:
    (case,) = as_cases(healthy, toys(1))
    small = case.image[..., :20, :24]  # smaller than the window: it is repeated
    leaks = check_windows(UNetAnatomy(healthy.network), small, seed=1)  # type: ignore[arg-type]
    assert all(leak.holds and leak.tried for leak in leaks)


def test_of_many_images_their_rings_are_kept_and_no_maps() -> None:
    torch.manual_seed(0)
    anatomy = UNetAnatomy(UNet(3, 3, width=2, depth=2).eval().requires_grad_(False))
    images = [torch.randn(1, 3, 96, 96) for _ in range(8)]

    def peak(count: int) -> int:
        tracemalloc.start()
        measure_sight(anatomy, images[:count], seed=0, progress=lambda _: None)
        found = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return found

    measure_sight(anatomy, images[:1], seed=0, progress=lambda _: None)  # what is kept of the windows
    a_map = 191 * 191 * 8
    assert peak(8) - peak(2) < 6 * a_map, "a map of each layer, of one image of six"
