"""int8 beside float32 and bfloat16: how fast, and what it costs in mean IoU, on trained models.

For each RUN that is given with its data: a copy of the model is quantised as `whatwhere quantise` does it, which paints
the validation images and gives mean IoU before and after; then every way to run the network takes turns on one 512x512
image. Times are of the network alone, in one process whose memory is kept between calls, for plain PyTorch too.

    python bench/int8.py RUN --data DATA [RUN --data DATA ...] [--rounds 7] [--size 512]
    python bench/int8.py --quick        # a random network and images of noise, to see that it works
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from common import header, model_of, rows, table, unet
from whatwhere.chosen import truth_of
from whatwhere.data.sets import ImageSet, from_arrays
from whatwhere.network import Model, load_model, probe_machine, save_model
from whatwhere.paint import Engine
from whatwhere.paint.backends import BACKENDS, Job
from whatwhere.paint.kept import Int8, int8_files, provisional
from whatwhere.paint.quantise import quantise

PASSES = 3
"""Passes a turn."""

FLOAT = ("eager", "openvino", "onnx")


@dataclass(frozen=True)
class Case:
    """A model in a file of its own, and the images that it is quantised by and checked on."""

    name: str
    model: Model
    train: ImageSet
    val: ImageSet


def peers_of(model: Model, made: Path, content: str) -> dict[str, Callable[[Tensor], Tensor]]:
    """Every way to run the network that is installed, ready: float32, the machine's precision, int8."""
    job = Engine(replace(model, source=None), "float32", "cpu", backend="eager").job
    precisions = dict.fromkeys(("float32", probe_machine("cpu").precision))
    found: dict[str, Callable[[Tensor], Tensor]] = {"plain float32": model.network}
    for backend in (backend for backend in BACKENDS if backend.name in FLOAT and not backend.lacks("cpu")):
        for precision in (precision for precision in precisions if precision in backend.precisions):
            try:
                run = backend.prepare(Job(job.network, job.example, precision, job.device))
            except NotImplementedError as error:
                print(f"{backend.name} {precision} can't run: {error}")
                continue
            found[f"{backend.name} {precision}"] = run
    for backend in provisional(made, content):
        if not backend.lacks("cpu"):
            found[backend.name] = backend.prepare(job)
    return found


def in_turn(peers: dict[str, Callable[[Tensor], Tensor]], batch: Tensor, rounds: int) -> dict[str, list[float]]:
    """Seconds a pass of each peer, a value a round."""
    seconds: dict[str, list[float]] = {name: [] for name in peers}
    with torch.inference_mode():
        for run in peers.values():
            run(batch)
        for _ in range(rounds):
            for name, run in peers.items():
                start = time.perf_counter()
                for _ in range(PASSES):
                    run(batch)
                seconds[name].append((time.perf_counter() - start) / PASSES)
    return seconds


def measure(case: Case, rounds: int, size: int) -> None:
    made = quantise(case.model, case.train, case.val)
    print(f"\n## {case.name}\n\n```\n{made}\n```\n")
    assert case.model.source is not None
    network = int8_files(case.model.source)[0]
    if made.path is None:
        return
    image = _image(case, size)
    times = in_turn(peers_of(case.model, network, made.content), image, rounds)
    # the machine's own best in float is what a user would have without int8
    floats = [name for name in times if not name.startswith("int8")]
    best = min(floats, key=lambda name: statistics.median(times[name]))
    lines = [line_of(name, values, times[best], made) for name, values in times.items()]
    height, width = image.shape[-2:]
    print(f"{height}x{width}, {rounds} rounds of {PASSES} passes in turn; best float: {best}; mean IoU on "
          f"{made.images} images, before {made.before.mean_iou:.4f}\n")  # fmt: skip
    print(
        table(["backend", "ms", "times best float", "lowest to highest", "mean IoU", "falls by", "labels alike"], lines)
    )


def line_of(name: str, values: list[float], best: list[float], made: Int8) -> list[object]:
    ratios = sorted(b / v for b, v in zip(best, values))
    line: list[object] = [
        name, statistics.median(values) * 1000, f"{statistics.median(ratios):.2f}",
        f"{ratios[0]:.2f} to {ratios[-1]:.2f}",
    ]  # fmt: skip
    way = next((way for way in made.ways if way.how == name), None)
    if way is None:
        return [*line, "", "", ""]
    return [*line, f"{way.mean_iou:.4f}", f"{made.fall(way):+.4f}", f"{way.alike:.2%}"]


def _image(case: Case, size: int) -> Tensor:
    """Network input ``(1, C, size, size)``: the first validation image, repeated or cut."""
    raw, _ = case.val.store[0]
    repeats = [-(-size // n) for n in raw.shape[:2]]
    return case.model.normalise(np.tile(raw, (*repeats, 1))[:size, :size])[None]


def trained(run: str, data: str, folder: Path) -> Case:
    given = load_model(run)
    path = save_model(given, folder / f"{Path(run).stem}-{Path(data).name}.safetensors")
    model = load_model(path)
    return Case(f"{run} on {data}", model, truth_of(model, data, "train"), truth_of(model, data, "val"))


def random(folder: Path) -> Case:
    """Two classes at random: nothing that scores mean anything on, but every step is taken."""
    path = save_model(model_of(unet(8, 2)), folder / "random.safetensors")
    model = load_model(path)
    images = [rows(96).permute(1, 2, 0).numpy() for _ in range(3)]
    with torch.inference_mode():
        labels = [model.network(model.normalise(image)[None])[0].argmax(0).numpy().astype(np.uint8) for image in images]
    sets = from_arrays(images, labels, ["a", "b", "c"])
    return Case("a random network", model, sets, sets)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", nargs="*", help="run folders or model files")
    parser.add_argument("--data", action="append", default=[], help="the data of each run, in the same order")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--size", type=int, default=512, help="height and width of the image")
    parser.add_argument("--quick", action="store_true", help="small, to see that it works")
    options = parser.parse_intermixed_args()
    if len(options.runs) != len(options.data) or not (options.runs or options.quick):
        parser.error("a --data for each RUN, and one RUN at least (or --quick)")
    print(header("onnx", "onnxruntime", "openvino"))
    with tempfile.TemporaryDirectory(prefix="whatwhere-int8-") as folder:
        if options.quick:
            measure(random(Path(folder)), 2, 128)
        for run, data in zip(options.runs, options.data):
            measure(trained(run, data, Path(folder)), options.rounds, options.size)


if __name__ == "__main__":
    main()
