"""int8: made, checked and kept only where it paints as well; used only for the weights it was checked with."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from tiny import Cli, write_discs
from whatwhere import chosen, verbs
from whatwhere.data.sets import untold
from whatwhere.errors import DataError, ModelError, OutputError, PlanError
from whatwhere.network import Model, UNet, load_model, save_model
from whatwhere.paint import Engine, paint, prove
from whatwhere.paint.backends import EAGER, INT8, Backend
from whatwhere.paint.kept import LIMIT, Checked, Int8, int8_files, kept_int8
from whatwhere.paint.prove import tiled_logits
from whatwhere.paint.quantise import quantise
from whatwhere.paint.sources import ArraySource
from whatwhere.paint.tiles import Tiling

pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The user's cache folder is an empty one."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def hurt(path: Path) -> None:
    """The same function of the image, by numbers that 8 bits can't hold: one channel of the last level is huge.

    ReLU lets a positive factor through, and the next convolution takes it back: float does not mind.
    """
    model = load_model(path)
    assert isinstance(model.network, UNet)
    last = list(model.network.decoder[0].modules())
    norm = next(module for module in last if isinstance(module, torch.nn.BatchNorm2d))
    conv = [module for module in last if isinstance(module, torch.nn.Conv2d)][-1]
    assert conv.in_channels == norm.num_features
    with torch.no_grad():
        norm.weight[0] *= 2.0**13
        norm.bias[0] *= 2.0**13
        conv.weight[:, 0] /= 2.0**13
    save_model(model, path)


@pytest.fixture(scope="module")
def quantised(disc_run: Path, discs: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Int8]:
    """A run folder with a kept int8 file, and what was said of it; only to be read."""
    run = tmp_path_factory.mktemp("int8") / "run"
    path = save_model(load_model(disc_run), run / "model.safetensors")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(run / "cache"))
        patch.setattr("whatwhere.paint.kept.LIMIT", 0.05)  # on 3 tiny images it moves by more, processor by processor
        return path, verbs.quantise(run, discs)


@pytest.fixture
def copied(quantised: tuple[Path, Int8], tmp_path: Path) -> Path:
    """The model file, with its int8 files, in a folder of the test's own: both ways painted as well as the model."""
    for path in (quantised[0], *int8_files(quantised[0])):
        (tmp_path / path.name).write_bytes(path.read_bytes())
    copy = tmp_path / quantised[0].name
    said = int8_files(copy)[1]
    record = json.loads(said.read_text())
    for way in record["ways"]:
        way["mean_iou"] = record["before"]["mean_iou"]
    said.write_text(json.dumps(record))
    return copy


def ways(record: Int8) -> list[str]:
    return [way.how for way in record.ways]


# --- made and kept ---


def test_the_place_is_tried_before_the_work(
    disc_run: Path, discs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("whatwhere.paint.quantise.Engine", pytest.fail)
    path = save_model(load_model(disc_run), tmp_path / "model.safetensors")
    int8_files(path)[0].mkdir()
    with pytest.raises(OutputError, match=r"model\.int8\.onnx can't be written"):
        verbs.quantise(path, discs)


def test_what_paints_as_well_is_kept_with_what_was_measured(
    quantised: tuple[Path, Int8], discs: Path, disc_model: Model
) -> None:
    path, record = quantised
    network, said = int8_files(path)
    assert network.is_file()
    assert record.path == network
    assert (record.images, record.pixels) == (3, 3 * 40 * 40)
    assert "int8-onnx" in ways(record)
    read = Int8.from_json(json.loads(said.read_text()))
    assert read == replace(record, path=None)
    assert set(read.versions) >= {"torch", "onnx", "onnxruntime"}
    assert "kept:" in str(record)
    assert [p.name for p in path.parent.iterdir() if p.name.startswith(".")] == []
    # the mean IoU that it recorded is the judge's own of what the network paints
    assert record.before.mean_iou == pytest.approx(verbs.evaluate(disc_model, discs, split="val").mean_iou, abs=0.01)


def test_the_weights_are_eight_bits(quantised: tuple[Path, Int8]) -> None:
    import onnx

    graph = onnx.load(int8_files(quantised[0])[0]).graph
    convolutions = [node for node in graph.node if node.op_type in ("Conv", "ConvTranspose")]
    made_of = {name: node.op_type for node in graph.node for name in node.output}
    quantised_ones = [node for node in convolutions if made_of.get(node.input[1]) == "DequantizeLinear"]
    assert len(convolutions) - len(quantised_ones) == 2  # the first and the last
    scales = [next(n for n in graph.node if n.input and node.input[1] in n.output) for node in quantised_ones]
    shapes = {tensor.name: tuple(tensor.dims) for tensor in graph.initializer}
    assert all(shapes[scale.input[1]] for scale in scales)  # one a channel


def test_nothing_that_can_run_it(copied: Path, discs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(_path: Path, _content: str) -> tuple[Backend, ...]:
        def prepare(_job: object) -> None:
            raise RuntimeError("no such instruction")

        return (Backend("int8-onnx", prepare, lambda _d: ""), Backend("int8-openvino", prepare, lambda _d: "a library"))  # type: ignore[arg-type]

    monkeypatch.setattr("whatwhere.paint.quantise.provisional", broken)
    record = verbs.quantise(copied, discs)
    assert record.path is None
    assert "no such instruction" in str(record)
    assert "int8-openvino is not checked: a library is not installed" in str(record)
    assert "nothing that is installed can run it" in str(record)


def test_crops_come_from_all_training_images_and_all_sizes(
    copied: Path, discs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[str] = []
    model = load_model(copied)
    train, val = (chosen.truth_of(model, discs, split) for split in ("train", "val"))
    given: list[tuple[int, ...]] = []
    monkeypatch.setattr("whatwhere.paint.quantise._SIDE", 24)
    monkeypatch.setattr("whatwhere.paint.quantise._quantise", lambda _job, crops, out: (
        given.extend(crop.shape for crop in crops), out.write_bytes(b"")))  # fmt: skip
    monkeypatch.setattr(Model, "normalise", _noting(seen, Model.normalise))
    record = quantise(model, train, val)
    assert not record.ways  # an empty file runs nowhere
    assert len(given) == 32
    assert set(given) == {(1, 3, 24, 24)}
    assert set(train.names) <= set(seen)


def _noting(seen: list[str], normalise: Callable[..., torch.Tensor]) -> Callable[..., torch.Tensor]:
    def noted(self: Model, image: np.ndarray, name: str = "", out: torch.Tensor | None = None) -> torch.Tensor:
        seen.append(name)
        return normalise(self, image, name, out)

    return noted


# --- used ---


@pytest.mark.parametrize("name", INT8)
def test_it_paints_the_same_labels_and_tiles_are_exact(copied: Path, name: str) -> None:
    if name == "int8-openvino":
        pytest.importorskip("openvino")
    model = load_model(copied)
    image = np.concatenate([_disc_row(seed) for seed in range(4)])
    usual = paint(Engine(model, "float32", backend="eager"), image)
    engine = Engine(model, backend=name)
    whole = paint(engine, image)
    assert (whole.report.backend, whole.report.precision) == (name, "int8")
    assert "(kept, because mean IoU " in str(whole.report)
    assert "on 3 validation images) on cpu" in str(whole.report)
    assert (whole.labels == usual.labels).mean() > 0.98
    proof = prove(engine, image, tile=80)
    assert proof.passed, proof
    assert (proof.backend, proof.precision) == (name, "int8")
    assert proof.changed <= 0.0005 * image[..., 0].size  # rounding of what stays float may move a number by a step
    source, size = ArraySource(image), (160, 160)
    whole_image = tiled_logits(engine, source, Tiling(size, size, period=engine.geometry.period))
    short = tiled_logits(engine, source, Tiling(size, (80, 80), ((4, 4), (4, 4)), engine.geometry.period))
    assert not torch.equal(short, whole_image)  # the proof would have seen a halo that is too small


def _disc_row(seed: int) -> np.ndarray:
    from tiny import disc_picture

    return np.concatenate([disc_picture(10 * seed + column)[0] for column in range(4)], axis=1)


def test_it_is_among_the_choices_only_where_nothing_else_was_asked_for(copied: Path) -> None:
    model = load_model(copied)

    def names(engine: Engine) -> list[str]:
        return [backend.name for backend in engine._candidates if backend.name in INT8]

    assert names(Engine(model))
    assert not names(Engine(model, "float32"))
    assert not names(Engine(model, "bfloat16"))
    assert not names(Engine(replace(model, source=None)))
    assert not names(Engine(model, backend="eager"))
    with pytest.raises(PlanError, match=r"'int8' and precision is 'float32'"):
        Engine(model, "float32", backend="int8")


@pytest.mark.parametrize("fastest", [*INT8, "eager"])
def test_a_large_job_takes_it_if_it_is_the_fastest(copied: Path, fastest: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("whatwhere.paint.candidates.BACKENDS", (EAGER,))
    monkeypatch.setattr("whatwhere.paint.choice._paces", lambda runs, *_: {n: 1e-6 + (n != fastest) for n in runs})
    engine = Engine(load_model(copied), images=10**6)
    if fastest not in (*(backend.name for backend in engine._candidates), "eager"):
        pytest.skip(f"{fastest} is not installed")
    assert paint(engine, _disc_row(1)).report.backend == fastest


@pytest.mark.parametrize("earlier", [False, True])
def test_pixels_on_which_it_paints_something_else_are_painted_without(copied: Path, earlier: bool) -> None:
    if earlier:  # a run whose pixels were as usual
        assert paint(load_model(copied), _disc_row(1), backend="int8").report.precision == "int8"
    _, path = int8_files(copied)
    record = json.loads(path.read_text())
    for way in record["ways"]:
        way["least"] = 1.01  # as if labels had to agree on more than all pixels
    path.write_text(json.dumps(record))
    painting = paint(load_model(copied), _disc_row(1), backend="int8")
    assert painting.report.backend == "eager"
    assert "of labels differ from float32's" in " ".join(painting.report.notes)


def test_one_way_that_lost_too_much_is_left_out(copied: Path) -> None:
    _, path = int8_files(copied)
    record = json.loads(path.read_text())
    way = next(way for way in record["ways"] if way["how"] == "int8-onnx")
    way["mean_iou"] = record["before"]["mean_iou"] - LIMIT
    path.write_text(json.dumps(record))
    backends, _ = kept_int8(load_model(copied), lambda: record["weights"])
    assert "int8-onnx" not in [backend.name for backend in backends]
    with pytest.raises(PlanError, match="int8-onnx"):
        Engine(load_model(copied), backend="int8-onnx")


# --- what can't be used makes one line, or one error where it was asked for ---


def _other_weights(path: Path) -> None:
    model = load_model(path)
    with torch.no_grad():
        next(model.network.parameters()).add_(1e-3)
    save_model(model, path)


def _cut(path: Path) -> None:
    network, _ = int8_files(path)
    network.write_bytes(network.read_bytes()[:1000])


def _empty_record(path: Path) -> None:
    int8_files(path)[1].write_text("{}")


def _not_json(path: Path) -> None:
    int8_files(path)[1].write_bytes(b"\xff\x00")


def _no_network(path: Path) -> None:
    int8_files(path)[0].unlink()


SPOILT: dict[str, tuple[Callable[[Path], None], str]] = {
    "other weights": (_other_weights, "of other weights"),
    "cut off": (_cut, "not the file that was checked"),
    "an empty record": (_empty_record, "can't be read"),
    "no record": (_not_json, "can't be read"),
    "no network": (_no_network, "can't be read"),
}


@pytest.mark.parametrize("how", SPOILT)
def test_what_can_not_be_trusted_is_not_used_and_one_line_says_so(how: str, copied: Path) -> None:
    spoil, words = SPOILT[how]
    spoil(copied)
    model = load_model(copied)
    engine = Engine(model)
    assert not [backend for backend in engine._candidates if backend.name in INT8]
    assert len(engine.notes) == 1
    assert engine.notes[0].startswith("int8 is not used: ")
    assert words in engine.notes[0]
    assert "whatwhere quantise" in engine.notes[0]
    with pytest.raises(PlanError, match=words):
        Engine(model, backend="int8")


def test_a_file_that_changes_after_it_was_looked_at(copied: Path) -> None:
    engine = Engine(load_model(copied), backend="int8")
    _cut(copied)
    painting = paint(engine, _disc_row(1))
    assert painting.report.backend == "eager"
    assert sum("not the file that was checked" in note for note in painting.report.notes) == 1


def test_without_what_it_was_checked_with(copied: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("whatwhere.paint.backends.backend.find_spec", lambda _module: None)
    engine = Engine(load_model(copied))
    assert len(engine.notes) == 1
    assert "not installed here" in engine.notes[0]
    assert "whatwhere[onnx]" in engine.notes[0]


def test_a_model_in_memory_has_no_place_for_it(disc_model: Model, discs: Path) -> None:
    memory = replace(disc_model, source=None)
    with pytest.raises(ModelError, match="a model in memory"):
        verbs.quantise(memory, discs)
    with pytest.raises(PlanError, match="whatwhere quantise MODEL DATA"):
        Engine(memory, backend="int8")


def test_masks_without_a_labelled_pixel_say_nothing_and_take_nothing_away(copied: Path, discs: Path) -> None:
    model = load_model(copied)
    train, val = (chosen.truth_of(model, discs, split) for split in ("train", "val"))
    void = untold(val.paths)
    with pytest.raises(DataError, match="3 images without one labelled pixel"):
        quantise(model, train, void)
    assert all(path.exists() for path in int8_files(copied))


def test_a_network_that_the_quantiser_can_not_follow(disc_model: Model, discs: Path, tmp_path: Path) -> None:
    class Odd(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return torch.special.bessel_j0(x[:, :2])

    model = replace(disc_model, network=Odd().eval(), source=tmp_path / "odd.safetensors")
    sets = [chosen.truth_of(disc_model, discs, split) for split in ("train", "val")]
    with pytest.raises(ModelError, match="can't be quantised"):
        quantise(model, *sets)


def test_a_record_prints_what_was_measured() -> None:
    before = Checked("bfloat16 by eager", 0.8, {"cat": 0.8}, 1.0, 1.0, 2e-6)
    way = Checked("int8-onnx", 0.7993, {"cat": 0.7993}, 0.99, 0.98, 1e-6)
    record = Int8("w", "c", 2**20, 32, 101, 10**6, before, (way,), (), {})
    assert record.why(way) == "kept, because mean IoU fell by 0.0007 on 101 validation images"
    assert "int8-onnx: mean IoU 0.7993 (cat 0.7993); 99.00% of labels as before; 2.00 times as fast" in str(record)
    nothing = replace(record, ways=(replace(way, mean_iou=float("nan")),))
    assert not nothing.good


# --- the command ---


def test_what_paints_worse_is_not_kept_and_what_was_kept_goes(copied: Path, discs: Path, run_cli: Cli) -> None:
    Image.fromarray(_disc_row(1)).save("a.png")
    done = run_cli("predict", copied, "a.png", "-o", "out", "--backend", "int8")
    assert done.code == 0, done.err
    assert "int8 (kept, because mean IoU " in done.out
    before = load_model(copied).network(torch.ones(1, 3, 32, 32))
    hurt(copied)
    torch.testing.assert_close(load_model(copied).network(torch.ones(1, 3, 32, 32)), before)
    done = run_cli("quantise", copied, discs, "--json", "said.json")
    assert done.code == 0, done.err
    assert re.search(
        r"^not kept: mean IoU fell by 0\.\d+ on 3 validation images; less than 0.003 is asked$", done.out, re.M
    )
    said = Int8.from_json(json.loads(Path("said.json").read_text()))
    assert min(map(said.fall, said.ways)) >= LIMIT
    assert not any(path.exists() for path in int8_files(copied))
    done = run_cli("predict", copied, "a.png", "-o", "other", "--backend", "int8")
    assert (done.code, done.err.count("\n")) == (2, 1)
    assert "whatwhere quantise" in done.err


def test_bad_input_is_one_line(
    disc_run: Path, discs: Path, tmp_path: Path, run_cli: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    only_training = write_discs(tmp_path / "only", train=2, val=0)
    missing: dict[tuple[object, ...], str] = {
        (disc_run, only_training): "no images with masks in split 'val'",
        (disc_run, tmp_path / "nowhere"): "nowhere",
        (tmp_path / "nowhere", discs): "nowhere",
        (disc_run, discs, "--split", "train"): "the images it was trained on",
    }
    for arguments, words in missing.items():
        done = run_cli("quantise", *arguments)
        assert (done.code, done.err.count("\n")) == (2, 1), done.err
        assert words in done.err
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    done = run_cli("quantise", disc_run, discs)
    assert (done.code, done.err.count("\n")) == (2, 1), done.err
    assert 'pip install "whatwhere[onnx]"' in done.err
    assert not any(path.exists() for path in int8_files(disc_run / "model.safetensors"))
