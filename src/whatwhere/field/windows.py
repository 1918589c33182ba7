"""Follow a window backward through a graph, from a step's result to the image.

Knows the graph and the rules; knows nothing of which axes are space, of layers or of tiles.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from whatwhere.field.graph import Graph, Source
from whatwhere.field.rules import Spans, reads
from whatwhere.field.spans import clip

__all__ = ["Trace", "is_empty", "trace"]


def is_empty(spans: Spans) -> bool:
    return any(span.stop <= span.start for span in spans)


def _hull(first: Spans | None, second: Spans) -> Spans:
    return second if first is None else tuple(one.hull(other) for one, other in zip(first, second))


@dataclass(frozen=True)
class Trace:
    """What one window of a step's result reads.

    Attributes:
        windows: for each step that is read, its window, clipped to what exists. Windows that meet are joined by hull.
        touched: whether any step on the way asked for something beyond its axis (padding).
    """

    windows: dict[int, Spans]
    touched: bool

    @property
    def image(self) -> Spans | None:
        """The window of the image; None if no pixel is read."""
        return self.windows.get(0)


def _clipped(source: Source, spans: Spans, everything: tuple[bool, ...]) -> tuple[Spans, bool]:
    """A window within what exists, and whether it went beyond along an axis of which not `everything` is made."""
    cut = [span if span.start >= 0 and span.stop <= size else clip(span.start, span.stop, size, span.step)
           for span, size in zip(spans, source.shape)]  # fmt: skip
    same = everything if len(everything) == len(spans) else (False,) * len(spans)
    touched = any((span.touched or inner.touched) and not all_ for span, inner, all_ in zip(spans, cut, same))
    return tuple(span._replace(touched=False) for span in cut), touched


def step_reads(graph: Graph, place: int, spans: Spans) -> Iterator[tuple[int, Spans, bool]]:
    """What one step reads: places of earlier steps, their windows, and whether padding was asked for.

    What is padded along an axis of which all is made, as of a spectrum or within windows, is so in every tile.
    """
    step = graph.steps[place]
    everything = tuple((span.start, span.stop, span.step) == (0, size, 1) for span, size in zip(spans, step.shape))
    for source, window in reads(step, spans):
        clipped, touched = _clipped(source, window, everything)
        yield source.step, clipped, touched


def trace(graph: Graph, place: int, spans: Spans) -> Trace:
    """Follow the window `spans` of step `place` back to the image (step 0)."""
    windows: dict[int, Spans] = {} if is_empty(spans) else {place: spans}
    touched = False
    for at in range(place, 0, -1):
        if at not in windows:
            continue
        for earlier, window, beyond in step_reads(graph, at, windows[at]):
            touched |= beyond
            if not is_empty(window):
                windows[earlier] = _hull(windows.get(earlier), window)
    return Trace(windows, touched)
