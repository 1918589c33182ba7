"""On a GPU: the peers' own networks trained and painted with, as their users do it and by whatwhere, in turns.

    python bench/on_a_gpu.py                          # all, with the peers' packages from their environment
    python bench/on_a_gpu.py --what train --compiled  # nnU-Net's loop compiled, as is its default on a GPU; so are ours

Training at 256x256 with batches of 8. The peer: a step of its default loop on tensors that lie on the GPU already, as
installed (TF32 allowed; nnU-Net's in float16 with its scaler). whatwhere: everything that a run does, crops drawn,
turned and varied among it, of the same network and of its own U-Nets. Utilisation is what the driver tells.
Steps: whatwhere's own on tensors that are ready, its kernels sent one by one and as a recorded graph, and how long the
GPU is busy with them by the profiler. Crops: made by threads on the processor, and together on the GPU.
Painting at 512x512, a float32 image on the GPU to logits: the peer's network in float32, channels first, under
``torch.no_grad()``; whatwhere's ``Engine`` as `predict` uses it. Sliding windows: MONAI's against exact tiles, of one
network in one precision each. All in one process, in turns.
"""

from __future__ import annotations

import argparse
import statistics
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from common import header, model_of, our_step, random_crops, rows, table, unet
from peers_speed import peers_visible, plainly, smooth_image

HERE = Path(__file__).resolve().parent
PEER = "peer"
PLAIN, RECORDED, COMPILED = "kernels one by one", "recorded", "compiled and recorded"
WORKS = ("train", "steps", "crops", "paint", "windows")
SIDE, BATCH, LARGE = 256, 8, 512


@dataclass
class Way:
    """A way to do the work of one network: a call of ``run`` is worth so many images."""

    network: str
    by: str
    run: Callable[[], object]
    images: int
    ours: bool
    remark: str = ""
    rates: list[float] = field(default_factory=list)
    busy: list[float] = field(default_factory=list)

    def turn(self, seconds: float) -> None:
        """Runs for a while; rate in images a second, and how busy the GPU was."""
        with flags(self.ours, look=not self.ours and self.network.startswith("nnU-Net")):
            for _ in range(16):  # what was made ahead while others had their turn is used up
                self.run()
            torch.cuda.synchronize()
            calls, begun = 0, time.perf_counter()
            with watched(self.busy):
                while time.perf_counter() - begun < seconds:
                    self.run()
                    calls += 1
                torch.cuda.synchronize()
            self.rates.append(calls * self.images / (time.perf_counter() - begun))


Ways = Iterator[tuple[str, Callable[[], Way]]]
"""By the name of the network; each is made when its turn comes."""


@contextmanager
def flags(ours: bool, look: bool) -> Iterator[None]:
    """PyTorch as installed, for peers (nnU-Net lets it look for the fastest); as whatwhere sets it, for itself."""
    torch.backends.cudnn.allow_tf32 = not ours
    torch.backends.cudnn.deterministic = ours
    torch.backends.cudnn.benchmark = look
    yield


@contextmanager
def watched(busy: list[float]) -> Iterator[None]:
    """Adds the mean of what the driver tells of the GPU's utilisation meanwhile, in percent; nothing if it does not."""
    found: list[float] = []
    over = threading.Event()

    def look() -> None:
        while not over.wait(0.05):
            try:
                found.append(float(torch.cuda.utilization()))
            except Exception:  # noqa: BLE001 (without the driver's library)
                return

    thread = threading.Thread(target=look)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()
        if found[len(found) // 3 :]:  # it tells the mean of some time before
            busy.append(statistics.mean(found[len(found) // 3 :]))


def peers_step(name: str, compiled: bool) -> Callable[[], object]:
    from peers.loops import NETWORKS, STEPS

    torch.manual_seed(0)
    network = NETWORKS[name]().train().cuda()
    step = STEPS[name](network, compiled) if name.startswith("nnU-Net") else STEPS[name](network)
    images = torch.randn(BATCH, 3, SIDE, SIDE, device="cuda")
    target = torch.randint(0, 2, (BATCH, SIDE, SIDE), device="cuda")
    return lambda: step(images, target)


def training(compiled: bool) -> Ways:
    from peers.loops import NETWORKS
    from whatwhere.network import UNet

    def peer(name: str) -> Way:
        remark = "compiled" if compiled and name.startswith("nnU-Net") else ""
        return Way(name, PEER, peers_step(name, compiled), BATCH, ours=False, remark=remark)

    def same(name: str, compiled: bool = False) -> Way:
        step = our_step(NETWORKS[name](), SIDE, BATCH, "cuda", compiled=compiled)
        remark = "compiled" if compiled else ""
        return Way(name, "whatwhere, same network", step, BATCH, ours=True, remark=remark)

    def own(name: str, compiled: bool = False, **network: object) -> Way:
        remark = "compiled" if compiled else ""
        step = our_step(UNet(3, 2, **network), SIDE, BATCH, "cuda", compiled=compiled)
        return Way(name, "whatwhere", step, BATCH, ours=True, remark=remark)

    for name in NETWORKS:
        yield name, partial(peer, name)
        yield name, partial(same, name)
        if compiled:
            yield name, partial(same, name, compiled=True)
    yield "U-Net of base 32", partial(own, "U-Net of base 32", width=32, depth=4)
    yield "U-Net of base 32", partial(own, "U-Net of base 32", compiled=True, width=32, depth=4)
    yield "U-Net of base 8", partial(own, "U-Net of base 8", width=8, depth=4)
    yield (
        "EfficientNet-Lite0 U-Net",
        partial(own, "EfficientNet-Lite0 U-Net", width=16, depth=5, encoder="efficientnet-lite0"),
    )


def steps() -> Ways:
    """What recording a step is worth, crops left out."""
    from whatwhere.learn.plan import TrainingPlan
    from whatwhere.learn.recorded import recorder_for
    from whatwhere.learn.step import make_optimizer, train_step
    from whatwhere.network import UNet, probe_machine

    images = torch.randn(BATCH, 3, SIDE, SIDE, device="cuda")
    target = torch.randint(0, 11, (BATCH, SIDE, SIDE), dtype=torch.uint8, device="cuda")

    def way(name: str, by: str, shape: dict[str, Any]) -> Way:
        network = UNet(3, 11, **shape).train().to("cuda", memory_format=torch.channels_last)
        machine, optimizer = probe_machine("cuda"), make_optimizer(network, TrainingPlan(epochs=1))
        learner = torch.compile(network, dynamic=False) if by == COMPILED else network
        recorder = None if by == PLAIN else recorder_for(network, machine, 1)

        def step() -> object:
            return train_step(learner, optimizer, images, target, machine=machine, recorder=recorder)

        remark = f"kernels {kernel_milliseconds(step):.3g} ms a step"
        return Way(name, by, step, BATCH, ours=by != PLAIN, remark=remark)

    shapes: dict[str, dict[str, Any]] = {
        "U-Net of base 32": {"width": 32, "depth": 4},
        "U-Net of base 8": {"width": 8, "depth": 4},
        "EfficientNet-Lite0 U-Net": {"width": 16, "depth": 5, "encoder": "efficientnet-lite0"},
    }
    for name, shape in shapes.items():
        for by in (PLAIN, RECORDED, COMPILED):
            yield name, partial(way, name, by, shape)


def kernel_milliseconds(step: Callable[[], object], times: int = 3) -> float:
    """How long the GPU is busy with a step."""
    step()
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CUDA]) as profile:
        for _ in range(times):
            step()
        torch.cuda.synchronize()
    kernels = [one for one in profile.events() if one.device_type == torch.autograd.DeviceType.CUDA]
    return sum(one.device_time for one in kernels) / times / 1000


def crops() -> Ways:
    """Of a street scene's size, the network left out; and beside a network's steps."""
    from whatwhere.network import UNet

    def way(by: str, threads: int, device: str) -> Way:
        batches = random_crops(SIDE, (360, 480)).batches(BATCH, 0, workers=threads, device=device)
        return Way("crops", by, lambda: next(batches), BATCH, ours=True)

    def beside(name: str, threads: int) -> Way:
        step = our_step(UNet(3, 2, width=int(name.split()[-1]), depth=4), SIDE, BATCH, "cuda", threads=threads)
        return Way(name, f"GPU, threads: {threads}", step, BATCH, ours=True)

    for threads in (1, 4, 8, 14):
        yield "crops", partial(way, f"processor, threads: {threads}", threads, "cpu")
    for threads in (1, 2, 4):
        yield "crops", partial(way, f"GPU, threads: {threads}", threads, "cuda")
    for width in (8, 32):
        for threads in (1, 2, 3, 4):
            name = f"learnt from by a U-Net of base {width}"
            yield name, partial(beside, name, threads)


def painting() -> Ways:
    from peers.loops import NETWORKS, settled
    from whatwhere import Segmenter
    from whatwhere.paint import Engine

    image = smooth_image(LARGE)

    def made(name: str) -> nn.Module:
        torch.manual_seed(0)
        return settled(NETWORKS[name](), image[..., :128, :128])

    def peer(name: str) -> Way:
        network, there = made(name).cuda(), image.cuda()
        return Way(name, PEER, lambda: plainly(network, there), 1, ours=False)

    def same(name: str, by: str) -> Way:
        network = made(name)
        reference = plainly(network, image)
        model = Segmenter.from_module(network, 2, ([0.0] * 3, [1.0] * 3)).model
        engine = Engine(model, device="cuda", backend=by, images=100_000)
        engine.settle(LARGE**2, lambda: image)
        there = image.cuda()
        found = engine.logits(there).cpu()
        share = float((found - reference).square().mean().sqrt() / reference.std())
        changed = float((found.argmax(1) != reference.argmax(1)).float().mean())
        remark = f"{engine.how}, logits differ by {share:.1e}, labels by {changed:.2%}"
        return Way(name, "whatwhere, same network", lambda: engine.logits(there), 1, ours=True, remark=remark)

    def own(by: str) -> Way:
        network, there = unet(32, 4), image.cuda()
        if by == PEER:
            network = network.cuda()
            return Way("U-Net of base 32", by, lambda: plainly(network, there), 1, ours=False)
        engine = Engine(model_of(network), device="cuda", backend=by)
        engine.settle(LARGE**2, lambda: image)
        return Way("U-Net of base 32", engine.how, lambda: engine.logits(there), 1, ours=True)

    for name in NETWORKS:
        yield name, partial(peer, name)
        for by in ("eager", "graphs"):
            yield name, partial(same, name, by)
    for by in (PEER, "eager", "graphs", "compile"):
        yield "U-Net of base 32", partial(own, by)


def windows(size: int = 4096) -> Ways:
    """The base-32 U-Net on a large image that lies in main memory, to labels there."""
    from monai.inferers import sliding_window_inference

    from whatwhere.paint import Engine, paint

    model = model_of(unet(32, 4))
    image = rows(size).permute(1, 2, 0).numpy()

    def sliding(overlap: float) -> Way:
        network, given = unet(32, 4).cuda().eval(), model.normalise(image)[None]

        def run() -> Tensor:
            with torch.no_grad():
                there = given.cuda()
                logits = sliding_window_inference(there, (512, 512), 4, network, overlap=overlap, mode="gaussian")
            return logits.argmax(1).to(torch.uint8).cpu()

        return Way(f"{size}x{size}", f"MONAI, overlap {overlap}", run, 1, ours=False)

    def exact(precision: str) -> Way:
        engine = Engine(model, precision, "cuda", images=100)
        remark = str(paint(engine, image).report)
        return Way(f"{size}x{size}", "exact tiles", lambda: paint(engine, image), 1, ours=True, remark=remark)

    yield f"{size}x{size}", partial(sliding, 0.25)
    yield f"{size}x{size}", partial(sliding, 0.5)
    yield f"{size}x{size}", partial(exact, "float32")
    yield f"{size}x{size}", partial(exact, "auto")


def measured(ways: Ways, options: argparse.Namespace) -> list[Way]:
    ready: list[Way] = []
    for name, make in ways:
        if options.only and not any(part in name for part in options.only):
            continue
        begun = time.perf_counter()
        try:
            way = make()
            way.turn(0.0)  # compiles, records, allocates
        except Exception as error:  # noqa: BLE001 (the others are measured)
            print(f"a way can't be gone: {type(error).__name__}: {error}", flush=True)
            continue
        way.rates.clear()
        way.busy.clear()
        print(f"{way.network}, {way.by}: ready in {time.perf_counter() - begun:.1f} s", flush=True)
        ready.append(way)
    for number in range(options.rounds):
        for way in ready:
            way.turn(options.seconds)
            print(f"round {number + 1}: {way.network}, {way.by}: {way.rates[-1]:.4g} images/s", flush=True)
    return ready


def report(ways: list[Way], unit: str) -> str:
    lines = []
    for way in ways:
        peers = [one for one in ways if one.network == way.network and not one.ours]
        ratio = ""
        if way.ours and peers:
            ratios = sorted(mine / theirs for mine, theirs in zip(way.rates, peers[0].rates))
            ratio = f"{statistics.median(ratios):.2f} ({ratios[0]:.2f} to {ratios[-1]:.2f})"
        busy = f"{statistics.mean(way.busy):.0f} %" if way.busy else ""
        spread = f"{min(way.rates):.4g} to {max(way.rates):.4g}"
        lines.append([way.network, way.by, statistics.median(way.rates), spread, ratio, busy, way.remark])
    columns = ["network", "run by", unit, "lowest to highest", "times the peer", "GPU busy", "how"]
    return table(columns, lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--what", nargs="+", choices=WORKS, default=WORKS)
    parser.add_argument("--only", nargs="+", help="parts of networks' names, such as MONAI")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=1.0, help="of a turn")
    parser.add_argument(
        "--compiled", action="store_true", help="compile nnU-Net's network in its own loop, and each in ours"
    )
    parser.add_argument("--peers", type=Path, default=HERE / "out" / "peers-venv", help="the peers' environment")
    parser.add_argument("--quick", action="store_true", help="short turns, to see that it works")
    options = parser.parse_args()
    if not torch.cuda.is_available():
        print("skipped: torch sees no GPU here")
        return
    if (options.peers / "bin" / "python").exists():  # else they are in this one, or left out with a line each
        peers_visible(options.peers)
    if options.quick:
        options.rounds, options.seconds = 1, 0.1
    from whatwhere.network import prepare_torch

    prepare_torch()
    print(
        f"{header('monai', 'segmentation-models-pytorch', 'nnunetv2')}; {options.rounds} rounds of {options.seconds} s"
    )
    works = {
        "train": training(options.compiled),
        "steps": steps(),
        "crops": crops(),
        "paint": painting(),
        "windows": windows(),
    }
    for what in options.what:
        ways = measured(works[what], options)
        print(f"\n{what}\n\n{report(ways, 'images/s')}\n", flush=True)


if __name__ == "__main__":
    main()
