"""TIFFs that lie on Earth by a file beside them, or by a satellite's camera: what is painted lies there too."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
import tifffile
from painting import model_of, picture, unet, whole_logits

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
