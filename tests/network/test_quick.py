"""Operators exchanged while a network learns, against torch's own: the same values, and the same gradients."""

from __future__ import annotations

import copy
import random
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from whatwhere.learn.plan import TrainingPlan
from whatwhere.learn.step import make_optimizer, train_step
from whatwhere.network import Model, probe_machine, quick
from whatwhere.network.depthwise import depthwise
from whatwhere.network.quick import QuickOperators
from whatwhere.paint import Engine
from whatwhere.records import Classes, Normalisation

LAST = torch.channels_last
CLASSES = Classes(("a", "b"), ((0, 0, 0), (1, 1, 1)), ((0,), (1,)))
Call = Callable[[Tensor], Tensor]


def gradients(layer: nn.Module, x: Tensor, given: Tensor | None = None) -> list[Tensor]:
    """Output, and what it gives back to the image and to each parameter."""
    layer.zero_grad()
    x = x.clone(memory_format=torch.preserve_format).requires_grad_()
    y: Tensor = layer(x)
    if given is None:
        given = torch.linspace(-1, 1, y.numel(), dtype=y.dtype).reshape(y.shape)
    y.backward(given.to(y.dtype))
    found = [y.detach(), x.grad, *(parameter.grad for parameter in layer.parameters())]
    return [tensor.clone() for tensor in found if tensor is not None]


def filtering(channels: int, kernel: int, stride: int = 1, padding: int = 0) -> nn.Conv2d:
    torch.manual_seed(0)
    return nn.Conv2d(channels, channels, kernel, stride, padding, groups=channels, bias=False)


def norm(channels: int, **options: bool) -> nn.InstanceNorm2d:
    torch.manual_seed(0)
    layer = nn.InstanceNorm2d(channels, **{"affine": True, **options})
    for parameter in layer.parameters():
        nn.init.uniform_(parameter, 0.5, 1.5)
    return layer


LAYERS: dict[str, nn.Module] = {
    **{
        f"filters {kernel}, stride {stride}, padding {padding}": filtering(6, kernel, stride, padding)
        for kernel, stride, padding in [(3, 1, 1), (3, 2, 1), (5, 1, 2), (5, 2, 0), (5, 2, 2), (7, 3, 1), (4, 2, 1)]
    },
    "filters with a bias": nn.Conv2d(6, 6, 5, padding=2, groups=6),
    "filters with holes": nn.Conv2d(6, 6, 5, padding=4, dilation=2, groups=6, bias=False),
    "filters padded by name": nn.Conv2d(6, 6, 5, padding="same", groups=6, bias=False),
    "filters that are not square": nn.Conv2d(6, 6, (5, 3), (2, 1), (2, 1), groups=6, bias=False),
    "a 3 wide and 5 high filter": nn.Conv2d(6, 6, (5, 3), padding=1, groups=6, bias=False),
    "a 5 wide and 3 high filter": nn.Conv2d(6, 6, (3, 5), padding=1, groups=6, bias=False),
    "filters that reflect": nn.Conv2d(6, 6, 3, 2, padding=1, padding_mode="reflect", groups=6, bias=False),
    "groups of several": nn.Conv2d(6, 12, 5, padding=2, groups=6, bias=False),
    "not depthwise": nn.Conv2d(6, 4, 5, padding=2, bias=False),
    "a way up": nn.ConvTranspose2d(6, 4, 2, stride=2),
    "a way up, odd": nn.ConvTranspose2d(6, 4, 3, stride=2, padding=1, output_padding=1),
    "a way up without a bias": nn.ConvTranspose2d(6, 4, 2, stride=2, bias=False),
    "instance norm": norm(6),
    "instance norm without weights": norm(6, affine=False),
    "instance norm that remembers": norm(6, track_running_stats=True),
    "replication": nn.ReplicationPad2d((1, 0, 2, 3)),
    "reflection": nn.ReflectionPad2d(1),
    "padding by nothing": nn.ReplicationPad2d(0),
    "padding by zeros": nn.ZeroPad2d(1),
}


@pytest.mark.parametrize("layout", [torch.contiguous_format, LAST], ids=["channels first", "channels last"])
@pytest.mark.parametrize("size", [(9, 12), (16, 7), (11, 11), (8, 8)])
@pytest.mark.parametrize("name", LAYERS)
def test_it_is_torch_s_operator(name: str, size: tuple[int, int], layout: torch.memory_format) -> None:
    layer = LAYERS[name].train()
    x = torch.randn(2, 6, *size, generator=torch.Generator().manual_seed(0)).contiguous(memory_format=layout)
    theirs = gradients(layer, x)
    with QuickOperators():
        ours = gradients(layer, x)
    assert len(ours) == len(theirs)
    for one, other in zip(ours, theirs):
        assert one.dtype == other.dtype
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", LAYERS)
def test_in_bfloat16_its_gradients_are_as_near_as_torch_s(name: str) -> None:
    layer = LAYERS[name].train()
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(2, 6, 16, 16, generator=generator).contiguous(memory_format=LAST)
    given = torch.randn(layer(x).shape, generator=generator)
    exact = gradients(layer, x, given)
    lowered = x.bfloat16()
    with torch.autocast("cpu", torch.bfloat16):
        theirs = gradients(layer, lowered, given)
        with QuickOperators():
            ours = gradients(layer, lowered, given)
    for one, other, right in zip(ours, theirs, exact):
        assert float((one - right).abs().max()) <= 1.5 * float((other - right).abs().max()) + 1e-2 * right.abs().max()


@pytest.mark.parametrize(
    ("operator", "shapes"),
    [
        (lambda x, weight: depthwise(x, weight, 2, 2), [(1, 2, 7, 6), (2, 1, 5, 5)]),
        (lambda x, w, b: quick._instance_norm(x, weight=w, bias=b), [(2, 3, 4, 3), (3,), (3,)]),
        (quick._conv_transpose2d, [(1, 2, 3, 4), (2, 3, 2, 2), (3,)]),
    ],
    ids=["depthwise", "instance norm", "transposed"],
)
def test_gradients_are_those_of_differences(operator: Call, shapes: list[tuple[int, ...]]) -> None:
    torch.manual_seed(0)
    given = [torch.randn(shape, dtype=torch.float64) for shape in shapes]
    given[0] = given[0].contiguous(memory_format=LAST)
    assert torch.autograd.gradcheck(operator, [tensor.requires_grad_() for tensor in given])


def test_what_comes_up_may_be_changed_in_place() -> None:
    torch.manual_seed(0)
    up = nn.Sequential(nn.ConvTranspose2d(6, 4, 2, stride=2), nn.ReLU(inplace=True))
    x = torch.randn(2, 6, 5, 4).contiguous(memory_format=LAST)
    theirs = gradients(up, x)
    with QuickOperators():
        ours = gradients(up, x)
    for one, other in zip(ours, theirs):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("layer", [filtering(3, 5, 1, 2), norm(3), nn.ConvTranspose2d(3, 2, 2, 2)])
@pytest.mark.parametrize("which", ["image", "weights"])
def test_only_what_is_wanted_is_found(layer: nn.Module, which: str) -> None:
    x = torch.randn(1, 3, 8, 8).requires_grad_(which == "image")
    layer.requires_grad_(which == "weights").zero_grad()
    with QuickOperators():
        layer(x).sum().backward()
    assert (x.grad is not None) == (which == "image")
    assert all((parameter.grad is not None) == (which == "weights") for parameter in layer.parameters())


def test_instance_norm_leaves_channels_last() -> None:
    """What torch's own does not, so that every layer after it copies."""
    x = torch.randn(2, 6, 8, 8).contiguous(memory_format=LAST)
    assert not norm(6)(x).is_contiguous(memory_format=LAST)
    with QuickOperators():
        assert norm(6)(x).is_contiguous(memory_format=LAST)


def test_a_single_channel_is_filtered_rightly() -> None:
    layer, x = filtering(1, 5, 1, 2), torch.randn(2, 1, 9, 9)
    with QuickOperators():
        ours = gradients(layer, x)
    for one, other in zip(ours, gradients(layer, x)):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("kernel", [5, 7])
@pytest.mark.parametrize("stride", [1, 3])
@pytest.mark.parametrize("width", [1, 2, 3])
def test_maps_narrower_than_half_a_filter_are_learnt_from(kernel: int, stride: int, width: int) -> None:
    """As at the bottom of a ConvNeXt, whose filters are 7 px wide, where crops are small."""
    layer, x = filtering(4, kernel, stride, kernel // 2), torch.randn(2, 4, 5, width)
    theirs = gradients(layer, x)
    with QuickOperators():
        ours = gradients(layer, x)
    for one, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-4)


def test_numbers_of_numpy_are_numbers() -> None:
    x, one, two = torch.randn(1, 4, 6, 6), np.int64(1), np.int64(2)
    filters, way_up = torch.randn(4, 1, 5, 5), torch.randn(4, 3, 2, 2)
    with QuickOperators():
        filtered = F.conv2d(x, filters, stride=two, padding=two, groups=4)
        enlarged = F.conv_transpose2d(x, way_up, stride=two)
        whole = F.conv2d(x, torch.ones(2, 4, 3, 3), stride=one, padding=[1])
    assert (filtered.shape, enlarged.shape, whole.shape) == ((1, 4, 3, 3), (1, 3, 12, 12), (1, 2, 6, 6))


def test_filters_of_doubles_are_not_lowered() -> None:
    """Autocast leaves doubles as they are."""
    x, weight = torch.randn(1, 4, 6, 6).double(), torch.randn(4, 1, 5, 5).double()
    with torch.autocast("cpu", torch.bfloat16), QuickOperators():
        found = F.conv2d(x, weight, groups=4)
    assert found.dtype == torch.float64
    torch.testing.assert_close(found, F.conv2d(x, weight, groups=4))


def test_complex_filters_are_torch_s() -> None:
    x, weight = (torch.randn(shape, dtype=torch.complex64) for shape in [(1, 4, 6, 6), (4, 1, 5, 5)])
    with QuickOperators():
        F.conv2d(x, weight.requires_grad_(), groups=4).abs().sum().backward()
    assert weight.grad is not None


def test_weights_of_the_wrong_length_are_torch_s_error() -> None:
    x = torch.randn(2, 6, 8, 8).contiguous(memory_format=LAST)
    with QuickOperators(), pytest.raises(RuntimeError):
        F.instance_norm(x, weight=torch.ones(4), bias=torch.zeros(4))


def test_a_gradient_of_a_gradient_is_refused_not_wrong() -> None:
    x = torch.randn(2, 6, 8, 8).contiguous(memory_format=LAST).requires_grad_()
    with QuickOperators():
        (first,) = torch.autograd.grad(norm(6)(x).square().sum(), x, create_graph=True)
    with pytest.raises(RuntimeError):
        torch.autograd.grad(first.sum(), x)
    with pytest.raises(RuntimeError) as refused:
        first.sum().backward()
    assert quick.forgone(nn.Identity(), refused.value)  # a network that asks for it gets torch's own


class _Flattening(nn.Module):
    """Looks at the layout that torch's own instance norm leaves behind."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm, self.head = nn.Conv2d(3, 6, 3, padding=1), norm(6), nn.Conv2d(6, 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.norm(self.conv(x))
        flat = y.view(len(y), -1)  # which channels last does not allow
        found: Tensor = self.head(y * flat.mean(1)[:, None, None, None])
        return found


class _Checkpointed(nn.Module):
    """Computes its features once more on the way back."""

    def __init__(self) -> None:
        super().__init__()
        self.body, self.head = nn.Sequential(nn.Conv2d(3, 6, 3, padding=1), norm(6), nn.ReLU()), nn.Conv2d(6, 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        found: Tensor = self.head(checkpoint(self.body, x, use_reentrant=False))
        return found


class _OneByOne(_Flattening):
    """Looks at each image by itself, as torch.func does it."""

    def forward(self, x: Tensor) -> Tensor:
        found: Tensor = torch.func.vmap(lambda image: self.head(self.norm(self.conv(image[None])))[0])(x)
        return found


class _Sloping(_Flattening):
    """Joins how its features change with the image."""

    def forward(self, x: Tensor) -> Tensor:
        slope: Tensor = torch.func.grad(lambda image: self.norm(self.conv(image)).square().sum())(x)
        found: Tensor = self.head(self.norm(self.conv(x + slope)))
        return found


@pytest.mark.parametrize("kind", [_Flattening, _Checkpointed, _OneByOne, _Sloping])
@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_networks_that_look_closer_learn_and_paint_all_the_same(kind: type[nn.Module], precision: Any) -> None:
    torch.manual_seed(0)
    network = kind()
    plain = copy.deepcopy(network)
    machine = probe_machine("cpu", precision)
    images, target = torch.randn(2, 3, 16, 16), torch.randint(0, 2, (2, 16, 16), dtype=torch.uint8)
    network = network.to(memory_format=LAST).train()
    optimizer = make_optimizer(network, TrainingPlan(epochs=1))
    for _ in range(2):
        assert train_step(network, optimizer, images, target, machine=machine).finite
    model = Model(network, CLASSES, Normalisation((0.0,) * 3, (1.0,) * 3))
    found = Engine(model, precision, "cpu", backend="eager").logits(images[:1])
    torch.testing.assert_close(found, network.eval()(images[:1]), rtol=0.05, atol=0.05)
    assert not torch.equal(plain.head.weight, network.head.weight)


class _Chancy(_Flattening):
    """And draws random numbers, and keeps statistics, before it fails."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Sequential(nn.BatchNorm2d(3), nn.Dropout(0.5))

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(self.first(x) * random.random() * np.random.rand())


def test_a_step_that_was_tried_in_vain_leaves_no_trace() -> None:
    machine = probe_machine("cpu", "float32")
    images, target = torch.randn(2, 3, 16, 16), torch.randint(0, 2, (2, 16, 16), dtype=torch.uint8)
    states = []
    for known in (False, True):
        torch.manual_seed(0), random.seed(0), np.random.seed(0)
        network = _Chancy().to(memory_format=LAST).train()
        if known:  # then it is not tried
            quick._PLAIN.add(network)
        train_step(network, make_optimizer(network, TrainingPlan(epochs=1)), images, target, machine=machine)
        states.append(network.state_dict())
    assert all(torch.equal(one, other) for one, other in zip(*(state.values() for state in states)))


def test_a_step_and_painting_take_them(monkeypatch: pytest.MonkeyPatch) -> None:
    taken: list[bool] = []
    honest = quick._WAYS[F.instance_norm]

    def watched(*given: Any, **named: Any) -> Tensor | None:
        found = honest(*given, **named)
        taken.append(found is not None)
        return found

    monkeypatch.setitem(quick._WAYS, F.instance_norm, watched)
    network = nn.Sequential(nn.Conv2d(3, 6, 3, padding=1), norm(6), nn.Conv2d(6, 2, 1)).to(memory_format=LAST)
    machine = probe_machine("cpu", "float32")
    images, target = torch.randn(2, 3, 16, 16), torch.randint(0, 2, (2, 16, 16), dtype=torch.uint8)
    train_step(network, make_optimizer(network, TrainingPlan(epochs=1)), images, target, machine=machine)
    assert taken == [True]
    engine = Engine(Model(network, CLASSES, Normalisation((0.0,) * 3, (1.0,) * 3)), "float32", "cpu", backend="eager")
    taken.clear()
    engine.logits(images)
    assert taken == [True]


def test_one_pixel_is_torch_s_error() -> None:
    with QuickOperators(), pytest.raises(ValueError, match="more than 1 spatial element"):
        norm(6).train()(torch.randn(2, 6, 1, 1))


def test_other_numbers_of_dimensions_are_torch_s() -> None:
    """A volume, a signal, and an image without a batch."""
    cases = [
        (nn.InstanceNorm3d(2, affine=True), (1, 2, 4, 4, 4)),
        (nn.InstanceNorm1d(2, affine=True), (1, 2, 9)),
        (norm(2), (2, 8, 8)),
        (nn.ConvTranspose2d(2, 3, 2, 2), (2, 8, 8)),
        (filtering(2, 5, 2, 2), (2, 8, 8)),
    ]
    for layer, shape in cases:
        x = torch.randn(shape)
        with QuickOperators():
            found = layer(x)
        torch.testing.assert_close(found, layer(x), rtol=1e-5, atol=1e-5)


def test_padding_never_hands_out_the_image_itself() -> None:
    """A network may change what it has padded in place."""
    x = torch.ones(1, 1, 4, 4)
    for mode in ("replicate", "constant"):
        with QuickOperators(), torch.autocast("cpu", torch.bfloat16):
            F.pad(x, (0, 0, 0, 0), mode).add_(1)
    assert float(x.max()) == 1


@pytest.mark.parametrize(
    ("layer", "name"),
    [(filtering(6, 5, 1, 2), "_Filtered"), (norm(6), "_InstanceNorm"), (nn.ConvTranspose2d(6, 4, 2, 2), "_Biased")],
)
def test_they_are_exchanged_inside_only(layer: nn.Module, name: str) -> None:
    x = torch.randn(1, 6, 8, 8).contiguous(memory_format=LAST)
    with QuickOperators():
        assert name in layer(x).grad_fn.name()
    assert name not in layer(x).grad_fn.name()


def test_an_instance_norm_in_bfloat16_throughout_is_as_near_as_torch_s() -> None:
    """As painting has it: the weights are in bfloat16 too, and no gradients are wanted."""
    exact, x = norm(6).eval(), 3 + torch.randn(1, 6, 32, 32).contiguous(memory_format=LAST)
    lowered = norm(6).eval().bfloat16()
    with torch.inference_mode():
        theirs, right = lowered(x.bfloat16()), exact(x)
        with QuickOperators():
            ours = lowered(x.bfloat16())
    assert ours.dtype == torch.bfloat16
    assert float((ours - right).abs().max()) <= 1.5 * float((theirs - right).abs().max())
