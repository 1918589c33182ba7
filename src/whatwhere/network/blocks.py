"""The bricks of a U-Net: convolution blocks and ways up. Knows nothing of levels or skips.

Everything here is spatially local in evaluation mode (batch norm uses constants there), so a network made of these
bricks has a bounded receptive field and can be painted in exact tiles.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn

__all__ = ["Block", "ConvNormReLU", "Level", "Up", "UpKind", "block"]

Block = Literal["plain", "residual"]
UpKind = Literal["transpose", "bilinear"]


class ConvNormReLU(nn.Sequential):
    """3x3 convolution, batch norm, ReLU: ``(N, in, H, W) -> (N, out, H, W)`` (2 pixels less a side if not padded)."""

    def __init__(self, in_channels: int, out_channels: int, *, padded: bool = True) -> None:
        super().__init__(
            nn.Conv2d(in_channels, out_channels, 3, padding=1 if padded else 0, bias=False),
            nn.BatchNorm2d(out_channels),
            nn.ReLU(inplace=True),
        )


class Level(nn.Module):
    """Hands on what an encoder of another make has made of a level, so that the level is a module here too.

    As a copy, which graphs show: of a view nothing is left in them where that encoder writes in place.
    """

    def forward(self, features: Tensor) -> Tensor:
        return features.clone()


class _Residual(nn.Module):
    """Two convolutions beside a shortcut (He et al. 2016, arXiv 1512.03385)."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.first = ConvNormReLU(in_channels, out_channels)
        self.second = nn.Sequential(
            nn.Conv2d(out_channels, out_channels, 3, padding=1, bias=False), nn.BatchNorm2d(out_channels)
        )
        self.shortcut: nn.Module = nn.Identity()
        if in_channels != out_channels:
            self.shortcut = nn.Sequential(
                nn.Conv2d(in_channels, out_channels, 1, bias=False), nn.BatchNorm2d(out_channels)
            )

    def forward(self, x: Tensor) -> Tensor:
        return torch.relu(self.second(self.first(x)) + self.shortcut(x))


def block(kind: Block, in_channels: int, out_channels: int, *, repeats: int = 1, padded: bool = True) -> nn.Module:
    """What a level does to its features: conv-norm-ReLU twice, ``repeats`` times over."""
    parts: list[nn.Module] = []
    for index in range(repeats):
        first = in_channels if index == 0 else out_channels
        if kind == "residual":
            parts.append(_Residual(first, out_channels))
        else:
            parts += [
                ConvNormReLU(first, out_channels, padded=padded),
                ConvNormReLU(out_channels, out_channels, padded=padded),
            ]
    return nn.Sequential(*parts)


class Up(nn.Sequential):
    """One level up: twice the height and width, ``in_channels -> out_channels``.

    ``"transpose"`` learns its 2x2 kernel; ``"bilinear"`` mixes channels first (cheaper, and the two commute).
    """

    def __init__(self, kind: UpKind, in_channels: int, out_channels: int) -> None:
        if kind == "transpose":
            super().__init__(nn.ConvTranspose2d(in_channels, out_channels, 2, stride=2))
        else:
            super().__init__(
                nn.Conv2d(in_channels, out_channels, 1),
                nn.Upsample(scale_factor=2, mode="bilinear", align_corners=False),
            )
