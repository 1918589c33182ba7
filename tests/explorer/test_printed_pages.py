"""The report and the demo's page, printed and on a phone: their styles, on pieces of the pages themselves."""

from __future__ import annotations

import re
from importlib.resources import files
from typing import Any

import pytest
from chromium import in_browser

pytestmark = in_browser
A4 = 718
"""px between margins of 1 cm."""
CELL = "0.39 [0.33, 0.46]"
LONG = "resnet_encoder_with_attention_and_a_very_long_name_" * 2
TILE = '<div class="tile {}"><div class="name">{}</div></div>'


def template(place: str) -> str:
    return (files("whatwhere") / place).read_text(encoding="utf-8")


def shown(browser: Any, place: str, body: str, width: int, media: str) -> Any:
    """A page with the styles of a template."""
    page = browser.new_page(viewport={"width": width, "height": 900})
    page.emulate_media(media=media)
    style = re.search(r"<style>.*?</style>", template(place), re.DOTALL)
    assert style
    page.set_content(f"<!doctype html>{style[0]}<main>{body}</main>")
    return page


def widest_table() -> str:
    head = max(re.findall(r"<tr>(?:<th>.*?</th>)+</tr>", template("explain/report.html")), key=len)
    rows = "".join(f"<tr><td>encoder {at}</td>{f'<td>{CELL}</td>' * (head.count('<th>') - 1)}</tr>" for at in range(5))
    return f'<div class="wide"><table>{head}{rows}</table></div>'


def test_the_widest_table_of_the_report_is_printed_whole(browser: Any) -> None:
    page = shown(browser, "explain/report.html", widest_table(), A4, "print")
    assert page.evaluate("document.querySelector('table').offsetWidth") <= A4
    assert page.locator(".wide").evaluate("one => getComputedStyle(one).overflowX") == "visible"


@pytest.mark.parametrize(
    ("place", "piece", "name"),
    [
        ("explain/report.html", '<div class="chips"><i style="background: #123456"></i></div>', ".chips i"),
        ("explain/report.html", '<div class="stack"><i style="background: #123456; width: 9px"></i></div>', ".stack i"),
        ("explain/report.html", '<div class="bar" style="--v: 1; --c: #123456"></div>', ".bar"),
        ("pages/demo.html", '<span class="meter"><i style="width: 80%"></i></span>', ".meter i"),
        ("pages/demo.html", '<span class="chip" style="background: #123456"></span>', ".chip"),
    ],
    ids=["legend", "shares", "bar", "meter", "chip"],
)
def test_colours_that_mean_something_are_printed(browser: Any, place: str, piece: str, name: str) -> None:
    """Backgrounds are not, unless a page asks for it."""
    page = shown(browser, place, piece, A4, "print")
    style = "(one) => [null, '::before'].map((part) => getComputedStyle(one, part).printColorAdjust)"
    assert page.locator(name).evaluate(style) == ["exact", "exact"]


def test_the_demos_table_scrolls_on_a_phone_and_the_page_does_not(browser: Any) -> None:
    table = re.search(r"<div[^>]*><table>.*?</table></div>|<table>.*?</table>", template("pages/demo.html"), re.DOTALL)
    assert table
    plain = re.sub(r"{%.*?%}", "", table[0])
    filled = re.sub(r"{{.*?}}", "0.856", plain)
    page = shown(browser, "pages/demo.html", filled, 390, "screen")
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    assert page.locator("table").evaluate("one => one.offsetWidth") > 0
    assert not page.locator(".meter").first.is_visible()


@pytest.mark.parametrize("width", [320, 390, 1000])
def test_long_names_do_not_make_the_report_wider_than_a_screen(browser: Any, width: int) -> None:
    skip = f'<div class="skip"><strong>0.123</strong><br>lost without {LONG}</div>'
    left = TILE.format("left", "encoder 4<span>1/16 · 256 ch.</span>")
    u = left + skip + TILE.format("right", "the network's answer")
    body = f'<p class="facts">{LONG}</p><div class="chips"><span>{LONG}</span></div><div class="u">{u}</div>'
    page = shown(browser, "explain/report.html", body, width, "screen")
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    tiles = page.locator(".tile").evaluate_all("all => all.map((one) => one.getBoundingClientRect().width)")
    assert tiles[0] == pytest.approx(tiles[1], abs=1)


def test_the_charts_of_the_report_are_scrolled_on_a_phone_and_the_page_is_not(browser: Any) -> None:
    chart = '<figure><svg viewBox="0 0 900 300"></svg><figcaption>What it shows.</figcaption></figure>'
    page = shown(browser, "explain/report.html", chart, 320, "screen")
    assert page.locator("svg").bounding_box()["width"] >= 500, "its letters are too small to be read"
    assert page.locator("figcaption").bounding_box()["width"] <= 320
    assert page.evaluate("document.documentElement.scrollWidth") <= 320
