"""A paced server that misbehaves where a request's model is the name of a ``Quirk``."""

from __future__ import annotations

import asyncio
import socket
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from enum import StrEnum
from typing import Any

from llmtop.loadgen.client import paced_server
from llmtop.loadgen.client.paced_server import CHUNKED, HEAD, NS, PacedServer, chunked, whole


class Quirk(StrEnum):
    """Ways to misbehave."""

    STALL = "stall"  # reads the request and says nothing
    STALL_LATER = "stall-later"  # goes silent after three tokens
    RESET = "reset"  # resets the connection in the middle of the stream
    CLOSE = "close"  # closes before the headers
    HALF = "half"  # closes in the middle of an event
    BUSY = "busy"  # 429
    BUSY_FOR_LONG = "busy-for-long"  # 429 that asks to come again in an hour
    BROKEN = "broken"  # 500
    ENDLESS_LINE = "endless-line"  # a line that does not end
    ENDLESS_HEAD = "endless-head"  # headers that do not end
    ENDLESS_ERROR = "endless-error"  # a 500 whose body does not end
    NONSENSE = "nonsense"  # not HTTP
    NOISE = "noise"  # a gigabyte that is not HTTP
    PINGS = "pings"  # a stream of comments that does not end
    NO_USAGE = "no-usage"  # 200 and [DONE], nothing else: an engine that died
    ERROR_EVENT = "error-event"  # an error as an event of a good stream
    ROLE_FIRST = "role-first"  # chat: a chunk without content at once, the tokens later
    WHOLE = "whole"  # one JSON answer, not streamed
    CLOSE_DELIMITED = "close-delimited"  # neither length nor chunks: closing is the end
    SHORT_KEEP_ALIVE = "short-keep-alive"  # closes the connection after every answer


_MIDWAY = (Quirk.STALL_LATER, Quirk.RESET, Quirk.HALF, Quirk.NO_USAGE, Quirk.ERROR_EVENT)
_ROLE = b'{"choices":[{"delta":{"role":"assistant","content":""}}]}'
_MIDDLE = 3  # tokens before it misbehaves


class QuirkyServer(PacedServer):
    """Counts what comes. written: bytes of endless answers that the client took."""

    def __init__(self, ttft_s: float = 0.05, itl_s: float = 0.01) -> None:
        super().__init__(ttft_s, itl_s)
        self.requests = 0
        self.connections = 0
        self.open_streams = 0
        self.bodies: list[bytes] = []  # the last 100
        self.ids: list[str] = []  # X-Request-Id of the last 100, "" for none
        self.written = 0
        self._never = asyncio.Event()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        await super()._serve(reader, writer)

    async def _answer_post(
        self, head: bytes, body: bytes, read_ns: int, writer: asyncio.StreamWriter
    ) -> bool:
        self.requests += 1
        self.bodies = [*self.bodies[-99:], body]
        named = head.partition(b"x-request-id:")[2].partition(b"\r\n")[0]
        self.ids = [*self.ids[-99:], named.strip().decode("latin-1")]
        self.open_streams += 1
        try:
            return await super()._answer_post(head, body, read_ns, writer)
        finally:
            self.open_streams -= 1

    async def _answer_to(
        self, asked: dict[str, Any], read_ns: int, writer: asyncio.StreamWriter
    ) -> bool:
        quirk = Quirk(asked["model"]) if asked["model"] in set(Quirk) else None
        if (refused := await self._refuse(quirk, writer)) is not None:
            return refused
        if quirk in _MIDWAY and asked["max_tokens"] >= _MIDDLE:
            writer.write(HEAD)
            await self._tokens(asked, read_ns, _MIDDLE, writer)
            await self._break_off(quirk, writer)
        elif quirk is Quirk.ROLE_FIRST:
            writer.write(
                HEAD + chunked(b'{"choices":[{"delta":{"role":"assistant","content":""}}]}')
            )
            await self._tokens(asked, read_ns, asked["max_tokens"], writer)
            await self._ending(asked, writer)
            writer.write(b"0\r\n\r\n")
        elif quirk is Quirk.CLOSE_DELIMITED:
            writer.write(HEAD.replace(CHUNKED, b"connection: close\r\n"))
            await self._tokens(asked, read_ns, asked["max_tokens"], writer, _bare)
            await self._ending(asked, writer, _bare)
            return False
        else:
            await super()._answer_to(asked, read_ns, writer)
        return quirk is not Quirk.SHORT_KEEP_ALIVE

    async def _refuse(self, quirk: Quirk | None, writer: asyncio.StreamWriter) -> bool | None:
        """Whether the connection stays open after an answer that is no stream; None: stream."""
        match quirk:
            case Quirk.STALL:
                await self._never.wait()
            case Quirk.CLOSE:
                return False
            case Quirk.BUSY:
                return await whole(writer, 429, {"error": {"message": "too many requests"}})
            case Quirk.BUSY_FOR_LONG:
                answer = {"error": {"message": "come again"}}
                return await whole(writer, 429, answer, b"retry-after: 3600\r\n")
            case Quirk.BROKEN:
                return await whole(writer, 500, {"error": {"message": "out of \x1b[31mmemory"}})
            case Quirk.WHOLE:
                return await whole(writer, 200, {"choices": [{"text": "all at once"}]})
            case Quirk.NONSENSE:
                writer.write(b"SSH-2.0-OpenSSH_9.2\r\n")
            case Quirk.NOISE:
                await self._endless(writer, b"", b"\xa7\x00\r\n" * 250)
            case Quirk.PINGS:
                await self._endless(writer, HEAD, b"9\r\n: pings \n\r\n")
            case Quirk.ENDLESS_HEAD:
                await self._endless(writer, b"HTTP/1.1 200 OK\r\n", b"x-y: " + b"z" * 900 + b"\r\n")
            case Quirk.ENDLESS_LINE:
                await self._endless(writer, HEAD, b"%x\r\ndata: %b\r\n" % (1006, b"a" * 1000))
            case Quirk.ENDLESS_ERROR:
                begin = b"HTTP/1.1 500 No\r\ncontent-length: 1000000000\r\n\r\n"
                await self._endless(writer, begin, b"a" * 1000)
            case _:
                return None
        return False

    async def _endless(self, writer: asyncio.StreamWriter, begin: bytes, more: bytes) -> None:
        writer.write(begin)
        while self.written < NS:
            writer.write(more * 64)
            await writer.drain()
            self.written += 64 * len(more)

    async def _break_off(self, quirk: Quirk | None, writer: asyncio.StreamWriter) -> None:
        await writer.drain()
        match quirk:
            case Quirk.STALL_LATER:
                await self._never.wait()
            case Quirk.RESET:
                sock = writer.transport.get_extra_info("socket")
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                writer.transport.abort()
            case Quirk.HALF:
                writer.write(b'fa\r\ndata: {"choices":[{"te')
            case Quirk.NO_USAGE:
                writer.write(chunked(b"[DONE]") + b"0\r\n\r\n")
            case Quirk.ERROR_EVENT:
                data = b'{"error":{"message":"the engine died","code":500}}'
                writer.write(chunked(data) + chunked(b"[DONE]") + b"0\r\n\r\n")
        raise ConnectionResetError


def _bare(data: bytes) -> bytes:
    return b"data: " + data + b"\n\n"


@contextmanager
def serving(ttft_s: float = 0.05, itl_s: float = 0.01) -> Iterator[tuple[QuirkyServer, str]]:
    """A server in its own thread, and its URL; at the end open streams are closed."""
    with paced_server.serving(ttft_s, itl_s, QuirkyServer) as (server, url):
        assert isinstance(server, QuirkyServer)
        yield server, url
