"""Prediction: every backend and every step of PyTorch's own path against plain PyTorch, as the popular packages run it.

Plain is the same network in float32, channels first, as installed: what MONAI, segmentation_models.pytorch and
Pytorch-UNet do by default. Each peer lives in a process of its own (the allocator is set for a whole process) and they
take turns. The practical peak is the best single bfloat16 convolution, measured in the same turns.

    python bench/predict_backends.py [--rounds 7] [--size 512] [--width 32] [--depth 4] [--peers plain packed openvino]
    python bench/predict_backends.py --model RUN     # a trained network; its int8 too, where `quantise` has kept it
    python bench/predict_backends.py --quick
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from common import header, model_of, rows, table, unet
from whatwhere.network import Model

PASSES = 3
"""Passes a turn."""

STEPS = ("plain", "allocator", "channels last", "folded", "bfloat16", "packed", "relu", "concatenation", "batch of 4")
"""PyTorch's own path, each with all before it; the last but one is whatwhere's eager, the last gives it four tiles."""

OTHERS = ("openvino", "onnx", "compile")
INT8 = "int8"
PEAK = "best convolution"


@dataclass(frozen=True)
class Work:
    """What a peer does once: ``run()``, worth so many multiply-adds, for so many images; how far it is from plain."""

    run: Callable[[], object]
    products: float
    images: int
    difference: float


def network_work(which: str, options: argparse.Namespace) -> Work:
    from whatwhere.network import cost, keep_freed_memory, load_model, probe_machine
    from whatwhere.paint.backends import BACKENDS, Job
    from whatwhere.paint.backends.eager import eager
    from whatwhere.paint.fold import folded
    from whatwhere.paint.fuse import Fusion

    model = load_model(options.model) if options.model else model_of(unet(options.width, options.depth))
    network = model.network
    batch = model.normalise(rows(options.size).permute(1, 2, 0).numpy())[None]
    with torch.inference_mode():
        reference = network(batch)
    products = float(cost(network, (3, options.size, options.size)).multiply_adds)
    if which == INT8:
        run = quantised(model, batch)
        return Work(lambda: run(batch), products, 1, difference_of(run, batch, reference))
    level = STEPS.index(which) if which in STEPS else len(STEPS)
    if level >= STEPS.index("allocator"):
        keep_freed_memory()
    batch = batch.repeat(4, 1, 1, 1) if which == "batch of 4" else batch
    job = Job(
        folded(network, batch[:1, :, :64, :64]), batch[:1, :, :64, :64], probe_machine().precision, torch.device("cpu")
    )
    if which in OTHERS:
        backend = next(backend for backend in BACKENDS if backend.name == which)
        precision = job.precision if job.precision in backend.precisions else "float32"
        run = backend.prepare(Job(job.network, job.example, precision, job.device))
    elif level >= STEPS.index("packed"):
        run = eager(
            job, Fusion(activation=level >= STEPS.index("relu"), concatenation=level >= STEPS.index("concatenation"))
        )
    elif level >= STEPS.index("bfloat16"):
        run = eager(job, Fusion(pack=False))
    elif level >= STEPS.index("folded"):
        run = plain(job.network, True)
    else:
        run = plain(network, level >= STEPS.index("channels last"))
    return Work(lambda: run(batch), products * len(batch), len(batch), difference_of(run, batch[:1], reference))


def quantised(model: Model, batch: Tensor) -> Callable[[Tensor], Tensor]:
    """The int8 file that lies beside the model, as `predict` runs it."""
    from whatwhere.paint import Engine

    engine = Engine(model, backend=INT8)
    engine.settle(batch[0, 0].numel(), lambda: batch)
    if engine.precision != INT8:
        raise SystemExit(f"int8 is not used: {engine.notes}")
    return engine.logits


def plain(network: nn.Module, channels_last: bool) -> Callable[[Tensor], Tensor]:
    layout = torch.channels_last if channels_last else torch.contiguous_format
    laid = network.to(memory_format=layout)
    return lambda batch: laid(batch.contiguous(memory_format=layout))


def difference_of(run: Callable[[Tensor], Tensor], batch: Tensor, reference: Tensor) -> float:
    """Root mean square difference from plain float32, as a share of the logits' spread."""
    with torch.inference_mode():
        logits = run(batch).float()
    return float((logits - reference).square().mean().sqrt() / reference.std())


def peak_work(size: int) -> Work:
    """The fastest of some large convolutions, in the machine's precision, weights packed."""
    from whatwhere.network import keep_freed_memory, probe_machine
    from whatwhere.paint.fuse import fused

    keep_freed_memory()
    dtype = probe_machine().dtype
    best: tuple[float, Callable[[], object], float] | None = None
    for channels, side in ((64, size // 2), (128, size // 4), (256, size // 8), (512, size // 8)):
        conv = nn.Conv2d(channels, channels, 3, padding=1).to(dtype).to(memory_format=torch.channels_last)
        given = torch.randn(1, channels, side, side).to(dtype).contiguous(memory_format=torch.channels_last)
        packed = fused(nn.Sequential(conv), given[:, :, : side // 8, : side // 8])
        products = 9.0 * channels**2 * side**2
        seconds = []
        with torch.inference_mode():
            for _ in range(6):
                start = time.perf_counter()
                packed(given)
                seconds.append(time.perf_counter() - start)
        rate = products / statistics.median(seconds[1:])
        if best is None or rate > best[0]:
            best = rate, lambda packed=packed, given=given: packed(given), products
    assert best is not None
    return Work(best[1], best[2], 1, 0.0)


def serve(options: argparse.Namespace) -> None:
    """A worker: runs a turn whenever it is told to, and says how long a pass took."""
    started = time.perf_counter()
    if options.worker == PEAK:
        work = peak_work(options.size)
    else:
        work = network_work(options.worker, options)
    with torch.inference_mode():
        work.run()
        print(f"ready {work.products} {work.images} {work.difference} {time.perf_counter() - started}", flush=True)
        for _ in sys.stdin:
            begun = time.perf_counter()
            for _ in range(PASSES):
                work.run()
            print((time.perf_counter() - begun) / PASSES, flush=True)


class Worker:
    """A peer in a process of its own."""

    def __init__(self, name: str, options: argparse.Namespace) -> None:
        given = ("width", "depth", "size", *(["model"] if options.model else []))
        arguments = [f"--{key}={getattr(options, key)}" for key in given]
        self.process = subprocess.Popen(
            [sys.executable, __file__, "--worker", name, *arguments],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip
        self.seconds: list[float] = []
        words = self._line().split()
        self.ready = bool(words) and words[0] == "ready"
        self.products, self.images, self.difference, self.start = (
            map(float, words[1:]) if self.ready else (0.0, 0.0, 0.0, 0.0)
        )

    def turn(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write("go\n")
        self.process.stdin.flush()
        self.seconds.append(float(self._line()))

    def end(self) -> str:
        """Ends it; returns the last line of what it complained of."""
        return (self.process.communicate()[1].strip().splitlines() or [""])[-1]

    def _line(self) -> str:
        assert self.process.stdout is not None
        return self.process.stdout.readline()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--size", type=int, default=512, help="height and width of the image")
    parser.add_argument("--width", type=int, default=32, help="channels at level 0")
    parser.add_argument("--depth", type=int, default=4, help="poolings")
    parser.add_argument("--model", type=Path, help="a trained model of three channels, instead of random weights")
    parser.add_argument("--peers", nargs="+", help="only these")
    parser.add_argument("--quick", action="store_true", help="small, to see that it works")
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.worker:
        serve(options)
        return
    options.peers = options.peers or [*STEPS, *OTHERS, *([INT8] if options.model else [])]
    if options.quick:
        options.rounds, options.size, options.width, options.depth = 2, 128, 8, 2
        options.peers = ["plain", "packed", "concatenation", "openvino", "onnx"]
    workers: dict[str, Worker] = {}
    for name in dict.fromkeys(["plain", *options.peers, PEAK]):
        worker = Worker(name, options)
        if worker.ready:
            workers[name] = worker
        else:
            print(f"{name} can't run: {worker.end()}")
    for _ in range(options.rounds):
        for worker in workers.values():
            worker.turn()
    for worker in workers.values():
        worker.end()
    print(header("openvino", "onnxruntime"))
    network = options.model or f"U-Net of base {options.width} and {options.depth} downs"
    print(f"\n{network}, {options.size}x{options.size}, {options.rounds} rounds of {PASSES} passes in turn\n")
    report(workers)


def report(workers: dict[str, Worker]) -> None:
    def rate(name: str) -> float:
        return workers[name].products / statistics.median(workers[name].seconds)

    lines = []
    for name, worker in workers.items():
        times = [seconds / worker.images for seconds in worker.seconds]
        ratios = sorted(p / t for p, t in zip(workers["plain"].seconds, times)) if name != PEAK else []
        spread = f"{ratios[0]:.2f} to {ratios[-1]:.2f}" if ratios else ""
        lines.append([
            name, statistics.median(times) * 1000, f"{statistics.median(ratios):.2f}" if ratios else "", spread,
            2 * rate(name) / 1e9, f"{rate(name) / rate(PEAK):.0%}", f"{worker.difference:.2g}", worker.start,
        ])  # fmt: skip
    print(table(["peer", "ms an image", "times plain", "lowest to highest", "GFLOP/s", "share of the peak",
                 "difference", "start s"], lines))  # fmt: skip


if __name__ == "__main__":
    main()
