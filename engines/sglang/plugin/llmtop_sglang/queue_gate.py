"""Refuses requests in the HTTP process, before SGLang reads them, when the queue is full.

SGLang's own limit refuses in the scheduler: a stream is then a 200 with an error in it, and running
requests that were put back into the queue are cut. This gate answers 503 with Retry-After, stream
or not, and running requests never pass it.
"""

from __future__ import annotations

import contextvars
import json
import time
from collections import deque
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

from llmtop_sglang.queue_board import Queue

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[MutableMapping[str, Any], Receive, Send], Awaitable[None]]

# What makes the scheduler compute. The paths of SGLang 0.5.12 to 0.5.23.
GENERATING = (
    "/generate",
    "/v1/completions",
    "/v1/chat/completions",
    "/v1/responses",
    "/v1/messages",
    "/v1/embeddings",
    "/v1/rerank",
    "/v1/score",
    "/v1/classify",
    "/encode",
    "/classify",
    "/api/chat",
    "/api/generate",
    "/invocations",
    "/vertex_generate",
)
ANTHROPIC = "/v1/messages"
RETRY_AFTER_S = 1
MARGIN_S = 0.002  # a message may be that long under way to the scheduler
BODY_LIMIT = 1 << 20  # of a refused request, read before it is answered

CURRENT: contextvars.ContextVar[Ticket | None] = contextvars.ContextVar("llmtop", default=None)


class Ticket:
    """One request that was let in. sent: it is on its way to the scheduler, or will never be."""

    __slots__ = ("sent",)

    def __init__(self) -> None:
        self.sent = False


class Admission:
    """Whether one more request may come in. All of it runs on the server's event loop.

    queues: what each data-parallel rank shows. limit: requests that may wait on each rank, 0 for
    no limit; set from any thread.
    """

    def __init__(
        self,
        queues: Callable[[], list[Queue] | None],
        refused: Callable[[], None],
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        self.limit = 0
        self._queues = queues
        self._refused = refused
        self._clock = clock
        self._reading = 0  # let in, not yet sent to the scheduler
        self._sent: deque[float] = deque()  # sent, and perhaps not yet taken in by it

    def enter(self) -> Ticket | None:
        """A ticket, or None when the request is refused."""
        if self.limit and self._is_full():
            self._refused()
            return None
        self._reading += 1
        return Ticket()

    def send(self, ticket: Ticket) -> None:
        """A request, or one of several of this ticket, is now sent to the scheduler."""
        if not ticket.sent:
            ticket.sent = True
            self._reading -= 1
        if self.limit:
            self._sent.append(self._clock())

    def leave(self, ticket: Ticket) -> None:
        """The request is over, or never got to the scheduler."""
        if not ticket.sent:
            ticket.sent = True
            self._reading -= 1

    def _is_full(self) -> bool:
        queues = self._queues()
        if not queues:
            return False  # unknown, so no request is refused
        waiting = sum(queue.waiting for queue in queues)
        received = min(queue.received for queue in queues) - MARGIN_S
        while self._sent and self._sent[0] < received:
            self._sent.popleft()
        # Without a queue, requests on their way first fill the batch.
        room = 0 if waiting else sum(max(q.limit - q.running, 0) for q in queues)
        under_way = self._reading + len(self._sent) + 1
        return waiting + max(under_way - room, 0) > self.limit * len(queues)


class QueueGate:
    """Around SGLang's application. fail: the guard, for a failure in here.

    timed: called with a request's (first, last) seconds since it came, None for what there was not.
    """

    def __init__(
        self,
        app: App,
        admission: Admission,
        fail: Callable[[Exception, str], None],
        timed: Callable[[float | None, float], None],
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        self.active = True
        self._app = app
        self._admission = admission
        self._fail = fail
        self._timed = timed
        self._clock = clock

    async def __call__(self, scope: MutableMapping[str, Any], receive: Receive, send: Send) -> None:
        """One ASGI scope."""
        if not self.active or not _generates(scope):
            await self._app(scope, receive, send)
            return
        ticket: Ticket | None = None
        refused = False
        try:
            ticket = self._admission.enter()
            refused = ticket is None
        except Exception as error:
            self._fail(error, "the queue gate")
        if refused:
            await _refuse(scope, receive, send)
            return
        if ticket is None:
            await self._app(scope, receive, send)
            return
        token = CURRENT.set(ticket)
        try:
            await self._app(scope, receive, self._watched(send))
        finally:
            CURRENT.reset(token)
            self._admission.leave(ticket)

    def _watched(self, send: Send) -> Send:
        """``send``, with the times of the first and the last bytes of an answer."""
        begun, clock = self._clock(), self._clock
        streams = fine = False
        first: float | None = None

        async def watched(message: Message) -> None:
            nonlocal streams, fine, first
            kind = message["type"]
            if kind == "http.response.start":
                fine = message["status"] == 200
                streams = fine and _is_event_stream(message.get("headers") or ())
            await send(message)
            if not fine or kind != "http.response.body" or not self.active:
                return
            if streams and first is None and message.get("body"):
                if b'"error"' in message["body"][:64]:
                    fine = False  # refused or failed in there
                    return
                first = clock() - begun
            if not message.get("more_body", False):
                try:
                    self._timed(first, clock() - begun)
                except Exception as error:
                    self._fail(error, "the times of an answer")

        return watched


def _generates(scope: MutableMapping[str, Any]) -> bool:
    if scope["type"] != "http" or scope.get("method") not in ("POST", "PUT"):
        return False
    path: str = scope["path"].removeprefix(scope.get("root_path") or "")
    return path.rstrip("/") in GENERATING


def _is_event_stream(headers: Any) -> bool:
    return any(
        bytes(name).lower() == b"content-type" and b"event-stream" in bytes(value)
        for name, value in headers
    )


async def _refuse(scope: MutableMapping[str, Any], receive: Receive, send: Send) -> None:
    """503, in the shape that SGLang gives to its own refusals at this path."""
    size = 0
    while size < BODY_LIMIT:
        message = await receive()
        size += len(message.get("body") or b"")
        if message["type"] != "http.request" or not message.get("more_body", False):
            break
    words = "The request queue is full."
    body: dict[str, Any] = {
        "object": "error",
        "message": words,
        "type": "503",
        "param": None,
        "code": 503,
    }
    if scope["path"].rstrip("/").endswith(ANTHROPIC):
        body = {"type": "error", "error": {"type": "overloaded_error", "message": words}}
    content = json.dumps(body).encode()
    headers = [
        (b"content-type", b"application/json"),
        (b"content-length", str(len(content)).encode()),
        (b"retry-after", str(RETRY_AFTER_S).encode()),
    ]
    await send({"type": "http.response.start", "status": 503, "headers": headers})
    await send({"type": "http.response.body", "body": content})
