"""The benchmarks: all are in their index, and none runs before it has read its options."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

BENCH = Path(__file__).parents[1] / "bench"
SCRIPTS = sorted(path.name for path in BENCH.glob("*.py"))


def test_the_index_names_every_script_and_no_other() -> None:
    named = re.findall(r"`([\w]+\.py)`", (BENCH / "README.md").read_text("utf-8"))
    assert sorted(set(named)) == SCRIPTS


def test_the_index_says_which_scripts_cannot_run_small() -> None:
    rows = [row for row in (BENCH / "README.md").read_text("utf-8").splitlines() if row.startswith("| `")]
    for row in rows:
        name = row.split("`")[1]
        quick = '"--quick"' in (BENCH / name).read_text("utf-8")
        assert quick == ("no `--quick`" not in row), row


@pytest.mark.parametrize("name", [name for name in SCRIPTS if name not in ("common.py", "explained.py")])
def test_help_describes_a_script(name: str) -> None:
    text = (BENCH / name).read_text("utf-8")
    assert "ArgumentParser(description=__doc__" in text
    assert "in sys.argv" not in text
