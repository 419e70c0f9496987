"""Where a request's tokens go: into a socket as they come, or into a count."""

from __future__ import annotations

import asyncio

from llmtop.engines.simulated.simulator.http.frames import Frames

HIGH_WATER = 64 * 1024
"""Bytes that may wait in a connection. Beyond, tokens are only counted, and follow in one event
when the client reads again: memory stays bounded however slow a reader is (vLLM merges too)."""


class Tally:
    """Counts tokens. done: set when the last one has come, or when an operator ended it."""

    def __init__(self) -> None:
        self.tokens = 0
        self.aborted = False
        self.done = asyncio.Event()

    def take(self, tokens: int, finished: bool) -> None:
        """See ``engine.Sink``."""
        self.tokens += tokens
        if finished:
            self.done.set()

    def abort(self) -> None:
        """See ``engine.Sink``."""
        self.aborted = True
        self.done.set()


class TokenStream(Tally):
    """Writes each step's tokens straight into the transport, without a task or an await.

    The last step's tokens are left to whoever waits for ``done``: they go out with the reason of
    the end, from token ``sent`` on.
    """

    def __init__(self, transport: asyncio.WriteTransport, frames: Frames) -> None:
        super().__init__()
        self.sent = 0
        self._transport = transport
        self._frames = frames

    def take(self, tokens: int, finished: bool) -> None:
        """See ``engine.Sink``."""
        self.tokens += tokens
        if finished:
            self.done.set()
            return
        transport = self._transport
        if transport.get_write_buffer_size() > HIGH_WATER or transport.is_closing():
            return
        transport.write(self._frames.tokens(self.sent, self.tokens - self.sent))
        self.sent = self.tokens
