"""The crops of a batch made together, as a GPU likes it: each operator for all of them at once.

Made one by one their many small operators would keep Python from sending the network's (`bench/on_a_gpu.py`). The same
crops as `augment` makes, to rounding: also those that are neither turned nor scaled are sampled, at whole pixels.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from threading import Lock

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from whatwhere.data.augment import Geometry, Intensity, blurred, window_of
from whatwhere.records import VOID, Normalisation

__all__ = ["Drawn", "together"]

_ONE_AT_A_TIME = Lock()
"""Threads read images side by side; on the GPU one batch is made at a time, which needs the memory of one."""


@dataclass(frozen=True, eq=False)
class Drawn:
    """A crop before a pixel is touched: of which image, where in it, how varied."""

    raw: NDArray[np.generic]
    labels: NDArray[np.uint8]
    geometry: Geometry
    intensity: Intensity


def together(drawn: Sequence[Drawn], normalisation: Normalisation, crop: int, device: str) -> tuple[Tensor, Tensor]:
    """``(N, C, crop, crop)`` float32 normalised and ``(N, crop, crop)`` uint8 labels, on a device."""
    place = torch.device(device)
    windows = [window_of(one.geometry, crop) for one in drawn]
    side = max(length for _, _, length in windows)
    raw, labels, bounds = _canvases(drawn, windows, side, pinned=place.type == "cuda")
    turns = [_turned(one.geometry) for one in drawn]
    thetas = [
        [*(crop / side / one.geometry.magnification * (_rotation(one.geometry) @ turn)).flat, *2 * [length / side - 1]]
        for one, turn, (_, _, length) in zip(drawn, turns, windows)
    ]
    numbers = [
        [*theta, *turn.flat, *limits, one.intensity.gain, *one.intensity.offsets]
        for theta, turn, limits, one in zip(thetas, turns, bounds, drawn)
    ]
    with _ONE_AT_A_TIME:
        sent = placed(torch.tensor(numbers, dtype=torch.float32), place)
        image, target = _sampled(drawn, raw, labels, sent, normalisation, crop)
        image = image * sent[:, 14, None, None, None] + sent[:, 15:, None, None]
        for index, one in enumerate(drawn):
            if one.intensity.sigma:
                image[index] = blurred(image[index], one.intensity.sigma)
            if one.intensity.noise is not None:
                image[index] += placed(torch.from_numpy(one.intensity.noise), place)
        _wait(place)
    return image, target


def _sampled(
    drawn: Sequence[Drawn], raw: Tensor, labels: Tensor, sent: Tensor, normalisation: Normalisation, crop: int
) -> tuple[Tensor, Tensor]:
    """Normalised crops and their labels out of the canvases."""
    place, side = sent.device, raw.shape[1]
    grid = _places(sent[:, :6], crop)
    if any(one.geometry.bends is not None for one in drawn):
        own = _places(F.pad(sent[:, 6:10], (0, 2)), crop)
        grid = grid + _bent([one.geometry for one in drawn], own, crop) * (2 / side)
    # sent with every batch: what one thread had made ready for all might be used by another before it is
    constants = torch.tensor([normalisation.mean, [1 / std for std in normalisation.std]], dtype=torch.float32)
    mean, scale = placed(constants, place)[..., None, None]
    image = raw.to(place, non_blocking=True).permute(0, 3, 1, 2).float()
    image.sub_(mean).mul_(scale).mul_(_inside(sent[:, 10:14], side))
    image = F.grid_sample(image, grid, mode="bilinear", align_corners=False)
    # zero is what grid_sample reads outside, so labels are counted from VOID
    counted = labels.to(place, non_blocking=True)[:, None].float() - VOID
    target = F.grid_sample(counted, grid, mode="nearest", align_corners=False)[:, 0] + VOID
    return image, target.to(torch.uint8)


def _places(maps: Tensor, crop: int) -> Tensor:
    """``(N, crop, crop, 2)``: where each pixel's middle comes from, by ``(N, 6)`` affine maps, from -1 to 1.

    Torch's own way is a product of matrices, which a GPU may compute in TF32.
    """
    middles = (2 * torch.arange(crop, device=maps.device) + 1) / crop - 1
    x, y = middles[None, None, :], middles[None, :, None]
    a, b, c, d, right, down = maps[:, :, None, None].unbind(1)
    return torch.stack([a * x + b * y + right, c * x + d * y + down], dim=-1)


def _wait(device: torch.device) -> None:
    """Until a GPU has made what this thread gave it, asleep."""
    if device.type == "cuda":
        done = torch.cuda.Event(blocking=True)  # type: ignore[no-untyped-call]
        done.record(torch.cuda.current_stream(device))
        done.synchronize()


def placed(tensor: Tensor, device: torch.device) -> Tensor:
    """On a device. A GPU fetches it while Python goes on."""
    return tensor.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else tensor.to(device)


def _canvases(
    drawn: Sequence[Drawn], windows: Sequence[tuple[int, int, int]], side: int, *, pinned: bool
) -> tuple[Tensor, Tensor, list[tuple[int, int, int, int]]]:
    """What each crop can touch, in squares of one size, raw: as few bytes as possible go to the GPU."""
    channels = drawn[0].raw.shape[-1]
    kind = torch.uint8 if drawn[0].raw.dtype == np.uint8 else torch.float32
    raw = torch.zeros((len(drawn), side, side, channels), dtype=kind, pin_memory=pinned)
    labels = torch.full((len(drawn), side, side), VOID, dtype=torch.uint8, pin_memory=pinned)
    bounds = []
    for one, (top, left, length), canvas, names in zip(drawn, windows, raw.numpy(), labels.numpy()):
        height, width = one.labels.shape
        y0, x0, y1, x1 = max(top, 0), max(left, 0), min(top + length, height), min(left + length, width)
        here = slice(y0 - top, y1 - top), slice(x0 - left, x1 - left)
        canvas[here], names[here] = one.raw[y0:y1, x0:x1], one.labels[y0:y1, x0:x1]
        bounds.append((here[0].start, here[0].stop, here[1].start, here[1].stop))
    return raw, labels, bounds


def _rotation(geometry: Geometry) -> NDArray[np.float64]:
    """From the crop, not yet mirrored, to the image: ``(x, y)`` to ``(x, y)``."""
    sine, cosine = math.sin(math.radians(geometry.angle)), math.cos(math.radians(geometry.angle))
    return np.array([[cosine, -sine], [sine, cosine]])


def _turned(geometry: Geometry) -> NDArray[np.float64]:
    """From the crop as it comes out to the one that is not yet mirrored and turned by quarters."""
    rows, columns = geometry.mirror
    mirrored = np.diag([-1.0 if columns else 1.0, -1.0 if rows else 1.0])
    quarter = np.array([[0.0, -1.0], [1.0, 0.0]])
    found: NDArray[np.float64] = mirrored @ np.linalg.matrix_power(quarter, geometry.quarters)
    return found


def _bent(geometries: Sequence[Geometry], places: Tensor, crop: int) -> Tensor:
    """Displacements ``(N, crop, crop, 2)`` in pixels at places of the crop from -1 to 1."""
    sample = next(one.bends for one in geometries if one.bends is not None)
    knots = np.stack([np.zeros_like(sample) if one.bends is None else one.bends for one in geometries])
    apart = places * (crop / max(1, crop - 1))  # the outermost knots lie on the middles of the outermost pixels
    given = placed(torch.from_numpy(knots), places.device)
    found = F.grid_sample(given, apart, mode="bicubic", padding_mode="border", align_corners=True)
    return found.permute(0, 2, 3, 1)


def _inside(bounds: Tensor, side: int) -> Tensor:
    """``(N, 1, side, side)``: 1 where there is image."""
    place = torch.arange(side, device=bounds.device)
    rows = (place >= bounds[:, 0, None]) & (place < bounds[:, 1, None])
    columns = (place >= bounds[:, 2, None]) & (place < bounds[:, 3, None])
    return (rows[:, None, :, None] & columns[:, None, None, :]).float()
