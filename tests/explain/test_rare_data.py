"""Data that leaves little to measure: few edges, classes that are hardly there, regions that do not count."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from explain_toys import Pair, as_set, toys
from scipy.ndimage import maximum_filter, minimum_filter
from torch import nn

from whatwhere.data.sets import from_arrays
from whatwhere.explain import Explanation, explain, levels, words
from whatwhere.explain.anatomy import Layer, Windows, untrained_like
from whatwhere.explain.graph_anatomy import GraphAnatomy
from whatwhere.explain.levels import Levels, Samples, ahead, measure_levels, painting_probes
from whatwhere.explain.pixels import Spots
from whatwhere.explain.presence import measure_presence, region_features
from whatwhere.explain.stages import levels_of, prepare, study_of
from whatwhere.explain.study import CELLS, pooled
from whatwhere.judge.boundaries import band
from whatwhere.network import Mirrored, Model, UNet
from whatwhere.records import VOID


def measured(model: Model, pairs: Sequence[Pair]) -> tuple[Levels, list[str]]:
    """What and where alone, and the notes on them."""
    bench = prepare(model, as_set(pairs), len(pairs), 0, None, lambda _what, _share: None)
    found = levels_of(bench, study_of(bench))
    assert found is not None
    return found, bench.notes


@pytest.mark.slow
def test_one_small_object_in_a_corner_of_the_only_image(healthy: Model) -> None:
    labels = np.zeros((64, 64), np.uint8)
    labels[3:14, 4:15] = 1
    image = np.full((64, 64, 3), 95, np.uint8)
    image[labels == 1] = (200, 90, 70)
    told = explain(healthy, from_arrays([image], [labels], ["corner"]))
    assert told.levels is not None
    sides = [one.side for one in told.levels.readings]
    assert all(one.value is None and one.pixels == 0 for one in sides)  # both sides lie in one part of the image
    assert "–" in str(told)
    for said in (
        "What was not measured: all insides of 'apple' lie in one held-out fold of the quarters of the image.",
        "Where was not measured: no image shows both sides of an edge in several squares of 32 px.",
    ):
        assert said in told.notes
    assert "no two classes meet" not in " ".join(words.levels(told))


def test_edges_in_one_image_of_many(healthy: Model) -> None:
    pairs = [(image, np.zeros_like(labels)) for image, labels in toys(5)] + toys(1, start=50)
    found, _ = measured(healthy, pairs)
    assert all(one.side.value is None for one in found.readings)
    assert all(one.where.value is not None for one in found.readings)


@pytest.mark.slow
def test_a_class_that_only_some_cuts_paint_gets_no_value_that_is_no_number(healthy: Model) -> None:
    pairs = [(image, np.where(labels == 2, 0, labels).astype(np.uint8)) for image, labels in toys(4)]
    told = explain(healthy, as_set(pairs))
    for score, worths in told.skips.worth.items():
        assert all(np.isfinite(one.shapley.value or 0.0) for one in worths), score
        assert np.isfinite(told.skips.none[score].value or 0.0)
    assert "nan" not in str(told)


def test_what_cannot_decide_is_right_half_of_the_time() -> None:
    assert ahead(np.zeros(4), np.zeros(4)).mean() == 0.5


@pytest.mark.parametrize("favourite", [0, 1, 2])
def test_an_answer_that_looks_at_nothing_knows_half_of_where(favourite: int) -> None:
    """Whatever it prefers, and however many classes meet the first: pixels by their own class would say 1/3 or 2/3."""
    own, rival = np.array([0] * 30 + [1] * 20 + [2] * 10), np.array([1] * 20 + [2] * 10 + [0] * 20 + [0] * 10)
    image = np.arange(60) % 6
    logits = np.zeros((60, 3))
    logits[:, favourite] = 1
    found = levels._score_where(logits, Spots(image, image, image, own, rival), 3, "", 0)
    assert found.value == pytest.approx(0.5)
    assert found.pixels == 60


def test_a_probe_is_not_asked_of_classes_that_it_was_not_fitted_on() -> None:
    own, rival = np.array([0, 1, 0, 2]), np.array([1, 0, 2, 0])
    spots = Spots(np.arange(4), own, own, own, rival)
    logits = np.array([[2.0, 1.0, -np.inf], [1.0, 2.0, -np.inf], [2.0, 1.0, -np.inf], [2.0, 1.0, -np.inf]])
    where, what = levels._score_where(logits, spots, 3, "", 0), levels._score_what(logits, spots, 3, "", 0)
    assert (where.value, where.pixels) == (1.0, 2)
    assert (what.value, what.pixels) == (1.0, 3)


def test_insides_in_one_image_alone_leave_what_unmeasured(healthy: Model) -> None:
    """Nothing could be held out; edges are in every image, and the note says why there is no more."""
    (image, labels), *others = toys(3)
    pairs = [(image, labels), *((one, np.where(band(of, 2), of, VOID)) for one, of in others)]
    found, notes = measured(healthy, [(one, of.astype(np.uint8)) for one, of in pairs])
    assert found["decoder.0"].what.value is None
    assert found["decoder.0"].where.value > 0.8  # type: ignore[operator]
    assert "What was not measured: one image or part of one alone has labelled insides." in notes


@pytest.mark.parametrize(("common", "said", "what"), [
    ((0,), "What was not measured: all insides of 'apple' or 'plum'", False),
    ((0, 1), "What was not measured of every class: all insides of 'plum'", True),
])  # fmt: skip
def test_classes_of_one_image_alone_are_not_asked_and_said_to_be(
    common: tuple[int, ...], said: str, what: bool, healthy: Model
) -> None:
    """A probe that was not shown a lesion is not asked of it; of what is left alone its recall would be near 1."""
    pairs = toys(6, start=1000)
    pairs[1:] = [(image, np.where(np.isin(labels, common), labels, 0).astype(np.uint8)) for image, labels in pairs[1:]]
    found, notes = measured(healthy, pairs)
    assert f"{said} lie in one held-out fold of the images." in notes
    for value in [found.answer_what, *(one.what for one in found.readings), *(one.shuffled for one in found.readings)]:
        assert (value.value is not None) == what
    assert all(one.where.value is not None for one in found.readings)


@pytest.mark.parametrize(("stride", "origin", "units"), [(64, 0, 4), (32, 16, 7), (24, 0, 11), (32, 0, 6)])
def test_no_unit_is_both_fitted_and_scored_on(stride: int, origin: int, units: int) -> None:
    """Features that only name the unit would give the label away; the last ones end before the image of 256 px."""
    layer, rng = Layer("a", "encoder", 0, "", stride, units**2, (origin, origin)), np.random.default_rng(0)
    row, column = rng.integers(0, 256, (2, 600))
    down, across = layer.units(row, column, (units, units))
    label = rng.integers(0, 2, (units, units))[down, across]
    spots, nothing = Spots(row * 0, row, column, label, 1 - label), Spots(*(np.zeros(0, int) for _ in range(5)))
    features = {"a": np.zeros((0, units**2))}, {"a": np.eye(units**2)[units * down + across]}
    corners = {"a": layer.corners(row, column, (units, units))}
    samples = Samples((nothing, spots), features, (row[:0], row * 0), corners)
    answers = np.zeros((0, 2)), np.eye(2)[label]
    found = measure_levels([layer], samples, samples, answers, classes=2, distance=1, seed=0, progress=lambda _: None)
    where = found.readings[0].where
    assert where.value is not None
    assert where.value < 0.6
    assert f"squares of {max(32, stride)} px" in where.method


def striped(count: int, low: int = 1) -> list[tuple[np.ndarray, np.ndarray]]:
    """Toys with a crack across, 3 px wide, of class 2; of the discs those of classes below ``low`` stay."""
    pairs = []
    for seed, (image, labels) in enumerate(toys(count, start=1000)):
        crack = np.zeros(labels.shape, bool)
        crack[2 + seed % 3 : 5 + seed % 3] = True
        image = np.where(((labels >= low) & ~crack)[..., None], 95, image)
        image[crack] = (80, 90, 200)
        pairs.append((image.astype(np.uint8), np.where(crack, 2, labels * (labels < low)).astype(np.uint8)))
    return pairs


def test_thin_objects_have_a_where_and_no_what(healthy: Model, tmp_path: Path) -> None:
    """As cracks, hairs and vessels: all insides are the background's, and of one class alone nothing can be asked."""
    told = explain(healthy, as_set(striped(6)), out=tmp_path)
    assert told.levels is not None
    one = told.levels["decoder.0"]
    assert one.where.value > 0.8  # type: ignore[operator]
    assert one.side.value is not None
    assert (one.what.value, one.what.pixels, one.shuffled.value) == (None, 0, None)
    assert "What was not measured: no pixel of 'plum' lies farther than 3 px from a label edge." in told.notes
    assert "interior accuracy" not in told.skips.worth
    said = " ".join(sentence for of in words.answers(told).values() for sentence in of)
    assert "interior accuracy could not be measured" in said
    for untrue in ("fewer than two classes", "chance 1.00", "what –", "tells –"):
        assert untrue not in said + " ".join(told.notes), untrue
    assert "Inside, 0.00" not in " ".join(one.words for one in told.diagnoses)
    assert "chance 1<" not in (tmp_path / "index.html").read_text("utf-8")


def test_a_thin_class_beside_others_is_said_to_be_left_out_of_what(healthy: Model) -> None:
    found, notes = measured(healthy, striped(6, low=2))
    assert found.chance == 0.5
    said = "What was not measured of every class: no pixel of 'plum' lies farther than 3 px from a label edge."
    assert said in notes


@pytest.mark.slow
def test_classes_that_void_keeps_apart_have_a_what_and_no_where(healthy: Model) -> None:
    """As in Pascal VOC, where a border of void lies around every object."""
    pairs = []
    for image, labels in toys(6, start=1000):
        near = maximum_filter(labels, 7) != minimum_filter(labels, 7)
        pairs.append((image, np.where(near, VOID, labels).astype(np.uint8)))
    told = explain(healthy, as_set(pairs))
    assert told.levels is not None
    assert told.levels["decoder.0"].what.value > 0.8  # type: ignore[operator]
    assert told.levels["decoder.0"].where.value is None
    said = " ".join([*words.levels(told), *told.notes])
    assert "no two classes meet" in said
    assert "fewer than two classes" not in said


def test_the_answer_is_scored_on_the_pixels_that_probes_are_asked_of() -> None:
    """A class of one image alone: no probe was shown it, so that the answer is not held against it there either."""
    layer = Layer("a", "encoder", 0, "", 1, 1)
    samples = _samples(6, dict.fromkeys(range(6), (0, 1)) | {5: (0, 1, 2)})
    label = samples.spots[0].label
    logits = np.eye(3)[np.where(label == 2, 0, label)]  # right, but for that class
    found = measure_levels(
        [layer], samples, samples, (logits, np.zeros((0, 3))), classes=3, distance=1, seed=0, progress=lambda _: None
    )
    assert found.answer_what.value == 1.0
    assert found.answer_what.pixels == found.readings[0].what.pixels == int((label != 2).sum())
    assert found.chance == 0.5


def test_how_far_shuffled_labels_come_from_chance_is_tried_anew_at_every_layer() -> None:
    """Of few images one shuffling may lead far from chance; the same for all layers, all would be told wrong alike."""
    layers = [Layer(name, "encoder", 0, "", 1, 1) for name in "abc"]
    alike = _samples(4, dict.fromkeys(range(4), (0, 1)))
    label = alike.spots[0].label
    inside = dict.fromkeys("abc", (label + np.linspace(0, 3, len(label)))[:, None])
    features = inside, dict.fromkeys("abc", np.zeros((0, 1)))
    samples = replace(alike, features=features, corners=dict.fromkeys("abc", alike.corners["a"]))
    answers = np.eye(2)[label], np.zeros((0, 2))
    found = measure_levels(layers, samples, samples, answers, classes=2, distance=1, seed=0, progress=lambda _: None)
    assert len({one.what.value for one in found.readings}) == 1
    assert len({one.shuffled.value for one in found.readings}) > 1


def _samples(images: int, held: dict[int, tuple[int, ...]]) -> Samples:
    """Twenty spots an image of the classes that it holds; the only feature is the number of the image."""
    image = np.repeat(np.arange(images), 20)
    label = np.concatenate([np.resize(held.get(one, (0,)), 20) for one in range(images)])
    spots = Spots(image, image * 0, image * 0, label, label * 0 + VOID)
    nothing = Spots(*(np.zeros(0, int) for _ in range(5)))
    features = {"a": image[:, None] * 1.0}, {"a": np.zeros((0, 1))}
    return Samples((spots, nothing), features, (image, image[:0]), {"a": np.zeros((0, 2), int)})


def test_images_are_painted_by_probes_of_others_and_the_rich_ones_are_shared_out() -> None:
    layer = Layer("a", "encoder", 0, "", 1, 1)
    samples = _samples(9, {2: (0, 1, 2), 3: (0, 1, 2), 7: (0, 1, 2)})
    painters = painting_probes([layer], samples, np.arange(9), 3)
    assert len({painters.part[image] for image in (2, 3, 7)}) == 3
    for image in range(9):
        others = [other for other in range(9) if painters.part[other] != painters.part[image]]
        mean = painters.of(image)["a"].mean
        assert mean == pytest.approx(np.mean(others))
    assert painters.of(None) is painters.parts[0]
    alone = painting_probes([layer], _samples(1, {0: (0, 1)}), np.arange(1), 3)
    assert alone.of(0)["a"].mean == 0


def test_regions_without_a_pixel_that_counts_hold_nothing() -> None:
    rng = np.random.default_rng(0)
    counts = np.zeros((12, CELLS, CELLS, 2), int)
    counts[..., 0] = 100
    counts[::2, :2, :2, 1] = 50  # every second image holds the class, in its first quarter
    counts[:, 2:, 2:] = 0  # and the last quarter of all is void
    there = counts[..., 1] > 0
    features = np.stack([there + 0.1 * rng.normal(size=there.shape), rng.normal(size=there.shape)], -1)
    found = measure_presence({"a": features}, list(counts), 2, 0)
    assert found is not None
    assert (found.region, found.classes) == ("image", (1,))
    x, held = region_features(features, counts, "quarter", 1)
    assert held is not None
    assert (len(x), int(held.sum())) == (12 * 3, 6)


@pytest.mark.parametrize(("size", "stride"), [((100, 64), 32), ((50, 70), 8), ((64, 64), 1)])
def test_cells_are_means_over_the_image_not_over_a_larger_grid(size: tuple[int, int], stride: int) -> None:
    grid = tuple(-(-n // stride) for n in size)
    features = torch.randn(1, 3, *grid, generator=torch.Generator().manual_seed(0))
    layer = Layer("a", "encoder", 0, "", stride, 3)
    spread = features[0].numpy()[:, np.arange(size[0]) // stride][:, :, np.arange(size[1]) // stride]
    with torch.autocast("cpu", torch.bfloat16):  # as it is called
        found = pooled(layer, features, size)
    for row in range(CELLS):
        for column in range(CELLS):
            rows = np.arange(size[0]) * CELLS // size[0] == row
            columns = np.arange(size[1]) * CELLS // size[1] == column
            expected = spread[:, rows][:, :, columns].mean((1, 2))
            np.testing.assert_allclose(found[row, column], expected, rtol=1e-4, atol=1e-5)


@pytest.fixture(scope="module")
def eating() -> Windows:
    """To follow it once takes longest; what all sizes share is taken from there."""
    torch.manual_seed(0)
    return Windows(Mirrored(UNet(3, 3, width=4, depth=3, padding="valid")).eval())


@pytest.mark.slow
@pytest.mark.parametrize("side", [64, 96, 256])
def test_levels_of_a_network_that_eats_its_rim_do_not_depend_on_the_image(side: int, eating: Windows) -> None:
    anatomy = GraphAnatomy(eating.network, (1, 3, side, side))
    anatomy.windows = eating
    named = {layer.name: layer.stride for layer in anatomy.layers}
    assert named == {
        "pixel": 1, "encoder.0": 1, "encoder.1": 2, "encoder.2": 4, "bottleneck": 8, "decoder.2": 4, "decoder.1": 2,
        "decoder.0": 1,
    }  # fmt: skip
    assert [path.name for path in anatomy.paths] == ["skip 0", "skip 1", "skip 2", "bottleneck"]


def test_nothing_learnt_is_left_in_the_untrained_twin() -> None:
    class Own(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.attention = nn.MultiheadAttention(8, 2)
            self.place = nn.Parameter(torch.arange(16.0))
            self.first = nn.utils.parametrizations.weight_norm(nn.Conv2d(3, 8, 3))

    network = Own()
    state = torch.get_rng_state()
    twin = untrained_like(network, 0, [torch.zeros(1, 3, 8, 8)])
    assert torch.equal(torch.get_rng_state(), state)
    for (name, now), learnt in zip(twin.named_parameters(), network.parameters()):
        constant = learnt.numel() == 1 or bool((learnt == learnt.flatten()[0]).all())
        assert constant or not torch.equal(now, learnt), name


@pytest.mark.slow
def test_two_images_are_too_few_for_a_verdict(explanation: Explanation, healthy: Model) -> None:
    few = " ".join(words.levels(replace(explanation, levels=measured(healthy, toys(2, start=1000))[0])))
    assert "as the textbook has it" not in few
    assert "Fewer than 5 images hold it" in few
    many = " ".join(words.levels(explanation))
    assert "Fewer than" not in many
