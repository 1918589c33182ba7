"""PyTorch, operator by operator: starts at once, runs everything, and is what all others are compared with."""

from __future__ import annotations

from torch import Tensor, nn

from whatwhere.network.machine import layout
from whatwhere.network.quick import forward
from whatwhere.paint.backends.backend import Backend, Job, Run, on_device
from whatwhere.paint.fuse import ALL, Fusion, fused, takes_window
from whatwhere.records import Box

__all__ = ["EAGER", "eager"]


class _Eager:
    """The network, prepared."""

    def __init__(self, network: nn.Module, job: Job) -> None:
        self._network, self._dtype, self._form = network, job.dtype, layout(job.device.type)

    def __call__(self, batch: Tensor) -> Tensor:
        return forward(self._network, self._ready(batch))

    def _ready(self, batch: Tensor) -> Tensor:
        return batch.to(self._dtype).contiguous(memory_format=self._form)


class _Windowed(_Eager):
    """One that computes less for a part of the logits."""

    def within(self, batch: Tensor, window: Box) -> Tensor:
        return forward(self._network, self._ready(batch), window=window)


def eager(job: Job, fusion: Fusion = ALL) -> Run:
    """The network as torch runs it, channels last; on a CPU with its convolutions packed and fused."""
    prepared = on_device(job)
    if job.device.type == "cpu":
        prepared = fused(prepared, job.example.to(job.dtype), fusion)
    return (_Windowed if takes_window(prepared) else _Eager)(prepared, job)


EAGER = Backend("eager", eager, lambda _device: "", devices=("cpu", "cuda", "mps"))
