"""Judges the network on whole validation images, and draws one of them. Knows nothing of steps or checkpoints."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from whatwhere.data.sets import ImageSet
from whatwhere.judge import Judge, Scores
from whatwhere.judge.pictures import preview
from whatwhere.paint import Engine, paint
from whatwhere.writing import whole_file

__all__ = ["collapsed", "draw_preview", "spread", "validate"]


def validate(
    engine: Engine,
    images: ImageSet,
    indices: Sequence[int],
    *,
    boundary: bool = False,
    each: Callable[[int], None] | None = None,
) -> Scores:
    """Scores on whole images; ``each`` is called with the number of images done."""
    judge = Judge(engine.model.classes, boundary=boundary)
    for done, index in enumerate(indices, 1):
        raw, truth = images.store[index]
        engine.model.check(raw, images.names[index])
        judge.add(images.names[index], truth, paint(engine, raw).labels)
        if each is not None:
            each(done)
    return judge.result()


def spread(total: int, wanted: int) -> list[int]:
    """``wanted`` indices evenly spread over ``total``.

    >>> spread(10, 3)
    [0, 4, 9]
    """
    return sorted({round(place) for place in np.linspace(0, total - 1, min(wanted, total))})


def collapsed(scores: Scores, limit: float = 0.999) -> str | None:
    """The class that nearly every pixel is painted with although the truth holds more, or None."""
    confusion = scores.confusion
    painted, true = confusion.sum(axis=0), confusion.sum(axis=1)
    if painted.max() >= limit * painted.sum() and true.max() < limit * true.sum():
        return scores.classes.names[int(painted.argmax())]
    return None


def draw_preview(engine: Engine, images: ImageSet, index: int, path: Path) -> None:
    """Image, truth, prediction and error of one image, side by side, as a PNG."""
    raw, truth = images.store[index]
    picture = preview(raw, truth, paint(engine, raw).labels, engine.model.classes)
    with whole_file(path) as partial:
        Image.fromarray(picture).save(partial, format="PNG")
