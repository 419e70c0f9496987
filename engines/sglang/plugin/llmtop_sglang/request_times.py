"""Latencies of requests, from SGLang's own timestamps, which are read once for each request.

The scheduler timestamps each request with ``perf_counter`` (``req.time_stats``). Only the HTTP
process knows when a request arrived there; ``propagate_arrival`` sends this time with the request.
"""

from __future__ import annotations

import sys
import time
from collections import deque
from collections.abc import Callable
from typing import Any

from llmtop_live.latency_histogram import LatencyHistograms

STAMPS = "sglang.srt.observability.req_time_stats"
ARRIVED = "llmtop_arrived"  # not "..._time": SGLang converts such attributes between clocks
NAMES = ("ttft", "queue", "prefill", "tpot", "e2e", "itl", "arrival_lag")
SERVER = "arrival at the server"
SCHEDULER = "arrival at the scheduler"
ABORTED = "abort"
PROBE = "HEALTH_CHECK"  # prefix of the ids of SGLang's own health checks
JOINED_KEPT = 1024
NO_ARRIVAL = "requests do not contain the time of their arrival at the server"


def propagate_arrival() -> Callable[[], None] | None:
    """Make each request carry the time of its arrival into the scheduler.

    Returns a function that undoes it; None if SGLang's timestamps were not found. Call it in the
    HTTP process, in the data-parallel controller and in each scheduler. perf_counter is the same
    clock in all processes of a host.
    """
    module = sys.modules.get(STAMPS)
    senders = [
        getattr(module, name, None)
        for name in ("APIServerReqTimeStats", "DPControllerReqTimeStats")
    ]
    receiver = getattr(module, "SchedulerReqTimeStats", None)
    if receiver is None or any(getattr(cls, "__getstate__", None) is None for cls in senders):
        return None
    undo: list[Callable[[], None]] = []
    # new_from_obj copies only attributes that the new object already has.
    for cls in (receiver, senders[1]):
        if not hasattr(cls, ARRIVED):
            setattr(cls, ARRIVED, 0.0)
    for cls in senders:
        assert cls is not None
        undo.append(_propagate_in(cls))

    def undo_all() -> None:
        for one in undo:
            one()

    return undo_all


def _propagate_in(cls: Any) -> Callable[[], None]:
    pack = cls.__dict__.get("__getstate__")
    if pack is None or hasattr(pack, ARRIVED):
        return lambda: None

    def getstate(self: Any) -> Any:
        state = pack(self)
        if isinstance(state, dict):
            state[ARRIVED] = getattr(self, ARRIVED, 0.0) or getattr(self, "created_time", 0.0)
        return state

    setattr(getstate, ARRIVED, True)
    cls.__getstate__ = getstate

    def undo() -> None:
        if cls.__getstate__ is getstate:
            cls.__getstate__ = pack

    return undo


def arrived(request: Any) -> float:
    """The arrival at the server, else at the scheduler, in perf_counter seconds; 0.0 if unknown."""
    stamps = request.time_stats
    return getattr(stamps, ARRIVED, 0.0) or getattr(stamps, "scheduler_recv_time", 0.0)


class RequestTimes:
    """The latencies of one scheduler's requests. Runs on its thread; any thread reads histograms.

    ttft is recorded at the first token; e2e and tpot at the end of the request. Aborted requests
    are excluded. itl is the time between two tokens of a request, as they leave the scheduler. It
    is the same for all requests of a decode step, except for those that joined after the previous
    one. clock: perf_counter seconds. seen: see ``Introspection.seen``.
    """

    def __init__(
        self,
        clock: Callable[[], float] = time.perf_counter,
        seen: Callable[[str, bool, str], None] = lambda *_: None,
    ) -> None:
        self._seen = seen
        self.histograms = LatencyHistograms(NAMES, {"ttft": SCHEDULER, "e2e": SCHEDULER})
        self._clock = clock
        self._ended: list[Any] = []
        self._decoded: float | None = None
        # (time, number) of the requests that got their first token since the last decode step.
        self._joined: deque[tuple[float, int]] = deque(maxlen=JOINED_KEPT)

    def released(self, request: Any) -> None:
        """A request releases its KV cache: it has ended or was retracted.

        SGLang sets its last timestamp later, so its latencies are recorded in ``processed``.
        """
        if request.finished_reason is not None:
            self._ended.append(request)

    def processed(self, batch: Any, begun: float, live: int) -> None:
        """The scheduler has processed the result of a batch.

        begun: when the processing began. live: rows that got a token.
        """
        if batch.forward_mode.is_extend():
            if batch.forward_mode.is_mixed():
                self._gaps(min(live, len(batch.decoding_reqs or ())))
            self._first_tokens(batch, begun)
        else:
            self._gaps(live)
        ended, self._ended = self._ended, []
        for request in ended:
            self._end(request)

    def _first_tokens(self, batch: Any, begun: float) -> None:
        found = self.histograms
        new = 0
        for request in batch.reqs:
            stamps = request.time_stats
            first = stamps.prefill_finished_time
            if first < begun:  # its first token comes later, or came in an earlier batch
                continue
            new += 1
            if _is_excluded(request):
                continue
            received, entry = stamps.scheduler_recv_time, stamps.forward_entry_time
            at_server = getattr(stamps, ARRIVED, 0.0)
            self._seen("arrival_lag", bool(at_server), NO_ARRIVAL)
            if at_server:
                found.base["ttft"] = found.base["e2e"] = SERVER
                found["arrival_lag"].add(received - at_server)
            found["ttft"].add(first - (at_server or received))
            found["prefill"].add(first - entry)
            if stamps.wait_queue_entry_time <= entry:  # a retraction sets a new queue entry time
                found["queue"].add(entry - stamps.wait_queue_entry_time)
        if new:
            self._joined.append((self._clock(), new))

    def _gaps(self, live: int) -> None:
        now, before = self._clock(), self._decoded
        itl = self.histograms["itl"]
        while self._joined and live > 0:
            when, count = self._joined.pop()
            itl.add(now - when, min(count, live))
            live -= count
        self._joined.clear()
        if before is not None and live > 0:
            itl.add(now - before, live)
        self._decoded = now

    def _end(self, request: Any) -> None:
        stamps, tokens = request.time_stats, len(request.output_ids)
        last, first = stamps.completion_time, stamps.prefill_finished_time
        if _is_excluded(request) or not last or not first:
            return
        at_server = getattr(stamps, ARRIVED, 0.0)
        self.histograms["e2e"].add(last - (at_server or stamps.scheduler_recv_time))
        if tokens > 1:
            self.histograms["tpot"].add((last - first) / (tokens - 1))


def _is_excluded(request: Any) -> bool:
    """Whether the request was aborted, or is a health check."""
    reason = request.finished_reason
    if reason is not None and (reason.to_json() or {}).get("type") == ABORTED:
        return True
    return str(request.rid).startswith(PROBE)
