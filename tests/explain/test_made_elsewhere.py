"""Networks made elsewhere: whatever sizes they take, and however they halve rows and columns."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional as F

from tiny import disc_picture
from whatwhere import Segmenter
from whatwhere.errors import ModelError
from whatwhere.explain import graph_anatomy
from whatwhere.explain.anatomy import Anatomy, UNetAnatomy
from whatwhere.explain.graph_anatomy import GraphAnatomy
from whatwhere.explain.levels import gather
from whatwhere.explain.pixel import evidence_for, integrated_gradients, part_seen
from whatwhere.network import UNet
from whatwhere.network.copied import measurable
from whatwhere.records import Classes

Pair = tuple[int, int]


class Strict(nn.Module):
    """A U whose skip fits only where its strides divide the image's size; one for each pair of strides."""

    def __init__(self, *strides: Pair) -> None:
        super().__init__()
        wide = [4 * 2**level for level in range(len(strides) + 1)]
        self.top, self.norm = nn.Conv2d(3, 4, 3, padding=1), nn.BatchNorm2d(4)
        pairs = list(zip(wide, wide[1:], strides))
        self.downs = nn.ModuleList(nn.Conv2d(fine, deep, 3, stride, 1) for fine, deep, stride in pairs)
        self.ups = nn.ModuleList(nn.ConvTranspose2d(deep, fine, stride, stride) for fine, deep, stride in pairs)
        self.joins = nn.ModuleList(nn.Conv2d(2 * fine, fine, 3, padding=1) for fine in wide[:-1])
        self.head = nn.Conv2d(4, 2, 1)

    def forward(self, image: Tensor) -> Tensor:
        features = [self.norm(self.top(image)).relu()]
        for down in self.downs:
            features.append(down(features[-1]).relu())
        deep = features.pop()
        for up, join in zip(reversed(self.ups), reversed(self.joins)):
            deep = join(torch.cat([features.pop(), up(deep)], 1)).relu()
        return self.head(deep)


def strict(*strides: Pair) -> nn.Module:
    torch.manual_seed(0)
    return Strict(*strides).eval().requires_grad_(False)


def noise(height: int, width: int) -> Tensor:
    return torch.randn(1, 3, height, width, generator=torch.Generator().manual_seed(1))


# ---- sizes


@pytest.mark.parametrize("size", [(64, 48), (65, 48), (63, 50)])
def test_a_network_of_multiples_gets_the_zeros_that_painting_gives_it(size: Pair) -> None:
    network, image = strict((2, 2), (2, 2)), noise(*size)
    missing = (0, -size[1] % 4, 0, -size[0] % 4)
    expected = network(F.pad(image, missing))[..., : size[0], : size[1]]
    anatomy = GraphAnatomy(network, (1, 3, 64, 64))
    logits, features = anatomy.read(image)
    torch.testing.assert_close(logits, expected)
    torch.testing.assert_close(anatomy.decode(anatomy.carried(image), size), expected)
    torch.testing.assert_close(anatomy.network(image), expected)
    assert [layer.name for layer in anatomy.layers] == list(features)
    assert [layer.module for layer in anatomy.layers[1:3]] == ["norm", "downs.0"]  # as the user calls them
    windows = anatomy.windows(image.shape)
    assert windows.name == "Strict"
    (_, bottom), (_, right) = windows.receptive_field("output", (size[0] - 1, size[1] - 1))
    assert (bottom, right) == size  # nothing beyond the image is seen


def test_a_network_that_begins_coarse_has_no_features_at_the_images_size() -> None:
    """The image with zeros at its edges is not what a layer made of it."""
    coarse = nn.Sequential(nn.Conv2d(3, 8, 2, 2), nn.ReLU(), nn.Conv2d(8, 4, 2, 2), nn.ConvTranspose2d(4, 2, 4, 4))
    anatomy = GraphAnatomy(coarse.eval().requires_grad_(False), (1, 3, 65, 64))
    assert [layer.name for layer in anatomy.layers] == ["pixel", "encoder.1", "bottleneck"]


def test_what_is_named_after_padding_does_not_pad() -> None:
    torch.manual_seed(0)
    body = nn.Conv2d(3, 6, 3, padding="same"), nn.ReLU(), nn.Conv2d(6, 8, 2, 2, padding="valid"), nn.ReLU()
    network = nn.Sequential(*body, nn.ConvTranspose2d(8, 2, 2, 2)).eval().requires_grad_(False)
    layers = GraphAnatomy(network, (1, 3, 64, 64)).layers
    assert [(layer.name, layer.stride) for layer in layers[1:]] == [("encoder.0", 1), ("bottleneck", 2)]


def test_images_of_odd_sizes_are_explained_with_a_network_of_multiples(tmp_path: Path) -> None:
    for seed in range(4):
        pair = [array[seed % 2 :] for array in disc_picture(seed, 64)]  # every second one is a row short
        for kind, array in zip(("images", "masks"), pair):
            (tmp_path / "val" / kind).mkdir(parents=True, exist_ok=True)
            Image.fromarray(array).save(tmp_path / "val" / kind / f"{seed}.png")
    classes = Classes(("ground", "disc"), ((0, 0, 0), (255, 255, 255)), ((0,), (255,)))
    model = Segmenter.from_module(strict((2, 2)), classes, ((80.0,) * 3, (60.0,) * 3))
    told = model.explain(tmp_path, image=tmp_path / "val" / "images" / "1.png", pixel=(60, 62))
    assert len(told.images) == 4
    assert all(leak.holds for leak in told.sights.leaks)
    assert told.pixel.evidence.shape == (63, 64)
    assert told.pixel.windows["output"] == ((58, 63), (56, 63))  # the rows end with the image, not with its zeros


# ---- parts


def own(depth: int) -> Anatomy:
    torch.manual_seed(0)
    return UNetAnatomy(UNet(3, 2, width=2, depth=depth).eval().requires_grad_(False))


@pytest.mark.parametrize(
    "size", [(61, 70), *(pytest.param(size, marks=pytest.mark.slow) for size in ((64, 64), (20, 90)))]
)
@pytest.mark.parametrize("kind", ["own", "elsewhere"])
def test_the_part_of_one_pixel_answers_as_the_whole_and_has_few_sizes(kind: str, size: Pair) -> None:
    anatomy: Anatomy = own(2) if kind == "own" else GraphAnatomy(strict((2, 2), (2, 2)), (1, 3, 64, 64))
    image = noise(*size)
    whole, windows = anatomy.read(image)[0], anatomy.windows(image.shape)
    sizes = set()
    for at in [(0, 0), (size[0] - 1, size[1] - 1), (7, size[1] // 2), (size[0] // 2, 9), (size[0] - 9, size[1] - 6)]:
        (top, bottom), (left, right) = part_seen(windows, at, size)
        assert 0 <= top <= at[0] < bottom <= size[0]
        part = anatomy.read(image[..., top:bottom, left:right])[0]
        torch.testing.assert_close(part[..., at[0] - top, at[1] - left], whole[..., at[0], at[1]])
        sizes.add((bottom - top, right - left))
    assert len(sizes) <= 2 ** sum(n % 4 > 0 for n in size)


@pytest.mark.parametrize(("kernel", "stride"), [((1, 1), 1), ((1, 3), 1), ((4, 4), 4)])
def test_a_network_that_sees_a_pixel_a_row_or_a_patch_has_evidence_too(kernel: Pair, stride: int) -> None:
    torch.manual_seed(0)
    layer = nn.Conv2d(3, 8, kernel, stride, "same" if stride == 1 else 0)
    network = nn.Sequential(layer, nn.Upsample(scale_factor=stride), nn.Tanh(), nn.Conv2d(8, 2, 1))
    anatomy = GraphAnatomy(network.eval().requires_grad_(False), (1, 3, 16, 16))
    image, at = noise(16, 16), (15, 6)
    windows = anatomy.windows(image.shape)
    found, missed, *_ = evidence_for(anatomy, windows, image, torch.zeros(1, 3, 1, 1), at, 0, 1)
    assert missed < 0.01
    (top, bottom), (left, right) = windows.receptive_field("output", at)
    assert np.abs(found[top:bottom, left:right]).sum() == pytest.approx(np.abs(found).sum())
    assert found.any()


def test_evidence_on_the_part_is_that_on_the_whole() -> None:
    anatomy, image, at = GraphAnatomy(strict((2, 2)), (1, 3, 41, 40)), noise(41, 40), (39, 2)
    found, *_ = evidence_for(anatomy, anatomy.windows(image.shape), image, torch.zeros(1, 3, 1, 1), at, 0, 1)

    def margin(batch: Tensor) -> Tensor:
        logits = anatomy.read(batch)[0][:, :, at[0], at[1]]
        return logits[:, 0] - logits[:, 1]

    whole, *_ = integrated_gradients(margin, image, torch.zeros(1, 3, 1, 1))
    np.testing.assert_allclose(found, whole[0].sum(0).numpy(), atol=1e-5)


def test_an_image_so_small_that_a_level_is_lost_is_refused() -> None:
    anatomy = GraphAnatomy(strict((2, 2), (2, 2)), (1, 3, 16, 16))
    assert [layer.name for layer in anatomy.layers][-1] == "decoder.0"
    with pytest.raises(ModelError, match="other levels on images of 4x4 px than on images of 16x16 px"):
        anatomy.carried(noise(4, 4))
    assert len(anatomy.carried(noise(8, 8))) == len(anatomy.paths)


def test_not_all_graphs_are_kept(monkeypatch: pytest.MonkeyPatch, exported: list[tuple[int, ...]]) -> None:
    monkeypatch.setattr(graph_anatomy, "_KEPT", 2)
    anatomy = GraphAnatomy(strict((2, 2)), (1, 3, 16, 16))
    for side in (16, 16, 18, 16, 20, 16, 18):
        anatomy.read(noise(side, 16))
    assert exported == [(16, 16), (18, 16), (20, 16), (18, 16)]


# ---- rows and columns


@pytest.mark.parametrize("stride", [(2, 1), (1, 2)])
def test_rows_and_columns_have_a_stride_each(stride: Pair) -> None:
    anatomy, image = GraphAnatomy(strict(stride, stride), (1, 3, 32, 48)), noise(32, 48)
    assert [path.name for path in anatomy.paths] == ["skip 0", "skip 1", "bottleneck"]
    assert [(layer.name, layer.stride, layer.cell) for layer in anatomy.layers] == [
        ("pixel", 1, (1, 1)), ("encoder.0", 1, (1, 1)), ("encoder.1", 2, stride),
        ("bottleneck", 4, (stride[0] ** 2, stride[1] ** 2)), ("decoder.1", 2, stride), ("decoder.0", 1, (1, 1)),
    ]  # fmt: skip
    features = anatomy.read(image)[1]
    rows, columns = np.array([0, 5, 17, 31]), np.array([0, 47, 30, 11])
    for layer in anatomy.layers:
        height, width = layer.cell
        expected = features[layer.name][0, :, rows // height, columns // width].T.numpy()
        np.testing.assert_array_equal(gather(layer, features[layer.name], rows, columns), expected)


def test_what_halves_rows_and_then_columns_is_coarse_by_the_larger() -> None:
    layers = GraphAnatomy(strict((2, 1), (1, 2), (2, 2)), (1, 3, 32, 32)).layers
    assert {layer.name: layer.cell for layer in layers if layer.role == "encoder"} == {
        "encoder.0": (1, 1), "encoder.1": (2, 2),
    }  # fmt: skip
    assert (layers[3].name, layers[3].level, layers[3].cell) == ("bottleneck", 2, (4, 4))


# ---- wrapped in other ways


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_torchscript_can_not_be_taken_apart(discs: Path) -> None:
    scripted = Segmenter.from_module(torch.jit.trace(strict((2, 2)), noise(32, 32)), 2, ([127.0] * 3, [60.0] * 3))
    with pytest.raises(ModelError, match="Strict is TorchScript, which can be painted with but not taken apart"):
        scripted.explain(discs / "val" / "images", images=2)


def test_a_compiled_one_is_measured_as_what_it_was_compiled_of() -> None:
    network = strict((2, 2))
    measured = measurable(torch.compile(network), "cpu")
    assert type(measured) is Strict
    assert measured is not network
    torch.testing.assert_close(measured(noise(32, 32)), network(noise(32, 32)))
