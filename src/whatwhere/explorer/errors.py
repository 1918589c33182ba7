"""What the explorer says when it cannot do what was asked: a status and the three parts of every error of whatwhere."""

from __future__ import annotations

from whatwhere.errors import WhatwhereError

__all__ = ["NotReadyError", "RefusalError", "missing"]


class RefusalError(WhatwhereError):
    """A request that cannot be served.

    Args:
        status: of HTTP: 400 malformed, 403 foreign, 404 not there, 409 superseded, 413 too large, 415 not an image,
            422 well formed but impossible.
    """

    def __init__(self, status: int, given: str, expected: str = "", remedy: str = "") -> None:
        super().__init__(given, expected, remedy)
        self.status = status


class NotReadyError(Exception):
    """Something that is still being measured; ``share`` of it is done."""

    def __init__(self, share: float) -> None:
        super().__init__(f"{share:.0%} done")
        self.share = share


def missing(what: str, name: str) -> RefusalError:
    """404 for an id that nothing has."""
    return RefusalError(404, f"there is no {what} {name[:40]!r}", f"an id of the explorer's {what}s", "reload the page")
