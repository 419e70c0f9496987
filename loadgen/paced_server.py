"""A local server that streams at a known pace, and misbehaves on request: the transport's fake.

It speaks as vLLM does, so far as a load generator can tell. Each chunk carries the moments at which
its request was read and at which it was sent itself (monotonic nanoseconds), so that what a client
on the same machine measured can be held against the truth. A request whose model is the name of a
``Quirk`` is treated accordingly.
"""

from __future__ import annotations

import asyncio
import json
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from enum import StrEnum

NS = 1_000_000_000
CHUNK_SIZE = 250  # bytes of one event, about what vLLM's is


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


class PacedServer:
    """A first token after ``ttft_s``, then one every ``itl_s``. Counts what it was asked."""

    def __init__(self, ttft_s: float = 0.05, itl_s: float = 0.01) -> None:
        self.ttft_s, self.itl_s = ttft_s, itl_s
        self.requests = 0
        self.connections = 0
        self.open_streams = 0
        self.bodies: list[bytes] = []  # the last 100
        self.written = 0  # bytes of endless answers that were taken off our hands
        self._never = asyncio.Event()
        self._writers: set[asyncio.StreamWriter] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._server: asyncio.Server | None = None

    async def start(self, host: str = "127.0.0.1", port: int = 0) -> int:
        """Listen; returns the port."""
        self._server = await asyncio.start_server(self._begin, host, port, backlog=4096)
        port = self._server.sockets[0].getsockname()[1]
        return port

    async def stop(self) -> None:
        """Stop listening and end every stream."""
        assert self._server is not None
        # A connection that is just being accepted belongs to nobody yet, and has a task later on.
        # The server is closed after that: asyncio (up to 3.13) loses such a connection, left open.
        for listener in self._server.sockets:
            asyncio.get_running_loop().remove_reader(listener.fileno())
        while others := asyncio.all_tasks() - {asyncio.current_task()}:
            for task in self._tasks:
                task.cancel()
            for writer in self._writers:  # also of those whose task was cancelled before it began
                writer.transport.abort()
            await asyncio.wait(others, timeout=0.1)
        self._server.close()
        for writer in self._writers:
            writer.transport.abort()
        for _ in range(2):  # an aborted connection lets go of its socket in the loop's next turn
            await asyncio.sleep(0)

    def _begin(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writers.add(writer)
        task = asyncio.get_running_loop().create_task(self._serve(reader, writer))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        writer.transport.get_extra_info("socket").setsockopt(
            socket.IPPROTO_TCP, socket.TCP_NODELAY, 1
        )
        # A client that goes away is no failure of ours; stop() cancels what still runs.
        with suppress(OSError, asyncio.IncompleteReadError, asyncio.CancelledError):
            while await self._answer(reader, writer):
                pass
        writer.close()
        with suppress(OSError, asyncio.CancelledError):
            await writer.wait_closed()
            self._writers.discard(writer)

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        head = (await reader.readuntil(b"\r\n\r\n")).lower()
        if head.startswith(b"get "):
            return await _whole(writer, 200, {"object": "list", "data": [{"id": "paced"}]})
        length = int(head.partition(b"content-length:")[2].partition(b"\r\n")[0])
        body = await reader.readexactly(length)
        read_ns = time.monotonic_ns()
        self.requests += 1
        self.bodies = [*self.bodies[-99:], body]
        asked = json.loads(body)
        quirk = Quirk(asked["model"]) if asked["model"] in set(Quirk) else None
        self.open_streams += 1
        try:
            refused = await self._refuse(quirk, writer)
            if refused is not None:
                return refused
            await self._stream(asked, quirk, read_ns, writer)
        finally:
            self.open_streams -= 1
        return quirk not in (Quirk.CLOSE_DELIMITED, Quirk.SHORT_KEEP_ALIVE)

    async def _refuse(self, quirk: Quirk | None, writer: asyncio.StreamWriter) -> bool | None:
        """Whether the connection stays open after an answer that is no stream; None: stream."""
        match quirk:
            case Quirk.STALL:
                await self._never.wait()
            case Quirk.CLOSE:
                return False
            case Quirk.BUSY:
                return await _whole(writer, 429, {"error": {"message": "too many requests"}})
            case Quirk.BUSY_FOR_LONG:
                answer = {"error": {"message": "come again"}}
                return await _whole(writer, 429, answer, b"retry-after: 3600\r\n")
            case Quirk.BROKEN:
                return await _whole(writer, 500, {"error": {"message": "out of \x1b[31mmemory"}})
            case Quirk.WHOLE:
                return await _whole(writer, 200, {"choices": [{"text": "all at once"}]})
            case Quirk.NONSENSE:
                writer.write(b"SSH-2.0-OpenSSH_9.2\r\n")
            case Quirk.NOISE:
                await self._endless(writer, b"", b"\xa7\x00\r\n" * 250)
            case Quirk.PINGS:
                await self._endless(writer, _HEAD, b"9\r\n: pings \n\r\n")
            case Quirk.ENDLESS_HEAD:
                await self._endless(writer, b"HTTP/1.1 200 OK\r\n", b"x-y: " + b"z" * 900 + b"\r\n")
            case Quirk.ENDLESS_LINE:
                await self._endless(writer, _HEAD, b"%x\r\ndata: %b\r\n" % (1006, b"a" * 1000))
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

    async def _stream(
        self,
        asked: dict[str, object],
        quirk: Quirk | None,
        read_ns: int,
        writer: asyncio.StreamWriter,
    ) -> None:
        chat = "messages" in asked
        tokens = int(str(asked["max_tokens"]))
        plain = quirk is Quirk.CLOSE_DELIMITED
        writer.write(_HEAD.replace(_CHUNKED, b"connection: close\r\n") if plain else _HEAD)

        def event(data: bytes) -> bytes:
            line = b"data: " + data + b"\n\n"
            return line if plain else b"%x\r\n%b\r\n" % (len(line), line)

        if quirk is Quirk.ROLE_FIRST:
            writer.write(event(b'{"choices":[{"delta":{"role":"assistant","content":""}}]}'))
        due = read_ns / NS + self.ttft_s
        for number in range(tokens):
            await asyncio.sleep(due - time.monotonic())
            due += self.itl_s
            if writer.is_closing():
                raise ConnectionResetError
            writer.write(event(_chunk(read_ns, chat, number == tokens - 1)))
            if number == 2 and quirk in _MIDWAY:
                await self._midway(quirk, writer, event)
                return
        prompt = asked.get("prompt")
        usage = {
            "prompt_tokens": len(prompt) if isinstance(prompt, list) else 7,
            "completion_tokens": tokens,
        }
        writer.write(event(json.dumps({"choices": [], "usage": usage}).encode()))
        writer.write(event(b"[DONE]"))
        if not plain:
            writer.write(b"0\r\n\r\n")
        await writer.drain()

    async def _midway(
        self, quirk: Quirk, writer: asyncio.StreamWriter, event: Callable[[bytes], bytes]
    ) -> None:
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
                writer.write(event(b"[DONE]") + b"0\r\n\r\n")
            case Quirk.ERROR_EVENT:
                data = b'{"error":{"message":"the engine died","code":500}}'
                writer.write(event(data) + event(b"[DONE]") + b"0\r\n\r\n")
        raise ConnectionResetError


_MIDWAY = (Quirk.STALL_LATER, Quirk.RESET, Quirk.HALF, Quirk.NO_USAGE, Quirk.ERROR_EVENT)
_CHUNKED = b"transfer-encoding: chunked\r\n"
_HEAD = (
    b"HTTP/1.1 200 OK\r\nserver: paced\r\ncontent-type: text/event-stream; charset=utf-8\r\n"
    + _CHUNKED
    + b"\r\n"
)


def _chunk(read_ns: int, chat: bool, last: bool) -> bytes:
    finish = b'"length"' if last else b"null"
    content = b'"delta":{"content":" token"}' if chat else b'"text":" token"'
    data = (
        b'{"id":"paced","object":"text_completion","created":1795326110,"model":"paced",'
        b'"choices":[{"index":0,%b,"logprobs":null,"finish_reason":%b}],"usage":null,'
        b'"read_ns":%d,"sent_ns":%d,"pad":""}' % (content, finish, read_ns, time.monotonic_ns())
    )
    missing = CHUNK_SIZE - len(data) - 8
    return data[:-2] + b"x" * missing + data[-2:]


async def _whole(
    writer: asyncio.StreamWriter, status: int, answer: object, header: bytes = b""
) -> bool:
    body = json.dumps(answer).encode()
    writer.write(
        b"HTTP/1.1 %d Paced\r\ncontent-type: application/json\r\n%bcontent-length: %d\r\n\r\n%b"
        % (status, header, len(body), body)
    )
    await writer.drain()
    return True


@contextmanager
def serving(ttft_s: float = 0.05, itl_s: float = 0.01) -> Iterator[tuple[PacedServer, str]]:
    """A server in a thread of its own, and its URL; ended with everything it still serves."""
    server, loop = PacedServer(ttft_s, itl_s), asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()
    port = asyncio.run_coroutine_threadsafe(server.start(), loop).result(10)
    try:
        yield server, f"http://127.0.0.1:{port}"
    finally:
        asyncio.run_coroutine_threadsafe(server.stop(), loop).result(10)
        loop.call_soon_threadsafe(loop.stop)
        thread.join(10)
        loop.close()


def main() -> None:
    """Run in a process of its own; says its port on the first line of stdout."""
    import argparse  # for this process alone, not for who imports the module

    parser = argparse.ArgumentParser(description="a server that streams at a known pace")
    parser.add_argument("--ttft", type=float, default=0.1, help="seconds")
    parser.add_argument("--itl", type=float, default=0.02, help="seconds")
    arguments = parser.parse_args()

    async def run() -> None:
        print(await PacedServer(arguments.ttft, arguments.itl).start(), flush=True)
        await asyncio.Event().wait()

    with suppress(KeyboardInterrupt):
        asyncio.run(run())


if __name__ == "__main__":
    main()
