"""How a network's paintings lie on its images: which sizes it takes, how far a label's pixels reach, and what zeros at
the rim change. Found out from its arithmetic or its graph, or by trying.

Knows networks; knows nothing of backends, precision, or where tiles lie.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import cached_property
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from whatwhere.errors import FieldError
from whatwhere.network import Mirrored, Model, UNet, halo, own_config
from whatwhere.network.copied import copied
from whatwhere.paint.verify import HOPELESS, largest

if TYPE_CHECKING:
    from whatwhere.field import Field

__all__ = ["Geometry", "Pair"]

Pair = tuple[int, int]
"""Of rows and columns, or before and after."""

_CANVASES = 64, 128, 256, 512, 336, 420, 480, 96, 160, 192, 224, 320, 384, 448
"""Sides of the small image on which a network is watched: the first that it takes (instance norm wants more than one
pixel at the bottom of the U; some take multiples of 3, 7, 12, 14 or 20 only, and transformers, often, one size alone);
grown to the total stride where that is larger."""

_STEPS = 1, 2, 4, 8, 16, 32, 64
"""By which an image is tried to be larger, where it is not known of what its sizes have to be multiples."""


class Geometry:
    """The sizes, halo and period of one network. Each is found out when it is first asked for.

    Args:
        model: left untouched.
        field: of the same network with other weights, where it is known.
    """

    def __init__(self, model: Model, field: Field | None = None) -> None:
        self._network, self._channels = model.network, model.normalisation.channels
        if field is not None:
            self.field = field
        self._padded: dict[Pair, bool] = {}
        self._taken: dict[Pair, bool] = {}
        self._elsewhere: dict[Pair, str] = {}
        self._painted: dict[Pair, bool] = {}

    @cached_property
    def config(self) -> dict[str, Any] | None:
        """Of a U-Net of ours with no layer exchanged: its arithmetic is known; to follow its graph takes seconds."""
        return own_config(self._network)

    @cached_property
    def field(self) -> Field:
        """Which pixels each pixel's label depends on. Takes a second or so, once."""
        from whatwhere.field import field  # with torch.export; an image that fits in one piece needs neither

        return field(self.own(), (self._channels, self._canvas, self._canvas), dims=2)

    @cached_property
    def _unfollowed(self) -> str:
        """Why the network's graph can't be followed, though it may well run; "" if it can."""
        if self.config is None:
            try:
                _ = self.field
            except FieldError as error:
                return error.given
        return ""

    @property
    def followed(self) -> Field | None:
        """Its `field`, for engines of the same network with other weights; None if its graph can't be followed."""
        return None if self._unfollowed else self.field

    @property
    def obstacle(self) -> str:
        """What keeps tiles from being exact, where they are not, in words."""
        if not self._unfollowed and self.field.tileable:
            kept = "the network keeps something from call to call: of the same image it makes another painting"
            return next(filter(None, self._elsewhere.values()), kept)
        return self._unfollowed or self.field.explain()

    @cached_property
    def period(self) -> Pair:
        """Height and width must be multiples of this; an image that is not is padded with zeros at its far edges."""
        if self.config is not None:
            return 2 ** self.config["depth"], 2 ** self.config["depth"]
        if self._unfollowed:
            return self._found_period, self._found_period
        return self.field.period[0], self.field.period[1]

    @cached_property
    def _found_period(self) -> int:
        """Of a network that can't be followed: the smallest step, by doubling, by which an image may be larger.

        Of one for a single size: what that is a multiple of.
        """
        for step in _STEPS:
            if self.paints((self._canvas + step, self._canvas + step)):
                return step
        return math.gcd(self._canvas, _STEPS[-1])

    @property
    def halo(self) -> tuple[Pair, Pair]:
        """Pixels needed (before, after) a box with edges on multiples of the period, for rows and columns."""
        if self._known_halo is not None:
            return self._known_halo, self._known_halo
        rows, columns = self.field.halo()
        return rows, columns

    @cached_property
    def _known_halo(self) -> Pair | None:
        network = self._network
        return halo(network) if self.config is not None and isinstance(network, UNet | Mirrored) else None

    @property
    def tileable(self) -> bool:
        """Whether there is a halo with which tiles are exact."""
        return self._known_halo is not None or (not self._unfollowed and self.field.tileable and self.steady)

    def repeats(self, *sizes: Pair) -> bool:
        """Whether the network does on images of these sizes what it does where it was followed: some decide by a size.

        Takes as long as following it once, for each size.
        """
        if self.config is not None:
            return True
        from whatwhere.field import elsewhere

        for size in sizes:
            if size not in self._elsewhere:
                obstacle = elsewhere(self.own(), (self._channels, *size), self.field)
                self._elsewhere[size] = "" if obstacle is None else f"on {size[0]}x{size[1]} pixels it {obstacle.why}"
        return not any(self._elsewhere[size] for size in sizes)

    @cached_property
    def steady(self) -> bool:
        """Whether the same image gives the same twice: what Python code counts, no graph shows."""
        if self.config is not None:
            return True
        network, example = self.own(), self.example()
        with torch.inference_mode():
            one, two = (network(example.clone()) for _ in range(2))
        return torch.allclose(one, two, rtol=1e-3, atol=1e-3 * largest(one), equal_nan=True)

    @property
    def inexact(self) -> bool:
        """Whether it resizes by a factor that torch's floats don't hold."""
        return self.config is None and not self._unfollowed and self.field.inexact

    @property
    def mirrored(self) -> bool:
        """Whether it is an unpadded U-Net of ours that mirrors an image, by index, which `field` can't follow."""
        return self.config is not None and isinstance(self._network, Mirrored)

    def pads_otherwise(self, size: Pair, run: Callable[[Tensor], Tensor]) -> bool:
        """Whether the network takes an image of this size as it is, and gives another painting of it padded with zeros.

        Such an image is left unpadded where it passes whole. Tried on a small one that lacks as much to the period's
        multiples: some networks take even sizes, and refuse odd ones.

        Args:
            size: of the image.
            run: the network in float32.
        """
        if self.mirrored:
            return True
        missing = [-side % step for side, step in zip(size, self.period)]
        if not any(missing) or (self.config is not None and self.config["padding"] == "same"):
            return False
        height, width = (min(side, full - less) for side, full, less in zip(size, self.example(2).shape[-2:], missing))
        if (height, width) not in self._padded:
            odd = self.example(2)[..., :height, :width]
            self._padded[height, width] = _differs(run, odd, F.pad(odd, (0, missing[1], 0, missing[0])))
        return self._padded[height, width]

    def step(self, size: Pair, run: Callable[[Tensor], Tensor]) -> Pair:
        """Of what an image of this size is padded to multiples where it passes whole: of the least that will do.

        That is the period, but for a network that sees all of the image: what it makes of it depends on the zeros.
        """
        if self.config is not None or (not self._unfollowed and self.field.tileable) or self._takes(size, run):
            return self.period
        for step in _STEPS:
            steps = min(step, self.period[0]), min(step, self.period[1])
            if all(full % part == 0 for full, part in zip(self.period, steps)) and self._takes(
                (size[0] + -size[0] % steps[0], size[1] + -size[1] % steps[1]), run
            ):
                return steps
        return self.period

    def _takes(self, size: Pair, run: Callable[[Tensor], Tensor]) -> bool:
        """Whether the network takes an image that lacks as much to the period's multiples.

        Tried on a small one, and on none that is larger than the image: some take no image below a size.
        """
        full = self.example(2)
        height, width = (min(n, m - -n % step) for n, m, step in zip(size, full.shape[-2:], self.period))
        if (height, width) not in self._taken:
            try:
                found = run(full[..., :height, :width])
            except Exception:  # noqa: BLE001 (whatever a network says that takes multiples only)
                found = full[..., :0, :0]
            self._taken[height, width] = found.shape[-2:] == (height, width)
        return self._taken[height, width]

    @cached_property
    def only(self) -> int:
        """The side of the squares that a network takes and no larger ones, as one with a place learnt for each patch.

        0 for all others, whether they were followed or not.
        """
        if self.config is not None or (not self._unfollowed and self.field.canvases is not None):
            return 0
        return 0 if self.paints((2 * self._canvas, 2 * self._canvas)) else self._canvas

    def paints(self, size: Pair) -> bool:
        """Whether the network gives a painting of an image of this very size. Takes as long as that, once."""
        if size not in self._painted:
            try:
                found = _run(self.own(), self._channels, *size)
            except Exception:  # noqa: BLE001 (whatever a network says that takes other sizes only)
                found = None
            self._painted[size] = isinstance(found, Tensor) and found.shape[2:] == size
        return self._painted[size]

    def example(self, times: int = 1) -> Tensor:
        """Noise ``(1, C, h, w)`` of a size that the network takes, so many times as large a side."""
        height, width = (-(-self._canvas // p) * p * times for p in self.period)
        generator = torch.Generator().manual_seed(0)
        return torch.randn(1, self._channels, height, width, generator=generator)

    @cached_property
    def _canvas(self) -> int:
        network = self.own()
        for side in _CANVASES:
            try:
                _run(network, self._channels, side, side)
            except Exception:  # noqa: BLE001 (what it lacks is told where it is prepared)
                continue
            return side
        return _CANVASES[0]  # where what it lacks is told

    def own(self) -> nn.Module:
        """The network as it was given, on the CPU, to be tried and followed."""
        return copied(self._network).cpu().float().eval()


def _run(network: nn.Module, channels: int, height: int, width: int) -> Any:
    """What it makes of a black image."""
    with torch.inference_mode():
        return network(torch.zeros(1, channels, height, width))


def _differs(run: Callable[[Tensor], Tensor], odd: Tensor, padded: Tensor) -> bool:
    """Whether the two paintings differ where both are."""
    height, width = odd.shape[-2:]
    try:
        own, other = run(odd), run(padded)[..., :height, :width]
    except Exception:  # noqa: BLE001 (whatever a network says that takes multiples only)
        return False
    if own.shape != other.shape:  # what it gives back is no painting of what it got
        return False
    # by what becomes of logits: what is added to all alike changes nothing, nor how unlikely the hopeless are
    own, other = (logits.log_softmax(1).clamp(min=-HOPELESS) for logits in (own, other))
    spread = float(own.max() - own.min())  # of faint logits a little decides
    return not torch.allclose(own, other, rtol=0, atol=1e-3 * min(1.0, spread))
