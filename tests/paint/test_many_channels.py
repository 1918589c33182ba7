"""TIFFs of many channels, read by windows though they have few pixels; and what ImageJ writes of more than 4 GB."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from painting import large_above, model_of, picture, unet, whole_logits

from whatwhere.data import read_image
from whatwhere.errors import DataError
from whatwhere.paint import Engine, predict
from whatwhere.paint.files import open_image
from whatwhere.paint.tiff import TiffSource

IMAGE = picture(90, 100, 8)


STACKS: dict[str, tuple[np.ndarray, dict[str, Any]]] = {
    "channels": (IMAGE, {"planarconfig": "contig", "photometric": "minisblack", "tile": (32, 32)}),
    "slices": (IMAGE.transpose(2, 0, 1), {"imagej": True, "metadata": {"axes": "ZYX"}}),
    "moments": (IMAGE.transpose(2, 0, 1), {"ome": True, "metadata": {"axes": "TYX"}, "compression": "zlib"}),
    "pages": (IMAGE.transpose(2, 0, 1), {"photometric": "minisblack", "tile": (32, 32)}),
    "rows as pages": (IMAGE, {"photometric": "minisblack"}),
    "rows as pages, channels between": (IMAGE.transpose(0, 2, 1), {"photometric": "minisblack", "compression": "zlib"}),
}


@pytest.mark.parametrize(
    "large", [8_000, pytest.param(10_000, marks=pytest.mark.slow)], ids=["by its pixels", "by its bytes"]
)
@pytest.mark.parametrize("stack", STACKS)
def test_what_has_many_channels_is_painted_by_windows(
    tmp_path: Path, stack: str, large: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The image has more pixels than a large one, or more bytes than four for each of those."""
    large_above(monkeypatch, large)
    stored, options = STACKS[stack]
    tifffile.imwrite(tmp_path / "a.tif", stored, **options)
    np.testing.assert_array_equal(read_image(tmp_path / "a.tif"), IMAGE)
    with closing(open_image(tmp_path / "a.tif")) as source:
        assert isinstance(source, TiffSource)
        np.testing.assert_array_equal(source.read(((10, 40), (20, 90)))[0], IMAGE[10:40, 20:90])
    engine = Engine(model_of(unet(channels=8), channels=8), "float32", backend="eager")
    (item,) = predict(engine, tmp_path / "a.tif", tmp_path / "out", tile=64).items
    assert item.status == "done", item.error
    np.testing.assert_array_equal(tifffile.imread(tmp_path / "out/a.tif"), whole_logits(engine.model, IMAGE).argmax(0))


def test_a_stack_of_which_only_the_first_page_is_listed_is_told(tmp_path: Path) -> None:
    stack = IMAGE[..., :5].transpose(2, 0, 1)
    tifffile.imwrite(tmp_path / "a.tif", stack, imagej=True, metadata={"axes": "CYX"}, truncate=True)
    with tifffile.TiffFile(tmp_path / "a.tif") as file:
        assert file.series[0].is_truncated
    with pytest.raises(DataError, match=r"a.tif declares 5 channels, and has pages for 1;.*BigTIFF or OME-TIFF"):
        TiffSource(tmp_path / "a.tif")
    np.testing.assert_array_equal(read_image(tmp_path / "a.tif"), IMAGE[..., :5])
    tifffile.imwrite(tmp_path / "b.tif", stack, imagej=True, metadata={"axes": "CYX"})
    with closing(TiffSource(tmp_path / "b.tif")) as source:
        assert source.channels == 5
