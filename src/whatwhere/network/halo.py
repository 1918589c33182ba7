"""How far around a box our own U-Nets look, by arithmetic on their layers. Knows nothing of graphs or tiles.

`field` follows any network and is what this is tested against, but takes seconds; a U-Net of ours is known beforehand.
"""

from __future__ import annotations

from collections.abc import Iterable

from torch import nn

from whatwhere.network.mirror import Mirrored
from whatwhere.network.unet import UNet

__all__ = ["halo"]

Span = tuple[int, int]
"""First pixel of a map that is looked at, and the one after the last."""


def halo(network: UNet | Mirrored) -> tuple[int, int] | None:
    """Pixels needed before and after a box of logits with edges on multiples of 2**depth; padded, such multiples too.

    None where this arithmetic does not know it: encoders of timm, no padding and no mirrored image instead.

    >>> halo(UNet(depth=4)), halo(UNet(depth=4, encoder="efficientnet-lite0")), halo(UNet(padding="valid"))
    ((96, 96), (192, 208), None)
    >>> halo(Mirrored(UNet(depth=4, padding="valid")))
    (92, 96)
    """
    if isinstance(network, Mirrored):
        return _lost(network.network)
    encoder = network.config["encoder"]
    if encoder.startswith("timm:") or network.padding != "same":
        return None
    period = 2**network.depth
    seen, carried = _right_side(network, (0, period))
    stages = [*network.encoder.children(), network.bottleneck]
    for level in range(network.depth, 0, -1):
        seen = _before(stages[level], _both(seen, carried.get(level)))
    if encoder == "plain":
        seen = _before(stages[0], _both(seen, carried.get(0)))
    elif 0 in carried:  # its level 0 looks at the image beside the way down
        seen = _both(seen, _before(stages[0], carried[0]))
    first, stop = seen
    return -(first // period) * period, -(-(stop - period) // period) * period


def _lost(network: UNet) -> tuple[int, int]:
    """What an unpadded network's input must have around its output."""
    period = 2**network.depth
    total = network.input_size(period)
    before = (total - network.output_size(total)) // 2
    return before, total - before - period


def _right_side(network: UNet, box: Span) -> tuple[Span, dict[int, Span]]:
    """What the way up looks at of the bottleneck, and of what each skip carries."""
    carried = {}
    first, stop = box
    for level, block in enumerate(network.decoder):
        first, stop = _before(block, (first, stop))
        if level in network.skips:
            carried[level] = first, stop
        if network.config["up"] == "bilinear":
            first, stop = (2 * first - 1) // 4, (2 * stop - 3) // 4 + 2
        else:
            first, stop = first // 2, (stop + 1) // 2
    return (first, stop), carried


def _before(stage: nn.Module, span: Span) -> Span:
    """What convolutions and poolings in a row look at; a shortcut beside them never sees more than they do."""
    first, stop = span
    for kernel, stride, near in reversed(list(_windows(stage.modules()))):
        first, stop = first * stride - near, (stop - 1) * stride - near + kernel
    return first, stop


def _windows(modules: Iterable[nn.Module]) -> Iterable[tuple[int, int, int]]:
    """Kernel, stride, and rows of padding before the first, of each layer that has a window."""
    padded = 0
    for module in modules:
        if isinstance(module, nn.ZeroPad2d):
            padded = int(module.padding[0])
        elif isinstance(module, nn.Conv2d):
            yield module.kernel_size[0], module.stride[0], padded + int(module.padding[0])
            padded = 0
        elif isinstance(module, nn.MaxPool2d):
            yield int(module.kernel_size), int(module.stride), 0  # type: ignore[arg-type]


def _both(span: Span, other: Span | None) -> Span:
    return span if other is None else (min(span[0], other[0]), max(span[1], other[1]))
