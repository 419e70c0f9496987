"""TTFT at one front end: from the arrival of the HTTP request to the first bytes of the response.

vLLM stamps an arrival only after it has read and checked the request, and the engine core does not
see what happens after its step. Both gaps together were 5 to 11 % of the TTFT of a single stream on
a slow core. ``arrival_stamps`` provides the time of the arrival.
"""

from __future__ import annotations

import asyncio
import contextvars
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from llmtop_live.latency_histogram import LatencyHistogram

Send = Callable[[Any], Awaitable[None]]
BODY = "http.response.body"


class HttpRequest:
    """One HTTP request. Times are monotonic seconds.

    arrived: when the request arrived. first_token: when the front end received its first token,
    None before. unobserved: llmtop does not see the bytes of its response.
    """

    __slots__ = ("arrived", "engine_ids", "first_token", "recorded", "streams", "unobserved")

    def __init__(self, arrived: float, *, unobserved: bool = False) -> None:
        self.arrived = arrived
        self.unobserved = unobserved
        self.engine_ids: list[str] = []  # vLLM creates a request for each prompt and each choice
        self.first_token: float | None = None
        self.streams = False
        self.recorded = False


CURRENT: contextvars.ContextVar[HttpRequest | None] = contextvars.ContextVar(
    "llmtop_http_request", default=None
)


class TtftRecorder:
    """Adds the TTFT of each request to ``ttft``. Runs on the front end's event loop.

    guarded: calls its first argument under the guard, unless the guard has switched llmtop off. Its
    second argument names the place for the error message. clock: monotonic seconds. wall: unix
    seconds. flushed: calls its argument when the bytes sent so far have left the process.
    """

    def __init__(
        self,
        ttft: LatencyHistogram,
        guarded: Callable[[Callable[[], None], str], None],
        clock: Callable[[], float] = time.monotonic,
        wall: Callable[[], float] = time.time,
        flushed: Callable[[Callable[[], None]], None] = lambda work: work(),
    ) -> None:
        self._flushed = flushed
        self._ttft = ttft
        self._guarded = guarded
        self._clock = clock
        self._wall = wall
        self._without_token: dict[str, HttpRequest] = {}  # by vLLM's internal id

    def begin(self, arrived: float | None = None) -> HttpRequest:
        """The application begins with a request. arrived: when it arrived, None if unknown."""
        return HttpRequest(self._clock() if arrived is None else arrived)

    def submitted(self, request: Any) -> None:
        """The front end sends a request to the engine core."""
        http_request = CURRENT.get()
        if http_request is None:  # it came by a path that the gate does not observe
            ago = max(0.0, self._wall() - request.arrival_time)
            http_request = HttpRequest(self._clock() - ago, unobserved=True)
        http_request.engine_ids.append(request.request_id)
        self._without_token[request.request_id] = http_request

    def outputs_received(self, outputs: Sequence[Any]) -> None:
        """The front end has received the outputs of a step."""
        pending = self._without_token
        if not pending:
            return
        now = self._clock()
        matching = pending.keys() & {one.request_id for one in outputs}
        for output in outputs if matching else ():
            if output.request_id not in matching:
                continue
            http_request = pending.pop(output.request_id, None)
            if http_request is None or http_request.first_token is not None:
                continue
            if not output.new_token_ids:
                continue
            http_request.first_token = now
            if http_request.unobserved:
                self._record(http_request, now)

    def observed(self, http_request: HttpRequest, send: Send) -> Send:
        """``send``, observed until the first bytes with a token are sent."""

        def observing(message: Any) -> Awaitable[None]:
            if http_request.recorded:
                return send(message)
            return self._send(http_request, send, message)

        return observing

    async def _send(self, http_request: HttpRequest, send: Send, message: Any) -> None:
        await send(message)
        self._guarded(lambda: self._sent(http_request, message), "measuring a response")

    def _sent(self, http_request: HttpRequest, message: Any) -> None:
        if message["type"] != BODY:
            http_request.streams = _is_event_stream(message.get("headers") or ())
        elif http_request.first_token is None or not message.get("body"):
            return
        elif http_request.streams:
            http_request.recorded = True
            self._flushed(lambda: self._guarded(lambda: self._add(http_request), "after a write"))
        elif not message.get("more_body", False):
            # The bytes of a response that is not streamed do not show its first token.
            self._record(http_request, http_request.first_token)

    def _add(self, http_request: HttpRequest) -> None:
        self._ttft.add(self._clock() - http_request.arrived)

    def _record(self, http_request: HttpRequest, at: float) -> None:
        if not http_request.recorded:
            http_request.recorded = True
            self._ttft.add(at - http_request.arrived)

    def end(self, http_request: HttpRequest) -> None:
        """The response is complete, or its client has disconnected."""
        for engine_id in http_request.engine_ids:
            self._without_token.pop(engine_id, None)


def flushed_by_uvloop(work: Callable[[], None]) -> None:
    """Call ``work`` when the bytes sent so far have left the process.

    uvloop writes at the end of the current iteration of its event loop. asyncio's own loop writes
    at once.
    """
    loop = asyncio.get_running_loop()
    if type(loop).__module__.partition(".")[0] == "uvloop":
        loop.call_soon(work)
    else:
        work()


def _is_event_stream(headers: Any) -> bool:
    return any(
        bytes(name).lower() == b"content-type" and b"event-stream" in bytes(value)
        for name, value in headers
    )
