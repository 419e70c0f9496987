import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmtop.tui.widgets.braille import Columns, band, overlay, plot


def drawn(
    columns: Columns,
    width: int,
    height: int,
    maximum: float,
    *,
    fill: bool = False,
    braille: bool = True,
) -> list[str]:
    """One series as ``height`` strings of ``width`` characters, the top one first."""
    grid = plot(columns, width, height, maximum, fill=fill)
    rows = overlay([(grid, "line")], width, height, braille=braille)
    return ["".join(sign for sign, _ in row) for row in rows]


def test_a_rising_line_goes_from_the_lower_left_to_the_upper_right() -> None:
    assert drawn([0, 1, 2, 3], 2, 1, 3) == ["⡠⠊"]


def test_zero_is_drawn_and_a_gap_is_not() -> None:
    assert drawn([0, 0, None, None, 0, 0], 3, 1, 10) == ["⣀ ⣀"]


def test_empty_cells_are_spaces_because_a_blank_braille_cell_costs_three_bytes() -> None:
    rows = drawn([5, 5], 4, 3, 10)
    assert "\u2800" not in "".join(rows)
    assert [len(row) for row in rows] == [4, 4, 4]


def test_a_jump_is_joined_by_a_vertical_line() -> None:
    assert drawn([0, 7], 1, 2, 7) == ["⢸", "⡸"]


def test_a_gap_is_not_bridged() -> None:
    assert drawn([0, None, 7, 7], 2, 2, 7) == [" ⠉", "⡀ "]


def test_a_short_series_stands_at_the_right_edge() -> None:
    assert drawn([1, 1], 3, 1, 1) == ["  ⠉"]


def test_values_beyond_the_axis_stick_to_its_ends() -> None:
    assert drawn([-5, 99], 1, 1, 10, fill=False) == ["⡸"]


def test_an_area_is_filled_down_to_zero() -> None:
    assert drawn([3, 1], 1, 1, 3, fill=True) == ["⣧"]


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
        rows = drawn(columns, width, height, 1000.0, fill=fill, braille=braille)
        assert len(rows) == height
        assert all(len(row) == width for row in rows)
        assert braille or "".join(rows).isascii()


@pytest.mark.parametrize("maximum", [0.0, -1.0])
def test_an_axis_without_extent_draws_at_its_foot(maximum: float) -> None:
    assert drawn([1, 1], 1, 2, maximum) == [" ", "⣀"]


def test_a_band_is_thin_enough_to_see_a_line_through_and_ends_where_it_should() -> None:
    grid = band([5.0] * 8, [10.0] * 8, 4, 5, 10.0)
    dots = sum(mask.bit_count() for row in grid for mask in row)
    assert not any(grid[3]) and not any(grid[4])  # nothing below 5
    assert any(grid[0]) and 8 < dots < 8 * 11 / 2
    exact = band([10.0] * 8, [10.0] * 8, 4, 5, 10.0)
    assert all(exact[0]) and not any(mask for row in exact[1:] for mask in row)
    open_end = band([5.0] * 8, [None] * 8, 4, 5, 20.0)
    assert any(open_end[0])
    assert not any(mask for row in band([None] * 8, [None] * 8, 4, 5, 1.0) for mask in row)
