"""What `explain` returns: everything that was measured, in one record. Knows the records of this room only."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from whatwhere.data.findings import many
from whatwhere.explain.anatomy import Layer
from whatwhere.explain.cases import Case
from whatwhere.explain.diagnosis import Diagnosis
from whatwhere.explain.levels import Levels
from whatwhere.explain.measured import as_json
from whatwhere.explain.objects import ObjectSize
from whatwhere.explain.pixel import PixelStory
from whatwhere.explain.presence import Presence
from whatwhere.explain.sight import Sights
from whatwhere.explain.skips import Worths
from whatwhere.records import Classes

__all__ = ["Example", "Explanation"]


@dataclass(frozen=True, eq=False)
class Example:
    """One image as every layer's probe paints it.

    Attributes:
        case: the image; its probe was fitted without it, where there are others.
        truth: what was aimed at.
        painting: the network's own answer.
        by_layer: by layer name, ``H x W`` class ids.
    """

    case: Case
    truth: NDArray[np.uint8]
    painting: NDArray[np.uint8]
    by_layer: dict[str, NDArray[np.uint8]]


@dataclass(frozen=True, eq=False)
class Explanation:
    """All that was measured of one model on one data set. Prints itself; `to_json` is its measurements.json.

    Attributes:
        classes: of the model.
        network: in one line.
        images: names of those used.
        truth: measured against masks. If not, against the network's own painting: how its answer arises, not
            whether it is right.
        layers: what was read.
        levels, presence, skips, sights, objects, pixel, diagnoses: see there; None or empty where there was nothing
            to measure, and ``notes`` say why.
        seconds: wall time.
    """

    classes: Classes
    network: str
    images: tuple[str, ...]
    truth: bool
    layers: tuple[Layer, ...]
    levels: Levels | None
    presence: Presence | None
    skips: Worths
    sights: Sights
    objects: tuple[ObjectSize, ...]
    examples: tuple[Example, ...]
    pixel: PixelStory
    diagnoses: tuple[Diagnosis, ...]
    notes: tuple[str, ...]
    seed: int
    seconds: float
    versions: dict[str, str]

    def __str__(self) -> str:
        parts = [f"{self.network}, {many(len(self.images), 'image')}, {self.seconds:.0f} s"]
        parts += [str(part) for part in (self.levels, self.skips, self.sights) if part is not None]
        parts += [str(one) for one in self.diagnoses if one.found]
        return "\n\n".join([*parts, *self.notes])

    def to_json(self) -> dict[str, Any]:
        """What ``measurements.json`` holds: all but the example images, as ``json`` can write it."""
        kept = {name: value for name, value in vars(self).items() if name != "examples"}
        return {name: as_json(value) for name, value in kept.items()}
