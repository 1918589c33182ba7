"""Recording what a GPU computes as a CUDA graph, which is then sent as one. Knows nothing of what is computed."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

import torch

__all__ = ["captured", "warmed"]

T = TypeVar("T")


def warmed(compute: Callable[[], object], stream: torch.cuda.Stream) -> None:
    """Computes three times, so that libraries choose and allocate before a recording: RuntimeError if it can't be one.

    That is where an operator waits for the GPU; to find it out while recording would spoil more.
    """
    here = torch.cuda.current_stream(stream.device)
    stream.wait_stream(here)
    try:
        with torch.cuda.stream(stream):
            for _ in range(2):
                compute()
            with _refusing_to_wait():
                compute()
    finally:
        here.wait_stream(stream)  # also where it broke off: what it had sent may still run


def captured(compute: Callable[[], T], stream: torch.cuda.Stream, pool: Any = None) -> tuple[torch.cuda.CUDAGraph, T]:
    """A recording, and what is its result whenever it has been replayed.

    Args:
        compute: what is recorded; it is computed on replay, not now.
        stream: beside the current one, of the same device.
        pool: memory that is shared with other recordings, which are never replayed at the same time.
    """
    here = torch.cuda.current_stream(stream.device)
    graph = torch.cuda.CUDAGraph()
    try:
        # other threads may go on meanwhile
        with torch.cuda.graph(graph, pool=pool, stream=stream, capture_error_mode="thread_local"):
            result = compute()
    except BaseException:
        torch.cuda.set_stream(here)  # torch leaves the other one where a recording broke off
        raise
    return graph, result


@contextmanager
def _refusing_to_wait() -> Iterator[None]:
    """An error of any operator that waits for the GPU."""
    mode = torch.cuda.get_sync_debug_mode()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that it does not find every one
        torch.cuda.set_sync_debug_mode("error")
    try:
        yield
    finally:
        torch.cuda.set_sync_debug_mode(mode)
