"""Equal time: whatwhere and its peers on the same data, the same minutes and the same machine, scored by one scorer.

    python bench/peers/setup.py                        # once: the peers' environment
    python bench/equal_time.py                         # 24 runs of 10 minutes; goes on where it stopped
    python bench/equal_time.py --only ours:0 smp --sets isbi_membrane --minutes 10
    python bench/equal_time.py --draw                  # only the table and the plot, from what is there
    python bench/equal_time.py --quick

Runs: ``ours:S`` (whatwhere as it comes, ``whatwhere train --time``, with the seed S), ``plain:S`` (the same from random
weights), ``smp``, ``monai``, ``monai-dynunet``, ``nnunet`` and ``nnunet-batch2``; what each recipe is says
``bench/peers/*.py``.
On colour photographs whatwhere's plan begins with ImageNet weights that come in a package, while the peers begin with
random ones, because theirs must be downloaded: there ``plain:S`` compares like with like.

The rules. Everybody learns from the files of train/, and val/ is scored: one confusion matrix over all pixels that
count, at the images' own size; IoU per class and their mean. Nobody's weights are chosen by their score on val/: the
last ones count. One run of the full time is looked at in between (at a quarter and a half of it), for everybody; a
schedule that falls over the run falls over the full time, for everybody. The clock counts from the start of the
process (imports, reading, planning and preprocessing are in it) and excludes painting val/. Of ours, a mark has the
averaged weights of the newest checkpoint on the disk at that moment, which can be a minute old. A peer's step that is
running at a mark is finished and counts.

Each finished run appends a line to ``bench/records/equal_time.jsonl``; the plot goes to ``bench/equal_time.png``.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
from numpy.typing import NDArray

from common import RECORDS, header, recorded, remember, table
from peers.run import NAMES
from peers.task import Task, read_mask, read_task
from whatwhere.data.scenes import write_scenes

HERE = Path(__file__).resolve().parent
SCENES = "cats_and_cushions"
"""Drawn by whatwhere itself: 240 scenes to learn from, 60 to be scored."""

SETS = ("cats", "isbi_membrane", "camvid", SCENES)
RUNS = ("ours:0", "ours:1", "ours:2", "smp", "monai", "nnunet")
OURS = {"ours": (), "plain": ("--encoder", "plain")}
TITLES = {
    "ours": "whatwhere", "plain": "whatwhere, random weights", "smp": "SMP Unet resnet34, random weights",
    "monai": "MONAI BasicUNet", "monai-dynunet": "MONAI DynUNet", "nnunet": "nnU-Net v2 2d",
    "nnunet-batch2": "nnU-Net v2 2d, batch 2",
}  # fmt: skip

LATE = 1.05
"""A mark that is reached so many times later is told: a long step, or a machine that had other work."""

Line = Mapping[str, Any]
"""A finished run, as it stands in the record."""


@dataclass(frozen=True)
class Setting:
    """Where everything is, and how long a run takes."""

    data: Path
    out: Path
    lines: Path
    python: Path
    minutes: float

    def folder(self, name: str) -> Path:
        """Of a data set, made if it is drawn."""
        if name != SCENES:
            return self.data / name
        drawn = self.out / name
        return drawn if drawn.is_dir() else write_scenes(drawn)

    @property
    def marks(self) -> tuple[float, ...]:
        return self.minutes / 4, self.minutes / 2, self.minutes


def run(setting: Setting, task: Task, name: str) -> dict[str, Any]:
    """One run and its scores, as a line of the record."""
    folder = setting.out / "equal_time" / f"{task.name}-{name.replace(':', '-')}"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    kind, _, seed = name.partition(":")
    if kind in OURS:
        from peers.ours import run_ours

        made = run_ours(setting.folder(task.name), folder, setting.marks, int(seed), OURS[kind])
    else:
        made = run_peer(setting, task, name, folder)
    for mark in made["marks"]:
        mark["iou"] = pooled_iou(task, folder / f"{mark['mark']:g}")
        mark["mean_iou"] = mean_of(mark["iou"])
    return {"set": task.name, "run": name, "minutes": setting.minutes, "classes": task.classes} | made


def run_peer(setting: Setting, task: Task, name: str, folder: Path) -> dict[str, Any]:
    """A peer in its own environment; what it says is in ``log.txt``."""
    marks = [f"{mark:g}" for mark in setting.marks]
    command = [
        setting.python, "-m", "peers.run", name, "--data", setting.folder(task.name), "--out", folder,
        "--began", repr(time.monotonic()), "--marks", *marks,
    ]  # fmt: skip
    with (folder / "log.txt").open("w", encoding="utf-8") as log:
        environment = os.environ | {"PYTHONPATH": str(HERE)}
        subprocess.run([*map(str, command)], check=True, env=environment, stdout=log, stderr=subprocess.STDOUT)
    made: dict[str, Any] = json.loads((folder / "run.json").read_text(encoding="utf-8"))
    return made


def pooled_iou(task: Task, painted: Path) -> list[float | None] | None:
    """IoU of every class over all pixels that count; None for a class that is nowhere, or if nothing was painted."""
    if not painted.is_dir():
        return None
    counts = sum(
        confusion(read_mask(pair.mask), read_mask(painted / f"{pair.image.stem}.png"), len(task.classes), task.void)
        for pair in task.val
    )
    assert isinstance(counts, np.ndarray)
    both = counts.diagonal()
    either = counts.sum(0) + counts.sum(1) - both
    return [float(b / e) if e else None for b, e in zip(both, either)]


def confusion(
    truth: NDArray[np.uint8], painted: NDArray[np.uint8], classes: int, void: int | None
) -> NDArray[np.int64]:
    """``(classes, classes)`` counts of pixels, true class by row, painted class by column; void is left out."""
    if truth.shape != painted.shape:
        raise ValueError(f"the mask is {truth.shape} and the painting {painted.shape}; both must be the image's size")
    counted = truth != void if void is not None else np.ones(truth.shape, bool)
    pairs = truth[counted].astype(np.int64) * classes + painted[counted]
    if painted.max() >= classes:
        raise ValueError(f"the painting holds the value {painted.max()}; the classes are 0 to {classes - 1}")
    return np.bincount(pairs, minlength=classes**2).reshape(classes, classes)


def mean_of(values: Sequence[float | None] | None) -> float | None:
    return statistics.fmean(value for value in values if value is not None) if values else None


def go(setting: Setting, sets: Sequence[str], names: Sequence[str]) -> None:
    """Makes the runs that are not there yet; seeds and peers in turn, set by set."""
    done = {(line["set"], line["run"], line["minutes"]) for line in recorded(setting.lines)}
    for place in sets:
        task = read_task(setting.folder(place))
        for name in names:
            if (place, name, setting.minutes) in done:
                continue
            if name.partition(":")[0] not in OURS and not setting.python.exists():
                print(f"skipped: {name}: there is no {setting.python}; python bench/peers/setup.py makes it")
                continue
            print(f"{place}: {name}, {setting.minutes:g} minutes ...", flush=True)
            try:
                line = run(setting, task, name)
            except subprocess.CalledProcessError as error:
                print(f"{place}: {name} failed with exit code {error.returncode}; see log.txt in its folder")
                continue
            remember(setting.lines, line)
            print(f"{place}: {name}: " + ", ".join(told(mark) for mark in line["marks"]), flush=True)


def told(mark: Mapping[str, Any]) -> str:
    return f"{number(mark['mean_iou'])} at {mark['mark']:g} min ({mark['steps']} steps in {mark['seconds']:.0f} s)"


def number(value: float | None) -> str:
    return "nothing yet" if value is None else f"{value:.3f}"


def report(lines: Sequence[Line]) -> None:
    """A row for each set and recipe (the mean over its seeds, with the lowest and highest), and who is ahead."""
    rows = []
    for place in SETS:
        for kind, title in TITLES.items():
            runs = runs_of(lines, place, kind)
            if runs:
                last = [line["marks"][-1] for line in runs]
                scores = [spread([line["marks"][i]["mean_iou"] for line in runs]) for i in range(len(runs[0]["marks"]))]
                each = [spread([mark["iou"][i] for mark in last], 2) for i in range(len(runs[0]["classes"]))]
                steps = round(statistics.fmean(mark["steps"] for mark in last))
                rows.append([place, title, len(runs), *scores, steps, ", ".join(each)])
    if not rows:
        print("no run is finished")
        return
    marks = [f"{mark['mark']:g} min" for mark in lines[0]["marks"]]
    print(table(["data", "", "runs", *marks, "steps", "IoU per class at the end"], rows))
    print()
    for place in SETS:
        ours = runs_of(lines, place, "ours")
        peers = [line for kind in TITLES if kind not in OURS for line in runs_of(lines, place, kind)]
        if ours and peers:
            leads = [score_at(ours, i, min) - score_at(peers, i, max) for i in range(len(marks))]
            told_leads = ", ".join(f"{lead:+.3f} at {mark}" for lead, mark in zip(leads, marks))
            print(f"{place}: the lowest of whatwhere's seeds less the best peer: {told_leads}")
    machines = {line["machine"] for line in lines}
    if len(machines) > 1:
        print(f"not all on one machine: {'; '.join(sorted(machines))}")
    for line in lines:
        for mark in line["marks"]:
            if mark["seconds"] > LATE * 60 * mark["mark"]:
                late = f"the mark at {mark['mark']:g} min was reached at {mark['seconds']:.0f} s"
                print(f"{line['set']}, {line['run']}: {late}")


def runs_of(lines: Sequence[Line], place: str, kind: str) -> list[Line]:
    return [line for line in lines if line["set"] == place and line["run"].partition(":")[0] == kind]


def score_at(runs: Sequence[Line], index: int, choose: Callable[[list[float]], float]) -> float:
    """The lowest or highest score at a mark; 0 where there was no model yet."""
    return choose([line["marks"][index]["mean_iou"] or 0.0 for line in runs])


def spread(scores: Sequence[float | None], digits: int = 3) -> str:
    known = [score for score in scores if score is not None]
    if len(known) < len(scores):
        return "nothing yet"
    ends = f" ({min(known):.{digits}f} to {max(known):.{digits}f})" if len(known) > 1 else ""
    return f"{statistics.fmean(known):.{digits}f}{ends}"


def draw(lines: Sequence[Line], path: Path) -> None:
    """Score against minutes, a panel a data set; the seeds of a recipe as their mean, with a band to their ends."""
    places = [place for place in SETS if any(line["set"] == place for line in lines)]
    if not places:
        return
    figure, panels = plt.subplots(1, len(places), figsize=(4.2 * len(places), 3.6), squeeze=False)
    for panel, place in zip(panels[0], places):
        for index, (kind, title) in enumerate(TITLES.items()):
            runs = runs_of(lines, place, kind)
            if runs:
                curve(panel, runs, title, f"C{index}", kind in OURS)
        panel.set(title=place, xlabel="minutes", xticks=[mark["mark"] for mark in lines[0]["marks"]], xlim=(0, None))
        panel.grid(alpha=0.3)
    panels[0][0].set_ylabel("mean IoU, pooled")
    handles = {label: handle for panel in panels[0] for handle, label in zip(*panel.get_legend_handles_labels())}
    figure.legend(handles.values(), handles.keys(), loc="lower center", ncols=len(places), frameon=False)
    figure.tight_layout(rect=(0, 0.06 * -(-len(handles) // len(places)) + 0.02, 1, 1))
    figure.savefig(path, dpi=150)
    print(f"\n{path}")


def curve(panel: Any, runs: Sequence[Line], title: str, color: str, ours: bool) -> None:
    minutes = [mark["mark"] for mark in runs[0]["marks"]]
    scores = np.array([[_or_nan(mark["mean_iou"]) for mark in line["marks"]] for line in runs])
    panel.plot(minutes, scores.mean(0), "o-", color=color, label=title, linewidth=2.4 if ours else 1.4)
    panel.fill_between(minutes, scores.min(0), scores.max(0), color=color, alpha=0.2, linewidth=0)


def _or_nan(value: float | None) -> float:
    return math.nan if value is None else value


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=Path("../shared/data"), help="the folder of the data sets")
    parser.add_argument("--sets", nargs="+", default=list(SETS), choices=SETS)
    parser.add_argument("--only", nargs="+", default=list(RUNS), help=f"of ours:S, plain:S, {', '.join(NAMES)}")
    parser.add_argument("--minutes", type=float, default=10.0, help="of each run")
    parser.add_argument("--peers", type=Path, default=HERE / "out" / "peers-venv", help="the peers' environment")
    parser.add_argument("--out", type=Path, default=HERE / "out")
    parser.add_argument("--record", type=Path, default=RECORDS / "equal_time.jsonl")
    parser.add_argument("--picture", type=Path, default=HERE / "equal_time.png")
    parser.add_argument("--draw", action="store_true", help="no runs: only the table and the plot")
    parser.add_argument("--quick", action="store_true", help="half a minute on one set, to see that it works")
    options = parser.parse_args()
    python = options.peers.absolute() / "bin" / "python"
    if not options.data.is_dir() and options.sets != [SCENES]:
        print(f"skipped: there is no {options.data}; give the folder of the data sets with --data")
        return
    unknown = [name for name in options.only if name not in NAMES and not is_ours(name)]
    if unknown:
        sys.exit(f"error: --only {' '.join(unknown)}; known are ours:0, ours:1, ..., plain:0, ..., {', '.join(NAMES)}")
    if options.quick:
        if not python.exists():
            print(f"skipped: there is no {python}; python bench/peers/setup.py makes it")
            return
        options.sets, options.only, options.minutes = ["isbi_membrane"], ["ours:0", "smp"], 0.7
        options.out = HERE / "out" / "quick"
        options.picture, options.record = options.out / "equal_time.png", options.out / "equal_time.jsonl"
        shutil.rmtree(options.out, ignore_errors=True)
    options.out.mkdir(parents=True, exist_ok=True)
    setting = Setting(options.data, options.out, options.record, python, options.minutes)
    if not options.draw:
        go(setting, options.sets, options.only)
    lines = [line for line in recorded(setting.lines) if line["minutes"] == options.minutes]
    print(f"\n{header()}; {options.minutes:g} minutes a run\n")
    report(lines)
    draw(lines, options.picture)


def is_ours(name: str) -> bool:
    kind, _, seed = name.partition(":")
    return kind in OURS and seed.isdecimal()


if __name__ == "__main__":
    main()
