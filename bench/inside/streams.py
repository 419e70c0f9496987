"""A closed loop of completion streams with a minimal client, which measures TTFT.

    python -m bench.inside.streams URL --streams 64 --seconds 20

The client looks only for the first event and for the end of an answer. It does not look for the
first text, because the first tokens of a byte-level model may have none. The kernel stamps the
first event, so a delay of the client does not count. Each stream keeps its connection, like usual
clients: a new connection must first be accepted by the server's event loop.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import socket
import struct
import sys
import time
from typing import Any
from urllib.parse import urlsplit

from msgspec import Struct, field

WORDS = (
    *("the", "queue", "grows", "and", "the", "cache", "fills", "while", "some", "of", "them"),
    *("wait", "for", "their", "turn", "again"),
)


# Not in Python's socket module before 3.14; the stamp is a timespec of two 64-bit numbers.
SO_TIMESTAMPNS = getattr(socket, "SO_TIMESTAMPNS", 35)
END = b"\r\n0\r\n\r\n"  # the end of an answer in chunked encoding
TIMESPEC = struct.Struct("@qq")


class Results(Struct):
    """The results of the streams. ttft: (time of sending in unix seconds, TTFT in seconds)."""

    ttft: list[tuple[float, float]] = field(default_factory=list)
    finished: int = 0
    failed: int = 0


class Streams:
    """A closed loop of ``count`` streams against one server."""

    def __init__(
        self, url: str, model: str, count: int, words: tuple[int, int], tokens: tuple[int, int]
    ) -> None:
        parts = urlsplit(url)
        self._host, self._port = parts.hostname or "127.0.0.1", parts.port or 80
        self._model, self._count = model, count
        self._words, self._tokens = words, tokens
        self._random = random.Random(count)
        self.results = Results()

    async def run(self, seconds: float) -> Results:
        """Send requests for so many seconds, then wait for those in flight."""
        until = time.monotonic() + seconds
        await asyncio.gather(*(self._keep(number, until) for number in range(self._count)))
        return self.results

    async def _keep(self, number: int, until: float) -> None:
        turn = 0
        sock: socket.socket | None = None
        try:
            while time.monotonic() < until:
                try:
                    sock = sock or await self._connected()
                    await self._one(sock, f"{number} {turn} {self._random.random()}")
                    self.results.finished += 1
                except (OSError, ValueError):
                    self.results.failed += 1
                    if sock is not None:
                        sock.close()
                    sock = None
                    await asyncio.sleep(0.2)
                turn += 1
        finally:
            if sock is not None:
                sock.close()

    async def _connected(self) -> socket.socket:
        sock = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        sock.setblocking(False)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        sock.setsockopt(socket.SOL_SOCKET, SO_TIMESTAMPNS, 1)
        await asyncio.get_running_loop().sock_connect(sock, (self._host, self._port))
        return sock

    async def _one(self, sock: socket.socket, name: str) -> None:
        count = self._random.randint(*self._words)
        prompt = f"{name} " + " ".join(self._random.choice(WORDS) for _ in range(count))
        body = {
            **{"model": self._model, "prompt": prompt, "stream": True, "ignore_eos": True},
            **{"max_tokens": self._random.randint(*self._tokens), "temperature": 0.0},
        }
        payload = json.dumps(body).encode()
        head = (
            f"POST /v1/completions HTTP/1.1\r\nHost: {self._host}\r\n"
            f"Content-Type: application/json\r\nContent-Length: {len(payload)}\r\n\r\n"
        )
        loop = asyncio.get_running_loop()
        sent = time.time()
        await loop.sock_sendall(sock, head.encode() + payload)
        first, tail = False, b""
        while not tail.endswith(END):
            data, came = await _received(loop, sock)
            if not data or (not tail and b" 200 " not in data[:16]):
                raise ValueError("not served, or cut off")
            if not first and b"data: {" in tail + data:
                first = True
                self.results.ttft.append((sent, came - sent))
            tail = (tail + data)[-64:]
        if b"[DONE]" not in tail:
            raise ValueError("cut off")


async def _received(loop: asyncio.AbstractEventLoop, sock: socket.socket) -> tuple[bytes, float]:
    """The received bytes, and when the kernel received them, unix seconds."""
    while True:
        try:
            data, ancillary, _, _ = sock.recvmsg(1 << 16, 64)
        except BlockingIOError:
            ready = loop.create_future()
            loop.add_reader(sock, ready.set_result, None)
            try:
                await ready
            finally:
                loop.remove_reader(sock)
            continue
        for level, kind, stamp in ancillary:
            if level == socket.SOL_SOCKET and kind == SO_TIMESTAMPNS:
                seconds, nanoseconds = TIMESPEC.unpack(stamp[: TIMESPEC.size])
                return data, seconds + nanoseconds / 1e9
        return data, time.time()


def main(argv: list[str]) -> dict[str, Any]:
    """Parse the arguments and run. Returns what the program prints as JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("url")
    parser.add_argument("--model", default="small")
    parser.add_argument("--streams", type=int, default=8)
    parser.add_argument("--seconds", type=float, default=20.0)
    parser.add_argument("--words", type=int, nargs=2, default=(20, 60))
    parser.add_argument("--tokens", type=int, nargs=2, default=(40, 80))
    args = parser.parse_args(argv)
    streams = Streams(args.url, args.model, args.streams, tuple(args.words), tuple(args.tokens))
    results = asyncio.run(streams.run(args.seconds))
    return {"finished": results.finished, "failed": results.failed, "ttft": results.ttft}


if __name__ == "__main__":
    print(json.dumps(main(sys.argv[1:])))
