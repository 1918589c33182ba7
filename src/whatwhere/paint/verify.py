"""Whether a backend computes what the network computes: its logits beside float32's, on pixels of the user's own."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

__all__ = ["Agreement", "agreement", "labels_alike"]

_BOUND = {"float32": 1e-3, "bfloat16": 0.05}
"""Root mean square difference, as a share of the logits' spread, that rounding may cause: bfloat16 has 8 bits, and some
twenty layers add up to 1 or 2 % of the spread in trained networks."""

_SURE = 10.0
"""A label must not change where its margin is so many times the bound: rounding that large does not occur."""


@dataclass(frozen=True)
class Agreement:
    """How far logits are from float32's.

    Attributes:
        difference: root mean square difference.
        bound: the most that is taken for rounding.
        changed: pixels whose label changed although its margin is far beyond the bound.
        finite: no NaN, no infinity.
    """

    difference: float
    bound: float
    changed: int
    finite: bool

    @property
    def passed(self) -> bool:
        return self.finite and self.difference <= self.bound and not self.changed

    def __str__(self) -> str:
        if not self.finite:
            return "its logits are not all finite"
        if self.difference > self.bound:
            return (
                f"its logits differ from float32's by {self.difference:.2g}, where {self.bound:.2g} would be rounding"
            )
        return f"{self.changed} labels differ from float32's" if self.changed else "equal to rounding"


def agreement(reference: Tensor, logits: Tensor, precision: str, *, usual: float = 0.0) -> Agreement:
    """Compares ``(N, classes, h, w)`` logits with float32's.

    Args:
        reference: by the network as given, in float32.
        logits: of the same input.
        precision: what they were computed in.
        usual: the difference that PyTorch itself makes in that precision; twice as much is taken for rounding.
    """
    if reference.shape != logits.shape:
        return Agreement(float("inf"), 0.0, reference[:, 0].numel(), True)
    reference, logits = reference.float().cpu(), logits.float().cpu()
    difference = float((reference - logits).square().mean().sqrt())
    bound = max(_BOUND[precision] * float(reference.std()), 2 * usual, 1e-6 * float(reference.abs().max()))
    return Agreement(difference, bound, _surely_changed(reference, logits, bound), bool(torch.isfinite(logits).all()))


def _surely_changed(reference: Tensor, logits: Tensor, bound: float) -> int:
    """Pixels whose best class is another one, though it led by far."""
    if reference.shape[1] == 1:
        margin = reference[:, 0].abs()
    else:
        best = reference.topk(2, dim=1).values
        margin = best[:, 0] - best[:, 1]
    return int(((_labels(reference) != _labels(logits)) & (margin > _SURE * bound)).sum())


def labels_alike(reference: Tensor, logits: Tensor) -> float:
    """The share of pixels that get the same label by both ``(N, classes, h, w)`` logits; 0 for what is no logits."""
    if reference.shape != logits.shape or not torch.isfinite(logits).all():
        return 0.0
    return float((_labels(reference) == _labels(logits)).float().mean())


def _labels(logits: Tensor) -> Tensor:
    return logits[:, 0] > 0 if logits.shape[1] == 1 else logits.argmax(1)
