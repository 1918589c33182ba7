"""The report: one self-contained page whose headings are the questions, and `measurements.json`.

Knows records and figures; measures nothing. The page needs no network access, follows the reader's light or dark
setting, and prints.
"""

from __future__ import annotations

import base64
import io
import re
import warnings
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup, escape
from matplotlib.figure import Figure
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from whatwhere.explain import figures, words
from whatwhere.explain.explanation import Example, Explanation
from whatwhere.explain.figures import MAIN_SCORES
from whatwhere.explain.pixel import PixelStory
from whatwhere.judge import to_display
from whatwhere.records import Classes, color_text
from whatwhere.writing import whole_file, write_json

__all__ = ["inline_svg", "write_report"]

Picture = NDArray[np.uint8]

_VARIABLES = ("ink", "quiet", "line", "what", "where", "third")


def write_report(explanation: Explanation, folder: Path | str) -> Path:
    """Write ``index.html`` and ``measurements.json`` into a folder; returns the page's path.

    Raises:
        OutputError: the folder cannot be written to.
    """
    folder = Path(folder)
    environment = Environment(
        loader=PackageLoader("whatwhere.explain", "."), autoescape=True, undefined=StrictUndefined, trim_blocks=True,
        lstrip_blocks=True,
    )  # fmt: skip
    page = environment.get_template("report.html").render(_context(explanation))
    with whole_file(folder / "index.html") as partial:
        partial.write_text(page, encoding="utf-8")
    write_json(folder / "measurements.json", explanation.to_json() | {"answers": words.answers(explanation)})
    return folder / "index.html"


def _context(e: Explanation) -> dict[str, Any]:
    scores = [name for name in MAIN_SCORES if name in e.skips.worth]
    tokens = figures.TOKENS
    return {
        "e": e,
        "say": words,
        "classes": [(name, color_text(color)) for name, color in zip(e.classes.names, e.classes.colors)],
        "examples": [_example(e, one) for one in e.examples],
        "rows": _u_rows(e),
        "levels_svg": inline_svg(figures.draw_levels(e.levels, tokens), "what and where by level")
        if e.levels
        else None,
        "sight_svg": inline_svg(figures.draw_sight(e.sights, e.objects, tokens), "how far every layer sees"),
        "skips_svg": inline_svg(figures.draw_skips(e.skips, scores, tokens), "what every path brings")
        if scores and len(e.skips.paths) > 1
        else None,
        "presence_svg": (
            inline_svg(figures.draw_presence(e.presence, e.layers, e.levels, tokens), "yes or no by level")
            if e.presence
            else None
        ),
        "scores": scores,
        "fields": _fields(e),
        "pixel": _pixel(e, e.pixel),
    }


# ---- pictures


def inline_svg(figure: Figure, label: str) -> Markup:
    """The chart as inline SVG whose colours are the page's variables and whose letters are the page's.

    ``label`` is read out in its place: the sentences and tables beside it say what it shows.
    """
    with mpl.rc_context({"svg.fonttype": "none", "svg.hashsalt": "whatwhere"}), warnings.catch_warnings():
        buffer = io.StringIO()
        warnings.filterwarnings("ignore", message="Glyph .* missing")  # the page's letters are the browser's
        figure.savefig(buffer, format="svg", metadata={"Date": None})
    text = buffer.getvalue()
    text = re.sub(r"<metadata>.*?</metadata>", "", text[text.index("<svg") :], flags=re.DOTALL)
    text = re.sub(r'(<svg[^>]*?) width="[^"]*" height="[^"]*"', r"\1", text, count=1)
    text = re.sub(r"<svg ([^>]*?)(width|height)=\"[^\"]*\" ", r"<svg \1", text, count=1)
    text = re.sub(r"font: ([\d.]+px)[^;\"]*", r"font: \1 inherit; font-family: inherit", text)
    for name in _VARIABLES:
        text = text.replace(getattr(figures.TOKENS, name), f"var(--{name})")
    return Markup(text.replace("<svg ", f'<svg role="img" aria-label="{escape(label)}" ', 1))


def _data_url(picture: Image.Image) -> str:
    """A PNG inside the page."""
    buffer = io.BytesIO()
    picture.save(buffer, format="PNG", optimize=True)
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()


def _painted(labels: NDArray[np.uint8], classes: Classes) -> str:
    """Class ids as a PNG of few colours."""
    image = Image.fromarray(labels)
    palette = [90] * 768
    for class_id, color in enumerate(classes.colors):
        palette[3 * class_id : 3 * class_id + 3] = color
    image.putpalette(palette)
    return _data_url(image)


def _example(e: Explanation, example: Example) -> dict[str, Any]:
    return {
        "name": example.case.name,
        "image": _data_url(Image.fromarray(to_display(example.case.raw))),
        "truth": _painted(example.truth, e.classes),
        "answer": _painted(example.painting, e.classes),
        "layers": {name: _painted(labels, e.classes) for name, labels in example.by_layer.items()},
    }


def _u_rows(e: Explanation) -> list[dict[str, Any]]:
    """The U as rows: encoder and decoder of a level, and what its skip is worth."""
    depth = max(layer.level for layer in e.layers)
    names = {layer.name for layer in e.layers}
    worth = [one for one in e.skips.worth.get("mean IoU", ()) if one.path.name != "bottleneck"]
    rows = []
    for level in range(depth):
        rows.append(
            {
                "level": level,
                "encoder": f"encoder.{level}" if f"encoder.{level}" in names else None,
                "decoder": f"decoder.{level}" if f"decoder.{level}" in names else None,
                "worths": [one for one in worth if one.path.level == level],
            }
        )
    return rows


def _fields(e: Explanation) -> list[dict[str, Any]]:
    """The effective receptive field of every layer as a picture, all at one scale, brightest where most
    influence is.
    """
    extents = [sight.theoretical or 0 for sight in e.sights.sights] + [int(s.most.value or 0) for s in e.sights.sights]
    side = min(max(16, *extents), *(one.shape[0] for one in e.sights.maps.values()))
    pictures = []
    for sight in e.sights.sights:
        whole = e.sights.maps[sight.layer]
        middle, reach = whole.shape[0] // 2, side // 2
        part = whole[middle - reach : middle + reach + 1, middle - reach : middle + reach + 1]
        brightness = np.sqrt(part / max(float(part.max()), 1e-30))
        colours = mpl.colormaps["magma"](brightness)[..., :3]
        picture = Image.fromarray((colours * 255).astype(np.uint8)).resize((320, 320), Image.Resampling.BOX)
        pictures.append({"title": sight.title, "sight": sight, "picture": _data_url(_boxed(picture, sight, side))})
    return pictures


def _boxed(picture: Image.Image, sight: Any, side: int) -> Image.Image:
    draw = ImageDraw.Draw(picture)
    for extent, colour in ((sight.theoretical, (150, 160, 175)), (sight.most.value, (255, 255, 255))):
        if extent:
            half = max(1.0, min(160.0, extent / side * 160))
            draw.rectangle((160 - half, 160 - half, 159 + half, 159 + half), outline=colour, width=3)
    return picture


def _pixel(e: Explanation, story: PixelStory) -> dict[str, Any]:
    shown = to_display(story.case.raw)
    at = (story.y - story.case.corner[0], story.x - story.case.corner[1])
    return {
        "windows": _data_url(_with_windows(shown, story, at)),
        "evidence": _data_url(_with_evidence(shown, story, at)),
        "painting": _painted(story.painting, e.classes),
        "truth": _painted(story.case.truth, e.classes) if story.case.truth is not None else None,
        "readings": [
            (layer.title, list(zip(e.classes.names, story.readings[layer.name])))
            for layer in e.layers
            if layer.name in story.readings
        ],
    }


def _with_windows(shown: Picture, story: PixelStory, at: tuple[int, int]) -> Image.Image:
    """The image, enlarged, with the window of each layer's unit as a frame."""
    scale = max(1, 768 // max(shown.shape[:2]))
    image = Image.fromarray(shown).resize((shown.shape[1] * scale, shown.shape[0] * scale), Image.Resampling.NEAREST)
    draw = ImageDraw.Draw(image)
    colours = mpl.colormaps["viridis"](np.linspace(1, 0.25, len(story.windows)))[:, :3]
    for (top_bottom, left_right), colour in zip(story.windows.values(), colours):
        (top, bottom), (left, right) = top_bottom, left_right
        frame = (left * scale, top * scale, right * scale - 1, bottom * scale - 1)
        draw.rectangle(frame, outline=tuple(int(255 * c) for c in colour), width=max(2, round(0.01 * image.width)))
    _mark(draw, at, scale)
    return image


def _with_evidence(shown: Picture, story: PixelStory, at: tuple[int, int]) -> Image.Image:
    """The image in grey; what speaks for the painted class in orange, what speaks against it in blue."""
    from scipy.ndimage import gaussian_filter

    evidence = gaussian_filter(story.evidence, 1.0)
    strong = np.abs(evidence[evidence != 0])  # of a small window in a large image: the rest is nothing
    scale_to = float(np.percentile(strong, 99.7)) if strong.size else 1.0
    strength = np.clip(np.abs(evidence) / scale_to, 0, 1)[..., None] ** 0.7
    grey = (shown @ np.array([0.299, 0.587, 0.114]) * 0.45 + 25)[..., None]
    colour = np.where(evidence[..., None] > 0, np.array([255, 158, 64]), np.array([86, 160, 255]))
    mixed = (grey * (1 - strength) + colour * strength).astype(np.uint8)
    scale = max(1, 768 // max(shown.shape[:2]))
    image = Image.fromarray(mixed).resize((mixed.shape[1] * scale, mixed.shape[0] * scale), Image.Resampling.NEAREST)
    _mark(ImageDraw.Draw(image), at, scale)
    return image


def _mark(draw: ImageDraw.ImageDraw, at: tuple[int, int], scale: int) -> None:
    row, column = ((place + 0.5) * scale for place in at)
    for radius, colour in ((16, (0, 0, 0)), (13, (255, 255, 255))):
        draw.ellipse((column - radius, row - radius, column + radius, row + radius), outline=colour, width=4)
