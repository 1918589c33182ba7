"""Labelled discs, and a running explorer with a client that asks as the page does."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

import httpx
import uvicorn
from starlette.applications import Starlette

from tiny import disc_picture
from whatwhere.data.sets import ImageSet, from_arrays
from whatwhere.explorer.serve import listen


def labelled(count: int, side: int = 64) -> ImageSet:
    pairs = [disc_picture(seed, side) for seed in range(count)]
    masks = [(mask > 0).astype("uint8") for _, mask in pairs]
    return from_arrays([image for image, _ in pairs], masks, [f"disc {seed}" for seed in range(count)])


@contextmanager
def serving(app: Starlette) -> Iterator[httpx.Client]:
    """The app on a free port of this machine."""
    listening = listen("127.0.0.1", 0)
    server = uvicorn.Server(uvicorn.Config(app, log_level="error", access_log=False))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]}, daemon=True)
    thread.start()
    while not server.started:
        time.sleep(0.01)
    try:
        with httpx.Client(base_url=f"http://127.0.0.1:{listening.getsockname()[1]}", timeout=120) as client:
            yield client
    finally:
        server.should_exit = True
        thread.join()
        listening.close()
