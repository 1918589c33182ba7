"""Opens models and images, binds to this machine, and tells the address. Knows files and uvicorn."""

from __future__ import annotations

import errno
import os
import secrets
import socket
import threading
import webbrowser
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path

import uvicorn

from whatwhere.chosen import truth_of
from whatwhere.data.sets import ImageSet
from whatwhere.errors import DataError, ModelError
from whatwhere.explorer.app import LOCAL, create_app
from whatwhere.explorer.desk import Desk
from whatwhere.explorer.names import apart
from whatwhere.network import Holder, Model, as_model, load_model
from whatwhere.paint.files import check_name, find_images
from whatwhere.paint.ledger import without_paintings

__all__ = ["explore", "listen", "models_in"]

_MOST_MODELS, _MOST_IMAGES = 12, 40


def models_in(paths: Sequence[Path]) -> list[tuple[str, Model]]:
    """Models by name: of files, of run folders, or of all runs and model files in a folder.

    Raises:
        ModelError: a path that holds no model.
    """
    found: list[Path] = []
    for path in paths:
        own = path.is_dir() and not (path / "model.safetensors").is_file()
        files = {*path.glob("*/model.safetensors"), *path.glob("*.safetensors")} if own else set[Path]()
        inner = sorted(file for file in files if file.name != "checkpoint.safetensors")  # of a run with no model yet
        if own and not inner:
            raise ModelError(
                f"{path} holds no model", "a model file, a run folder, or a folder of them", "check the path"
            )
        found += inner or [path]
    if len(found) > _MOST_MODELS:
        raise ModelError(f"{len(found)} models", f"at most {_MOST_MODELS}", "name those that you want to see")
    return list(zip(_told_apart(found), map(load_model, found)))


def _told_apart(found: Sequence[Path]) -> list[str]:
    """A name for each model; equal ones are numbered, as the page's address tells models by their names."""
    names: list[str] = []
    for path in (Path(os.path.abspath(one)) for one in found):  # noqa: PTH100 (a run may be named ".", or by a link)
        name = path.parent.name if path.name == "model.safetensors" else path.stem
        names.append(apart(name, names))
    return names


def explore(
    models: Sequence[tuple[str, Model | Holder]],
    images: Sequence[Path | str] = (),
    data: ImageSet | Path | str | None = None,
    *,
    host: str = "127.0.0.1",
    port: int = 8760,
    browser: bool = True,
    say: Callable[[str], None] = print,
) -> None:
    """Serves the page until it is interrupted (Ctrl-C).

    Args:
        models: names and models, or ``Segmenter``s: also such of networks made elsewhere.
        images: files or folders of images to look at.
        data: labelled images, or a data folder, of which those are taken that no model was trained on.
        host: where to listen; anything but this machine's own addresses needs the token that is then made and shown.
        port: 0 takes a free one.
        browser: whether to open one.
        say: is told the address.

    Raises:
        DataError: the port is taken, the host is another machine, or an image cannot be used.
    """
    held = [(name, as_model(model)) for name, model in models]
    if isinstance(data, str | Path):
        data = truth_of(held[0][1], data, beside=[model for _, model in held[1:]])
    places = list(map(Path, images))
    inside = {path: without_paintings(find_images(path)) for path in places if path.is_dir()}
    files = [file for path in places for file in inside.get(path, [path])]
    for file in files:
        check_name(file)
    if len(files) > _MOST_IMAGES:
        say(f"the first {_MOST_IMAGES} of {len(files)} images are loaded; drop others on the page")
    desk = Desk(held, files[:_MOST_IMAGES], data, spare=[file for some in inside.values() for file in some])
    for line in desk.left_out[:3]:
        say(f"left out: {line}")
    if len(desk.left_out) > 3:
        say(f"and {len(desk.left_out) - 3} other images that can't be shown")
    local = host in LOCAL
    token = None if local else secrets.token_urlsafe(16)
    listening = listen(host, port)
    shown = socket.gethostname() if host in ("0.0.0.0", "::") else host
    address = f"http://{'[' + shown + ']' if ':' in shown else shown}:{listening.getsockname()[1]}/"
    if token is not None:
        address += f"?token={token}"
        say(f"listening on {host}: whoever reaches this machine and has the token can see these images and models")
    app = create_app(desk, hosts=LOCAL if local else None, token=token)
    say(f"exploring at {address}")
    if browser:
        threading.Timer(0.5, webbrowser.open, (address,)).start()
    with suppress(KeyboardInterrupt):  # how one leaves
        uvicorn.Server(uvicorn.Config(app, log_level="error", access_log=False, timeout_graceful_shutdown=2)).run(
            sockets=[listening]
        )


def listen(host: str, port: int) -> socket.socket:
    """A listening socket whose answers leave at once.

    Without ``TCP_NODELAY`` the body of an answer waits until its head is acknowledged, which takes 40 ms; asyncio
    sets it only where a socket's protocol is named, and those of ``create_server`` are not.

    Raises:
        DataError: nothing can listen there.
    """
    if not 0 <= port < 2**16:
        raise DataError(f"port {port}", "0 to 65535; 0 is any that is free", "try --port 0")
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        host.encode("idna")  # of what can be no name it is said here; a socket would stay open
        listening = socket.create_server((host, port), family=family, backlog=64)
    except (OSError, UnicodeError) as error:
        elsewhere = getattr(error, "errno", None) not in (errno.EADDRINUSE, errno.EACCES)
        why = str(getattr(error, "strerror", None) or error).partition(" (while")[0]  # which says the address once more
        raise DataError(
            f"{host} port {port} cannot be listened on ({why})",
            "an address of this machine" if elsewhere else "a free port of this machine",
            "leave out --host, or take 0.0.0.0, which is all of them" if elsewhere else "try --port 0",
        ) from error
    listening.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)  # those that it accepts inherit it
    return listening
