"""When each request arrived, was admitted, got its first and its last token; latencies of these.

All on the engine core's monotonic clock. The arrival is stamped with the wall clock by the front
end, and is moved to this clock when the request comes in. An operation on a whole step is done on
sets, because a loop over hundreds of requests at each step would cost too much.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from llmtop_live.latency_histogram import LatencyHistograms

NAMES = ("ttft", "queue", "prefill", "tpot", "e2e", "itl", "arrival_lag")
BASE = {
    "ttft": "arrival at the server",
    "queue": "arrival at the server, until the first step that has the request",
    "prefill": "start of the first step that has the request",
    "tpot": "first token",
    "e2e": "arrival at the server",
    "itl": "output before",
    "arrival_lag": "arrival at the server, until the engine core has the request",
}
COMPLETE = ("STOP", "LENGTH", "REPETITION")  # not those that were aborted or failed
MOST_KNOWN = 1 << 17  # names of requests on their way into the scheduler


class RequestClock:
    """One unfinished request. Times are monotonic seconds. ident: as the client knows it."""

    __slots__ = ("admitted", "arrival", "cached", "first", "ident", "last", "request")

    def __init__(self, request: Any, ident: str, arrival: float) -> None:
        self.request = request
        self.ident = ident
        self.arrival = arrival
        self.admitted: float | None = None
        self.cached: int | None = None
        self.first: float | None = None
        self.last = 0.0


class RequestClocks:
    """The unfinished requests of one scheduler, and the latencies of all so far."""

    def __init__(
        self,
        clock: Callable[[], float] = time.monotonic,
        wall: Callable[[], float] = time.time,
    ) -> None:
        self.latencies = LatencyHistograms(NAMES, BASE)
        self.open: dict[str, RequestClock] = {}
        self.internal: dict[str, str] = {}  # by the id that the client knows
        self._clock = clock
        self._wall = wall
        self._coming: dict[str, str] = {}
        self._before: frozenset[str] | set[str] = frozenset()  # got a token in the step before
        self._before_at = 0.0

    # The thread that reads requests from the front ends.

    def received(self, request: Any) -> None:
        """A request reached the engine core."""
        self.latencies["arrival_lag"].add(max(0.0, self._wall() - request.arrival_time))
        external = getattr(request, "external_req_id", None)
        if external and external != request.request_id:
            if len(self._coming) >= MOST_KNOWN:  # what could not be read never comes further
                self._coming.pop(next(iter(self._coming)), None)
            self._coming[request.request_id] = external

    # The engine's thread.

    def added(self, request: Any) -> None:
        """The scheduler has it."""
        ident = self._coming.pop(request.request_id, request.request_id)
        if request.request_id in self.open:
            return  # another part of the input of a request that is open
        ago = max(0.0, self._wall() - request.arrival_time)
        self.open[request.request_id] = RequestClock(request, ident, self._clock() - ago)
        self.internal[ident] = request.request_id

    def admitted(self, new: Sequence[Any], begun: float) -> None:
        """These are in a step for the first time, which began to be planned at ``begun``."""
        for request in new:
            clock = self.open.get(request.req_id)
            if clock is not None and clock.admitted is None:
                clock.admitted = begun
                clock.cached = request.num_computed_tokens
                self.latencies["queue"].add(max(0.0, begun - clock.arrival))

    def emitted(self, outputs: Sequence[Any], finished: Iterable[Any], now: float) -> None:
        """A step brought these outputs, at ``now``. finished: those of them that are the last."""
        got = {one.request_id for one in outputs}
        for output in finished:
            if not output.new_token_ids:
                got.discard(output.request_id)
        before = self._before
        came = got - before
        if again := len(got) - len(came):
            self.latencies["itl"].add(now - self._before_at, again)
        if again != len(before):
            for ident in before - got:
                if (clock := self.open.get(ident)) is not None:
                    clock.last = self._before_at
        for ident in came:
            self._came_back(ident, now)
        for output in finished:
            self._finish(output, now)
            got.discard(output.request_id)
        self._before, self._before_at = got, now

    def _came_back(self, ident: str, now: float) -> None:
        clock = self.open.get(ident)
        if clock is None:
            return
        if clock.first is not None:
            self.latencies["itl"].add(now - clock.last)
            return
        clock.first = now
        self.latencies["ttft"].add(max(0.0, now - clock.arrival))
        if clock.admitted is not None:
            self.latencies["prefill"].add(now - clock.admitted)

    def _finish(self, output: Any, now: float) -> None:
        clock = self.removed(output.request_id)
        if clock is None or getattr(output.finish_reason, "name", "") not in COMPLETE:
            return
        self.latencies["e2e"].add(max(0.0, now - clock.arrival))
        tokens = clock.request.num_output_tokens
        if clock.first is not None and tokens > 1:
            self.latencies["tpot"].add((now - clock.first) / (tokens - 1))

    def removed(self, ident: str) -> RequestClock | None:
        """It has ended, however."""
        clock = self.open.pop(ident, None)
        if clock is not None and self.internal.get(clock.ident) == ident:
            del self.internal[clock.ident]
        return clock
