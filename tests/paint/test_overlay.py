"""The overlay leaves the ground alone, tints what was found, and outlines it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from painting import COLORS, model_of, picture, unet
from PIL import Image

from whatwhere.paint import overlay
from whatwhere.paint.sources import ArraySource

CLASSES = model_of(unet()).classes


def test_classes_are_tinted_and_outlined_and_the_ground_is_not() -> None:
    image, labels = picture(40, 40), np.zeros((40, 40), np.uint8)
    labels[10:30, 10:30] = 1
    labels[0, 0] = 255
    drawn = overlay.blend(image, labels, CLASSES)
    np.testing.assert_array_equal(drawn[labels == 0], image[labels == 0])
    np.testing.assert_array_equal(drawn[0, 0], image[0, 0])
    assert (drawn[10, 10:30] == COLORS[1]).all()
    middle = 0.55 * image[20, 20] + 0.45 * np.array(COLORS[1])
    np.testing.assert_allclose(drawn[20, 20], middle, atol=1)


def test_large_images_are_drawn_smaller_and_bands_meet(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(overlay, "_LONGEST", 60)
    monkeypatch.setattr(overlay, "_BAND", 25)
    image = picture(170, 100)
    labels = (image[..., 0] > 120).astype(np.uint8)
    source = ArraySource(image)
    overlay.write_overlay(tmp_path / "o.png", source, lambda box: labels[box[0][0] : box[0][1]], CLASSES)
    with Image.open(tmp_path / "o.png") as picture_file:
        drawn = np.asarray(picture_file)
    np.testing.assert_array_equal(drawn, overlay.blend(image[::3, ::3], labels[::3, ::3], CLASSES))


def test_deep_and_grey_images_are_made_visible(tmp_path: Path) -> None:
    image = (picture(50, 60, 1, dtype="uint16") // 16).astype(np.uint16)  # 12 bits of 16
    labels = np.zeros((50, 60), np.uint8)
    overlay.write_overlay(tmp_path / "o.png", ArraySource(image), lambda box: labels[box[0][0] : box[0][1]], CLASSES)
    with Image.open(tmp_path / "o.png") as picture_file:
        drawn = np.asarray(picture_file)
    assert drawn.min() == 0
    assert drawn.max() == 255
