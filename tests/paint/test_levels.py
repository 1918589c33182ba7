"""Smaller levels of pyramids: which there are, that they are read, and where on Earth or in micrometres they lie."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
import rasterio
import tifffile
import zarr
from painting import model_of, picture, unet, whole_logits
from PIL import Image
from rasterio.enums import Resampling
from rasterio.transform import Affine

from tiny import Cli
from whatwhere.errors import DataError, PlanError
from whatwhere.network import save_model
from whatwhere.paint import Engine, predict
from whatwhere.paint.files import open_image
from whatwhere.paint.sources import Reading

pytestmark = pytest.mark.filterwarnings(
    "ignore:Use `@` matmul:PendingDeprecationWarning"
)  # rasterio's own use of affine

IMAGE = picture(200, 300)
PYRAMID = [IMAGE, picture(100, 150, seed=1), picture(50, 75, seed=2)]
"""Its levels differ from each other in more than size, so that no other level passes for one."""


def as_ome(path: Path) -> Path:
    with tifffile.TiffWriter(path.with_suffix(".ome.tif"), bigtiff=True) as writer:
        writer.write(IMAGE, subifds=2, tile=(64, 64), photometric="rgb", metadata={"axes": "YXS"})
        for smaller in PYRAMID[1:]:
            writer.write(smaller, subfiletype=1, tile=(64, 64), photometric="rgb", compression="zlib")
    return path.with_suffix(".ome.tif")


def as_pages(path: Path) -> Path:
    """As GDAL, libvips and whatwhere write them; and a thumbnail of another kind, which is no level."""
    with tifffile.TiffWriter(path.with_suffix(".tif")) as writer:
        writer.write(IMAGE, tile=(64, 64), photometric="rgb", metadata=None)
        for smaller in PYRAMID[1:]:
            writer.write(smaller, subfiletype=1, tile=(64, 64), photometric="rgb", metadata=None)
        writer.write(np.zeros((20, 30), np.uint8), subfiletype=1, photometric="minisblack", metadata=None)
    return path.with_suffix(".tif")


def as_zarr(path: Path) -> Path:
    place = path.with_suffix(".zarr")
    group = zarr.open_group(str(place), mode="w", zarr_format=3)
    axes = [{"name": "c", "type": "channel"}, {"name": "y", "type": "space"}, {"name": "x", "type": "space"}]
    datasets = []
    for level, image in enumerate(PYRAMID):
        array = group.create_array(str(level), shape=(3, *image.shape[:2]), chunks=(3, 64, 64), dtype="uint8")
        array[...] = image.transpose(2, 0, 1)
        scale = [{"type": "scale", "scale": [1.0, 0.25 * 2**level, 0.5 * 2**level]}]
        datasets.append({"path": str(level), "coordinateTransformations": scale})
    group.attrs.update({"ome": {"version": "0.5", "multiscales": [{"axes": axes, "datasets": datasets}]}})
    return place


KINDS = [as_ome, as_pages, as_zarr]


@pytest.fixture(scope="module")
def engine() -> Engine:
    return Engine(model_of(unet()), "float32")


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("level", [0, 1, 2])
def test_each_level_is_read(kind: Callable[[Path], Path], level: int, tmp_path: Path) -> None:
    with closing(open_image(kind(tmp_path / "p"), Reading(level))) as source:
        height, width = PYRAMID[level].shape[:2]
        assert source.size == (height, width)
        np.testing.assert_array_equal(source.read(((0, height), (0, width)))[0], PYRAMID[level])
        np.testing.assert_array_equal(source.read(((7, 41), (9, 70)))[0], PYRAMID[level][7:41, 9:70])


@pytest.mark.parametrize("kind", KINDS)
def test_a_level_that_is_not_there_is_told_with_those_that_are(kind: Callable[[Path], Path], tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"has no level 3; expected one of its levels \(0: 200x300, 1: 100x150, 2: 50"):
        open_image(kind(tmp_path / "p"), Reading(3))


def test_images_without_levels_say_so(tmp_path: Path) -> None:
    Image.fromarray(IMAGE).save(tmp_path / "a.png")
    tifffile.imwrite(tmp_path / "a.tif", IMAGE, photometric="rgb")
    array = zarr.create_array(str(tmp_path / "a.zarr"), shape=IMAGE.shape, chunks=(64, 64, 3), dtype="uint8")
    array[...] = IMAGE
    for name in ("a.png", "a.tif"):
        with pytest.raises(DataError, match=rf"{name} has no level 1; expected one of its levels \(0: 200x300\)"):
            open_image(tmp_path / name, Reading(1))
    with pytest.raises(DataError, match=r"a.zarr has no level 1; expected an OME-Zarr image with levels"):
        open_image(tmp_path / "a.zarr", Reading(1))


def test_a_level_below_zero() -> None:
    with pytest.raises(PlanError, match="level = -1; expected 0 for the largest"):
        Reading(-1)


@pytest.mark.parametrize("kind", KINDS)
def test_a_level_is_painted_like_an_image_of_its_size(
    kind: Callable[[Path], Path], tmp_path: Path, engine: Engine
) -> None:
    (item,) = predict(engine, kind(tmp_path / "p"), tmp_path / "out", level=1, overlay=True).items
    assert item.status == "done"
    with closing(open_image(Path(item.output or ""))) as painted:
        labels = painted.read(((0, 100), (0, 150)))[0]
    want = whole_logits(engine.model, PYRAMID[1]).argmax(0).numpy().astype(np.uint8)
    if labels.shape[-1] == 3:  # a palette is read as its colours
        found = np.array(engine.model.classes.colors, np.uint8)[want]
    else:
        found = want[..., None]
    np.testing.assert_array_equal(labels, found)


def test_another_level_is_another_painting(tmp_path: Path, engine: Engine) -> None:
    image = as_pages(tmp_path / "p")
    assert predict(engine, image, tmp_path / "out", level=1).items[0].status == "done"
    assert predict(engine, image, tmp_path / "out", level=1).items[0].status == "skipped"
    assert "with level 1, and this one has level 2" in predict(engine, image, tmp_path / "out", level=2).items[0].error
    assert predict(engine, image, tmp_path / "out", level=2, overwrite=True).items[0].status == "done"


def test_a_level_of_a_geotiff_lies_where_the_whole_does(tmp_path: Path, engine: Engine) -> None:
    with rasterio.open(
        tmp_path / "g.tif", "w", driver="GTiff", height=200, width=300, count=3, dtype="uint8", crs="EPSG:32632",
        transform=Affine(0.5, 0, 4e5, 0, -0.5, 5e6), tiled=True, blockxsize=64, blockysize=64,
    ) as file:  # fmt: skip
        file.write(IMAGE.transpose(2, 0, 1))
        file.build_overviews([2, 4], Resampling.average)
    (item,) = predict(engine, tmp_path / "g.tif", tmp_path / "out", level=2).items
    with rasterio.open(tmp_path / "g.tif") as whole, rasterio.open(item.output) as painted:
        assert painted.shape == (50, 75)
        assert painted.bounds == whole.bounds
        assert painted.crs == whole.crs
        assert painted.transform.a == 2.0
    with pytest.raises(DataError, match=r"has no level 3; expected one of its levels \(0: 200x300, 1: 100x150, 2: 50"):
        open_image(tmp_path / "g.tif", Reading(3))


def test_a_level_of_ome_zarr_keeps_its_size_of_pixels(tmp_path: Path, engine: Engine) -> None:
    (item,) = predict(engine, as_zarr(tmp_path / "p"), tmp_path / "out", level=2).items
    words = dict(zarr.open_group(item.output, mode="r").attrs)["ome"]["multiscales"][0]
    assert words["datasets"][0]["coordinateTransformations"][0]["scale"] == [1.0, 2.0]


def test_the_command_line_takes_a_level(tmp_path: Path, run_cli: Cli) -> None:
    model = save_model(model_of(unet()), tmp_path / "m.safetensors")
    image = as_ome(tmp_path / "p")
    done = run_cli("predict", model, image, "-o", "out", "--level", 1, "-q")
    assert done.code == 0
    with tifffile.TiffFile(tmp_path / "out" / "p.tif") as file:
        assert file.pages.first.shape == (100, 150)
    proved = run_cli("predict", model, image, "-o", "out", "--level", 1, "--prove")
    assert proved.code == 0
    missing = run_cli("predict", model, image, "-o", "other", "--level", 5, "-q")
    assert missing.code == 2
    assert "has no level 5" in missing.err
    assert run_cli("predict", model, image, "-o", "other", "--level", -1).code == 2
