"""TTFT of one front end's requests: from the server's door to the first bytes of the answer.

vLLM stamps an arrival only when it has read and checked a request. The engine core does not know
what happens behind its step. On a slow core that was 5 to 11 % of the TTFT of a single stream.
``server_door`` tells when the server had the request.
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


class Visit:
    """One HTTP request. came: when, on the monotonic clock. made: when its first token was here.
    direct: its bytes are not observed."""

    __slots__ = ("came", "direct", "idents", "made", "streams", "told")

    def __init__(self, came: float, *, direct: bool = False) -> None:
        self.came = came
        self.direct = direct
        self.idents: list[str] = []  # vLLM has a request for each prompt and each choice
        self.made: float | None = None
        self.streams = False
        self.told = False


VISIT: contextvars.ContextVar[Visit | None] = contextvars.ContextVar("llmtop_visit", default=None)


class AnswerTimes:
    """Fills ``ttft``. guarded: calls its first argument under the guard, if it is still on; the
    second one says where that is. flushed: calls its argument when what was sent so far has left
    the process. All of it runs on the front end's event loop."""

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
        self._awaited: dict[str, Visit] = {}  # by vLLM's own name, until the first token

    def begin(self, came: float | None = None) -> Visit:
        """A request is at the door. came: when the server had it, if that is known."""
        return Visit(self._clock() if came is None else came)

    def submitted(self, request: Any) -> None:
        """A request goes to the engine."""
        visit = VISIT.get()
        if visit is None:  # by a path that is not watched
            ago = max(0.0, self._wall() - request.arrival_time)
            visit = Visit(self._clock() - ago, direct=True)
        visit.idents.append(request.request_id)
        self._awaited[request.request_id] = visit

    def arrived(self, outputs: Sequence[Any]) -> None:
        """Outputs of a step are here."""
        awaited = self._awaited
        if not awaited:
            return
        now = self._clock()
        here = awaited.keys() & {one.request_id for one in outputs}
        for output in outputs if here else ():
            if output.request_id not in here:
                continue
            visit = awaited.pop(output.request_id, None)
            if visit is None or visit.made is not None or not output.new_token_ids:
                continue
            visit.made = now
            if visit.direct:
                self._tell(visit, now)

    def watched(self, visit: Visit, send: Send) -> Send:
        """``send``, until the first bytes with a token are out."""

        def watch(message: Any) -> Awaitable[None]:
            return send(message) if visit.told else self._send(visit, send, message)

        return watch

    async def _send(self, visit: Visit, send: Send, message: Any) -> None:
        await send(message)
        self._guarded(lambda: self._sent(visit, message), "the times of an answer")

    def _sent(self, visit: Visit, message: Any) -> None:
        if message["type"] != BODY:
            visit.streams = _is_event_stream(message.get("headers") or ())
        elif visit.made is None or not message.get("body"):
            return
        elif visit.streams:
            visit.told = True
            self._flushed(lambda: self._guarded(lambda: self._add(visit), "the end of a write"))
        elif not message.get("more_body", False):
            self._tell(visit, visit.made)  # an answer in one piece has no observable first token

    def _add(self, visit: Visit) -> None:
        self._ttft.add(self._clock() - visit.came)

    def _tell(self, visit: Visit, at: float) -> None:
        if not visit.told:
            visit.told = True
            self._ttft.add(at - visit.came)

    def end(self, visit: Visit) -> None:
        """The answer is over, or its client is gone."""
        for ident in visit.idents:
            self._awaited.pop(ident, None)


def flushed_by_uvloop(work: Callable[[], None]) -> None:
    """Run it when this turn of the event loop is over, where uvloop runs: it writes only then.

    asyncio's own loop writes at once. Then the work is done at once.
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
