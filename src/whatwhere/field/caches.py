"""What a network's own code remembers from call to call is put back after it was followed with tensors without numbers.

Knows Python; knows nothing of graphs.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import lru_cache, partial
from types import FunctionType, MethodType, ModuleType, SimpleNamespace
from typing import Any

from torch import Tensor, nn

__all__ = ["put_back"]

_MEMOISED = type(lru_cache(lambda: None))
_FOREIGN = {"torch", "numpy", "builtins", "whatwhere", *sys.stdlib_module_names} - {"__main__"}
"""Packages that keep nothing of a network's."""
_OF_TORCH = frozenset(vars(nn.Module()))
_HOOKS = "_forward_hooks", "_forward_pre_hooks"
_MANY = 2**12
"""Entries of what is no cache, but a list of files, perhaps."""


@contextmanager
def put_back(module: nn.Module) -> Iterator[None]:
    """Within, functools' caches that the module's code names are empty ones; after, all is remembered as before.

    That is: these caches; the lists, dictionaries and plain objects that attributes and hooks of the module lead to;
    and the dictionaries beside its classes.
    """
    kinds = {base for part in module.modules() for base in type(part).__mro__ if _own(base)}
    sources = {sys.modules[kind.__module__] for kind in kinds if kind.__module__ in sys.modules}
    memoised = list(_memoised({*kinds, *sources, *_imported(sources)}))
    held = [(kept, kept.copy()) for kept in (*_held(module), *_beside(sources))]
    fresh: dict[int, Any] = {}
    for place, name, given in memoised:
        setattr(place, name, _emptied(given, fresh))
    try:
        yield
    finally:
        for place, name, given in memoised:
            setattr(place, name, given)
        for kept, before in held:
            _restore(kept, before)


def _own(thing: Any) -> bool:
    """Whether a class, or a function, is neither Python's nor torch's."""
    return str(getattr(thing, "__module__", None)).partition(".")[0] not in _FOREIGN


def _imported(sources: set[ModuleType]) -> Iterator[ModuleType]:
    """The modules of Python's that others name, and those from which what they name is."""
    for source in sources:
        for value in list(vars(source).values()):
            if isinstance(value, type | FunctionType | _MEMOISED):
                value = sys.modules.get(str(getattr(value, "__module__", None)))
            if isinstance(value, ModuleType) and value.__name__.partition(".")[0] not in _FOREIGN:
                yield value


def _memoised(places: set[Any]) -> Iterator[tuple[Any, str, Any]]:
    """Where classes and modules of Python's have caches of functools: place, name and function."""
    for place in places:
        for name, value in list(vars(place).items()):
            method = isinstance(value, staticmethod | classmethod)
            if isinstance(value.__func__ if method else value, _MEMOISED):
                yield place, name, value


def _emptied(given: Any, fresh: dict[int, Any]) -> Any:
    """The same function with a cache of its own: one, however many places name it."""
    if isinstance(given, staticmethod | classmethod):
        return type(given)(_emptied(given.__func__, fresh))
    if id(given) not in fresh:
        fresh[id(given)] = lru_cache(**given.cache_parameters())(given.__wrapped__)
    return fresh[id(given)]


def _beside(sources: set[ModuleType]) -> Iterator[dict[Any, Any]]:
    for source in sources:
        for name, value in vars(source).items():
            if isinstance(value, dict) and not name.startswith("__"):
                yield value


def _held(module: nn.Module) -> Iterator[Any]:
    """Each list and dictionary that the attributes of a network's modules lead to; of an object, that of attributes."""
    seen: set[int] = set()
    todo: list[Any] = [vars(part) for part in module.modules()]
    while todo:
        one = todo.pop()
        if isinstance(one, tuple):
            todo += one
            continue
        one = one if isinstance(one, dict | list) else _attributes(one)
        if one is None or id(one) in seen or len(one) > _MANY:
            continue
        seen.add(id(one))
        yield one
        todo += one if isinstance(one, list) else [value for key, value in one.items() if key not in _OF_TORCH]
        if isinstance(one, dict):
            hooks = [hook for name in _HOOKS if isinstance(found := one.get(name), dict) for hook in found.values()]
            todo += [kept for hook in hooks for kept in _of(hook)]


def _of(hook: Any) -> Iterator[Any]:
    """What a hook keeps its findings in: what it closes over, is bound to or names, or was given beforehand."""
    while isinstance(hook, partial):
        yield from (*hook.args, *hook.keywords.values())
        hook = hook.func
    if isinstance(hook, MethodType):
        yield hook.__self__
        hook = hook.__func__
    elif not isinstance(hook, FunctionType):
        yield hook
    held = []
    for cell in getattr(hook, "__closure__", None) or ():
        with suppress(ValueError):  # one that is empty
            held.append(cell.cell_contents)
    if isinstance(hook, FunctionType):
        held += [hook.__globals__[name] for name in hook.__code__.co_names if name in hook.__globals__]
    for one in held:
        yield from (vars(part) for part in one.modules()) if isinstance(one, nn.Module) else (one,)


def _attributes(one: Any) -> dict[str, Any] | None:
    """Of an object of the user's."""
    if isinstance(one, Tensor | type | ModuleType | FunctionType):
        return None
    own = _own(type(one)) or isinstance(one, SimpleNamespace | nn.Module)
    found = getattr(one, "__dict__", None) if own else None
    return found if isinstance(found, dict) else None


def _restore(kept: Any, before: Any) -> None:
    """Only what has changed: some dictionaries refuse to be written, and others are read meanwhile."""
    if isinstance(kept, list):
        if list(map(id, kept)) != list(map(id, before)):
            kept[:] = before
        return
    for key in [key for key in kept if key not in before]:
        del kept[key]
    for key, value in before.items():
        if key not in kept or kept[key] is not value:
            kept[key] = value
