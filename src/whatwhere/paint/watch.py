"""Which module takes exactly the output of which: watched while an image passes, so it works for any torch module."""

from __future__ import annotations

from collections import Counter

from torch import Tensor, nn

__all__ = ["followers"]

Kinds = tuple[type[nn.Module], ...]


def followers(network: nn.Module, example: Tensor, firsts: Kinds, seconds: Kinds) -> list[tuple[str, str]]:
    """Names of pairs of modules where the second took the first's very output; each called once in the forward pass.

    Whether something else reads that output too can't be seen: compare the results of what is done with a pair.
    """
    names = {module: name for name, module in network.named_modules(remove_duplicate=False)}
    calls: Counter[nn.Module] = Counter()
    made: dict[int, tuple[nn.Module, Tensor]] = {}  # holds the tensor, so that its id can't be given to another
    pairs: list[tuple[nn.Module, nn.Module]] = []

    def enter(module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        if isinstance(module, seconds) and inputs and id(inputs[0]) in made:
            pairs.append((made[id(inputs[0])][0], module))

    def leave(module: nn.Module, _inputs: tuple[Tensor, ...], output: Tensor) -> None:
        calls[module] += 1
        if isinstance(module, firsts):
            made[id(output)] = module, output

    watched = [module for module in names if isinstance(module, firsts + seconds)]
    handles = [module.register_forward_pre_hook(enter) for module in watched]
    handles += [module.register_forward_hook(leave) for module in watched]
    try:
        network(example)
    finally:
        for handle in handles:
            handle.remove()
    taken = Counter(first for first, _ in pairs)
    once = [(first, second) for first, second in pairs if calls[first] == calls[second] == taken[first] == 1]
    return [(names[first], names[second]) for first, second in once]
