"""Refuses requests in the HTTP process, before SGLang reads them, if the queue is full.

SGLang's own limit refuses requests in the scheduler. Then a stream has status 200 and contains an
error, and retracted requests can be refused too. This gate answers 503 with Retry-After, for
streams too. Retracted requests do not pass it again.
"""

from __future__ import annotations

import contextvars
import json
import time
from collections import deque
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

from llmtop_sglang.shared_queue import QueueState

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[MutableMapping[str, Any], Receive, Send], Awaitable[None]]

# Paths of requests for the scheduler, in SGLang 0.5.12 to 0.5.23.
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
MARGIN_S = 0.002  # maximum time of a message between the HTTP process and the scheduler
BODY_LIMIT = 1 << 20  # bytes of a refused request that are read before the answer

CURRENT: contextvars.ContextVar[AdmittedRequest | None] = contextvars.ContextVar(
    "llmtop", default=None
)


class AdmittedRequest:
    """One admitted request. sent: it was sent to the scheduler, or ended before that."""

    __slots__ = ("sent",)

    def __init__(self) -> None:
        self.sent = False


class Admission:
    """Decides whether one more request is admitted. Runs on the server's event loop.

    queues: returns the queue of each data-parallel rank. refused: called for each refused request.
    clock: perf_counter seconds. limit: requests that may wait on each rank, 0 for no limit; set
    from any thread.
    """

    def __init__(
        self,
        queues: Callable[[], list[QueueState] | None],
        refused: Callable[[], None],
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        self.limit = 0
        self._queues = queues
        self._refused = refused
        self._clock = clock
        self._not_sent = 0  # admitted, but not yet sent to the scheduler
        self._sent: deque[float] = deque()  # times of requests that it may not have received yet

    def enter(self) -> AdmittedRequest | None:
        """Admit a request. Returns None if it is refused."""
        if self.limit and self._is_full():
            self._refused()
            return None
        self._not_sent += 1
        return AdmittedRequest()

    def send(self, admitted: AdmittedRequest) -> None:
        """The server sends a request to the scheduler; an HTTP request can become several."""
        if not admitted.sent:
            admitted.sent = True
            self._not_sent -= 1
        if self.limit:
            self._sent.append(self._clock())

    def leave(self, admitted: AdmittedRequest) -> None:
        """The HTTP request has ended."""
        if not admitted.sent:
            admitted.sent = True
            self._not_sent -= 1

    def _is_full(self) -> bool:
        queues = self._queues()
        if not queues:
            return False  # unknown, so no request is refused
        waiting = sum(queue.waiting for queue in queues)
        received = min(queue.received for queue in queues) - MARGIN_S
        while self._sent and self._sent[0] < received:
            self._sent.popleft()
        # Without a queue, requests in transit first fill the free slots of the batch.
        room = 0 if waiting else sum(max(q.limit - q.running, 0) for q in queues)
        in_transit = self._not_sent + len(self._sent) + 1
        return waiting + max(in_transit - room, 0) > self.limit * len(queues)


class QueueGate:
    """ASGI middleware around SGLang's application.

    fail: the guard, called with an exception of the gate and its place. timed: called with the
    seconds from the arrival of a request to the first and to the last bytes of its response; the
    first is None if the response is not streamed.
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
        """Handle one ASGI scope."""
        if not self.active or not _generates(scope):
            await self._app(scope, receive, send)
            return
        admitted: AdmittedRequest | None = None
        refused = False
        try:
            admitted = self._admission.enter()
            refused = admitted is None
        except Exception as error:
            self._fail(error, "the queue gate")
        if refused:
            await _refuse(scope, receive, send)
            return
        if admitted is None:
            await self._app(scope, receive, send)
            return
        token = CURRENT.set(admitted)
        try:
            await self._app(scope, receive, self._observed(send))
        finally:
            CURRENT.reset(token)
            self._admission.leave(admitted)

    def _observed(self, send: Send) -> Send:
        """``send``, which also measures when the first and the last bytes are sent."""
        begun, clock = self._clock(), self._clock
        streams = succeeded = False
        first: float | None = None

        async def observing(message: Message) -> None:
            nonlocal streams, succeeded, first
            kind = message["type"]
            if kind == "http.response.start":
                succeeded = message["status"] == 200
                streams = succeeded and _is_event_stream(message.get("headers") or ())
            await send(message)
            if not succeeded or kind != "http.response.body" or not self.active:
                return
            if streams and first is None and message.get("body"):
                if b'"error"' in message["body"][:64]:
                    succeeded = False  # the scheduler refused or failed the request
                    return
                first = clock() - begun
            if not message.get("more_body", False):
                try:
                    self._timed(first, clock() - begun)
                except Exception as error:
                    self._fail(error, "measuring a response")

        return observing


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
    """Answer 503 with the body that SGLang itself uses for a refusal at this path."""
    size = 0
    while size < BODY_LIMIT:
        message = await receive()
        size += len(message.get("body") or b"")
        if message["type"] != "http.request" or not message.get("more_body", False):
            break
    text = "The request queue is full."
    body: dict[str, Any] = {
        "object": "error",
        "message": text,
        "type": "503",
        "param": None,
        "code": 503,
    }
    if scope["path"].rstrip("/").endswith(ANTHROPIC):
        body = {"type": "error", "error": {"type": "overloaded_error", "message": text}}
    content = json.dumps(body).encode()
    headers = [
        (b"content-type", b"application/json"),
        (b"content-length", str(len(content)).encode()),
        (b"retry-after", str(RETRY_AFTER_S).encode()),
    ]
    await send({"type": "http.response.start", "status": 503, "headers": headers})
    await send({"type": "http.response.body", "body": content})
