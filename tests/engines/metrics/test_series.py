"""What a series keeps: the newest points in their order, gaps, and what a stepped clock wrote."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from llmtop.tui.store.store import Series

VALUES = st.none() | st.floats(-1e12, 1e12)
POINTS = st.lists(st.tuples(st.integers(0, 60), VALUES), max_size=120)


@given(points=POINTS, capacity=st.integers(1, 40), since=st.floats(-5, 70))
def test_the_newest_points_are_kept_and_none_that_is_later_than_one_after_it(
    points: list[tuple[int, float | None]], capacity: int, since: float
) -> None:
    series, kept = Series(capacity), list[tuple[float, float | None]]()
    for time, value in points:
        series.append(time, value)
        kept = [*(point for point in kept if point[0] < time), (time, value)][-capacity:]
    assert list(series) == kept
    assert series.since(since) == [point for point in kept if point[0] >= since]
    assert (series.newest, series.last) == (kept[-1] if kept else (None, None))
    assert len(series) == len(kept)


def test_what_a_stepped_clock_replaced_is_counted() -> None:
    series = Series()
    for time in (1.0, 2.0, 3.0, 2.0):
        series.append(time, None if time == 1.0 else time)
    assert list(series) == [(1.0, None), (2.0, 2.0)]
    assert series.rewritten == 2
