"""The live-option client: asks a running engine what can be changed, and changes it.

Speaks docs/live-socket.md over a Unix socket, one connection a request: a request that waits for
the engine's next step then holds up nobody else's. Whatever comes back is hostile until proven
otherwise; it is bounded in time and in size, and every string in it is printable when it leaves.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import math
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol, TypeVar

from llmtop import LlmtopError
from llmtop.engines.options import Applies, Change, Outcome

PROTOCOL = 1
TIMEOUT_S = 2.0  # for an answer that waits for nothing; a set adds its wait_s
ANSWER_LIMIT = 256 * 1024  # four times what the protocol allows
TEXT_LIMIT = 500

Told = TypeVar("Told")
Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]


class Connect(Protocol):
    """Opens a connection to a socket path, as ``asyncio.open_unix_connection`` does."""

    def __call__(self, path: str, *, limit: int) -> Awaitable[Streams]:
        """The two ends; OSError when there is nobody."""


class LiveError(LlmtopError):
    """The live-option socket is gone, silent, or talks nonsense."""


@dataclass(frozen=True, slots=True)
class LiveOption:
    """One option as the engine tells it. note: what an operator should know of it, or ""."""

    value: int
    launch: int
    minimum: int
    maximum: int
    applies: Applies
    pending: int | None = None
    note: str = ""


@dataclass(frozen=True, slots=True)
class LiveState:
    """What one engine can change now, and what has been changed.

    running, waiting: requests, None when the engine could not count them. evicted_total: requests
    put back into the queue by changes. history: oldest first, whoever asked. disabled: why the
    engine's guard switched live options off, None while they are on.
    """

    engine: str
    version: str
    pid: int | None
    options: Mapping[str, LiveOption] = field(default_factory=dict)
    running: int | None = None
    waiting: int | None = None
    evicted_total: int = 0
    history: tuple[Change, ...] = ()
    disabled: str | None = None


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
        return _understood(_state, answer)

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
        return _understood(
            lambda told: _changes(told, tuple(changes), by, asked, took_s * 1e3), answer
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
        answer = _understood(_object, line)
        if answer.get("protocol") != PROTOCOL:
            raise _nonsense("another protocol version")
        if answer.get("ok") is not True:
            error_text = answer.get("error")
            told = _text(error_text) if isinstance(error_text, str) else "no reason given"
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
            raise _nonsense(f"a line longer than {ANSWER_LIMIT // 1024} KiB") from None
        finally:
            self._open.discard(writer)
            # abort: close would wait for a peer that does not read.
            writer.transport.abort()
            with contextlib.suppress(OSError):
                await writer.wait_closed()
        if not answer.endswith(b"\n"):
            raise ConnectionResetError("it hung up")
        return answer


def _nonsense(what: str) -> LiveError:
    return LiveError(
        f"the engine's live-option socket talks nonsense ({what})",
        "is something else listening there, or another version of llmtop's plugin?",
    )


def _understood(read: Callable[[Any], Told], asked: Any) -> Told:
    try:
        return read(asked)
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        raise _nonsense("an answer that is not in the protocol") from None


def _object(line: bytes) -> Mapping[str, Any]:
    found = json.loads(line)
    if not isinstance(found, dict):
        raise ValueError("not an object")
    return found


def _state(answer: Mapping[str, Any]) -> LiveState:
    disabled = answer.get("disabled")
    return LiveState(
        engine=_text(answer["engine"]),
        version=_text(answer["version"]),
        pid=_count_or_none(answer.get("pid")),
        options={_text(name): _option(told) for name, told in answer["options"].items()},
        running=_count_or_none(answer.get("running")),
        waiting=_count_or_none(answer.get("waiting")),
        evicted_total=_count(answer["evicted_total"]),
        history=tuple(_past(told) for told in answer["history"]),
        disabled=None if disabled is None else _text(disabled),
    )


def _option(told: Mapping[str, Any]) -> LiveOption:
    try:
        applies = Applies(told["applies"])
    except ValueError:  # newer words than ours
        applies = Applies.LIVE
    note = told.get("note")
    return LiveOption(
        value=_count(told["value"]),
        launch=_count(told["launch"]),
        minimum=_count(told["minimum"]),
        maximum=_count(told["maximum"]),
        applies=applies,
        pending=_count_or_none(told.get("pending")),
        note="" if note is None else _text(note),
    )


def _past(told: Mapping[str, Any]) -> Change:
    reason = told.get("reason")
    return Change(
        option=_text(told["option"]),
        before=_count_or_none(told["from"]),
        after=_count_or_none(told["to"]),
        outcome=Outcome(told["outcome"]),
        reason=None if reason is None else _text(reason),
        evicted=_count(told.get("evicted", 0)),
        by=_text(told["by"]),
        time=_moment(told["time"]),
    )


def _changes(
    answer: Mapping[str, Any], asked: tuple[str, ...], by: str, time: float, ack_ms: float
) -> tuple[Change, ...]:
    told = {item["option"]: item for item in answer["changes"]}
    # Eviction is max_num_seqs' doing. An engine that tells one number for the whole request has it
    # put there, or else with the first.
    evicting = "max_num_seqs" if "max_num_seqs" in asked else asked[0]
    total = _count(answer.get("evicted", 0))
    changes = []
    for option in asked:
        item = told[option]
        change = _past({**item, "by": by, "time": time})
        evicted = change.evicted if "evicted" in item else total if option == evicting else 0
        changes.append(
            Change(
                option,
                change.before,
                change.after,
                change.outcome,
                change.reason,
                ack_ms,
                evicted,
                change.by,
                change.time,
            )
        )
    return tuple(changes)


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise ValueError("not text")
    return "".join(
        c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in value[:TEXT_LIMIT]
    )


def _count(value: object) -> int:
    if not isinstance(value, int) or isinstance(value, bool):
        raise ValueError("not a whole number")
    return value


def _count_or_none(value: object) -> int | None:
    return None if value is None else _count(value)


def _moment(value: object) -> float:
    if not isinstance(value, int | float) or isinstance(value, bool) or not math.isfinite(value):
        raise ValueError("not a moment")
    return float(value)


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
