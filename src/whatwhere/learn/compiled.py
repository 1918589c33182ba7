"""The network's code compiled by torch for the GPU that it learns on, where a run is long enough to earn that back.

On CPUs nothing is gained: `bench/compiled_step.py`. Knows nothing of steps.
"""

from __future__ import annotations

from importlib.util import find_spec

import torch
from torch import nn

from whatwhere.learn.plan import TrainingPlan
from whatwhere.network import Machine

__all__ = ["compiled", "uncompiled"]

_LONG = 600.0
"""Seconds of a run that compiling, about a minute, is little of."""

_MANY = 5000
"""Steps, where no time is set."""


def compiled(network: nn.Module, plan: TrainingPlan, machine: Machine, steps: int, *, known: bool = True) -> nn.Module:
    """The network as its steps are to call it: compiled if the plan says so, or by `"auto"` if that pays.

    Args:
        network: with whose weights both ways learn.
        plan: its ``compiled`` decides.
        machine: what it learns on.
        steps: of the run, where no time is set.
        known: one of whatwhere's own; code that is given may be compiled anew at every step, and is only if asked.
    """
    long = plan.seconds >= _LONG if plan.seconds is not None else steps >= _MANY
    pays = known and long and machine.device.startswith("cuda") and find_spec("triton") is not None
    if plan.compiled == "no" or (plan.compiled == "auto" and not pays):
        return network
    return torch.compile(network, dynamic=False)  # type: ignore[return-value]  # a module for a module


def uncompiled(network: nn.Module) -> nn.Module | None:
    """What was compiled, as it was before; None for what was not."""
    found: nn.Module | None = getattr(network, "_orig_mod", None)
    return found
