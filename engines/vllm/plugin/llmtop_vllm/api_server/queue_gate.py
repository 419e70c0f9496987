"""The queue limit: refuses requests above it before they reach the engine.

This is ASGI middleware around vLLM's HTTP server. It answers 503 with Retry-After at once, for
streams too. The scheduler could refuse requests instead. But then a stream would end as an empty
success, and vLLM's own latency metrics would count the refusal.

The limit counts waiting requests and requests in transit to the queue, but not running ones. Free
slots of the batch are added to the limit, because the next step admits that many requests. The gate
refuses the newest request, whatever its priority, because it does not read request bodies.
"""

from __future__ import annotations

import contextvars
import json
import time
from collections.abc import Awaitable, Callable
from typing import Any

from llmtop_vllm.api_server import ttft_recorder
from llmtop_vllm.api_server.arrival_stamps import ARRIVED
from llmtop_vllm.api_server.ttft_recorder import TtftRecorder
from llmtop_vllm.queue_counters import (
    ADMITTED,
    RECEIVED,
    REFUSED,
    ROOM,
    UNFINISHED,
    WAITING,
    QueueCounters,
)

PATHS = (
    *("/v1/completions", "/v1/chat/completions", "/v1/responses", "/v1/messages", "/generate"),
    *("/v1/embeddings", "/pooling", "/classify", "/score", "/rerank"),
)
RETRY_AFTER_S = 1
REFRESH_S = 1.0  # interval between updates of the list of processes
LOST_AFTER_S = 1.0  # requests in transit are lost if nothing is unfinished for this long

Scope = dict[str, Any]
Receive = Callable[[], Awaitable[Any]]
Send = Callable[[Any], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]


class AdmittedRequest:
    """An admitted HTTP request. in_transit: the gate has counted it, the engine has not got it."""

    __slots__ = ("in_transit",)

    def __init__(self) -> None:
        self.in_transit = True


CURRENT: contextvars.ContextVar[AdmittedRequest | None] = contextvars.ContextVar(
    "llmtop_admitted", default=None
)


class QueueGate:
    """The gate of one front end. Runs on the front end's event loop.

    limit: requests that may wait on each rank, 0 for no limit; set from another thread. own: the
    counters of this front end. unfinished: returns how many requests this front end has in the
    engine. clock: monotonic seconds.
    """

    def __init__(
        self,
        counters: QueueCounters,
        own: memoryview,
        unfinished: Callable[[], int],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.limit = 0
        self._counters = counters
        self._own = own
        self._unfinished = unfinished
        self._clock = clock
        self._in_transit = 0
        self._refreshed_at: float | None = None
        self._ranks: list[memoryview] = []
        self._front_ends: list[memoryview] = []
        self._quiet_since: float | None = None

    @property
    def refused(self) -> int:
        """Requests that this front end has refused since its start."""
        return self._own[REFUSED]

    def enter(self) -> AdmittedRequest | None:
        """Admit a request. Returns None if it is refused."""
        if self.limit > 0 and not self.has_room():
            self._own[REFUSED] += 1
            return None
        self._in_transit += 1
        self._own[ADMITTED] += 1
        self._count_unfinished()
        return AdmittedRequest()

    def leave(self, admitted: AdmittedRequest) -> None:
        """The response to an admitted request is complete."""
        if admitted.in_transit:  # it did not reach the engine: it was invalid or its client left
            admitted.in_transit = False
            self._in_transit -= 1
            self._own[ADMITTED] -= 1
        self._count_unfinished()

    def submitted(self) -> None:
        """The front end sends a request to the engine.

        An HTTP request with several prompts or choices becomes several such requests.
        """
        admitted = CURRENT.get()
        if admitted is not None and admitted.in_transit:
            admitted.in_transit = False
            self._in_transit -= 1
        else:
            self._own[ADMITTED] += 1
        self._count_unfinished()

    def has_room(self) -> bool:
        """Whether the queue is shorter than the limit. True if the queue is unknown."""
        self._refresh()
        if not self._ranks:
            return True
        waiting = sum(one[WAITING] for one in self._ranks)
        room = sum(one[ROOM] for one in self._ranks)
        return waiting + self._requests_in_transit() < self.limit * len(self._ranks) + room

    def _requests_in_transit(self) -> int:
        admitted = sum(one[ADMITTED] for one in self._front_ends)
        received = sum(one[RECEIVED] for one in self._ranks)
        unfinished = sum(one[UNFINISHED] for one in self._front_ends)
        self._drop_lost(admitted - received, unfinished)
        return max(0, min(admitted - received, unfinished))

    def _drop_lost(self, in_transit: int, unfinished: int) -> None:
        """If no request is unfinished, those still in transit were lost: do not count them."""
        if unfinished or not in_transit:
            self._quiet_since = None
        elif self._quiet_since is None:
            self._quiet_since = self._clock()
        elif self._clock() - self._quiet_since >= LOST_AFTER_S:
            self._own[ADMITTED] -= in_transit
            self._quiet_since = None

    def _count_unfinished(self) -> None:
        self._own[UNFINISHED] = self._in_transit + self._unfinished()

    def _refresh(self) -> None:
        now = self._clock()
        if self._refreshed_at is None or now - self._refreshed_at >= REFRESH_S:
            self._refreshed_at = now
            self._ranks = self._counters.ranks()
            self._front_ends = self._counters.front_ends()


def gated(app: App, gate: QueueGate, ttft: TtftRecorder, guard: Callable[[Exception], None]) -> App:
    """The application behind the gate.

    ttft: measures the admitted requests. guard: called with an exception of the gate; the request
    then passes.
    """

    async def answer(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["method"] != "POST":
            return await app(scope, receive, send)
        if not scope["path"].endswith(PATHS):
            return await app(scope, receive, send)
        try:
            http_request = ttft.begin(scope.get(ARRIVED))
            admitted = gate.enter()
        except Exception as error:
            guard(error)
            return await app(scope, receive, send)
        if admitted is None:
            return await _refuse(send, gate.limit)
        admission_token = CURRENT.set(admitted)
        ttft_token = ttft_recorder.CURRENT.set(http_request)
        try:
            return await app(scope, receive, ttft.observed(http_request, send))
        finally:
            CURRENT.reset(admission_token)
            ttft_recorder.CURRENT.reset(ttft_token)
            ttft.end(http_request)
            gate.leave(admitted)

    return answer


async def _refuse(send: Send, limit: int) -> None:
    words = f"The queue is full: {limit} requests are waiting (max_queued_requests)."
    error = {"message": words, "type": "ServiceUnavailableError", "param": None, "code": 503}
    body = json.dumps({"error": error}).encode()
    headers = [
        (b"content-type", b"application/json"),
        (b"content-length", str(len(body)).encode()),
        (b"retry-after", str(RETRY_AFTER_S).encode()),
    ]
    await send({"type": "http.response.start", "status": 503, "headers": headers})
    await send({"type": "http.response.body", "body": body})
