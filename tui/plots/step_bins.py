"""Steps in columns of time: for each column, the time per step and the tokens per step."""

from __future__ import annotations

import math
from collections.abc import Iterable

from llmtop.diagnosis.steps.history import StepHistory
from llmtop.diagnosis.steps.window import DecodeTimes, Parts, parts_of
from llmtop.engines.core.steps import Step
from llmtop.tui.widgets.axis import fitted_from

KEPT = 1200  # columns, at most
LONGEST_S = 120.0  # a longer step fills only its last columns


class Column:
    """Sums over the steps that overlap one column of time, weighted by the seconds of overlap.

    A step of several seconds fills all the columns that it overlaps, with its whole duration.
    covered: the seconds of overlap. decode, prefill, host: sums of seconds per step, and tokens: of
    tokens per step; divided by ``covered``, they are means. idle: seconds without a step. steps:
    the number of steps.
    """

    __slots__ = ("covered", "decode", "host", "idle", "prefill", "steps", "tokens")

    def __init__(self) -> None:
        self.covered = self.decode = self.prefill = self.host = self.tokens = self.idle = 0.0
        self.steps = 0.0

    def add(self, overlap: float, parts: Parts, tokens: int) -> None:
        """Add a step that overlaps the column for ``overlap`` seconds."""
        self.covered += overlap
        self.decode += overlap * parts.decode
        self.prefill += overlap * parts.prefill
        self.host += overlap * parts.host
        self.tokens += overlap * tokens
        if parts.busy > 0:
            self.steps += overlap / parts.busy


class StepColumns:
    """Columns of ``seconds`` each. They do not move: they start at multiples of it since 1970."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self.columns: dict[int, Column] = {}
        self._newest = -math.inf  # the end of the newest step that was added
        self._history_id: int | None = None

    def update(self, history: StepHistory, now: float) -> None:
        """Add the new steps. Another history replaces all columns. now: unix seconds."""
        if self._history_id != id(history):
            self.columns.clear()
            self._newest, self._history_id = -math.inf, id(history)
        since = max(self._newest, now - KEPT * self.seconds)
        fresh = history.since(since)
        if fresh:
            self._extend(fresh, history.times(now))
            self._newest = fresh[-1].end
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
        """The last ``count`` columns, the oldest first; None without any step or idle time."""
        last = int(now / self.seconds)
        return [self.columns.get(number) for number in range(last - count + 1, last + 1)]

    def fitted(self, now: float, count: int) -> list[Column | None]:
        """The columns to which the axis of the last ``count`` is fitted (``axis.fitted_from``)."""
        last = int(now / self.seconds)
        first = int(fitted_from(last - count + 1, max(1, count // 2)))
        return [self.columns.get(number) for number in range(first, last + 1)]
