"""The stages of an explanation: each prepares what one measurement needs, and takes it.

Knows a model and its cases; nothing of how results are written.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.ndimage import distance_transform_cdt
from torch import nn

from whatwhere.data.sets import ImageSet
from whatwhere.explain.anatomy import Anatomy, UNetAnatomy, untrained_like
from whatwhere.explain.cases import Case, Pixel, check_answer, choose_cases, fellow, held_together
from whatwhere.explain.explanation import Example
from whatwhere.explain.graph_anatomy import GraphAnatomy
from whatwhere.explain.levels import (
    NOBODY,
    NOT_MEASURED,
    Levels,
    Painters,
    asked_of,
    measure_levels,
    paint_by_probe,
    painting_probes,
    square_side,
)
from whatwhere.explain.pixel import PixelStory, tell_pixel
from whatwhere.explain.pixels import BOUNDARY_WIDTH, interior_distance, regions, sample_spots
from whatwhere.explain.probes import Probe, unit_of
from whatwhere.explain.sight import Sights, measure_sight
from whatwhere.explain.skips import Worths, measure_skips
from whatwhere.explain.study import Study, look
from whatwhere.judge.bootstrap import bound_by
from whatwhere.network import Model, UNet, measuring_machine, prepare_torch
from whatwhere.network.copied import measurable
from whatwhere.records import VOID

__all__ = ["Bench", "Progress", "levels_of", "pictures_of", "prepare", "sights_of", "skips_of", "study_of"]

Array = NDArray[Any]
Progress = Callable[[str, float], None]
"""Told what is being measured, and the share of the whole that is done, in [0, 1]."""

_EXAMPLES = 3
_SIGHT_IMAGES = 8


@dataclass(frozen=True, eq=False)
class Bench:
    """What every measurement starts from.

    Attributes:
        anatomy: of a copy of the network, that no gradient reaches.
        aims: what the answers are held against: the masks, or (``truth`` False) the network's own painting.
        asked: the image whose pixel was asked for, which need not be measured on; None to choose a telling one.
        distance: interior pixels lie farther than this from an edge.
        fast: in which everything is computed that needs no gradient.
    """

    model: Model
    anatomy: Anatomy
    cases: tuple[Case, ...]
    aims: tuple[NDArray[np.uint8], ...]
    truth: bool
    asked: Case | None
    distance: int
    seed: int
    fast: AbstractContextManager[Any]
    precision: str
    device: str
    notes: list[str]
    tell: Progress

    @property
    def units(self) -> Array:
        """For each image a number that it shares with those that resamples draw with it: the others of its source."""
        return bound_by([case.source for case in self.cases])

    def part(self, what: str, start: float, stop: float) -> Callable[[float], None]:
        """Progress within one measurement as progress of the whole."""
        return lambda share: self.tell(what, start + share * (stop - start))


def prepare(model: Model, data: ImageSet, images: int, seed: int, pixel: Pixel | None, tell: Progress) -> Bench:
    """Choose and check the images, and take the network apart."""
    machine = measuring_machine()
    prepare_torch()
    cases, asked, notes = choose_cases(model, data, images, seed=seed, device=machine.device, pixel=pixel)
    network = measurable(model.network, machine.device)
    anatomy = anatomy_of(network, cases[0])
    fast = torch.autocast(machine.device, machine.dtype, enabled=machine.dtype != torch.float32)
    with fast:
        aimed, truth = _aimed(model, anatomy, cases, notes)
    aims = tuple(case.truth for case in aimed if case.truth is not None)
    if asked is not None and not truth:
        asked = next(case for case in aimed if case.name == asked.name)
    return Bench(
        model, anatomy, aimed, aims, truth, asked, interior_distance(aims, model.classes.count), seed, fast,
        machine.precision, machine.device, notes, tell,
    )  # fmt: skip


def study_of(bench: Bench) -> Study:
    """One look at every image, at a sample of its pixels."""
    spots = sample_spots(bench.aims, bench.distance, bench.model.classes.count, bench.seed, units=bench.units)
    images = [case.image for case in bench.cases]
    looking = "looking at every image"
    fresh = untrained_like(bench.anatomy.network, bench.seed, images, lambda: bench.tell(looking, 0.0))
    fresh.requires_grad_(False)
    twin = anatomy_of(fresh, bench.cases[0])
    with bench.fast:
        return look(bench.anatomy, twin, bench.cases, spots, progress=bench.part(looking, 0.0, 0.15))


def levels_of(bench: Bench, study: Study) -> Levels | None:
    """What and where; without what cannot be asked, of which a note says why, and None if the labels ask neither."""
    inside, edges = asked_of(bench.anatomy.layers, study.samples, bench.model.classes.count)
    no_what, no_where = _no_what(bench, study, inside), _no_where(bench, study, edges)
    if no_what and not len(study.samples.spots[1]):
        bench.notes.append(f"{NOT_MEASURED} {no_what}.")
        return None
    if no_what:
        bench.notes.append(f"What was not measured: {no_what}.")
    elif some := _left_out(bench, study, inside):
        bench.notes.append(f"What was not measured of every class: {some}.")
    if no_where:
        bench.notes.append(f"Where was not measured: {no_where}.")
    return measure_levels(
        bench.anatomy.layers, study.samples, study.untrained, study.answers, classes=bench.model.classes.count,
        distance=bench.distance, seed=bench.seed, progress=bench.part("reading every level", 0.15, 0.3),
    )  # fmt: skip


def _no_what(bench: Bench, study: Study, inside: Array) -> str:
    """Why what cannot be asked; empty if it can. ``inside`` are the interior spots that probes can be asked of."""
    interior = study.samples.spots[0]
    if len(_held(bench)) < 2:
        return "the labels of these images hold fewer than two classes"
    if len(np.unique(interior.label)) > 1 and len(np.unique(study.samples.groups[0])) < 2:
        alone = "one image or part of one" if len(np.unique(interior.image)) < 2 else "one source of images"
        return f"{alone} alone has labelled insides"
    return _left_out(bench, study, inside) if len(np.unique(interior.label[inside])) < 2 else ""


def _no_where(bench: Bench, study: Study, edges: Array) -> str:
    """Why where cannot be asked; empty if it can. ``edges`` are the boundary spots that probes can be asked of."""
    if not len(study.samples.spots[1]):
        return f"no two classes meet within {BOUNDARY_WIDTH} px of each other"
    side = square_side(bench.anatomy.layers)
    return "" if len(edges) else f"no image shows both sides of an edge in several squares of {side} px"


def _left_out(bench: Bench, study: Study, inside: Array) -> str:
    """Of which classes what cannot be asked, and why, in words; empty if there are none."""
    interior, reasons = study.samples.spots[0], []
    sampled, asked = set(interior.label.tolist()), set(interior.label[inside].tolist())

    def named(classes: set[int]) -> str:
        return " or ".join(repr(bench.model.classes.names[class_id]) for class_id in sorted(classes))

    if thin := _held(bench) - sampled:
        reasons.append(f"no pixel of {named(thin)} lies farther than {bench.distance} px from a label edge")
    if lone := sampled - asked:
        unit = unit_of(study.samples.groups[0], interior.image)
        reasons.append(f"all insides of {named(lone)} lie in one held-out fold of the {unit}")
    return "; ".join(reasons)


def _held(bench: Bench) -> set[int]:
    """The classes that the labels hold."""
    return {int(class_id) for aim in bench.aims for class_id in np.unique(aim)} - {VOID}


def skips_of(bench: Bench, study: Study) -> Worths:
    """What every path delivers, on all images."""
    pairs = list(zip((case.image for case in bench.cases), bench.aims))
    with bench.fast:
        return measure_skips(
            bench.anatomy, pairs, study.means, bench.model.classes, distance=bench.distance, seed=bench.seed,
            precision=bench.precision, progress=bench.part("cutting every skip", 0.3, 0.7), units=bench.units,
        )  # fmt: skip


def sights_of(bench: Bench) -> Sights:
    """How far every layer sees, on some of the images."""
    count = min(_SIGHT_IMAGES, len(bench.cases))
    chosen = np.linspace(0, len(bench.cases) - 1, count).round().astype(int)
    seen = [bench.cases[i].image for i in chosen]
    progress = bench.part("measuring how far it sees", 0.7, 0.9)
    return measure_sight(
        bench.anatomy, seen, seed=bench.seed, progress=progress, fast=bench.fast, units=bench.units[chosen]
    )


def pictures_of(
    bench: Bench, study: Study, pixel: Pixel | None, *, with_probes: bool
) -> tuple[tuple[Example, ...], PixelStory]:
    """The example images as every level paints them, and the story of one pixel."""
    classes = bench.model.classes.count
    chosen = _telling_images(bench.aims, classes)
    painters = NOBODY
    if with_probes:
        painters = painting_probes(bench.anatomy.layers, study.samples, held_together(bench.cases), classes)
    with bench.fast:
        examples = tuple(_example(bench.anatomy, bench.cases[i], bench.aims[i], painters.of(i)) for i in chosen)
    bench.tell("taking one pixel apart", 0.92)
    return examples, _story(bench, examples, pixel, study, painters)


def anatomy_of(network: nn.Module, case: Case) -> Anatomy:
    """The parts of a network: by name for whatwhere's own, found in the graph for any other."""
    if isinstance(network, UNet) and network.padding == "same":
        return UNetAnatomy(network)
    return GraphAnatomy(network, tuple(case.image.shape))


@torch.inference_mode()
def _aimed(model: Model, anatomy: Anatomy, cases: Sequence[Case], notes: list[str]) -> tuple[tuple[Case, ...], bool]:
    """The cases with something to aim at: their masks, or where there are none, the network's own painting."""
    logits = anatomy.read(cases[0].image)[0]
    check_answer(model, logits, cases[0])
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
def _example(anatomy: Anatomy, case: Case, aim: NDArray[np.uint8], probes: Mapping[str, Probe]) -> Example:
    logits, features = anatomy.read(case.image)
    by_layer = {
        layer.name: paint_by_probe(layer, probes[layer.name], features[layer.name], case.size)
        for layer in anatomy.layers
        if layer.name in probes
    }
    return Example(case, aim, logits[0].argmax(0).to(torch.uint8).cpu().numpy(), by_layer)


def _story(
    bench: Bench, examples: Sequence[Example], pixel: Pixel | None, study: Study, painters: Painters
) -> PixelStory:
    if pixel is None or bench.asked is None:
        case, place = _telling_pixel(examples, bench.distance)
    else:
        case = bench.asked
        place = (pixel[2] - case.corner[0], pixel[1] - case.corner[1])
    baseline = torch.stack([one.image.mean((2, 3), keepdim=True) for one in bench.cases]).mean(0)
    probes = painters.of(fellow(bench.cases, case.name, case.source))
    progress = bench.part("taking one pixel apart", 0.92, 0.98)
    return tell_pixel(bench.anatomy, case, place, study.means, baseline, probes, progress)


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
