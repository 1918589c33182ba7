"""An image file of any kind to something that reads windows. Knows formats; knows nothing of networks."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

import numpy as np

from whatwhere.data.folder import files_below, is_broken, mask_folders
from whatwhere.data.images import IMAGE_SUFFIXES, check_text, decoded_bytes, image_size, opaque, read_image_and_tags
from whatwhere.data.tiffs import TIFF_SUFFIXES
from whatwhere.errors import DataError, ModelError
from whatwhere.paint.geotiff import GeoSource, is_geotiff
from whatwhere.paint.sources import WHOLE, ArraySource, Pixels, Reading, Source, Valid, no_level
from whatwhere.paint.tiff import TiffSource, lacks_data
from whatwhere.paint.zarrs import ZarrSource, is_zarr
from whatwhere.records import Box

__all__ = ["LARGE", "Opaque", "check_name", "find_images", "fitted", "is_image", "open_image", "state_of", "whole_path"]

LARGE = 2**24
"""Images of more pixels than this are read and written by windows, and continue where an interrupted run stopped."""

_DEEP = 4
"""Bytes for each of so many pixels: TIFFs that take more are read by windows too, such as those of many channels."""


def is_image(path: Path) -> bool:
    """Whether a name looks like an image's; ``.zarr`` folders are images too, and links to files that are not there."""
    return is_zarr(path) or is_broken(path) or (path.is_file() and path.suffix.lower() in IMAGE_SUFFIXES)


def open_image(path: Path, how: Reading = WHOLE) -> Source:
    """Opens an image; ``DataError`` names what is wrong with it.

    Args:
        path: a picture (PNG, JPEG, WebP ...), TIFF, GeoTIFF, or the folder of a Zarr array or OME-Zarr image.
        how: which level of a pyramid, and what Zarr chunks mean that are not there.
    """
    if is_zarr(path):
        return ZarrSource(path, how)
    if path.is_dir():
        raise DataError(f"{path} is a folder", "an image, or a Zarr folder", "name the images inside it")
    if path.suffix.lower() in TIFF_SUFFIXES and path.is_file():
        if is_geotiff(path):
            return GeoSource(path, how.level)
        height, width = image_size(path)
        if height * width > LARGE or how.level:
            return TiffSource(path, how.level)
        if decoded_bytes(path) > _DEEP * LARGE or lacks_data(path):
            with suppress(DataError):  # such as one strip: it is read whole, or that says what to do
                return TiffSource(path)
    pixels, valid, orientation = read_image_and_tags(path)
    if valid is not None:
        pixels = np.ma.array(pixels, mask=np.broadcast_to(~valid[..., None], pixels.shape))
    image = ArraySource(pixels, str(path), turned=orientation != 1)
    if how.level:
        raise no_level(image.name, how.level, [image.size])
    return image


def state_of(path: Path) -> tuple[int, int]:
    """Bytes and time of the last change (ns) of an image, of all files of a Zarr folder: changed if it was rewritten.

    A file more or less counts as well: it is added to the bytes.
    """
    try:
        if not path.is_dir():
            found = path.stat()
            return found.st_size, found.st_mtime_ns
        states = [entry.stat() for entry in path.rglob("*") if entry.is_file()]
    except OSError as error:
        raise DataError(f"{path} can't be read ({error.strerror})", "an image that is there", "try again") from error
    return len(states) + sum(one.st_size for one in states), max((one.st_mtime_ns for one in states), default=0)


def whole_path(path: Path) -> Path:
    """By which an image is known, however it was spelt. No link is followed."""
    return Path(os.path.abspath(path))  # noqa: PTH100


def find_images(folder: Path) -> list[Path]:
    """All images below a folder, sorted; what is inside a Zarr folder belongs to it. Hidden names are passed over.

    Of a data folder these are its images alone, not the masks.
    Links to folders are followed, but not round in a circle. ``DataError`` where a folder can't be read.
    """
    if is_zarr(folder):
        return [folder]
    try:
        masks = set(mask_folders(folder))
        entries = list(files_below(folder, lambda entry: is_zarr(entry) or _is_partial(entry) or entry in masks))
    except OSError as error:
        raise DataError(
            f"{error.filename or folder} cannot be opened ({error.strerror})",
            "a readable folder",
            "name those beside it",
        ) from error
    found = [entry for entry in entries if is_image(entry) and not _is_partial(entry) and entry not in masks]
    for entry in found:
        check_name(entry)
    return found


def _is_partial(entry: Path) -> bool:
    """What an interrupted painting has left."""
    return entry.name.endswith(".partial")


def check_name(path: Path) -> None:
    """``DataError`` for a name that can't be written into a report or a ledger."""
    check_text(str(path), "there is")


def fitted(source: Source, channels: int) -> Source:
    """The source, without an alpha channel that says nothing where the model expects none."""
    return Opaque(source) if channels in (1, 3) and source.channels == channels + 1 else source


class Opaque:
    """An image with an alpha channel that is opaque wherever there is data, as if it had none.

    Raises:
        ModelError: when a window is read that is not opaque.
    """

    def __init__(self, source: Source) -> None:
        self.inside = source
        self.name, self.size, self.dtype = source.name, source.size, source.dtype
        self.channels = source.channels - 1

    def read(self, box: Box) -> tuple[Pixels, Valid | None]:
        pixels, valid = self.inside.read(box)
        alpha = pixels[..., -1]
        hides = alpha != opaque(alpha.dtype)
        if (hides if valid is None else hides & valid).any():
            raise ModelError(
                f"{self.name} has {pixels.shape[-1]} channels, the last of them between {alpha.min()} and "
                f"{alpha.max()}",
                f"{self.channels} channels, as the images the model was trained on",
                "if the last is alpha, flatten it onto a background; if it is a band of its own, leave it out",
            )
        return pixels[..., :-1], valid

    def close(self) -> None:
        self.inside.close()
