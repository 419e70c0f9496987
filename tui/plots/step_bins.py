"""Steps laid over columns of time: what a step in each column took, and how many tokens it had."""

from __future__ import annotations

import math
from collections.abc import Iterable

from llmtop.diagnosis.step_history import StepHistory
from llmtop.diagnosis.step_window import DecodeTimes, Parts, parts_of
from llmtop.engines.core.steps import Step
from llmtop.tui.widgets.axis import fitted_from

KEPT = 1200  # columns at most
LONGEST_S = 120.0  # of one step: no column is older


class Column:
    """The steps that overlap one stretch of time, weighted by how long they do.

    So a step that takes seconds fills all the columns that it lies in, with its whole time.
    """

    __slots__ = ("covered", "decode", "host", "idle", "prefill", "steps", "tokens")

    def __init__(self) -> None:
        self.covered = self.decode = self.prefill = self.host = self.tokens = self.idle = 0.0
        self.steps = 0.0

    def add(self, overlap: float, parts: Parts, tokens: int) -> None:
        """A step that lies in the column for ``overlap`` seconds."""
        self.covered += overlap
        self.decode += overlap * parts.decode
        self.prefill += overlap * parts.prefill
        self.host += overlap * parts.host
        self.tokens += overlap * tokens
        if parts.busy > 0:
            self.steps += overlap / parts.busy


class StepColumns:
    """Columns of ``seconds`` each, on whole multiples of it since 1970: they hold still."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self.columns: dict[int, Column] = {}
        self._seen = -math.inf  # the end of the newest step that is in
        self._of: int | None = None

    def update(self, history: StepHistory, now: float) -> None:
        """Take in the steps that are new. Another history begins again."""
        if self._of != id(history):
            self.columns.clear()
            self._seen, self._of = -math.inf, id(history)
        since = max(self._seen, now - KEPT * self.seconds)
        fresh = history.since(since)
        if fresh:
            self._extend(fresh, history.times(now))
            self._seen = fresh[-1].end
        oldest = int(now / self.seconds) - KEPT
        for number in [one for one in self.columns if one < oldest]:
            del self.columns[number]

    def _extend(self, steps: Iterable[Step], times: DecodeTimes) -> None:
        for step in steps:
            parts = parts_of(step, times)
            tokens = step.prefill_tokens + step.decode_tokens
            begin = step.end - min(step.duration_s, LONGEST_S)
            for number, overlap in self._overlaps(begin, step.end):
                self._column(number).add(overlap, parts, tokens)
            idle = min(step.idle_s or 0.0, LONGEST_S)
            for number, overlap in self._overlaps(begin - idle, begin):
                self._column(number).idle += overlap

    def _column(self, number: int) -> Column:
        found = self.columns.get(number)
        if found is None:
            found = self.columns[number] = Column()
        return found

    def _overlaps(self, begin: float, end: float) -> Iterable[tuple[int, float]]:
        if end <= begin:
            return
        for number in range(int(begin / self.seconds), int(end / self.seconds) + 1):
            left, right = number * self.seconds, (number + 1) * self.seconds
            overlap = min(end, right) - max(begin, left)
            if overlap > 0:
                yield number, overlap

    def window(self, now: float, count: int) -> list[Column | None]:
        """The last ``count`` columns, the oldest first; None where no step and no pause lies."""
        last = int(now / self.seconds)
        return [self.columns.get(number) for number in range(last - count + 1, last + 1)]

    def fitted(self, now: float, count: int) -> list[Column | None]:
        """The columns that the axis of the last ``count`` is fitted to (``axis.fitted_from``)."""
        last = int(now / self.seconds)
        first = int(fitted_from(last - count + 1, max(1, count // 2)))
        return [self.columns.get(number) for number in range(first, last + 1)]
