"""Which pixels of the image each unit of any torch module sees, and the halo that exact tiles need.

The room is called like its one function, so the module itself can be called:

>>> import torch, whatwhere
>>> whatwhere.field(torch.nn.Conv2d(3, 8, 3, padding=1), (3, 64, 64)).halo()
((1, 1), (1, 1))
"""

import sys
from collections.abc import Sequence
from types import ModuleType
from typing import Any

from torch import Tensor, nn

from whatwhere.field.build import elsewhere, field
from whatwhere.field.field import Field
from whatwhere.field.grids import Grid
from whatwhere.field.obstacles import Obstacle

__all__ = ["Field", "Grid", "Obstacle", "elsewhere", "field"]


class _Room(ModuleType):
    """``whatwhere.field(module, image_shape)`` is ``whatwhere.field.field(module, image_shape)``."""

    def __call__(
        self,
        module: nn.Module,
        image_shape: Sequence[int],
        *,
        dims: int | None = None,
        inputs: Sequence[Any] | Tensor | None = None,
        known: Field | None = None,
    ) -> Field:
        return field(module, image_shape, dims=dims, inputs=inputs, known=known)


sys.modules[__name__].__class__ = _Room
