"""Images of one folder, as of one patient, are alike: no probe is scored on a folder that it was fitted on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
import torch
from explain_toys import fresh, toys

from whatwhere.data.sets import ImageSet, from_arrays
from whatwhere.explain import explain
from whatwhere.explain.cases import Case, fellow, held_together
from whatwhere.explain.levels import painting_probes
from whatwhere.explain.presence import measure_presence
from whatwhere.explain.stages import levels_of, prepare, study_of
from whatwhere.explain.study import CELLS
from whatwhere.network import Model, build


def cases(folders: Sequence[str]) -> list[Case]:
    raw, image = np.zeros((4, 4, 3), np.uint8), torch.zeros(1, 3, 4, 4)
    return [Case(f"{folder}/{place}", raw, None, image, source=folder) for place, folder in enumerate(folders)]


def in_folders(folders: Sequence[str]) -> ImageSet:
    images, labels = zip(*toys(len(folders), start=1000))
    return from_arrays(images, labels, [f"{folder}/toy-{place}" for place, folder in enumerate(folders)])


@pytest.mark.parametrize(("folders", "together"), [
    ("aab", [0, 0, 1]),
    (("a", "b", "", "a", ""), [0, 1, 2, 0, 3]),  # what lies in no folder goes alone
    ("aaa", [0, 1, 2]),  # else nothing would be left to fit on
    (("", "", ""), [0, 1, 2]),
])  # fmt: skip
def test_images_of_a_folder_are_held_out_together(folders: Sequence[str], together: list[int]) -> None:
    assert held_together(cases(folders)).tolist() == together


def test_an_image_that_was_not_measured_on_is_held_out_with_those_of_its_folder() -> None:
    measured = cases("aab")
    assert fellow(measured, "a/1", "a") == 1
    assert fellow(measured, "b/9", "b") == 2
    assert fellow(measured, "c/9", "c") is None
    assert fellow(cases("aaa"), "a/9", "a") is None, "of one folder alone each image goes by itself"


def test_probes_are_fitted_on_other_folders(healthy: Model) -> None:
    data = in_folders("aabbccdd")
    bench = prepare(healthy, data, 8, 0, None, lambda _what, _share: None)
    study = study_of(bench)
    folder = np.array([name[0] for name in data.names])
    for spots, groups in zip(study.samples.spots, study.samples.groups):
        assert len(np.unique(groups)) == 4
        assert all(len(set(folder[spots.image[groups == one]])) == 1 for one in np.unique(groups))
    part = np.array(painting_probes(bench.anatomy.layers[:1], study.samples, held_together(bench.cases), 3).part)
    assert all(len(set(part[folder == one])) == 1 for one in "abcd")


def test_what_only_names_the_folder_tells_nothing_of_another() -> None:
    folder = np.repeat(np.arange(6), 2)
    counts = np.zeros((12, CELLS, CELLS, 2), int)
    counts[..., 0] = 100
    counts[folder % 2 == 0, ..., 1] = 100
    features = np.broadcast_to(np.eye(6)[folder][:, None, None], (12, CELLS, CELLS, 6))
    alone, together = (measure_presence({"a": features}, list(counts), 2, 0, of) for of in (None, folder))
    assert alone is not None
    assert together is not None
    assert alone.accuracy["a"].value == 1.0
    assert together.accuracy["a"].value < 0.75  # type: ignore[operator]
    assert "5-fold over images" in alone.accuracy["a"].method
    assert "5-fold over sources of images" in together.accuracy["a"].method
    three = measure_presence({"a": features}, list(counts), 2, 0, folder // 2)
    assert three is not None
    assert "3-fold over sources of images" in three.accuracy["a"].method
    assert "at least 0.5 % of the pixels" in together.accuracy["a"].method


def _class_itself(images: int, cells: object) -> tuple[dict[str, np.ndarray], list[np.ndarray]]:
    """A feature that is the class, in images of which some cells hold it."""
    counts = np.zeros((images, CELLS, CELLS, 2), int)
    counts[..., 0] = 100
    counts[..., 1][cells] = 100  # type: ignore[index]
    return {"a": (counts[..., 1:] > 0) * 1.0}, list(counts)


def test_who_was_never_shown_yes_is_not_asked() -> None:
    half = np.s_[0, :, : CELLS // 2]  # the left half of the first image alone
    assert measure_presence(*_class_itself(6, half), 2, 0) is None
    first = np.s_[:6]  # all of one folder, none of the other
    assert measure_presence(*_class_itself(12, first), 2, 0, np.repeat([0, 1], 6)) is None
    some = measure_presence(*_class_itself(12, np.s_[:6, 0]), 2, 0, np.repeat([0, 0, 1, 2], 3))
    assert some is None, "yes is in one folder alone"


def test_what_few_images_hold_is_told_with_their_number() -> None:
    two = np.s_[:2, :, : CELLS // 2]
    found = measure_presence(*_class_itself(8, two), 2, 0)
    assert found is not None
    assert found.accuracy["a"].value == 1.0
    assert (found.accuracy["a"].images, found.fewest) == (8, 2)


@pytest.mark.parametrize(("folders", "over"), [
    pytest.param("abcdef", "5-fold over images", marks=pytest.mark.slow),
    ("abc", "3-fold over images"), ("aabb", "2-fold over sources of images"),
    ("a", "4-fold over quarters of the image"),
])  # fmt: skip
def test_each_value_tells_how_many_folds_there_were_and_of_what(folders: str, over: str, healthy: Model) -> None:
    bench = prepare(healthy, in_folders(folders), len(folders), 0, None, lambda _what, _share: None)
    found = levels_of(bench, study_of(bench))
    assert found is not None
    for one in found.readings:
        assert one.what.method.endswith(over)
        assert one.side.method.endswith(over.partition("-")[2])  # edges may lie in fewer quarters than insides do
        assert one.where.method.endswith("up to 3-fold over squares of 32 px of each image alone")


@pytest.mark.parametrize(("folders", "said"), [
    ("aabb", "the 4 images come from 2 sources (folders; pieces or copies of one image), and may be more alike than "
             "that; probes were scored on other sources than they were fitted on."),
    pytest.param("aaaa", "the 4 images come from 1 source (folders; pieces or copies of one image), and may be more "
                 "alike than that; probes were scored on other images than they were fitted on, but of the same "
                 "source.", marks=pytest.mark.slow),
    pytest.param("aabbccddee", "the 10 images come from 5 sources (folders; pieces or copies of one image); probes "
                 "were scored on other sources than they were fitted on.", marks=pytest.mark.slow),
    pytest.param("abcd", "", marks=pytest.mark.slow),
])  # fmt: skip
def test_the_report_says_that_images_of_a_folder_may_be_alike(folders: str, said: str, healthy: Model) -> None:
    told = explain(healthy, in_folders(folders))
    noted = [note for note in told.notes if "Intervals resample" in note]
    drawn = "images" if all(one.sources is None for one in told.skips.full.values()) else "sources"
    assert drawn == ("sources" if len(set(folders)) >= 5 else "images")
    assert noted == ([f"Intervals resample {drawn}; {said}"] if said else [])
    assert told.levels is not None
    over_folders = "-fold over sources of images" in told.levels["bottleneck"].what.method
    assert over_folders == (1 < len(set(folders)) < len(folders))


@pytest.mark.parametrize("unpadded", [False, True])
def test_no_unit_lies_in_two_quarters_of_a_single_image(unpadded: bool, healthy: Model) -> None:
    # the coarsest cells of an unpadded network need not begin where the image does
    network = build(fresh(padding="valid").config).eval() if unpadded else healthy.network
    model = replace(healthy, network=network)
    (image, labels), *_ = toys(1, start=1000)
    image, labels = (np.tile(of, (2, 2) + (1,) * (of.ndim - 2))[:100, :76] for of in (image, labels))
    bench = prepare(model, from_arrays([image], [labels], ["one"]), 1, 0, None, lambda _what, _share: None)
    seen = study_of(bench).samples
    assert (bench.anatomy.layers[3].origin != (0, 0)) == unpadded
    for layer in bench.anatomy.layers:
        for spots, groups in zip(seen.spots, seen.groups):
            assert len(np.unique(groups)) > 1
            cells = layer.corners(spots.row, spots.column, (1000, 1000))
            for cell in np.unique(cells, axis=0):
                assert len(np.unique(groups[(cells == cell).all(1)])) == 1
