from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from llmtop.loadgen.experiments.isotonic import falling, rising

NUMBERS = st.lists(st.floats(-1e6, 1e6), max_size=30)


def test_neighbours_in_the_wrong_order_are_pooled() -> None:
    assert rising([1, 3, 2, 4]) == [1, 2.5, 2.5, 4]
    assert rising([3, 2, 1]) == [2, 2, 2]
    assert rising([1, 3, 2, 4], [1, 1, 3, 1]) == [1, 2.25, 2.25, 4]
    assert falling([1.0, 0.9, 0.95, 0.2]) == [1.0, 0.925, 0.925, 0.2]
    assert rising([]) == []


@given(NUMBERS)
def test_the_curve_rises_and_keeps_the_mean(values: list[float]) -> None:
    smooth = rising(values)
    assert all(b >= a for a, b in pairwise(smooth))
    assert abs(sum(smooth) - sum(values)) <= 1e-6 * (1 + sum(map(abs, values)))


@given(NUMBERS)
def test_what_rises_already_is_left_alone(values: list[float]) -> None:
    assert rising(sorted(values)) == sorted(values)
