"""A model made ready to be called on many tiles: folded, in the machine's best precision, with its windows known.

Knows networks and devices; knows nothing of images, files, or where tiles lie.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from functools import cached_property

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from whatwhere.errors import ModelError
from whatwhere.field import Field, field
from whatwhere.network import Model, UNet, keep_freed_memory, probe_machine
from whatwhere.network.machine import Precision
from whatwhere.paint.fold import folded
from whatwhere.paint.memory import peak_bytes

__all__ = ["Engine"]

Pair = tuple[int, int]

_CANVAS = 64
"""Side of the small image on which a network is watched; grown to the total stride where that is larger."""


class Engine:
    """A model prepared for inference. Make one, paint many images with it.

    Args:
        model: left untouched; the engine works on a copy.
        precision: ``"auto"`` takes bfloat16 where the machine computes in it, else float32.
        device: ``"auto"``, ``"cpu"``, ``"cuda"`` or ``"mps"``.

    Attributes:
        model: the model as given.
        precision: ``"float32"`` or ``"bfloat16"``: what the network computes in.
        reason: why that precision, in words.
        device: where it runs.
    """

    def __init__(self, model: Model, precision: Precision = "auto", device: str = "auto") -> None:
        machine = probe_machine(device, precision)
        keep_freed_memory()
        self.model = model
        self.device = torch.device(machine.device)
        self.precision, self.reason = machine.precision, machine.reason
        self._run = self._prepare(machine.dtype)

    def logits(self, batch: Tensor) -> Tensor:
        """``(N, C, h, w)`` float32 network input to ``(N, classes, h, w)`` float32 logits, on the engine's device."""
        with torch.inference_mode():
            logits = self._run(batch.to(self.device))
        if logits.shape[1] == 1 and self.model.classes.count == 2:  # one sigmoid channel: the logit of the second class
            logits = torch.cat([torch.zeros_like(logits), logits], dim=1)
        return logits.float()

    @cached_property
    def field(self) -> Field:
        """Which pixels each pixel's label depends on. Takes a second or so, once."""
        channels, side = self.model.normalisation.channels, _CANVAS
        original = copy.deepcopy(self.model.network).cpu().float().eval()
        return field(original, (channels, side, side))

    @cached_property
    def pads_otherwise(self) -> bool:
        """Whether the network takes sizes beside the period's multiples, but not by zeros at the far edges.

        Such a network gets an image unpadded where it gets it whole.
        """
        network = self.model.network
        if self.period == (1, 1) or (isinstance(network, UNet) and network.padding == "same"):
            return False
        example = self._example()
        odd = example[..., : -(self.period[0] // 2) or None, : -(self.period[1] // 2) or None]
        height, width = odd.shape[-2:]
        try:
            own = self.logits(odd)
        except RuntimeError:  # it takes multiples only
            return False
        missing = (0, example.shape[-1] - width, 0, example.shape[-2] - height)
        padded = self.logits(F.pad(odd, missing))[..., :height, :width]
        return not torch.allclose(own, padded, rtol=1e-2, atol=1e-2 * float(own.abs().max()))

    @cached_property
    def period(self) -> Pair:
        """Height and width must be multiples of this; an image that is not is padded with zeros at its far edges."""
        network = self.model.network
        if isinstance(network, UNet) and network.padding == "same":  # known without following the graph
            return 2**network.depth, 2**network.depth
        return self.field.period[0], self.field.period[1]

    @property
    def halo(self) -> tuple[Pair, Pair]:
        """Pixels needed (before, after) a box with edges on multiples of the period, for rows and columns."""
        rows, columns = self.field.halo()
        return rows, columns

    @cached_property
    def bytes_per_pixel(self) -> float:
        """Peak memory of a forward pass per pixel, watched on a small image."""
        example = self._example()
        return peak_bytes(self.logits, example) / (example.shape[-2] * example.shape[-1])

    def _example(self) -> Tensor:
        height, width = (-(-_CANVAS // p) * p for p in self.period)
        generator = torch.Generator().manual_seed(0)
        return torch.randn(1, self.model.normalisation.channels, height, width, generator=generator)

    def _prepare(self, dtype: torch.dtype) -> Callable[[Tensor], Tensor]:
        example = self._example()
        original = copy.deepcopy(self.model.network).cpu().float()
        try:
            network = folded(original, example)
        except RuntimeError as error:
            raise ModelError(
                f"the network fails on an image of shape {tuple(example.shape)} ({str(error).splitlines()[0]})",
                f"a module that takes (N, {example.shape[1]}, H, W)",
                "check its channels and that it takes any height and width",
            ) from error
        run = _eager(network, self.device, dtype)
        if dtype != torch.float32 and not _works(run, example.to(self.device)):
            self.precision, self.reason = "float32", "the network has operators that bfloat16 lacks"
            run = _eager(network, self.device, torch.float32)
        return run


def _eager(network: nn.Module, device: torch.device, dtype: torch.dtype) -> Callable[[Tensor], Tensor]:
    """The network as torch runs it, channels last."""
    prepared = copy.deepcopy(network).to(device=device, dtype=dtype)
    prepared = prepared.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # missing in torch's stubs

    def run(batch: Tensor) -> Tensor:
        logits: Tensor = prepared(batch.to(dtype).contiguous(memory_format=torch.channels_last))
        return logits

    return run


def _works(run: Callable[[Tensor], Tensor], example: Tensor) -> bool:
    try:
        with torch.inference_mode():
            run(example)
    except (RuntimeError, NotImplementedError):
        return False
    return True
