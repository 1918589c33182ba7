"""What is known of a data folder after one reading: facts of each file, and what follows from all together.

Records and sums of them; opens no file and judges nothing.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path

import numpy as np

from whatwhere.data.folder import Folder
from whatwhere.data.images import MaskTags, in_utf8, opaque
from whatwhere.data.likeness import uprightness
from whatwhere.data.pieces import Pieces, PieceTest, judge_pieces
from whatwhere.data.shapes import ClassShape
from whatwhere.data.values import ValueCount
from whatwhere.errors import DataError
from whatwhere.records import Classes, Normalisation

__all__ = ["FileSurvey", "ImageFacts", "MaskFacts", "Quantiles", "Survey", "relative"]


@dataclass(frozen=True)
class ImageFacts:
    """What one image holds; one number a channel in ``minimum``, ``maximum``, ``mean`` and ``std``.

    Attributes:
        size: height and width.
        pixels: that have data; the figures are of these (of what stands in their place, if none has).
        gray: all channels are equal (a grey picture stored as RGB).
        digest: equal for images of equal pixels.
        fingerprint: alike for images that show the same (`likeness`); empty for an image without contrast.
        orientation: how the file asks for its pixels to be turned (EXIF, 1 to 8); the rest is of the upright image.
    """

    size: tuple[int, int]
    pixels: int
    dtype: str
    minimum: tuple[float, ...]
    maximum: tuple[float, ...]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    gray: bool
    digest: str
    fingerprint: bytes
    orientation: int = 1

    @property
    def channels(self) -> int:
        return len(self.mean)

    @property
    def constant(self) -> tuple[bool, ...]:
        """Which channels hold a single value; rounding may leave them a deviation."""
        return tuple(low == high for low, high in zip(self.minimum, self.maximum))

    @property
    def opaque(self) -> bool:
        """An alpha channel that hides nothing comes last."""
        return self.channels in (2, 4) and self.minimum[-1] == self.maximum[-1] == opaque(np.dtype(self.dtype))


@dataclass(frozen=True)
class MaskFacts:
    """What one mask holds.

    Attributes:
        size: height and width.
        values: how often each value occurs.
        shapes: one for each class; empty when the classes are not known.
        void: pixels that do not count.
        digest: equal for masks of equal labels.
        pieces: of the image under the mask; only of some images, and where the classes are known.
        tags: what the file says of its values.
    """

    size: tuple[int, int]
    values: Iterable[ValueCount]
    shapes: tuple[ClassShape, ...] = ()
    void: int = 0
    digest: str = ""
    pieces: Pieces | None = field(default=None, compare=False, repr=False)
    tags: MaskTags = field(default_factory=MaskTags)


@dataclass(frozen=True)
class FileSurvey:
    """One sample: its facts, or the error's text where a file could not be used. Paths are relative to the root."""

    name: str
    split: str
    image_path: str
    mask_path: str | None
    image: ImageFacts | None = None
    mask: MaskFacts | None = None
    image_error: str = ""
    mask_error: str = ""
    image_remedy: str = ""
    mask_remedy: str = ""

    @property
    def usable(self) -> bool:
        """Whether training could take it: image and mask read, of one size, every mask value in a class."""
        return (
            self.image is not None
            and self.mask is not None
            and not self.mask_error
            and self.image.size == self.mask.size
        )


@dataclass(frozen=True)
class Quantiles:
    """How a quantity is spread: the number of values, the smallest, 5 %, half and the largest."""

    count: int
    smallest: float
    low: float
    median: float
    largest: float

    @classmethod
    def of(cls, values: Iterable[float], weights: Iterable[float] | None = None) -> Quantiles | None:
        """Quantiles of (weighted) values; None when there are none.

        >>> Quantiles.of([3, 1, 2]).median
        2.0
        """
        numbers = np.fromiter(values, np.float64)
        if not numbers.size:
            return None
        heavy = np.ones(numbers.size) if weights is None else np.fromiter(weights, np.float64)
        order = np.argsort(numbers, kind="stable")
        reached = np.cumsum(heavy[order])
        places = np.searchsorted(reached, reached[-1] * np.array([0.05, 0.5]))
        low, median = (float(v) for v in numbers[order][np.minimum(places, numbers.size - 1)])
        return cls(int(heavy.sum()), float(numbers.min()), low, median, float(numbers.max()))


@dataclass(frozen=True)
class Survey:
    """Everything known of a data folder after one reading.

    Attributes:
        root: the folder.
        files: one record a sample, by split and name.
        classes: from ``classes.toml`` or inferred; None when they could not be.
        mapping_error: why they could not be.
        declared: whether the classes come from ``classes.toml``.
        lone_masks, ignored, beside, named, lists, lost: as in `Folder`, relative to the root.
        parted: the folder did not come divided into train and val.
        class_list: the file that names the classes, relative to the root; "" if none does.
    """

    root: str
    files: tuple[FileSurvey, ...]
    classes: Classes | None
    mapping_error: str = ""
    declared: bool = False
    lone_masks: tuple[str, ...] = ()
    ignored: tuple[str, ...] = ()
    beside: tuple[str, ...] = ()
    named: tuple[str, ...] = ()
    lists: tuple[str, ...] = ()
    lost: tuple[str, ...] = ()
    parted: bool = False
    class_list: str = ""

    @cached_property
    def splits(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(file.split for file in self.files))

    @cached_property
    def training(self) -> tuple[FileSurvey, ...]:
        """The usable files that training sees (all of them, while the folder is not divided)."""
        return tuple(file for file in self.files if file.split in ("train", "all") and file.usable)

    @cached_property
    def _without_alpha(self) -> bool:
        return all(file.image.opaque for file in self.files if file.image and file.image.channels in (2, 4))

    def channels(self, image: ImageFacts) -> int:
        """How many count: an alpha channel does not, where those of all images hide nothing."""
        return image.channels - (image.opaque and self._without_alpha)

    def class_pixels(self, split: str | None = None) -> tuple[int, ...]:
        """Pixels of each class, in one split or all."""
        return self._pixels(file for file in self.files if split in (None, file.split))

    @cached_property
    def training_pixels(self) -> tuple[int, ...]:
        """Pixels of each class that training sees."""
        return self._pixels(self.training)

    def normalisation(self) -> Normalisation:
        """Mean and standard deviation of all training pixels, in the units of the files.

        Files whose channels or dtype differ from most are left out, and so is an alpha channel that hides nothing in
        any. A constant channel gets standard deviation 1.

        Raises:
            DataError: there is no usable training image, or none with data.
        """
        facts = [file.image for file in self.training if file.image and file.image.pixels]
        if not facts:
            which = "training image with data" if self.training else "usable training image"
            raise DataError(f"{self.root} has no {which}", "one at least", "run: whatwhere check")
        (channels, dtype), _ = Counter((self.channels(fact), fact.dtype) for fact in facts).most_common(1)[0]
        facts = [fact for fact in facts if (self.channels(fact), fact.dtype) == (channels, dtype)]
        weights = np.array([fact.pixels for fact in facts], np.float64)
        weights /= weights.sum()
        low, high, means, stds = (
            np.array([getattr(fact, key)[:channels] for fact in facts]) for key in ("minimum", "maximum", "mean", "std")
        )
        mean = weights @ means
        # the variance of a union: within the parts, and between their means
        std = np.sqrt(weights @ (stds**2 + (means - mean) ** 2))
        varies = (high.max(0) > low.min(0)) & (std > 0)
        return Normalisation(tuple(mean.tolist()), tuple(np.where(varies, std, 1.0).tolist()), dtype)

    def image_sides(self) -> tuple[Quantiles | None, Quantiles | None]:
        """Heights and widths of all readable images."""
        sizes = [file.image.size for file in self.files if file.image]
        return Quantiles.of(h for h, _ in sizes), Quantiles.of(w for _, w in sizes)

    def object_extents(self, class_id: int, *, by_area: bool = False, training: bool = False) -> Quantiles | None:
        """The longer sides of the bounding boxes of a class's objects, in pixels; only of ``training``'s images.

        With ``by_area`` an object counts as often as it has pixels, so that specks do not hide the objects: the median
        then is the extent of the object that a typical pixel of the class lies in.
        """
        shapes = list(self._shapes(class_id, training))
        extents = (extent for shape in shapes for extent in shape.extents)
        return Quantiles.of(extents, (area for shape in shapes for area in shape.areas) if by_area else None)

    def thickness(self, class_id: int, *, training: bool = False) -> Quantiles | None:
        """How thick a class's structures are along their middles, in pixels; None where it meets no other class."""
        pooled = Counter[int]()
        for shape in self._shapes(class_id, training):
            pooled.update(shape.thickness)
        return Quantiles.of(pooled.keys(), pooled.values())

    @cached_property
    def piece_test(self) -> PieceTest | None:
        """How often a small piece of an image alone tells its class; None where that can't be asked."""
        return judge_pieces([file.mask.pieces for file in self.training if file.mask and file.mask.pieces])

    @cached_property
    def photographs(self) -> bool:
        """Whether the images are colour photographs: three uint8 channels that differ in most of them."""
        facts = [file.image for file in self.files if file.image and file.image.pixels]
        colored = sum(self.channels(fact) == 3 and fact.dtype == "uint8" and not fact.gray for fact in facts)
        return colored * 2 > len(facts)

    @cached_property
    def uprightness(self) -> float:
        """How strongly the images agree on which way is up, from 0 to 1 (`likeness.uprightness`)."""
        return uprightness(file.image.fingerprint for file in self.files if file.image)

    def divided(self, folder: Folder) -> Survey:
        """The same files under the splits that `split` gave the folder."""
        by_path = {file.image_path: file for file in self.files}
        files = [
            replace(by_path.pop(path), split=name)
            for name, samples in folder.splits.items()
            for sample in samples
            if (path := relative(sample.image, folder.root)) in by_path
        ]
        before = {file.image_path: file.split for file in self.files}
        parted = any(before[file.image_path] != file.split for file in files)
        return replace(self, files=(*files, *by_path.values()), parted=parted)

    def _pixels(self, files: Iterable[FileSurvey]) -> tuple[int, ...]:
        total = np.zeros(self.classes.count if self.classes else 0, np.int64)
        for file in files:
            if file.mask and file.mask.shapes:
                total += [shape.pixels for shape in file.mask.shapes]
        return tuple(total.tolist())

    def _shapes(self, class_id: int, training: bool) -> Iterator[ClassShape]:
        files = self.training if training else self.files
        return (file.mask.shapes[class_id] for file in files if file.mask and file.mask.shapes)


def relative(path: Path, root: Path) -> str:
    """A path below the root, with forward slashes, as it can be written down."""
    return in_utf8(path.relative_to(root).as_posix())
