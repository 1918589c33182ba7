"""Does memory grow with the image? Peak resident memory and time per pixel of `predict`, from file to file.

Each size runs in a process of its own, on a tiled TIFF made on the disk first, with a small network.

    python bench/memory_flat.py                       # 4096, 8192, 16384 and 32768 pixels a side
    python bench/memory_flat.py --sizes 4096 8192 --width 32
    python bench/memory_flat.py --backend eager       # one way to compute at every size: does time grow as pixels do?
    python bench/memory_flat.py --quick
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import tifffile

from common import header, model_of, rows, table, unet

TILE = 512


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", type=int, nargs="+", default=[4096, 8192, 16384, 32768])
    parser.add_argument("--width", type=int, default=4, help="channels at level 0")
    parser.add_argument("--depth", type=int, default=3)
    parser.add_argument("--backend", default="auto", help="as of whatwhere predict")
    parser.add_argument("--folder", type=Path, help="where the images are made; some GiB; default: a temporary folder")
    parser.add_argument("--quick", action="store_true", help="small sizes, to see that it works")
    parser.add_argument("--one", nargs=4, help=argparse.SUPPRESS)  # the inside of a child process
    options = parser.parse_args()
    if options.one:
        _child(*map(Path, options.one[:3]), options.one[3])
        return
    if options.quick:
        options.sizes = [1024, 4608]
    from whatwhere.network import save_model

    print(header("tifffile"))
    lines = []
    with tempfile.TemporaryDirectory(dir=options.folder) as name:
        folder = Path(name)
        save_model(model_of(unet(options.width, options.depth)), folder / "model.safetensors")
        for size in options.sizes:
            image = _make(folder / f"{size}.tif", size)
            lines.append(_line(size, folder, image, options.backend))
            image.unlink()
    print(f"\nU-Net of base {options.width} and {options.depth} downs, tiled TIFF to tiled TIFF\n")
    print(table(["image", "peak resident GiB", "seconds", "of them painting", "microseconds a pixel", "how"], lines))
    print(_course([float(size) ** 2 for size in options.sizes], [line[3] for line in lines]))


def _course(pixels: list[float], seconds: list[float]) -> str:
    """Painting as a start and a pace, the same relative error allowed at every size; how far each size is from it."""
    weighed = np.array([[1 / s, n / s] for n, s in zip(pixels, seconds)])
    start, pace = np.linalg.lstsq(weighed, np.ones(len(seconds)), rcond=None)[0]
    off = ", ".join(f"{100 * (s / (start + pace * n) - 1):+.0f} %" for n, s in zip(pixels, seconds))
    return f"\nPainting takes {start:.2f} s to start and {pace * 1e6:.3f} microseconds a pixel; off by {off}"


def _line(size: int, folder: Path, image: Path, backend: str) -> list[Any]:
    arguments = ["--one", str(folder / "model.safetensors"), str(image), str(folder / "out"), backend]
    child = subprocess.run([sys.executable, __file__, *arguments], capture_output=True, text=True, check=True)
    record = json.loads(child.stdout.splitlines()[-1])
    painting = record["painting"]
    pace = painting / size**2 * 1e6
    return [f"{size}x{size}", record["peak"] / 2**30, record["seconds"], painting, pace, record["how"]]


def _make(path: Path, size: int) -> Path:
    """A tiled TIFF, of one piece of texture over and over: only its size matters here."""
    piece = rows(TILE).permute(1, 2, 0).numpy()

    def tiles() -> Iterator[np.ndarray]:
        for index in range((-(-size // TILE)) ** 2):
            yield np.roll(piece, index % TILE, axis=0)

    tifffile.imwrite(
        path, tiles(), shape=(size, size, 3), dtype=np.uint8, tile=(TILE, TILE), photometric="rgb",
        compression="zlib", compressionargs={"level": 1}, bigtiff=size > 16384,
    )  # fmt: skip
    return path


def _child(model: Path, image: Path, out: Path, backend: str) -> None:
    from whatwhere.paint import predict

    start = time.perf_counter()
    done = predict(model, image, out, backend=backend)
    seconds = time.perf_counter() - start
    assert not done.failed, str(done)
    status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    peak = int(status["VmHWM"].split()[0]) * 1024
    report = done.items[0].report
    assert report is not None
    how = f"{report.tiles} of {report.tile[0]}x{report.tile[1]} by {report.backend}"
    print(json.dumps({"peak": peak, "seconds": seconds, "painting": report.seconds, "how": how}))


if __name__ == "__main__":
    main()
