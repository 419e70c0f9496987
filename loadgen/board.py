"""What a worker shows of itself in shared memory: counters and histograms, read at any moment.

One writer, any number of readers, no lock: every cell is an aligned 64-bit word.
"""

from __future__ import annotations

from array import array
from enum import IntEnum

from llmtop.loadgen.histogram import BUCKETS, Histogram

LATE_NS = 10_000_000  # a send this late is counted as late; health has its own measure beside it


class Cell(IntEnum):
    """Cells of the first row. Counts are since the start; moments are monotonic nanoseconds."""

    SENT = 0
    OK = 1
    FAILED = 2
    CUT = 3
    IN_FLIGHT = 4
    WAITING = 5  # of those, without a token yet
    OLDEST = 6  # intended moment of the oldest that waits, overdue sends too; 0: none
    TOKENS = 7  # chunks so far, set right from the server's usage when a request ends
    READS = 8
    UNSTAMPED = 9  # reads without a kernel time stamp
    BEAT = 10  # moment of the two below
    CPU = 11  # nanoseconds
    RUN_DELAY = 12  # nanoseconds spent waiting for a core
    COURSE = 13  # number of the course in force
    IDLE = 14  # 1: that course has ended, nothing is in flight, every record is on its way
    SHORT = 15  # streams asked for beyond what the limit of open files allows, now
    LOST = 16  # records dropped because nobody read them
    LATE = 17  # sends that left more than ``LATE_NS`` after their moment
    NOT_SENT = 18  # requests that were due and never left
    THINKING = 19  # conversations whose user thinks, now
    UNFINISHED = 20  # conversations that ended well before their last turn: its moment never came
    EARLIEST = 21  # intended moment of the oldest in flight; 0: none


class Row(IntEnum):
    """The histograms, each a row of its own."""

    TTFT = 0
    TPOT = 1
    ITL = 2
    E2E = 3
    LAG = 4
    LATENESS = 5


CELLS = 64
WORDS = CELLS + len(Row) * BUCKETS
SIZE = 8 * WORDS  # bytes


class Board:
    """A view of one worker's ``SIZE`` bytes. cells: plain integers, indexed by ``Cell``."""

    def __init__(self, memory: memoryview | bytearray | None = None) -> None:
        words = memoryview(bytearray(SIZE) if memory is None else memory).cast("q")
        self.cells = words[:CELLS]
        self._words = words
        self.ttft, self.tpot, self.itl, self.e2e, self.lag, self.lateness = (
            Histogram(self._row(row)) for row in Row
        )

    def _row(self, row: Row) -> memoryview:
        return self._words[CELLS + row * BUCKETS : CELLS + (row + 1) * BUCKETS]

    def copy(self) -> array[int]:
        """All of it, at this moment."""
        return array("q", self._words.tobytes())

    def release(self) -> None:
        """Let go of the memory, so that it can be unmapped."""
        for row in (self.ttft, self.tpot, self.itl, self.e2e, self.lag, self.lateness):
            row.counts.release()  # type: ignore[union-attr]
        self.cells.release()
        self._words.release()


def row(copied: array[int], which: Row) -> array[int]:
    """One histogram out of a copy."""
    return copied[CELLS + which * BUCKETS : CELLS + (which + 1) * BUCKETS]
