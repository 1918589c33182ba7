"""What `torch.export` saw of a module, read as a `Graph`: no tensor of torch is left in it.

Knows nothing of how a module is exported, of windows or of rules.
"""

from __future__ import annotations

import operator
from hashlib import sha256
from typing import Any

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensor
from torch.export import ExportedProgram
from torch.export.graph_signature import InputKind, OutputKind
from torch.fx import Node

from whatwhere.errors import FieldError
from whatwhere.field.graph import MODULE, OPERATOR, OUTPUT, Constant, Graph, Source, Step, constants, numbers, sources
from whatwhere.field.nodes import FILLS, VIEWS, changed, is_random, operator_of, root

__all__ = ["Reader"]

_COPIES = frozenset({"clone", "contiguous", "to", "_to_copy", "float", "double", "half", "type_as", "repeat", "tile"})
"""What hands on one value everywhere as that, beside views and what works element by element."""
_PICKS = frozenset({"slice", "select", "narrow"})
"""Views of a part: the shape does not tell which."""
_NUMBERS = torch.SymInt, torch.SymFloat, torch.SymBool
"""What ``.item()`` gives, and what is computed of it: known only while the network runs, even if by weights alone."""


class Reader:
    """Turns one exported program into a `Graph`.

    Args:
        program: as `torch.export` made it.
        image: which of the inputs, lists among them laid open, is the image.
        handed_on: for each operator that may have vanished the one whose result it handed on.
        name: the module's class.
    """

    def __init__(self, program: ExportedProgram, image: int, handed_on: dict[str, str], name: str) -> None:
        self.program, self.handed_on, self.name = program, handed_on, name
        self.values: dict[Node, Any] = {}
        self.steps: list[Step] = []
        self.operators: dict[str, int] = {}
        users = [spec.arg.name for spec in program.graph_signature.input_specs if spec.kind == InputKind.USER_INPUT]
        self.image = users[image]
        self.tensors = {
            spec.arg.name: program.state_dict.get(spec.target or "", program.constants.get(spec.target or ""))
            for spec in program.graph_signature.input_specs
            if spec.kind != InputKind.USER_INPUT
        }
        self.weights = {
            spec.arg.name: (str(spec.target),)
            for spec in program.graph_signature.input_specs
            if spec.kind in (InputKind.PARAMETER, InputKind.BUFFER)
        }
        self.changed = changed(program)

    def graph(self) -> Graph:
        output: Node | None = None
        # the image is step 0, though torch lists what the network holds before
        for node in sorted(self.program.graph.nodes, key=lambda node: node.name != self.image):
            if node.op == "placeholder":
                self.values[node] = self._placeholder(node)
            elif node.op == "call_function":
                self._call(node)
            elif node.op == "output":
                output = node
        assert output is not None
        return Graph(tuple(self.steps), self._layers(output))

    def _placeholder(self, node: Node) -> Any:
        if node.name == self.image:
            self.steps.append(Step("image", {}, _shape(node.meta["val"])))
            return Source(len(self.steps) - 1, self.steps[-1].shape)
        if node.name in self.changed:  # one that is overwritten before it is read keeps nothing
            name = "".join(self.weights.get(node.name, ("tensor",)))
            why = "keeps something from call to call"
            self.steps.append(Step(f"buffer {name}", {}, _shape(node.meta["val"]), unsteady=why))
            return Source(len(self.steps) - 1, self.steps[-1].shape)
        if isinstance(self.tensors.get(node.name), FakeTensor) and node.name not in self.weights:
            # a tensor of which torch.export lost sight while it ran: it may be made from the image
            image, shape = Source(0, self.steps[0].shape), _shape(node.meta["val"])
            self.steps.append(Step("a tensor that torch.export lost sight of", {"self": image}, shape))
            return Source(len(self.steps) - 1, shape)
        return _constant(node.meta.get("val"), self.tensors.get(node.name), made=self.weights.get(node.name, ()))

    def _call(self, node: Node) -> None:
        value = node.meta.get("val")
        part, call = 0, node
        if node.target is operator.getitem and isinstance(node.args[0], Node):
            call, part = node.args[0], int(str(node.args[1]))
            if not isinstance(call.meta.get("val"), list | tuple):
                call = node
        arguments = self._arguments(call)
        name, pointwise = operator_of(call), torch.Tag.pointwise in getattr(call.target, "tags", ())
        if name in FILLS:
            arguments = {key: arguments[key] for key in ("fill_value", "s") if key in arguments}
        number, draws = isinstance(value, _NUMBERS), is_random(call, arguments)
        if next(sources(arguments), None) is None and not number and not draws:
            self.values[root(node)] = _computed(value, name, pointwise, arguments)
            return
        if not isinstance(value, Tensor) and not number:
            self.values[node] = None  # several results: each is read through its getitem
            return
        shape = _shape(value) if isinstance(value, Tensor) else ()
        computed = any(isinstance(given.meta.get("val"), _NUMBERS) for given in call.all_input_nodes)
        paths = _paths(node)
        self.operators |= {path: len(self.steps) for path in paths if path.startswith(OPERATOR)}
        modules = tuple(path for path in paths if not path.startswith(OPERATOR))
        why = "draws random numbers" if draws else ""
        self.steps.append(Step(name, arguments, shape, part, modules, pointwise, computed, why))
        self.values[root(node)] = Source(len(self.steps) - 1, shape)

    def _arguments(self, call: Node) -> dict[str, Any]:
        schema = getattr(call.target, "_schema", None)
        names = [argument.name for argument in schema.arguments] if schema else []
        arguments = {a.name: a.default_value for a in schema.arguments if a.has_default_value()} if schema else {}
        for place, value in enumerate(call.args):
            arguments[names[place] if place < len(names) else f"argument{place}"] = self._value(value)
        arguments.update({name: self._value(value) for name, value in call.kwargs.items()})
        return arguments

    def _value(self, value: Any) -> Any:
        if isinstance(value, Node):
            return self.values.get(root(value))
        if isinstance(value, list | tuple):
            return [self._value(item) for item in value]
        return value

    def _layers(self, output: Node) -> dict[str, int]:
        """By module path the step whose result leaves the module; ``path[0]``, ``path[1]`` where several do."""
        returned = self._results(output)
        if not returned or not isinstance(returned[0], Source):
            raise _no_image(self.name, returned)
        named = {f"{OUTPUT}[{k}]" if k else OUTPUT: value.step
                 for k, value in enumerate(returned) if isinstance(value, Source)}  # fmt: skip
        results = list(named.values())
        readers: list[list[tuple[str, ...]]] = [[] for _ in self.steps]
        inside: dict[str, list[int]] = {}
        for place, step in enumerate(self.steps):
            for source in sources(step.arguments):
                readers[source.step].append(step.modules)
            for path in step.modules:
                inside.setdefault(path, []).append(place)
        for place in results:
            readers[place].append(())
        layers: dict[str, int] = {}
        for path, places in inside.items():
            given = [place for place in places if any(path not in reader for reader in readers[place])]
            several = len(given) > 1
            own = path if path != OUTPUT or given == results else f"{OUTPUT}{MODULE}"
            layers |= {f"{own}[{k}]" if several else own: place for k, place in enumerate(given or places[-1:])}
        for name, given_on in self.handed_on.items():
            if given_on in self.operators:
                self.operators.setdefault(name, self.operators[given_on])
        return layers | self.operators | named

    def _results(self, output: Node) -> list[Any]:
        """What the module returns: torch lists what it writes into its inputs and buffers among the results too."""
        specs = self.program.graph_signature.output_specs
        given: Any = output.args[0]
        return [self._value(value) for value, spec in zip(given, specs) if spec.kind == OutputKind.USER_OUTPUT]


def _shape(value: Tensor) -> tuple[int, ...]:
    return tuple(int(size) for size in value.shape)


_FEW = 64
_HASHED = 2**24
"""Bytes of a tensor without a name up to which it is told from others: a hundredth of a second."""


def _constant(value: Any, tensor: Any, filled: bool = False, made: tuple[str, ...] = ()) -> Any:
    if not isinstance(value, Tensor):
        return value
    if isinstance(tensor, Tensor) and not isinstance(tensor, FakeTensor):
        if tensor.numel() <= _FEW:
            made = tuple(map(repr, tensor.detach().reshape(-1).tolist()))
        elif not made and tensor.nbytes <= _HASHED:
            made = (_digest(tensor),)
    return Constant(_shape(value), _entries(tensor), filled, made)


def _digest(tensor: Tensor) -> str:
    values = tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8)
    return sha256(values.numpy().data).hexdigest()


def _entries(tensor: Any) -> tuple[int, ...] | None:
    """Of a short vector of integers; of a mask the places that it picks, as it means these where it is an index."""
    if not isinstance(tensor, Tensor) or tensor.ndim != 1 or tensor.numel() > 4096:
        return None
    if tensor.is_floating_point() or tensor.is_complex():
        return None
    if tensor.dtype in (torch.bool, torch.uint8):
        tensor = tensor.nonzero()[:, 0]
    return tuple(int(item) for item in tensor.tolist())


def _computed(value: Any, name: str, pointwise: bool, arguments: dict[str, Any]) -> Any:
    """What an operator makes of constants alone.

    The sizes that a view or a copy is told show in its shape; of the image's size something else may be computed whose
    shape stays the same, so that the numbers tell it.
    """
    inputs = list(constants(arguments))
    moved = name in VIEWS or name in _COPIES
    filled = name in FILLS or bool((pointwise or moved) and inputs and all(item.filled for item in inputs))
    told = () if moved and (filled or name not in _PICKS) else arguments
    sizes = () if pointwise or moved else tuple(item.shape for item in inputs)
    made = (*(number for item in inputs for number in item.numbers), *map(repr, numbers(told)), *map(repr, sizes))
    if len(made) > _FEW:
        made = (sha256(repr(made).encode()).hexdigest(),)
    return _constant(value, None, filled, made)


def _paths(node: Node) -> tuple[str, ...]:
    """Of the modules around an operator, outermost first, ``"path@1"`` in a module's second call; then its own name."""
    stack = node.meta.get("nn_module_stack") or {}
    paths = []
    for key, (path, _) in stack.items():
        call = f"@{key.rsplit('@', 1)[1]}" if "@" in str(key) else ""
        if path:
            paths.append(f"{path}{call}")
    return tuple(paths)


def _no_image(name: str, returned: list[Any]) -> FieldError:
    """Of a module whose first result no pixel decides."""
    first = "nothing" if not returned or returned[0] is None else "what does not depend on the image"
    place = ", as the first of its results" if len(returned) > 1 else ""
    return FieldError(
        f"{name} returns {first}{place}",
        "a tensor made from the image, first where there are several",
        "wrap it in a module whose forward returns the logits alone",
    )
