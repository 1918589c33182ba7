"""A run: what it leaves behind, its guards, and that it can be stopped anywhere and go on as if it had not been."""

from __future__ import annotations

import errno
import gc
import itertools
import json
import math
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
import weakref
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import nn

from crash import deaths
from whatwhere import verbs
from whatwhere.chosen import open_sets
from whatwhere.data import find
from whatwhere.data.crops import Crops
from whatwhere.data.sets import ImageSet, from_arrays
from whatwhere.errors import DataError, ModelError, OutputError, PlanError, TrainingError
from whatwhere.judge import Judge
from whatwhere.learn import keep, pilot
from whatwhere.learn import train as training
from whatwhere.learn.interrupt import patient
from whatwhere.learn.parallel import World
from whatwhere.learn.pilot import Pilot, fly_pilot
from whatwhere.learn.plan import Plan
from whatwhere.learn.plan_file import read_plan, write_plan
from whatwhere.learn.run_folder import RunFolder, RunRecord
from whatwhere.learn.state import Counters, State
from whatwhere.learn.step import StepResult, rate_at, train_step
from whatwhere.learn.train import train
from whatwhere.learn.validate import collapsed, showing, spread, standing
from whatwhere.learn.view import SilentView
from whatwhere.network import build, load_model, pretrained_parameters, probe_machine
from whatwhere.records import VOID, Classes

RUNNING = Path(__file__).with_name("running.py")


class Told(SilentView):
    """Remembers what was said, and can press Ctrl-C."""

    def __init__(self, interrupt_at: int = -1) -> None:
        self.said: list[str] = []
        self.steps: list[int] = []
        self.rates: list[float] = []
        self.validations: list[dict[str, Any]] = []
        self.closed = False
        self._interrupt_at = interrupt_at

    def say(self, text: str) -> None:
        self.said.append(text)

    def stepped(self, progress: float, entry: dict[str, Any]) -> None:
        assert 0 < progress <= 1
        self.steps.append(entry["step"])
        self.rates.append(entry["learning_rate"])
        if entry["step"] == self._interrupt_at:
            signal.raise_signal(signal.SIGINT)

    def validated(self, progress: float, entry: dict[str, Any]) -> None:  # noqa: ARG002 (as the view has it)
        self.validations.append(entry)

    def close(self) -> None:
        self.closed = True


@pytest.fixture(scope="module")
def sets(discs: Path, disc_plan: Plan) -> Mapping[str, ImageSet]:
    return open_sets(find(discs), disc_plan)


@pytest.fixture(autouse=True)
def listening() -> Iterator[None]:
    """A test run in the background is told to ignore Ctrl-C; these tests press it."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@dataclass
class Seldom(State):
    """Judged once before the end: each time all is made ready to paint, which takes longer than the steps between."""

    counters: Counters = field(default_factory=lambda: Counters(validations=2))


@pytest.fixture(autouse=True)
def quick(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither changes what is learnt: `uninterrupted` is judged as usual, and flies a pilot, as those killed do."""
    monkeypatch.setattr(training, "State", Seldom)
    if "pilot" not in request.node.name:  # it takes more steps than most runs here
        monkeypatch.setattr(training, "fly_pilot", lambda *_: Pilot(1.0, 0.0, 1, 0.0))


def weights(run: Path) -> dict[str, torch.Tensor]:
    return load_file(run / "checkpoint.safetensors")


def short(plan: Plan) -> Plan:
    """Of four steps."""
    return replace(plan, training=replace(plan.training, epochs=0.5))


def same(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


# -- what a run leaves -------------------------------------------------------------------------------------------------


def test_a_run_learns(disc_run: Path) -> None:
    record = RunRecord.read(RunFolder(disc_run))
    assert record.mean_iou > 0.8, "discs that are brighter than their ground"
    assert record.steps == 40
    assert load_model(disc_run).training["mean_iou"] == record.mean_iou


def test_the_history_tells_every_hundredth_and_every_validation(disc_run: Path) -> None:
    entries = [json.loads(line) for line in (disc_run / "history.jsonl").read_text().splitlines()]
    steps = [entry for entry in entries if "loss" in entry]
    assert [entry["step"] for entry in steps] == list(range(1, 41))
    assert steps[0]["loss"] == pytest.approx(steps[0]["cross_entropy"] + steps[0]["dice"], rel=1e-5)
    assert steps[-1]["loss"] < steps[0]["loss"]
    assert 0 <= steps[-1]["waiting_share"] < 1
    judged = [entry for entry in entries if "iou" in entry]
    assert [entry["step"] for entry in judged] == [4, 8, 12, 16, 20, 24, 28, 32, 36, 40]
    assert all(set(entry["iou"]) == {"background", "foreground"} for entry in judged)


def test_every_validation_leaves_a_picture(disc_run: Path) -> None:
    pictures = sorted((disc_run / "previews").iterdir())
    assert [path.name for path in pictures] == [f"step-{step:06}.png" for step in range(4, 41, 4)]
    picture = np.asarray(Image.open(pictures[-1]))
    assert picture.shape[1] > 3 * 40, "image, truth, prediction and error side by side"
    assert len(np.unique(picture.reshape(-1, picture.shape[-1]), axis=0)) > 20


def test_the_same_plan_and_seed_give_the_same_run(disc_plan: Plan, sets: Any, tmp_path: Path) -> None:
    plan = short(disc_plan)
    for name in ("a", "b"):
        train(plan, sets, tmp_path / name)
    train(replace(plan, seed=1), sets, tmp_path / "c")
    assert same(weights(tmp_path / "a"), weights(tmp_path / "b"))
    assert not same(weights(tmp_path / "a"), weights(tmp_path / "c"))


def clock_of_steps(monkeypatch: pytest.MonkeyPatch, passed: list[float]) -> list[float]:
    """A clock on which a step takes a second, the last validation five, and all else nothing."""
    honest = training.train_step

    def step(*arguments: Any, **options: Any) -> StepResult:
        passed.append(1.0)
        return honest(*arguments, **options)

    monkeypatch.setattr(training, "train_step", step)
    monkeypatch.setattr(training.Schedule, "elapsed", lambda _schedule: sum(passed))
    monkeypatch.setattr(training.Keeper, "fit", lambda *_: 5.0)
    return passed


def test_a_time_budget_is_kept(disc_plan: Plan, sets: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    passed = clock_of_steps(monkeypatch, [])
    told = Told()
    timed = replace(disc_plan, training=replace(disc_plan.training, time="30s", epochs=0.0))
    record = train(timed, sets, tmp_path / "run", view=told)
    assert record.steps == len(told.steps) == len(passed) == 25
    few = "only 25 steps fitted into 30s, which is little to learn in: if the score is low, give it more --time"
    assert any(line.startswith(few) for line in told.said), "whether it has learnt says the score"


def test_reading_the_images_is_no_part_of_the_schedule(
    disc_plan: Plan, sets: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a clock that has run for ten seconds before the first step: there the rate is as low as at any beginning."""
    clock_of_steps(monkeypatch, [10.0])
    told = Told()
    timed = replace(disc_plan, training=replace(disc_plan.training, time="30s", epochs=0.0, warmup=0.3))
    assert train(timed, sets, tmp_path / "run", view=told).steps == 15
    rates = told.rates
    assert rates[0] == pytest.approx(0.05 * timed.training.learning_rate)
    assert max(rates) == timed.training.learning_rate
    assert rates[-1] < 0.1 * max(rates)


def test_preparing_once_more_is_no_part_of_the_schedule(
    disc_plan: Plan, sets: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A run of 15 steps is interrupted after eight and prepares for three seconds: as many steps are left out."""
    passed = clock_of_steps(monkeypatch, [10.0])
    timed = replace(disc_plan, training=replace(disc_plan.training, time="30s", epochs=0.0, warmup=0.3, cooldown=0.6))
    first, again = Told(interrupt_at=8), Told()
    with pytest.raises(KeyboardInterrupt):
        train(timed, sets, tmp_path / "run", view=first)
    passed.append(3.0)
    assert train(timed, sets, tmp_path / "run", resume=True, view=again).steps == 12
    assert again.rates[0] == pytest.approx(rate_at(8 / 15, timed.training))
    assert again.rates[-1] == pytest.approx(rate_at(8 / 15 + 3 / 4 * 7 / 15, timed.training))
    assert sum(passed) == 25


def test_where_painting_is_slow_it_is_seldom_judged(
    disc_plan: Plan, sets: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No more than a tenth of the time goes into all validations in between, and into making weights ready for them."""
    folder = RunFolder(tmp_path / "run")
    folder.open(resume=False)
    for ready, each, budget, often in (
        (0.0, 10.0, 600.0, 1), (0.0, 10.0, 6000.0, 10), (0.0, 10.0, 1500.0, 3), (0.0, 60.0, 600.0, 1),
        (2.0, 0.01, 100.0, 4), (2.0, 0.01, 30.0, 1),
    ):  # fmt: skip
        facts = sets["val"].facts()
        keeper = keep.Keeper(disc_plan, sets["val"], facts, {}, folder, probe_machine("cpu"), lambda _: None)
        monkeypatch.setattr(keeper, "_seconds", lambda _, found=(ready, each / facts[0].pixels): found)
        state = SimpleNamespace(counters=Counters())
        reserve = keeper.fit(state, budget)  # type: ignore[arg-type]
        assert state.counters.validations == often
        judged = min(len(sets["val"]), state.counters.judged)
        assert (often - 1) * (ready + (judged + 1) * each) <= 0.1 * budget
        assert each <= reserve <= 0.5 * budget


def test_a_large_image_takes_longer_to_judge_than_a_small_one(
    disc_plan: Plan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a clock on which a pixel takes 0.1 ms; the few images that the time is measured on are the small ones."""
    sides = [10 if place in spread(13, 4) else 100 for place in range(13)]
    images = from_arrays(
        [np.zeros((side, side, 3), np.uint8) for side in sides], [np.zeros((side, side), np.uint8) for side in sides],
        [str(place) for place in range(13)],
    )  # fmt: skip
    passed = [0.0]

    def painted(indices: list[int]) -> float:
        return sum(1e-4 * sides[index] ** 2 for index in indices)

    monkeypatch.setattr(keep, "time", SimpleNamespace(perf_counter=lambda: sum(passed)))
    monkeypatch.setattr(keep, "validate", lambda _engine, _images, indices: passed.append(painted(indices)))
    monkeypatch.setattr(keep.Keeper, "_model", lambda *_: None)
    monkeypatch.setattr(keep.Keeper, "_engine", lambda *_: None)
    folder, machine = RunFolder(tmp_path), probe_machine("cpu")
    keeper = keep.Keeper(disc_plan, images, images.facts(), {}, folder, machine, lambda _: None)
    state = SimpleNamespace(counters=Counters())
    reserve = keeper.fit(state, 600.0)  # type: ignore[arg-type]
    assert len(keeper._last) == 13
    assert painted(keeper._last) < reserve < 2 * painted(keeper._last)
    assert state.counters.validations * painted(keeper._judged) <= 60
    keeper = keep.Keeper(disc_plan, images, images.facts(), {}, folder, machine, lambda _: None)
    keeper.fit(SimpleNamespace(counters=Counters()), 30.0)  # type: ignore[arg-type]
    assert painted(keeper._last) <= 0.15 * 30


def test_a_time_without_a_step_is_an_error_and_leaves_no_model(disc_plan: Plan, sets: Any, tmp_path: Path) -> None:
    timed = replace(disc_plan, training=replace(disc_plan.training, time="4s", epochs=0.0))
    with pytest.raises(TrainingError, match=r"no step was made in 4s.*took 6\d s.*more --time"):
        train(timed, sets, tmp_path / "run", started=time.perf_counter() - 60)
    assert not list((tmp_path / "run").glob("*.safetensors"))


def test_after_a_time_without_a_step_the_folder_takes_a_longer_one(
    disc_plan: Plan, sets: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where a checkpoint was written: by Ctrl-C before the first step was good."""

    def pressed(*_: Any, **__: Any) -> StepResult:
        signal.raise_signal(signal.SIGINT)
        return StepResult(math.inf, 0.0, 0.0, finite=False)

    timed = replace(disc_plan, training=replace(disc_plan.training, time="60s", epochs=0.0))
    longer = replace(disc_plan, training=replace(disc_plan.training, epochs=0.2))
    with pytest.raises(TrainingError, match="give it more --time"):
        train(timed, sets, tmp_path / "first", started=time.perf_counter() - 600)
    train(longer, sets, tmp_path / "first")
    with monkeypatch.context() as context:
        context.setattr(training, "train_step", pressed)
        with pytest.raises(KeyboardInterrupt):
            train(timed, sets, tmp_path / "second")
    assert (tmp_path / "second" / "checkpoint.safetensors").is_file()
    with pytest.raises(TrainingError, match="give it more --time"):
        train(timed, sets, tmp_path / "second", resume=True, started=time.perf_counter() - 600)
    train(longer, sets, tmp_path / "second")


def test_training_gets_most_of_a_time_whatever_there_is_to_judge(
    disc_plan: Plan, sets: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a clock on which a step takes a second, an image that is judged a tenth of one, and all else nothing."""
    passed, told, fit = [0.0], Told(), keep.Keeper.fit
    honest = keep.validate

    def validate(engine: Any, images: ImageSet, indices: Sequence[int]) -> Any:
        passed.append(0.1 * len(indices))
        return honest(engine, images, indices[:2])

    clock_of_steps(monkeypatch, passed)
    monkeypatch.setattr(training.Keeper, "fit", fit)
    monkeypatch.setattr(keep, "time", SimpleNamespace(perf_counter=lambda: sum(passed)))
    monkeypatch.setattr(keep, "validate", validate)
    timed = replace(disc_plan, training=replace(disc_plan.training, time="60s", epochs=0.0))
    store = sets["val"].store
    pairs = [store[index % len(store)] for index in range(5000)]
    images = from_arrays(*zip(*pairs), [str(index) for index in range(5000)])
    record = train(timed, {"train": sets["train"], "val": images}, tmp_path / "run", view=told)
    judged = [int(found[1]) for line in told.said if (found := re.search(r"will judge (\d+) of 5000 images", line))]
    assert len(judged) == 1
    assert 0.1 * judged[0] <= 0.15 * 60
    assert record.steps > 0.6 * 60
    assert 50 < sum(passed) <= 60


@pytest.mark.slow
def test_an_unpadded_network_trains(disc_plan: Plan, sets: Any, tmp_path: Path) -> None:
    plan = replace(
        disc_plan, network=replace(disc_plan.network, padding="valid"),
        training=replace(disc_plan.training, epochs=0.4),
    )  # fmt: skip
    assert train(plan, sets, tmp_path / "run").steps == 3


def test_a_run_is_not_written_over(disc_run: Path, disc_plan: Plan, sets: Any) -> None:
    with pytest.raises(TrainingError, match=r"already holds a run; expected a new folder; go on with --resume"):
        train(disc_plan, sets, disc_run)


@pytest.mark.parametrize("name", ["model.safetensors", "last.safetensors", "run.json"])
def test_a_model_that_no_run_here_made_is_not_written_over(
    name: str, disc_run: Path, disc_plan: Plan, sets: Any, tmp_path: Path
) -> None:
    kept = Path(shutil.copy(disc_run / name, tmp_path))
    before = kept.read_bytes()
    with pytest.raises(TrainingError, match=rf"already holds .*\({name}\); expected a new folder; name another folder"):
        train(disc_plan, sets, tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == [name]
    assert kept.read_bytes() == before


def test_a_history_is_read_whole_whatever_the_classes_are_called(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    entries = [{"step": step, "iou": {"one\u2028of two\u2029": 0.5}} for step in range(3)]
    for entry in entries:
        folder.record(entry)
    assert folder.past() == entries
    folder.forget_after(1)
    assert folder.past() == entries[:2]


HOLDING = """
import sys
from pathlib import Path
from whatwhere.learn.run_folder import RunFolder
with RunFolder(Path(sys.argv[1])).held(resume=len(sys.argv) > 2):
    print("holds it", flush=True)
    sys.stdin.read()
"""


def holder(run: Path, *resume: str) -> subprocess.Popen[str]:
    """Another process, which has a run folder as one that trains has it."""
    return subprocess.Popen(
        [sys.executable, "-c", HOLDING, run, *resume],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip


def test_one_process_at_a_time_trains_into_a_folder(disc_plan: Plan, sets: Any, tmp_path: Path) -> None:
    plan, run = replace(disc_plan, training=replace(disc_plan.training, epochs=0.25)), tmp_path / "run"
    refused: list[str] = []

    class Meanwhile(Told):
        def stepped(self, progress: float, entry: dict[str, Any]) -> None:
            super().stepped(progress, entry)
            if entry["step"] == 1:
                refused.append(holder(run, "resume").communicate()[1])

    with holder(run) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == "holds it\n"
        with pytest.raises(TrainingError, match=rf"another process is training into {run}; expected one at a time"):
            train(plan, sets, run)
        write_plan(plan, run / "plan.toml")
        with pytest.raises(TrainingError, match="another process is training"):
            train(plan, sets, run, resume=True)
        other.kill()
    train(plan, sets, run, resume=True, view=Meanwhile())
    assert "another process is training" in refused[0]
    assert not (run / ".lock").exists()


@pytest.mark.filterwarnings("ignore:.*multi-threaded:DeprecationWarning")
def test_a_forked_worker_does_not_hold_the_folder_of_its_parent(tmp_path: Path) -> None:
    """Which may be killed: then its file is closed, as here, and the worker's copy of it must not count."""
    told, tell = os.pipe()
    with RunFolder(tmp_path).held(resume=False):
        worker = os.fork()
        if worker == 0:
            os.write(tell, b"x")
            time.sleep(60)
            os._exit(0)
        os.read(told, 1)
    try:
        with RunFolder(tmp_path).held(resume=False):
            pass
    finally:
        os.kill(worker, signal.SIGKILL)
        os.waitpid(worker, 0)


def test_where_files_cannot_be_held_one_trains_all_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def unknown(*_: Any) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr("whatwhere.lock.fcntl.flock", unknown)
    with RunFolder(tmp_path).held(resume=False):
        pass


def test_what_others_write_into_the_folder_or_below_is_left_alone(disc_plan: Plan, sets: Any, tmp_path: Path) -> None:
    own = [".checkpoint.safetensors.77.partial", "previews/.step-000004.png.77.partial"]
    others = [".thesis.tex.77.partial", "fold2/.checkpoint.safetensors.78.partial", "fold2/previews/.a.png.78.partial"]
    for name in (*own, *others):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    train(replace(disc_plan, training=replace(disc_plan.training, epochs=0.2)), sets, tmp_path)
    assert not any((tmp_path / name).exists() for name in own)
    assert all((tmp_path / name).exists() for name in others)


def test_there_is_nothing_to_resume(disc_plan: Plan, sets: Any, tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match=r"holds no run; expected the folder of an interrupted run; leave out"):
        train(disc_plan, sets, tmp_path, resume=True)


def test_a_run_goes_on_by_the_plan_it_was_started_with_alone(discs: Path, disc_run: Path, disc_plan: Plan) -> None:
    """Else it would learn from the images of one plan by the other."""
    assert verbs.train(discs, disc_run, plan=disc_plan, resume=True) == RunRecord.read(RunFolder(disc_run))
    for change, named in (
        ({"split": {**disc_plan.split, "train": disc_plan.split["train"][1:]}}, r"split\.train"),
        ({"classes": replace(disc_plan.classes, void=(7,))}, r"classes\.void = \(\), and \(7,\) is asked for"),
    ):
        with pytest.raises(PlanError, match=rf"the run in .*{named}.*the plan that it was started with"):
            verbs.train(discs, str(disc_run), plan=replace(disc_plan, **change), resume=True)


def test_a_folder_without_a_run_does_not_go_on(discs: Path, disc_plan: Plan, tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match="holds no run"):
        verbs.train(discs, tmp_path, plan=disc_plan, resume=True)


def test_a_finished_run_is_not_trained_again(disc_run: Path, disc_plan: Plan, sets: Any) -> None:
    told = Told()
    before = (disc_run / "model.safetensors").stat().st_mtime_ns
    assert train(disc_plan, sets, disc_run, resume=True, view=told) == RunRecord.read(RunFolder(disc_run))
    assert told.said == ["this run is finished"]
    assert (disc_run / "model.safetensors").stat().st_mtime_ns == before


def test_a_finished_run_that_has_lost_its_model_says_so(
    disc_run: Path, disc_plan: Plan, sets: Any, tmp_path: Path
) -> None:
    out = Path(shutil.copytree(disc_run, tmp_path / "run"))
    (out / "model.safetensors").unlink()
    with pytest.raises(TrainingError, match=r"is finished, and model\.safetensors is not there.*last\.safetensors"):
        train(disc_plan, sets, out, resume=True)


def test_a_checkpoint_of_another_plan_is_refused(disc_run: Path, disc_plan: Plan, sets: Any, tmp_path: Path) -> None:
    write_plan(replace(disc_plan, network=replace(disc_plan.network, width=8)), tmp_path / "plan.toml")
    (tmp_path / "checkpoint.safetensors").write_bytes((disc_run / "checkpoint.safetensors").read_bytes())
    with pytest.raises(TrainingError, match=r"checkpoint\.safetensors is not a checkpoint of this plan.*start anew"):
        train(disc_plan, sets, tmp_path, resume=True)


def test_a_place_that_cannot_be_written(disc_plan: Plan, sets: Any, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match=r"file/run can't be written"):
        train(disc_plan, sets, tmp_path / "file" / "run")


# -- stopped and resumed -----------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def uninterrupted(disc_plan: Plan, sets: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("whole") / "run"
    train(replace(disc_plan, training=replace(disc_plan.training, epochs=2.0)), sets, out)
    return out


@pytest.mark.parametrize("times", [1, pytest.param(2, marks=pytest.mark.slow)])
def test_killed_at_any_moment_a_run_goes_on_to_the_same_weights(
    times: int, discs: Path, uninterrupted: Path, tmp_path: Path
) -> None:
    whole = read_plan(uninterrupted / "plan.toml")
    last = round(whole.training.epochs * 8)
    out, plan_file = tmp_path / "run", write_plan(whole, tmp_path / "plan.toml")
    moment = random.Random(3)
    kills = [(moment.randint(1, 6), moment.uniform(0, 0.1)), (moment.randint(8, last - 2), moment.uniform(0, 0.3))]
    kills = kills[-times:]
    for number, (step, delay) in enumerate(kills):
        resume = ["--resume"] if number else []
        command = [sys.executable, RUNNING, discs, plan_file, out, "--kill", str(step), str(delay), *resume]
        killed = subprocess.run(command, check=False, capture_output=True, text=True)
        assert killed.returncode in (-signal.SIGKILL, 0 if number else -signal.SIGKILL), (kills, killed.stderr)
    done = subprocess.run(
        [sys.executable, RUNNING, discs, plan_file, out, "--resume"], check=False, capture_output=True, text=True
    )
    assert done.returncode == 0, (kills, done.stderr)
    assert same(weights(out), weights(uninterrupted)), f"killed after {kills}"
    assert same(load_file(out / "model.safetensors"), load_file(uninterrupted / "model.safetensors"))
    steps = [entry["step"] for entry in RunFolder(out).past() if "loss" in entry]
    assert steps == sorted(set(steps)), "the history tells no step twice"


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="open files are named by /proc")
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning", "ignore::ResourceWarning")
def test_killed_at_changes_of_the_disk_a_run_goes_on_to_the_same_weights(
    disc_plan: Plan, sets: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(training, "with_board", lambda view, _: view)  # whose thread survives no kill but a real one
    plan = short(disc_plan)
    train(plan, sets, tmp_path / "whole", checkpoint_seconds=0)
    names = {path.name for path in (tmp_path / "whole").iterdir()}
    moments = 0
    for moment, folder in deaths(
        tmp_path / "out", lambda folder: train(plan, sets, folder / "run", checkpoint_seconds=0)
    ):
        moments += 1
        out = folder / "run"
        if RunFolder(out).plan.is_file():
            train(plan, sets, out, resume=True)
        else:  # it had not begun
            train(plan, sets, out)
        assert same(weights(out), weights(tmp_path / "whole")), f"after death {moment}"
        assert same(load_file(out / "model.safetensors"), load_file(tmp_path / "whole/model.safetensors"))
        assert {path.name for path in out.iterdir()} == names, f"after death {moment}"
        steps = [entry["step"] for entry in RunFolder(out).past() if "loss" in entry]
        assert steps == sorted(set(steps)), f"after death {moment} the history tells a step twice"
        shutil.rmtree(folder)
    assert moments > 20


def test_killed_before_its_first_checkpoint_a_run_begins_anew_and_tells_no_step_twice(
    uninterrupted: Path, sets: Any, tmp_path: Path
) -> None:
    plan, out = read_plan(uninterrupted / "plan.toml"), RunFolder(tmp_path / "run")
    out.open(resume=False)
    write_plan(plan, out.plan)
    for step in (1, 2):
        out.record({"step": step, "loss": 9.0})
    with out.history.open("ab") as file:
        file.write(b'{"step": 3, "iou": {"stra\xc3')  # cut off within a letter
    train(plan, sets, out.root, resume=True)
    told = [entry for entry in out.past() if "loss" in entry]
    assert [entry["step"] for entry in told] == sorted({entry["step"] for entry in told})
    assert all(entry["loss"] != 9.0 for entry in told)
    assert same(weights(out.root), weights(uninterrupted))
    out.summary.write_text('{"mean_iou": 0.5')
    with pytest.raises(TrainingError, match=r"run.json can't be read.*its result is there all the same"):
        train(plan, sets, out.root, resume=True)


@pytest.mark.parametrize("damage", ["cut off", "of another program", "of a newer version"])
def test_a_checkpoint_that_is_none(damage: str, sets: Any, uninterrupted: Path, tmp_path: Path) -> None:
    out = Path(shutil.copytree(uninterrupted, tmp_path / "run"))
    file = out / "checkpoint.safetensors"
    if damage == "cut off":
        file.write_bytes(file.read_bytes()[:-1000])
    elif damage == "of another program":
        save_file({"a": torch.zeros(1)}, file)
    else:
        with_counters(file, moon=3)
    words = "is damaged" if damage == "cut off" else "is not a checkpoint of this plan"
    with pytest.raises(TrainingError, match=rf"checkpoint\.safetensors {words}"):
        train(read_plan(out / "plan.toml"), sets, out, resume=True)


def with_counters(checkpoint: Path, **changed: Any) -> None:
    with safe_open(checkpoint, "pt") as opened:
        counters = json.loads(opened.metadata()["counters"]) | changed
    held = {name: tensor.clone() for name, tensor in load_file(checkpoint).items()}  # the file itself is mapped
    save_file(held, checkpoint, metadata={"counters": json.dumps(counters)})


def test_a_best_model_that_was_lost_costs_nothing_else(sets: Any, uninterrupted: Path, tmp_path: Path) -> None:
    """As by a power cut, which leaves an empty file; and nothing after it is as good."""
    with pytest.raises(KeyboardInterrupt):
        train(read_plan(uninterrupted / "plan.toml"), sets, tmp_path / "run", view=Told(interrupt_at=5))
    folder, told = RunFolder(tmp_path / "run"), Told()
    folder.model.write_bytes(b"")
    with_counters(folder.checkpoint, best_score=2.0)
    record = train(read_plan(folder.plan), sets, folder.root, resume=True, view=told)
    assert sum("the best weights so far are lost, and the last ones are kept" in line for line in told.said) == 1
    assert same(load_file(folder.model), load_file(folder.last))
    assert load_model(folder.root).training["mean_iou"] == record.mean_iou


def test_what_a_checkpoint_counts_on_is_on_the_disk_before_it(
    disc_plan: Plan, sets: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing renamed over the model is still to be written; so no power cut leaves an empty one."""
    synced: set[tuple[int, int]] = set()
    honest, found, run = os.fsync, [], RunFolder(tmp_path / "run")

    def fsync(number: int) -> None:
        state = os.fstat(number)
        synced.add((state.st_ino, state.st_size))
        honest(number)

    def save(state: Any, path: Path) -> None:
        models = [file.stat() for file in (run.model, run.last) if file.is_file()]
        found.append([(model.st_ino, model.st_size) in synced for model in models])
        keep_state(state, path)

    keep_state = training.State.save
    monkeypatch.setattr(os, "fsync", fsync)
    monkeypatch.setattr(training.State, "save", save)
    train(short(disc_plan), sets, run.root, checkpoint_seconds=0)
    assert [True] in found, "judged before the end"
    assert found[-1] == [True, True]
    assert all(all(models) for models in found)


def test_a_run_does_not_go_on_with_other_images(sets: Any, uninterrupted: Path, tmp_path: Path) -> None:
    """Of equal names: the pixels tell. Checkpoints of older versions say nothing of them."""
    plan, out = read_plan(uninterrupted / "plan.toml"), tmp_path / "run"
    with pytest.raises(KeyboardInterrupt):
        train(plan, sets, out, view=Told(interrupt_at=1))
    names = sets["train"].names
    changed, *_ = sets["train"].digests()
    pairs = [sets["train"].store[index] for index in range(len(names))]
    images = [255 - raw if name == changed else raw for name, (raw, _) in zip(names, pairs)]
    others = {**sets, "train": from_arrays(images, [labels for _, labels in pairs], names)}
    with pytest.raises(DataError, match=rf"image {changed} has other pixels.*expected the data folder that it was"):
        train(plan, others, out, resume=True)
    with_counters(out / "checkpoint.safetensors", seen={})
    train(plan, others, out, resume=True)
    train(plan, sets, out, resume=True)  # it is finished


@pytest.mark.parametrize("step", [3, 8])
def test_ctrl_c_leaves_a_run_that_goes_on_to_the_same_weights(
    step: int, sets: Any, uninterrupted: Path, tmp_path: Path
) -> None:
    plan, told = read_plan(uninterrupted / "plan.toml"), Told(interrupt_at=step)
    with pytest.raises(KeyboardInterrupt):
        train(plan, sets, tmp_path / "run", view=told)
    assert told.closed
    assert told.said[-1] == f"interrupted at step {step}; go on with --resume"
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    again = Told()
    train(plan, sets, tmp_path / "run", resume=True, view=again)
    assert again.said[0] == f"going on from step {step}"
    assert again.steps[0] == step + 1
    assert same(weights(tmp_path / "run"), weights(uninterrupted))


def test_a_second_ctrl_c_does_not_wait() -> None:
    with patient() as interrupted:
        assert not interrupted()
        signal.raise_signal(signal.SIGINT)
        assert interrupted()
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)


def test_in_a_thread_signals_are_left_alone() -> None:
    found: list[object] = []

    def inside() -> None:
        with patient() as interrupted:
            found.append((interrupted(), signal.getsignal(signal.SIGINT)))

    thread = threading.Thread(target=inside)
    thread.start()
    thread.join()
    assert found == [(False, signal.default_int_handler)]


def test_where_ctrl_c_is_ignored_it_stays_so() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    with patient() as interrupted:
        signal.raise_signal(signal.SIGINT)
        assert not interrupted()


def test_a_last_line_that_was_cut_off_is_dropped(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    for step in range(4):
        folder.record({"step": step, "loss": math.nan})
    with folder.history.open("a") as file:
        file.write('{"step": 4, "lo')
    assert [entry["step"] for entry in folder.past()] == [0, 1, 2, 3]
    folder.forget_after(2)
    assert folder.history.read_text() == "".join(f'{{"step": {step}, "loss": null}}\n' for step in range(3))


# -- guards ------------------------------------------------------------------------------------------------------------


def test_an_overflow_takes_the_weights_back_and_halves_the_rate(
    disc_plan: Plan, sets: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[int] = []

    def sometimes(*given: Any, **options: Any) -> StepResult:
        calls.append(1)
        result = train_step(*given, **options)
        return replace(result, loss=math.nan, finite=False) if len(calls) in (3, 7) else result

    monkeypatch.setattr(training, "train_step", sometimes)
    monkeypatch.setattr(training, "State", State)  # which is judged after each of ten steps
    told = Told()
    plan = replace(disc_plan, training=replace(disc_plan.training, epochs=1.25))
    record = train(plan, sets, tmp_path / "run", view=told)
    overflows = [text for text in told.said if "overflowed" in text]
    assert overflows[0] == "the loss overflowed; back to step 2, learning rate times 0.5"
    assert overflows[1].endswith("learning rate times 0.25")
    assert record.steps == 10
    steps = [entry["step"] for entry in RunFolder(tmp_path / "run").past() if "loss" in entry]
    assert steps == list(range(1, 11)), "steps that were taken back are told once"
    assert record.mean_iou == record.mean_iou


@pytest.mark.parametrize("seconds", [0.0, 1e9])
def test_what_a_run_by_epochs_goes_back_to_does_not_depend_on_the_clock(
    seconds: float, disc_plan: Plan, sets: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[int] = []

    def sometimes(*given: Any, **options: Any) -> StepResult:
        calls.append(1)
        result = train_step(*given, **options)
        return replace(result, loss=math.nan, finite=False) if len(calls) == 8 else result

    monkeypatch.setattr(training, "train_step", sometimes)
    told = Told()
    plan = replace(disc_plan, training=replace(disc_plan.training, epochs=2.5))
    train(plan, sets, tmp_path / "run", view=told, checkpoint_seconds=seconds)
    validated = [entry["step"] for entry in RunFolder(tmp_path / "run").past() if "mean_iou" in entry]
    (said,) = [text for text in told.said if "overflowed" in text]
    back = int(said.split("back to step ")[1].split(",")[0])
    assert back < 7, "the step before it was saved, but not judged"
    assert back == max((step for step in validated if step < 8), default=0)


def test_weights_taken_back_are_those_of_the_step_told(
    sets: Any, uninterrupted: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A resumed run that overflows at once goes back to where it was resumed, not to step 0."""
    plan, told = read_plan(uninterrupted / "plan.toml"), Told(interrupt_at=5)
    with pytest.raises(KeyboardInterrupt):
        train(plan, sets, tmp_path / "run", view=told)
    calls: list[int] = []

    def once(*given: Any, **options: Any) -> StepResult:
        calls.append(1)
        result = train_step(*given, **options)
        return replace(result, finite=False) if len(calls) == 1 else result

    monkeypatch.setattr(training, "train_step", once)
    again = Told()
    train(plan, sets, tmp_path / "run", resume=True, view=again)
    assert "the loss overflowed; back to step 5, learning rate times 0.5" in again.said
    assert again.steps[0] == 6


def test_who_interrupts_the_last_judging_loses_no_step(
    sets: Any, uninterrupted: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan, again = read_plan(uninterrupted / "plan.toml"), Told()

    def interrupted(*_: Any) -> Any:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(training.Keeper, "finish", interrupted)
        with pytest.raises(KeyboardInterrupt):
            train(plan, sets, tmp_path / "run")
    train(plan, sets, tmp_path / "run", resume=True, view=again)
    assert not again.steps
    for name, tensor in load_file(uninterrupted / "last.safetensors").items():
        torch.testing.assert_close(load_file(tmp_path / "run/last.safetensors")[name], tensor, rtol=0, atol=0)


def test_a_run_that_keeps_overflowing_gives_up(
    disc_plan: Plan, sets: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(training, "train_step", lambda *_, **__: StepResult(math.inf, 0.0, 0.0, finite=False))
    with pytest.raises(
        TrainingError, match=r"overflowed 6 times \(last at step 0: inf\).*lower learning_rate \(it is 0\.02\)"
    ):
        train(disc_plan, sets, tmp_path / "run")


@pytest.mark.parametrize(
    ("batch", "tried", "error"),
    [
        (4, [1, 2, 4], RuntimeError("[enforce fail at alloc_cpu.cpp:121] . DefaultCPUAllocator: not enough memory")),
        (6, [1, 2, 6], MemoryError()),  # 4 parts of 6 crops would not be equal
    ],
)
def test_when_memory_runs_out_the_batch_is_made_in_parts(
    batch: int, tried: list[int], error: Exception, disc_plan: Plan, sets: Any, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    parts: list[int] = []

    def small(*given: Any, accumulate: int, **options: Any) -> StepResult:
        parts.append(accumulate)
        if accumulate < batch:
            raise error
        return train_step(*given, accumulate=accumulate, **options)

    monkeypatch.setattr(training, "train_step", small)
    plan = replace(disc_plan, training=replace(disc_plan.training, batch=batch, epochs=1.0))
    told = Told()
    record = train(plan, sets, tmp_path / "run", view=told)
    assert parts[:3] == tried
    assert set(parts[3:]) == {batch}
    assert record.steps == len(parts) - 2
    assert f"memory ran out; going on with {batch} parts of 1 crop a step (the same batch)" in told.said


def test_what_one_process_makes_in_parts_several_go_on_with(
    disc_plan: Plan, sets: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With more parts than a process has crops none would be the last, after which all exchange their gradients."""

    class Half(World):
        def agree(self, *values: float) -> tuple[float, ...]:
            return values

    parts: list[tuple[int, int]] = []

    def watched(network: nn.Module, optimizer: Any, images: torch.Tensor, *given: Any, **options: Any) -> StepResult:
        parts.append((len(images), options["accumulate"]))
        return train_step(network, optimizer, images, *given, **options)

    plan = replace(disc_plan, training=replace(disc_plan.training, batch=4, epochs=0.5))
    with pytest.raises(KeyboardInterrupt):
        train(plan, sets, tmp_path / "run", view=Told(interrupt_at=1))
    with_counters(tmp_path / "run" / "checkpoint.safetensors", accumulate=4)
    monkeypatch.setattr(training, "joined", lambda: nullcontext(Half(0, 2)))
    monkeypatch.setattr(training, "wrapped", lambda network, *_, **__: network)
    monkeypatch.setattr(training, "train_step", watched)
    train(plan, sets, tmp_path / "run", resume=True)
    assert set(parts) == {(2, 2)}


def test_what_did_not_fit_is_gone_before_it_is_tried_in_parts(
    disc_plan: Plan, sets: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An error holds all that was alive where it was raised: the network's maps, a second time beside the new ones."""
    maps: list[weakref.ref[torch.Tensor]] = []

    def scarce(network: nn.Module, optimizer: Any, images: torch.Tensor, *given: Any, **options: Any) -> StepResult:
        assert not any(one() is not None for one in maps)
        found = network(images)
        maps.append(weakref.ref(found))
        if options["accumulate"] < disc_plan.training.batch:
            raise torch.OutOfMemoryError("CUDA out of memory")
        del found
        return train_step(network, optimizer, images, *given, **options)

    monkeypatch.setattr(training, "train_step", scarce)
    gc.disable()
    try:
        assert train(short(disc_plan), sets, tmp_path / "run").steps == len(maps) - 1
    finally:
        gc.enable()


def test_memory_that_runs_out_in_the_first_update_leaves_no_half_made_state(
    disc_plan: Plan, sets: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """AdamW begins a weight's state before it takes the memory for it, and then trusts what it finds."""
    calls: list[int] = []

    def scarce(network: nn.Module, optimizer: torch.optim.Optimizer, *given: Any, **options: Any) -> StepResult:
        calls.append(options["accumulate"])
        if len(calls) == 1:
            optimizer.state[next(network.parameters())]["step"] = torch.tensor(0.0)
            raise torch.OutOfMemoryError("CUDA out of memory")
        return train_step(network, optimizer, *given, **options)

    monkeypatch.setattr(training, "train_step", scarce)
    assert train(short(disc_plan), sets, tmp_path / "run").steps == len(calls) - 1


def test_when_one_crop_does_not_fit_the_run_stops_with_a_remedy(
    disc_plan: Plan, sets: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def never(*_: Any, **__: Any) -> StepResult:
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(training, "train_step", never)
    with pytest.raises(TrainingError, match=r"memory ran out with 1 crop of 32 px.*smaller crop or width"):
        train(disc_plan, sets, tmp_path / "run")


def test_an_error_that_halving_brought_is_told_as_memory(
    disc_plan: Plan, sets: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As batch norm's, which can't make a mean of a single value."""

    def single(*_: Any, accumulate: int, **__: Any) -> StepResult:
        if accumulate < disc_plan.training.batch:
            raise torch.OutOfMemoryError("CUDA out of memory")
        raise ValueError("Expected more than 1 value per channel when training")

    monkeypatch.setattr(training, "train_step", single)
    with pytest.raises(TrainingError, match=r"memory ran out with 2 crops of 32 px"):
        train(disc_plan, sets, tmp_path / "run")


def test_memory_that_runs_out_beside_the_steps_is_told(
    disc_plan: Plan, sets: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(_state: Any) -> Any:
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(training.State, "snapshot", full)
    told = Told()
    with pytest.raises(TrainingError, match=r"memory ran out beside the steps.*use a smaller width"):
        train(disc_plan, sets, tmp_path / "run", view=told)
    assert told.closed


def test_another_error_of_a_step_is_not_taken_for_memory(
    disc_plan: Plan, sets: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: Any, **__: Any) -> StepResult:
        raise RuntimeError("a fault")

    monkeypatch.setattr(training, "train_step", broken)
    told = Told()
    with pytest.raises(RuntimeError, match="a fault"):
        train(disc_plan, sets, tmp_path / "run", view=told)
    assert told.closed, "a live screen is put away whatever happens"


def scores(painted: np.ndarray, truth: np.ndarray, plan: Plan) -> Any:
    judge = Judge(plan.classes, boundary=False)
    judge.add("a", truth, painted)
    return judge.result()


def test_the_collapse_alarm(disc_plan: Plan) -> None:
    truth = np.zeros((20, 20), np.uint8)
    truth[5:10, 5:10] = 1
    assert collapsed(scores(np.zeros_like(truth), truth, disc_plan)) == "background"
    assert collapsed(scores(truth, truth, disc_plan)) is None
    nothing_else = np.zeros_like(truth)
    assert collapsed(scores(nothing_else, nothing_else, disc_plan)) is None, "the truth is all background too"
    assert collapsed(scores(nothing_else, np.full_like(truth, VOID), disc_plan)) is None, "nothing counts"


def test_a_collapsed_network_is_told(
    disc_plan: Plan, sets: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told = Told()
    monkeypatch.setattr(keep, "collapsed", lambda _scores: "background")
    train(short(disc_plan), sets, tmp_path / "run", view=told)
    assert any("every pixel is painted" in text and "background" in text for text in told.said)
    entries = [entry for entry in RunFolder(tmp_path / "run").past() if "iou" in entry]
    assert all(entry["collapsed"] for entry in entries)


# -- the pilot ---------------------------------------------------------------------------------------------------------


def test_the_pilot_flies_where_the_network_is(disc_plan: Plan, sets: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Stands in for a GPU: the device ``meta`` has no numbers, but refuses to mix with others as a GPU does."""
    given = []

    def step(network: nn.Module, _: Any, images: torch.Tensor, target: torch.Tensor, **__: Any) -> StepResult:
        given.append({images.device.type, target.device.type, next(network.parameters()).device.type})
        network(images)
        return StepResult(1.0 / len(given), 0.0, 0.0, True)

    monkeypatch.setattr(pilot, "train_step", step)
    machine = replace(probe_machine("cpu"), device="meta")
    crops = replace(crops_of(sets["train"], disc_plan), crop=32)
    fly_pilot(build(disc_plan.network_config).to("meta"), crops, disc_plan, machine)
    assert given[0] == {"meta"}


def test_the_pilot_stops_a_rate_of_zero(disc_plan: Plan, sets: Any, tmp_path: Path) -> None:
    dead = replace(disc_plan, training=replace(disc_plan.training, learning_rate=0.0))
    with pytest.raises(TrainingError, match=r"could not learn 2 crops by heart.*learning_rate \(0\)"):
        train(dead, sets, tmp_path / "run")
    assert not (tmp_path / "run" / "plan.toml").exists(), "the folder can be used again"
    train(replace(disc_plan, training=replace(disc_plan.training, epochs=0.2)), sets, tmp_path / "run")


def test_the_pilot_of_many_classes_goes_on_while_it_learns(monkeypatch: pytest.MonkeyPatch, disc_plan: Plan) -> None:
    falling = iter(4.0 * 0.995**step for step in range(1000))  # 60 steps bring it to 74 %
    flown = flown_with(monkeypatch, disc_plan, lambda: next(falling))
    assert flown.learnt
    assert flown.after < 0.6 * flown.before
    assert flown.steps > 100


def test_the_pilot_takes_a_share_of_the_time(monkeypatch: pytest.MonkeyPatch, disc_plan: Plan) -> None:
    timed = replace(disc_plan, training=replace(disc_plan.training, time="60s", epochs=0.0))
    now = itertools.count(0, 5.0)  # a step takes as long as the clock is looked at
    monkeypatch.setattr(pilot.time, "perf_counter", lambda: next(now))
    flown = flown_with(monkeypatch, timed, lambda: 1.0)
    assert not flown.learnt
    assert flown.steps == 3
    assert str(flown).startswith("pilot: there was time for 3 steps on 2 crops of 32 px (")


def flown_with(monkeypatch: pytest.MonkeyPatch, plan: Plan, loss: Callable[[], float]) -> Pilot:
    """The pilot of steps that end in such losses."""
    monkeypatch.setattr(pilot, "train_step", lambda *_args, **_named: StepResult(loss(), 0.0, 0.0, True))
    images = made([np.arange(120 * 120 * 3, dtype=np.uint8).reshape(120, 120, 3)], [np.eye(120, dtype=np.uint8)])
    crops = crops_of(images["train"], plan)
    return fly_pilot(build(plan.network_config), crops, plan, probe_machine("cpu"))


def crops_of(images: ImageSet, plan: Plan) -> Crops:
    present = tuple(one.present for one in images.facts())
    crop = plan.training.crop
    return Crops(images.store, present, plan.normalisation, crop, plan.augmentation, 0.5, plan.seed)


def of_floats(plan: Plan) -> Plan:
    return replace(plan, normalisation=replace(plan.normalisation, dtype="float32"))


def test_an_image_that_is_not_as_the_plan_says(disc_plan: Plan, tmp_path: Path) -> None:
    grey, labels = np.zeros((40, 40, 1), np.uint8), np.zeros((40, 40), np.uint8)
    with pytest.raises(DataError, match=r"image 0 is uint8 with channels: 1; expected uint8 with channels: 3, as the"):
        train(disc_plan, made([grey], [labels]), tmp_path / "run")


def made(images: list[np.ndarray], labels: list[np.ndarray]) -> Mapping[str, ImageSet]:
    return {split: from_arrays(images, labels, [str(k) for k in range(len(images))]) for split in ("train", "val")}


def test_the_pilot_stops_constant_images(disc_plan: Plan, tmp_path: Path) -> None:
    labels = np.zeros((40, 40), np.uint8)
    labels[:, 20:] = 1
    mean = np.broadcast_to(np.array(disc_plan.normalisation.mean), (40, 40, 3)).astype(np.float32)
    with pytest.raises(TrainingError, match=r"constant while their labels differ.*they may be black"):
        train(of_floats(disc_plan), made([mean] * 4, [labels] * 4), tmp_path / "run")


def test_the_pilot_stops_labels_that_are_all_void(disc_plan: Plan, tmp_path: Path) -> None:
    image = np.random.default_rng(0).integers(0, 255, (40, 40, 3), np.uint8)
    with pytest.raises(TrainingError, match=r"every label of the pilot's crops is void.*check void in the plan"):
        train(disc_plan, made([image] * 4, [np.full((40, 40), VOID, np.uint8)] * 4), tmp_path / "run")


def test_the_pilot_stops_values_that_overflow(disc_plan: Plan, tmp_path: Path) -> None:
    image = np.random.default_rng(0).random((40, 40, 3), np.float32) * np.float32(1e38)
    labels = np.zeros((40, 40), np.uint8)
    labels[:, 20:] = 1
    with pytest.raises(TrainingError, match=r"the pilot's loss became (nan|inf|\d)"):
        train(of_floats(disc_plan), made([image] * 4, [labels] * 4), tmp_path / "run")


@pytest.mark.parametrize(
    "name", ["isbi_membrane", *(pytest.param(name, marks=pytest.mark.slow) for name in ("cats", "camvid"))]
)
def test_the_pilot_passes_on_real_pairs(name: str, request: pytest.FixtureRequest, tmp_path: Path) -> None:
    root = request.config.rootpath.parent / "shared" / "data" / name
    if not root.is_dir():
        pytest.skip(f"the real data are not at {root}")
    folder = find(root)
    few = [sample for split in folder.splits for sample in folder.pairs(split)][:4]
    for sample in few:
        for kind, path in (("images", sample.image), ("masks", sample.mask)):
            (tmp_path / "few" / kind).mkdir(parents=True, exist_ok=True)
            (tmp_path / "few" / kind / path.name).symlink_to(path)
    if (root / "classes.toml").exists():
        (tmp_path / "few" / "classes.toml").symlink_to(root / "classes.toml")
    plan = verbs.plan(tmp_path / "few", epochs=1, device="cpu")
    small = replace(plan, network=replace(plan.network, width=8))
    images = open_sets(find(tmp_path / "few"), small)["train"]
    crops = crops_of(images, small)
    torch.manual_seed(0)
    pilot = fly_pilot(build(small.network_config), crops, small, probe_machine("cpu"))
    assert pilot.after < 0.6 * pilot.before
    assert "learnt by heart" in str(pilot)


@pytest.mark.parametrize(("total", "wanted"), [(1, 4), (5, 4), (100, 32)])
def test_judged_images_are_spread_evenly(total: int, wanted: int) -> None:
    found = spread(total, wanted)
    assert len(found) == min(total, wanted)
    assert found[0] == 0
    assert found[-1] == total - 1


@given(st.lists(st.frozensets(st.integers(0, 3), min_size=1), min_size=1, max_size=12), st.integers(1, 12))
def test_judged_images_show_every_class_if_they_can(present: list[frozenset[int]], wanted: int) -> None:
    found = showing(present, wanted)
    assert found == sorted(set(found))
    assert len(found) == min(len(present), wanted)
    shown, all_of_them = (frozenset().union(*some) for some in ((present[place] for place in found), present))
    assert shown == all_of_them or wanted < len(all_of_them)


def test_the_only_image_with_an_object_is_among_the_few_that_are_judged(disc_plan: Plan, tmp_path: Path) -> None:
    masks = np.zeros((40, 40, 40), np.uint8)
    masks[5, :9, :9] = 1
    images = from_arrays([np.zeros((40, 40, 3), np.uint8)] * 40, list(masks), [*map(str, range(40))])
    machine = probe_machine("cpu")
    keeper = keep.Keeper(disc_plan, images, images.facts(), {}, RunFolder(tmp_path), machine, lambda _: None)
    assert 5 in keeper._judged
    assert keeper._drawn(keeper._judged) == 5


def test_a_false_pixel_of_a_class_that_is_not_there_costs_what_a_pixel_costs() -> None:
    truth, half, near = (np.zeros((40, 40), np.uint8) for _ in range(3))
    truth[10:30], half[10:20], near[10:30] = 1, 1, 1
    near[0, 0] = 2
    classes = Classes(("a", "b", "c"), ((0, 0, 0), (9, 9, 9), (99, 99, 99)), ((0,), (1,), (2,)))
    ranked = []
    for painted in (half, near):
        judge = Judge(classes, boundary=False)
        judge.add("one", truth, painted)
        ranked.append(standing(judge.result()))
    assert ranked == pytest.approx([7 / 12, 1 - 1 / 1600], abs=1e-3)


# -- weights from elsewhere --------------------------------------------------------------------------------------------


def _stem(network: nn.Module) -> torch.Tensor:
    """The first of the weights that come from elsewhere."""
    return pretrained_parameters(network)[0].detach()


@pytest.fixture
def begun(disc_plan: Plan) -> Plan:
    """Two steps of a network whose encoder comes with weights."""
    network = replace(disc_plan.network, encoder="efficientnet-lite0", pretrained=True)
    return replace(disc_plan, network=network, training=replace(disc_plan.training, epochs=0.25))


def test_a_run_begins_with_given_weights_and_overflows_go_back_to_them(
    begun: Plan, sets: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[torch.Tensor] = []

    def first_overflows(network: nn.Module, *given: Any, **options: Any) -> StepResult:
        seen.append(_stem(network).clone())
        result = train_step(network, *given, **options)
        return replace(result, finite=False) if len(seen) == 1 else result

    monkeypatch.setattr(training, "load_pretrained", lambda network: _stem(network).fill_(0.25))
    monkeypatch.setattr(training, "train_step", first_overflows)
    assert train(begun, sets, tmp_path / "run").steps == 2
    assert [float(stem.mean()) for stem in seen[:2]] == [0.25, 0.25]
    assert not torch.equal(seen[2], seen[1]), "they learn"


def test_a_balanced_run_begins_with_other_ways_up_and_nothing_else(
    begun: Plan, sets: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first: dict[bool, dict[str, torch.Tensor]] = {}

    def seen(network: nn.Module, *given: Any, **options: Any) -> StepResult:
        first.setdefault(balanced, {name: tensor.clone() for name, tensor in network.state_dict().items()})
        return train_step(network, *given, **options)

    monkeypatch.setattr(training, "load_pretrained", lambda network: _stem(network).fill_(0.25))
    monkeypatch.setattr(training, "train_step", seen)
    for balanced in (False, True):
        plan = replace(begun, network=replace(begun.network, balanced=balanced))
        assert train(plan, sets, tmp_path / f"{balanced}").steps == 2
    changed = {name for name, tensor in first[True].items() if not torch.equal(tensor, first[False][name])}
    assert changed == {f"up.{level}.0.weight" for level in begun.network.skips}


def test_a_run_that_goes_on_needs_no_weights_from_elsewhere(
    begun: Plan, sets: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(training, "load_pretrained", lambda network: _stem(network).fill_(0.25))
    with pytest.raises(KeyboardInterrupt):
        train(begun, sets, tmp_path / "run", view=Told(interrupt_at=1))
    monkeypatch.setattr(training, "load_pretrained", lambda _network: pytest.fail("it looked for weights"))
    assert train(begun, sets, tmp_path / "run", resume=True).steps == 2


def test_weights_that_are_not_installed_leave_no_run(
    begun: Plan, sets: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as without:
        without.setattr("whatwhere.network.pretrained.find_spec", lambda _name: None)
        with pytest.raises(ModelError, match=r"not installed.*whatwhere\[pretrained\]"):
            train(begun, sets, tmp_path / "run")
    monkeypatch.setattr(training, "load_pretrained", lambda network: _stem(network).fill_(0.25))
    assert train(begun, sets, tmp_path / "run").steps == 2, "the folder can be used"


def test_more_images_than_there_is_room_for_are_told_and_learnt_from(
    discs: Path, disc_plan: Plan, tmp_path: Path
) -> None:
    few = open_sets(find(discs), disc_plan)
    raw, labels = few["train"].store[0]
    assert few["train"].store._rolling
    few["train"].store.limit = 4 * (raw.nbytes + labels.nbytes)
    told = Told()
    record = train(disc_plan, few, tmp_path / "run", view=told)
    assert any("there is room for 3" in line for line in told.said)
    assert record.mean_iou > 0.6


def test_a_hundredth_that_passes_while_it_is_judged_is_in_the_history(
    disc_plan: Plan, sets: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of 100 seconds the second step ends at 50.2; judging takes until 51.1, and the third step until 51.4."""
    passed, steps = [0.0], iter((49.9, 0.3, 0.3, 50.0))

    def step(*arguments: Any, **options: Any) -> StepResult:
        passed.append(next(steps))
        return train_step(*arguments, **options)

    honest = training.Keeper.judge

    def judge(keeper: keep.Keeper, state: State) -> dict[str, Any]:
        passed.append(0.9)
        return honest(keeper, state)

    monkeypatch.setattr(training, "train_step", step)
    monkeypatch.setattr(training.Schedule, "elapsed", lambda _schedule: sum(passed))
    monkeypatch.setattr(training.Keeper, "fit", lambda *_: 5.0)
    monkeypatch.setattr(training.Keeper, "judge", judge)
    timed = replace(disc_plan, training=replace(disc_plan.training, time="105s", epochs=0.0))
    train(timed, sets, tmp_path / "run")
    assert passed.count(0.9) == 1
    told = [entry["step"] for entry in RunFolder(tmp_path / "run").past() if "loss" in entry]
    assert told == [1, 2, 3, 4]
