"""Which images of a folder a model learns from, is judged on, and is explained by.

A model knows how training divided its folder and recognises the folder by its pixels, so that by default it is judged
on images that it has not seen.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from whatwhere.data import Folder, Sample, find
from whatwhere.data.crops import Store
from whatwhere.data.folder import LayoutError
from whatwhere.data.images import read_mask_and_palette
from whatwhere.data.sets import ImageSet, from_samples, untold
from whatwhere.errors import DataError, ModelError, PlanError
from whatwhere.learn.parallel import processes_here
from whatwhere.learn.plan import Plan
from whatwhere.network import Model, probe_machine
from whatwhere.paint.files import check_name, find_images
from whatwhere.paint.ledger import without_paintings
from whatwhere.records import Classes, color_of
from whatwhere.remembered import Remembered, everything

__all__ = ["images_of", "open_sets", "truth_of", "with_image"]

_PALETTES = 20
"""Masks of a folder that are read to find out whether their palette is that of the classes."""


def open_sets(folder: Folder, plan: Plan) -> dict[str, ImageSet]:
    """The images that a plan's split names, out of a folder.

    Raises:
        DataError: one is missing.
        PlanError: one is named twice.
    """
    _check_apart(folder, plan)
    room = probe_machine("cpu").memory // (4 * processes_here())
    sets = {}
    for name, limit in (("train", room * 3 // 4), ("val", room // 4)):
        names = frozenset(plan.split.get(name, ()))
        samples = [sample for sample in folder.as_divided(name, names) if sample.name in names]
        missing = sorted(names - {sample.name for sample in samples})
        if missing:
            raise DataError(
                f"{folder.root} lacks {len(missing)} of the {name} images that the plan names, such as {missing[0]!r}",
                "the folder the plan was made for",
                "make the plan anew: whatwhere plan",
            )
        if not names:
            raise DataError(f"the plan has no images to {name}", "names under [split]", "make the plan anew")
        images = from_samples(samples, plan.classes, channels=plan.normalisation.channels)
        loads = [partial(_load, images, index) for index in range(len(images))]
        sets[name] = replace(images, store=Store(loads, limit, rolling=name == "train"))
    return sets


def _check_apart(folder: Folder, plan: Plan) -> None:
    """Where an image is learnt from, what is said of it is no news; a single one has to do for both.

    Names alone don't tell: those of train/ and of val/ may both count from 001.
    """
    if len(plan.split.get("train", ())) == 1 and plan.split["train"] == plan.split.get("val"):
        return
    parts: dict[Path, str] = {}
    for part, names in plan.split.items():
        wanted = frozenset(names)
        for sample in folder.as_divided(part, wanted) or folder.pairs("all"):
            if sample.name in wanted and parts.setdefault(sample.image, part) != part:
                raise PlanError(
                    f"{sample.name!r} is in {parts[sample.image]} and in {part}",
                    "each image in one of them",
                    "take it out of one list under [split]",
                )


def _load(images: ImageSet, index: int) -> tuple[NDArray[Any], NDArray[np.uint8]]:
    """Where a plan says what mask values mean, a ``classes.toml`` is not asked."""
    try:
        return images.store[index]
    except DataError as error:
        remedy = error.remedy.replace("classes.toml", "the plan")
        raise type(error)(error.given, error.expected, remedy) from error


def truth_of(model: Model, data: Path | str, split: str | None = None, *, beside: Sequence[Model] = ()) -> ImageSet:
    """The images with masks of a split of a folder (see :func:`evaluate`), mapped to the model's classes.

    Args:
        model: whose classes count, and which images of an undivided folder are left out because it trained on them.
        data, split: see :func:`evaluate`.
        beside: other models that are asked about the same images: what one of them trained on is left out too.

    Raises:
        ModelError: classes differ, of the data or of a model beside.
        DataError: there are no such images.
    """
    for other in beside:
        if other.classes.names != model.classes.names:
            raise ModelError(
                f"models that paint {', '.join(model.classes.names)} and {', '.join(other.classes.names)}",
                "the same classes in the same order",
                "look at them one by one",
            )
    folder = find(data)
    pasts = [Remembered(folder, one) for one in (model, *beside)]
    if split is None:
        part, samples = _unseen(folder, pasts, told=all(one.plan for one in (model, *beside)))
    elif split == "all":
        samples = everything(folder)
        part = f"all{_said_learnt([past.count(samples) for past in pasts], len(samples))}"
    else:
        samples = _in_split(folder, split, pasts)
        part = split + _learnt_in(split, samples, pasts)
    if not samples:
        raise DataError(
            f"{data} has no images with masks in split {split!r}{' of all models' if beside else ''}",
            f"one of: {_parts(folder, pasts)}",
            "choose with --split",
        )
    if not part.startswith(("all", "train")):
        part += _chosen_by([past.chose_by(samples) for past in pasts])
    classes, apart = _mapping(folder, model, pasts[0]), _named_apart(folder, samples)
    if folder.classes is None and not pasts[0].is_here:
        _refuse_other_palette(samples, classes)
    return from_samples(apart, classes, part, channels=model.normalisation.channels)


def _named_apart(folder: Folder, samples: Sequence[Sample]) -> list[Sample]:
    """With the split in the names that an earlier split has too: those of train/ and of val/ may both count from 001.

    It comes last, for what stands before a number or a slash says what an image is of (`sources_of`).
    """
    split_of = {sample.image: split for split, held in folder.splits.items() for sample in held}
    met: set[str] = set()
    apart = []
    for sample in samples:
        again = sample.name in met
        met.add(sample.name)
        apart.append(replace(sample, name=f"{sample.name} ({split_of[sample.image]})") if again else sample)
    return apart


def _chosen_by(found: Sequence[bool]) -> str:
    """Whether the best weights of a run were chosen by an image of these: its score is, by a little, that of several.

    Of two models it is said of which: where it is one alone, that one has the little as a lead.
    """
    of = f" of {_which(found)}" if len(found) > 1 else ""
    return f"; the weights{of} were chosen by these, or some of them" if any(found) else ""


def _which(found: Sequence[bool]) -> str:
    """What to call the models of which something is found."""
    if len(found) == 1:
        return "the model"
    if len(found) > 2:
        return "all models" if all(found) else "some models"
    return "both models" if all(found) else f"the {'first' if found[0] else 'second'} model"


def _was(found: Sequence[bool]) -> str:
    which = _which(found)
    return f"{which} {'were' if which.endswith('models') else 'was'}"


def _mapping(folder: Folder, model: Model, past: Remembered) -> Classes:
    """What the folder's mask values mean, in the order of the model's classes.

    In the folder that it was trained on what they meant there, by the plan. Elsewhere a ``classes.toml`` counts if it
    names the same classes, in whatever order; one with other names has to list the same values, for which class would
    be which could only be guessed.
    """
    own, classes = folder.classes, model.classes
    if own is None or own == classes or past.is_here:
        return classes
    if sorted(own.names) != sorted(classes.names):
        if own.values == classes.values:
            return replace(own, names=classes.names, colors=classes.colors)
        raise ModelError(
            f"{folder.root} has {own.count} classes ({_few(own.names)})",
            f"the model's {classes.count} ({_few(classes.names)})",
            "use data with the classes that the model was trained on, and their names in classes.toml",
        )
    values = dict(zip(own.names, own.values))
    return replace(
        own, names=classes.names, colors=classes.colors, values=tuple(values[name] for name in classes.names)
    )


def _refuse_other_palette(samples: Sequence[Sample], classes: Classes) -> None:
    """A program that saved masks anew may have numbered their colours anew: values would mean other classes.

    Raises:
        ModelError: one of some masks has the colours of the classes, and one of them under another's value.
    """
    of_value = {value: color for values, color in zip(classes.values, classes.colors) for value in values}
    if not all(isinstance(value, int) for value in of_value):
        return
    for sample in samples[:: -(-len(samples) // _PALETTES) or 1]:
        mask, palette = read_mask_and_palette(sample.mask) if sample.mask else (None, None)
        if mask is None or palette is None or mask.ndim == 3:
            continue
        shown = {value: color_of(palette[value]) for value in np.unique(mask).tolist() if value in of_value}
        other = [value for value, color in shown.items() if color != of_value[value]]
        if other and set(shown.values()) <= set(classes.colors):
            meant = classes.names[classes.colors.index(shown[other[0]])]
            raise ModelError(
                f"the palette of {sample.mask} gives {other[0]} the colour of {meant}",
                "masks that number their colours as those do that the model was trained on",
                "write a classes.toml that lists the colour of each class as its value",
            )


def _few(names: Sequence[str]) -> str:
    return ", ".join(names[:4]) + ("..." if len(names) > 4 else "")


def images_of(model: Model, data: Path | str, split: str | None) -> ImageSet:
    """As :func:`truth_of`; of a folder without masks all images, with labels that are VOID."""
    if Path(data).is_dir() and not _has_masks(Path(data)):
        if split is not None:
            raise DataError(
                f"split {split!r} of {data}, which has no masks", "no split", "leave out the split (--split)"
            )
        return untold(without_paintings(find_images(Path(data))), Path(data), channels=model.normalisation.channels)
    return truth_of(model, data, split)


def _has_masks(folder: Path) -> bool:
    try:
        find(folder)
    except LayoutError:
        return False
    return True


def with_image(model: Model, images: ImageSet, path: Path) -> tuple[str, ImageSet]:
    """The image's name and a set that holds it: its own if it is of the data, else a set with it added."""
    if not path.is_file():
        raise DataError(f"there is no image {path}", "an image file", "check --image")
    check_name(path)  # before all is measured that goes into the report with it
    for name, known in zip(images.names, images.paths):
        if known.exists() and known.samefile(path):  # no link to a drive that is not there
            return name, images
    extra = untold([path], channels=model.normalisation.channels)
    name = extra.names[0] if extra.names[0] not in images.names else str(path)
    loads = [partial(images.store.__getitem__, index) for index in range(len(images))]
    store = Store([partial(extra.store.__getitem__, 0), *loads], limit=0)
    return name, ImageSet((name, *images.names), store, images.part, paths=(path, *images.paths))


def _in_split(folder: Folder, split: str, pasts: Sequence[Remembered]) -> tuple[Sample, ...]:
    """Where training divided the folder, what every model counts to that part."""
    first, *others = (folder.as_divided(split, past.division.get(split, ())) for past in pasts)
    names = [{sample.name for sample in part} for part in others]
    return tuple(sample for sample in first if all(sample.name in part for part in names))


def _parts(folder: Folder, pasts: Sequence[Remembered]) -> str:
    """What can be asked for, and of how many images; only a folder that was trained on is divided by that."""
    counts = {name: len(_in_split(folder, name, pasts)) for name in dict.fromkeys(("train", "val", *folder.splits))}
    there = ", ".join(f"{name} ({count})" for name, count in counts.items() if count)
    divided = folder.undivided is None or any(past.division for past in pasts)
    return there if divided else f"{there}, or the folder that the model was trained on"


def _learnt_in(split: str, samples: Sequence[Sample], pasts: Sequence[Remembered]) -> str:
    """Which models are known to have been trained on a split; the folder that is called train may be another's."""
    trained = [past.count(samples) for past in pasts]
    met = [split == "train" and not known and past.met(samples) for known, past in zip(trained, pasts)]
    under = f"; {_was(met)} trained on them, or on some of them, under other names" if any(met) else ""
    return _said_learnt(trained, len(samples)) + under


def _said_learnt(trained: Sequence[int], of: int) -> str:
    """Which models were trained on how many of so many images; "" of none."""
    said = []
    for how, found in (("them", [one == of for one in trained]), ("some of them", [0 < one < of for one in trained])):
        if any(found):
            said.append(f"{_was(found)} trained on {how}")
    return "".join(f", and {one}" for one in said)


def _unseen(folder: Folder, pasts: Sequence[Remembered], *, told: bool) -> tuple[str, tuple[Sample, ...]]:
    """The images that say most of what the models do with new ones, and which these are.

    Args:
        told: it is known of each model what it was trained on.
    """
    for name in ("test", "val"):
        samples = folder.pairs(name)
        learnt = {one for past in pasts for one in past.learnt_in(samples)}
        if new := tuple(sample for sample in samples if sample.name not in learnt):
            return name, new
    samples = everything(folder)
    names = {sample.name for sample in samples}
    trained = [names.intersection(past.trained) for past in pasts]
    unseen = tuple(sample for sample in samples if not any(sample.name in learnt for learnt in trained))
    strangers = [past for past, learnt in zip(pasts, trained) if not learnt]
    met = any(past.met(samples) for past in strangers)
    if (met or not unseen) and len(pasts) > 1:
        why = "images that a model was trained on, under other names" if met else ""
        raise DataError(
            f"{folder.root} has {why or 'no image that no model was trained on'}",
            "images that are new to all",
            "use other images, or train both on one division: train --plan PLAN of the first",
        )
    if not unseen:
        return "all, and the model was trained on them", samples
    if met:
        return "all; the model was trained on them, or on some of them, under other names", unseen
    if not told:
        return "all; which the model was trained on is not known", unseen
    if len(strangers) == len(pasts) and any(past.names_several for past in pasts):
        return "all; named like images that it was trained on, with other pixels", unseen
    if all(past.would_know(samples) for past in strangers):
        return "not trained on", unseen
    return "none known to have been trained on", unseen
