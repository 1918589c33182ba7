"""Many images to painted files: ``predict(model, ["cells/*.tif"], "painted")``. Knows what is done and what failed."""

from __future__ import annotations

import glob
import hashlib
import json
import os
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import torch

from whatwhere.errors import DataError, FieldError, ModelError, OutputError, PlanError
from whatwhere.network import Model, load_model
from whatwhere.network.machine import Precision
from whatwhere.paint.engine import Engine
from whatwhere.paint.files import find_images, fitted, is_image, open_image
from whatwhere.paint.outputs import Names, Options, names, paint_to_files
from whatwhere.paint.paint import PaintReport
from whatwhere.paint.sources import Source
from whatwhere.paint.stores import writing

__all__ = ["Prediction", "Predictions", "find_inputs", "predict"]

_RECORD = "predictions.jsonl"

Progress = Callable[[str, int, int], None]
"""Called with the input's name, the tiles done and the tiles in all."""


@dataclass(frozen=True)
class Prediction:
    """What became of one input.

    Attributes:
        input: the image.
        output: the label file; None when it failed.
        status: ``"done"``, ``"skipped"`` (it had been done before) or ``"failed"``.
        error: why it failed, else "".
        report: how it was painted; None when it was not.
    """

    input: str
    output: str | None
    status: Literal["done", "skipped", "failed"]
    error: str = ""
    report: PaintReport | None = None

    def __str__(self) -> str:
        if self.status == "failed":
            return f"{self.input}: failed: {self.error}"
        return f"{self.input} -> {self.output}: {self.report if self.report else 'done before'}"


@dataclass(frozen=True)
class Predictions:
    """What became of all inputs, in their order. Prints itself."""

    items: tuple[Prediction, ...]

    @property
    def failed(self) -> tuple[Prediction, ...]:
        return tuple(item for item in self.items if item.status == "failed")

    def __str__(self) -> str:
        counts = Counter(item.status for item in self.items)
        words = [f"{counts[status]} {status}" for status in ("done", "skipped", "failed") if counts[status]]
        return "\n".join([*map(str, self.items), f"{len(self.items)} images: {', '.join(words)}"])

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def predict(
    model: Model | Path | str | Engine,
    inputs: Path | str | Sequence[Path | str],
    out_dir: Path | str,
    *,
    overlay: bool = False,
    probabilities: bool = False,
    overwrite: bool = False,
    precision: Precision = "auto",
    tile: int | tuple[int, int] | None = None,
    batch: int = 1,
    device: str = "auto",
    fill_missing: bool = False,
    progress: Progress | None = None,
) -> Predictions:
    """Paints files, folders and globs into ``out_dir``. A bad image is reported, and the others are done.

    What is there already from the same model and image is skipped. Large images are written as they grow and go on
    where an interrupted run stopped.

    Args:
        model: a model, its file, or a prepared engine.
        inputs: images, Zarr folders, folders of images (searched to their depths), or globs such as ``"cells/*.tif"``.
        out_dir: made if needed. Inputs of equal names are kept apart by their folders' names.
        overlay: also write ``NAME.overlay.png``.
        probabilities: also write ``NAME.probabilities.tif`` (or ``.zarr``): uint8 shares of 255, one plane a class.
        overwrite: paint again what is there.
        precision, device: as for :class:`Engine`.
        tile, batch: as for :func:`paint`.
        fill_missing: Zarr chunks that are not there mean the fill value.

    Raises:
        DataError: no image among the inputs.
        OutputError: ``out_dir`` can't be written.
        ModelError: the model's file can't be used.
    """
    found = find_inputs(inputs)
    engine = model if isinstance(model, Engine) else Engine(_loaded(model), precision, device)
    ledger = _Ledger(Path(out_dir), _fingerprint(engine), overwrite)
    options = Options(overlay, probabilities, tile, batch)
    items = []
    for path, stem in found:
        report = _reporter(progress, str(path))
        items.append(_predict_one(engine, path, Path(out_dir) / stem, options, ledger, fill_missing, report))
    return Predictions(tuple(items))


def find_inputs(inputs: Path | str | Sequence[Path | str]) -> list[tuple[Path, Path]]:
    """All images that ``inputs`` name, each with the place of its painting relative to the output folder, no ending.

    Raises:
        DataError: an input that is not there, or no image at all.
    """
    given = [inputs] if isinstance(inputs, str | Path) else list(inputs)
    found: dict[Path, Path] = {}
    for one in given:
        for path, stem in _expand(Path(one)):
            found.setdefault(path, stem)
    if not found:
        raise DataError(f"no image in {', '.join(map(str, given)) or 'no input'}", "images, folders or globs", "")
    return _apart(found)


def _expand(one: Path) -> list[tuple[Path, Path]]:
    if one.is_dir() and not is_image(one):
        return [(path, path.relative_to(one).with_suffix("")) for path in find_images(one)]
    if one.exists():
        return [(one, Path(one.stem))]
    matches = sorted(Path(match) for match in glob.glob(str(one), recursive=True))  # noqa: PTH207 (of absolute ones too)
    if not matches:
        raise DataError(f"there is no {one}", "an image, a folder or a glob that matches some", "check the path")
    return [pair for match in matches if is_image(match) or match.is_dir() for pair in _expand(match)]


def _apart(found: dict[Path, Path]) -> list[tuple[Path, Path]]:
    """Gives equal names different places: first by their folder below what all inputs share, then by their ending."""
    counts = Counter(found.values())
    whole = {path: Path(os.path.abspath(path)) for path in found}  # noqa: PTH100 (no link is to be followed)
    shared = Path(os.path.commonpath([path.parent for path in whole.values()]))
    stems = {
        path: whole[path].relative_to(shared).with_suffix("") if counts[stem] > 1 else stem
        for path, stem in found.items()
    }
    counts = Counter(stems.values())
    return [(path, stem.with_name(path.name) if counts[stem] > 1 else stem) for path, stem in stems.items()]


def _predict_one(
    engine: Engine, path: Path, stem: Path, options: Options, ledger: _Ledger, fill_missing: bool,
    progress: Callable[[int, int], None] | None,
) -> Prediction:  # fmt: skip
    try:
        source = open_image(path, fill_missing=fill_missing)
        try:
            target = names(stem, path, source.size)
            work = ledger.work(path, source, options)
            if ledger.has(target, options, work):
                return Prediction(str(path), str(target.labels), "skipped")
            ready = fitted(source, engine.model.normalisation.channels)
            report = paint_to_files(engine, ready, target, options, work, progress)
            ledger.add(target, work)
        finally:
            source.close()
    except (DataError, ModelError, FieldError, PlanError, _TakenError) as error:
        return Prediction(str(path), None, "failed", str(error))
    return Prediction(str(path), str(target.labels), "done", report=report)


class _TakenError(OutputError):
    """The place of one painting is taken by another."""


class _Ledger:
    """Which file in the output folder was painted from what, by which model."""

    def __init__(self, folder: Path, model: str, overwrite: bool) -> None:
        self._path, self._model, self._overwrite = folder / _RECORD, model, overwrite
        self._known: dict[str, Any] = {}
        if self._path.is_file():
            for line in self._path.read_text(encoding="utf-8").splitlines():
                try:
                    entry = json.loads(line)
                    self._known[entry["output"]] = entry["work"]
                except (ValueError, KeyError):
                    continue  # a line cut off by a kill: its painting is done again

    def work(self, path: Path, source: Source, options: Options) -> dict[str, Any]:
        """What makes two paintings the same."""
        state = (path / next(p.name for p in path.iterdir() if p.is_file())).stat() if path.is_dir() else path.stat()
        return {
            "model": self._model, "image": os.path.abspath(path), "bytes": state.st_size,  # noqa: PTH100
            "modified": state.st_mtime_ns, "size": list(source.size), "probabilities": options.probabilities,
        }  # fmt: skip

    def has(self, target: Names, options: Options, work: dict[str, Any]) -> bool:
        """Whether this painting is there. Raises when another one is at its place."""
        if self._overwrite or not target.labels.exists():
            return False
        known = self._known.get(self._name(target))
        asked = {**work, "probabilities": None}
        if known is None or {**known, "probabilities": None} != asked:
            raise _TakenError(
                f"{target.labels} is there already, " + ("from another image or model" if known else "made elsewhere"),
                "a free place, or the same painting",
                "choose another folder with -o, or use --overwrite",
            )
        wanted = [target.overlay] * options.overlay + [target.probabilities] * options.probabilities
        return all(path.exists() for path in wanted)

    def add(self, target: Names, work: dict[str, Any]) -> None:
        name = self._name(target)
        self._known[name] = work
        with writing(self._path), self._path.open("a", encoding="utf-8") as file:
            file.write(json.dumps({"output": name, "work": work}) + "\n")

    def _name(self, target: Names) -> str:
        return target.labels.relative_to(self._path.parent).as_posix()


def _fingerprint(engine: Engine) -> str:
    """The weights, what they mean and the precision, as one hash."""
    digest = hashlib.sha256(repr((engine.model.classes, engine.model.normalisation, engine.precision)).encode())
    for name, tensor in sorted(engine.model.network.state_dict().items()):
        digest.update(name.encode())
        digest.update(tensor.detach().cpu().contiguous().view(torch.uint8).numpy().tobytes() if tensor.ndim else
                      repr(tensor.item()).encode())  # fmt: skip
    return digest.hexdigest()[:32]


def _loaded(model: Model | Path | str) -> Model:
    return model if isinstance(model, Model) else load_model(model)


def _reporter(progress: Progress | None, name: str) -> Callable[[int, int], None] | None:
    if progress is None:
        return None
    report = progress
    return lambda done, total: report(name, done, total)
