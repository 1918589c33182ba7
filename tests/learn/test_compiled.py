"""A network that is compiled learns what it learns as it is; and where compiling fails, the run goes on without."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any, ClassVar

import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from whatwhere import verbs
from whatwhere.chosen import open_sets
from whatwhere.data import find
from whatwhere.learn import compiled as compiling
from whatwhere.learn.compiled import compiled, uncompiled
from whatwhere.learn.given import network_of
from whatwhere.learn.plan import Plan, TrainingPlan
from whatwhere.learn.train import train
from whatwhere.learn.view import SilentView
from whatwhere.network import probe_machine


class Told(SilentView):
    def __init__(self) -> None:
        self.said: list[str] = []

    def say(self, text: str) -> None:
        self.said.append(text)


def plan_of(discs: Path, **edits: Any) -> Plan:
    plan = verbs.plan(discs, epochs=1)
    network = replace(plan.network, width=4, depth=2, skips=(0, 1))
    training = replace(plan.training, crop=32, batch=4, precision="float32", device="cpu", **edits)
    return replace(plan, network=network, training=training)


def weights_after(plan: Plan, discs: Path, out: Path, view: SilentView | None = None) -> dict[str, torch.Tensor]:
    train(plan, open_sets(find(discs), plan), out, view=view)
    return load_file(out / "last.safetensors")


def distance(one: Mapping[str, torch.Tensor], other: Mapping[str, torch.Tensor]) -> float:
    """Between all weights of convolutions."""
    return sum(float((one[name] - other[name]).square().sum()) for name in other if other[name].ndim == 4) ** 0.5


def fails(*_: Any) -> Callable[..., Any]:
    raise FileNotFoundError("no compiler anywhere")


@pytest.mark.parametrize(
    ("device", "asked", "time", "steps", "known", "expected"),
    [
        ("cuda", "auto", "1h", 1, True, True),
        ("cuda", "auto", "2m", 10**6, True, False),
        ("cuda", "auto", "", 10**6, True, True),
        ("cuda", "auto", "", 100, True, False),
        ("cuda", "auto", "1h", 1, False, False),
        ("cuda", "no", "1h", 1, True, False),
        ("cuda:1", "yes", "2m", 1, False, True),
        ("cpu", "auto", "10h", 1, True, False),
        ("cpu", "yes", "2m", 1, True, True),
    ],
)
def test_it_is_compiled_where_that_pays_or_where_it_is_asked_for(
    monkeypatch: pytest.MonkeyPatch, device: str, asked: Any, time: str, steps: int, known: bool, expected: bool
) -> None:
    monkeypatch.setattr(compiling, "find_spec", lambda _name: "there")
    network = nn.Conv2d(1, 1, 1)
    plan = TrainingPlan(time=time, epochs=0 if time else 1, compiled=asked)
    found = compiled(network, plan, replace(probe_machine("cpu"), device=device), steps, known=known)
    assert (uncompiled(found) is network) == expected
    assert expected or found is network


@pytest.mark.slow
def test_where_compiling_fails_the_run_goes_on_without(
    monkeypatch: pytest.MonkeyPatch, discs: Path, tmp_path: Path
) -> None:
    usual = weights_after(plan_of(discs, compiled="no"), discs, tmp_path / "usual")
    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend=fails))
    told = Told()
    found = weights_after(plan_of(discs, compiled="yes"), discs, tmp_path / "run", told)
    said = [line for line in told.said if "without compiling" in line]
    assert len(said) == 1
    assert "no compiler anywhere" in said[0]
    assert found.keys() == usual.keys()
    assert all(torch.equal(found[name], usual[name]) for name in usual)


@pytest.mark.slow
def test_the_time_of_compiling_is_none_of_the_learning_rate_s(
    monkeypatch: pytest.MonkeyPatch, discs: Path, tmp_path: Path
) -> None:
    """It rises over minutes; the second step would stand at a third of its height."""
    now = [0.0]

    class Slow(nn.Module):
        """Compiled for 60 seconds at its first call; a second for every other."""

        def __init__(self, network: nn.Module, **_: Any) -> None:
            super().__init__()
            self._orig_mod, self.seconds = network, 60.0

        def forward(self, image: torch.Tensor) -> torch.Tensor:
            now[0], self.seconds = now[0] + self.seconds, 1.0
            logits: torch.Tensor = self._orig_mod(image)
            return logits

    class Watching(SilentView):
        rates: ClassVar[list[float]] = []

        def stepped(self, progress: float, entry: dict[str, Any]) -> None:  # noqa: ARG002
            self.rates.append(entry["learning_rate"])

    monkeypatch.setattr(torch, "compile", Slow)
    monkeypatch.setattr("whatwhere.learn.train.time", SimpleNamespace(perf_counter=lambda: now[0]))
    plan = plan_of(discs, compiled="yes")
    plan = replace(plan, training=replace(plan.training, epochs=0, time="100s", warmup=0.9))
    train(plan, open_sets(find(discs), plan), tmp_path / "run", view=Watching(), started=0.0)
    expected = plan.training.learning_rate * (0.05 + 0.95 * torch.tensor([0, 0, 1]) / (0.9 * 40))
    assert Watching.rates[:3] == pytest.approx(expected.tolist(), rel=0.05)
    assert len(Watching.rates) == pytest.approx(40, abs=4)


@pytest.mark.slow  # the compiler itself takes half a minute
def test_a_compiled_network_learns_the_same(discs: Path, tmp_path: Path) -> None:
    told = Told()
    usual = weights_after(plan_of(discs, compiled="no"), discs, tmp_path / "usual")
    found = weights_after(plan_of(discs, compiled="yes"), discs, tmp_path / "run", told)
    assert not any("without compiling" in line for line in told.said)
    plan = plan_of(discs)
    torch.manual_seed(plan.seed)
    begun = network_of(plan, None, probe_machine("cpu")).state_dict()
    assert found.keys() == usual.keys()
    assert distance(found, usual) < 0.1 * distance(begun, usual), "of the way that it has learnt"
