"""The requests of a run, written up one by one as they end."""

from __future__ import annotations

from array import array

from llmtop.loadgen.results import Fate, RequestRecord
from llmtop.loadgen.summary import MAX_EXACT

MAX_ERRORS = 20  # kinds kept apart; errors that carry an id or a number would be endless


class Ledger:
    """Totals and the exact latencies of the requests that ended well.

    complete: every latency is kept; after ``MAX_EXACT`` requests no more are.
    """

    def __init__(self) -> None:
        self.ttft, self.tpot, self.e2e = array("d"), array("d"), array("d")
        self.service_ttft, self.service_e2e = array("d"), array("d")
        self.fates = dict.fromkeys(Fate, 0)
        self.errors: dict[str, int] = {}
        self.output_tokens = self.prompt_tokens = 0
        self.cached_tokens: int | None = None
        self.timed_out = self.counted = 0
        self.complete = True
        self._first: float | None = None
        self._last: float | None = None

    def add(self, record: RequestRecord) -> None:
        """Write up one request."""
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
        if record.fate is Fate.FAILED:
            self._count(record.error)
        elif record.fate is Fate.OK:
            self._latencies(record)

    @property
    def duration_s(self) -> float:
        """First intended send to the last token; 0 before there is one."""
        if self._first is None or self._last is None:
            return 0.0
        return max(0.0, self._last - self._first)

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
        ):
            if value is not None:
                kept.append(value)

    def _count(self, error: str) -> None:
        if error not in self.errors and len(self.errors) >= MAX_ERRORS:
            error = error.partition(":")[0]
            if error not in self.errors and len(self.errors) >= 2 * MAX_ERRORS:
                error = "other"
        self.errors[error] = self.errors.get(error, 0) + 1
