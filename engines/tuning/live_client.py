"""The live-option client: reads and changes the options of a running engine.

It uses the protocol of docs/reference/live-socket.md over a Unix socket. Answers are hostile: they
are validated and bounded in time and size, and every string is made printable.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from llmtop.engines.core.live_protocol import (
    LiveError,
    LiveOption,
    LiveState,
    changes_of,
    nonsense,
    state_of,
    text_of,
    understood,
)
from llmtop.engines.core.options import Change
from llmtop.engines.tuning.live_exchange import TIMEOUT_S, Connect, LiveExchange, open_own

__all__ = ["LiveClient", "LiveError", "LiveOption", "LiveState"]

PROTOCOLS = (1, 2)  # get and set are the same in both


class LiveClient:
    """A client of the socket at ``path``. Every failure raises LiveError.

    connect: opens a connection. clock: monotonic seconds, for the duration of a request. now: unix
    seconds, for the time of a change. timeout_s: time limit of a request; it is 1 s if the engine
    is stopped by a signal.
    """

    def __init__(
        self,
        path: str | Path,
        connect: Connect = open_own,
        clock: Callable[[], float] = time.monotonic,
        now: Callable[[], float] = time.time,
        timeout_s: float = TIMEOUT_S,
    ) -> None:
        self._exchange = LiveExchange(path, connect, clock)
        self._now = now
        self._timeout_s = timeout_s

    async def get(self) -> LiveState:
        """The options that the engine can change, with the values in force."""
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
        """Request changes. Returns one ``Change`` for each, in the order given.

        wait_s: how long the engine waits for its next step before it answers "pending". ack_ms of
        each is measured here: from sending the request to receiving the answer.
        """
        if not changes:
            return ()
        asked = self._now()
        request = {"op": "set", "changes": dict(changes), "evict": evict, "by": by}
        answer, took_s = await self._ask({**request, "wait_s": wait_s}, self._timeout_s + wait_s)
        return understood(
            lambda found: changes_of(found, tuple(changes), by, asked, took_s * 1e3), answer
        )

    async def close(self) -> None:
        """Cancel pending requests; later requests fail."""
        self._exchange.close()

    async def _ask(
        self, request: Mapping[str, Any], timeout_s: float
    ) -> tuple[Mapping[str, Any], float]:
        answer, took_s = await self._exchange.ask(request, timeout_s)
        if answer.get("protocol") not in PROTOCOLS:
            raise nonsense("another protocol version")
        if answer.get("ok") is not True:
            error_text = answer.get("error")
            reason = text_of(error_text) if isinstance(error_text, str) else "no reason given"
            raise LiveError(f"the engine refused the request: {reason}")
        return answer, took_s
