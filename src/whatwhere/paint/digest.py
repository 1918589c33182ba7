"""What names a network: its structure, its weights, and of one made elsewhere its code, as far as it can be read."""

from __future__ import annotations

import hashlib
import inspect
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import fields, is_dataclass
from enum import Enum
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from whatwhere.network import own_config

__all__ = ["digest_of"]

_OF_TORCH = frozenset(vars(nn.Module()))
"""What every module keeps for torch: its parameters, parts and hooks, and whether it is in training."""


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
        if _of_torch(kind):
            continue
        parts += [_source(base) for base in kind.__mro__ if not _of_torch(base)]
        settings = {key: value for key, value in vars(module).items() if key not in _OF_TORCH}
        parts.append(f"{name} {kind.__qualname__} {_text(settings)}")
    return "\n".join(parts)


def _of_torch(thing: object) -> bool:
    return str(getattr(thing, "__module__", None)).partition(".")[0] in ("torch", "builtins", "None")


def _source(thing: Any) -> str:
    with suppress(OSError, TypeError):  # typed in by hand, or compiled
        return inspect.getsource(thing)
    return ""


def _text(value: Any) -> str:
    """Of a setting, the same in every process; of what has no such text, its type."""
    if isinstance(value, Enum):
        return f"{type(value).__qualname__}.{value.name}"
    if value is None or isinstance(value, bool | int | float | str | bytes | np.generic | torch.dtype):
        return repr(value)
    if isinstance(value, tuple | list):
        return f"[{', '.join(map(_text, value))}]"
    if isinstance(value, set | frozenset):
        return f"{{{', '.join(sorted(map(_text, value)))}}}"
    if isinstance(value, Mapping):
        return f"{{{', '.join(sorted(f'{_text(key)}: {_text(one)}' for key, one in value.items()))}}}"
    if isinstance(value, np.ndarray) and value.dtype.hasobject:
        return _text(value.tolist())
    if isinstance(value, Tensor | np.ndarray):  # numbers that a module keeps without saying so to torch
        numbers = _bytes(value) if isinstance(value, Tensor) else value.tobytes()
        return f"{value.dtype} {tuple(value.shape)} {hashlib.sha256(numbers).hexdigest()}"
    if isinstance(value, partial):
        return _text([value.func, value.args, value.keywords])
    if is_dataclass(value) and not isinstance(value, type):
        return type(value).__qualname__ + _text({one.name: getattr(value, one.name, None) for one in fields(value)})
    name = getattr(value, "__qualname__", None)
    if isinstance(name, str):  # a function or a class
        return f"{getattr(value, '__module__', '')}.{name} {'' if _of_torch(value) else _source(value)}"
    return type(value).__qualname__
