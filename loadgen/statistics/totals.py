"""Totals of a run, from the record of each request as it ends."""

from __future__ import annotations

from array import array

from llmtop.loadgen.core.measures import Extent, Measure
from llmtop.loadgen.core.results import Fate, RequestRecord
from llmtop.loadgen.statistics.bounds import extent
from llmtop.loadgen.statistics.quantiles import MAX_EXACT, of_values

MAX_ERRORS = 20  # kinds kept apart; errors that carry an id or a number would be endless


class RunTotals:
    """Totals and the exact latencies of the requests that ended well.

    complete: every latency is kept; after ``MAX_EXACT`` requests no more are.
    """

    def __init__(self) -> None:
        self.ttft, self.tpot, self.e2e = array("d"), array("d"), array("d")
        self.service_ttft, self.service_e2e = array("d"), array("d")
        self._ttft_low, self._e2e_low = array("d"), array("d")
        self._tpot_low, self._tpot_high = array("d"), array("d")
        self._ttft_sent, self._e2e_sent = array("d"), array("d")  # as if sent at once
        self.fates = dict.fromkeys(Fate, 0)
        self.errors: dict[str, int] = {}
        self.output_tokens = self.prompt_tokens = 0
        self.cached_tokens: int | None = None
        self.timed_out = self.counted = 0
        self.complete = True
        self._first: float | None = None
        self._last: float | None = None

    def add(self, record: RequestRecord) -> None:
        """Add one request."""
        self.fates[record.fate] += 1
        self.output_tokens += record.tokens
        self.prompt_tokens += record.prompt_tokens or 0
        if record.cached_tokens is not None:
            self.cached_tokens = (self.cached_tokens or 0) + record.cached_tokens
        self.timed_out += record.timed_out
        self.counted += record.counted and record.tokens > 0
        if self._first is None or record.intended < self._first:
            self._first = record.intended
        if record.last is not None and (self._last is None or record.last > self._last):
            self._last = record.last
        if record.fate in (Fate.FAILED, Fate.REFUSED):
            self._count(record.error)
        elif record.fate is Fate.OK:
            self._latencies(record)

    @property
    def duration_s(self) -> float:
        """First intended send to the last token; 0 before there is one."""
        if self._first is None or self._last is None:
            return 0.0
        return max(0.0, self._last - self._first)

    def extents(self) -> dict[Measure, Extent]:
        """Each latency as it was measured and as it can have been; {} once not all are kept."""
        if not self.complete:
            return {}
        ttft, tpot, e2e = map(of_values, (self.ttft, self.tpot, self.e2e))
        lowest = map(of_values, (self._ttft_low, self._tpot_low, self._e2e_low))
        ttft_low, tpot_low, e2e_low = lowest
        return {
            Measure.TTFT: extent(ttft, ttft_low, sent=of_values(self._ttft_sent)),
            Measure.TPOT: extent(tpot, tpot_low, of_values(self._tpot_high)),
            Measure.E2E: extent(e2e, e2e_low, sent=of_values(self._e2e_sent)),
        }

    def _latencies(self, record: RequestRecord) -> None:
        if len(self.e2e) >= MAX_EXACT:
            self.complete = False
            return
        for kept, value in (
            (self.ttft, record.ttft),
            (self.tpot, record.tpot),
            (self.e2e, record.e2e),
            (self.service_ttft, record.service_ttft),
            (self.service_e2e, record.service_e2e),
            (self._ttft_low, record.ttft_low),
            (self._e2e_low, record.e2e_low),
            (self._tpot_low, record.tpot_low),
            (self._tpot_high, record.tpot_high),
            (self._ttft_sent, _without(record.ttft, record.send_error)),
            (self._e2e_sent, _without(record.e2e, record.send_error)),
        ):
            if value is not None:
                kept.append(value)

    def _count(self, error: str) -> None:
        if error not in self.errors and len(self.errors) >= MAX_ERRORS:
            error = error.partition(":")[0]
            if error not in self.errors and len(self.errors) >= 2 * MAX_ERRORS:
                error = "other"
        self.errors[error] = self.errors.get(error, 0) + 1


def _without(latency: float | None, send_error: float) -> float | None:
    return None if latency is None else max(0.0, latency - send_error)
