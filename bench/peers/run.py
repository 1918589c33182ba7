"""One run of one peer, in a process of its own: train until the clock says stop, then paint the validation images.

    PYTHONPATH=bench PEERS-PYTHON -m peers.run smp --data ../shared/data/cats --out OUT --marks 2.5 5 10 --began SECONDS

Leaves ``OUT/<mark>/<name>.png`` with class ids for every mark, and ``OUT/run.json``. Painting is outside the clock.
"""

from __future__ import annotations

import argparse
import json
import time
from importlib.metadata import version
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import nn

from peers.clock import Clock
from peers.task import Task, read_image, read_task

__all__ = ["NAMES"]

NAMES = ("smp", "monai", "monai-dynunet", "nnunet", "nnunet-batch2")


class Peer(Protocol):
    """What every peer can do."""

    network: nn.Module

    def train(self, clock: Clock) -> None: ...

    def predict(self, image: NDArray[np.uint8]) -> NDArray[np.uint8]: ...


def make(name: str, task: Task, out: Path, seed: int) -> Peer:
    """The peer; only its own packages are imported."""
    if name == "smp":
        from peers.smp_unet import SmpUnet

        return SmpUnet(task, seed)
    if name.startswith("monai"):
        from peers.monai_unet import MonaiUnet, basic, dynamic

        return MonaiUnet(task, seed, dynamic if name == "monai-dynunet" else basic)
    from peers.nnunet import NnUnet

    return NnUnet(out / "nnunet", seed, batch=2 if name == "nnunet-batch2" else None)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("peer", choices=NAMES)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--marks", type=float, nargs="+", required=True, help="minutes; the last ends the training")
    parser.add_argument("--began", type=float, help="time.monotonic() when this process was asked for")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    began = options.began or time.monotonic()
    task = read_task(options.data)
    if options.peer.startswith("nnunet"):
        from peers.nnunet import write_raw

        waited = time.monotonic()
        write_raw(task, options.out / "nnunet")
        began += time.monotonic() - waited  # the other peers read the files as they are
    clock = Clock(began, tuple(options.marks))
    peer = make(options.peer, task, options.out, options.seed)
    peer.train(clock)
    paint(peer, clock, task, options.out)
    packages = {"smp": "segmentation-models-pytorch", "monai": "monai", "monai-dynunet": "monai"}
    package = packages.get(options.peer, "nnunetv2")
    record = {
        "marks": [{"mark": s.mark, "seconds": s.seconds, "steps": s.steps} for s in clock.snapshots],
        "weights": sum(p.numel() for p in peer.network.parameters()),
        "versions": {"torch": torch.__version__, package: version(package)},
    }
    (options.out / "run.json").write_text(json.dumps(record), encoding="utf-8")


def paint(peer: Peer, clock: Clock, task: Task, out: Path) -> None:
    """The validation images by the weights of every mark."""
    for snapshot in clock.snapshots:
        folder = out / f"{snapshot.mark:g}"
        folder.mkdir(parents=True, exist_ok=True)
        peer.network.load_state_dict(snapshot.weights)
        for pair in task.val:
            Image.fromarray(peer.predict(read_image(pair.image))).save(folder / f"{pair.image.stem}.png")


if __name__ == "__main__":
    main()
