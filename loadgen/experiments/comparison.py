"""Runs two settings in turns: A twice for the noise, then A B B A."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise

from msgspec import Struct

from llmtop.loadgen.core.results import RequestRecord
from llmtop.loadgen.experiments.level import Energy, LevelMeter, LevelResult, Traffic
from llmtop.loadgen.experiments.pair import PairResult as PairResult
from llmtop.loadgen.experiments.pair import countable
from llmtop.loadgen.experiments.paired_test import Measure, PairedRatio, judge, noise_floor, order
from llmtop.values import replace

NOISE_PAIRS = 2
LEAST_REQUESTS = (
    20  # in a run; the run is the unit, so this only keeps its p95 from being its worst
)
GIVE_UP_PAIRS = 3  # when the client was the limit in each of the first so many, it will stay so


class Turn(Struct, frozen=True):
    """Asks the owner to apply this setting, and then to call ``placed``."""

    arm: str


class CompareResult(Struct, frozen=True):
    """The result. left_out: pairs that count for no measure, because the client could not keep up
    or no request ended. complete: False when it was ended early. gave_up: why it ended itself early
    without a valid pair: what the client lacked in the last one."""

    level: int
    seconds: float
    pairs: tuple[PairResult, ...]
    findings: tuple[PairedRatio, ...]
    left_out: int
    complete: bool
    gave_up: str = ""


class ComparisonProgress(Struct, frozen=True):
    """The progress of a comparison. left_s: estimated remaining seconds."""

    run: int
    runs: int
    arm: str
    phase: str
    left_s: float


class Comparison:
    """One comparison. Hand ``take`` to the loads as on_record and call ``beat`` until it returns a
    CompareResult; when it returns a Turn, apply that setting and call ``placed``.

    pairs: their number, even. If the client may have distorted the throughput of a pair, it is run
    again, for at most half of the pairs. If for this reason none of the first three counts for any
    measure, the comparison ends.
    now: seconds on the clock of the present load's records.
    switch_s: estimated time to apply a setting, for the remaining time.
    keep_records: False drops the requests of a run after its measurement; a screen needs none.
    """

    def __init__(
        self,
        now: Callable[[], float],
        *,
        level: int,
        pairs: int = 8,
        noise_pairs: int = NOISE_PAIRS,
        seconds: float = 8.0,
        energy: Energy = lambda: None,
        seed: int = 0,
        switch_s: float = 0.0,
        keep_records: bool = True,
    ) -> None:
        self._seed, self._switch_s, self._keep = seed, switch_s, keep_records
        self._now, self._level, self._seconds, self._energy = now, level, seconds, energy
        noise = [(True, ("A", "A"))] * noise_pairs
        self._program = noise + [(False, arms) for arms in order(pairs)]
        self._spare = pairs // 2
        self._gave_up = ""
        self._pairs: list[PairResult] = []
        self._runs: list[LevelResult] = []
        self._traffic: Traffic | None = None
        self._meter: LevelMeter | None = None
        self._placed: str | None = None
        self._asked: str | None = None
        self._settling = False
        self._spent: list[float] = []

    def take(self, record: RequestRecord) -> None:
        """One request has ended."""
        if self._meter is not None:
            self._meter.take(record)

    def placed(self, traffic: Traffic, *, fresh: bool = False) -> None:
        """Report that the requested setting is in force; this is its load.

        fresh: the engine was started for it, so one complete run comes first that does not count:
        first requests fill caches and trigger compilation.
        """
        self._traffic, self._placed, self._asked = traffic, self._asked, None
        self._settling = fresh

    @property
    def running(self) -> bool:
        """Whether a run is being measured, so that the next beat wants some time to pass."""
        return self._meter is not None

    def poll(self) -> Turn | PairResult | CompareResult | None:
        """Look at the load. Never blocks; call it some five times a second."""
        if self._asked is not None:
            return None
        if self._meter is not None:
            return self._measure(self._meter)
        if not self._program:
            if self._traffic is not None:
                self._traffic.stop(drain=False)
            return self.result()
        arm = self._arm
        if arm != self._placed:
            self._asked = arm
            return Turn(arm)
        assert self._traffic is not None
        self._meter = LevelMeter(
            self._level,
            self._traffic,
            self._now,
            seconds=self._seconds,
            energy=self._energy,
            seed=self._seed,
            least=LEAST_REQUESTS,
            asked=tuple(dict.fromkeys(one.judged[0] for one in Measure)),
        )
        return None

    @property
    def sequence(self) -> str:
        """The arms of all remaining runs, such as ``AAAAABBAABBA``."""
        runs = "".join("".join(arms) for _, arms in self._program)
        return runs[len(self._runs) :]

    @property
    def standing(self) -> ComparisonProgress | None:
        """The progress; None after the end."""
        if not self._program:
            return None
        done = len(self._spent)
        runs = done + 2 * len(self._program) - len(self._runs)
        each = sum(self._spent) / done if done else 1.5 * self._seconds
        so_far, phase = 0.0, "switching"
        if self._meter is not None:
            phase = "settling after its start" if self._settling else self._meter.phase
            so_far = 0.0 if self._settling else self._meter.elapsed_s
        switches = sum(one != other for one, other in pairwise((self._placed, *self.sequence)))
        left = max(0.0, each - so_far) + (runs - done - 1) * each + switches * self._switch_s
        return ComparisonProgress(done + 1, runs, self._arm, phase, left)

    def result(self) -> CompareResult:
        """The result so far."""
        counted = [pair for pair in self._pairs if pair.counted]
        findings = []
        for measure in Measure:
            noise = noise_floor(
                _values(measure, [p for p in self._pairs if p.noise and p.counts(measure)])
            )
            found, left_out = countable([p for p in self._pairs if not p.noise], measure)
            finding = judge(measure, _values(measure, found), among=len(Measure), noise=noise)
            findings.append(replace(finding, left_out=left_out))
        return CompareResult(
            level=self._level,
            seconds=self._seconds,
            pairs=tuple(self._pairs),
            findings=tuple(findings),
            left_out=len(self._pairs) - len(counted),
            complete=not self._program and not self._gave_up,
            gave_up=self._gave_up,
        )

    @property
    def _arm(self) -> str:
        return self._program[0][1][len(self._runs)]

    def _measure(self, meter: LevelMeter) -> PairResult | None:
        run = meter.poll()
        if run is None:
            return None
        self._meter = None
        if self._settling:
            self._settling = False
            return None
        if not self._keep:
            run = replace(run, records=())
        self._runs.append(run)
        self._spent.append(run.seconds + run.warm_up_s)
        if len(self._runs) < 2:
            return None
        noise, (first, second) = self._program.pop(0)
        pair = PairResult(noise, (first, second), (self._runs[0], self._runs[1]))
        self._runs = []
        self._pairs.append(pair)
        if not pair.counts(Measure.OUTPUT_TOKENS) and not noise and self._spare:
            self._spare -= 1
            self._program.append((False, (first, second)))
        if len(self._pairs) >= GIVE_UP_PAIRS and all(p.client_bound for p in self._pairs):
            self._gave_up = pair.client_bound
            self._program.clear()
        return pair


def _values(measure: Measure, pairs: list[PairResult]) -> list[tuple[float, float]]:
    return [values for pair in pairs if (values := pair.values(measure)) is not None]
