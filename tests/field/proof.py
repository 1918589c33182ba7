"""Which pixels really influence a unit: by gradients, in float64, with weights made positive so that nothing cancels.

Gradients of max pooling reach one winner only, and of ReLU only living units, although the others could have won or
lived. Both are swapped, for the measurement, by operators that read the very same entries smoothly: average pooling and
softplus. Unpooling puts a value to the winner's place alone: it is swapped by one that puts it to all of its window.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any
from unittest.mock import patch

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def positive(module: nn.Module, seed: int = 0) -> nn.Module:
    """The module in float64 and eval mode, all weights positive and small enough that nothing saturates."""
    generator = torch.Generator().manual_seed(seed)
    module = module.double().eval()
    with torch.no_grad():
        for tensor in module.parameters():
            fan = max(1, tensor[0].numel()) if tensor.ndim > 1 else 1
            tensor.copy_((torch.rand(tensor.shape, generator=generator, dtype=torch.double) + 0.5) / fan)
        for name, tensor in module.named_buffers():
            if name.endswith("running_var"):
                tensor.fill_(1.0)
    return module


def _first(settings: Sequence[int | Sequence[int]]) -> list[int]:
    """Of settings for each axis those of the first."""
    return [setting if isinstance(setting, int) else setting[0] for setting in settings]


@contextmanager
def smooth() -> Iterator[None]:
    def pool(dims: int) -> Any:
        average = (F.avg_pool1d, F.avg_pool2d, F.avg_pool3d)[dims - 1]

        def swapped(
            x: Tensor, kernel: Any, stride: Any = None, padding: Any = 0, dilation: Any = 1, **kw: Any
        ) -> Tensor | tuple[Tensor, Tensor]:
            assert dilation == 1
            pooled = average(x, kernel, stride, padding, kw.get("ceil_mode", False), count_include_pad=False)
            return (pooled, pooled) if kw.get("return_indices") else pooled

        return swapped

    def unpool(x: Tensor, places: Tensor, kernel: int, stride: int, padding: int, output_size: Any) -> Tensor:
        ones = torch.ones(x.shape[1], 1, kernel, kernel, dtype=x.dtype)
        whole = F.conv_transpose2d(x + places, ones, None, stride, 0, 0, x.shape[1])
        height, width = output_size[-2:]
        return F.pad(whole, (0, kernel, 0, kernel))[..., padding : padding + height, padding : padding + width]

    with ExitStack() as stack:
        stack.enter_context(
            patch.object(F, "max_unpool2d", lambda *args: unpool(*args[:2], *_first(args[2:5]), args[5]))
        )
        for dims in (1, 2, 3):
            stack.enter_context(patch.object(F, f"max_pool{dims}d", pool(dims)))
        stack.enter_context(patch.object(F, "relu", lambda x, **_: F.softplus(x)))
        stack.enter_context(patch.object(F, "hardtanh", lambda x, *_: F.softplus(x)))  # ReLU6 ends in it
        yield


def support(module: nn.Module, image: Tensor, axes: tuple[int, ...], unit: tuple[int, ...], layer: str = "output"):
    """The smallest box of pixels with a gradient into one unit of a layer; None if there is none."""
    kept: list[Tensor] = []
    hook, (path, _, which) = None, layer.partition("[")  # of several results each has a name
    if layer != "output":
        hook = module.get_submodule(path).register_forward_hook(lambda _m, _i, result: kept.append(result))
    image = image.clone().requires_grad_()
    with smooth():
        output = module(image)
    if hook is not None:
        hook.remove()
        output = kept[-1][int(which.rstrip("]"))] if which else kept[-1]
    index: list[Any] = [slice(None)] * output.ndim
    for axis, place in zip(axes, unit):
        index[axis] = place
    (gradient,) = torch.autograd.grad(output[tuple(index)].sum(), image)
    seen = (gradient != 0).any(0).any(0)
    if not seen.any():
        return None
    places = seen.nonzero()
    return tuple((int(low), int(high) + 1) for low, high in zip(places.min(0).values, places.max(0).values))
