"""Where pixels come from: anything that can read a window of an image. Knows nothing of networks or tiles."""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from whatwhere.errors import DataError, PlanError, in_a_line
from whatwhere.records import Box

__all__ = ["WHOLE", "ArraySource", "Pixels", "Reading", "Source", "Valid", "extra", "no_level"]

Pixels = NDArray[Any]
"""A window of an image: ``(h, w, C)`` in the file's own dtype."""

Valid = NDArray[np.bool_]
"""``(h, w)``: False where the file says that there is no data."""


@dataclass(frozen=True)
class Reading:
    """How files are to be read.

    Attributes:
        level: of a pyramid: 0 is the largest, 1 the next smaller one ...
        fill_missing: Zarr chunks that are not there mean the fill value; otherwise they are an error, as after a copy
            that was cut off.
    """

    level: int = 0
    fill_missing: bool = False

    def __post_init__(self) -> None:
        if self.level < 0:
            raise PlanError(f"level = {self.level}", "0 for the largest, 1 for the next smaller one ...", "")


WHOLE = Reading()
"""Images at their full size, with all their chunks."""


class Source(Protocol):
    """An image that is read by windows."""

    name: str
    size: tuple[int, int]
    channels: int
    dtype: np.dtype[Any]

    def read(self, box: Box) -> tuple[Pixels, Valid | None]:
        """The pixels of ``((y0, y1), (x0, x1))``, inside the image; and which are valid, None if all are."""
        ...

    def close(self) -> None: ...


class ArraySource:
    """An array ``(H, W)`` or ``(H, W, C)`` in memory; where a masked array is masked, in any channel, there is no data.

    ``turned`` says that it lies otherwise in its file.

    >>> source = ArraySource(np.arange(12).reshape(3, 4), "numbers")
    >>> source.size, source.channels
    ((3, 4), 1)
    >>> source.read(((1, 3), (0, 2)))[0][..., 0]
    array([[4, 5],
           [8, 9]])
    """

    def __init__(self, image: Pixels, name: str = "the image", *, turned: bool = False) -> None:
        if image.ndim not in (2, 3) or 0 in image.shape:
            raise DataError(f"{name} has shape {image.shape}", "HxW or HxWxC with at least one pixel", "")
        pixels = np.asarray(image)
        self._image = pixels if pixels.ndim == 3 else pixels[..., None]
        self._valid: Valid | None = None
        if isinstance(image, np.ma.MaskedArray):
            self._valid = np.asarray(~np.ma.getmaskarray(image).reshape(*pixels.shape[:2], -1).any(axis=2))
        self.name = name
        self.size = (image.shape[0], image.shape[1])
        self.channels = self._image.shape[2]
        self.dtype = image.dtype
        self.turned = turned

    def read(self, box: Box) -> tuple[Pixels, Valid | None]:
        (y0, y1), (x0, x1) = box
        return self._image[y0:y1, x0:x1], None if self._valid is None else self._valid[y0:y1, x0:x1]

    def close(self) -> None:
        """Nothing to close."""


def no_level(name: str, level: int, sizes: Sequence[tuple[int, int]]) -> DataError:
    """What is said of an image that lacks a level, given the height and width of each that it has."""
    shown = ", ".join(f"{index}: {height}x{width}" for index, (height, width) in enumerate(sizes))
    return DataError(f"{name} has no level {level}", f"one of its levels ({shown})", "choose another --level")


def extra(module: str, name: str, why: str) -> Any:
    """Imports the module of an optional extra, or says which extra to install."""
    try:
        return importlib.import_module(module)
    except Exception as error:  # a package that is broken, or built for other versions, raises anything
        lacks = isinstance(error, ModuleNotFoundError) and error.name == module
        raise DataError(
            why if lacks else f"{why}, but {module} can't be imported ({in_a_line(error)})",
            f"the package {module}",
            f'pip install "whatwhere[{name}]"',
        ) from error
