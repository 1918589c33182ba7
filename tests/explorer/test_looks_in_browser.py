"""How the explorer's page looks in a real Chromium: on any screen, by keyboard, in any colours."""

from __future__ import annotations

import io
import re
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from importlib.util import find_spec
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from chromium import in_browser
from painting import model_of, picture, unet
from PIL import Image
from visiting import (
    OVERFLOW,
    SIDE,
    Open,
    changed,
    choose,
    files_of,
    hash_of,
    point_at,
    served,
    surface,
    until,
    valve,
    wait_until_still,
)

from whatwhere.explorer import Desk
from whatwhere.network import Model, load_model
from whatwhere.records import Classes, Normalisation

pytestmark = in_browser
SEEN = """colour => {
  const context = new OffscreenCanvas(1, 1).getContext("2d");
  context.fillStyle = colour;
  context.fillRect(0, 0, 1, 1);
  return [...context.getImageData(0, 0, 1, 1).data].slice(0, 3);
}"""
SCREENS = ((1280, 720), (1366, 768), (1440, 900), (1920, 1080), (2560, 1440))
PHONE = {"width": 360, "height": 740}


def contrast(one: Sequence[int], other: Sequence[int]) -> float:
    """Of two colours, as WCAG 2 has it."""
    lights = []
    for colour in (one, other):
        r, g, b = (v / 12.92 if v <= 0.04045 else ((v + 0.055) / 1.055) ** 2.4 for v in (v / 255 for v in colour))
        lights.append(0.2126 * r + 0.7152 * g + 0.0722 * b + 0.05)
    return max(lights) / min(lights)


def on_each_other(boxes: Sequence[Sequence[Any]]) -> list[tuple[str, str]]:
    """Pairs of names of boxes (left, top, right, bottom) of which one lies over another by more than the line that two
    choices share.
    """
    return [
        (a[0], b[0])
        for at, a in enumerate(boxes)
        for b in boxes[:at]
        if min(a[3], b[3]) - max(a[1], b[1]) > 1 and min(a[4], b[4]) - max(a[2], b[2]) > 1
    ]


@pytest.mark.slow
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


@pytest.mark.slow
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


def test_certainty_says_what_light_and_dark_mean(visit: Open) -> None:
    page = visit("#look=certainty")
    assert "black 0, white 1" in page.locator(".scale").first.inner_text()
    assert page.locator(".painting-side .legend").first.is_hidden()
    assert "white is sure, black is not; on average 0." in surface(page, "painting").get_attribute("aria-label")


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
    page.reload()
    until(lambda: not page.locator("#single-keys").is_checked(), "what was switched off is on again")


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
            if one["impact"] in ("serious", "critical") or one["id"] == "landmark-unique"
            for node in one["nodes"]
        ]
        assert grave == [], state


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


@pytest.mark.slow
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


@pytest.mark.parametrize("width", [320, PHONE["width"]])
def test_on_a_phone_nothing_in_the_u_lies_over_another(visit: Open, width: int) -> None:
    page = visit()
    page.set_viewport_size({**PHONE, "width": width})
    boxes = """() => [...document.querySelectorAll(".about > *, .valve .choices label, .valve .line, .node")]
      .map((one) => [one.textContent || one.className, one.getBoundingClientRect()])
      .filter(([, box]) => box.width).map(([name, {left, top, right, bottom}]) => [name, left, top, right, bottom])"""

    def over() -> list[tuple[str, str]]:
        return on_each_other(page.evaluate(boxes))

    def out() -> list[str]:
        """What runs out of the U."""
        u = page.locator(".u").bounding_box()
        return [
            name for name, left, _, right, _ in page.evaluate(boxes) if left < u["x"] or right > u["x"] + u["width"]
        ]

    until(lambda: page.locator(".u").bounding_box()["width"] < width and not over(), lambda: f"on each other: {over()}")
    until(lambda: not out(), lambda: f"out of the U: {out()}")
    assert page.locator("html").evaluate(OVERFLOW) == 0, "it is cut at the right"


def test_on_a_phone_what_is_waited_for_covers_nothing(visit: Open, tmp_path: Path) -> None:
    """Why there are no probes takes two lines there."""
    deep = model_of(unet(depth=4, classes=2), classes=2)
    with served(Desk([("deep", deep)], files_of(tmp_path, SIDE))) as there:
        page = visit(at=there)
        page.set_viewport_size(PHONE)
        boxes = """() => [".u-wait", ".node[data-layer=bottleneck] .frame", ".pixel-panel h2"]
          .map((one) => [one, document.querySelector(one).getBoundingClientRect()])
          .map(([name, {left, top, right, bottom}]) => [name, left, top, right, bottom])"""
        until(lambda: "no labelled images" in page.locator(".u-wait").inner_text(), "it is not said why")
        until(lambda: not on_each_other(page.evaluate(boxes)), lambda: f"on each other: {page.evaluate(boxes)}", 20)


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


def test_on_paper_stands_what_is_seen_and_nothing_lies_over_another(visit: Open) -> None:
    # no script runs between the screen and the sheet
    observer = """window.ResizeObserver = class extends ResizeObserver {
      constructor(act) { super((...given) => window.printed || act(...given)); }
    }"""
    page = visit("#paths=skip%200:cut", route=lambda page: page.add_init_script(observer), color_scheme="dark")
    page.evaluate("window.printed = true")
    page.emulate_media(media="print")
    page.set_viewport_size({"width": 703, "height": 1032})
    pressed = "header select, header button, #ask, #strip, .layer-tabs, .tab[aria-pressed=false]"
    assert [one for one in page.locator(pressed).all() if one.is_visible()] == []
    assert page.locator(".network-title").first.is_visible(), "no model is named"
    assert page.evaluate(
        "() => [...document.querySelectorAll('.bar i, .node, .swatch')]"
        ".every((one) => getComputedStyle(one).printColorAdjust === 'exact')"
    )
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    boxes = page.evaluate(
        """() => [...document.querySelectorAll(".surface, .node, .about, .panel, .legend, .caption")]
          .map((one) => [one.className, one.getBoundingClientRect()]).filter(([, box]) => box.width)
          .map(([name, {left, top, right, bottom}]) => [name, left, top, right, bottom])"""
    )
    assert on_each_other(boxes) == []
    assert page.locator("html").evaluate(OVERFLOW) == 0, "it is cut at the right"


@pytest.fixture(scope="module")
def of_many_classes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A running explorer of 32 classes with long names, and an image of five channels of 16 bit."""
    names = tuple(f"a rather long name of a class of plants, subspecies number {at}" for at in range(32))
    colours = tuple((8 * at, 255 - 8 * at, 90) for at in range(32))
    classes = Classes(names, colours, tuple((at,) for at in range(32)))
    model = Model(unet(channels=5, classes=32), classes, Normalisation((30000.0,) * 5, (9000.0,) * 5, "uint16"))
    path = tmp_path_factory.mktemp("many") / "five.tif"
    tifffile.imwrite(path, picture(40, 1100, 5, dtype="uint16"), photometric="minisblack", planarconfig="contig")
    with served(Desk([("many", model)], [path])) as found:
        yield found


def test_of_many_classes_every_one_is_told_apart(visit: Open, of_many_classes: str) -> None:
    page = visit(at=of_many_classes, has_touch=True)
    facts = page.locator(".picture-facts").first.inner_text()
    for said in ("1024 × 40 (middle of 1100 × 40)", "channels 1–3 of 5 shown", "16 bit, stretched"):
        assert said in facts
        assert said in page.locator(".thumb").get_attribute("title")

    legend = page.locator(".legend").first
    rem = page.evaluate("parseFloat(getComputedStyle(document.documentElement).fontSize)")
    assert legend.bounding_box()["height"] <= 10 * rem + 1
    until(lambda: legend.get_attribute("tabindex") == "0", "it can't be scrolled by keyboard")
    cut = legend.locator(".swatch, .chip-name").evaluate_all(
        "all => all.map((one) => one.scrollWidth - one.clientWidth)"
    )
    assert len(cut) == 64
    assert max(cut) <= 0
    page.keyboard.press("p")
    until(lambda: legend.locator(".pattern").count() == 32, "the legend shows no patterns")
    alike = page.evaluate(
        """async () => {
          const { inked } = await import("/static/colours.js");
          const at = Array.from({ length: 120 * 120 }, (_, place) => [place % 120, Math.floor(place / 120)]);
          const fields = Array.from({ length: 32 }, (_, id) => at.map(([x, y]) => Number(inked(id, x, y))).join(""));
          return fields.length - new Set(fields).size;
        }"""
    )
    assert alike == 0, "two classes have the same pattern"

    targets = page.locator(".valve label, .valve input[type=range], .layer-tabs .tab")
    low = targets.evaluate_all(
        "all => all.map((one) => one.getBoundingClientRect().height).filter((tall) => tall < 24)"
    )
    assert low == [], "too small for a finger"
    page.set_viewport_size({"width": 640, "height": 360})
    style = "(one, name) => getComputedStyle(one)[name]"
    assert page.locator("#ask").evaluate(style, "position") == "static", "the questions cover a short window"
    assert float(page.locator("#notices").evaluate(style, "maxHeight").removesuffix("px")) <= 360


def test_long_names_stay_in_their_panels(visit: Open, disc_run: Path, tmp_path: Path) -> None:
    model = load_model(disc_run)
    name, long = "m" * 90, "q" * 40
    classes = replace(model.classes, names=tuple(f"{at}{long}" for at in range(2)))
    with served(Desk([(name, replace(model, classes=classes)), ("bare", model)], files_of(tmp_path, SIDE))) as there:
        page = visit("#with=bare", at=there)
        assert page.locator("#model").get_attribute("title").startswith(name)
        for width in (1280, PHONE["width"]):
            page.set_viewport_size({"width": width, "height": 800})
            until(lambda: page.locator("html").evaluate(OVERFLOW) == 0, f"the page is too wide at {width}")
            for part in (".network-title", ".evidence-words", ".pixel-head"):
                cut = page.locator(part).first.evaluate(OVERFLOW)
                assert cut <= 0, f"{part} is cut at {width}"
            panel, chance = (
                page.locator(one).first.bounding_box() for one in (".pixel-panel", ".pixel-head > .chip .chip-after")
            )
            assert chance["x"] + chance["width"] <= panel["x"] + panel["width"], "the probability is out of the panel"
