"""A data set as every peer and the scorer see it: the same files, as arrays, from a folder with train/ and val/.

Knows nothing of whatwhere, of networks or of training.
"""

from __future__ import annotations

import tomllib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

__all__ = ["Pair", "Task", "read_image", "read_mask", "read_task"]


@dataclass(frozen=True)
class Pair:
    """An image file and its mask file."""

    image: Path
    mask: Path


@dataclass(frozen=True)
class Task:
    """Names of the classes (mask values 0, 1, ...), the mask value that does not count, and the files."""

    name: str
    classes: tuple[str, ...]
    void: int | None
    channels: int
    train: tuple[Pair, ...]
    val: tuple[Pair, ...]


def read_task(folder: Path) -> Task:
    """The data set in a folder; without ``classes.toml`` its classes are the values of the training masks.

    Raises:
        ValueError: its masks do not hold 0, 1, ... for the classes, or more than one value that does not count.
    """
    train, val = (pairs(folder / part) for part in ("train", "val"))
    described = folder / "classes.toml"
    if described.is_file():
        record = tomllib.loads(described.read_text(encoding="utf-8"))
        names = {entry["value"]: entry["name"] for entry in record["class"]}
        void = record.get("void", [])
    else:
        values = sorted({int(value) for pair in train for value in np.unique(read_mask(pair.mask))})
        names, void = {value: f"class {value}" for value in values}, []
    if list(names) != list(range(len(names))) or len(void) > 1:
        raise ValueError(f"{folder}: classes {[*names]}, void {void}; the peers need 0, 1, ... and at most one void")
    channels = read_image(train[0].image).shape[2]
    return Task(folder.name, tuple(names.values()), void[0] if void else None, channels, train, val)


def pairs(part: Path) -> tuple[Pair, ...]:
    masks = {path.stem: path for path in (part / "masks").iterdir()}
    return tuple(Pair(path, masks[path.stem]) for path in sorted((part / "images").iterdir()))


def read_image(path: Path) -> NDArray[np.uint8]:
    """``(H, W, C)`` uint8 in [0, 255], one channel for grey images."""
    with Image.open(path) as image:
        array = np.array(image)
    return array[..., None] if array.ndim == 2 else array


def read_mask(path: Path) -> NDArray[np.uint8]:
    """``(H, W)`` uint8 mask values."""
    with Image.open(path) as image:
        return np.array(image)
