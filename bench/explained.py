"""What the benchmarks of `explain` keep of a network, so that pages are made of files and nothing is done twice."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from whatwhere.data.sets import ImageSet
from whatwhere.explain import draw_levels, draw_paintings, draw_sight, draw_skips, explain, write_report
from whatwhere.explain.figures import MAIN_SCORES
from whatwhere.network import Model

__all__ = ["explained", "kept_json"]


def explained(model: Model, images: ImageSet, folder: Path, count: int) -> dict[str, Any]:
    """The measurements of one network: report, charts and paintings in a folder; read back if they are there."""
    measurements = folder / "measurements.json"
    if not measurements.is_file():
        told = explain(model, images, images=count)
        folder.mkdir(parents=True, exist_ok=True)
        charts = {"sight": draw_sight(told.sights, told.objects)}
        if told.levels is not None:
            charts["levels"] = draw_levels(told.levels)
        if len(told.skips.paths) > 1:
            charts["skips"] = draw_skips(told.skips, [one for one in MAIN_SCORES if one in told.skips.worth])
        charts |= {f"painted-{which}": draw_paintings(told, which) for which in range(len(told.examples))}
        for name, figure in charts.items():
            figure.savefig(folder / f"{name}.png", dpi=110, facecolor="white")
        write_report(told, folder)  # last: the measurements tell that all is there
        print(told, flush=True)
    return kept_json(measurements)


def kept_json(path: Path) -> Any:
    """What a JSON file holds."""
    return json.loads(path.read_text(encoding="utf-8"))
