"""Windows against gradients over a zoo of networks, and how long `field` takes.

    python bench/field_zoo.py
    python bench/field_zoo.py --quick

Where a gradient of the output is not zero must lie inside the window that `field` gives. The networks are those of
``tests/field/zoo_nets.py``.
"""

from __future__ import annotations

import argparse
import itertools
import random
import sys
import time
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "field"))

from proof import positive, support
from zoo_nets import ZOO, Specimen, UNet

from whatwhere.field import field


def measure(specimen: Specimen, count: int) -> tuple[int, int, int, float, bool]:
    """(units tried, inside, filling their window exactly, seconds for `field`, bounded)."""
    torch.manual_seed(0)
    module = positive(specimen.build())
    started = time.perf_counter()
    found = field(module, specimen.shape)
    seconds = time.perf_counter() - started
    image = torch.rand(1, *specimen.shape, dtype=torch.double) + 0.1
    grid, draw = found.grid("output"), random.Random(0)
    units = set(itertools.product(*[(0, n - 1) for n in grid.size]))
    while len(units) < min(count, torch.Size(grid.size).numel()):
        units.add(tuple(draw.randrange(n) for n in grid.size))
    tried = inside = touching = 0
    for unit in sorted(units):
        real = support(module, image, tuple(axis for axis in grid.axes if axis is not None), unit)
        window = found.receptive_field("output", unit)
        if real is None:  # reads padding only
            continue
        tried += 1
        inside += all(low <= start and stop <= high for (start, stop), (low, high) in zip(real, window))
        touching += real == window
    return tried, inside, touching, seconds, found.bounded


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--units", type=int, default=40, help="of the output, tried in each network")
    parser.add_argument("--quick", action="store_true", help="few units, to see that it works")
    options = parser.parse_args()
    count = 8 if options.quick else options.units
    print(f"{'network':28} {'units':>6} {'inside':>7} {'all sides':>9} {'field, s':>9}  receptive field")
    totals = [0, 0, 0]
    for specimen in ZOO:
        tried, inside, touching, seconds, bounded = measure(specimen, count)
        totals = [total + n for total, n in zip(totals, (tried, inside, touching))]
        words = "bounded" if bounded else "unbounded"
        print(f"{specimen.name:28} {tried:6} {inside / tried:7.0%} {touching / tried:9.0%} {seconds:9.2f}  {words}")
    print(f"{'all':28} {totals[0]:6} {totals[1] / totals[0]:7.2%} {totals[2] / totals[0]:9.2%}")
    module = UNet(width=64, depth=4, channels=3)
    size = sum(parameter.numel() for parameter in module.parameters())
    started = time.perf_counter()
    halo = field(module, (3, 512, 512)).halo()
    print(f"U-Net of {size / 1e6:.1f}M parameters: field and halo {halo} in {time.perf_counter() - started:.2f} s")


if __name__ == "__main__":
    main()
