"""The exponential moving average of a network's weights, which is what is judged and saved.

Polyak & Juditsky 1992, doi 10.1137/0330046. Batch-norm statistics are averaged as well. Until its decay is reached the
mean goes back over a ninth of the steps so far, so that no one need know how many there will be (the power function of
Karras et al. 2024, arXiv 2312.02696). As the learning rate falls the weights come to rest by themselves, and a mean
that goes back as far as before would only lag behind them: so its reach falls with the rate.
"""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn

__all__ = ["Average"]


class Average:
    """Follows a network. The decay rises towards ``decay``, so that the first random weights are soon forgotten."""

    def __init__(self, network: nn.Module, decay: float) -> None:
        self.network = copy.deepcopy(network).eval().requires_grad_(False)
        self.decay = decay
        # what no file holds is each network's own, such as a grid made for the size of its last image
        held = {name: tensor for name, tensor in _tensors(network).items() if name not in _unsaved(network)}
        # of masks of infinities, as networks that are given may have, there is no mean
        self._averaged = [name for name, tensor in held.items() if _has_mean(tensor)]
        self._copied = [name for name, tensor in held.items() if not _has_mean(tensor)]

    @torch.no_grad()
    def follow(self, network: nn.Module, step: int, cooled: float = 1.0) -> None:
        """Takes in the weights after a step; ``cooled`` is what share of its height the learning rate has kept."""
        decay = min(self.decay, (1 + step) / (10 + step))
        mine, theirs = _tensors(self.network), _tensors(network)
        means, news = ([tensors[name] for name in self._averaged] for tensors in (mine, theirs))
        torch._foreach_lerp_(means, news, min(1.0, (1 - decay) / max(cooled, 1e-9)))
        for name in self._copied:
            mine[name].copy_(theirs[name])


def _tensors(network: nn.Module) -> dict[str, Tensor]:
    named = (*network.named_parameters(), *network.named_buffers())
    return {name: tensor.detach() for name, tensor in named}


def _unsaved(network: nn.Module) -> set[str]:
    modules = network.named_modules()
    return {f"{path}.{name}".lstrip(".") for path, module in modules for name in module._non_persistent_buffers_set}


def _has_mean(tensor: Tensor) -> bool:
    return tensor.is_floating_point() and bool(tensor.isfinite().all())
