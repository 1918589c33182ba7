"""Findings about masks: what their values mean, and which classes are rare, missing or blurred.

Each function takes a survey and yields findings.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator

from whatwhere.data.facts import FileSurvey, ImageFacts, MaskFacts, Survey
from whatwhere.data.findings import Finding, Severity, many, percent, size_text
from whatwhere.data.mapping import stands_off
from whatwhere.data.names import split_of
from whatwhere.data.values import MANY_NUMBERS, NEAR, NUMBERED_MASKS, soft_values
from whatwhere.records import VOID, MaskValue, color_text

__all__ = [
    "blurred_ids",
    "classes",
    "empty_masks",
    "inverted",
    "lone_white",
    "mapping_failed",
    "missing_classes",
    "mostly_void",
    "near_colors",
    "nothing_to_learn",
    "object_numbers",
    "objects",
    "rare_classes",
    "size_mismatch",
    "soft_masks",
    "transparent",
    "turned",
    "unknown_values",
]

RARE_SHARE = 0.002
"""A class with a smaller share of the training pixels is called rare."""

_LINE = 1.5
"""Pixels: thickness of a blurred edge, and of an outline."""

MANY_CLASSES = 40
"""More classes than this, each one connected area in each mask, number objects, if not from 1 up: so tracking does."""

_SLIP = 100
"""A colour of so many times fewer pixels than one that looks the same is none of its own."""

_OUT_OF_STEP = 1.5
"""Times as far off as the other values are from each other is 255, if it ends no row of even steps."""

RARE_FILES = 5
"""A class that fewer training images show is called rare, where there are at least four times as many images."""

_WITHOUT_ALPHA = (
    "save the masks without transparency, with a colour of its own for each class and for where nothing is painted"
)


def mapping_failed(survey: Survey) -> Iterator[Finding]:
    """Classes that cannot be inferred."""
    if survey.mapping_error:
        yield Finding("error", "mapping", f"The classes cannot be inferred: {survey.mapping_error}")


def unknown_values(survey: Survey) -> Iterator[Finding]:
    """Mask values that are in no class."""
    files = [f for f in survey.files if f.mask_error and f.mask]
    if not files:
        return
    remedy = "list the values in classes.toml, under a class or under void"
    if any(soft_values(file.mask.values) for file in files if file.mask):
        remedy = (
            "the values lie along edges, as antialiasing or JPEG leave them: export the masks as PNG without "
            "smoothing, or write nearest = true in classes.toml"
        )
    message = f"{many(len(files), 'mask')} with values that are in no class: {files[0].mask_error}"
    yield Finding("error", "unknown-value", message, _paths(files), remedy)


def size_mismatch(survey: Survey) -> Iterator[Finding]:
    """Masks of another size than their images."""
    files = [f for f in survey.files if f.image and f.mask and f.image.size != f.mask.size]
    if not files or not (image := files[0].image) or not (mask := files[0].mask):
        return
    remedy = "export the masks at the size of their images, without smoothing"
    if all(f.image and f.mask and f.image.size == f.mask.size[::-1] for f in files):
        remedy = "height and width are swapped, as when a photo's EXIF turn was ignored in labelling: turn the masks"
    told = size_text(image.size)
    if all(f.image and f.mask and _took_another_axis(f.image, f.mask) for f in files):
        told += f" with {many(image.channels, 'channel')}"
        remedy = (
            "of three axes without names the shortest was taken for the channels: write the images anew, by tifffile "
            "with planarconfig='contig' where channels come last, with metadata={'axes': 'CYX'} where they come first"
        )
    example = f"{files[0].name} is {told}, its mask {size_text(mask.size)}"
    message = f"{many(len(files), 'mask')} of another size than the image: {example}"
    yield Finding("error", "size-mismatch", message, _paths(files), remedy)


def _took_another_axis(image: ImageFacts, mask: MaskFacts) -> bool:
    """Whether the channels are as many as a side of the mask is long: then that was the image's side too."""
    return image.channels in mask.size and not Counter(mask.size) - Counter((*image.size, image.channels))


def turned(survey: Survey) -> Iterator[Finding]:
    """Photographs that are stored turned, in such a way that no size tells whether their masks are turned too."""
    files = [
        f for f in survey.files
        if f.usable and f.image and f.image.orientation > 1
        and (f.image.orientation < 5 or f.image.size[0] == f.image.size[1])
    ]  # fmt: skip
    if files:
        yield Finding(
            "warning",
            "turned",
            f"{many(len(files), 'photograph')} stored turned or mirrored, which their EXIF tells to undo; their masks "
            "are taken as they are",
            tuple(f.image_path for f in files),
            f"look at one with its mask ({files[0].name}): if they do not lie the same way, turn the masks, or save "
            "the photographs upright",
        )


def nothing_to_learn(survey: Survey) -> Iterator[Finding]:
    """No usable pair, or a single class."""
    if not survey.training:
        message = "No training image can be used together with its mask"
        remedy = "correct the errors above, or add images with masks"
        if survey.files and not {"train", "all"} & set(survey.splits):
            found = " and ".join(f"{split}/" for split in survey.splits)
            message = f"There is nothing to learn from: only {found} was found"
            remedy = "call the folder of training images train/, with images/ and masks/ in it"
            if "train" in map(split_of, survey.beside):
                remedy = "put images/ and masks/ into train/, which lacks one of them or both"
            elif survey.beside:
                remedy += f"; is it {' or '.join(survey.beside[:3])}?"
        yield Finding("error", "no-usable", message, (), remedy)
    elif survey.classes:
        seen = [name for name, n in zip(survey.classes.names, survey.training_pixels) if n]
        if len(seen) < 2:
            shown = ", ".join(seen) or "all is void"
            message = f"The training masks show a single class ({shown}): nothing to tell apart"
            remedy = "check that the masks are the right files"
            if any(f.mask and f.mask.tags.hides for f in survey.training):
                message += " but by alpha, which is not read"
                remedy = _WITHOUT_ALPHA
            yield Finding("error", "one-class", message, (), remedy)


def transparent(survey: Survey) -> Iterator[Finding]:
    """Masks in which alpha tells pixels apart that have one colour: erased strokes, black ones on nothing."""
    files = [f for f in survey.files if f.mask and f.mask.tags.hides]
    if files:
        message = (
            f"{many(len(files), 'mask')} with a colour that is transparent in some pixels and opaque in others; "
            "alpha is not read, so both are one class"
        )
        yield Finding("warning", "transparent-mask", message, _paths(files), _WITHOUT_ALPHA)


def inverted(survey: Survey) -> Iterator[Finding]:
    """Masks in which 0 is white, beside others: what reads them by their numbers would not see them so."""
    files = [(f, f.mask.tags.inverted) for f in survey.files if f.mask]
    white, black = ([f for f, found in files if found == is_white] for is_white in (True, False))
    if white and black:
        yield Finding(
            "warning",
            "inverted-mask",
            f"{many(len(white), 'mask')} in which 0 is white, as their TIFF tags say, and {len(black):,} in which it "
            "is black; they are read by their brightness, so 0 in the one is the largest value in the other",
            _paths(white),
            f"look at one of each ({white[0].mask_path} and {black[0].mask_path}): if what is white is not the same in "
            "both, save the masks anew in one way",
        )


def soft_masks(survey: Survey) -> Iterator[Finding]:
    """Antialiased or JPEG-compressed masks."""
    if not survey.classes or not survey.classes.nearest:
        return
    listed = {value for values in (*survey.classes.values, survey.classes.void) for value in values}
    files = [f for f in survey.files if f.mask and any(_plain(c.value, listed) not in listed for c in f.mask.values)]
    if files:
        values = {_plain(c.value, listed) for f in files if f.mask for c in f.mask.values} - listed
        yield Finding(
            "warning",
            "soft-mask",
            f"{many(len(files), 'mask')} with {len(values):,} values along edges beside the {survey.classes.count} of "
            "the classes, as antialiasing or JPEG leave them; each such pixel takes the class of the nearest value",
            _paths(files),
            "export the masks as PNG without smoothing to have exact edges",
        )


def blurred_ids(survey: Survey) -> Iterator[Finding]:
    """Classes that lie only along edges: what smoothing makes of ids when masks are resized, and coloured outlines."""
    known = survey.classes
    if not known or known.count < 3 or known.nearest or survey.declared:
        return
    thick = [survey.thickness(place) for place in range(known.count)]
    solid = [n for n, found in enumerate(thick) if found and found.median > 2]
    thin = [n for n, found in enumerate(thick) if found and found.median <= _LINE]
    if isinstance(known.values[0][0], tuple):
        between = [known.names[n] for n in thin if len(solid) > 1]  # else what is thin may lie on the background
        told, remedy = "as outlines of objects are", "if they do not count, list them under void in classes.toml"
    else:
        between = [known.names[n] for n in thin if solid and min(solid) < n < max(solid)]
        told = "with values between those of other classes, as smoothing leaves them along edges when masks are resized"
        remedy = "resize masks by nearest neighbour"
    if between:
        yield Finding(
            "warning",
            "blurred-ids",
            f"{', '.join(between)}: only lines about a pixel thick, {told}",
            (),
            f"{remedy}; if these lines are meant, list the classes in classes.toml",
        )


def lone_white(survey: Survey) -> Iterator[Finding]:
    """255 as a class beside ids that are no even steps up to it: it may mean that nothing is known."""
    known = survey.classes
    if not known or known.nearest or survey.declared or (VOID,) not in known.values or known.count < 3:
        return
    ids = [value for (value, *_) in known.values if isinstance(value, int) and 0 <= value < VOID]
    if len(ids) == known.count - 1 and stands_off(ids) > _OUT_OF_STEP:
        pixels = survey.class_pixels()
        share = percent(pixels[-1] / max(1, sum(pixels)))
        yield Finding(
            "warning",
            "lone-255",
            f"255 is taken for a class of its own ({share} of the pixels), though the other values end at {ids[-1]}",
            (),
            "if it means that nothing is known there, list the classes in classes.toml, with void = [255] above them",
        )


def mostly_void(survey: Survey) -> Iterator[Finding]:
    """255 that is taken for void and covers more than all else: it may be the background."""
    known = survey.classes
    if not known or survey.declared or VOID not in known.void:
        return
    void, pixels = sum(f.mask.void for f in survey.files if f.mask), sum(survey.class_pixels())
    if void > pixels:
        yield Finding(
            "warning",
            "mostly-255",
            f"255 is taken for what does not count, in {percent(void / (void + pixels))} of the pixels",
            (),
            "if it is the background, list the classes in classes.toml, 255 as one of them",
        )


def near_colors(survey: Survey) -> Iterator[Finding]:
    """Colours of a few pixels that look the same as one of many: a slip of the brush, or of a program."""
    known = survey.classes
    if not known or survey.declared:
        return
    pixels = survey.class_pixels()
    colors = [value if isinstance(value, tuple) else None for (value, *_) in known.values]
    slips = [
        f"{known.names[n]} ({many(pixels[n], 'pixel')}) beside {known.names[m]}"
        for n, few in enumerate(colors) for m, lot in enumerate(colors)
        if few and lot and 0 < _SLIP * pixels[n] <= pixels[m] and max(abs(a - b) for a, b in zip(few, lot)) <= NEAR
    ]  # fmt: skip
    if slips:
        yield Finding(
            "warning",
            "near-colors",
            f"Colours of few pixels that are nearly those of another class: {', '.join(slips)}",
            (),
            "paint both in one colour, or list both as the values of one class in classes.toml",
        )


def object_numbers(survey: Survey) -> Iterator[Finding]:
    """Masks that number objects."""
    if not survey.classes or survey.declared or survey.classes.count < 4:  # two values: a thing and its part
        return
    masks = [f.mask for f in survey.files if f.mask and f.mask.shapes]
    shown = [[place for place, shape in enumerate(m.shapes) if shape.pixels and place] for m in masks]
    areas = [(place, len(m.shapes[place].extents)) for m, places in zip(masks, shown) for place in places]
    in_a_row = [places == list(range(1, len(places) + 1)) for places in shown if places]
    from_one = sum(in_a_row) > 0.8 * len(in_a_row)
    times = Counter(place for place, _ in areas)
    once = len(masks) >= NUMBERED_MASKS and sum(n == 1 for n in times.values()) > len(times) / 2
    told = _are_single(n for _, n in areas) and (from_one or once or survey.classes.count > MANY_CLASSES)
    if survey.classes.count < MANY_NUMBERS:  # as many as there may be classes: nothing may speak for these
        numbers = Counter(len(places) for places in shown if places)
        told = all(n == 1 for _, n in areas) and all(in_a_row) and len(numbers) > 1
        told = told and numbers.total() >= NUMBERED_MASKS
    how = "in each mask they run from 1 up, and each is one connected area" if from_one else "each is one area"
    how += ", most of them in one mask only" if once else ""
    remedy = "write masks as (mask > 0), or list the true classes in classes.toml"
    large = {
        place for place, (value, *_) in enumerate(survey.classes.values) if isinstance(value, int) and value > VOID
    }
    if not told and len(large) >= MANY_NUMBERS:
        told = _are_single(n for place, n in areas if place in large)
        how = f"each of the {len(large)} above {VOID} is one area"
        remedy = "if the thousands are the class, as in Cityscapes, write np.where(mask > 255, mask // 1000, mask)"
    if areas and told:
        yield Finding(
            "warning",
            "object-numbers",
            f"The {survey.classes.count} mask values look like numbers of single objects, not classes: {how}",
            (),
            remedy,
        )


def _are_single(areas: Iterable[int]) -> bool:
    """Whether nearly all are one connected area each."""
    single = [count == 1 for count in areas]
    return sum(single) > 0.9 * len(single)


def missing_classes(survey: Survey) -> Iterator[Finding]:
    """Classes missing from a split or from all."""
    if not survey.classes:
        return
    everywhere = survey.class_pixels()
    for split in survey.splits:
        if split == "all" or not any(f.mask for f in survey.files if f.split == split):
            continue  # of a divided folder what was left out; images that are there to be painted
        here = survey.class_pixels(split)
        missing = [n for n, a, b in zip(survey.classes.names, here, everywhere) if b and not a]
        if missing:
            effect = "cannot be learnt" if split == "train" else "there it can only be painted wrongly"
            message = f"Missing from {split}: {', '.join(missing)}; {effect}"
            remedy = f"move images that show them to {split}/"
            if survey.parted and split in ("train", "val"):
                remedy = "add images that show them; whatwhere divided the folder"
            yield Finding("warning", "class-missing", message, (), remedy)
    unused = [name for name, n in zip(survey.classes.names, everywhere) if not n]
    if unused:
        message = f"No mask shows {', '.join(unused)}"
        yield Finding("warning", "class-unused", message, (), "remove it from classes.toml, or correct its value")


def rare_classes(survey: Survey) -> Iterator[Finding]:
    """Classes with few pixels or images."""
    if not survey.classes or not survey.training:
        return
    pixels = survey.training_pixels
    rare = []
    for place, name in enumerate(survey.classes.names):
        share = pixels[place] / max(1, sum(pixels))
        files = sum(bool(f.mask and f.mask.shapes[place].pixels) for f in survey.training)
        if files and (share < RARE_SHARE or (files < RARE_FILES and len(survey.training) >= 4 * RARE_FILES)):
            rare.append(f"{name} ({percent(share)} of the pixels, in {many(files, 'image')})")
    if rare:
        remedy = "training draws crops where they are; add images that show them if their scores matter"
        yield Finding("warning", "rare-class", f"Rare in training: {', '.join(rare)}", (), remedy)


def empty_masks(survey: Survey) -> Iterator[Finding]:
    """Masks of void or background alone."""
    files = [f for f in survey.files if f.mask and f.mask.shapes]
    void = [f for f in files if f.mask and f.mask.void == f.mask.size[0] * f.mask.size[1]]
    if void:
        message = f"{many(len(void), 'mask')} with ignored (void) pixels only"
        yield Finding("warning", "void-mask", message, _paths(void), "remove them, or label them")
    pixels = survey.class_pixels()
    if not survey.classes or sum(n > 0 for n in pixels) < 2:
        return
    usual = max(range(len(pixels)), key=lambda place: pixels[place])
    empty = [f for f in files if f not in void and f.mask and _only(f, usual)]
    if empty:
        severity: Severity = "warning" if len(empty) * 2 > len(files) else "note"
        message = f"{many(len(empty), 'mask')} of {survey.classes.names[usual]} alone"
        remedy = "see that nothing was left unlabelled in them"
        yield Finding(severity, "empty-mask", message, _paths(empty), remedy)


def classes(survey: Survey) -> Iterator[Finding]:
    """The value-to-class mapping, with shares of all pixels."""
    if not survey.classes:
        return
    known = survey.classes
    void = sum(f.mask.void for f in survey.files if f.mask)
    rows = list(zip(known.names, known.values, survey.class_pixels()))
    if known.void:
        rows.append(("(does not count)", known.void, void))
    total = max(1, sum(pixels for _, _, pixels in rows))
    width = max(len(name) for name, _, _ in rows)
    source = f"named as in {survey.class_list}" if survey.class_list else "name them in classes.toml"
    source = "from classes.toml" if survey.declared else f"inferred from the masks; {source}"
    lines = [f"{many(known.count, 'class')} ({source})"]
    for name, values, pixels in rows:
        listed = ", ".join(map(_value, values))
        lines.append(f"  {name:<{width}}  {percent(pixels / total):>7}  mask value {listed}")
    yield Finding("note", "classes", "\n".join(lines))


def objects(survey: Survey) -> Iterator[Finding]:
    """How large objects are, and how thin."""
    names = survey.classes.names if survey.classes else ()
    width = max(map(len, names), default=0)
    rows = []
    for place, name in enumerate(names):
        extents, by_area = survey.object_extents(place), survey.object_extents(place, by_area=True)
        thick = survey.thickness(place)
        if extents and by_area:
            thin = f", {thick.median:.0f} thick ({thick.low:.0f} where thinnest)" if thick else ""
            row = f"{extents.count:>7,} areas, typically {by_area.median:.0f} px long"
            rows.append(f"  {name:<{width}}  {row}{thin}")
    if rows:
        yield Finding("note", "objects", "\n".join(["Objects, by class (connected areas; pixels):", *rows]))


def _only(file: FileSurvey, place: int) -> bool:
    return bool(file.mask and all((shape.pixels > 0) == (k == place) for k, shape in enumerate(file.mask.shapes)))


def _plain(value: MaskValue, listed: set[MaskValue]) -> MaskValue:
    """A grey value as a colour where the classes are colours."""
    return (value, value, value) if isinstance(value, int) and any(isinstance(v, tuple) for v in listed) else value


def _value(value: MaskValue) -> str:
    return color_text(value) if isinstance(value, tuple) else str(value)


def _paths(files: Iterable[FileSurvey]) -> tuple[str, ...]:
    return tuple(file.mask_path or "" for file in files)
