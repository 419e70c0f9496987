"""The live socket, protocol versions 1 and 2 (``docs/reference/live-socket.md``)."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import stat
import time
from collections.abc import Callable
from concurrent.futures import Executor
from typing import Any

from llmtop import __version__
from llmtop.engines.simulated.simulator.model.live_options import LiveOptions
from llmtop.engines.simulated.simulator.model.log import log
from llmtop.engines.simulated.simulator.model.scheduler import Scheduler
from llmtop.engines.tuning.inside.llmtop_live.introspection import PROTOCOL, Introspection

LIMIT = 64 * 1024  # bytes a line
LONGEST_WAIT_S = 60.0
NONSENSE = b'\xff\x00{"ok": tru\x1b[2J\n'


class LiveSocket:
    """Answers on a Unix socket, and passes changes to ``LiveOptions``.

    inside: answers protocol 2, in threads as the plugins do; None: only protocol 1. fault: a kind
    of ``misbehaviour``, "" for none. rank: the data-parallel rank.
    """

    def __init__(
        self,
        options: LiveOptions,
        scheduler: Scheduler,
        inside: Introspection | None = None,
        threads: Executor | None = None,
        fault: str = "",
        rank: int = 0,
    ) -> None:
        self._inside = None if fault == "live-old" else inside
        self._threads = threads
        self._rank = rank
        self._options = options
        self._scheduler = scheduler
        self._fault = fault
        self._server: asyncio.Server | None = None
        self._path: str | None = None
        self._connections: set[asyncio.StreamWriter] = set()

    async def open(self, path: str) -> None:
        """Listen at ``path``, with mode 0600. On failure the engine runs without the socket."""
        try:
            with contextlib.suppress(FileNotFoundError):
                if stat.S_ISSOCK(os.lstat(path).st_mode):  # left by an engine that died
                    os.unlink(path)
            before = os.umask(0o177)
            try:
                self._server = await asyncio.start_unix_server(self._serve, path, limit=LIMIT)
            finally:
                os.umask(before)
            self._path = path
        except (OSError, ValueError) as error:
            log(f"No live options: cannot listen at {path!r}: {error}", "WARNING")

    async def close(self) -> None:
        """Stop answering and remove the socket."""
        if self._server is None or self._path is None:
            return
        self._server.close()
        for writer in list(self._connections):
            writer.close()
        with contextlib.suppress(OSError):
            os.unlink(self._path)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._connections.add(writer)
        try:
            while await self._answer_line(reader, writer):
                await writer.drain()
        except (ConnectionError, asyncio.CancelledError):
            pass  # the peer disconnected, or the engine stops
        finally:
            self._connections.discard(writer)
            writer.close()

    async def _answer_line(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> bool:
        """Read one line and answer it. Returns whether the connection stays open."""
        try:
            line = await reader.readuntil(b"\n")
        except asyncio.IncompleteReadError:
            return False
        except asyncio.LimitOverrunError:
            writer.write(_line({"error": f"line longer than {LIMIT} bytes"}, ok=False))
            return False
        if self._fault == "live-mute":
            return True
        if self._fault == "live-nonsense":
            writer.write(NONSENSE)
            return True
        try:
            answer = await self.answer(line)
        except InvalidRequest as error:
            writer.write(_line({"error": str(error)}, ok=False))
        else:
            line = _line(answer, ok=True)
            if self._fault == "live-half" and "columns" in answer:
                writer.write(line[: len(line) // 2])
                return False
            writer.write(line)
        return True

    async def answer(self, line: bytes) -> dict[str, Any]:
        """The answer to one request. Raises InvalidRequest."""
        begun = time.perf_counter()
        try:
            request = json.loads(line)
        except (ValueError, RecursionError):
            raise InvalidRequest("not JSON") from None
        if not isinstance(request, dict):
            raise InvalidRequest("not a JSON object")
        if self._inside is not None:
            found = await asyncio.get_running_loop().run_in_executor(
                self._threads, self._inside.answer, request
            )
            if found is not None:
                return found
        newer = self._inside is not None and request.get("protocol") == PROTOCOL
        protocol = PROTOCOL if newer else 1
        if request.get("op") == "get":
            return {**self._get(), "protocol": protocol}
        if request.get("op") == "set":
            return {**await self._set(request, begun), "protocol": protocol}
        raise InvalidRequest('op must be "get" or "set"')

    def _get(self) -> dict[str, Any]:
        return {
            "engine": "simulator",
            "version": __version__,
            "pid": os.getpid(),
            "rank": self._rank,
            "options": self._options.describe(),
            "running": len(self._scheduler.running),
            "waiting": self._scheduler.queued,
            "evicted_total": self._scheduler.totals.evictions,
            "history": [entry.as_history() for entry in self._options.history],
            "disabled": self._options.disabled,
            **({} if self._inside is None else self._inside.describe()),
        }

    async def _set(self, request: dict[str, Any], begun: float) -> dict[str, Any]:
        changes = _field(request, "changes", lambda v: isinstance(v, dict) and len(v) <= 16, {})
        evict = _field(request, "evict", lambda v: isinstance(v, bool), False)
        by = _field(request, "by", lambda v: isinstance(v, str), "")[:100]
        wait_s = _field(request, "wait_s", _is_wait, 1.0)
        if not changes:
            raise InvalidRequest("changes must be an object with at least one option")
        ticket = self._options.ask(changes, evict, by)
        if ticket.pending:
            settled = asyncio.Event()
            ticket.settled = settled.set
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(settled.wait(), wait_s)
        return {
            "evicted": ticket.evicted,
            "ack_ms": round((time.perf_counter() - begun) * 1e3, 3),
            "changes": [entry.as_answer() for entry in ticket.entries],
        }


class InvalidRequest(Exception):
    """Why a request is invalid, in words."""


def _line(answer: dict[str, Any], *, ok: bool) -> bytes:
    return json.dumps({"ok": ok, "protocol": 1, **answer}).encode() + b"\n"


def _is_wait(value: object) -> bool:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    return 0 <= value <= LONGEST_WAIT_S


def _field(request: dict[str, Any], name: str, valid: Callable[[Any], bool], default: Any) -> Any:
    value = request.get(name, default)
    if value is not default and not valid(value):
        raise InvalidRequest(f"{name} is invalid")
    return value
