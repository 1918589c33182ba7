"""A model in hand: what it takes, and that it does what the functions and the command line do."""

from __future__ import annotations

import multiprocessing
import pickle
import random
import re
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from painting import model_of, picture, unet, whole_logits
from PIL import Image
from torch import nn

import whatwhere
from tiny import Cli, disc_picture, rarely
from whatwhere import Normalisation, Segmenter
from whatwhere.errors import DataError, FieldError, ModelError, OutputError, PlanError
from whatwhere.learn.changes import changed
from whatwhere.learn.plan import Plan
from whatwhere.network import Model
from whatwhere.paint import Engine

IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))


@pytest.mark.parametrize("classes", [pytest.param(3, marks=pytest.mark.slow), ["ground", "cat", "lamp"]])
def test_a_module_made_elsewhere_paints_as_it_would_in_one_piece(classes: Any, tmp_path: Path) -> None:
    monai = pytest.importorskip("monai.networks.nets")
    torch.manual_seed(0)
    network = monai.BasicUNet(2, 3, 3, features=(4, 4, 8, 8, 16, 4))
    model = Segmenter.from_module(network, classes, ([120.0] * 3, [60.0] * 3))
    assert model.model.classes.names == (("class 0", "class 1", "class 2") if classes == 3 else tuple(classes))
    image = picture(150, 170)
    truth = whole_logits(model.model, image).argmax(0).numpy()
    found = model.predict(image, backend="eager")
    assert (found == truth).mean() > 0.99  # in bfloat16, where the machine computes in it
    Image.fromarray(image).save(tmp_path / "a.png")
    done = whatwhere.predict(model, tmp_path / "a.png", tmp_path / "out", precision="float32")
    assert not done.failed, str(done)
    assert (np.asarray(Image.open(tmp_path / "out/a.png")) == truth).mean() > 0.999


@pytest.mark.parametrize(
    ("constants", "words"),
    [
        (IMAGENET, "which are for images from 0 to 1"),
        (((1.0,), (0.0,)), "every one must be positive"),
        (((1.0,), (1e-300,)), "a float32 with its reciprocal"),
        (((1.0, 2.0), (1.0,)), "one finite number a channel"),
        ("imagenet", r"normalisation 'imagenet' .*expected two sequences.*123\.675"),
    ],
)
def test_constants_that_cannot_be_meant(constants: Any, words: str) -> None:
    with pytest.raises(ModelError, match=words):
        Segmenter.from_module(nn.Conv2d(3, 2, 1), 2, constants)


def test_constants_for_images_from_0_to_1_are_taken_with_their_dtype() -> None:
    model = Segmenter.from_module(nn.Conv2d(3, 2, 1), 2, Normalisation(*IMAGENET, "float32"))
    assert model.predict(picture(9, 9, dtype="float32") / 4).shape == (9, 9)


def test_images_of_the_other_order_of_bytes_are_painted_alike() -> None:
    image = picture(9, 9, dtype="uint16")
    model = Segmenter.from_module(nn.Conv2d(3, 2, 1), 2, Normalisation((100.0,) * 3, (50.0,) * 3, "uint16"))
    np.testing.assert_array_equal(model.predict(image.astype(">u2")), model.predict(image.astype("<u2")))
    with pytest.raises(ModelError, match="holds float32 values"):
        model.predict(image.astype(">f4"))


@pytest.mark.parametrize(
    ("classes", "words"),
    [
        ("cat", r"classes are the text 'cat'; expected a list of names, or a number; give \['cat', ...\]"),
        (-3, "-3 classes; expected 1 to 254"),
        (0, "0 classes; expected 1 to 254"),
        (np.int64(300), "300 classes; expected 1 to 254"),
        (["cat", "cat"], "two classes are named 'cat'.*; expected a name of its own for each class"),
    ],
)
def test_classes_that_cannot_be_meant(classes: Any, words: str) -> None:
    with pytest.raises(ModelError, match=words):
        Segmenter.from_module(nn.Conv2d(3, 2, 1), classes, ([100.0] * 3, [50.0] * 3))


@pytest.mark.parametrize("seed", [-1, 2**32])
def test_a_seed_is_one_that_all_generators_take(seed: int, disc_model: Model, discs: Path) -> None:
    for work in (whatwhere.check, whatwhere.plan, Segmenter(disc_model).explain):
        with pytest.raises(PlanError, match=rf"seed = {re.escape(f'{seed:.12g}')}; expected a number from 0"):
            work(discs, seed=seed)


@pytest.mark.parametrize("time", ["", "0.3s"])
def test_a_time_too_short_is_told_as_it_was_given(time: str, discs: Path, disc_plan: Plan) -> None:
    for work in (lambda: whatwhere.plan(discs, time=time), lambda: changed(disc_plan, time=time, epochs=1)):
        with pytest.raises(PlanError, match=f"time is '{time}'; expected a duration.*a second at least"):
            work()


@pytest.mark.parametrize(
    ("asked", "words"),
    [
        ({"width": "a"}, r"network\.width = 'a'; expected a whole number"),
        ({"depth": 2.5}, r"network\.depth = 2\.5; expected a whole number"),
        ({"widht": 4}, r"unknown key 'widht' .* did you mean 'width'\?"),
        ({"crop": 64}, r"unknown key 'crop' in \[network\]"),
        ({"depth": 1, "skips": (0, 1)}, r"skips = \[0, 1\]; expected levels from 0 to 0, as depth is 1"),
        ({"time": 5}, "time is '5'; expected a duration such as"),
    ],
)
def test_a_network_asked_for_is_checked_as_in_a_plan(asked: dict[str, Any], words: str, discs: Path) -> None:
    with pytest.raises(PlanError, match=words):
        Segmenter.fit(discs, **asked)


def _learn(network: nn.Module) -> None:
    optimiser = torch.optim.Adam(network.parameters(), lr=0.5)
    network(torch.randn(1, 3, 32, 32)).square().mean().backward()
    optimiser.step()


def _average(network: nn.Module) -> None:
    """As many keep a mean of the weights: what writes into ``.data`` is counted nowhere."""
    for weight in network.parameters():
        weight.data.copy_(-weight.data)


CHANGES: dict[str, Callable[[nn.Module], object]] = {
    "an optimiser": _learn,
    "other weights": lambda network: network.load_state_dict(unet(seed=1).state_dict()),
    "a mean of them": _average,
    "another layer": lambda network: setattr(network, "head", nn.Conv2d(4, 3, 1)),
    "batch norm's means": lambda network: network.train()(torch.randn(8, 3, 32, 32) + 5),
    "a layer without weights": lambda network: setattr(network.encoder[0][1], "2", nn.Tanh()),
    "a layer set otherwise": lambda network: setattr(network.encoder[0][0][1], "eps", 3.0),
    "a hook": lambda network: network.head.register_forward_hook(lambda _module, _given, logits: -logits),
    "a forward of its own": lambda network: setattr(network.head, "forward", lambda x: -x[:, :3]),
}


@pytest.mark.parametrize("how", CHANGES)
def test_a_network_that_was_changed_paints_as_it_is_now(how: str) -> None:
    network, image = unet(), picture(60, 70)
    model = Segmenter.from_module(network, 3, ([100.0] * 3, [50.0] * 3))
    before = model.predict(image)
    torch.manual_seed(3)
    CHANGES[how](network)
    after = model.predict(image)
    assert (after != before).any()
    np.testing.assert_array_equal(after, Segmenter(model.model).predict(image))


def test_a_model_in_another_s_place_paints() -> None:
    model, image = Segmenter.from_module(unet(), 3, ([100.0] * 3, [50.0] * 3)), picture(60, 70)
    before = model.predict(image)
    model.model.normalisation = Normalisation((10.0, 200.0, 100.0), (20.0, 50.0, 55.0))
    changed = model.predict(image)
    assert (changed != before).any()
    model.model = replace(model.model, normalisation=Normalisation((100.0,) * 3, (50.0,) * 3))
    np.testing.assert_array_equal(model.predict(image), before)


class _Counting(nn.Module):
    """Notes in a buffer how often it was called."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Conv2d(3, 2, 1)
        self.register_buffer("calls", torch.zeros(()))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.calls += 1
        found: torch.Tensor = self.inner(x)
        return found


def test_a_network_is_made_ready_once(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[Engine] = []
    monkeypatch.setattr("whatwhere.segmenter.Engine", lambda *of, **how: made.append(Engine(*of, **how)) or made[-1])
    model = Segmenter.from_module(_Counting(), 2, ([100.0] * 3, [50.0] * 3))
    for side in (9, 20):
        model.predict(picture(side, side))
    model.model.network.train()
    model.predict(picture(9, 9))
    assert len(made) == 1


def test_files_of_every_kind_are_painted_as_by_predict(tmp_path: Path) -> None:
    zarr, tifffile = pytest.importorskip("zarr"), pytest.importorskip("tifffile")
    model, image = Segmenter(model_of(unet())), picture(60, 70)
    truth = model.predict(image)
    zarr.save_array(str(tmp_path / "a.zarr"), image)
    Image.fromarray(np.dstack([image, np.full((60, 70), 255, np.uint8)])).save(tmp_path / "opaque.png")
    for name in ("a.zarr", "opaque.png"):
        np.testing.assert_array_equal(model.predict(tmp_path / name), truth)
    tifffile.imwrite(
        tmp_path / "n.tif", np.where(np.arange(60)[:, None, None] < 9, 0, np.maximum(image, 1)).astype(np.uint8),
        photometric="rgb", extratags=[(42113, "s", 0, "0", False)],
    )  # fmt: skip
    labels = model.predict(tmp_path / "n.tif")
    assert (labels[:9] == 255).all()
    assert (labels[9:] != 255).all()


def test_two_models_in_memory_are_compared(disc_model: Model, discs: Path) -> None:
    both = whatwhere.compare(disc_model, Segmenter(disc_model), discs)
    assert both.images == 3
    assert "the first" in str(both)
    assert whatwhere.evaluate(Segmenter(disc_model), discs).mean_iou == whatwhere.evaluate(disc_model, discs).mean_iou


def test_a_model_of_other_images_is_told_before_anything_is_painted(
    disc_model: Model, discs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    grey = replace(model_of(unet(channels=1, classes=2), 1, 2), classes=disc_model.classes)
    monkeypatch.setattr("whatwhere.verbs.score", lambda *_: pytest.fail("painted"))
    with pytest.raises(ModelError, match="3 channels"):
        whatwhere.compare(disc_model, grey, discs)


def test_scores_are_not_lost_with_the_picture_of_the_worst(
    disc_model: Model, discs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OutputError("worst.png can't be written (No space left on device)", "a place with room", "")

    monkeypatch.setattr("whatwhere.verbs._draw_worst", full)
    with pytest.warns(UserWarning, match="No space left on device"):
        scores = whatwhere.evaluate(disc_model, discs, worst=tmp_path / "worst.png")
    assert len(scores.images) == 3


def test_fit_takes_an_encoder_by_name() -> None:
    pairs = [disc_picture(seed, 48) for seed in range(3)]
    images, masks = [image for image, _ in pairs], [mask for _, mask in pairs]
    model = Segmenter.fit(images, masks, epochs=0.1, encoder="plain", width=4, depth=2, device="cpu")
    assert model.model.plan["network"]["encoder"] == "plain"
    assert model.model.source is None, "its file has gone with the folder it was trained in"


@pytest.mark.slow
def test_colours_may_be_of_any_integer_type() -> None:
    image, mask = disc_picture(1, 48)
    for dtype in (np.int64, np.uint16, np.float32):
        colours = np.where(mask[..., None] > 0, (200, 30, 30), (0, 0, 90)).astype(dtype)
        model = Segmenter.fit([image], [colours], epochs=0.1, encoder="plain", width=4, depth=2)
        assert sorted(model.model.classes.values) == [((0, 0, 90),), ((200, 30, 30),)]


def test_a_network_that_gives_a_dictionary_is_told_how_to_be_wrapped() -> None:
    class Torchvision(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = nn.Conv2d(3, 2, 1)

        def forward(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
            return {"out": self.inner(x)}

    model = Segmenter.from_module(Torchvision(), 2, ([120.0] * 3, [60.0] * 3))
    with pytest.raises(ModelError, match=r"wrap it in a module whose forward returns the logits alone"):
        model.predict(picture(20, 20))


def test_a_checkpoint_of_pytorch_says_what_to_do_with_it(tmp_path: Path) -> None:
    torch.save(nn.Conv2d(3, 2, 1).state_dict(), tmp_path / "model.pth")
    with pytest.raises(ModelError, match=r"Segmenter\.from_module"):
        Segmenter.load(tmp_path / "model.pth")


@pytest.mark.parametrize(
    ("given", "words"),
    [
        (nn.Conv2d(3, 2, 1).state_dict(), "a OrderedDict"),
        ("m.pth", "a str"),
        (None, "a NoneType"),
        (nn.Conv2d, "the class Conv2d"),
    ],
)
def test_what_is_no_module_is_not_wrapped(given: Any, words: str) -> None:
    with pytest.raises(ModelError, match=f"module is {words}; expected a torch module; .*load_state_dict"):
        Segmenter.from_module(given, 2, ([120.0] * 3, [60.0] * 3))


def test_what_torch_export_made_is_told_from_a_module() -> None:
    exported = torch.export.export(nn.Conv2d(3, 2, 1).eval(), (torch.zeros(1, 3, 64, 64),)).module()
    with pytest.raises(ModelError, match=r"can't be switched to evaluation mode .*that torch\.export made it from"):
        Segmenter.from_module(exported, 2, ([120.0] * 3, [60.0] * 3))
    with pytest.raises(FieldError, match=r"eval\(\) is not supported"):
        whatwhere.field(exported, (3, 64, 64))


@pytest.mark.parametrize("lazy", [nn.LazyConv2d(2, 1), nn.LazyBatchNorm2d(affine=False)])
def test_lazy_layers_are_named(lazy: nn.Module) -> None:
    with pytest.raises(ModelError, match=r"Sequential has lazy layers; .*run it once on an image"):
        Segmenter.from_module(nn.Sequential(lazy), 2, ([120.0] * 3, [60.0] * 3))


USES: list[Callable[[Any], object]] = [
    Segmenter,
    Segmenter.load,
    lambda network: whatwhere.evaluate(network, "data"),
    lambda network: whatwhere.compare(network, network, "data"),
    lambda network: whatwhere.predict(network, __file__, "out"),
]


@pytest.mark.parametrize("use", USES)
@pytest.mark.parametrize("given", [nn.Conv2d(3, 2, 1), nn.Conv2d(3, 2, 1).state_dict(), None])
def test_a_network_is_asked_to_be_wrapped(given: Any, use: Callable[[Any], object]) -> None:
    with pytest.raises(ModelError, match=r"is a (Conv2d|OrderedDict|NoneType); .*wrap a network: .*from_module"):
        use(given)


def test_channels_that_come_first_are_told_to_be_moved(disc_model: Model) -> None:
    with pytest.raises(ModelError, match=r"40 channels; .*move the channels last: image\.transpose\(1, 2, 0\)"):
        Segmenter(disc_model).predict(torch.from_numpy(disc_picture(0)[0]).permute(2, 0, 1))


def test_an_error_of_many_masks_names_one_of_them() -> None:
    images, masks = zip(*(disc_picture(number, 48) for number in range(3)))
    with pytest.raises(
        DataError, match=r"3 masks cannot be used: mask 0 has [\d,]+ values that are no whole numbers"
    ) as told:
        Segmenter.fit(images, [mask / 510 for mask in masks], epochs=1)
    assert "mask 1" not in str(told.value)


def test_nothing_to_explain_with(disc_model: Model, tmp_path: Path) -> None:
    with pytest.raises(DataError):
        Segmenter(disc_model).explain(tmp_path, pixel=(1, 2))


def test_a_plan_is_not_overwritten(discs: Path, run_cli: Cli) -> None:
    arguments = ("plan", discs, "--epochs", 1, "--device", "cpu", "-q")
    assert run_cli(*arguments).code == 0
    Path("plan.toml").write_text(Path("plan.toml").read_text() + "\n# mine\n")
    again = run_cli(*arguments)
    assert again.code == 2
    assert "plan.toml is there, perhaps with your changes" in " ".join(again.err.split())
    assert "# mine" in Path("plan.toml").read_text()
    assert run_cli(*arguments, "--overwrite").code == 0


def _fitted(**options: Any) -> Segmenter:
    """A network that has learnt from two discs for a step or two."""
    images, masks = zip(*(disc_picture(number, 48) for number in (3, 4)))
    options = {"encoder": "plain", "width": 4, "depth": 2} | options
    return Segmenter.fit(images, masks, epochs=0.1, device="cpu", **options)


def _fitted_module(module: nn.Module) -> Segmenter:
    images, masks = zip(*(disc_picture(number, 48) for number in (3, 4)))
    return Segmenter.fit(images, masks, epochs=0.1, device="cpu", module=module)


def _same_weights(one: Segmenter, other: Segmenter) -> bool:
    mine, its = (model.model.network.state_dict() for model in (one, other))
    return all(torch.equal(value, its[name]) for name, value in mine.items())


@contextmanager
def _float64() -> Iterator[None]:
    torch.set_default_dtype(torch.float64)
    try:
        yield
    finally:
        torch.set_default_dtype(torch.float32)


SWITCHES: dict[str, Callable[[], AbstractContextManager[object]]] = {
    "no gradients": torch.no_grad,
    "inference": torch.inference_mode,
    "float64": _float64,
    "autocast": lambda: torch.autocast("cpu", torch.bfloat16),
    "another device": lambda: torch.device("meta"),
}


@pytest.fixture(scope="module")
def usual(disc_run: Path) -> tuple[Segmenter, np.ndarray[Any, Any]]:
    """What is fitted, and what the discs' network answers, where nothing is switched."""
    found = Segmenter.load(disc_run).paint(disc_picture(3)[0], probabilities=True).probabilities
    assert found is not None
    return _fitted(), found


@pytest.mark.parametrize("name", rarely(SWITCHES, "inference", "float64", "another device"))
def test_what_a_caller_has_switched_in_torch_changes_nothing(
    name: str, disc_run: Path, usual: tuple[Segmenter, np.ndarray[Any, Any]]
) -> None:
    with SWITCHES[name]():
        before = torch.ones(1).dtype, torch.is_grad_enabled(), torch.is_autocast_enabled("cpu")
        found = Segmenter.load(disc_run).paint(disc_picture(3)[0], probabilities=True)
        fitted = _fitted()
        assert before == (torch.ones(1).dtype, torch.is_grad_enabled(), torch.is_autocast_enabled("cpu"))
    np.testing.assert_array_equal(found.probabilities, usual[1])
    assert _same_weights(fitted, usual[0])


@pytest.mark.slow
def test_a_network_is_explained_whatever_a_caller_has_switched(disc_model: Model, discs: Path) -> None:
    expected = Segmenter(disc_model).explain(discs, images=2)
    with torch.inference_mode(), _float64():
        told = Segmenter(disc_model).explain(discs, images=2)
    assert str(told.skips) == str(expected.skips)
    assert str(told.sights) == str(expected.sights)


def _seed(number: int) -> None:
    torch.manual_seed(number)
    random.seed(number)
    np.random.seed(number)


def _draw() -> tuple[Any, ...]:
    return torch.rand(2).tolist(), random.random(), np.random.rand()


def test_a_caller_s_random_numbers_go_on_as_they_would_have(disc_run: Path) -> None:
    module = unet(classes=2)
    _seed(7)
    expected = _draw()
    works: tuple[Callable[[], Segmenter], ...] = (
        _fitted,
        lambda: _fitted_module(module),
        lambda: Segmenter.load(disc_run),
    )
    for work in works:
        _seed(7)
        work()
        assert _draw() == expected


def test_a_caller_s_random_numbers_are_not_learnt_from(usual: tuple[Segmenter, np.ndarray[Any, Any]]) -> None:
    _seed(8)
    assert _same_weights(_fitted(), usual[0])
    assert not _same_weights(_fitted(seed=1), usual[0])


def test_a_model_that_has_painted_goes_to_other_processes(disc_model: Model) -> None:
    images = [disc_picture(number)[0] for number in (3, 4)]
    model = Segmenter(disc_model)
    expected = [model.predict(image) for image in images]
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(model)).predict(images[0]), expected[0])  # noqa: S301
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        found = pool.map(model.predict, images)
        pool.close()
        pool.join()
    np.testing.assert_array_equal(found, expected)


def test_tensors_are_painted_as_arrays(disc_model: Model) -> None:
    model = Segmenter.from_module(disc_model.network, 2, Normalisation((80.0,) * 3, (60.0,) * 3, "float32"))
    image = disc_picture(3)[0].astype("float32")
    np.testing.assert_array_equal(model.predict(torch.from_numpy(image).requires_grad_()), model.predict(image))


@pytest.mark.parametrize(
    "image",
    [
        np.full((9, 9), "a"),
        np.zeros((9, 9, 3), complex),
        [[1, 2], [3]],
        torch.zeros(9, 9, 3, dtype=torch.bfloat16),
        None,
        b"a.png",
    ],
    ids=["words", "complex", "ragged", "bfloat16", "nothing", "bytes"],
)
def test_what_is_no_array_of_numbers_is_not_painted(image: Any, disc_model: Model) -> None:
    with pytest.raises(DataError, match="expected an array of numbers, HxW or HxWxC"):
        Segmenter(disc_model).predict(image)


@pytest.mark.parametrize("dtype", ["uint8", "float32"])
def test_masked_pixels_have_no_data(dtype: str, disc_model: Model) -> None:
    model = replace(disc_model, normalisation=replace(disc_model.normalisation, dtype=dtype))
    image = disc_picture(3)[0].astype(dtype)
    mask = np.zeros(image.shape, bool)
    mask[:9, :, 1] = True  # of one channel
    if dtype == "float32":
        image[mask] = np.nan
    labels = Segmenter(model).predict(np.ma.masked_array(image, mask))
    assert (labels[:9] == 255).all()
    assert (labels[9:] != 255).all()
    whole = Segmenter(model).predict(np.ma.masked_array(image[9:], mask[9:]))
    np.testing.assert_array_equal(whole, Segmenter(model).predict(image[9:]))


def test_what_was_learnt_from_as_arrays_is_known_in_files(
    tmp_path: Path, usual: tuple[Segmenter, np.ndarray[Any, Any]]
) -> None:
    for number in (3, 4):
        for kind, array in zip(("images", "masks"), disc_picture(number, 48)):
            (tmp_path / kind).mkdir(exist_ok=True)
            Image.fromarray(array).save(tmp_path / kind / f"disc {number}.png")
    assert "was trained on them" in usual[0].evaluate(tmp_path).part
