"""What `make_measured_pages.py` reads and writes: measurements of several seeds as one, tables, small pictures.

Knows the form of measurements.json; nothing of networks.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from whatwhere.explain.figures import LIGHT
from whatwhere.judge.bootstrap import ENOUGH

Record = Mapping[str, Any]


def read(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))


def over(values: Iterable[float | None]) -> str:
    """Mean and range of one value over seeds: ``0.93 (0.91 to 0.95)``."""
    found = [value for value in values if value is not None]
    if not found:
        return "–"
    mean = f"{np.mean(found):.2f}"
    return mean if len(found) == 1 else f"{mean} ({min(found):.2f} to {max(found):.2f})"


def pixels(values: Iterable[float | None]) -> str:
    """The same in whole pixels."""
    found = [value for value in values if value is not None]
    if not found:
        return "no bound"
    low, high = min(found), max(found)
    return f"{low:.0f}" if round(low) == round(high) else f"{low:.0f} to {high:.0f}"


def ranged(one: Record) -> str:
    """One measured value with its interval over images."""
    if one["value"] is None:
        return "–"
    if one["low"] is None:
        return f"{one['value']:.2f}"
    return f"{one['value']:.2f} [{one['low']:.2f}, {one['high']:.2f}]"


def few(one: Record) -> bool:
    """Whether it was measured on too few independent images, or folders of them, to call anything a difference."""
    return (one.get("folders") or int(one["images"])) < ENOUGH  # type: ignore[no-any-return]


def surely(one: Record, other: Record) -> int:
    """1 or -1 where the first is higher or lower and the intervals, of enough images each, do not overlap, else 0."""
    if None in (one["low"], one["high"], other["low"], other["high"]) or few(one) or few(other):
        return 0
    return 1 if one["low"] > other["high"] else -1 if one["high"] < other["low"] else 0


def step(start: Sequence[Record], stop: Sequence[Record]) -> str:
    """Whether a value rises or falls from one layer to another, in how many of the seeds beyond the intervals."""
    ways = [surely(b, a) for a, b in zip(start, stop)]
    change = f"from {over(one['value'] for one in start)} to {over(one['value'] for one in stop)}"
    sure = max(ways.count(1), ways.count(-1))
    if ways.count(1) and ways.count(-1):
        return f"goes {change}, up in some seeds and down in others"
    word = "rises" if ways.count(1) else "falls" if ways.count(-1) else "goes"
    if len(ways) == 1:
        return f"{word} {change}" + ("" if sure else " (the intervals overlap)")
    return f"{word} {change}, in {sure} of {len(ways)} seeds beyond the intervals"


def table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table; all columns but the first are right-aligned."""
    rule = "|".join(["---", *["---:"] * (len(columns) - 1)])
    return "\n".join([f"| {' | '.join(columns)} |", f"|{rule}|", *(f"| {' | '.join(row)} |" for row in rows)])


def readings(measured: Record) -> dict[str, Record]:
    """By layer name; empty where what and where could not be asked."""
    return {one["layer"]["name"]: one for one in (measured["levels"] or {"readings": []})["readings"]}


def title(layer: Record) -> str:
    return {"pixel": "raw pixel", "bottleneck": "bottleneck"}.get(layer["role"], f"{layer['role']} {layer['level']}")


def output(measured: Record) -> Record:
    """How far the output sees."""
    return next(one for one in measured["sights"]["sights"] if one["layer"] == "output")


def of(records: Sequence[Record], key: str) -> list[Record]:
    return [one[key] for one in records]


def mean(records: Sequence[Record], key: str) -> str:
    """Mean and range of a measured value over seeds."""
    return over(one["value"] for one in of(records, key))


def bottleneck_alone(skips: Record) -> float:
    """Mean IoU of the trained network with all its skips cut."""
    found: float = skips["coalitions"]["mean IoU"][str(1 << (len(skips["paths"]) - 1))]
    return found


def differences(comparison: Record, scores: Sequence[str]) -> list[str]:
    """For each score what it is and the difference with its interval: ``mean IoU +0.031 [+0.020, +0.044]``."""
    words = {"mean_iou": "mean IoU", "mean_dice": "mean Dice", "mean_boundary_f1": "boundary F1"}
    found = {one["score"]: one for one in comparison["differences"]}
    return [
        f"{words[score]} {found[score]['difference']:+.3f} [{found[score]['low']:+.3f}, {found[score]['high']:+.3f}]"
        for score in scores
    ]


def picture(source: Path, target: Path, words: str) -> str:
    """A picture copied beside the page, and the line that shows it; empty where there is none."""
    if not source.is_file():
        return ""
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(source, target)
    return f"![{words}]({target.parent.name}/{target.name})"


def draw_what_and_where(seeds: Sequence[Record], path: Path) -> None:
    """What and where along the U, a line a seed."""
    figure = Figure(figsize=(8.6, 3.8), layout="constrained")
    axes = figure.subplots()
    for side in ("top", "right", "left"):
        axes.spines[side].set_visible(False)
    names = [title(one["layer"]).replace(" ", "\n") for one in seeds[0]["levels"]["readings"]]
    for place, measured in enumerate(seeds):
        for key, colour, marker in (("what", LIGHT.what, "o"), ("where", LIGHT.where, "s")):
            values = [one[key]["value"] for one in measured["levels"]["readings"]]
            values.append(measured["levels"][f"answer_{key}"]["value"])
            label = f"{key} ({'interior' if key == 'what' else 'boundary'} pixels)" if place == 0 else None
            axes.plot(values, color=colour, marker=marker, ms=5, lw=1.8, alpha=0.8, label=label)
    axes.set_xticks(range(len(names) + 1), [*names, "the\nanswer"], fontsize=9)
    axes.set_ylabel("balanced accuracy", color=LIGHT.quiet, fontsize=9)
    axes.grid(axis="y", color=LIGHT.line, linewidth=0.7)
    axes.tick_params(length=0, colors=LIGHT.quiet)
    axes.legend(loc="lower left", bbox_to_anchor=(0, 1.0), ncols=2, frameon=False, fontsize=9)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110, facecolor="white")
