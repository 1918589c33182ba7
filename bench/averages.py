"""Which mean of the weights: several followed beside each other in one run, so that nothing else differs.

    python bench/averages.py camvid --time 5m
    python bench/averages.py isbi_membrane --time 4m --seeds 0 1 2
    python bench/averages.py --quick

The run is whatwhere's own by its own plan. Beside the mean that it keeps, whose reach falls with the learning rate, one
follows that goes back as far to the end. Both, and the last weights alone, are scored on val/: those of the moment in
which the rate begins to fall, and those at the end.
"""

from __future__ import annotations

import argparse
import copy
import shutil
from pathlib import Path
from typing import Any

from torch import nn

import whatwhere.learn.train as train
from common import header, table
from whatwhere import verbs
from whatwhere.learn.average import Average
from whatwhere.learn.run_folder import RunFolder
from whatwhere.network import load_model

HERE = Path(__file__).resolve().parent
FALLING, END = "as the rate begins to fall", "at the end"


class Beside(Average):
    """The mean of a run, one that lags beside it, and the last weights."""

    made: Beside
    """The one of the run in this process."""

    def __init__(self, network: nn.Module, decay: float) -> None:
        super().__init__(network, decay)
        Beside.made = self
        self.lagging = Average(network, decay)
        self.weights: dict[str, dict[str, Any]] = {}

    def follow(self, network: nn.Module, step: int, cooled: float = 1.0) -> None:
        if step == 0:  # by now weights from elsewhere are there
            self.lagging.network.load_state_dict(self.network.state_dict())
        super().follow(network, step, cooled)
        self.lagging.follow(network, step)
        networks = {"lags": self.lagging.network, "follows the rate": self.network, "no mean": network}
        if cooled < 1 and FALLING not in self.weights:
            self.weights[FALLING] = {name: copy.deepcopy(one.state_dict()) for name, one in networks.items()}
        self.weights[END] = {name: one.state_dict() for name, one in networks.items()}


def scores(data: Path, time: str, seed: int, out: Path) -> tuple[int, dict[str, dict[str, float]]]:
    """Steps of a run, and mean IoU on val/ by moment and mean."""
    folder = RunFolder(out / f"{data.name}-{time}-{seed}")
    shutil.rmtree(folder.root, ignore_errors=True)
    train.Average = Beside  # type: ignore[misc]
    record = verbs.train(data, folder.root, plan=verbs.plan(data, time=time, seed=seed))
    model = load_model(folder.last)
    found: dict[str, dict[str, float]] = {}
    for moment, means in Beside.made.weights.items():
        for name, weights in means.items():
            model.network.load_state_dict(weights)
            found.setdefault(moment, {})[name] = verbs.evaluate(model, data, split="val").mean_iou
    return record.steps, found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("sets", nargs="*", default=["isbi_membrane"])
    parser.add_argument("--data", type=Path, default=Path("../shared/data"), help="the folder of the data sets")
    parser.add_argument("--time", default="4m", help="of each run")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--out", type=Path, default=HERE / "out" / "averages")
    parser.add_argument("--quick", action="store_true", help="one short run, to see that it works")
    options = parser.parse_args()
    if not options.data.is_dir():
        print(f"skipped: there is no {options.data}; give the folder of the data sets with --data")
        return
    if options.quick:
        options.time = "20s"
    rows: list[list[object]] = []
    for place in options.sets:
        for seed in options.seeds:
            steps, found = scores(options.data / place, options.time, seed, options.out)
            for moment, means in found.items():
                rows.append([place, seed, steps, moment, *(f"{mean:.4f}" for mean in means.values())])
                columns = ["data", "seed", "steps", "", *means]
    print(f"{header()}; {options.time} a run\n")
    print(table(columns, rows))


if __name__ == "__main__":
    main()
