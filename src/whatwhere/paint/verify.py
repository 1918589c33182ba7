"""Whether a backend computes what the network computes: its logits beside float32's, on pixels of the user's own."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

__all__ = [
    "HOPELESS",
    "Agreement",
    "agreement",
    "contending",
    "difference",
    "equal_but_for_rounding",
    "furthest",
    "labels_alike",
    "largest",
    "spread",
]

_BOUND = {"float32": 1e-3, "bfloat16": 0.05}
"""Root mean square difference, as a share of the logits' spread, that rounding may cause: bfloat16 has 8 bits, and some
twenty layers add up to 1 or 2 % of the spread in trained networks."""

HOPELESS = 16.0
"""Below a pixel's best logit it is all one by how much more: the probability is under 1e-7."""

_ALIKE = 0.95
"""Where fewer labels are equal, what separates the classes everywhere does not count: a class that is far below all
others would let pass what garbles these."""

_SURE = 10.0
"""A label must not change where its margin is so many times the bound: rounding that large does not occur."""


@dataclass(frozen=True)
class Agreement:
    """How far logits are from float32's.

    Attributes:
        difference: root mean square difference.
        bound: the most that is taken for rounding.
        changed: pixels whose label changed although its margin is far beyond the bound.
        finite: no NaN, and no infinity where float32 has another value.
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
    apart, floor = spread(reference), 1e-6 * largest(contending(reference, reference)[0])
    bound = max(_BOUND[precision] * apart, 2 * usual, floor)
    if labels_alike(reference, logits) < _ALIKE:
        bound = max(bound * min(1.0, _within_classes(reference) / max(apart, 1e-12)), floor)
    changed = _surely_changed(reference, logits, bound)
    return Agreement(difference(reference, logits), bound, changed, _same_infinities(reference, logits))


# ---- a class that is switched off has -inf everywhere: that is equal or not, and numbers are measured without it


def contending(reference: Tensor, logits: Tensor) -> tuple[Tensor, Tensor]:
    """Both, with what is hopeless by the first raised to where hopeless begins, in both.

    A class that is switched off by -1e9 would be all that is measured else. One class alone has nothing to be below.
    """
    if reference.ndim < 2 or reference.shape[1] == 1:
        return reference, logits
    floor = reference.amax(1, keepdim=True) - HOPELESS
    return torch.maximum(reference, floor), torch.maximum(logits, floor)


def difference(reference: Tensor, logits: Tensor) -> float:
    """Root mean square difference of what is not hopeless, where the first is no infinity."""
    told = ~reference.isinf()
    one, other = contending(reference, logits)
    return float((one[told] - other[told]).square().mean().sqrt())


def furthest(reference: Tensor, logits: Tensor) -> float:
    """Their largest absolute difference; equal infinities do not differ."""
    return float(torch.where(reference == logits, 0.0, reference - logits).abs().max())


def spread(logits: Tensor) -> float:
    """The standard deviation of what is not hopeless, without infinities."""
    return float(contending(logits, logits)[0][~logits.isinf()].std())


def _within_classes(logits: Tensor) -> float:
    """As `spread`, of a class over its pixels: the median of those classes that vary at all."""
    found, _ = contending(logits, logits)
    each = found.movedim(1, 0).flatten(1)
    varying = [float(one.std()) for one, raw in zip(each, logits.movedim(1, 0).flatten(1)) if not raw.isinf().any()]
    varying = sorted(one for one in varying if one > 1e-6)
    return varying[len(varying) // 2] if varying else 0.0


def largest(values: Tensor) -> float:
    """Their largest absolute value, without infinities and NaN."""
    return float(values.nan_to_num(0.0, 0.0, 0.0).abs().max())


def equal_but_for_rounding(before: Tensor, after: Tensor, tolerance: float) -> bool:
    """Whether two results of one shape differ by at most so large a share of their own root mean square."""
    told = contending(before, before)[0][~before.isinf()]
    own = float(told.square().mean().sqrt())
    return _same_infinities(before, after) and difference(before, after) <= tolerance * own


def _same_infinities(reference: Tensor, logits: Tensor) -> bool:
    """Whether all is finite but the infinities of the first, which are in both."""
    off = reference.isinf()
    return bool((reference[off] == logits[off]).all() and logits[~off].isfinite().all())


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
    if reference.shape != logits.shape or not _same_infinities(reference.float(), logits.float()):
        return 0.0
    return float((_labels(reference) == _labels(logits)).float().mean())


def _labels(logits: Tensor) -> Tensor:
    return logits[:, 0] > 0 if logits.shape[1] == 1 else logits.argmax(1)
