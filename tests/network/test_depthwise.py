"""Filters of single channels against torch's own convolution: the same values, and the same gradients."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn

from whatwhere.network.depthwise import Depthwise


def gradients(layer: nn.Module, x: Tensor, given: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Output, and what it gives back to image and weights."""
    x = x.clone().requires_grad_()
    y: Tensor = layer(x)
    y.backward(given.to(y.dtype))
    (weight,) = layer.parameters()
    assert x.grad is not None
    assert weight.grad is not None
    return y.detach(), x.grad, weight.grad


def pair(channels: int, kernel: int, stride: int, padding: int) -> tuple[Depthwise, nn.Conv2d]:
    torch.manual_seed(0)
    ours = Depthwise(channels, kernel, stride, padding)
    theirs = nn.Conv2d(channels, channels, kernel, stride, padding, groups=channels, bias=False)
    theirs.load_state_dict(ours.state_dict())
    return ours, theirs


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("size", [(9, 12), (16, 7), (11, 11), (5, 5)])
@pytest.mark.parametrize(
    ("kernel", "stride", "padding"), [(3, 1, 1), (5, 1, 2), (5, 2, 0), (5, 2, 2), (7, 3, 1), (4, 2, 1)]
)
def test_it_is_torch_s_convolution(
    kernel: int, stride: int, padding: int, size: tuple[int, int], layout: torch.memory_format
) -> None:
    if min(size) + 2 * padding < kernel:
        pytest.skip("the kernel does not fit")
    ours, theirs = pair(6, kernel, stride, padding)
    x = torch.randn(2, 6, *size).contiguous(memory_format=layout)
    given = torch.randn_like(theirs(x))
    for one, other in zip(gradients(ours, x, given), gradients(theirs, x, given)):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-4)


def test_gradients_are_those_of_differences() -> None:
    layer = Depthwise(2, 5, 2, 2).double()
    x = torch.randn(1, 2, 7, 6, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda x, weight: torch.func.functional_call(layer, {"weight": weight}, x), (
        x, layer.weight,
    ))  # fmt: skip


def test_in_bfloat16_its_gradients_are_as_near_as_torch_s() -> None:
    ours, theirs = pair(8, 5, 1, 2)
    x, given = torch.randn(2, 8, 16, 16), torch.randn(2, 8, 16, 16)
    exact = gradients(copy.deepcopy(theirs), x, given)
    with torch.autocast("cpu", torch.bfloat16):
        found, usual = gradients(ours, x, given), gradients(theirs, x, given)
    assert found[0].dtype == torch.bfloat16
    assert found[2].dtype == torch.float32
    for one, other, right in zip(found, usual, exact):
        assert float((one - right).abs().max()) <= 1.5 * float((other - right).abs().max()) + 1e-3


@pytest.mark.parametrize("which", ["image", "weights"])
def test_only_what_is_wanted_is_found(which: str) -> None:
    layer, x = Depthwise(3, 5, 1, 2), torch.randn(1, 3, 8, 8)
    x.requires_grad_(which == "image")
    layer.weight.requires_grad_(which == "weights")
    layer(x).sum().backward()
    assert (x.grad is not None) == (which == "image")
    assert (layer.weight.grad is not None) == (which == "weights")
