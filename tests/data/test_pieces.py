"""How much context the data ask for: filled shapes tell their class in small, outlined ones do not."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from whatwhere.data.arrays import write_arrays
from whatwhere.data.folder import find
from whatwhere.data.pieces import SIDE, judge_pieces, sample_pieces
from whatwhere.data.survey import survey
from whatwhere.verbs import plan

Pair = tuple[NDArray[np.uint8], NDArray[np.uint8]]


def squares(filled: bool, count: int = 12, side: int = 60, size: int = 96) -> list[Pair]:
    """Noise with a square whose inside is brighter, or of which only an outline of 2 px is; the truth is all of it."""
    rng = np.random.default_rng(0)
    pairs = []
    for _ in range(count):
        top, left = rng.integers(2, size - side - 2, 2)
        labels = np.zeros((size, size), np.uint8)
        labels[top : top + side, left : left + side] = 1
        drawn = labels.copy()
        if not filled:
            drawn[top + 2 : top + side - 2, left + 2 : left + side - 2] = 0
        image = np.clip(rng.normal(90, 20, (size, size)) + 60.0 * drawn, 0, 255).astype(np.uint8)
        pairs.append((image, labels))
    return pairs


def folder_of(pairs: list[Pair], root: Path) -> Path:
    return write_arrays([image for image, _ in pairs], [labels for _, labels in pairs], root)


def test_pieces_lie_wholly_in_one_class() -> None:
    labels = np.zeros((40, 40), np.uint8)
    labels[:, 20:] = 1
    labels[:, 33:] = 2  # no piece fits into 7 columns
    image = (labels * 50)[..., None]
    pieces = sample_pieces(image, labels, 3)
    assert set(pieces.labels) == {0, 1}
    mean, deviation = pieces.features.T
    assert np.array_equal(mean, pieces.labels * 50.0)  # not one reaches over the edge
    assert not deviation.any()
    again = sample_pieces(image, labels, 3)
    assert np.array_equal(again.features, pieces.features)


def test_images_smaller_than_a_piece_and_values_that_are_no_numbers() -> None:
    assert not len(sample_pieces(np.zeros((SIDE - 1, 40, 2)), np.zeros((SIDE - 1, 40), np.uint8), 1).labels)
    broken = np.full((20, 20, 1), np.nan, np.float32)
    assert not len(sample_pieces(broken, np.zeros((20, 20), np.uint8), 1).labels)


@pytest.mark.parametrize("filled", [True, False])
def test_filled_shapes_tell_their_class_in_small_and_outlined_ones_do_not(filled: bool) -> None:
    found = judge_pieces([sample_pieces(image[..., None], labels, 2) for image, labels in squares(filled)])
    assert found is not None
    assert found.classes == (0, 1)
    assert found.chance == 0.5
    assert (found.accuracy > 0.99) if filled else (0.4 < found.accuracy < 0.8)


def test_the_limits_of_float32_are_compared_as_other_numbers_are() -> None:
    samples = []
    for image, labels in squares(True):
        wide = image.astype(np.float32)
        wide[:, :30] = np.finfo(np.float32).min
        samples.append(sample_pieces(wide[..., None], labels, 2))
    found = judge_pieces(samples)
    assert found is not None
    assert 0 < found.accuracy < 1


def test_what_cannot_be_asked() -> None:
    image, labels = squares(True)[0]
    one = sample_pieces(image[..., None], labels, 2)
    assert judge_pieces([]) is None
    assert judge_pieces([one]) is None  # no other half
    flat = sample_pieces(image[..., None], np.zeros_like(labels), 2)
    assert judge_pieces([flat, flat]) is None
    colour = sample_pieces(np.zeros((96, 96, 3), np.uint8), labels, 2)
    assert judge_pieces([one, one, one, one, colour]) is not None  # the odd one out is left out


def test_the_plan_takes_no_deeper_network_than_filled_shapes_need(tmp_path: Path) -> None:
    filled = plan(folder_of(squares(True), tmp_path / "filled"), epochs=1)
    outlined = plan(folder_of(squares(False), tmp_path / "outlined"), epochs=1)
    assert filled.network.depth == 2
    assert "filled shapes need little context" in filled.reasons["network.depth"]
    assert outlined.network.depth == 3
    assert "typically 60 px" in outlined.reasons["network.depth"]
    assert "the rest takes context" in outlined.reasons["network.depth"]


def test_of_few_images_more_places_are_tried(tmp_path: Path) -> None:
    found = survey(find(folder_of(squares(True, count=4, side=14), tmp_path))).piece_test
    assert found is not None
    assert (found.classes, found.accuracy > 0.95) == ((0, 1), True)


def test_a_single_image_has_none_to_compare_with(tmp_path: Path) -> None:
    told = plan(folder_of(squares(True, count=1), tmp_path), epochs=1).reasons["network.depth"]
    assert "not known: a single image has no other to compare with" in told
    assert "the largest object, the only one of 'foreground', has 60 px" in told


def test_thin_structures_leave_the_question_open(tmp_path: Path) -> None:
    pairs = []
    for image, _ in squares(True):
        labels = np.zeros((96, 96), np.uint8)
        labels[::12] = 1
        pairs.append((image, labels))
    root = folder_of(pairs, tmp_path)
    assert survey(find(root)).piece_test is None
    told = plan(root, epochs=1).reasons["network.depth"]
    assert "not known: too few images, or insides of 9 px of two classes, to compare" in told


def test_classes_that_could_not_be_asked_count_too(tmp_path: Path) -> None:
    """Filled squares, and a line of another class that is too thin for pieces: it decides the depth."""
    pairs = []
    for image, labels in squares(True, side=24):
        labels[90:92, 10:80] = 2
        pairs.append((image, labels))
    made = plan(folder_of(pairs, tmp_path), epochs=1)
    told = made.reasons["network.depth"]
    assert "asked of class 0 and class 1" in told
    assert "filled shapes" not in told
    assert "lines of 'class 2' are typically 1 px thick" in told, "measured along the middle"
    assert made.network.depth == 3
