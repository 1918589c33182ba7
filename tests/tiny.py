"""Tiny data, tiny plans, and what a command ended with: shared by the tests of all rooms."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from whatwhere.learn.plan import Plan


@dataclass(frozen=True)
class Done:
    """What a command ended with."""

    code: int
    out: str
    err: str


Cli = Callable[..., Done]


def rarely(names: Iterable[str], *slow: str) -> list[Any]:
    """Names to try a test with, of which some are left to the slow tests: they are much like others."""
    return [pytest.param(name, marks=pytest.mark.slow) if name in slow else name for name in names]


def disc_picture(seed: int, side: int = 40) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """A bright disc on a mottled ground, ``HxWx3`` uint8, and its mask of 0 and 255."""
    rng = np.random.default_rng([7, seed])
    y, x = np.ogrid[:side, :side]
    row, column, radius = *rng.uniform(10, side - 10, 2), rng.uniform(5, 9)
    disc = (y - row) ** 2 + (x - column) ** 2 <= radius**2
    image = rng.integers(20, 110, (side, side, 3)) + disc[..., None] * rng.integers(90, 140, 3)
    return image.clip(0, 255).astype(np.uint8), np.where(disc, 255, 0).astype(np.uint8)


def png_header(width: int, height: int) -> bytes:
    """A PNG that claims to be large and holds next to nothing."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    head = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + head + chunk(b"IDAT", zlib.compress(b"\0" * 1000)) + chunk(b"IEND", b"")


def write_discs(root: Path, train: int, val: int) -> Path:
    for index in range(train + val):
        split = root / ("train" if index < train else "val")
        for kind, array in zip(("images", "masks"), disc_picture(index)):
            (split / kind).mkdir(parents=True, exist_ok=True)
            Image.fromarray(array).save(split / kind / f"disc {index:02}.png")
    return root


def tiny(plan: Plan, **training: object) -> Plan:
    """The plan with the smallest network that is one."""
    return replace(
        plan,
        network=replace(plan.network, width=4, depth=2, skips=(0, 1)),
        training=replace(
            plan.training, **{"crop": 32, "batch": 2, "precision": "float32", "learning_rate": 0.02, **training}
        ),
    )
