"""Convolutions by turned tiles against torch's own in double precision: any size, padding, channels and bands."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from whatwhere.network import winograd
from whatwhere.network.quick import QuickOperators

LAST = torch.channels_last
ROUNDING = {torch.float32: 2e-5, torch.bfloat16: 3e-2}
"""Root mean square of what differs, as a share of the values; torch's own bfloat16 differs by 2e-3 to 8e-3."""


@pytest.fixture(autouse=True)
def gaining(monkeypatch: pytest.MonkeyPatch) -> None:
    """As on a processor that gains by it in both precisions, of however few channels and pixels."""
    monkeypatch.setattr(winograd, "_gaining", lambda: (torch.float32, torch.bfloat16))
    monkeypatch.setattr(winograd, "_CHANNELS", {torch.float32: 0, torch.bfloat16: 0})
    monkeypatch.setattr(winograd, "_PIXELS", 0)
    monkeypatch.setattr(winograd, "_THREADS", 1000)


def image(channels: int, height: int, width: int, count: int = 2) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randn(count, channels, height, width, generator=generator).contiguous(memory_format=LAST)


def layer_of(*args: int, **options: object) -> nn.Conv2d:
    torch.manual_seed(0)
    layer: nn.Conv2d = nn.Conv2d(*args, **options).to(memory_format=LAST)  # type: ignore[arg-type, call-overload]
    return layer


def forward(layer: nn.Conv2d, x: Tensor, dtype: torch.dtype) -> Tensor:
    """By turned tiles for certain."""
    with QuickOperators(), torch.autocast("cpu", torch.bfloat16, enabled=dtype == torch.bfloat16):
        y: Tensor = layer(x)
    assert y.grad_fn is not None
    assert y.grad_fn.name() == "_TurnedBackward"
    return y


def learnt(layer: nn.Conv2d, x: Tensor, dtype: torch.dtype, *, turned: bool) -> list[Tensor]:
    """Output, and the gradients of the image and each parameter, of what is computed in a precision."""
    layer.zero_grad()
    x = x.detach().clone(memory_format=torch.preserve_format).requires_grad_()
    y = forward(layer, x, dtype) if turned else layer(x)
    y.backward(torch.rand(y.shape, generator=torch.Generator().manual_seed(1)).to(y.dtype))
    assert x.grad is not None
    return [y.detach(), x.grad, *(p.grad.clone() for p in layer.parameters() if p.grad is not None)]


def used(layer: nn.Module, x: Tensor) -> bool:
    with QuickOperators():
        made = layer(x)  # which torch 2.6 wants to be there as long as its node is asked
    return bool(made.grad_fn.name() == "_TurnedBackward")


def agrees(layer: nn.Conv2d, x: Tensor, dtype: torch.dtype = torch.float32) -> None:
    ours = learnt(layer, x, dtype, turned=True)
    exact = learnt(layer.double(), x.double(), torch.float64, turned=False)
    layer.float()
    assert len(ours) == len(exact)
    assert ours[0].dtype == dtype
    for one, other in zip(ours, exact):
        assert one.shape == other.shape
        difference = (one.double() - other).square().mean().sqrt()
        assert difference <= ROUNDING[dtype] * other.square().mean().sqrt() + 1e-12


@given(
    padding=st.tuples(st.integers(0, 4), st.integers(0, 4)), size=st.tuples(st.integers(2, 23), st.integers(2, 23)),
    channels=st.tuples(*[st.integers(1, 9)] * 2), count=st.integers(1, 4), bias=st.booleans(),
    band=st.sampled_from([1, 20_000, 2**24]), summed=st.sampled_from([1, 3, 8]), dtype=st.sampled_from(list(ROUNDING)),
)  # fmt: skip
@settings(max_examples=120, deadline=None)
def test_any_convolution_of_three_by_three(
    padding: tuple[int, int], size: tuple[int, int], channels: tuple[int, int], count: int, bias: bool,
    band: int, summed: int, dtype: torch.dtype,
) -> None:  # fmt: skip
    size = tuple(max(n, 3 - 2 * p) for n, p in zip(size, padding))  # type: ignore[assignment]
    layer = layer_of(*channels, 3, padding=padding, bias=bias)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(winograd, "_BAND", band)  # rows of an image, some images, all
        patch.setattr(winograd, "_SUMMED", summed)
        agrees(layer, image(channels[0], *size, count), dtype)


def test_what_needs_no_gradient_gets_none() -> None:
    layer, x = layer_of(5, 6, 3, padding=1), image(5, 12, 12)
    layer(x).square().sum().backward()
    expected = [p.grad.clone() for p in layer.parameters() if p.grad is not None]
    layer.zero_grad()
    with QuickOperators():
        layer(x).square().sum().backward()
    torch.testing.assert_close([p.grad for p in layer.parameters()], expected, rtol=1e-4, atol=1e-3)
    assert used(layer, x)
    with torch.no_grad(), QuickOperators():
        assert torch.equal(layer(x), layer_of(5, 6, 3, padding=1)(x))  # a network that does not learn: torch's own
    layer.requires_grad_(requires_grad=False)
    assert not used(layer, x.requires_grad_())


def test_the_rounding_of_a_wide_layer() -> None:
    """In float32 a few times that of torch's own sums, in bfloat16 about twice."""
    layer, x = layer_of(256, 256, 3, padding=1, bias=False), image(256, 16, 16).relu()
    exact = learnt(layer.double(), x.double(), torch.float64, turned=False)
    layer.float()
    for dtype, most in ((torch.float32, 5e-6), (torch.bfloat16, 8e-3)):
        ours = learnt(layer, x, dtype, turned=True)
        for one, truth in zip(ours, exact):
            assert (one.double() - truth).square().mean() <= most**2 * truth.square().mean()


@pytest.mark.parametrize("size", [(8, 8), (10, 8), (9, 8), (8, 9)])
@pytest.mark.parametrize("count", [1, 2])
@pytest.mark.parametrize("dtype", list(ROUNDING))
def test_the_output_may_be_changed_in_place(size: tuple[int, int], count: int, dtype: torch.dtype) -> None:
    """As VGG's ReLU does, which comes right after a convolution."""
    layer, x = layer_of(5, 6, 3, padding=1), image(5, *size, count)
    forward(layer, x, dtype).relu_().sum().backward()  # type: ignore[no-untyped-call]
    layer = layer_of(5, 6, 3, padding=1, bias=False)
    forward(layer, x, dtype).relu_().sum().backward()  # type: ignore[no-untyped-call]
    assert layer.weight.grad is not None


def test_of_raw_images_in_bfloat16() -> None:
    """What autocast turns to bfloat16 is turned here, and learns."""
    agrees(layer_of(3, 8, 3, padding=1), image(3, 16, 16), torch.bfloat16)


OTHERS = {
    "one pixel": (layer_of(8, 8, 1), image(8, 9, 9)),
    "five pixels": (layer_of(8, 8, 5), image(8, 9, 9)),
    "a stride": (layer_of(8, 8, 3, stride=2), image(8, 9, 9)),
    "apart": (layer_of(8, 8, 3, dilation=2), image(8, 9, 9)),
    "groups": (layer_of(8, 8, 3, groups=2), image(8, 9, 9)),
    "padded by name": (layer_of(8, 8, 3, padding="same"), image(8, 9, 9)),
    "channels first": (layer_of(8, 8, 3), image(8, 9, 9).contiguous()),
    "double precision": (layer_of(8, 8, 3).double(), image(8, 9, 9).double()),
}


@pytest.mark.parametrize("name", OTHERS)
def test_other_convolutions_stay_as_they_are(name: str) -> None:
    layer, x = OTHERS[name]
    assert not used(layer, x)


@pytest.mark.parametrize(
    ("limit", "value"), [("_CHANNELS", {torch.float32: 9}), ("_PIXELS", 163), ("_THREADS", 0), ("_gaining", tuple)]
)
def test_where_nothing_is_saved_torch_computes(limit: str, value: object, monkeypatch: pytest.MonkeyPatch) -> None:
    layer, x = layer_of(8, 8, 3, padding=1), image(8, 9, 9)
    assert used(layer, x)
    monkeypatch.setattr(winograd, limit, value)
    assert not used(layer, x)
