"""What to do where images and their masks lie in one folder, told by what is shared by their names. Opens no file.

Files are sorted into kinds, such as ``*_mask.*`` or ``mask_*.*``, each with its cores: what is left of the names. Of a
kind of masks most cores are other images' names, or cores of another kind.
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath

from whatwhere.data.name_words import BY_PIXEL, IMAGES, MASKS, TO_LEARN, VIEWS, no_image, one_of
from whatwhere.data.names import bare
from whatwhere.data.tiffs import TIFF_SUFFIXES

__all__ = ["alternatives", "sorted_by_names"]

_HOME = re.compile("im(age|g)s?", re.IGNORECASE)
_APART = r"[_\-. ]+"
_STARTS = [re.compile(rf"(?:[^\W\d_]+(?:{_APART}|(?=\d))){{{count}}}") for count in (1, 2)]
_LOSSY = (".jpg", ".jpeg")
_LOSSLESS = (".png", ".gif", ".bmp", *sorted(TIFF_SUFFIXES))
"""As masks are written; the likelier first."""

_Kinds = Mapping[str, set[str]]


@dataclass(frozen=True)
class _Sorted:
    """Which files are masks, which of several may be, and which are their images.

    Attributes:
        masks: what they are called; of several kinds one is to be chosen.
        images: what they are called; nothing where they are all others.
        others: of those what is neither.
        sure: whether a word says that they are masks.
    """

    masks: Sequence[str]
    images: Sequence[str]
    others: Sequence[str]
    sure: bool


def sorted_by_names(images: Sequence[PurePosixPath]) -> str:
    """What to move where."""
    plain = {bare(path).as_posix() for path in images}
    for kinds in (_kinds(map(_ends, images)), _kinds(map(_starts, images))):
        for sure in (True, False):
            if found := _found(kinds, plain, sure):
                return _moves(images, found)
    if found := _found(_kinds(map(_wholes, images)), (), True):
        return _named_by_folder(found)
    if found := _by_suffix(images):
        return _moves(images, found)
    return _stacks(images)


def _kinds(names: Iterable[Iterable[tuple[str, str]]]) -> _Kinds:
    """What several files are called, with their cores."""
    kinds = defaultdict[str, set[str]](set)
    for called, core in (pair for pairs in names for pair in pairs):
        kinds[called].add(core)
    return {called: cores for called, cores in kinds.items() if len(cores) > 1}


def _ends(path: PurePosixPath) -> Iterator[tuple[str, str]]:
    """A mask may end with two words, as in 000_img_cp_masks."""
    stem = bare(path).name
    for end in {_end(stem, 1), _end(stem, 2)} - {stem}:
        if re.search("[a-z]", end, re.IGNORECASE):
            yield f"*{end}.*", (path.parent / stem.removesuffix(end)).as_posix()


def _starts(path: PurePosixPath) -> Iterator[tuple[str, str]]:
    stem = bare(path).name
    for start in _STARTS:
        found = start.match(stem)
        if found and found.end() < len(stem):
            yield f"{found[0]}*.*", (path.parent / stem[found.end() :]).as_posix()


def _wholes(path: PurePosixPath) -> Iterator[tuple[str, str]]:
    """In a folder for each image, as LabelMe writes them."""
    if len(path.parts) > 1:
        yield path.name, path.parent.as_posix()


def _found(kinds: _Kinds, plain: Collection[str], sure: bool) -> _Sorted | None:
    """The kind that is most files', of those that may be masks."""
    for called in sorted(kinds, key=lambda called: (-len(kinds[called]), len(called), called)):
        cores = kinds[called]
        unlike = VIEWS.search(called) or (not sure and IMAGES.search(called))
        if unlike or bool(MASKS.search(called)) != sure:
            continue
        are_plain = 2 * len(cores.intersection(plain)) > len(cores)
        if not sure and not are_plain:
            continue
        beside = [
            other for other, others in kinds.items()
            if other != called and len(others & cores) * 2 > len(cores)
        ]  # fmt: skip
        images = [] if are_plain else [other for other in beside if not no_image(other) and not VIEWS.search(other)]
        images = [other for other in images if IMAGES.search(other)] or images
        if are_plain or images:
            masks = [called, *(other for other in beside if _likewise(other, sure) and other not in images)]
            others = [other for other in beside if other not in (*masks, *images)]
            return _Sorted(sorted(masks), sorted(images), sorted(others), sure)
    return None


def _likewise(called: str, sure: bool) -> bool:
    """Whether it may be of masks as well as another kind."""
    return not VIEWS.search(called) and bool(MASKS.search(called)) == sure and not (IMAGES.search(called) and not sure)


def _by_suffix(images: Sequence[PurePosixPath]) -> _Sorted | None:
    """Where names are equal and endings differ."""
    kinds = _kinds([(f"*{path.suffix}", bare(path).as_posix())] for path in images)
    lossless = [called for called in kinds if called[1:].lower() in _LOSSLESS]
    for called in sorted(lossless, key=lambda called: _LOSSLESS.index(called[1:].lower())):
        for other in kinds:
            if other != called and 2 * len(kinds[called] & kinds[other]) > len(kinds[called]):
                return _Sorted([called], [], [], other.lower().endswith(_LOSSY))
    return None


def _moves(images: Sequence[PurePosixPath], found: _Sorted) -> str:
    home = images[0].parts[0] if len({path.parts[0] for path in images}) == 1 and len(images[0].parts) > 1 else ""
    inside = f" from {home}/" if _HOME.fullmatch(home) else ""
    masks = [_with_further(called, images) for called in found.masks]
    given = "" if found.sure else f"if {' or '.join(masks)} are the masks: "
    chosen = one_of(masks, BY_PIXEL) if found.sure or len(masks) == 1 else "one of these kinds"
    moved = [f"{chosen}{inside} to masks/"]
    several = len(found.images) > 1
    named = not inside and (several or (found.images and found.others))  # else all that are left are images
    if named:
        moved.append(f"{one_of(found.images, TO_LEARN)} to images/")
    if out := [*(["what is left of these"] if several or len(masks) > 1 else []), *found.others]:
        moved.append(f"{' and '.join(out)} elsewhere")
    if not inside and not named:
        moved.append("the other images to images/")
    as_now = ", in folders as now" if any(len(path.parts) > 1 + bool(inside) for path in images) else ""
    return f"{given}move {', '.join(moved[:-1])}{' and ' if moved[:-1] else ''}{moved[-1]}{as_now}"


def _with_further(called: str, images: Iterable[PurePosixPath]) -> str:
    """With further masks of an image, which are numbered."""
    end = called[1:-2]
    numbered = called.startswith("*") and any(re.search(rf"{re.escape(end)}_\d+$", bare(path).name) for path in images)
    return f"{called} and *{end}_*.*" if numbered else called


def _named_by_folder(found: _Sorted) -> str:
    image, mask = found.images[0], found.masks[0]
    left = [*found.images[1:], *found.masks[1:], *found.others]
    without = f", and leave out {' and '.join(left)}" if left else ""
    return (
        f"each image has a folder of its own: move each {image} to images/ and each {mask} to masks/, and give both "
        f"the name of their folder{without}"
    )


def _stacks(images: Sequence[PurePosixPath]) -> str:
    """Where a file or two are all: such as train-volume.tif and train-labels.tif."""
    masks = sum(bool(MASKS.search(path.name)) for path in images)
    if (
        len(images) > 4
        or not 0 < masks < len(images)
        or any(path.suffix.lower() not in TIFF_SUFFIXES for path in images)
    ):
        return ""
    return (
        "write the slices of these stacks, each to images/ and its mask, under the same name, to masks/; if they are "
        "single images, move them there"
    )


def _end(stem: str, words: int) -> str:
    """The last words of a name with what is before them."""
    apart = [found.start() for found in re.finditer(_APART, stem) if found.start()]
    return stem[apart[-words] :] if len(apart) >= words else stem


def alternatives(masks: Sequence[PurePosixPath], images: int) -> list[str]:
    """What masks are called, where each image has one of each kind."""
    for words in (2, 1):
        found = Counter(_end(bare(path).name, words) for path in masks)
        once = all(images // 2 < count <= images for count in found.values())
        numbered = any(word.isdigit() for end in found for word in re.split(_APART, end))
        if 1 < len(found) <= 6 and once and not numbered:
            return [f"*{end}.*" for end in sorted(found)]
    return []
