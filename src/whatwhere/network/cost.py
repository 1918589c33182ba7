"""What a network costs: parameters and multiply-adds."""

from __future__ import annotations

import copy
from dataclasses import dataclass

import torch
from torch import nn

__all__ = ["Cost", "cost"]


@dataclass(frozen=True)
class Cost:
    """``parameters``: learnable numbers; ``multiply_adds``: for one image of ``image_shape`` (C, H, W)."""

    parameters: int
    multiply_adds: int
    image_shape: tuple[int, ...]

    def __str__(self) -> str:
        size = "x".join(map(str, self.image_shape[1:]))
        return f"{self.parameters / 1e6:.2f} M weights, {self.multiply_adds / 1e9:.2f} G multiply-adds at {size}"


def cost(network: nn.Module, image_shape: tuple[int, ...]) -> Cost:
    """Counts without computing: the network runs on shapes alone.

    >>> cost(nn.Conv2d(3, 8, 3, padding=1, bias=False), (3, 10, 10))
    Cost(parameters=216, multiply_adds=21600, image_shape=(3, 10, 10))
    """
    from torch.utils.flop_counter import FlopCounterMode  # slow to import, and painting needs no cost

    parameters = sum(parameter.numel() for parameter in network.parameters())
    hollow = copy.deepcopy(network).to("meta").eval()
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        hollow(torch.empty(1, *image_shape, device="meta"))
    return Cost(parameters, counter.get_total_flops() // 2, tuple(image_shape))
