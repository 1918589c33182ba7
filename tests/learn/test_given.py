"""Training a network that the caller gives: its plan, its run, its file, and everything that may not fit."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.fx
from safetensors.torch import load_file
from torch import Tensor, nn

from tiny import Cli, disc_picture
from whatwhere import Segmenter, verbs
from whatwhere.errors import ModelError, PlanError
from whatwhere.learn.plan import NetworkPlan, Plan
from whatwhere.learn.plan_file import read_plan, write_plan
from whatwhere.learn.view import SilentView
from whatwhere.network import UNet, is_of
from whatwhere.paint import predict


class Given(nn.Module):
    """Nothing of whatwhere: instance norm, a way up, and one tensor under two names."""

    def __init__(self, channels: int = 3, classes: int = 2, width: int = 8) -> None:
        super().__init__()
        self.config = {"of": "another library"}
        self.down = nn.Sequential(
            nn.Conv2d(channels, width, 3, padding=1), nn.InstanceNorm2d(width, affine=True), nn.LeakyReLU(),
            nn.MaxPool2d(2), nn.Conv2d(width, width, 3, padding=1), nn.InstanceNorm2d(width, affine=True),
        )  # fmt: skip
        self.up = nn.ConvTranspose2d(width, width, 2, stride=2)
        self.head = nn.Conv2d(width, classes, 1)
        self.also = self.head

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.head(torch.relu(self.up(self.down(x))))
        return logits


class Picky(Given):
    """As many networks are: only sizes that it can halve five times."""

    def forward(self, x: Tensor) -> Tensor:
        if any(side % 32 for side in x.shape[-2:]):
            raise RuntimeError(f"Wrong input shape {tuple(x.shape[-2:])}")
        return super().forward(x)


class Several(Given):
    """Deep supervision: a list in training."""

    def forward(self, x: Tensor) -> Any:
        return [super().forward(x)] if self.training else super().forward(x)


class Stacked(Given):
    """Deep supervision: a stack in training."""

    def forward(self, x: Tensor) -> Tensor:
        return torch.stack([super().forward(x)] * 3, 1) if self.training else super().forward(x)


NAME = f"{Given.__module__}.Given"


def given(kind: type[Given] = Given, **options: int) -> Given:
    torch.manual_seed(0)
    return kind(**options)


@pytest.fixture(scope="module")
def made(discs: Path) -> Plan:
    plan = verbs.plan(discs, epochs=24, device="cpu", module=given())
    return replace(plan, training=replace(plan.training, batch=2))


@pytest.fixture(scope="module")
def run(discs: Path, made: Plan, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("given") / "run"
    verbs.train(discs, out, plan=made, module=given())
    return out


@pytest.fixture(autouse=True)
def listening() -> Iterator[None]:
    """A test run in the background is told to ignore Ctrl-C; one of these presses it."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


# -- the plan ----------------------------------------------------------------------------------------------------------


def test_a_plan_for_it_chooses_nothing_of_a_network(made: Plan, tmp_path: Path) -> None:
    assert made.network == NetworkPlan(module=NAME)
    assert made.training.crop == 32, "a multiple of 32, of images of 40 px"
    assert not any(key.startswith("network.") and key != "network.module" for key in made.reasons)
    said = str(made)
    assert NAME in said
    assert "1,122 weights" in said
    assert "width" not in said
    written = write_plan(made, tmp_path / "plan.toml")
    assert f'module = "{NAME}"' in written.read_text()
    assert "depth" not in written.read_text()
    again = read_plan(written)
    assert replace(again, reasons=made.reasons) == made
    assert f"{NAME}; 24 epochs" in str(again)


def test_a_plan_of_our_own_says_nothing_of_modules(disc_plan: Plan, tmp_path: Path) -> None:
    assert "module" not in write_plan(disc_plan, tmp_path / "plan.toml").read_text()
    assert "module" not in disc_plan.to_json()["network"]


@pytest.mark.parametrize("asked", [{"skips": (0,)}, {"encoder": "plain"}])
def test_what_it_has_of_its_own_is_not_asked_for(discs: Path, asked: dict[str, Any]) -> None:
    with pytest.raises(PlanError, match="module, and skips or an encoder; expected one or the other"):
        verbs.plan(discs, module=given(), **asked)


def test_a_plan_names_a_module_or_describes_a_network() -> None:
    with pytest.raises(PlanError, match=r"module = 'a.B' and width, skips; expected module alone"):
        NetworkPlan(module="a.B", width=8, skips=(0,))


# -- the run -----------------------------------------------------------------------------------------------------------


def test_it_learns_and_is_read_again_with_its_code(run: Path, discs: Path) -> None:
    model = Segmenter.load(run, module=Given())
    assert model.evaluate(discs, split="val").mean_iou > 0.8
    assert model.model.plan["network"] == {"module": NAME}


def test_arrays_train_it_in_place(tmp_path: Path) -> None:
    images, masks = zip(*(disc_picture(seed) for seed in range(6)))
    network = given()
    before = network.head.weight.detach().clone()
    model = Segmenter.fit(images, masks, epochs=2, device="cpu", module=network, out=tmp_path / "run")
    assert not torch.equal(network.head.weight, before)
    assert not network.training
    assert all(parameter.grad is None for parameter in network.parameters())
    empty = Given()
    again = Segmenter.load(tmp_path / "run", module=empty)
    assert not torch.equal(empty.head.weight, network.head.weight), "a copy of it got them: it may be used again"
    for weights in (network.state_dict(), again.model.network.state_dict()):
        assert all(torch.equal(weights[name], tensor) for name, tensor in model.model.network.state_dict().items())
    assert np.array_equal(model.predict(images[0]), again.predict(images[0]))


def test_our_own_networks_learn_on(disc_run: Path, discs: Path, tmp_path: Path) -> None:
    model = Segmenter.fit(
        discs, epochs=1, device="cpu", module=Segmenter.load(disc_run).model.network, out=tmp_path / "run"
    )
    assert model.evaluate(discs, split="val").mean_iou > 0.8
    assert Segmenter.load(tmp_path / "run").evaluate(discs, split="val").mean_iou > 0.8, "needs no module"


class _Derived(UNet):
    def forward(self, *given: Any, **named: Any) -> Any:
        return -super().forward(*given, **named)


def test_a_network_derived_from_ours_is_not_ours(tmp_path: Path) -> None:
    derived = Segmenter.from_module(_Derived(3, 2, width=2, depth=2), 2, ((127.0,) * 3, (60.0,) * 3))
    derived.save(tmp_path / "m.safetensors")
    with pytest.raises(ModelError, match=r"weights of \S*_Derived, which was made elsewhere"):
        Segmenter.load(tmp_path / "m.safetensors")


def _leaky(network: UNet) -> UNet:
    """Ours, with a layer of another kind."""
    network.decoder[0] = nn.Sequential(network.decoder[0], nn.LeakyReLU())
    return network


def test_one_of_ours_with_a_layer_exchanged_is_not_ours_any_more(tmp_path: Path) -> None:
    torch.manual_seed(0)
    altered = Segmenter.from_module(_leaky(UNet(3, 2, width=2, depth=2)), 2, ((127.0,) * 3, (60.0,) * 3))
    altered.save(tmp_path / "m.safetensors")
    with pytest.raises(ModelError, match=r"weights of \S*UNet, which was made elsewhere"):
        Segmenter.load(tmp_path / "m.safetensors")
    again = Segmenter.load(tmp_path / "m.safetensors", module=_leaky(UNet(3, 2, width=2, depth=2)))
    image = torch.randn(1, 3, 16, 16)
    assert torch.equal(again.model.network(image), altered.model.network(image))


def test_one_that_knows_it_all_already_goes_on(run: Path, discs: Path) -> None:
    network = Segmenter.load(run, module=Given()).model.network
    assert Segmenter.fit(discs, epochs=0.5, device="cpu", module=network).evaluate(discs, split="val").mean_iou > 0.8


def test_one_that_takes_few_sizes_trains_and_is_judged_on_all(discs: Path) -> None:
    model = Segmenter.fit(discs, epochs=1, device="cpu", module=given(Picky))
    assert model.predict(disc_picture(0)[0]).shape == (40, 40)


class _Deciding(Given):
    """Looks at its own features, so that no graph shows what it does: it is painted with whole."""

    def forward(self, x: Tensor) -> Tensor:
        logits = super().forward(x)
        return logits / 2 if float(logits.detach().mean()) > 1e6 else logits


def test_one_that_can_t_be_followed_trains_as_it_paints(discs: Path, made: Plan, tmp_path: Path) -> None:
    """Its first validation was an error, when steps had been made."""
    short = replace(made, training=replace(made.training, epochs=1.0), network=NetworkPlan(module="x._Deciding"))
    assert verbs.train(discs, tmp_path / "run", plan=short, module=given(_Deciding)).mean_iou > 0


class _Interrupting(SilentView):
    def stepped(self, progress: float, entry: dict[str, Any]) -> None:  # noqa: ARG002 (as the view has it)
        if entry["step"] == 3:
            signal.raise_signal(signal.SIGINT)


@pytest.mark.slow
def test_an_interrupted_run_goes_on_to_the_same_weights(discs: Path, made: Plan, tmp_path: Path) -> None:
    short = replace(made, training=replace(made.training, epochs=1.0))
    with pytest.raises(KeyboardInterrupt):
        verbs.train(discs, tmp_path / "cut", plan=short, module=given(), view=_Interrupting())
    verbs.train(discs, tmp_path / "cut", plan=short, module=Given(), resume=True)
    verbs.train(discs, tmp_path / "whole", plan=short, module=given())
    cut, whole = (load_file(tmp_path / name / "checkpoint.safetensors") for name in ("cut", "whole"))
    assert cut.keys() == whole.keys()
    assert all(torch.equal(cut[name], whole[name]) for name in whole if name.startswith(("network", "average")))


# -- what does not fit -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("network", "words"),
    [
        (Given(classes=3), r"gives a tensor \(32, 3, 32, 32\) in training mode; expected a tensor \(32, 2, 32, 32\)"),
        (Given(channels=1), r"fails on crops \(32, 3, 32, 32\), channels last.*make it for 3 channels and 2 classes"),
        (Several(), r"gives a list in training mode.*return the logits alone, .*with deep supervision off"),
        (Stacked(), r"gives a tensor \(32, 3, 2, 32, 32\) in training mode.*return the logits alone"),
    ],
)
def test_a_network_that_gives_something_else(network: Given, words: str, discs: Path, tmp_path: Path) -> None:
    plan = verbs.plan(discs, epochs=1, device="cpu", module=network)
    with pytest.raises(PlanError, match=words):
        verbs.train(discs, tmp_path / "run", plan=plan, module=network)


@pytest.mark.parametrize(
    ("network", "words"),
    [
        (Given, "module is the class Given; expected a torch module"),
        ("unet", "module is a str; expected a torch module"),
        (nn.Identity(), "Identity has no weights that learn"),
        (given().requires_grad_(False), "Given has no weights that learn; expected some"),
        (given().half(), "has weights of torch.float16; expected float32"),
        (nn.LazyConv2d(2, 1), "has lazy layers"),
    ],
)
def test_what_can_t_learn(network: Any, words: str, discs: Path) -> None:
    with pytest.raises(PlanError, match=words):
        verbs.plan(discs, module=network)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize("part", [False, True])
def test_torchscript_is_not_trained(part: bool, discs: Path) -> None:
    """Copies of its weights are computed ones, which can't learn."""
    scripted = torch.jit.script(nn.Sequential(nn.Conv2d(3, 2, 1)))
    if part:
        scripted = nn.Sequential(scripted, nn.Conv2d(2, 2, 1))
    with pytest.raises(PlanError, match=r"Sequential is TorchScript; expected a module of Python's"):
        verbs.plan(discs, epochs=1, module=scripted)


class _Dropping(Given):
    def forward(self, x: Tensor) -> Tensor:
        return nn.functional.dropout(super().forward(x), 0.3, self.training)


@pytest.mark.slow
def test_a_network_with_dropout_goes_on_to_the_same_weights(discs: Path, made: Plan, tmp_path: Path) -> None:
    short = replace(made, training=replace(made.training, epochs=1.0), network=NetworkPlan(module="x._Dropping"))
    with pytest.raises(KeyboardInterrupt):
        verbs.train(discs, tmp_path / "cut", plan=short, module=given(_Dropping), view=_Interrupting())
    verbs.train(discs, tmp_path / "cut", plan=short, module=_Dropping(), resume=True)
    verbs.train(discs, tmp_path / "whole", plan=short, module=given(_Dropping))
    cut, whole = (load_file(tmp_path / name / "checkpoint.safetensors") for name in ("cut", "whole"))
    assert all(torch.equal(cut[name], whole[name]) for name in whole if name.startswith(("network", "average")))


def test_two_models_of_one_module_are_two(discs: Path, made: Plan, run: Path, tmp_path: Path) -> None:
    short = replace(made, training=replace(made.training, epochs=0.5))
    network = given()
    verbs.train(discs, tmp_path / "other", plan=short, module=network)
    one, other = Segmenter.load(run, network), Segmenter.load(tmp_path / "other", network)
    assert verbs.compare(one, other, discs, split="val")["mean_iou"].difference != 0


def test_it_is_explained(run: Path, discs: Path, tmp_path: Path) -> None:
    Segmenter.load(run, Given()).explain(discs, out=tmp_path / "report", split="val")
    assert "Given, 0.00 million parameters" in (tmp_path / "report/index.html").read_text()


def test_no_cluster_paints_with_it(run: Path, discs: Path, tmp_path: Path) -> None:
    model = Segmenter.load(run, Given())
    with pytest.raises(ModelError, match="on a cluster; expected a network of whatwhere"):
        predict(model, discs / "val/images", tmp_path / "out", cluster="local:1")


def test_a_plan_for_another_network(discs: Path, made: Plan, disc_plan: Plan, tmp_path: Path) -> None:
    for plan, network, words in [
        (made, None, r"a plan for \S*test_given\.Given, and no module.*train\(\.\.\., module=\.\.\.\)"),
        (made, given(Picky), r"a plan for \S*test_given\.Given, and \S*test_given\.Picky"),
        (
            disc_plan,
            given(),
            r"a plan for a network of whatwhere, and \S*test_given\.Given.*plan\(\.\.\., module",
        ),
    ]:
        with pytest.raises(PlanError, match=words):
            verbs.train(discs, tmp_path / "run", plan=plan, module=network)
    assert not (tmp_path / "run" / "plan.toml").exists()


def test_its_file_without_its_code(run: Path, run_cli: Cli, discs: Path) -> None:
    done = run_cli("predict", run, discs / "val" / "images", "-o", "out")
    assert done.code == 2
    assert f"holds the weights of {NAME}, which was made elsewhere" in done.err
    assert "Segmenter.load(path, module=...)" in done.err
    resumed = run_cli("train", discs, "-o", run, "--resume", "-q")
    assert resumed.code == 2
    assert "no module" in resumed.err


def test_its_file_with_other_code(run: Path, disc_run: Path) -> None:
    with pytest.raises(ModelError, match=r"other weights of \S*test_given\.Given than the one given has"):
        Segmenter.load(run, module=Given(width=4))
    with pytest.raises(ModelError, match=r"weights of \S*test_given\.Given, not of \S*test_given\.Picky"):
        Segmenter.load(run, module=Picky())
    with pytest.raises(ModelError, match=r"weights of a network of whatwhere, not of \S*test_given\.Given"):
        Segmenter.load(disc_run, module=Given())


def test_one_that_was_only_wrapped_is_saved_too(tmp_path: Path) -> None:
    wrapped = Segmenter.from_module(given(), 2, ((127.0,) * 3, (60.0,) * 3))
    wrapped.save(tmp_path / "m.safetensors")
    image = disc_picture(0)[0]
    assert np.array_equal(Segmenter.load(tmp_path / "m.safetensors", Given()).predict(image), wrapped.predict(image))


class _Stateful(Given):
    def get_extra_state(self) -> str:
        return "not a tensor"

    def set_extra_state(self, state: Any) -> None:
        pass


class _Masked(Given):
    """Keeps a mask of infinities, as attention does."""

    def __init__(self) -> None:
        super().__init__()
        mask = torch.full((4, 4), float("-inf")).triu(1)
        self.register_buffer("mask", mask)
        self.also_mask = nn.Parameter(mask.clone(), requires_grad=False)

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) + 0 * (self.mask + self.also_mask).exp().sum()


def test_a_mask_of_infinities_has_no_mean_and_stays(discs: Path, made: Plan, tmp_path: Path) -> None:
    short = replace(made, training=replace(made.training, epochs=1.0), network=NetworkPlan(module="x._Masked"))
    network = _Masked()
    record = verbs.train(discs, tmp_path / "run", plan=short, module=network)
    assert record.mean_iou > 0
    assert torch.equal(network.mask, torch.full((4, 4), float("-inf")).triu(1))


class _Gridded(Given):
    """Keeps a grid of the size of its last image, which no file holds."""

    def forward(self, x: Tensor) -> Tensor:
        if not hasattr(self, "grid") or self.grid.shape != x.shape[-2:]:
            grid = torch.linspace(0, 1, x.shape[-2])[:, None].repeat(1, x.shape[-1])
            self.register_buffer("grid", grid, persistent=False)
        return super().forward(x) + 0.01 * self.grid


def test_what_is_kept_of_an_image_s_size_is_each_network_s_own(discs: Path, made: Plan, tmp_path: Path) -> None:
    """The network that learns sees crops, and the mean of its weights whole images."""
    short = replace(made, training=replace(made.training, epochs=1.0), network=NetworkPlan(module="x._Gridded"))
    assert verbs.train(discs, tmp_path / "run", plan=short, module=given(_Gridded)).steps > 2


def test_one_that_can_t_be_copied_says_so(discs: Path, made: Plan, tmp_path: Path) -> None:
    network = given()
    network.kept = network(torch.randn(1, 3, 8, 8))
    with pytest.raises(PlanError, match=r"Given can't be copied .*parametrizations"):
        verbs.train(discs, tmp_path / "run", plan=made, module=network)


def test_what_torch_fx_has_traced_is_the_network_that_it_was(discs: Path, tmp_path: Path) -> None:
    """The class that it makes has two names."""

    def traced() -> nn.Module:
        return torch.fx.symbolic_trace(nn.Sequential(nn.Conv2d(3, 2, 3, padding=1)))

    model = Segmenter.from_module(traced(), 2, ([120.0] * 3, [60.0] * 3))
    again = Segmenter.load(model.save(tmp_path / "model.safetensors"), traced())
    image = disc_picture(0)[0]
    np.testing.assert_array_equal(again.predict(image), model.predict(image))
    assert is_of(traced(), verbs.plan(discs, epochs=1, module=traced()).network.module)


def test_state_that_no_file_can_hold(tmp_path: Path) -> None:
    wrapped = Segmenter.from_module(given(_Stateful), 2, ((127.0,) * 3, (60.0,) * 3))
    with pytest.raises(ModelError, match=r"keeps _extra_state, which is no tensor"):
        wrapped.save(tmp_path / "m.safetensors")


class _Large(Given):
    """Takes two crops at a time."""

    def forward(self, x: Tensor) -> Tensor:
        if len(x) > 2:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return super().forward(x)


def test_memory_that_runs_out_in_its_check_is_a_matter_of_training(discs: Path, tmp_path: Path) -> None:
    network = given(_Large)
    plan = verbs.plan(discs, epochs=0.3, device="cpu", module=network)
    assert plan.training.batch > 2
    said: list[str] = []

    class Listening(SilentView):
        def say(self, text: str) -> None:
            said.append(text)

    verbs.train(discs, tmp_path / "run", plan=plan, module=network, view=Listening())
    assert any("memory ran out; going on with" in line and "of 2 crops" in line for line in said)
