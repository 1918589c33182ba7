"""CUDA graphs: all kernels of a forward pass sent to the GPU as one, so that small ones don't wait for Python."""

from __future__ import annotations

import torch
from torch import Tensor

from whatwhere.paint.backends.backend import Backend, Job, Run, on_device

__all__ = ["GRAPHS"]

_SHAPES = 4
"""Shapes of tiles that are kept; each holds its memory. Others pass operator by operator."""


def _prepare(job: Job) -> Run:
    network = on_device(job)
    kept: dict[torch.Size, tuple[torch.cuda.CUDAGraph, Tensor, Tensor]] = {}

    def record(batch: Tensor) -> tuple[torch.cuda.CUDAGraph, Tensor, Tensor]:
        given = batch.clone(memory_format=torch.channels_last)
        side = torch.cuda.Stream(job.device)  # type: ignore[no-untyped-call]
        side.wait_stream(torch.cuda.current_stream(job.device))
        with torch.cuda.stream(side):  # libraries choose and allocate before the recording
            for _ in range(3):
                network(given)
        torch.cuda.current_stream(job.device).wait_stream(side)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, stream=side):  # torch's own is of whichever device came first
            taken = network(given)
        return graph, given, taken

    def run(batch: Tensor) -> Tensor:
        with torch.cuda.device(job.device):  # what is recorded is what its current stream is given
            return replayed(batch)

    def replayed(batch: Tensor) -> Tensor:
        ready = batch.to(job.dtype).contiguous(memory_format=torch.channels_last)
        if ready.shape not in kept:
            if len(kept) == _SHAPES:
                logits: Tensor = network(ready)
                return logits
            kept[ready.shape] = record(ready)
        graph, given, taken = kept[ready.shape]
        given.copy_(ready)
        graph.replay()
        return taken.clone()

    return run


GRAPHS = Backend("graphs", _prepare, lambda _device: "", "", 1.0, ("cuda",))
