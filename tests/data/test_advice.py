"""Advice on folders laid out otherwise, followed to the letter: then the images have their masks."""

import re
from pathlib import Path

import pytest
from test_layouts import COUNTED, touch

from whatwhere.data import find
from whatwhere.data.folder import LayoutError
from whatwhere.errors import DataError

MOVE = re.compile(
    r"(?:what is in )?(?P<what>.+?)(?P<further>(?: or [^,]+?)*)(?:, the one that [^,]+,)?(?: from (?P<start>\S+)/)?"
    r" (?:to (?P<home>\S+)/|(?P<away>elsewhere))(?:,? and |, |$)"
)


def told(root: Path) -> str:
    with pytest.raises(DataError) as error:
        find(root)
    return error.value.remedy


def follow(root: Path, remedy: str) -> None:
    """Move what is said where it is said; of several the first."""
    text = re.sub(r"^if [^:]+: |^.*?(?=move )|, in folders as now|, and the others likewise.*", "", remedy)
    moves = [match.groupdict() for match in MOVE.finditer(text.removeprefix("move "))]
    assert moves, remedy
    kinds = re.findall(r"\S*\*\S*\*", remedy)
    for move in moves:
        for what in move["what"].split(" and "):
            alike = {"one of these kinds": kinds[:1], "what is left of these": kinds[:2]}.get(what, [what])
            paths = [found for one in alike for found in chosen(root, one, move["start"] or "")]
            assert paths, f"{what} is not there"
            for path, inside in paths:
                target = root / (move["home"] or "../elsewhere") / inside
                target.parent.mkdir(parents=True, exist_ok=True)
                path.rename(target)


def chosen(root: Path, what: str, start: str) -> list[tuple[Path, Path]]:
    """Files that are meant, and what they keep of their paths."""
    is_folder = what.endswith("/")
    place = root / (what if is_folder else start)
    files = sorted(path for path in place.rglob("*") if path.is_file())
    if not is_folder and what != "the other images":
        files = [path for path in files if path.match(what)]
    taken = set() if is_folder or start else {root / "images", root / "masks"}
    return [(path, path.relative_to(place)) for path in files if not taken & set(path.parents)]


FLAT = [
    ["a{}.jpg", "a{}.png"],
    ["a{}.JPG", "a{}.PNG"],
    ["a{}.png", "a{}-mask.png"],
    ["a{}.png", "a{}.mask.png"],
    ["a {}.png", "a {} mask.png"],
    ["s{} (x=0,y=0).jpg", "s{} (x=0,y=0)-labelled.png"],
    ["image_{}.png", "mask_{}.png"],
    ["image{}.png", "mask{}.png"],
    ["{}.png", "mask_{}.png"],
    ["images/a{}.png", "images/mask_a{}.png"],
    ["images/a{}.jpg", "images/a{}.png"],
    ["images/p/a{}.png", "images/p/a{}_mask.png"],
    ["tiles/a{}.jpg", "tiles/a{}-labelled.png"],
    ["Image_{}L.jpg", "Image_{}L_1stHO.png", "Image_{}L_2ndHO.png"],
    ["A1/p{}_rgb.png", "A1/p{}_label.png", "A1/p{}_fg.png", "A1/p{}_centers.png"],
    ["a{}.png", "a{}_mask.png", "a{}_overlay.png"],
    ["{}.bmp", "{}_anno.bmp"],
    ["a_{}_leftImg8bit.png", "a_{}_gtFine_color.png", "a_{}_gtFine_instanceIds.png", "a_{}_gtFine_labelIds.png"],
]


@pytest.mark.parametrize("names", FLAT, ids=" + ".join)
def test_images_and_masks_in_one_folder_are_told_apart(names: list[str], tmp_path: Path) -> None:
    root = touch(tmp_path / "set", *(name.format(k) for name in names for k in COUNTED))
    follow(root, told(root))
    found = find(root)
    assert len(found.pairs("all")) == len(found.splits["all"]) == len(COUNTED)
    assert not found.lone_masks
    for sample in found.pairs("all"):
        assert sample.mask
        assert not re.search("mask|label|gtFine|HO|overlay|anno", sample.image.name)
        assert not re.search("color|overlay|rgb", sample.mask.name)


FOLDERS = [
    (["01/t0{}.tif", "01_GT/SEG/man_seg0{}.tif", "01_GT/TRA/man_track0{}.tif"], [], {"all": 3}),
    (["01/t0{}.tif", "01_GT/SEG/man_seg0{}.tif", "01_ST/SEG/man_seg0{}.tif"], [], {"all": 3}),
    (
        ["01/t0{}.tif", "01_GT/SEG/man_seg0{}.tif", "02/t0{}.tif", "02_GT/SEG/man_seg0{}.tif"],
        [("01", "02")],
        {"all": 6},
    ),
    (
        [
            "training/images/{}.jpg",
            "training/v1.2/labels/{}.png",
            "training/v1.2/instances/{}.png",
            "training/v1.2/panoptic/{}.png",
            "validation/images/9{}.jpg",
            "validation/v1.2/labels/9{}.png",
        ],
        [("training", "validation")],
        {"train": 3, "val": 3},
    ),
    (["imgs_a/{}.jpg", "lbl/labels/{}.png", "lbl/instances/{}.png"], [], {"all": 3}),
    (
        [
            "X_Test_Input/{}.jpg",
            "X_Test_GroundTruth/{}_segmentation.png",
            "X_Training_Input/1{}.jpg",
            "X_Training_GroundTruth/1{}_segmentation.png",
        ],
        [("Training", "Test"), ("train", "test")],
        {"train": 3, "test": 3},
    ),
    (
        [
            "train/train-org-img/{}.jpg",
            "train/train-label-img/{}_lab.png",
            "test/test-org-img/9{}.jpg",
            "test/test-label-img/9{}_lab.png",
        ],
        [("train", "test")],
        {"train": 3, "test": 3},
    ),
    (
        [
            "Train/Rural/images_png/{}.png",
            "Train/Rural/masks_png/{}.png",
            "Train/Urban/images_png/8{}.png",
            "Train/Urban/masks_png/8{}.png",
            "Val/Rural/images_png/7{}.png",
            "Val/Rural/masks_png/7{}.png",
        ],
        [("Rural", "Urban"), ("Train", "Val")],
        {"train": 6, "val": 3},
    ),
    (["Slide_01/{}.png", "GT_01/{}.png", "Slide_02/{}.png", "GT_02/{}.png"], [("01", "02")], {"all": 6}),
    (["MyTest/imgs_x/9{}.png", "MyTest/gt_x/9{}.png", "MyTrain/imgs_x/{}.png", "MyTrain/gt_x/{}.png"],
     [("MyTrain", "MyTest"), ("train", "test")], {"train": 3, "test": 3}),
    (["train_images/{}.jpg", "gt_masks/{}.png"], [], {"train": 3}),
    (["a/{}.jpg", "b/9{}.jpg", "gt_x/{}.png", "gt_x/9{}.png"], [], {"all": 6}),
    (["CXR/{}.png", "ManualMask/labels/{}.png", "ManualMask/labels_viz/{}.png"], [], {"all": 3}),
    (["leftImg8bit/train/a/a_{}_l.png", "gtFine/train/a/a_{}_gt_ids.png"], [], {"train": 3}),
]  # fmt: skip


@pytest.mark.parametrize(("names", "likewise", "splits"), FOLDERS, ids=lambda value: str(value)[:40])
def test_folders_of_images_and_of_their_masks_are_moved(
    names: list[str], likewise: list[tuple[str, str]], splits: dict[str, int], tmp_path: Path
) -> None:
    root = touch(tmp_path / "set", *(name.format(k) for name in names for k in COUNTED))
    remedy = told(root)
    assert ("and the others likewise" in remedy) == bool(likewise)
    follow(root, remedy)
    if len(likewise) == 2 and likewise[0] == ("Rural", "Urban"):  # the second place of the first split
        follow(root, remedy.replace(*likewise[0]))
        likewise = likewise[1:]
    if likewise:
        for one, other in likewise:
            remedy = remedy.replace(one, other)
        follow(root, remedy)
    found = find(root)
    assert {split: len(found.pairs(split)) for split in found.splits} == splits
    assert not found.lone_masks


@pytest.mark.parametrize(
    ("names", "test"),
    [
        (["train/{}.jpg", "test/{}t.jpg", "masks/{}.png", "masks/{}t.png"], "test"),
        (["set/train/images/{}.jpg", "set/test/images/{}t.jpg", "set/masks/{}.png", "set/masks/{}t.png"], "test"),
        (["validation/{}.jpg", "training/{}v.jpg", "Labels/{}_mask.png", "Labels/{}v_mask.png"], "val"),
    ],
)
def test_masks_that_are_to_be_divided_as_the_images_are(names: list[str], test: str, tmp_path: Path) -> None:
    root = touch(tmp_path / "all", *(name.format(k) for name in names for k in COUNTED))
    remedy = told(root)
    moves, home, divided = re.fullmatch(r"move (.*), and divide (\S+)/ likewise: (\S+)/ and so on", remedy).groups()  # type: ignore[union-attr]
    for move in moves.split(" and "):
        start, _, there = move.partition(" to ")
        (root / there).parent.mkdir(parents=True, exist_ok=True)
        (root / start).rename(root / there)
    first = Path(divided)
    for part in (root / first.parent.with_name("images")).iterdir():
        for image in part.iterdir():
            (mask,) = (root / home).glob(f"{image.stem}[._]*")
            target = root / first.parent / part.name / mask.name
            target.parent.mkdir(parents=True, exist_ok=True)
            mask.rename(target)
    found = find(root / first.parent.parent)
    assert {split: len(found.pairs(split)) for split in found.splits} == {"train": len(COUNTED), test: len(COUNTED)}


@pytest.mark.parametrize("given", ["images", "masks"])
def test_a_folder_of_a_data_set_is_no_data_set(given: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    touch(tmp_path, *(f"{kind}/{k}.png" for kind in ("images", "masks") for k in COUNTED))
    monkeypatch.chdir(tmp_path / given)
    for root in (Path(), tmp_path / given):
        assert told(root) == f"give {tmp_path}, which holds images and masks"


@pytest.mark.parametrize(
    ("names", "remedy"),
    [
        (["{}_x/img.png", "{}_x/label.png", "{}_x/label_viz.png"], "each img.png to images/ and each label.png to"),
        (["SegmentationClass/{}.png", "SegmentationObject/{}.png"], "there are masks but no images: copy the images"),
        (["masks/{}.png"], "there are masks but no images: copy the images, named like their masks, to images/"),
        (["SegmentationClass/{}.png", "raw/{}.ppm"], "there are 3 .ppm files: save them as PNG first"),
        (["stare-images/{}.ppm", "labels-ah/{}.ah.ppm"], "there are 6 .ppm files: save them as PNG first"),
        (["train_images/{}.jpg", "train.csv"], "if train.csv holds masks as run lengths, draw them into masks/ first"),
        (["train-volume.tif", "train-labels.TIF", "test-volume.tif"], "write the slices of these stacks"),
        (["CXR/{}.png", "Manual/leftMask/{}.png", "Manual/rightMask/{}.png"], "rightMask/, merged into one mask"),
        (["MyTest/images/{}.png", "MyTest/masks/{}.png", "MyTrain/images/{}.png", "MyTrain/masks/{}.png"],
         "rename MyTrain/ to train/, and the others likewise (to test/)"),
        (["a{}.png", "a{}_overlay.png"], "arrange the files so"),
        (["rgb_x/{}.jpg", "nir_x/{}.jpg", "gt_x/{}.png"], "nir_x/ or rgb_x/, the one that is to be learnt from,"),
    ],
)  # fmt: skip
def test_what_cannot_be_moved_is_told(names: list[str], remedy: str, tmp_path: Path) -> None:
    touch(tmp_path, *{name.format(k) for name in names for k in COUNTED})
    with pytest.raises(LayoutError) as error:
        find(tmp_path)
    assert remedy in error.value.remedy


@pytest.mark.parametrize(
    ("names", "empty", "given", "remedy"),
    [
        (["train/images/{}.jpg", "train/labels/{}.txt"], (), "3 .txt files, which hold outlines", "draw the outlines"),
        (["images/train/{}.jpg", "labels/train/{}.txt"], (), "3 .txt files, which hold outlines", "draw the outlines"),
        (["train/images/{}.jpg"], ("train/masks",), "3 images and no masks", "put them into ROOT/train/masks"),
        (
            ["train/images/{}.png", "train/labels/{}.json", "train/targets/{}_target.png", "test/images/{}.png",
             "test/labels/{}.json", "test/targets/{}_target.png"],
            (), "no masks in train/labels/, but train/targets/ beside",
            "rename train/labels/ to train/outlines/ and train/targets/ to train/masks/, and likewise in the other",
        ),
        (["images/{}.ppm", "labels/{}.ah.ppm"], (), "no image in them", "there are 6 .ppm files: save them as PNG"),
        (["images/{}.jp2", "labels/{}.png"], (), "0 images and 3 masks", "there are 3 .jp2 files: save them"),
        (["images/{}.jpg", "train.csv"], ("masks",), "3 images and no masks", "if train.csv holds masks as run"),
        (["images/{}.jpg", "images/{}_mask.png"], ("masks",), "no masks", "move *_mask.* from images/ to masks/"),
        (["images/train/{}.jpg", "images/train/{}_mask.png"], ("masks",), "no masks",
         "move *_mask.* from images/ to masks/, in folders as now"),
        (["train/images/{}.jpg", "train/images/{}_mask.png"], ("train/masks",), "no masks", "in train/: move *_mask.*"),
        (
            ["images/train/a_{}_leftImg8bit.png", "masks/train/a_{}_gt_color.png", "masks/train/a_{}_gt_ids.png"],
            (), "no name in common", "keep one of *_gt_color.*, *_gt_ids.*, the one that has a class a pixel, and",
        ),
        (
            ["images/{}.png", "masks/task-{}-tag-Cat-0.png", "masks/task-{}-tag-Dog-0.png"],
            (), "no name in common", "merge the masks of an image into one that has its name, with a value of",
        ),
    ],
)  # fmt: skip
def test_why_a_laid_out_folder_has_no_masks(
    names: list[str], empty: tuple[str, ...], given: str, remedy: str, tmp_path: Path
) -> None:
    touch(tmp_path, *{name.format(k) for name in names for k in COUNTED})
    for folder in empty:
        (tmp_path / folder).mkdir(parents=True)
    with pytest.raises(DataError) as error:
        find(tmp_path)
    assert given in error.value.given
    assert remedy.replace("ROOT", str(tmp_path)) in error.value.remedy
    assert "numpy.maximum" not in error.value.remedy
