"""The network and its windows as records that the page draws. Knows anatomies and fields; nothing of requests."""

from __future__ import annotations

from typing import Any

import numpy as np

from whatwhere.explain.anatomy import Layer
from whatwhere.explorer.lens import Lens
from whatwhere.explorer.shown import Shown
from whatwhere.field import Field
from whatwhere.network import own_config
from whatwhere.records import color_text

__all__ = ["geometry", "influenced_window", "portrait", "title_of"]


def portrait(lens: Lens, size: tuple[int, int]) -> dict[str, Any]:
    """What the drawing of the U needs: layers with grid, stride, channels and receptive field; paths; classes.

    Args:
        size: of an image, on which the windows are followed; receptive fields do not depend on it.
    """
    model, anatomy, windows = lens.model, lens.anatomy, lens.windows(size)
    obstacle = windows.obstacle()
    names = [layer.name for layer in anatomy.layers]
    return {
        "id": lens.id, "name": lens.name, "title": title_of(lens),
        "classes": [
            {"id": k, "name": name, "color": color_text(color)}
            for k, (name, color) in enumerate(zip(model.classes.names, model.classes.colors))
        ],
        "channels": model.normalisation.channels,
        "parameters": sum(parameter.numel() for parameter in lens.network.parameters()),
        "tileable": windows.tileable, "global": None if obstacle is None else windows.explain(),
        "layers": [_layer(layer, windows) for layer in anatomy.layers] + [_output(lens, windows)],
        "paths": [
            {
                "name": path.name, "title": path.name, "level": path.level,
                "kind": "bottleneck" if path.name == "bottleneck" else "skip",
                "from": "bottleneck" if path.name == "bottleneck" else _if_known(f"encoder.{path.level}", names),
                "to": _if_known(f"decoder.{max(0, path.level - (path.name == 'bottleneck'))}", names),
            }
            for path in anatomy.paths
        ],
    }  # fmt: skip


def title_of(lens: Lens) -> str:
    """Its shape in words."""
    config = own_config(lens.model.network)
    if config is None:
        return type(lens.model.network).__name__
    skips, depth = config["skips"], config["depth"]
    said = "all skips" if len(skips) == depth else "no skips" if not skips else f"skips {', '.join(map(str, skips))}"
    return f"U-Net of depth {depth}, {said}"


def _if_known(name: str, names: list[str]) -> str:
    return name if name in names else "output" if name.startswith("decoder") else "pixel"


def _layer(layer: Layer, windows: Field) -> dict[str, Any]:
    extent = (1, 1) if layer.role == "pixel" else windows.extent(layer.module)
    return {
        "name": layer.name, "title": layer.title, "role": layer.role, "level": layer.level,
        "stride": list(layer.cell), "channels": layer.channels,
        "field": None if extent is None else list(extent),
    }  # fmt: skip


def _output(lens: Lens, windows: Field) -> dict[str, Any]:
    extent = windows.extent("output")
    return {
        "name": "output", "title": "output", "role": "output", "level": 0, "stride": [1, 1],
        "channels": lens.model.classes.count, "field": None if extent is None else list(extent),
    }  # fmt: skip


def geometry(lens: Lens, shown: Shown) -> dict[str, Any]:
    """For each layer the window of the unit that answers for a pixel, as spans by row and by column."""
    return lens.spans.get(shown.size, lambda: _geometry(lens, shown.size))


def _geometry(lens: Lens, size: tuple[int, int]) -> dict[str, Any]:
    (height, width), windows = size, lens.windows(size)
    rows, columns = np.arange(height), np.arange(width)
    pixel = {
        "grid": [height, width], "rows": [[y, y + 1] for y in range(height)],
        "columns": [[x, x + 1] for x in range(width)],
        "cells": {"rows": rows.tolist(), "columns": columns.tolist()},
    }  # fmt: skip
    found = {"pixel": pixel}
    for layer in lens.anatomy.layers:
        if layer.role != "pixel":
            grid = windows.grid(layer.module).size
            found[layer.name] = _spans(windows, layer.module, grid, *layer.units(rows, columns, grid))
    found["output"] = _spans(windows, "output", (height, width), rows, columns)
    return {"width": width, "height": height, "layers": found}


def _spans(
    windows: Field, module: str, grid: tuple[int, ...], down: np.ndarray[Any, Any], across: np.ndarray[Any, Any]
) -> dict[str, Any]:
    """Windows are boxes, so the span of rows depends on the unit's row alone, and that of columns on its column."""
    by_row, by_column = (_along(windows, module, grid, axis) for axis in (0, 1))
    return {
        "grid": list(grid),
        "rows": [by_row[int(unit)] for unit in down],
        "columns": [by_column[int(unit)] for unit in across],
        "cells": {"rows": down.tolist(), "columns": across.tolist()},
    }


def _along(windows: Field, module: str, grid: tuple[int, ...], axis: int) -> list[list[int]]:
    """The spans of all units along one axis: followed one by one near the rims, repeated with the period between them.

    Farther from a rim than the halo nothing of the rim is read, so there windows repeat exactly.
    """
    spans: list[list[int]] = []
    first, last, units, pixels = _repeating(windows, module, grid, axis)
    for at in range(grid[axis]):
        if first <= at < last:
            start, stop = spans[at - units]
            spans.append([start + pixels, stop + pixels])
        else:
            unit = [n // 2 for n in grid]
            unit[axis] = at
            spans.append(list(windows.receptive_field(module, unit)[axis]))
    return spans


def _repeating(windows: Field, module: str, grid: tuple[int, ...], axis: int) -> tuple[int, int, int, int]:
    """First and past-the-last unit that repeats another, how many units before it that lies, and how many pixels."""
    stride = windows.grid(module).stride[axis]
    if not windows.tileable or stride is None:
        return 0, 0, 0, 0
    pixels = windows.period[axis]
    units = int(pixels / stride)
    before, after = (side // pixels * units for side in windows.halo()[axis])
    return before + units, grid[axis] - after - units, units, pixels


def influenced_window(lens: Lens, shown: Shown, changed: np.ndarray[Any, Any]) -> tuple[int, int, int, int] | None:
    """Rows and columns of the output that changed input pixels (``H x W`` bool) may influence; None if none changed."""
    if not changed.any():
        return None
    spans = geometry(lens, shown)["layers"]["output"]
    found = []
    for axis, key in ((1, "rows"), (0, "columns")):
        at = np.flatnonzero(changed.any(axis))
        first, last = int(at[0]), int(at[-1])
        sees = [place for place, (start, stop) in enumerate(spans[key]) if start <= last and stop > first]
        if not sees:
            return None
        found.append((sees[0], sees[-1] + 1))
    (top, bottom), (left, right) = found
    return top, bottom, left, right
