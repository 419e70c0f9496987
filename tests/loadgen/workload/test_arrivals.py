import math
import statistics
from itertools import chain, pairwise
from pathlib import Path

import pytest

from llmtop.loadgen.core.clock import NS
from llmtop.loadgen.workload.arrivals import Arrivals
from llmtop.loadgen.workload.plan import Arrival
from llmtop.loadgen.workload.shape import parse


def schedule(
    shape: str,
    seconds: float,
    arrival: Arrival,
    seed: str = "a",
    index: int = 0,
    count: int = 1,
    burstiness: float = 1.0,
) -> list[float]:
    parsed = parse(shape)
    arrivals = Arrivals(
        lambda ns: parsed.flow(ns / NS),
        0,
        arrival,
        seed,
        index,
        count,
        burstiness,
        parsed.recorded,
    )
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


@pytest.mark.parametrize("burstiness", [0.25, 1.0, 4.0])
def test_burstiness_is_the_shape_of_the_gaps_gamma_distribution(burstiness: float) -> None:
    due = schedule("hold 200", 200, Arrival.GAMMA, burstiness=burstiness)
    gaps = [b - a for a, b in pairwise(due)]
    assert len(due) == pytest.approx(40_000, rel=0.04)
    # The coefficient of variation of a gamma distribution of shape k is 1 / sqrt(k).
    spread = statistics.stdev(gaps) / statistics.mean(gaps)
    assert spread == pytest.approx(burstiness**-0.5, rel=0.06)


def test_an_infinite_burstiness_is_constant_and_the_smallest_ends() -> None:
    even = schedule("hold 50", 10, Arrival.GAMMA, burstiness=math.inf)
    assert even == schedule("hold 50", 10, Arrival.CONSTANT)
    wild = schedule("hold 0 for 2s, hold 500 for 20s", 30, Arrival.GAMMA, burstiness=0.01)
    assert wild and min(wild) > 1.99


def test_a_trace_comes_as_it_was_recorded_between_other_pieces(tmp_path: Path) -> None:
    file = tmp_path / "trace"
    moments = [100, 100.0004, 100.5, 100.5, 101.25]
    file.write_text("".join(f"{at}\n" for at in moments))
    shape = f"hold 10 for 2s, trace {file} for 3s, hold 10 for 1s"
    due = schedule(shape, 9, Arrival.CONSTANT)
    recorded = [at for at in due if 2.05 < at < 4.9]
    assert recorded == pytest.approx([2.5, 2.5, 3.25])
    assert [at for at in due if 1.999 < at < 2.05] == pytest.approx([2.0, 2.0004])
    assert due == sorted(due)
    assert len([at for at in due if at > 5]) in (9, 10, 11)
    shares = [schedule(shape, 9, Arrival.CONSTANT, index=i, count=2) for i in range(2)]
    assert sorted(chain.from_iterable(shares)) == due


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
