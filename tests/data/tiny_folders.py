"""Make tiny images, masks and data folders."""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

Pair = tuple[NDArray[np.generic], NDArray[np.generic] | None]


def photo(seed: int, size: tuple[int, int] = (48, 64)) -> NDArray[np.uint8]:
    """A smooth random colour image unlike that of any other seed."""
    coarse = np.random.default_rng(seed).integers(20, 236, (6, 8, 3), np.uint8)
    return np.asarray(Image.fromarray(coarse).resize(size[::-1], Image.Resampling.BICUBIC))


def disc(row: int = 20, column: int = 24, radius: int = 9, size: tuple[int, int] = (48, 64)) -> NDArray[np.uint8]:
    """A mask of 0 with a disc of 1."""
    y, x = np.ogrid[: size[0], : size[1]]
    return ((y - row) ** 2 + (x - column) ** 2 <= radius**2).astype(np.uint8)


def save(path: Path, array: NDArray[np.generic]) -> None:
    """Write an array by Pillow in the format of the path's ending."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(array).save(path)


def write_folder(root: Path, pairs: dict[str, Pair], classes: str = "") -> Path:
    """Write ``{"train/a": (image, mask or None)}`` as PNG files; a name without a slash has no split."""
    for name, (image, mask) in pairs.items():
        split, _, stem = name.rpartition("/")
        save(root / split / "images" / f"{stem}.png", image)
        (root / split / "masks").mkdir(parents=True, exist_ok=True)
        if mask is not None:
            save(root / split / "masks" / f"{stem}.png", mask)
    if classes:
        (root / "classes.toml").write_text(classes, "utf-8")
    return root
