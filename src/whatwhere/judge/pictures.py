"""Pictures of right and wrong: image, truth, prediction and error side by side.

Knows arrays and class colours; nothing of networks or files. Drawn with Pillow alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from importlib.resources import as_file, files
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from whatwhere.records import VOID, Classes

__all__ = ["error_picture", "preview", "to_display", "worst_images_sheet"]

Picture = NDArray[np.uint8]
Color = tuple[int, int, int]

# Okabe & Ito (2008): told apart with every kind of colour vision
MISSED: Color = (213, 94, 0)
ADDED: Color = (86, 180, 233)
CONFUSED: Color = (240, 228, 66)
_PAPER: Color = (255, 255, 255)
_INK: Color = (40, 44, 52)
_QUIET: Color = (110, 116, 126)
_VOID: Color = (70, 70, 78)

_PANEL = 384  # px, longest side of a panel
_GAP = 10
_MARGIN = 14
_LINE = 22  # px, of captions and legends


def to_display(image: NDArray[Any]) -> Picture:
    """Any image as ``H x W x 3`` uint8 to look at.

    Args:
        image: ``H x W`` or ``H x W x C``. One channel becomes grey, two red and green, of more than three the first
            three are shown. uint8 stays as it is; anything else is stretched, channels together, from its 1st to its
            99th percentile. Values that are not finite become black.

    >>> to_display(np.array([[0, 1000], [2000, 4000]], np.uint16))[:, :, 0]
    array([[  0,  63],
           [128, 255]], dtype=uint8)
    """
    array = image[:, :, None] if image.ndim == 2 else image[:, :, :3]
    if array.dtype != np.uint8:
        array = _stretch(array.astype(np.float64))
    channels = array.shape[2]
    if channels == 1:
        return np.repeat(array, 3, axis=2)
    if channels == 2:
        return np.concatenate([array, np.zeros_like(array[:, :, :1])], axis=2)
    return np.ascontiguousarray(array)


def _stretch(array: NDArray[np.float64]) -> Picture:
    finite = np.isfinite(array)
    if not finite.any():
        return np.zeros(array.shape, np.uint8)
    low, high = np.percentile(array[finite], (1, 99))
    scaled = (np.where(finite, array, low) - low) / (high - low if high > low else 1.0)
    stretched: Picture = (np.clip(scaled, 0, 1) * 255).astype(np.uint8)
    return stretched


def error_picture(image: Picture, truth: Picture, prediction: Picture, classes: Classes) -> Picture:
    """Image, truth, prediction and error side by side with captions, as ``H' x W' x 3`` uint8.

    In the error panel right pixels are dimmed grey and wrong ones have one colour a kind: missed (painted as
    background), added (background painted as something) and confused (one class painted as another). Class 0 is
    background if there are two classes or if its name says so; else every error is a confusion. Void is dark.

    Args:
        image: ``H x W x 3`` uint8, see `to_display`.
        truth, prediction: ``H x W`` class ids; 255 in the truth is void.
    """
    return np.asarray(_sheet([("", image, truth, prediction)], classes))


def preview(image: NDArray[Any], truth: Picture, prediction: Picture, classes: Classes) -> Picture:
    """`error_picture` of an image of any depth and number of channels."""
    return error_picture(*_thinned(image, truth, prediction), classes)


def worst_images_sheet(rows: Sequence[tuple[str, NDArray[Any], Picture, Picture]], classes: Classes) -> Picture:
    """One row an image, in the order given (worst first), each with its caption; `error_picture` says what is drawn.

    Args:
        rows: at least one of caption (such as ``"cat_12, IoU 0.31"``), image of any kind, truth, prediction.
    """
    return np.asarray(
        _sheet([(caption, *_thinned(image, truth, painted)) for caption, image, truth, painted in rows], classes)
    )


def _thinned(image: NDArray[Any], truth: Picture, prediction: Picture) -> tuple[Picture, Picture, Picture]:
    """Of a very large image every second, third ... pixel: it is drawn much smaller anyway."""
    step = max(1, max(truth.shape) // (8 * _PANEL))
    return to_display(image[::step, ::step]), truth[::step, ::step], prediction[::step, ::step]


def _sheet(rows: Sequence[tuple[str, Picture, Picture, Picture]], classes: Classes) -> Image.Image:
    """Rows of four panels below one line of titles, legends at the end."""
    title, small = _font(14), _font(12)
    panels = [
        [_fit(panel) for panel in _panels(image, truth, prediction, classes)] for _, image, truth, prediction in rows
    ]
    column = max(panel.width for row in panels for panel in row)
    width = 2 * _MARGIN + 4 * column + 3 * _GAP
    void = any((truth == VOID).any() for _, _, truth, _ in rows)
    names = [_drawable(name, place, small) for place, name in enumerate(classes.names)]
    legend = _legend(_class_chips(names, classes, void), _error_chips(names, classes), width - 2 * _MARGIN)
    captioned = any(caption for caption, *_ in rows)
    heights = [max(panel.height for panel in row) + (_LINE if captioned else 0) + _GAP for row in panels]
    top = _MARGIN + 24
    sheet = Image.new("RGB", (width, top + sum(heights) + legend.height + _MARGIN), _PAPER)
    draw = ImageDraw.Draw(sheet)
    for i, text in enumerate(("Image", "Truth", "Prediction", "Error")):
        draw.text((_MARGIN + i * (column + _GAP), _MARGIN), text, _INK, font=title)
    for (caption, *_), row, height in zip(rows, panels, heights):
        y = top
        if captioned:
            draw.text((_MARGIN, y), _shorten(caption, small, width - 2 * _MARGIN), _QUIET, font=small)
            y += _LINE
        for i, panel in enumerate(row):
            sheet.paste(panel, (_MARGIN + i * (column + _GAP), y))
        top += height
    sheet.paste(legend, (_MARGIN, top))
    return sheet


def _panels(image: Picture, truth: Picture, prediction: Picture, classes: Classes) -> tuple[Picture, ...]:
    return image, _painted(truth, classes), _painted(prediction, classes), _errors(image, truth, prediction, classes)


def _painted(labels: Picture, classes: Classes) -> Picture:
    table = np.empty((256, 3), np.uint8)
    table[:] = _VOID
    table[: classes.count] = classes.colors
    return table[labels]


def _errors(image: Picture, truth: Picture, prediction: Picture, classes: Classes) -> Picture:
    grey = image @ np.array([0.299, 0.587, 0.114])
    panel = np.repeat((30 + grey * 0.35).astype(np.uint8)[:, :, None], 3, axis=2)
    valid = truth != VOID
    wrong = valid & (truth != prediction)
    panel[wrong] = CONFUSED
    background = _background(classes)
    if background is not None:
        panel[wrong & (prediction == background)] = MISSED
        panel[wrong & (truth == background)] = ADDED
    panel[~valid] = (panel[~valid] * 0.4).astype(np.uint8)
    return panel


def _background(classes: Classes) -> int | None:
    """The class that means "nothing here", where there is one."""
    named = classes.names[0].lower() in ("background", "bg", "nothing", "none", "other")
    return 0 if named or classes.count == 2 else None


def _fit(panel: Picture) -> Image.Image:
    """To the panel's size: small images are enlarged by whole pixels, so that each pixel is seen; large ones shrink."""
    picture = Image.fromarray(panel)
    longest = max(picture.size)
    if longest <= _PANEL:
        factor = max(1, _PANEL // longest)
        return picture.resize((picture.width * factor, picture.height * factor), Image.Resampling.NEAREST)
    scale = _PANEL / longest
    size = (max(1, round(picture.width * scale)), max(1, round(picture.height * scale)))
    return picture.resize(size, Image.Resampling.BOX)


def _drawable(name: str, place: int, font: ImageFont.FreeTypeFont) -> str:
    """The name, or the class's id where the font lacks a letter of it, as of Chinese: boxes would say nothing."""
    lacking = bytes(font.getmask("\U0010ffff"))  # the box that stands for all that it lacks
    return name if all(bytes(font.getmask(letter)) != lacking for letter in name) else f"class {place}"


def _class_chips(names: Sequence[str], classes: Classes, void: bool) -> list[tuple[str, Color]]:
    return list(zip(names, classes.colors)) + ([("void", _VOID)] if void else [])


def _error_chips(names: Sequence[str], classes: Classes) -> list[tuple[str, Color]]:
    if _background(classes) is None:
        return [("wrong class", CONFUSED)]
    if classes.count == 2:
        return [(f"{names[1]} missed", MISSED), (f"{names[1]} wrongly added", ADDED)]
    return [("missed", MISSED), ("wrongly added", ADDED), ("classes confused", CONFUSED)]


def _legend(classes: list[tuple[str, Color]], errors: list[tuple[str, Color]], width: int) -> Image.Image:
    """Chips of the classes, and below them chips of the kinds of error; lines break where they are full."""
    font = _font(12)
    placed: list[tuple[str, Color, float, int]] = []
    y = -_LINE
    for chips in (classes, errors):
        x, y = 0.0, y + _LINE
        for name, color in chips:
            length = 20 + font.getlength(name) + 18
            if x and x + length > width:
                x, y = 0.0, y + _LINE
            placed.append((name, color, x, y))
            x += length
    picture = Image.new("RGB", (width, y + _LINE), _PAPER)
    draw = ImageDraw.Draw(picture)
    for name, color, x, y in placed:
        draw.rectangle((x, y + 4, x + 13, y + 17), color, outline=_QUIET)
        draw.text((x + 20, y + 3), name, _INK, font=font)
    return picture


def _shorten(text: str, font: ImageFont.FreeTypeFont, width: float) -> str:
    """In one line: names of files may hold line breaks, which Pillow does not measure."""
    text = " ".join(text.split())
    while text and font.getlength(text) > width:
        text = text[:-2].rstrip("…") + "…"
    return text


def _font(size: int) -> ImageFont.FreeTypeFont:
    # Pillow's own font lacks accents; DejaVu comes with matplotlib, which is installed with whatwhere
    with as_file(files("matplotlib") / "mpl-data/fonts/ttf/DejaVuSans.ttf") as path:
        return ImageFont.truetype(path, size)
