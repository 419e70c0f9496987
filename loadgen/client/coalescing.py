"""How long a transport's loop may rest between two polls, decided from recent traffic.

To wake up for every chunk costs more than the chunk: the core leaves its idle state each time and
finds little of ours in its caches. Since receive moments are the kernel's, chunks may wait a little
and be read together.
"""

from __future__ import annotations

from llmtop.loadgen.statistics.histogram import bucket
from llmtop.loadgen.statistics.shared_counters import Cell, SharedCounters

PAUSES_NS = (1_000_000, 500_000, 250_000)  # the longest that is allowed is taken
LOOK_NS = 100_000_000  # how often it is decided again
WORTH_READS = 3  # a pause that collects fewer saves little
APART = 8  # gaps between two tokens of a stream are at least this many pauses ...
MOST_CLOSER = 0.01  # ... but for this share of them
MOST_SILENT = 0.001  # of a stream's time may pass between an answer's end and our seeing it


class Pause:
    """The pause in force, ``ns``. counters: of the worker that rests.

    It is at most an eighth of the gaps between a stream's tokens, so that no two of them come in
    one read, under one stamp. It is at most one part in 500 of what requests take, because in the
    closed loop a stream's next request waits for it, half of it on average. There is none where it
    would collect few reads, none where the kernel does not stamp them, and none until something is
    known. Who rests sees to it that no send and no new connection waits.
    """

    def __init__(self, counters: SharedCounters) -> None:
        self._cells, self._gaps = counters.cells, counters.itl.counts
        self._closer = [bucket(APART * pause) for pause in PAUSES_NS]
        self._before = self._count()
        self._looked_ns = 0
        self.ns = 0
        self.due_ns = 0  # when to look again

    def update(self, now_ns: int) -> None:
        """Decide on the pause, by what came in since the last look."""
        span = now_ns - self._looked_ns
        first_look = not self._looked_ns
        counted = self._count()
        reads, unstamped, tokens, ended, *closer = (
            new - old for new, old in zip(counted, self._before, strict=True)
        )
        self._before, self._looked_ns, self.due_ns = counted, now_ns, now_ns + LOOK_NS
        self.ns = 0
        if first_look or unstamped:
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
