"""Convolutions whose weights learn by matrix products, on processors for which oneDNN has no fast way of its own.

Without AVX-512, oneDNN takes far longer for the weights' gradient of channels-last convolutions in float32 than for the
other two passes, and so for a way up's (before and after: `bench/quick_operators.py`). That gradient is a sum over
pixels of what was given times what was seen, one product of matrices for each place in the kernel; here the image is
laid out so that those products are found a band of rows at a time, in the cache. Knows nothing of networks.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

__all__ = ["convolution", "transposed"]

Pair = tuple[int, int]

_CHANNELS = 32
"""With fewer channels in or out, products are no faster than oneDNN."""

_THREADS = 8
"""With more of them, the products of a band may be too small to share; two are what was measured."""

_BAND = 2**20
"""Floats of a band of rows, which are to stay in the cache."""


def convolution(x: Tensor, weight: Tensor, bias: Tensor | None, padding: Pair, dilation: Pair) -> Tensor | None:
    """A convolution in steps of one pixel, ``(N, C, H, W)`` and ``(O, C, h, w) -> (N, O, H', W')``.

    None where torch's own gradients are as good.
    """
    if weight.shape[2:] == (1, 1) or not _pays(x, weight):
        return None
    return _Convolution.apply(x, weight, bias, padding, dilation)  # type: ignore[no-untyped-call, no-any-return]


def transposed(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor | None:
    """A transposed convolution in steps of its own size, ``(N, C, H, W)`` and ``(C, O, s, s) -> (N, O, sH, sW)``.

    None where torch's own gradients are as good; the bias gets none here.
    """
    return _Transposed.apply(x, weight, bias) if _pays(x, weight) else None  # type: ignore[no-untyped-call]


def _pays(x: Tensor, weight: Tensor) -> bool:
    return (
        _lacking()
        and torch.get_num_threads() <= _THREADS
        and weight.requires_grad
        and torch.is_grad_enabled()
        and x.dtype == weight.dtype == torch.float32
        and x.ndim == 4
        and len(x) > 0
        and x.is_contiguous(memory_format=torch.channels_last)
        and min(weight.shape[:2]) >= _CHANNELS
    )


@cache
def _lacking() -> bool:
    return torch.backends.cpu.get_cpu_capability() == "AVX2"


class _Convolution(torch.autograd.Function):
    """Torch's convolution and image gradient; the weights' own by products."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, padding: Pair, dilation: Pair) -> Tensor:
        ctx.save_for_backward(x, weight)
        ctx.padding, ctx.dilation = padding, dilation
        return F.conv2d(x, weight, bias, 1, padding, dilation)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, given: Tensor) -> tuple[Tensor | None, Tensor | None, Tensor | None, None, None]:
        x, weight = ctx.saved_tensors
        given = given.contiguous(memory_format=torch.channels_last)
        to_x, to_weight, to_bias = None, None, None
        if ctx.needs_input_grad[0]:
            to_x = torch.ops.aten.convolution_backward(
                given, x, weight, None, [1, 1], ctx.padding, ctx.dilation, False, [0, 0], 1, [True, False, False]
            )[0]
        if ctx.needs_input_grad[1]:
            to_weight = _weight_gradient(x, given, weight.shape[2:], ctx.padding, ctx.dilation)
        if ctx.needs_input_grad[2]:
            to_bias = given.sum((0, 2, 3))
        return to_x, to_weight, to_bias, None, None


def _weight_gradient(x: Tensor, given: Tensor, kernel: torch.Size, padding: Pair, dilation: Pair) -> Tensor:
    """``(O, C, h, w)``: for each place in the kernel, what was given times what lies there.

    Of a band of rows, as many images beside each other as the cache holds; so a row of the kernel lies as far below
    another in all of them, and each of its products is one of whole matrices.
    """
    channels, filters, (height, width) = x.shape[1], given.shape[1], given.shape[2:]
    (tall, wide), (top, left) = kernel, padding
    below = (tall - 1) * dilation[0]
    row = width * (channels * wide + filters)
    images = max(1, min(len(x), _BAND // (row * (height + below))))
    rows = max(1, min(height, _BAND // (row * images) - below))
    found = x.new_zeros(tall, filters, wide * channels)
    for some, above in _together(x, given, images):
        beside = x.new_empty(rows + below, len(some), width, wide * channels)  # what a row of the kernel covers
        for first in range(0, height, rows):
            wanted = above[:, first : first + rows].transpose(0, 1).reshape(-1, filters)
            step = len(some) * width
            count = len(wanted) // step
            _lay_beside(beside[: count + below], some.transpose(0, 1), first - top, left, dilation[1])
            seen = beside.view(-1, wide * channels)
            for place, into in enumerate(found):
                into.addmm_(wanted.T, seen[place * dilation[0] * step :][: len(wanted)])
    return found.view(tall, filters, wide, channels).permute(1, 3, 0, 2)


def _together(x: Tensor, given: Tensor, images: int) -> Iterator[tuple[Tensor, Tensor]]:
    """So many images at a time with what was given of them, ``(N, H, W, C)``."""
    return zip(torch.split(x.permute(0, 2, 3, 1), images), torch.split(given.permute(0, 2, 3, 1), images))


def _lay_beside(band: Tensor, images: Tensor, first: int, left: int, apart: int) -> None:
    """Copies rows of images, from ``first`` on, once for each place in a kernel's row, moved as far as that is.

    ``(rows, N, W, C) -> (rows, N, W', places x C)``, with zeros outside the images.
    """
    (height, _, width, channels), (count, _, across, _) = images.shape, band.shape
    start, stop = min(max(0, -first), count), max(0, min(count, height - first))
    band[:start] = 0
    band[stop:] = 0
    for place, into in enumerate(torch.split(band[start:stop], channels, 3)):
        moved = place * apart - left
        here, there = max(0, -moved), min(across, width - moved)
        into[:, :, :here] = 0
        into[:, :, max(0, there) :] = 0
        if here < there:
            into[:, :, here:there] = images[first + start : first + stop, :, here + moved : there + moved]


class _Transposed(torch.autograd.Function):
    """Torch's transposed convolution and image gradient; the weights' own by a product."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        ctx.save_for_backward(x, weight)
        return F.conv_transpose2d(x, weight, bias, weight.shape[2:])

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, given: Tensor) -> tuple[Tensor | None, Tensor | None, None]:
        x, weight = ctx.saved_tensors
        given = given.contiguous(memory_format=torch.channels_last)
        to_x, to_weight = None, None
        if ctx.needs_input_grad[0]:
            to_x = F.conv2d(given, weight, stride=weight.shape[2:])
        if ctx.needs_input_grad[1]:
            to_weight = _transposed_weight_gradient(x, given, weight.shape)
        return to_x, to_weight, None


def _transposed_weight_gradient(x: Tensor, given: Tensor, shape: torch.Size) -> Tensor:
    """``(C, O, h, w)``: each pixel's own block of what was given, beside each other."""
    channels, filters, tall, wide = shape
    height, width = x.shape[2:]
    images = max(1, _BAND // given[0].numel())
    found = x.new_zeros(channels, tall * wide * filters)
    for some, above in _together(x, given, images):
        blocks = above.reshape(-1, height, tall, width, wide, filters).transpose(2, 3)
        found.addmm_(some.reshape(-1, channels).T, blocks.reshape(len(some) * height * width, -1))
    return found.view(channels, tall, wide, filters).permute(0, 3, 1, 2)
