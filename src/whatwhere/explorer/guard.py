"""Who may ask: this machine's own page, and nobody else. Plain ASGI, before anything is read or computed.

A page of another site could send requests to a server on this machine (DNS rebinding, forms): so the Host must be one
that this server was bound to, and an Origin, where a browser sends one, must be the page's own.
"""

from __future__ import annotations

import hmac
import json
from collections.abc import Collection, Iterable
from urllib.parse import parse_qs, urlsplit

from starlette.requests import cookie_parser
from starlette.types import ASGIApp, Message, Receive, Scope, Send

__all__ = ["Guard"]

_HEADERS = {
    "content-security-policy": (
        "default-src 'self'; img-src 'self' blob: data:; frame-ancestors 'none'; base-uri 'none'"
    ),
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cross-origin-resource-policy": "same-origin",
}


class Guard:
    """Refuses foreign hosts, origins and, where there is a token, whoever does not have it.

    Args:
        app: what is guarded.
        hosts: names (without port) by which this server may be called; None allows all (then there must be a token).
        token: shown once as ``?token=``, then kept in a cookie; None where only this machine can ask.
    """

    def __init__(self, app: ASGIApp, hosts: Collection[str] | None, token: str | None) -> None:
        self._app, self._hosts, self._token = app, hosts, token

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = {name.decode("latin-1").lower(): value.decode("latin-1") for name, value in scope["headers"]}
        extra = dict(_HEADERS)
        if words := self._foreign(headers, scope["path"]):
            await _refuse(send, *words)
            return
        if self._token is not None:
            given = parse_qs(scope["query_string"].decode("latin-1")).get("token", [""])[0]
            cookie = _cookie_name(scope)
            if hmac.compare_digest(given.encode(), self._token.encode()):
                extra["set-cookie"] = f"{cookie}={self._token}; HttpOnly; SameSite=Strict; Path=/"
            elif not hmac.compare_digest(_cookie(headers, cookie).encode(), self._token.encode()):
                await _refuse(
                    send, "a request without the token", "the address with ?token=... that the terminal shows",
                    "open that address",
                )  # fmt: skip
                return
        await self._app(scope, receive, _adding(send, extra))

    def _foreign(self, headers: dict[str, str], path: str) -> tuple[str, str, str] | None:
        host = headers.get("host", "")
        name = _parts(f"//{host}")[0] if _is_plain(host) else None
        if self._hosts is not None and name not in self._hosts:
            return f"a request to the host {host[:60]!r}", " or ".join(sorted(self._hosts)), "open the printed address"
        origin = headers.get("origin")
        if origin is not None and _parts(origin)[1] != host:
            return f"a request from {origin[:60]!r}", "this page's own", "open the printed address"
        # a link elsewhere may lead to the page, and to nothing that is computed
        linked = path == "/" and headers.get("sec-fetch-mode") == "navigate"
        if headers.get("sec-fetch-site", "none") not in ("none", "same-origin") and not linked:
            return "a request from another site's page", "this page's own", "open the printed address"
        return None


def _parts(address: str) -> tuple[str | None, str]:
    """Its host without a port, and with one."""
    try:
        found = urlsplit(address)
    except ValueError:  # brackets that are no IPv6 address
        return None, ""
    return found.hostname, found.netloc


def _is_plain(host: str) -> bool:
    return bool(host) and all(character.isalnum() or character in ".:-[]" for character in host) and "[" not in host[1:]


def _cookie_name(scope: Scope) -> str:
    """One for each port: browsers keep the cookies of all ports of a host together."""
    return f"whatwhere-{(scope.get('server') or ('', 0))[1]}"


def _cookie(headers: dict[str, str], name: str) -> str:
    return cookie_parser(headers.get("cookie", "")).get(name, "")  # as browsers read them: others' may be odd


def _adding(send: Send, extra: dict[str, str]) -> Send:
    async def sending(message: Message) -> None:
        if message["type"] == "http.response.start":
            message["headers"] = [*message.get("headers", []), *_encoded(extra.items())]
        await send(message)

    return sending


def _encoded(headers: Iterable[tuple[str, str]]) -> list[tuple[bytes, bytes]]:
    return [(name.encode(), value.encode()) for name, value in headers]


async def _refuse(send: Send, given: str, expected: str, remedy: str) -> None:
    body = json.dumps({"error": {"given": given, "expected": expected, "remedy": remedy}}).encode()
    headers = _encoded([("content-type", "application/json"), *_HEADERS.items()])
    await send({"type": "http.response.start", "status": 403, "headers": headers})
    await send({"type": "http.response.body", "body": body})
