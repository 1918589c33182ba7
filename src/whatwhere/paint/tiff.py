"""TIFF and BigTIFF by windows: tiles or strips decoded one at a time; label pictures of any size written by tiles.

Reads plain, OME and pyramidal files (their largest level, or a smaller one). Knows nothing of coordinates on Earth.
"""

from __future__ import annotations

import itertools
from collections import OrderedDict
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import tifffile
from numpy.typing import NDArray

from whatwhere.data.images import DEFAULT_MAX_PIXELS, reading, with_data
from whatwhere.data.label_images import palette
from whatwhere.data.tiffs import (
    as_light,
    black_value,
    channel_axis,
    colors_of,
    main_series,
    no_data_value,
    open_tiff,
    resolution,
    tiff_orientation,
    tiff_shape,
    upright,
)
from whatwhere.errors import DataError
from whatwhere.paint.sources import Pixels, Valid, no_level
from whatwhere.records import Box, Classes

__all__ = ["Plane", "TiffSource", "lacks_data", "plane_of", "shrinkings", "write_planes_tiff", "write_tiff"]

_CACHE_BYTES = 192 * 2**20
"""Decoded segments kept for the next window: a row of tiles over a wide file of strips reads each strip once."""

_SEGMENT_BYTES = 4 * DEFAULT_MAX_PIXELS
"""The largest tile or strip that is decoded at once."""

_STALE = 4
"""Requests for each segment kept after which one that nobody has asked for is not wanted any more."""

_TILE = 512

_NO_DATA = 42113
"""GDAL's tag, which holds the value in words."""

_SCREEN = 1024
"""Pixels that a screen shows at once, about."""


class TiffSource:
    """The largest image of a TIFF file, or a smaller level of it, read by windows, upright.

    What its axes are, is what they are for `read_image`: pages are channels, or rows of an array written without names.
    There is no data where the file says so by a value, and in segments of zero bytes, which were left out on purpose.

    Raises:
        DataError: not a TIFF, no such level, axes beyond height, width and channels, or (when read) a damaged tile or
            strip.
    """

    def __init__(self, path: Path, level: int = 0) -> None:
        self.name = str(path)
        with reading(path):
            self._file = open_tiff(path)
            try:
                self._describe(path, level)
            except BaseException:
                self._file.close()
                raise

    def _describe(self, path: Path, level: int) -> None:
        tiff_shape(path, self._file)  # which refuses more axes
        series = main_series(self._file)
        pages = [page for page in series.pages if page is not None]
        if level:
            pages = _level(self._file, series, level, self.name)
        self._planes = [Plane(page, self.name) for page in pages]
        first = self._planes[0]
        there, declared = sum(plane.channels for plane in self._planes), series.size // (first.size[0] * first.size[1])
        if there != declared and not level:
            raise DataError(
                f"{path} declares {declared} channels, and has pages for {there}",
                "a page a channel, or channels inside one page",
                "save it as BigTIFF or OME-TIFF: of a stack of more than 4 GB ImageJ writes the first page alone",
            )
        # of several pages, which hold a channel each or a row each: the axis of channels in (pages, rows, columns)
        self._axis = channel_axis(series) if len(pages) > 1 else None
        height, width = first.size
        self.channels = first.channels
        if self._axis is not None:
            shape = [len(pages), height, width]
            self.channels = shape.pop(self._axis)
            height, width = shape
        self._turn = tiff_orientation(self._file)
        self.size = (height, width) if self._turn < 5 else (width, height)
        self._black = black_value(series.keyframe)
        self._no_data = no_data_value(self._file, first.dtype)
        colormap = first.colormap if len(pages) == 1 else None
        self._colors: Pixels | None = None
        if colormap is not None:
            self._colors = colors_of(colormap)
            self.channels = 3
        self.dtype = np.dtype(np.uint8) if colormap is not None or first.dtype == bool else first.dtype
        self._segments = _Segments()

    def read(self, box: Box) -> tuple[Pixels, Valid | None]:
        stored = _lying(box, self.size, self._turn)
        with reading(Path(self.name)):
            pixels = upright(self._read_stored(stored), self._turn)
        valid = None if self._no_data is None else with_data(pixels, self._no_data)
        pixels = as_light(pixels, self._black)
        if self._colors is not None:
            pixels = self._colors[np.minimum(pixels[..., 0], len(self._colors) - 1)]
        elif pixels.dtype == bool:
            pixels = pixels.astype(np.uint8) * np.uint8(255)
        there = self._there(stored)
        if there is not None:
            there = np.ascontiguousarray(upright(there, self._turn))
            valid = there if valid is None else there & valid
        return np.ascontiguousarray(pixels), valid

    def _there(self, stored: Box) -> Valid | None:
        """Where any of the channels is there; None if everywhere."""
        if self._axis:  # each page is a row
            return None
        found = [there for plane in self._planes if (there := plane.there(stored)) is not None]
        if len(found) < len(self._planes):
            return None
        anywhere: Valid = np.logical_or.reduce(found)
        return anywhere

    def _read_stored(self, box: Box) -> Pixels:
        """The pixels of a box as they lie in the file, channels last."""
        if self._axis is None:
            return self._planes[0].read(box, self._remember(0))
        spans = list(box)
        spans.insert(self._axis, (0, self.channels))
        pages, rows, columns = spans
        parts = [self._planes[page].read((rows, columns), self._remember(page))[..., 0] for page in range(*pages)]
        return np.moveaxis(np.stack(parts), self._axis, -1)

    def close(self) -> None:
        self._segments = _Segments()
        self._file.close()

    def _remember(self, plane: int) -> Callable[[int, Callable[[], Pixels]], Pixels]:
        return lambda segment, decode: self._segments.get((plane, segment), decode)


class _Segments:
    """Decoded segments, as many as there is room for.

    Tile after tile asks for the same strips in the same order. Where not all of them fit, dropping the longest unused
    would drop each just before it is asked for again: so the newest goes, but for such as nobody wants any more.
    """

    def __init__(self) -> None:
        self._kept: OrderedDict[tuple[int, int], tuple[Pixels, int]] = OrderedDict()  # and when each was asked for last
        self._asked = self._bytes = 0

    def get(self, key: tuple[int, int], decode: Callable[[], Pixels]) -> Pixels:
        self._asked += 1
        pixels = self._kept.pop(key)[0] if key in self._kept else self._with_room(decode())
        self._kept[key] = pixels, self._asked
        return pixels

    def _with_room(self, pixels: Pixels) -> Pixels:
        while self._kept and self._bytes + pixels.nbytes > _CACHE_BYTES:
            _, last = next(iter(self._kept.values()))
            stale = self._asked - last > _STALE * len(self._kept)
            self._bytes -= self._kept.popitem(last=not stale)[1][0].nbytes
        self._bytes += pixels.nbytes
        return pixels


def _level(file: Any, series: Any, level: int, name: str) -> list[Any]:
    """The pages of a smaller level: as slide formats and OME-TIFF list them, else pages that say they are smaller."""
    levels = [[page for page in one.pages if page is not None] for one in series.levels]
    if len(levels) == 1 and len(levels[0]) == 1:
        like = series.keyframe
        smaller = [
            page for page in file.pages if page.is_reduced and page.samplesperpixel == like.samplesperpixel
            and page.dtype == like.dtype and page.photometric == like.photometric
        ]  # fmt: skip
        levels += [[page] for page in sorted(smaller, key=lambda page: -page.imagelength)]
    if level >= len(levels):
        keys = [pages[0].keyframe for pages in levels]
        raise no_level(name, level, [(key.imagelength, key.imagewidth) for key in keys])
    return levels[level]


def _lying(box: Box, size: tuple[int, int], orientation: int) -> Box:
    """Where a box of the upright image of this size lies in the file (TIFF 6.0, tag 274).

    >>> _lying(((0, 10), (5, 7)), (100, 50), 3), _lying(((0, 10), (5, 7)), (100, 50), 6)
    (((90, 100), (43, 45)), ((43, 45), (0, 10)))
    """
    rows, columns = box
    if orientation in (3, 4, 7, 8):
        rows = size[0] - rows[1], size[0] - rows[0]
    if orientation in (2, 3, 6, 7):
        columns = size[1] - columns[1], size[1] - columns[0]
    return (columns, rows) if orientation >= 5 else (rows, columns)


class Plane:
    """One page: a grid of tiles or strips."""

    def __init__(self, page: Any, name: str) -> None:
        self._page, self._name = page, name
        self._key = page.keyframe
        self._separate = self._key.planarconfig == 2 and self._key.samplesperpixel > 1
        self.size = (int(self._key.imagelength), int(self._key.imagewidth))
        self.channels = int(self._key.samplesperpixel)
        self.colormap: Pixels | None = self._key.colormap
        self.dtype = np.dtype(self._key.dtype).newbyteorder("=")
        if self._key.imagedepth > 1:
            raise DataError(f"{name} is a volume of {self._key.imagedepth} slices", "an image", "split it into slices")
        tiled = self._key.is_tiled
        rows = self._key.tilelength if tiled else min(self._key.rowsperstrip, self.size[0])
        self._segment = int(rows), int(self._key.tilewidth if tiled else self.size[1])
        self._grid = tuple(-(-n // s) for n, s in zip(self.size, self._segment))
        as_in_memory = bool(page.is_contiguous) and self._key.fillorder == 1
        self._raw = as_in_memory and not tiled and bool(page.dataoffsets[0])
        self._sparse = not self._raw and 0 in page.databytecounts
        each = self.dtype.itemsize * (1 if self._separate else self.channels)
        if not self._raw and self._segment[0] * self._segment[1] * each > _SEGMENT_BYTES:
            raise DataError(
                f"{name} is one compressed strip of {self.size[0]:,} x {self.size[1]:,} pixels",
                "tiles or strips that can be decoded one at a time",
                "write it again as a tiled TIFF",
            )

    def read(self, box: Box, remember: Callable[[int, Callable[[], Pixels]], Pixels]) -> Pixels:
        if self._raw:
            return self._read_rows(box)
        (y0, y1), (x0, x1) = box
        out = np.zeros((y1 - y0, x1 - x0, self.channels), self.dtype)
        sy, sx = self._segment
        samples = range(self.channels) if self._separate else range(1)
        for (row, column), sample in itertools.product(self._met(box), samples):
            index = (sample * self._grid[0] + row) * self._grid[1] + column
            part = remember(index, lambda index=index: self._decode(index))  # type: ignore[misc]
            top, left = row * sy, column * sx
            y, x = max(y0, top), max(x0, left)
            piece = part[y - top : y1 - top, x - left : x1 - left]
            channels = slice(sample, sample + 1) if self._separate else slice(None)
            out[y - y0 : y - y0 + piece.shape[0], x - x0 : x - x0 + piece.shape[1], channels] = piece
        return out

    def there(self, box: Box) -> Valid | None:
        """``(h, w)``: False where the file leaves out the segments of all samples; None if nowhere in the box."""
        if not self._sparse:
            return None
        (y0, y1), (x0, x1) = box
        sy, sx = self._segment
        found = np.ones((y1 - y0, x1 - x0), bool)
        for row, column in self._met(box):
            first, planes = row * self._grid[1] + column, self._grid[0] * self._grid[1]
            if not any(self._page.databytecounts[first::planes]):
                top, left = max(0, row * sy - y0), max(0, column * sx - x0)
                found[top : (row + 1) * sy - y0, left : (column + 1) * sx - x0] = False
        return None if found.all() else found

    def _met(self, box: Box) -> Iterator[tuple[int, int]]:
        """Row and column of each segment that a box meets."""
        (rows, columns) = (range(a // s, -(-b // s)) for (a, b), s in zip(box, self._segment))
        return itertools.product(rows, columns)

    def _decode(self, index: int) -> Pixels:
        tables = {"jpegtables": self._page.jpegtables, "jpegheader": self._key.jpegheader} if self._is_jpeg else {}
        try:
            offset, count = self._page.dataoffsets[index], self._page.databytecounts[index]
            data, _ = next(iter(self._page.parent.filehandle.read_segments([offset], [count])))
            if count and (data is None or len(data) < count):
                raise ValueError(f"the file ends within its {count} bytes")
            part, _, shape = self._key.decode(data, index, _fullsize=False, **tables)
        except Exception as error:
            row, column = divmod(index % (self._grid[0] * self._grid[1]), self._grid[1])
            kind = "tile" if self._key.is_tiled else "strip"
            raise DataError(
                f"{self._name} has a damaged {kind} at row {row * self._segment[0]}, "
                f"column {column * self._segment[1]} ({error})",
                "an image that decodes to its end",
                "copy or export it again",
            ) from error
        if part is None:
            part = np.full(shape, self._key.nodata or 0, self.dtype)
        return np.asarray(part).reshape(shape[1:]).astype(self.dtype, copy=False)

    @property
    def _is_jpeg(self) -> bool:
        return self._key.compression in {6, 7, 34892, 33007}

    def _read_rows(self, box: Box) -> Pixels:
        """Uncompressed strips lie in the file as in memory: each row's window is read from its place."""
        (y0, y1), (x0, x1) = box
        height, width = self.size
        samples = 1 if self._separate else self.channels
        stored = np.dtype(self._key.parent.byteorder + self.dtype.char)
        together = y1 - y0 if x1 - x0 == width else 1  # whole rows follow each other
        planes = []
        for plane in range(self.channels if self._separate else 1):
            out = np.empty((y1 - y0, x1 - x0, samples), stored)
            for y in range(y0, y1, together):
                place = ((plane * height + y) * width + x0) * samples * stored.itemsize
                self._fill(out[y - y0 : y - y0 + together], self._page.dataoffsets[0] + place)
            planes.append(out)
        return np.concatenate(planes, axis=-1).astype(self.dtype, copy=False)

    def _fill(self, rows: Pixels, place: int) -> None:
        handle = self._page.parent.filehandle
        try:
            handle.seek(place)
            found = handle.readinto(rows.view(np.uint8))
        except OSError as error:
            given = f"{self._name} can't be read ({error.strerror})"
            raise DataError(given, "a drive that answers", "try again") from error
        if found < rows.nbytes:
            raise DataError(f"{self._name} ends within its pixels", "an image that decodes to its end", "copy it again")


def lacks_data(path: Path) -> bool:
    """Whether a TIFF may have pixels without data: it names a value that means it, or leaves out tiles or strips."""
    try:
        with open_tiff(path) as file:
            series = main_series(file)
            named = any(_NO_DATA in page.tags for page in (series.keyframe, file.pages.first))
            return named or any(0 in page.databytecounts for page in series.pages if page is not None)
    except Exception:  # noqa: BLE001 (who reads the pixels says what is wrong with the file)
        return False


def plane_of(file: Any, size: tuple[int, int]) -> Plane | None:
    """The first image or level of this height and width in a TIFF, if it lacks tiles or strips."""
    pages = (page for page in file.pages if (page.imagelength, page.imagewidth) == size and not page.is_mask)
    page = next(pages, None)
    return None if page is None or 0 not in page.databytecounts else Plane(page, str(file.filename))


def shrinkings(size: tuple[int, int]) -> list[int]:
    """By how much the smaller levels of a large picture are shrunk, down to one that a screen shows at once.

    >>> shrinkings((5000, 3000)), shrinkings((900, 900))
    ([2, 4, 8], [])
    """
    return list(itertools.takewhile(lambda step: max(size) > _SCREEN * step // 2, (2**k for k in itertools.count(1))))


def write_tiff(
    path: Path,
    size: tuple[int, int],
    read: Callable[[Box], NDArray[np.uint8]],
    classes: Classes,
    pixel_size: tuple[float, float] | None = None,
    band: int = 1,
) -> None:
    """Writes ``(H, W)`` labels as a tiled, compressed TIFF with the classes' colours; BigTIFF when large.

    Smaller levels follow, so that viewers open it at once: every second, fourth ... pixel, so that they hold classes.
    ``read`` is asked for rows of one ``band`` at a time: those that lie in one row of chunks.
    """
    colormap = palette(classes).T.astype(np.uint16) * 257
    with tifffile.TiffWriter(path, bigtiff=size[0] * size[1] > 2**31) as writer:
        for step in (1, *shrinkings(size)):
            shape = -(-size[0] // step), -(-size[1] // step)
            larger = None if pixel_size is None else (pixel_size[0] * step, pixel_size[1] * step)
            writer.write(
                _tiles(shape, _every(step, size, read, band)), shape=shape, dtype=np.uint8, tile=(_TILE, _TILE),
                compression="zlib", photometric="palette", colormap=colormap, maxworkers=1, metadata=None,
                subfiletype=int(step > 1), **resolution(larger),
            )  # fmt: skip


def _every(
    step: int, size: tuple[int, int], read: Callable[[Box], NDArray[np.uint8]], band: int
) -> Callable[[Box], Pixels]:
    """Reads a box of the picture shrunk by ``step``: of the whole the rows that are wanted, of one band at a time."""
    if step == 1:
        return read

    def shrunk(box: Box) -> Pixels:
        (y0, y1), (x0, x1) = ((a * step, min(b * step, n)) for (a, b), n in zip(box, size))
        out = np.empty((-(-(y1 - y0) // step), -(-(x1 - x0) // step)), np.uint8)
        for _, wanted in itertools.groupby(range(y0, y1, step), lambda y: y // band):
            first, *others = wanted
            last = others[-1] if others else first
            rows = slice((first - y0) // step, (last - y0) // step + 1)
            out[rows] = read(((first, last + 1), (x0, x1)))[::step, ::step]
        return out

    return shrunk


def write_planes_tiff(path: Path, shape: tuple[int, int, int], read: Callable[[int, Box], NDArray[np.uint8]]) -> None:
    """Writes ``(C, H, W)`` uint8 planes as a tiled, compressed TIFF."""
    planes, size = shape[0], (shape[1], shape[2])
    tiles = itertools.chain.from_iterable(
        _tiles(size, lambda box, plane=plane: read(plane, box))  # type: ignore[misc]
        for plane in range(planes)
    )
    with tifffile.TiffWriter(path, bigtiff=planes * size[0] * size[1] > 2**31) as writer:
        writer.write(
            tiles, shape=shape, dtype=np.uint8, tile=(_TILE, _TILE), compression="zlib", photometric="minisblack",
            planarconfig="separate" if planes > 1 else None, maxworkers=1, metadata={"axes": "CYX"},
        )  # fmt: skip


def _tiles(size: tuple[int, int], read: Callable[[Box], NDArray[np.uint8]]) -> Iterator[NDArray[np.uint8]]:
    """The image in TIFF's order, one row of tiles read at a time, edges filled up with zeros."""
    for top in range(0, size[0], _TILE):
        band = read(((top, min(top + _TILE, size[0])), (0, size[1])))
        for left in range(0, size[1], _TILE):
            tile = np.zeros((_TILE, _TILE), np.uint8)
            part = band[:, left : left + _TILE]
            tile[: part.shape[0], : part.shape[1]] = part
            yield tile
