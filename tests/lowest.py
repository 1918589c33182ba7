"""Prints what ``make test-lowest`` installs: the oldest versions that pyproject.toml allows, and what the tests need.

torch stays the locked one: its oldest has no build for the CPU alone everywhere.
"""

from __future__ import annotations

import re
import tomllib
from itertools import chain
from pathlib import Path

ROOT = Path(__file__).parents[1]


def main() -> None:
    """A requirement a line."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    asked = chain(project["dependencies"], *project["optional-dependencies"].values())
    lowest = dict(re.fullmatch(r"([\w-]+)>=([\d.]+)", one).groups() for one in asked)  # type: ignore[union-attr, misc]
    lock = (ROOT / "requirements.lock").read_text(encoding="utf-8")
    for name in {*lowest, *re.findall(r"(?m)^([\w-]+)==", lock)} - {"torch", "timm"}:
        print(f"{name}=={lowest[name]}" if name in lowest else name)  # noqa: T201


if __name__ == "__main__":
    main()
