"""One optimisation step: forward, loss, backward, update. Knows nothing of data sets, clocks or files."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from whatwhere.learn.loss import segmentation_loss
from whatwhere.learn.plan import TrainingPlan
from whatwhere.network import Machine

__all__ = ["StepResult", "make_optimizer", "rate_at", "train_step"]

_CLIP = 5.0
"""Gradients longer than this are shortened: one strange crop must not throw the weights away."""


@dataclass(frozen=True)
class StepResult:
    """What a step measured; ``finite`` is False if loss or gradients overflowed, and then nothing was updated."""

    loss: float
    cross_entropy: float
    dice: float
    finite: bool


def make_optimizer(network: nn.Module, plan: TrainingPlan) -> torch.optim.Optimizer:
    """AdamW (arXiv 1711.05101); weight decay on the convolutions' weights alone."""
    decayed = [p for p in network.parameters() if p.ndim > 1]
    free = [p for p in network.parameters() if p.ndim <= 1]
    groups = [{"params": decayed, "weight_decay": plan.weight_decay}, {"params": free, "weight_decay": 0.0}]
    return torch.optim.AdamW(groups, lr=plan.learning_rate, fused=True)


def rate_at(progress: float, plan: TrainingPlan) -> float:
    """Learning rate after this share of the run: a linear rise, then half a cosine down to zero (arXiv 1608.03983)."""
    if progress < plan.warmup:
        return plan.learning_rate * (progress / plan.warmup * 0.95 + 0.05)
    rest = (progress - plan.warmup) / max(1e-9, 1 - plan.warmup)
    return plan.learning_rate * 0.5 * (1 + math.cos(math.pi * min(1.0, rest)))


def train_step(
    network: nn.Module,
    optimizer: torch.optim.Optimizer,
    images: Tensor,
    target: Tensor,
    *,
    machine: Machine,
    dice_weight: float = 1.0,
    accumulate: int = 1,
) -> StepResult:
    """Updates ``network`` once. ``images`` ``(N, C, H, W)`` float32, ``target`` ``(N, H, W)`` uint8."""
    optimizer.zero_grad(set_to_none=True)
    parts = torch.zeros(3, device=images.device)
    for index, (some, truth) in enumerate(_parts(images, target, accumulate)):
        last = index == accumulate - 1
        with _together(network, last), _autocast(machine):
            logits = network(some.contiguous(memory_format=torch.channels_last))
        losses = segmentation_loss(logits, truth, dice_weight=dice_weight)
        (losses.total / accumulate).backward()  # type: ignore[no-untyped-call]
        parts += torch.stack([losses.total.detach(), losses.cross_entropy, losses.dice.to(images.device)]) / accumulate
    length = nn.utils.clip_grad_norm_(network.parameters(), _CLIP, foreach=True)
    loss, cross_entropy, dice, norm = torch.cat([parts, length.reshape(1)]).tolist()
    finite = math.isfinite(loss) and math.isfinite(norm)
    if finite:
        optimizer.step()
    return StepResult(loss, cross_entropy, dice, finite)


def _parts(images: Tensor, target: Tensor, count: int) -> Iterator[tuple[Tensor, Tensor]]:
    yield from zip(images.chunk(count), target.chunk(count))


def _together(network: nn.Module, last: bool) -> nullcontext[None]:
    """Processes exchange gradients once a step, not once a part."""
    if isinstance(network, DistributedDataParallel) and not last:
        return network.no_sync()  # type: ignore[return-value]
    return nullcontext()


def _autocast(machine: Machine) -> torch.autocast:
    kind = torch.device(machine.device).type
    return torch.autocast(kind, machine.dtype, enabled=machine.dtype != torch.float32)
