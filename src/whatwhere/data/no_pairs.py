"""What is said where no image of a folder has a mask, told by names. Opens no file."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path, PurePosixPath

from whatwhere.data.images import IMAGE_SUFFIXES
from whatwhere.data.layouts import LAYOUT, fit
from whatwhere.data.mixed_files import alternatives, sorted_by_names
from whatwhere.data.name_words import (
    A_MASK,
    BY_PIXEL,
    CONVERTED,
    DEPTH,
    MASKS,
    OUTLINES,
    converted,
    glimpse,
    is_image,
    main_kind,
    run_lengths,
)
from whatwhere.data.names import bare, split_of
from whatwhere.errors import DataError

__all__ = ["no_pairs"]

_MERGE = "merge the masks of an image into one that has its name, with a value of its own for each class"


def no_pairs(
    root: Path,
    pair: tuple[Path, Path],
    images: Sequence[Path],
    masks: Sequence[Path],
    ignored: Sequence[Path],
    beside: Sequence[Path],
) -> DataError:
    """What is said where no image has a mask.

    Args:
        pair: a folder of images and the one of masks.
        ignored: files of other kinds in them.
        beside: folders beside them.
    """
    if not images and not masks:
        found = f"{root} has folders for images and masks, but no image in them"
        if ignored:
            found += f" ({len(ignored)} other files, such as {ignored[0].name})"
        copy = "copy the images there: " + ", ".join(sorted(IMAGE_SUFFIXES))
        return DataError(found, LAYOUT, converted((), ignored) or copy)
    if not masks:
        return _no_masks(root, pair, images, ignored, beside)
    examples = f"({' and '.join(path.relative_to(root).as_posix() for path in (*images[:1], *masks[:1]))})"
    found = f"{root} has {len(images)} images and {len(masks)} masks, but no name in common {examples}"
    by_stem = {bare(path).name.lower(): path for path in images}
    same = [path for path in masks if bare(path).name.lower() in by_stem]
    if len(same) * 2 > len(masks):
        return _other_folders(root, pair, by_stem[bare(same[0]).name.lower()], same)
    if not images:
        return DataError(found, LAYOUT, converted((), ignored) or f"copy the images into {pair[0]}")
    todo = "give each mask the name of its image"
    if len(masks) > len(images):
        todo = _one_of_several(masks, len(images))
    elif len(images) % len(masks) == 0 and len(images) > len(masks):
        todo = f"{todo}; if {len(images) // len(masks)} images are channels of one, write these into one file first"
    return DataError(found, LAYOUT, todo)


def _one_of_several(masks: Sequence[Path], images: int) -> str:
    """Where an image has several masks: of each kind one, or one of each object or class."""
    kinds = alternatives([PurePosixPath(path.name) for path in masks], images)
    if kinds:
        keep = f"keep one of {', '.join(kinds)}, {BY_PIXEL}, and remove the others"
        return f"{keep}; or, where each shows another class, {_MERGE}"
    return _MERGE


def _no_masks(
    root: Path, pair: tuple[Path, Path], images: Sequence[Path], ignored: Sequence[Path], beside: Iterable[Path]
) -> DataError:
    place = pair[1]
    names = {bare(path).name: path for path in images}
    if near := [folder for folder in beside if _holds_masks_of(names, folder)]:
        return _masks_beside(root, place, len(images), near)
    whole = place.parent.relative_to(root).as_posix()
    loose = {bare(path).name: Path(path) for path in glimpse(place.parent, 1) if is_image(path)}
    if whole != "." and fit(names, loose):
        return DataError(
            f"{root} has {len(images)} images in folders, and masks of the same names in {whole}/ that are in none",
            LAYOUT,
            f"divide {whole}/ as the images are: {place.relative_to(root).as_posix()}/ and so on",
        )
    given = f"{root} has {len(images)} images and no masks"
    others = [path for path in glimpse(root, DEPTH) if not is_image(path)]
    kind, count = main_kind(images, ignored or others)
    if kind:
        hold = ", which hold outlines" if kind in OUTLINES else ""
        todo = f"{CONVERTED[kind]}, and put the masks into {place}"
        return DataError(f"{given}, but {count} .{kind} files{hold}", A_MASK, todo)
    among = _among_images(root, pair[0], images)
    todo = among or run_lengths([PurePosixPath(path.relative_to(root)) for path in images], others)
    return DataError(given, A_MASK, todo or f"put them into {place}")


def _among_images(root: Path, place: Path, images: Sequence[Path]) -> str:
    """What to move where masks lie among the images."""
    above = place.parent if split_of(place.parent.name) else root
    here = [PurePosixPath(path.relative_to(above)) for path in images if path.is_relative_to(above)]
    todo = sorted_by_names(here)
    return f"in {above.relative_to(root).as_posix()}/: {todo}" if todo and above != root else todo


def _holds_masks_of(names: Mapping[str, Path], folder: Path) -> bool:
    if not folder.is_dir() or not MASKS.search(folder.name):
        return False
    return fit(names, {bare(path).as_posix(): Path(path) for path in glimpse(folder, 1) if is_image(path)})


def _masks_beside(root: Path, place: Path, count: int, near: Sequence[Path]) -> DataError:
    """Where masks lie beside the folder that is named like masks, such as beside one of outlines."""
    here = [folder for folder in near if folder.parent == place.parent] or near
    found = " and ".join(f"{folder.relative_to(root).as_posix()}/" for folder in here)
    which = f"{here[0].relative_to(root).as_posix()}/" if len(here) == 1 else BY_PIXEL
    likewise = ", and likewise in the other splits" if len(here) < len(near) else ""
    instead = place.relative_to(root)
    return DataError(
        f"{root} has {count} images and no masks in {instead.as_posix()}/, but {found} beside with the same names",
        LAYOUT,
        f"rename {instead.as_posix()}/ to {(instead.parent / 'outlines').as_posix()}/ and {which} to "
        f"{(instead.parent / 'masks').as_posix()}/{likewise}",
    )


def _other_folders(root: Path, pair: tuple[Path, Path], image: Path, masks: Sequence[Path]) -> DataError:
    """Names are equal, and the folders that they lie in are not."""
    of_one = [path for path in masks if bare(path).name.lower() == bare(image).name.lower()]
    target = (pair[1] / image.parent.relative_to(pair[0])).relative_to(root).as_posix()
    places = " or ".join(dict.fromkeys(f"{path.parent.relative_to(root).as_posix()}/" for path in of_one))
    examples = " and ".join(path.relative_to(root).as_posix() for path in (image, of_one[0]))
    todo = f"move what is in {places} to {target}/, and the others likewise"
    if len(of_one) > 1 and not any(map(split_of, (path.parent.name for path in of_one))):
        todo = f"if each shows another class, {_MERGE}, in {target}/; else move what is in one of {places} there"
    return DataError(
        f"{root} has masks with the names of images, but in other folders ({examples})",
        "folders of images that are mirrored in the folder of masks",
        todo,
    )
