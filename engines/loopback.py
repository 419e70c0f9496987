"""GET over plain HTTP from a server on this very machine, on connections that are kept alive.

A dashboard asks each engine for a page once a second, for hours. That is most of what an idle one
does, and through httpx a request takes ten times the CPU time that it takes here (2 ms against
0.2), besides 0.1 s and some MiB for its import. What is not plain is not for here: encryption,
proxies, passwords in a URL, other hosts.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import urlsplit

import httptools

MAX_HEAD = 64 * 1024  # bytes of status line and headers; llhttp itself sets no limit
_LOOPBACK = re.compile(r"localhost|::1|127(\.[0-9]{1,3}){3}")
_PLAIN = re.compile(r"http://[!-~]+", re.IGNORECASE)


class BrokenAnswer(Exception):
    """What came was no HTTP answer, or not a whole one."""


class TooLarge(Exception):
    """The body is above the limit."""


class NoConnection(Exception):
    """Nobody took the connection."""


@dataclass(frozen=True, slots=True)
class Answer:
    """location: where a redirect sends us. body: empty unless the status is 200."""

    status: int
    location: str | None = None
    body: bytes = b""


def is_loopback(host: str) -> bool:
    """Whether this host is this very machine by its name alone (no look-up)."""
    return _LOOPBACK.fullmatch(host) is not None


def is_plain(url: str) -> bool:
    """Whether a URL is for here. ValueError when it is none."""
    if not _PLAIN.fullmatch(url):
        return False
    parts = urlsplit(url)
    return "@" not in parts.netloc and is_loopback(parts.hostname or "")


class Loopback:
    """The connections, by host and port. limit: largest body taken, in bytes. Close it at the end.

    A connection is used again in its own event loop alone.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._idle: dict[tuple[str, int], list[_Connection]] = {}

    async def get(self, url: str, headers: Mapping[str, str]) -> Answer:
        """Ask once. Raises NoConnection, BrokenAnswer, TooLarge, and ValueError for no URL."""
        parts = urlsplit(url)
        place = (parts.hostname or "", 80 if parts.port is None else parts.port)
        path = f"{parts.path or '/'}{'?' if parts.query else ''}{parts.query}"
        lines = [f"GET {path} HTTP/1.1", f"Host: {parts.netloc}"]
        lines += [f"{name}: {value}" for name, value in headers.items()]
        request = "\r\n".join([*lines, "", ""]).encode("ascii")
        idle = self._idle.setdefault(place, [])
        loop = asyncio.get_running_loop()
        while idle:
            connection = idle.pop()
            if not connection.usable or connection.loop is not loop:
                continue
            try:
                return await self._ask(connection, request, idle)
            except BrokenAnswer:
                if connection.begun:
                    raise
                # The server gave it up while it lay idle: that says nothing of the next one.
        try:
            _, connection = await loop.create_connection(lambda: _Connection(self._limit), *place)
        except OSError as error:
            raise NoConnection(str(error)) from error
        return await self._ask(connection, request, idle)

    async def close(self) -> None:
        """Close all connections that are idle; nothing should be under way."""
        loop = asyncio.get_running_loop()
        # One of a loop that has ended went with it.
        connections = [one for idle in self._idle.values() for one in idle if one.loop is loop]
        self._idle.clear()
        for connection in connections:
            connection.drop()
        for connection in connections:
            await connection.lost.wait()

    async def _ask(
        self, connection: _Connection, request: bytes, idle: list[_Connection]
    ) -> Answer:
        try:
            answer = await connection.ask(request)
        except BaseException:  # also when the time is up: the rest of the answer is not wanted
            connection.drop()
            raise
        if connection.usable:
            idle.append(connection)
        else:
            connection.drop()
        return answer


class _Connection(asyncio.Protocol):
    """One connection; one question at a time."""

    def __init__(self, limit: int) -> None:
        self.loop = asyncio.get_running_loop()
        self._limit = limit
        self._parser = httptools.HttpResponseParser(self)
        self._transport: asyncio.Transport | None = None
        self._asked: asyncio.Future[Answer] | None = None
        self._in_head = True
        self._head_size = 0
        self._framed = False
        self._location: str | None = None
        self._body = bytearray()
        self.begun = False  # something came in answer to the last question
        self.usable = False
        self.lost = asyncio.Event()

    def ask(self, request: bytes) -> asyncio.Future[Answer]:
        """Send a question; its answer is to come."""
        assert self._transport is not None
        self._asked = asyncio.get_running_loop().create_future()
        self.begun, self._in_head, self._head_size = False, True, 0
        self._transport.write(request)
        return self._asked

    def drop(self) -> None:
        """Close at once, whatever is under way."""
        self.usable = False
        if self._transport is not None:
            self._transport.abort()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Callback: it stands."""
        assert isinstance(transport, asyncio.Transport)
        self._transport, self.usable = transport, True

    def connection_lost(self, exc: Exception | None) -> None:
        """Callback: it is gone. Without a length or chunks, that is how a body ends."""
        self.usable = False
        self.lost.set()
        if exc is None and not self._in_head and not self._framed:
            self._end(200)
        self._fail(BrokenAnswer("the connection was closed"))

    def data_received(self, data: bytes) -> None:
        """Callback: bytes came."""
        if self._asked is None or self._asked.done():  # it speaks unasked, or after it was judged
            self.drop()
            return
        self.begun = True
        self._head_size += len(data)
        try:
            self._parser.feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade) as error:
            self._fail(BrokenAnswer(str(error)))
        if self._head_size > MAX_HEAD:
            self._fail(BrokenAnswer("headers without end"))
        elif len(self._body) > self._limit:
            self._fail(TooLarge())

    def on_message_begin(self) -> None:
        """Callback of the parser: a status line follows."""
        self._in_head, self._framed, self._location = True, False, None
        self._body = bytearray()
        if self._asked is None or self._asked.done():
            self.usable = False  # a second answer to one question

    def on_header(self, name: bytes, value: bytes) -> None:
        """Callback of the parser: one header."""
        name = name.lower()
        if name == b"location":
            self._location = value.decode("latin-1")
        elif name in (b"content-length", b"transfer-encoding"):
            self._framed = True

    def on_headers_complete(self) -> None:
        """Callback of the parser: the body follows, which only a good answer is read for."""
        status = self._parser.get_status_code()
        if status < 200:
            return
        self._in_head = False
        if status != 200:
            self.usable = False
            self._end(status)

    def on_body(self, body: bytes) -> None:
        """Callback of the parser: a piece of the body."""
        self._head_size = 0  # from now on of what is neither body nor its end, such as trailers
        if len(self._body) <= self._limit:
            self._body += body

    def on_message_complete(self) -> None:
        """Callback of the parser: the end of an answer, or of a 1xx before it."""
        if self._in_head:
            return
        self.usable = self.usable and self._parser.should_keep_alive()
        if len(self._body) <= self._limit:
            self._end(200)

    def _end(self, status: int) -> None:
        if self._asked is not None and not self._asked.done():
            self._asked.set_result(Answer(status, self._location, bytes(self._body)))

    def _fail(self, error: Exception) -> None:
        self.usable = False
        if self._asked is not None and not self._asked.done():
            self._asked.set_exception(error)
