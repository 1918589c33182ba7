"""Arrays that are fitted: what is no picture is told by its place, and no error speaks of files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tiny import disc_picture
from whatwhere import Segmenter
from whatwhere.errors import DataError

PAIRS = [disc_picture(seed) for seed in range(5)]
IMAGES, MASKS = [image for image, _ in PAIRS], [mask for _, mask in PAIRS]


def fit(images: Any, masks: Any) -> None:
    Segmenter.fit(images, masks, epochs=0.1, encoder="plain", width=4, depth=2, device="cpu")


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        (Path("cells/c.png"), r"image 3 is 'cells/c\.png'; expected an array of numbers.*read the file first"),
        ("cells/c.png", r"image 3 is 'cells/c\.png'"),
        (np.float32(3), r"image 3 has shape \(\) and dtype float32; expected an array of numbers, HxW or HxWxC"),
        (np.array([["a", "b"]]), r"image 3 has shape \(1, 2\) and dtype <U1"),
        (None, r"image 3 has shape \(\) and dtype object"),
        (np.zeros((0, 4)), r"image 3 has shape \(0, 4\)"),
        (np.zeros((2, 3, 4, 5)), r"image 3 has shape \(2, 3, 4, 5\)"),
        ([[1, 2], [3]], r"image 3 is no array \(ValueError: "),
    ],
)
def test_what_is_no_picture_is_named_by_its_place(wrong: Any, words: str) -> None:
    with pytest.raises(DataError, match=words):
        fit([*IMAGES[:3], wrong, *IMAGES[4:]], MASKS)


def test_a_mask_that_is_none_is_named_too() -> None:
    with pytest.raises(DataError, match=r"mask 1 is 'masks/b\.png'"):
        fit(IMAGES, [MASKS[0], "masks/b.png", *MASKS[2:]])


@pytest.mark.parametrize("planes", [2, 4])
def test_a_plane_for_each_class_is_no_mask(planes: int) -> None:
    stacks = [np.stack([np.roll(mask, 3 * number) for number in range(planes)], -1) for mask in MASKS]
    with pytest.raises(DataError, match=rf"mask 0 has {planes} channels"):
        fit(IMAGES, stacks)


def test_masks_beside_a_folder_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=f"masks beside the folder {tmp_path}; expected a folder that holds both"):
        fit(tmp_path, MASKS)


def _not_finite(images: list[Any], _: list[Any]) -> None:
    images[:] = [image.astype(np.float32) for image in images]
    for image in images:
        image[3, 4] = np.nan


def _of_other_sizes(_: list[Any], masks: list[Any]) -> None:
    masks[:] = [mask[:20] for mask in masks]


@pytest.mark.parametrize(
    ("spoil", "words"),
    [(_not_finite, r"\bimage \d\b"), (_of_other_sizes, r"image 0 is 40 x 40, its mask 20 x 40 \(mask 0\)")],
)
def test_errors_name_the_array_and_no_file(spoil: Any, words: str) -> None:
    images, masks = list(IMAGES), list(MASKS)
    spoil(images, masks)
    with pytest.raises(DataError, match=words) as caught:
        fit(images, masks)
    assert ".tif" not in str(caught.value)
    assert "whatwhere-" not in str(caught.value)


def test_errors_of_a_folder_still_name_its_files(tmp_path: Path) -> None:
    for kind, arrays in (("images", IMAGES), ("masks", [mask[:20] for mask in MASKS])):
        (tmp_path / kind).mkdir()
        for number, array in enumerate(arrays):
            Image.fromarray(array).save(tmp_path / kind / f"{number:06}.tif")
    with pytest.raises(DataError, match=r"000000 is 40 x 40, its mask 20 x 40 \(masks/000000\.tif\)"):
        fit(tmp_path, None)
