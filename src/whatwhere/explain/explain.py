"""`explain(model, data)`: measure what a trained network knows, where it knows it, and what each skip delivers.

Knows models and image sets; nothing of files of images or of training.
"""

from __future__ import annotations

import copy
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path as FilePath
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from whatwhere.data.sets import ImageSet
from whatwhere.explain.anatomy import Anatomy, Layer, UNetAnatomy, untrained_like
from whatwhere.explain.cases import Case, Pixel, check_answer, choose_cases
from whatwhere.explain.diagnosis import Diagnosis, Findings, diagnose
from whatwhere.explain.evidence import Sights, measure_sight
from whatwhere.explain.graph_anatomy import GraphAnatomy
from whatwhere.explain.levels import Levels, measure_levels, paint_by_probe, painting_probes
from whatwhere.explain.objects import ObjectSize, object_sizes
from whatwhere.explain.pixel import PixelStory, tell_pixel
from whatwhere.explain.pixels import interior_distance, regions, sample_spots
from whatwhere.explain.presence import Presence, cell_counts, measure_presence
from whatwhere.explain.probes import Probe
from whatwhere.explain.skips import Worths, measure_skips
from whatwhere.explain.study import CELLS, Study, look
from whatwhere.network import Model, UNet, keep_freed_memory, probe_machine, versions
from whatwhere.records import VOID, Classes

__all__ = ["Example", "Explanation", "anatomy_of", "explain"]

Progress = Callable[[str, float], None]
"""Told what is being measured, and the share of the whole that is done, in [0, 1]."""

_EXAMPLES = 3
_SIGHT_IMAGES = 8


@dataclass(frozen=True, eq=False)
class Example:
    """One image as every layer's probe paints it.

    Attributes:
        case: the image; its probe was fitted without it.
        truth: what was aimed at.
        painting: the network's own answer.
        by_layer: by layer name, ``H x W`` class ids.
    """

    case: Case
    truth: NDArray[np.uint8]
    painting: NDArray[np.uint8]
    by_layer: dict[str, NDArray[np.uint8]]


@dataclass(frozen=True, eq=False)
class Explanation:
    """All that was measured of one model on one data set. Prints itself; `to_json` is its measurements.json.

    Attributes:
        classes: of the model.
        network: in one line.
        images: names of those used.
        truth: measured against masks. If not, against the network's own painting: how its answer arises, not
            whether it is right.
        layers: what was read.
        levels, presence, skips, sights, objects, pixel, diagnoses: see there; None or empty where there was nothing
            to measure, and ``notes`` say why.
        seconds: wall time.
    """

    classes: Classes
    network: str
    images: tuple[str, ...]
    truth: bool
    layers: tuple[Layer, ...]
    levels: Levels | None
    presence: Presence | None
    skips: Worths
    sights: Sights
    objects: tuple[ObjectSize, ...]
    examples: tuple[Example, ...]
    pixel: PixelStory
    diagnoses: tuple[Diagnosis, ...]
    notes: tuple[str, ...]
    seed: int
    seconds: float
    versions: dict[str, str]

    def __str__(self) -> str:
        parts = [f"{self.network}, {len(self.images)} images, {self.seconds:.0f} s"]
        parts += [str(part) for part in (self.levels, self.skips, self.sights) if part is not None]
        parts += [str(one) for one in self.diagnoses if one.found]
        return "\n\n".join([*parts, *self.notes])

    def to_json(self) -> dict[str, Any]:
        kept = {name: value for name, value in vars(self).items() if name != "examples"}
        return {name: _json(value) for name, value in kept.items()}


def explain(
    model: Model,
    data: ImageSet,
    *,
    out: FilePath | str | None = None,
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

    Raises:
        DataError: no images, labels of other classes, or a pixel that is not there.
        ModelError: images of other channels or units than the model was trained on.
    """
    began = time.perf_counter()
    tell = progress or _silent
    machine = probe_machine()
    keep_freed_memory()
    cases, notes = choose_cases(model, data, images, seed=seed, device=machine.device, pixel=pixel)
    network = copy.deepcopy(model.network).to(machine.device).float().eval().requires_grad_(False)
    anatomy = anatomy_of(network, cases[0])
    cases, truth = _aimed(model, anatomy, cases, notes)
    count, aims = model.classes.count, [_aim(case) for case in cases]
    distance = interior_distance(aims, count)
    spots = sample_spots(aims, distance, count, seed)
    twin = anatomy_of(untrained_like(network, seed).to(machine.device).requires_grad_(False), cases[0])
    study = look(anatomy, twin, cases, spots, progress=_part(tell, "looking at every image", 0.0, 0.15))
    levels = _levels(anatomy, study, count, distance, seed, notes, _part(tell, "reading every level", 0.15, 0.35))
    presence = measure_presence(study.pooled, [cell_counts(aim, CELLS, count) for aim in aims], count, seed)
    skips = measure_skips(
        anatomy,
        [lambda case=case: (case.image, _aim(case)) for case in cases],  # type: ignore[misc]
        study.means,
        model.classes,
        distance=distance,
        seed=seed,
        autocast=machine.dtype if machine.dtype != torch.float32 else None,
        progress=_part(tell, "cutting every skip", 0.35, 0.7),
    )
    seen = [cases[int(i)].image for i in np.linspace(0, len(cases) - 1, min(_SIGHT_IMAGES, len(cases))).round()]
    sights = measure_sight(anatomy, seen, seed=seed, progress=_part(tell, "measuring how far it sees", 0.7, 0.9))
    chosen = _telling_images(aims, count)
    probes = painting_probes(anatomy.layers, study.samples, chosen, count) if levels else {}
    examples = _examples(anatomy, [cases[i] for i in chosen], probes)
    tell("taking one pixel apart", 0.92)
    story = _story(anatomy, cases, examples, pixel, study, probes, distance)
    objects = object_sizes(aims, model.classes)
    diagnoses = diagnose(model, anatomy, cases, study, Findings(levels, skips, sights, objects, truth))
    explanation = Explanation(
        classes=model.classes, network=_describe(model), images=tuple(case.name for case in cases), truth=truth,
        layers=anatomy.layers, levels=levels, presence=presence, skips=skips, sights=sights, objects=objects,
        examples=examples, pixel=story, diagnoses=diagnoses, notes=_noted(notes, cases, skips, presence), seed=seed,
        seconds=time.perf_counter() - began, versions=versions(),
    )  # fmt: skip
    tell("done", 1.0)
    if out is not None:
        from whatwhere.explain.report import write_report

        write_report(explanation, out)
    return explanation


def anatomy_of(network: torch.nn.Module, case: Case) -> Anatomy:
    """The parts of a network: by name for whatwhere's own, found in the graph for any other."""
    if isinstance(network, UNet) and network.padding == "same":
        return UNetAnatomy(network)
    return GraphAnatomy(network, tuple(case.image.shape))


def _silent(_what: str, _share: float) -> None:
    pass


def _part(tell: Progress, what: str, start: float, stop: float) -> Callable[[float], None]:
    return lambda share: tell(what, start + share * (stop - start))


def _aim(case: Case) -> NDArray[np.uint8]:
    assert case.truth is not None
    return case.truth


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


def _levels(
    anatomy: Anatomy,
    study: Study,
    classes: int,
    distance: int,
    seed: int,
    notes: list[str],
    progress: Callable[[float], None],
) -> Levels | None:
    interior = study.samples.spots[0]
    if len(np.unique(interior.label)) < 2 or not len(study.samples.spots[1]):
        notes.append("What and where were not measured: the labels of these images hold fewer than two classes.")
        return None
    return measure_levels(
        anatomy.layers, study.samples, study.untrained, study.answers,
        classes=classes, distance=distance, seed=seed, progress=progress,
    )  # fmt: skip


def _telling_images(aims: Sequence[NDArray[np.uint8]], classes: int) -> list[int]:
    """The images that hold the most classes, and of these the ones where the rarest has most pixels."""

    def worth(index: int) -> tuple[int, int]:
        counts = np.bincount(aims[index].ravel(), minlength=VOID + 1)[:classes]
        held = counts[counts > 0]
        return len(held), int(held.min()) if len(held) else 0

    return sorted(sorted(range(len(aims)), key=worth, reverse=True)[:_EXAMPLES])


@torch.inference_mode()
def _examples(anatomy: Anatomy, cases: Sequence[Case], probes: dict[str, Probe]) -> tuple[Example, ...]:
    examples = []
    for case in cases:
        logits, features = anatomy.read(case.image)
        by_layer = {
            layer.name: paint_by_probe(layer, probes[layer.name], features[layer.name], case.size)
            for layer in anatomy.layers
            if layer.name in probes
        }
        painting = logits[0].argmax(0).to(torch.uint8).cpu().numpy()
        examples.append(Example(case, _aim(case), painting, by_layer))
    return tuple(examples)


def _story(
    anatomy: Anatomy,
    cases: Sequence[Case],
    examples: Sequence[Example],
    pixel: Pixel | None,
    study: Study,
    probes: dict[str, Probe],
    distance: int,
) -> PixelStory:
    if pixel is None:
        case, place = _telling_pixel(examples, distance)
    else:
        case = next(case for case in cases if case.name == pixel[0])
        place = (pixel[2] - case.corner[0], pixel[1] - case.corner[1])
    baseline = torch.stack([one.image.mean((2, 3), keepdim=True) for one in cases]).mean(0)
    return tell_pixel(anatomy, case, place, study.means, baseline, probes)


def _telling_pixel(examples: Sequence[Example], distance: int) -> tuple[Case, tuple[int, int]]:
    """A pixel deep inside a wrongly painted patch if there is one, else one deep inside the largest object."""
    from scipy.ndimage import distance_transform_cdt

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
            "One image only: there are no intervals, as one image says nothing about how images differ, and "
            "probes were "
            "scored on held-out quarters of the same image."
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


def _json(value: Any) -> Any:
    if isinstance(value, tuple | list):
        return [_json(item) for item in value]
    return value.to_json() if hasattr(value, "to_json") else value
