"""Random networks made by hypothesis, in one, two and three dimensions: strides, dilations, norms, attention, skips.

Gradients must fill the windows.
"""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from proof import positive, support
from torch import Tensor, nn

from whatwhere.field import field

LOCAL = ("conv", "dilated", "stride", "transposed", "pool", "nearest", "linear", "shift", "crop", "norm")
JOINED = ("sum", "concatenation", "skip")
EVERYWHERE = ("instance norm", "squeeze", "attention")
"""What reads the whole map."""

SIZES = {1: (40,), 2: (20, 23), 3: (11, 9, 10)}
"""Of the image, by its dimensions."""

CHANNELS = 2


class Squeeze(nn.Module):
    """Each channel is weighed by the means of all."""

    def __init__(self) -> None:
        super().__init__()
        self.mixed = nn.Linear(CHANNELS, CHANNELS)

    def forward(self, x: Tensor) -> Tensor:
        gate = self.mixed(x.flatten(2).mean(2)).sigmoid()
        return x * gate.view(-1, CHANNELS, *[1] * (x.ndim - 2))


class Attention(nn.Module):
    """Every place asks all the others."""

    def __init__(self) -> None:
        super().__init__()
        self.asked = nn.MultiheadAttention(CHANNELS, 1, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        places = x.flatten(2).transpose(1, 2)
        return x + self.asked(places, places, places)[0].transpose(1, 2).reshape(x.shape)


def layer(kind: str, kernel: int, dilation: int, dims: int, channels: int = CHANNELS) -> nn.Module:
    conv, transposed, pool, norm, instance = {
        1: (nn.Conv1d, nn.ConvTranspose1d, nn.AvgPool1d, nn.BatchNorm1d, nn.InstanceNorm1d),
        2: (nn.Conv2d, nn.ConvTranspose2d, nn.AvgPool2d, nn.BatchNorm2d, nn.InstanceNorm2d),
        3: (nn.Conv3d, nn.ConvTranspose3d, nn.AvgPool3d, nn.BatchNorm3d, nn.InstanceNorm3d),
    }[dims]
    made: dict[str, Callable[[], nn.Module]] = {
        "conv": lambda: conv(channels, CHANNELS, kernel, padding=kernel // 2),
        "dilated": lambda: conv(channels, CHANNELS, 3, padding=dilation, dilation=dilation),
        "stride": lambda: conv(channels, CHANNELS, max(kernel, 2), stride=2, padding=1),
        "transposed": lambda: transposed(channels, CHANNELS, kernel + 1, stride=2, padding=kernel // 2),
        "pool": lambda: pool(2, ceil_mode=True),
        "nearest": lambda: nn.Upsample(scale_factor=2),
        "linear": lambda: nn.Upsample(scale_factor=2, mode={1: "linear", 2: "bilinear", 3: "trilinear"}[dims]),
        "shift": lambda: getattr(nn, f"ReflectionPad{dims}d")((dilation, 0, 0, 1, 1, 0)[: 2 * dims]),
        "crop": lambda: getattr(nn, f"ConstantPad{dims}d")((-1, 0, 0, 0, 0, -1)[: 2 * dims], 0.0),
        "norm": lambda: norm(CHANNELS),
        "instance norm": lambda: instance(CHANNELS, affine=True),
        "squeeze": Squeeze,
        "attention": Attention,
    }
    return made[kind]()


class Branches(nn.Module):
    """Two ways that meet, one of which may be the map as it is; the longer result is cut."""

    def __init__(self, one: nn.Module, two: nn.Module, mixed: nn.Module | None) -> None:
        super().__init__()
        self.one, self.two, self.mixed = one, two, mixed

    def forward(self, x: Tensor) -> Tensor:
        a, b = self.one(x), self.two(x)
        for dim in range(2, a.ndim):
            length = min(a.shape[dim], b.shape[dim])
            a, b = a.narrow(dim, 0, length), b.narrow(dim, 0, length)
        return a + b if self.mixed is None else self.mixed(torch.cat([a, b], 1))


@st.composite
def networks(draw: st.DrawFn, dims: int, everywhere: bool) -> nn.Module:
    """From three channels; with a layer that reads the whole map, or without."""
    kinds = draw(st.lists(st.sampled_from(LOCAL + JOINED), min_size=1, max_size=5))
    if everywhere:
        kinds.insert(draw(st.integers(0, len(kinds))), draw(st.sampled_from(EVERYWHERE)))
    parts = [layer("conv", 1, 1, dims, channels=3)]
    for kind in kinds:
        kernel, dilation = draw(st.integers(1, 5)), draw(st.integers(1, 3))
        if kind in JOINED:
            way = nn.Sequential(layer("conv", kernel, dilation, dims), layer("norm", 1, 1, dims))
            other = draw(st.sampled_from(("conv", "dilated", "shift")))
            beside = nn.Identity() if kind == "skip" else layer(other, 3, dilation, dims)
            mixed = None if kind == "sum" else layer("conv", 1, 1, dims, channels=2 * CHANNELS)
            parts.append(Branches(way, beside, mixed))
        else:
            parts.append(layer(kind, kernel, dilation, dims))
    return nn.Sequential(*parts)


@pytest.mark.parametrize("everywhere", [False, True], ids=["local", "everywhere"])
@pytest.mark.parametrize("dims", SIZES)
@settings(max_examples=12, deadline=None, suppress_health_check=list(HealthCheck), derandomize=True)
@given(data=st.data())
def test_gradients_lie_inside_and_reach_all_sides(dims: int, everywhere: bool, data: st.DataObject) -> None:
    module, shape = positive(data.draw(networks(dims, everywhere))), SIZES[dims]
    found = field(module, (3, *shape))
    assert found.bounded is not everywhere
    image = torch.rand(1, 3, *shape, dtype=torch.double) + 0.1
    for _ in range(3):
        unit = tuple(data.draw(st.integers(0, size - 1)) for size in found.grid("output").size)
        real, window = support(module, image, tuple(range(2, 2 + dims)), unit), found.receptive_field("output", unit)
        if real is None:
            continue  # a unit that reads padding only
        for (start, stop), (low, high), size in zip(real, window, shape):
            assert low <= start, unit
            assert stop <= high, unit
            if low > 0 and high < size:  # at the rim, mirrored padding and gaps may leave the window a little too large
                assert (start, stop) == (low, high), unit
