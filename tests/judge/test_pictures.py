"""Pictures: what is shown for which kind of image, and what the error panel says."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from whatwhere.judge import error_picture, preview, to_display, worst_images_sheet
from whatwhere.judge.pictures import ADDED, CONFUSED, MISSED
from whatwhere.records import VOID, Classes

TWO = Classes(("rest", "Kätzchen"), ((20, 20, 30), (242, 165, 65)), ((0,), (1,)))
THREE = Classes(("background", "cat", "cushion"), ((0, 0, 0), (200, 80, 120), (80, 120, 200)), ((0,), (1,), (2,)))
SCENE = Classes(("sky", "tree", "road"), THREE.colors, THREE.values)


def holds(picture: np.ndarray, color: tuple[int, int, int], where: str = "panels") -> bool:
    rows = picture[40:-50] if where == "panels" else picture[-50:]
    return bool((rows == color).all(-1).any())


@pytest.mark.parametrize(
    "image",
    [
        np.zeros((9, 7), np.uint8),
        np.zeros((9, 7, 1), np.uint16),
        np.full((9, 7, 2), 0.5, np.float32),
        np.ones((9, 7, 3), bool).astype(np.uint8),
        np.random.default_rng(0).normal(size=(9, 7, 4)),
        np.full((9, 7, 12), np.nan),
    ],
    ids=lambda image: f"{image.shape} {image.dtype}",
)
def test_any_image_can_be_shown(image: np.ndarray) -> None:
    shown = to_display(image)
    assert shown.shape == (9, 7, 3)
    assert shown.dtype == np.uint8


def test_display_keeps_8_bit_and_stretches_the_rest() -> None:
    dim = np.random.default_rng(0).integers(100, 110, (8, 8, 3), np.uint8)
    assert np.array_equal(to_display(dim), dim)
    deep = to_display(np.linspace(30000, 30100, 10000).reshape(100, 100).astype(np.uint16))
    assert deep.min() == 0
    assert deep.max() == 255
    spoiled = np.linspace(0, 1, 100).reshape(10, 10)
    spoiled[0, 0] = np.inf
    assert to_display(spoiled)[0, 0, 0] == 0
    assert to_display(spoiled).max() == 255


def test_each_kind_of_error_has_its_colour() -> None:
    image = np.full((48, 48, 3), 128, np.uint8)
    truth = np.zeros((48, 48), np.uint8)
    truth[:10] = 1
    right = error_picture(image, truth, truth, THREE)
    assert right.dtype == np.uint8
    assert not any(holds(right, color) for color in (MISSED, ADDED, CONFUSED))
    assert all(holds(right, color, "legend") for color in (MISSED, ADDED, CONFUSED))
    for given, painted, color in ((1, 0, MISSED), (0, 2, ADDED), (1, 2, CONFUSED)):
        prediction = truth.copy()
        prediction[truth == given] = painted
        picture = error_picture(image, truth, prediction, THREE)
        assert [c for c in (MISSED, ADDED, CONFUSED) if holds(picture, c)] == [color]


def test_without_a_background_every_error_is_a_wrong_class() -> None:
    truth = np.zeros((48, 48), np.uint8)
    picture = preview(np.zeros((48, 48), np.uint16), truth, truth + 1, SCENE)
    assert holds(picture, CONFUSED)
    assert not holds(picture, MISSED)
    assert not holds(picture, ADDED)


def test_void_is_no_error() -> None:
    truth = np.full((48, 48), VOID, np.uint8)
    picture = preview(np.zeros((48, 48), np.uint8), truth, np.ones_like(truth), TWO)
    assert not holds(picture, ADDED)


def test_a_class_whose_name_can_t_be_drawn_is_called_by_its_id() -> None:
    def of(*names: str) -> np.ndarray:
        labels = np.zeros((48, 48), np.uint8)
        return preview(labels, labels, labels, replace(THREE, names=names))

    assert np.array_equal(of("background", "\u732b", "coussin"), of("background", "class 1", "coussin"))
    drawn = of("background", "K\xe4tzchen", "\u043a\u043e\u0442")
    assert not np.array_equal(drawn, of("background", "class 1", "class 2"))


@pytest.mark.parametrize("shape", [(1, 1), (3, 500), (400, 20), (1200, 900)])
def test_any_size_makes_a_picture(shape: tuple[int, int]) -> None:
    labels = np.zeros(shape, np.uint8)
    picture = preview(labels, labels, labels, TWO)
    assert picture.ndim == 3
    assert max(picture.shape) < 1800


def test_a_sheet_has_a_row_an_image_and_a_caption_each() -> None:
    labels = np.zeros((40, 60), np.uint8)
    row = ("a very long name " * 40, labels, labels, labels)
    one, three = worst_images_sheet([row], TWO), worst_images_sheet([row] * 3, TWO)
    assert one.shape[1] == three.shape[1]
    assert three.shape[0] > one.shape[0] + 2 * 240
    assert np.array_equal(three[:60], one[:60])


@pytest.mark.parametrize("name", ["scan\n7", "scan\r\n7", "scan\t7", "scan\u20287"])
def test_a_name_of_several_lines_is_drawn_in_one(name: str) -> None:
    labels = np.zeros((20, 20), np.uint8)
    drawn, plain = (worst_images_sheet([(of, labels, labels, labels)], TWO) for of in (name, "scan 7"))
    assert np.array_equal(drawn, plain)
