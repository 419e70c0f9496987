"""Percentiles of a window that are exact, where the engine shows its latencies."""

from __future__ import annotations

import pytest

from llmtop.engines.core.latencies import Latencies, LatencyHistogram, bucket_of
from llmtop.engines.core.live_protocol import LiveGone
from llmtop.engines.core.samples import EngineSample, Latency, Quantile, Quantiles
from llmtop.engines.introspection.exact_latencies import AGAIN_S, SCHEDULER, ExactLatencies
from llmtop.wording.format import own_quantile

WIDE = Quantiles(Quantile(0.25, "-", 0.5), None, None, 0.3, 40, 10.0)
SAMPLE = EngineSample(5.0, 10.0, latencies={Latency.TTFT: WIDE, Latency.ITL: WIDE})


class Engine:
    """What it measured so far; one look a second."""

    def __init__(self) -> None:
        self.seconds: list[float] = []
        self.boot, self.base, self.now = "one", "arrival at the server", 100.0
        self.gone, self.looks = False, 0

    async def latencies(self) -> Latencies:
        self.looks += 1
        if self.gone:
            raise LiveGone("gone")
        buckets: dict[int, int] = {}
        for one in self.seconds:
            buckets[bucket_of(one)] = buckets.get(bucket_of(one), 0) + 1
        found = LatencyHistogram(len(self.seconds), sum(self.seconds), None, None, buckets)
        base = {"ttft": self.base}
        return Latencies({"ttft": found}, self.now, 1, base=base, boots=(self.boot,))


@pytest.fixture
def engine() -> Engine:
    return Engine()


@pytest.fixture
def exact(engine: Engine) -> ExactLatencies:
    return ExactLatencies(engine.latencies, 10.0, clock=lambda: engine.now)


async def beat(engine: Engine, exact: ExactLatencies, *seconds: float) -> EngineSample:
    engine.seconds.extend(seconds)
    engine.now += 1.0
    await exact.refresh()
    return exact.into(SAMPLE)


async def test_percentiles_of_the_window_are_exact(engine: Engine, exact: ExactLatencies) -> None:
    assert await beat(engine, exact, 9.0) == SAMPLE  # one look has no window
    found = (await beat(engine, exact, *([0.31] * 30))).latencies
    ttft = found[Latency.TTFT]
    assert ttft.p95 is not None and ttft.p95.value == pytest.approx(0.31, rel=0.01)
    assert (ttft.n, ttft.window_s, ttft.exact, ttft.p99) == (30, 1.0, 0.01, None)
    assert ttft.mean == pytest.approx(0.31)
    assert own_quantile(ttft, ttft.p95) == "310ms±1%"
    assert found[Latency.ITL] is WIDE  # not shown by the engine
    assert own_quantile(WIDE, WIDE.p50) == "250-500ms"


async def test_the_window_moves_on(engine: Engine, exact: ExactLatencies) -> None:
    await beat(engine, exact)
    await beat(engine, exact, *([5.0] * 50))
    for _ in range(12):
        last = await beat(engine, exact, *([0.1] * 5))
    ttft = last.latencies[Latency.TTFT]
    assert (ttft.n, ttft.window_s) == (50, 10.0)
    assert ttft.p95 is not None and ttft.p95.seconds == pytest.approx(0.1, rel=0.01)


async def test_a_restart_begins_a_new_window(engine: Engine, exact: ExactLatencies) -> None:
    await beat(engine, exact)
    await beat(engine, exact, *([5.0] * 50))
    engine.boot, engine.seconds = "two", []
    assert await beat(engine, exact) == SAMPLE
    assert (await beat(engine, exact, 0.2)).latencies[Latency.TTFT].n == 1


async def test_an_engine_that_does_not_answer_keeps_its_buckets(
    engine: Engine, exact: ExactLatencies
) -> None:
    await beat(engine, exact)
    await beat(engine, exact, 0.2)
    engine.gone = True
    assert await beat(engine, exact) == SAMPLE
    looks = engine.looks
    await beat(engine, exact)
    assert engine.looks == looks  # left alone for a while
    engine.gone = False
    engine.now += AGAIN_S
    await beat(engine, exact)
    assert (await beat(engine, exact, 0.2)).latencies[Latency.TTFT].exact


async def test_a_time_that_leaves_out_the_front_end_replaces_nothing(
    engine: Engine, exact: ExactLatencies
) -> None:
    engine.base = SCHEDULER
    await beat(engine, exact)
    assert await beat(engine, exact, *([0.1] * 30)) == SAMPLE


async def test_the_newest_answer_and_the_reason_for_none_are_for_others_too(
    engine: Engine, exact: ExactLatencies
) -> None:
    await exact.refresh()
    assert exact.newest is not None and exact.newest.boots == ("one",) and not exact.trouble
    engine.gone = True
    await exact.refresh()
    assert exact.newest is None and exact.trouble == "gone"
