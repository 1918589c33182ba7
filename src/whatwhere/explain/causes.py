"""Causes of a black, wrong or blocky painting: one check each, in plain words.

Each check looks for one cause and says what it measured whether it found it or not. A finding is a suspicion with
numbers behind it, not a proof. Knows what was measured already; nothing of training.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.ndimage import gaussian_gradient_magnitude
from scipy.optimize import linear_sum_assignment
from torch import Tensor, nn

from whatwhere.explain.anatomy import Anatomy, Path
from whatwhere.explain.cases import Case
from whatwhere.explain.measured import Measured
from whatwhere.explain.objects import ObjectSize
from whatwhere.explain.skips import Worths
from whatwhere.explain.study import Study
from whatwhere.judge import Scores
from whatwhere.judge.boundaries import contour
from whatwhere.network import Model
from whatwhere.records import VOID

__all__ = ["ALWAYS", "WITH_TRUTH", "Diagnosis", "Evidence", "Findings"]

Array = NDArray[Any]


@dataclass(frozen=True)
class Diagnosis:
    """One cause that was looked for.

    Attributes:
        cause: its short name.
        found: whether the measurements speak for it.
        words: what was measured, and what it means.
        remedy: what to do; empty if it was not found.
        numbers: what was measured.
    """

    cause: str
    found: bool
    words: str
    remedy: str = ""
    numbers: dict[str, float] = field(default_factory=dict)

    def __str__(self) -> str:
        return f"{self.cause}: {self.words}" + (f" {self.remedy}" if self.remedy else "")

    def to_json(self) -> dict[str, Any]:
        return dict(vars(self))


@dataclass(frozen=True, eq=False)
class Findings:
    """What was measured before.

    Attributes:
        what, where: of the network's own answer; None where the labels do not ask.
        chance: of *what*.
        window: px, side of what an output pixel can see; None if unbounded.
        skips, objects, truth: see `Explanation`.
    """

    what: Measured | None
    where: Measured | None
    chance: float
    skips: Worths
    window: int | None
    objects: tuple[ObjectSize, ...]
    truth: bool


@dataclass(frozen=True, eq=False)
class Evidence:
    """What the checks look at, computed once.

    Attributes:
        scores: of the paintings, edges within 1 px; loose: within 4 px.
        paintings: ``H x W`` class ids.
        chances: ``(classes, classes)``, mean probability of each class (column) on pixels of each class (row).
    """

    model: Model
    anatomy: Anatomy
    cases: Sequence[Case]
    study: Study
    measured: Findings
    scores: Scores
    loose: Scores
    paintings: Sequence[NDArray[np.uint8]]
    chances: Array


_FEW_PIXELS = 20
"""Fewer pixels of a class say nothing of it."""

_HALF_KNOWN = 0.25
"""Mean probability on its own pixels from which on a class is known, though never painted: `starved` tells why."""


def never_painted(seen: Evidence) -> Diagnosis:
    """A class that is in the masks, but that the network never paints."""
    names = seen.model.classes.names
    truth, painted = seen.scores.confusion.sum(1), seen.scores.confusion.sum(0)
    own = np.diagonal(seen.chances)
    lost = [
        c for c in range(len(names))
        if truth[c] >= _FEW_PIXELS and painted[c] < 0.001 * truth[c] and own[c] < _HALF_KNOWN
    ]  # fmt: skip
    numbers = {
        f"mean probability of {names[c]} on its own pixels": float(own[c]) for c in range(len(names)) if truth[c]
    }
    if not lost:
        return Diagnosis("class never painted", False, "Every class of the masks is painted somewhere.", "", numbers)
    said = " and ".join(repr(names[c]) for c in lost)
    return Diagnosis(
        "class never painted",
        True,
        f"{said} is in the masks but is never painted; on its own pixels it gets a mean probability of "
        f"{max(own[c] for c in lost):.2g}. The network behaves as if it had never been shown it.",
        "Check that the training masks hold it and how their values are mapped (whatwhere check), train longer, and "
        "raise class_aware (crops chosen by class) and class_weights in the plan.",
        numbers,
    )


def starved(seen: Evidence) -> Diagnosis:
    """A rare class that the network half knows, but hardly ever dares to paint."""
    names, confusion = seen.model.classes.names, seen.scores.confusion
    truth, painted = confusion.sum(1).astype(float), confusion.sum(0)
    right = np.diagonal(confusion).astype(float)
    recall = np.divide(right, truth, out=np.ones(len(truth)), where=truth > 0)
    share = truth / max(1.0, truth.sum())
    own = np.diagonal(seen.chances)
    elsewhere = [
        float((truth * seen.chances[:, c])[np.arange(len(truth)) != c].sum() / max(1, truth.sum() - truth[c]))
        for c in range(len(truth))
    ]
    poor = [
        c
        for c in range(len(names))
        if truth[c] > 0
        and share[c] < 0.1
        and recall[c] < 0.5
        and (painted[c] >= 0.001 * truth[c] or own[c] >= _HALF_KNOWN)
        and own[c] > 3 * elsewhere[c]
    ]
    numbers = {f"recall of {name}": float(recall[c]) for c, name in enumerate(names) if truth[c]}
    if not poor:
        return Diagnosis("one class starved", False, "No rare class is half known and left unpainted.", "", numbers)
    worst = min(poor, key=lambda c: recall[c])
    return Diagnosis(
        "one class starved",
        True,
        f"{names[worst]!r} has {share[worst]:.1%} of the pixels. The network gives it {own[worst]:.2f} on its own "
        f"pixels, {own[worst] / max(elsewhere[worst], 1e-9):.0f} times as much as elsewhere, so it knows something "
        f"of it; yet it paints only {recall[worst]:.0%} of them.",
        "Raise class_aware in the plan, or dice_weight, so that the class counts for more.",
        numbers,
    )


def inverted(seen: Evidence) -> Diagnosis:
    """Classes painted under each other's names."""
    names, confusion = seen.model.classes.names, seen.scores.confusion.astype(float)
    union = confusion.sum(1)[:, None] + confusion.sum(0)[None, :] - confusion
    overlap = np.divide(confusion, union, out=np.zeros_like(union), where=union > 0)
    rows, columns = linear_sum_assignment(-overlap)
    present = confusion.sum(1) > 0
    now = float(np.diagonal(overlap)[present].mean())
    best = float(overlap[rows, columns][present].mean())
    swapped = [(r, c) for r, c in zip(rows, columns) if r != c and overlap[r, c] > 0.3]
    numbers = {"mean IoU as painted": now, "mean IoU with classes renamed": best}
    if best - now < 0.2 or not swapped:
        words = f"No renaming of the classes would fit the masks better (mean IoU {now:.2f}, best {best:.2f})."
        return Diagnosis("mapping inverted", False, words, "", numbers)
    said = ", ".join(f"{names[r]!r} is painted as {names[c]!r}" for r, c in swapped)
    return Diagnosis(
        "mapping inverted",
        True,
        f"{said}. With the classes renamed so, mean IoU would be {best:.2f} instead of {now:.2f}: the regions are "
        "right and their names are not.",
        "Compare the mask values of the training data and of these masks (whatwhere check shows the mapping).",
        numbers,
    )


def normalisation(seen: Evidence) -> Diagnosis:
    """Images that reach the network in other units than those it was trained on."""
    shift, ratio = _first_norm_shift(seen)
    values = torch.cat([case.image.flatten(2) for case in seen.cases], 2)[0]
    mean, std = float(values.mean(1).abs().max()), values.std(1)
    numbers = {"largest mean of a channel": mean, "smallest deviation": float(std.min()), "largest": float(std.max())}
    off = mean > 1.5 or float(std.max()) > 4 or float(std.max()) < 1 / 4
    spread = f"{std.min():.2f} to {std.max():.2f}"
    said = f"The normalised images have channel means within {mean:.2f} and deviations of {spread}"
    if shift is not None:
        numbers |= {"shift of the first batch norm": shift, "ratio of deviations there": ratio}
        off = shift > 1.0 or ratio > 2.5
        said += (
            f"; what reaches the first batch norm lies {shift:.2f} deviations from what it saw in training, and "
            f"spreads {ratio:.1f} times as differently"
        )
    if not off:
        return Diagnosis("normalisation differs", False, f"{said}: as in training.", "", numbers)
    return Diagnosis(
        "normalisation differs",
        True,
        f"{said}: these images are not in the units that the network was trained on."
        if shift is not None
        else f"{said}; a network without batch norm keeps nothing of its training to compare with, but most are "
        "trained on values around 0 with deviations around 1.",
        "Use the constants of the training set (they are in the model file), and images of the same depth and scale.",
        numbers,
    )


@torch.inference_mode()
def _first_norm_shift(seen: Evidence) -> tuple[float | None, float]:
    """Median over channels of |mean now - mean in training| / deviation in training, and of the ratio of deviations."""
    norms = [module for module in seen.anatomy.network.modules() if isinstance(module, nn.BatchNorm2d)]
    if not norms or norms[0].running_mean is None or norms[0].running_var is None:
        return None, 1.0
    inputs: list[Tensor] = []

    def keep(_: nn.Module, given: tuple[Tensor, ...]) -> None:
        inputs.append(given[0].transpose(0, 1).flatten(1)[:, ::7])

    handle = norms[0].register_forward_pre_hook(keep)
    try:
        for case in seen.cases[:8]:
            seen.anatomy.network(case.image)
    finally:
        handle.remove()
    if not inputs:  # a part of the network that does not run
        return None, 1.0
    now = torch.cat(inputs, 1)
    deviation = (norms[0].running_var + norms[0].eps).sqrt()
    shift = ((now.mean(1) - norms[0].running_mean).abs() / deviation).median()
    ratio = now.std(1) / deviation
    return float(shift), float(torch.maximum(ratio, 1 / ratio.clamp_min(1e-9)).median())


def dead_bottleneck(seen: Evidence) -> Diagnosis:
    """The lazy U-Net: the answer does not change when the bottleneck says nothing."""
    worths = seen.measured.skips
    response = dict(zip((path.name for path in worths.paths), worths.response))
    moved = response["bottleneck"]
    numbers = {f"logits moved without {name}": value for name, value in response.items()}
    if len(worths.paths) == 1 and moved < 0.05:
        words = (
            f"Everything passes through the bottleneck, and without it the logits move by {moved:.3f} of their spread."
        )
        return Diagnosis("dead bottleneck", False, f"{words} The answer does not depend on the image.", "", numbers)
    if moved >= 0.05:
        words = f"Without the bottleneck the logits move by {moved:.2f} of their spread: it is used."
        return Diagnosis("dead bottleneck", False, words, "", numbers)
    used = max((name for name in response if name != "bottleneck"), key=lambda name: response[name])
    return Diagnosis(
        "dead bottleneck",
        True,
        f"Without the bottleneck the logits move by only {moved:.3f} of their spread, without {used} by "
        f"{response[used]:.2f}: a lazy U-Net, which answers from {used} and leaves its deep half idle.",
        "If local evidence suffices, a shallower network is as good and faster. If context is needed, train longer, "
        "or without the top skip at first.",
        numbers,
    )


def collapsed_skip(seen: Evidence) -> Diagnosis:
    """A skip whose features never change, or that the decoder does not listen to."""
    worths = seen.measured.skips
    rows = list(zip(worths.paths, worths.response, seen.study.silent))[:-1]
    numbers = {f"logits moved without {path.name}": moved for path, moved, _ in rows}
    numbers |= {f"silent channels of {path.name}": silent for path, _, silent in rows}
    dead = [row for row in rows if (row[1] < 0.01 and not _brings(seen, row[0])) or row[2] > 0.95]
    if not dead:
        words = "Every skip carries features that change, and the answer changes without it." if rows else "No skips."
        return Diagnosis("collapsed skip", False, words, "", numbers)
    said = "; ".join(
        f"{path.name}: {silent:.0%} of its channels never change, and the logits move by {moved:.3f} of their spread "
        "without it"
        for path, moved, silent in dead
    )
    return Diagnosis(
        "collapsed skip",
        True,
        f"{said}. It delivers {'nothing' if all(moved < 0.01 for _, moved, _ in dead) else 'little'}.",
        "Leave it out (train --skips) and save its cost, or lower the learning rate if its features died.",
        numbers,
    )


def _brings(seen: Evidence, path: Path) -> bool:
    """Whether scores fall when this path alone is silent: a skip may act at thin edges only."""
    worth = seen.measured.skips.worth
    rows = [row for score in ("mean IoU", "Boundary F1") for row in worth.get(score, ()) if row.path.name == path.name]
    return any((row.alone_missing.value or 0.0) > 0.005 for row in rows)


def short_sighted(seen: Evidence) -> Diagnosis:
    """Windows smaller than the objects, right at edges and wrong inside."""
    found, window = seen.measured, seen.measured.window
    worst = _worst_object(seen)
    if found.what is None or found.where is None or window is None or worst is None:
        return Diagnosis("sees too little", False, "Not measured: an unbounded window, or no separate objects.")
    what, where = found.what.value or 0.0, found.where.value or 0.0
    name, typical = worst
    numbers = {"window": float(window), f"typical {name}": typical, "what": what, "where": where}
    said = (
        f"An output pixel sees {window} px; a typical {name!r} is {typical:.0f} px. Inside, {what:.2f} of the pixels "
        f"get their class (mean over classes); at edges {where:.2f} fall on the right side"
    )
    sharp = found.where.low is not None and found.where.low > 0.65  # else it is bad at everything
    if window >= typical or what >= 0.85 or what - found.chance > where - 0.5 + 0.35 or not sharp:
        return Diagnosis("sees too little", False, f"{said}.", "", numbers)
    return Diagnosis(
        "sees too little",
        True,
        f"{said}: it paints sharp but cannot tell what it paints, because what would tell lies outside its window.",
        "Train a deeper network: each further level doubles the window.",
        numbers,
    )


def _worst_object(seen: Evidence) -> tuple[str, float] | None:
    """The class with separate objects whose pixels go wrong most, and its typical size."""
    confusion = seen.scores.confusion
    truth = np.maximum(confusion.sum(1), 1)
    recall = np.diagonal(confusion) / truth
    separate = [one for one in seen.measured.objects if not one.fills]
    if not separate:
        return None
    worst = min(separate, key=lambda one: recall[one.class_id])
    return worst.name, worst.typical


def noisy_labels(seen: Evidence) -> Diagnosis:
    """Edges of the masks that lie off the edges of the image, while the painted ones lie on them."""
    strict, loose = seen.scores.pooled["mean_boundary_f1"], seen.loose.pooled["mean_boundary_f1"]
    what = (seen.measured.what.value or 0.0) if seen.measured.what else 0.0
    drawn, painted = _edge_strength(seen)
    numbers = {
        "Boundary F1 at 1 px": strict,
        "at 4 px": loose,
        "edge under masks": drawn,
        "edge under painting": painted,
    }
    said = (
        f"Boundary F1 is {strict:.2f} within 1 px and {loose:.2f} within 4 px; the image's own edge is {drawn:.2f} "
        f"times as strong as elsewhere under the edges of the masks, and {painted:.2f} times under the painted ones"
    )
    if not (what > 0.85 and loose - strict > 0.15 and painted > 1.1 * drawn):
        return Diagnosis("boundary limited by label noise", False, f"{said}.", "", numbers)
    return Diagnosis(
        "boundary limited by label noise",
        True,
        f"{said}: the painting follows the image better than the masks do, so the masks' own roughness limits the "
        "score.",
        "Judge with a tolerance, look at the worst edges, and redraw masks before changing the network.",
        numbers,
    )


def _edge_strength(seen: Evidence) -> tuple[float, float]:
    """Mean gradient of the image under label edges and under painted ones, in units of its mean over the image."""
    found = np.zeros(2)
    counted = np.zeros(2)
    for case, painted in zip(seen.cases, seen.paintings):
        assert case.truth is not None
        gradient = sum(
            gaussian_gradient_magnitude(channel.astype(float), 1.0) for channel in np.moveaxis(case.raw, 2, 0)
        )
        gradient = gradient / max(float(np.mean(gradient)), 1e-12)
        for which, labels in enumerate((case.truth, np.where(case.truth == VOID, VOID, painted).astype(np.uint8))):
            edge = contour(labels)
            found[which] += gradient[edge].sum()
            counted[which] += edge.sum()
    drawn, by_painting = found / np.maximum(counted, 1)
    return float(drawn), float(by_painting)


_SHARP = 0.8
"""Boundary F1 within 1 px from which on edges count as sharp."""


def blocky(seen: Evidence) -> Diagnosis:
    """No fine skip: edges can be no finer than the finest path that reaches the decoder."""
    worths = seen.measured.skips
    skips = worths.paths[:-1]
    finest = min((path.level for path in worths.paths), default=0)
    lost = [path for path, moved in zip(skips, worths.response) if moved < 0.01]
    alive = [path.level for path in worths.paths if path not in lost]
    finest = min(alive, default=finest)
    strict = seen.scores.pooled["mean_boundary_f1"]
    numbers = {"finest level that reaches the decoder": float(finest), "Boundary F1 at 1 px": strict}
    if finest == 0:
        return Diagnosis("blocky", False, "Features of full resolution reach the decoder by skip 0.", "", numbers)
    if strict >= _SHARP:
        words = (
            f"Edges are sharp (Boundary F1 at 1 px: {strict:.2f}), though no skip finer than 1/{2**finest} is there."
        )
        return Diagnosis("blocky", False, words, "", numbers)
    return Diagnosis(
        "blocky",
        True,
        f"The finest features that reach the decoder are at 1/{2**finest} of the resolution: an edge can be placed "
        f"only as well as units {2**finest} px apart remember it (Boundary F1 at 1 px: {strict:.2f}).",
        "Train with the finer skips.",
        numbers,
    )


ALWAYS = (normalisation, dead_bottleneck, collapsed_skip)
WITH_TRUTH = (never_painted, starved, inverted, short_sighted, noisy_labels, blocky)
"""Checks that need no masks, and those that do."""
