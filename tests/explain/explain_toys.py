"""Small nets trained for seconds on toy pictures: discs of two classes, told apart by a dot in their middle."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from torch.nn import functional as F

from whatwhere.data.sets import ImageSet, from_arrays
from whatwhere.explain.cases import Case
from whatwhere.network import Model, UNet
from whatwhere.records import Classes, Normalisation

SIDE = 48
CLASSES = Classes(("ground", "apple", "plum"), ((236, 231, 221), (213, 94, 0), (0, 114, 178)), ((0,), (1,), (2,)))
NORMALISATION = Normalisation((110.0, 100.0, 90.0), (50.0, 50.0, 50.0))

Pair = tuple[NDArray[np.uint8], NDArray[np.uint8]]


def toy(seed: int, hidden: bool = False) -> Pair:
    """An image with two discs and its labels. With ``hidden`` they are twice as large and of one colour, and only a dot
    at the top of each tells its class.
    """
    side = 2 * SIDE if hidden else SIDE
    rng = np.random.default_rng(seed)
    image = rng.normal(95, 12, (side, side, 3))
    labels = np.zeros((side, side), np.uint8)
    rows, columns = np.indices((side, side))
    for half, class_id in enumerate(rng.permutation([1, 2])):
        radius = int(rng.integers(7, 11)) * (2 if hidden else 1)
        row, column = rng.integers(radius + 1, side - radius - 1), rng.integers(radius, side // 2 - radius + 2)
        away = np.hypot(rows - row, columns - (column + half * side // 2))
        colour = (200, 90, 70) if class_id == 1 or hidden else (80, 90, 200)
        image[away <= radius] = np.array(colour) + rng.normal(0, 10, (int((away <= radius).sum()), 3))
        labels[away <= radius] = class_id
        if hidden:
            mark = np.hypot(rows - row + radius - 3, columns - (column + half * side // 2)) <= 2
            image[mark] = (250, 250, 250) if class_id == 1 else (10, 10, 10)
    return np.clip(image, 0, 255).astype(np.uint8), labels


def toys(count: int, start: int = 0, **how: bool) -> list[Pair]:
    return [toy(start + index, **how) for index in range(count)]


def as_set(pairs: Sequence[Pair]) -> ImageSet:
    return from_arrays(
        [image for image, _ in pairs], [labels for _, labels in pairs], [f"toy-{i}" for i in range(len(pairs))]
    )


def as_cases(model: Model, pairs: Sequence[Pair]) -> tuple[Case, ...]:
    return tuple(
        Case(f"toy-{i}", image, labels, model.normalise(image)[None]) for i, (image, labels) in enumerate(pairs)
    )


def train(network: nn.Module, pairs: Sequence[Pair], steps: int = 120, **how: object) -> Model:
    """A few seconds of AdamW on cross-entropy; deterministic."""
    model = Model(network, CLASSES, NORMALISATION, versions={})
    images = torch.stack([model.normalise(image) for image, _ in pairs])
    labels = torch.stack([torch.from_numpy(of.astype(np.int64)) for _, of in pairs])
    skips = how.get("skips")
    optimizer = torch.optim.AdamW(network.parameters(), lr=5e-3)
    generator = torch.Generator().manual_seed(0)
    network.train()
    for _ in range(steps):
        chosen = torch.randint(len(pairs), (8,), generator=generator)
        logits = network(images[chosen], skips=skips) if skips else network(images[chosen])
        loss = F.cross_entropy(logits, labels[chosen], ignore_index=255)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    network.eval()
    return model


def fresh(seed: int = 0, **how: object) -> UNet:
    torch.manual_seed(seed)
    return UNet(3, 3, **({"width": 8, "depth": 2} | how))  # type: ignore[arg-type]
