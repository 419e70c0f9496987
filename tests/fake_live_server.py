"""A scripted stand-in for an engine's live-option socket: what tests of its clients talk to.

It says exactly what it is told to, sense or nonsense, and remembers what it heard.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Mapping, Sequence
from enum import Enum
from pathlib import Path
from types import TracebackType
from typing import Any


class Act(Enum):
    """What the fake does instead of answering."""

    SILENCE = "keep the connection and say nothing"
    HANG_UP = "close the connection"


Reply = Mapping[str, Any] | bytes | Act | Callable[[Mapping[str, Any]], Mapping[str, Any]]


class FakeLiveServer:
    """Listens at ``path`` and follows ``script``, a reply a request; the last one repeats.

    A mapping is sent as one JSON line, bytes as they are, and a function is given the request.
    ``heard`` has every request line in order, as parsed; ``spoken_to`` is set by the first. Used
    as an asynchronous context.
    """

    def __init__(self, path: str | Path, script: Sequence[Reply]) -> None:
        self._path = str(path)
        self._script = list(script)
        self.heard: list[Mapping[str, Any]] = []
        self.spoken_to = asyncio.Event()
        self._server: asyncio.Server | None = None
        self._visits: dict[asyncio.Task[None], asyncio.StreamWriter] = {}

    async def __aenter__(self) -> FakeLiveServer:
        self._server = await asyncio.start_unix_server(self._attend, self._path)
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        assert self._server is not None
        self._server.close()
        for visitor in self._visits.values():
            visitor.transport.abort()
        await asyncio.gather(*self._visits, return_exceptions=True)
        await self._server.wait_closed()

    async def _attend(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        visit = asyncio.current_task()
        assert visit is not None
        self._visits[visit] = writer
        try:
            while line := await reader.readline():
                request = json.loads(line)
                self.heard.append(request)
                self.spoken_to.set()
                reply = self._script.pop(0) if len(self._script) > 1 else self._script[0]
                if reply is Act.SILENCE:
                    continue
                if reply is Act.HANG_UP:
                    return
                if callable(reply):
                    reply = reply(request)
                raw = reply if isinstance(reply, bytes) else json.dumps(reply).encode() + b"\n"
                writer.write(raw)
                await writer.drain()
        except ConnectionError:
            pass  # the client has had enough
        finally:
            self._visits.pop(visit)
            writer.close()
