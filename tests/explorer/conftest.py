"""A desk with two small networks and a few discs, and a client that asks as the page does."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from chromium import chromium
from desks import labelled, serving
from painting import model_of, unet

from whatwhere.explorer import Desk, create_app


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
