"""A function for each step from a folder to painted images: check, plan, train, evaluate, compare, explain, quantise.

Takes paths or models, returns records that print themselves; commands of the same names call them.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from PIL import Image
from torch import nn

from whatwhere.chosen import images_of, open_sets, truth_of, with_image
from whatwhere.data import Findings, Folder, find, split, survey
from whatwhere.data import check as findings_of
from whatwhere.data.facts import Survey
from whatwhere.data.findings import many
from whatwhere.data.sets import ImageSet
from whatwhere.errors import DataError, PlanError, WhatwhereError
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
from whatwhere.network import Holder, Model, as_model, load_model, probe_machine
from whatwhere.paint import Engine, paint
from whatwhere.paint.kept import Int8
from whatwhere.paint.quantise import quantise as quantise_sets
from whatwhere.plain_torch import kept_random, plain_torch
from whatwhere.writing import check_place, whole_file

if TYPE_CHECKING:
    from whatwhere.explain import Explanation

__all__ = ["PathLike", "Skips", "check", "compare", "evaluate", "explain", "plan", "quantise", "train"]

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
    """Two models on the same images: the difference ``a - b`` of every score, by paired bootstrap over images.

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
        pixel: ``(x, y)`` in that image, column before row, from 0 at the left and top (``Field`` takes
            ``(row, column)``).
        images: how many images at most, besides the one whose pixel is taken apart.
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
        raise DataError(
            f"the image {name!r} without a pixel",
            "an image and a pixel",
            "name the pixel: pixel=(x, y), or --pixel X,Y",
        )
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
        raise DataError(f"a check on split {split!r}", expected, "leave out the split, or take 'val' (--split val)")
    held = as_model(model)
    training, judged = truth_of(held, data, "train"), truth_of(held, data, split)
    judged.check_files()
    return quantise_sets(held, training, judged, progress=progress)


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
