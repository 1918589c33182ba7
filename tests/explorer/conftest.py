"""Desks with small networks and a few discs, a client that asks as the page does, and a visitor of the page."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
import tifffile
from chromium import chromium
from desks import labelled, serving
from painting import model_of, unet
from PIL import Image
from visiting import PATIENCE, SIDE, Open, Page, is_local, served, wait_until_still

from tiny import disc_picture
from whatwhere.data.sets import from_arrays
from whatwhere.explorer import Desk, create_app
from whatwhere.network import UNet, load_model


@pytest.fixture(scope="module")
def desk() -> Desk:
    full = model_of(unet(depth=2, classes=2), classes=2)
    without = model_of(unet(depth=2, classes=2, seed=1, skips=()), classes=2)
    return Desk([("full", full), ("no skips", without)], data=labelled(6))


@pytest.fixture(scope="module")
def client(desk: Desk) -> Iterator[httpx.Client]:
    with serving(create_app(desk)) as client:
        yield client


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """Not for all modules: while it is open, no other loop of asyncio can run here."""
    with chromium() as opened:
        yield opened


@pytest.fixture(scope="module")
def address(disc_run: Path) -> Iterator[str]:
    """A running explorer with a trained network, one without skips, and six images with masks."""
    model = load_model(disc_run)
    bare = replace(model, network=UNet(**{**model.network.config, "skips": []}).eval())
    pictures = [disc_picture(seed, SIDE) for seed in range(300, 306)]
    data = from_arrays(
        [image for image, _ in pictures],
        [(mask > 0).astype(np.uint8) for _, mask in pictures],
        [f"disc {at}.png" for at in range(6)],
    )
    with served(Desk([("discs", model), ("bare", bare)], (), data)) as found:
        yield found


@pytest.fixture
def visit(browser: Any, address: str) -> Iterator[Open]:
    """Opens the page in a window of its own, waits until all is there; what the page complains of fails the test."""
    contexts, complaints = [], []

    def note(message: Any) -> None:
        if message.type == "error" and "Failed to load resource" not in message.text:
            complaints.append(message.text)

    def visit(
        hash_: str = "", *, at: str = "", route: Callable[[Page], None] | None = None, ready: bool = True, **how: Any
    ) -> Page:
        context = browser.new_context(viewport={"width": 1280, "height": 800}, reduced_motion="reduce", **how)
        contexts.append(context)
        page = context.new_page()
        page.set_default_timeout(1000 * PATIENCE)
        page.on("console", note)
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.on(
            "request", lambda request: None if is_local(request.url, at or address) else complaints.append(request.url)
        )
        if route:
            route(page)
        page.goto((at or address) + hash_)
        if ready:
            wait_until_still(page)
        return page

    yield visit
    for context in contexts:
        context.close()
    assert complaints == []


@pytest.fixture(scope="module")
def unlabelled(disc_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A running explorer without labels: an image without data at its left, a wide one, a tiny one."""
    folder = tmp_path_factory.mktemp("unlabelled")
    holed = disc_picture(301, SIDE)[0] | 1
    holed[:, :15] = 0
    tifffile.imwrite(folder / "holed.tif", holed, photometric="rgb", extratags=[(42113, "s", 0, "0", True)])
    Image.fromarray(disc_picture(302, 160)[0][:30]).save(folder / "wide.png")
    Image.fromarray(disc_picture(303, 64)[0][20:27, 20:25]).save(folder / "tiny.png")
    paths = [folder / name for name in ("holed.tif", "wide.png", "tiny.png")]
    with served(Desk([("discs", load_model(disc_run))], paths)) as found:
        yield found
