"""Totals of a run beside its latencies: rate, concurrency, conversations, odd answers."""

from __future__ import annotations

from array import array
from bisect import bisect_right

from llmtop.loadgen.core.results import Fate, LoadResult, Remark, RequestRecord
from llmtop.loadgen.statistics.quantiles import MAX_EXACT
from llmtop.values import replace


class RunCounts:
    """Takes each request's record. remarks: answers by what was odd about them. begun: requests
    that were sent and are not a later turn of a conversation."""

    def __init__(self) -> None:
        self.remarks: dict[Remark, int] = {}
        self.begun = 0
        self._ends = array("d")  # of the requests that ended well
        self._busy_s = 0.0  # time in flight, of all requests together
        self._first_sent = self._last_ended = 0.0
        self._last_intended: float | None = None

    def add(self, record: RequestRecord) -> None:
        """One request has ended."""
        for remark in record.remarks:
            self.remarks[remark] = self.remarks.get(remark, 0) + 1
        if self._last_intended is None or record.intended > self._last_intended:
            self._last_intended = record.intended
        if record.sent is None:
            return
        self.begun += record.turn == 1
        ended = record.ended if record.ended is not None else record.last
        if ended is not None and ended >= record.sent:
            if not self._busy_s:
                self._first_sent = record.sent
            self._first_sent = min(self._first_sent, record.sent)
            self._last_ended = max(self._last_ended, ended)
            self._busy_s += ended - record.sent
        if record.fate is Fate.OK and record.last is not None and len(self._ends) < MAX_EXACT:
            self._ends.append(record.last)

    def completed(self, run: LoadResult, is_open: bool) -> LoadResult:
        """A run's result with what was tallied. is_open: the loop."""
        rate = self.open_rate() if is_open else None
        return replace(
            run,
            requests_per_s=rate[0] if rate else run.requests_per_s,
            rate_window_s=rate[1] if rate else None,
            concurrency=self.concurrency(),
            remarks=dict(self.remarks),
            begun=self.begun,
        )

    def concurrency(self) -> float | None:
        """The mean number in flight, from the first sending until the last request was over.

        That is later than the run's last token: a stream ends with its usage, or by a time-out.
        """
        seconds = self._last_ended - self._first_sent
        return self._busy_s / seconds if seconds > 0 else None

    def open_rate(self) -> tuple[float, float] | None:
        """Requests a second that ended well in an open loop, and the seconds that is over.

        From the first one that ended until the last one was due: while the load fills the engine
        none ends yet, and in the drain nothing is asked any more. Where that holds fewer than two,
        from the first end to the last. None for fewer than two in all.
        """
        ends = sorted(self._ends)
        if len(ends) < 2 or self._last_intended is None:
            return None
        until = self._last_intended
        more = bisect_right(ends, until) - 1
        if more < 2:
            until, more = ends[-1], len(ends) - 1
        span = until - ends[0]
        return (more / span, span) if span > 0 else None
