"""The training loss: cross-entropy plus soft Dice. Knows nothing of networks.

The rule for classes and void: pixels of VOID count nowhere. Cross-entropy is the mean over the remaining pixels, each
counted by the weight of its class. Dice is taken per class over the whole batch, and averaged over the classes that the
batch's *truth* holds: a class that is absent from it has no Dice (predicting some of it is punished by the
cross-entropy).

Dice: Milletari et al. 2016, arXiv 1606.04797; summed over the batch, as small crops often lack a class.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.distributed as dist
from torch import Tensor
from torch.nn import functional as F

from whatwhere.records import VOID

__all__ = ["Losses", "counted_shares", "segmentation_loss"]


@dataclass(frozen=True)
class Losses:
    """``total`` to go backward from; ``cross_entropy`` and ``dice`` detached, to be shown."""

    total: Tensor
    cross_entropy: Tensor
    dice: Tensor


def segmentation_loss(
    logits: Tensor,
    target: Tensor,
    *,
    weights: Tensor | None = None,
    dice_weight: float = 1.0,
) -> Losses:
    """Cross-entropy + ``dice_weight`` * (1 - mean soft Dice).

    Under ``torch.distributed`` every process gets the loss of the *global* batch, scaled so that the mean of the
    processes' gradients (what DistributedDataParallel makes) is the gradient of the global loss.

    Args:
        logits: ``(N, classes, H, W)``.
        target: ``(N, H, W)`` uint8 class ids; VOID does not count.
        weights: ``(classes,)`` of each class's pixels in the cross-entropy; all 1 if None.
        dice_weight: 0 leaves cross-entropy alone.

    >>> perfect = 50 * F.one_hot(torch.tensor([[[0, 1]]]), 2).permute(0, 3, 1, 2).float()
    >>> round(float(segmentation_loss(perfect, torch.tensor([[[0, 1]]], dtype=torch.uint8)).total), 6)
    0.0
    """
    log_shares = logits.float().contiguous().log_softmax(1)  # a plane a class: many times faster than a row a pixel
    summed = F.nll_loss(log_shares, target.long(), weights, ignore_index=VOID, reduction="sum")
    cross_entropy = _everywhere(summed) / _everywhere(_weight_of(target, weights)).clamp_min(1e-6)
    if dice_weight == 0:
        return Losses(cross_entropy * _world(), cross_entropy.detach(), torch.zeros_like(cross_entropy))
    dice = _dice_loss(log_shares.exp(), target)
    total = (cross_entropy + dice_weight * dice) * _world()
    return Losses(total, cross_entropy.detach(), dice.detach())


def counted_shares(target: Tensor, parts: int, weights: Tensor | None = None) -> Tensor:
    """Of what counts in the cross-entropy of a (global) batch, the share that each of its ``parts`` holds."""
    counted = _everywhere(torch.stack([_weight_of(part, weights) for part in target.chunk(parts)]))
    return counted / counted.sum().clamp_min(1e-6)


def _weight_of(target: Tensor, weights: Tensor | None) -> Tensor:
    """The weights of all pixels that count, summed; their number where classes have none."""
    if weights is None:
        return (target != VOID).sum().float()
    return weights @ _pixels(target, weights.numel())


def _pixels(target: Tensor, classes: int) -> Tensor:
    """How many pixels each class has."""
    return torch.bincount(target.flatten(), minlength=VOID + 1)[:classes].float()


def _dice_loss(shares: Tensor, target: Tensor) -> Tensor:
    """1 - mean soft Dice of ``(N, classes, H, W)`` probabilities."""
    counted = (target != VOID)[:, None]
    classes = target.where(counted[:, 0], 0).long()[:, None]
    truth = torch.zeros_like(shares).scatter_(1, classes, counted.to(shares.dtype))
    axes = (0, 2, 3)
    sums = torch.stack([(shares * truth).sum(axes), (shares * counted).sum(axes), _pixels(target, shares.shape[1])])
    overlap, predicted, true = _everywhere(sums)
    present = true > 0
    dice = 2 * overlap / (predicted + true).clamp_min(1e-6)
    loss: Tensor = ((1 - dice) * present).sum() / present.sum().clamp_min(1)
    return loss


def _world() -> int:
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def _everywhere(local: Tensor) -> Tensor:
    """The sum over all processes, with the gradient of this process's own part."""
    if _world() == 1:
        return local
    total = local.detach().clone()
    dist.all_reduce(total)
    return local + (total - local.detach())
