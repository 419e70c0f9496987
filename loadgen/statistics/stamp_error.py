"""The largest error of one request's times by this client.

A kernel stamp belongs to the last byte of a read. Earlier bytes of the same read arrived before it,
and after the last poll without data. So the times of a request are never too early, and this module
computes how much too late they can be.
"""

from __future__ import annotations

from llmtop.loadgen.statistics.histogram import bucket
from llmtop.loadgen.statistics.shared_counters import Cell, SharedCounters

FULL_READ = 48 * 1024  # bytes; a receive window is 64 KiB at first, and a server waits at its end


class PollTimes:
    """ns: the last time without unread data, for all reads of this turn of the loop; 0: unknown.
    now_ns: start of this turn's reads."""

    __slots__ = ("now_ns", "ns")

    def __init__(self) -> None:
        self.ns = self.now_ns = 0


class StampError:
    """The errors of one request, nanoseconds. sent_ns: the part of its send delay that this client
    caused, not the network. first_ns, last_ns: how much earlier than their stamps its first and
    last token may have arrived. stalled_ns: how long the server may have waited for a read.

    ``open`` and ``close`` enclose one read with more than one token's event. A read with exactly
    one event needs neither: its stamp is exact.
    """

    __slots__ = (
        "_at_ns",
        "_away_ns",
        "_before",
        "_counters",
        "_exact",
        "_floor_ns",
        "_full",
        "_tail",
        "first_ns",
        "last_ns",
        "sent_ns",
        "stalled_ns",
    )

    def __init__(self, counters: SharedCounters) -> None:
        self._counters = counters
        self.sent_ns = self.first_ns = self.last_ns = self.stalled_ns = 0
        self._away_ns = 0  # of its stream, before it was out
        self._before: tuple[int, int] | None = None  # chunks and last stamp, while a read is open
        self._at_ns = 0  # the stamp that ``last_ns`` belongs to
        self._floor_ns = 0
        self._exact = True
        self._full = False  # the read before left bytes behind
        self._tail = -1  # chunks there were when something came that is no token

    def sent(self, ours_ns: int, late_ns: int) -> None:
        """The request is out. late_ns: from the end of its stream's last answer until its intended
        moment; 0: it is the stream's first."""
        self.sent_ns = ours_ns
        self._away_ns = max(1, late_ns + ours_ns) if late_ns else 0

    def open(self, chunks: int, last_ns: int, floor_ns: int, exact: bool = True) -> bool:
        """A read begins; False when one is open already. chunks, last_ns: tokens before it, and
        the stamp of the last of them.

        floor_ns: nothing of it lay there at that moment. exact: its last byte's stamp is the truth.
        """
        if self._before is not None:
            return False
        self._before, self._exact = (chunks, last_ns), exact
        self._floor_ns = 0 if self._full else floor_ns
        self._full = False
        return True

    def no_token(self, chunks: int) -> None:
        """An event without a token came after ``chunks`` tokens."""
        self._tail = chunks

    def first(self, ttft_ns: int) -> None:
        """The first token came; within an open read its error is known at the end of that."""
        if self._before is None:
            self._counters.ttft_low.record(ttft_ns - self.sent_ns)

    def full(self, stalled_ns: int) -> None:
        """The read found so much that the server may have had to wait."""
        self._full = True
        self.stalled_ns += max(0, stalled_ns)
        self._counters.cells[Cell.STALLED] += max(0, stalled_ns)

    def close(
        self, chunks: int, last_ns: int, intended_ns: int, since_ns: int, whole: bool
    ) -> None:
        """The read is over. since_ns: when the request went out or its last bytes came, before
        which no answer can have come. whole: no part of an event is left over."""
        if self._before is None:
            return
        (chunks_before, last_before), self._before = self._before, None
        tokens = chunks - chunks_before
        if tokens == 0:
            return
        early = max(0, last_ns - max(self._floor_ns, last_before or since_ns))
        at_end = self._exact and whole and self._tail != chunks  # its stamp is the last token's own
        early_before = self.last_ns if self._at_ns == last_before else 0
        self.last_ns, self._at_ns = 0 if at_end else early, last_ns
        sole = tokens == 1 and at_end
        if not last_before:
            self.first_ns = 0 if sole else early
            self._counters.ttft_low.record(last_ns - intended_ns - self.sent_ns - self.first_ns)
            self._gaps(0, tokens - 1, early, 0)
        elif not sole or early_before:
            span = last_ns - last_before
            least = max(span // tokens if at_end else 0, span - early)
            self._gaps(span, tokens, span + early_before, least)

    def _gaps(self, reported_ns: int, gaps: int, span_ns: int, least_ns: int) -> None:
        """Gaps that are reported as one of ``reported_ns`` and zeros, and are together no longer
        than ``span_ns``; the longest of them is no shorter than ``least_ns``.

        Of gaps with a known sum S the j-th longest is at most S / j, and all but one may be zero.
        """
        counters = self._counters
        for place in range(1, gaps + 1):
            counters.itl_unsure.counts[bucket(reported_ns if place == 1 else 0)] += 1
            counters.itl_low.counts[bucket(least_ns if place == 1 else 0)] += 1
            counters.itl_high.counts[bucket(span_ns // place)] += 1

    def concluded(
        self, e2e_ns: int, streaming_ns: int, gaps: int, last_ns: int, flight_ns: int
    ) -> None:
        """The request ended well. streaming_ns: from its first token to its last, ``gaps`` gaps.

        flight_ns: from its sending to its answer's end.
        """
        cells = self._counters.cells
        cells[Cell.FLIGHT] += flight_ns
        if self._away_ns:  # both of the same request: a stream's first has turned nothing around
            cells[Cell.TURNAROUND] += self._away_ns
            cells[Cell.CYCLE] += self._away_ns + flight_ns
        if self._at_ns != last_ns:
            self.last_ns = 0  # that of a read before; the last one was exact
        self.last_ns += self.stalled_ns
        self._counters.e2e_low.record(e2e_ns - self.sent_ns - self.last_ns)
        if gaps > 0:
            self._counters.tpot_low.record(max(0, streaming_ns - self.last_ns) // gaps)
            self._counters.tpot_high.record((streaming_ns + self.first_ns) // gaps)
