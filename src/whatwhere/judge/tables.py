"""Scores and comparisons as tables for the terminal. Knows the records' fields; computes nothing."""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import TYPE_CHECKING

from rich import box
from rich.console import Console, ConsoleOptions, Group, RenderableType, RenderResult
from rich.table import Table
from rich.text import Text

from whatwhere.judge.bootstrap import ENOUGH, over

if TYPE_CHECKING:
    from whatwhere.judge.comparison import Comparison
    from whatwhere.judge.scores import Scores

__all__ = ["comparison_table", "plain", "scores_table"]

_COLUMNS = {
    "iou": "IoU",
    "dice": "Dice",
    "recall": "Recall",
    "boundary_iou": "Boundary IoU",
    "boundary_f1": "Boundary F1",
    "surface_dice": "Surface Dice",
    "hausdorff95": "HD95, px",
}
_WIDE = 110
"""Characters that a table with all columns and their intervals needs."""
_HEADING = 8
"""Characters of a model's name that head a column; longer ones, as paths are, stand above the table."""
_INTERVAL = 9
"""Characters of half an interval."""
_EDGES = ("boundary_iou", "boundary_f1", "surface_dice", "hausdorff95")


def plain(record: RenderableType, width: int = 120) -> str:
    """The table as text without colours."""
    out = io.StringIO()
    Console(file=out, width=width, color_system=None, force_terminal=False).print(record)
    return "\n".join(line.rstrip() for line in out.getvalue().splitlines())


def scores_table(scores: Scores) -> RenderableType:
    """One row a class and one for the mean; the other scores and the rules below."""
    found = scores.estimates
    lines = [f"Pixel accuracy {found['pixel_accuracy']}, balanced accuracy {found['balanced_accuracy']}"]
    if scores.reliability:
        lines.append(f"Expected calibration error {found['calibration_error']}")
    count = len(scores.images)
    lines.append(_which_images(count, scores.part))
    return Group(_Tables(scores), *(Text(line) for line in lines), *(Text(rule, style="dim") for rule in scores.rules))


class _Tables:
    """All columns beside each other where there is room; else areas first, then edges."""

    def __init__(self, scores: Scores) -> None:
        self._scores = scores

    def __rich_console__(self, _console: Console, options: ConsoleOptions) -> RenderResult:
        columns = [key for key in _COLUMNS if self._scores.boundary or key not in _EDGES]
        if options.max_width >= _WIDE:
            yield _class_table(self._scores, columns)
            return
        for part in ([key for key in columns if key not in _EDGES], [key for key in columns if key in _EDGES]):
            if part:
                yield _class_table(self._scores, part)


def _class_table(scores: Scores, columns: Sequence[str]) -> Table:
    found = scores.estimates
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column("Class", overflow="fold")
    for key in columns:
        table.add_column(_COLUMNS[key], justify="right")
    for name in scores.classes.names:
        table.add_row(Text(name), *(_cell(str(found[f"{key}/{name}"])) for key in columns))
    table.add_section()
    means = ["balanced_accuracy" if key == "recall" else f"mean_{key}" for key in columns]
    table.add_row("mean", *(_cell(str(found[key])) for key in means), style="bold")
    return table


def _which_images(count: int, part: str) -> str:
    return f"{count} image{'s' if count > 1 else ''}{part and f' ({part})'}."


def comparison_table(comparison: Comparison) -> RenderableType:
    """One row a score; a difference whose interval does not hold 0 is bold. Long names stand above, not in its head."""
    names = a, b = comparison.a, comparison.b
    alone = comparison.independent == comparison.images
    short = a != b and max(map(len, names)) <= _HEADING
    legend = [] if short else [Text(f"{letter}: {name}") for letter, name in zip("AB", names)]
    how = (
        f"paired bootstrap, {comparison.resamples} resamples, seed {comparison.seed}; ties count half. Bold: the "
        f"interval does not hold 0, and comes of {ENOUGH} {'images' if alone else 'sources'} at least; where models "
        "are alike, about one row in twenty is so by chance."
        if comparison.images > 1
        else "no intervals: one image says nothing about how images differ."
    )
    said = Text(f"{over(comparison.images, comparison.independent)}; {how}", style="dim")
    part = [Text(_which_images(comparison.images, comparison.part))] if comparison.part else []
    return Group(*legend, _Differences(comparison, names if short else ("A", "B")), *part, said)


class _Differences:
    """Intervals in one line where there is room, else in two: the names of the scores are not to break."""

    def __init__(self, comparison: Comparison, names: tuple[str, str]) -> None:
        self._comparison, self._names = comparison, names

    def __rich_console__(self, _console: Console, options: ConsoleOptions) -> RenderResult:
        yield _difference_table(self._comparison, self._names, _INTERVAL if options.max_width < _WIDE else None)


def _difference_table(comparison: Comparison, names: tuple[str, str], narrow: int | None) -> Table:
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column("Score", overflow="fold")
    for title in (*names, "Difference"):
        table.add_column(Text(title), justify="right")
    for title in ("95 % interval", f"{names[0]} better in"):
        table.add_column(Text(title), justify="right", max_width=narrow)
    for row in comparison.differences:
        digits = 1 if "hausdorff" in row.score else 3
        interval = "-" if row.low is None or row.high is None else f"{row.low:+.{digits}f} to {row.high:+.{digits}f}"
        share = "-" if row.a_better is None else f"{row.a_better:.0%}"
        numbers = (f"{row.a:.{digits}f}", f"{row.b:.{digits}f}", f"{row.difference:+.{digits}f}")
        name = row.score + (" (less is better)" if row.lower_is_better else "")
        table.add_row(Text(name), *numbers, interval, share, style="bold" if row.clear else None)
    return table


def _cell(text: str) -> str:
    """The interval below its value: seven columns with intervals beside would not fit a terminal."""
    return text.replace(" [", "\n").removesuffix("]").replace(", ", "–")
