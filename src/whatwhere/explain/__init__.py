"""What and where, what each skip delivers, how far each layer sees: measured on a trained network.

The room is called like the verb, so the module itself can be called: ``whatwhere.explain(model, "cells/")`` takes
models and folders, as :func:`whatwhere.verbs.explain` says. The function ``explain`` in here takes a model and an image
set.
"""

import sys

from whatwhere import ExplainRoom
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

sys.modules[__name__].__class__ = ExplainRoom
