"""Convolutions that filter each channel by itself, and learn quickly on a CPU. Knows nothing of networks.

oneDNN, which computes torch's convolutions there, has fast depthwise kernels with two gaps (`bench/depthwise.py`): the
gradient of weights more than three pixels wide, and in bfloat16 the gradient of the image at a stride. It then computes
a general convolution in groups, fills each group of one channel up with zeros, and throws nearly all of the work away.
So wide weights get their gradient here in strips of three columns, and the image gets its own in float32.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

__all__ = ["depthwise"]

_STRIP = 3
"""Columns of a kernel whose gradient is found at once."""


def depthwise(x: Tensor, weight: Tensor, stride: int, padding: int) -> Tensor | None:
    """One square filter for each channel, ``(N, C, H, W)`` and ``(C, 1, K, K) -> (N, C, H', W')``.

    None where torch's own gradients are as good.
    """
    if weight.shape[-1] <= _STRIP and stride == 1:
        return None
    return _Filtered.apply(x, weight, stride, padding)  # type: ignore[no-untyped-call, no-any-return]


class _Filtered(torch.autograd.Function):
    """Torch's convolution; its gradients by ways that stay depthwise."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, stride: int, padding: int) -> Tensor:
        ctx.save_for_backward(x, weight)
        ctx.stride, ctx.padding = stride, padding
        return F.conv2d(x, weight, None, stride, padding, groups=weight.shape[0])

    @staticmethod
    def backward(ctx: Any, given: Tensor) -> tuple[Tensor | None, Tensor | None, None, None]:
        x, weight = ctx.saved_tensors
        stride, padding = ctx.stride, ctx.padding
        to_x, to_weight = None, None
        if ctx.needs_input_grad[0]:
            to_x = _image_gradient(given, x, weight, stride, padding)
        if ctx.needs_input_grad[1]:
            strips = [
                _strip_gradient(given, x, weight[..., start : start + _STRIP], start, stride, padding)
                for start in range(0, weight.shape[-1], _STRIP)
            ]
            to_weight = torch.cat(strips, -1)
        return to_x, to_weight, None, None


def _image_gradient(given: Tensor, x: Tensor, weight: Tensor, stride: int, padding: int) -> Tensor:
    """In float32 where there is a stride; of ``x`` only the shape counts."""
    like = x
    if stride > 1 and x.dtype == torch.bfloat16:
        given, weight, like = given.float(), weight.float(), torch.empty_like(x, dtype=torch.float32)
    found = _gradients(given, like, weight, stride, padding, (True, False))[0]
    assert found is not None
    return found.to(x.dtype)


def _strip_gradient(given: Tensor, x: Tensor, strip: Tensor, start: int, stride: int, padding: int) -> Tensor:
    """The gradient of the kernel's columns from ``start`` on: that of a narrow kernel on an image moved to the left."""
    reach = stride * (given.shape[-1] - 1) + strip.shape[-1]  # columns that the strip reads
    near = padding - start
    seen = x[..., max(0, -near) : max(0, reach - near)]  # of narrow maps perhaps none
    left = min(max(0, near), reach)
    # all padding is made here: the depthwise kernel takes no small image with padding of its own
    moved = F.pad(seen, (left, reach - left - seen.shape[-1], padding, padding))
    found = _gradients(given, moved, strip, stride, 0, (False, True))[1]
    assert found is not None
    return found


def _gradients(
    given: Tensor, x: Tensor, weight: Tensor, stride: int, padding: int, wanted: tuple[bool, bool]
) -> tuple[Tensor | None, Tensor | None]:
    """What torch finds for image and weights; None for what is not wanted."""
    found = torch.ops.aten.convolution_backward(
        given, x, weight, None, [stride, stride], [padding, padding], [1, 1], False, [0, 0], weight.shape[0],
        [*wanted, False],
    )  # fmt: skip
    return found[0], found[1]
