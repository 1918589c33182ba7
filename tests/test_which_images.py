"""Which images are scored and explained: those that were meant, whatever other folders call theirs."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from torch import nn

import whatwhere
from tiny import disc_picture, tiny, write_discs
from whatwhere import verbs
from whatwhere.chosen import images_of, open_sets, truth_of, with_image
from whatwhere.data import find
from whatwhere.data.sets import untold
from whatwhere.errors import DataError, ModelError, PlanError
from whatwhere.network import Model, UNet, load_model
from whatwhere.paint import predict
from whatwhere.records import Classes, Normalisation
from whatwhere.segmenter import Segmenter
from whatwhere.verbs import check, explain, plan, train


def write(root: Path, numbers: dict[str, int]) -> Path:
    """``{"train/images/001": 7}``: disc number 7 under that name, and its mask."""
    for name, number in numbers.items():
        for kind, array in zip(("images", "masks"), disc_picture(number)):
            path = root / f"{name.replace('*', kind)}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(array).save(path)
    return root


def train_elsewhere(data: Path, run: Path) -> Model:
    train(data, run, plan=tiny(plan(data, epochs=1)))
    return load_model(run)


def foreign(model: Model) -> Model:
    """A network that was made elsewhere: what it was trained on is not known."""
    return Segmenter.from_module(nn.Conv2d(3, 2, 1), model.classes, model.normalisation).model


@pytest.fixture(scope="module")
def numbered(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Model]:
    """An undivided folder of images that are called by numbers, and a model of it."""
    root = tmp_path_factory.mktemp("numbered")
    data = write(root / "here", {f"*/{k:03}": k for k in range(10)})
    train(data, root / "run", plan=tiny(plan(data, epochs=1)))
    return data, load_model(root / "run")


def test_of_its_own_folder_the_images_that_it_was_trained_on_are_left_out(numbered: tuple[Path, Model]) -> None:
    data, model = numbered
    chosen = truth_of(model, data)
    assert chosen.part == "not trained on; the weights were chosen by these, or some of them"
    assert set(chosen.names) == set(model.plan["split"]["val"])


def test_a_model_of_elsewhere_was_not_chosen_by_these_images(numbered: tuple[Path, Model], tmp_path: Path) -> None:
    there = write(tmp_path, {f"{'train' if k < 7 else 'val'}/*/{k:03}": 200 + k for k in range(10)})
    _, model = numbered
    for one in (model, foreign(model)):
        assert truth_of(one, there).part == "val"
    made = train_elsewhere(there, tmp_path / "run")
    assert truth_of(made, there).part == "val; the weights were chosen by these, or some of them"


def test_of_a_folder_that_counts_from_0_too_all_images_are_scored(numbered: tuple[Path, Model], tmp_path: Path) -> None:
    _, model = numbered
    there = write(tmp_path, {f"*/{k:03}": 100 + k for k in range(10)})
    assert len(truth_of(model, there)) == 10


def test_a_train_of_another_folder_is_all_of_it(numbered: tuple[Path, Model], tmp_path: Path) -> None:
    _, model = numbered
    there = write(tmp_path, {f"train/*/{k:03}": 100 + k for k in range(12)})
    for one in (model, foreign(model)):
        assert (truth_of(one, there, "train").part, len(truth_of(one, there, "train"))) == ("train", 12)
    told = explain(model, there, split="train", images=2)
    assert not any("was trained on" in note for note in told.notes), "of another folder"
    assert "Which images: train." in told.notes
    with pytest.raises(DataError, match="no images with masks in split 'val'"):
        truth_of(model, there, "val")


def test_parts_that_there_are_are_told(numbered: tuple[Path, Model], tmp_path: Path) -> None:
    """Those that training made too, and what has to be given where it made none."""
    data, model = numbered
    trained, judged = (len(truth_of(model, data, part)) for part in ("train", "val"))
    with pytest.raises(DataError, match=rf"one of: train \({trained}\), val \({judged}\), all \(10\); choose"):
        truth_of(model, data, "text")
    there = write(tmp_path, {f"*/{k:03}": 100 + k for k in range(10)})
    with pytest.raises(DataError, match=r"one of: all \(10\), or the folder that the model was trained on; choose"):
        truth_of(model, there, "train")


def test_images_of_train_are_told_to_be_learnt_from(numbered: tuple[Path, Model], tmp_path: Path) -> None:
    data, model = numbered
    assert truth_of(model, data, "train").part == "train, and the model was trained on them"
    told = explain(model, data, split="train", images=2)
    assert any("images that the network was trained on" in note for note in told.notes)
    renamed = write(tmp_path / "renamed", {f"train/*/x{k}": k for k in range(10)})
    assert truth_of(model, renamed, "train").part.endswith("trained on them, or on some of them, under other names")
    twice = write(tmp_path / "twice", {f"{part}/*/{k:03}": 50 + k for part in ("train", "val") for k in range(4)})
    made = train_elsewhere(twice, tmp_path / "run")
    assert truth_of(made, twice, "train").part == "train, and the model was trained on them"
    beside = truth_of(foreign(made), twice, "train", beside=[made]).part
    assert beside == "train, and the second model was trained on them"
    assert truth_of(made, twice, "val").part.startswith("val; the weights"), "equal names of other images"


def test_all_images_are_told_to_hold_those_that_it_was_trained_on(numbered: tuple[Path, Model], tmp_path: Path) -> None:
    data, model = numbered
    chosen = truth_of(model, data, "all")
    assert (chosen.part, len(chosen)) == ("all, and the model was trained on some of them", 10)
    assert images_of(model, data, "all").part == chosen.part, "what is explained says so too"
    learnt = write(tmp_path / "learnt", {f"*/{name}": int(name) for name in model.plan["split"]["train"]})
    assert truth_of(model, learnt, "all").part == "all, and the model was trained on them"
    other = write(tmp_path / "other", {f"*/{k:03}": 100 + k for k in range(10)})
    assert truth_of(model, other, "all").part == "all"
    divided = {f"{'train' if k < 7 else 'val'}/*/{k:03}": k for k in range(10)}
    assert len(truth_of(model, write(tmp_path / "divided", divided), "all")) == 10


@pytest.mark.parametrize("split", ["train", "all", "trian"])
def test_an_int8_model_is_not_checked_on_what_it_was_trained_on(split: str, numbered: tuple[Path, Model]) -> None:
    data, model = numbered
    with pytest.raises(DataError, match=f"split '{split}'; expected 'val' or 'test'.*; leave out the split"):
        verbs.quantise(model, data, split=split)


def test_a_training_image_that_is_damaged_by_now_is_not_missed(numbered: tuple[Path, Model], tmp_path: Path) -> None:
    data, model = numbered
    copied = Path(shutil.copytree(data, tmp_path / "copied"))
    (copied / "images" / f"{next(iter(model.training['seen']))}.png").write_bytes(b"")
    assert set(truth_of(model, copied).names) == set(model.plan["split"]["val"])


def test_a_model_that_does_not_remember_pixels_goes_by_names(numbered: tuple[Path, Model]) -> None:
    data, model = numbered
    for training in (
        {},
        {"seen": list(model.training["seen"].values())},
    ):  # before pixels counted, and before names did
        old = Model(model.network, model.classes, model.normalisation, model.plan, training)
        assert set(truth_of(old, data).names) == set(model.plan["split"]["val"])


def test_images_that_were_learnt_from_are_left_out_of_a_test_that_was_made_later(
    numbered: tuple[Path, Model], tmp_path: Path
) -> None:
    _, model = numbered
    train, val = model.plan["split"]["train"], model.plan["split"]["val"]
    number = {name: int(name) for name in (*train, *val)}
    moved = {f"test/*/{name}": number[name] for name in (*train[:2], *val[:1])}
    rest = {f"train/*/{name}": number[name] for name in (*train[2:], *val[1:])}
    assert truth_of(model, write(tmp_path / "divided", moved | rest)).names == tuple(val[:1])
    others = {f"test/*/{name}": 100 + number[name] for name in (*train[:2], *val[:1])}
    chosen = truth_of(model, write(tmp_path / "other", others | rest))
    assert (chosen.part, len(chosen.names)) == ("test", 3), "equal names of other images"


def test_two_models_are_compared_on_images_new_to_both(numbered: tuple[Path, Model], tmp_path: Path) -> None:
    data, first = numbered
    made = tiny(plan(data, epochs=1, seed=1))
    here = first.plan["split"]
    moved = tuple(here["val"][1:]) + tuple(here["train"][:1])  # one image of val in common
    rest = tuple(name for name in (*here["train"], *here["val"]) if name not in moved)
    for out, split in (
        (tmp_path / "b", {"train": moved, "val": rest}),
        (tmp_path / "c", {"train": here["val"], "val": here["train"]}),
    ):
        train(data, out, plan=replace(made, split=split))
    second = load_model(tmp_path / "b")
    assert truth_of(first, data, beside=[second]).names == tuple(here["val"][:1])
    assert set(truth_of(first, data, "val", beside=[second]).names) == set(here["val"][:1])
    compared = verbs.compare(data.parent / "run", tmp_path / "b", data)
    assert compared.images == 1
    assert compared.part == "not trained on; the weights of both models were chosen by these, or some of them"
    split = {"train": here["train"][:-1], "val": here["train"][-1:]}
    other = replace(second, plan={**second.plan, "split": split}, training=first.training)
    here_too = truth_of(other, data, beside=[first])
    assert here_too.names == tuple(here["val"]), "what neither was trained on"
    assert here_too.part == "not trained on; the weights of the second model were chosen by these, or some of them"
    everything = truth_of(first, data, "all", beside=[foreign(first)]).part
    assert everything == "all, and the first model was trained on some of them"
    with pytest.raises(DataError, match="no image that no model was trained on"):
        verbs.compare(data.parent / "run", tmp_path / "c", data)


def test_models_of_other_classes_do_not_look_at_one_truth(numbered: tuple[Path, Model]) -> None:
    data, model = numbered
    turned = replace(model, classes=replace(model.classes, names=tuple(reversed(model.classes.names))))
    with pytest.raises(ModelError, match="the same classes in the same order"):
        truth_of(model, data, beside=[turned])


CLASSES = """
[[class]]
value = {}
name = "{}"
[[class]]
value = {}
name = "{}"
"""


def test_a_classes_file_counts_by_its_names(tmp_path: Path) -> None:
    there = write(tmp_path / "there", {f"val/*/{k:03}": k for k in range(3)})
    network = UNet(3, 2, width=4, depth=1).eval()
    classes = Classes(("disc", "ground"), ((0, 0, 0), (1, 1, 1)), ((1,), (0,)))
    model = Model(network, classes, Normalisation((0.0,) * 3, (255.0,) * 3))
    (there / "classes.toml").write_text(CLASSES.format(0, "ground", 255, "disc"))
    for index in range(3):  # as the file says, in the order of the model
        _, labels = truth_of(model, there).store[index]
        np.testing.assert_array_equal(labels == 0, disc_picture(index)[1] == 255)
    (there / "classes.toml").write_text(CLASSES.format(1, "this", 0, "that"))
    assert len(truth_of(model, there)) == 3  # other names for the same values
    (there / "classes.toml").write_text(CLASSES.format(0, "this", 255, "that"))
    with pytest.raises(ModelError, match=r"2 classes \(this, that\); expected the model's 2 \(disc, ground\)"):
        truth_of(model, there)
    (there / "classes.toml").write_text(CLASSES.format(0, "one", 255, "one"))
    with pytest.raises(DataError, match="two classes are named 'one'"):
        truth_of(model, there)


GROUND, DISC = (40, 40, 40), (200, 90, 0)


@pytest.mark.parametrize(
    "classes",
    [
        Classes(("ground", "disc"), (GROUND, DISC), ((255,), (0,))),  # as the file has them, exchanged
        Classes(("disc", "ground"), (DISC, GROUND), ((255,), (0,))),
        Classes(("anything",), (DISC,), ((0, 255),)),
        Classes(("disc",), (DISC,), ((255,),), void=(0,)),
        Classes(("ground", "disc"), (GROUND, DISC), ((1,), (200,)), nearest=True),
    ],
    ids=["exchanged", "turned", "merged", "void", "nearest"],
)
def test_in_its_own_folder_mask_values_mean_what_they_meant_in_training(
    classes: Classes, numbered: tuple[Path, Model], tmp_path: Path
) -> None:
    """By the plan, which may correct the folder's ``classes.toml``."""
    data, model = numbered
    here = Path(shutil.copytree(data, tmp_path / "here"))
    (here / "classes.toml").write_text(CLASSES.format(0, "ground", 255, "disc"))
    trained = open_sets(find(here), tiny(replace(plan(here, epochs=1), classes=classes, split=model.plan["split"])))
    judged = truth_of(replace(model, classes=classes), here, "val")
    assert set(judged.names) == set(trained["val"].names)
    for index, name in enumerate(judged.names):
        _, labels = trained["val"].store[trained["val"].names.index(name)]
        np.testing.assert_array_equal(judged.store[index][1], labels)


@pytest.mark.parametrize("part", ["val", "test"])
def test_an_image_that_is_learnt_from_is_not_judged_on(part: str, numbered: tuple[Path, Model]) -> None:
    data, _ = numbered
    made = plan(data, epochs=1)
    name = made.split["train"][0]
    both = replace(made, split={**made.split, part: (*made.split.get(part, ()), name)})
    with pytest.raises(PlanError, match=rf"'{name}' is in train and in {part}; expected each image in one.*\[split\]"):
        train(data, data.parent / "never", plan=both)


def test_images_of_two_folders_may_have_one_name(tmp_path: Path) -> None:
    data = write(
        tmp_path, {f"{part}/*/{k:03}": 10 * place + k for place, part in enumerate(("train", "val")) for k in (1, 2)}
    )
    sets = open_sets(find(data), plan(data, epochs=1))
    assert sets["train"].names == sets["val"].names == ("001", "002")


def test_all_images_are_told_apart_where_two_have_one_name(numbered: tuple[Path, Model], tmp_path: Path) -> None:
    _, model = numbered
    there = write(tmp_path, {f"{part}/*/{k:03}": 100 + k + len(part) for part in ("train", "val") for k in range(2)})
    images = truth_of(model, there, "all")
    assert images.names == ("000", "001", "000 (val)", "001 (val)")
    name, held = with_image(model, images, there / "val" / "images" / "001.png")
    assert (name, len(held)) == ("001 (val)", 4)  # it is known, and not added
    assert np.array_equal(held.store[3][1], np.asarray(Image.open(there / "val" / "masks" / "001.png")) > 0)
    assert verbs.evaluate(model, there, split="all").images == images.names


def save_palette(path: Path, ids: np.ndarray, colors: list[int]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    mask = Image.fromarray(ids.astype(np.uint8), "P")
    mask.putpalette(colors)
    mask.save(path)


def test_masks_that_number_their_colours_otherwise_are_not_scored_as_other_classes(tmp_path: Path) -> None:
    """What programs do that save a mask anew: it looks the same."""
    black, red, green = [0, 0, 0], [255, 0, 0], [0, 255, 0]
    classes = Classes(("none", "cat", "dog"), ((0, 0, 0), (255, 0, 0), (0, 255, 0)), ((0,), (1,), (2,)))
    model = Segmenter.from_module(nn.Conv2d(3, 3, 1), classes, Normalisation((1.0,) * 3, (1.0,) * 3)).model
    ids = np.arange(64).reshape(8, 8) % 3
    for place in ("same", "other", "foreign"):
        (tmp_path / place / "images").mkdir(parents=True)
        Image.fromarray(np.zeros((8, 8, 3), np.uint8)).save(tmp_path / place / "images/a.png")
    save_palette(tmp_path / "same/masks/a.png", ids, [*black, *red, *green])
    save_palette(tmp_path / "foreign/masks/a.png", ids, [*black, *green, 0, 0, 255])
    for place in ("same", "foreign"):
        assert np.array_equal(truth_of(model, tmp_path / place).store[0][1], ids)
    save_palette(tmp_path / "other/masks/a.png", -ids % 3, [*black, *green, *red])
    with pytest.raises(ModelError, match=r"a\.png gives 1 the colour of dog"):
        truth_of(model, tmp_path / "other")
    of_colors = {"none": "#000000", "cat": "#ff0000", "dog": "#00ff00"}
    listed = "".join(f'[[class]]\nname = "{name}"\nvalues = ["{color}"]\n' for name, color in of_colors.items())
    (tmp_path / "other/classes.toml").write_text(listed)
    assert np.array_equal(truth_of(model, tmp_path / "other").store[0][1], ids)


def test_a_value_that_the_plan_lacks_is_to_be_added_there(numbered: tuple[Path, Model]) -> None:
    data, _ = numbered
    made = plan(data, epochs=1)
    lacking = replace(made, classes=replace(made.classes, values=((0,), (7,))))
    with pytest.raises(DataError, match=r"value 255 in no class.*add the value to a class or to void in the plan"):
        open_sets(find(data), lacking)["train"].facts()


def test_a_folder_of_equal_names_and_other_pixels_is_told_so(numbered: tuple[Path, Model], tmp_path: Path) -> None:
    _, model = numbered
    there = write(tmp_path, {f"*/{k:03}": 100 + k for k in range(10)})
    assert truth_of(model, there).part == "all; named like images that it was trained on, with other pixels"


def test_images_that_were_learnt_from_are_known_under_other_names(
    numbered: tuple[Path, Model], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data, model = numbered
    renamed = write(tmp_path / "renamed", {f"*/cell {k}": k for k in range(10)})
    assert "was trained on them, or on some of them, under other names" in truth_of(model, renamed).part
    with pytest.raises(DataError, match="images that a model was trained on, under other names"):
        verbs.compare(model, model, renamed)
    told = explain(model, renamed, images=1)
    assert any("images that the network was trained on" in note for note in told.notes)
    new = write(tmp_path / "new", {f"*/cell {k}": 100 + k for k in range(10)})
    assert truth_of(model, new).part == "not trained on", "it remembers all that it was trained on"
    known = dict(list(model.training["seen"].items())[:3])
    forgetful = replace(model, training={**model.training, "seen": known})
    assert truth_of(forgetful, new).part == "none known to have been trained on"
    assert truth_of(replace(model, training={}), new).part == "none known to have been trained on"
    assert truth_of(forgetful, data).part.startswith("not trained on; the weights")
    monkeypatch.setattr("whatwhere.remembered._LOOKED_AT", 4)
    assert truth_of(model, new).part == "none known to have been trained on", "not all were looked at"


def test_a_single_image_is_learnt_from_and_judged_on(tmp_path: Path) -> None:
    data = write(tmp_path / "data", {"*/a": 1})
    made = tiny(plan(data, epochs=1))
    assert made.split == {"train": ("a",), "val": ("a",)}
    assert train(data, tmp_path / "run", plan=made).images == 1


def test_a_name_that_breaks_its_line_is_refused_before_anything_is_read(tmp_path: Path) -> None:
    data = write(tmp_path, {"*/a": 1, "*/b": 2})
    (data / "classes.toml").write_text(
        '[[class]]\nname = """one\nof two"""\nvalue = 0\n[[class]]\nname = "two"\nvalue = 255\n'
    )
    with pytest.raises(DataError, match="control characters"):
        plan(data, epochs=1)


def test_images_without_a_mask_are_in_nobody_s_way(tmp_path: Path) -> None:
    data = write(tmp_path, {f"*/{k:03}": k for k in range(10)})
    Image.fromarray(disc_picture(99)[0][:9, :9, 0]).save(data / "images/tiny grey.png")
    (data / "images/damaged.png").write_bytes(b"no image")
    found = check(data)
    assert not found.fatal, str(found)
    assert "2 images without a mask" in str(found)
    plan(data, epochs=1)


def test_test_images_do_not_leak_into_a_validation_that_was_made(tmp_path: Path) -> None:
    numbers = {f"train/*/{k:03}": k for k in range(10)} | {f"test/*/{k:03}": 50 + k for k in range(10)}
    data = write(tmp_path / "data", numbers)
    made = tiny(plan(data, epochs=1))
    sets = open_sets(find(data), made)
    assert {split: len(images) for split, images in sets.items()} == {"train": 8, "val": 2}
    assert all(path.parent.parent.name == "train" for images in sets.values() for path in images.paths)
    train(data, tmp_path / "run", plan=made)
    model = load_model(tmp_path / "run")
    assert len(truth_of(model, data, "val")) == 2
    assert len(truth_of(model, data, "train")) == 8
    assert (truth_of(model, data).part, len(truth_of(model, data))) == ("test", 10)


def test_a_val_without_masks_is_made_from_train(tmp_path: Path) -> None:
    data = write(tmp_path, {f"train/*/{k:03}": k for k in range(10)})
    (data / "val/images").mkdir(parents=True)
    (data / "val/masks").mkdir()
    Image.fromarray(disc_picture(77)[0]).save(data / "val/images/000.png")
    sets = open_sets(find(data), plan(data, epochs=1))
    assert {split: len(images) for split, images in sets.items()} == {"train": 8, "val": 2}


def test_the_image_that_is_named_is_the_one_explained(disc_model: Model, discs: Path, tmp_path: Path) -> None:
    name = truth_of(disc_model, discs).names[0]
    other = np.full((40, 40, 3), 90, np.uint8)
    Image.fromarray(other).save(tmp_path / f"{name}.png")
    told = whatwhere.explain(disc_model, discs, image=tmp_path / f"{name}.png", pixel=(5, 5), images=3)
    assert told.pixel.image == str(tmp_path / f"{name}.png")
    told = explain(disc_model, discs, image=discs / "val/images" / f"{name}.png", pixel=(5, 5), images=3)
    assert told.pixel.image == name
    with pytest.raises(DataError, match=r"there is no image .*nowhere.png"):
        explain(disc_model, discs, image=tmp_path / "nowhere.png", pixel=(5, 5))


def test_an_image_whose_name_can_t_be_written_down_is_refused_before_the_work(
    disc_model: Model, discs: Path, tmp_path: Path
) -> None:
    strange = tmp_path / "caf\udce9.png"
    Image.fromarray(disc_picture(1)[0]).save(strange)
    with pytest.raises(DataError, match=r"name can't be written down: .*caf\\udce9.png; expected a name in UTF-8"):
        with_image(disc_model, truth_of(disc_model, discs), strange)


def test_an_image_is_named_though_another_one_s_drive_is_not_there(
    disc_model: Model, discs: Path, tmp_path: Path
) -> None:
    images = truth_of(disc_model, discs)
    gone = replace(images, paths=(tmp_path / "gone.png", *images.paths[1:]))
    assert with_image(disc_model, gone, images.paths[1])[0] == images.names[1]


def test_paintings_are_not_explained_as_images(disc_model: Model, tmp_path: Path) -> None:
    for number in range(3):
        Image.fromarray(disc_picture(number)[0]).save(tmp_path / f"{number}.png")
    predict(disc_model, tmp_path, tmp_path / "painted", overlay=True)
    assert images_of(disc_model, tmp_path, None).names == ("0", "1", "2")


def test_images_without_masks_have_names_of_their_own(tmp_path: Path) -> None:
    paths = [tmp_path / "2023/a.png", tmp_path / "2024/a.png", tmp_path / "2024/b.png", tmp_path / "2024/b.bmp"]
    assert untold(paths, tmp_path).names == ("2023/a", "2024/a", "2024/b.png", "2024/b.bmp")
    assert untold(paths[:1]).names == ("a",)
    assert untold([tmp_path / "a.ome.tif"]).names == ("a",), "as in a data folder"


def test_masks_are_not_explained_as_images(disc_model: Model, tmp_path: Path) -> None:
    data = write_discs(tmp_path / "discs", train=4, val=2)
    (data / "classes.toml").write_text("[[class]\n")
    with pytest.raises(DataError, match=r"classes\.toml"):
        explain(disc_model, data)


@pytest.mark.parametrize("epochs", [0, -1, float("nan")])
def test_no_epochs_are_refused(discs: Path, epochs: float) -> None:
    with pytest.raises(PlanError, match="a number above 0"):
        plan(discs, epochs=epochs)
