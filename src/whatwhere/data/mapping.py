"""What mask values mean: infer the classes of a data set from the values in its masks, and turn masks into class ids.

A mask's values are integers or RGB colours. Knows nothing of files (but ``classes.toml``) and of images.
"""

from __future__ import annotations

import tomllib
from array import array
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from whatwhere.data.colors import BACKGROUND, distinct_colors
from whatwhere.data.values import (
    LAST_ID,
    MANY_NUMBERS,
    MOST_COUNTED,
    NEAR,
    NUMBERED_MASKS,
    SOLID,
    ValueCount,
    ValueCounts,
    code_of,
    codes_of,
    count_values,
    soft_values,
    value_of,
)
from whatwhere.errors import DataError
from whatwhere.records import VOID, Classes, MaskValue, color_of, color_text, mask_value, parse_color

__all__ = [
    "as_classes_are",
    "class_colors",
    "encode_mask",
    "infer_classes",
    "read_classes",
    "stands_off",
]

MOST_COLORS = 100
"""More colours than this in masks are taken for a mistake, unless ``classes.toml`` lists them."""

_FEW_COLORS = 4
"""Near so many lie most pixels of a mask that JPEG or smoothing has changed."""

_CLASS_KEYS = ("value", "values", "name", "color")
_UNKNOWN = VOID - 1  # class ids end below it


def read_classes(path: str | Path) -> Classes:
    """Read a ``classes.toml``: ``void = [..]`` and a ``[[class]]`` table with ``value``, ``name``, ``color`` each.

    A value is an integer, ``"#rrggbb"`` or ``[r, g, b]``; ``values = [..]`` lists several that mean the class.
    ``name`` and ``color`` may be left out. ``nearest = true`` gives other values to the nearest class.

    Raises:
        DataError: not TOML, an unknown key, a value that is no mask value, or one that is listed twice.
    """
    path = Path(path)
    try:
        return _parse_classes(tomllib.loads(path.read_text("utf-8-sig")))
    except (ValueError, TypeError, AttributeError, OSError) as error:
        raise DataError(
            f"{path}: {error}",
            "void = [..] and [[class]] tables with value, name and color = '#rrggbb'",
            "correct the file, or remove it to have the classes inferred from the masks",
        ) from error


def _parse_classes(record: dict[str, Any]) -> Classes:
    tables = record.get("class", [])
    if not isinstance(tables, list) or not all(isinstance(table, dict) for table in tables):
        raise ValueError("class is no list of tables: each begins with a line of its own, [[class]] in two brackets")
    keys = set(record) | {f"class.{key}" for table in tables for key in table}
    if unknown := sorted(keys - {"void", "nearest", "class", *(f"class.{key}" for key in _CLASS_KEYS)}):
        raise ValueError(f"unknown key {unknown[0]!r}")
    if bad := [table for table in tables if ("value" in table) == ("values" in table)]:
        raise ValueError(f"the class {bad[0].get('name', '')!r} has not one of value and values")
    values = tuple(_mask_values(t, "values") if "values" in t else (mask_value(t["value"]),) for t in tables)
    void = _mask_values(record, "void")
    nearest = record.get("nearest", False)
    if not isinstance(nearest, bool):
        raise ValueError(f"nearest = {nearest!r} is neither true nor false, which stand without quotes")
    if not all(values):
        raise ValueError("a class has no value")
    return Classes(
        names=tuple(str(t.get("name") or _name(v[0])) for t, v in zip(tables, values)),
        colors=tuple(_color(t["color"]) if "color" in t else c for t, c in zip(tables, class_colors(values))),
        values=values,
        void=void,
        nearest=nearest,
    )


def infer_classes(
    masks: Mapping[str, ValueCounts],
    palettes: Mapping[str, NDArray[np.uint8]] | None = None,
    no_data: Collection[MaskValue] = (),
) -> Classes:
    """Infer the classes of a data set from the values in its masks.

    Every value is a class, except that 255 beside ids that it stands far off from is void (as in VOC and Cityscapes;
    its colour beside VOC's too). Void are also what the files' own tags call no data, unless it is 0, negative values,
    and the largest of 16 and 32 bits beside such (as in maps, where nothing is known). In masks whose values blur along
    edges (antialiased, JPEG) the few values with solid areas are the classes and ``nearest`` is set. The indices of
    palette files are the values, unless the files' palettes differ in what they use, or other masks are coloured: then
    their colours are.

    Args:
        masks: the values of each mask, under a name to show in errors.
        palettes: palettes of the files that have one, ``(256, 3)``; the first gives the colours of integer classes.
        no_data: values that the files' tags say mean it. Of 0 that is not believed: programs copy the tag of the image.

    Raises:
        DataError: more values than could be classes, or ids and 255 (or all bits set) that may mean the same.
    """
    palettes = {} if palettes is None else palettes
    no_class: set[MaskValue] = set()
    if _need_colors(masks, palettes):
        no_class = _colors_of_void(masks, palettes)
        masks = {name: _colored(name, counts, palettes.get(name)) for name, counts in masks.items()}
    colored = any(counts.colors for counts in masks.values())
    if any(one.colors and one.is_photograph and one.distinct > MOST_COUNTED for one in masks.values()):
        raise _too_many(masks, 0, "colours")  # as pooling them would tell, in far more memory
    pooled = _pool(masks)
    soft = _soft_values(masks, pooled, colored)
    kept = sorted(value for value in pooled if value not in soft)
    if _is_voc(kept):
        no_class.add(_VOC_VOID)
    void: tuple[MaskValue, ...] = ()
    _refuse_two_ways(masks, kept)
    tagged = [value for value in kept if value in no_data and value]
    if len(kept) > len(tagged) + 1:
        no_class.update(tagged)
    lacking = [value for value in kept if isinstance(value, int) and (value < 0 or value in _NO_DATA)]
    if len(kept) == 2 and kept[-1] in _NO_DATA:
        lacking = []  # all bits set beside one other value: a mask of 0 and 1, as 255 in one of 8 bits
    if lacking and len(lacking) < len(kept) and _are_ids([v for v in kept if v not in lacking and v != VOID]):
        void, kept = tuple(lacking), [value for value in kept if value not in lacking]
    if not colored and len(kept) >= 3 and kept[-1] == VOID and _are_ids_of_void(kept[:-1]):
        _refuse_two_ways(masks, kept)
        no_class.add(VOID)
    void, kept = (*void, *(v for v in kept if v in no_class)), [v for v in kept if v not in no_class]
    if len(kept) > (MOST_COLORS if colored else VOID - 1):
        raise _too_many(masks, len(kept), "colours" if colored else "values")
    palette = next(iter(palettes.values()), None)
    values = tuple((value,) for value in kept)
    colors = class_colors(values)
    if palette is not None and not colored:
        own = [color_of(palette[v]) if isinstance(v, int) and v < 256 else c for v, c in zip(kept, colors)]
        colors = tuple(own) if len(set(own)) == len(own) else colors
    return Classes(_names(kept), colors, values, void, nearest=bool(soft))


def as_classes_are(mask: NDArray[Any], palette: NDArray[np.uint8] | None, classes: Classes | None) -> NDArray[Any]:
    """A palette file's indices as its colours where the classes are colours; any other mask as it is."""
    if palette is None or classes is None or mask.ndim == 3 or not _table(classes).colors:
        return mask
    colors: NDArray[np.uint8] = palette[np.minimum(mask, 255)]
    return colors


def encode_mask(mask: NDArray[Any], classes: Classes, name: str = "mask") -> NDArray[np.uint8]:
    """Turn a mask into class ids.

    Args:
        mask: ``HxW`` integers or ``HxWx3`` uint8 colours. A grey value v is the colour ``(v, v, v)`` where the classes
            are colours.
        classes: which values mean what.
        name: the file to name in an error.

    Returns:
        ``HxW`` uint8 ids in ``[0, classes.count)``, 255 where void.

    Raises:
        DataError: a value that is in no class (unless ``classes.nearest``, and even then a mask of 0 and 1 where 1 is
            in none: that is another way of writing masks, and 0 would be nearest).

    >>> encode_mask(np.array([[0, 255]]), Classes(("no", "yes"), ((0, 0, 0), (1, 1, 1)), ((0,), (255,)))).tolist()
    [[0, 1]]
    """
    table = _table(classes)
    if mask.ndim == 3 and not table.colors:
        raise DataError(
            f"{name} is a colour mask", f"the integers {_listing(classes)}", "list its colours in classes.toml"
        )
    if table.nearest and not table.lists_one and _of_ones(mask):
        raise DataError(
            f"{name} is a mask of 0 and 1", f"one of {_listing(classes)}", "write 1 as the value of its class"
        )
    if mask.dtype == np.uint8 and mask.ndim == 2:
        levels = np.arange(256, dtype=np.uint8)
        ids: NDArray[np.uint8] = table.ids(codes_of(levels, table.colors))[mask]
    else:
        ids = table.ids(codes_of(mask, table.colors))
    missing = ids == _UNKNOWN
    if not missing.any():
        return ids
    values, counts = np.unique(codes_of(mask, table.colors)[missing], return_counts=True)
    most = int(np.argmax(counts))
    raise DataError(
        f"{name} has {int(counts[most]):,} pixels of value {value_of(int(values[most]), table.colors)}"
        + (f" and {len(values) - 1} other values" if len(values) > 1 else "")
        + " in no class",
        f"one of {_listing(classes)}",
        "add the value to a class or to void in classes.toml, or correct the mask",
    )


def _of_ones(mask: NDArray[Any]) -> bool:
    """Whether it holds nothing else, and ones in areas or many: JPEG leaves single ones beside zeros."""
    if mask.ndim != 2 or mask.max(initial=0) != 1 or mask.min() < 0:
        return False
    ones = next(count for count in count_values(mask) if count.value == 1)
    return ones.solid >= SOLID * ones.pixels or ones.pixels > 0.01 * mask.size


def class_colors(values: Sequence[Sequence[MaskValue]]) -> tuple[tuple[int, int, int], ...]:
    """A colour for each class: its own where masks are coloured, else one that colour-blind people tell apart.

    A first class of value 0 is dark.
    """
    colors: list[tuple[int, int, int]] = []
    fresh = iter(distinct_colors(len(values)))
    for place, (first, *_) in enumerate(values):
        if isinstance(first, tuple):
            colors.append(first)
        else:
            colors.append(BACKGROUND if place == 0 and first == 0 else next(fresh))
    return tuple(colors)


@dataclass(frozen=True)
class _Table:
    """The listed values of classes as sorted codes, and the id of each."""

    codes: NDArray[np.int64]
    targets: NDArray[np.uint8]
    colors: bool
    nearest: bool

    @property
    def lists_one(self) -> bool:
        return bool((self.codes == 1).any())

    def ids(self, codes: NDArray[np.int64]) -> NDArray[np.uint8]:
        ids: NDArray[np.uint8]
        place = np.minimum(np.searchsorted(self.codes, codes), len(self.codes) - 1)
        ids = np.where(self.codes[place] == codes, self.targets[place], np.uint8(_UNKNOWN))
        missing = ids == _UNKNOWN
        if self.nearest and missing.any():
            values, inverse = np.unique(codes[missing], return_inverse=True)
            ids[missing] = self.targets[self._closest(values)][inverse]
        return ids

    def _closest(self, codes: NDArray[np.int64]) -> NDArray[np.intp]:
        closest: NDArray[np.intp]
        if self.colors:
            ours, theirs = _channels(self.codes), _channels(codes)
            closest = ((theirs[:, None] - ours[None]) ** 2).sum(-1).argmin(1)
        else:  # values of 32 bits squared would be more than 64
            closest = np.abs(codes[:, None] - self.codes[None]).argmin(1)
        return closest


@lru_cache(maxsize=8)
def _table(classes: Classes) -> _Table:
    colors = any(isinstance(value, tuple) for items in (*classes.values, classes.void) for value in items)
    listed = [(code_of(v, colors), place) for place, items in enumerate(classes.values) for v in items]
    listed += [(code_of(v, colors), VOID) for v in classes.void]
    codes, targets = zip(*sorted(listed))
    return _Table(np.array(codes, np.int64), np.array(targets, np.uint8), colors, classes.nearest)


def _channels(codes: NDArray[np.int64]) -> NDArray[np.int64]:
    return np.stack([codes >> 16, codes >> 8 & 255, codes & 255], -1)


def _need_colors(masks: Mapping[str, ValueCounts], palettes: Mapping[str, NDArray[np.uint8]]) -> bool:
    """Whether an index means different things in different files: their colours differ, or some have only colours."""
    if palettes and any(counts.colors for counts in masks.values()):
        return True
    used = {
        name: [count.value for count in counts if isinstance(count.value, int) and count.value < 256]
        for name, counts in masks.items()
    }
    told = {  # a ramp of greys is what programs write that were given no palette
        name: palette for name, palette in palettes.items()
        if not all((palette[value] == value).all() for value in used[name])
    }  # fmt: skip
    plain = [values for name, values in used.items() if name not in told]
    black_and_white = any(VOID in values and {*values} <= {0, VOID} for values in plain)
    meant: dict[int, tuple[int, int, int]] = {0: (0, 0, 0)} if black_and_white else {}
    for name, palette in told.items():
        if any(meant.setdefault(value, color_of(palette[value])) != color_of(palette[value]) for value in used[name]):
            return True
    return False


def _colored(name: str, counts: ValueCounts, palette: NDArray[np.uint8] | None) -> ValueCounts:
    if palette is None:
        return counts
    colors = [color_of(palette[min(index, 255)]) for index in counts.codes]
    if len(set(colors)) < len(colors):
        twice = next(color for color in colors if colors.count(color) > 1)
        raise DataError(
            f"{name} has several values of the colour {twice}, and other masks give values other colours",
            "masks that mean the same by their values or by their colours",
            "save all masks with one palette, or with a colour of its own for each class",
        )
    return replace(counts, codes=array("q", [code_of(color, True) for color in colors]), colors=True)


def _colors_of_void(masks: Mapping[str, ValueCounts], palettes: Mapping[str, NDArray[np.uint8]]) -> set[MaskValue]:
    """The colours of 255 in palettes of files whose other values are small ids."""
    held = {name: {count.value for count in masks[name]} for name in palettes}
    used = {value for values in held.values() if not values <= {0, VOID} for value in values}  # not black and white
    if VOID not in used or len(used) < 3 or not _are_ids_of_void(sorted(used - {VOID})):
        return set()
    return {color_of(palette[VOID]) for name, palette in palettes.items() if any(c.value == VOID for c in masks[name])}


def _voc_color(index: int) -> tuple[int, int, int]:
    """Of the palette of PASCAL VOC, which gives the bits of an index to red, green and blue in turn, large ones first.

    >>> _voc_color(1), _voc_color(15), _voc_color(255)
    ((128, 0, 0), (192, 128, 128), (224, 224, 192))
    """
    return color_of(sum((index >> 3 * bit + channel & 1) << 7 - bit for bit in range(3)) for channel in range(3))


_VOC_VOID = _voc_color(VOID)


def _is_voc(values: Sequence[MaskValue]) -> bool:
    """Whether these are VOC's colours for its border and for two or more classes, and no others."""
    classes = set(values) - {_VOC_VOID}
    return _VOC_VOID in values and len(classes) >= 2 and classes <= {_voc_color(index) for index in range(VOID)}


_NO_DATA = (2**16 - 1, 2**31 - 1, 2**32 - 1)
"""What maps hold where nothing is known, beside negative numbers: no ids of classes."""


_FAR = (8, 2), (4, 3), (0, 5)
"""Of so many ids at least, how many times as far off 255 is, if it is none of them. Of NLCD's 11, 41, 82 and 95 it is
3.9 times, of a dozen ids of COCO-Stuff 2.7; of levels of grey as 0, 128 and 0, 50, 100, 150 less than 2.2."""


def _are_ids(values: Sequence[MaskValue]) -> bool:
    return values == [*range(len(values))] or all(isinstance(v, int) and v <= LAST_ID for v in values)


def stands_off(values: Sequence[int]) -> float:
    """How many times as far 255 is from the largest id as the ids are from each other, and the first from 0.

    >>> stands_off([11, 41]), stands_off([0, 85, 170])
    (7.13..., 1.0)
    """
    return (VOID - values[-1]) / max(1, *(two - one for one, two in pairwise([0, *values])))


def _are_ids_of_void(values: Sequence[MaskValue]) -> bool:
    """Whether 255 beside these is none of them: levels of grey stand in even steps, or there are few."""
    ids = [value for value in values if isinstance(value, int) and value >= 0]
    far = next(times for least, times in _FAR if len(ids) >= least)
    return _are_ids(values) or (len(ids) == len(values) and stands_off(ids) >= far)


def _refuse_two_ways(masks: Mapping[str, ValueCounts], kept: Sequence[MaskValue]) -> None:
    """0 and 1 in some masks, 0 and 255 (or all bits set) in others: is this void, or the same as 1?

    Of several ids too; but then a mask of 255 alone is one that nobody has labelled.
    """
    if len(kept) < 3 or kept[0] != 0:
        return
    ids, large = kept[1:-1], kept[-1]
    if not (large == VOID and _are_ids_of_void(kept[:-1])) and not (large in _NO_DATA and ids in ([1], [VOID])):
        return
    held = {name: {count.value for count in counts} for name, counts in masks.items()}
    small = [name for name, values in held.items() if not values.isdisjoint(ids)]
    other = [name for name, values in held.items() if large in values and (0 in values or len(ids) == 1)]
    if not other or any(large in held[name] for name in small):
        return
    told = f"{ids[0]}" if len(ids) == 1 else f"ids from {ids[0]} to {ids[-1]}"
    raise DataError(
        f"some masks hold {told} ({small[0]}), others {large} ({other[0]}), and none both",
        "one way to write masks",
        f"write a classes.toml of two [[class]] tables: value = 0 and values = [{ids[0]}, {large}] if {large} means "
        f"the same; value = 0 and value = {ids[0]}, with void = [{large}] above them, if it does not count"
        if len(ids) == 1
        else f"write a classes.toml of a [[class]] table for each class: with values = [{ids[0]}, {large}] if {large} "
        f"means the same as {ids[0]}, with one more of value = {large} if it is a class of its own, or with void = "
        f"[{large}] above them if it does not count",
    )


def _pool(masks: Mapping[str, ValueCounts]) -> dict[MaskValue, ValueCount]:
    """Sum the counts of all masks; grey values become colours where any mask is coloured."""
    colored = any(counts.colors for counts in masks.values())
    pooled: dict[MaskValue, ValueCount] = {}
    for count in (count for counts in masks.values() for count in counts):
        value = value_of(code_of(count.value, colored), colored)
        before = pooled.get(value, ValueCount(value, 0, 0))
        pooled[value] = ValueCount(value, before.pixels + count.pixels, before.solid + count.solid)
    return pooled


def _soft_values(
    masks: Mapping[str, ValueCounts], pooled: Mapping[MaskValue, ValueCount], colored: bool
) -> frozenset[MaskValue]:
    """`soft_values` of all masks, if they can be that: no edges cover most of a mask, and ids of classes come again."""
    soft = soft_values(pooled.values())
    if not soft or any(_share(counts, soft, colored) > 0.5 for counts in masks.values()):
        return frozenset()
    times = Counter(count.value for counts in masks.values() for count in counts)
    once = [times[value] == 1 for value in pooled if value not in soft]
    numbered = len(masks) >= NUMBERED_MASKS and len(once) >= MANY_NUMBERS and sum(once) > len(once) / 2
    return frozenset() if numbered and not colored else soft


def _share(counts: ValueCounts, values: frozenset[MaskValue], colored: bool) -> float:
    """The share of a mask's pixels that hold one of some pooled values."""
    held = sum(c.pixels for c in counts if value_of(code_of(c.value, colored), colored) in values)
    return held / sum(counts.pixels)


def _too_many(masks: Mapping[str, ValueCounts], count: int, what: str) -> DataError:
    """Of ``count`` values, as far as they were told apart."""
    name = max(masks, key=lambda key: masks[key].distinct)
    most = masks[name].distinct
    told = f"{count:,}" if most <= MOST_COUNTED else f"at least {max(count, most):,}"
    given = f"the masks hold {told} different {what}, {most:,} of them in {name}"
    if what == "colours" and _near_few(masks[name]):
        return DataError(
            f"{given}, where most pixels lie near few of these, as JPEG and smoothing leave masks",
            f"masks that paint each class in one colour, at most {MOST_COLORS} in all",
            "save the masks as PNG without smoothing, or list the colours of the classes in classes.toml with "
            "nearest = true; if these are the images, the two folders are swapped",
        )
    if what == "colours" and all(held.is_photograph for held in masks.values()):
        return DataError(
            f"the masks look like photographs: {name} has {most:,} different colours",
            "masks that paint each class in one colour",
            "see whether the folders of images and of masks are swapped",
        )
    return DataError(
        given,
        f"one value a class, at most {MOST_COLORS if what == 'colours' else VOID - 1}",
        "list the true classes in classes.toml; if the values number single objects, write (mask > 0) instead; if JPEG "
        "or smoothing blurred two values, (mask > 127)",
    )


def _near_few(counts: ValueCounts) -> bool:
    """Whether most of a mask's pixels lie near the few colours that it holds most of."""
    colors = np.array([value_of(code_of(count.value, True), True) for count in counts])
    left = np.array(counts.pixels)
    far = counts.area - left.sum()  # those of the rarest colours, where not all are listed
    for _ in range(_FEW_COLORS):
        left[np.abs(colors - colors[left.argmax()]).max(axis=1) <= NEAR] = 0
    return bool(left.sum() + far < counts.area / 2)


def _names(values: Sequence[MaskValue]) -> tuple[str, ...]:
    if len(values) == 2 and values[0] in (0, (0, 0, 0)):
        return ("background", "foreground")
    return tuple(_name(value) for value in values)


def _name(value: MaskValue) -> str:
    return f"class {color_text(value)}" if isinstance(value, tuple) else f"class {value}"


def _listing(classes: Classes) -> str:
    values = [str(value) for items in (*classes.values, classes.void) for value in items]
    return ", ".join(values[:12]) + (", ..." if len(values) > 12 else "")


def _color(item: Any) -> tuple[int, int, int]:
    return parse_color(item) if isinstance(item, str) else color_of(item)


def _mask_values(record: Mapping[str, Any], key: str) -> tuple[MaskValue, ...]:
    """Those in a list under a key; none where there is no such key."""
    items = record.get(key, [])
    if not isinstance(items, list):
        raise ValueError(f"{key} = {items!r} is no list; write {key} = [{items!r}]")
    return tuple(map(mask_value, items))
