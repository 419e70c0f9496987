"""One request over a live socket and its answer, bounded in time and size.

Each request has its own connection, so a request that waits for the engine's next step does not
delay others.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import json
import os
import socket
import struct
import time
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any, Protocol

from llmtop.engines.core.live_protocol import LiveError, LiveGone, nonsense, object_of, understood
from llmtop.engines.host.ownership import is_trusted
from llmtop.engines.host.processes import parse_stat

# For an answer that does not wait for a step. It takes milliseconds, but on two cores with forty
# busy programs more than 2 s were measured.
TIMEOUT_S = 10.0
STOPPED_S = 1.0  # interval to check whether a silent engine is stopped by a signal
ANSWER_LIMIT = 256 * 1024  # bytes: four times the limit of protocol 1

Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]


class Connect(Protocol):
    """Opens a connection to a socket path, as ``asyncio.open_unix_connection`` does."""

    def __call__(self, path: str, *, limit: int) -> Awaitable[Streams]:
        """The reader and the writer; OSError without a listener."""


async def open_own(path: str, *, limit: int) -> Streams:
    """Connect if the socket and its listener belong to this user or root; else OSError."""
    if not is_trusted(os.lstat(path).st_uid):
        raise PermissionError(errno.EPERM, "another user's")
    reader, writer = await asyncio.open_unix_connection(path, limit=limit)
    if not is_trusted(_credentials(writer.get_extra_info("socket"))[1]):
        writer.transport.abort()
        raise PermissionError(errno.EPERM, "another user listens")
    return reader, writer


class LiveExchange:
    """Sends requests to the socket at ``path``. Every failure raises LiveError.

    connect: opens a connection. clock: monotonic seconds. answer_limit: maximum bytes of an answer.
    If the engine is stopped by a signal, the time limit is 1 s.
    """

    def __init__(
        self,
        path: str | Path,
        connect: Connect = open_own,
        clock: Callable[[], float] = time.monotonic,
        answer_limit: int = ANSWER_LIMIT,
    ) -> None:
        self._path = str(path)
        self._connect = connect
        self._clock = clock
        self._limit = answer_limit
        self._open: set[asyncio.StreamWriter] = set()
        self._closed = False

    async def ask(
        self, request: Mapping[str, Any], timeout_s: float
    ) -> tuple[Mapping[str, Any], float]:
        """Send one request. Returns the answered object, not validated, and the duration in s."""
        if self._closed:
            raise LiveError("this live-option client was closed")
        sent = self._clock()
        try:
            async with asyncio.timeout(timeout_s):
                line = await self._exchange(json.dumps(request).encode() + b"\n")
        except _Stopped as stopped:
            raise LiveError(
                f"the engine's live-option socket does not answer: its process (pid {stopped.pid})"
                " is stopped by a signal (SIGSTOP)",
                f"let it continue: kill -CONT {stopped.pid}",
            ) from None
        except TimeoutError:
            raise LiveError(
                f"the engine's live-option socket did not answer within {timeout_s:g} s",
                "the engine may be stuck: check its log, and whether its numbers still change",
            ) from None
        except OSError as error:
            absent = isinstance(error, FileNotFoundError | ConnectionRefusedError)
            raise (LiveGone if absent else LiveError)(
                f"the engine's live-option socket is gone ({_reason(error)})",
                "check whether the engine runs; llmtop can change options only if it started it",
            ) from None
        return understood(object_of, line), self._clock() - sent

    def close(self) -> None:
        """Cancel pending requests; later requests fail."""
        self._closed = True
        for writer in tuple(self._open):
            writer.transport.abort()

    async def _exchange(self, line: bytes) -> bytes:
        reader, writer = await self._connect(self._path, limit=self._limit)
        self._open.add(writer)
        try:
            writer.write(line)
            await writer.drain()
            answer = await _answer(reader, _listener(writer))
        except ValueError:  # asyncio raises this for a line above the limit
            raise nonsense(f"a line longer than {self._limit // 1024} KiB") from None
        finally:
            self._open.discard(writer)
            # abort: close would wait for a peer that does not read.
            writer.transport.abort()
            with contextlib.suppress(OSError):
                await writer.wait_closed()
        if not answer.endswith(b"\n"):
            raise ConnectionResetError("it closed the connection")
        return answer


class _Stopped(Exception):
    """The listening process is stopped by a signal."""

    def __init__(self, pid: int) -> None:
        super().__init__(pid)
        self.pid = pid


async def _answer(reader: asyncio.StreamReader, pid: int | None) -> bytes:
    """The line of the answer. Raises _Stopped when the peer process is stopped by a signal."""
    line = asyncio.ensure_future(reader.readline())
    try:
        while not (await asyncio.wait({line}, timeout=STOPPED_S))[0]:
            if pid is not None and _state(pid) == "T":
                raise _Stopped(pid)
        return await line
    finally:
        line.cancel()


def _listener(writer: asyncio.StreamWriter) -> int | None:
    """The peer process; None if the kernel does not report one."""
    connected = writer.get_extra_info("socket")
    return _credentials(connected)[0] or None if connected is not None else None


def _credentials(connected: socket.socket) -> tuple[int, int]:
    """The process and the user at the other end of a Unix socket."""
    size = struct.calcsize("3i")
    pid, uid, _ = struct.unpack(
        "3i", connected.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, size)
    )
    return pid, uid


def _state(pid: int) -> str:
    """The state letter of a process as in proc(5); "" without a process."""
    try:
        return parse_stat(Path(f"/proc/{pid}/stat").read_text(errors="replace")).state
    except (OSError, ValueError):
        return ""


def _reason(error: OSError) -> str:
    match error:
        case FileNotFoundError():
            return "no such socket"
        case ConnectionRefusedError():
            return "nothing listens"
        case PermissionError():
            return "not allowed" if error.errno == errno.EACCES else str(error.strerror)
        case _:
            return error.strerror or str(error)
