"""Would torch.compile make training on a CPU faster? Whole steps, compiled and as they are, in turns.

python bench/compiled_step.py
python bench/compiled_step.py --quick
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable

import torch

from common import header, interleaved, table
from whatwhere.learn.plan import TrainingPlan
from whatwhere.learn.step import make_optimizer, train_step
from whatwhere.network import UNet, keep_freed_memory, probe_machine

NETWORKS = (("plain", 16, 4), ("plain", 32, 4), ("efficientnet-lite0", 16, 5))
"""Encoder, width and depth."""


def step(encoder: str, width: int, depth: int, side: int, *, compiled: bool) -> Callable[[], object]:
    torch.manual_seed(0)
    network = UNet(3, 5, width=width, depth=depth, encoder=encoder).to(memory_format=torch.channels_last).train()
    optimizer, machine = make_optimizer(network, TrainingPlan(epochs=1)), probe_machine()
    learner = torch.compile(network) if compiled else network
    images, target = torch.randn(8, 3, side, side), torch.randint(0, 5, (8, side, side), dtype=torch.uint8)
    return lambda: train_step(learner, optimizer, images, target, machine=machine)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--quick", action="store_true", help="one small network, to see that it works")
    options = parser.parse_args()
    keep_freed_memory()
    rounds, side, networks = (3, 64, (("plain", 4, 2),)) if options.quick else (options.rounds, 256, NETWORKS)
    rows = []
    for encoder, width, depth in networks:
        eager, compiled = (step(encoder, width, depth, side, compiled=how) for how in (False, True))
        began = time.perf_counter()
        compiled()
        start = time.perf_counter() - began
        seconds = interleaved({"eager": eager, "compiled": compiled}, rounds)
        rows.append([f"{encoder}, width {width}", *(1000 * s for s in seconds.values())])
        rows[-1] += [seconds["eager"] / seconds["compiled"], start]
    print(f"{header()}; batches of 8, {side}x{side}, medians of {rounds}\n")
    print(table(["network", "eager, ms", "compiled, ms", "times eager", "first step, s"], rows))


if __name__ == "__main__":
    main()
