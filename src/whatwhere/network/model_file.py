"""The model file: one ``.safetensors`` with the weights and, as JSON, all that is needed to use them.

Nothing is ever unpickled. Knows nothing of training; the plan and the training record are carried, not read.
"""

from __future__ import annotations

import json
import os
import platform
from contextlib import suppress
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import nn
from torch.nn.parameter import is_lazy

from whatwhere.errors import ModelError, in_a_line, no_model
from whatwhere.network.copied import copied
from whatwhere.network.mark import is_hooked
from whatwhere.network.mirror import Mirrored
from whatwhere.network.unet import UNet
from whatwhere.plain_torch import kept_random, plain_torch
from whatwhere.records import Classes, Normalisation
from whatwhere.writing import to_json, whole_file

__all__ = [
    "Holder",
    "Model",
    "as_model",
    "build",
    "has_lazy_layers",
    "is_of",
    "kind_of",
    "load_model",
    "name_of",
    "own_config",
    "save_model",
    "state_of",
    "versions",
]

FORMAT = 1


_BAND = 2**18
"""Values that are normalised at a time: they stay in the processor's cache."""

_OF_A_BLOCK = 12
"""Tensors: two convolutions, and five of each of their norms."""


@dataclass
class Model:
    """A network with what it means.

    Attributes:
        network: any module ``(N, C, H, W) -> (N, classes, H, W)``, in evaluation mode when loaded.
        classes: names, colours and mask values of the logits' channels.
        normalisation: constants from raw image to network input.
        plan: the plan it was trained by, as a plain dictionary ({} for networks made elsewhere).
        training: the training record (scores, steps, seconds, data), a plain dictionary.
        versions: of Python, torch and whatwhere at the time of training.
        source: the file it was read from; None for one made in memory.
    """

    network: nn.Module
    classes: Classes
    normalisation: Normalisation
    plan: dict[str, Any] = field(default_factory=dict)
    training: dict[str, Any] = field(default_factory=dict)
    versions: dict[str, str] = field(default_factory=lambda: versions())
    source: Path | None = None

    def check(self, image: np.ndarray, name: str = "the image") -> None:
        """``ModelError`` if this image is not what the network was trained on: channels, or units of another depth."""
        channels = 1 if image.ndim == 2 else image.shape[-1]
        if image.ndim not in (2, 3) or 0 in image.shape:
            raise ModelError(f"{name} has shape {image.shape}", "HxW or HxWxC with at least one pixel", "")
        if channels != self.normalisation.channels:
            raise ModelError(
                f"{name} has {_channels(channels)}",
                f"{_channels(self.normalisation.channels)}, as the images the model was trained on",
                "move the channels last: image.transpose(1, 2, 0), of a tensor image.permute(1, 2, 0)"
                if image.ndim == 3 and image.shape[0] == self.normalisation.channels
                else "convert the image, or train a model on images like it",
            )
        trained, given = np.dtype(self.normalisation.dtype), image.dtype.newbyteorder("=")  # in whatever order of bytes
        same_units = given == trained or (
            given.kind in "iu"
            and trained.kind in "iu"
            and given.itemsize > trained.itemsize
            and int(image.max()) <= np.iinfo(trained).max
            and int(image.min()) >= 0
        )
        if not same_units:
            raise ModelError(
                f"{name} holds {given} values from {image.min():g} to {image.max():g}",
                f"{trained} values, as the images the model was trained on",
                f"convert it to {trained} in the units of the training images",
            )

    def normalise(self, image: np.ndarray, name: str = "the image", out: torch.Tensor | None = None) -> torch.Tensor:
        """HxW or HxWxC raw values to ``(C, H, W)`` float32 network input; into ``out`` where it is given.

        >>> classes = Classes(("ground",), ((0, 0, 0),), ((0,),))
        >>> model = Model(nn.Identity(), classes, Normalisation(mean=(100.0,), std=(50.0,)))
        >>> model.normalise(np.uint8([[100, 200]]))
        tensor([[[0., 2.]]])
        """
        self.check(image, name)
        raw = image[..., None] if image.ndim == 2 else image
        mean = np.asarray(self.normalisation.mean, np.float32)
        scale = 1 / np.asarray(self.normalisation.std, np.float32)
        found = torch.empty(raw.shape[2], *raw.shape[:2]) if out is None else out
        values = found.numpy()
        rows = max(1, _BAND // raw[0].size)
        for top in range(0, len(raw), rows):
            values[:, top : top + rows] = ((raw[top : top + rows] - mean) * scale).transpose(2, 0, 1)
        return found


def _channels(count: int) -> str:
    return f"{count} channel{'s' if count != 1 else ''}"


def versions() -> dict[str, str]:
    """Versions of what computed a result; recorded in every output."""
    found = {"python": platform.python_version()}
    for package in ("whatwhere", "torch", "numpy"):
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = "unknown"
    return found


def build(config: dict[str, Any]) -> nn.Module:
    """The network a model file or a plan describes; unpadded ones mirror the image at its edges."""
    network = UNet(**config)
    return Mirrored(network) if network.padding == "valid" else network


def own_config(network: nn.Module) -> dict[str, Any] | None:
    """What :func:`build` makes this network from; None for networks made elsewhere, whatever ``config`` they have.

    A class derived from ours computes something else, and so does ours with a layer exchanged, set otherwise or hooked.
    """
    return None if is_hooked(network) else _written_config(network)


def _written_config(network: nn.Module) -> dict[str, Any] | None:
    """As `own_config`, for a file, which holds no hooks of any network."""
    if type(network) is Mirrored and not network.altered:
        network = network.network
    return network.config if type(network) is UNet and not network.altered else None


def name_of(network: nn.Module) -> str:
    """Where the class of a network made elsewhere is found.

    >>> name_of(nn.Conv2d(1, 2, 3))
    'torch.nn.modules.conv.Conv2d'
    """
    return f"{type(network).__module__}.{type(network).__qualname__}"


def is_of(network: nn.Module, name: str) -> bool:
    """Whether its class is the one of that name: a script's own class is in ``__main__`` one day, in a module another.

    Its ``__qualname__`` as in :func:`name_of`, for torch.fx gives classes that it makes another ``__name__``.

    >>> is_of(nn.Conv2d(1, 2, 3), "__main__.Conv2d")
    True
    """
    return name_of(network).rpartition(".")[2] == name.rpartition(".")[2]


def has_lazy_layers(network: nn.Module) -> bool:
    """Whether a layer has no weights or statistics before it has seen an image.

    >>> has_lazy_layers(nn.LazyConv2d(2, 3)), has_lazy_layers(nn.Conv2d(1, 2, 3))
    (True, False)
    """
    return any(map(is_lazy, (*network.parameters(), *network.buffers())))


def kind_of(given: object) -> str:
    """What somebody gave instead of a network or model.

    >>> kind_of({}), kind_of(nn.ReLU)
    ('a dict', 'the class ReLU')
    """
    return f"the class {given.__name__}" if isinstance(given, type) else f"a {type(given).__name__}"


def save_model(model: Model, path: Path | str, *, durable: bool = False) -> Path:
    """Writes the model file at once or not at all (a temporary name, then a rename).

    Of a network made elsewhere it holds the name and the weights: to be read again it has to be made again.
    ``durable`` waits until it is on the disk, to outlive a power cut.

    Raises:
        ModelError: the network keeps a state that is no tensor.
        OutputError: the file can't be written.
    """
    path = Path(path)
    config = _written_config(model.network) or {"module": name_of(model.network)}
    record = {
        "format": FORMAT, "network": config, "classes": model.classes.to_json(),
        "normalisation": model.normalisation.to_json(), "plan": model.plan, "training": model.training,
        "versions": model.versions,
    }  # fmt: skip
    with whole_file(path, failures=SafetensorError, durable=durable) as partial:
        save_file(state_of(model.network), partial, metadata={"whatwhere": to_json(record)})
    return path


def state_of(network: nn.Module) -> dict[str, torch.Tensor]:
    """Its weights and buffers as a file can hold them; ``ModelError`` for state that is no tensor."""
    found = {}
    for name, value in network.state_dict().items():
        if not isinstance(value, torch.Tensor):
            raise ModelError(f"{name_of(network)} keeps {name}, which is no tensor", "a state of tensors alone", "")
        # copied, as a file can't hold one tensor under two names
        found[name] = value.detach().cpu().clone(memory_format=torch.contiguous_format)
    return found


@plain_torch()
@kept_random()  # a new network draws its first weights
def load_model(path: Path | str, module: nn.Module | None = None) -> Model:
    """Reads a model file; ``ModelError`` if it is missing, damaged, not ours or of a newer format.

    Args:
        path: the file, or a run folder.
        module: for a file whose network was made elsewhere: the same network, made again; a copy gets the weights.
    """
    if not isinstance(path, str | os.PathLike):
        raise ModelError(
            f"the path is {kind_of(path)}", "a model file (.safetensors) or a run folder", "wrap a network: from_module"
        )
    path = Path(path)
    if path.is_dir() and (path / "model.safetensors").is_file():
        path = path / "model.safetensors"
    if path.is_dir():
        raise ModelError(
            f"{path} is a folder without model.safetensors",
            "a run folder whose training has come to its first validation, or a model file",
            "train first, go on with --resume, or name the file",
        )
    if not path.is_file():
        raise no_model(path)
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            weights = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (no iterator)
    except (SafetensorError, OSError) as error:
        pickled = path.suffix.lower() in (".pt", ".pth", ".ckpt", ".bin", ".pkl")
        raise ModelError(
            f"{path} is not a readable model file ({error})",
            "a whole .safetensors file",
            "make its network in Python and wrap it: Segmenter.from_module" if pickled else "copy it again",
        ) from error
    if "counters" in metadata:  # as training writes them
        raise ModelError(
            f"{path} is a checkpoint, for training to go on with",
            "a model file (.safetensors) or a run folder",
            "name its run folder; where that holds no model yet, train on with --resume",
        )
    if "whatwhere" not in metadata:
        raise ModelError(
            f"{path} holds weights of another program", "a model saved by whatwhere", "wrap the network by from_module"
        )
    return _assemble(path, metadata["whatwhere"], weights, module)


class Holder(Protocol):
    """What holds a model, as a ``Segmenter`` does."""

    model: Model


def as_model(model: Model | Holder | Path | str) -> Model:
    """The model itself, from whatever a caller has of it: see :func:`load_model` for files and run folders."""
    if isinstance(model, str | Path):
        return load_model(model)
    held = model if isinstance(model, Model) else getattr(model, "model", None)
    if isinstance(held, Model):
        return held
    raise ModelError(
        f"the model is {kind_of(model)}",
        "a model file, run folder, model or Segmenter",
        "wrap a network: Segmenter.from_module(network, classes, normalisation)",
    )


def _check_size(config: dict[str, Any], weights: dict[str, torch.Tensor]) -> None:
    """Tells what differs between a file's description and its weights, before a far larger network takes the memory.

    Tensors of torch's device meta have names and shapes, and no numbers. What of timm can't be made there is not told.
    """
    depth, repeats = int(config["depth"]), int(config.get("repeats", 1))
    blocks = depth * repeats if config.get("encoder", "plain") == "plain" else 0  # no other encoder repeats them
    if max(depth, repeats, _OF_A_BLOCK * blocks) > len(weights):
        raise ValueError(f"{depth} levels of {repeats} blocks, and {len(weights)} tensors")
    with suppress(ModelError), torch.device("meta"):
        build(config).load_state_dict(weights, assign=True)


def _network(
    path: Path, config: dict[str, Any], weights: dict[str, torch.Tensor], module: nn.Module | None
) -> nn.Module:
    """The network a file describes, or the one that is given for it, with its weights."""
    name = config.get("module")
    if name is None and (module is None or _written_config(module) == config):
        _check_size(config, weights)
        network = build(config)
        network.load_state_dict(weights)
        return network
    if module is None or not is_of(module, name or ""):
        raise ModelError(
            f"{path} holds the weights of {name or 'a network of whatwhere'}"
            + (f", not of {name_of(module)}" if module is not None else ", which was made elsewhere"),
            "the network it was saved from, made again" if name else "no module",
            "in Python: Segmenter.load(path, module=...)" if name else "leave out module",
        )
    module = copied(module)
    try:
        module.load_state_dict(weights)
    except RuntimeError as error:
        raise ModelError(
            f"{path} holds other weights of {name} than the one given has ({in_a_line(error)})",
            "the network it was saved from",
            "make it with the same arguments",
        ) from error
    return module


def _check_split(plan: dict[str, Any]) -> None:
    """Of what is made use of only long after a file was read: which images are in which part."""
    parts = plan.get("split", {}).values()
    if not all(isinstance(names, list) and all(isinstance(name, str) for name in names) for names in parts):
        raise TypeError("a split is no list of names")


def _assemble(path: Path, metadata: str, weights: dict[str, torch.Tensor], module: nn.Module | None) -> Model:
    try:
        record = json.loads(metadata)
        if record["format"] > FORMAT:
            raise ModelError(f"{path} has format {record['format']}", f"at most {FORMAT}", "update whatwhere")
        network = _network(path, record["network"], weights, module)
        classes = Classes.from_json(record["classes"])
        normalisation = Normalisation.from_json(record["normalisation"])
        plan, training, made_by = (dict(record[name]) for name in ("plan", "training", "versions"))
        _check_split(plan)
    except (KeyError, TypeError, ValueError, RuntimeError, AttributeError, ArithmeticError, MemoryError) as error:
        raise ModelError(
            f"{path} does not describe a whole model ({in_a_line(error)})", "", "save or copy it again"
        ) from error
    return Model(network.eval(), classes, normalisation, plan, training, made_by, source=path)
