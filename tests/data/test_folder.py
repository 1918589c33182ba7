"""Finding files and pairing them by name."""

import os
import unicodedata
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from whatwhere.data.check import check
from whatwhere.data.folder import Folder, find, has_pairs, mask_folders
from whatwhere.data.survey import survey
from whatwhere.errors import DataError

LETTERS = st.characters(codec="utf-8", exclude_categories=("Cs", "Cc", "Cn", "Co"), exclude_characters="/\\:\0")


def touch(root: Path, *names: str) -> Path:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(b"")
    return root


def names(folder: Folder, split: str = "all") -> dict[str, str | None]:
    return {s.name: s.mask.name if s.mask else None for s in folder.splits[split]}


def test_pairs_by_stem_whatever_the_ending(tmp_path: Path) -> None:
    touch(
        tmp_path, "images/b c.JPG", "masks/b c.png", "images/a.1.tif", "masks/a.1.PNG", "images/é.webp", "masks/é.tif"
    )
    folder = find(tmp_path)
    assert names(folder) == {"a.1": "a.1.PNG", "b c": "b c.png", "é": "é.tif"}
    assert folder.lone_masks == ()
    assert folder.classes is None


def test_splits_and_their_synonyms(tmp_path: Path) -> None:
    for split in ("Test", "valid", "training"):
        touch(tmp_path, f"{split}/imgs/a.png", f"{split}/labels/a.png")
    assert list(find(tmp_path).splits) == ["train", "val", "test"]


def test_splits_inside_images_and_masks(tmp_path: Path) -> None:
    touch(tmp_path, "images/train/a.png", "masks/train/a.png", "images/val/b.png", "masks/val/b.png")
    folder = find(tmp_path)
    assert {split: [s.name for s in folder.splits[split]] for split in folder.splits} == {"train": ["a"], "val": ["b"]}


def test_split_folders_of_masks_may_be_called_otherwise(tmp_path: Path) -> None:
    touch(tmp_path, "images/Train/a.png", "masks/training/a.png", "images/val/b.png", "masks/validation/b.png")
    folder = find(tmp_path)
    assert {split: names(folder, split) for split in folder.splits} == {"train": {"a": "a.png"}, "val": {"b": "b.png"}}


def test_what_lies_beside_the_split_folders_is_told_and_not_divided_anew(tmp_path: Path) -> None:
    for split in ("train", "val", "test", "train_extra", "@eaDir"):
        touch(tmp_path, f"images/{split}/a.png", f"masks/{split}/a.png")
    touch(tmp_path, "images/loose.png", "images/notes.txt")
    folder = find(tmp_path)
    assert list(folder.splits) == ["train", "val", "test"]
    assert [path.name for path in folder.beside] == ["loose.png", "train_extra"]
    touch(tmp_path, "images/valid/a.png")
    with pytest.raises(DataError, match="two folders for 'val'"):
        find(tmp_path)


def test_links_to_folders_are_followed_but_not_in_circles(tmp_path: Path) -> None:
    touch(tmp_path, "nas/p/a.png", "nas/m/a.png", "data/images/own/b.png", "data/masks/own/b.png")
    for kind, place in (("images", "p"), ("masks", "m")):
        (tmp_path / "data" / kind / "plate").symlink_to(tmp_path / "nas" / place)
        (tmp_path / "data" / kind / "round").symlink_to(tmp_path / "data" / kind)
    assert set(names(find(tmp_path / "data"))) == {"own/b", "plate/a"}


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_folder_that_may_not_be_read(tmp_path: Path) -> None:
    touch(tmp_path, "images/a.png", "masks/a.png", "images/lost/b.png")
    (tmp_path / "images/lost").chmod(0)
    with pytest.raises(DataError, match="lost cannot be opened"):
        find(tmp_path)


def test_a_drive_that_is_gone_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    touch(tmp_path, "images/a.png", "masks/a.png")
    look = Path.iterdir

    def stale(path: Path) -> Iterator[Path]:
        if path.name == "masks":
            raise OSError(116, "Stale file handle", str(path))
        return look(path)

    monkeypatch.setattr(Path, "iterdir", stale)
    with pytest.raises(DataError, match=r"masks cannot be opened \(Stale file handle\); expected a readable folder"):
        find(tmp_path)


def test_links_to_what_is_not_there_are_told_and_not_passed_over(tmp_path: Path) -> None:
    touch(tmp_path, "images/a.png", "masks/a.png", "masks/b.png", "images/c.png")
    (tmp_path / "images/b.png").symlink_to("/nas/b.png")
    (tmp_path / "masks/c.png").symlink_to(tmp_path / "masks/c.png")
    (tmp_path / "images/notes").symlink_to("/nas/notes")
    folder = find(tmp_path)
    assert names(folder) == {"a": "a.png", "b": "b.png", "c": "c.png"}
    assert folder.ignored == ()
    told = {file.name: file.image_error for file in survey(folder).files}
    assert "b.png is a link to /nas/b.png, which does not exist" in told["b"]


@pytest.mark.parametrize(
    ("held", "link"),
    [
        (["train/images/a.png", "train/masks/a.png"], "val"),
        (["images/train/a.png", "masks/train/a.png", "images/val/b.png"], "masks/val"),
        (["images/a.png"], "masks"),
        (["train/images/a.png", "train/masks/a.png", "val/images/b.png"], "val/labels"),
    ],
)
def test_a_link_to_a_folder_that_is_not_there_is_an_error(held: list[str], link: str, tmp_path: Path) -> None:
    touch(tmp_path, *held)
    (tmp_path / link).symlink_to("/nas/gone")
    with pytest.raises(DataError) as told:
        find(tmp_path)
    assert str(told.value).startswith(f"{tmp_path / link} is a link to /nas/gone, which does not exist")
    assert "mount what holds it" in told.value.remedy


def test_a_link_among_images_to_what_is_not_there_is_told(tmp_path: Path) -> None:
    touch(tmp_path, "images/p1/a.png", "masks/p1/a.png")
    for kind in ("images", "masks"):
        (tmp_path / kind / "p2").symlink_to("/nas/p2")
    folder = find(tmp_path)
    assert folder.lost == (tmp_path / "images/p2", tmp_path / "masks/p2")
    assert folder.ignored == ()
    (finding,) = check(survey(folder, workers=1)).of("lost-link")
    assert finding.severity == "warning"
    assert finding.files == ("images/p2", "masks/p2")


def test_an_image_that_is_called_like_a_mask_has_its_own(tmp_path: Path) -> None:
    touch(tmp_path, *(f"images/p{side}.png" for side in ("", "_L", "_r")))
    touch(tmp_path, *(f"masks/p{side}_mask.png" for side in ("", "_L", "_r")))
    folder = find(tmp_path)
    assert names(folder) == {"p": "p_mask.png", "p_L": "p_L_mask.png", "p_r": "p_r_mask.png"}
    assert folder.lone_masks == ()


def test_ome_tiff_is_one_ending(tmp_path: Path) -> None:
    touch(tmp_path, "images/a.ome.tif", "masks/a.tif", "images/b.OME.TIFF", "masks/b_mask.png", "images/c.tif")
    touch(tmp_path, "masks/c.ome.tif")
    folder = find(tmp_path)
    assert names(folder) == {"a": "a.tif", "b": "b_mask.png", "c": "c.ome.tif"}
    assert folder.named == ()


def test_nested_folders_are_mirrored(tmp_path: Path) -> None:
    touch(tmp_path, "images/plate 1/a.png", "masks/plate 1/a.png", "images/plate 2/a.png", "masks/plate 2/a.png")
    assert names(find(tmp_path)) == {"plate 1/a": "a.png", "plate 2/a": "a.png"}


def test_a_suffix_counts_only_without_an_exact_stem(tmp_path: Path) -> None:
    touch(tmp_path, "images/a.png", "images/b.png", "masks/a.png", "masks/a_mask.png", "masks/b_mask.png")
    folder = find(tmp_path)
    assert names(folder) == {"a": "a.png", "b": "b_mask.png"}
    assert [path.name for path in folder.lone_masks] == ["a_mask.png"]


def test_case_counts_only_where_it_tells_images_apart(tmp_path: Path) -> None:
    touch(tmp_path / "one", "images/DSC_1.JPG", "masks/dsc_1.png", "images/b.png", "masks/B_Mask.png")
    assert names(find(tmp_path / "one")) == {"DSC_1": "dsc_1.png", "b": "B_Mask.png"}
    touch(tmp_path / "two", "images/a.png", "images/A.png", "masks/A_mask.png")
    assert names(find(tmp_path / "two")) == {"A": "A_mask.png", "a": None}


def test_unpaired_and_other_files_are_kept_and_hidden_ones_are_not(tmp_path: Path) -> None:
    touch(tmp_path, "images/a.png", "masks/a.png", "images/b.png", "masks/c.png")
    touch(tmp_path, "images/notes.txt", "images/.DS_Store", "images/._a.png", "masks/Thumbs.db")
    folder = find(tmp_path)
    assert names(folder) == {"a": "a.png", "b": None}
    assert [s.name for s in folder.pairs("all")] == ["a"]
    assert folder.pairs("test") == ()
    assert [path.name for path in folder.lone_masks] == ["c.png"]
    assert [path.name for path in folder.ignored] == ["notes.txt"]


def test_accents_pair_however_they_are_written(tmp_path: Path) -> None:
    touch(tmp_path, f"images/{unicodedata.normalize('NFD', 'Zürich')}.png")
    touch(tmp_path, f"masks/{unicodedata.normalize('NFC', 'Zürich')}.png")
    assert list(names(find(tmp_path))) == ["Zürich"]


@given(st.sets(st.text(LETTERS, min_size=1, max_size=20), min_size=1, max_size=6))
@settings(max_examples=60, deadline=None)
def test_odd_names_pair(tmp_path_factory: pytest.TempPathFactory, stems: set[str]) -> None:
    stems = {unicodedata.normalize("NFC", stem) for stem in stems if not stem.startswith(".")}
    stems = {stem for stem in stems if len(stem.encode()) < 240 and stem not in ("", " ")}
    root = tmp_path_factory.mktemp("odd")
    for stem in stems:
        touch(root, f"images/{stem}.png", f"masks/{stem}.TIF")
    if not stems:
        return
    folder = find(root)
    assert {sample.name for sample in folder.pairs("all")} == stems
    assert folder.lone_masks == ()


def test_classes_toml_is_read(good: Path) -> None:
    (good / "classes.toml").write_text("[[class]]\nvalue = 0\n[[class]]\nvalue = 1\nname = 'disc'\n")
    classes = find(good).classes
    assert classes is not None
    assert classes.names == ("class 0", "disc")


@pytest.mark.parametrize("split", ["train", "val"])
def test_classes_toml_of_a_split_counts_for_all(good: Path, split: str) -> None:
    text = "void = [1]\n[[class]]\nvalue = 0\n"
    (good / split / "classes.toml").write_text(text)
    classes = find(good).classes
    assert classes is not None
    assert classes.void == (1,)
    (good / "classes.toml").write_text(text)
    assert find(good).classes == classes
    (good / "classes.toml").write_text("[[class]]\nvalues = [0, 1]\n")
    with pytest.raises(DataError, match=rf"good/classes.toml and \S+{split}/classes.toml list different"):
        find(good)


@pytest.mark.parametrize(
    ("files", "words"),
    [
        ([], r" holds nothing; expected images/ and masks/ with equal file stems, or train/, val/"),
        (["a.png", "b.png", "sub/c.png"], r"holds a.png, b.png, sub/; expected images/"),
        (["images/a.png"], r"holds images/; expected images/ and masks/"),
        (["images/a.npy", "masks/a.npy"], r"no image in them \(2 other files, such as a.npy\)"),
        (
            ["images/a.png", "masks/b.png"],
            r"has 1 images and 1 masks, but no name in common \(images/a.png and masks/b.png\)",
        ),
        (["images/a.png", "images/a.jpg", "masks/a.png"], r"images has a.jpg and a.png; expected one file a name"),
        (
            ["images/p/a.png", "images/p/a.jpg", "masks/p/a.png"],
            r"images has p/a.jpg and p/a.png; expected one file a name",
        ),
        (["val/images/a.png", "val/masks/a.png", "valid/images/a.png", "valid/masks/a.png"], "two folders for 'val'"),
    ],
)
def test_what_is_no_data_folder(tmp_path: Path, files: list[str], words: str) -> None:
    touch(tmp_path, *files)
    with pytest.raises(DataError, match=words):
        find(tmp_path)


def test_missing_folder_and_file(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"gone does not exist; expected a folder with images/ and masks/"):
        find(tmp_path / "gone")
    np.save(tmp_path / "x.npy", np.zeros(1))
    with pytest.raises(DataError, match=r"x.npy is a file"):
        find(tmp_path / "x.npy")


def test_a_name_that_is_no_text_is_refused(tmp_path: Path) -> None:
    touch(tmp_path, "images/a.png", "masks/a.png")
    (tmp_path / os.fsdecode(b"images/gr\xfcn.png")).touch()
    with pytest.raises(DataError, match=r"can't be written down: gr.*n.png"):
        find(tmp_path)


def test_folders_named_like_a_split_that_are_not_used_are_told(tmp_path: Path) -> None:
    touch(tmp_path, "train/images/a.png", "train/masks/a.png", "val/images/b.png", "val/mask_png/b.png")
    folder = find(tmp_path)
    assert list(folder.splits) == ["train"]
    assert [path.name for path in folder.beside] == ["val"], "its masks are not found, and it is no val"
    touch(tmp_path / "other", "images/a.png", "masks/a.png", "test/images/c.png", "test/masks/c.png")
    assert [path.name for path in find(tmp_path / "other").beside] == ["test"]


def test_masks_with_an_ending_of_their_own_in_any_case(tmp_path: Path) -> None:
    touch(tmp_path, "images/ISIC_1.jpg", "masks/ISIC_1_segmentation.png", "images/0001.png", "masks/0001_L.png")
    touch(tmp_path, "images/B.png", "masks/B_MASK.png")
    assert names(find(tmp_path)) == {"0001": "0001_L.png", "B": "B_MASK.png", "ISIC_1": "ISIC_1_segmentation.png"}


@pytest.mark.parametrize("ending", ["txt", "json", "xml", "geojson"])
def test_outlines_instead_of_masks_are_told(ending: str, tmp_path: Path) -> None:
    touch(tmp_path, "images/a.jpg", "images/b.jpg", f"labels/a.{ending}", f"labels/b.{ending}")
    with pytest.raises(
        DataError, match=rf"2 images and no masks, but 2 .{ending} files, which hold outlines; expected a"
    ):
        find(tmp_path)


def test_zarr_images_are_told_to_be_painted_only(tmp_path: Path) -> None:
    of_one = ("zarr.json", "c/0/0", "c/0/1")
    touch(tmp_path, *(f"{kind}/{name}.zarr/{part}" for kind in ("images", "masks") for name in "ab" for part in of_one))
    with pytest.raises(DataError, match=r"4 other files, such as a\.zarr\).*write them as TIFF or PNG files first"):
        find(tmp_path)
    touch(tmp_path, "images/c.png", "masks/c.png")
    assert len(find(tmp_path).ignored) == 4


def test_two_folders_of_masks_are_asked_about(tmp_path: Path) -> None:
    """DRIVE has fields of view beside its vessels: whoever learns those is right everywhere and knows nothing."""
    for split in ("training", "test"):
        touch(tmp_path, f"{split}/images/21.tif", f"{split}/1st_manual/21.gif", f"{split}/mask/21_mask.gif")
    with pytest.raises(DataError, match=r"test holds mask/ and 1st_manual/, all with images.*fov/"):
        find(tmp_path)
    assert not has_pairs(tmp_path)
    assert not has_pairs(tmp_path / "test")
    both = ("test/mask", "test/1st_manual", "training/mask", "training/1st_manual")
    assert set(mask_folders(tmp_path)) == {tmp_path / name for name in both}, "whoever paints wants neither"
    for split in ("training", "test"):
        (tmp_path / split / "mask").rename(tmp_path / split / "fov")
    assert has_pairs(tmp_path)
    folder = find(tmp_path)
    assert names(folder, "train") == {"21": "21.gif"}
    assert [path.parent.name + "/" + path.name for path in folder.beside] == ["test/fov", "training/fov"]
    touch(tmp_path / "outlines", "images/a.png", "masks/a.png", "labels/a.txt")
    assert names(find(tmp_path / "outlines")) == {"a": "a.png"}, "labels/ holds no image"


@pytest.mark.parametrize(
    ("images", "masks"),
    [
        (["21_training.tif", "22_training.tif"], ["21_manual1.gif", "22_manual1.gif"]),
        (["case_009_0000.png", "case_010_0000.png"], ["case_009.png", "case_010.png"]),
        (["image_000.png", "image_100.png"], ["mask_000.png", "mask_100.png"]),
        (["b/a_1_leftImg8bit.png", "c/a_2_leftImg8bit.png"], ["b/a_1_gtFine_ids.png", "c/a_2_gtFine_ids.png"]),
        (["img1.png", "img12.png"], ["seg1.png", "seg12.png"]),
    ],
)
def test_names_are_paired_by_what_is_their_own(images: list[str], masks: list[str], tmp_path: Path) -> None:
    touch(tmp_path, *(f"images/{name}" for name in images), *(f"masks/{name}" for name in masks))
    folder = find(tmp_path)
    pairs = {sample.image: sample.mask for sample in folder.splits["all"] if sample.mask}
    assert pairs == {tmp_path / "images" / one: tmp_path / "masks" / other for one, other in zip(images, masks)}
    assert folder.named == (tmp_path / "images" / images[0], tmp_path / "masks" / masks[0])


@pytest.mark.parametrize(
    ("images", "masks"),
    [
        (["case_0_0000.png", "case_0_0001.png"], ["case_0.png", "case_1.png"]),  # two channels of one image
        (["a_1.png", "a_2.png"], ["b_3.png", "b_4.png"]),
        (["a_1.png", "a_2.png"], ["b_1.png", "b_2.png", "b_3.png"]),
        (["cat.png"], ["mask.png"]),
        ([f"img_{k}.png" for k in range(9)], [f"mask_{k}.png" for k in range(1, 10)]),  # of which is mask_1?
    ],
)
def test_names_with_nothing_of_their_own_in_common_are_not_paired(
    images: list[str], masks: list[str], tmp_path: Path
) -> None:
    touch(tmp_path, *(f"images/{name}" for name in images), *(f"masks/{name}" for name in masks))
    with pytest.raises(DataError, match="no name in common"):
        find(tmp_path)


def test_the_folders_of_nnu_net_are_known(tmp_path: Path) -> None:
    touch(tmp_path, "imagesTr/a_01_0000.png", "imagesTr/a_02_0000.png", "labelsTr/a_01.png", "labelsTr/a_02.png")
    assert len(find(tmp_path).pairs("all")) == 2


def test_a_folder_of_pairs_beside_train_and_val_is_told(tmp_path: Path) -> None:
    touch(tmp_path, "train/images/a.png", "train/masks/a.png", "dev/images/b.png", "dev/masks/b.png")
    assert [path.name for path in find(tmp_path).beside] == ["dev"]
