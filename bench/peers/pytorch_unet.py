"""Pytorch-UNet's default, rewritten: milesial's is in no registry, so this is its description in code of our own.

Two 3x3 convolutions with batch norm and ReLU at every level, base 64, four poolings, transposed convolutions on the way
up, concatenated skips, a 1x1 convolution at the end: 31 million weights. Its default loop: float32, channels last since
2023, cross-entropy plus Dice over the softmax, RMSprop with momentum 0.999, gradients clipped to length 1.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

__all__ = ["PytorchUnet", "dice_loss"]


def pair(inputs: int, outputs: int) -> nn.Sequential:
    """Two convolutions, each with its norm and ReLU."""
    layers: list[nn.Module] = []
    for channels in (inputs, outputs):
        layers += [
            nn.Conv2d(channels, outputs, 3, padding=1, bias=False),
            nn.BatchNorm2d(outputs),
            nn.ReLU(inplace=True),
        ]
    return nn.Sequential(*layers)


class PytorchUnet(nn.Module):
    """``(N, channels, H, W)`` to ``(N, classes, H, W)``; H and W are multiples of 16."""

    def __init__(self, channels: int = 3, classes: int = 2, width: int = 64) -> None:
        super().__init__()
        widths = [width * 2**level for level in range(5)]
        self.down = nn.ModuleList(pair(a, b) for a, b in zip([channels, *widths], widths))
        self.grow = nn.ModuleList(nn.ConvTranspose2d(w, w // 2, 2, stride=2) for w in reversed(widths[1:]))
        self.up = nn.ModuleList(pair(w, w // 2) for w in reversed(widths[1:]))
        self.head = nn.Conv2d(width, classes, 1)

    def forward(self, image: Tensor) -> Tensor:
        skips = [self.down[0](image)]
        for level in self.down[1:]:
            skips.append(level(F.max_pool2d(skips[-1], 2)))
        found = skips.pop()
        for grow, level in zip(self.grow, self.up):
            found = level(torch.cat([skips.pop(), grow(found)], dim=1))
        return self.head(found)


def dice_loss(logits: Tensor, target: Tensor) -> Tensor:
    """One minus Dice, per image and class, averaged."""
    found = logits.softmax(1)
    truth = F.one_hot(target, logits.shape[1]).permute(0, 3, 1, 2).to(found.dtype)
    both, sizes = (found * truth).sum((2, 3)), found.sum((2, 3)) + truth.sum((2, 3))
    return 1 - ((2 * both + 1e-6) / (sizes + 1e-6)).mean()
