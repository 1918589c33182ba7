"""What decides what a network computes besides its weights: its parts, what they are set to, what hangs on them.

Knows modules; knows nothing of U-Nets.
"""

from __future__ import annotations

import hashlib
import inspect
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import fields, is_dataclass
from enum import Enum
from functools import lru_cache, partial
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

__all__ = ["bytes_of", "is_hooked", "mark", "of_torch", "source_of"]

_LEFT_OUT = frozenset(vars(nn.Module())) | {"_compiled_call_impl", "_is_torch_compile"}
"""What every module keeps for torch: its parameters, parts and hooks, whether it is in training or was compiled."""

_PLAIN = (bool, int, float, str, type(None))


def mark(network: nn.Module, *, kept: bool = True, hooks: bool = True) -> str:
    """Equal for two networks that compute the same from equal weights, as far as it can be read; in every process.

    Training or evaluation, device and weights' dtype change nothing; the code of its classes is not read.

    Args:
        network: any module.
        kept: also what modules keep that are neither torch's nor ours. Of some that changes while they run.
        hooks: also those that are called before and after a module.

    >>> mark(nn.AvgPool2d(3)) == mark(nn.AvgPool2d(3)) != mark(nn.AvgPool2d(3, ceil_mode=True))
    True
    """
    digest = hashlib.sha256(repr(network).encode())
    for line in _lines(network, kept, hooks):
        digest.update(line.encode())
    return digest.hexdigest()


def is_hooked(network: nn.Module) -> bool:
    """Whether anything is called before or after one of its modules, which may change what that gives."""
    return any(vars(module).get(key) for module in network.modules() for key in _HOOKS)


def _lines(network: nn.Module, kept: bool, hooked: bool) -> Iterator[str]:
    """One a module. What has a second name is told by its first."""
    known: dict[int, str] = {}
    for find in (nn.Module.named_parameters, nn.Module.named_buffers):
        known |= {id(tensor): name for name, tensor in find(network)}
    modules: dict[int, str] = {}
    for name, module in network.named_modules(remove_duplicate=False):
        first = modules.setdefault(id(module), name)
        if first != name:
            yield f"{name} is {first}\n"
            continue
        kind, own = type(module), vars(module)
        state = [f"{key} {known.get(id(tensor))}" for key, tensor in _state(module)]
        hooks = [_of_hook(hook, known) for key in _HOOKS for hook in own.get(key, {}).values() if hooked]
        theirs, elsewhere = of_torch(kind), not (of_torch(kind) or _package(kind) == "whatwhere")
        settings = _text(_settings(module, private=elsewhere), known) if kept or not elsewhere else ""
        yield f"{name} {'torch ' * theirs}{kind.__qualname__} {state} {hooks} {settings}\n"
        if theirs:
            yield _traced(module)


_HOOKS = "_forward_pre_hooks", "_forward_hooks"


def _state(module: nn.Module) -> Iterator[tuple[str, Tensor]]:
    """What a file of its weights would hold of this module itself."""
    unsaved = vars(module).get("_non_persistent_buffers_set", ())
    yield from module.named_parameters(recurse=False, remove_duplicate=False)
    yield from (item for item in module.named_buffers(recurse=False, remove_duplicate=False) if item[0] not in unsaved)


def _settings(module: nn.Module, private: bool) -> dict[str, Any]:
    """Its plain attributes, without weights that a hook computes of others at every call: they may be old.

    What torch and we keep by private names is made of the others, or says what became of a module.
    """
    given = vars(module).get("_parameters", {})
    return {
        key: value
        for key, value in vars(module).items()
        if (private or not key.startswith("_"))
        and not (key in _LEFT_OUT or f"{key}_g" in given or f"{key}_orig" in given)
    }


def _traced(module: nn.Module) -> str:
    """The code that torch has written of a network: TorchScript, or of a graph."""
    code: object = ""
    with suppress(AttributeError, RuntimeError):  # a part of TorchScript that only others call has none
        code = module.code
    return code if isinstance(code, str) else ""


def _of_hook(hook: Any, known: Mapping[int, str]) -> str:
    """With the numbers and words of the object that it is, or is a method of: which weight it norms, for instance."""
    owner = getattr(hook, "__self__", hook)
    plain = {key: value for key, value in getattr(owner, "__dict__", {}).items() if isinstance(value, _PLAIN)}
    return f"{_text(hook, known)} {'' if isinstance(owner, nn.Module) else _text(plain, known)}"


def of_torch(thing: object) -> bool:
    """Whether a class or a function is torch's, or Python's."""
    return _package(thing) in ("torch", "builtins", "None")


def _package(thing: object) -> str:
    return str(getattr(thing, "__module__", None)).partition(".")[0]


def source_of(thing: Any) -> str:
    """The code of a class or a function; "" where it can't be read."""
    whole = inspect.unwrap(thing)
    with suppress(OSError, TypeError):  # typed in by hand, or compiled
        return _read(getattr(whole, "__code__", whole))
    return ""


@lru_cache(maxsize=2**10)
def _read(code: Any) -> str:
    """Of a class or of a function's code: the function itself may hold on to features."""
    return inspect.getsource(code)


def bytes_of(tensor: Tensor) -> memoryview:
    """Of its values."""
    values: memoryview = tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data
    return values


def _text(value: Any, known: Mapping[int, str]) -> str:
    """Of a setting, the same in every process; of what has no such text, its type."""
    if type(value) in _PLAIN:  # most are
        return repr(value)

    def text(value: Any) -> str:
        return _text(value, known)

    if isinstance(value, Enum):
        return f"{type(value).__qualname__}.{value.name}"
    if isinstance(value, (*_PLAIN, bytes, range, np.generic, torch.dtype)):
        return repr(value)
    if isinstance(value, tuple | list):
        return f"[{', '.join(map(text, value))}]"
    if isinstance(value, set | frozenset):
        return f"{{{', '.join(sorted(map(text, value)))}}}"
    if isinstance(value, Mapping):
        return f"{{{', '.join(sorted(f'{text(key)}: {text(one)}' for key, one in value.items()))}}}"
    if isinstance(value, np.ndarray) and value.dtype.hasobject:
        return text(value.tolist())
    if isinstance(value, Tensor | np.ndarray):  # numbers that a module keeps without saying so to torch
        return known.get(id(value)) or _of_numbers(value)
    if isinstance(value, partial):
        return text([value.func, value.args, value.keywords])
    if is_dataclass(value) and not isinstance(value, type):
        return type(value).__qualname__ + text({one.name: getattr(value, one.name, None) for one in fields(value)})
    name = getattr(value, "__qualname__", None)
    if isinstance(name, str):
        return f"{getattr(value, '__module__', '')}.{name} {_of_code(value)}"
    return type(value).__qualname__


def _of_numbers(value: Tensor | np.ndarray[Any, Any]) -> str:
    told = f"{value.dtype} {tuple(value.shape)}"
    with suppress(RuntimeError, TypeError):  # those of sparse tensors, or of tensors without numbers
        numbers = bytes_of(value) if isinstance(value, Tensor) else value.tobytes()
        told += f" {hashlib.sha256(numbers).hexdigest()}"
    return told


def _of_code(value: Any) -> str:
    """A function's or a class's, with the plain values that a function has taken from where it was made."""
    if of_torch(value):
        return ""
    plain = []
    for cell in getattr(value, "__closure__", None) or ():
        with suppress(ValueError):  # not filled yet
            plain += [repr(cell.cell_contents)] if isinstance(cell.cell_contents, _PLAIN) else []
    return f"{source_of(value)} {plain}"
