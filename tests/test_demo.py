"""The demo, as small as it goes: does it end with one picture and one page that hold together?"""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import pytest

from tiny import Cli
from whatwhere import demo
from whatwhere.learn.run_folder import RunFolder


@pytest.mark.slow
def test_the_demo_ends_with_a_picture_and_a_page_that_tell_the_story(
    monkeypatch: pytest.MonkeyPatch, run_cli: Cli
) -> None:
    for name, value in {"TRAIN": 12, "VAL": 4, "_EPOCHS": 1.0, "_EXPLAINED": 3}.items():
        monkeypatch.setattr(demo, name, value)
    done = run_cli("demo", "-o", "out", "-q")
    assert done.code == 0, done.err
    out = Path("out")
    assert (out / "three-networks.png").is_file()
    page = (out / "index.html").read_text(encoding="utf-8")
    links = {link for link in re.findall(r'(?:src|href)="([^"#]+)"', page) if not link.startswith("data:")}
    assert links == {"three-networks.png", "explained/index.html"}  # nothing from the network
    assert all((out / link).is_file() for link in links)
    assert page.count("<svg") == 2  # the chart, and each level's painting
    assert page.count("data:image/png") == 12  # image, truth, answer, and nine levels
    measured = json.loads((out / "explained" / "measurements.json").read_text())
    for question, said in measured["answers"].items():
        assert question in page
        assert len(said) > 0
    assert done.out.index("picture:") < done.out.index("page:")
    assert set(json.loads((out / "scores.json").read_text())) == {*demo.NETWORKS, "versions"}


def test_a_finished_demo_is_made_anew(tmp_path: Path, disc_run: Path) -> None:
    run = Path(shutil.copytree(disc_run, tmp_path / "unet"))
    (run / "notes.txt").touch()
    demo._forget(run)
    RunFolder(run).open(resume=False)
    assert (run / "notes.txt").exists()
