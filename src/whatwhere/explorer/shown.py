"""The images on the desk: opened, cut to a bearable size, and made ready to be shown. Knows files and arrays."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from whatwhere.data.findings import many
from whatwhere.data.images import decoded_bytes, filled, image_size
from whatwhere.errors import DataError
from whatwhere.explorer.errors import RefusalError
from whatwhere.explorer.pictures import png, thumbnail
from whatwhere.judge import to_display
from whatwhere.paint.files import fitted, open_image
from whatwhere.records import VOID

__all__ = ["SIDE", "Shown", "cut_to_size", "open_shown"]

SIDE = 1024
"""px; of larger images the middle is shown."""


@dataclass(frozen=True, eq=False)
class Shown:
    """One image on the desk.

    Attributes:
        id: how requests name it.
        name: how people name it.
        raw: ``H x W x C`` in the file's units.
        truth: ``H x W`` uint8 class ids, or None without a mask.
        whole: height and width of the image of which this is the middle; None where it is all of it.
        source: its name among the labelled images; None if it is none of them.
        valid: ``H x W`` bool, where there is data; None where it is everywhere.
    """

    id: str
    name: str
    raw: NDArray[Any]
    truth: NDArray[np.uint8] | None = None
    whole: tuple[int, int] | None = None
    source: str | None = None
    valid: NDArray[np.bool_] | None = None

    @property
    def size(self) -> tuple[int, int]:
        return self.raw.shape[0], self.raw.shape[1]

    @cached_property
    def rgb(self) -> NDArray[np.uint8]:
        return to_display(self.raw)

    @cached_property
    def picture(self) -> bytes:
        return png(self.rgb)

    @cached_property
    def thumb(self) -> bytes:
        return png(thumbnail(self.rgb))

    def where_data(self, labels: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """``H x W`` labels, void where the image has no data."""
        return labels if self.valid is None else np.where(self.valid, labels, np.uint8(VOID))

    def to_json(self) -> dict[str, Any]:
        height, width = self.size
        whole = None if self.whole is None else {"width": self.whole[1], "height": self.whole[0]}
        return {
            "id": self.id, "name": self.name, "width": width, "height": height, "truth": self.truth is not None,
            "whole": whole, "channels": self.raw.shape[2], "dtype": str(self.raw.dtype),
            "thumb": f"/api/images/{self.id}/thumb.png",
        }  # fmt: skip


def cut_to_size(
    key: str,
    name: str,
    raw: NDArray[Any],
    truth: NDArray[np.uint8] | None = None,
    side: int = SIDE,
    *,
    valid: NDArray[np.bool_] | None = None,
) -> Shown:
    """An image as it lies on the desk: at most ``side`` pixels high and wide, from the middle of a larger one.

    A mask of which no pixel that is shown counts is none.
    """
    raw = raw if raw.ndim == 3 else raw[..., None]
    top, left = (max(0, (n - side) // 2) for n in raw.shape[:2])
    cut = np.s_[top : top + side, left : left + side]
    piece = raw[cut].copy()  # or else a cut would keep the whole image in memory
    labels = None if truth is None or (truth[cut] == VOID).all() else truth[cut].copy()
    there = None if valid is None else valid[cut].copy()
    return Shown(key, name, piece, labels, _whole(piece, raw.shape[:2]), valid=there)


def open_shown(key: str, name: str, path: Path, channels: Sequence[int], most_pixels: int | None = None) -> Shown:
    """The image in a file, fitted to the first of the channels that it can have.

    Raises:
        RefusalError: it has more pixels than ``most_pixels``, or more than 4 bytes for each of so many, or other
            channels than any model takes.
        DataError: it is not an image, or damaged.
    """
    if most_pixels is not None:
        _refuse_large(name, path, most_pixels)
    with closing(open_image(path)) as opened:
        source = next(
            (one for one in (fitted(opened, count) for count in channels) if one.channels in channels), opened
        )
        if source.channels not in channels:
            wanted = " or ".join(str(count) for count in channels)
            raise RefusalError(
                422,
                f"{name} has {many(source.channels, 'channel')}",
                f"{wanted}, as the models take",
                "convert it, or open another",
            )
        top, left = (max(0, (n - SIDE) // 2) for n in source.size)
        window = ((top, min(source.size[0], top + SIDE)), (left, min(source.size[1], left + SIDE)))
        raw, valid = source.read(window)
        valid = None if valid is None or valid.all() else valid
        # a copy, or else a cut would keep the whole file in memory
        raw = raw.copy() if valid is None else filled(raw, valid)
    if raw.dtype.kind == "f" and not np.isfinite(raw).all():
        raise DataError(f"{name} has values that are NaN or infinite", "finite pixel values", "replace them")
    return Shown(key, name, raw, None, _whole(raw, source.size), valid=valid)


def _whole(piece: NDArray[Any], size: Sequence[int]) -> tuple[int, int] | None:
    return None if piece.shape[:2] == tuple(size) else (int(size[0]), int(size[1]))


def _refuse_large(name: str, path: Path, most_pixels: int) -> None:
    """By the file's header alone."""
    height, width = image_size(path)
    if height * width > most_pixels:
        given, expected = f"{name} has {width}x{height} pixels", f"at most {most_pixels / 1e6:.0f} million"
    elif (size := decoded_bytes(path)) > 4 * most_pixels:
        given, expected = f"{name} has {size / 1e6:.0f} MB when it is read", f"at most {4 * most_pixels / 1e6:.0f} MB"
    else:
        return
    raise RefusalError(413, given, expected, "cut out a part of it")
