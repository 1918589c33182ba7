"""One optimisation step: forward, loss, backward, update. Knows nothing of data sets, clocks or files."""

from __future__ import annotations

import math
import random
from collections.abc import Collection
from contextlib import nullcontext
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from whatwhere.learn.loss import counted_shares, segmentation_loss
from whatwhere.learn.plan import TrainingPlan
from whatwhere.learn.recorded import Recorder
from whatwhere.network import Machine
from whatwhere.network.machine import layout
from whatwhere.network.quick import forgone, quickly

__all__ = ["StepResult", "autocast", "class_weights", "cooled", "make_optimizer", "rate_at", "set_rate", "train_step"]

_CLIP = 5.0
"""Gradients longer than this are shortened: one strange crop must not throw the weights away."""


@dataclass(frozen=True)
class StepResult:
    """What a step measured; ``finite`` is False if loss or gradients overflowed, and then nothing was updated."""

    loss: float
    cross_entropy: float
    dice: float
    finite: bool


def make_optimizer(
    network: nn.Module, plan: TrainingPlan, learnt: Collection[nn.Parameter] = ()
) -> torch.optim.Optimizer:
    """AdamW (arXiv 1711.05101); weight decay on the convolutions' weights alone.

    Parameters in ``learnt`` come with weights from elsewhere and get ``plan.encoder_rate`` of the learning rate.
    """
    known = {id(parameter) for parameter in learnt}
    shares = {False: 1.0, True: plan.encoder_rate}
    groups: dict[tuple[bool, bool], list[nn.Parameter]] = {}
    for parameter in network.parameters():
        groups.setdefault((id(parameter) in known, parameter.ndim > 1), []).append(parameter)
    settings = [
        {"params": parameters, "weight_decay": plan.weight_decay if decays else 0.0, "share": shares[slow]}
        for (slow, decays), parameters in sorted(groups.items(), key=lambda item: (item[0][0], not item[0][1]))
    ]
    return torch.optim.AdamW(settings, lr=plan.learning_rate, fused=True)


def class_weights(plan: TrainingPlan, machine: Machine) -> Tensor | None:
    """The plan's weights of classes as the loss takes them."""
    return torch.tensor(plan.class_weights, device=machine.device) if plan.class_weights else None


def set_rate(optimizer: torch.optim.Optimizer, rate: float) -> None:
    """The learning rate of every part."""
    for group in optimizer.param_groups:
        group["lr"] = rate * group["share"]


def rate_at(progress: float, plan: TrainingPlan) -> float:
    """Learning rate after this share of the run: a linear rise, a level, and half a cosine down to zero.

    Cosine: Loshchilov & Hutter 2017, arXiv 1608.03983. Level: Haegele et al. 2024, arXiv 2405.18392.
    """
    if progress < plan.warmup:
        return plan.learning_rate * (progress / plan.warmup * 0.95 + 0.05)
    return plan.learning_rate * cooled(progress, plan)


def cooled(progress: float, plan: TrainingPlan) -> float:
    """The share of its height that the learning rate has kept when it falls: 1 until then, 0 at the end."""
    level = max(plan.warmup, 1 - plan.cooldown)
    fallen = (progress - level) / max(1e-9, 1 - level)
    return 0.5 * (1 + math.cos(math.pi * min(1.0, max(0.0, fallen))))


def train_step(
    network: nn.Module,
    optimizer: torch.optim.Optimizer,
    images: Tensor,
    target: Tensor,
    *,
    machine: Machine,
    weights: Tensor | None = None,
    dice_weight: float = 1.0,
    accumulate: int = 1,
    recorder: Recorder | None = None,
) -> StepResult:
    """Updates ``network`` once.

    Args:
        network: in training mode; may be wrapped for several processes.
        optimizer: of its parameters.
        images, target: ``(N, C, H, W)`` float32 and ``(N, H, W)`` uint8.
        machine: where it runs, and in which precision.
        weights, dice_weight: see :func:`segmentation_loss`.
        accumulate: the batch is computed in this many parts, which saves memory. The cross-entropy is that of the whole
            batch; Dice and batch norm are those of each part.
        recorder: plays what it has recorded of an earlier step with the same arguments.
    """

    def compute(images: Tensor, target: Tensor) -> Tensor:
        return _gradients(network, images, target, machine, weights, dice_weight, accumulate)

    def afresh() -> StepResult:
        optimizer.zero_grad(set_to_none=True)
        return _updated(optimizer, compute(images, target))

    if recorder is not None:
        return _updated(optimizer, recorder(compute, images, target))
    chance, pythons, numpys = torch.get_rng_state(), random.getstate(), np.random.get_state()
    buffers = [buffer.clone() for buffer in network.buffers()] if images.device.type == "cpu" else []
    try:
        return afresh()
    except RuntimeError as error:
        if not forgone(network, error):
            raise
    # as if it had not been tried: a run that is gone on with tries it at another step
    torch.set_rng_state(chance)
    random.setstate(pythons)
    np.random.set_state(numpys)
    for buffer, before in zip(network.buffers(), buffers):
        buffer.copy_(before)
    return afresh()


def _gradients(
    network: nn.Module,
    images: Tensor,
    target: Tensor,
    machine: Machine,
    weights: Tensor | None,
    dice_weight: float,
    accumulate: int,
) -> Tensor:
    """Leaves the weights' gradients, clipped; returns loss, cross-entropy, Dice loss and the gradient's length."""
    parts = torch.zeros(3, device=images.device)
    shares = counted_shares(target, accumulate, weights)
    for index, (some, truth) in enumerate(zip(images.chunk(accumulate), target.chunk(accumulate))):
        quick = quickly(network, images.device.type)
        with _together(network, last=index == accumulate - 1), autocast(machine), quick:
            logits = network(some.contiguous(memory_format=layout(machine.device)))
        losses = segmentation_loss(logits, truth, weights=weights, dice_weight=dice_weight)
        (losses.total * shares[index]).backward()  # type: ignore[no-untyped-call]
        found = losses.cross_entropy + dice_weight * losses.dice, losses.cross_entropy, losses.dice
        parts += torch.stack(found) * shares[index]
    length = nn.utils.clip_grad_norm_(network.parameters(), _CLIP)
    return torch.cat([parts, length.reshape(1)])


def _updated(optimizer: torch.optim.Optimizer, numbers: Tensor) -> StepResult:
    """Moves the weights, if all is finite."""
    loss, cross_entropy, dice, length = numbers.tolist()
    finite = math.isfinite(loss) and math.isfinite(length)
    if finite:
        optimizer.step()
    return StepResult(loss, cross_entropy, dice, finite)


def _together(network: nn.Module, *, last: bool) -> nullcontext[None]:
    """Processes exchange gradients once a step, not once a part."""
    if isinstance(network, DistributedDataParallel) and not last:
        return network.no_sync()  # type: ignore[return-value]
    return nullcontext()


def autocast(machine: Machine) -> torch.autocast:
    """In which a network learns in the machine's precision."""
    kind = torch.device(machine.device).type
    return torch.autocast(kind, machine.dtype, enabled=machine.dtype != torch.float32)
