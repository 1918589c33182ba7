"""Division into train and val, and likeness of images."""

import itertools
from collections.abc import Sequence
from itertools import combinations, pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from scipy.ndimage import gaussian_filter
from tiny_folders import disc, photo, save, write_folder

from whatwhere.data.check import check
from whatwhere.data.facts import FileSurvey, ImageFacts, MaskFacts, Survey
from whatwhere.data.folder import Folder, Sample, find
from whatwhere.data.likeness import _strips, alike, fingerprint, groups, likeness, twins, uprightness
from whatwhere.data.shapes import ClassShape
from whatwhere.data.split import _OVERLAP, bands_of, bound_by_name, frames_of, pieces_of, split
from whatwhere.data.survey import survey
from whatwhere.errors import DataError
from whatwhere.records import Classes
from whatwhere.verbs import plan

DATA = Path(__file__).parents[3] / "shared" / "data"


def divide(root: Path, **settings: float) -> Folder:
    folder = find(root)
    return split(folder, survey(folder), **settings)  # type: ignore[arg-type]


def are_alike(one: bytes, other: bytes) -> bool:
    return twins([one, other], [0, 1]) == {1: 0}


def sides(folder: Folder) -> tuple[set[str], set[str]]:
    return {s.name for s in folder.splits["train"]}, {s.name for s in folder.splits["val"]}


def test_share_seed_and_completeness(tmp_path: Path) -> None:
    root = write_folder(tmp_path, {f"{k:02}": (photo(k), disc()) for k in range(20)})
    train, val = sides(divide(root))
    assert (len(train), len(val)) == (16, 4)
    assert not train & val
    assert sides(divide(root)) == (train, val)
    assert sides(divide(root, seed=1)) != (train, val)
    assert len(sides(divide(root, val_share=0.5))[1]) == 10


def test_given_splits_stay_but_for_unusable_files(good: Path) -> None:
    (good / "train/images/03.png").write_text("broken")
    folder = find(good)
    train, val = sides(split(folder, survey(folder)))
    assert train == {f"{k:02}" for k in range(12)} - {"03"}
    assert val == {f"{k:02}" for k in range(12, 16)}


def test_train_without_val_is_divided_and_test_stays(tmp_path: Path) -> None:
    pairs = {f"train/{k}": (photo(k), disc()) for k in range(10)} | {"test/x": (photo(99), disc())}
    folder = divide(write_folder(tmp_path, pairs))
    assert {name: len(items) for name, items in folder.splits.items()} == {"train": 8, "val": 2, "test": 1}


def test_images_of_val_without_masks_give_way_to_those_that_are_divided_off(tmp_path: Path) -> None:
    root = write_folder(tmp_path, {f"train/{k}": (photo(k), disc()) for k in range(10)})
    save(root / "val/images/x.png", photo(50))
    train, val = sides(divide(root))
    assert (len(train), len(val)) == (8, 2)
    assert train | val == {str(k) for k in range(10)}


def test_one_image_is_on_both_sides_and_none_is_an_error(tmp_path: Path) -> None:
    folder = divide(write_folder(tmp_path / "one", {"a": (photo(0), disc())}))
    assert sides(folder) == ({"a"}, {"a"})
    with pytest.raises(DataError, match="no usable image to train on"):
        divide(write_folder(tmp_path / "none", {"val/a": (photo(0), disc()), "test/b": (photo(1), disc())}))


def _survey(presence: list[tuple[bool, ...]], prints: list[bytes], names: Sequence[str] = ()) -> tuple[Folder, Survey]:
    """A survey without files: which image shows which class, its fingerprint, and perhaps its name."""
    count = len(presence[0])
    classes = Classes(
        tuple(f"class {k}" for k in range(count)), ((0, 0, 0),) * count, tuple((k,) for k in range(count))
    )
    files = []
    for k, (shows, print_) in enumerate(zip(presence, prints)):
        image = ImageFacts((8, 8), 64, "uint8", (0,), (1,), (0.5,), (0.5,), False, str(k), print_)
        mask = MaskFacts((8, 8), (), tuple(ClassShape(int(shown)) for shown in shows))
        name = names[k] if names else f"{k:03}"
        files.append(FileSurvey(name, "all", f"images/{k:03}.png", f"masks/{k:03}.png", image, mask))
    samples = tuple(Sample(file.name, Path(file.image_path), Path(file.name)) for file in files)
    return Folder(Path("data"), {"all": samples}), Survey("data", tuple(files), classes)


@given(st.lists(st.tuples(st.booleans(), st.booleans(), st.booleans()), min_size=2, max_size=40), st.integers(0, 5))
@settings(max_examples=80, deadline=None)
def test_every_class_is_on_both_sides_where_two_images_show_it(presence: list[tuple[bool, ...]], seed: int) -> None:
    folder, seen = _survey(presence, [b""] * len(presence))
    train, val = sides(split(folder, seen, seed=seed))
    assert val
    assert train
    assert len(train) + len(val) == len(presence)
    counts = [sum(shows[place] for shows in presence) for place in range(3)]
    for place in range(3):
        shown = {f"{k:03}" for k, shows in enumerate(presence) if shows[place]}
        if len(shown) == 1:
            # a lone class may be validated on only where a commoner class, or val itself, would else go without
            (only,) = shown
            common = any(shows and count > 1 for shows, count in zip(presence[int(only)], counts))
            lone_everywhere = all(any(counts[c] == 1 for c in range(3) if shows[c]) for shows in presence)
            assert shown <= train or common or lone_everywhere
        elif shown and _all_can_be_shown(presence):
            assert shown & train
            assert shown & val


def _all_can_be_shown(presence: list[tuple[bool, ...]]) -> bool:
    """Brute force over what images show: all that show the same go to one side, or to both if there are two."""
    kinds = {shows: presence.count(shows) for shows in set(presence)}
    ways = [((0,), (1,), (0, 1)) if count > 1 else ((0,), (1,)) for count in kinds.values()]
    common = [place for place in range(3) if sum(shows[place] for shows in presence) > 1]
    return any(
        all({s for shows, on in zip(kinds, way) if shows[place] for s in on} == {0, 1} for place in common)
        for way in itertools.product(*ways)
    )


def test_a_division_that_one_move_cannot_mend() -> None:
    for seed in range(6):
        folder, seen = _survey([(False, True, False), (False, True, True), (True, False, True)], [b""] * 3)
        assert sides(split(folder, seen, seed=seed))[1] == {"001"}


def test_a_division_of_many_is_mended_where_something_is_left_out() -> None:
    few = [(False, True, False, True), (False, True, True, True), (True, False, True, True)]
    for seed in range(6):
        folder, seen = _survey([(False, False, False, True)] * 1000 + few, [b""] * 1003)
        train, val = sides(split(folder, seen, seed=seed))
        assert "1001" in val
        assert {"1000", "1002"} <= train


def test_rare_classes_are_shared_out_in_proportion() -> None:
    presence = [(True, k < 10) for k in range(100)]
    folder, seen = _survey(presence, [b""] * 100)
    for seed in range(5):
        _, val = sides(split(folder, seen, seed=seed))
        assert len(val) == 20
        assert len(val & {f"{k:03}" for k in range(10)}) == 2


def test_a_large_group_leaves_room_for_the_small_ones_to_even_out() -> None:
    """Ten images that are alike, and ten others: half is one or the other."""
    prints = [fingerprint(photo(max(0, place - 9))) for place in range(20)]
    for seed in range(3):
        train, val = sides(split(*_survey([(True,)] * 20, prints, [*"abcdefghijklmnopqrst"]), seed=seed, val_share=0.5))
        assert {frozenset(train), frozenset(val)} == {frozenset("abcdefghij"), frozenset("klmnopqrst")}


def test_near_duplicates_stay_together(tmp_path: Path) -> None:
    root = write_folder(tmp_path, {f"{k:02}": (photo(k), disc()) for k in range(20)})
    for k in range(0, 20, 2):  # each even image once more, as a brighter JPEG of another size
        twin = Image.fromarray(photo(k)).resize((80, 60)).point(lambda v: min(255, v + 10))
        twin.save(root / f"images/{k:02}b.jpg", quality=70)
        save(root / f"masks/{k:02}b.png", np.zeros((60, 80), np.uint8) + 1)
    for seed in range(4):
        train, val = sides(divide(root, seed=seed))
        for k in range(0, 20, 2):
            assert {f"{k:02}", f"{k:02}b"} <= train or {f"{k:02}", f"{k:02}b"} <= val


def test_copies_without_contrast_stay_together_and_blank_ones_need_not(tmp_path: Path) -> None:
    root = write_folder(tmp_path, {f"{k:02}": (photo(k), disc()) for k in range(16)})
    faint = np.full((48, 64, 3), 100, np.uint8)
    faint[5, 5] = 101
    for k in range(16, 40):  # of one value most, as at the edge of a map
        save(root / f"images/{k:02}.png", faint if k < 20 else np.zeros_like(faint))
        save(root / f"masks/{k:02}.png", np.zeros((48, 64), np.uint8))
    folder = find(root)
    seen = survey(folder)
    for seed in range(4):
        divided = split(folder, seen, seed=seed)
        assert len({f"{k:02}" for k in range(16, 20)} & sides(divided)[1]) in (0, 4)
        assert {f"{k:02}" for k in range(20, 40)} & sides(divided)[1], "blank ones are on both sides"
        assert not check(seen.divided(divided)).of("duplicate-across-splits")


def test_copies_that_are_turned_and_mirrored_stay_together() -> None:
    """As augmented before training: a network knows them."""
    forms = [
        lambda image, turns=turns, step=step: np.rot90(image[::step], turns) for turns in range(4) for step in (1, -1)
    ]
    images = [form(photo(k, (48, 64))) for k in range(20) for form in (forms[0], forms[1 + k % 7])]
    prints = [fingerprint(np.ascontiguousarray(image)) for image in images]
    assert twins(prints, range(40)) == {k + 1: k for k in range(0, 40, 2)}
    assert alike(prints) == [[k, k + 1] for k in range(0, 40, 2)]
    train, val = sides(split(*_survey([(True,)] * 40, prints)))
    assert len(val) == 8
    assert all({f"{k:03}", f"{k + 1:03}"} <= val or {f"{k:03}", f"{k + 1:03}"} <= train for k in range(0, 40, 2))


def test_round_fields_of_view_are_not_alike_when_mirrored() -> None:
    y, x = np.mgrid[:96, :96] - 48
    rng = np.random.default_rng(0)
    images = []
    for _ in range(20):
        image = rng.normal(0, 2, (96, 96)) + 110 * (y**2 + x**2 < 45**2)
        row, column = rng.normal((0, 26), 12)
        image[(y - row) ** 2 + (x - column) ** 2 < 100] += 80
        images.append(image.clip(0, 255).astype(np.uint8)[:, :, None])
    upright = [fingerprint(image) for image in images[:10]]
    mirrored = [fingerprint(image[:, ::-1]) for image in images[10:]]
    assert twins([*upright, *mirrored], [0] * 10 + [1] * 10) == {}


def test_a_video_is_cut_into_stretches() -> None:
    frames = [fingerprint(np.roll(photo(0, (96, 96)), k, 1)) for k in range(40)]
    assert all(are_alike(*pair) for pair in pairwise(frames))
    folder, seen = _survey([(True,)] * 40, frames)
    train, val = sides(split(folder, seen))
    assert (len(train), len(val)) == (32, 8)
    places = sorted(int(name) for name in val)
    assert places == list(range(places[0], places[0] + 8))


@pytest.mark.parametrize("share", [0.05, 0.4, 0.9])
def test_a_video_is_on_both_sides_whatever_the_share(share: float) -> None:
    folder, seen = _survey([(True,)] * 40, [fingerprint(photo(0))] * 40)
    train, val = sides(split(folder, seen, val_share=share))
    assert len(train) + len(val) == 40
    assert 0 < len(val) < 40


def test_a_moving_camera_s_only_video_is_cut_into_stretches_and_other_numbered_images_are_not() -> None:
    """Neighbours overlap, and are not so alike that they would be copies of each other."""
    drawn = gaussian_filter(np.random.default_rng(0).normal(size=(96, 600)), 15)
    wide = (128 + 40 / drawn.std() * drawn).clip(0, 255).astype(np.uint8)
    prints = [fingerprint(wide[:, 12 * frame : 12 * frame + 96, None]) for frame in range(40)]
    assert len(alike(prints)) == 40
    for names in ([f"{frame:03}" for frame in range(40)], [f"take 1/frame{frame}" for frame in range(40)]):
        kind, bound = bound_by_name(names, prints)
        assert (kind, bound) == ("stretches", [list(range(first, first + 8)) for first in range(0, 40, 8)])
        mixed = [prints[frame * 17 % 40] for frame in range(40)]
        assert bound_by_name(names, mixed)[1] == [], "where numbers only count"
        assert bound_by_name([*names[:-1], "title"], prints)[1] == [], "not all are numbered"
        assert bound_by_name(names[:9], prints[:9])[1] == [], "too few to tell"


@pytest.mark.parametrize("digits", [1, 3])
def test_frames_are_cut_by_their_numbers_padded_or_not(digits: int) -> None:
    """Frame 10 follows frame 9: few frames to validate on have a neighbour in training."""
    named = {f"take 2/frame{number:0{digits}}": number for number in range(120)}
    _, val = sides(split(*_survey([(True,)] * 120, [fingerprint(photo(0))] * 120, sorted(named))))
    numbers = sorted(named[name] for name in val)
    assert numbers == list(range(numbers[0], numbers[0] + 24))


def test_likeness_of_noise_flat_and_unlike_images() -> None:
    images = [photo(k) for k in range(30)]
    prints = [fingerprint(image) for image in images]
    assert twins(prints, range(30)) == {}
    assert twins([*prints, prints[3]], range(31)) == {30: 3}
    assert twins([b"", b""], range(2)) == {}
    assert fingerprint(np.full((9, 9, 1), 40, np.uint8)) == b""
    gray = photo(0)[:, :, :1]
    assert are_alike(fingerprint(gray.astype(np.uint16) * 200), fingerprint(gray))


@pytest.mark.parametrize(("strip", "most"), [(7, 10**6), (512, 300), (512, 1)])
def test_groups_and_twins_are_those_of_all_pairs(strip: int, most: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("whatwhere.data.likeness._STRIP", strip)
    monkeypatch.setattr("whatwhere.data.likeness._PAIRS", most)
    rng = np.random.default_rng(0)
    kinds = [photo(seed) for seed in range(6)]
    images = [kinds[k] for k in rng.integers(0, 6, 50)] + [photo(100 + k) for k in range(10)]
    prints = [fingerprint(images[k]) for k in rng.permutation(60)] + [b""]
    pairs = [(i, j) for i, j in combinations(range(61), 2) if are_alike(prints[i], prints[j])]
    assert alike(prints) == groups(61, np.array(pairs))
    sides = rng.integers(-1, 3, 61).tolist()
    apart = {(i, j) for i, j in pairs if sides[i] != sides[j] and min(sides[i], sides[j]) >= 0}
    found = twins(prints, sides)
    assert set(found) == {j for _, j in apart}
    assert {(i, j) for j, i in found.items()} <= apart


def test_images_that_are_all_alike_are_compared_in_bounded_strips(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("whatwhere.data.likeness._PAIRS", 900)
    prints = [fingerprint(photo(0))] * 200
    strips = [len(strip) for strip in _strips(prints)]
    assert sum(strips) == 200 * 199 / 2
    assert max(strips) <= 900
    assert alike(prints) == [list(range(200))]


def test_light_that_all_images_share_makes_no_duplicates() -> None:
    y, x = np.mgrid[:128, :128]
    shade = 230 - 0.02 * ((y - 64) ** 2 + (x - 64) ** 2)
    rng = np.random.default_rng(0)
    images = []
    for _ in range(20):
        image = shade + rng.normal(0, 3, shade.shape)
        row, column = rng.integers(20, 100, 2)
        image[row : row + 12, column : column + 12] -= 40
        images.append(image.clip(0, 255).astype(np.uint8)[:, :, None])
    assert twins([fingerprint(image) for image in images], range(len(images))) == {}


def test_upright_is_what_many_images_agree_on_whether_dark_or_light_below() -> None:
    rng = np.random.default_rng(0)
    noise = [rng.integers(0, 256, (64, 64, 1)).astype(np.uint8) for _ in range(12)]
    sky = [(one // 2 + np.linspace(120, 0, 64)[:, None, None]).astype(np.uint8) for one in noise]
    light, dark = ([fingerprint(one[::turn]) for one in sky] for turn in (1, -1))
    assert uprightness(light) == pytest.approx(uprightness(dark), abs=1e-3)
    assert uprightness(light) > 0.5
    assert uprightness([fingerprint(one) for one in noise]) == 0
    assert uprightness(light[:4]) == 0, "too few to tell"


@given(st.integers(1, 12), st.data())
def test_groups_are_the_connected_parts(count: int, data: st.DataObject) -> None:
    place = st.integers(0, count - 1)
    pairs = data.draw(st.lists(st.tuples(place, place), max_size=12))
    parts = groups(count, np.array(pairs, np.intp).reshape(-1, 2))
    assert sorted(member for part in parts for member in part) == list(range(count))
    assert all(any({i, j} <= set(part) for part in parts) for i, j in pairs)


@pytest.mark.slow
@pytest.mark.skipif(not DATA.is_dir(), reason="the real data sets are not beside the project")
def test_neighbours_of_a_driving_video_are_more_alike_than_other_frames_and_photographs_are_not() -> None:
    """What takes numbered images for frames of a moving camera."""
    more = []
    for name, step in (("camvid", 1), ("cats", 7)):
        files = sorted((DATA / name / "train/images").iterdir())[: 60 * step : step]
        prints = [fingerprint(np.asarray(Image.open(path).convert("RGB"))) for path in files]
        near, far = ([(k, k + gap) for k in range(len(prints) - gap)] for gap in (1, 30))
        more.append(likeness(prints, near) - likeness(prints, far))
    assert more[0] > _OVERLAP > 5 * abs(more[1])


@pytest.mark.slow
@pytest.mark.skipif(not DATA.is_dir(), reason="the real data sets are not beside the project")
def test_few_photographs_of_cats_are_alike() -> None:
    files = sorted((DATA / "cats/val/images").iterdir())
    prints = [fingerprint(np.asarray(Image.open(path))) for path in files]
    assert 2 <= len(twins(prints, range(len(prints)))) <= 4  # three known pairs


def test_frames_of_a_moving_camera_stay_together_by_their_names() -> None:
    """Along 6 streets of 8 frames each, that overlap and are not alike."""
    prints = []
    for street, frame in itertools.product(range(6), range(8)):
        drawn = gaussian_filter(np.random.default_rng(street).normal(size=(96, 512)), 12)
        image = 128 + 40 / drawn.std() * drawn[:, 10 * frame : 10 * frame + 96, None]
        prints.append(fingerprint(image.clip(0, 255).astype(np.uint8)))
    assert not any(are_alike(*pair) for pair in pairwise(prints))
    names = [f"street {street}_{frame + 8}" for street, frame in itertools.product("abcdef", range(8))]
    sources = [name[: len("street a_")] for name in names]
    assert frames_of(names, prints) == sources
    train, val = sides(split(*_survey([(True,)] * 48, prints, names)))
    assert len(val) == 8
    assert not {name[:9] for name in train} & {name[:9] for name in val}

    numbered = [prints[place * 11 % 48] for place in range(48)]
    assert set(frames_of(names, numbered)) == {""}, "where numbers only count"
    assert set(frames_of([f"{name} left" for name in names], prints)) == {""}
    assert set(frames_of(names[:32], prints[:32])) == {""}, "too few to divide by"


@pytest.mark.parametrize(
    "name",
    [
        "slide{source}_x{piece}_y0", "P{source}_{piece}00_512", "P{source}__1__0___{piece}", "cat{source}_aug{piece}",
        "P{source}_0_800_{piece}_800", "cat{source}-rot90-flip{piece}", "map{source}.tile_{piece}",
        "TCGA_CS_{source}_1996_{piece}", "{source}_jpg.rf.{piece}a1b2c3d4e5", "vol{source}_slice{piece}",
        "slide {source} [x={piece}00,y=512,w=256,h=256]", "slide{source} [d=2.5,x={piece},y=0,w=99,h=99,z=1]",
    ],
)  # fmt: skip
def test_pieces_and_copies_of_one_image_stay_together_by_their_names(name: str) -> None:
    names = [name.format(source=source, piece=piece) for source in range(6) for piece in range(5)]
    sources = pieces_of(names)
    assert [sources.index(one) for one in sources] == [k - k % 5 for k in range(30)]
    train, val = sides(split(*_survey([(True,)] * 30, [b""] * 30, names)))
    assert len(val) == 5
    assert not {sources[names.index(one)] for one in train} & {sources[names.index(one)] for one in val}


def test_companions_stay_together_and_originals_with_their_copies() -> None:
    assert pieces_of(["1_left", "1_right", "2_left", "2"]) == ["1", "1", "2", "2"]
    assert pieces_of(["Image_01L", "Image_01R", "Image_02L"]) == ["Image_01", "Image_01", "Image_02"]


@pytest.mark.parametrize(
    "names",
    [
        ["img_001", "img_002", "img_003"], ["2008_000123", "2008_000124", "2009_000001"], ["a", "b", "c"],
        ["cat (1)", "cat (2)"], ["frame_0001", "frame_0002"], ["left", "right"], ["0001TP_006690", "0001TP_006720"],
        ["textile_1", "textile_2"],
    ],
)  # fmt: skip
def test_numbers_alone_are_no_pieces(names: list[str]) -> None:
    assert pieces_of(names) == []


def test_tiles_of_a_single_image_are_divided_by_bands() -> None:
    places = [(row, column) for row in range(7) for column in range(7)]
    names = [f"map_{100 * row}_{100 * column}" for row, column in places]
    bands = bands_of(names, 0.2)
    assert bands == bands_of([f"map [d=4,x={100 * row},y={100 * column},w=9,h=9]" for row, column in places], 0.2)
    rows = [sorted({places[one][0] for one in band}) for band in bands]
    assert rows == [[0, 1], [2, 3], [4], [5], [6]]
    assert bands_of([f"IMG_2019_{number:04}" for number in range(40)], 0.2) == []
    assert bands_of([f"{day}_{73 * day % 97}" for day in range(40)], 0.2) == [], "no grid"


@pytest.mark.parametrize(("rows", "columns"), [(3, 20), (20, 3), (6, 6)])
def test_bands_lie_across_the_side_that_gives_as_many_as_the_share_asks_for(rows: int, columns: int) -> None:
    cells = [(row, column) for row in range(rows) for column in range(columns)]
    bands = bands_of([f"map_{row}_{column}" for row, column in cells], 0.2)
    assert len(bands) == 5
    assert sorted(place for band in bands for place in band) == list(range(rows * columns))
    along = 1 if rows < 5 else 0
    for one, other in pairwise(bands):
        assert max(cells[place][along] for place in one) < min(cells[place][along] for place in other)


def test_of_tiles_that_overlap_bands_are_bound_and_of_several_images_the_tiles_of_each() -> None:
    """Rows of a single image that overlap are more alike than others, as frames of a moving camera are."""
    places = [(row, column) for row in range(6) for column in range(6)]
    drawn = [gaussian_filter(np.random.default_rng(row).normal(size=(96, 256)), 12) for row in range(6)]
    tiles = [(128 + 40 / one.std() * one).clip(0, 255).astype(np.uint8) for one in drawn]
    prints = [fingerprint(tiles[row][:, 10 * column : 10 * column + 96, None]) for row, column in places]
    names = [f"map_{row}_{column}" for row, column in places]
    assert len(set(frames_of(names, prints))) == 6
    kind, bound = bound_by_name(names, prints)
    assert kind == "bands"
    assert [len({places[one][0] for one in band}) for band in bound] == [2, 1, 1, 1, 1]
    kind, bound = bound_by_name([f"slide{row}_tile{column}" for row, column in places], prints)
    assert (kind, len(bound)) == ("pieces", 6)
    kind, bound = bound_by_name([f"slide{row}/{column}" for row, column in places], prints)
    assert (kind, len(bound)) == ("folders", 6)


@pytest.mark.parametrize("patients", [3, 8])
def test_images_of_one_patient_stay_on_one_side_where_there_are_patients_enough(tmp_path: Path, patients: int) -> None:
    for number in range(40):
        place = f"patient {number % patients}/{number:02}.png"
        save(tmp_path / "images" / place, photo(number))
        save(tmp_path / "masks" / place, disc())
    train, val = sides(divide(tmp_path))
    both = {name.partition("/")[0] for name in train} & {name.partition("/")[0] for name in val}
    assert bool(both) == (patients == 3)
    assert 5 <= len(val) <= 14
    said = plan(tmp_path, epochs=1, encoder="plain").reasons["split"]
    assert ("scores are too good" if both else "the images of each folder are on one side") in said
