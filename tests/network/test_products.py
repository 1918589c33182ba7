"""Gradients of weights by matrix products, against torch's own: any kernel, padding, dilation and size."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from whatwhere.network import products
from whatwhere.network.quick import QuickOperators

LAST = torch.channels_last


@pytest.fixture(autouse=True)
def lacking(monkeypatch: pytest.MonkeyPatch) -> None:
    """As on a processor without AVX-512, of whatever number of cores."""
    monkeypatch.setattr(products, "_lacking", lambda: True)
    monkeypatch.setattr(products, "_THREADS", 1000)


def learnt(layer: nn.Module, x: Tensor) -> list[Tensor]:
    """Output, and the gradients of the image and each parameter."""
    layer.zero_grad()
    x = x.detach().clone(memory_format=torch.preserve_format).requires_grad_()
    y: Tensor = layer(x)
    y.backward(torch.linspace(-1, 1, y.numel(), dtype=y.dtype).reshape(y.shape))
    assert x.grad is not None
    return [y.detach().clone(), x.grad, *(p.grad.clone() for p in layer.parameters() if p.grad is not None)]


def agrees(layer: nn.Module, x: Tensor) -> None:
    layer = layer.to(memory_format=LAST)  # type: ignore[call-overload]
    theirs = learnt(layer, x)
    with QuickOperators():
        ours = learnt(layer, x)
    assert len(ours) == len(theirs)
    for one, other in zip(ours, theirs):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-4 * float(other.abs().max()))


def image(channels: int, height: int, width: int, count: int = 2) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randn(count, channels, height, width, generator=generator).contiguous(memory_format=LAST)


def used(layer: nn.Module, x: Tensor) -> bool:
    """Whether products would give the weights their gradient."""
    with QuickOperators():
        made = layer(x)  # which torch 2.6 wants to be there as long as its node is asked
    node = made.grad_fn
    names = [node.name(), *(below.name() for below, _ in node.next_functions if below is not None)]
    return any(name in ("_ConvolutionBackward", "_TransposedBackward") for name in names)


@pytest.mark.parametrize("layer", [nn.Conv2d(32, 32, 3, padding=1), nn.ConvTranspose2d(32, 32, 2, stride=2)])
def test_of_no_image_the_gradients_are_nothing(layer: nn.Module) -> None:
    """As a network asks for that sends each image through one of several parts."""
    with QuickOperators():
        _, _, *parameters = learnt(layer, image(32, 6, 6, count=0))
    assert not any(gradient.any() for gradient in parameters)


pair = st.tuples(st.integers(1, 4), st.integers(1, 4))


@given(
    kernel=pair, padding=st.tuples(st.integers(0, 5), st.integers(0, 5)), dilation=st.tuples(*[st.integers(1, 3)] * 2),
    size=st.tuples(st.integers(1, 23), st.integers(1, 23)), channels=st.tuples(*[st.integers(32, 40)] * 2),
    bias=st.booleans(), band=st.sampled_from([1, 10_000, 2**20]),
)  # fmt: skip
@settings(max_examples=60, deadline=None)
def test_any_convolution_in_steps_of_one(
    kernel: tuple[int, int], padding: tuple[int, int], dilation: tuple[int, int], size: tuple[int, int],
    channels: tuple[int, int], bias: bool, band: int,
) -> None:  # fmt: skip
    size = tuple(max(n, d * (k - 1) + 1 - 2 * p) for n, k, p, d in zip(size, kernel, padding, dilation))  # type: ignore[assignment]
    torch.manual_seed(0)
    layer = nn.Conv2d(*channels, kernel, padding=padding, dilation=dilation, bias=bias)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(products, "_BAND", band)  # many bands, a few, one
        agrees(layer, image(channels[0], *size))
    assert used(layer, image(channels[0], *size)) or kernel == (1, 1) or 1 in size


@pytest.mark.parametrize("step", [1, 2, (3, 2)])
@pytest.mark.parametrize("bias", [True, False])
def test_a_way_up(step: int | tuple[int, int], bias: bool) -> None:
    layer = nn.ConvTranspose2d(36, 32, step, stride=step, bias=bias)
    agrees(layer, image(36, 5, 7))
    assert used(layer.to(memory_format=LAST), image(36, 5, 7))  # type: ignore[call-overload]


def test_where_the_image_needs_no_gradient_or_the_weights_need_none() -> None:
    layer = nn.Conv2d(32, 32, 3, padding=1).to(memory_format=LAST)  # type: ignore[call-overload]
    x = image(32, 9, 9)
    layer(x).square().sum().backward()
    expected = [p.grad.clone() for p in layer.parameters()]
    layer.zero_grad()
    with QuickOperators():
        layer(x).square().sum().backward()
    torch.testing.assert_close([p.grad for p in layer.parameters()], expected, rtol=1e-4, atol=1e-4)
    layer.bias.requires_grad_(requires_grad=False)
    agrees(layer, x)
    layer.requires_grad_(requires_grad=False)
    assert not used(layer, x.requires_grad_())


OTHERS = {
    "few channels": (nn.Conv2d(16, 32, 3), image(16, 8, 8)),
    "few filters": (nn.Conv2d(32, 3, 3), image(32, 8, 8)),
    "one pixel": (nn.Conv2d(32, 32, 1), image(32, 8, 8)),
    "a stride": (nn.Conv2d(32, 32, 3, stride=2), image(32, 8, 8)),
    "groups": (nn.Conv2d(64, 64, 3, groups=2), image(64, 8, 8)),
    "padded by name": (nn.Conv2d(32, 32, 3, padding="same"), image(32, 8, 8)),
    "channels first": (nn.Conv2d(32, 32, 3), image(32, 8, 8).contiguous()),
    "double precision": (nn.Conv2d(32, 32, 3).double(), image(32, 8, 8).double()),
    "a way up that overlaps": (nn.ConvTranspose2d(32, 32, 3, stride=2), image(32, 8, 8)),
    "a way up with padding": (nn.ConvTranspose2d(32, 32, 2, stride=2, padding=1), image(32, 8, 8)),
}


@pytest.mark.parametrize("name", OTHERS)
def test_what_torch_does_as_well_stays_with_torch(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    layer, x = OTHERS[name]
    assert not used(layer, x)
    agrees(layer, x)
    usual = nn.Conv2d(32, 32, 3, padding=1)
    assert used(usual, image(32, 8, 8))
    with torch.autocast("cpu", torch.bfloat16):
        assert not used(usual, image(32, 8, 8))
    with monkeypatch.context() as patch:
        patch.setattr(products, "_THREADS", torch.get_num_threads() - 1)
        assert not used(usual, image(32, 8, 8))
    monkeypatch.setattr(products, "_lacking", lambda: False)
    assert not used(usual, image(32, 8, 8))
