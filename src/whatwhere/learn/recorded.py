"""The gradients of a step as a CUDA graph: all kernels sent to the GPU as one, so that they don't wait for Python.

A step of a small network is a thousand kernels of a few microseconds each; sent one by one they take two to six times
as long (`bench/on_a_gpu.py`). Knows nothing of optimisers, runs or data.
"""

from __future__ import annotations

import random
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor, nn

from whatwhere.cuda_graph import captured, warmed
from whatwhere.network import Machine

__all__ = ["Gradients", "Recorder", "recorder_for"]

Gradients = Callable[[Tensor, Tensor], Tensor]
"""Of ``(N, C, H, W)`` images and their ``(N, H, W)`` target: leaves ``.grad`` on the weights and returns numbers."""

_ROOM = 0.25
"""The share of a GPU's memory that is enough to paint with, beside a recording."""


class Recorder:
    """Records what is computed at its first call, and plays that at every other, on other images of the same shape.

    What is computed must not wait for the GPU, and must send the same kernels whatever the images are. The weights'
    gradients are the recording's: nobody else may free them (``zero_grad``) as long as it is used.

    Args:
        network: whose gradients they are. Its buffers (the statistics of batch norm) move once a call, as without this.
        device: the GPU.
    """

    def __init__(self, network: nn.Module, device: str) -> None:
        self._network, self._device = network, torch.device(device)
        self._graph: torch.cuda.CUDAGraph | None = None
        self._side: torch.cuda.Stream | None = None  # one for all recordings: torch hands the same few out in turn
        self._images, self._target, self._numbers = (torch.empty(0),) * 3

    def __call__(self, compute: Gradients, images: Tensor, target: Tensor) -> Tensor:
        """As ``compute(images, target)``, of whose first call all others are the like."""
        with torch.cuda.device(self._device):
            if self._graph is None:
                self._record(compute, images, target)
            assert self._graph is not None
            self._images.copy_(images)
            self._target.copy_(target)
            self._graph.replay()
        return self._numbers

    def forget(self) -> None:
        """The next call records anew."""
        self._graph = None
        self._images, self._target, self._numbers = (torch.empty(0),) * 3
        self._no_gradients()

    def make_room(self) -> None:
        """Forgets the recording where little else is free: its memory is for nothing else as long as it is kept."""
        if self._graph is None or self._has_room():
            return
        torch.cuda.empty_cache()  # of what torch keeps for the next time
        if not self._has_room():
            self.forget()
            torch.cuda.empty_cache()

    def _has_room(self) -> bool:
        free, whole = torch.cuda.mem_get_info(self._device)
        return free >= _ROOM * whole

    def _record(self, compute: Gradients, images: Tensor, target: Tensor) -> None:
        given = images.clone(memory_format=torch.channels_last), target.clone()
        if self._side is None:
            self._side = torch.cuda.Stream(self._device)  # type: ignore[no-untyped-call]
        self._warm_up(lambda: compute(*given), self._side)
        try:
            self._graph, self._numbers = captured(lambda: compute(*given), self._side)
        except BaseException:
            self._no_gradients()
            raise
        self._images, self._target = given

    def _warm_up(self, compute: Callable[[], Tensor], side: torch.cuda.Stream) -> None:
        """Leaves no trace: a run that is gone on with records anew, and must come to the same weights."""
        buffers = list(self._network.buffers())
        before = [buffer.clone() for buffer in buffers]
        beside: list[list[object]] = []

        def watched() -> Tensor:
            beside.append(self._beside())
            self._no_gradients()
            return compute()

        try:
            with torch.random.fork_rng(devices=[self._device]):
                warmed(watched, side)
        finally:
            for buffer, kept in zip(buffers, before):
                buffer.copy_(kept)
            self._no_gradients()  # the recording's own are to be written over at every step, not added to
        if beside[-1] != beside[-2]:  # the first call may have set things up
            raise RuntimeError("the network draws random numbers in Python or counts its calls, so no two are alike")

    def _beside(self) -> list[object]:
        """What a call may depend on beside images and weights, and a recording would not see change."""
        chance = random.getstate(), repr(np.random.get_state()), torch.get_rng_state().numpy().tobytes()
        own = [
            (name, key, id(value) if isinstance(value, Tensor) else value)
            for name, module in self._network.named_modules()
            for key, value in sorted(vars(module).items())
            if isinstance(value, Tensor | bool | int | float | str)
        ]
        return [*chance, *own]

    def _no_gradients(self) -> None:
        for parameter in self._network.parameters():
            parameter.grad = None


def recorder_for(network: nn.Module, machine: Machine, processes: int) -> Recorder | None:
    """Where recording is of use: on a GPU, which one process has to itself (several talk in the middle of a step)."""
    return Recorder(network, machine.device) if machine.device.startswith("cuda") and processes == 1 else None
