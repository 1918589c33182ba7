"""whatwhere: train U-Nets on your own images, paint images of any size, and measure what the network knows and where.

>>> from whatwhere import Segmenter, UNet, field

Nothing heavy is imported until a name is used, so that ``whatwhere --help`` answers at once.
"""

from __future__ import annotations

from importlib import import_module
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from whatwhere.field import field as field
    from whatwhere.network import Model as Model
    from whatwhere.network import UNet as UNet
    from whatwhere.network import load_model as load_model
    from whatwhere.network import save_model as save_model
    from whatwhere.paint.predict import predict as predict
    from whatwhere.records import VOID as VOID
    from whatwhere.records import Classes as Classes
    from whatwhere.records import Normalisation as Normalisation
    from whatwhere.segmenter import Segmenter as Segmenter
    from whatwhere.verbs import check as check
    from whatwhere.verbs import compare as compare
    from whatwhere.verbs import evaluate as evaluate
    from whatwhere.verbs import explain as explain
    from whatwhere.verbs import plan as plan
    from whatwhere.verbs import quantise as quantise
    from whatwhere.verbs import train as train

__version__ = "0.1.0"

_HOMES = {
    "Classes": "records",
    "Model": "network",
    "Normalisation": "records",
    "Segmenter": "segmenter",
    "UNet": "network",
    "VOID": "records",
    "check": "verbs",
    "compare": "verbs",
    "evaluate": "verbs",
    "load_model": "network",
    "plan": "verbs",
    "predict": "paint.predict",
    "quantise": "verbs",
    "save_model": "network",
    "train": "verbs",
}

_ROOMS = ("explain", "field")
"""Rooms that are called like a function, and can be called."""

__all__ = [*sorted(_HOMES), *_ROOMS]


class ExplainRoom(ModuleType):
    """The class of ``whatwhere.explain``: a call of it is a call of ``whatwhere.verbs.explain``.

    Here and not in the room, which knows nothing of the verbs above it.
    """

    def __call__(self, *args: Any, **options: Any) -> Any:
        return import_module("whatwhere.verbs").explain(*args, **options)


def __getattr__(name: str) -> Any:
    if name in _ROOMS:
        return import_module(f"whatwhere.{name}")
    if name not in _HOMES:
        raise AttributeError(f"whatwhere has no {name!r}; it has {', '.join(__all__)}")
    return getattr(import_module(f"whatwhere.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return __all__
