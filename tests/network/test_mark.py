"""The mark of a network: what decides what it computes changes it, and nothing else does."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils import parametrizations, prune, spectral_norm

from whatwhere.network import Mirrored, UNet, own_config
from whatwhere.network.mark import mark

OTHERWISE: dict[str, tuple[Callable[[], nn.Module], Callable[[], nn.Module]]] = {
    "heads of attention": (lambda: nn.MultiheadAttention(16, 2), lambda: nn.MultiheadAttention(16, 8)),
    "padding that counts": (lambda: nn.AvgPool2d(3, 1, 1), lambda: nn.AvgPool2d(3, 1, 1, count_include_pad=False)),
    "sizes rounded up": (lambda: nn.AvgPool2d(3, 2), lambda: nn.AvgPool2d(3, 2, ceil_mode=True)),
    "corners that meet": (
        lambda: nn.Upsample(None, 2, "bilinear"),
        lambda: nn.Upsample(None, 2, "bilinear", align_corners=True),
    ),
    "where a norm stands": (
        lambda: nn.TransformerEncoderLayer(16, 2, 32),
        lambda: nn.TransformerEncoderLayer(16, 2, 32, norm_first=True),
    ),
    "one layer twice": (lambda: nn.Sequential(*[nn.Conv2d(3, 3, 1)] * 2), lambda: nn.Sequential(*_convs(2))),
    "which layer comes twice": (lambda: _shared(0), lambda: _shared(1)),
    "a graph": (lambda: torch.fx.symbolic_trace(_Scaled(2)), lambda: torch.fx.symbolic_trace(_Scaled(3))),
    "TorchScript": (
        lambda: torch.jit.trace(_Scaled(2), torch.ones(1)),
        lambda: torch.jit.trace(_Scaled(-1), torch.ones(1)),
    ),
}


class _Scaled(nn.Module):
    def __init__(self, scale: int) -> None:
        super().__init__()
        self.scale = scale

    def forward(self, x: Tensor) -> Tensor:
        return self.scale * x if self.scale > 0 else -x


def _convs(count: int) -> list[nn.Module]:
    return [nn.Conv2d(3, 3, 1) for _ in range(count)]


def _shared(which: int) -> nn.Module:
    convs = _convs(2)
    return nn.Sequential(*convs, convs[which])


@pytest.mark.filterwarnings("ignore:.*torch.jit.*:DeprecationWarning")
@pytest.mark.parametrize("what", OTHERWISE)
def test_what_torch_s_own_layers_are_set_to_tells_networks_apart(what: str) -> None:
    one, other = OTHERWISE[what]
    assert mark(one()) == mark(one()) != mark(other())


def _negated(_module: nn.Module, _inputs: object, output: Tensor) -> Tensor:
    return -output


def _hooked(hook: Callable[..., Any]) -> Callable[[nn.Module], object]:
    return lambda network: network.head.register_forward_hook(hook)


def _times(factor: float) -> Callable[..., Tensor]:
    return lambda _module, _inputs, output: factor * output


CHANGES: dict[str, Callable[[nn.Module], object]] = {
    "a hook": _hooked(_negated),
    "a hook before": lambda network: network.head.register_forward_pre_hook(lambda _module, inputs: (-inputs[0],)),
    "a hook of 2": _hooked(_times(2)),
    "a hook of 3": _hooked(_times(3)),
    "another forward": lambda network: setattr(network.head, "forward", torch.relu),
    "a setting": lambda network: setattr(network.head, "padding_mode", "reflect"),
    "a weight fewer": lambda network: setattr(network.head, "bias", None),
    "pruned": lambda network: prune.l1_unstructured(network.head, "weight", 0.5),
    "normed": lambda network: spectral_norm(network.head),
    "normed otherwise": lambda network: parametrizations.weight_norm(network.head),
}


def test_what_is_done_to_a_unet_of_ours_makes_it_one_made_elsewhere() -> None:
    marks = [mark(UNet(1, 2, width=2, depth=2))]
    for change in CHANGES.values():
        for network in (UNet(1, 2, width=2, depth=2), UNet(1, 2, width=2, depth=2, padding="valid")):
            whole = Mirrored(network) if network.padding == "valid" else network
            assert own_config(whole) == network.config
            change(network)
            assert own_config(whole) is None
            marks += [mark(network)] if network is whole else []
    assert len(set(marks)) == len(CHANGES) + 1, "each is another network"
    mirrored = Mirrored(UNet(1, 2, width=2, depth=2, padding="valid"))
    mirrored.register_forward_hook(_negated)
    assert own_config(mirrored) is None


class _Keeps(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.norm, self.scale = nn.Conv2d(1, 1, 1), 2.0

    def forward(self, x: Tensor) -> Tensor:
        self.last = self.scale * self.norm(x)
        return self.last


def test_what_becomes_of_a_network_as_it_runs_does_not_alter_it() -> None:
    """Nor does what is made ready: on another device or in another type, to learn or not, compiled, copied."""
    network = UNet(1, 2, width=2, depth=2, up="bilinear")
    before = mark(network)
    network(torch.rand(2, 1, 16, 16)).sum().backward()
    torch.compile(network, backend="eager")
    for one in (network.eval(), copy.deepcopy(network).bfloat16().requires_grad_(False)):
        assert mark(one) == before
        assert own_config(one) == network.config
    compiled = torch.compile(nn.Sequential(nn.ReLU()), backend="eager")
    assert mark(compiled) == mark(torch.compile(nn.Sequential(nn.ReLU()), backend="eager"))


@pytest.mark.parametrize("norm", [spectral_norm, lambda conv: prune.l1_unstructured(conv, "weight", 0.5)])
def test_weights_that_are_computed_anew_at_every_call_are_not_read(norm: Callable[[nn.Module], nn.Module]) -> None:
    torch.manual_seed(0)
    one, other = (norm(nn.Conv2d(2, 2, 1)).eval() for _ in range(2))
    other.load_state_dict(one.state_dict())
    assert mark(one) == mark(other), "though its weight is still the one that it was made with"


def test_what_a_module_made_elsewhere_keeps_counts_or_not() -> None:
    one, other = _Keeps(), _Keeps()
    other(torch.ones(1, 1, 2, 2))
    assert mark(one) != mark(other)
    assert mark(one, kept=False) == mark(other, kept=False)
