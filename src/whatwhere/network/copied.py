"""A copy of a network to work on, also of one that has just been trained. Knows nothing of what networks compute."""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from whatwhere.errors import ModelError, in_a_line

__all__ = ["copied"]


def copied(network: nn.Module) -> nn.Module:
    """A deep copy. Tensors that were computed, such as features that a module keeps, are copied without their past.

    Raises:
        ModelError: something in it can't be copied.

    >>> network = nn.Conv2d(1, 1, 1)
    >>> network.last = network.weight * 2
    >>> copied(network).last.is_leaf
    True
    """
    held = tree_leaves([vars(module) for module in network.modules()])
    computed = {id(one): one.detach().clone() for one in held if isinstance(one, Tensor) and not one.is_leaf}
    try:
        with torch.no_grad():  # or else copies of TorchScript's weights are computed ones too
            return copy.deepcopy(network, computed)
    except Exception as error:  # whatever a module of the user's holds
        raise ModelError(
            f"{type(network).__name__} can't be copied ({in_a_line(error)})",
            "a module that copy.deepcopy takes",
            "make it anew without running it, and load its weights",
        ) from error
