"""TensorBoard shows what the history tells, where it is installed."""

from __future__ import annotations

import errno
import time
from importlib.util import find_spec
from pathlib import Path

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
        shown.stepped(0.1, entry | {"step": step})
        time.sleep(0.01)
    shown.close()
    assert len(view.said) == 1
    assert "no more numbers for TensorBoard: " in view.said[0]
    assert "No space left on device" in view.said[0]


class Heard(SilentView):
    def __init__(self) -> None:
        self.said: list[str] = []

    def say(self, text: str) -> None:
        self.said.append(text)
