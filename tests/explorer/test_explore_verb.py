"""The verb: what it says when it listens, how it ends, and what it refuses in a line."""

from __future__ import annotations

import shutil
import signal
import socket
import subprocess
import sys
from pathlib import Path

import httpx
import pytest

from tiny import Cli
from whatwhere.errors import DataError
from whatwhere.explorer.serve import listen, models_in


def test_it_tells_its_address_serves_the_page_and_ends_with_ctrl_c(disc_run: Path, discs: Path, tmp_path: Path) -> None:
    images = next(discs.glob("*/images"))
    command = [sys.executable, "-m", "whatwhere", "explore", disc_run, images, "--port", "0", "--no-browser"]
    with (tmp_path / "said").open("w") as complaints:
        server = subprocess.Popen([*map(str, command)], stdout=subprocess.PIPE, stderr=complaints, text=True)
    try:
        assert server.stdout is not None
        said = server.stdout.readline()
        assert said.startswith("exploring at http://127.0.0.1:"), (tmp_path / "said").read_text()
        with httpx.Client(base_url=said.split()[-1], timeout=120) as client:
            page = client.get("/").text
            assert "<!doctype html>" in page.lower()
            for name in ("style.css", "main.js"):
                assert f"static/{name}" in page
                assert client.get(f"/static/{name}").status_code == 200
            session = client.get("/api/session").json()
            client.get("/api/models/m0/probes")
        server.send_signal(signal.SIGINT)
        assert server.wait(60) == 0
    finally:
        server.kill()
        server.wait()
        server.stdout.close()  # type: ignore[union-attr]
    assert [model["name"] for model in session["models"]] == ["discs"]
    assert len(session["images"]) == len(list(images.iterdir()))
    assert "Traceback" not in (tmp_path / "said").read_text()


def test_an_answer_does_not_wait_for_its_head_to_be_acknowledged() -> None:
    with listen("127.0.0.1", 0) as listening, socket.create_connection(listening.getsockname()):
        accepted, _ = listening.accept()
        with accepted:
            assert accepted.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)


def test_a_port_that_cannot_be() -> None:
    with pytest.raises(DataError, match="port 70000; expected 0 to 65535"):
        listen("127.0.0.1", 70000)


@pytest.mark.parametrize("host", ["192.0.2.1", "my..hôst"])
def test_an_address_of_another_machine_or_none(host: str) -> None:
    with pytest.raises(DataError, match=r"on \(.*\); expected an address of this machine; leave out --host"):
        listen(host, 0)


def test_a_port_that_is_taken(disc_run: Path, run_cli: Cli) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        done = run_cli("explore", disc_run, "--port", port, "--no-browser")
    assert done.code == 2
    assert f"port {port}" in done.err
    assert "--port 0" in done.err


@pytest.mark.parametrize("model", ["nothing.safetensors", "empty", "notes.safetensors"])
def test_no_model_there(model: str, run_cli: Cli, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "notes.safetensors").write_text("these are words")
    done = run_cli("explore", model, "--no-browser")
    assert done.code == 2
    assert model in done.err
    assert done.err.startswith("error: ")


@pytest.mark.parametrize("image", ["nothing.png", "notes.png"])
def test_no_image_there(image: str, disc_run: Path, run_cli: Cli, tmp_path: Path) -> None:
    (tmp_path / "notes.png").write_text("these are words")
    done = run_cli("explore", disc_run, image, "--port", 0, "--no-browser")
    assert done.code == 2
    assert image in done.err


def test_models_of_one_name_are_told_apart(disc_run: Path, tmp_path: Path) -> None:
    for place in ("one/run", "two/run"):
        (tmp_path / place).mkdir(parents=True)
        shutil.copy(disc_run / "model.safetensors", tmp_path / place)
    shutil.copy(disc_run / "model.safetensors", tmp_path / "two" / "bare.safetensors")
    found = models_in([tmp_path / "one" / "run", tmp_path / "two"])
    assert [name for name, _ in found] == ["run", "bare", "run (2)"]


def test_a_model_in_the_folder_where_one_stands_has_its_name(disc_run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(disc_run)
    for given in (".", "model.safetensors"):
        assert [name for name, _ in models_in([Path(given)])] == [disc_run.name]
