"""Divide a folder that comes undivided into training and validation images.

Works on a survey's facts; opens no file. The same folder and seed give the same division.
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from whatwhere.data.facts import FileSurvey, Survey
from whatwhere.data.folder import Folder, Sample
from whatwhere.data.likeness import alike, groups, likeness
from whatwhere.errors import DataError

__all__ = ["bands_of", "bound_by_name", "folders_of", "frames_of", "gathered", "pieces_of", "sources_of", "split"]

_ENOUGH_FOLDERS = 5
"""Of which each goes to one side: with fewer, too little would be left of one side or the other."""

_OVERLAP = 0.3
"""How much more alike images with neighbouring numbers are than those of other sources, if they are frames of a moving
camera. Of CamVid's driving videos neighbours correlate by 0.75 in the mean, frames of other moments by 0.3 to 0.4; of
photographs of cats both by 0."""

_ENOUGH_FRAMES = 10
"""Of fewer, neighbours may be alike by chance."""

_WORDS = "aug(?:mented)?|rot(?:ated)?|[hv]?flip(?:ped)?|mirror(?:ed)?|copy|crop|patch|tile|part|slice|frame|left|right"
_APART = r"[_\-., ]"
_PLACE = rf"(?:[a-z]{{1,3}}{_APART}?)?\d+"
_PLACES = rf"{_APART}+{_PLACE}(?:{_APART}+{_PLACE}|[a-z]{{1,3}}{_APART}?\d+)"
_PIECES = tuple(
    re.compile(pattern, re.IGNORECASE)
    for pattern in (
        rf"(.+?){_PLACES}{_PLACES}",  # P0001_0_800_0_800: from and to
        rf"(.+?){_PLACES}",  # slide_1024_512, slide_x0_y100, P0001__1__0
        rf"(.*?[^\W_].*?)(?:{_APART}*(?<![a-z])(?:{_WORDS}){_APART}*\d*)+",  # cat_aug3, 0003_left, volume1_slice20
        r"(.*\d)[_ ]?[lr]",  # the eyes of a patient
        r"(.+)\.rf\.[0-9a-f]{8,}",  # copies that Roboflow makes
    )
)
"""Names of pieces, copies and companions of an image, coarse ones first; what is in parentheses names the source."""

_BRACKETS = re.compile(r"[_ ]*\[(?:\w+=[^,\]]*,)*x=(\d+),y=(\d+)[^\]]*\]")
"""Where QuPath cut a tile out of an image: ``slide [d=2,x=0,y=512,w=256,h=256]``."""

_LEAST_GRID = 3
"""Rows and columns; fewer may be by chance."""

_MENDED = 200
"""Units of which each and every two are tried at once, those first that show what is left out: more take memory."""


def split(folder: Folder, survey: Survey, *, seed: int = 0, val_share: float = 0.2) -> Folder:
    """Leave out what cannot be used, and give the folder ``"train"`` and ``"val"`` unless it has both.

    Images that are alike stay on one side, and so do those of one folder (a patient, a plate, a flight) where there
    are five or more, or else of one source by name: pieces and copies (``slide_0_512``, ``cat_aug3``), and numbered
    frames (``street_001``, ``street_002``) where neighbours overlap. Tiles of a single image, whose names lay them in
    a grid, are divided by bands across it: of neighbours, which may overlap, few are apart. So are frames of fewer
    than five sources, such as one video, by stretches.

    Classes are spread over both sides in the wanted share, the rarest first (iterative stratification, Sechidis et al.
    2011, doi 10.1007/978-3-642-23808-6_10). A class that a single image shows is trained on, where other images are
    left to validate on. Where most images are alike (a video, a time series) they are cut into stretches by name
    instead. A ``test`` stays as it is. A single image is both trained on and validated on; `check` says so.

    Args:
        survey: of this folder.
        seed: decides between equally good divisions.
        val_share: the share of images to validate on, above 0 and below 1; at least one image is.

    Raises:
        DataError: no usable image to train on.
    """
    usable = {(file.split, file.name): file for file in survey.files if file.usable}
    splits = {
        name: tuple(sample for sample in samples if (name, sample.name) in usable)
        for name, samples in folder.splits.items()
    }
    source = folder.undivided
    if source is None:
        return replace(folder, splits=splits)
    splits.pop("val", None)  # images without masks
    samples = splits.pop(source, ())
    if not samples:
        raise DataError(
            f"{folder.root} has no usable image to train on", "an image and its mask at least", "run: whatwhere check"
        )
    if len(samples) == 1:
        return replace(folder, splits={"train": samples, "val": samples, **splits})
    units = _units([usable[source, sample.name] for sample in samples], val_share)
    chosen = _choose(units, val_share * len(samples), np.random.default_rng(seed))
    in_val = {place for unit in chosen for place in unit.members}
    sides: tuple[list[Sample], list[Sample]] = ([], [])
    for place, sample in enumerate(samples):
        sides[place in in_val].append(sample)
    return replace(folder, splits={"train": tuple(sides[0]), "val": tuple(sides[1]), **splits})


@dataclass(frozen=True)
class _Unit:
    """Images that stay together, by their places, and how many of them show each class."""

    members: tuple[int, ...]
    shows: tuple[int, ...]


def _units(files: Sequence[FileSurvey], val_share: float) -> list[_Unit]:
    prints = [file.image.fingerprint if file.image else b"" for file in files]
    together = alike(prints)
    copies = _joined(len(files), (*together, *_identical(files)))
    if max(map(len, copies)) <= len(files) // 2:
        together = copies
    names = [file.name for file in files]
    named = bound_by_name(names, prints, val_share)[1]
    for bound in (_joined(len(files), (*together, *named)), named) if named else (together,):
        if max(map(len, bound)) <= len(files) // 2:
            together = bound
            break
    else:
        if max(map(len, together)) > len(files) // 2:  # a video: neighbours by name are the most alike
            together = _stretches(names, val_share)
    presence = [[shape.pixels > 0 for shape in file.mask.shapes] if file.mask else [] for file in files]
    return [
        _Unit(tuple(unit), tuple(sum(column) for column in zip(*(presence[place] for place in unit))))
        for unit in together
    ]


def _identical(files: Sequence[FileSurvey]) -> list[list[int]]:
    """The places of images of equal pixels, also where these show too little for a fingerprint.

    Not those of a single value, as tiles beyond the edge of a map are: half of all may be of that one.
    """
    same = defaultdict[str, list[int]](list)
    for place, file in enumerate(files):
        if file.image and not all(file.image.constant):
            same[file.image.digest].append(place)
    return list(same.values())


def folders_of(names: Sequence[str]) -> list[str]:
    """The folder that each name is bound to: the outermost where there are enough of them, else the innermost.

    "" for files that lie in no folder of their own: they are bound to no other.

    >>> folders_of(["a/left/1", "a/right/1", "b/1", "c/1", "d/1", "e/1", "loose"])
    ['a', 'a', 'b', 'c', 'd', 'e', '']
    >>> folders_of(["all/a/1", "all/b/1"])
    ['all/a', 'all/b']
    """
    outermost = [name.partition("/")[0] if "/" in name else "" for name in names]
    enough = len(set(outermost) - {""}) >= _ENOUGH_FOLDERS
    return outermost if enough else [name.rpartition("/")[0] for name in names]


def bound_by_name(
    names: Sequence[str], prints: Sequence[bytes], val_share: float = 0.2
) -> tuple[Literal["folders", "pieces", "bands", "frames", "stretches"], list[list[int]]]:
    """By what names bind images, and the places of what is bound; empty where it is nothing.

    Args:
        prints: a fingerprint of each image (see `likeness`).
        val_share: the share of images to validate on.
    """
    if bound := gathered(folders_of(names)):
        return "folders", bound
    if bound := gathered(pieces_of(names)):
        return "pieces", bound
    if bound := bands_of(names, val_share):
        return "bands", bound
    if bound := gathered(frames_of(names, prints)):
        return "frames", bound
    return "stretches", stretches_of(names, prints, val_share)


def gathered(named: Sequence[str], least: int = _ENOUGH_FOLDERS) -> list[list[int]]:
    """The places of what is named alike, and each of what has no name alone; empty where there are too few names."""
    found: dict[str, list[int]] = {}
    loose = []
    for place, name in enumerate(named):
        if name:
            found.setdefault(name, []).append(place)
        else:
            loose.append([place])
    return [*found.values(), *loose] if len(found) >= least else []


def frames_of(names: Sequence[str], prints: Sequence[bytes]) -> list[str]:
    """What each name numbers an image of, ``"street_"`` of ``"street_012"``, where neighbours by number overlap.

    "" for all where they do not, or where there are too few sources to divide by; and for names without a number.

    Args:
        prints: a fingerprint of each image (see `likeness`).
    """
    found = _runs(names)
    found.pop("", None)  # what is only a number names no source
    runs = list(found.values())
    others = [pair for run, other in pairwise([*runs, *runs[:1]]) for pair in zip(run, reversed(other))]
    if len(runs) < _ENOUGH_FOLDERS or not _overlap(prints, runs, others):
        return [""] * len(names)
    source = {place: source for source, run in found.items() for place in run}
    return [source.get(place, "") for place in range(len(names))]


def stretches_of(names: Sequence[str], prints: Sequence[bytes], val_share: float) -> list[list[int]]:
    """The places of frames in stretches that follow each other, where neighbours by number overlap; else empty.

    Of sources that are too few to divide by, as a single video is. Args as for `bound_by_name`.
    """
    runs = _runs(names).values()
    if sum(map(len, runs)) < max(len(names), _ENOUGH_FRAMES) or len(runs) >= _ENOUGH_FOLDERS:
        return []
    far = [pair for run in runs for pair in zip(run, run[len(run) // 2 :])]
    return _stretches(names, val_share) if _overlap(prints, runs, far) else []


def _runs(names: Sequence[str]) -> dict[str, list[int]]:
    """The places of names that number something, such as ``"street_"``, by number; of what has several."""
    found = defaultdict[str, list[tuple[int, int]]](list)
    for place, name in enumerate(names):
        if part := re.fullmatch(r"(.*?)(\d+)", name):
            found[part[1]].append((int(part[2]), place))
    return {source: [place for _, place in sorted(run)] for source, run in found.items() if len(run) > 1}


def _overlap(prints: Sequence[bytes], runs: Iterable[Sequence[int]], others: Sequence[tuple[int, int]]) -> bool:
    """Whether neighbours in a run are so much more alike than others that they show parts of the same."""
    follow = [pair for run in runs for pair in pairwise(run)]
    return likeness(prints, follow) >= likeness(prints, others) + _OVERLAP


def pieces_of(names: Sequence[str]) -> list[str]:
    """What each name is a piece, a copy or a companion of, or itself; empty where no two are of one.

    >>> pieces_of(["slide_0_512", "slide_512_512", "eye_left", "eye_right", "eye", "other", "another", "one more"])
    ['slide', 'slide', 'eye', 'eye', 'eye', 'other', 'another', 'one more']
    >>> pieces_of(["street_001", "street_002"])
    []
    >>> pieces_of(["slide 1 [x=0,y=512,w=256,h=256]", "slide 1 [x=0,y=0,w=256,h=256]"])
    ['slide 1', 'slide 1']
    """
    found: list[str] = []
    names = [_without_brackets(name) for name in names]
    for first in range(len(_PIECES)):  # as coarse as leaves enough sources to divide by
        matches = ([pattern.fullmatch(name) for pattern in _PIECES[first:]] for name in names)
        sources = [next((match[1] for match in found if match), name) for name, found in zip(names, matches)]
        if max(Counter(sources).values(), default=0) > 1:
            found = sources
            if len(set(found)) >= _ENOUGH_FOLDERS:
                break
    return found


def _without_brackets(name: str) -> str:
    """QuPath's place of a tile as others write it.

    >>> _without_brackets("slide 1 [d=2,x=0,y=512,w=256,h=256]")
    'slide 1_0_512'
    """
    return _BRACKETS.sub(r"_\1_\2", name)


def sources_of(names: Sequence[str]) -> list[str]:
    """What each name is bound to: its folder, or what it is a piece or copy of; "" if to no other.

    Folders where there are enough of them, else pieces where these are of enough; of few, folders before pieces.

    >>> sources_of(["a/1", "a/2", "b/1"]), sources_of(["a_left", "a_right", "b"])
    (['a', 'a', 'b'], ['a', 'a', 'b'])
    """
    folders, pieces = folders_of(names), pieces_of(names)
    if gathered(folders) or not pieces or (any(folders) and not gathered(pieces)):
        return folders
    return pieces


def _joined(count: int, bound: Iterable[Sequence[int]]) -> list[list[int]]:
    """The finest groups that hold each of some overlapping groups whole."""
    pairs = [(first, other) for first, *others in bound for other in others]
    return groups(count, np.array(pairs, np.intp).reshape(-1, 2))


def _stretches(names: Sequence[str], val_share: float) -> list[list[int]]:
    """The places of names that follow each other, frame 10 after frame 9."""
    number = min(len(names), max(2, round(1 / val_share)))
    longest = max(map(len, names))
    padded = [re.sub(r"\d+", lambda digits: digits[0].zfill(longest), name) for name in names]
    order = sorted(range(len(names)), key=padded.__getitem__)
    return [part.tolist() for part in np.array_split(order, number)]


def bands_of(names: Sequence[str], val_share: float) -> list[list[int]]:
    """The places of tiles of one image in bands across it; empty where the names' last two numbers lay out no grid.

    >>> bands_of([f"map_{row}_{column}" for row in range(3) for column in range(3)], 0.2)
    [[0, 1, 2], [3, 4, 5], [6, 7, 8]]
    """
    parts = [
        re.fullmatch(rf"(.*?)(\d+)({_APART}+[a-z]*{_APART}*|[a-z]+{_APART}*)(\d+)(\D*)", name, re.IGNORECASE)
        for name in map(_without_brackets, names)
    ]
    if not all(parts) or len({(part[1], part[3], part[5]) for part in parts if part}) > 1:
        return []
    grid = np.array([(int(part[2]), int(part[4])) for part in parts if part])
    sides = [len(np.unique(column)) for column in grid.T]
    if min(sides) < _LEAST_GRID or 2 * len(names) < sides[0] * sides[1]:
        return []
    across = grid[:, 0] if sides[0] >= min(sides[1], round(1 / val_share)) else grid[:, 1]
    bands = np.array_split(np.unique(across), min(round(1 / val_share), max(sides)))
    return [np.flatnonzero(np.isin(across, band)).tolist() for band in bands if len(band)]


def _choose(units: Sequence[_Unit], target: float, rng: np.random.Generator) -> list[_Unit]:
    """The units to validate on, of some ``target`` images in all."""
    total = sum(len(unit.members) for unit in units)
    waiting = [units[place] for place in rng.permutation(len(units))]
    shows = np.array([unit.shows for unit in waiting]).reshape(len(waiting), -1)
    # what each side still wants: images in the last column, images that show a class in the others
    table = np.column_stack([shows, [len(unit.members) for unit in waiting]]).astype(float)
    share = target / total
    want = np.stack([(1 - share) * table.sum(0), share * table.sum(0)])
    want[:, -1] = total - target, target
    side = np.full(len(waiting), -1)
    while (side < 0).any():
        spread = np.count_nonzero(table[side < 0], axis=0)
        rarest = int(np.argmin(np.where(spread > 0, spread, len(waiting) + 1)))
        places = np.flatnonzero((side < 0) & (table[:, rarest] > 0))
        # large units first: small ones can still even out
        for place in places[np.argsort(-table[places, -1], kind="stable")]:
            side[place] = int(_prefers_val(want[:, rarest], want[:, -1]))
            want[side[place]] -= table[place]
    _show_everywhere(side, table > 0)
    _mend(side, table > 0)
    return [unit for unit, chosen in zip(waiting, side) if chosen]


def _prefers_val(of_class: NDArray[np.float64], of_all: NDArray[np.float64]) -> bool:
    train, val = of_class if of_class[0] != of_class[1] else of_all
    return bool(val > train)


def _show_everywhere(side: NDArray[np.int_], shows: NDArray[np.bool_]) -> None:
    """Move single units so that both sides show every class, and have an image, where two units do."""
    for column in np.argsort(shows.sum(0), kind="stable"):
        for lacking in (1, 0):
            there = np.flatnonzero(shows[:, column] & (side != lacking))
            if len(there) < 2 or (shows[:, column] & (side == lacking)).any():
                continue
            # prefer a unit that takes no class away from where it is
            others = shows[side != lacking].sum(0)
            loss = [int((shows[place] & (others == 1)).sum()) for place in there]
            side[there[int(np.argmin(loss))]] = lacking


def _mend(side: NDArray[np.int_], shows: NDArray[np.bool_]) -> None:
    """Where moving one unit after another left a class out, the best of moves and exchanges until none shows more.

    Of equally good ones that which leaves the sides' sizes nearest to what they are. A change moves one unit, or two,
    or all of them.
    """
    size, spread = int(side.sum()), shows.sum(0)
    while True:
        val, step = shows[side == 1].sum(0), 1 - 2 * side
        common, lone = _left_out(val, spread)
        concerned = shows[:, common | lone].any(1)
        if not concerned.any():
            return
        few = np.sort(np.argsort(~concerned, kind="stable")[:_MENDED])
        one, other = few[np.stack(np.triu_indices(len(few)))]
        two = one != other
        gain = shows * step[:, None]
        vals = np.vstack([val + gain[one] + gain[other] * two[:, None], spread - val])
        sizes = np.append(side.sum() + step[one] + step[other] * two, len(side) - side.sum())
        commons, lones = (left.sum(1) for left in _left_out(vals, spread))
        best = int(np.lexsort((np.append(two, True), np.abs(sizes - size), lones, commons))[0])
        if (commons[best], lones[best]) >= (common.sum(), lone.sum()):
            return  # as with three images that show two of three classes each
        side[[one[best], other[best]] if best < len(one) else slice(None)] ^= 1


def _left_out(val: NDArray[np.int_], spread: NDArray[np.int_]) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """The classes of two units or more that are on one side only, and those of one unit that are not trained on.

    Args:
        val: how many units show each class there; classes come last.
        spread: how many do on both sides.
    """
    untaught = val == spread
    return (spread > 1) & (untaught | (val == 0)), (spread == 1) & untaught
