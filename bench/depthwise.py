"""Depthwise convolutions on this processor: how each shape of EfficientNet-Lite0 learns fastest, and what a step costs.

First every depthwise convolution of the encoder, forward and backward, by precision, memory layout, and way to compute
it: torch's own operator, as many shifted multiply-adds as the kernel has places, or whatwhere's, with gradients of its
own where torch's are slow. Then whole training steps of the network that the plan takes for photographs, with
all its depthwise layers computed in one of these ways, or with the first stages held fixed, so that nothing is learnt
there. All in interleaved rounds, by one process that keeps its memory; then where the time of one step goes.

    python bench/depthwise.py [--size 256] [--batch 8] [--rounds 7]

Which kernel oneDNN takes for a layer is told by ``ONEDNN_VERBOSE=1`` in the environment: ``jit_dw`` and ``brgdmm_dw``
are depthwise; ``jit`` (for 5x5 weights) and ``brgconv_strided`` (for the image at stride 2 in bfloat16) are general.
"""

from __future__ import annotations

import argparse
from collections import Counter
from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from common import header, interleaved, table
from whatwhere.learn.plan import TrainingPlan
from whatwhere.learn.step import make_optimizer, train_step
from whatwhere.network import UNet, keep_freed_memory, pretrained_parameters, probe_machine
from whatwhere.network.quick import QuickOperators

CLASSES = 11
Shape = tuple[int, int, int, int]
"""Channels, kernel, stride, and the side of what goes in, in pixels."""
Way = Callable[[Tensor, nn.Conv2d], Tensor]


def photographs_network() -> UNet:
    torch.manual_seed(0)
    return UNet(3, CLASSES, width=16, depth=5, max_width=512, encoder="efficientnet-lite0")


def depthwise_layers(network: nn.Module) -> list[tuple[str, nn.Conv2d]]:
    convolutions = [(name, part) for name, part in network.named_modules() if isinstance(part, nn.Conv2d)]
    return [(name, part) for name, part in convolutions if part.groups == part.in_channels > 1]


def shapes(size: int) -> Counter[Shape]:
    """The depthwise convolutions of one image, and how often each is there; found without computing."""
    network, found = photographs_network().to("meta").eval(), Counter[Shape]()

    def note(module: nn.Module, given: tuple[Tensor, ...], _: Tensor) -> None:
        assert isinstance(module, nn.Conv2d)
        found[module.in_channels, module.kernel_size[0], module.stride[0], given[0].shape[-1]] += 1

    for _, layer in depthwise_layers(network):
        layer.register_forward_hook(note)
    network(torch.empty(1, 3, size, size, device="meta"))
    return found


# -- ways to compute one ----------------------------------------------------------------------------------------------


def by_torch(x: Tensor, layer: nn.Conv2d, dtype: torch.dtype, layout: torch.memory_format) -> Tensor:
    """Torch's operator; what goes in is brought to that precision and layout first, as it would have to be."""
    weight = layer.weight.to(dtype)
    with torch.autocast("cpu", enabled=False):
        x = x.to(dtype).contiguous(memory_format=layout)
        # by the dispatcher, where nobody exchanges it for another way
        found: Tensor = torch.ops.aten.conv2d(x, weight, None, layer.stride, layer.padding, [1, 1], layer.groups)
        return found


def by_shifts(x: Tensor, layer: nn.Conv2d) -> Tensor:
    """One multiply-add of the whole image for each place of the kernel."""
    (near, _), (kernel, _), (stride, _) = layer.padding, layer.kernel_size, layer.stride
    x = F.pad(x, (near,) * 4)
    rows, columns = ((side - kernel) // stride + 1 for side in x.shape[-2:])
    weight, total = layer.weight.to(x.dtype), torch.zeros((), dtype=x.dtype)
    for i in range(kernel):
        for j in range(kernel):
            part = x[..., i : i + stride * rows : stride, j : j + stride * columns : stride]
            total = torch.addcmul(total, part, weight[:, 0, i, j].reshape(1, -1, 1, 1))
    return total


OURS = "whatwhere"


def as_it_comes(x: Tensor, layer: nn.Conv2d) -> Tensor:
    """The layer itself, as in a run."""
    with torch.autocast("cpu", torch.bfloat16), QuickOperators():
        found: Tensor = layer(x)
    return found


CHANNELS_FIRST, CHANNELS_LAST = torch.contiguous_format, torch.channels_last
WAYS: dict[str, Way] = {
    "bfloat16, channels last": partial(by_torch, dtype=torch.bfloat16, layout=CHANNELS_LAST),
    "bfloat16, channels first": partial(by_torch, dtype=torch.bfloat16, layout=CHANNELS_FIRST),
    "float32, channels last": partial(by_torch, dtype=torch.float32, layout=CHANNELS_LAST),
    "float32, channels first": partial(by_torch, dtype=torch.float32, layout=CHANNELS_FIRST),
    "bfloat16, shifts": by_shifts,
    OURS: as_it_comes,
}
"""All are given what the layer before leaves in a bfloat16 run: bfloat16, channels last."""


def both_ways(shape: Shape, batch: int, way: Way) -> Callable[[], None]:
    """Forward, and backward to weights and input."""
    channels, kernel, stride, side = shape
    padding = kernel // 2 if stride == 1 else 0
    layer = nn.Conv2d(channels, channels, kernel, stride, padding, groups=channels, bias=False)
    x = torch.randn(batch, channels, side, side).to(torch.bfloat16, memory_format=CHANNELS_LAST).requires_grad_()

    def run() -> None:
        y = way(x, layer)
        y.backward(torch.ones_like(y))
        x.grad = layer.weight.grad = None

    run()
    return run


def each_shape(size: int, batch: int, rounds: int) -> None:
    found, lines = shapes(size), []
    sums = dict.fromkeys(WAYS, 0.0)
    for (channels, kernel, stride, side), times in found.items():
        runs = {name: both_ways((channels, kernel, stride, side), batch, way) for name, way in WAYS.items()}
        seconds = interleaved(runs, rounds)
        for name, value in seconds.items():
            sums[name] += times * value
        what = f"{times} x {kernel}x{kernel}, {channels} channels, {side} px, stride {stride}"
        lines.append([what, *(1000 * value for value in seconds.values())])
    lines.append(["all of one step", *(1000 * value for value in sums.values())])
    print(f"Forward and backward of each layer, batch {batch}, medians of {rounds} rounds, ms\n")
    print(table(["layers", *WAYS], lines))


# -- whole steps ------------------------------------------------------------------------------------------------------


class _By(nn.Module):
    """A depthwise layer that is computed in another way."""

    def __init__(self, layer: nn.Conv2d, way: Way) -> None:
        super().__init__()
        self.layer, self.way = layer, way

    def forward(self, x: Tensor) -> Tensor:
        return self.way(x, self.layer)


def with_way(way: Way) -> UNet:
    network = photographs_network()
    for name, layer in depthwise_layers(network):
        network.set_submodule(name, _By(layer, way))
    return network


def with_fixed(stages: int) -> UNet:
    """Nothing is learnt in the first ``stages`` of the classifier: no gradient is needed there."""
    network = photographs_network()
    for stage in list(network.encoder.children())[1 : 1 + stages]:
        stage.requires_grad_(False)
    return network


def stepping(network: UNet, size: int, batch: int) -> Callable[[], object]:
    """A training step, data and moving average left out."""
    machine = probe_machine("cpu")
    network.train().to(memory_format=CHANNELS_LAST)  # type: ignore[call-overload]
    learnt = [parameter for parameter in pretrained_parameters(network) if parameter.requires_grad]
    optimizer = make_optimizer(network, TrainingPlan(epochs=1), learnt)
    images, target = torch.randn(batch, 3, size, size), torch.randint(0, CLASSES, (batch, size, size)).to(torch.uint8)

    def step() -> object:
        return train_step(network, optimizer, images, target, machine=machine)

    step()
    return step


def steps(size: int, batch: int, rounds: int) -> None:
    networks = {"as whatwhere does it": photographs_network()}
    networks |= {f"depthwise in {name}": with_way(way) for name, way in WAYS.items() if name != OURS}
    networks |= {f"stages to stride {2**k} held fixed": with_fixed(k) for k in (2, 3)}
    seconds = interleaved({name: stepping(network, size, batch) for name, network in networks.items()}, rounds)
    first = next(iter(seconds.values()))
    lines = [[name, batch / value, first / value] for name, value in seconds.items()]
    print(f"\nTraining steps at {size}x{size}, batch {batch}, medians of {rounds} rounds\n")
    print(table(["network", "images/s", "ratio"], lines))


def where_the_time_goes(size: int, batch: int) -> None:
    step = stepping(photographs_network(), size, batch)
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU], record_shapes=True) as profile:
        step()
    spent: Counter[str] = Counter()
    for event in profile.key_averages(group_by_input_shape=True):
        name = event.key.removeprefix("aten::")
        weight = next((shape for shape in event.input_shapes[1:3] if len(shape) == 4 and shape[1] == 1), None)
        if "convolution" in name and weight:
            name = f"{name}, depthwise {weight[2]}x{weight[3]}"
        spent[name] += event.self_cpu_time_total
    total = sum(spent.values())
    print("\nOne step as whatwhere does it, by operator\n")
    print(table(["operator", "share"], [[name, f"{value / total:.1%}"] for name, value in spent.most_common(16)]))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", type=int, default=256)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--quick", action="store_true", help="small, to see that it works")
    options = parser.parse_args()
    if options.quick:
        options.size, options.batch, options.rounds = 64, 2, 1
    keep_freed_memory()
    print(header(), end="\n\n")
    each_shape(options.size, options.batch, options.rounds)
    steps(options.size, options.batch, options.rounds)
    where_the_time_goes(options.size, options.batch)


if __name__ == "__main__":
    main()
