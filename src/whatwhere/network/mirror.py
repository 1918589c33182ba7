"""Makes an unpadded network give logits of the image's size, by mirroring the image at its edges.

The overlap-tile strategy of Ronneberger et al. 2015 (arXiv 1505.04597), section 2.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from whatwhere.network.mark import mark
from whatwhere.network.unet import UNet

__all__ = ["Mirrored"]


class Mirrored(nn.Module):
    """``UNet(padding="valid")`` as a network that keeps the size: ``(N, C, H, W) -> (N, classes, H, W)``.

    >>> network = Mirrored(UNet(1, 2, width=2, depth=2, padding="valid"))
    >>> network(torch.zeros(1, 1, 30, 41)).shape
    torch.Size([1, 2, 30, 41])
    """

    def __init__(self, network: UNet) -> None:
        super().__init__()
        self.network = network
        self._as_made = mark(self, kept=False, hooks=False)

    @property
    def altered(self) -> bool:
        """See :attr:`UNet.altered`; since it was wrapped."""
        return mark(self, kept=False, hooks=False) != self._as_made

    @property
    def config(self) -> dict[str, object]:
        return self.network.config

    def forward(self, image: Tensor) -> Tensor:
        height, width = image.shape[-2:]
        rows = _mirrored(height, self.network, image.device)
        columns = _mirrored(width, self.network, image.device)
        logits: Tensor = self.network(image[..., rows, :][..., columns])
        return logits[..., :height, :width]


def _mirrored(size: int, network: UNet, device: torch.device) -> Tensor:
    """Indices of a mirrored row: 0 1 2 ... size-1 size-2 ..., starting half the lost border before 0."""
    total = network.input_size(size)
    before = (total - network.output_size(total)) // 2
    index = torch.arange(-before, total - before, device=device)
    period = max(2 * (size - 1), 1)
    folded = index.remainder(period)
    return torch.where(folded < size, folded, period - folded)
