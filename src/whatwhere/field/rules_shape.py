"""Rules for operators that move entries about without computing: views, pads, slices, joins, shuffles.

Knows nothing of neighbours or sums (see `rules`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from math import prod
from typing import Any

from whatwhere.field.graph import Constant, Source, Step, sources
from whatwhere.field.spans import Span, clip, flattened, padded, whole

__all__ = ["SHAPE_RULES", "Read", "Rule", "Spans", "aligned", "per_axis", "run_written", "sliding", "wholes"]

Spans = tuple[Span, ...]
"""A window of a tensor: one span for each axis."""

Read = tuple[Source, Spans]
Rule = Callable[[Step, Spans], Iterable[Read]]


def wholes(shape: tuple[int, ...]) -> Spans:
    return tuple(whole(size) for size in shape)


def aligned(spans: Spans, shape: tuple[int, ...]) -> Spans:
    """Undo broadcasting: the last axes meet, and axes of size 1 are read whole."""
    tail = spans[len(spans) - len(shape) :] if shape else ()
    return tuple(Span(0, 1) if size == 1 else span for span, size in zip(tail, shape))


def per_axis(value: Any, count: int, default: int) -> list[int]:
    """An operator's int-or-list setting as one integer an axis."""
    if value is None or value == []:
        return [default] * count
    if isinstance(value, int):
        return [value] * count
    return [int(item) for item in value] if len(value) == count else [int(value[0])] * count


def sliding(step: Step, count: int) -> list[list[int]]:
    """How an operator's window slides: kernel, stride, dilation and padding along its `count` axes."""
    args = step.arguments
    kernel = per_axis(args["kernel_size"], count, 1)
    stride = [by or taken for by, taken in zip(per_axis(args.get("stride"), count, 0), kernel)]
    return [kernel, stride, per_axis(args.get("dilation"), count, 1), per_axis(args.get("padding"), count, 0)]


def _source(step: Step) -> Source:
    return next(sources(step.arguments))


def _normal(axis: int, rank: int) -> int:
    return axis % rank if rank else 0


def _replace(spans: Spans, axis: int, span: Span) -> Spans:
    return (*spans[:axis], span, *spans[axis + 1 :])


# ---- reordering axes


def permute(step: Step, spans: Spans) -> Iterator[Read]:
    source = _source(step)
    rank = len(source.shape)
    if step.operator in ("t", "numpy_T"):
        order = list(range(rank))[::-1]
    elif step.operator == "permute":
        order = [_normal(axis, rank) for axis in step.arguments["dims"]]
    else:
        first, second = [int(v) for v in step.arguments.values() if isinstance(v, int)][:2]
        order = list(range(rank))
        order[first], order[second] = order[second], order[first]
    result = [Span(0, 0)] * rank
    for place, axis in enumerate(order):
        result[axis] = spans[place]
    yield source, tuple(result)


def _groups(old: tuple[int, ...], new: tuple[int, ...]) -> Iterator[tuple[range, range]]:
    """Cut two shapes of one size into the shortest runs of axes with equal products."""
    i = j = 0
    while i < len(old) or j < len(new):
        i0, j0 = i, j
        left = right = 1
        while (i == i0 and i < len(old)) or (j == j0 and j < len(new)) or left != right:
            if i < len(old) and (left <= right or j >= len(new)):
                left, i = left * old[i], i + 1
            else:
                right, j = right * new[j], j + 1
        yield range(i0, i), range(j0, j)


def _unflat(first: int, last: int, shape: tuple[int, ...]) -> Spans:
    """The smallest box that holds a run of places in row-major order."""
    spans: list[Span] = []
    for place in range(len(shape)):
        inner = prod(shape[place + 1 :])
        low, high = first // inner, last // inner
        spans.append(Span(low, high + 1))
        if low != high:
            return (*spans, *wholes(shape[place + 1 :]))
        first, last = first % inner, last % inner
    return tuple(spans)


def reshape(step: Step, spans: Spans) -> Iterator[Read]:
    """Views. Axes that survive keep their span; what is flattened stays a box as long as it is cut the same way again,
    and else gets the hull in row-major order.

    An image cut into windows of 4x4 and back stays exact:

    >>> view = Step("view", {"self": Source(0, (1, 8, 8))}, (1, 2, 4, 2, 4))
    >>> _, read = next(reshape(view, (Span(0, 1), Span(1, 2), Span(0, 4), Span(0, 1), Span(2, 3))))
    >>> [(span.start, span.stop) for span in read]
    [(0, 1), (4, 8), (2, 3)]
    """
    source = _source(step)
    if prod(source.shape) != prod(step.shape):  # the same bytes as another type
        yield source, (*spans[:-1], whole(source.shape[-1]))
        return
    pieces = [piece for size, span in zip(step.shape, spans) for piece in span.parts or ((size, span),)]
    result: list[Span] = []
    for old, new in _groups(source.shape, tuple(size for size, _ in pieces)):
        shape, box = source.shape[old.start : old.stop], tuple(pieces[new.start : new.stop])
        large = tuple((size, span) for size, span in box if size > 1)
        if sum(size > 1 for size in shape) == 1:  # one axis, perhaps with axes of 1
            kept = large[0][1] if len(large) == 1 else flattened(large)
            result.extend(kept if size > 1 else Span(0, 1) for size in shape)
        elif all(span.start == 0 and span.stop == size for size, span in large):
            result.extend(wholes(shape))
        else:
            run = flattened(large)
            result.extend(_unflat(run.start, run.stop - 1, shape))
    yield source, tuple(result)


def complex_pairs(step: Step, spans: Spans) -> Iterator[Read]:
    """What is complex has no last axis of two."""
    source = _source(step)
    yield source, (*spans, whole(2)) if step.operator == "view_as_complex" else spans[:-1]


def expand(step: Step, spans: Spans) -> Iterator[Read]:
    source = _source(step)
    yield source, aligned(spans, source.shape)


def repeat(step: Step, spans: Spans) -> Iterator[Read]:
    """Tiling: read whole along axes that really repeat."""
    source = _source(step)
    tail = spans[len(spans) - len(source.shape) :]
    sizes = step.shape[len(spans) - len(source.shape) :]
    yield source, tuple(s if n == m else whole(n) for s, n, m in zip(tail, source.shape, sizes))


def select(step: Step, spans: Spans) -> Iterator[Read]:
    source = _source(step)
    axis = _normal(int(step.arguments["dim"]), len(source.shape))
    index = int(step.arguments["index"]) % source.shape[axis]
    yield source, (*spans[:axis], Span(index, index + 1), *spans[axis:])


def slices(step: Step, spans: Spans) -> Iterator[Read]:
    source, args = _source(step), step.arguments
    axis = _normal(int(args.get("dim", 0)), len(source.shape))
    size = source.shape[axis]
    start, _, stride = slice(args.get("start"), args.get("end"), args.get("step") or 1).indices(size)
    if step.operator == "narrow":
        start, stride = int(args["start"]) % size, 1
    span = spans[axis]
    first, last = start + span.start * stride, start + span.indices[-1] * stride
    yield source, _replace(spans, axis, Span(first, last + 1, False, stride * span.step))


def part_of(step: Step, spans: Spans) -> Iterator[Read]:
    """Split and chunk: result number `part` is a run of the axis. Unbind: one entry of it."""
    source, args = _source(step), step.arguments
    axis = _normal(int(args.get("dim", 0)), len(source.shape))
    size = source.shape[axis]
    if step.operator == "unbind":
        yield source, (*spans[:axis], Span(step.part, step.part + 1), *spans[axis:])
        return
    sections = args.get("split_sizes", args.get("split_size"))
    if isinstance(sections, list):
        offset = sum(sections[: step.part])
    else:
        length = -(-size // int(args["chunks"])) if sections is None else int(sections)
        offset = step.part * length
    span = spans[axis]
    yield source, _replace(spans, axis, Span(span.start + offset, span.stop + offset, False, span.step))


# ---- pads, joins, moves


def pad(step: Step, spans: Spans) -> Iterator[Read]:
    source, args = _source(step), step.arguments
    mode = str(args.get("mode", "constant"))
    for name in ("reflect", "replicat", "circular"):
        if name in step.operator:
            mode = "replicate" if name == "replicat" else name
    amounts = [int(value) for value in args.get("pad", args.get("padding", ()))]
    result = list(spans)
    for place in range(len(amounts) // 2):  # torch lists the last axis first
        axis = len(spans) - 1 - place
        if mode == "circular" and min(amounts[2 * place : 2 * place + 2]) < 0:
            result[axis] = whole(source.shape[axis])._replace(touched=True)  # torch wraps round in what is left
        else:
            result[axis] = padded(spans[axis], source.shape[axis], amounts[2 * place], mode)
    yield source, tuple(result)


def join(step: Step, spans: Spans) -> Iterator[Read]:
    """Concatenation and stacking."""
    parts = [item for item in step.arguments["tensors"] if item.shape != (0,)]  # of no entries, it fits any shape
    axis = _normal(int(step.arguments.get("dim", 0)), len(step.shape))
    span, offset = spans[axis], 0
    pieces = []
    for item in parts:
        length = 1 if step.operator == "stack" else item.shape[axis]
        inner = clip(span.start - offset, span.stop - offset, length, span.step)
        offset += length
        if inner.stop > inner.start:
            pieces.append((item, inner))
    # constants that are joined are padding in all but name, also where nothing else is asked for
    pads = step.operator != "stack" and any(isinstance(item, Constant) for item, _ in pieces)
    for item, inner in pieces:
        if isinstance(item, Source) and step.operator == "stack":
            yield item, (*spans[:axis], *spans[axis + 1 :])
        elif isinstance(item, Source):
            yield item, _replace(spans, axis, inner._replace(touched=pads))
    if pads and not any(isinstance(item, Source) for item, _ in pieces):
        yield next(sources(parts)), _replace(spans, axis, Span(0, 0, True))


def run_written(step: Step) -> tuple[int, range]:
    """Along which axis, and to which places of it, `written` writes."""
    args = step.arguments
    axis = _normal(int(args.get("dim", 0)), len(step.shape))
    size = step.shape[axis]
    if step.operator == "select_scatter":
        place = int(args["index"]) % size
        return axis, range(place, place + 1)
    return axis, range(size)[args.get("start") : args.get("end") : args.get("step")]


def written(step: Step, spans: Spans) -> Iterator[Read]:
    """A part of a tensor that is written over: there the new entries are read, elsewhere the old ones."""
    into, part = step.arguments["self"], step.arguments["src"]
    axis, run = run_written(step)
    span = spans[axis]
    kept = span if run.step > 1 else _beside(span, run)
    if isinstance(into, Source) and kept.start < kept.stop:
        yield into, _replace(spans, axis, kept)
    low = max(-(-(span.start - run.start) // run.step), 0)
    high = min((span.stop - 1 - run.start) // run.step + 1, len(run))
    if isinstance(part, Source) and low < high:
        single = step.operator == "select_scatter"
        yield part, (*spans[:axis], *spans[axis + 1 :]) if single else _replace(spans, axis, Span(low, high))


def _beside(span: Span, run: range) -> Span:
    """A span without the end of it, or all of it, that a run of places covers."""
    indices = span.indices
    if run.start <= span.start < run.stop:
        indices = indices[-(-(run.stop - span.start) // span.step) :]
    elif run.start <= indices[-1] < run.stop:
        indices = indices[: -(-(run.start - span.start) // span.step)]
    if indices == span.indices:
        return span
    return Span(indices[0], indices[-1] + 1, False, span.step) if indices else Span(0, 0)


def roll(step: Step, spans: Spans) -> Iterator[Read]:
    source, args = _source(step), step.arguments
    result = list(spans)
    shifts = args["shifts"] if isinstance(args["shifts"], list) else [args["shifts"]]
    dims = args.get("dims") or []
    if not dims:
        yield source, wholes(source.shape)
        return
    for shift, dim in zip(shifts, [dims] if isinstance(dims, int) else dims):
        axis = _normal(int(dim), len(spans))
        size = source.shape[axis]
        by = int(shift) % size
        by -= size if 2 * by > size else 0  # the short way round, which the middle of the axis is spared
        result[axis] = padded(result[axis], size, by, "circular")
    yield source, tuple(result)


def flip(step: Step, spans: Spans) -> Iterator[Read]:
    source = _source(step)
    result = list(spans)
    for dim in step.arguments["dims"]:
        axis = _normal(int(dim), len(spans))
        size = source.shape[axis]
        result[axis] = Span(size - spans[axis].stop, size - spans[axis].start)
    yield source, tuple(result)


def index_select(step: Step, spans: Spans) -> Iterator[Read]:
    source = step.arguments["self"]
    index = step.arguments["index"]
    axis = _normal(int(step.arguments["dim"]), len(source.shape))
    span = whole(source.shape[axis])
    if isinstance(index, Constant) and index.values is not None:
        chosen = [value % source.shape[axis] for value in index.values[spans[axis].start : spans[axis].stop]]
        span = Span(min(chosen), max(chosen) + 1)
    if isinstance(source, Source):
        yield source, _replace(spans, axis, span)
    if isinstance(index, Source):
        yield index, wholes(index.shape)


def index(step: Step, spans: Spans) -> Iterator[Read]:
    """Indexing by one vector of constants along one axis stays exact; anything else reads everything."""
    source, indices = step.arguments["self"], step.arguments["indices"]
    named = [(axis, item) for axis, item in enumerate(indices) if item is not None]
    vector = len(named) == 1 and isinstance(named[0][1], Constant) and len(named[0][1].shape) == 1
    if isinstance(source, Source) and vector:
        axis, item = named[0]
        single = Step("index_select", {"self": source, "index": item, "dim": axis}, step.shape)
        yield from index_select(single, spans)
        return
    for other in sources(step.arguments):
        yield other, wholes(other.shape)


def pixel_shuffle(step: Step, spans: Spans) -> Iterator[Read]:
    source = _source(step)
    factor = step.shape[-1] // source.shape[-1]
    lead, channels = spans[:-3], spans[-3]
    block = factor * factor
    rows = [Span(span.start // factor, (span.stop - 1) // factor + 1) for span in spans[-2:]]
    phases = [
        (0, factor - 1) if span.stop - span.start >= factor or span.start // factor != (span.stop - 1) // factor
        else (span.start % factor, (span.stop - 1) % factor)
        for span in spans[-2:]
    ]  # fmt: skip
    low = channels.start * block + phases[0][0] * factor + phases[1][0]
    high = (channels.stop - 1) * block + phases[0][1] * factor + phases[1][1]
    yield source, (*lead, Span(low, high + 1), *rows)


def pixel_unshuffle(step: Step, spans: Spans) -> Iterator[Read]:
    source = _source(step)
    factor = source.shape[-1] // step.shape[-1]
    lead, channels = spans[:-3], spans[-3]
    block = factor * factor
    one = channels.stop - channels.start == 1
    phases = divmod(channels.start % block, factor)
    result = []
    for span, phase in zip(spans[-2:], phases):
        low, high = (phase, phase) if one else (0, factor - 1)
        result.append(Span(span.start * factor + low, (span.stop - 1) * factor + high + 1))
    yield source, (*lead, Span(channels.start // block, (channels.stop - 1) // block + 1), *result)


def channel_shuffle(step: Step, spans: Spans) -> Iterator[Read]:
    source = _source(step)
    yield source, (spans[0], whole(source.shape[1]), *spans[2:])


def _named(rule: Rule, names: str) -> dict[str, Rule]:
    return dict.fromkeys(names.split(), rule)


SHAPE_RULES: dict[str, Rule] = {
    **_named(permute, "permute transpose t numpy_T swapaxes"),
    **_named(reshape, "view reshape _unsafe_view flatten unflatten squeeze unsqueeze"),
    **_named(complex_pairs, "view_as_real view_as_complex"),
    **_named(expand, "expand expand_as broadcast_to"),
    **_named(repeat, "repeat tile"),
    **_named(select, "select"),
    **_named(slices, "slice narrow"),
    **_named(part_of, "split split_with_sizes chunk unbind"),
    **_named(pad, "pad constant_pad_nd reflection_pad1d reflection_pad2d reflection_pad3d _pad_circular"),
    **_named(pad, "replication_pad1d replication_pad2d replication_pad3d"),
    **_named(join, "cat concat concatenate stack"),
    **_named(written, "slice_scatter select_scatter"),
    **_named(roll, "roll"),
    **_named(flip, "flip"),
    **_named(index_select, "index_select"),
    **_named(index, "index"),
    **_named(pixel_shuffle, "pixel_shuffle"),
    **_named(pixel_unshuffle, "pixel_unshuffle"),
    **_named(channel_shuffle, "channel_shuffle native_channel_shuffle"),
}
