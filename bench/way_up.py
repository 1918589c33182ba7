"""A transposed convolution's bias in training on a CPU: whatwhere's way up against torch's own, and whole steps.

python bench/way_up.py
python bench/way_up.py --quick
"""

from __future__ import annotations

import argparse
from collections.abc import Callable

import torch
from torch import Tensor

from common import header, interleaved, table
from whatwhere.learn.plan import TrainingPlan
from whatwhere.learn.step import make_optimizer, train_step
from whatwhere.network import UNet, keep_freed_memory, probe_machine
from whatwhere.network.blocks import Up

SHAPES = ((64, 32, 128), (128, 64, 64), (32, 16, 128))
"""Channels below and here, and the side below, of batches of 8."""


def plainly(up: Up, x: Tensor) -> Tensor:
    """As ``nn.Sequential`` does it: the bias is the convolution's."""
    for layer in up:
        x = layer(x)
    return x


def both(run: Callable[[], object], rounds: int) -> list[float]:
    """Milliseconds with torch's own way and with ours, in turns."""
    ours = Up.forward

    def under(way: Callable[[Up, Tensor], Tensor]) -> None:
        Up.forward = way  # type: ignore[method-assign]
        run()

    seconds = interleaved({"torch": lambda: under(plainly), "ours": lambda: under(ours)}, rounds)
    Up.forward = ours  # type: ignore[method-assign]
    return [1000 * value for value in seconds.values()]


def way(below: int, here: int, side: int) -> Callable[[], object]:
    machine = probe_machine()
    up = Up("transpose", below, here).to(machine.dtype).train()
    x = torch.randn(8, below, side, side, dtype=machine.dtype).contiguous(memory_format=torch.channels_last)
    given = torch.randn(8, here, 2 * side, 2 * side, dtype=machine.dtype).contiguous(memory_format=torch.channels_last)
    return lambda: up(x.requires_grad_()).backward(given)


def step(width: int, side: int) -> Callable[[], object]:
    network = UNet(3, 2, width=width, depth=4).to(memory_format=torch.channels_last).train()
    optimizer, machine = make_optimizer(network, TrainingPlan(epochs=1)), probe_machine()
    images, target = torch.randn(8, 3, side, side), torch.randint(0, 2, (8, side, side), dtype=torch.uint8)
    return lambda: train_step(network, optimizer, images, target, machine=machine)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--quick", action="store_true", help="few and small, to see that it works")
    options = parser.parse_args()
    keep_freed_memory()
    rounds, side = (3, 64) if options.quick else (options.rounds, 256)
    work = {f"way up, {a} to {b} channels, {n}x{n}": way(a, b, n) for a, b, n in SHAPES}
    work |= {f"a step of width {width}, {side}x{side}": step(width, side) for width in (16, 32)}
    rows = []
    for name, run in work.items():
        theirs, ours = both(run, rounds)
        rows.append([name, theirs, ours, theirs / ours])
    print(f"{header()}; batches of 8, medians of {rounds}\n")
    print(table(["forward and backward", "torch's own, ms", "whatwhere, ms", "times"], rows))


if __name__ == "__main__":
    main()
