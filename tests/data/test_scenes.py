"""Cats and cushions: what the data set promises to whoever learns from it."""

from __future__ import annotations

import tomllib
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from scipy import ndimage, stats
from sklearn.ensemble import RandomForestClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import balanced_accuracy_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from whatwhere.data.scenes import BODY, CLASSES, HEAD, THIN, TRIM, Scene, render_scene, write_scenes
from whatwhere.data.scenes.figures import CAT, CUSHION
from whatwhere.data.scenes.scene import compose
from whatwhere.errors import DataError, OutputError

COUNT = 36


@cache
def scenes() -> list[Scene]:
    return [render_scene(11, index) for index in range(COUNT)]


def stacked(name: str) -> np.ndarray:
    return np.stack([getattr(scene, name) for scene in scenes()])


def test_the_same_seed_and_index_give_the_same_scene_whatever_was_drawn_before() -> None:
    first = render_scene(5, 3)
    np.random.default_rng(0).random(7)
    render_scene(5, 4)
    again = render_scene(5, 3)
    for name in ("image", "labels", "parts"):
        assert np.array_equal(getattr(first, name), getattr(again, name))


def test_other_seeds_and_other_indices_give_other_scenes() -> None:
    pictures = [render_scene(seed, index).image for seed, index in ((0, 0), (0, 1), (1, 0), (1, 1))]
    for i, one in enumerate(pictures):
        assert all(np.mean(one != other) > 0.5 for other in pictures[i + 1 :])


@pytest.mark.parametrize("size", [16, 64, 97, 128, 201])
def test_any_size_shows_the_same_scene(size: int) -> None:
    scene, usual = render_scene(2, 7, size), render_scene(2, 7)
    assert scene.image.shape == (size, size, 3)
    assert scene.image.dtype == scene.labels.dtype == scene.parts.dtype == np.uint8
    assert scene.labels.shape == scene.parts.shape == (size, size)
    if size >= 64:
        shares = [[np.mean(s.labels == k) for k in range(3)] for s in (scene, usual)]
        assert np.allclose(*shares, atol=0.03)


def test_parts_belong_to_their_class() -> None:
    labels, parts = stacked("labels"), stacked("parts")
    assert set(np.unique(labels)) == {0, 1, 2}
    assert set(np.unique(parts)) == {0, BODY, HEAD, THIN, TRIM}
    assert np.array_equal(labels == 0, parts == 0)
    assert (labels[parts == HEAD] == CAT).all()
    assert (labels[parts == TRIM] == CUSHION).all()
    for kind in (CAT, CUSHION):  # neither thinness nor fur is one class's own
        assert {BODY, THIN} <= set(np.unique(parts[labels == kind]))


def test_every_class_has_a_fair_share() -> None:
    labels = stacked("labels")
    background, cat, cushion = (float(np.mean(labels == k)) for k in range(3))
    assert 0.6 < background < 0.85
    assert 0.08 < cat < 0.2
    assert 0.08 < cushion < 0.2
    assert np.mean([{1, 2} <= set(np.unique(s.labels)) for s in scenes()]) > 0.8


def test_every_cat_shows_its_head() -> None:
    for index, scene in enumerate(scenes()):
        _, figures = compose(11, index)
        blobs, _ = ndimage.label(scene.parts == HEAD)
        heads = np.sum(np.bincount(blobs.ravel())[1:] > 150)
        assert heads == sum(figure.kind == CAT for figure in figures), index
        assert 1 <= len(figures) <= 4


def test_the_middle_of_every_body_is_far_from_all_that_tells() -> None:
    for index, scene in enumerate(scenes()):
        _, figures = compose(11, index)
        distance = scene.telling_distance()
        nearest = figures[-1].body  # nothing hides it
        along, across = np.meshgrid(np.linspace(-2, 2, 5), np.linspace(-2, 2, 5))
        places = np.array([nearest.point(a, b) for a, b in zip(along.ravel(), across.ravel())])
        x, y = np.floor(places).astype(int).T
        own = scene.parts[y, x] == BODY
        assert own.mean() > 0.5, index  # a neighbour's tail may pass
        assert distance[y, x].max() > 12, index


def test_most_of_every_body_is_beyond_a_narrow_view() -> None:
    labels, parts = stacked("labels"), stacked("parts")
    distance = np.stack([scene.telling_distance() for scene in scenes()])
    hidden = np.stack([scene.undecidable(8) for scene in scenes()])
    assert np.array_equal(hidden, (parts == BODY) & (distance > 8))
    for kind in (CAT, CUSHION):
        body = (labels == kind) & (parts == BODY)
        assert body.sum() > 0.65 * (labels == kind).sum()
        assert np.median(distance[body]) > 11
        assert hidden[body].mean() > 0.6
    deepest = []
    for part, away in zip(parts, distance):
        blobs, count = ndimage.label(part == BODY)
        sizes = np.bincount(blobs.ravel())
        deepest += [away[blobs == k].max() for k in range(1, count + 1) if sizes[k] > 400]
    assert np.percentile(deepest, 5) > 20


def test_thin_parts_are_one_to_three_pixels_wide() -> None:
    depth = np.stack([ndimage.distance_transform_edt(s.parts == THIN) for s in scenes()])
    thin = depth[depth > 0]
    assert np.mean(thin <= 2) > 0.98  # distance 2 is the middle of a line three pixels wide
    assert thin.max() < 3.2  # where threads meet
    assert 0.01 < np.mean(stacked("parts")[stacked("labels") > 0] == THIN) < 0.1


def test_no_scene_without_telling_parts_is_measured_as_near() -> None:
    flat = np.full((4, 4), BODY, np.uint8)
    bare = Scene(np.zeros((4, 4, 3), np.uint8), flat, flat)
    assert np.isinf(bare.telling_distance()).all()
    assert bare.undecidable().all()


def test_bodies_and_places_do_not_depend_on_what_they_are() -> None:
    figures = [figure for index in range(160) for figure in compose(23, index)[1]]

    def measure(kind: int) -> np.ndarray:
        bodies = [figure.body for figure in figures if figure.kind == kind]
        return np.array([[b.half, b.radius, b.taper, b.bend, *b.center, *b.front, *b.belly] for b in bodies])

    cats, cushions = measure(CAT), measure(CUSHION)
    assert min(len(cats), len(cushions)) > 150
    for one, other in zip(cats.T, cushions.T):
        assert stats.ks_2samp(one, other).pvalue > 1e-3


def patches(reach: int, tint: float = 0.0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Patches of fur around undecidable pixels, their class and their scene; ``tint`` brightens cats, to be caught."""
    rng = np.random.default_rng(0)
    found, kinds, owners = [], [], []
    for owner, scene in enumerate(scenes()):
        image = scene.image + tint * (scene.labels == CAT)[..., None]
        inside = ndimage.distance_transform_edt(scene.parts == BODY) > reach + 1
        for kind in (CAT, CUSHION):
            ys, xs = np.nonzero(scene.undecidable(8) & inside & (scene.labels == kind))
            for k in rng.permutation(len(ys))[:60]:
                y, x = ys[k], xs[k]
                found.append(image[y - reach : y + reach + 1, x - reach : x + reach + 1])
                kinds.append(kind)
                owners.append(owner)
    return np.array(found, np.float32), np.array(kinds), np.array(owners)


def judged(features: np.ndarray, kinds: np.ndarray, owners: np.ndarray, model: object) -> float:
    """Balanced accuracy on scenes that were not learned from, over three folds."""
    scores = []
    for fold in range(3):
        test = owners % 3 == fold
        fitted = model.fit(features[~test], kinds[~test])  # type: ignore[attr-defined]
        scores.append(balanced_accuracy_score(kinds[test], fitted.predict(features[test])))
    return float(np.mean(scores))


def test_no_patch_of_fur_tells_a_cat_from_a_cushion() -> None:
    found, kinds, owners = patches(4)
    line = make_pipeline(StandardScaler(), LogisticRegression(C=1e-3, max_iter=500))
    assert judged(found.reshape(len(found), -1), kinds, owners, line) < 0.6
    texture = np.concatenate(
        [found.mean((1, 2)), found.std((1, 2)), np.abs(np.diff(found, axis=1)).mean((1, 2)),
         np.abs(np.diff(found, axis=2)).mean((1, 2)), found.min((1, 2)), found.max((1, 2))], axis=1,
    )  # fmt: skip
    forest = RandomForestClassifier(60, min_samples_leaf=10, random_state=0)
    assert judged(texture, kinds, owners, forest) < 0.6


def test_a_coat_that_betrays_its_wearer_would_be_caught() -> None:
    found, kinds, owners = patches(4, tint=90.0)
    line = make_pipeline(StandardScaler(), LogisticRegression(C=1e-3, max_iter=500))
    assert judged(found.reshape(len(found), -1), kinds, owners, line) > 0.65


def test_labels_lie_where_the_picture_changes() -> None:
    def agreement(dy: int, dx: int) -> float:
        total = []
        for scene in scenes()[:20]:
            grey = scene.image.mean(2)
            slope = np.hypot(ndimage.sobel(grey, 0), ndimage.sobel(grey, 1))
            edge = ndimage.morphological_gradient(scene.labels, 3) > 0
            total.append(np.roll(slope, (dy, dx), (0, 1))[edge].mean() / slope.mean())
        return float(np.mean(total))

    shifts = {(dy, dx): agreement(dy, dx) for dy in (-2, 0, 2) for dx in (-2, 0, 2)}
    assert max(shifts, key=lambda shift: shifts[shift]) == (0, 0)
    assert shifts[0, 0] > 2


def test_write_scenes_makes_a_data_folder_of_the_same_bytes_every_time(tmp_path: Path) -> None:
    seen: list[tuple[int, int]] = []
    one = write_scenes(
        tmp_path / "a", train=3, val=2, seed=4, size=64, progress=lambda done, total: seen.append((done, total))
    )
    two = write_scenes(tmp_path / "b", train=3, val=2, seed=4, size=64)
    names = sorted(str(path.relative_to(one)) for path in one.rglob("*") if path.is_file())
    assert names == sorted(str(path.relative_to(two)) for path in two.rglob("*") if path.is_file())
    assert len(names) == 11
    assert all((one / name).read_bytes() == (two / name).read_bytes() for name in names)
    assert seen == [(done, 5) for done in range(1, 6)]
    assert {path.stem for path in (one / "val/images").iterdir()} == {"scene-0003", "scene-0004"}


def test_written_files_hold_the_scene_and_its_classes(tmp_path: Path) -> None:
    root = write_scenes(tmp_path, train=1, val=1, seed=9, size=97)
    scene = render_scene(9, 1, 97)
    with Image.open(root / "val/images/scene-0001.png") as picture:
        assert np.array_equal(np.asarray(picture), scene.image)
    with Image.open(root / "val/masks/scene-0001.png") as mask:
        assert mask.mode == "P"
        assert np.array_equal(np.asarray(mask), scene.labels)
        assert mask.getpalette()[:9] == [c for color in CLASSES.colors for c in color]
    table = tomllib.loads((root / "classes.toml").read_text())["class"]
    assert [(c["value"], c["name"]) for c in table] == [(0, "background"), (1, "cat"), (2, "cushion")]
    assert table[1]["color"] == "#e68a2e"


def test_a_folder_that_is_a_file_is_an_output_error(tmp_path: Path) -> None:
    (tmp_path / "taken").write_text("here")
    with pytest.raises(OutputError, match=r"taken.*expected a writable place"):
        write_scenes(tmp_path / "taken", train=1, val=0, size=32)


@pytest.mark.parametrize(("seed", "index", "size"), [(-1, 0, 128), (0, -1, 128), (0, 0, 15)])
def test_impossible_scenes_are_refused(seed: int, index: int, size: int) -> None:
    with pytest.raises(DataError, match=f"seed {seed}, index {index}, size {size}; expected seed and index from 0"):
        render_scene(seed, index, size)
