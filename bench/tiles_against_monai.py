"""Exact tiles against sliding windows: seconds, and how far each is from the whole image in one piece.

Peers, on the same network and machine and in the same run: MONAI's ``sliding_window_inference`` (512 roi, Gaussian,
overlap 0.25 and 0.5) and nnU-Net's way (half-step Gaussian tiles, sums kept in half precision). All in float32 with
whatwhere in float32 too, and whatwhere again with its defaults for this machine.

    python bench/tiles_against_monai.py                      # 2048x2048 and 4096x4096
    python bench/tiles_against_monai.py --sizes 2048 --rounds 3
    python bench/tiles_against_monai.py --sizes 4096 --only 0.25   # of the peers one; whatwhere is always there
    python bench/tiles_against_monai.py --model RUN          # a trained one; its int8 too, where `quantise` has kept it
    python bench/tiles_against_monai.py --quick
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from dataclasses import replace

import torch
from monai.inferers import sliding_window_inference
from torch import Tensor, nn

from common import header, interleaved, model_of, rows, table, unet
from whatwhere.network import load_model
from whatwhere.paint import Engine, paint
from whatwhere.paint.kept import int8_files
from whatwhere.paint.prove import tiled_logits
from whatwhere.paint.scheme import scheme
from whatwhere.paint.sources import ArraySource

ROI = 512


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", type=int, nargs="+", default=[2048, 4096])
    parser.add_argument("--width", type=int, default=32, help="channels at level 0")
    parser.add_argument("--model", help="a trained model file, instead of a network with random weights")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--only", nargs="+", default=[""], help="parts of the names of peers")
    parser.add_argument("--quick", action="store_true", help="small sizes, to see that it works")
    options = parser.parse_args()
    if options.quick:
        options.sizes, options.width, options.rounds = [700], 4, 1
    print(header("monai"))
    model = load_model(options.model) if options.model else model_of(unet(options.width))
    bare = replace(model, source=None)  # the default would take the int8 beside its file; both are to be seen
    engines = {"whatwhere, float32": Engine(bare, "float32"), "whatwhere, default": Engine(bare)}
    if model.source and int8_files(model.source)[1].is_file():
        engines["whatwhere, int8"] = Engine(model, backend="int8")
    for engine in engines.values():
        paint(engine, rows(256).permute(1, 2, 0).numpy())  # warms up, and finds the halo, once a model
        engine.geometry.halo  # noqa: B018
    for size in options.sizes:
        _compare(size, model.network, engines, options.only, options.rounds)


def _compare(size: int, network: nn.Module, engines: dict[str, Engine], only: list[str], rounds: int) -> None:
    image = rows(size).permute(1, 2, 0).numpy()
    batch = engines["whatwhere, float32"].model.normalise(image)[None]
    found: dict[str, Tensor] = {}

    def keep(name: str, run: Callable[[], Tensor]) -> Callable[[], None]:
        def call() -> None:
            with torch.inference_mode():
                found[name] = run()

        return call

    peers: dict[str, Callable[[], None]] = {
        name: keep(name, lambda engine=engine: torch.from_numpy(paint(engine, image).labels))  # type: ignore[misc]
        for name, engine in engines.items()
    }
    for overlap in (0.25, 0.5):
        peers[f"MONAI, overlap {overlap}"] = keep(
            f"MONAI, overlap {overlap}",
            lambda overlap=overlap: sliding_window_inference(  # type: ignore[misc]
                batch, ROI, 1, network, overlap=overlap, mode="gaussian"
            )[0],
        )
    peers["nnU-Net's way"] = keep("nnU-Net's way", lambda: _half_steps(batch, network)[0])
    peers = {name: run for name, run in peers.items() if name in engines or any(part in name for part in only)}
    seconds = interleaved(peers, rounds)
    whole = _whole(engines["whatwhere, float32"], batch)
    for name, engine in engines.items():  # what was timed gives labels; these are its logits
        found[name] = tiled_logits(engine, ArraySource(image), scheme(engine, (size, size)).tiling)
    fastest = seconds["whatwhere, default"]
    lines = [[name, seconds[name], seconds[name] / fastest, *_against(whole, found[name])] for name in peers]
    print(f"\n{size}x{size}, median of {rounds} rounds; against the whole image in float32\n")
    print(table(["", "seconds", "times ours", "largest logit difference", "labels different, %"], lines))


def _whole(engine: Engine, batch: Tensor) -> Tensor:
    """The truth: the whole image in one piece (some GiB of memory)."""
    return engine.logits(batch)[0]


def _against(whole: Tensor, found: Tensor) -> tuple[float, float]:
    different = (found.argmax(0) != whole.argmax(0)).float().mean()
    return float((found - whole).abs().max()), float(different) * 100


def _half_steps(batch: Tensor, network: nn.Module) -> Tensor:
    """Tiles at half steps, Gaussian weights, sums in half precision: the predictor of nnU-Net v2, without mirroring."""
    height, width = batch.shape[-2:]
    ys, xs = ([int(v) for v in _steps(n)] for n in (height, width))
    bell = torch.exp(-0.5 * ((torch.arange(ROI) - (ROI - 1) / 2) / (ROI / 8)) ** 2)
    weights = (bell[:, None] * bell).clamp_min(1e-4).half()
    sums: Tensor | None = None
    total = torch.zeros(height, width, dtype=torch.half)
    for y in ys:
        for x in xs:
            logits = network(batch[..., y : y + ROI, x : x + ROI])[0].half()
            sums = torch.zeros(logits.shape[0], height, width, dtype=torch.half) if sums is None else sums
            sums[:, y : y + ROI, x : x + ROI] += logits * weights
            total[y : y + ROI, x : x + ROI] += weights
    assert sums is not None
    return (sums / total)[None].float()


def _steps(size: int) -> Tensor:
    count = -(-(size - ROI) // (ROI // 2)) + 1
    return torch.linspace(0, size - ROI, count).round()


if __name__ == "__main__":
    main()
