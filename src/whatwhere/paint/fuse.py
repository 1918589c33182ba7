"""Convolutions made ready for the CPU's library: weights in its own order, ReLU inside, concatenation without copies.

PyTorch orders the weights anew at every call, and ReLU and concatenation read and write whole feature maps. The
operators here are those that torch.compile puts in their places; used directly they cost no compilation.
"""

from __future__ import annotations

import copy
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from whatwhere.network import UNet
from whatwhere.paint.verify import equal_but_for_rounding
from whatwhere.paint.watch import followers, untouched

__all__ = ["ALL", "Fusion", "fused"]

_ACTIVATIONS: dict[type[nn.Module], tuple[str, list[float]]] = {
    nn.ReLU: ("relu", []),
    nn.ReLU6: ("hardtanh", [0.0, 6.0]),
}

_TOLERANCE = {torch.float32: 1e-4, torch.bfloat16: 2**-5}
"""Root mean square difference, as a share of the logits' own: another order of sums, nothing else."""

Layout = tuple[list[int], list[int], list[int], int]
"""Padding, stride, dilation and groups."""

_GROWTH = 8
"""A tile is about so much larger than the example; weights are ordered for that size."""


@dataclass(frozen=True)
class Fusion:
    """What is fused: all of it, except to measure its share.

    Attributes:
        pack: weights are put in the library's order once.
        activation: ReLU and ReLU6 are computed where the convolution writes. Needs ``pack``.
        concatenation: a U-Net's decoder adds two convolutions instead of copying two maps into one. Needs ``pack``.
    """

    pack: bool = True
    activation: bool = True
    concatenation: bool = True


ALL = Fusion()


def fused(network: nn.Module, example: Tensor, fusion: Fusion = ALL) -> nn.Module:
    """A network that computes the same faster; the one given where that can't be done or would not be equal.

    Args:
        network: in evaluation mode on the CPU, channels last.
        example: ``(1, C, h, w)`` in the network's dtype.
        fusion: what to do.
    """
    if not fusion.pack or not torch._C._has_mkldnn or example.dtype not in _TOLERANCE:
        return network
    with torch.no_grad():
        before = _on_examples(network, example)
        for attempt in dict.fromkeys((fusion, replace(fusion, concatenation=False))):
            try:
                candidate = _packed(network, example, attempt)
                equal = all(_equal(logits, candidate(image)) for image, logits in before)
            except Exception:  # noqa: BLE001 (operators that torch lacks, layers called in ways of their own)
                continue
            if equal:
                return candidate
    return network


def _on_examples(network: nn.Module, example: Tensor) -> list[tuple[Tensor, Tensor]]:
    """What it makes of the example and of another, of half its height where it takes that.

    A copy holds what the network has kept of the example: on that alone something old in it would not be seen.
    """
    found = [(example, network(example))]
    other = 2 * example.flip(-1)
    for image in (other[..., : other.shape[-2] // 2, :], other):
        with suppress(Exception):
            return [*found, (image, network(image))]
    return found


def _equal(before: Tensor, after: Tensor) -> bool:
    same = before.shape == after.shape
    return same and equal_but_for_rounding(before.float(), after.float(), _TOLERANCE[before.dtype])


def _packed(network: nn.Module, example: Tensor, fusion: Fusion) -> nn.Module:
    pairs = dict(followers(network, example, (nn.Conv2d,), tuple(_ACTIVATIONS))) if fusion.activation else {}
    sizes = _input_sizes(network, example)
    candidate = copy.deepcopy(network)
    for name, size in sizes.items():
        conv = candidate.get_submodule(name)
        follower = candidate.get_submodule(pairs[name]) if name in pairs else None
        activation = follower if type(follower) in _ACTIVATIONS else None  # a subclass may compute something else
        if isinstance(conv, nn.ConvTranspose2d):
            candidate.set_submodule(name, _PackedTransposed(conv, size))
        elif isinstance(conv, nn.Conv2d):
            candidate.set_submodule(name, _Packed(conv, size, activation))
        if activation is not None:
            candidate.set_submodule(pairs[name], nn.Identity())
    if fusion.concatenation and type(candidate) is UNet and candidate.padding == "same" and untouched(network):
        return _WithoutCopies(candidate, network, sizes)
    return candidate


def _input_sizes(network: nn.Module, example: Tensor) -> dict[str, list[int]]:
    """Names of the convolutions that can be packed, each with the size of its input in a tile."""
    sizes: dict[str, list[int]] = {}
    others: set[str] = set()
    handles = []
    for name, module in network.named_modules():
        if name and isinstance(module, nn.Conv2d | nn.ConvTranspose2d) and _plain(module):

            def note(_module: nn.Module, inputs: tuple[Tensor, ...], options: dict[str, Any], name: str = name) -> None:
                if len(inputs) != 1 or options or inputs[0].ndim != 4:  # with output_size, by name, on one image alone
                    others.add(name)
                    return
                count, channels, height, width = inputs[0].shape
                sizes[name] = [count, channels, height * _GROWTH, width * _GROWTH]

            handles.append(module.register_forward_pre_hook(note, with_kwargs=True))
    try:
        network(example)
    finally:
        for handle in handles:
            handle.remove()
    return {name: size for name, size in sizes.items() if name not in others}


def _plain(conv: nn.Conv2d | nn.ConvTranspose2d) -> bool:
    """Whether it pads with zeros, by numbers, and is not changed by anything that hangs on it."""
    simple = type(conv) in (nn.Conv2d, nn.ConvTranspose2d) and conv.padding_mode == "zeros"
    return simple and not isinstance(conv.padding, str) and untouched(conv)


class _Packed(nn.Module):
    """A convolution with its weights in the library's order, and what follows it."""

    def __init__(self, conv: nn.Conv2d, size: list[int], activation: nn.Module | None) -> None:
        super().__init__()
        self.bias = None if conv.bias is None else conv.bias.detach()
        self.layout = _numbers(conv.padding), list(conv.stride), list(conv.dilation), conv.groups
        self.attribute, self.scalars = ("none", []) if activation is None else _ACTIVATIONS[type(activation)]
        self.weight = _order(conv.weight, self.layout, size)

    def forward(self, x: Tensor) -> Tensor:
        x = x.contiguous(memory_format=torch.channels_last)
        result: Tensor = torch.ops.mkldnn._convolution_pointwise(
            x, self.weight, self.bias, *self.layout, self.attribute, self.scalars, ""
        )
        return result


class _PackedSum:
    """A convolution of two inputs as if concatenated: one writes, the other adds to it and applies what follows.

    In two calls, so that the first input can be given up before the second is computed.
    """

    def __init__(self, conv: nn.Conv2d, size: list[int], whole: _Packed, split: int) -> None:
        self.bias, self.layout, self.attribute, self.scalars = whole.bias, whole.layout, whole.attribute, whole.scalars
        weight = conv.weight.detach()
        number, channels, height, width = size
        self.first = _order(weight[:, :split].contiguous(), self.layout, [number, split, height, width])
        self.second = _order(weight[:, split:].contiguous(), self.layout, [number, channels - split, height, width])

    def begin(self, skip: Tensor) -> Tensor:
        skip = skip.contiguous(memory_format=torch.channels_last)
        total: Tensor = torch.ops.mkldnn._convolution_pointwise(
            skip, self.first, self.bias, *self.layout, "none", [], ""
        )
        return total

    def finish(self, total: Tensor, x: Tensor) -> Tensor:
        """Into the same memory."""
        x = x.contiguous(memory_format=torch.channels_last)
        result: Tensor = torch.ops.mkldnn._convolution_pointwise_.binary(
            total, x, self.second, None, *self.layout, "add", 1.0, self.attribute, self.scalars, ""
        )
        return result


class _PackedTransposed(nn.Module):
    """A transposed convolution with its weights in the library's order; as it was where it is told the size to come to.

    Many U-Nets tell that of odd sizes only, which the example has none of.
    """

    def __init__(self, conv: nn.ConvTranspose2d, size: list[int]) -> None:
        super().__init__()
        self.plain = conv.forward
        self.bias = None if conv.bias is None else conv.bias.detach()
        self.layout = (
            _numbers(conv.padding), _numbers(conv.output_padding), list(conv.stride), list(conv.dilation), conv.groups
        )  # fmt: skip
        padding, extra, stride, dilation, groups = self.layout
        self.weight = torch.ops.mkldnn._reorder_convolution_transpose_weight(
            conv.weight.detach(), padding, extra, stride, dilation, groups, size
        )

    def forward(self, x: Tensor, output_size: list[int] | None = None) -> Tensor:
        x = x.contiguous(memory_format=torch.channels_last)
        result: Tensor
        if output_size is not None:
            result = self.plain(x, output_size)
            return result
        result = torch.ops.mkldnn._convolution_transpose_pointwise(
            x, self.weight, self.bias, *self.layout, "none", [], ""
        )
        return result


class _WithoutCopies(nn.Module):
    """A U-Net whose decoder never puts the skip and the features from below side by side in memory.

    Only for the plain call: all skips pass, no features are returned.
    """

    def __init__(self, network: UNet, unpacked: nn.Module, sizes: dict[str, list[int]]) -> None:
        super().__init__()
        self.network = network
        self.sums: dict[int, _PackedSum] = {}
        for level in network.skips:
            name = f"decoder.{level}.0.0"  # the convolution that meets both
            packed, conv = network.get_submodule(name), unpacked.get_submodule(name)
            above = unpacked.get_submodule(f"up.{level}.0").out_channels
            if isinstance(packed, _Packed) and isinstance(conv, nn.Conv2d) and isinstance(above, int):
                self.sums[level] = _PackedSum(conv, sizes[name], packed, conv.in_channels - above)
                network.set_submodule(name, nn.Identity())

    def forward(self, image: Tensor) -> Tensor:
        """Every map is given up as soon as nobody needs it: those of the finest level are most of the memory."""
        network = self.network
        levels = network.encode(image)
        x = levels.pop()
        for level in reversed(range(network.depth)):
            skip = levels.pop()
            if level in self.sums:
                skip = self.sums[level].begin(skip)
                x = self.sums[level].finish(skip, network.up[level](x))
            else:
                x = network.up[level](x)
                if level in network.skips:
                    x = torch.cat([skip, x], dim=1)
            del skip
            x = network.decoder[level](x)
        logits: Tensor = network.head(x)
        return logits[..., : image.shape[-2], : image.shape[-1]]


def _order(weight: Tensor, layout: Layout, size: list[int]) -> Tensor:
    padding, stride, dilation, groups = layout
    ordered: Tensor = torch.ops.mkldnn._reorder_convolution_weight(
        weight.detach(), padding, stride, dilation, groups, size
    )
    return ordered


def _numbers(padding: str | tuple[int, ...]) -> list[int]:
    assert not isinstance(padding, str)
    return list(padding)
