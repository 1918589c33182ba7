"""What is foreign, malformed, too large or impossible ends in words and a proper status; never in a 500."""

from __future__ import annotations

import io
import json
import random
import re
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from desks import labelled, serving
from hypothesis import given, settings
from hypothesis import strategies as st
from painting import model_of, picture, unet
from PIL import Image

from tiny import png_header
from whatwhere.explorer import Desk, asked, create_app
from whatwhere.explorer.asked import edits_in, holds_in, parse, pixel_in
from whatwhere.explorer.errors import RefusalError

GOOD = {"model": "m0", "image": "i0", "x": 3, "y": 4}


def refused(answer: httpx.Response, status: int, *words: str) -> None:
    assert answer.status_code == status, answer.text
    said = answer.json()["error"]
    assert set(said) == {"given", "expected", "remedy"}
    for word in words:
        assert word in " ".join(said.values())


def test_page_and_server_agree_on_what_can_be_brushed() -> None:
    state = Path(asked.__file__).with_name("page") / "state.js"
    said = re.search(r"MOST_EDITS = (\d+), LARGEST_RADIUS = (\d+);", state.read_text(encoding="utf-8"))
    assert said
    assert [int(one) for one in said.groups()] == [asked._MOST_EDITS, asked._LARGEST_RADIUS]


@pytest.mark.parametrize(
    ("question", "record", "status", "words"),
    [
        ("pixel", {**GOOD, "x": 64}, 422, ("pixel x=64, y=4", "0 to 63")),
        ("pixel", {**GOOD, "x": -1}, 422, ("x=-1",)),
        ("pixel", {**GOOD, "x": "3"}, 400, ('x is "3"', "whole number")),
        ("pixel", {**GOOD, "x": 1e400}, 400, ()),
        ("pixel", {**GOOD, "x": True}, 400, ("x is true",)),
        ("pixel", {**GOOD, "model": "m9"}, 404, ("no model 'm9'",)),
        ("pixel", {**GOOD, "image": None}, 400, ("image is not given",)),
        ("painting", {**GOOD, "image": "../../etc/passwd"}, 404, ("no image", "an id of the explorer's images")),
        ("painting", {**GOOD, "paths": {"skip 7": "cut"}}, 422, ("skip 7", "skip 0, skip 1, bottleneck")),
        ("painting", {**GOOD, "paths": {"skip 0": 1.5}}, 422, ("1.5", "0 to 1")),
        ("painting", {**GOOD, "paths": {"skip 0": [1]}}, 422, ("[1]",)),
        ("painting", {**GOOD, "paths": [1]}, 400, ("paths is [1]",)),
        ("painting", {**GOOD, "edits": [{"kind": "erase"}]}, 422, ("grey",)),
        ("painting", {**GOOD, "edits": [{"kind": "grey", "x": 1, "y": 1, "radius": 0}]}, 422, ("radius is 0",)),
        ("painting", {**GOOD, "edits": [{"kind": "paste", "x": 1, "y": 1, "radius": 2}]}, 422, ("from is",)),
        ("painting", {**GOOD, "edits": [{"kind": "grey", "x": 1, "y": 1, "radius": 1}] * 201}, 422, ("201",)),
        ("evidence", {**GOOD, "y": 999}, 422, ("y=999",)),
    ],
)
def test_impossible_questions(
    question: str, record: dict[str, Any], status: int, words: tuple[str, ...], client: httpx.Client
) -> None:
    body = json.dumps(record)
    refused(client.post(f"/api/{question}", content=body), status, *words)


@pytest.mark.parametrize("body", [b"", b"{", b"[1]", b"null", b"\xff\xfe", b"[" * 5000, b'{"x": NaN'])
def test_malformed_json(body: bytes, client: httpx.Client) -> None:
    refused(client.post("/api/painting", content=body), 400)


def test_a_body_that_is_too_large(client: httpx.Client) -> None:
    refused(client.post("/api/painting", content=b" " * (300 * 1024)), 413, "0.25 MiB")


@pytest.mark.parametrize(
    ("path", "size", "says"), [("painting", 2**24, "0.25 MiB"), ("images?name=a.png", 2**27, "64 MiB")]
)
@pytest.mark.parametrize("declared", [True, False])
def test_who_still_sends_what_is_far_too_large_is_told_so(
    path: str, size: int, says: str, declared: bool, client: httpx.Client
) -> None:
    """By clients that read no answer before all is sent: they heard that the connection was reset."""
    body = bytes(size) if declared else (bytes(2**16) for _ in range(size // 2**16))
    request = urllib.request.Request(f"{client.base_url}/api/{path}", data=body, method="POST")
    with pytest.raises(urllib.error.HTTPError) as caught:
        urllib.request.urlopen(request, timeout=60)
    assert caught.value.code == 413
    assert says in json.loads(caught.value.read())["error"]["expected"]
    caught.value.close()


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/nothing", 404), ("GET", "/static/../app.py", 404), ("GET", "/static/%2e%2e%2fapp.py", 404),
        ("GET", "/api/images/i0/secret.png", 404), ("GET", "/api/images/nope/picture.png", 404),
        ("PUT", "/api/session", 405), ("GET", "/api/painting", 405),
        ("GET", "/api/models/m0/images/i0/features", 422), ("GET", "/api/models/m0/skips", 404),
    ],
)  # fmt: skip
def test_addresses_that_are_none(method: str, path: str, status: int, client: httpx.Client) -> None:
    refused(client.request(method, path), status)


def _encoded(array: np.ndarray, kind: str = "PNG") -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(array).save(buffer, kind)
    return buffer.getvalue()


class TestUploads:
    def send(self, client: httpx.Client, name: str, body: bytes) -> httpx.Response:
        return client.post("/api/images", params={"name": name}, content=body)

    def test_not_an_image(self, client: httpx.Client) -> None:
        refused(self.send(client, "notes.png", b"these are words"), 415, "notes.png", "not an image")

    def test_empty(self, client: httpx.Client) -> None:
        refused(self.send(client, "empty.png", b""), 415)

    def test_truncated(self, client: httpx.Client) -> None:
        whole = _encoded(picture(60, 60), "JPEG")
        refused(self.send(client, "cut.jpg", whole[: len(whole) // 2]), 415, "cut.jpg")

    def test_a_bomb(self, client: httpx.Client) -> None:
        refused(self.send(client, "bomb.png", png_header(30_000, 30_000)), 413, "bomb.png")

    def test_other_channels(self, client: httpx.Client) -> None:
        sent = self.send(client, "grey.png", _encoded(picture(20, 20)[..., 0]))
        refused(sent, 422, "grey.png has 1 channel 3, as the models")

    def test_other_units(self, client: httpx.Client) -> None:
        import tifffile

        buffer = io.BytesIO()
        tifffile.imwrite(buffer, np.full((20, 20, 3), 1.5, np.float32), photometric="rgb")
        refused(self.send(client, "float.tif", buffer.getvalue()), 422, "float32", "uint8")

    def test_a_name_that_is_a_path_is_only_a_name(self, client: httpx.Client) -> None:
        answer = self.send(client, "../../../tmp/evil.png", _encoded(picture(20, 20)))
        assert answer.json()["name"] == "evil.png"

    def test_of_many_the_oldest_goes(self, client: httpx.Client) -> None:
        ids = [self.send(client, "a.png", _encoded(picture(8, 8, seed=k))).json()["id"] for k in range(26)]
        refused(client.get(f"/api/images/{ids[0]}/picture.png"), 404)
        assert client.get(f"/api/images/{ids[-1]}/picture.png").status_code == 200


class TestForeigners:
    @pytest.mark.parametrize("host", ["evil.example", "127.0.0.1.evil.example", "", "[", "a b", "127.0.0.1@evil"])
    def test_other_hosts(self, host: str, client: httpx.Client) -> None:
        answer = client.get("/api/session", headers={"Host": host})
        assert answer.status_code in (400, 403)

    def test_other_origins(self, client: httpx.Client) -> None:
        refused(client.post("/api/painting", json=GOOD, headers={"Origin": "http://evil.example"}), 403, "evil.example")
        own = f"http://{client.base_url.host}:{client.base_url.port}"
        assert client.post("/api/painting", json=GOOD, headers={"Origin": own}).status_code == 200
        refused(client.post("/api/painting", json=GOOD, headers={"Origin": "null"}), 403)

    def test_the_page_loads_nothing_from_elsewhere(self, client: httpx.Client) -> None:
        policy = client.get("/").headers["content-security-policy"]
        assert policy.startswith("default-src 'self'")
        assert "unsafe" not in policy

    def test_a_token_is_needed_where_there_is_one(self, desk: Desk) -> None:
        with serving(create_app(desk, hosts=None, token="secret")) as client:
            refused(client.get("/api/session"), 403, "token")
            refused(client.get("/api/session", params={"token": "guess"}), 403)
            assert client.get("/", params={"token": "secret"}).status_code == 200
            assert client.get("/api/session").status_code == 200  # the cookie of the line before
            (name,) = client.cookies
            refused(client.get("/api/session", headers={"Host": "x", "Cookie": f"{name}=guess"}), 403)
            for others in ('theme={"dark": 1}; ', "path=/; a b; ", 'x="; '):  # of other programs on this host
                client.cookies.clear()
                own = {"Cookie": f"{others}{name}=secret"}
                assert client.get("/api/session", headers=own).status_code == 200, others

    def test_other_sites_can_not_have_anything_computed(self, client: httpx.Client) -> None:
        foreign = {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "no-cors"}
        refused(client.get("/api/models/m0/skips", params={"image": "i0"}, headers=foreign), 403, "another site")
        link = {"Sec-Fetch-Mode": "navigate"}
        assert client.get("/", headers=foreign | link).status_code == 200
        for site in ("cross-site", "same-site"):  # as a frame or a window of another page, or of another port
            refused(client.get("/api/session", headers=link | {"Sec-Fetch-Site": site}), 403, "another site")
        assert client.get("/api/session", headers=link | {"Sec-Fetch-Site": "none"}).status_code == 200  # typed

    def test_a_page_of_an_earlier_start_is_told_to_reload(self, client: httpx.Client) -> None:
        key = client.get("/api/session").json()["key"]
        assert client.post("/api/painting", json=GOOD, headers={"X-Desk": key}).status_code == 200
        old = {"X-Desk": "0" * 8}
        refused(client.post("/api/painting", json=GOOD, headers=old), 410, "reload")
        refused(client.get("/api/models/m0/skips", params={"image": "i0"}, headers=old), 410)
        refused(client.post("/api/images", content=b"x", headers=old), 410)
        refused(client.get("/api/images/i0/picture.png", params={"desk": "0" * 8}), 410)
        shown = client.get("/api/images/i0/picture.png", params={"desk": key})
        assert (shown.status_code, shown.headers["cache-control"]) == (200, "no-store")


def test_channels_no_two_models_share() -> None:
    desk = Desk([("rgb", model_of(unet(), 3)), ("grey", model_of(unet(channels=1), 1))], data=labelled(2))
    with serving(create_app(desk)) as client:
        refused(
            client.post("/api/painting", json={"model": "m1", "image": "i0"}),
            422,
            "3 channels",
            "1 channel, as the images",
        )


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.floats() | st.text(max_size=12),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)
STROKE = st.fixed_dictionaries(
    {}, optional={
        "kind": st.sampled_from(["grey", "blur", "paste", "x"]) | JSON, "x": st.integers(-5, 70) | JSON,
        "y": st.integers(-5, 70) | JSON, "radius": st.integers(-1, 40) | JSON,
        "from": st.lists(st.integers(-2, 70)) | JSON,
    },
)  # fmt: skip
RECORD = st.fixed_dictionaries(
    {}, optional={
        "x": st.integers(-2, 70) | JSON, "y": st.integers(-2, 70) | JSON, "edits": st.lists(STROKE, max_size=3) | JSON,
        "paths": st.dictionaries(st.sampled_from(["skip 0", "bottleneck", "none"]), st.floats() | JSON) | JSON,
    },
)  # fmt: skip


@given(RECORD | JSON)
@settings(max_examples=400, deadline=None)
def test_whatever_is_asked_is_understood_or_refused(record: Any) -> None:
    refusal = None
    try:
        asked = parse(json.dumps(record).encode())
        pixel_in(asked, 64, 64)
        holds_in(asked, ["skip 0", "bottleneck"])
        edits_in(asked, 64, 64)
    except RefusalError as error:
        refusal = error
    assert refusal is None or (refusal.status in (400, 422) and refusal.given)


def _requests(draw: random.Random) -> Iterator[tuple[str, str, bytes | None, dict[str, str]]]:
    """Requests made of good ones with one thing wrong, and of noise."""
    strange: list[Any] = [None, True, -1, 0, 3, 63, 64, 1e308, "", "m0", "i0", "\x00", [], {}, [1, 2], "pass", "é" * 50]
    models, images = ["m0", "m1", "m7", "%00", ".."], ["i0", "i5", "u0", "%2f", "x" * 300]
    kinds = ["", "/probes", "/presence?image=i0", "/skips?image=i1", "/images/i0", "/images/i0/levels"]
    layers = ["bottleneck", "pixel", "", "%ff"]
    while True:
        question = draw.choice(["painting", "pixel", "evidence"])
        record: dict[str, Any] = dict(GOOD)
        for _ in range(draw.randrange(3)):
            record[draw.choice(["model", "image", "x", "y", "paths", "edits"])] = draw.choice(strange)
        if draw.random() < 0.3:
            record["edits"] = [{"kind": "blur", "x": draw.choice(strange), "y": 3, "radius": draw.choice(strange)}]
        body = json.dumps(record).encode()
        if draw.random() < 0.1:
            body = bytes(draw.randrange(256) for _ in range(draw.randrange(40)))
        yield "POST", f"/api/{question}", body, {}
        yield "GET", f"/api/models/{draw.choice(models)}{draw.choice(kinds)}", None, {}
        yield "GET", f"/api/models/m0/images/{draw.choice(images)}/features?layer={draw.choice(layers)}", None, {}
        yield "GET", f"/api/images/{draw.choice(images)}/{draw.choice(['picture.png', 'truth', 'a'])}", None, {}
        noise = bytes(draw.randrange(256) for _ in range(draw.randrange(200)))
        yield "POST", f"/api/images?name={draw.choice(['a.png', 'b.tif', 'c', '%00'])}", noise, {}
        yield draw.choice(["GET", "DELETE", "POST"]), "/a" + "".join(draw.choices("ab/.%25?=&", k=12)), None, {}


def _fuzz(client: httpx.Client, count: int, seed: int) -> None:
    for number, (method, path, body, headers) in enumerate(_requests(random.Random(seed))):
        if number == count:
            break
        answer = client.request(method, path, content=body, headers=headers)
        assert answer.status_code in (200, 201, 204, 400, 403, 404, 405, 413, 415, 422, 503), (method, path, body)
        if answer.status_code >= 400 and answer.status_code != 503:
            assert answer.json()["error"]["given"], (method, path, body)
    assert client.get("/api/session").status_code == 200


@pytest.mark.parametrize("count", [60, pytest.param(10_000, marks=pytest.mark.slow)])
def test_strange_requests(client: httpx.Client, count: int) -> None:
    _fuzz(client, count, seed=count)
