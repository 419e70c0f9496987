"""``tune --watch``: a candidate under real traffic, and how soon one that breaks the SLO is out."""

from __future__ import annotations

import asyncio
import math

import pytest

from llmtop.engines.core.latencies import Latencies, LatencyHistogram, bucket_of
from llmtop.engines.core.steps import Step, Steps
from llmtop.operations.slo.watch_meter import WatchMeter
from llmtop.slo_control.limits import Goal
from llmtop.slo_control.search import Measured

GOAL = Goal(1.0, 0.05)
SECONDS = 8.0


class FakeTime:
    def __init__(self) -> None:
        self.now = 1000.0

    def read(self) -> float:
        return self.now

    async def sleep(self, seconds: float) -> None:
        self.now += seconds


class FakeInside:
    """An engine whose steps take ``step_s`` with ``waiting`` requests before it."""

    def __init__(self, time: FakeTime) -> None:
        self.time, self.seq, self.told = time, 0, time.now
        self.step_s, self.ttft_s, self.waiting = 0.02, 0.1, 0
        self.drained_at = math.inf  # from when on nobody waits
        self.slow = 0  # of five requests that end, so many have twice the gap between tokens
        self.ttft: dict[int, int] = {}
        self.tpot: dict[int, int] = {}

    async def steps(self) -> Steps:
        if self.time.now >= self.drained_at:
            self.waiting = 0
        found = []
        while self.told + self.step_s <= self.time.now:
            self.told += self.step_s
            self.seq += 1
            found.append(self._step())
        return Steps(tuple(found), 0, 1, {}, self.time.now)

    def _step(self) -> Step:
        tpot = self.step_s * (2 if self.seq % 5 < self.slow else 1)
        for counts, value in ((self.ttft, self.ttft_s), (self.tpot, tpot)):
            index = bucket_of(value)
            counts[index] = counts.get(index, 0) + 1
        return Step(
            seq=self.seq, end=self.told, duration_s=self.step_s, requests=8, prefills=1,
            prefill_tokens=100, decode_tokens=8, output_tokens=9, draft_tokens=0,
            accepted_tokens=0, running=9, waiting=self.waiting, kv_free_blocks=None, preempted=0,
            context_tokens=None, schedule_s=None, update_s=None, launch_s=None, host_gap_s=None,
            idle_s=0.0, cached_tokens=0, refused=0,
        )  # fmt: skip

    async def latencies(self) -> Latencies:
        return Latencies(
            {"ttft": histogram(self.ttft), "tpot": histogram(self.tpot)}, self.time.now, 1, {}
        )


def histogram(counts: dict[int, int]) -> LatencyHistogram:
    return LatencyHistogram(sum(counts.values()), 0.0, None, None, dict(counts))


@pytest.fixture
def engine() -> FakeInside:
    return FakeInside(FakeTime())


def meter(engine: FakeInside, goal: Goal = GOAL) -> WatchMeter:
    time = engine.time
    return WatchMeter(engine, goal, SECONDS, clock=time.read, wall=time.read, sleep=time.sleep)


def run(one: WatchMeter, *, own: bool) -> Measured | None:
    return asyncio.run(one.measure(own=own))


@pytest.mark.parametrize(
    "fault",
    [{"step_s": 0.2}, {"ttft_s": 3.0}, {"waiting": 400}],
    ids=["slow tokens", "late first tokens", "a queue"],
)
def test_a_candidate_that_breaks_the_slo_is_taken_back_within_three_seconds(
    engine: FakeInside, fault: dict[str, float]
) -> None:
    watched = meter(engine)
    mine = run(watched, own=True)
    assert mine is not None and mine.share > 0.95
    for name, value in fault.items():
        setattr(engine, name, value)
    begun = engine.time.now
    assert run(watched, own=False) is None
    assert engine.time.now - begun <= 3.0


@pytest.mark.parametrize("fault", [{"step_s": 0.5}, {"ttft_s": 15.0}, {"waiting": 800}])
def test_on_a_slow_engine_too(engine: FakeInside, fault: dict[str, float]) -> None:
    engine.step_s = 0.1
    watched = meter(engine, Goal(5.0, 0.25))
    run(watched, own=True)
    for name, value in fault.items():
        setattr(engine, name, value)
    begun = engine.time.now
    assert run(watched, own=False) is None
    assert engine.time.now - begun <= 3.0


def test_one_whose_mean_is_in_time_but_not_its_requests_is_taken_back_too(
    engine: FakeInside,
) -> None:
    engine.step_s = 0.03
    watched = meter(engine)
    run(watched, own=True)
    engine.slow = 2
    begun = engine.time.now
    assert run(watched, own=False) is None
    assert engine.time.now - begun <= 5.0


def test_a_candidate_that_keeps_the_slo_is_measured_to_the_end(engine: FakeInside) -> None:
    watched = meter(engine)
    run(watched, own=True)
    begun = engine.time.now
    found = run(watched, own=False)
    assert found is not None and found.share > 0.95
    assert engine.time.now - begun >= SECONDS


def test_each_limit_that_own_settings_keep_is_guarded(engine: FakeInside) -> None:
    """Tokens are too slow with own settings: first tokens must come in time nevertheless."""
    engine.step_s = 0.06
    watched = meter(engine)
    mine = run(watched, own=True)
    assert mine is not None and mine.share < 0.1
    engine.waiting = 400
    begun = engine.time.now
    assert run(watched, own=False) is None
    assert engine.time.now - begun <= 3.0


def test_the_next_run_begins_when_the_queue_of_a_bad_candidate_is_gone(engine: FakeInside) -> None:
    watched = meter(engine)
    run(watched, own=True)
    engine.waiting = 400
    assert run(watched, own=False) is None
    begun = engine.time.now
    engine.drained_at = begun + 5.0
    asyncio.run(watched.recover())
    assert 5.0 <= engine.time.now - begun <= 9.0


def test_own_settings_are_never_taken_back_and_excuse_a_candidate(engine: FakeInside) -> None:
    """Where the operator's own settings break the SLO, a candidate begins behind their queue."""
    engine.ttft_s, engine.waiting = 3.0, 400
    watched = meter(engine)
    mine = run(watched, own=True)
    assert mine is not None and mine.share < 0.1
    assert run(watched, own=False) is not None
