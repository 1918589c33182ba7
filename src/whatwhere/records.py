"""The few frozen records that pass between rooms. Knows nothing of files, networks or torch."""

from __future__ import annotations

import math
import unicodedata
from collections import Counter
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Any

__all__ = [
    "VOID",
    "Box",
    "Classes",
    "MaskValue",
    "Normalisation",
    "color_of",
    "color_text",
    "mask_value",
    "parse_color",
]

VOID = 255
"""The class id of pixels that do not count, in every label array inside whatwhere (uint8)."""

Box = tuple[tuple[int, int], ...]
"""A half-open box of pixels, one ``(start, stop)`` per spatial dimension: ``((y0, y1), (x0, x1))``."""

_LEAST_STD = 1e-37
"""It and its reciprocal are float32 numbers."""

_DTYPES = (
    "bool",
    *(f"{sign}int{bits}" for sign in ("", "u") for bits in (8, 16, 32, 64)),
    "float16",
    "float32",
    "float64",
)
"""Of numbers that images hold."""

MaskValue = int | tuple[int, int, int]
"""What a mask file holds for a class: an integer (grey value, class id) or an RGB colour."""


def color_text(color: tuple[int, int, int]) -> str:
    """What `parse_color` reads.

    >>> color_text((18, 52, 255))
    '#1234ff'
    """
    return "#{:02x}{:02x}{:02x}".format(*color)


def parse_color(text: str) -> tuple[int, int, int]:
    """``"#rrggbb"`` to three integers in [0, 255].

    >>> parse_color("#f2a541")
    (242, 165, 65)
    """
    digits = text.removeprefix("#")
    if len(digits) != 6:
        raise ValueError(f"{text!r} is not a colour like '#f2a541'")
    red, green, blue = bytes.fromhex(digits)
    return red, green, blue


def color_of(parts: Iterable[Any]) -> tuple[int, int, int]:
    """Three integers in [0, 255], of three numbers."""
    red, green, blue = (int(part) for part in parts)
    if not all(0 <= part <= 255 for part in (red, green, blue)):
        raise ValueError(f"{[red, green, blue]} is not a colour of three numbers from 0 to 255")
    return red, green, blue


def mask_value(item: object) -> MaskValue:
    """A mask value as ``classes.toml``, plans and JSON write it: an integer, ``"#rrggbb"`` or ``[r, g, b]``.

    >>> mask_value(7), mask_value("#0a141e"), mask_value([1, 2, 3])
    (7, (10, 20, 30), (1, 2, 3))
    """
    if type(item) is int:  # which true and false are not
        return item
    if isinstance(item, str):
        return parse_color(item)
    if isinstance(item, list | tuple) and len(item) == 3 and all(type(part) is int for part in item):
        return color_of(item)
    raise ValueError(f"{item!r} is not a mask value (an integer, '#rrggbb' or [r, g, b])")


@dataclass(frozen=True)
class Classes:
    """The classes of a data set and how its mask files write them.

    Attributes:
        names: one name a class; a class's id is its place in this tuple.
        colors: one RGB colour a class, for paintings.
        values: for each class the mask values that mean it.
        void: the mask values whose pixels do not count.
        nearest: a mask value that is listed nowhere takes the class of the nearest listed one
            (antialiased or JPEG-compressed masks); otherwise it is an error.

    Raises:
        ValueError: names, colors and values of different number; no class or more than 254; two classes of one name, or
            a name with control characters; a class without a value, a value listed twice, or one that no mask can hold.

    >>> Classes(("sky", "road"), ((0, 0, 0), (255, 0, 0)), ((0,), (255,))).count
    2
    """

    names: tuple[str, ...]
    colors: tuple[tuple[int, int, int], ...]
    values: tuple[tuple[MaskValue, ...], ...]
    void: tuple[MaskValue, ...] = ()
    nearest: bool = False

    def __post_init__(self) -> None:
        if not len(self.names) == len(self.colors) == len(self.values):
            raise ValueError(
                f"{len(self.names)} names, {len(self.colors)} colors, {len(self.values)} values; one a class is needed"
            )
        if twice := [name for name in self.names if self.names.count(name) > 1]:
            raise ValueError(f"two classes are named {twice[0]!r}; one class may have several values")
        if odd := [name for name in self.names if any(unicodedata.category(one) == "Cc" for one in name)]:
            raise ValueError(f"the class {odd[0]!r} has a name with line breaks, tabs or other control characters")
        if not 1 <= len(self.names) < VOID:
            raise ValueError(f"{len(self.names)} classes; 1 to {VOID - 1} are possible")
        if empty := [name for name, values in zip(self.names, self.values) if not values]:
            raise ValueError(f"the class {empty[0]!r} has no value")
        self._check_listed([value for values in (*self.values, self.void) for value in values])

    @staticmethod
    def _check_listed(listed: list[MaskValue]) -> None:
        """Masks can hold each value, and none is listed twice."""
        colored = any(isinstance(value, tuple) for value in listed)
        low, high = (0, 255) if colored else (-(2**63), 2**63 - 1)
        if beyond := [value for value in listed if isinstance(value, int) and not low <= value <= high]:
            beside = " beside colours" if colored else ""
            raise ValueError(f"the value {beyond[0]} is in no mask: integers{beside} go from {low} to {high}")
        times = Counter((value,) * 3 if colored and isinstance(value, int) else value for value in listed)
        if again := [value for value, count in times.items() if count > 1]:
            beside = "; beside colours a grey value v is the colour (v, v, v)" if colored else ""
            raise ValueError(f"the value {again[0]} is listed twice{beside}")

    @property
    def count(self) -> int:
        """How many classes there are, void not among them."""
        return len(self.names)

    def to_json(self) -> dict[str, Any]:
        """What :meth:`from_json` reads: the attributes, as a dict that ``json`` can write."""
        return asdict(self)

    @classmethod
    def from_json(cls, record: dict[str, Any]) -> Classes:
        """From what :meth:`to_json` gives, or a plan holds; ``void`` and ``nearest`` may be left out.

        Raises:
            KeyError: names, colors or values are missing.
            TypeError, ValueError: they are not as :class:`Classes` has them.
        """
        nearest = record.get("nearest", False)
        if not isinstance(nearest, bool):
            raise ValueError(f"nearest = {nearest!r} is neither true nor false, which stand without quotes")
        return cls(
            names=tuple(str(name) for name in record["names"]),
            colors=tuple(color_of(color) for color in record["colors"]),
            values=tuple(tuple(mask_value(item) for item in items) for items in record["values"]),
            void=tuple(mask_value(item) for item in record.get("void", ())),
            nearest=nearest,
        )


@dataclass(frozen=True)
class Normalisation:
    """Constants of the data *set* (never of an image or a tile) that turn raw values into network input.

    ``(raw - mean) / std`` per channel, in the units of the files.

    Attributes:
        mean, std: one number a channel; ``std`` is from 1e-37 to 1e37.
        dtype: the numpy dtype of the files, e.g. ``"uint8"``: an image of another depth is not the same units.

    Raises:
        ValueError: no channel, other numbers of means than of deviations, a number that is not finite, a deviation that
            is not positive, or a dtype that images don't have.
    """

    mean: tuple[float, ...]
    std: tuple[float, ...]
    dtype: str = "uint8"

    def __post_init__(self) -> None:
        if len(self.mean) != len(self.std) or not self.mean or not all(map(math.isfinite, (*self.mean, *self.std))):
            raise ValueError(f"mean {self.mean} and std {self.std}; one finite number a channel is needed")
        if not all(_LEAST_STD <= one <= 1 / _LEAST_STD for one in self.std):
            raise ValueError(f"std {self.std}; every one must be positive, and a float32 with its reciprocal")
        if self.dtype not in _DTYPES:
            raise ValueError(f"dtype {self.dtype!r}; one of {', '.join(_DTYPES)} is needed")

    @property
    def channels(self) -> int:
        """How many channels the images have."""
        return len(self.mean)

    def to_json(self) -> dict[str, Any]:
        """What :meth:`from_json` reads: the attributes, as a dict that ``json`` can write."""
        return asdict(self)

    @classmethod
    def from_json(cls, record: dict[str, Any]) -> Normalisation:
        """From what :meth:`to_json` gives.

        Raises:
            KeyError: mean, std or dtype is missing.
            TypeError, ValueError: they are not as :class:`Normalisation` has them.
        """
        return cls(
            tuple(float(m) for m in record["mean"]), tuple(float(s) for s in record["std"]), str(record["dtype"])
        )
