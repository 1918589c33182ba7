"""What a person sees while a network learns: a live screen on a terminal, plain lines elsewhere. Computes nothing."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.panel import Panel
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

__all__ = ["LiveView", "PlainView", "SilentView", "TrainingView", "duration", "make_view", "sparkline"]

_BARS = "▁▂▃▄▅▆▇█"


class TrainingView(Protocol):
    """What the training loop tells. ``entry`` is a line of the history."""

    def say(self, text: str) -> None:
        """Something worth a line."""

    def stepped(self, progress: float, entry: dict[str, Any]) -> None:
        """A step was made; ``progress`` in [0, 1]."""

    def validated(self, progress: float, entry: dict[str, Any]) -> None:
        """The network was judged."""

    def close(self) -> None:
        """Training has ended, one way or another."""


class SilentView:
    """Tells nothing."""

    def say(self, text: str) -> None: ...

    def stepped(self, progress: float, entry: dict[str, Any]) -> None: ...

    def validated(self, progress: float, entry: dict[str, Any]) -> None: ...

    def close(self) -> None: ...


class PlainView(SilentView):
    """One line for every tenth of the run and for every validation: for files, pipes and ``-q``."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._told = 0
        self._clock = _Clock()

    def say(self, text: str) -> None:
        self._console.print(text, highlight=False, markup=False, emoji=False, soft_wrap=True)

    def stepped(self, progress: float, entry: dict[str, Any]) -> None:
        self._clock.tick(progress)
        if int(progress * 10) > self._told:
            self._told = int(progress * 10)
            self.say(
                f"{progress:4.0%}  step {entry['step']}  loss {entry['loss']:.3f}  "
                f"{entry['images_per_second']:.1f} images/s  {self._clock.left(progress)} left"
            )

    def validated(self, progress: float, entry: dict[str, Any]) -> None:
        scores = "  ".join(f"{name} {_score(value)}" for name, value in entry["iou"].items())
        self.say(f"{progress:4.0%}  step {entry['step']}  mean IoU {_score(entry['mean_iou'])}  ({scores})")


@dataclass
class LiveView:
    """The live screen: progress and time left, losses and IoU as sparklines, IoU of every class."""

    console: Console
    title: str
    colors: Sequence[tuple[int, int, int]] = ()
    losses: list[float] = field(default_factory=list)
    means: list[float] = field(default_factory=list)
    best: float = 0.0

    def __post_init__(self) -> None:
        self._clock = _Clock()
        self._progress = 0.0
        self._step: dict[str, Any] = {}
        self._scores: dict[str, Any] = {}
        # drawn only when it is shown, and begun with the first step: what fails before leaves the terminal as it was
        self._live = Live(get_renderable=self._draw, console=self.console, refresh_per_second=4, transient=False)

    def say(self, text: str) -> None:
        self.console.print(text, highlight=False, markup=False, emoji=False)

    def stepped(self, progress: float, entry: dict[str, Any]) -> None:
        self._clock.tick(progress)
        self._progress, self._step = progress, entry
        self.losses.append(entry["loss"])
        self._live.start()

    def validated(self, progress: float, entry: dict[str, Any]) -> None:
        self._progress, self._scores = progress, entry
        self.means.append(_known(entry["mean_iou"]))
        self.best = max(self.best, self.means[-1])
        self._live.start()

    def close(self) -> None:
        self._live.stop()

    def _draw(self) -> RenderableType:
        rows: list[RenderableType] = [self._progress_row()]
        if self.losses:
            text = Text.assemble(
                ("loss     ", "bold"), (sparkline(self.losses, 40), "cyan"), f"  {self.losses[-1]:.3f}",
                (f"  (cross-entropy {self._step['cross_entropy']:.3f}, 1-Dice {self._step['dice']:.3f})", "dim"),
            )  # fmt: skip
            rows.append(text)
        if self.means:
            rows.append(
                Text.assemble(
                    ("mean IoU ", "bold"), (sparkline(self.means, 40, low=0, high=1), "green"),
                    f"  {self.means[-1]:.3f}", (f"  (best {self.best:.3f})", "dim"),
                )
            )  # fmt: skip
            rows.append(self._class_table())
        return Panel(Group(*rows), title=Text(self.title), title_align="left", border_style="dim")

    def _progress_row(self) -> RenderableType:
        row = Table.grid(padding=(0, 2))
        step = self._step.get("step", 0)
        speed = self._step.get("images_per_second", 0.0)
        waiting = self._step.get("waiting_share", 0.0)
        row.add_row(
            ProgressBar(total=1.0, completed=self._progress, width=36),
            f"{self._progress:4.0%}",
            f"{self._clock.left(self._progress)} left",
            f"step {step}",
            f"{speed:.1f} images/s",
            Text(f"waiting for data {waiting:.1%}", style="dim"),
        )
        return row

    def _class_table(self) -> RenderableType:
        table = Table.grid(padding=(0, 2))
        for index, (name, value) in enumerate(self._scores["iou"].items()):
            color = _readable(self.colors[index]) if index < len(self.colors) else "white"
            width = round(24 * _known(value))
            bar = Text("█" * width, style=color) + Text("·" * (24 - width), style="dim")
            table.add_row(Text(f"  {name}"), bar, _score(value))
        return table


def make_view(console: Console, title: str, colors: Sequence[tuple[int, int, int]], *, quiet: bool) -> TrainingView:
    """The live screen on a terminal; plain lines where there is none or ``quiet`` is asked for."""
    return PlainView(console) if quiet or not console.is_terminal else LiveView(console, title, colors)


def sparkline(values: Sequence[float], width: int, low: float | None = None, high: float | None = None) -> str:
    """The course of numbers as a row of bars, averaged down to ``width``.

    >>> sparkline([0, 1, 2, 3], 4)
    '▁▃▆█'
    """
    size = max(1, -(-len(values) // width))
    means = [sum(values[i : i + size]) / len(values[i : i + size]) for i in range(0, len(values), size)]
    low = min(means) if low is None else low
    high = max(means) if high is None else high
    span = (high - low) or 1.0
    return "".join(_BARS[min(7, max(0, round(7 * (value - low) / span)))] for value in means)


def duration(seconds: float) -> str:
    """Seconds as a clock shows them.

    >>> duration(75), duration(3700)
    ('1:15', '1:01:40')
    """
    hours, rest = divmod(max(0, round(seconds)), 3600)
    minutes, rest = divmod(rest, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"


def _readable(color: tuple[int, int, int]) -> str:
    """The colour, grey instead if it would be lost on a dark or a light terminal."""
    return "rgb({},{},{})".format(*color) if 60 < sum(color) / 3 < 235 else "grey50"


class _Clock:
    """Time left, from the progress since this process began (a resumed run began earlier)."""

    def __init__(self) -> None:
        self._first: tuple[float, float] | None = None

    def tick(self, progress: float) -> None:
        if self._first is None:
            self._first = (time.perf_counter(), progress)

    def left(self, progress: float) -> str:
        if self._first is None or progress <= self._first[1]:
            return "--:--"
        passed = time.perf_counter() - self._first[0]
        return duration(passed * (1 - progress) / (progress - self._first[1]))


def _known(value: float | None) -> float:
    """0 for a class that no image judged holds."""
    return 0.0 if value is None or math.isnan(value) else value


def _score(value: float | None) -> str:
    return "  –  " if value is None or math.isnan(value) else f"{value:.3f}"
