"""Counters and histograms of one worker in shared memory, which others read at any moment.

One writer, any number of readers, no lock: every cell is an aligned 64-bit word.
"""

from __future__ import annotations

from array import array
from enum import IntEnum

from llmtop.loadgen.statistics.histogram import BUCKETS, Histogram

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
    SCHEDULE = 13  # number of the schedule in force
    IDLE = 14  # 1: that schedule has ended, nothing is in flight, every record is on its way
    SHORT = 15  # streams asked for beyond what the limit of open files allows, now
    LOST = 16  # records dropped because the load did not read them
    LATE = 17  # sends that left more than ``LATE_NS`` after their moment
    NOT_SENT = 18  # requests that were due and never left
    THINKING = 19  # conversations whose user thinks, now
    UNFINISHED = 20  # conversations that ended well before their last turn: its moment never came
    EARLIEST = 21  # intended moment of the oldest in flight; 0: none
    TURNAROUND = 22  # ns from an answer's end to its stream's next request being out, closed loop
    CYCLE = 23  # ns from the same moment to the end of that one's answer
    STALLED = 24  # ns that a server may have waited because its answer lay unread
    PIECES = 25  # chunks with text of the requests that ended well and came with usage
    IN_PIECES = 26  # tokens of those requests, by usage
    MOST_SHORT = 27  # the most that SHORT has been
    FLIGHT = 28  # ns from sending to the end of an answer
    REFUSED = 29  # by an engine whose queue was full


class Row(IntEnum):
    """The histograms, each a row of its own."""

    TTFT = 0
    TPOT = 1
    ITL = 2
    E2E = 3
    LAG = 4
    LATENESS = 5
    # The same measures as short and as long as they can really have been (``stamp_error``). Of
    # gaps only those that are not sure are counted, once as reported and once at either bound.
    TTFT_LOW = 6
    TPOT_LOW = 7
    TPOT_HIGH = 8
    E2E_LOW = 9
    ITL_UNSURE = 10
    ITL_LOW = 11
    ITL_HIGH = 12


CELLS = 64
WORDS = CELLS + len(Row) * BUCKETS
SIZE = 8 * WORDS  # bytes


class SharedCounters:
    """A view of one worker's ``SIZE`` bytes. cells: plain integers, indexed by ``Cell``."""

    def __init__(self, memory: memoryview | bytearray | None = None) -> None:
        words = memoryview(bytearray(SIZE) if memory is None else memory).cast("q")
        self.cells = words[:CELLS]
        self._words = words
        rows = self._rows = [Histogram(self._row(row)) for row in Row]
        self.ttft, self.tpot, self.itl, self.e2e, self.lag, self.lateness = rows[: Row.TTFT_LOW]
        self.ttft_low, self.tpot_low, self.tpot_high, self.e2e_low = rows[
            Row.TTFT_LOW : Row.ITL_UNSURE
        ]
        self.itl_unsure, self.itl_low, self.itl_high = rows[Row.ITL_UNSURE :]

    def _row(self, row: Row) -> memoryview:
        return self._words[CELLS + row * BUCKETS : CELLS + (row + 1) * BUCKETS]

    def copy(self) -> array[int]:
        """All of it, at this moment."""
        return array("q", self._words.tobytes())

    def release(self) -> None:
        """Let go of the memory, so that it can be unmapped."""
        for row in self._rows:
            row.counts.release()  # type: ignore[union-attr]
        self.cells.release()
        self._words.release()


def row(copied: array[int], which: Row) -> array[int]:
    """One histogram out of a copy."""
    return copied[CELLS + which * BUCKETS : CELLS + (which + 1) * BUCKETS]
