"""The course of a run for TensorBoard, where that is installed: another way to look at it. Computes nothing."""

from __future__ import annotations

from contextlib import suppress
from functools import cached_property
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from whatwhere.errors import in_a_line
from whatwhere.learn.view import TrainingView

if TYPE_CHECKING:
    from torch.utils.tensorboard import SummaryWriter

__all__ = ["Board", "with_board"]


class Board:
    """Hands everything on to another view, and writes its numbers to a folder that TensorBoard reads."""

    def __init__(self, view: TrainingView, folder: Path) -> None:
        self._view, self._folder, self._failed = view, folder, False
        self._told = -1  # the hundredth of the run that was written last

    @cached_property
    def _writer(self) -> SummaryWriter:
        """Opened when there is something to write: a run that does not begin leaves nothing."""
        from torch.utils.tensorboard import SummaryWriter

        return SummaryWriter(str(self._folder))

    def say(self, text: str) -> None:
        self._view.say(text)

    def stepped(self, progress: float, entry: dict[str, Any]) -> None:
        self._view.stepped(progress, entry)
        if int(100 * progress) != self._told:  # as many as the history tells of
            self._told = int(100 * progress)
            self._write("training", entry, entry["step"])

    def validated(self, progress: float, entry: dict[str, Any]) -> None:
        self._view.validated(progress, entry)
        self._write("validation", {"mean_iou": entry["mean_iou"]}, entry["step"])
        self._write("validation/iou", entry["iou"], entry["step"])

    def close(self) -> None:
        if "_writer" in vars(self):
            with suppress(Exception):
                self._writer.close()
        self._view.close()

    def _write(self, where: str, numbers: dict[str, Any], step: int) -> None:
        """Where it can't, a line says so once: training does not end for want of a picture of it."""
        try:
            for name, value in numbers.items():
                if isinstance(value, float) and not self._failed:
                    self._writer.add_scalar(f"{where}/{name}", value, step)
        except Exception as error:  # noqa: BLE001 (a full disk, or whatever a TensorBoard that is broken raises)
            self._failed = True
            self._view.say(f"no more numbers for TensorBoard: {in_a_line(error)}")


def with_board(view: TrainingView, folder: Path) -> TrainingView:
    """The view, with TensorBoard beside it if it is installed."""
    return Board(view, folder) if find_spec("tensorboard") else view
