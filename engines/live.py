"""The live-option client: asks a running engine what can be changed, and changes it.

Speaks docs/live-socket.md over a Unix socket, one connection a request: a request that waits for
the engine's next step then holds up nobody else's. Whatever comes back is hostile until proven
otherwise; it is bounded in time and in size, and every string in it is printable when it leaves.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import time
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any, Protocol

from llmtop.engines.live_answer import (
    LiveError,
    LiveOption,
    LiveState,
    changes_of,
    nonsense,
    object_of,
    printable,
    state_of,
    understood,
)
from llmtop.engines.options import Change

__all__ = ["LiveClient", "LiveError", "LiveOption", "LiveState"]

PROTOCOL = 1
TIMEOUT_S = 2.0  # for an answer that waits for nothing; a set adds its wait_s
ANSWER_LIMIT = 256 * 1024  # four times what the protocol allows

Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]


class Connect(Protocol):
    """Opens a connection to a socket path, as ``asyncio.open_unix_connection`` does."""

    def __call__(self, path: str, *, limit: int) -> Awaitable[Streams]:
        """The two ends; OSError when there is nobody."""


class LiveClient:
    """Talks to the socket at ``path``. Every failure is a LiveError.

    connect: opens a connection. clock: monotonic seconds, for how long an answer took.
    now: unix seconds, the moment that a change is stamped with. timeout_s: how long to wait.
    """

    def __init__(
        self,
        path: str | Path,
        connect: Connect = asyncio.open_unix_connection,
        clock: Callable[[], float] = time.monotonic,
        now: Callable[[], float] = time.time,
        timeout_s: float = TIMEOUT_S,
    ) -> None:
        self._path = str(path)
        self._connect = connect
        self._clock = clock
        self._now = now
        self._timeout_s = timeout_s
        self._open: set[asyncio.StreamWriter] = set()
        self._closed = False

    async def get(self) -> LiveState:
        """What the engine can change, and what is in force."""
        answer, _ = await self._ask({"op": "get"}, self._timeout_s)
        return understood(state_of, answer)

    async def set(
        self,
        changes: Mapping[str, int],
        *,
        evict: bool = False,
        by: str = "",
        wait_s: float = 1.0,
    ) -> tuple[Change, ...]:
        """Ask for changes; one ``Change`` for each, in the order given.

        wait_s: how long the engine waits for its own next step before it answers "pending".
        ack_ms of each is ours: from before the request was sent until its answer was here.
        """
        if not changes:
            return ()
        asked = self._now()
        request = {"op": "set", "changes": dict(changes), "evict": evict, "by": by}
        answer, took_s = await self._ask({**request, "wait_s": wait_s}, self._timeout_s + wait_s)
        return understood(
            lambda told: changes_of(told, tuple(changes), by, asked, took_s * 1e3), answer
        )

    async def close(self) -> None:
        """Drop whatever is under way; a request after this fails."""
        self._closed = True
        for writer in tuple(self._open):
            writer.transport.abort()

    async def _ask(
        self, request: Mapping[str, Any], timeout_s: float
    ) -> tuple[Mapping[str, Any], float]:
        if self._closed:
            raise LiveError("this live-option client was closed")
        sent = self._clock()
        try:
            async with asyncio.timeout(timeout_s):
                line = await self._exchange(json.dumps(request).encode() + b"\n")
        except TimeoutError:
            raise LiveError(
                f"the engine's live-option socket did not answer within {timeout_s:g} s",
                "the engine may be stuck: see its log, and whether its numbers still move",
            ) from None
        except OSError as error:
            raise LiveError(
                f"the engine's live-option socket is gone ({_reason(error)})",
                "has the engine stopped? options can be changed only where llmtop started it",
            ) from None
        took_s = self._clock() - sent
        answer = understood(object_of, line)
        if answer.get("protocol") != PROTOCOL:
            raise nonsense("another protocol version")
        if answer.get("ok") is not True:
            error_text = answer.get("error")
            told = printable(error_text) if isinstance(error_text, str) else "no reason given"
            raise LiveError(f"the engine did not take the request: {told}")
        return answer, took_s

    async def _exchange(self, line: bytes) -> bytes:
        reader, writer = await self._connect(self._path, limit=ANSWER_LIMIT)
        self._open.add(writer)
        try:
            writer.write(line)
            await writer.drain()
            answer = await reader.readline()
        except ValueError:  # asyncio's word for a line above the limit
            raise nonsense(f"a line longer than {ANSWER_LIMIT // 1024} KiB") from None
        finally:
            self._open.discard(writer)
            # abort: close would wait for a peer that does not read.
            writer.transport.abort()
            with contextlib.suppress(OSError):
                await writer.wait_closed()
        if not answer.endswith(b"\n"):
            raise ConnectionResetError("it hung up")
        return answer


def _reason(error: OSError) -> str:
    match error:
        case FileNotFoundError():
            return "no such socket"
        case ConnectionRefusedError():
            return "nobody listens"
        case PermissionError():
            return "not allowed"
        case _:
            return error.strerror or str(error)
