"""From random weights against from ImageNet's, in equal time: whatwhere's own command line on colour photographs.

    python bench/pretrained.py                                   # cats in 10 minutes, CamVid in an hour
    python bench/pretrained.py camvid --time 60m --seeds 0 1 2   # goes on where it stopped
    python bench/pretrained.py --show                            # only the tables, from what is there
    python bench/pretrained.py --quick

Both runs of a pair come from the same command, ``whatwhere train --time T --encoder E``, and have the same minutes, in
which they also plan; the scores are those of ``whatwhere evaluate`` on all images of val/. A run that was interrupted
goes on from its checkpoint, one that is finished is not made again. The curve is drawn from the validations that each
run made on the way, on some of the images.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt

from common import table
from whatwhere.learn.plan import parse_duration

HERE = Path(__file__).resolve().parent
TIMES = {"cats": "10m", "camvid": "60m"}
ENCODERS = {"plain": "random weights", "efficientnet-lite0": "ImageNet weights"}
COMMAND = [sys.executable, "-m", "whatwhere"]


@dataclass(frozen=True)
class Run:
    """One run and where it lies."""

    data: Path
    encoder: str
    time: str
    seed: int
    out: Path

    @property
    def folder(self) -> Path:
        return self.out / f"{self.data.name}-{self.encoder}-{self.time}-{self.seed}"

    @property
    def scores(self) -> Path:
        return self.folder / "scores.json"

    def make(self) -> None:
        """Trains, or goes on with training, and evaluates; as a person would."""
        if self.scores.is_file():
            return
        options = [f"--time={self.time}", f"--seed={self.seed}", f"--encoder={self.encoder}"]
        if (self.folder / "plan.toml").is_file():
            options = ["--resume"]
        print(f"{self.folder.name} ...", flush=True)
        self._call("train", self.data, "-o", self.folder, *options, "-q")
        picture = self.folder / "worst.png"
        self._call(
            "evaluate", self.folder, self.data, "--split", "val", "--json", self.scores, "--picture", picture, "-q"
        )

    def _call(self, *arguments: str | Path) -> None:
        subprocess.run([*COMMAND, *map(str, arguments)], check=True, stdout=subprocess.DEVNULL)

    def record(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads((self.folder / "run.json").read_text(encoding="utf-8"))
        return found

    def curve(self) -> tuple[list[float], list[float]]:
        """Minutes and mean IoU of every validation."""
        lines = (self.folder / "history.jsonl").read_text(encoding="utf-8").splitlines()
        judged = [entry for entry in map(json.loads, lines) if "iou" in entry]
        return [entry["elapsed"] / 60 for entry in judged], [entry["mean_iou"] for entry in judged]


def report(runs: Sequence[Run]) -> None:
    lines = []
    for run in runs:
        record, scores = run.record(), json.loads(run.scores.read_text(encoding="utf-8"))["scores"]
        each = " ".join(f"{name} {value:.3f}" for name, value in record["iou"].items() if value is not None)
        mean = scores["mean_iou"]
        lines.append([
            run.data.name, ENCODERS[run.encoder], run.seed, run.time, f"{record['seconds']:.0f}",
            f"{mean['value']:.3f} [{mean['low']:.3f}, {mean['high']:.3f}]", each, record["steps"],
            f"{record['images_per_second']:.1f}", f"{record['peak_memory'] / 2**30:.1f}",
        ])  # fmt: skip
    columns = ["data", "begins with", "seed", "asked", "wall s", "mean IoU [95 %]", "IoU of each class", "steps",
               "images/s", "peak GiB"]  # fmt: skip
    print(table(columns, lines))
    last = runs[-1].record()
    print(f"\n{last['machine']}; {last['versions']}")


def draw(runs: Sequence[Run], path: Path) -> None:
    """Score against minutes, a panel a data set."""
    places = list(dict.fromkeys(run.data.name for run in runs))
    figure, panels = plt.subplots(1, len(places), figsize=(4.4 * len(places), 3.4), squeeze=False)
    for panel, place in zip(panels[0], places):
        for run in (run for run in runs if run.data.name == place):
            color = f"C{list(ENCODERS).index(run.encoder)}"
            panel.plot(*run.curve(), "o-", color=color, markersize=3, label=ENCODERS[run.encoder])
        panel.set(title=place, xlabel="minutes", xlim=(0, None), ylim=(0, 1))
        panel.grid(alpha=0.3)
    panels[0][0].set_ylabel("mean IoU in validations")
    handles = dict(zip(*reversed(panels[0][0].get_legend_handles_labels())))
    panels[0][0].legend(handles.values(), handles.keys(), frameon=False)
    figure.tight_layout()
    figure.savefig(path, dpi=150)
    print(f"\n{path}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("sets", nargs="*", help=f"of {', '.join(TIMES)}; all if not given")
    parser.add_argument("--data", type=Path, default=Path("../shared/data"), help="the folder of the data sets")
    parser.add_argument("--out", type=Path, default=HERE / "out" / "pretrained")
    parser.add_argument("--time", help="of each run, instead of the usual time of each set")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--show", action="store_true", help="no runs: only the table and the plot")
    parser.add_argument("--quick", action="store_true", help="half a minute on one set, to see that it works")
    options = parser.parse_args()
    sets, time = options.sets or list(TIMES), options.time
    if options.quick:
        sets, time, options.out = ["cats"], "30s", options.out / "quick"
        shutil.rmtree(options.out, ignore_errors=True)
    if unknown := [name for name in sets if name not in TIMES]:
        sys.exit(f"error: unknown set {unknown[0]}; known are {', '.join(TIMES)}")
    if not options.data.is_dir():
        print(f"skipped: there is no {options.data}; give the folder of the data sets with --data")
        return
    runs = [
        Run(options.data / name, encoder, time or TIMES[name], seed, options.out)
        for name in sets for seed in options.seeds for encoder in ENCODERS
    ]  # fmt: skip
    for run in runs:
        parse_duration(run.time)
        if not options.show:
            run.make()
    finished = [run for run in runs if run.scores.is_file()]
    if not finished:
        sys.exit("no run is finished")
    report(finished)
    draw(finished, options.out / "pretrained.png")


if __name__ == "__main__":
    main()
