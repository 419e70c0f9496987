from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmtop.tui.store.store import Series
from llmtop.tui.widgets.axis import ColumnCache, axis_maximum, columns, nice, time_grid


@pytest.mark.parametrize(
    ("value", "round_one"), [(0, 0), (-3, 0), (0.41, 0.5), (7, 8), (8, 8), (97, 100), (640, 800)]
)
def test_round_maxima(value: float, round_one: float) -> None:
    assert nice(value) == pytest.approx(round_one)


@given(st.floats(1e-6, 1e12))
def test_a_round_maximum_is_never_below_and_never_far_above(value: float) -> None:
    assert value * (1 - 1e-6) <= nice(value) <= value * 1.55


def axis_of(values: dict[float, float], now: float) -> float:
    """The top of the axis of a chart of 100 s at ``now``."""
    fitted = time_grid(now, 50, 100.0).fitted_from
    seen = [value for time, value in values.items() if fitted <= time <= now]
    return axis_maximum(max(seen, default=0.0), 10.0)


def test_the_axis_grows_at_once_and_shrinks_only_after_a_while() -> None:
    values = {1000.0: 70.0} | {1001.0 + second: 20.0 for second in range(300)}
    tops = [axis_of(values, 1000.0 + second) for second in range(300)]
    assert tops[0] == 80
    held = tops.index(30)
    assert 100 <= held <= 150  # out of sight, and not much longer
    assert set(tops[:held]) == {80} and set(tops[held:]) == {30}


def test_noise_around_a_boundary_moves_the_axis_at_most_twice_a_window() -> None:
    values = {1000.0 + second: 78.0 + (-3, 2, -5, 4, 1, -2)[second % 5] for second in range(400)}
    tops = [axis_of(values, 1100.0 + second) for second in range(300)]
    assert sum(a != b for a, b in pairwise(tops)) <= 6


def test_an_idle_axis_keeps_its_floor() -> None:
    assert axis_maximum(0.0, 100.0) == 100.0


def test_the_grid_moves_by_whole_cells() -> None:
    grids = [time_grid(1000.0 + tenth / 10, 50) for tenth in range(40)]
    assert {grid.cell_s for grid in grids} == {2}
    assert sorted({grid.start for grid in grids}) == [902.0, 904.0]


def test_the_window_is_at_least_what_was_asked_for() -> None:
    for cells in (7, 33, 52, 90, 300):
        grid = time_grid(12_345.6, cells, 100.0)
        assert grid.window_s >= 100
        assert grid.cell_of(12_345.6) == cells - 1
        assert grid.cell_of(grid.start - 1) is None


def test_a_sample_that_came_late_is_no_gap_but_a_pause_is() -> None:
    grid = time_grid(1009.0, 5, 10.0)  # cells of two seconds, columns of one, from 1000 on
    late = [(1000.0, 1.0), (1001.0, 1.0), (1003.02, 1.0), (1004.0, 1.0)]
    data = columns(late, grid, 1009.0, 3.0)
    assert data[:5] == [1.0] * 5
    assert data[-2:] == [None, None]


def test_a_point_without_value_is_a_gap_at_once() -> None:
    grid = time_grid(1005.0, 3, 6.0)
    points = [(1000.0, 4.0), (1001.0, None), (1003.0, 6.0)]
    assert columns(points, grid, 1005.0, 3.0) == [4.0, None, None, 6.0, 6.0, 6.0]


def test_the_future_half_of_the_last_cell_is_empty() -> None:
    grid = time_grid(1004.0, 3, 6.0)
    assert columns([(1003.5, 1.0)], grid, 1004.0, 3.0)[-2:] == [1.0, None]


def test_points_that_share_a_column_are_averaged() -> None:
    grid = time_grid(1005.0, 3, 6.0)
    assert columns([(1004.1, 2.0), (1004.6, 4.0)], grid, 1005.0, 3.0)[4] == 3.0


def test_between_two_moves_only_the_last_cell_changes() -> None:
    points = [(1000.0 + second, float(second % 7)) for second in range(60)]
    seen = [
        columns(points[: 51 + n], time_grid(1050.0 + n, 20, 40.0), 1050.0 + n, 3.0)
        for n in range(2)
    ]
    assert seen[0][:-2] == seen[1][:-2]
    assert seen[0] != seen[1]


@given(
    st.lists(
        st.tuples(st.floats(0.01, 9.0), st.one_of(st.none(), st.floats(0, 9)), st.floats(0.0, 1.0)),
        max_size=80,
    ),
    st.integers(1, 30),
)
def test_a_trail_is_what_the_whole_series_would_be(
    steps: list[tuple[float, float | None, float]], cells: int
) -> None:
    series, cache, now = Series(), ColumnCache(), 1000.0
    for pause, value, later in steps:
        series.append(now := now + pause, value)
        now += later
        grid = time_grid(now, cells, 40.0)
        whole = columns(list(series), grid, now, 3.0)
        found = cache.columns(series, grid, now, 3.0)
        # How long a value is carried into the left edge is told by its column, not its moment.
        own = series.since(grid.start)
        first = int((own[0][0] - grid.start) / (grid.cell_s / 2)) if own else len(whole)
        assert found[first:] == whole[first:]


def test_a_trail_follows_a_clock_that_was_stepped_back_and_another_series() -> None:
    one, other, cache = Series(), Series(), ColumnCache()
    for second in range(20):
        one.append(1000.0 + second, 1.0)
        other.append(1000.0 + second, 2.0)
    grid = time_grid(1019.0, 10, 20.0)
    assert set(cache.columns(one, grid, 1019.0, 3.0)[:-1]) == {1.0}
    one.append(1005.0, 7.0)
    for second in range(6, 20):
        one.append(1000.0 + second, 7.0)
    assert cache.columns(one, grid, 1019.0, 3.0) == columns(list(one), grid, 1019.0, 3.0)
    assert set(cache.columns(other, grid, 1019.0, 3.0)[:-1]) == {2.0}
    assert set(cache.columns(None, grid, 1019.0, 3.0)) == {None}
