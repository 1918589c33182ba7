"""`explain(model, data)`: measure what a trained network knows, where it knows it, and what each skip delivers.

Knows models and image sets; nothing of files of images or of training.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from whatwhere.data.findings import many
from whatwhere.data.sets import ImageSet
from whatwhere.explain.cases import Case, Pixel, held_together
from whatwhere.explain.diagnose import diagnose
from whatwhere.explain.diagnosis import Measurements
from whatwhere.explain.explanation import Explanation
from whatwhere.explain.levels import Levels
from whatwhere.explain.objects import object_sizes
from whatwhere.explain.presence import Presence, cell_counts, measure_presence
from whatwhere.explain.report import write_report
from whatwhere.explain.skips import Worths
from whatwhere.explain.stages import Progress, levels_of, pictures_of, prepare, sights_of, skips_of, study_of
from whatwhere.explain.study import CELLS
from whatwhere.judge.bootstrap import bound_by
from whatwhere.network import Model, own_config, versions
from whatwhere.writing import check_place

__all__ = ["explain"]


def explain(
    model: Model,
    data: ImageSet,
    *,
    out: Path | str | None = None,
    seed: int = 0,
    images: int = 20,
    pixel: Pixel | None = None,
    progress: Progress | None = None,
) -> Explanation:
    """Measure a trained model on images, and write the report if told where.

    Args:
        data: images with labels. Images whose labels are all void count as images without a mask.
        out: a folder for ``index.html`` and ``measurements.json``; nothing is written if None.
        seed: of every sample and every bootstrap.
        images: at most this many are used, spread evenly over the set, and that of ``pixel``.
        pixel: ``(name, x, y)`` of a pixel to take apart, column before row; a telling one is chosen if None.
        progress: called with what is being measured and the share of the whole that is done.

    Raises:
        DataError: no images, labels of other classes, or a pixel that is not there.
        ModelError: images of other channels or units than the model was trained on.
        OutputError: ``out`` cannot be written to.
    """
    began = time.perf_counter()
    bench = prepare(model, data, images, seed, pixel, progress or _silent)
    check_place(None if out is None else Path(out) / "index.html")
    study = study_of(bench)
    levels = levels_of(bench, study)
    counts = [cell_counts(aim, CELLS, model.classes.count) for aim in bench.aims]
    together = held_together(bench.cases)
    presence = measure_presence(study.pooled, counts, model.classes.count, seed, together, bench.units)
    skips, sights = skips_of(bench, study), sights_of(bench)
    objects = object_sizes(bench.cases, bench.aims, model.classes)
    examples, story = pictures_of(bench, study, pixel, with_probes=levels is not None)
    with bench.fast:
        measured = Measurements(
            what=levels.answer_what if levels else None,
            where=levels.answer_where if levels else None,
            chance=levels.chance if levels else 0.0,
            skips=skips,
            window=sights["output"].theoretical,
            objects=objects,
            truth=bench.truth,
        )
        diagnoses = diagnose(model, bench.anatomy, bench.cases, study, measured)
    explanation = Explanation(
        classes=model.classes, network=_describe(model), images=tuple(case.name for case in bench.cases),
        truth=bench.truth, layers=bench.anatomy.layers, levels=levels, presence=presence, skips=skips, sights=sights,
        objects=objects, examples=examples, pixel=story, diagnoses=diagnoses,
        notes=_noted([*_of(data.part), *bench.notes], bench.cases, skips, levels, presence), seed=seed,
        seconds=time.perf_counter() - began, versions=versions(),
    )  # fmt: skip
    if out is not None:
        write_report(explanation, out)
    bench.tell("done", 1.0)
    return explanation


def _silent(_what: str, _share: float) -> None:
    pass


def _describe(model: Model) -> str:
    parameters = sum(parameter.numel() for parameter in model.network.parameters())
    config = own_config(model.network)
    if config is None:
        return f"{type(model.network).__name__}, {parameters / 1e6:.2f} million parameters"
    skips = "all skips" if len(config["skips"]) == config["depth"] else f"skips at levels {config['skips'] or 'none'}"
    size = f"depth {config['depth']} and width {config['width']}"
    if config["encoder"] != "plain":
        size += f" with the encoder {config['encoder']}"
    return f"U-Net of {size}, {skips}, {parameters / 1e6:.2f} million parameters"


def _of(part: str) -> list[str]:
    """Which images these are, where somebody chose."""
    for which, said in (("them, or on some of them", "Some or all of these"), ("them", "These")):
        if f"was trained on {which}" in part:
            return [f"{said} are images that the network was trained on: on new ones it will do worse, and know less."]
    return [f"Which images: {part}."] if part else []


def _noted(
    notes: list[str], cases: Sequence[Case], skips: Worths, levels: Levels | None, presence: Presence | None
) -> tuple[str, ...]:
    said, probed = list(notes), levels is not None or presence is not None
    if len(cases) == 1:
        held_out = ", and probes were scored on held-out quarters of the same image" if probed else ""
        said.append(
            f"One image only: there are no intervals, as one image says nothing about how images differ{held_out}."
        )
    said += _sources_noted([case.source for case in cases], probed)
    if len(skips.paths) == 1:
        said.append(
            "This network has no skips: everything passes through the bottleneck, so there is nothing to share out."
        )
    if presence is None and len(cases) > 1:
        said.append(
            "Presence was not measured: no class is both there and absent often enough, even in parts of images, and "
            "in images or sources enough to learn both."
        )
    return tuple(said)


def _sources_noted(sources: list[str], probed: bool) -> list[str]:
    """What is to be said where images share a source, "" is of those that have none; and if probes were scored."""
    images, of_one = len(sources), [source for source in sources if source]
    count = len(set(of_one))
    if len(of_one) == count:
        return []
    come = f"the {images} images come" if len(of_one) == images else f"{len(of_one)} of the {images} images come"
    fitted = (
        "; probes were scored on other sources than they were fitted on"
        if count > 1
        else "; probes were scored on other images than they were fitted on, but of the same source"
    )
    fitted = fitted if probed else ""
    come += f" from {many(count, 'source')} (folders; pieces or copies of one image)"
    if len(np.unique(bound_by(sources))) < images:
        return [f"Intervals resample sources; {come}{fitted}."]
    return [f"Intervals resample images; {come}, and may be more alike than that{fitted}."]
