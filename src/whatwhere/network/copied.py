"""A copy of a network to work on, also of one that has just been trained. Knows nothing of what networks compute."""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from whatwhere.errors import ModelError, in_a_line

__all__ = ["copied", "measurable"]


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


def measurable(network: nn.Module, device: str) -> nn.Module:
    """A copy to be taken apart and measured: float32, in eval mode, with weights that don't learn; not a compiled one.

    Raises:
        ModelError: it can't be copied, or is TorchScript, whose parts no Python code can look into.

    >>> measurable(nn.Dropout().half(), "cpu").training
    False
    """
    if isinstance(network, torch.jit.ScriptModule):
        raise ModelError(
            f"{network.original_name} is TorchScript, which can be painted with but not taken apart",
            "a module of Python's",
            "give the one that it was made from",
        )
    plain = copied(getattr(network, "_orig_mod", network))
    return plain.to(device).float().eval().requires_grad_(False)
