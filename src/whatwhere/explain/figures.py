"""Charts of what was measured, as matplotlib figures: for notebooks, and, with `TOKENS` as colours, for the report.

Colours are told apart with every kind of colour vision (Okabe & Ito 2008); series also differ in marker or line.
Each takes the whole explanation, or the parts of it that it shows. Knows the records of this room only.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from whatwhere.errors import DataError
from whatwhere.explain.anatomy import Layer
from whatwhere.explain.explanation import Explanation
from whatwhere.explain.levels import NOT_MEASURED, Levels
from whatwhere.explain.measured import Measured
from whatwhere.explain.objects import ObjectSize
from whatwhere.explain.presence import Presence
from whatwhere.explain.sight import Sights
from whatwhere.explain.skips import Worths
from whatwhere.judge import to_display

__all__ = [
    "LIGHT",
    "MAIN_SCORES",
    "TOKENS",
    "Palette",
    "draw_levels",
    "draw_paintings",
    "draw_presence",
    "draw_sight",
    "draw_skips",
]

_NAME = 32
"""Letters of a class's name beside a chart."""

MAIN_SCORES = ("interior accuracy", "boundary accuracy", "mean IoU", "Boundary F1")


@dataclass(frozen=True)
class Palette:
    """Colours by what they mean."""

    ink: str
    quiet: str
    line: str
    what: str
    where: str
    third: str


LIGHT = Palette("#1f2328", "#667079", "#d5d9de", "#0072b2", "#c04a06", "#00875f")
TOKENS = Palette("#010203", "#020304", "#030405", "#040506", "#050607", "#060708")
"""Placeholders that the report replaces by its style sheet's colours, which change with light and dark."""


def _not_measured(told: object, opening: str) -> DataError:
    """Why a part is lacking, which a note says that opens so."""
    notes = told.notes if isinstance(told, Explanation) else ()
    note = next((one for one in notes if one.startswith(opening)), opening.rstrip(":"))
    return DataError(note, "", "draw what was measured, or explain other images")


def _figure(width: float, height: float) -> Figure:
    figure = Figure(figsize=(width, height), layout="constrained")
    figure.patch.set_alpha(0.0)
    return figure


def _plain(axes: Any, palette: Palette, *, grid: str = "y") -> None:
    axes.set_facecolor("none")
    for side in ("top", "right", "left" if grid == "y" else "bottom"):
        axes.spines[side].set_visible(False)
    for side in ("bottom", "left"):
        axes.spines[side].set_color(palette.line)
    axes.tick_params(colors=palette.quiet, length=0, labelsize=9)
    axes.grid(axis=grid, color=palette.line, linewidth=0.7)
    axes.set_axisbelow(True)


def _errors(values: Sequence[Measured]) -> tuple[list[float], list[list[float]]]:
    """Values and the lengths of their error bars, for matplotlib."""
    centre = [np.nan if one.value is None else one.value for one in values]
    low = [0.0 if one.low is None else max(0.0, c - one.low) for one, c in zip(values, centre)]
    high = [0.0 if one.high is None else max(0.0, one.high - c) for one, c in zip(values, centre)]
    return centre, [low, high]


def _lows(values: Sequence[Measured]) -> list[float | None]:
    """How far down each is drawn: to the end of its bar, or where there is none to its value."""
    return [one.value if one.low is None else one.low for one in values]


def _bottom(drawn: Sequence[float | None], margin: float) -> float:
    """Where an axis of shares begins, so that nothing that is drawn lies below it."""
    return max(-0.02, min(one for one in drawn if one is not None and not np.isnan(one)) - margin)


def _label(layer: Layer) -> str:
    return {"pixel": "raw\npixel", "bottleneck": "bottle-\nneck"}.get(layer.role, f"{layer.role}\n{layer.level}")


def draw_levels(told: Explanation | Levels | None, palette: Palette = LIGHT) -> Figure:
    """What and where along the U, with the controls as faint lines.

    Raises:
        DataError: neither was measured.
    """
    levels = told.levels if isinstance(told, Explanation) else told
    if levels is None:
        raise _not_measured(told, NOT_MEASURED)
    figure = _figure(8.6, 4.0)
    axes = figure.subplots()
    _plain(axes, palette)
    places = np.arange(len(levels.readings) + 1)
    drawn: list[float | None] = [levels.chance, 0.5]
    series = (
        ("what (interior pixels)", palette.what, "o", "what", levels.answer_what, levels.chance),
        ("where (boundary pixels)", palette.where, "s", "where", levels.answer_where, 0.5),
    )
    for name, colour, marker, key, answer, chance in series:
        values = [getattr(one, key) for one in levels.readings] + [answer]
        if all(one.value is None for one in values):
            continue
        centre, errors = _errors(values)
        axes.errorbar(places, centre, errors, color=colour, marker=marker, ms=6, lw=2.2, elinewidth=1.2, label=name)
        untrained = [getattr(one, f"untrained_{key}") for one in levels.readings]
        pairs = [
            (place, one.value) for place, one in zip(places, untrained) if one is not None and one.value is not None
        ]
        drawn += [*_lows(values), *(value for _, value in pairs)]
        if pairs:
            axes.plot(*zip(*pairs), color=colour, ls=(0, (1, 2)), lw=1.2, label=f"{name.split()[0]}, untrained")
        axes.axhline(chance, color=colour, lw=0.8, ls=(0, (6, 4)), alpha=0.6)
        axes.annotate(
            f"chance {chance:.2g}", (places[-1] + 0.45, chance), color=colour, fontsize=8, va="bottom", ha="right"
        )
    sides = [np.nan if one.side.value is None else one.side.value for one in levels.readings]
    axes.plot(places[:-1], sides, color=palette.where, marker="s", mfc="none", ms=5, lw=1.2, ls=(0, (5, 2)),
              label="which side, unseen")  # fmt: skip
    down = sum(one.layer.role in ("pixel", "encoder") for one in levels.readings)
    axes.axvspan(down - 0.5, down + 0.5, color=palette.line, alpha=0.35, lw=0)
    axes.set_xticks(places, [_label(one.layer) for one in levels.readings] + ["the\nanswer"])
    axes.set_xlim(-0.5, places[-1] + 0.5)
    axes.set_ylim(_bottom([*drawn, *sides], 0.08), 1.02)
    axes.set_ylabel("balanced accuracy", color=palette.quiet, fontsize=9)
    _legend(axes, palette, 3)
    return figure


def _legend(axes: Any, palette: Palette, columns: int) -> None:
    axes.legend(
        loc="lower left", bbox_to_anchor=(0, 1.0), ncols=columns, frameon=False, fontsize=9, labelcolor=palette.ink,
        handlelength=1.8, columnspacing=1.6, borderaxespad=0.2,
    )  # fmt: skip


def draw_paintings(explanation: Explanation, which: int = 0, palette: Palette = LIGHT) -> Figure:
    """An example image as every level paints it by its probe: the encoder above, the decoder below.

    Args:
        which: of ``explanation.examples``.

    Raises:
        DataError: there is no such example.
    """
    count = len(explanation.examples)
    if which not in range(-count, count):
        raise DataError(f"example {which} of {count}", "one that is there, counted from 0", "")
    example, levels = explanation.examples[which], explanation.levels
    colours = np.full((256, 3), 90, np.uint8)
    colours[: explanation.classes.count] = explanation.classes.colors
    aim = "truth" if explanation.truth else "own answer"
    top: list[tuple[str, Any]] = [("image", to_display(example.case.raw))]
    below: list[tuple[str, Any]] = [(aim, colours[example.truth])]
    for layer in sorted(explanation.layers, key=lambda one: one.level):
        if layer.name in example.by_layer and layer.role != "pixel":
            title = layer.title
            if levels is not None:
                scores = (levels[layer.name].what.value, levels[layer.name].where.value)
                title += "\nwhat {}  where {}".format(*("–" if one is None else f"{one:.2f}" for one in scores))
            row = below if layer.role == "decoder" else top
            row.append((title, colours[example.by_layer[layer.name]]))
    below.append(("the answer", colours[example.painting]))
    columns = max(len(top), len(below))
    height, width = example.truth.shape
    figure = _figure(1.75 * columns, 2 * (1.7 * height / width + 0.55))
    panels = [panel for row in (top, below) for panel in (*row, *[None] * (columns - len(row)))]
    for axes, panel in zip(figure.subplots(2, columns, squeeze=False).ravel(), panels):
        axes.axis("off")
        if panel is not None:
            axes.imshow(panel[1], interpolation="none")
            axes.set_title(panel[0], fontsize=9, color=palette.ink)
    return figure


_MOST_OBJECTS = 8
"""Classes whose objects are drawn beside what layers see: the largest."""


def draw_sight(
    told: Explanation | Sights, objects: Sequence[ObjectSize] | None = None, palette: Palette = LIGHT
) -> Figure:
    """For each layer what it can see, and in how much of it the influence lies; objects of the data below."""
    sights, known = (told.sights, told.objects) if isinstance(told, Explanation) else (told, ())
    objects = known if objects is None else objects
    largest = sorted((one for one in objects if not one.fills), key=lambda one: one.typical, reverse=True)
    shown = [one for one in objects if one in largest[:_MOST_OBJECTS]]
    rows = len(sights.sights) + len(shown)
    figure = _figure(8.6, 0.6 + 0.34 * rows)
    axes = figure.subplots()
    _plain(axes, palette, grid="x")
    for row, one in enumerate(sights.sights):
        can = one.theoretical
        if can is not None:
            axes.add_patch(Rectangle((0, row - 0.34), can, 0.68, fill=False, ec=palette.quiet, lw=1))
        for value, height, alpha in ((one.most, 0.5, 0.4), (one.half, 0.5, 1.0)):
            axes.barh(row, value.value or 0.0, height, color=palette.what, alpha=alpha, lw=0)
        if one.restored.value is not None:
            axes.plot([one.restored.value], [row], marker="D", ms=5.5, color=palette.where, ls="")
        label = f"{can} px" if can is not None else "unbounded"
        end = max(can or 0, one.most.value or 0, one.restored.value or 0)
        axes.annotate(label, (end, row), xytext=(6, 0), textcoords="offset points", va="center", fontsize=8,
                      color=palette.quiet)  # fmt: skip
    for row, thing in enumerate(shown, start=len(sights.sights)):
        axes.plot([0, thing.typical], [row, row], color=palette.third, lw=2.2)
        axes.plot([thing.typical, thing.largest], [row, row], color=palette.third, lw=1, ls=(0, (2, 2)))
        axes.plot([thing.typical], [row], marker="|", ms=10, mew=2.2, color=palette.third)
    names = [one.title for one in sights.sights] + [f"objects: {thing.name}" for thing in shown]
    axes.set_yticks(range(rows), [_short(name) for name in names], parse_math=False)
    axes.set_ylim(rows - 0.4, -0.6)
    axes.set_xlim(0, None)
    axes.margins(x=0.08)
    more = len(largest) - len(shown)
    axes.set_xlabel(f"side in pixels{(more and f'; {more} classes of smaller objects are left out') or ''}",
                    color=palette.quiet, fontsize=9)  # fmt: skip
    handles = [
        Rectangle((0, 0), 1, 1, fill=False, ec=palette.quiet),
        Rectangle((0, 0), 1, 1, color=palette.what, alpha=0.4, lw=0),
        Rectangle((0, 0), 1, 1, color=palette.what, lw=0),
        axes.plot([], [], marker="D", ms=5.5, color=palette.where, ls="")[0],
    ]
    axes.legend(handles, ["can see", "95 % of the influence", "half of it", "enough to answer as with the whole image"],
                loc="lower left", bbox_to_anchor=(0, 1.0), ncols=4, frameon=False, fontsize=9,
                labelcolor=palette.ink, handlelength=1.2, columnspacing=1.4)  # fmt: skip
    return figure


def _short(name: str) -> str:
    """Room for the chart beside it; the table has all of a name."""
    return name if len(name) <= _NAME else name[: _NAME - 1].rstrip() + "…"


def draw_skips(told: Explanation | Worths, scores: Sequence[str] | None = None, palette: Palette = LIGHT) -> Figure:
    """For each score a staircase from nothing to everything, one step a path (its Shapley value).

    Args:
        scores: names out of ``worth``; `MAIN_SCORES`, as far as they were measured, if None.

    Raises:
        DataError: none of them was measured.
    """
    worths = told.skips if isinstance(told, Explanation) else told
    scores = [name for name in MAIN_SCORES if name in worths.worth] if scores is None else scores
    if not scores or not set(scores) <= worths.worth.keys():
        there = ", ".join(worths.worth) or "none"
        raise DataError(f"the scores {list(scores or MAIN_SCORES)}", f"of those that were measured ({there})", "")
    figure = _figure(8.6, 2.9)
    names = [path.name for path in worths.paths][::-1]
    for axes, score in zip(figure.subplots(1, len(scores), sharey=True, squeeze=False)[0], scores):
        _plain(axes, palette, grid="x")
        start = worths.none[score].value or 0.0
        base, lows = start, [0.0]
        for row, worth in enumerate(worths.worth[score][::-1], start=1):
            gain = worth.shapley.value or 0.0
            colour = palette.what if worth.path.name == "bottleneck" else palette.where
            axes.barh(row, gain, left=start, height=0.62, color=colour, lw=0)
            _, errors = _errors([worth.shapley])
            axes.errorbar([start + gain], [row], xerr=errors, color=palette.ink, elinewidth=1, ls="")
            axes.plot([start + gain] * 2, [row - 0.31, row + 1.31], color=palette.quiet, lw=0.8)
            axes.annotate(f"{gain:+.2f}", (max(start, start + gain), row), xytext=(5, 9), textcoords="offset points",
                          fontsize=8, color=palette.ink, va="center")  # fmt: skip
            start += gain
            lows.append(start)
        last = len(names) + 1
        for row, end, text in ((0, base, "none"), (last, worths.full[score].value or 0.0, "all")):
            axes.barh(row, end, height=0.62, color=palette.line, lw=0)
            axes.annotate(f"{end:.2f}", (end, row), xytext=(4, 0), textcoords="offset points", fontsize=8,
                          color=palette.ink, va="center", label=text)  # fmt: skip
        axes.set_title(score, fontsize=10, color=palette.ink, loc="left", parse_math=False)
        axes.set_yticks(range(last + 1), ["no path", *names, "all paths"])
        axes.set_ylim(last + 0.5, -0.5)
        axes.set_xlim(min(0.0, *lows) - (0.05 if min(lows) < 0 else 0), 1.12)
        axes.set_xticks([0, 0.5, 1])
    return figure


def draw_presence(
    told: Explanation | Presence | None,
    layers: Sequence[Layer] = (),
    levels: Levels | None = None,
    palette: Palette = LIGHT,
) -> Figure:
    """How well each pooled level tells whether a class is there, beside *what* of its single units.

    Raises:
        DataError: it was not measured.
    """
    presence = told.presence if isinstance(told, Explanation) else told
    if isinstance(told, Explanation):
        layers, levels = told.layers, told.levels
    if presence is None:
        raise _not_measured(told, "Presence was not measured:")
    figure = _figure(8.6, 2.7)
    axes = figure.subplots()
    _plain(axes, palette)
    places = np.arange(len(layers))
    values = [presence.accuracy[layer.name] for layer in layers]
    drawn, (centre, errors) = [0.45, *_lows(values)], _errors(values)
    axes.errorbar(places, centre, errors, color=palette.third, marker="^", ms=6, lw=2.2, elinewidth=1.2,
                  label=f"is it there? (pooled over the {presence.region})")  # fmt: skip
    if levels is not None:
        where, _ = _errors([one.where for one in levels.readings])
        drawn += where
        axes.plot(
            places, where, color=palette.where, marker="s", ms=4, lw=1.2, ls=(0, (4, 2)), label="where is its edge?"
        )
    axes.axhline(0.5, color=palette.third, lw=0.8, ls=(0, (6, 4)), alpha=0.6)
    axes.set_xticks(places, [_label(layer) for layer in layers])
    axes.set_xlim(-0.5, len(layers) - 0.5)
    axes.set_ylim(_bottom(drawn, 0.03), 1.02)
    axes.set_ylabel("balanced accuracy", color=palette.quiet, fontsize=9)
    _legend(axes, palette, 2)
    return figure
