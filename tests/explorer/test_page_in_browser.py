"""The explorer's page in a real Chromium: what a visitor touches, and what must be seen then."""

from __future__ import annotations

import base64
import re
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from chromium import in_browser
from visiting import (
    SIDE,
    Open,
    changed,
    choose,
    drawn,
    files_of,
    hash_of,
    pixels_of,
    point_at,
    served,
    spot,
    surface,
    until,
    valve,
    wait_until_still,
    window,
    words_of,
)

from tiny import disc_picture
from whatwhere.data.sets import from_arrays
from whatwhere.explorer import Desk
from whatwhere.field import field
from whatwhere.network import load_model

pytestmark = in_browser


def test_a_click_draws_every_levels_window_as_the_field_says(visit: Open, disc_run: Path) -> None:
    page = visit()
    choose(page, 13, 22)
    followed = field(load_model(disc_run).network, (3, SIDE, SIDE))
    for name, layer, stride in (("E0", "encoder.0", 1), ("E1", "encoder.1", 2), ("B", "bottleneck", 4)):
        (y0, y1), (x0, x1) = followed.receptive_field(layer, (22 // stride, 13 // stride))
        expected = [max(0, x0), max(0, y0), min(SIDE, x1), min(SIDE, y1)]
        # a line has a width: frames are drawn up to two pixels of the screen inside the picture's edge
        assert window(page, name) == pytest.approx(expected, abs=0.3)
    head = page.locator('.network[data-slot="0"] .pixel-head').inner_text()
    assert "x 13, y 22" in head
    two_classes_at_five_levels = ".network[data-slot='0'] .node .reading i"
    page.wait_for_function(f'document.querySelectorAll("{two_classes_at_five_levels}").length === 10')


def test_the_pointer_moves_the_windows_without_a_request(visit: Open) -> None:
    page = visit()
    choose(page, 5, 5)
    wait_until_still(page)
    before, requests = window(page, "E0"), []
    page.on("request", lambda request: requests.append(request.url))
    for x in range(8, 30, 2):
        surface(page).hover(position=spot(page, x, 20))
    until(lambda: window(page, "E0") != before, "the windows stand still")
    assert window(page, "E0")[0] == pytest.approx(28 - 2, abs=0.3)
    assert requests == []
    page.mouse.move(640, 20)
    until(lambda: window(page, "E0") == before, "the windows did not go back to the chosen pixel")


def test_a_valve_changes_the_painting_and_back(visit: Open) -> None:
    page = visit()
    whole = drawn(page)
    assert "No change yet" in changed(page)
    valve(page).locator("input[value=cut]").check()
    until(lambda: "of the pixels changed" in changed(page), "nothing is said of the change")
    assert drawn(page) != whole
    assert "paths=skip+0:cut" in until(lambda: "paths" in hash_of(page) and hash_of(page), "the address lacks the path")
    slider = valve(page).locator("input[type=range]")
    slider.fill("1")
    until(lambda: "No change yet" in changed(page), "the painting did not come back")
    assert drawn(page) == whole
    slider.fill("0.35")
    until(lambda: "paths=skip+0:0.35" in hash_of(page), "a faded path is not in the address")
    assert valve(page).locator(".through").inner_text() == "35 %"
    assert "35 percent" in slider.get_attribute("aria-valuetext")


def test_what_is_brushed_changes_within_a_border_and_can_be_undone(visit: Open) -> None:
    page = visit()
    image, whole = drawn(page, "image"), drawn(page)
    page.locator(".brush input[value=grey]").check()
    box = surface(page).bounding_box()
    start, end = spot(page, 10, 10), spot(page, 30, 30)
    page.mouse.move(box["x"] + start["x"], box["y"] + start["y"])
    page.mouse.down()
    page.mouse.move(box["x"] + end["x"], box["y"] + end["y"], steps=6)
    page.mouse.up()
    until(lambda: page.locator('[data-slot="0"] .image-side .window.dashed').count() == 1, "no border is drawn")
    told = re.search(r"(\d+) dabs", page.locator(".brush").inner_text())
    assert told
    until(lambda: hash_of(page).count("~") == int(told[1]) - 1, "the strokes are not in the address")
    dabs = hash_of(page).split("edits=")[1].split("&")[0].split("~")
    assert len(dabs) > 1
    assert dabs[0] == "g10,10,8"
    until(lambda: drawn(page, "image") != image, "the image looks untouched")
    page.locator(".brush button", has_text="Undo").click()
    until(lambda: hash_of(page).count("~") == len(dabs) - 2, "the last dab is still there")
    page.locator(".brush button", has_text="Clear").click()
    until(lambda: "No change yet" in changed(page), "the dabs are still there")
    assert (drawn(page, "image"), drawn(page)) == (image, whole)


@pytest.mark.slow
def test_void_does_not_count_as_disagreement(visit: Open, disc_run: Path) -> None:
    rng = np.random.default_rng(0)
    pictures = [disc_picture(seed, SIDE) for seed in range(300, 306)]
    masks = [np.where(rng.random(mask.shape) < 0.6, 255, mask > 0).astype(np.uint8) for _, mask in pictures]
    data = from_arrays([image for image, _ in pictures], masks, [f"{at}.png" for at in range(6)])
    with served(Desk([("discs", load_model(disc_run))], (), data)) as there:
        page = visit("#tour=presence,0", at=there)
        said = re.search(r"alone, (\S+) % of the pixels are as in the mask", words_of(page, "as in the mask"))
        levels = page.request.get(f"{there}api/models/m0/images/i0/levels").json()["layers"]
    assert said
    packed = next(level["painting"] for level in levels if level["name"] == "bottleneck")
    painted = np.frombuffer(zlib.decompress(base64.b64decode(packed)), np.uint8).reshape(SIDE, SIDE)
    counts = masks[0] != 255
    assert float(said[1]) / 100 == pytest.approx((painted == masks[0])[counts].mean(), abs=0.006)


@pytest.mark.slow
def test_where_one_class_alone_has_an_interior_nothing_is_said_of_what(visit: Open, disc_run: Path) -> None:
    lines = np.zeros((SIDE, SIDE), np.uint8)
    lines[:, ::20] = 1
    data = from_arrays([disc_picture(0, SIDE)[0]], [lines], ["lines.png"])
    with served(Desk([("discs", load_model(disc_run))], (), data)) as there:
        page = visit("#tour=skips,0", at=there)
        interior = page.locator(".scores .bar-row").first
        assert interior.locator(".number").inner_text() == "–"
        assert "at most one class" in interior.get_attribute("title")
        page.locator(".tour .primary").click()
        assert "nterior" not in words_of(page, "Boundary accuracy goes from")


def test_two_networks_beside_each_other_share_the_pointer_and_not_the_skips(visit: Open) -> None:
    page = visit()
    page.locator("#other").select_option(index=2)
    page.wait_for_selector('.network[data-slot="1"]')
    wait_until_still(page)
    mark = page.locator('.network[data-slot="1"] .painting-side .mark')
    before = mark.get_attribute("cx")
    surface(page).hover(position=spot(page, 31, 7))
    until(lambda: mark.get_attribute("cx") != before, "the other pointer stands still")
    assert page.locator('.network[data-slot="1"] .valve').count() == 1, "a network without skips has one path"
    assert page.locator('.network[data-slot="1"] .none').count() == 2, "two levels have no skip"
    valve(page, "bottleneck", 1).locator("input[value=mean]").check()
    until(lambda: "paths2=bottleneck:mean" in hash_of(page), "the second network's path is not in the address")
    assert valve(page, "bottleneck", 0).get_attribute("data-hold") == "pass"
    assert "No change yet" in changed(page, 0)


def test_where_an_image_has_no_data_the_page_says_so(visit: Open, unlabelled: str) -> None:
    page = visit(at=unlabelled)
    said = surface(page, "painting").get_attribute("aria-label")
    assert sum(int(share) for share in re.findall(r"(\d+) % of the pixels", said)) in (99, 100, 101)
    assert int(re.search(r"x (\d+)", page.locator(".pixel-head").first.inner_text())[1]) >= 15  # type: ignore[index]
    for look in ("painting", "certainty"):
        page.locator(f'.tab[data-look="{look}"]').click()
        hole = pixels_of(page, "painting")[:, :15].reshape(-1, 3)
        assert sorted(np.unique(hole, axis=0).tolist()) == [[77] * 3, [128] * 3], f"{look} is not hatched"
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    choose(page, 4, 20)
    words = page.locator(".evidence-words")
    until(lambda: "no data" in words.inner_text(), "evidence stands where there is none")
    assert "x 4, y 20" in page.locator(".pixel-head").first.inner_text()
    assert "no data" in page.locator(".pixel-head").first.inner_text()
    choose(page, 25, 20)
    until(lambda: "gold" in words.inner_text(), "nothing is asked any more")
    assert sum("api/pixel" in one for one in asked) == 1


@pytest.mark.slow
def test_two_windows_do_not_disturb_each_other(visit: Open) -> None:
    one, other = visit(), visit()
    whole = drawn(other)
    valve(one).locator("input[value=cut]").check()
    until(lambda: "changed" in changed(one), "nothing changed")
    choose(other, 30, 30)
    valve(other).locator("input[value=pass]").check(force=True)
    wait_until_still(other)
    assert drawn(other) == whole != drawn(one)
    assert "pixel=30,30" not in hash_of(one)


def test_slow_evidence_blocks_neither_pointer_nor_painting(visit: Open) -> None:
    held: list[Any] = []

    def hold(route: Any) -> None:
        held.append(route)

    page = visit(route=lambda page: page.route("**/api/evidence", hold), ready=False)
    page.wait_for_selector('.network[data-slot="0"][aria-busy=false]')
    until(lambda: page.evaluate("1") and held, "no evidence was asked for")  # asking the page lets its requests come in
    assert page.locator(".evidence-button.waits").count() == 1, "the wait can't be seen"
    point_at(page, 33, 33)
    valve(page, "bottleneck").locator("input[value=cut]").check()
    until(lambda: "changed" in changed(page), "the painting is blocked")
    held[0].continue_()
    page.wait_for_selector(".evidence-button.waits", state="detached")
    assert "Half in a square of" in page.locator(".evidence-words").first.inner_text()


@pytest.mark.slow
def test_evidence_of_the_last_image_is_not_drawn_over_the_next(visit: Open, disc_run: Path, tmp_path: Path) -> None:
    """A smaller one could not hold it, and the page failed."""
    with served(Desk([("discs", load_model(disc_run))], files_of(tmp_path, 64, 40))) as there:
        page = visit("#image=0+64.png&evidence=1", at=there)
        over = page.locator('.network[data-slot="0"] .image-side canvas.over')
        until(lambda: over.evaluate("canvas => !canvas.hidden && canvas.width") == 64, "no evidence is drawn")
        page.evaluate("() => { location.hash = '#image=1+40.png&evidence=1'; }")
        until(lambda: over.evaluate("canvas => !canvas.hidden && canvas.width") == 40, "no evidence of the next image")
        assert page.locator(".notice").count() == 0


def test_where_the_labels_ask_nothing_no_probe_is_waited_for(visit: Open, disc_run: Path) -> None:
    pictures = [disc_picture(seed, SIDE)[0] for seed in range(3)]
    flat = from_arrays(pictures, [np.zeros((SIDE, SIDE), np.uint8) for _ in pictures], ["a.png", "b.png", "c.png"])
    with served(Desk([("discs", load_model(disc_run))], (), flat)) as there:
        page = visit("#tour=context,1", at=there)
        told = "No probes: the labels of these images hold fewer than two classes"
        until(lambda: page.locator(".u-wait").inner_text() == told, "it is not said why")
        assert page.locator(".node.waits").count() == 0
        assert "no probe paints it" in str(page.locator(".node").first.get_attribute("aria-label"))
        words_of(page, "no probe tells what it knows (the labels of these images hold fewer than two classes)")
