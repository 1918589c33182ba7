"""Interval arithmetic on one axis: which input indices does a run of output indices read?

Plain Python integers, one function an index formula. Knows nothing of operators, tensors or images.

A `Span` is half-open. Functions return it clipped to the axis ``[0, size)`` and *tight*: its first and last index are
really read. ``touched`` says that something beyond the axis was asked for too (padding, a clamped or mirrored index):
whoever cuts the axis shorter there changes the answer.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from fractions import Fraction
from math import ceil, floor, gcd, prod
from typing import NamedTuple

__all__ = [
    "Span", "adaptive", "clip", "cubic", "flattened", "is_exact", "linear", "nearest", "padded", "smooth", "spread",
    "taps", "whole",
]  # fmt: skip


class Span(NamedTuple):
    """The indices ``start, start + step ... < stop`` of an axis; empty when ``stop <= start``.

    An axis that several were flattened to, as rows and columns of windows are, may hold a box of those: ``parts`` are
    their sizes and spans, and of the indices from ``start`` to ``stop`` only those of the box are meant. What does not
    heed them, or makes a span anew without them, takes all in between.
    """

    start: int
    stop: int
    touched: bool = False
    step: int = 1
    parts: tuple[tuple[int, Span], ...] = ()

    def __repr__(self) -> str:
        step = f", step={self.step}" if self.step != 1 else ""
        parts = f", parts={self.parts}" if self.parts else ""
        return f"Span({self.start}, {self.stop}{step}{', touched=True' if self.touched else ''}{parts})"

    @property
    def length(self) -> int:
        """How many indices lie in it, of the box or from end to end."""
        return prod(span.length for _, span in self.parts) if self.parts else self.stop - self.start

    @property
    def indices(self) -> range:
        return range(self.start, self.stop, self.step)

    @property
    def spacing(self) -> int:
        """The step, or 0 for a single index: what `gcd` takes."""
        return self.step if self.stop - self.start > 1 else 0

    def hull(self, other: Span) -> Span:
        touched = self.touched or other.touched
        if self.stop <= self.start:
            return other._replace(touched=touched)
        if other.stop <= other.start:
            return self._replace(touched=touched)
        if self.parts and [size for size, _ in self.parts] == [size for size, _ in other.parts]:
            both = zip(self.parts, other.parts)
            return flattened(tuple((size, one.hull(two)) for (size, one), (_, two) in both))._replace(touched=touched)
        step = gcd(self.spacing, other.spacing, self.start - other.start) or 1
        return Span(min(self.start, other.start), max(self.stop, other.stop), touched, step)


def whole(size: int) -> Span:
    return Span(0, size)


def flattened(parts: tuple[tuple[int, Span], ...]) -> Span:
    """A box of several axes, given as their sizes and spans, as a span of the one axis that they are flattened to.

    >>> flattened(((4, Span(1, 3)), (8, Span(0, 2))))
    Span(8, 18, parts=((4, Span(1, 3)), (8, Span(0, 2))))
    """
    first = last = 0
    for size, span in parts:
        first, last = first * size + span.start, last * size + span.stop - 1
    return Span(first, last + 1, parts=parts)


def clip(start: int, stop: int, size: int, step: int = 1) -> Span:
    """Cut a run of indices to the axis and remember whether that took anything away.

    >>> clip(-1, 2, 8)
    Span(0, 2, touched=True)
    >>> clip(-3, 6, 8, step=2)
    Span(1, 6, step=2, touched=True)
    """
    run = range(start, stop, step)
    low = start % step if start < 0 else start
    inside = range(low, min(stop, size), step)
    touched = bool(run) and (run[0] < 0 or run[-1] >= size)
    return Span(inside[0], inside[-1] + 1, touched, step) if inside else Span(0, 0, touched)


def _ends(run: Span, size: int, indices: Callable[[int], Iterable[int]]) -> tuple[int, int]:
    """First and last index inside the axis that the outputs of `run` read, walking in from both ends."""

    def inside(outputs: Iterable[int], best: Callable[[Iterable[int]], int], done: Callable[[int], bool]) -> int | None:
        found: int | None = None
        for output in outputs:
            read = [index for index in indices(output) if 0 <= index < size]
            if read:
                found = best(read) if found is None else best((found, best(read)))
            if found is not None and done(output):
                break
        return found

    # once an output's own first tap is inside, no later output reads anything smaller (taps rise with the output)
    low = inside(run.indices, min, lambda output: min(indices(output), default=-1) >= 0)
    high = inside(reversed(run.indices), max, lambda output: max(indices(output), default=size) < size)
    return (0, 0) if low is None or high is None else (low, high + 1)


def taps(run: Span, size: int, kernel: int, stride: int = 1, dilation: int = 1, padding: int = 0) -> Span:
    """A sliding kernel: output ``o`` reads ``o * stride - padding + t * dilation`` for ``t`` in ``range(kernel)``.

    >>> taps(Span(4, 5), size=16, kernel=3, padding=1)
    Span(3, 6)
    >>> taps(Span(1, 2), size=16, kernel=3, dilation=2, padding=2)  # -1 is padding; 0 is skipped
    Span(1, 4, step=2, touched=True)
    """
    start = run.start * stride - padding
    stop = run.indices[-1] * stride - padding + (kernel - 1) * dilation + 1
    step = gcd(run.spacing * stride, dilation if kernel > 1 else 0) or 1
    if start >= 0 and stop <= size:
        return Span(start, stop, False, step)
    low, high = _ends(
        run, size, lambda o: range(o * stride - padding, o * stride - padding + kernel * dilation, dilation)
    )
    return Span(low, high, True, step)


def spread(run: Span, size: int, kernel: int, stride: int = 1, dilation: int = 1, padding: int = 0) -> Span:
    """A transposed kernel: input ``i`` writes ``i * stride - padding + t * dilation``; which inputs write `run`?

    >>> spread(Span(4, 5), size=8, kernel=2, stride=2)
    Span(2, 3)
    """
    reach = (kernel - 1) * dilation
    first = ceil(Fraction(run.start + padding - reach, stride))
    last = floor(Fraction(run.stop - 1 + padding, stride))

    def writes(index: int) -> bool:
        return any(index * stride - padding + t * dilation in run.indices for t in range(kernel))

    asked = [index for index in range(first, min(last + 1, 0)) if writes(index)]
    asked += [index for index in range(max(first, size), last + 1) if writes(index)]
    low = next((i for i in range(max(first, 0), min(last, size - 1) + 1) if writes(i)), None)
    high = next((i for i in range(min(last, size - 1), max(first, 0) - 1, -1) if writes(i)), None)
    if low is None or high is None:
        return Span(0, 0, bool(asked))
    return Span(low, high + 1, bool(asked))


def adaptive(run: Span, size: int, bins: int) -> Span:
    """Adaptive pooling: bin ``o`` reads ``floor(o * size / bins) .. ceil((o + 1) * size / bins)``.

    >>> adaptive(Span(1, 2), size=10, bins=3)
    Span(3, 7)
    """
    return Span(run.start * size // bins, -(-run.stop * size // bins))


def _source(output: int, scale: Fraction, aligned: bool) -> Fraction:
    return output * scale if aligned else (output + Fraction(1, 2)) * scale - Fraction(1, 2)


def is_exact(scale: Fraction, size: int) -> bool:
    """Whether torch's float index is: for powers of two that fit float32."""
    fits = scale.denominator <= 64 or size * scale.denominator < 2**23
    return scale.denominator & (scale.denominator - 1) == 0 and scale.denominator < 2**16 and fits


def _slack(scale: Fraction, size: int) -> Fraction:
    """How far torch's float index can be off: nothing where it is exact, else its rounding."""
    return Fraction(0) if is_exact(scale, size) else Fraction(size + 1, 2**21)


def nearest(run: Span, size: int, scale: Fraction, centred: bool = False) -> Span:
    """Nearest-neighbour interpolation: output ``o`` reads ``floor(o * scale)``, or the nearest centre (`centred`).

    >>> nearest(Span(5, 6), size=8, scale=Fraction(1, 2))
    Span(2, 3)
    """
    slack, shift = _slack(scale, size), Fraction(1, 2) if centred else Fraction(0)
    low = floor((run.start + shift) * scale - slack)
    high = floor((run.stop - 1 + shift) * scale + slack)
    return Span(max(min(low, size - 1), 0), max(min(high, size - 1), 0) + 1, high >= size)


def _interpolated(run: Span, size: int, scale: Fraction, aligned: bool, before: int, after: int) -> Span:
    slack = _slack(scale, size)

    def ends(output: int) -> tuple[int, int]:
        source = _source(output, scale, aligned)
        if not slack and source.denominator == 1:
            return int(source), int(source)  # every other neighbour has weight zero
        return floor(source - slack) - before, floor(source + slack) + after

    # a unit with whole-numbered source reads less than its neighbours, so look at two units from either side
    outputs = {*range(run.start, min(run.start + 4, run.stop)), *range(max(run.stop - 4, run.start), run.stop)}
    spans = [ends(output) for output in outputs]
    low, high = min(start for start, _ in spans), max(stop for _, stop in spans)
    return Span(max(min(low, size - 1), 0), min(max(high, 0), size - 1) + 1, low < 0 or high >= size)


def linear(run: Span, size: int, scale: Fraction, aligned: bool) -> Span:
    """Linear interpolation on one axis (bilinear, trilinear): the two neighbours whose weight is not zero.

    >>> linear(Span(4, 5), size=8, scale=Fraction(1, 2), aligned=False)
    Span(1, 3)
    """
    return _interpolated(run, size, scale, aligned, before=0, after=1)


def cubic(run: Span, size: int, scale: Fraction, aligned: bool) -> Span:
    """Cubic interpolation on one axis: two neighbours on either side."""
    return _interpolated(run, size, scale, aligned, before=1, after=2)


def smooth(run: Span, size: int, scale: Fraction, support: int) -> Span:
    """Antialiased interpolation: a filter of ``support * max(scale, 1)`` around the centre of each output."""
    reach, slack = support * max(scale, Fraction(1)), Fraction(size + 1, 2**21)
    low = floor((run.start + Fraction(1, 2)) * scale - reach + Fraction(1, 2) - slack)
    high = floor((run.stop - Fraction(1, 2)) * scale + reach + Fraction(1, 2) + slack)
    return clip(low, max(high, low + 1), size)


def padded(run: Span, size: int, before: int, mode: str) -> Span:
    """An axis padded by `before` in front (and whatever it takes behind), by `mode` as `torch.nn.functional.pad`.

    >>> padded(Span(0, 2), size=8, before=2, mode="reflect")
    Span(1, 3, touched=True)
    >>> padded(Span(0, 2), size=8, before=2, mode="circular")
    Span(6, 8, touched=True)
    """
    start, stop = run.start - before, run.stop - before
    inner = clip(start, stop, size, run.step)
    if mode == "constant" or not inner.touched:
        return inner
    span = inner
    for first, last in ((start, min(stop, 0) - 1), (max(start, size), stop - 1)):  # the runs before and behind
        if first > last:
            continue
        if mode == "replicate":
            ends = (0, 0) if last < 0 else (size - 1, size - 1)
        elif mode == "reflect":
            ends = (-last, -first) if last < 0 else (2 * (size - 1) - last, 2 * (size - 1) - first)
        else:  # circular
            shift = size if last < 0 else -size
            ends = (first + shift, last + shift)
        span = span.hull(Span(ends[0], ends[1] + 1, True))
    return Span(span.start, span.stop, True)
