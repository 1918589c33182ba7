"""Do two workers paint twice as fast, and the same bytes? Dask workers of one thread each, on a Zarr image.

python bench/dask_workers.py
python bench/dask_workers.py --quick
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

import zarr

from common import header, interleaved, model_of, rows, table, unet
from whatwhere.network import save_model
from whatwhere.paint import predict


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", type=int, default=4096)
    parser.add_argument("--width", type=int, default=16, help="channels at level 0")
    parser.add_argument("--tile", type=int, default=704)
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--quick", action="store_true", help="small sizes, to see that it works")
    options = parser.parse_args()
    if options.quick:
        options.size, options.width, options.tile, options.rounds = 1024, 4, 512, 1
    print(header("dask", "distributed", "zarr"))
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        model = save_model(model_of(unet(options.width)), folder / "model.safetensors")
        image = rows(options.size).permute(1, 2, 0).numpy()
        array = zarr.create_array(str(folder / "i.zarr"), shape=image.shape, chunks=(512, 512, 3), dtype="uint8")
        array[...] = image
        reports: dict[int, float] = {}

        def run(count: int) -> None:
            done = predict(
                model,
                folder / "i.zarr",
                folder / f"{count}",
                cluster=f"local:{count}",
                tile=options.tile,
                overwrite=True,
            )
            assert not done.failed, str(done)
            report = done.items[0].report
            assert report is not None
            reports[count] = min(report.seconds, reports.get(count, report.seconds))

        peers = {f"{count}": (lambda count=count: run(count)) for count in options.workers}  # type: ignore[misc]
        seconds = interleaved(peers, options.rounds)
        base = reports[options.workers[0]]
        contents = {count: _content(folder / f"{count}" / "i.zarr") for count in options.workers}
        same = all(content == contents[options.workers[0]] for content in contents.values())
    lines = [[count, seconds[f"{count}"], reports[count], base / reports[count]] for count in options.workers]
    print(f"\n{options.size}x{options.size}, U-Net of base {options.width}, tiles of {options.tile}, 1 thread each\n")
    print(table(["workers", "seconds in all (median)", "seconds painting (best)", "throughput ratio"], lines))
    print(f"\noutputs byte-identical: {same}")
    assert same


def _content(path: Path) -> dict[str, bytes]:
    files = sorted(file for file in path.rglob("*") if file.is_file())
    return {file.relative_to(path).as_posix(): file.read_bytes() for file in files}


if __name__ == "__main__":
    main()
