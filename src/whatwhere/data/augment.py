"""Changes an image and its labels the way the world might: geometry for both, intensity for the image alone.

Labels are only ever picked from where they were (nearest neighbour), never mixed, so no class is invented.
What lies outside the image becomes zero in the (normalised) image and VOID in the labels.
Knows nothing of files or networks; every draw comes from the generator it is given.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from whatwhere.errors import PlanError
from whatwhere.records import VOID

__all__ = [
    "BLUR_REACH",
    "Augmentation",
    "Geometry",
    "Intensity",
    "blur_weights",
    "blurred",
    "crop_by",
    "draw_geometry",
    "draw_intensity",
    "knots_along",
    "usual_window",
    "vary_intensity",
    "window_of",
]


_MOST = {
    "rotation": 180.0, "scale": 4.0, "elastic": 12.0, "warp": 1.0, "brightness": 10.0, "contrast": 10.0, "color": 10.0,
    "blur": 1.0, "noise": 1.0,
}  # fmt: skip
"""The largest values that mean something."""

BLUR_REACH = 3
"""Pixels on either side that a blur mixes in."""

_KNOTS = 48
"""Pixels of a crop between the knots of an elastic bending."""


@dataclass(frozen=True)
class Augmentation:
    """How far the world may vary. All of it can be switched off by zeros.

    Attributes:
        flip_horizontal, flip_vertical, quarter_turns: whether the data allow them.
        rotation: largest angle in degrees.
        scale: objects appear between 1/(1+scale) and 1+scale of their size.
        elastic: how far a smooth bending moves pixels: standard deviation in pixels at knots that lie 48 px apart
            (Ronneberger et al. 2015, arXiv 1505.04597, found it the key to learning from few images).
        warp: probability that rotation, scale and bending are applied (without them pixels stay as sharp as they are).
        brightness: largest shift, in standard deviations of the normalisation.
        contrast: contrast changes by a factor between 1/(1+contrast) and 1+contrast.
        color: largest shift of each channel by itself, in standard deviations.
        blur, noise: probability of a slight blur; of added noise.
    """

    flip_horizontal: bool = True
    flip_vertical: bool = False
    quarter_turns: bool = False
    rotation: float = 15.0
    scale: float = 0.4
    elastic: float = 0.0
    warp: float = 0.5
    brightness: float = 0.3
    contrast: float = 0.3
    color: float = 0.1
    blur: float = 0.1
    noise: float = 0.1

    def __post_init__(self) -> None:
        for name, most in _MOST.items():
            value = getattr(self, name)
            if not 0 <= value <= most:
                raise PlanError(f"augmentation.{name} = {value:g}", f"a number from 0 to {most:g}", "")


@dataclass(frozen=True, eq=False)
class Geometry:
    """Where a crop comes from: a centre in pixels of the source, a turn in degrees, a magnification, mirrorings.

    ``bends`` ``(2, n, n)`` are displacements in pixels of the source, across and down, at knots spread over the crop.
    """

    centre: tuple[float, float]
    angle: float = 0.0
    magnification: float = 1.0
    mirror: tuple[bool, bool] = (False, False)
    quarters: int = 0
    bends: NDArray[np.float32] | None = None

    def reach(self, crop: int) -> int:
        """How far from the centre a turned, scaled and bent crop can touch the source, in pixels."""
        # bicubic interpolation overshoots its knots by less than half
        bent = 0.0 if self.bends is None else 1.5 * float(np.abs(self.bends).max())
        return math.ceil(crop / self.magnification * math.sqrt(0.5) + bent) + 2

    @property
    def is_plain(self) -> bool:
        return self.angle == 0.0 and self.magnification == 1.0 and self.bends is None


@dataclass(frozen=True, eq=False)
class Intensity:
    """How a crop's values vary: times ``gain``, plus one of ``offsets`` a channel, blurred, and with noise.

    ``sigma`` is the blur's in pixels, 0 for none; ``noise`` is ``(C, crop, crop)`` and added, or None.
    """

    gain: float
    offsets: NDArray[np.float32]
    sigma: float = 0.0
    noise: NDArray[np.float32] | None = None


def draw_geometry(
    rng: np.random.Generator, augmentation: Augmentation, centre: tuple[float, float], size: tuple[int, int], crop: int
) -> Geometry:
    """A random geometry about ``centre``, moved so that the crop lies inside an image of ``size`` where it can."""
    angle, magnification, bends = 0.0, 1.0, None
    if rng.random() < augmentation.warp:
        angle = float(rng.uniform(-augmentation.rotation, augmentation.rotation))
        spread = math.log1p(augmentation.scale)
        magnification = math.exp(rng.uniform(-spread, spread))
        if augmentation.elastic:
            knots = knots_along(crop)
            strength = augmentation.elastic * min(1.0, crop / (knots - 1) / _KNOTS)  # as bent where knots are nearer
            bends = rng.normal(0, strength, (2, knots, knots)).astype(np.float32)
    half = crop / magnification / 2
    y, x = (
        min(max(place, half), length - half) if length > 2 * half else length / 2 for place, length in zip(centre, size)
    )
    flips = (
        augmentation.flip_vertical and bool(rng.integers(2)),
        augmentation.flip_horizontal and bool(rng.integers(2)),
    )
    quarters = int(rng.integers(4)) if augmentation.quarter_turns else 0
    return Geometry((y, x), angle, magnification, flips, quarters, bends)


def knots_along(crop: int) -> int:
    """How many knots of a bending lie along a side."""
    return crop // _KNOTS + 2


def window_of(geometry: Geometry, crop: int) -> tuple[int, int, int]:
    """Top, left and side of the square of an image from which a crop is made; it may reach beyond the image."""
    side = crop if geometry.is_plain else 2 * geometry.reach(crop)
    top, left = (math.floor(place - side / 2 + 0.5) for place in geometry.centre)
    return top, left, side


def usual_window(augmentation: Augmentation, crop: int) -> int:
    """The side of :func:`window_of` that is not passed, but by a bending as few are: of four standard deviations."""
    if not augmentation.warp:
        return crop
    bends = np.full((2, 1, 1), 4 * augmentation.elastic, np.float32) if augmentation.elastic else None
    return 2 * Geometry((0, 0), 0.0, 1 / (1 + augmentation.scale), bends=bends).reach(crop)


def crop_by(geometry: Geometry, image: Tensor, labels: Tensor, crop: int) -> tuple[Tensor, Tensor]:
    """Cuts a ``crop`` x ``crop`` square out of a normalised image and its labels.

    Args:
        geometry: where from.
        image: ``(C, H, W)`` float, zero meaning the data set's mean.
        labels: ``(H, W)`` uint8.
        crop: side of the result in pixels.

    >>> square, where = crop_by(Geometry((2, 2)), torch.ones(1, 3, 4), torch.zeros(3, 4, dtype=torch.uint8), 4)
    >>> where.tolist()[3], square[0, 3].tolist()
    ([255, 255, 255, 255], [0.0, 0.0, 0.0, 0.0])
    """
    image, labels = _slice(window_of(geometry, crop), image, labels)
    if not geometry.is_plain:
        image, labels = _warp(geometry, image, labels, crop)
    dims = [axis for axis, mirrored in zip((-2, -1), geometry.mirror) if mirrored]
    if dims:
        image, labels = image.flip(dims), labels.flip(dims)
    if geometry.quarters:
        image, labels = image.rot90(geometry.quarters, (-2, -1)), labels.rot90(geometry.quarters, (-2, -1))
    return image, labels


def _slice(window: tuple[int, int, int], image: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    top, left, side = window
    height, width = labels.shape
    y0, x0, y1, x1 = max(top, 0), max(left, 0), min(top + side, height), min(left + side, width)
    border = (x0 - left, left + side - x1, y0 - top, top + side - y1)
    image, labels = image[:, y0:y1, x0:x1], labels[y0:y1, x0:x1]
    if any(border):
        image, labels = F.pad(image, border), F.pad(labels, border, value=VOID)
    return image, labels


def _warp(geometry: Geometry, image: Tensor, labels: Tensor, crop: int) -> tuple[Tensor, Tensor]:
    side = labels.shape[0]
    turn = math.radians(geometry.angle)
    scale = crop / side / geometry.magnification
    theta = torch.tensor(
        [
            [
                [scale * math.cos(turn), -scale * math.sin(turn), 0.0],
                [scale * math.sin(turn), scale * math.cos(turn), 0.0],
            ]
        ]
    )
    grid = F.affine_grid(theta, [1, 1, crop, crop], align_corners=False)
    if geometry.bends is not None:
        knots = torch.from_numpy(geometry.bends)[None] * (2 / side)
        grid = grid + F.interpolate(knots, (crop, crop), mode="bicubic", align_corners=True).permute(0, 2, 3, 1)
    image = F.grid_sample(image[None], grid, mode="bilinear", align_corners=False)[0]
    # zero is what grid_sample reads outside, so labels are counted from VOID
    shifted = labels[None, None].float() - VOID
    labels = (F.grid_sample(shifted, grid, mode="nearest", align_corners=False)[0, 0] + VOID).to(torch.uint8)
    return image, labels


def draw_intensity(rng: np.random.Generator, augmentation: Augmentation, shape: tuple[int, int, int]) -> Intensity:
    """A random variation of a crop of ``(C, crop, crop)``."""
    gain = math.exp(rng.uniform(-1, 1) * math.log1p(augmentation.contrast))
    shift = rng.uniform(-1, 1) * augmentation.brightness
    channels = rng.uniform(-1, 1, size=shape[0]) * augmentation.color
    sigma, noise = 0.0, None
    if rng.random() < augmentation.blur:
        sigma = float(rng.uniform(0.4, 1.2))
    if rng.random() < augmentation.noise:
        strength = float(rng.uniform(0, 0.2))
        noise = strength * rng.standard_normal(shape, dtype=np.float32)
    return Intensity(gain, (shift + channels).astype(np.float32), sigma, noise)


def vary_intensity(intensity: Intensity, image: Tensor) -> Tensor:
    """Brightness, contrast, colour, blur and noise on a normalised ``(C, h, w)`` image."""
    image = image * intensity.gain + torch.from_numpy(intensity.offsets)[:, None, None]
    if intensity.sigma:
        image = blurred(image[None], torch.tensor([blur_weights(intensity.sigma)]))[0]
    return image if intensity.noise is None else image + torch.from_numpy(intensity.noise)


def blurred(images: Tensor, weights: Tensor) -> Tensor:
    """``(N, C, h, w)`` images, each by its own of ``(N, 2 * BLUR_REACH + 1)`` weights along both axes.

    One whose weight is 1 in the middle stays as it is.
    """
    for axis in (2, 3):
        border = [BLUR_REACH, BLUR_REACH, 0, 0] if axis == 3 else [0, 0, BLUR_REACH, BLUR_REACH]
        padded, length = F.pad(images, border, mode="replicate"), images.shape[axis]
        images = torch.zeros_like(images)
        for step in range(2 * BLUR_REACH + 1):
            images = torch.addcmul(images, padded.narrow(axis, step, length), weights[:, step, None, None, None])
    return images


def blur_weights(sigma: float) -> list[float]:
    """Those of a Gaussian of ``sigma`` pixels along one axis, cut off, their sum 1; all in the middle for 0."""
    if not sigma:
        return [float(step == 0) for step in range(-BLUR_REACH, BLUR_REACH + 1)]
    weights = [math.exp(-0.5 * (step / sigma) ** 2) for step in range(-BLUR_REACH, BLUR_REACH + 1)]
    whole = sum(weights)
    return [weight / whole for weight in weights]
