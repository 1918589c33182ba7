"""The training loop: steps, validations, checkpoints, and the guards that watch over them.

Knows a plan and image sets; nothing of how images and masks are stored. A run can be killed at any moment and go on to
the same weights, as if it had not been (with ``epochs``; with ``time`` the clock decides how many steps there are;
where the loss overflows before the next validation, weights go back to where the run went on).
"""

from __future__ import annotations

import math
import random
import sys
import time
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import closing, nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from whatwhere.data.crops import Crops
from whatwhere.data.findings import many
from whatwhere.data.sets import Facts, ImageSet
from whatwhere.errors import DataError, TrainingError, in_a_line, is_out_of_memory
from whatwhere.learn.average import Average
from whatwhere.learn.board import with_board
from whatwhere.learn.compiled import compiled, uncompiled
from whatwhere.learn.given import network_of
from whatwhere.learn.interrupt import patient
from whatwhere.learn.keep import Keeper
from whatwhere.learn.parallel import World, crop_threads, joined, wrapped
from whatwhere.learn.pilot import fly_pilot
from whatwhere.learn.plan import Plan
from whatwhere.learn.plan_file import read_plan, write_plan
from whatwhere.learn.recorded import recorder_for
from whatwhere.learn.run_folder import RunFolder, RunRecord
from whatwhere.learn.schedule import Schedule
from whatwhere.learn.sizes import NARROWEST
from whatwhere.learn.state import State
from whatwhere.learn.step import StepResult, class_weights, cooled, make_optimizer, rate_at, set_rate, train_step
from whatwhere.learn.view import SilentView, TrainingView
from whatwhere.network import (
    Machine,
    UNet,
    balance,
    load_pretrained,
    prepare_torch,
    pretrained_parameters,
    probe_machine,
    versions,
)
from whatwhere.network.machine import layout
from whatwhere.plain_torch import kept_random, plain_torch
from whatwhere.writing import write_json

__all__ = ["train"]

_MOST_REWINDS = 5
_TO_BALANCE = 8
"""Crops on which a network that begins with weights from elsewhere is balanced."""
_FEW_STEPS = 50
"""A run that made fewer steps than this is told to be too short."""

Batches = Generator[tuple[Tensor, Tensor], None, None]


@plain_torch()
@kept_random()
def train(
    plan: Plan,
    sets: Mapping[str, ImageSet],
    out: Path | str,
    *,
    module: nn.Module | None = None,
    resume: bool = False,
    view: TrainingView | None = None,
    started: float | None = None,
    checkpoint_seconds: float = 60.0,
) -> RunRecord:
    """Trains a network by a plan and leaves a run folder.

    What is random comes from the plan's seed alone, and leaves the caller's generators as they were. cuDNN is left
    deterministic, without TF32 (see `prepare_torch`).

    Args:
        plan: what to do; when resuming, the plan in the run folder is the one that counts.
        sets: the images of ``"train"`` and ``"val"``.
        out: the run folder; a new one, or with ``resume`` that of an interrupted run.
        module: the network, if the plan is for one that is given (see `given`); it learns itself, and has its last
            weights in the end.
        view: is told what happens.
        started: ``time.perf_counter()`` from which a time budget counts; now, if not given.
        checkpoint_seconds: the most that is lost when the process is killed.

    Raises:
        PlanError: the plan is for another network.
        TrainingError: the pilot failed, the loss kept overflowing, or the folder holds another run.
        KeyboardInterrupt: after a checkpoint was written.
    """
    began = time.perf_counter() if started is None else started
    folder = RunFolder(Path(out))
    with joined() as world, folder.held(resume=resume) if world.leads else nullcontext():
        if world.leads:
            folder.tidy()
        world.agree(0.0)  # nobody looks for the folder before it is there
        if resume:
            plan = read_plan(folder.plan)
        world.check_batch(plan.training)
        told = with_board(view or SilentView(), folder.board) if world.leads else SilentView()
        try:
            trainer = _Trainer(plan, module, sets, folder, told, world, began, checkpoint_seconds)
            try:
                return trainer.run(resume)
            finally:  # a network that was given is its caller's, with room for no more than it has
                trainer.state.optimizer.zero_grad(set_to_none=True)
        except Exception as error:
            if not is_out_of_memory(error):
                raise
            raise TrainingError(
                f"memory ran out beside the steps of training ({in_a_line(error)})",
                "room for the network, its mean and what the optimiser keeps of each weight",
                "close what else uses the device, use a smaller width, or the device cpu",
            ) from error
        finally:
            told.close()


class _Trainer:
    """One run in one process."""

    def __init__(
        self,
        plan: Plan,
        module: nn.Module | None,
        sets: Mapping[str, ImageSet],
        folder: RunFolder,
        view: TrainingView,
        world: World,
        began: float,
        checkpoint_seconds: float,
    ) -> None:
        self.plan, self.folder, self.view, self.world = plan, folder, view, world
        self.machine: Machine = probe_machine(world.device(plan.training.device), plan.training.precision)
        self.weights = class_weights(plan.training, self.machine)
        prepare_torch()
        torch.manual_seed(plan.seed)
        place = self.machine.device
        network = network_of(plan, module, self.machine).to(place, memory_format=layout(place))  # type: ignore[call-overload]
        learnt = pretrained_parameters(network) if plan.network.pretrained else []
        optimizer = make_optimizer(network, plan.training, learnt)
        self.state = State(network, optimizer, Average(network, plan.training.average))
        self.state.counters.accumulate = plan.training.accumulate
        facts = {name: images.facts() for name, images in sets.items()}
        for name, images in sets.items():
            _check_images(images.names, facts[name], plan)
        self.crops = Crops(
            sets["train"].store, tuple(one.present for one in facts["train"]), plan.normalisation, plan.training.crop,
            plan.augmentation, plan.training.class_aware, plan.seed, self._window(sets["train"], facts["train"]),
        )  # fmt: skip
        self.seen = sets["train"].digests()
        self.keeper = Keeper(plan, sets["val"], facts["val"], self.seen, folder, self.machine, view.say)
        steps_in_all = plan.training.steps(sum(one.pixels for one in facts["train"]))
        self.schedule = Schedule(plan.training, self.state, steps_in_all, began)
        self.learner = self._learner(network, steps_in_all, known=module is None)
        self.recorder = recorder_for(network, self.machine, self.world.size)
        self.steps_here = 0
        self.told = 0  # hundredths of the run that the history tells of
        self.checkpoint_seconds, self.saved_at = checkpoint_seconds, time.perf_counter()
        self._hold()

    def _learner(self, network: nn.Module, steps_in_all: int, *, known: bool) -> nn.Module:
        """The network as steps call it."""
        if self.world.size > 1:
            if self.plan.training.compiled == "yes":
                self.view.say("the network is not compiled: several processes train it")
            return wrapped(network, self.world, self.machine, known=known)
        return compiled(network, self.plan.training, self.machine, steps_in_all, known=known)

    def _window(self, images: ImageSet, facts: Sequence[Facts]) -> int:
        """How many images fit into memory, where not all do; 0 if they do."""
        sizes = [one.pixels * (one.channels * np.dtype(one.dtype).itemsize + 1) for one in facts]
        if sum(sizes) <= images.store.limit:
            return 0
        window = max(1, int(images.store.limit / (sum(sizes) / len(sizes))) - 1)
        whole = sum(sizes) / 2**30
        self.view.say(
            f"the {len(sizes)} images take {whole:.1f} GiB, and there is room for {window}: crops come from so many at "
            "a time, and the others are read anew in turn; smaller images would learn faster"
        )
        return window

    def run(self, resume: bool) -> RunRecord:
        if resume and self.folder.checkpoint.is_file():
            self._go_on()
            if self.state.counters.finished:
                self.folder.check_model()
                return RunRecord.read(self.folder)
        else:
            self._begin()
        budget = self.plan.training.seconds
        if budget is not None:
            reserve = self.keeper.fit(self.state, budget) if self.world.leads else 0.0
            counters = self.state.counters
            self.schedule.reserve, now, often = self.world.agree(reserve, self.schedule.elapsed(), counters.validations)
            counters.validations = int(often)
            self.schedule.begin(now)
        self.told = self.schedule.hundredths()  # before, what was prepared counted
        self._loop()
        return self._finish()

    def _begin(self) -> None:
        """From random weights, or those that the plan names; the plan is written once the pilot has flown."""
        if self.plan.network.pretrained:
            network = self.state.network
            load_pretrained(network)
            if self.plan.network.balanced:
                assert isinstance(network, UNet)
                few = torch.stack([self.crops.crop_number(number)[0] for number in range(_TO_BALANCE)])
                balance(network, few.to(self.machine.device))
            self.state.average.network.load_state_dict(self.state.network.state_dict())
            self._hold()
        if self.world.leads:
            self.folder.forget_after(-1)  # of a run that was killed before its first checkpoint
        self.state.counters.window, self.state.counters.seen = self.crops.window, self.seen
        self.view.say(str(fly_pilot(self.state.network, self.crops, self.plan, self.machine)))
        if self.world.leads:
            write_plan(self.plan, self.folder.plan)

    def _go_on(self) -> None:
        """From where an interrupted run stopped."""
        self.state.load(self.folder.checkpoint)
        counters = self.state.counters
        self.schedule.before = counters.elapsed
        if counters.finished:
            self.view.say("this run is finished")
            return
        _check_same(counters.seen, self.seen)
        counters.seen = self.seen
        # one process may have run out of memory: parts that not all crops of one of several make would never end a step
        counters.accumulate = self.world.parts(self.plan.training.batch, counters.accumulate)
        if counters.window >= 0 and self.plan.training.seconds is None:  # as it was begun, whatever memory there is now
            self.crops = replace(self.crops, window=counters.window)
        self._hold()
        if self.world.leads:
            self.folder.forget_after(counters.step)
        self.view.say(f"going on from step {counters.step}")

    # -- the loop ------------------------------------------------------------------------------------------------------

    def _loop(self) -> None:
        over = False
        with patient() as interrupted:
            while not over:  # once more after each rewind
                with closing(self._batches()) as batches:
                    over = self._steps(batches, interrupted)

    def _steps(self, batches: Batches, interrupted: Callable[[], bool]) -> bool:
        """Steps until the run is over (True), or the loss overflows and weights are taken back (False)."""
        while (progress := self._between(interrupted())) < 1.0:
            began = time.perf_counter()
            rate = rate_at(progress, self.plan.training) * self.state.counters.rate_factor
            set_rate(self.state.optimizer, rate)
            result = self._step(batches)
            if not result.finite:
                self._rewind(result)
                return False
            prepared = self.recorder is not None or uncompiled(self.learner) is not None
            if self.steps_here == 0 and prepared:  # it held compiling, or recording
                self.schedule.stand_still(progress, time.perf_counter() - began)
            else:
                self.schedule.training += time.perf_counter() - began
            self._count(result, cooled(progress, self.plan.training))
        return True

    def _between(self, interrupted: bool) -> float:
        """Between two steps: judges, keeps and stops when all processes are to; returns how far the run is."""
        saving = time.perf_counter() - self.saved_at > self.checkpoint_seconds
        progress, save, stop = self.world.agree(self.schedule.progress(), saving, interrupted)
        counters, due = self.state.counters, int(progress * self.state.counters.validations)
        # a slow start is not judged at random weights
        if counters.step and counters.validated < due < counters.validations:
            counters.validated = due
            if self.recorder is not None:
                self.recorder.make_room()
            if self.world.leads:
                self.view.validated(progress, self.keeper.judge(self.state))
            self._hold()
        if save or stop:
            self._checkpoint()
        if stop:
            self.view.say(f"interrupted at step {counters.step}; go on with --resume")
            raise KeyboardInterrupt
        return progress

    def _step(self, batches: Iterator[tuple[Tensor, Tensor]]) -> StepResult:
        asked = time.perf_counter()
        images, target = next(batches)
        self.state.counters.waiting += time.perf_counter() - asked
        self.learner.train()
        self._leave_to_chance()
        halved = False  # no more of the error: while it is held, so is all that the network computed
        while True:
            try:
                images, target = images.to(self.machine.device), target.to(self.machine.device)
                return train_step(
                    self.learner, self.state.optimizer, images, target, machine=self.machine,
                    weights=self.weights, dice_weight=self.plan.training.dice_weight,
                    accumulate=self.state.counters.accumulate, recorder=self.recorder,
                )  # fmt: skip
            except Exception as error:  # compiling may raise whatever the compilers below it do
                if is_out_of_memory(error):
                    self._halve(error, images.shape[0])
                    halved = True
                elif not self._simplify(error):
                    if not halved:
                        raise
                    # such as batch norm, which a single crop is too few for
                    raise self._no_room(2 * images.shape[0] // self.state.counters.accumulate) from error

    def _leave_to_chance(self) -> None:
        """What is random in a network that is given is the same after an interruption."""
        number = self.plan.seed + self.state.counters.step * self.world.size + self.world.rank
        torch.manual_seed(number)
        if self.plan.network.module:
            random.seed(number)
            np.random.seed(number % 2**32)

    def _no_room(self, crops: int) -> TrainingError:
        return TrainingError(
            f"memory ran out with {many(crops, 'crop')} of {self.plan.training.crop} px",
            "a step that fits",
            "use a smaller crop or width, or with several processes a larger accumulate",
        )

    def _simplify(self, error: Exception) -> bool:
        """Goes on without a recording, or with the network as it is if it was compiled; else the error is its own."""
        plain = uncompiled(self.learner)
        if self.recorder is not None:
            self.recorder, what = None, "CUDA graphs"
        elif plain is not None:
            self.learner, what = plain, "compiling the network"
        else:
            return False
        self.state.optimizer.zero_grad(set_to_none=True)
        self.view.say(f"going on without {what}: {in_a_line(error)}")
        return True

    def _halve(self, error: BaseException, batch: int) -> None:
        """Memory ran out: the same global batch in smaller parts."""
        before = self.state.counters.accumulate
        parts = next((n for n in range(2 * before, batch + 1) if batch % n == 0), batch)
        if parts == before or self.world.size > 1:  # processes that count parts differently would wait for ever
            raise self._no_room(batch // before) from error
        self.state.counters.accumulate = parts
        self.state.optimizer.zero_grad(set_to_none=True)
        if self.state.counters.step == 0:  # it may have run out in the middle of the first update
            self.state.optimizer.state.clear()
        if self.recorder is not None:
            self.recorder.forget()
        self.view.say(
            f"memory ran out; going on with {parts} parts of {many(batch // parts, 'crop')} a step (the same batch)"
        )

    def _count(self, result: StepResult, kept: float) -> None:
        counters = self.state.counters
        self.state.average.follow(self.state.network, counters.step, kept)
        counters.step += 1
        self.steps_here += 1
        counters.elapsed = self.schedule.elapsed()
        progress = min(1.0, self.schedule.progress())
        entry = self._entry(result)
        self.view.stepped(progress, entry)
        if int(100 * progress) > self.told:
            self.told = int(100 * progress)
            if self.world.leads:
                self.folder.record(entry)

    def _rewind(self, result: StepResult) -> None:
        """The loss overflowed: back to the last good weights, with half the learning rate."""
        counters = self.state.counters
        counters.rewinds += 1
        if counters.rewinds > _MOST_REWINDS:
            raise TrainingError(
                f"the loss overflowed {counters.rewinds} times (last at step {counters.step}: {result.loss})",
                "finite numbers",
                f"lower learning_rate (it is {self.plan.training.learning_rate:g}) or use precision = 'float32'",
            )
        self.state.restore(self.good)
        counters.step = self.good_step
        counters.rate_factor /= 2
        self.told = self.schedule.hundredths()
        if self.world.leads:
            self.folder.forget_after(counters.step)
        self.view.say(
            f"the loss overflowed; back to step {counters.step}, learning rate times {counters.rate_factor:g}"
        )
        self._checkpoint()

    # -- keeping -------------------------------------------------------------------------------------------------------

    def _checkpoint(self) -> None:
        if self.plan.training.seconds is not None:  # by epochs, what the clock saves must not change what is learnt
            self._hold()
        self.saved_at = time.perf_counter()
        if self.world.leads:
            self.state.counters.elapsed = self.schedule.elapsed()
            self.state.save(self.folder.checkpoint)

    def _hold(self) -> None:
        """These weights are good: what to go back to when the loss overflows."""
        self.good, self.good_step = self.state.snapshot(), self.state.counters.step

    def _finish(self) -> RunRecord:
        entry: dict[str, Any] = {"mean_iou": math.nan, "iou": {}, "validated": 0}
        if not self.state.counters.step:
            if self.world.leads:
                self.folder.abandon()
            raise TrainingError(
                f"no step was made in {self.plan.training.time}: reading the images and trying a few steps took "
                f"{self.state.counters.begun:.0f} s, and judging at the end takes {self.schedule.reserve:.0f} s",
                "time to learn beside",
                "give it more --time",
            )
        if self.state.counters.step < _FEW_STEPS:
            asked, more = self.plan.training.time, "--time"
            if self.plan.network.width > NARROWEST:
                more += ", or a smaller width in the plan"
            if not asked:
                asked, more = f"{self.plan.training.epochs:g} epochs", "--epochs"
            self.view.say(
                f"only {many(self.state.counters.step, 'step')} fitted into {asked}, which is little to learn in: "
                f"if the score is low, give it more {more}"
            )
        if self.recorder is not None:
            self.recorder.forget()
        self._checkpoint()  # who interrupts the judging, which may take long, loses no step
        if self.world.leads:
            entry = self.keeper.finish(self.state)
        counters, seconds = self.state.counters, self.schedule.elapsed()
        record = RunRecord(
            self.folder.root, entry["mean_iou"], entry["iou"], entry["validated"], counters.step, seconds,
            self._speed(), counters.waiting / seconds, _peak_memory(self.machine), str(self.machine),
        )  # fmt: skip
        if self.world.leads:
            write_json(self.folder.summary, record.to_json() | {"versions": versions()})
        counters.finished = True
        self._checkpoint()
        return record

    # -- numbers -------------------------------------------------------------------------------------------------------

    def _batches(self) -> Batches:
        """The crops of the steps from here on."""
        return self.crops.batches(
            self.plan.training.batch, self.state.counters.step, share=(self.world.rank, self.world.size),
            workers=crop_threads(self.machine),
            device=self.machine.device if self.machine.device.startswith("cuda") else "cpu",
        )  # fmt: skip

    def _speed(self) -> float:
        """Crops a second while training."""
        return self.steps_here * self.plan.training.batch / max(self.schedule.training, 1e-9)

    def _entry(self, result: StepResult) -> dict[str, Any]:
        counters = self.state.counters
        return {
            "step": counters.step, "elapsed": counters.elapsed, "loss": result.loss,
            "cross_entropy": result.cross_entropy, "dice": result.dice,
            "learning_rate": self.state.optimizer.param_groups[0]["lr"], "images_per_second": self._speed(),
            "waiting_share": counters.waiting / counters.elapsed,
        }  # fmt: skip


def _check_images(names: Sequence[str], facts: Sequence[Facts], plan: Plan) -> None:
    """Numpy would stretch a grey image to three channels without a word."""
    expected = plan.normalisation
    for name, found in zip(names, facts):
        if (found.channels, found.dtype) != (expected.channels, expected.dtype):
            raise DataError(
                f"image {name} is {found.dtype} with channels: {found.channels}",
                f"{expected.dtype} with channels: {expected.channels}, as the plan says",
                "convert it, or make the plan anew: whatwhere plan",
            )


def _check_same(begun: Mapping[str, str], found: Mapping[str, str]) -> None:
    """Whether a run goes on with the images that it was begun with, by the pixels of some; an older one kept none."""
    for name, digest in begun.items():
        if found.get(name, digest) != digest:
            raise DataError(
                f"image {name} has other pixels than where this run began",
                "the data folder that it was started with",
                "name that folder, or train anew in another run folder",
            )


def _peak_memory(machine: Machine) -> int:
    """Bytes, of the device that computes."""
    if machine.device.startswith("cuda"):
        return torch.cuda.max_memory_allocated(machine.device)
    try:
        import resource
    except ImportError:  # not on Windows
        return 0
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
