"""The command line: verbs, exit codes, and what is said. Mostly in this process: a start of Python takes a second."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from PIL import Image

import whatwhere
from tiny import Cli
from whatwhere import cli
from whatwhere.errors import DataError
from whatwhere.learn.plan import Plan
from whatwhere.learn.plan_file import read_plan, write_plan

VERBS = ("check", "plan", "train", "predict", "evaluate", "compare", "explain", "explore", "quantise", "demo")


def python(*arguments: object, **options: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *map(str, arguments)], capture_output=True, text=True, check=False, **options
    )  # type: ignore[call-overload,no-any-return]


# -- help --------------------------------------------------------------------------------------------------------------


def test_help_lists_the_verbs_and_imports_no_torch() -> None:
    code = (
        "import sys; sys.argv = ['whatwhere', '--help']\n"
        "from whatwhere.cli import main\n"
        "try:\n    main()\n"
        "except SystemExit as end:\n    assert not end.code, end.code\n"
        "heavy = {'torch', 'numpy', 'scipy', 'PIL'} & set(sys.modules)\n"
        "sys.exit(f'imported {heavy}' if heavy else 0)"
    )
    done = python("-c", code)
    assert done.returncode == 0, done.stderr
    assert all(verb in done.stdout for verb in VERBS)


def test_what_only_explaining_needs_is_not_waited_for_by_all_that_trains() -> None:
    slow = "{'sklearn', 'matplotlib', 'jinja2', 'sympy', 'torch._dynamo'}"
    done = python(
        "-c",
        "import sys, torch.utils.checkpoint; torchs = set(sys.modules); import whatwhere.segmenter; "
        f"sys.exit(', '.join({slow} & set(sys.modules) - torchs) or None)",
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_explains_itself(verb: str, run_cli: Cli) -> None:
    done = run_cli(verb, "--help")
    assert done.code == 0
    assert "Usage: whatwhere " + verb in done.out


def test_version(run_cli: Cli) -> None:
    assert run_cli("--version").out.strip() == f"whatwhere {whatwhere.__version__}"


def test_python_dash_m() -> None:
    done = python("-m", "whatwhere", "--version")
    assert (done.returncode, done.stdout.strip()) == (0, f"whatwhere {whatwhere.__version__}")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("paint",), "No such command 'paint'"),
        (("check",), "Missing argument"),
        (("check", "x", "--fast"), "--fast"),
    ],
)
def test_a_misspelt_command_line(arguments: tuple[str, ...], words: str, run_cli: Cli) -> None:
    done = run_cli(*arguments)
    assert done.code == 2
    assert words in done.err


# -- verbs -------------------------------------------------------------------------------------------------------------


def test_check_a_good_folder(discs: Path, tmp_path: Path, run_cli: Cli) -> None:
    done = run_cli("check", discs, "--json", tmp_path / "findings.json")
    assert done.code == 0
    assert "13" in done.out
    assert json.loads((tmp_path / "findings.json").read_text())


def test_names_are_said_as_they_are(run_cli: Cli) -> None:
    """Neither colours nor pictures are made of them."""
    assert "a:cat:b[bold]" in run_cli("check", "a:cat:b[bold]").err


def test_check_a_folder_that_cannot_work_exits_with_1(tmp_path: Path, run_cli: Cli) -> None:
    for kind in ("images", "masks"):
        (tmp_path / kind).mkdir()
        Image.new("L", (32, 32)).save(tmp_path / kind / "only.png")
    done = run_cli("check", tmp_path)
    assert done.code == 1
    assert done.out.strip()


def test_plan_then_train_by_it(discs: Path, tmp_path: Path, run_cli: Cli) -> None:
    plan = tmp_path / "plan.toml"
    done = run_cli("plan", discs, "-o", plan, "--epochs", 0.2, "--skips", "none", "--seed", 3)
    assert done.code == 0
    assert f"written to {plan}" in done.out
    text = plan.read_text("utf-8")
    assert "seed = 3" in text
    text = re.sub(r"\bwidth = 32", "width = 4", re.sub(r"\bbatch = \d+", "batch = 2", text))
    text = text.replace("learning_rate = 0.003", "learning_rate = 0.02")
    plan.write_text(text, "utf-8")
    done = run_cli("train", discs, "-o", tmp_path / "run", "--plan", plan, "-q")
    assert done.code == 0, done.err
    assert "mean IoU" in done.out
    assert "pilot: 2 crops" in done.out
    assert whatwhere.load_model(tmp_path / "run").network.config["skips"] == []


def test_the_command_line_changes_a_plan(discs: Path, disc_plan: Plan, tmp_path: Path, run_cli: Cli) -> None:
    plan = write_plan(disc_plan, tmp_path / "plan.toml")
    done = run_cli(
        "train", discs, "-o", tmp_path / "run", "--plan", plan, "--epochs", 0.3, "--skips", "1", "--seed", 5, "-q"
    )
    assert done.code == 0, done.err
    kept = whatwhere.load_model(tmp_path / "run").plan
    assert (kept["seed"], kept["training"]["epochs"], kept["network"]["skips"]) == (5, 0.3, [1])


def test_predict_evaluate_compare(discs: Path, disc_run: Path, tmp_path: Path, run_cli: Cli) -> None:
    images = discs / "val" / "images"
    done = run_cli("predict", disc_run, images, "-o", tmp_path / "painted", "--overlay", "--probabilities")
    assert done.code == 0, done.err
    assert "3 images: 3 done" in done.out
    assert "3 skipped" in run_cli("predict", disc_run, images, "-o", tmp_path / "painted").out
    done = run_cli("evaluate", disc_run, discs, "--json", tmp_path / "scores.json", "--picture", tmp_path / "worst.png")
    assert done.code == 0, done.err
    assert "foreground" in done.out
    assert "3 images (val; the weights were chosen by these, or some of them)" in " ".join(done.out.split()), (
        "which images were scored"
    )
    assert json.loads((tmp_path / "scores.json").read_text())["versions"]["whatwhere"] == whatwhere.__version__
    with Image.open(tmp_path / "worst.png") as sheet:
        assert sheet.width > 100
    done = run_cli("compare", disc_run, disc_run / "last.safetensors", discs, "--json", tmp_path / "differences.json")
    assert done.code == 0, done.err
    assert "3 images (val; the weights of both models were chosen by these" in " ".join(done.out.split())
    assert json.loads((tmp_path / "differences.json").read_text())["versions"]["whatwhere"] == whatwhere.__version__


@pytest.mark.slow
def test_scores_are_kept_whatever_the_screen_can_show(discs: Path, disc_run: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "whatwhere", "evaluate", disc_run, discs, "--json", "s.json", "--no-picture"]
    environment = {**os.environ, "PYTHONIOENCODING": "ascii"}
    done = subprocess.run(command, env=environment, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "foreground" in done.stdout
    assert [path.name for path in tmp_path.iterdir()] == ["s.json"]
    reading, writing = os.pipe()
    os.close(reading)
    again = [*command[:-2], "again.json", "--no-picture"]
    with os.fdopen(writing, "wb") as gone:
        subprocess.run(again, cwd=tmp_path, stdout=gone, stderr=subprocess.DEVNULL, check=False)
    assert (tmp_path / "again.json").exists(), "though nobody reads"


def test_images_with_two_folders_of_masks_are_explored_as_images(
    discs: Path, disc_run: Path, tmp_path: Path, run_cli: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    given: list[tuple[object, ...]] = []
    monkeypatch.setattr("whatwhere.explorer.serve.explore", lambda *arguments, **_: given.append(arguments[1:]))
    for kind in ("images", "mask", "1st_manual"):
        shutil.copytree(discs / "val/images", tmp_path / kind)
    assert run_cli("explore", disc_run, tmp_path).code == 0
    assert given == [([tmp_path], None)]
    assert run_cli("explore", disc_run, discs).code == 0
    assert given[1][0] == []
    assert given[1][1] is not None


def test_one_bad_file_is_reported_and_the_rest_are_done(
    discs: Path, disc_run: Path, tmp_path: Path, run_cli: Cli
) -> None:
    good = sorted((discs / "val" / "images").iterdir())
    bad = tmp_path / "a bad one.png"
    bad.write_text("no picture")
    done = run_cli("predict", disc_run, good[0], bad, good[1], "-o", tmp_path / "out")
    assert done.code == 1
    assert "3 images: 2 done, 1 failed" in done.out
    assert "a bad one.png" in done.out
    assert len(list((tmp_path / "out").glob("disc*.png"))) == 2


def test_a_run_there_already_is_not_written_over(discs: Path, disc_run: Path, run_cli: Cli) -> None:
    done = run_cli("train", discs, "-o", disc_run, "--epochs", 1)
    assert done.code == 2
    assert "already holds a run" in done.err


def test_nothing_to_resume(discs: Path, tmp_path: Path, run_cli: Cli) -> None:
    done = run_cli("train", discs, "-o", tmp_path / "run", "--resume")
    assert done.code == 2
    assert "holds no run" in done.err
    assert "leave out --resume" in done.err


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--seed", 7), "seed = 0, and 7 is asked for"),
        (("--skips", "none"), "network.skips = (0, 1), and () is asked for"),
        (("--time", "3m"), "training.time = '', and '3m' is asked for"),
        (("--epochs", 99), "and 99.0 is asked for"),
    ],
)
def test_a_run_that_goes_on_keeps_its_plan(
    options: tuple[object, ...], words: str, discs: Path, disc_run: Path, run_cli: Cli
) -> None:
    done = run_cli("train", discs, "-o", disc_run, "--resume", *options)
    assert done.code == 2
    assert words in done.err
    assert "leave that option out" in done.err


def test_options_that_agree_with_the_run_s_plan_change_nothing(discs: Path, disc_run: Path, run_cli: Cli) -> None:
    done = run_cli(
        "train", discs, "-o", disc_run, "--resume", "--seed", 0, "--skips", "all", "--plan", disc_run / "plan.toml"
    )
    assert done.code == 0, done.err
    assert "this run is finished" in done.out
    assert "plan: 2 classes; 10 train, 3 val; width 4, depth 2, skips 0,1" in done.out


def test_a_plan_of_another_run_is_refused(
    discs: Path, disc_run: Path, disc_plan: Plan, tmp_path: Path, run_cli: Cli
) -> None:
    from dataclasses import replace

    other = write_plan(replace(disc_plan, network=replace(disc_plan.network, width=8)), tmp_path / "plan.toml")
    done = run_cli("train", discs, "-o", disc_run, "--resume", "--plan", other)
    assert done.code == 2
    assert "network.width = 4, and 8 is asked for" in done.err


def test_a_plan_leaves_out_what_has_no_mask_and_can_be_read(discs: Path, tmp_path: Path, run_cli: Cli) -> None:
    data = tmp_path / "my data"
    for kind in ("images", "masks"):
        shutil.copytree(discs / "train" / kind, data / kind)
    (data / "masks" / "disc 03.png").unlink()
    (data / "val.txt").write_text("disc 01\n")
    done = run_cli("plan", data, "-o", tmp_path / "plan.toml", "--epochs", 1, "--device", "cpu")
    assert done.code == 0, done.err
    assert f"whatwhere train '{data}' -o RUN" in done.out
    assert "warning: 1 list of names that may say how to divide the images: lists are not read" in done.out
    assert f"warnings about the data; which files, and what to do: whatwhere check '{data}'" in done.out
    plan = read_plan(tmp_path / "plan.toml")
    assert set(plan.split) == {"train", "val"}
    assert sum(map(len, plan.split.values())) == 9
    assert plan.training.device == "cpu"


# -- faults of the program itself --------------------------------------------------------------------------------------


def test_a_fault_is_not_blamed_on_the_input(run_cli: Cli, discs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object, **__: object) -> None:
        raise ZeroDivisionError("in the deep")

    monkeypatch.setattr("whatwhere.verbs.check", broken)
    done = run_cli("check", discs)
    assert done.code == 3
    assert "ZeroDivisionError: in the deep" in done.err
    assert "fault of whatwhere" in done.err
    assert "Traceback" not in done.err
    with pytest.raises(ZeroDivisionError):
        run_cli("check", discs, "--debug")


def test_debug_lets_the_error_out_with_its_traceback(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["whatwhere", "check", str(tmp_path / "none"), "--debug"])
    with pytest.raises(DataError):
        cli.main()


# -- interrupted -------------------------------------------------------------------------------------------------------


def test_ctrl_c_exits_with_130_and_the_run_goes_on(discs: Path, disc_plan: Plan, tmp_path: Path, run_cli: Cli) -> None:
    from dataclasses import replace

    plan = write_plan(replace(disc_plan, training=replace(disc_plan.training, epochs=40.0)), tmp_path / "plan.toml")
    run = tmp_path / "run"
    command = [sys.executable, "-m", "whatwhere", "train", discs, "-o", run, "--plan", plan, "-q"]
    child = subprocess.Popen(  # a test run in the background would hand on that Ctrl-C is ignored
        command,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    while not (run / "history.jsonl").exists() and child.poll() is None:
        time.sleep(0.05)
    child.send_signal(signal.SIGINT)
    out, err = child.communicate(timeout=300)
    assert child.returncode == 130, (out, err)
    assert "go on with --resume" in out
    assert "Traceback" not in err
    kept = (run / "plan.toml").read_text("utf-8")
    (run / "plan.toml").write_text(kept.replace("epochs = 40.0", "epochs = 0.2"), "utf-8")
    done = run_cli("train", discs, "-o", run, "--resume", "-q")
    assert done.code == 0, done.err
    assert "going on from step" in done.out
