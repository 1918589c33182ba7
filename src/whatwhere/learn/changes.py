"""What a person asks beside a plan: taken into the plan of a new run; refused where a run that goes on has another."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from whatwhere.errors import PlanError
from whatwhere.learn.plan import Plan, duration_text, parse_duration
from whatwhere.learn.plan_file import read_plan
from whatwhere.learn.run_folder import RunFolder

__all__ = ["changed", "check_goes_on"]


def changed(
    plan: Plan,
    *,
    time: str | None = None,
    epochs: float | None = None,
    seed: int | None = None,
    skips: Sequence[int] | None = None,
    device: str | None = None,
) -> Plan:
    """The plan with what is asked otherwise; None asks nothing.

    Raises:
        PlanError: something that can't be, such as both ``time`` and ``epochs``.
    """
    training, network = plan.training, plan.network
    if time is not None:
        parse_duration(time)  # of which a plan takes "" for none
    if time is not None or epochs is not None:
        same = time is not None and epochs is None and training.time and _as_written(time) == _as_written(training.time)
        training = training if same else replace(training, time=time or "", epochs=epochs or 0.0)
    if device is not None:
        training = replace(training, device=device)
    if skips is not None:
        network = replace(network, skips=tuple(sorted(set(skips))))
    return replace(plan, training=training, network=network, seed=plan.seed if seed is None else seed)


def _as_written(time: str) -> str:
    """Without what writing a plan rounds away."""
    return duration_text(parse_duration(time))


def check_goes_on(run: Path, asked: Plan) -> None:
    """A run goes on by the plan it was started with: ``PlanError`` names the first thing that is asked otherwise.

    Raises:
        TrainingError: there is no run.
    """
    folder = RunFolder(run)
    folder.open(resume=True)
    plans = read_plan(folder.plan), replace(asked, reasons={})  # one that was read has none
    ours, theirs = (dict(_flat(plan.to_json())) for plan in plans)
    for key in [*ours, *theirs]:
        if ours.get(key) != theirs.get(key):
            raise PlanError(
                f"the run in {run} has {key} = {ours.get(key)!r}, and {theirs.get(key)!r} is asked for",
                "the plan that it was started with",
                "leave that option out to go on with it, or train into another folder",
            )


def _flat(record: Mapping[str, Any], where: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in record.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{where}{key}.")
        else:
            yield f"{where}{key}", value
