"""What one operator of torch's own graph does to memory: views, writing in place, random numbers.

Knows nothing of how a graph is made or read.
"""

from __future__ import annotations

import operator
from typing import Any

import torch
from torch.export import ExportedProgram
from torch.export.graph_signature import InputKind, OutputKind
from torch.fx import Node

__all__ = [
    "FILLS", "VIEWS", "changed", "handed_on", "is_random", "may_share", "operator_of", "root", "writes_others",
    "written_by",
]  # fmt: skip

VIEWS = frozenset({
    "view", "reshape", "flatten", "unflatten", "slice", "select", "narrow", "permute", "transpose", "t", "movedim",
    "swapaxes", "expand", "expand_as", "broadcast_to", "unsqueeze", "squeeze", "split", "split_with_sizes", "chunk",
    "unbind", "alias", "detach", "getitem", "numpy_T",
})  # fmt: skip
FILLS = frozenset({
    "zeros", "ones", "full", "empty", "zeros_like", "ones_like", "full_like", "empty_like", "new_zeros", "new_ones",
    "new_full", "new_empty", "scalar_tensor",
})  # fmt: skip
"""What makes a tensor of one value; of a tensor given as an example only the shape counts."""
DROPOUTS = frozenset({"dropout", "feature_dropout", "alpha_dropout", "feature_alpha_dropout"})
"""What does nothing where nothing is trained."""


def operator_of(node: Node) -> str:
    if node.target is operator.getitem:
        return "getitem"
    schema = getattr(node.target, "_schema", None)
    name = str(schema.name).split("::")[-1] if schema else str(getattr(node.target, "__name__", node.target))
    return name if name.startswith("__") else name.rstrip("_")


def written_by(node: Node) -> Node | None:
    """The tensor that an in-place operator writes, if it is one."""
    schema = getattr(node.target, "_schema", None)
    if schema is None or not node.args or not isinstance(node.args[0], Node):
        return None
    first = schema.arguments[0].alias_info if schema.arguments else None
    return node.args[0] if first is not None and first.is_write else None


def writes_others(node: Node) -> bool:
    """Whether an operator writes into more than its first tensor, or into another: ``out=``, or a list of them."""
    schema = getattr(node.target, "_schema", None)
    written = [place for place, argument in enumerate(schema.arguments if schema else ())
               if argument.alias_info is not None and argument.alias_info.is_write]  # fmt: skip
    return bool(written) and (written != [0] or not isinstance(node.args[0], Node))


def handed_on(node: Node) -> Node | None:
    """The tensor that dropout, when nothing is trained, gives back itself: what is written into one is in the other."""
    if operator_of(node) not in DROPOUTS or len(node.args) != 3 or node.args[2]:
        return None
    return node.args[0] if isinstance(node.args[0], Node) else None


def root(node: Node) -> Node:
    """The tensor whose very memory a result is: what was written in place or handed on, as often as that was done."""
    while (earlier := written_by(node) or handed_on(node)) is not None:
        node = earlier
    return node


def changed(program: ExportedProgram) -> set[str]:
    """The names in a graph of tensors that the network holds, and writes to."""
    held = {spec.arg.name: spec.target for spec in program.graph_signature.input_specs
            if spec.kind != InputKind.USER_INPUT}  # fmt: skip
    told = {spec.target for spec in program.graph_signature.output_specs if spec.kind == OutputKind.BUFFER_MUTATION}
    written = {root(node).name for node in program.graph.nodes if node.op == "call_function" and written_by(node)}
    return {name for name, target in held.items() if target in told or name in written}


def is_random(call: Node, arguments: dict[str, Any]) -> bool:
    """Whether random numbers decide a result: not those of dropout, or its kin, where nothing is trained."""
    tagged = torch.Tag.nondeterministic_seeded in getattr(call.target, "tags", ())
    trains = arguments.get("train", arguments.get("training", True))
    return tagged and bool(trains) and arguments.get("dropout_p", arguments.get("p")) != 0


def may_share(node: Node) -> bool:
    """Whether a result may be a part of its input's memory, or all of it under another shape."""
    schema = getattr(node.target, "_schema", None)
    told = [result.alias_info for result in schema.returns] if schema else []
    return operator_of(node) in VIEWS or any(alias is not None and not alias.is_write for alias in told)
