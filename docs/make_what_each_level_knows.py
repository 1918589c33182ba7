"""Write `what-each-level-knows.md` and its picture from the library: `python docs/make_what_each_level_knows.py`."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from numpy.typing import NDArray
from torch import Tensor, nn

from whatwhere.field import Field, field
from whatwhere.field.drawing import COLORS, save_figure
from whatwhere.field.table import by

HERE = Path(__file__).parent
SIZE = 64
PIXEL = (21, 44)  # (row, column), on the tree's crown
INK, QUIET = "#1f2933", "#6b7280"


class Down(nn.Module):
    """The way down of a U-Net: at each level two 3x3 convolutions, then a pooling by two."""

    def __init__(self, levels: int = 7) -> None:
        super().__init__()
        for level in range(levels):
            self.add_module(f"conv{level}a", nn.Conv2d(1, 1, 3, padding=1))
            self.add_module(f"conv{level}b", nn.Conv2d(1, 1, 3, padding=1))
            self.add_module(f"pool{level}", nn.MaxPool2d(2) if level < levels - 1 else nn.Identity())

    def forward(self, image: Tensor) -> Tensor:
        for layer in self.children():
            image = layer(image)
        return image


def scene() -> NDArray[np.float64]:
    """A tree and a house on a hill, 64x64 in RGB."""
    y, x = np.mgrid[:SIZE, :SIZE] + 0.5
    picture = np.empty((SIZE, SIZE, 3))
    picture[:] = (0.80, 0.88, 0.94)
    picture[(x - 10) ** 2 + (y - 10) ** 2 < 25] = (0.98, 0.86, 0.50)
    picture[y > 46 - 7 * np.sin((x + 6) / 64 * np.pi)] = (0.66, 0.76, 0.55)
    picture[(abs(x - 44) < 2) & (y > 24) & (y < 45)] = (0.50, 0.38, 0.30)
    picture[(x - 44) ** 2 + (y - 20) ** 2 < 81] = (0.36, 0.56, 0.38)
    picture[(abs(x - 18) < 8) & (y > 32) & (y < 46)] = (0.92, 0.87, 0.80)
    picture[(y < 33) & (y > 22 + abs(x - 18))] = (0.70, 0.36, 0.30)
    picture[(abs(x - 18) < 2) & (y > 38) & (y < 46)] = (0.45, 0.33, 0.27)
    return picture


def panel(axes, found: Field, layer: str, level: int) -> None:
    row = found.table((layer,)).rows[0]
    stride = SIZE // row.grid[0]
    unit = tuple(place // stride for place in PIXEL)
    axes.imshow(scene(), extent=(0, SIZE, SIZE, 0), alpha=0.75)
    if row.grid[0] < SIZE:
        for place in range(0, SIZE + 1, stride):
            axes.axhline(place, color="white", linewidth=0.5, alpha=0.7)
            axes.axvline(place, color="white", linewidth=0.5, alpha=0.7)
    color = COLORS[level]
    (top, bottom), (left, right) = found.cell(layer, unit)
    axes.add_patch(
        Rectangle((left, top), right - left, bottom - top, facecolor=color, alpha=0.7, edgecolor="none", zorder=3)
    )
    (top, bottom), (left, right) = found.receptive_field(layer, unit)
    outline = {"facecolor": "none", "edgecolor": color, "linewidth": 2.6, "clip_on": False, "zorder": 4}
    axes.add_patch(Rectangle((left, top), right - left, bottom - top, **outline))
    axes.set(xlim=(0, SIZE), ylim=(SIZE, 0), xticks=[], yticks=[])
    for spine in axes.spines.values():
        spine.set_visible(False)
    axes.set_title(f"level {level}: grid {by(row.grid)}", color=INK, fontsize=11, loc="left", pad=8)
    words = row.where.replace("somewhere in this ", "in this ").replace("somewhere in the image", "“somewhere”")
    axes.text(0, SIZE + 3, words, color=INK, fontsize=10, va="top")
    axes.text(0, SIZE + 9.5, f"sees {by(row.sees or ())} pixels", color=QUIET, fontsize=9, va="top")


def picture(found: Field) -> None:
    figure = Figure(figsize=(11.2, 6.6), dpi=150)
    grid = figure.add_gridspec(2, 4, left=0.03, right=0.985, top=0.86, bottom=0.09, wspace=0.12, hspace=0.42)
    for level in range(7):
        panel(figure.add_subplot(grid[level // 4, level % 4]), found, f"conv{level}b", level)
    figure.text(0.03, 0.945, "What one unit at each level knows of place", color=INK, fontsize=15)
    key = figure.add_subplot(grid[1, 3])
    key.set(xlim=(0, 64), ylim=(64, 0))
    key.axis("off")
    key.add_patch(Rectangle((0, 6), 8, 8, facecolor=QUIET, alpha=0.7))
    key.text(12, 10, "the cell it answers for", color=INK, fontsize=10, va="center")
    key.add_patch(Rectangle((0, 22), 8, 8, facecolor="none", edgecolor=QUIET, linewidth=2.6))
    key.text(12, 26, "the receptive field:\npixels that can change it", color=INK, fontsize=10, va="center")
    note = (
        "64x64 image; two 3x3 filters\nat each level, then pooling\nby two. From level 3 on the\nimage cuts the field."
    )
    key.text(0, 42, note, color=QUIET, fontsize=9, va="top", linespacing=1.35)
    save_figure(figure, HERE / "what-each-level-knows.png")


def levels_table(found: Field) -> str:
    titles = ("level", "grid", "one unit answers for", "so it knows", "and it truly sees", "beyond its cell, each side")
    lines = [f"| {' | '.join(titles)} |", "|---:|---:|---:|---|---:|---:|"]
    for level in range(7):
        row = found.table((f"conv{level}b",)).rows[0]
        (reach, _), _ = row.reach or ((0, 0), (0, 0))
        lines.append(f"| {level} | {by(row.grid)} | {by(row.cell)} | {row.where} | {by(row.sees or ())} | {reach} |")
    return "\n".join(lines)


def growth_table(found: Field) -> str:
    lines = ["| after | stride | sees | grew by |", "|---|---:|---:|---:|", "| the pixel itself | 1 | 1 | |"]
    before = 1
    for level in range(4):
        for name, words in (("a", "first 3x3"), ("b", "second 3x3"), ("pool", "pooling by 2")):
            layer = f"pool{level}" if name == "pool" else f"conv{level}{name}"
            row = found.table((layer,)).rows[0]
            sees = (row.sees or (0,))[0]
            lines.append(f"| level {level}, {words} | {row.stride[0]} | {sees} | {sees - before} |")
            before = sees
    return "\n".join(lines)


def page(found: Field) -> str:
    top, bottom = found.influenced("conv4b", PIXEL)[0]
    return f"""# What each level knows of place

*Made by `docs/make_what_each_level_knows.py`; every number below is computed by `whatwhere.field`.*

Take an image of 64x64 pixels and the way down of a U-Net: at each level two 3x3 filters, then a pooling by two. What
can one unit say about *where* something is?

![Seven copies of a small scene. In each, one unit's cell is filled and its receptive field outlined. Both grow from one
pixel to the whole image.](what-each-level-knows.png)

{levels_table(found)}

After the first filter a unit knows its place to the pixel, but has seen only an edge. At level 5 the grid is 2x2: a
unit may know "tree", but only "somewhere in this quarter of the image". At level 6 a single unit is left, and all it
can say is "somewhere".

## Two different sizes

**The cell** is the block of pixels that one unit answers for. Neighbouring units stand one *stride* apart, so cells
tile the image: *which* unit fired tells the place to one cell, and no finer. Only pooling and strides make it larger,
by two at each level.

**The receptive field** is the set of pixels that can change the unit's value. It is larger than the cell, because
filters reach over into their neighbours' cells, and it grows at every filter:

{growth_table(found)}

A 3x3 filter adds one unit on either side, so two strides of pixels in all: 2 pixels at level 0, but 16 at level 3.
Pooling by two adds one stride. That is why the receptive field runs ahead of the cell, and why neighbouring units,
whose cells do not overlap, see mostly the same pixels: the pixel in row {PIXEL[0]},
column {PIXEL[1]} lies in one cell of level 4, yet it can change {bottom - top} units along
each axis of that level's 4x4 grid.

So a large receptive field is no loss of place, and a small one no proof of it. *What* a unit can recognise is bounded
by the field it sees; *where* the grid can point is bounded by its cell. (A unit's channels may carry a finer place
inside its cell. Whether they do is no question of geometry: it has to be measured on the trained network.) From level
3 on the field is wider than this image, and its rim cuts it. The way up of the U-Net shrinks the cell again, down to
one pixel, while the field keeps growing: the skips bring back the place that the grid had lost.

These are the pixels that *can* count. Which of them do, in a trained network, is measured by the effective receptive
field (Luo et al. 2016, arXiv 1701.04128): most of the weight lies near the middle.

## Ask your own network

```python
from whatwhere.field import field

found = field(network, (3, 512, 512))
print(found)                                    # this table, for every level
found.receptive_field("bottleneck", (3, 4))     # the pixels one unit sees: (row, column) in the layer's grid
found.influenced("bottleneck", (100, 200))      # the units that the pixel of row 100 and column 200 changes
found.draw("levels.png")
```

The field follows the exported graph backward, operator by operator, in whole numbers. An operator without a rule is
taken to see everything and is named by `found.explain()`, so an answer can be too large, never too small.
"""


def main() -> None:
    found = field(Down(), (1, SIZE, SIZE))
    picture(found)
    (HERE / "what-each-level-knows.md").write_text(page(found), encoding="utf-8")


if __name__ == "__main__":
    main()
