"""What follows from windows: grids, cells, the reverse question, periods, halos, tables, drawings, errors."""

from __future__ import annotations

import itertools
import json
import warnings
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from fractions import Fraction
from math import isqrt
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from newer_export import NEWER_EXPORT
from torch import Tensor, nn
from zoo_nets import FPN, ConvNeXt, Interpolated, SqueezeExcite, UNet, UNetPlusPlus, ValidUNet

from whatwhere.errors import FieldError, OutputError
from whatwhere.field import field


def test_known_receptive_fields() -> None:
    found = field(UNet(2, 4), (1, 64, 64))
    assert [found.extent(layer) for layer in ("encoder.0", "encoder.1", "bottleneck")] == [(5, 5), (14, 14), (140, 140)]
    assert found.stride("bottleneck") == (16, 16)
    assert found.cell("bottleneck", (1, 2)) == ((16, 32), (32, 48))
    assert found.period == (16, 16)
    assert found.halo() == ((96, 96), (96, 96))


@NEWER_EXPORT
@pytest.mark.parametrize(("picked", "extent"), [(1, 9), (0, 3)])
def test_a_mask_picks_channels_by_its_places(picked: int, extent: int) -> None:
    class Masked(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.near, self.far = nn.Conv2d(1, 2, 3, padding=1), nn.Conv2d(1, 2, 9, padding=4)
            self.head = nn.Conv2d(2, 1, 1)  # which tells torch how many are picked
            self.register_buffer("mask", torch.arange(4) // 2 == picked)

        def forward(self, x: Tensor) -> Tensor:
            return self.head(torch.cat([self.near(x), self.far(x)], 1)[:, self.mask])

    found = field(Masked(), (1, 48, 64))
    assert found.tileable, found.explain()
    assert found.extent() == (extent, extent)


def test_reach_can_differ_between_sides_and_phases() -> None:
    found = field(nn.Conv1d(1, 1, 4, padding=(0,)), (1, 32))
    assert found.window("output", ((0, 1),)) == ((0, 4),)
    up = field(nn.Sequential(nn.AvgPool1d(2), nn.Upsample(scale_factor=2)), (1, 32))
    assert [up.window("output", ((u, u + 1),)) for u in (4, 5, 6)] == [((4, 6),), ((4, 6),), ((6, 8),)]
    assert up.reach() == ((1, 1),)
    assert up.extent() == (2,)


def test_layers_finer_than_the_image() -> None:
    found = field(nn.Sequential(nn.Conv2d(1, 4, 3, padding=1), nn.PixelShuffle(2)), (1, 16, 16))
    assert found.stride("output") == (Fraction(1, 2), Fraction(1, 2))
    assert found.cell("output", (5, 6)) == ((2, 3), (3, 4))


@pytest.mark.parametrize(
    "build", [lambda: UNet(1, 2), FPN, UNetPlusPlus, ConvNeXt, lambda: Interpolated("bicubic", 2.0, False)]
)
def test_influenced_is_the_hull_of_the_units_that_see_the_pixel(build) -> None:
    found = field(build(), (1, 16, 16))
    size = found.grid("output").size
    windows = {unit: found.receptive_field("output", unit) for unit in itertools.product(*map(range, size))}
    for pixel in ((0, 0), (7, 9), (15, 3)):
        seers = [u for u, w in windows.items() if all(a <= p < b for p, (a, b) in zip(pixel, w))]
        hull = tuple((min(places), max(places) + 1) for places in zip(*seers))
        assert found.influenced("output", pixel) == hull


def test_a_pixel_nobody_sees_influences_nothing() -> None:
    assert field(nn.Conv2d(1, 1, 1, stride=2), (1, 8, 8)).influenced("output", (3, 2))[0] == (0, 0)


def test_one_period_less_of_halo_fails() -> None:
    torch.manual_seed(0)
    module, period = UNet(4, 2).double().eval(), 4
    halo = field(module, (1, 32, 32)).halo()[0][0]
    image = torch.randn(1, 1, 2 * halo + 3 * period, 2 * halo + 3 * period, dtype=torch.double)
    block, block_before = slice(halo, halo + period), slice(halo - period, halo)
    with torch.no_grad():
        whole = module(image)[..., block, block]
        small = module(image[..., period : -3 * period, period : -3 * period])[..., block_before, block_before]
        enough = module(image[..., : -2 * period, : -2 * period])[..., block, block]
    assert (whole - enough).abs().max() < 1e-12
    assert (whole - small).abs().max() > 1e-10


class Shifted(nn.Module):
    """Moves right, then back: each unit sees one pixel, yet a tile without halo would lose its rim."""

    def forward(self, x: Tensor) -> Tensor:
        return F.pad(F.pad(x, (5, -5)), (-5, 5))


def test_a_halo_covers_detours_that_windows_do_not_show() -> None:
    found = field(Shifted(), (1, 32, 32))
    assert found.extent() == (1, 1)
    assert found.halo()[1][1] >= 5


class ShiftedByJoining(nn.Module):
    """The same by zeros that are joined; the last five units ask for nothing but those."""

    def forward(self, x: Tensor) -> Tensor:
        nothing = torch.zeros_like(x[..., :5])
        right = torch.cat([nothing, x[..., :-5]], -1)
        return torch.cat([right[..., 5:], nothing], -1)


def test_a_halo_covers_what_asks_for_joined_zeros_alone() -> None:
    found = field(ShiftedByJoining(), (1, 32, 32))
    assert found.extent() == (1, 1)
    assert found.halo()[1][1] >= 5


class WritesItsInput(nn.Module):
    """Torch lists what is written into an input among the results, before what is returned."""

    def __init__(self, how: str) -> None:
        super().__init__()
        self.how, self.conv = how, nn.Conv2d(3, 2, 5, padding=2)

    def forward(self, x: Tensor) -> Tensor:
        if self.how == "some channels":
            x[:, :2].sub_(0.5)
        elif self.how == "one channel":
            x[:, 0] -= 0.5
        else:
            x -= 0.5
            x = torch.einsum("nchw,c->nchw", x, torch.ones(3))
        return self.conv(x)


@pytest.mark.parametrize("how", ["some channels", "one channel"])
def test_what_a_network_writes_into_its_input_is_not_its_output(how: str) -> None:
    found = field(WritesItsInput(how), (3, 32, 32))
    assert (found.grid("output").size, found.stride("output")) == ((32, 32), (1, 1))
    assert found.halo() == ((2, 2), (2, 2))
    assert found.window("output", ((9, 10), (9, 10))) == ((7, 12), (7, 12))


def test_an_operator_without_a_rule_after_a_written_input_is_seen() -> None:
    found = field(WritesItsInput("everything"), (3, 32, 32))
    assert found.window("output", ((9, 10), (9, 10))) != ((9, 10), (9, 10))


class Both(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.far, self.near = nn.Conv2d(1, 1, 7, padding=3), nn.Conv2d(1, 1, 1)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return self.far(x), self.near(x)


class UsesBoth(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.block = Both()

    def forward(self, x: Tensor) -> Tensor:
        far, near = self.block(x)
        return far + near


def test_each_result_of_a_module_has_a_name() -> None:
    found = field(UsesBoth(), (1, 32, 32))
    assert found.receptive_field("block[0]", (9, 9)) == ((6, 13), (6, 13))
    assert found.receptive_field("block[1]", (9, 9)) == ((9, 10), (9, 10))
    assert found.levels == ("block[0]", "block[1]", "output")
    with pytest.raises(FieldError, match=r"has no layer 'block'.*block\[0\]"):
        found.window("block", ((0, 1), (0, 1)))


class Coordinates(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x + torch.arange(x.shape[-1], device=x.device)


class Spectrum(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return torch.fft.fft(x).abs()


def test_explain_names_the_operator_and_its_module() -> None:
    norm = nn.Sequential(nn.Conv2d(1, 2, 3, padding=1), nn.InstanceNorm2d(2), nn.Conv2d(2, 1, 1))
    found = field(norm, (1, 16, 16))
    assert not found.bounded
    assert "instance_norm in `1`" in found.explain()
    assert found.obstacle("0") is None
    assert "sees a bounded window of 3x3 pixels" in found.explain("0")
    assert "mean in the network's own forward" in field(SqueezeExcite(), (1, 16, 16)).explain()


class Rolled(nn.Module):
    """Two operators read the same: one in its place, the other at the opposite rim."""

    def __init__(self, join: Callable[[Tensor, Tensor], Tensor]) -> None:
        super().__init__()
        self.conv, self.join = nn.Conv2d(1, 1, 3, padding=1), join

    def forward(self, x: Tensor) -> Tensor:
        y = self.conv(x)
        return self.join(y, y.roll(1, 2))


@pytest.mark.parametrize("join", [
    lambda y, rolled: torch.sigmoid(y) * rolled, lambda y, rolled: torch.where(y > 0, rolled, y),
])  # fmt: skip
def test_what_wraps_round_is_named_and_not_what_reads_the_same_in_its_place(
    join: Callable[[Tensor, Tensor], Tensor],
) -> None:
    assert field(Rolled(join), (1, 32, 32)).explain().startswith("output can see the whole image: roll in")


def test_bounded_windows_whose_weights_depend_on_place_are_not_tileable() -> None:
    for module, words in (
        (Interpolated("bilinear", 2.0, True), "align_corners=True"),
        (Coordinates(), "coordinates"),
    ):
        found = field(module, (1, 32, 32))
        assert found.bounded
        assert not found.tileable
        assert words in found.explain()
        with pytest.raises(FieldError, match="has no exact halo"):
            found.halo()


def test_an_operator_without_a_rule_sees_everything_and_is_named() -> None:
    found = field(Spectrum(), (1, 24))
    assert found.window("output", ((3, 4),)) == ((0, 24),)
    assert "is an operator without a rule" in found.explain()
    assert "fft" in found.explain()


def test_a_network_for_one_size_is_bounded_by_the_image() -> None:
    module = nn.Sequential(nn.Conv2d(1, 1, 3, padding=1), nn.Flatten(2), nn.Linear(64, 64), nn.Unflatten(2, (8, 8)))
    found = field(module, (1, 8, 8))
    assert not found.bounded
    assert "one size only" in found.explain()
    assert found.receptive_field("0", (4, 4)) == ((3, 6), (3, 6))


def test_training_flags_and_weights_are_left_alone() -> None:
    module = UNet(1, 1)
    module.train()
    module.head.eval()
    before = [part.training for part in module.modules()]
    field(module, (1, 16, 16))
    assert [part.training for part in module.modules()] == before


def test_in_place_operators_are_seen() -> None:
    class Adds(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            y = x * 1
            y.add_(F.avg_pool2d(x, 3, 1, 1))
            z = y * 1
            z[..., 0:1, :].mul_(x.mean())
            return y + z

    found = field(Adds(), (1, 16, 16))
    assert found.receptive_field("output", (0, 8)) == ((0, 16), (0, 16))


def test_shapes_with_a_batch_axis_and_other_dtypes() -> None:
    assert field(nn.Conv2d(2, 1, 3), (4, 2, 9, 9)).image == (9, 9)
    assert field(nn.Conv1d(2, 1, 3).bfloat16(), (2, 30)).grid("output").size == (28,)
    assert field(nn.Conv3d(1, 1, 3), (1, 8, 9, 10)).image == (8, 9, 10)


def test_several_inputs() -> None:
    class Conditioned(nn.Module):
        def forward(self, scale: Tensor, image: Tensor) -> Tensor:
            return F.max_pool2d(image * scale, 3, 1, 1)

    found = field(Conditioned(), (1, 8, 8), inputs=(torch.ones(1), torch.zeros(1, 1, 8, 8)))
    assert found.receptive_field("output", (4, 4)) == ((3, 6), (3, 6))
    with pytest.raises(FieldError, match="no tensor of shape"):
        field(Conditioned(), (1, 9, 9), inputs=(torch.ones(1), torch.zeros(1, 1, 8, 8)))


class Decides(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x * 2 if x.sum() > 0 else x


class Masked(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x - x[x > 0].mean()


class Record(nn.Module):
    def forward(self, x: Tensor) -> SimpleNamespace:
        return SimpleNamespace(logits=x)


def scripted() -> nn.Module:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch.jit says that it is old
        return torch.jit.script(nn.Conv2d(1, 1, 3))


@pytest.mark.parametrize(
    ("module", "shape", "words"),
    [
        (scripted(), (1, 8, 8), "is TorchScript or holds some.*give the module that it was made from"),
        (nn.Sequential(scripted()), (1, 8, 8), "Sequential is TorchScript or holds some"),
        (Record(), (1, 8, 8), "Record returns what torch.export does not know.*the logits alone"),
        (Masked(), (1, 8, 8), r"Masked decides what to run by the values it computes.*y\[y > 0\]"),
        (Decides(), (1, 8, 8), "Decides decides what to run by the values it computes.*torch.where"),
        (
            nn.Conv2d(3, 1, 3),
            (1, 8, 8),
            r"Conv2d cannot be run on an image of shape \(1, 1, 8, 8\).*check the channels",
        ),
        (nn.Conv2d(3, 1, 3), (8,), r"image_shape \(8,\) for Conv2d; expected the shape of an image"),
        (nn.Conv2d(3, 1, 3), (3, 0, 8), r"image_shape \(3, 0, 8\)"),
        (
            nn.Sequential(nn.Conv2d(1, 1, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten()),
            (1, 8, 8),
            r"the output of Sequential has shape \(1, 1\).*before its pooling and classifier",
        ),
    ],
)
def test_bad_input(module: nn.Module, shape: tuple[int, ...], words: str) -> None:
    with pytest.raises(FieldError, match=words):
        field(module, shape)


def test_how_many_dimensions_an_image_has_may_be_said() -> None:
    """Where most layers have others, as of a network that takes bands for a third dimension."""
    volumes = nn.Sequential(nn.Unflatten(1, (1, 3)), nn.Conv3d(1, 1, 3, padding=1), nn.Flatten(1, 2))
    with pytest.raises(FieldError, match="cannot be run"):
        field(volumes, (1, 3, 16, 16))
    for shape in ((3, 16, 16), (1, 3, 16, 16)):
        assert field(volumes, shape, dims=2).receptive_field("output", (5, 0)) == ((4, 7), (0, 2))
    for dims in (1, 4):
        with pytest.raises(FieldError, match=r"image_shape \(1, 3, 16, 16\) for Sequential; expected the shape of an"):
            field(volumes, (1, 3, 16, 16), dims=dims)


def test_bad_questions() -> None:
    found = field(UNet(1, 1), (1, 16, 16))
    with pytest.raises(FieldError, match=r"no layer 'encoder.9'.*encoder.0"):
        found.window("encoder.9", ((0, 1), (0, 1)))
    with pytest.raises(FieldError, match="not a box of units of 'output'"):
        found.window("output", ((0, 17), (0, 1)))
    with pytest.raises(FieldError, match="an image of size"):
        found.influenced("output", (16, 0))
    for answer in (
        lambda: found.window("output", 5),  # type: ignore[arg-type]
        lambda: found.window("output", ((0.5, 1), (0, 1))),  # type: ignore[arg-type]
        lambda: found.receptive_field("output", 1),  # type: ignore[arg-type]
        lambda: found.cell("output", (1.5, 2)),  # type: ignore[list-item]
        lambda: found.influenced("output", (0.5, 0)),  # type: ignore[list-item]
        lambda: found.receptive_field(3, (1, 1)),  # type: ignore[arg-type]
        lambda: field(UNet, (1, 16, 16)),  # type: ignore[arg-type]
        lambda: field(UNet(1, 1), (1, 16.5, 16)),  # type: ignore[list-item]
        lambda: field(nn.Conv3d(1, 1, 3), (1, 8, 8, 8), known=found),
        lambda: field(UNet(1, 1), (1, 16, 16), known=5),  # type: ignore[arg-type]
    ):
        with pytest.raises(FieldError):
            answer()
    assert str(found.table("output")) == str(found.table(["output"]))


@pytest.mark.parametrize("lazy", [nn.LazyConv2d(2, 1), nn.LazyBatchNorm2d(affine=False)])
def test_lazy_layers_are_named(lazy: nn.Module) -> None:
    with pytest.raises(FieldError, match=r"Sequential has lazy layers; .*run it once on an image"):
        field(nn.Sequential(lazy), (1, 8, 8))


def test_an_image_alone_may_be_given_as_the_inputs() -> None:
    image = torch.zeros(1, 1, 16, 16)
    assert field(nn.Conv2d(1, 1, 3), (1, 16, 16), inputs=image).window("output", ((0, 1), (0, 1))) == ((0, 3), (0, 3))


class _Called(nn.Module):
    """Has a module that is called like its result."""

    def __init__(self, both: bool) -> None:
        super().__init__()
        self.output = nn.Sequential(nn.Conv2d(1, 2, 3, padding=1), nn.Conv2d(2, 1, 11, padding=5))
        self.head, self.both = nn.Conv2d(1, 1, 5, padding=2), both

    def forward(self, x: Tensor) -> Any:
        y = self.output(x)
        return (self.head(y), self.head(x)) if self.both else self.head(y)


@pytest.mark.parametrize("both", [False, True])
def test_a_module_that_is_called_output_is_told_from_the_result(both: bool) -> None:
    found = field(_Called(both), (1, 64, 64))
    sides = {"output.0": 3, "output.1": 13, "output (module)": 13, "output": 17, **({"output[1]": 5} if both else {})}
    assert {name: found.extent(name) for name in sides} == {name: (side, side) for name, side in sides.items()}
    assert found.levels[0] == "output (module)"
    assert "output.0" not in found.levels


def test_a_last_module_that_is_called_output_is_the_result() -> None:
    class Last(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.stem, self.output = nn.Conv2d(1, 1, 3), nn.Sequential(nn.Conv2d(1, 1, 3), nn.ReLU())

        def forward(self, x: Tensor) -> Tensor:
            return self.output(self.stem(x))  # type: ignore[no-any-return]

    assert field(Last(), (1, 16, 16)).levels == ("stem", "output")


def test_several_threads_may_ask_at_once(capfd: pytest.CaptureFixture[str]) -> None:
    nets = [nn.Conv2d(1, 1, 2 * side + 1, padding=side) for side in range(1, 5)]
    with ThreadPoolExecutor(4) as pool:
        halos = [found.halo() for found in pool.map(lambda net: field(net, (1, 32, 32)), nets)]
    assert halos == [((side, side), (side, side)) for side in range(1, 5)]
    with pytest.raises(FieldError):
        field(UNetPlusPlus(), (1, 1, 31))
    with pytest.raises(FieldError):
        field(Decides(), (1, 8, 8))
    assert not capfd.readouterr().err, "torch prints none of what is told as an error"


def test_table_prints_itself_and_has_a_json_form() -> None:
    found = field(UNet(1, 2), (1, 16, 16))
    record = json.loads(json.dumps(found.to_json()))
    assert [row["layer"] for row in record["rows"]][:3] == ["encoder.0", "encoder.1", "bottleneck"]
    assert record["halo"] == [[24, 24], [24, 24]]
    assert "somewhere in this 4x4 block" in str(found.table())
    assert "the whole image" in str(field(SqueezeExcite(), (1, 16, 16)))


def test_valid_convolutions_shift_the_cells() -> None:
    found = field(ValidUNet(), (1, 32, 32))
    (window, _), (cell, _) = found.receptive_field("output", (9, 9)), found.cell("output", (9, 9))
    assert window[0] <= cell[0] < cell[1] <= window[1]
    lost = 32 - found.grid("output").size[0]
    assert cell == (9 + lost // 2, 10 + lost // 2), "the rim that is lost lies half before it"


def test_drawing(tmp_path: Path) -> None:
    found = field(UNet(1, 2), (1, 32, 32))
    for name in ("a.png", "b.svg"):
        assert found.draw(tmp_path / name, image=np.zeros((32, 32, 3), np.uint8)).stat().st_size > 5000
    with pytest.raises(OutputError, match=r"ends in \.txt"):
        found.draw(tmp_path / "c.txt")
    with pytest.raises(OutputError, match="can't be written"):
        found.draw(tmp_path / "a.png" / "c.png")
    with pytest.raises(FieldError, match="an image of 8x8"):
        found.draw(tmp_path / "d.png", image=np.zeros((8, 8)))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.png", "b.svg"]


def test_units_that_see_nothing_reach_nowhere() -> None:
    net = nn.Sequential(nn.Conv2d(1, 2, 4, 2, 1), nn.ConvTranspose2d(2, 1, 3, 2, 2, 1, dilation=2))
    found = field(net, (1, 40, 40))
    inner = [(unit, unit) for unit in range(16, 24)]
    seen = {unit[0]: found.receptive_field("output", unit)[0] for unit in inner}
    assert [seen[unit] for unit in range(17, 24, 2)] == [(0, 0)] * 4  # the gaps
    sides = [(unit - seen[unit][0], seen[unit][1] - unit - 1) for unit in range(16, 24, 2)]
    assert found.reach("output") == (sides[0],) * 2
    assert set(sides) == {sides[0]}


class Shuffled(nn.Module):
    """Kernels of several sizes, one for each phase of rows and columns together."""

    def __init__(self, *kernels: int) -> None:
        super().__init__()
        self.side = isqrt(len(kernels))
        self.convs = nn.ModuleList(nn.Conv2d(1, 1, k, self.side, k // 2) for k in kernels)

    def forward(self, x: Tensor) -> Tensor:
        return F.pixel_shuffle(torch.cat([conv(x) for conv in self.convs], 1), self.side)


@pytest.mark.parametrize("kernels", [(3, 15, 5, 3), (3, 3, 9, 3, 3, 3, 3, 7, 3)])
def test_the_largest_window_may_lie_at_any_pair_of_phases(kernels: tuple[int, ...]) -> None:
    found = field(Shuffled(*kernels), (1, 90, 90))
    side = isqrt(len(kernels))
    pairs = [(at, found.receptive_field("output", at)) for at in itertools.product(range(45, 45 + side), repeat=2)]
    for d in (0, 1):
        assert found.extent()[d] == max(window[d][1] - window[d][0] for _, window in pairs) == max(kernels)
        before, after = found.reach()[d]
        assert before == max(unit[d] - window[d][0] for unit, window in pairs)
        assert after == max(window[d][1] - unit[d] - 1 for unit, window in pairs)


@pytest.mark.parametrize(
    ("act", "words"),
    [
        (lambda _: torch.ones(1, 1, 8, 8), "Acting returns what does not depend on the image;"),
        (torch.zeros_like, "Acting returns what does not depend on the image;"),
        (lambda _: None, "Acting returns nothing;"),
        (lambda x: (None, x * 2), "Acting returns nothing, as the first of its results;"),
        (lambda x: [torch.ones(3), x], "Acting returns what does not depend on the image, as the first of its results"),
    ],
)
def test_a_result_that_no_pixel_decides_is_told(act: Callable[[Tensor], Any], words: str) -> None:
    with pytest.raises(FieldError) as caught:
        field(Acting(act), (1, 8, 8))
    assert words in str(caught.value)
    assert "returns the logits alone" in str(caught.value)


class Acting(nn.Module):
    def __init__(self, act: Callable[[Tensor], Any]) -> None:
        super().__init__()
        self.act = act

    def forward(self, x: Tensor) -> Any:
        return self.act(x)


def test_results_are_named_by_their_places() -> None:
    def act(x: Tensor) -> list[Any]:
        return [F.avg_pool2d(x, 3, 1, 1), torch.ones(3), None, F.avg_pool2d(x, 5, 1, 2)]

    found = field(Acting(act), (1, 32, 32))
    assert found.layers == ("output", "output[3]")
    assert (found.extent("output"), found.extent("output[3]")) == ((3, 3), (5, 5))


def test_layers_and_pixels_that_are_none_are_told(tmp_path: Path) -> None:
    found = field(nn.Conv2d(1, 1, 3, padding=1), (1, 16, 16))
    for layers in (5, [5], {"output"}):
        with pytest.raises(FieldError, match="names of layers"):
            found.table(layers)
        with pytest.raises(FieldError, match="names of layers"):
            found.draw(tmp_path / "a.png", layers=layers)
    for pixel in ((16, 3), (-1, 3), (3,), (3, 3, 3), 5, (1.5, 2)):
        with pytest.raises(FieldError, match="pixel"):
            found.draw(tmp_path / "a.png", pixel=pixel)
        with pytest.raises(FieldError, match="pixel"):
            found.influenced("output", pixel)
    found.draw(tmp_path / "a.png", layers="output", pixel=(0, 15))
    assert [path.name for path in tmp_path.iterdir()] == ["a.png"]


class _Recurrent(nn.Module):
    """Reads rows of pixels from end to end; or at each pixel a short series of dates."""

    def __init__(self, layer: type[nn.RNNBase], dates: int = 0) -> None:
        super().__init__()
        self.layer, self.head, self.dates = layer(2, 3, batch_first=not dates), nn.Conv2d(3, 2, 1), dates

    def forward(self, x: Tensor) -> Tensor:
        count, _, height, width = x.shape
        if self.dates:
            series = x.unflatten(1, (self.dates, 2)).permute(1, 0, 3, 4, 2).flatten(1, 3)
            return self.head(self.layer(series)[0][-1].view(count, height, width, 3).permute(0, 3, 1, 2))
        rows = x.permute(0, 2, 3, 1).flatten(0, 1)
        return self.head(self.layer(rows)[0].view(count, height, width, 3).permute(0, 3, 1, 2))


@pytest.mark.parametrize("layer", [nn.LSTM, nn.GRU, nn.RNN])
def test_what_reads_rows_by_a_recurrent_layer_is_not_followed_along_larger_images(layer: type[nn.RNNBase]) -> None:
    """torch.export makes a dozen steps of each pixel of a row: with 4096 in a row that took minutes, twice."""
    found = field(_Recurrent(layer), (2, 32, 32))
    assert "goes over larger images in a loop" in found.explain()
    series = field(_Recurrent(layer, dates=5), (10, 32, 32))
    assert "in a loop" not in series.explain()
    assert series.extent("output") is None or series.extent("output") == (1, 1)


@pytest.mark.slow
def test_what_goes_over_its_rows_in_a_loop_is_not_followed_for_ever() -> None:
    class Rows(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            rows = [x[:, :, 0]]
            for row in x.unbind(2)[1:]:
                rows.append(row + rows[-1].relu().sin())
            return torch.stack(rows, 2)

    assert "goes over larger images in a loop" in field(Rows(), (1, 32, 32)).explain()


@pytest.mark.slow
def test_a_network_that_goes_over_its_image_in_a_loop_is_not_followed_for_ever() -> None:
    class Looping(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layers = nn.Sequential(*(nn.Conv2d(1, 1, 3, padding=1) for _ in range(4)))

        def forward(self, x: Tensor) -> Tensor:
            rows = [torch.cat([self.layers(x) for x in row.split(16, 3)], 3) for row in x.split(16, 2)]
            return torch.cat(rows, 2)

    found = field(Looping(), (1, 32, 32))
    assert not found.tileable
    assert "goes over larger images in a loop" in found.explain()
    assert found.receptive_field("output", (3, 4)) == ((0, 8), (0, 9))
