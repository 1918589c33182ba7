"""The table of a field: for each layer its grid, what it answers for, what it sees, and "where" in words.

Knows a `Field`; knows nothing of graphs, rules or drawings.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from fractions import Fraction
from io import StringIO
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.table import Table

if TYPE_CHECKING:
    from whatwhere.field.field import Field

__all__ = ["FieldRow", "FieldTable", "by", "make_table", "where"]


def by(sizes: Iterable[int | Fraction]) -> str:
    """Sizes in words: ``3x5``; fractions as they are.

    >>> by((32, 32)), by((Fraction(1, 2),))
    ('32x32', '1/2')
    """
    return "x".join(str(size) for size in sizes)


def where(cell: Sequence[int], image: Sequence[int]) -> str:
    """Where in the image a unit can say that something is, by the cell it answers for.

    >>> where((1, 1), (64, 64)), where((32, 32), (64, 64)), where((64, 64), (64, 64))
    ('at this pixel', 'somewhere in this 32x32 block', 'somewhere in the image')
    """
    if len(cell) == 1 and 1 < cell[0] < image[0]:
        return f"somewhere in these {cell[0]} pixels"
    if all(side >= size for side, size in zip(cell, image)):
        return "somewhere in the image"
    return "at this pixel" if all(side <= 1 for side in cell) else f"somewhere in this {by(cell)} block"


@dataclass(frozen=True)
class FieldRow:
    """One layer.

    Attributes:
        layer: its name.
        grid: units in each spatial dimension, on the image given.
        stride: input pixels between neighbouring units, as text (``"1/2"`` where finer than the image, ``"-"`` where
            the number of units is fixed).
        cell: sides of the block of pixels a unit answers for.
        sees: sides of the receptive field in an image without rim, the largest over all phases; None if unbounded.
        reach: for each dimension (before, after), how far it sees beyond its cell; None if unbounded.
        where: in words.
        cause: why it sees everything, or weighs by place; empty otherwise.
    """

    layer: str
    grid: tuple[int, ...]
    stride: tuple[str, ...]
    cell: tuple[int, ...]
    sees: tuple[int, ...] | None
    reach: tuple[tuple[int, int], ...] | None
    where: str
    cause: str = ""


@dataclass(frozen=True)
class FieldTable:
    """The rows of a field's layers, in the order they run. Prints itself; `to_json` for everything else."""

    name: str
    image: tuple[int, ...]
    rows: tuple[FieldRow, ...]

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    def __rich__(self) -> Table:
        table = Table(title=f"{self.name} on an image of {by(self.image)}: what each layer knows of place")
        for title in ("layer", "grid", "stride", "answers for", "sees", "beyond its cell", "where"):
            table.add_column(
                title, justify="left" if title in ("layer", "where") else "right", no_wrap=title == "layer"
            )
        for row in self.rows:
            sees = "the whole image" if row.sees is None else by(row.sees)
            same = row.reach is not None and len({side for pair in row.reach for side in pair}) == 1
            if row.reach is None:
                beyond = "-"
            else:
                beyond = str(row.reach[0][0]) if same else ", ".join(f"-{a} +{b}" for a, b in row.reach)
            stride = row.stride[0] if len(set(row.stride)) == 1 else by_text(row.stride)
            table.add_row(row.layer, by(row.grid), stride, by(row.cell), sees, beyond, row.where)
        for cause in dict.fromkeys(row.cause for row in self.rows if row.cause):
            first = next(row.layer for row in self.rows if row.cause == cause)
            table.caption = f"{table.caption or ''}from {first} on: {cause}\n"
        return table

    def __str__(self) -> str:
        text = StringIO()
        Console(file=text, width=120, color_system=None).print(self)
        return text.getvalue().rstrip()


def by_text(texts: Sequence[str]) -> str:
    return "x".join(texts)


def _row(field: Field, layer: str) -> FieldRow:
    grid, obstacle, reach = field.grid(layer), field.obstacle(layer), field.reach(layer)
    sees = field.extent(layer)
    cell = field.cell(layer, tuple(size // 2 for size in grid.size))
    sides = tuple(stop - start for start, stop in cell)
    stride = tuple("-" if step is None else str(step) for step in grid.stride)
    place = where(sides, field.image)
    return FieldRow(layer, grid.size, stride, sides, sees, reach, place, str(obstacle) if obstacle else "")


def make_table(field: Field, layers: Sequence[str]) -> FieldTable:
    return FieldTable(field.name, field.image, tuple(_row(field, layer) for layer in layers))
