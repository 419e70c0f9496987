"""When a request came, began and ended: SGLang's own stamps, read once a request.

The scheduler stamps each request by ``perf_counter`` (``req.time_stats``). When it arrived at the
HTTP server only that process knows; ``carry_arrival`` makes it come along with the request.
"""

from __future__ import annotations

import sys
import time
from collections import deque
from collections.abc import Callable
from typing import Any

from llmtop_live.latency_histogram import LatencyHistograms

STAMPS = "sglang.srt.observability.req_time_stats"
ARRIVED = "llmtop_arrived"  # SGLang rebases what ends in "time" from clock to clock
NAMES = ("ttft", "queue", "prefill", "tpot", "e2e", "itl", "arrival_lag")
SERVER = "arrival at the server"
SCHEDULER = "arrival at the scheduler"
CUT_SHORT = "abort"
PROBE = "HEALTH_CHECK"  # how the ids of SGLang's own probes begin
JOINED_KEPT = 1024
NO_ARRIVAL = "requests do not bring the time of their arrival at the server"


def carry_arrival() -> Callable[[], None] | None:
    """Have each request bring the time of its arrival into the scheduler. How to undo it.

    To be called in the HTTP process, in the data-parallel controller and in each scheduler; None
    where those stamps are not to be found. perf_counter is one clock for all processes of a host.
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
    # new_from_obj copies what the new object has already.
    for cls in (receiver, senders[1]):
        if not hasattr(cls, ARRIVED):
            setattr(cls, ARRIVED, 0.0)
    for cls in senders:
        assert cls is not None
        undo.append(_carried_by(cls))

    def undo_all() -> None:
        for one in undo:
            one()

    return undo_all


def _carried_by(cls: Any) -> Callable[[], None]:
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
    """When it arrived at the server, else at the scheduler; 0.0 where neither is known."""
    stamps = request.time_stats
    return getattr(stamps, ARRIVED, 0.0) or getattr(stamps, "scheduler_recv_time", 0.0)


class RequestTimes:
    """The latencies of one scheduler's requests. On its thread, but for what reads histograms.

    ttft is counted when the first token is there, e2e and tpot when the request ends, and not for
    one that was cut short. itl is the time between two tokens of a request, as they leave the
    scheduler: all that decode share it, but for those that joined since. seen: told whether the
    arrival at the server was known.
    """

    def __init__(
        self,
        clock: Callable[[], float] = time.perf_counter,
        seen: Callable[[str, bool, str], None] = lambda *told: None,
    ) -> None:
        self._seen = seen
        self.histograms = LatencyHistograms(NAMES, {"ttft": SCHEDULER, "e2e": SCHEDULER})
        self._clock = clock
        self._ended: list[Any] = []
        self._decoded: float | None = None
        # Since the last decode: (when, how many) had their first token and wait for the second.
        self._joined: deque[tuple[float, int]] = deque(maxlen=JOINED_KEPT)

    def released(self, request: Any) -> None:
        """It gives back its KV cache: it has ended, or was put back. Its last stamp comes later."""
        if request.finished_reason is not None:
            self._ended.append(request)

    def taken_up(self, batch: Any, begun: float, live: int) -> None:
        """A result has been taken up that began to be so at ``begun``. live: rows with a token."""
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
            if first < begun:  # not yet, or long ago
                continue
            new += 1
            if _is_left_out(request):
                continue
            received, entry = stamps.scheduler_recv_time, stamps.forward_entry_time
            came = getattr(stamps, ARRIVED, 0.0)
            self._seen("arrival_lag", bool(came), NO_ARRIVAL)
            if came:
                found.base["ttft"] = found.base["e2e"] = SERVER
                found["arrival_lag"].add(received - came)
            found["ttft"].add(first - (came or received))
            found["prefill"].add(first - entry)
            if stamps.wait_queue_entry_time <= entry:  # else stamped again when it was put back
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
        if _is_left_out(request) or not last or not first:
            return
        came = getattr(stamps, ARRIVED, 0.0)
        self.histograms["e2e"].add(last - (came or stamps.scheduler_recv_time))
        if tokens > 1:
            self.histograms["tpot"].add((last - first) / (tokens - 1))


def _is_left_out(request: Any) -> bool:
    """Whether it is not a client's, or was cut short."""
    reason = request.finished_reason
    if reason is not None and (reason.to_json() or {}).get("type") == CUT_SHORT:
        return True
    return str(request.rid).startswith(PROBE)
