"""The images to explain with: chosen, checked against the model, cut to a bearable size, and made network input.

Knows models and image sets; nothing of what will be measured.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from whatwhere.data.sets import ImageSet
from whatwhere.data.shapes import ClassShape, class_shapes
from whatwhere.data.split import sources_of
from whatwhere.errors import DataError
from whatwhere.judge.boundaries import contour
from whatwhere.network import Model
from whatwhere.records import VOID

__all__ = ["LARGEST", "Case", "Pixel", "choose_cases", "fellow", "held_together"]

LARGEST = 512
"""px; of larger images a square of this side is taken, around a label edge where there is one."""

Pixel = tuple[str, int, int]
"""An image's name, and x and y in it."""

_ASKED = "the pixel that was asked for"


@dataclass(frozen=True, eq=False)
class Case:
    """One image to explain with.

    Attributes:
        name: of the image.
        raw: ``H x W x C`` in the files' units, cut.
        truth: ``H x W`` uint8 class ids, or None without a mask.
        image: ``(1, C, H, W)`` float32 network input.
        corner: row and column of the cut in the whole image.
        around: what lies in the middle of the cut, in words; empty if it was not cut.
        shapes: of the whole mask, where it was cut, and ``shorter`` the shorter side of the whole image in px.
        source: that it shares with others, as a folder (a patient, a flight); empty if it is of none (`sources_of`).
    """

    name: str
    raw: NDArray[Any]
    truth: NDArray[np.uint8] | None
    image: Tensor
    corner: tuple[int, int] = (0, 0)
    around: str = ""
    shapes: tuple[ClassShape, ...] = ()
    shorter: int = 0
    source: str = ""

    @property
    def size(self) -> tuple[int, int]:
        return self.raw.shape[0], self.raw.shape[1]


def choose_cases(
    model: Model, data: ImageSet, count: int, *, seed: int, device: str, pixel: Pixel | None = None
) -> tuple[tuple[Case, ...], Case | None, list[str]]:
    """At most ``count`` images, spread evenly over the set; that of ``pixel``; what is to be said about the choice.

    Images without a mask are left out where others have one, so that all is measured against masks; only the image of
    ``pixel`` needs none.

    Raises:
        DataError: no images, labels that are no class of the model, a pixel or image that is not there.
        ModelError: images of other channels or units than the model was trained on.
    """
    if count < 1 or not len(data):
        raise DataError(
            f"{len(data)} images to explain with, {count} asked for", "at least one", "give a folder with images"
        )
    chosen = sorted({int(i) for i in np.linspace(0, len(data) - 1, min(count, len(data))).round()})
    if pixel is not None:
        if pixel[0] not in data.names:
            some = ", ".join(data.names[:3])
            raise DataError(f"no image is named {pixel[0]!r}", f"one of {some}...", "give a name of this data set")
        chosen = sorted({*chosen, data.names.index(pixel[0])})
    sources = sources_of(data.names)
    cases = [replace(_load(model, data, index, seed, device, pixel), source=sources[index]) for index in chosen]
    asked = None if pixel is None else next(case for case in cases if case.name == pixel[0])
    notes = []
    if middles := sorted({case.around for case in cases} - {""}):
        notes.append(
            f"Of images larger than {LARGEST} px a square of that side was taken, around {' or '.join(middles)}."
        )
    if asked is not None and asked.truth is None and asked.shapes:
        notes.append(f"Around {_ASKED} nothing is labelled: its image counts as one without a mask.")
    masked = [case for case in cases if case.truth is not None]
    left_out = [case for case in cases if case.truth is None and case is not asked] if masked else []
    if left_out:
        notes.append(f"{len(left_out)} of {len(cases)} images have no mask and were left out.")
    return tuple(masked or cases), asked, notes


def held_together(cases: Sequence[Case]) -> NDArray[np.int_]:
    """For each image a number that it shares with those it is held out with: the others of its source.

    So no probe is scored on a patient that it was fitted on. Where all are of one source, each image goes alone.
    """
    several = _several_sources(cases)
    bound = [case.source if case.source and several else place for place, case in enumerate(cases)]
    numbers = {one: number for number, one in enumerate(dict.fromkeys(bound))}
    return np.array([numbers[one] for one in bound])


def fellow(cases: Sequence[Case], name: str, source: str) -> int | None:
    """The place of an image among those measured, or of one that is held out with it; None if there is neither."""
    same = [place for place, case in enumerate(cases) if case.name == name]
    if not same and source and _several_sources(cases):
        same = [place for place, case in enumerate(cases) if case.source == source]
    return same[0] if same else None


def _several_sources(cases: Sequence[Case]) -> bool:
    return len({case.source for case in cases} - {""}) > 1


def _load(model: Model, data: ImageSet, index: int, seed: int, device: str, pixel: Pixel | None) -> Case:
    name = data.names[index]
    raw, labels = data.store[index]
    truth = None if (labels == VOID).all() else labels
    if truth is not None:
        _check_labels(model, name, raw, truth)
    asked = None
    if pixel is not None and pixel[0] == name:
        height, width = raw.shape[:2]
        if not (0 <= pixel[1] < width and 0 <= pixel[2] < height):
            raise DataError(
                f"pixel x={pixel[1]}, y={pixel[2]} of {name}",
                f"x from 0 to {width - 1} and y from 0 to {height - 1}",
                "count from the top left corner, x to the right",
            )
        asked = (pixel[2], pixel[1])
    size = raw.shape[:2]
    if max(size) <= LARGEST:
        return Case(name, raw, truth, model.normalise(raw, name)[None].to(device), shorter=min(size))
    middle, around = (asked, _ASKED) if asked else _middle(size, truth, seed + index)
    top, left = (int(np.clip(at - LARGEST // 2, 0, max(0, n - LARGEST))) for at, n in zip(middle, size))
    cut = np.s_[top : top + LARGEST, left : left + LARGEST]
    image = model.normalise(raw[cut], name)[None].to(device)
    shapes = () if truth is None else class_shapes(truth, model.classes.count)
    # copied, so that the whole image need not be kept
    raw, truth = raw[cut].copy(), None if truth is None or (truth[cut] == VOID).all() else truth[cut].copy()
    return Case(name, raw, truth, image, (top, left), around, shapes, min(size))


def _middle(size: Sequence[int], truth: NDArray[np.uint8] | None, seed: int) -> tuple[tuple[int, int], str]:
    """Around what to cut: a label edge, or where none is a pixel that counts, so that there is something to measure."""
    if truth is None:
        return (size[0] // 2, size[1] // 2), "its middle"
    rng, edges = np.random.default_rng(seed), np.argwhere(contour(truth))
    if len(edges):
        row, column = edges[rng.integers(len(edges))].tolist()
        return (row, column), "a label edge"
    counted = np.count_nonzero(truth != VOID, axis=1)  # by rows: places of all pixels take eight times the mask
    row = int(rng.choice(len(counted), p=counted / counted.sum()))
    return (row, int(rng.choice(np.flatnonzero(truth[row] != VOID)))), "a labelled pixel"


def _check_labels(model: Model, name: str, raw: NDArray[Any], truth: NDArray[np.uint8]) -> None:
    if truth.shape != raw.shape[:2]:
        raise DataError(
            f"{name}: an image of {raw.shape[:2]} and labels of {truth.shape}", "one size", "export the mask again"
        )
    strange = sorted({int(i) for i in np.unique(truth)} - set(range(model.classes.count)) - {VOID})
    if strange:
        names = ", ".join(model.classes.names)
        raise DataError(
            f"{name} holds the class ids {', '.join(map(str, strange[:5]))}",
            f"0 to {model.classes.count - 1}: the model knows {model.classes.count} classes ({names})",
            "explain the model with data of its own classes",
        )


def check_answer(model: Model, logits: Tensor, case: Case) -> None:
    """``DataError`` if the network does not answer an image with one finite logit a class and pixel."""
    height, width = case.size
    expected = (1, model.classes.count, height, width)
    if tuple(logits.shape) != expected:
        raise DataError(
            f"the network answers an image of {height}x{width} with logits of shape {tuple(logits.shape)}",
            f"{expected}: one logit a class, at the image's size",
            "give the classes the network was trained for",
        )
    check_finite(logits, case)


def check_finite(logits: Tensor, case: Case) -> None:
    """``DataError`` if not all are: a network may divide by the spread of an image that has none."""
    if not torch.isfinite(logits).all():
        raise DataError(
            f"the network answers {case.name} with NaN or infinity",
            "finite logits",
            "train it again, or leave the image out if it answers others",
        )
