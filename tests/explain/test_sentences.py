"""The report's sentences say what was measured, and no more."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import pytest

from whatwhere.explain import Explanation, words
from whatwhere.explain.measured import Measured
from whatwhere.explain.objects import ObjectSize
from whatwhere.explain.presence import Presence
from whatwhere.explain.sight import Leak


def sure(value: float) -> Measured:
    return Measured(value, value - 0.01, value + 0.01, images=8, pixels=100, method="", seed=0)


def as_if(e: Explanation, **values: Mapping[str, float]) -> Explanation:
    """The explanation as if these had been measured, for each kind of value by layer."""
    assert e.levels is not None
    readings = [
        replace(one, **{kind: sure(of[one.layer.name]) for kind, of in values.items() if one.layer.name in of})
        for one in e.levels.readings
    ]
    return replace(e, levels=replace(e.levels, readings=tuple(readings)))


FALLS = {"encoder.0": 0.8, "bottleneck": 0.6}


@pytest.mark.parametrize(("untrained", "said", "not_said"), [
    ({"encoder.0": 0.7, "bottleneck": 0.55},
     "falls in an untrained network too, from 0.70 [0.69, 0.71] to 0.55 [0.54, 0.56]: pooling has a part in it; that "
     "training has one was not shown.",
     "not training"),
    ({"encoder.0": 0.9, "bottleneck": 0.86},
     "from 0.90 [0.89, 0.91] to 0.86 [0.85, 0.87]: pooling has a part in it, but the trained network ends lower.",
     "not shown"),
    ({"encoder.0": 0.55, "bottleneck": 0.55}, "Place is lost on the way down, as the textbook has it.", "untrained"),
])  # fmt: skip
def test_place_that_an_untrained_network_loses_too_is_not_lost_by_training(
    untrained: dict[str, float], said: str, not_said: str, explanation: Explanation
) -> None:
    where = words.levels(as_if(explanation, where=FALLS, untrained_where=untrained))[1]
    assert where.startswith("Where:")
    assert said in where
    assert not_said not in where


@pytest.mark.parametrize(("raw", "trained", "said"), [
    (0.5, 0.9, "decoder 0 of the trained one reaches 0.90 [0.89, 0.91], more than that one untrained network."),
    (0.95, 0.9, "more than that one untrained network. Raw pixels do best: 0.95 [0.94, 0.96]."),
    (0.95, 0.7, "that training adds to it was not shown. Raw pixels do best: 0.95 [0.94, 0.96]."),
])  # fmt: skip
def test_what_was_learnt_is_held_against_one_untrained_network_and_raw_pixels_learn_nothing(
    raw: float, trained: float, said: str, explanation: Explanation
) -> None:
    names = [layer.name for layer in explanation.layers[1:]]
    what = {"pixel": raw, **dict.fromkeys(names, 0.6), "decoder.0": trained}
    told = as_if(explanation, what=what, untrained_what=dict.fromkeys(names, 0.7))
    (sentence,) = (one for one in words.levels(told) if one.startswith("An untrained network"))
    assert "one drawn at random, reaches what 0.70 [0.69, 0.71] at best" in sentence
    assert sentence.endswith(said)


def test_a_bottleneck_with_nothing_before_it_is_not_compared_with_itself(explanation: Explanation) -> None:
    assert explanation.levels is not None
    kept = tuple(one for one in explanation.levels.readings if one.layer.name in ("pixel", "bottleneck"))
    flat = as_if(replace(explanation, levels=replace(explanation.levels, readings=kept)), what=FALLS, where=FALLS)
    first, *others = words.levels(flat)
    assert first.startswith("No finer level comes before the bottleneck")
    assert "accuracy of 0.60 [0.59, 0.61], and the two sides of edges (chance 0.50) with" in first
    assert not any(one.startswith(("What:", "Where:")) for one in others)


def test_where_is_of_whole_cells(explanation: Explanation) -> None:
    assert "each unit gives its whole cell of 4x4 px one answer" in words.levels(explanation)[1]
    assert explanation.levels is not None
    for name, said in (("bottleneck", True), ("encoder.0", False)):
        reading = explanation.levels[name]
        for found in (reading.where, reading.side, reading.equal_where):
            assert ("places inside the cell" in found.method) == said


def test_the_end_of_the_decoder_is_held_against_the_least_that_was_measured(explanation: Explanation) -> None:
    what = {"encoder.0": 0.7, "encoder.1": 0.7, "bottleneck": 0.5, "decoder.1": 0.8, "decoder.0": 0.6}
    where = {"encoder.0": 0.8, "encoder.1": 0.55, "bottleneck": 0.6, "decoder.1": 0.7, "decoder.0": 0.65}
    said = words.levels(as_if(explanation, what=what, where=where))[2]
    assert said.endswith("more of both than where each is least (bottleneck, encoder 1).")
    worse = words.levels(as_if(explanation, what=what, where=where | {"decoder.0": 0.55}))[2]
    assert "more of both" not in worse


def test_of_the_end_of_the_decoder_only_what_was_measured_is_told(explanation: Explanation) -> None:
    assert explanation.levels is not None
    *others, last = explanation.levels.readings
    nothing = replace(sure(0.5), value=None, low=None, high=None, images=0)
    for what, where, told in (
        (nothing, nothing, []), (nothing, sure(0.9), ["At the end of the decoder where is 0.90 [0.89, 0.91]."]),
    ):  # fmt: skip
        readings = (*(replace(one, what=what) for one in others), replace(last, what=what, where=where))
        said = words.levels(replace(explanation, levels=replace(explanation.levels, readings=readings)))
        assert [one for one in said if one.startswith("At the end")] == told


@pytest.mark.parametrize(("images", "ending"), [(8, "shows nothing;"), (4, "the range itself is uncertain;")])
def test_shuffled_labels_say_how_far_from_chance_nothing_may_lead(
    images: int, ending: str, explanation: Explanation
) -> None:
    assert explanation.levels is not None
    readings = [
        replace(one, shuffled=Measured(value, None, None, images, 100, "", 0))
        for one, value in zip(explanation.levels.readings, (0.2, 0.2, 0.3, 0.3, 0.5, 0.6))
    ]
    told = replace(explanation, levels=replace(explanation.levels, readings=tuple(readings)))
    (said,) = (one for one in words.levels(told) if one.startswith("Controls:"))
    assert "score 0.20 to 0.60, 0.35 on average (chance 0.33): what was read within that range shows nothing" in said
    assert ending in said


@pytest.mark.parametrize(("cost", "told"), [(0.001, False), (0.02, True)])
def test_a_path_hurts_that_costs_as_much_as_is_printed(cost: float, told: bool, explanation: Explanation) -> None:
    first, *others = explanation.skips.worth["mean IoU"]
    worth = replace(first, shapley=Measured(-cost, -1.1 * cost, -0.9 * cost, 8, 100, "", 0))
    skips = replace(explanation.skips, worth=explanation.skips.worth | {"mean IoU": (worth, *others)})
    said = " ".join(words.skips(replace(explanation, skips=skips)))
    assert (f"{first.path.name} ({-cost:+.2f} [" in said.partition("Some paths hurt")[2]) == told


@pytest.mark.parametrize(("accuracy", "said"), [
    ({"pixel": (0.85, 0.79, 0.91), "bottleneck": (0.87, 0.81, 0.93)},
     "bottleneck does best (not shown to be better than raw pixel)."),
    ({"pixel": (0.5, 0.4, 0.6), "bottleneck": (0.87, 0.81, 0.93)}, "bottleneck does best."),
    ({"pixel": (0.5, 0.4, 0.6), "encoder.0": (0.88, 0.8, 0.9), "bottleneck": (0.87, 0.81, 0.93)},
     "encoder 0 does best (not shown to be better than the bottleneck)."),
    ({"pixel": (0.5, 0.4, 0.6), "bottleneck": (0.7, 0.65, 0.75), "decoder.1": (0.85, 0.8, 0.9),
      "decoder.0": (0.9, 0.85, 0.95)},
     "decoder 0 does best (not shown to be better than decoder 1): the right half of the U adds to it."),
])  # fmt: skip
def test_the_best_reader_of_yes_or_no_is_held_against_the_next(
    accuracy: Mapping[str, tuple[float, float, float]], said: str, explanation: Explanation
) -> None:
    of = {name: Measured(*value, images=8, pixels=100, method="", seed=0) for name, value in accuracy.items()}
    told = words.presence(replace(explanation, presence=Presence("image", (1,), of, 8)))
    assert told[0].endswith(said)


@pytest.mark.parametrize(("images", "ending"), [
    (5, "at most 90 px: on average the evidence comes from a smaller square than that."), (4, "at most 90 px."),
])  # fmt: skip
def test_few_images_give_no_verdict_on_how_far_evidence_lies(
    images: int, ending: str, explanation: Explanation
) -> None:
    large = ObjectSize(1, "apple", objects=9, typical=80.0, largest=90, share=0.1, fills=False)
    seen = [replace(one, most=Measured(20.0, 15.0, 25.0, images, images, "", 0)) for one in explanation.sights.sights]
    told = replace(explanation, sights=replace(explanation.sights, sights=tuple(seen)), objects=(large,))
    assert any(sentence.endswith(ending) for sentence in words.sight(told))


def test_an_output_that_no_pixel_moves_is_not_passed_over(explanation: Explanation) -> None:
    nothing = Measured(None, None, None, 0, 0, "", 0)
    out = replace(explanation.sights["output"], half=nothing, most=nothing, restored=nothing)
    told = replace(explanation, sights=replace(explanation.sights, sights=(*explanation.sights.sights[:-1], out)))
    assert "was not measured: of the pixels that were tried no gradient reaches the image" in words.sight(told)[0]


@pytest.mark.parametrize(("most", "said"), [
    (7.0, "lies in a square of 7 px (centred on the pixel; its window is not), half"),
    (3.0, "lies in a square of 3 px (75% of the side that these images show of it), half"),
])  # fmt: skip
def test_a_square_larger_than_the_window_is_explained(most: float, said: str, explanation: Explanation) -> None:
    out = replace(explanation.sights["output"], theoretical=4, visible=4, most=sure(most))
    told = replace(explanation, sights=replace(explanation.sights, sights=(out,)))
    assert said in words.sight(told)[0]


def test_of_a_single_image_a_part_was_never_seen(explanation: Explanation) -> None:
    assert "in an image never seen" in words.levels(explanation)[1]
    assert "in a quarter of the image never seen" in words.levels(replace(explanation, images=("toy-0",)))[1]


@pytest.mark.parametrize(("fewest", "shown"), [(5, "the answer survives it"), (4, "was not shown to answer")])
def test_a_class_of_few_images_gives_no_verdict_on_yes_or_no(fewest: int, shown: str, explanation: Explanation) -> None:
    presence = Presence("image", (1,), {layer.name: sure(0.9) for layer in explanation.layers}, fewest)
    assert shown in words.presence(replace(explanation, presence=presence))[1]


def test_of_yes_or_no_the_probe_is_told_and_no_network_that_was_not_there(explanation: Explanation) -> None:
    presence = Presence("quarter", (1,), {layer.name: sure(0.8) for layer in explanation.layers}, 8)
    said = " ".join(words.presence(replace(explanation, presence=presence)))
    assert "balanced accuracy of 0.80 [0.79, 0.81]" in said
    assert "the mean of yes and no" in said
    assert "of the cases" not in said
    assert "holds 'apple' (0.5 % of its pixels or more)" in said
    assert "classifier" not in said


def test_the_layer_whose_check_failed_is_named_not_one_that_passed(explanation: Explanation) -> None:
    leaks = (Leak("decoder.0", 4, 0.5, 1e5, 0), Leak("encoder.0", 4, 1e-2, 1.0, 0))
    told = replace(explanation, sights=replace(explanation.sights, leaks=leaks))
    assert "noise outside its window moved a unit of encoder.0 by 0.01" in " ".join(words.sight(told))


def test_half_of_one_pixel_is_not_none(explanation: Explanation) -> None:
    sights = tuple(
        replace(one, most=replace(one.most, value=1.0), half=replace(one.half, value=0.5))
        for one in explanation.sights.sights
    )
    told = " ".join(words.sight(replace(explanation, sights=replace(explanation.sights, sights=sights))))
    assert "lies in a square of 1 px" in told
    assert "half of it in one of 1 px" in told
