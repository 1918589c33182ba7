"""What may run a model beside PyTorch itself: all that is installed and fits, or the one that was asked for."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from whatwhere.errors import PlanError
from whatwhere.network import Model
from whatwhere.network.machine import Precision
from whatwhere.paint.backends import BACKENDS, EAGER, INT8, Backend
from whatwhere.paint.kept import kept_int8

__all__ = ["Candidates", "candidates"]


@dataclass(frozen=True)
class Candidates:
    """What may be used.

    Attributes:
        backends: without PyTorch itself.
        notes: a line if a kept int8 file can't be used.
    """

    backends: tuple[Backend, ...]
    notes: tuple[str, ...] = ()


def candidates(
    asked: str | Backend, device: str, precision: Precision, model: Model, weights: Callable[[], str]
) -> Candidates:
    """Looks at what is installed, and at what lies beside the model's file.

    Args:
        asked: ``"auto"``, a name, or a backend itself.
        device: the kind of device.
        precision: as asked for; int8 is taken only where nobody asked for another one.
        model: the model.
        weights: names its network.

    Raises:
        PlanError: a backend that is unknown, not installed, not for this device or precision, or without its file.
    """
    if isinstance(asked, Backend):
        return Candidates((asked,))
    if asked == "auto":
        able = tuple(b for b in BACKENDS if b is not EAGER and device in b.devices and not b.lacks(device))
        if device != "cpu" or precision != "auto":
            return Candidates(able)
        kept, reason = kept_int8(model, weights)
        return Candidates((*able, *kept), (f"int8 is not used: {reason}",) if reason else ())
    if asked in ("int8", *INT8):
        _check(asked, device, precision, ("cpu",), ("int8",))
        return Candidates((_insisted(asked, model, weights),))
    known = {backend.name: backend for backend in BACKENDS}
    if asked not in known:
        raise PlanError(f"backend is {asked!r}", f"auto, {', '.join(known)} or int8", "leave it at auto if unsure")
    one = known[asked]
    _check(asked, device, precision, one.devices, one.precisions)
    if lacking := one.lacks(device):
        raise PlanError(f"backend is {asked!r}, which is not installed", lacking, one.remedy)
    return Candidates(() if one is EAGER else (one,))


def _check(
    asked: str, device: str, precision: Precision, devices: tuple[str, ...], precisions: tuple[str, ...]
) -> None:
    if device not in devices:
        raise PlanError(f"backend is {asked!r} and device is {device!r}", f"a device of {devices}", "")
    if precision not in ("auto", *precisions):
        raise PlanError(f"backend is {asked!r} and precision is {precision!r}", f"one of {precisions}", "")


def _insisted(asked: str, model: Model, weights: Callable[[], str]) -> Backend:
    """The int8 backend that was asked for: the first of both if neither was named."""
    kept, reason = kept_int8(model, weights)
    for backend in kept:
        if asked in ("int8", backend.name):
            return backend
    there = f"; {' and '.join(backend.name for backend in kept)} can be had" if kept else ""
    raise PlanError(
        f"backend is {asked!r}, and {reason or f'no such file is kept beside the model{there}'}",
        "" if reason else "a quantised network that lost next to nothing on the validation images",
        "" if reason else "make it: whatwhere quantise MODEL DATA",
    )
