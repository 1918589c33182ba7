"""A visitor of the explorer's page: what hands do there, and what eyes see."""

from __future__ import annotations

import base64
import io
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from desks import serving
from PIL import Image

from tiny import disc_picture
from whatwhere.explorer import Desk, create_app

SIDE = 40
PATIENCE = 180.0
"""Seconds: a machine that is busy with other tests is slow, and that is no fault of the page."""
Page = Any
Open = Callable[..., Page]
OVERFLOW = "one => one.scrollWidth - one.clientWidth"


@contextmanager
def served(desk: Desk) -> Iterator[str]:
    """The address of an explorer with this desk."""
    with serving(create_app(desk)) as client:
        yield f"{client.base_url}/"


def is_local(url: str, address: str) -> bool:
    return url.startswith((address, "data:", "blob:"))


def wait_until_still(page: Page) -> None:
    page.wait_for_selector(".network[aria-busy=false]:not([hidden])")
    page.wait_for_selector(".network[aria-busy=true]:not([hidden])", state="detached")
    for waiting in (".node.waits", ".evidence-button.waits", ".painting-waits"):
        page.wait_for_selector(waiting, state="detached")


def go(page: Page, hash_: str) -> None:
    """To another address of the page that is open."""
    page.evaluate(
        """(hash) => new Promise((done) => {
          addEventListener("hashchange", () => done(), { once: true });  // after the page's own
          location.hash = hash;
        })""",
        hash_,
    )
    wait_until_still(page)


def until(holds: Callable[[], Any], why: str | Callable[[], str], seconds: float = PATIENCE) -> Any:
    """What `holds` gives as soon as it is true."""
    end = time.monotonic() + seconds
    while not (found := holds()):
        if time.monotonic() > end:
            pytest.fail(why if isinstance(why, str) else why())
        time.sleep(0.05)
    return found


def surface(page: Page, side: str = "image", slot: int = 0) -> Any:
    return page.locator(f'.network[data-slot="{slot}"] .{side}-side .surface')


def spot(page: Page, x: int, y: int, side: str = "image", slot: int = 0) -> dict[str, float]:
    """The middle of a pixel of the picture, from the corner of what shows it."""
    box = surface(page, side, slot).bounding_box()
    return {"x": (x + 0.5) * box["width"] / SIDE, "y": (y + 0.5) * box["height"] / SIDE}


def window(page: Page, name: str) -> list[float]:
    """The frame that is drawn for a level, in pixels of the image: x0, y0, x1, y1."""
    scale = surface(page).bounding_box()["width"] / SIDE
    edge = page.locator(f'.network[data-slot="0"] .image-side .window[data-name="{name}"] .edge')
    x, y, width, height = (float(edge.get_attribute(key)) for key in ("x", "y", "width", "height"))
    return [x / scale, y / scale, (x + width) / scale, (y + height) / scale]


def hash_of(page: Page) -> str:
    """What the address holds now (the driver's own `url` lags behind)."""
    return str(page.locator("html").evaluate("() => location.hash"))


def drawn(page: Page, side: str = "painting", slot: int = 0) -> str:
    return str(surface(page, side, slot).locator("canvas.base").evaluate("canvas => canvas.toDataURL()"))


def choose(page: Page, x: int, y: int) -> None:
    surface(page).click(position=spot(page, x, y))
    until(lambda: f"pixel={x},{y}" in hash_of(page), "the address does not name the pixel")


def point_at(page: Page, x: int, y: int) -> None:
    """Moves the pointer there, and again while the page still takes another shape; what is said follows it."""

    def followed() -> bool:
        surface(page).hover(position=spot(page, x, y))
        return f"x {x}, y {y}" in page.locator(".pixel-head").first.inner_text()

    until(followed, "the pointer is not followed")


def valve(page: Page, path: str = "skip 0", slot: int = 0) -> Any:
    return page.locator(f'.network[data-slot="{slot}"] .valve[data-path="{path}"]')


def changed(page: Page, slot: int = 0) -> str:
    return str(page.locator(f'.network[data-slot="{slot}"] .change-head').inner_text())


def words_of(page: Page, holds: str) -> str:
    """What the tour says, as soon as it says this."""
    words = page.locator(".tour-words")
    until(lambda: holds in words.inner_text(), lambda: f"not said: {holds}, but: {words.inner_text()}")
    return str(words.inner_text())


def files_of(folder: Path, *sides: int) -> list[Path]:
    """Discs without masks, so that no probe is fitted to them."""
    paths = [folder / f"{at} {side}.png" for at, side in enumerate(sides)]
    for at, (path, side) in enumerate(zip(paths, sides)):
        Image.fromarray(disc_picture(301 + at, side)[0]).save(path)
    return paths


def pixels_of(page: Page, side: str) -> np.ndarray[Any, Any]:
    """What is drawn, ``H x W x 3``."""
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(drawn(page, side).split(",")[1]))).convert("RGB"))


def note_refusals(page: Page, refused: list[str]) -> None:
    page.on("response", lambda answer: refused.append(answer.url) if answer.status >= 400 else None)
