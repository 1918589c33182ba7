"""whatwhere in the comparison of equal time: by its command line, as a person would run it.

A mark before the end has the newest checkpoint that lay on the disk then; a hard link keeps it while training goes on.
Its averaged weights (those that a run would end with) become a model file, and the command line paints with that. The
last mark has ``last.safetensors``, the weights at the end, not the best on the validation images.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from safetensors import safe_open

from whatwhere.learn.plan_file import read_plan
from whatwhere.learn.run_folder import RunFolder
from whatwhere.network import Model, build, load_model, save_model, versions

__all__ = ["run_ours"]

COMMAND = [sys.executable, "-m", "whatwhere"]


def run_ours(data: Path, out: Path, marks: Sequence[float], seed: int, options: Sequence[str]) -> dict[str, Any]:
    """Trains for the minutes of the last mark and paints the validation images by the weights of every mark."""
    folder = RunFolder(out / "run")
    command = [
        *COMMAND,
        "train",
        data,
        "-o",
        folder.root,
        f"--time={60 * marks[-1]:g}s",
        f"--seed={seed}",
        *options,
        "-q",
    ]
    with (out / "log.txt").open("w", encoding="utf-8") as log:
        began = time.monotonic()
        process = subprocess.Popen([*map(str, command)], stdout=log, stderr=subprocess.STDOUT)
        for mark in marks[:-1]:
            _wait(process, began + 60 * mark)
            _hold(folder.checkpoint, out / f"{mark:g}.safetensors")
        process.wait()
    ended = time.monotonic() - began
    if process.returncode:
        raise subprocess.CalledProcessError(process.returncode, process.args)
    found = [_mark(folder, data, out, mark) for mark in marks[:-1]]
    summary = json.loads(folder.summary.read_text(encoding="utf-8"))
    found.append({"mark": marks[-1], "seconds": ended, "steps": summary["steps"]})
    _paint(folder.last, data, out / f"{marks[-1]:g}")
    weights = sum(p.numel() for p in load_model(folder.last).network.parameters())
    plan = read_plan(folder.plan)
    chosen = {name: asdict(getattr(plan, name)) for name in ("network", "training", "augmentation")}
    return {"marks": found, "weights": weights, "versions": versions(), "plan": chosen}


def _wait(process: subprocess.Popen[bytes], until: float) -> None:
    while process.poll() is None and time.monotonic() < until:
        time.sleep(0.2)


def _hold(checkpoint: Path, kept: Path) -> None:
    if checkpoint.is_file():
        os.link(checkpoint, kept)


def _mark(folder: RunFolder, data: Path, out: Path, mark: float) -> dict[str, Any]:
    """Paints by a kept checkpoint, if there was one."""
    kept = out / f"{mark:g}.safetensors"
    if not kept.is_file():
        return {"mark": mark, "seconds": 60 * mark, "steps": 0}
    plan = read_plan(folder.plan)
    with safe_open(kept, framework="pt") as file:
        counters = json.loads(file.metadata()["counters"])
        prefix = "average."
        weights = {name.removeprefix(prefix): file.get_tensor(name) for name in file.keys() if name.startswith(prefix)}  # noqa: SIM118
    network = build(plan.network_config)
    network.load_state_dict(weights)
    model = Model(network.eval(), plan.classes, plan.normalisation, plan.to_json())
    _paint(save_model(model, out / f"model-{mark:g}.safetensors"), data, out / f"{mark:g}")
    return {"mark": mark, "seconds": counters["elapsed"], "steps": counters["step"]}


def _paint(model: Path, data: Path, out: Path) -> None:
    """The validation images, by the command line; no time goes to finding the fastest backend for so few."""
    command = [*COMMAND, "predict", model, data / "val" / "images", "-o", out, "--backend=eager", "-q"]
    subprocess.run([*map(str, command)], check=True, stdout=subprocess.DEVNULL)
