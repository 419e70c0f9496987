"""Plain HTTP to servers on this machine with the standard library; used by ``client``.

A dashboard reads a page of each engine every second, which is most of its work while idle. httpx
takes 2 ms of CPU for each page, and its import delays the first paint by 0.2 s. TLS, proxies,
passwords in a URL and other machines need httpx.
"""

from __future__ import annotations

import asyncio
import contextlib
import http.client
import re
import socket
from concurrent.futures import ThreadPoolExecutor
from urllib.parse import urlsplit

from llmtop.http_client.exchange import (
    SMALL,
    Answer,
    BrokenAnswer,
    NoConnection,
    Request,
    TooLarge,
)
from llmtop.http_client.probe import is_readable

THREADS = 64  # concurrent requests
_LOOPBACK = re.compile(r"localhost|::1|127(\.[0-9]{1,3}){3}")
_PLAIN = re.compile(r"http://[!-~]+", re.IGNORECASE)

_Place = tuple[str, int]


def is_loopback(host: str) -> bool:
    """Whether a host name means this machine. It is not resolved."""
    return _LOOPBACK.fullmatch(host) is not None


def is_plain(url: str) -> bool:
    """Whether a URL can use this client. ValueError for an invalid URL."""
    if not _PLAIN.fullmatch(url):
        return False
    parts = urlsplit(url)
    return "@" not in parts.netloc and is_loopback(parts.hostname or "")


class Loopback:
    """A client that keeps connections by host and port. Close it at the end.

    limit: largest accepted body, bytes. timeout_s: how long a thread waits for the next bytes. The
    caller limits the total time: it cancels the request.
    """

    def __init__(self, limit: int, timeout_s: float) -> None:
        self._limit = limit
        self._timeout_s = timeout_s
        self._idle: dict[_Place, list[_Connection]] = {}
        # Enough threads that hung engines do not delay the others; a thread starts on demand.
        self._threads = ThreadPoolExecutor(THREADS, "loopback")

    async def request(self, request: Request) -> Answer:
        """Send one request. Only a repeatable one uses a kept connection.

        Raises NoConnection, BrokenAnswer, TooLarge, TimeoutError, and ValueError for an invalid
        URL.
        """
        parts = urlsplit(request.url)
        place = (parts.hostname or "", 80 if parts.port is None else parts.port)
        idle = self._idle.setdefault(place, [])
        try:
            while idle and request.repeatable:
                kept = idle.pop()
                if kept.sock is not None and not is_readable(kept.sock):
                    with contextlib.suppress(http.client.RemoteDisconnected, ConnectionError):
                        return await self._ask(kept, place, request)
                # The server closed it while it was idle: try a new connection.
                kept.close()
            return await self._ask(_Connection(*place, self._timeout_s), place, request)
        except TimeoutError:
            raise  # it is an OSError too, but callers handle it differently
        except (http.client.HTTPException, OSError) as error:
            raise BrokenAnswer(type(error).__name__, str(error)) from error

    def close(self) -> None:
        """Close all connections. Later requests open new ones."""
        for idle in self._idle.values():
            for connection in idle:
                connection.close()
        self._idle.clear()
        self._threads.shutdown(wait=False, cancel_futures=True)
        self._threads = ThreadPoolExecutor(THREADS, "loopback")

    async def _ask(self, connection: _Connection, place: _Place, request: Request) -> Answer:
        exchange = self._threads.submit(self._exchange, connection, request)
        try:
            answer = await asyncio.wrap_future(exchange)
        except asyncio.CancelledError:
            connection.cancel()  # wakes the thread, whose answer is dropped
            exchange.add_done_callback(lambda _: connection.close())
            raise
        if place not in self._idle:  # ``close`` was called meanwhile
            connection.close()
        elif connection.sock is not None:
            self._idle[place].append(connection)
        return answer

    def _exchange(self, connection: _Connection, request: Request) -> Answer:
        """Runs in a thread. The connection is closed afterwards, unless it can be reused."""
        reusable = False
        try:
            if connection.sock is None:
                try:
                    connection.connect()
                except TimeoutError:
                    raise
                except OSError as error:
                    raise NoConnection(str(error)) from error
            parts = urlsplit(request.url)
            path = f"{parts.path or '/'}{'?' if parts.query else ''}{parts.query}"
            connection.request(request.method, path, request.body, request.headers)
            with connection.getresponse() as response:
                location = response.headers["location"]
                if not request.whole:
                    return Answer(response.status, location)
                good = response.status == 200
                body = response.read(self._limit + 1 if good else SMALL)
                if good and len(body) > self._limit:
                    raise TooLarge
                if good and response.length:
                    raise http.client.IncompleteRead(body, response.length)
                reusable = response.isclosed() and not response.will_close
            return Answer(response.status, location, body)
        finally:
            if not reusable:
                connection.close()


class _Connection(http.client.HTTPConnection):
    """A connection that can be cancelled while a thread waits for its answer."""

    def __init__(self, host: str, port: int, timeout_s: float) -> None:
        super().__init__(host, port, timeout=timeout_s)
        self._cancelled = False
        # ``sock`` is already None while an answer that ends with the connection is read.
        self._socket: socket.socket | None = None

    def connect(self) -> None:
        """Connect. If it was cancelled meanwhile, shut the connection down."""
        super().connect()
        self._socket = self.sock
        if self._cancelled:
            self.cancel()

    def cancel(self) -> None:
        """Shut the connection down. A thread that waits for bytes gets none."""
        self._cancelled = True
        if self._socket is not None:
            with contextlib.suppress(OSError):
                self._socket.shutdown(socket.SHUT_RDWR)
