"""The README's journey as a new user takes it, with the data that people really have, through the real program."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import tifffile
from PIL import Image

from tiny import disc_picture


def whatwhere(folder: Path, *arguments: object) -> str:
    """Runs the program in a folder; what it printed."""
    done = subprocess.run(
        [sys.executable, "-m", "whatwhere", *map(str, arguments)], cwd=folder, capture_output=True, text=True,
        check=False, env={**os.environ, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr + done.stdout
    return done.stdout


def palette_masks(data: Path) -> None:
    """Colour photographs, masks with a palette; names with spaces, umlauts, other scripts; endings in capitals."""
    for index in range(12):
        image, mask = disc_picture(index, side=48)
        (data / "Images").mkdir(parents=True, exist_ok=True)
        (data / "Masks").mkdir(exist_ok=True)
        stem = f"Zelle Nr. {index} größer 細胞"
        Image.fromarray(image).save(data / "Images" / f"{stem}.PNG")
        paletted = Image.fromarray((mask > 0).astype(np.uint8))
        paletted.putpalette([10, 10, 40, 250, 160, 60])
        paletted.save(data / "Masks" / f"{stem}.Png")


def grey_16_bit(data: Path) -> None:
    """A microscope's grey TIFF of 16 bits of which 12 are used; masks of 0 and 255."""
    for index in range(12):
        image, mask = disc_picture(index, side=48)
        for kind in ("images", "masks"):
            (data / kind).mkdir(parents=True, exist_ok=True)
        tifffile.imwrite(data / "images" / f"Plate 1 µ{index}.TIF", (image[..., 0].astype(np.uint16) * 16))
        tifffile.imwrite(data / "masks" / f"Plate 1 µ{index}.tiff", mask)


@pytest.mark.parametrize("write", [palette_masks, grey_16_bit])
def test_from_a_folder_to_painted_images(write: object, tmp_path: Path) -> None:
    data = tmp_path / "my data, ñ"
    write(data)  # type: ignore[operator]
    assert "12" in whatwhere(tmp_path, "check", data.name)

    said = whatwhere(tmp_path, "plan", data.name, "-o", "plan.toml", "--epochs", "3")
    assert "inferred from the masks" in said
    text = (tmp_path / "plan.toml").read_text("utf-8")
    for old, new in (("width = 32", "width = 8"), ("learning_rate = 0.003", "learning_rate = 0.02")):
        assert old in text
        text = text.replace(old, new)
    lines = ["batch = 4" if line.startswith("batch = ") else line for line in text.splitlines()]
    (tmp_path / "plan.toml").write_text("\n".join(lines), "utf-8")

    said = whatwhere(tmp_path, "train", data.name, "-o", "run", "--plan", "plan.toml")
    assert "mean IoU" in said
    assert (tmp_path / "run" / "model.safetensors").is_file()

    images = next(folder for folder in data.iterdir() if folder.name.lower() == "images")
    said = whatwhere(tmp_path, "predict", "run", images.relative_to(tmp_path), "-o", "painted", "--overlay")
    assert "12 images: 12 done" in said
    painted = [path for path in sorted((tmp_path / "painted").iterdir()) if path.suffix in (".png", ".tif")]
    labels = [path for path in painted if "overlay" not in path.name]
    assert len(labels) == 12
    colours = {
        tuple(colour)
        for path in labels
        for colour in np.unique(np.asarray(Image.open(path).convert("RGB")).reshape(-1, 3), axis=0)
    }
    assert len(colours) == 2, "two classes, each in its colour"
    assert max(max(colour) for colour in colours) > 100, "never an all-black picture"

    said = whatwhere(tmp_path, "evaluate", "run", data.name, "--json", "scores.json")
    assert "worst images: worst.png" in said
    scores = json.loads((tmp_path / "scores.json").read_text("utf-8"))
    assert scores
    with Image.open(tmp_path / "worst.png") as sheet:
        assert sheet.width > 100
