"""Which images show the same thing: a fingerprint for each image, and the pairs and groups that are alike.

Knows nothing of files and splits.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

__all__ = ["ALIKE", "alike", "fingerprint", "groups", "likeness", "twins", "uprightness"]

ALIKE = 0.96
"""Correlation of fingerprints, less uneven light, from which two images count as near duplicates.

Measured: of 887 photographs of cats the 14 pairs above 0.971 show the same, and no other pair reaches 0.95; of driving
video neighbouring frames reach 0.998; neighbouring sections of electron microscopy reach 0.81.
"""

_TURNED = 0.99
"""As `ALIKE`, of an image and another turned by a right angle or mirrored. Such copies are made from the file, and of
the same light: they reach 0.998. Other images of round fields of view, as of eyes, reach 0.97."""

_SIDE = 16
_STRIP = 512  # images that are compared with all later ones at once,
_PAIRS = 2**21  # fewer where that would be more pairs, which may all be alike
_ENOUGH = 8  # images, to tell which way is up
_FLAT = 2e-3  # thumbnails with less contrast show nothing that could be alike


def fingerprint(image: NDArray[Any]) -> bytes:
    """The image's 16x16 grey thumbnail, freed of brightness and contrast; empty for an image without contrast.

    Args:
        image: ``HxWxC``, any dtype and size.
    """
    if image.dtype == np.uint8 and image.shape[2] == 3:
        gray = Image.fromarray(image).convert("L")
    else:
        gray = Image.fromarray(image[:, :, :4].mean(-1, dtype=np.float32))
    thumb = np.asarray(gray.resize((_SIDE, _SIDE), Image.Resampling.BOX), np.float64)
    spread = thumb.std()
    if not spread > _FLAT * max(float(np.abs(thumb).max()), 1e-30):
        return b""
    even: NDArray[np.float16] = ((thumb - thumb.mean()) / spread).astype(np.float16)
    return even.tobytes()


def twins(prints: Sequence[bytes], sides: Sequence[int]) -> dict[int, int]:
    """For images that are alike to an earlier one of another side that one; an image of side -1 has none."""
    side, found = np.asarray(sides), dict[int, int]()
    for strip in _strips(prints):
        ones, others = side[strip[:, 0]], side[strip[:, 1]]
        apart = strip[(ones != others) & (ones >= 0) & (others >= 0)]
        later, place = np.unique(apart[:, 1], return_index=True)
        found |= zip(later.tolist(), apart[place, 0].tolist())
    return found


def alike(prints: Sequence[bytes]) -> list[list[int]]:
    """Groups of images that are alike, also by way of others; every image is in one."""
    part = np.arange(len(prints))  # of each image that to which it is bound so far
    for strip in _strips(prints):
        bound = part[strip]
        apart = bound[bound[:, 0] != bound[:, 1]]
        if len(apart):
            part = _parts(len(prints), apart)[part]
    return _members(part)


def likeness(prints: Sequence[bytes], pairs: Sequence[tuple[int, int]]) -> float:
    """The mean correlation of pairs of images, less uneven light, from -1 to 1; 0 if none of them shows anything."""
    shown = [pair for pair in pairs if all(prints[place] for place in pair)]
    if not shown:
        return 0.0
    ones, others = (
        _without_shading(np.stack([np.frombuffer(prints[pair[side]], np.float16).astype(np.float64) for pair in shown]))
        for side in (0, 1)
    )
    return float((ones * others).sum(1).mean())


def _strips(prints: Sequence[bytes]) -> Iterator[NDArray[np.intp]]:
    """Pairs ``(n, 2)`` that are alike, one of them maybe turned or mirrored.

    Of so many images at a time that their number does not grow with the square.
    """
    places = np.array([place for place, print_ in enumerate(prints) if print_], np.intp)
    if len(places) < 2:
        return
    thumbs = np.stack([np.frombuffer(prints[place], np.float16).astype(np.float64) for place in places])
    detail = _without_shading(thumbs)
    bound = _however_turned(detail)
    side = max(1, min(_STRIP, _PAIRS // len(detail)))
    for start in range(0, len(detail), side):
        strip, rest = slice(start, start + side), slice(start, None)
        near = detail[strip] @ detail[rest].T >= ALIKE
        may = (bound[strip] @ bound[rest].T >= _TURNED) & ~near
        rows, columns = np.flatnonzero(may.any(1)), np.flatnonzero(may.any(0))
        others = detail[rest][columns].T
        for turned in _turned(detail[strip][rows]):
            near[np.ix_(rows, columns)] |= turned @ others >= _TURNED
        first, second = np.nonzero(near)
        later = second > first
        yield np.stack([places[start + first[later]], places[start + second[later]]], axis=1)


def _turned(thumbs: NDArray[np.float32]) -> Iterator[NDArray[np.float32]]:
    """The rows turned by right angles and mirrored, in the seven ways that are not upright."""
    upright = thumbs.reshape(-1, _SIDE, _SIDE)
    for turns, mirrored in ((1, 0), (2, 0), (3, 0), (0, 1), (1, 1), (2, 1), (3, 1)):
        form = np.rot90(upright[:, :, ::-1] if mirrored else upright, turns, (1, 2))
        yield form.reshape(thumbs.shape)


def _however_turned(thumbs: NDArray[np.float32]) -> NDArray[np.float32]:
    """Rows whose products are no smaller than those of the thumbnails in any form, so that few need all eight.

    The mean of the eight forms is the same for all of them, and four quadrants of it are; what is left adds to a
    product at most by its length (Cauchy and Schwarz).
    """
    even = (thumbs + sum(_turned(thumbs))) / 8
    left = np.linalg.norm(thumbs - even, axis=1, keepdims=True)
    quadrant = even.reshape(-1, _SIDE, _SIDE)[:, : _SIDE // 2, : _SIDE // 2].reshape(len(thumbs), -1)
    return np.hstack([2 * quadrant, left + 1e-3])  # and rounding


def groups(count: int, pairs: NDArray[np.intp]) -> list[list[int]]:
    """Partition ``range(count)`` so that the two of a pair, ``(n, 2)`` of them, are always together.

    >>> groups(4, np.array([(0, 2), (2, 3)]))
    [[0, 2, 3], [1]]
    """
    return _members(_parts(count, pairs))


def _parts(count: int, pairs: NDArray[np.intp]) -> NDArray[np.intp]:
    """For each of ``range(count)`` its part, of parts numbered by their first members."""
    from scipy.sparse import coo_array  # slow to import, and only surveys need it
    from scipy.sparse.csgraph import connected_components

    first, second = pairs.T.astype(np.int32)  # scipy 1.11 takes no others here
    graph = coo_array((np.ones(len(pairs), np.int8), (first, second)), shape=(count, count))
    part: NDArray[np.intp] = connected_components(graph, directed=False)[1].astype(np.intp)
    return part


def _members(part: NDArray[np.intp]) -> list[list[int]]:
    """The members of each part, where parts are numbered from 0 without a gap."""
    members: list[list[int]] = [[] for _ in range(part.max(initial=-1) + 1)]
    for member, number in enumerate(part.tolist()):
        members[number].append(member)
    return members


def uprightness(prints: Iterable[bytes]) -> float:
    """How strongly the images agree on which way is up, from 0 (not at all) to 1: on being darker or lighter below.

    The correlation of brightness with height, averaged over the images, less three standard errors. Driving video
    reaches 0.62; photographs of cats and electron microscopy reach 0.02 and 0.
    """
    thumbs = [np.frombuffer(print_, np.float16).astype(np.float64).reshape(_SIDE, _SIDE) for print_ in prints if print_]
    if len(thumbs) < _ENOUGH:
        return 0.0
    slope = np.linspace(-1, 1, _SIDE)
    slope /= slope.std()
    agreement = np.array([(thumb.mean(1) * slope).mean() for thumb in thumbs])
    return float(max(0.0, abs(agreement.mean()) - 3 * agreement.std() / np.sqrt(len(thumbs))))


def _without_shading(thumbs: NDArray[np.float64]) -> NDArray[np.float32]:
    """Rows of unit length, less their best fit by a paraboloid: uneven light makes no two images alike."""
    y, x = np.mgrid[-1 : 1 : _SIDE * 1j, -1 : 1 : _SIDE * 1j].reshape(2, -1)
    smooth, _ = np.linalg.qr(np.stack([np.ones_like(x), x, y, x * x, x * y, y * y], 1))
    detail = thumbs - thumbs @ smooth @ smooth.T
    unit: NDArray[np.float64] = detail / np.maximum(np.linalg.norm(detail, axis=1, keepdims=True), 1e-12)
    return unit.astype(np.float32)
