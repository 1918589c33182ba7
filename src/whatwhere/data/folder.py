"""Find the images and masks of a data folder and pair them by name.

Looks at names only: opens no image. Whether the files can be used is `survey`'s and `check`'s affair.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from whatwhere.data.class_lists import ClassList, read_class_list
from whatwhere.data.images import IMAGE_SUFFIXES, check_text
from whatwhere.data.layouts import LAYOUT, remedy
from whatwhere.data.mapping import read_classes
from whatwhere.data.name_words import is_zarr
from whatwhere.data.names import Sample, bare, hidden, pair_by_cores, pair_by_names, split_of
from whatwhere.data.no_pairs import no_pairs
from whatwhere.errors import DataError, look_at
from whatwhere.records import Classes

__all__ = [
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

_IMAGES = ("images", "image", "imgs", "img", "imagestr")
_MASKS = (
    "masks", "mask", "labels", "label", "annotations", "annotation", "segmentations", "segmentation", "groundtruth",
    "ground_truth", "gt", "labelstr",
)  # fmt: skip
"""In any case; those in ..tr are nnU-Net's."""
_LISTS = (".csv", ".txt")
_VESSELS = re.compile(r"(\d(st|nd|rd)_)?manual\d*|vessels?([ _-].*)?")
"""As DRIVE, HRF and LES-AV call the masks of the eye's vessels, beside which mask/ is a folder of fields of view."""


class LayoutError(DataError):
    """A folder that is not laid out as images and masks."""


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
        lists: files of names that are called like a split, where nothing is divided.
        class_list: names of classes as another program wrote them down, where there is no ``classes.toml``.
        lost: links in folders of images and of masks to what is not there, if they are not named like images.
    """

    root: Path
    splits: Mapping[str, tuple[Sample, ...]]
    classes: Classes | None = None
    lone_masks: tuple[Path, ...] = ()
    ignored: tuple[Path, ...] = ()
    beside: tuple[Path, ...] = ()
    named: tuple[Path, ...] = ()
    lists: tuple[Path, ...] = ()
    lost: tuple[Path, ...] = ()
    class_list: ClassList | None = field(default=None, kw_only=True)

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
        DataError: no such folder, one that can't be read, nothing in it, no pair in it, two folders of masks, masks
            called differently in each split, two images of one name, two lists of classes, or a link to a folder that
            is not there.
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
        look_at(root)
        problem = "is a file" if root.exists() else "does not exist"
        raise DataError(f"{root} {problem}", f"a folder with {LAYOUT}", "check the path")
    splits: dict[str, tuple[Sample, ...]] = {}
    lone: list[Path] = []
    ignored: list[Path] = []
    named: list[Path] = []
    lost: list[Path] = []
    _refuse_lost(root)
    triples = _pair_folders(root)
    if not triples:
        raise LayoutError(f"{root} holds {_contents(root)}", LAYOUT, remedy(root, has_pairs))
    places = [root, *(place.parent for _, *pair in triples for place in pair)]
    classes = _classes_in(places)
    class_list = None if classes else read_class_list(places)
    for split, images, masks in triples:
        image_files, other, no_files = _files(images)
        mask_files, other_masks, no_masks = _files(masks)
        samples, left = pair_by_names(image_files, mask_files)
        if left and not any(sample.mask for sample in samples):
            samples, left = pair_by_cores(image_files, mask_files)
            named += next(([sample.image, sample.mask] for sample in samples if sample.mask), [])
        if split in splits:
            raise DataError(f"{root} has two folders for {split!r}", "one", "rename or merge them")
        splits[split] = samples
        lone += left
        ignored += other + other_masks
        lost += no_files + no_masks
    lists = _lists(root) if "all" in splits else ()
    found = [tuple(paths) for paths in (lone, ignored, _beside(root), named, lists, lost)]
    folder = Folder(root, splits, classes, *found, class_list=class_list)
    if not any(folder.pairs(split) for split in splits):
        alone = [sample.image for samples in splits.values() for sample in samples]
        raise no_pairs(root, triples[0][1:], alone, lone, ignored, folder.beside)
    return folder


def _refuse_lost(root: Path) -> None:
    """`DataError` for a link that is called like a folder of a data set and leads nowhere."""

    def is_ours(name: str) -> bool:
        return split_of(name) is not None or name.lower() in (*_IMAGES, *_MASKS)

    places = (root, *(root / name for name in _folders(root) if is_ours(name)))
    entries = (entry for place in places for entry in place.iterdir() if is_ours(entry.name))
    if lost := sorted(filter(_leads_nowhere, entries)):
        raise DataError(
            f"{lost[0]} is a link to {lost[0].readlink()}, which does not exist",
            "a folder",
            "mount what holds it, or remove the link",
        )


def _leads_nowhere(entry: Path) -> bool:
    return entry.is_symlink() and not entry.exists()


def _classes_in(places: Iterable[Path]) -> Classes | None:
    """What their ``classes.toml`` says: of the root, or of splits that have their own."""
    found = {path: read_classes(path) for place in places if (path := place / "classes.toml").is_file()}
    if len(set(found.values())) > 1:
        files = " and ".join(map(str, found))
        raise DataError(f"{files} list different classes", "one list for all splits", "keep the one that is right")
    return next(iter(found.values()), None)


def _pair_folders(root: Path) -> list[tuple[str, Path, Path]]:
    """The (split, images folder, masks folder) triples of a root, in the order train, val, test.

    None where it is laid out otherwise.
    """
    if pair := _pair_in(root):
        images, masks = pair
        inner, inner_masks = _split_folders(images), _split_folders(masks)
        if "train" not in inner:  # one plate may be called test
            return [("all", images, masks)]
        return [
            (split, images / inner[split], masks / inner_masks.get(split, inner[split])) for split in _in_order(inner)
        ]
    found = [(split, root / name) for name in _folders(root) if (split := split_of(name))]
    triples = [(split, *pair) for split, place in found if (pair := _pair_in(place))]
    if triples:
        _one_meaning(root, [masks for _, _, masks in triples])
        return sorted(triples, key=lambda triple: ("train", "val", "test").index(triple[0]))
    return []


def _one_meaning(root: Path, masks: list[Path]) -> None:
    """`DataError` where splits call their masks differently: DRIVE's test part has fields of view alone."""
    first, *others = masks
    for other in others:
        one, two = (path.relative_to(root).as_posix() + "/" for path in (first, other))
        if first.name.lower().rstrip("s") != other.name.lower().rstrip("s"):
            raise DataError(
                f"{root} has masks in {one} and in {two}",
                "the same name in each split, so that they mean the same",
                "rename one of them if they hold the same; if one is of something else, give it a name that is not of "
                "masks: for instance fov/ for fields of view",
            )


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
    places = (root, *(root / name for name in _folders(root) if split_of(name)))
    return tuple(masks for place in places for masks in _masks_in(place))


def _masks_in(place: Path) -> list[Path]:
    """The folders named like masks beside one of images."""
    images, masks = _named(place)
    return masks if _only(images) else []


def _split_folders(place: Path) -> dict[str, str]:
    """Names of the folders that divide images into train, val and test."""
    found: dict[str, str] = {}
    for name in _folders(place):
        split = split_of(name)
        if split in found:
            raise DataError(f"{place} has two folders for {split!r}", "one", "rename or merge them")
        if split is not None:
            found[split] = name
    return found


def _beside(root: Path) -> tuple[Path, ...]:
    """What looks as if it were to be used and is not: folders named like a split, what lies beside such, and images.

    Not folders without images: whoever has just moved these elsewhere leaves such.
    """
    pair = _pair_in(root)
    named = [root / name for name in _folders(root) if split_of(name) and _has_images(root / name)]
    if pair is None:
        pairs = {place: _pair_in(place) for place in named}
        lone = [place for place, found in pairs.items() if found is None]
        rest = (root / name for name in _folders(root) if split_of(name) is None)
        lone += [place for place in rest if _holds_a_pair(place)]
        return *lone, *(other for place, found in pairs.items() if found for other in _others(place, found))
    others = tuple(other for other in _others(root, pair) if other not in named)
    if "train" not in (inner := _split_folders(pair[0])):
        return *named, *others
    entries = (entry for entry in sorted(pair[0].iterdir()) if not hidden(entry.name))
    loose = (
        one for one in entries
        if one.name not in inner.values() and (_has_images(one) if one.is_dir() else _is_image(one))
    )  # fmt: skip
    return *named, *others, *loose


def _lists(root: Path) -> tuple[Path, ...]:
    """Files named like a split, as PASCAL VOC's lists of names."""
    found: list[Path] = []
    for place in (root, root / "splits", root / "ImageSets", root / "ImageSets/Segmentation"):
        with suppress(OSError):  # what is not there, or can't be looked into
            found += sorted(place.iterdir())
    return tuple(path for path in found if path.suffix.lower() in _LISTS and split_of(path.stem))


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
    return images, [*masks, *(path for name, path in here.items() if _VESSELS.fullmatch(name))]


def _only(places: list[Path]) -> Path | None:
    """The one of them that holds images; which of several is meant can't be guessed."""
    if len(places) < 2:
        return places[0] if places else None
    filled = list(filter(_has_images, places))
    if len(filled) > 1:
        raise DataError(
            f"{places[0].parent} holds {' and '.join(place.name + '/' for place in filled)}, all with images",
            "one folder of images and one of masks",
            "move what is not meant, or give it another name: for instance fov/ for fields of view",
        )
    return filled[0] if filled else places[0]


def _has_images(place: Path) -> bool:
    return any(_is_image(path) for path in files_below(place))


def _is_image(path: Path) -> bool:
    return path.suffix.lower() in IMAGE_SUFFIXES


def _folders(place: Path) -> list[str]:
    return sorted(entry.name for entry in place.iterdir() if entry.is_dir() and not hidden(entry.name))


def _files(place: Path) -> tuple[dict[str, Path], list[Path], list[Path]]:
    """Image files under a folder by name without ending, the other files, and links to what is not there.

    A Zarr folder is one of the other files. Hidden files are left out.
    """
    images: dict[str, Path] = {}
    others: list[Path] = []
    lost: list[Path] = []
    whole = files_below(place, lambda entry: _leads_nowhere(entry) or is_zarr(entry)) if place.is_dir() else ()
    for path in sorted(whole):
        inside = path.relative_to(place)
        if not _is_image(path):
            (lost if _leads_nowhere(path) else others).append(path)
            continue
        check_text(inside.as_posix(), f"{place} has")
        # file systems differ in how they write accents: compare the composed form
        name = unicodedata.normalize("NFC", bare(inside).as_posix())
        if name in images:
            first = images[name].relative_to(place)
            raise DataError(f"{place} has {first} and {inside}", "one file a name", "rename or remove one of them")
        images[name] = path
    return images, others, lost


def is_broken(path: Path) -> bool:
    """Whether it is a link, named like an image, to what is not there: moved away, on a drive not mounted."""
    return _is_image(path) and _leads_nowhere(path)


def files_below(
    place: Path, whole: Callable[[Path], bool] = Path.is_file, above: frozenset[Path] = frozenset()
) -> Iterator[Path]:
    """Files of a folder and of all in it, sorted. Hidden ones are passed over.

    Links to folders are followed, but not round in a circle. Links to images that are not there are among the files, so
    that whoever reads them tells.

    Args:
        whole: of which folders and links is told that they count as one file.
        above: the folders on the way here.
    """
    here = place.resolve()
    for entry in sorted(place.iterdir()) if here not in above else ():
        if hidden(entry.name):
            continue
        if entry.is_file() or whole(entry) or is_broken(entry):
            yield entry
        elif entry.is_dir():
            yield from files_below(entry, whole, above | {here})


def _contents(root: Path) -> str:
    entries = sorted(entry for entry in root.iterdir() if not entry.name.startswith("."))
    if not entries:
        return "nothing"
    shown = ", ".join(entry.name + ("/" if entry.is_dir() else "") for entry in entries[:6])
    return shown + (f" and {len(entries) - 6} more" if len(entries) > 6 else "")
