"""TIFFs that belong to a set of files: each is read as what it holds itself, whatever its siblings are."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from numpy.typing import NDArray

from whatwhere.data.images import decoded_bytes, image_size, read_image, read_mask
from whatwhere.data.tiffs import main_series, open_tiff
from whatwhere.errors import DataError
from whatwhere.paint.tiff import TiffSource

A = np.arange(12 * 17, dtype=np.uint8).reshape(12, 17)
B = A[::-1, :10] // 3
OTHER = A[::-1] // 3
"""As large as the first."""
SETTINGS = '{"Camera": "none"}'


def ome(own: str, images: list[NDArray[np.uint8]], parts: list[list[str]]) -> str:
    """OME-XML of a file: for each image of the set, in which file each of its planes lies."""
    scenes = ""
    for number, (image, planes) in enumerate(zip(images, parts)):
        data = "".join(
            f'<TiffData FirstC="{channel}" IFD="0" PlaneCount="1">'
            f'<UUID FileName="{name}">urn:uuid:{name}</UUID></TiffData>'
            for channel, name in enumerate(planes)
        )
        scenes += (
            f'<Image ID="Image:{number}"><Pixels ID="Pixels:{number}" DimensionOrder="XYCZT" Type="uint8" '
            f'SizeX="{image.shape[1]}" SizeY="{image.shape[0]}" SizeC="{len(planes)}" SizeZ="1" SizeT="1">'
            f'<Channel ID="Channel:{number}:0" SamplesPerPixel="1"/>{data}</Pixels></Image>'
        )
    return (
        '<?xml version="1.0" encoding="UTF-8"?>'
        f'<OME xmlns="http://www.openmicroscopy.org/Schemas/OME/2016-06" UUID="urn:uuid:{own}">{scenes}</OME>'
    )


def write(root: Path, files: dict[str, NDArray[np.uint8]], parts: list[list[str]]) -> None:
    images = [files[planes[0]] for planes in parts]
    for name, array in files.items():
        described = ome(name, images, parts)
        tifffile.imwrite(root / name, array, photometric="minisblack", description=described, metadata=None, ome=False)
    with tifffile.TiffFile(root / name) as tif:
        assert tif.is_ome


def is_read_as(path: Path, image: NDArray[np.uint8]) -> None:
    assert image_size(path) == image.shape
    assert decoded_bytes(path) == image.nbytes
    np.testing.assert_array_equal(read_image(path)[..., 0], image)
    assert read_image(path).shape[2] == 1
    np.testing.assert_array_equal(read_mask(path), image)
    with closing(TiffSource(path)) as source:
        assert (source.size, source.channels) == (image.shape, 1)
        np.testing.assert_array_equal(source.read(((0, 9), (0, 9)))[0][..., 0], image[:9, :9])


def test_of_one_scene_a_file_each_file_is_its_own(tmp_path: Path) -> None:
    write(tmp_path, {"a.tif": A, "b.tif": B}, [["a.tif"], ["b.tif"]])
    is_read_as(tmp_path / "a.tif", A)
    is_read_as(tmp_path / "b.tif", B)


def test_of_one_plane_a_file_each_file_is_its_own(tmp_path: Path) -> None:
    write(tmp_path, {"a.tif": A, "b.tif": OTHER}, [["a.tif", "b.tif"]])
    is_read_as(tmp_path / "a.tif", A)
    is_read_as(tmp_path / "b.tif", OTHER)


def test_an_ome_file_with_a_new_name_is_itself(tmp_path: Path) -> None:
    write(tmp_path, {"a.tif": A}, [["a.tif"]])
    is_read_as((tmp_path / "a.tif").rename(tmp_path / "new.tif"), A)


def test_positions_of_micro_manager_are_not_stacked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def found(file: Any, _keys: object = None) -> dict[str, Any]:
        summary = {"MicroManagerVersion": "2", "Prefix": "exp", "Frames": 1, "Positions": 2, "Slices": 1, "Channels": 1}
        index = np.array([[0, 0, 0, int("Pos1" in file.name), 8]])
        return {"MajorVersion": 0, "MinorVersion": 0, "Summary": summary, "IndexMap": index}

    monkeypatch.setattr("tifffile.tifffile.read_micromanager_metadata", found)
    for name, image in (("Pos0", A), ("Pos1", OTHER)):
        tifffile.imwrite(
            tmp_path / f"exp_MMStack_{name}.tif", image, metadata=None, extratags=[(51123, "s", 0, SETTINGS, True)]
        )
    with tifffile.TiffFile(tmp_path / "exp_MMStack_Pos1.tif") as tif:
        assert tif.series[0].shape == (2, 12, 17), "as tifffile would have it"
    is_read_as(tmp_path / "exp_MMStack_Pos0.tif", A)
    is_read_as(tmp_path / "exp_MMStack_Pos1.tif", OTHER)


def test_what_lies_in_other_files_is_never_taken_for_this_one(tmp_path: Path) -> None:
    write(tmp_path, {"a.tif": A, "b.tif": OTHER}, [["a.tif", "b.tif"]])
    with (
        tifffile.TiffFile(tmp_path / "b.tif") as tif,
        pytest.raises(DataError, match=r"b\.tif goes on in other files; expected an image in one file"),
    ):
        main_series(tif)
    with open_tiff(tmp_path / "b.tif") as tif:
        assert main_series(tif).shape == A.shape


@pytest.mark.parametrize("ome", [False, True])
def test_of_several_images_in_a_file_none_is_taken_for_all(tmp_path: Path, ome: bool) -> None:
    path = tmp_path / "pages.tif"
    with tifffile.TiffWriter(path, ome=ome) as tif:
        for page in (A, OTHER, A):
            tif.write(page)
    for read in (read_image, read_mask, image_size, TiffSource):
        with pytest.raises(DataError, match=r"pages\.tif holds 3 images of 12x17; expected one image a file"):
            read(path)
    with tifffile.TiffWriter(path, ome=ome) as tif:
        for page in (B, A):
            tif.write(page)
    is_read_as(path, A)
