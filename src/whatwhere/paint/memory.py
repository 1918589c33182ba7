"""How much memory a network needs for a pixel, and how much there is. Knows nothing of tiles or images."""

from __future__ import annotations

import math
import weakref
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from whatwhere.network.machine import available_memory

__all__ = ["Footprint", "free_memory", "peak_bytes"]

_GROWS = 0.1
"""Bytes for all pairs of pixels of a small image, as a share of those for its pixels, from which on they are a law."""


@dataclass(frozen=True)
class Footprint:
    """Bytes that a forward pass takes at its peak.

    Attributes:
        pixel: for each pixel.
        pair: for each pair of pixels: where all are held against all, as attention does, memory grows with the square
            of their number.
    """

    pixel: float
    pair: float = 0.0

    @classmethod
    def of(cls, watched: Sequence[tuple[int, int]]) -> Footprint:
        """From the peak bytes and the pixels of one or two small images, the larger second."""
        each = [peak / pixels for peak, pixels in watched]
        if len(watched) == 1:
            return cls(each[0])
        (_, few), (_, many) = watched
        pair = (each[1] - each[0]) / (many - few)
        pixel = each[0] - pair * few
        return cls(pixel, pair) if pair * many > _GROWS * pixel else cls(max(each))

    def affordable(self, memory: float, scratch: float, beside: float) -> int:
        """The pixels of a forward pass that takes so many bytes.

        Args:
            memory: bytes.
            scratch: what operators take beside tensors, as a factor on these.
            beside: bytes for each pixel that wait beside the pass.
        """
        each, pair = scratch * self.pixel + beside, scratch * self.pair
        return int(memory / each if not pair else (math.sqrt(each**2 + 4 * pair * memory) - each) / (2 * pair))


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
