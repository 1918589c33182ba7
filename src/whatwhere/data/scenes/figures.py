"""Cats and cushions: one body for both, and the parts at its two ends that tell which it is.

A body is a soft sausage, drawn by chance before it is known what it will be. A cat has a head (with ears, face and
whiskers) at one end and a tail at the other; a cushion has corners, tassels or pompoms at both. Nothing else differs,
so only what is at the ends tells the class of the middle. Knows nothing of rooms, nor of where other figures are.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from whatwhere.data.scenes.canvas import Canvas, Coat, Color, Floats, Patch, smoothstep

__all__ = ["BODY", "CAT", "CUSHION", "HEAD", "THIN", "TRIM", "Body", "Figure", "draw_body"]

CAT, CUSHION = 1, 2
BODY, HEAD, THIN, TRIM = 1, 2, 3, 4
"""Parts: the furry body; a cat's head, ears and paws; all that is one to three pixels wide (tails, whiskers, cords,
tassels); a cushion's corners, knots and pompoms."""

_Point = tuple[float, float] | Floats

_PINK: Color = (222, 150, 146)
_INK: Color = (52, 42, 46)
_IRIS: tuple[Color, ...] = ((176, 196, 98), (226, 178, 74), (124, 178, 196), (148, 176, 120))
_RIBBON: tuple[Color, ...] = ((196, 74, 70), (54, 124, 132), (226, 178, 84), (104, 92, 154), (236, 226, 206))
_LIGHT = (-0.55, -0.83)
_SPINE = np.linspace(-1, 1, 7)


@dataclass(frozen=True)
class Body:
    """A bent, tapered sausage. ``along`` runs to the front end (a cat's head), ``across`` to the belly, both in units.

    Attributes:
        center: (x, y) of its middle.
        front, belly: unit vectors of the two directions, at right angles.
        half: half the length of its spine.
        radius, taper: thickness ``radius * (1 + taper * along / half)``.
        bend: how far the tips hang towards the belly.
    """

    center: tuple[float, float]
    front: tuple[float, float]
    belly: tuple[float, float]
    half: float
    radius: float
    taper: float
    bend: float

    def local(self, x: Floats, y: Floats) -> tuple[Floats, Floats]:
        """Places as (along, across), straightened."""
        dx, dy = x - self.center[0], y - self.center[1]
        along = dx * self.front[0] + dy * self.front[1]
        across = dx * self.belly[0] + dy * self.belly[1]
        return along, across - self._sag(along)

    def distance(self, x: Floats, y: Floats) -> Floats:
        """Units to the outline, negative inside (close to the true distance while bend and taper are small)."""
        along, across = self.local(x, y)
        spine = np.clip(along, -self.half, self.half)
        return np.hypot(along - spine, across) - self.thickness(spine)

    def thickness(self, along: Floats) -> Floats:
        return self.radius * (1 + self.taper * along / self.half)

    def point(self, along: float, across: float) -> Floats:
        """The place (x, y) at (along, across)."""
        lift = across + float(self._sag(np.asarray(along)))
        return np.asarray(self.center) + along * np.asarray(self.front) + lift * np.asarray(self.belly)

    def end(self, side: int) -> tuple[Floats, Floats, float]:
        """Tip of the front (+1) or back (-1) end, the way out there, and the thickness."""
        thick = float(self.thickness(np.asarray(side * self.half)))
        root, inner = self.point(side * self.half, 0), self.point(side * (self.half - 1), 0)
        out = (root - inner) / np.hypot(*(root - inner))
        return root + thick * out, out, thick

    def circles(self) -> Floats:
        """The body as rows (x, y, radius)."""
        along = self.half * _SPINE
        places = np.asarray(self.center) + np.outer(along, self.front) + np.outer(self._sag(along), self.belly)
        return np.column_stack([places, self.thickness(along)])

    def _sag(self, along: Floats) -> Floats:
        return self.bend * (along / (self.half + self.radius)) ** 2

    @property
    def upright(self) -> bool:
        return abs(self.front[1]) > abs(self.front[0])


def draw_body(rng: np.random.Generator) -> Body:
    """A body at (0, 0) by chance, lying or upright, whoever it will belong to."""
    if rng.random() < 0.3:
        angle, radius, length = -np.pi / 2 + rng.uniform(-0.16, 0.16), rng.uniform(12.5, 14.5), rng.uniform(54, 61)
        taper, bend = rng.uniform(-0.24, -0.12), rng.uniform(-2, 6)
    else:
        angle, radius, length = rng.uniform(-0.22, 0.22), rng.uniform(12, 15), rng.uniform(58, 67)
        taper, bend = rng.uniform(-0.12, 0.06), rng.uniform(-1, 9)
    side = 1.0 if rng.random() < 0.5 else -1.0
    cos, sin = float(np.cos(angle)), float(np.sin(angle))
    front, belly = (side * cos, sin), (-side * sin, cos)
    return Body((0.0, 0.0), front, belly, length / 2 - radius, radius, taper, bend)


@dataclass(frozen=True)
class Figure:
    """A body in its coat, and what it is.

    Attributes:
        kind: ``CAT`` or ``CUSHION``.
        seed: of everything that is drawn by chance on it.
    """

    kind: int
    body: Body
    coat: Coat
    seed: np.random.SeedSequence

    def draw(self, canvas: Canvas) -> None:
        rng = np.random.default_rng(self.seed)
        self._shadow(canvas)
        if self.kind == CAT:
            _tail(canvas, self.body, self.coat, rng)
            self._fur(canvas)
            _paws(canvas, self.body, self.coat)
            _Head(self.body, self.coat, rng).draw(canvas, rng)
        else:
            style = rng.integers(3)
            ribbon = _RIBBON[rng.integers(len(_RIBBON))]
            for side in (-1, 1):
                (_corners, _tassel, _pompom)[style](canvas, self.body, side, self.coat, ribbon, rng)
            self._fur(canvas)

    def _window(self, canvas: Canvas, margin: float) -> Patch:
        circles = self.body.circles()
        low, high = (circles[:, :2] - circles[:, 2:]).min(0), (circles[:, :2] + circles[:, 2:]).max(0)
        return canvas.patch(*(low - margin), *(high + margin))

    def _shadow(self, canvas: Canvas) -> None:
        patch = self._window(canvas, 10)
        away = self.body.distance(patch.x - 2.0, patch.y - 3.2)
        patch.tint(0.42 * smoothstep(6.5, -3, away), (38, 28, 40))

    def _fur(self, canvas: Canvas) -> None:
        patch = self._window(canvas, 2)
        away = self.body.distance(patch.x, patch.y)
        along, across = self.body.local(patch.x, patch.y)
        _cover(patch, away, along, across, self.coat, self.body.radius, self.kind, BODY)


def _cover(
    patch: Patch, away: Floats, along: Floats, across: Floats, coat: Coat, deep: float, kind: int, part: int
) -> None:
    """Fur over all that is inside ``away < 0``: ruffled rim, rounded by light, inked at the edge."""
    near = away < 1.2
    tuft = np.full(away.shape, 9.0, np.float32)
    tuft[near] = away[near] + 0.32 * coat.ruffle(along[near], across[near])
    inside = tuft < 0
    slope_y, slope_x = np.gradient(away)[:2]
    steep = np.hypot(slope_x, slope_y)[inside] + 1e-6
    facing = (slope_x[inside] * _LIGHT[0] + slope_y[inside] * _LIGHT[1]) / steep
    rim = np.clip(1 + away[inside] / deep, 0, 1)
    light = 1.04 + 0.26 * facing * rim**1.5 - 0.16 * rim**3
    ink = 0.5 * smoothstep(-1.5, -0.2, tuft[inside])[:, None]
    color = coat.fur(along[inside], across[inside]) * light[:, None] * (1 - ink) + 12 * ink
    patch.paint(inside, color, kind, part)


def _curve(points: list[Floats], count: int = 14) -> Floats:
    """A smooth line: the Bezier curve of these control points."""
    t = np.linspace(0, 1, count)[:, None]
    rows = [np.broadcast_to(p, (count, 2)) for p in points]
    while len(rows) > 1:
        rows = [(1 - t) * a + t * b for a, b in pairwise(rows)]
    return rows[0]


def _turn(vector: Floats, angle: float) -> Floats:
    cos, sin = np.cos(angle), np.sin(angle)
    return np.array([cos * vector[0] - sin * vector[1], sin * vector[0] + cos * vector[1]])


def _dark(color: Color, share: float) -> Color:
    return (color[0] * share, color[1] * share, color[2] * share)


def _tail(canvas: Canvas, body: Body, coat: Coat, rng: np.random.Generator) -> None:
    """Two to three pixels wide, out of the back end and curling up."""
    tip, out, thick = body.end(-1)
    belly = np.asarray(body.belly)
    root = tip - 2.5 * out + 0.35 * thick * belly
    if body.upright:
        out, belly = belly * rng.choice((-1, 1)), np.array([0.0, 1.0])
        root = tip - 5.0 * body.end(-1)[1] + 0.85 * thick * out
    reach, lift = rng.uniform(13, 16), rng.uniform(10, 17)
    bow = root + 0.8 * reach * out + 3 * belly
    high = root + 1.15 * reach * out - 0.6 * lift * belly
    line = _curve([root, bow, high, root + rng.uniform(0.45, 0.95) * reach * out - lift * belly])
    width = np.linspace(3.0, 2.2, len(line))
    canvas.stroke(line, width, _dark(coat.base, 0.62), CAT, THIN)
    canvas.stroke(line - np.array([0.25, 0.3]), 0.62 * width, coat.base, CAT, THIN)
    canvas.stroke(line[-4:], width[-4:], _dark(coat.mark, 0.9), CAT, THIN)


def _paws(canvas: Canvas, body: Body, coat: Coat) -> None:
    """Two toes peeping out below: under the head of a cat that lies, at the foot of one that sits."""
    spots: list[Floats]
    if body.upright:
        tip, out, _ = body.end(-1)
        side = np.array([-out[1], out[0]])
        spots = [tip - 0.9 * out + 4.0 * side, tip - 0.9 * out - 4.0 * side]
    else:
        _, _, thick = body.end(1)
        spots = [body.point(body.half + 3.5, thick - 1.2), body.point(body.half + 9.5, thick - 2.4)]
    for x, y in spots:
        patch = canvas.patch(x - 5, y - 4, x + 5, y + 4)
        dx, dy = patch.x - x, patch.y - y
        away = (np.hypot(dx / 3.7, dy / 2.5) - 1) * 2.8
        _cover(patch, away, dx + 20, dy, coat, 2.6, CAT, HEAD)
        for toe in (-1.1, 1.1):
            line = np.array([[x + toe, y + 0.3], [x + toe, y + 1.9]])
            canvas.stroke(line, np.full(2, 0.5), _dark(coat.mark, 0.6), CAT, HEAD)


class _Head:
    """A cat's head on the front end of its body; drawn in its own frame, in which it has radius 1 and is not tilted."""

    def __init__(self, body: Body, coat: Coat, rng: np.random.Generator) -> None:
        tip, out, _ = body.end(1)
        self.radius = float(rng.uniform(8.6, 9.6))
        rise = 1.5 if body.upright else 4.5
        self.x, self.y = tip + (0.28 * self.radius) * out - np.array([0.0, rise])
        self.tilt = float(rng.uniform(-0.16, 0.16))
        self.collar = body.upright and rng.random() < 0.6
        self.coat = coat

    def place(self, x: float, y: float) -> Floats:
        """A place of the head's frame in the picture's units."""
        place: Floats = np.array([self.x, self.y]) + self.radius * _turn(np.array([x, y]), self.tilt)
        return place

    def draw(self, canvas: Canvas, rng: np.random.Generator) -> None:
        if self.collar:
            band = _curve([self.place(-0.72, 0.62), self.place(0, 1.3), self.place(0.72, 0.62)])
            canvas.stroke(band, np.full(len(band), 2.0), _RIBBON[rng.integers(len(_RIBBON))], CAT, HEAD)
            _ball(canvas, self.place(0, 1.08), 1.6, (236, 190, 84), CAT, HEAD)
        reach = 1.75 * self.radius
        patch = canvas.patch(self.x - reach, self.y - reach, self.x + reach, self.y + reach)
        cos, sin = np.cos(self.tilt), np.sin(self.tilt)
        dx, dy = (patch.x - self.x) / self.radius, (patch.y - self.y) / self.radius
        x, y = cos * dx + sin * dy, cos * dy - sin * dx
        self._ears(patch, x, y)
        away = ((np.abs(x / 1.12) ** 2.4 + np.abs(y / 0.9) ** 2.4) ** (1 / 2.4) - 1) * self.radius
        _cover(patch, away, self.radius * y + 40, self.radius * x, self.coat, 0.8 * self.radius, CAT, HEAD)
        self._muzzle(patch, x, y)
        if rng.random() < 0.3:
            self._asleep(canvas)
        else:
            self._awake(patch, x, y, _IRIS[rng.integers(len(_IRIS))], float(rng.uniform(0.05, 0.1)))
        self._whiskers(canvas, rng)

    def _ears(self, patch: Patch, x: Floats, y: Floats) -> None:
        for side in (-1, 1):
            u = side * x
            ear = _triangle(u, y, (0.1, -0.62), (1.06, -0.22), (0.86, -1.42))
            inner = _triangle(u, y, (0.42, -0.7), (0.9, -0.5), (0.8, -1.16))
            _cover(patch, ear * self.radius, self.radius * y + 40, self.radius * x, self.coat, 4.0, CAT, HEAD)
            patch.paint((inner < 0) & (ear < -0.1), _PINK)

    def _muzzle(self, patch: Patch, x: Floats, y: Floats) -> None:
        pale = np.asarray(self.coat.pale, np.float32)
        soft = np.maximum(
            smoothstep(1.1, 0.7, np.hypot((np.abs(x) - 0.2) / 0.34, (y - 0.42) / 0.3)),
            0.7 * smoothstep(1.1, 0.5, np.hypot(x / 0.16, (y + 0.1) / 0.5)),
        )
        patch.color[:] += (0.8 * soft)[..., None] * (pale - patch.color)
        blush = 0.3 * smoothstep(1.0, 0.2, np.hypot((np.abs(x) - 0.74) / 0.26, (y - 0.34) / 0.2))
        patch.tint(blush, (232, 130, 120))
        patch.paint(_triangle(x, y, (-0.15, 0.2), (0.15, 0.2), (0.0, 0.37)) < 0, (206, 112, 112))
        smile = np.abs(y - 0.46 + 1.5 * (np.abs(x) - 0.13) ** 2 * 3) < 0.045
        patch.paint(smile & (np.abs(x) < 0.27), _INK)

    def _awake(self, patch: Patch, x: Floats, y: Floats, iris: Color, slit: float) -> None:
        u = np.abs(x) - 0.47
        away = np.hypot(u / 0.25, (y + 0.07 + 0.14 * u) / 0.25)
        patch.paint(away < 1.22, _INK)
        patch.paint(away < 0.94, iris)
        patch.paint(np.hypot(u / slit, (y + 0.07) / 0.2) < 1, (24, 20, 26))
        for side in (-1, 1):
            patch.paint(np.hypot(x - side * 0.47 + 0.08, y + 0.15) < 0.075, (255, 252, 244))

    def _asleep(self, canvas: Canvas) -> None:
        for side in (-1, 1):
            lid = _curve(
                [self.place(side * 0.25, -0.06), self.place(side * 0.47, 0.2), self.place(side * 0.7, -0.06)], 7
            )
            canvas.stroke(lid, np.full(len(lid), 1.0), _INK, CAT, HEAD)

    def _whiskers(self, canvas: Canvas, rng: np.random.Generator) -> None:
        """One pixel wide; they start where the cheek ends."""
        for side in (-1, 1):
            for lean in (-0.12, 0.26):
                far = 1.66 + float(rng.uniform(-0.1, 0.1))
                points = [self.place(side * 0.72, 0.38 + 0.3 * lean), self.place(side * 1.25, 0.32 + lean)]
                line = _curve([*points, self.place(side * far, 0.46 + 1.2 * lean)], 7)
                canvas.stroke(line, np.full(len(line), 1.0), (250, 246, 236), CAT, THIN)


def _triangle(x: Floats, y: Floats, a: _Point, b: _Point, c: _Point) -> Floats:
    """About the distance to a triangle's outline, negative inside, corners rounded a little."""
    turn = np.sign((b[0] - a[0]) * (c[1] - a[1]) - (b[1] - a[1]) * (c[0] - a[0]))
    sides = []
    for (px, py), (qx, qy) in ((a, b), (b, c), (c, a)):
        length = float(np.hypot(qx - px, qy - py))
        sides.append(-turn * ((qx - px) * (y - py) - (qy - py) * (x - px)) / length)
    sharp = 18.0
    result: Floats = np.log(sum(np.exp(sharp * np.clip(side, -3, 3)) for side in sides)) / sharp
    return result


def _strands(canvas: Canvas, root: Floats, out: Floats, angles: Floats, length: float, color: Color) -> None:
    """A fan of threads one pixel wide, hanging a little."""
    for angle in angles:
        way = _turn(out, float(angle))
        end = root + length * way + np.array([0.0, 0.12 * length])
        line = _curve([root, root + 0.6 * length * way, end], 5)
        canvas.stroke(line, np.full(len(line), 1.0), color, CUSHION, THIN)


def _ball(canvas: Canvas, center: Floats, radius: float, color: Color, kind: int, part: int) -> None:
    """A round knot or bell, lit from above."""
    x, y = center
    patch = canvas.patch(x - radius - 1, y - radius - 1, x + radius + 1, y + radius + 1)
    away = np.hypot(patch.x - x, patch.y - y)
    inside = away < radius
    light = (
        1.0 - 0.3 * smoothstep(-radius, radius, patch.x - x + patch.y - y)[inside] - 0.25 * (away[inside] / radius) ** 4
    )
    patch.paint(inside, light[:, None] * np.asarray(color, np.float32), kind, part)


def _tassel(canvas: Canvas, body: Body, side: int, coat: Coat, ribbon: Color, rng: np.random.Generator) -> None:
    """A bolster's end: cord, knot and a fan of threads."""
    del coat
    tip, out, _ = body.end(side)
    knot = tip + 3.6 * out
    canvas.stroke(np.array([tip - 2 * out, knot]), np.full(2, 2.2), _dark(ribbon, 0.75), CUSHION, THIN)
    _strands(canvas, knot, out, np.linspace(-0.75, 0.75, 5), float(rng.uniform(8, 10)), ribbon)
    _ball(canvas, knot, 2.5, _dark(ribbon, 0.95), CUSHION, TRIM)


def _pompom(canvas: Canvas, body: Body, side: int, coat: Coat, ribbon: Color, rng: np.random.Generator) -> None:
    """A ball of threads."""
    del coat, rng
    tip, out, _ = body.end(side)
    middle = tip + 3.4 * out
    _strands(canvas, middle, out, np.linspace(-2.6, 2.6, 11), 5.4, _dark(ribbon, 0.8))
    _ball(canvas, middle, 4.0, ribbon, CUSHION, TRIM)


def _corners(canvas: Canvas, body: Body, side: int, coat: Coat, ribbon: Color, rng: np.random.Generator) -> None:
    """A pillow's end: two furry points, each with a little thread or two."""
    tip, out, thick = body.end(side)
    root = tip - thick * out
    for way in (-1, 1):
        lean = _turn(out, way * 0.88)
        point = root + (thick + 5.0) * lean
        a, b = (root + 0.99 * thick * _turn(out, way * t) for t in (0.3, 1.4))
        patch = canvas.patch(point[0] - 15, point[1] - 15, point[0] + 15, point[1] + 15)
        away = 10 * _triangle(
            (patch.x - root[0]) / 10, (patch.y - root[1]) / 10, *((p - root) / 10 for p in (a, b, point))
        )
        along, across = body.local(patch.x, patch.y)
        _cover(patch, away, along, across, coat, 4.0, CUSHION, TRIM)
        _strands(canvas, point - 1.2 * lean, lean, np.array([-0.35, 0.35]), float(rng.uniform(4.5, 6)), ribbon)
