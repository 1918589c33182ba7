"""What a request asks for, checked: every malformed one ends here, in words. Knows JSON; nothing of networks."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from whatwhere.explorer.edits import Edit
from whatwhere.explorer.errors import RefusalError

__all__ = ["Hold", "edits_in", "holds_in", "parse", "pixel_in", "text_in"]

Hold = str | float
"""What happens to a path: ``"pass"``, ``"cut"``, ``"mean"``, or how much of it passes, from 0 (its mean) to 1."""

_MOST_EDITS, _LARGEST_RADIUS = 200, 64


def parse(body: bytes) -> dict[str, Any]:
    """A JSON object."""
    try:
        found = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise RefusalError(
            400, f"the request is not JSON ({error})"[:120], "a JSON object", "reload the page"
        ) from error
    if not isinstance(found, dict):
        raise RefusalError(400, f"the request is a {type(found).__name__}", "a JSON object", "reload the page")
    return found


def text_in(record: Mapping[str, Any], key: str) -> str:
    value = record.get(key)
    if not isinstance(value, str):
        raise RefusalError(400, f"{key} is {_shown(value)}", "text", f"say which {key}")
    return value


def pixel_in(record: Mapping[str, Any], width: int, height: int) -> tuple[int, int]:
    """Row and column of ``x`` and ``y``, inside the image."""
    x, y = _whole(record, "x"), _whole(record, "y")
    if not (0 <= x < width and 0 <= y < height):
        raise RefusalError(
            422, f"pixel x={x}, y={y}", f"x from 0 to {width - 1} and y from 0 to {height - 1}", "choose one inside"
        )
    return y, x


def holds_in(record: Mapping[str, Any], paths: Sequence[str]) -> dict[str, Hold]:
    """What is held, by the name of the path; what passes is left out."""
    given = record.get("paths") or {}
    if not isinstance(given, dict):
        raise RefusalError(400, f"paths is {_shown(given)}", "an object from path to what happens to it", "")
    held: dict[str, Hold] = {}
    for name, hold in given.items():
        if name not in paths:
            raise RefusalError(422, f"there is no path {name[:40]!r}", f"one of {', '.join(paths)}", "")
        if hold not in ("pass", "cut", "mean") and not _is_share(hold):
            raise RefusalError(422, f"{name} is {_shown(hold)}", "'pass', 'cut', 'mean' or a number from 0 to 1", "")
        if hold not in ("pass", 1):
            held[name] = hold
    return held


def edits_in(record: Mapping[str, Any], width: int, height: int) -> tuple[Edit, ...]:
    given = record.get("edits") or []
    if not isinstance(given, list) or len(given) > _MOST_EDITS:
        many = f"{len(given)} of them" if isinstance(given, list) else _shown(given)
        raise RefusalError(422, f"edits is {many}", f"a list of at most {_MOST_EDITS} strokes", "clear the brush")
    return tuple(_edit(one, width, height) for one in given)


def _edit(one: Any, width: int, height: int) -> Edit:
    if not isinstance(one, dict) or one.get("kind") not in ("grey", "blur", "paste"):
        raise RefusalError(422, f"a stroke is {_shown(one)}", "kind 'grey', 'blur' or 'paste', x, y and radius", "")
    radius = _whole(one, "radius")
    if not 1 <= radius <= _LARGEST_RADIUS:
        raise RefusalError(422, f"radius is {radius}", f"1 to {_LARGEST_RADIUS} px", "")
    row, column = pixel_in(one, width, height)
    source = None
    if one["kind"] == "paste":
        place = one.get("from")
        if not (isinstance(place, list) and len(place) == 2):
            raise RefusalError(422, f"from is {_shown(place)}", "[x, y] of what is copied", "choose a source first")
        from_row, from_column = pixel_in({"x": place[0], "y": place[1]}, width, height)
        source = (from_column, from_row)
    return Edit(one["kind"], column, row, radius, source)


def _whole(record: Mapping[str, Any], key: str) -> int:
    value = record.get(key)
    if isinstance(value, float) and value.is_integer() and abs(value) < 2**53:
        value = int(value)
    if not isinstance(value, int) or isinstance(value, bool):
        raise RefusalError(400, f"{key} is {_shown(value)}", "a whole number of pixels", "")
    return value


def _is_share(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value <= 1


def _shown(value: Any) -> str:
    text = json.dumps(value) if value is not None else "not given"
    return text if len(text) <= 60 else text[:57] + "..."
