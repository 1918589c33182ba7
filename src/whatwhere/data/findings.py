"""The record of what was found about a data folder; prints itself. Knows nothing of how it was found."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Any, Literal

__all__ = ["Finding", "Findings", "Severity", "many", "percent", "size_text"]

Severity = Literal["error", "warning", "note"]
_ORDER: tuple[Severity, ...] = ("error", "warning", "note")
_INDENT = " " * 9


@dataclass(frozen=True)
class Finding:
    """One thing about a data folder.

    Attributes:
        severity: ``"error"`` (training cannot work until it is corrected), ``"warning"`` (it will hurt), ``"note"``.
        code: a short name that stays the same between versions.
        message: what was found, with numbers; further lines are a table.
        files: the files, relative to the folder.
        remedy: what to do; empty where nothing needs to be done.
    """

    severity: Severity
    code: str
    message: str
    files: tuple[str, ...] = ()
    remedy: str = ""

    @property
    def count(self) -> int:
        return len(self.files)

    def __str__(self) -> str:
        first, *table = self.message.splitlines()
        lines = [f"{self.severity:<9}{first}", *table]
        if self.files:
            lines.append(", ".join(self.files[:4]) + (f" and {self.count - 4:,} more" if self.count > 4 else ""))
        if self.remedy:
            lines.append(f"-> {self.remedy}")
        return f"\n{_INDENT}".join(lines)


@dataclass(frozen=True)
class Findings:
    """All findings about a folder, the worst first. Prints itself."""

    root: str
    items: tuple[Finding, ...]

    @classmethod
    def sort(cls, root: str, items: Iterable[Finding]) -> Findings:
        return cls(root, tuple(sorted(items, key=lambda item: _ORDER.index(item.severity))))

    @property
    def fatal(self) -> bool:
        """Whether training cannot work until something is corrected."""
        return any(item.severity == "error" for item in self.items)

    @property
    def warnings(self) -> int:
        """How many things will hurt."""
        return sum(item.severity == "warning" for item in self.items)

    def of(self, code: str) -> tuple[Finding, ...]:
        """The findings of one code."""
        return tuple(item for item in self.items if item.code == code)

    def __str__(self) -> str:
        counts = [sum(item.severity == severity for item in self.items) for severity in _ORDER]
        tally = ", ".join(f"{n} {word}{'' if n == 1 else 's'}" for n, word in zip(counts, _ORDER))
        return "\n\n".join([*map(str, self.items), f"{self.root}: {tally}"])

    def to_json(self) -> dict[str, Any]:
        findings = [{**asdict(item), "count": item.count} for item in self.items]
        return {"root": self.root, "fatal": self.fatal, "findings": findings}


def many(count: int, what: str) -> str:
    """A count with its noun.

    >>> many(2, "class")
    '2 classes'
    """
    plural = what + ("es" if what.endswith("s") else "s")
    return f"{count:,} {what if count == 1 else plural}"


def percent(share: float) -> str:
    """A share as text, two digits at least; nothing but all is 100 %.

    >>> percent(0.99996)
    '>99.9 %'
    """
    if 0.9995 <= share < 1:
        return ">99.9 %"
    return f"{100 * share:.2g} %" if share < 0.1 else f"{100 * share:.1f} %"


def size_text(size: tuple[int, int]) -> str:
    """Height x width."""
    return f"{size[0]} x {size[1]}"
