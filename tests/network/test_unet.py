"""The U-Net: sizes, levels, skips, features, cost, against the paper and against counts by hand."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from whatwhere.network import Mirrored, UNet, build, cost


def unet(depth: int = 2, **options: object) -> UNet:
    torch.manual_seed(0)
    return UNet(options.pop("in_channels", 3), 2, width=4, depth=depth, **options).eval()


@settings(max_examples=40, deadline=None)
@given(
    height=st.integers(1, 70), width=st.integers(1, 70), depth=st.integers(1, 4),
    block=st.sampled_from(("plain", "residual")), up=st.sampled_from(("transpose", "bilinear")),
)  # fmt: skip
def test_any_height_and_width(height: int, width: int, depth: int, block: str, up: str) -> None:
    logits = unet(depth, block=block, up=up)(torch.rand(1, 3, height, width))
    assert logits.shape == (1, 2, height, width)
    assert torch.isfinite(logits).all()


@settings(max_examples=15, deadline=None)
@given(height=st.integers(1, 60), width=st.integers(1, 60))
def test_a_size_that_does_not_divide_is_padded_with_zeros_below_and_right(height: int, width: int) -> None:
    network, image = unet(3), torch.rand(1, 3, height, width)
    canvas = torch.zeros(1, 3, -(-height // 8) * 8, -(-width // 8) * 8)
    canvas[..., :height, :width] = image
    torch.testing.assert_close(network(image), network(canvas)[..., :height, :width], rtol=0, atol=0)


# -- the network of 2015 -----------------------------------------------------------------------------------------------


def paper() -> UNet:
    """Ronneberger et al. 2015, figure 1: one grey channel, 64 features, four poolings, no padding."""
    with torch.device("meta"):
        return UNet(1, 2, width=64, depth=4, padding="valid", max_width=1024)


def test_the_paper_s_572_pixels_give_388() -> None:
    network = paper()
    assert network.output_size(572) == 388
    assert network.eval()(torch.empty(1, 1, 572, 572, device="meta")).shape == (1, 2, 388, 388)


def test_every_level_has_the_paper_s_size() -> None:
    network = paper().eval()
    _, features = network(torch.empty(1, 1, 572, 572, device="meta"), features=network.feature_names)
    sides = {name: tensor.shape[-1] for name, tensor in features.items()}
    assert [sides[f"encoder.{k}"] for k in range(4)] == [568, 280, 136, 64]
    assert sides["bottleneck"] == 28
    assert [sides[f"decoder.{k}"] for k in (3, 2, 1, 0)] == [52, 100, 196, 388]


@pytest.mark.parametrize("size", [571, 570, 574, 200, 100, 10])
def test_a_size_the_unpadded_network_cannot_take_says_which_it_can(size: int) -> None:
    network = paper()
    with pytest.raises(ValueError, match=f"can't take {size} pixels") as raised:
        network.output_size(size)
    suggested = int(str(raised.value).rsplit("try ", 1)[1])
    assert network.output_size(suggested) > 0
    assert suggested >= size
    if size == 571:
        assert suggested == 572


@settings(max_examples=60, deadline=None)
@given(size=st.integers(1, 700), depth=st.integers(1, 4), repeats=st.integers(1, 2))
def test_input_size_is_the_smallest_that_covers(size: int, depth: int, repeats: int) -> None:
    with torch.device("meta"):
        network = UNet(1, 2, width=1, depth=depth, repeats=repeats, padding="valid")
    needed = network.input_size(size)
    assert network.output_size(needed) >= size
    for smaller in range(max(1, needed - 2**depth), needed):
        try:
            assert network.output_size(smaller) < size
        except ValueError:
            continue


@settings(max_examples=20, deadline=None)
@given(height=st.integers(1, 60), width=st.integers(1, 60), depth=st.integers(1, 2), repeats=st.integers(1, 2))
def test_mirrored_keeps_the_size_and_sees_the_mirrored_image(height: int, width: int, depth: int, repeats: int) -> None:
    inner = unet(depth, padding="valid", repeats=repeats)
    image = torch.rand(1, 3, height, width)
    logits = Mirrored(inner)(image)
    assert logits.shape == (1, 2, height, width)

    def index(size: int) -> list[int]:
        total = inner.input_size(size)
        before = (total - inner.output_size(total)) // 2
        there_and_back = [*range(size), *range(size - 2, 0, -1)]
        return [there_and_back[place % len(there_and_back)] for place in range(-before, total - before)]

    reference = inner(image[..., index(height), :][..., index(width)])[..., :height, :width]
    torch.testing.assert_close(logits, reference, rtol=0, atol=0)


def test_a_plan_s_unpadded_network_is_built_mirrored() -> None:
    assert isinstance(build({"padding": "valid", "width": 2, "depth": 1}), Mirrored)
    assert isinstance(build({"padding": "same", "width": 2, "depth": 1}), UNet)


# -- skips and features ------------------------------------------------------------------------------------------------


def test_each_skip_matters_and_passing_is_the_default() -> None:
    network, image = unet(3), torch.rand(1, 3, 32, 32)
    plain = network(image)
    assert torch.equal(plain, network(image, skips=dict.fromkeys(range(4), "pass")))
    for level in range(4):
        assert not torch.equal(plain, network(image, skips={level: "cut"})), level


def test_a_cut_skip_is_one_replaced_by_zeros() -> None:
    network, image = unet(2), torch.rand(1, 3, 16, 16)
    zeros = torch.zeros_like(network.encode(image)[1])
    assert torch.equal(network(image, skips={1: "cut"}), network(image, skips={1: zeros}))


def test_cut_skips_leave_only_the_bottleneck() -> None:
    network = unet(2)
    one, other = torch.rand(2, 1, 3, 16, 16)
    cut = {0: "cut", 1: "cut", 2: "cut"}
    assert torch.equal(network(one, skips=cut), network(other, skips=cut)), "nothing of the image gets through"
    everything_but = network(one, skips={**cut, 2: network.encode(other)[2]})
    assert torch.equal(everything_but, network(other, skips={0: "cut", 1: "cut"}))


def test_a_skip_from_another_image_is_what_that_image_s_skip_carries() -> None:
    network = unet(2)
    one, other = torch.rand(2, 1, 3, 16, 16)
    levels, foreign = network.encode(one), network.encode(other)
    swapped = network.decode([foreign[0], *levels[1:]])
    assert torch.equal(network(one, skips={0: foreign[0]}), swapped)


def test_a_replacement_is_repeated_over_the_batch() -> None:
    network, images = unet(2), torch.rand(3, 3, 16, 16)
    mean = network.encode(images)[0].mean(0, keepdim=True)
    assert network(images, skips={0: mean}).shape == (3, 2, 16, 16)


def test_a_word_that_is_no_skip_is_refused() -> None:
    with pytest.raises(ValueError, match="'pass', 'cut' or a tensor, not 'drop'"):
        unet(1)(torch.rand(1, 3, 8, 8), skips={0: "drop"})


def test_a_skip_level_that_is_not_there_is_refused() -> None:
    with pytest.raises(ValueError, match=r"level 7.*0 to 2"):
        unet(2)(torch.rand(1, 3, 8, 8), skips={7: "cut"})


def test_trained_without_skips_has_none() -> None:
    network, image = unet(2, skips=()), torch.rand(1, 3, 16, 16)
    assert torch.equal(network(image), network(image, skips={0: "cut", 1: "cut"}))
    assert network.config["skips"] == []
    assert cost(network, (3, 16, 16)).parameters < cost(unet(2), (3, 16, 16)).parameters


@pytest.mark.parametrize("options", [{}, {"up": "bilinear"}, {"block": "residual"}, {"skips": (1,)}])
def test_encode_then_decode_is_forward(options: dict[str, object]) -> None:
    network, image = unet(3, **options), torch.rand(2, 3, 24, 40)
    levels = network.encode(image)
    assert [tuple(level.shape) for level in levels] == [(2, 4 * 2**k, 24 >> k, 40 >> k) for k in range(4)]
    assert torch.equal(network.decode(levels), network(image))


def test_features_come_by_name_and_change_nothing() -> None:
    network, image = unet(3), torch.rand(1, 3, 24, 40)
    logits, features = network(image, features=network.feature_names)
    assert torch.equal(logits, network(image))
    assert tuple(features) == network.feature_names
    assert network.feature_names == (
        "encoder.0", "encoder.1", "encoder.2", "bottleneck", "decoder.2", "decoder.1", "decoder.0", "head",
    )  # fmt: skip
    assert torch.equal(features["head"], logits)
    for level, encoded in enumerate(network.encode(image)[:-1]):
        assert torch.equal(features[f"encoder.{level}"], encoded)
        assert features[f"decoder.{level}"].shape == encoded.shape
    modules = dict(network.named_modules())
    assert all(name in modules for name in network.feature_names), "features are called like their modules"


def test_an_unknown_feature_lists_the_known() -> None:
    with pytest.raises(KeyError, match=r"no features named \['middle'\].*bottleneck"):
        unet(1)(torch.rand(1, 3, 8, 8), features=("middle",))


def test_no_features_asked_gives_none() -> None:
    _, features = unet(1)(torch.rand(1, 3, 8, 8), features=())
    assert features == {}


# -- parts -------------------------------------------------------------------------------------------------------------


def convolutions(network: nn.Module) -> int:
    return sum(isinstance(module, nn.Conv2d) and module.kernel_size == (3, 3) for module in network.modules())


def test_repeats_make_a_deeper_encoder_and_leave_the_decoder() -> None:
    once, twice = unet(3), unet(3, repeats=2)
    assert convolutions(twice.encoder) + convolutions(twice.bottleneck) == 2 + 3 * 4
    assert convolutions(once.encoder) + convolutions(once.bottleneck) == 2 + 3 * 2
    assert convolutions(twice.decoder) == convolutions(once.decoder) == 6


def test_residual_blocks_add_their_input() -> None:
    network = unet(1, block="residual")
    block = network.decoder[0][0]
    nn.init.zeros_(block.second[1].weight)
    nn.init.zeros_(block.second[1].bias)
    x = torch.randn(1, 8, 6, 6)
    torch.testing.assert_close(block(x), torch.relu(block.shortcut(x)))


def test_bilinear_has_no_transposed_convolution() -> None:
    network = unet(2, up="bilinear")
    assert not any(isinstance(module, nn.ConvTranspose2d) for module in network.modules())
    up = network.up[0]
    x = torch.randn(1, 8, 5, 7)
    mixed_last = up[0](nn.functional.interpolate(x, scale_factor=2, mode="bilinear", align_corners=False))
    torch.testing.assert_close(up(x), mixed_last, msg="mixing channels and resizing commute")


def test_max_width_limits_the_deep_levels() -> None:
    levels = unet(3, max_width=8).encode(torch.rand(1, 3, 8, 8))
    assert [level.shape[1] for level in levels] == [4, 8, 8, 8]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"in_channels": 0}, "in_channels is 0; it must be at least 1"),
        ({"classes": 0}, "classes is 0"),
        ({"depth": 0}, "depth is 0"),
        ({"repeats": 0}, "repeats is 0"),
        ({"skips": (4,)}, r"skips \[4\]: a network of depth 4 has skips 0 to 3"),
        ({"block": "dense"}, "block is 'dense'; it is 'plain' or 'residual'"),
        ({"up": "nearest"}, "up is 'nearest'; it is 'transpose' or 'bilinear'"),
        ({"padding": "reflect"}, "padding is 'reflect'"),
        ({"padding": "valid", "block": "residual"}, "needs padding='same'"),
    ],
)
def test_impossible_arguments_say_what_is_possible(options: dict[str, object], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        UNet(**options)


# -- cost --------------------------------------------------------------------------------------------------------------


def test_as_many_weights_as_the_paper_s_network() -> None:
    with torch.device("meta"):
        network = UNet(1, 2, width=64, depth=4)
    found = cost(network, (1, 16, 16)).parameters
    norms = sum(p.numel() for m in network.modules() if isinstance(m, nn.BatchNorm2d) for p in m.parameters())
    biases = norms // 2  # the paper's convolutions have a bias where ours have a norm's scale and shift
    assert found - norms + biases == by_hand(64) == 31_030_658


def by_hand(width: int) -> int:
    """Weights and biases of figure 1: 3x3 pairs down, 2x2 up-convolutions, 3x3 pairs up, a 1x1 head."""
    widths = [width * 2**level for level in range(5)]
    total, incoming = 0, 1
    for here in widths:
        total += 9 * incoming * here + here + 9 * here * here + here
        incoming = here
    for here in reversed(widths[:-1]):
        total += 4 * 2 * here * here + here
        total += 9 * 2 * here * here + here + 9 * here * here + here
    return total + 2 * width + 2


def test_multiply_adds_against_a_count_by_hand() -> None:
    width, side = 4, 16
    top, middle = side * side, (side // 2) ** 2
    expected = top * 9 * (3 * width + width * width)  # encoder.0
    expected += middle * 9 * (width * 2 * width + 2 * width * 2 * width)  # bottleneck
    expected += middle * 4 * 2 * width * width  # up: each pixel below makes four
    expected += top * 9 * (2 * width * width + width * width)  # decoder.0
    expected += top * width * 2  # head
    assert cost(UNet(3, 2, width=width, depth=1), (3, side, side)).multiply_adds == expected


def test_counting_leaves_the_network_as_it_was() -> None:
    network = unet(1).train()
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    said = str(cost(network, (3, 64, 64)))
    assert network.training
    assert all(torch.equal(before[name], tensor) for name, tensor in network.state_dict().items())
    assert "M weights" in said
    assert "64x64" in said


def test_a_network_without_numbers_is_built_without_the_compiler() -> None:
    """Whose import takes a second: painting in tiles holds a network against such a one."""
    code = (
        "import sys, torch; from whatwhere.network import UNet\n"
        "with torch.device('meta'): UNet(encoder='efficientnet-lite0')\n"
        "assert 'torch._dynamo' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
