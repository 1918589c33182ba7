"""Imports run one way: from what a person touches down to the records. Read from the source, so none can hide."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

import whatwhere

SOURCE = Path(whatwhere.__file__).parent
HEIGHT = {
    room: height
    for height, rooms in enumerate(
        (
            ("errors",), ("records", "writing", "lock", "progress", "cuda_graph", "plain_torch"), ("data", "field"),
            ("network",),
            ("judge",), ("paint",), ("learn",), ("explain",), ("remembered",), ("chosen",), ("verbs",), ("segmenter",),
            ("cli", "demo", "explorer", "__main__"),
        )
    )
    for room in rooms
}  # fmt: skip
APART = {("data", "network"), ("network", "data"), ("judge", "network"), ("field", "network")}
"""Rooms that know nothing of each other, whichever is higher."""
SIDE_BY_SIDE = {("cli", "demo"), ("cli", "explorer"), ("__main__", "cli")}


def imports(path: Path) -> Iterator[tuple[str, int]]:
    """The rooms that a file imports, at its top or inside a function, each with the line."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.level:
            raise AssertionError(f"{path}:{node.lineno} imports by dots; name the room")
        names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
        if isinstance(node, ast.ImportFrom) and node.module == "whatwhere":
            names = [f"whatwhere.{alias.name}" for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            names = [node.module or ""]
        for name in names:
            package, _, rest = name.partition(".")
            if package == "whatwhere" and rest:
                yield rest.partition(".")[0], node.lineno


def room_of(path: Path) -> str:
    return path.relative_to(SOURCE).parts[0].removesuffix(".py")


FILES = sorted(path for path in SOURCE.rglob("*.py") if path != SOURCE / "__init__.py")


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.relative_to(SOURCE).as_posix())
def test_a_file_imports_only_from_rooms_below_its_own(path: Path) -> None:
    own = room_of(path)
    assert own in HEIGHT, f"{path} is in no room of the design"
    for room, line in imports(path):
        if room == own or room not in HEIGHT:  # its own room, or a name of the package itself, such as __version__
            continue
        below = HEIGHT[room] < HEIGHT[own] or (own, room) in SIDE_BY_SIDE
        assert below, f"{path}:{line}: {own} imports {room}, which is above it"
        assert (own, room) not in APART, f"{path}:{line}: {own} must know nothing of {room}"


@pytest.mark.parametrize("path", [path for path in FILES if room_of(path) in ("errors", "records", "judge", "cli")])
def test_light_rooms_import_no_torch(path: Path) -> None:
    tops = [
        node
        for node in ast.parse(path.read_text(encoding="utf-8")).body
        if isinstance(node, ast.Import | ast.ImportFrom)
    ]
    for node in tops:
        names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else [node.module or ""]
        assert not any(name.partition(".")[0] == "torch" for name in names), f"{path}:{node.lineno} imports torch"


FRONTS = [path for path in FILES if path.name == "__init__.py" and room_of(path) != "field"]
"""``field`` is called like its one function, and so can be called itself."""


@pytest.mark.parametrize("path", FRONTS, ids=room_of)
def test_the_front_of_a_room_only_hands_on_names(path: Path) -> None:
    allowed = (ast.Import, ast.ImportFrom, ast.Assign, ast.AnnAssign, ast.Expr)
    body = ast.parse(path.read_text(encoding="utf-8")).body
    odd = [node for node in body if not isinstance(node, allowed)]
    assert not odd, f"{path}:{odd[0].lineno} does more than hand on names"
