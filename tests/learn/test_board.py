"""TensorBoard shows what the history tells, where it is installed."""

from __future__ import annotations

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
