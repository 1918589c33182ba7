"""The ways down a U: modules that return features at strides 1, 2, 4, ... Knows nothing of skips, decoders or classes.

Every way is a list of stages, one a level, so that level k is always the module ``encoder.k``; it tells how many
channels each level carries. EfficientNet-Lite0 (Tan & Le 2019, arXiv 1905.11946, without its squeeze-excite) keeps
everything local, so images can still be painted in exact tiles; its ImageNet weights are loaded by `pretrained`.
"""

from __future__ import annotations

import itertools
import re
from types import ModuleType

import torch
from torch import Tensor, nn

from whatwhere.errors import ModelError, in_a_line
from whatwhere.network.blocks import Block, ConvNormReLU, Level
from whatwhere.network.blocks import block as _bricks

__all__ = [
    "LITE0_CHANNELS",
    "InvertedBottleneck",
    "Lite0Encoder",
    "PlainEncoder",
    "TimmEncoder",
    "known_encoder",
    "lite0_stages",
    "pooled_block",
    "timm_constants",
]

LITE0_CHANNELS = (16, 24, 40, 112, 320)
"""Channels at strides 2, 4, 8, 16 and 32."""

_LITE0_BLOCKS = (
    (1, 16, 3, 1, 1), (2, 24, 3, 2, 6), (2, 40, 5, 2, 6), (3, 80, 3, 2, 6), (3, 112, 5, 1, 6), (4, 192, 5, 2, 6),
    (1, 320, 3, 1, 6),
)  # fmt: skip
"""How often, channels, kernel, stride of the first, expansion."""


class PlainEncoder(nn.ModuleList):
    """At each level a block, between levels a 2x2 max pooling. Returns one tensor a level."""

    def __init__(self, in_channels: int, widths: tuple[int, ...], kind: Block, repeats: int, padded: bool) -> None:
        stages: list[nn.Module] = [_bricks(kind, in_channels, widths[0], padded=padded)]
        for above, here in itertools.pairwise(widths):
            stages.append(pooled_block(kind, above, here, repeats, padded))
        super().__init__(stages)

    def forward(self, image: Tensor) -> list[Tensor]:
        levels = []
        for stage in self:
            image = stage(image)
            levels.append(image)
        return levels


def pooled_block(kind: Block, above: int, here: int, repeats: int, padded: bool) -> nn.Module:
    """One level down."""
    return nn.Sequential(nn.MaxPool2d(2), _bricks(kind, above, here, repeats=repeats, padded=padded))


class Lite0Encoder(nn.ModuleList):
    """EfficientNet-Lite0 below a small block of our own at full resolution, which the classifier never had.

    Level 0 looks at the image beside the classifier's first convolution, not before it: that one was trained on images.
    """

    def __init__(self, in_channels: int, width: int, stages: list[nn.Module]) -> None:
        top = nn.Sequential(ConvNormReLU(in_channels, width), ConvNormReLU(width, width))
        super().__init__([top, *stages])

    def forward(self, image: Tensor) -> list[Tensor]:
        levels = [self[0](image)]
        x = image
        for stage in list(self)[1:]:
            x = stage(x)
            levels.append(x)
        return levels


def lite0_stages() -> list[nn.Module]:
    """The classifier's blocks as five stages, each half as fine as the one before: strides 2 to 32."""
    stages: list[list[nn.Module]] = [[_convolution(3, 32, 3, stride=2)]]
    channels = 32
    for repeats, out, kernel, stride, expansion in _LITE0_BLOCKS:
        for index in range(repeats):
            first = stride if index == 0 else 1
            if first == 2:
                stages.append([])
            stages[-1].append(InvertedBottleneck(channels, out, kernel, first, expansion))
            channels = out
    return [nn.Sequential(*stage) for stage in stages]


class TimmEncoder(nn.Module):
    """Any ``timm`` model that can give its features, below blocks of our own at the strides that it lacks.

    That is full resolution, and stride 2 of models that begin with 4x4 patches (ConvNeXt, EfficientViT).

    Args:
        name: a name that ``timm.create_model`` knows.
        width: channels at full resolution.
        depth: its features down to stride ``2**depth`` are used.

    Raises:
        ModelError: timm is not installed, knows no such model, or the model's strides are not those of a U.
    """

    def __init__(self, name: str, in_channels: int, width: int, depth: int) -> None:
        super().__init__()
        self.name = name
        self.in_channels = in_channels
        self.body = _timm_body(name, in_channels, depth)
        theirs = tuple(self.body.feature_info.channels())  # type: ignore[operator, union-attr]
        self.own = depth + 1 - len(theirs)
        widths = tuple(width * 2**level for level in range(self.own))
        self.channels: tuple[int, ...] = (*widths, *theirs)
        self.add_module("0", nn.Sequential(ConvNormReLU(in_channels, width), ConvNormReLU(width, width)))
        for level in range(1, self.own):
            self.add_module(str(level), pooled_block("plain", widths[level - 1], widths[level], 1, True))
        for level in range(self.own, depth):
            self.add_module(str(level), Level())

    def forward(self, image: Tensor) -> list[Tensor]:
        """One tensor a level and, other than the other encoders, also the deepest."""
        levels = [image]
        for level in range(self.own):
            levels.append(self.get_submodule(str(level))(levels[-1]))
        *upper, deepest = self.body(image)
        theirs = (self.get_submodule(str(level))(features) for level, features in enumerate(upper, self.own))
        return [*levels[1:], *theirs, deepest]

    def load_pretrained(self) -> None:
        """The weights that timm has for this model; ``ModelError`` where it cannot get them."""
        timm = _timm(self.name)
        try:
            given = timm.create_model(
                self.name, pretrained=True, features_only=True, in_chans=self.in_channels,
                out_indices=self.body.feature_info.out_indices,  # type: ignore[union-attr]
            )  # fmt: skip
        except (OSError, RuntimeError, ValueError) as error:
            raise ModelError(
                f"timm has no weights for {self.name!r} here ({' '.join(str(error).split())[:80]})",
                "weights that timm can load",
                "set pretrained = false in the plan, or fetch them with timm first",
            ) from error
        self.body.load_state_dict(given.state_dict())


def timm_constants(name: str) -> tuple[tuple[float, ...], tuple[float, ...]] | None:
    """Mean and deviation of 8-bit RGB that the model's weights were trained with; None where timm has no weights.

    Raises:
        ModelError: timm is not installed, or knows no such model.
    """
    timm = _timm(name)
    if not timm.is_model(name):
        raise ModelError(f"encoder 'timm:{name}'", "a model that timm knows", "timm.list_models() lists names")
    found = timm.get_pretrained_cfg(name)
    if found is None or not found.has_weights:
        return None
    mean, deviation = (tuple(255.0 * value for value in values) for values in (found.mean, found.std))
    return mean, deviation


def _timm_body(name: str, in_channels: int, depth: int) -> nn.Module:
    """The model that gives its features at strides up to 2**depth, each twice the one before."""
    timm = _timm(name)
    options = {"pretrained": False, "features_only": True, "in_chans": in_channels}
    try:
        found = timm.create_model(name, **options).feature_info
        places = {stride: place for stride, place in zip(found.reduction(), found.out_indices) if stride > 1}
        strides = [2**level for level in range(1, depth + 1) if 2**level >= min(places)]
        if not strides or not set(strides) <= places.keys():
            raise ValueError(f"it gives them at {', '.join(map(str, places))}")
        body = timm.create_model(name, out_indices=[places[stride] for stride in strides], **options)
        _probe(body, in_channels, strides)
    except (RuntimeError, ValueError, AttributeError, AssertionError) as error:
        raise ModelError(
            f"encoder 'timm:{name}' with depth {depth} ({in_a_line(error)})",
            f"a model of images of any size that gives features down to stride {2**depth}",
            "choose another model, or another depth; timm.list_models() lists names",
        ) from error
    return body  # type: ignore[no-any-return]


def _probe(body: nn.Module, in_channels: int, strides: list[int]) -> None:
    """``ValueError`` if features are not ``(N, C, H, W)`` at these strides (some transformers take one size only)."""
    side = 2 * strides[-1]
    was_training = body.training
    with torch.inference_mode():
        found = body.eval()(torch.zeros(1, in_channels, side, side))
    body.train(was_training)
    shapes = [tuple(features.shape[2:]) for features in found]
    if shapes != [(side // stride, side // stride) for stride in strides]:
        raise ValueError(f"features of an image of {side} px have sizes {shapes}")


def _timm(name: str) -> ModuleType:
    try:
        import timm
    except (ImportError, RuntimeError) as error:  # RuntimeError: torchvision, which it asks for, is of another torch
        raise ModelError(
            f"encoder 'timm:{name}' asks for timm, which cannot be imported ({error})",
            "the package timm",
            'pip install "whatwhere[encoders]"',
        ) from error
    return timm  # type: ignore[no-any-return]


def known_encoder(name: str) -> bool:
    """Whether a plan or a model file may ask for it; a timm model by its name alone, which fetches nothing.

    >>> known_encoder("timm:resnet18.a1_in1k"), known_encoder("timm:hf-hub:someone/something")
    (True, False)
    """
    return name in ("plain", "efficientnet-lite0") or re.fullmatch(r"timm:[\w.-]+", name) is not None


class InvertedBottleneck(nn.Module):
    """Wide in the middle, where each channel is filtered by itself (Sandler et al. 2018, arXiv 1801.04381)."""

    def __init__(self, in_channels: int, out_channels: int, kernel: int, stride: int, expansion: int) -> None:
        super().__init__()
        wide = in_channels * expansion
        self.expand: nn.Module = _convolution(in_channels, wide, 1) if expansion > 1 else nn.Identity()
        self.depthwise = _convolution(wide, wide, kernel, stride=stride, depthwise=True)
        self.project = _convolution(wide, out_channels, 1, activated=False)
        self.adds = stride == 1 and in_channels == out_channels

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.project(self.depthwise(self.expand(x)))
        return x + y if self.adds else y


def _convolution(
    in_channels: int,
    out_channels: int,
    kernel: int,
    *,
    stride: int = 1,
    depthwise: bool = False,
    activated: bool = True,
) -> nn.Sequential:
    """Convolution, batch norm, ReLU6, padded as TensorFlow pads even sizes: at stride 2 one pixel more at the far side.

    The weights were trained so. Sizes are always even here (a U-Net pads to a multiple of its total stride), so the
    padding is the same at every size, as exact tiles need.
    """
    spare = kernel - stride
    near, far = spare // 2, spare - spare // 2
    parts: list[nn.Module] = [] if near == far else [nn.ZeroPad2d((near, far, near, far))]
    padding = near if near == far else 0
    groups = in_channels if depthwise else 1
    parts += [
        nn.Conv2d(in_channels, out_channels, kernel, stride, padding, groups=groups, bias=False),
        nn.BatchNorm2d(out_channels, eps=1e-3),
    ]
    return nn.Sequential(*parts, nn.ReLU6(inplace=True)) if activated else nn.Sequential(*parts)
