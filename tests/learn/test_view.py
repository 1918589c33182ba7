"""What is seen of a training: on a terminal, and when something is not known or fails."""

from __future__ import annotations

import io
import math

from rich.console import Console

from whatwhere.learn.view import LiveView, PlainView

STEP = {
    "step": 3, "loss": 0.7, "cross_entropy": 0.5, "dice": 0.2, "images_per_second": 9.0, "waiting_share": 0.01,
}  # fmt: skip
JUDGED = {"step": 3, "mean_iou": math.nan, "iou": {"road": 0.5, "tram": math.nan, "sky": None}}


def terminal() -> tuple[Console, io.StringIO]:
    said = io.StringIO()
    return Console(file=said, force_terminal=True, width=100), said


def test_a_class_that_no_image_holds_is_not_known() -> None:
    console, said = terminal()
    view = LiveView(console, "run", ((1, 2, 3), (90, 90, 90)))
    view.stepped(0.1, STEP)
    view.validated(0.1, JUDGED)
    view.close()
    for words in ("road", "0.500", "tram", "–", "loss"):
        assert words in said.getvalue()
    plain = io.StringIO()
    PlainView(Console(file=plain, width=200)).validated(0.1, JUDGED)
    assert "nan" not in plain.getvalue() + said.getvalue()


def test_what_fails_before_the_first_step_leaves_the_terminal_as_it_was() -> None:
    console, said = terminal()
    view = LiveView(console, "run")
    assert said.getvalue() == ""
    view.close()
    assert "\x1b[?25l" not in said.getvalue()  # the cursor was not hidden


def test_names_are_shown_as_they_are() -> None:
    console, said = terminal()
    view = LiveView(console, "runs/unet[width=32]:cat:")
    view.say("into :cat:")
    view.stepped(0.1, STEP)
    view.close()
    assert "runs/unet[width=32]:cat:" in said.getvalue()
    assert "into :cat:" in said.getvalue()
