"""Real data, end to end by the command line: train within a time, then evaluate on the validation images.

    python bench/real_data.py [cats isbi_membrane camvid] [--data ../shared/data] [--out bench/out/real]
    python bench/real_data.py camvid --epochs 3 --out bench/out/real-without --skips none

Prints a row per data set: what was asked for, what was reached, and how; the models stay in the run folders. Options
that are not its own go to ``whatwhere train``; ``--epochs`` takes the place of a time, so that two runs make equally
many steps whatever else the machine does.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

TIMES = {"cats": "10m", "isbi_membrane": "5m", "camvid": "30m"}


def run(data: Path, out: Path, budget: Sequence[str], options: Sequence[str] = ()) -> dict[str, Any]:
    """Trains, with ``options``, and evaluates in processes of their own, as a person would."""
    shutil.rmtree(out, ignore_errors=True)
    command = [sys.executable, "-m", "whatwhere"]
    subprocess.run([*command, "train", data, "-o", out, *budget, "-q", *options], check=True)
    scores = out / "scores.json"
    subprocess.run(
        [*command, "evaluate", out, data, "--split", "val", "--json", scores, "--picture", out / "worst.png", "-q"],
        check=True,
    )
    return {"run": json.loads((out / "run.json").read_text()), "scores": json.loads(scores.read_text())}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("sets", nargs="*", default=list(TIMES))
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--out", type=Path, default=Path("bench/out/real"))
    parser.add_argument("--time", help="instead of the usual time of each")
    parser.add_argument("--epochs", help="instead of a time")
    parser.add_argument("--quick", action="store_true", help="40 s on one set, to see that it works")
    options, rest = parser.parse_known_args()
    if not options.data.is_dir():
        print(f"skipped: there is no {options.data}; give the folder of the data sets with --data")
        return
    sets, time = (["isbi_membrane"], "40s") if options.quick else (options.sets, options.time)
    budgets = {
        name: ("--epochs", options.epochs) if options.epochs else ("--time", time or TIMES[name]) for name in sets
    }
    rows = {name: run(options.data / name, options.out / name, budgets[name], rest) for name in sets}
    print("| data | asked | wall s | mean IoU [95 %] | IoU per class | steps | images/s | waiting | peak GiB |")
    print("|---|---|---|---|---|---|---|---|---|")
    for name, row in rows.items():
        record, scores = row["run"], row["scores"]["scores"]
        mean = "{value:.3f} [{low:.3f}, {high:.3f}]".format(**scores["mean_iou"])
        classes = ", ".join(
            f"{name.removeprefix('iou/')} {score['value']:.3f}"
            for name, score in scores.items() if name.startswith("iou/") and score["value"] is not None
        )  # fmt: skip
        asked = " ".join(budgets[name]).removeprefix("--")
        print(
            f"| {name} | {asked} | {record['seconds']:.0f} | {mean} | {classes} | "
            f"{record['steps']} | {record['images_per_second']:.1f} | {record['waiting_share']:.1%} | "
            f"{record['peak_memory'] / 2**30:.1f} |"
        )
    print(f"\n{next(iter(rows.values()))['run']['machine']}; {next(iter(rows.values()))['run']['versions']}")


if __name__ == "__main__":
    main()
