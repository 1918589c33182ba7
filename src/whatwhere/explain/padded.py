"""Networks that take only multiples of their strides, made to take images of any size as painting does.

Knows modules and sizes; nothing of what is in a network or an image.
"""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn
from torch.nn import functional as F

__all__ = ["for_any_size", "padded"]

_SIDES = 64, 128, 256, 512
"""Of the small image on which a network is tried: the first that it takes."""


class _Padded(nn.Module):
    """What a network's class does before and after its own ``forward``."""

    multiples: tuple[int, int]

    def forward(self, image: Tensor) -> Tensor:
        (height, width), (rows, columns) = image.shape[-2:], self.multiples
        logits: Tensor = super().forward(F.pad(image, (0, -width % columns, 0, -height % rows)))
        return logits[..., :height, :width]


def padded(network: nn.Module, multiples: tuple[int, int]) -> nn.Module:
    """The network with zeros at the far edges of its images, up to multiples, and logits cut to their size.

    It shares its parts with the network, under the same names: so its layers are called as the user knows them.

    >>> halving = nn.Sequential(nn.Conv2d(1, 4, 2, 2), nn.ConvTranspose2d(4, 3, 2, 2))
    >>> padded(halving, (2, 2))(torch.zeros(1, 1, 5, 4)).shape
    torch.Size([1, 3, 5, 4])
    """
    found, kind = copy.copy(network), type(network)
    found.__class__ = type(kind.__name__, (_Padded, kind), {"multiples": multiples})
    return found


def for_any_size(network: nn.Module, channels: int) -> nn.Module:
    """The network itself, or where it does not take all sizes, as painting gives it images: `padded`.

    >>> network = nn.Conv2d(3, 2, 3, padding=1)
    >>> for_any_size(network, 3) is network
    True
    """
    side = next((side for side in _SIDES if _takes(network, channels, side, side)), None)
    if side is None:  # what it lacks is told where it is followed
        return network
    odd = [2**level for level in range(side.bit_length() - 1)]  # each is odd at one level of a U
    rows = max((2 * more for more in odd if not _takes(network, channels, side + more, side)), default=1)
    columns = max((2 * more for more in odd if not _takes(network, channels, side, side + more)), default=1)
    return network if (rows, columns) == (1, 1) else padded(network, (rows, columns))


def _takes(network: nn.Module, channels: int, height: int, width: int) -> bool:
    """Whether the network answers an image of this size at its size."""
    weight = next(network.parameters(), torch.empty(0))
    try:
        with torch.no_grad():
            answer = network(torch.zeros(1, channels, height, width, device=weight.device))
        return tuple(answer.shape[-2:]) == (height, width)
    except Exception:  # noqa: BLE001 (whatever a network says that takes multiples only)
        return False
