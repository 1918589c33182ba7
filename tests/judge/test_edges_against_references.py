"""Bands, contours, outlines and their scores against brute force, MONAI and the surface-distance package."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy.ndimage import binary_erosion, maximum_filter, minimum_filter

from whatwhere.judge import Judge
from whatwhere.judge.boundaries import band, contour, dilation, distances, pieces
from whatwhere.records import VOID, Classes

THREE = Classes(("a", "b", "c"), ((0, 0, 0),) * 3, ((0,), (1,), (2,)))
TWO = Classes(("rest", "blob"), ((0, 0, 0),) * 2, ((0,), (1,)))
LABELS = arrays(np.uint8, st.tuples(st.integers(1, 9), st.integers(1, 9)), elements=st.sampled_from([0, 1, 2, VOID]))
quick = settings(max_examples=60, deadline=None)


def blob(seed: int, size: int = 40) -> np.ndarray:
    """A wobbly disc that touches no frame, so that all definitions of an edge agree."""
    rng = np.random.default_rng(seed)
    y, x = np.indices((size, size)) - size / 2
    angle = np.arctan2(y - rng.normal(), x - rng.normal())
    radius = size / 4 + 2 * np.sin(3 * angle + rng.uniform(0, 6)) + 2 * np.sin(5 * angle + rng.uniform(0, 6))
    return (np.hypot(y, x) < radius).astype(np.uint8)


def brute_contour(labels: np.ndarray) -> np.ndarray:
    """Pixels with a 4-neighbour of another class."""
    found = np.zeros(labels.shape, bool)
    for y, x in np.ndindex(*labels.shape):
        for v, u in ((y - 1, x), (y + 1, x), (y, x - 1), (y, x + 1)):
            if 0 <= v < labels.shape[0] and 0 <= u < labels.shape[1]:
                found[y, x] |= VOID not in (labels[y, x], labels[v, u]) and labels[y, x] != labels[v, u]
    return found


def brute_band(labels: np.ndarray, reach: int) -> np.ndarray:
    """For each class the pixels within the square of ``reach`` around the far side of one of its edges."""
    found = np.zeros(labels.shape, bool)
    for c in set(labels.ravel()) - {VOID}:
        far = brute_contour(np.where(labels == VOID, VOID, labels == c)) & (labels != c)
        for v, u in np.argwhere(far):
            near = np.s_[max(0, v - reach) : v + reach + 1, max(0, u - reach) : u + reach + 1]
            found[near] |= labels[near] == c
    return found


def filtered_band(labels: np.ndarray, width: int) -> np.ndarray:
    """Pixels with another class in the square around them, as the band is without void."""
    lowest, highest = (of(labels, 2 * width + 1, mode="nearest") for of in (minimum_filter, maximum_filter))
    return np.asarray(lowest != highest)


@quick
@given(LABELS, st.integers(1, 4))
def test_band_and_contour_are_what_brute_force_finds(labels: np.ndarray, width: int) -> None:
    assert np.array_equal(band(labels, width), brute_band(labels, width))
    assert np.array_equal(contour(labels), brute_contour(labels))


@quick
@given(
    arrays(np.uint8, st.tuples(st.integers(1, 5), st.integers(1, 5)), elements=st.integers(0, 20)),
    st.integers(1, 12),
    st.integers(1, 9),
)
def test_without_void_the_band_is_near_any_pixel_of_another_class(blocks: np.ndarray, width: int, side: int) -> None:
    labels = blocks.repeat(side, 0).repeat(side, 1)
    assert np.array_equal(band(labels, width), filtered_band(labels, width))


def test_bands_of_more_classes_than_a_byte_has_bits() -> None:
    labels = np.random.default_rng(0).integers(0, 30, (9, 9)).astype(np.uint8).repeat(3, 0).repeat(3, 1)
    assert len(np.unique(labels)) > 16
    assert np.array_equal(band(labels, 1), filtered_band(labels, 1))
    assert 0 < band(labels, 1).sum() < labels.size


def test_void_is_in_no_band_and_none_is_across_it() -> None:
    assert not band(np.array([[0, 0, VOID, VOID, 1, 1]], np.uint8), 3).any()
    # an edge of the same class elsewhere reaches as far as ever
    labels = np.array([[0, 0, VOID, 0, 1, 1, VOID, 2]], np.uint8)
    assert band(labels, 3).tolist() == [[False, True, False, True, True, True, False, False]]


@pytest.mark.parametrize("seed", range(5))
def test_band_is_the_mask_minus_its_erosion(seed: int) -> None:
    # the reference code of Cheng et al. 2021: erode d times with a 3x3 square
    mask = blob(seed)
    eroded = binary_erosion(mask, np.ones((3, 3)), iterations=3)
    assert np.array_equal(band(mask, 3) & (mask == 1), mask.astype(bool) & ~eroded)


@quick
@given(arrays(float, st.tuples(st.integers(0, 9), st.just(2)), elements=st.integers(0, 20).map(float)))
def test_distances_are_the_nearest_of_all(points: np.ndarray) -> None:
    others = np.array([[3.0, 4.0], [10.0, 0.5]])
    brute = np.hypot(*(points[:, None] - others[None]).transpose(2, 0, 1)).min(1)
    assert np.allclose(distances(points, others), brute)
    assert np.isinf(distances(points, others[:0])).all()


def result(
    truth: np.ndarray, prediction: np.ndarray, classes: Classes = TWO, tolerance: float = 2.0
) -> dict[str, float]:
    judge = Judge(classes, tolerance=tolerance)
    judge.add("x", truth, prediction)
    return judge.result().pooled


@pytest.mark.filterwarnings("ignore:.*always_return_as_numpy:FutureWarning")  # of MONAI, about itself
@pytest.mark.parametrize("seed", range(6))
def test_hausdorff_and_surface_scores_equal_monai(seed: int) -> None:
    torch = pytest.importorskip("torch")
    metrics = pytest.importorskip("monai.metrics")
    truth, prediction = blob(seed), np.roll(blob(seed + 100), (2, -1), (0, 1))
    one_hot = [torch.from_numpy(np.stack([m == 0, m == 1])[None]).float() for m in (prediction, truth)]
    found = result(truth, prediction)
    hausdorff = metrics.compute_hausdorff_distance(*one_hot, include_background=False, percentile=95)
    assert found["hausdorff95/blob"] == pytest.approx(float(hausdorff), rel=1e-6)
    # MONAI counts contour pixels of both sides together: the same counts, put together as a Dice
    dice = metrics.compute_surface_dice(*one_hot, class_thresholds=[2.0], include_background=False)
    judge = Judge(TWO)
    judge.add("x", truth, prediction)
    edge_truth, edge_found, edge_predicted, right = judge.result().counts.contour[0, :, 1]
    assert (edge_found + right) / (edge_truth + edge_predicted) == pytest.approx(float(dice), rel=1e-6)
    # with subvoxels MONAI weights with length: normalised surface Dice
    lengths = metrics.compute_surface_dice(
        *one_hot, class_thresholds=[2.0], include_background=False, use_subvoxels=True, spacing=(1.0, 1.0)
    )
    assert found["surface_dice/blob"] == pytest.approx(float(lengths), abs=1e-5)
    assert found["iou/blob"] == pytest.approx(float(metrics.compute_iou(*one_hot, include_background=False)))
    assert found["dice/blob"] == pytest.approx(float(metrics.DiceMetric(include_background=False)(*one_hot)))


@pytest.mark.filterwarnings("ignore:Please import:DeprecationWarning")  # of surface-distance, about scipy
@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("tolerance", [0.0, 1.0, 2.5])
def test_surface_dice_equals_its_authors_package(seed: int, tolerance: float) -> None:
    surface_distance = pytest.importorskip("surface_distance")
    truth, prediction = blob(seed), np.roll(blob(seed + 50), (1, 2), (0, 1))
    measured = surface_distance.compute_surface_distances(truth.astype(bool), prediction.astype(bool), (1, 1))
    theirs = surface_distance.compute_surface_dice_at_tolerance(measured, tolerance)
    found = result(truth, prediction, tolerance=tolerance)
    assert found["surface_dice/blob"] == pytest.approx(theirs, abs=1e-9)
    assert found["surface_dice/rest"] == pytest.approx(theirs, abs=1e-9)  # the same outline from the other side


def test_length_of_an_outline() -> None:
    square = np.zeros((9, 9), np.uint8)
    square[2:6, 3:7] = 1
    # four sides of three whole pieces, four cut corners
    assert pieces(square)[1].length.sum() == pytest.approx(4 * 3 + 4 * np.sqrt(0.5))
    across = np.array([[0, 1], [1, 0]], np.uint8)
    assert pieces(across)[1].length.tolist() == pytest.approx([np.sqrt(2)])


@quick
@given(LABELS, st.integers(0, 2**32 - 1))
def test_boundary_f1_and_boundary_iou_equal_brute_force(truth: np.ndarray, seed: int) -> None:
    prediction = np.random.default_rng(seed).integers(0, 3, truth.shape, np.uint8)
    found = result(truth, prediction, THREE, tolerance=1.0)
    painted = np.where(truth == VOID, np.uint8(VOID), prediction)
    width = dilation(truth.shape)
    for c, name in enumerate(THREE.names):
        edges = [np.argwhere(brute_contour(m) & (m == c)) for m in (truth, painted)]
        hits = [sum(any(np.hypot(*(p - q)) <= 1 for q in there) for p in here) for here, there in (edges, edges[::-1])]
        recall, precision = (hit / len(edge) if len(edge) else 0.0 for hit, edge in zip(hits, edges))
        f1 = 2 * recall * precision / (recall + precision) if recall + precision else 0.0
        expected = f1 if len(edges[0]) + len(edges[1]) else np.nan
        assert found[f"boundary_f1/{name}"] == pytest.approx(expected, nan_ok=True)
        bands = [brute_band(m, width) & (m == c) for m in (truth, painted)]
        union = (bands[0] | bands[1]).sum()
        expected = (bands[0] & bands[1]).sum() / union if union else np.nan
        assert found[f"boundary_iou/{name}"] == pytest.approx(expected, nan_ok=True)


@pytest.mark.parametrize("shape", [(1, 1), (8, 12), (100, 100), (120, 90), (333, 500), (480, 640), (1024, 2048)])
def test_the_width_of_the_band_is_that_of_its_authors(shape: tuple[int, int]) -> None:
    """As ``mask_to_boundary`` of github.com/bowenc0221/boundary-iou-api has it: to the nearest pixel, one at least."""
    width = int(round(0.02 * np.sqrt(shape[0] ** 2 + shape[1] ** 2)))  # noqa: RUF046
    assert dilation(shape) == max(width, 1)


def test_void_makes_no_edge() -> None:
    truth = np.zeros((20, 20), np.uint8)
    truth[:, 9:12] = VOID
    truth[:, 12:] = 1
    near = truth.copy()
    near[:, 9:12] = 1  # somewhere inside void: as good as anywhere inside void
    found = result(truth, near)
    assert found["mean_iou"] == 1
    assert np.isnan(found["mean_boundary_f1"])
    assert np.isnan(found["mean_hausdorff95"])
    wrong = truth.copy()
    wrong[:, 9:12] = 0
    wrong[:, 12:14] = 0  # an edge that the truth does not have
    assert result(truth, wrong)["boundary_f1/blob"] == 0


def test_the_frame_makes_no_edge() -> None:
    truth = np.zeros((20, 20), np.uint8)
    truth[:, :8] = 1
    assert contour(truth).sum() == 40
    assert band(truth, 2).sum() == 80


def test_hausdorff_is_the_diagonal_where_one_side_has_no_edge() -> None:
    truth = np.zeros((30, 40), np.uint8)
    prediction = truth.copy()
    prediction[3:6, 3:6] = 1
    assert result(truth, prediction)["hausdorff95/blob"] == 50
    assert result(prediction, truth)["hausdorff95/blob"] == 50
    assert np.isnan(result(truth, truth)["hausdorff95/blob"])
