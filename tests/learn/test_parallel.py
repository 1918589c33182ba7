"""Two processes take the step of one: the same weights to rounding when batch norm uses constants."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from whatwhere.errors import PlanError
from whatwhere.learn.parallel import World, crop_threads, joined, processes_here
from whatwhere.learn.plan import Plan, TrainingPlan
from whatwhere.learn.plan_file import write_plan
from whatwhere.network import probe_machine

if not torch.distributed.is_available():
    pytest.skip("this torch has no distributed", allow_module_level=True)

HERE = Path(__file__).parent


def together(*command: object) -> None:
    """Runs two processes by torchrun on a free port."""
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    done = subprocess.run([*launcher, *map(str, command)], check=False, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-3000:]


@pytest.mark.parametrize("parts", [pytest.param(1, marks=pytest.mark.slow), 2])
def test_two_processes_take_the_step_of_one(parts: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(HERE))
    import two_processes

    expected, loss = two_processes.step(parts)
    together(HERE / "two_processes.py", tmp_path / "weights.safetensors", parts)
    found = load_file(tmp_path / "weights.safetensors")
    assert float(found.pop("loss")) == pytest.approx(loss, rel=1e-5)
    before = two_processes.network().state_dict()
    moved = max(float((expected[name].float() - before[name].float()).abs().max()) for name in expected)
    for name, weights in expected.items():
        torch.testing.assert_close(found[name], weights, rtol=1e-4, atol=1e-4 * moved)


@pytest.mark.slow
def test_two_processes_reach_a_like_score(discs: Path, disc_plan: Plan, disc_run: Path, tmp_path: Path) -> None:
    plan = write_plan(disc_plan, tmp_path / "plan.toml")
    together("-m", "whatwhere", "train", discs, "-o", tmp_path / "run", "--plan", plan, "-q")
    one, two = (json.loads((run / "run.json").read_text())["mean_iou"] for run in (disc_run, tmp_path / "run"))
    assert two > 0.8
    assert abs(one - two) < 0.1


@pytest.mark.parametrize(
    ("device", "cores", "processes", "expected"),
    [("cpu", 64, 1, 1), ("cuda", 64, 1, 2), ("cuda:1", 4, 1, 2), ("cuda", 16, 8, 1), ("cuda", 1, 1, 1)],
)
def test_threads_that_make_crops(
    device: str, cores: int, processes: int, expected: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LOCAL_WORLD_SIZE", str(processes))
    assert crop_threads(replace(probe_machine("cpu"), device=device, cores=cores)) == expected


def test_a_batch_that_does_not_divide_is_refused() -> None:
    World(0, 2).check_batch(TrainingPlan(epochs=1, batch=8, accumulate=4))
    with pytest.raises(
        PlanError, match=r"batch = 8 and accumulate = 1 for 3 processes; expected a batch that divides by 3"
    ):
        World(0, 3).check_batch(TrainingPlan(epochs=1, batch=8))


def test_alone_all_agree() -> None:
    assert World().agree(0.5, True) == (0.5, True)
    assert World().leads


def test_of_several_processes_each_has_a_gpu_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    assert World(3, 4).device("cuda") == "cuda" or torch.cuda.is_available(), "without one, its absence is told later"
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 3)
    assert World(3, 4).device("cuda:0") == World(3, 4).device("cuda") == "cuda:3"
    assert World(3, 4).device("cpu") == "cpu"
    assert World().device("cuda:0") == "cuda:0"


def test_more_processes_than_gpus_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setenv("WORLD_SIZE", "3")
    monkeypatch.setenv("LOCAL_RANK", "2")
    with pytest.raises(PlanError, match=r"process 3 of this machine; expected at most 2.*--nproc-per-node 2"), joined():
        pass


def test_processes_of_one_machine_share_its_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "4")
    assert processes_here() == 4
    monkeypatch.delenv("LOCAL_WORLD_SIZE")
    assert processes_here() == 1
