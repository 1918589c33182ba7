"""Small networks with every kind of layer that segmentation networks are made of. Used by the tests and by the bench."""

# ruff: noqa: E501  (a specimen is one line)
from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from whatwhere.network import UNet as OurUNet


@dataclass(frozen=True)
class Specimen:
    """A network, the image it takes, and what is expected of it."""

    name: str
    build: Callable[[], nn.Module]
    shape: tuple[int, ...]
    bounded: bool = True
    tight: bool = True  # false where float rounding in torch's index arithmetic lets a window be one unit too large


def block(inputs: int, outputs: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, 3, padding=1), nn.BatchNorm2d(outputs), nn.ReLU(inplace=True),
        nn.Conv2d(outputs, outputs, 3, padding=1), nn.BatchNorm2d(outputs), nn.ReLU(inplace=True),
    )  # fmt: skip


class UNet(nn.Module):
    """A plain U-Net that pads to a multiple of 2**depth; `width=64, depth=4` has the 31M parameters of the 2015 paper."""

    def __init__(self, width: int = 4, depth: int = 2, channels: int = 1) -> None:
        super().__init__()
        widths = [width * 2**k for k in range(depth + 1)]
        self.depth = depth
        self.encoder = nn.ModuleList([block(([channels, *widths])[k], widths[k]) for k in range(depth)])
        self.bottleneck = block(widths[-2], widths[-1])
        self.up = nn.ModuleList([nn.ConvTranspose2d(widths[k + 1], widths[k], 2, 2) for k in range(depth)])
        self.decoder = nn.ModuleList([block(2 * widths[k], widths[k]) for k in range(depth)])
        self.head = nn.Conv2d(width, 2, 1)

    def forward(self, image: Tensor) -> Tensor:
        height, width = image.shape[-2:]
        multiple = 2**self.depth
        x, skips = F.pad(image, (0, -width % multiple, 0, -height % multiple)), []
        for part in self.encoder:
            skips.append(part(x))
            x = F.max_pool2d(skips[-1], 2)
        x = self.bottleneck(x)
        for k in reversed(range(self.depth)):
            x = self.decoder[k](torch.cat([skips[k], self.up[k](x)], dim=1))
        return self.head(x)[..., :height, :width]


class ValidUNet(nn.Module):
    """The 2015 way: no padding, skips cropped to the middle; the output is smaller than the image."""

    def __init__(self) -> None:
        super().__init__()
        self.down, self.low = nn.Conv2d(1, 3, 3), nn.Conv2d(3, 3, 3)
        self.up, self.out = nn.ConvTranspose2d(3, 3, 2, 2), nn.Conv2d(6, 2, 3)

    def forward(self, x: Tensor) -> Tensor:
        skip = self.down(x)
        deep = self.up(self.low(F.max_pool2d(skip, 2)))
        crop = (skip.shape[-1] - deep.shape[-1]) // 2
        skip = skip[..., crop : crop + deep.shape[-2], crop : crop + deep.shape[-1]]
        return self.out(torch.cat([skip, deep], 1))


class Interpolated(nn.Module):
    def __init__(self, mode: str, factor: float = 2.0, aligned: bool | None = None, antialias: bool = False) -> None:
        super().__init__()
        self.conv, self.last = nn.Conv2d(1, 2, 3, stride=2, padding=1), nn.Conv2d(2, 1, 3, padding=1)
        self.mode, self.factor, self.aligned, self.antialias = mode, factor, aligned, antialias

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv(x)
        x = F.interpolate(
            x, scale_factor=self.factor, mode=self.mode, align_corners=self.aligned, antialias=self.antialias
        )
        return self.last(x)


class ASPP(nn.Module):
    """Parallel dilations; with `pool`, DeepLab's branch that averages the image."""

    def __init__(self, pool: bool) -> None:
        super().__init__()
        self.branches = nn.ModuleList([nn.Conv2d(1, 2, 3, padding=d, dilation=d) for d in (1, 3, 6)])
        self.pool = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Conv2d(1, 2, 1)) if pool else None
        self.project = nn.Conv2d(8 if pool else 6, 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        parts = [branch(x) for branch in self.branches]
        if self.pool is not None:
            parts.append(F.interpolate(self.pool(x), size=x.shape[-2:], mode="bilinear", align_corners=False))
        return self.project(torch.cat(parts, 1))


class FPN(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stages = nn.ModuleList([nn.Conv2d(c, 3, 3, stride=2, padding=1) for c in (1, 3, 3)])
        self.lateral = nn.ModuleList([nn.Conv2d(3, 2, 1) for _ in range(3)])
        self.smooth = nn.Conv2d(2, 2, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        levels = []
        for stage in self.stages:
            x = F.relu(stage(x))
            levels.append(x)
        top = self.lateral[2](levels[2])
        for k in (1, 0):
            top = self.lateral[k](levels[k]) + F.interpolate(top, size=levels[k].shape[-2:], mode="nearest")
        return F.interpolate(self.smooth(top), scale_factor=2, mode="nearest")


class UNetPlusPlus(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        conv = lambda i, o: nn.Conv2d(i, o, 3, padding=1)  # noqa: E731
        self.x00, self.x10, self.x20 = conv(1, 2), conv(2, 2), conv(2, 2)
        self.x01, self.x11, self.x02 = conv(4, 2), conv(4, 2), conv(6, 2)

    def forward(self, x: Tensor) -> Tensor:
        up = lambda t: F.interpolate(t, scale_factor=2, mode="bilinear", align_corners=False)  # noqa: E731
        x00 = self.x00(x)
        x10 = self.x10(F.max_pool2d(x00, 2))
        x20 = self.x20(F.max_pool2d(x10, 2))
        x01 = self.x01(torch.cat([x00, up(x10)], 1))
        x11 = self.x11(torch.cat([x10, up(x20)], 1))
        return self.x02(torch.cat([x00, x01, up(x11)], 1))


class AttentionGate(nn.Module):
    """Attention U-Net's gate: local, in spite of its name."""

    def __init__(self) -> None:
        super().__init__()
        self.low, self.key = nn.Conv2d(1, 2, 2, 2), nn.Conv2d(1, 2, 2, 2)
        self.query, self.score = nn.Conv2d(2, 2, 1), nn.Conv2d(2, 1, 1)

    def forward(self, x: Tensor) -> Tensor:
        gate = torch.sigmoid(self.score(F.relu(self.key(x) + self.query(self.low(x)))))
        return x * F.interpolate(gate, scale_factor=2, mode="bilinear", align_corners=False)


class SelfAttention(nn.Module):
    """Every place attends to every other."""

    def __init__(self) -> None:
        super().__init__()
        self.patch, self.qkv, self.out = nn.Conv2d(1, 4, 4, 4), nn.Linear(4, 12), nn.ConvTranspose2d(4, 1, 4, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = self.patch(x)
        n, c, h, w = x.shape
        q, k, v = self.qkv(x.flatten(2).transpose(1, 2)).chunk(3, dim=-1)
        mixed = F.scaled_dot_product_attention(q, k, v)
        return self.out(mixed.transpose(1, 2).reshape(n, c, h, w))


class WindowAttention(nn.Module):
    """Swin's: attention inside windows of 4x4, so bounded; after a shift by 2 if `shift`."""

    def __init__(self, shift: int = 0) -> None:
        super().__init__()
        self.embed, self.qkv, self.shift = nn.Conv2d(1, 4, 1), nn.Linear(4, 12), shift

    def forward(self, x: Tensor) -> Tensor:
        x = self.embed(x).permute(0, 2, 3, 1)
        if self.shift:
            x = torch.roll(x, (-self.shift, -self.shift), (1, 2))
        n, h, w, c = x.shape
        x = x.view(n, h // 4, 4, w // 4, 4, c).permute(0, 1, 3, 2, 4, 5).reshape(-1, 16, c)
        q, k, v = self.qkv(x).chunk(3, dim=-1)
        x = torch.softmax(q @ k.transpose(-1, -2), -1) @ v
        x = x.view(n, h // 4, w // 4, 4, 4, c).permute(0, 1, 3, 2, 4, 5).reshape(n, h, w, c)
        if self.shift:
            x = torch.roll(x, (self.shift, self.shift), (1, 2))
        return x.permute(0, 3, 1, 2)


class ConvNeXt(nn.Module):
    """Patchify stem, 7x7 depthwise, layer norm over channels last, inverted bottleneck."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.depthwise = nn.Conv2d(1, 4, 4, 4), nn.Conv2d(4, 4, 7, padding=3, groups=4)
        self.norm, self.wide, self.narrow = nn.LayerNorm(4), nn.Linear(4, 8), nn.Linear(8, 4)
        self.head = nn.Sequential(nn.Conv2d(4, 16, 1), nn.PixelShuffle(4))

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        y = self.norm(self.depthwise(x).permute(0, 2, 3, 1))
        return self.head(x + self.narrow(F.gelu(self.wide(y))).permute(0, 3, 1, 2))


class PyramidPooling(nn.Module):
    def __init__(self, bins: int) -> None:
        super().__init__()
        self.bins, self.out = bins, nn.Conv2d(2, 1, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        pooled = F.interpolate(F.adaptive_avg_pool2d(x, self.bins), size=x.shape[-2:], mode="nearest")
        return self.out(torch.cat([x, pooled], 1))


class SqueezeExcite(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv, self.gate = nn.Conv2d(1, 4, 3, padding=1), nn.Linear(4, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv(x)
        return x * torch.sigmoid(self.gate(x.mean((2, 3))))[:, :, None, None]


class Moves(nn.Module):
    """Flip, slices with steps, unshuffle by hand, stack and index_select."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(2, 4, (1, 3), padding=(0, 1), groups=2)
        self.register_buffer("order", torch.tensor([2, 0, 3, 1]))

    def forward(self, x: Tensor) -> Tensor:
        even, odd = x[..., ::2, :], x[..., 1::2, :]
        y = self.conv(torch.stack([even, odd.flip(-1)], 1).flatten(1, 2))
        return F.pixel_unshuffle(F.pad(y.index_select(1, self.order), (1, -1, 2, 0)), 2)


class SegNet(nn.Module):
    """Values go back to where pooling found them (arXiv:1511.00561)."""

    def __init__(self, *pooling: int) -> None:
        super().__init__()
        self.down, self.middle, self.out = (nn.Conv2d(c, d, 3, padding=1) for c, d in ((1, 2), (2, 2), (2, 1)))
        self.pool, self.again = (nn.MaxPool2d(*pooling, return_indices=True) for _ in range(2))
        self.unpool, self.more = (nn.MaxUnpool2d(*pooling) for _ in range(2))

    def forward(self, x: Tensor) -> Tensor:
        x = self.down(x)
        one, places = self.pool(x)
        two, others = self.again(self.middle(one))
        return self.out(self.more(self.unpool(two, others, one.shape), places, x.shape))


class Unfolded(nn.Module):
    """Windows as columns, mixed and put back; and one entry of each."""

    def __init__(self) -> None:
        super().__init__()
        self.mix = nn.Linear(12, 12)

    def forward(self, x: Tensor) -> Tensor:
        size = x.shape[-2:]
        columns = F.unfold(x, (3, 4), padding=1, stride=(1, 2))
        put_back = F.fold(self.mix(columns.mT).mT, size, (3, 4), padding=1, stride=(1, 2))
        near = F.unfold(put_back, 5, padding=2).view(*x.shape[:2], 5, 5, *size)
        return put_back + near[:, :, 0, 3]


class WindowsOfAxes(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        windows = F.pad(x, (1, 2, 1, 0)).unfold(2, 2, 2).unfold(3, 4, 1)
        return windows.mean((-1, -2)) + windows[..., 1, 3]


def _monai(name: str, **settings: object) -> Callable[[], nn.Module]:
    def build() -> nn.Module:
        from monai.networks import nets

        return getattr(nets, name)(**settings)

    return build


S = nn.Sequential
ZOO: tuple[Specimen, ...] = (
    Specimen("two 3x3", lambda: S(nn.Conv2d(1, 2, 3, padding=1), nn.ReLU(), nn.Conv2d(2, 1, 3, padding=1)), (1, 16, 16)),
    Specimen("dilated", lambda: S(nn.Conv2d(1, 2, 3, padding=2, dilation=2), nn.Conv2d(2, 1, 3, padding=4, dilation=4)), (1, 24, 21)),
    Specimen("strided", lambda: S(nn.Conv2d(1, 2, 5, stride=2, padding=2), nn.Conv2d(2, 1, 3, stride=3, padding=1)), (1, 31, 40)),
    Specimen("even kernel", lambda: S(nn.Conv2d(1, 2, 4, padding=1), nn.Conv2d(2, 1, (2, 5), padding="same")), (1, 17, 19)),
    Specimen("grouped", lambda: S(nn.Conv2d(4, 8, 3, padding=1, groups=2), nn.ChannelShuffle(2), nn.Conv2d(8, 8, 1, groups=8)), (4, 12, 12)),
    Specimen("transposed odd", lambda: S(nn.Conv2d(1, 2, 3, 2, 1), nn.ConvTranspose2d(2, 2, 3, 2, 1, output_padding=1)), (1, 20, 22)),
    Specimen("transposed 5x5 stride 3", lambda: S(nn.Conv2d(1, 2, 3, 3), nn.ConvTranspose2d(2, 1, 5, 3, 1)), (1, 24, 27)),
    Specimen("transposed dilated", lambda: S(nn.Conv2d(1, 2, 4, 2, 1), nn.ConvTranspose2d(2, 1, 3, 2, 2, 1, dilation=2)), (1, 20, 20)),
    Specimen("transposed with gaps", lambda: S(nn.Conv2d(1, 2, 3, 3), nn.ConvTranspose2d(2, 1, 2, 3), nn.Conv2d(1, 1, 3, padding=1)), (1, 24, 24)),
    Specimen("max pool ceil", lambda: S(nn.MaxPool2d(3, 2, 1, ceil_mode=True), nn.Conv2d(1, 1, 3, padding=1)), (1, 22, 25)),
    Specimen("average pool", lambda: S(nn.AvgPool2d(3, 2, 1), nn.Conv2d(1, 1, 3, padding=1), nn.AvgPool2d(2, ceil_mode=True)), (1, 22, 25)),
    Specimen("pixel shuffle", lambda: S(nn.PixelUnshuffle(2), nn.Conv2d(4, 8, 3, padding=1), nn.PixelShuffle(2)), (1, 16, 20)),
    Specimen("SegNet", lambda: SegNet(2), (1, 32, 36)),
    Specimen("SegNet, pools that overlap", lambda: SegNet(3, 2, 1), (1, 35, 39)),
    Specimen("unfold and fold", Unfolded, (1, 16, 20)),
    Specimen("windows of axes", WindowsOfAxes, (1, 16, 20)),
    Specimen("reflect pad", lambda: S(nn.ReflectionPad2d(3), nn.Conv2d(1, 1, 7)), (1, 15, 18)),
    Specimen("replicate pad", lambda: S(nn.ReplicationPad2d((1, 2, 3, 0)), nn.Conv2d(1, 1, 4)), (1, 15, 18)),
    Specimen("circular pad", lambda: nn.Conv2d(1, 1, 3, padding=1, padding_mode="circular"), (1, 12, 12), bounded=False),
    Specimen("nearest", lambda: Interpolated("nearest"), (1, 20, 24)),
    Specimen("nearest x1.5", lambda: Interpolated("nearest", 1.5), (1, 20, 24), tight=False),
    Specimen("nearest-exact", lambda: Interpolated("nearest-exact", 2.0), (1, 20, 24)),
    Specimen("bilinear", lambda: Interpolated("bilinear", aligned=False), (1, 20, 24)),
    Specimen("bilinear x3", lambda: Interpolated("bilinear", 3.0, aligned=False), (1, 12, 16), tight=False),
    Specimen("bilinear align_corners", lambda: Interpolated("bilinear", aligned=True), (1, 20, 24), tight=False),
    Specimen("bilinear antialias", lambda: Interpolated("bilinear", 0.5, False, True), (1, 32, 40), tight=False),
    Specimen("bicubic", lambda: Interpolated("bicubic", aligned=False), (1, 20, 24)),
    Specimen("bicubic align_corners", lambda: Interpolated("bicubic", aligned=True), (1, 20, 24), tight=False),
    Specimen("ASPP", lambda: ASPP(pool=False), (1, 28, 28)),
    Specimen("ASPP with image pooling", lambda: ASPP(pool=True), (1, 20, 20), bounded=False),
    Specimen("FPN", FPN, (1, 32, 48)),
    Specimen("U-Net++", UNetPlusPlus, (1, 32, 32)),
    Specimen("U-Net", lambda: UNet(2, 2), (1, 32, 32)),
    Specimen("whatwhere's U-Net", lambda: OurUNet(3, 2, width=2, depth=2), (3, 44, 52)),
    Specimen("whatwhere's U-Net, bilinear", lambda: OurUNet(3, 2, width=2, depth=2, up="bilinear"), (3, 44, 52)),
    Specimen("whatwhere's U-Net, residual", lambda: OurUNet(3, 2, width=2, depth=2, block="residual", repeats=2), (3, 64, 60)),
    Specimen("EfficientNet-Lite0 U-Net", lambda: OurUNet(3, 2, width=2, depth=3, encoder="efficientnet-lite0"), (3, 64, 56)),
    Specimen("U-Net odd size", lambda: UNet(2, 3), (1, 45, 51)),
    Specimen("U-Net without padding", ValidUNet, (1, 32, 36)),
    Specimen("attention gate", AttentionGate, (1, 16, 16)),
    Specimen("self-attention", SelfAttention, (1, 16, 16), bounded=False),
    Specimen("window attention", WindowAttention, (1, 16, 16)),
    Specimen("window attentions in a row", lambda: S(WindowAttention(), nn.Conv2d(4, 1, 3, padding=1), WindowAttention()), (1, 24, 24)),
    Specimen("shifted window attention", lambda: WindowAttention(2), (1, 16, 16), bounded=False),
    Specimen("ConvNeXt block", ConvNeXt, (1, 48, 48)),
    Specimen("instance norm", lambda: S(nn.Conv2d(1, 2, 3, padding=1), nn.InstanceNorm2d(2, affine=True), nn.Conv2d(2, 1, 1)), (1, 12, 12), bounded=False),
    Specimen("group norm", lambda: S(nn.Conv2d(1, 4, 3, padding=1), nn.GroupNorm(2, 4)), (1, 12, 12), bounded=False),
    Specimen("pyramid pooling", lambda: PyramidPooling(3), (1, 18, 20), bounded=False),
    Specimen("squeeze-excite", SqueezeExcite, (1, 12, 12), bounded=False),
    Specimen("moves", Moves, (1, 16, 16), bounded=False),
    Specimen("1-d", lambda: S(nn.Conv1d(2, 3, 5, 2, 2), nn.ReLU(), nn.ConvTranspose1d(3, 1, 4, 2, 1)), (2, 40)),
    Specimen("3-d", lambda: S(nn.Conv3d(1, 2, 3, padding=1), nn.MaxPool3d((1, 2, 2)), nn.Conv3d(2, 1, (1, 3, 3), padding=(0, 1, 1))), (1, 8, 12, 12)),
    Specimen("MONAI BasicUNet", _monai("BasicUNet", spatial_dims=2, features=(2, 2, 4, 4, 4, 2), norm="batch"), (1, 64, 64)),
    Specimen("MONAI BasicUNet instance", _monai("BasicUNet", spatial_dims=2, features=(2, 2, 4, 4, 4, 2)), (1, 32, 32), bounded=False),
    Specimen("MONAI UNet", _monai("UNet", spatial_dims=2, in_channels=1, out_channels=2, channels=(2, 4, 4), strides=(2, 2), num_res_units=1, norm="batch"), (1, 48, 48)),
    Specimen("MONAI UNet 3-d", _monai("UNet", spatial_dims=3, in_channels=1, out_channels=2, channels=(2, 4), strides=(2,), norm="batch"), (1, 16, 16, 16)),
    Specimen("MONAI DynUNet", _monai("DynUNet", spatial_dims=2, in_channels=1, out_channels=2, kernel_size=(3, 3, 3), strides=(1, 2, 2), upsample_kernel_size=(2, 2), filters=(2, 4, 4), norm_name="batch"), (1, 48, 48)),
    Specimen("MONAI SegResNet", _monai("SegResNet", spatial_dims=2, init_filters=4, norm=("batch"), blocks_down=(1, 1, 1), blocks_up=(1, 1)), (1, 32, 32)),
)  # fmt: skip
