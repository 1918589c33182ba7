"""How large a pixel is in a TIFF, as its many kinds say it: for what is painted from it. Knows nothing of pixels."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

from whatwhere.data.tiffs import main_series, open_tiff

__all__ = ["PixelSize", "pixel_size"]

PixelSize = tuple[float, float]
"""Height and width of a pixel in micrometres."""

_MICROMETRES = {"nm": 1e-3, "µm": 1.0, "um": 1.0, "micron": 1.0, "microns": 1.0, "mm": 1e3, "cm": 1e4, "m": 1e6,
                "inch": 25400.0, "in": 25400.0}  # fmt: skip
_UNITS = {2: 25400.0, 3: 1e4}
"""Inch and centimetre (TIFF 6.0, tag 296)."""


def pixel_size(path: Path, size: tuple[int, int]) -> PixelSize | None:
    """Of the image in a TIFF file, or of a level of it that has this height and width; None where nothing says it."""
    try:
        with open_tiff(path) as file:
            page = main_series(file).keyframe
            found = _of_ome(file) or _of_slide(page) or _of_tags(file, page)
            whole = page.imagelength, page.imagewidth
    except Exception:  # noqa: BLE001 (who reads the pixels says what is wrong with the file)
        return None
    if found is None or not all(0 < one < 1e9 for one in found):
        return None
    if (whole[0] > whole[1]) != (size[0] > size[1]) and whole[0] != whole[1]:  # it lies on its side in the file
        whole, found = whole[::-1], found[::-1]
    return found[0] * whole[0] / size[0], found[1] * whole[1] / size[1]


def _of_ome(file: Any) -> PixelSize | None:
    if not file.is_ome:
        return None
    pixels = next((one for one in ElementTree.fromstring(file.ome_metadata).iter() if one.tag.endswith("Pixels")), None)
    if pixels is None:
        return None
    sides = []
    for axis in "YX":
        unit = _MICROMETRES.get(pixels.get(f"PhysicalSize{axis}Unit", "µm"))
        length = pixels.get(f"PhysicalSize{axis}")
        if unit is None or length is None:
            return None
        sides.append(float(length) * unit)
    return sides[0], sides[1]


def _of_slide(page: Any) -> PixelSize | None:
    """Aperio's micrometres per pixel."""
    found = re.search(r"\|\s*MPP\s*=\s*([\d.]+)", page.description)
    return (float(found[1]), float(found[1])) if found else None


def _of_tags(file: Any, page: Any) -> PixelSize | None:
    """Pixels per inch, centimetre, or ImageJ's own unit."""
    unit = _UNITS.get(int(page.tags.valueof(296, default=2)))
    if unit is None and file.is_imagej:
        unit = _MICROMETRES.get(str((file.imagej_metadata or {}).get("unit", "")).replace("\\u00B5", "µ"))
    steps = [page.tags.valueof(tag) for tag in (283, 282)]
    if unit is None or any(step is None or not step[0] for step in steps):
        return None
    return unit * steps[0][1] / steps[0][0], unit * steps[1][1] / steps[1][0]
