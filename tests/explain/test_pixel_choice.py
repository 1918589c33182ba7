from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from whatwhere.explain.pixels import BOUNDARY_WIDTH, interior_distance, regions, sample_spots
from whatwhere.records import VOID

labels_of = hnp.arrays(
    np.uint8, st.tuples(st.integers(1, 12), st.integers(1, 12)), elements=st.sampled_from([0, 1, 2, VOID])
)


def others_within(labels: np.ndarray, row: int, column: int, reach: int) -> list[tuple[int, int]]:
    """(squared distance, class) of every pixel of another class within reach: the definition, spelled out."""
    found = []
    for r in range(max(0, row - reach), min(labels.shape[0], row + reach + 1)):
        for c in range(max(0, column - reach), min(labels.shape[1], column + reach + 1)):
            if labels[r, c] not in (VOID, labels[row, column]):
                found.append(((r - row) ** 2 + (c - column) ** 2, int(labels[r, c])))
    return found


@given(labels_of, st.integers(3, 5))
@settings(max_examples=60, deadline=None)
def test_regions_are_their_definition(labels: np.ndarray, distance: int) -> None:
    found = regions(labels, distance)
    for row, column in np.ndindex(*labels.shape):
        counts = labels[row, column] != VOID
        near = others_within(labels, row, column, BOUNDARY_WIDTH) if counts else []
        assert found.boundary[row, column] == bool(near)
        assert found.rival[row, column] == (min(near)[1] if near else VOID)
        far = counts and not others_within(labels, row, column, distance)
        assert found.interior[row, column] == far


def test_thin_objects_bring_interior_nearer_to_the_edge() -> None:
    thick, thin = np.zeros((60, 60), np.uint8), np.zeros((60, 60), np.uint8)
    thick[10:50, 10:50] = 1
    thin[10:50, 20:32] = 1  # 12 px wide: nothing lies more than 8 px inside, something more than 5
    thread = np.zeros((60, 60), np.uint8)
    thread[:, 30:33] = 1
    assert interior_distance([thick], 2) == 8
    assert interior_distance([thin], 2) == 5
    assert interior_distance([thread], 2) == 3


def test_images_smaller_than_fifty_pixels_a_class_are_asked_near_their_edges() -> None:
    halves = np.repeat(np.uint8([[0, 1]]), 4, axis=1).repeat(8, axis=0)  # nothing is farther than 5 px from an edge
    distance = interior_distance([halves], 2)
    assert distance == 3
    assert sorted(np.unique(halves[regions(halves, distance).interior])) == [0, 1]


def test_samples_are_balanced_inside_their_regions_and_repeatable() -> None:
    labels = []
    for shift in range(4):
        one = np.zeros((40, 40), np.uint8)
        one[8:30, 5 + shift : 30] = 1
        labels.append(one)
    interior, boundary = sample_spots(labels, 3, 2, seed=1, pixels=160)
    for spots, name in ((interior, "interior"), (boundary, "boundary")):
        assert np.bincount(spots.image * 2 + spots.label).tolist() == [20] * 8
        for image, row, column, label in zip(spots.image, spots.row, spots.column, spots.label):
            assert getattr(regions(labels[image], 3), name)[row, column]
            assert labels[image][row, column] == label
    assert (boundary.rival == 1 - boundary.label).all()
    assert (interior.rival == VOID).all()
    again = sample_spots(labels, 3, 2, seed=1, pixels=160)[0]
    assert (again.row == interior.row).all()
    assert (sample_spots(labels, 3, 2, seed=2, pixels=160)[0].row != interior.row).any()
