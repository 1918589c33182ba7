"""Batch norm of few channels, pixels side by side: against torch's own in double precision."""

from __future__ import annotations

import copy
from contextlib import nullcontext

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from whatwhere.network import narrow_norm
from whatwhere.network.quick import QuickOperators


@pytest.fixture(autouse=True)
def told(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """One entry for each norm that was computed this way."""
    found: list[str] = []
    own = narrow_norm._BatchNorm.apply

    def counted(*arguments: object) -> object:
        found.append("norm")
        return own(*arguments)

    monkeypatch.setattr(narrow_norm._BatchNorm, "apply", counted)
    return found


def learnt(norm: nn.BatchNorm2d, x: Tensor, above: Tensor) -> list[Tensor]:
    """Output, gradients and running statistics after one pass in training."""
    x = x.clone(memory_format=torch.preserve_format).requires_grad_()
    y = norm(x)
    y.backward(above)
    grads = [x.grad, *(parameter.grad for parameter in norm.parameters())]
    kept = [norm.running_mean, norm.running_var] if norm.track_running_stats else []
    return [one.detach().double() for one in (y, *grads, *kept) if one is not None]


def a_norm(channels: int, *, tracked: bool = True) -> nn.BatchNorm2d:
    norm = nn.BatchNorm2d(channels, track_running_stats=tracked)
    nn.init.normal_(norm.weight)
    nn.init.normal_(norm.bias)
    return norm


@pytest.mark.parametrize("lengths", [(4, 8), (8, 4), (16, 16)])
def test_weights_of_the_wrong_length_are_torch_s_error(lengths: tuple[int, int]) -> None:
    """They would be read beyond their end."""
    x = torch.randn(2, 8, 4, 4).contiguous(memory_format=torch.channels_last)
    weight, bias = map(torch.ones, lengths)
    with QuickOperators(), pytest.raises(RuntimeError, match="should contain 8 elements"):
        nn.functional.batch_norm(x, None, None, weight, bias, training=True)


@settings(max_examples=60, deadline=None)
@given(st.integers(2, 8), st.permutations([1, 3, 8]), st.integers(1, 5), st.booleans(), st.integers(0, 99))
def test_it_is_torchs_own_but_for_rounding(
    channels: int, sides: list[int], times: int, tracked: bool, seed: int
) -> None:
    torch.manual_seed(seed)
    norm = a_norm(channels, tracked=tracked)
    count, height, width = sides  # one of them is 1, one 8
    shape = (count, channels, height, times * width)
    x = (3 * torch.randn(shape) + 2).contiguous(memory_format=torch.channels_last)
    above = torch.randn(shape)
    exact = learnt(copy.deepcopy(norm).double(), x.double(), above.double())
    own = learnt(copy.deepcopy(norm), x, above)
    with QuickOperators():
        quick = learnt(norm, x, above)
    assert len(quick) == len(exact) == (6 if tracked else 4)
    for one, other, true in zip(quick, own, exact):
        allowed = 4 * (other - true).abs().max() + 2e-5 * (1 + true.abs().max())
        assert (one - true).abs().max() <= allowed


def test_where_it_serves_and_where_torchs_own_stays(told: list[str]) -> None:
    def used(norm: nn.BatchNorm2d, x: Tensor) -> bool:
        told.clear()
        with QuickOperators():
            norm(x)
        return bool(told)

    last = torch.channels_last
    x = torch.randn(2, 8, 6, 8).contiguous(memory_format=last)
    assert used(a_norm(8), x)
    assert not used(a_norm(8).eval(), x)
    assert not used(a_norm(8), x.contiguous())
    assert not used(a_norm(8), x[..., :3])
    assert not used(a_norm(16), torch.randn(2, 16, 6, 8).contiguous(memory_format=last))
    assert not used(nn.BatchNorm2d(8, affine=False), x)
    assert not used(a_norm(8), torch.randn(2, 8, 3, 3).contiguous(memory_format=last))  # 18 pixels are no eights
    assert not used(a_norm(8), x.bfloat16())


def test_the_next_layer_may_change_it_in_place(told: list[str]) -> None:
    layers = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1, bias=False), a_norm(8), nn.ReLU(inplace=True))
    layers = layers.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    x = torch.randn(2, 3, 16, 16).contiguous(memory_format=torch.channels_last)
    found = []
    for mode in (nullcontext(), QuickOperators()):
        layers.zero_grad()
        with mode:
            layers(x).square().sum().backward()
        found.append([parameter.grad.clone() for parameter in layers.parameters()])
    assert told == ["norm"]
    for own, quick in zip(*found):
        torch.testing.assert_close(quick, own, rtol=1e-4, atol=1e-3)


def test_one_image_of_one_pixel_is_refused_as_ever() -> None:
    with QuickOperators(), pytest.raises(ValueError, match="more than 1 value per channel"):
        a_norm(8)(torch.randn(1, 8, 1, 1))


def test_a_large_mean_does_not_drown_the_gradient(told: list[str]) -> None:
    torch.manual_seed(0)
    x = (torch.randn(4, 8, 32, 32) + 100).contiguous(memory_format=torch.channels_last)
    norm, above = a_norm(8), torch.randn(4, 8, 32, 32)
    exact = learnt(copy.deepcopy(norm).double(), x.double(), above.double())
    with QuickOperators():
        quick = learnt(norm, x, above)
    assert told == ["norm"]
    for one, true in zip(quick, exact):
        assert (one - true).abs().max() <= 1e-3 * (1 + true.abs().max())
