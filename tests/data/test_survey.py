"""A survey's numbers against brute force over the files' pixels."""

from pathlib import Path

import numpy as np
import pytest
import tifffile
from numpy.typing import NDArray
from PIL import Image
from scipy import ndimage
from tiny_folders import Pair, disc, photo, save, write_folder

from whatwhere.data.check import check
from whatwhere.data.facts import Quantiles
from whatwhere.data.folder import find
from whatwhere.data.shapes import class_shapes
from whatwhere.data.survey import _threads, survey
from whatwhere.errors import DataError
from whatwhere.records import VOID

DATA = Path(__file__).parents[3] / "shared" / "data"


def test_normalisation_is_that_of_all_training_pixels(tmp_path: Path) -> None:
    images = [photo(k, (30 + 7 * k, 40 - 3 * k)) for k in range(4)]
    pairs = {f"train/{k}": (image, disc(10, 10, 5, image.shape[:2])) for k, image in enumerate(images)}
    other = {"val/x": (photo(9) // 3, disc())}
    result = survey(find(write_folder(tmp_path, {**pairs, **other}))).normalisation()
    pixels = np.concatenate([image.reshape(-1, 3) for image in images]).astype(float)
    assert np.allclose(result.mean, pixels.mean(0), rtol=1e-12)
    assert np.allclose(result.std, pixels.std(0), rtol=1e-12)
    assert result.dtype == "uint8"


def test_pixels_without_data_count_nowhere(tmp_path: Path) -> None:
    image = np.random.default_rng(0).integers(100, 4000, (20, 30), np.uint16)
    image[:5] = 0
    for part in ("images", "masks"):
        (tmp_path / part).mkdir()
    tifffile.imwrite(tmp_path / "images/a.tif", image, extratags=[(42113, "s", 0, "0", False)])
    save(tmp_path / "masks/a.png", (np.arange(20)[:, None] < 5).repeat(30, axis=1).astype(np.uint8))
    found = survey(find(tmp_path))
    result = found.normalisation()
    assert np.allclose((result.mean, result.std), ([image[5:].mean()], [image[5:].std()]))
    assert found.class_pixels() == (450,)


def test_a_value_that_masks_have_only_where_images_have_no_data_is_no_class(tmp_path: Path) -> None:
    for part in ("images", "masks"):
        (tmp_path / part).mkdir()
    tag = [(42113, "s", 0, "0", False)]
    for number in range(3):
        image = np.random.default_rng(number).integers(100, 4000, (20, 30), np.uint16)
        mask = np.where(disc(10, 10, 4, (20, 30)) > 0, 10, 20).astype(np.uint8)
        image[:, -3:] = mask[:, -3:] = 0
        tifffile.imwrite(tmp_path / f"images/{number}.tif", image, extratags=tag)
        tifffile.imwrite(tmp_path / f"masks/{number}.tif", mask, extratags=tag)
    found = survey(find(tmp_path))
    assert found.classes
    assert (found.classes.values, found.classes.void) == (((10,), (20,)), (0,))
    assert sum(found.class_pixels()) == 3 * 20 * 27
    assert not check(found).of("class-unused")


def test_an_image_with_little_data_weighs_little(tmp_path: Path) -> None:
    images = np.random.default_rng(0).integers(100, 4000, (2, 20, 30), np.uint16)
    images[0, 1:] = 0
    images[1] //= 8
    for part in ("images", "masks"):
        (tmp_path / part).mkdir()
    for name, image in zip("ab", images):
        tifffile.imwrite(tmp_path / f"images/{name}.tif", image, extratags=[(42113, "s", 0, "0", False)])
        save(tmp_path / f"masks/{name}.png", disc(10, 10, 4, (20, 30)))
    result = survey(find(tmp_path)).normalisation()
    counted = np.concatenate([images[0, :1].ravel(), images[1].ravel()]).astype(float)
    assert np.allclose((result.mean, result.std), ([counted.mean()], [counted.std()]))


def _elevations(root: Path, images: list[NDArray[np.float32]]) -> Path:
    """Tiles whose tag calls -9999 no data, with discs as masks."""
    (root / "images").mkdir()
    for number, image in enumerate(images):
        tifffile.imwrite(root / f"images/{number}.tif", image, extratags=[(42113, "s", 0, "-9999", False)])
        save(root / f"masks/{number}.png", disc(10, 10, 4, image.shape))
    return root


def test_an_image_without_any_data_counts_nowhere(tmp_path: Path) -> None:
    images = list(np.random.default_rng(0).normal(1500, 4, (4, 20, 30)).astype(np.float32))
    images[2][:] = -9999
    found = survey(find(_elevations(tmp_path, images)))
    assert [file.image.pixels for file in found.files if file.image] == [600, 600, 0, 600]
    result, counted = found.normalisation(), np.stack([*images[:2], images[3]]).astype(float)
    assert np.allclose((result.mean, result.std), ([counted.mean()], [counted.std()]), rtol=1e-12)
    (told,) = check(found).of("constant-image")
    assert told.files == ("images/2.tif",)
    assert "1 image without any data" in told.message
    assert not check(found).of("black-image")


def test_where_no_image_has_data_there_is_nothing_to_normalise(tmp_path: Path) -> None:
    found = survey(find(_elevations(tmp_path, [np.full((20, 30), -9999, np.float32)] * 3)))
    with pytest.raises(DataError, match="no training image with data"):
        found.normalisation()


def test_photographs_are_told_by_those_with_data(tmp_path: Path) -> None:
    """A mosaic of which most tiles lie beyond its edge."""
    for number in range(5):
        (tmp_path / "images").mkdir(exist_ok=True)
        image = photo(number) if number < 2 else np.zeros((48, 64, 3), np.uint8)
        path = tmp_path / f"images/{number}.tif"
        tifffile.imwrite(path, image, photometric="rgb", extratags=[(42113, "s", 0, "0", False)])
        save(tmp_path / f"masks/{number}.png", disc())
    assert survey(find(tmp_path)).photographs


def test_normalisation_of_deep_and_of_constant_channels(tmp_path: Path) -> None:
    deep = np.random.default_rng(0).integers(0, 4096, (20, 20, 2), np.uint16)
    deep[:, :, 1] = 7
    for part in ("images", "masks"):
        (tmp_path / part).mkdir()
    tifffile.imwrite(tmp_path / "images/a.tif", deep, photometric="minisblack")
    save(tmp_path / "masks/a.png", disc(10, 10, 4, (20, 20)))
    result = survey(find(tmp_path)).normalisation()
    assert result.mean == pytest.approx((deep[:, :, 0].mean(), 7))
    assert result.std == pytest.approx((deep[:, :, 0].std(), 1))
    assert result.dtype == "uint16"


def test_a_channel_of_one_value_has_deviation_1_however_that_is_rounded(tmp_path: Path) -> None:
    values = np.array([0.1, 0.3, 1e6 / 3])
    rng = np.random.default_rng(0)
    for number, (height, width) in enumerate([(20, 31), (23, 29), (37, 53)]):
        image = np.concatenate([rng.random((height, width, 1)), np.tile(values, (height, width, 1))], 2)
        for part in ("images", "masks"):
            (tmp_path / part).mkdir(exist_ok=True)
        tifffile.imwrite(tmp_path / f"images/{number}.tif", image, photometric="minisblack", planarconfig="contig")
        save(tmp_path / f"masks/{number}.png", disc(10, 10, 4, (height, width)))
    result = survey(find(tmp_path)).normalisation()
    assert result.mean[1:] == pytest.approx(values)
    assert result.std[1:] == (1, 1, 1)
    assert result.std[0] < 1


def test_a_band_of_one_value_has_deviation_1_whatever_the_sizes(tmp_path: Path) -> None:
    sizes = [(20 + k, 31 + 5 * k) for k in range(8)]
    pairs: dict[str, Pair] = {}
    for number, size in enumerate(sizes):
        image = photo(number, size).copy()
        image[:, :, 2] = 255
        pairs[f"{number}"] = (image, disc(10, 10, 4, size))
    assert survey(find(write_folder(tmp_path, pairs))).normalisation().std[2] == 1


def test_class_ids_in_gifs_are_not_exchanged(tmp_path: Path) -> None:
    """Of masks that do not show class 1, and beside PNG."""
    total = np.zeros(3, int)
    for number in range(6):
        mask = disc(12 + number) * np.uint8(2)
        mask[:3] = number % 2
        total += np.bincount(mask.ravel(), minlength=3)
        save(tmp_path / f"images/{number}.png", photo(number))
        save(tmp_path / f"masks/{number}.{'png' if number == 5 else 'gif'}", mask)
    seen = survey(find(tmp_path))
    assert seen.classes is not None
    assert (seen.classes.values, seen.class_pixels()) == (((0,), (1,), (2,)), tuple(total.tolist()))


def test_pixels_that_training_sees_are_of_usable_files(good: Path) -> None:
    whole = survey(find(good))
    assert whole.training_pixels == whole.class_pixels("train")
    (good / "train/images/00.png").write_text("no image")
    lost = np.bincount(disc(12, 20).ravel())
    assert survey(find(good)).training_pixels == tuple((np.array(whole.training_pixels) - lost).tolist())


def test_facts_of_the_files(good: Path) -> None:
    seen = survey(find(good))
    first = seen.files[0]
    image = photo(0)
    assert first.image is not None
    assert first.mask is not None
    assert first.image.size == (48, 64)
    assert first.image.minimum == tuple(image.min((0, 1)))
    assert first.image.maximum == tuple(image.max((0, 1)))
    assert not first.image.gray
    assert [shape.pixels for shape in first.mask.shapes] == np.bincount(disc(12, 20).ravel()).tolist()
    assert seen.classes is not None
    assert seen.classes.names == ("background", "foreground")
    total = sum(disc(12 + k, 20 + 2 * k).sum() for k in range(12))
    assert seen.class_pixels("train")[1] == total
    assert seen.photographs
    assert seen.object_extents(1) == Quantiles(16, 19, 19, 19, 19)


def test_reading_order_does_not_depend_on_threads(good: Path) -> None:
    counts: list[tuple[int, int]] = []
    alone = survey(find(good), workers=1, progress=lambda done, total: counts.append((done, total)))
    assert alone == survey(find(good), workers=4)
    assert counts == [(k, 32) for k in range(1, 33)], "masks are read twice, first for the classes"
    counts.clear()
    (good / "classes.toml").write_text("[[class]]\nvalue = 0\n[[class]]\nvalue = 1\n")
    survey(find(good), progress=lambda done, total: counts.append((done, total)))
    assert counts == [(k, 16) for k in range(1, 17)]


def test_few_are_read_together_where_they_are_large_in_bytes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An image of 8 bands of 16 bits takes many times what a grey one of as many pixels does."""
    monkeypatch.setattr("os.cpu_count", lambda: 8)
    monkeypatch.setitem(_threads.__globals__, "_MOST_BYTES", 8 * 18 * 5000)
    paths = {}
    for name, image in (("grey", np.zeros((50, 100), np.uint8)), ("bands", np.zeros((50, 100, 8), np.uint16))):
        paths[name] = tmp_path / f"{name}.tif"
        tifffile.imwrite(paths[name], image, photometric="minisblack")
    assert _threads([paths["grey"]]) == 8
    assert _threads([paths["grey"], paths["bands"]]) == 3


def test_bad_files_do_not_stop_it(good: Path) -> None:
    (good / "train/images/00.png").write_text("no image")
    (good / "train/masks/01.png").write_text("no mask")
    seen = survey(find(good))
    assert "00.png is not an image" in seen.files[0].image_error
    assert "01.png is not an image" in seen.files[1].mask_error
    assert [file.usable for file in seen.files[:3]] == [False, False, True]


def test_nothing_usable(tmp_path: Path) -> None:
    seen = survey(find(write_folder(tmp_path, {"train/a": (photo(0), disc()[:10])})))
    assert not seen.training
    with pytest.raises(DataError, match="no usable training image"):
        seen.normalisation()


def test_objects_equal_labelling_by_class() -> None:
    rng = np.random.default_rng(1)
    labels = (ndimage.gaussian_filter(rng.normal(size=(60, 70)), 2) * 20).astype(int).clip(0, 3).astype(np.uint8)
    labels[:5, :5] = VOID
    for place, shape in enumerate(class_shapes(labels, 5)):
        parts, count = ndimage.label(labels == place, np.ones((3, 3)))
        boxes = ndimage.find_objects(parts)
        assert shape.pixels == (labels == place).sum()
        assert len(shape.areas) == len(shape.extents) == count
        assert sorted(shape.areas) == sorted(np.bincount(parts.ravel())[1:])
        assert sorted(shape.extents) == sorted(max(b.stop - b.start for b in box) for box in boxes)


def test_objects_are_kept_in_four_bytes_a_number() -> None:
    labels = np.zeros((60, 60), np.uint8)
    labels[::2, ::2] = 1
    shape = class_shapes(labels, 2)[1]
    assert [memoryview(of).nbytes for of in (shape.areas, shape.extents)] == [4 * 900] * 2
    assert Quantiles.of(shape.extents, shape.areas) == Quantiles(900, 1, 1, 1, 1)


@pytest.mark.parametrize("width", [1, 3, 5, 9])
def test_thickness_of_a_bar_is_its_width(width: int) -> None:
    labels = np.zeros((60, 60), np.uint8)
    labels[20 : 20 + width, 5:55] = 1
    thick = class_shapes(labels, 2)[1].thickness
    assert max(thick) == width
    assert max(class_shapes(labels.T.copy(), 2)[1].thickness) == width
    assert sum(n for value, n in thick.items() if value < width) <= 4


def test_thickness_of_one_class_is_not_known() -> None:
    assert class_shapes(np.zeros((9, 9), np.uint8), 1)[0].thickness == {}


def test_weighted_quantiles_are_those_of_repeated_values() -> None:
    values, weights = [5, 1, 9, 2], [1, 7, 2, 90]
    repeated = np.repeat(values, weights)
    got = Quantiles.of(values, weights)
    assert got is not None
    assert got.count == 100
    expected = np.quantile(repeated, [0, 0.05, 0.5, 1], method="inverted_cdf")
    assert [got.smallest, got.low, got.median, got.largest] == expected.tolist()
    assert Quantiles.of([]) is None


def test_uprightness_of_skies_and_of_noise(tmp_path: Path) -> None:
    def landscape(k: int) -> np.ndarray:
        return (photo(k) // 3 + np.linspace(150, 0, 48)[:, None, None]).astype(np.uint8)

    up = survey(find(write_folder(tmp_path / "up", {f"{k}": (landscape(k), disc()) for k in range(12)})))
    any_way = survey(find(write_folder(tmp_path / "any", {f"{k}": (photo(k), disc()) for k in range(12)})))
    assert up.uprightness > 0.5
    assert any_way.uprightness < 0.1


@pytest.mark.slow
@pytest.mark.skipif(not DATA.is_dir(), reason="the real data sets are not beside the project")
def test_real_membranes_agree_with_brute_force() -> None:
    folder = find(DATA / "isbi_membrane")
    pixels = np.concatenate([np.asarray(Image.open(s.image)).ravel() for s in folder.splits["train"]]).astype(float)
    found = survey(folder)
    assert found.normalisation().mean[0] == pytest.approx(pixels.mean())
    assert found.normalisation().std[0] == pytest.approx(pixels.std())
    thick = found.thickness(1)
    assert thick is not None
    assert 3 <= thick.median <= 9
