"""The run folder: what lies where, the history that a resumed run goes on with, and what came of it.

Knows nothing of networks.

RUN/plan.toml                the plan the run was started with
RUN/history.jsonl            a line for every hundredth of the run and for every validation
RUN/checkpoint.safetensors   where the run goes on after an interruption
RUN/model.safetensors        the best model so far; the result
RUN/last.safetensors         the model at the end
RUN/previews/                a picture for every validation
RUN/tensorboard/              the same numbers for TensorBoard, where that is installed
RUN/run.json                 what the run was and what came of it
RUN/.lock                    held by the process that trains, while it does
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from whatwhere.data.findings import many
from whatwhere.errors import OutputError, TrainingError, in_a_line, look_at
from whatwhere.lock import alone
from whatwhere.writing import left_behind, reason, to_json, whole_file

__all__ = ["RunFolder", "RunRecord"]


@dataclass(frozen=True)
class RunFolder:
    """Paths within a run folder."""

    root: Path

    @property
    def plan(self) -> Path:
        return self.root / "plan.toml"

    @property
    def history(self) -> Path:
        return self.root / "history.jsonl"

    @property
    def checkpoint(self) -> Path:
        return self.root / "checkpoint.safetensors"

    @property
    def model(self) -> Path:
        return self.root / "model.safetensors"

    @property
    def last(self) -> Path:
        return self.root / "last.safetensors"

    @property
    def summary(self) -> Path:
        return self.root / "run.json"

    @property
    def files(self) -> tuple[Path, ...]:
        """What a run writes at these very names."""
        return self.plan, self.summary, self.history, self.checkpoint, self.model, self.last

    @property
    def board(self) -> Path:
        return self.root / "tensorboard"

    def preview(self, step: int) -> Path:
        return self.root / "previews" / f"step-{step:06d}.png"

    def open(self, *, resume: bool) -> None:
        """Makes the folder, or refuses to write over a run that is there.

        Raises:
            TrainingError: a run is there and is not to be resumed, or there is none to resume.
            OutputError: the place can't be written to.
        """
        look_at(self.root)
        if resume:
            if not self.plan.is_file():
                raise TrainingError(
                    f"{self.root} holds no run", "the folder of an interrupted run", "leave out --resume"
                )
            return
        self.refuse()
        probe = self.root / ".writable"
        try:
            self.root.mkdir(parents=True, exist_ok=True)
            probe.write_bytes(b"x" * 4096)
        except OSError as error:
            why = reason(self.root, error)
            raise OutputError(f"{self.root} can't be written ({why})", "a writable place", "") from error
        finally:
            with suppress(OSError):
                probe.unlink(missing_ok=True)

    def check_model(self) -> None:
        """TrainingError where a finished run has lost what it made."""
        if not self.model.is_file():
            raise TrainingError(
                f"{self.root} is finished, and {self.model.name} is not there any more",
                "the model that it made",
                f"put it back, or use {self.last.name}, or start anew in another folder",
            )

    @contextmanager
    def held(self, *, resume: bool) -> Iterator[None]:
        """The opened folder, for one process at a time.

        Raises:
            TrainingError: as for `open`; or another process is training into it.
            OutputError: as for `open`.
        """
        self.open(resume=resume)
        with alone(self.root / ".lock") as held:
            if held is None:
                raise TrainingError(
                    f"another process is training into {self.root}",
                    "one at a time",
                    "wait for it, stop it, or name another folder",
                )
            if not resume:
                self.refuse()  # a run may have begun and ended since
            yield

    def tidy(self) -> None:
        """Removes what a killed process was writing of this run; what else is written here or below is not its own."""
        for path in (*self.files, self.root / "previews" / "step-*.png"):
            for left in left_behind(path):
                left.unlink(missing_ok=True)

    def abandon(self) -> None:
        """Of a run that made no step there is nothing to go on with: the folder can be used again."""
        for path in (self.checkpoint, self.plan):  # by its plan a folder is known to hold a run
            path.unlink(missing_ok=True)

    def refuse(self) -> None:
        """``TrainingError`` if a run is there already, or what training would write over: a model from elsewhere."""
        if self.plan.exists():
            raise TrainingError(
                f"{self.root} already holds a run", "a new folder", "go on with --resume, or name another folder"
            )
        for what, path in (("a model", self.model), ("a model", self.last), ("what came of a run", self.summary)):
            if path.exists():
                raise TrainingError(
                    f"{self.root} already holds {what} ({path.name})", "a new folder", "name another folder"
                )

    def record(self, entry: dict[str, Any]) -> None:
        """Adds a line to the history."""
        try:
            with self.history.open("a", encoding="utf-8") as file:
                file.write(to_json(entry) + "\n")
        except OSError as error:
            raise OutputError(f"{self.history} can't be written ({error.strerror})", "room on the disk", "") from error

    def past(self) -> list[dict[str, Any]]:
        """The history so far; a last line that a killed run left unfinished is dropped."""
        if not self.history.is_file():
            return []
        entries = []
        for line in self.history.read_text(encoding="utf-8", errors="replace").split("\n"):  # names may hold U+2028
            try:
                entries.append(json.loads(line))
            except json.JSONDecodeError:
                break
        return entries

    def forget_after(self, step: int) -> None:
        """Drops what the history says of steps that are going to be made again."""
        if not self.history.is_file():
            return
        kept = [entry for entry in self.past() if entry["step"] <= step]
        with whole_file(self.history) as partial:
            partial.write_text("".join(to_json(entry) + "\n" for entry in kept), encoding="utf-8")


@dataclass(frozen=True)
class RunRecord:
    """What a run was and what came of it.

    Attributes:
        folder: the run folder; its ``model.safetensors`` is the result.
        mean_iou, iou: of the saved model on the validation images judged; NaN for a class that none of them holds.
        images: how many were judged: all, if there was time.
        steps, seconds: how long it trained, over all its resumptions.
        images_per_second: crops a second while training.
        waiting_share: share of the time in which training waited for data.
        peak_memory: largest resident memory of the process, on a GPU what was allocated there at most; bytes.
        machine: what it was trained on.
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
    machine: str

    def __str__(self) -> str:
        scores = ", ".join(f"{name} {_shown(value)}" for name, value in self.iou.items())
        return (
            f"mean IoU {_shown(self.mean_iou)} on {many(self.images, 'validation image')} ({scores})\n"
            f"{self.steps} steps in {self.seconds:.0f} s, {self.images_per_second:.1f} images/s, "
            f"{self.waiting_share:.1%} of the time waiting for data, peak memory {self.peak_memory / 2**30:.1f} GiB\n"
            f"model: {RunFolder(self.folder).model}"
        )

    def to_json(self) -> dict[str, Any]:
        return asdict(self) | {"folder": str(self.folder), "iou": dict(self.iou)}

    @classmethod
    def read(cls, folder: RunFolder) -> RunRecord:
        """What a finished run wrote into its folder."""
        try:
            record = json.loads(folder.summary.read_text(encoding="utf-8"))
            known = {field.name: record[field.name] for field in fields(cls)}
            iou = {name: _number(value) for name, value in record["iou"].items()}
        except (OSError, ValueError, LookupError, TypeError, AttributeError) as error:
            raise TrainingError(
                f"{folder.summary} can't be read ({in_a_line(error)})",
                "what this run wrote when it was finished",
                f"its result is there all the same: {folder.model}",
            ) from error
        return cls(**known | {"folder": folder.root, "mean_iou": _number(record["mean_iou"]), "iou": iou})


def _shown(value: float) -> str:
    return "–" if math.isnan(value) else f"{value:.3f}"


def _number(value: float | None) -> float:
    return math.nan if value is None else value
