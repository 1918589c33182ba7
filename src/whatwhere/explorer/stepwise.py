"""An anatomy that says when it is about to compute, so that something long can pause or end between its steps."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from torch import Tensor, nn

from whatwhere.explain.anatomy import Anatomy, Layer, Path
from whatwhere.field import Field

__all__ = ["Stepwise"]


class Stepwise:
    """An anatomy.

    Args:
        anatomy: that computes.
        step: called before each computation; what it raises ends the work.
    """

    def __init__(self, anatomy: Anatomy, step: Callable[[], None]) -> None:
        self._anatomy, self._step = anatomy, step

    @property
    def network(self) -> nn.Module:
        return self._anatomy.network

    @property
    def layers(self) -> tuple[Layer, ...]:
        return self._anatomy.layers

    @property
    def paths(self) -> tuple[Path, ...]:
        return self._anatomy.paths

    def read(self, image: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        self._step()
        return self._anatomy.read(image)

    def carried(self, image: Tensor) -> tuple[Tensor, ...]:
        self._step()
        return self._anatomy.carried(image)

    def decode(self, carried: Sequence[Tensor], size: tuple[int, int]) -> Tensor:
        self._step()
        return self._anatomy.decode(carried, size)

    def windows(self, shape: Sequence[int]) -> Field:
        return self._anatomy.windows(shape)
