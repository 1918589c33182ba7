"""The training loop: steps, validations, checkpoints, and the guards that watch over them.

Knows a plan and image sets; nothing of how images and masks are stored. A run can be killed at any moment and go on to
the same weights, as if it had not been (with ``epochs``; with ``time`` the clock decides how many steps there are).
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from whatwhere.data.crops import Crops
from whatwhere.data.sets import ImageSet
from whatwhere.errors import TrainingError
from whatwhere.judge import Scores
from whatwhere.learn.average import Average
from whatwhere.learn.parallel import World, joined, wrapped
from whatwhere.learn.pilot import fly_pilot
from whatwhere.learn.plan import Plan, read_plan, write_plan
from whatwhere.learn.run_folder import RunFolder
from whatwhere.learn.state import State
from whatwhere.learn.step import StepResult, make_optimizer, rate_at, train_step
from whatwhere.learn.validate import collapsed, draw_preview, spread, validate
from whatwhere.learn.view import SilentView, TrainingView
from whatwhere.network import Machine, Model, build, keep_freed_memory, load_model, probe_machine, save_model, versions
from whatwhere.paint import Engine
from whatwhere.paint.memory import is_out_of_memory

__all__ = ["RunRecord", "train"]

_VALIDATIONS = 10
"""How often the network is judged in a run."""
_CHECKPOINT_SECONDS = 60.0
_MOST_REWINDS = 5
_VALIDATION_SHARE = 0.01
"""Largest share of a time budget that one validation in between may take; the last one judges every image."""


@dataclass(frozen=True)
class RunRecord:
    """What a run was and what came of it.

    Attributes:
        folder: the run folder; its ``model.safetensors`` is the result.
        mean_iou, iou: of the saved model on all validation images.
        images: number of validation images.
        steps, seconds: how long it trained, over all its resumptions.
        images_per_second: crops a second while training.
        waiting_share: share of the time in which training waited for data.
        peak_memory: largest resident memory of the process, bytes.
    """

    folder: Path
    mean_iou: float
    iou: Mapping[str, float]
    images: int
    steps: int
    seconds: float
    images_per_second: float
    waiting_share: float
    peak_memory: int

    def __str__(self) -> str:
        scores = ", ".join(f"{name} {value:.3f}" for name, value in self.iou.items())
        return (
            f"mean IoU {self.mean_iou:.3f} on {self.images} validation images ({scores})\n"
            f"{self.steps} steps in {self.seconds:.0f} s, {self.images_per_second:.1f} images/s, "
            f"{self.waiting_share:.1%} of the time waiting for data, peak memory {self.peak_memory / 2**30:.1f} GiB\n"
            f"model: {RunFolder(self.folder).model}"
        )

    def to_json(self) -> dict[str, Any]:
        return asdict(self) | {"folder": str(self.folder), "iou": dict(self.iou)}


def train(
    plan: Plan,
    sets: Mapping[str, ImageSet],
    out: Path | str,
    *,
    resume: bool = False,
    view: TrainingView | None = None,
    started: float | None = None,
) -> RunRecord:
    """Trains a network by a plan and leaves a run folder.

    Args:
        plan: what to do; when resuming, the plan in the run folder is the one that counts.
        sets: the images of ``"train"`` and ``"val"``.
        out: the run folder; a new one, or with ``resume`` that of an interrupted run.
        view: is told what happens.
        started: ``time.perf_counter()`` from which a time budget counts; now, if not given.

    Raises:
        TrainingError: the pilot failed, the loss kept overflowing, or the folder holds another run.
        KeyboardInterrupt: after a checkpoint was written.
    """
    began = time.perf_counter() if started is None else started
    folder = RunFolder(Path(out))
    with joined() as world:
        if world.leads:
            folder.open(resume=resume)
        world.agree(0.0)  # nobody looks for the folder before it is there
        if resume:
            plan = read_plan(folder.plan)
        world.check_batch(plan.training.batch)
        return _Trainer(plan, sets, folder, view if view and world.leads else SilentView(), world, began).run(resume)


class _Trainer:
    """One run in one process."""

    def __init__(
        self,
        plan: Plan,
        sets: Mapping[str, ImageSet],
        folder: RunFolder,
        view: TrainingView,
        world: World,
        began: float,
    ) -> None:
        self.plan, self.sets, self.folder, self.view, self.world = plan, sets, folder, view, world
        self.machine: Machine = probe_machine(plan.training.device, plan.training.precision)
        keep_freed_memory()
        torch.manual_seed(plan.seed)
        network = build(plan.network_config).to(self.machine.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.state = State(network, make_optimizer(network, plan.training), Average(network, plan.training.average))
        self.state.counters.accumulate = plan.training.accumulate
        self.learner: nn.Module = wrapped(network, world, self.machine)
        self.crops = Crops(
            sets["train"].store, sets["train"].presence(), plan.normalisation, plan.training.crop, plan.augmentation,
            plan.training.class_aware, plan.seed,
        )  # fmt: skip
        self.steps_in_all = max(1, round(plan.training.epochs * self._steps_an_epoch()))
        self.began = began
        self.before = 0.0  # seconds of earlier sessions of this run
        self.reserve = 0.0  # seconds kept for the last validation
        self.saved_at = time.perf_counter()
        self.steps_here = 0

    def run(self, resume: bool) -> RunRecord:
        counters = self.state.counters
        if resume and self.folder.checkpoint.is_file():
            self.state.load(self.folder.checkpoint)
            counters = self.state.counters
            if counters.finished:
                return self._record_of_finished()
            self.before = counters.elapsed
            self.folder.forget_after(counters.step)
            self.view.say(f"going on from step {counters.step}")
        elif self.world.leads:
            write_plan(self.plan, self.folder.plan)
            self.view.say(str(fly_pilot(self.state.network, self.crops, self.plan, self.machine)))
        self.good = self.state.snapshot()
        try:
            self._loop()
        except KeyboardInterrupt:
            self._checkpoint()
            self.view.say(f"interrupted at step {self.state.counters.step}; go on with --resume")
            raise
        finally:
            self.view.close()
        return self._finish()

    # -- the loop ------------------------------------------------------------------------------------------------------

    def _loop(self) -> None:
        training = self.plan.training
        self._time_a_validation()
        workers = max(1, self.machine.cores // 2) if self.machine.device != "cpu" else 1
        batches = self.crops.batches(
            training.batch, self.state.counters.step, share=(self.world.rank, self.world.size), workers=workers
        )
        try:
            while (progress := self.world.agree(self._progress())) < 1.0:
                self._set_rate(rate_at(progress, training) * self.state.counters.rate_factor)
                result = self._step(batches)
                if not result.finite:
                    batches.close()
                    self._rewind(result)
                    batches = self.crops.batches(
                        training.batch, self.state.counters.step, share=(self.world.rank, self.world.size),
                        workers=workers,
                    )  # fmt: skip
                    continue
                self._after(result)
        finally:
            batches.close()

    def _step(self, batches: Iterator[tuple[Tensor, Tensor]]) -> StepResult:
        asked = time.perf_counter()
        images, target = next(batches)
        self.state.counters.waiting += time.perf_counter() - asked
        images, target = _to(images, self.machine), _to(target, self.machine)
        self.learner.train()
        while True:
            try:
                return train_step(
                    self.learner, self.state.optimizer, images, target, machine=self.machine,
                    dice_weight=self.plan.training.dice_weight, accumulate=self.state.counters.accumulate,
                )  # fmt: skip
            except (RuntimeError, MemoryError) as error:
                self._halve(error, images.shape[0])

    def _halve(self, error: BaseException, batch: int) -> None:
        """Memory ran out: the same global batch in smaller parts."""
        parts = 2 * self.state.counters.accumulate
        if not is_out_of_memory(error) or batch % parts:
            raise error
        self.state.counters.accumulate = parts
        self.state.optimizer.zero_grad(set_to_none=True)
        self.view.say(f"memory ran out; going on with {parts} parts of {batch // parts} crops a step (the same batch)")

    def _after(self, result: StepResult) -> None:
        counters = self.state.counters
        self.state.average.follow(self.state.network, counters.step)
        counters.step += 1
        self.steps_here += 1
        counters.elapsed = self._elapsed()
        progress = min(1.0, self._progress())
        entry = self._entry(result)
        self.view.stepped(progress, entry)
        if int(progress * 100) > int(self.said_at * 100):
            self.said_at = progress
            if self.world.leads:
                self.folder.record(entry)
        due = int(progress * _VALIDATIONS)
        if counters.validated < due < _VALIDATIONS and self.world.leads:
            counters.validated = due
            self._validate(progress)
        if time.perf_counter() - self.saved_at > _CHECKPOINT_SECONDS:
            self._checkpoint()

    said_at = -1.0

    def _entry(self, result: StepResult) -> dict[str, Any]:
        counters = self.state.counters
        seconds = max(1e-9, self._elapsed())
        return {
            "step": counters.step, "elapsed": seconds, "loss": result.loss, "cross_entropy": result.cross_entropy,
            "dice": result.dice, "learning_rate": self.state.optimizer.param_groups[0]["lr"],
            "images_per_second": self._speed(), "waiting_share": counters.waiting / seconds,
        }  # fmt: skip

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
        self.view.say(
            f"the loss overflowed; back to step {counters.step}, learning rate times {counters.rate_factor:g}"
        )
        self._checkpoint()

    good_step = 0

    def _set_rate(self, rate: float) -> None:
        for group in self.state.optimizer.param_groups:
            group["lr"] = rate

    # -- the clock -----------------------------------------------------------------------------------------------------

    def _steps_an_epoch(self) -> int:
        """Steps whose crops have as many pixels as the training images."""
        pixels = sum(self.crops.store[index][1].size for index in range(len(self.crops.store)))
        return max(1, round(pixels / (self.plan.training.batch * self.plan.training.crop**2)))

    def _elapsed(self) -> float:
        return self.before + time.perf_counter() - self.began

    def _progress(self) -> float:
        seconds = self.plan.training.seconds
        if seconds is None:
            return self.state.counters.step / self.steps_in_all
        return self._elapsed() / max(1.0, seconds - self.reserve)

    def _speed(self) -> float:
        passed = time.perf_counter() - self.loop_began
        return self.steps_here * self.plan.training.batch / max(passed, 1e-9)

    loop_began = 0.0

    def _time_a_validation(self) -> None:
        """How many images fit in a validation in between, and how long the last one will take."""
        total = len(self.sets["val"])
        budget = self.plan.training.seconds
        self.judged = spread(total, 32 if budget is None else 4)
        if budget is not None and self.world.leads:
            engine = self._engine()
            validate(engine, self.sets["val"], self.judged[:1])  # the first call of a network is slow
            began = time.perf_counter()
            validate(engine, self.sets["val"], self.judged)
            each = (time.perf_counter() - began) / len(self.judged)
            self.judged = spread(total, max(4, int(_VALIDATION_SHARE * budget / each)))
            self.reserve = 1.1 * total * each + 1.0
        self.reserve = self.world.agree(self.reserve)
        self.loop_began = time.perf_counter()

    # -- judging and keeping -------------------------------------------------------------------------------------------

    def _model(self) -> Model:
        counters = self.state.counters
        record = {"step": counters.step, "elapsed": counters.elapsed, "machine": str(self.machine)}
        return Model(
            self.state.average.network, self.plan.classes, self.plan.normalisation, self.plan.to_json(), record
        )

    def _engine(self, model: Model | None = None) -> Engine:
        return Engine(model or self._model(), self.plan.training.precision, self.machine.device)

    def _validate(self, progress: float) -> None:
        began = time.perf_counter()
        engine = self._engine()
        scores = validate(engine, self.sets["val"], self.judged)
        entry = self._scored(scores)
        self.folder.record(entry)
        self.view.validated(progress, entry)
        painted = collapsed(scores)
        if painted is not None:
            self.view.say(
                f"alarm at step {self.state.counters.step}: every pixel is painted {painted!r}; if this lasts, check "
                "masks and mapping with whatwhere check, or lower learning_rate"
            )
        draw_preview(engine, self.sets["val"], self.judged[0], self.folder.preview(self.state.counters.step))
        if scores.mean_iou > self.state.counters.best_score:
            self.state.counters.best_score = scores.mean_iou
            self.state.counters.best_step = self.state.counters.step
            save_model(self._model(), self.folder.model)
        self._checkpoint()
        self.loop_began += time.perf_counter() - began  # the speed is that of training

    def _scored(self, scores: Scores) -> dict[str, Any]:
        counters = self.state.counters
        return {
            "step": counters.step, "elapsed": self._elapsed(), "validated": len(scores.images),
            "mean_iou": scores.mean_iou, "iou": scores.iou, "collapsed": collapsed(scores),
        }  # fmt: skip

    def _checkpoint(self) -> None:
        self.good, self.good_step = self.state.snapshot(), self.state.counters.step
        self.saved_at = time.perf_counter()
        if self.world.leads:
            self.state.counters.elapsed = self._elapsed()
            self.state.save(self.folder.checkpoint)

    def _finish(self) -> RunRecord:
        """The last weights are judged on every image; they are the result unless earlier ones were better."""
        if not self.world.leads:
            return self._record(0.0, {}, 0)
        last = self._model()
        earlier = self.state.counters.best_score
        quick = validate(self._engine(last), self.sets["val"], self.judged)
        best = last
        if earlier > quick.mean_iou and self.folder.model.is_file():
            best = load_model(self.folder.model)
        scores = validate(self._engine(best), self.sets["val"], range(len(self.sets["val"])))
        entry = self._scored(scores)
        self.folder.record(entry)
        draw_preview(self._engine(best), self.sets["val"], self.judged[0], self.folder.preview(entry["step"]))
        best.training |= {"mean_iou": scores.mean_iou, "iou": scores.iou, "validated": len(scores.images)}
        save_model(best, self.folder.model)
        save_model(last, self.folder.last)
        record = self._record(scores.mean_iou, scores.iou, len(scores.images))
        self.folder.write_summary(record.to_json() | {"versions": versions(), "machine": str(self.machine)})
        self.state.counters.finished = True
        self._checkpoint()
        return record

    def _record(self, mean_iou: float, iou: Mapping[str, float], images: int) -> RunRecord:
        counters = self.state.counters
        seconds = self._elapsed()
        return RunRecord(
            self.folder.root, mean_iou, iou, images, counters.step, seconds, self._speed(), counters.waiting / seconds,
            _peak_memory(),
        )  # fmt: skip

    def _record_of_finished(self) -> RunRecord:
        self.view.say("this run is finished")
        training = load_model(self.folder.model).training
        return self._record(training["mean_iou"], training["iou"], training["validated"])


def _to(tensor: Tensor, machine: Machine) -> Tensor:
    if machine.device.startswith("cuda"):
        return tensor.pin_memory().to(machine.device, non_blocking=True)
    return tensor.to(machine.device)


def _peak_memory() -> int:
    try:
        import resource
    except ImportError:  # not on Windows
        return 0
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
