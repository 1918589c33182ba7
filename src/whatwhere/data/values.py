"""The values that masks hold: counting them, as plain integers, and telling classes from blurred edges.

Knows nothing of what values mean.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import combinations, pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from whatwhere.records import MaskValue

__all__ = ["ValueCount", "ValueCounts", "code_of", "codes_of", "count_values", "soft_values", "value_of"]

LAST_ID = 40
"""VOC has 21 ids and Cityscapes 34; 255 beside such is void. Levels of grey lie further apart."""

SOLID = 0.1
"""In antialiased and JPEG masks a class has this share of its pixels amid eight of its own; values at edges do not."""

NUMBERED_MASKS, MANY_NUMBERS = 4, 8
"""Of fewer masks or values hardly anything tells numbers of objects from classes."""

MANY_LOOSE = 16
"""So many values that only occur along edges are no classes."""

_PEAK = 3
"""The end of a blur has so many times as many pixels as most values between."""

NEAR = 12
"""Values no further apart can be one class in a JPEG mask."""

_STRAY, _FEWER = 3, 0.1
"""In a mask of the best JPEG quality values are so far off at most, at a smaller share of pixels."""

BLENDED = 48
"""Colours at edges lie this near the line between two classes: 99 % of them in JPEG at quality 60 and above."""

MOST_COUNTED, _OF_A_PHOTOGRAPH = 2**14, 2**8
"""Values of a mask that are counted each: JPEG leaves thousands. A photograph in a mask's place has 10^5 and more."""

PHOTOGRAPH = 0.02
"""Different colours for each pixel of what is no mask; JPEG of a mask leaves fewer."""


@dataclass(frozen=True)
class ValueCount:
    """How often a mask holds a value.

    Attributes:
        value: an integer or an RGB colour.
        pixels: how many pixels hold it.
        solid: how many of them lie amid eight neighbours of the same value.
    """

    value: MaskValue
    pixels: int
    solid: int


@dataclass(frozen=True)
class ValueCounts:
    """The `ValueCount` of each value of a mask, smallest first; in columns, to be kept for thousands of masks.

    Attributes:
        codes: of each value its `code_of`.
        pixels, solid: of each value as in `ValueCount`.
        colors: whether the values are colours.
        distinct: how many values the mask holds; beyond `MOST_COUNTED` only the commonest are listed, and of a
            photograph few.
        area: pixels of the mask.
    """

    codes: array[int]
    pixels: array[int]
    solid: array[int]
    colors: bool
    distinct: int
    area: int

    @property
    def is_photograph(self) -> bool:
        """Whether no mask of classes holds so many colours, however it was compressed."""
        return self.distinct > PHOTOGRAPH * self.area

    def __len__(self) -> int:
        return len(self.codes)

    def __iter__(self) -> Iterator[ValueCount]:
        return (ValueCount(value_of(v, self.colors), n, m) for v, n, m in zip(self.codes, self.pixels, self.solid))


def count_values(mask: NDArray[Any]) -> ValueCounts:
    """Count the values of a mask.

    Args:
        mask: ``HxW`` integers or ``HxWx3`` uint8 colours, as `read_mask` gives them.

    >>> [c.value for c in count_values(np.array([[0, 0], [0, 7]]))]
    [0, 7]
    """
    colors = mask.ndim == 3
    codes = codes_of(mask) if colors else mask
    values, pixels = _tally(codes)
    solid = np.zeros_like(pixels)
    if min(codes.shape) >= 3:
        amid, times = _tally(codes[1:-1, 1:-1][_solid(codes)])
        solid[np.searchsorted(values, amid)] = times
    counts = ValueCounts(_packed(values), _packed(pixels), _packed(solid), colors, len(values), codes.size)
    if len(values) <= MOST_COUNTED:
        return counts
    few = _OF_A_PHOTOGRAPH if colors and counts.is_photograph else MOST_COUNTED
    most = np.sort(np.argsort(-pixels, kind="stable")[:few])
    return replace(counts, codes=_packed(values[most]), pixels=_packed(pixels[most]), solid=_packed(solid[most]))


def _packed(numbers: NDArray[Any]) -> array[int]:
    return array("q", numbers.astype(np.int64).tobytes())


def soft_values(counts: Iterable[ValueCount]) -> frozenset[MaskValue]:
    """The values that only occur along the edges between others, as antialiasing and JPEG make them; else empty."""
    counts = sorted(counts, key=lambda count: -count.pixels)
    numbers = [count.value for count in counts if isinstance(count.value, int)]
    if numbers and (min(numbers) < 0 or max(numbers) not in (*range(256), 2**16 - 1)):
        return frozenset()  # numbers of objects: what is smoothed goes up to white, of 8 or of 16 bits
    total = sum(count.pixels for count in counts)
    firm, astray, loose = list[ValueCount](), list[ValueCount](), list[ValueCount]()
    for count in counts:
        if count.solid < SOLID * count.pixels or count.pixels < 1e-4 * total:
            loose.append(count)
        elif any(_is_astray(count, other) for other in firm):  # a block that JPEG left a little off
            astray.append(count)
        else:
            firm.append(count)
    if len(firm) == 1 and (end := _thin_end(firm[0], loose)):
        loose.remove(end)
        firm.append(end)
    pixels = sum(c.pixels for c in loose)
    if len(firm) < 2 or pixels > total / 2 or sum(c.solid for c in loose) > SOLID / 2 * pixels:
        return frozenset()
    if not _strays(loose, firm) and (len(loose) < 3 or not _blend(loose, firm)):
        return frozenset()
    return frozenset(c.value for c in (*loose, *astray))


def _thin_end(firm: ValueCount, loose: Sequence[ValueCount]) -> ValueCount | None:
    """Black or white opposite to the one value with areas, where it is no blur: vessels are too thin to have areas."""
    opposite = {0: 255, 255: 0}.get(firm.value) if isinstance(firm.value, int) else None
    end = next((count for count in loose if count.value == opposite), None)
    if end is None or len(loose) <= MANY_LOOSE:
        return None
    # numbers of objects have about as many pixels each; of blurred values the ends have most
    return end if end.pixels > _PEAK * float(np.median([count.pixels for count in loose])) else None


def _strays(loose: Sequence[ValueCount], firm: Sequence[ValueCount]) -> bool:
    """Whether each loose value lies close to a firm one that has far more pixels, as the best JPEG leaves them.

    Not among small ids, whose firm ones lie close as well.
    """
    if any(isinstance(count.value, tuple) for count in firm):
        return False
    ends = sorted(int(count.value) for count in firm)  # type: ignore[arg-type]
    apart = all(later - earlier > 2 * NEAR for earlier, later in pairwise(ends))
    near = all(any(_is_close(count, other) for other in firm) for count in loose)
    return apart and near and any(int(count.value) > LAST_ID for count in loose)  # type: ignore[arg-type]


def _is_close(count: ValueCount, other: ValueCount) -> bool:
    off = int(np.abs(np.subtract(count.value, other.value)).max())
    return off <= _STRAY and count.pixels < _FEWER * other.pixels


def _is_astray(count: ValueCount, other: ValueCount) -> bool:
    apart = int(np.abs(np.subtract(count.value, other.value)).max())
    # ids lie side by side, colours of classes do not
    return apart <= NEAR and (isinstance(count.value, tuple) or count.pixels < 0.1 * other.pixels)


def _blend(loose: Sequence[ValueCount], firm: Sequence[ValueCount]) -> bool:
    """Whether loose values are many blends of firm ones: between two of them, or scattered as ids would not be."""
    values = np.array([c.value for c in loose], np.float64).reshape(len(loose), -1)
    ends = np.array([c.value for c in firm], np.float64).reshape(len(firm), -1)
    if ends.shape[1] == 1:
        inner = ((values > ends.min()) & (values < ends.max())).all()
        scattered = inner and np.ptp(ends) > 2 * (len(firm) + len(loose))
        return len(loose) >= MANY_LOOSE or bool(scattered)
    away = np.full(len(values), np.inf)
    for first, second in combinations(ends, 2):
        along = second - first
        share = ((values - first) @ along / (along @ along)).clip(0, 1)
        away = np.minimum(away, np.linalg.norm(values - first - share[:, None] * along, axis=1))
    pixels = np.array([c.pixels for c in loose])
    return len(loose) >= MANY_LOOSE and bool(pixels[away <= BLENDED].sum() > 0.9 * pixels.sum())


def code_of(value: MaskValue, colors: bool) -> int:
    """The integer that stands for a value; a grey value among colours is the colour of three such channels."""
    if isinstance(value, tuple):
        return value[0] << 16 | value[1] << 8 | value[2]
    return value * 0x010101 if colors else value


def value_of(code: int, colors: bool) -> MaskValue:
    """What `code_of` was given."""
    return (code >> 16, code >> 8 & 255, code & 255) if colors else code


def codes_of(mask: NDArray[Any], as_color: bool = False) -> NDArray[np.int64]:
    """`code_of` for every pixel of ``HxW`` values or ``HxWx3`` colours: the value itself, or 0xRRGGBB."""
    codes: NDArray[np.int64] = mask.astype(np.int64)
    if mask.ndim == 3:
        codes = codes[:, :, 0] << 16 | codes[:, :, 1] << 8 | codes[:, :, 2]
    elif as_color:
        codes *= 0x010101
    return codes


def _tally(codes: NDArray[Any]) -> tuple[NDArray[Any], NDArray[np.int64]]:
    """The distinct values, sorted, and how often each occurs. Quick for masks: a run of one value is sorted once."""
    flat = codes.ravel()
    if flat.dtype == np.uint8:
        counts = np.bincount(flat, minlength=256)
        values = np.flatnonzero(counts)
        return values, counts[values]
    starts = np.flatnonzero(np.concatenate([[flat.size > 0], flat[1:] != flat[:-1]]))
    values, inverse = np.unique(flat[starts], return_inverse=True)
    lengths = np.diff(np.append(starts, flat.size))
    return values, np.bincount(inverse, weights=lengths, minlength=len(values)).astype(np.int64)


def _solid(codes: NDArray[Any]) -> NDArray[np.bool_]:
    """For each pixel off the border, whether its eight neighbours hold its value."""
    across = (codes[:, 1:-1] == codes[:, :-2]) & (codes[:, 1:-1] == codes[:, 2:])
    down = (codes[1:-1] == codes[:-2]) & (codes[1:-1] == codes[2:])
    solid: NDArray[np.bool_] = across[:-2] & across[1:-1] & across[2:] & down[:, 1:-1]
    return solid
