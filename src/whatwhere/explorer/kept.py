"""Results that are kept as long as there is room: the least recently used go first. Safe for several threads."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterable
from typing import Generic, TypeVar

from torch import Tensor

__all__ = ["Kept", "bytes_of"]

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")


class Kept(Generic[K, V]):
    """At most ``room`` bytes of results; the newest is kept even if it alone is larger.

    >>> kept = Kept(10, len)
    >>> kept.get("a", lambda: "12345"), kept.get("a", lambda: "never computed")
    ('12345', '12345')
    >>> kept.get("b", lambda: "1234567890"), kept.get("a", lambda: "anew")
    ('1234567890', 'anew')
    """

    def __init__(self, room: int, size: Callable[[V], int]) -> None:
        self._room, self._size = room, size
        self._found: OrderedDict[K, V] = OrderedDict()
        self._lock = threading.Lock()

    def get(self, key: K, compute: Callable[[], V]) -> V:
        with self._lock:
            if key in self._found:
                self._found.move_to_end(key)
                return self._found[key]
        value = compute()
        with self._lock:
            self._found[key] = value
            self._found.move_to_end(key)
            used = sum(self._size(one) for one in self._found.values())
            while used > self._room and len(self._found) > 1:
                _, oldest = self._found.popitem(last=False)
                used -= self._size(oldest)
        return value


def bytes_of(tensors: Iterable[Tensor]) -> int:
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors)
