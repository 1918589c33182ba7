"""Tiles are called exact where they are, and nowhere else: networks that were once told wrongly."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from painting import model_of, picture, whole_logits
from torch import Tensor, nn
from torch.nn import functional as F

from whatwhere.errors import ModelError
from whatwhere.paint import Engine, paint
from whatwhere.paint.prove import prove, tiled_logits
from whatwhere.paint.scheme import scheme
from whatwhere.paint.sources import ArraySource


class _Net(nn.Module):
    """A function of features."""

    def __init__(self, act: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.conv, self.head, self.act = nn.Conv2d(3, 4, 3, padding=1), nn.Conv2d(4, 3, 1), act

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.head(self.act(self.conv(x)))
        return y


class _Windows(nn.Module):
    """Attention within 7x7 patches of 4x4 pixels, to whose multiples it pads."""

    def __init__(self) -> None:
        super().__init__()
        self.down, self.mix, self.up = nn.Conv2d(3, 8, 4, 4), nn.Linear(8, 24), nn.ConvTranspose2d(8, 3, 4, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = self.down(x).permute(0, 2, 3, 1)
        height, width = x.shape[1:3]
        x = F.pad(x, (0, 0, 0, -width % 7, 0, -height % 7))
        rows, columns = x.shape[1] // 7, x.shape[2] // 7
        windows = x.view(-1, rows, 7, columns, 7, 8).transpose(2, 3).reshape(-1, 49, 8)
        query, key, value = self.mix(windows).chunk(3, -1)
        seen = torch.softmax(query @ key.mT, -1) @ value
        back = seen.view(-1, rows, columns, 7, 7, 8).transpose(2, 3).reshape(x.shape)
        y: Tensor = self.up(back[:, :height, :width].permute(0, 3, 1, 2).contiguous())
        return y


class _Spectral(nn.Module):
    """Takes bands for a third dimension, as networks for hyperspectral images do."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Conv3d(1, 4, 3, padding=1), nn.Conv3d(4, 4, 3, padding=1)
        self.head = nn.Conv2d(12, 3, 1)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.head(self.second(torch.relu(self.first(x[:, None]))).flatten(1, 2))
        return y


class _Counts(_Net):
    """Counts its calls in a number of Python's."""

    def __init__(self) -> None:
        super().__init__(torch.relu)
        self.calls = 0

    def forward(self, x: Tensor) -> Tensor:
        self.calls += 1
        return super().forward(x) * (1 + self.calls % 7)


class _Remembers(_Net):
    """Takes away the mean of the image before."""

    def __init__(self) -> None:
        super().__init__(self.less)
        self.register_buffer("mean", torch.zeros(1, 4, 1, 1))

    def less(self, y: Tensor) -> Tensor:
        before = self.mean.clone()
        self.mean.copy_(y.detach().mean((2, 3), keepdim=True))
        return y - before


def _if_upright(y: Tensor) -> Tensor:
    return F.max_pool2d(y, (1, 3), 1, (0, 1)) if y.shape[-2] > y.shape[-1] else F.max_pool2d(y, (3, 1), 1, (1, 0))


def _by_size(y: Tensor) -> Tensor:
    return F.conv2d(y, torch.tensor(np.full((4, 1, 5, 5), 4 / y.shape[-2], np.float32)), padding=2, groups=4)


def _complex(y: Tensor) -> Tensor:
    last = y.permute(0, 2, 3, 1).contiguous().view(torch.complex64)
    return (last * (1 + 1j)).view(torch.float32).permute(0, 3, 1, 2)


INEXACT: dict[str, Callable[[], nn.Module]] = {
    "dropout that goes on": lambda: _Net(lambda y: F.dropout(y, 0.5, training=True)),
    "a random number": lambda: _Net(lambda y: y * torch.rand(1)),
    "a buffer that is kept": _Remembers,
    "a number that is counted": _Counts,
    "another pool if upright": lambda: _Net(_if_upright),
    "filters by the size": lambda: _Net(_by_size),
}


@pytest.mark.parametrize("name", INEXACT)
def test_tiles_that_differ_are_not_called_exact(name: str) -> None:
    torch.manual_seed(0)
    model, image = model_of(INEXACT[name]()), picture(203, 150)
    engine = Engine(model, "float32", "cpu", backend="eager")
    assert not engine.geometry.tileable
    assert not paint(engine, image, tile=96).report.exact
    with torch.inference_mode():
        whole = model.network(model.normalise(image)[None])[..., 60:90, 40:100]
        tile = model.network(model.normalise(image[40:110])[None])[..., 20:50, 40:100]
    assert (whole - tile).abs().max() > 1e-2


@pytest.mark.parametrize("bounds", [(0, 50), (80, 400)], ids=["small", "middling"])
def test_what_is_done_on_tiles_alone_or_on_the_image_alone_is_found(bounds: tuple[int, int]) -> None:
    """Of sizes that none of those have on which a network is followed to begin with."""
    torch.manual_seed(0)
    low, high = bounds
    network = _Net(lambda y: F.max_pool2d(y, 3, 1, 1) if low < y.shape[-1] < high else y)
    engine = Engine(model_of(network), "float32", "cpu", backend="eager")
    assert engine.geometry.tileable
    report = paint(engine, picture(60, 500), tile=(48, 48) if low == 0 else (48, 160)).report
    assert not report.exact
    assert "runs other operators at another image size" in " ".join(report.notes)
    assert paint(engine, picture(60, 1200), tile=(60, 600)).report.exact


def test_a_network_that_exchanges_height_and_width_is_refused() -> None:
    network = _Net(lambda y: y.mT)
    with pytest.raises(ModelError, match=r"scores of shape \(1, 3, 64, 32\)"):
        Engine(model_of(network), "float32", "cpu", backend="eager")


@pytest.mark.parametrize("strength", [1.0, 1e-4])
def test_how_faint_logits_are_changes_nothing_of_how_an_image_is_padded(strength: float) -> None:
    torch.manual_seed(0)
    network = _Halved(strength)
    engine = Engine(model_of(network), "float32", "cpu", backend="eager")
    image = picture(65, 65)
    painted = paint(engine, image)
    np.testing.assert_array_equal(painted.labels, whole_logits(engine.model, image).argmax(0))
    assert "pads otherwise" in " ".join(paint(engine, image, tile=32).report.notes)


class _Halved(nn.Module):
    """Takes odd sizes, and resizes to them."""

    def __init__(self, strength: float) -> None:
        super().__init__()
        self.down, self.head, self.strength = nn.Conv2d(3, 8, 3, 2, 1), nn.Conv2d(8, 3, 3, padding=1), strength

    def forward(self, x: Tensor) -> Tensor:
        y = self.head(F.interpolate(self.down(x).relu(), size=x.shape[2:], mode="nearest"))
        return self.strength * (y - y.mean(1, keepdim=True))


class _Unpooled(nn.Module):
    """As SegNet; and means of windows that are laid out as columns."""

    def __init__(self) -> None:
        super().__init__()
        self.down, self.out = nn.Conv2d(3, 4, 3, padding=1), nn.Conv2d(4, 3, 3, padding=1)
        self.pool = nn.MaxPool2d(2, return_indices=True)

    def forward(self, x: Tensor) -> Tensor:
        most, places = self.pool(self.down(x))
        near = F.unfold(most, 3, padding=1).view(*most.shape[:2], 9, *most.shape[2:]).mean(2)
        return self.out(F.max_unpool2d(near, places, 2))


EXACT: dict[str, Callable[[], nn.Module]] = {
    "windows of 7 patches": _Windows,
    "windows, moved, and windows again": lambda: nn.Sequential(_Windows(), nn.Conv2d(3, 3, 3, padding=1), _Windows()),
    "dropout when nothing is trained": lambda: _Net(lambda y: F.dropout(F.rrelu(y, training=False), 0.5, False)),
    "complex numbers": lambda: _Net(_complex),
    "values put back where pooling found them": _Unpooled,
    "bands as a third dimension": _Spectral,
}


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=pytest.mark.slow) if "windows" in name else name for name in EXACT]
)
def test_tiles_that_are_the_whole_image_s_are_called_exact(name: str) -> None:
    torch.manual_seed(0)
    image = picture(196, 224)
    engine = Engine(model_of(EXACT[name]()), "float32", "cpu", backend="eager")
    plan = scheme(engine, image.shape[:2], tile=84)
    assert plan.exact
    assert len(plan.tiling) > 4
    tiled = tiled_logits(engine, ArraySource(image), plan.tiling)
    np.testing.assert_allclose(tiled.numpy(), whole_logits(engine.model, image).numpy(), atol=1e-5)


class _Thrice(nn.Module):
    """Resizes by a factor that float32 does not hold, as heads on DINOv2's patches of 14 do."""

    def __init__(self, **up: Any) -> None:
        super().__init__()
        self.down, self.up = nn.Conv2d(3, 3, 3, 3), up

    def forward(self, x: Tensor) -> Tensor:
        return F.interpolate(self.down(x), **self.up)


def test_rounding_of_places_is_no_difference() -> None:
    torch.manual_seed(0)
    image = picture(1030, 1030)
    proof = prove(model_of(_Thrice(scale_factor=3.0, mode="bilinear")), image, tile=258, backend="eager")
    assert proof.difference > 1e-5 * proof.largest
    assert proof.passed
    assert not proof.unexplained
    assert "no power of two" in str(proof)
    nearest = prove(model_of(_Thrice(scale_factor=3.0, mode="nearest")), image[:99, :99], backend="eager")
    assert nearest.passed
    assert "no power of two" not in str(nearest)
