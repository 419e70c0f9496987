"""The HTTP page of the exporter: GET /metrics, as text, or as protobuf if the client accepts it."""

from __future__ import annotations

import asyncio
import ipaddress
import os
from collections.abc import Callable, Sequence

from llmtop import LlmtopError, UsageError
from llmtop.exporter import openmetrics, protobuf
from llmtop.exporter.families import Family

LONGEST_HEAD = 16 * 1024
TIMEOUT_S = 5.0
MOST_CONNECTIONS = 64


class Page:
    """Serves the families that ``collect`` returns. collect: must be fast and must not raise.

    timeout_s: for receiving a request, and again for sending its answer.
    """

    def __init__(
        self, collect: Callable[[], Sequence[Family]], timeout_s: float = TIMEOUT_S
    ) -> None:
        self._collect, self._timeout_s = collect, timeout_s
        self._server: asyncio.Server | None = None
        self._open = 0  # connections
        self.port = 0

    async def start(self, host: str, port: int) -> None:
        """Listen on an address; port 0: any free port. LlmtopError if that is not possible."""
        try:
            self._server = await asyncio.start_server(
                self._serve, host, port, limit=LONGEST_HEAD, reuse_address=True
            )
        except OSError as error:
            # asyncio replaces strerror by a sentence of its own.
            why = os.strerror(error.errno).lower() if error.errno else str(error)
            raise LlmtopError(
                f"the exporter cannot listen on {host}:{port}: {why}", "choose another --listen"
            ) from None
        self.port = self._server.sockets[0].getsockname()[1]

    async def close(self) -> None:
        """Stop listening."""
        if self._server is not None:
            self._server.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._open += 1
        try:
            if self._open <= MOST_CONNECTIONS:
                async with asyncio.timeout(self._timeout_s):
                    head = await reader.readuntil(b"\r\n\r\n")
                    writer.write(self._answer(head.decode("latin-1")))
                    await writer.drain()
        except (TimeoutError, asyncio.IncompleteReadError, asyncio.LimitOverrunError, OSError):
            pass
        finally:
            writer.close()
            try:
                async with asyncio.timeout(self._timeout_s):
                    await writer.wait_closed()
            except (TimeoutError, OSError):
                writer.transport.abort()  # frees the page of a client that does not read it
            finally:
                self._open -= 1

    def _answer(self, head: str) -> bytes:
        request, *lines = head.split("\r\n")
        words = request.split(" ")
        if len(words) != 3 or words[0] not in ("GET", "HEAD"):
            return _response("405 Method Not Allowed", "text/plain", b"GET /metrics\n")
        if words[1].partition("?")[0] != "/metrics":
            return _response("404 Not Found", "text/plain", b"the metrics are at /metrics\n")
        accept = next((line for line in map(str.lower, lines) if line.startswith("accept:")), "")
        found = self._collect()
        if "application/vnd.google.protobuf" in accept:
            kind, body = protobuf.CONTENT_TYPE, protobuf.delimited(found)
        elif "application/openmetrics-text" in accept:
            kind, body = openmetrics.CONTENT_TYPE, openmetrics.text(found).encode()
        else:
            kind, body = openmetrics.PLAIN_TYPE, openmetrics.text(found, plain=True).encode()
        return _response("200 OK", kind, b"" if words[0] == "HEAD" else body)


def _response(status: str, kind: str, body: bytes) -> bytes:
    head = f"HTTP/1.1 {status}\r\nContent-Type: {kind}\r\nContent-Length: {len(body)}\r\n"
    return f"{head}Connection: close\r\n\r\n".encode() + body


def address(text: str) -> tuple[str, int]:
    """Host and port of ``127.0.0.1:9470``, ``:9470`` or ``[::1]:9470``. UsageError for other text.

    Without a host it is 127.0.0.1.
    """
    host, colon, port = text.rpartition(":")
    host = host.strip("[]") or "127.0.0.1"
    sound = colon and port.isascii() and port.isdecimal() and int(port) <= 65535
    try:
        ipaddress.ip_address(host if host != "localhost" else "127.0.0.1")
    except ValueError:
        sound = ""
    if not sound:
        raise UsageError(f"{text!r} is not an address to listen on", "write it like 127.0.0.1:9470")
    return host, int(port)
