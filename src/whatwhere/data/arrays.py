"""Arrays as a data folder, so that they go the same way as files: found, checked, planned, read. Knows no classes."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import tifffile
from numpy.typing import NDArray

from whatwhere.errors import DataError, in_a_line

__all__ = ["naming_arrays", "write_arrays"]

_WANTED = "an array of numbers, HxW or HxWxC"


@contextmanager
def naming_arrays(root: Path) -> Iterator[None]:
    """Where a ``DataError`` from within is of files of `write_arrays`, which may soon be gone, it names the arrays."""
    try:
        yield
    except DataError as error:
        if not root.is_dir():
            raise
        parts = (_named(part, root) for part in (error.given, error.expected, error.remedy))
        raise type(error)(*parts) from None


def write_arrays(images: Sequence[NDArray[Any]], masks: Sequence[NDArray[Any]] | None, root: Path) -> Path:
    """Writes arrays as files of a data folder, which is handed back; their names are their places, from 0.

    Raises:
        DataError: not as many masks as images, or something that is no picture.
    """
    if masks is None or len(images) != len(masks) or not len(images):
        raise DataError(
            f"{len(images)} images and {'no' if masks is None else len(masks)} masks",
            "as many masks as images, and one at least",
            "give both as sequences of arrays",
        )
    for index, pair in enumerate(zip(images, masks)):
        for kind, given in zip(("image", "mask"), pair):
            values = _picture(given, f"{kind} {index}")
            path = root / f"{kind}s" / f"{index:06d}.tif"
            path.parent.mkdir(parents=True, exist_ok=True)
            rgb = values.ndim == 3 and values.shape[-1] == 3 and values.dtype == np.uint8
            planar = "contig" if values.ndim == 3 else None
            tifffile.imwrite(path, values, photometric="rgb" if rgb else "minisblack", planarconfig=planar)
    return root


def _picture(given: Any, name: str) -> NDArray[Any]:
    """An array that a file can hold."""
    try:
        array = np.asarray(given)
    except (TypeError, ValueError) as error:  # rows of several lengths, a tensor on a GPU
        raise DataError(f"{name} is no array ({in_a_line(error)})", _WANTED, "make it one by numpy.asarray") from error
    if array.dtype.kind not in "biuf" or array.ndim not in (2, 3) or not array.size:
        named = isinstance(given, str | Path)
        raise DataError(
            f"{name} is {str(given)!r}" if named else f"{name} has shape {array.shape} and dtype {array.dtype}",
            _WANTED,
            "read the file first, or give the folder of images/ and masks/" if named else "give one array an image",
        )
    return array.astype(np.uint8) if array.dtype == bool else array


def _named(text: str, root: Path) -> str:
    """With the arrays in place of their files and of these' names.

    >>> _named("/tmp/x/masks/000120.tif is dark, 000003 (images/000003.tif) too; 0.000003", Path("/tmp/x"))
    'mask 120 is dark, image 3 (image 3) too; 0.000003'
    """
    text = re.sub(rf"(?:{re.escape(str(root))}/)?(image|mask)s/0{{0,5}}(\d+)\.tif", r"\1 \2", text)
    text = re.sub(r"(?<![\d.,])(?=\d{6}\b)0{1,5}(\d+)", r"image \1", text)
    return text.replace(str(root), "the data")
