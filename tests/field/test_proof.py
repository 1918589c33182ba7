"""Windows against gradients: for every unit tried, the support lies inside its window and touches all its sides.

And halos against tiles.
"""

from __future__ import annotations

import itertools
import random
from collections.abc import Sequence
from functools import cache
from typing import Any

import pytest
import torch
from proof import positive, support
from torch import nn
from zoo_nets import ZOO, Specimen

from whatwhere.field import Field, field

LARGE = (
    "whatwhere's U-Net, bilinear", "U-Net odd size", "MONAI BasicUNet", "MONAI UNet", "MONAI UNet 3-d",
    "MONAI DynUNet", "MONAI SegResNet",
)  # fmt: skip
"""To follow them three times takes long."""
LARGEST = (
    "EfficientNet-Lite0 U-Net", "whatwhere's U-Net, residual", "whatwhere's U-Net, bilinear",
    "MONAI BasicUNet instance", "MONAI SegResNet",
)  # fmt: skip
"""To follow them once takes long; networks much like them are followed."""


def shown(specimens: Sequence[Specimen], *slow: str) -> list[Any]:
    """Of the zoo, those so named only where there is time."""
    return [pytest.param(one, id=one.name, marks=[pytest.mark.slow] if one.name in slow else []) for one in specimens]


def units_of(found: Field, layer: str, count: int, seed: int = 0) -> list[tuple[int, ...]]:
    """Corners and random units of a layer's grid."""
    size = found.grid(layer).size
    corners = list(itertools.product(*[(0, n - 1) for n in size]))
    draw = random.Random(seed)
    return [*corners, *(tuple(draw.randrange(n) for n in size) for _ in range(count))]


@cache
def followed(specimen: Specimen) -> tuple[nn.Module, Field]:
    """A module, to be left as it is, and its field: one for all tests, as most of their time is torch.export's."""
    module = specimen.build().eval()
    return module, field(module, specimen.shape)


@pytest.mark.parametrize("specimen", shown(ZOO, *LARGEST))
def test_gradients_fill_the_window(specimen: Specimen) -> None:
    torch.manual_seed(0)
    module = positive(specimen.build())
    found = followed(specimen)[1]
    assert found.bounded == specimen.bounded
    image = torch.rand(1, *specimen.shape, dtype=torch.double) + 0.1
    grid = found.grid("output")
    axes = tuple(axis for axis in grid.axes if axis is not None)
    for unit in units_of(found, "output", 6):
        window = found.receptive_field("output", unit)
        real = support(module, image, axes, unit)
        if real is None:
            assert all(start == stop == 0 for start, stop in window), unit
            continue
        inside = all(low <= start and stop <= high for (start, stop), (low, high) in zip(real, window))
        assert inside, (unit, real, window)
        slack = 0 if specimen.tight else 2  # torch's arithmetic of indices rounds; on a level of half the size
        for (start, stop), (low, high) in zip(real, window):
            assert start - low <= slack, (unit, real, window)
            assert high - stop <= slack, (unit, real, window)


@pytest.mark.parametrize("specimen", shown(ZOO, *LARGE, *LARGEST, *(s.name for k, s in enumerate(ZOO) if k % 3)))
def test_what_is_known_from_another_size_is_what_would_be_found(specimen: Specimen) -> None:
    module, known = followed(specimen)
    shape = (specimen.shape[0], *(2 * size for size in specimen.shape[1:]))
    if known.canvases is None:
        pytest.skip(known.refusal)
    told, found = field(module, shape, known=known), field(module, shape)
    assert told.canvases is known.canvases
    assert (told.layers, told.period, told.rounding) == (found.layers, found.period, found.rounding)
    assert told.bounded == found.bounded
    one, other = told.obstacle(), found.obstacle()
    if one is None or other is None:
        assert one is other
        assert (told.halo(), told.explain("output")) == (found.halo(), found.explain("output"))
    else:
        assert (one.module, one.operator, one.unbounded) == (other.module, other.operator, other.unbounded)
    for layer in told.layers:
        assert told.grid(layer) == found.grid(layer)
        assert told.layer_period(layer) == found.layer_period(layer)
        for unit in units_of(found, layer, 2):
            assert told.receptive_field(layer, unit) == found.receptive_field(layer, unit)


def test_an_image_that_is_large_beside_what_is_known_is_followed_anew() -> None:
    net = nn.Sequential(nn.Conv2d(1, 2, 3, padding=1), nn.MaxPool2d(2))
    known = field(net, (1, 8, 8))
    assert field(net, (1, 128, 128), known=known).canvases is known.canvases  # a canvas has 64 times 8 pixels
    large = field(net, (1, 132, 128), known=known)
    assert large.canvases is not known.canvases
    assert large.canvases == field(net, (1, 132, 128)).canvases


@pytest.mark.parametrize("specimen", shown(ZOO, *LARGEST))
def test_gradients_of_every_level_lie_in_its_windows(specimen: Specimen) -> None:
    torch.manual_seed(0)
    module = positive(specimen.build())
    found = followed(specimen)[1]
    image = torch.rand(1, *specimen.shape, dtype=torch.double) + 0.1
    for layer in found.levels[:-1]:
        grid = found.grid(layer)
        if None in grid.axes:
            continue
        for unit in units_of(found, layer, 1)[:3]:
            real = support(module, image, grid.axes, unit, layer)
            window = found.receptive_field(layer, unit)
            inside = real is None or all(
                low <= start and stop <= high for (start, stop), (low, high) in zip(real, window)
            )
            assert inside, (layer, unit, real, window)


TILED = [
    s
    for s in ZOO
    if s.bounded and len(s.shape) == 3 and not any(word in s.name for word in ("align", "x1.5", "MONAI", "overlap"))
]


@pytest.mark.parametrize("specimen", shown(TILED, *LARGEST))
def test_tiles_with_the_halo_equal_the_whole_image(specimen: Specimen) -> None:
    torch.manual_seed(1)
    module, found = specimen.build().double().eval(), followed(specimen)[1]
    assert found.tileable
    (top, bottom), (left, right) = found.halo()
    stride = found.stride("output")
    origin = found.grid("output").origin
    if any(origin):
        pytest.skip("output smaller than the image: tiles of it are cut otherwise")
    p, q = found.period
    height, width = (top + bottom + 3 * p, left + right + 3 * q)
    image = torch.randn(1, specimen.shape[0], height, width, dtype=torch.double)
    with torch.no_grad():
        whole = module(image)
        for y, x in ((top + p, left + q), (0, left + q), (height - p, width - q)):  # inside, at the top, in the corner
            y0, x0 = max(0, y - top), max(0, x - left)
            tile = module(image[..., y0 : min(y + p + bottom, height), x0 : min(x + q + right, width)])
            rows, columns = int(p / stride[0]), int(q / stride[1])
            v, u = int((y - y0) / stride[0]), int((x - x0) / stride[1])
            want = whole[..., int(y / stride[0]) :, int(x / stride[1]) :][..., :rows, :columns]
            torch.testing.assert_close(tile[..., v : v + rows, u : u + columns], want, rtol=1e-9, atol=1e-9)
