"""One 512x512 picture from the start of the process to the painted file, and where that time goes.

python bench/predict_end_to_end.py [--rounds 7] [--size 512] [--width 32]
python bench/predict_end_to_end.py --imports     # also the slowest imports
python bench/predict_end_to_end.py --quick
"""

from __future__ import annotations

import argparse
import re
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from PIL import Image

from common import header, model_of, rows, table, unet
from whatwhere.network import save_model

STEPS = {
    "python": "pass",
    "+ torch": "import torch",
    "+ the rooms": "import whatwhere.paint",
    "+ the model": "from whatwhere.network import load_model; import whatwhere.paint; load_model({model!r})",
    "+ the engine": "from whatwhere.network import load_model; from whatwhere.paint import Engine; "
    "Engine(load_model({model!r}))",
}
"""Each a process of its own that goes a step further."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--size", type=int, default=512, help="height and width of the picture")
    parser.add_argument("--width", type=int, default=32, help="channels at level 0")
    parser.add_argument("--imports", action="store_true", help="list the imports that take longest")
    parser.add_argument("--quick", action="store_true", help="small, to see that it works")
    options = parser.parse_args()
    if options.quick:
        options.rounds, options.size, options.width = 1, 64, 4
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        model = save_model(model_of(unet(options.width)), folder / "model.safetensors")
        Image.fromarray(rows(options.size).permute(1, 2, 0).numpy()).save(folder / "picture.png")
        command = ["-m", "whatwhere", "predict", str(model), str(folder / "picture.png"), "--overwrite", "-o"]
        peers = {name: ["-c", code.format(model=str(model))] for name, code in STEPS.items()}
        peers["whatwhere predict"] = [*command, str(folder / "out")]
        seconds = timed(peers, options.rounds)
        assert (folder / "out/picture.png").is_file()
        slowest = imports([*command, str(folder / "out")]) if options.imports else []
    print(header())
    print(
        f"\none {options.size}x{options.size} PNG, U-Net of base {options.width} and 4 downs, {options.rounds} rounds\n"
    )
    lines = [[name, statistics.median(s), min(s), max(s)] for name, s in seconds.items()]
    print(table(["process", "s, median", "lowest", "highest"], lines))
    if slowest:
        print("\n" + table(["import", "s with what it imports"], slowest))


def timed(peers: dict[str, list[str]], rounds: int) -> dict[str, list[float]]:
    """Wall seconds of whole processes in interleaved rounds, after one that fills the disk cache."""
    seconds: dict[str, list[float]] = {name: [] for name in peers}
    for number in range(rounds + 1):
        for name, arguments in peers.items():
            start = time.perf_counter()
            subprocess.run([sys.executable, *arguments], check=True, stdout=subprocess.DEVNULL)
            if number:
                seconds[name].append(time.perf_counter() - start)
    return seconds


def imports(arguments: list[str], count: int = 25) -> list[list[object]]:
    """The imports of a command that take longest, each with all that it imports."""
    done = subprocess.run(
        [sys.executable, "-X", "importtime", *arguments], check=True, capture_output=True, text=True
    )  # fmt: skip
    found = re.findall(r"import time:\s+\d+ \|\s+(\d+) \| +(\S+)", done.stderr)
    return [[name, int(total) / 1e6] for total, name in sorted(((int(t), n) for t, n in found), reverse=True)[:count]]


if __name__ == "__main__":
    main()
