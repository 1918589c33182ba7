"""What to do with a folder that is not laid out as images and masks, told by its names. Opens no file."""

from __future__ import annotations

import posixpath
import re
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path, PurePosixPath

from whatwhere.data.mixed_files import sorted_by_names
from whatwhere.data.name_words import (
    BY_PIXEL,
    DEPTH,
    MASKS,
    OUTLINES,
    TO_LEARN,
    VIEWS,
    converted,
    glimpse,
    is_image,
    kind_of,
    no_image,
    one_of,
    run_lengths,
)
from whatwhere.data.names import bare, pair_by_cores, pair_by_names, split_of, split_said

__all__ = ["LAYOUT", "fit", "remedy"]

LAYOUT = "images/ and masks/ with equal file stems, or train/, val/ and test/ each holding that pair"

_DEPTHS = ((1, 1), (1, 2), (2, 1), (2, 2))
"""How deep the folders of images and of masks lie in a place: the nearest first."""
_ORDER = ("train", None, "val", "test")
"""Of several parts of a data set that one is named which is to be learnt from."""
_SIDE = re.compile("left|right", re.IGNORECASE)
"""Lungs, of which each side has its masks."""

_Named = dict[str, Path]
_Folders = Mapping[PurePosixPath, _Named]


def remedy(root: Path, is_data: Callable[[Path], bool]) -> str:
    """What to do with a folder without images/ and masks/.

    Args:
        is_data: whether a folder is laid out as it should be.
    """
    files = glimpse(root, DEPTH)
    images = [path for path in files if is_image(path)]
    others = [path for path in files if not is_image(path)]
    folders = {folder for path in files for folder in path.parents if 0 < len(folder.parts) < 3}
    places = _places(images)
    return (
        _inside(root, [folder for folder in folders if is_data(root / folder)], images)
        or _renamed(places)
        or _undivided(places)
        or sorted_by_names(images)
        or _masks_alone(images, others)
        or converted(images, others)
        or run_lengths(images, others)
        or _around(root, is_data)
        or "arrange the files so, or give another folder"
    )


def _inside(root: Path, found: Sequence[PurePosixPath], images: Iterable[PurePosixPath]) -> str:
    """Where a folder below is meant, or several that are one data set; or there is one for each image."""
    depth = min((len(folder.parts) for folder in found), default=0)
    nearest = sorted(
        (folder for folder in found if len(folder.parts) == depth),
        key=lambda folder: (_ORDER.index(_split_in(folder)), folder),
    )
    if not nearest:
        return ""
    first, *others = nearest
    splits = [_split_in(folder) for folder in nearest]
    if depth == 1 and splits[0] == "train" and None not in splits and len(set(splits)) == len(splits) > 1:
        return (
            f"rename {first}/ to train/, and the others likewise (to {' and '.join(f'{one}/' for one in splits[1:])})"
        )
    held = Counter(path.parent for path in images)
    own = [[held[folder] for folder in held if folder.parent == one] for one in nearest]
    if others and sum(len(counts) == 2 and min(counts) == 1 for counts in own) * 2 > len(nearest):
        return (
            "each image has a folder of its own, with a mask for each object: merge these into one mask, named like "
            "the image (numpy.maximum), and gather all in images/ and masks/"
        )
    gathered = f"; or gather all in images/ and masks/, with a folder {first.name}/ and so on in both" if others else ""
    return f"give {root / first}{', or another like it' if others else ''}{gathered}"


@dataclass(frozen=True)
class _Part:
    """Folders of a place that hold images, and those that hold their masks.

    Attributes:
        images: one of them is meant, unless ``together``.
        masks: one of them is meant.
        together: no image of one has a name of another's.
    """

    place: PurePosixPath
    images: tuple[PurePosixPath, ...]
    masks: tuple[PurePosixPath, ...]
    together: bool

    @property
    def split(self) -> str | None:
        """The split that its folders' names say."""
        return _split_in(self.place) or _split_in(self.images[0])


def _around(root: Path, is_data: Callable[[Path], bool]) -> str:
    """Where one of the folders of a data set was given."""
    above = root.resolve().parent
    return f"give {above}, which holds images and masks" if is_data(above) else ""


def _places(images: Iterable[PurePosixPath]) -> Mapping[PurePosixPath, _Folders]:
    """The folders of each place, up to two deep, and by name the images in each."""
    places: dict[PurePosixPath, dict[PurePosixPath, _Named]] = defaultdict(lambda: defaultdict(dict))
    for path in images:
        for place in path.parents[1:]:
            inside = path.relative_to(place).parts
            for depth in range(1, min(3, len(inside))):
                name = bare(PurePosixPath(*inside[depth:])).as_posix()
                places[place][PurePosixPath(*inside[:depth])][name] = Path(path)
    return places


def _renamed(places: Mapping[PurePosixPath, _Folders]) -> str:
    """Where folders hold the images and their masks under other names."""
    for depths in _DEPTHS:
        parts = [part for place, folders in places.items() for part in _parts(place, folders, *depths)]
        depth = min((len(part.place.parts) for part in parts), default=0)
        if nearest := [part for part in parts if len(part.place.parts) == depth]:
            return _moves(sorted(nearest, key=lambda part: (_ORDER.index(part.split), part.place, part.images)))
    return ""


def _undivided(places: Mapping[PurePosixPath, _Folders]) -> str:
    """Where images are divided, and their masks lie together."""
    for place, folders in sorted(places.items(), key=lambda item: len(item[0].parts)):
        masks = [folder for folder in folders if len(folder.parts) == 1 and MASKS.search(folder.name)]
        masks = [folder for folder in masks if not VIEWS.search(folder.name) and not _split_in(folder)]
        divided = [folder for folder in folders if _split_in(folder) and not _are_labels(folder, folders[folder])]
        for meant, depth in product(masks, (1, 2)):
            parts = [folder for folder in divided if len(folder.parts) == depth]
            splits = {_split_in(folder): folder for folder in parts}
            if len(splits) == len(parts) > 1 and all(fit(folders[one], folders[meant]) for one in parts):
                moves = [f"{place / folder}/ to {place / 'images'}/{split}/" for split, folder in splits.items()]
                first = place / "masks" / str(next(iter(splits)))
                return f"move {' and '.join(moves)}, and divide {place / meant}/ likewise: {first}/ and so on"
    return ""


def _parts(place: PurePosixPath, folders: _Folders, depth: int, mask_depth: int) -> Iterator[_Part]:
    """Folders of images with the folders beside that hold their masks; together where the masks are the same."""
    found = defaultdict[tuple[PurePosixPath, ...], list[PurePosixPath]](list)
    for folder, files in folders.items():
        if len(folder.parts) != depth or _are_labels(folder, files):
            continue
        fitting = [
            other for other, masks in folders.items()
            if len(other.parts) == mask_depth and _may_hold_masks(folder, other) and fit(files, masks)
        ]  # fmt: skip
        fitting = [other for other in fitting if MASKS.search(other.name) and not VIEWS.search(other.name)] or fitting
        if fitting := [other for other in fitting if _numbers(folder) <= _numbers(other)] or fitting:
            found[tuple(sorted(fitting))].append(folder)
    for fitted, images in found.items():
        if len(images) == 1 or all(_split_in(folder) in (None, _split_in(fitted[0])) for folder in images):
            together = len(set[str]().union(*(folders[one] for one in images))) == sum(
                len(folders[one]) for one in images
            )
            yield _Part(place, tuple(sorted(images)), fitted, together)


def _are_labels(folder: PurePosixPath, files: Iterable[str]) -> bool:
    """Whether a folder holds no images: the Cell Tracking Challenge calls its masks man_seg and man_track."""
    return no_image(folder.as_posix()) or all(re.search(r"(^|/)man_(seg|track)", name) for name in files)


def _may_hold_masks(folder: PurePosixPath, other: PurePosixPath) -> bool:
    """Whether another folder's name says that it has masks, and not of another split."""
    named = MASKS.search(other.as_posix()) and folder.parts[0] != other.parts[0]
    return bool(named) and (_split_in(folder) is None or _split_in(other) in (None, _split_in(folder)))


def _split_in(folder: PurePosixPath) -> str | None:
    return next((split for part in folder.parts if (split := split_said(part))), None)


def _numbers(folder: PurePosixPath) -> set[str]:
    return set(re.findall(r"\d+", folder.as_posix()))


def fit(images: Mapping[str, Path], masks: Mapping[str, Path]) -> bool:
    """Whether most have a mask, or lie in the same folders, where there are folders."""
    if not images or not masks:
        return False
    for pair in (pair_by_names, pair_by_cores):
        samples, _ = pair(dict(images), dict(masks))
        if 2 * sum(sample.mask is not None for sample in samples) >= min(len(images), len(masks)):
            return True
    here, there = ({name.rpartition("/")[0] for name in names} for names in (images, masks))
    return here == there != {""}


def _moves(parts: Sequence[_Part]) -> str:
    part, homes = parts[0], _homes(parts)
    (base, below), *others = homes
    images, masks = (base / kind / below for kind in ("images", "masks"))
    from_images, from_masks = ([part.place / folder for folder in found] for found in (part.images, part.masks))
    moves = [] if from_images == [images] else [f"{_one_of(from_images, TO_LEARN)} to {images}/"]
    if part.together and len(from_images) > 1:
        moves = [f"what is in {' and '.join(f'{folder}/' for folder in from_images)} to {images}/"]
    if len(from_masks) > 1 and all(_SIDE.search(folder.name) for folder in from_masks):
        moves.append(
            f"{' and '.join(f'{folder}/' for folder in from_masks)}, merged into one mask an image, to {masks}/"
        )
    elif from_masks != [masks]:
        moves.append(f"{_one_of(from_masks, BY_PIXEL)} to {masks}/")
    bases = dict.fromkeys(f"{other}/" for other, _ in others if other != base)
    likewise = ", and the others likewise" if others else ""
    return f"move {' and '.join(moves)}{likewise}" + (f" (to {' and '.join(bases)})" if bases else "")


def _one_of(folders: Sequence[PurePosixPath], which: str) -> str:
    return one_of([f"{folder}/" for folder in folders], which)


def _homes(parts: Sequence[_Part]) -> list[tuple[PurePosixPath, PurePosixPath]]:
    """For each part the folder that images/ and masks/ are to lie in, and the folder in these that is its own."""
    shared = PurePosixPath(posixpath.commonpath([part.place for part in parts]))
    homes = [_home(part, shared) for part in parts]
    return [
        (base, below / part.place.name / part.images[0] if homes.count((base, below)) > 1 else below)
        for part, (base, below) in zip(parts, homes)
    ]


def _home(part: _Part, shared: PurePosixPath) -> tuple[PurePosixPath, PurePosixPath]:
    words = part.place.parts
    for depth, word in enumerate(words):
        if split := split_said(word):
            return PurePosixPath(*words[:depth], word if split_of(word) else split), PurePosixPath(*words[depth + 1 :])
    if split := _split_in(part.images[0]):
        return part.place / split, PurePosixPath()
    return shared, part.place.relative_to(shared)


def _masks_alone(images: Sequence[PurePosixPath], others: Iterable[PurePosixPath]) -> str:
    """Where all that is found are masks, as CVAT hands them out."""
    found = {next((folder for folder in reversed(path.parents) if no_image(folder.name)), None) for path in images}
    folders = sorted(folder for folder in found if folder)
    if not folders or None in found or any(kind_of(path) not in ("", *OUTLINES) for path in others):
        return ""
    masks = [folder for folder in folders if MASKS.search(folder.name) and not VIEWS.search(folder.name)] or folders
    home = masks[0].parent
    here = [folder for folder in masks if folder.parent == home]
    meant = _one_of(here, BY_PIXEL)
    move = f" and move {meant} to {home / 'masks'}/" if here != [home / "masks"] else ""
    likewise = ", and the others likewise" if len(here) < len(masks) else ""
    copy = f"copy the images, named like their masks, to {home / 'images'}/"
    return f"there are masks but no images: {copy}{move}{likewise}"
