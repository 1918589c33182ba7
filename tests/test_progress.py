"""Long work says how far it is where there is no terminal: in plain lines, and seldom."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from whatwhere import progress


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    now = [100.0]
    monkeypatch.setattr("whatwhere.progress.time.monotonic", lambda: now[0])
    return now


def _console() -> tuple[Console, io.StringIO]:
    out = io.StringIO()
    return Console(file=out, width=100), out


def test_a_share_of_the_whole(clock: list[float]) -> None:
    console, out = _console()
    with progress.shared(console, quiet=True) as tell:
        for second in range(0, 101, 5):
            clock[0] = 100.0 + second
            tell("cutting every skip", second / 100)
    lines = out.getvalue().splitlines()
    assert lines[0] == "cutting every skip: 15%, about 1:25 left"
    assert len(lines) == 6, "one in fifteen seconds, and none when it is done"


def test_what_is_done_soon_says_nothing(clock: list[float]) -> None:
    console, out = _console()
    with progress.counted(console, "reading", quiet=False) as tell:
        for done in range(1000):
            clock[0] += 0.01
            tell(done, 1000)
    assert not out.getvalue()


def test_each_file_has_a_time_of_its_own(clock: list[float]) -> None:
    console, out = _console()
    with progress.of_files(console, quiet=False) as tell:
        for path in ("slides/a.tif", "slides/[b].tif"):
            for done in range(1, 5):
                clock[0] += 20.0
                tell(path, done, 4)
    assert out.getvalue().splitlines() == [
        "a.tif: 25%, about 1:00 left",
        "a.tif: 50%, about 0:40 left",
        "a.tif: 75%, about 0:20 left",
        "[b].tif: 25%, about 1:00 left",
        "[b].tif: 50%, about 0:40 left",
        "[b].tif: 75%, about 0:20 left",
    ]


def test_small_files_before_a_large_one_count_nothing_for_it(clock: list[float]) -> None:
    console, out = _console()
    with progress.of_files(console, quiet=False) as tell:
        for number in range(10):
            clock[0] += 1.0
            tell(f"{number}.png", 1, 1)
        for done in range(1, 41):
            clock[0] += 1.0
            tell("large.png", done, 40)
    assert out.getvalue().splitlines()[0] == "large.png: 12%, about 0:35 left"


def test_the_bar_shows_names_as_they_are() -> None:
    out = io.StringIO()
    console = Console(file=out, force_terminal=True, width=100, emoji=False)
    with progress.of_files(console, quiet=False) as tell:
        tell("in/[bold]:cat:.png", 1, 2)
    assert "[bold]:cat:.png" in out.getvalue()


def test_a_terminal_has_a_bar() -> None:
    out = io.StringIO()
    console = Console(file=out, force_terminal=True, width=100)
    with progress.counted(console, "reading", quiet=False) as tell:
        tell(3, 10)
    assert "reading" in out.getvalue()
    assert "3/10" in out.getvalue()
