"""How deep, wide and large: depth, width, crop and batch by how large objects are, what the machine does, and the time.

Each choice is a value and its reason. Knows the survey and the machine; nothing of the rest of a plan.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import cache
from typing import TypeVar

import torch

from whatwhere.data.facts import Survey
from whatwhere.data.pieces import SIDE
from whatwhere.learn.plan import NetworkPlan, TrainingPlan
from whatwhere.network import Machine, UNet, cost

__all__ = [
    "NARROWEST",
    "Reasoned",
    "all_pixels",
    "depth_of",
    "hurried",
    "receptive_field",
    "short",
    "sizes_of",
    "small_crops",
    "typical_side",
]

T = TypeVar("T")
Reasoned = tuple[T, str]

_WIDTHS = (64, 32, 16, 8)
"""Matrix units work in blocks of 32 channels: 24 cost nearly as much as 32, and 48 as 64; others in blocks of 8."""
NARROWEST = _WIDTHS[-1]
_FEW_CLASSES = 4
"""More classes than these are told apart less well by the narrowest network than by the next, if that sees enough."""
_NARROW_SPEED = 0.5
"""The share of their speed that processors reach with the narrowest, and with the depthwise layers of encoders."""
_CROPS_HURRIED = 300, 35_000
"""From how many to how many of the usual crops what is new beside ImageNet's features settles better at a third of the
usual rate: an hour of two cores with bfloat16. Of fewer or more nothing was gained, or tried."""
_CROPS_SMALL = 5000
"""Of fewer of the usual crops small ones take it farther."""
_CROPS_WANTED = 15000
"""Crops a network should see to settle: narrower networks are chosen until the time allows this many."""
_CROPS_LEAST, _PASSES_WANTED = 8000, 100
"""Fewer suffice, down to so many, where they show all pixels so often: of few images it soon has seen enough."""
_SMALL_CROP = 128
"""No crop is made smaller than this because time is short."""
_NO_OBJECTS = "no class has separate objects, so a quarter of the image is taken"
_AROUND, _LEAST = 12, 3
"""Times their thickness that is to be seen of thin lines, where there is nothing else to see whole; as if they were of
so many px at least, as the thinnest that were tried."""
_FILLED = 0.98
"""Share of small pieces that tell their class from which on objects count as filled."""
_SPEED = {
    ("cpu", "bfloat16"): 70e9,
    ("cpu", "float32"): 20e9,
    ("cuda", "bfloat16"): 0.3e12,
    ("cuda", "float32"): 0.015e12,
    ("mps", "float32"): 0.5e12,
}
"""Multiply-adds a second that training reaches: on a CPU for each core, on a CUDA GPU for each multiprocessor (measured
and rounded down), on Apple's as a whole (guessed, as is CUDA's in float32, from what the hardware could do)."""


def depth_of(survey: Survey) -> Reasoned[int]:
    """Deep enough to see a typical object whole, and its surroundings; no deeper where small pieces tell the classes.

    Filled shapes need almost no receptive field, outlined ones as much as the shape (Loos et al. 2024, doi
    10.1117/1.JMI.11.5.054004).
    """
    side = typical_side(survey)
    told, said = _told_by_pieces(survey)
    left = [class_id for class_id, pixels in enumerate(survey.training_pixels) if pixels and class_id not in told]
    extent, what = float(SIDE), f"{said}: filled shapes need little context"
    if left:
        extent, what = _telling_extent(survey, side, left)
        what = f"{what}; {said}"
    deepest = max(2, min(6, math.floor(math.log2(max(side, 8) / 8))))
    for depth in range(2, deepest + 1):
        if receptive_field(depth) >= 1.6 * extent or depth == deepest:
            return depth, f"sees {receptive_field(depth)} px; {what}; images are {_sides_text(survey)}"
    raise AssertionError("unreachable")


def _told_by_pieces(survey: Survey) -> Reasoned[tuple[int, ...]]:
    """The classes that small pieces alone tell apart: their objects are filled, and ask for little context."""
    found = survey.piece_test
    if found is None:
        cause = f"too few images, or insides of {SIDE} px of two classes, to compare"
        if len(survey.training) == 1:
            cause = "a single image has no other to compare with"
        return (), f"whether less would do is not known: {cause}"
    assert survey.classes is not None
    told = f"{found.accuracy:.0%} of pieces of {SIDE} px alone tell their class (chance {found.chance:.0%})"
    if len(found.classes) < survey.classes.count:
        told += f", asked of {' and '.join(survey.classes.names[class_id] for class_id in found.classes)}"
    return (found.classes, told) if found.accuracy >= _FILLED else ((), f"{told}: the rest takes context")


def receptive_field(depth: int) -> int:
    """The largest receptive field of a pixel of the plain U-Net's output, as `field` tells it, without asking it."""
    return 13 * (1 << depth) - (4 if depth > 2 else 8)


def _telling_extent(survey: Survey, side: int, asked: Sequence[int]) -> Reasoned[float]:
    """The extent of the typical object, not of what fills the image; of thin lines alone some times their thickness."""
    assert survey.classes is not None
    found: list[tuple[float, str, bool]] = []
    lines: list[tuple[float, str]] = []
    pixels = survey.training_pixels
    for class_id in asked:
        name = survey.classes.names[class_id]
        each, extents = (survey.object_extents(class_id, by_area=by, training=True) for by in (False, True))
        thickness = survey.thickness(class_id, training=True)
        if each is None or extents is None:
            continue
        if thickness is not None and thickness.median < extents.median / 15:
            if pixels[class_id] < max(pixels):  # what lies between lines may be narrow too
                lines.append((thickness.median, name))
        elif extents.median < 0.9 * side:
            found.append((extents.median, name, each.count > 1))
    if not found and lines:
        thick, name = max(lines)
        said = f"lines of {name!r} are typically {thick:.0f} px thick, and need little context"
        return _AROUND * max(_LEAST, thick), said
    if not found:
        return side / 4, _NO_OBJECTS
    extent, name, recurs = max(found)
    if not recurs:
        return extent, f"the largest object, the only one of {name!r}, has {extent:.0f} px"
    return extent, f"the largest objects that recur are {name!r}, typically {extent:.0f} px"


def _recurring_extent(survey: Survey) -> Reasoned[float]:
    """The extent of the typical object of whatever class."""
    return _telling_extent(survey, typical_side(survey), range(survey.classes.count if survey.classes else 0))


def _typical_sides(survey: Survey) -> tuple[int, int]:
    heights, widths = survey.image_sides()
    assert heights is not None
    assert widths is not None
    return int(heights.median), int(widths.median)


def typical_side(survey: Survey) -> int:
    """The shorter side of the typical image, in pixels."""
    return min(_typical_sides(survey))


def _sides_text(survey: Survey) -> str:
    """Both sides where they differ: of strips the shorter alone says little."""
    height, width = _typical_sides(survey)
    return f"{height} px" if height == width else f"{height} x {width} px"


def sizes_of(
    survey: Survey, machine: Machine, depth: int, step: int, seconds: float | None, encoder: str
) -> tuple[Reasoned[int], Reasoned[int], Reasoned[int]]:
    """Width, crop and batch: where even the narrowest network would see far too few crops, smaller ones."""
    crop = _crop(survey, step)
    width, few = _width(survey, machine, depth, crop[0], seconds, encoder)
    if few:
        return width, *small_crops(survey, step)
    return width, crop, _batch(crop[0], crop[0])


def small_crops(survey: Survey, step: int) -> tuple[Reasoned[int], Reasoned[int]]:
    """Crop and batch where time is short: crops as small as the objects that recur allow, as many a step as usually."""
    usual = _crop(survey, step)
    crop = _small_crop(survey, step, usual)
    return crop, _batch(usual[0], crop[0])


def _crop(survey: Survey, step: int) -> Reasoned[int]:
    """Large enough to hold context, a size that the network halves evenly."""
    side = typical_side(survey)
    crop = max(step, min(256, side // step * step))
    whole = crop > 0.7 * max(_typical_sides(survey))
    said = f"{'nearly whole images' if whole else 'pieces'} of {_sides_text(survey)}; a multiple of {step}"
    extent, what = _recurring_extent(survey)
    if what != _NO_OBJECTS and extent > 1.5 * crop:
        said += (
            f"; {what}, larger than a crop: with images shrunk by {extent / crop:.1f} each crop would show one whole"
        )
    return crop, said


def _small_crop(survey: Survey, step: int, usual: Reasoned[int]) -> Reasoned[int]:
    """As small as the objects that recur allow: many small steps tell cells apart that few large ones do not."""
    extent, what = _recurring_extent(survey)
    crop = math.ceil(max(_SMALL_CROP, extent) / step) * step
    if crop >= usual[0]:
        return usual
    said = f"pieces of {_sides_text(survey)}; there is time for too few of {usual[0]} px"
    return crop, f"{said}; {what}; a multiple of {step}"


def _batch(usual: int, crop: int) -> Reasoned[int]:
    """As many crops a step as ``usual`` ones ask for, of ``crop`` px: a step of small crops is a quick one."""
    batch = 8
    while batch < 32 and batch * usual * usual < 8 * 192 * 192:
        batch *= 2
    pixels = batch * crop**2
    said = f"{pixels / 1e6:.1f} million" if pixels >= 1e5 else f"{pixels / 1e3:.0f} thousand"
    return batch, f"about {said} pixels a step"


def _width(
    survey: Survey, machine: Machine, depth: int, crop: int, seconds: float | None, encoder: str
) -> tuple[Reasoned[int], bool]:
    """The widest network that still sees enough crops in the time; whether even the narrowest sees far too few."""
    assert survey.classes is not None
    if encoder != "plain":
        return (16, "what the encoder knows needs no wide decoder"), False
    if seconds is None:
        return (32, "the usual width, as no time is set"), False
    count = survey.classes.count
    passes = _PASSES_WANTED * all_pixels(survey) / crop**2
    wanted = round(min(_CROPS_WANTED, max(_CROPS_LEAST, passes)))

    def seen_by(width: int) -> float:
        """The crops that a network of this width sees in the time."""
        speed = _speed(machine) * (_NARROW_SPEED if width == NARROWEST else 1)
        return seconds * speed / _work(survey.normalisation().channels, count, width, depth, crop, encoder)

    enough = count > _FEW_CLASSES and seen_by(_WIDTHS[-2]) >= _CROPS_LEAST / 2
    widths = _WIDTHS[:-1] if enough else _WIDTHS
    width = next((one for one in widths if seen_by(one) >= wanted), widths[-1])
    seen = seen_by(width)
    few = f" (enough for few images: all pixels {_PASSES_WANTED} times)" if wanted < _CROPS_WANTED else ""
    what = f"the widest that sees {wanted:,} crops{few} in time" if seen >= wanted else "the narrowest"
    said = f"{what}; it will see about {seen:,.0f} crops of {crop} px"
    return (width, said), width == widths[-1] and seen < _CROPS_LEAST


def hurried(survey: Survey, machine: Machine, network: NetworkPlan, training: TrainingPlan) -> bool:
    """Whether what is new beside ImageNet's features sees too few of the usual crops of many classes to settle.

    Measured with EfficientNet-Lite0's features and eleven classes; with two the usual rate was as good, or better.
    """
    assert survey.classes is not None
    if network.encoder != "efficientnet-lite0" or not network.pretrained or survey.classes.count <= _FEW_CLASSES:
        return False
    least, most = _CROPS_HURRIED
    return least <= _crops(survey, machine, network, training) < most


def short(survey: Survey, machine: Machine, network: NetworkPlan, training: TrainingPlan) -> bool:
    """Whether what is hurried is to see more and smaller crops."""
    return _crops(survey, machine, network, training) < _CROPS_SMALL


def _crops(survey: Survey, machine: Machine, network: NetworkPlan, training: TrainingPlan) -> float:
    """How many will be learnt from, about, with an encoder."""
    if training.seconds is None:
        return float(training.steps(all_pixels(survey)) * training.batch)
    assert survey.classes is not None
    channels, count = survey.normalisation().channels, survey.classes.count
    work = _work(channels, count, network.width, network.depth, training.crop, network.encoder)
    return training.seconds * _speed(machine) * _NARROW_SPEED / work


def _speed(machine: Machine) -> float:
    """Multiply-adds a second in training."""
    each = _SPEED.get((machine.device.partition(":")[0], machine.precision), 20e9)
    return each * (machine.cores if machine.device == "cpu" else machine.multiprocessors)


@cache
def _work(channels: int, classes: int, width: int, depth: int, crop: int, encoder: str) -> int:
    """Multiply-adds with which the network learns from one crop: forward, and twice that backward."""
    with torch.device("meta"):  # its shapes tell what it costs: no weights are drawn
        network = UNet(channels, classes, width=width, depth=depth, max_width=512, encoder=encoder)
    return 3 * cost(network, (channels, crop, crop)).multiply_adds


def all_pixels(survey: Survey) -> int:
    """Of all training images."""
    return sum(f.image.size[0] * f.image.size[1] for f in survey.training if f.image)
