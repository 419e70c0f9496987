"""Snapshots of the load and its final result, out of the workers' boards."""

from __future__ import annotations

import sys
from array import array
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from zlib import compress, decompress

from msgspec import Struct

from llmtop.loadgen.board import CELLS, Cell, Row, row
from llmtop.loadgen.clock import NS
from llmtop.loadgen.course import Course
from llmtop.loadgen.health import MAX_UNSTAMPED, judge
from llmtop.loadgen.histogram import difference
from llmtop.loadgen.ledger import Ledger
from llmtop.loadgen.results import ClientHealth, Fate, LatencySummary, LoadResult, LoadSnapshot
from llmtop.loadgen.summary import of_counts, of_values

_KEPT = 20  # moments kept of a window
_SHORTEST_S = 0.05  # a rate over less than this says nothing


@dataclass(frozen=True, slots=True)
class Reading:
    """A copy of one worker's board. trouble: why the worker is gone, "" while it lives."""

    words: array[int]
    trouble: str = ""

    def cell(self, which: Cell) -> int:
        """One counter."""
        return self.words[which]


@dataclass(frozen=True, slots=True)
class _Moment:
    time_ns: int
    total: array[int]
    workers: tuple[array[int], ...]  # each worker's own cells


class _Kept(Struct, frozen=True):
    """A moment for later. Its 18,000 words are nearly all zero: packed, 144 KiB are five, which
    takes half a millisecond, and a window has up to twenty of them."""

    time_ns: int
    packed: bytes
    workers: tuple[array[int], ...]

    @classmethod
    def of(cls, moment: _Moment) -> _Kept:
        return cls(moment.time_ns, compress(moment.total.tobytes(), 1), moment.workers)

    def whole(self) -> _Moment:
        return _Moment(self.time_ns, array("q", decompress(self.packed)), self.workers)


class Meter:
    """Keeps the moments of a window, so that any two can be laid side by side."""

    def __init__(
        self, window_s: float, monotonic: Callable[[], int], wall: Callable[[], float]
    ) -> None:
        self._window_s, self._now, self._wall = window_s, monotonic, wall
        self._moments: deque[_Kept] = deque()
        self._start: _Kept | None = None

    def begin(self, readings: list[Reading]) -> None:
        """The load begins: what the workers did before does not count."""
        self._start = _Kept.of(self._moment(readings))
        self._moments.append(self._start)

    def snapshot(
        self, course: Course, readings: list[Reading], clock: str, errors: Mapping[str, int]
    ) -> LoadSnapshot:
        """The load at this moment."""
        new = self._moment(readings)
        old = self._reference(new)
        seconds = (new.time_ns - old.time_ns) / NS
        window = _Window(old, new, seconds)
        living = [reading for reading in readings if not reading.trouble]
        oldest = [at for reading in living if (at := reading.cell(Cell.OLDEST))]
        flying = [at for reading in living if (at := reading.cell(Cell.EARLIEST))]
        short = [reading.cell(Cell.SHORT) for reading in living]
        health = window.health(course, clock, short, gone=len(readings) - len(living))
        return LoadSnapshot(
            time=self._wall(),
            loop=course.plan.loop.value,
            shape=course.plan.shape,
            running=course.running(new.time_ns),
            held=course.held is not None and not course.stopped,
            asked=course.level(new.time_ns),
            in_flight=sum(reading.cell(Cell.IN_FLIGHT) for reading in living),
            waiting_first=sum(reading.cell(Cell.WAITING) for reading in living),
            sent=new.total[Cell.SENT],
            ok=new.total[Cell.OK],
            failed=new.total[Cell.FAILED] + _orphans(readings),
            cut=new.total[Cell.CUT],
            window_s=seconds,
            requests_per_s=window.rate(Cell.OK),
            output_tokens_per_s=window.rate(Cell.TOKENS),
            oldest_wait_s=_age(oldest, new.time_ns),
            oldest_s=_age(flying, new.time_ns),
            ttft=window.latency(Row.TTFT),
            tpot=window.latency(Row.TPOT),
            itl=window.latency(Row.ITL),
            e2e=window.latency(Row.E2E),
            health=health,
            errors=_with_troubles(errors, readings),
            output_tokens=new.total[Cell.TOKENS],
            late=new.total[Cell.LATE],
            not_sent=new.total[Cell.NOT_SENT],
            thinking=sum(reading.cell(Cell.THINKING) for reading in living),
        )

    def result(
        self, course: Course, readings: list[Reading], clock: str, ledger: Ledger
    ) -> LoadResult:
        """The run from ``begin`` to this moment."""
        new = self._moment(readings)
        assert self._start is not None
        whole = _Window(self._start.whole(), new, None)
        seconds = ledger.duration_s
        ok = ledger.fates[Fate.OK]

        def latency(values: array[float], which: Row) -> LatencySummary:
            return of_values(values) if ledger.complete else whole.latency(which)

        return LoadResult(
            ok=ok,
            failed=ledger.fates[Fate.FAILED] + _orphans(readings),
            cut=ledger.fates[Fate.CUT],
            duration_s=seconds,
            output_tokens=ledger.output_tokens,
            output_tokens_per_s=ledger.output_tokens / seconds if seconds else None,
            requests_per_s=ok / seconds if seconds else None,
            ttft=latency(ledger.ttft, Row.TTFT),
            tpot=latency(ledger.tpot, Row.TPOT),
            itl=whole.latency(Row.ITL),
            e2e=latency(ledger.e2e, Row.E2E),
            health=whole.health(course, clock, [], gone=sum(bool(r.trouble) for r in readings)),
            errors=_with_troubles(ledger.errors, readings),
            late=new.total[Cell.LATE],
            not_sent=new.total[Cell.NOT_SENT],
            timed_out=ledger.timed_out,
            unfinished=new.total[Cell.UNFINISHED],
            counted=ledger.counted,
            prompt_tokens=ledger.prompt_tokens,
            cached_tokens=ledger.cached_tokens,
            service_ttft=of_values(ledger.service_ttft),
            service_e2e=of_values(ledger.service_e2e),
        )

    def _moment(self, readings: list[Reading]) -> _Moment:
        return _Moment(
            self._now(), _sum([r.words for r in readings]), tuple(r.words[:CELLS] for r in readings)
        )

    def _reference(self, new: _Moment) -> _Moment:
        # A beat that comes a little late must not shorten the window by a whole beat.
        earliest = new.time_ns - int(1.05 * self._window_s * NS)
        while len(self._moments) > 1 and self._moments[0].time_ns < earliest:
            self._moments.popleft()
        old = self._moments[0]
        if new.time_ns - self._moments[-1].time_ns >= self._window_s * NS / _KEPT:
            self._moments.append(_Kept.of(new))
        return old.whole()


class _Window:
    """What happened between two moments. seconds: for the summaries; None: the whole run."""

    def __init__(self, old: _Moment, new: _Moment, seconds: float | None) -> None:
        self._old, self._new, self._seconds = old, new, seconds
        self._latencies: dict[Row, LatencySummary] = {}

    def grown(self, cell: Cell) -> int:
        return self._new.total[cell] - self._old.total[cell]

    def rate(self, cell: Cell) -> float | None:
        long_enough = self._seconds is not None and self._seconds >= _SHORTEST_S
        return self.grown(cell) / self._seconds if long_enough and self._seconds else None

    def latency(self, which: Row) -> LatencySummary:
        if which not in self._latencies:
            self._latencies[which] = self._summary(which)
        return self._latencies[which]

    def _summary(self, which: Row) -> LatencySummary:
        counts = difference(row(self._new.total, which), row(self._old.total, which))
        return of_counts(counts, self._seconds)

    def health(self, course: Course, clock: str, short: list[int], gone: int) -> ClientHealth:
        reads, unstamped = self.grown(Cell.READS), self.grown(Cell.UNSTAMPED)
        if unstamped > MAX_UNSTAMPED * reads:
            clock = "user space"
        return judge(
            clock=clock,
            loop=course.plan.loop,
            itl=self.latency(Row.ITL),
            ttft=self.latency(Row.TTFT),
            lag=self.latency(Row.LAG) if clock == "kernel" else None,
            lateness=self.latency(Row.LATENESS),
            cpu=self._busiest(Cell.CPU),
            run_delay=self._busiest(Cell.RUN_DELAY),
            short=sum(short),
            lost=self.grown(Cell.LOST),
            gone=gone,
        )

    def _busiest(self, cell: Cell) -> float | None:
        shares = []
        for old, new in zip(self._old.workers, self._new.workers, strict=True):
            beat = new[Cell.BEAT] - old[Cell.BEAT]
            if old[Cell.BEAT] and beat > 0:
                shares.append((new[cell] - old[cell]) / beat)
        return max(shares, default=None)


def _sum(boards: list[array[int]]) -> array[int]:
    # As one long integer with a lane of 64 bits for each word: no word is negative and no sum
    # overflows its lane. Adding 18,000 words one by one takes 2 ms a worker, this 0.1 ms.
    if len(boards) == 1:
        return boards[0]
    size = boards[0].itemsize * len(boards[0])
    total = sum(int.from_bytes(board.tobytes(), sys.byteorder) for board in boards)
    return array("q", total.to_bytes(size, sys.byteorder))


def _age(moments: list[int], now: int) -> float | None:
    return max(0.0, (now - min(moments)) / NS) if moments else None


def _orphans(readings: list[Reading]) -> int:
    """Requests of workers that are gone: nobody will hear how they end."""
    return sum(reading.cell(Cell.IN_FLIGHT) for reading in readings if reading.trouble)


def _with_troubles(errors: Mapping[str, int], readings: list[Reading]) -> dict[str, int]:
    found = dict(errors)
    for reading in readings:
        if reading.trouble:
            found[reading.trouble] = found.get(reading.trouble, 0) + 1
    return found
