"""Where does the answer for this pixel come from? Windows, probes, evidence, and the skips it hangs on.

Evidence is by integrated gradients (Sundararajan, Taly & Yan 2017, arXiv 1703.01365) of the logit of the painted class
less that of the runner-up, from an image of the data-set mean to the image. Knows an anatomy and one case.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate, chain, combinations, pairwise
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from whatwhere.explain.anatomy import Anatomy
from whatwhere.explain.cases import Case
from whatwhere.explain.levels import gather
from whatwhere.explain.measured import as_json
from whatwhere.explain.probes import Probe, softmax
from whatwhere.explain.sight import centred, ring_profile, side_holding
from whatwhere.field import Field
from whatwhere.records import Box

__all__ = [
    "Cut",
    "PixelStory",
    "Reader",
    "cut_everywhere",
    "evidence_for",
    "integrated_gradients",
    "part_seen",
    "sets_tried",
    "tell_pixel",
]

COMPLETE, ROUGH = 0.01, 0.1
"""Integrated gradients are refined until they miss the logit difference by no more than this share of how far it moves
along the path; where steps run out before the other share, squares that hold evidence are told to be rough."""

_TOLERANCES = (1 / 100, 1 / 400, 1 / 1600)
"""How far the gradient may miss the rise along one piece of the path, as a share of all that moves; tried in turn."""
_WIDEST, _NARROWEST = 1 / 8, 1 / 1024
"""Pieces of the path."""
_MOST_STEPS, _FEWEST_STEPS, _COSTLY = 256, 64, 2**16
"""Of the integration: so many up to so many pixels, then fewer for the same wait."""
_MOST_CUTS = 128
"""Sets of absent paths that are tried for one pixel; all of up to seven paths."""

Array = NDArray[Any]


@dataclass(frozen=True)
class Cut:
    """What the pixel becomes when some paths bring only their data-set mean.

    Attributes:
        absent: names of the paths.
        label, chance: the class painted then, and its softmax.
        probability: of the class that was painted with everything there.
    """

    absent: tuple[str, ...]
    label: int
    chance: float
    probability: float

    def to_json(self) -> dict[str, Any]:
        return vars(self) | {"absent": list(self.absent)}


@dataclass(frozen=True, eq=False)
class PixelStory:
    """One pixel's answer, taken apart.

    Attributes:
        image, x, y: which pixel, in the whole image.
        truth: its class, None if not known.
        prediction, probability: the class painted, and its softmax.
        rival: the runner-up.
        windows: by layer, the box of pixels that its unit can see (in the image as cut, see `Case`).
        readings: by layer, the probabilities of the classes that its probe reads there.
        cuts: what happens when each path is absent.
        flip: the smallest set of absent paths that changes the label; None if none does that was tried.
        tried: every set of up to so many absent paths was.
        evidence: ``H x W``, how much each pixel speaks for the painted class against the runner-up.
        margin, baseline: that logit difference on the image and on the image of the data-set mean.
        completeness: by how much the evidence misses ``margin - baseline``, as a share of how far that difference
            moves, up and down, along the path.
        steps: of the path, of which the evidence is the sum.
        half, most: side in px of the square around the pixel with 50 and 95 % of the absolute evidence; None where
            there is none.
    """

    image: str
    x: int
    y: int
    truth: int | None
    prediction: int
    probability: float
    rival: int
    windows: dict[str, Box]
    readings: dict[str, tuple[float, ...]]
    cuts: tuple[Cut, ...]
    flip: Cut | None
    tried: int
    evidence: Array
    margin: float
    baseline: float
    completeness: float
    steps: int
    half: float | None
    most: float | None
    case: Case
    painting: NDArray[np.uint8]

    @property
    def rough(self) -> bool:
        """Whether the evidence misses so much that its squares are no more than a hint."""
        return self.completeness > ROUGH

    def to_json(self) -> dict[str, Any]:
        kept = {name: value for name, value in vars(self).items() if name not in ("evidence", "case", "painting")}
        method = "integrated gradients of the logit difference from the data-set mean; see steps, completeness"
        return {name: as_json(value) for name, value in kept.items()} | {"method": method}


def tell_pixel(
    anatomy: Anatomy,
    case: Case,
    pixel: tuple[int, int],
    means: Sequence[Tensor],
    baseline: Tensor,
    probes: Mapping[str, Probe],
    progress: Callable[[float], None] = lambda _: None,
) -> PixelStory:
    """Take one pixel's answer apart.

    Args:
        pixel: row and column in the case.
        means: for each path its data-set mean.
        baseline: ``(1, C, 1, 1)``, the data-set mean of the network input.
        probes: by layer name; empty without probes.
        progress: told the share of the most that it may take.
    """
    row, column = pixel
    with torch.inference_mode():
        logits, features = anatomy.read(case.image)
    here = logits[0, :, row, column]
    prediction, rival = (int(i) for i in here.topk(2).indices)
    windows = anatomy.windows(case.image.shape)
    boxes, readings = {}, {}
    for layer in anatomy.layers[1:]:
        down, across = layer.units(np.array([row]), np.array([column]), features[layer.name].shape)
        boxes[layer.name] = windows.receptive_field(layer.module, (int(down[0]), int(across[0])))
    boxes["output"] = windows.receptive_field("output", pixel)
    for layer in anatomy.layers:
        if layer.name in probes:
            x = gather(layer, features[layer.name], np.array([row]), np.array([column]))
            readings[layer.name] = softmax(probes[layer.name].logits(x)[0])
    cuts, flip = cut_everywhere(anatomy, anatomy.carried(case.image), case.size, pixel, means, prediction)
    evidence, completeness, steps, (margin, at_baseline) = evidence_for(
        anatomy, windows, case.image, baseline, pixel, prediction, rival, progress=progress
    )
    profile = ring_profile(centred(abs(evidence), pixel))
    return PixelStory(
        image=case.name,
        x=column + case.corner[1],
        y=row + case.corner[0],
        truth=None if case.truth is None or case.truth[row, column] == 255 else int(case.truth[row, column]),
        prediction=prediction,
        probability=float(here.softmax(0)[prediction]),
        rival=rival,
        windows=boxes,
        readings=readings,
        cuts=cuts,
        flip=flip,
        tried=sets_tried(len(means)),
        evidence=evidence,
        margin=margin,
        baseline=at_baseline,
        completeness=completeness,
        steps=steps,
        half=side_holding(profile, 0.5),
        most=side_holding(profile, 0.95),
        case=case,
        painting=logits[0].argmax(0).to(torch.uint8).cpu().numpy(),
    )


@torch.inference_mode()
def cut_everywhere(
    anatomy: Anatomy,
    carried: Sequence[Tensor],
    size: tuple[int, int],
    pixel: tuple[int, int],
    means: Sequence[Tensor],
    prediction: int,
) -> tuple[tuple[Cut, ...], Cut | None]:
    """Each path absent alone, and the smallest set of absent paths that flips the label (the surest of that size).

    Of many paths only sets of up to :func:`sets_tried` are.

    Args:
        carried: what each path carries on an image of ``size``.
        prediction: the class painted at ``pixel`` (row, column) with every path there.
    """
    players = len(carried)
    singles: list[Cut] = []
    flip: Cut | None = None
    for absent in chain.from_iterable(combinations(range(players), n) for n in range(1, sets_tried(players) + 1)):
        if flip is not None and len(absent) > len(flip.absent):
            break
        given = [mean.expand_as(own) if path in absent else own for path, (own, mean) in enumerate(zip(carried, means))]
        answer = anatomy.decode(given, size)[0, :, pixel[0], pixel[1]].float().softmax(0)
        names = tuple(anatomy.paths[path].name for path in absent)
        cut = Cut(names, int(answer.argmax()), float(answer.max()), float(answer[prediction]))
        if len(names) == 1:
            singles.append(cut)
        if cut.label != prediction and (flip is None or cut.probability < flip.probability):
            flip = cut
    return tuple(singles), flip


def sets_tried(players: int) -> int:
    """How many of so many paths are absent together at most: as many as 128 tries allow.

    >>> [sets_tried(players) for players in (1, 5, 7, 8, 12, 40)]
    [1, 5, 7, 3, 2, 1]
    """
    tries = list(accumulate(math.comb(players, absent) for absent in range(1, players + 1)))
    return max(1, sum(tried <= _MOST_CUTS for tried in tries))


def part_seen(windows: Field, pixel: tuple[int, int], size: tuple[int, int]) -> Box:
    """A part of an image that answers for one pixel of the output as the whole does; all of it without tiles.

    At the rims it is moved inside, not cut: networks made elsewhere are exported for every size, and so for few. No
    smaller than two periods, where the image is not: the coarsest features of a single one are no map.
    """
    if not windows.tileable:
        return (0, size[0]), (0, size[1])
    found = []
    for at, (before, after), period, n in zip(pixel, windows.halo(), windows.period, size):
        side = max(before + period + after, 2 * period)
        start = max(0, min(at // period * period - before, -(-n // period) * period - side))
        found.append((start, min(n, start + side)))
    return tuple(found)


class Reader(Protocol):
    """What reads an image: logits, and the features of every layer."""

    def read(self, image: Tensor) -> tuple[Tensor, dict[str, Tensor]]: ...


def evidence_for(
    anatomy: Reader,
    windows: Field,
    image: Tensor,
    baseline: Tensor,
    pixel: tuple[int, int],
    prediction: int,
    rival: int,
    most: int | None = None,
    progress: Callable[[float], None] = lambda _: None,
) -> tuple[Array, float, int, tuple[float, float]]:
    """Integrated gradients on the part of the image that the pixel can see (nothing else matters).

    Args:
        most: steps that may be taken; None for as many as the part's size allows.
        progress: told the share of these after each.
    """
    size = (image.shape[-2], image.shape[-1])
    (top, bottom), (left, right) = part_seen(windows, pixel, size)
    at = (pixel[0] - top, pixel[1] - left)
    part = image[..., top:bottom, left:right]
    if most is None:
        most = int(np.clip(_MOST_STEPS * _COSTLY // ((bottom - top) * (right - left)), _FEWEST_STEPS, _MOST_STEPS))
    taken = 0

    def margin(batch: Tensor) -> Tensor:
        nonlocal taken
        taken += 1
        progress(min(1.0, taken / most))
        logits = anatomy.read(batch)[0][:, :, at[0], at[1]]
        return logits[:, prediction] - logits[:, rival]

    attribution, completeness, steps, ends = integrated_gradients(margin, part, baseline, most)
    found = np.zeros(size)
    found[top:bottom, left:right] = attribution[0].sum(0).cpu().numpy()
    return found, completeness, steps, ends


def integrated_gradients(
    score: Callable[[Tensor], Tensor], image: Tensor, baseline: Tensor, most: int = _MOST_STEPS
) -> tuple[Tensor, float, int, tuple[float, float]]:
    """Attribution of ``score(image) - score(baseline)`` to every input value, along the straight path between them.

    A piece of the path is halved until the gradient at its middle tells the rise of the score along it; so the steps
    are small where the network bends, and the attributions add up within 1 % in all but the wildest cases.

    Args:
        score: ``(N, C, H, W) -> (N,)``.
        image: ``(1, C, H, W)``.
        baseline: broadcasts to it.
        most: gradients that may be taken, 8 at least; then pieces stay wide, and what is missed tells so.

    Returns:
        attribution like ``image``; by how much it misses the difference, as a share of how far the score moves along
        the path (the difference alone may be next to nothing); its steps; and the score at both ends.
    """
    start = baseline.expand_as(image)
    way = image - start
    pieces = round(1 / _WIDEST)
    with torch.no_grad():
        knots = [float(score(start + place / pieces * way)) for place in range(pieces + 1)]
    moved = max(sum(abs(b - a) for a, b in pairwise(knots)), 1e-6)
    left = most
    for tolerance in _TOLERANCES:
        attribution, steps, taken = _walk(score, start, way, knots, tolerance * moved, left)
        left -= taken
        missed = abs(float(attribution.double().sum()) - (knots[-1] - knots[0])) / moved
        if missed <= COMPLETE or left < 2 * taken:  # with fewer, the next would be coarser than this one
            break
    return attribution, missed, steps, (knots[-1], knots[0])


def _walk(
    score: Callable[[Tensor], Tensor], start: Tensor, way: Tensor, knots: Sequence[float], tolerance: float, most: int
) -> tuple[Tensor, int, int]:
    """Sum of the gradients along the path, each times its piece of the way; how many these are, and all that it took.

    Args:
        knots: the score at the ends of the widest pieces.
    """
    total, steps, taken = torch.zeros_like(way), 0, 0
    places = np.linspace(0, 1, len(knots)).tolist()
    pieces = deque(zip(places, places[1:], knots, knots[1:]))  # the widest first: no part of the way is forgotten
    while pieces:
        low, high, at_low, at_high = pieces.popleft()
        width, middle = high - low, (low + high) / 2
        point = (start + middle * way).detach().requires_grad_(True)
        here = score(point)
        step = torch.autograd.grad(here.sum(), point)[0] * way * width
        taken += 1
        off = abs(float(step.double().sum()) - (at_high - at_low))
        if off > tolerance and width > _NARROWEST and taken + len(pieces) + 2 <= most:
            value = float(here.detach())
            pieces += [(low, middle, at_low, value), (middle, high, value, at_high)]
        else:
            total += step
            steps += 1
    return total, steps, taken
