"""Where a step can't be recorded the run goes on without, to the same weights. Recordings themselves: test_gpu.py."""

from __future__ import annotations

from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from whatwhere.chosen import open_sets
from whatwhere.data import find
from whatwhere.learn import recorded
from whatwhere.learn import train as training
from whatwhere.learn.plan import Plan
from whatwhere.learn.recorded import Recorder, recorder_for
from whatwhere.learn.train import train
from whatwhere.learn.view import SilentView
from whatwhere.network import Machine, probe_machine


class Told(SilentView):
    def __init__(self) -> None:
        self.said: list[str] = []

    def say(self, text: str) -> None:
        self.said.append(text)


def test_a_run_goes_on_without_what_fails(
    disc_plan: Plan, disc_run: Path, discs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Fails:
        def __call__(self, *_: Any) -> Tensor:
            raise RuntimeError("operation not permitted when stream is capturing")

        def make_room(self) -> None:
            raise AssertionError("it was given up at its first call")

    monkeypatch.setattr(training, "recorder_for", lambda *_: Fails())
    told = Told()
    train(disc_plan, open_sets(find(discs), disc_plan), tmp_path / "run", view=told)
    said = [line for line in told.said if "CUDA graphs" in line]
    assert said == ["going on without CUDA graphs: RuntimeError: operation not permitted when stream is capturing"]
    found, usual = (load_file(run / "last.safetensors") for run in (tmp_path / "run", disc_run))
    assert all(torch.equal(found[name], usual[name]) for name in usual)


@pytest.mark.parametrize(
    ("device", "processes", "expected"), [("cuda", 1, True), ("cuda:1", 1, True), ("cuda", 2, False), ("cpu", 1, False)]
)
def test_it_is_for_a_gpu_that_is_not_shared(device: str, processes: int, expected: bool) -> None:
    cpu = probe_machine("cpu")
    machine = Machine(device, cpu.name, cpu.cores, cpu.memory, cpu.dtype, cpu.reason)
    assert (recorder_for(nn.Conv2d(1, 1, 1), machine, processes) is not None) == expected


@pytest.mark.parametrize(("free", "kept"), [(30, True), (20, False)])
def test_its_memory_is_given_back_where_little_else_is_free(
    free: int, kept: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda _device: (free, 100))
    emptied: list[int] = []
    monkeypatch.setattr(torch.cuda, "empty_cache", lambda: emptied.append(free))
    network = nn.Conv2d(1, 1, 1)
    recorder = Recorder(network, "cpu")
    recorder.make_room()  # nothing to forget yet
    recorder._graph = graph = object()  # type: ignore[assignment]
    network.weight.grad = torch.zeros_like(network.weight)
    recorder.make_room()
    assert (recorder._graph is graph) == kept
    assert (network.weight.grad is not None) == kept
    assert bool(emptied) != kept


class Plain(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.norm, self.calls = nn.BatchNorm2d(3), 0

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.norm(x)
        return y


class Counts(Plain):
    def forward(self, x: Tensor) -> Tensor:
        self.calls += 1
        return super().forward(x)


class SetsUp(Plain):
    """Once, at its first call."""

    def forward(self, x: Tensor) -> Tensor:
        self.calls = 1
        return super().forward(x)


class DrawsInTorch(Plain):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) * (1 if torch.rand(()) < 0.5 else 2)


class DrawsInNumpy(Plain):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) * float(np.random.random())


class Remembers(Plain):
    def forward(self, x: Tensor) -> Tensor:
        self.last = super().forward(x)
        return self.last


@pytest.mark.parametrize(
    ("kind", "alike"),
    [(Plain, True), (SetsUp, True), (Counts, False), (DrawsInTorch, False), (DrawsInNumpy, False), (Remembers, False)],
)
def test_a_network_whose_calls_differ_is_found_out_and_left_as_it_was(
    kind: type[Plain], alike: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(recorded, "warmed", lambda compute, _stream: [compute() for _ in range(3)])
    monkeypatch.setattr(torch.random, "fork_rng", lambda devices: nullcontext(devices))
    network = kind().train()
    recorder = Recorder(network, "cpu")
    images = torch.randn(2, 3, 8, 8)

    def compute() -> Tensor:
        loss: Tensor = network(images).square().sum()
        loss.backward()
        return loss

    with nullcontext() if alike else pytest.raises(RuntimeError, match="no two are alike"):
        recorder._warm_up(compute, None)
    assert torch.equal(network.norm.running_mean, torch.zeros(3))
    assert network.norm.num_batches_tracked == 0
    assert all(parameter.grad is None for parameter in network.parameters())
