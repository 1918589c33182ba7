"""How long the explorer keeps one waiting: pixel, skip slider, brush; and whether a thousand requests grow its memory.

Moving the pointer asks nothing of the server (windows are looked up in arrays that the page has): its row is the time
of that look-up's one request, made when an image is opened. Evidence runs beside everything else; the last rows take
pixels while a map is being made.

    python bench/explorer_latency.py             # 256x256 and 1024x1024, base-16 U-Net of 4 downs
    python bench/explorer_latency.py --quick
"""

from __future__ import annotations

import argparse
import os
import statistics
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import httpx
import numpy as np
import uvicorn

from common import header, model_of, rows, table, unet
from whatwhere.data.sets import from_arrays
from whatwhere.explorer import Desk, create_app
from whatwhere.explorer.serve import listen


@contextmanager
def serving(desk: Desk) -> Iterator[httpx.Client]:
    listening = listen("127.0.0.1", 0)
    server = uvicorn.Server(uvicorn.Config(create_app(desk), log_level="error", access_log=False))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]}, daemon=True)
    thread.start()
    with httpx.Client(base_url=f"http://127.0.0.1:{listening.getsockname()[1]}", timeout=600) as client:
        yield client
    server.should_exit = True
    thread.join()


def timed(ask: Callable[[int], object], times: int) -> list[float]:
    """Milliseconds of each."""
    found = []
    for number in range(times):
        began = time.perf_counter()
        ask(number)
        found.append((time.perf_counter() - began) * 1000)
    return found


def line(size: int, what: str, milliseconds: list[float]) -> list[object]:
    ordered = sorted(milliseconds)
    p95 = ordered[min(len(ordered) - 1, round(0.95 * len(ordered)))]
    return [f"{size}x{size}", what, statistics.median(ordered), p95, len(ordered)]


def measure(size: int, width: int, times: int) -> list[list[object]]:
    image = (rows(size).permute(1, 2, 0).numpy() * 60 + 120).clip(0, 255).astype(np.uint8)
    truth = (np.add.outer(np.arange(size), np.arange(size)) // 37 % 2).astype(np.uint8)
    desk = Desk([("net", model_of(unet(width)))], data=from_arrays([image], [truth], ["image"]))

    with serving(desk) as client:
        here = {"model": "m0", "image": "i0"}

        def post(question: str, **record: object) -> None:
            client.post(f"/api/{question}", json=here | record).raise_for_status()

        def slide(number: int) -> None:
            post("painting", paths={"skip 0": number % 100 / 100})

        def stroke(number: int) -> None:
            post("painting", edits=[{"kind": "grey", "x": 20 + number, "y": 30, "radius": 12}])

        def click(number: int) -> None:
            post("pixel", x=10 + number, y=10 + number)

        opened = timed(lambda _: client.get("/api/models/m0/images/i0").raise_for_status(), 1)
        found = [line(size, "open an image: its windows (then moving the pointer asks nothing)", opened)]
        post("painting")
        for what, ask in (("skip slide", slide), ("brush stroke", stroke), ("pixel click", click)):
            ask(0)
            found.append(line(size, what, timed(ask, times)))
        evidence = threading.Thread(target=lambda: post("evidence", x=size // 2, y=size // 2))
        evidence.start()
        found.append(line(size, "pixel click while evidence is made", timed(click, max(3, times // 3))))
        evidence.join()
        return found


_THOUSANDS = 5


def growth(width: int, requests: int) -> str:
    """Resident memory after many different requests, and after as many more, and so on."""
    image = (rows(256).permute(1, 2, 0).numpy() * 60 + 120).clip(0, 255).astype(np.uint8)
    desk = Desk(
        [("net", model_of(unet(width)))], data=from_arrays([image], [np.zeros((256, 256), np.uint8)], ["image"])
    )
    with serving(desk) as client:

        def ask(number: int) -> None:
            here: dict[str, object] = {"model": "m0", "image": "i0"}
            if number % 4 == 0:
                record, question = here | {"x": number % 256, "y": number // 256 % 256}, "pixel"
            else:
                stroke = {"kind": "blur", "x": number % 256, "y": number // 256 % 256, "radius": 5}
                holds, edits = {"skip 1": number % 7 / 7}, [stroke] if number % 2 else []
                record, question = here | {"edits": edits, "paths": holds}, "painting"
            client.post(f"/api/{question}", json=record).raise_for_status()

        sizes = []
        for part in range(_THOUSANDS):  # what is kept of strokes is full after the first
            for number in range(requests):
                ask(part * requests + number)
            sizes.append(_resident())
    return f"after each {requests} requests: {', '.join(f'{size:.0f}' for size in sizes)} MiB"


def _resident() -> float:
    with open(f"/proc/{os.getpid()}/statm", encoding="ascii") as file:  # noqa: PTH123 (a device)
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 2**20


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", type=int, nargs="*", default=[256, 1024], help="none: only memory")
    parser.add_argument("--width", type=int, default=16, help="channels at level 0")
    parser.add_argument("--times", type=int, default=30)
    parser.add_argument("--requests", type=int, default=1000)
    parser.add_argument("--quick", action="store_true", help="small sizes, to see that it works")
    options = parser.parse_args()
    if options.quick:
        options.sizes, options.width, options.times, options.requests = [64], 4, 3, 20
    print(header("starlette", "uvicorn"))
    if options.sizes:
        latencies(options)
    print(f"\nmemory of server and client together, {growth(options.width, options.requests)}")


def latencies(options: argparse.Namespace) -> None:
    lines = [row for size in options.sizes for row in measure(size, options.width, options.times)]
    print(f"\nU-Net of base {options.width} and 4 downs; milliseconds, from request to whole answer\n")
    print(table(["image", "what", "median", "p95", "times"], lines))


if __name__ == "__main__":
    main()
