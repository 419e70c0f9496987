"""A local server that streams at a known rate, to calibrate this client.

Its answers have the form of vLLM's. Each chunk contains the arrival time of its request (from the
kernel's stamp) and its own sending time, in monotonic nanoseconds. So a client on the same machine
can compare its measurements with the true values.
"""

from __future__ import annotations

import asyncio
import errno
import json
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

from llmtop.loadgen.client.arrival_stamps import SO_TIMESTAMPNS, ArrivalStamps

NS = 1_000_000_000
CHUNK_SIZE = 250  # bytes of one event, similar to vLLM's


CHUNKED = b"transfer-encoding: chunked\r\n"
HEAD = (
    b"HTTP/1.1 200 OK\r\nserver: paced\r\ncontent-type: text/event-stream; charset=utf-8\r\n"
    + CHUNKED
    + b"\r\n"
)
Frame = Callable[[bytes], bytes]


def chunked(data: bytes) -> bytes:
    """An event with this data, as one HTTP chunk."""
    line = b"data: " + data + b"\n\n"
    return b"%x\r\n%b\r\n" % (len(line), line)


class PacedServer:
    """Sends a first token after ``ttft_s`` seconds, then one every ``itl_s`` seconds."""

    def __init__(self, ttft_s: float = 0.05, itl_s: float = 0.01) -> None:
        self.ttft_s, self.itl_s = ttft_s, itl_s
        self._writers: set[asyncio.StreamWriter] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._server: asyncio.Server | None = None

    async def start(self, host: str = "127.0.0.1", port: int = 0) -> int:
        """Listen; returns the port."""
        self._server = await asyncio.start_server(self._begin, host, port, backlog=4096)
        for listener in self._server.sockets:  # accepted connections inherit the option
            listener.setsockopt(socket.SOL_SOCKET, SO_TIMESTAMPNS, 1)
        port = self._server.sockets[0].getsockname()[1]
        return port

    async def stop(self) -> None:
        """Stop listening and end every stream."""
        assert self._server is not None
        # A connection that is just being accepted has no task yet.
        # The server is closed after that: asyncio (up to 3.13) loses such a connection, left open.
        for listener in self._server.sockets:
            asyncio.get_running_loop().remove_reader(listener.fileno())
        while others := asyncio.all_tasks() - {asyncio.current_task()}:
            for task in self._tasks:
                task.cancel()
            for writer in self._writers:  # also those whose task was cancelled before its start
                writer.transport.abort()
            await asyncio.wait(others, timeout=0.1)
        self._server.close()
        for writer in self._writers:
            writer.transport.abort()
        for _ in range(2):  # an aborted connection releases its socket in the next turn of the loop
            await asyncio.sleep(0)

    def _begin(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writers.add(writer)
        task = asyncio.get_running_loop().create_task(self._serve(reader, writer))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.transport.get_extra_info("socket").setsockopt(
            socket.IPPROTO_TCP, socket.TCP_NODELAY, 1
        )
        # A client that disconnects is not an error; stop() cancels running tasks.
        with (
            suppress(OSError, asyncio.IncompleteReadError, asyncio.CancelledError),
            ArrivalStamps(reader, writer) as stamps,
        ):
            while await self._answer(reader, writer, stamps):
                pass
        writer.close()
        with suppress(OSError, asyncio.CancelledError):
            await writer.wait_closed()
            self._writers.discard(writer)

    async def _answer(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, stamps: ArrivalStamps
    ) -> bool:
        head = (await reader.readuntil(b"\r\n\r\n")).lower()
        if head.startswith(b"get "):
            return await whole(writer, 200, {"object": "list", "data": [{"id": "paced"}]})
        length = int(head.partition(b"content-length:")[2].partition(b"\r\n")[0])
        body = await reader.readexactly(length)
        return await self._answer_post(head, body, stamps.last_ns, writer)

    async def _answer_post(
        self, head: bytes, body: bytes, read_ns: int, writer: asyncio.StreamWriter
    ) -> bool:
        return await self._answer_to(json.loads(body), read_ns, writer)

    async def _answer_to(
        self, asked: dict[str, Any], read_ns: int, writer: asyncio.StreamWriter
    ) -> bool:
        """Answer one request. Returns whether the connection stays open."""
        writer.write(HEAD)
        await self._tokens(asked, read_ns, asked["max_tokens"], writer)
        await self._ending(asked, writer)
        writer.write(b"0\r\n\r\n")
        await writer.drain()
        return True

    async def _tokens(
        self,
        asked: dict[str, Any],
        read_ns: int,
        count: int,
        writer: asyncio.StreamWriter,
        frame: Frame = chunked,
    ) -> None:
        """Send the first ``count`` tokens, each at its time. frame: encodes an event."""
        chat, most = "messages" in asked, asked["max_tokens"]
        due = read_ns / NS + self.ttft_s
        for number in range(count):
            await asyncio.sleep(due - time.monotonic())
            due += self.itl_s
            if writer.is_closing():
                raise ConnectionResetError
            writer.write(frame(_chunk(read_ns, chat, number == most - 1)))

    async def _ending(
        self, asked: dict[str, Any], writer: asyncio.StreamWriter, frame: Frame = chunked
    ) -> None:
        prompt = asked.get("prompt")
        usage = {
            "prompt_tokens": len(prompt) if isinstance(prompt, list) else 7,
            "completion_tokens": asked["max_tokens"],
        }
        writer.write(frame(json.dumps({"choices": [], "usage": usage}).encode()))
        writer.write(frame(b"[DONE]"))
        await writer.drain()


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


async def whole(
    writer: asyncio.StreamWriter, status: int, answer: object, header: bytes = b""
) -> bool:
    """Answer in one piece, as JSON; the connection stays open."""
    body = json.dumps(answer).encode()
    writer.write(
        b"HTTP/1.1 %d Paced\r\ncontent-type: application/json\r\n%bcontent-length: %d\r\n\r\n%b"
        % (status, header, len(body), body)
    )
    await writer.drain()
    return True


@contextmanager
def serving(
    ttft_s: float = 0.05, itl_s: float = 0.01, kind: type[PacedServer] = PacedServer
) -> Iterator[tuple[PacedServer, str]]:
    """Run a server in its own thread; yield it and its URL. At the end close all streams."""
    server, loop = kind(ttft_s, itl_s), asyncio.new_event_loop()
    loop.set_exception_handler(_report)
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


def _report(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    """Log errors of the loop, except the limit of open files, which the client reports."""
    error = context.get("exception")
    if not (isinstance(error, OSError) and error.errno in (errno.EMFILE, errno.ENFILE)):
        loop.default_exception_handler(context)
