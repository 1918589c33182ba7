"""What a backend is: a way to run a prepared network. Knows nothing of which is best."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass
from importlib.util import find_spec

import torch
from torch import Tensor, nn

from whatwhere.network.machine import layout

__all__ = ["Backend", "Job", "Run", "needs", "on_device"]

Run = Callable[[Tensor], Tensor]
"""``(N, C, h, w)`` float32 input to ``(N, classes, h, w)`` logits of any dtype, both on the job's device."""


@dataclass(frozen=True)
class Job:
    """What is to be run, and how precisely.

    Attributes:
        network: in evaluation mode, float32, on the CPU, batch norm folded; a backend leaves it as it is.
        example: ``(1, C, h, w)`` float32, small: enough to follow the network.
        precision: ``"float32"`` or ``"bfloat16"``: what convolutions compute in.
        device: where.
    """

    network: nn.Module
    example: Tensor
    precision: str
    device: torch.device

    @property
    def dtype(self) -> torch.dtype:
        return torch.bfloat16 if self.precision == "bfloat16" else torch.float32


@dataclass(frozen=True)
class Backend:
    """A way to run a network.

    Attributes:
        name: as on the command line.
        prepare: makes a network ready; raises whatever its library raises where it can't.
        lacks: what has to be installed before it can run on a kind of device (``"cpu"``); "" if nothing. Quick.
        remedy: how to install that.
        start: seconds that its start is expected to take, as long as it has not been measured.
        worth: seconds of a job from which on it is looked at: it must win back what comparing and timing it takes.
        devices: the kinds of devices that it runs on.
        precisions: what it computes in.
        any_shape: False where each new shape of tile costs another start.
        content: names the file that it runs in the network's place; "" where it runs the network.
        differs: says what is wrong with its logits beside float32's, or ""; None asks for equality to rounding.
        why: why it may be used though it computes something else, in words.
    """

    name: str
    prepare: Callable[[Job], Run]
    lacks: Callable[[str], str]
    remedy: str = ""
    start: float = 0.0
    worth: float = 8.0
    devices: tuple[str, ...] = ("cpu",)
    precisions: tuple[str, ...] = ("float32", "bfloat16")
    any_shape: bool = True
    content: str = ""
    differs: Callable[[Tensor, Tensor], str] | None = None
    why: str = ""


def needs(*modules: str) -> Callable[[str], str]:
    """Says which of these modules is not installed, without importing any."""

    def lacks(_device: str) -> str:
        missing = [module for module in modules if find_spec(module) is None]
        return f"the package {missing[0]}" if missing else ""

    return lacks


def on_device(job: Job) -> nn.Module:
    """A copy of the network on the job's device, in its precision and in the layout that suits it."""
    network = copy.deepcopy(job.network).to(device=job.device, dtype=job.dtype)
    # a type that torch's stubs lack
    return network.to(memory_format=layout(job.device.type))  # type: ignore[call-overload, no-any-return]
