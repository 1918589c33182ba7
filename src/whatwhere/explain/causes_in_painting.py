"""Causes of a wrong or blocky painting that show beside masks: one check each, in plain words.

Each check looks for one cause and says what it measured whether it found it or not. A finding is a suspicion with
numbers behind it, not a proof.
"""

from __future__ import annotations

import math

import numpy as np
from scipy.ndimage import gaussian_gradient_magnitude
from scipy.optimize import linear_sum_assignment

from whatwhere.explain.diagnosis import CONSTANT, Diagnosis, Observed
from whatwhere.explain.skips import MOVED
from whatwhere.judge.bootstrap import ENOUGH
from whatwhere.judge.boundaries import contour
from whatwhere.records import VOID

__all__ = ["CHECKS"]

_FEW_PIXELS = 20
"""Fewer pixels of a class say nothing of it."""

_HALF_KNOWN = 0.25
"""Mean probability on its own pixels from which on a class is known, though never painted: `starved` tells why."""


def never_painted(seen: Observed) -> Diagnosis:
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
        words = f"No class with {_FEW_PIXELS} pixels or more in the masks is unknown to the network."
        return Diagnosis("class never painted", False, words, "", numbers)
    each = [f"{names[c]!r} ({'never' if not painted[c] else f'{painted[c]:,.0f} of {truth[c]:,.0f} px'})" for c in lost]
    most = f"{'' if len(lost) == 1 else 'at most '}{max(own[c] for c in lost):.2g}"
    return Diagnosis(
        "class never painted",
        True,
        f"In the masks, but never or hardly ever painted: {', '.join(each)}. On own pixels the mean probability is "
        f"{most}.",
        "Check that the training masks hold what is missing and how their values are mapped (whatwhere check), train "
        "longer, and raise class_aware (crops chosen by class) and class_weights in the plan.",
        numbers,
    )


def starved(seen: Observed) -> Diagnosis:
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
        return Diagnosis(
            "rare class under-predicted", False, "No rare class is half known and left unpainted.", "", numbers
        )
    worst = min(poor, key=lambda c: recall[c])
    return Diagnosis(
        "rare class under-predicted",
        True,
        f"{names[worst]!r} has {share[worst]:.1%} of the pixels. The network gives it {own[worst]:.2f} on its own "
        f"pixels, {own[worst] / max(elsewhere[worst], 1e-9):.0f} times as much as elsewhere, so it knows something "
        f"of it; yet it paints only {recall[worst]:.0%} of them.",
        "Raise class_aware in the plan, or dice_weight, so that the class counts for more.",
        numbers,
    )


def inverted(seen: Observed) -> Diagnosis:
    """Classes painted under each other's names."""
    names, confusion = seen.model.classes.names, seen.scores.confusion.astype(float)
    union = confusion.sum(1)[:, None] + confusion.sum(0)[None, :] - confusion
    overlap = np.divide(confusion, union, out=np.zeros_like(union), where=union > 0)
    rows, columns = linear_sum_assignment(-overlap)
    present = confusion.sum(1) > 0
    now = float(np.diagonal(overlap)[present].mean())
    best = float(overlap[rows, columns][present].mean())
    moved = [(r, c) for r, c in zip(rows, columns) if r != c and present[r]]
    # all have to fit: with one class painted everywhere, any renaming moves it to the largest
    several = all(int((confusion.sum(axis) > 0).sum()) > 1 for axis in (0, 1))
    fits = several and bool((overlap[rows, columns][present] > 0.3).all())
    numbers = {"mean IoU as painted": now, "mean IoU with classes renamed": best}
    if best - now < 0.2 or not fits:
        words = f"No renaming fits all classes of the masks better (mean IoU {now:.2f}, best {best:.2f})."
        lone = "A single class is in the masks, or painted: that tells nothing of names."
        return Diagnosis("mapping inverted", False, words if several else lone, "", numbers)
    said = ", ".join(f"{names[r]!r} is painted as {names[c]!r}" for r, c in moved)
    return Diagnosis(
        "mapping inverted",
        True,
        f"{said}. With the classes renamed so, mean IoU would be {best:.2f} instead of {now:.2f}: the regions are "
        "right and their names are not.",
        "Compare the mask values of the training data and of these masks (whatwhere check shows the mapping).",
        numbers,
    )


def short_sighted(seen: Observed) -> Diagnosis:
    """Windows smaller than the objects, right at edges and wrong inside."""
    found, window = seen.measured, seen.measured.window
    worst = _worst_object(seen)
    what, where = found.what.value if found.what else None, found.where.value if found.where else None
    if found.where is None or what is None or where is None or window is None or worst is None:
        why = "no what or no where, an unbounded window, or no separate objects"
        return Diagnosis("sees too little", False, f"Not measured: {why}.")
    name, typical = worst
    numbers = {"window": float(window), f"typical {name}": typical, "what": what, "where": where}
    said = (
        f"An output pixel sees {window} px; a typical {name!r} is {typical:.0f} px. Inside, {what:.2f} of the pixels "
        f"get their class (mean over classes); at edges {where:.2f} fall on the right side"
    )
    # else it is bad at everything, or nobody knows
    sharp = found.where.low is not None and found.where.low > 0.65 and found.where.independent >= ENOUGH
    if window >= typical or what >= 0.85 or what - found.chance > where - 0.5 + 0.35 or not sharp:
        return Diagnosis("sees too little", False, f"{said}.", "", numbers)
    return Diagnosis(
        "sees too little",
        True,
        f"{said}: it paints sharp but cannot tell what it paints, because what would tell lies outside its window.",
        "Train a deeper network: each further level doubles the window.",
        numbers,
    )


def _worst_object(seen: Observed) -> tuple[str, float] | None:
    """The class with separate objects whose pixels go wrong most, and its typical size."""
    confusion = seen.scores.confusion
    truth = confusion.sum(1)
    recall = np.diagonal(confusion) / np.maximum(truth, 1)
    # objects are counted in whole images, pixels only in what was cut out of large ones
    separate = [one for one in seen.measured.objects if not one.fills and truth[one.class_id]]
    if not separate:
        return None
    worst = min(separate, key=lambda one: recall[one.class_id])
    return worst.name, worst.typical


_NO_EDGE = "These images have no edge, neither in their masks nor in what is painted."


def noisy_labels(seen: Observed) -> Diagnosis:
    """Edges of the masks that lie off the edges of the image, while the painted ones lie on them."""
    strict, loose = seen.scores.pooled["mean_boundary_f1"], seen.loose.pooled["mean_boundary_f1"]
    what = (seen.measured.what.value or 0.0) if seen.measured.what else 0.0
    if math.isnan(strict):
        return Diagnosis("boundary limited by label noise", False, _NO_EDGE)
    drawn, painted = _edge_strength(seen)
    numbers = {"Boundary F1 at 1 px": strict, "at 4 px": loose}
    strengths = {"edge under masks": drawn, "edge under painting": painted}
    numbers |= {name: value for name, value in strengths.items() if math.isfinite(value)}
    said = (
        f"Boundary F1 is {strict:.2f} within 1 px and {loose:.2f} within 4 px; the image's own edge is {drawn:.2f} "
        f"times as strong as on average under the edges of the masks, and {painted:.2f} times under the painted ones"
        if math.isfinite(drawn + painted)
        else f"No edge is {'drawn in the masks' if math.isnan(drawn) else 'painted'}, so none can be compared"
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


def _edge_strength(seen: Observed) -> tuple[float, float]:
    """Mean gradient of the image under label edges and under painted ones, in units of its mean; nan where none are."""
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
    drawn, by_painting = np.where(counted, found / np.maximum(counted, 1), np.nan)
    return float(drawn), float(by_painting)


_SHARP = 0.8
"""Boundary F1 within 1 px from which on edges count as sharp."""


def blocky(seen: Observed) -> Diagnosis:
    """No fine skip: edges can be no finer than the finest path that reaches the decoder."""
    worths = seen.measured.skips
    if worths.constant:
        return Diagnosis("blocky", False, CONSTANT)
    skips = worths.paths[:-1]
    lost = [path for path, moved in zip(skips, worths.response) if moved < MOVED]
    finest = min(path.level for path in worths.paths if path not in lost)
    strict = seen.scores.pooled["mean_boundary_f1"]
    numbers = {"finest level that reaches the decoder": float(finest), "Boundary F1 at 1 px": strict}
    if finest == 0:
        by = next((path.name for path in skips if path.level == 0 and path not in lost), "the bottleneck")
        return Diagnosis("blocky", False, f"Features of full resolution reach the decoder by {by}.", "", numbers)
    if math.isnan(strict):
        return Diagnosis("blocky", False, _NO_EDGE, "", {"finest level that reaches the decoder": float(finest)})
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


CHECKS = (never_painted, starved, inverted, short_sighted, noisy_labels, blocky)
"""Each needs masks."""
