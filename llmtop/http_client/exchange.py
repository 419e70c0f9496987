"""The types of an HTTP request, of its answer, and of the errors without an answer."""

from __future__ import annotations

from collections.abc import Mapping

from msgspec import Struct

SMALL = 64 * 1024  # bytes read of an answer whose status is not 200: enough for its error message


class Request(Struct, frozen=True):
    """An HTTP request. whole: read the body of the answer, not only its status.

    repeatable: it has no side effect, so it may be sent again if a kept connection has ended.
    """

    method: str
    url: str
    headers: Mapping[str, str]
    body: bytes | None = None
    whole: bool = True
    repeatable: bool = False


class Answer(Struct, frozen=True):
    """An HTTP answer. location: the target of a redirect.

    body: only the first 64 KiB, unless the status is 200.
    """

    status: int
    location: str | None = None
    body: bytes = b""


class BrokenAnswer(Exception):
    """The answer was not HTTP, or not complete.

    kind: the type of the cause. words: the text of the cause, which may be a TLS error.
    """

    def __init__(self, kind: str, words: str = "") -> None:
        super().__init__(kind)
        self.words = words


class TooLarge(Exception):
    """The body is larger than the limit."""


class NoConnection(Exception):
    """No connection: the machine or TLS refused it. The text is that of the cause."""


class ForeignRedirect(Exception):
    """The server redirects to another server. status: of the answer."""

    def __init__(self, status: int) -> None:
        super().__init__()
        self.status = status


class CircularRedirect(Exception):
    """The server redirects in a circle."""
