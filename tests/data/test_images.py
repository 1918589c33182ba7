"""Reading and writing: every kind of file to the array it means, every damaged one to a clear error."""

import os
import resource
import signal
import struct
import zlib
from contextlib import closing
from pathlib import Path
from typing import Any

import imagecodecs
import numpy as np
import pytest
import tifffile
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image, ImageOps
from tiny_folders import save

from tiny import png_header
from whatwhere.data.folder import Sample
from whatwhere.data.images import (
    image_size,
    read_image,
    read_image_and_valid,
    read_mask,
    read_mask_and_palette,
    read_mask_and_tags,
)
from whatwhere.data.label_images import write_label_image
from whatwhere.data.sets import read_pair
from whatwhere.errors import DataError, OutputError
from whatwhere.paint.tiff import TiffSource
from whatwhere.records import VOID, Classes

RANDOM = np.random.default_rng(0)
GRAY = RANDOM.integers(0, 256, (12, 17), np.uint8)
RGB = RANDOM.integers(0, 256, (12, 17, 3), np.uint8)
DEEP = RANDOM.integers(0, 65536, (12, 17), np.uint16)
THREE = Classes(("sky", "road", "car"), ((10, 20, 30), (200, 0, 0), (0, 200, 0)), ((0,), (1,), (2,)))


@pytest.mark.parametrize("ending", ["png", "tif", "bmp", "PNG", "webp"])
@pytest.mark.parametrize("array", [GRAY, RGB], ids=["gray", "rgb"])
def test_lossless_files_give_their_pixels(tmp_path: Path, ending: str, array: NDArray[np.uint8]) -> None:
    path = tmp_path / f"a.{ending}"
    Image.fromarray(array).save(path, **({"lossless": True} if ending == "webp" else {}))
    expected = array[:, :, None] if array.ndim == 2 else array
    if ending == "webp" and array.ndim == 2:  # WebP has no grey
        expected = np.repeat(expected, 3, 2)
    got = read_image(path)
    assert got.dtype == np.uint8
    assert np.array_equal(got, expected)
    assert image_size(path) == (12, 17)


@pytest.mark.parametrize("ending", ["png", "tif"])
def test_sixteen_bits_are_kept(tmp_path: Path, ending: str) -> None:
    Image.fromarray(DEEP).save(tmp_path / f"a.{ending}")
    assert np.array_equal(read_image(tmp_path / f"a.{ending}")[:, :, 0], DEEP)
    assert np.array_equal(read_mask(tmp_path / f"a.{ending}"), DEEP)


@pytest.mark.parametrize("channels", [2, 3, 4])
def test_sixteen_bit_color_png_is_not_cut_to_eight(tmp_path: Path, channels: int) -> None:
    array = RANDOM.integers(0, 65536, (9, 7, channels), np.uint16)
    (tmp_path / "a.png").write_bytes(imagecodecs.png_encode(array))
    assert np.array_equal(read_image(tmp_path / "a.png"), array)


def test_jpeg_is_near_and_upright(tmp_path: Path) -> None:
    smooth = np.add.outer(np.arange(40), np.arange(60)).astype(np.uint8) * 2
    for orientation in range(1, 9):
        exif = Image.Exif()
        exif[0x0112] = orientation
        path = tmp_path / f"{orientation}.jpg"
        Image.fromarray(smooth).save(path, quality=95, exif=exif)
        with Image.open(path) as picture:
            expected = np.asarray(ImageOps.exif_transpose(picture))
        assert np.array_equal(read_image(path)[:, :, 0], expected), orientation
        assert image_size(path) == expected.shape


@pytest.mark.parametrize("ending", ["tif", "png"])
def test_lossless_orientation_is_honoured(tmp_path: Path, ending: str) -> None:
    for orientation in range(1, 9):
        exif = Image.Exif()
        exif[0x0112] = orientation
        turned = tmp_path / "a.png"
        Image.fromarray(GRAY).save(turned, exif=exif)
        with Image.open(turned) as picture:  # Pillow itself turns some TIFFs wrongly
            expected = np.asarray(ImageOps.exif_transpose(picture))
        if ending == "tif":
            turned = tmp_path / "a.tif"
            tifffile.imwrite(turned, GRAY, extratags=[(274, "H", 1, orientation, True)])
        assert np.array_equal(read_image(turned)[:, :, 0], expected), orientation
        assert np.array_equal(read_mask(turned), expected), orientation
        assert image_size(turned) == expected.shape


def test_what_a_png_says_behind_its_pixels_turns_neither_them_nor_their_size(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    said = b"eXIf" + exif.tobytes().removeprefix(b"Exif\0\0")
    path = tmp_path / "a.png"
    Image.fromarray(GRAY).save(path)
    whole = path.read_bytes()
    chunk = struct.pack(">I", len(said) - 4) + said + struct.pack(">I", zlib.crc32(said))
    path.write_bytes(whole[:-12] + chunk + whole[-12:])
    assert image_size(path) == read_image(path).shape[:2] == read_mask(path).shape == GRAY.shape
    assert np.array_equal(read_image(path)[:, :, 0], GRAY)


@pytest.mark.parametrize("count", [2, 3, 5, 12])
@pytest.mark.parametrize("layout", ["planar", "pages", "contiguous", "bare"])
def test_many_channels_come_last(tmp_path: Path, count: int, layout: str) -> None:
    array = RANDOM.integers(0, 4096, (20, 31, count), np.uint16)
    path = tmp_path / "a.tif"
    if layout == "planar":
        tifffile.imwrite(path, np.moveaxis(array, 2, 0), planarconfig="separate", photometric="minisblack")
    elif layout == "pages":
        tifffile.imwrite(path, np.moveaxis(array, 2, 0), photometric="minisblack")
    elif layout == "contiguous":
        tifffile.imwrite(path, array, planarconfig="contig", photometric="minisblack")
    else:
        tifffile.imwrite(path, array, photometric="minisblack")
    assert np.array_equal(read_image(path), array)
    assert image_size(path) == (20, 31)


def test_pages_are_channels_however_many(tmp_path: Path) -> None:
    pages = RANDOM.integers(0, 256, (40, 12, 17), np.uint8)
    first, *others = map(Image.fromarray, pages)
    first.save(tmp_path / "a.tif", save_all=True, append_images=others)
    assert np.array_equal(read_image(tmp_path / "a.tif"), np.moveaxis(pages, 0, -1))
    assert image_size(tmp_path / "a.tif") == (12, 17)


def test_big_endian_and_float_tiffs(tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "big.tif", DEEP, byteorder=">")
    got = read_image(tmp_path / "big.tif")
    assert got.dtype == np.dtype("uint16")
    assert np.array_equal(got[:, :, 0], DEEP)
    floats = RANDOM.normal(size=(5, 6)).astype(np.float32)
    tifffile.imwrite(tmp_path / "float.tif", floats)
    assert np.array_equal(read_image(tmp_path / "float.tif")[:, :, 0], floats)


def test_palette_png_is_rgb_as_image_and_indices_as_mask(tmp_path: Path) -> None:
    indices = RANDOM.integers(0, 4, (6, 8), np.uint8)
    palette = np.array([[0, 0, 0], [255, 0, 0], [0, 255, 0], [9, 8, 7]], np.uint8)
    picture = Image.fromarray(indices)
    picture.putpalette(palette.tobytes())
    picture.save(tmp_path / "a.png")
    assert np.array_equal(read_image(tmp_path / "a.png"), palette[indices])
    mask, colors = read_mask_and_palette(tmp_path / "a.png")
    assert np.array_equal(mask, indices)
    assert colors is not None
    assert np.array_equal(colors[:4], palette)


@given(st.lists(st.tuples(*[st.integers(0, 255)] * 3), min_size=2, max_size=256))
@settings(deadline=None, max_examples=30)
@pytest.mark.parametrize("by", ["Pillow", "tifffile"])  # times 256, and times 257
def test_palettes_of_tiffs_are_the_colours_that_were_given(tmp_path_factory: Any, by: str, colors: Any) -> None:
    path, indices = tmp_path_factory.getbasetemp() / f"{by}.tif", GRAY % len(colors)
    palette = np.zeros((256, 3), np.uint8)
    palette[: len(colors)] = colors
    if by == "Pillow":
        picture = Image.fromarray(indices).convert("P")
        picture.putpalette(palette.tobytes())
        picture.save(path)
    else:
        tifffile.imwrite(path, indices, photometric="palette", colormap=palette.T.astype(np.uint16) * 257)
    assert np.array_equal(read_image(path), palette[indices])


@pytest.mark.parametrize("values", [(0, 1), (0, 1, 2), (0, 2), (2,), (0, 255), (0, 128, 255), (3, 7)])
def test_a_grey_gif_is_the_greys_that_it_shows(tmp_path: Path, values: tuple[int, ...]) -> None:
    """Whatever indices it was given: programs leave out those that a file does not use."""
    gray = RANDOM.choice(np.array(values, np.uint8), (20, 30))
    Image.fromarray(gray).save(tmp_path / "a.gif")
    mask, palette = read_mask_and_palette(tmp_path / "a.gif")
    assert np.array_equal(mask, gray)
    assert palette is None
    assert np.array_equal(read_image(tmp_path / "a.gif"), gray[..., None])


def test_a_coloured_gif_is_its_colours_and_one_of_their_greys_alone_is_grey(tmp_path: Path) -> None:
    colors = np.array([[255, 255, 255], [255, 0, 0], [128, 128, 128]], np.uint8)
    for name, ids in {"all": RANDOM.integers(0, 3, (20, 30), np.uint8), "one": np.zeros((20, 30), np.uint8)}.items():
        picture = Image.fromarray(ids)
        picture.putpalette(colors.tobytes())
        picture.save(tmp_path / f"{name}.gif")
        mask, palette = read_mask_and_palette(tmp_path / f"{name}.gif")
        assert palette is None
        assert np.array_equal(mask, colors[ids] if name == "all" else colors[ids][..., 0])
    assert read_image(tmp_path / "all.gif").shape == (20, 30, 3)


@pytest.mark.parametrize("ending", ["png", "tif"])
def test_one_bit_is_black_and_white(tmp_path: Path, ending: str) -> None:
    bits = RANDOM.random((7, 9)) < 0.5
    Image.fromarray(bits).save(tmp_path / f"a.{ending}")
    assert np.array_equal(read_image(tmp_path / f"a.{ending}")[:, :, 0], bits * 255)
    assert np.array_equal(read_mask(tmp_path / f"a.{ending}"), bits * 255)


@pytest.mark.parametrize("pages", [2, 3, 5])
def test_a_stack_of_one_bit_pages_is_refused_as_a_mask(tmp_path: Path, pages: int) -> None:
    stack = RANDOM.random((pages, 7, 9)) < 0.5
    tifffile.imwrite(tmp_path / "a.tif", stack, photometric="minisblack")
    with pytest.raises(DataError, match=rf"a.tif has {pages} planes; .*argmax"):
        read_mask(tmp_path / "a.tif")


def test_alpha_is_a_channel_of_an_image_and_dropped_from_a_mask(tmp_path: Path) -> None:
    rgba = np.concatenate([RGB, GRAY[:, :, None]], 2)
    Image.fromarray(rgba).save(tmp_path / "a.png")
    assert np.array_equal(read_image(tmp_path / "a.png"), rgba)
    assert np.array_equal(read_mask(tmp_path / "a.png"), RGB)


def _stroke(color: tuple[int, ...], below: tuple[int, ...], *, alpha: int = 255) -> NDArray[np.uint8]:
    """A stroke with a soft end on nothing, and an erased one of another colour."""
    rgba = np.zeros((20, 30, 4), np.uint8)
    rgba[5:9, 5:20], rgba[5:9, 20], rgba[12:15] = (*color, alpha), (*color, 90), (*below, 0)
    return rgba


@pytest.mark.parametrize(
    ("rgba", "hides"),
    [
        (_stroke((255, 0, 0), (0, 0, 0)), False),
        (_stroke((255, 0, 0), (255, 0, 0)), True),
        (_stroke((0, 0, 0), (0, 0, 0)), True),
        (_stroke((255, 0, 0), (0, 0, 255)), False),
        (_stroke((255, 0, 0), (255, 0, 0)) | np.uint8([0, 0, 0, 255]), False),
    ],
    ids=["plain", "erased", "black", "another", "opaque"],
)
def test_where_alpha_tells_apart_what_colour_does_not_is_said(
    tmp_path: Path, rgba: NDArray[np.uint8], hides: bool
) -> None:
    Image.fromarray(rgba).save(tmp_path / "a.png")
    mask, _, tags = read_mask_and_tags(tmp_path / "a.png")
    assert np.array_equal(mask, rgba[..., :3] if rgba[..., :3].any() else rgba[..., 0])
    assert tags.hides == hides


@pytest.mark.parametrize("count", [2, 4])
@pytest.mark.parametrize("planar", ["contig", "separate"])
def test_no_plane_of_a_mask_is_lost_but_alpha_and_what_is_constant(tmp_path: Path, planar: str, count: int) -> None:
    planes = RANDOM.integers(0, 2, (12, 17, count), np.uint8)
    left = planes[:, :, 0] if count == 2 else planes[:, :, :3]
    path = tmp_path / "a.tif"

    def write(array: NDArray[Any], **tags: Any) -> None:
        stored = array if planar == "contig" else np.moveaxis(array, -1, 0)
        tifffile.imwrite(path, stored, photometric="minisblack", planarconfig=planar, **tags)

    write(planes)
    with pytest.raises(DataError, match=rf"a.tif has {count} channels; expected a mask of one channel .*argmax"):
        read_mask(path)
    write(planes, extrasamples=[0] * (count - 2) + [2])
    assert np.array_equal(read_mask(path), left)
    planes[:, :, -1] = 255
    write(planes)
    assert np.array_equal(read_mask(path), left)


def test_alpha_of_a_tiff_is_dropped_from_a_mask(tmp_path: Path) -> None:
    Image.fromarray(np.concatenate([RGB, GRAY[:, :, None]], 2)).save(tmp_path / "a.tif")
    assert np.array_equal(read_mask(tmp_path / "a.tif"), RGB)


def test_gray_stored_as_color_is_a_gray_mask(tmp_path: Path) -> None:
    Image.fromarray(np.stack([GRAY] * 3, 2)).save(tmp_path / "a.png")
    assert np.array_equal(read_mask(tmp_path / "a.png"), GRAY)


def test_whole_floats_are_a_mask_and_fractions_are_not(tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "whole.tif", np.array([[0, 1], [2, 0]], np.float32))
    assert read_mask(tmp_path / "whole.tif").tolist() == [[0, 1], [2, 0]]
    tifffile.imwrite(tmp_path / "part.tif", np.array([[0, 0.37], [1, 0]], np.float32))
    with pytest.raises(DataError, match=r"part.tif has 1 values that are no whole numbers, such as 0.37; .*class ids"):
        read_mask(tmp_path / "part.tif")


def test_one_pixel(tmp_path: Path) -> None:
    for ending in ("png", "tif", "jpg"):
        Image.fromarray(np.full((1, 1, 3), 77, np.uint8)).save(tmp_path / f"a.{ending}")
        assert read_image(tmp_path / f"a.{ending}").shape == (1, 1, 3)


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("text.png", b"hello world, I am text", r"text.png is not an image \(it begins with b'hello world,'\)"),
        ("void.png", b"", r"void.png is 0 bytes"),
        ("riff.webp", b"RIFF\x00\x00\x00\x00WAVEfmt ", r"riff.webp is not an image"),
        ("head.png", b"\x89PNG\r\n\x1a\n", r"head.png is damaged"),
        ("head.tif", b"II*\0", r"head.tif is damaged"),
    ],
)
def test_what_is_no_image(tmp_path: Path, name: str, content: bytes, words: str) -> None:
    (tmp_path / name).write_bytes(content)
    for read in (read_image, read_mask, image_size):
        with pytest.raises(DataError, match=words):
            read(tmp_path / name)


def test_an_image_for_which_there_is_no_memory_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Such as a damaged one that asks for more than any machine has."""

    def full(*_: object) -> None:
        raise MemoryError("Unable to allocate 5 EiB")

    tifffile.imwrite(tmp_path / "a.tif", np.zeros((9, 9), np.uint8))
    monkeypatch.setattr("whatwhere.data.images._decode_tiff", full)
    with pytest.raises(DataError, match=r"no memory for .*a\.tif \(MemoryError: Unable to allocate 5 EiB\)"):
        read_image(tmp_path / "a.tif")


def test_missing_and_folder(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"none.png does not exist; expected an image file; check the path"):
        read_image(tmp_path / "none.png")
    with pytest.raises(DataError, match="cannot be opened"):
        read_image(tmp_path)
    (tmp_path / "link.png").symlink_to("nas/a.png")
    with pytest.raises(DataError, match=r"link.png is a link to nas/a.png, which does not exist; expected an image"):
        read_image(tmp_path / "link.png")


@pytest.mark.parametrize("ending", ["jpg", "png", "tif", "webp", "bmp"])
@pytest.mark.parametrize("share", [0.3, 0.6, 0.95])
def test_truncated_files_name_themselves(tmp_path: Path, ending: str, share: float) -> None:
    array = RANDOM.integers(0, 256, (80, 90, 3), np.uint8)
    path = tmp_path / f"cut.{ending}"
    Image.fromarray(array).save(path)
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * share)])
    with pytest.raises(DataError, match=rf"cut.{ending} is (damaged or )?incomplete"):
        read_image(path)


def test_decompression_bomb_is_refused_from_the_header(tmp_path: Path) -> None:
    path = tmp_path / "bomb.png"
    path.write_bytes(png_header(30_000, 30_000))
    words = r"bomb.png is 30,000 x 30,000 pixels; expected at most 200,000,000 .*save it as a tiled TIFF"
    with pytest.raises(DataError, match=words):
        read_image(path)
    assert image_size(path) == (30_000, 30_000)


def test_limit_counts_a_stack_and_can_be_raised(tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "a.tif", np.zeros((8, 40, 50), np.uint8), photometric="minisblack")
    with pytest.raises(DataError, match="40 x 50 pixels x 8 channels"):
        read_image(tmp_path / "a.tif", max_pixels=3999)
    assert read_image(tmp_path / "a.tif", max_pixels=4000).shape == (40, 50, 8)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_nan_names_count_and_place(tmp_path: Path, bad: float) -> None:
    array = np.zeros((6, 7), np.float32)
    array[2, 5] = array[4, 1] = bad
    tifffile.imwrite(tmp_path / "nan.tif", array)
    with pytest.raises(DataError, match=r"nan.tif has 2 values that are NaN or infinite, the first at row 2, column 5"):
        read_image(tmp_path / "nan.tif")


def test_volumes_and_one_hot_masks_are_refused(tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "four.tif", np.zeros((3, 4, 20, 20), np.uint8), photometric="minisblack")
    with pytest.raises(DataError, match=r"four.tif holds axes \w+ of 3x4x20x20"):
        read_image(tmp_path / "four.tif")
    tifffile.imwrite(tmp_path / "hot.tif", np.zeros((6, 20, 20), np.uint8), photometric="minisblack")
    with pytest.raises(DataError, match=r"hot.tif has 6 planes; .*argmax"):
        read_mask(tmp_path / "hot.tif")


@given(st.integers(1, 40), st.integers(1, 40), st.sampled_from([".png", ".tif"]), st.integers(0, 2**32 - 1))
@settings(max_examples=40, deadline=None)
def test_label_images_read_back(
    tmp_path_factory: pytest.TempPathFactory, h: int, w: int, ending: str, seed: int
) -> None:
    labels = np.random.default_rng(seed).choice(np.array([0, 1, 2, 255], np.uint8), (h, w))
    path = tmp_path_factory.mktemp("labels") / f"ä b{ending}"
    write_label_image(path, labels, THREE)
    assert np.array_equal(read_mask(path), labels)
    shown = np.asarray(Image.open(path).convert("RGB"))
    assert np.array_equal(shown, np.array([*THREE.colors, *[(0, 0, 0)] * 252, (128, 128, 128)])[labels])


def test_unwritable_places(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    labels = np.zeros((4, 4), np.uint8)
    with pytest.raises(OutputError, match=r"a.png can't be written .*choose another place"):
        write_label_image(tmp_path / "file" / "a.png", labels, THREE)
    with pytest.raises(OutputError, match=r"a.jpg cannot hold labels; expected a name ending with .png or .tif"):
        write_label_image(tmp_path / "a.jpg", labels, THREE)
    with pytest.raises(ValueError, match="expected HxW uint8"):
        write_label_image(tmp_path / "a.png", labels[None], THREE)


@pytest.mark.parametrize("ending", ["png", "tif"])
def test_full_disk_leaves_the_old_file_and_nothing_else(tmp_path: Path, ending: str) -> None:
    path = tmp_path / f"a.{ending}"
    write_label_image(path, np.zeros((4, 4), np.uint8), THREE)
    before = path.read_bytes()
    noise = RANDOM.integers(0, 3, (400, 400), np.uint8)
    ignored = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    limit = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, limit[1]))  # as a full disk: writes fail half-way
    try:
        with pytest.raises(OutputError, match=rf"a.{ending} can't be written \(File too large\)"):
            write_label_image(path, noise, THREE)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limit)
        signal.signal(signal.SIGXFSZ, ignored)
    assert path.read_bytes() == before
    assert [entry.name for entry in tmp_path.iterdir()] == [path.name]


@pytest.mark.parametrize(
    ("dtype", "missing", "lacking"), [("uint8", 0, False), ("uint16", 0, True), ("float32", -9999.0, True)]
)
def test_where_a_tiff_has_no_data_is_the_mean_and_void(
    tmp_path: Path, dtype: str, missing: float, lacking: bool
) -> None:
    image = np.random.default_rng(0).integers(1, 200, (20, 30, 3)).astype(dtype)
    image[:5] = missing
    image[10, 10, 0] = missing  # one channel alone
    tifffile.imwrite(tmp_path / "a.tif", image, photometric="rgb", extratags=[(42113, "s", 0, f"{missing:g}", False)])
    found, valid = read_image_and_valid(tmp_path / "a.tif")
    assert valid is not None
    assert not valid[:5].any()
    assert valid[10, 10] != lacking
    np.testing.assert_array_equal(found[valid], image[valid])
    np.testing.assert_allclose(found[0, 0], image[valid].mean(0), atol=1)
    save(tmp_path / "a.png", np.ones((20, 30), np.uint8))
    classes = Classes(("ground", "thing"), ((0, 0, 0), (255, 0, 0)), ((0,), (1,)))
    _, labels = read_pair(Sample("a", tmp_path / "a.tif", tmp_path / "a.png"), classes)
    np.testing.assert_array_equal(labels == VOID, ~valid)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("sign", [1, -1])
@pytest.mark.parametrize("tag", ["3.4028234663852886e+38", "3.40282e+38", "1.7976931348623157e+308", "1.79769e+308"])
def test_where_no_data_is_a_limit_of_floats_its_tag_may_be_rounded(
    tmp_path: Path, dtype: str, sign: int, tag: str
) -> None:
    """Or be the limit of a wider float."""
    image = np.random.default_rng(0).normal(size=(8, 9)).astype(dtype)
    image[:2] = sign * (float(np.finfo(dtype).max) if "308" in tag else float(np.finfo("float32").max))
    text = f"{'-' if sign < 0 else ''}{tag}"
    tifffile.imwrite(tmp_path / "a.tif", image, extratags=[(42113, "s", 0, text, False)])
    found, valid = read_image_and_valid(tmp_path / "a.tif")
    assert valid is not None
    assert not valid[:2].any()
    assert valid[2:].all()
    np.testing.assert_array_equal(found[2:, :, 0], image[2:])


def test_usual_numbers_mean_no_data_only_where_they_are_the_tags(tmp_path: Path) -> None:
    image = np.float32([[0.1, np.nextafter(np.float32(0.1), np.float32(1))], [-9999, -9999.01]])
    for place, tag in (((0, 0), "0.1"), ((1, 0), "-9999")):
        tifffile.imwrite(tmp_path / "a.tif", image, extratags=[(42113, "s", 0, tag, False)])
        valid = read_image_and_valid(tmp_path / "a.tif")[1]
        assert valid is not None
        assert [tuple(where) for where in np.argwhere(~valid).tolist()] == [place]


def test_no_data_may_be_nan(tmp_path: Path) -> None:
    image = np.ones((8, 8), np.float32)
    image[:2] = np.nan
    tifffile.imwrite(tmp_path / "a.tif", image, extratags=[(42113, "s", 0, "nan", False)])
    assert (read_image(tmp_path / "a.tif") == 1).all()
    tifffile.imwrite(tmp_path / "b.tif", image, extratags=[(42113, "s", 0, "none", False)])
    with pytest.raises(DataError, match="NaN"):
        read_image(tmp_path / "b.tif")


def test_a_mask_may_say_where_nothing_is_known(tmp_path: Path) -> None:
    mask = np.zeros((6, 6), np.float32)
    mask[:2], mask[2:4, 3:] = np.nan, 1
    tifffile.imwrite(tmp_path / "a.tif", mask, extratags=[(42113, "s", 0, "nan", False)])
    assert np.unique(read_mask(tmp_path / "a.tif")).tolist() == [-1, 0, 1]
    tifffile.imwrite(tmp_path / "b.tif", mask)
    with pytest.raises(DataError, match=r"12 values that are NaN.*write a number of its own there, such as 255"):
        read_mask(tmp_path / "b.tif")


@pytest.mark.parametrize("array", [GRAY, DEEP, GRAY > 100], ids=["8 bits", "16 bits", "1 bit"])
def test_where_0_is_white_numbers_grow_with_brightness_all_the_same(tmp_path: Path, array: NDArray[Any]) -> None:
    """As scanners write, and fax compression is mostly used; by Pillow's reading too."""
    bright, dark = tmp_path / "bright.tif", tmp_path / "dark.tif"
    tifffile.imwrite(bright, array, photometric="minisblack")
    stored = ~array if array.dtype == bool else np.iinfo(array.dtype).max - array
    tifffile.imwrite(dark, stored, photometric="miniswhite", software="a scanner's")
    assert np.array_equal(read_image(dark), read_image(bright))
    assert np.array_equal(read_mask(dark), read_mask(bright))
    if array.dtype != np.uint16:  # which Pillow leaves as it is stored
        with Image.open(dark) as picture:
            assert np.array_equal(np.asarray(picture), array)


@pytest.mark.parametrize("count", [2, 3, 4, 7])
@pytest.mark.parametrize("axes", ["ZYX", "TYX", "pages"])
def test_a_stack_of_slices_is_no_coloured_mask(tmp_path: Path, axes: str, count: int) -> None:
    stack = RANDOM.integers(0, 3, (count, 24, 32), np.uint8)
    named = {} if axes == "pages" else {"imagej": True, "metadata": {"axes": axes}}
    tifffile.imwrite(tmp_path / "a.tif", stack, photometric="minisblack", **named)
    with pytest.raises(DataError, match=rf"a.tif has {count} planes; expected a mask of one channel"):
        read_mask(tmp_path / "a.tif")


def test_colours_in_planes_are_a_coloured_mask(tmp_path: Path) -> None:
    planes = np.moveaxis(RGB, -1, 0)
    tifffile.imwrite(tmp_path / "planes.tif", planes, photometric="rgb", planarconfig="separate")
    tifffile.imwrite(tmp_path / "plain.tif", RGB, photometric="rgb")
    tifffile.imwrite(tmp_path / "unnamed.tif", RGB, photometric="minisblack", planarconfig="contig")
    for name in ("planes", "plain", "unnamed"):
        assert np.array_equal(read_mask(tmp_path / f"{name}.tif"), RGB)


def test_a_mask_of_truths_that_tifffile_wrote_is_as_it_was(tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "a.tif", GRAY > 100)
    assert np.array_equal(read_mask(tmp_path / "a.tif"), (GRAY > 100) * np.uint8(255))


def test_a_palette_of_two_colours_in_one_bit(tmp_path: Path) -> None:
    path, red = tmp_path / "a.tif", np.array([[0, 255], [0, 0], [0, 0]], np.uint16) * 257
    objects = np.arange(40).reshape(5, 8) % 3 == 0
    tifffile.imwrite(path, objects, photometric="minisblack", extratags=[(320, "H", 6, red.ravel().tolist(), True)])
    with tifffile.TiffFile(path, mode="r+b") as tif:
        tif.pages[0].tags["PhotometricInterpretation"].overwrite(3)  # type: ignore[union-attr]
    mask, palette = read_mask_and_palette(path)
    np.testing.assert_array_equal(mask, objects)
    assert palette is not None
    assert palette[:2].tolist() == [[0, 0, 0], [255, 0, 0]]
    np.testing.assert_array_equal(read_image(path), np.dstack([objects * 255, objects * 0, objects * 0]))


def test_a_palette_of_two_bytes_is_read_whole(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    palette, indices = (rng.integers(0, 65536, shape).astype(np.uint16) for shape in ((3, 65536), (40, 50)))
    tifffile.imwrite(tmp_path / "a.tif", indices, photometric="palette", colormap=palette)
    np.testing.assert_array_equal(read_image(tmp_path / "a.tif"), (palette.T >> 8).astype(np.uint8)[indices])


def test_a_palette_that_has_no_data_at_an_index_lacks_it_whole_and_by_windows(tmp_path: Path) -> None:
    indices = RANDOM.integers(0, 4, (40, 50), np.uint8)
    colors = np.zeros((3, 256), np.uint16)
    colors[:, :4] = [[0, 257 * 9, 257 * 80, 257 * 255]] * 3
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, indices, photometric="palette", colormap=colors, extratags=[(42113, "s", 0, "3", True)])
    _, valid = read_image_and_valid(path)
    assert valid is not None
    np.testing.assert_array_equal(valid, indices != 3)
    with closing(TiffSource(path)) as source:
        _, by_windows = source.read(((0, 40), (0, 50)))
    np.testing.assert_array_equal(by_windows, valid)


def test_black_and_white_of_16_bits_in_three_channels_is_that_of_coloured_fellows(tmp_path: Path) -> None:
    plain, coloured = np.zeros((8, 9, 3), np.uint16), np.zeros((8, 9, 3), np.uint16)
    plain[:4], coloured[:4], coloured[6:, :, 0] = 65535, 65535, 65535
    for name, pixels in {"plain": plain, "coloured": coloured}.items():
        tifffile.imwrite(tmp_path / f"{name}.tif", pixels, photometric="rgb")
    assert np.unique(read_mask(tmp_path / "plain.tif")).tolist() == [0, 255]
    assert np.unique(read_mask(tmp_path / "coloured.tif").reshape(-1, 3), axis=0).tolist() == [
        [0, 0, 0], [255, 0, 0], [255, 255, 255],
    ]  # fmt: skip
    ids = np.stack([RANDOM.integers(0, 3000, (8, 9), np.uint16)] * 3, -1)
    tifffile.imwrite(tmp_path / "ids.tif", ids, photometric="rgb")
    assert np.array_equal(read_mask(tmp_path / "ids.tif"), ids[..., 0])


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="there are no pipes with a name")
@pytest.mark.timeout(60)
@pytest.mark.parametrize("name", ["a.png", "a.tif"])
def test_a_pipe_is_not_waited_for(name: str, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / name)
    for read in (read_image, image_size):
        with pytest.raises(DataError, match=rf"{name} is a pipe; expected an image file; write it into a file"):
            read(tmp_path / name)
