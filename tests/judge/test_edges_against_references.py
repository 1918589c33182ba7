"""Bands, contours, outlines and their scores against brute force, MONAI and the surface-distance package."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy.ndimage import binary_erosion

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


def brute_near_other(labels: np.ndarray, reach: int, four: bool) -> np.ndarray:
    """Pixels with a pixel of another class near: in the square of ``reach``, or only the four neighbours."""
    found = np.zeros(labels.shape, bool)
    height, width = labels.shape
    for y, x in np.ndindex(height, width):
        for v, u in np.ndindex(height, width):
            near = abs(y - v) + abs(x - u) <= 1 if four else max(abs(y - v), abs(x - u)) <= reach
            if near and VOID not in (labels[y, x], labels[v, u]) and labels[y, x] != labels[v, u]:
                found[y, x] = True
    return found


@quick
@given(LABELS, st.integers(1, 4))
def test_band_and_contour_are_what_brute_force_finds(labels: np.ndarray, width: int) -> None:
    assert np.array_equal(band(labels, width), brute_near_other(labels, width, four=False))
    assert np.array_equal(contour(labels), brute_near_other(labels, 1, four=True))


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
        edges = [np.argwhere(brute_near_other(m, 1, four=True) & (m == c)) for m in (truth, painted)]
        hits = [sum(any(np.hypot(*(p - q)) <= 1 for q in there) for p in here) for here, there in (edges, edges[::-1])]
        recall, precision = (hit / len(edge) if len(edge) else 0.0 for hit, edge in zip(hits, edges))
        f1 = 2 * recall * precision / (recall + precision) if recall + precision else 0.0
        expected = f1 if len(edges[0]) + len(edges[1]) else np.nan
        assert found[f"boundary_f1/{name}"] == pytest.approx(expected, nan_ok=True)
        bands = [brute_near_other(m, width, four=False) & (m == c) for m in (truth, painted)]
        union = (bands[0] | bands[1]).sum()
        expected = (bands[0] & bands[1]).sum() / union if union else np.nan
        assert found[f"boundary_iou/{name}"] == pytest.approx(expected, nan_ok=True)


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
