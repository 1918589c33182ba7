"""The U-Net, with named levels and skips. Knows nothing of data, classes' names or training.

    image ─ encoder.0 ───────────── skip 0 ───────────── decoder.0 ─ head ─ logits
               └ encoder.1 ──────── skip 1 ──────── decoder.1 ┘
                    └ encoder.2 ─── skip 2 ─── decoder.2 ┘
                          └───── bottleneck ─────┘

Level k works at 1/2**k of the image's resolution. Ronneberger, Fischer & Brox 2015, arXiv 1505.04597.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any, Literal, overload

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from whatwhere.network.blocks import Block, Level, Up, UpKind
from whatwhere.network.blocks import block as _bricks
from whatwhere.network.encoders import (
    LITE0_CHANNELS,
    Lite0Encoder,
    PlainEncoder,
    TimmEncoder,
    known_encoder,
    lite0_stages,
    pooled_block,
)
from whatwhere.network.mark import mark

__all__ = ["Skip", "UNet"]

Skip = Literal["pass", "cut"] | Tensor
"""What happens to the features that a skip carries: passed, cut (zeros), or replaced by a tensor."""


class UNet(nn.Module):
    """A U-Net: ``(N, in_channels, H, W) -> logits (N, classes, H, W)``, for any height and width.

    Args:
        in_channels: channels of the image.
        classes: channels of the logits.
        width: channels at level 0; level k has ``width * 2**k``, at most ``max_width``.
        depth: number of poolings; the bottleneck is at 1/2**depth of the resolution.
        block: ``"plain"`` (conv-norm-ReLU twice) or ``"residual"``.
        repeats: how often the block stands at each encoder level below the top: a deeper encoder.
        up: ``"transpose"`` or ``"bilinear"``.
        padding: ``"same"`` keeps the size. ``"valid"`` is the network of the 2015 paper, whose logits are smaller than
            the image (572 -> 388) and which takes only sizes where every pooling meets even numbers.
        skips: the levels that have a skip; None for all of 0 .. depth-1.
        max_width: a limit for the channels of the deep levels.
        encoder: ``"plain"``, or ``"efficientnet-lite0"`` for RGB images (depth 2 to 5), whose weights can be those of
            an ImageNet classifier (see :func:`load_pretrained`), or ``"timm:NAME"`` for a model of the timm package;
            the decoder keeps ``width * 2**k`` channels.

    Attributes:
        channels: what each level 0 .. depth carries across its skip, and through the bottleneck.
        unread: encoder levels that reach no logit: those beside the image's way down, below the last with a skip.

    Raises:
        ValueError: a number below 1, a skip at a level that is not there, an unknown ``block``, ``up``, ``padding`` or
            ``encoder``, or ones that don't go together.
        ModelError: of ``"timm:NAME"``: timm is not installed, has no such model, or one whose strides are not those of
            a U.

    >>> network = UNet(in_channels=1, classes=2, width=4, depth=2).eval()
    >>> network(torch.zeros(1, 1, 37, 50)).shape
    torch.Size([1, 2, 37, 50])
    >>> without = network(torch.zeros(1, 1, 37, 50), skips={0: "cut"})
    >>> logits, features = network(torch.zeros(1, 1, 32, 32), features=("encoder.1", "bottleneck"))
    >>> {name: tuple(tensor.shape) for name, tensor in features.items()}
    {'encoder.1': (1, 8, 16, 16), 'bottleneck': (1, 16, 8, 8)}
    """

    def __init__(
        self,
        in_channels: int = 3,
        classes: int = 2,
        width: int = 32,
        depth: int = 4,
        *,
        block: Block = "plain",
        repeats: int = 1,
        up: UpKind = "transpose",
        padding: Literal["same", "valid"] = "same",
        skips: Collection[int] | None = None,
        max_width: int = 1024,
        encoder: str = "plain",
    ) -> None:
        super().__init__()
        kept = tuple(range(depth)) if skips is None else tuple(sorted(set(skips)))
        self.config: dict[str, Any] = {
            "in_channels": in_channels, "classes": classes, "width": width, "depth": depth, "block": block,
            "repeats": repeats, "up": up, "padding": padding, "skips": list(kept), "max_width": max_width,
            "encoder": encoder,
        }  # fmt: skip
        _check(self.config)
        self.depth = depth
        self.skips = kept
        self.padding = padding
        padded = padding == "same"
        widths = tuple(min(width * 2**level, max(max_width, width)) for level in range(depth + 1))

        self._make_way_down(encoder, in_channels, widths)
        coming = (*widths[1:-1], self.channels[-1])  # into each way up, from below
        self.up = nn.ModuleList(Up(up, below, here) for below, here in zip(coming, widths))
        self.decoder = nn.ModuleList(
            _bricks(block, here + (self.channels[level] if level in kept else 0), here, padded=padded)
            for level, here in enumerate(widths[:-1])
        )
        self.head = nn.Conv2d(widths[0], classes, 1)
        _initialise(self)
        self._as_made = mark(self, kept=False, hooks=False)

    def _make_way_down(self, encoder: str, in_channels: int, widths: tuple[int, ...]) -> None:
        """Encoder and bottleneck, and the channels of each level."""
        self.encoder: nn.Module
        self.bottleneck: nn.Module
        block, repeats, padded = self.config["block"], self.config["repeats"], self.padding == "same"
        if encoder == "plain":
            self.channels, self.unread = widths, range(0)
            self.encoder = PlainEncoder(in_channels, widths[:-1], block, repeats, padded)
            self.bottleneck = pooled_block(block, widths[-2], widths[-1], repeats, padded)
            return
        if encoder.startswith("timm:"):
            self.encoder = TimmEncoder(encoder.removeprefix("timm:"), in_channels, widths[0], self.depth)
            self.bottleneck = Level()
            self.channels = self.encoder.channels
        else:
            self.channels = (widths[0], *LITE0_CHANNELS[: self.depth])
            *stages, self.bottleneck = lite0_stages()[: self.depth]
            self.encoder = Lite0Encoder(in_channels, widths[0], stages)
        own = int(getattr(self.encoder, "own", 1))
        self.unread = range(max((level for level in self.skips if level < own), default=-1) + 1, own)
        for level in self.unread:
            self.encoder.get_submodule(str(level)).requires_grad_(False)

    @property
    def altered(self) -> bool:
        """Whether a layer was exchanged or set otherwise since it was made: then ``config`` says something else."""
        return mark(self, kept=False, hooks=False) != self._as_made

    @overload
    def forward(self, image: Tensor, skips: Mapping[int, Skip] | None = None) -> Tensor: ...
    @overload
    def forward(
        self, image: Tensor, skips: Mapping[int, Skip] | None = None, *, features: Collection[str]
    ) -> tuple[Tensor, dict[str, Tensor]]: ...

    def forward(
        self, image: Tensor, skips: Mapping[int, Skip] | None = None, *, features: Collection[str] | None = None
    ) -> Tensor | tuple[Tensor, dict[str, Tensor]]:
        """Logits; with ``features`` also the named feature maps.

        Args:
            image: ``(N, C, H, W)``, normalised.
            skips: level -> ``"pass"``, ``"cut"`` or a replacement of the same shape; level ``depth`` is the path
                through the bottleneck. Levels not named pass. ``"cut"`` means zeros; reports replace a path by its mean
                over the data set instead: pass that mean as a tensor to repeat them.
            features: names out of :attr:`feature_names`.

        Raises:
            KeyError: a feature of another name.
            ValueError: as for :meth:`decode`; or without padding an image that can't be halved as often.
        """
        levels = self.encode(image)
        kept: dict[str, Tensor] = {}
        logits = self.decode(levels, skips, size=(image.shape[-2], image.shape[-1]), keep=kept)
        if features is None:
            return logits
        kept.update(zip(self.feature_names, levels))
        unknown = set(features) - set(self.feature_names)
        if unknown:
            raise KeyError(f"no features named {sorted(unknown)}; this network has {', '.join(self.feature_names)}")
        return logits, {name: kept[name] for name in self.feature_names if name in features}

    def encode(self, image: Tensor) -> list[Tensor]:
        """Down the left side: the features of levels 0 .. depth; the last are the bottleneck's.

        With ``padding="same"`` the image is first padded with zeros below and to the right, to a multiple of 2**depth.
        """
        levels: list[Tensor] = self.encoder(self._fit(image))
        return [*levels[: self.depth], self.bottleneck(levels[-1])]

    def decode(
        self,
        levels: list[Tensor],
        skips: Mapping[int, Skip] | None = None,
        *,
        size: tuple[int, int] | None = None,
        keep: dict[str, Tensor] | None = None,
    ) -> Tensor:
        """Up the right side, from the features of :meth:`encode` to logits, cropped to ``size`` if given.

        Raises:
            ValueError: ``skips`` names a level that is not there, or says something else than :data:`Skip`.
        """
        skips = skips or {}
        if unknown := sorted(set(skips) - set(range(self.depth + 1))):
            raise ValueError(f"there is no skip at level {unknown[0]}; this network has levels 0 to {self.depth}")
        carried = [_carry(features, skips.get(level, "pass")) for level, features in enumerate(levels)]
        x = carried[self.depth]
        for level in reversed(range(self.depth)):
            x = self.up[level](x)
            if level in self.skips:
                x = torch.cat([_centre(carried[level], x), x], dim=1)
            x = self.decoder[level](x)
            if keep is not None:
                keep[f"decoder.{level}"] = x
        logits: Tensor = self.head(x)
        if keep is not None:
            keep["head"] = logits
        return logits if size is None or self.padding == "valid" else logits[..., : size[0], : size[1]]

    @property
    def feature_names(self) -> tuple[str, ...]:
        """The levels in the order of the computation: down, bottleneck, up, head."""
        down = [f"encoder.{level}" for level in range(self.depth)]
        up = [f"decoder.{level}" for level in reversed(range(self.depth))]
        return (*down, "bottleneck", *up, "head")

    def output_size(self, size: int) -> int:
        """Height (or width) of the logits for an image of this height; ``ValueError`` if the network can't take it.

        >>> UNet(padding="valid").output_size(572)
        388
        """
        if self.padding == "same":
            return size
        repeats = self.config["repeats"]
        inner = size - 4
        for level in range(1, self.depth + 1):
            if inner % 2 or inner <= 0:
                raise ValueError(
                    f"an unpadded U-Net of depth {self.depth} can't take {size} pixels: {inner} at level {level - 1} "
                    f"can't be halved; try {self.input_size(max(1, size - 184))}"
                )
            inner = inner // 2 - 4 * repeats
        for _ in range(self.depth):
            inner = 2 * inner - 4
        if inner <= 0:
            raise ValueError(f"{size} pixels are too few for an unpadded U-Net of depth {self.depth}")
        return inner

    def input_size(self, size: int) -> int:
        """The smallest height that the network takes and whose logits are at least ``size`` high."""
        if self.padding == "same":
            return size
        repeats = self.config["repeats"]
        lowest = size
        for _ in range(self.depth):
            lowest = -(-(lowest + 4) // 2)
        for _ in range(self.depth):
            lowest = 2 * (lowest + 4 * repeats)
        return lowest + 4

    def _fit(self, image: Tensor) -> Tensor:
        height, width = image.shape[-2:]
        if self.padding == "valid":
            self.output_size(height), self.output_size(width)
            return image
        step = 2**self.depth
        return F.pad(image, (0, -width % step, 0, -height % step))


def _carry(features: Tensor, skip: Skip) -> Tensor:
    if isinstance(skip, Tensor):
        return skip.expand_as(features)
    if skip == "cut":
        return torch.zeros_like(features)
    if skip == "pass":
        return features
    raise ValueError(f"a skip is 'pass', 'cut' or a tensor, not {skip!r}")


def _centre(features: Tensor, like: Tensor) -> Tensor:
    """The middle of ``features`` at the size of ``like`` (the 2015 paper's crop; nothing to do when padded)."""
    top = (features.shape[-2] - like.shape[-2]) // 2
    left = (features.shape[-1] - like.shape[-1]) // 2
    if top == left == 0 and features.shape[-2:] == like.shape[-2:]:
        return features
    return features[..., top : top + like.shape[-2], left : left + like.shape[-1]]


def _initialise(network: nn.Module) -> None:
    """He initialisation (arXiv 1502.01852) for what a ReLU follows."""
    for module in network.modules():
        # without numbers to fill, torch would import its compiler for this: a second
        if isinstance(module, nn.Conv2d) and module.bias is None and not module.weight.is_meta:
            nn.init.kaiming_normal_(module.weight, nonlinearity="relu")


def _check(config: Mapping[str, Any]) -> None:
    for name in ("in_channels", "classes", "width", "depth", "repeats", "max_width"):
        if config[name] < 1:
            raise ValueError(f"{name} is {config[name]}; it must be at least 1")
    depth, skips = config["depth"], config["skips"]
    if any(level not in range(depth) for level in skips):
        raise ValueError(f"skips {skips}: a network of depth {depth} has skips 0 to {depth - 1}")
    choices = {
        "block": ("plain", "residual"), "up": ("transpose", "bilinear"), "padding": ("same", "valid"),
    }  # fmt: skip
    for name, (one, other) in choices.items():
        if config[name] not in (one, other):
            raise ValueError(f"{name} is {config[name]!r}; it is {one!r} or {other!r}")
    if config["padding"] == "valid" and config["block"] == "residual":
        raise ValueError("residual blocks add their input to their output, which needs padding='same'")
    if not known_encoder(config["encoder"]):
        raise ValueError(f"encoder is {config['encoder']!r}; it is 'plain', 'efficientnet-lite0' or 'timm:NAME'")
    if config["encoder"] != "plain" and config["padding"] != "same":
        raise ValueError(f"encoder {config['encoder']!r} takes padding='same', not {config['padding']!r}")
    if config["encoder"] == "efficientnet-lite0" and (config["in_channels"] != 3 or depth not in range(2, 6)):
        raise ValueError(
            f"encoder 'efficientnet-lite0' takes 3 channels and depth 2 to 5, not {config['in_channels']} and {depth}"
        )
