"""Training throughput: whatwhere's whole step against the same layers in plain float32 channels-first PyTorch.

Ours is everything a run does: crops drawn and augmented from images, forward, loss, backward, update, moving average.
The peer gets ready tensors and does forward, cross-entropy, backward, AdamW, as installed. Each lives in a process of
its own (the allocator is set for a whole process) and they take turns.

    python bench/train_throughput.py [--rounds 5] [--width 32] [--depth 4] [--size 256] [--batch 8]
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import time

import torch
from torch.nn import functional as F


def ours(width: int, depth: int, size: int, batch: int):
    """A step of a whatwhere run, as a function."""
    from common import our_step
    from whatwhere.network import UNet

    return our_step(UNet(3, 2, width=width, depth=depth), size, batch)


def plain(width: int, depth: int, size: int, batch: int):
    """The same layers, float32, channels first, PyTorch as installed."""
    from whatwhere.network import UNet

    network = UNet(3, 2, width=width, depth=depth).train()
    optimizer = torch.optim.AdamW(network.parameters(), 1e-3)
    pictures = torch.randn(batch, 3, size, size)
    target = torch.randint(0, 2, (batch, size, size))

    def step() -> None:
        optimizer.zero_grad()
        F.cross_entropy(network(pictures), target).backward()
        optimizer.step()

    return step


def work(which: str, shape: tuple[int, int, int, int]) -> None:
    """A worker: makes three steps whenever it is told to, and says how long each took."""
    step = {"ours": ours, "plain": plain}[which](*shape)
    for _ in range(2):
        step()
    print("ready", flush=True)
    for _ in sys.stdin:
        began = time.perf_counter()
        for _ in range(3):
            step()
        print((time.perf_counter() - began) / 3, flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--width", type=int, default=32, help="channels at level 0")
    parser.add_argument("--depth", type=int, default=4, help="poolings")
    parser.add_argument("--size", type=int, default=256, help="height and width of the crops")
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--quick", action="store_true", help="small, to see that it works")
    parser.add_argument("--worker", choices=["ours", "plain"], help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.quick:
        options.rounds, options.size, options.batch, options.width = 2, 64, 2, 8
    shape = (options.width, options.depth, options.size, options.batch)
    if options.worker:
        work(options.worker, shape)
        return
    arguments = [f"--{n}={v}" for n, v in zip(("width", "depth", "size", "batch"), shape)]
    workers = {
        name: subprocess.Popen(
            [sys.executable, __file__, "--worker", name, *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for name in ("plain", "ours")
    }
    for worker in workers.values():
        assert worker.stdout is not None
        assert worker.stdout.readline().strip() == "ready"
    times: dict[str, list[float]] = {name: [] for name in workers}
    for _ in range(options.rounds):
        for name, worker in workers.items():
            assert worker.stdin is not None
            assert worker.stdout is not None
            worker.stdin.write("go\n")
            worker.stdin.flush()
            times[name].append(float(worker.stdout.readline()))
    for worker in workers.values():
        worker.communicate()
    report(times, options)


def report(times: dict[str, list[float]], options: argparse.Namespace) -> None:
    from whatwhere.network import probe_machine

    print(f"{probe_machine()}; torch {torch.__version__}")
    print(f"U-Net base {options.width}, {options.depth} downs, {options.size}x{options.size}, batch {options.batch}")
    print("| loop | images/s, median | lowest | highest | rounds |\n|---|---|---|---|---|")
    for name, seconds in times.items():
        rates = sorted(options.batch / value for value in seconds)
        print(f"| {name} | {statistics.median(rates):.2f} | {rates[0]:.2f} | {rates[-1]:.2f} | {len(rates)} |")
    ratios = sorted(p / o for p, o in zip(times["plain"], times["ours"]))
    print(f"\nratio, round by round: median {statistics.median(ratios):.2f} ({ratios[0]:.2f} to {ratios[-1]:.2f})")


if __name__ == "__main__":
    main()
