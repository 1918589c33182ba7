"""The model file: a round trip, and every way in which a file can be no model."""

from __future__ import annotations

import json
import os
import pickle
import stat
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import nn
from torch.nn.utils import prune

from whatwhere.errors import ModelError, OutputError
from whatwhere.learn.average import Average
from whatwhere.learn.state import State
from whatwhere.network import Mirrored, Model, UNet, build, load_model, own_config, save_model
from whatwhere.records import Classes, Normalisation

CLASSES = Classes(("ground", "Küche"), ((0, 0, 0), (250, 10, 20)), ((0,), ((1, 2, 3), 255)), void=(7,), nearest=True)


def model(**options: object) -> Model:
    torch.manual_seed(0)
    network = UNet(1, 2, width=2, depth=2, **options).eval()
    return Model(
        Mirrored(network) if options.get("padding") == "valid" else network,
        CLASSES, Normalisation((12.5,), (3.0,), "uint16"), {"seed": 3}, {"mean_iou": 0.5, "lost": float("nan")},
    )  # fmt: skip


def rewritten(path: Path, lacking: str = "", **changes: object) -> Path:
    """The file with other metadata."""
    with safe_open(path, framework="pt") as file:
        record = json.loads(file.metadata()["whatwhere"])
        weights = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    changed = {name: value for name, value in {**record, **changes}.items() if name != lacking}
    save_file(weights, path, metadata={"whatwhere": json.dumps(changed)})
    return path


@pytest.mark.parametrize(
    "options", [{}, {"block": "residual", "skips": (1,)}, {"up": "bilinear"}, {"padding": "valid"}]
)
def test_what_is_saved_is_loaded(options: dict[str, object], tmp_path: Path) -> None:
    saved = model(**options)
    loaded = load_model(save_model(saved, tmp_path / "new folder" / "m.safetensors"))
    image = torch.rand(1, 1, 20, 13)
    assert torch.equal(saved.network(image), loaded.network(image))
    assert not loaded.network.training
    assert (loaded.classes, loaded.normalisation, loaded.plan) == (CLASSES, saved.normalisation, {"seed": 3})
    assert loaded.training == {"mean_iou": 0.5, "lost": None}, "JSON has no NaN"
    assert loaded.versions["torch"] == saved.versions["torch"]


def test_a_run_folder_stands_for_its_model(tmp_path: Path) -> None:
    save_model(model(), tmp_path / "model.safetensors")
    assert load_model(tmp_path).classes == CLASSES


WAYS: dict[str, Callable[[nn.Module], object]] = {
    "pruned": lambda network: prune.l1_unstructured(network.decoder[0][0][0], "weight", 0.5),
    "normed": lambda network: nn.utils.spectral_norm(network.decoder[0][0][0]),
    "normed by a hook": lambda network: nn.utils.weight_norm(network.decoder[0][0][0]),
    "set otherwise": lambda network: setattr(network.up[0][1], "align_corners", True),
}


@pytest.mark.filterwarnings("ignore:.*weight_norm.*:FutureWarning")
@pytest.mark.parametrize("how", WAYS)
def test_a_unet_that_was_altered_is_saved_as_one_made_elsewhere(how: str, tmp_path: Path) -> None:
    saved = model(up="bilinear")
    WAYS[how](saved.network)
    path = save_model(saved, tmp_path / "m.safetensors")
    with pytest.raises(ModelError, match=r"weights of whatwhere.network.unet.UNet.*Segmenter.load\(path, module="):
        load_model(path)
    torch.manual_seed(1)
    again = UNet(1, 2, width=2, depth=2, up="bilinear").eval()
    WAYS[how](again)
    image = torch.rand(1, 1, 20, 13)
    torch.testing.assert_close(load_model(path, again).network(image), saved.network(image))


@pytest.mark.parametrize("padding", ["same", "valid"])
def test_who_only_watches_a_unet_can_load_its_file_without_it(padding: str, tmp_path: Path) -> None:
    """A file holds no hooks, of any network; while they hang there, nobody says what it computes."""
    made = UNet(1, 2, width=2, depth=2, padding=padding).eval()
    network = Mirrored(made) if padding == "valid" else made
    made.head.register_forward_hook(lambda *_: None)
    assert own_config(network) is None
    path = save_model(replace(model(), network=network), tmp_path / "m.safetensors")
    image = torch.rand(1, 1, 20, 13)
    for loaded in (load_model(path), load_model(path, network)):
        assert own_config(loaded.network) == made.config
        assert torch.equal(loaded.network(image), network(image))


def test_a_module_that_keeps_what_it_computed_is_loaded(tmp_path: Path) -> None:
    given = nn.Conv2d(1, 2, 1)
    given.last = given(torch.rand(1, 1, 4, 4))
    path = save_model(replace(model(), network=given), tmp_path / "m.safetensors")
    assert torch.equal(load_model(path, given).network.weight, given.weight)


def test_others_may_read_the_file_as_the_umask_says(tmp_path: Path) -> None:
    before = os.umask(0o027)
    try:
        path = save_model(model(), tmp_path / "m.safetensors")
    finally:
        os.umask(before)
    assert stat.S_IMODE(path.stat().st_mode) == 0o640


def test_there_is_no_such_file(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"there is no file .*m\.safetensors; expected a model file"):
        load_model(tmp_path / "m.safetensors")


def test_a_folder_that_holds_no_model_yet(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"is a folder without model\.safetensors; .*go on with --resume"):
        load_model(tmp_path)


@pytest.mark.parametrize("left", [0, 4, 100, -1])
def test_a_truncated_file(left: int, tmp_path: Path) -> None:
    path = save_model(model(), tmp_path / "m.safetensors")
    path.write_bytes(path.read_bytes()[:left])
    with pytest.raises(ModelError, match=r"m\.safetensors is not a readable model file.*copy it again"):
        load_model(path)


def test_weights_of_another_program(tmp_path: Path) -> None:
    save_file({"weight": torch.zeros(3)}, tmp_path / "foreign.safetensors")
    with pytest.raises(ModelError, match=r"foreign\.safetensors holds weights of another program.*from_module"):
        load_model(tmp_path / "foreign.safetensors")


def test_a_checkpoint_is_ours_and_no_model(tmp_path: Path) -> None:
    network, path = model().network, tmp_path / "checkpoint.safetensors"
    State(network, torch.optim.AdamW(network.parameters()), Average(network, 0.9)).save(path)
    with pytest.raises(ModelError, match=r"checkpoint\.safetensors is a checkpoint.*name its run folder.*--resume"):
        load_model(path)


def test_weights_of_another_network_are_named(tmp_path: Path) -> None:
    path = rewritten(save_model(model(), tmp_path / "m.safetensors"), network={**model().network.config, "width": 3})
    with pytest.raises(ModelError, match=r"does not describe a whole model .*size mismatch for encoder") as told:
        load_model(path)
    assert "\n" not in str(told.value)


def test_a_newer_format_asks_for_a_newer_program(tmp_path: Path) -> None:
    path = rewritten(save_model(model(), tmp_path / "m.safetensors"), format=2)
    with pytest.raises(ModelError, match=r"has format 2; expected at most 1; update whatwhere"):
        load_model(path)


@pytest.mark.parametrize(
    "changes",
    [
        {"network": {"width": 3}}, {"network": {"colour": 1}}, {"network": 5}, {"classes": {}}, {"format": "one"},
        {"normalisation": {"mean": [1], "std": [0], "dtype": "uint8"}}, {"classes": []}, {"plan": 5},
        {"normalisation": {"mean": [1], "std": [1], "dtype": "banana"}}, {"plan": {"split": "x"}},
        {"normalisation": {"mean": [1], "std": [1], "dtype": "U3"}}, {"plan": {"split": {"train": "x"}}},
        {"network": model().network.config | {"width": 30_000}}, {"network": model().network.config | {"depth": 10**7}},
    ],
)  # fmt: skip
def test_metadata_that_does_not_fit(changes: dict[str, object], tmp_path: Path) -> None:
    path = rewritten(save_model(model(), tmp_path / "m.safetensors"), **changes)
    with pytest.raises(ModelError, match=r"m\.safetensors does not describe a whole model"):
        load_model(path)


@pytest.mark.parametrize(
    "shape",
    [{"repeats": 16, "width": 350, "max_width": 350}, {"repeats": 150, "depth": 150, "width": 1, "max_width": 1}],
)
def test_a_small_file_does_not_take_the_memory_of_a_large_network(
    shape: dict[str, int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    honest, held = build, 200 * 1250
    made: list[int] = []

    def watched(config: dict[str, Any]) -> nn.Module:
        network = honest(config)
        made.append(sum(weight.numel() for weight in network.parameters() if not weight.is_meta))
        return network

    monkeypatch.setattr("whatwhere.network.model_file.build", watched)
    config = {"in_channels": 1, "classes": 2, "depth": 1} | shape
    path = rewritten(save_model(model(), tmp_path / "m.safetensors"), network=config)
    with safe_open(path, framework="pt") as file:
        words = file.metadata()
    save_file({f"weight {index}": torch.zeros(1250) for index in range(200)}, path, metadata=words)
    with pytest.raises(ModelError, match=r"m\.safetensors does not describe a whole model"):
        load_model(path)
    assert sum(made) <= held


class _Body(nn.Module):
    """What stands in for a model of timm."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.stage = nn.Conv2d(channels, 8, 3, 2, 1)
        self.feature_info = SimpleNamespace(channels=lambda: [8])

    def forward(self, x: torch.Tensor) -> list[torch.Tensor]:
        return [self.stage(x)]


@pytest.mark.parametrize("hollow", [True, False])
def test_a_model_of_timm_is_loaded_though_it_cannot_be_made_without_numbers(
    hollow: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def body(_name: str, channels: int, _depth: int) -> nn.Module:
        if torch.empty(1).is_meta and not hollow:
            raise ModelError("Tensor.item() cannot be called on meta tensors")
        return _Body(channels)

    monkeypatch.setattr("whatwhere.network.encoders._timm_body", body)
    saved = Model(UNet(1, 2, width=2, depth=1, encoder="timm:some").eval(), CLASSES, Normalisation((12.5,), (3.0,)))
    loaded = load_model(save_model(saved, tmp_path / "m.safetensors"))
    image = torch.rand(1, 1, 20, 14)
    assert torch.equal(saved.network(image), loaded.network(image))


@pytest.mark.parametrize("lacking", ["plan", "training", "versions", "network", "format"])
def test_metadata_that_lacks_something(lacking: str, tmp_path: Path) -> None:
    path = rewritten(save_model(model(), tmp_path / "m.safetensors"), lacking=lacking)
    with pytest.raises(ModelError, match=r"m\.safetensors does not describe a whole model"):
        load_model(path)


class _Trap:
    """Leaves a mark when it is unpickled."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.mkdir, (str(self.mark),)


@pytest.mark.parametrize("how", ["pickle", "torch"])
def test_a_pickle_is_refused_and_never_run(how: str, tmp_path: Path) -> None:
    path, mark = tmp_path / "weights.safetensors", tmp_path / "executed"
    if how == "pickle":
        path.write_bytes(pickle.dumps(_Trap(mark)))
    else:
        torch.save({"weights": _Trap(mark)}, path)
    with pytest.raises(ModelError, match=r"is not a readable model file"):
        load_model(path)
    assert not mark.exists()


def test_nothing_half_written_when_there_is_no_room(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("not a folder")
    with pytest.raises(OutputError, match=r"file/m\.safetensors can't be written"):
        save_model(model(), tmp_path / "file" / "m.safetensors")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file"]


def test_a_failed_write_leaves_the_older_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = save_model(model(), tmp_path / "m.safetensors")
    before = path.read_bytes()

    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("whatwhere.network.model_file.save_file", full)
    with pytest.raises(OutputError, match=r"can't be written \(No space left on device\); expected a writable place"):
        save_model(model(), path)
    assert path.read_bytes() == before
    assert [item.name for item in tmp_path.iterdir()] == ["m.safetensors"]


# -- images that fit or do not -----------------------------------------------------------------------------------------


def test_normalise_uses_the_data_set_s_constants() -> None:
    raw = np.array([[0, 12], [25, 65535]], np.uint16)
    expected = (raw.astype(np.float64) - 12.5) / 3.0
    found = model().normalise(raw)
    assert found.shape == (1, 2, 2)
    assert found.dtype == torch.float32
    np.testing.assert_allclose(found[0].numpy(), expected, rtol=1e-6)


@pytest.mark.parametrize(
    ("image", "words"),
    [
        (np.zeros((4, 4, 3), np.uint16), r"a\.tif has 3 channels; expected 1 channel, as the images"),
        (np.zeros((4, 4), np.float32), r"a\.tif holds float32 values from 0 to 0; expected uint16 values"),
        (np.zeros((4,), np.uint16), r"shape \(4,\); expected HxW or HxWxC"),
        (np.zeros((0, 4), np.uint16), r"shape \(0, 4\); expected HxW or HxWxC with at least one pixel"),
        (np.full((4, 4), 70000, np.int64), r"holds int64 values from 70000"),
    ],
)
def test_an_image_of_other_channels_or_units_is_refused(image: np.ndarray, words: str) -> None:
    with pytest.raises(ModelError, match=words):
        model().normalise(image, "a.tif")


def test_a_wider_integer_within_the_range_is_the_same_units() -> None:
    raw = np.array([[0, 65535]])
    assert torch.equal(model().normalise(raw), model().normalise(raw.astype(np.uint16)))
