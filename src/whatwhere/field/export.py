"""A torch module followed by `torch.export`, and taken apart as far as rules ask for it.

Knows nothing of windows, and of rules only which operators have one.
"""

from __future__ import annotations

import io
import logging
import operator
import warnings
from collections.abc import Callable, Sequence
from contextlib import redirect_stderr
from threading import RLock
from typing import Any

import torch
from torch import Tensor, nn
from torch._ops import OpOverload
from torch.export import ExportedProgram
from torch.fx import Node
from torch.utils import _pytree as pytree

from whatwhere.errors import FieldError
from whatwhere.field.caches import put_back
from whatwhere.field.graph import OPERATOR, Graph
from whatwhere.field.in_sight import forward_in_sight
from whatwhere.field.nodes import FILLS, handed_on, may_share, operator_of, root, writes_others, written_by
from whatwhere.field.reader import Reader

__all__ = ["export_graph"]


def export_graph(
    module: nn.Module, inputs: Sequence[Any], image: int, known: Callable[[str], bool], most: int | None = None
) -> Graph:
    """Export `module` in eval mode (its training flags are put back) and read the graph.

    Args:
        inputs: the arguments of `forward`; their values are never looked at.
        image: which of `inputs` is the image.
        known: whether an operator's name has a rule; composite operators without one are taken apart first.
        most: calls of torch that the module may make.

    Raises:
        FieldError: the module cannot be exported: control flow on values, a shape it does not take, too many calls.
    """
    with _EXPORTS:
        return _exported(module, inputs, image, known, most)


_EXPORTS = RLock()
"""Held while torch.export follows a module: it keeps modes for all threads, as modules their flags."""
_TELLS = [logging.getLogger(f"torch.{name}") for name in ("_subclasses.fake_tensor", "fx.experimental.symbolic_shapes")]
"""Where torch logs tracebacks and graphs of what is told as an error; graphs it also prints."""


def _exported(
    module: nn.Module, inputs: Sequence[Any], image: int, known: Callable[[str], bool], most: int | None
) -> Graph:
    flags = [(part, part.training) for part in module.modules()]
    quiet = [log.disabled for log in _TELLS]
    for log in _TELLS:
        log.disabled = True
    try:
        module.eval()
        with warnings.catch_warnings(), redirect_stderr(io.StringIO()), torch.no_grad(), put_back(module):
            warnings.simplefilter("ignore")  # of torch.export's own insides
            vars(module)["forward"] = forward_in_sight(module, most)
            program = torch.export.export(module, tuple(inputs), strict=False)
            handed_on = _name_operators(program)
            if _must_take_apart(program, known):
                _read_through_dropout(program)
                program = program.run_decompositions(_composites(program, known))
            return Reader(
                program, len(pytree.tree_leaves(list(inputs[:image]))), handed_on, type(module).__name__
            ).graph()
    except FieldError:
        raise
    except Exception as error:  # torch.export wraps nothing: whatever the module raises comes out
        raise _export_error(module, inputs[image], error) from error
    finally:
        for log, was in zip(_TELLS, quiet):
            log.disabled = was
        for part, flag in flags:
            part.training = flag


def _export_error(module: nn.Module, image: Tensor, error: Exception) -> FieldError:
    name, shape = type(module).__name__, tuple(image.shape)
    kind = f"{type(error).__name__}: {error}"
    words = " ".join(str(error).split())[:300]
    if "DataDependent" in kind or "data-dependent" in kind or "GuardOnData" in kind or "dynamic control flow" in kind:
        return FieldError(
            f"{name} decides what to run by the values it computes (torch.export says: {words})",
            "a network whose operators depend on shapes only",
            "replace the Python `if` or loop over tensor values, y[y > 0], and .item() for a size, by torch.where or a "
            "fixed count",
        )
    if any(isinstance(part, torch.jit.ScriptModule) for part in module.modules()):
        return FieldError(
            f"{name} is TorchScript or holds some, whose graph torch.export does not follow",
            "modules of Python code",
            "give the module that it was made from by torch.jit.script or torch.jit.trace",
        )
    if "in output, which is not a known type" in kind:
        return FieldError(
            f"{name} returns what torch.export does not know ({words})",
            "tensors, also in lists or dictionaries",
            "wrap it in a module whose forward returns the logits alone",
        )
    return FieldError(
        f"{name} cannot be run on an image of shape {shape} ({type(error).__name__}: {words})",
        "a module and an image shape that go together",
        f"check the channels ({shape[1] if len(shape) > 1 else 'none'} given) and the sizes that the network takes",
    )


def _name_operators(program: ExportedProgram) -> dict[str, str]:
    """Notes each operator's name as a module around it: where torch takes operators apart it keeps those, no names.

    Returns:
        for each operator the one whose result it hands on, if it vanishes then: ``x.to(...)`` or dropout, perhaps.
    """
    sources = {}
    for node in program.graph.nodes:
        if node.op != "call_function":
            continue
        mark = f"{OPERATOR}{node.name}"
        node.meta["nn_module_stack"] = {**(node.meta.get("nn_module_stack") or {}), mark: (mark, "")}
        for given in node.all_input_nodes[:1]:
            one, other = node.meta.get("val"), given.meta.get("val")
            if isinstance(one, Tensor) and isinstance(other, Tensor) and one.shape == other.shape:
                sources[mark] = f"{OPERATOR}{given.name}"
    return sources


def _read_through_dropout(program: ExportedProgram) -> None:
    """Lets all read what dropout hands on before dropout: torch, when it untangles views, takes that for a copy."""
    for node in program.graph.nodes:
        given = handed_on(node)
        if given is not None:
            node.replace_all_uses_with(given, delete_user_cb=lambda user: user.op != "output")
    program.graph_module.recompile()


def _must_take_apart(program: ExportedProgram, known: Callable[[str], bool]) -> bool:
    """Whether some operator is composite and has no rule, or torch is to untangle what is written.

    That is a view of what is written later, or what is written beside an operator's first tensor.
    """
    written: set[Node] = set()
    for node in reversed(program.graph.nodes):
        if node.op != "call_function":
            continue
        if may_share(node) and not written.isdisjoint(map(root, (node, *node.all_input_nodes))):
            return True
        if writes_others(node):
            return True
        if written_by(node) is not None:
            written.add(root(node))
        tags, name = getattr(node.target, "tags", ()), operator_of(node)
        if (
            not known(name)
            and name not in FILLS
            and torch.Tag.pointwise not in tags
            and node.target is not operator.getitem
        ):
            return True
    return False


def _composites(program: ExportedProgram, known: Callable[[str], bool]) -> dict[Any, Callable[..., Any]]:
    """How torch itself takes the operators apart that have no rule."""
    targets = {node.target for node in program.graph.nodes if isinstance(node.target, OpOverload)}
    table = torch.export.default_decompositions()
    return {
        target: table[target]
        for target in targets
        if not known(str(target._schema.name).split("::")[-1]) and target._can_decompose() and target in table
    }
