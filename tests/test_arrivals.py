import statistics
from itertools import chain, pairwise

import pytest

from llmtop.loadgen.arrivals import Arrivals
from llmtop.loadgen.clock import NS
from llmtop.loadgen.plan import Arrival
from llmtop.loadgen.shape import parse


def schedule(
    shape: str, seconds: float, arrival: Arrival, seed: str = "a", index: int = 0, count: int = 1
) -> list[float]:
    parsed = parse(shape)
    arrivals = Arrivals(lambda ns: parsed.level(ns / NS), 0, arrival, seed, index, count)
    found = []
    while (due := arrivals.next_due(int(seconds * NS))) is not None:
        found.append(due / NS)
        arrivals.take()
    return found


def test_constant_arrivals_are_evenly_spaced() -> None:
    due = schedule("hold 50", 10, Arrival.CONSTANT)
    assert due == pytest.approx([(i + 1) / 50 for i in range(500)], abs=1e-6)


def test_a_ramp_sends_its_integral() -> None:
    due = schedule("ramp 0..100 over 10s", 10, Arrival.CONSTANT)
    assert len(due) in (499, 500)
    assert len([t for t in due if t < 5]) == pytest.approx(125, abs=1)


def test_poisson_gaps_are_exponential() -> None:
    due = schedule("hold 200", 100, Arrival.POISSON)
    gaps = [b - a for a, b in pairwise(due)]
    assert len(due) == pytest.approx(20_000, rel=0.04)
    assert statistics.mean(gaps) == pytest.approx(1 / 200, rel=0.04)
    # An exponential distribution's deviation equals its mean, and 63 % lie below the mean.
    assert statistics.stdev(gaps) == pytest.approx(1 / 200, rel=0.06)
    assert sum(gap < 1 / 200 for gap in gaps) / len(gaps) == pytest.approx(0.632, abs=0.02)


@pytest.mark.parametrize("arrival", list(Arrival))
def test_workers_share_one_schedule(arrival: Arrival) -> None:
    whole = schedule("hold 90 for 5s", 6, arrival)
    shares = [schedule("hold 90 for 5s", 6, arrival, index=i, count=3) for i in range(3)]
    assert sorted(chain.from_iterable(shares)) == whole
    assert {len(share) for share in shares} <= {len(whole) // 3, len(whole) // 3 + 1}


def test_the_seed_decides() -> None:
    assert schedule("hold 9", 9, Arrival.POISSON) == schedule("hold 9", 9, Arrival.POISSON)
    assert schedule("hold 9", 9, Arrival.POISSON) != schedule("hold 9", 9, Arrival.POISSON, "b")


def test_a_backlog_is_kept_without_growing() -> None:
    arrivals = Arrivals(lambda ns: 1e6, 0, Arrival.CONSTANT, "a")
    first = arrivals.next_due(3600 * NS)
    assert first is not None and first <= 2000  # the oldest of what is now 3.6 billion overdue
    assert arrivals.next_due(3600 * NS) == first


def test_nothing_is_due_at_level_zero() -> None:
    assert schedule("hold 0", 50, Arrival.POISSON) == []
