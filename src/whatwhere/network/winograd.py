"""Convolutions of 3x3 pixels that learn by fewer multiplications: Winograd's minimal filtering.

A tile of an image and a kernel are each turned into as many numbers as the tile has pixels, which are multiplied one by
one and turned back: for 4x4 outputs that takes 36 products instead of 144, for 2x2 16 instead of 36 (Lavin and Gray
2016, arXiv 1509.09308). Of many channels they are a product of matrices for each of these numbers, so wide convolutions
run faster than a processor could multiply; of narrow ones the turning takes as long as is saved. The output, the
image's gradient and the weights' can all be found so (`bench/quick_operators.py`). Knows nothing of networks.

In float32 tiles have 4x4 outputs, which round to some 3e-6 of the values where torch's own sums round to 1e-6; in
bfloat16 2x2, whose turning is but sums of two, and which round to some 0.6 % where torch's round to 0.3 %.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

__all__ = ["convolution"]

Pair = tuple[int, int]
Rows = list[list[float]]

_CHANNELS = {torch.float32: 110, torch.bfloat16: 250}
"""The harmonic mean of channels in and out from which enough is saved."""

_PIXELS = 2048
"""Of fewer pixels, of all images together, turning the weights takes as long as is saved."""

_THREADS = 8
"""With more of them, the products of a band may be too small to share; two are what was measured."""

_BAND = 2**24
"""Bytes of what is computed at a time, which are to stay in the cache; or as many as the turned weights take."""

_SUMMED = 8
"""Bands whose part in the weights' gradient is summed in the image's own dtype before it is added to the rest."""

_STEP = {torch.float32: 4, torch.bfloat16: 2}
"""Rows and columns of outputs of a tile."""

_TO_TILE: dict[int, Rows] = {
    2: [[1, 0, -1, 0], [0, 1, 1, 0], [0, -1, 1, 0], [0, 1, 0, -1]],
    4: [
        [4, 0, -5, 0, 1, 0],
        [0, -4, -4, 1, 1, 0],
        [0, 4, -4, -1, 1, 0],
        [0, -2, -1, 2, 1, 0],
        [0, 2, -1, -2, 1, 0],
        [0, 4, 0, -5, 0, 1],
    ],
}
"""What turns a row of inputs, by the outputs of a tile's row (Lavin and Gray 2016, as the next two)."""

_TO_FILTER: dict[int, Rows] = {
    2: [[1, 0, 0], [1 / 2, 1 / 2, 1 / 2], [1 / 2, -1 / 2, 1 / 2], [0, 0, 1]],
    4: [
        [1 / 4, 0, 0],
        [-1 / 6, -1 / 6, -1 / 6],
        [-1 / 6, 1 / 6, -1 / 6],
        [1 / 24, 1 / 12, 1 / 6],
        [1 / 24, -1 / 12, 1 / 6],
        [0, 0, 1],
    ],
}
"""What turns a row of a kernel."""

_TO_OUTPUT: dict[int, Rows] = {
    2: [[1, 1, 1, 0], [0, 1, -1, -1]],
    4: [[1, 1, 1, 1, 1, 0], [0, 1, -1, 2, -2, 0], [0, 1, 1, 4, 4, 0], [0, 1, -1, 8, -8, 1]],
}
"""What turns a row of products back."""


def convolution(x: Tensor, weight: Tensor, bias: Tensor | None, padding: Pair) -> Tensor | None:
    """A convolution in steps of one pixel, ``(N, C, H, W)`` and ``(O, C, h, w) -> (N, O, H', W')``.

    In the precision that autocast asks for. None where torch's own is as good.
    """
    dtype = torch.get_autocast_dtype("cpu") if torch.is_autocast_enabled("cpu") else x.dtype
    if not _pays(x, weight, dtype):
        return None
    return _Turned.apply(x.to(dtype), weight, bias, padding)  # type: ignore[no-untyped-call, no-any-return]


def _pays(x: Tensor, weight: Tensor, dtype: torch.dtype) -> bool:
    filters, channels, *kernel = weight.shape
    return (
        dtype in _gaining()
        and torch.get_num_threads() <= _THREADS
        and weight.requires_grad
        and weight.dtype == torch.float32
        and torch.is_grad_enabled()
        and x.ndim == 4
        and x.is_contiguous(memory_format=torch.channels_last)
        and kernel == [3, 3]
        and 2 * filters * channels >= _CHANNELS[dtype] * (filters + channels)
        and len(x) * x.shape[2] * x.shape[3] >= _PIXELS
        and min(x.shape[2:]) > 1
    )


@cache
def _gaining() -> tuple[torch.dtype, ...]:
    """In what this processor gains: not where it has matrix units, and not in float32 with AVX-512."""
    if torch.backends.cpu.get_cpu_capability() == "AVX2":
        return (torch.float32,)
    doubles = torch.cpu._is_avx512_bf16_supported() and not torch.cpu._is_amx_tile_supported()
    return (torch.bfloat16,) if doubles else ()


class _Turned(torch.autograd.Function):
    """Output and gradients by turned tiles."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, padding: Pair) -> Tensor:
        ctx.save_for_backward(x, weight)
        ctx.padding, ctx.biased = padding, None if bias is None else bias.dtype
        with torch.autocast("cpu", enabled=False):
            found = _convolve(x, weight, padding)
            return found if bias is None else found.add_(bias.to(x.dtype)[:, None, None])

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, given: Tensor) -> tuple[Tensor | None, Tensor | None, Tensor | None, None]:
        x, weight = ctx.saved_tensors
        to_x, to_weight, to_bias = None, None, None
        with torch.autocast("cpu", enabled=False):
            if ctx.needs_input_grad[0]:
                around = 2 - ctx.padding[0], 2 - ctx.padding[1]
                to_x = _convolve(given, weight.flip(2, 3).transpose(0, 1), around)
            if ctx.needs_input_grad[1]:
                to_weight = _weight_gradient(x, given, ctx.padding)
            if ctx.needs_input_grad[2]:
                to_bias = given.sum((0, 2, 3), dtype=ctx.biased)
        return to_x, to_weight, to_bias, None


def _convolve(x: Tensor, weight: Tensor, padding: Pair) -> Tensor:
    """``(N, C, H, W)`` and ``(O, C, 3, 3) -> (N, O, H', W')``, channels last."""
    grid = _Grid(x, padding)
    filters, channels = weight.shape[:2]
    places = weight.to(x.dtype).permute(2, 3, 0, 1).reshape(9, -1)
    turned = (_turning(_TO_FILTER, x) @ places).view(-1, filters, channels).transpose(1, 2)
    found = torch.empty(
        (len(x), filters, *grid.covered), dtype=x.dtype, device=x.device, memory_format=torch.channels_last
    )
    back = _turning(_TO_OUTPUT, x)
    for band in grid.bands(2 * channels + filters, turned.nbytes):
        products = torch.bmm(grid.seen(band), turned)
        into = grid.apart(found.permute(0, 2, 3, 1), band)
        into.copy_((back @ products.view(len(products), -1)).view(into.shape))
    if grid.covered == grid.size:
        return found
    height, width = grid.size  # never a view, which the next layer could not change in place
    return found[..., :height, :width].clone(memory_format=torch.channels_last)


def _weight_gradient(x: Tensor, given: Tensor, padding: Pair) -> Tensor:
    """``(O, C, 3, 3)`` float32."""
    grid = _Grid(x, padding)
    channels, filters = x.shape[1], given.shape[1]
    above, forth = grid.widened(given), _turning(_TO_OUTPUT, x).T
    part = x.new_empty(len(forth), filters, channels)
    total = torch.zeros_like(part, dtype=torch.float32)
    bands = list(grid.bands(2 * channels + 2 * filters, part.nbytes))
    for number, band in enumerate(bands):
        outputs = grid.apart(above, band).reshape(forth.shape[1], -1)
        turned = (forth @ outputs).view(len(forth), -1, filters).transpose(1, 2)
        part.baddbmm_(turned, grid.seen(band), beta=min(1, number % _SUMMED))
        if number % _SUMMED == _SUMMED - 1 or band is bands[-1]:
            total += part
    found = _turning(_TO_FILTER, total, grid.step).T @ total.view(len(forth), -1)
    return found.view(3, 3, filters, channels).permute(2, 3, 0, 1)


def _turning(rows: dict[int, Rows], like: Tensor, step: int | None = None) -> Tensor:
    """What turns a tile at once, of what turns a row of it."""
    each = torch.tensor(rows[step or _STEP[like.dtype]], dtype=torch.float64)
    return torch.kron(each, each).to(like.dtype)


Band = tuple[slice, slice]
"""Some images, and rows of tiles of them."""


class _Grid:
    """Where tiles lie that cover the outputs of a convolution.

    Attributes:
        step: rows and columns of outputs of a tile.
        size: height and width of the outputs.
        tiles: rows and columns of tiles.
        covered: height and width of the outputs of all tiles.
    """

    def __init__(self, x: Tensor, padding: Pair) -> None:
        self.step = _STEP[x.dtype]
        height, width = self.size = x.shape[2] + 2 * padding[0] - 2, x.shape[3] + 2 * padding[1] - 2
        tall, wide = self.tiles = -(-height // self.step), -(-width // self.step)
        self.covered = tall * self.step, wide * self.step
        ends = [covered + 2 - side - around for covered, side, around in zip(self.covered, x.shape[2:], padding)]
        self._turning = _turning(_TO_TILE, x)
        self._image = F.pad(x.permute(0, 2, 3, 1), (0, 0, padding[1], ends[1], padding[0], ends[0])).contiguous()

    def widened(self, given: Tensor) -> Tensor:
        """``(N, O, H', W')`` to ``(N, H'', W'', O)``, with zeros where tiles reach beyond the outputs."""
        below, beside = (covered - side for covered, side in zip(self.covered, self.size))
        return F.pad(given.permute(0, 2, 3, 1), (0, 0, 0, beside, 0, below)).contiguous()

    def bands(self, channels: int, least: int) -> Iterator[Band]:
        """As many tiles at a time as are to be computed together: rows of an image, or whole images."""
        tall, wide = self.tiles
        tiles = max(_BAND, least) // (channels * self._image.element_size() * len(self._turning))
        images, rows = max(1, tiles // (tall * wide)), max(1, min(tall, tiles // wide))
        for image in range(0, len(self._image), images):
            for row in range(0, tall, rows):
                yield slice(image, image + images), slice(row, row + rows)

    def seen(self, band: Band) -> Tensor:
        """``(t * t, tiles, C)``: the turned inputs of a band's tiles."""
        images, rows = band
        some = self._image[images, rows.start * self.step : rows.stop * self.step + 2]
        side, tall = self.step + 2, (some.shape[1] - 2) // self.step
        image, row, column, channel = some.stride()
        shape = side, side, len(some), tall, self.tiles[1], some.shape[3]
        strides = row, column, image, row * self.step, column * self.step, channel
        beside = some.as_strided(shape, strides, some.storage_offset()).reshape(side * side, -1)
        return (self._turning @ beside).view(side * side, -1, some.shape[3])

    def apart(self, outputs: Tensor, band: Band) -> Tensor:
        """``(step, step, images, rows, columns, O)``: a band's tiles in the memory of ``(N, H'', W'', O)``."""
        images, rows = band
        some = outputs[images, rows.start * self.step : rows.stop * self.step]
        places = some.view(len(some), -1, self.step, self.tiles[1], self.step, some.shape[3])
        return places.permute(2, 4, 0, 1, 3, 5)
