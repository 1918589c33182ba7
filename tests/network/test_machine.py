"""What there is to compute with, in a container too."""

from __future__ import annotations

from pathlib import Path

import pytest

from whatwhere.errors import PlanError
from whatwhere.network import machine, probe_machine


@pytest.mark.parametrize("version", [1, 2])
def test_a_container_has_what_its_limit_leaves(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, version: int) -> None:
    names = {
        1: ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"),
        2: ("memory.max", "memory.current", "inactive_file"),
    }[version]
    (tmp_path / names[0]).write_text(f"{2**30}\n")
    (tmp_path / names[1]).write_text(f"{2**29}\n")
    (tmp_path / "memory.stat").write_text(
        f"anon 5\n{names[2]} {2**28}\n"
    )  # files that are kept as long as there is room
    monkeypatch.setattr(machine, "_CONTAINERS", ((tmp_path, *names),))
    assert machine.available_memory() == 2**29 + 2**28
    assert probe_machine("cpu").memory == 2**30
    (tmp_path / names[1]).write_text(f"{2**31}\n")
    assert machine.available_memory() == 0


def test_a_processor_has_no_number() -> None:
    with pytest.raises(PlanError, match=r"device is 'cpu:0'"):
        probe_machine("cpu:0")


def test_no_limit_is_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "memory.max").write_text("max\n")
    monkeypatch.setattr(machine, "_CONTAINERS", ((tmp_path, "memory.max", "memory.current", "inactive_file"),))
    free, whole = machine.available_memory(), probe_machine("cpu").memory
    assert 0 < free <= whole
