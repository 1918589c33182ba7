"""Batch norm folded into the convolution before it, for inference. Takes any torch module and leaves it untouched."""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from whatwhere.paint.watch import followers

__all__ = ["NoTensorError", "folded"]

_Conv = (nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)
_Norm = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)


class NoTensorError(TypeError):
    """A network gives a dictionary, a list or a record."""


def folded(network: nn.Module, example: Tensor) -> nn.Module:
    """A copy in evaluation mode with each batch norm folded into its convolution, where that changes nothing.

    Which norm follows which convolution is watched while ``example`` (N, C, H, W) passes, so it works for any module,
    traceable or not; the result is compared, and a network for which it would not be equal is returned unfolded.
    """
    plain = copy.deepcopy(network).eval()
    with torch.inference_mode():
        before = plain(example)
        if not isinstance(before, Tensor):
            raise NoTensorError(f"it returns a {type(before).__name__}, not a tensor")
        pairs = _pairs(plain, example)
        candidate = copy.deepcopy(plain)
        for conv, norm in pairs:
            transposed = "Transpose" in type(plain.get_submodule(conv)).__name__
            before_norm, batch_norm = candidate.get_submodule(conv), candidate.get_submodule(norm)
            fused = fuse_conv_bn_eval(before_norm, batch_norm, transposed)  # type: ignore[arg-type, type-var]
            candidate.set_submodule(conv, fused)
            candidate.set_submodule(norm, nn.Identity())
        after = candidate(example)
    same = torch.allclose(before, after, rtol=1e-3, atol=1e-4 * max(1.0, float(before.abs().max())))
    return candidate if same else plain


def _pairs(network: nn.Module, example: Tensor) -> list[tuple[str, str]]:
    """Names of convolutions and of the norms after them that use stored statistics."""
    pairs = followers(network, example, _Conv, _Norm)
    return [(conv, norm) for conv, norm in pairs if getattr(network.get_submodule(norm), "track_running_stats", False)]
