"""What image files say beside their pixels: where there is no data, how large a pixel is, and which image is meant."""

from __future__ import annotations

import copy
import hashlib
import importlib
import logging
import multiprocessing
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from enum import Enum
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
import torch
import zarr
from painting import large_above, model_of, picture, unet, whole_logits
from PIL import Image
from torch import Tensor, nn

from whatwhere.data import read_image
from whatwhere.data.images import image_size, read_image_and_valid
from whatwhere.errors import DataError, OutputError, PlanError
from whatwhere.network import Mirrored, Model
from whatwhere.paint import Engine, paint, predict, prove
from whatwhere.paint.claims import TakenError, claimed, discard
from whatwhere.paint.digest import digest_of
from whatwhere.paint.files import find_images, open_image
from whatwhere.paint.ledger import Ledger
from whatwhere.paint.outputs import Options, names
from whatwhere.paint.scale import pixel_size
from whatwhere.paint.sources import Reading
from whatwhere.paint.tiff import TiffSource
from whatwhere.paint.tiles import Tiling
from whatwhere.paint.work import read_tile


@pytest.fixture(scope="module")
def engine() -> Engine:
    return Engine(model_of(unet()), "float32")


# -- no data -----------------------------------------------------------------------------------------------------------


def test_tiles_that_a_file_leaves_out_hold_no_data(tmp_path: Path, engine: Engine) -> None:
    """As scanners write slides: nothing where there is no tissue."""
    image = picture(130, 200)
    image[64:128, 64:128] = 0

    def tiles() -> Any:
        for y in range(0, 130, 64):
            for x in range(0, 200, 64):
                tile = np.zeros((64, 64, 3), np.uint8)
                part = image[y : y + 64, x : x + 64]
                tile[: part.shape[0], : part.shape[1]] = part
                yield None if (y, x) == (64, 64) else tile

    with tifffile.TiffWriter(tmp_path / "s.tif") as writer:
        writer.write(
            tiles(), shape=image.shape, dtype=np.uint8, tile=(64, 64), photometric="rgb", compression="zlib",
            metadata=None,
        )  # fmt: skip
    with closing(TiffSource(tmp_path / "s.tif")) as source:
        pixels, valid = source.read(((0, 130), (0, 200)))
        there = np.ones((130, 200), bool)
        there[64:128, 64:128] = False
        np.testing.assert_array_equal(valid, there)
        np.testing.assert_array_equal(pixels, image)
        assert source.read(((0, 60), (0, 200)))[1] is None, "nothing is left out up there"
        np.testing.assert_array_equal(source.read(((60, 70), (120, 130)))[1], there[60:70, 120:130])
    (item,) = predict(engine, tmp_path / "s.tif", tmp_path / "out").items
    assert item.status == "done", item.error
    np.testing.assert_array_equal(tifffile.imread(item.output) == 255, ~there)


def test_a_tile_is_left_out_where_no_channel_has_it(tmp_path: Path) -> None:
    """A file of planes has tiles for each channel, and programs leave out those of zeros."""
    image = np.zeros((64, 192, 3), np.uint8)
    image[:, :64, 0] = image[:, 64:128, 1] = 9
    full = np.full((64, 64), 9, np.uint8)
    tiles = (full if place in [(0, 0), (1, 1)] else None for place in np.ndindex(3, 3))
    with tifffile.TiffWriter(tmp_path / "s.tif") as writer:
        writer.write(
            tiles, shape=(3, 64, 192), dtype=np.uint8, tile=(64, 64), photometric="rgb", planarconfig="separate",
            compression="zlib", metadata=None,
        )  # fmt: skip
    with closing(open_image(tmp_path / "s.tif")) as source:
        pixels, valid = source.read(((0, 64), (0, 192)))
    np.testing.assert_array_equal(pixels, image)
    np.testing.assert_array_equal(valid, image.any(axis=-1))


def test_the_no_data_value_of_arcgis_is_taken_without_a_word(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    image = picture(20, 30, dtype="float32")
    image[:5] = np.finfo(np.float32).min
    tags = [(42113, "s", 0, "-3.4028234663852886e+38", True)]
    tifffile.imwrite(tmp_path / "a.tif", image, photometric="rgb", extratags=tags)
    _, valid = read_image_and_valid(tmp_path / "a.tif")
    assert valid is not None
    assert not valid[:5].any()
    assert valid[5:].all()
    assert not caplog.records
    logging.getLogger("tifffile").warning("something else")
    assert [record.message for record in caplog.records] == ["something else"]


@pytest.mark.parametrize("form", [2, 3])
@pytest.mark.parametrize(
    ("fill", "attributes", "hole"),
    [
        (float("nan"), {}, np.nan),
        (0.0, {"_FillValue": -9999}, -9999),
        (0.0, {"_FillValue": "NaN"}, np.nan),
        (0.0, {"_FillValue": "AAAAAAAA+H8="}, np.nan),
        (0.0, {"missing_value": -1.5}, -1.5),
    ],
)
def test_zarr_says_where_there_is_no_data(
    form: Any, fill: float, attributes: dict[str, Any], hole: float, tmp_path: Path
) -> None:
    image = picture(60, 70, dtype="float32")
    image[10:20, 30:40] = hole
    array = zarr.create_array(
        str(tmp_path / "a.zarr"), shape=image.shape, chunks=(32, 32, 3), dtype="float32", zarr_format=form,
        fill_value=fill, attributes=attributes,
    )  # fmt: skip
    array[...] = image
    there = np.ones((60, 70), bool)
    there[10:20, 30:40] = False
    np.testing.assert_array_equal(open_image(tmp_path / "a.zarr").read(((0, 60), (0, 70)))[1], there)


@pytest.mark.parametrize(
    ("dtype", "told", "taken"),
    [("int16", 32767, True), ("int32", 100_000, True), ("int8", 0, True), ("int16", -9999, True),
     ("uint16", 65535, True), ("int16", 40_000, False), ("uint8", -1, False), ("int16", 0.5, False)],
)  # fmt: skip
def test_integers_may_mean_no_data(dtype: str, told: float, taken: bool, tmp_path: Path) -> None:
    image = np.full((20, 20), 7, dtype)
    image[:4] = told if taken else 9
    zarr.create_array(
        str(tmp_path / "a.zarr"), shape=(20, 20), chunks=(20, 20), dtype=dtype, attributes={"_FillValue": told}
    )[...] = image
    valid = open_image(tmp_path / "a.zarr").read(((0, 20), (0, 20)))[1]
    assert (valid is not None) == taken
    if valid is not None:
        np.testing.assert_array_equal(valid, image == 7)


@pytest.mark.parametrize(("fill", "lacks"), [(-9999, True), (0, False), (None, False)])
def test_in_format_2_a_fill_value_beside_names_of_axes_is_no_data(
    fill: int | None, lacks: bool, tmp_path: Path
) -> None:
    """As xarray and GDAL write it, without an attribute that says so."""
    array = zarr.create_array(
        str(tmp_path / "a.zarr"), shape=(20, 20), chunks=(20, 20), dtype="int16", fill_value=fill, zarr_format=2,
        attributes={"_ARRAY_DIMENSIONS": ["y", "x"]},
    )  # fmt: skip
    array[:] = np.arange(400).reshape(20, 20)
    array[3:5, 7:] = fill or 0
    pixels, valid = open_image(tmp_path / "a.zarr").read(((0, 20), (0, 20)))
    assert pixels.shape == (20, 20, 1)
    if lacks:
        assert valid is not None
        assert not valid[3:5, 7:].any()
        assert valid.sum() == 400 - 26
    else:
        assert valid is None


def test_a_fill_value_that_is_a_number_is_data(tmp_path: Path) -> None:
    array = zarr.create_array(str(tmp_path / "a.zarr"), shape=(20, 20), chunks=(20, 20), dtype="uint8", fill_value=255)
    array[...] = np.arange(400).reshape(20, 20) % 256
    assert open_image(tmp_path / "a.zarr").read(((0, 20), (0, 20)))[1] is None


# -- which image -------------------------------------------------------------------------------------------------------


def test_the_largest_image_of_a_file_is_meant(tmp_path: Path) -> None:
    """Slides begin with a photograph of their label, some kinds of them."""
    slide = picture(200, 300)
    with tifffile.TiffWriter(tmp_path / "s.tif") as writer:
        writer.write(picture(80, 40, seed=5), photometric="rgb", metadata=None)
        writer.write(slide, photometric="rgb", metadata=None, tile=(64, 64))
    np.testing.assert_array_equal(read_image(tmp_path / "s.tif"), slide)
    with closing(TiffSource(tmp_path / "s.tif")) as source:
        assert source.size == (200, 300)


def test_what_the_tags_of_the_largest_image_say_is_meant(tmp_path: Path) -> None:
    """Cameras write a small picture first, which is upright; what means no data may stand there or here."""
    turned, no_data = (274, "H", 1, 6, True), (42113, "s", 0, "7", True)
    values = np.random.default_rng(0).integers(6, 9, (50, 40)).astype(np.uint16)
    for name, first, second in (("a", [], [turned, no_data]), ("b", [turned, no_data], []), ("c", [turned], [turned])):
        with tifffile.TiffWriter(tmp_path / f"{name}.tif") as writer:
            writer.write(np.zeros((9, 9), np.uint16), extratags=first, metadata=None)
            writer.write(values, extratags=second, metadata=None, tile=(16, 16))
        upright = np.rot90(values, -1) if second else values
        whole, valid = read_image_and_valid(tmp_path / f"{name}.tif")
        assert image_size(tmp_path / f"{name}.tif") == upright.shape
        with closing(TiffSource(tmp_path / f"{name}.tif")) as source:
            found, there = source.read(((0, source.size[0]), (0, source.size[1])))
        for pixels, missing in ((whole, valid), (found, there)):
            if name == "c":
                assert missing is None
            else:
                np.testing.assert_array_equal(missing, upright != 7)
            np.testing.assert_array_equal(pixels[..., 0][upright != 7], upright[upright != 7])
        with closing(open_image(tmp_path / f"{name}.tif")) as source:
            assert (source.read(((0, 9), (0, 9)))[1] is None) == (name == "c")


def test_a_group_of_images_names_them(tmp_path: Path) -> None:
    group = zarr.open_group(str(tmp_path / "g.zarr"), mode="w")
    group.create_group("0")
    with pytest.raises(DataError, match=r"it holds 0\).*name the image inside it, as in g.zarr/0"):
        open_image(tmp_path / "g.zarr")


@pytest.mark.parametrize("form", [2, 3])
def test_the_images_of_a_plate_are_named_as_a_glob_that_finds_them(tmp_path: Path, engine: Engine, form: Any) -> None:
    """High-content screens: rows, columns and fields of a plate (OME-NGFF 0.4 and 0.5)."""
    for place, what in (("", "plate"), ("A", ""), ("A/1", "well")):
        words = {what: {"version": "0.4"}} if what else {}
        attributes = {"ome": words} if form == 3 and words else words
        zarr.open_group(str(tmp_path / "p.zarr" / place), mode="w", zarr_format=form, attributes=attributes)
    for field in ("0", "1"):
        group = zarr.open_group(str(tmp_path / "p.zarr/A/1" / field), mode="w", zarr_format=form)
        axes = [{"name": name, "type": "channel" if name == "c" else "space"} for name in "cyx"]
        scale = [{"type": "scale", "scale": [1.0, 1.0, 1.0]}]
        scales = [{"axes": axes, "datasets": [{"path": "0", "coordinateTransformations": scale}]}]
        group.attrs.update({"ome": {"multiscales": scales}} if form == 3 else {"multiscales": scales})
        group.create_array("0", shape=(3, 40, 30), chunks=(3, 40, 30), dtype="uint8")[...] = 7
    (item,) = predict(engine, tmp_path / "p.zarr", tmp_path / "out").items
    assert "name the image inside it, as in p.zarr/*/*/*" in item.error
    (item,) = predict(engine, tmp_path / "p.zarr/A/1", tmp_path / "out").items
    assert "name the image inside it, as in 1/*" in item.error
    done = predict(engine, tmp_path / "p.zarr/*/*/*", tmp_path / "out")
    assert [item.status for item in done.items] == ["done", "done"], str(done)


def test_of_a_data_folder_the_images_are_painted_and_not_the_masks(tmp_path: Path) -> None:
    for place in ("train/images", "train/masks", "val/images", "val/labels", "more"):
        (tmp_path / place).mkdir(parents=True)
        Image.fromarray(picture(20, 20)).save(tmp_path / place / "a.png")
    assert [path.relative_to(tmp_path).as_posix() for path in find_images(tmp_path)] == [
        "more/a.png", "train/images/a.png", "val/images/a.png",
    ]  # fmt: skip
    assert [path.name for path in find_images(tmp_path / "train/masks")] == ["a.png"], "asked for by name"


# -- how large a pixel is ----------------------------------------------------------------------------------------------


def _ome(path: Path, image: np.ndarray) -> None:
    sizes = {"PhysicalSizeX": 325.0, "PhysicalSizeXUnit": "nm", "PhysicalSizeY": 0.5, "PhysicalSizeYUnit": "µm"}
    tifffile.imwrite(path, image, photometric="rgb", ome=True, metadata={"axes": "YXS", **sizes})


def _imagej(path: Path, image: np.ndarray) -> None:
    tifffile.imwrite(path, image, imagej=True, resolution=(1 / 0.325, 2.0), metadata={"unit": "um"})


def _inches(path: Path, image: np.ndarray) -> None:
    tifffile.imwrite(path, image, photometric="rgb", resolution=(25400 / 0.325, 25400 / 0.5), resolutionunit="INCH")


def _aperio(path: Path, image: np.ndarray) -> None:
    words = "Aperio Image Library v11\r\n200x300 |AppMag = 20|MPP = 0.325"
    tifffile.imwrite(path, image, photometric="rgb", description=words, metadata=None)


@pytest.mark.parametrize(
    ("kind", "height"),
    [(_ome, 0.5), (_imagej, 0.5), (_inches, 0.5), (_aperio, 0.325)],
    ids=["OME", "ImageJ", "inches", "Aperio"],
)
def test_the_size_of_a_pixel_is_found_and_kept(
    kind: Callable[[Path, np.ndarray], None], height: float, tmp_path: Path, engine: Engine
) -> None:
    path = tmp_path / ("a.ome.tif" if kind is _ome else "a.tif")
    kind(path, picture(60, 80))
    assert pixel_size(path, (60, 80)) == pytest.approx((height, 0.325), rel=1e-4)
    assert pixel_size(path, (30, 40)) == pytest.approx((2 * height, 0.65), rel=1e-4), "of a level"
    (item,) = predict(engine, path, tmp_path / "out").items
    assert Path(item.output or "").name == "a.tif", "labels are no OME-TIFF"
    assert pixel_size(Path(item.output or ""), (60, 80)) == pytest.approx((height, 0.325), rel=1e-4)


def test_large_paintings_and_their_levels_keep_it(
    tmp_path: Path, engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    large_above(monkeypatch)
    _inches(tmp_path / "a.tif", picture(1100, 60))
    (item,) = predict(engine, tmp_path / "a.tif", tmp_path / "out").items
    with tifffile.TiffFile(item.output) as file:
        steps = [page.tags.valueof(282)[0] / page.tags.valueof(282)[1] for page in file.pages]
    assert steps == pytest.approx([1e4 / 0.325, 1e4 / 0.65], rel=1e-4)


@pytest.mark.parametrize(("unit", "micrometres"), [("nm", 0.001), ("µm", 1), ("mm", 1000), ("cm", 10000), ("m", 10**6)])
def test_units_of_length(unit: str, micrometres: float, tmp_path: Path) -> None:
    sizes = {"PhysicalSizeX": 3.0, "PhysicalSizeXUnit": unit, "PhysicalSizeY": 2.0, "PhysicalSizeYUnit": "µm"}
    path = tmp_path / "a.ome.tif"
    tifffile.imwrite(path, picture(20, 30), photometric="rgb", ome=True, metadata={"axes": "YXS", **sizes})
    assert pixel_size(path, (20, 30)) == pytest.approx((2, 3 * micrometres))


def test_of_an_image_that_lies_on_its_side_in_the_file_height_and_width_change_places(tmp_path: Path) -> None:
    _inches(tmp_path / "a.tif", picture(60, 80))
    assert pixel_size(tmp_path / "a.tif", (80, 60)) == pytest.approx((0.325, 0.5), rel=1e-4)


def test_pictures_that_say_nothing_of_it(tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "a.tif", picture(20, 20), photometric="rgb", metadata=None)
    (tmp_path / "b.tif").write_bytes(b"II*\0 nothing")
    assert pixel_size(tmp_path / "a.tif", (20, 20)) is None
    assert pixel_size(tmp_path / "b.tif", (20, 20)) is None


# -- Zarr as others read it --------------------------------------------------------------------------------------------


def test_ome_zarr_of_version_0_4_nests_its_chunks_and_keeps_all_transforms(tmp_path: Path, engine: Engine) -> None:
    image = picture(300, 300)
    group = zarr.open_group(str(tmp_path / "i.zarr"), mode="w", zarr_format=2)
    axes = [{"name": "c", "type": "channel"}, {"name": "y", "type": "space"}, {"name": "x", "type": "space"}]
    then = [{"type": "scale", "scale": [1.0, 0.25, 0.5]}]
    one = {"path": "0", "coordinateTransformations": [{"type": "scale", "scale": [1.0, 1.0, 1.0]}]}
    group.attrs["multiscales"] = [{"axes": axes, "datasets": [one], "coordinateTransformations": then}]
    array = group.create_array("0", shape=(3, 300, 300), chunks=(3, 128, 128), dtype="uint8")
    array[...] = image.transpose(2, 0, 1)
    (item,) = predict(engine, tmp_path / "i.zarr", tmp_path / "out").items
    painted = Path(item.output or "")
    assert (painted / "0/1/1").is_file(), "0/1/1 is the chunk in the corner: not 0/1.1"
    words = dict(zarr.open_group(str(painted), mode="r").attrs)["multiscales"][0]
    assert words["coordinateTransformations"] == [{"type": "scale", "scale": [0.25, 0.5]}]
    found = open_image(painted, Reading()).read(((0, 300), (0, 300)))[0][..., 0]
    np.testing.assert_array_equal(found, whole_logits(engine.model, image).argmax(0).numpy())


class _Holed:
    """Not a number where there is no data, and infinite where there is."""

    name, size, channels, dtype = "holed", (8, 8), 3, np.dtype(np.float32)

    def read(self, box: Any) -> Any:
        pixels, valid = np.zeros((8, 8, 3), np.float32), np.ones((8, 8), bool)
        pixels[:2], pixels[5, 6], valid[:2] = np.nan, np.inf, False
        here = tuple(slice(*span) for span in box)
        return pixels[here], valid[here]

    def close(self) -> None: ...


def test_the_pixel_that_is_told_as_infinite_is_one_that_has_data() -> None:
    engine, tiling = Engine(model_of(unet(), dtype="float32"), "float32"), Tiling((8, 8), (8, 8))
    with pytest.raises(DataError, match="row 5, column 6"):
        read_tile(engine, _Holed(), tiling, next(iter(tiling)))


def test_strips_of_which_not_all_fit_into_memory_are_decoded_few_times(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    image = picture(64, 320, 1)[..., 0]
    tifffile.imwrite(tmp_path / "s.tif", image, rowsperstrip=1, compression="zlib")
    source, decoded = TiffSource(tmp_path / "s.tif"), []
    plane = source._planes[0]
    decode = plane._decode
    monkeypatch.setattr("whatwhere.paint.tiff._CACHE_BYTES", 24 * 320)
    monkeypatch.setattr(plane, "_decode", lambda index: decoded.append(index) or decode(index))
    with closing(source):
        for top in (0, 32):
            for left in range(0, 320, 8):
                found, _ = source.read(((top, top + 32), (left, left + 8)))
                np.testing.assert_array_equal(found[..., 0], image[top : top + 32, left : left + 8])
    assert len(decoded) < 64 * 40 / 2, "less than half of what no memory at all would take"


# -- one painter at a time ---------------------------------------------------------------------------------------------


def _hold(folder: Path) -> None:
    with claimed(folder):
        (folder / "held").touch()
        time.sleep(60)


def test_two_processes_never_paint_at_one_place(tmp_path: Path) -> None:
    folder = tmp_path / "a.tif.partial"
    other = multiprocessing.get_context("spawn").Process(target=_hold, args=(folder,))
    other.start()
    try:
        while not (folder / "held").exists():
            time.sleep(0.05)
        with (
            pytest.raises(TakenError, match=r"a.tif is being painted by another process.*wait for it"),
            claimed(folder),
        ):
            pass
        discard(folder, lambda: True)
        assert folder.exists(), "another process is at it"
    finally:
        other.kill()
        other.join()
    with claimed(folder):
        pass
    discard(folder, lambda: True)
    assert not folder.exists()
    assert issubclass(TakenError, OutputError)


# -- a proof that proves something -------------------------------------------------------------------------------------


def test_a_proof_takes_several_tiles_or_says_that_it_can_t(engine: Engine) -> None:
    halo = engine.geometry.halo[0]
    least = sum(halo) + 4
    proof = prove(engine, picture(least + 1, 20))
    assert proof.passed
    assert proof.tile[0] <= least
    assert proof.less
    with pytest.raises(PlanError, match=r"20x20 pixels and tiles of .*proves nothing.*prove it on a larger image"):
        prove(engine, picture(20, 20))
    with pytest.raises(PlanError, match=r"60x60 pixels and tiles of 64x64.*proves nothing.*ask for smaller tiles"):
        prove(engine, picture(60, 60), tile=64)


# -- work of others ----------------------------------------------------------------------------------------------------


def _interrupted(model: Model, path: Path, out: Path, **options: Any) -> None:
    def stop(_name: str, done: int, _all: int) -> None:
        if done == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        predict(Engine(model, "float32"), path, out, tile=192, progress=stop, **options)


def test_what_another_model_has_half_painted_is_not_thrown_away_for_a_slip(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    large_above(monkeypatch)
    path, out = tmp_path / "slide.tif", tmp_path / "out"
    tifffile.imwrite(path, picture(400, 380), photometric="rgb", tile=(64, 64))
    mine, other = model_of(unet()), model_of(unet(seed=1))
    _interrupted(mine, path, out)
    (item,) = predict(Engine(other, "float32"), path, out, tile=192).items
    assert item.status == "failed"
    assert "holds an interrupted painting that differs in: model;" in item.error
    assert "--overwrite" in item.error
    (item,) = predict(Engine(mine, "float32"), path, out, tile=192).items
    assert item.status == "done"
    _interrupted(mine, path, tmp_path / "again")
    (item,) = predict(Engine(other, "float32"), path, tmp_path / "again", tile=192, overwrite=True).items
    assert item.status == "done"
    expected = whole_logits(other, tifffile.imread(path)).argmax(0)
    np.testing.assert_array_equal(tifffile.imread(tmp_path / "again/slide.tif"), expected)


def test_tiles_of_another_size_do_not_throw_away_what_is_half_painted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    large_above(monkeypatch)
    path, out, model = tmp_path / "slide.tif", tmp_path / "out", model_of(unet())
    tifffile.imwrite(path, picture(400, 380), photometric="rgb", tile=(64, 64))
    _interrupted(model, path, out)
    (item,) = predict(Engine(model, "float32"), path, out, tile=256).items
    assert item.status == "failed"
    assert "in tiles of 192x192, and tiles of 256x256 are asked for" in item.error
    (item,) = predict(Engine(model, "float32"), path, out).items
    assert item.status == "done"
    assert "192" in str(item.report)
    _interrupted(model, path, tmp_path / "again")
    (item,) = predict(Engine(model, "float32"), path, tmp_path / "again", tile=256, overwrite=True).items
    assert item.status == "done"


def test_a_place_where_nothing_was_begun_is_left_empty(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    large_above(monkeypatch)
    path = tmp_path / "slide.tif"
    tifffile.imwrite(path, picture(400, 380), photometric="rgb", tile=(64, 64))
    (item,) = predict(Engine(model_of(unet()), "float32"), path, tmp_path / "out", tile=2).items
    assert "tiles of 2x2" in item.error
    assert not list((tmp_path / "out").glob("*.partial"))


def test_what_was_begun_whole_goes_on_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A network that pads by itself gets the image unpadded; its tile then is no multiple of its period."""
    large_above(monkeypatch)
    path, model = tmp_path / "slide.tif", model_of(Mirrored(unet(padding="valid")))
    tifffile.imwrite(path, picture(90, 90), photometric="rgb", tile=(64, 64))
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr("whatwhere.paint.outputs._finish", _killed)
        with pytest.raises(KeyboardInterrupt):
            predict(Engine(model, "float32"), path, tmp_path / "out")
    assert list((tmp_path / "out").glob("*.partial"))
    (item,) = predict(Engine(model, "float32"), path, tmp_path / "out").items
    assert item.status == "done", item.error
    expected = whole_logits(model, tifffile.imread(path)).argmax(0)
    np.testing.assert_array_equal(tifffile.imread(tmp_path / "out/slide.tif"), expected)
    assert paint(model, tifffile.imread(path), tile=90).report.tiles == 1


def test_another_image_of_the_same_name_does_not_take_the_place_of_a_half_done_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    large_above(monkeypatch)
    model = model_of(unet())
    for seed, place in enumerate(("a", "b")):
        (tmp_path / place).mkdir()
        image = picture(400, 380, seed=seed)
        tifffile.imwrite(tmp_path / place / "slide.tif", image, photometric="rgb", tile=(64, 64))
    _interrupted(model, tmp_path / "a/slide.tif", tmp_path / "out")
    (item,) = predict(Engine(model, "float32"), tmp_path / "b/slide.tif", tmp_path / "out", tile=192).items
    assert item.status == "failed"
    assert "differs in:" in item.error
    assert "image" in item.error
    (tmp_path / "a/slide.tif").unlink()  # then what was painted of it is worth nothing
    (item,) = predict(Engine(model, "float32"), tmp_path / "b/slide.tif", tmp_path / "out", tile=192).items
    assert item.status == "done"


def test_a_copied_folder_does_not_take_an_older_painting_for_the_one_that_was_killed(tmp_path: Path) -> None:
    """Copying keeps times and sizes, and gives every file another inode."""
    path, out = tmp_path / "a.png", tmp_path / "out"
    Image.fromarray(picture(40, 40)).save(path)
    mine, other = (Engine(model_of(unet(seed=seed)), "float32") for seed in (0, 1))
    predict(mine, path, out)
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(sys.modules["whatwhere.paint.predict"], "paint_to_files", _killed)
        with pytest.raises(KeyboardInterrupt):
            predict(other, path, out, overwrite=True)
    shutil.copytree(out, tmp_path / "copy")
    (item,) = predict(other, path, tmp_path / "copy").items
    assert item.status == "failed", "what lies there is of the first model"
    assert "from another model" in item.error


def _killed(*_arguments: Any, **_options: Any) -> None:
    raise KeyboardInterrupt


def test_what_another_process_has_painted_meanwhile_is_known(tmp_path: Path) -> None:
    path, out = tmp_path / "a.png", tmp_path / "out"
    Image.fromarray(picture(40, 40)).save(path)
    engine = Engine(model_of(unet()), "float32")
    early = Ledger(out)
    predict(engine, path, out)
    with pytest.raises(TakenError, match="from another"):
        early.lacks(names(out / "a", path, (40, 40)), Options(), {})


class _Offset(nn.Module):
    """Keeps numbers in ways that its state does not tell."""

    def __init__(self, way: str, value: float) -> None:
        super().__init__()
        self.register_buffer("mean", torch.full((3, 1, 1), value if way == "buffer" else 0.0), persistent=False)
        self.plain = torch.tensor(value if way == "tensor" else 0.0)
        self.array = np.array([value if way == "array" else 0.0])

    def forward(self, x: Tensor) -> Tensor:
        return x - self.mean - self.plain - self.array[0]


@pytest.mark.parametrize("way", ["buffer", "tensor", "array"])
def test_numbers_that_a_network_keeps_beside_its_state_tell_it_apart(way: str) -> None:
    assert digest_of(_Offset(way, 1.0)) == digest_of(_Offset(way, 1.0)) != digest_of(_Offset(way, 2.0))


class _Setting(nn.Module):
    """Keeps one thing that decides what it computes."""

    def __init__(self, kept: Any) -> None:
        super().__init__()
        self.kept = kept


class _Way(Enum):
    NEAREST = "nearest"
    BILINEAR = "bilinear"


@dataclass
class _Config:
    scale: int


def _doubled(x: Tensor) -> Tensor:
    return 2 * x


SETTINGS: dict[str, Callable[[], tuple[Any, Any]]] = {
    "a dictionary": lambda: ({"scale": 2, "ways": ["up"]}, {"scale": 4, "ways": ["up"]}),
    "a set": lambda: ({"relu", "norm", "skip"}, {"relu", "norm", "cut"}),
    "a function": lambda: (_doubled, picture),
    "a function of torch": lambda: (nn.functional.relu, nn.functional.gelu),
    "a lambda": lambda: (
        lambda x: 2 * x,
        lambda x: 4 * x,
    ),
    "a part of a function": lambda: (partial(_doubled, x=1), partial(_doubled, x=2)),
    "a class": lambda: (nn.BatchNorm2d, nn.InstanceNorm2d),
    "a number of numpy": lambda: (np.float32(2), np.float32(4)),
    "words of numpy": lambda: (np.array(["up", "down"], object), np.array(["up", "left"], object)),
    "a word of a list": lambda: (_Way.NEAREST, _Way.BILINEAR),
    "a type of numbers": lambda: (torch.float32, torch.float16),
    "a record": lambda: (_Config(2), _Config(4)),
    "a tensor in a dictionary": lambda: ({"mean": torch.zeros(3)}, {"mean": torch.ones(3)}),
}


@pytest.mark.parametrize("what", SETTINGS)
def test_what_a_network_is_set_to_tells_it_apart(what: str) -> None:
    (one, other), (same, _) = SETTINGS[what](), SETTINGS[what]()
    assert digest_of(_Setting(one)) == digest_of(_Setting(same)) != digest_of(_Setting(other))


def test_a_layer_of_torch_that_is_set_otherwise_is_another_network(tmp_path: Path) -> None:
    """The painting by the other one is not kept for this one's."""
    Image.fromarray(picture(40, 40)).save(tmp_path / "a.png")
    made = []
    for corners in (False, True):
        torch.manual_seed(0)
        up = nn.Upsample(scale_factor=2, mode="bilinear", align_corners=corners)
        made.append(model_of(nn.Sequential(nn.Conv2d(3, 8, 3, 2, 1), up, nn.Conv2d(8, 3, 1))))
    predict(Engine(made[0], "float32"), tmp_path / "a.png", tmp_path / "out")
    assert predict(Engine(made[0], "float32"), tmp_path / "a.png", tmp_path / "out").items[0].status == "skipped"
    assert "from another model" in str(predict(Engine(made[1], "float32"), tmp_path / "a.png", tmp_path / "out"))


def test_our_networks_have_the_names_that_earlier_versions_gave_them() -> None:
    """They stand in the files of paintings and of measured times."""
    network = unet()
    told = hashlib.sha256(repr(network).encode())
    for name, tensor in sorted({**dict(network.named_parameters()), **dict(network.named_buffers())}.items()):
        told.update(name.encode() + tensor.detach().numpy().tobytes())
    assert digest_of(network) == digest_of(copy.deepcopy(network).train()) == told.hexdigest()


def test_a_network_has_one_name_in_every_process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever addresses and the order of sets are there."""
    (tmp_path / "kept_net.py").write_text(
        "import torch\nfrom torch import nn\nfrom whatwhere.paint.digest import digest_of\n"
        "class Net(nn.Module):\n"
        "    def __init__(self):\n"
        "        super().__init__()\n"
        "        self.kept = {'words': set('abcdefgh'), 'act': torch.relu, 'made': lambda x: x, 'other': object()}\n"
        "        self.sizes = {8: (1, 2), 'b': frozenset('xyz'), None: torch.ones(2)}\n"
        "def told():\n"
        "    return digest_of(Net())\n"
    )
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    here = importlib.import_module("kept_net").told()
    code = "import kept_net; print(kept_net.told())"
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "PYTHONHASHSEED": "7", "PYTHONPATH": os.pathsep.join(sys.path)},
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert done.stdout.strip() == here


def test_two_versions_of_a_networks_code_are_two_networks() -> None:
    class Warm(nn.Module):
        def __init__(self, temperature: float) -> None:
            super().__init__()
            self.conv, self.temperature = nn.Conv2d(3, 3, 1), temperature

        def forward(self, image: Tensor) -> Tensor:
            return self.conv(image) / self.temperature

    class Cold(Warm):
        def forward(self, image: Tensor) -> Tensor:
            return self.conv(image) * self.temperature

    first = Warm(2.0)
    digests = []
    for network in (first, Warm(2.0), Warm(3.0), Cold(2.0)):
        network.load_state_dict(first.state_dict())
        network.__class__.__name__ = "Net"
        digests.append(Engine(model_of(network)).digest)
    assert digests[0] == digests[1]
    assert len(set(digests)) == 3


def test_a_zarr_without_a_fill_value(tmp_path: Path) -> None:
    array = zarr.create_array(
        str(tmp_path / "a.zarr"), shape=(20, 20), chunks=(20, 20), dtype="float32", zarr_format=2, fill_value=None
    )
    array[...] = 1
    pixels, valid = open_image(tmp_path / "a.zarr", Reading()).read(((0, 20), (0, 20)))
    assert valid is None
    assert (pixels == 1).all()


@pytest.mark.parametrize("form", [2, 3])
def test_large_ome_zarr_paintings_have_smaller_levels(tmp_path: Path, engine: Engine, form: Any) -> None:
    image = picture(2100, 300)
    group = zarr.open_group(str(tmp_path / "i.zarr"), mode="w", zarr_format=form)
    axes = [{"name": "c", "type": "channel"}, {"name": "y", "type": "space"}, {"name": "x", "type": "space"}]
    one = {"path": "0", "coordinateTransformations": [{"type": "scale", "scale": [1.0, 0.5, 0.25]}]}
    words = {"multiscales": [{"axes": axes, "datasets": [one]}]}
    group.attrs.update(words if form == 2 else {"ome": {"version": "0.5", **words}})
    array = group.create_array("0", shape=(3, 2100, 300), chunks=(3, 512, 300), dtype="uint8")
    array[...] = image.transpose(2, 0, 1)
    (item,) = predict(engine, tmp_path / "i.zarr", tmp_path / "out", tile=640).items
    painted = zarr.open_group(item.output, mode="r")
    labels = np.asarray(painted["0"])
    np.testing.assert_array_equal(labels, whole_logits(engine.model, image).argmax(0).numpy())
    np.testing.assert_array_equal(np.asarray(painted["1"]), labels[::2, ::2])
    np.testing.assert_array_equal(np.asarray(painted["2"]), labels[::4, ::4])
    told = dict(painted.attrs)
    datasets = told.get("ome", told)["multiscales"][0]["datasets"]
    scales = [one["coordinateTransformations"][0]["scale"] for one in datasets]
    assert scales == [[0.5, 0.25], [1.0, 0.5], [2.0, 1.0]]
    smaller = open_image(Path(item.output or ""), Reading(level=1)).read(((0, 1050), (0, 150)))[0]
    np.testing.assert_array_equal(smaller[..., 0], labels[::2, ::2])
