"""GeoTIFF by windows: pixels with a place on Earth, and where there are none. Needs the extra ``geo`` (rasterio)."""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from whatwhere.data.images import reading
from whatwhere.data.label_images import palette
from whatwhere.data.tiffs import as_light, black_value, colors_of, main_series, open_tiff, tiff_orientation
from whatwhere.errors import DataError
from whatwhere.paint.placed import is_placed
from whatwhere.paint.sources import Pixels, Valid, extra, no_level
from whatwhere.paint.tiff import Plane, plane_of, shrinkings
from whatwhere.records import VOID, Box, Classes
from whatwhere.writing import is_there

__all__ = ["GeoSource", "is_geotiff", "write_geotiff", "write_planes_geotiff"]

_TIE_POINTS_AND_KEYS = (33550, 33922, 34264, 34735)  # the four tags by which a TIFF says where it lies
_RPC = 50844  # and a satellite's, which comes as the coefficients of a camera
_YCBCR, _JPEG = 6, 7  # of which, together, both make RGB
_READ_ALIKE = frozenset({0, 1, 2, 3, 32803, 34892})
"""What numbers may stand for that GDAL and training read alike: greys, RGB, a palette, a camera's raw light."""

_BAND = 512
_FIRST = 16
"""Pages among which the mask of the first one is: it comes next, or after all smaller levels."""


def is_geotiff(path: Path) -> bool:
    """Whether a TIFF, or a file beside it, says where on Earth it lies, or by a mask what is no data."""
    try:
        with open_tiff(path) as file:
            tags = file.pages.first.tags
            if any(code in tags for code in (*_TIE_POINTS_AND_KEYS, _RPC)) or is_placed(path):
                return True
            pages: Any = file.pages
            masked = any(page.is_mask for page in islice(pages, 1, _FIRST))
            return masked or is_there(path.with_name(f"{path.name}.msk"))
    except Exception:  # noqa: BLE001 (of a damaged file in many ways; who reads it says what is wrong)
        return False


class GeoSource:
    """A GeoTIFF, or a level of its pyramid, by windows; pixels without data are not valid.

    There is none where a value, a mask or alpha says so; where nothing does, in tiles that the file leaves out.

    Raises:
        DataError: not a whole TIFF, no such level, complex numbers, or an image that GDAL would take for another one:
            not the first page alone, not upright as it is stored, or of inks (CMYK), YCbCr or CIELAB.
    """

    def __init__(self, path: Path, level: int = 0) -> None:
        os.environ.setdefault("GDAL_CACHEMAX", "192")  # MB; GDAL's own is a twentieth of all memory
        rasterio = extra("rasterio", "geo", f"{path} is a GeoTIFF")
        self.name = str(path)
        try:
            with _anywhere():
                self._file = rasterio.open(path.absolute())  # s3:a.tif is a file's name, and an address for GDAL
                if level:
                    self._file = _smaller(self._file, level, self.name)
        except rasterio.errors.RasterioError as error:
            raise DataError(f"{path} is not a whole GeoTIFF ({error})", "an image", "copy it again") from error
        try:
            self._describe(path)
        except BaseException:
            self._file.close()
            raise
        self._window: Any = rasterio.windows.Window
        self._error: Any = rasterio.errors.RasterioError

    def _describe(self, path: Path) -> None:
        if self._file.dtypes[0].startswith("complex"):
            raise DataError(f"{path} holds complex numbers", "real pixel values", "save magnitude or phase")
        with reading(path), open_tiff(path) as tif:
            _refuse_what_gdal_mistakes(path, tif)
            page = main_series(tif).keyframe
            self._black, self._bilevel = black_value(page), page.dtype == bool
            self._colors = None if page.colormap is None or self._file.count > 1 else colors_of(page.colormap)
            self._plane: Plane | None = plane_of(tif, (self._file.height, self._file.width))
        self.size = (self._file.height, self._file.width)
        self.channels = self._file.count if self._colors is None else 3
        self.dtype = np.dtype(self._file.dtypes[0] if self._colors is None else np.uint8)
        self._complete = all("all_valid" in {flag.name for flag in flags} for flags in self._file.mask_flag_enums)

    def read(self, box: Box) -> tuple[Pixels, Valid | None]:
        (y0, y1), (x0, x1) = box
        window = self._window(x0, y0, x1 - x0, y1 - y0)
        try:
            pixels = np.ascontiguousarray(self._file.read(window=window).transpose(1, 2, 0))
            valid = self._there(box) if self._complete else self._valid(window)
            pixels = as_light(pixels, self._black)
            if self._colors is not None:
                pixels = self._colors[np.minimum(pixels[..., 0], len(self._colors) - 1)]
            elif self._bilevel:
                pixels = pixels * np.uint8(255)
        except self._error as error:
            raise DataError(
                f"{self.name} has a damaged tile in rows {y0} to {y1}, columns {x0} to {x1} ({error})",
                "an image that decodes to its end",
                "copy or export it again",
            ) from error
        return pixels, valid

    def _there(self, box: Box) -> Valid | None:
        return None if self._plane is None else self._plane.there(box)

    def _valid(self, window: Any) -> Valid:
        """By the rule of `data.images.with_data`: with 8 bits where any band has data, else where all have."""
        if self.dtype == np.uint8:
            found: Valid = self._file.dataset_mask(window=window) > 0
        else:
            found = (self._file.read_masks(window=window) > 0).all(axis=0)
        return found

    @property
    def profile(self) -> dict[str, Any]:
        """Where it lies, for what is painted from it: coordinate system and transform, control points, or a camera."""
        points, system = self._file.gcps
        camera = {"rpcs": self._file.rpcs} if self._file.rpcs else {}
        if points and self._file.transform.is_identity:
            from rasterio.crs import CRS

            return {"crs": system or CRS(), "gcps": points, **camera}  # beside points rasterio takes no None
        return {"crs": self._file.crs, "transform": self._file.transform, **camera}

    def close(self) -> None:
        self._file.close()


def _refuse_what_gdal_mistakes(path: Path, tif: Any) -> None:
    """GDAL reads the first page of a file, as it is stored, and makes RGB of inks and lightness.

    Training reads the largest image, upright, and its numbers as they are.
    """
    if [page and page.index for page in main_series(tif).pages] != [0]:
        raise DataError(
            f"{path} has a place on Earth or a mask, and its image is not its first page alone",
            "a GeoTIFF whose first page is the image",
            "save the image as a file of its own, its channels as bands of one page",
        )
    if tiff_orientation(tif) != 1:
        raise DataError(
            f"{path} has a place on Earth or a mask, and is stored turned (orientation {tiff_orientation(tif)})",
            "pixels that are stored upright",
            "save it upright; if it is upright as it is, take its tag Orientation away",
        )
    page = tif.pages.first
    if page.photometric not in _READ_ALIKE and (page.photometric, page.compression) != (_YCBCR, _JPEG):
        colors = getattr(page.photometric, "name", page.photometric)
        raise DataError(
            f"{path} has a place on Earth or a mask, and its colours are {colors}",
            "greys, RGB or a palette, which are trained on and painted as the same numbers",
            "export it as RGB, and what is trained on too",
        )


def _smaller(file: Any, level: int, name: str) -> Any:
    """A level of the file's pyramid, whose transform has larger steps; the file is closed."""
    import rasterio

    with file:
        shrunk = file.overviews(1)
        if level > len(shrunk):
            sizes = [(-(-file.height // step), -(-file.width // step)) for step in (1, *shrunk)]
            raise no_level(name, level, sizes)
    return rasterio.open(file.name, overview_level=level - 1)


_UNREADABLE = "what was written can't be read again: the disk is full or damaged"


def write_geotiff(path: Path, source: GeoSource, read: Callable[[Box], NDArray[np.uint8]], classes: Classes) -> None:
    """Writes labels as a tiled, compressed GeoTIFF in the coordinates of ``source``, with smaller levels for viewers.

    VOID is no data. ``OSError`` if it can't be written.
    """
    from rasterio.enums import Resampling

    colors = {index: (*map(int, color), 255) for index, color in enumerate(palette(classes))}
    with _create(path, source, 1, nodata=VOID, photometric="palette") as file:
        file.write_colormap(1, colors)
        file.update_tags(1, **{f"class_{index}": name for index, name in enumerate(classes.names)})
        _fill(file, source.size, 1, lambda _, box: read(box))
        try:
            file.build_overviews(shrinkings(source.size), Resampling.nearest)
        except Exception:  # noqa: BLE001 (of kinds that rasterio has no public name for, where pixels are not on disk)
            raise OSError(_UNREADABLE) from None
    _read_again(path, source.size, 1, lambda _, box: read(box), levels=len(shrinkings(source.size)))


def write_planes_geotiff(
    path: Path, source: GeoSource, planes: int, read: Callable[[int, Box], NDArray[np.uint8]]
) -> None:
    """Writes ``planes`` uint8 bands in the coordinates of ``source``. ``OSError`` if they can't be written."""
    with _create(path, source, planes, nodata=None) as file:
        _fill(file, source.size, planes, read)
    _read_again(path, source.size, planes, read)


def _create(path: Path, source: GeoSource, count: int, **options: Any) -> Any:
    import rasterio

    height, width = source.size
    with _anywhere():
        return rasterio.open(
            path.absolute(), "w", driver="GTiff", height=height, width=width, count=count, dtype="uint8", tiled=True,
            blockxsize=_BAND, blockysize=_BAND, compress="deflate", bigtiff="if_safer", interleave="band",
            **source.profile, **options,
        )  # fmt: skip


@contextmanager
def _anywhere() -> Iterator[None]:
    """In which rasterio does not warn of images that lie nowhere."""
    import rasterio

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", rasterio.errors.NotGeoreferencedWarning)
        yield


def _fill(file: Any, size: tuple[int, int], planes: int, read: Callable[[int, Box], NDArray[np.uint8]]) -> None:
    for plane, box, window in _bands(size, planes):
        file.write(read(plane, box), plane + 1, window=window)


def _read_again(
    path: Path, size: tuple[int, int], planes: int, read: Callable[[int, Box], NDArray[np.uint8]], levels: int = 0
) -> None:
    """Compares the file with what was to be written: on a full disk GDAL may close a damaged one without a word.

    Of smaller levels it is enough that they decode.
    """
    import rasterio

    path = path.absolute()
    try:
        with _anywhere(), rasterio.open(path) as file:
            same = len(file.overviews(1)) == levels and all(
                np.array_equal(file.read(plane + 1, window=window), read(plane, box))
                for plane, box, window in _bands(size, planes)
            )
        for level in range(levels if same else 0):
            with _anywhere(), rasterio.open(path, overview_level=level) as smaller:
                for _, _, window in _bands(smaller.shape, 1):
                    smaller.read(1, window=window)
    except rasterio.errors.RasterioError:
        same = False
    if not same:
        raise OSError(_UNREADABLE)


def _bands(size: tuple[int, int], planes: int) -> Iterator[tuple[int, Box, Any]]:
    """Plane, box and rasterio's window of each row of blocks."""
    from rasterio.windows import Window

    height, width = size
    for plane in range(planes):
        for top in range(0, height, _BAND):
            bottom = min(top + _BAND, height)
            yield plane, ((top, bottom), (0, width)), Window(0, top, width, bottom - top)
