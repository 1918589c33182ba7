"""`explain(model, data)`: measure what a trained network knows, where it knows it, and what each skip delivers.

Knows models and image sets; nothing of files of images or of training.
"""

from __future__ import annotations

import copy
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.ndimage import distance_transform_cdt
from torch import nn

from whatwhere.data.sets import ImageSet
from whatwhere.explain.anatomy import Anatomy, UNetAnatomy, untrained_like
from whatwhere.explain.cases import Case, Pixel, check_answer, choose_cases
from whatwhere.explain.diagnosis import Findings, diagnose
from whatwhere.explain.evidence import Sights, measure_sight
from whatwhere.explain.explanation import Example, Explanation
from whatwhere.explain.graph_anatomy import GraphAnatomy
from whatwhere.explain.levels import Levels, measure_levels, paint_by_probe, painting_probes
from whatwhere.explain.objects import object_sizes
from whatwhere.explain.pixel import PixelStory, tell_pixel
from whatwhere.explain.pixels import interior_distance, regions, sample_spots
from whatwhere.explain.presence import Presence, cell_counts, measure_presence
from whatwhere.explain.probes import Probe
from whatwhere.explain.report import write_report
from whatwhere.explain.skips import Worths, measure_skips
from whatwhere.explain.study import CELLS, Study, look
from whatwhere.network import Model, UNet, keep_freed_memory, probe_machine, versions
from whatwhere.records import VOID

__all__ = ["anatomy_of", "explain"]

Progress = Callable[[str, float], None]
"""Told what is being measured, and the share of the whole that is done, in [0, 1]."""

_EXAMPLES = 3
_SIGHT_IMAGES = 8


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
        images: at most this many are used, spread evenly over the set.
        pixel: ``(name, x, y)`` of a pixel to take apart; a telling one is chosen if None.
        progress: called with what is being measured and the share of the whole that is done.

    Raises:
        DataError: no images, labels of other classes, or a pixel that is not there.
        ModelError: images of other channels or units than the model was trained on.
        OutputError: ``out`` cannot be written to.
    """
    began = time.perf_counter()
    bench = _prepare(model, data, images, seed, pixel, progress or _silent)
    study = _look(bench)
    levels = _levels(bench, study)
    counts = [cell_counts(aim, CELLS, model.classes.count) for aim in bench.aims]
    presence = measure_presence(study.pooled, counts, model.classes.count, seed)
    skips, sights = _skips(bench, study), _sights(bench)
    objects = object_sizes(bench.aims, model.classes)
    examples, story = _pictures(bench, study, pixel, with_probes=levels is not None)
    with bench.fast:
        findings = Findings(levels, skips, sights, objects, bench.truth)
        diagnoses = diagnose(model, bench.anatomy, bench.cases, study, findings)
    explanation = Explanation(
        classes=model.classes, network=_describe(model), images=tuple(case.name for case in bench.cases),
        truth=bench.truth, layers=bench.anatomy.layers, levels=levels, presence=presence, skips=skips, sights=sights,
        objects=objects, examples=examples, pixel=story, diagnoses=diagnoses,
        notes=_noted(bench.notes, bench.cases, skips, presence), seed=seed, seconds=time.perf_counter() - began,
        versions=versions(),
    )  # fmt: skip
    if out is not None:
        write_report(explanation, out)
    bench.tell("done", 1.0)
    return explanation


@dataclass(frozen=True, eq=False)
class _Bench:
    """What every measurement starts from.

    Attributes:
        anatomy: of a copy of the network, that no gradient reaches.
        aims: what the answers are held against: the masks, or (``truth`` False) the network's own painting.
        distance: interior pixels lie farther than this from an edge.
        fast: in which everything is computed that needs no gradient.
    """

    model: Model
    anatomy: Anatomy
    cases: tuple[Case, ...]
    aims: tuple[NDArray[np.uint8], ...]
    truth: bool
    distance: int
    seed: int
    fast: AbstractContextManager[Any]
    precision: str
    device: str
    notes: list[str]
    tell: Progress

    def part(self, what: str, start: float, stop: float) -> Callable[[float], None]:
        """Progress within one measurement as progress of the whole."""
        return lambda share: self.tell(what, start + share * (stop - start))


def _prepare(model: Model, data: ImageSet, images: int, seed: int, pixel: Pixel | None, tell: Progress) -> _Bench:
    machine = probe_machine()
    keep_freed_memory()
    cases, notes = choose_cases(model, data, images, seed=seed, device=machine.device, pixel=pixel)
    network = copy.deepcopy(model.network).to(machine.device).float().eval().requires_grad_(False)
    anatomy = anatomy_of(network, cases[0])
    fast = torch.autocast(machine.device, machine.dtype, enabled=machine.dtype != torch.float32)
    with fast:
        aimed, truth = _aimed(model, anatomy, cases, notes)
    aims = tuple(case.truth for case in aimed if case.truth is not None)
    return _Bench(
        model, anatomy, aimed, aims, truth, interior_distance(aims, model.classes.count), seed, fast,
        machine.precision, machine.device, notes, tell,
    )  # fmt: skip


def _look(bench: _Bench) -> Study:
    spots = sample_spots(bench.aims, bench.distance, bench.model.classes.count, bench.seed)
    fresh = untrained_like(bench.anatomy.network, bench.seed).to(bench.device).requires_grad_(False)
    twin = anatomy_of(fresh, bench.cases[0])
    with bench.fast:
        return look(bench.anatomy, twin, bench.cases, spots, progress=bench.part("looking at every image", 0.0, 0.15))


def _levels(bench: _Bench, study: Study) -> Levels | None:
    interior, boundary = study.samples.spots
    if len(np.unique(interior.label)) < 2 or not len(boundary):
        bench.notes.append("What and where were not measured: the labels of these images hold fewer than two classes.")
        return None
    return measure_levels(
        bench.anatomy.layers, study.samples, study.untrained, study.answers, classes=bench.model.classes.count,
        distance=bench.distance, seed=bench.seed, progress=bench.part("reading every level", 0.15, 0.3),
    )  # fmt: skip


def _skips(bench: _Bench, study: Study) -> Worths:
    pairs = list(zip((case.image for case in bench.cases), bench.aims))
    with bench.fast:
        return measure_skips(
            bench.anatomy, pairs, study.means, bench.model.classes, distance=bench.distance, seed=bench.seed,
            precision=bench.precision, progress=bench.part("cutting every skip", 0.3, 0.7),
        )  # fmt: skip


def _sights(bench: _Bench) -> Sights:
    count = min(_SIGHT_IMAGES, len(bench.cases))
    seen = [bench.cases[int(i)].image for i in np.linspace(0, len(bench.cases) - 1, count).round()]
    progress = bench.part("measuring how far it sees", 0.7, 0.9)
    return measure_sight(bench.anatomy, seen, seed=bench.seed, progress=progress, fast=bench.fast)


def _pictures(
    bench: _Bench, study: Study, pixel: Pixel | None, *, with_probes: bool
) -> tuple[tuple[Example, ...], PixelStory]:
    """The example images as every level paints them, and the story of one pixel."""
    classes = bench.model.classes.count
    chosen = _telling_images(bench.aims, classes)
    probes = painting_probes(bench.anatomy.layers, study.samples, chosen, classes) if with_probes else {}
    with bench.fast:
        examples = tuple(_example(bench.anatomy, bench.cases[i], bench.aims[i], probes) for i in chosen)
    bench.tell("taking one pixel apart", 0.92)
    return examples, _story(bench, examples, pixel, study, probes)


def anatomy_of(network: nn.Module, case: Case) -> Anatomy:
    """The parts of a network: by name for whatwhere's own, found in the graph for any other."""
    if isinstance(network, UNet) and network.padding == "same":
        return UNetAnatomy(network)
    return GraphAnatomy(network, tuple(case.image.shape))


def _silent(_what: str, _share: float) -> None:
    pass


@torch.inference_mode()
def _aimed(model: Model, anatomy: Anatomy, cases: Sequence[Case], notes: list[str]) -> tuple[tuple[Case, ...], bool]:
    """The cases with something to aim at: their masks, or where there are none, the network's own painting."""
    logits = anatomy.read(cases[0].image)[0]
    check_answer(model, logits, cases[0].size)
    if all(case.truth is not None for case in cases):
        return tuple(cases), True
    notes.append(
        "There are no masks. Everything that needs a truth was measured against the network's own painting: it tells "
        "how the answer arises, not whether it is right."
    )
    painted = [anatomy.read(case.image)[0][0].argmax(0).to(torch.uint8).cpu().numpy() for case in cases]
    return tuple(replace(case, truth=own) for case, own in zip(cases, painted)), False


def _telling_images(aims: Sequence[NDArray[np.uint8]], classes: int) -> list[int]:
    """The images that hold the most classes, and of these the ones where the rarest has most pixels."""

    def worth(index: int) -> tuple[int, int]:
        counts = np.bincount(aims[index].ravel(), minlength=VOID + 1)[:classes]
        held = counts[counts > 0]
        return len(held), int(held.min()) if len(held) else 0

    return sorted(sorted(range(len(aims)), key=worth, reverse=True)[:_EXAMPLES])


@torch.inference_mode()
def _example(anatomy: Anatomy, case: Case, aim: NDArray[np.uint8], probes: dict[str, Probe]) -> Example:
    logits, features = anatomy.read(case.image)
    by_layer = {
        layer.name: paint_by_probe(layer, probes[layer.name], features[layer.name], case.size)
        for layer in anatomy.layers
        if layer.name in probes
    }
    return Example(case, aim, logits[0].argmax(0).to(torch.uint8).cpu().numpy(), by_layer)


def _story(
    bench: _Bench, examples: Sequence[Example], pixel: Pixel | None, study: Study, probes: dict[str, Probe]
) -> PixelStory:
    if pixel is None:
        case, place = _telling_pixel(examples, bench.distance)
    else:
        case = next(case for case in bench.cases if case.name == pixel[0])
        place = (pixel[2] - case.corner[0], pixel[1] - case.corner[1])
    baseline = torch.stack([one.image.mean((2, 3), keepdim=True) for one in bench.cases]).mean(0)
    return tell_pixel(bench.anatomy, case, place, study.means, baseline, probes)


def _telling_pixel(examples: Sequence[Example], distance: int) -> tuple[Case, tuple[int, int]]:
    """A pixel deep inside a wrongly painted patch if there is one, else one deep inside the largest object."""
    best: tuple[tuple[bool, int], Case, tuple[int, int]] | None = None
    for example in examples:
        inside = regions(example.truth, distance).interior
        wrong = inside & (example.painting != example.truth)
        for mask, is_wrong in ((wrong, True), (inside & (example.truth != 0), False)):
            depth = distance_transform_cdt(np.pad(mask, 1), "chessboard")[1:-1, 1:-1]
            row, column = np.unravel_index(int(depth.argmax()), depth.shape)
            rank = (is_wrong and depth.max() >= 3, int(depth.max()))
            if best is None or rank > best[0]:
                best = (rank, example.case, (int(row), int(column)))
    assert best is not None
    return best[1], best[2]


def _describe(model: Model) -> str:
    parameters = sum(parameter.numel() for parameter in model.network.parameters())
    config = getattr(model.network, "config", None)
    if config is None:
        return f"{type(model.network).__name__}, {parameters / 1e6:.2f} million parameters"
    skips = "all skips" if len(config["skips"]) == config["depth"] else f"skips at levels {config['skips'] or 'none'}"
    size = f"depth {config['depth']} and width {config['width']}"
    return f"U-Net of {size}, {skips}, {parameters / 1e6:.2f} million parameters"


def _noted(notes: list[str], cases: Sequence[Case], skips: Worths, presence: Presence | None) -> tuple[str, ...]:
    said = list(notes)
    if len(cases) == 1:
        said.append(
            "One image only: there are no intervals, as one image says nothing about how images differ, and probes "
            "were scored on held-out quarters of the same image."
        )
    if len(skips.paths) == 1:
        said.append(
            "This network has no skips: everything passes through the bottleneck, so there is nothing to share out."
        )
    if presence is None and len(cases) > 1:
        said.append(
            "Presence was not measured: no class is both there and absent often enough, even in parts of images."
        )
    return tuple(said)
