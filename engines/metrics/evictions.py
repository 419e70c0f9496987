"""Separates preemptions by ``--evict`` from the engine's own: the engine counts both together.

One figure for both would look like a full KV cache.
"""

from __future__ import annotations

from contextlib import suppress

from llmtop import LlmtopError
from llmtop.engines.core.adapter import Live
from llmtop.engines.core.samples import Counter, Reading
from llmtop.values import replace


class Evictions:
    """Subtracts llmtop's evictions from readings. live: reports their total number.

    It is asked after the reading, and only if the engine's count has changed, so its answer
    includes each eviction in the reading. While it does not answer, the last answer is used.
    """

    def __init__(self, live: Live | None) -> None:
        self._live = live
        self._counted: float | None = None
        self._ours = 0
        self._shown = 0.0

    async def out_of(self, reading: Reading) -> Reading:
        """The reading with only the engine's own preemptions."""
        counted = reading.counters.get(Counter.PREEMPTIONS)
        if counted is None or self._live is None:
            return reading
        if counted != self._counted:
            if self._counted is not None and counted < self._counted:
                self._ours, self._shown = 0, 0.0  # a new process, which counts from 0
            self._counted = counted
            with suppress(LlmtopError):
                self._ours = (await self._live.get()).evicted_total
            # A late answer must not decrease a counter: that would mean a new process.
            self._shown = max(self._shown, counted - self._ours, 0.0)
        return replace(reading, counters={**reading.counters, Counter.PREEMPTIONS: self._shown})
