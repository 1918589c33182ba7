"""What and where, what each skip delivers, how far each layer sees: measured on a trained network."""

from whatwhere.explain.explain import explain
from whatwhere.explain.explanation import Explanation
from whatwhere.explain.figures import draw_levels, draw_paintings, draw_presence, draw_sight, draw_skips
from whatwhere.explain.report import write_report

__all__ = [
    "Explanation",
    "draw_levels",
    "draw_paintings",
    "draw_presence",
    "draw_sight",
    "draw_skips",
    "explain",
    "write_report",
]
