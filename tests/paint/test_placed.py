"""Images that lie on Earth by a file beside them, or by a satellite's camera: what is painted lies there too."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
import tifffile
from painting import large_above, model_of, picture, unet, whole_logits
from PIL import Image

from whatwhere.errors import DataError
from whatwhere.paint import Engine, predict
from whatwhere.paint.files import open_image
from whatwhere.paint.sources import ArraySource

rasterio = pytest.importorskip("rasterio")
pytestmark = [
    pytest.mark.filterwarnings("ignore:Use `@` matmul:PendingDeprecationWarning"),  # rasterio's own use of affine
    pytest.mark.filterwarnings("ignore:Dataset has no geotransform"),
]
IMAGE = picture(60, 70)
WORLD = "2\n0\n0\n-2\n500001\n5199999\n"
PAM = "<PAMDataset><GeoTransform> 500000, 2, 0, 5200000, 0, -2</GeoTransform></PAMDataset>"
STATISTICS = "<PAMDataset><Metadata><MDI key='STATISTICS_MEAN'>5</MDI></Metadata></PAMDataset>"


@pytest.fixture(scope="module")
def engine() -> Engine:
    return Engine(model_of(unet()), "float32", backend="eager")


@pytest.mark.parametrize(
    ("name", "beside", "words"),
    [
        ("a.tif", "a.tfw", WORLD),
        ("a.TIF", "a.TFW", WORLD),
        ("a.tif", "a.tifw", WORLD),
        ("a.tiff", "a.wld", WORLD),
        ("a.tif", "a.tif.aux.xml", PAM),
    ],
    ids=["tfw", "TFW", "tifw", "wld", "aux.xml"],
)
def test_a_place_that_stands_in_a_file_beside_it_is_kept(
    tmp_path: Path, engine: Engine, name: str, beside: str, words: str
) -> None:
    tifffile.imwrite(tmp_path / name, IMAGE, photometric="rgb")
    (tmp_path / beside).write_text(words)
    (item,) = predict(engine, tmp_path / name, tmp_path / "out", probabilities=True).items
    assert item.status == "done", item.error
    for painted in (Path(item.output or ""), tmp_path / "out/a.probabilities.tif"):
        with rasterio.open(painted) as file:
            assert file.transform == rasterio.transform.from_origin(500000, 5200000, 2, 2)
    with rasterio.open(item.output) as file:
        np.testing.assert_array_equal(file.read(1), whole_logits(engine.model, IMAGE).argmax(0))


def test_statistics_beside_an_image_are_no_place(tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "a.tif", IMAGE, photometric="rgb")
    (tmp_path / "a.tif.aux.xml").write_text(STATISTICS)
    assert isinstance(open_image(tmp_path / "a.tif"), ArraySource)


def test_a_place_beside_an_image_needs_the_extra_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tifffile.imwrite(tmp_path / "a.tif", IMAGE, photometric="rgb")
    (tmp_path / "a.tfw").write_text(WORLD)
    monkeypatch.setitem(sys.modules, "rasterio", None)
    with pytest.raises(DataError, match=r'a.tif is a GeoTIFF.*pip install "whatwhere\[geo\]"'):
        open_image(tmp_path / "a.tif")


@pytest.mark.parametrize("level", [0, 1])
def test_the_camera_of_a_satellite_is_kept(tmp_path: Path, engine: Engine, level: int) -> None:
    one = [1.0] + [0.0] * 19
    camera = rasterio.rpc.RPC(
        height_off=1, height_scale=2, lat_off=50, lat_scale=0.1, line_off=30, line_scale=30, long_off=8, long_scale=0.1,
        samp_off=35, samp_scale=35, line_den_coeff=one, samp_den_coeff=one, line_num_coeff=[0.0, 0.0, 1.0] + [0.0] * 17,
        samp_num_coeff=[0.0, 1.0] + [0.0] * 18,
    )  # fmt: skip
    with rasterio.open(
        tmp_path / "a.tif", "w", driver="GTiff", height=60, width=70, count=3, dtype="uint8", rpcs=camera
    ) as file:
        file.write(IMAGE.transpose(2, 0, 1))
        file.build_overviews([2])
    (item,) = predict(engine, tmp_path / "a.tif", tmp_path / "out", level=level).items
    assert item.status == "done", item.error
    with rasterio.open(item.output) as file:
        assert (file.width, file.height) == (70 >> level, 60 >> level)
        assert (file.rpcs.lat_off, file.rpcs.line_scale * 2**level) == (50, 30)


PLACE = rasterio.Affine(2, 0, 500000, 0, -2, 5200000)
SYSTEM = "<SRS>EPSG:32632</SRS>"


def test_a_coordinate_system_that_no_tag_can_hold_is_kept(tmp_path: Path, engine: Engine) -> None:
    """Climate models' rotated poles: GDAL writes them beside the file."""
    turned = rasterio.crs.CRS.from_proj4(
        "+proj=ob_tran +o_proj=longlat +o_lon_p=0 +o_lat_p=39.25 +lon_0=18 +to_meter=0.0174532925199433"
    )
    for name, system in (("pole", turned), ("plain", rasterio.crs.CRS.from_epsg(32632))):
        (tmp_path / name).mkdir()
        with rasterio.open(
            tmp_path / name / "a.tif", "w", driver="GTiff", height=60, width=70, count=3, dtype="uint8", crs=system,
            transform=PLACE,
        ) as file:  # fmt: skip
            file.write(IMAGE.transpose(2, 0, 1))
    painted = [tmp_path / "out/a.tif", tmp_path / "out/a.probabilities.tif"]
    for name in ("pole", "plain"):
        options = {"probabilities": name == "pole", "overwrite": True}
        (item,) = predict(engine, tmp_path / name / "a.tif", tmp_path / "out", **options).items
        assert item.status == "done", item.error
        for one in painted[: 2 if name == "pole" else 1]:
            with rasterio.open(one) as found, rasterio.open(tmp_path / name / "a.tif") as given:
                assert found.crs is not None
                assert (found.crs, found.transform) == (given.crs, given.transform)
    assert not list((tmp_path / "out").glob("*.aux.xml")), "of the first painting, and wrong of this one"


@pytest.mark.parametrize("large", [False, True])
@pytest.mark.parametrize(
    ("name", "beside", "words"),
    [
        ("a.png", "a.pgw", WORLD),
        ("a.png", "a.PGW", WORLD),
        ("a.jpg", "a.jgw", WORLD),
        ("a.jpeg", "a.jpegw", WORLD),
        ("a.bmp", "a.wld", WORLD),
        ("a.png", "a.png.aux.xml", PAM.replace("<GeoT", f"{SYSTEM}<GeoT")),
    ],
    ids=["pgw", "PGW", "jgw", "jpegw", "wld", "aux.xml"],
)
def test_a_place_that_stands_beside_a_picture_then_stands_beside_its_painting(
    tmp_path: Path, engine: Engine, monkeypatch: pytest.MonkeyPatch, name: str, beside: str, words: str, large: bool
) -> None:
    if large:
        large_above(monkeypatch)
    Image.fromarray(IMAGE).save(tmp_path / name)
    (tmp_path / beside).write_text(words)
    painted = [tmp_path / f"out/a.{'tif' if large else 'png'}", tmp_path / "out/a.probabilities.tif"]
    (item,) = predict(engine, tmp_path / name, tmp_path / "out", probabilities=True).items
    assert item.status == "done", item.error
    for one in painted:
        with rasterio.open(one) as file:
            assert file.transform == PLACE
            assert (file.crs is not None) == (SYSTEM in words)
    (tmp_path / beside).unlink()
    assert not predict(engine, tmp_path / name, tmp_path / "out", probabilities=True, overwrite=True).failed
    with rasterio.open(painted[0]) as file:
        assert file.transform.is_identity, "the earlier painting's place went with it"
    assert len(list((tmp_path / "out").iterdir())) == 3, "labels, probabilities and the ledger"


def test_of_notes_beside_a_picture_what_is_of_its_pixels_stays_there(tmp_path: Path, engine: Engine) -> None:
    Image.fromarray(IMAGE).save(tmp_path / "a.png")
    for words, kept in ((STATISTICS, False), (PAM.replace("</PAM", "<Metadata>5</Metadata></PAM"), True), ("<", False)):
        (tmp_path / "a.png.aux.xml").write_text(words)
        predict(engine, tmp_path / "a.png", tmp_path / "out", overwrite=True)
        notes = tmp_path / "out/a.png.aux.xml"
        assert notes.exists() == kept
        assert not kept or "Metadata" not in notes.read_text()


def test_the_place_of_a_picture_that_is_turned_upright_is_not_that_of_its_painting(
    tmp_path: Path, engine: Engine
) -> None:
    turned = Image.Exif()
    turned[0x0112] = 6
    Image.fromarray(IMAGE).save(tmp_path / "a.jpg", exif=turned)
    (tmp_path / "a.jgw").write_text(WORLD)
    done = predict(engine, tmp_path / "a.jpg", tmp_path / "out")
    assert "not placed on Earth" in str(done)
    assert not (tmp_path / "out/a.pgw").exists()


@pytest.mark.parametrize("internal", [True, False])
def test_a_mask_says_where_there_is_no_data_wherever_the_image_lies(
    tmp_path: Path, engine: Engine, internal: bool
) -> None:
    mask = np.full((60, 70), 255, np.uint8)
    mask[:20, :30] = 0
    with (
        rasterio.Env(GDAL_TIFF_INTERNAL_MASK=internal),
        rasterio.open(
            tmp_path / "a.tif", "w", driver="GTiff", height=60, width=70, count=3, dtype="uint8", photometric="rgb"
        ) as file,
    ):
        file.write(IMAGE.transpose(2, 0, 1))
        file.write_mask(mask)
    assert (tmp_path / "a.tif.msk").exists() != internal
    (item,) = predict(engine, tmp_path / "a.tif", tmp_path / "out").items
    assert item.status == "done", item.error
    np.testing.assert_array_equal(tifffile.imread(item.output) == 255, mask == 0)


@pytest.mark.parametrize("level", [0, 1])
def test_tiles_that_a_geotiff_leaves_out_hold_no_data(tmp_path: Path, engine: Engine, level: int) -> None:
    image = picture(256, 256)
    image[:128, 128:] = 0
    with rasterio.open(
        tmp_path / "a.tif", "w", driver="GTiff", height=256, width=256, count=3, dtype="uint8", transform=PLACE,
        tiled=True, blockxsize=64, blockysize=64, sparse_ok=True, compress="deflate",
    ) as file:  # fmt: skip
        file.write(image.transpose(2, 0, 1))
        with rasterio.Env(GDAL_TIFF_OVR_BLOCKSIZE=64, SPARSE_OK_OVERVIEW=True):
            file.build_overviews([2])
    (item,) = predict(engine, tmp_path / "a.tif", tmp_path / "out", level=level).items
    assert item.status == "done", item.error
    lacking = np.zeros((256, 256), bool)
    lacking[:128, 128:] = True
    np.testing.assert_array_equal(tifffile.imread(item.output) == 255, lacking[:: 2**level, :: 2**level])
