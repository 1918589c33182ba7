"""How much memory a network needs for a pixel, and how much there is. Knows nothing of tiles or images."""

from __future__ import annotations

import weakref
from collections import Counter
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from whatwhere.network.machine import available_memory

__all__ = ["free_memory", "peak_bytes"]


class _Tally(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Adds up the bytes of all tensors that are alive, and keeps the most there ever were."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.peak: int = 0
        self._now: int = 0
        self._holders: Counter[int] = Counter()

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        """No: to tell the compiler to skip this, torch would first import it, which takes seconds."""
        return False

    def __torch_dispatch__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        result = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(result):
            if isinstance(tensor, Tensor):
                self._hold(tensor)
        return result

    def _hold(self, tensor: Tensor) -> None:
        storage = tensor.untyped_storage()
        key, size = storage._cdata, storage.nbytes()
        if not self._holders[key]:
            self._now += size
            self.peak = max(self.peak, self._now)
        self._holders[key] += 1
        weakref.finalize(tensor, self._release, key, size)

    def _release(self, key: int, size: int) -> None:
        self._holders[key] -= 1
        if not self._holders[key]:
            self._now -= size


def peak_bytes(run: Callable[[Tensor], Tensor], example: Tensor) -> int:
    """The most bytes of tensors that are alive at a time while ``run(example)``, without the operators' own scratch."""
    tally = _Tally()
    with torch.inference_mode(), tally:
        run(example)
    return tally.peak


def free_memory(device: torch.device) -> int:
    """Bytes that could be used now on this device."""
    if device.type == "cuda":
        idle = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)  # what torch keeps unused
        return int(torch.cuda.mem_get_info(device)[0] + idle)
    return available_memory()
