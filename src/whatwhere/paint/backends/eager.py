"""PyTorch, operator by operator: starts at once, runs everything, and is what all others are compared with."""

from __future__ import annotations

from torch import Tensor

from whatwhere.network.machine import layout
from whatwhere.network.quick import forward
from whatwhere.paint.backends.backend import Backend, Job, Run, on_device
from whatwhere.paint.fuse import ALL, Fusion, fused

__all__ = ["EAGER", "eager"]


def eager(job: Job, fusion: Fusion = ALL) -> Run:
    """The network as torch runs it, channels last; on a CPU with its convolutions packed and fused."""
    prepared = on_device(job)
    if job.device.type == "cpu":
        prepared = fused(prepared, job.example.to(job.dtype), fusion)

    form = layout(job.device.type)

    def run(batch: Tensor) -> Tensor:
        return forward(prepared, batch.to(job.dtype).contiguous(memory_format=form))

    return run


EAGER = Backend("eager", eager, lambda _device: "", devices=("cpu", "cuda", "mps"))
