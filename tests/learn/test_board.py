"""TensorBoard shows what the history tells, where it is installed."""

from __future__ import annotations

import errno
import sys
import time
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from whatwhere.learn import board
from whatwhere.learn.view import SilentView


@pytest.mark.skipif(find_spec("tensorboard") is None, reason="tensorboard is not installed")
def test_the_numbers_can_be_read_again(disc_run: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(disc_run / "tensorboard"))
    events.Reload()
    assert len(events.Scalars("training/loss")) == 40
    assert [event.step for event in events.Scalars("validation/iou/foreground")] == [*range(4, 37, 4)]
    assert "validation/mean_iou" in events.Tags()["scalars"]


def test_without_tensorboard_nothing_is_written(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(board, "find_spec", lambda _: None)
    view = SilentView()
    assert board.with_board(view, tmp_path / "tensorboard") is view
    assert not (tmp_path / "tensorboard").exists()


@pytest.mark.skipif(find_spec("tensorboard") is None, reason="tensorboard is not installed")
@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_full_disk_ends_what_tensorboard_gets_and_not_the_training(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    from tensorboard.summary.writer import record_writer

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    view = Heard()
    shown = board.Board(view, tmp_path / "tensorboard")
    entry = {"step": 1, "loss": 0.5, "learning_rate": 0.1}
    shown.stepped(0.1, entry)
    monkeypatch.setattr(record_writer.RecordWriter, "write", full)
    for step in range(2, 60):
        shown.stepped(step / 60, entry | {"step": step})
        time.sleep(0.01)
    shown.close()
    assert len(view.said) == 1
    assert "no more numbers for TensorBoard: " in view.said[0]
    assert "No space left on device" in view.said[0]


def test_of_many_steps_as_many_are_written_as_the_history_tells_of(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """A step of a GPU may take less time than to write its numbers."""
    view, written = Heard(), []
    monkeypatch.setattr(board.Board, "_writer", SimpleNamespace(add_scalar=lambda *given: written.append(given)))
    shown = board.Board(view, tmp_path / "tensorboard")
    for step in range(1, 2001):
        shown.stepped(step / 2000, {"step": step, "loss": 1 / step})
    assert view.steps == list(range(1, 2001))
    assert all(name == "training/loss" and value == 1 / step for name, value, step in written)
    steps = [step for _, _, step in written]
    assert steps == sorted(set(steps))
    assert len(steps) == 101
    assert (steps[0], steps[-1]) == (1, 2000)


class Breaks:
    """A writer of TensorBoard's that fails where it is told to."""

    def __init__(self, where: str) -> None:
        self._where = where
        self._fail("opened")

    def add_scalar(self, *_: Any) -> None:
        self._fail("written")

    def close(self) -> None:
        self._fail("closed")

    def _fail(self, where: str) -> None:
        if where == self._where:
            raise TypeError("Descriptors cannot be created directly")


@pytest.mark.parametrize("where", ["imported", "opened", "written", "closed"])
def test_a_tensorboard_that_is_broken_ends_no_training(
    where: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """As one that does not fit the protobuf or numpy beside it."""
    broken = ModuleType("torch.utils.tensorboard")
    if where != "imported":
        vars(broken)["SummaryWriter"] = lambda _folder: Breaks(where)
    monkeypatch.setitem(sys.modules, broken.__name__, broken)
    view = Heard()
    shown = board.Board(view, tmp_path / "tensorboard")
    for step in (1, 2):
        shown.stepped(0.1, {"step": step, "loss": 0.5})
    shown.close()
    assert len(view.said) == (where != "closed")
    assert all(line.startswith("no more numbers for TensorBoard: ") for line in view.said)


class Heard(SilentView):
    def __init__(self) -> None:
        self.said: list[str] = []
        self.steps: list[int] = []

    def say(self, text: str) -> None:
        self.said.append(text)

    def stepped(self, progress: float, entry: dict[str, Any]) -> None:  # noqa: ARG002 (as the view has it)
        self.steps.append(entry["step"])
