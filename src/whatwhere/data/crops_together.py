"""The crops of a batch made together, as a GPU likes it: each operator for all of them at once.

Made one by one their many small operators would keep Python from sending the network's (`bench/on_a_gpu.py`), and so
would even those for all at once: on a GPU they are recorded, and sent as one. The same crops as `augment` makes, to
rounding: also those that are neither turned nor scaled are sampled, at whole pixels.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from threading import Lock
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from whatwhere.cuda_graph import captured, warmed
from whatwhere.data.augment import (
    BLUR_REACH,
    Augmentation,
    Geometry,
    Intensity,
    blur_weights,
    blurred,
    knots_along,
    usual_window,
    window_of,
)
from whatwhere.errors import is_out_of_memory
from whatwhere.records import VOID, Normalisation

__all__ = ["Drawn", "Together"]

_QUARTERS = ((1, 0, 0, 1), (0, -1, 1, 0), (-1, 0, 0, -1), (0, 1, -1, 0))
"""Quarter turns as matrices, from the crop as it comes out to the one that is not yet turned."""


@dataclass(frozen=True, eq=False)
class Drawn:
    """A crop before a pixel is touched: of which image, where in it, how varied."""

    raw: NDArray[np.generic]
    labels: NDArray[np.uint8]
    geometry: Geometry
    intensity: Intensity


class Together:
    """Makes batches of crops on one device, whichever threads ask.

    A GPU's first batch is recorded; those of another kind (more crops, floats after bytes, more than fits into the
    canvas) are made operator by operator.

    Args:
        normalisation: of the images.
        augmentation: how far crops vary.
        crop: side of a crop in pixels.
        device: ``"cpu"``, or a GPU.
    """

    def __init__(self, normalisation: Normalisation, augmentation: Augmentation, crop: int, device: str) -> None:
        self._normalisation, self._crop = normalisation, crop
        self._canvas = usual_window(augmentation, crop)
        self._knots = knots_along(crop) if augmentation.elastic and augmentation.warp else 0
        self._device = torch.device(device)
        self._recorded: _Recorded | None = None
        self._begun = self._device.type != "cuda"
        self._alone = Lock()  # threads read images side by side; on the GPU one batch is made at a time

    def __call__(self, drawn: Sequence[Drawn]) -> tuple[Tensor, Tensor]:
        """``(N, C, crop, crop)`` float32 normalised and ``(N, crop, crop)`` uint8 labels, on the device."""
        given = self._prepared(drawn)
        with self._alone:
            if not self._begun:
                self._begun = True
                self._record(given)
            if self._recorded is not None and self._recorded.is_like(given):
                image, target = self._recorded(given)
            else:
                image, target = made(given.to(self._device), self._crop)
            for index, one in enumerate(drawn):
                if one.intensity.noise is not None:
                    image[index] += placed(torch.from_numpy(one.intensity.noise), self._device)
            self._wait()
        return image, target

    def _record(self, given: Given) -> None:
        try:
            self._recorded = _Recorded(given.to(self._device), self._crop)
        except RuntimeError as error:
            if is_out_of_memory(error):
                raise

    def _prepared(self, drawn: Sequence[Drawn]) -> Given:
        """In main memory."""
        windows = [window_of(one.geometry, self._crop) for one in drawn]
        side = max(self._canvas, *(length for _, _, length in windows))
        raw, labels, bounds = _canvases(drawn, windows, side, pinned=self._device.type == "cuda")
        constants = [*self._normalisation.mean, *(1 / std for std in self._normalisation.std)]
        numbers = [
            [*self._maps(one.geometry, length, side), *limits, one.intensity.gain, *blur_weights(one.intensity.sigma),
             *one.intensity.offsets.tolist(), *constants]
            for one, (_, _, length), limits in zip(drawn, windows, bounds)
        ]  # fmt: skip
        straight = np.zeros((2, self._knots, self._knots), np.float32)
        bends = [one.geometry.bends for one in drawn]
        knots = torch.from_numpy(np.stack([straight if one is None else one for one in bends]))
        return Given(raw, labels, torch.tensor(numbers, dtype=torch.float32), knots)

    def _maps(self, geometry: Geometry, length: int, side: int) -> tuple[float, ...]:
        """From places ``(x, y)`` of the crop as it comes out, from -1 to 1: an affine map to the canvas, six numbers,
        and a linear one to the crop before it is mirrored and turned by quarters, four.
        """
        rows, columns = geometry.mirror
        a, b, c, d = _QUARTERS[geometry.quarters % 4]
        across, down = -1 if columns else 1, -1 if rows else 1
        a, b, c, d = a * across, b * across, c * down, d * down
        sine, cosine = math.sin(math.radians(geometry.angle)), math.cos(math.radians(geometry.angle))
        scale, shift = self._crop / side / geometry.magnification, length / side - 1
        sine, cosine = scale * sine, scale * cosine
        turned = cosine * a - sine * c, cosine * b - sine * d, sine * a + cosine * c, sine * b + cosine * d
        return (*turned, shift, shift, a, b, c, d)

    def _wait(self) -> None:
        """Until a GPU has made what this thread gave it, asleep."""
        if self._device.type == "cuda":
            done = torch.cuda.Event(blocking=True)  # type: ignore[no-untyped-call]
            done.record(torch.cuda.current_stream(self._device))
            done.synchronize()


class Given(NamedTuple):
    """What a batch is made of.

    Attributes:
        raw: ``(N, side, side, C)`` uint8 or float32: what each crop can touch. What is outside of the image is not set.
        labels: ``(N, side, side)`` uint8.
        numbers: ``(N, 22 + 3 C)`` float32: a row for each crop, in the order in which :func:`made` reads them.
        knots: ``(N, 2, n, n)`` float32: displacements in pixels at knots of the crop; n = 0 where none ever is.
    """

    raw: Tensor
    labels: Tensor
    numbers: Tensor
    knots: Tensor

    def to(self, device: torch.device) -> Given:
        return Given(*(placed(one, device) for one in self))


class _Recorded:
    """How batches like a given one are made, sent to the GPU as one."""

    def __init__(self, given: Given, crop: int) -> None:
        device = given.raw.device
        with torch.cuda.device(device):
            beside = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
            warmed(lambda: made(given, crop), beside)
            self._graph, self._made = captured(lambda: made(given, crop), beside)
        self._given = given

    def is_like(self, given: Given) -> bool:
        return all(mine.shape == one.shape and mine.dtype == one.dtype for mine, one in zip(self._given, given))

    def __call__(self, given: Given) -> tuple[Tensor, Tensor]:
        for mine, one in zip(self._given, given):
            mine.copy_(pinned(one), non_blocking=True)
        self._graph.replay()
        image, target = self._made
        return image.clone(), target.clone()


def made(given: Given, crop: int) -> tuple[Tensor, Tensor]:
    """Crops but for their noise, and their labels. Waits for nothing, and sends the same whatever the numbers are."""
    side, channels = given.raw.shape[1], given.raw.shape[3]
    parts = torch.split(given.numbers, [6, 4, 4, 1, 2 * BLUR_REACH + 1, channels, channels, channels], dim=1)
    maps, own, limits, gain, weights = parts[:5]
    offsets, mean, scale = (part[..., None, None] for part in parts[5:])
    grid = _places(maps, crop)
    if given.knots.shape[-1]:
        grid = grid + _bent(given.knots, _places(F.pad(own, (0, 2)), crop), crop) * (2 / side)
    outside = _outside(limits, side)
    # zero is the data set's mean, and what grid_sample reads outside; so labels are counted from VOID
    image = ((given.raw.permute(0, 3, 1, 2).float() - mean) * scale).masked_fill_(outside, 0)
    image = F.grid_sample(image, grid, mode="bilinear", align_corners=False)
    counted = (given.labels[:, None].float() - VOID).masked_fill_(outside, 0)
    target = F.grid_sample(counted, grid, mode="nearest", align_corners=False)[:, 0] + VOID
    return blurred(image * gain[..., None, None] + offsets, weights), target.to(torch.uint8)


def _places(maps: Tensor, crop: int) -> Tensor:
    """``(N, crop, crop, 2)``: where each pixel's middle comes from, by ``(N, 6)`` affine maps, from -1 to 1.

    Torch's own way is a product of matrices, which a GPU may compute in TF32.
    """
    middles = (2 * torch.arange(crop, device=maps.device) + 1) / crop - 1
    x, y = middles[None, None, :], middles[None, :, None]
    a, b, c, d, right, down = maps[:, :, None, None].unbind(1)
    return torch.stack([a * x + b * y + right, c * x + d * y + down], dim=-1)


def _bent(knots: Tensor, places: Tensor, crop: int) -> Tensor:
    """Displacements ``(N, crop, crop, 2)`` in pixels at places of the crop from -1 to 1."""
    apart = places * (crop / max(1, crop - 1))  # the outermost knots lie on the middles of the outermost pixels
    found = F.grid_sample(knots, apart, mode="bicubic", padding_mode="border", align_corners=True)
    return found.permute(0, 2, 3, 1)


def _outside(limits: Tensor, side: int) -> Tensor:
    """``(N, 1, side, side)``: where there is no image."""
    place = torch.arange(side, device=limits.device)
    rows = (place >= limits[:, 0, None]) & (place < limits[:, 1, None])
    columns = (place >= limits[:, 2, None]) & (place < limits[:, 3, None])
    return ~(rows[:, None, :, None] & columns[:, None, None, :])


def _canvases(
    drawn: Sequence[Drawn], windows: Sequence[tuple[int, int, int]], side: int, *, pinned: bool
) -> tuple[Tensor, Tensor, list[tuple[int, int, int, int]]]:
    """What each crop can touch, in squares of one size, raw: as few bytes as possible go to the GPU."""
    channels = drawn[0].raw.shape[-1]
    kind = torch.uint8 if all(one.raw.dtype == np.uint8 for one in drawn) else torch.float32
    raw = torch.empty((len(drawn), side, side, channels), dtype=kind, pin_memory=pinned)
    labels = torch.empty((len(drawn), side, side), dtype=torch.uint8, pin_memory=pinned)
    bounds = []
    for one, (top, left, length), canvas, names in zip(drawn, windows, raw.numpy(), labels.numpy()):
        height, width = one.labels.shape
        y0, x0, y1, x1 = max(top, 0), max(left, 0), min(top + length, height), min(left + length, width)
        here = slice(y0 - top, y1 - top), slice(x0 - left, x1 - left)
        canvas[here], names[here] = one.raw[y0:y1, x0:x1], one.labels[y0:y1, x0:x1]
        bounds.append((here[0].start, here[0].stop, here[1].start, here[1].stop))
    return raw, labels, bounds


def pinned(tensor: Tensor) -> Tensor:
    """Where a GPU fetches it from by itself, while Python goes on."""
    return tensor if tensor.is_pinned() or not tensor.numel() else tensor.pin_memory()


def placed(tensor: Tensor, device: torch.device) -> Tensor:
    """On a device."""
    return pinned(tensor).to(device, non_blocking=True) if device.type == "cuda" else tensor.to(device)
