"""Every bad input ends in one clear line (what, expected, remedy), exit code 2, and nothing half-written."""

from __future__ import annotations

import json
import os
import resource
import shutil
import struct
import subprocess
import sys
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import tifffile
from PIL import Image

from tiny import Cli, Done, disc_picture
from whatwhere.learn.plan import Plan
from whatwhere.learn.plan_file import write_plan
from whatwhere.network import Model, save_model


def assert_one_clear_line(done: Done, *words: str) -> None:
    assert done.code == 2, (done.code, done.out, done.err)
    lines = done.err.strip().splitlines()
    assert len(lines) == 1, done.err
    assert lines[0].startswith("error: ")
    assert "; " in lines[0], "what was given; what was expected; what to do"
    assert "Traceback" not in done.out + done.err
    for word in words:
        assert word in lines[0]


def files_below(root: Path) -> set[str]:
    return {path.relative_to(root).as_posix() for path in root.rglob("*") if path.is_file()}


# -- folders -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("verb", ["check", "plan", "train"])
@pytest.mark.parametrize("what", ["missing", "a file", "empty", "no pairs", "no masks"])
def test_a_folder_that_holds_nothing_to_train_on(verb: str, what: str, tmp_path: Path, run_cli: Cli) -> None:
    data, picture = tmp_path / "data", Image.new("RGB", (20, 20))
    if what == "a file":
        data.write_text("x")
    elif what != "missing":
        data.mkdir()
    if what in ("no pairs", "no masks"):
        (data / "images").mkdir()
        (data / "masks").mkdir()
        picture.save(data / "images" / "a.png")
    if what == "no pairs":
        picture.save(data / "masks" / "b.png")
    before = files_below(tmp_path)
    done = run_cli(verb, data, *(["-o", tmp_path / "out" / "new"] if verb != "check" else []))
    assert_one_clear_line(done, str(data))
    assert files_below(tmp_path) == before


# -- images and masks --------------------------------------------------------------------------------------------------


def bomb(path: Path, side: int = 30_000) -> None:
    """A PNG of ``side`` x ``side`` black pixels, some hundred kilobytes small."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    packer = zlib.compressobj(1)
    row = bytes(1 + -(-side // 8))
    body = b"".join(packer.compress(row * 1000) for _ in range(side // 1000)) + packer.flush()
    header = struct.pack(">IIBBBBB", side, side, 1, 0, 0, 0, 0)
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", body) + chunk(b"IEND", b""))


def text(image: Path, _: Path) -> Path:
    image.write_text("this is no picture")
    return image


def truncated_jpeg(image: Path, _: Path) -> Path:
    picture = Image.open(image)
    image.unlink()
    path = image.with_suffix(".jpg")
    picture.resize((400, 400)).save(path)
    path.write_bytes(path.read_bytes()[:3000])
    return path


def decompression_bomb(image: Path, _: Path) -> Path:
    bomb(image)
    return image


def many_colours(_: Path, mask: Path) -> Path:
    rng = np.random.default_rng(0)
    Image.fromarray(rng.integers(0, 256, (40, 40, 3), np.uint8)).save(mask)
    return mask


def one_pixel(image: Path, _: Path) -> Path:
    Image.new("RGB", (1, 1)).save(image)
    return image


def not_a_number(image: Path, _: Path) -> Path:
    image.unlink()
    values = np.random.default_rng(0).random((40, 40, 3), np.float32)
    values[3, 4] = np.nan
    path = image.with_suffix(".tif")
    tifffile.imwrite(path, values, photometric="rgb")
    return path


def other_channels(image: Path, _: Path) -> Path:
    Image.open(image).convert("L").save(image)
    return image


def empty_file(image: Path, _: Path) -> Path:
    image.write_bytes(b"")
    return image


SPOILERS = [
    text, truncated_jpeg, decompression_bomb, many_colours, one_pixel, not_a_number, other_channels, empty_file,
]  # fmt: skip
Spoiler = Callable[[Path, Path], Path]


@pytest.mark.parametrize("spoil", SPOILERS)
def test_a_bad_file_among_those_the_plan_names(
    spoil: Spoiler, discs: Path, disc_plan: Plan, tmp_path: Path, run_cli: Cli
) -> None:
    data = shutil.copytree(discs, tmp_path / "data")
    plan = write_plan(disc_plan, tmp_path / "plan.toml")
    bad = spoil(data / "train" / "images" / "disc 03.png", data / "train" / "masks" / "disc 03.png")
    done = run_cli("train", data, "-o", tmp_path / "run", "--plan", plan, "-q")
    assert_one_clear_line(done, bad.stem)
    assert not files_below(tmp_path / "run"), "nothing half-written"


@pytest.mark.parametrize("spoil", SPOILERS)
def test_check_finds_a_bad_file_and_does_not_fall_over_it(
    spoil: Spoiler, discs: Path, tmp_path: Path, run_cli: Cli
) -> None:
    data = shutil.copytree(discs, tmp_path / "data")
    bad = spoil(data / "train" / "images" / "disc 03.png", data / "train" / "masks" / "disc 03.png")
    done = run_cli("check", data)
    assert done.code in (0, 1), done.err
    assert bad.stem in done.out
    assert not done.err


@pytest.mark.parametrize("spoil", SPOILERS)
def test_evaluate_on_a_bad_file(spoil: Spoiler, discs: Path, disc_run: Path, tmp_path: Path, run_cli: Cli) -> None:
    data = shutil.copytree(discs, tmp_path / "data")
    bad = spoil(data / "val" / "images" / "disc 11.png", data / "val" / "masks" / "disc 11.png")
    done = run_cli("evaluate", disc_run, data, "--json", tmp_path / "scores.json", "--picture", tmp_path / "worst.png")
    assert_one_clear_line(done, bad.stem)
    assert not (tmp_path / "scores.json").exists()
    assert not (tmp_path / "worst.png").exists()


@pytest.mark.parametrize("verb", ["evaluate", "compare"])
def test_all_that_headers_tell_is_told_before_the_first_image_is_painted(
    verb: str, discs: Path, disc_run: Path, tmp_path: Path, run_cli: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("whatwhere.verbs.score", pytest.fail)
    data = Path(shutil.copytree(discs, tmp_path / "data"))
    empty_file(data / "val/images/disc 12.png", tmp_path)
    Image.new("L", (30, 40)).save(data / "val/masks/disc 11.png")
    models = {"evaluate": [disc_run], "compare": [disc_run, disc_run]}[verb]
    done = run_cli(verb, *models, data)
    assert_one_clear_line(done, "2 of 3 images can't be used", "disc 12.png is 0 bytes", "disc 11.png 30x40")
    empty_file(data / "val/images/disc 11.png", tmp_path)
    (data / "val/images/disc 12.png").unlink()
    assert_one_clear_line(run_cli(verb, *models, data), "error: ", "disc 11.png is 0 bytes; expected an image")


@pytest.mark.parametrize("spoil", [s for s in SPOILERS if s not in (many_colours, one_pixel)])
def test_predict_of_a_bad_file_alone(spoil: Spoiler, discs: Path, disc_run: Path, tmp_path: Path, run_cli: Cli) -> None:
    image = Path(shutil.copy(discs / "val" / "images" / "disc 11.png", tmp_path / "disc 11.png"))
    bad = spoil(image, image)
    done = run_cli("predict", disc_run, bad, "-o", tmp_path / "out")
    assert_one_clear_line(done, bad.name)
    assert not [name for name in files_below(tmp_path / "out") if not name.endswith(".jsonl")]


def test_an_image_of_one_pixel_is_painted(disc_run: Path, tmp_path: Path, run_cli: Cli) -> None:
    one_pixel(tmp_path / "dot.png", tmp_path)
    done = run_cli("predict", disc_run, tmp_path / "dot.png", "-o", tmp_path / "out")
    assert done.code == 0, done.err
    with Image.open(tmp_path / "out" / "dot.png") as painted:
        assert painted.size == (1, 1)


def test_nothing_of_that_name_to_predict(disc_run: Path, tmp_path: Path, run_cli: Cli) -> None:
    for wrong in (tmp_path / "none.png", tmp_path / "*.png", tmp_path):
        assert_one_clear_line(run_cli("predict", disc_run, wrong, "-o", tmp_path / "out"), str(wrong))
    assert not files_below(tmp_path)


def test_a_folder_of_pixels_only_is_told_by_plan(tmp_path: Path, run_cli: Cli) -> None:
    for kind in ("images", "masks"):
        (tmp_path / kind).mkdir()
        for number in range(4):
            Image.new("L", (1, 1), 255 * (number % 2)).save(tmp_path / kind / f"{number}.png")
    done = run_cli("plan", tmp_path, "-o", tmp_path / "plan.toml")
    assert_one_clear_line(done)
    assert not (tmp_path / "plan.toml").exists()


# -- model files -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("what", ["missing", "truncated", "text", "empty", "folder"])
@pytest.mark.parametrize("verb", ["predict", "evaluate", "compare"])
def test_a_model_file_that_is_none(
    verb: str, what: str, discs: Path, disc_run: Path, tmp_path: Path, run_cli: Cli
) -> None:
    model = tmp_path / "model.safetensors"
    whole = (disc_run / "model.safetensors").read_bytes()
    if what == "folder":
        model.mkdir()
    elif what != "missing":
        model.write_bytes({"truncated": whole[: len(whole) // 2], "text": b"weights, of sorts", "empty": b""}[what])
    rest = {"predict": (discs, "-o", tmp_path / "out"), "evaluate": (discs,), "compare": (disc_run, discs)}[verb]
    before = files_below(tmp_path)
    assert_one_clear_line(run_cli(verb, model, *rest), str(model))
    assert files_below(tmp_path) == before


def test_data_with_other_classes_than_the_model(discs: Path, disc_run: Path, tmp_path: Path, run_cli: Cli) -> None:
    data = tmp_path / "data"  # without an image that it was trained on: there its own classes count
    shutil.copytree(discs / "val", data / "val")
    names = "".join(f'[[class]]\nvalue = {v}\nname = "{n}"\n' for v, n in ((0, "a"), (255, "b"), (9, "c")))
    (data / "classes.toml").write_text(names)
    assert_one_clear_line(run_cli("evaluate", disc_run, data), "3 classes", "the model's 2")


# -- plans and options -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("old", "new", "word"),
    [
        ("width", "widht", "did you mean 'width'?"),
        ("width = 4", 'width = "4"', "expected a whole number"),
        ("seed", "[", "TOML"),
    ],
)
def test_a_plan_with_an_unknown_key_or_a_wrong_type(
    old: str, new: str, word: str, discs: Path, disc_plan: Plan, tmp_path: Path, run_cli: Cli
) -> None:
    plan = write_plan(disc_plan, tmp_path / "plan.toml")
    plan.write_text(plan.read_text("utf-8").replace(old, new, 1), "utf-8")
    assert_one_clear_line(run_cli("train", discs, "-o", tmp_path / "run", "--plan", plan), word, str(plan))
    assert files_below(tmp_path) == {"plan.toml"}


def test_a_plan_of_another_folder(discs: Path, disc_plan: Plan, tmp_path: Path, run_cli: Cli) -> None:
    data = shutil.copytree(discs, tmp_path / "data")
    for kind in ("images", "masks"):
        (data / "train" / kind / "disc 03.png").unlink()
    plan = write_plan(disc_plan, tmp_path / "plan.toml")
    done = run_cli("train", data, "-o", tmp_path / "run", "--plan", plan)
    assert_one_clear_line(done, "lacks 1 of the train images that the plan names, such as 'disc 03'")


@pytest.mark.parametrize(
    ("options", "word"),
    [
        (("--time", "soon"), "time is 'soon'"),
        (("--time", ""), "time is ''"),
        (("--time", "5m", "--epochs", "2"), "exactly one"),
        (("--epochs", "-1"), "epochs = -1"),
        (("--epochs", "1", "--skips", "7"), "skips = [7]"),
        (("--epochs", "1", "--device", "abacus"), "abacus"),
        (("--epochs", "1", "--device", ""), "device is ''"),
        (("--epochs", "1", "--encoder", ""), "encoder is ''"),
    ],
)
def test_options_that_cannot_be(options: tuple[str, ...], word: str, discs: Path, tmp_path: Path, run_cli: Cli) -> None:
    assert_one_clear_line(run_cli("train", discs, "-o", tmp_path / "run", *options), word)
    assert not files_below(tmp_path)


@pytest.mark.parametrize(
    ("options", "word"),
    [
        (("--tolerance", "nan"), "tolerance of nan"),
        (("--tolerance", "-2"), "tolerance of -2"),
        (("--picture", "."), "can't be written"),
        (("--json", "."), "can't be written"),
    ],
)
def test_options_of_evaluate_that_cannot_be(
    options: tuple[str, ...], word: str, discs: Path, disc_run: Path, tmp_path: Path, run_cli: Cli
) -> None:
    picture = () if "--picture" in options else ("--picture", tmp_path / "worst.png")
    assert_one_clear_line(run_cli("evaluate", disc_run, discs, *picture, *options), word)


@pytest.mark.parametrize("seed", [-1, 2**32])
@pytest.mark.parametrize("verb", ["check", "train"])
def test_a_seed_is_neither_negative_nor_too_large(verb: str, seed: int, discs: Path, run_cli: Cli) -> None:
    done = run_cli(verb, discs, "--seed", seed, *(["-o", "run"] if verb == "train" else []))
    assert (done.code, "--seed" in done.err, "Traceback" in done.err) == (2, True, False)


@pytest.mark.parametrize("verb", ["plan", "train"])
def test_an_empty_list_of_skips_is_not_all_of_them(verb: str, discs: Path, tmp_path: Path, run_cli: Cli) -> None:
    done = run_cli(verb, discs, "-o", tmp_path / "out", "--epochs", 1, "--skips", "")
    assert (done.code, "--skips ''" in done.err) == (2, True)
    assert not files_below(tmp_path)


def test_a_name_that_is_no_text(disc_run: Path, tmp_path: Path, run_cli: Cli) -> None:
    (tmp_path / "images").mkdir()
    path = os.fsdecode(os.fsencode(tmp_path / "images") + b"/caf\xe9.png")
    Image.new("RGB", (20, 20)).save(path)
    for inputs in (tmp_path / "images", path):
        done = run_cli("predict", disc_run, inputs, "-o", tmp_path / "out")
        assert_one_clear_line(done, "can't be written down", "caf")


def test_a_proof_paints_nothing(discs: Path, disc_run: Path, tmp_path: Path, run_cli: Cli) -> None:
    images = discs / "val" / "images"
    done = run_cli("predict", disc_run, images, "-o", tmp_path / "out", "--prove", "--overlay")
    assert (done.code, "--overlay" in done.err) == (2, True)
    small = run_cli("predict", disc_run, images, "--prove")
    assert_one_clear_line(small, "proves nothing", "a larger image")
    for name in ("a", "b"):
        Image.fromarray(disc_picture(0, 300)[0]).save(tmp_path / f"{name}.png")
    done = run_cli("predict", disc_run, tmp_path / "a.png", tmp_path / "b.png", "--prove")
    assert (done.code, "the first of 2 images" in done.out) == (0, True)
    missing = run_cli("predict", disc_run, images)
    assert (missing.code, "--output" in missing.err) == (2, True)


def test_a_split_that_is_not_there(discs: Path, disc_run: Path, run_cli: Cli) -> None:
    assert_one_clear_line(run_cli("evaluate", disc_run, discs, "--split", "test"), "'test'", "train (10), val (3)")


def test_a_split_of_images_without_masks(discs: Path, disc_run: Path, tmp_path: Path, run_cli: Cli) -> None:
    images = discs / "val" / "images"
    done = run_cli("explain", disc_run, images, "-o", tmp_path / "told", "--split", "test")
    assert_one_clear_line(done, "has no masks", "leave out the split (--split)")


# -- places that cannot be written -------------------------------------------------------------------------------------

# Tests may run as root, who may write anywhere: so a file stands where a folder should be, and a limit on the size of
# files stands for a full disk.


@contextmanager
def room_for(size: int) -> Iterator[None]:
    """No file may grow beyond ``size`` bytes."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def large_noise(folder: Path) -> Path:
    """An image whose painting is larger than the room there is."""
    path = folder / "noise.png"
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (300, 300, 3), np.uint8)).save(path)
    return path


def commands(discs: Path, run: Path, plan: Path) -> dict[str, Callable[[Path], tuple[object, ...]]]:
    return {
        "check": lambda place: ("check", discs, "--json", place / "findings.json"),
        "plan": lambda place: ("plan", discs, "--epochs", 1, "-o", place / "plan.toml"),
        "train": lambda place: ("train", discs, "--plan", plan, "-o", place / "run", "-q"),
        "predict": lambda place: ("predict", run, large_noise(place.parent), "-o", place / "out", "--probabilities"),
        "evaluate": lambda place: ("evaluate", run, discs, "--picture", place / "worst.png"),
        "scores": lambda place: (
            "evaluate", run, discs, "--picture", place.parent / "worst.png", "--json", place / "scores.json",
        ),
        "compare": lambda place: ("compare", run, run, discs, "--json", place / "differences.json"),
    }  # fmt: skip


VERBS = ("check", "plan", "train", "predict", "evaluate", "scores", "compare")


@pytest.mark.parametrize("verb", VERBS)
def test_a_place_that_cannot_be_written(
    verb: str, discs: Path, disc_run: Path, disc_plan: Plan, tmp_path: Path, run_cli: Cli
) -> None:
    plan = write_plan(disc_plan, tmp_path / "plan.toml")
    (tmp_path / "file").write_text("not a folder")
    done = run_cli(*commands(discs, disc_run, plan)[verb](tmp_path / "file"))
    assert_one_clear_line(done, str(tmp_path / "file"), "can't be written")


@pytest.mark.parametrize("verb", [verb for verb in VERBS if verb not in ("check", "compare", "scores")])
def test_a_full_disk(verb: str, discs: Path, disc_run: Path, disc_plan: Plan, tmp_path: Path, run_cli: Cli) -> None:
    plan = write_plan(disc_plan, tmp_path / "plan.toml")
    place = tmp_path / "full"
    place.mkdir()
    room = {"train": 20_000, "predict": 4000, "plan": 500, "evaluate": 4000}[verb]
    command = commands(discs, disc_run, plan)[verb](place)
    with room_for(room):
        done = run_cli(*command)
    assert_one_clear_line(done, str(place), "be written")
    assert not [name for name in files_below(place) if "partial" in name], "nothing half-written"


def test_of_several_images_that_failed_one_is_told_and_how_many_more(
    disc_run: Path, tmp_path: Path, run_cli: Cli
) -> None:
    for name in "ab":
        (tmp_path / f"{name}.png").touch()
    done = run_cli("predict", disc_run, "a.png", "b.png", "-o", "painted")
    assert_one_clear_line(done, "a.png is 0 bytes", "(and 1 more failed)")


def test_scores_are_told_and_kept_though_the_picture_of_them_finds_no_room(
    discs: Path, disc_run: Path, tmp_path: Path, run_cli: Cli
) -> None:
    with room_for(30_000):
        done = run_cli("evaluate", disc_run, discs, "--json", "scores.json", "--picture", "worst.png")
    assert_one_clear_line(done, "worst.png can't be written")
    assert "foreground" in done.out
    assert "worst images:" not in done.out
    assert files_below(tmp_path) == {"scores.json"}


def test_the_place_of_the_picture_is_said_to_be_chosen_by_an_option(
    discs: Path, disc_run: Path, tmp_path: Path, run_cli: Cli
) -> None:
    (tmp_path / "file").touch()
    done = run_cli("evaluate", disc_run, discs, "--picture", tmp_path / "file/worst.png")
    assert_one_clear_line(done, "name another place with --picture")


@pytest.mark.parametrize("verb", ["plan", "train"])
def test_a_place_is_tried_before_all_images_are_read(
    verb: str, discs: Path, tmp_path: Path, run_cli: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("whatwhere.verbs.survey", pytest.fail)
    (tmp_path / "file").touch()
    done = run_cli(verb, discs, "-o", tmp_path / "file/run", "--epochs", 1)
    assert_one_clear_line(done, str(tmp_path / "file/run"), "can't be written")


@pytest.mark.parametrize(
    "arguments",
    [
        ("check", "locked/data"),
        ("plan", "locked/data", "-o", "plan.toml"),
        ("train", "DISCS", "-o", "locked/run"),
        ("predict", "locked/run", "DISCS", "-o", "out"),
        ("predict", "RUN", "locked/a.png", "-o", "out"),
        ("evaluate", "RUN", "locked/data"),
        ("explain", "RUN", "locked/data", "-o", "told"),
        ("explore", "RUN", "locked/images"),
        ("explore", "locked/run"),
    ],
    ids=" ".join,
)
def test_a_place_that_may_not_be_looked_into(
    arguments: tuple[str, ...], discs: Path, disc_run: Path, run_cli: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Tests may run as root, who may look everywhere: so it is said of all below locked/."""
    look = Path.stat

    def stat(path: Path, **options: bool) -> os.stat_result:
        if "locked" in path.parts:
            raise PermissionError(13, "Permission denied", str(path))
        return look(path, **options)

    monkeypatch.setattr(Path, "stat", stat)
    known = {"DISCS": discs, "RUN": disc_run}
    done = run_cli(*(known.get(argument, argument) for argument in arguments))
    assert_one_clear_line(done, "locked/", "cannot be opened (Permission denied)")


def test_the_real_program_says_the_same(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "whatwhere", "check", tmp_path / "none"], capture_output=True, text=True, check=False
    )
    assert_one_clear_line(Done(done.returncode, done.stdout, done.stderr), "does not exist", "check the path")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no device here that takes nothing")
@pytest.mark.parametrize("quiet", [pytest.param((), marks=pytest.mark.slow), ("-q",)], ids=["live", "quiet"])
def test_a_full_disk_behind_the_screen_is_no_fault_of_ours(quiet: tuple[str, ...], discs: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "whatwhere", "plan", discs, "--time", "1m", "-o", tmp_path / "plan.toml", *quiet]
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True, check=False)
    assert_one_clear_line(Done(done.returncode, "", done.stderr), "cannot be written (No space left on device)")
    assert (tmp_path / "plan.toml").exists(), "what was made is not lost"


def test_a_pickle_is_no_model(tmp_path: Path, discs: Path, run_cli: Cli) -> None:
    import torch

    torch.save({"weight": torch.zeros(2)}, tmp_path / "model.pth")
    assert_one_clear_line(run_cli("predict", tmp_path / "model.pth", discs, "-o", tmp_path / "out"), "model.pth")


def test_weights_that_no_longer_fit_their_description(
    tmp_path: Path, discs: Path, disc_model: Model, run_cli: Cli
) -> None:
    from safetensors import safe_open
    from safetensors.torch import load_file, save_file

    path = save_model(disc_model, tmp_path / "odd.safetensors")
    with safe_open(path, "pt") as file:
        record = json.loads(file.metadata()["whatwhere"])
    record["network"]["width"] *= 2
    save_file(load_file(path), path, metadata={"whatwhere": json.dumps(record)})
    assert_one_clear_line(run_cli("predict", path, discs, "-o", tmp_path / "out"), "does not describe a whole model")
