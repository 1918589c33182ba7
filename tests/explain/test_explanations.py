from __future__ import annotations

import base64
import io
import json
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from explain_toys import CLASSES, NORMALISATION, SIDE, as_set, fresh, toys, train
from PIL import Image
from torch import nn

from whatwhere.data.sets import ImageSet, from_arrays
from whatwhere.errors import DataError, ModelError, OutputError
from whatwhere.explain import Explanation, explain, words, write_report
from whatwhere.explain.cases import LARGEST, choose_cases
from whatwhere.explain.presence import Presence
from whatwhere.explain.report import _fields
from whatwhere.network import Model, UNet
from whatwhere.records import VOID


def test_every_layer_is_measured_and_every_value_says_how(explanation: Explanation) -> None:
    assert explanation.levels is not None
    names = ["pixel", "encoder.0", "encoder.1", "bottleneck", "decoder.1", "decoder.0"]
    assert [one.layer.name for one in explanation.levels.readings] == names
    for one in explanation.levels.readings:
        for key in ("what", "where", "side", "shuffled", "equal_what", "equal_where"):
            value = getattr(one, key)
            assert value.low <= value.value <= value.high
            assert value.images >= 7, "one whose held-out part holds a class that the rest does not is left out"
            assert value.seed == 0
            assert "-fold over" in value.method
        assert (one.untrained_what is None) == (one.layer.name == "pixel")
        assert one.shuffled.value < 0.6
    assert explanation.levels["decoder.0"].what.value > 0.9
    assert explanation.levels.answer_what.value > 0.9
    with pytest.raises(KeyError, match=r"decoder.7.*there are pixel, encoder.0"):
        explanation.levels["decoder.7"]


def test_the_trained_network_knows_more_than_its_untrained_twin(explanation: Explanation) -> None:
    assert explanation.levels is not None
    last = explanation.levels["decoder.0"]
    assert last.where.value > last.untrained_where.value


def test_the_same_seed_gives_the_same_measurements(
    healthy: Model, held_out: ImageSet, explanation: Explanation
) -> None:
    state = {name: tensor.clone() for name, tensor in healthy.network.state_dict().items()}
    again = explain(healthy, held_out).to_json()
    first = explanation.to_json()
    assert {**again, "seconds": 0} == {**first, "seconds": 0}
    assert all(torch.equal(state[name], tensor) for name, tensor in healthy.network.state_dict().items())


def test_the_report_needs_nothing_but_itself(explanation: Explanation, tmp_path: Path) -> None:
    page = write_report(explanation, tmp_path / "report")
    text = page.read_text(encoding="utf-8")
    for question in (
        "What is context, and what is a low-level feature?",
        "How far does each layer see?",
        "What would be lost without this skip?",
        "Where does the answer for this pixel come from?",
        "What if it only had to say yes or no?",
    ):
        assert f"<h2>{question}</h2>" in text
    assert not re.search(r'(src|href)="(?!data:|#)', text)
    assert "url(http" not in text
    assert "@import" not in text
    assert "prefers-color-scheme: dark" in text
    assert "@media print" in text
    assert sorted(path.name for path in page.parent.iterdir()) == ["index.html", "measurements.json"]
    record = json.loads((page.parent / "measurements.json").read_text())
    assert record["levels"]["readings"][1]["what"]["images"] == 8
    assert record["skips"]["worth"]["mean IoU"][0]["shapley"]["method"].startswith("Shapley value")


def test_what_a_chart_shows_can_be_read_in_a_table(explanation: Explanation, tmp_path: Path) -> None:
    assert explanation.levels is not None
    asked = Presence("quarter", (1,), {one.layer.name: one.what for one in explanation.levels.readings}, 8)
    text = write_report(replace(explanation, presence=asked), tmp_path).read_text(encoding="utf-8")
    for section, row in (
        ("sight", f"<td>output</td><td>{explanation.sights['output'].theoretical}</td>"),
        ("presence", f"<td>bottleneck</td><td>{explanation.levels['bottleneck'].what}</td>"),
    ):
        inside = text.partition(f'<section id="{section}">')[2].partition("</section>")[0]
        assert inside.count('role="img"') == inside.count("<table>") == 1, section
        assert row in inside


def test_fields_of_tiny_images_are_drawn_whole(explanation: Explanation) -> None:
    influence = np.zeros((11, 11))  # of images of 6 px
    influence[5, 5] = 1.0
    tiny = replace(explanation.sights, maps=dict.fromkeys(explanation.sights.maps, influence))
    frameless = tuple(replace(one, theoretical=None) for one in tiny.sights)
    for field in _fields(replace(explanation, sights=replace(tiny, sights=frameless))):
        png = base64.b64decode(field["picture"].partition(",")[2])
        red = np.asarray(Image.open(io.BytesIO(png)))[..., 0]
        assert red[160, 160] > 200, "the unit is in the middle of its picture"
        assert red[40, 40] < 10


def test_images_of_the_sight_chart_are_counted_where_the_output_is_dead(
    explanation: Explanation, tmp_path: Path
) -> None:
    *layers, out = explanation.sights.sights
    dead = replace(out, half=replace(out.half, value=None, low=None, high=None, images=0))
    write_report(replace(explanation, sights=replace(explanation.sights, sights=(*layers, dead))), tmp_path)
    assert "absolute gradient, from 8 images with one unit each" in (tmp_path / "index.html").read_text("utf-8")


def test_a_place_that_cannot_be_written_to(explanation: Explanation, tmp_path: Path) -> None:
    (tmp_path / "taken").write_text("a file")
    with pytest.raises(OutputError, match=r"index.html can't be written"):
        write_report(explanation, tmp_path / "taken")


def test_progress_is_told_and_ends(healthy: Model) -> None:
    told: list[tuple[str, float]] = []
    explain(healthy, as_set(toys(2, start=90)), progress=lambda what, share: told.append((what, share)))
    shares = [share for _, share in told]
    assert shares == sorted(shares)
    assert shares[-1] == 1.0
    assert "cutting every skip" in dict(told)


def test_the_pixel_asked_for(healthy: Model, held_out: ImageSet) -> None:
    story = explain(healthy, held_out, images=2, pixel=("toy-5", 30, 12)).pixel
    assert (story.image, story.x, story.y) == ("toy-5", 30, 12)
    assert story.truth == held_out.store[5][1][12, 30]


def large() -> tuple[np.ndarray, np.ndarray]:
    """An image that is cut, with labels in its right lower corner alone: two squares that void keeps apart."""
    image, sparse = np.tile(toys(1, start=7)[0][0], (14, 14, 1)), np.full((14 * SIDE, 14 * SIDE), VOID, np.uint8)
    sparse[620:640, 600:620], sparse[620:640, 640:660] = 0, 1
    return image, sparse


def test_large_images_are_cut_around_the_pixel(healthy: Model) -> None:
    image, labels = toys(1, start=7)[0]
    big = np.tile(image, (12, 12, 1)), np.tile(labels, (12, 12))
    (case,), asked, notes = choose_cases(healthy, as_set([big]), 1, seed=0, device="cpu", pixel=("toy-0", 570, 3))
    assert asked is case
    assert case.size == (LARGEST, LARGEST)
    assert case.corner == (0, 12 * SIDE - LARGEST)
    assert notes == [
        "Of images larger than 512 px a square of that side was taken, around the pixel that was asked for."
    ]


def test_large_images_without_edges_are_cut_around_a_pixel_that_counts(healthy: Model) -> None:
    image, sparse = large()
    edge = sparse.copy()
    edge[620:640, 620:640] = 2
    pairs = [(image, edge), (image, sparse)]
    cases, _, notes = choose_cases(healthy, as_set(pairs), 2, seed=0, device="cpu")
    assert all((case.truth != VOID).any() for case in cases)
    assert notes == [
        "Of images larger than 512 px a square of that side was taken, around a label edge or a labelled pixel."
    ]
    (case,), _, notes = choose_cases(healthy, as_set([(image, np.full_like(sparse, VOID))]), 1, seed=0, device="cpu")
    assert case.corner == (7 * SIDE - LARGEST // 2,) * 2
    assert notes == ["Of images larger than 512 px a square of that side was taken, around its middle."]


@pytest.mark.slow
def test_a_pixel_that_no_label_lies_near_is_explained_without_a_mask(healthy: Model, tmp_path: Path) -> None:
    said = explain(healthy, as_set([large()]), pixel=("toy-0", 20, 30), out=tmp_path)
    assert not said.truth
    assert (said.pixel.x, said.pixel.y, said.pixel.truth) == (20, 30, said.pixel.prediction)
    assert (
        "Around the pixel that was asked for nothing is labelled: its image counts as one without a mask." in said.notes
    )
    assert "rightly" not in " ".join(words.pixel(said))


def test_a_report_of_skips_that_nothing_could_be_scored_for(explanation: Explanation, tmp_path: Path) -> None:
    text = write_report(replace(explanation, skips=replace(explanation.skips, worth={})), tmp_path).read_text("utf-8")
    assert "interior accuracy could not be measured" in text
    assert "what every path brings" not in text


# ---- bad input, and what can still be said


def test_a_pixel_outside_the_image(healthy: Model, held_out: ImageSet) -> None:
    with pytest.raises(DataError, match=r"pixel x=48, y=0 of toy-1; expected x from 0 to 47 and y from 0 to 47"):
        explain(healthy, held_out, pixel=("toy-1", 48, 0))
    with pytest.raises(DataError, match=r"no image is named 'tom'; expected one of toy-0"):
        explain(healthy, held_out, pixel=("tom", 0, 0))


def test_data_of_other_classes(healthy: Model) -> None:
    image, labels = toys(1)[0]
    with pytest.raises(DataError, match=r"toy-0 holds the class ids 7; expected 0 to 2: the model knows 3 classes"):
        explain(healthy, as_set([(image, np.full_like(labels, 7))]))


def test_data_of_other_channels(healthy: Model) -> None:
    image, labels = toys(1)[0]
    with pytest.raises(ModelError, match=r"toy-0 has 1 channel; expected 3 channels"):
        explain(healthy, as_set([(image[..., :1], labels)]))


def test_a_network_of_other_classes(held_out: ImageSet) -> None:
    model = Model(UNet(3, 5, width=4, depth=1).eval(), CLASSES, NORMALISATION)
    with pytest.raises(DataError, match=r"logits of shape \(1, 5, 48, 48\); expected \(1, 3, 48, 48\)"):
        explain(model, held_out)


def test_a_network_that_answers_nan(held_out: ImageSet) -> None:
    model = Model(UNet(3, 3, width=4, depth=1).eval(), CLASSES, NORMALISATION)
    with torch.no_grad():
        model.network.head.bias.fill_(float("nan"))  # type: ignore[union-attr]
    with pytest.raises(DataError, match="NaN or infinity"):
        explain(model, held_out)


class OwnScale(nn.Module):
    """Divides by the spread of each image, as some networks do with what they are given."""

    def __init__(self) -> None:
        super().__init__()
        self.down, self.head = nn.Conv2d(3, 4, 3, 2, 1), nn.Conv2d(4, 3, 1)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        image = image / image.std((2, 3), keepdim=True)
        return nn.functional.interpolate(self.head(self.down(image).relu()), scale_factor=2.0)


def test_an_image_that_a_network_answers_with_nan_is_named() -> None:
    blank, *others = toys(3)
    pairs = [*others, (np.full_like(blank[0], 100), blank[1])]
    with pytest.raises(DataError, match=r"toy-2 with NaN or infinity.*leave the image out"):
        explain(Model(OwnScale().eval(), CLASSES, NORMALISATION), as_set(pairs))


def test_no_images(healthy: Model) -> None:
    with pytest.raises(DataError, match="0 images to explain with"):
        explain(healthy, from_arrays([], [], []))


def test_without_masks_the_network_is_held_against_itself(healthy: Model, tmp_path: Path) -> None:
    blank = [(image, np.full_like(labels, VOID)) for image, labels in toys(3, start=1000)]
    said = explain(healthy, as_set(blank), out=tmp_path)
    assert not said.truth
    assert said.levels is not None
    assert said.levels.answer_what.value == 1.0
    assert said.skips.full["mean IoU"].value == pytest.approx(1.0, abs=0.02)
    assert "There are no masks" in said.notes[0]
    text = (tmp_path / "index.html").read_text()
    assert "the network&#39;s own painting" in text


def test_images_without_masks_are_left_out_where_others_have_one(healthy: Model) -> None:
    pairs = toys(3, start=1000)
    pairs[1] = (pairs[1][0], np.full_like(pairs[1][1], VOID))
    said = explain(healthy, as_set(pairs))
    assert said.images == ("toy-0", "toy-2")
    assert "1 of 3 images have no mask" in said.notes[0]


def test_one_image_gives_no_intervals(healthy: Model, tmp_path: Path) -> None:
    said = explain(healthy, as_set(toys(1, start=1000)), out=tmp_path)
    assert said.levels is not None
    assert all(one.what.low is None for one in said.levels.readings)
    assert any("One image only: there are no intervals" in note for note in said.notes)
    assert ", 1 image, " in str(said)


def test_a_network_without_skips(tmp_path: Path) -> None:
    said = explain(train(fresh(skips=()), toys(12), steps=30), as_set(toys(3, start=1000)), out=tmp_path)
    assert [path.name for path in said.skips.paths] == ["bottleneck"]
    assert any("no skips" in note for note in said.notes)
    assert "This network has no skips" in (tmp_path / "index.html").read_text()


def test_where_nothing_was_probed_no_probe_is_said_to_be_scored(healthy: Model) -> None:
    flat = [(image, np.zeros_like(labels)) for image, labels in toys(1, start=1000)]
    said = explain(healthy, as_set(flat))
    assert said.levels is None
    assert any(note.endswith("says nothing about how images differ.") for note in said.notes)
    assert "were scored on" not in " ".join(said.notes)


@pytest.mark.slow
def test_labels_of_one_class_only(healthy: Model, tmp_path: Path) -> None:
    flat = [(image, np.zeros_like(labels)) for image, labels in toys(3, start=1000)]
    said = explain(healthy, as_set(flat), out=tmp_path)
    assert said.levels is None
    assert any("fewer than two classes" in note for note in said.notes)


@pytest.mark.slow
def test_monai_basic_unet_is_explained_like_ours(tmp_path: Path) -> None:
    monai = pytest.importorskip("monai.networks.nets")
    torch.manual_seed(0)
    model = train(monai.BasicUNet(2, 3, 3, features=(8, 8, 8, 8, 8, 8)), toys(12), steps=40)  # instance norm
    said = explain(model, as_set(toys(3, start=1000)), out=tmp_path)
    assert [path.name for path in said.skips.paths] == ["skip 0", "skip 1", "skip 2", "skip 3", "bottleneck"]
    assert said.sights["output"].theoretical is None
    assert "instance_norm" in said.sights["output"].words
    assert said.levels is not None
    assert said.levels["bottleneck"].layer.stride == 16


def dull() -> Model:
    network = UNet(3, 3, width=4, depth=2)
    torch.nn.init.zeros_(network.head.weight)
    network.head.bias.data[:] = torch.tensor([5.0, 0.0, 0.0])
    return Model(network.eval(), CLASSES, NORMALISATION)


def test_a_network_that_ignores_the_image_has_no_evidence_and_no_best_path(tmp_path: Path) -> None:
    told = explain(dull(), as_set(toys(2)), out=tmp_path)
    assert (told.pixel.half, told.pixel.most) == (None, None)
    said = " ".join(sentence for of in words.answers(told).values() for sentence in of)
    assert "the answer does not depend on the image" in said
    for untrue in ("brings most", "Half of the evidence", "+0.00"):
        assert untrue not in said, untrue

    def refuse(constant: str) -> None:
        raise AssertionError(constant)

    record = json.loads((tmp_path / "measurements.json").read_text(), parse_constant=refuse)
    assert record["pixel"]["half"] is None


def test_a_network_that_paints_one_class_is_explained_without_masks(tmp_path: Path) -> None:
    model = dull()
    images = [image for image, _ in toys(3)]
    untold = from_arrays(images, [np.full(image.shape[:2], VOID, np.uint8) for image in images], ["a", "b", "c"])
    page = explain(model, untold, out=tmp_path / "report")
    said = (tmp_path / "report/index.html").read_text("utf-8")
    assert "Boundary F1 could not be measured" in said
    assert "Boundary F1" not in page.skips.worth
