"""What a run consists of between two steps, and how it is kept so that it can go on after a ``kill -9``.

Tensors go to a safetensors file with the numbers as JSON in its header, written under a temporary name and renamed:
what is there is always whole. Nothing random is kept, for crop n of a seed is always the same.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from whatwhere.errors import TrainingError, in_a_line
from whatwhere.learn.average import Average
from whatwhere.writing import whole_file

__all__ = ["Counters", "State"]


@dataclass
class Counters:
    """The numbers of a run: steps made, seconds spent, what the guards did, the best validation so far.

    ``judged`` is how many images validations in between judge under a time budget, 0 before that is chosen;
    ``validations`` how many parts they divide the run into; ``begun`` the seconds when the first step was made;
    ``window`` the images that crops were drawn from at a time, -1 before that is known; ``seen`` the digests of some
    images that it learns from, by their names.
    """

    step: int = 0
    elapsed: float = 0.0
    waiting: float = 0.0
    rate_factor: float = 1.0
    rewinds: int = 0
    accumulate: int = 1
    best_score: float = -1.0
    best_step: int = 0
    validated: int = 0
    judged: int = 0
    validations: int = 10
    begun: float = 0.0
    window: int = -1
    seen: Mapping[str, str] = field(default_factory=dict)
    finished: bool = False


@dataclass
class State:
    """Network, optimiser, averaged network and counters."""

    network: nn.Module
    optimizer: torch.optim.Optimizer
    average: Average
    counters: Counters = field(default_factory=Counters)

    def tensors(self) -> dict[str, Tensor]:
        kept = {f"network.{name}": tensor for name, tensor in self.network.state_dict().items()}
        kept |= {f"average.{name}": tensor for name, tensor in self.average.network.state_dict().items()}
        for index, moments in self.optimizer.state_dict()["state"].items():
            kept |= {f"optimizer.{index}.{name}": tensor for name, tensor in moments.items()}
        return kept

    def snapshot(self) -> dict[str, Tensor]:
        """A copy in the computer's memory, to rewind to: a GPU's is for the network."""
        return {name: tensor.detach().to("cpu", copy=True) for name, tensor in self.tensors().items()}

    def restore(self, tensors: dict[str, Tensor]) -> None:
        self.network.load_state_dict(_under("network.", tensors))
        self.average.network.load_state_dict(_under("average.", tensors))
        parameters = [p for group in self.optimizer.param_groups for p in group["params"]]
        moments: dict[int, dict[str, Tensor]] = {}
        for name, tensor in _under("optimizer.", tensors).items():
            index, _, key = name.partition(".")
            # in the memory layout of the weights: the fused optimiser reads both side by side
            like = parameters[int(index)] if tensor.ndim else tensor
            moments.setdefault(int(index), {})[key] = torch.empty_like(like, requires_grad=False).copy_(tensor)
        self.optimizer.load_state_dict({**self.optimizer.state_dict(), "state": moments})

    def save(self, path: Path) -> None:
        # copied, as a file can't hold one tensor under two names
        layout = torch.contiguous_format
        tensors = {name: tensor.detach().cpu().clone(memory_format=layout) for name, tensor in self.tensors().items()}
        with whole_file(path, failures=SafetensorError, durable=True) as partial:
            save_file(tensors, partial, metadata={"counters": json.dumps(asdict(self.counters))})

    def load(self, path: Path) -> None:
        try:
            with safe_open(path, framework="pt") as file:
                counters = Counters(**json.loads((file.metadata() or {})["counters"]))
                tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (no iterator)
            self.restore(tensors)
        except (OSError, SafetensorError) as error:
            raise TrainingError(
                f"{path} is damaged ({in_a_line(error)})",
                "the checkpoint that this run wrote, whole",
                "start anew in another folder; what was best until then is model.safetensors, if that is there",
            ) from error
        except (KeyError, TypeError, ValueError, IndexError, RuntimeError) as error:
            raise TrainingError(
                f"{path} is not a checkpoint of this plan ({in_a_line(error)})",
                "the checkpoint that this run wrote",
                "resume with the plan (and the module) it was started with, or start anew in another folder",
            ) from error
        self.counters = counters


def _under(prefix: str, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}
