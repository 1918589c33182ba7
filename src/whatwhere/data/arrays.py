"""Arrays as a data folder, so that they go the same way as files: found, checked, planned, read. Knows no classes."""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import tifffile
from numpy.typing import NDArray
from torch import Tensor

from whatwhere.data.images import filled
from whatwhere.errors import DataError, in_a_line

__all__ = ["as_array", "naming_arrays", "write_arrays"]

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


def as_array(given: Any) -> NDArray[Any]:
    """What numpy makes of it, masked where it is; a tensor may be on a GPU or have a gradient.

    Raises whatever numpy does of rows of several lengths, or a tensor of bfloat16: ValueError, TypeError, RuntimeError.
    """
    given = given.detach().cpu() if isinstance(given, Tensor) else given
    return given if isinstance(given, np.ma.MaskedArray) else np.asarray(given)


def write_arrays(images: Iterable[Any], masks: Iterable[Any] | None, root: Path) -> Path:
    """Writes arrays as files of a data folder, which is handed back; their names are their places, from 0.

    What is masked, of an image or of its mask (numpy's masked arrays), does not count.

    Raises:
        DataError: not as many masks as images, something that is no picture, channels that come first, or masks that
            hold a channel for each class.
    """
    images = _listed(images, "images")
    masks = None if masks is None else _listed(masks, "masks")
    if masks is None or len(images) != len(masks) or not len(images):
        raise DataError(
            f"{len(images)} images and {'no' if masks is None else len(masks)} masks",
            "as many masks as images, and one at least",
            "give both as sequences of arrays",
        )
    hot = set()
    for index, image, mask in zip(range(len(images)), images, masks):
        pair = _picture(image, f"image {index}"), _picture(mask, f"mask {index}")
        _refuse_channels_first(*pair, index)
        hot.add(_one_hot(pair[1]))
        for kind, values in zip(("image", "mask"), _without_masked(*pair, index)):
            path = root / f"{kind}s" / f"{index:06d}.tif"
            path.parent.mkdir(parents=True, exist_ok=True)
            rgb = values.ndim == 3 and values.shape[-1] == 3 and values.dtype == np.uint8
            planar = "contig" if values.ndim == 3 else None
            tifffile.imwrite(path, values, photometric="rgb" if rgb else "minisblack", planarconfig=planar)
    if len(hot) == 1:  # all masks say the same
        _refuse_one_hot(*hot.pop())
    return root


def _listed(given: Iterable[Any], what: str) -> Sequence[Any]:
    """What can be counted and looked at again: of an iterator, a list."""
    listed: Any = list(given) if isinstance(given, Iterator) else given
    try:
        len(listed)
    except TypeError as error:
        raise DataError(
            f"the {what} are a {type(given).__name__}",
            "a sequence of arrays",
            "give a list of them, or the folder of images/ and masks/",
        ) from error
    return listed  # type: ignore[no-any-return]


def _picture(given: Any, name: str) -> NDArray[Any]:
    """An array that a file can hold; a single channel needs no axis."""
    try:
        array = as_array(given)
    except (TypeError, ValueError, RuntimeError) as error:  # rows of several lengths, a tensor of bfloat16
        raise DataError(f"{name} is no array ({in_a_line(error)})", _WANTED, "make it one by numpy.asarray") from error
    if array.dtype.kind not in "biuf" or array.ndim not in (2, 3) or not array.size:
        named = isinstance(given, str | Path)
        raise DataError(
            f"{name} is {str(given)!r}" if named else f"{name} has shape {array.shape} and dtype {array.dtype}",
            _WANTED,
            "read the file first, or give the folder of images/ and masks/" if named else "give one array an image",
        )
    array = array[..., 0] if array.shape[2:] == (1,) else array
    return array.astype(np.uint8) if array.dtype == bool else array


def _refuse_channels_first(image: NDArray[Any], mask: NDArray[Any], index: int) -> None:
    """As tensors have them. A mask has few channels; of an image its mask tells which axes are its height and width."""
    last = "{0}.permute(1, 2, 0) of a tensor, {0}.transpose(1, 2, 0) of an array"
    if mask.ndim == 3 and mask.shape[0] < min(mask.shape[1:]):
        planes = f"mask.argmax(0) of a plane for each class; of colours {last.format('mask')}"
        raise DataError(
            f"mask {index} has shape {mask.shape}",
            "HxW class ids, or HxWx3 colours",
            f"give {'mask[0]' if mask.shape[0] == 1 else planes}",
        )
    if image.ndim == 3 and image.shape[1:] == mask.shape[:2] != image.shape[:2]:
        raise DataError(
            f"image {index} has shape {image.shape}, its mask {mask.shape}",
            "HxWxC",
            f"move the channels last: {last.format('image')}",
        )


def _one_hot(mask: NDArray[Any]) -> tuple[int, float]:
    """How many channels, of which one is set in each pixel, and to what number; that is 0 for any other mask."""
    if mask.ndim == 2:
        return 1, 0
    once = (np.count_nonzero(mask, axis=-1) == 1) & (mask.max(axis=-1) == mask.max())
    return mask.shape[-1], float(mask.max()) if once.all() else 0


def _refuse_one_hot(channels: int, value: float) -> None:
    """A channel for each class, which would be taken for colours. Full red, green and blue may be meant as such."""
    if not value:
        return
    if (channels, value) == (3, 255):
        warnings.warn(
            "the masks hold pure red, green and blue: these colours are the classes, blue the first and red the last; "
            "if each channel is a class, give mask.argmax(-1)",
            stacklevel=5,
        )
        return
    raise DataError(
        f"the masks have {channels} channels, of which one is {value:g} and all others are 0 in every pixel",
        "one class id a pixel",
        "one-hot: give mask.argmax(-1)",
    )


def _without_masked(image: NDArray[Any], mask: NDArray[Any], index: int) -> tuple[NDArray[Any], NDArray[Any]]:
    """Plain arrays: -1, which no class has, where the image or its mask is masked, and there the image's mean."""
    hidden = [np.ma.getmaskarray(one).reshape(*one.shape[:2], -1).any(axis=-1) for one in (image, mask)]
    image, mask = np.ma.getdata(image), np.ma.getdata(mask)
    if hidden[0].any():
        image = filled(image.reshape(*image.shape[:2], -1), np.logical_not(hidden[0])).reshape(image.shape)
    for lacking in hidden:
        if lacking.any() and lacking.shape == mask.shape[:2]:
            if mask.ndim == 3:
                raise DataError(f"mask {index} is of colours, and masked", "class ids where it is", "")
            mask = np.where(lacking, np.int64(-1), mask)
    return image, mask


def _named(text: str, root: Path) -> str:
    """With the arrays in place of their files and of these' names.

    >>> _named("/tmp/x/masks/000120.tif is dark, 000003 (images/000003.tif) too; 0.000003", Path("/tmp/x"))
    'mask 120 is dark, image 3 (image 3) too; 0.000003'
    """
    text = re.sub(rf"(?:{re.escape(str(root))}/)?(image|mask)s/0{{0,5}}(\d+)\.tif", r"\1 \2", text)
    text = re.sub(r"(?<![\d.,])(?=\d{6}\b)0{1,5}(\d+)", r"image \1", text)
    return text.replace(str(root), "the data")
