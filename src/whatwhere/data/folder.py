"""Find the images and masks of a data folder and pair them by name.

Looks at names only: opens no image. Whether the files can be used is `survey`'s and `check`'s affair.
"""

from __future__ import annotations

import unicodedata
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from whatwhere.data.images import IMAGE_SUFFIXES, check_text
from whatwhere.data.mapping import read_classes
from whatwhere.data.tiffs import TIFF_SUFFIXES
from whatwhere.errors import DataError
from whatwhere.records import Classes

__all__ = [
    "LAYOUT",
    "Folder",
    "LayoutError",
    "Sample",
    "bare",
    "files_below",
    "find",
    "has_pairs",
    "is_broken",
    "mask_folders",
]

LAYOUT = "images/ and masks/ with equal file stems, or train/, val/ and test/ each holding that pair"

_IMAGES = ("images", "image", "imgs", "img", "imagestr")
_MASKS = (
    "masks", "mask", "labels", "label", "annotations", "annotation", "segmentations", "segmentation", "groundtruth",
    "ground_truth", "gt", "labelstr", "1st_manual", "manual",
)  # fmt: skip
"""In any case; those in ..tr are nnU-Net's, the last two DRIVE's and other vessels', beside whose masks there is a
folder of fields of view."""
_SPLITS = {
    "train": "train",
    "training": "train",
    "val": "val",
    "valid": "val",
    "validation": "val",
    "test": "test",
    "testing": "test",
}
_MASK_SUFFIXES = (
    "_mask", "-mask", " mask", ".mask", "_masks", "_label", "_labels", "_seg", "_segmentation", "_gt", "_l",
)  # fmt: skip
"""In any case: ISIC writes _segmentation, CamVid _L."""


class LayoutError(DataError):
    """A folder that is not laid out as images and masks."""


_OUTLINES = (".txt", ".json", ".xml", ".geojson")
"""As YOLO, COCO, LabelMe, Pascal VOC and QuPath write them."""


@dataclass(frozen=True)
class Sample:
    """An image and its mask.

    Attributes:
        name: the image's path within its images folder, without ending, with forward slashes: ``"plate 1/a"``.
        image: the image file.
        mask: the mask file; None when there is none.
    """

    name: str
    image: Path
    mask: Path | None


@dataclass(frozen=True)
class Folder:
    """What a data folder holds.

    Attributes:
        root: the folder.
        splits: samples sorted by name under ``"train"``, ``"val"``, ``"test"`` where the folder is divided so, and
            under ``"all"`` where it is not (then `split` divides it). Images without a mask are among them.
        classes: from ``classes.toml``; None when there is no such file.
        lone_masks: masks without an image.
        ignored: files beside images and masks that are no images by their ending.
        beside: folders named like a split that hold no pair, or lie beside one; folders with images beside a pair, and
            with a pair beside train, val and test; and in an images folder that is divided so the folders and images
            which are in none.
        named: an image and its mask whose names differ, where pairs were found by what differs among the names of
            images, and of masks.
    """

    root: Path
    splits: Mapping[str, tuple[Sample, ...]]
    classes: Classes | None = None
    lone_masks: tuple[Path, ...] = field(default=())
    ignored: tuple[Path, ...] = field(default=())
    beside: tuple[Path, ...] = field(default=())
    named: tuple[Path, ...] = field(default=())

    def pairs(self, split: str) -> tuple[Sample, ...]:
        """The samples of a split that have a mask; empty when there is no such split."""
        return tuple(sample for sample in self.splits.get(split, ()) if sample.mask is not None)

    @property
    def undivided(self) -> str | None:
        """The split that training divides into train and val; None where both are there."""
        if self.pairs("train") and self.pairs("val"):
            return None
        return "all" if "all" in self.splits else "train"

    def as_divided(self, split: str, names: Collection[str]) -> tuple[Sample, ...]:
        """The samples with masks of a split; of one that training has made, those that it named so."""
        source = self.undivided
        if source is None or split not in ("train", "val") or not names:
            return self.pairs(split)
        wanted = set(names)
        return tuple(sample for sample in self.pairs(source) if sample.name in wanted)


def find(root: str | Path) -> Folder:
    """Find the images of a data folder, and the mask of each.

    Args:
        root: a folder with ``images/`` and ``masks/`` (or ``labels/``), or with ``train/``, ``val/``, ``test/`` that
            hold such a pair, or with ``images/train/``, ``masks/train/`` and so on. Subfolders of images are mirrored
            in masks. Stems are equal; where one is not, ``a_mask.png`` is taken for ``a.jpg``; where none is, what
            differs among the names of the images and of the masks: ``21_manual1.gif`` for ``21_training.tif``.
            ``classes.toml`` lies in the folder, or in its splits if all say the same.

    Raises:
        DataError: no such folder, one that can't be read, nothing in it, no pair in it, two folders of masks, two
            images of one name, or two lists of classes.
    """
    try:
        return _find(Path(root))
    except OSError as error:
        raise DataError(
            f"{error.filename or root} cannot be opened ({error.strerror})",
            "a readable folder",
            "change its permissions, or see whether its drive is there",
        ) from error


def _find(root: Path) -> Folder:
    if not root.is_dir():
        problem = "is a file" if root.exists() else "does not exist"
        raise DataError(f"{root} {problem}", f"a folder with {LAYOUT}", "check the path")
    splits: dict[str, tuple[Sample, ...]] = {}
    lone: list[Path] = []
    ignored: list[Path] = []
    named: list[Path] = []
    triples = _pair_folders(root)
    classes = _classes_in([root, *(place.parent for _, *pair in triples for place in pair)])
    for split, images, masks in triples:
        image_files, other = _files(images)
        mask_files, other_masks = _files(masks)
        samples, left = _pair(image_files, mask_files)
        if left and not any(sample.mask for sample in samples):
            samples, left = _pair_by_cores(image_files, mask_files)
            named += next(([sample.image, sample.mask] for sample in samples if sample.mask), [])
        if split in splits:
            raise DataError(f"{root} has two folders for {split!r}", "one", "rename or merge them")
        splits[split] = samples
        lone += left
        ignored += other + other_masks
    folder = Folder(root, splits, classes, tuple(lone), tuple(ignored), _beside(root), tuple(named))
    if not any(folder.pairs(split) for split in splits):
        raise _no_pairs(folder)
    return folder


def _classes_in(places: Iterable[Path]) -> Classes | None:
    """What their ``classes.toml`` says: of the root, or of splits that have their own."""
    found = {path: read_classes(path) for place in places if (path := place / "classes.toml").is_file()}
    if len(set(found.values())) > 1:
        files = " and ".join(map(str, found))
        raise DataError(f"{files} list different classes", "one list for all splits", "keep the one that is right")
    return next(iter(found.values()), None)


def _pair_folders(root: Path) -> list[tuple[str, Path, Path]]:
    """The (split, images folder, masks folder) triples of a root, in the order train, val, test."""
    if pair := _pair_in(root):
        images, masks = pair
        inner, inner_masks = _split_folders(images), _split_folders(masks)
        if "train" not in inner:  # one plate may be called test
            return [("all", images, masks)]
        return [
            (split, images / inner[split], masks / inner_masks.get(split, inner[split])) for split in _in_order(inner)
        ]
    found = [(split, root / name) for name in _folders(root) if (split := _SPLITS.get(name.lower()))]
    triples = [(split, *pair) for split, place in found if (pair := _pair_in(place))]
    if triples:
        return sorted(triples, key=lambda triple: ("train", "val", "test").index(triple[0]))
    raise LayoutError(f"{root} holds {_contents(root)}", LAYOUT, "arrange the files so, or give another folder")


def has_pairs(root: Path) -> bool:
    """Whether it is laid out as a data folder, and plain which of its folders hold the masks."""
    with suppress(DataError, OSError):  # what is wrong says whoever reads it
        return root.is_dir() and bool(_pair_folders(root))
    return False


def mask_folders(root: Path) -> tuple[Path, ...]:
    """All folders of a data folder that are named as if they held masks; none if it is laid out otherwise.

    Which of several are meant is not asked: whoever paints the images wants none of them.
    """
    if not root.is_dir():
        return ()
    places = (root, *(root / name for name in _folders(root) if name.lower() in _SPLITS))
    return tuple(masks for place in places for masks in _masks_in(place))


def _masks_in(place: Path) -> list[Path]:
    """The folders named like masks beside one of images."""
    images, masks = _named(place)
    return masks if _only(images) else []


def _split_folders(place: Path) -> dict[str, str]:
    """Names of the folders that divide images into train, val and test."""
    found: dict[str, str] = {}
    for name in _folders(place):
        split = _SPLITS.get(name.lower())
        if split in found:
            raise DataError(f"{place} has two folders for {split!r}", "one", "rename or merge them")
        if split is not None:
            found[split] = name
    return found


def _beside(root: Path) -> tuple[Path, ...]:
    """What looks as if it were to be used and is not: folders named like a split, what lies beside such, and images."""
    pair = _pair_in(root)
    named = [root / name for name in _folders(root) if name.lower() in _SPLITS]
    if pair is None:
        pairs = {place: _pair_in(place) for place in named}
        lone = [place for place, found in pairs.items() if found is None]
        rest = (root / name for name in _folders(root) if name.lower() not in _SPLITS)
        lone += [place for place in rest if _holds_a_pair(place)]
        return *lone, *(other for place, found in pairs.items() if found for other in _others(place, found))
    others = tuple(other for other in _others(root, pair) if other not in named)
    if "train" not in (inner := _split_folders(pair[0])):
        return *named, *others
    entries = (entry for entry in sorted(pair[0].iterdir()) if not _hidden(entry.name))
    loose = (one for one in entries if one.name not in inner.values() and (one.is_dir() or _is_image(one)))
    return *named, *others, *loose


def _holds_a_pair(place: Path) -> bool:
    with suppress(DataError, OSError):
        return _pair_in(place) is not None
    return True


def _others(place: Path, pair: tuple[Path, Path]) -> Iterator[Path]:
    """Folders beside a pair that hold images too: other masks, or images that nobody took."""
    for name in _folders(place):
        with suppress(OSError):  # what can't be looked into is not meant
            if place / name not in pair and any(_is_image(path) for path in (place / name).iterdir()):
                yield place / name


def _hidden(name: str) -> bool:
    """Of the system or of a network drive, not of the user's."""
    return name.startswith(".") or name in ("Thumbs.db", "__MACOSX", "@eaDir")


def _in_order(splits: Mapping[str, str]) -> list[str]:
    return [split for split in ("train", "val", "test") if split in splits]


def _pair_in(place: Path) -> tuple[Path, Path] | None:
    """The folders of images and of masks in a place."""
    images, masks = map(_only, _named(place))
    return (images, masks) if images and masks else None


def _named(place: Path) -> tuple[list[Path], list[Path]]:
    """The folders in a place that are named like images, and like masks."""
    here = {name.lower(): place / name for name in _folders(place)}
    images, masks = ([here[name] for name in names if name in here] for names in (_IMAGES, _MASKS))
    return images, masks


def _only(places: list[Path]) -> Path | None:
    """The one of them that holds images; which of several is meant can't be guessed."""
    if len(places) < 2:
        return places[0] if places else None
    filled = [place for place in places if any(_is_image(path) for path in files_below(place))]
    if len(filled) > 1:
        raise DataError(
            f"{places[0].parent} holds {' and '.join(place.name + '/' for place in filled)}, all with images",
            "one folder of images and one of masks",
            "move what is not meant, or give it another name: for instance fov/ for fields of view",
        )
    return filled[0] if filled else places[0]


def _is_image(path: Path) -> bool:
    return path.suffix.lower() in IMAGE_SUFFIXES


def _folders(place: Path) -> list[str]:
    return sorted(entry.name for entry in place.iterdir() if entry.is_dir() and not _hidden(entry.name))


def _files(place: Path) -> tuple[dict[str, Path], list[Path]]:
    """Image files under a folder by name without ending, and the other files. Hidden files are left out."""
    images: dict[str, Path] = {}
    others: list[Path] = []
    for path in sorted(files_below(place)) if place.is_dir() else ():
        inside = path.relative_to(place)
        if not _is_image(path):
            others.append(path)
            continue
        check_text(inside.as_posix(), f"{place} has")
        # file systems differ in how they write accents: compare the composed form
        name = unicodedata.normalize("NFC", bare(inside).as_posix())
        if name in images:
            first = images[name].relative_to(place)
            raise DataError(f"{place} has {first} and {inside}", "one file a name", "rename or remove one of them")
        images[name] = path
    return images, others


def bare(path: Path) -> Path:
    """Without its ending, by which an image and its mask may differ: also OME-TIFF's, which is of two parts.

    >>> bare(Path("plate/a.1.png")).as_posix(), bare(Path("a.ome.tif")).as_posix()
    ('plate/a.1', 'a')
    """
    stem = path.with_suffix("")
    ome = path.suffix.lower() in TIFF_SUFFIXES and stem.suffix.lower() == ".ome"
    return stem.with_suffix("") if ome else stem


def is_broken(path: Path) -> bool:
    """Whether it is a link, named like an image, to what is not there: moved away, on a drive not mounted."""
    return _is_image(path) and path.is_symlink() and not path.exists()


def files_below(
    place: Path, whole: Callable[[Path], bool] = Path.is_file, above: frozenset[Path] = frozenset()
) -> Iterator[Path]:
    """Files of a folder and of all in it, sorted. Hidden ones are passed over.

    Links to folders are followed, but not round in a circle. Links to images that are not there are among the files, so
    that whoever reads them tells.

    Args:
        whole: of which folders is told that they count as one file.
        above: the folders on the way here.
    """
    here = place.resolve()
    for entry in sorted(place.iterdir()) if here not in above else ():
        if _hidden(entry.name):
            continue
        if entry.is_file() or whole(entry) or is_broken(entry):
            yield entry
        elif entry.is_dir():
            yield from files_below(entry, whole, above | {here})


def _pair(images: dict[str, Path], masks: dict[str, Path]) -> tuple[tuple[Sample, ...], list[Path]]:
    """Samples sorted by name, and the masks that belong to none."""
    left = dict(masks)
    chosen = {name: left.pop(name) for name in images if name in masks}
    by_case = {name.lower(): name for name in left}
    alone = Counter(name.lower() for name in images)
    for name in images:
        if name in chosen:
            continue
        candidates = [by_case.get((name + suffix).lower(), "") for suffix in ("", *_MASK_SUFFIXES)]
        one = alone[name.lower()] == 1  # a.png and A.png: whose a_mask.png is, is told by its case
        fitting = next((mask for mask in candidates if mask in left and (one or mask.startswith(name))), None)
        if fitting is not None:
            chosen[name] = left.pop(fitting)
    samples = tuple(Sample(name, path, chosen.get(name)) for name, path in sorted(images.items()))
    return samples, list(left.values())


def _pair_by_cores(images: dict[str, Path], masks: dict[str, Path]) -> tuple[tuple[Sample, ...], list[Path]]:
    """As `_pair`, by what tells the images from each other and the masks from each other.

    DRIVE has 21_training and 21_manual1, nnU-Net case_001_0000 and case_001, Cityscapes a_leftImg8bit and
    a_gtFine_labelIds. Only where each mask then has its image.
    """
    by_core = _cores(images)
    found = {by_core.get(core): masks[name] for core, name in _cores(masks).items()}
    if None in found or len(found) < len(masks):
        found = {}
    samples = tuple(Sample(name, path, found.get(name)) for name, path in sorted(images.items()))
    return samples, [] if found else list(masks.values())


def _cores(files: Mapping[str, Path]) -> dict[str, str]:
    """Names by their core: without what all begin and end with. No numbers are cut, and folders stay."""
    stems = [name.rpartition("/")[2] for name in files]
    start = _shared(stems).rstrip("0123456789")
    end = _shared([stem[::-1] for stem in stems])[::-1].lstrip("0123456789")
    cores: dict[str, str] = {}
    for name, stem in zip(files, stems):
        core = stem[len(start) : len(stem) - len(end)]
        if len(files) > 1 and core:
            cores[name.removesuffix(stem) + core] = name
    return cores


def _shared(words: list[str]) -> str:
    """What all of them begin with."""
    first, last = min(words, default=""), max(words, default="")
    differ = (place for place, (one, other) in enumerate(zip(first, last)) if one != other)
    return first[: next(differ, min(len(first), len(last)))]


def _contents(root: Path) -> str:
    entries = sorted(entry for entry in root.iterdir() if not entry.name.startswith("."))
    if not entries:
        return "nothing"
    shown = ", ".join(entry.name + ("/" if entry.is_dir() else "") for entry in entries[:6])
    return shown + (f" and {len(entries) - 6} more" if len(entries) > 6 else "")


def _no_pairs(folder: Folder) -> DataError:
    images = [sample.image for samples in folder.splits.values() for sample in samples]
    if not images and not folder.lone_masks:
        found = f"{folder.root} has folders for images and masks, but no image in them"
        if folder.ignored:
            found += f" ({len(folder.ignored)} other files, such as {folder.ignored[0].name})"
        return DataError(found, LAYOUT, "copy the images there: " + ", ".join(sorted(IMAGE_SUFFIXES)))
    others = Counter(path.suffix.lower() for path in folder.ignored if path.suffix.lower() in _OUTLINES)
    if not folder.lone_masks and others:
        kind, count = others.most_common(1)[0]
        return DataError(
            f"{folder.root} has {len(images)} images and no masks, but {count} {kind} files, which hold outlines",
            "a mask for each image: a PNG of the same name with a class id a pixel",
            "draw the outlines into masks first, with the program that wrote them",
        )
    examples = [path.relative_to(folder.root).as_posix() for path in (*images[:1], *folder.lone_masks[:1])]
    found = f"{folder.root} has {len(images)} images and {len(folder.lone_masks)} masks, but no name in common"
    return DataError(f"{found} ({' and '.join(examples)})", LAYOUT, "give each mask the name of its image")
