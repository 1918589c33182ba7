"""What comes from below is made as loud as the skip beside it, where a network begins with weights from elsewhere."""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn

from whatwhere.network.unet import UNet

__all__ = ["balance"]


def balance(network: UNet, images: Tensor) -> None:
    """Scales the ways up so that what they bring has the deviation of the skip that is joined to it.

    ImageNet's features deviate many times as far as what a new way up begins with: the first convolution of a decoder
    level adds up both and hardly hears what comes from below. Level by level and on images, as layer-sequential unit
    variance does (Mishkin & Matas 2016, arXiv 1511.06422).

    Args:
        network: the weights of its ways up are changed, and nothing else.
        images: ``(N, C, H, W)``, normalised, on the network's device.
    """
    twin = copy.deepcopy(network).train()  # in training the norms go by these images; its statistics are forgotten
    with torch.no_grad():
        levels = twin.encode(images)
        x = levels[-1]
        for level in reversed(range(twin.depth)):
            below = twin.up[level](x)
            if level in twin.skips:
                skip = levels[level]
                share = skip.std() / below.std().clamp_min(1e-6)
                for one in (twin, network):
                    _first(one.up[level]).weight.mul_(share)
                below = torch.cat([skip, twin.up[level](x)], dim=1)
            x = twin.decoder[level](below)


def _first(up: nn.Module) -> nn.Conv2d | nn.ConvTranspose2d:
    """The convolution of a way up."""
    return next(module for module in up.modules() if isinstance(module, nn.Conv2d | nn.ConvTranspose2d))
