"""Findings about images as files: what cannot be read, differs, is too dark, or occurs twice.

Each function takes a survey and yields findings. Knows nothing of what masks mean.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import PurePath, PurePosixPath

from whatwhere.data.facts import FileSurvey, ImageFacts, Quantiles, Survey
from whatwhere.data.findings import Finding, Severity, many, percent, size_text
from whatwhere.data.likeness import twins
from whatwhere.data.names import bare, split_of, split_said, split_tagged

__all__ = [
    "beside",
    "bits",
    "copies",
    "dark",
    "few",
    "ignored",
    "kinds_differ",
    "lists",
    "lost",
    "missing_data",
    "mixed",
    "named",
    "sizes",
    "tiny",
    "unpaired",
    "unreadable",
]

SMALLEST_SIDE = 16
"""Images with a shorter side hold too few pixels to learn shapes from."""

BLACK = 0.03
"""An image whose brightest value is below this share of the brightest of its dtype is nearly black."""

_MISSING = (-9999.0, -99999.0, -32768.0, -32767.0)
_ABSURD = 1e30
"""What programs write into images where nothing was measured; beyond the last as the limits of floats, of which
neither a mean nor a deviation can be had."""

FEW = 10
"""Fewer training images than this are called few."""


def unreadable(survey: Survey) -> Iterator[Finding]:
    """Files that do not decode."""
    images = [(f.image_path, f.image_error, f.image_remedy) for f in survey.files if f.image_error]
    masks = [(f.mask_path or "", f.mask_error, f.mask_remedy) for f in survey.files if f.mask_error and not f.mask]
    for what, bad in (("image", images), ("mask", masks)):
        if bad:
            _, given, remedy = bad[0]
            paths = tuple(path for path, _, _ in bad)
            yield Finding(
                "error", f"unreadable-{what}", f"{many(len(bad), what)} cannot be used: {given}", paths, remedy
            )


def kinds_differ(survey: Survey) -> Iterator[Finding]:
    """Images of different channels or depth."""
    kinds: tuple[tuple[str, str, Callable[[ImageFacts], str]], ...] = (
        ("channels-differ", "channels", lambda image: many(survey.channels(image), "channel")),
        ("depth-differs", "depth", lambda image: image.dtype),
    )
    for code, what, kind in kinds:
        found: dict[str, list[str]] = defaultdict(list)
        for file in survey.files:
            if file.image:
                found[kind(file.image)].append(file.image_path)
        if len(found) > 1:
            (usual, _), *others = sorted(found.items(), key=lambda item: -len(item[1]))
            listing = ", ".join(f"{len(paths):,} have {key}" for key, paths in sorted(found.items()))
            strays = tuple(path for _, paths in others for path in paths)
            message = f"Images differ in {what}: {listing}"
            yield Finding("error", code, message, strays, f"convert these to {usual}, as the others")


def tiny(survey: Survey) -> Iterator[Finding]:
    """Images too small to learn shapes from."""
    files = [f for f in survey.files if f.image and min(f.image.size) < SMALLEST_SIDE]
    if files and files[0].image:
        example = size_text(files[0].image.size)
        message = f"{many(len(files), 'image')} under {SMALLEST_SIDE} pixels a side, such as {example}"
        yield Finding("error", "tiny", message, _images(files), "remove them")


def unpaired(survey: Survey) -> Iterator[Finding]:
    """Images without masks and masks without images."""
    masked = {"all"} | {f.split for f in survey.files if f.mask_path}  # "all": what a division left out
    without = tuple(f.image_path for f in survey.files if f.mask_path is None and f.split in masked)
    for split in survey.splits:
        if split not in masked:
            unlabelled = tuple(f.image_path for f in survey.files if f.split == split)
            message = f"{split} has no masks: its {many(len(unlabelled), 'image')} can be painted, not scored"
            yield Finding("note", "split-without-masks", message, unlabelled)
    if without:
        message = f"{many(len(without), 'image')} without a mask, left out"
        remedy = "add masks of the same names, or move them away"
        yield Finding("warning", "image-without-mask", message, without, remedy)
    paired = {_bare(file.mask_path) for file in survey.files if file.mask_path}
    images = {_bare(file.image_path) for file in survey.files}
    alone = survey.lone_masks
    for first, severity, message, remedy in _MERGED:
        further = {path: name for path in alone if (name := first(_bare(path))) in paired}
        if further and not any(first(name) in images for name in images):  # else they number images
            alone = tuple(path for path in alone if path not in further)
            message = message.format(many(len(set(further.values())), "image"))
            yield Finding(severity, "mask-without-image", message, tuple(further), remedy)
    if alone:
        message = f"{many(len(alone), 'mask')} without an image, left out"
        stems = {PurePath(_bare(path)).name for path in alone}
        unread = [path for path in survey.ignored if PurePath(_bare(path)).name in stems]
        remedy = "add images of the same names, or move them away"
        if unread:
            remedy = f"write their images, such as {unread[0]}, as PNG or TIFF: that kind is not read"
        yield Finding("warning", "mask-without-image", message, alone, remedy)


def _bare(path: str) -> str:
    return bare(PurePath(path)).as_posix().lower()


def _left_half(name: str) -> str:
    """The name of the left one's mask, of a right one's."""
    return f"{name[:-1]}l" if name.endswith(("_r", "-r")) else ""


def _first(name: str) -> str:
    """The name of an image's first mask, of a further one: BUSI numbers the masks of an image's lesions."""
    stem = name.rstrip("0123456789")
    return stem[:-1] if stem != name and stem.endswith(("_", "-")) else ""


def _above(name: str) -> str:
    """The name of the mask beside the folder that a further one lies in: some write one folder for each class."""
    path = PurePath(name)
    return (path.parent.parent / path.name).as_posix()


_MERGED: tuple[tuple[Callable[[str], str], Severity, str, str], ...] = (
    (
        _left_half,
        "error",
        "{} with two masks, left and right, of which the right is left out",
        "merge the two into one mask, in which each has a value of its own or both have the same",
    ),
    (
        _first,
        "error",
        "{} with several masks, of which only the first is used: what the others show would be learnt as background",
        "merge the masks of an image into one, for instance by numpy.maximum",
    ),
    (
        _above,
        "warning",
        "{} with another mask in a folder, which is left out: if it shows a class, that would be learnt as background",
        "merge the masks of an image into one, with a value of its own for each class, or move the folder away",
    ),
)
"""Masks that are left out beside one of their image's: how that is called, what is said, and what to do."""


def named(survey: Survey) -> Iterator[Finding]:
    """Pairs whose names differ."""
    if survey.named:
        message = "Masks have other names than their images: each was paired by what is its own in both"
        remedy = "see that these two belong together"
        yield Finding("note", "names-differ", message, survey.named, remedy)


def copies(survey: Survey) -> Iterator[Finding]:
    """Images that occur twice, or nearly, within a split or across."""
    files = [f for f in survey.files if f.image]
    same = defaultdict[str, list[FileSurvey]](list)
    for file in files:
        same[file.image.digest if file.image else ""].append(file)
    exact = {
        f.image_path for group in same.values() if len(_sides(group)) > 1
        for f in group[1:] if f.image and not all(f.image.constant)
    }  # fmt: skip
    splits = sorted(_sides(files))
    sides = [splits.index(f.split) if f.split in splits else -1 for f in files]
    near = twins([f.image.fingerprint if f.image else b"" for f in files], sides)
    alike = {
        files[later].image_path: files[earlier]
        for later, earlier in near.items()
        if files[later].image_path not in exact
    }
    remedy = "keep such images on one side: scores on them say nothing about new images"
    if exact:
        message = f"{many(len(exact), 'image')} also in another split, pixel for pixel"
        yield Finding("warning", "duplicate-across-splits", message, tuple(sorted(exact)), remedy)
    if alike:
        path, twin = next(iter(alike.items()))
        example = f"maybe turned or mirrored, such as {path} and {twin.image_path}"
        message = f"{many(len(alike), 'image')} nearly the same as one in another split, {example}"
        yield Finding("warning", "near-duplicate-across-splits", message, tuple(alike), remedy)
    yield from _within([group for group in same.values() if len(group) > 1])


def _sides(files: Iterable[FileSurvey]) -> set[str]:
    """The splits of files; those that a division left out are in none."""
    return {file.split for file in files} - {"all"}


def _within(groups: Iterable[list[FileSurvey]]) -> Iterator[Finding]:
    """Exact copies within a split, and copies whose masks disagree."""
    within = [f for group in groups for f in _again(group)]
    if within:
        message = f"{many(len(within), 'image')} twice in one split, pixel for pixel"
        yield Finding("note", "duplicate", message, _images(within), "remove the copies; they only count double")
    torn = [g for g in groups if len({f.mask.digest for f in g if f.mask}) > 1]
    if torn:
        message = f"{many(len(torn), 'image')} more than once, with different masks"
        paths = tuple(f.mask_path or "" for group in torn for f in group)
        yield Finding("warning", "masks-disagree", message, paths, "keep the mask that is right")


def _again(group: Iterable[FileSurvey]) -> Iterator[FileSurvey]:
    """Files of a split that an earlier one is of."""
    seen = set[str]()
    for file in group:
        if file.split in seen:
            yield file
        seen.add(file.split)


def few(survey: Survey) -> Iterator[Finding]:
    """Few images."""
    count = len(survey.training)
    if count == 1:
        message = "There is a single training image"
        alone = all(file.split in ("train", "all") for file in survey.files if file.usable)
        told = "without a val/ it is validated on too, and its scores say nothing about new images: add images"
        remedy = told if alone else "add images: what it does not show cannot be learnt"
        yield Finding("warning", "one-image", message, _images(survey.training), remedy)
    elif 1 < count < FEW:
        yield Finding("note", "few-images", f"There are only {count} training images: scores will be uncertain")


def dark(survey: Survey) -> Iterator[Finding]:
    """Images without data, constant and nearly black ones, constant channels."""
    empty = [f for f in survey.files if f.image and not f.image.pixels]
    if empty:
        message = f"{many(len(empty), 'image')} without any data: each pixel has the value that a tag calls no data"
        remedy = "see whether the export failed; if not, remove them: nothing can be learnt from them"
        yield Finding("warning", "constant-image", message, _images(empty), remedy)
    read = [(f, f.image) for f in survey.files if f.image and f.image.pixels]
    constant = [f for f, image in read if all(image.constant)]
    if constant:
        message = f"{many(len(constant), 'image')} of a single value"
        yield Finding("warning", "constant-image", message, _images(constant), "see whether the export failed")
    brightest: dict[str, float] = {}
    for _, image in read:
        brightest[image.dtype] = max(brightest.get(image.dtype, 0), *image.maximum)
    varied = [(f, image) for f, image in read if not all(image.constant)]
    black = [f for f, image in varied if max(image.maximum) < BLACK * brightest[image.dtype]]
    if black and all(min(image.minimum) >= 0 for _, image in read):  # not in decibels or degrees
        message = f"{many(len(black), 'image')} nearly black: no value above {percent(BLACK)} of the brightest"
        yield Finding("warning", "black-image", message, _images(black), "see whether the exposure failed")
    channels = min((image.channels for _, image in varied), default=0)
    flat = [c for c in range(channels) if all(image.constant[c] for _, image in varied)]
    if flat:
        message = f"Channel {', '.join(str(c + 1) for c in flat)} of {channels} is constant in every image"
        remedy = "export without it to save time; it tells nothing"
        if flat == [channels - 1] and all(image.opaque for _, image in varied):
            message, remedy = f"{message}: an alpha channel that hides nothing, and is left out", ""
        yield Finding("note", "constant-channel", message, (), remedy)


def missing_data(survey: Survey) -> Iterator[Finding]:
    """Values that usually mean no data, where no tag says so."""
    ends = {file.image_path: (*file.image.minimum, *file.image.maximum) for file in survey.files if file.image}
    kinds: tuple[tuple[Severity, Callable[[float], bool]], ...] = (
        ("error", lambda value: abs(value) > _ABSURD),
        ("warning", lambda value: value in _MISSING),
    )
    for severity, is_missing in kinds:
        found = {path: value for path, values in ends.items() for value in values if is_missing(value)}
        if not found:
            continue
        value = next(iter(found.values()))
        yield Finding(
            severity,
            "missing-data",
            f"{many(len(found), 'image')} with the value {value:g}, which often means no data, and no tag says so",
            tuple(found),
            "name it in the files' GDAL no-data tag (gdal_edit.py -a_nodata), or put a usual value there: mean and "
            "deviation count it, and the rest of the image may look all alike to the network",
        )


def bits(survey: Survey) -> Iterator[Finding]:
    """16-bit files that use fewer."""
    deep = [f.image for f in survey.files if f.image and f.image.dtype == "uint16"]
    largest = int(max((max(image.maximum) for image in deep), default=0))
    if deep and largest < 2**15:
        message = f"The 16-bit images use {largest.bit_length()} bits (largest value {largest:,})"
        yield Finding("note", "bits-used", f"{message}; normalisation follows the data, so nothing is lost")


def ignored(survey: Survey) -> Iterator[Finding]:
    """Files of other kinds."""
    if survey.ignored:
        message = f"{many(len(survey.ignored), 'file')} of a kind that is not read, left out"
        yield Finding("note", "ignored", message, survey.ignored, "images are PNG, JPEG, TIFF, WebP, BMP or GIF")


def beside(survey: Survey) -> Iterator[Finding]:
    """What lies beside the folders that are used."""
    if survey.beside:
        message = (
            f"{many(len(survey.beside), 'folder')} or images that lie beside the folders of images and masks, left out"
        )
        remedy = (
            "if they are meant: masks lie in masks/ (or labels/), and what is to be used in train/, val/ or test/ with "
            "images/ and masks/ in it"
        )
        if not survey.training and "train" not in map(split_of, survey.beside):
            remedy = "call the folder train/ that holds what is to be trained on, with images/ and masks/ in it"
        yield Finding("warning", "beside-splits", message, survey.beside, remedy)


def lists(survey: Survey) -> Iterator[Finding]:
    """Lists of names, which are not read."""
    if survey.lists:
        message = (
            f"{many(len(survey.lists), 'list')} of names that may say how to divide the images: lists are not read"
        )
        remedy = "move what they name into train/, val/ and test/, each with images/ and masks/ in it"
        yield Finding("warning", "lists", message, survey.lists, remedy)


def lost(survey: Survey) -> Iterator[Finding]:
    """Links to what is not there, which may be folders of images."""
    if survey.lost:
        message = f"{many(len(survey.lost), 'link')} among images and masks to what is not there, left out"
        remedy = "mount what holds it, as a folder of images may be missing, or remove the link"
        yield Finding("warning", "lost-link", message, survey.lost, remedy)


def mixed(survey: Survey) -> Iterator[Finding]:
    """Images that are trained on, though their folder or their name says test or val."""
    mingled = [f for f in survey.files if f.usable and (survey.parted or f.split == "all") and f.split != "test"]
    strays = {
        file.image_path: f"{folder}/" for file in mingled
        if split_of(folder := file.name.rpartition("/")[0].partition("/")[0]) not in (None, file.split)
    }  # fmt: skip
    if strays:
        folders = " and ".join(sorted(set(strays.values())))
        message = f"{many(len(strays), 'image')} in {folders}, divided like all others: no folder is called train/"
        remedy = "to keep these apart call the folder of the others train/, among the images and among the masks"
        yield Finding("warning", "split-divided", message, tuple(strays), remedy)
    else:
        yield from _mixed_by_name(mingled)


def _mixed_by_name(files: Sequence[FileSurvey]) -> Iterator[Finding]:
    """Where names begin or end with different splits, as testA_6 and train_6 of GlaS do, or their folders say them."""
    tags = [(file, *tag) for file in files if (tag := _tag(file.name))]
    strays = tuple(file.image_path for file, split, _ in tags if split != "train")
    if not strays or len({split for _, split, _ in tags}) < 2:
        return
    names = defaultdict[str, set[str]](set)
    for _, split, called in tags:
        names[split].add(called)
    names.pop("train", None)
    moves = []
    for split, tagged in names.items():
        images, masks = _homes(files[0], split)
        moves.append(f"the images called {' and '.join(sorted(tagged))} to {images}/ and their masks to {masks}/")
    images, masks = _homes(files[0], "train")
    every = " and ".join(sorted(set[str]().union(*names.values())))
    message = f"{many(len(strays), 'image')} called {every}, divided like all others: no folder keeps them apart"
    remedy = f"to keep these apart move {', '.join(moves)}, and all others to {images}/ and {masks}/"
    yield Finding("warning", "split-divided", message, strays, remedy)


def _tag(name: str) -> tuple[str, str] | None:
    """The split that an image's folder or its own name says, and what such images are called."""
    folder = name.partition("/")[0] if "/" in name else ""
    split = split_said(folder)
    return (split, f"{folder}/*") if split else split_tagged(PurePosixPath(name).name)


def _homes(file: FileSurvey, split: str) -> Iterator[str]:
    """The folders of images and masks for a split, told by a file among those of all: images/test for images/1.png."""
    for path in (file.image_path, file.mask_path or file.image_path):
        parts = PurePosixPath(path).parents[file.name.count("/")].parts
        divided = any(map(split_of, parts))
        yield "/".join((split if split_of(part) else part for part in parts) if divided else (*parts, split))


def sizes(survey: Survey) -> Iterator[Finding]:
    """How many images of which size."""
    heights, widths = survey.image_sides()
    if not heights or not widths:
        return
    kinds = Counter((survey.channels(f.image), f.image.dtype) for f in survey.files if f.image)
    (channels, dtype), _ = kinds.most_common(1)[0]
    splits = Counter(file.split for file in survey.files if file.image)
    counts = ", ".join(f"{n:,} {split}" for split, n in splits.items() if split != "all")
    number = many(heights.count, "image") + (f" ({counts})" if counts else "")
    message = f"{number} of {_span(heights)} x {_span(widths)} pixels, {many(channels, 'channel')}, {dtype}"
    yield Finding("note", "sizes", message)


def _images(files: Iterable[FileSurvey]) -> tuple[str, ...]:
    return tuple(file.image_path for file in files)


def _span(sides: Quantiles) -> str:
    low, high = int(sides.smallest), int(sides.largest)
    return f"{low}" if low == high else f"{low} to {high} (median {sides.median:.0f})"
