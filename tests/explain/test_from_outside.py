"""`explain` as people call it: on folders, through a Segmenter, on the command line; and its figures for notebooks."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from matplotlib.figure import Figure
from PIL import Image
from torch import nn

from tiny import Cli, disc_picture
from whatwhere import Segmenter
from whatwhere.errors import DataError
from whatwhere.explain import Explanation, draw_levels, draw_paintings, draw_presence, draw_sight, draw_skips
from whatwhere.explain.figures import TOKENS
from whatwhere.explain.measured import Measured
from whatwhere.explain.presence import Presence
from whatwhere.explain.report import inline_svg
from whatwhere.network import Model
from whatwhere.records import Classes


@pytest.fixture(scope="module")
def stranger(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An image that is in no data set."""
    path = tmp_path_factory.mktemp("elsewhere") / "stranger.png"
    Image.fromarray(disc_picture(99)[0]).save(path)
    return path


# ---- in Python


def test_a_segmenter_explains_a_data_folder(disc_model: Model, discs: Path, tmp_path: Path) -> None:
    told = Segmenter(disc_model).explain(discs, out=tmp_path / "report")
    assert told.images == ("disc 10", "disc 11", "disc 12")  # those held out
    record = json.loads((tmp_path / "report" / "measurements.json").read_text())
    assert record["images"] == list(told.images)
    assert record["answers"]["What would be lost without this skip?"][0].startswith("All paths together bring")
    assert len(record["answers"]) == 5


def test_the_pixel_of_an_image_from_elsewhere(disc_model: Model, discs: Path, stranger: Path) -> None:
    told = Segmenter(disc_model).explain(discs, image=stranger, pixel=(5, 7))
    assert (told.pixel.image, told.pixel.x, told.pixel.y, told.pixel.truth) == ("stranger", 5, 7, None)
    assert told.truth  # all else is still measured against the masks of the data
    assert told.images == ("disc 10", "disc 11", "disc 12")
    assert not any("mask" in note for note in told.notes)


def test_an_image_without_a_pixel(disc_model: Model, discs: Path, stranger: Path) -> None:
    with pytest.raises(DataError, match="'stranger' without a pixel"):
        Segmenter(disc_model).explain(discs, image=stranger)


def test_any_module_is_explained_through_the_same_door(discs: Path) -> None:
    class Plain(nn.Module):
        """A U of one level whose parts have no telling names."""

        def __init__(self) -> None:
            super().__init__()
            self.a, self.b, self.c = (nn.Conv2d(i, o, 3, padding=1) for i, o in ((3, 4), (4, 6), (10, 2)))
            self.pool, self.up = nn.MaxPool2d(2), nn.Upsample(scale_factor=2)

        def forward(self, image: torch.Tensor) -> torch.Tensor:
            top = self.a(image).relu()
            deep = self.up(self.b(self.pool(top)).relu())
            return self.c(torch.cat((top, deep), 1))

    classes = Classes(("ground", "disc"), ((0, 0, 0), (255, 255, 255)), ((0,), (255,)))
    model = Segmenter.from_module(Plain(), classes, ((80.0,) * 3, (60.0,) * 3))
    told = model.explain(discs)
    assert [path.name for path in told.skips.paths] == ["skip 0", "bottleneck"]
    assert told.sights["output"].theoretical == 10  # its own, five pixels to one side and four to the other
    assert all(leak.holds for leak in told.sights.leaks)


# ---- figures


@pytest.mark.slow
def test_the_figures_for_notebooks_show_what_was_measured(explanation: Explanation) -> None:
    assert explanation.levels is not None
    drawn = draw_levels(explanation.levels)
    whats = [one.what.value for one in explanation.levels.readings] + [explanation.levels.answer_what.value]
    lines = [line.get_ydata() for line in drawn.axes[0].lines]
    assert any(len(line) == len(whats) and np.allclose(np.asarray(line, float), whats) for line in lines)
    others = [draw_sight(explanation.sights, explanation.objects), draw_skips(explanation.skips, ["mean IoU"])]
    if explanation.presence is not None:
        others.append(draw_presence(explanation.presence, explanation.layers, explanation.levels))
    assert all(isinstance(figure, Figure) for figure in others)


DRAWN: tuple[Callable[[Explanation], Figure], ...] = (
    draw_levels, draw_paintings, draw_presence, draw_sight, draw_skips,
)  # fmt: skip


@pytest.mark.parametrize("draw", DRAWN)
def test_every_figure_is_drawn_of_the_whole_explanation(
    draw: Callable[[Explanation], Figure], explanation: Explanation
) -> None:
    fair = Measured(0.7, None, None, images=8, pixels=100, method="", seed=0)
    presence = Presence("image", (1,), {layer.name: fair for layer in explanation.layers}, 8)
    assert draw(replace(explanation, presence=explanation.presence or presence)).axes


def test_what_was_not_measured_is_not_drawn_and_says_why(explanation: Explanation) -> None:
    notes = ("What and where were not measured: one class.", "Presence was not measured: no class is both.")
    bare = replace(explanation, levels=None, presence=None, examples=(), notes=("Which images: val.", *notes))
    for draw, note in zip((draw_levels, draw_presence), notes):
        with pytest.raises(DataError, match=note.rstrip(".")):
            draw(bare)
        with pytest.raises(DataError, match="not measured"):
            draw(None)
    with pytest.raises(DataError, match="example 0 of 0"):
        draw_paintings(bare)
    with pytest.raises(DataError, match="Dice"):
        draw_skips(explanation, ["Dice"])
    assert draw_sight(bare).axes


@pytest.mark.parametrize(
    "name", [r"$\frac$", "US$ and A$", "a name of sixty letters that takes the chart's room, and more", "猫"]
)
def test_names_of_classes_are_no_formulas_and_leave_room(name: str, explanation: Explanation) -> None:
    thing = replace(explanation.objects[-1], name=name, fills=False)
    figure = draw_sight(explanation, [thing])
    assert "svg" in inline_svg(figure, "how far")
    (axes,) = figure.axes
    shown = axes.get_yticklabels()[-1].get_text()
    assert shown.rstrip("…") in f"objects: {name}"
    assert axes.get_position().width > 0.5


@pytest.mark.parametrize("kind", ["what", "where", "side", "untrained_what", "untrained_where"])
def test_values_below_chance_are_on_the_chart(kind: str, explanation: Explanation) -> None:
    assert explanation.levels is not None
    poor = Measured(0.1, 0.05, 0.2, images=8, pixels=100, method="", seed=0)
    readings = tuple(replace(one, **{kind: poor}) for one in explanation.levels.readings)
    levels = replace(explanation.levels, readings=readings)
    assert draw_levels(levels).axes[0].get_ylim()[0] < (0.05 if kind in ("what", "where") else 0.1)


def test_values_below_chance_are_on_the_chart_of_yes_and_no(explanation: Explanation) -> None:
    assert explanation.levels is not None
    poor, zero = (Measured(value, 0.0, 0.4, images=8, pixels=100, method="", seed=0) for value in (0.1, 0.2))
    readings = tuple(replace(one, where=poor) for one in explanation.levels.readings)
    levels = replace(explanation.levels, readings=readings)
    for accuracy, lowest in ((explanation.levels.readings[0].what, 0.1), (zero, 0.0)):
        presence = Presence("image", (1,), {layer.name: accuracy for layer in explanation.layers}, 8)
        assert draw_presence(presence, explanation.layers, levels).axes[0].get_ylim()[0] < lowest


def test_an_image_as_every_level_paints_it(explanation: Explanation) -> None:
    figure = draw_paintings(explanation, 1)
    titles = [axes.get_title().partition("\n")[0] for axes in figure.axes if axes.images]
    assert titles == [
        "image", "encoder 0", "encoder 1", "bottleneck", "truth", "decoder 0", "decoder 1", "the answer",
    ]  # fmt: skip
    shown = {title: axes.images[0].get_array() for title, axes in zip(titles, figure.axes)}
    colours = np.array(explanation.classes.colors)
    assert np.array_equal(shown["decoder 1"], colours[explanation.examples[1].by_layer["decoder.1"]])
    assert np.array_equal(shown["the answer"], colours[explanation.examples[1].painting])


def test_places_without_a_picture_show_no_axes(explanation: Explanation) -> None:
    example = explanation.examples[0]
    left = {name: labels for name, labels in example.by_layer.items() if not name.startswith("decoder")}
    figure = draw_paintings(replace(explanation, examples=(replace(example, by_layer=left),)))
    assert len([axes for axes in figure.axes if not axes.images]) == 2  # below there are truth and answer only
    assert not any(axes.axison for axes in figure.axes)


def test_a_chart_inside_a_page_takes_the_pages_colours(explanation: Explanation) -> None:
    assert explanation.levels is not None
    svg = inline_svg(draw_levels(explanation.levels, TOKENS), "what & where")
    assert svg.startswith('<svg role="img" aria-label="what &amp; where" ')
    assert svg.startswith("<svg")
    assert "var(--what)" in svg
    assert TOKENS.what not in svg
    assert "http" not in svg.replace("http://www.w3.org", "")


# ---- on the command line


def test_the_command_writes_a_page(disc_run: Path, discs: Path, run_cli: Cli) -> None:
    done = run_cli("explain", disc_run, discs, "-o", "report", "--images", 2, "-q")
    assert done.code == 0, done.err
    assert "page: report/index.html" in done.out
    assert "what (interior)" in done.out
    assert Path("report/index.html").is_file()


def test_images_without_masks(disc_run: Path, discs: Path, tmp_path: Path, run_cli: Cli) -> None:
    shutil.copytree(discs / "val" / "images", tmp_path / "unknown")
    done = run_cli("explain", disc_run, "unknown", "-o", "report", "-q")
    assert done.code == 0, done.err
    assert "There are no masks" in done.out


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--image", "{image}", "--pixel", "40,0"), "x from 0 to 39 and y from 0 to 39"),
        (("--image", "{image}"), "expected an image and a pixel"),
        (("--pixel", "left"), "--pixel"),
        (("--split", "test"), "no images with masks in split 'test'"),
        (("--images", "0"), "'--images'"),
    ],
)
def test_what_cannot_be_explained(
    options: tuple[str, ...], words: str, disc_run: Path, discs: Path, run_cli: Cli
) -> None:
    image = discs / "val" / "images" / "disc 10.png"
    done = run_cli("explain", disc_run, discs, "-o", "report", "-q", *(one.format(image=image) for one in options))
    assert done.code == 2
    assert words in " ".join(done.err.split())
    assert not Path("report").exists()


def test_a_model_of_other_classes_or_channels(disc_run: Path, tmp_path: Path, run_cli: Cli) -> None:
    picture, mask = disc_picture(1)
    three = mask // 255 + picture[..., 0] // 64
    for name, image, labels in (("grey", picture[..., 0], mask), ("classes", picture, three)):
        for kind, array in (("images", image), ("masks", labels)):
            folder = tmp_path / name / "val" / kind
            folder.mkdir(parents=True)
            Image.fromarray(array).save(folder / "one.png")
    grey = run_cli("explain", disc_run, "grey", "-o", "report", "-q")
    assert (grey.code, "expected 3 channels" in " ".join(grey.err.split())) == (2, True), grey.err
    classes = run_cli("explain", disc_run, "classes", "-o", "report", "-q")
    assert classes.code == 2, classes.out
    assert "one.png" in classes.err
