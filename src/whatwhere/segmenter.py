"""The facade: a function for each step from a folder to painted images, and ``Segmenter``, which is a model in hand.

Takes paths, arrays or records, returns records that print themselves; each command of the command line is one of these.
"""

from __future__ import annotations

import tempfile
import time as clock
import warnings
from collections.abc import Callable, Iterable, Sequence
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor, nn

from whatwhere.chosen import images_of, open_sets, truth_of, with_image
from whatwhere.data import Findings, Folder, find, split, survey
from whatwhere.data import check as findings_of
from whatwhere.data.arrays import as_array, naming_arrays, write_arrays
from whatwhere.data.facts import Survey
from whatwhere.data.findings import many
from whatwhere.data.images import without_alpha
from whatwhere.data.mapping import class_colors
from whatwhere.data.sets import ImageSet
from whatwhere.errors import DataError, ModelError, PlanError, WhatwhereError, in_a_line
from whatwhere.judge import Comparison, Scores
from whatwhere.judge import compare as compare_scores
from whatwhere.judge.pictures import worst_images_sheet
from whatwhere.learn.changes import check_goes_on
from whatwhere.learn.given import STEP, planned_for
from whatwhere.learn.plan import Plan, check_seed, parse_duration
from whatwhere.learn.planning import make_plan
from whatwhere.learn.run_folder import RunRecord
from whatwhere.learn.train import train as train_sets
from whatwhere.learn.validate import score
from whatwhere.learn.view import TrainingView
from whatwhere.network import Holder, Model, as_model, kind_of, load_model, probe_machine, save_model
from whatwhere.paint import Engine, Painting, paint
from whatwhere.paint.files import fitted, open_image
from whatwhere.paint.kept import Int8
from whatwhere.paint.quantise import quantise as quantise_sets
from whatwhere.plain_torch import kept_random, plain_torch
from whatwhere.records import VOID, Classes, Normalisation
from whatwhere.writing import check_place, whole_file

if TYPE_CHECKING:
    from whatwhere.explain import Explanation

__all__ = ["Segmenter", "check", "compare", "evaluate", "explain", "plan", "quantise", "train"]

Progress = Callable[[int, int], None]
PathLike = Path | str
ModelLike = Model | Holder | Path | str
Skips = Sequence[int] | None


def check(data: PathLike, *, seed: int = 0, progress: Progress | None = None) -> Findings:
    """Findings about a data folder, before anything is trained. ``findings.fatal`` tells if training can't work.

    Args:
        data: the folder: ``images/`` and ``masks/``, or ``train/`` and ``val/`` (and ``test/``) that hold such a pair.
        seed: of the division that training would make.
        progress: is told how many files are done.

    Raises:
        DataError: the folder holds no images with masks.
        PlanError: a seed that is not from 0 to 2**32 - 1.
    """
    check_seed(seed)
    folder = find(data)
    return findings_of(_divided(folder, survey(folder, progress=progress), seed)[1])


@plain_torch()
@kept_random()
def plan(
    data: PathLike,
    *,
    time: str | None = None,
    epochs: float | None = None,
    seed: int = 0,
    skips: Skips = None,
    encoder: str = "auto",
    device: str = "auto",
    module: nn.Module | None = None,
    progress: Progress | None = None,
    tell: Callable[[Findings], None] | None = None,
) -> Plan:
    """Every choice of a training run with its reason. The same data, machine and budget give the same plan.

    Args:
        data: the folder, as for :func:`check`.
        time: wall time of the whole run, such as ``"90s"``, ``"20m"`` or ``"1h30m"``; 20 minutes without ``epochs``.
        epochs: passes over the training images, instead of a time.
        seed: of everything random.
        skips: the levels that get a skip, 0 the finest; all if None.
        encoder: ``"auto"`` (by the data), ``"plain"``, ``"efficientnet-lite0"`` or ``"timm:NAME"``.
        device: ``"auto"``, ``"cpu"``, ``"cuda"`` or ``"mps"``.
        module: a network of your own, MONAI's or another library's that is to be trained, as for ``Segmenter.fit``.
        progress: is told how many files are done.
        tell: is given what :func:`check` finds.

    Raises:
        DataError: the folder can't be trained on.
        PlanError: a budget, seed, encoder or device that is not to be had.
        ModelError: timm has no such model.
    """
    check_seed(seed)
    seconds = None if time is None else parse_duration(time)
    if epochs is not None and not epochs > 0:
        raise PlanError(f"epochs = {epochs:g}", "a number above 0", "give the passes over the data that you want")
    if seconds is not None and epochs:
        raise PlanError(f"time = {time!r} and epochs = {epochs:g}", "exactly one of them", "leave one out")
    if module is not None:
        if skips is not None or encoder != "auto":
            raise PlanError("module, and skips or an encoder", "one or the other", "a given network has its own")
        encoder = "plain"  # then nothing is chosen for weights that are not there
    folder = find(data)
    _, facts = _divided(folder, survey(folder, progress=progress), seed)
    findings = findings_of(facts)
    if findings.fatal:
        raise _untrainable(findings)
    if tell:
        tell(findings)
    made = make_plan(
        facts, probe_machine(device), seconds=seconds, epochs=epochs, seed=seed, skips=skips, encoder=encoder,
        step=1 if module is None else STEP,
    )  # fmt: skip
    made = replace(made, training=replace(made.training, device=device))
    return made if module is None else planned_for(made, module)


def _untrainable(findings: Findings) -> DataError:
    """The first thing that keeps a folder from being trained on, and how many more there are."""
    worst, *others = (item for item in findings.items if item.severity == "error")
    more = f" (and {many(len(others), 'more error')}: see whatwhere check)" if others else ""
    told = not worst.files or any(path in worst.message for path in worst.files)
    named = "" if told else f" ({worst.files[0]})"
    expected = "a folder that training can use" if worst.remedy else ""  # else the message says all
    return DataError(worst.message.splitlines()[0].rstrip(".") + named + more, expected, worst.remedy)


@plain_torch()
def train(
    data: PathLike,
    out: PathLike,
    *,
    plan: Plan,
    module: nn.Module | None = None,
    resume: bool = False,
    view: TrainingView | None = None,
    started: float | None = None,
) -> RunRecord:
    """Trains by a plan; leaves a run folder whose ``model.safetensors`` is the result.

    Args:
        data: the folder the plan was made for.
        out: the run folder, a new one or with ``resume`` that of an interrupted run.
        plan: of :func:`plan`, or read by ``whatwhere.learn.plan_file.read_plan``; with ``resume`` the one that the run
            was started with.
        module: the network, if the plan is for one that is given; in the end it has the weights of the model.
        view: is told what happens; nothing is printed by default.
        started: ``time.perf_counter()`` from which a time budget counts; now, if None.

    Raises:
        DataError: images that the plan names are missing or damaged.
        OutputError: the run folder can't be written.
        PlanError: the plan is for another network, or not that of the run that is to go on.
        TrainingError: the run folder holds another run, or the loss is not a number any more.
    """
    if resume:
        check_goes_on(Path(out), plan)
    sets = open_sets(find(data), plan)
    record = train_sets(plan, sets, out, module=module, resume=resume, view=view, started=started)
    if module is not None:  # it has learnt on after its best weights
        module.load_state_dict(load_model(record.folder, module).network.state_dict())
        module.eval()
    return record


@plain_torch()
def evaluate(
    model: ModelLike,
    data: PathLike,
    *,
    split: str | None = None,
    tolerance: float = 2.0,
    worst: PathLike | None = None,
    progress: Progress | None = None,
    tell: Callable[[Scores], None] | None = None,
) -> Scores:
    """Scores of a model on a data folder's images with masks.

    Args:
        model: a model file, run folder, model or ``Segmenter``.
        data: the folder.
        split: ``"test"``, ``"val"``, ``"train"`` or ``"all"``, of them all; if None, the first of test and val that
            there is, and in a folder without splits the images that the model did not train on, or all if it never saw
            the folder.
        tolerance: pixels within which an edge counts as found.
        worst: a PNG to be written, the worst images first.
        progress: is told how many images are done.
        tell: is given the scores before the picture is drawn; where that fails, the scores are not lost: without
            ``tell`` it is a warning.

    Raises:
        DataError: there are no such images, or one is damaged; what the headers tell of all of them is told before the
            first is painted.
        ModelError: the model can't be read, or its classes or channels are not those of the data.
        OutputError: ``worst`` can't be written.
    """
    check_place(worst)
    held = as_model(model)
    images = truth_of(held, data, split)
    images.check_files()
    engine = Engine(held, images=len(images))
    scores = score(engine, images, tolerance, progress)
    if tell:
        tell(scores)
    try:
        if worst is not None:
            _draw_worst(engine, images, scores, Path(worst))
    except WhatwhereError as error:
        if tell:
            raise
        warnings.warn(str(error), stacklevel=3)
    return scores


@plain_torch()
def compare(
    model_a: ModelLike,
    model_b: ModelLike,
    data: PathLike,
    *,
    split: str | None = None,
    tolerance: float = 2.0,
    progress: Progress | None = None,
) -> Comparison:
    """Two models on the same images: the difference of every score, by paired bootstrap over images.

    By default the images are those of test or val, and in a folder without splits those that neither was trained on.

    Args:
        model_a, model_b: model files, run folders, models or ``Segmenter``s.
        data, split, tolerance, progress: see :func:`evaluate`.

    Raises:
        ModelError: their classes differ.
        DataError: there are no such images.
    """
    a, b = (as_model(model) for model in (model_a, model_b))
    images = truth_of(a, data, split, beside=(b,))
    images.check_files()
    first, _ = images.store[0]
    for model in (a, b):  # before hours of painting with one
        model.check(first, images.names[0])
    scores = [score(Engine(model, images=len(images)), images, tolerance, progress) for model in (a, b)]
    named = [
        str(given) if isinstance(given, str | Path) else which
        for given, which in ((model_a, "the first"), (model_b, "the second"))
    ]
    return compare_scores(scores[0], scores[1], names=(named[0], named[1]))


@plain_torch()
def explain(
    model: ModelLike,
    data: PathLike,
    *,
    out: PathLike | None = None,
    split: str | None = None,
    image: PathLike | None = None,
    pixel: tuple[int, int] | None = None,
    images: int = 20,
    seed: int = 0,
    progress: Callable[[str, float], None] | None = None,
) -> Explanation:
    """What and where by level, what each skip delivers, how far the network sees: measured. See ``explain.explain``.

    Args:
        model: a model file, run folder, model or ``Segmenter``.
        data: a data folder, or a folder of images without masks (then less can be said, and the report says so).
        out: a folder for the page and the measurements.
        split: as for :func:`evaluate`.
        image: the image whose pixel is taken apart: a file of the data or another one.
        pixel: ``(x, y)`` in that image.
        images: how many images at most.
        seed: of every sample.
        progress: is told what is being done, and the share done.

    Raises:
        DataError: there are no such images, or no such pixel.
        ModelError: as for :func:`evaluate`.
        OutputError: ``out`` can't be written.
        PlanError: a seed that is not from 0 to 2**32 - 1.
    """
    check_seed(seed)
    held = as_model(model)
    chosen = images_of(held, data, split)
    name = None
    if image is not None:
        name, chosen = with_image(held, chosen, Path(image))
    if pixel is not None and name is None and len(chosen):  # else there is nothing to explain with, as is said there
        name = chosen.names[0]
    place = (name, *pixel) if name is not None and pixel is not None else None
    if name is not None and place is None:
        raise DataError(f"the image {name!r} without a pixel", "both --image and --pixel", "add --pixel X,Y")
    from whatwhere.explain import explain as explain_set  # with what only it needs, which is slow to import

    return explain_set(held, chosen, out=out, seed=seed, images=images, pixel=place, progress=progress)


@plain_torch()
def quantise(model: ModelLike, data: PathLike, *, split: str = "val", progress: Progress | None = None) -> Int8:
    """The model in integers of 8 bits, kept beside its file if it paints as well. See ``paint.quantise``.

    It needs the extra ``onnx``.

    Args:
        model: a model file, run folder, or model that was read from one.
        data: the data folder that it was trained on: training images give the ranges of its numbers.
        split: ``"val"`` or ``"test"``: what it is checked on.
        progress: is told how many images are done.

    Raises:
        DataError: another split, one without images, or an image that is damaged; or the extra is not installed.
        ModelError: a model that is in no file, or whose network can't be quantised.
        OutputError: the place beside the model can't be written.
    """
    if split not in ("val", "test"):
        expected = "'val' or 'test', not the images it was trained on"
        raise DataError(f"a check on split {split!r}", expected, "leave out --split")
    held = as_model(model)
    training, judged = truth_of(held, data, "train"), truth_of(held, data, split)
    judged.check_files()
    return quantise_sets(held, training, judged, progress=progress)


class Segmenter:
    """A model in hand: fit or load it, then predict, evaluate, save.

    >>> squares = [np.kron(np.eye(2), np.ones((24, 24))).astype(np.uint8) * 200 for _ in range(2)]
    >>> model = Segmenter.fit(squares, [square > 0 for square in squares], epochs=1, width=4, depth=2)
    >>> model.predict(squares[0]).shape
    (48, 48)
    """

    def __init__(self, model: Model) -> None:
        self.model = as_model(model)
        self._engines: dict[str, Engine] = {}
        self._weights: list[Tensor] = []

    def __getstate__(self) -> dict[str, Any]:
        """The model alone: what was made ready of it belongs to this process, and is made anew in another."""
        return {**vars(self), "_engines": {}, "_weights": []}

    @classmethod
    @plain_torch()
    def fit(
        cls,
        data: PathLike | Iterable[NDArray[Any]],
        masks: Iterable[NDArray[Any]] | None = None,
        *,
        time: str | None = None,
        epochs: float | None = None,
        seed: int = 0,
        skips: Skips = None,
        encoder: str = "auto",
        device: str = "auto",
        module: nn.Module | None = None,
        out: PathLike | None = None,
        view: TrainingView | None = None,
        **network: Any,
    ) -> Segmenter:
        """Plans and trains.

        The caller's random generators stay as they were; cuDNN is left deterministic, without TF32.

        Args:
            data: a data folder, or images as arrays (``HxW`` or ``HxWxC``, one dtype and number of channels). Errors
                name these by their places, from 0. What is masked of a masked array does not count.
            masks: with arrays: class ids, 0/255, booleans or RGB colours, one an image.
            time, epochs: the budget (20 minutes if neither is given).
            seed: of everything random.
            skips, encoder, device: as for :func:`plan`.
            module: a network of MONAI, segmentation_models.pytorch or your own to be trained instead of whatwhere's,
                ``(N, C, H, W) -> (N, classes, H, W)``. It begins with the weights that it has, and in the end has those
                of the model.
            out: the run folder; a temporary one if None.
            view: is told what happens; nothing is printed by default.
            network: changes to the plan's network, such as ``width=16``.

        Raises:
            DataError: arrays that are no images with masks, or a folder that can't be trained on.
            PlanError: as for :func:`plan`; or ``network`` changes it to one that can't be.
            ModelError: timm has no such model.
            OutputError, TrainingError: as for :func:`train`.
        """
        started = clock.perf_counter()
        if isinstance(data, str | Path) and masks is not None:
            raise DataError(f"masks beside the folder {data}", "a folder that holds both, or arrays of both", "")
        with tempfile.TemporaryDirectory(prefix="whatwhere-") as temporary, naming_arrays(Path(temporary) / "data"):
            root = data if isinstance(data, str | Path) else write_arrays(data, masks, Path(temporary) / "data")
            made = plan(
                root, time=time, epochs=epochs, seed=seed, skips=skips, encoder=encoder, device=device, module=module
            )
            if network:
                depth = network.get("depth", made.network.depth)
                levels = tuple(range(depth)) if skips is None else tuple(level for level in skips if level < depth)
                made = replace(made, network=replace(made.network, **{"skips": levels, **network}))
            run = Path(out or Path(temporary) / "run")
            record = train(root, run, plan=made, module=module, view=view, started=started)
            model = load_model(record.folder, module)
            return cls(model if out else replace(model, source=None))  # its file goes with the temporary folder

    @classmethod
    def load(cls, path: PathLike, module: nn.Module | None = None) -> Segmenter:
        """From a model file or a run folder; ``ModelError`` if it is missing, damaged, or of another program.

        For a network made elsewhere ``module`` is that network, made again, a copy of which gets the weights: a file
        holds nothing else of it.
        """
        return cls(load_model(path, module))

    @classmethod
    def from_module(
        cls,
        module: nn.Module,
        classes: Classes | Sequence[str] | int,
        normalisation: Normalisation | tuple[Sequence[float], Sequence[float]],
    ) -> Segmenter:
        """Any torch module ``(N, C, H, W) -> (N, classes, H, W)`` gets exact tiles, scores and explanations.

        Args:
            module: of segmentation_models.pytorch, MONAI, or your own, that gives logits as one tensor of the image's
                height and width (of two classes also one channel: the logit of the second); switched to evaluation
                mode. It is first run when something is painted.
            classes: names or a number (class k is mask value k), or a full ``Classes`` record, which also says the mask
                values.
            normalisation: means and standard deviations, a number a channel, in the units of the raw images. A pair
                is for images of 8 bits: constants for images from 0 to 1 have to be multiplied by 255. Images of
                another depth need a ``Normalisation``, which says their dtype.

        Raises:
            ModelError: no module, but its weights or a file; names or a number that are no classes; constants that are
                not finite numbers a channel, or are for images from 0 to 1.
        """
        if not isinstance(module, nn.Module):
            raise ModelError(
                f"module is {kind_of(module)}",
                "a torch module",
                "make the network, give it its weights by load_state_dict, and wrap that",
            )
        if not isinstance(normalisation, Normalisation):
            normalisation = _constants(normalisation)
        return cls(Model(module.eval(), _classes(classes), normalisation))

    def predict(self, image: NDArray[Any] | PathLike, *, backend: str = "auto") -> NDArray[np.uint8]:
        """``HxW`` or ``HxWxC`` array of any size, or an image file -> ``HxW`` uint8 class ids.

        Where a file has no data, or a masked array is masked, it is 255; a GeoTIFF needs the extra ``geo``. What is
        painted has to fit into memory; :func:`whatwhere.predict` paints files of any size into files.

        Args:
            image: in the dtype, units and channels of the training images, channels last.
            backend: ``"auto"``, ``"eager"``, ``"compile"``, ``"openvino"``, ``"onnx"``, ``"graphs"`` or ``"int8"``.

        Raises:
            ModelError: an image of another dtype or number of channels, or a network that can't be run.
            DataError: no image, or one with NaN or infinity.
            PlanError: a backend that is not to be had.
        """
        return self.paint(image, backend=backend).labels

    @plain_torch()
    def paint(self, image: NDArray[Any] | PathLike, *, probabilities: bool = False, backend: str = "auto") -> Painting:
        """Like :meth:`predict`, with the probabilities on request and a report of how it was done.

        The probabilities are ``(classes, H, W)`` float32 and add up to 1.

        Raises:
            ModelError, DataError, PlanError: as for :meth:`predict`.
        """
        engine = self._engine(backend)
        if not isinstance(image, str | Path):
            return paint(engine, _pixels(image, self.model.normalisation.channels), probabilities=probabilities)
        with closing(fitted(open_image(Path(image)), self.model.normalisation.channels)) as source:
            return paint(engine, source, probabilities=probabilities)

    def _engine(self, backend: str) -> Engine:
        """The model made ready, once until its weights change: an engine works on a copy of them."""
        network = self.model.network
        now = [tensor.detach() for tensor in (*network.parameters(), *network.buffers())]
        if not _equal(now, self._weights):
            self._engines, self._weights = {}, [tensor.clone() for tensor in now]
        if backend not in self._engines:
            self._engines[backend] = Engine(self.model, backend=backend)
        return self._engines[backend]

    def evaluate(self, data: PathLike, *, split: str | None = None) -> Scores:
        """Scores on a data folder. See :func:`evaluate`."""
        return evaluate(self.model, data, split=split)

    def explain(self, data: PathLike, **options: Any) -> Explanation:
        """What the network knows, where, and what each skip delivers.

        Options and errors are those of :func:`explain`.
        """
        return explain(self.model, data, **options)

    def save(self, path: PathLike) -> Path:
        """One ``.safetensors`` file with everything needed to use it; of a module made elsewhere all but its code.

        Raises:
            ModelError: a module with state that is no tensor.
            OutputError: it can't be written.
        """
        return save_model(self.model, path)


def _classes(given: Classes | Sequence[str] | int) -> Classes:
    """Of names or a number, mask value k is class k."""
    if isinstance(given, Classes):
        return given
    if isinstance(given, str):
        raise ModelError(f"classes are the text {given!r}", "a list of names, or a number", f"give [{given!r}, ...]")
    if isinstance(given, int | np.integer):
        if not 1 <= given < VOID:
            raise ModelError(f"{given} classes", f"1 to {VOID - 1}", "")
        given = [f"class {index}" for index in range(given)]
    try:
        values = tuple((index,) for index in range(len(given)))
        return Classes(tuple(given), class_colors(values), values)
    except (TypeError, ValueError) as error:
        raise ModelError(f"classes: {error}", "a name of its own for each class", "") from error


def _constants(pair: tuple[Sequence[float], Sequence[float]]) -> Normalisation:
    """Of images of 8 bits."""
    try:
        mean, std = pair
        found = Normalisation(tuple(map(float, mean)), tuple(map(float, std)))
    except (TypeError, ValueError) as error:
        raise ModelError(
            f"normalisation: {error}", "positive deviations, and as many means", "give two sequences"
        ) from error
    if all(0 < one < 1 for one in found.mean) and all(one <= 1 for one in found.std):
        raise ModelError(
            f"means {found.mean} and deviations {found.std}, which are for images from 0 to 1",
            "constants in the units of the raw images, from 0 to 255",
            "multiply both by 255; for images that are from 0 to 1 give Normalisation(mean, std, 'float32')",
        )
    return found


def _pixels(image: Any, channels: int) -> NDArray[Any]:
    """What numpy makes an array of, as one that can be painted."""
    wanted, remedy = "an array of numbers, HxW or HxWxC", "make it one by numpy.asarray, or give the path of a file"
    try:
        array = as_array(image)
    except (TypeError, ValueError, RuntimeError) as error:  # rows of several lengths, a tensor of bfloat16
        raise DataError(f"the image is no array ({in_a_line(error)})", wanted, remedy) from error
    if array.dtype.kind not in "biuf":
        raise DataError(f"the image has shape {array.shape} and dtype {array.dtype}", wanted, remedy)
    whole = array.ndim != 3 or isinstance(array, np.ma.MaskedArray)  # an alpha channel beside a mask would be odd
    return array if whole else without_alpha(array, channels)


def _equal(some: Sequence[Tensor], others: Sequence[Tensor]) -> bool:
    """By value: not all that writes into weights counts up their version, as what writes into ``.data`` does not."""
    return len(some) == len(others) and all(
        one.dtype == other.dtype and one.device == other.device and torch.equal(one, other)
        for one, other in zip(some, others)
    )


def _divided(folder: Folder, facts: Survey, seed: int) -> tuple[Folder, Survey]:
    if not facts.training:
        return folder, facts
    divided = split(folder, facts, seed=seed)
    return divided, facts.divided(divided)


def _draw_worst(engine: Engine, images: ImageSet, scores: Scores, path: Path) -> None:
    place = {name: index for index, name in enumerate(images.names)}
    rows = []
    for name, value in scores.worst(6):
        raw, truth = images.store[place[name]]
        rows.append((f"{name}   mean IoU {value:.3f}", raw, truth, paint(engine, raw).labels))
    if rows:
        with whole_file(path) as partial:
            Image.fromarray(worst_images_sheet(rows, engine.model.classes)).save(partial, format="PNG")
