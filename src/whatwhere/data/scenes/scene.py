"""Cats and cushions: a procedural data set that teaches what a U-Net is for.

The same fur covers cats and cushions, on bodies of the same shapes and sizes. A patch of fur alone cannot tell which
it is: only a head and a tail, or tassels and corners, at the far ends of the body can. So to know *what* a pixel is
takes a view of some 25 pixels to each side, while tails, whiskers and threads, one to three pixels wide, ask *where*.

A scene is a pure function of (seed, index): layout, coats, room and light are drawn from numpy generators seeded with
the pair, and no scene depends on another. Knows nothing of networks.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy import ndimage

from whatwhere.data.scenes.canvas import SIDE, Canvas, Floats, draw_coat
from whatwhere.data.scenes.figures import BODY, CAT, CUSHION, HEAD, THIN, TRIM, Body, Figure, draw_body
from whatwhere.data.scenes.room import Room
from whatwhere.errors import DataError
from whatwhere.records import Classes, color_text
from whatwhere.writing import whole_file

__all__ = ["BODY", "CLASSES", "HEAD", "THIN", "TRIM", "Scene", "render_scene", "write_scenes"]

CLASSES = Classes(
    names=("background", "cat", "cushion"),
    colors=((236, 231, 221), (230, 138, 46), (62, 104, 166)),
    values=((0,), (1,), (2,)),
)
"""Ids 0, 1 and 2; orange and blue, which every kind of colour vision tells apart."""

_MARGIN = 3.0
_OVERLAP = 7.0
_TRIES = 60


@dataclass(frozen=True)
class Scene:
    """A picture, its truth, and which part of a figure each pixel shows.

    Attributes:
        image: HxWx3 uint8 RGB.
        labels: HxW uint8, ids of ``CLASSES``.
        parts: HxW uint8: 0 background, ``BODY`` (the fur that does not tell), ``HEAD`` (a cat's head, ears, paws),
            ``THIN`` (tail, whiskers, cords, threads), ``TRIM`` (a cushion's corners, knots, pompoms).
    """

    image: NDArray[np.uint8]
    labels: NDArray[np.uint8]
    parts: NDArray[np.uint8]

    def telling_distance(self) -> NDArray[np.float64]:
        """HxW: pixels from each pixel to the nearest one of any figure's head, tail, tassel or corner."""
        telling = self.parts > BODY
        if not telling.any():
            return np.full(telling.shape, np.inf)
        distance: NDArray[np.float64] = ndimage.distance_transform_edt(~telling)
        return distance

    def undecidable(self, reach: float = 8.0) -> NDArray[np.bool_]:
        """HxW: body pixels with no telling part within ``reach`` pixels, where a narrower view must guess."""
        hidden: NDArray[np.bool_] = (self.parts == BODY) & (self.telling_distance() > reach)
        return hidden


def render_scene(seed: int, index: int, size: int = SIDE) -> Scene:
    """The scene ``index`` of the data set ``seed``, ``size`` pixels a side.

    Everything is drawn in 1/128 of the side: another size is the same scene, larger or smaller (lines stay at least one
    pixel wide).

    >>> scene = render_scene(0, 0)
    >>> scene.image.shape, scene.labels.shape, int(scene.labels.max()) <= 2
    ((128, 128, 3), (128, 128), True)
    """
    if seed < 0 or index < 0 or size < 16:
        raise DataError(
            f"scene seed {seed}, index {index}, size {size}",
            "seed and index from 0 and a size from 16",
            "give other numbers",
        )
    room, figures = compose(seed, index)
    canvas = Canvas(size)
    backdrop = Canvas(size, fine=1)
    room.draw(backdrop)
    canvas.lay(backdrop)
    for figure in figures:
        figure.draw(canvas)
    labels, parts = canvas.ids()
    return Scene(canvas.image(), labels, parts)


def compose(seed: int, index: int) -> tuple[Room, list[Figure]]:
    """What is in a scene: its room, and its figures from the farthest to the nearest."""
    layout, room, *each = np.random.SeedSequence([seed, index]).spawn(6)
    rng = np.random.default_rng(layout)
    horizon = float(rng.uniform(14, 46))
    return Room(horizon, room), _figures(rng, horizon, each)


def _figures(rng: np.random.Generator, horizon: float, seeds: list[np.random.SeedSequence]) -> list[Figure]:
    """One to four figures, the nearest last. What each one is, is decided after all have their bodies and places."""
    wanted = int(rng.choice([1, 2, 3, 4], p=[0.1, 0.35, 0.35, 0.2]))
    bodies: list[Body] = []
    taken: list[_Outline] = []
    for _ in range(_TRIES):
        body = draw_body(rng)
        outline = _outline(body)
        low, high = _MARGIN - outline.low, SIDE - _MARGIN - outline.high
        low[1] = max(low[1], horizon + 8 - outline.foot)
        if (low > high).any():
            continue
        place = rng.uniform(low, high)
        outline = outline.moved(place)
        if all(_apart(outline, other) for other in taken):
            bodies.append(replace(body, center=(float(place[0]), float(place[1]))))
            taken.append(outline)
        if len(bodies) == wanted:
            break
    order = sorted(range(len(bodies)), key=lambda k: taken[k].foot)
    bodies = [bodies[k] for k in order]
    kinds = [CAT if rng.random() < 0.5 else CUSHION for _ in bodies]
    if len(set(kinds)) == 1 and len(kinds) > 1:
        kinds[rng.integers(len(kinds))] = CUSHION if kinds[0] == CAT else CAT
    return [
        Figure(kind, body, draw_coat(np.random.default_rng(seed.spawn(1)[0])), seed)
        for kind, body, seed in zip(kinds, bodies, seeds)
    ]


@dataclass(frozen=True)
class _Outline:
    """A body as circles (x, y, radius), and the circles kept free at both its ends: alike for cat and cushion."""

    body: Floats
    ends: Floats

    @property
    def low(self) -> Floats:
        """The least (x, y) of all that is reserved."""
        low: Floats = np.concatenate([c[:, :2] - c[:, 2:] for c in (self.body, self.ends)]).min(0)
        return low

    @property
    def high(self) -> Floats:
        """The greatest (x, y)."""
        high: Floats = np.concatenate([c[:, :2] + c[:, 2:] for c in (self.body, self.ends)]).max(0)
        return high

    @property
    def foot(self) -> float:
        """Where the body touches the floor: the greater, the nearer."""
        return float((self.body[:, 1] + self.body[:, 2]).max())

    def moved(self, place: Floats) -> _Outline:
        step = np.array([place[0], place[1], 0.0])
        return _Outline(self.body + step, self.ends + step)


def _outline(body: Body) -> _Outline:
    front, out, _ = body.end(1)
    back, away, _ = body.end(-1)
    rise = np.array([0.0, -2.0 if body.upright else -5.0])
    return _Outline(body.circles(), np.array([[*(front + 3 * out + rise), 13.0], [*(back + 6 * away), 8.0]]))


def _apart(one: _Outline, other: _Outline) -> bool:
    """Bodies may overlap a little; nothing may come over an end, so that every head stays in sight."""
    return (
        _gap(one.body, other.body) > -_OVERLAP
        and _gap(one.ends, other.body) > 0
        and _gap(one.body, other.ends) > 0
        and _gap(one.ends, other.ends) > 0
    )


def _gap(ones: Floats, others: Floats) -> float:
    """The least distance between circles of two sets, negative where they overlap."""
    away = np.hypot(*(ones[:, None, :2] - others[None, :, :2]).transpose(2, 0, 1))
    return float((away - ones[:, None, 2] - others[None, :, 2]).min())


def write_scenes(
    root: str | Path,
    *,
    train: int = 240,
    val: int = 60,
    seed: int = 0,
    size: int = SIDE,
    progress: Callable[[int, int], None] | None = None,
) -> Path:
    """Write the data set as a data folder: ``train/`` and ``val/`` (images, paletted masks) and ``classes.toml``.

    The same arguments write the same bytes. ``val`` shows scenes ``train``, ``train + 1``, ...: none is in both.

    Args:
        root: the folder; made if missing. Files of the same names are replaced.
        progress: called with (scenes written, scenes in all) after each.

    Raises:
        OutputError: the folder cannot be written to.
    """
    folder, total = Path(root), train + val
    for index in range(total):
        split = folder / ("train" if index < train else "val")
        scene = render_scene(seed, index, size)
        mask = Image.fromarray(scene.labels)
        mask.putpalette([channel for color in CLASSES.colors for channel in color])
        _save(Image.fromarray(scene.image), split / "images" / f"scene-{index:04d}.png")
        _save(mask, split / "masks" / f"scene-{index:04d}.png")
        if progress is not None:
            progress(index + 1, total)
    with whole_file(folder / "classes.toml") as partial:
        partial.write_text(_classes_toml(), encoding="utf-8")
    return folder


def _save(picture: Image.Image, path: Path) -> None:
    with whole_file(path) as partial:
        picture.save(partial, format="PNG", compress_level=6)


def _classes_toml() -> str:
    lines = ["# cats and cushions: the same fur covers both; only what is at the ends tells which\n"]
    for value, (name, color) in enumerate(zip(CLASSES.names, CLASSES.colors)):
        lines.append(f'\n[[class]]\nvalue = {value}\nname = "{name}"\ncolor = "{color_text(color)}"\n')
    return "".join(lines)
