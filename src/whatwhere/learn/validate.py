"""Judges the network on whole validation images, and draws one of them. Knows nothing of steps or checkpoints."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from whatwhere.data.sets import ImageSet
from whatwhere.judge import Judge, Scores
from whatwhere.judge.pictures import preview
from whatwhere.paint import Engine, paint
from whatwhere.writing import whole_file

__all__ = ["collapsed", "draw_preview", "score", "showing", "spread", "standing", "validate"]

_ALL = 0.999
"""The share of pixels from which on a painting is of one class."""


def validate(engine: Engine, images: ImageSet, indices: Sequence[int]) -> Scores:
    """Scores of some whole images, without those of edges, which take long."""
    return _judged(engine, images, indices, Judge(engine.model.classes, boundary=False))


def score(engine: Engine, images: ImageSet, tolerance: float, progress: Callable[[int, int], None] | None) -> Scores:
    """All scores of all images; see ``verbs.evaluate``."""
    judge = Judge(engine.model.classes, tolerance=tolerance, part=images.part)
    return _judged(engine, images, range(len(images)), judge, confidence=True, progress=progress)


def _judged(
    engine: Engine,
    images: ImageSet,
    indices: Sequence[int],
    judge: Judge,
    *,
    confidence: bool = False,
    progress: Callable[[int, int], None] | None = None,
) -> Scores:
    for done, index in enumerate(indices, 1):
        raw, truth = images.store[index]
        engine.model.check(raw, images.names[index])
        painting = paint(engine, raw, confidence=confidence)
        judge.add(images.names[index], truth, painting.labels, confidence=painting.confidence)
        if progress is not None:
            progress(done, len(indices))
    return judge.result()


def spread(total: int, wanted: int) -> list[int]:
    """``wanted`` indices evenly spread over ``total``.

    >>> spread(10, 3)
    [0, 4, 9]
    """
    return sorted({round(place) for place in np.linspace(0, total - 1, min(wanted, total))})


def showing(present: Sequence[Collection[int]], wanted: int) -> list[int]:
    """As `spread`, by the classes that each image holds: so many that, if they can, show every class that any does.

    >>> showing([{0}, {0}, {0}, {0, 1}, {0}], 2)
    [0, 3]
    """
    evenly = spread(len(present), wanted)
    missing = set().union(*present)
    if missing <= set().union(*(present[index] for index in evenly)):
        return evenly
    chosen: list[int] = []
    while missing and len(chosen) < wanted:
        chosen.append(max(range(len(present)), key=lambda index: (len(missing.intersection(present[index])), -index)))
        missing -= set(present[chosen[-1]])
    rest = [index for index in range(len(present)) if index not in chosen]
    return sorted([*chosen, *(rest[place] for place in spread(len(rest), wanted - len(chosen)))])


def standing(scores: Scores) -> float:
    """By which weights of one run are ranked: the mean IoU over the classes that the truth holds.

    Of the same images these are always the same classes. In the mean over all that occur, a single pixel painted as a
    class that the truth lacks adds a zero, and weights that paint nothing but background could not be beaten.
    """
    held = scores.confusion.sum(axis=1) > 0
    return float(np.mean([scores.iou[name] for name, there in zip(scores.classes.names, held) if there] or [np.nan]))


def collapsed(scores: Scores) -> str | None:
    """The class that nearly every pixel is painted with although the truth holds more, or None."""
    confusion = scores.confusion
    painted, true = confusion.sum(axis=0), confusion.sum(axis=1)
    if painted.max() >= _ALL * painted.sum() and true.max() < _ALL * true.sum():
        return scores.classes.names[int(painted.argmax())]
    return None


def draw_preview(engine: Engine, images: ImageSet, index: int, path: Path) -> None:
    """Image, truth, prediction and error of one image, side by side, as a PNG."""
    raw, truth = images.store[index]
    picture = preview(raw, truth, paint(engine, raw).labels, engine.model.classes)
    with whole_file(path) as partial:
        Image.fromarray(picture).save(partial, format="PNG")
