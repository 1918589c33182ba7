"""Zarr (v2 and v3) and OME-Zarr by windows: images read, labels written chunk by chunk. Needs the extra ``zarr``.

Output chunks are squares that tiles are aligned to, so that several processes can write one array without locks.
"""

from __future__ import annotations

import base64
import itertools
import struct
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np

from whatwhere.data.images import with_data
from whatwhere.errors import DataError, in_a_line
from whatwhere.paint.journal import sync_file
from whatwhere.paint.sources import WHOLE, Pixels, Reading, Valid, extra, no_level
from whatwhere.records import VOID, Box, Classes

__all__ = [
    "CHUNK",
    "ZarrSource",
    "add_levels",
    "create_labels",
    "create_planes",
    "is_zarr",
    "open_labels",
    "sweep",
    "sync_box",
]

CHUNK = 256
"""Height and width of output chunks; tile write boxes meet at its multiples."""

_MARKS = ("zarr.json", ".zarray", ".zgroup")

_CHANNELS = ("band", "bands", "channel", "channels", "wavelength", "s")
"""What others call the axis of channels."""


def is_zarr(path: Path) -> bool:
    return path.is_dir() and any((path / mark).is_file() for mark in _MARKS)


class ZarrSource:
    """An array ``(H, W)``, ``(H, W, C)`` or ``(C, H, W)``, or a level of an OME-Zarr image.

    Axes are taken from the file's own names where it has them; without names, the shortest of three is the channels,
    but of one row or column of pixels the last axis where that has three or four.

    Args:
        path: the folder of the array or of the OME-Zarr group.
        how: which level, and what chunks mean that are not there.
    """

    def __init__(self, path: Path, how: Reading = WHOLE) -> None:
        zarr = extra("zarr", "zarr", f"{path} is a Zarr folder")
        self.name = str(path)
        names: list[str] = []
        self.ome: dict[str, Any] | None = None
        self.level = how.level
        try:
            node = zarr.open(_store(path), mode="r")
            if not hasattr(node, "shape"):
                node, names, self.ome = _level(node, path, how.level)
        except DataError:
            raise
        except Exception as error:  # zarr's many versions raise many kinds
            raise DataError(f"{path} is not a whole Zarr folder ({error})", "a Zarr array", "copy it again") from error
        if self.ome is None and how.level:
            raise DataError(f"{path} has no level {how.level}", "an OME-Zarr image with levels", "leave out --level")
        self._array = node
        self._axes = _Axes(tuple(node.shape), names or _names(node), path)
        self.format = int(node.metadata.zarr_format)
        self.axes = self._axes.names
        self.size, self.channels = self._axes.size, self._axes.channels
        self.dtype = _real(np.dtype(node.dtype), path).newbyteorder("=")
        self._no_data = _no_data(node)
        self._fill_missing = how.fill_missing
        self._refuse_missing([slice(None)] * len(node.shape))

    def _refuse_missing(self, part: Sequence[slice | int]) -> None:
        """What zarr would read as the fill value, without a word."""
        missing = None if self._fill_missing else next(_missing(self._array, part), None)
        if missing is not None:
            raise DataError(
                f"{self.name} has no chunk {missing}",
                "all chunks of the array",
                "copy it again, or say that missing chunks mean the fill value (--fill-missing; fill_missing=True)",
            )

    def read(self, box: Box) -> tuple[Pixels, Valid | None]:
        part = self._axes.select(box)
        try:
            pixels = self._axes.upright(self._array[part])
            pixels = pixels.astype(self.dtype, copy=False)  # Zarr v2 keeps the order of bytes of old instruments
        except Exception as error:  # each codec raises kinds of its own
            (y0, y1), (x0, x1) = box
            raise DataError(
                f"{self.name} has a damaged chunk in rows {y0} to {y1}, columns {x0} to {x1} ({error})",
                "chunks that decode to their end",
                "copy it again",
            ) from error
        self._refuse_missing(part)  # one that was there at first may have gone since, with a drive of a network
        return pixels, None if self._no_data is None else with_data(pixels, self._no_data)

    def close(self) -> None:
        """Nothing stays open."""


class _Axes:
    """Where height, width and channels lie in an array."""

    def __init__(self, shape: tuple[int, ...], names: list[str], path: Path) -> None:
        if 0 in shape:
            raise DataError(f"{path} has shape {shape}", "at least one pixel", "leave it out, or write it again")
        if not names or len(names) != len(shape) or not {"y", "x"} <= {str(name).lower() for name in names}:
            names = _guess(shape, path)
        self.names = _with_c([str(name).lower() for name in names], shape)
        sizes = dict(zip(self.names, shape))
        extra_axes = {name: n for name, n in sizes.items() if name not in ("y", "x", "c") and n > 1}
        if extra_axes:
            raise DataError(
                f"{path} has axes {', '.join(f'{name} of {n}' for name, n in sizes.items())}",
                "height, width and channels",
                f"select one of {', '.join(extra_axes)} first",
            )
        self.size = sizes["y"], sizes["x"]
        self.channels = sizes.get("c", 1)

    def select(self, box: Box) -> tuple[slice | int, ...]:
        slices = {"y": slice(*box[0]), "x": slice(*box[1]), "c": slice(None)}
        return tuple(slices.get(name, 0) for name in self.names)

    def upright(self, part: Any) -> Pixels:
        kept = [name for name in self.names if name in ("y", "x", "c")]
        pixels = np.asarray(part).transpose([kept.index(name) for name in ("y", "x", "c") if name in kept])
        return np.ascontiguousarray(pixels if "c" in kept else pixels[..., None])


def _real(dtype: np.dtype[Any], path: Path) -> np.dtype[Any]:
    if dtype.kind not in "buif":
        raise DataError(f"{path} holds values of {dtype}", "real numbers", "save it as such, or leave it out")
    return dtype


def _names(array: Any) -> list[str]:
    """What an array calls its axes: Zarr v3 by itself, v2 as xarray writes it."""
    named = getattr(array.metadata, "dimension_names", None) or array.attrs.get("_ARRAY_DIMENSIONS")
    return list(named) if isinstance(named, list | tuple) else []


def _with_c(names: list[str], shape: tuple[int, ...]) -> list[str]:
    """Names in which the axis of channels is ``c``.

    >>> _with_c(["band", "y", "x"], (4, 30, 20)), _with_c(["time", "y", "x"], (4, 30, 20))
    (['c', 'y', 'x'], ['time', 'y', 'x'])
    """
    others = [place for place, name in enumerate(names) if name in _CHANNELS]
    if others and "c" not in names:
        place = max(others, key=lambda place: shape[place])
        return [*names[:place], "c", *names[place + 1 :]]
    return names


def _guess(shape: tuple[int, ...], path: Path) -> list[str]:
    if len(shape) == 2:
        return ["y", "x"]
    if len(shape) == 3:
        place = 2 if 1 in shape[:2] and shape[2] in (3, 4) else int(np.argmin(shape))
        return ["c", "y", "x"] if place == 0 else ["y", "c", "x"] if place == 1 else ["y", "x", "c"]
    raise DataError(f"{path} has {len(shape)} axes without names", "height, width and channels", "name its axes")


def _level(group: Any, path: Path, number: int) -> tuple[Any, list[str], dict[str, Any]]:
    attributes = dict(group.attrs)
    ome = attributes.get("ome")
    words = ome if ome and isinstance(ome, dict) else attributes
    scales = words.get("multiscales")
    if not scales:
        inside = sorted([*group.array_keys(), *group.group_keys()])
        # of a plate rows, columns and fields; of a well fields
        example = "*/*/*" if "plate" in words else "*" if "well" in words else inside[0] if inside else "name"
        raise DataError(
            f"{path} is a Zarr group without an image (it holds {', '.join(inside[:6]) or 'nothing'})",
            "an array, or an OME-Zarr image",
            f"name the image inside it, as in {path.name}/{example}",
        )
    try:
        first = scales[0]
        axes = [axis["name"] if isinstance(axis, dict) else axis for axis in first.get("axes", [])]
        levels = [str(dataset["path"]) for dataset in first["datasets"]]
    except (LookupError, TypeError, AttributeError) as error:
        raise _otherwise(path, error) from error
    if number >= len(levels):
        there = [array for array in (_inside(group, level) for level in levels) if array is not None]
        raise no_level(str(path), number, [array.shape[-2:] for array in there if array.ndim > 1])
    array = _inside(group, levels[number])
    if array is None:
        why = f"{path} has no level {levels[number]!r}"
        raise DataError(why, "the arrays that its own description names", "copy it again")
    return array, axes, first


def _inside(group: Any, name: str) -> Any:
    """An array of a group; None where there is none, or a group."""
    found = group.get(name)
    return found if hasattr(found, "shape") else None


def _otherwise(path: Path | str, error: Exception) -> DataError:
    return DataError(
        f"{path} does not describe its image as OME-Zarr does ({in_a_line(error)})",
        "the axes, the path of each level, and numbers by which its pixels lie in space",
        "write it again, or name the array inside it",
    )


def _no_data(array: Any) -> float | None:
    """The value that means it: as CF and xarray name it, else a fill value that is no number.

    In format 2 xarray and GDAL write it as the fill value. A 0 there is what other programs leave, and is data.
    """
    dtype = np.dtype(array.dtype)
    for key in ("_FillValue", "missing_value"):
        value = _number(array.attrs.get(key))
        if value is not None:
            return value if dtype.kind == "f" or _holds(dtype, value) else None
    fill = array.fill_value  # may be null
    value = _number(np.asarray(fill).item()) if fill is not None and dtype.kind in "iuf" else None
    if array.metadata.zarr_format == 2 and "_ARRAY_DIMENSIONS" in array.attrs and value:
        return value
    return float("nan") if dtype.kind == "f" and fill is not None and np.isnan(fill) else None


def _holds(dtype: np.dtype[Any], value: float) -> bool:
    """Whether a value is an integer of this kind."""
    return dtype.kind in "iu" and value.is_integer() and bool(np.iinfo(dtype).min <= value <= np.iinfo(dtype).max)


def _number(value: Any) -> float | None:
    """An attribute as a number; JSON has no NaN, and xarray writes floats in base 64 into Zarr v3."""
    if isinstance(value, str):
        try:
            return float("nan") if value == "NaN" else float(struct.unpack("<d", base64.b64decode(value))[0])
        except (ValueError, struct.error):
            return None
    return float(value) if isinstance(value, int | float) else None


def _missing(array: Any, part: Sequence[slice | int]) -> Iterator[str]:
    """Names of the stored chunks (shards, where it has them) of a part of an array that are not on disk."""
    stored = getattr(array, "shards", None) or array.chunks
    folder = Path(str(array.store.root)) / array.path
    spans = (range(n)[one] if isinstance(one, slice) else range(one, one + 1) for n, one in zip(array.shape, part))
    grid = (range(span.start // c, -(-span.stop // c)) for span, c in zip(spans, stored))
    for place in itertools.product(*grid):
        key = array.metadata.encode_chunk_key(place)
        if not (folder / key).is_file():
            yield key


def _store(path: Path) -> Any:
    """A folder as zarr takes it; of a text it would make a chain of addresses where there is ``::`` in it."""
    from zarr.storage import LocalStore

    return LocalStore(path)


def open_labels(path: Path, mode: Literal["r", "r+"] = "r") -> Any:
    """The array of what `create_labels` or `create_planes` has made."""
    import zarr

    node: Any = zarr.open(_store(path), mode=mode)
    return node if hasattr(node, "shape") else node["0"]


def _named(axes: str, form: int) -> dict[str, Any]:
    """Zarr v3 names its axes. Chunks of v2 are nested, as OME-NGFF 0.4 asks: no folder gets a hundred thousand."""
    return {"dimension_names": [*axes]} if form == 3 else {"chunk_key_encoding": {"name": "v2", "separator": "/"}}


def create_labels(path: Path, size: tuple[int, int], classes: Classes, source: ZarrSource | None) -> Any:
    """An empty ``(H, W)`` uint8 array for labels, of the Zarr format of ``source`` and as OME-Zarr if it is that."""
    zarr = extra("zarr", "zarr", f"{path} is to be a Zarr folder")
    form = source.format if source else 3
    words: dict[str, Any] = {"classes": {"names": list(classes.names), "colors": [list(c) for c in classes.colors]}}
    place: Any = _store(path)
    name = None
    if source is not None and source.ome is not None:
        place, name = zarr.open_group(place, mode="w", zarr_format=form), "0"
        place.attrs.update(_ome_words(source.ome, source, classes))
    maker = zarr.create_array if name is None else place.create_array
    target = {"store": place} if name is None else {"name": name}
    return maker(
        **target, shape=size, chunks=(CHUNK, CHUNK), dtype="uint8", fill_value=VOID, overwrite=True,
        attributes=words, config={"write_empty_chunks": True}, **_named("yx", form),
        **({} if name else {"zarr_format": form}),
    )  # fmt: skip


def add_levels(path: Path, steps: Sequence[int]) -> None:
    """Smaller levels of a finished OME-Zarr label image: every second, fourth ... pixel, so that they hold classes.

    Args:
        path: of the image, whose level 0 is complete.
        steps: by how much each level is shrunk, each twice the one before.
    """
    zarr = extra("zarr", "zarr", f"{path} is a Zarr folder")
    group = zarr.open_group(_store(path), mode="r+")
    words = dict(group.attrs)
    multiscales = words.get("ome", words)["multiscales"][0]
    (whole, *_), finest = multiscales["datasets"], group["0"]
    datasets, larger = [whole], finest
    named = _named("yx", group.metadata.zarr_format)
    for level, step in enumerate(steps, 1):
        height, width = (-(-n // step) for n in finest.shape)
        smaller = group.create_array(
            str(level), shape=(height, width), chunks=(CHUNK, CHUNK), dtype="uint8", fill_value=VOID, overwrite=True,
            config={"write_empty_chunks": True}, **named,
        )  # fmt: skip
        for top in range(0, height, CHUNK):
            bottom = min(top + CHUNK, height)
            smaller[top:bottom] = larger[2 * top : 2 * bottom][::2, ::2]
            sync_box(smaller, ((top, bottom), (0, width)))
        datasets.append({"path": str(level), "coordinateTransformations": [_larger(one, step) for one in
                         whole["coordinateTransformations"]]})  # fmt: skip
        larger = smaller
    multiscales["datasets"] = datasets
    group.attrs.update(words)


def _larger(transform: dict[str, Any], step: int) -> dict[str, Any]:
    """The first of the pixels that one stands for keeps its place, so that only the scale is another."""
    return transform | ({"scale": [step * one for one in transform["scale"]]} if "scale" in transform else {})


def create_planes(path: Path, shape: tuple[int, int, int], form: int) -> Any:
    """An empty ``(C, H, W)`` uint8 array for probabilities."""
    zarr = extra("zarr", "zarr", f"{path} is to be a Zarr folder")
    return zarr.create_array(
        store=_store(path), shape=shape, chunks=(shape[0], CHUNK, CHUNK), dtype="uint8", fill_value=0, overwrite=True,
        config={"write_empty_chunks": True}, zarr_format=form, **_named("cyx", form),
    )  # fmt: skip


def sync_box(array: Any, box: Box) -> None:
    """Waits until the chunks of a box (its last dimensions) are on disk."""
    folder = Path(str(array.store.root)) / array.path
    spans = [(0, 1)] * (len(array.shape) - len(box)) + [(a // CHUNK, -(-b // CHUNK)) for a, b in box]
    for place in itertools.product(*(range(a, b) for a, b in spans)):
        sync_file(folder / array.metadata.encode_chunk_key(place))


def sweep(folder: Path) -> None:
    """Removes chunks that were being written when their writer was killed.

    Zarr writes each file beside its place, as ``*.partial``, and renames it.
    """
    for left in folder.rglob("*.partial"):
        left.unlink(missing_ok=True)


def _flat(words: dict[str, Any], kept: list[int]) -> list[dict[str, Any]]:
    """The steps from pixels to space, of some axes alone."""
    return [
        {**step, kind: [step[kind][i] for i in kept]}
        for step in words.get("coordinateTransformations", [])
        for kind in ("scale", "translation")
        if kind in step
    ]


def _ome_words(ome: dict[str, Any], source: ZarrSource, classes: Classes) -> dict[str, Any]:
    """The description of a label image at the place of the image it was painted from (OME-NGFF 0.4 and 0.5)."""
    form = source.format
    axes = [axis if isinstance(axis, dict) else {"name": axis, "type": "space"} for axis in ome.get("axes", [])]
    names = [str(axis["name"]).lower() for axis in axes]
    if not {"y", "x"} <= set(names):  # then the source has told them by their sizes
        names, axes = source.axes, [{"type": "space"}] * len(source.axes)
    kept = [names.index("y"), names.index("x")]  # labels are upright, whichever the image has first
    axes = [{**axes[i], "name": names[i]} for i in kept]
    try:
        own, then = _flat(ome["datasets"][source.level], kept), _flat(ome, kept)
    except (LookupError, TypeError) as error:
        raise _otherwise(source.name, error) from error
    transforms = own or [{"type": "scale", "scale": [1.0, 1.0]}]
    version = "0.5" if form == 3 else "0.4"
    multiscales: dict[str, Any] = {
        "version": version, "name": "labels", "axes": axes,
        "datasets": [{"path": "0", "coordinateTransformations": transforms}],
    }  # fmt: skip
    if then:  # after those of the level
        multiscales["coordinateTransformations"] = then
    colors = [{"label-value": i, "rgba": [*color, 255]} for i, color in enumerate(classes.colors)]
    properties = [{"label-value": i, "class": name} for i, name in enumerate(classes.names)]
    words = {
        "multiscales": [multiscales],
        "image-label": {"version": version, "colors": colors, "properties": properties},
    }
    return {"ome": {"version": version, **words}} if form == 3 else words
