"""What to do with a folder that is not laid out as images and masks, told by its names. Opens no file."""

from __future__ import annotations

import os
import re
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path, PurePosixPath

from whatwhere.data.images import IMAGE_SUFFIXES
from whatwhere.data.names import bare, hidden, pair_by_cores, pair_by_names, split_of
from whatwhere.errors import DataError

__all__ = ["LAYOUT", "no_pairs", "remedy"]

LAYOUT = "images/ and masks/ with equal file stems, or train/, val/ and test/ each holding that pair"

_FILES, _DEPTH = 300, 4
"""Of a folder so many files are looked at, the first by name, and so deep; of folders fewer the deeper they lie."""

_MASKS = re.compile(r"mask|label|seg|annot|ground.?truth|manual|semantic|vessel|(?<![a-z])(ann|gt)", re.IGNORECASE)
"""What the names of folders of masks, and what only masks' names end with, are made of."""

_OUTLINES = ("json", "xml", "geojson", "txt")
"""As COCO and LabelMe, Pascal VOC, QuPath and YOLO write them."""
_DRAW = "draw the outlines into masks first, with the program that wrote them"
_SLICE = "write their slices as TIFF or PNG files first"
_WRITE = "write the arrays as PNG or TIFF files first: PIL.Image.fromarray(mask.astype('uint8')).save('a.png')"
_CONVERTED = {
    **dict.fromkeys(_OUTLINES, _DRAW),
    **dict.fromkeys(("nii", "nii.gz", "dcm", "mha", "nrrd"), _SLICE),
    **dict.fromkeys(("mat", "npy", "npz", "h5"), _WRITE),
    **dict.fromkeys(("gz", "zip", "tar"), "unpack them first"),
}
_A_MASK = "a mask for each image: a PNG of the same name with a class id a pixel"


def remedy(root: Path, is_data: Callable[[Path], bool]) -> str:
    """What to do with a folder without images/ and masks/.

    Args:
        is_data: whether a folder is laid out as it should be.
    """
    files = _glimpse(root, _DEPTH)
    images = [path for path in files if _is_image(path)]
    folders = {folder for path in files for folder in path.parents if 0 < len(folder.parts) < 3}
    return (
        _inside(root, [folder for folder in folders if is_data(root / folder)], images)
        or _renamed(images)
        or _sorted_by_ending(images)
        or _converted(images, [path for path in files if not _is_image(path)])
        or "arrange the files so, or give another folder"
    )


def _glimpse(place: Path, depth: int) -> list[PurePosixPath]:
    """Some of the files below a folder, relative to it; none where it can't be read."""
    files: list[PurePosixPath] = []
    with suppress(OSError), os.scandir(place) as found:
        entries = sorted((entry.is_dir(), entry.name) for entry in found if not hidden(entry.name))
        files += [PurePosixPath(name) for is_folder, name in entries if not is_folder][:_FILES]
        for folder in [name for is_folder, name in entries if is_folder][: 2**depth] if depth > 1 else ():
            files += [folder / path for path in _glimpse(place / folder, depth - 1)]
    return files


def _inside(root: Path, found: Sequence[PurePosixPath], images: Iterable[PurePosixPath]) -> str:
    """Where a folder below is meant, or several that are one data set; or there is one for each image."""
    depth = min((len(folder.parts) for folder in found), default=0)
    nearest = sorted(folder for folder in found if len(folder.parts) == depth)
    if not nearest:
        return ""
    first, *others = nearest
    held = Counter(path.parent for path in images)
    own = [[held[folder] for folder in held if folder.parent == one] for one in nearest]
    if others and sum(len(counts) == 2 and min(counts) == 1 for counts in own) * 2 > len(nearest):
        return (
            "each image has a folder of its own, with a mask for each object: merge these into one mask, named like "
            "the image (numpy.maximum), and gather all in images/ and masks/"
        )
    gathered = f"; or gather all in images/ and masks/, with a folder {first.name}/ and so on in both" if others else ""
    return f"give {root / first}{', or another like it' if others else ''}{gathered}"


def _renamed(images: Sequence[PurePosixPath]) -> str:
    """Where two folders hold the images and their masks under other names."""
    places: dict[PurePosixPath, dict[str, dict[str, Path]]] = defaultdict(lambda: defaultdict(dict))
    for path in images:
        for place in path.parents[1:]:
            folder, *below = path.relative_to(place).parts
            places[place][folder][bare(PurePosixPath(*below)).as_posix()] = Path(path)
    for place in sorted(places, key=lambda place: (len(place.parts), place)):
        found = {
            folder: masks for folder, files in places[place].items() if not _MASKS.search(folder)
            if (masks := [
                other for other, beside in places[place].items() if _are_masks(folder, other) and _fit(files, beside)
            ])
        }  # fmt: skip
        for folder, masks in found.items():
            home = place / folder if split_of(folder) else place
            which = ", the one that has a class a pixel," if len(masks) > 1 else ""
            likewise = ", and the others likewise" if split_of(folder) and len(found) > 1 else ""
            meant = " or ".join(f"{place / mask}/" for mask in masks)
            return f"move {place / folder}/ to {home / 'images'}/ and {meant}{which} to {home / 'masks'}/{likewise}"
    return ""


def _are_masks(folder: str, other: str) -> bool:
    """Whether another folder's name says that it has masks, of that split if the folder is called one."""
    return bool(_MASKS.search(other)) and (split_of(folder) is None or other.lower().startswith(folder.lower()))


def _fit(images: Mapping[str, Path], masks: Mapping[str, Path]) -> bool:
    """Whether most have a mask, or lie in the same folders, where there are folders."""
    for pair in (pair_by_names, pair_by_cores):
        samples, _ = pair(dict(images), dict(masks))
        if 2 * sum(sample.mask is not None for sample in samples) >= min(len(images), len(masks)):
            return True
    here, there = ({name.rpartition("/")[0] for name in names} for names in (images, masks))
    return len(here) > 1 and here == there


def _sorted_by_ending(images: Sequence[PurePosixPath]) -> str:
    """Where images and masks lie in one folder, and what the masks' names end with tells them apart."""
    stems = {bare(path).as_posix() for path in images}
    ending = defaultdict[str, set[str]](set)
    for stem in stems:
        words = stem.split("_")
        for place in range(max(1, len(words) - 2), len(words)):  # a mask may end with two, as in 000_img_cp_masks
            end = "_".join(words[place:])
            if re.search("[a-z]", end, re.IGNORECASE) and "/" not in end:
                ending[end].add("_".join(words[:place]))
    for end in sorted(ending, key=lambda end: (not _MASKS.search(end), -len(ending[end]), end)):
        sure = _MASKS.search(end)
        others = stems.union(*(names for other, names in ending.items() if sure and other != end))
        if len(ending[end]) > 1 and len(ending[end] & others) * 2 > len(ending[end]):
            folders = ", in folders as now" if any(len(path.parts) > 1 for path in images) else ""
            given = "" if sure else f"if *_{end}.* are the masks: "
            numbered = any(re.search(rf"_{re.escape(end)}_\d+$", stem) for stem in stems)  # further ones of an image
            which = f"*_{end}.* and *_{end}_*.*" if numbered else f"*_{end}.*"
            return f"{given}move {which} to masks/ and the other images to images/{folders}"
    return ""


def _converted(images: Sequence[PurePosixPath], others: Iterable[PurePosixPath | Path]) -> str:
    """Where images or masks are files of another kind."""
    kinds = Counter(kind for path in others if (kind := _kind(path)))
    for kind, count in kinds.most_common():
        many = 2 * count >= len(images) or kind in ("json", "geojson")  # COCO writes one for all images
        if many and (images or kind not in _OUTLINES):
            found = f"there are {count} .{kind} files: " if count > 1 else f"there is a .{kind} file: "
            return found + _CONVERTED[kind]
    return ""


def _kind(path: PurePosixPath | Path) -> str:
    """What a file is called that is to be converted, by the longest ending that is known; else nothing."""
    ends = path.name.lower().split(".")[1:]
    return next((end for k in range(len(ends)) if (end := ".".join(ends[k:])) in _CONVERTED), "")


def _is_image(path: PurePosixPath | Path) -> bool:
    return path.suffix.lower() in IMAGE_SUFFIXES


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
        return DataError(found, LAYOUT, _converted((), ignored) or copy)
    if not masks:
        return _no_masks(root, pair[1], images, ignored, beside)
    examples = f"({' and '.join(path.relative_to(root).as_posix() for path in (*images[:1], *masks[:1]))})"
    found = f"{root} has {len(images)} images and {len(masks)} masks, but no name in common {examples}"
    by_stem = {bare(path).name.lower(): path for path in images}
    same = [path for path in masks if bare(path).name.lower() in by_stem]
    if len(same) * 2 > len(masks):
        return _other_folders(root, pair, by_stem[bare(same[0]).name.lower()], same)
    todo = "give each mask the name of its image" if images else f"copy the images into {pair[0]}"
    if images and len(masks) > len(images):
        todo = f"choose one mask of each image, or merge them into one (numpy.maximum), and {todo}"
    elif masks and len(images) % len(masks) == 0 and len(images) > len(masks):
        todo = f"{todo}; if {len(images) // len(masks)} images are channels of one, write these into one file first"
    return DataError(found, LAYOUT, todo)


def _no_masks(
    root: Path, place: Path, images: Sequence[Path], ignored: Sequence[Path], beside: Iterable[Path]
) -> DataError:
    names = {bare(path).name: path for path in images}
    near = [
        folder for folder in beside if folder.is_dir() and _MASKS.search(folder.name)
        if _fit(names, {bare(path).as_posix(): Path(path) for path in _glimpse(folder, 1) if _is_image(path)})
    ]  # fmt: skip
    if near:
        found = " and ".join(f"{folder.relative_to(root).as_posix()}/" for folder in near)
        which = "it" if len(near) == 1 else "the one that has a class a pixel"
        return DataError(
            f"{root} has {len(images)} images and no masks in {place.name}/, but {found} beside with the same names",
            LAYOUT,
            f"rename {place.name}/, and call {which} masks/",
        )
    whole = place.parent.relative_to(root).as_posix()
    if whole != "." and _fit(names, {bare(path).name: Path(path) for path in _glimpse(place.parent, 1)}):
        return DataError(
            f"{root} has {len(images)} images in folders, and masks of the same names in {whole}/ that are in none",
            LAYOUT,
            f"divide {whole}/ as the images are: {place.relative_to(root).as_posix()}/ and so on",
        )
    kind, count = next(iter(Counter(filter(None, map(_kind, ignored))).most_common(1)), ("", 0))
    if not kind:
        return DataError(f"{root} has {len(images)} images and no masks", _A_MASK, f"put them into {place}")
    hold = ", which hold outlines" if kind in _OUTLINES else ""
    return DataError(
        f"{root} has {len(images)} images and no masks, but {count} .{kind} files{hold}", _A_MASK, _CONVERTED[kind]
    )


def _other_folders(root: Path, pair: tuple[Path, Path], image: Path, masks: Sequence[Path]) -> DataError:
    """Names are equal, and the folders that they lie in are not."""
    of_one = [path for path in masks if bare(path).name.lower() == bare(image).name.lower()]
    target = (pair[1] / image.parent.relative_to(pair[0])).relative_to(root).as_posix()
    places = " or ".join(dict.fromkeys(f"{path.parent.relative_to(root).as_posix()}/" for path in of_one))
    examples = " and ".join(path.relative_to(root).as_posix() for path in (image, of_one[0]))
    return DataError(
        f"{root} has masks with the names of images, but in other folders ({examples})",
        "folders of images that are mirrored in the folder of masks",
        f"move what is in {places} to {target}/, and the others likewise",
    )
