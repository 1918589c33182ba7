"""Names that tell models and images apart: the page's address names them so. Knows words only."""

from __future__ import annotations

from collections.abc import Collection
from itertools import count

__all__ = ["apart"]


def apart(name: str, taken: Collection[str]) -> str:
    """The name, with a number after it if it is taken.

    >>> apart("run", ["run", "run (2)"])
    'run (3)'
    """
    numbered = (f"{name} ({number})" for number in count(2))
    return name if name not in taken else next(one for one in numbered if one not in taken)
