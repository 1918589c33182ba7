"""Arrays that are fitted: what is no picture is told by its place, and no error speaks of files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from tiny import disc_picture
from whatwhere import Segmenter
from whatwhere.data import find, survey
from whatwhere.data.arrays import write_arrays
from whatwhere.data.facts import Survey
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


def surveyed(images: Any, masks: Any, root: Path) -> Survey:
    return survey(find(write_arrays(images, masks, root)), workers=1)


IDS = [np.arange(1600).reshape(40, 40) // (100 + place) % 3 for place in range(5)]


@pytest.mark.parametrize("channels", [2, 3, 4, 5])
@pytest.mark.parametrize("dtype", ["uint8", "bool", "float32"])
def test_a_channel_for_each_class_is_not_taken_for_colours(channels: int, dtype: str, tmp_path: Path) -> None:
    masks = [np.eye(channels, dtype=dtype)[np.minimum(ids, channels - 1)] for ids in IDS]
    with pytest.raises(DataError, match=rf"the masks have {channels} channels, .*give mask\.argmax\(-1\)"):
        write_arrays(IMAGES, masks, tmp_path)


def test_pure_red_green_and_blue_are_colours_with_a_warning(tmp_path: Path) -> None:
    with pytest.warns(UserWarning, match="blue the first and red the last; if each channel is a class"):
        found = surveyed(IMAGES, [np.eye(3, dtype=np.uint8)[ids] * 255 for ids in IDS], tmp_path)
    assert found.classes is not None
    assert found.classes.values == (((0, 0, 255),), ((0, 255, 0),), ((255, 0, 0),))


@pytest.mark.parametrize("colors", [((0, 0, 0), (255, 0, 0), (0, 255, 0)), ((9, 0, 0), (0, 8, 0), (0, 0, 7))])
def test_other_colours_are_colours_without_one(colors: Any, tmp_path: Path) -> None:
    found = surveyed(IMAGES, [np.array(colors, np.uint8)[ids] for ids in IDS], tmp_path)
    assert found.classes is not None
    assert sorted(value for (value,) in found.classes.values) == sorted(colors)


def test_a_last_axis_of_one_is_none(tmp_path: Path) -> None:
    with_axis = [image[..., :1] for image in IMAGES], [mask[..., None] for mask in MASKS]
    found = surveyed(*with_axis, tmp_path / "with")
    without = surveyed([image[..., 0] for image in IMAGES], MASKS, tmp_path / "without")
    assert [file.image for file in found.files] == [file.image for file in without.files]
    assert [file.mask for file in found.files] == [file.mask for file in without.files]


class _Endless(torch.utils.data.Dataset[Any]):
    """Has a length, and does not mind what it is asked for."""

    def __init__(self, items: Any) -> None:
        self.items = items

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, index: int) -> Any:
        return self.items[index % len(self.items)]


@pytest.mark.parametrize(
    "kind", [iter, lambda items: map(np.asarray, items), lambda items: (i for i in items), _Endless]
)
def test_what_gives_arrays_one_after_the_other_is_taken(kind: Any, tmp_path: Path) -> None:
    write_arrays(kind(IMAGES), kind(MASKS), tmp_path)
    assert len(list(tmp_path.glob("masks/*"))) == len(MASKS)


class _Stream(torch.utils.data.IterableDataset[Any]):
    def __iter__(self) -> Any:
        return iter(IMAGES)


@pytest.mark.parametrize("given", [None, 5, _Stream()])
def test_what_cannot_be_counted_is_no_images(given: Any) -> None:
    with pytest.raises(DataError, match=rf"the images are a {type(given).__name__}; expected a sequence of arrays"):
        fit(given, MASKS)


def test_tensors_may_have_a_gradient(tmp_path: Path) -> None:
    tensors = [torch.from_numpy(image.astype(np.float32)).requires_grad_() for image in IMAGES]
    found = surveyed(tensors, [torch.from_numpy(mask) for mask in MASKS], tmp_path)
    assert {file.image.dtype for file in found.files if file.image} == {"float32"}


@pytest.mark.parametrize(
    ("turn_image", "turn_mask", "words"),
    [
        (True, lambda mask: mask, r"image 0 has shape \(3, 40, 40\), its mask \(40, 40\).*image\.permute\(1, 2, 0\)"),
        (False, lambda mask: mask[None], r"mask 0 has shape \(1, 40, 40\).*give mask\[0\]"),
        (True, lambda mask: mask[None], r"give mask\[0\]"),
        (False, lambda mask: np.stack([mask == 0, mask == 1, mask == 2]), r"give mask\.argmax\(0\)"),
    ],
)
def test_channels_that_come_first_are_told(turn_image: bool, turn_mask: Any, words: str, tmp_path: Path) -> None:
    images = [image.transpose(2, 0, 1) if turn_image else image for image in IMAGES]
    with pytest.raises(DataError, match=words):
        write_arrays(images, [turn_mask(mask) for mask in MASKS], tmp_path)


@pytest.mark.parametrize("dtype", ["uint8", "float32"])
def test_what_is_masked_does_not_count(dtype: str, tmp_path: Path) -> None:
    hidden = np.zeros((40, 40), bool)
    hidden[:3] = True
    image = IMAGES[0].astype(dtype)
    if dtype == "float32":
        image[hidden] = np.nan
    images = [np.ma.masked_array(image, np.repeat(hidden[..., None], 3, 2)), *(i.astype(dtype) for i in IMAGES[1:])]
    masks = [MASKS[0], np.ma.masked_array(MASKS[1], hidden.T), *MASKS[2:]]
    found = surveyed(images, masks, tmp_path)
    assert [file.mask.void for file in found.files if file.mask] == [120, 120, 0, 0, 0]
    assert found.classes is not None
    assert (found.classes.values, found.classes.void) == (((0,), (255,)), (-1,))


def test_colours_cannot_be_masked(tmp_path: Path) -> None:
    colours = np.ma.masked_equal(np.array([(0, 0, 9), (200, 0, 0)], np.uint8)[IDS[0] % 2], 9)
    with pytest.raises(DataError, match="mask 0 is of colours, and masked"):
        write_arrays(IMAGES[:1], [colours], tmp_path)
