"""A layer's strongest feature maps, and the pieces of images that excite them most. Knows a lens and its images."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from whatwhere.explorer.errors import RefusalError
from whatwhere.explorer.lens import Lens
from whatwhere.explorer.pictures import data_url, stretched
from whatwhere.explorer.shown import Shown

__all__ = ["strongest_maps"]

_MAPS, _PATCHES, _LARGEST_PATCH = 6, 4, 96
_OTHERS = 8
"""Images that are searched for patches."""


def strongest_maps(lens: Lens, shown: Shown, name: str, others: Sequence[Shown]) -> list[dict[str, Any]]:
    """The maps that vary most over this image, each with the patches (at most the receptive field) that excite it most.

    Args:
        name: of a layer other than the raw pixel.
        others: where patches are looked for.
    """
    layer = next((one for one in lens.anatomy.layers if one.name == name and one.role != "pixel"), None)
    if layer is None:
        names = ", ".join(one.name for one in lens.anatomy.layers[1:])
        raise RefusalError(422, f"no features of {name[:40]!r}", f"one of {names}", "")
    if not lens.has_levels(shown):
        raise lens.other_levels(shown)
    maps = lens.features(shown)[name][0].float().cpu().numpy()
    strength = maps.std((1, 2))
    chosen = [int(channel) for channel in np.argsort(-strength)[:_MAPS]]
    peaks: list[list[tuple[float, Shown, int, int]]] = [[] for _ in chosen]
    extent = lens.anatomy.windows((1, lens.model.normalisation.channels, *shown.size)).extent(layer.module)
    for one in lens.alike([other for other in others if lens.takes(other)], _OTHERS):
        found = lens.features(one)[name][0].float().cpu().numpy()
        for place, channel in enumerate(chosen):
            row, column = divmod(int(found[channel].argmax()), found.shape[2])
            centre = [
                int(min(n - 1, origin + unit * side + side // 2))
                for unit, origin, side, n in zip((row, column), layer.origin, layer.cell, one.size)
            ]
            peaks[place].append((float(found[channel].max()), one, centre[0], centre[1]))
    side = _LARGEST_PATCH if extent is None else min(_LARGEST_PATCH, *extent)
    return [
        {
            "channel": channel, "picture": data_url(stretched(maps[channel])),
            "patches": [_patch(one, row, column, side) for _, one, row, column in _best(peaks[place])],
        }
        for place, channel in enumerate(chosen)
    ]  # fmt: skip


def _best(peaks: list[tuple[float, Shown, int, int]]) -> list[tuple[float, Shown, int, int]]:
    return sorted(peaks, key=lambda peak: -peak[0])[:_PATCHES]


def _patch(shown: Shown, row: int, column: int, side: int) -> dict[str, Any]:
    top, left = (int(np.clip(at - side // 2, 0, max(0, n - side))) for at, n in zip((row, column), shown.size))
    piece = np.ascontiguousarray(shown.rgb[top : top + side, left : left + side])
    return {"x": column, "y": row, "picture": data_url(piece)}
