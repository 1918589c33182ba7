"""What is kept is bounded, however much is asked."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
from desks import labelled
from painting import model_of, unet

from whatwhere.explorer import Desk
from whatwhere.explorer.edits import Edit
from whatwhere.explorer.gate import Gate
from whatwhere.explorer.kept import Kept, bytes_of
from whatwhere.explorer.lens import Lens
from whatwhere.explorer.shown import cut_to_size


def test_the_least_recently_used_goes_first() -> None:
    kept: Kept[str, str] = Kept(3, len)
    for key in "abc":
        kept.get(key, lambda: "x")
    kept.get("a", lambda: "never computed")
    kept.get("d", lambda: "x")
    computed = [key for key in "acdb" if kept.get(key, lambda: "y") == "y"]
    assert computed == ["b"]


def test_features_of_many_strokes_stay_within_their_room() -> None:
    shown, room = cut_to_size("i0", "disc", *labelled(1).store[0]), 2**20
    lens = Lens("m0", "net", model_of(unet(depth=1, classes=2), classes=2), lambda: [shown], Gate(), room)
    met = []
    for x in range(30):
        met += lens.carried(shown, (Edit("grey", x, 9, 2),))
    held = [tensor for kept in lens._kept._found.values() for tensor in kept]
    assert bytes_of(met) > room, "the room was never full"
    assert 0 < bytes_of(held) <= room


def test_windows_of_many_sizes_are_not_all_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("whatwhere.explorer.lens._FOLLOWED", 2)
    lens = Lens("m0", "net", model_of(unet(depth=1, classes=2), classes=2), list, Gate(), 2**20)
    extents = set()
    for size in ((16, 16), (16, 24), (24, 16), (16, 16)):
        with lens.turn(size):
            extents.add(lens.windows(size).extent("output"))
            assert 0 < len(lens.anatomy.windows._found) <= 2  # type: ignore[attr-defined]
    assert len(extents) == 1


def test_a_cut_keeps_nothing_of_the_rest() -> None:
    """Also where it is as wide as the whole, so that its rows lie together in memory."""
    raw, mask = np.zeros((40, 8, 3), np.uint8), np.zeros((40, 8), np.uint8)
    shown = cut_to_size("i0", "line scan", raw, mask, side=10)
    assert shown.size == (10, 8)
    assert shown.truth is not None
    assert shown.raw.base is None
    assert shown.truth.base is None


def _resident() -> float:
    """MiB of this process."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 2**20


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="needs /proc")
def test_a_thousand_requests_do_not_grow_memory(desk: Desk) -> None:
    def ask(number: int) -> None:
        here = {"model": f"m{number % 2}", "image": f"i{number % 6}", "x": number % 64, "y": number // 16 % 64}
        stroke = {"kind": "blur", "x": number % 64, "y": number // 64, "radius": 5}
        desk.painting({**here, "paths": {"bottleneck": number % 7 / 7}, "edits": [stroke] if number % 3 else []})
        desk.pixel(here)

    for lens in desk.lenses.values():
        lens._kept._room = lens._read._room = 2**18
    for number in range(400):
        ask(number)
    full = {key: len(lens._kept._found) for key, lens in desk.lenses.items()}
    before = _resident()
    for number in range(400, 1400):
        ask(number)
    assert {key: len(lens._kept._found) for key, lens in desk.lenses.items()} == full, "what is kept was still filling"
    grown = _resident() - before
    assert grown < 20, f"{grown:.1f} MiB more after a thousand requests"
