"""Backends: each computes what PyTorch computes, what doesn't is found out, and what is known is not measured again."""

from __future__ import annotations

import itertools
import json
import math
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from painting import model_of, picture, unet, whole_logits
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional as F

import whatwhere.paint.engine
from tiny import Cli
from whatwhere import Segmenter
from whatwhere.errors import ModelError, PlanError
from whatwhere.network import Machine, Model, probe_machine, save_model
from whatwhere.paint import Engine, paint, predict, prove
from whatwhere.paint.backends import BACKENDS, EAGER, Backend, Job, Run
from whatwhere.paint.blend import importance
from whatwhere.paint.candidates import Candidates
from whatwhere.paint.choice import Choice, Scene, choose, insist
from whatwhere.paint.fold import _same
from whatwhere.paint.fuse import ALL, Fusion, fused
from whatwhere.paint.geometry import Geometry, _differs
from whatwhere.paint.paint import PaintReport, paint_source
from whatwhere.paint.scheme import Scheme
from whatwhere.paint.sources import ArraySource
from whatwhere.paint.stores import JournaledSink, RawStore
from whatwhere.paint.tiles import Tiling
from whatwhere.paint.verdicts import Verdict, Verdicts
from whatwhere.paint.verify import agreement, contending, equal_but_for_rounding, furthest, labels_alike
from whatwhere.records import Normalisation

BY_NAME = {backend.name: backend for backend in BACKENDS}
NO_CUDA = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device here")


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The user's cache folder is an empty one."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache/whatwhere/backends.json"


def installed(name: str, device: str = "cpu") -> Backend:
    backend = BY_NAME[name]
    if lacking := backend.lacks(device):
        pytest.skip(f"{lacking} is not installed")
    return backend


class Foreign(nn.Module):
    """Not a U-Net: functional operators, sizes taken from tensors, one sigmoid channel."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second, self.last = nn.Conv2d(3, 8, 3, 2, 1), nn.Conv2d(8, 8, 3, padding=1), nn.Conv2d(8, 3, 1)

    def forward(self, x: Tensor) -> Tensor:
        y = F.relu6(self.first(x))
        y = F.gelu(self.second(y)) + y
        return self.last(F.interpolate(y, size=x.shape[-2:], mode="bilinear"))


class NoOtherHas(nn.Module):
    """An operator that only PyTorch has."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 3, 1)

    def forward(self, x: Tensor) -> Tensor:
        return torch.special.bessel_j0(self.conv(x))


# --- each computes the same ---


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
@pytest.mark.parametrize("name", ["eager", "openvino", "onnx", pytest.param("compile", marks=pytest.mark.slow)])
def test_a_backend_computes_what_the_network_computes(name: str, precision: str) -> None:
    backend = installed(name)
    if precision not in backend.precisions:
        pytest.skip(f"{name} has no {precision}")
    model = model_of(unet(depth=3))
    engine = Engine(model, precision)
    try:
        run = backend.prepare(replace(engine._job, precision=precision))
    except NotImplementedError as error:
        pytest.skip(str(error))
    for height, width in (
        ((64, 96), (72, 64)) if name == "compile" else ((64, 96), (72, 64), (8, 8), (16, 48), (24, 32))
    ):
        for count in (1, 2):
            batch = torch.randn(count, 3, height, width)
            with torch.inference_mode():
                reference, logits = model.network(batch), run(batch).float()
            if precision == "float32":
                torch.testing.assert_close(logits, reference, rtol=1e-4, atol=1e-4)
            found = agreement(reference, logits, precision)
            assert found.passed, found


def test_shapes_that_torch_does_not_compile_any_more_are_not_said_to_be_compiled(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """It would run them as PyTorch does, and tell nobody."""
    compiled, honest = [], torch.compile

    def counted(module: Any, _example: object) -> Any:
        compiled.append(module)
        return module.forward

    monkeypatch.setattr(torch, "compile", lambda network, **_: honest(network, dynamic=False, backend=counted))
    monkeypatch.setattr("torch._dynamo.config.cache_size_limit", 3)
    backend = replace(next(one for one in BACKENDS if one.name == "compile"), lacks=lambda _: "")
    engine = Engine(model_of(nn.Conv2d(3, 3, 3, padding=1)), "float32", backend=backend)
    for number in range(5):
        painting = paint(engine, picture(30, 30 + number))
        by = "compile" if number < 3 else "eager"
        assert painting.report.backend == by
        assert len(compiled) == min(number + 1, 3)
    assert engine.notes[0].endswith(" torch compiles no more than 3 shapes of tiles")
    np.testing.assert_array_equal(painting.labels, whole_logits(engine.model, picture(30, 34)).argmax(0))


@pytest.mark.parametrize("name", ["openvino", "onnx"])
def test_a_network_made_elsewhere(name: str) -> None:
    installed(name)
    torch.manual_seed(0)
    model, image = model_of(Foreign()), picture(93, 75)
    engine = Engine(model, "float32", backend=name)
    painting = paint(engine, image)
    assert (engine.backend, engine.notes) == (name, ())
    np.testing.assert_array_equal(painting.labels, whole_logits(model, image).argmax(0))


@pytest.mark.parametrize("name", ["openvino", "onnx"])
def test_tiles_are_exact_with_each_and_the_report_names_it(name: str) -> None:
    installed(name)
    model, image = model_of(unet()), picture(201, 187)
    engine = Engine(model, "float32", backend=name)
    painting = paint(engine, image, tile=80)
    assert painting.report.tiles > 1
    assert f"by {name}" in str(painting.report)
    np.testing.assert_array_equal(painting.labels, whole_logits(model, image).argmax(0))
    proof = prove(engine, image)
    assert proof.passed
    assert proof.backend == name
    assert proof.less is not None
    assert proof.less > 100 * proof.difference


@NO_CUDA
@pytest.mark.parametrize("name", ["graphs", "eager"])
def test_a_backend_on_a_gpu(name: str) -> None:
    model, image = model_of(unet()), picture(201, 187)
    engine = Engine(model, "float32", "cuda", backend=name)
    labels = paint(engine, image, tile=80).labels
    assert engine.backend == name
    assert (labels != whole_logits(model, image).argmax(0).numpy()).mean() < 1e-3


class Cancels(nn.Module):
    """Two large answers whose difference is small: rounding leaves little of it."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.other = nn.Conv2d(3, 3, 3, padding=1), nn.Conv2d(3, 3, 3, padding=1)
        with torch.no_grad():
            self.other.weight.copy_(self.one.weight + 0.003 * torch.randn_like(self.one.weight))
            self.other.bias.copy_(self.one.bias)

    def forward(self, x: Tensor) -> Tensor:
        return self.one(x) - self.other(x)


def test_what_rounding_does_on_the_cpu_too_is_no_fault_of_a_gpu() -> None:
    """Such a network was computed in float32 there, three times as slowly. A fault is still found."""
    torch.manual_seed(0)
    engine = Engine(model_of(Cancels()), "bfloat16", "cpu", backend="eager")
    job = engine.job
    assert job.precision == "bfloat16"
    with torch.inference_mode():
        reference, rounded = job.network(job.example), engine.logits(job.example)
    assert not agreement(reference, rounded, "bfloat16").passed
    engine._compare(job, rounded)
    with pytest.raises(RuntimeError, match="differ from float32's"):
        engine._compare(job, reference + 5 * (rounded - reference))


# --- bfloat16, where the machine computes in it ---


class Raw(nn.Module):
    """Takes the numbers of 16-bit files as they are, and normalises them itself."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = unet()

    def forward(self, x: Tensor) -> Tensor:
        found: Tensor = self.inner((x - 20000) / 300)
        return found


class Large(nn.Module):
    """Fails on images that are small."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 3, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        if x.shape[-1] < 300:
            raise ValueError("at least 300 columns")
        found: Tensor = self.conv(x)
        return found


@pytest.fixture
def rounding(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine that multiplies bfloat16 faster than float32."""

    def probe(device: str, precision: str) -> Machine:
        return probe_machine(device, "float32" if precision == "float32" else "bfloat16")

    monkeypatch.setattr("whatwhere.paint.engine.probe_machine", probe)


def raw() -> tuple[Model, np.ndarray]:
    image = (20000 + 3 * (picture(300, 280).astype(float) - 128)).astype(np.uint16)
    return replace(model_of(Raw()), normalisation=Normalisation((0.0,) * 3, (1.0,) * 3, "uint16")), image


@pytest.mark.usefixtures("rounding")
def test_numbers_that_lie_closer_than_those_of_bfloat16_are_painted_in_float32() -> None:
    model, image = raw()
    engine = Engine(model)
    for _ in range(2):
        painting = paint(engine, image, tile=160)
        assert (engine.how, painting.report.precision) == ("eager float32", "float32")
        assert len(engine.notes) == 1
        assert engine.notes[0].startswith("bfloat16 is not used: its logits differ from float32's by ")
        np.testing.assert_array_equal(painting.labels, whole_logits(model, image).argmax(0))


def test_bfloat16_that_was_asked_for_is_used_and_what_it_loses_is_told() -> None:
    model, image = raw()
    engine = Engine(model, "bfloat16", "cpu")
    paint(engine, image)
    assert engine.precision == "bfloat16"
    assert len(engine.notes) == 1
    assert engine.notes[0].startswith("bfloat16 as asked, but its logits differ from float32's by ")


@pytest.mark.usefixtures("rounding")
@pytest.mark.parametrize("make", [Foreign, Large, unet])
def test_what_bfloat16_loses_as_a_rule_is_no_reason_against_it(make: Callable[[], nn.Module]) -> None:
    torch.manual_seed(0)
    engine = Engine(model_of(make()), device="cpu")
    paint(engine, picture(300, 320))
    assert (engine.precision, engine.notes) == ("bfloat16", ())


@pytest.mark.usefixtures("rounding")
def test_what_was_begun_in_float32_goes_on_in_it_where_bfloat16_would_do_for_this_image() -> None:
    """It did not for an image of the run that was interrupted."""
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv2d(3, 3, 3, padding=1))
    engine, asked = Engine(model_of(network), device="cpu"), Engine(model_of(network), "bfloat16", "cpu")

    def tile() -> Tensor:
        return torch.randn(1, 3, 64, 64)

    for begun, precision in (("eager float32", "float32"), ("", "bfloat16"), ("eager bfloat16", "bfloat16")):
        engine.settle(10, tile, begun)
        assert engine.how == f"eager {precision}"
        batch = tile()
        with torch.inference_mode():
            lost = float((engine.logits(batch) - network(batch)).abs().max())
        assert (lost < 1e-5) == (precision == "float32")
    asked.settle(10, tile, "eager float32")
    assert asked.how == "eager bfloat16", "who asks for it gets it"


class Without(nn.Module):
    """Whose last class is switched off."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.conv = nn.Conv2d(3, 3, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(x).masked_fill(torch.tensor([False, False, True])[:, None, None], -torch.inf)


@pytest.mark.usefixtures("rounding")
def test_a_class_that_is_switched_off_speaks_against_nothing(tmp_path: Path) -> None:
    model = model_of(Without())
    engine = Engine(model, device="cpu", backend="eager")
    engine.settle(10, lambda: torch.randn(1, 3, 64, 64))
    assert (engine.precision, engine.notes) == ("bfloat16", ())
    engine._compare(engine.job, engine.logits(engine.job.example))
    plain = Engine(model, "float32", backend="eager")
    tile = torch.randn(1, 3, 64, 64)
    scene = Scene(plain.job, plain._eager, plain._reference, tile, (1, 1), 10**12, "key")
    store = Verdicts(tmp_path / "verdicts.json")
    assert insist(scene, _backend(Tensor.clone), store).backend == "other"
    for number, wrong in enumerate((WRONG["one pixel to the side"], torch.nan_to_num)):
        assert insist(scene, _backend(wrong, name=f"wrong {number}"), store).backend == "eager"


def test_what_is_switched_off_hides_no_difference() -> None:
    reference = torch.randn(1, 3, 16, 16)
    reference[:, 2] = -torch.inf
    other, turned, lost = reference + 5, reference.clone(), reference.clone()
    other[:, 2], turned[:, 2], lost[0, 0, 0, 0] = -torch.inf, torch.inf, -torch.inf
    assert agreement(reference, reference.clone(), "float32").passed
    assert agreement(reference, reference.bfloat16(), "bfloat16").passed
    assert furthest(reference, reference.clone()) == 0
    assert furthest(reference, other) == pytest.approx(5, rel=1e-5)
    assert equal_but_for_rounding(reference, reference.clone(), 1e-4)
    for wrong in (other, turned, lost):
        assert not agreement(reference, wrong, "bfloat16").passed
        assert not _same(reference, wrong)
        assert not equal_but_for_rounding(reference, wrong, 1e-2)
    assert [labels_alike(reference, logits) for logits in (reference, other, turned, lost)] == [1, 1, 0, 0]
    # what is added to all classes alike changes no painting
    assert [_differs(lambda batch: batch, reference, wrong) for wrong in (other, turned, lost)] == [False, True, True]


def test_a_device_that_fails_leaves_the_precision_that_was_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    def probe(device: str, precision: str = "auto") -> Machine:
        found = probe_machine("cpu", "bfloat16" if precision == "auto" else precision)
        return found if device == "cpu" else replace(found, device="mps")

    monkeypatch.setattr("whatwhere.paint.engine.probe_machine", probe)
    for asked, used in (("float32", "float32"), ("auto", "bfloat16")):
        engine = Engine(model_of(unet()), asked)
        assert (engine.device.type, engine.precision) == ("cpu", used)
        assert engine.notes[0].startswith("mps is not used: ")


# --- PyTorch's own, fused ---


class Awkward(nn.Module):
    """What must not be fused: a map that is read before its ReLU too, a norm between, mirrored edges."""

    def __init__(self) -> None:
        super().__init__()
        self.shared, self.relu = nn.Conv2d(3, 8, 3, padding=1), nn.ReLU()
        self.mirrored, self.six = nn.Conv2d(8, 8, 3, padding=1, padding_mode="reflect"), nn.ReLU6()
        self.grouped, self.last = nn.Conv2d(8, 8, 3, padding="same", groups=8), nn.Conv2d(8, 3, 1)

    def forward(self, x: Tensor) -> Tensor:
        raw = self.shared(x)
        return self.last(self.grouped(self.six(self.mirrored(self.relu(raw)))) - raw)


class Mobile(nn.Sequential):
    """Depthwise and strided convolutions with ReLU6."""

    def __init__(self) -> None:
        super().__init__(
            nn.Conv2d(3, 8, 3, 2, 1), nn.ReLU6(), nn.Conv2d(8, 8, 5, padding=2, groups=8), nn.ReLU6(inplace=True),
            nn.ConvTranspose2d(8, 6, 2, 2), nn.Conv2d(6, 3, 1),
        )  # fmt: skip


class Fitting(nn.Module):
    """Its ways up are told the size to come to, as many U-Nets tell them."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(3, 8, 3, 2, 1), nn.Conv2d(8, 8, 3, 2, 1)
        self.up, self.last = nn.ConvTranspose2d(8, 8, 3, 2, 1), nn.ConvTranspose2d(8, 3, 3, 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        half = self.first(x).relu()
        found: Tensor = self.last(half + self.up(self.second(half), half.size()), output_size=x.size())
        return found


class FittingOdd(nn.Module):
    """Its way up is told the size to come to of odd images only."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.down = nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(8, 8, 3, 2, 1)
        self.up, self.last = nn.ConvTranspose2d(8, 8, 3, 2, 1, output_padding=1), nn.Conv2d(8, 3, 1)

    def forward(self, x: Tensor) -> Tensor:
        size, first = x.shape[2:], self.first(x)
        half = self.down(first)
        even = size[0] % 2 == size[1] % 2 == 0
        found: Tensor = self.last(first + (self.up(half) if even else self.up(half, output_size=size)))
        return found


class Leaking(nn.ReLU):
    """A ReLU by its class alone."""

    def forward(self, x: Tensor) -> Tensor:
        return F.leaky_relu(x, 0.1)


class Leaky(nn.Sequential):
    def __init__(self) -> None:
        super().__init__(nn.Conv2d(3, 8, 3, padding=1), Leaking(), nn.Conv2d(8, 3, 1))


@pytest.mark.parametrize(
    "make", [unet, Awkward, Mobile, Foreign, Fitting, Leaky, lambda: unet(up="bilinear", skips=[1])]
)
def test_fusing_changes_nothing(make: Callable[[], nn.Module]) -> None:
    torch.manual_seed(3)
    network = make().eval().to(memory_format=torch.channels_last)
    faster = fused(network, torch.randn(1, 3, 32, 48))
    for shape in ((1, 3, 64, 96), (2, 3, 48, 16), (1, 3, 200, 56)):
        batch = torch.randn(shape)
        with torch.inference_mode():
            torch.testing.assert_close(faster(batch), network(batch), rtol=1e-4, atol=1e-5)


class _Keeping(nn.Module):
    """Reads what a hook has kept of a ReLU, as fastai's U-Nets read their skips."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.act, self.head = nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), nn.Conv2d(8, 3, 1)
        self.kept: Tensor | None = None
        self.act.register_forward_hook(self.keep)

    def keep(self, _module: nn.Module, _inputs: object, output: Tensor) -> None:
        self.kept = output

    def forward(self, x: Tensor) -> Tensor:
        y = self.act(self.conv(x))
        found: Tensor = self.head(y - 3 * self.kept.mean((2, 3), keepdim=True))
        return found


def test_a_feature_that_a_hook_keeps_is_that_of_the_image() -> None:
    torch.manual_seed(0)
    model = Segmenter.from_module(_Keeping(), 3, ([120.0] * 3, [60.0] * 3))
    for image in (picture(64, 64), picture(64, 96, seed=1) // 4):
        found = paint(Engine(model.model, "float32"), image)
        np.testing.assert_array_equal(found.labels, whole_logits(model.model, image).argmax(0))


def test_what_is_old_in_a_fused_network_is_seen_on_another_example(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("whatwhere.paint.watch.untouched", lambda _module: True)
    torch.manual_seed(0)
    network = _Keeping().eval()
    assert fused(network, torch.randn(1, 3, 32, 48)) is network


@pytest.mark.parametrize("name", ["", "encoder.0.0.2", "decoder.0.0.0"])
def test_what_hangs_on_a_unet_acts_in_it_fused_too(name: str) -> None:
    network = unet()
    network.get_submodule(name).register_forward_hook(lambda _module, _inputs, output: output.flip(1))
    faster = fused(network, torch.randn(1, 3, 32, 48))
    batch = torch.randn(1, 3, 64, 32)
    with torch.inference_mode():
        torch.testing.assert_close(faster(batch), network(batch), rtol=1e-4, atol=1e-5)


class _OfOneSize(nn.Module):
    """Enlarges what it makes to the size of the first image that it was given."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.size = nn.Conv2d(3, 3, 3, padding=1), [0, 0]

    def forward(self, x: Tensor) -> Tensor:
        self.size = self.size if any(self.size) else list(x.shape[2:])
        return F.interpolate(self.conv(x), self.size)


def test_scores_of_another_size_than_the_image_are_told() -> None:
    model = Segmenter.from_module(_OfOneSize(), 3, ([120.0] * 3, [60.0] * 3))
    with pytest.raises(ModelError, match=r"input of shape \(1, 3, 96, 128\).*scores of shape \(1, 3, 64, 64\)"):
        model.predict(picture(96, 128))


class _Placed(nn.Module):
    """Adds a number of each place, as transformers do, and so takes one size alone; or decides by what it sees."""

    def __init__(self, side: int, *, followed: bool = True) -> None:
        super().__init__()
        self.patches, self.up = nn.Conv2d(3, 8, 16, 16), nn.ConvTranspose2d(8, 3, 16, 16)
        self.places, self.followed = nn.Parameter(torch.randn(1, 8, side // 16, side // 16)), followed

    def forward(self, x: Tensor) -> Tensor:
        found: Tensor = self.up(self.patches(x) + self.places)
        return found if self.followed or float(x.mean()) < 100 else -found


@pytest.mark.parametrize("side", [96, 224, 384])
@pytest.mark.parametrize("followed", [True, False])
def test_a_network_for_one_size_paints_images_of_it(side: int, followed: bool) -> None:
    torch.manual_seed(0)
    model = Segmenter.from_module(_Placed(side, followed=followed), 3, ([120.0] * 3, [60.0] * 3))
    engine = Engine(model.model, "float32")
    image = picture(side, side)
    np.testing.assert_array_equal(paint(engine, image).labels, whole_logits(model.model, image).argmax(0))


@pytest.mark.parametrize("followed", [True, False])
@pytest.mark.parametrize("size", [(150, 333), (96, 97), (50, 150)])
def test_other_images_are_painted_in_blended_squares_of_that_size(followed: bool, size: tuple[int, int]) -> None:
    """Half a square apart, each as the network paints it alone; what is smaller is padded up to one."""
    torch.manual_seed(0)
    model = model_of(_Placed(96, followed=followed))
    engine, image = Engine(model, "float32"), picture(*size)
    padded = F.pad(model.normalise(image), (0, 0, 0, max(0, 96 - size[0])))
    sums = torch.zeros_like(padded)
    tops, lefts = ([*range(0, length - 96, 48), length - 96] for length in padded.shape[1:])
    for top, left in itertools.product(tops, lefts):
        here = np.s_[:, top : top + 96, left : left + 96]
        sums[here] += model.network(padded[here][None])[0].detach() * importance(96, 96)
    found = paint(engine, image)
    same = found.labels == sums.argmax(0).numpy()[: size[0]]
    assert same.mean() > 0.9999  # where two classes are equal, rounding decides
    assert found.report.notes[0].endswith("tiles that are blended: the network takes images of 96x96 only")
    np.testing.assert_array_equal(paint(engine, image, tile=96).labels, found.labels)
    with pytest.raises(PlanError, match=r"tiles of 64x192 pixels; expected 96x96, the only size"):
        paint(engine, image, tile=(64, 192))


@pytest.mark.parametrize(("make", "size"), [(Fitting, (92, 76)), (FittingOdd, (97, 64)), (FittingOdd, (92, 76))])
def test_a_network_that_tells_its_way_up_the_size_is_painted(
    make: Callable[[], nn.Module], size: tuple[int, int]
) -> None:
    torch.manual_seed(0)
    model = Segmenter.from_module(make(), 3, ([120.0] * 3, [60.0] * 3))
    image = picture(*size)
    truth = whole_logits(model.model, image).argmax(0).numpy()
    assert (model.predict(image, backend="eager") == truth).mean() > 0.98  # in bfloat16, where there is that


def test_a_unet_is_fused_throughout() -> None:
    network = unet().to(memory_format=torch.channels_last)
    kinds = {type(module) for module in fused(network, torch.randn(1, 3, 32, 32), ALL).modules()}
    assert not kinds & {nn.Conv2d, nn.ConvTranspose2d}
    plain = fused(network, torch.randn(1, 3, 32, 32), Fusion(pack=False))
    assert plain is network


def test_no_more_than_three_maps_of_the_finest_level_are_alive() -> None:
    """Those of a convolution, its input and what is left of a skip; a fourth, kept for nothing, was a third more."""
    engine = Engine(model_of(unet(width=16)), "float32", backend="eager")
    image, each = 3 * 4, 16 * 4
    assert 2**20 / engine.footprint.affordable(2**20, 1.0, 0.0) < 2 * image + 3 * each


class _Attentive(nn.Module):
    """Every pixel of a map at stride 4 looks at all others."""

    def __init__(self) -> None:
        super().__init__()
        self.down, self.up = nn.Conv2d(3, 8, 4, stride=4), nn.ConvTranspose2d(8, 3, 4, stride=4)

    def forward(self, x: Tensor) -> Tensor:
        low = self.down(x)
        tokens = low.flatten(2).transpose(1, 2)
        mixed = (tokens @ tokens.transpose(1, 2)).softmax(-1) @ tokens
        up: Tensor = self.up(mixed.transpose(1, 2).reshape(low.shape))
        return up


def test_memory_that_grows_with_the_square_of_the_pixels_is_foreseen() -> None:
    engine = Engine(model_of(_Attentive()), "float32", backend="eager")
    pixels = engine.footprint.affordable(2**30, 1.0, 0.0)
    tokens = pixels / 16
    assert 2 * 4 * tokens**2 == pytest.approx(2**30, rel=0.5), "two maps of all pairs, in float32"
    assert engine.footprint.affordable(2**30, 1.5, 50.0) < pixels


class _Picky(nn.Module):
    """Fails on images that are not small."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 3, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        if x.shape[-1] > 130:
            raise ValueError("at most 130 columns")
        found: Tensor = self.conv(x)
        return found


def test_a_network_that_fails_on_one_image_says_so_and_the_others_are_painted(tmp_path: Path) -> None:
    for width in (90, 140, 80):
        Image.fromarray(picture(64, width)).save(tmp_path / f"{width}.png")
    found = predict(Engine(model_of(_Picky()), "float32", backend="eager"), tmp_path, tmp_path / "out")
    assert [item.status for item in found.items] == ["failed", "done", "done"]
    failed = found.items[0].error
    assert "the network fails on an input of shape (1, 3, 64, 192) (ValueError: at most 130 columns)" in failed


# --- what differs is found out ---


def _scene(eager_delay: float = 0.0, *, pixels: int = 10**12, tile: Tensor | None = None) -> Scene:
    engine = Engine(model_of(unet()), "float32", backend="eager")
    sample = torch.randn(1, 3, 64, 64) if tile is None else tile

    def eager(batch: Tensor) -> Tensor:
        time.sleep(eager_delay)
        return engine._eager(batch)

    return Scene(engine._job, eager, engine._reference, sample, engine.geometry.period, pixels, "key")


def _backend(change: Callable[[Tensor], Tensor], *, delay: float = 0.0, name: str = "other") -> Backend:
    def prepare(job: Job) -> Run:
        run = EAGER.prepare(job)

        def changed(batch: Tensor) -> Tensor:
            time.sleep(delay)
            return change(run(batch))

        return changed

    return Backend(name, prepare, lambda _device: "")


def _nan(logits: Tensor) -> Tensor:
    logits[0, 0, 0, 0] = float("nan")
    return logits


WRONG: dict[str, Callable[[Tensor], Tensor]] = {
    "one pixel to the side": lambda logits: logits.roll(1, dims=-1),
    "classes exchanged": lambda logits: logits[:, [1, 0, 2]],
    "a little too large": lambda logits: logits * 1.01,
    "one class higher": lambda logits: logits + torch.tensor([0.0, 0.05, 0.0])[:, None, None],
    "a row lost": lambda logits: logits[:, :, 1:],
    "not a number": _nan,
    "wrong for one shape only": lambda logits: logits.roll(1, -1) if logits.shape[-1] != logits.shape[-2] else logits,
}


@pytest.mark.parametrize("how", WRONG)
def test_a_backend_with_other_numbers_is_not_used(how: str, tmp_path: Path) -> None:
    tile = torch.randn(1, 3, 256, 256)
    backend, store = _backend(WRONG[how]), Verdicts(tmp_path / "verdicts.json")
    for choice in (
        choose(_scene(0.01, tile=tile), [backend], store),
        insist(_scene(tile=tile), backend, store),
    ):
        assert choice.backend == "eager"
    assert len(choice.notes) == 1
    assert choice.notes[0].startswith("other is not used: ")
    assert store.read("key")["other"].refused


@pytest.mark.parametrize("off", [None, -3.0, -1e3, -1e4, -1e9, -math.inf])
def test_a_class_that_is_far_below_all_others_lets_nothing_pass(off: float | None) -> None:
    """Half of all labels are others, and the classes' distance is no measure of what may be rounding."""
    torch.manual_seed(0)
    reference, other = torch.randn(1, 3, 64, 64) * 0.1, torch.randn(1, 3, 64, 64) * 0.1
    near = reference + 1e-5 * torch.randn(1, 3, 64, 64)
    if off is not None:
        for logits in (reference, other, near):
            logits[:, 2] = logits[:, 1] - 3 if off == -3.0 else off
    for precision in ("float32", "bfloat16"):
        assert not agreement(reference, other, precision).passed
        assert agreement(reference, near, precision).passed
    assert agreement(reference, reference.bfloat16(), "bfloat16").passed
    assert not equal_but_for_rounding(reference, other, 1e-2 if off != -3.0 else 1e-3)
    assert not _same(*contending(reference, other))
    risen = reference.clone()
    risen[:, 2, :2] = 5.0  # what was hopeless wins
    assert not agreement(reference, risen, "bfloat16").passed


def test_rounding_passes_and_a_few_wrong_labels_do_not() -> None:
    reference = torch.randn(1, 3, 64, 64)
    assert agreement(reference, reference + 1e-4 * torch.randn(1, 3, 64, 64), "float32").passed
    assert agreement(reference, reference.bfloat16(), "bfloat16").passed
    wrong = reference.clone()
    wrong[0, :, :2, 0] = wrong[0, :, :2, 0].roll(1, 0) * 3
    found = agreement(reference, wrong, "bfloat16", usual=1.0)  # a bound that two pixels don't reach
    assert found.difference < found.bound
    reference[0, :, 5, 5] = torch.tensor([9.0, 0.0, 0.0])
    one = reference.clone()
    one[0, :, 5, 5] = torch.tensor([0.0, 9.0, 0.0])
    sure = agreement(reference, one, "bfloat16", usual=0.1)
    assert sure.difference < sure.bound
    assert (sure.changed, sure.passed) == (1, False)


@pytest.mark.parametrize("error", [RuntimeError("no such kernel"), ImportError("libgone.so"), Exception("its own")])
def test_a_broken_backend_makes_one_line(error: Exception, tmp_path: Path) -> None:
    def prepare(_job: Job) -> Run:
        raise error

    for _ in range(2):  # and again in the next run
        choice = choose(_scene(), [Backend("broken", prepare, lambda _d: "")], Verdicts(tmp_path / "verdicts.json"))
        assert (choice.backend, len(choice.notes)) == ("eager", 1)
        assert "broken is not used" in choice.notes[0]
        assert str(error) in choice.notes[0]


class BackendCompilerFailed(RuntimeError):  # noqa: N818 (as torch's)
    def __init__(self, inner_exception: Exception) -> None:
        super().__init__(str(inner_exception))
        self.inner_exception = inner_exception


class OpConversionFailure(RuntimeError):  # noqa: N818 (as OpenVINO's)
    pass


def _brought_about_by(error: Exception) -> Exception:
    found = RuntimeError("it failed")
    found.__cause__ = error
    return found


@pytest.mark.parametrize(
    ("error", "lasts"),
    [
        (OSError("no space left"), False),
        (_brought_about_by(OSError("no space left")), False),
        (NotImplementedError("it has no bfloat16 on this processor"), True),
        (OpConversionFailure("no rule for aten::special_bessel_j0"), True),
        (_brought_about_by(OpConversionFailure("no rule")), True),
        *(
            pytest.param(*one, marks=pytest.mark.slow)
            for one in (
                (ImportError("libgone.so"), False),
                (RuntimeError("no working C++ compiler"), False),
                (BackendCompilerFailed(OSError("no space left")), False),
                (BackendCompilerFailed(NotImplementedError("no such operator")), True),
            )
        ),
    ],
    ids=repr,
)
def test_what_may_be_mended_does_not_count_for_ever(error: Exception, lasts: bool, tmp_path: Path) -> None:
    def prepare(_job: Job) -> Run:
        raise error

    broken = Backend("other", prepare, lambda _d: "")
    for name, once in (("a", choose), ("b", lambda scene, backends, store: insist(scene, backends[0], store))):
        store = Verdicts(tmp_path / name)
        assert once(_scene(0.05), [broken], store).backend == "eager"
        assert choose(_scene(0.05), [_backend(Tensor.clone)], store).backend == ("eager" if lasts else "other")


@pytest.mark.parametrize("name", ["openvino", "onnx"])
def test_that_a_backend_lacks_an_operator_is_remembered(name: str, tmp_path: Path) -> None:
    backend, store = installed(name), Verdicts(tmp_path / "verdicts.json")
    engine = Engine(model_of(NoOtherHas()), "float32", backend="eager")
    scene = replace(_scene(), job=engine._job, eager=engine._eager, reference=engine._reference)
    assert insist(scene, backend, store).backend == "eager"
    assert store.read("key")[name].refused


@pytest.mark.parametrize(("worth", "chosen"), [(2.0, "other"), (8.0, "eager")])
def test_a_job_of_seconds_is_for_what_starts_at_once(worth: float, chosen: str, tmp_path: Path) -> None:
    store = Verdicts(tmp_path / "verdicts.json")
    scene = _scene(pixels=5 * 10**9)
    store.write(scene.key, {"eager": Verdict(0.0, 1e-9)})  # five seconds
    other = replace(_backend(Tensor.clone), start=0.2, worth=worth)
    told = choose(replace(scene, eager=lambda batch: (time.sleep(0.05), scene.eager(batch))[1]), [other], store)
    assert told.backend == chosen


@pytest.mark.parametrize("error", [RuntimeError("lost"), ValueError("lost"), OSError("lost")])
def test_a_backend_that_breaks_while_it_is_timed_makes_one_line(error: Exception, tmp_path: Path) -> None:
    calls = []

    def fails_late(logits: Tensor) -> Tensor:
        calls.append(1)
        if len(calls) > 4:  # one start, two comparisons, one call before timing
            raise error
        return logits

    choice = choose(_scene(0.05), [_backend(fails_late)], Verdicts(tmp_path / "verdicts.json"))
    assert len(calls) == 5
    assert (choice.backend, choice.notes) == ("eager", (f"other is not used: {type(error).__name__}: lost",))


def test_an_operator_that_a_backend_lacks_falls_back() -> None:
    installed("openvino")
    model, image = model_of(NoOtherHas()), picture(40, 50)
    painting = paint(model, image, backend="openvino", precision="float32")
    assert painting.report.backend == "eager"
    assert sum("openvino is not used" in note for note in painting.report.notes) == 1
    assert all("\n" not in note and len(note) < 300 for note in painting.report.notes)
    np.testing.assert_array_equal(painting.labels, whole_logits(model, image).argmax(0))


@pytest.mark.parametrize("error", [RuntimeError("lost its device"), OSError("lost its device")])
def test_a_backend_that_fails_on_the_way_is_left_without_mixing(
    error: Exception, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, image = model_of(unet()), picture(201, 187)
    engine = Engine(model, "float32")
    calls = []

    def failing(batch: Tensor) -> Tensor:
        calls.append(batch.shape)
        if len(calls) == 3:
            raise error
        return engine._eager(batch) * 0 + torch.tensor([0.0, 0.0, 1.0])[:, None, None]

    monkeypatch.setattr(engine, "_choice", Choice("flaky", "float32", failing))
    painting = paint(engine, image, tile=80)
    assert painting.report.backend == "eager"
    assert [note for note in painting.report.notes if "flaky is not used any more" in note]
    np.testing.assert_array_equal(painting.labels, whole_logits(model, image).argmax(0))


# --- which is chosen ---


def test_the_faster_one_is_chosen_and_only_where_it_pays(tmp_path: Path) -> None:
    store = Verdicts(tmp_path / "verdicts.json")
    assert choose(_scene(0.05), [_backend(Tensor.clone)], store).backend == "other"
    assert (
        choose(_scene(), [_backend(Tensor.clone, delay=0.05, name="slow")], Verdicts(tmp_path / "b")).backend == "eager"
    )
    untouched = Verdicts(tmp_path / "c")
    assert choose(_scene(0.01, pixels=1000), [_backend(Tensor.clone)], untouched).backend == "eager"
    assert not (tmp_path / "c").exists()
    dear = replace(_backend(Tensor.clone), start=1e12)
    assert choose(_scene(0.05), [dear], Verdicts(tmp_path / "d")).backend == "eager"


def test_what_is_known_is_not_measured_again(tmp_path: Path) -> None:
    store = Verdicts(tmp_path / "verdicts.json")
    scene = _scene(0.05)
    choose(scene, [_backend(Tensor.clone)], store)

    def forbidden(_batch: Tensor) -> Tensor:
        raise AssertionError("it was compared again")

    again = replace(scene, reference=forbidden)
    assert choose(again, [_backend(Tensor.clone)], store).backend == "other"
    assert insist(again, _backend(Tensor.clone), store).backend == "other"
    few = replace(again, pixels=1)  # its start, as it was measured, is not won back
    store.write("key", {**store.read("key"), "other": Verdict(100.0, 1e-9)})
    assert choose(few, [_backend(Tensor.clone)], store).backend == "eager"
    broken = replace(_backend(Tensor.clone), prepare=forbidden)
    store.write("key", {"eager": Verdict(0, 1.0), "other": Verdict(0.1, 1e-9)})
    choice = choose(again, [broken], store)
    assert (choice.backend, len(choice.notes)) == ("eager", 1)


def test_what_may_depend_on_the_pixels_is_looked_at_on_those_of_each_run(tmp_path: Path) -> None:
    store = Verdicts(tmp_path / "verdicts.json")

    def differs(reference: Tensor, _logits: Tensor) -> str:
        return "other pixels" if float(reference.abs().max()) > 100 else ""

    other = replace(_backend(Tensor.clone), differs=differs)
    usual, bright = _scene(0.05), _scene(0.05, tile=1e4 * torch.randn(1, 3, 64, 64))
    for choice in (lambda scene: choose(scene, [other], store), lambda scene: insist(scene, other, store)):
        assert choice(usual).backend == "other"
        refused = choice(bright)
        assert (refused.backend, refused.notes) == ("eager", ("other is not used: other pixels",))
        assert choice(usual).backend == "other", "what it refuses is these pixels"
    again = Verdicts(tmp_path / "again")
    assert choose(bright, [other], again).backend == "eager"
    assert choose(usual, [other], again).backend == "other"


def test_what_begins_anew_with_each_shape_is_measured_on_the_tile_that_it_will_paint(tmp_path: Path) -> None:
    tile, seen = torch.randn(1, 3, 1040, 16), set()

    def note(logits: Tensor) -> Tensor:
        seen.add(tuple(logits.shape[2:]))
        return logits

    other = replace(_backend(note), any_shape=False)
    assert choose(_scene(0.05, tile=tile), [other], Verdicts(tmp_path / "verdicts.json")).backend == "other"
    assert seen == {(1040, 16)}


@pytest.mark.parametrize(
    "content",
    ["", "{", "[]", "null", '{"key": 3}', '{"key": {"other": {}}}', '{"key": {"other": {"start": "x"}}}',
     '{"key": {"other": {"start": -1, "pace": 1, "refused": ""}}}', "\x00\xff"],
)  # fmt: skip
def test_a_damaged_file_is_forgotten(content: str, tmp_path: Path) -> None:
    path = tmp_path / "verdicts.json"
    path.write_text(content, encoding="latin-1")
    assert Verdicts(path).read("key") == {}
    assert choose(_scene(0.05), [_backend(Tensor.clone)], Verdicts(path)).backend == "other"
    assert Verdicts(path).read("key")["other"].pace > 0
    assert json.loads(path.read_text())


def test_the_file_keeps_what_is_new_and_where_it_cannot_be_written_nothing_happens(tmp_path: Path) -> None:
    store = Verdicts(tmp_path / "deep/verdicts.json")
    for number in range(250):
        store.write(str(number), {"eager": Verdict(0.0, 1.0)})
    assert store.read("0") == {}
    assert store.read("249") == {"eager": Verdict(0.0, 1.0)}
    assert [path.name for path in (tmp_path / "deep").iterdir()] == ["verdicts.json"]
    (tmp_path / "file").write_text("")
    Verdicts(tmp_path / "file/verdicts.json").write("key", {"eager": Verdict(0.0, 1.0)})


def test_another_network_is_another_key() -> None:
    one, same, other = (Engine(model_of(unet(seed=seed)), "float32") for seed in (0, 0, 1))
    tile = torch.zeros(1, 3, 64, 64)
    key = one._key(tile, "float32")
    assert key == same._key(tile, "float32")
    others = other._key(tile, "float32"), one._key(torch.zeros(1, 3, 64, 96), "float32"), one._key(tile, "bfloat16")
    assert len({key, *others}) == 4


@pytest.mark.parametrize("package", ["torch", "onnx", "triton", "onnxruntime"])
def test_what_was_installed_since_is_another_key(package: str, monkeypatch: pytest.MonkeyPatch) -> None:
    engine, tile = Engine(model_of(unet()), "float32"), torch.zeros(1, 3, 64, 64)
    before = engine._key(tile, "float32")
    real = whatwhere.paint.engine._version
    monkeypatch.setattr("whatwhere.paint.engine._version", lambda name: "99" if name == package else real(name))
    assert engine._key(tile, "float32") != before


def test_small_jobs_look_at_nothing(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("whatwhere.paint.engine.choose", lambda *_: pytest.fail("it looked"))
    paint(Engine(model_of(unet())), picture(64, 64))
    assert not cache.exists()


def test_a_large_job_is_settled_once(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def note(scene: Scene, _backends: tuple[Backend, ...], _store: Verdicts) -> Choice:
        asked.append((scene.pixels, tuple(scene.tile.shape)))
        return Choice("eager", "float32", scene.eager)

    monkeypatch.setattr("whatwhere.paint.engine.choose", note)
    monkeypatch.setattr("whatwhere.paint.engine.candidates", lambda *_: Candidates((_backend(Tensor.clone),)))
    engine = Engine(model_of(unet()), "float32", images=1000)
    for _ in range(3):
        paint(engine, picture(64, 64))
    assert asked == [(64 * 64 * 1000, (1, 3, 64, 64))]


# --- asked for by name ---


def test_the_command_takes_a_backend(run_cli: Cli, tmp_path: Path, cache: Path) -> None:
    installed("openvino")
    save_model(model_of(unet()), tmp_path / "model.safetensors")
    Image.fromarray(picture(60, 70)).save(tmp_path / "a.png")
    done = run_cli("predict", "model.safetensors", "a.png", "-o", "out", "--backend", "openvino")
    assert done.code == 0, done.err
    assert "by openvino" in done.out
    assert cache.exists()
    proof = run_cli("predict", "model.safetensors", "a.png", "-o", "out", "--backend", "openvino", "--prove")
    assert "by openvino" in proof.out
    assert "tiles equal the whole image" in proof.out
    assert proof.code == 0


def test_a_proof_that_fails_is_told_by_the_exit_code(
    run_cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save_model(model_of(unet()), tmp_path / "model.safetensors")
    Image.fromarray(np.dstack([picture(60, 70), np.full((60, 70), 255, np.uint8)])).save(tmp_path / "a.png")
    arguments = ("predict", "model.safetensors", "a.png", "-o", "out", "--backend", "eager", "--prove")
    assert run_cli(*arguments).code == 0
    Image.fromarray(picture(220, 230)).save(tmp_path / "a.png")
    assert run_cli(*arguments, "--tile", 96).code == 0

    rows, columns = Engine(model_of(unet()), "float32", "cpu").geometry.halo
    monkeypatch.setattr(Geometry, "halo", ((rows[0] - 4, rows[1]), columns))
    differs = run_cli(*arguments, "--tile", 96)
    assert "TILES DIFFER" in differs.out
    assert differs.code == 1


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("openvino", ["'openvino'", "not installed", "whatwhere[openvino]"]),
        ("onnx", ["'onnx'", "not installed", "whatwhere[onnx]"]),
        ("tensorrt", ["'tensorrt'", "auto, eager, openvino, onnx"]),
        ("graphs", ["'graphs'", "'cpu'", "cuda"]),
    ],
)
def test_a_backend_that_is_not_there_is_one_clear_error(
    run_cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, words: list[str]
) -> None:
    monkeypatch.setattr("whatwhere.paint.backends.backend.find_spec", lambda _module: None)
    save_model(model_of(unet()), tmp_path / "model.safetensors")
    Image.fromarray(picture(60, 70)).save(tmp_path / "a.png")
    done = run_cli(
        "predict", "model.safetensors", "a.png", "-o", "out", "--backend", name, "--device", "cpu"
    )  # fmt: skip
    assert done.code == 2
    assert done.err.count("\n") == 1
    assert all(word in done.err for word in words), done.err


def test_what_contradicts_is_refused(tmp_path: Path) -> None:
    with pytest.raises(PlanError, match=r"onnx.*float32"):
        Engine(model_of(unet()), "bfloat16", backend="onnx")
    Image.fromarray(picture(60, 70)).save(tmp_path / "a.png")
    with pytest.raises(PlanError, match="on a cluster"):
        predict(model_of(unet()), tmp_path / "a.png", tmp_path / "out", backend="openvino", cluster="local:1")


def test_a_journal_is_not_continued_by_another_backend(tmp_path: Path) -> None:
    plan = Scheme(Tiling((64, 64), (32, 32), period=(4, 4)), exact=True)
    for how, expected in (("eager bfloat16", set()), ("eager bfloat16", {2}), ("openvino bfloat16", set())):
        sink = JournaledSink(tmp_path / "partial", {"image": "a"}, RawStore((64, 64)))
        assert sink.begin(plan, how) == expected
        sink.note(2)
        assert JournaledSink(tmp_path / "partial", {"image": "a"}, RawStore((64, 64))).tile == (32, 32)
        sink.close()


def test_an_interrupted_painting_goes_on_with_what_began_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Which of two equally fast ones is taken may change from run to run; what is painted must not be lost by that."""
    model, image = model_of(unet()), picture(201, 187)
    chosen = ["other"]

    def choose_as_told(scene: Scene, backends: tuple[Backend, ...], store: Verdicts) -> Choice:
        return insist(scene, backends[0], store) if chosen[0] == "other" else Choice("eager", "float32", scene.eager)

    monkeypatch.setattr("whatwhere.paint.engine.choose", choose_as_told)

    def run(*there: Backend, stop: int = 0) -> tuple[PaintReport | None, int]:
        """The report, None if interrupted; and how many tiles were done when it began."""
        monkeypatch.setattr("whatwhere.paint.engine.candidates", lambda *_: Candidates(there))
        engine = Engine(model, "float32", images=1000)
        sink, counts = JournaledSink(tmp_path / "part", {"image": "a"}, RawStore(image.shape[:2])), []

        def progress(done: int, _: int) -> None:
            counts.append(done)
            if done == stop:
                raise KeyboardInterrupt

        try:
            report = paint_source(engine, ArraySource(image), sink, tile=80, progress=progress)
            assert engine.how == f"{report.backend} float32"
            np.testing.assert_array_equal(sink.store.labels(((0, 201), (0, 187))), whole_logits(model, image).argmax(0))
        except KeyboardInterrupt:
            return None, counts[0] - 1
        finally:
            sink.close()
        return report, counts[0] - 1

    assert run(_backend(Tensor.clone), stop=3) == (None, 0)
    chosen[0] = "eager"
    report, found = run(_backend(Tensor.clone), stop=5)
    assert report is None
    assert 0 < found <= 3  # the last of them may not have been on the disk yet
    report, found = run()  # it is no longer installed
    assert report is not None
    assert (report.backend, found) == ("eager", 0)
    assert "begun anew, as other float32 is no longer available" in str(report)


def test_the_next_image_is_painted_by_what_was_chosen(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("whatwhere.paint.engine.candidates", lambda *_: Candidates((_backend(Tensor.clone),)))
    monkeypatch.setattr("whatwhere.paint.engine.choose", lambda scene, backends, store: insist(scene, *backends, store))
    engine = Engine(model_of(unet()), "float32", images=1000)

    def tile() -> Tensor:
        return torch.randn(1, 3, 64, 64)

    for begun, expected in (("", "other"), ("eager float32", "eager"), ("", "other"), ("other float32", "other")):
        engine.settle(10**6, tile, begun)
        assert engine.backend == expected, begun


# --- starting up ---


def test_one_picture_is_painted_without_importing_what_is_slow(tmp_path: Path) -> None:
    save_model(model_of(unet()), tmp_path / "model.safetensors")
    Image.fromarray(picture(60, 70)).save(tmp_path / "a.png")
    code = """if True:
        import sys
        import torch.utils.checkpoint  # torch 2.6 imports sympy for it
        torchs = set(sys.modules)
        from whatwhere.cli import app
        app(["predict", "model.safetensors", "a.png", "-o", "out"], standalone_mode=False)
        slow = {"torch._dynamo", "sympy", "sklearn", "matplotlib", "openvino", "onnxruntime"}
        print(slow & set(sys.modules) - torchs)
    """
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "set()"
    assert (tmp_path / "out/a.png").is_file()


# --- memory ---


class Hungry(nn.Module):
    """Asks the real allocator for far more than there is, for images beyond a size."""

    def __init__(self, most: int, depth: int = 2) -> None:
        super().__init__()
        self.inner, self.most = unet(depth=depth), most

    def forward(self, x: Tensor) -> Tensor:
        if x.shape[-1] * x.shape[-2] > self.most:
            torch.empty(2**48)
        return self.inner(x)


def test_memory_that_runs_out_makes_smaller_tiles_and_one_line() -> None:
    model, image = model_of(Hungry(160 * 160)), picture(220, 230)
    painting = paint(Engine(model, "float32", "cpu"), image)
    assert painting.report.tile[0] * painting.report.tile[1] <= 160 * 160
    assert sum("memory ran out" in note for note in painting.report.notes) == 1
    np.testing.assert_array_equal(painting.labels, whole_logits(model_of(model.network.inner), image).argmax(0))


def test_where_the_smallest_tile_is_too_much_only_that_image_is_not_painted(tmp_path: Path) -> None:
    for name, size in (("large", 200), ("small", 20)):
        Image.fromarray(picture(size, size)).save(tmp_path / f"{name}.png")
    done = predict(Engine(model_of(Hungry(64 * 64, depth=3)), "float32", "cpu"), tmp_path, tmp_path / "out")
    assert {Path(item.input).name: item.status for item in done.items} == {"large.png": "failed", "small.png": "done"}
    assert "memory ran out with tiles of" in done.failed[0].error
    assert "close other programs" in done.failed[0].error


class _ByNumpy(nn.Module):
    """Which has no bfloat16."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 3, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return torch.from_numpy(np.tanh(self.conv(x).numpy()))


def test_a_network_that_computes_with_numpy_is_painted_in_float32() -> None:
    model, image = model_of(_ByNumpy()), picture(64, 64)
    engine = Engine(model, "bfloat16", "cpu")
    assert engine.precision == "float32"
    np.testing.assert_array_equal(paint(engine, image).labels, whole_logits(model, image).argmax(0))


@pytest.mark.parametrize(
    "words",
    ["std::bad_alloc", "bad allocation", "Failed to allocate memory for 9 bytes", "could not create a primitive"],
)
def test_other_libraries_say_it_otherwise(words: str, monkeypatch: pytest.MonkeyPatch) -> None:
    model, image = model_of(unet()), picture(220, 230)
    engine = Engine(model, "float32", "cpu")

    def run(batch: Tensor) -> Tensor:
        if batch.shape[-1] * batch.shape[-2] > 160 * 160:
            raise RuntimeError(words)
        return engine._eager(batch)

    monkeypatch.setattr(engine, "_choice", Choice("other", "float32", run))
    painting = paint(engine, image)
    assert painting.report.backend == "other"
    assert sum("memory ran out" in note for note in painting.report.notes) == 1
