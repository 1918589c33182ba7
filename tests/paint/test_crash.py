"""A painting that is killed at changes of the disk: nothing looks complete that is not, and a rerun ends it."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
import zarr
from painting import large_above, model_of, picture, unet
from PIL import Image

from crash import deaths
from tiny import rarely
from whatwhere.paint import Engine, predict

pytestmark = [
    pytest.mark.skipif(sys.platform != "linux", reason="open files are named by /proc"),
    pytest.mark.filterwarnings(
        "ignore::pytest.PytestUnraisableExceptionWarning",
        "ignore::ResourceWarning",
        "ignore:Use `@` matmul:PendingDeprecationWarning",  # rasterio's own use of affine
    ),
]


@pytest.fixture(scope="module")
def engine() -> Engine:
    return Engine(model_of(unet()), "float32")


def content(path: Path) -> Any:
    """All bytes of a file or folder."""
    if path.is_dir():
        return {p.relative_to(path).as_posix(): p.read_bytes() for p in sorted(path.rglob("*")) if p.is_file()}
    return path.read_bytes()


def paintings(folder: Path) -> dict[str, Any]:
    """What lies in an output folder, but for its record and hidden leftovers."""
    return {p.name: content(p) for p in folder.iterdir() if p.name != "predictions.jsonl" and p.name[0] != "."}


def png(path: Path, image: np.ndarray) -> None:
    Image.fromarray(image[:60, :50]).save(path)


def tiff(path: Path, image: np.ndarray) -> None:
    tifffile.imwrite(path, image, photometric="rgb", tile=(64, 64))


def plain_zarr(path: Path, image: np.ndarray) -> None:
    zarr.create_array(str(path), shape=image.shape, chunks=(128, 128, 3), dtype="uint8")[...] = image


def ome_zarr(path: Path, image: np.ndarray) -> None:
    axes = [{"name": n, "type": "channel" if n == "c" else "space"} for n in "cyx"]
    group = zarr.open_group(str(path), mode="w", zarr_format=3)
    level = {"path": "0", "coordinateTransformations": [{"type": "scale", "scale": [1.0, 0.5, 0.5]}]}
    group.attrs["ome"] = {"version": "0.5", "multiscales": [{"axes": axes, "datasets": [level]}]}
    shape = (3, *image.shape[:2])
    group.create_array("0", shape=shape, chunks=(3, 128, 128), dtype="uint8")[...] = np.moveaxis(image, 2, 0)


def geotiff(path: Path, image: np.ndarray) -> None:
    rasterio = pytest.importorskip("rasterio")
    height, width = image.shape[:2]
    place = rasterio.transform.from_origin(500000, 5200000, 2, 2)
    with rasterio.open(
        path, "w", driver="GTiff", height=height, width=width, count=3, dtype="uint8", crs="EPSG:32632", transform=place
    ) as file:
        file.write(np.moveaxis(image, 2, 0))


KINDS = {"a.png": png, "a.tif": tiff, "a.zarr": plain_zarr, "ome.zarr": ome_zarr, "geo.tif": geotiff}


def drawn(name: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An image of a kind; all but the PNG count as large, and take the way of those."""
    if name != "a.png":
        large_above(monkeypatch)
    KINDS[name](folder / name, picture(300, 280))
    return folder / name


@pytest.mark.parametrize("name", rarely(KINDS, "a.zarr", "ome.zarr", "a.tif"))
def test_killed_at_changes_of_the_disk(
    name: str, tmp_path: Path, engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = drawn(name, tmp_path, monkeypatch)
    extras: dict[str, Any] = {"tile": 320, "probabilities": True, "overlay": True}
    assert not predict(engine, source, tmp_path / "straight", **extras).failed
    straight = paintings(tmp_path / "straight")
    moments = 0
    for moment, out in deaths(tmp_path / "out", lambda out: predict(engine, source, out, **extras)):
        moments += 1
        for file, found in paintings(out).items():
            assert file.endswith(".partial") or found == straight[file], f"{file} is not whole after death {moment}"
        again = predict(engine, source, out, **extras)
        assert not again.failed, f"{again} after death {moment}"
        assert paintings(out) == straight, f"after death {moment}"
        shutil.rmtree(out)
    assert moments > 10


@pytest.mark.parametrize("name", rarely(KINDS, "ome.zarr", "a.tif", "geo.tif"))
def test_killed_while_a_painting_is_replaced(
    name: str, tmp_path: Path, engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    source, other = drawn(name, tmp_path, monkeypatch), Engine(model_of(unet(seed=1)), "float32")
    straight = []
    for number, one in enumerate((other, engine)):
        predict(one, source, tmp_path / str(number), tile=320, probabilities=not number, overlay=True)
        straight.append(paintings(tmp_path / str(number)))

    def replaced(out: Path) -> None:
        predict(engine, source, out, tile=320, overlay=True, overwrite=True)

    def begun(out: Path) -> None:
        shutil.copytree(tmp_path / "0", out, dirs_exist_ok=True)

    for moment, out in deaths(tmp_path / "out", replaced, begun=begun):
        found = paintings(out)
        if name in found:
            assert found[name] in (straight[0][name], straight[1][name]), f"after death {moment}"
        replaced(out)
        assert paintings(out) == straight[1], f"after death {moment}"
        shutil.rmtree(out)
