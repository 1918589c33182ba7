"""The int8 file that a model may keep beside it, and what was measured before it was kept. Computes nothing.

MODEL.int8.onnx   the quantised network
MODEL.int8.json   which weights it is of, and how it fared on the validation images
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from torch import Tensor

from whatwhere.errors import in_a_line
from whatwhere.network import Model
from whatwhere.paint.backends import Backend, int8_backends
from whatwhere.paint.verify import labels_alike

__all__ = ["LIMIT", "Checked", "Int8", "int8_files", "kept_int8", "provisional"]

LIMIT = 0.003
"""Mean IoU must fall by less than this."""

_FORMAT = 1


@dataclass(frozen=True)
class Checked:
    """How a way to paint fared on the validation images.

    Attributes:
        how: the backend, with the precision where it has several.
        mean_iou, iou: pooled over the images, and by class name; NaN for a class in neither truth nor painting.
        alike: share of pixels with the label that the model's usual painting has.
        least: that share in the image where it is smallest.
        pace: seconds a pixel, the median over the images.
    """

    how: str
    mean_iou: float
    iou: Mapping[str, float]
    alike: float
    least: float
    pace: float


@dataclass(frozen=True)
class Int8:
    """A model in integers of 8 bits, beside the model as it paints without. Prints itself.

    Attributes:
        weights: names the network that was quantised.
        content: SHA-256 of the quantised file.
        bytes: its size.
        crops: pieces of training images that the ranges of its numbers are from.
        images, pixels: that it was checked on.
        before: the model as it paints without.
        ways: the quantised file by each that can run it here.
        notes: a line for each that can't.
        versions: of what made it.
        path: where it is kept; None if it is not.
    """

    weights: str
    content: str
    bytes: int
    crops: int
    images: int
    pixels: int
    before: Checked
    ways: tuple[Checked, ...]
    notes: tuple[str, ...]
    versions: Mapping[str, str]
    path: Path | None = None

    def fall(self, way: Checked) -> float:
        """By how much mean IoU is smaller than before; negative where it rose."""
        return self.before.mean_iou - way.mean_iou

    @property
    def good(self) -> tuple[Checked, ...]:
        """The ways that lose less than the limit."""
        return tuple(way for way in self.ways if self.fall(way) < LIMIT)

    def why(self, way: Checked) -> str:
        """Why it may be used, in words."""
        return f"kept, because mean IoU {_fell(self.fall(way))} on {self._number()}"

    def _number(self) -> str:
        return f"{self.images} validation image{'s' if self.images != 1 else ''}"

    def __str__(self) -> str:
        lines = [self._line(self.before), *map(self._line, self.ways), *self.notes]
        if self.path is not None:
            verdict = f"kept: {self.path} ({self.bytes / 2**20:.1f} MiB); predict takes it where it is the fastest"
        elif self.ways:
            best = min(map(self.fall, self.ways))
            verdict = f"not kept: mean IoU {_fell(best)} on {self._number()}; less than {LIMIT:g} is asked"
        else:
            verdict = "not kept: nothing that is installed can run it"
        return "\n".join([*lines, verdict])

    def _line(self, way: Checked) -> str:
        scores = ", ".join(f"{name} {value:.4f}" for name, value in way.iou.items())
        line = f"{way.how}: mean IoU {way.mean_iou:.4f} ({scores})"
        if way is self.before:
            return line
        return f"{line}; {way.alike:.2%} of labels as before; {self.before.pace / way.pace:.2f} times as fast"

    def to_json(self) -> dict[str, Any]:
        return {"format": _FORMAT, "limit": LIMIT} | asdict(replace(self, path=None))

    @classmethod
    def from_json(cls, record: dict[str, Any]) -> Int8:
        """What :meth:`to_json` wrote; ``KeyError``, ``TypeError`` or ``ValueError`` if it did not."""
        if record["format"] != _FORMAT:
            raise ValueError(f"format {record['format']}")
        return cls(
            str(record["weights"]), str(record["content"]), int(record["bytes"]), int(record["crops"]),
            int(record["images"]), int(record["pixels"]), _checked(record["before"]),
            tuple(map(_checked, record["ways"])), tuple(map(str, record["notes"])), dict(record["versions"]),
        )  # fmt: skip


def _checked(entry: dict[str, Any]) -> Checked:
    iou = {str(name): float("nan") if value is None else float(value) for name, value in entry["iou"].items()}
    numbers = (float(entry[key]) for key in ("alike", "least", "pace"))
    return Checked(str(entry["how"]), float(entry["mean_iou"]), iou, *numbers)


def _fell(fall: float) -> str:
    return f"fell by {fall:.4f}" if fall >= 0 else f"rose by {-fall:.4f}"


def int8_files(model: Path) -> tuple[Path, Path]:
    """Where a model file's quantised network and its record lie.

    >>> int8_files(Path("run/model.safetensors"))[0].name
    'model.int8.onnx'
    """
    stem = model.name.removesuffix(".safetensors")
    return model.with_name(f"{stem}.int8.onnx"), model.with_name(f"{stem}.int8.json")


def kept_int8(model: Model, weights: Callable[[], str]) -> tuple[tuple[Backend, ...], str]:
    """The backends that run a model's kept int8 file; where there is none, why ("" if none was ever kept).

    Args:
        model: the model.
        weights: names its network; asked only where there is a file.
    """
    if model.source is None:
        return (), ""
    network, path = int8_files(model.source)
    if not path.is_file():
        return (), ""
    again = "make it again: whatwhere quantise"
    try:
        record = Int8.from_json(json.loads(path.read_text(encoding="utf-8")))
        content = hashlib.sha256(network.read_bytes()).hexdigest()
    except (OSError, KeyError, TypeError, ValueError, AttributeError) as error:
        return (), f"{path.name} and {network.name} can't be read ({in_a_line(error)}); {again}"
    if record.weights != weights():
        return (), f"{network.name} is of other weights; {again}"
    if record.content != content:
        return (), f"{network.name} is not the file that was checked; {again}"
    good = {way.how: way for way in record.good}
    checked = [backend for backend in int8_backends(network, content) if backend.name in good]
    able = tuple(
        replace(backend, differs=_differs(good[backend.name]), why=record.why(good[backend.name]))
        for backend in checked
        if not backend.lacks("cpu")
    )
    if able:
        return able, ""
    missing = " or ".join(backend.remedy for backend in checked)
    return (), f"what {network.name} was checked with is not installed here: {missing}" if checked else again


def provisional(path: Path, content: str) -> tuple[Backend, ...]:
    """The backends of a quantised file that is about to be checked: all that it must give is logits."""

    def differs(reference: Tensor, logits: Tensor) -> str:
        shapes = tuple(logits.shape), tuple(reference.shape)
        return "" if shapes[0] == shapes[1] else f"its output has shape {shapes[0]} instead of {shapes[1]}"

    # what is found now must not count as found by the check that follows
    return tuple(
        replace(backend, differs=differs, content=f"unchecked {content}") for backend in int8_backends(path, content)
    )


def _differs(way: Checked) -> Callable[[Tensor, Tensor], str]:
    """Twice as many labels may change on the user's pixels as in the worst validation image, and one in a hundred.

    More means pixels outside the ranges of the training images, or a processor that computes something else.
    """
    least = 1 - 2 * (1 - way.least) - 0.01

    def differs(reference: Tensor, logits: Tensor) -> str:
        alike = labels_alike(reference, logits)
        if alike >= least:
            return ""
        return f"{1 - alike:.1%} of labels differ from float32's, where {1 - least:.1%} are the most to be expected"

    return differs
