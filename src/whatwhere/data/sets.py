"""Images with their labels, ready to be asked for by number: from files or from arrays. Knows nothing of networks."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from whatwhere.data.crops import Store
from whatwhere.data.folder import Sample
from whatwhere.data.images import read_image, read_mask
from whatwhere.data.mapping import encode_mask
from whatwhere.errors import DataError
from whatwhere.records import VOID, Classes

__all__ = ["ImageSet", "from_arrays", "from_samples", "read_pair", "untold"]


@dataclass(frozen=True)
class ImageSet:
    """Images of one split.

    Attributes:
        names: one an image.
        store: ``store[i]`` is image i, ``HxWxC`` raw values, and its ``HxW`` uint8 class ids.
        part: which images of the data they are, in words; empty where nobody chose.
    """

    names: tuple[str, ...]
    store: Store
    part: str = ""

    def __len__(self) -> int:
        return len(self.names)

    def presence(self, workers: int = 2) -> tuple[tuple[int, ...], ...]:
        """For each image the ids of the classes it holds; reads every image once, which fills the store."""

        def present(index: int) -> tuple[int, ...]:
            counts = np.bincount(self.store[index][1].ravel(), minlength=VOID + 1)
            return tuple(int(class_id) for class_id in np.flatnonzero(counts[:VOID]))

        with ThreadPoolExecutor(workers) as pool:
            return tuple(pool.map(present, range(len(self))))


def read_pair(sample: Sample, classes: Classes) -> tuple[NDArray[Any], NDArray[np.uint8]]:
    """An image, ``HxWxC`` raw values, and its ``HxW`` uint8 class ids.

    Raises:
        DataError: unreadable, without a mask, of two sizes, or with mask values that are in no class.
    """
    if sample.mask is None:
        raise DataError(f"{sample.image} has no mask", "a mask with the same stem", "add it, or leave the image out")
    image = read_image(sample.image)
    labels = encode_mask(read_mask(sample.mask), classes, str(sample.mask))
    if image.shape[:2] != labels.shape:
        raise DataError(
            f"{sample.image} is {image.shape[1]}x{image.shape[0]} pixels and {sample.mask} "
            f"{labels.shape[1]}x{labels.shape[0]}",
            "an image and a mask of one size",
            "export the mask again at the image's size",
        )
    return image, labels


def from_samples(samples: Sequence[Sample], classes: Classes, limit: int, part: str = "") -> ImageSet:
    """The images of a folder's split; decoded ones are kept up to ``limit`` bytes."""
    return ImageSet(
        tuple(sample.name for sample in samples),
        Store([partial(read_pair, sample, classes) for sample in samples], limit),
        part,
    )


def from_arrays(images: Sequence[NDArray[Any]], labels: Sequence[NDArray[np.uint8]], names: Sequence[str]) -> ImageSet:
    """Arrays in memory: ``HxWxC`` images and ``HxW`` uint8 class ids (VOID does not count)."""
    pairs = [(image if image.ndim == 3 else image[..., None], label) for image, label in zip(images, labels)]
    return ImageSet(tuple(names), Store([partial(_same, pair) for pair in pairs], limit=0))


def untold(paths: Sequence[Path]) -> ImageSet:
    """Images without masks: every label is VOID."""
    return ImageSet(tuple(path.stem for path in paths), Store([partial(_read_untold, path) for path in paths], limit=0))


def _read_untold(path: Path) -> tuple[NDArray[Any], NDArray[np.uint8]]:
    image = read_image(path)
    return image, np.full(image.shape[:2], VOID, np.uint8)


def _same(pair: tuple[NDArray[Any], NDArray[np.uint8]]) -> tuple[NDArray[Any], NDArray[np.uint8]]:
    return pair
