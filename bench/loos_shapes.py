"""How much receptive field a task needs: filled shapes almost none, outlined ones as much as the shape.

    python bench/loos_shapes.py               # about 10 minutes on 2 cores
    python bench/loos_shapes.py --quick       # does it run?

After Loos et al. 2024 (doi 10.1117/1.JMI.11.5.054004): the same shape is to be painted whole, once where it is filled
with its own grey and once where only its contour is drawn. Networks differ in their window alone: six 3x3 convolutions
at full resolution, dilated more or less. Beside it: the depth that the plan advises for images of such shapes, and why.
"""

from __future__ import annotations

import argparse
import json
from itertools import product
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from common import header, table
from whatwhere.data.arrays import write_arrays
from whatwhere.field import field
from whatwhere.network import UNet
from whatwhere.verbs import plan
from whatwhere.writing import write_json

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


def advised(side: int, filled: bool) -> tuple[int, int, str]:
    """Depth, window and reason of the plan that `whatwhere plan` makes for images of such shapes."""
    rng = np.random.default_rng(0)
    pairs = [shape(rng, side, filled) for _ in range(24)]
    images = [np.clip(image * 60 + 100, 0, 255).astype(np.uint8) for image, _ in pairs]
    with TemporaryDirectory() as folder:
        made = plan(write_arrays(images, [truth.astype(np.uint8) for _, truth in pairs], Path(folder) / "data"))
    reach = field(UNet(1, 2, width=2, depth=made.network.depth), (1, SIZE, SIZE)).reach("output")
    assert reach is not None
    return made.network.depth, reach[0][0] + 1 + reach[0][1], made.reasons["network.depth"]


def measured(args: argparse.Namespace) -> dict[str, list[float]]:
    """Window in fact and Dice by ``"side window filled seed"``; what is in the file already is not trained again."""
    found: dict[str, list[float]] = json.loads(args.out.read_text()) if args.out.is_file() else {}
    for side, window, filled, seed in product(args.sides, args.windows, (True, False), range(args.seeds)):
        key = f"{side} {window} {'filled' if filled else 'contour'} {seed} {args.steps}"
        if key not in found:
            found[key] = list(trained_dice(window, side, filled, args.steps, seed))
            write_json(args.out, found)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sides", type=int, nargs="+", default=[16, 32, 48])
    parser.add_argument("--windows", type=int, nargs="+", default=[13, 21, 33, 49, 73])
    parser.add_argument("--steps", type=int, default=250)
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--out", type=Path, default=Path("bench/out/loos_shapes.json"))
    parser.add_argument("--quick", action="store_true", help="two windows, hardly trained")
    args = parser.parse_args()
    if args.quick:
        args.sides, args.windows, args.steps = [16], [13, 33], 5
    print(header())
    found, rows = measured(args), []
    for side, window in product(args.sides, args.windows):
        cells = {
            kind: [found[f"{side} {window} {kind} {seed} {args.steps}"] for seed in range(args.seeds)]
            for kind in ("filled", "contour")
        }
        seen = int(cells["filled"][0][0])
        dices = [float(np.mean([dice for _, dice in of])) for of in cells.values()]
        rows.append([side, seen, seen / side, *dices])
    print(table(["shape, px", "window, px", "window / shape", "Dice, filled", "Dice, contour only"], rows))
    for side in args.sides:
        _say_whether(side, [row for row in rows if row[0] == side])


def _say_whether(side: int, rows: list[list[float]]) -> None:
    """The two claims for shapes of one size, and whether the plan's advice agrees with them."""
    narrow, wide = rows[0], rows[-1]
    filled, contour = advised(side, True), advised(side, False)
    claims = {
        f"filled: {narrow[1]} px lose less than 0.05 Dice against {wide[1]} px": wide[3] - narrow[3] < 0.05,
        f"the plan's depth {filled[0]} for filled ones is the shallowest": filled[0] == 2,
        f"the plan's depth {contour[0]} for outlines sees {contour[1]} px, more than the shape": contour[1] >= side,
    }
    if narrow[1] < 0.6 * side:  # else even the narrowest sees most of the shape
        claims[f"contour only: {narrow[1]} px lose more than 0.1 against {wide[1]} px"] = wide[4] - narrow[4] > 0.1
    print(f"\nshapes of {side} px")
    for claim, holds in claims.items():
        print("yes " if holds else "NO  ", claim)
    print(f"     filled:  {filled[2]}\n     outline: {contour[2]}")


if __name__ == "__main__":
    main()
