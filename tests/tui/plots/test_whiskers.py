"""A comparison as plain text: where interval, noise and the word fall."""

from __future__ import annotations

import pytest

from llmtop.loadgen.experiments.paired_test import Measure, PairedRatio, Verdict
from llmtop.tui.plots.whiskers import axis_reach, comparison_rows, pair_rows, whisker
from llmtop.tui.widgets.glyphs import ASCII, UNICODE
from llmtop.tui.widgets.row import to_ascii
from tests.finding_states import comparing
from tests.plain_rows import plain

T = Measure.TTFT_P50


def finding(
    ratio: float | None, low: float | None, high: float | None,
    verdict: Verdict = Verdict.CANNOT_TELL, noise: float | None = None,
) -> PairedRatio:  # fmt: skip
    return PairedRatio(T, 8, 1.0, ratio, ratio, low, high, verdict, 6, noise)


def line(one: PairedRatio, reach: float = 0.1, cells: int = 21) -> str:
    return "".join(text for text, _ in whisker(one, reach, cells, ASCII))


def test_one_is_in_the_middle_and_an_interval_lies_to_its_side() -> None:
    assert line(finding(None, None, None)) == "          |          "
    assert line(finding(1.05, 1.02, 1.08)) == "          | [##*##]  "
    low = line(finding(0.95, 0.93, 0.97))
    assert low.index("*") < 10 < low.index("|") + 1 and low.index("[") < low.index("]") < 10


def test_an_interval_that_spans_one_covers_the_middle() -> None:
    text = line(finding(1.01, 0.97, 1.05))
    assert text.index("[") < 10 < text.index("]")


def test_an_end_beyond_the_axis_has_no_bracket() -> None:
    text = line(finding(1.09, 1.02, 1.5))
    assert "[" in text and "]" not in text and text.endswith("#")
    assert line(finding(7.0, 6.0, 8.0)).endswith(">") and line(finding(0.1, 0.1, 0.2))[0] == "<"


def test_the_noise_is_a_band_behind_as_wide_up_as_down() -> None:
    text = line(finding(1.08, 1.07, 1.09, noise=1.03))
    assert text.index(":") == 7 and text.rindex(":") == 13 and text[10] == "|"
    assert text.index("[") > 13


@pytest.mark.parametrize(
    ("edge", "reach"), [(1.015, 0.02), (1.03, 0.05), (0.7, 0.5), (1.9, 1.0), (50.0, 1.0)]
)
def test_the_axis_is_a_round_one_that_holds_what_there_is(edge: float, reach: float) -> None:
    assert axis_reach([finding(1.0, min(edge, 1.0), max(edge, 1.0))]) == reach


def test_the_table_says_a_b_and_a_word_for_each_measure() -> None:
    rows = plain(comparison_rows(comparing(0.0).result, 118, 14, UNICODE))
    assert {len(row) for row in rows} == {118}
    by_name = {row[1:14].strip(): row for row in rows}
    assert by_name["output tok/s"].rstrip().endswith("worse")
    assert by_name["TTFT p50"].rstrip().endswith("worse")
    assert by_name["TPOT p50"].rstrip().endswith("more pairs")
    assert sum("n=8" in row for row in rows) == 4  # each pair is shown where there is room
    assert "A against A" in rows[-1] and "-16.7%" in rows[-1] and "+20.0%" in rows[-1]


def test_narrow_the_word_stays_and_how_many_more_is_short() -> None:
    rows = plain(comparison_rows(comparing(0.0).result, 78, 6, UNICODE))
    assert len(rows) == 6 and {len(row) for row in rows} == {78}
    assert sum("worse" in row for row in rows) == 3
    assert sum("cannot tell +" in row for row in rows) == 1


def test_where_only_one_has_room_it_is_the_word() -> None:
    for height in (6, 11):
        rows = plain(comparison_rows(comparing(0.0).result, 58, height, UNICODE))
        assert {len(row) for row in rows} == {58}
        assert sum(row.rstrip().endswith("worse") for row in rows) == 3
        assert sum(row.rstrip().endswith("cannot tell +8") for row in rows) == 1
        assert "┤" not in "".join(rows)


def test_before_the_first_pair_nothing_is_known() -> None:
    rows = plain(comparison_rows(comparing(0.0, 0, over=False).result, 118, 14, UNICODE))
    assert sum(row.rstrip().endswith("no pair") for row in rows) == 4
    assert sum("--" in row for row in rows) == 4
    assert "no pair has been run yet" in "".join(
        plain(pair_rows(comparing(0.0, 0, over=False).result, 118, 5))
    )


def test_pairs_are_listed_newest_first_with_their_order() -> None:
    rows = plain(pair_rows(comparing(0.0, 4).result, 118, 10))
    assert [row[:15].split() for row in rows[1:]] == [
        ["4", "BA"], ["3", "AB"], ["2", "noise"], ["1", "noise"],
    ]  # fmt: skip


def test_ascii_is_ascii() -> None:
    rows = comparison_rows(comparing(0.0).result, 118, 14, ASCII)
    text = "".join(plain(to_ascii(row) for row in rows))
    assert text.isascii() and "?" not in text
