"""Which module takes exactly the output of which: watched while an image passes, so it works for any torch module."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn
from torch.nn.utils.parametrize import is_parametrized
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_leaves

__all__ = ["followers", "untouched"]

Kinds = tuple[type[nn.Module], ...]


class _Reads(TorchFunctionMode):
    """Counts for each module in ``made`` how often functions take its output; asking its size is no reading.

    Functions, not operators: to count those torch imports its compiler, which takes longer than a small painting.
    """

    def __init__(self, made: Mapping[int, nn.Module]) -> None:
        super().__init__()
        self.made = made
        self.of: Counter[nn.Module] = Counter()

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        makers = [self.made[one] for one in map(id, tree_leaves((args, kwargs))) if one in self.made]
        result = func(*args, **kwargs or {})
        if result is None or any(isinstance(leaf, Tensor) for leaf in tree_leaves(result)):
            self.of.update(makers)
        return result


def untouched(module: nn.Module) -> bool:
    """Whether its weights and class say all that it does: what stands in its place is not hooked, and keeps nothing.

    >>> conv = nn.Conv2d(1, 1, 1)
    >>> untouched(conv), untouched(nn.utils.parametrizations.weight_norm(conv))
    (True, False)
    """
    hooked = module._forward_hooks or module._forward_pre_hooks or "forward" in vars(module)
    return not hooked and not is_parametrized(module)


def followers(network: nn.Module, example: Tensor, firsts: Kinds, seconds: Kinds) -> list[tuple[str, str]]:
    """Names of pairs of untouched modules where the second alone took the first's very output; each called once.

    Whether that output is among the network's results can't be seen: compare what comes of what is done with a pair.
    """
    names = {module: name for name, module in network.named_modules(remove_duplicate=False)}
    calls: Counter[nn.Module] = Counter()
    made: dict[int, nn.Module] = {}
    held: list[Tensor] = []  # so that no id is given to another
    pairs: list[tuple[nn.Module, nn.Module]] = []

    def enter(module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        if isinstance(module, seconds) and inputs and id(inputs[0]) in made:
            pairs.append((made[id(inputs[0])], module))

    def leave(module: nn.Module, _inputs: tuple[Tensor, ...], output: Tensor) -> None:
        calls[module] += 1
        if isinstance(module, firsts):
            made[id(output)] = module
            held.append(output)
        elif isinstance(module, seconds):
            made.pop(id(output), None)  # written in place, it is the second's from here on

    watched = [module for module in names if isinstance(module, firsts + seconds)]
    handles = [module.register_forward_pre_hook(enter) for module in watched]
    handles += [module.register_forward_hook(leave) for module in watched]
    reads = _Reads(made)
    try:
        with reads:
            network(example)
    finally:
        for handle in handles:
            handle.remove()
    once = [pair for pair in pairs if all(calls[module] == 1 for module in pair) and reads.of[pair[0]] == 1]
    return [(names[first], names[second]) for first, second in once if untouched(first) and untouched(second)]
