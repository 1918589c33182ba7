"""A tiny data folder and a model trained on it, made once for all rooms. Both are only to be read."""

from __future__ import annotations

import gc
import os
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from threadpoolctl import threadpool_limits
from torch import nn

from tiny import Cli, Done, tiny, write_discs
from whatwhere import cli, verbs
from whatwhere.explain import graph_anatomy
from whatwhere.learn.plan import Plan
from whatwhere.network import Model, load_model

torch.set_num_threads(1)
threadpool_limits(1)  # also of what numpy calls: two files are tested at a time
os.environ.update(OMP_NUM_THREADS="1", OPENBLAS_NUM_THREADS="1")  # and of the programs that tests start


def pytest_collection_finish() -> None:
    """What was imported stays to the end: looking through it for garbage, again and again, took a tenth of the time."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(100_000, 20, 100)


@pytest.fixture(scope="session")
def discs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data folder with 10 + 3 images of 40x40 pixels and two classes."""
    return write_discs(tmp_path_factory.mktemp("data") / "discs", train=10, val=3)


@pytest.fixture(scope="session")
def disc_plan(discs: Path) -> Plan:
    """A tiny plan for the discs: 40 steps of 2 crops."""
    return tiny(verbs.plan(discs, epochs=5.12, device="cpu"))


@pytest.fixture(scope="session")
def disc_run(discs: Path, disc_plan: Plan, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run folder of a network that has learnt to find discs."""
    out = tmp_path_factory.mktemp("runs") / "discs"
    verbs.train(discs, out, plan=disc_plan)
    return out


@pytest.fixture
def disc_model(disc_run: Path) -> Model:
    return load_model(disc_run)


@pytest.fixture
def exported(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, ...]]:
    """The sizes of image for which networks made elsewhere are exported to be explained, as it happens."""
    sizes: list[tuple[int, ...]] = []

    class Watched(graph_anatomy._Program):
        def __init__(self, network: nn.Module, may_be_map: Any, shape: tuple[int, ...]) -> None:
            sizes.append(shape[2:])
            super().__init__(network, may_be_map, shape)

    monkeypatch.setattr(graph_anatomy, "_Program", Watched)
    return sizes


@pytest.fixture
def run_cli(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], tmp_path: Path) -> Cli:
    """Runs the command line in this process, in an empty folder."""
    monkeypatch.chdir(tmp_path)

    def run(*arguments: object) -> Done:
        monkeypatch.setattr(sys, "argv", ["whatwhere", *map(str, arguments)])
        capfd.readouterr()
        with pytest.raises(SystemExit) as ended:
            cli.main()
        said = capfd.readouterr()
        return Done(int(ended.value.code or 0), said.out, said.err)

    return run
