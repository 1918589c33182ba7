"""A network in integers of 8 bits, by ONNX Runtime's quantiser, kept only if it paints the validation images as well.

Weights get a scale for each channel; activations a range, from what training images make of them. Convolutions that
read the image itself or write the logits stay in float: there the rounding costs most and the time is least.
"""

from __future__ import annotations

import hashlib
import math
import statistics
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from whatwhere.data.sets import ImageSet
from whatwhere.errors import DataError, ModelError, in_a_line
from whatwhere.judge import Judge
from whatwhere.network import Model, versions
from whatwhere.paint.backends import Backend, Job
from whatwhere.paint.backends.onnx_runtime import exported
from whatwhere.paint.engine import Engine
from whatwhere.paint.kept import Checked, Int8, int8_files, provisional
from whatwhere.paint.paint import Painting, paint
from whatwhere.paint.scheme import scheme, size_up
from whatwhere.paint.sources import ArraySource, extra
from whatwhere.paint.tiles import Tiling
from whatwhere.paint.work import read_tile
from whatwhere.writing import check_place, whole_file, write_json

__all__ = ["quantise"]

_CROPS, _SIDE = 32, 384
"""Pieces of training images that give the ranges, and their largest side in pixels."""

_CONVOLUTIONS = ("Conv", "ConvTranspose")

Progress = Callable[[int, int], None]
"""Called with the validation images done and those in all."""


def quantise(model: Model, train: ImageSet, val: ImageSet, *, progress: Progress | None = None) -> Int8:
    """Quantises a model, checks it, and keeps the result beside the model's file if mean IoU falls by less than 0.003.

    What an earlier call kept is replaced, or removed where the new one is not kept.

    Args:
        model: read from a file.
        train: images that give the ranges of activations; their masks are not looked at.
        val: images with masks to check it on.
        progress: is told how many of these are done.

    Raises:
        ModelError: a model that is in no file, or whose network can't be quantised.
        DataError: onnx or onnxruntime is not installed; an image that can't be read or is not of the model's kind.
        OutputError: the place beside the model can't be written.
    """
    if model.source is None:
        raise ModelError("a model in memory", "a model file, beside which the result is kept", "save and load it first")
    for package in ("onnx", "onnxruntime"):
        extra(package, "onnx", "quantising is done by ONNX Runtime, which is not installed")
    kept, record_path = int8_files(model.source)
    check_place(kept)
    usual = Engine(replace(model, source=None), device="cpu", images=len(val))
    with tempfile.TemporaryDirectory(prefix="whatwhere-int8-") as folder:
        made = Path(folder) / kept.name
        crops = [_network_input(usual, train, number) for number in range(_CROPS)]
        _quantise(usual.job, crops, made)
        network = made.read_bytes()
        content = hashlib.sha256(network).hexdigest()
        before, ways, notes = _checked(usual, provisional(made, content), val, progress)
    if math.isnan(before.result().mean_iou):
        raise DataError(f"{len(val)} images without one labelled pixel", "masks to check it on", "choose with --split")
    result = Int8(
        usual.digest, content, len(network), len(crops), len(val), before.pixels, before.result(), tuple(ways),
        tuple(notes), _versions(),
    )  # fmt: skip
    if not result.good:
        for path in (record_path, kept):
            path.unlink(missing_ok=True)
        return result
    with whole_file(kept) as partial:
        partial.write_bytes(network)
    write_json(record_path, result.to_json())
    return replace(result, path=kept)


def _network_input(engine: Engine, images: ImageSet, number: int) -> NDArray[np.float32]:
    """Piece ``number`` of the training images as predict would hand it to the network, ``(1, C, h, w)``.

    With fewer pieces than images these are spread over all of them; with more, an image gives several.
    """
    index = number * len(images) // _CROPS if len(images) > _CROPS else number % len(images)
    raw, _ = images.store[index]
    rng = np.random.default_rng(number)
    corner = [int(rng.integers(max(0, n - _SIDE) + 1)) for n in raw.shape[:2]]
    piece = raw[corner[0] : corner[0] + _SIDE, corner[1] : corner[1] + _SIDE]
    source = ArraySource(piece, images.names[index])
    tiling = Tiling(source.size, size_up(source.size, engine.geometry.period), period=engine.geometry.period)
    pixels, _ = read_tile(engine, source, tiling, next(iter(tiling)))
    return pixels[None].numpy()


def _quantise(job: Job, crops: list[NDArray[np.float32]], out: Path) -> None:
    """Writes the quantised network. ``ModelError`` with the library's own reason where it can't be."""
    import onnx
    from onnxruntime import quantization

    class Reader(quantization.CalibrationDataReader):  # type: ignore[misc]  # of a library without types
        def __init__(self) -> None:
            self.crops: Iterator[NDArray[np.float32]] = iter(crops)

        def get_next(self) -> dict[str, NDArray[np.float32]] | None:
            crop = next(self.crops, None)
            return None if crop is None else {"image": crop}

    given, ready = out.with_name("float.onnx"), out.with_name("ready.onnx")
    try:
        given.write_bytes(exported(job))
        quantization.quant_pre_process(str(given), str(ready), skip_symbolic_shape=True)
        quantization.quantize_static(
            str(ready), str(out), Reader(), per_channel=True, nodes_to_exclude=_ends(onnx.load(ready).graph),
            # signed activations lost four times as many labels in OpenVINO; the mean of the pieces' extremes changes
            # fewer labels than their largest: see docs/decisions.md
            activation_type=quantization.QuantType.QUInt8, weight_type=quantization.QuantType.QInt8,
            extra_options={"CalibMovingAverage": True},
        )  # fmt: skip
    except Exception as error:  # whatever both libraries raise on a network that they can't follow
        raise ModelError(
            f"the network can't be quantised ({in_a_line(error)})", "", "predict goes on without"
        ) from error


def _ends(graph: Any) -> list[str]:
    """The convolutions that no other one comes before, or none after."""
    nodes = [node for node in graph.node if node.op_type != "Shape"]  # sizes are no pixels
    found = []
    for order, given, taken, ends in (
        (nodes, "input", "output", graph.input),
        (nodes[::-1], "output", "input", graph.output),
    ):
        reached = {end.name for end in ends}
        for node in order:
            if reached.isdisjoint(getattr(node, given)):
                continue
            if node.op_type in _CONVOLUTIONS:
                found.append(node.name)
            else:
                reached |= set(getattr(node, taken))
    return found


@dataclass
class _Tally:
    """What is counted of one way to paint."""

    engine: Engine
    how: str
    judge: Judge
    alike: list[int] = field(default_factory=list)
    sizes: list[int] = field(default_factory=list)
    paces: list[float] = field(default_factory=list)

    @property
    def pixels(self) -> int:
        return sum(self.sizes)

    def add(self, name: str, truth: NDArray[np.uint8], painting: Painting, usual: NDArray[np.uint8]) -> None:
        self.judge.add(name, truth, painting.labels)
        self.alike.append(int((painting.labels == usual).sum()))
        self.sizes.append(usual.size)
        self.paces.append(painting.report.seconds / usual.size)

    def result(self) -> Checked:
        scores = self.judge.result()
        least = min(alike / size for alike, size in zip(self.alike, self.sizes))
        alike = sum(self.alike) / self.pixels
        return Checked(self.how, scores.mean_iou, scores.iou, alike, least, statistics.median(self.paces))


def _checked(
    usual: Engine, backends: tuple[Backend, ...], images: ImageSet, progress: Progress | None
) -> tuple[_Tally, list[Checked], list[str]]:
    """Paints every image as usual and by each backend, in turn, in the same tiles."""
    raw, _ = images.store[0]
    tile = _tile(usual, raw)
    paint(usual, raw, tile=tile)  # which chooses, and warms up
    model = usual.model
    before = _Tally(usual, f"{usual.precision} by {usual.backend}", Judge(model.classes, boundary=False))
    tallies, notes = [before], []
    for backend in backends:
        if lacking := backend.lacks("cpu"):
            notes.append(f"{backend.name} is not checked: {lacking} is not installed")
            continue
        engine = Engine(model, device="cpu", backend=backend, images=len(images))
        paint(engine, raw, tile=tile)
        tallies.append(_Tally(engine, backend.name, Judge(model.classes, boundary=False)))
    for index, name in enumerate(images.names):
        raw, truth = images.store[index]
        tile = _tile(usual, raw)
        paintings = [paint(tally.engine, raw, tile=tile) for tally in tallies]
        for tally, painting in zip(tallies, paintings):
            tally.add(name, truth, painting, paintings[0].labels)
        if progress is not None:
            progress(index + 1, len(images))
    ways = [tally.result() for tally in tallies[1:] if tally.engine.backend == tally.how]  # the others fell back
    return before, ways, [*notes, *(note for tally in tallies[1:] for note in tally.engine.notes)]


def _tile(engine: Engine, image: NDArray[Any]) -> tuple[int, int] | None:
    tiling = scheme(engine, (image.shape[0], image.shape[1])).tiling
    return tiling.tile if len(tiling) > 1 else None


def _versions() -> dict[str, str]:
    packages = [name for name in ("onnx", "onnxruntime", "openvino") if find_spec(name) is not None]
    return versions() | {name: version(name) for name in packages}
