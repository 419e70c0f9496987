"""One HTTP request, and its result: an answer, or the reason why there is none."""

from __future__ import annotations

from collections.abc import Mapping

from msgspec import Struct

SMALL = 64 * 1024  # bytes read of an answer whose status is not 200: enough for its explanation


class Request(Struct, frozen=True):
    """whole: the body of the answer is read; otherwise its status is enough.

    repeatable: it has no effect, so it may be sent again when a kept connection has ended.
    """

    method: str
    url: str
    headers: Mapping[str, str]
    body: bytes | None = None
    whole: bool = True
    repeatable: bool = False


class Answer(Struct, frozen=True):
    """location: the target of a redirect. body: only the first 64 KiB unless the status is 200."""

    status: int
    location: str | None = None
    body: bytes = b""


class BrokenAnswer(Exception):
    """The answer was not HTTP, or not complete. words: of the cause, which may name TLS."""

    def __init__(self, kind: str, words: str = "") -> None:
        super().__init__(kind)
        self.words = words


class TooLarge(Exception):
    """The body is above the limit."""


class NoConnection(Exception):
    """The connection was refused, by the machine or by TLS. The text is that of the cause."""


class ForeignRedirect(Exception):
    """The server redirects to another server. status: of its answer."""

    def __init__(self, status: int) -> None:
        super().__init__()
        self.status = status


class CircularRedirect(Exception):
    """The server redirects in a circle."""
