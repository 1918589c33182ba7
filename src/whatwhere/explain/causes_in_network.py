"""Causes of a black or wrong painting that show in the network itself, without masks: one check each, in plain words.

Each check looks for one cause and says what it measured whether it found it or not. A finding is a suspicion with
numbers behind it, not a proof.
"""

from __future__ import annotations

from operator import attrgetter

import torch
from torch import Tensor, nn

from whatwhere.explain.anatomy import Path
from whatwhere.explain.diagnosis import CONSTANT, Diagnosis, Observed
from whatwhere.explain.skips import MOVED, TOLD

__all__ = ["CHECKS"]

_USED = 0.05
"""A path without which the logits move by so much of their spread is used."""


def normalisation(seen: Observed) -> Diagnosis:
    """Images that reach the network in other units than those it was trained on."""
    shift, ratio = _first_norm_shift(seen)
    values = torch.cat([case.image.flatten(2) for case in seen.cases], 2)[0]
    mean, std = float(values.mean(1).abs().max()), values.std(1)
    numbers = {"largest mean of a channel": mean, "smallest deviation": float(std.min()), "largest": float(std.max())}
    spread = f"{std.min():.2f} to {std.max():.2f}"
    said = f"The normalised images have channel means within {mean:.2f} and deviations of {spread}"
    if shift is None:
        said += "; a network without batch norm of maps keeps nothing of its training to compare with."
        return Diagnosis("normalisation differs", False, said, "", numbers)
    numbers |= {"shift of the first batch norm": shift, "ratio of deviations there": ratio}
    said += (
        f"; what reaches the first batch norm lies {shift:.2f} deviations from what it saw in training, and spreads "
        f"{ratio:.1f} times as differently"
    )
    if shift <= 1.0 and ratio <= 2.5:
        return Diagnosis("normalisation differs", False, f"{said}: as in training.", "", numbers)
    return Diagnosis(
        "normalisation differs",
        True,
        f"{said}: these images are not in the units that the network was trained on.",
        "Use the constants of the training set (they are in the model file), and images of the same depth and scale.",
        numbers,
    )


@torch.inference_mode()
def _first_norm_shift(seen: Observed) -> tuple[float | None, float]:
    """Median over channels of |mean now - mean in training| / deviation in training, and of the ratio of deviations."""
    norms = [module for module in seen.anatomy.network.modules() if isinstance(module, nn.BatchNorm2d)]
    if not norms or norms[0].running_mean is None or norms[0].running_var is None:
        return None, 1.0
    inputs: list[Tensor] = []

    def keep(_: nn.Module, given: tuple[Tensor, ...]) -> None:
        if given[0][0, 0].numel() > 1:  # what is pooled over an image has no spread in it
            inputs.append(given[0].transpose(0, 1).flatten(1)[:, ::7])

    handle = norms[0].register_forward_pre_hook(keep)
    try:
        for case in seen.cases[:8]:
            seen.anatomy.network(case.image)
    finally:
        handle.remove()
    if not inputs:  # a part of the network that does not run, or sees no maps
        return None, 1.0
    now = torch.cat(inputs, 1)
    deviation = (norms[0].running_var + norms[0].eps).sqrt()
    shift = ((now.mean(1) - norms[0].running_mean).abs() / deviation).median()
    ratio = now.std(1) / deviation
    return float(shift), float(torch.maximum(ratio, 1 / ratio.clamp_min(1e-9)).median())


def constant(seen: Observed) -> Diagnosis:
    """An answer that is the same for every image."""
    worths = seen.measured.skips
    most = max(worths.response)
    numbers = {"logits moved without one path, at most": most}
    if not worths.constant:
        words = f"Without one path the logits move by up to {most:.2f} of their spread."
        return Diagnosis("constant answer", False, words, "", numbers)
    return Diagnosis(
        "constant answer",
        True,
        f"Whichever path is cut, the logits move by less than {MOVED} of their spread: the answer does not depend on "
        "the image.",
        "Check that these are the weights that were trained, and that the loss fell; if units died, train with a lower "
        "learning rate.",
        numbers,
    )


def dead_bottleneck(seen: Observed) -> Diagnosis:
    """The lazy U-Net: the answer does not change when the bottleneck says nothing."""
    worths = seen.measured.skips
    response = dict(zip((path.name for path in worths.paths), worths.response))
    moved = response["bottleneck"]
    numbers = {f"logits moved without {name}": value for name, value in response.items()}
    if worths.constant:
        return Diagnosis("dead bottleneck", False, CONSTANT, "", numbers)
    if len(worths.paths) == 1 and moved < _USED:
        words = (
            f"Everything passes through the bottleneck, and without it the logits move by {moved:.3f} of their spread."
        )
        return Diagnosis("dead bottleneck", False, f"{words} The answer hardly depends on the image.", "", numbers)
    if moved >= _USED:
        words = f"Without the bottleneck the logits move by {moved:.2f} of their spread: it is used."
        return Diagnosis("dead bottleneck", False, words, "", numbers)
    used = max((name for name in response if name != "bottleneck"), key=lambda name: response[name])
    words = (
        f"Without the bottleneck the logits move by only {moved:.3f} of their spread, without {used} by "
        f"{response[used]:.2f}"
    )
    heard = [path for path in worths.paths if response[path.name] >= _USED]
    deepest = max(heard, key=attrgetter("level"), default=None)
    if deepest is not None and 2 * deepest.level >= worths.paths[-1].level:
        words += f": what lies below {deepest.name} is idle."
        return Diagnosis("dead bottleneck", True, words, "A shallower network is probably as good and faster.", numbers)
    return Diagnosis(
        "dead bottleneck",
        True,
        f"{words}: a lazy U-Net, which answers from {used} and leaves its deep half idle.",
        "If local evidence suffices, a shallower network is as good and faster. If context is needed, train longer, "
        "or without the top skip at first.",
        numbers,
    )


def collapsed_skip(seen: Observed) -> Diagnosis:
    """A skip whose features never change, or that the decoder does not listen to."""
    worths = seen.measured.skips
    rows = list(zip(worths.paths, worths.response, seen.study.silent))[:-1]
    numbers = {f"logits moved without {path.name}": moved for path, moved, _ in rows}
    numbers |= {f"silent channels of {path.name}": silent for path, _, silent in rows}
    if worths.constant:
        return Diagnosis("collapsed skip", False, CONSTANT, "", numbers)
    idle = [path for path, moved, _ in rows if moved < MOVED and not _brings(seen, path)]
    dead = [row for row in rows if row[0] in idle or row[2] > 0.95]
    if not dead:
        words = "Every skip carries features that change, and the answer changes without it." if rows else "No skips."
        return Diagnosis("collapsed skip", False, words, "", numbers)
    said = "; ".join(
        f"{path.name}: {silent:.0%} of its channels never change, and the logits move by {moved:.3f} of their spread "
        f"without it: {'it delivers nothing' if path in idle else 'the few that do deliver all'}"
        for path, moved, silent in dead
    )
    leave = f"Leave out {' and '.join(path.name for path in idle)} (train --skips) and save the cost, or lower"
    return Diagnosis(
        "collapsed skip",
        True,
        f"{said}.",
        f"{leave if idle else 'Lower'} the learning rate if its features died.",
        numbers,
    )


def _brings(seen: Observed, path: Path) -> bool:
    """Whether scores fall when this path alone is silent: a skip may act at thin edges only."""
    worth = seen.measured.skips.worth
    rows = [row for score in ("mean IoU", "Boundary F1") for row in worth.get(score, ()) if row.path.name == path.name]
    return any((row.alone_missing.value or 0.0) > TOLD for row in rows)


CHECKS = (normalisation, constant, dead_bottleneck, collapsed_skip)
"""None needs masks."""
