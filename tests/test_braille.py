import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmtop.tui.widgets.braille import braille_rows, overlay, plot


def test_a_rising_line_goes_from_the_lower_left_to_the_upper_right() -> None:
    assert braille_rows([0, 1, 2, 3], 2, 1, 3) == ["⡠⠊"]


def test_zero_is_drawn_and_a_gap_is_not() -> None:
    assert braille_rows([0, 0, None, None, 0, 0], 3, 1, 10) == ["⣀ ⣀"]


def test_empty_cells_are_spaces_because_a_blank_braille_cell_costs_three_bytes() -> None:
    rows = braille_rows([5, 5], 4, 3, 10)
    assert "\u2800" not in "".join(rows)
    assert [len(row) for row in rows] == [4, 4, 4]


def test_a_jump_is_joined_by_a_vertical_line() -> None:
    assert braille_rows([0, 7], 1, 2, 7) == ["⢸", "⡸"]


def test_a_gap_is_not_bridged() -> None:
    assert braille_rows([0, None, 7, 7], 2, 2, 7) == [" ⠉", "⡀ "]


def test_a_short_series_stands_at_the_right_edge() -> None:
    assert braille_rows([1, 1], 3, 1, 1) == ["  ⠉"]


def test_values_beyond_the_axis_stick_to_its_ends() -> None:
    assert braille_rows([-5, 99], 1, 1, 10, fill=False) == ["⡸"]


def test_an_area_is_filled_down_to_zero() -> None:
    assert braille_rows([3, 1], 1, 1, 3, fill=True) == ["⣧"]


def test_where_series_meet_the_dots_of_both_show_in_the_colour_of_the_later() -> None:
    low, high = plot([0, 0], 2, 1, 3), plot([0, 0, 3, 3], 2, 1, 3)
    cells = overlay([(high, "a"), (low, "b")], 2, 1)
    assert cells == [[("⣀", "a"), ("⣏", "b")]]


@given(
    st.lists(st.none() | st.floats(-1e6, 1e6), max_size=60),
    st.integers(1, 30),
    st.integers(1, 8),
    st.booleans(),
)
def test_any_series_fits_its_box_and_ascii_is_ascii(
    columns: list[float | None], width: int, height: int, fill: bool
) -> None:
    for braille in (True, False):
        rows = braille_rows(columns, width, height, 1000.0, fill=fill, braille=braille)
        assert len(rows) == height
        assert all(len(row) == width for row in rows)
        assert braille or "".join(rows).isascii()


@pytest.mark.parametrize("maximum", [0.0, -1.0])
def test_an_axis_without_extent_draws_at_its_foot(maximum: float) -> None:
    assert braille_rows([1, 1], 1, 2, maximum) == [" ", "⣀"]
