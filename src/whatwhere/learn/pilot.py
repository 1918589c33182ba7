"""The pilot: can this plan learn a single small batch by heart? Seconds before the run, instead of hours after it.

A network that can't has a plan that can't work: a rate of zero, images that hold nothing, labels that are all void.
"""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from whatwhere.data.crops import Crops
from whatwhere.data.findings import many
from whatwhere.errors import TrainingError
from whatwhere.learn.plan import Plan
from whatwhere.learn.step import class_weights, make_optimizer, train_step
from whatwhere.network import Machine
from whatwhere.records import VOID

__all__ = ["Pilot", "fly_pilot", "pilot_side"]

_STEPS = 60
_MOST_STEPS = 4 * _STEPS
"""As long as the loss still falls: of many classes a narrow network takes longer to learn any."""
_WINDOW, _FALLS = 10, 0.97
"""It falls where the mean of so many steps is below this share of the mean of as many before."""
_SHARE = 0.2
"""Of a run's time the pilot may take; what it has not found out by then, it leaves open."""
_CROPS = 2
_SIDE = 96
_ENOUGH = 0.6
"""The loss must fall below this share of what it was,"""
_LOW = 0.5
"""or be as low as this: a network that is given may know it all already."""


@dataclass(frozen=True)
class Pilot:
    """What the pilot measured: the loss before and after ``steps`` on ``crops`` crops of ``side`` pixels.

    ``learnt`` is False where its time ran out before anything could be said.
    """

    before: float
    after: float
    steps: int
    seconds: float
    learnt: bool = True
    crops: int = _CROPS
    side: int = _SIDE

    def __str__(self) -> str:
        crops, steps = f"{self.crops} crops of {self.side} px", many(self.steps, "step")
        told = f"{crops} learnt by heart in {steps}" if self.learnt else f"there was time for {steps} on {crops}"
        return f"pilot: {told} ({self.seconds:.1f} s): loss {self.before:.2f} to {self.after:.2f}"


def fly_pilot(network: nn.Module, crops: Crops, plan: Plan, machine: Machine) -> Pilot:
    """Trains a copy of ``network`` on one batch; several processes all do the same.

    Raises:
        TrainingError: the loss did not fall, with the likeliest reason.
    """
    started = time.perf_counter()
    images, target = _batch(crops, plan)
    _check_batch(images, target)
    images, target = images.to(machine.device), target.to(machine.device)
    learner = copy.deepcopy(network).train()
    optimizer = make_optimizer(learner, plan.training)
    most_seconds = _SHARE * (plan.training.seconds or math.inf)
    losses: list[float] = []
    out_of_time = False
    while not losses or (_goes_on(losses) and not out_of_time):
        result = train_step(
            learner, optimizer, images, target,
            machine=machine, weights=class_weights(plan.training, machine), dice_weight=plan.training.dice_weight,
        )  # fmt: skip
        losses.append(result.loss)
        if not result.finite:
            raise TrainingError(
                f"the pilot's loss became {result.loss} after {len(losses)} steps",
                "a loss that falls",
                f"lower learning_rate (it is {plan.training.learning_rate:g}) or use precision = 'float32'",
            )
        out_of_time = time.perf_counter() - started > most_seconds
    learnt = _learnt(losses)
    if not learnt and not out_of_time:
        raise TrainingError(
            f"the pilot could not learn {_CROPS} crops by heart: loss {losses[0]:.3f} to {losses[-1]:.3f} in "
            f"{len(losses)} steps",
            f"a fall below {_ENOUGH:.0%}",
            f"check that images show what masks say, and learning_rate ({plan.training.learning_rate:g})",
        )
    seconds = time.perf_counter() - started
    return Pilot(losses[0], losses[-1], len(losses), seconds, learnt, side=pilot_side(plan))


def _learnt(losses: Sequence[float]) -> bool:
    return losses[-1] <= max(_LOW, _ENOUGH * losses[0])


def _goes_on(losses: Sequence[float]) -> bool:
    """Whether to take another step: as many as most need, and more while the loss falls and is not low enough."""
    if len(losses) < _STEPS:
        return losses[-1] >= 0.5 * _ENOUGH * losses[0]
    recent, before = sum(losses[-_WINDOW:]), sum(losses[-2 * _WINDOW : -_WINDOW])
    return len(losses) < _MOST_STEPS and not _learnt(losses) and recent < _FALLS * before


def pilot_side(plan: Plan) -> int:
    """Height and width of the pilot's crops in pixels."""
    return min(_SIDE, plan.training.crop)


def _batch(crops: Crops, plan: Plan) -> tuple[Tensor, Tensor]:
    """Plain crops, the richest in classes out of a few, so that there is something to tell apart."""
    still = replace(plan.augmentation, warp=0, brightness=0, contrast=0, color=0, blur=0, noise=0)
    plain = replace(crops, crop=pilot_side(plan), augmentation=still, class_aware=1.0)
    pairs = [plain.crop_number(number) for number in range(8)]
    pairs.sort(key=lambda pair: _richness(pair[1]), reverse=True)
    return torch.stack([image for image, _ in pairs[:_CROPS]]), torch.stack([labels for _, labels in pairs[:_CROPS]])


def _richness(labels: Tensor) -> float:
    """Entropy of the class shares."""
    counts = torch.bincount(labels[labels != VOID].flatten().long()).float()
    shares = counts[counts > 0] / counts.sum().clamp_min(1)
    return float(-(shares * shares.log()).sum())


def _check_batch(images: Tensor, target: Tensor) -> None:
    if bool((target == VOID).all()):
        raise TrainingError("every label of the pilot's crops is void", "pixels with a class", "check void in the plan")
    if float(images.std()) < 1e-6 and _richness(target) > 0:
        raise TrainingError(
            "the pilot's images are constant while their labels differ",
            "images that show what the masks say",
            "look at the images: they may be black, or the normalisation may be wrong",
        )
