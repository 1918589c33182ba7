"""Torch as a new process has it, and randomness that leaves no trace: for what a notebook or another program calls.

Knows nothing of models or images.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from threading import Lock

import numpy as np
import torch

__all__ = ["kept_random", "plain_torch"]


@contextmanager
def plain_torch() -> Iterator[None]:
    """In which torch is as it comes, whatever the caller has switched; also a decorator.

    Gradients can be had, new numbers are float32 and on the CPU, and nothing is cast on its way. Torch has one default
    dtype for all threads: others see float32 until the last that is within has left.

    >>> with torch.inference_mode(), plain_torch():
    ...     torch.ones(1, requires_grad=True).exp().requires_grad
    True
    """
    with ExitStack() as plain:
        plain.enter_context(torch.inference_mode(False))
        plain.enter_context(torch.enable_grad())
        for kind in ("cpu", "cuda", "mps"):
            if torch.is_autocast_enabled(kind):
                # nor kept once cast until the caller's own autocast ends: weights would be those before the first step
                plain.enter_context(torch.autocast(kind, enabled=False, cache_enabled=False))
        if torch.empty(0).device.type != "cpu":  # torch 2.6 doesn't tell of `with torch.device(...)` by name
            plain.enter_context(torch.device("cpu"))
        plain.enter_context(_Float32())
        yield


class _Float32:
    """New numbers are float32 while any thread is within."""

    _lock, _within, _before = Lock(), 0, torch.float32

    def __enter__(self) -> None:
        with self._lock:
            if not _Float32._within:
                _Float32._before = torch.get_default_dtype()
            _Float32._within += 1
            torch.set_default_dtype(torch.float32)

    def __exit__(self, *error: object) -> None:
        with self._lock:
            _Float32._within -= 1
            if not _Float32._within:
                torch.set_default_dtype(_Float32._before)


@contextmanager
def kept_random() -> Iterator[None]:
    """After which torch, Python and numpy draw what they would have drawn without it; also a decorator.

    >>> torch.manual_seed(1).initial_seed(), random.seed(1)
    (1, None)
    >>> with kept_random():
    ...     _ = torch.manual_seed(0), random.seed(0)
    >>> (torch.rand(1).item() == torch.rand(1, generator=torch.Generator().manual_seed(1)).item(),
    ...  random.random() == random.Random(1).random())
    (True, True)
    """
    python, numpys = random.getstate(), np.random.get_state()
    # where CUDA has not begun there is no state yet, and to ask for it would begin it
    begun: bool = torch.cuda.is_initialized()  # type: ignore[no-untyped-call]
    devices = range(torch.cuda.device_count() if begun else 0)
    apples = torch.mps.get_rng_state() if torch.backends.mps.is_available() else None
    try:
        with torch.random.fork_rng(devices=devices):
            yield
    finally:
        random.setstate(python)
        np.random.set_state(numpys)
        if apples is not None:
            torch.mps.set_rng_state(apples)
        if not begun:  # what was seeded within waits for it too, and would be its seed
            torch.cuda.manual_seed_all(torch.initial_seed())
