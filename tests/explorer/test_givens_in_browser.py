"""What the explorer's page is given, in a real Chromium: addresses, files, answers that fail."""

from __future__ import annotations

import json
import re
from pathlib import Path
from threading import Event
from typing import Any

import numpy as np
import pytest
from chromium import in_browser
from PIL import Image
from visiting import (
    SIDE,
    Open,
    Page,
    changed,
    choose,
    drawn,
    files_of,
    go,
    hash_of,
    note_refusals,
    served,
    surface,
    until,
    valve,
    wait_until_still,
    window,
    words_of,
)

from tiny import disc_picture
from whatwhere.explorer import Desk
from whatwhere.network import load_model

pytestmark = in_browser


def test_nothing_is_brushed_on_an_image_that_was_not_there_yet(visit: Open) -> None:
    page = visit()
    held: list[Any] = []
    holding = Event()  # from the beginning: requests that are sent while a first route is set up pass it by
    page.route("**/api/painting", lambda route: held.append(route) if holding.is_set() else route.continue_())
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

    holding.set()
    page.keyboard.press("i")
    page.keyboard.press("]")
    until(lambda: page.evaluate("1") and held, lambda: f"no painting was asked for at {hash_of(page)}")
    page.keyboard.press("ArrowRight")  # would choose a pixel
    page.keyboard.press("Enter")
    page.mouse.click(x, y)
    assert undo.is_disabled(), "the next image is brushed where the last one is shown"
    holding.clear()
    held[0].continue_()
    wait_until_still(page)
    page.mouse.click(x, y)
    until(lambda: undo.is_enabled(), "nothing can be brushed any more")
    wait_until_still(page)


def test_a_key_that_is_held_dabs_once(visit: Open) -> None:
    page = visit()
    for key in ("b", "i"):
        page.keyboard.press(key)
    for _ in range(4):
        page.keyboard.down("Enter")
    until(lambda: "dab" in page.locator(".hint").inner_text(), "nothing is brushed")
    assert page.locator(".hint").inner_text() == "1 dab"
    wait_until_still(page)


@pytest.mark.slow
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
    assert "No change yet" in changed(page)
    notice.get_by_role("button", name="Dismiss").press("Enter")
    notice.wait_for(state="detached")
    assert page.evaluate("document.activeElement.id") == "stage", "the focus is lost with the notice"


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
    assert "could not be painted" in changed(page)
    page.locator(".change-head button", has_text="Try again").wait_for()
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


@pytest.mark.slow
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
        option = page.locator(".presence code")
        assert option.inner_text() == "--data DATA"
        assert option.evaluate("one => getComputedStyle(one).whiteSpace") == "nowrap", "broken after --"
        page.locator(".question").first.click()  # probes need labelled images: the tour says so
        until(lambda: "--data" in page.locator(".tour-words").inner_text(), "what is missing is not said")
        page.locator(".tour .primary").click()
        until(lambda: "no probe tells what it knows" in page.locator(".tour-words").inner_text(), "it waits for ever")


def test_without_an_answer_the_page_says_what_to_do(visit: Open) -> None:
    held: list[Any] = []
    page = visit(route=lambda page: page.route("**/api/session", lambda route: held.append(route)), ready=False)
    opening, instead = page.locator("#opening"), page.locator("#instead")
    until(lambda: opening.is_visible() and held, "the page is blank while it opens")
    held.pop().abort()
    instead.locator("h2").wait_for()
    assert "does not answer" in instead.inner_text()
    assert "What to do:" in instead.inner_text()
    page.unroute("**/api/session")
    instead.locator("button").click()
    wait_until_still(page)
    assert instead.is_hidden()
    assert opening.is_hidden()


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


def test_an_image_far_wider_than_tall_is_still_seen(visit: Open, disc_run: Path, tmp_path: Path) -> None:
    Image.fromarray(np.tile(disc_picture(81)[0][:2, :32], (1, 32, 1))).save(tmp_path / "wide.png")
    with served(Desk([("discs", load_model(disc_run))], [tmp_path / "wide.png"])) as bare:
        page = visit(at=bare)
        for part in (".image-side .surface", ".painting-side .surface", ".node .frame"):
            height = page.locator(part).first.evaluate("one => one.getBoundingClientRect().height")
            assert height >= 1, f"{part} can't be seen"


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


def test_an_answer_that_failed_once_can_be_had_again(visit: Open) -> None:
    failing = {"levels": 1, "features": 1, "painting": 0}

    def answer(route: Any) -> None:
        name = next(name for name in failing if f"/{name}" in route.request.url)
        failing[name] -= 1
        if failing[name] >= 0:
            route.abort()
        else:
            route.continue_()

    page = visit(
        route=lambda page: [page.route(f"**/{name}*", answer) for name in ("levels", "features", "painting")],
        ready=False,
    )
    sorry = page.locator(".features .sorry")
    sorry.locator("button").wait_for()
    assert sorry.bounding_box()["width"] > 0.9 * page.locator(".maps").bounding_box()["width"], "squeezed in a column"
    assert "does not answer" in sorry.inner_text()
    sorry.locator("button").click()
    page.locator(".map").first.wait_for()
    wait_until_still(page)  # the levels came too
    page.locator(".presence .bar-row").first.wait_for()

    failing["painting"] = 2
    valve(page).locator("input[value=cut]").check()
    page.locator(".notice", has_text="does not answer").wait_for()
    until(lambda: "asked for again" in changed(page), lambda: f"what changed: {changed(page)}")
    assert page.locator(".painting-waits").count() == 1, "the wait can't be seen"
    until(lambda: "of the pixels changed" in changed(page), "the painting is not asked for again")  # by itself
    wait_until_still(page)
    page.locator(".notice").wait_for(state="detached")

    failing["painting"] = 99
    valve(page, "skip 1").locator("input[value=cut]").check()
    again = page.locator(".change-head button", has_text="Try again")
    again.wait_for()  # at some time nobody waits any more
    failing["painting"] = 0
    again.click()
    until(lambda: "of the pixels changed" in changed(page), "the painting can't be had")

    gone = {"error": {"given": "the levels are gone", "expected": "", "remedy": ""}}
    page.route("**/images/i1/levels", lambda route: route.fulfill(status=422, json=gone))
    page.keyboard.press("]")
    page.locator(".notice", has_text="levels are gone").wait_for()
    assert page.locator(".node.waits").count() == 0, "what does not come is waited for"
    page.locator(".presence .bar-row").first.wait_for()
