"""What mask values mean: inference, classes.toml, encoding."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.typing import NDArray
from PIL import Image, ImageDraw
from scipy import ndimage
from tiny_folders import disc

from whatwhere.data.images import read_mask
from whatwhere.data.mapping import as_classes_are, class_colors, encode_mask, infer_classes, read_classes
from whatwhere.data.values import MOST_COUNTED, count_values, soft_values
from whatwhere.errors import DataError
from whatwhere.records import VOID, Classes


def infer(*masks: NDArray[np.generic]) -> Classes:
    return infer_classes({f"{k}.png": count_values(mask) for k, mask in enumerate(masks)})


@given(hnp.arrays(np.uint8, hnp.array_shapes(min_dims=2, max_dims=2, max_side=12), elements=st.integers(0, 3)))
@settings(deadline=None)
def test_counts_equal_brute_force(mask: NDArray[np.uint8]) -> None:
    wide = mask.astype(np.int32) * 70_000
    colors = np.stack([mask * 5, 30 - mask, mask * 0], 2)
    for array in (mask, wide, colors):
        flat = array.reshape(mask.size, -1)
        for count in count_values(array):
            same = (flat == count.value).all(1).reshape(mask.shape)
            assert count.pixels == same.sum()
            assert count.solid == ndimage.binary_erosion(same, np.ones((3, 3)), border_value=0).sum()
        assert sum(count.pixels for count in count_values(array)) == mask.size


def test_ids_black_and_white_and_names() -> None:
    assert infer(disc()).values == ((0,), (1,))
    assert infer(disc() * 255).values == ((0,), (255,))
    assert infer(disc() * 255).names == ("background", "foreground")
    assert infer(disc() * 2, disc() * 7).names == ("class 0", "class 2", "class 7")
    assert not infer(disc() * 255).nearest
    assert infer(disc() * 0).count == 1


def test_255_beside_consecutive_ids_is_void_and_else_a_class() -> None:
    mask = disc() + disc(radius=3)
    mask[:4] = 255
    classes = infer(mask)
    assert classes.values == ((0,), (1,), (2,))
    assert classes.void == (255,)
    assert (encode_mask(mask, classes)[:4] == VOID).all()
    gray = np.where(disc() == 1, 255, disc(radius=15) * 128).astype(np.uint8)
    assert infer(gray).values == ((0,), (128,), (255,))


def test_rgb_colors_and_a_gray_file_among_them() -> None:
    palette = np.array([[0, 0, 0], [255, 0, 0], [255, 255, 255]], np.uint8)
    colored = palette[disc()]
    gray = disc() * np.uint8(255)  # a colour mask in which only black and white occur is read as grey
    classes = infer(colored, gray)
    assert classes.values == (((0, 0, 0),), ((255, 0, 0),), ((255, 255, 255),))
    assert classes.colors == ((0, 0, 0), (255, 0, 0), (255, 255, 255))
    assert classes.names[1] == "class #ff0000"
    assert np.array_equal(encode_mask(gray, classes), disc() * 2)
    assert np.array_equal(encode_mask(colored, classes), disc())


def test_palette_gives_the_colors() -> None:
    palette = np.zeros((256, 3), np.uint8)
    palette[:2] = (1, 2, 3), (200, 100, 0)
    assert infer_classes({"a": count_values(disc())}, {"a": palette}).colors == ((1, 2, 3), (200, 100, 0))
    same = np.zeros((256, 3), np.uint8)  # a palette that tells nothing apart
    assert len(set(infer_classes({"a": count_values(disc())}, {"a": same}).colors)) == 2


def soft_masks(tmp_path: Path) -> dict[str, NDArray[np.generic]]:
    truth = disc(60, 70, 40, (120, 160)) * np.uint8(255)
    blurred = ndimage.gaussian_filter(truth.astype(float), 1).round().astype(np.uint8)
    Image.fromarray(truth).save(tmp_path / "gray.jpg", quality=85)
    colors = np.array([[0, 0, 0], [250, 0, 0], [0, 0, 250]], np.uint8)
    ids = disc(60, 40, 25, (120, 160)) + 2 * disc(60, 120, 25, (120, 160))
    Image.fromarray(colors[ids]).save(tmp_path / "color.jpg", quality=85)
    return {
        "antialiased": blurred,
        "gray jpeg": read_mask(tmp_path / "gray.jpg"),
        "color jpeg": read_mask(tmp_path / "color.jpg"),
    }


def test_antialiased_and_jpeg_masks_have_few_classes(tmp_path: Path) -> None:
    truth = disc(60, 70, 40, (120, 160))
    ids = disc(60, 40, 25, (120, 160)) + 2 * disc(60, 120, 25, (120, 160))
    for kind, mask in soft_masks(tmp_path).items():
        classes = infer(mask)
        assert classes.nearest, kind
        assert classes.count == (3 if kind == "color jpeg" else 2), kind
        labels = encode_mask(mask, classes)
        if kind == "color jpeg":  # classes are sorted by colour: black, blue, red
            labels = np.array([0, 2, 1], np.uint8)[labels]
        assert (labels != (ids if kind == "color jpeg" else truth)).mean() < 0.01, kind


def test_a_mask_scaled_with_smoothing_has_two_classes() -> None:
    small = Image.fromarray(disc() * np.uint8(255))
    mask = np.asarray(small.resize((128, 96), Image.Resampling.BILINEAR))
    assert 5 <= len(np.unique(mask)) <= 12
    assert infer(mask).values == ((0,), (255,))
    assert infer(mask).nearest


def test_thin_classes_are_not_taken_for_soft_edges() -> None:
    mask = np.zeros((60, 60), np.uint8)
    mask[:, 30:] = 1
    for k in range(3):
        mask[5 + 10 * k, :] = 2 + k  # lines of one pixel, each its own class
    assert not soft_values(count_values(mask))
    assert infer(mask).count == 5


def test_hundreds_of_colors_are_refused_with_count_and_file() -> None:
    noise = np.random.default_rng(0).integers(0, 256, (40, 40, 3), np.uint8)
    masks = np.repeat(np.repeat(noise, 9, 0), 9, 1)
    with pytest.raises(DataError, match=r"hold 1,\d\d\d different colours, 1,\d\d\d of them in 0.png; .*at most 100"):
        infer(masks)
    cells = np.arange(700, dtype=np.uint16).repeat(4).reshape(40, 70)
    with pytest.raises(DataError, match=r"700 different values, .*if the values number single objects"):
        infer(cells)


def test_of_a_photograph_in_a_masks_place_the_commonest_colours_are_kept_and_all_are_counted() -> None:
    noise = np.random.default_rng(0).integers(0, 256, (160, 200, 3), np.uint8)
    noise[:20] = 7, 8, 9
    distinct = len(np.unique(noise.reshape(-1, 3), axis=0))
    counts = count_values(noise)
    assert (counts.distinct, counts.area) == (distinct, 160 * 200)
    assert len(counts) == len(list(counts)) < 1000 < MOST_COUNTED < distinct
    assert max(counts, key=lambda count: count.pixels).value == (7, 8, 9)
    with pytest.raises(DataError, match=f"masks look like photographs: 0.png has {distinct:,} different colours"):
        infer(noise, noise)
    numbers = np.arange(40_000, dtype=np.uint16).repeat(2).reshape(200, 400)
    numbers[:4] = 39_999
    counts = count_values(numbers)
    assert (counts.distinct, len(counts), list(counts)[-1].pixels) == (39_200, MOST_COUNTED, 4 * 400 + 2)
    with pytest.raises(DataError, match=r"hold at least 39,200 different values, 39,200 of them in 0.png"):
        infer(numbers)
    mask = np.array([[0, 0, 0], [250, 0, 0]], np.uint8)[disc()]
    with pytest.raises(DataError, match=f"hold at least {distinct:,} different colours, {distinct:,} of them in 9.png"):
        infer(*[mask] * 9, noise)


def test_jpeg_of_small_coloured_objects_is_told_from_photographs(tmp_path: Path) -> None:
    """4:2:0 halves the colours' resolution: most pixels of small objects blur."""
    colors, rng = np.array([[0, 0, 0], [255, 0, 0], [0, 255, 0]], np.uint8), np.random.default_rng(0)
    masks = {}
    for name in ("0.jpg", "1.jpg"):
        ids = np.zeros((128, 128), np.uint8)
        for y, x, radius, number in rng.integers((0, 0, 5, 1), (128, 128, 14, 3), (6, 4)):
            ids[disc(y, x, radius, (128, 128)) > 0] = number
        Image.fromarray(colors[ids]).save(tmp_path / name, quality=85)
        masks[name] = count_values(read_mask(tmp_path / name))
    with pytest.raises(DataError, match=r"as JPEG and smoothing leave masks.*as PNG.*classes.toml with nearest = true"):
        infer_classes(masks)


def test_one_bad_mask_among_good_ones_is_not_taken_for_edges() -> None:
    colors = np.array([[0, 0, 0], [250, 0, 0]], np.uint8)[disc()]
    scattered = colors.copy()
    rng = np.random.default_rng(0)
    place = rng.choice(48 * 64, 700, replace=False)
    scattered.reshape(-1, 3)[place] = rng.integers(0, 256, (700, 3))
    noise = rng.integers(0, 256, (48, 64, 3), np.uint8)
    for bad in (scattered, noise):
        with pytest.raises(DataError, match=r"different colours, [\d,]+ of them in 9.png"):
            infer(*[colors] * 9, bad)


def test_colors_are_distinct_and_start_dark() -> None:
    colors = class_colors([(k,) for k in range(60)])
    assert len(set(colors)) == 60
    assert sum(colors[0]) < 150
    nearest = min(sum(abs(a - b) for a, b in zip(p, q)) for k, p in enumerate(colors[:12]) for q in colors[:k])
    assert nearest > 40
    assert class_colors([(k,) for k in range(254)])[:60] == colors, "more classes change no colour"


_MACHADO = {
    "normal": np.eye(3),
    "deuteranopia": [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]],
    "protanopia": [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]],
}
"""How linear RGB looks, by another model than the colours are chosen by (Machado, Oliveira & Fernandes, 2009)."""


@pytest.mark.parametrize("vision", _MACHADO)
@pytest.mark.parametrize(("count", "least"), [(12, 8), (20, 5), (32, 4.5)])
def test_many_classes_are_told_apart_by_all(vision: str, count: int, least: float) -> None:
    color = pytest.importorskip("skimage.color")
    srgb = np.array(class_colors([(k,) for k in range(count)])) / 255
    linear = np.where(srgb > 0.04045, ((srgb + 0.055) / 1.055) ** 2.4, srgb / 12.92)
    seen = (linear @ np.transpose(_MACHADO[vision])).clip(0, 1)
    lab = color.rgb2lab(np.where(seen > 0.0031308, 1.055 * seen ** (1 / 2.4) - 0.055, 12.92 * seen))
    apart = color.deltaE_ciede2000(lab[:, None], lab[None])
    assert apart[~np.eye(count, dtype=bool)].min() > least


ANY = Classes(("a", "b"), ((0, 0, 0), (1, 1, 1)), ((3, 5), (900,)), (7, -1))


@given(hnp.arrays(np.int32, (5, 6), elements=st.sampled_from([3, 5, 900, 7, -1])))
def test_encoding_equals_a_dictionary(mask: NDArray[np.int32]) -> None:
    meaning = {3: 0, 5: 0, 900: 1, 7: VOID, -1: VOID}
    assert encode_mask(mask, ANY).tolist() == [[meaning[v] for v in row] for row in mask.tolist()]


@given(hnp.arrays(np.uint8, (4, 5, 3)), st.booleans())
def test_encoding_never_invents_and_takes_the_nearest(mask: NDArray[np.uint8], flat: bool) -> None:
    colors = ((0, 0, 0), (255, 0, 0), (40, 90, 200))
    classes = Classes(("a", "b"), colors[:2], ((colors[0],), (colors[1],)), (colors[2],), nearest=True)
    array = mask[:, :, 0] if flat else mask
    assume(array.max() != 1)  # another way of writing masks, and an error
    labels = encode_mask(array, classes)
    assert set(np.unique(labels)) <= {0, 1, VOID}
    full = np.repeat(array[:, :, None], 3, 2) if flat else array
    apart = [((full.astype(int) - color) ** 2).sum(-1) for color in colors]
    ids = np.array([0, 1, VOID])
    chosen = np.choose(np.searchsorted(ids, labels), apart)
    assert (chosen == np.min(apart, axis=0)).all()


def test_unknown_values_are_named_with_count_and_file() -> None:
    mask = disc()
    mask[0, :5] = 9
    with pytest.raises(DataError, match=r"x.png has 5 pixels of value 9 in no class; expected one of 0, 1; add the"):
        encode_mask(mask, infer(disc()), "x.png")
    with pytest.raises(DataError, match=r"x.png is a colour mask; expected the integers 0, 1"):
        encode_mask(np.zeros((2, 2, 3), np.uint8), infer(disc()), "x.png")


def test_classes_toml(tmp_path: Path) -> None:
    path = tmp_path / "classes.toml"
    path.write_text(
        'void = [11, "#ffffff"]\nnearest = true\n'
        '[[class]]\nvalue = 0\nname = "sky"\ncolor = "#808080"\n'
        "[[class]]\nvalues = [1, 2, 3]\n[[class]]\nvalue = [10, 20, 30]\ncolor = [1, 2, 3]\n",
        "utf-8",
    )
    classes = read_classes(path)
    assert classes.names == ("sky", "class 1", "class #0a141e")
    assert classes.values == ((0,), (1, 2, 3), ((10, 20, 30),))
    assert classes.void == (11, (255, 255, 255))
    assert classes.colors[0] == (128, 128, 128)
    assert classes.colors[2] == (1, 2, 3)
    assert classes.nearest


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[[class]\n", "classes.toml: "),
        ("colour = 3\n", "unknown key 'colour'"),
        ("[[class]]\nvalue = 1\nnam = 'x'\n", r"unknown key 'class.nam'"),
        ("[[class]]\nname = 'x'\n", "the class 'x' has not one of value and values"),
        ("[[class]]\nvalue = 1.5\n", r"1.5 is not a mask value \(an integer, '#rrggbb' or \[r, g, b\]\)"),
        ("void = [1]\n[[class]]\nvalue = 1\n", "the value 1 is listed twice"),
        ("[[class]]\nvalues = []\n", "a class has no value"),
        ("[[class]]\nvalue = 1\n[[class]]\nvalue = 1\nname = 'x'\n", "the value 1 is listed twice"),
        ("[[class]]\nvalue = true\n", "True is not a mask value"),
        ("[[class]]\nvalue = [true, 0, 0]\n", r"\[True, 0, 0\] is not a mask value"),
        ("[[class]]\nvalue = 9223372036854775808\n", "9223372036854775808 is in no mask: integers go from -9"),
        ("[[class]]\nvalue = 0\n[[class]]\nvalue = '#000000'\n", r"the value \(0, 0, 0\) is listed twice; beside"),
        ("void = [300]\n[[class]]\nvalue = '#000000'\n", "the value 300 is in no mask: integers beside colours"),
        ("[[class]]\nvalue = [1, 2, 300]\n", r"\[1, 2, 300\] is not a colour"),
        ("[[class]]\nvalue = '#12345'\n", "'#12345' is not a colour"),
        ("", "0 classes"),
        ("[class]\nvalue = 1\n", r"class is no list of tables: each begins with a line of its own, \[\[class\]\]"),
        ("class = ['sky', 'road']\n", r"class is no list of tables"),
        ("nearest = 'false'\n[[class]]\nvalue = 1\n", "nearest = 'false' is neither true nor false"),
        ("void = 11\n[[class]]\nvalue = 1\n", r"void = 11 is no list; write void = \[11\]"),
        ("[[class]]\nvalues = '#102030'\n", r"values = '#102030' is no list"),
    ],
)
def test_bad_classes_toml(tmp_path: Path, text: str, words: str) -> None:
    path = tmp_path / "classes.toml"
    path.write_text(text, "utf-8")
    with pytest.raises(DataError, match=words) as caught:
        read_classes(path)
    assert "or remove it to have the classes inferred" in str(caught.value)


def _palette(*colors: tuple[int, int, int]) -> np.ndarray:
    table = np.zeros((256, 3), np.uint8)
    table[: len(colors)] = colors
    return table


RED, GREEN, BLACK = (200, 0, 0), (0, 200, 0), (0, 0, 0)


def test_palettes_that_differ_make_their_colours_the_classes() -> None:
    masks = {"a": disc(), "b": disc(row=30)}
    palettes = {"a": _palette(BLACK, RED), "b": _palette(GREEN, RED)}
    classes = infer_classes({name: count_values(mask) for name, mask in masks.items()}, palettes)
    assert classes.values == ((BLACK,), (GREEN,), (RED,))
    ids = {name: encode_mask(as_classes_are(mask, palettes[name], classes), classes) for name, mask in masks.items()}
    assert set(np.unique(ids["a"])) == {0, 2}
    assert set(np.unique(ids["b"])) == {1, 2}
    assert (ids["b"][masks["b"] == 1] == 2).all()


def test_palettes_that_agree_in_what_is_used_or_say_nothing_leave_indices_the_classes() -> None:
    masks = {"a": count_values(disc()), "b": count_values(disc()), "c": count_values(disc())}
    ramp = np.arange(256, dtype=np.uint8)[:, None].repeat(3, axis=1)
    palettes = {"a": _palette(BLACK, RED), "b": _palette(BLACK, RED, GREEN), "c": ramp}
    assert infer_classes(masks, palettes).values == ((0,), (1,))


@pytest.mark.parametrize("ramp", [False, True])
def test_a_palette_whose_0_is_white_beside_black_and_white_is_colours(ramp: bool) -> None:
    """As numbers, 1 would be what 255 is not."""
    white = (255, 255, 255)
    masks = {"a": 1 - disc(), "b": disc() * np.uint8(255)}
    palettes = {"a": _palette(white, BLACK)}
    if ramp:
        palettes = {"b": np.arange(256, dtype=np.uint8)[:, None].repeat(3, axis=1), **palettes}
    classes = infer_classes({name: count_values(mask) for name, mask in masks.items()}, palettes)
    assert classes.values == ((BLACK,), (white,))
    for name, mask in masks.items():
        labels = encode_mask(as_classes_are(mask, palettes.get(name), classes), classes)
        np.testing.assert_array_equal(labels, disc())


def test_255_is_void_by_its_colour_too() -> None:
    ids = np.array([0, 1, 2, 255], np.uint8).repeat(16).reshape(4, 16).repeat(8, axis=0)
    palettes = {"a": _palette(BLACK, RED, GREEN), "b": _palette(BLACK, RED, (0, 0, 200))}
    for palette in palettes.values():
        palette[255] = (224, 224, 192)
    classes = infer_classes({name: count_values(ids) for name in palettes}, palettes)
    assert classes.void == ((224, 224, 192),)
    assert classes.count == 4
    labels = encode_mask(as_classes_are(ids, palettes["a"], classes), classes)
    np.testing.assert_array_equal(labels == VOID, ids == 255)


def test_two_values_of_one_colour_are_not_merged_in_silence() -> None:
    ids = np.array([0, 1, 2], np.uint8).repeat(16).reshape(3, 16).repeat(8, axis=0)
    palettes = {"a": _palette(BLACK, RED, RED), "b": _palette(GREEN, RED, BLACK)}
    with pytest.raises(DataError, match=r"a has several values of the colour \(200, 0, 0\)"):
        infer_classes({name: count_values(ids) for name in palettes}, palettes)


def test_a_palette_beside_coloured_masks_is_colours() -> None:
    coloured = _palette(BLACK, RED)[disc()]
    masks = {"a": count_values(disc()), "b": count_values(coloured)}
    assert infer_classes(masks, {"a": _palette(BLACK, RED)}).values == ((BLACK,), (RED,))


@pytest.mark.parametrize(
    ("values", "void"),
    [
        ((0, 1, 2, 255), True),
        ((0, 8, 12, 255), True),
        ((1, 2, 255), True),
        ((0, 128, 255), False),
        ((11, 41, 255), True),
        ((11, 41, 82, 95, 255), True),
        ((0, 60, 255), False),
        ((0, 50, 100, 150, 255), False),
        ((0, 3, 7, 12, 20, 27, 43, 66, 90, 126, 149, 255), True),
        (tuple(range(0, 256, 17)), False),
    ],
)
def test_255_beside_small_ids_is_void(values: tuple[int, ...], void: bool) -> None:
    mask = np.array(values, np.uint8).repeat(16).reshape(len(values), 16).repeat(8, axis=0)
    classes = infer_classes({"a": count_values(mask)})
    assert classes.void == ((255,) if void else ())
    assert classes.count == len(values) - void


def test_1_in_some_masks_and_255_in_others_is_asked_about() -> None:
    with pytest.raises(DataError, match=r"some masks hold 1 \(a\), others 255 \(b\), and none both"):
        infer_classes({"a": count_values(disc()), "b": count_values(disc() * 255)})


@pytest.mark.parametrize("one", [1, 255])
@pytest.mark.parametrize("large", [65535, 2**31 - 1, 2**32 - 1])
def test_masks_of_two_depths_are_asked_about(one: int, large: int) -> None:
    small, deep = disc().astype(np.int64) * one, disc(row=30).astype(np.int64) * large
    with pytest.raises(DataError, match=rf"some masks hold {one} \(0.png\), others {large} \(1.png\)") as caught:
        infer(small, deep)
    assert f"values = [{one}, {large}] if {large} means the same" in str(caught.value)
    assert f"with void = [{large}] above them, if it does not count" in str(caught.value)
    deep[20, :20] = one
    assert infer(small, deep).void == (large,), "beside the other in a mask it is none of its own"


def test_255_and_several_ids_that_no_mask_holds_both_are_asked_about() -> None:
    masks = [disc(), disc(row=30) * np.uint8(2), disc() * np.uint8(255)]
    with pytest.raises(DataError, match=r"ids from 1 to 2 \(0.png\), others 255 \(2.png\), and none both") as caught:
        infer(*masks)
    assert "values = [1, 255] if 255 means the same as 1, with one more of value = 255 if" in str(caught.value)
    assert "void = [255] above them" in str(caught.value)
    bordered = disc()
    bordered[:2] = 255
    unlabelled = np.full((48, 64), 255, np.uint8)
    for more in ([*masks, bordered], [*masks[:2], unlabelled]):
        assert (infer(*more).void, infer(*more).values) == ((255,), ((0,), (1,), (2,)))


@pytest.mark.parametrize("lacking", [-9999, -1, 65535, 2**31 - 1])
def test_what_maps_hold_where_nothing_is_known_is_void(lacking: int) -> None:
    mask = np.zeros((20, 20), np.int64)
    mask[:8, 5:], mask[12:, 10:], mask[:3] = 1, 2, lacking
    classes = infer(mask)
    assert (classes.values, classes.void) == (((0,), (1,), (2,)), (lacking,))
    assert set(np.unique(encode_mask(mask, classes))) == {0, 1, 2, 255}


def test_large_numbers_beside_large_ones_are_classes() -> None:
    mask = np.zeros((20, 20), np.int64)
    mask[:8], mask[12:] = 1000, 65535
    assert infer(mask).void == ()


def _vessels(width: int, seed: int) -> Image.Image:
    drawn = Image.new("L", (300, 300))
    places = np.random.default_rng(seed).uniform(0, 300, (30, 4, 2))
    for line in places:
        ImageDraw.Draw(drawn).line([tuple(point) for point in line.tolist()], fill=255, width=width)
    return drawn


@pytest.mark.parametrize("width", [1, 2, 3])
@pytest.mark.parametrize("quality", [75, 95])
def test_vessels_too_thin_to_have_an_inside_are_one_class_in_jpeg_too(tmp_path: Path, width: int, quality: int) -> None:
    masks = {}
    for seed in range(3):
        path = tmp_path / f"{seed}.jpg"
        _vessels(width, seed).save(path, quality=quality)
        masks[path.name] = count_values(read_mask(path))
    classes = infer_classes(masks)
    assert (classes.values, classes.nearest) == (((0,), (255,)), True)
    assert (encode_mask(read_mask(path), classes) != (np.asarray(_vessels(width, 2)) > 0)).mean() < 0.02


def test_numbers_of_small_objects_are_no_blur() -> None:
    mask, rng = np.zeros((600, 600), np.uint8), np.random.default_rng(0)
    for number in range(1, 256):
        y, x = rng.integers(0, 590, 2)
        mask[y : y + 3, x : x + 3] = number
    assert soft_values(count_values(mask)) == frozenset()


def test_a_mask_of_0_and_1_is_not_all_background_to_classes_of_0_and_255() -> None:
    classes = Classes(("rest", "cell"), ((0, 0, 0), (9, 9, 9)), ((0,), (255,)), nearest=True)
    assert encode_mask(np.uint8([[0, 3, 250]]), classes).tolist() == [[0, 0, 1]]
    assert encode_mask(np.uint8([[0, 0]]), classes).tolist() == [[0, 0]]
    with pytest.raises(DataError, match=r"a.png is a mask of 0 and 1; expected one of 0, 255"):
        encode_mask(disc(), classes, "a.png")
    with pytest.raises(DataError, match="a mask of 0 and 1"):
        encode_mask((np.asarray(_vessels(1, 0)) > 0).astype(np.uint8), classes)
    stray = np.zeros((40, 40), np.uint8)
    stray[3, ::20] = 1
    assert not encode_mask(stray, classes).any(), "what JPEG leaves beside zeros"


@pytest.mark.parametrize("largest", [65535, 2**31 - 1, 2**32 - 1])
def test_all_bits_set_beside_zero_alone_is_a_class(largest: int) -> None:
    """So (mask > 0) * 65535 and ImageJ's masks of 16 bits are."""
    classes = infer(disc().astype(np.int64) * largest)
    assert (classes.values, classes.void, classes.names) == (((0,), (largest,)), (), ("background", "foreground"))


def test_the_best_jpeg_leaves_few_values_that_are_no_classes(tmp_path: Path) -> None:
    for name, levels in {"two": (0, 255), "four": (0, 70, 140, 210)}.items():
        mask = np.zeros((96, 128), np.uint8)
        for number, level in enumerate(levels):
            mask[:, 30 * number :] = level
            mask[20 + 9 * number : 40, 11 + 30 * number : 19 + 30 * number] = levels[number - 1]
        Image.fromarray(mask).save(tmp_path / f"{name}.jpg", quality=100)
        found = read_mask(tmp_path / f"{name}.jpg")
        assert len(np.unique(found)) > len(levels), "JPEG has changed something"
        classes = infer(found)
        assert (classes.values, classes.nearest) == (tuple((level,) for level in levels), True)


def test_strays_beside_black_and_white_are_no_classes() -> None:
    mask = disc(size=(200, 200), radius=60, row=90, column=100) * np.uint8(255)
    mask[::40, ::50] += 1  # 1 and, by way of 256, 0
    mask[90, 60:64] = 254
    assert infer(mask).values == ((0,), (255,))


VOC = {0: (0, 0, 0), 1: (128, 0, 0), 2: (0, 128, 0), 15: (192, 128, 128), 255: (224, 224, 192)}


@pytest.mark.parametrize(
    ("colors", "void"),
    [
        ([VOC[0], VOC[1], VOC[255]], True),
        ([*VOC.values()], True),
        ([VOC[0], VOC[255]], False),
        ([VOC[0], VOC[1], (255, 255, 255), VOC[255]], False),
    ],
)
def test_the_border_of_voc_is_void_as_a_colour_too(colors: list[tuple[int, int, int]], void: bool) -> None:
    ids = np.arange(len(colors)).repeat(16).reshape(len(colors), 16).repeat(8, axis=0)
    classes = infer(np.array(colors, np.uint8)[ids])
    assert classes.void == ((VOC[255],) if void else ())
    assert classes.count == len(colors) - void


def _numbered(first: int) -> NDArray[np.int32]:
    """Twelve objects with a number each, of one of which only a sliver shows."""
    mask = np.zeros((48, 64), np.int32)
    for place in range(12):
        y, x, width = 12 * (place // 4), 16 * (place % 4), 1 if place == 7 else 12
        mask[y : y + 10, x : x + width] = first + place
    return mask


def test_numbers_of_objects_are_no_blurred_edges() -> None:
    for step, by_values_alone in ((40, True), (60, False)):  # up to 212 and 312, which is beyond white
        masks = [_numbered(1 + step * place) for place in range(6)]
        counts = [count for mask in masks for count in count_values(mask) if count.value]
        assert bool(soft_values(counts)) is by_values_alone
        assert (infer(*masks).nearest, infer(*masks).count) == (False, 73)


@pytest.mark.parametrize("dtype", ["uint8", "uint16"])
def test_smoothing_of_many_masks_is_still_told(dtype: str) -> None:
    white = np.iinfo(dtype).max
    discs = [disc(12 + 2 * k, 20 + 3 * k) * float(white) for k in range(6)]
    classes = infer(*[ndimage.gaussian_filter(one, 0.8).round().astype(dtype) for one in discs])
    assert (classes.values, classes.nearest) == (((0,), (white,)), True)


def test_the_nearest_of_values_of_32_bits() -> None:
    """Whose differences squared are more than 64 bits."""
    classes = Classes(("a", "b"), ((0, 0, 0), (1, 1, 1)), ((0,), (4294967295,)), (), True)
    mask = np.array([[10, 4294967290, 3500000000]], np.uint32)
    assert encode_mask(mask, classes).tolist() == [[0, 1, 1]]
