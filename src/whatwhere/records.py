"""The few frozen records that pass between rooms. Knows nothing of files, networks or torch."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import asdict, dataclass
from typing import Any

__all__ = ["VOID", "Box", "Classes", "MaskValue", "Normalisation", "color_text", "parse_color"]

VOID = 255
"""The class id of pixels that do not count, in every label array inside whatwhere (uint8)."""

Box = tuple[tuple[int, int], ...]
"""A half-open box of pixels, one ``(start, stop)`` per spatial dimension: ``((y0, y1), (x0, x1))``."""

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
        if not 1 <= len(self.names) < VOID:
            raise ValueError(f"{len(self.names)} classes; 1 to {VOID - 1} are possible")
        if empty := [name for name, values in zip(self.names, self.values) if not values]:
            raise ValueError(f"the class {empty[0]!r} has no value")
        times = Counter(value for values in (*self.values, self.void) for value in values)
        if again := [value for value, count in times.items() if count > 1]:
            raise ValueError(f"the value {again[0]} is listed twice")

    @property
    def count(self) -> int:
        return len(self.names)

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_json(cls, record: dict[str, Any]) -> Classes:
        def value(item: Any) -> MaskValue:
            if isinstance(item, int):
                return int(item)
            if len(item) != 3:
                raise ValueError(f"{item} is neither an integer nor a colour of three")
            return int(item[0]), int(item[1]), int(item[2])

        return cls(
            names=tuple(str(name) for name in record["names"]),
            colors=tuple((int(r), int(g), int(b)) for r, g, b in record["colors"]),
            values=tuple(tuple(value(item) for item in items) for items in record["values"]),
            void=tuple(value(item) for item in record.get("void", ())),
            nearest=bool(record.get("nearest", False)),
        )


@dataclass(frozen=True)
class Normalisation:
    """Constants of the data *set* (never of an image or a tile) that turn raw values into network input.

    ``(raw - mean) / std`` per channel, in the units of the files.

    Attributes:
        mean, std: one number a channel; ``std`` is positive.
        dtype: the numpy dtype of the files, e.g. ``"uint8"``: an image of another depth is not the same units.
    """

    mean: tuple[float, ...]
    std: tuple[float, ...]
    dtype: str = "uint8"

    def __post_init__(self) -> None:
        if len(self.mean) != len(self.std) or not self.mean or not all(map(math.isfinite, (*self.mean, *self.std))):
            raise ValueError(f"mean {self.mean} and std {self.std}; one finite number a channel is needed")
        if min(self.std) <= 0:
            raise ValueError(f"std {self.std}; every one must be positive")

    @property
    def channels(self) -> int:
        return len(self.mean)

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_json(cls, record: dict[str, Any]) -> Normalisation:
        return cls(
            tuple(float(m) for m in record["mean"]), tuple(float(s) for s in record["std"]), str(record["dtype"])
        )
