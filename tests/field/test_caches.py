"""A network is left as it was: what its code keeps from call to call too."""

from __future__ import annotations

from copy import deepcopy
from functools import cache, lru_cache, partial
from typing import Any

import pytest
import torch
from newer_export import NEWER_EXPORT
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensor

from whatwhere.field import field


@lru_cache
def ramp(height: int, width: int) -> Tensor:
    return torch.arange(height)[:, None] + torch.arange(width).float()


class ByFunction(nn.Module):
    def grid(self, height: int, width: int) -> Tensor:
        return ramp(height, width)

    def forward(self, x: Tensor) -> Tensor:
        return x * self.grid(*x.shape[-2:])


class ByMethod(ByFunction):
    @staticmethod
    @cache
    def grid(height: int, width: int) -> Tensor:
        return torch.full((height, width), 2.0)


KNOWN: dict[tuple[int, int], Tensor] = {}


class ByDictionary(ByFunction):
    def grid(self, height: int, width: int) -> Tensor:
        if (height, width) not in KNOWN:
            KNOWN[height, width] = torch.full((height, width), 2.0)
        return KNOWN[height, width]


class Store:
    def __init__(self) -> None:
        self.known: dict[tuple[int, int], list[Tensor]] = {}


class ByObject(ByFunction):
    def __init__(self) -> None:
        super().__init__()
        self.stores = (Store(),)

    def grid(self, height: int, width: int) -> Tensor:
        known = self.stores[0].known.setdefault((height, width), [])
        if not known:
            known.append(torch.full((height, width), 2.0))
        return known[0]


class ByAttribute(ByFunction):
    def __init__(self) -> None:
        super().__init__()
        self.last = torch.zeros(1, 1)

    def grid(self, height: int, width: int) -> Tensor:
        if self.last.shape != (height, width):
            self.last = torch.full((height, width), 2.0)
        return self.last


@pytest.mark.parametrize(
    "make", [ByFunction, ByMethod, ByDictionary, ByObject, pytest.param(ByAttribute, marks=NEWER_EXPORT)]
)
@pytest.mark.parametrize("warm", [False, True])
def test_what_code_remembers_is_put_back(make: type[ByFunction], warm: bool) -> None:
    net, image = make(), torch.rand(1, 1, 24, 32)
    before = make()(image)
    kept = net.grid(24, 32) if warm else None
    field(net, (1, 24, 32))
    assert not warm or net.grid(24, 32) is kept
    for size in ((24, 32), (96, 128), (1536, 2048)):  # on which it is followed
        assert not isinstance(net.grid(*size), FakeTensor)
    torch.testing.assert_close(net(image), before)


def test_functions_keep_their_caches() -> None:
    given = ramp
    ramp.cache_clear()
    ramp(3, 4)
    field(ByFunction(), (1, 24, 32))
    assert ramp is given
    assert ramp.cache_info().currsize == 1


FOUND: dict[str, Tensor] = {}


class _Kept:
    def __init__(self) -> None:
        self.found: list[Tensor] = []

    def keep(self, _module: nn.Module, _given: object, made: Tensor) -> None:
        self.found.append(made)


@pytest.mark.parametrize("kind", ["closure", "global", "bound", "attribute", "partial"])
def test_what_hooks_collect_is_put_back(kind: str) -> None:
    """Of the network that is followed, and of the one that it is a copy of."""
    net, mine, kept = nn.Sequential(nn.Conv2d(1, 2, 3, padding=1), nn.Conv2d(2, 1, 1)), dict[str, Tensor](), _Kept()
    net.found = {}  # type: ignore[assignment]

    def into(found: dict[str, Tensor], _module: nn.Module, _given: object, made: Tensor) -> None:
        found["made"] = made

    hooks: dict[str, Any] = {
        "closure": lambda _module, _given, made: mine.update(made=made),
        "global": lambda _module, _given, made: FOUND.update(made=made),
        "bound": kept.keep,
        "attribute": lambda _module, _given, made: net.found.update(made=made),  # type: ignore[operator, union-attr]
        "partial": partial(into, mine),
    }
    net[0].register_forward_hook(hooks[kind])
    places: dict[str, Any] = {"global": FOUND, "bound": kept.found, "attribute": net.found}
    for followed in (net, deepcopy(net)):
        field(followed, (1, 24, 32))
        assert not places.get(kind, mine)
