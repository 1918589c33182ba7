"""Several processes that train one network: ``torchrun --nproc-per-node N -m whatwhere train ...``.

Each makes its part of every global batch; gradients are averaged. Knows nothing of data or losses.
"""

from __future__ import annotations

import math
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta

import torch
import torch.distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from whatwhere.errors import PlanError
from whatwhere.learn.plan import TrainingPlan
from whatwhere.network import Machine

__all__ = ["World", "crop_threads", "joined", "processes_here", "wrapped"]

_CROP_THREADS = 2

_PATIENCE = timedelta(hours=6)
"""The others wait for the first process while it judges all validation images; NCCL's own limit is ten minutes."""


@dataclass(frozen=True)
class World:
    """The place of this process among all: ``rank`` of ``size``."""

    rank: int = 0
    size: int = 1

    @property
    def leads(self) -> bool:
        """Only the first process judges, writes and speaks."""
        return self.rank == 0

    def device(self, asked: str) -> str:
        """Where this process computes: of several on GPUs, each has one of its own, whichever the plan names."""
        own = self.size > 1 and asked.startswith("cuda") and torch.cuda.is_available()
        return f"cuda:{torch.cuda.current_device()}" if own else asked

    def agree(self, *values: float) -> tuple[float, ...]:
        """The first process's values, in every process: clocks differ, and all must stop at the same step."""
        if self.size == 1:
            return values
        shared = torch.tensor(values, dtype=torch.float64)
        dist.broadcast(shared, 0)  # on the CPU, by gloo, also where gradients go by NCCL
        return tuple(shared.tolist())

    def check_batch(self, plan: TrainingPlan) -> None:
        """``PlanError`` if the processes can't share a batch evenly."""
        if plan.batch % (self.size * plan.accumulate):
            raise PlanError(
                f"batch = {plan.batch} and accumulate = {plan.accumulate} for {self.size} processes",
                f"a batch that divides by {self.size * plan.accumulate}",
                "change training.batch in the plan",
            )

    def parts(self, batch: int, accumulate: int) -> int:
        """In how many parts a process makes its share of a batch that one process made in so many, none larger.

        >>> World(0, 2).parts(8, 8)
        4
        """
        return math.gcd(accumulate, batch // self.size)


def processes_here() -> int:
    """How many that torchrun started share this machine."""
    return int(os.environ.get("LOCAL_WORLD_SIZE", "1"))


def crop_threads(machine: Machine) -> int:
    """How many threads make crops: one beside a network that takes all cores, two beside one on a GPU.

    More would keep the thread that sends the network's work from Python.
    """
    return 1 if machine.device == "cpu" else max(1, min(_CROP_THREADS, machine.cores // (2 * processes_here())))


@contextmanager
def joined() -> Iterator[World]:
    """Joins the other processes that torchrun started, if it did."""
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        yield World()
        return
    cuda = torch.cuda.is_available()
    if cuda:
        own, there = int(os.environ.get("LOCAL_RANK", "0")), torch.cuda.device_count()
        if own >= there:
            raise PlanError(
                f"process {own + 1} of this machine", f"at most {there}, one a GPU", f"use --nproc-per-node {there}"
            )
        torch.cuda.set_device(own)
    dist.init_process_group("cpu:gloo,cuda:nccl" if cuda else "gloo", timeout=_PATIENCE)
    try:
        yield World(dist.get_rank(), dist.get_world_size())
        dist.barrier()  # a process that ends while another still talks to it is aborted
    finally:
        dist.destroy_process_group()


def wrapped(network: nn.Module, world: World, machine: Machine, *, known: bool = True) -> nn.Module:
    """The network whose gradients are averaged over all processes; batch norm is synchronised on GPUs.

    One that is not ``known`` may have weights that no logit depends on.
    """
    if world.size == 1:
        return network
    if machine.device.startswith("cuda"):
        # timm's norms hold their activation, which torch's own conversion would lose
        theirs = getattr(sys.modules.get("timm.layers"), "convert_sync_batchnorm", None)
        network = (theirs or nn.SyncBatchNorm.convert_sync_batchnorm)(network)
        places = [torch.cuda.current_device()]
        return DistributedDataParallel(network, device_ids=places, find_unused_parameters=not known)
    return DistributedDataParallel(network, find_unused_parameters=not known)
