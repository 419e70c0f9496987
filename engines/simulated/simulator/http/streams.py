"""Sinks for a request's tokens: a stream that writes to a socket, and a counter."""

from __future__ import annotations

import asyncio

from llmtop.engines.simulated.simulator.http.frames import Frames

HIGH_WATER = 64 * 1024
"""Bytes that may wait in a connection. Above it, tokens are only counted; they are sent in one
event when the client reads again. This bounds the memory for a slow client (vLLM does the same)."""


class TokenCounter:
    """Counts tokens. done: set after the last token, or after an abort by an operator."""

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


class TokenStream(TokenCounter):
    """Writes each step's tokens directly into the transport, without a task or an await.

    It does not write the tokens of the last step. The code that waits for ``done`` sends them with
    the finish reason, starting at token ``sent``.
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
