"""A torch module as a list of steps: what `torch.export` saw, without torch.

Each step has an operator's name, its arguments and the shape of its result. Tensors that depend on the image appear in
arguments as `Source`, all others as `Constant`. A number that is known only while it runs (``.item()``) is a step too.
Knows nothing of windows.
"""

from __future__ import annotations

import logging
import operator
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from hashlib import sha256
from threading import RLock
from typing import Any

import torch
from torch import Tensor, nn
from torch._ops import OpOverload
from torch._subclasses.fake_tensor import FakeTensor
from torch.export import ExportedProgram
from torch.export.graph_signature import InputKind, OutputKind
from torch.fx import Node
from torch.utils import _pytree as pytree

from whatwhere.errors import FieldError
from whatwhere.field.caches import put_back
from whatwhere.field.in_sight import forward_in_sight

__all__ = [
    "MODULE", "OPERATOR", "OUTPUT", "Constant", "Graph", "Source", "Step", "constants", "export_graph", "numbers",
    "sources",
]  # fmt: skip


@dataclass(frozen=True)
class Source:
    """The result of an earlier step, by its place in `Graph.steps`."""

    step: int
    shape: tuple[int, ...]


@dataclass(frozen=True)
class Constant:
    """A tensor that does not depend on the image: a weight, a buffer, coordinates."""

    shape: tuple[int, ...]
    values: tuple[int, ...] | None = None
    """The entries, for short vectors of integers (indices); of a mask the places that it picks."""
    filled: bool = False
    """One value everywhere (zeros, ones), as far as can be told."""
    numbers: tuple[str, ...] = ()
    """What it was made from, a weight's name or numbers: two constants that differ in them are not the same."""


@dataclass(frozen=True)
class Step:
    """One operator.

    Attributes:
        operator: its ATen name without overload and in-place mark, such as ``"conv2d"``.
        arguments: by the schema's names, with defaults filled in.
        shape: of the result (of result number `part`, where the operator has several).
        modules: the paths of the modules it ran in, outermost first; ``"stem"``, ``"stem.0"``.
        pointwise: torch says that each result depends on the same (broadcast) place of its inputs only.
        computed: a number among its arguments is known only while the network runs, as of ``.item()``.
        unsteady: why its result is another each time, though the image is the same; "" if it is not.
    """

    operator: str
    arguments: dict[str, Any]
    shape: tuple[int, ...]
    part: int = 0
    modules: tuple[str, ...] = ()
    pointwise: bool = False
    computed: bool = False
    unsteady: str = ""

    @property
    def module(self) -> str:
        return self.modules[-1] if self.modules else ""


@dataclass(frozen=True)
class Graph:
    """The steps in order; step 0 is the image.

    Attributes:
        layers: for each module path (and ``"output"``) the step that holds its result; ``"path[0]"``, ``"path[1]"`` for
            a module that gives several, ``"output"``, ``"output[1]"`` where the network does, by their places among all
            that it returns, made from the image or not; and for each operator that torch exported, by its name there:
            ``"%add_1"``.
    """

    steps: tuple[Step, ...]
    layers: dict[str, int]


def constants(arguments: Any) -> Iterator[Constant]:
    """All tensors in an argument (or arguments) that do not depend on the image."""
    if isinstance(arguments, Constant):
        yield arguments
    elif isinstance(arguments, dict | list | tuple):
        for value in arguments.values() if isinstance(arguments, dict) else arguments:
            yield from constants(value)


def sources(arguments: Any) -> Iterator[Source]:
    """All tensors in an argument (or arguments) that depend on the image."""
    if isinstance(arguments, Source):
        yield arguments
    elif isinstance(arguments, dict | list | tuple):
        for value in arguments.values() if isinstance(arguments, dict) else arguments:
            yield from sources(value)


def numbers(arguments: Any) -> Iterator[int | float | str]:
    """All numbers and words among an operator's arguments."""
    if isinstance(arguments, dict | list | tuple):
        for value in arguments.values() if isinstance(arguments, dict) else arguments:
            yield from numbers(value)
    elif isinstance(arguments, int | float | str):
        yield arguments


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
"""Where torch prints tracebacks and graphs of what is told as an error."""


def _exported(
    module: nn.Module, inputs: Sequence[Any], image: int, known: Callable[[str], bool], most: int | None
) -> Graph:
    flags = [(part, part.training) for part in module.modules()]
    module.eval()
    quiet = [log.disabled for log in _TELLS]
    for log in _TELLS:
        log.disabled = True
    try:
        with warnings.catch_warnings(), torch.no_grad(), put_back(module):
            warnings.simplefilter("ignore")  # of torch.export's own insides
            vars(module)["forward"] = forward_in_sight(module, most)
            program = torch.export.export(module, tuple(inputs), strict=False)
            handed_on = _name_operators(program)
            if _must_take_apart(program, known):
                _read_through_dropout(program)
                program = program.run_decompositions(_composites(program, known))
            return _Reader(
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


def _no_image(name: str, returned: list[Any]) -> FieldError:
    """Of a module whose first result no pixel decides."""
    first = "nothing" if not returned or returned[0] is None else "what does not depend on the image"
    place = ", as the first of its results" if len(returned) > 1 else ""
    return FieldError(
        f"{name} returns {first}{place}",
        "a tensor made from the image, first where there are several",
        "wrap it in a module whose forward returns the logits alone",
    )


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
COPIES = frozenset({"clone", "contiguous", "to", "_to_copy", "float", "double", "half", "type_as", "repeat", "tile"})
"""What hands on one value everywhere as that, beside views and what works element by element."""
_PICKS = frozenset({"slice", "select", "narrow"})
"""Views of a part: the shape does not tell which."""
OUTPUT = "output"
"""Among layers, the network's own result; of several the first."""
MODULE = " (module)"
"""Ends the name of a module that is called as that, and is not it."""
OPERATOR = "%"
"""What an operator's name begins with among layers, and in torch's own print of a graph."""
DROPOUTS = frozenset({"dropout", "feature_dropout", "alpha_dropout", "feature_alpha_dropout"})
"""What does nothing where nothing is trained."""
_NUMBERS = torch.SymInt, torch.SymFloat, torch.SymBool
"""What ``.item()`` gives, and what is computed of it: known only while the network runs, even if by weights alone."""


def _operator(node: Node) -> str:
    if node.target is operator.getitem:
        return "getitem"
    schema = getattr(node.target, "_schema", None)
    name = str(schema.name).split("::")[-1] if schema else str(getattr(node.target, "__name__", node.target))
    return name if name.startswith("__") else name.rstrip("_")


def _written(node: Node) -> Node | None:
    """The tensor that an in-place operator writes, if it is one."""
    schema = getattr(node.target, "_schema", None)
    if schema is None or not node.args or not isinstance(node.args[0], Node):
        return None
    first = schema.arguments[0].alias_info if schema.arguments else None
    return node.args[0] if first is not None and first.is_write else None


def _writes_others(node: Node) -> bool:
    """Whether an operator writes into more than its first tensor, or into another: ``out=``, or a list of them."""
    schema = getattr(node.target, "_schema", None)
    written = [place for place, argument in enumerate(schema.arguments if schema else ())
               if argument.alias_info is not None and argument.alias_info.is_write]  # fmt: skip
    return bool(written) and (written != [0] or not isinstance(node.args[0], Node))


def _handed_on(node: Node) -> Node | None:
    """The tensor that dropout, when nothing is trained, gives back itself: what is written into one is in the other."""
    if _operator(node) not in DROPOUTS or len(node.args) != 3 or node.args[2]:
        return None
    return node.args[0] if isinstance(node.args[0], Node) else None


def _root(node: Node) -> Node:
    """The tensor whose very memory a result is: what was written in place or handed on, as often as that was done."""
    while (earlier := _written(node) or _handed_on(node)) is not None:
        node = earlier
    return node


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
        given = _handed_on(node)
        if given is not None:
            node.replace_all_uses_with(given, delete_user_cb=lambda user: user.op != "output")
    program.graph_module.recompile()


def _changed(program: ExportedProgram) -> set[str]:
    """The names in a graph of tensors that the network holds, and writes to."""
    held = {spec.arg.name: spec.target for spec in program.graph_signature.input_specs
            if spec.kind != InputKind.USER_INPUT}  # fmt: skip
    told = {spec.target for spec in program.graph_signature.output_specs if spec.kind == OutputKind.BUFFER_MUTATION}
    written = {_root(node).name for node in program.graph.nodes if node.op == "call_function" and _written(node)}
    return {name for name, target in held.items() if target in told or name in written}


def _draws(call: Node, arguments: dict[str, Any]) -> bool:
    """Whether random numbers decide a result: not those of dropout, or its kin, where nothing is trained."""
    tagged = torch.Tag.nondeterministic_seeded in getattr(call.target, "tags", ())
    trains = arguments.get("train", arguments.get("training", True))
    return tagged and bool(trains) and arguments.get("dropout_p", arguments.get("p")) != 0


def _may_share(node: Node) -> bool:
    """Whether a result may be a part of its input's memory, or all of it under another shape."""
    schema = getattr(node.target, "_schema", None)
    told = [result.alias_info for result in schema.returns] if schema else []
    return _operator(node) in VIEWS or any(alias is not None and not alias.is_write for alias in told)


def _must_take_apart(program: ExportedProgram, known: Callable[[str], bool]) -> bool:
    """Whether some operator is composite and has no rule, or torch is to untangle what is written.

    That is a view of what is written later, or what is written beside an operator's first tensor.
    """
    written: set[Node] = set()
    for node in reversed(program.graph.nodes):
        if node.op != "call_function":
            continue
        if _may_share(node) and not written.isdisjoint(map(_root, (node, *node.all_input_nodes))):
            return True
        if _writes_others(node):
            return True
        if _written(node) is not None:
            written.add(_root(node))
        tags, name = getattr(node.target, "tags", ()), _operator(node)
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


class _Reader:
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
        self.changed = _changed(program)

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
        name, pointwise = _operator(call), torch.Tag.pointwise in getattr(call.target, "tags", ())
        if name in FILLS:
            arguments = {key: arguments[key] for key in ("fill_value", "s") if key in arguments}
        number, draws = isinstance(value, _NUMBERS), _draws(call, arguments)
        if next(sources(arguments), None) is None and not number and not draws:
            self.values[_root(node)] = _computed(value, name, pointwise, arguments)
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
        self.values[_root(node)] = Source(len(self.steps) - 1, shape)

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
            return self.values.get(_root(value))
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
    moved = name in VIEWS or name in COPIES
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
