"""Score against weights: does a small network do as well? U-Nets of several sizes, one budget, one scorer.

Galdran et al. 2022 (doi 10.1038/s41598-022-09675-y) found that 68,000 weights match large networks on retinal vessels.
Here on membranes: whatwhere's own plan for the data and time, with another width and depth in it; in equal time a small
network sees more crops. The weights at the end are scored on val/, not the best.

    python bench/score_against_weights.py                           # ISBI membranes, 4 minutes a run
    python bench/score_against_weights.py --seeds 0 1 2             # goes on where it stopped
    python bench/score_against_weights.py --sizes 8,3 8,4           # only these widths and depths
    python bench/score_against_weights.py --show                    # only the table and the plot, from what is there
    python bench/score_against_weights.py --quick
"""

from __future__ import annotations

import argparse
import json
import shutil
import statistics
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np

from common import RECORDS, header, recorded, remember, table
from peers.task import read_image, read_mask, read_task
from rand_score import v_rand
from whatwhere import verbs
from whatwhere.learn.run_folder import RunFolder
from whatwhere.segmenter import Segmenter

HERE = Path(__file__).resolve().parent
SIZES = ((4, 3), (6, 3), (8, 3), (8, 4), (16, 3), (16, 4), (32, 4))
"""Width and depth; from 30 thousand to 8 million weights."""
MEMBRANE = 1


def work(data: Path, time: str, width: int, depth: int, seed: int, folder: RunFolder) -> dict[str, Any]:
    """One run in this process, scored."""
    plan = verbs.plan(data, time=time, seed=seed)
    chosen = (plan.network.width, plan.network.depth) == (width, depth)
    network = replace(plan.network, width=width, depth=depth, skips=tuple(range(depth)))
    record = verbs.train(data, folder.root, plan=replace(plan, network=network))
    model = Segmenter.load(folder.last)
    found, rands = np.zeros(2, int), []
    for pair in read_task(data).val:
        truth = read_mask(pair.mask) == MEMBRANE
        painted = model.predict(read_image(pair.image)) == MEMBRANE
        found += (int((truth & painted).sum()), int((truth | painted).sum()))
        rands.append(v_rand(truth, painted))
    weights = sum(p.numel() for p in model.model.network.parameters())
    return {
        "weights": weights, "iou": float(found[0] / found[1]), "v_rand": statistics.fmean(rands), "steps": record.steps,
        "planned": chosen,
    }  # fmt: skip


def make(options: argparse.Namespace) -> None:
    """The runs that the record lacks, each in a process of its own; all sizes of a seed before the next seed."""
    for seed in options.seeds:
        for width, depth in options.sizes:
            key = {"set": options.data.name, "time": options.time, "width": width, "depth": depth, "seed": seed}
            if any(key.items() <= line.items() for line in recorded(options.record)):
                continue
            shape = f"{width} {depth} {seed}"
            command = [sys.executable, __file__, "--worker", *shape.split(), f"--data={options.data}"]
            command += [f"--time={options.time}", f"--out={options.out}"]
            done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
            made = json.loads(done.stdout.splitlines()[-1])
            remember(options.record, key | made)
            print(
                f"width {width}, depth {depth}, seed {seed}: IoU {made['iou']:.3f}, {made['steps']} steps", flush=True
            )


def report(lines: Sequence[dict[str, Any]], picture: Path) -> None:
    """A row a size, the mean of its seeds with its ends; and the plot."""
    rows = []
    sizes = sorted({(line["weights"], line["width"], line["depth"]) for line in lines})
    for weights, width, depth in sizes:
        runs = [line for line in lines if line["weights"] == weights]
        told = ", the plan's choice" if any(line["planned"] for line in runs) else ""
        steps = round(statistics.fmean(line["steps"] for line in runs))
        scores = [spread([line[score] for line in runs]) for score in ("iou", "v_rand")]
        rows.append([f"{weights:,}", f"{width} wide, {depth} downs{told}", *scores, len(runs), steps])
    print(table(["weights", "network", "membrane IoU", "V_Rand", "seeds", "steps"], rows))
    figure, panel = plt.subplots(figsize=(5, 3.4))
    for score, label in (("iou", "membrane IoU"), ("v_rand", "V_Rand")):
        means = [statistics.fmean(line[score] for line in lines if line["weights"] == size[0]) for size in sizes]
        panel.plot([size[0] for size in sizes], means, "-", alpha=0.6)
        color = panel.lines[-1].get_color()
        panel.plot([line["weights"] for line in lines], [line[score] for line in lines], "o", color=color, label=label)
    panel.set(xscale="log", xlabel="weights of the network", ylabel="score on val/", title="ISBI membranes, equal time")
    panel.grid(alpha=0.3)
    panel.legend(frameon=False)
    figure.tight_layout()
    figure.savefig(picture, dpi=150)
    print(f"\n{picture}")


def spread(values: Sequence[float]) -> str:
    ends = f" ({min(values):.3f} to {max(values):.3f})" if len(values) > 1 else ""
    return f"{statistics.fmean(values):.3f}{ends}"


def size(text: str) -> tuple[int, int]:
    width, depth = map(int, text.split(","))
    return width, depth


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=Path("../shared/data/isbi_membrane"))
    parser.add_argument("--time", default="4m", help="of each run")
    parser.add_argument("--sizes", nargs="+", default=SIZES, type=size, metavar="WIDTH,DEPTH", help="only these")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--out", type=Path, default=HERE / "out" / "score_against_weights")
    parser.add_argument("--record", type=Path, default=RECORDS / "score_against_weights.jsonl")
    parser.add_argument("--picture", type=Path, default=HERE / "score_against_weights.png")
    parser.add_argument("--show", action="store_true", help="no runs: only the table and the plot")
    parser.add_argument("--quick", action="store_true", help="two short runs, to see that it works")
    parser.add_argument("--worker", type=int, nargs=3, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.worker:
        width, depth, seed = options.worker
        folder = RunFolder(options.out / f"{options.time}-{width}-{depth}-{seed}")
        shutil.rmtree(folder.root, ignore_errors=True)  # of a run that was cut off
        print(json.dumps(work(options.data, options.time, width, depth, seed, folder)))
        return
    if not options.data.is_dir():
        print(f"skipped: there is no {options.data}; give the data folder with --data")
        return
    if options.quick:
        options.out, options.time, options.sizes = options.out / "quick", "20s", SIZES[:2]
        options.record, options.picture = options.out / "record.jsonl", options.out / "picture.png"
        shutil.rmtree(options.out, ignore_errors=True)
    if not options.show:
        make(options)
    lines = [line for line in recorded(options.record) if line["time"] == options.time]
    if lines:
        print(f"{header()}; {options.time} a run\n")
        report(lines, options.picture)


if __name__ == "__main__":
    main()
