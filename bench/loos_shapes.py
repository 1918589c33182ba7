"""How much receptive field a task needs: filled shapes almost none, outlined ones as much as the shape.

    python bench/loos_shapes.py               # about 10 minutes on 2 cores
    python bench/loos_shapes.py --steps 20 --sides 16 --windows 8 32   # does it run?

After Loos et al. 2024 (doi 10.1117/1.JMI.11.5.054004): the same shape is to be painted whole, once where it is filled
with its own grey and once where only its contour is drawn. Networks differ in their window alone: six 3x3 convolutions
at full resolution, dilated more or less. Beside it: the window of the depth that the plan's rule advises for objects of
this size.
"""

from __future__ import annotations

import argparse

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from common import header, table
from whatwhere.field import field
from whatwhere.network import UNet

SIZE = 96


def shape(rng: np.random.Generator, side: int, filled: bool) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """A square or disc of about ``side`` px on noise, filled or as a line 2 px wide; the truth is the whole shape."""
    rows, columns = np.indices((SIZE, SIZE))
    half = side / 2 * rng.uniform(0.85, 1.0)
    row, column = rng.uniform(half + 1, SIZE - half - 1, 2)
    down, across = np.abs(rows - row), np.abs(columns - column)
    away = np.maximum(down, across) if rng.random() < 0.5 else np.hypot(down, across)
    inside = away <= half
    drawn = inside if filled else inside & (away > half - 2)
    image = rng.normal(0, 0.3, (SIZE, SIZE)) + drawn
    return image.astype(np.float32), inside.astype(np.int64)


def network(window: int, width: int = 16, layers: int = 6) -> nn.Sequential:
    """``layers`` 3x3 convolutions, dilated so that the window comes to about ``window`` px; all have equal cost."""
    reach = max(layers, window // 2)
    weights = np.array([2.0 ** min(i, layers - 1 - i + 1) for i in range(layers)])
    dilations = np.maximum(1, np.floor(weights / weights.sum() * reach)).astype(int)
    modules: list[nn.Module] = []
    channels = 1
    for dilation in dilations.tolist():
        modules += [nn.Conv2d(channels, width, 3, padding=dilation, dilation=dilation, bias=False)]
        modules += [nn.BatchNorm2d(width), nn.ReLU()]
        channels = width
    return nn.Sequential(*modules, nn.Conv2d(width, 2, 1))


def batch(rng: np.random.Generator, side: int, filled: bool, count: int) -> tuple[Tensor, Tensor]:
    pairs = [shape(rng, side, filled) for _ in range(count)]
    return torch.from_numpy(np.stack([i for i, _ in pairs]))[:, None], torch.from_numpy(np.stack([t for _, t in pairs]))


def trained_dice(window: int, side: int, filled: bool, steps: int, seed: int) -> tuple[int, float]:
    """The window in fact, and the Dice on new shapes."""
    torch.manual_seed(seed)
    net, rng = network(window), np.random.default_rng(seed)
    seen = field(net, (1, SIZE, SIZE)).reach("output")
    assert seen is not None
    optimizer = torch.optim.AdamW(net.parameters(), lr=3e-3)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    for _ in range(steps):
        images, truth = batch(rng, side, filled, 8)
        loss = F.cross_entropy(net(images), truth)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    net.eval()
    images, truth = batch(np.random.default_rng(10_000 + seed), side, filled, 40)
    with torch.inference_mode():
        painted = net(images).argmax(1)
    dice = 2 * float((painted & truth).sum()) / max(1.0, float(painted.sum() + truth.sum()))
    return seen[0][0] + 1 + seen[0][1], dice


def advised(side: int) -> tuple[int, int]:
    """Depth and window of the shallowest plain U-Net that sees one and a half objects: the rule of the plan."""
    for depth in range(2, 7):
        reach = field(UNet(1, 2, width=2, depth=depth), (1, SIZE, SIZE)).reach("output")
        assert reach is not None
        window = reach[0][0] + 1 + reach[0][1]
        if window >= 1.5 * side:
            break
    return depth, window


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sides", type=int, nargs="+", default=[16, 32, 48])
    parser.add_argument("--windows", type=int, nargs="+", default=[13, 21, 33, 49, 73])
    parser.add_argument("--steps", type=int, default=250)
    parser.add_argument("--seeds", type=int, default=1)
    args = parser.parse_args()
    print(header())
    rows: list[list[object]] = []
    for side in args.sides:
        for window in args.windows:
            dices = {}
            for filled in (True, False):
                found = [trained_dice(window, side, filled, args.steps, seed) for seed in range(args.seeds)]
                seen, dices[filled] = found[0][0], float(np.mean([dice for _, dice in found]))
            rows.append([side, seen, seen / side, dices[True], dices[False]])
    print(table(["shape, px", "window, px", "window / shape", "Dice, filled", "Dice, contour only"], rows))
    for side in args.sides:
        depth, window = advised(side)
        print(f"shapes of {side} px: the plan would take depth {depth}, which sees {window} px")


if __name__ == "__main__":
    main()
