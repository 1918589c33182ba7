"""The command line: a verb for each public function. Knows how to ask, show progress and report; computes nothing.

Exit codes: 0 all went well; 1 some of the work failed, or a folder can't be trained on; 2 bad input, told in one line;
3 a fault of whatwhere; 130 interrupted, and what is there can be resumed. Rooms are imported when a verb runs, so that
--help is quick.
"""

from __future__ import annotations

import contextlib
import glob
import io
import os
import shlex
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console

from whatwhere import __version__, progress
from whatwhere.errors import OutputError, WhatwhereError, absent, no_model, refused
from whatwhere.writing import check_place, write_json

if TYPE_CHECKING:
    from whatwhere.data import Findings
    from whatwhere.judge import Scores

__all__ = ["app", "main"]

app = typer.Typer(
    name="whatwhere",
    help="Paint every pixel of your images with its label, and see what your U-Net knows and where it knows it.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
_leads = os.environ.get("RANK", "0") == "0"  # of several processes started by torchrun, the first one speaks
_width = None if sys.stdout and sys.stdout.isatty() else 120  # tables in a pipe or a file are not squeezed
_as_it_is: dict[str, Any] = {"highlight": False, "markup": False, "emoji": False, "soft_wrap": True}  # also a:cat:b
_out = Console(**_as_it_is, quiet=not _leads, width=_width)
_err = Console(**_as_it_is, stderr=True)

Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Plain text progress, no live display.")]
_SEED = typer.Option(min=0, max=2**32 - 1, help="Random seed.")
Seed = Annotated[int, _SEED]
Split = Annotated[str | None, typer.Option(help="test, val, train or all; by default what was held out.")]
TimeBudget = Annotated[
    str | None, typer.Option("--time", help="Wall time of the whole run, such as 90s or 20m; 20m without --epochs.")
]
Epochs = Annotated[float | None, typer.Option(help="Passes over the training images, instead of --time.")]
SkipLevels = Annotated[str, typer.Option(help="Levels that get a skip: all, none, or a list such as 0,1.")]
Encoder = Annotated[str, typer.Option(help="auto, plain, efficientnet-lite0 or timm:NAME with ImageNet weights.")]
Device = Annotated[str, typer.Option(help="auto, cpu, cuda or mps.")]
BackendChoice = Annotated[str, typer.Option(help="auto, eager, compile, openvino, onnx, graphs or int8.")]
PrecisionChoice = Annotated[str, typer.Option(help="auto, float32 or bfloat16.")]


@app.callback(invoke_without_command=True)
def _root(
    version: Annotated[bool, typer.Option("--version", help="Show the version and stop.")] = False,
    debug: Annotated[bool, typer.Option("--debug", help="Show tracebacks.")] = False,  # noqa: ARG001 (read by main)
) -> None:
    if version:
        _out.print(f"whatwhere {__version__}")
        raise typer.Exit


@app.command()
def check(
    data: Annotated[Path, typer.Argument(help="Folder with images/ and masks/, or train/ and val/ that hold them.")],
    json_file: Annotated[Path | None, typer.Option("--json", help="Also write the findings here.")] = None,
    seed: Seed = 0,
    quiet: Quiet = False,
) -> None:
    """Check a data folder for problems before training. Exit code 1 if training can't work."""
    from whatwhere import verbs

    check_place(json_file)
    with progress.counted(_err, "reading", quiet) as advance:
        findings = verbs.check(data, seed=seed, progress=advance)
    _keep(findings, json_file)
    _out.print(str(findings))
    if findings.fatal:
        raise typer.Exit(1)


@app.command()
def plan(
    data: Annotated[Path, typer.Argument(help="The data folder.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="The plan to write.")] = Path("plan.toml"),
    overwrite: Annotated[bool, typer.Option(help="Replace a plan that is there.")] = False,
    time_budget: TimeBudget = None,
    epochs: Epochs = None,
    seed: Seed = 0,
    skips: SkipLevels = "all",
    encoder: Encoder = "auto",
    device: Device = "auto",
    quiet: Quiet = False,
) -> None:
    """Choose everything about a training run, with a reason for each choice, and write it as an editable file."""
    from whatwhere import verbs
    from whatwhere.learn.plan_file import write_plan

    check_place(output)
    if output.exists() and not overwrite:
        raise OutputError(f"{output} is there, perhaps with your changes", "a new file", "add --overwrite, or -o")

    found: list[Findings] = []
    with progress.counted(_err, "reading", quiet) as advance:
        made = verbs.plan(
            data, time=time_budget, epochs=epochs, seed=seed, skips=_levels(skips), encoder=encoder, device=device,
            progress=advance, tell=found.append,
        )  # fmt: skip
    write_plan(made, output)
    _out.print(str(made))
    _tell_warnings(data, found)
    command = shlex.join(["whatwhere", "train", str(data), "-o", "RUN", "--plan", str(output)])
    _out.print(f"\nwritten to {output}; edit it, then: {command}")


@app.command()
def train(
    data: Annotated[Path, typer.Argument(help="The data folder.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="The run folder.")],
    time_budget: TimeBudget = None,
    epochs: Epochs = None,
    plan_file: Annotated[Path | None, typer.Option("--plan", help="A plan made before.")] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with an interrupted run.")] = False,
    skips: Annotated[str | None, typer.Option(help="Levels that get a skip: all, none, or a list such as 0,1.")] = None,
    seed: Annotated[int | None, _SEED] = None,
    encoder: Annotated[
        str | None, typer.Option(help="auto, plain, efficientnet-lite0 or timm:NAME; not with a plan.")
    ] = None,
    device: Annotated[str | None, typer.Option(help="auto, cpu, cuda or mps.")] = None,
    quiet: Quiet = False,
) -> None:
    """Train a U-Net. Leaves RUN/model.safetensors, previews, and a history; can be interrupted and resumed.

    Other options change what a --plan says. With --resume the run's own plan counts, and they must agree with it.
    """
    started = _STARTED
    from whatwhere import verbs
    from whatwhere.learn.changes import changed, check_goes_on
    from whatwhere.learn.plan_file import read_plan
    from whatwhere.learn.run_folder import RunFolder
    from whatwhere.learn.view import make_view
    from whatwhere.network import probe_machine

    folder = RunFolder(output)
    if resume:
        folder.open(resume=True)
    elif _leads:
        folder.refuse()  # before all is read
        check_place(folder.plan if output.exists() else output)
    found: list[Findings] = []
    if resume or plan_file is not None:
        if encoder is not None:
            raise typer.BadParameter("--encoder with a plan: the plan says which; edit it, or make another")
        read = read_plan(plan_file or folder.plan)
        levels = _levels_of(skips, read.network.depth)
        made = changed(read, time=time_budget, epochs=epochs, seed=seed, skips=levels, device=device)
        if resume:
            check_goes_on(output, made)  # before the plan is shown
    else:
        encoder, device = ("auto" if one is None else one for one in (encoder, device))
        with progress.counted(_err, "reading", quiet) as advance:
            made = verbs.plan(
                data, time=time_budget, epochs=epochs, seed=seed or 0, skips=_levels("all" if skips is None else skips),
                encoder=encoder, device=device, progress=advance, tell=found.append,
            )  # fmt: skip
    _tell_warnings(data, found)
    _out.print(f"{made}\n{probe_machine(made.training.device, made.training.precision)}\n")
    view = make_view(_out, str(output), made.classes.colors, quiet=quiet)
    record = verbs.train(data, output, plan=made, resume=resume, view=view, started=started)
    _out.print(str(record))


@app.command()
def predict(
    model: Annotated[Path, typer.Argument(help="A model file or a run folder.")],
    inputs: Annotated[list[str], typer.Argument(metavar="IMAGE", help="Images, folders, or globs.")],
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Folder for the painted images; needed unless --prove.")
    ] = None,
    overlay: Annotated[
        bool, typer.Option(help="Also NAME.overlay.png: labels over the image, class 0 transparent.")
    ] = False,
    probabilities: Annotated[
        bool, typer.Option(help="Also NAME.probabilities.tif: uint8, one channel per class (255 = 1.0).")
    ] = False,
    overwrite: Annotated[bool, typer.Option(help="Paint again what is there.")] = False,
    prove: Annotated[
        bool, typer.Option(help="Verify that tiled and untiled outputs agree, on a crop that fits; writes nothing.")
    ] = False,
    tile: Annotated[
        int | None, typer.Option(min=1, help="Side of the tiles in pixels; chosen by memory if not given.")
    ] = None,
    precision: PrecisionChoice = "auto",
    device: Device = "auto",
    backend: BackendChoice = "auto",
    level: Annotated[int, typer.Option(min=0, help="Of pyramids: 0 is the largest, 1 the next smaller one ...")] = 0,
    fill_missing: Annotated[bool, typer.Option(help="Treat missing Zarr chunks as the fill value.")] = False,
    cluster: Annotated[str | None, typer.Option(help="Dask scheduler (tcp://...) or local:N workers.")] = None,
    quiet: Quiet = False,
) -> None:
    """Paint images of any size. What is done is skipped on a rerun; exit code 1 if any failed or tiles differ."""
    for one in inputs:  # before PyTorch is imported, which takes seconds
        if _is_absent(one) and not glob.glob(one, recursive=True):  # noqa: PTH207 (of absolute ones too)
            raise absent(one)
    if _is_absent(model):
        raise no_model(model)
    from whatwhere.paint import predict as paint_all

    if prove:
        for name, given in (
            ("cluster", cluster), ("overlay", overlay), ("probabilities", probabilities), ("overwrite", overwrite)
        ):  # fmt: skip
            if given:
                raise typer.BadParameter(f"--prove with --{name}: a proof paints nothing")
        _prove(model, inputs, tile, precision, device, backend, level, fill_missing)
        return
    if output is None:
        raise typer.BadParameter("missing: the folder for the painted images", param_hint="'--output' / '-o'")
    options: dict[str, Any] = {
        "overlay": overlay, "probabilities": probabilities, "overwrite": overwrite, "precision": precision,
        "tile": tile, "device": device, "backend": backend, "level": level,
        "fill_missing": fill_missing, "cluster": cluster,
    }  # fmt: skip
    with progress.of_files(_err, quiet) as advance:
        done = paint_all(model, inputs, output, progress=advance, **options)
    if len(done.items) > 1 or not done.failed:
        _out.print(str(done))
    if done.failed and len(done.failed) == len(done.items):
        others = f" (and {len(done.items) - 1} more failed)" if len(done.items) > 1 else ""
        _err.print(f"error: {' '.join(done.failed[0].error.split())}{others}")
        raise typer.Exit(2)
    if done.failed:
        raise typer.Exit(1)


@app.command()
def evaluate(
    model: Annotated[Path, typer.Argument(help="A model file or a run folder.")],
    data: Annotated[Path, typer.Argument(help="A data folder.")],
    split: Split = None,
    tolerance: Annotated[float, typer.Option(help="Pixels within which an edge counts as found.")] = 2.0,
    json_file: Annotated[Path | None, typer.Option("--json", help="Also write all scores here.")] = None,
    picture: Annotated[Path, typer.Option(help="Picture of the worst images; replaced.")] = Path("worst.png"),
    no_picture: Annotated[bool, typer.Option("--no-picture", help="Make no picture.")] = False,
    quiet: Quiet = False,
) -> None:
    """Score a model on images with masks: a table, a picture of the worst images, and JSON on request."""
    from whatwhere import verbs

    worst = None if no_picture else picture
    check_place(json_file)
    check_place(worst, "name another place with --picture, or --no-picture")

    def tell(scores: Scores) -> None:
        _keep(scores, json_file)
        _out.print(scores)

    with progress.counted(_err, "painting", quiet) as advance:
        options: dict[str, Any] = {"split": split, "tolerance": tolerance, "progress": advance}
        scores = verbs.evaluate(model, data, worst=worst, tell=tell, **options)
    if worst is not None and scores.worst(1):
        _out.print(f"worst images: {worst}")


@app.command()
def compare(
    run_a: Annotated[Path, typer.Argument(help="A model file or a run folder.")],
    run_b: Annotated[Path, typer.Argument(help="The second model file or run folder.")],
    data: Annotated[Path, typer.Argument(help="A data folder.")],
    split: Split = None,
    tolerance: Annotated[float, typer.Option(help="Pixels within which an edge counts as found.")] = 2.0,
    json_file: Annotated[Path | None, typer.Option("--json", help="Also write the differences here.")] = None,
    quiet: Quiet = False,
) -> None:
    """Compare two models on the same images: paired bootstrap over images."""
    from whatwhere import verbs

    check_place(json_file)
    with progress.counted(_err, "painting", quiet) as advance:
        comparison = verbs.compare(run_a, run_b, data, split=split, tolerance=tolerance, progress=advance)
    _keep(comparison, json_file)
    _out.print(comparison)


@app.command()
def quantise(
    model: Annotated[Path, typer.Argument(help="A model file or a run folder.")],
    data: Annotated[Path, typer.Argument(help="The data folder that it was trained on.")],
    split: Annotated[str, typer.Option(help="val or test: what it is checked on.")] = "val",
    json_file: Annotated[Path | None, typer.Option("--json", help="Also write what was measured here.")] = None,
    quiet: Quiet = False,
) -> None:
    """Make a model's int8 file, kept beside it only if mean IoU falls by less than 0.003; predict then may use it."""
    from whatwhere import verbs

    check_place(json_file)
    with progress.counted(_err, "painting", quiet) as advance:
        made = verbs.quantise(model, data, split=split, progress=advance)
    _keep(made, json_file)
    _out.print(str(made))


@app.command()
def explain(
    model: Annotated[Path, typer.Argument(help="A model file or a run folder.")],
    data: Annotated[Path, typer.Argument(help="A data folder, or a folder of images.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder for the page and the measurements.")],
    image: Annotated[Path | None, typer.Option(help="Image containing --pixel.")] = None,
    pixel: Annotated[
        str | None, typer.Option(help="Pixel to explain, as X,Y (column, row); without --image of the first image.")
    ] = None,
    split: Split = None,
    images: Annotated[int, typer.Option(min=1, help="How many images are measured at most.")] = 20,
    seed: Seed = 0,
    quiet: Quiet = False,
) -> None:
    """Measure what the network knows, where it knows it, and what each skip delivers; write one page."""
    from whatwhere import verbs

    with progress.shared(_err, quiet) as advance:
        story = verbs.explain(
            model, data, out=output, split=split, image=image, pixel=_place(pixel), images=images, seed=seed,
            progress=advance,
        )  # fmt: skip
    _out.print(str(story))
    _out.print(f"\npage: {output / 'index.html'}")


@app.command()
def explore(
    model: Annotated[Path, typer.Argument(help="A model file, a run folder, or a folder of several.")],
    images: Annotated[list[Path] | None, typer.Argument(metavar="IMAGE", help="Images, or folders of images.")] = None,
    data: Annotated[Path | None, typer.Option(help="A data folder: images whose truth is known.")] = None,
    split: Split = None,
    others: Annotated[
        list[Path] | None,
        typer.Option("--with", metavar="MODEL", help="Another model to compare with; may be repeated."),
    ] = None,
    port: Annotated[int, typer.Option(min=0, max=65535, help="Where to listen; 0 takes a free port.")] = 8760,
    host: Annotated[
        str, typer.Option(help="Address to listen on; access from other machines needs a token.")
    ] = "127.0.0.1",
    browser: Annotated[bool, typer.Option(help="Open a browser.")] = True,
) -> None:
    """Touch the network: a local page that answers at once. Ends with Ctrl-C."""
    from whatwhere.chosen import truth_of
    from whatwhere.data.folder import has_pairs
    from whatwhere.paint.sources import extra

    for needed in ("starlette", "uvicorn"):
        extra(needed, "explorer", "the explorer is a small web server")
    from whatwhere.explorer.serve import explore as serve
    from whatwhere.explorer.serve import models_in

    if data is None and images and len(images) == 1 and has_pairs(images[0]):  # as other commands take it
        data, images = images[0], None
    if split is not None and data is None:
        raise typer.BadParameter("--split says which part of --data, which is not given")
    models = models_in([model, *(others or [])])
    first, *beside = (model for _, model in models)
    truth = None if data is None else truth_of(first, data, split, beside=beside)
    serve(models, images or [], truth, host=host, port=port, browser=browser, say=typer.echo)


@app.command()
def demo(
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder for everything.")] = Path("whatwhere-demo"),
    seed: Seed = 0,
    quiet: Quiet = False,
) -> None:
    """Cats and cushions: make a data set, train on it, paint, and end with a picture and a page to open."""
    from whatwhere.demo import run_demo

    run_demo(output, seed=seed, console=Console(**_as_it_is), quiet=quiet)


def main() -> None:
    """Runs a verb; turns errors a person can act on into one line and exit code 2."""
    arguments = [argument for argument in sys.argv[1:] if argument != "--debug"]
    debug = len(arguments) < len(sys.argv) - 1
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # a terminal that lacks a character ends nothing
            stream.reconfigure(errors="backslashreplace")
    try:
        app(arguments, prog_name="whatwhere")
    except KeyboardInterrupt:
        sys.exit(130)
    except Exception as error:
        if debug:
            raise
        told = refused(error) if isinstance(error, OSError) else error
        if isinstance(told, WhatwhereError):
            _err.print(f"error: {_one_line(told)}")
            _forget_unwritten()
            sys.exit(2)
        _err.print(
            f"error: {type(error).__name__}: {_one_line(error)}\nThis is a fault of whatwhere, not of your input. "
            "Run again with --debug to see where, and report it."
        )
        sys.exit(3)


def _forget_unwritten() -> None:
    """What a full disk behind the screen did not take would be tried again at the end, and end in a traceback."""
    try:
        sys.stdout.flush()
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


_STARTED = time.perf_counter()
"""A time budget counts from here, not from the first step."""


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split())


def _keep(record: Any, json_file: Path | None) -> None:
    """Writes what was measured, if asked for, before it is told: whoever reads a pipe may be gone."""
    if json_file is not None:
        from whatwhere.network import versions

        write_json(json_file, {"versions": versions()} | record.to_json())


_WARNINGS = 3
"""How many are told before training; `check` has them all."""


def _tell_warnings(data: Path, found: Sequence[Findings]) -> None:
    """The first words of the first few; the rest says `check`."""
    warnings = [item for findings in found for item in findings.items if item.severity == "warning"]
    if warnings:
        _out.print()
        for item in warnings[:_WARNINGS]:
            first = item.message.splitlines()[0]
            _out.print(f"warning: {first if len(first) <= 200 else f'{first[:199]}…'}")
        count, command = len(warnings), shlex.join(["whatwhere", "check", str(data)])
        _out.print(f"{count} warning{'s' * (count != 1)} about the data; which files, and what to do: {command}")


def _levels(text: str) -> tuple[int, ...] | None:
    if text == "all":
        return None
    if text == "none":
        return ()
    try:
        return tuple(sorted({int(part) for part in text.split(",")}))
    except ValueError:
        raise typer.BadParameter(f"--skips {text!r}: all, none, or levels such as 0,1") from None


def _levels_of(text: str | None, depth: int) -> Sequence[int] | None:
    return None if text is None else range(depth) if text == "all" else _levels(text)


def _is_absent(path: Path | str) -> bool:
    """Whether nothing is there, for sure: what may not be looked at is told by who opens it."""
    try:
        Path(path).lstat()
    except (FileNotFoundError, NotADirectoryError):
        return True
    except OSError:
        pass
    return False


def _prove(
    model: Path,
    inputs: list[str],
    tile: int | None,
    precision: Any,
    device: str,
    backend: str,
    level: int,
    fill_missing: bool,
) -> None:
    from whatwhere.network import load_model
    from whatwhere.paint import prove
    from whatwhere.paint.files import fitted, open_image
    from whatwhere.paint.predict import find_inputs
    from whatwhere.paint.sources import Reading

    (path, _), *others = find_inputs(inputs)
    if others:
        _out.print(f"proved on {path}, the first of {len(others) + 1} images")
    loaded = load_model(model)
    with contextlib.closing(open_image(path, Reading(level, fill_missing))) as opened:
        proof = prove(
            loaded,
            fitted(opened, loaded.normalisation.channels),
            precision="float32" if precision == "auto" else precision,
            tile=tile,
            device=device,
            backend=backend,
        )
    _out.print(str(proof))
    if not proof.passed:
        raise typer.Exit(1)


def _place(text: str | None) -> tuple[int, int] | None:
    if text is None:
        return None
    try:
        x, y = (int(part) for part in text.split(","))
    except ValueError:
        raise typer.BadParameter(f"--pixel {text!r}: two whole numbers such as 120,64") from None
    return x, y
