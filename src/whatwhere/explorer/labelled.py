"""The labelled images behind the desk: some lie on it, and an image that is one of them is known to be it.

Knows image sets; nothing of models or requests.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np

from whatwhere.data.folder import bare
from whatwhere.data.images import image_size, pixel_digest, read_image_and_valid
from whatwhere.data.sets import ImageSet
from whatwhere.errors import WhatwhereError
from whatwhere.explorer.shown import SIDE, Shown, cut_to_size
from whatwhere.records import VOID

__all__ = ["Labelled"]

_SHOWN = 12


class Labelled:
    """Labelled images; None if there are none."""

    def __init__(self, data: ImageSet | None) -> None:
        self._data = data
        self._names: tuple[str, ...] = () if data is None else data.names
        self._digests: dict[int, str] = {}

    def some(self) -> list[str]:
        """Names of those that lie on the desk, spread evenly over all."""
        count = len(self._names)
        places = sorted({int(place) for place in np.linspace(0, count - 1, min(_SHOWN, count)).round()})
        return [self._names[place] for place in places]

    def lay(self, name: str, key: str) -> Shown:
        """The image of a name as it lies on the desk under a key."""
        return self._at(self._names.index(name), key)

    def _at(self, place: int, key: str) -> Shown:
        assert self._data is not None
        name, (raw, labels) = self._names[place], self._data.store[place]
        # what has no data is void, and so is what nobody painted: the file tells which
        holes = self._data.paths and (labels == VOID).any()
        valid = read_image_and_valid(self._data.paths[place])[1] if holes else None
        return replace(cut_to_size(key, name, raw, labels, valid=valid), source=name)

    def by_name(self, shown: Shown) -> Shown | None:
        """What an image is among these: that of the same name, if it has the same pixels."""
        for place, name in enumerate(self._names):
            same = Path(name).name == bare(Path(shown.name)).name
            if same and (found := self._still_at(place, shown.id)):
                # what has no data is void, and filled by the mean of what was read: the whole image here, a cut there
                known = np.ones(found.size, bool) if found.truth is None else found.truth != VOID
                if found.raw.shape == shown.raw.shape and np.array_equal(found.raw[known], shown.raw[known]):
                    return found
        return None

    def by_pixels(self, shown: Shown) -> Shown | None:
        """What an image is among these, whatever it is called: each of its size is read for it, once."""
        digest = pixel_digest(shown.raw)
        for place in range(len(self._names)):
            if self._digest(place, shown.size) == digest and (found := self._still_at(place, shown.id)):
                return found
        return None

    def _still_at(self, place: int, key: str) -> Shown | None:
        """None if it has gone, or can't be read any more: no reason to refuse a good image."""
        try:
            return self._at(place, key)
        except WhatwhereError:
            return None

    def _digest(self, place: int, size: tuple[int, int]) -> str:
        """That of the part that is shown; empty if it has another size, or can't be read."""
        assert self._data is not None
        if place in self._digests:
            return self._digests[place]
        try:
            if self._data.paths and tuple(min(n, SIDE) for n in image_size(self._data.paths[place])) != size:
                return ""
            self._digests[place] = pixel_digest(cut_to_size("", "", self._data.store[place][0]).raw)
        except WhatwhereError:  # damaged by now
            self._digests[place] = ""
        return self._digests[place]
