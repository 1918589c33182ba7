"""Keeps in torch.export's sight what a module does past it, while it is followed. Knows nothing of graphs."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Any

import torch
from torch import nn
from torch.overrides import TorchFunctionMode

from whatwhere.errors import FieldError

__all__ = ["forward_in_sight"]

_DATA = vars(torch._C.TensorBase)["data"]

_RECURRENT = frozenset({"lstm", "gru", "rnn_tanh", "rnn_relu"})
_OF_A_PLACE = 16
"""Calls that a recurrent layer counts for at each place of its sequence, of which torch.export makes a dozen steps."""


class _InSight(TorchFunctionMode):
    """Keeps torch.export from losing sight of a tensor whose `.data` is taken or set, and from modes of autograd.

    It takes the one for a constant; a graph within which gradients are asked for it can't take apart. More calls of
    torch than ``most`` are a `FieldError`.
    """

    def __init__(self, most: int | None) -> None:
        super().__init__()
        self._most, self._calls = most, 0

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self._calls += _calls(func, args)
        if self._most is not None and self._calls > self._most:
            raise FieldError("goes over larger images in a loop, by ever more operators", "", "")
        if func is torch._C._set_grad_enabled:
            return None
        if func == _DATA.__get__:
            return args[0].detach()
        if func == _DATA.__set__:
            if args[0].shape != args[1].shape:
                raise NotImplementedError(".data is set to a tensor of another shape, which can't be followed")
            return args[0].detach().copy_(args[1])
        return func(*args, **(kwargs or {}))


def _calls(func: Any, args: tuple[Any, ...]) -> int:
    """How many a call of torch stands for: what runs along a row is one, and a loop over its pixels when exported."""
    if getattr(func, "__name__", "") not in _RECURRENT:
        return 1
    sequences, *_, batch_first = args
    return _OF_A_PLACE * int(sequences.shape[1 if batch_first else 0])


def forward_in_sight(module: nn.Module, most: int | None) -> Callable[..., Any]:
    """A module's forward, within which `.data` is no constant and gradients are not asked for.

    A `FieldError` where it calls torch more often than ``most``: to follow a loop over tiles would take hours.
    """
    forward = module.forward

    @wraps(forward)
    def followed(*args: Any, **kwargs: Any) -> Any:
        with _InSight(most):  # within torch.export's own modes, or else they come first
            return forward(*args, **kwargs)

    return followed
