"""One rule for each family of operators: from a window of the result to the windows of the inputs that it reads.

A window here is one `Span` for every axis of a tensor, batch and channels included. A rule yields a `Read` for each
tensor it reads. An operator without a rule reads everything. This module holds the operators that look at neighbours or
sum over axes; `rules_shape` those that only move entries about. Knows nothing of images, layers or torch.
"""

from __future__ import annotations

from collections.abc import Iterator
from fractions import Fraction

from whatwhere.field.graph import Source, Step, sources
from whatwhere.field.rules_shape import SHAPE_RULES, Read, Rule, Spans, aligned, per_axis, sliding, wholes
from whatwhere.field.rules_unfold import UNFOLD_RULES, by_place
from whatwhere.field.spans import Span, adaptive, cubic, is_exact, linear, nearest, smooth, spread, taps, whole

__all__ = ["Read", "Spans", "has_rule", "is_inexact", "reads", "scale_factors", "varies_with_position"]


def local(step: Step, spans: Spans) -> Iterator[Read]:
    """Element by element, with broadcasting."""
    for source in sources(step.arguments):
        yield source, aligned(spans, source.shape)


def itself(step: Step, spans: Spans) -> Iterator[Read]:
    """Element by element of the first tensor alone."""
    if isinstance(step.arguments["self"], Source):
        yield step.arguments["self"], spans


def copied(step: Step, spans: Spans) -> Iterator[Read]:
    """What is overwritten with another tensor or a number."""
    for other in sources(step.arguments.get("src", step.arguments.get("value"))):
        yield other, aligned(spans, other.shape)


def _weighted(rule: Rule, image: str = "input") -> Rule:
    """A rule for what is computed from one argument; all others (weights, statistics) are read whole."""

    def both(step: Step, spans: Spans) -> Iterator[Read]:
        if isinstance(step.arguments[image], Source):
            yield from rule(step, spans)
        for name, value in step.arguments.items():
            if name != image:
                for other in sources(value):
                    yield other, wholes(other.shape)

    return both


def _channels(span: Span, inputs: int, outputs: int, groups: int) -> Span:
    """Each group of outputs reads its group of inputs."""
    into, out = inputs // groups, outputs // groups
    return Span(span.start // out * into, ((span.stop - 1) // out + 1) * into)


def convolution(step: Step, spans: Spans) -> Iterator[Read]:
    """Transposed ones too, which differ in what a run of results reads of an axis."""
    args, source = step.arguments, step.arguments["input"]
    along = spread if args.get("transposed") or "transpose" in step.operator else taps
    kernel = args["weight"].shape[2:]
    count = len(kernel)
    lead = len(source.shape) - count - 1  # 1 with a batch axis, 0 without
    stride, dilation = per_axis(args.get("stride"), count, 1), per_axis(args.get("dilation"), count, 1)
    padding = args.get("padding")
    if padding == "same":
        pads = [d * (k - 1) // 2 for d, k in zip(dilation, kernel)]
    else:
        pads = [0] * count if padding == "valid" else per_axis(padding, count, 0)
    channels = _channels(spans[lead], source.shape[lead], step.shape[lead], int(args.get("groups", 1)))
    axes = zip(spans[lead + 1 :], source.shape[lead + 1 :], kernel, stride, dilation, pads)
    yield source, (*spans[:lead], channels, *(along(*axis) for axis in axes))


def pooling(step: Step, spans: Spans) -> Iterator[Read]:
    source = next(sources(step.arguments))
    count = int(step.operator[step.operator.index("pool") + 4])
    axes = zip(spans[-count:], source.shape[-count:], *sliding(step, count))
    yield source, (*spans[:-count], *(taps(*axis) for axis in axes))


def adaptive_pooling(step: Step, spans: Spans) -> Iterator[Read]:
    source = next(sources(step.arguments))
    count = int(step.operator[step.operator.index("pool") + 4])
    axes = zip(spans[-count:], source.shape[-count:], step.shape[-count:])
    yield source, (*spans[:-count], *(adaptive(*axis) for axis in axes))


def _scales(step: Step, count: int, source: Source) -> list[Fraction]:
    """Input pixels an output pixel, as torch computes them."""
    factors = step.arguments.get("scale_factors")
    if factors is None:
        named = [step.arguments.get(name) for name in ("scales_d", "scales_h", "scales_w", "scales")]
        factors = [factor for factor in named if factor is not None]
    if step.arguments.get("align_corners"):
        return [Fraction(n - 1, m - 1) if m > 1 else Fraction(0)
                for n, m in zip(source.shape[-count:], step.shape[-count:])]  # fmt: skip
    if factors is not None and len(factors) == count:
        return [1 / Fraction(float(factor)).limit_denominator(2**16) for factor in factors]
    return [Fraction(n, m) for n, m in zip(source.shape[-count:], step.shape[-count:])]


def _resized(step: Step) -> tuple[Source, str, int]:
    """What is interpolated, how, and along how many of its last axes."""
    kind = step.operator.removeprefix("_").removeprefix("upsample_")
    return next(sources(step.arguments)), kind, int(kind[-2] if kind.endswith("d") else kind[kind.index("2d")])


def scale_factors(step: Step) -> list[Fraction] | None:
    """Of an interpolation, input pixels an output pixel along its last axes; None for other operators."""
    if "upsample_" not in step.operator:
        return None
    source, _, count = _resized(step)
    return _scales(step, count, source)


def is_inexact(step: Step) -> bool:
    """Whether an interpolation weighs by places that torch's floats hold to rounding only."""
    factors = None if "nearest" in step.operator else scale_factors(step)
    return not all(is_exact(factor, max(step.shape)) for factor in factors or ())


def interpolation(step: Step, spans: Spans) -> Iterator[Read]:
    source, kind, count = _resized(step)
    corners = bool(step.arguments.get("align_corners"))

    def one(span: Span, size: int, made: int, scale: Fraction) -> Span:
        if kind.endswith("_aa"):
            return smooth(span, size, scale, support=1 if "linear" in kind else 2)
        if kind.startswith("nearest"):
            read = nearest(span, size, scale, centred="exact" in kind)
            # to these sizes some of torch's kernels copy whatever factor they are given, and others heed it
            copied = "exact" not in kind and made in (size, 2 * size)
            return read.hull(nearest(span, size, Fraction(size, made))) if copied else read
        return (cubic if "cubic" in kind else linear)(span, size, scale, corners)

    axes = zip(spans[-count:], source.shape[-count:], step.shape[-count:], _scales(step, count, source))
    yield source, (*spans[:-count], *(one(*axis) for axis in axes))


def batch_norm(step: Step, spans: Spans) -> Iterator[Read]:
    args, source = step.arguments, step.arguments["input"]
    trains = args.get("training", args.get("use_input_stats"))  # on this very batch, e.g. track_running_stats=False
    if not trains:
        yield source, spans
    elif "instance" in step.operator:
        yield source, (*spans[:2], *wholes(source.shape)[2:])
    else:
        yield source, (whole(source.shape[0]), spans[1], *wholes(source.shape)[2:])


def group_norm(step: Step, spans: Spans) -> Iterator[Read]:
    source = step.arguments["input"]
    groups = int(step.arguments.get("num_groups", step.arguments.get("group", 1)))
    channels = _channels(spans[1], source.shape[1], source.shape[1], groups)
    yield source, (spans[0], channels, *wholes(source.shape)[2:])


def layer_norm(step: Step, spans: Spans) -> Iterator[Read]:
    source = step.arguments["input"]
    count = len(step.arguments["normalized_shape"])
    yield source, (*spans[: len(spans) - count], *wholes(source.shape)[len(spans) - count :])


def reduction(step: Step, spans: Spans) -> Iterator[Read]:
    """Sum, mean, maximum ... over some axes, kept or dropped."""
    source = next(sources(step.arguments))
    rank = len(source.shape)
    if "other" in step.arguments:  # maximum and minimum of two tensors share the reductions' names
        yield from local(step, spans)
        return
    dims = next((step.arguments[key] for key in ("dim", "dims", "axis") if step.arguments.get(key) is not None), None)
    named = range(rank) if dims is None or dims == [] else ([dims] if isinstance(dims, int) else dims)
    reduced = {axis % rank for axis in named}
    kept = len(step.shape) == rank
    left = iter(spans)
    result = []
    for axis, size in enumerate(source.shape):
        span = next(left) if kept or axis not in reduced else None
        result.append(whole(size) if axis in reduced or span is None else span)
    yield source, tuple(result)


def quantile(step: Step, spans: Spans) -> Iterator[Read]:
    """One is a reduction; several are an axis more, of which no rule tells."""
    yield from (reduction if isinstance(step.arguments["q"], float) else everything)(step, spans)


def along_axis(step: Step, spans: Spans) -> Iterator[Read]:
    """Softmax and its kin, gather, scatter: one axis is read whole, and along the others each place is itself."""
    for source in sources(step.arguments):
        axis = int(step.arguments.get("dim", -1)) % len(source.shape)
        yield source, (*spans[:axis], whole(source.shape[axis]), *spans[axis + 1 :])


def cumulative(step: Step, spans: Spans) -> Iterator[Read]:
    source = next(sources(step.arguments))
    axis = int(step.arguments["dim"]) % len(source.shape)
    yield source, (*spans[:axis], Span(0, spans[axis].stop), *spans[axis + 1 :])


def linear_layer(step: Step, spans: Spans) -> Iterator[Read]:
    source = step.arguments["input"]
    if isinstance(source, Source):
        yield source, (*spans[:-1], whole(source.shape[-1]))
    for name in ("weight", "bias"):
        other = step.arguments.get(name)
        if isinstance(other, Source):
            yield other, wholes(other.shape)


def product(step: Step, spans: Spans) -> Iterator[Read]:
    """Matrix products: ``(..., i, full) @ (..., full, j)``."""
    args = step.arguments
    if "mat1" in args:
        first, second = args["mat1"], args["mat2"]
    elif "batch1" in args:
        first, second = args["batch1"], args["batch2"]
    else:
        first, second = args["self"], args.get("mat2", args.get("other"))
    if len(first.shape) < 2 or len(second.shape) < 2:
        yield from everything(step, spans)
        return
    if isinstance(first, Source):
        yield first, (*aligned(spans[:-2], first.shape[:-2]), spans[-2], whole(first.shape[-1]))
    if isinstance(second, Source):
        yield second, (*aligned(spans[:-2], second.shape[:-2]), whole(second.shape[-2]), spans[-1])
    if ("mat1" in args or "batch1" in args) and isinstance(args["self"], Source):
        yield args["self"], aligned(spans, args["self"].shape)


def attention(step: Step, spans: Spans) -> Iterator[Read]:
    """Scaled dot-product attention: each query reads every key and value of its batch and head."""
    args = step.arguments
    lead = spans[:-2]
    for name, tail in (("query", False), ("key", True), ("value", True)):
        source = args[name]
        if isinstance(source, Source):
            rows = whole(source.shape[-2]) if tail else spans[-2]
            columns = spans[-1] if name == "value" else whole(source.shape[-1])
            # grouped-query attention has fewer key heads than query heads: then all of them
            heads = tuple(s if n != 1 and n == m else whole(n) for s, n, m in zip(lead, source.shape, step.shape))
            yield source, (*heads, rows, columns)
    mask = args.get("attn_mask")
    if isinstance(mask, Source):
        yield mask, aligned((*lead, spans[-2], whole(mask.shape[-1])), mask.shape)


def everything(step: Step, spans: Spans) -> Iterator[Read]:  # noqa: ARG001  (a rule's signature)
    """The rule of operators that have none."""
    for source in sources(step.arguments):
        yield source, wholes(source.shape)


def _named(rule: Rule, names: str) -> dict[str, Rule]:
    return dict.fromkeys(names.split(), rule)


def _numbered(rule: Rule, names: str) -> dict[str, Rule]:
    return {name.replace("#", str(count)): rule for name in names.split() for count in (1, 2, 3)}


RULES: dict[str, Rule] = {
    **SHAPE_RULES,
    **UNFOLD_RULES,
    **_numbered(_weighted(convolution), "conv#d convolution conv_transpose#d"),
    **_numbered(pooling, "max_pool#d max_pool#d_with_indices avg_pool#d"),
    **_numbered(adaptive_pooling, "adaptive_max_pool#d adaptive_avg_pool#d _adaptive_avg_pool#d"),
    **_numbered(interpolation, "upsample_nearest#d _upsample_nearest_exact#d"),
    **_named(interpolation, "upsample_linear1d upsample_bilinear2d upsample_trilinear3d upsample_bicubic2d"),
    **_named(interpolation, "_upsample_bilinear2d_aa _upsample_bicubic2d_aa"),
    **_named(_weighted(batch_norm), "batch_norm instance_norm cudnn_batch_norm native_batch_norm"),
    **_named(_weighted(batch_norm), "_native_batch_norm_legit _native_batch_norm_legit_no_training"),
    **_named(_weighted(group_norm), "group_norm native_group_norm"),
    **_named(_weighted(layer_norm), "layer_norm native_layer_norm rms_norm"),
    **_named(_weighted(itself, "self"), "prelu"),
    **_named(itself, "type_as to"),
    **_named(copied, "copy fill"),
    **_named(reduction, "sum mean var std var_mean std_mean amax amin max min prod median argmax argmin logsumexp"),
    **_named(reduction, "linalg_vector_norm norm any all nansum nanmedian kthvalue mode"),
    **_named(quantile, "quantile nanquantile"),
    **_named(along_axis, "softmax _softmax log_softmax _log_softmax sort glu"),
    **_named(along_axis, "topk gather scatter scatter_add scatter_reduce"),
    **_named(cumulative, "cumsum cumprod logcumsumexp"),
    **_named(linear_layer, "linear"),
    **_named(product, "mm bmm matmul addmm baddbmm"),
    **_named(attention, "scaled_dot_product_attention"),
    # element by element, where torch does not say so itself
    **_named(local, "dropout native_dropout feature_dropout alpha_dropout clone contiguous alias detach lift_fresh"),
    **_named(local, "lift_fresh_copy _to_copy float double half _assert_tensor_metadata where"),
    **_named(local, "complex real imag conj _conj resolve_conj"),
    **_named(local, "relu6 softplus silu mish gelu hardswish hardsigmoid leaky_relu selu celu elu log_sigmoid rrelu"),
}


def has_rule(operator: str) -> bool:
    return operator in RULES


def reads(step: Step, spans: Spans) -> Iterator[Read]:
    """What the window `spans` of `step`'s result reads.

    >>> image = Source(0, (1, 3, 16, 16))
    >>> step = Step("max_pool2d", {"self": image, "kernel_size": [2, 2]}, (1, 3, 8, 8))
    >>> [(source.step, window[2:]) for source, window in reads(step, (Span(0, 1), Span(0, 3), Span(1, 2), Span(4, 5)))]
    [(0, (Span(2, 4), Span(8, 10)))]
    """
    rule = RULES.get(step.operator) or (local if step.pointwise else everything)
    if step.computed and rule is not local:  # how far it rolls, what it pads with ...: no rule follows that
        rule = everything
    return iter(rule(step, spans))


def varies_with_position(step: Step) -> str | None:
    """Why the same window at another place would be weighed differently, for operators that do that; else None."""
    if step.arguments.get("align_corners") and "upsample_" in step.operator:
        return "align_corners=True stretches the grid, so its weights change from pixel to pixel"
    if "adaptive_" in step.operator:
        source = next(sources(step.arguments))
        if any(n % m for n, m in zip(source.shape[-3:], step.shape[-3:]) if m):
            return f"adaptive pooling of {source.shape} into bins of unequal size {step.shape}"
    return by_place(step)
