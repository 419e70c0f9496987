"""Steps a load from level to level until the capacity of the engine is known."""

from __future__ import annotations

import math
from collections.abc import Callable

from msgspec import Struct

from llmtop.loadgen.core.client_capacity import Calibration
from llmtop.loadgen.core.results import RequestRecord
from llmtop.loadgen.experiments.knee import Knee
from llmtop.loadgen.experiments.level import Energy, Gauges, LevelMeter, LevelResult, Traffic
from llmtop.loadgen.experiments.search import MAIN_SHARE, Answer, Search, Trial
from llmtop.loadgen.experiments.slo import Slo
from llmtop.values import replace


class SaturationResult(Struct, frozen=True):
    """The result. levels: in the order of measurement.

    answers: one for each share of requests, () without limits. ceiling: the level at which the
    client could not keep up, or None. complete: False when it was ended early, or the client
    reached its limit before the engine. calibration: what the client can sustain, None: not
    measured.
    """

    slo: Slo | None
    levels: tuple[LevelResult, ...]
    answers: tuple[Answer, ...]
    knee: Knee | None
    ceiling: int | None
    top: int
    seconds: float
    complete: bool
    calibration: Calibration | None = None

    @property
    def client_limited(self) -> bool:
        """Whether the client reached its limit before the engine, which may sustain more."""
        if self.ceiling is None:
            return False
        main = next((one for one in self.answers if one.share == MAIN_SHARE), None)
        if main is not None:
            return main.fails is None
        return self.knee is None or self.knee.open_end

    @property
    def kv_peak(self) -> float | None:
        """The highest use of the KV cache at any level, 0..1; None: not reported."""
        peaks = [one.usage.kv_peak for one in self.levels if one.usage.kv_peak is not None]
        return max(peaks, default=None)


class Progress(Struct, frozen=True):
    """The progress of a search. left_s: estimated remaining seconds."""

    level: int
    phase: str
    done: int
    elapsed_s: float
    left_s: float


class Saturation:
    """One search. Hand ``take`` to the load as on_record, ``begin``, then call ``beat``.

    ``beat`` never blocks; call it some five times a second. now: seconds on the records' clock.
    keep_records: False drops the requests of a level after its measurement; a screen needs none.
    """

    def __init__(
        self,
        slo: Slo | None,
        now: Callable[[], float],
        *,
        top: int = 1024,
        seconds: float = 8.0,
        energy: Energy = lambda: None,
        seed: int = 0,
        search: Search | None = None,
        gauges: Gauges | None = None,
        calibration: Calibration | None = None,
        keep_records: bool = True,
    ) -> None:
        self._seed, self._keep = seed, keep_records
        self._gauges, self._calibration = gauges, calibration
        self.search = search or Search(top=top, with_limits=slo is not None)
        self._slo, self._now, self._seconds, self._energy = slo, now, seconds, energy
        self._levels: list[LevelResult] = []
        self._traffic: Traffic | None = None
        self._meter: LevelMeter | None = None
        self._began = 0.0
        self._finished = False
        self._left_s = math.inf

    def begin(self, traffic: Traffic) -> None:
        """Start the first level."""
        self._traffic, self._began = traffic, self._now()
        self._next()

    def take(self, record: RequestRecord) -> None:
        """One request has ended."""
        if self._meter is not None:
            self._meter.take(record)

    def poll(self) -> LevelResult | SaturationResult | None:
        """A level's result after its measurement, the search's at the end, else None."""
        if self._finished:
            return self.result()
        if self._meter is None:
            self._finished = True
            if self._traffic is not None:
                self._traffic.stop(drain=False)
            return self.result()
        result = self._meter.poll()
        if result is None:
            return None
        if not self._keep:
            result = replace(result, records=())
        self._levels.append(result)
        self.search.feed(trial(result))
        self._next()
        return result

    @property
    def progress(self) -> Progress | None:
        """The progress; None before the start and after the end."""
        if self._meter is None:
            return None
        done = len(self._levels)
        spent = sum(one.seconds + one.warm_up_s for one in self._levels)
        each = max(spent / done if done else 0.0, 1.5 * self._seconds)
        this = max(1.0, each - self._meter.elapsed_s)  # at least 1: the level has not ended
        # ``left`` includes the present level.
        left = this + max(0, self.search.left - 1) * each
        # If more levels are needed, or one takes longer, the figure stays the same for a while.
        self._left_s = left = min(left, self._left_s)
        return Progress(self._meter.level, self._meter.phase, done, self._now() - self._began, left)

    def result(self) -> SaturationResult:
        """The result so far."""
        search, slo = self.search, self._slo
        found = SaturationResult(
            slo=slo,
            levels=tuple(self._levels),
            answers=tuple(search.answer(share) for share in search.shares) if slo else (),
            knee=search.knee(),
            ceiling=search.ceiling,
            top=search.top,
            seconds=self._seconds,
            complete=self._finished,
            calibration=self._calibration,
        )
        return replace(found, complete=found.complete and not found.client_limited)

    def _next(self) -> None:
        level = self.search.next_level()
        self._meter = None
        if level is not None and self._traffic is not None:
            self._meter = LevelMeter(
                level,
                self._traffic,
                self._now,
                seconds=self._seconds,
                slo=self._slo,
                energy=self._energy,
                seed=self._seed,
                gauges=self._gauges,
                calibration=self._calibration,
            )


def trial(result: LevelResult) -> Trial:
    """A level's result as input of the search."""
    return Trial(
        level=result.level,
        met=result.in_time,
        n=result.n,
        throughput=result.output_tokens_per_s,
        error=result.error,
        valid=result.valid,
        stalled=result.stalled,
    )
