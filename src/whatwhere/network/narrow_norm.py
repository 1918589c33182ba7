"""Batch norm of maps with few channels on a CPU, as one of several pixels side by side: many channels of fewer pixels.

Torch goes through channels-last maps a pixel at a time, and with eight channels that costs more than what is computed
(before and after: `bench/quick_operators.py`). Knows nothing of networks.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

__all__ = ["batch_norm"]

_CHANNELS = 8
"""With 16, torch's own is as fast; in bfloat16 it was not measured."""

_BESIDE = 8
"""Pixels side by side."""


def batch_norm(
    x: Tensor,
    running_mean: Tensor | None,
    running_var: Tensor | None,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    training: bool = False,
    momentum: float = 0.1,
    eps: float = 1e-5,
) -> Tensor | None:
    """As ``torch.nn.functional.batch_norm``, in training; None where that is as good (Ioffe & Szegedy, 1502.03167)."""
    if not training or weight is None or bias is None or (running_mean is None) != (running_var is None):
        return None
    each = [weight, bias, *(kept for kept in (running_mean, running_var) if kept is not None)]
    if x.ndim != 4 or not 1 < x.shape[1] <= _CHANNELS or any(one.dtype != torch.float32 for one in (x, *each)):
        return None
    if any(one.shape != x.shape[1:2] for one in each):  # an error of torch's; below it is read beyond their end
        return None
    pixels = x.numel() // x.shape[1]
    if pixels < 2 or pixels % _BESIDE or not x.is_contiguous(memory_format=torch.channels_last):
        return None
    return _BatchNorm.apply(x, weight, bias, running_mean, running_var, momentum, eps)  # type: ignore[no-untyped-call, no-any-return]


class _BatchNorm(torch.autograd.Function):
    """Sums are taken of each pixel's place in its eight, then together."""

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        weight: Tensor,
        bias: Tensor,
        running_mean: Tensor | None,
        running_var: Tensor | None,
        momentum: float,
        eps: float,
    ) -> Tensor:
        beside = _side_by_side(x)
        means, variances = torch.ops.aten.batch_norm_update_stats(beside, None, None, 0.0)
        means, variances = means.view(_BESIDE, -1), variances.view(_BESIDE, -1)
        mean = means.mean(0)
        variance = variances.mean(0) + (means - mean).square().mean(0)
        if running_mean is not None and running_var is not None:
            pixels = x.numel() // x.shape[1]
            running_mean.lerp_(mean, momentum)
            running_var.lerp_(variance * (pixels / (pixels - 1)), momentum)
        found = torch.empty_like(x)  # no view of anything: the next layer may change it in place
        each = (one.repeat(_BESIDE) for one in (weight, bias, mean, variance))
        unused = {name: x.new_empty(0) for name in ("save_mean", "save_invstd")}
        torch.ops.aten.native_batch_norm.out(beside, *each, False, 0.0, eps, out=_side_by_side(found), **unused)
        ctx.save_for_backward(x, weight, mean, (variance + eps).rsqrt())
        ctx.eps = eps
        return found

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, given: Tensor) -> tuple[Tensor | None, ...]:
        x, weight, mean, scale = ctx.saved_tensors
        above = _side_by_side(given.contiguous(memory_format=torch.channels_last))
        below = _side_by_side(x)
        wide = [one.repeat(_BESIDE) for one in (weight, mean, scale)]
        _, *sums = torch.ops.aten.native_batch_norm_backward(
            above, below, wide[0], None, None, wide[1], wide[2], True, ctx.eps, [False, True, True]
        )
        to_weight, to_bias = (one.view(_BESIDE, -1).sum(0) for one in sums)
        to_x = None
        if ctx.needs_input_grad[0]:
            pixels = x.numel() // x.shape[1]
            by_given = weight * scale
            by_x = -by_given * scale * to_weight / pixels
            rest = -by_given * to_bias / pixels - by_x * mean
            by_given, by_x, rest = (one.repeat(_BESIDE)[:, None, None] for one in (by_given, by_x, rest))
            to_x = torch.empty_like(x)
            torch.addcmul(rest, below, by_x, out=_side_by_side(to_x)).addcmul_(above, by_given)
        return to_x, to_weight, to_bias, None, None, None, None


def _side_by_side(x: Tensor) -> Tensor:
    """``(N, C, H, W) -> (1, so many x C, pixels / so many, 1)``, the same numbers in memory."""
    return x.permute(0, 2, 3, 1).view(1, -1, 1, _BESIDE * x.shape[1]).permute(0, 3, 1, 2)
