"""Batch norm folded into the convolution before it, for inference. Takes any torch module and leaves it untouched."""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from whatwhere.paint.verify import contending, largest
from whatwhere.paint.watch import followers

__all__ = ["NoTensorError", "folded"]

_Transposed = (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)
_Conv = (nn.Conv1d, nn.Conv2d, nn.Conv3d, *_Transposed)
_Norm = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)

Pair = tuple[str, str]


class NoTensorError(TypeError):
    """A network gives a dictionary, a list or a record."""


def folded(network: nn.Module, example: Tensor) -> nn.Module:
    """A copy in evaluation mode with each batch norm folded into its convolution, where that changes nothing.

    Which norm follows which convolution is watched while ``example`` (N, C, H, W) passes, so it works for any module,
    traceable or not. Each pair is compared on what passes through it, and then the whole: a network for which it would
    not be equal, or that can't be folded, is returned unfolded.
    """
    plain = copy.deepcopy(network).eval()
    with torch.inference_mode():
        before = plain(example)
        if not isinstance(before, Tensor):
            raise NoTensorError(f"it returns a {type(before).__name__}, not a tensor")
        try:
            candidate = copy.deepcopy(plain)
            for (conv, norm), joined in _joined(plain, example).items():
                candidate.set_submodule(conv, joined)
                candidate.set_submodule(norm, nn.Identity())
            after = candidate(example)
        except Exception:  # noqa: BLE001 (the network itself runs: that something in it can't be folded is no fault)
            return plain
    if before.shape != after.shape:
        return plain
    return candidate if _same(*contending(before, after)) else plain


def _same(before: Tensor, after: Tensor) -> bool:
    return torch.allclose(before, after, rtol=1e-3, atol=1e-4 * max(1.0, largest(before)))


def _joined(network: nn.Module, example: Tensor) -> dict[Pair, nn.Module]:
    """By the names of a convolution and of the norm after it, the convolution that computes both."""
    joined: dict[Pair, nn.Module] = {}
    for pair in followers(network, example, _Conv, _Norm):
        conv, norm = map(network.get_submodule, pair)
        if _can_be_joined(conv, norm):
            transposed = isinstance(conv, _Transposed)
            joined[pair] = fuse_conv_bn_eval(conv, norm, transposed)  # type: ignore[arg-type, type-var]
    return _equal(network, example, joined)


def _can_be_joined(conv: nn.Module, norm: nn.Module) -> bool:
    """Whether weights and stored statistics are all there is to it: a norm's subclass may hold an activation."""
    if type(norm) not in _Norm or norm.running_mean is None or norm.running_var is None:
        return False
    return not (isinstance(conv, _Transposed) and conv.groups > 1)  # torch's folding takes one group


def _equal(network: nn.Module, example: Tensor, joined: dict[Pair, nn.Module]) -> dict[Pair, nn.Module]:
    """Those that give what the norm gives: what lies between it and its convolution may have changed that in place."""
    given: dict[Pair, tuple[Any, Any]] = {}
    equal: dict[Pair, nn.Module] = {}
    handles = []
    for pair in joined:
        conv, norm = map(network.get_submodule, pair)

        def enter(_module: nn.Module, inputs: Any, options: Any, pair: Pair = pair) -> None:
            given[pair] = inputs, options

        def leave(_module: nn.Module, _inputs: Any, output: Tensor, pair: Pair = pair) -> None:
            inputs, options = given.pop(pair)
            if _same(output, joined[pair](*inputs, **options)):
                equal[pair] = joined[pair]

        handles += [conv.register_forward_pre_hook(enter, with_kwargs=True), norm.register_forward_hook(leave)]
    try:
        network(example)
    finally:
        for handle in handles:
            handle.remove()
    return equal
