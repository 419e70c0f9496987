"""Measures one level of load in its steady state: reach it, warm up, measure, judge."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from itertools import pairwise
from statistics import fmean, median, stdev
from typing import Protocol

from msgspec import structs

from llmtop.loadgen.core.client_capacity import Calibration
from llmtop.loadgen.core.clock import NS
from llmtop.loadgen.core.measures import Measure, Sources
from llmtop.loadgen.core.results import (
    ClientHealth,
    Fate,
    LoadSnapshot,
    RequestRecord,
)
from llmtop.loadgen.experiments.level_result import LevelResult as LevelResult
from llmtop.loadgen.experiments.level_result import Usage as Usage
from llmtop.loadgen.experiments.slo import Slo
from llmtop.loadgen.statistics.client_health import VALID, against_capacity, balanced, examined
from llmtop.loadgen.statistics.littles_law import Balance, InFlightAccount
from llmtop.loadgen.statistics.oversaturation import slope
from llmtop.loadgen.statistics.quantiles import of_values
from llmtop.loadgen.statistics.totals import RunTotals
from llmtop.loadgen.workload.plan import Plan

LEAST_REQUESTS = 60  # 52 in time out of 52 are needed before Wilson's bound reaches 95 %
PATIENCE = 3.0  # reaching, warm-up and measuring may each take this many times the level's seconds
LEAST_WARM_UP_S = 0.5
REACHED = 0.98  # of the level: a stream between two requests is not in flight
BLOCKS = 8  # of the window, for the standard error of its throughput
DRIFT = 0.25  # of the median TTFT: larger growth within the window is not a steady state

Energy = Callable[[], float | None]


class Gauges(Protocol):
    """Watches the engine and its GPUs while a level is measured. Neither call may block."""

    def begin(self) -> None:
        """Begin a window: drop earlier observations."""
        ...

    def read(self) -> Usage:
        """The observations since then."""
        ...


class NoGauges:
    """Gauges for an engine that reports nothing."""

    def begin(self) -> None:
        """Does nothing."""

    def read(self) -> Usage:
        """Nothing seen."""
        return Usage()


class Traffic(Protocol):
    """The interface of a load; ``llmtop.loadgen.workers.load.Load`` implements it."""

    def start(self, plan: Plan) -> None:
        """Follow a plan from now on."""
        ...

    def stop(self, drain: bool = True) -> None:
        """Send nothing more."""
        ...

    def snapshot(self) -> LoadSnapshot:
        """The load now."""
        ...


class LoadClock:
    """Gives a ``Load`` its clock (``monotonic=clock.ns``) and the time since it began.

    A load counts from its creation, which is its first call.
    """

    def __init__(self, monotonic: Callable[[], int] = time.monotonic_ns) -> None:
        self._monotonic = monotonic
        self._zero: int | None = None

    def ns(self) -> int:
        """The monotonic clock, nanoseconds."""
        now = self._monotonic()
        if self._zero is None:
            self._zero = now
        return now

    def seconds(self) -> float:
        """Seconds since the load was made, as in its records."""
        now = self.ns()
        return (now - (self._zero or 0)) / NS


class LevelMeter:
    """Measures one level. Feed it every record and call ``beat`` some times a second.

    now: seconds on the clock of the records. The warm-up lasts until the level is in flight, and
    then until as many requests have ended as there are streams: by then each stream has finished
    about one request, and the transient of the step is over. The window lasts ``seconds``, or
    longer (at most three times) until ``least`` requests have ended in it. Both rules ignore the
    measured values, so the duration cannot bias the result. calibration: what the client can
    sustain. asked: the measures of interest; the level is valid if the client did not distort them.
    """

    def __init__(
        self,
        level: int,
        traffic: Traffic,
        now: Callable[[], float],
        *,
        seconds: float,
        slo: Slo | None = None,
        energy: Energy = lambda: None,
        seed: int = 0,
        least: int = LEAST_REQUESTS,
        gauges: Gauges | None = None,
        calibration: Calibration | None = None,
        asked: Sequence[Measure] = (Measure.THROUGHPUT, Measure.ATTAINMENT),
    ) -> None:
        self._asked = asked
        self._gauges, self._calibration = gauges or NoGauges(), calibration
        self.level, self.phase = level, "reaching"
        self._traffic, self._now, self._slo, self._energy = traffic, now, slo or Slo(), energy
        self._seconds, self._least = seconds, least
        self._started = self._since = now()
        self._from_above: bool | None = None
        self._reached = self._begin = 0.0
        self._turned_over = True
        self._ended_since_reached = 0
        self._records: list[RequestRecord] = []
        self._account = InFlightAccount()
        self._tokens: list[tuple[float, int]] = []
        self._in_flight: list[int] = []
        self._energy_before: float | None = None
        traffic.start(Plan(shape=f"hold {level}", seed=seed))

    def take(self, record: RequestRecord) -> None:
        """One request has ended."""
        if self.phase == "reaching":
            return
        self._ended_since_reached += 1
        self._account.take(record)
        if self.phase == "measuring" and record.intended >= self._reached:
            ended = record.last if record.fate is Fate.OK else None
            if ended is None or ended >= self._begin:
                self._records.append(record)

    @property
    def elapsed_s(self) -> float:
        """Seconds that this level has taken so far."""
        return self._now() - self._started

    def poll(self) -> LevelResult | None:
        """Read the load. Returns the level's result after the measurement."""
        now, snapshot = self._now(), self._traffic.snapshot()
        late = now - self._since >= PATIENCE * self._seconds
        if self.phase == "reaching":
            if self._from_above is None:
                self._from_above = snapshot.in_flight > self.level
            if self._is_reached(snapshot.in_flight) or late:
                self._account.sample(now, snapshot.in_flight)
                self._turned_over = not late
                self._reached = now
                self._enter("warming up", now)
        elif self.phase == "warming up":
            self._account.sample(now, snapshot.in_flight)
            turned = self._ended_since_reached >= self.level
            if (turned and now - self._since >= LEAST_WARM_UP_S) or late:
                self._turned_over &= turned
                self._begin = now
                self._energy_before = self._energy()
                self._gauges.begin()
                self._tokens.append((now, snapshot.output_tokens))
                self._enter("measuring", now)
        else:
            self._account.sample(now, snapshot.in_flight)
            self._tokens.append((now, snapshot.output_tokens))
            self._in_flight.append(snapshot.in_flight)
            enough = len(self._records) >= self._least
            if now - self._since >= self._seconds and (enough or late):
                return self._result(now, snapshot)
        return None

    def _enter(self, phase: str, now: float) -> None:
        self.phase, self._since = phase, now

    def _is_reached(self, in_flight: int) -> bool:
        if self._from_above:
            return in_flight <= self.level
        return in_flight >= REACHED * self.level

    def _result(self, now: float, snapshot: LoadSnapshot) -> LevelResult:
        energy = self._energy()
        records = tuple(r for r in self._records if r.last is None or r.last <= now)
        ok = [r for r in records if r.fate is Fate.OK]
        seconds = now - self._begin
        (_, before), (_, after) = self._tokens[0], self._tokens[-1]
        in_flight = fmean(self._in_flight)
        ended = [r.e2e for r in ok if r.e2e is not None]
        oldest = None if snapshot.oldest_s is None else now - snapshot.oldest_s
        balance = self._account.balance(oldest)
        return LevelResult(
            level=self.level,
            seconds=seconds,
            warm_up_s=self._begin - self._started,
            ok=len(ok),
            failed=sum(r.fate is Fate.FAILED for r in records),
            cut=sum(r.fate is Fate.CUT for r in records),
            refused=sum(r.fate is Fate.REFUSED for r in records),
            in_time=sum(self._slo.met(r) for r in records),
            output_tokens_per_s=max(0, after - before) / seconds,
            error=relative_error(self._tokens),
            requests_per_s=len(ok) / seconds,
            in_flight=in_flight,
            little=balance.ratio if balance is not None else None,
            steady=self._turned_over and not _grows(ok),
            stalled=not records and in_flight > 0,
            ttft=of_values([r.ttft for r in ok if r.ttft is not None]),
            tpot=of_values([r.tpot for r in ok if r.tpot is not None]),
            e2e=of_values(ended),
            itl=snapshot.itl,
            health=self._health(snapshot, records, max(0, after - before) / seconds, balance),
            usage=self._gauges.read(),
            energy_j=None
            if energy is None or self._energy_before is None
            else energy - self._energy_before,
            records=records,
        )

    def _health(
        self,
        snapshot: LoadSnapshot,
        records: Sequence[RequestRecord],
        tokens_per_s: float,
        balance: Balance | None,
    ) -> ClientHealth:
        """The possible effect of the client on this level's figures."""
        health = snapshot.health
        if self._calibration is not None:
            health = against_capacity(health, self._calibration, snapshot.chunks_per_s)
        if health.sources is None and health.verdict != VALID:
            return health  # it is not known why, so nothing can be added
        account = RunTotals()
        for record in records:
            account.add(record)
        before = health.sources or Sources()
        certain = [self._slo.extremes(record) for record in records]
        sources = structs.replace(
            before,
            extents={**before.extents, **account.extents()},
            tokens_per_s=tokens_per_s,
            attained=(
                sum(surely for surely, _ in certain),
                sum(self._slo.met(record) for record in records),
                sum(perhaps for _, perhaps in certain),
                len(records),
            ),
            void=before.void or balanced(health, balance),
        )
        return examined(health, sources, self._asked, self._slo.limits)


def relative_error(tokens: list[tuple[float, int]]) -> float | None:
    """The relative standard error of a rate, from (seconds, count so far): by batch means.

    The window is cut into eight blocks, which count as independent (Law and Kelton's method);
    None for fewer than four moments.
    """
    if len(tokens) < 4:
        return None
    begin, end = tokens[0][0], tokens[-1][0]
    marks = [tokens[0]]
    for moment in tokens[1:]:
        if moment[0] >= begin + len(marks) * (end - begin) / BLOCKS:
            marks.append(moment)
    rates = [(n - m) / (t - s) for (s, m), (t, n) in pairwise(marks) if t > s]
    if len(rates) < 3 or fmean(rates) <= 0:
        return None
    return float(stdev(rates) / fmean(rates) / len(rates) ** 0.5)


def _grows(ok: list[RequestRecord]) -> bool:
    """Whether TTFT grew significantly within the window, by a relevant amount."""
    points = [(r.intended, r.ttft) for r in ok if r.ttft is not None]
    trend = slope(points)
    if trend is None:
        return False
    span = max(x for x, _ in points) - min(x for x, _ in points)
    return trend.low > 0 and trend.estimate * span > DRIFT * median(y for _, y in points)
