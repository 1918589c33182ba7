"""The training loss: cross-entropy plus soft Dice. Knows nothing of networks.

The rule for classes and void: pixels of VOID count nowhere. Cross-entropy is the mean over the remaining pixels, each
counted by the weight of its class. Dice is taken per class over the whole batch, and averaged over the classes that the
batch's *truth* holds: a class that is absent from it has no Dice (predicting some of it is punished by the
cross-entropy).

Dice: Milletari et al. 2016, arXiv 1606.04797; summed over the batch, as small crops often lack a class.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch.autograd.function import once_differentiable

from whatwhere.records import VOID

__all__ = ["Losses", "counted_shares", "segmentation_loss"]

_PLACES = (0, 2, 3)
"""All axes but the classes'."""


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
    said, overlap, predicted, pixels = _everywhere(_Sums.apply(logits, target))  # type: ignore[no-untyped-call]
    counts = torch.ones_like(pixels) if weights is None else weights
    dice = _dice_loss(overlap, predicted, pixels) if dice_weight else torch.zeros_like(said[0])
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
    counted, classes = _truth(target)
    return counted.sum() if weights is None else (weights[classes] * counted).sum()


class _Sums(torch.autograd.Function):
    """All that the loss wants to know of a batch: ``(4, classes)`` sums over the pixels that count.

    For each class: the logarithm of what its own pixels give it, what they give it, what all give it, and their number.
    On a CPU an image at a time, which the processor's cache holds: torch's own way through products of whole batches
    waits for memory, and takes twice as long. Nothing here waits for a GPU, and there it always comes out alike, which
    counting does not.
    """

    @staticmethod
    def forward(ctx: Any, logits: Tensor, target: Tensor) -> Tensor:
        shares = torch.empty(logits.shape, device=logits.device)  # a plane a class: much faster than a row a pixel
        at_once = 1 if logits.device.type == "cpu" else len(logits)
        parts = zip(*(torch.split(whole, at_once) for whole in (logits, target, shares)), strict=True)
        sums = [_sums(some.float().contiguous().log_softmax(1), truth, into) for some, truth, into in parts]
        ctx.save_for_backward(shares, target)
        ctx.like, ctx.at_once = torch.empty_like(logits, device="meta"), at_once
        return torch.stack(sums).sum(0)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, given: Tensor) -> tuple[Tensor, None]:
        shares, target = ctx.saved_tensors
        found = torch.empty_like(ctx.like, device=shares.device)
        parts = zip(*(torch.split(whole, ctx.at_once) for whole in (shares, target, found)), strict=True)
        for some, truth, into in parts:
            into.copy_(_slope(given, some, truth))
        return found, None


def _sums(log_shares: Tensor, target: Tensor, shares: Tensor) -> Tensor:
    """The sums of :class:`_Sums`; leaves the exponential in ``shares``."""
    counted, classes = _truth(target)
    truth = torch.zeros_like(log_shares).scatter_(1, classes, counted)
    torch.exp(log_shares, out=shares)
    return torch.stack([
        (log_shares * truth).sum(_PLACES), (shares * truth).sum(_PLACES), (shares * counted).sum(_PLACES),
        truth.sum(_PLACES),
    ])  # fmt: skip


def _slope(given: Tensor, shares: Tensor, target: Tensor) -> Tensor:
    """The gradient of the logits from that of their sums: what each sum asks of the softmax, and the softmax's own."""
    of_log, of_own, of_all, _ = given
    counted, classes = _truth(target)
    to_log = of_log[classes] * counted
    to_own = of_own[classes] * counted * shares.gather(1, classes)
    to_all = (shares * of_all[:, None, None]).sum(1, keepdim=True) * counted
    slope = torch.addcmul(-(to_log + to_own + to_all), counted, of_all[:, None, None]).mul_(shares)
    return slope.scatter_add_(1, classes, to_log + to_own)


def _truth(target: Tensor) -> tuple[Tensor, Tensor]:
    """``(N, 1, H, W)`` each: 1 where a pixel counts and 0 where not, and its class (0 where it does not)."""
    counted = (target != VOID)[:, None]
    return counted.float(), target[:, None].where(counted, 0).long()


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
