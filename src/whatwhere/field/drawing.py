"""Draw over an image what units of several layers answer for and what they see: boxes inside boxes.

Knows a `Field` and matplotlib; knows nothing of graphs or rules.
"""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from whatwhere.errors import FieldError, OutputError
from whatwhere.field.table import by
from whatwhere.records import Box
from whatwhere.writing import whole_file

if TYPE_CHECKING:
    from whatwhere.field.field import Field

__all__ = ["COLORS", "coarser_and_coarser", "draw_field", "save_figure"]

COLORS = ("#f2a541", "#e4572e", "#c2185b", "#7b3fa0", "#3f51b5", "#0288a8", "#2e7d5b", "#6b7280")
"""One colour a layer, warm (early) to cool (late); told apart in print too."""

INK = "#1f2933"


def draw_field(
    field: Field, pixel: Sequence[int], layers: Sequence[str], path: Path, image: NDArray[Any] | None = None
) -> Path:
    """Draw, for the unit of each layer whose cell holds `pixel`, its cell (filled) and receptive field (outlined).

    Args:
        pixel: ``(row, column)``, y before x.
        layers: from the first to the last.
        path: ``.png``, ``.svg`` or ``.pdf``; written whole or not at all.
        image: ``HxW`` or ``HxWxC`` to draw on, of the field's image size; a plain grid otherwise.
    """
    if len(field.image) != 2:
        raise FieldError(
            f"an image of {len(field.image)} dimensions of space", "two, to draw on paper", "print the table"
        )
    image = None if image is None else np.asarray(image)
    if image is not None and image.shape[:2] != field.image:
        raise FieldError(f"an image of {by(image.shape[:2])}", by(field.image), "draw on an image of the field's size")
    from matplotlib.figure import Figure

    height, width = field.image
    figure = Figure(figsize=(7.6, 5.0), dpi=160, layout="constrained")
    axes = figure.add_subplot()
    if image is None:
        _paper(axes, height, width)
    else:
        axes.imshow(_shown(image), extent=(0, width, height, 0), cmap="gray", alpha=0.55)
    for order, layer in enumerate(layers):  # coarse cells lie under fine ones
        color = COLORS[order % len(COLORS)]
        unit = unit_at(field, layer, pixel)
        cell, seen = field.cell(layer, unit), field.receptive_field(layer, unit)
        inset = 0.18 * order  # boxes cut by the rim would lie on each other
        _box(axes, seen, inset, edgecolor=color, facecolor="none", linewidth=2.0, zorder=5)
        _box(axes, cell, 0, edgecolor="none", facecolor=color, alpha=0.55, zorder=4 - order / 100)
        cut = "" if field.obstacle(layer) is None else ", without bound"
        axes.plot([], [], "s", color=color, label=f"{layer}\ncell {_sides(cell)}, sees {_sides(seen)}{cut}")
    axes.set(xlim=(-0.5, width + 0.5), ylim=(height + 0.5, -0.5), aspect="equal")
    axes.tick_params(length=0, labelcolor=INK, labelsize=8)
    for spine in axes.spines.values():
        spine.set_visible(False)
    axes.set_title(
        f"{field.name}: what units at pixel {tuple(pixel)} know of place", color=INK, fontsize=11, loc="left"
    )
    style = {"frameon": False, "fontsize": 8, "title_fontsize": 8, "labelcolor": INK, "alignment": "left"}
    legend = axes.legend(loc="upper left", bbox_to_anchor=(1.01, 1), **style)
    legend.set_title("filled: the cell it answers for\noutline: what it sees")
    return save_figure(figure, path)


def coarser_and_coarser(field: Field) -> tuple[str, ...]:
    """The levels on the way down: each with a larger stride than all before."""
    chosen: dict[Fraction, str] = {}
    for layer in field.levels:
        stride = field.stride(layer)[0]
        if stride is not None and stride >= max(chosen, default=Fraction(0)):
            chosen[stride] = layer  # the last of the first run at each stride
        elif stride is not None:
            break
    return tuple(chosen.values())[: len(COLORS)]


def unit_at(field: Field, layer: str, pixel: Sequence[int]) -> tuple[int, ...]:
    """The unit of a layer whose cell holds a pixel (the nearest, where a rim has none)."""
    grid = field.grid(layer)
    unit = []
    for place, size, stride, origin, pixels in zip(pixel, grid.size, grid.stride, grid.origin, field.image):
        index = place * size // pixels if stride is None else int((place - origin) // stride)
        unit.append(min(max(index, 0), size - 1))
    return tuple(unit)


def save_figure(figure: Any, path: Path) -> Path:
    """Write a figure; what it is says the name's ending."""
    path = Path(path)
    if path.suffix.lower() not in (".png", ".svg", ".pdf"):
        raise OutputError(f"{path.name} ends in {path.suffix or 'nothing'}", ".png, .svg or .pdf", "rename the drawing")
    with whole_file(path) as partial:
        figure.savefig(partial, format=path.suffix[1:].lower(), facecolor="white")
    return path


def _sides(box: Box) -> str:
    return by(stop - start for start, stop in box)


def _shown(image: NDArray[Any]) -> NDArray[Any]:
    """Grey or RGB in [0, 1], by the image's own range."""
    values = np.asarray(image, dtype=np.float64)
    values = (
        values[..., :3] if values.ndim == 3 and values.shape[2] >= 3 else values.reshape(*values.shape[:2], -1)[..., 0]
    )
    low, high = float(values.min()), float(values.max())
    return (values - low) / (high - low) if high > low else np.zeros_like(values)


def _paper(axes: Any, height: int, width: int) -> None:
    """A sheet with a line for every pixel (every eighth or so, on large images)."""
    step = max(1, max(height, width) // 64)
    for place in range(0, width + 1, step):
        axes.plot([place, place], [0, height], color="#e5e9ee", linewidth=0.5, zorder=0)
    for place in range(0, height + 1, step):
        axes.plot([0, width], [place, place], color="#e5e9ee", linewidth=0.5, zorder=0)


def _box(axes: Any, box: Box, inset: float, **style: Any) -> None:
    from matplotlib.patches import Rectangle

    (top, bottom), (left, right) = box
    axes.add_patch(Rectangle((left + inset, top + inset), right - left - 2 * inset, bottom - top - 2 * inset, **style))
