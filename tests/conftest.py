"""A tiny data folder and a model trained on it, made once for all rooms. Both are only to be read."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image

from whatwhere import segmenter
from whatwhere.learn.plan import Plan
from whatwhere.network import Model, load_model

torch.set_num_threads(1)


def disc_picture(seed: int, side: int = 40) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """A bright disc on a mottled ground, ``HxWx3`` uint8, and its mask of 0 and 255."""
    rng = np.random.default_rng([7, seed])
    y, x = np.ogrid[:side, :side]
    row, column, radius = rng.uniform(10, side - 10, 2).tolist() + [rng.uniform(5, 9)]
    disc = (y - row) ** 2 + (x - column) ** 2 <= radius**2
    image = rng.integers(20, 110, (side, side, 3)) + disc[..., None] * rng.integers(90, 140, 3)
    return image.clip(0, 255).astype(np.uint8), np.where(disc, 255, 0).astype(np.uint8)


def write_discs(root: Path, train: int, val: int) -> Path:
    for index in range(train + val):
        split = root / ("train" if index < train else "val")
        for kind, array in zip(("images", "masks"), disc_picture(index)):
            (split / kind).mkdir(parents=True, exist_ok=True)
            Image.fromarray(array).save(split / kind / f"disc {index:02}.png")
    return root


def tiny(plan: Plan, **training: object) -> Plan:
    """The plan with the smallest network that is one."""
    return replace(
        plan,
        network=replace(plan.network, width=4, depth=2, skips=(0, 1)),
        training=replace(plan.training, **{"crop": 32, "batch": 2, "precision": "float32", "learning_rate": 0.02, **training}),
    )


@pytest.fixture(scope="session")
def discs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data folder with 10 + 3 images of 40x40 pixels and two classes."""
    return write_discs(tmp_path_factory.mktemp("data") / "discs", train=10, val=3)


@pytest.fixture(scope="session")
def disc_plan(discs: Path) -> Plan:
    """A tiny plan for the discs: 40 steps of 2 crops."""
    return tiny(segmenter.plan(discs, epochs=5.0, device="cpu"))


@pytest.fixture(scope="session")
def disc_run(discs: Path, disc_plan: Plan, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run folder of a network that has learnt to find discs."""
    out = tmp_path_factory.mktemp("runs") / "discs"
    segmenter.train(discs, out, plan=disc_plan)
    return out


@pytest.fixture
def disc_model(disc_run: Path) -> Model:
    return load_model(disc_run)
