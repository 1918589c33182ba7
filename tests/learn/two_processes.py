"""One step of two processes on halves of a batch; the first writes its weights.

``torchrun --nproc-per-node 2 two_processes.py OUT PARTS``
"""

from __future__ import annotations

import sys

import torch
from safetensors.torch import save_file

from whatwhere.learn.parallel import joined, wrapped
from whatwhere.learn.step import train_step
from whatwhere.network import UNet, probe_machine
from whatwhere.records import VOID


def batch() -> tuple[torch.Tensor, torch.Tensor]:
    """Crops whose classes and void are spread unevenly, so that means of means would differ from the whole."""
    generator = torch.Generator().manual_seed(1)
    target = torch.randint(0, 2, (4, 16, 16), dtype=torch.uint8, generator=generator)
    target[0, 3:] = VOID
    target[1] = 0
    target[3, :5] = 2
    return torch.randn(4, 3, 16, 16, generator=generator), target


def network() -> UNet:
    torch.manual_seed(0)
    return UNet(3, 3, width=4, depth=2).eval()


def step(parts: int) -> tuple[dict[str, torch.Tensor], float]:
    machine = probe_machine("cpu", "float32")
    with joined() as world:
        trained = network()
        optimizer = torch.optim.SGD(trained.parameters(), lr=0.1)
        mine = slice(world.rank * 4 // world.size, (world.rank + 1) * 4 // world.size)
        images, target = (part[mine] for part in batch())
        learner = wrapped(trained, world, machine)
        dice = 1.0 if parts == 1 else 0.0  # Dice is that of each part, and these are cut otherwise
        result = train_step(learner, optimizer, images, target, machine=machine, accumulate=parts, dice_weight=dice)
        return (trained.state_dict() if world.leads else {}), result.loss


if __name__ == "__main__":
    torch.set_num_threads(1)
    weights, loss = step(int(sys.argv[2]))
    if weights:
        save_file({**weights, "loss": torch.tensor(loss)}, sys.argv[1])
