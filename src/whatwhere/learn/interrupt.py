"""Ctrl-C while a network learns: the step that runs is finished first, so that what is kept is whole."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

__all__ = ["patient"]


@contextmanager
def patient() -> Iterator[Callable[[], bool]]:
    """Within the block a first Ctrl-C is only noted, and the function tells so; a second one does not wait.

    Where Ctrl-C is ignored (a job in the background), and in threads other than the first, which have no say about
    signals, everything stays as it is and the function always says no.
    """
    asked = threading.Event()

    def note(_number: int, _frame: FrameType | None) -> None:
        asked.set()
        signal.signal(signal.SIGINT, before)

    before = signal.getsignal(signal.SIGINT)
    if threading.current_thread() is not threading.main_thread() or before in (signal.SIG_IGN, None):
        yield asked.is_set
        return
    signal.signal(signal.SIGINT, note)
    try:
        yield asked.is_set
    finally:
        signal.signal(signal.SIGINT, before)
