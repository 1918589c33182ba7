"""Names of classes, from the lists that programs which draw or export masks write beside them.

They name what masks hold and decide nothing else: which values there are is told by the masks, what they mean, if it
matters, by a ``classes.toml``.
"""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path

from whatwhere.records import Classes, MaskValue

__all__ = ["ClassList", "named_by", "read_class_list"]

_Color = tuple[int, int, int]
_MOST_BYTES = 2**20


@dataclass(frozen=True)
class ClassList:
    """Names by the colours that classes have in masks, and by their numbers."""

    path: Path
    colors: Mapping[_Color, str] = field(default_factory=dict)
    numbers: Mapping[int, str] = field(default_factory=dict)

    def name(self, value: MaskValue, color: _Color) -> str:
        """That of a mask value, which a palette may show in a colour; "" if it is not in the list."""
        if isinstance(value, tuple):
            return self.colors.get(value, "")
        return self.colors.get(color) or self.numbers.get(value, "")


def read_class_list(places: Iterable[Path]) -> ClassList | None:
    """The first list in some folders that can be read: CVAT's, CamVid's, Kaggle's, Roboflow's or nnU-Net's."""
    for path in (place / name for place in places for name in _READERS):
        with suppress(OSError, ValueError, TypeError, AttributeError, KeyError, IndexError, csv.Error):
            if path.is_file() and path.stat().st_size <= _MOST_BYTES:
                colors, numbers = _READERS[path.name](path.read_text("utf-8-sig"))
                if colors or numbers:
                    return ClassList(path, colors, numbers)
    return None


def named_by(listed: ClassList, classes: Classes) -> Classes:
    """Classes with the names of a list; those that it lacks, or names twice, keep their own.

    >>> listed = ClassList(Path("labelmap.txt"), {(255, 0, 0): "road"}, {0: "ground"})
    >>> classes = Classes(("class 0", "class #ff0000"), ((0, 0, 0), (255, 0, 0)), ((0,), ((255, 0, 0),)))
    >>> named_by(listed, classes).names
    ('ground', 'road')
    """
    names: list[str] = []
    for own, color, (value, *_) in zip(classes.names, classes.colors, classes.values):
        name = listed.name(value, color)
        names.append(name if name and name not in (*names, *classes.names) else own)
    try:
        return replace(classes, names=tuple(names))
    except ValueError:  # control characters in a name
        return classes


_Names = tuple[dict[_Color, str], dict[int, str]]


def _cvat(text: str) -> _Names:
    """``road:128,64,128::``, a line for each class; in masks of one channel the number of the line."""
    lines = [line.split(":") for line in text.splitlines() if line.strip() and not line.startswith("#")]
    return (
        {_color(shown.split(",")): name.strip() for name, shown, *_ in lines if shown.strip()},
        {number: name.strip() for number, (name, *_) in enumerate(lines)},
    )


def _camvid(text: str) -> _Names:
    """``64 128 64   Animal``."""
    found = (re.fullmatch(r"\s*(\d+)\s+(\d+)\s+(\d+)\s+(\S.*?)\s*", line) for line in text.splitlines())
    return {_color(match.groups()[:3]): match[4] for match in found if match}, {}


def _kaggle(text: str) -> _Names:
    """``name,r,g,b`` and a line for each class."""
    return {_color((row["r"], row["g"], row["b"])): row["name"] for row in _rows(text)}, {}


def _roboflow(text: str) -> _Names:
    """``Pixel Value, Class`` and a line for each class."""
    return {}, {int(row["pixel value"]): row["class"] for row in _rows(text)}


def _nnunet(text: str) -> _Names:
    """``{"labels": {"liver": 1}}``, and the other way round in its first version."""
    labels = json.loads(text)["labels"]
    pairs = [(one, other) if str(one).isdecimal() else (other, one) for one, other in labels.items()]
    return {}, {int(number): str(name) for number, name in pairs if not isinstance(number, list)}


def _rows(text: str) -> Iterable[dict[str, str]]:
    """Those of a table with a head, however that is spaced and spelt."""
    head, *rows = csv.reader(text.splitlines())
    keys = [key.strip().lower() for key in head]
    return [dict(zip(keys, (cell.strip() for cell in row))) for row in rows if row]


def _color(parts: Iterable[str]) -> _Color:
    red, green, blue = (int(part) for part in parts)
    return red, green, blue


_READERS: Mapping[str, Callable[[str], _Names]] = {
    "labelmap.txt": _cvat,
    "label_colors.txt": _camvid,
    "class_dict.csv": _kaggle,
    "class_dict_seg.csv": _kaggle,
    "_classes.csv": _roboflow,
    "dataset.json": _nnunet,
}
