"""The explorer's tours in a real Chromium: their words hold of what is shown."""

from __future__ import annotations

import re
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from chromium import in_browser
from visiting import (
    OVERFLOW,
    Open,
    choose,
    files_of,
    go,
    hash_of,
    note_refusals,
    served,
    until,
    valve,
    wait_until_still,
    words_of,
)

from whatwhere.explorer import Desk
from whatwhere.network import load_model

pytestmark = in_browser
CHANGED = "no longer as this step sets them"


@pytest.mark.slow
def test_every_tour_leads_through_three_to_five_steps(visit: Open) -> None:
    page = visit()
    questions = page.locator(".question")
    assert questions.count() == 5
    for at in range(5):
        page.locator(".question").nth(at).click()
        said = set()
        steps = int(page.locator(".tour-count").inner_text().split(" of ")[1])
        assert 3 <= steps <= 5
        for _ in range(steps):
            wait_until_still(page)
            assert page.locator(".lit").count() == 1, "nothing is shown"
            said.add(page.locator(".tour-words").inner_text())
            page.locator(".tour .primary").click()
        assert len(said) == steps, "two steps say the same"
        assert page.locator(".questions").is_visible(), "the tour has no end"
        assert page.locator(".question").nth(at).evaluate("one => one === document.activeElement"), "focus is lost"


@pytest.mark.slow
def test_a_tour_sets_the_same_controls_that_a_visitor_has(visit: Open) -> None:
    page = visit("#tour=skips,0")
    page.locator(".tour .primary").click()
    until(lambda: valve(page).get_attribute("data-hold") == "mean", "the valve was not turned")
    assert "paths=skip+0:mean" in until(
        lambda: "paths" in hash_of(page) and hash_of(page), "the address lacks the path"
    )
    until(lambda: "Interior accuracy goes from" in page.locator(".tour-words").inner_text(), "no numbers are said")
    page.keyboard.press("Escape")
    assert page.locator(".questions").is_visible()


def test_tours_say_what_is_shown_and_no_more(visit: Open) -> None:
    page = visit("#tour=context,2")
    page.locator(".tour .primary").click()
    assert "untouched, and so is what lies farther out" in words_of(page, "a ring of 12 pixels around it is hidden")
    go(page, "#model=discs&tour=sight,3")
    page.locator(".tour .primary").click()
    words_of(page, "half as wide as what it can see of this image")
    presence = page.locator(".presence").inner_text()
    assert "A class counts as there from 0.5 % of the pixels. Balanced accuracy" in presence
    for model, said in (("discs", "Now the skips pass again"), ("bare", "This network has no skips")):
        go(page, f"#model={model}&tour=presence,2")
        page.locator(".tour .primary").click()
        words_of(page, said)


@pytest.mark.slow
def test_a_step_of_a_tour_sets_its_controls_for_the_next_model_and_image_too(visit: Open) -> None:
    page = visit("#tour=skips,0")
    page.locator(".tour .primary").click()
    page.select_option("#model", label="bare")
    words_of(page, "There is no skip to silence here")
    page.select_option("#model", label="discs")
    words_of(page, "Skip 0 brings only its mean")
    until(lambda: valve(page).get_attribute("data-hold") == "mean", "the valve was not turned again")
    go(page, "#model=discs&tour=sight,2")
    page.locator(".tour .primary").click()
    dab = until(lambda: re.search(r"edits=[^&]+", hash_of(page)), "nothing is dabbed")
    page.keyboard.press("]")
    until(lambda: "disc+1" in hash_of(page), lambda: f"the address is {hash_of(page)}")
    wait_until_still(page)
    until(lambda: dab[0] in hash_of(page), "the next image has no dab, and the tour says that it has")


@pytest.mark.slow
def test_a_step_says_nothing_of_valves_that_were_turned_since(visit: Open) -> None:
    page = visit("#tour=skips,0")
    step, again = page.locator(".tour .primary"), page.locator(".tour button", has_text="Set again")
    assert again.is_hidden()
    step.click()
    words_of(page, "Skip 0 brings only its mean")
    page.locator("#whole").click()
    words_of(page, CHANGED)
    again.click()
    words_of(page, "Skip 0 brings only its mean")
    assert again.is_hidden()
    assert step.evaluate("one => one === document.activeElement"), "focus is lost"
    valve(page).locator("input[type=range]").fill("0.5")
    words_of(page, CHANGED)
    valve(page).locator("input[type=range]").fill("0")  # which is the mean
    words_of(page, "Skip 0 brings only its mean")
    go(page, "#model=discs&tour=skips,2")  # where nothing is turned
    words_of(page, CHANGED)
    go(page, "#model=discs&tour=skips,2&paths=bottleneck:mean")
    words_of(page, "the bottleneck is silent")


def test_a_step_says_nothing_of_dabs_that_are_not_there(visit: Open) -> None:
    page = visit("#tour=context,2")
    page.locator(".tour .primary").click()
    ring = "pixels around it is hidden"
    words_of(page, ring)
    for act in (
        lambda: page.locator(".brush button", has_text="Clear").click(),
        lambda: page.locator(".brush button", has_text="Undo").click(),
        lambda: choose(page, 1, 1),
    ):
        act()
        words_of(page, CHANGED)
        page.locator(".tour button", has_text="Set again").click()
        words_of(page, ring)
    until(lambda: "edits" in hash_of(page) and "pixel=1,1&" not in hash_of(page), "the address lacks the ring")
    again = visit(hash_of(page))
    words_of(again, ring)


@pytest.mark.slow
def test_a_ring_in_an_address_holds_around_whatever_pixel_that_chose(visit: Open) -> None:
    """As one does that was brushed before the levels were known, which else decide around which."""
    page = visit("#tour=context,2")
    page.locator(".tour .primary").click()
    words_of(page, "pixels around it is hidden")
    until(lambda: "edits" in hash_of(page), "the address lacks the ring")
    beside = re.sub(r"(pixel=|edits=g|~g)(\d+)", lambda found: f"{found[1]}{int(found[2]) + 1}", hash_of(page))
    again = visit(beside)
    words_of(again, "pixels around it is hidden")
    choose(again, 1, 1)
    words_of(again, CHANGED)


def test_who_is_asked_to_brush_on_may(visit: Open) -> None:
    page = visit("#tour=sight,2")
    page.locator(".tour .primary").click()
    words_of(page, "A grey dab in the corner. ")
    page.locator(".size input").fill("1")
    page.keyboard.press("i")
    page.keyboard.press("Enter")
    words_of(page, "A grey dab in the corner, and yours. ")
    page.locator(".brush button", has_text="Clear").click()
    words_of(page, CHANGED)


def test_a_step_waits_for_the_painting_that_it_tells_of(visit: Open) -> None:
    page = visit("#tour=skips,0")
    held: list[Any] = []
    page.route("**/api/painting", lambda route: held.append(route))
    page.locator(".tour .primary").click()
    until(lambda: page.title() and held, "no painting is asked for")
    assert page.locator(".tour-words").inner_text() == "…"
    held[0].continue_()
    words_of(page, "Skip 0 brings only its mean. Interior accuracy goes from")


def test_a_tour_begun_while_an_image_loads_is_of_that_image(visit: Open) -> None:
    page = visit()
    held: list[Any] = []
    page.route("**/images/i1", lambda route: held.append(route))
    page.keyboard.press("]")
    until(lambda: page.title() and held, "the image is not asked for")
    page.locator(".question").first.click()
    assert page.locator(".questions").is_visible(), "it is told of an image that has gone"
    for route in held:
        route.continue_()
    words_of(page, "The image goes in at the left top")
    until(lambda: "disc+1" in hash_of(page), "the address is of the image before")

    focused = "document.activeElement.textContent || document.activeElement.value"
    assert page.evaluate(focused) == "Next"
    page.keyboard.press("Enter")
    page.locator(".tour button", has_text="Back").focus()
    page.keyboard.press("Enter")
    assert page.evaluate(focused) == "Next", "the focus is lost at the first step"
    page.locator(".brush input[value=grey]").check()
    page.keyboard.press("i")
    page.keyboard.press("Enter")
    page.locator(".brush button", has_text="Undo").focus()
    page.keyboard.press("Enter")
    assert page.evaluate(focused) == "grey", "the focus is lost with the last dab"
    wait_until_still(page)


def test_yes_or_no_is_asked_again_of_an_image_that_was_left(visit: Open) -> None:
    page = visit()
    answered = page.locator(".presence")
    until(lambda: "Balanced accuracy" in answered.inner_text(), "no answer")
    held: list[Any] = []
    page.route("**/images/i1/levels", lambda route: held.append(route))
    page.keyboard.press("]")
    until(lambda: page.title() and held, "the levels are not asked for")  # a route is told of in a call
    until(lambda: "waiting" in answered.inner_text(), "the next image has the answer of the last")
    page.keyboard.press("[")
    until(lambda: "Balanced accuracy" in answered.inner_text(), "it waits for ever")
    for route in held:
        route.continue_()


def test_a_level_says_nothing_of_the_pixel_before(visit: Open) -> None:
    page = visit()
    node = page.locator('.network[data-slot="0"] .node[data-layer="bottleneck"]')
    until(lambda: "here it reads" in node.get_attribute("aria-label"), "it reads nothing")
    held: list[Any] = []
    page.route("**/api/pixel", lambda route: held.append(route))
    choose(page, 2, 3)
    until(lambda: "here it reads" not in node.get_attribute("aria-label"), "it reads what was at the last pixel")
    assert held
    for route in held:
        route.continue_()
    until(lambda: "here it reads" in node.get_attribute("aria-label"), "it reads nothing any more")


def test_an_address_past_the_end_of_a_tour_is_of_its_last_step(visit: Open) -> None:
    page = visit("#tour=context,99")
    assert page.locator(".tour-count").inner_text() == "4 of 4"
    page.locator(".tour button", has_text="Back").click()
    assert page.locator(".tour-count").inner_text() == "3 of 4"


def test_without_labels_nothing_is_asked_or_said_that_needs_them(visit: Open, unlabelled: str) -> None:
    refused: list[str] = []
    page = visit("#image=wide.png", at=unlabelled, route=lambda page: note_refusals(page, refused))
    for layer in ("encoder 0", "decoder 1"):
        page.locator(".layer-tabs .tab", has_text=layer).click()
    until(
        lambda: "what a path is worth can't be told" in page.locator(".worth").inner_text(),
        "it waits for the worth of paths",
    )
    until(lambda: "No probe can answer" in page.locator(".presence").inner_text(), "it waits for a probe")
    for tour, other, instead in (
        ("presence,0", "Below is what", "Here there is none (there are no labelled images"),
        ("skips,1", "Compare the two bars", "the bottleneck is silent"),
        ("skips,3", "Below, each path's worth", "Of an image with its mask"),
    ):
        go(page, f"#image=wide.png&tour={tour}")
        page.locator(".tour .primary").click()
        assert other not in words_of(page, instead)
    page.keyboard.press("Escape")
    page.set_viewport_size({"width": 390, "height": 844})
    until(lambda: page.locator("html").evaluate(OVERFLOW) == 0, "it is cut at the right")
    assert refused == []


@pytest.mark.slow
def test_tours_fit_images_of_any_size(visit: Open, unlabelled: str) -> None:
    refused: list[str] = []
    page = visit("#image=wide.png&tour=sight,2", at=unlabelled, route=lambda page: note_refusals(page, refused))
    page.locator(".tour .primary").click()
    words_of(page, "A grey dab in the corner. It can change pixels up to")
    go(page, "#image=tiny.png&tour=context,2")
    page.locator(".tour .primary").click()
    words_of(page, "no room for a ring around the small window on 5 × 7 pixels")
    wait_until_still(page)
    assert refused == []


def test_the_ring_of_a_large_image_is_one_that_can_be_brushed(visit: Open, disc_run: Path, tmp_path: Path) -> None:
    refused: list[str] = []
    with served(Desk([("discs", load_model(disc_run))], files_of(tmp_path, 640))) as there:
        page = visit("#tour=context,2", at=there, route=lambda page: note_refusals(page, refused))
        page.locator(".tour .primary").click()
        words_of(page, "a ring of 128 pixels around it is hidden")
    assert refused == []


@pytest.mark.parametrize(("side", "window"), [(40, 5), (1000, 5), (1000, 401)])
def test_the_ring_is_closed(visit: Open, side: int, window: int) -> None:
    page = visit(ready=False)
    dabs = page.evaluate(
        """async ([side, window]) => {
          const { TOURS } = await import("/static/tours.js");
          const labels = new Uint8Array(side * side);
          labels[(side / 2) * side + side / 2] = 1;  // which is chosen
          const layers = [{ name: "encoder 0", role: "encoder", field: [window, window] }];
          const painting = { levels: null, painted: { labels }, untouched: { labels } };
          const seen = { width: side, height: side, model: { layers }, ...painting };
          return TOURS[0].steps[3].set({ seen }).edits;
        }""",
        [side, window],
    )
    assert 10 <= len(dabs) <= 200
    for one, other in pairwise([*dabs, dabs[0]]):
        assert 1 <= one["radius"] <= 64
        assert np.hypot(one["x"] - other["x"], one["y"] - other["y"]) < 2 * one["radius"] - 1
        assert np.hypot(one["x"] - side / 2, one["y"] - side / 2) > window / 2 + one["radius"]
