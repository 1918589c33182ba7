"""Several networks together: what averaging their probabilities gains, for how many times the work.

    python bench/equal_time.py --sets isbi_membrane --only ours:0 ours:1 ours:2    # first
    python bench/ensembles.py isbi_membrane camvid

*Snapshots* are the networks of one run at the marks of 2.5, 5 and 10 minutes (its moving averages), which cost no
training; *seeds* are the last networks of all runs, which cost as many trainings. Everything is painted again by
whatwhere itself and scored by the scorer of ``equal_time.py``: by the mean of their probabilities, and the last network
with that of 5 minutes also as one, by the mean of their weights. The paintings stay beside the runs, in
``bench/out/ensembles/SET/NAME``, for ``rand_score.py``.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from common import header, table
from equal_time import mean_of, number, pooled_iou
from peers.task import Pair, Task, read_task
from whatwhere import Segmenter
from whatwhere.network import load_model

HERE = Path(__file__).resolve().parent


def together(runs: Sequence[Path]) -> dict[str, list[Path]]:
    """Which networks paint together, by name: of each run the last one first, alone and with earlier ones; all last."""
    groups = {}
    for run in runs:
        seed = f"seed {run.name.rpartition('-')[2]}"
        networks = [run / "run" / "last.safetensors", run / "model-5.safetensors", run / "model-2.5.safetensors"]
        groups |= {f"{seed} alone": networks[:1], f"{seed} and 5 min": networks[:2], f"{seed}, 5 and 2.5 min": networks}
    return groups | {f"all {len(runs)} seeds": [run / "run" / "last.safetensors" for run in runs]}


def mean_of_weights(networks: Sequence[Path]) -> Segmenter:
    """One network whose weights (and batch statistics) are the mean of those of several."""
    models = [load_model(path) for path in networks]
    states = [model.network.state_dict() for model in models]
    mean = {name: torch.stack([state[name].float() for state in states]).mean(0) for name in states[0]}
    models[0].network.load_state_dict(mean)
    return Segmenter(models[0])


def paint(task: Task, groups: Mapping[str, Sequence[Path]], out: Path) -> None:
    """Every group's painting of val/ into ``out/NAME``; each network looks at an image once."""
    models = {path: Segmenter.load(path) for paths in groups.values() for path in paths}
    for pair in task.val:
        said = {path: model.paint(pair.image, probabilities=True).probabilities for path, model in models.items()}
        for name, paths in groups.items():
            keep(out / name, pair, np.mean([said[path] for path in paths], axis=0).argmax(0).astype(np.uint8))


def keep(folder: Path, pair: Pair, labels: NDArray[np.uint8]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    Image.fromarray(labels).save(folder / f"{pair.image.stem}.png")


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
        work = {name: len(paths) for name, paths in groups.items()}
        for name, paths in groups.items():
            if name.endswith(" and 5 min"):
                mixed = f"{name}, mean of weights"
                model, work = mean_of_weights(paths), work | {mixed: 1}
                for pair in task.val:
                    keep(out / mixed, pair, model.predict(pair.image))
        for name, times in work.items():
            each = pooled_iou(task, out / name)
            rows.append([place, name, times, number(mean_of(each)), ", ".join(map(number, each or []))])
    print(f"\n{header()}\n")
    print(table(["data", "networks", "work", "mean IoU", "IoU per class"], rows))


if __name__ == "__main__":
    main()
