"""Operators that are slow on a CPU as torch computes them, computed otherwise: same results but for rounding.

They are exchanged while a network learns or paints, whatever network it is; the network itself stays as it is. What
each costs, before and after: `bench/quick_operators.py`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any
from weakref import WeakSet

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode
from torch.utils.checkpoint import CheckpointError

from whatwhere.network.depthwise import depthwise
from whatwhere.network.narrow_norm import batch_norm
from whatwhere.network.products import convolution, transposed
from whatwhere.network.winograd import convolution as turned

__all__ = ["QuickOperators", "forgone", "forward", "quickly"]


class QuickOperators(TorchFunctionMode):
    """While it is entered, tensors on a CPU are computed in these ways.

    >>> norm = torch.nn.InstanceNorm2d(3, affine=True)
    >>> x = torch.randn(2, 3, 8, 8).contiguous(memory_format=torch.channels_last)
    >>> with QuickOperators():
    ...     quick = norm(x)
    >>> torch.allclose(quick, norm(x), atol=1e-5)
    True
    """

    def __torch_function__(
        self, func: Any, types: Iterable[type], args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        named = kwargs or {}
        way = _WAYS.get(func)
        if way is not None and args and isinstance(args[0], Tensor) and args[0].device.type == "cpu":
            found = way(*args, **named)
            if found is not None:
                return found
        return func(*args, **named)


_PLAIN: WeakSet[nn.Module] = WeakSet()
"""Networks that ask for torch's own operators, and get them."""


_AT_ODDS = "view size is not compatible", "once_differentiable", "functorch transforms", "inside of vmap"
"""Words of errors that quick operators may have brought about."""


def quickly(network: nn.Module, device: str) -> AbstractContextManager[object]:
    """In which the network is to be computed on a device: quick operators, where they are of use to it.

    A compiled network is code of its own, in which nothing is exchanged.
    """
    useful = device == "cpu" and network not in _PLAIN and not hasattr(network, "_orig_mod")
    return QuickOperators() if useful else nullcontext()


def forgone(network: nn.Module, error: RuntimeError) -> bool:
    """Whether a network may have failed for quick operators; it gets torch's own from now on.

    Torch's instance norm leaves channels first, after which ``view`` works where it does not after channels last; what
    is computed once more on the way back, to save memory, is computed there by torch's own; and gradients of gradients
    and what ``torch.func`` makes of a function are had of torch's own alone.
    """
    told = isinstance(error, CheckpointError) or any(words in str(error) for words in _AT_ODDS)
    if network in _PLAIN or not told:
        return False
    _PLAIN.add(network)
    return True


def forward(network: nn.Module, image: Tensor) -> Tensor:
    """``network(image)`` by quick operators; by torch's own where it has to be."""
    try:
        with quickly(network, image.device.type):
            logits: Tensor = network(image)
    except RuntimeError as error:
        if not forgone(network, error):
            raise
        logits = network(image)
    return logits


# Each way takes what torch's own function takes, and gives None for what it does not do better.


def _conv2d(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: Any = 1,
    padding: Any = 0,
    dilation: Any = 1,
    groups: int = 1,
) -> Tensor | None:
    """Depthwise convolutions by gradients that stay depthwise, others by turned tiles or products, where faster."""
    if x.ndim != 4 or not x.is_floating_point() or isinstance(padding, str):
        return None
    strides, paddings, apart = _pair(stride), _pair(padding), _pair(dilation)
    if groups == 1 and strides == (1, 1):
        found = turned(x, weight, bias, paddings) if apart == (1, 1) else None
        if found is None and not torch.is_autocast_enabled("cpu"):
            found = convolution(x, weight, bias, paddings, apart)
        return found
    plain = bias is None and groups == x.shape[1] == weight.shape[0] and apart == (1, 1)
    if not plain or strides[0] != strides[1] or paddings[0] != paddings[1]:
        return None
    return depthwise(_lowered(x), _lowered(weight), strides[0], paddings[0])


def _conv_transpose2d(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: Any = 1,
    padding: Any = 0,
    output_padding: Any = 0,
    groups: int = 1,
    dilation: Any = 1,
) -> Tensor | None:
    """Weights by a product where that is faster; the bias's gradient is a sum.

    oneDNN takes longer for that sum than for all other gradients together.
    """
    learns = bias is not None and bias.requires_grad and torch.is_grad_enabled()
    fixed = bias.detach() if bias is not None else None
    found = None
    rest = padding, output_padding, groups, dilation
    if _pair(stride) == weight.shape[2:] and rest in _USUAL and not torch.is_autocast_enabled("cpu"):
        found = transposed(x, weight, fixed)
    if found is None and learns:
        found = F.conv_transpose2d(x, weight, fixed, stride, *rest)
    return _Biased.apply(found, bias) if learns else found  # type: ignore[no-untyped-call]


_USUAL = (0, 0, 1, 1), ((0, 0), (0, 0), 1, (1, 1))
"""Padding, output padding, groups and dilation of a way up that only enlarges."""


class _Biased(torch.autograd.Function):
    """A convolution's output as it is, with the bias in it already; gives the bias its gradient."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, bias: Tensor) -> Tensor:
        ctx.dtype = bias.dtype
        ctx.mark_dirty(x)  # an output that is a view could not be changed in place by the next layer
        return x

    @staticmethod
    def backward(ctx: Any, given: Tensor) -> tuple[Tensor, Tensor]:
        others = [axis for axis in range(-given.ndim, 0) if axis != -3]
        return given, given.sum(others, dtype=ctx.dtype)


def _instance_norm(
    x: Tensor,
    running_mean: Tensor | None = None,
    running_var: Tensor | None = None,  # noqa: ARG001 (torch's signature)
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    use_input_stats: bool = True,
    momentum: float = 0.1,  # noqa: ARG001
    eps: float = 1e-5,
) -> Tensor | None:
    """As a batch norm of one image at a time: torch copies all of them to channels first, and leaves them so."""
    fits = x.ndim == 4 and x.is_floating_point() and x.shape[2] * x.shape[3] > 1 and x.shape[0] > 0
    if not fits or not use_input_stats or running_mean is not None:
        return None
    if x.is_contiguous() or not x.is_contiguous(memory_format=torch.channels_last):
        return None
    exact = torch.float64 if x.dtype == torch.float64 else torch.float32
    channels = x.shape[1]
    if any(given is not None and given.shape != (channels,) for given in (weight, bias)):
        return None
    weight = x.new_ones(channels, dtype=exact) if weight is None else weight.to(exact)
    bias = x.new_zeros(channels, dtype=exact) if bias is None else bias.to(exact)
    return _InstanceNorm.apply(x, weight, bias, eps)  # type: ignore[no-untyped-call, no-any-return]


class _InstanceNorm(torch.autograd.Function):
    """Each channel of each image to mean 0 and deviation 1 (Ulyanov et al. 2016, arXiv 1607.08022), channels last."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor, eps: float) -> Tensor:
        found = torch.empty_like(x)
        mean = weight.new_empty(x.shape[:2])
        scale = torch.empty_like(mean)
        for image, into, *kept in zip(torch.split(x, 1), torch.split(found, 1), mean, scale):
            torch.ops.aten.native_batch_norm.out(
                image, weight, bias, None, None, True, 0.0, eps, out=into, save_mean=kept[0], save_invstd=kept[1]
            )
        ctx.save_for_backward(x, weight, mean, scale)
        ctx.eps = eps
        return found

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, given: Tensor) -> tuple[Tensor | None, Tensor | None, Tensor | None, None]:
        x, weight, mean, scale = ctx.saved_tensors
        given = given.contiguous(memory_format=torch.channels_last)
        wanted = list(ctx.needs_input_grad[:3])
        each = [
            torch.ops.aten.native_batch_norm_backward(
                above, image, weight, None, None, *kept, True, ctx.eps, wanted
            )
            for above, image, *kept in zip(torch.split(given, 1), torch.split(x, 1), mean, scale)
        ]  # fmt: skip
        to_x, to_weight, to_bias = zip(*each)
        return (
            torch.cat(to_x) if wanted[0] else None,
            torch.stack(to_weight).sum(0) if wanted[1] else None,
            torch.stack(to_bias).sum(0) if wanted[2] else None,
            None,
        )


def _pad(x: Tensor, pad: Any, mode: str = "constant", *_: Any, **__: Any) -> Tensor | None:
    """Padding copies values, and needs no float32 for it, to which autocast would turn them."""
    if mode not in ("replicate", "reflect") or not torch.is_autocast_enabled("cpu"):
        return None
    with torch.autocast("cpu", enabled=False):
        return F.pad(x, pad, mode)


def _lowered(x: Tensor) -> Tensor:
    """As autocast gives it to a convolution; torch looks no further than the operator that was called."""
    lowers = torch.is_autocast_enabled("cpu") and x.dtype != torch.float64
    return x.to(torch.get_autocast_dtype("cpu")) if lowers else x


def _pair(value: Any) -> tuple[int, int]:
    """Of a single number, which may be one of NumPy's, or of a sequence of one or two."""
    pair = value if isinstance(value, Sequence) else (value,)
    return pair[0], pair[-1]


_WAYS: dict[Any, Callable[..., Tensor | None]] = {
    F.batch_norm: batch_norm,
    F.conv2d: _conv2d,
    F.conv_transpose2d: _conv_transpose2d,
    F.instance_norm: _instance_norm,
    F.pad: _pad,
}
