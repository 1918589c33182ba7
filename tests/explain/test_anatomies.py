from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping, Sequence
from fractions import Fraction

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from whatwhere.errors import ModelError
from whatwhere.explain import anatomy as anatomies
from whatwhere.explain.anatomy import UNetAnatomy, Windows, untrained_like
from whatwhere.explain.graph_anatomy import GraphAnatomy
from whatwhere.field import Field, field
from whatwhere.field.grids import Grid
from whatwhere.network import Mirrored, UNet

IMAGE = torch.randn(1, 3, 48, 40, generator=torch.Generator().manual_seed(0))


def ready(network: nn.Module) -> nn.Module:
    return network.eval().requires_grad_(False)


def unet(**how: object) -> UNet:
    torch.manual_seed(0)
    network = UNet(3, 3, **({"width": 4, "depth": 3} | how))  # type: ignore[arg-type]
    return ready(network)  # type: ignore[return-value]


class Flat(nn.Module):
    """Three convolutions at full resolution: nothing is coarser than the image."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(3, 6, 3, padding=1), nn.ReLU(), nn.Conv2d(6, 5, 3, padding=1), nn.ReLU())
        self.head = nn.Conv2d(5, 2, 1)

    def forward(self, image: Tensor) -> Tensor:
        return self.head(self.body(image))


class Adding(nn.Module):
    """A skip that adds, strided convolutions, interpolation: nothing that a U-Net is known by."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, padding=1)
        self.down = nn.Conv2d(8, 8, 3, stride=2, padding=1)
        self.deep = nn.Conv2d(8, 8, 3, stride=2, padding=1)
        self.join = nn.Conv2d(8, 8, 3, padding=1)
        self.head = nn.Conv2d(8, 2, 1)

    def forward(self, image: Tensor) -> Tensor:
        top = self.stem(image).relu()
        middle = self.down(top).relu()
        bottom = self.deep(middle).relu()
        up = middle + F.interpolate(bottom, size=middle.shape[-2:])
        up = self.join(F.interpolate(up, size=top.shape[-2:])).relu()
        return self.head(up)


def test_of_networks_that_are_built_alike_one_is_followed(monkeypatch: pytest.MonkeyPatch) -> None:
    followed: list[nn.Module] = []

    def watched(network: nn.Module, shape: Sequence[int], *, dims: int, known: Field | None) -> Field:
        followed.append(network)
        return field(network, shape, dims=dims, known=known)

    monkeypatch.setattr(Windows, "_alike", OrderedDict())
    monkeypatch.setattr(anatomies, "field", watched)
    one, other, narrow, changed = (unet(depth=1, width=width) for width in (4, 4, 3, 4))
    for parameter in other.parameters():
        parameter.data.normal_()
    changed.head = nn.Conv2d(4, 3, 3, padding=1)  # sees one pixel more on each side
    one_field = Windows(one)(IMAGE.shape)
    assert Windows(other)(IMAGE.shape) is one_field
    wider = Windows(changed)(IMAGE.shape)
    assert Windows(narrow)(IMAGE.shape) is not one_field
    assert Windows(one)((1, 3, 32, 32)) is not one_field
    assert followed == [one, changed, narrow, one]
    before, after = one_field.reach("output"), wider.reach("output")
    assert before is not None
    assert after == tuple((first + 1, last + 1) for first, last in before)


class Residual(nn.Module):
    """What it adds and rectifies, it does outside its modules."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.fine, self.deep, self.up = (nn.Conv2d(c, 6, 3, padding=1) for c in (3, 6, 6, 6))
        self.head = nn.Conv2d(6, 2, 1)

    def forward(self, image: Tensor) -> Tensor:
        top = F.relu(self.stem(image))
        top = F.relu(top + self.fine(top))
        deep = F.max_pool2d(top, 2)
        deep = F.dropout(F.relu(deep + self.deep(deep)), 0.5, self.training)
        up = F.interpolate(deep, scale_factor=2) + top
        return self.head(F.relu(up + self.up(up)))


class WritesItself(Residual):
    """A slice that is written to is taken apart by torch, which drops what does nothing."""

    def forward(self, image: Tensor) -> Tensor:
        image = image + 0
        image[:, :1].mul_(2)
        return super().forward(image)


class Repeated(nn.Module):
    """The same modules twice, each time on what the first time gave."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.down = nn.Conv2d(3, 6, 3, padding=1), nn.Conv2d(6, 6, 3, 2, 1)
        self.up, self.head, self.relu = nn.ConvTranspose2d(6, 6, 2, 2), nn.Conv2d(6, 2, 1), nn.ReLU()

    def forward(self, image: Tensor) -> Tensor:
        features = self.relu(self.stem(image))
        for _ in range(2):
            features = features + self.relu(self.up(self.relu(self.down(features))))
        return self.head(features)


class Normalising(nn.Module):
    """At the image's size there is nothing but the image, scaled."""

    def __init__(self) -> None:
        super().__init__()
        self.down, self.up = nn.Conv2d(3, 6, 3, 2, 1), nn.ConvTranspose2d(6, 2, 2, 2)

    def forward(self, image: Tensor) -> Tensor:
        return self.up(self.down(image / 4 - 0.5))


def seen_by(anatomy: GraphAnatomy, layer: str, unit: tuple[int, int]) -> tuple[tuple[int, int], ...]:
    """The smallest box with a gradient into a unit, of any of several images: a ReLU may be dead for one."""
    found = torch.zeros(IMAGE.shape[-2:])
    for seed in range(4):
        image = torch.randn(IMAGE.shape, generator=torch.Generator().manual_seed(seed)).requires_grad_(True)
        features = anatomy.read(image)[1][layer]
        (gradient,) = torch.autograd.grad(features[0, :, unit[0], unit[1]].sum(), image)
        found += gradient.abs().sum((0, 1))
    places = found.nonzero()
    return tuple((int(low), int(high) + 1) for low, high in zip(places.amin(0), places.amax(0)))


@pytest.mark.parametrize(("kind", "module"), [
    (Residual, "%dropout"), (WritesItself, "%dropout"), (Repeated, "relu@3"), (Normalising, "down"),
])  # fmt: skip
def test_the_window_of_what_no_module_of_its_own_gives_is_its_own(kind: type[nn.Module], module: str) -> None:
    torch.manual_seed(0)
    anatomy = GraphAnatomy(ready(kind()), IMAGE.shape)
    windows, layers = anatomy.windows(IMAGE.shape), anatomy.layers[1:]
    assert [layer.module for layer in layers if layer.role == "bottleneck"] == [module]
    for layer in layers:
        unit = (24 // layer.stride, 20 // layer.stride)
        assert windows.receptive_field(layer.module, unit) == seen_by(anatomy, layer.name, unit), layer
        assert windows.stride(layer.module) == (layer.stride,) * 2
        assert windows.extent(layer.module) is not None


class ByValue(nn.Module):
    def forward(self, image: Tensor) -> Tensor:
        return image[:, :2] if image.sum() > 0 else image[:, 1:]


@pytest.mark.parametrize("skips", [None, (), (0, 2)])
def test_the_decoder_gets_all_it_needs_from_the_paths(skips: tuple[int, ...] | None) -> None:
    network = unet(skips=skips)
    anatomy = UNetAnatomy(network)
    expected = (0, 1, 2) if skips is None else skips
    assert [path.level for path in anatomy.paths] == [*expected, 3]
    assert torch.equal(anatomy.decode(anatomy.carried(IMAGE), (48, 40)), network(IMAGE))


def test_layers_say_their_stride_and_channels() -> None:
    anatomy = UNetAnatomy(unet(max_width=12))
    logits, features = anatomy.read(IMAGE)
    assert logits.shape == (1, 3, 48, 40)
    for layer in anatomy.layers:
        assert features[layer.name].shape == (1, layer.channels, 48 // layer.stride, 40 // layer.stride)
    assert [layer.title for layer in anatomy.layers][:2] == ["raw pixel", "encoder 0"]


def test_a_block_that_nothing_reads_is_no_layer() -> None:
    """Beside the classifier's way down: without its skip it feeds nothing, and keeps its random weights."""
    for skips, first in (((), "encoder.1"), ((1, 2), "encoder.1"), (None, "encoder.0")):
        anatomy = UNetAnatomy(unet(encoder="efficientnet-lite0", skips=skips))
        features = anatomy.read(IMAGE)[1]
        assert [layer.name for layer in anatomy.layers][:2] == ["pixel", first]
        assert set(features) == {layer.name for layer in anatomy.layers}
    assert UNetAnatomy(unet(skips=())).layers[1].name == "encoder.0"  # the image's only way


def test_the_graph_finds_the_same_parts_as_the_names() -> None:
    network = unet()
    named, found = UNetAnatomy(network), GraphAnatomy(network, IMAGE.shape)
    assert [path.name for path in found.paths] == [path.name for path in named.paths]
    assert found.layers == named.layers
    _, by_name = named.read(IMAGE)
    logits, by_graph = found.read(IMAGE)
    assert torch.allclose(logits, network(IMAGE), atol=1e-5)
    for layer in named.layers:
        assert torch.allclose(by_name[layer.name], by_graph[layer.name], atol=1e-5)
    for one, other in zip(named.carried(IMAGE), found.carried(IMAGE)):
        assert torch.allclose(one, other, atol=1e-5)


def test_cutting_by_graph_is_cutting_by_argument() -> None:
    network = unet()
    anatomy = GraphAnatomy(network, IMAGE.shape)
    carried = list(anatomy.carried(IMAGE))
    carried[1] = torch.zeros_like(carried[1])
    assert torch.allclose(anatomy.decode(carried, (48, 40)), network(IMAGE, skips={1: "cut"}), atol=1e-5)
    other = torch.randn(1, 3, 32, 64)  # another size is exported when it comes
    assert torch.allclose(anatomy.decode(anatomy.carried(other), (32, 64)), network(other), atol=1e-5)


def test_monai_basic_unet() -> None:
    monai = pytest.importorskip("monai.networks.nets")
    torch.manual_seed(0)
    network = ready(monai.BasicUNet(2, 3, 2, features=(8, 8, 16, 16, 32, 8), norm="batch"))
    anatomy = GraphAnatomy(network, IMAGE.shape)
    assert [path.name for path in anatomy.paths] == ["skip 0", "skip 1", "skip 2", "skip 3", "bottleneck"]
    assert [layer.stride for layer in anatomy.layers] == [1, 1, 2, 4, 8, 16, 8, 4, 2, 1]
    assert anatomy.layers[1].module == "conv_0"
    assert torch.allclose(anatomy.decode(anatomy.carried(IMAGE), (48, 40)), network(IMAGE), atol=1e-5)


def test_maps_with_as_many_channels_as_there_are_classes_are_features_too() -> None:
    torch.manual_seed(0)
    network = ready(UNet(3, 4, width=4, depth=3))
    assert network.config["width"] == 4  # as wide at the top level as there are classes
    assert GraphAnatomy(network, IMAGE.shape).layers == UNetAnatomy(network).layers


def test_class_scores_that_are_only_spread_out_are_no_features() -> None:
    body = nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(8, 8, 3, stride=2, padding=1)
    anatomy = GraphAnatomy(ready(nn.Sequential(*body, nn.Conv2d(8, 2, 1), nn.Upsample(scale_factor=2))), IMAGE.shape)
    assert [(layer.name, layer.channels) for layer in anatomy.layers[1:]] == [("encoder.0", 8), ("bottleneck", 8)]


def test_skips_that_add_are_skips_too() -> None:
    anatomy = GraphAnatomy(ready(Adding()), IMAGE.shape)
    assert [path.name for path in anatomy.paths] == ["skip 1", "bottleneck"]
    assert [layer.name for layer in anatomy.layers][1:] == [
        "encoder.0", "encoder.1", "bottleneck", "decoder.1", "decoder.0",
    ]  # fmt: skip


class Gated(nn.Module):
    """Every skip passes a gate that holds a projection of it against one of what comes from below: Attention U-Net."""

    def __init__(self) -> None:
        super().__init__()
        self.top, self.middle = nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(8, 8, 3, stride=2, padding=1)
        self.deep = nn.Conv2d(8, 8, 3, stride=2, padding=1)
        self.of_skip, self.of_below = (nn.ModuleList(nn.Conv2d(8, 4, 1) for _ in range(2)) for _ in range(2))
        self.gate = nn.ModuleList(nn.Conv2d(4, 1, 1) for _ in range(2))
        self.join = nn.ModuleList(nn.Conv2d(16, 8, 3, padding=1) for _ in range(2))
        self.head = nn.Conv2d(8, 2, 1)

    def forward(self, image: Tensor, instead: Mapping[int, Tensor] | None = None) -> Tensor:
        top = self.top(image).relu()
        middle = self.middle(top).relu()
        below, skips = self.deep(middle).relu(), {0: top, 1: middle} | dict(instead or {})
        for level in (1, 0):
            below, skip = F.interpolate(below, scale_factor=2), skips[level]
            weight = self.gate[level]((self.of_skip[level](skip) + self.of_below[level](below)).relu()).sigmoid()
            below = self.join[level](torch.cat([skip * weight, below], 1)).relu()
        return self.head(below)


def test_a_skip_through_a_gate_is_one_path_and_cut_before_the_gate_sees_it() -> None:
    torch.manual_seed(0)
    network = ready(Gated())
    anatomy = GraphAnatomy(network, IMAGE.shape)
    assert [path.name for path in anatomy.paths] == ["skip 0", "skip 1", "bottleneck"]
    carried = list(anatomy.carried(IMAGE))
    assert torch.allclose(anatomy.decode(carried, (48, 40)), network(IMAGE), atol=1e-5)
    for level in (0, 1):
        mean = carried[level].mean((2, 3), keepdim=True).expand_as(carried[level])
        given = [mean if path == level else own for path, own in enumerate(carried)]
        assert torch.allclose(anatomy.decode(given, (48, 40)), network(IMAGE, {level: mean}), atol=1e-5)


def test_monai_attention_unet() -> None:
    monai = pytest.importorskip("monai.networks.nets")
    torch.manual_seed(0)
    network = ready(monai.AttentionUnet(2, 3, 2, channels=(4, 8, 8), strides=(2, 2)))
    anatomy = GraphAnatomy(network, IMAGE.shape)
    assert [path.name for path in anatomy.paths] == ["skip 0", "skip 1", "bottleneck"]
    assert torch.allclose(anatomy.decode(anatomy.carried(IMAGE), (48, 40)), network(IMAGE), atol=1e-5)


class Processed(nn.Module):
    """What a skip carries is computed beside the way down, from the one that leads on to the deeper skip too."""

    def __init__(self) -> None:
        super().__init__()
        self.top, self.middle = nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(8, 8, 3, stride=2, padding=1)
        self.deep, self.path = nn.Conv2d(8, 8, 3, stride=2, padding=1), nn.Conv2d(8, 8, 3, padding=1)
        self.head = nn.Conv2d(8, 2, 1)

    def forward(self, image: Tensor) -> Tensor:
        top = self.top(image).relu()
        middle = self.middle(top).relu()
        up = F.interpolate(self.deep(middle).relu(), scale_factor=2) + self.path(middle)
        return self.head(F.interpolate(up, scale_factor=2) + top)


def test_a_skip_that_is_computed_on_its_way_is_one_of_its_own() -> None:
    torch.manual_seed(0)
    network = ready(Processed())
    anatomy = GraphAnatomy(network, IMAGE.shape)
    assert [path.name for path in anatomy.paths] == ["skip 0", "skip 1", "bottleneck"]
    given = [torch.zeros_like(own) if path == 1 else own for path, own in enumerate(anatomy.carried(IMAGE))]
    for parameter in network.path.parameters():  # type: ignore[operator,union-attr]
        parameter.zero_()
    assert torch.allclose(anatomy.decode(given, (48, 40)), network(IMAGE), atol=1e-5)


def test_a_network_without_levels() -> None:
    anatomy = GraphAnatomy(ready(Flat()), IMAGE.shape)
    assert [layer.name for layer in anatomy.layers] == ["pixel", "bottleneck"]
    assert [path.name for path in anatomy.paths] == ["bottleneck"]


class Pooled(nn.Module):
    """A vector pooled over the whole image and spread out again beside the coarsest map, as in DeepLab's ASPP."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, padding=1)
        self.down = nn.Conv2d(8, 8, 3, stride=4, padding=1)
        self.pooled = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Conv2d(8, 8, 1), nn.BatchNorm2d(8), nn.ReLU())
        self.join = nn.Conv2d(16, 8, 1)
        self.head = nn.Conv2d(16, 2, 1)

    def forward(self, image: Tensor) -> Tensor:
        fine = self.stem(image)
        deep = self.down(fine)
        spread = F.interpolate(self.pooled(deep), size=deep.shape[-2:], mode="bilinear")
        deep = self.join(torch.cat([deep, spread], 1))
        return self.head(torch.cat([fine, F.interpolate(deep, scale_factor=4)], 1))


class Tokens(nn.Module):
    """Rows of features carried past the coarsest map as a list of tokens, without height and width."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.mix, self.head = nn.Conv2d(3, 8, 4, 4), nn.Linear(8, 8), nn.Conv2d(8, 2, 1)
        self.deep = nn.Conv2d(8, 8, 2, 2)

    def forward(self, image: Tensor) -> Tensor:
        fine = self.stem(image)
        tokens = self.mix(fine.flatten(2).transpose(1, 2))
        deep = F.interpolate(self.deep(fine), scale_factor=2)
        joined = (deep.flatten(2) + tokens.transpose(1, 2)).unflatten(2, deep.shape[2:])
        return self.head(F.interpolate(joined, scale_factor=4))


def test_what_was_pooled_over_the_image_stands_where_it_is_spread_out() -> None:
    torch.manual_seed(0)
    network = ready(Pooled())
    anatomy = GraphAnatomy(network, IMAGE.shape)
    assert [layer.name for layer in anatomy.layers] == ["pixel", "encoder.0", "bottleneck", "decoder.0"]
    assert anatomy.layers[1].module == "stem"
    assert [path.name for path in anatomy.paths] == ["skip 0", "bottleneck"]
    assert torch.allclose(anatomy.decode(anatomy.carried(IMAGE), (48, 40)), network(IMAGE), atol=1e-5)


def test_a_norm_after_pooling_over_the_image_keeps_no_twin_from_being_made() -> None:
    twin = untrained_like(Pooled(), 0, [IMAGE])
    assert torch.isfinite(twin(IMAGE)).all()
    assert not any(module.training for module in twin.modules())


class WholeImage(nn.Module):
    """The image itself is joined to the end, as some networks do."""

    def __init__(self) -> None:
        super().__init__()
        self.down, self.head = nn.Conv2d(3, 8, 3, stride=2, padding=1), nn.Conv2d(11, 2, 1)

    def forward(self, image: Tensor) -> Tensor:
        return self.head(torch.cat([image, F.interpolate(self.down(image), scale_factor=2)], 1))


def test_the_image_itself_can_be_a_skip() -> None:
    network = ready(WholeImage())
    anatomy = GraphAnatomy(network, IMAGE.shape)
    assert [path.name for path in anatomy.paths] == ["skip 0", "bottleneck"]
    assert torch.allclose(anatomy.decode(anatomy.carried(IMAGE), (48, 40)), network(IMAGE), atol=1e-5)


def test_features_that_are_no_maps_and_go_around_are_refused_before_anything_is_measured() -> None:
    torch.manual_seed(0)
    with pytest.raises(ModelError, match=r"Tokens carries what is no map of features around its coarsest ones"):
        _ = GraphAnatomy(ready(Tokens()), IMAGE.shape).layers


def test_an_unpadded_network_that_mirrors_its_image() -> None:
    torch.manual_seed(0)
    network = ready(Mirrored(UNet(3, 2, width=2, depth=2, padding="valid")))
    anatomy = GraphAnatomy(network, IMAGE.shape)
    assert len(anatomy.paths) == 3
    assert torch.allclose(anatomy.decode(anatomy.carried(IMAGE), (48, 40)), network(IMAGE), atol=1e-5)


def test_a_network_that_decides_by_values_is_refused() -> None:
    with pytest.raises(ModelError, match=r"ByValue can't be followed .*a module that torch.export takes"):
        _ = GraphAnatomy(ready(ByValue()), IMAGE.shape).layers


def test_one_logit_becomes_two() -> None:
    torch.manual_seed(0)
    network = ready(UNet(3, 1, width=4, depth=2))
    logits = UNetAnatomy(network).read(IMAGE)[0]  # type: ignore[arg-type]
    assert logits.shape[1] == 2
    assert torch.equal(logits[:, 1:], network(IMAGE))
    assert (logits[:, 0] == 0).all()


def test_the_untrained_twin_is_the_same_architecture_with_other_weights() -> None:
    network = unet()
    state = torch.random.get_rng_state()
    twin, again = (untrained_like(network, 5, [IMAGE]) for _ in range(2))
    assert torch.equal(torch.random.get_rng_state(), state)
    assert not torch.equal(twin(IMAGE), network(IMAGE))
    assert torch.equal(twin(IMAGE), again(IMAGE))
    deep = torch.cat([part.flatten(2) for part in (twin(IMAGE), twin(2 * IMAGE))], 2)
    assert torch.isfinite(deep).all()
    first = next(module for module in twin.modules() if isinstance(module, nn.BatchNorm2d))
    assert not torch.equal(first.running_mean, torch.zeros_like(first.running_mean))
    assert not first.training
    foreign = untrained_like(Flat(), 5, [IMAGE])
    assert foreign(IMAGE).shape == (1, 2, 48, 40)


def test_the_untrained_twin_of_a_network_that_is_reset_by_arguments() -> None:
    class Gained(nn.Conv2d):
        def reset_parameters(self, gain: float | None = None) -> None:
            if gain is None and hasattr(self, "known"):
                raise TypeError("gain")
            super().reset_parameters()

    network = nn.Sequential(Gained(3, 4, 3, padding=1), nn.BatchNorm2d(4)).eval()
    network[0].known = True  # type: ignore[assignment]
    twin = untrained_like(network, 0, [IMAGE])
    assert not torch.equal(twin[0].weight, network[0].weight)  # type: ignore[index]
    torch.testing.assert_close(twin[0].weight.sum(), network[0].weight.sum())  # type: ignore[index]


def test_the_untrained_twin_of_an_altered_network_is_altered_too() -> None:
    class Doubled(UNet):
        def encode(self, image: Tensor) -> list[Tensor]:
            return super().encode(2 * image)

    altered = unet()
    altered.head = nn.Conv2d(4, 3, 3, padding=1)
    torch.manual_seed(0)
    for network in (altered, ready(Doubled(3, 3, width=4, depth=3))):
        twin = untrained_like(network, 5, [IMAGE])
        assert type(twin) is type(network)
        assert repr(twin) == repr(network)
        assert not torch.equal(twin(IMAGE), network(IMAGE))


class _ChannelsLast(nn.Module):
    """A skip, and four times smaller a block as ConvNeXt's, with more channels than the map has columns."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.down = nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(8, 96, 4, 4)
        self.norm, self.mix = nn.LayerNorm(96), nn.Linear(96, 96)
        self.up, self.head = nn.ConvTranspose2d(96, 8, 4, 4), nn.Conv2d(16, 3, 1)

    def forward(self, x: Tensor) -> Tensor:
        first = self.first(x).relu()
        deep = self.down(first)
        deep = deep + self.mix(self.norm(deep.permute(0, 2, 3, 1))).relu().permute(0, 3, 1, 2)
        return self.head(torch.cat([first, self.up(deep)], 1))


def test_where_axes_are_a_guess_maps_are_what_is_evenly_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    """Swin has other operators on larger images, and what is found of an operator there is of another one."""
    guess = Grid(axes=(2, 3), size=(6, 8), stride=(Fraction(4), None), origin=(0, 0))
    monkeypatch.setattr(Field, "grid", lambda _self, _layer: guess)
    anatomy = GraphAnatomy(_ChannelsLast().eval(), (1, 3, 24, 32))
    layers = anatomy._program((1, 3, 24, 32)).parts.layers
    told = [(name, node.meta["val"].shape[1]) for name, node in layers.items()]
    assert told == [("encoder.0", 8), ("bottleneck", 96), ("decoder.0", 16)]


class _Windowed(nn.Module):
    """A skip, and two times smaller a layer that gets windows of 4 units one by one, as Swin's attention."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.down = nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(8, 16, 2, 2)
        self.mix, self.up, self.head = nn.Conv2d(16, 16, 1), nn.ConvTranspose2d(16, 8, 2, 2), nn.Conv2d(16, 3, 1)

    def forward(self, x: Tensor) -> Tensor:
        first = self.first(x).relu()
        deep = self.down(first).unflatten(3, (-1, 4)).unflatten(2, (-1, 4)).permute(0, 2, 4, 1, 3, 5)
        mixed = self.mix(deep.flatten(0, 2)).relu().view(deep.shape).permute(0, 3, 1, 4, 2, 5)
        return self.head(torch.cat([first, self.up(mixed.flatten(4, 5).flatten(2, 3))], 1))


def test_windows_that_lie_in_the_batch_are_no_maps() -> None:
    anatomy = GraphAnatomy(_Windowed().eval(), (1, 3, 32, 48))
    told = [(layer.name, layer.stride, layer.channels) for layer in anatomy.layers]
    assert told == [("pixel", 1, 3), ("encoder.0", 1, 8), ("bottleneck", 2, 16), ("decoder.0", 1, 16)]
    assert [(path.name, path.level) for path in anatomy.paths] == [("skip 0", 0), ("bottleneck", 1)]


def test_results_with_channels_last_are_no_maps() -> None:
    """Their columns and channels were held for rows and columns: a stride of 4 was told to be one of 16."""
    anatomy = GraphAnatomy(_ChannelsLast().eval(), (1, 3, 24, 32))
    told = [(layer.name, layer.stride, layer.channels) for layer in anatomy.layers]
    assert told == [("pixel", 1, 3), ("encoder.0", 1, 8), ("bottleneck", 4, 96), ("decoder.0", 1, 16)]
    assert [(path.name, path.level) for path in anatomy.paths] == [("skip 0", 0), ("bottleneck", 2)]
