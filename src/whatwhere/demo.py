"""The demo: three networks learn to tell cats from cushions, and what each can't do is shown and measured.

The same fur covers both, so a patch of fur tells nothing: only a head or a tail, a known distance away, does (context);
tails and whiskers are one to three pixels wide (geometry). A *shallow* network sees too little to know; one *without
skips* knows, but has lost where; the *U-Net* does both, and its report tells at which level it knows what and where.
Knows the verbs; computes nothing itself.
"""

from __future__ import annotations

import shlex
import shutil
import sys
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
from jinja2 import Environment, PackageLoader
from PIL import Image
from rich.console import Console

from whatwhere.data.scenes import CLASSES, THIN, Scene, render_scene, write_scenes
from whatwhere.explain import Explanation, draw_levels, draw_paintings
from whatwhere.explain.figures import TOKENS
from whatwhere.explain.report import inline_svg
from whatwhere.explain.words import answers
from whatwhere.judge import Judge, Scores
from whatwhere.learn.plan import Plan
from whatwhere.learn.plan_file import read_plan
from whatwhere.learn.run_folder import RunFolder
from whatwhere.learn.view import make_view
from whatwhere.network import load_model, probe_machine, versions
from whatwhere.paint import Engine, paint, predict
from whatwhere.verbs import check, explain, plan, train
from whatwhere.writing import whole_file, write_json

__all__ = ["NETWORKS", "TRAIN", "VAL", "DemoScore", "demo_plan", "run_demo"]

TRAIN, VAL = 240, 40
_WIDTH, _EPOCHS = 16, 15.0
_NARROW, _FEWER = 8, 0.9
"""Channels of the networks' first level, and share of the epochs, on a processor that computes in float32.

So it is done in five minutes there too. It is enough for the lesson, but finds fewer tails and whiskers: what both give
is in `bench/RESULTS.md`.
"""

_EXPLAINED = 8
"""Scenes that the U-Net's report is measured on."""


@dataclass(frozen=True)
class DemoNetwork:
    """One of the three: its name in words, and how its plan differs (``share`` is of the epochs)."""

    title: str
    lesson: str
    depth: int
    skips: bool
    share: float


NETWORKS: Mapping[str, DemoNetwork] = {
    "shallow": DemoNetwork("shallow", "sees too little to tell cat from cushion", 1, True, 0.5),
    "no-skips": DemoNetwork("no skips", "knows, but smears tails and whiskers", 4, False, 1.0),
    "unet": DemoNetwork("U-Net", "knows what, and where", 4, True, 1.0),
}


@dataclass(frozen=True)
class DemoScore:
    """What was measured of one network on the validation scenes.

    Attributes:
        mean_iou: over background, cat and cushion.
        cat_or_cushion: balanced accuracy of cat against cushion on body pixels more than 8 px from anything telling;
            0.5 is chance. A pixel painted background counts as wrong.
        thin_recall: share of the pixels of tails, whiskers and threads painted with their class.
        seconds: training time.
    """

    mean_iou: float
    cat_or_cushion: float
    thin_recall: float
    seconds: float


def run_demo(out: Path, *, seed: int, console: Console, quiet: bool) -> dict[str, DemoScore]:
    """Makes the data, trains the three networks, paints, and writes one picture and one page."""
    began = time.perf_counter()
    data = out / "cats-and-cushions"
    console.print(f"drawing {TRAIN + VAL} scenes of cats and cushions into {data}", markup=False)
    write_scenes(data, train=TRAIN, val=VAL, seed=seed)
    console.print(str(check(data)), markup=False)
    machine = probe_machine()
    slow = (machine.device, machine.precision) == ("cpu", "float32")
    width, epochs = (_NARROW, _FEWER * _EPOCHS) if slow else (_WIDTH, _EPOCHS)
    base = plan(data, epochs=epochs, seed=seed, encoder="plain")
    scenes = [render_scene(seed, TRAIN + index) for index in range(VAL)]
    console.print(f"networks {width} channels wide on {machine}", markup=False)
    scores, painted = {}, {}
    for name, network in NETWORKS.items():
        console.print(f"\ntraining {network.title}: {network.lesson}")
        made = demo_plan(network, base, width)
        scores[name], painted[name] = _train_one(data, out / "runs" / name, made, scenes, console, quiet)
    predict(load_model(out / "runs" / "unet"), data / "val" / "images", out / "painted", overlay=True, overwrite=True)
    picture = _draw(scenes, painted, out / "three-networks.png")
    console.print("\nexplaining the U-Net: what it knows, where, at which level, and what each skip delivers")
    story = explain(out / "runs" / "unet", data, split="val", images=_EXPLAINED, out=out / "explained", seed=seed)
    page = _write_page(out, scores, story, time.perf_counter() - began)
    _say(console, scores, time.perf_counter() - began)
    command = ["whatwhere"] if shutil.which("whatwhere") else [sys.executable, "-m", "whatwhere"]
    first, *others = (str(out / "runs" / name) for name in ("unet", "no-skips", "shallow"))
    beside = [part for other in others for part in ("--with", other)]
    touch = shlex.join([*command, "explore", first, *beside, "--data", str(data)])
    console.print(f"\npicture: {picture}\npage:    {page}", markup=False)
    check_own = shlex.join([*command, "check", "YOUR_FOLDER"])
    console.print(f"\ntouch the networks: {touch}\nnow your own:       {check_own}", markup=False)
    return scores


def _train_one(
    data: Path, run: Path, made: Plan, scenes: list[Scene], console: Console, quiet: bool
) -> tuple[DemoScore, list[np.ndarray]]:
    resume = (run / "plan.toml").exists() and not (run / "run.json").exists()
    if resume:
        begun = read_plan(run / "plan.toml")
        resume = (begun.seed, begun.network.width) == (made.seed, made.network.width)
    if not resume:
        _forget(run)
    view = make_view(console, NETWORKS[run.name].title, made.classes.colors, quiet=quiet)
    record = train(data, run, plan=made, resume=resume, view=view, started=time.perf_counter())
    engine = Engine(load_model(run))
    labels = [paint(engine, scene.image).labels for scene in scenes]
    return _score(scenes, labels, record.seconds), labels


def demo_plan(network: DemoNetwork, base: Plan, width: int = _WIDTH) -> Plan:
    """The plan of one of the three networks, from the plan that was made for the scenes."""
    skips = tuple(range(network.depth)) if network.skips else ()
    return replace(
        base,
        network=replace(base.network, width=width, depth=network.depth, skips=skips),
        training=replace(base.training, crop=128, batch=8, epochs=base.training.epochs * network.share),
        # the scenes already vary as much as they ever will
        augmentation=replace(base.augmentation, warp=0, brightness=0.1, contrast=0.1, color=0, blur=0, noise=0),
    )


def _forget(run: Path) -> None:
    """A finished demo is made anew; nothing else in the folder is touched."""
    for path in RunFolder(run).files:
        path.unlink(missing_ok=True)


def _score(scenes: list[Scene], painted: list[np.ndarray], seconds: float) -> DemoScore:
    judge = Judge(CLASSES, boundary=False)
    for index, (scene, labels) in enumerate(zip(scenes, painted)):
        judge.add(f"scene {index}", scene.labels, labels)
    truth = np.concatenate([scene.labels.ravel() for scene in scenes])
    answer = np.concatenate([labels.ravel() for labels in painted])
    far = np.concatenate([scene.undecidable().ravel() for scene in scenes])
    thin = np.concatenate([(scene.parts == THIN).ravel() for scene in scenes])
    recalls = [float((answer[far & (truth == label)] == label).mean()) for label in (1, 2)]
    result: Scores = judge.result()
    return DemoScore(result.mean_iou, sum(recalls) / 2, float((answer[thin] == truth[thin]).mean()), seconds)


def _draw(scenes: list[Scene], painted: Mapping[str, list[np.ndarray]], path: Path) -> Path:
    """Image, truth and the three paintings of a few scenes side by side."""
    from PIL import ImageDraw, ImageFont

    palette = np.array(CLASSES.colors, np.uint8)
    titles = ["image", "truth", *(NETWORKS[name].title for name in painted)]
    side, gap, top = 256, 10, 34
    chosen = sorted(range(len(scenes)), key=lambda index: -len(np.unique(scenes[index].labels)))[:4]
    sheet = Image.new("RGB", (len(titles) * (side + gap) + gap, top + len(chosen) * (side + gap)), "white")
    draw = ImageDraw.Draw(sheet)
    for column, title in enumerate(titles):
        draw.text((gap + column * (side + gap), 8), title, fill="#222", font=ImageFont.load_default(18))
    for row, index in enumerate(chosen):
        panels = [
            scenes[index].image,
            palette[scenes[index].labels],
            *(palette[done[index]] for done in painted.values()),
        ]
        for column, panel in enumerate(panels):
            tile = Image.fromarray(panel).resize((side, side), Image.Resampling.NEAREST)
            sheet.paste(tile, (gap + column * (side + gap), top + row * (side + gap)))
    with whole_file(path) as partial:
        sheet.save(partial, format="PNG")
    return path


def _write_page(out: Path, scores: Mapping[str, DemoScore], story: Explanation, seconds: float) -> Path:
    environment = Environment(loader=PackageLoader("whatwhere", "pages"), autoescape=True)
    page = environment.get_template("demo.html").render(
        networks=NETWORKS, scores=scores, seconds=seconds, versions=versions(), train=TRAIN, val=VAL,
        colors=dict(zip(CLASSES.names, CLASSES.colors)), story=story, told=answers(story),
        levels=inline_svg(draw_levels(story.levels, TOKENS), "what and where by level") if story.levels else "",
        paintings=inline_svg(draw_paintings(story, palette=TOKENS), "a scene as every level paints it"),
    )  # fmt: skip
    path = out / "index.html"
    with whole_file(path) as partial:
        partial.write_text(page, encoding="utf-8")
    record = {name: asdict(score) for name, score in scores.items()} | {"versions": versions()}
    write_json(out / "scores.json", record)
    return path


def _say(console: Console, scores: Mapping[str, DemoScore], seconds: float) -> None:
    from rich.table import Table

    table = Table("network", "mean IoU", "cat or cushion?", "tails and whiskers", "training", title=f"{VAL} scenes")
    for name, score in scores.items():
        table.add_row(
            NETWORKS[name].title, f"{score.mean_iou:.3f}", f"{score.cat_or_cushion:.3f}", f"{score.thin_recall:.3f}",
            f"{score.seconds:.0f} s",
        )  # fmt: skip
    console.print(table)
    console.print("cat or cushion?: balanced accuracy far from heads and tails, chance 0.5")
    console.print(f"{seconds:.0f} s in all")
