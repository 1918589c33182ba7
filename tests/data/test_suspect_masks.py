"""Findings about masks that need masks of their own kind: numbers of objects, outlines, slips of the brush."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import tifffile
from numpy.typing import NDArray
from tiny_folders import disc, photo, save, write_folder

from whatwhere.data import Findings, check, find, survey

COLORS = np.array([[255, 255, 255], [0, 0, 255], [255, 255, 0], [255, 0, 0]], np.uint8)


def findings(root: Path) -> Findings:
    return check(survey(find(root), workers=1))


def folder(root: Path, masks: list[NDArray[np.generic]]) -> Path:
    return write_folder(root, {f"{k}": (photo(k), mask) for k, mask in enumerate(masks)})


def numbered(first: int, count: int) -> NDArray[np.uint16]:
    mask = np.zeros((48, 64), np.uint16)
    for number in range(count):
        mask[12 * (number // 5) + 2 :][:8, 12 * (number % 5) + 2 :][:, :8] = first + number
    return mask


def test_numbers_that_are_unique_over_all_masks(tmp_path: Path) -> None:
    (finding,) = findings(folder(tmp_path, [numbered(1 + 10 * k, 9) for k in range(6)])).of("object-numbers")
    assert "each is one area, most of them in one mask only" in str(finding)


def test_colours_of_single_objects(tmp_path: Path) -> None:
    colors = np.random.default_rng(0).integers(1, 255, (70, 3), np.uint8)
    colors[0] = 0
    masks = [colors[numbered(1 + 10 * k, 9)] for k in range(6)]
    assert findings(folder(tmp_path, masks)).of("object-numbers")


def test_classes_of_one_area_in_one_mask_are_too_few_in_three_masks(tmp_path: Path) -> None:
    assert not findings(folder(tmp_path, [numbered(11 + 10 * k, 9) for k in range(3)])).of("object-numbers")


def test_numbers_after_classes(tmp_path: Path) -> None:
    """As in Cityscapes' instanceIds: ids of what is not counted, and class and number of what is."""
    root = folder(tmp_path, [disc() for _ in range(4)])
    for k, path in enumerate(sorted(root.glob("masks/*"))):
        mask = numbered(24001, 8 + k % 2)
        mask[::12], mask[1::12] = 7, 11
        path.unlink()
        tifffile.imwrite(path.with_suffix(".tif"), mask)
    (finding,) = findings(root).of("object-numbers")
    assert "each of the 9 above 255 is one area" in str(finding)
    assert "mask // 1000" in finding.remedy


def layered(outline: bool) -> NDArray[np.int64]:
    ids = disc().astype(np.int64) + disc(36, 48, 8)
    if outline:
        rim = ids != np.roll(ids, 1, axis=1)
        ids[10:, 40:] *= 2
        ids[rim] = 3
    return ids


@pytest.mark.parametrize("outline", [True, False])
def test_outlines_in_a_colour_of_their_own(outline: bool, tmp_path: Path) -> None:
    masks = [COLORS[np.roll(layered(outline), k, axis=0)] for k in range(4)]
    found = findings(folder(tmp_path, masks)).of("blurred-ids")
    assert [finding.message.split(":")[0] for finding in found] == (["class #ff0000"] if outline else [])
    assert all("list them under void" in finding.remedy for finding in found)


def test_thin_lines_on_the_background_are_no_outlines(tmp_path: Path) -> None:
    ids = np.zeros((48, 64), int)
    ids[::8], ids[:, ::8] = 1, 2
    assert not findings(folder(tmp_path, [COLORS[np.roll(ids, k, axis=0)] for k in range(4)])).of("blurred-ids")


@pytest.mark.parametrize(
    ("color", "pixels", "told"), [((252, 255, 0), 2, True), ((252, 255, 0), 400, False), ((230, 255, 0), 2, False)]
)
def test_a_slip_of_the_brush(color: tuple[int, int, int], pixels: int, told: bool, tmp_path: Path) -> None:
    masks = [COLORS[2 * disc() + disc(36, 48, 8)] for _ in range(4)]
    masks[0].reshape(-1, 3)[:pixels] = color
    found = findings(folder(tmp_path, masks)).of("near-colors")
    assert bool(found) is told
    assert all("class #fcff00 (2 pixels) beside class #ffff00" in str(finding) for finding in found)


def test_only_test_images_are_told_to_be_so(tmp_path: Path) -> None:
    for name in ("test", "study"):
        for kind, image in (("images", photo(0)), ("masks", disc())):
            save(tmp_path / name / kind / "a.png", image)
    (finding,) = findings(tmp_path).of("no-usable")
    assert "only test/ was found" in finding.message
    assert "call the folder of training images train/" in finding.remedy
    assert "study" in finding.remedy


def test_255_that_may_be_void_is_asked_about(tmp_path: Path) -> None:
    masks = [np.array([0, 60, 255], np.uint8)[numbered(1, 6) % 3] for _ in range(3)]
    (finding,) = findings(folder(tmp_path / "asked", masks)).of("lone-255")
    assert "though the other values end at 60" in str(finding)
    assert "void = [255]" in finding.remedy
    even = [np.array([0, 128, 255], np.uint8)[numbered(1, 6) % 3] for _ in range(3)]
    assert not findings(folder(tmp_path / "even", even)).of("lone-255")


@pytest.mark.parametrize(("tag", "void"), [(255, (255,)), (0, ()), (7, ())])
def test_what_a_mask_s_tag_calls_no_data_does_not_count(tmp_path: Path, tag: int, void: tuple[int, ...]) -> None:
    """0 is not believed: programs copy the image's tag."""
    root = folder(tmp_path, [disc()] * 3)
    for k in range(3):
        (root / f"masks/{k}.png").unlink()
        mask = np.array([0, 60, 255], np.uint8)[numbered(1, 6) % 3]
        tifffile.imwrite(root / f"masks/{k}.tif", mask, extratags=[(42113, "s", 0, str(tag), True)])
    found = survey(find(root), workers=1)
    assert found.classes is not None
    assert found.classes.void == void
    assert not check(found).fatal


def test_a_test_without_masks_is_there_to_be_painted(tmp_path: Path) -> None:
    pairs = {f"{split}/{k}": (photo(k + 10 * len(split)), disc()) for split in ("train", "val") for k in range(4)}
    root = write_folder(tmp_path, pairs | {f"test/{k}": (photo(k + 90), None) for k in range(3)})
    found = findings(root)
    assert "test has no masks: its 3 images can be painted, not scored" in str(found.of("split-without-masks")[0])
    assert not found.warnings
