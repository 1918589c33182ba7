"""The README's journey as a new user takes it, with the data that people really have; once through the real program."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import tifffile
from PIL import Image

from tiny import Cli, disc_picture

Say = Callable[..., str]
"""A command of the program, given as arguments, to what it printed."""


def real(folder: Path, *arguments: object) -> str:
    """In a process of its own."""
    command = [sys.executable, "-m", "whatwhere", *map(str, arguments)]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
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


def test_from_a_folder_to_painted_images(tmp_path: Path) -> None:
    palette_masks(tmp_path / "my data, ñ")
    _journey(tmp_path, partial(real, tmp_path))


def test_the_same_with_a_microscopes_images(tmp_path: Path, run_cli: Cli) -> None:
    grey_16_bit(tmp_path / "my data, ñ")
    _journey(tmp_path, partial(_here, run_cli))


def _here(run_cli: Cli, *arguments: object) -> str:
    """In this process, which has imported all that it takes."""
    done = run_cli(*arguments)
    assert done.code == 0, done.err + done.out
    return done.out


def _journey(tmp_path: Path, whatwhere: Say) -> None:
    data = tmp_path / "my data, ñ"
    assert "12" in whatwhere("check", data.name)

    said = whatwhere("plan", data.name, "-o", "plan.toml", "--epochs", "3")
    assert "inferred from the masks" in said
    text = (tmp_path / "plan.toml").read_text("utf-8")
    for old, new in (("width = 32", "width = 8"), ("learning_rate = 0.003", "learning_rate = 0.02")):
        assert old in text
        text = text.replace(old, new)
    lines = ["batch = 4" if line.startswith("batch = ") else line for line in text.splitlines()]
    (tmp_path / "plan.toml").write_text("\n".join(lines), "utf-8")

    said = whatwhere("train", data.name, "-o", "run", "--plan", "plan.toml")
    assert "mean IoU" in said
    assert (tmp_path / "run" / "model.safetensors").is_file()

    images = next(folder for folder in data.iterdir() if folder.name.lower() == "images")
    said = whatwhere("predict", "run", images.relative_to(tmp_path), "-o", "painted", "--overlay")
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

    said = whatwhere("evaluate", "run", data.name, "--json", "scores.json")
    assert "worst images: worst.png" in said
    scores = json.loads((tmp_path / "scores.json").read_text("utf-8"))
    assert scores
    with Image.open(tmp_path / "worst.png") as sheet:
        assert sheet.width > 100
