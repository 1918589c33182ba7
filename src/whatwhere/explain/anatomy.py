"""A network as levels and paths: what there is to read, and what could be absent.

Knows a network's structure; nothing of images, labels or what is measured. `UNetAnatomy` is for the networks of
whatwhere, which name their levels; `graph_anatomy` finds the same parts in any other module.
"""

from __future__ import annotations

import copy
import json
from collections import OrderedDict
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from threading import Lock
from typing import Any, ClassVar, Literal, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from whatwhere.field import Field, field
from whatwhere.network import UNet, build, own_config

__all__ = ["Anatomy", "Layer", "Path", "UNetAnatomy", "Windows", "both_logits", "untrained_like"]

Role = Literal["pixel", "encoder", "bottleneck", "decoder"]
Array = NDArray[Any]


@dataclass(frozen=True)
class Layer:
    """A place in the network whose features can be read.

    Attributes:
        name: ``"pixel"``, ``"encoder.0"``, ``"bottleneck"``, ``"decoder.0"``...
        role: which side of the U.
        level: at 1/2**level of the image's resolution.
        module: the layer of `field` that it is: the path of the module whose output it is, or where it is none's an
            operator's name, ``"%add_1"``; empty for the raw pixel.
        stride: input pixels between neighbouring units; the larger of two, where rows and columns differ.
        channels: features of a unit.
        origin: input pixels before the first unit's cell, for rows and columns.
        uneven: the strides of rows and columns, where they differ.
    """

    name: str
    role: Role
    level: int
    module: str
    stride: int
    channels: int
    origin: tuple[int, int] = (0, 0)
    uneven: tuple[int, int] | None = None

    @property
    def cell(self) -> tuple[int, int]:
        """Height and width, in pixels, of what a unit answers for."""
        return self.uneven or (self.stride, self.stride)

    @property
    def title(self) -> str:
        """For charts and tables."""
        return {"pixel": "raw pixel", "bottleneck": "bottleneck"}.get(self.role, f"{self.role} {self.level}")

    def units(self, rows: Array, columns: Array, grid: Sequence[int]) -> tuple[Array, Array]:
        """The units that answer for pixels, in a grid of ``(h, w)`` units.

        >>> import numpy as np
        >>> rows, columns = np.array([0, 7, 8, 40]), np.array([0, 0, 0, 9])
        >>> Layer("encoder.3", "encoder", 3, "", 8, 64).units(rows, columns, (4, 4))
        (array([0, 0, 1, 3]), array([0, 0, 0, 1]))
        """
        places = zip((rows, columns), self.origin, self.cell)
        down, across = ((at - origin) // side for at, origin, side in places)
        return down.clip(0, grid[-2] - 1), across.clip(0, grid[-1] - 1)

    def corners(self, rows: Array, columns: Array, grid: Sequence[int]) -> Array:
        """The first pixel ``(n, 2)`` of the cells of those units; before the image where a cell begins there.

        >>> import numpy as np
        >>> Layer("a", "encoder", 3, "", 8, 64, (3, 0)).corners(np.array([0, 12, 40]), np.array([0, 7, 9]), (4, 4))
        array([[ 3,  0],
               [11,  0],
               [27,  8]])
        """
        found: Array = np.stack(self.units(rows, columns, grid), 1) * self.cell + self.origin
        return found

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


@dataclass(frozen=True)
class Path:
    """A way on which features reach the decoder: a skip, or the bottleneck.

    Attributes:
        name: ``"skip 0"``, ... or ``"bottleneck"``.
        level: where it leaves the encoder.
    """

    name: str
    level: int

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


class Anatomy(Protocol):
    """What every network must offer to be explained."""

    @property
    def network(self) -> nn.Module:
        """The network itself."""

    @property
    def layers(self) -> tuple[Layer, ...]:
        """In the order of the computation, the raw pixel first."""

    @property
    def paths(self) -> tuple[Path, ...]:
        """From the top skip down to the bottleneck; only the bottleneck if the network has no skips."""

    def read(self, image: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """``(1, C, H, W)`` -> logits and the features of every layer."""

    def carried(self, image: Tensor) -> tuple[Tensor, ...]:
        """What each path carries, in the order of `paths`. The decoder gets nothing else."""

    def decode(self, carried: Sequence[Tensor], size: tuple[int, int]) -> Tensor:
        """Logits from what the paths carry, at the image's size."""

    def windows(self, shape: Sequence[int]) -> Field:
        """What every layer can see on images of this shape, ``(1, C, H, W)``; followed once for each."""


class Windows:
    """The windows of one network, followed once for each shape of image, and for all together what they share.

    They depend on how a network is built, not on what it has learnt: of two of ours that are built alike, one is
    followed.
    """

    _KEPT = 32
    _alike: ClassVar[OrderedDict[tuple[str, str, tuple[int, ...]], Field]] = OrderedDict()
    _lock: ClassVar[Lock] = Lock()

    def __init__(self, network: nn.Module) -> None:
        self.network = network
        self._found: dict[tuple[int, ...], Field] = {}

    def __call__(self, shape: Sequence[int]) -> Field:
        key = tuple(shape)
        if key not in self._found:
            known = next(iter(self._found.values()), None)
            self._found[key] = self._of_alike(key, known)
        return self._found[key]

    def _of_alike(self, shape: tuple[int, ...], known: Field | None) -> Field:
        config = own_config(self.network)
        if config is None:
            return field(self.network, shape, dims=2, known=known)
        key = (type(self.network).__name__, json.dumps(config, sort_keys=True), shape)
        with self._lock:
            if key in self._alike:
                self._alike.move_to_end(key)
                return self._alike[key]
        found = field(self.network, shape, dims=2, known=known)
        with self._lock:
            self._alike[key] = found
            if len(self._alike) > self._KEPT:
                self._alike.popitem(last=False)
        return found


class UNetAnatomy:
    """The U-Net of whatwhere.

    >>> anatomy = UNetAnatomy(UNet(width=4, depth=2).eval())
    >>> [layer.name for layer in anatomy.layers]
    ['pixel', 'encoder.0', 'encoder.1', 'bottleneck', 'decoder.1', 'decoder.0']
    >>> [path.name for path in anatomy.paths]
    ['skip 0', 'skip 1', 'bottleneck']
    """

    def __init__(self, network: UNet) -> None:
        self.network: UNet = network
        self.windows = Windows(network)

    @property
    def layers(self) -> tuple[Layer, ...]:
        network, config = self.network, self.network.config
        found = [Layer("pixel", "pixel", 0, "", 1, config["in_channels"])]
        for name in network.feature_names:
            role, _, level = name.partition(".")
            k = int(level) if level else network.depth
            if role == "head" or (role == "encoder" and k in network.unread):
                continue
            own = min(config["width"] * 2**k, max(config["max_width"], config["width"]))
            channels = own if role == "decoder" else network.channels[k]
            found.append(Layer(name, role, k, name, 2**k, channels))  # type: ignore[arg-type]
        return tuple(found)

    @property
    def paths(self) -> tuple[Path, ...]:
        skips = [Path(f"skip {level}", level) for level in self.network.skips]
        return (*skips, Path("bottleneck", self.network.depth))

    def read(self, image: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        names = [layer.name for layer in self.layers if layer.role != "pixel"]
        logits, features = self.network(image, features=names)
        return both_logits(logits), {"pixel": image, **features}

    def carried(self, image: Tensor) -> tuple[Tensor, ...]:
        levels = self.network.encode(image)
        return tuple(levels[path.level] for path in self.paths)

    def decode(self, carried: Sequence[Tensor], size: tuple[int, int]) -> Tensor:
        by_level = {path.level: features for path, features in zip(self.paths, carried)}
        nothing = carried[-1].new_empty(0)  # levels without a skip are not looked at
        levels = [by_level.get(level, nothing) for level in range(self.network.depth + 1)]
        return both_logits(self.network.decode(levels, size=size))


def both_logits(logits: Tensor) -> Tensor:
    """One sigmoid channel is the logit of the second of two classes."""
    return torch.cat([torch.zeros_like(logits), logits], 1) if logits.shape[1] == 1 else logits


def untrained_like(
    network: nn.Module, seed: int, images: Sequence[Tensor], step: Callable[[], None] = lambda: None
) -> nn.Module:
    """The same architecture with fresh random weights; the caller's random state is left as it was.

    What a module made elsewhere cannot reset (attention, bare parameters, normalised weights) is shuffled: the values
    are of the same size then, and what was learnt is gone. Batch norms take their statistics from ``images``, ``(1, C,
    H, W)`` each: without, they would not normalise, which is not the architecture's fault. ``step`` is called before
    each of them.
    """
    fresh = _with_new_weights(network, seed).to(images[0].device).eval()
    norms = [module for module in fresh.modules() if isinstance(module, nn.modules.batchnorm._BatchNorm)]
    norms = [norm for norm in norms if norm.track_running_stats]
    momenta, handles = [norm.momentum for norm in norms], []
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # the mean over all images
        handles.append(norm.register_forward_pre_hook(_learns_from_several))
    with torch.no_grad():
        for image in images if norms else ():
            step()
            fresh(image)
    for norm, momentum, handle in zip(norms, momenta, handles):
        norm.momentum = momentum
        handle.remove()
    return fresh.eval()


def _learns_from_several(norm: nn.Module, given: tuple[Tensor, ...]) -> None:
    """A single value a channel, as after pooling over the image, has no spread."""
    norm.train(given[0].numel() > given[0].shape[1])


def _with_new_weights(network: nn.Module, seed: int) -> nn.Module:
    with torch.random.fork_rng(devices=range(torch.cuda.device_count())):
        torch.manual_seed(seed)
        config = own_config(network)
        if config is not None:
            return build(config)
        fresh = copy.deepcopy(network)
        for module in fresh.modules():
            reset = getattr(module, "reset_parameters", None)
            if callable(reset):
                with suppress(Exception):  # one that asks for arguments, say; what stays is shuffled
                    reset()
        with torch.no_grad():
            for now, learnt in zip(fresh.parameters(), network.parameters()):
                if torch.equal(now, learnt):
                    now.copy_(learnt.flatten()[torch.randperm(learnt.numel())].view_as(learnt))
        return fresh
