"""Rules for operators that lay windows of an image out as entries of their own, and for those that put entries back.

Knows nothing of what is computed with the entries in between (see `rules`).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from math import prod

from whatwhere.field.graph import OUTPUT, Graph, Source, Step, sources
from whatwhere.field.rules_shape import Read, Rule, Spans, reshape, sliding, wholes
from whatwhere.field.spans import Span, flattened, spread, taps, whole

__all__ = ["UNFOLD_RULES", "by_place", "with_poolings"]


def _cut(span: Span, shape: tuple[int, ...]) -> Spans:
    """A span of an axis as the box of those that were flattened to it."""
    view = Step("view", {"self": Source(0, shape)}, (prod(shape),))
    return next(iter(reshape(view, (span,))))[1]


def _made(sizes: Sequence[int], slides: Sequence[Sequence[int]]) -> tuple[int, ...]:
    """How many windows there are along each axis."""
    return tuple(
        (size + 2 * pad - far * (taken - 1) - 1) // by + 1 for size, taken, by, far, pad in zip(sizes, *slides)
    )


def windows_as_columns(step: Step, spans: Spans) -> Iterator[Read]:
    """``F.unfold``: ``(C * kernel, places)`` of an image ``(C, H, W)``.

    >>> image = Source(0, (1, 2, 8, 8))
    >>> slides = {"kernel_size": [3, 3], "stride": [1, 1], "dilation": [1, 1], "padding": [1, 1]}
    >>> step = Step("im2col", {"self": image, **slides}, (1, 18, 64))
    >>> place = flattened(((8, Span(4, 5)), (8, Span(0, 1))))
    >>> _, read = next(windows_as_columns(step, (Span(0, 1), Span(9, 18), place)))
    >>> read[1:]
    (Span(1, 2), Span(3, 6), Span(0, 2, touched=True))
    """
    source = next(sources(step.arguments))
    kernel, *others = slides = sliding(step, 2)
    sizes = source.shape[-2:]
    channels, *within = _cut(spans[-2], (source.shape[-3], *kernel))
    axes = zip(_cut(spans[-1], _made(sizes, slides)), sizes, within, *others)
    read = [taps(run, size, tap.stop - tap.start, by, far, pad - tap.start * far)
            for run, size, tap, by, far, pad in axes]  # fmt: skip
    yield source, (*spans[:-2], channels, *read)


def columns_as_windows(step: Step, spans: Spans) -> Iterator[Read]:
    """``F.fold``: the sum, at each pixel, of the columns' entries that lie there."""
    source = next(sources(step.arguments))
    slides = sliding(step, 2)
    made = _made(step.shape[-2:], slides)
    runs = [spread(*axis) for axis in zip(spans[-2:], made, *slides)]
    touched = any(run.touched for run in runs)
    if any(run.stop <= run.start for run in runs):
        yield source, (*spans[:-3], whole(source.shape[-2]), Span(0, 0, touched))
        return
    entries = flattened(((step.shape[-3], spans[-3]), *((taken, whole(taken)) for taken in slides[0])))
    yield source, (*spans[:-3], entries, flattened(tuple(zip(made, runs)))._replace(touched=touched))


def windows_as_axis(step: Step, spans: Spans) -> Iterator[Read]:
    """``Tensor.unfold``: windows of one axis, whose entries are a new last axis."""
    source, args = next(sources(step.arguments)), step.arguments
    axis = int(args["dimension"]) % len(source.shape)
    run, within, by = spans[axis], spans[-1], int(args["step"])
    read = taps(run, source.shape[axis], within.stop - within.start, by, padding=-within.start)
    yield source, (*spans[:axis], read, *spans[axis + 1 : -1])


# ---- unpooling


_POOLED = ("kernel_size", "stride", "padding", "dilation")
_PUT_BACK = "put back"
"""Among a pooling's arguments, where its places are only what unpoolings put values back to."""


def with_poolings(graph: Graph) -> Graph:
    """The graph in which each unpooling (SegNet's, arXiv:1511.00561) is told the pooling whose places it is given.

    An unpooling writes its values to places that are numbers of a tensor's entries, anywhere. Those of a pooling lie in
    the pooled windows, so that what is made on an image of the pooling's size reads its neighbours alone.
    """
    steps = list(graph.steps)
    readers: dict[int, set[int]] = {}
    for at, step in enumerate(steps):
        for source in sources(step.arguments):
            readers.setdefault(source.step, set()).add(at)
    told = {at: pooling for at, step in enumerate(steps) if (pooling := _pooling(steps, step)) is not None}
    for at, pooling in told.items():
        known = {name: steps[pooling].arguments.get(name) for name in _POOLED}
        steps[at] = replace(steps[at], arguments={**steps[at].arguments, **known})
    returned = {place for name, place in graph.layers.items() if name.partition("[")[0] == OUTPUT}
    for pooling in {*told.values()} - returned:
        if readers[pooling] <= told.keys():
            step = steps[pooling]
            steps[pooling] = replace(step, arguments={**step.arguments, _PUT_BACK: True})
    return replace(graph, steps=tuple(steps))


def _pooling(steps: list[Step], step: Step) -> int | None:
    """The step that holds the places which an unpooling is given, if they are a pooling's of an image of its size."""
    places = step.arguments.get("indices")
    if not step.operator.startswith("max_unpool") or not isinstance(places, Source):
        return None
    pooling = steps[places.step]
    if not pooling.operator.startswith("max_pool") or pooling.part != 1:
        return None
    return places.step if next(sources(pooling.arguments)).shape == step.shape else None


def unpooling(step: Step, spans: Spans) -> Iterator[Read]:
    """Values and places of the pooled windows in which an entry lies; all of them where their pooling is not known."""
    count = int(step.operator[-2])
    for source in sources(step.arguments):
        if "kernel_size" not in step.arguments:
            yield source, wholes(source.shape)
            continue
        axes = zip(spans[-count:], source.shape[-count:], *sliding(step, count))
        yield source, (*spans[:-count], *(spread(*axis) for axis in axes))


def by_place(step: Step) -> str | None:
    """Why what a pooling or unpooling makes of the same entries is another thing elsewhere; None if it is not."""
    if "max_pool" in step.operator and step.part == 1 and _PUT_BACK not in step.arguments:
        return "gives places counted from the image's corner"
    if step.operator.startswith("max_unpool") and "kernel_size" in step.arguments:
        kernel, stride, dilation, _ = sliding(step, int(step.operator[-2]))
        if any(by < taken or far != 1 for taken, by, far in zip(kernel, stride, dilation)):
            return "puts several values to one place, where torch's threads decide which comes last"
    return None


UNFOLD_RULES: dict[str, Rule] = {
    "im2col": windows_as_columns,
    "col2im": columns_as_windows,
    "unfold": windows_as_axis,
    "max_unpool2d": unpooling,
    "max_unpool3d": unpooling,
}
