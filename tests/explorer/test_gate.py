"""Many at once: exports go alone, everything else together, and what is long lets others by."""

from __future__ import annotations

import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from desks import labelled, serving
from painting import model_of, unet

from whatwhere.explorer import Desk, create_app
from whatwhere.explorer.gate import Gate


def _meeting(gate: Gate, count: int, first: str, second: str, patience: float) -> bool:
    """Whether ``count`` that enter by ``first`` or, the last, by ``second`` are inside at the same time."""
    met = threading.Barrier(count)

    def enter(how: str) -> bool:
        with getattr(gate, how)():
            try:
                met.wait(patience)
            except threading.BrokenBarrierError:
                return False
            return True

    with ThreadPoolExecutor(count) as pool:
        return all(pool.map(enter, [first] * (count - 1) + [second]))


def test_any_number_go_together() -> None:
    assert _meeting(Gate(), 4, "together", "together", patience=60)


@pytest.mark.parametrize(("first", "second"), [("together", "alone"), ("alone", "together"), ("alone", "alone")])
def test_nobody_meets_one_that_goes_alone(first: str, second: str) -> None:
    assert not _meeting(Gate(), 2, first, second, patience=0.5)


@pytest.mark.parametrize("how", ["together", "alone"])
def test_a_pause_lets_those_in_who_wait(how: str) -> None:
    gate, order, waits = Gate(), [], threading.Event()

    def other() -> None:
        waits.set()
        with gate.alone():
            order.append("other")

    with getattr(gate, how)() as turn:
        thread = threading.Thread(target=other)
        thread.start()
        waits.wait()
        deadline = time.monotonic() + 5
        while not order and time.monotonic() < deadline:
            turn.pause()
        order.append("first")
    thread.join()
    assert order == ["other", "first"]


def test_who_fails_inside_leaves() -> None:
    gate = Gate()
    with pytest.raises(ZeroDivisionError), gate.alone():
        raise ZeroDivisionError
    with gate.alone():
        pass


@pytest.mark.slow
def test_models_are_followed_while_others_paint() -> None:
    """Sizes and models not seen before are exported while paintings, pixels, evidence and probes are computed."""
    network = {seed: model_of(unet(depth=1, classes=2, seed=seed), classes=2) for seed in (0, 1)}
    desk = Desk([(f"net {seed}", model) for seed, model in network.items()], data=labelled(3, side=40))
    of = {"x": 20, "y": 30, "edits": [{"kind": "grey", "x": 9, "y": 9, "radius": 4}]}
    with serving(create_app(desk)) as client:
        alone = client.post("/api/painting", json={"model": "m0", "image": "i0"}).json()["labels"]

        def ask(number: int) -> tuple[int, str]:
            record: dict[str, Any] = {"model": f"m{number % 2}", "image": f"i{number % 3}", **of}
            path = f"/api/models/{record['model']}"
            match number % 7:
                case 0:
                    answer = client.get(path)
                case 1:
                    answer = client.get(f"{path}/images/{record['image']}")
                case 2:
                    answer = client.get(f"{path}/probes")
                case 3:
                    answer = client.get(f"{path}/skips", params={"image": record["image"]})
                case 4:
                    answer = client.post("/api/evidence", json=record, headers={"X-Client": str(number)})
                case 5:
                    answer = client.post("/api/pixel", json=record)
                case _:
                    answer = client.post("/api/painting", json=record)
            return answer.status_code, answer.text[:200]

        with ThreadPoolExecutor(8) as pool:
            answers = list(pool.map(ask, range(28)))
        assert {status for status, _ in answers} == {200}, [text for status, text in answers if status != 200][:3]
        assert client.post("/api/painting", json={"model": "m0", "image": "i0"}).json()["labels"] == alone


def test_slow_evidence_lets_a_new_model_be_followed(monkeypatch: pytest.MonkeyPatch) -> None:
    network = {seed: model_of(unet(depth=1, classes=2, seed=seed), classes=2) for seed in (0, 1)}
    desk = Desk([(f"net {seed}", model) for seed, model in network.items()], data=labelled(2))
    started, done = threading.Event(), threading.Event()

    def endless(_shown: Any, _pixel: Any, _edits: Any, step: Any) -> dict[str, Any]:
        deadline = time.monotonic() + 60
        while not done.is_set() and time.monotonic() < deadline:
            step()
            started.set()
        raise InterruptedError

    monkeypatch.setattr(desk.lens("m0"), "evidence", endless)
    with serving(create_app(desk)) as client, ThreadPoolExecutor(1) as pool:
        slow = pool.submit(client.post, "/api/evidence", json={"model": "m0", "image": "i0", "x": 1, "y": 1})
        started.wait(60)
        answer, still = client.get("/api/models/m1"), not slow.done()
        done.set()
        assert (answer.status_code, still) == (200, True), answer.text
        assert slow.result().status_code == 409


def test_long_questions_keep_no_pixel_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    desk = Desk([("net", model_of(unet(depth=1, classes=2), classes=2))], data=labelled(2))
    done = threading.Event()
    monkeypatch.setattr(desk, "skips", lambda *_: done.wait(60))
    with serving(create_app(desk)) as client, ThreadPoolExecutor(6) as pool:
        slow = [pool.submit(client.get, "/api/models/m0/skips", params={"image": "i0"}) for _ in range(6)]
        answer = client.post("/api/painting", json={"model": "m0", "image": "i0"})
        waiting = not any(one.done() for one in slow)
        done.set()
        assert (answer.status_code, waiting) == (200, True), answer.text
        assert {one.result().status_code for one in slow} == {200}
