"""Times of each request (arrival, admission, first and last token), and the resulting latencies.

All times are on the engine core's monotonic clock. The front end stamps the arrival with the wall
clock; it is converted when the scheduler receives the request. Operations on a whole step use sets,
because a Python loop over hundreds of requests at each step would cost too much.
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
COMPLETE = ("STOP", "LENGTH", "REPETITION")  # finish reasons other than abort and error
MOST_KNOWN = 1 << 17  # external ids of requests that the scheduler has not received yet


class RequestClock:
    """One unfinished request.

    Times are monotonic seconds. ident: the client's id. cached: prompt tokens from the prefix
    cache. last: the time of its latest output before a step without one.
    """

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
    """The unfinished requests of one scheduler, and the latencies of all requests since its start.

    open: by vLLM's internal id. internal: internal ids by the client's id. clock: monotonic
    seconds. wall: unix seconds.
    """

    def __init__(
        self,
        clock: Callable[[], float] = time.monotonic,
        wall: Callable[[], float] = time.time,
    ) -> None:
        self.latencies = LatencyHistograms(NAMES, BASE)
        self.open: dict[str, RequestClock] = {}
        self.internal: dict[str, str] = {}
        self._clock = clock
        self._wall = wall
        self._external: dict[str, str] = {}
        self._before: frozenset[str] | set[str] = frozenset()  # with a token in the previous step
        self._before_at = 0.0

    # The thread that reads requests from the front ends.

    def received(self, request: Any) -> None:
        """The engine core has received a request from a front end."""
        self.latencies["arrival_lag"].add(max(0.0, self._wall() - request.arrival_time))
        external = getattr(request, "external_req_id", None)
        if external and external != request.request_id:
            if len(self._external) >= MOST_KNOWN:  # an invalid request never reaches the scheduler
                self._external.pop(next(iter(self._external)), None)
            self._external[request.request_id] = external

    # The engine's thread.

    def added(self, request: Any) -> None:
        """The scheduler has received a request."""
        ident = self._external.pop(request.request_id, request.request_id)
        if request.request_id in self.open:
            return  # another part of the input of an open request
        ago = max(0.0, self._wall() - request.arrival_time)
        self.open[request.request_id] = RequestClock(request, ident, self._clock() - ago)
        self.internal[ident] = request.request_id

    def admitted(self, new: Sequence[Any], begun: float) -> None:
        """A step has these requests for the first time. begun: when its ``schedule()`` began."""
        for request in new:
            clock = self.open.get(request.req_id)
            if clock is not None and clock.admitted is None:
                clock.admitted = begun
                clock.cached = request.num_computed_tokens
                self.latencies["queue"].add(max(0.0, begun - clock.arrival))

    def emitted(self, outputs: Sequence[Any], finished: Iterable[Any], now: float) -> None:
        """A step that ended at ``now`` has these outputs. finished: the last ones of a request."""
        with_token = {one.request_id for one in outputs}
        for output in finished:
            if not output.new_token_ids:
                with_token.discard(output.request_id)
        before = self._before
        not_before = with_token - before
        if in_both := len(with_token) - len(not_before):
            self.latencies["itl"].add(now - self._before_at, in_both)
        if in_both != len(before):
            for ident in before - with_token:
                if (clock := self.open.get(ident)) is not None:
                    clock.last = self._before_at
        for ident in not_before:
            self._first_or_resumed(ident, now)
        for output in finished:
            self._finish(output, now)
            with_token.discard(output.request_id)
        self._before, self._before_at = with_token, now

    def _first_or_resumed(self, ident: str, now: float) -> None:
        """A request has its first token, or a token again after a step without one."""
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
        """A request has ended, for any reason. Returns its times, None if it is unknown."""
        clock = self.open.pop(ident, None)
        if clock is not None and self.internal.get(clock.ident) == ident:
            del self.internal[clock.ident]
        return clock
