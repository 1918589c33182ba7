"""The explorer with a network that takes multiples of its stride only, and is exported for every size of image."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from painting import model_of
from PIL import Image
from torch import nn

from tiny import disc_picture
from whatwhere.data.sets import ImageSet, from_arrays
from whatwhere.errors import WhatwhereError
from whatwhere.explorer import Desk


class Elsewhere(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.top, self.norm = nn.Conv2d(3, 4, 3, padding=1), nn.BatchNorm2d(4)
        self.down, self.up = nn.Conv2d(4, 8, 3, stride=2, padding=1), nn.ConvTranspose2d(8, 4, 2, 2)
        self.head = nn.Conv2d(8, 2, 1)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        top = self.norm(self.top(image)).relu()
        return self.head(torch.cat([top, self.up(self.down(top).relu())], 1))


def discs(*heights: int) -> ImageSet:
    pairs = [disc_picture(seed, 64) for seed in range(len(heights))]
    images = [image[:height] for height, (image, _) in zip(heights, pairs)]
    masks = [(mask[:height] > 0).astype(np.uint8) for height, (_, mask) in zip(heights, pairs)]
    return from_arrays(images, masks, [f"disc {seed}" for seed in range(len(heights))])


def test_an_image_of_an_odd_size_is_no_hindrance() -> None:
    torch.manual_seed(0)
    desk = Desk([("own", model_of(Elsewhere(), classes=2))], data=discs(64, 63))
    for image, height in (("i0", 64), ("i1", 63)):
        here = {"model": "m0", "image": image, "x": 63, "y": height - 1}
        assert desk.geometry("m0", image)["layers"]["output"]["rows"][-1] == [60, height]
        assert len(desk.pixel(here)["cuts"]) == 2
        edits = [{"kind": "grey", "x": 60, "y": height - 2, "radius": 3}]
        assert desk.painting({**here, "edits": edits})["edited"]["outside_changed"] == 0
        assert desk.evidence(here, lambda: False)["completeness"] < 0.05


def test_clicks_all_over_an_image_export_the_network_once_more(exported: list[tuple[int, ...]]) -> None:
    torch.manual_seed(0)
    desk = Desk([("own", model_of(Elsewhere(), classes=2))], data=discs(64))
    for x, y in ((0, 0), (30, 0), (30, 31), (63, 1), (63, 63), (2, 60)):
        desk.evidence({"model": "m0", "image": "i0", "x": x, "y": y}, lambda: False)
    assert exported[0] == (64, 64)
    assert len(exported) == 2


class Flat(nn.Module):
    """No level: on an image of one pixel nothing of it is a map."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.head = nn.Conv2d(3, 4, 3, padding=1), nn.Conv2d(4, 2, 1)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        return self.head(self.first(image).relu())


@pytest.mark.parametrize("network", [Elsewhere, Flat])
def test_an_image_too_small_for_its_levels_spoils_no_other(network: type[nn.Module], tmp_path: Path) -> None:
    torch.manual_seed(0)
    paths = [tmp_path / "speck.png", tmp_path / "disc.png"]
    for path, side in zip(paths, (1, 32)):
        Image.fromarray(disc_picture(0, 64)[0][:side, :side]).save(path)
    desk = Desk([("own", model_of(network(), classes=2))], paths)
    assert desk.pixel({"model": "m0", "image": "i1", "x": 5, "y": 5})["cuts"]
    patches = desk.features("m0", "i1", "bottleneck")["maps"][0]["patches"]
    assert len(patches) == 1, "the small one has other features"
    for ask in (
        lambda: desk.pixel({"model": "m0", "image": "i0", "x": 0, "y": 0}),
        lambda: desk.painting({"model": "m0", "image": "i0"}),
    ):
        with pytest.raises(WhatwhereError, match="other levels on images of 1x1 px"):
            ask()
    with pytest.raises(WhatwhereError, match=r"own has other levels on speck.png, of 1 x 1 px"):
        desk.features("m0", "i0", "bottleneck")
    with pytest.raises(WhatwhereError, match=r"other levels on speck.png"):
        _ = Desk([("own", model_of(network(), classes=2))], paths[:1]).lenses["m0"].means
