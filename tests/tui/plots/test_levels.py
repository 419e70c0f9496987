"""The table of levels as plain text: what leaves where it is narrow, what is said of a level."""

from __future__ import annotations

import pytest

from llmtop.loadgen.experiments.level import LevelResult
from llmtop.loadgen.experiments.saturation import SaturationResult
from llmtop.tui.plots.levels import level_rows
from llmtop.tui.widgets.glyphs import UNICODE
from llmtop.values import replace
from tests.finding_states import level, searching
from tests.plain_rows import plain

BRIEF = ("worker CPU 98%", "core wait 12%", "reads lag 123ms")


def spoilt(*causes: str) -> LevelResult:
    one = level(192, valid=False)
    return replace(one, health=replace(one.health, causes=causes))


def table(width: int, *levels: LevelResult) -> list[str]:
    known: SaturationResult = searching(0.0).result
    rows = plain(level_rows(replace(known, levels=levels), width, 14, UNICODE))
    assert {len(row) for row in rows} == {width}
    return [row.rstrip() for row in rows]


@pytest.mark.parametrize(
    ("width", "said"),
    [
        (78, "x worker CPU 98%"),
        (98, "x worker CPU 98%; core wait 12%"),
        (118, "x worker CPU 98%; core wait 12%; reads lag 123ms"),
    ],
)
def test_causes_leave_whole_and_the_last_one_said_is_not_torn(width: int, said: str) -> None:
    assert table(width, spoilt(*BRIEF))[1].endswith(f"444  {said}")


def test_where_no_cause_has_room_the_client_is_named() -> None:
    assert table(78, spoilt("a worker used 98 % of its core"))[1].endswith("  x client")


def test_columns_leave_by_rank_before_a_cause_does() -> None:
    measured = replace(level(64), energy_j=level(64).output_tokens_per_s * 8.1 / 7.5)
    heads = table(118, measured)[0]
    assert heads.split()[-2:] == ["window", "tok/J"] and "e2e" in heads and "+-" in heads
    rows = table(118, measured, spoilt("a worker used 98 % of its core"))
    assert rows[1].endswith("x a worker used 98 % of its core")
    assert "window" not in rows[0] and rows[0].endswith("tok/J") and rows[2].endswith("7.5")


def test_a_column_of_which_no_level_knows_anything_is_not_there() -> None:
    assert "tok/J" not in table(118, level(64))[0]


def test_columns_stay_where_they_are_when_a_cause_comes() -> None:
    for width in (78, 98, 118, 198):
        assert table(width, level(64))[0] == table(width, level(64), spoilt("core wait 12%"))[0]
