"""Every finding: a folder in which it fires, and an ordinary one in which it does not."""

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import tifffile
from numpy.typing import NDArray
from PIL import Image
from scipy import ndimage
from tiny_folders import Pair, disc, photo, save, write_folder

from whatwhere.data import Findings, check, find, split, survey
from whatwhere.errors import DataError
from whatwhere.verbs import plan

DATA = Path(__file__).parents[3] / "shared" / "data"
TOML = "[[class]]\nvalue = 0\nname = 'ground'\n[[class]]\nvalue = 1\nname = 'disc'\n"


def findings(root: Path) -> Findings:
    return check(survey(find(root)))


def unreadable_image(root: Path) -> None:
    (root / "train/images/00.png").write_text("I am text")


def unreadable_mask(root: Path) -> None:
    data = (root / "train/masks/00.png").read_bytes()
    (root / "train/masks/00.png").write_bytes(data[:60])


def size_mismatch(root: Path) -> None:
    save(root / "train/masks/00.png", disc()[:30])


def bare_cube(root: Path) -> None:
    """Of 200 bands, written without naming the axes."""
    (root / "train/images/00.png").unlink()
    cube = np.random.default_rng(0).integers(0, 256, (64, 64, 200), np.uint8)
    tifffile.imwrite(root / "train/images/00.tif", cube, photometric="minisblack")
    save(root / "train/masks/00.png", disc(size=(64, 64)))


def swapped_sides(root: Path) -> None:
    save(root / "train/masks/00.png", disc().T)


def turned_photo(root: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 3
    Image.open(root / "train/images/00.png").rotate(180).save(root / "train/images/00.png", exif=exif)


def split_without_masks(root: Path) -> None:
    (root / "val/masks").rename(root / "val/mask_png")


def no_mask(root: Path) -> None:
    (root / "val/masks/12.png").unlink()


def no_image(root: Path) -> None:
    (root / "val/images/12.png").unlink()


def too_many_colors(root: Path) -> None:
    save(root / "train/masks/00.png", np.random.default_rng(0).integers(0, 256, (48, 64, 3), np.uint8))


def unknown_value(root: Path) -> None:
    (root / "classes.toml").write_text(TOML)
    save(root / "train/masks/00.png", disc() * np.uint8(2))


def soft_and_declared(root: Path) -> None:
    (root / "classes.toml").write_text(TOML.replace("value = 1", "value = 255"))
    blur_masks(root)


def blur_masks(root: Path) -> None:
    for path in root.glob("*/masks/*.png"):
        truth = np.asarray(Image.open(path)) * 255.0
        save(path, ndimage.gaussian_filter(truth, 1).round().astype(np.uint8))


def channels_differ(root: Path) -> None:
    save(root / "train/images/00.png", photo(0)[:, :, 0])


def depth_differs(root: Path) -> None:
    (root / "train/images/00.png").unlink()
    tifffile.imwrite(root / "train/images/00.tif", photo(0).astype(np.uint16) * 257, photometric="rgb")


def tiny(root: Path) -> None:
    save(root / "train/images/00.png", photo(0)[:1, :1])
    save(root / "train/masks/00.png", np.zeros((1, 1), np.uint8))


def no_usable(root: Path) -> None:
    for path in root.glob("train/masks/*"):
        path.write_text("broken")


def one_class(root: Path) -> None:
    for path in root.glob("*/masks/*"):
        save(path, disc() * 0)


def object_numbers(root: Path, least: int = 9) -> None:
    for k, path in enumerate(sorted(root.glob("*/masks/*"))):
        mask = np.zeros((48, 64), np.uint8)
        for number in range(least + k % 3):
            mask[4 * number : 4 * number + 3, 10:20] = number + 1
        save(path, mask)


def few_object_numbers(root: Path) -> None:
    object_numbers(root, least=4)


def missing_class(root: Path) -> None:
    save(root / "train/masks/00.png", disc() * np.uint8(2))


def unused_class(root: Path) -> None:
    (root / "classes.toml").write_text(TOML + "[[class]]\nvalue = 2\nname = 'moon'\n")


def rare_class(root: Path) -> None:
    for path in root.glob("*/masks/*"):
        mask = np.array(Image.open(path))
        mask[0, :4] = 2
        save(path, mask)


def erased_stroke(root: Path) -> None:
    rgba = np.zeros((48, 64, 4), np.uint8)
    rgba[disc() > 0] = 255, 0, 0, 255
    rgba[:5, :5] = 255, 0, 0, 0
    save(root / "train/masks/00.png", rgba)


def labels_in_alpha(root: Path) -> None:
    for path in root.glob("*/masks/*"):
        white = np.full((48, 64, 3), 255, np.uint8)
        save(path, np.dstack([white, np.asarray(Image.open(path)) * np.uint8(255)]))


def inverted_mask(root: Path) -> None:
    for path in sorted(root.glob("*/masks/*")):
        mask = np.asarray(Image.open(path)) * np.uint8(255)
        save(path, mask)
    path.unlink()
    tifffile.imwrite(path.with_suffix(".tif"), mask, photometric="miniswhite")


def copy_across(root: Path) -> None:
    shutil.copy(root / "train/images/00.png", root / "val/images/12.png")
    shutil.copy(root / "train/masks/00.png", root / "val/masks/12.png")


def near_copy_across(root: Path) -> None:
    Image.open(root / "train/images/00.png").save(root / "val/images/12.jpg", quality=60)
    (root / "val/images/12.png").unlink()


def copy_within(root: Path) -> None:
    shutil.copy(root / "train/images/00.png", root / "train/images/01.png")
    shutil.copy(root / "train/masks/00.png", root / "train/masks/01.png")


def copy_with_another_mask(root: Path) -> None:
    shutil.copy(root / "train/images/00.png", root / "train/images/01.png")


def one_image(root: Path) -> None:
    for path in (root / "train").glob("*/*"):
        if path.stem != "00":
            path.unlink()


def few_images(root: Path) -> None:
    for path in (root / "train").glob("*/*"):
        if path.stem > "04":
            path.unlink()


def empty_mask(root: Path) -> None:
    save(root / "train/masks/00.png", disc() * 0)


def mostly_empty(root: Path) -> None:
    for k in range(10):
        save(root / f"train/masks/{k:02}.png", disc() * 0)


def void_mask(root: Path) -> None:
    (root / "classes.toml").write_text("void = [9]\n" + TOML)
    save(root / "train/masks/00.png", disc() * 0 + np.uint8(9))


def mostly_255(root: Path) -> None:
    """Cats and dogs, and all else 255."""
    for path in sorted(root.glob("*/masks/*")):
        mask = np.where(disc() > 0, 0, 255).astype(np.uint8)
        mask[:8, :9] = 1
        save(path, mask)


def training_without_masks(root: Path) -> None:
    (root / "train/masks").rename(root / "train/drawn")


def constant_image(root: Path) -> None:
    save(root / "train/images/00.png", photo(0) * 0 + np.uint8(7))


def _as_floats(path: Path, image: NDArray[np.float64]) -> None:
    tifffile.imwrite(path.with_suffix(".tif"), image, photometric="minisblack", planarconfig="contig")
    path.unlink()


def constant_float_image(root: Path) -> None:
    _as_floats(root / "train/images/00.png", np.full((48, 64, 3), 0.1))


def constant_float_channel(root: Path) -> None:
    for path in root.glob("*/images/*"):
        image = np.asarray(Image.open(path)) / 255
        _as_floats(path, np.dstack([image, np.full((48, 64), 0.1)]))


def decibels(root: Path) -> None:
    for path in root.glob("*/images/*"):
        _as_floats(path, np.asarray(Image.open(path)) / -10)


def black_image(root: Path) -> None:
    save(root / "train/images/00.png", photo(0) // 60)


def opaque_alpha(root: Path) -> None:
    for path in root.glob("*/images/*"):
        image = np.asarray(Image.open(path))
        save(path, np.concatenate([image, np.full((48, 64, 1), 255, np.uint8)], 2))


def twelve_bits(root: Path) -> None:
    for path in root.glob("*/images/*"):
        save(path, np.asarray(Image.open(path))[:, :, 0].astype(np.uint16) * 16 + 15)


def other_files(root: Path) -> None:
    (root / "train/images/notes.docx").write_text("x")


def slices_as_mask(root: Path) -> None:
    (root / "train/masks/00.png").unlink()
    stack = np.stack([disc(), disc(), disc()])
    tifffile.imwrite(root / "train/masks/00.tif", stack, imagej=True, metadata={"axes": "ZYX"})


def fractions(root: Path) -> None:
    (root / "train/masks/00.png").unlink()
    tifffile.imwrite(root / "train/masks/00.tif", disc().astype(np.float32) / 3)


def photographs_as_masks(root: Path) -> None:
    for side in ("train", "val"):
        (root / side / "masks").rename(root / side / "other")
        (root / side / "images").rename(root / side / "masks")
        (root / side / "other").rename(root / side / "images")


def left_and_right(root: Path) -> None:
    for path in sorted(root.glob("*/masks/*")):
        path.rename(path.with_stem(f"{path.stem}_L"))
        save(path.with_stem(f"{path.stem}_R"), disc())


def jpeg_2000(root: Path) -> None:
    path = root / "val/images/12.png"
    path.rename(path.with_suffix(".jp2"))


def a_class_in_a_folder(root: Path) -> None:
    for path in sorted(root.glob("*/masks/*")):
        save(path.parent / "nucleus" / path.name, disc())


def other_names(root: Path) -> None:
    for path in sorted(root.glob("*/*/*")):
        path.rename(path.with_stem(path.stem + ("_training" if path.parent.name == "images" else "_manual1")))


def untold_missing_data(root: Path) -> None:
    for path in sorted(root.glob("*/images/*")):
        image = np.asarray(Image.open(path))[:, :, 0].astype(np.float32) / 255
        image[:3, :5] = -9999
        tifffile.imwrite(path.with_suffix(".tif"), image)
        path.unlink()


def untold_fill_values(root: Path) -> None:
    """NetCDF's, beside which all else is small."""
    for path in sorted(root.glob("*/images/*")):
        image = np.asarray(Image.open(path))[:, :, 0].astype(np.float32) / 255
        image[:3, :5] = 9.96921e36
        tifffile.imwrite(path.with_suffix(".tif"), image)
        path.unlink()


def numbers_with_gaps(root: Path) -> None:
    for k, path in enumerate(sorted(root.glob("*/masks/*"))):
        mask = np.zeros((48, 64), np.uint8)
        for number in range(9):
            mask[4 * number : 4 * number + 3, 10:20] = 1 + (7 * k + 11 * number) % 200
        save(path, mask)


def ids_resized_with_smoothing(root: Path) -> None:
    for path in root.glob("*/masks/*"):
        truth = disc() * 2.0 + disc(row=20, column=24, radius=4) * 2
        save(path, ndimage.zoom(truth[::2, ::2], 2, order=1).round().astype(np.uint8))


FIRES: list[tuple[Callable[[Path], None], str, str, list[str]]] = [
    (
        unreadable_image,
        "error",
        "unreadable-image",
        ["1 image cannot be used", "is not an image", "-> remove it"],
    ),
    (unreadable_mask, "error", "unreadable-mask", ["1 mask cannot be used", "damaged", "train/masks/00.png"]),
    (size_mismatch, "error", "size-mismatch", ["1 mask of another size", "48 x 64, its mask 30 x 64", "-> export"]),
    (bare_cube, "error", "size-mismatch", ["64 x 200 with 64 channels, its mask 64 x 64", "planarconfig='contig'"]),
    (swapped_sides, "error", "size-mismatch", ["48 x 64, its mask 64 x 48", "EXIF"]),
    (
        turned_photo,
        "warning",
        "turned",
        ["1 photograph stored turned or mirrored", "EXIF", "train/images/00.png", "-> look"],
    ),
    (split_without_masks, "warning", "beside-splits", ["1 folder or images that lie beside", "val"]),
    (training_without_masks, "error", "no-usable", ["only val/ was found", "-> put images/ and masks/ into train/"]),
    (mostly_255, "warning", "mostly-255", ["does not count", "of the pixels", "if it is the background"]),
    (no_mask, "warning", "image-without-mask", ["1 image without a mask, left out", "val/images/12.png"]),
    (jpeg_2000, "warning", "mask-without-image", ["1 mask without an image", "such as val/images/12.jp2, as PNG"]),
    (no_image, "warning", "mask-without-image", ["1 mask without an image, left out", "val/masks/12.png"]),
    (too_many_colors, "error", "mapping", ["cannot be inferred", "different colours", "train/masks/00.png"]),
    (unknown_value, "error", "unknown-value", ["00.png has", "pixels of value 2 in no class", "-> list the values"]),
    (soft_and_declared, "error", "unknown-value", ["16 masks with values", "nearest = true in classes.toml"]),
    (blur_masks, "warning", "soft-mask", ["16 masks with", "values along edges beside the 2 of the classes"]),
    (channels_differ, "error", "channels-differ", ["1 have 1 channel, 15 have 3 channels", "train/images/00.png"]),
    (depth_differs, "error", "depth-differs", ["15 have uint8", "-> convert these to uint8, as the others"]),
    (tiny, "error", "tiny", ["1 image under 16 pixels a side, such as 1 x 1", "-> remove"]),
    (no_usable, "error", "no-usable", ["No training image can be used together with its mask"]),
    (one_class, "error", "one-class", ["a single class (class 0)", "nothing to tell apart"]),
    (object_numbers, "warning", "object-numbers", ["12 mask values look like numbers of single objects", "(mask > 0)"]),
    (few_object_numbers, "warning", "object-numbers", ["The 7 mask values look like numbers of single objects"]),
    (
        missing_class,
        "warning",
        "class-missing",
        ["Missing from val: class 2; there it can only be painted wrongly", "-> move images that show them to val/"],
    ),
    (erased_stroke, "warning", "transparent-mask", ["1 mask with a colour that is transparent", "train/masks/00.png"]),
    (labels_in_alpha, "error", "one-class", ["a single class (class 255)", "by alpha", "-> save the masks without"]),
    (inverted_mask, "warning", "inverted-mask", ["1 mask in which 0 is white", "15 in which", "val/masks/15.tif and"]),
    (unused_class, "warning", "class-unused", ["No mask shows moon"]),
    (rare_class, "warning", "rare-class", ["Rare in training: class 2 (0.13 % of the pixels, in 12 images)"]),
    (copy_across, "warning", "duplicate-across-splits", ["1 image also in another split", "val/images/12.png"]),
    (near_copy_across, "warning", "near-duplicate-across-splits", ["1 image nearly the same", "train/images/00.png"]),
    (copy_within, "note", "duplicate", ["1 image twice in one split", "train/images/01.png"]),
    (copy_with_another_mask, "warning", "masks-disagree", ["1 image more than once, with different masks"]),
    (one_image, "warning", "one-image", ["a single training image", "-> add images"]),
    (few_images, "note", "few-images", ["only 5 training images"]),
    (empty_mask, "note", "empty-mask", ["1 mask of background alone", "train/masks/00.png"]),
    (mostly_empty, "warning", "empty-mask", ["10 masks of background alone", "and 6 more"]),
    (void_mask, "warning", "void-mask", ["1 mask with ignored (void) pixels only"]),
    (constant_image, "warning", "constant-image", ["1 image of a single value", "train/images/00.png"]),
    (constant_float_image, "warning", "constant-image", ["1 image of a single value", "train/images/00.tif"]),
    (black_image, "warning", "black-image", ["1 image nearly black", "3 % of the brightest"]),
    (opaque_alpha, "note", "constant-channel", ["Channel 4 of 4 is constant", "alpha channel"]),
    (constant_float_channel, "note", "constant-channel", ["Channel 4 of 4 is constant"]),
    (twelve_bits, "note", "bits-used", ["use 12 bits (largest value ", "nothing is lost"]),
    (slices_as_mask, "error", "unreadable-mask", ["3 planes", "an image and a mask each"]),
    (
        fractions,
        "error",
        "unreadable-mask",
        ["no whole numbers, such as 0.333333", "-> write one whole number a pixel"],
    ),
    (photographs_as_masks, "error", "mapping", ["masks look like photographs", "swapped"]),
    (left_and_right, "error", "mask-without-image", ["16 images with two masks, left and right", "-> merge the two"]),
    (a_class_in_a_folder, "warning", "mask-without-image", ["16 images with another mask in a folder", "-> merge the"]),
    (other_names, "note", "names-differ", ["train/images/00_training.png, train/masks/00_manual1.png"]),
    (untold_missing_data, "warning", "missing-data", ["16 images with the value -9999", "GDAL no-data tag"]),
    (untold_fill_values, "error", "missing-data", ["16 images with the value 9.96921e+36", "GDAL no-data tag"]),
    (numbers_with_gaps, "warning", "object-numbers", ["look like numbers of single objects, not classes: each is one"]),
    (ids_resized_with_smoothing, "warning", "blurred-ids", ["class 1, class 3: only lines", "nearest neighbour"]),
    (other_files, "note", "ignored", ["1 file of a kind that is not read", "notes.docx"]),
]


@pytest.mark.parametrize(
    ("spoil", "severity", "code", "words"), FIRES, ids=lambda value: getattr(value, "__name__", "")
)
def test_it_fires(good: Path, spoil: Callable[[Path], None], severity: str, code: str, words: list[str]) -> None:
    spoil(good)
    found = findings(good)
    (finding,) = found.of(code)
    assert finding.severity == severity
    for word in words:
        assert word in str(finding)
    assert found.fatal or severity != "error"


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_images_with_the_limits_of_floats_cannot_be_trained_on_and_all_else_is_told(good: Path, dtype: str) -> None:
    for path in sorted(good.glob("*/images/*")):
        image = np.asarray(Image.open(path)).astype(dtype)
        image[:15, :20] = np.finfo(dtype).min
        tifffile.imwrite(path.with_suffix(".tif"), image, photometric="rgb")
        path.unlink()
    save(good / "train/masks/03.png", disc()[:30])
    found = findings(good)
    assert [item.code for item in found.items if item.severity == "error"] == ["size-mismatch", "missing-data"]
    assert "-> name it in the files' GDAL no-data tag" in str(found.of("missing-data")[0])
    assert found.of("classes")
    assert found.of("sizes")
    (good / "train/masks/03.png").unlink()
    with pytest.raises(DataError, match=r"15 images with the value -.*no data, and no tag says so"):
        plan(good, epochs=1)


def test_copies_are_counted_within_each_split(good: Path) -> None:
    for name in ("train/images/03", "train/images/07", "val/images/12", "val/images/15"):
        save(good / f"{name}.png", photo(0))
    (finding,) = findings(good).of("duplicate")
    assert finding.files == tuple(f"{name}.png" for name in ("train/images/03", "train/images/07", "val/images/15"))


def test_blank_images_of_both_sides_are_no_copies(good: Path) -> None:
    for name in ("train/images/03", "train/images/04", "val/images/12"):
        save(good / f"{name}.png", np.zeros((48, 64, 3), np.uint8))
    found = findings(good)
    assert found.of("constant-image")[0].count == 3
    assert not found.of("duplicate-across-splits")


def test_classes_of_one_area_each_are_no_numbers_of_objects(good: Path) -> None:
    """Organs: as many in each image, or one without the one before it."""
    for lacking in ((), (1,)):
        for k, path in enumerate(sorted(good.glob("*/masks/*"))):
            mask = np.zeros((48, 64), np.uint8)
            for number in range(1, 5):
                mask[10 * number : 10 * number + 6, 10:20] = number if k or number not in lacking else 0
            save(path, mask)
        assert not findings(good).of("object-numbers")


def test_images_of_8_bits_are_not_called_black_beside_deeper_ones(good: Path) -> None:
    depth_differs(good)
    found = findings(good)
    assert found.of("depth-differs")
    assert not found.of("black-image")


def test_what_a_division_by_whatwhere_leaves_out_cannot_be_moved(tmp_path: Path) -> None:
    pairs: dict[str, Pair] = {f"{k}": (photo(k), disc(12 + k)) for k in range(8)}
    pairs["0"] = (photo(0), disc() * np.uint8(2))
    folder = find(write_folder(tmp_path, pairs))
    seen = survey(folder)
    (finding,) = check(seen.divided(split(folder, seen))).of("class-missing")
    assert "Missing from val: class 2" in finding.message
    assert finding.remedy == "add images that show them; whatwhere divided the folder"


def test_nothing_below_0_is_called_black(good: Path) -> None:
    decibels(good)
    assert not findings(good).of("black-image")


def test_names_that_are_no_text_are_told_in_such_as_are(good: Path) -> None:
    for name in (b"train/images/Notiz \xfc.txt", b"test \xfc/images/a.png", b"test \xfc/masks/a.png"):
        path = good / os.fsdecode(name)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    found = findings(good)
    assert [item.files for item in found.of("ignored")] == [(r"train/images/Notiz \udcfc.txt",)]
    assert [item.files for item in found.of("beside-splits")] == [(r"test \udcfc",)]
    for text in (str(found), json.dumps(found.to_json(), ensure_ascii=False)):
        assert text.encode("utf-8")


def test_one_image_beside_a_val_is_not_validated_on(good: Path) -> None:
    one_image(good)
    (finding,) = findings(good).of("one-image")
    assert "validated on" not in str(finding)
    shutil.rmtree(good / "val")
    (finding,) = findings(good).of("one-image")
    assert "it is validated on too" in str(finding)


def test_an_ordinary_folder_has_but_the_three_summaries(good: Path) -> None:
    found = findings(good)
    assert [item.code for item in found.items] == ["sizes", "classes", "objects"]
    assert not found.fatal
    text = str(found)
    assert "16 images (12 train, 4 val) of 48 x 64 pixels, 3 channels, uint8" in text
    assert "2 classes (inferred from the masks; name them in classes.toml)" in text
    assert "foreground    8.2 %  mask value 1" in text
    assert "16 areas, typically 19 px long" in text
    assert text.endswith("0 errors, 0 warnings, 3 notes")


def test_summaries_need_something_to_sum_up(good: Path) -> None:
    for path in good.glob("*/*/*"):
        path.write_text("broken")
    codes = [item.code for item in findings(good).items]
    assert codes == ["unreadable-image", "unreadable-mask", "no-usable"]


def test_all_at_once_the_worst_first_and_as_json(good: Path) -> None:
    for spoil in (unreadable_image, no_image, other_files, copy_within):
        spoil(good)
    (good / "train/masks/05.png").unlink()
    found = findings(good)
    order = [item.severity for item in found.items]
    assert order == sorted(order, key=["error", "warning", "note"].index)
    assert {"unreadable-image", "mask-without-image", "image-without-mask", "ignored"} <= {i.code for i in found.items}
    record = json.loads(json.dumps(found.to_json()))
    assert record["fatal"]
    assert record["findings"][0]["code"] == "unreadable-image"
    assert record["findings"][0]["count"] == 2


def test_declared_classes_and_void_are_shown(good: Path) -> None:
    (good / "classes.toml").write_text("void = [9]\n" + TOML)
    mask = disc()
    mask[:12] = 9
    save(good / "train/masks/00.png", mask)
    text = str(findings(good).of("classes")[0])
    assert "2 classes (from classes.toml)" in text
    assert "(does not count)    1.6 %  mask value 9" in text


def test_colors_are_shown_as_hex(tmp_path: Path) -> None:
    palette = np.array([[0, 0, 0], [255, 128, 0]], np.uint8)
    root = write_folder(tmp_path, {f"{k}": (photo(k), palette[disc()]) for k in range(3)})
    assert "mask value #ff8000" in str(findings(root).of("classes")[0])


def test_a_division_of_its_own_has_no_leaks(tmp_path: Path) -> None:
    pairs = {f"{k:02}": (photo(k // 2), disc(12 + k // 2)) for k in range(20)}  # each image twice
    folder = find(write_folder(tmp_path, pairs))
    seen = survey(folder)
    divided = seen.divided(split(folder, seen))
    assert set(divided.splits) == {"train", "val"}
    codes = {item.code for item in check(divided).items}
    assert "duplicate" in codes
    assert not {"duplicate-across-splits", "near-duplicate-across-splits", "class-missing"} & codes


def test_what_a_division_leaves_out_is_missing_from_no_split(tmp_path: Path) -> None:
    pairs = {f"{k:02}": (photo(k), disc(12 + k)) for k in range(10)}
    root = write_folder(tmp_path, pairs)
    shutil.copy(root / "images/00.png", root / "images/copy.png")
    save(root / "images/empty.png", photo(11))
    save(root / "masks/empty.png", disc()[:20] * 0)
    folder = find(root)
    seen = survey(folder)
    divided = seen.divided(split(folder, seen))
    assert "all" in divided.splits
    codes = {item.code for item in check(divided).items}
    assert {"image-without-mask", "size-mismatch"} <= codes
    assert not {"class-missing", "duplicate-across-splits"} & codes


@pytest.mark.slow
@pytest.mark.skipif(not DATA.is_dir(), reason="the real data sets are not beside the project")
@pytest.mark.parametrize(
    ("name", "expected"), [("cats", {"masks-disagree"}), ("camvid", set()), ("isbi_membrane", set())]
)
def test_real_data_raise_no_false_alarm(name: str, expected: set[str]) -> None:
    found = findings(DATA / name)
    assert {item.code for item in found.items if item.severity != "note"} == expected
