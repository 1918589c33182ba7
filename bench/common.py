"""What all measurements share: the machine, the versions, timing in interleaved rounds, records, and a table to print.

Rounds are interleaved (a b c, a b c, ...) so that a machine that slows down does so for every peer, and medians are
taken over rounds. Nothing here knows what is measured.
"""

from __future__ import annotations

import datetime
import itertools
import json
import platform
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from whatwhere.data.augment import Augmentation
from whatwhere.data.crops import Crops, Store
from whatwhere.learn.average import Average
from whatwhere.learn.parallel import crop_threads
from whatwhere.learn.plan import TrainingPlan
from whatwhere.learn.recorded import recorder_for
from whatwhere.learn.step import make_optimizer, train_step
from whatwhere.network import Model, UNet, prepare_torch, probe_machine
from whatwhere.records import Classes, Normalisation

__all__ = [
    "RECORDS",
    "header",
    "interleaved",
    "model_of",
    "our_step",
    "random_crops",
    "recorded",
    "remember",
    "rows",
    "table",
    "unet",
]

RECORDS = Path(__file__).resolve().parent / "records"
"""Where runs that take hours are remembered, a JSON line each, so that they can be spread out and are never lost."""


def header(*packages: str) -> str:
    """The machine and the versions that a number is true for."""
    found = [f"Python {platform.python_version()}"]
    for package in ("torch", "numpy", *packages):
        try:
            found.append(f"{package} {version(package)}")
        except PackageNotFoundError:
            found.append(f"{package} not installed")
    return f"{probe_machine()}\n{torch.get_num_threads()} threads; {', '.join(found)}"


def interleaved(peers: Mapping[str, Callable[[], object]], rounds: int) -> dict[str, float]:
    """Median seconds of each peer over ``rounds`` interleaved rounds. The first one may be cold: let there be three."""
    seconds: dict[str, list[float]] = {name: [] for name in peers}
    for _ in range(rounds):
        for name, run in peers.items():
            start = time.perf_counter()
            run()
            seconds[name].append(time.perf_counter() - start)
    return {name: statistics.median(values) for name, values in seconds.items()}


def recorded(path: Path) -> list[dict[str, Any]]:
    """The runs of a record so far; a line that was cut off is dropped."""
    found = []
    for line in path.read_text(encoding="utf-8").splitlines() if path.is_file() else []:
        try:
            found.append(json.loads(line))
        except json.JSONDecodeError:
            print(f"{path}: a line is cut off and left out")
    return found


def remember(path: Path, run: Mapping[str, Any]) -> None:
    """Adds a finished run to a record, with the day and the machine."""
    path.parent.mkdir(parents=True, exist_ok=True)
    today = datetime.datetime.now(datetime.UTC).date().isoformat()
    with path.open("a", encoding="utf-8") as file:
        file.write(json.dumps({**run, "date": today, "machine": str(probe_machine())}) + "\n")


def table(columns: Sequence[str], lines: Sequence[Sequence[object]]) -> str:
    """A Markdown table, aligned to be read as plain text too.

    >>> print(table(["what", "s"], [["a", 1.5], ["bb", 22.25]]))
    | what |    s |
    |------|-----:|
    | a    |  1.5 |
    | bb   | 22.2 |
    """
    cells = [[_text(value) for value in line] for line in lines]
    widths = [max(len(column), *(len(line[i]) for line in cells)) for i, column in enumerate(columns)]
    right = [all(isinstance(line[i], int | float) for line in lines) for i in range(len(columns))]

    def row(parts: Sequence[str]) -> str:
        padded = (part.rjust(w) if r else part.ljust(w) for part, w, r in zip(parts, widths, right))
        return f"| {' | '.join(padded)} |"

    rule = "|".join("-" * (w + 1) + (":" if r else "-") for w, r in zip(widths, right))
    return "\n".join([row(columns), f"|{rule}|", *(row(line) for line in cells)])


def _text(value: object) -> str:
    return f"{value:.3g}" if isinstance(value, float) else f"{value}"


def rows(size: int) -> torch.Tensor:
    """A synthetic image ``(3, size, size)``, uint8: smooth shapes and noise, the same every time."""
    generator = torch.Generator().manual_seed(0)
    coarse = torch.rand(1, 3, size // 32 + 2, size // 32 + 2, generator=generator)
    smooth = nn.functional.interpolate(coarse, size=(size, size), mode="bilinear")[0]
    return ((0.7 * smooth + 0.3 * torch.rand(3, size, size, generator=generator)) * 255).to(torch.uint8)


def unet(width: int = 32, depth: int = 4, classes: int = 2) -> UNet:
    """A U-Net with random weights, whose norms have statistics and whose classes are balanced, as after training."""
    torch.manual_seed(0)
    network = UNet(3, classes, width=width, depth=depth)
    network.train()
    with torch.no_grad():
        for _ in range(8):
            network(torch.randn(2, 3, 16 * 2**depth, 16 * 2**depth))
        network.eval()
        picture = (rows(256).float()[None] - 127.5) / 64
        network.head.bias -= network(picture).mean(dim=(0, 2, 3))
    return network


def model_of(network: nn.Module, classes: int = 2) -> Model:
    colors = ((20, 20, 30), (242, 165, 65), (60, 140, 200))[:classes]
    record = Classes(tuple(f"class {i}" for i in range(classes)), colors, tuple((i,) for i in range(classes)))
    return Model(network, record, Normalisation((127.5,) * 3, (64.0,) * 3))


def random_crops(size: int, shape: tuple[int, int]) -> Crops:
    """Crops of ``size`` x ``size`` from 16 images of noise, two classes, varied as by default."""
    rng = np.random.default_rng(0)
    pictures = [rng.integers(0, 256, (*shape, 3), dtype=np.uint8) for _ in range(16)]
    masks = [rng.integers(0, 2, shape).astype(np.uint8) for _ in range(16)]
    store = Store([lambda i=i: (pictures[i], masks[i]) for i in range(16)], 2**30)
    constants = Normalisation((127.0,) * 3, (60.0,) * 3)
    return Crops(store, ((0, 1),) * 16, constants, size, Augmentation(), 0.33, seed=0)


def our_step(
    network: nn.Module, size: int, batch: int, device: str = "auto", *, compiled: bool = False, threads: int = 0
) -> Callable[[], object]:
    """Everything that a whatwhere run does in a step, crops of ``size`` drawn and varied among it, as a function."""
    prepare_torch()
    machine = probe_machine(device)
    gpu = machine.device.startswith("cuda")
    network = network.train().to(machine.device, memory_format=torch.channels_last)
    average, optimizer = Average(network, 0.99), make_optimizer(network, TrainingPlan(epochs=1))
    recorder = recorder_for(network, machine, 1)
    learner = torch.compile(network, dynamic=False) if compiled else network
    crops = random_crops(size, (size + 64, size + 64))
    workers = threads or crop_threads(machine)
    batches = crops.batches(batch, 0, workers=workers, device=machine.device if gpu else "cpu")
    numbers = itertools.count()

    def step() -> None:
        images, target = next(batches)
        train_step(learner, optimizer, images, target, machine=machine, recorder=recorder)
        average.follow(network, next(numbers))

    return step
