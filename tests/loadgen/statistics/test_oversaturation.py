import heapq
import random

import pytest

from llmtop.loadgen.core.results import NOTHING, ClientHealth, LatencySummary, LoadSnapshot
from llmtop.loadgen.statistics.oversaturation import LASTS_S, Overload, oversaturated, slope
from llmtop.values import replace

Points = list[tuple[float, float]]


def line(rise: float, noise: float, seed: int, level: float = 10.0) -> Points:
    rng = random.Random(seed)
    return [(t / 2, level + rise * t / 2 + rng.gauss(0, noise)) for t in range(60)]


def test_the_slope_of_a_line_is_found_within_its_interval() -> None:
    found = slope(line(0.5, 1.0, 3))
    assert found is not None and found.low < 0.5 < found.high
    exact = slope(line(0.5, 0.0, 3))
    assert exact is not None and abs(exact.high - 0.5) < 1e-9
    assert slope([(0, 1.0)] * 20) is None
    assert slope(line(1, 0, 0)[:5]) is None


def test_both_must_grow() -> None:
    growing, flat = line(0.5, 1.0, 1), line(0.0, 1.0, 2)
    assert oversaturated(growing, growing)
    assert not oversaturated(growing, flat)
    assert not oversaturated(flat, growing)
    assert not oversaturated(growing, [])


def test_a_steady_load_is_seldom_called_oversaturated() -> None:
    calls = [oversaturated(line(0, 1, 2 * seed), line(0, 1, 2 * seed + 1)) for seed in range(400)]
    assert sum(calls) <= 4  # two one-sided 2.5 % together: one in 1600


def snapshot(asked: float, in_flight: int, ttft: float | None, e2e: float | None) -> LoadSnapshot:
    def of(value: float | None) -> LatencySummary:
        return NOTHING if value is None else LatencySummary(value, value, value, 9)

    return LoadSnapshot(
        0.0, "open", "x", True, False, asked, in_flight, 0, 0, 0, 0, 0, 10.0, None, None, None,
        of(ttft), NOTHING, NOTHING, of(e2e), ClientHealth("valid", "kernel"),
    )  # fmt: skip


def served(load: float, seed: int) -> Overload:
    """A queue before ``slots`` places, asked for ``load`` times what they serve, looked at each
    second."""
    seconds, slots, took = 60, 32, 2.0
    rng, rate, at = random.Random(seed), load * slots / took, 0.0
    free = [0.0] * slots
    requests = []
    while at < seconds:
        at += rng.expovariate(rate)
        begin = max(at, heapq.heappop(free))
        end = begin + took * rng.lognormvariate(-0.08, 0.4)
        heapq.heappush(free, end)
        requests.append((at, begin + 0.1, end))
    found = Overload()
    for now in range(1, seconds):
        flight = sum(due <= now < end for due, _, end in requests)
        waits = sorted(first - due for due, first, _ in requests if now - 10 < first <= now)
        ends = [end - due for due, _, end in requests if now - 10 < end <= now]
        middle = waits[len(waits) // 2] if waits else None
        found.update(now, snapshot(rate, flight, middle, max(ends, default=None)))
    return found


def test_an_engine_that_is_asked_for_more_than_it_serves_is_named() -> None:
    for seed in range(5):
        found = served(1.5, seed)
        assert found.ever and found.now
        assert found.since_s is not None and found.since_s < 15


def test_an_engine_that_keeps_up_is_not() -> None:
    for seed in range(5):
        found = served(0.7, seed)
        assert found.ever is False and found.since_s is None


@pytest.mark.parametrize("wide", [0.2, 1.0])
def test_what_grows_with_the_rate_is_no_overload(wide: float) -> None:
    found = Overload()
    for now in range(60):
        rate = 10 + wide * now  # a ramp: in flight and TTFT grow at an engine that keeps up
        found.update(now, snapshot(rate, int(2 * rate), 0.1 + rate / 100, 2.0))
    assert not found.ever


def test_an_engine_that_fills_up_at_first_is_not_overloaded() -> None:
    found = Overload()
    for now in range(12):
        took = 10.0 if now > 9 else None
        found.update(now, snapshot(10.0, min(100, 10 * now), 0.1 + now / 50, took))
    assert not found.ever and found.now is None


def test_it_ends_when_less_is_asked_and_a_run_keeps_that_it_was() -> None:
    found = Overload()
    for now in range(40):
        found.update(now, snapshot(10.0, 20 + 5 * now, 0.2 + now / 4, 2.0))
    assert found.now and found.ever
    assert found.since_s is not None and found.since_s <= 5 < LASTS_S + 1
    for now in range(40, 60):
        found.update(now, snapshot(5.0, 30, 0.2, 2.0))
    assert found.now is False and found.ever


def test_a_closed_loop_is_never_told() -> None:
    found = Overload()
    for now in range(40):
        closed = snapshot(10.0, 20 + 5 * now, 0.2 + now / 4, 2.0)
        found.update(now, replace(closed, loop="closed"))
    assert found.now is None and found.ever is None
