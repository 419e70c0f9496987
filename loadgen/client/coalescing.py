"""Decides from recent traffic how long a transport's loop may pause between two polls.

A wake-up for every chunk costs more than the chunk: the core leaves its idle state and its caches
are cold. Receive times come from the kernel, so chunks may wait briefly and be read together.
"""

from __future__ import annotations

from llmtop.loadgen.statistics.histogram import bucket
from llmtop.loadgen.statistics.shared_counters import Cell, SharedCounters

PAUSES_NS = (1_000_000, 500_000, 250_000)  # the longest allowed one is used
DECIDE_NS = 100_000_000  # interval of the decision
WORTH_READS = 3  # a pause that collects fewer reads saves little
APART = 8  # gaps between two tokens of a stream are at least this many pauses ...
MOST_CLOSER = 0.01  # ... except for this share of them
MOST_SILENT = 0.001  # largest share of a stream's time between an answer's end and its detection


class Pause:
    """The pause in force, ``ns``. counters: of the pausing worker.

    It is at most an eighth of the gaps between a stream's tokens, so that one read, with one stamp,
    does not contain two tokens. It is at most 1/500 of a request's duration, because in the closed
    loop a stream's next request waits half a pause on average. There is no pause if it would
    collect few reads, without kernel stamps, or before traffic is known. The caller ensures that
    sends and new connections do not wait.
    """

    def __init__(self, counters: SharedCounters) -> None:
        self._cells, self._gaps = counters.cells, counters.itl.counts
        self._closer = [bucket(APART * pause) for pause in PAUSES_NS]
        self._before = self._count()
        self._decided_ns = 0
        self.ns = 0
        self.due_ns = 0  # time of the next decision

    def update(self, now_ns: int) -> None:
        """Choose the pause from the traffic since the last decision."""
        span = now_ns - self._decided_ns
        first = not self._decided_ns
        counted = self._count()
        reads, unstamped, tokens, ended, *closer = (
            new - old for new, old in zip(counted, self._before, strict=True)
        )
        self._before, self._decided_ns, self.due_ns = counted, now_ns, now_ns + DECIDE_NS
        self.ns = 0
        if first or unstamped:
            return
        in_flight = self._cells[Cell.IN_FLIGHT]
        for pause, close in zip(PAUSES_NS, closer, strict=True):
            if (
                reads * pause >= WORTH_READS * span
                and close <= MOST_CLOSER * tokens
                and ended * pause / 2 <= MOST_SILENT * in_flight * span
            ):
                self.ns = pause
                return

    def _count(self) -> list[int]:
        cells = self._cells
        fates = (Cell.OK, Cell.REFUSED, Cell.FAILED, Cell.CUT)
        ended = sum(cells[fate] for fate in fates)
        closer = (sum(self._gaps[:place]) for place in self._closer)
        reads, unstamped = cells[Cell.READS], cells[Cell.UNSTAMPED]
        return [reads, unstamped, cells[Cell.TOKENS], ended, *closer]
