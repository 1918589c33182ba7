"""What `field` says of networks that look local and are not, or not and are: every one was once told wrongly."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from newer_export import NEWER_EXPORT
from proof import positive, support
from torch import Tensor, nn
from torch.nn import functional as F

from tiny import rarely
from whatwhere.errors import FieldError
from whatwhere.field import field


class Net(nn.Module):
    """A function of a 3x3 convolution's result and the image."""

    def __init__(self, act: Callable[[Tensor, Tensor], Tensor], padding: int = 1) -> None:
        super().__init__()
        self.conv = nn.Conv2d(1, 2, 3, padding=padding)
        self.act = act

    def forward(self, x: Tensor) -> Tensor:
        return self.act(self.conv(x), x)


class Dynamic(nn.Module):
    """Filters made from the whole image (CondConv, arXiv 1904.04971, and its kin)."""

    def __init__(self) -> None:
        super().__init__()
        self.make = nn.Linear(1, 9)

    def forward(self, x: Tensor) -> Tensor:
        return F.conv2d(x, self.make(x.mean((2, 3))).view(1, 1, 3, 3), padding=1)


class Rounding(nn.Module):
    """Pads to a multiple that its strides do not ask for, and cuts again."""

    def __init__(self, multiple: int) -> None:
        super().__init__()
        self.inside, self.multiple = nn.Sequential(nn.Conv2d(1, 2, 3, 2, 1), nn.ConvTranspose2d(2, 1, 2, 2)), multiple

    def forward(self, x: Tensor) -> Tensor:
        height, width = x.shape[-2:]
        padded = F.pad(x, (0, -width % self.multiple, 0, -height % self.multiple))
        return self.inside(padded)[..., :height, :width]  # type: ignore[no-any-return]


def round_both_rims(y: Tensor, _: Tensor) -> Tensor:
    """As networks for panoramas pad."""
    return torch.cat([y[..., -1:], y, y[..., :1]], -1)


def global_if_small(y: Tensor, x: Tensor) -> Tensor:
    return y - y.mean((2, 3), keepdim=True) if x.shape[-1] <= 1024 else y


def rows_halved(y: Tensor, _: Tensor) -> Tensor:
    """Axis 1 need not be the channels."""
    last = y.permute(0, 2, 3, 1).contiguous()
    last[:, :8].mul_(0.5)
    return last.permute(0, 3, 1, 2)


class Resized(nn.Module):
    """To so many pixels as a network has that lost 12."""

    def forward(self, x: Tensor) -> Tensor:
        return F.interpolate(x, size=(x.shape[-2] + 12, x.shape[-1] + 12), mode="bilinear")


def first_row_written(y: Tensor, _: Tensor) -> Tensor:
    last = y.permute(0, 2, 3, 1).contiguous()
    last[:, 0] = 0
    return last.permute(0, 3, 1, 2)


def last_row_written(y: Tensor, _: Tensor) -> Tensor:
    last = y.permute(0, 2, 3, 1).contiguous()
    last[:, -1] = 0
    return last.permute(0, 3, 1, 2)


class Sized(nn.Module):
    """Filters of its own for small images."""

    def __init__(self, small: nn.Module, large: nn.Module) -> None:
        super().__init__()
        self.small, self.large = small, large

    def forward(self, x: Tensor) -> Tensor:
        filters = self.small if x.shape[-1] < 200 else self.large
        return filters(x)  # type: ignore[no-any-return]


def pooled_by_size(y: Tensor, x: Tensor) -> Tensor:
    side = min(x.shape[-1] // 16 * 2 + 1, 15)
    return F.avg_pool2d(y, side, 1, side // 2)


def places_of_maxima(y: Tensor, _: Tensor) -> Tensor:
    most, places = F.max_pool2d(y, 3, 1, 1, return_indices=True)
    return torch.cat([most, places % 7], 1)


def places_put_back_and_more(y: Tensor, _: Tensor) -> Tensor:
    most, places = F.max_pool2d(y, 2, return_indices=True)
    return F.max_unpool2d(most, places, 2) + F.interpolate(places % 7.0, scale_factor=2)


def values_put_anywhere(y: Tensor, _: Tensor) -> Tensor:
    most, places = F.max_pool2d(y, 2, return_indices=True)
    return F.max_unpool2d(most, places.flip(-1), 2)


def values_put_to_a_larger_image(y: Tensor, _: Tensor) -> Tensor:
    most, places = F.max_pool2d(y, 2, return_indices=True)
    return F.max_unpool2d(most, places, 4)


def wide_if_upright(y: Tensor, _: Tensor) -> Tensor:
    upright = y.shape[-2] > y.shape[-1]
    return F.max_pool2d(y, (1, 3), 1, (0, 1)) if upright else F.max_pool2d(y, (3, 1), 1, (1, 0))


def smooth_if_upright(y: Tensor, _: Tensor) -> Tensor:
    return F.avg_pool2d(y, 3, 1, 1) if y.shape[-2] > y.shape[-1] else F.max_pool2d(y, 3, 1, 1)


def _pools(y: Tensor) -> tuple[Tensor, Tensor]:
    return F.max_pool2d(y, 3, 1, 1), F.avg_pool2d(y, 3, 1, 1)


def one_of_two_by_size(y: Tensor, x: Tensor) -> Tensor:
    return _pools(y)[0 if x.shape[-1] < 200 else 1]


def one_less_the_other_by_size(y: Tensor, x: Tensor) -> Tensor:
    most, mean = _pools(y)
    return most - mean if x.shape[-1] < 200 else mean - most


def joined_by_size(y: Tensor, x: Tensor) -> Tensor:
    most, mean = _pools(y)
    return torch.cat([most, mean] if x.shape[-1] < 200 else [mean, most], 1)


def windows_by_size(y: Tensor, x: Tensor) -> Tensor:
    """Of eight and sixteen pixels; other sizes are padded, so that the number of windows tells nothing."""
    side = 8 if x.shape[-1] < 200 else 16
    height, width = y.shape[-2:]
    cut = F.pad(y, (0, -width % 16, 0, -height % 16)).unflatten(3, (-1, side)).unflatten(2, (-1, side))
    return (cut - cut.mean((3, 5), keepdim=True)).flatten(4).flatten(2, 3)[:, :, :height, :width]


def a_channel_by_size(y: Tensor, x: Tensor) -> Tensor:
    return y[:, :1] if x.shape[-1] < 200 else y[:, 1:]


def numpy_filters_by_size(y: Tensor, x: Tensor) -> Tensor:
    """Of more numbers than are looked at one by one."""
    return F.conv2d(y, torch.tensor(np.full((2, 1, 7, 7), 1 / x.shape[-1], np.float32)), padding=3, groups=2)


def brightest_channel(y: Tensor, _: Tensor) -> Tensor:
    return torch.zeros_like(y).scatter(1, y.argmax(1, keepdim=True), 1.0) * y.topk(1, 1).values


def channels_written(y: Tensor, _: Tensor) -> Tensor:
    z = y.clone()
    z[:, :1] = 0
    z[:, 1:] = y[:, :1]
    return z


UNBOUNDED: dict[str, tuple[nn.Module, str]] = {
    "filters of the image": (Dynamic(), "from end to end"),
    "even circular kernel": (nn.Conv2d(1, 1, 2, padding="same", padding_mode="circular"), "wraps round"),
    "both rims joined": (Net(round_both_rims), "wraps round"),
    "rolled back": (Net(lambda y, _: y.roll(-2, 3)), "roll"),
    "pool that grows": (Net(lambda y, x: F.avg_pool2d(y, x.shape[-1] // 8 * 2 + 1, 1, x.shape[-1] // 8)), "avg_pool2d"),
    "divided by a number": (Net(lambda y, x: y / x.abs().max().item()), "max in the network's own forward"),
    "filled with a number": (Net(lambda y, _: y - torch.full_like(y, y.mean().item())), "mean"),
    "rolled by a number": (Net(lambda y, x: y.roll(x.argmax().item(), 3)), "roll in the network's own forward"),
    "a channel by a number": (Net(lambda y, x: y.select(1, x.argmax().item() % 2)[:, None]), "select"),
    "another thing if upright": (Net(smooth_if_upright), "other operators at another image size"),
    "values put anywhere": (Net(values_put_anywhere), "max_unpool2d"),
    "values put to a larger image": (Net(values_put_to_a_larger_image), "max_unpool2d"),
    "several quantiles": (Net(lambda y, _: y.quantile(torch.tensor([0.1, 0.9]), dim=1)[0][:, None]), "quantile"),
    "one of two by the size": (Net(one_of_two_by_size), "returns another step's result"),
    "one of two if upright": (
        Net(lambda y, _: _pools(y)[int(y.shape[-2] > y.shape[-1])]),
        "returns another step's result",
    ),
    "one less the other": (Net(one_less_the_other_by_size), "sub in the network's own forward is given another step's"),
    "joined in another order": (Net(joined_by_size), "is given another step's result at another image size"),
    "global if small": (Net(global_if_small), "other operators at another image size"),
    "circular and stretched": (
        nn.Sequential(
            nn.Conv2d(1, 1, 3, padding=1, padding_mode="circular"),
            nn.Upsample(scale_factor=2, mode="bilinear", align_corners=True),
        ),
        "wraps round",
    ),
}
WEIGHTS = torch.linspace(1, 2, 11)
BY_PLACE: dict[str, tuple[nn.Module, str]] = {
    "back to the image's size": (
        Net(lambda y, x: F.interpolate(y, size=x.shape[-2:], mode="bilinear"), padding=0), "factor that depends"
    ),
    "by no whole pixels": (Net(lambda y, _: F.interpolate(y, scale_factor=0.7071, mode="bilinear")), "no shift"),
    "stretched, antialiased": (
        Net(lambda y, _: F.interpolate(y, scale_factor=2, mode="bilinear", antialias=True, align_corners=True)),
        "align_corners",
    ),
    "a number of the size": (Net(lambda y, x: y * (64 / x.shape[-1])), "depends on the image's size"),
    "a tensor of the size": (Net(lambda y, _: y * torch.full_like(y, 1 / y.shape[-1])), "depends on the image's size"),
    "another tensor of it": (Net(lambda y, x: y / torch.tensor(x.shape[-1] / 64)), "depends on the image's size"),
    "and another": (Net(lambda y, x: y * (torch.ones(1) * (64 / x.shape[-1]))), "depends on the image's size"),
    "rows in another order": (Net(rows_halved), "places counted from the image's rim"),
    "the first row": (Net(first_row_written), "places counted from the image's rim"),
    "the last row": (Net(last_row_written), "places counted from the image's rim"),
    "places of the size": (
        Net(lambda y, x: y * torch.linspace(0, x.shape[-1], 5).mean()), "a constant that depends on the image's size"
    ),
    "as many as pixels": (
        Net(lambda y, x: y / torch.ones_like(x[:, :1]).sum().sqrt()), "a constant that depends on the image's size"
    ),
    "a weight by the size": (
        Net(lambda y, x: y * WEIGHTS[x.shape[-1] % 11]), "a constant that depends on the image's size"
    ),
    "a number of a size": (Net(lambda y, x: y * (1.0 if x.shape[-1] < 200 else 2.0)), "depends on the image's size"),
    "a number up to a size": (Net(lambda y, x: y * min(1, x.shape[-1] / 1000)), "depends on the image's size"),
    "a tensor up to a size": (
        Net(lambda y, x: y * torch.full_like(y, min(1, x.shape[-1] / 1000))), "depends on the image's size"
    ),
    "another pool if upright": (Net(wide_if_upright), "max_pool2d in the network's own forward is given a number"),
    "many numbers of the size": (Net(numpy_filters_by_size), "a constant that depends on the image's size"),
    "dropout that goes on": (Net(lambda y, _: F.dropout(y, 0.5, training=True)), "draws random numbers"),
    "a random number": (Net(lambda y, _: y * torch.rand(1)), "rand in the network's own forward draws random numbers"),
    "a random number a channel": (Net(lambda y, _: y + torch.randn(1, 2, 1, 1)), "draws random numbers"),
    "noise": (Net(lambda y, _: y + torch.empty_like(y).normal_()), "draws random numbers"),
    "random slopes": (Net(lambda y, _: F.rrelu(y, training=True)), "draws random numbers"),
    "a pool up to a size": (Net(pooled_by_size), "avg_pool2d in the network's own forward is given a number"),
    "gaps of a size": (
        Sized(nn.Conv2d(1, 2, 3, padding=1), nn.Conv2d(1, 2, 3, padding=4, dilation=4)), "depends on the image's size"
    ),
    "few weights of a size": (Sized(nn.Conv2d(1, 2, 3, padding=1), nn.Conv2d(1, 2, 3, padding=1)), "a constant that"),
    "weights of a size": (Sized(nn.Conv2d(1, 9, 3, padding=1), nn.Conv2d(1, 9, 3, padding=1)), "a constant that"),
    "windows of a size": (Net(windows_by_size), "windows or pieces depend on the image's size"),
    "a channel by a size": (Net(a_channel_by_size), "slice in the network's own forward is given a number"),
    "places of maxima": (Net(places_of_maxima), "counted from the image's corner"),
    "places put back, and more": (Net(places_put_back_and_more), "counted from the image's corner"),
    "values put to one place": (
        Net(lambda y, _: F.max_unpool2d(*F.max_pool2d(y, 3, 1, 1, return_indices=True), 3, 1, 1, y.shape)),
        "threads decide",
    ),
    "back after many": (
        nn.Sequential(*(nn.Conv2d(1, 1, 3) for _ in range(6)), Net(lambda y, _: y), Resized()), "factor that depends"
    ),
    "a rim treated otherwise": (
        Net(lambda y, _: torch.cat([y[..., :8] * 0.5, y[..., 8:]], -1)), "a piece of the image's rim"
    ),
    "pieces": (Net(lambda y, _: torch.cat([F.max_pool2d(p, 3, 1, 1) for p in y.chunk(3, -1)], -1)), "seams"),
    "places summed up": (Net(lambda y, _: y + torch.ones_like(y).cumsum(-1)), "made from the image's size"),
    "a mask of rims": (Net(lambda y, _: y / F.avg_pool2d(torch.ones_like(y), 9, 1, 4)), "made from the image's size"),
    "ones and zeros": (
        Net(lambda y, _: y * torch.cat([torch.zeros_like(y[..., :1]), torch.ones_like(y[..., 1:])], -1)),
        "made from the image's size",
    ),
}  # fmt: skip
SCALES = torch.tensor([2.0, 3.0])
MANY = torch.linspace(1, 2, 98).view(2, 49)
LOCAL: dict[str, nn.Module] = {
    "a number of the weights": Net(lambda y, _: y * SCALES.max().item()),
    "filled with one": Net(lambda y, _: y * torch.full_like(y, SCALES.max().item())),
    "many numbers": Net(lambda y, _: y * MANY.sum(1)[:, None, None]),
    "dropout when nothing is trained": Net(lambda y, _: F.dropout(y, 0.5, training=False)),
    "dropout of nothing": Net(lambda y, _: F.dropout(y, 0.0, training=True)),
    "slopes that are the same": Net(lambda y, _: F.rrelu(y, training=False)),
    "complex numbers": Net(lambda y, _: torch.view_as_real(torch.complex(y[:, :1], y[:, 1:]) * (1 + 1j)).sum(-1)),
    "sums of weights": Net(lambda y, _: y * (SCALES.sum() + torch.arange(2).max() + SCALES[0])),
    "padded channels": Net(lambda y, _: F.pad(y, (0, 0, 0, 0, 1, 1))),
    "norm over near channels": nn.Sequential(nn.Conv2d(1, 8, 3, padding=1), nn.LocalResponseNorm(3)),
    "rolled channels": Net(lambda y, _: y.roll(1, 1)),
    "channels mixed by einsum": Net(lambda y, _: torch.einsum("nchw,dc->ndhw", y, torch.ones(4, 2))),
    "as zeros": Net(lambda y, _: torch.maximum(y, torch.zeros_like(y))),
    "channels written over": Net(channels_written),
    "where": Net(lambda y, _: torch.where(y > 0, y, 0.0)),
    "as the type of a larger one": Net(lambda y, x: y.type_as(F.interpolate(x, scale_factor=2))),
    "ranks of channels": Net(
        lambda y, _: y.kthvalue(2, 1, True)[0] + y.mode(1, True)[0] + y.nanmean(1, True) + y.quantile(0.5, 1, True)
    ),
    "channels picked": Net(lambda y, _: y.gather(1, y.argmax(1, keepdim=True))),
    "channels sorted out": Net(brightest_channel),
    "attention over channels": nn.Sequential(nn.Conv2d(1, 2, 3, padding=1), nn.PReLU(2)),
}


@pytest.mark.parametrize("name", UNBOUNDED)
def test_what_can_see_everything_is_told_so(name: str) -> None:
    module, words = UNBOUNDED[name]
    found = field(module, (1, 48, 64))
    assert not found.bounded
    assert words in found.explain()


@pytest.mark.parametrize("name", BY_PLACE)
def test_what_weighs_by_place_has_no_exact_tiles(name: str) -> None:
    module, words = BY_PLACE[name]
    found = field(module, (1, 48, 63))
    assert not found.tileable
    assert found.bounded
    assert words in found.explain()


def test_what_a_size_decides_is_seen_on_images_of_no_whole_periods_too() -> None:
    strided = nn.Conv2d(1, 1, 3, 2, 1), nn.Upsample(scale_factor=2)
    assert field(nn.Sequential(*strided), (1, 47, 63)).tileable
    found = field(nn.Sequential(*strided, Net(lambda y, x: y * min(1, x.shape[-1] / 1000))), (1, 47, 63))
    assert not found.tileable
    assert "depends on the image's size" in found.explain()


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=NEWER_EXPORT) if name in ("a number of the weights", "filled with one") else name
        for name in LOCAL
    ],
)
def test_what_is_local_has_exact_tiles(name: str) -> None:
    found = field(LOCAL[name], (1, 48, 64))
    assert found.tileable, found.explain()
    assert found.extent() == (3, 3)


def test_filters_of_the_image_see_all_of_it() -> None:
    assert field(Dynamic(), (1, 20, 30)).receptive_field("output", (3, 4)) == ((0, 20), (0, 30))


class Bands(nn.Module):
    """Convolves along a spectrum (of eight bands) as well, padded there."""

    def __init__(self) -> None:
        super().__init__()
        self.mix, self.answer = nn.Conv3d(1, 4, 3, padding=1), nn.Conv2d(32, 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.answer(self.mix(x[:, None]).flatten(1, 2))  # type: ignore[no-any-return]


def test_padding_along_a_spectrum_is_the_same_in_every_tile() -> None:
    net = Bands().eval()
    found = field(net, (8, 64, 64))
    assert found.tileable, found.explain()
    assert found.halo() == ((1, 1), (1, 1))
    image = torch.rand(1, 8, 40, 48)
    with torch.inference_mode():
        tile = net(image[..., 11:33, 15:37])[..., 1:-1, 1:-1]
        assert torch.allclose(tile, net(image)[..., 12:32, 16:36], atol=1e-6)


def test_a_tile_also_reads_what_is_cut_off_at_its_rim() -> None:
    net = nn.Sequential(nn.Conv2d(1, 1, 3, padding=1), nn.ZeroPad2d(-16))
    found = field(net, (1, 128, 128))
    assert found.halo() == ((16, 16), (16, 16))
    assert net(torch.zeros(1, 1, 16 + 32 + 16, 16 + 32 + 16)).shape[-2:] == (32, 32)


@pytest.mark.parametrize("amounts", [(3, -2), (-2, 3)])
def test_what_is_cut_and_wrapped_round_is_never_too_small(amounts: tuple[int, int]) -> None:
    net = Net(lambda y, _: F.pad(y, (*amounts, 0, 0), mode="circular"))
    found = field(net, (1, 8, 8))
    image = torch.rand(1, 1, 8, 8, dtype=torch.double)
    for unit in ((4, 0), (4, 4), (4, 8)):
        seen = support(positive(net), image, (2, 3), unit)
        for (start, stop), (low, high) in zip(found.receptive_field("output", unit), seen):
            assert start <= low < high <= stop


@pytest.mark.parametrize(("multiple", "period"), [(2, 2), (32, 32), (1, 2)])
def test_the_period_is_what_sizes_are_rounded_to(multiple: int, period: int) -> None:
    found = field(Rounding(multiple), (1, 64, 64))
    assert found.tileable
    assert found.period == (period, period)


def test_a_shift_at_the_rim_is_no_wrap() -> None:
    net = nn.Sequential(nn.ReplicationPad2d((5, 0, 0, 0)), nn.Conv2d(1, 1, 1), nn.ZeroPad2d((0, -5, 0, 0)))
    found = field(net, (1, 64, 64))
    assert found.tileable, found.explain()
    assert found.halo()[1][0] >= 5


class Windows(nn.Module):
    """Attention within windows of so many patches, to whose multiples it pads, as Swin and TinyViT do."""

    def __init__(self, window: int, patch: int) -> None:
        super().__init__()
        self.window = window
        self.down, self.mix = nn.Conv2d(1, 4, patch, patch), nn.Linear(4, 12)
        self.up = nn.ConvTranspose2d(4, 1, patch, patch)

    def forward(self, x: Tensor) -> Tensor:
        side, x = self.window, self.down(x).permute(0, 2, 3, 1)
        height, width = x.shape[1:3]
        x = F.pad(x, (0, 0, 0, -width % side, 0, -height % side))
        rows, columns = x.shape[1] // side, x.shape[2] // side
        windows = x.view(-1, rows, side, columns, side, 4).transpose(2, 3).reshape(-1, side * side, 4)
        query, key, value = self.mix(windows).chunk(3, -1)
        seen = torch.softmax(query @ key.mT, -1) @ value
        back = seen.view(-1, rows, columns, side, side, 4).transpose(2, 3).reshape(x.shape)
        return self.up(back[:, :height, :width].permute(0, 3, 1, 2).contiguous())  # type: ignore[no-any-return]


@pytest.mark.slow
@pytest.mark.parametrize(("window", "patch"), [(7, 4), (14, 16)])
def test_windows_to_whose_multiples_sizes_are_padded_have_exact_tiles(window: int, patch: int) -> None:
    net = positive(Windows(window, patch))
    found = field(net, (1, 64, 64))
    assert found.tileable, found.explain()
    assert found.period == (window * patch, window * patch)
    image = torch.rand(1, 1, 64, 64, dtype=torch.double)
    assert found.receptive_field("output", (28, 63)) == support(net, image, (2, 3), (28, 63))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("levels", "period"), [([(12, 4), (14, 16)], 672), ([(12, 4), (7, 8), (14, 16), (12, 32)], 2688)]
)
def test_the_period_of_several_windows_is_found(levels: list[tuple[int, int]], period: int) -> None:
    found = field(nn.Sequential(*(Windows(*level) for level in levels)), (1, 64, 64))
    assert found.period == (period, period)


def test_sizes_without_a_period_are_told() -> None:
    ratios = [37 / 41, 43 / 47, 53 / 59, 61 / 67]
    net = nn.Sequential(nn.Conv2d(1, 1, 1), *(nn.Upsample(scale_factor=ratio) for ratio in ratios))
    found = field(net, (1, 64, 64))
    assert "takes sizes whose period is not found" in found.explain()


def test_an_image_whose_bytes_cannot_be_counted_is_told() -> None:
    with pytest.raises(FieldError, match=r"an image of shape .*whose bytes can be counted"):
        field(nn.Conv2d(3, 1, 3), (3, 2**40, 2**40))


class Keeps(nn.Module):
    """Takes away what it found in the image before; or only writes that down."""

    def __init__(self, how: str) -> None:
        super().__init__()
        self.how, self.conv = how, nn.Conv2d(1, 2, 3, padding=1)
        self.register_buffer("mean", torch.zeros(1, 2, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        y = self.conv(x)
        if self.how == "scratch":
            self.mean.copy_(torch.ones_like(self.mean))
            return y - self.mean
        before = self.mean.clone()
        if self.how == "a part":
            self.mean[:, 0] += y.detach()[:, 0].mean()
        else:
            self.mean.copy_(y.detach().mean((0, 2, 3), keepdim=True))
        return y if self.how == "only written" else y - before


@pytest.mark.parametrize(
    ("how", "tileable"), [("all of it", False), ("a part", False), ("only written", True), ("scratch", True)]
)
def test_what_is_kept_from_call_to_call_and_read_is_told(how: str, tileable: bool) -> None:
    net, image = Keeps(how), torch.rand(1, 1, 48, 64)
    found = field(net, (1, 48, 64))
    assert found.tileable == tileable, found.explain()
    assert tileable or "buffer mean in the network's own forward keeps something" in found.explain()
    with torch.no_grad():
        assert torch.equal(net(image), net(image)) == tileable


def test_statistics_that_are_only_counted_are_no_obstacle() -> None:
    class Counts(nn.BatchNorm2d):
        def forward(self, x: Tensor) -> Tensor:
            self.num_batches_tracked.add_(1)
            return super().forward(x)

    found = field(nn.Sequential(nn.Conv2d(1, 2, 3, padding=1), Counts(2)), (1, 48, 64))
    assert found.tileable, found.explain()


def test_the_same_bytes_as_complex_numbers_are_followed() -> None:
    def turned(y: Tensor, _: Tensor) -> Tensor:
        last = y.permute(0, 2, 3, 1).contiguous().view(torch.complex64) * 1j
        return last.view(torch.float32).permute(0, 3, 1, 2)

    net = Net(turned)
    found = field(net, (1, 48, 64))
    assert found.tileable, found.explain()
    (top, bottom), (left, right) = found.receptive_field("output", (20, 30))
    assert ((top, bottom), (left, right)) == ((19, 22), (29, 32))
    image, other = torch.rand(2, 1, 1, 48, 64)
    other[..., top:bottom, left:right] = image[..., top:bottom, left:right]
    with torch.no_grad():
        assert torch.equal(net(image)[..., 20, 30], net(other)[..., 20, 30])


@pytest.mark.parametrize("size", [(1, 65536), (1, 441_000), (1, 6000, 6000)])
def test_large_images_need_no_more_room_for_rounding(size: tuple[int, ...]) -> None:
    kind, mode = (nn.Conv1d, "linear") if len(size) == 2 else (nn.Conv2d, "bilinear")
    net = nn.Sequential(kind(1, 2, 3, 2, 1), nn.Upsample(scale_factor=2), nn.Upsample(scale_factor=1.5, mode=mode))
    assert field(net, size).tileable


def test_most_parts_say_how_many_dimensions_there_are() -> None:
    net = nn.Sequential(nn.Conv2d(3, 2, 3), nn.Dropout2d(), nn.Dropout3d())
    assert field(net, (1, 3, 32, 32)).image == (32, 32)


def test_sizes_that_are_rounded_in_no_such_way_are_told() -> None:
    found = field(Rounding(100), (1, 100, 100))
    assert not found.tileable
    assert "do not grow evenly" in found.explain()


def test_the_image_is_found_beside_a_list() -> None:
    class Two(nn.Module):
        def forward(self, others: list[Tensor], image: Tensor) -> Tensor:
            return F.max_pool2d(image, 3, 1, 1) + others[0] + others[1]

    others = [torch.zeros(1, 2, 8, 8), torch.zeros(1, 2, 8, 8)]
    found = field(
        Two(), (1, 3, 8, 8), inputs=(others[:0] + [torch.zeros(1, 3, 8, 8)[:, :1]] * 2, torch.zeros(1, 3, 8, 8))
    )
    assert found.receptive_field("output", (4, 4)) == ((3, 6), (3, 6))


def test_nearest_neighbours_of_a_large_axis() -> None:
    net = nn.Upsample(size=4096, mode="nearest")
    x = torch.zeros(1, 1, 8193)
    found = field(net, (1, 8193))
    for unit in (1, 2047, 4094, 4095):
        x.zero_()
        (low, high) = found.receptive_field("output", (unit,))[0]
        x[..., low:high] = 1
        assert net(x)[0, 0, unit] == 1


@pytest.mark.parametrize("factor", [1.1, 2.1])
@pytest.mark.parametrize("dims", [1, 2, 3])
def test_nearest_neighbours_that_are_copied_whatever_the_factor(dims: int, factor: float) -> None:
    """To a size that is the same or double some of torch's kernels copy."""
    net, sizes = nn.Upsample(scale_factor=factor, mode="nearest"), (9, 7, 5)[:dims]
    rows = torch.stack(torch.meshgrid(*(torch.arange(float(size)) for size in sizes), indexing="ij"))
    image = rows.repeat_interleave(4, 0)[None]  # a unit tells what it read; with few channels runs another kernel
    found = field(net, image.shape[dims < 3 :])  # in three dimensions with its batch axis, or else it has two
    layouts = [torch.contiguous_format, *{2: [torch.channels_last], 3: [torch.channels_last_3d]}.get(dims, [])]
    for layout in layouts:
        told = net(image.contiguous(memory_format=layout))[0, ::4]
        for place in range(told.shape[1]):
            unit = tuple(min(place, size - 1) for size in told.shape[1:])
            window = found.receptive_field("output", unit)
            assert all(start <= told[axis][unit] < stop for axis, (start, stop) in enumerate(window)), (layout, unit)


def test_writing_into_a_piece_is_seen_in_the_whole() -> None:
    class Piece(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            y = x * 1
            first, _ = y.split([1, 1], 1)
            first.add_(F.avg_pool2d(first, 3, 1, 1))
            return y

    assert field(Piece(), (2, 16, 16)).receptive_field("output", (8, 8)) == ((7, 10), (7, 10))


HANDED_ON: dict[str, Callable[[Tensor], Tensor]] = {
    "dropout": lambda y: F.dropout(y, 0.1, training=False),
    "dropout twice": lambda y: F.dropout(F.dropout2d(y, 0.1, training=False), 0.1, training=False, inplace=True),
    "what was written before": lambda y: y.relu_(),
    "dropout of that, written again": lambda y: F.dropout(y.relu_(), 0.1, training=False).mul_(2),
    "a view of dropout": lambda y: F.dropout(y, 0.1, training=False).view_as(y),
    "dropout of a view": lambda y: F.dropout(y.unsqueeze(2), 0.1, training=False).squeeze(2),
}


@pytest.mark.parametrize("name", rarely(HANDED_ON, "dropout twice", "dropout", "what was written before"))
def test_what_is_written_under_another_name_is_seen(name: str) -> None:
    def written(y: Tensor, _: Tensor) -> Tensor:
        other = HANDED_ON[name](y)
        other += F.avg_pool2d(y, 9, 1, 4)
        return y

    def read(y: Tensor, _: Tensor) -> Tensor:
        other = HANDED_ON[name](y)
        y += F.avg_pool2d(y, 9, 1, 4)
        return other

    for act in (written, read):
        found = field(Net(act), (1, 48, 64))
        assert found.extent() == (11, 11)
        assert found.halo() == ((5, 5), (5, 5))


def test_what_is_only_read_is_not_taken_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    """Which takes several times as long."""

    def never(*_: object) -> None:
        raise AssertionError("taken apart")

    monkeypatch.setattr("torch.export.ExportedProgram.run_decompositions", never)
    layers = nn.Conv2d(1, 4, 3, padding=1), nn.BatchNorm2d(4), nn.Dropout(), nn.ReLU(inplace=True)

    class Halves(nn.Sequential):
        def forward(self, x: Tensor) -> Tensor:
            y = super().forward(x)
            y += x
            one, other = y.chunk(2, 1)
            return torch.cat([other, one], 1)

    assert field(Halves(*layers), (1, 48, 64)).extent() == (3, 3)


@pytest.mark.parametrize("rows", [2, 5])
def test_zeros_joined_channels_last_are_padding(rows: int) -> None:
    def moved(y: Tensor, _: Tensor) -> Tensor:
        last = y.permute(0, 2, 3, 1)
        nothing = torch.zeros_like(last[:, :rows])
        return torch.cat([nothing, last[:, rows:-rows], nothing], 1).permute(0, 3, 1, 2)

    found = field(Net(moved), (1, 48, 64))
    assert found.tileable, found.explain()
    assert min(found.halo()[0]) >= rows


def test_layers_for_some_sizes_only_are_told() -> None:
    found = field(Sized(nn.Conv2d(1, 2, 3, padding=1), nn.Conv2d(1, 2, 3, padding=1)), (1, 48, 64))
    assert "other operators at another image size" in found.explain("small")
    assert "small" in str(found.table(("small", "output")))


def test_a_network_for_images_may_have_parts_for_signals() -> None:
    class Gate(nn.Module):
        """Attention over channels at each pixel by itself."""

        def __init__(self) -> None:
            super().__init__()
            self.over = nn.Conv1d(1, 1, 3, padding=1)
            self.conv = nn.Conv2d(3, 3, 5, padding=2)

        def forward(self, x: Tensor) -> Tensor:
            y = self.conv(x)
            weight = self.over(y.mean((2, 3))[:, None])[:, 0, :, None, None]
            return y * weight  # type: ignore[no-any-return]

    assert field(Gate(), (3, 64, 64)).image == (64, 64)


def less_mean_by_data(y: Tensor, _: Tensor) -> Tensor:
    y.data.sub_(y.mean((2, 3), keepdim=True))
    return y * 2


def data_set(y: Tensor, _: Tensor) -> Tensor:
    y.data = y - y.mean((2, 3), keepdim=True)
    return y * 2


def mean_into_a_view(y: Tensor, _: Tensor) -> Tensor:
    sums = torch.zeros_like(y)
    torch.mean(y, (2, 3), keepdim=True, out=sums[:, :, :1, :1])
    return y + sums.sum((2, 3), keepdim=True)


@pytest.mark.parametrize("act", [less_mean_by_data, data_set, mean_into_a_view])
def test_what_is_written_past_torch_export_is_seen(act: Callable[[Tensor, Tensor], Tensor]) -> None:
    found = field(Net(act), (1, 48, 64))
    assert not found.bounded
    assert found.explain().startswith("output can see the whole image: ")
    assert found.receptive_field("output", (20, 30)) == ((0, 48), (0, 64))


def test_where_torch_export_loses_sight_all_the_same_everything_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("whatwhere.field.in_sight._DATA", vars(torch._C.TensorBase)["grad"])
    found = field(Net(lambda y, _: y + y.data), (1, 48, 64))
    assert not found.bounded
    assert "a tensor that torch.export lost sight of" in found.explain()


class SetsItsWeight(nn.Conv2d):
    """By ``.data``: to what the image says, or to what is left of it when its norm is bounded, as in EEGNet."""

    def __init__(self, by_the_image: bool) -> None:
        super().__init__(1, 2, 3, padding=1)
        self.by_the_image = by_the_image

    def forward(self, x: Tensor) -> Tensor:
        bounded = torch.renorm(self.weight.data, p=2, dim=0, maxnorm=0.1)
        self.weight.data = bounded * x.mean() if self.by_the_image else bounded
        return super().forward(x)


@NEWER_EXPORT
@pytest.mark.parametrize("by_the_image", [False, True])
def test_weights_that_are_set_by_data_count_as_what_they_are_set_to(by_the_image: bool) -> None:
    net = SetsItsWeight(by_the_image)
    before = net.weight.detach().clone()
    assert field(net, (1, 48, 64)).tileable == (not by_the_image)
    assert torch.equal(net.weight, before), "it is left as it was"


def test_data_that_is_set_to_another_shape_is_not_followed() -> None:
    def narrower(y: Tensor, _: Tensor) -> Tensor:
        kept = y.detach().clone()
        kept.data = (y - y.mean((2, 3), keepdim=True))[:, :1]
        return y + kept

    with pytest.raises(FieldError, match="data is set to a tensor of another shape"):
        field(Net(narrower), (1, 48, 64))


def pooled_by_data(y: Tensor, _: Tensor) -> Tensor:
    y.data.add_(F.avg_pool2d(y, 3, 1, 1))
    return y


def pooled_into_a_view(y: Tensor, _: Tensor) -> Tensor:
    into = torch.zeros(1, 4, *y.shape[2:])
    torch.mul(y, F.avg_pool2d(y, 3, 1, 1), out=into[:, 1:3])
    return into


def pooled_with_gradients(y: Tensor, _: Tensor) -> Tensor:
    with torch.enable_grad():
        return F.avg_pool2d(y, 3, 1, 1).flatten(0, 0)  # which has no rule: torch takes all apart


def pooled_by_places(y: Tensor, _: Tensor) -> Tensor:
    into = torch.zeros_like(y)
    into[:] = F.avg_pool2d(y, 3, 1, 1)
    return into


POOLED: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "data written": pooled_by_data,
    "data read": lambda y, _: F.avg_pool2d(y.data, 3, 1, 1),
    "data joined with zeros": lambda y, _: torch.cat([F.avg_pool2d(y, 3, 1, 1).data, torch.zeros(y.shape)], 1),
    "out= of a view": pooled_into_a_view,
    "with gradients": pooled_with_gradients,
    "all places written": pooled_by_places,
    "joined with nothing": lambda y, _: torch.cat([torch.tensor([]), F.avg_pool2d(y, 3, 1, 1)], 1),
}


@pytest.mark.parametrize("name", POOLED)
def test_what_is_local_in_roundabout_ways_has_exact_tiles(name: str) -> None:
    net = Net(POOLED[name])
    found = field(net, (1, 48, 64))
    assert found.tileable, found.explain()
    assert found.extent() == (5, 5)
    assert "forward" not in vars(net)


def last_column_zero(y: Tensor, _: Tensor) -> Tensor:
    y = y.clone()
    y[..., -1] = 0
    return F.avg_pool2d(y, 3, 1, 1)


def moved_by_writing(y: Tensor, _: Tensor) -> Tensor:
    into = y.clone()
    into[:, :, 1:] = y[:, :, :-1]
    return F.avg_pool2d(into, 3, 1, 1)


def spread_by_writing(y: Tensor, _: Tensor) -> Tensor:
    into = torch.zeros(1, 2, *(2 * size for size in y.shape[2:]), dtype=y.dtype)
    into[:, :, ::2, 1::2] = y
    return F.avg_pool2d(into, 3, 1, 1)


def middle_written(y: Tensor, _: Tensor) -> Tensor:
    into = y.clone()
    into[:, :, 10:20, 3:] = F.avg_pool2d(y, 5, 1, 2)[:, :, 20:30, 3:]
    return F.avg_pool2d(into, 3, 1, 1)


@pytest.mark.parametrize(
    ("act", "extent"),
    [
        (last_column_zero, (5, 5)),
        (spread_by_writing, (4, 4)),
        *(pytest.param(*one, marks=pytest.mark.slow) for one in ((moved_by_writing, (5, 5)), (middle_written, None))),
    ],
)
def test_what_is_written_to_places_sees_no_more_than_it_reads(
    act: Callable[[Tensor, Tensor], Tensor], extent: tuple[int, ...] | None
) -> None:
    net = positive(Net(act))
    found = field(net, (1, 48, 64))
    assert not found.tileable
    assert "places counted from the image's rim" in found.explain()
    assert extent is None or found.extent() == extent
    image = torch.rand(1, 1, 48, 64, dtype=torch.double) + 0.1
    rows, columns = found.grid("output").size
    for unit in ((0, 0), (9, 3), (10, 2), (20, 30), (19, 31), (rows - 1, columns - 1), (rows - 2, columns - 2)):
        real, window = support(net, image, (2, 3), unit), found.receptive_field("output", unit)
        assert real is not None
        assert all(low <= start < stop <= high for (start, stop), (low, high) in zip(real, window)), unit
        assert act is middle_written or real == window, unit


@pytest.mark.parametrize("how", ["only written", "scratch"])
def test_what_a_network_keeps_is_not_taken_for_the_image(how: str) -> None:
    assert field(Keeps(how), (1, 48, 64)).extent() == (3, 3)
