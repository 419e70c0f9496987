from collections.abc import Sequence

from llmtop.tui.widgets.axis import TimeGrid
from llmtop.tui.widgets.chart import GUTTER, Trace, chart_rows
from llmtop.tui.widgets.glyphs import ASCII, UNICODE
from llmtop.tui.widgets.row import Row, width
from llmtop.wording import format as f
from tests.plain_rows import plain

GRID = TimeGrid(1000.0, 2, 6)


def draw(*traces: Trace, marks: Sequence[float] = (), **more: str) -> list[Row]:
    return chart_rows(
        traces,
        GRID,
        3,
        10.0,
        UNICODE,
        label=f.short,
        marks=[(mark, "mark") for mark in marks],
        empty=more.get("empty", ""),
    )


def test_a_chart_says_its_maximum_and_its_zero() -> None:
    lines = plain(draw(Trace([0.0] * 12, "kv")))
    assert lines == ["  10       ", "           ", "   0 ⣀⣀⣀⣀⣀⣀"]


def test_every_row_has_the_width_of_the_chart() -> None:
    rows = draw(Trace([None, 3.0, 9.0], "kv"), Trace([2.0] * 12, "tokens"), marks=[1004.0])
    assert [width(row) for row in rows] == [GUTTER + 6] * 3


def test_a_mark_stands_at_its_moment_and_does_not_hide_the_series() -> None:
    rows = draw(Trace([0.0] * 12, "kv"), marks=[1005.0, 900.0])
    assert plain(rows) == ["  10   ╎   ", "       ╎   ", "   0 ⣀⣀⣀⣀⣀⣀"]
    assert ("╎", "mark") in [(text.strip(), role) for text, role in rows[0]]


def test_the_newest_dot_is_bright() -> None:
    rows = draw(Trace([0.0] * 11 + [None], "kv"))
    assert rows[2][-1] == ("⡀", "now")


def test_a_limit_is_a_broken_line_behind_the_series() -> None:
    rows = draw(Trace([10.0] * 12, "cap", rule=True), Trace([0.0] * 6 + [10.0] * 6, "running"))
    assert plain(rows)[0][GUTTER:] == "┄┄┄⡏⠉⠉"
    assert (plain(rows)[2])[GUTTER:] == "⣀⣀⣀⠇  "


def test_a_limit_above_the_axis_is_not_drawn() -> None:
    assert "┄" not in "".join(plain(draw(Trace([99.0] * 12, "cap", rule=True))))


def test_a_chart_without_data_says_so() -> None:
    lines = plain(draw(Trace([None] * 12, "kv"), empty="no data"))
    assert lines[1].strip() == "no dat"  # cut to the chart, never wrapped
    assert [len(line) for line in lines] == [GUTTER + 6] * 3


def test_ascii_charts_are_ascii() -> None:
    rows = chart_rows(
        [Trace([1.0, 9.0, 4.0] * 4, "kv", fill=True), Trace([8.0] * 12, "cap", rule=True)],
        GRID, 3, 10.0, ASCII, label=f.short, marks=[(1003.0, "mark")],
    )  # fmt: skip
    assert "".join(plain(rows)).isascii()
