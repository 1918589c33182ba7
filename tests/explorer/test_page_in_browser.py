"""The explorer's page in a real Chromium: what a visitor does, and what must be seen then."""

from __future__ import annotations

import base64
import io
import json
import re
import threading
import time
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from importlib.util import find_spec
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from chromium import in_browser
from PIL import Image

from tiny import disc_picture
from whatwhere.data.sets import from_arrays
from whatwhere.field import field
from whatwhere.network import UNet, load_model

uvicorn = pytest.importorskip("uvicorn", reason="needs the extra explorer")
pytest.importorskip("starlette", reason="needs the extra explorer")

from whatwhere.explorer import Desk, create_app  # noqa: E402
from whatwhere.explorer.serve import listen  # noqa: E402

pytestmark = in_browser
SIDE = 40
PATIENCE = 180.0
"""Seconds: a machine that is busy with other tests is slow, and that is no fault of the page."""
Page = Any
Open = Callable[..., Page]


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


@contextmanager
def served(desk: Desk) -> Iterator[str]:
    """The address of an explorer with this desk."""
    app = create_app(desk)
    listening = listen("127.0.0.1", 0)
    server = uvicorn.Server(uvicorn.Config(app, log_level="error", access_log=False))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]})
    thread.start()
    yield f"http://127.0.0.1:{listening.getsockname()[1]}/"
    server.should_exit = True
    thread.join(timeout=30)
    listening.close()


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
            "request", lambda request: None if _is_local(request.url, at or address) else complaints.append(request.url)
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


def _is_local(url: str, address: str) -> bool:
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
    assert "Nothing yet" in changed(page)
    valve(page).locator("input[value=cut]").check()
    until(lambda: "of the pixels changed" in changed(page), "nothing is said of the change")
    assert drawn(page) != whole
    assert "paths=skip+0:cut" in until(lambda: "paths" in hash_of(page) and hash_of(page), "the address lacks the path")
    slider = valve(page).locator("input[type=range]")
    slider.fill("1")
    until(lambda: "Nothing yet" in changed(page), "the painting did not come back")
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
    until(lambda: "edits=" in hash_of(page), "the strokes are not in the address")
    dabs = hash_of(page).split("edits=")[1].split("&")[0].split("~")
    assert len(dabs) > 1
    assert dabs[0] == "g10,10,8"
    until(lambda: drawn(page, "image") != image, "the image looks untouched")
    page.locator(".brush button", has_text="Undo").click()
    until(lambda: hash_of(page).count("~") == len(dabs) - 2, "the last dab is still there")
    page.locator(".brush button", has_text="Clear").click()
    until(lambda: "Nothing yet" in changed(page), "the dabs are still there")
    assert (drawn(page, "image"), drawn(page)) == (image, whole)


def test_nothing_is_brushed_on_an_image_that_was_not_there_yet(visit: Open) -> None:
    page = visit()
    page.locator(".brush input[value=grey]").check()
    undo = page.locator(".brush button", has_text="Undo")
    box = surface(page).bounding_box()
    x, y = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
    page.mouse.move(x, y)
    page.mouse.down()
    until(lambda: undo.is_enabled(), "nothing is brushed")
    page.keyboard.press("]")
    wait_until_still(page)
    page.mouse.move(x + 60, y + 60, steps=4)
    page.mouse.up()
    assert undo.is_disabled(), "a stroke goes on over the next image"

    held: list[Any] = []
    page.route("**/api/painting", lambda route: held.append(route))
    page.keyboard.press("i")
    page.keyboard.press("]")
    until(lambda: page.evaluate("1") and held, lambda: f"no painting was asked for at {hash_of(page)}")
    page.keyboard.press("Enter")
    page.mouse.click(x, y)
    assert undo.is_disabled(), "the next image is brushed where the last one is shown"
    held[0].continue_()
    wait_until_still(page)
    page.mouse.click(x, y)
    until(lambda: undo.is_enabled(), "nothing can be brushed any more")
    held[-1].continue_()
    wait_until_still(page)


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


def words_of(page: Page, holds: str) -> str:
    """What the tour says, as soon as it says this."""
    words = page.locator(".tour-words")
    until(lambda: holds in words.inner_text(), lambda: f"not said: {holds}, but: {words.inner_text()}")
    return str(words.inner_text())


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


CHANGED = "no longer as this step sets them"


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
    assert "disc+1" in hash_of(page)


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


def test_valves_of_one_level_do_not_overlap(visit: Open) -> None:
    """As of U-Net++: four skips leave the first level, three the second."""
    page = visit()
    at = page.evaluate(
        """async () => {
          const { layoutU } = await import("/static/u-layout.js");
          const layer = (role, level) => ({ name: `${role}.${level}`, role, level });
          const four = [0, 1, 2, 3];
          const side = (role) => four.map((level) => layer(role, level));
          const skip = (level) => ({ name: `skip ${level}`, level, kind: "skip" });
          const skips = four.flatMap((level) => Array.from({ length: 4 - level }, () => skip(level)));
          const layers = [...side("encoder"), layer("bottleneck", 4), ...side("decoder")];
          const paths = [...skips, { name: "bottleneck", level: 4, kind: "bottleneck" }];
          return layoutU({ layers, paths }, 700, 560, 16);
        }"""
    )
    lines = [line["y"] for line in at["skips"]]
    assert len(lines) == 10
    assert all(below - above >= 46 for above, below in pairwise(lines))
    assert lines[-1] < at["bottleneck"]["y"]
    assert at["bottleneck"]["y"] + at["picture"] / 2 <= at["height"]


def test_an_address_counts_though_that_of_an_earlier_change_is_written_over_it(visit: Open) -> None:
    page = visit("#tour=sight,0")
    earlier = hash_of(page)
    page.evaluate(
        """(earlier) => {
          location.hash = "#model=bare&tour=presence,1";
          history.replaceState(null, "", earlier);  // as the page itself does, a little after a change
        }""",
        earlier,
    )
    words_of(page, "So throw the rest of the place away")
    until(lambda: "model=bare" in hash_of(page), lambda: f"the address is {hash_of(page)}")


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


def test_an_image_that_can_not_be_had_leaves_nothing_of_the_last(visit: Open) -> None:
    refusal = {"error": {"given": "it is damaged", "expected": "an image", "remedy": "take another"}}

    def answer(route: Any) -> None:
        if '"image":"i1"' in (route.request.post_data or ""):
            route.fulfill(status=422, json=refusal)
        else:
            route.continue_()

    page = visit(route=lambda page: page.route("**/api/painting", answer))
    before = drawn(page)
    page.keyboard.press("]")
    page.wait_for_selector(".failed")
    assert drawn(page) != before
    assert "could not be shown" in str(surface(page).get_attribute("aria-label"))
    assert "Point at the image" in page.locator('.network[data-slot="0"] .pixel-head').inner_text()
    assert page.locator(".worth tr, .map").count() == 0
    page.click("#keep-numbers")  # there are none, and that is no failure
    page.keyboard.press("[")
    page.wait_for_selector(".failed", state="detached")
    wait_until_still(page)
    assert drawn(page) == before
    assert page.locator('.network[data-slot="0"] .node').count() == 5


@pytest.mark.parametrize(
    ("status", "given"), [(None, "the explorer does not answer"), (410, "the explorer was started anew")]
)
def test_a_picture_that_can_not_be_had_is_no_fault_of_the_page(visit: Open, status: int | None, given: str) -> None:
    def answer(route: Any) -> None:
        if status is None:
            route.abort()
        else:
            route.fulfill(status=status, json={"error": {"given": given, "expected": "", "remedy": "reload the page"}})

    page = visit(
        "#image=disc+1.png", route=lambda page: page.route("**/api/images/i1/picture.png*", answer), ready=False
    )
    page.wait_for_selector(".failed")
    assert given in page.locator(".notice").inner_text().lower()


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
    assert "Nothing yet" in changed(page, 0)


def files_of(folder: Path, *sides: int) -> list[Path]:
    """Discs without masks, so that no probe is fitted to them."""
    paths = [folder / f"{at} {side}.png" for at, side in enumerate(sides)]
    for at, (path, side) in enumerate(zip(paths, sides)):
        Image.fromarray(disc_picture(301 + at, side)[0]).save(path)
    return paths


@pytest.mark.slow
def test_the_chosen_image_stays_in_sight_among_many(visit: Open, disc_run: Path, tmp_path: Path) -> None:
    with served(Desk([("discs", load_model(disc_run))], files_of(tmp_path, *[SIDE] * 12))) as there:
        page = visit(at=there)
        strip, chosen = page.locator("#images"), page.locator(".thumb:has(:checked)")

        def in_sight() -> bool:
            whole, one = strip.bounding_box(), chosen.bounding_box()
            return bool(whole["x"] <= one["x"] and one["x"] + one["width"] <= whole["x"] + whole["width"])

        assert strip.evaluate("one => one.scrollWidth > one.clientWidth"), "all of them fit"
        for key in ("[", "[", "]", "]", "]"):  # over the end and back
            page.keyboard.press(key)
            assert in_sight()
        page.locator("#images input").nth(9).check(force=True)
        assert in_sight()
        wait_until_still(page)


def test_an_address_restores_all_that_was_seen(visit: Open) -> None:
    page = visit()
    page.locator("#images input").nth(1).check(force=True)
    wait_until_still(page)
    choose(page, 20, 9)
    valve(page).locator("input[value=cut]").check()
    page.locator('.tab[data-look="difference"]').first.click()
    page.locator("#patterns").click()
    wait_until_still(page)
    until(
        lambda: all(part in hash_of(page) for part in ("patterns=1", "look=difference", "cut", "pixel=20,9")),
        "incomplete",
    )
    again = visit(hash_of(page))
    assert drawn(again) == drawn(page)
    assert window(again, "B") == pytest.approx(window(page, "B"))
    assert again.locator("#images input").nth(1).is_checked()
    assert valve(again).get_attribute("data-hold") == "cut"


@pytest.mark.slow
def test_an_address_names_models_and_images_and_not_their_places(visit: Open) -> None:
    """On another start the same place holds another one."""
    page = visit("#model=bare&image=disc+3.png")
    assert page.locator("#model").evaluate("one => one.selectedOptions[0].text") == "bare"
    assert page.locator("#images input").nth(3).is_checked()
    page.keyboard.press("]")
    until(lambda: "image=disc+4.png" in hash_of(page), "the image is not named")
    assert "model=bare" in hash_of(page)
    elsewhere = visit("#model=m1&image=i3")
    assert "model m1 and image i3" in elsewhere.locator(".notice").inner_text()


def test_an_address_that_names_what_is_not_here_says_so(visit: Open) -> None:
    page = visit(
        "#model=none&image=gone&pixel=4000,x&paths=skip+9:7~:~cut&edits=q1,2&look=upside&layer=attic&tour=moon,77"
    )
    notice = page.locator(".notice")
    assert "model none" in notice.inner_text()
    assert "What to do" in notice.inner_text()
    assert "Nothing yet" in changed(page)


def test_an_address_that_brushes_outside_the_image_says_so(visit: Open) -> None:
    """A smaller image may have the name by now."""
    refusals: list[str] = []

    def note(page: Page) -> None:
        page.on("response", lambda answer: refusals.append(answer.url) if answer.status >= 400 else None)

    here = "#model=discs&image=disc+0.png&pixel=5,6"
    page = visit(f"{here}&paths=x:cut&edits=g{SIDE},5,3~b1,1,1~p2,2,1,80,0&tour=foo,3", route=note)
    until(lambda: hash_of(page) == f"{here}&edits=b1,1,1", f"the address is {hash_of(page)}")
    said = " ".join(page.locator(".notice").all_inner_texts())
    for words in ("tour foo", "path x", "a path of discs: skip 0", "in 2 of 3 places", f"its {SIDE} × {SIDE} pixels"):
        assert words in said
    page.evaluate(f"() => {{ location.hash = '{here}&paths=y:cut~skip+0:cut&edits=g1,{SIDE},3'; }}")
    until(lambda: hash_of(page) == f"{here}&paths=skip+0:cut", "a changed address is not looked at")
    wait_until_still(page)
    assert refusals == []


def test_an_address_that_brushes_more_than_the_server_takes_says_so(visit: Open) -> None:
    refusals: list[str] = []
    dabs = "~".join(["g1,1,65"] + ["b1,1,1"] * 201)
    page = visit(f"#edits={dabs}&tool=grey,200", route=lambda page: note_refusals(page, refusals))
    until(lambda: hash_of(page).count("b1,1,1") == 200, lambda: f"the address is {hash_of(page)}")
    assert "tool=grey,64" in hash_of(page)
    assert page.locator(".size input").input_value() == "64"
    said = page.locator(".notice").inner_text()
    for words in ("in 2 of 202 places", "at most 200 places", "at most 64 px"):
        assert words in said
    assert refusals == []


def test_where_an_address_says_nothing_it_does_not_say_0(visit: Open) -> None:
    page = visit("#pixel=,0&paths=skip+0:~skip+1:+&edits=g,0,3")
    until(lambda: re.search(r"pixel=[1-9]", hash_of(page)), lambda: f"the address is {hash_of(page)}")
    assert "paths" not in hash_of(page)
    assert "edits" not in hash_of(page)


def test_what_can_not_be_painted_does_not_stay_on_the_image(visit: Open) -> None:
    refusal = {"error": {"given": "the brush is worn", "expected": "a new one", "remedy": "take another"}}

    def answer(route: Any) -> None:
        if '"edits":[]' in (route.request.post_data or ""):
            route.continue_()
        else:
            route.fulfill(status=422, json=refusal)

    page = visit(route=lambda page: page.route("**/api/painting", answer))
    before = drawn(page, "image")
    for key in ("b", "i", "Enter"):
        page.keyboard.press(key)
    page.locator(".notice", has_text="the brush is worn").wait_for()
    wait_until_still(page)
    assert drawn(page, "image") == before
    assert "brushed" not in str(surface(page).get_attribute("aria-label"))


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ("dd/images/im08.png does not exist", "dd/images/im08.png does not exist"),
        ("im08 does not exist", "im08 does not exist"),
        ("the image does not exist", "The image does not exist"),
    ],
)
def test_names_of_files_are_said_as_they_are_written(visit: Open, given: str, said: str) -> None:
    page = visit(ready=False)
    told = page.evaluate(
        """async (given) => {
          const { lines } = await import("/static/notices.js");
          return lines({ given, expected: "", remedy: "" })[0].textContent;
        }""",
        given,
    )
    assert told == said


def test_an_address_past_the_end_of_a_tour_is_of_its_last_step(visit: Open) -> None:
    page = visit("#tour=context,99")
    assert page.locator(".tour-count").inner_text() == "4 of 4"
    page.locator(".tour button", has_text="Back").click()
    assert page.locator(".tour-count").inner_text() == "3 of 4"


def test_good_and_bad_files(visit: Open, tmp_path: Path) -> None:
    page = visit()
    images = page.locator("#images input")
    there = images.count()
    good, bad, empty = tmp_path / "new disc.png", tmp_path / "letter.png", tmp_path / "empty.jpg"
    Image.fromarray(disc_picture(77)[0]).save(good)
    bad.write_text("Dear Sir or Madam")
    empty.write_bytes(b"")
    page.locator("#file").set_input_files(good)
    until(lambda: images.count() == there + 1, "the image did not come in")
    wait_until_still(page)
    until(lambda: "new disc.png" in page.locator(".picture-facts").first.inner_text(), "the new image is not shown")
    assert "No mask is known" in page.locator(".scores").first.inner_text()
    assert page.locator('.tab[data-look="truth"]').first.is_disabled()
    for file in (bad, empty):
        page.locator("#file").set_input_files(file)
        notice = page.locator(".notice", has_text=file.name)
        notice.wait_for()
        assert "Expected:" in notice.inner_text()
        assert "What to do:" in notice.inner_text()
        notice.locator(".close").click()
    gone = "() => { Blob.prototype.arrayBuffer = () => Promise.reject(new Error()); }"
    page.evaluate(gone)
    page.locator("#file").set_input_files(good)
    notice = page.locator(".notice", has_text="new disc.png can't be read")
    notice.wait_for()
    notice.locator(".close").click()
    page.reload()
    wait_until_still(page)
    assert images.count() == there + 1
    choose(page, 3, 3)


def test_a_dropped_file_is_taken_in(visit: Open) -> None:
    page = visit()
    there = page.locator("#images input").count()
    page.evaluate_handle(
        """async () => {
          const canvas = new OffscreenCanvas(40, 40);
          canvas.getContext("2d").fillRect(5, 5, 20, 20);
          const data = new DataTransfer();
          data.items.add(new File([await canvas.convertToBlob({type: "image/jpeg"})], "dropped.jpg"));
          dispatchEvent(new DragEvent("dragenter", {dataTransfer: data}));
          if (document.querySelector("#drop").hidden) throw new Error("nothing says that one may drop");
          dispatchEvent(new DragEvent("drop", {dataTransfer: data}));
        }"""
    )
    until(lambda: page.locator("#images input").count() == there + 1, "the dropped image did not come in")
    assert page.locator("#drop").is_hidden()


@pytest.mark.slow
def test_uploads_that_had_to_make_room_leave_the_page_too(
    visit: Open, disc_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("whatwhere.explorer.desk._UPLOADS", 2)
    with served(Desk([("discs", load_model(disc_run))])) as bare:
        page = visit(at=bare, ready=False)
        files = [tmp_path / f"{seed}.png" for seed in range(3)]
        for seed, file in enumerate(files):
            Image.fromarray(disc_picture(seed)[0]).save(file)
        page.locator("#file").set_input_files(files)
        until(lambda: "make room" in page.locator("#word").inner_text(), "it is not said that one went")
        assert [one.get_attribute("alt") for one in page.locator("#images img").all()] == ["1.png", "2.png"]
        wait_until_still(page)


def test_the_skip_link_moves_the_focus_and_nothing_else(visit: Open) -> None:
    page = visit()
    page.keyboard.press("]")
    wait_until_still(page)
    choose(page, 7, 9)
    before = hash_of(page)
    page.locator(".skip-link").focus()
    page.keyboard.press("Enter")
    assert page.evaluate("document.activeElement.id") == "stage"
    time.sleep(0.3)
    assert hash_of(page) == before


def test_looks_that_an_image_lacks_are_not_kept(visit: Open, tmp_path: Path) -> None:
    """Else a mask would be shown that is none."""
    page = visit()
    page.keyboard.press("m")
    until(lambda: "look=truth" in hash_of(page), "the mask is not looked at")
    Image.fromarray(disc_picture(78)[0]).save(tmp_path / "unmasked.png")
    page.locator("#file").set_input_files(tmp_path / "unmasked.png")
    until(lambda: "unmasked.png" in page.locator(".picture-facts").first.inner_text(), "the new image is not shown")
    wait_until_still(page)
    assert "look=" not in hash_of(page)
    page.keyboard.press("m")
    until(lambda: "There is no mask" in page.locator("#word").inner_text(), "nothing says that there is no mask")
    assert "look=" not in hash_of(page)
    assert surface(page, "painting").get_attribute("aria-label").startswith("Painting by discs")
    go(page, f"{hash_of(page)}&look=truth")
    until(lambda: "look=" not in hash_of(page), "an address shows a mask that is none")
    assert surface(page, "painting").get_attribute("aria-label").startswith("Painting by discs")


def test_certainty_says_what_light_and_dark_mean(visit: Open) -> None:
    page = visit("#look=certainty")
    assert "black 0, white 1" in page.locator(".scale").first.inner_text()
    assert page.locator(".painting-side .legend").first.is_hidden()
    assert "white is sure, black is not; on average 0." in surface(page, "painting").get_attribute("aria-label")


def test_without_an_image_the_page_waits_for_one(visit: Open, disc_run: Path, tmp_path: Path) -> None:
    with served(Desk([("discs", load_model(disc_run))])) as bare:
        page = visit(at=bare, ready=False)
        page.wait_for_selector("#empty:not([hidden])")
        assert page.locator("#views").is_hidden()
        assert page.locator(".network[aria-busy=true]").count() == 0
        assert all(button.is_disabled() for button in page.locator(".question").all())
        Image.fromarray(disc_picture(79)[0]).save(tmp_path / "first.png")
        Image.fromarray(disc_picture(80)[0]).save(tmp_path / "second.png")
        page.locator("#file").set_input_files([tmp_path / "first.png", tmp_path / "second.png"])
        until(lambda: page.locator("#images input").count() == 2, "both files are taken")
        wait_until_still(page)
        until(lambda: "second.png" in page.locator(".picture-facts").first.inner_text(), "the last one is looked at")
        page.locator(".question").first.click()  # probes need labelled images: the tour says so
        until(lambda: "--data" in page.locator(".tour-words").inner_text(), "what is missing is not said")
        page.locator(".tour .primary").click()
        until(lambda: "no probe tells what it knows" in page.locator(".tour-words").inner_text(), "it waits for ever")


def test_all_of_it_by_keyboard(visit: Open) -> None:
    page = visit()
    page.keyboard.press("i")
    page.keyboard.press("ArrowRight")
    at = re.search(r"x (\d+), y (\d+)", page.locator(".pixel-head").first.inner_text())
    assert at
    for key in ("Shift+ArrowLeft", "ArrowUp", "ArrowUp"):
        page.keyboard.press(key)
    moved = f"pixel={max(0, int(at[1]) - 10)},{max(0, int(at[2]) - 2)}"
    until(lambda: moved in hash_of(page), f"the pixel did not go to {moved}")
    until(lambda: "painted" in page.locator("#spoken").inner_text(), "nothing is said")
    assert "bottleneck sees" in page.locator("#spoken").inner_text()

    def focused(what: str) -> bool:
        return bool(
            page.evaluate_handle("() => document.activeElement").evaluate("(one, what) => one.matches(what)", what)
        )

    for _ in range(60):
        page.keyboard.press("Tab")
        if focused('.valve[data-path="bottleneck"] input[type=range]'):
            break
    else:
        pytest.fail("Tab never came to the valve")
    page.keyboard.press("ArrowLeft")
    until(lambda: "bottleneck:0.95" in hash_of(page), "the valve did not turn")
    page.keyboard.press("w")
    until(lambda: "paths" not in hash_of(page), "w does not open all valves")
    page.keyboard.press("b")
    page.keyboard.press("i")
    page.keyboard.press("Enter")
    until(lambda: "edits=g" in hash_of(page), "Enter does not dab")
    page.keyboard.press("Control+Shift+z")  # in most programs this does the last thing again
    time.sleep(0.3)
    assert "edits=g" in hash_of(page), "Shift is not looked at"
    page.keyboard.press("Control+z")
    until(lambda: "edits" not in hash_of(page), "the dab is still there")
    page.keyboard.press("?")
    assert page.locator("#help").is_visible()
    page.locator("#single-keys").uncheck()
    page.keyboard.press("Escape")
    page.keyboard.press("e")
    assert page.locator("#evidence").get_attribute("aria-pressed") == "false", "single keys can't be switched off"


@pytest.mark.skipif(find_spec("axe_playwright_python") is None, reason="axe-playwright-python is not installed")
@pytest.mark.parametrize("scheme", ["light", pytest.param("dark", marks=pytest.mark.slow)])
def test_axe_finds_nothing_serious(visit: Open, scheme: str) -> None:
    import axe_playwright_python

    # the page's own policy forbids scripts from elsewhere, so it is set aside for the one that checks
    page = visit("#tour=pixel,1", color_scheme=scheme, bypass_csp=True)
    source = Path(axe_playwright_python.__file__).with_name("axe.min.js").read_text(encoding="utf-8")
    page.add_script_tag(content=source)
    for state in ("a tour", "two networks", "help"):
        if state == "two networks":
            page.keyboard.press("Escape")
            page.locator("#other").select_option(index=2)
            page.wait_for_selector('.network[data-slot="1"]')
            wait_until_still(page)
        if state == "help":
            page.keyboard.press("?")
        found = page.evaluate("() => axe.run({resultTypes: ['violations']})")["violations"]
        grave = [
            (one["id"], node["target"], node.get("failureSummary"))
            for one in found
            if one["impact"] in ("serious", "critical")
            for node in one["nodes"]
        ]
        assert grave == [], state


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


def pixels_of(page: Page, side: str) -> np.ndarray[Any, Any]:
    """What is drawn, ``H x W x 3``."""
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(drawn(page, side).split(",")[1]))).convert("RGB"))


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


def note_refusals(page: Page, refused: list[str]) -> None:
    page.on("response", lambda answer: refused.append(answer.url) if answer.status >= 400 else None)


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


def contrast(one: Sequence[int], other: Sequence[int]) -> float:
    """Of two colours, as WCAG 2 has it."""
    lights = []
    for colour in (one, other):
        r, g, b = (v / 12.92 if v <= 0.04045 else ((v + 0.055) / 1.055) ** 2.4 for v in (v / 255 for v in colour))
        lights.append(0.2126 * r + 0.7152 * g + 0.0722 * b + 0.05)
    return max(lights) / min(lights)


SEEN = """colour => {
  const context = new OffscreenCanvas(1, 1).getContext("2d");
  context.fillStyle = colour;
  context.fillRect(0, 0, 1, 1);
  return [...context.getImageData(0, 0, 1, 1).data].slice(0, 3);
}"""


@pytest.mark.slow
def test_letters_on_colours_can_be_read(visit: Open) -> None:
    page = visit()
    colours = [f"#{r:02x}{g:02x}{b:02x}" for r, g, b in np.random.default_rng(0).integers(0, 256, (300, 3))]
    dark = page.evaluate(
        """async (colours) => {
          const { classLooks } = await import("/static/colours.js");
          return classLooks(colours.map((color, id) => ({ id, name: "a", color }))).map((one) => one.dark);
        }""",
        colours,
    )
    for colour, light_letter in zip(colours, dark):
        on = [int(colour[at : at + 2], 16) for at in (1, 3, 5)]
        assert contrast(on, [255 * light_letter] * 3) >= 4.5, colour
    tags = page.locator(".image-side .tag").evaluate_all(
        "all => all.map((one) => [...one.children].map((part) => getComputedStyle(part).fill))"
    )
    assert len(tags) == 3
    for under, letters in tags:
        assert contrast(page.evaluate(SEEN, under), page.evaluate(SEEN, letters)) >= 4.5, under


def test_the_bar_of_a_class_is_seen_whatever_its_colour(visit: Open) -> None:
    page = visit()
    for scheme, like in (("light", "#f0eee8"), ("dark", "#22262c")):
        page.emulate_media(color_scheme=scheme)
        for name in (".pixel-panel .bar", ".node .reading"):
            bar = page.locator(name).first
            bar.locator("i").evaluate_all(
                """(all, colour) => all.forEach((one, at) => {
                  Object.assign(one.style, { transition: "none", background: colour, width: at ? "40%" : "60%" });
                })""",
                like,
            )
            pixels = np.asarray(Image.open(io.BytesIO(bar.screenshot())).convert("RGB"))
            row = pixels[len(pixels) // 2]
            end = row[int(0.5 * len(row)) : int(0.7 * len(row))]
            assert max(contrast(pixel, end[0]) for pixel in end) > 2, f"nobody sees where {name} ends, {scheme}"


def test_what_has_the_focus_is_not_under_the_questions(visit: Open) -> None:
    page = visit()
    page.set_viewport_size({"width": 1280, "height": 720})
    page.locator(".layer-tabs .tab").last.focus()
    hidden = """() => {
      const at = (document.activeElement.closest("label") ?? document.activeElement).getBoundingClientRect();
      return scrollY > 0 && !document.activeElement.closest("#ask, header")
        && at.top < document.querySelector("#ask").getBoundingClientRect().bottom;
    }"""
    for _ in range(30):
        page.keyboard.press("Shift+Tab")
        assert not page.evaluate(hidden), page.evaluate("document.activeElement.outerHTML")


@pytest.mark.slow
def test_who_asks_for_less_motion_gets_less_everywhere(visit: Open) -> None:
    page = visit(route=lambda page: page.route("**/api/painting", lambda _route: None), ready=False)
    page.wait_for_selector(".network[aria-busy=true]")
    moves = """() => [...document.querySelectorAll("*")]
      .flatMap((one) => [null, "::before", "::after"].map((part) => getComputedStyle(one, part)))
      .filter((one) => one.animationName !== "none").map((one) => parseFloat(one.animationDuration))"""
    found = page.evaluate(moves)
    assert len(found) >= 2
    assert min(found) >= 3


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


@pytest.mark.slow
def test_nothing_on_the_page_jumps(visit: Open) -> None:
    page = visit()
    parts = (".u", ".image-side", ".painting-side", ".pixel-panel", ".change-panel", "#below", "#strip")

    def boxes() -> list[Any]:
        return [page.locator(part).first.bounding_box() for part in parts]

    before = boxes()
    page.locator("#images input").nth(2).check(force=True)
    wait_until_still(page)
    valve(page).locator("input[value=cut]").check()
    page.locator(".question").first.click()
    wait_until_still(page)
    page.evaluate_handle("() => scrollTo(0, 0)")
    assert boxes() == before


def test_a_browser_that_keeps_nothing_of_a_site_shows_the_page(visit: Open) -> None:
    denied = "Object.defineProperty(window, 'localStorage', {get() { throw new DOMException('no', 'SecurityError'); }})"
    page = visit(route=lambda page: page.add_init_script(denied))
    page.locator("#theme").click()
    assert page.locator("html").get_attribute("data-theme") in ("light", "dark")


def test_a_narrow_page_puts_its_parts_below_each_other(visit: Open) -> None:
    page = visit()

    def below() -> bool:
        image, network = (page.locator(part).bounding_box() for part in (".image-side", ".u"))
        return bool(network["y"] >= image["y"] + image["height"])

    for width in (1100, 640):
        page.set_viewport_size({"width": width, "height": 800})
        until(below, "the U stands beside the image")
        assert page.locator("html").evaluate(OVERFLOW) == 0, "it is cut at the right"


OVERFLOW = "one => one.scrollWidth - one.clientWidth"
SCREENS = ((1280, 720), (1366, 768), (1440, 900), (1920, 1080), (2560, 1440))


@pytest.mark.slow
def test_no_words_are_cut_off(visit: Open) -> None:
    page = visit()
    words = "html, .tabs, .pixel-head, .pixel-head *, .change-head, .ious :not(.bar)"
    wide = f"""() => [...document.querySelectorAll("{words}")]
      .filter((one) => one.scrollWidth > one.clientWidth && one.clientWidth)
      .map((one) => one.className || one.tagName)"""
    low = """() => document.querySelector(".evidence-words").getBoundingClientRect().bottom
      - document.querySelector(".pixel-panel").getBoundingClientRect().bottom"""

    def nothing_is_cut() -> None:
        for width, height in SCREENS:
            page.set_viewport_size({"width": width, "height": height})
            until(lambda: page.evaluate(wide) == [], f"too wide at {width}: {page.evaluate(wide)}")
            until(lambda: page.evaluate(low) <= 0, f"too low at {width}: {page.evaluate(low)}")

    nothing_is_cut()
    for path in ("bottleneck", "skip 0", "skip 1"):
        valve(page, path).locator("input[value=cut]").check()
    until(lambda: "of the pixels changed" in changed(page), "nothing changed")
    wait_until_still(page)
    nothing_is_cut()
    head, said = page.locator(".pixel-head").first, set()
    for x in range(0, SIDE, 4):  # over the ground and the disc, one of which is painted wrong
        point_at(page, x, 11)
        if (other := "the mask says" in head.inner_text()) not in said:
            said.add(other)
            nothing_is_cut()
    assert said == {True, False}


PHONE = {"width": 360, "height": 740}


@pytest.mark.parametrize("width", [320, PHONE["width"]])
def test_on_a_phone_nothing_in_the_u_lies_over_another(visit: Open, width: int) -> None:
    page = visit()
    page.set_viewport_size({**PHONE, "width": width})
    boxes = """() => [...document.querySelectorAll(".about > *, .valve .choices label, .valve .line, .node")]
      .map((one) => [one.textContent || one.className, one.getBoundingClientRect()])
      .filter(([, box]) => box.width).map(([name, {left, top, right, bottom}]) => [name, left, top, right, bottom])"""

    def over() -> list[tuple[str, str]]:
        """Pairs of which one lies over another by more than the line that two choices share."""
        found = page.evaluate(boxes)
        return [
            (a[0], b[0])
            for at, a in enumerate(found)
            for b in found[:at]
            if min(a[3], b[3]) - max(a[1], b[1]) > 1 and min(a[4], b[4]) - max(a[2], b[2]) > 1
        ]

    def out() -> list[str]:
        """What runs out of the U."""
        u = page.locator(".u").bounding_box()
        return [
            name for name, left, _, right, _ in page.evaluate(boxes) if left < u["x"] or right > u["x"] + u["width"]
        ]

    until(lambda: page.locator(".u").bounding_box()["width"] < width and not over(), lambda: f"on each other: {over()}")
    until(lambda: not out(), lambda: f"out of the U: {out()}")
    assert page.locator("html").evaluate(OVERFLOW) == 0, "it is cut at the right"


@pytest.mark.slow
def test_a_finger_scrolls_over_the_pictures_and_brushes_with_a_brush(visit: Open) -> None:
    page = visit(has_touch=True)
    page.set_viewport_size(PHONE)
    driver = page.context.new_cdp_session(page)

    def swiped(side: str) -> float:
        """How far the page scrolls under a finger that moves up over a picture."""
        surface(page, side).scroll_into_view_if_needed()
        box, before = surface(page, side).bounding_box(), page.evaluate("scrollY")
        x, y = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
        for step in range(13):
            kind = "touchMove" if step else "touchStart"
            driver.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": [{"x": x, "y": y - 10 * step}]})
        driver.send("Input.dispatchTouchEvent", {"type": "touchEnd", "touchPoints": []})
        time.sleep(0.3)
        return float(page.evaluate("scrollY") - before)

    choose(page, 3, 4)
    assert swiped("image") > 60
    assert swiped("painting") > 60
    assert "pixel=3,4" in hash_of(page), "to scroll is to choose"
    page.locator(".brush input[value=grey]").check(force=True)
    assert swiped("image") == 0
    until(lambda: "edits=g" in hash_of(page), "nothing is brushed")
    assert swiped("painting") > 60, "a picture without a brush holds the page"


@pytest.mark.slow
def test_letters_are_as_large_as_the_browser_is_told(visit: Open) -> None:
    page = visit()
    size = "one => parseFloat(getComputedStyle(one).fontSize)"
    before = page.locator("html").evaluate(size)
    page.context.new_cdp_session(page).send("Page.setFontSizes", {"fontSizes": {"standard": 24, "fixed": 20}})
    until(lambda: page.locator("html").evaluate(size) > 1.2 * before, "the browser's letters do not count")


def test_without_an_answer_the_page_says_what_to_do(visit: Open) -> None:
    page = visit(route=lambda page: page.route("**/api/session", lambda route: route.abort()), ready=False)
    instead = page.locator("#instead")
    instead.locator("h2").wait_for()
    assert "does not answer" in instead.inner_text()
    assert "What to do:" in instead.inner_text()
    page.unroute("**/api/session")
    instead.locator("button").click()
    wait_until_still(page)
    assert instead.is_hidden()


@pytest.mark.slow
def test_an_image_far_taller_than_wide(visit: Open, disc_run: Path, tmp_path: Path) -> None:
    """Enlarged by its width alone it was more than a canvas can hold."""
    tall = np.tile(disc_picture(81)[0][:6, :6], (166, 1, 1))
    Image.fromarray(tall).save(tmp_path / "tall.png")
    with served(Desk([("discs", load_model(disc_run))], [tmp_path / "tall.png"])) as bare:
        page = visit("#patterns=1", at=bare)
        painted = page.locator(".painting-side canvas").first
        assert painted.evaluate("one => [one.width, one.height]") == [6, 996]
        with page.expect_download() as waiting:
            page.locator("#keep-picture").click()
        waiting.value.save_as(tmp_path / "seen.png")
    with Image.open(tmp_path / "seen.png") as seen:
        assert 996 < seen.height < 2 * 996


def test_what_is_seen_can_be_taken_away(visit: Open, tmp_path: Path) -> None:
    page = visit()
    choose(page, 12, 18)
    wait_until_still(page)
    with page.expect_download() as waiting:
        page.locator("#keep-numbers").click()
    record = json.loads(Path(waiting.value.path()).read_text())
    assert record["pixel"] == {"x": 12, "y": 18}
    assert set(record["networks"][0]["windows"]) >= {"encoder.0", "bottleneck", "output"}
    assert record["networks"][0]["pixel"]["probabilities"]
    with page.expect_download() as waiting:
        page.locator("#keep-picture").click()
    waiting.value.save_as(tmp_path / "seen.png")
    picture = np.asarray(Image.open(tmp_path / "seen.png"))
    assert picture.shape[1] > 2 * 512
    assert picture.std() > 10
