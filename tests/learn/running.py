"""Trains by a plan file in a process of its own, so that it can be killed.

``python running.py DATA PLAN OUT [--kill STEP SECONDS] [--resume]``
"""

from __future__ import annotations

import os
import signal
import sys
import time
from pathlib import Path

import torch

from whatwhere.chosen import open_sets
from whatwhere.data import find
from whatwhere.learn.plan_file import read_plan
from whatwhere.learn.train import train
from whatwhere.learn.view import SilentView


class Killer(SilentView):
    """Kills the process the hard way, some time after a step."""

    def __init__(self, step: int, delay: float) -> None:
        self._step, self._delay = step, delay

    def stepped(self, progress: float, entry: dict[str, object]) -> None:  # noqa: ARG002 (as the view has it)
        if entry["step"] == self._step:
            pid = os.getpid()
            if os.fork() == 0:
                time.sleep(self._delay)
                os.kill(pid, signal.SIGKILL)
                os._exit(0)


if __name__ == "__main__":
    torch.set_num_threads(1)
    data, plan_file, out, *rest = sys.argv[1:]
    plan = read_plan(plan_file)
    step, delay = (int(rest[1]), float(rest[2])) if rest[:1] == ["--kill"] else (-1, 0.0)
    train(
        plan, open_sets(find(Path(data)), plan), out, resume="--resume" in rest, view=Killer(step, delay),
        checkpoint_seconds=0.02,
    )  # fmt: skip
