"""Are tiles the whole image? Largest logit difference, labels changed, and what one stride less of halo does.

python bench/tiles_exact.py             # 2048x2048, base-32 U-Net of 4 downs
python bench/tiles_exact.py --quick
"""

from __future__ import annotations

import argparse

import torch

from common import header, model_of, rows, table, unet
from whatwhere.paint import Engine, Tiling
from whatwhere.paint.prove import Proof, prove


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", type=int, default=2048, help="height and width of the image")
    parser.add_argument("--width", type=int, default=32, help="channels at level 0")
    parser.add_argument("--tiles", type=int, nargs="+", default=[512, 640, 768, 1024])
    parser.add_argument("--quick", action="store_true", help="small sizes, to see that it works")
    options = parser.parse_args()
    if options.quick:
        options.size, options.width, options.tiles = 400, 4, [256, 320]
    print(header())
    image = rows(options.size).permute(1, 2, 0).numpy()
    engine = Engine(model_of(unet(options.width)), "float32")
    lines = [_line(engine, prove(engine, image, tile=tile, crop=options.size)) for tile in options.tiles]
    print(f"\n{options.size}x{options.size}, U-Net of base {options.width} and 4 downs, float32\n")
    print(table(["tile", "tiles", "halo", "largest logit", "largest difference", "labels changed",
                 "beyond the margin", "difference with one stride less"], lines))  # fmt: skip
    assert torch.tensor([line[4] for line in lines]).max() < 1e-4, "tiles differ from the whole image"


def _line(engine: Engine, proof: Proof) -> list[object]:
    tiling = Tiling(proof.size, proof.tile, proof.halo, engine.geometry.period)
    return [
        proof.tile[0], len(tiling), f"{proof.halo[0][0]}+{proof.halo[0][1]}", proof.largest, proof.difference,
        proof.changed, proof.unexplained, proof.less or 0.0,
    ]  # fmt: skip


if __name__ == "__main__":
    main()
