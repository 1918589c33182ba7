"""Which part of each level a decoder has to compute for a part of the logits. Plain integers; touches no pixel.

Around what a tile writes lies the halo from which the bottom of the U takes its context. The encoder has to see all of
it, the decoder next to nothing: its own convolutions reach a few pixels beyond what is asked.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from torch import Tensor

from whatwhere.records import Box

__all__ = ["Part", "cut", "parts"]


@dataclass(frozen=True)
class Part:
    """What is computed of a level.

    Attributes:
        here: the box of the level's features that is computed; a skip is cut to it.
        kept: what of it is right, and goes on: a box in pixels of ``here``.
    """

    here: Box
    kept: Box


def parts(window: Box, sizes: Sequence[tuple[int, int]], *, radius: int, margin: int) -> list[Part]:
    """The parts of levels 0 .. depth that give the logits of ``window``; the last is the bottleneck's, computed whole.

    Args:
        window: rows and columns of the logits that are wanted.
        sizes: height and width of the features of levels 0 .. depth, each half of the one before.
        radius: how many pixels beyond its own a decoder's block sees at its level.
        margin: how many pixels of the level below a way up sees beyond the one that it enlarges.

    >>> [part.here for part in parts(((16, 32), (0, 48)), [(64, 64), (32, 32), (16, 16)], radius=2, margin=0)]
    [((14, 34), (0, 50)), ((10, 20), (0, 28)), ((0, 16), (0, 16))]
    """
    found, wanted = [], window
    for here, below in pairwise(sizes):
        needed = [
            (max(0, (start - radius) // 2 - margin), min(-(-(stop + radius) // 2) + margin, limit))
            for (start, stop), limit in zip(wanted, below)
        ]
        box = tuple((2 * start, min(2 * stop, limit)) for (start, stop), limit in zip(needed, here))
        found.append(Part(box, _inside(wanted, box)))
        wanted = tuple(needed)
    return [*found, Part(tuple((0, limit) for limit in sizes[-1]), wanted)]


def cut(features: Tensor, box: Box) -> Tensor:
    """``(..., H, W)`` to the box; the tensor itself where that is all of it.

    >>> import torch
    >>> cut(torch.zeros(1, 3, 8, 8), ((2, 5), (0, 8))).shape
    torch.Size([1, 3, 3, 8])
    """
    if box == tuple((0, size) for size in features.shape[-2:]):
        return features
    (top, bottom), (left, right) = box
    return features[..., top:bottom, left:right]


def _inside(box: Box, outer: Box) -> Box:
    return tuple((start - first, stop - first) for (start, stop), (first, _) in zip(box, outer))
