"""What the tags of a TIFF say: its main image, channels, colours, orientation, missing data, and size of a pixel.

Knows nothing of pixels' meaning; reads no pixels.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import tifffile
from numpy.typing import NDArray

from whatwhere.errors import DataError

__all__ = [
    "TIFF_SUFFIXES",
    "alpha_last",
    "as_light",
    "black_value",
    "channel_axis",
    "colors_of",
    "main_series",
    "no_data_value",
    "open_tiff",
    "resolution",
    "stacked",
    "tiff_orientation",
    "tiff_shape",
    "upright",
]

TIFF_SUFFIXES = frozenset({".tif", ".tiff", ".btf", ".svs", ".ndpi", ".scn", ".qptiff"})
"""What the name of a TIFF ends with; whole-slide scanners have endings of their own."""

_ORIENT: dict[int, Callable[[NDArray[Any]], NDArray[Any]]] = {
    2: lambda a: a[:, ::-1],
    3: lambda a: a[::-1, ::-1],
    4: lambda a: a[::-1],
    5: lambda a: a.swapaxes(0, 1),
    6: lambda a: a.swapaxes(0, 1)[:, ::-1],
    7: lambda a: a.swapaxes(0, 1)[::-1, ::-1],
    8: lambda a: a.swapaxes(0, 1)[::-1],
}
"""What each EXIF orientation asks for to stand upright (TIFF 6.0, tag 274)."""


def _is_ours_to_tell(record: logging.LogRecord) -> bool:
    """Not that a no-data value can't be held by a pixel: ArcGIS's usual one can, and is warned of as well."""
    return "parsing GDAL_NODATA tag" not in record.getMessage()


logging.getLogger("tifffile").addFilter(_is_ours_to_tell)  # `no_data_value` reads the tag itself


def open_tiff(path: Path) -> tifffile.TiffFile:
    """A TIFF by itself: of a set of files that name each other, as OME and Micro-Manager write, only its own pages.

    tifffile would follow the names, and so give the first scene, or the whole stack, for every file of the set.
    """
    return tifffile.TiffFile(path, _multifile=False, is_mmstack=False, is_ndtiff=False)


def no_data_value(tif: tifffile.TiffFile, dtype: np.dtype[Any]) -> float | None:
    """What GDAL's tag 42113 says, of the main image or at the beginning of the file, if pixels can hold it at all."""
    tag = main_series(tif).keyframe.tags.get(42113) or tif.pages.first.tags.get(42113)
    try:
        value = float(str(tag.value).strip("\0 ")) if tag else None
    except ValueError:
        return None
    if value is None or dtype.kind == "f":
        return value
    fits = dtype.kind in "iu" and value.is_integer() and np.iinfo(dtype).min <= value <= np.iinfo(dtype).max
    return value if fits else None


def tiff_orientation(tif: tifffile.TiffFile) -> int:
    """How a TIFF's main image is to be turned: 1 to 8."""
    tag = main_series(tif).keyframe.tags.get(274)
    return int(tag.value) if tag and int(tag.value) in _ORIENT else 1


def main_series(tif: tifffile.TiffFile) -> tifffile.TiffPageSeries:
    """The image of the most pixels: a slide's file may begin with a photograph of its label.

    Raises:
        DataError: some of it lies in other files, or there are several such, as where pages are written one by one.
    """
    series = max(tif.series, key=lambda series: series.keyframe.imagelength * series.keyframe.imagewidth)
    if series.is_multifile or series.keyframe.parent is not tif:
        raise DataError(f"{tif.filename} goes on in other files", "an image in one file", "save it as one TIFF")
    alike = sum(_kind(one) == _kind(series) for one in tif.series)
    if alike > 1 and series.kind in ("shaped", "ome"):  # scanners may keep an image twice
        given = f"{tif.filename} holds {alike} images of {'x'.join(map(str, series.shape))}"
        raise DataError(given, "one image a file", "save each as a file of its own, or channels as one array")
    return series


def _kind(series: tifffile.TiffPageSeries) -> tuple[Any, ...]:
    return series.shape, series.axes, series.dtype, series.keyframe.photometric


def channel_axis(series: tifffile.TiffPageSeries) -> int | None:
    """Which axis of a TIFF's image holds the channels; None where there is none."""
    if series.ndim == 2:
        return None
    # tifffile names the axes of a bare numpy array by position: there the shortest is the channels
    if "Q" in series.axes:
        return int(np.argmin(series.shape))
    return min(series.axes.find(axis) for axis in series.axes if axis not in "YX")


def alpha_last(series: tifffile.TiffPageSeries) -> bool:
    """Whether its last channel is opacity, as ExtraSamples says (tag 338: 1 or 2)."""
    return bool({1, 2} & set(series.keyframe.extrasamples[-1:]))


def stacked(series: tifffile.TiffPageSeries) -> bool:
    """Whether its planes are slices or moments, or pages that say nothing of being channels: no colours then."""
    axis = channel_axis(series)
    if axis is None or series.keyframe.photometric == 2:
        return False
    return series.axes[axis] in "ZT" or (axis == 0 and series.axes[axis] in "QI")


def black_value(keyframe: Any) -> int:
    """What stands for black in a file in which 0 is white, as scanners and fax compression have it; 0 in all others."""
    if keyframe.photometric != 0 or keyframe.dtype is None or keyframe.dtype.kind not in "bu":
        return 0
    if keyframe.dtype == bool and str(keyframe.software).startswith("tifffile"):
        return 0  # it marks all bilevel arrays so, and reads what it wrote as it is
    return (1 << int(np.atleast_1d(keyframe.bitspersample)[0])) - 1


def as_light(array: NDArray[Any], black: int) -> NDArray[Any]:
    """Numbers that grow with brightness, by the file's `black_value`."""
    if not black:
        return array
    light: NDArray[Any] = ~array if array.dtype == bool else np.asarray(black, array.dtype) - array
    return light


def tiff_shape(path: Path, tif: tifffile.TiffFile) -> tuple[int, int, int]:
    """Height, width and channels as stored (not yet upright)."""
    series = main_series(tif) if tif.series else None
    if series is None or series.ndim not in (2, 3):
        what = f"axes {series.axes} of {'x'.join(map(str, series.shape))}" if series else "no image"
        raise DataError(
            f"{path} holds {what}", "height, width and at most one axis of channels", "split it into images"
        )
    shape = list(series.shape)
    axis = channel_axis(series)
    channels = 1 if axis is None else shape.pop(axis)
    return shape[0], shape[1], channels


def colors_of(colormap: NDArray[Any]) -> NDArray[np.uint8]:
    """``(N, 3)`` RGB of a colour map of 16 bits, or of 8 as some programs write it.

    A colour of 8 bits is 257 times itself there, or 256 times as Pillow writes it.
    """
    return (colormap.T >> (8 if colormap.max() > 255 else 0)).astype(np.uint8)


def upright(array: NDArray[Any], orientation: int) -> NDArray[Any]:
    """Pixels as stored, turned as their file asks for (1 to 8), in native byte order."""
    turned = _ORIENT[orientation](array) if orientation in _ORIENT else array
    return turned.astype(turned.dtype.newbyteorder("="), copy=False)


def resolution(pixel_size: tuple[float, float] | None) -> dict[str, Any]:
    """A pixel's height and width in micrometres as tifffile writes them: pixels per centimetre, across and down."""
    if pixel_size is None:
        return {}
    height, width = pixel_size
    return {"resolution": (1e4 / width, 1e4 / height), "resolutionunit": "CENTIMETER"}
