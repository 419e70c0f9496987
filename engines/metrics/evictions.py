"""Preemptions that we caused: an engine counts what ``--evict`` put back like those for want of KV.

Shown as one figure they would read as KV pressure where there is none.
"""

from __future__ import annotations

from contextlib import suppress

from llmtop import LlmtopError
from llmtop.engines.core.adapter import Live
from llmtop.engines.core.samples import Counter, Reading
from llmtop.values import replace


class Evictions:
    """Takes our evictions out of readings. live: who reports how many there were in all.

    It is asked after the reading, and only where the engine's count has moved: so it knows of each
    eviction that the reading counts. While it does not answer, the last answer holds.
    """

    def __init__(self, live: Live | None) -> None:
        self._live = live
        self._counted: float | None = None
        self._ours = 0
        self._shown = 0.0

    async def out_of(self, reading: Reading) -> Reading:
        """The reading with the engine's own preemptions alone."""
        counted = reading.counters.get(Counter.PREEMPTIONS)
        if counted is None or self._live is None:
            return reading
        if counted != self._counted:
            if self._counted is not None and counted < self._counted:
                self._ours, self._shown = 0, 0.0  # another process, which counts from 0
            self._counted = counted
            with suppress(LlmtopError):
                self._ours = (await self._live.get()).evicted_total
            # An answer that came late must not make a counter go back: that means a new process.
            self._shown = max(self._shown, counted - self._ours, 0.0)
        return replace(reading, counters={**reading.counters, Counter.PREEMPTIONS: self._shown})
