"""Several networks together: what averaging their probabilities gains, for how many times the work.

    python bench/equal_time.py --sets isbi_membrane --only ours:0 ours:1 ours:2    # first
    python bench/ensembles.py isbi_membrane camvid

*Snapshots* are the networks of one run at the marks of 2.5, 5 and 10 minutes (its moving averages), which cost no
training; *seeds* are the last networks of all runs, which cost as many trainings. Everything is painted again by
whatwhere itself and scored by the scorer of ``equal_time.py``. The paintings stay beside the runs, in
``bench/out/ensembles/SET/NAME``, for ``rand_score.py``.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from common import header, table
from equal_time import mean_of, pooled_iou
from peers.task import Task, read_task
from whatwhere import Segmenter

HERE = Path(__file__).resolve().parent
MARKS = "model-2.5", "model-5"


def networks(run: Path) -> list[Path]:
    """Of a finished run, the last one first."""
    return [run / "run" / "last.safetensors", *(run / f"{mark}.safetensors" for mark in reversed(MARKS))]


def together(runs: Sequence[Path]) -> dict[str, list[Path]]:
    """Which networks paint together, by name."""
    alone = {f"seed {run.name.rpartition('-')[2]} alone": networks(run)[:1] for run in runs}
    late = {f"{name.removesuffix(' alone')}, 5 and 10 min": networks(run)[:2] for name, run in zip(alone, runs)}
    every = {f"{name.removesuffix(' alone')}, 2.5, 5 and 10 min": networks(run) for name, run in zip(alone, runs)}
    return alone | late | every | {f"all {len(runs)} seeds": [networks(run)[0] for run in runs]}


def paint(task: Task, groups: Mapping[str, Sequence[Path]], out: Path) -> None:
    """Every group's painting of val/ into ``out/NAME``; each network looks at an image once."""
    models = {path: Segmenter.load(path) for paths in groups.values() for path in paths}
    for name in groups:
        (out / name).mkdir(parents=True, exist_ok=True)
    for pair in task.val:
        said = {path: model.paint(pair.image, probabilities=True).probabilities for path, model in models.items()}
        for name, paths in groups.items():
            mean = np.mean([said[path] for path in paths], axis=0)
            Image.fromarray(mean.argmax(0).astype(np.uint8)).save(out / name / f"{pair.image.stem}.png")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("sets", nargs="*", default=["isbi_membrane", "camvid"])
    parser.add_argument("--data", type=Path, default=Path("../shared/data"), help="the folder of the data sets")
    parser.add_argument("--out", type=Path, default=HERE / "out")
    options = parser.parse_args()
    if not options.data.is_dir():
        sys.exit(f"skipped: there is no {options.data}; give the folder of the data sets with --data")
    rows = []
    for place in options.sets:
        runs = sorted((options.out / "equal_time").glob(f"{place}-ours-*"))
        if not runs:
            print(f"skipped: {place}: no finished run; python bench/equal_time.py --sets {place} makes them")
            continue
        task, groups, out = read_task(options.data / place), together(runs), options.out / "ensembles" / place
        paint(task, groups, out)
        scores = {name: pooled_iou(task, out / name) or [] for name in groups}
        for name, each in scores.items():
            one_by_one = ", ".join("none" if iou is None else f"{iou:.3f}" for iou in each)
            rows.append([place, name, len(groups[name]), f"{mean_of(each):.4f}", one_by_one])
    print(f"\n{header()}\n")
    print(table(["data", "networks", "work", "mean IoU", "IoU per class"], rows))


if __name__ == "__main__":
    main()
