"""Operators that learn slowly on a CPU: torch's own against whatwhere's, one by one and in whole steps, in turns.

python bench/quick_operators.py
python bench/quick_operators.py --only convolution step --precision float32
python bench/quick_operators.py --quick

As without AVX-512, on a Linux processor that has it: ``ONEDNN_MAX_CPU_ISA=AVX2 ATEN_CPU_CAPABILITY=avx2`` before the
command, and ``--precision float32``.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from contextlib import nullcontext
from functools import partial
from unittest.mock import patch

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from common import header, interleaved, model_of, table
from whatwhere.learn import step
from whatwhere.learn.loss import segmentation_loss
from whatwhere.learn.plan import TrainingPlan
from whatwhere.network import UNet, keep_freed_memory, probe_machine, quick
from whatwhere.network.machine import Machine
from whatwhere.paint import Engine

BATCH = 8


Run = Callable[[], object]
Maker = Callable[[], Run]


def forward_and_backward(operator: Callable[[Tensor], Tensor], channels: int, side: int, machine: Machine) -> Run:
    """Of an operator between layers in the machine's precision, channels last."""

    def lasting(*shape: int) -> Tensor:
        return torch.randn(*shape).to(machine.dtype).contiguous(memory_format=torch.channels_last)

    x = lasting(BATCH, channels, side, side).requires_grad_()
    with torch.no_grad():
        given = lasting(*operator(x.to(torch.float32)).shape)

    def run() -> None:
        x.grad = None
        with torch.autocast("cpu", machine.dtype, enabled=machine.dtype != torch.float32):
            y = operator(x)
        y.backward(given.to(y.dtype))

    return run


def replicated(x: Tensor) -> Tensor:
    return F.pad(x, (0, 1, 0, 1), "replicate")


def operators(machine: Machine) -> dict[str, Maker]:
    """Layers by their names, made only where they are asked for: `functools.partial` binds what each is of."""

    def layer(make: Callable[..., nn.Module], channels: int, side: int, *args: int, **options: object) -> Run:
        module = make(channels, *args, **options).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        return forward_and_backward(module, channels, side, machine)

    found: dict[str, Maker] = {}
    for below, here, side in ((64, 32, 128), (128, 64, 64), (32, 16, 128)):
        name = f"transposed convolution, {below} to {here} channels, {side}x{side}"
        found[name] = partial(layer, nn.ConvTranspose2d, below, side, here, 2, stride=2)
    for channels, side in ((32, 256), (64, 128), (128, 64), (256, 32), (512, 32)):
        name = f"convolution, {channels} channels, {side}x{side}"
        found[name] = partial(layer, nn.Conv2d, channels, side, channels, 3, padding=1, bias=False)
    for side in (256, 128):
        found[f"batch norm, 8 channels, {side}x{side}"] = partial(layer, nn.BatchNorm2d, 8, side)
    for channels, side in ((32, 256), (64, 128), (256, 32)):
        name = f"instance norm, {channels} channels, {side}x{side}"
        found[name] = partial(layer, nn.InstanceNorm2d, channels, side, affine=True)
    found["replication padding, 32 channels, 256x256"] = partial(forward_and_backward, replicated, 32, 256, machine)
    return found


def usual_loss(logits: Tensor, target: Tensor) -> Tensor:
    """Cross-entropy and Dice by torch's operators on whole batches."""
    logits = logits.float().contiguous()  # as whatwhere has it: a plane a class is much faster
    shares, truth = logits.softmax(1), F.one_hot(target, logits.shape[1]).movedim(-1, 1)
    overlap, predicted, true = (one.sum((0, 2, 3)) for one in (shares * truth, shares, truth))
    return F.cross_entropy(logits, target) + 1 - (2 * overlap / (predicted + true)).mean()


def losses(classes: int, side: int, rounds: int, machine: Machine) -> list[float]:
    """Milliseconds of the loss and its gradient, by torch's operators and by ours."""
    logits = torch.randn(BATCH, classes, side, side).to(machine.dtype)
    logits = logits.contiguous(memory_format=torch.channels_last).requires_grad_()
    target = torch.randint(0, classes, (BATCH, side, side), dtype=torch.uint8)
    wide = target.long()
    ways: dict[str, Run] = {
        "torch": lambda: usual_loss(logits, wide).backward(),  # type: ignore[no-untyped-call]
        "ours": lambda: segmentation_loss(logits, target).total.backward(),  # type: ignore[no-untyped-call]
    }
    interleaved(ways, 1)
    return [1000 * seconds for seconds in interleaved(ways, rounds).values()]


def plain(width: int) -> nn.Module:
    return UNet(3, 2, width=width, depth=4)


def with_norm(width: int) -> nn.Module:
    """A U-Net with instance norm instead of batch norm, as MONAI's and nnU-Net's have."""
    network = plain(width)
    for name, module in list(network.named_modules()):
        if isinstance(module, nn.BatchNorm2d):
            network.set_submodule(name, nn.InstanceNorm2d(module.num_features, affine=True))
    return network


def whole_step(make: Callable[[int], nn.Module], width: int, side: int, machine: Machine) -> Run:
    network = make(width).to(memory_format=torch.channels_last).train()  # type: ignore[call-overload]
    optimizer = step.make_optimizer(network, TrainingPlan(epochs=1))
    images = torch.randn(BATCH, 3, side, side)
    target = torch.randint(0, 2, (BATCH, side, side), dtype=torch.uint8)
    return lambda: step.train_step(network, optimizer, images, target, machine=machine)


def painting(width: int, side: int, machine: Machine) -> Run:
    """By PyTorch itself, as where no other backend is installed, with instance norm."""
    precision = "float32" if machine.dtype == torch.float32 else "bfloat16"
    engine = Engine(model_of(with_norm(width).eval()), precision, backend="eager")
    image = torch.randn(1, 3, side, side)
    return lambda: engine.logits(image)


def both(run: Run, rounds: int, *, itself: bool) -> list[float]:
    """Milliseconds with torch's own operators and with ours; a whole step enters ours by itself."""

    def plainly() -> None:
        with patch.dict(quick._WAYS, clear=True):
            run()

    def quickly() -> None:
        with nullcontext() if itself else quick.QuickOperators():
            run()

    plainly(), quickly()
    return [1000 * seconds for seconds in interleaved({"torch": plainly, "ours": quickly}, rounds).values()]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--only", nargs="+", default=[""], help="parts of rows' names, such as convolution")
    parser.add_argument("--precision", choices=("auto", "float32", "bfloat16"), default="auto")
    parser.add_argument("--quick", action="store_true", help="few and small, to see that it works")
    options = parser.parse_args()
    keep_freed_memory()
    machine = probe_machine(precision=options.precision)
    rounds, side = (1, 64) if options.quick else (options.rounds, 256)
    steps: dict[str, Maker] = {
        f"a step of width {width}, {side}x{side}": partial(whole_step, plain, width, side, machine)
        for width in (8, 16, 32, 64)
    }
    for width in (16, 32):
        name = f"a step with instance norm, width {width}, {side}x{side}"
        steps[name] = partial(whole_step, with_norm, width, side, machine)
    name = f"painting {2 * side}x{2 * side}, instance norm, width 32"
    steps[name] = partial(painting, 32, 2 * side, machine)
    rows: list[list[object]] = []

    def add(name: str, measure: Callable[[], list[float]]) -> None:
        if any(part in name for part in options.only):
            theirs, ours = measure()
            rows.append([name, theirs, ours, theirs / ours])

    for group, itself in ((operators(machine), False), (steps, True)):
        for name, make in group.items():
            add(name, lambda make=make, itself=itself: both(make(), rounds, itself=itself))  # type: ignore[misc]
    for classes in (2, 11):
        measure = partial(losses, classes, side, rounds, machine)
        add(f"the loss, {classes} classes, {side}x{side}", measure)
    how = f"here {machine.precision} on {torch.backends.cpu.get_cpu_capability()}"
    print(f"{header()}\n{how}; batches of {BATCH}, medians of {rounds}\n")
    print(table(["forward and backward", "torch's own, ms", "whatwhere, ms", "times"], rows))


if __name__ == "__main__":
    main()
