"""Random networks made by hypothesis: branches, dilations, strides, transposes. Gradients must fill the windows."""

from __future__ import annotations

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from proof import positive, support
from torch import Tensor, nn

from whatwhere.field import field

LAYERS = ("conv", "dilated", "stride", "transposed", "pool", "nearest", "linear", "shift", "branch")


SIZES = {1: (40,), 2: (20, 23)}
"""Of the image, by its dimensions."""


def layer(kind: str, kernel: int, dilation: int, dims: int) -> nn.Module:
    conv, transposed, pool, pad = {
        1: (nn.Conv1d, nn.ConvTranspose1d, nn.AvgPool1d, nn.ReflectionPad1d),
        2: (nn.Conv2d, nn.ConvTranspose2d, nn.AvgPool2d, nn.ReflectionPad2d),
    }[dims]
    if kind == "conv":
        return conv(1, 1, kernel, padding=kernel // 2)
    if kind == "dilated":
        return conv(1, 1, 3, padding=dilation, dilation=dilation)
    if kind == "stride":
        return conv(1, 1, max(kernel, 2), stride=2, padding=1)
    if kind == "transposed":
        return transposed(1, 1, kernel + 1, stride=2, padding=kernel // 2)
    if kind == "pool":
        return pool(2, ceil_mode=True)
    if kind in ("nearest", "linear"):
        return nn.Upsample(scale_factor=2, mode="bilinear" if (kind, dims) == ("linear", 2) else kind)
    return pad((dilation, 0) if dims == 1 else (dilation, 0, 0, 1))


class Branches(nn.Module):
    """Two ways that meet; the longer result is cut."""

    def __init__(self, one: nn.Module, two: nn.Module) -> None:
        super().__init__()
        self.one, self.two = one, two

    def forward(self, x: Tensor) -> Tensor:
        a, b = self.one(x), self.two(x)
        for dim in range(2, a.ndim):
            length = min(a.shape[dim], b.shape[dim])
            a, b = a.narrow(dim, 0, length), b.narrow(dim, 0, length)
        return a + b


@st.composite
def networks(draw: st.DrawFn, dims: int) -> nn.Module:
    parts: list[nn.Module] = []
    for kind in draw(st.lists(st.sampled_from(LAYERS), min_size=1, max_size=5)):
        kernel, dilation = draw(st.integers(1, 5)), draw(st.integers(1, 3))
        if kind == "branch":
            other = draw(st.sampled_from(("conv", "dilated", "shift")))
            parts.append(Branches(layer("conv", kernel, dilation, dims), layer(other, 3, dilation, dims)))
        else:
            parts.append(layer(kind, kernel, dilation, dims))
    return nn.Sequential(*parts)


@pytest.mark.parametrize("dims", SIZES)
@settings(max_examples=12, deadline=None, suppress_health_check=list(HealthCheck), derandomize=True)
@given(data=st.data())
def test_gradients_lie_inside_and_reach_all_sides(dims: int, data: st.DataObject) -> None:
    module, shape = positive(data.draw(networks(dims))), SIZES[dims]
    found = field(module, (1, *shape))
    image = torch.rand(1, 1, *shape, dtype=torch.double) + 0.1
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
