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
        logits: ``(N, classes, H, W)``, finite.
        target: ``(N, H, W)`` uint8 class ids; VOID does not count.
        weights: ``(classes,)`` of each class's pixels in the cross-entropy; all 1 if None.
        dice_weight: 0 leaves cross-entropy alone.

    >>> perfect = 50 * torch.nn.functional.one_hot(torch.tensor([[[0, 1]]]), 2).permute(0, 3, 1, 2).float()
    >>> round(float(segmentation_loss(perfect, torch.tensor([[[0, 1]]], dtype=torch.uint8)).total), 6)
    0.0
    """
    log_shares = logits.float().contiguous().log_softmax(1)  # a plane a class: many times faster than a row a pixel
    truth = _planes(target, log_shares)
    axes = (0, 2, 3)
    said, pixels = (log_shares * truth).sum(axes), truth.sum(axes)
    counts = torch.ones_like(pixels) if weights is None else weights
    if dice_weight == 0:
        said, pixels = _everywhere(torch.stack([said, pixels]))
        dice = torch.zeros_like(said[0])
    else:
        shares = log_shares.exp()
        overlap, predicted = (shares * truth).sum(axes), (shares * (target != VOID)[:, None]).sum(axes)
        said, pixels, overlap, predicted = _everywhere(torch.stack([said, pixels, overlap, predicted]))
        dice = _dice_loss(overlap, predicted, pixels)
    cross_entropy = -(counts @ said) / (counts @ pixels).clamp_min(1e-6)
    total = (cross_entropy + dice_weight * dice) * _world()
    return Losses(total, cross_entropy.detach(), dice.detach())


def counted_shares(target: Tensor, parts: int, weights: Tensor | None = None) -> Tensor:
    """Of what counts in the cross-entropy of a (global) batch, the share that each of its ``parts`` holds."""
    if parts == 1:
        return torch.ones(1, device=target.device)
    counted = _everywhere(torch.stack([_weight_of(part, weights) for part in target.chunk(parts)]))
    return counted / counted.sum().clamp_min(1e-6)


def _weight_of(target: Tensor, weights: Tensor | None) -> Tensor:
    """The weights of all pixels that count, summed; their number where classes have none."""
    counted = target != VOID
    if weights is None:
        return counted.sum().float()
    return (weights[target.where(counted, 0).long()] * counted).sum()


def _planes(target: Tensor, like: Tensor) -> Tensor:
    """``(N, classes, H, W)``: 1 where each class is; nowhere where the target is void.

    Sums over it wait for no GPU and always come out alike, which counting and picking single pixels there do not.
    """
    counted = (target != VOID)[:, None]
    classes = target[:, None].where(counted, 0).long()
    return torch.zeros_like(like).scatter_(1, classes, counted.to(like.dtype))


def _dice_loss(overlap: Tensor, predicted: Tensor, true: Tensor) -> Tensor:
    """1 - mean soft Dice, of ``(classes,)`` sums over the batch."""
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
