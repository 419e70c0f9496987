"""Snapshots of the load and its final result, from the workers' shared counters."""

from __future__ import annotations

from array import array
from collections import deque
from collections.abc import Callable, Mapping

from msgspec import Struct

from llmtop.loadgen.core.clock import NS
from llmtop.loadgen.core.measures import Extent, Measure, Sources
from llmtop.loadgen.core.results import ClientHealth, Fate, LatencySummary, LoadResult, LoadSnapshot
from llmtop.loadgen.statistics.bounds import extent
from llmtop.loadgen.statistics.client_health import MAX_UNSTAMPED, examined, remedy, strain, void
from llmtop.loadgen.statistics.histogram import difference, differing, total
from llmtop.loadgen.statistics.quantiles import of_counts, of_values
from llmtop.loadgen.statistics.shared_counters import CELLS, Cell, Row, row
from llmtop.loadgen.statistics.totals import RunTotals
from llmtop.loadgen.workload.plan import Loop
from llmtop.loadgen.workload.schedule import Schedule

_KEPT = 20  # moments kept of a window
_SHORTEST_S = 0.05  # a rate over less than this means nothing


class WorkerCounters(Struct, frozen=True):
    """A copy of one worker's counters. trouble: why the worker is gone, "" while it lives. silent:
    why a living one reports nothing; "" while it does."""

    words: array[int]
    trouble: str = ""
    silent: str = ""

    def cell(self, which: Cell) -> int:
        """One counter."""
        return self.words[which]


class _Moment(Struct, frozen=True):
    """Counters at one moment. Its 18,000 words are 144 KiB, and a window has up to twenty of them:
    packing them would cost more time than a snapshot's percentiles."""

    time_ns: int
    total: array[int]
    workers: tuple[array[int], ...]  # each worker's own cells


class SnapshotWindow:
    """Keeps the moments of a window, so that any two can be compared."""

    def __init__(
        self, window_s: float, monotonic: Callable[[], int], wall: Callable[[], float]
    ) -> None:
        self._window_s, self._now, self._wall = window_s, monotonic, wall
        self._moments: deque[_Moment] = deque()
        self._start: _Moment | None = None

    def begin(self, readings: list[WorkerCounters]) -> None:
        """The load begins: what the workers did before does not count."""
        self._start = self._moment(readings)
        self._moments.append(self._start)

    def snapshot(
        self,
        schedule: Schedule,
        readings: list[WorkerCounters],
        clock: str,
        errors: Mapping[str, int],
    ) -> LoadSnapshot:
        """The load at this moment."""
        new = self._moment(readings)
        old = self._reference(new)
        seconds = (new.time_ns - old.time_ns) / NS
        window = _Window(old, new, seconds)
        living = [reading for reading in readings if not reading.trouble]
        oldest = [at for reading in living if (at := reading.cell(Cell.OLDEST))]
        flying = [at for reading in living if (at := reading.cell(Cell.EARLIEST))]
        short = sum(reading.cell(Cell.SHORT) for reading in living)
        health = window.health(schedule, clock, readings, short, window.rate(Cell.TOKENS))
        return LoadSnapshot(
            time=self._wall(),
            loop=schedule.plan.loop.value,
            shape=schedule.plan.shape,
            running=schedule.running(new.time_ns),
            held=schedule.held is not None and not schedule.stopped,
            asked=schedule.level(new.time_ns),
            in_flight=sum(reading.cell(Cell.IN_FLIGHT) for reading in living),
            waiting_first=sum(reading.cell(Cell.WAITING) for reading in living),
            sent=new.total[Cell.SENT],
            ok=new.total[Cell.OK],
            failed=new.total[Cell.FAILED] + _orphans(readings),
            cut=new.total[Cell.CUT],
            refused=new.total[Cell.REFUSED],
            refused_per_s=window.rate(Cell.REFUSED),
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
            tokens_per_chunk=window.tokens_per_chunk(),
        )

    def result(
        self, schedule: Schedule, readings: list[WorkerCounters], clock: str, totals: RunTotals
    ) -> LoadResult:
        """The run from ``begin`` to this moment."""
        new = self._moment(readings)
        assert self._start is not None
        whole = _Window(self._start, new, None)
        seconds = totals.duration_s
        ok = totals.fates[Fate.OK]

        def latency(values: array[float], which: Row) -> LatencySummary:
            return of_values(values) if totals.complete else whole.latency(which)

        rate = totals.output_tokens / seconds if seconds else None
        short = sum(reading.cell(Cell.MOST_SHORT) for reading in readings)
        health = whole.health(schedule, clock, readings, short, rate, totals)
        return LoadResult(
            ok=ok,
            failed=totals.fates[Fate.FAILED] + _orphans(readings),
            cut=totals.fates[Fate.CUT],
            refused=totals.fates[Fate.REFUSED],
            duration_s=seconds,
            output_tokens=totals.output_tokens,
            output_tokens_per_s=rate,
            requests_per_s=ok / seconds if seconds else None,
            ttft=latency(totals.ttft, Row.TTFT),
            tpot=latency(totals.tpot, Row.TPOT),
            itl=whole.latency(Row.ITL),
            e2e=latency(totals.e2e, Row.E2E),
            health=health,
            errors=_with_troubles(totals.errors, readings),
            late=new.total[Cell.LATE],
            not_sent=new.total[Cell.NOT_SENT],
            timed_out=totals.timed_out,
            unfinished=new.total[Cell.UNFINISHED],
            counted=totals.counted,
            prompt_tokens=totals.prompt_tokens,
            cached_tokens=totals.cached_tokens,
            service_ttft=of_values(totals.service_ttft),
            service_e2e=of_values(totals.service_e2e),
            tokens_per_chunk=whole.tokens_per_chunk(),
        )

    def _moment(self, readings: list[WorkerCounters]) -> _Moment:
        return _Moment(
            self._now(),
            total([r.words for r in readings]),
            tuple(r.words[:CELLS] for r in readings),
        )

    def _reference(self, new: _Moment) -> _Moment:
        # A beat that comes a little late must not shorten the window by a whole beat.
        earliest = new.time_ns - int(1.05 * self._window_s * NS)
        while len(self._moments) > 1 and self._moments[0].time_ns < earliest:
            self._moments.popleft()
        old = self._moments[0]
        if new.time_ns - self._moments[-1].time_ns >= self._window_s * NS / _KEPT:
            self._moments.append(new)
        return old


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

    def tokens_per_chunk(self) -> float | None:
        pieces = self.grown(Cell.PIECES)
        return self.grown(Cell.IN_PIECES) / pieces if pieces else None

    def latency(self, which: Row) -> LatencySummary:
        if which not in self._latencies:
            self._latencies[which] = self._summary(which)
        return self._latencies[which]

    def _summary(self, which: Row) -> LatencySummary:
        first, (counts,) = self._counts(which)
        return of_counts(counts, self._seconds, first=first)

    def health(
        self,
        schedule: Schedule,
        clock: str,
        readings: list[WorkerCounters],
        short: int,
        tokens_per_s: float | None,
        totals: RunTotals | None = None,
    ) -> ClientHealth:
        """All that is known of the generator, and what it can have done to each measure.

        totals: of the whole run, whose exact latencies then take the place of the histograms.
        """
        reads, unstamped = self.grown(Cell.READS), self.grown(Cell.UNSTAMPED)
        if unstamped > MAX_UNSTAMPED * reads:
            clock = "user space"
        lag, lateness = self.latency(Row.LAG), self.latency(Row.LATENESS)
        cpu, run_delay = self._busiest(Cell.CPU), self._busiest(Cell.RUN_DELAY)
        closed = schedule.plan.loop is Loop.CLOSED
        stamped = lag if clock == "kernel" else None
        facts = ClientHealth(
            verdict="",
            clock=clock,
            lag=stamped,
            lateness=None if closed else lateness,
            cpu=cpu,
            run_delay=run_delay,
            strain=tuple(strain(cpu, run_delay, stamped)),
            remedy=remedy(cpu, run_delay, len(readings)),
        )
        silent = "; ".join(reading.silent for reading in readings if reading.silent)
        gone = sum(bool(reading.trouble) for reading in readings)
        cycle, flight = self.grown(Cell.CYCLE), self.grown(Cell.FLIGHT)
        sources = Sources(
            closed=closed,
            extents=self._extents() if totals is None else {**self._extents(), **totals.extents()},
            tokens_per_s=tokens_per_s,
            window_s=self._seconds or (totals.duration_s if totals is not None else None),
            turnaround=self.grown(Cell.TURNAROUND) / cycle if cycle else 0.0,
            stalled=self.grown(Cell.STALLED) / flight if flight else 0.0,
            lag_s=lag.p99 or 0.0,
            late_s=lateness.p99 or 0.0,
            stamped=clock == "kernel",
            void=void(short=short, lost=self.grown(Cell.LOST), gone=gone, silent=silent),
        )
        return examined(facts, sources)

    def _extents(self) -> dict[Measure, Extent]:
        ttft, tpot, e2e = (self.latency(which) for which in (Row.TTFT, Row.TPOT, Row.E2E))
        return {
            Measure.TTFT: extent(ttft, self.latency(Row.TTFT_LOW)),
            Measure.ITL: self._gaps(),
            Measure.TPOT: extent(tpot, self.latency(Row.TPOT_LOW), self.latency(Row.TPOT_HIGH)),
            Measure.E2E: extent(e2e, self.latency(Row.E2E_LOW)),
        }

    def _gaps(self) -> Extent:
        """Gaps between tokens: those that are sure, with the others at either bound."""
        value = self.latency(Row.ITL)
        if not any(self._counts(Row.ITL_UNSURE)[1][0]):
            return Extent(value, value, value)
        rows = (Row.ITL, Row.ITL_UNSURE, Row.ITL_LOW, Row.ITL_HIGH)
        first, (counts, unsure, *bounds) = self._counts(*rows)
        sure = difference(counts, unsure)
        low, high = (
            of_counts(total([sure, bound]), self._seconds, first=first) for bound in bounds
        )
        return Extent(value, low, high, sum(unsure) / max(1, value.n))

    def _counts(self, *which: Row) -> tuple[int, list[array[int]]]:
        """What was counted in some histograms, cut to the octaves in which any of them counted
        something, and the first bucket of these. Few octaves of 20 hold the latencies of a load."""
        pairs = [(row(self._new.total, one), row(self._old.total, one)) for one in which]
        used = differing(pairs)
        return used.start, [difference(new[used], old[used]) for new, old in pairs]

    def _busiest(self, cell: Cell) -> float | None:
        shares = []
        for old, new in zip(self._old.workers, self._new.workers, strict=True):
            beat = new[Cell.BEAT] - old[Cell.BEAT]
            if old[Cell.BEAT] and beat > 0:
                shares.append((new[cell] - old[cell]) / beat)
        return max(shares, default=None)


def _age(moments: list[int], now: int) -> float | None:
    return max(0.0, (now - min(moments)) / NS) if moments else None


def _orphans(readings: list[WorkerCounters]) -> int:
    """Requests of workers that are gone: nothing reports how they end."""
    return sum(reading.cell(Cell.IN_FLIGHT) for reading in readings if reading.trouble)


def _with_troubles(errors: Mapping[str, int], readings: list[WorkerCounters]) -> dict[str, int]:
    found = dict(errors)
    for reading in readings:
        if reading.trouble:
            found[reading.trouble] = found.get(reading.trouble, 0) + 1
    return found
