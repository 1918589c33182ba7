"""Images with their labels, ready to be asked for by number: from files or from arrays. Knows nothing of networks."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from whatwhere.data.crops import Store
from whatwhere.data.folder import Sample, bare
from whatwhere.data.images import (
    image_size,
    pixel_digest,
    read_image,
    read_image_and_valid,
    read_mask_and_palette,
    without_alpha,
)
from whatwhere.data.mapping import as_classes_are, encode_mask
from whatwhere.errors import DataError
from whatwhere.records import VOID, Classes

__all__ = ["Facts", "ImageSet", "from_arrays", "from_samples", "read_pair", "untold"]

_KNOWN_BY = 8
"""Images by whose pixels a folder is known again."""

_TOLD = 20
"""Files that an error names at most."""


@dataclass(frozen=True)
class Facts:
    """An image: how many pixels and channels it has, its dtype, and the ids of the classes it holds."""

    pixels: int
    channels: int
    dtype: str
    present: tuple[int, ...]


@dataclass(frozen=True)
class ImageSet:
    """Images of one split.

    Attributes:
        names: one an image.
        store: ``store[i]`` is image i, ``HxWxC`` raw values, and its ``HxW`` uint8 class ids.
        part: which images of the data they are, in words; empty where nobody chose.
        paths: the image files; empty for arrays.
        masks: the mask file of each, or None; empty for arrays and for images that nobody has painted.
    """

    names: tuple[str, ...]
    store: Store
    part: str = ""
    paths: tuple[Path, ...] = ()
    masks: tuple[Path | None, ...] = ()

    def __len__(self) -> int:
        return len(self.names)

    def facts(self) -> tuple[Facts, ...]:
        """What each image is; reads every image once, which fills the store."""

        def look(index: int) -> Facts:
            raw, labels = self.store[index]
            counts = np.bincount(labels.ravel(), minlength=VOID + 1)
            present = tuple(int(class_id) for class_id in np.flatnonzero(counts[:VOID]))
            return Facts(labels.size, int(raw.shape[-1]), str(raw.dtype), present)

        with ThreadPoolExecutor(2) as pool:
            return tuple(pool.map(look, range(len(self))))

    def check_files(self) -> None:
        """Before long work, by the headers alone: ``DataError`` if one can't be read or has not its image's size.

        It names all such files, so that they are not found one by one, each after hours.
        """
        with ThreadPoolExecutor(8) as pool:
            problems = [problem for problem in pool.map(_problem, self.paths, self.masks) if problem]
        if len(problems) == 1:
            raise problems[0]
        if problems:
            told = ", ".join(problem.given for problem in problems[:_TOLD])
            more = f", and {len(problems) - _TOLD} more" if len(problems) > _TOLD else ""
            raise DataError(
                f"{len(problems)} of {len(self)} images can't be used: {told}{more}",
                "images that can be read, with masks of their size",
                "copy or export these again, or remove them",
            )

    def digests(self) -> dict[str, str]:
        """Of some images, evenly spread, what tells by their pixels if a folder holds them."""
        few = range(0, len(self), -(-len(self) // _KNOWN_BY))
        return {self.names[index]: pixel_digest(self.store[index][0]) for index in few}


def read_pair(sample: Sample, classes: Classes, channels: int = 0) -> tuple[NDArray[Any], NDArray[np.uint8]]:
    """An image, ``HxWxC`` raw values, and its ``HxW`` uint8 class ids; VOID where the image has no data.

    ``channels`` of 1 or 3 leave out an alpha channel beyond them that hides nothing.

    Raises:
        DataError: unreadable, without a mask, of two sizes, or with mask values that are in no class.
    """
    if sample.mask is None:
        raise DataError(f"{sample.image} has no mask", "a mask with the same stem", "add it, or leave the image out")
    image, valid = read_image_and_valid(sample.image)
    image = without_alpha(image, channels)
    mask = as_classes_are(*read_mask_and_palette(sample.mask), classes)
    labels = encode_mask(mask, classes, str(sample.mask))
    if image.shape[:2] != labels.shape:
        raise _two_sizes(sample.image, image.shape, sample.mask, labels.shape)
    return image, labels if valid is None else np.where(valid, labels, np.uint8(VOID))


def _two_sizes(image: Path, size: Sequence[int], mask: Path, other: Sequence[int]) -> DataError:
    return DataError(
        f"{image} is {size[1]}x{size[0]} pixels and {mask} {other[1]}x{other[0]}",
        "an image and a mask of one size",
        "export the mask again at the image's size",
    )


def _problem(image: Path, mask: Path | None) -> DataError | None:
    """What the headers of a pair say against it."""
    try:
        size = image_size(image)
        if mask is not None and (other := image_size(mask)) != size:
            return _two_sizes(image, size, mask, other)
    except DataError as error:
        return error
    return None


def from_samples(samples: Sequence[Sample], classes: Classes, part: str = "", *, channels: int = 0) -> ImageSet:
    """The images of a folder's split, as `read_pair` gives them; each is read whenever it is asked for."""
    return ImageSet(
        tuple(sample.name for sample in samples),
        Store([partial(read_pair, sample, classes, channels) for sample in samples], limit=0),
        part,
        tuple(sample.image for sample in samples),
        tuple(sample.mask for sample in samples),
    )


def from_arrays(images: Sequence[NDArray[Any]], labels: Sequence[NDArray[np.uint8]], names: Sequence[str]) -> ImageSet:
    """Arrays in memory: ``HxWxC`` images and ``HxW`` uint8 class ids (VOID does not count)."""
    pairs = [(image if image.ndim == 3 else image[..., None], label) for image, label in zip(images, labels)]
    return ImageSet(tuple(names), Store([partial(_same, pair) for pair in pairs], limit=sys.maxsize))


def untold(paths: Sequence[Path], root: Path | None = None, *, channels: int = 0) -> ImageSet:
    """Images without masks: every label is VOID. Their names are their paths below ``root``, or of files alone.

    ``channels`` as for `read_pair`.
    """
    whole = [path.relative_to(root) if root else Path(path.name) for path in paths]
    short = [bare(name).as_posix() for name in whole]
    counts = Counter(short)
    names = (one if counts[one] == 1 else name.as_posix() for one, name in zip(short, whole))
    store = Store([partial(_read_untold, path, channels) for path in paths], limit=0)
    return ImageSet(tuple(names), store, paths=tuple(paths))


def _read_untold(path: Path, channels: int) -> tuple[NDArray[Any], NDArray[np.uint8]]:
    image = without_alpha(read_image(path), channels)
    return image, np.full(image.shape[:2], VOID, np.uint8)


def _same(pair: tuple[NDArray[Any], NDArray[np.uint8]]) -> tuple[NDArray[Any], NDArray[np.uint8]]:
    return pair
