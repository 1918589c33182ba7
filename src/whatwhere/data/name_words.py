"""What single names say of files and folders: masks, views of them, or what is to be converted. Opens no file."""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Collection, Iterable, Sequence
from contextlib import suppress
from pathlib import Path, PurePosixPath

from whatwhere.data.images import IMAGE_SUFFIXES
from whatwhere.data.names import hidden, split_said

__all__ = [
    "A_MASK",
    "BY_PIXEL",
    "CONVERTED",
    "DEPTH",
    "IMAGES",
    "MASKS",
    "OUTLINES",
    "TO_LEARN",
    "VIEWS",
    "converted",
    "glimpse",
    "is_image",
    "is_zarr",
    "kind_of",
    "main_kind",
    "no_image",
    "one_of",
    "run_lengths",
]

MASKS = re.compile(r"mask|label|seg|anno|ground.?truth|manual|semantic|vessel|target|(?<![a-z])(ann|gt)", re.IGNORECASE)
"""What the names of folders of masks, and what only masks' names begin or end with, are made of."""

VIEWS = re.compile(r"viz|visual|overlay|colou?r|preview|(?<![a-z])vis(?![a-z])", re.IGNORECASE)
"""What is made to be looked at: no masks."""

IMAGES = re.compile(
    r"(?<![a-z])(im(age|g)s?|rgb|photos?|sat|raw|input|org|orig(inal)?)(?![a-z])|leftImg8bit", re.IGNORECASE
)
_NO_IMAGES = re.compile(MASKS.pattern + r"|instance|panoptic|track|(?<![a-z0-9])(tra|st)(?![a-z])", re.IGNORECASE)
"""TRA and ST hold label images of the Cell Tracking Challenge."""

OUTLINES = ("json", "xml", "geojson", "txt")
"""As COCO and LabelMe, Pascal VOC, QuPath and YOLO write them."""
A_MASK = "a mask for each image: a PNG of the same name with a class id a pixel"
BY_PIXEL = "the one that has a class a pixel"
TO_LEARN = "the one that is to be learnt from"
"""Which of several is meant: of masks, and of images."""
_DRAW = "draw the outlines into masks first, with the program that wrote them"
_SLICE = "write their slices as TIFF or PNG files first"
_WRITE = "write the arrays as PNG or TIFF files first: PIL.Image.fromarray(mask.astype('uint8')).save('a.png')"
_SAVE = "save them as PNG first"
_TAKE_OUT = "write them as TIFF or PNG files first: Zarr is painted, and not learnt from"
CONVERTED = {
    **dict.fromkeys(OUTLINES, _DRAW),
    **dict.fromkeys(("nii", "nii.gz", "dcm", "mha", "nrrd"), _SLICE),
    **dict.fromkeys(("mat", "npy", "npz", "h5"), _WRITE),
    **dict.fromkeys(("ppm", "pgm", "pnm", "jp2", "heic"), _SAVE),
    **dict.fromkeys(("gz", "zip", "tar"), "unpack them first"),
    "zarr": _TAKE_OUT,
}

DEPTH = 4
"""So deep it is looked at what a folder holds."""
_FILES, _FEWER = 5000, 300
"""Of a folder so many files are looked at, the first by name: of what is given and what lies in it, and of deeper."""


def glimpse(place: Path, depth: int, files: int = _FILES) -> list[PurePosixPath]:
    """Some of the files below a folder, relative to it, so deep; of folders fewer the deeper they lie.

    A Zarr folder counts as one. None where it can't be read.
    """
    seen: list[PurePosixPath] = []
    with suppress(OSError), os.scandir(place) as found:
        there = [entry for entry in found if not hidden(entry.name)]
        entries = sorted((entry.is_dir() and not is_zarr(entry), entry.name) for entry in there)
        seen += [PurePosixPath(name) for is_folder, name in entries if not is_folder][:files]
        for folder in [name for is_folder, name in entries if is_folder][: 2**depth] if depth > 1 else ():
            below = glimpse(place / folder, depth - 1, _FILES if depth == DEPTH else _FEWER)
            seen += [folder / path for path in below]
    return seen


def is_image(path: PurePosixPath | Path) -> bool:
    """Whether it ends like an image that is read."""
    return path.suffix.lower() in IMAGE_SUFFIXES


def is_zarr(entry: os.DirEntry[str] | Path) -> bool:
    """Whether a folder is called like a Zarr image: what is in it are parts of that, and no files of their own."""
    return entry.name.lower().endswith(".zarr")


def no_image(name: str) -> bool:
    """Whether a name is of masks, or of other images that have labels for pixels."""
    return bool(_NO_IMAGES.search(name))


def one_of(names: Sequence[str], which: str) -> str:
    """Of several one, and which of them."""
    return " or ".join(names) + (f", {which}," if len(names) > 1 else "")


def kind_of(path: PurePosixPath | Path) -> str:
    """What a file is called that is to be converted, by the longest ending that is known; else nothing."""
    ends = path.name.lower().split(".")[1:]
    return next((end for k in range(len(ends)) if (end := ".".join(ends[k:])) in CONVERTED), "")


def converted(images: Collection[object], others: Iterable[PurePosixPath | Path]) -> str:
    """What to do where images or masks are files of another kind."""
    kind, count = main_kind(images, others)
    found = f"there are {count} .{kind} files: " if count > 1 else f"there is a .{kind} file: "
    return found + CONVERTED[kind] if kind else ""


def main_kind(images: Collection[object], others: Iterable[PurePosixPath | Path]) -> tuple[str, int]:
    """Of what kind the files are that may be images or masks, and how many; nothing where none may."""
    kinds = Counter(kind for path in others if (kind := kind_of(path)))
    for kind, count in kinds.most_common():
        many = 2 * count >= len(images) or kind in ("json", "geojson")  # COCO writes one for all images
        if many and (images or kind not in OUTLINES):
            return kind, count
    return "", 0


def run_lengths(images: Sequence[PurePosixPath], others: Iterable[PurePosixPath]) -> str:
    """Where masks may be in a table."""
    tables, folders = (
        sorted(names, key=lambda name: (split_said(name) != "train", name))  # not sample_submission.csv
        for names in (
            [path.name for path in others if path.suffix.lower() == ".csv"],
            {path.parts[0] for path in images},
        )
    )
    if not folders or not tables:
        return ""
    move = f", and move {folders[0]}/ to images/" if len(images[0].parts) > 1 and folders[0] != "images" else ""
    draw = "draw them into masks/ first: a PNG for each image, of the same name, with a class id a pixel"
    return f"if {tables[0]} holds masks as run lengths, {draw}{move}"
