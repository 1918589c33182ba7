"""The explorer's server: an address for every question to the desk. Knows HTTP; computes nothing itself.

Quick answers are computed in a few threads, long ones and evidence in others, so that they keep no pixel waiting.
"""

from __future__ import annotations

import asyncio
import json
import secrets
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, suppress
from functools import partial
from importlib.resources import files
from typing import Any

import torch
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from whatwhere.errors import WhatwhereError
from whatwhere.explorer.asked import parse
from whatwhere.explorer.desk import UPLOAD_BYTES, Desk
from whatwhere.explorer.errors import NotReadyError, RefusalError
from whatwhere.explorer.guard import Guard

__all__ = ["LOCAL", "create_app"]

LOCAL = frozenset({"127.0.0.1", "localhost", "::1"})
_BODY_BYTES = 256 * 2**10
_TYPES = {"html": "text/html", "css": "text/css", "js": "text/javascript", "svg": "image/svg+xml"}
_FRESH = {"cache-control": "no-store"}
_CLIENTS = 256
_REST_BYTES, _REST_SECONDS = 256 * 2**20, 5.0
"""Of a body that is too large so much is read on."""

_LOOKS = 0.5
"""Seconds between looks whether who asked is still there."""

Answer = Callable[[Request], Awaitable[Response]]


def create_app(desk: Desk, *, hosts: Collection[str] | None = LOCAL, token: str | None = None) -> Starlette:
    """The application; ``hosts`` and ``token`` as in :class:`Guard`."""
    counter = _Counter(desk)
    return Starlette(
        routes=counter.routes(),
        lifespan=counter.lifespan,
        middleware=[Middleware(Guard, hosts=hosts, token=token)],
        exception_handlers={
            WhatwhereError: _refused,
            NotReadyError: _later,
            404: _unknown,
            405: _unknown,
            ClientDisconnect: _gone,
        },
    )


class _Counter:
    """Takes questions in, has the desk answer them in threads, and hands the answers out."""

    def __init__(self, desk: Desk) -> None:
        self.desk = desk
        self.wanted = _Wanted()
        cores = torch.get_num_threads()
        self.quick, self.long, self.slow = (
            ThreadPoolExecutor(count, name, initializer=_use_cores, initargs=(threads,))
            for name, count, threads in (("quick", 4, cores), ("long", 2, cores), ("evidence", 1, 1))
        )
        folder = files("whatwhere.explorer") / "page"
        self.page = {entry.name: entry.read_bytes() for entry in folder.iterdir() if entry.is_file()}

    def routes(self) -> list[Route]:
        desk, asked, asked_long, posted = self.desk, self._asked, partial(self._asked, threads=self.long), self._posted
        model, image = "/api/models/{model}", "/api/models/{model}/images/{image}"
        return [
            Route("/", self.static), Route("/static/{name}", self.static), Route("/favicon.ico", _nothing),
            Route("/api/session", self.session),
            Route("/api/images", self.upload, methods=["POST"]),
            Route("/api/images/{image}/truth", asked(lambda of: desk.truth(of["image"]))),
            Route("/api/images/{image}/{kind}", self.picture),
            Route(model, asked(lambda of: desk.portrait(of["model"]))),
            Route(f"{model}/probes", asked(lambda of: desk.reading(of["model"]))),
            Route(f"{model}/presence", asked_long(lambda of: desk.presence(of["model"], of.get("image", "")))),
            Route(f"{model}/skips", self.skips),
            Route(image, asked(lambda of: desk.geometry(of["model"], of["image"]))),
            Route(f"{image}/levels", asked_long(lambda of: desk.levels(of["model"], of["image"]))),
            Route(
                f"{image}/features",
                asked_long(lambda of: desk.features(of["model"], of["image"], of.get("layer", ""))),
            ),
            Route("/api/painting", posted(desk.painting), methods=["POST"]),
            Route("/api/pixel", posted(desk.pixel), methods=["POST"]),
            Route("/api/evidence", self.evidence, methods=["POST"]),
        ]  # fmt: skip

    @asynccontextmanager
    async def lifespan(self, _app: Starlette) -> AsyncIterator[None]:
        yield
        self.wanted.forget()
        await asyncio.to_thread(self.desk.close)
        for pool in (self.quick, self.long, self.slow):
            pool.shutdown(wait=False, cancel_futures=True)

    async def _compute(self, act: Callable[[], Any], threads: ThreadPoolExecutor | None = None) -> Any:
        return await asyncio.get_running_loop().run_in_executor(threads or self.quick, act)

    def _same(self, request: Request) -> None:
        """Refuses a page that another explorer at this address has sent: its ids mean other things here."""
        named = request.headers.get("x-desk") or request.query_params.get("desk")  # a picture sends no headers
        if named not in (None, self.desk.key):
            raise RefusalError(410, "the explorer was started anew", "a page of this start", "reload the page")

    def _asked(self, act: Callable[[Mapping[str, str]], Any], threads: ThreadPoolExecutor | None = None) -> Answer:
        async def answer(request: Request) -> Response:
            self._same(request)
            return _json(await self._compute(partial(act, {**request.path_params, **request.query_params}), threads))

        return answer

    def _posted(self, act: Callable[[dict[str, Any]], Any]) -> Answer:
        async def answer(request: Request) -> Response:
            self._same(request)
            record = parse(await _body(request, _BODY_BYTES))
            return _json(await self._compute(partial(act, record)))

        return answer

    async def evidence(self, request: Request) -> Response:
        self._same(request)
        record = parse(await _body(request, _BODY_BYTES))
        return await self._while_wanted(request, "evidence", partial(self.desk.evidence, record), self.slow)

    async def skips(self, request: Request) -> Response:
        self._same(request)
        model, image = request.path_params["model"], request.query_params.get("image", "")
        return await self._while_wanted(request, "skips", partial(self.desk.skips, model, image), self.long)

    async def _while_wanted(
        self, request: Request, what: str, act: Callable[[Callable[[], bool]], Any], threads: ThreadPoolExecutor
    ) -> Response:
        """An answer that takes long: given up when its window asks anew, closes, or the server ends."""
        client = request.headers.get("x-client", "")[:64] or secrets.token_hex(8)  # who does not say is a window each
        older, left = self.wanted.newest(f"{what} {client}"), threading.Event()
        watching = asyncio.create_task(_leaves(request, left))
        try:
            return _json(await self._compute(partial(act, lambda: older() or left.is_set()), threads))
        except InterruptedError as error:
            raise RefusalError(409, "a newer question came", "", "wait for its answer") from error
        finally:
            watching.cancel()

    async def upload(self, request: Request) -> Response:
        self._same(request)
        name = request.query_params.get("name", "upload")
        body = await _body(request, UPLOAD_BYTES)
        return _json(await self._compute(partial(self.desk.upload, name, body)), 201)

    async def static(self, request: Request) -> Response:
        name = request.path_params.get("name", "index.html")
        if name not in self.page:
            raise RefusalError(404, f"there is no file {name[:40]!r}", "a file of the page", "reload the page")
        kind = _TYPES.get(name.rpartition(".")[2], "application/octet-stream")
        return Response(self.page[name], media_type=kind, headers={"cache-control": "no-cache"})

    async def picture(self, request: Request) -> Response:
        self._same(request)
        shown, kind = self.desk.image(request.path_params["image"]), request.path_params["kind"]
        if kind not in ("picture.png", "thumb.png"):
            raise RefusalError(404, f"there is no {kind[:40]!r}", "picture.png, thumb.png or truth", "")
        encoded = await self._compute(lambda: shown.picture if kind == "picture.png" else shown.thumb)
        return Response(encoded, media_type="image/png", headers=_FRESH)

    async def session(self, _request: Request) -> Response:
        return _json(self.desk.session())


def _use_cores(count: int) -> None:
    """What this thread's computations use, whatever later threads ask for themselves."""
    torch.set_num_threads(count)
    torch.get_num_threads()  # the first question fixes it for the thread


class _Wanted:
    """For each window of the page and kind of question, the newest; older ones are no longer wanted."""

    def __init__(self) -> None:
        self._newest: dict[str, object] = {}
        self._lock = threading.Lock()

    def newest(self, client: str) -> Callable[[], bool]:
        """Makes this the newest; the answer tells whether it is no longer."""
        mine = object()
        with self._lock:
            self._newest.pop(client, None)
            self._newest[client] = mine
            while len(self._newest) > _CLIENTS:
                del self._newest[next(iter(self._newest))]
        return lambda: self._newest.get(client) is not mine

    def forget(self) -> None:
        """Nobody waits any longer."""
        with self._lock:
            self._newest.clear()


async def _leaves(request: Request, left: threading.Event) -> None:
    """Says when nobody waits for the answer any more: the page was closed."""
    while not await request.is_disconnected():
        await asyncio.sleep(_LOOKS)
    left.set()


async def _body(request: Request, most: int) -> bytes:
    """The request's body; of one that is larger than allowed nothing more is kept."""
    declared, body, pieces = request.headers.get("content-length", ""), bytearray(), request.stream()
    too_large = declared.isdigit() and int(declared) > most
    while not too_large and (piece := await anext(pieces, None)) is not None:
        body += piece
        too_large = len(body) > most
    if too_large:
        await _thrown_away(pieces)
        raise RefusalError(413, f"more than {most / 2**20:.3g} MiB", f"at most {most / 2**20:.3g} MiB", "send less")
    return bytes(body)


async def _thrown_away(pieces: AsyncIterator[bytes]) -> None:
    """Reads on for a while: who still sends when it is answered hears of a broken connection, and not of the answer."""
    thrown = 0
    with suppress(TimeoutError):
        async with asyncio.timeout(_REST_SECONDS):
            async for piece in pieces:
                thrown += len(piece)
                if thrown > _REST_BYTES:
                    return


def _json(record: Any, status: int = 200) -> Response:
    return JSONResponse(record, status, headers=_FRESH)


async def _nothing(_request: Request) -> Response:
    return Response(status_code=204)


async def _refused(_request: Request, error: Exception) -> Response:
    assert isinstance(error, WhatwhereError)
    status = error.status if isinstance(error, RefusalError) else 422
    return _json({"error": {"given": error.given, "expected": error.expected, "remedy": error.remedy}}, status)


async def _later(_request: Request, error: Exception) -> Response:
    assert isinstance(error, NotReadyError)
    record = {"error": {"given": f"still measuring: {error}", "expected": "", "remedy": "wait"}, "share": error.share}
    return Response(json.dumps(record), 503, {"retry-after": "1"}, "application/json")


async def _unknown(request: Request, error: Exception) -> Response:
    status = getattr(error, "status_code", 404)
    given = f"{request.method} {request.url.path[:80]}"
    return _json({"error": {"given": given, "expected": "an address of the explorer", "remedy": "reload"}}, status)


async def _gone(_request: Request, _error: Exception) -> Response:
    return Response(status_code=400)
