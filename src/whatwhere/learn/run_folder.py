"""The run folder: what lies where, and the history that a resumed run goes on with. Knows nothing of networks.

RUN/plan.toml                the plan the run was started with
RUN/history.jsonl            a line for every hundredth of the run and for every validation
RUN/checkpoint.safetensors   where the run goes on after an interruption
RUN/model.safetensors        the best model so far; the result
RUN/last.safetensors         the model at the end
RUN/previews/                a picture for every validation
RUN/run.json                 what the run was and what came of it
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from whatwhere.errors import OutputError, TrainingError

__all__ = ["RunFolder"]


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

    def preview(self, step: int) -> Path:
        return self.root / "previews" / f"step-{step:06d}.png"

    def open(self, *, resume: bool) -> None:
        """Makes the folder, or refuses to write over a run that is there.

        Raises:
            TrainingError: a run is there and is not to be resumed, or there is none to resume.
            OutputError: the place can't be written to.
        """
        if resume:
            if not self.plan.is_file():
                raise TrainingError(
                    f"{self.root} holds no run", "the folder of an interrupted run", "leave out --resume"
                )
            return
        if self.plan.exists():
            raise TrainingError(
                f"{self.root} already holds a run", "a new folder", "go on with --resume, or name another folder"
            )
        try:
            self.root.mkdir(parents=True, exist_ok=True)
            probe = self.root / ".writable"
            probe.write_bytes(b"x" * 4096)
            probe.unlink()
        except OSError as error:
            raise OutputError(f"{self.root} can't be written ({error.strerror})", "a writable place", "") from error

    def record(self, entry: dict[str, Any]) -> None:
        """Adds a line to the history."""
        with self.history.open("a", encoding="utf-8") as file:
            file.write(json.dumps(plain(entry)) + "\n")

    def past(self) -> list[dict[str, Any]]:
        """The history so far; a last line that a killed run left unfinished is dropped."""
        if not self.history.is_file():
            return []
        entries = []
        for line in self.history.read_text(encoding="utf-8").splitlines():
            try:
                entries.append(json.loads(line))
            except json.JSONDecodeError:
                break
        return entries

    def forget_after(self, step: int) -> None:
        """Drops what the history says of steps that are going to be made again."""
        kept = [entry for entry in self.past() if entry["step"] <= step]
        partial = self.history.with_name(".history.partial")
        partial.write_text("".join(json.dumps(entry) + "\n" for entry in kept), encoding="utf-8")
        partial.replace(self.history)

    def write_summary(self, summary: dict[str, Any]) -> None:
        partial = self.summary.with_name(".run.json.partial")
        partial.write_text(json.dumps(plain(summary), indent=1), encoding="utf-8")
        partial.replace(self.summary)


def plain(value: Any) -> Any:
    """JSON has no NaN: a number that is not defined is null."""
    if isinstance(value, dict):
        return {key: plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
