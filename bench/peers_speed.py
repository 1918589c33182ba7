"""The peers' own networks, run as their users run them and by whatwhere: painting and training, in turns.

    python bench/peers/setup.py                # once: the peers' environment
    python bench/peers_speed.py                # painting at 512x512, training at 256x256 with batches of 8
    python bench/peers_speed.py --what paint --rounds 9
    python bench/peers_speed.py --quick

Painting: a ready float32 image to logits. The peer calls its network under ``torch.no_grad()`` in float32, channels
first, PyTorch as installed; whatwhere's ``Engine`` gets the very same module by ``Segmenter.from_module`` and chooses
precision and backend for a folder of many images, as ``predict`` does (choosing is outside the turns). Training: a
step of the peer's default loop on ready tensors, against whatwhere's whole step (crops drawn and augmented, forward,
loss, backward, update, moving average) of the same module, and of whatwhere's own U-Net where it has the same widths;
nnU-Net's network has its deep supervision in its own loop only. Every worker is a process of its own; those of one
network take turns.
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

HERE = Path(__file__).resolve().parent
PEER, SAME, OWN = "peer", "whatwhere, same network", "whatwhere's U-Net, same widths"
OWN_WIDTHS = {"Pytorch-UNet's default, rewritten": (64, 4)}
"""Width and depth of the U-Net that has the peer's widths."""
PASSES = {"paint": 3, "train": 1}
TITLES = {"paint": "painting", "train": "training"}


@dataclass(frozen=True)
class Work:
    """What a worker repeats, for so many images, and a remark."""

    run: Callable[[], object]
    images: int
    remark: str


def peers_visible(environment: Path) -> None:
    """Lets this process import the peers' packages where its own environment has none of that name."""
    packages = next((environment.absolute() / "lib").glob("python3*/site-packages"))
    sys.path.append(str(packages))
    import peers.torchvision_without_operators  # noqa: F401 (declares what is missing, see there)


def painting(name: str, mode: str, size: int, images: int) -> Work:
    from peers.loops import NETWORKS, settled

    torch.manual_seed(0)
    image = smooth_image(size)
    network = settled(NETWORKS[name](), image[..., :128, :128])
    if mode == PEER:
        return Work(lambda: plainly(network, image), 1, "")
    reference = plainly(network, image)
    from whatwhere import Segmenter
    from whatwhere.paint import Engine

    model = Segmenter.from_module(network, 2, ([0.0] * 3, [1.0] * 3)).model
    engine = Engine(model, images=images)
    engine.settle(size * size, lambda: image)  # with few images it stays with PyTorch itself
    difference = engine.logits(image) - reference
    share = float(difference.square().mean().sqrt() / reference.std())
    labels = float((engine.logits(image).argmax(1) != reference.argmax(1)).float().mean())
    remark = f"{engine.backend} {engine.precision}, logits differ by {share:.1e}, labels by {labels:.2%}"
    return Work(lambda: engine.logits(image), 1, remark)


def plainly(network: nn.Module, image: Tensor) -> Tensor:
    with torch.no_grad():
        logits: Tensor = network(image)
    return logits


def smooth_image(size: int) -> Tensor:
    """``(1, 3, size, size)``: smooth shapes and noise around 0, the same every time."""
    generator = torch.Generator().manual_seed(0)
    coarse = torch.randn(1, 3, size // 32 + 2, size // 32 + 2, generator=generator)
    smooth = nn.functional.interpolate(coarse, size=(size, size), mode="bilinear")
    return smooth + 0.3 * torch.randn(1, 3, size, size, generator=generator)


def training(name: str, mode: str, size: int, batch: int) -> Work:
    from peers.loops import NETWORKS, STEPS

    torch.manual_seed(0)
    if mode == PEER:
        step = STEPS[name](NETWORKS[name]().train())
        images, target = torch.randn(batch, 3, size, size), torch.randint(0, 2, (batch, size, size))
        return Work(lambda: step(images, target), batch, "")
    from common import our_step
    from whatwhere.network import UNet

    if mode == OWN:
        width, depth = OWN_WIDTHS[name]
        return Work(our_step(UNet(3, 2, width=width, depth=depth), size, batch), batch, "")
    return Work(our_step(NETWORKS[name](), size, batch), batch, "")


def serve(options: argparse.Namespace) -> None:
    """A worker: runs a turn whenever it is told to, and says how long an image took."""
    peers_visible(options.peers)
    what, name, mode = options.worker
    if what == "paint":
        work = painting(name, mode, options.size, options.images)
    else:
        work = training(name, mode, options.side, options.batch)
    for _ in range(2):
        work.run()
    print(f"ready {work.remark}", flush=True)
    for _ in sys.stdin:
        begun = time.perf_counter()
        for _ in range(PASSES[what]):
            work.run()
        print((time.perf_counter() - begun) / PASSES[what] / work.images, flush=True)


class Worker:
    """A way to run a network, in a process of its own."""

    def __init__(self, what: str, name: str, mode: str, options: argparse.Namespace) -> None:
        sizes = [f"--{key}={getattr(options, key)}" for key in ("size", "images", "side", "batch", "peers")]
        self.process = subprocess.Popen(
            [sys.executable, __file__, "--worker", what, name, mode, *sizes],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip
        self.seconds: list[float] = []
        line = self._line()
        self.ready, self.remark = line.startswith("ready"), line.removeprefix("ready").strip()

    def turn(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write("go\n")
        self.process.stdin.flush()
        self.seconds.append(float(self._line()))

    def end(self) -> str:
        """Ends it; returns the last line of what it complained of."""
        return (self.process.communicate()[1].strip().splitlines() or [""])[-1]

    def _line(self) -> str:
        """Its next line that is about the work (some packages print to standard output)."""
        assert self.process.stdout is not None
        for line in self.process.stdout:
            if line.startswith("ready") or line[:1].isdigit():
                return line
        return ""


Ratios = dict[tuple[str, str], list[float]]
"""By network and who runs it: how many times the peer's rate, round by round, lowest first."""


def compare(what: str, name: str, options: argparse.Namespace, ratios: Ratios) -> list[list[object]]:
    """The rows of a network: every way to run it, in turns."""
    modes = [PEER, SAME] + ([OWN] if what == "train" and name in OWN_WIDTHS else [])
    workers: dict[str, Worker] = {}
    for mode in modes:
        worker = Worker(what, name, mode, options)
        if worker.ready:
            workers[mode] = worker
        else:
            print(f"{name}, {mode}: can't run: {worker.end()}")
    for _ in range(options.rounds):
        for worker in workers.values():
            worker.turn()
    for worker in workers.values():
        worker.end()
    if PEER in workers:
        for mode, worker in workers.items():
            if mode != PEER:
                ratios[name, mode] = sorted(p / t for p, t in zip(workers[PEER].seconds, worker.seconds))
    return [row(name, mode, worker, ratios.get((name, mode), [])) for mode, worker in workers.items()]


def row(name: str, mode: str, worker: Worker, ratios: list[float]) -> list[object]:
    times = worker.seconds
    ratio = f"{statistics.median(ratios):.2f} ({ratios[0]:.2f} to {ratios[-1]:.2f})" if ratios else ""
    rates = f"{1 / statistics.median(times):.2f} ({1 / max(times):.2f} to {1 / min(times):.2f})"
    return [name, mode, 1000 * statistics.median(times), rates, ratio, worker.remark]


def draw(measured: dict[str, Ratios], path: Path) -> None:
    """How many times the peer's rate, a bar a network, from lowest to highest round; a panel for each work."""
    import matplotlib.pyplot as plt

    rows = max(map(len, measured.values()))
    figure, panels = plt.subplots(1, len(measured), figsize=(6 * len(measured), 1 + 0.5 * rows), squeeze=False)
    for panel, (what, ratios) in zip(panels[0], measured.items()):
        for place, ((_, mode), values) in enumerate(ratios.items()):
            middle = statistics.median(values)
            ends = [[middle - values[0]], [values[-1] - middle]]
            panel.barh(place, middle, xerr=ends, color="C0" if mode == SAME else "C2", height=0.6)
            panel.text(values[-1], place, f"  {middle:.1f}", va="center")
        labels = [name if mode == SAME else f"{name}:\n{mode}" for name, mode in ratios]
        panel.set_yticks(range(len(labels)), labels)
        panel.invert_yaxis()
        panel.axvline(1, color="black", linewidth=1)
        panel.set(
            title=f"{TITLES[what]}: times the peer's own way", xlim=(0, 1.15 * max(v[-1] for v in ratios.values()))
        )
    figure.tight_layout()
    figure.savefig(path, dpi=150)
    print(f"\n{path}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--what", nargs="+", choices=list(PASSES), default=list(PASSES))
    parser.add_argument("--only", nargs="+", help="parts of networks' names, such as MONAI")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--size", type=int, default=512, help="height and width painted")
    parser.add_argument("--images", type=int, default=1000, help="that are to be painted; decides on the backend")
    parser.add_argument("--side", type=int, default=256, help="height and width of a training crop")
    parser.add_argument("--batch", type=int, default=8, help="training crops a step")
    parser.add_argument("--peers", type=Path, default=HERE / "out" / "peers-venv", help="the peers' environment")
    parser.add_argument("--picture", type=Path, default=HERE / "peers_speed.png")
    parser.add_argument("--quick", action="store_true", help="small, to see that it works")
    parser.add_argument("--worker", nargs=3, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.worker:
        serve(options)
        return
    if not (options.peers / "bin" / "python").exists():
        print(f"skipped: there is no {options.peers}; python bench/peers/setup.py makes it")
        return
    if options.quick:
        options.rounds, options.size, options.images, options.side, options.batch = 1, 128, 1, 128, 2
    from common import header, table
    from peers.loops import NETWORKS

    wanted = [name for name in NETWORKS if not options.only or any(part in name for part in options.only)]
    print(f"{header('openvino', 'onnxruntime')}; {options.rounds} rounds")
    measured: dict[str, Ratios] = {what: {} for what in options.what}
    for what, ratios in measured.items():
        rows = [row for name in wanted for row in compare(what, name, options, ratios)]
        shape = (
            f"{options.size}x{options.size}"
            if what == "paint"
            else f"{options.side}x{options.side}, batch {options.batch}"
        )
        print(f"\n{what}, {shape}; medians (lowest to highest); the ratio is to the peer's, round by round\n")
        if rows:
            print(table(["network", "run by", "ms an image", "images/s", "times the peer", "how"], rows))
    if not options.quick and all(measured.values()):
        draw(measured, options.picture)


if __name__ == "__main__":
    main()
