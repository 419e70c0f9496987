"""The queue limit: requests above it are refused before they reach the engine.

An ASGI gate around vLLM's HTTP server. It answers 503 with Retry-After at once, also to requests
that stream. Refused from inside the scheduler instead, a stream would end as an empty success, and
vLLM's own latency metrics would count the refusal.

What counts is the queue and what is on its way to it, not what runs. Free slots of the batch are
room besides: what the next step admits need not wait. The last to come is refused, whatever its
priority; the gate does not read what is asked for.
"""

from __future__ import annotations

import contextvars
import json
import time
from collections.abc import Awaitable, Callable
from typing import Any

from llmtop_vllm.answer_times import VISIT, AnswerTimes
from llmtop_vllm.queue_counters import (
    LET_IN,
    RECEIVED,
    REFUSED,
    ROOM,
    UNFINISHED,
    WAITING,
    QueueCounters,
)
from llmtop_vllm.server_door import CAME

PATHS = (
    *("/v1/completions", "/v1/chat/completions", "/v1/responses", "/v1/messages", "/generate"),
    *("/v1/embeddings", "/pooling", "/classify", "/score", "/rerank"),
)
RETRY_AFTER_S = 1
LOOK_S = 1.0  # so long the list of processes is taken as it is
SETTLED_S = 1.0

Scope = dict[str, Any]
Receive = Callable[[], Awaitable[Any]]
Send = Callable[[Any], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]


class Claim:
    """A request that was let in: counted, and on its way to the engine."""

    __slots__ = ("on_its_way",)

    def __init__(self) -> None:
        self.on_its_way = True


CLAIM: contextvars.ContextVar[Claim | None] = contextvars.ContextVar("llmtop_claim", default=None)


class QueueGate:
    """The gate of one front end. limit: requests that may wait on each rank; 0 is no limit.
    unfinished: how many requests this front end has in the engine. All of it runs on the front
    end's event loop, but ``limit`` is set from another thread."""

    def __init__(
        self,
        counters: QueueCounters,
        mine: memoryview,
        unfinished: Callable[[], int],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.limit = 0
        self._counters = counters
        self._mine = mine
        self._unfinished = unfinished
        self._clock = clock
        self._on_its_way = 0
        self._looked: float | None = None
        self._ranks: list[memoryview] = []
        self._front_ends: list[memoryview] = []
        self._quiet_since: float | None = None

    @property
    def refused(self) -> int:
        """Requests that this front end refused so far."""
        return self._mine[REFUSED]

    def enter(self) -> Claim | None:
        """Let a request in, or refuse it."""
        if self.limit > 0 and not self.has_room():
            self._mine[REFUSED] += 1
            return None
        self._on_its_way += 1
        self._mine[LET_IN] += 1
        self._count()
        return Claim()

    def leave(self, claim: Claim) -> None:
        """Its answer is complete."""
        if claim.on_its_way:  # it never reached the engine: a wrong request, or a lost client
            claim.on_its_way = False
            self._on_its_way -= 1
            self._mine[LET_IN] -= 1
        self._count()

    def submitted(self) -> None:
        """A request goes to the engine: the one that was let in, or one more of the same."""
        claim = CLAIM.get()
        if claim is not None and claim.on_its_way:
            claim.on_its_way = False
            self._on_its_way -= 1
        else:
            self._mine[LET_IN] += 1
        self._count()

    def has_room(self) -> bool:
        """Whether the queue is shorter than the limit. True if the queue is unknown."""
        self._look()
        if not self._ranks:
            return True
        waiting = sum(one[WAITING] for one in self._ranks)
        room = sum(one[ROOM] for one in self._ranks)
        return waiting + self._coming() < self.limit * len(self._ranks) + room

    def _coming(self) -> int:
        let_in = sum(one[LET_IN] for one in self._front_ends)
        received = sum(one[RECEIVED] for one in self._ranks)
        unfinished = sum(one[UNFINISHED] for one in self._front_ends)
        self._settle(let_in - received, unfinished)
        return max(0, min(let_in - received, unfinished))

    def _settle(self, coming: int, unfinished: int) -> None:
        """What is still on its way when nothing is unfinished was lost: count without it."""
        if unfinished or not coming:
            self._quiet_since = None
        elif self._quiet_since is None:
            self._quiet_since = self._clock()
        elif self._clock() - self._quiet_since >= SETTLED_S:
            self._mine[LET_IN] -= coming
            self._quiet_since = None

    def _count(self) -> None:
        self._mine[UNFINISHED] = self._on_its_way + self._unfinished()

    def _look(self) -> None:
        now = self._clock()
        if self._looked is None or now - self._looked >= LOOK_S:
            self._looked = now
            self._ranks = self._counters.ranks()
            self._front_ends = self._counters.front_ends()


def gated(app: App, gate: QueueGate, times: AnswerTimes, guard: Callable[[Exception], None]) -> App:
    """The application behind the gate. times: measures who is let in. guard: takes an exception of
    the gate, which then is open."""

    async def answer(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["method"] != "POST":
            return await app(scope, receive, send)
        if not scope["path"].endswith(PATHS):
            return await app(scope, receive, send)
        try:
            visit = times.begin(scope.get(CAME))
            claim = gate.enter()
        except Exception as error:
            guard(error)
            return await app(scope, receive, send)
        if claim is None:
            return await _refuse(send, gate.limit)
        token, mine = CLAIM.set(claim), VISIT.set(visit)
        try:
            return await app(scope, receive, times.watched(visit, send))
        finally:
            CLAIM.reset(token)
            VISIT.reset(mine)
            times.end(visit)
            gate.leave(claim)

    return answer


async def _refuse(send: Send, limit: int) -> None:
    words = f"The queue is full: {limit} requests wait already (max_queued_requests)."
    error = {"message": words, "type": "ServiceUnavailableError", "param": None, "code": 503}
    body = json.dumps({"error": error}).encode()
    headers = [
        (b"content-type", b"application/json"),
        (b"content-length", str(len(body)).encode()),
        (b"retry-after", str(RETRY_AFTER_S).encode()),
    ]
    await send({"type": "http.response.start", "status": 503, "headers": headers})
    await send({"type": "http.response.body", "body": body})
