"""What runs on a GPU, on a real one: skipped where torch sees none. The CPU is the reference."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from explain_toys import as_set, fresh, toys
from explain_toys import train as learnt
from painting import model_of, picture, unet, whole_logits
from PIL import Image
from torch import Tensor, nn

from tiny import Cli
from whatwhere import verbs
from whatwhere.chosen import open_sets
from whatwhere.data import find
from whatwhere.data.augment import Augmentation
from whatwhere.data.crops import Crops, Store
from whatwhere.data.crops_together import Drawn, Together
from whatwhere.explain import explain
from whatwhere.learn.plan import Plan, TrainingPlan
from whatwhere.learn.plan_file import write_plan
from whatwhere.learn.recorded import Recorder
from whatwhere.learn.step import make_optimizer, train_step
from whatwhere.learn.train import train
from whatwhere.learn.view import SilentView
from whatwhere.network import UNet, load_model, probe_machine
from whatwhere.paint import Engine, paint, prove
from whatwhere.paint.backends import BACKENDS
from whatwhere.records import Normalisation

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device here")

RUNNING = Path(__file__).parent / "learn/running.py"


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """No verdict on a backend from another test; nor its memory."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    yield
    torch.cuda.empty_cache()


class Told(SilentView):
    def __init__(self) -> None:
        self.said: list[str] = []

    def say(self, text: str) -> None:
        self.said.append(text)


# --- painting ---


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
@pytest.mark.parametrize("name", ["eager", "graphs", pytest.param("compile", marks=pytest.mark.slow)])
def test_a_backend_paints_what_the_network_computes(name: str, precision: Any) -> None:
    backend = next(one for one in BACKENDS if one.name == name)
    if lacking := backend.lacks("cuda"):
        pytest.skip(f"{lacking} is not installed")
    model, image = model_of(unet()), picture(201, 187)
    engine = Engine(model, precision, "cuda", backend=name)
    painting = paint(engine, image, tile=80)
    assert (engine.backend, engine.precision, engine.notes) == (name, precision, ())
    assert painting.report.tiles > 1
    changed = (painting.labels != whole_logits(model, image).argmax(0).numpy()).mean()
    assert changed < (1e-3 if precision == "float32" else 0.03)


def test_tiles_are_exact() -> None:
    """In full float32: TF32 would be a hundred times further away."""
    engine = Engine(model_of(unet(depth=3)), "float32", "cuda")
    proof = prove(engine, picture(300, 280))
    assert proof.passed
    assert proof.less is not None
    assert proof.less > 100 * proof.difference


class Waits(nn.Module):
    """Asks the GPU for numbers in the middle, which no graph can hold."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.shift = nn.Conv2d(3, 3, 3, padding=1), nn.Parameter(torch.ones(3, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.conv(x)
        return y + self.shift.cpu().to(y.device)


def test_a_network_that_no_graph_can_hold_is_painted_without_one() -> None:
    torch.manual_seed(0)
    model, image = model_of(Waits()), picture(90, 100)
    engine = Engine(model, "float32", "cuda", backend="graphs")
    labels = paint(engine, image).labels
    assert engine.backend == "eager"
    assert engine.notes[0].startswith("graphs is not used: ")
    assert (labels != whole_logits(model, image).argmax(0).numpy()).mean() < 1e-3
    again = Engine(model_of(unet()), "float32", "cuda", backend="graphs")  # which leaves the GPU as it was
    paint(again, image)
    assert again.backend == "graphs"


def test_many_shapes_share_the_graphs_memory() -> None:
    model = model_of(unet(depth=3))
    engine = Engine(model, "float32", "cuda", backend="graphs")
    engine.settle(2**20, lambda: model.normalise(picture(256, 256))[None])
    for side in (256, 64, 128, 256, 192, 64):
        batch = model.normalise(picture(side, side, seed=side))[None]
        with torch.inference_mode():
            reference = model.network(batch)
        torch.testing.assert_close(engine.logits(batch).cpu(), reference, rtol=1e-3, atol=1e-3)


def test_where_memory_runs_out_tiles_shrink() -> None:
    model, image = model_of(unet(width=16)), picture(1500, 1500)
    expected = paint(Engine(model, "float32", "cuda"), image).labels
    torch.cuda.empty_cache()
    # half of what the image takes in one piece; torch itself may tell otherwise what is free
    torch.cuda.set_per_process_memory_fraction(2**29 / torch.cuda.get_device_properties(0).total_memory)
    try:
        engine = Engine(model, "float32", "cuda", backend="eager")
        painting = paint(engine, image, tile=1504)
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
    assert "memory ran out with tiles of 1500x1500" in str(painting.report)
    assert (painting.labels != expected).mean() < 1e-3


def test_predict_chooses_the_gpu(disc_run: Path, tmp_path: Path, run_cli: Cli) -> None:
    large = picture(1100, 1300)
    Image.fromarray(large).save(tmp_path / "large.png")
    done = run_cli("predict", disc_run, tmp_path / "large.png", "-o", tmp_path / "painted")
    assert done.code == 0, done.err
    found = np.asarray(Image.open(next((tmp_path / "painted").glob("large*.png"))))
    expected = paint(Engine(load_model(disc_run), "float32", "cpu", backend="eager"), large).labels
    assert (found != expected).mean() < 0.02


def test_predict_prove(disc_run: Path, tmp_path: Path, run_cli: Cli) -> None:
    Image.fromarray(picture(500, 500)).save(tmp_path / "some.png")
    done = run_cli("predict", disc_run, tmp_path / "some.png", "-o", tmp_path / "painted", "--prove")
    assert done.code == 0, done.err


# --- learning ---


def test_crops_are_the_same_as_on_the_cpu() -> None:
    rng = np.random.default_rng(0)
    labels = np.kron(rng.integers(0, 3, (20, 24)), np.ones((16, 16))).astype(np.uint8)
    image = (labels[..., None] * 60 + rng.integers(0, 60, (*labels.shape, 3))).astype(np.uint8)
    wild = Augmentation(True, True, True, rotation=180, scale=1.0, elastic=4.0, warp=0.7, blur=0.5, noise=0.5)
    store = Store([lambda: (image, labels)] * 3, limit=10**9)
    crops = Crops(store, ((0, 1, 2),) * 3, Normalisation((90.0,) * 3, (60.0,) * 3), 96, wild, 0.5, seed=7)
    for step, (there, here) in enumerate(zip(crops.batches(4, 0, workers=3, device="cuda"), crops.batches(4, 0))):
        assert there[0].device.type == there[1].device.type == "cuda"
        off = (there[1].cpu() != here[1]).float().mean()  # a pixel on the edge between two may fall to either side
        assert off < 1e-3
        torch.testing.assert_close(there[0].cpu(), here[0], rtol=1e-3, atol=1e-2)
        if step == 10:
            break


def test_crops_are_recorded_and_those_of_another_kind_made_all_the_same() -> None:
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 3, (200, 220)).astype(np.uint8)
    image = rng.integers(0, 255, (200, 220, 3)).astype(np.uint8)
    floats = image.astype(np.float32)
    varied = Augmentation(True, True, True, rotation=90, elastic=2.0, blur=0.5, noise=0.5)
    normalisation = Normalisation((90.0,) * 3, (60.0,) * 3)

    def drawn(kind: np.ndarray, first: int, count: int) -> list[Drawn]:
        crops = Crops(Store([lambda: (kind, labels)], 10**9), ((0, 1, 2),), normalisation, 64, varied, 0.5, seed=3)
        return [crops.draw(number) for number in range(first, first + count)]

    there, here = (Together(normalisation, varied, 64, device) for device in ("cuda", "cpu"))
    for kind, first, count in [(image, 0, 4), (image, 4, 4), (floats, 8, 4), (image, 12, 3), (image, 16, 4)]:
        batch = drawn(kind, first, count)
        found, expected = there(batch), here(batch)
        torch.testing.assert_close(found[0].cpu(), expected[0], rtol=1e-3, atol=1e-2)
        assert (found[1].cpu() != expected[1]).float().mean() < 1e-3
    assert there._recorded is not None


def steps(
    recorded: bool, accumulate: int = 1, network: nn.Module | None = None
) -> tuple[dict[str, Tensor], list[float]]:
    """Weights after six steps, and the losses on the way."""
    torch.manual_seed(0)
    learner = (network or UNet(3, 3, width=8, depth=2)).train().to("cuda", memory_format=torch.channels_last)
    optimizer, machine = make_optimizer(learner, TrainingPlan(epochs=1)), probe_machine("cuda", "float32")
    recorder = Recorder(learner, "cuda") if recorded else None
    losses = []
    for number in range(6):
        generator = torch.Generator().manual_seed(number)
        images = torch.randn(4, 3, 64, 64, generator=generator).cuda()
        target = (images[:, 0] > 0).to(torch.uint8)
        target[:, :5] = 255
        torch.manual_seed(number)
        result = train_step(
            learner, optimizer, images, target, machine=machine, accumulate=accumulate, recorder=recorder
        )
        losses.append(result.loss)
    return {name: value.cpu() for name, value in learner.state_dict().items()}, losses


@pytest.mark.parametrize("accumulate", [1, 2])
def test_a_recorded_step_is_the_same_step(accumulate: int) -> None:
    (usual, losses), (found, played) = steps(False, accumulate), steps(True, accumulate)
    assert played == pytest.approx(losses, rel=1e-3)
    assert played[-1] < played[0]
    for name, value in usual.items():
        torch.testing.assert_close(
            found[name], value, rtol=1e-2, atol=1e-3, msg=lambda said, name=name: f"{name} {said}"
        )


def test_what_a_network_leaves_to_chance_on_the_gpu_differs_from_step_to_step() -> None:
    def network() -> nn.Module:
        torch.manual_seed(0)
        return nn.Sequential(UNet(3, 3, width=8, depth=2), nn.Dropout(0.5))

    usual, found = steps(False, network=network())[1], steps(True, network=network())[1]
    assert found == pytest.approx(usual, rel=1e-3)


class ByChance(nn.Module):
    """Leaves its second part out now and then, as Python decides."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(3, 3, 3, padding=1), nn.Conv2d(3, 3, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.first(x)
        return y + self.second(x) if torch.rand(()) < 0.5 else y + 0 * self.second(x)


@pytest.mark.parametrize("network", [Waits, ByChance])
def test_what_no_recording_can_hold_is_refused_and_then_learns_without(network: type[nn.Module]) -> None:
    torch.manual_seed(0)
    with pytest.raises(RuntimeError):
        steps(True, network=network())
    steps(False, network=network())  # which leaves the GPU as it was
    steps(True)


def test_a_recording_that_is_refused_leaves_the_statistics_of_norms() -> None:
    torch.manual_seed(0)
    network = nn.Sequential(nn.BatchNorm2d(3), Waits(), nn.BatchNorm2d(3)).train().cuda()
    before = {name: value.clone() for name, value in network.named_buffers()}

    def compute(images: Tensor, _: Tensor) -> Tensor:
        loss: Tensor = network(images).square().mean()
        loss.backward()
        return loss.detach()

    with pytest.raises(RuntimeError):
        Recorder(network, "cuda")(compute, torch.randn(4, 3, 256, 256).cuda(), torch.zeros(1).cuda())
    torch.cuda.synchronize()
    assert all(torch.equal(before[name], value) for name, value in network.named_buffers())
    assert all(parameter.grad is None for parameter in network.parameters())


def test_a_given_network_that_no_recording_can_hold_learns(discs: Path, tmp_path: Path) -> None:
    torch.manual_seed(0)
    network = nn.Sequential(Waits(), nn.Conv2d(3, 2, 1))
    plan = on_gpu(verbs.plan(discs, epochs=1.0, device="cpu", module=network), batch=2)
    told = Told()
    record = train(plan, open_sets(find(discs), plan), tmp_path / "run", module=network, view=told)
    assert record.steps > 1
    assert any("going on without CUDA graphs" in line for line in told.said)


def on_gpu(plan: Plan, **training: Any) -> Plan:
    return replace(plan, training=replace(plan.training, **{"device": "cuda", "precision": "auto", **training}))


def weights(run: Path) -> dict[str, Tensor]:
    return dict(load_model(run / "last.safetensors").network.state_dict())


def assert_alike(one: Path, other: Path) -> None:
    for (name, mine), theirs in zip(weights(one).items(), weights(other).values()):
        assert torch.equal(mine, theirs), name


def test_a_network_learns(discs: Path, disc_plan: Plan, tmp_path: Path) -> None:
    verbs.train(discs, tmp_path / "run", plan=on_gpu(disc_plan, epochs=10.0))
    trained = load_model(tmp_path / "run")
    assert trained.training["mean_iou"] > 0.8
    assert "cores" in trained.training["machine"]


@pytest.mark.parametrize("precision", ["float32", "auto"])
def test_a_seed_gives_the_same_weights(precision: str, discs: Path, disc_plan: Plan, tmp_path: Path) -> None:
    for name in ("one", "other"):
        verbs.train(discs, tmp_path / name, plan=on_gpu(disc_plan, precision=precision))
    assert_alike(tmp_path / "one", tmp_path / "other")


def test_a_killed_run_goes_on_to_the_same_weights(discs: Path, disc_plan: Plan, tmp_path: Path) -> None:
    plan = on_gpu(disc_plan)
    write_plan(plan, tmp_path / "plan.toml")
    for name, *rest in (("whole",), ("killed", "--kill", "15", "0"), ("killed", "--resume")):
        command = [sys.executable, RUNNING, discs, tmp_path / "plan.toml", tmp_path / name, *rest]
        subprocess.run(command, check="--kill" not in rest, capture_output=True)
    assert_alike(tmp_path / "whole", tmp_path / "killed")


@pytest.mark.parametrize("encoder", ["efficientnet-lite0"])
def test_a_pretrained_network_gives_the_same_weights(encoder: str, discs: Path, tmp_path: Path) -> None:
    plan = on_gpu(verbs.plan(discs, epochs=2.0, device="cpu", encoder=encoder))
    for name in ("one", "other"):
        verbs.train(discs, tmp_path / name, plan=plan)
    assert_alike(tmp_path / "one", tmp_path / "other")


def test_where_memory_runs_out_the_batch_is_halved(discs: Path, disc_plan: Plan, tmp_path: Path) -> None:
    plan = on_gpu(disc_plan, batch=32, crop=256, epochs=200.0)
    plan = replace(plan, network=replace(plan.network, width=32))
    torch.cuda.empty_cache()
    torch.cuda.set_per_process_memory_fraction(3 * 2**29 / torch.cuda.get_device_properties(0).total_memory)
    told = Told()
    try:
        train(plan, open_sets(find(discs), plan), tmp_path / "run", view=told)
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
    assert any("memory ran out; going on with" in line for line in told.said), told.said


@pytest.mark.slow
def test_a_compiled_network_learns_as_the_plain_one(discs: Path, disc_plan: Plan, tmp_path: Path) -> None:
    plans = {name: on_gpu(disc_plan, precision="float32", compiled=name) for name in ("yes", "no")}
    said = {name: Told() for name in plans}
    for name, plan in plans.items():
        train(plan, open_sets(find(discs), plan), tmp_path / name, view=said[name])
    assert not any("without compiling" in line for line in said["yes"].said), said["yes"].said
    for mine, theirs in zip(weights(tmp_path / "yes").values(), weights(tmp_path / "no").values()):
        torch.testing.assert_close(mine, theirs, rtol=0.1, atol=0.05)


# --- explaining ---


def numbers(value: Any, path: str = "") -> Iterator[tuple[str, float]]:
    """All numbers of a JSON value."""
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from numbers(inner, f"{path}.{key}")
    elif isinstance(value, list):
        for index, inner in enumerate(value):
            yield from numbers(inner, f"{path}[{index}]")
    elif isinstance(value, float):
        yield path, value


def test_explaining_measures_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    model, data = learnt(fresh(), toys(24)), as_set(toys(6, start=1000))
    found = explain(model, data).to_json()
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    expected = explain(model, data).to_json()
    mine, theirs = dict(numbers(found["levels"])), dict(numbers(expected["levels"]))
    assert mine.keys() == theirs.keys()
    far = {path: (value, theirs[path]) for path, value in mine.items() if abs(value - theirs[path]) > 0.05}
    assert len(far) < 0.05 * len(mine), far


def test_explain_writes_its_page(disc_run: Path, discs: Path, tmp_path: Path, run_cli: Cli) -> None:
    done = run_cli("explain", disc_run, discs, "-o", tmp_path / "page", "--images", "2", "-q")
    assert done.code == 0, done.err
    assert list((tmp_path / "page").glob("*.html"))


def test_evaluate_judges(disc_run: Path, discs: Path, run_cli: Cli) -> None:
    done = run_cli("evaluate", disc_run, discs)
    assert done.code == 0, done.err
