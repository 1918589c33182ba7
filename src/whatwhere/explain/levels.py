"""What and where, level by level: how well the class of a pixel can be read from each level's features.

*What* is asked of interior pixels, among all classes, of images the probe has not seen. *Where* is asked of boundary
pixels, between the two classes that meet there (chance 0.5), by a probe fitted on other parts of the same image: do
the two sides of the edge differ here? Asked across images, the question would be *which side is which*, and that takes
some *what* too: it is reported as *side*. Three controls: shuffled labels (chance), the same architecture untrained
(what the wiring alone gives), and equally many features at every level by random projection (deeper is wider). Knows
features and labels; nothing of files or training.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from whatwhere.explain.anatomy import Layer
from whatwhere.explain.measured import Measured, as_json, balanced_accuracy, measured_accuracy, sides_accuracy
from whatwhere.explain.pixels import BOUNDARY_WIDTH, Spots
from whatwhere.explain.probes import STRENGTH, Probe, fit_probe, folds_over, held_out_logits, projected

__all__ = [
    "NOBODY",
    "NOT_MEASURED",
    "Levels",
    "Painters",
    "Reading",
    "Samples",
    "ahead",
    "asked_of",
    "gather",
    "measure_answers",
    "measure_levels",
    "paint_by_probe",
    "painting_probes",
    "square_side",
]

NOT_MEASURED = "What and where were not measured:"
"""How a note begins that says why."""

_BLOCK, _PARTS = 32, 3
"""Of one image, squares of 32 px, or as large as the largest cell, are held out together, a third of them at a time; of
images that are painted, too."""

Array = NDArray[Any]
Progress = Callable[[float], None]


@dataclass(frozen=True)
class Reading:
    """What a probe reads at one layer.

    Attributes:
        layer: where.
        what: balanced accuracy on interior pixels of held-out images, or quarters of a single one; without a value
            where probes can be asked of fewer than two classes.
        where: on boundary pixels, by probes fitted on other parts of the same image.
        side: on boundary pixels of held-out images, or quarters of a single one.
        shuffled: *what* of a probe fitted on shuffled labels: chance, and how far from it one comes by accident. Each
            layer's are shuffled in another order.
        untrained_what, untrained_where: the same layer of an untrained network; None for the raw pixel.
        equal_what, equal_where: with as many random projections at each level as the narrowest level has features.
    """

    layer: Layer
    what: Measured
    where: Measured
    side: Measured
    shuffled: Measured
    untrained_what: Measured | None
    untrained_where: Measured | None
    equal_what: Measured
    equal_where: Measured

    def to_json(self) -> dict[str, Any]:
        return {name: as_json(value) for name, value in vars(self).items()}


@dataclass(frozen=True)
class Levels:
    """What and where of every layer, in the order of the computation.

    Attributes:
        readings: one a layer.
        answer_what, answer_where: the same scores of the network's own answer.
        distance: interior pixels lie farther than this many px from an edge.
        chance: balanced accuracy of guessing *what*.
        equal_features: how many features each level keeps in the control of equal counts.
    """

    readings: tuple[Reading, ...]
    answer_what: Measured
    answer_where: Measured
    distance: int
    chance: float
    equal_features: int

    def __getitem__(self, name: str) -> Reading:
        for reading in self.readings:
            if reading.layer.name == name:
                return reading
        raise KeyError(f"{name!r}; there are {', '.join(reading.layer.name for reading in self.readings)}")

    def __str__(self) -> str:
        lines = [f"{'':<14}{'what (interior)':<22}{'where (boundary)':<22}which side"]
        lines += [f"{one.layer.title:<14}{one.what!s:<22}{one.where!s:<22}{one.side}" for one in self.readings]
        return "\n".join([*lines, f"{'the answer':<14}{self.answer_what!s:<22}{self.answer_where}"])

    def to_json(self) -> dict[str, Any]:
        return {name: as_json(value) for name, value in vars(self).items()}


@dataclass(frozen=True, eq=False)
class Samples:
    """Features at sampled pixels: interior and boundary, by layer name ``(n, channels)``.

    Attributes:
        spots: interior and boundary pixels.
        features: for each of the two, by layer name.
        groups: for each of the two, what is held out together: images, those of a source, or parts of a single one.
        corners: of boundary pixels, by layer name, the first pixel ``(n, 2)`` of the cell of the unit that answers.
    """

    spots: tuple[Spots, Spots]
    features: tuple[Mapping[str, Array], Mapping[str, Array]]
    groups: tuple[Array, Array]
    corners: Mapping[str, Array]


def gather(layer: Layer, features: Tensor, rows: Array, columns: Array) -> Array:
    """Features ``(n, channels)`` float32 of the units that answer for pixels; ``features`` is ``(1, C, h, w)``."""
    down, across = layer.units(rows, columns, features.shape)
    found: Array = features[0, :, down, across].float().T.cpu().numpy()
    return found


def measure_levels(
    layers: Sequence[Layer],
    samples: Samples,
    untrained: Samples,
    answers: tuple[Array, Array],
    *,
    classes: int,
    distance: int,
    seed: int,
    progress: Progress,
) -> Levels:
    """Fit and score the probes of every layer.

    Args:
        samples, untrained: of the network and of its untrained twin, at the same spots.
        answers: the network's logits ``(n, classes)`` at interior and boundary spots.
    """
    hidden = [layer.channels for layer in layers if layer.role != "pixel"]
    count = min(hidden)
    readings = []
    for place, layer in enumerate(layers):
        readings.append(_read(layer, samples, untrained, count, square_side(layers), classes, distance, seed))
        progress((place + 1) / len(layers))
    asked = asked_of(layers, samples, classes)
    interior, boundary = (spots.take(rows) for spots, rows in zip(samples.spots, asked))
    answers = answers[0][asked[0]], answers[1][asked[1]]
    answer_what, answer_where = measure_answers(
        answers, (interior, boundary), classes=classes, distance=distance, seed=seed
    )
    present = len(np.unique(interior.label))
    return Levels(
        tuple(readings),
        answer_what,
        answer_where,
        distance,
        1 / max(1, present),
        count,
    )


def asked_of(layers: Sequence[Layer], samples: Samples, classes: int) -> tuple[Array, Array]:
    """The interior and boundary spots that probes are scored on: those of classes that what they are fitted on shows.

    A probe that is shown nothing has an answer for the same ones.
    """
    interior, boundary = samples.spots
    logits = held_out_logits(np.zeros((len(interior), 1)), interior.label, samples.groups[0], classes)
    squares = _squares(np.stack([boundary.row, boundary.column], 1), square_side(layers))
    within, scored = _within_images(np.zeros((len(boundary), 1)), boundary, squares, classes)
    own, rival = (within[np.arange(len(boundary)), side] for side in (boundary.label, boundary.rival))
    known = _known(within, own, rival)
    return _known(logits, logits[np.arange(len(interior)), interior.label]), known[scored[known]]


def measure_answers(
    answers: tuple[Array, Array], spots: tuple[Spots, Spots], *, classes: int, distance: int, seed: int
) -> tuple[Measured, Measured]:
    """What and where of the network's own answer: its logits ``(n, classes)`` at interior and boundary spots."""
    said = "the network's own answer on the same pixels"
    what = _score_what(answers[0], spots[0], classes, f"{_what(distance)}; {said}", seed)
    return what, _score_where(answers[1], spots[1], classes, f"{_where()}; {said}", seed)


def _read(
    layer: Layer, samples: Samples, untrained: Samples, count: int, block: int, classes: int, distance: int, seed: int
) -> Reading:
    interior, boundary = samples.spots
    probe, squares = f"linear probe (logistic regression, C={STRENGTH})", _squares(samples.corners[layer.name], block)
    inside, across = (folds_over(groups, spots.image) for groups, spots in zip(samples.groups, samples.spots))
    order = [seed, *layer.name.encode()]  # of one for all layers, all would be as far from chance, and to one side

    def what(source: Samples, how: str, equal: bool = False, shuffle: bool = False) -> Measured:
        x = source.features[0][layer.name]
        x = projected(x, count, seed) if equal else x
        logits = held_out_logits(x, interior.label, source.groups[0], classes, order if shuffle else None)
        return _score_what(logits, interior, classes, f"{_what(distance)}; {probe}, {inside}{how}", seed)

    def where(source: Samples, how: str, equal: bool = False) -> Measured:
        x = source.features[1][layer.name]
        x = projected(x, count, seed) if equal else x
        logits, scored = _within_images(x, boundary, squares, classes)
        method = f"{_where(layer)}; {probe}, up to {_PARTS}-fold over squares of {block} px of each image alone{how}"
        return _score_where(logits[scored], boundary.take(scored), classes, method, seed)

    hidden, wide = layer.role != "pixel", layer.channels > count
    fresh, same = "; untrained network", f"; {count} random projections of the features"
    plain_what, plain_where = what(samples, ""), where(samples, "")
    sides = held_out_logits(samples.features[1][layer.name], boundary.label, samples.groups[1], classes)
    return Reading(
        layer=layer,
        what=plain_what,
        where=plain_where,
        side=_score_where(sides, boundary, classes, f"{_where(layer)}; {probe}, {across}", seed),
        shuffled=what(samples, "; labels shuffled, of each layer in another order", shuffle=True),
        untrained_what=what(untrained, fresh) if hidden else None,
        untrained_where=where(untrained, fresh) if hidden else None,
        equal_what=what(samples, same, equal=True) if wide else plain_what,
        equal_where=where(samples, same, equal=True) if wide else plain_where,
    )


def square_side(layers: Sequence[Layer]) -> int:
    """The side in px of the squares of an image that are held out together, for all layers the same."""
    return max([_BLOCK, *(max(layer.cell) for layer in layers)])


def _squares(corners: Array, side: int) -> Array:
    """The number of the square that a cell begins in: no unit is both fitted on and scored on."""
    found: Array = corners[:, 0] // side * 10_000 + corners[:, 1] // side
    return found


def _within_images(features: Array, spots: Spots, squares: Array, classes: int) -> tuple[Array, Array]:
    """Logits of each spot by a probe fitted on other squares of its image, and for which spots there are any."""
    logits, scored = np.zeros((len(spots), classes)), np.zeros(len(spots), bool)
    for image in np.unique(spots.image):
        at = np.flatnonzero(spots.image == image)
        if len(np.unique(squares[at])) > 1:
            logits[at] = held_out_logits(features[at], spots.label[at], squares[at], classes, folds=_PARTS)
            scored[at] = True
    return logits, scored


def _what(distance: int) -> str:
    return f"share of interior pixels (more than {distance} px from a label edge) given their class, mean over classes"


def _where(layer: Layer | None = None) -> str:
    said = (
        f"share of boundary pixels (within {BOUNDARY_WIDTH} px of a label edge) given their class rather than the one "
        "that meets it there, mean of both sides of each pair of classes, by their pixels"
    )
    if layer is None or layer.stride == 1:
        return said
    height, width = layer.cell
    return (
        f"{said}; each unit gives its whole cell of {height}x{width} px one answer, so what its channels may say of "
        "places inside the cell is not counted"
    )


def _score_what(logits: Array, spots: Spots, classes: int, method: str, seed: int) -> Measured:
    known = _known(logits, logits[np.arange(len(spots)), spots.label])
    if len(np.unique(spots.label[known])) < 2:
        known = known[:0]  # of one class alone nothing is asked
    return _tally(logits[known].argmax(1) == spots.label[known], spots.take(known), classes, method, seed)


def _score_where(logits: Array, spots: Spots, classes: int, method: str, seed: int) -> Measured:
    own, rival = (logits[np.arange(len(spots)), side] for side in (spots.label, spots.rival))
    known = _known(logits, own, rival)
    kept = spots.take(known)
    sides = replace(kept, label=sides_of(kept.label, kept.rival, classes))
    return _tally(ahead(own[known], rival[known]), sides, classes**2, method, seed, sides_accuracy)


def sides_of(own: Array, rival: Array, classes: int) -> Array:
    """A number for each side of each pair of classes that meet, as `sides_accuracy` counts them."""
    found: Array = own.astype(np.int64) * classes + rival
    return found


def _known(logits: Array, *asked: Array) -> Array:
    """Where a probe was fitted on the classes that are asked for: of others it can say nothing."""
    found: Array = np.flatnonzero(~np.isnan(logits).any(1) & np.all([np.isfinite(one) for one in asked], axis=0))
    return found


def ahead(own: Array, rival: Array) -> Array:
    """1 where the first is larger and 0 where it is smaller; what cannot decide is right half of the time.

    >>> ahead(np.array([2.0, 1.0, 1.0]), np.array([1.0, 1.0, 2.0])).tolist()
    [1.0, 0.5, 0.0]
    """
    found: Array = (own > rival) + 0.5 * (own == rival)
    return found


def _tally(
    right: Array,
    spots: Spots,
    classes: int,
    method: str,
    seed: int,
    how: Callable[[Array, Array], Array] = balanced_accuracy,
) -> Measured:
    if not len(spots):
        return Measured(None, None, None, 0, 0, method, seed)
    unit = spots.image if spots.unit is None else spots.unit
    rows, images = int(unit.max()) + 1, len(np.unique(spots.image))
    cell = unit * classes + spots.label
    total = np.bincount(cell, minlength=rows * classes).reshape(rows, classes)
    hits = np.bincount(cell, weights=right, minlength=rows * classes).reshape(rows, classes)
    return measured_accuracy(hits, total, method, seed, how, images)


@dataclass(frozen=True, eq=False)
class Painters:
    """Probes to paint and read with: for each image those that were fitted on other images, of other sources.

    Attributes:
        parts: for each part of the images, by layer, the probe fitted on interior and boundary pixels of the others.
        part: for each image which part it is in. A single image is read by probes fitted on itself.
    """

    parts: tuple[Mapping[str, Probe], ...]
    part: tuple[int, ...]

    def of(self, image: int | None) -> Mapping[str, Probe]:
        """By layer; None is an image that no probe was fitted on."""
        return self.parts[0 if image is None else self.part[image]] if self.parts else {}


NOBODY = Painters((), ())
"""Where the labels do not ask."""


def painting_probes(layers: Sequence[Layer], samples: Samples, together: Array, classes: int) -> Painters:
    """For each layer as many probes as there are parts; what holds most classes comes into different ones.

    Args:
        together: for each image a number that it shares with those that are held out with it.
    """
    labels = np.concatenate([spots.label for spots in samples.spots])
    places = together[np.concatenate([spots.image for spots in samples.spots])]
    count = int(together.max()) + 1
    held = [len(np.unique(labels[places == one])) for one in range(count)]
    part = np.zeros(count, int)
    part[sorted(range(count), key=lambda one: -held[one])] = np.arange(count) % _PARTS
    parts = min(_PARTS, count)
    probes: list[dict[str, Probe]] = [{} for _ in range(parts)]
    for layer in layers:
        x = np.concatenate([of[layer.name] for of in samples.features])
        for number in range(parts):
            kept = part[places] != number
            kept = kept if kept.any() else np.ones_like(kept)
            probes[number][layer.name] = fit_probe(x[kept], labels[kept], classes)
    return Painters(tuple(probes), tuple(part[together].tolist()))


def paint_by_probe(layer: Layer, probe: Probe, features: Tensor, size: tuple[int, int]) -> NDArray[np.uint8]:
    """The picture that a probe paints from a layer's features, ``H x W`` class ids: each unit colours its cell."""
    values = features[0].float().cpu().numpy()
    best = probe.logits(values.reshape(len(values), -1).T).argmax(1)
    painted: NDArray[np.uint8] = best.reshape(values.shape[1:]).astype(np.uint8)
    down, across = layer.units(np.arange(size[0]), np.arange(size[1]), values.shape)
    cells: NDArray[np.uint8] = painted[np.ix_(down, across)]
    return cells
