"""What the names of files and folders say: which mask is an image's, and which split. Opens no file."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import TypeVar

from whatwhere.data.tiffs import TIFF_SUFFIXES

__all__ = ["Sample", "bare", "hidden", "pair_by_cores", "pair_by_names", "split_of", "split_said", "split_tagged"]

_Path = TypeVar("_Path", bound=PurePath)

_SPLIT = re.compile(
    r"((?P<train>train(ing)?([_-]?val)?)|(?P<val>val(id(ation)?)?)|(?P<test>test(ing)?))(\d{4})?", re.IGNORECASE
)
"""Maybe of a year, as COCO's; what is called trainval is to be divided by whoever trains."""
_GLUED = re.compile(r"(annot|crops?|data|gt|im(age|g)?s?|labels?|masks?|set)$", re.IGNORECASE)
"""Words that may follow a split's without anything between, as in CamVid's testannot."""
_MASK_SUFFIXES = (
    "_mask", "-mask", " mask", ".mask", "_masks", "_label", ".label", "_labels", "_seg", ".seg", "_segmentation",
    "_gt", ".gt", "_l",
)  # fmt: skip
"""In any case: ISIC writes _segmentation, CamVid _L."""
_FEW = 5
"""Where names are paired by their cores, one of so many masks may have no image."""


@dataclass(frozen=True)
class Sample:
    """An image and its mask.

    Attributes:
        name: the image's path within its images folder, without ending, with forward slashes: ``"plate 1/a"``.
        image: the image file.
        mask: the mask file; None when there is none.
    """

    name: str
    image: Path
    mask: Path | None


def bare(path: _Path) -> _Path:
    """Without its ending, by which an image and its mask may differ: also OME-TIFF's, which is of two parts.

    >>> bare(Path("plate/a.1.png")).as_posix(), bare(Path("a.ome.tif")).as_posix()
    ('plate/a.1', 'a')
    """
    stem = path.with_suffix("")
    ome = path.suffix.lower() in TIFF_SUFFIXES and stem.suffix.lower() == ".ome"
    return stem.with_suffix("") if ome else stem


def pair_by_names(images: dict[str, Path], masks: dict[str, Path]) -> tuple[tuple[Sample, ...], list[Path]]:
    """Samples sorted by name, and the masks that belong to none.

    A mask that lies among the images too is no image: its name is another's and says that it is that one's mask.
    """
    left = dict(masks)
    told = {name.lower() for name in masks}
    copies = {
        name for name in images
        if (image := _image_of(name)) in images and image not in masks
        and not any((name + suffix).lower() in told for suffix in _MASK_SUFFIXES)
    }  # fmt: skip
    chosen = {name: left.pop(name) for name in images if name in masks and name not in copies}
    by_case = {name.lower(): name for name in left}
    alone = Counter(name.lower() for name in images)
    for name, path in images.items():
        if name in chosen or name in copies:
            continue
        ending = path.name[len(bare(path).name) :]  # some name the mask of a.jpg a.jpg.png
        candidates = [by_case.get((name + suffix).lower(), "") for suffix in ("", *_MASK_SUFFIXES, ending)]
        one = alone[name.lower()] == 1  # a.png and A.png: whose a_mask.png is, is told by its case
        fitting = next((mask for mask in candidates if mask in left and (one or mask.startswith(name))), None)
        if fitting is not None:
            chosen[name] = left.pop(fitting)
    samples = tuple(Sample(name, path, chosen.get(name)) for name, path in sorted(images.items()))
    return samples, list(left.values())


def _image_of(mask: str) -> str:
    """The name of the image of a mask whose name says that it is one; else nothing."""
    return next((mask[: -len(suffix)] for suffix in _MASK_SUFFIXES if mask.lower().endswith(suffix)), "")


def pair_by_cores(images: dict[str, Path], masks: dict[str, Path]) -> tuple[tuple[Sample, ...], list[Path]]:
    """As `pair_by_names`, by what tells the images from each other and the masks from each other.

    DRIVE has 21_training and 21_manual1, nnU-Net case_001_0000 and case_001, Cityscapes a_leftImg8bit and
    a_gtFine_labelIds. Only where nearly each mask then has its image, and nothing that is cut off tells the two apart:
    2021_1 and 2023_1 were not taken in one year. Where images count from 0 and as many masks from 1, nobody knows
    whether the third mask is the third image's or that of image 3.
    """
    (by_core, *image_ends), (cores, *mask_ends) = _cores(images), _cores(masks)
    found = {by_core[core]: masks[name] for core, name in cores.items() if core in by_core}
    lacking = len(masks) - len(found)
    if lacking * _FEW > len(masks) or _count_apart(by_core, cores) or any(map(_of_different, image_ends, mask_ends)):
        found = {}
    samples = tuple(Sample(name, path, found.get(name)) for name, path in sorted(images.items()))
    used = set(found.values())
    return samples, [path for path in masks.values() if path not in used]


def _count_apart(images: Iterable[str], masks: Iterable[str]) -> bool:
    """Whether the numbers of the masks are those of the images, all moved by as much.

    >>> _count_apart(["0", "1", "2"], ["1", "2", "3"]), _count_apart(["1", "2", "3"], ["1", "3"])
    (True, False)
    """
    parts = [[core.rpartition("/") for core in cores] for cores in (images, masks)]
    if not all(number.isdecimal() for side in parts for *_, number in side) or len(parts[0]) != len(parts[1]):
        return False
    pairs = zip(*(sorted((folder, int(number)) for folder, _, number in side) for side in parts))
    moved = {(folder == other, there - here) for (folder, here), (other, there) in pairs}
    return len(moved) == 1 and moved != {(True, 0)}


def _of_different(one: str, other: str) -> bool:
    """Whether two ends number the same thing differently, such as a patient, or a year.

    >>> _of_different("patient1_", "patient2_"), _of_different("_0001_leftImg8bit", "_0001_manual1")
    (True, False)
    """
    here, there = (
        {(word, place): number for place, (word, number) in enumerate(re.findall(r"([a-z]*)(\d+)", end.lower()))}
        for end in (one, other)
    )
    return any(here[word] != there[word] for word in here.keys() & there.keys())


def _cores(files: Mapping[str, Path]) -> tuple[dict[str, str], str, str]:
    """Names by their core: without what all begin and end with. Folders stay.

    And what that is; a number of which a part is shared is not cut.
    """
    stems = [name.rpartition("/")[2] for name in files]
    start = _shared(stems).rstrip("0123456789")
    end = _shared([stem[::-1] for stem in stems])[::-1].lstrip("0123456789")
    cores: dict[str, str] = {}
    for name, stem in zip(files, stems):
        core = stem[len(start) : len(stem) - len(end)]
        if len(files) > 1 and core:
            cores[name.removesuffix(stem) + core] = name
    return cores, start, end


def _shared(words: list[str]) -> str:
    """What all of them begin with."""
    first, last = min(words, default=""), max(words, default="")
    differ = (place for place, (one, other) in enumerate(zip(first, last)) if one != other)
    return first[: next(differ, min(len(first), len(last)))]


def split_of(name: str) -> str | None:
    """The split that a folder's name stands for.

    >>> split_of("Training"), split_of("val2017"), split_of("train_val"), split_of("train_extra")
    ('train', 'val', 'train', None)
    """
    found = _SPLIT.fullmatch(name)
    return next((split for split in ("train", "val", "test") if found and found[split]), None)


def split_said(name: str) -> str | None:
    """The split that a word of a folder's name stands for; None where no word does, or two differ.

    >>> split_said("Task1_Training_Input"), split_said("valImages"), split_said("testannot"), split_said("latest")
    ('train', 'val', 'test', None)
    """
    words = re.findall(r"[A-Z]?[a-z]+|[A-Z]+(?![a-z])", name)
    said = {split for word in words if (split := split_of(_GLUED.sub("", word)))}
    return split_of(name) or (said.pop() if len(said) == 1 else None)


def split_tagged(stem: str) -> tuple[str, str] | None:
    """The split that a file's name begins or ends with, and what files are called then.

    >>> split_tagged("testA_6"), split_tagged("21_training"), split_tagged("train001"), split_tagged("contest_6")
    (('test', 'testA*'), ('train', '*training'), ('train', 'train*'), None)
    """
    words = re.split(r"[\W_]+", stem)
    for word, called in ((words[0], "{}*"), (words[-1], "*{}")):
        letters = re.sub(r"\d+$", "", word)
        split = split_of(letters) or split_of(re.sub(r"(?<=[a-z])[A-Z]$", "", letters))
        if split:
            return split, called.format(letters if called == "{}*" else word)
    return None


def hidden(name: str) -> bool:
    """Of the system or of a network drive, not of the user's."""
    return name.startswith(".") or name in ("Thumbs.db", "__MACOSX", "@eaDir")
