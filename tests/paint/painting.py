"""Small models that every test of painting uses."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from whatwhere.network import Model, UNet
from whatwhere.records import Classes, Normalisation

NAMES = ("ground", "cat", "cushion", "lamp")
COLORS = ((20, 20, 30), (242, 165, 65), (60, 140, 200), (240, 240, 120))


def model_of(network: nn.Module, channels: int = 3, classes: int = 3, dtype: str = "uint8") -> Model:
    record = Classes(NAMES[:classes], COLORS[:classes], tuple((i,) for i in range(classes)))
    scale = 50.0 if dtype == "uint8" else 5000.0 if dtype == "uint16" else 1.0
    return Model(network.eval(), record, Normalisation((2 * scale,) * channels, (scale,) * channels, dtype))


def unet(*, seed: int = 0, channels: int = 3, classes: int = 3, width: int = 4, depth: int = 2, **options: Any) -> UNet:
    """A U-Net with random weights and random batch statistics, so that folding them matters."""
    torch.manual_seed(seed)
    network = UNet(channels, classes, width=width, depth=depth, **options)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean = torch.randn_like(module.running_mean) * 0.2
            module.running_var = torch.rand_like(module.running_var) + 0.5
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.normal_(module.bias, std=0.2)
    return network.eval()


def picture(height: int, width: int, channels: int = 3, *, seed: int = 0, dtype: str = "uint8") -> NDArray[Any]:
    """Noise at two scales: nothing in it repeats, so a tile in a wrong place shows."""
    generator = np.random.default_rng(seed)
    coarse = generator.random((height // 16 + 1, width // 16 + 1, channels)).repeat(16, 0).repeat(16, 1)
    values = 0.6 * coarse[:height, :width] + 0.4 * generator.random((height, width, channels))
    if dtype.startswith("float"):
        return (values * 4).astype(dtype)
    return (values * np.iinfo(dtype).max).astype(dtype)


def large_above(patch: pytest.MonkeyPatch, pixels: int = 100) -> None:
    """Images of more pixels count as large: they are read and written by windows."""
    for module in ("files", "outputs"):
        patch.setattr(f"whatwhere.paint.{module}.LARGE", pixels)


def spoil(path: Path, tile: int) -> None:
    """Damages a compressed tile of a TIFF."""
    with tifffile.TiffFile(path) as file:
        offset = file.pages.first.dataoffsets[tile]
    with path.open("r+b") as damaged:
        damaged.seek(offset)
        damaged.write(b"\xff" * 40)


def whole_logits(model: Model, image: NDArray[Any]) -> Tensor:
    """The reference: the user's own module, unfolded, on the whole image at once."""
    network = copy.deepcopy(model.network).float().eval()
    with torch.inference_mode():
        logits: Tensor = network(model.normalise(image)[None])[0]
    return logits


def content(path: Path) -> dict[str, bytes]:
    """What a file or the files below a folder hold, by name; of a chunk of Zarr that it is there, its numbers of all.

    Not the bytes of chunks: zstd may write the same numbers in several ways.
    """
    import zarr

    files = [path] if path.is_file() else sorted(file for file in path.rglob("*") if file.is_file())
    heads = [file for file in files if file.name == "zarr.json"]
    arrays = {file.parent for file in heads if json.loads(file.read_bytes())["node_type"] == "array"}
    found = {one: np.asarray(zarr.open_array(one, mode="r")).tobytes() for one in arrays}
    for file in files:
        found[file] = b"" if arrays & set(file.parents) and file not in heads else file.read_bytes()
    return {one.relative_to(path.parent).as_posix(): held for one, held in found.items()}
