"""Random networks made by hypothesis: branches, dilations, strides, transposes. Gradients must fill the windows."""

from __future__ import annotations

import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from proof import positive, support
from torch import Tensor, nn

from whatwhere.field import field

LAYERS = ("conv", "dilated", "stride", "transposed", "pool", "nearest", "linear", "shift", "branch")


def layer(kind: str, kernel: int, dilation: int) -> nn.Module:
    if kind == "conv":
        return nn.Conv1d(1, 1, kernel, padding=kernel // 2)
    if kind == "dilated":
        return nn.Conv1d(1, 1, 3, padding=dilation, dilation=dilation)
    if kind == "stride":
        return nn.Conv1d(1, 1, max(kernel, 2), stride=2, padding=1)
    if kind == "transposed":
        return nn.ConvTranspose1d(1, 1, kernel + 1, stride=2, padding=kernel // 2)
    if kind == "pool":
        return nn.AvgPool1d(2, ceil_mode=True)
    if kind in ("nearest", "linear"):
        return nn.Upsample(scale_factor=2, mode=kind)
    return nn.ReflectionPad1d((dilation, 0))


class Branches(nn.Module):
    """Two ways that meet; the longer result is cut."""

    def __init__(self, one: nn.Module, two: nn.Module) -> None:
        super().__init__()
        self.one, self.two = one, two

    def forward(self, x: Tensor) -> Tensor:
        a, b = self.one(x), self.two(x)
        length = min(a.shape[-1], b.shape[-1])
        return a[..., :length] + b[..., a.shape[-1] * 0 : length]


@st.composite
def networks(draw: st.DrawFn) -> nn.Module:
    parts: list[nn.Module] = []
    for kind in draw(st.lists(st.sampled_from(LAYERS), min_size=1, max_size=5)):
        kernel, dilation = draw(st.integers(1, 5)), draw(st.integers(1, 3))
        if kind == "branch":
            other = draw(st.sampled_from(("conv", "dilated", "shift")))
            parts.append(Branches(layer("conv", kernel, dilation), layer(other, 3, dilation)))
        else:
            parts.append(layer(kind, kernel, dilation))
    return nn.Sequential(*parts)


@settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck), derandomize=True)
@given(networks(), st.data())
def test_gradients_lie_inside_and_reach_both_ends(module: nn.Module, data: st.DataObject) -> None:
    module = positive(module)
    found = field(module, (1, 40))
    image = torch.rand(1, 1, 40, dtype=torch.double) + 0.1
    size = found.grid("output").size[0]
    for _ in range(3):
        unit = data.draw(st.integers(0, size - 1))
        real, ((low, high),) = support(module, image, (2,), (unit,)), found.receptive_field("output", (unit,))
        if real is None:
            continue  # a unit that reads padding only
        ((start, stop),) = real
        assert low <= start, unit
        assert stop <= high, unit
        if low > 0 and high < 40:  # at the rim, mirrored padding and gaps may leave the window a little too large
            assert (start, stop) == (low, high), unit
