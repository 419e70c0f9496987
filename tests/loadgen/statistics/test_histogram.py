import random
from array import array

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmtop.loadgen.statistics.histogram import (
    BUCKETS,
    RESOLUTION,
    Histogram,
    bucket,
    difference,
    differing,
    middle_s,
    total,
)
from llmtop.loadgen.statistics.quantiles import of_counts, of_values
from llmtop.loadgen.statistics.shared_counters import SIZE, Cell, Row, SharedCounters, row


@given(st.integers(0, 1000 * 10**9))
def test_a_bucket_is_as_narrow_as_promised(nanoseconds: int) -> None:
    middle = middle_s(bucket(nanoseconds)) * 1e9
    assert abs(middle - nanoseconds) <= max(1000, RESOLUTION * nanoseconds)


@given(st.integers(-(10**9), 10**18), st.integers(0, 10**12))
def test_buckets_are_ordered_and_inside(nanoseconds: int, more: int) -> None:
    assert 0 <= bucket(nanoseconds) <= bucket(nanoseconds + more) < BUCKETS


@given(st.lists(st.integers(300_000, 10**11), min_size=1, max_size=200))
def test_quantiles_agree_with_the_values(values: list[int]) -> None:
    histogram = Histogram()
    for value in values:
        histogram.record(value)
    counted = of_counts(array("q", histogram.counts))
    exact = of_values([value / 1e9 for value in values])
    assert counted.n == exact.n == len(values)
    for have, want in (
        (counted.p50, exact.p50),
        (counted.p95, exact.p95),
        (counted.p99, exact.p99),
    ):
        assert have == pytest.approx(want, rel=RESOLUTION)


@given(st.lists(st.tuples(st.integers(0, 2**40), st.integers(0, 2**40)), min_size=1, max_size=40))
def test_a_difference_is_that_of_each_bucket(pairs: list[tuple[int, int]]) -> None:
    """Also of one that became smaller: a worker and its counts can be gone."""
    new, old = (array("q", row) for row in zip(*pairs, strict=True))
    assert list(difference(new, old)) == [one - other for one, other in pairs]
    assert list(total([new, old, new])) == [2 * one + other for one, other in pairs]


@given(st.lists(st.integers(0, 10**12), max_size=30), st.lists(st.integers(0, 10**12), max_size=30))
def test_the_octaves_that_differ_hold_all_that_was_counted(
    earlier: list[int], later: list[int]
) -> None:
    old, new = Histogram(), Histogram()
    for value in earlier:
        old.record(value)
        new.record(value)
    for value in later:
        new.record(value)
    counts = array("q", new.counts), array("q", old.counts)
    used = differing([counts])
    cut = difference(counts[0][used], counts[1][used])
    assert of_counts(cut, first=used.start) == of_counts(difference(*counts))


def test_nothing_counted_has_no_quantiles() -> None:
    for summary in (of_counts(array("q", bytes(8 * BUCKETS))), of_values([])):
        assert (summary.p50, summary.p95, summary.p99, summary.n) == (None, None, None, 0)


def test_nearest_rank() -> None:
    summary = of_values([float(i) for i in range(1, 101)])
    assert (summary.p50, summary.p95, summary.p99) == (50, 95, 99)
    assert of_values([7.0]).p99 == 7


def test_a_window_is_the_difference_of_two_copies() -> None:
    memory = bytearray(2 * SIZE)
    counters = SharedCounters(memoryview(memory)[SIZE:])  # as a second worker sees its part
    chosen = random.Random(1)
    for _ in range(1000):
        counters.itl.record(chosen.randrange(10**8))
    before = counters.copy()
    for _ in range(10):
        counters.itl.record(50_000_000)
    counters.cells[Cell.OK] += 3
    after = counters.copy()
    window = of_counts(difference(row(after, Row.ITL), row(before, Row.ITL)))
    assert window.n == 10
    assert window.p50 == pytest.approx(0.05, rel=RESOLUTION)
    assert after[Cell.OK] - before[Cell.OK] == 3
    assert not any(memory[:SIZE])
    counters.release()
