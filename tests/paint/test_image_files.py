"""Windows of files hold what the whole file holds, in every layout; what is written is read back, with its colours."""

from __future__ import annotations

import re
import struct
import tracemalloc
from contextlib import closing
from pathlib import Path
from typing import Any

import numcodecs
import numpy as np
import pytest
import tifffile
import zarr
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from painting import large_above, model_of, picture, spoil, unet
from PIL import Image
from zarr import codecs

from whatwhere.data import read_image
from whatwhere.data.images import read_image_and_valid
from whatwhere.errors import DataError, ModelError
from whatwhere.paint import Engine, predict
from whatwhere.paint.files import fitted, open_image
from whatwhere.paint.geotiff import GeoSource, write_geotiff
from whatwhere.paint.sources import ArraySource, Reading, Source, extra
from whatwhere.paint.tiff import TiffSource, palette, write_planes_tiff, write_tiff
from whatwhere.paint.zarrs import ZarrSource, create_labels

rasterio = pytest.importorskip("rasterio")
pytestmark = pytest.mark.filterwarnings(
    "ignore:Use `@` matmul:PendingDeprecationWarning"
)  # rasterio's own use of affine
CLASSES = model_of(unet()).classes

TIFFS: dict[str, dict[str, Any]] = {
    "tiled": {"tile": (64, 32)},
    "tiled deflate": {"tile": (64, 64), "compression": "zlib", "predictor": True},
    "strips": {"rowsperstrip": 7, "compression": "lzw"},
    "one raw strip": {},
    "planes": {"planarconfig": "separate", "tile": (32, 32)},
    "raw planes": {"planarconfig": "separate"},
    "big and big-endian": {"bigtiff": True, "byteorder": ">", "tile": (48, 48)},
    "big-endian raw": {"byteorder": ">"},
}


def windows_agree(source: Source, image: np.ndarray) -> None:
    height, width = image.shape[:2]
    assert source.size == (height, width)
    assert source.dtype == image.dtype
    assert source.channels == image.shape[2]
    for box in [
        ((0, height), (0, width)),
        ((3, 60), (70, 71)),
        ((height - 1, height), (5, width)),
        ((31, 65), (31, 97)),
    ]:
        pixels, valid = source.read(box)
        assert valid is None
        assert pixels.dtype == image.dtype
        np.testing.assert_array_equal(pixels, image[box[0][0] : box[0][1], box[1][0] : box[1][1]])
    source.close()


@pytest.mark.parametrize("layout", TIFFS)
@pytest.mark.parametrize("dtype", ["uint8", "uint16", "float32"])
def test_tiff_layouts_are_read_by_windows(tmp_path: Path, layout: str, dtype: str) -> None:
    options = dict(TIFFS[layout])
    if dtype == "float32":
        options.pop("predictor", None)
    image = picture(100, 130, dtype=dtype)
    stored = image.transpose(2, 0, 1) if options.get("planarconfig") else image
    tifffile.imwrite(tmp_path / "a.tif", stored, photometric="rgb", **options)
    source = TiffSource(tmp_path / "a.tif")
    windows_agree(source, image)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_any_window_of_a_tiled_tiff(tmp_path: Path, data: st.DataObject) -> None:
    image = picture(90, 75, 1)
    path = tmp_path / "a.tif"
    if not path.exists():
        tifffile.imwrite(path, image[..., 0], tile=(32, 16), compression="zlib")
    spans = []
    for side in image.shape[:2]:
        start = data.draw(st.integers(0, side - 1))
        spans.append((start, data.draw(st.integers(start + 1, side))))
    source = TiffSource(path)
    (y0, y1), (x0, x1) = spans
    np.testing.assert_array_equal(source.read(tuple(spans))[0], image[y0:y1, x0:x1])
    source.close()


def test_pages_grey_palette_and_jpeg_tiffs(tmp_path: Path) -> None:
    image = picture(100, 130, 5, dtype="uint16")
    tifffile.imwrite(tmp_path / "c.ome.tif", image.transpose(2, 0, 1), metadata={"axes": "CYX"}, tile=(32, 32))
    windows_agree(TiffSource(tmp_path / "c.ome.tif"), image)
    smooth = np.linspace(0, 255, 100 * 130 * 3).reshape(100, 130, 3).astype(np.uint8)
    tifffile.imwrite(tmp_path / "j.tif", smooth, tile=(64, 64), compression="jpeg", photometric="rgb")
    windows_agree(TiffSource(tmp_path / "j.tif"), tifffile.imread(tmp_path / "j.tif"))
    colors = np.arange(768, dtype=np.uint16).reshape(3, 256) * 80
    index = picture(100, 130, 1)[..., 0]
    tifffile.imwrite(tmp_path / "p.tif", index, photometric="palette", colormap=colors, tile=(64, 64))
    windows_agree(TiffSource(tmp_path / "p.tif"), (colors.T >> 8).astype(np.uint8)[index])
    tifffile.imwrite(tmp_path / "b.tif", index > 99, tile=(64, 64))
    windows_agree(TiffSource(tmp_path / "b.tif"), ((index > 99) * np.uint8(255))[..., None])
    for array in (index, index.astype(np.uint16) * 99, index > 99):
        tifffile.imwrite(tmp_path / "w.tif", array, photometric="miniswhite", tile=(64, 64), software="a scanner's")
        windows_agree(TiffSource(tmp_path / "w.tif"), read_image(tmp_path / "w.tif"))


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("layout", ["tiled", "one raw strip", "planes"])
def test_windows_of_a_turned_tiff_are_upright(tmp_path: Path, layout: str, orientation: int) -> None:
    image = picture(130, 110)
    options = dict(TIFFS[layout])
    stored = image.transpose(2, 0, 1) if layout == "planes" else image
    tifffile.imwrite(
        tmp_path / "a.tif", stored, photometric="rgb", extratags=[(274, "H", 1, orientation, False)], **options
    )
    windows_agree(TiffSource(tmp_path / "a.tif"), read_image(tmp_path / "a.tif"))


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("order", [(0, 1, 2), (0, 2, 1), (2, 0, 1)], ids=["HWC", "HCW", "CHW"])
def test_rows_or_channels_stored_as_pages_are_read_by_windows(
    tmp_path: Path, order: tuple[int, int, int], orientation: int
) -> None:
    stored = picture(130, 110, 5).transpose(order)
    turned = [(274, "H", 1, orientation, False)]
    tifffile.imwrite(tmp_path / "a.tif", stored, photometric="minisblack", extratags=turned)
    windows_agree(TiffSource(tmp_path / "a.tif"), read_image(tmp_path / "a.tif"))


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.tuples(*[st.integers(2, 12)] * 3), st.sampled_from([None, "ZYX", "TYX", "CYX", "YXC", "YCX", "YXZ"]), st.data()
)
def test_any_stack_is_to_windows_what_it_is_as_a_whole(
    tmp_path: Path, shape: tuple[int, int, int], axes: str | None, data: st.DataObject
) -> None:
    path, named = tmp_path / "a.tif", {} if axes is None else {"metadata": {"axes": axes}}
    stored = np.arange(np.prod(shape), dtype=np.uint16).reshape(shape)
    tifffile.imwrite(path, stored, photometric="minisblack", **named)
    whole = read_image(path)
    spans = []
    for side in whole.shape[:2]:
        start = data.draw(st.integers(0, side - 1))
        spans.append((start, data.draw(st.integers(start + 1, side))))
    (y0, y1), (x0, x1) = spans
    with closing(TiffSource(path)) as source:
        assert (*source.size, source.channels) == whole.shape
        np.testing.assert_array_equal(source.read(((y0, y1), (x0, x1)))[0], whole[y0:y1, x0:x1])


def test_a_zarr_of_another_byte_order_is_read_as_its_numbers(tmp_path: Path) -> None:
    image = picture(40, 50, 1, dtype="uint16")[..., 0]
    zarr.create_array(str(tmp_path / "a.zarr"), shape=image.shape, chunks=(16, 16), dtype=">u2", zarr_format=2)[...] = (
        image
    )
    windows = ZarrSource(tmp_path / "a.zarr")
    pixels, _ = windows.read(((0, 40), (0, 50)))
    assert windows.dtype == pixels.dtype == np.dtype("uint16")
    np.testing.assert_array_equal(pixels[..., 0], image)
    model_of(unet(channels=1), channels=1, dtype="uint16").check(pixels)


def test_the_largest_level_of_a_pyramid_is_read(tmp_path: Path) -> None:
    image = picture(200, 300)
    with tifffile.TiffWriter(tmp_path / "p.ome.tif", bigtiff=True) as writer:
        writer.write(image, subifds=1, tile=(64, 64), photometric="rgb", metadata={"axes": "YXS"})
        writer.write(image[::2, ::2], subfiletype=1, tile=(64, 64), photometric="rgb")
    windows_agree(TiffSource(tmp_path / "p.ome.tif"), image)


def test_a_damaged_tile_is_named_with_its_place(tmp_path: Path) -> None:
    path = tmp_path / "bad.tif"
    tifffile.imwrite(path, picture(128, 128), tile=(64, 64), compression="zlib", photometric="rgb")
    spoil(path, 3)
    source = TiffSource(path)
    source.read(((0, 64), (0, 128)))
    with pytest.raises(DataError, match=r"bad.tif has a damaged tile at row 64, column 64.*copy or export it again"):
        source.read(((60, 70), (60, 70)))
    source.close()


def test_a_truncated_raw_tiff_and_a_stack_of_stacks_are_refused(tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "cut.tif", picture(100, 100), photometric="rgb")
    (tmp_path / "cut.tif").write_bytes((tmp_path / "cut.tif").read_bytes()[:20000])
    with closing(TiffSource(tmp_path / "cut.tif")) as source, pytest.raises(DataError, match="ends within its pixels"):
        source.read(((90, 100), (0, 100)))
    tifffile.imwrite(tmp_path / "z.ome.tif", np.zeros((5, 2, 30, 40), np.uint8), metadata={"axes": "ZCYX"})
    with pytest.raises(DataError, match=r"axes ZCYX of 5x2x30x40; expected height, width and at most one axis of ch"):
        TiffSource(tmp_path / "z.ome.tif")
    (tmp_path / "no.tif").write_bytes(b"hello")
    with pytest.raises(DataError, match=r"no\.tif is damaged or incomplete.*not a TIFF file"):
        TiffSource(tmp_path / "no.tif")


def _retagged(path: Path, code: int, *, value: int | None = None, count: int | None = None) -> None:
    """Another value, or number of values, of a tag of a TIFF of one page."""
    with tifffile.TiffFile(path) as file:
        place = file.pages.first.tags[code].offset
    with path.open("r+b") as file:
        for where, number in ((place + 4, count), (place + 8, value)):
            if number is not None:
                file.seek(where)
                file.write(struct.pack("<I", number))


@pytest.mark.parametrize("dtype", ["uint8", "uint16"])
@pytest.mark.parametrize("rows", [7, 100])
def test_uncompressed_strips_of_reversed_bits_are_read_as_a_whole_reads_them(
    tmp_path: Path, dtype: str, rows: int
) -> None:
    tifffile.imwrite(
        tmp_path / "a.tif", picture(100, 130, dtype=dtype), photometric="rgb", rowsperstrip=rows, metadata=None,
        extratags=[(65000, "H", 1, 2, True)],
    )  # fmt: skip
    raw = (tmp_path / "a.tif").read_bytes()  # of FillOrder, which tifffile does not write
    (tmp_path / "a.tif").write_bytes(raw.replace(struct.pack("<HHI", 65000, 3, 1), struct.pack("<HHI", 266, 3, 1)))
    whole = read_image(tmp_path / "a.tif")
    assert not np.array_equal(whole, picture(100, 130, dtype=dtype))
    with closing(TiffSource(tmp_path / "a.tif")) as source:
        windows_agree(source, whole)


WIDTH, ROWS, TILE_WIDTH, OFFSETS, COUNTS = 256, 278, 322, 324, 325
TILED: dict[str, Any] = {"tile": (16, 16), "compression": "zlib"}


@pytest.mark.parametrize("large", [False, True])
@pytest.mark.parametrize(
    ("code", "number", "options", "words"),
    [
        (WIDTH, {"value": 0}, TILED, "is (48 x 0 pixels|damaged or incomplete)"),
        (ROWS, {"value": 0}, {"rowsperstrip": 8, "compression": "zlib"}, "is damaged or incomplete"),
        (TILE_WIDTH, {"value": 0}, TILED, "is damaged or incomplete"),
        (TILE_WIDTH, {"count": 0}, TILED, "is damaged or incomplete"),
        (OFFSETS, {"count": 4}, TILED, "damaged|incomplete"),
        (COUNTS, {"count": 4}, TILED, "damaged|incomplete"),
    ],
)  # fmt: skip
def test_beside_a_tiff_that_is_damaged_in_any_tag_the_others_are_painted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int, number: dict[str, int], options: dict[str, Any],
    words: str, large: bool,
) -> None:  # fmt: skip
    if large:
        large_above(monkeypatch)
    tifffile.imwrite(tmp_path / "a.tif", picture(48, 40), photometric="rgb", metadata=None, **options)
    _retagged(tmp_path / "a.tif", code, **number)
    Image.fromarray(picture(48, 40)).save(tmp_path / "b.png")
    first, second = predict(Engine(model_of(unet()), "float32"), tmp_path, tmp_path / "out").items
    assert first.status == "failed"
    assert re.search(rf"a\.tif .*({words})", first.error), first.error
    assert second.status == "done"


def test_labels_go_to_a_tiled_tiff_with_colours_and_back(tmp_path: Path) -> None:
    labels = np.random.default_rng(0).integers(0, 3, (1100, 700)).astype(np.uint8)
    labels[5, 5] = 255
    write_tiff(tmp_path / "l.tif", labels.shape, lambda box: labels[box[0][0] : box[0][1]], CLASSES)
    np.testing.assert_array_equal(tifffile.imread(tmp_path / "l.tif"), labels)
    with tifffile.TiffFile(tmp_path / "l.tif") as file:
        page = file.pages[0]
        assert page.is_tiled
        assert page.photometric.name == "PALETTE"
        np.testing.assert_array_equal(page.colormap[:, 1] // 257, CLASSES.colors[1])
    with tifffile.TiffFile(tmp_path / "l.tif") as file:
        assert [page.is_reduced for page in file.pages] == [False, True]
        np.testing.assert_array_equal(file.pages[1].asarray(), labels[::2, ::2])
    planes = np.random.default_rng(0).integers(0, 255, (3, 600, 530)).astype(np.uint8)
    write_planes_tiff(tmp_path / "p.tif", planes.shape, lambda c, box: planes[c, box[0][0] : box[0][1]])
    np.testing.assert_array_equal(tifffile.imread(tmp_path / "p.tif"), planes)


@pytest.mark.parametrize("size", [(4500, 700), (1025, 3), (5, 2600), (1024, 1024)])
def test_a_large_label_tiff_has_smaller_levels_that_hold_classes(tmp_path: Path, size: tuple[int, int]) -> None:
    labels = np.random.default_rng(0).integers(0, 3, size).astype(np.uint8)

    def read(box: Any) -> np.ndarray:
        return labels[box[0][0] : box[0][1], box[1][0] : box[1][1]]

    write_tiff(tmp_path / "l.tif", size, read, CLASSES)
    with tifffile.TiffFile(tmp_path / "l.tif") as file:
        for level, page in enumerate(file.pages):
            np.testing.assert_array_equal(page.asarray(), labels[:: 2**level, :: 2**level])
        assert max(file.pages[-1].shape) <= 1024
    with Image.open(tmp_path / "l.tif") as opened:
        assert opened.size == size[::-1]
    with closing(TiffSource(tmp_path / "l.tif")) as source:
        pixels, _ = source.read(((0, size[0]), (0, size[1])))
    np.testing.assert_array_equal(pixels, palette(CLASSES)[labels])


def test_smaller_levels_read_each_band_of_chunks_once_a_level(tmp_path: Path) -> None:
    labels = np.random.default_rng(0).integers(0, 3, (2500, 600)).astype(np.uint8)
    boxes: list[Any] = []

    def read(box: Any) -> np.ndarray:
        boxes.append(box)
        return labels[box[0][0] : box[0][1], box[1][0] : box[1][1]]

    write_tiff(tmp_path / "l.tif", labels.shape, read, CLASSES, band=256)
    with tifffile.TiffFile(tmp_path / "l.tif") as file:
        assert len(file.pages) == 3
        for level, page in enumerate(file.pages):
            np.testing.assert_array_equal(page.asarray(), labels[:: 2**level, :: 2**level])
    smaller = boxes[5:]  # five rows of tiles of 512 are read for the whole picture
    assert all(top // 256 == (bottom - 1) // 256 for (top, bottom), _ in smaller)
    assert len(smaller) == 2 * 10  # bands, in each of two levels


def test_memory_for_smaller_levels_does_not_grow_with_the_picture(tmp_path: Path) -> None:
    def peak(height: int) -> int:
        tracemalloc.start()
        try:
            write_tiff(tmp_path / "l.tif", (height, 1024), lambda b: np.zeros([e - s for s, e in b], np.uint8), CLASSES)
            return tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()

    assert peak(32768) < 1.5 * peak(2048)


def _geotiff(path: Path, image: np.ndarray, **options: Any) -> None:
    transform = rasterio.transform.from_origin(500000, 4600000, 10, 10)
    height, width, channels = image.shape
    with rasterio.open(
        path, "w", driver="GTiff", height=height, width=width, count=channels, dtype=image.dtype, crs="EPSG:32633",
        transform=transform, tiled=True, blockxsize=64, blockysize=64, **options,
    ) as file:  # fmt: skip
        file.write(image.transpose(2, 0, 1))


def test_a_geotiff_keeps_its_place_and_its_missing_pixels(tmp_path: Path) -> None:
    image = np.maximum(picture(100, 130), 1)
    image[:30, :40] = 0
    _geotiff(tmp_path / "g.tif", image, nodata=0)
    source = open_image(tmp_path / "g.tif")
    assert isinstance(source, GeoSource)
    pixels, valid = source.read(((10, 60), (20, 90)))
    np.testing.assert_array_equal(pixels, image[10:60, 20:90])
    assert valid is not None
    np.testing.assert_array_equal(valid, image[10:60, 20:90].any(-1))
    labels = (image[..., 0] > 99).astype(np.uint8)
    write_geotiff(tmp_path / "out.tif", source, lambda box: labels[box[0][0] : box[0][1]], CLASSES)
    source.close()
    with rasterio.open(tmp_path / "g.tif") as a, rasterio.open(tmp_path / "out.tif") as b:
        assert (a.crs, a.transform) == (b.crs, b.transform)
        assert b.nodata == 255
        assert b.colormap(1)[1] == (*CLASSES.colors[1], 255)
        np.testing.assert_array_equal(b.read(1), labels)


@pytest.mark.parametrize("system", ["EPSG:4326", None])
def test_a_geotiff_that_lies_by_control_points_keeps_them(tmp_path: Path, system: str | None) -> None:
    place = rasterio.crs.CRS.from_string(system) if system else rasterio.crs.CRS()
    points = [
        rasterio.control.GroundControlPoint(row, column, 10 + column / 99, 50 - row / 99)
        for row, column in [(0, 0), (0, 60), (50, 0), (50, 60)]
    ]
    with rasterio.open(
        tmp_path / "g.tif",
        "w",
        driver="GTiff",
        height=50,
        width=60,
        count=3,
        dtype="uint8",
        crs=place,
        gcps=points,
    ) as file:
        file.write(picture(50, 60).transpose(2, 0, 1))
    with closing(open_image(tmp_path / "g.tif")) as source:
        assert isinstance(source, GeoSource)
        write_geotiff(
            tmp_path / "out.tif", source, lambda box: np.zeros((box[0][1] - box[0][0], 60), np.uint8), CLASSES
        )
    with rasterio.open(tmp_path / "out.tif") as file:
        found, kept = file.gcps
    assert (kept or rasterio.crs.CRS()) == place
    assert [(p.row, p.col, p.x, p.y) for p in found] == [(p.row, p.col, p.x, p.y) for p in points]


@pytest.mark.parametrize(
    ("kind", "channels", "dtype", "options"),
    [
        ("palette", 1, "uint8", {"photometric": "palette"}),
        ("palette of two", 1, "uint8", {"photometric": "palette", "nbits": 1}),
        ("palette of 16 bits", 1, "uint16", {"photometric": "palette"}),
        ("bits", 1, "uint8", {"nbits": 1}),
        ("bits of RGB", 3, "uint8", {"nbits": 1, "photometric": "rgb"}),
        ("JPEG", 3, "uint8", {"compress": "jpeg", "photometric": "ycbcr", "interleave": "pixel"}),
    ],
)
def test_values_of_a_geotiff_stand_for_what_training_reads(
    tmp_path: Path, kind: str, channels: int, dtype: str, options: dict[str, Any]
) -> None:
    colors = 2 if "nbits" in options else 7
    values = (picture(40, 50, channels) % colors).astype(dtype)
    _geotiff(tmp_path / "g.tif", values, **options)
    if "palette" in kind:
        with rasterio.open(tmp_path / "g.tif", "r+") as file:
            file.write_colormap(1, {n: (30 * n, 255 - 30 * n, n, 255) for n in range(colors)})
    with closing(open_image(tmp_path / "g.tif")) as source:
        assert isinstance(source, GeoSource)
        found, _ = source.read(((0, 40), (0, 50)))
    assert (source.channels, source.dtype) == (found.shape[-1], found.dtype)
    near = 3 if kind == "JPEG" else 0  # decoders round otherwise
    np.testing.assert_allclose(found.astype(int), read_image(tmp_path / "g.tif").astype(int), atol=near)


@pytest.mark.parametrize(
    ("photometric", "channels", "name"),
    [("separated", 4, "SEPARATED"), ("ycbcr", 3, "YCBCR"), ("cielab", 3, "CIELAB"), ("icclab", 3, "ICCLAB")],
)
def test_a_geotiff_of_which_gdal_would_make_rgb_is_refused(
    tmp_path: Path, photometric: Any, channels: int, name: str
) -> None:
    place = [(33550, "d", 3, (1.0, 1.0, 0.0), True), (33922, "d", 6, (0.0,) * 6, True)]
    fine = {"subsampling": (1, 1)} if photometric == "ycbcr" else {}
    tifffile.imwrite(
        tmp_path / "g.tif", picture(30, 30, channels), photometric=photometric, compression="lzw", metadata=None,
        extratags=place, **fine,
    )  # fmt: skip
    with pytest.raises(DataError, match=rf"g\.tif has a place .* its colours are {name}; .* export it as RGB"):
        open_image(tmp_path / "g.tif")


@pytest.mark.parametrize(("dtype", "bits"), [("uint8", 8), ("uint16", 16), ("uint16", 12), ("uint8", 1)])
def test_where_0_is_white_a_geotiff_is_what_training_reads(tmp_path: Path, dtype: str, bits: int) -> None:
    values = (picture(40, 50, 1) % (2 if bits == 1 else 200)).astype(dtype)
    missing = {} if bits == 1 else {"nodata": 7}
    narrow = {} if bits in (8, 16) else {"nbits": bits}
    _geotiff(tmp_path / "g.tif", values, photometric="miniswhite", **missing, **narrow)
    with closing(open_image(tmp_path / "g.tif")) as source:
        assert isinstance(source, GeoSource)
        found, valid = source.read(((0, 40), (0, 50)))
    whole, there = read_image_and_valid(tmp_path / "g.tif")
    assert (found.shape, found.dtype) == (whole.shape, whole.dtype)
    if missing:
        np.testing.assert_array_equal(valid, values[..., 0] != 7)
        np.testing.assert_array_equal(there, valid)
        np.testing.assert_array_equal(found[valid], whole[valid])
    np.testing.assert_array_equal(found, (255 if bits == 1 else 1) * (2**bits - 1 - values.astype(int)))


NO_DATA, TURNED = (42113, "s", 0, "7", True), (274, "H", 1, 6, True)


@pytest.mark.parametrize("windows", [True, False])
@pytest.mark.parametrize(
    ("shape", "photometric"), [((40, 50), "minisblack"), ((40, 50), "miniswhite"), ((5, 40, 50), "minisblack"),
                               ((40, 50, 3), "rgb")], ids=str,
)  # fmt: skip
def test_a_value_that_means_no_data_leaves_the_image_what_training_reads(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, shape: tuple[int, ...], photometric: Any, windows: bool
) -> None:
    """Of its largest page, upright, by windows and (as of one large compressed strip) in one piece."""
    path = tmp_path / "a.tif"
    values = np.random.default_rng(0).integers(6, 9, shape).astype(np.uint16)
    with tifffile.TiffWriter(path) as writer:
        writer.write(np.zeros((9, 9), np.uint8), extratags=[NO_DATA, TURNED], metadata=None)
        writer.write(values, photometric=photometric, compression="zlib", extratags=[NO_DATA, TURNED], metadata=None,
                     software="a scanner's")  # fmt: skip
    if not windows:
        monkeypatch.setattr("whatwhere.paint.tiff._SEGMENT_BYTES", 100)
    whole, there = read_image_and_valid(path)
    with closing(open_image(path)) as source:
        found, valid = source.read(((0, source.size[0]), (0, source.size[1])))
    assert isinstance(source, TiffSource) == windows
    np.testing.assert_array_equal(valid, there)
    np.testing.assert_array_equal(found[valid], whole[valid])


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        ("complex_int16", r"g\.tif holds complex numbers.*save magnitude"),
        ("complex64", r"g\.tif holds complex numbers"),
        ("pages", r"g\.tif has a place on Earth or a mask, and its image is not its first page alone.*of its own"),
        ("thumbnail", r"its image is not its first page alone"),
        ("turned", r"g\.tif has a place on Earth or a mask, and is stored turned \(orientation 6\).*save it upright"),
    ],
)
def test_a_geotiff_that_gdal_would_take_for_another_image_is_refused(tmp_path: Path, kind: str, words: str) -> None:
    path = tmp_path / "g.tif"
    place = [(33550, "d", 3, (1.0, 1.0, 0.0), True), (33922, "d", 6, (0.0,) * 6, True)]
    turned = [(274, "H", 1, 6, True)] if kind == "turned" else []
    with tifffile.TiffWriter(path) as writer:
        for side in {"pages": (30, 30), "thumbnail": (9, 30)}.get(kind, (30,)):
            writer.write(np.zeros((side, side), np.uint8), extratags=[*place, *turned], metadata=None)
    if kind.startswith("complex"):
        with rasterio.open(
            path, "w", driver="GTiff", height=30, width=30, count=1, dtype=kind,
            transform=rasterio.transform.from_origin(0, 0, 10, 10),
        ):  # fmt: skip
            pass
    with pytest.raises(DataError, match=words):
        open_image(path)


@pytest.mark.parametrize("level", [0, 1])
def test_a_geotiff_whose_name_looks_like_an_address_is_a_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, level: int
) -> None:
    monkeypatch.chdir(tmp_path)
    _geotiff(Path("a.tif"), picture(100, 130))
    with rasterio.open("a.tif", "r+") as file:
        file.build_overviews([2])
    Path("a.tif").rename("zip:a.tif")
    engine = Engine(model_of(unet()), "float32", backend="eager")
    (item,) = predict(engine, "zip:a.tif", "zip:out", level=level).items
    assert item.status == "done", item.error
    with rasterio.open(tmp_path / "zip:out/zip:a.tif") as file:
        assert file.shape == ((100, 130) if level == 0 else (50, 65))
    with pytest.raises(DataError, match=r"^zip:a\.tif has no level 2"):
        open_image(Path("zip:a.tif"), Reading(level=2))


def test_a_large_geotiff_has_smaller_levels(tmp_path: Path) -> None:
    _geotiff(tmp_path / "g.tif", picture(2100, 90))
    labels = np.random.default_rng(0).integers(0, 3, (2100, 90)).astype(np.uint8)
    with closing(open_image(tmp_path / "g.tif")) as source:
        assert isinstance(source, GeoSource)
        write_geotiff(tmp_path / "out.tif", source, lambda box: labels[box[0][0] : box[0][1]], CLASSES)
    with rasterio.open(tmp_path / "out.tif") as file:
        assert file.overviews(1) == [2, 4]
        assert set(np.unique(file.read(1, out_shape=(525, 23)))) <= {0, 1, 2}
    with closing(open_image(tmp_path / "out.tif")) as again:
        assert again.size == (2100, 90)


def test_a_damaged_geotiff_is_named(tmp_path: Path) -> None:
    path = tmp_path / "g.tif"
    _geotiff(path, picture(128, 128), compress="deflate")
    spoil(path, 0)
    with (
        closing(open_image(path)) as source,
        pytest.raises(DataError, match=r"g.tif has a damaged tile in rows 0 to 50, columns 0 to 50"),
    ):
        source.read(((0, 50), (0, 50)))


ZARRS = [
    (2, (100, 130, 3), None), (3, (100, 130, 3), None), (3, (3, 100, 130), None), (2, (100, 130), None),
    (3, (100, 3, 130), ("y", "c", "x")), (3, (3, 100, 130), ("band", "y", "x")),
    (3, (100, 130, 3), ("Y", "X", "Channel")), (2, (100, 3, 130), ("y", "wavelength", "x")),
]  # fmt: skip


@pytest.mark.parametrize(("form", "shape", "names"), ZARRS)
def test_zarr_arrays_are_read_by_windows(tmp_path: Path, form: Any, shape: Any, names: Any) -> None:
    image = picture(100, 130, 3 if len(shape) == 3 else 1)
    place = shape.index(3) if 3 in shape else -1
    stored = np.moveaxis(image, -1, place) if len(shape) == 3 else image[..., 0]
    named = {"dimension_names": names} if names and form == 3 else {}
    attributes = {"_ARRAY_DIMENSIONS": list(names)} if names and form == 2 else {}  # as xarray writes v2
    array = zarr.create_array(
        str(tmp_path / "a.zarr"), shape=shape, chunks=(32,) * len(shape), dtype="uint8", zarr_format=form,
        attributes=attributes, **named,
    )  # fmt: skip
    array[...] = stored
    windows_agree(open_image(tmp_path / "a.zarr"), image)


def test_without_names_an_image_of_one_row_keeps_its_colours(tmp_path: Path) -> None:
    image = picture(1, 130)
    zarr.create_array(str(tmp_path / "a.zarr"), shape=image.shape, chunks=image.shape, dtype="uint8")[...] = image
    source = open_image(tmp_path / "a.zarr")
    assert (source.size, source.channels) == ((1, 130), 3)
    np.testing.assert_array_equal(source.read(((0, 1), (7, 99)))[0], image[:, 7:99])


def test_axes_that_are_no_channels_are_named(tmp_path: Path) -> None:
    zarr.create_array(
        str(tmp_path / "a.zarr"), shape=(4, 3, 8, 8), chunks=(4, 3, 8, 8), dtype="uint8",
        dimension_names=["time", "band", "y", "x"],
    )  # fmt: skip
    with pytest.raises(DataError, match=r"axes time of 4, c of 3, y of 8, x of 8; .*; select one of time first"):
        open_image(tmp_path / "a.zarr", Reading(fill_missing=True))


def _ome(path: Path, image: np.ndarray, form: Any, names: str = "tcyx") -> None:
    """An OME-Zarr image whose pixels are 0.25 high and 0.5 wide."""
    group = zarr.open_group(str(path), mode="w", zarr_format=form)
    kinds = {"t": "time", "c": "channel", "y": "space", "x": "space"}
    axes = [{"name": name, "type": kinds[name.lower()]} for name in names]
    scale = [{"type": "scale", "scale": [{"y": 0.25, "x": 0.5}.get(name, 1.0) for name in names.lower()]}]
    scales = [{"axes": axes, "datasets": [{"path": "0", "coordinateTransformations": scale}]}]
    group.attrs.update({"ome": {"version": "0.5", "multiscales": scales}} if form == 3 else {"multiscales": scales})
    stored = image[None].transpose(["tyxc".index(name) for name in names.lower()])
    group.create_array("0", shape=stored.shape, chunks=(1, 1, 64, 64), dtype="uint8")[...] = stored


@pytest.mark.parametrize("form", [2, 3])
@pytest.mark.parametrize("names", ["tcyx", "TCYX", "tcxy", "tXYc"])
def test_ome_zarr_is_read_and_its_labels_are_ome_zarr(tmp_path: Path, form: Any, names: str) -> None:
    image = picture(100, 130)
    _ome(tmp_path / "i.zarr", image, form, names)
    source = open_image(tmp_path / "i.zarr")
    assert isinstance(source, ZarrSource)
    windows_agree(source, image)
    labels = create_labels(tmp_path / "l.zarr", source.size, CLASSES, source)
    labels[...] = 1
    again = zarr.open_group(str(tmp_path / "l.zarr"), mode="r")
    words = dict(again.attrs)["ome"] if form == 3 else dict(again.attrs)
    assert words["multiscales"][0]["axes"] == [{"name": "y", "type": "space"}, {"name": "x", "type": "space"}]
    assert words["multiscales"][0]["datasets"][0]["coordinateTransformations"][0]["scale"] == [0.25, 0.5]
    assert words["image-label"]["colors"][1] == {"label-value": 1, "rgba": [*CLASSES.colors[1], 255]}
    assert ZarrSource(tmp_path / "l.zarr").read(((0, 9), (0, 9)))[0].all()


ODD: dict[str, tuple[dict[str, Any], str]] = {
    "no datasets": ({"axes": [{"name": "y"}, {"name": "x"}]}, r"does not describe .* \(KeyError: 'datasets'\)"),
    "no axes": ({"axes": None, "datasets": [{"path": "0"}]}, "does not describe its image as OME-Zarr does"),
    "axes without names": ({"axes": [{}, {}], "datasets": [{"path": "0"}]}, "does not describe its image"),
    "a path to nothing": ({"datasets": [{"path": "9"}]}, "has no level '9'"),
    "a path to a group": ({"datasets": [{"path": "group"}]}, "has no level 'group'"),
    "no level at all": ({"datasets": []}, "has no level 0"),
    "a level without pixels": ({"datasets": [{"path": "empty"}]}, r"has shape \(0, 64\); .*at least one pixel"),
    "times": ({"datasets": [{"path": "times"}]}, r"holds values of datetime64\[s\]; expected real numbers"),
}


def _odd(path: Path, description: dict[str, Any]) -> None:
    group = zarr.open_group(str(path), mode="w")
    group.create_group("group")
    levels = ("0", (64, 64), "uint8"), ("empty", (0, 64), "uint8"), ("times", (8, 8), "datetime64[s]")
    for name, shape, dtype in levels:
        group.create_array(name, shape=shape, chunks=(64, 64), dtype=dtype)[...] = np.zeros(shape, dtype)
    group.attrs["ome"] = {"version": "0.5", "multiscales": [description]}


@pytest.mark.parametrize("how", ODD)
@pytest.mark.filterwarnings("ignore:The data type")  # Zarr has no name for times that all know
def test_odd_zarr_folders_are_named(tmp_path: Path, how: str) -> None:
    description, words = ODD[how]
    _odd(tmp_path / "odd.zarr", description)
    with pytest.raises(DataError, match=rf"odd\.zarr {words}"):
        open_image(tmp_path / "odd.zarr", Reading(fill_missing=True))


@pytest.mark.filterwarnings("ignore:The data type")
@pytest.mark.parametrize("transforms", [None, [{"type": "scale", "scale": [1.0]}], [{"type": "scale", "scale": None}]])
def test_beside_an_image_of_an_unknown_place_the_others_are_painted(tmp_path: Path, transforms: Any) -> None:
    dataset = {"path": "0", "coordinateTransformations": transforms}
    _odd(tmp_path / "in/odd.zarr", {"axes": [{"name": "y"}, {"name": "x"}], "datasets": [dataset]})
    Image.fromarray(picture(20, 30)[..., 0]).save(tmp_path / "in/good.png")
    engine = Engine(model_of(unet(channels=1), channels=1), "float32", backend="eager")
    good, odd = predict(engine, tmp_path / "in", tmp_path / "out", fill_missing=True).items
    assert (good.status, odd.status) == ("done", "failed")
    assert "odd.zarr does not describe its image as OME-Zarr does" in odd.error


def test_missing_chunks_are_named_unless_they_mean_the_fill_value(tmp_path: Path) -> None:
    array = zarr.create_array(str(tmp_path / "a.zarr"), shape=(100, 100), chunks=(50, 50), dtype="uint8", zarr_format=3)
    array[:50] = 1
    array[50:, 50:] = 2
    with pytest.raises(DataError, match=r"a.zarr has no chunk c/1/0.*--fill-missing; fill_missing=True"):
        open_image(tmp_path / "a.zarr")
    pixels, _ = open_image(tmp_path / "a.zarr", Reading(fill_missing=True)).read(((0, 100), (0, 100)))
    np.testing.assert_array_equal(pixels[..., 0], array[...])


@pytest.mark.parametrize("shape", [(100, 120), (3, 100, 120), (100, 120, 3)])
def test_a_chunk_that_goes_while_the_image_is_read_is_named_too(tmp_path: Path, shape: tuple[int, ...]) -> None:
    place = tmp_path / "a.zarr"
    names = {2: "yx", 3: "cyx" if shape[0] == 3 else "yxc"}[len(shape)]
    array = zarr.create_array(
        str(place), shape=shape, chunks=[min(n, 50) for n in shape], dtype="uint8", dimension_names=[*names]
    )
    array[...] = 1
    whole, filled = open_image(place), open_image(place, Reading(fill_missing=True))
    gone = "/".join("1" if name == "y" else "0" for name in names)
    (place / "c" / gone).unlink()
    assert (whole.read(((0, 50), (0, 120)))[0] == 1).all(), "what is there is read"
    assert (whole.read(((50, 100), (50, 120)))[0] == 1).all()
    with pytest.raises(DataError, match=f"a.zarr has no chunk c/{gone}"):
        whole.read(((40, 60), (0, 10)))
    assert (filled.read(((50, 100), (0, 50)))[0] == 0).all()


@pytest.mark.parametrize(
    ("shape", "size"), [((1, 300, 3), (1, 300)), ((300, 1, 3), (300, 1)), ((1, 300, 40), (300, 40))]
)
def test_a_row_or_column_of_pixels_keeps_its_channels(
    tmp_path: Path, shape: tuple[int, ...], size: tuple[int, int]
) -> None:
    zarr.create_array(str(tmp_path / "a.zarr"), shape=shape, chunks=shape, dtype="uint8")[...] = 1
    assert open_image(tmp_path / "a.zarr").size == size


@pytest.mark.parametrize("form", [2, 3])
@pytest.mark.parametrize("codec", ["gzip", "zlib", "blosc", "zstd"])
def test_a_damaged_chunk_of_any_codec_is_named(tmp_path: Path, form: Any, codec: str) -> None:
    made = {
        2: {"gzip": numcodecs.GZip, "zlib": numcodecs.Zlib, "blosc": numcodecs.Blosc, "zstd": numcodecs.Zstd},
        3: {"gzip": codecs.GzipCodec, "zlib": None, "blosc": codecs.BloscCodec, "zstd": codecs.ZstdCodec},
    }[form][codec]
    if made is None:
        pytest.skip("no codec of this format")
    array = zarr.create_array(
        str(tmp_path / "a.zarr"), shape=(64, 64), chunks=(32, 32), dtype="uint8", zarr_format=form, compressors=[made()]
    )
    array[...] = np.arange(64)[:, None] // 3 + np.arange(64) // 5  # what compresses well
    chunk = tmp_path / ("a.zarr/0.1" if form == 2 else "a.zarr/c/0/1")
    whole = chunk.read_bytes()
    middle = len(whole) // 2
    wrong = whole[: middle - 9] + b"\xff" * 20 + whole[middle + 11 :]  # which blosc has no sum to notice by
    for damaged in (whole[:middle], b"", *([wrong] if codec != "blosc" else [])):
        chunk.write_bytes(damaged)
        with pytest.raises(DataError, match=r"a.zarr has a damaged chunk in rows 0 to 64"):
            open_image(tmp_path / "a.zarr").read(((0, 64), (0, 64)))


def test_a_damaged_chunk_and_groups_without_images_are_named(tmp_path: Path) -> None:
    array = zarr.create_array(str(tmp_path / "a.zarr"), shape=(64, 64), chunks=(32, 32), dtype="uint8", zarr_format=3)
    array[...] = picture(64, 64, 1)[..., 0]
    (tmp_path / "a.zarr/c/0/1").write_bytes(b"nothing")
    with pytest.raises(DataError, match=r"a.zarr has a damaged chunk in rows 0 to 64"):
        open_image(tmp_path / "a.zarr").read(((0, 64), (0, 64)))
    group = zarr.open_group(str(tmp_path / "g.zarr"), mode="w")
    group.create_array("raw", shape=(8, 8), chunks=(8, 8), dtype="uint8")
    with pytest.raises(DataError, match=r"group without an image \(it holds raw\)"):
        open_image(tmp_path / "g.zarr")
    (tmp_path / "b.zarr").mkdir()
    (tmp_path / "b.zarr/zarr.json").write_text("{")
    with pytest.raises(DataError, match="not a whole Zarr folder"):
        open_image(tmp_path / "b.zarr")
    zarr.create_array(str(tmp_path / "t.zarr"), shape=(4, 3, 8, 8), chunks=(4, 3, 8, 8), dtype="uint8")
    with pytest.raises(DataError, match="4 axes without names"):
        open_image(tmp_path / "t.zarr", Reading(fill_missing=True))


def test_pictures_and_a_plain_folder(tmp_path: Path) -> None:
    Image.fromarray(picture(40, 50)).save(tmp_path / "a.PNG")
    windows = open_image(tmp_path / "a.PNG")
    np.testing.assert_array_equal(windows.read(((0, 40), (0, 50)))[0], picture(40, 50))
    with pytest.raises(DataError, match="is a folder"):
        open_image(tmp_path)


def test_an_alpha_channel_that_says_nothing_is_dropped() -> None:
    image = np.dstack([picture(20, 30), np.full((20, 30), 255, np.uint8)])
    source = fitted(ArraySource(image), 3)
    np.testing.assert_array_equal(source.read(((0, 20), (0, 30)))[0], image[..., :3])
    image[5, 5, 3] = 9
    with pytest.raises(ModelError, match=r"the last of them between 9 and 255.*if .* alpha, flatten it.*a band"):
        source.read(((0, 20), (0, 30)))
    assert fitted(ArraySource(image), 4).channels == 4


def test_a_missing_extra_names_what_to_install() -> None:
    with pytest.raises(DataError, match=r'a.zarr is a Zarr folder.*pip install "whatwhere\[zarr\]"'):
        extra("no_such_module", "zarr", "a.zarr is a Zarr folder")
