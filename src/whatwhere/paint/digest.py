"""What names a network: its structure, its weights, and of one made elsewhere its code, as far as it can be read."""

from __future__ import annotations

import hashlib
import inspect
from contextlib import suppress
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from whatwhere.network import own_config

__all__ = ["digest_of"]


def digest_of(network: nn.Module) -> str:
    """SHA-256 of all that decides what a network computes; the same in every process.

    >>> digest_of(nn.ReLU()) == digest_of(nn.ReLU()) != digest_of(nn.ReLU6())
    True
    """
    digest = hashlib.sha256(repr(network).encode())
    if own_config(network) is None:
        digest.update(_code(network).encode())
    for name, tensor in sorted({**dict(network.named_parameters()), **dict(network.named_buffers())}.items()):
        digest.update(name.encode())
        digest.update(_bytes(tensor))
    return digest.hexdigest()


def _bytes(tensor: Tensor) -> memoryview:
    """Of its values."""
    values: memoryview = tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data
    return values


def _code(network: nn.Module) -> str:
    """What a network computes beside its weights, as far as it can be read: the code of its modules, their settings."""
    parts = []
    for name, module in network.named_modules():
        kind = type(module)
        if kind.__module__.partition(".")[0] == "torch":
            continue
        for base in kind.__mro__:
            if base.__module__.partition(".")[0] not in ("torch", "builtins"):
                with suppress(OSError, TypeError):  # typed in by hand, or compiled
                    parts.append(inspect.getsource(base))
        plain = {key: value for key, value in vars(module).items() if _is_plain(value) and key != "training"}
        plain |= {key: _digest(value) for key, value in vars(module).items() if isinstance(value, Tensor | np.ndarray)}
        parts.append(f"{name} {kind.__qualname__} {sorted(plain.items())}")
    return "\n".join(parts)


def _digest(values: Tensor | NDArray[Any]) -> str:
    """Of numbers that a module keeps without saying so to torch."""
    return hashlib.sha256(_bytes(torch.as_tensor(values))).hexdigest()


def _is_plain(value: object) -> bool:
    """A setting, whose text is the same in every process."""
    if isinstance(value, tuple | list):
        return all(map(_is_plain, value))
    return value is None or isinstance(value, bool | int | float | str | bytes)
