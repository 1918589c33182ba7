"""Tiled logits are the whole image's, whatever the sizes; with one stride less of halo they are not."""

from __future__ import annotations

import threading
import time
import warnings
import weakref
from collections.abc import Callable
from contextlib import AbstractContextManager
from functools import cache
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from painting import model_of, picture, unet, whole_logits
from torch import nn

from tiny import rarely
from whatwhere.errors import FieldError, ModelError, PlanError
from whatwhere.network import Mirrored, UNet
from whatwhere.paint import Engine, Tiling, paint
from whatwhere.paint.blend import blend_tiles
from whatwhere.paint.fold import folded
from whatwhere.paint.paint import ArraySink, with_room
from whatwhere.paint.prove import prove, tiled_logits
from whatwhere.paint.scheme import Scheme, scheme
from whatwhere.paint.sources import ArraySource

ARCHITECTURES = [
    (depth, block, up) for depth in range(1, 6) for block in ("plain", "residual") for up in ("transpose", "bilinear")
]


@cache
def _engine(depth: int, block: str, up: str) -> Engine:
    return Engine(model_of(unet(width=2, depth=depth, max_width=16, block=block, up=up)), "float32")


def _case(engine: Engine, number: int) -> None:
    """One random size and tile, against the user's own module on the whole image."""
    draw = np.random.default_rng(number)
    height, width = (int(n) for n in draw.integers(1, 700, size=2))
    image = picture(height, width, seed=number)
    least = Tiling((height, width), (10**4, 10**4), engine.geometry.halo, engine.geometry.period).smallest
    tile = tuple(int(side + draw.integers(32, 200)) for side in least)
    tiling = Tiling((height, width), tile, engine.geometry.halo, engine.geometry.period)
    tiled = tiled_logits(engine, ArraySource(image), tiling)
    np.testing.assert_allclose(tiled.numpy(), whole_logits(engine.model, image).numpy(), atol=1e-4, err_msg=f"{tiling}")


@pytest.mark.parametrize("number", range(30))
def test_tiles_equal_the_whole_image(number: int) -> None:
    _case(_engine(*ARCHITECTURES[::4][number % 5]), number)


@pytest.mark.slow
@pytest.mark.parametrize("number", range(30, 200))
def test_tiles_equal_the_whole_image_in_all_cases(number: int) -> None:
    _case(_engine(*ARCHITECTURES[number % 20]), number)


@pytest.mark.parametrize(("depth", "up"), [(1, "transpose"), (2, "bilinear"), (3, "transpose")])
def test_one_stride_less_of_halo_fails(depth: int, up: str) -> None:
    model = model_of(unet(depth=depth, up=up, seed=depth))
    proof = prove(model, picture(333, 402))
    assert proof.passed
    assert proof.difference < 1e-4
    assert proof.less is not None
    assert proof.less > 100 * proof.difference
    assert proof.less > 1e-3


def test_paint_gives_the_labels_of_the_whole_image_tile_by_tile() -> None:
    engine = _engine(2, "plain", "transpose")
    image = picture(201, 187)
    whole = whole_logits(engine.model, image)
    painting = paint(engine, image, tile=80, probabilities=True)
    assert painting.report.tiles > 1
    assert painting.report.exact
    np.testing.assert_array_equal(painting.labels, whole.argmax(0).numpy())
    assert painting.probabilities is not None
    np.testing.assert_allclose(painting.probabilities, whole.softmax(0).numpy(), atol=1e-5)


def test_tiles_that_pass_together_give_the_same() -> None:
    engine = _engine(2, "plain", "transpose")
    image = picture(201, 187)
    np.testing.assert_array_equal(paint(engine, image, tile=80, batch=4).labels, paint(engine, image, tile=80).labels)


def test_folding_the_norms_leaves_the_users_module_and_the_logits_alone() -> None:
    model = model_of(unet())
    before = {name: tensor.clone() for name, tensor in model.network.state_dict().items()}
    engine, image = Engine(model, "float32"), picture(64, 64)
    logits = engine.logits(model.normalise(image)[None])[0]
    torch.testing.assert_close(logits, whole_logits(model, image), atol=1e-4, rtol=1e-4)
    assert all(torch.equal(before[name], tensor) for name, tensor in model.network.state_dict().items())
    folded_away = folded(model.network, torch.randn(1, 3, 64, 64))
    assert not any(isinstance(module, nn.BatchNorm2d) for module in folded_away.modules())


class _Shared(nn.Module):
    """One convolution used twice, before a norm and alone: folding would be wrong."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm, self.head = nn.Conv2d(4, 4, 3, padding=1), nn.BatchNorm2d(4), nn.Conv2d(8, 4, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        first = self.conv(x)
        return self.head(torch.cat([first, self.norm(first)], 1))


class _Active(nn.BatchNorm2d):
    """A norm with its activation, as in timm."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return super().forward(x).relu()


class _ReluBetween(nn.Module):
    """ReLU changes in place what the norm then gets."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm = nn.Conv2d(4, 4, 3, padding=1), nn.BatchNorm2d(4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.norm(nn.functional.relu(self.conv(x), inplace=True))


def _without_mean() -> nn.Module:
    norm = nn.BatchNorm2d(4)
    norm.running_mean = norm.running_var = None
    return norm


def _spectral() -> nn.Module:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it is old, and says so
        return nn.Sequential(nn.utils.spectral_norm(nn.Conv2d(4, 4, 3, padding=1)), nn.BatchNorm2d(4))


UNFOLDABLE: dict[str, Callable[[], nn.Module]] = {
    "a norm with its activation": lambda: nn.Sequential(nn.Conv2d(4, 4, 3, padding=1), _Active(4)),
    "ReLU between": _ReluBetween,
    "a convolution that is read elsewhere too": _Shared,
    "a norm without statistics": lambda: nn.Sequential(nn.Conv2d(4, 4, 3, padding=1), _without_mean()),
    "a way up in groups": lambda: nn.Sequential(nn.ConvTranspose2d(4, 4, 3, padding=1, groups=4), nn.BatchNorm2d(4)),
    "weights that a hook sets": _spectral,
    "weights that are computed": lambda: nn.Sequential(
        nn.utils.parametrizations.spectral_norm(nn.Conv2d(4, 4, 3, padding=1)), nn.BatchNorm2d(4)
    ),
}


@pytest.mark.parametrize(
    "what", rarely(UNFOLDABLE, "ReLU between", "a norm without statistics", "weights that are computed")
)
def test_what_can_not_be_folded_is_left_and_all_else_is_folded(what: str) -> None:
    torch.manual_seed(0)
    odd = UNFOLDABLE[what]()
    network = nn.Sequential(
        nn.Conv2d(3, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU(), odd, nn.Conv2d(4, 3, 1), nn.BatchNorm2d(3)
    ).eval()
    for norm in (module for module in network.modules() if isinstance(module, nn.BatchNorm2d)):
        nn.init.normal_(norm.bias)
        if norm.running_var is not None:
            norm.running_var.uniform_(0.5, 2)
    image = torch.randn(1, 3, 20, 24)
    less = folded(network, image)
    assert sum(isinstance(module, nn.BatchNorm2d) for module in less.modules()) == 1
    engine = Engine(model_of(network), "float32", "cpu", backend="eager")
    with torch.inference_mode():
        truth = network(image)
        torch.testing.assert_close(less(image), truth, rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(engine.logits(image), truth, rtol=1e-4, atol=1e-5)


class _Global(nn.Module):
    """Sees the whole image through an instance norm."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, padding=1)
        self.norm = nn.InstanceNorm2d(8)
        self.head = nn.Conv2d(8, 3, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.norm(self.stem(x)).relu())


def test_a_network_that_sees_everything_is_whole_when_it_fits_and_blended_when_not() -> None:
    torch.manual_seed(0)
    engine = Engine(model_of(_Global()), "float32")
    image = picture(150, 170)
    whole, blended = paint(engine, image, probabilities=True), paint(engine, image, tile=64, probabilities=True)
    assert whole.report.exact
    assert not blended.report.exact
    assert blended.report.tiles > 4
    assert "norm" in str(blended.report)
    assert "approximate" in str(blended.report)
    assert whole.probabilities is not None
    assert blended.probabilities is not None
    np.testing.assert_allclose(blended.probabilities.sum(0), 1, atol=1e-5)
    assert 0 < np.abs(blended.probabilities - whole.probabilities).max() < 0.5
    with pytest.raises(PlanError, match="tiles of 2x2 pixels; expected at least 3x3"):
        paint(engine, image, tile=2)
    with pytest.raises(FieldError, match="norm"):
        prove(engine, image)


def test_blended_tiles_are_low_where_many_classes_wait_over_a_wide_image(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    engine = Engine(model_of(_Global()), "float32")
    monkeypatch.setattr("whatwhere.paint.scheme._BUDGET", 2**24)
    narrow, wide = (scheme(engine, (3000, width)).tiling for width in (3000, 30_000))
    assert 2**24 // 2 < 12 * 3 * 30_000 * wide.tile[0] <= 2**24
    assert wide.tile[0] < narrow.tile[0]
    assert wide.tile[0] * wide.tile[1] > 0.9 * narrow.tile[0] * narrow.tile[1]  # wider for that


class _Deep(nn.Module):
    """As nnU-Net's largest: so many levels that 64 pixels end in one, which instance norm refuses."""

    def __init__(self) -> None:
        super().__init__()
        self.downs = nn.ModuleList([
            nn.Sequential(nn.Conv2d(3 if level == 0 else 4, 4, 3, 2 if level else 1, 1), nn.InstanceNorm2d(4))
            for level in range(7)
        ])  # fmt: skip
        self.head = nn.Conv2d(4, 3, 1)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        features = image
        for down in self.downs:
            features = down(features)
        logits: torch.Tensor = self.head(nn.functional.interpolate(features, scale_factor=64.0))
        return logits


def test_a_network_that_refuses_small_images_is_watched_on_larger_ones() -> None:
    torch.manual_seed(0)
    model = model_of(_Deep())
    engine = Engine(model, "float32")
    assert engine.geometry.period == (64, 64)
    image = picture(192, 256)
    truth = whole_logits(model, image).argmax(0).numpy()
    assert (paint(engine, image).labels == truth).mean() > 0.999


def test_blending_a_local_network_is_close_to_the_truth_in_the_middle_of_tiles() -> None:
    """The bands are put together in their places: with a pointwise network blending changes nothing."""
    torch.manual_seed(0)
    engine = Engine(model_of(nn.Conv2d(3, 3, 1)), "float32")
    image = picture(150, 170)
    plan = Scheme(Tiling((150, 170), (64, 64), ((16, 16), (16, 16))), exact=False, blended=True)
    sink = ArraySink((150, 170), 3)
    blend_tiles(engine, ArraySource(image), plan, sink, probabilities=True)
    np.testing.assert_allclose(sink.probabilities, whole_logits(engine.model, image).softmax(0), atol=1e-5)


def test_blending_continues_with_the_bands_that_are_missing() -> None:
    torch.manual_seed(0)
    engine = Engine(model_of(_Global()), "float32")
    source = ArraySource(picture(190, 170))
    plan = Scheme(Tiling((190, 170), (64, 64), ((16, 16), (16, 16))), exact=False, blended=True)
    full, rest = ArraySink((190, 170), 3), ArraySink((190, 170), 3)
    blend_tiles(engine, source, plan, full, probabilities=True)
    blend_tiles(engine, source, plan, rest, probabilities=True, done=frozenset({0, 1}))
    first = next(y for y in range(190) if rest.probabilities[:, y].any())
    assert first > 32
    np.testing.assert_array_equal(rest.probabilities[:, first:], full.probabilities[:, first:])


def test_a_tile_too_small_for_the_halo_is_refused() -> None:
    with pytest.raises(PlanError, match=r"at least \d+x\d+ for this network"):
        paint(_engine(2, "plain", "transpose"), picture(300, 300), tile=16)


def test_one_sigmoid_channel_is_read_as_the_second_class() -> None:
    torch.manual_seed(0)
    model = model_of(nn.Conv2d(3, 1, 3, padding=1), classes=2)
    image = picture(40, 50)
    expected = model.network(model.normalise(image)[None])[0, 0] > 0
    np.testing.assert_array_equal(paint(model, image, precision="float32").labels, expected.numpy())


@pytest.mark.parametrize(("channels", "last"), [(1, nn.Sigmoid()), (2, nn.Softmax(1)), (1, nn.Hardsigmoid())], ids=str)
@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_probabilities_are_no_logits(channels: int, last: nn.Module, precision: Any) -> None:
    """A sigmoid taken for a logit is never negative: all pixels would be the second class."""
    model = model_of(nn.Sequential(nn.Conv2d(3, channels, 3, padding=1), last), classes=2)
    with pytest.raises(ModelError, match=r"Sequential gives probabilities.*expected logits; return what goes into"):
        Engine(model, precision)


@settings(max_examples=6, deadline=None)
@given(
    st.integers(0, 99), st.integers(1, 2), st.floats(1, 10),
    st.sampled_from([(nn.Identity(), 1e-3), (nn.InstanceNorm2d(4), 0.5)]),
)  # fmt: skip
def test_logits_are_taken_for_no_probabilities(
    seed: int, channels: int, times: float, kind: tuple[nn.Module, float]
) -> None:
    """However close to each other they lie, between 0 and 1."""
    torch.manual_seed(seed)
    norm, least = kind
    last = nn.Conv2d(4, channels, 1)
    with torch.no_grad():
        last.weight *= least * times
        last.bias.uniform_(0, 1)
    network = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), norm, nn.ReLU(), last)
    assert Engine(model_of(network, classes=2), "float32").precision == "float32"


def test_of_one_class_alone_nothing_is_painted() -> None:
    with pytest.raises(ModelError, match=r"one class, ground: all pixels.*name the background too"):
        Engine(model_of(nn.Conv2d(3, 1, 3, padding=1), classes=1))


def test_bfloat16_is_said_and_close() -> None:
    model, image = model_of(unet()), picture(90, 70)
    painting = paint(model, image, precision="bfloat16", probabilities=True)
    assert "bfloat16" in str(painting.report)
    exact = whole_logits(model, image).softmax(0).numpy()
    assert np.abs(painting.probabilities - exact).max() < 0.1


def test_tiles_that_are_read_ahead_leave_the_one_that_is_computed_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    engine = _engine(2, "plain", "transpose")
    image = picture(200, 190)
    honest = engine.logits

    def slow(batch: torch.Tensor) -> torch.Tensor:
        time.sleep(0.02)  # what is read meanwhile is ready
        return honest(batch)

    monkeypatch.setattr(engine, "logits", slow)
    truth = whole_logits(engine.model, image).argmax(0).numpy()
    for batch in (1, 2):
        painting = paint(engine, image, tile=72, batch=batch)
        assert painting.report.tiles > 8
        np.testing.assert_array_equal(painting.labels, truth)


def test_memory_that_runs_out_shrinks_the_tiles_and_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    engine = _engine(2, "plain", "transpose")
    image = picture(300, 300)
    honest = engine.logits

    def scarce(batch: torch.Tensor) -> torch.Tensor:
        if batch.shape[-1] * batch.shape[-2] > 200 * 200:
            raise RuntimeError("[enforce fail at alloc_cpu.cpp:124] . DefaultCPUAllocator: not enough memory")
        return honest(batch)

    monkeypatch.setattr(engine, "logits", scarce)
    painting = paint(engine, image, tile=300)
    assert painting.report.tiles > 1
    assert "memory ran out with tiles of 300x300; went on with" in str(painting.report)
    np.testing.assert_array_equal(painting.labels, whole_logits(engine.model, image).argmax(0).numpy())


def test_what_a_failed_try_held_is_free_when_tiles_are_sized_anew() -> None:
    """On a GPU little memory seems to be free otherwise, and tiles are far smaller than they need to be."""
    held: list[weakref.ref[torch.Tensor]] = []

    def attempt(_: Scheme) -> None:
        maps = torch.zeros(4)
        if not held:
            held.append(weakref.ref(maps))
            raise torch.OutOfMemoryError("CUDA out of memory")

    def schemes(*, most: int | None) -> Scheme:
        assert most is None or held[0]() is None
        return scheme(engine, (300, 300), tile=None if most is None else (96, 96))

    engine = _engine(2, "plain", "transpose")
    plan, notes = with_room(schemes, attempt)
    assert plan.tiling.tile < (300, 300)
    assert "ran out" in notes[0]


@pytest.mark.parametrize(
    ("error", "expected"),
    [(MemoryError("none"), pytest.raises(ModelError, match=r"memory ran out.*the smallest.*close other programs")),
     (RuntimeError("a bug"), pytest.raises(RuntimeError, match="a bug"))],
)  # fmt: skip
def test_memory_that_never_suffices_is_said_and_other_errors_come_through(
    error: Exception, expected: AbstractContextManager[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = _engine(2, "plain", "transpose")
    monkeypatch.setattr(engine, "logits", lambda _: (_ for _ in ()).throw(error))
    with expected:
        paint(engine, picture(100, 100))


class Answers(nn.Module):
    """A network whose answer is not a painting of the image."""

    def __init__(self, answer: Callable[[torch.Tensor], Any]) -> None:
        super().__init__()
        self.inner, self.answer = nn.Conv2d(3, 3, 3, padding=1), answer

    def forward(self, x: torch.Tensor) -> Any:
        return self.answer(self.inner(x))


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (lambda y: y[..., ::2, ::2], r"into scores of shape \(1, 3, 32, 32\); expected \(1, 3, 64, 64\)"),
        (lambda y: y.mean((2, 3), keepdim=True), r"into scores of shape \(1, 3, 1, 1\)"),
        (lambda y: torch.cat([y, y], 1), r"shape \(1, 6, 64, 64\).*as there are 3 classes.*name all its classes"),
        (lambda y: {"out": y}, r"it returns a dict, not a tensor"),
    ],
)
def test_what_is_no_painting_is_said_before_anything_is_painted(answer: Any, words: str) -> None:
    with pytest.raises(ModelError, match=words):
        paint(model_of(Answers(answer)), picture(40, 50))


def test_what_the_caller_has_switched_changes_nothing() -> None:
    model, image = model_of(unet()), picture(90, 75)
    usual = paint(model, image, tile=64).labels
    torch.set_default_dtype(torch.float64)
    try:
        with torch.inference_mode():
            engine = Engine(model)
            for _ in range(2):
                np.testing.assert_array_equal(paint(engine, image, tile=64).labels, usual)
        np.testing.assert_array_equal(paint(engine, image, tile=64).labels, usual)
    finally:
        torch.set_default_dtype(torch.float32)


def test_a_network_that_pads_in_its_own_way_gets_a_whole_image_as_it_is() -> None:
    torch.manual_seed(0)
    engine = Engine(model_of(Mirrored(UNet(3, 3, width=4, depth=2, padding="valid"))), "float32")
    image = picture(150, 131)
    assert engine.pads_otherwise((150, 131))
    whole = paint(engine, image)
    assert whole.report.exact
    np.testing.assert_array_equal(whole.labels, whole_logits(engine.model, image).argmax(0).numpy())


@pytest.mark.parametrize("number", range(12))
def test_tiles_of_an_unpadded_network_equal_the_whole_mirrored_image(number: int) -> None:
    draw = np.random.default_rng(number)
    depth = 1 + number % 3
    torch.manual_seed(number)
    network = UNet(3, 3, width=2, depth=depth, padding="valid", repeats=1 + number % 2)
    engine = Engine(model_of(Mirrored(network).eval()), "float32")
    height, width = (int(n) for n in draw.integers(1, 400, size=2))
    image = picture(height, width, seed=number)
    plan = scheme(engine, (height, width), tile=int(60 + 60 * depth * (1 + number % 2) + draw.integers(0, 60)))
    assert plan.exact
    assert not plan.note
    tiled = tiled_logits(engine, ArraySource(image), plan.tiling)
    np.testing.assert_allclose(tiled.numpy(), whole_logits(engine.model, image).numpy(), atol=1e-4)


def test_less_halo_than_an_unpadded_network_needs_fails() -> None:
    torch.manual_seed(0)
    engine = Engine(model_of(Mirrored(UNet(3, 3, width=4, depth=2, padding="valid")).eval()), "float32")
    image = picture(300, 271)
    tiling = scheme(engine, (300, 271), tile=128).tiling
    assert len(tiling) > 4
    truth = whole_logits(engine.model, image)
    assert (tiled_logits(engine, ArraySource(image), tiling) - truth).abs().max() < 1e-4
    (before, after), columns = tiling.halo
    for halo in ((before - 4, after), (before, after - 4)):
        less = Tiling(tiling.size, tiling.tile, (halo, columns), tiling.period, 1, tiling.short)
        assert (tiled_logits(engine, ArraySource(image), less) - truth).abs().max() > 1e-3
    proof = prove(engine, image)
    assert proof.passed
    assert proof.less is not None
    assert proof.less > 1e-3


def test_an_unpadded_network_is_not_followed_through_its_graph(monkeypatch: pytest.MonkeyPatch) -> None:
    """That takes seconds, and each validation makes an engine."""

    def never(*_: object) -> None:
        raise AssertionError("torch.export")

    monkeypatch.setattr("whatwhere.field.field", never)
    engine = Engine(model_of(Mirrored(UNet(3, 3, width=2, depth=2, padding="valid")).eval()), "float32")
    assert paint(engine, picture(90, 70)).report.exact
    assert paint(engine, picture(290, 270), tile=128).report.tiles > 4


def test_a_large_image_is_cut_though_it_would_fit_and_one_that_cannot_be_cut_is_not(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    torch.manual_seed(0)
    monkeypatch.setattr("whatwhere.paint.scheme._BUDGET", 2**31)
    small = Engine(model_of(unet(width=2, depth=1)), "float32", backend="eager")
    assert len(scheme(small, (2048, 4096)).tiling) == 1
    assert len(scheme(small, (2048, 4128)).tiling) > 1
    everywhere = Engine(model_of(_Global()), "float32", backend="eager")
    assert scheme(everywhere, (2048, 4128)).exact


@pytest.mark.parametrize("options", [
    {}, {"up": "bilinear"}, {"encoder": "efficientnet-lite0", "skips": (1,)},
    *(pytest.param(options, marks=pytest.mark.slow) for options in (
        {"depth": 4}, {"block": "residual"}, {"skips": (0,)}, {"depth": 1}, {"up": "bilinear", "depth": 3},
        {"repeats": 3}, {"skips": ()}, {"skips": (1,), "up": "bilinear"}, {"depth": 3, "repeats": 2},
    )),
    *(pytest.param({"encoder": "efficientnet-lite0", **options}, marks=pytest.mark.slow) for options in (
        {"depth": 2}, {"depth": 3}, {"depth": 4}, {"depth": 5}, {"skips": ()}, {"skips": (0,)},
        {"depth": 4, "up": "bilinear"},
    )),
])  # fmt: skip
def test_the_halo_of_our_own_networks_is_what_their_graph_says(options: dict[str, Any]) -> None:
    engine = Engine(model_of(unet(**{"width": 2, **options})), "float32", backend="eager")
    assert engine.geometry.halo == engine.geometry.field.halo()


def test_our_own_networks_are_not_followed_through_their_graph(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two seconds of every painting that takes several tiles."""

    def never(*_: object) -> None:
        raise AssertionError("torch.export")

    monkeypatch.setattr("whatwhere.field.field", never)
    engine = Engine(model_of(unet()), "float32", backend="eager")
    assert paint(engine, picture(290, 270), tile=128).report.tiles > 4


def test_a_network_of_ours_with_another_layer_is_followed() -> None:
    network = unet()
    network.encoder.get_submodule("0.0")[1] = nn.InstanceNorm2d(4, affine=True)
    engine = Engine(model_of(network), "float32", backend="eager")
    assert not engine.geometry.tileable
    assert not paint(engine, picture(150, 170), tile=64).report.exact
    wider = unet()
    wider.encoder.get_submodule("0.0")[0] = nn.Conv2d(3, 4, 9, padding=4, bias=False)
    engine = Engine(model_of(wider), "float32", backend="eager")
    assert engine.geometry.halo == engine.geometry.field.halo() != Engine(model_of(unet()), "float32").geometry.halo


def _lower(network: UNet, **up: Any) -> UNet:
    """The same with one more step down and up at the bottom, which no argument of ours says."""
    wide = network.channels[-1]
    torch.manual_seed(0)
    lowest = nn.Sequential(nn.AvgPool2d(2), nn.Conv2d(wide, wide, 3, padding=1), nn.Upsample(scale_factor=2, **up))
    network.bottleneck = nn.Sequential(network.bottleneck, lowest)
    return network.eval()


@pytest.mark.parametrize("up", [{}, pytest.param({"mode": "bilinear"}, marks=pytest.mark.slow)])
def test_a_network_of_ours_that_goes_deeper_has_the_period_of_its_graph(up: dict[str, Any]) -> None:
    engine = Engine(model_of(_lower(unet(), **up)), "float32", backend="eager")
    assert engine.geometry.period == (8, 8)
    image = picture(121, 139)
    padded = nn.functional.pad(engine.model.normalise(image), (0, 5, 0, 7))
    with torch.inference_mode():
        truth = engine.model.network(padded[None])[0, :, :121, :139]
    np.testing.assert_array_equal(paint(engine, image).labels, truth.argmax(0).numpy())
    tiled = tiled_logits(engine, ArraySource(image), scheme(engine, image.shape[:2], tile=96).tiling)
    np.testing.assert_allclose(tiled.numpy(), truth.numpy(), atol=1e-4)


@pytest.mark.slow
def test_an_unpadded_network_of_ours_that_sees_everything_is_not_called_exact() -> None:
    network = unet(padding="valid")
    network.encoder.get_submodule("0.0")[1] = nn.InstanceNorm2d(4, affine=True)
    engine = Engine(model_of(Mirrored(network).eval()), "float32", backend="eager")
    assert not engine.geometry.tileable
    assert not paint(engine, picture(150, 170), tile=128).report.exact


class _Cropping(nn.Module):
    """Takes odd sizes as they are, which is not the same as padded; ``bias`` goes to the logits."""

    def __init__(self, bias: tuple[float, float, float]) -> None:
        super().__init__()
        self.down, self.up = nn.Conv2d(3, 8, 3, 2, 1), nn.ConvTranspose2d(8, 3, 2, stride=2)
        self.mix = nn.Conv2d(6, 3, 1)
        self.mix.bias = nn.Parameter(torch.tensor(bias))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.mix(torch.cat([x, self.up(self.down(x).relu())[..., : x.shape[2], : x.shape[3]]], 1))  # type: ignore[no-any-return]


@pytest.mark.parametrize("bias", [(0.0, 0.0, 0.0), (600.0, 600.0, 600.0), (300.0, 300.0, -900.0)])
def test_what_is_added_to_all_logits_hides_no_padding(bias: tuple[float, float, float]) -> None:
    torch.manual_seed(3)
    model, image = model_of(_Cropping(bias)), picture(127, 131)
    painting = paint(Engine(model, "float32", "cpu", backend="eager"), image, probabilities=True)
    truth = whole_logits(model, image).softmax(0)
    assert painting.report.exact
    assert painting.probabilities is not None
    np.testing.assert_allclose(painting.probabilities, truth.numpy(), atol=1e-3)


class _Halving(nn.Module):
    """Down and up again; takes even sizes only, and says so, or pads them by repeating the last row."""

    def __init__(self, repeats: bool, refusal: type[Exception] | None = None) -> None:
        super().__init__()
        self.refusal = refusal
        self.down, self.up = nn.Conv2d(3, 8, 2, stride=2), nn.ConvTranspose2d(8, 3, 2, stride=2)
        self.mix, self.repeats = nn.Conv2d(6, 3, 3, padding=1), repeats

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        height, width = x.shape[-2:]
        if self.refusal is not None and (height % 2 or width % 2):
            raise self.refusal("even sizes only")
        if self.repeats:
            x = nn.functional.pad(x, (0, width % 2, 0, height % 2), mode="replicate")
        return self.mix(torch.cat([x, self.up(self.down(x))], 1))[..., :height, :width]


@pytest.mark.parametrize("refusal", [None, RuntimeError, ValueError, AssertionError])
def test_a_network_that_takes_even_sizes_only_is_padded_and_one_that_repeats_is_told(
    refusal: type[Exception] | None,
) -> None:
    torch.manual_seed(0)
    strict, image = Engine(model_of(_Halving(False, refusal)), "float32"), picture(75, 93)
    padded = nn.functional.pad(strict.model.normalise(image), (0, 1, 0, 1))
    truth = strict.model.network(padded[None])[0, :, :75, :93].argmax(0).numpy()
    assert not strict.pads_otherwise((75, 93))
    for tile in (None, 32):
        np.testing.assert_array_equal(paint(strict, image, tile=tile).labels, truth)
    own = Engine(model_of(_Halving(True)), "float32")
    np.testing.assert_array_equal(paint(own, image).labels, whole_logits(own.model, image).argmax(0).numpy())
    assert "padded with zeros to 76x94" in str(paint(own, image, tile=32).report)
    assert "zeros" not in str(paint(own, picture(76, 94), tile=32).report)


class _Stem(nn.Module):
    """Takes even sizes only, and those that are no multiple of four in its own way."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.down = nn.Conv2d(12, 8, 3, padding=1), nn.Conv2d(8, 8, 3, 2, 1)
        self.head = nn.Conv2d(16, 12, 3, padding=1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        fine = self.stem(nn.functional.pixel_unshuffle(x, 2)).relu()
        coarse = nn.functional.interpolate(self.down(fine).relu(), size=fine.shape[-2:])
        return nn.functional.pixel_shuffle(self.head(torch.cat([fine, coarse], 1)), 2)


def test_a_network_that_takes_even_sizes_in_its_own_way_paints_odd_ones_too() -> None:
    torch.manual_seed(0)
    engine = Engine(model_of(_Stem()), "float32")
    for height, width in ((75, 93), (74, 93), (3, 421)):
        image = picture(height, width)
        missing = -width % 4, -height % 4
        padded = nn.functional.pad(engine.model.normalise(image), (0, missing[0], 0, missing[1]))
        with torch.inference_mode():
            truth = engine.model.network(padded[None])[0, :, :height, :width].argmax(0).numpy()
        np.testing.assert_array_equal(paint(engine, image).labels, truth)
    even = picture(74, 94)
    np.testing.assert_array_equal(paint(engine, even).labels, whole_logits(engine.model, even).argmax(0).numpy())
    assert "padded with zeros to 76x96" in str(paint(engine, even, tile=48).report)


class _Coarse(nn.Module):
    """Goes down so far that it refuses what is smaller than a stride, and takes all other sizes in its own way."""

    def __init__(self) -> None:
        super().__init__()
        self.downs = nn.Sequential(*(nn.Conv2d(3, 3, 3, 2, 1) for _ in range(7)))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if min(x.shape[-2:]) < 128:
            raise RuntimeError("output size is too small")
        return x + 40 * nn.functional.interpolate(self.downs(x), size=x.shape[-2:], mode="bilinear")


def test_a_network_that_refuses_small_images_gets_others_as_they_are() -> None:
    torch.manual_seed(0)
    engine = Engine(model_of(_Coarse()), "float32")
    assert engine.geometry.period == (128, 128)
    image, small = picture(160, 200), picture(100, 90)
    np.testing.assert_array_equal(paint(engine, image).labels, whole_logits(engine.model, image).argmax(0).numpy())
    assert paint(engine, small).labels.shape == (100, 90)


class _Hands(nn.Module):
    """Adds what a wide convolution sees to features that have a second name."""

    def __init__(self, second: Callable[[torch.Tensor], torch.Tensor]) -> None:
        super().__init__()
        self.stem, self.wide, self.head = nn.Conv2d(3, 4, 1), nn.Conv2d(4, 4, 9, padding=4), nn.Conv2d(4, 3, 1)
        self.second = second

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        features = self.stem(x)
        again = self.second(features)
        again += self.wide(features)
        return self.head(features)


class _RimsLast(nn.Module):
    """Channels last, and blank at the rims."""

    def __init__(self, joins: bool) -> None:
        super().__init__()
        self.stem, self.head, self.joins = nn.Conv2d(3, 4, 1), nn.Conv2d(4, 3, 1), joins

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        features = self.stem(x).permute(0, 2, 3, 1).contiguous()
        if self.joins:
            blank = features.new_zeros(features[:, :2].shape)
            features = torch.cat([blank, features[:, 2:-2], blank], 1)
        else:
            features[:, 0] = features[:, -1] = 0
        return self.head(features.permute(0, 3, 1, 2))


class _Threshold(nn.Module):
    """Sees farther in images from so many pixels on."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.head = nn.Conv2d(3, 4, 3), nn.Conv2d(4, 3, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        gaps = 1 if min(x.shape[-2:]) < 120 else 4
        seen = nn.functional.conv2d(x, self.stem.weight, self.stem.bias, padding=gaps, dilation=gaps)
        return self.head(seen.relu())


@pytest.mark.parametrize(
    ("make", "exact"),
    [
        (lambda: _Hands(lambda features: nn.functional.dropout(features, 0.1, training=False)), True),
        (lambda: _Hands(torch.Tensor.contiguous), True),
        (lambda: _RimsLast(joins=True), True),
        (lambda: _RimsLast(joins=False), False),
        (_Threshold, False),
    ],
)
def test_tiles_that_are_called_exact_are(make: Callable[[], nn.Module], exact: bool) -> None:
    torch.manual_seed(0)
    engine = Engine(model_of(make()), "float32", "cpu")
    image = picture(150, 203)
    truth = whole_logits(engine.model, image)
    whole, plan = paint(engine, image), scheme(engine, image.shape[:2], tile=64)
    np.testing.assert_array_equal(whole.labels, truth.argmax(0).numpy())
    assert plan.exact == exact
    assert len(plan.tiling) > 1
    if exact:
        tiled = tiled_logits(engine, ArraySource(image), plan.tiling)
        np.testing.assert_allclose(tiled.numpy(), truth.numpy(), atol=1e-4)


class _Keeps(nn.Module):
    """Keeps what it computed last, to be looked at."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.head, self.last = nn.Conv2d(3, 4, 3, padding=1), nn.Conv2d(4, 3, 1), [torch.zeros(1)]

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.last = [self.stem(x).relu()]
        return self.head(self.last[0])


def _weight_normed() -> nn.Module:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it is old, and says so
        return nn.Sequential(nn.utils.weight_norm(nn.Conv2d(3, 4, 3, padding=1)), nn.Conv2d(4, 3, 1))


@pytest.mark.parametrize("make", [_Keeps, _weight_normed])
def test_a_network_that_was_just_trained_is_painted_with_and_left_alone(make: Callable[[], nn.Module]) -> None:
    torch.manual_seed(0)
    network = make()
    network(torch.randn(1, 3, 32, 32)).sum().backward()
    engine, image = Engine(model_of(network), "float32"), picture(50, 70)
    labels = paint(engine, image).labels
    with torch.no_grad():
        truth = network(engine.model.normalise(image)[None])[0].argmax(0).numpy()
    np.testing.assert_array_equal(labels, truth)


def test_what_can_not_be_copied_is_told() -> None:
    network = nn.Conv2d(3, 3, 1)
    network.lock = threading.Lock()
    with pytest.raises(ModelError, match=r"Conv2d can't be copied.*a module that copy\.deepcopy takes"):
        Engine(model_of(network))


class _Decides(nn.Module):
    """Which torch.export does not follow; takes even sizes only."""

    def __init__(self) -> None:
        super().__init__()
        self.halving = _Halving(False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.halving(x * 2 if x.max() > 1e9 else x)


def _scripted() -> nn.Module:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it is old, and says so
        return torch.jit.script(nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.ReLU(), nn.Conv2d(4, 3, 1)))


@pytest.mark.parametrize(
    ("make", "period", "words"), [(_Decides, 2, "decides what to run"), (_scripted, 1, "is TorchScript or holds some")]
)
def test_a_network_that_can_not_be_followed_is_whole_when_it_fits_and_blended_when_not(
    make: Callable[[], nn.Module], period: int, words: str
) -> None:
    torch.manual_seed(0)
    engine, image = Engine(model_of(make()), "float32", "cpu", backend="eager"), picture(75, 93)
    assert engine.geometry.period == (period, period)
    padded = nn.functional.pad(engine.model.normalise(image), (0, -93 % period, 0, -75 % period))
    with torch.inference_mode():
        truth = engine.model.network(padded[None])[0, :, :75, :93].argmax(0).numpy()
    whole, blended = paint(engine, image), paint(engine, image, tile=40)
    np.testing.assert_array_equal(whole.labels, truth)
    assert not blended.report.exact
    assert words in str(blended.report)


class _Casts(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem, self.head = nn.Conv2d(3, 4, 1).half(), nn.Conv2d(4, 3, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.stem(x.half()).float())


class _Double(nn.Conv2d):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return super().forward(x.double())


class _Gives(nn.Module):
    def __init__(self, kind: Callable[[torch.Tensor], Any]) -> None:
        super().__init__()
        self.conv, self.kind = nn.Conv2d(3, 3, 1), kind

    def forward(self, x: torch.Tensor) -> Any:
        return self.kind(self.conv(x))


@pytest.mark.parametrize(
    ("network", "words"),
    [
        (_Casts(), "make all its weights and casts float32"),
        (_Double(3, 3, 1).double(), "make all its weights and casts float32"),
        (nn.Conv2d(4, 3, 1).double(), "the network fails on an image of shape.*check its channels"),
        (_Gives(lambda y: {"out": y}), r"it returns a dict.*network\(x\)\['out'\]"),
        (_Gives(lambda y: (y, y)), r"it returns a tuple.*network\(x\)\[0\]"),
        (_Gives(lambda y: [y, y]), r"it returns a list.*network\(x\)\[0\]"),
        (_Gives(lambda y: SimpleNamespace(logits=y)), r"it returns a SimpleNamespace.*the logits alone"),
        (nn.Conv2d(4, 3, 1), "the network fails on an image of shape.*check its channels"),
    ],
)
def test_what_is_wrong_with_a_network_is_told(network: nn.Module, words: str) -> None:
    with pytest.raises(ModelError, match=words):
        Engine(model_of(network))


class _Argmax(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.argmax(1, keepdim=True)


class _Atrous(nn.Module):
    """Takes multiples of 4, has a period of 16 by its strides, and sees all of the image."""

    def __init__(self, least: int = 4) -> None:
        super().__init__()
        self.least = least
        self.first, self.deep = nn.Conv2d(3, 4, 3, 4, 1), nn.Conv2d(4, 4, 3, 4, 1)
        self.head = nn.Conv2d(4, 3, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if x.shape[-1] % 4 or x.shape[-2] % 4:
            raise RuntimeError("multiples of 4")
        if min(x.shape[-2:]) < self.least:
            raise RuntimeError("nothing left to pool")
        fine = self.first(x)
        deep = nn.functional.interpolate(self.deep(fine), size=fine.shape[-2:])
        fine = fine + deep + fine.mean((2, 3), keepdim=True)
        return nn.functional.interpolate(self.head(fine), size=x.shape[-2:])


def test_what_sees_all_of_an_image_is_padded_no_more_than_it_asks_for() -> None:
    torch.manual_seed(0)
    engine, image = Engine(model_of(_Atrous()), "float32"), picture(75, 93)
    found = paint(engine, image)
    padded = nn.functional.pad(engine.model.normalise(image), (0, 3, 0, 1))
    truth = engine.model.network(padded[None])[0, :, :75, :93].argmax(0).numpy()
    assert engine.geometry.period == (16, 16)
    np.testing.assert_array_equal(found.labels, truth)
    assert found.report.notes == ("padded with zeros to 76x96, a size that the network takes",)
    assert paint(engine, picture(80, 96)).report.notes == ()


def test_an_image_smaller_than_a_network_that_sees_all_of_it_takes_is_padded_up_to_that() -> None:
    """As PAN of segmentation_models.pytorch, whose pyramid has nothing left to pool below 128 pixels."""
    torch.manual_seed(0)
    engine, image = Engine(model_of(_Atrous(least=16)), "float32"), picture(11, 93)
    padded = nn.functional.pad(engine.model.normalise(image), (0, 3, 0, 5))
    truth = engine.model.network(padded[None])[0, :, :11, :93].argmax(0).numpy()
    found = paint(engine, image)
    np.testing.assert_array_equal(found.labels, truth)
    assert found.report.notes == ("padded with zeros to 16x96, a size that the network takes",)


def test_a_network_that_draws_random_numbers_is_told() -> None:
    class Forgetful(nn.Sequential):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return nn.functional.dropout(super().forward(x), 0.5)

    report = paint(model_of(Forgetful(nn.Conv2d(3, 3, 1))), picture(40, 40), precision="float32").report
    assert not report.exact
    assert "it draws random numbers, or counts" in str(report)


@pytest.mark.parametrize(
    ("network", "words"),
    [
        (nn.Sequential(nn.Conv2d(3, 3, 1), _Argmax()), "Sequential gives numbers of torch.int64, .*expected logits"),
        (nn.Conv2d(3, 3, 1, dtype=torch.complex64), "Conv2d has complex weights; expected real ones"),
    ],
)
def test_what_is_no_logit_is_said(network: nn.Module, words: str) -> None:
    with pytest.raises(ModelError, match=words):
        paint(model_of(network), picture(40, 40))
