"""Folders laid out as public data sets come: what is meant is told from what must not be learnt or mixed."""

from pathlib import Path

import numpy as np
import pytest
from tiny_folders import disc, photo, save

from whatwhere.data import Findings, check, find, split, survey
from whatwhere.data.folder import LayoutError
from whatwhere.errors import DataError


def touch(root: Path, *names: str) -> Path:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(b"")
    return root


def findings(root: Path) -> Findings:
    folder = find(root)
    seen = survey(folder, workers=1)
    return check(seen.divided(split(folder, seen)))


@pytest.mark.parametrize(
    ("field", "vessels"),
    [
        ("mask/{}_mask.tif", "manual1/{}.tif"),  # HRF
        ("masks/{}.png", "vessel-segmentations/{}.png"),  # LES-AV
        ("mask/{}_mask.gif", "2nd_manual/{}_manual2.gif"),
    ],
)
def test_fields_of_view_are_not_taken_for_the_vessels_beside_them(field: str, vessels: str, tmp_path: Path) -> None:
    touch(tmp_path, *(name.format(k) for name in ("images/{}.jpg", field, vessels) for k in (1, 2)))
    with pytest.raises(DataError, match=r"holds masks?/ and \S+/, all with images.*for instance fov/"):
        find(tmp_path)
    (tmp_path / field).parent.rename(tmp_path / "fov")
    assert {pair.mask.parent.name for pair in find(tmp_path).pairs("all") if pair.mask} == {vessels.partition("/")[0]}


def test_splits_whose_masks_are_called_differently_are_asked_about(tmp_path: Path) -> None:
    """DRIVE's test part comes with fields of view alone."""
    for k in (1, 2):
        touch(tmp_path, f"training/images/{k}_training.tif", f"training/1st_manual/{k}_manual1.gif")
        touch(tmp_path, f"test/images/{k}_test.tif", f"test/mask/{k}_test_mask.gif")
    with pytest.raises(DataError, match=r"masks in test/mask/ and in training/1st_manual/; expected the same name"):
        find(tmp_path)
    (tmp_path / "test/mask").rename(tmp_path / "test/fov")
    assert list(find(tmp_path).splits) == ["train"]
    touch(
        tmp_path,
        "other/train/images/a.png",
        "other/train/Mask/a.png",
        "other/val/images/b.png",
        "other/val/masks/b.png",
    )
    assert list(find(tmp_path / "other").splits) == ["train", "val"]


def test_masks_among_the_images_are_not_learnt_from_themselves(tmp_path: Path) -> None:
    touch(tmp_path, *(f"{name}/p{k}/{k}_mask.tif" for name in ("images", "masks") for k in (1, 2)))
    touch(tmp_path, "images/p1/1.tif", "images/p2/2.tif")
    touch(tmp_path, *(f"{name}/{stem}.tif" for name in ("images", "masks") for stem in ("eye", "eye_l", "lone_l")))
    pairs = {sample.name: sample.mask.stem if sample.mask else None for sample in find(tmp_path).splits["all"]}
    own = {"eye": "eye", "eye_l": "eye_l", "lone_l": "lone_l"}
    assert pairs == own | {"p1/1": "1_mask", "p1/1_mask": None, "p2/2": "2_mask", "p2/2_mask": None}


@pytest.mark.parametrize(
    ("folders", "splits"),
    [
        (("train2017", "val2017"), ["train", "val"]),
        (("trainval", "test"), ["train", "test"]),
        (("train_val", "TEST"), ["train", "test"]),
        (("training1", "test"), ["all"]),
    ],
)
def test_splits_of_a_year_and_to_be_divided(folders: tuple[str, str], splits: list[str], tmp_path: Path) -> None:
    for k, folder in enumerate(folders):
        touch(tmp_path, f"images/{folder}/{k}.jpg", f"masks/{folder}/{k}.png")
    assert list(find(tmp_path).splits) == splits


def test_a_test_that_would_be_trained_on_is_told(tmp_path: Path) -> None:
    for k in range(8):
        folder = "test" if k > 4 else "wells"
        save(tmp_path / f"images/{folder}/{k}.png", photo(k))
        save(tmp_path / f"masks/{folder}/{k}.png", disc())
    (told,) = findings(tmp_path).of("split-divided")
    assert told.severity == "warning"
    assert "3 images in test/, divided like all others" in told.message
    for kind in ("images", "masks"):
        (tmp_path / kind / "wells").rename(tmp_path / kind / "train")
    assert not findings(tmp_path).of("split-divided")


@pytest.mark.parametrize(
    ("place", "home"),
    [("{kind}", "{kind}/{split}"), ("train/{kind}", "{split}/{kind}"), ("{kind}/train", "{kind}/{split}")],
)
def test_a_test_by_name_that_would_be_trained_on_is_told(place: str, home: str, tmp_path: Path) -> None:
    """As GlaS comes."""
    for k in range(9):
        name = f"{'train' if k < 6 else 'testA' if k < 8 else 'testB'}_{k}.png"
        save(tmp_path / place.format(kind="images") / name, photo(k))
        save(tmp_path / place.format(kind="masks") / name, disc())
    (told,) = findings(tmp_path).of("split-divided")
    assert told.severity == "warning"
    assert told.message.startswith("3 images called testA* and testB*, divided like all others")
    image_home, mask_home = (home.format(kind=kind, split="test") for kind in ("images", "masks"))
    moved = f"move the images called testA* and testB* to {image_home}/ and their masks to {mask_home}/"
    assert moved in told.remedy
    for kind in ("images", "masks"):
        (tmp_path / home.format(kind=kind, split="train")).mkdir(parents=True, exist_ok=True)
        (tmp_path / home.format(kind=kind, split="test")).mkdir(parents=True, exist_ok=True)
        for path in list((tmp_path / place.format(kind=kind)).glob("*.png")):
            path.rename(tmp_path / home.format(kind=kind, split=path.name.partition("_")[0].rstrip("AB")) / path.name)
    assert not findings(tmp_path).of("split-divided")
    assert len(find(tmp_path).pairs("test")) == 3


def test_a_test_by_a_word_of_its_folder_is_told(tmp_path: Path) -> None:
    for k in range(6):
        folder = "My_Training" if k < 4 else "My_Test"
        save(tmp_path / f"images/{folder}/{k}.png", photo(k))
        save(tmp_path / f"masks/{folder}/{k}.png", disc())
    (told,) = findings(tmp_path).of("split-divided")
    assert sorted(told.files) == ["images/My_Test/4.png", "images/My_Test/5.png"]
    assert "move the images called My_Test/* to images/test/ and their masks to masks/test/" in told.remedy
    assert "all others to images/train/ and masks/train/" in told.remedy


@pytest.mark.parametrize(
    "names", [("train_{}", "train_0{}"), ("{}_test", "{}_sky"), ("test_{}", "contest_{}"), ("Test 1/{}", "Test 2/{}")]
)
def test_names_of_one_split_alone_say_nothing(names: tuple[str, str], tmp_path: Path) -> None:
    for k in range(4):
        for name in names:
            save(tmp_path / f"images/{name.format(k)}.png", photo(k))
            save(tmp_path / f"masks/{name.format(k)}.png", disc())
    assert not findings(tmp_path).of("split-divided")


@pytest.mark.parametrize("further", ["{}_mask_1", "{}_mask-2"])
def test_a_further_mask_of_an_image_is_an_error(further: str, tmp_path: Path) -> None:
    for k in range(3):
        save(tmp_path / f"images/benign ({k}).png", photo(k))
        save(tmp_path / f"masks/benign ({k})_mask.png", disc())
    assert not findings(tmp_path).of("mask-without-image")
    save(tmp_path / f"masks/{further.format('benign (1)')}.png", disc())
    (told,) = findings(tmp_path).of("mask-without-image")
    assert told.severity == "error"
    assert told.message.startswith("1 image with several masks")
    assert "numpy.maximum" in told.remedy


def test_a_mask_whose_image_is_gone_is_none_of_another_where_images_are_numbered(tmp_path: Path) -> None:
    for name in ("a", "a_1", "a_2"):
        save(tmp_path / f"images/{name}.png", photo(len(name)))
        save(tmp_path / f"masks/{name}.png", np.asarray(disc()))
    (tmp_path / "images/a_2.png").unlink()
    (told,) = findings(tmp_path).of("mask-without-image")
    assert told.severity == "warning"


@pytest.mark.parametrize(
    ("image", "mask"), [("2021_field_{}", "2023_field_{}"), ("patient1_slice{}", "patient2_slice{}_seg_v1")]
)
def test_images_and_masks_of_different_numbers_are_not_paired(image: str, mask: str, tmp_path: Path) -> None:
    touch(
        tmp_path, *(f"images/{image.format(k)}.tif" for k in (1, 2)), *(f"masks/{mask.format(k)}.tif" for k in (1, 2))
    )
    with pytest.raises(DataError, match="no name in common"):
        find(tmp_path)


def test_masks_may_be_named_by_the_whole_name_of_their_image(tmp_path: Path) -> None:
    for name in ("p0.jpg", "q0.png", "r.ome.tif"):
        touch(tmp_path, f"images/{name}", f"masks/{name}.png")
    assert [sample.mask.name for sample in find(tmp_path).pairs("all") if sample.mask] == [
        "p0.jpg.png",
        "q0.png.png",
        "r.ome.tif.png",
    ]


@pytest.mark.parametrize(("gone", "paired"), [((2,), 5), ((2, 3), 0)])
def test_a_mask_without_image_does_not_part_the_others(gone: tuple[int, ...], paired: int, tmp_path: Path) -> None:
    touch(tmp_path, *(f"images/image_{k}.png" for k in range(6) if k not in gone))
    touch(tmp_path, *(f"masks/mask_{k}.png" for k in range(6)))
    if not paired:
        with pytest.raises(DataError, match="no name in common"):
            find(tmp_path)
        return
    found = find(tmp_path)
    assert len(found.pairs("all")) == paired
    assert [path.name for path in found.lone_masks] == ["mask_2.png"]


def test_folders_that_were_emptied_are_not_told_of(tmp_path: Path) -> None:
    touch(tmp_path, "images/train/a.png", "masks/train/a.png", "train/_classes.csv", "valid/notes.txt")
    (tmp_path / "images/rest").mkdir()
    assert not find(tmp_path).beside
    touch(tmp_path, "valid/b.png")
    assert [path.name for path in find(tmp_path).beside] == ["valid"]


COUNTED = ("00", "01", "02")


@pytest.mark.parametrize(
    ("names", "given", "remedy"),
    [
        (["images/{}.jpg", "labels/trimaps/{}.png"], "in other folders", "move what is in labels/trimaps/ to labels/"),
        (
            ["images/10k/train/{}.jpg", "labels/colour/train/{}.png", "labels/ids/train/{}.png"],
            "in other folders",
            "move what is in labels/colour/train/ or labels/ids/train/ to labels/10k/train/",
        ),
        (
            ["images/{}.jpg", "masks/road/{}.png", "masks/tree/{}.png"],
            "in other folders",
            "merge the masks of an image into one that has its name, with a value of its own for each class, in masks/",
        ),
        (["images/{}.jpg", "groundTruth/{}.mat"], "3 images and no masks, but 3 .mat files", "write the arrays as PNG"),
        (
            ["images/{}.jpg", "masks/{}_1stHO.png", "masks/{}_2ndHO.png"],
            "no name in common",
            "keep one of *_1stHO.*, *_2ndHO.*",
        ),
        (
            ["images/{}.jpg", "masks/{}/1.png", "masks/{}/2.png"],
            "no name in common",
            "merge the masks of an image into one",
        ),
        (["imagesTr/{}_0000.png", "imagesTr/{}_0001.png", "labelsTr/{}.png"], "no name", "if 2 images are channels of"),
        (
            ["images/{}.jpg", "Annotations/{}.xml", "SegmentationClass/{}.png"],
            "no masks in Annotations/, but SegmentationClass/ beside",
            "rename Annotations/ to outlines/ and SegmentationClass/ to masks/",
        ),
        (
            ["imagesTr/{}.nii.gz", "labelsTr/{}.nii.gz"],
            "no image in them",
            "there are 6 .nii.gz files: write their slices",
        ),
        (
            ["images/train/{}.jpg", "images/val/1{}.jpg", "masks/{}.png", "masks/1{}.png"],
            "masks of the same names in masks/ that are in none",
            "divide masks/ as the images are: masks/train/ and so on",
        ),
        (["labels/{}.png", "images/notes {}.pdf"], "0 images and 3 masks", "copy the images into"),
    ],
)
def test_why_nothing_is_paired_is_told(names: list[str], given: str, remedy: str, tmp_path: Path) -> None:
    touch(tmp_path, *(name.format(k) for name in names for k in COUNTED))
    with pytest.raises(DataError) as told:
        find(tmp_path)
    assert given in told.value.given
    assert remedy in told.value.remedy


@pytest.mark.parametrize(
    ("names", "remedy"),
    [
        (["set/train/images/{}.png", "set/train/masks/{}.png"], "give ROOT/set"),
        (
            ["Tile 1/images/{}.jpg", "Tile 1/masks/{}.png", "Tile 2/images/{}.jpg", "Tile 2/masks/{}.png"],
            "give ROOT/Tile 1, or another like it; or gather all in images/ and masks/, with a folder Tile 1/",
        ),
        (
            ["JPEGImages/{}.jpg", "SegmentationClass/{}.png", "SegmentationObject/{}.png", "Annotations/{}.xml"],
            "move JPEGImages/ to images/ and SegmentationClass/ or SegmentationObject/, the one that has a class a",
        ),
        (["leftImg8bit/train/a/{}_l.png", "gtFine/train/a/{}_ids.png"], "move leftImg8bit/ to images/ and gtFine/ to"),
        (
            ["train/{}.png", "train_labels/{}_L.png", "val/{}.png", "val_labels/{}_L.png"],
            "move train/ to train/images/ and train_labels/ to train/masks/, and the others likewise",
        ),
        (["train/{}_sat.jpg", "train/{}_mask.png", "valid/{}_sat.jpg"], "move *_mask.* to masks/ and the other images"),
        (["{}_img.tif", "{}_img_cp_masks.tif"], "move *_cp_masks.* to masks/ and the other images"),
        (
            ["a ({}).png", "a ({})_mask.png", "a (00)_mask_1.png"],
            "move *_mask.* and *_mask_*.* to masks/ and the other",
        ),
        (
            ["set/{0}/images/{0}.png", "set/{0}/masks/a.png", "set/{0}/masks/b.png"],
            "each image has a folder of its own, with a mask for each object: merge these into one mask",
        ),
        (["a {}.bmp", "a {}_outlined.bmp"], "if *_outlined.* are the masks: move *_outlined.* to masks/"),
        (["volume-{}.nii", "segmentation-{}.nii"], "there are 6 .nii files: write their slices as TIFF"),
        (["{}.zarr/zarr.json", "{}.zarr/0/zarr.json"], "there are 3 .zarr files: write them as TIFF or PNG"),
        (["{}.jpg", "{}.json"], "there are 3 .json files: draw the outlines into masks first"),
        (["train2017/{}.jpg", "annotations/instances.json"], "there is a .json file: draw the outlines"),
        (["cells 1/{}.tif", "cells 2/{}.tif", "README.txt"], "arrange the files so, or give another folder"),
        (["train/{}.png", "test/{}.png"], "arrange the files so, or give another folder"),
    ],
)
def test_what_to_do_with_other_layouts_is_told(names: list[str], remedy: str, tmp_path: Path) -> None:
    touch(tmp_path, *{name.format(k) for name in names for k in COUNTED})
    with pytest.raises(LayoutError) as told:
        find(tmp_path)
    assert told.value.remedy.startswith(remedy.replace("ROOT", str(tmp_path)))


@pytest.mark.parametrize("name", ["train.txt", "ImageSets/Segmentation/val.txt", "splits/test.csv"])
def test_lists_that_are_not_read_are_told_where_nothing_is_divided(name: str, tmp_path: Path) -> None:
    for k in range(6):
        save(tmp_path / f"images/{k}.png", photo(k))
        save(tmp_path / f"masks/{k}.png", disc())
    touch(tmp_path, name, "readme.txt", "splits/notes.txt")
    found = survey(find(tmp_path), workers=1)
    assert not found.beside, "what is not read is no folder of masks that may be meant"
    (told,) = check(found).of("lists")
    assert told.files == (name,)
    assert "move what they name into train/" in told.remedy
    divided = tmp_path / "divided"
    for side in ("train", "val"):
        save(divided / side / "images/a.png", photo(len(side)))
        save(divided / side / "masks/a.png", disc())
    touch(divided, "train.txt")
    assert not check(survey(find(divided), workers=1)).of("lists")


@pytest.mark.parametrize("mask", ["{}.label", "{}.seg", "{}.gt", "{}_seg"])
def test_masks_of_several_suffixes_are_their_images(mask: str, tmp_path: Path) -> None:
    touch(tmp_path, *(f"images/{k}.png" for k in COUNTED), *(f"masks/{mask.format(k)}.png" for k in COUNTED[::2]))
    touch(tmp_path, *(f"masks/{k}_mask.png" for k in COUNTED[1::2]))
    assert all(sample.mask for sample in find(tmp_path).splits["all"])


def test_where_only_a_test_is_found_what_lies_beside_may_be_for_training(tmp_path: Path) -> None:
    for place in ("test", "learn"):
        save(tmp_path / place / "images/a.png", photo(len(place)))
        save(tmp_path / place / "masks/a.png", disc())
    (told,) = check(survey(find(tmp_path), workers=1)).of("beside-splits")
    assert told.files == ("learn",)
    assert "call the folder train/" in told.remedy
