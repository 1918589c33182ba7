"""The exponential moving average of a network's weights, which is what is judged and saved.

Polyak & Juditsky 1992, doi 10.1137/0330046. Batch-norm statistics are averaged as well. Until its decay is reached the
mean goes back over a ninth of the steps so far, so that no one need know how many there will be (the power function of
Karras et al. 2024, arXiv 2312.02696). As the learning rate falls the weights come to rest by themselves, and a mean
that goes back as far as before would only lag behind them: so its reach falls with the rate.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator

import torch
from torch import Tensor, nn

__all__ = ["Average"]


class Average:
    """Follows a network. The decay rises towards ``decay``, so that the first random weights are soon forgotten."""

    def __init__(self, network: nn.Module, decay: float) -> None:
        self.network = copy.deepcopy(network).eval().requires_grad_(False)
        self.decay = decay
        # of masks of infinities, as networks that are given may have, there is no mean
        self._kept = {name for name, tensor in _tensors(network) if not _has_mean(tensor)}

    @torch.no_grad()
    def follow(self, network: nn.Module, step: int, cooled: float = 1.0) -> None:
        """Takes in the weights after a step; ``cooled`` is what share of its height the learning rate has kept."""
        decay = min(self.decay, (1 + step) / (10 + step))
        mine, theirs = self._means(self.network), self._means(network)
        torch._foreach_lerp_(mine, theirs, min(1.0, (1 - decay) / max(cooled, 1e-9)))
        for (name, own), (_, other) in zip(_tensors(self.network), _tensors(network)):
            if name in self._kept:
                own.copy_(other)

    def _means(self, network: nn.Module) -> list[Tensor]:
        return [tensor.detach() for name, tensor in _tensors(network) if name not in self._kept]


def _tensors(network: nn.Module) -> Iterator[tuple[str, Tensor]]:
    yield from network.named_parameters()
    yield from network.named_buffers()


def _has_mean(tensor: Tensor) -> bool:
    return tensor.is_floating_point() and bool(tensor.isfinite().all())
