"""Quantiles with known answers, merging, and differences."""

from __future__ import annotations

import gzip
import math
import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llmtop.engines.core.samples import BucketHistogram, Quantile
from llmtop.engines.metrics.histograms import difference, histogram, mean, merge, quantile, summary
from tests.folders import TESTS
from tests.metric_page import parse

DATA = TESTS / "data" / "metrics"
INF = math.inf
TTFT = "vllm:time_to_first_token_seconds"


def of(values: list[float], bounds: tuple[float, ...] = (0.1, 0.2, 0.4, INF)) -> BucketHistogram:
    counts = tuple(float(sum(value <= bound for value in values)) for bound in bounds)
    return BucketHistogram(bounds, counts, sum(values))


def text_of(engines: dict[str, BucketHistogram], name: str = "vllm:h") -> str:
    lines = []
    for engine, hist in engines.items():
        for bound, count in zip(hist.bounds, hist.counts, strict=True):
            le = "+Inf" if bound == INF else repr(bound)
            lines.append(f'{name}_bucket{{engine="{engine}",le="{le}"}} {count!r}')
        lines.append(f'{name}_sum{{engine="{engine}"}} {hist.total!r}')
    return "\n".join(lines)


@pytest.mark.parametrize(
    ("counts", "q", "expected"),
    [
        # Ten in (0.1, 0.2], ten in (0.2, 0.4]: each bucket is twice its lower bound.
        ((0, 10, 20, 20), 0.50, Quantile(0.1, "-", 0.2)),
        ((0, 10, 20, 20), 0.51, Quantile(0.2, "-", 0.4)),
        ((0, 10, 20, 20), 0.95, Quantile(0.2, "-", 0.4)),
        # All in the first bucket: below its bound is all that is known.
        ((20, 20, 20, 20), 0.50, Quantile(0.1, "<")),
        ((20, 20, 20, 20), 0.99, Quantile(0.1, "<")),
        # On the border of the first bucket it is still in it; just past it, in the next.
        ((10, 20, 20, 20), 0.50, Quantile(0.1, "<")),
        ((10, 20, 20, 20), 0.51, Quantile(0.1, "-", 0.2)),
        # Beyond the last finite bound.
        ((0, 0, 10, 20), 0.50, Quantile(0.2, "-", 0.4)),
        ((0, 0, 10, 20), 0.95, Quantile(0.4, ">")),
        # An empty bucket between two full ones.
        ((10, 10, 20, 20), 0.75, Quantile(0.2, "-", 0.4)),
        ((0, 0, 1, 1), 0.50, Quantile(0.2, "-", 0.4)),
        ((0, 5, 5, 5), 0.0, Quantile(0.1, "-", 0.2)),
        ((0, 5, 5, 5), 1.0, Quantile(0.1, "-", 0.2)),
        ((0, 0, 0, 0), 0.50, None),
    ],
)
def test_known_quantiles(counts: tuple[float, ...], q: float, expected: Quantile | None) -> None:
    found = quantile(BucketHistogram((0.1, 0.2, 0.4, INF), counts, 1.0), q)
    if expected is None or found is None:
        assert found is expected
    else:
        assert found.relation == expected.relation
        assert found.seconds == pytest.approx(expected.seconds)


@pytest.mark.parametrize(
    ("low", "high", "known"),
    [
        (0.08, 0.1, True),  # a quarter, which floats make a little more
        (0.04, 0.05, True),
        (5.0, 6.0, True),
        (0.06, 0.08, False),
        (5.0, 10.0, False),
        (0.75, 1.0, False),
    ],
)
def test_only_a_bucket_within_a_quarter_gives_a_number(
    low: float, high: float, known: bool
) -> None:
    hist = BucketHistogram((low / 2, low, high, INF), (0.0, 0.0, 100.0, 100.0), 100 * high)
    found = quantile(hist, 0.5)
    assert found is not None
    if known:
        assert found.value == pytest.approx((low + high) / 2)
    else:
        assert found.value is None
        assert (found.relation, found.at_least, found.at_most) == ("-", low, high)


@pytest.mark.parametrize(
    ("n", "p95", "p99"), [(1, 0, 0), (19, 0, 0), (20, 1, 0), (99, 1, 0), (100, 1, 1)]
)
def test_too_few_observations_have_no_high_percentile(n: int, p95: bool, p99: bool) -> None:
    found = summary(of([0.15] * n), 10)
    assert found.p50 is not None and found.n == n
    assert ((found.p95 is not None), (found.p99 is not None)) == (p95, p99)
    assert found.mean == pytest.approx(0.15)


def test_without_a_finite_bound_nothing_is_known_but_the_mean() -> None:
    hist = BucketHistogram((INF,), (4.0,), 2.0)
    assert quantile(hist, 0.5) is None
    assert mean(hist) == 0.5
    assert quantile(BucketHistogram((), (), 0.0), 0.5) is None


def test_a_summary_says_how_many_over_how_long() -> None:
    found = summary(of([0.05, 0.15, 0.15, 0.3]), 9.5)
    assert (found.n, found.window_s) == (4, 9.5)
    assert found.mean == pytest.approx(0.1625)
    assert found.p50 == Quantile(0.1, "-", 0.2)
    nothing = summary(of([]), 9.5)
    assert (nothing.p50, nothing.p99, nothing.mean, nothing.n) == (None, None, None, 0)


def test_a_queue_of_zero_never_reads_as_a_number_inside_the_first_bucket() -> None:
    """vLLM's queue-time buckets begin at 0.3 s; other tools print 150 ms for a true 0."""
    real = gzip.decompress((DATA / "vllm_spec.txt.gz").read_bytes()).decode()
    hist = histogram(parse(real, ("vllm:",)), "vllm:request_queue_time_seconds")
    assert hist is not None
    first = BucketHistogram(hist.bounds, tuple(206.0 for _ in hist.bounds), 0.0)
    assert summary(first, 10).p99 == Quantile(0.3, "<")


def test_data_parallel_engines_are_one_distribution() -> None:
    real = gzip.decompress((DATA / "vllm_spec.txt.gz").read_bytes()).decode()
    one = histogram(parse(real, ("vllm:",)), TTFT)
    assert one is not None and one.counts[-1] == 206 and one.total == 205.48424983024597
    # The same engine twice, the second rank three times as busy in every bucket.
    second = re.sub(
        r'(engine=")0("[^\n]*} )(\S+)', lambda m: f"{m[1]}1{m[2]}{3 * float(m[3])!r}", real
    )
    text = parse(real + second, ("vllm:",))
    both = histogram(text, TTFT)
    assert both is not None
    assert both.bounds == one.bounds
    assert both.counts == tuple(4 * count for count in one.counts)
    assert both.total == pytest.approx(4 * one.total)
    assert histogram(text, TTFT, engine="0") == one
    assert histogram(text, TTFT, engine="7") is None
    assert text.value("vllm:num_requests_running") == 0
    assert text.value("vllm:generation_tokens_total") == 4 * 41200


def test_engines_with_different_buckets_meet_on_common_bounds() -> None:
    fine, coarse = of([0.05, 0.15, 0.3, 9.0]), of([0.15, 0.3, 0.3], (0.2, INF))
    found = histogram(parse(text_of({"0": fine, "1": coarse}), ("vllm:",)), "vllm:h")
    assert found is not None
    assert (found.bounds, found.counts) == ((0.2, INF), (3.0, 7.0))
    assert found.total == pytest.approx(fine.total + coarse.total)


@pytest.mark.parametrize(
    "text",
    [
        "vllm:other 1",
        'vllm:h_bucket{le="0.1"} 1\nvllm:h_bucket{le="+Inf"} 1',  # no sum
        'vllm:h_bucket{le="0.1"} 1\nvllm:h_sum 1',  # no end
        'vllm:h_bucket{le="x"} 1\nvllm:h_sum 1\nvllm:h_bucket 1\nvllm:h_bucket{le="NaN"} 1',
    ],
)
def test_half_a_histogram_is_none(text: str) -> None:
    assert histogram(parse(text, ("vllm:",)), "vllm:h") is None


def test_a_histogram_that_goes_down_is_not_believed() -> None:
    hist = BucketHistogram((0.1, 0.2, INF), (5.0, 3.0, 7.0), 1.0)
    found = histogram(parse(text_of({"0": hist}), ("vllm:",)), "vllm:h")
    assert found is not None and found.counts == (5.0, 5.0, 7.0)


def test_a_difference_after_a_restart_is_unknown() -> None:
    old, new = of([0.05, 0.15, 0.3]), of([0.05])
    assert difference(new, old) is None
    assert difference(of([0.3, 0.3, 0.3]), of([0.05])) is None  # more in all, fewer in the first
    assert difference(of([0.05], (0.1, INF)), of([0.05])) is None
    assert difference(BucketHistogram(old.bounds, old.counts, 0.1), old) is None
    assert difference(old, old) == BucketHistogram(old.bounds, (0.0, 0.0, 0.0, 0.0), 0.0)


VALUES = st.lists(st.floats(0.0, 1.0), max_size=60)


@settings(deadline=None)
@given(VALUES, VALUES)
def test_a_difference_is_what_was_observed_in_between(
    before: list[float], after: list[float]
) -> None:
    found = difference(of(before + after), of(before))
    assert found is not None
    assert found.counts == of(after).counts
    assert found.total == pytest.approx(sum(after), abs=1e-6)


@settings(deadline=None)
@given(st.lists(VALUES, min_size=1, max_size=4))
def test_merging_is_observing_all_in_one_place(parts: list[list[float]]) -> None:
    found = merge(of(part) for part in parts)
    together = of([value for part in parts for value in part])
    assert found is not None
    assert (found.bounds, found.counts) == (together.bounds, together.counts)
    assert found.total == pytest.approx(together.total)


@settings(deadline=None)
@given(st.lists(st.floats(0.0, 1.0), min_size=1, max_size=120), st.floats(0.01, 1.0))
def test_a_quantile_is_where_it_is_said_to_be(values: list[float], q: float) -> None:
    """A range holds the true value; a number is within a quarter of it."""
    bounds = (0.1, 0.2, 0.4, 0.5, 0.6, INF)
    found = quantile(of(values, bounds), q)
    true = sorted(values)[max(0, math.ceil(q * len(values) - 1e-7) - 1)]
    assert found is not None
    if found.value is not None:
        assert found.value == pytest.approx(true, rel=0.25 + 1e-9)
        return
    assert found.at_least <= true
    assert found.at_most is None or true <= found.at_most
