"""Read images and masks as arrays, whatever file they come in.

Every reader here returns the file's own numbers: nothing is scaled, and what a mask value means is `mapping`'s affair.
Knows nothing of folders, pairs, classes' inference or windows of images too large for memory.
"""

from __future__ import annotations

import hashlib
import math
import struct
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import imagecodecs
import numpy as np
import tifffile
from numpy.typing import NDArray
from PIL import BmpImagePlugin, GifImagePlugin, Image, ImageFile, JpegImagePlugin, PngImagePlugin, WebPImagePlugin

from whatwhere.data.tiffs import (
    TIFF_SUFFIXES,
    alpha_last,
    as_light,
    black_value,
    channel_axis,
    colors_of,
    main_series,
    no_data_value,
    open_tiff,
    stacked,
    tiff_orientation,
    tiff_shape,
    upright,
)
from whatwhere.data.values import codes_of
from whatwhere.errors import DataError, in_a_line, look_at

__all__ = [
    "DEFAULT_MAX_PIXELS",
    "IMAGE_SUFFIXES",
    "MaskTags",
    "check_text",
    "decoded_bytes",
    "filled",
    "image_size",
    "in_utf8",
    "opaque",
    "pixel_digest",
    "read_image",
    "read_image_and_tags",
    "read_image_and_valid",
    "read_mask",
    "read_mask_and_palette",
    "read_mask_and_tags",
    "reading",
    "with_data",
    "without_alpha",
]

DEFAULT_MAX_PIXELS = 200_000_000
"""Larger images are refused from their header, before anything is decoded."""

IMAGE_SUFFIXES = TIFF_SUFFIXES | {".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif"}
"""What an image file's name ends with, in lower case. What a file *is* is read from its first bytes."""

Palette = NDArray[np.uint8]
"""``(256, 3)`` RGB colours, one for each index."""

# The plugins are opened directly, because `Image.open` judges sizes by a limit that is global to the process.
_PLUGINS: dict[bytes, Callable[[Any], ImageFile.ImageFile]] = {
    b"\x89PNG\r\n\x1a\n": PngImagePlugin.PngImageFile,
    b"\xff\xd8\xff": JpegImagePlugin.JpegImageFile,
    b"RIFF": WebPImagePlugin.WebPImageFile,
    b"BM": BmpImagePlugin.BmpImageFile,
    b"GIF8": GifImagePlugin.GifImageFile,
}
_TIFF = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
_PLAIN_MODES = frozenset({"1", "L", "P", "LA", "RGB", "RGBA", "I", "F", "I;16", "I;16L", "I;16B"})
_DECODE_ERRORS = (
    OSError,
    SyntaxError,
    ValueError,
    EOFError,
    IndexError,
    KeyError,
    TypeError,
    AttributeError,
    RuntimeError,
    ArithmeticError,
    struct.error,
    zlib.error,
    tifffile.TiffFileError,
    Image.DecompressionBombError,
)
_HUGE, _ROUNDED = 1e30, 1e-5
"""A tag of a larger number than the first means all that differs by no more than this share of it, as GDAL has it."""

_FILL = "replace them (for instance by the image's median) or remove the file"


@dataclass(frozen=True)
class _Pixels:
    array: NDArray[Any]  # HxW or HxWxC, upright, native byte order
    palette: Palette | None
    no_data: float | None = None  # the value that means it, where the file names one
    stacked: bool = False  # its planes are slices, moments or pages, not colours
    alpha: bool = True  # what comes after one channel or three is opacity
    orientation: int = 1  # how the file asked for its pixels to be turned
    inverted: bool = False  # 0 was white


@dataclass(frozen=True)
class MaskTags:
    """What a mask's file says of its values beside them.

    Attributes:
        inverted: in the file 0 is white (as TIFFs may say); the values are those of its brightness.
        hides: a colour is transparent in some pixels and opaque in others; alpha, which tells them apart, is not read.
        no_data: the value that means that nothing is known, if the file names one.
    """

    inverted: bool = False
    hides: bool = False
    no_data: int | None = None


def read_image(path: str | Path, *, max_pixels: int = DEFAULT_MAX_PIXELS) -> NDArray[Any]:
    """Read an image file, upright, as ``HxWxC`` in the file's own dtype and units.

    Grey images have one channel, palettes become RGB (a GIF's of greys alone grey), alpha stays a channel, 1-bit images
    become 0 and 255, and the pages or planes of a TIFF stack become channels. Where a TIFF says that it has no data,
    there is the mean of the rest.

    Args:
        path: a PNG, JPEG, TIFF, WebP, BMP or GIF (first frame).
        max_pixels: refuse larger images before decoding (a stack counts each four channels as an image).

    Raises:
        DataError: missing, damaged, too large, not an image, or with NaN or infinite values.
    """
    return read_image_and_valid(path, max_pixels=max_pixels)[0]


def read_image_and_valid(
    path: str | Path, *, max_pixels: int = DEFAULT_MAX_PIXELS
) -> tuple[NDArray[Any], NDArray[np.bool_] | None]:
    """`read_image`, and ``HxW`` where there is data; None if everywhere."""
    return read_image_and_tags(path, max_pixels=max_pixels)[:2]


def read_image_and_tags(
    path: str | Path, *, max_pixels: int = DEFAULT_MAX_PIXELS
) -> tuple[NDArray[Any], NDArray[np.bool_] | None, int]:
    """`read_image_and_valid`, and how the file asked for its pixels to be turned: 1 (not at all) to 8."""
    path = Path(path)
    pixels = _decode(path, max_pixels)
    array, palette = pixels.array, pixels.palette
    if array.dtype == bool:
        array = array.astype(np.uint8) * np.uint8(255)
    array = array[:, :, None] if array.ndim == 2 else array
    valid = None if pixels.no_data is None else with_data(array, pixels.no_data)  # of a palette's indices, not colours
    if palette is not None:
        array = palette[np.minimum(array[:, :, 0], len(palette) - 1)]
    if valid is not None and not valid.all():
        array = filled(array, valid)
    _refuse_not_finite(path, array)
    return np.ascontiguousarray(array), valid, pixels.orientation


def with_data(array: NDArray[Any], value: float) -> NDArray[np.bool_]:
    """``HxW``: False where ``HxWxC`` pixels hold the value that means no data.

    With 8 bits the value is one of few, and a saturated colour may hold it: there all channels must. Deeper images lack
    a pixel where any channel does, as at the edges of a satellite's swath, whose bands do not quite overlap.
    """
    same = _equal(array, value)
    lacking = np.asarray(same.all(axis=-1) if array.dtype == np.uint8 else same.any(axis=-1))
    return ~lacking


def _equal(array: NDArray[Any], value: float) -> NDArray[np.bool_]:
    """Where numbers are one that a tag says, which for the limits of floats may be rounded or another float's."""
    same: NDArray[np.bool_]
    limit = float(np.finfo(array.dtype).max) if array.dtype.kind == "f" and np.isfinite(value) else np.inf
    near = max(-limit, min(limit, value))
    if np.isnan(value):
        same = np.isnan(array)
    elif limit < np.inf and abs(near) > _HUGE:
        low, high = sorted((near * (1 - _ROUNDED), near * (1 + _ROUNDED)))
        same = (array >= np.float64(low)) & (array <= np.float64(high))
    else:
        same = array == np.asarray(near).astype(array.dtype, casting="unsafe")
    return same


def filled(array: NDArray[Any], valid: NDArray[np.bool_]) -> NDArray[Any]:
    """``HxWxC`` with the mean of each channel where there is no data, which says as little as can be."""
    mean = array[valid].mean(axis=0, dtype=np.float64) if valid.any() else np.zeros(array.shape[-1])
    return np.where(valid[..., None], array, mean.astype(array.dtype))


def opaque(dtype: np.dtype[Any]) -> float:
    """What an alpha channel holds where it hides nothing."""
    return float(np.iinfo(dtype).max) if dtype.kind in "iu" else 1.0


def without_alpha(array: NDArray[Any], channels: int) -> NDArray[Any]:
    """``HxWxC`` as it is, or without a last channel that says nothing, where ``channels`` (1 or 3) are wanted."""
    one_more = channels in (1, 3) and array.shape[-1] == channels + 1
    hides_nothing = one_more and bool((array[..., -1] == opaque(array.dtype)).all())
    return np.ascontiguousarray(array[..., :-1]) if hides_nothing else array


def read_mask(path: str | Path, *, max_pixels: int = DEFAULT_MAX_PIXELS) -> NDArray[Any]:
    """Read a mask file, upright, as ``HxW`` integers or, for a colour mask, ``HxWx3`` uint8.

    Palette files give the palette's *indices* (what they mean says `mapping.as_classes_are`), GIFs what these show, as
    programs number them anew in each file. Alpha is dropped (a last channel of a TIFF only if it says that it is that,
    or holds one value), a colour mask whose channels are equal gives grey values, 1-bit masks give 0 and 255, whole
    numbers stored as floats become integers.

    Raises:
        DataError: as `read_image`, and for fractions or for channels that are neither grey nor colour.
    """
    return read_mask_and_palette(path, max_pixels=max_pixels)[0]


def read_mask_and_palette(
    path: str | Path, *, max_pixels: int = DEFAULT_MAX_PIXELS
) -> tuple[NDArray[Any], Palette | None]:
    """`read_mask`, and the file's palette of ``(256, 3)`` colours if it has one."""
    return read_mask_and_tags(path, max_pixels=max_pixels)[:2]


def read_mask_and_tags(
    path: str | Path, *, max_pixels: int = DEFAULT_MAX_PIXELS
) -> tuple[NDArray[Any], Palette | None, MaskTags]:
    """`read_mask_and_palette`, and what else the file says of its values."""
    path = Path(path)
    pixels = _decode(path, max_pixels)
    array, palette = pixels.array, pixels.palette
    if array.dtype == bool:
        array, palette = array.astype(np.uint8) * np.uint8(255), None
    if array.dtype.kind == "f":
        if pixels.no_data is not None and np.isnan(pixels.no_data):
            array = np.where(np.isnan(array), -1, array)  # which no class has
        array = _whole_numbers(path, array)
    channels, alpha = 1 if array.ndim == 2 else array.shape[2], None
    if channels in (2, 4) and not pixels.stacked and (pixels.alpha or np.ptp(array[..., -1]) == 0):
        array, alpha, channels = array[..., :-1], array[..., -1], channels - 1
    if channels not in (1, 3) or (channels > 1 and pixels.stacked):
        raise DataError(
            f"{path} has {channels} {'planes' if pixels.stacked else 'channels'}",
            "a mask of one channel (class ids) or of RGB colours",
            "write one class id a pixel: of a stack of one plane a class (the background is one too), numpy's argmax "
            "over the planes; of slices or moments, an image and a mask each",
        )
    if array.ndim == 3:
        array = _flat_colors(array) if channels == 3 else array[:, :, 0]
    palette = None if palette is None else palette[:256]
    named = pixels.no_data is not None and np.isfinite(pixels.no_data)
    no_data = int(pixels.no_data or 0) if named else None
    tags = MaskTags(pixels.inverted, alpha is not None and _hides(array, alpha), no_data)
    return np.ascontiguousarray(array), palette, tags


def _hides(mask: NDArray[Any], alpha: NDArray[Any]) -> bool:
    """Whether a value is transparent in some pixels and opaque in others."""
    if alpha.min() == alpha.max():
        return False
    codes = codes_of(mask)
    return bool(np.isin(codes[alpha == alpha.max()], np.unique(codes[alpha == 0])).any())


def pixel_digest(array: NDArray[Any]) -> str:
    """Equal for equal pixels."""
    state = hashlib.blake2b(f"{array.shape}{array.dtype}".encode(), digest_size=12)
    state.update(np.ascontiguousarray(array).data)
    return state.hexdigest()


def image_size(path: str | Path) -> tuple[int, int]:
    """Height and width of the upright image, from the file's header alone."""
    path = Path(path)
    with reading(path):
        if _magic(path) in _TIFF:
            with open_tiff(path) as tif:
                shape = tiff_shape(path, tif)
                return (shape[1], shape[0]) if tiff_orientation(tif) >= 5 else (shape[0], shape[1])
        with _open(path) as picture:
            width, height = picture.size
            return (width, height) if _orientation(picture) >= 5 else (height, width)


def in_utf8(name: str) -> str:
    """A file's name as it can be printed and written down: what is no UTF-8 in it is escaped."""
    return name.encode("utf-8", "backslashreplace").decode()


def check_text(name: str, where: str) -> None:
    """``DataError`` for a file's name that is no UTF-8, and so can't stand in a report or a ledger."""
    shown = in_utf8(name)
    if shown != name:
        raise DataError(f"{where} a file whose name can't be written down: {shown}", "a name in UTF-8", "rename it")


def decoded_bytes(path: str | Path) -> int:
    """What an image takes in memory, from the file's header alone."""
    path = Path(path)
    with reading(path):
        if _magic(path) in _TIFF:
            with open_tiff(path) as tif:
                series = main_series(tif)
                tile = math.prod(series.keyframe.chunks) * series.dtype.itemsize  # decoded whole, it may be the larger
                return int(max(series.nbytes, tile))
        with _open(path) as picture:
            deep = 4 if picture.mode in ("I", "F") else 2 if picture.mode.startswith("I;16") else 1
            bands = 3 if picture.mode == "P" else len(picture.getbands())
            return picture.width * picture.height * bands * deep


def _decode(path: Path, max_pixels: int) -> _Pixels:
    try:
        with reading(path):
            return _decode_tiff(path, max_pixels) if _magic(path) in _TIFF else _decode_picture(path, max_pixels)
    except MemoryError as error:
        raise DataError(
            f"there is no memory for {path} ({in_a_line(error)})",
            "an image that fits into it, as it is read in one piece",
            "copy or export it again: where it is not that large, it is damaged",
        ) from error


@contextmanager
def reading(path: Path) -> Iterator[None]:
    """Turns every way in which a decoder fails into a `DataError` that names the file; but what runs out of memory."""
    try:
        yield
    except FileNotFoundError as error:
        look_at(path)
        if path.is_symlink():
            given = f"{path} is a link to {path.readlink()}, which does not exist"
            raise DataError(given, "an image file", "mount what holds it, or remove the link") from error
        raise DataError(f"{path} does not exist", "an image file", "check the path") from error
    except (PermissionError, IsADirectoryError) as error:
        raise DataError(f"{path} cannot be opened ({error.strerror})", "a readable image file") from error
    except _DECODE_ERRORS as error:
        raise DataError(
            f"{path} is damaged or incomplete ({str(error) or type(error).__name__})",
            "an image that decodes to its end",
            "copy or export it again, or remove it",
        ) from error


def _magic(path: Path) -> bytes:
    if path.is_fifo():  # which waits for somebody who writes into it, and is read once
        raise DataError(f"{path} is a pipe", "an image file", "write it into a file first")
    with path.open("rb") as file:
        return file.read(4)


def _open(path: Path) -> ImageFile.ImageFile:
    with path.open("rb") as file:
        head = file.read(32)
    if not head:
        raise DataError(f"{path} is 0 bytes", "an image", "copy or export it again, or remove it")
    for magic, plugin in _PLUGINS.items():
        if head.startswith(magic) and (magic != b"RIFF" or head[8:12] == b"WEBP"):
            return plugin(path)
    raise DataError(
        f"{path} is not an image (it begins with {head[:12]!r})",
        "PNG, JPEG, TIFF, WebP, BMP or GIF",
        "remove it or export it again",
    )


def _decode_picture(path: Path, max_pixels: int) -> _Pixels:
    with _open(path) as picture:
        width, height = picture.size
        _refuse_size(path, (height, width), max_pixels)
        orientation = _orientation(picture)  # by what stands before the pixels, as `image_size` decides
        if _is_deep_color_png(path):  # which Pillow would cut to 8 bits
            array = np.asarray(imagecodecs.png_decode(path.read_bytes()))
            palette = None
        else:
            array = np.array(picture if picture.mode in _PLAIN_MODES else picture.convert("RGB"))
            palette = _padded(picture.getpalette("RGB")) if picture.mode == "P" else None
            if palette is not None and picture.format == "GIF":
                gray = bool((palette == palette[:, :1]).all())
                array, palette = (palette[:, 0] if gray else palette)[array], None
        return _Pixels(upright(array, orientation), palette, orientation=orientation)


def _is_deep_color_png(path: Path) -> bool:
    with path.open("rb") as file:
        head = file.read(26)
    return head.startswith(b"\x89PNG") and head[24] == 16 and head[25] in (2, 4, 6)


def _orientation(picture: ImageFile.ImageFile) -> int:
    if picture.format == "PNG" and "exif" not in picture.info:
        return 1  # looking further would decode the whole file
    try:
        return int(picture.getexif().get(0x0112, 1))
    except _DECODE_ERRORS:  # damaged EXIF beside whole pixels
        return 1


def _padded(colors: list[int] | None) -> Palette:
    palette = np.zeros((max(256, len(colors or ()) // 3), 3), np.uint8)
    given = np.asarray(colors or [], np.uint8).reshape(-1, 3)
    palette[: len(given)] = given
    return palette


def _decode_tiff(path: Path, max_pixels: int) -> _Pixels:
    with open_tiff(path) as tif:
        height, width, channels = tiff_shape(path, tif)
        _refuse_size(path, (height, width, channels), max_pixels)
        series = main_series(tif)
        size = path.stat().st_size
        pages = [page for page in series.pages if page is not None]
        ends = (o + n for page in pages for o, n in zip(page.dataoffsets, page.databytecounts))
        lacks = f"it ends after {size:,} bytes, within its pixels" if max(ends, default=0) > size else ""
        if any(not page.is_contiguous and _listed(page) < math.prod(page.chunked) for page in pages):
            lacks = "it does not say where all its tiles or strips are"  # those would be read as 0
        if lacks:
            raise DataError(
                f"{path} is incomplete ({lacks})",
                "an image that decodes to its end",
                "copy or export it again, or remove it",
            )
        black = black_value(series.keyframe)
        array = as_light(series.asarray(), black)
        axis = channel_axis(series)
        array = array if axis is None else np.moveaxis(array, axis, -1)
        colormap = series.keyframe.colormap
        if array.dtype == bool and colormap is not None:
            array = array.view(np.uint8)  # indices of two colours, which need not be black and white
        palette = None
        if array.ndim == 2 and colormap is not None:
            palette = _padded(colors_of(colormap).ravel().tolist())
        no_data = no_data_value(tif, array.dtype)
        no_data = black - no_data if black and no_data is not None else no_data
        orientation = tiff_orientation(tif)
        pixels = upright(array, orientation)
        return _Pixels(pixels, palette, no_data, stacked(series), alpha_last(series), orientation, bool(black))


def _listed(page: Any) -> int:
    """How many of its tiles or strips a page of a TIFF says where they are."""
    return min(len(page.dataoffsets), len(page.databytecounts))


def _refuse_size(path: Path, shape: tuple[int, ...], max_pixels: int) -> None:
    height, width, channels = (*shape, 1)[:3]
    if min(shape) < 1:
        raise DataError(f"{path} is {height} x {width} pixels", "at least 1 x 1", "remove it")
    count = height * width * -(-channels // 4)
    if count > max_pixels:
        raise DataError(
            f"{path} is {height:,} x {width:,} pixels{f' x {channels} channels' if channels > 4 else ''}",
            f"at most {max_pixels:,} pixels in one piece",
            "cut it into smaller images; to paint it as it is, save it as a tiled TIFF or as Zarr",
        )


def _refuse_not_finite(path: Path, array: NDArray[Any], remedy: str = _FILL) -> None:
    if array.dtype.kind == "c":
        raise DataError(f"{path} holds complex numbers", "real pixel values", "save magnitude or phase")
    if array.dtype.kind != "f":
        return
    bad = ~np.isfinite(array)
    if bad.any():
        y, x = (int(i) for i in np.argwhere(bad)[0][:2])
        raise DataError(
            f"{path} has {int(bad.sum()):,} values that are NaN or infinite, the first at row {y}, column {x}",
            "finite pixel values",
            remedy,
        )


def _whole_numbers(path: Path, array: NDArray[Any]) -> NDArray[np.int64]:
    _refuse_not_finite(path, array, "write a number of its own there, such as 255, which then does not count")
    fractions = array != np.floor(array)
    if fractions.any():
        first = array[fractions][0]
        raise DataError(
            f"{path} has {int(fractions.sum()):,} values that are no whole numbers, such as {first:g}",
            "a mask of class ids",
            "write one whole number a pixel, for instance (mask > 0.5)",
        )
    return array.astype(np.int64)


def _flat_colors(array: NDArray[Any]) -> NDArray[Any]:
    """Equal channels to ``HxW`` grey values; else colours of 8 bits."""
    if (array[:, :, 0] == array[:, :, 1]).all() and (array[:, :, 0] == array[:, :, 2]).all():
        gray = np.ascontiguousarray(array[:, :, 0])
        # black and white of a file whose fellows hold colours too: there white is 255, not 65535
        made_deep = gray.dtype == np.uint16 and gray.max() > 255 and not (gray % 257).any()
        return (gray >> 8).astype(np.uint8) if made_deep else gray
    deep = array.dtype != np.uint8 and array.max() > 255  # else colours of 8 bits in wider numbers
    return (array >> 8).astype(np.uint8) if deep else array.astype(np.uint8, copy=False)
