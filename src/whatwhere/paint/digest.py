"""What names a network: its structure, its weights, and of one made elsewhere its code, as far as it can be read."""

from __future__ import annotations

import hashlib

from torch import nn

from whatwhere.network import own_config
from whatwhere.network.mark import bytes_of, mark, of_torch, source_of

__all__ = ["digest_of"]


def digest_of(network: nn.Module) -> str:
    """SHA-256 of all that decides what a network computes; the same in every process.

    >>> digest_of(nn.ReLU()) == digest_of(nn.ReLU()) != digest_of(nn.ReLU6())
    True
    """
    digest = hashlib.sha256(repr(network).encode())
    if own_config(network) is None:
        digest.update(mark(network).encode())
        digest.update(_code(network).encode())
    for name, tensor in sorted({**dict(network.named_parameters()), **dict(network.named_buffers())}.items()):
        digest.update(name.encode())
        digest.update(bytes_of(tensor))
    return digest.hexdigest()


def _code(network: nn.Module) -> str:
    """Of its modules' classes, as far as it can be read."""
    bases = dict.fromkeys(base for module in network.modules() for base in type(module).__mro__)
    return "\n".join(source_of(base) for base in bases if not of_torch(base))
