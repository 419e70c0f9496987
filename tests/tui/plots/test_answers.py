"""What stands beside a search's curve on a large screen, as plain text."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import pytest
from textual.pilot import Pilot

from llmtop.loadgen.experiments.search import Answer, End
from llmtop.tui.app import LlmtopApp
from llmtop.tui.plots.answers import answer_rows, earlier_rows
from llmtop.tui.plots.curve_axes import LEFT, Drawing, axes
from llmtop.tui.plots.per_level import tpot_rows
from llmtop.tui.store.store import Store
from llmtop.tui.widgets.glyphs import ASCII, UNICODE
from llmtop.tui.widgets.row import to_ascii
from llmtop.values import replace
from tests.finding_states import earlier, level, searching
from tests.plain_rows import plain

Text = Callable[[LlmtopApp], str]
Settle = Callable[[Pilot[None]], Awaitable[None]]
RESULT = searching(0.0).result
NARROWEST = 86  # cells inside the box on the smallest of large screens


def told(answer: Answer, *, ceiling: int | None = None, complete: bool = True) -> str:
    result = replace(RESULT, answers=(answer,), ceiling=ceiling, complete=complete, knee=None)
    rows = plain(answer_rows(result, NARROWEST))
    assert len(rows) == 2 and {len(row) for row in rows} == {NARROWEST}
    return rows[1][18:42].strip()


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (Answer(0.95, End.FOUND, 144, 160), "144 (144..160)"),
        (Answer(0.95, End.FOUND, 18_432, 20_480), "18,432 (18,432..20,480)"),
        (Answer(0.95, End.BEYOND, 256, None), "256, or more"),
        (Answer(0.95, End.NEVER, None, 4), "not even 4"),
        (Answer(0.95, End.FOUND, None, 16), "not 16"),
        (Answer(0.99, End.UNDECIDED, None, None), "cannot tell"),
    ],
)
def test_each_share_has_its_level_and_what_lies_beyond(answer: Answer, words: str) -> None:
    assert told(answer) == words


def test_a_limit_of_the_client_is_not_taken_for_the_engines() -> None:
    assert told(Answer(0.95, End.BEYOND, 256, None), ceiling=512) == "256, the client's limit"


def test_before_the_end_nothing_is_said_to_be_beyond_telling() -> None:
    assert told(Answer(0.99, End.UNDECIDED, None, None), complete=False) == "not known"


def test_the_figures_beside_an_answer_are_those_of_its_level() -> None:
    rows = plain(answer_rows(RESULT, NARROWEST))
    held = next(row for row in rows if "95% in time" in row)
    assert held.split()[-5:] == ["5,195", "40.6", "376ms", "30ms", "2.3s"]
    knee = next(row for row in rows if "best tok/s" in row)
    assert "128 (64..128)" in knee and knee.split()[-3:] == ["171ms", "30ms", "2.09s"]


def test_figures_of_a_level_that_the_client_spoilt_are_not_shown() -> None:
    spoilt = replace(RESULT, levels=(level(144, valid=False),))
    rows = plain(answer_rows(spoilt, NARROWEST))
    assert all(row.split()[-5:] == ["--"] * 5 for row in rows[1:])


def test_an_earlier_search_is_laid_beside_this_one() -> None:
    mine, older = searching(1000.0).curve, earlier(400.0, 0.8, 96)
    rows = plain(earlier_rows(mine, [earlier(0.0, 0.5, 64), older], 0.5, 1000.0, NARROWEST))
    assert rows[1].split()[:2] == ["10m00s", "ago"] and "16m40s" in rows[2]  # newest first
    assert "+35.3%" in rows[1] and "up to 64 streams" in rows[1]
    assert "max_num_seqs 96" in rows[1]


def test_without_a_limit_nothing_is_said_of_one() -> None:
    rows = plain(earlier_rows(searching(9.0).curve, [earlier(0.0, 1, 96)], None, 9.0, NARROWEST))
    assert "TTFT" not in rows[0] and "up to" not in rows[1]


def test_tpot_lies_over_the_streams_of_the_curve_with_its_limit() -> None:
    at = axes(Drawing(curve=searching(0.0).curve), 60)
    rows = plain(tpot_rows(RESULT.levels, 0.05, at, 136, 14, UNICODE))
    assert len(rows) == 14 and {len(row) for row in rows} == {LEFT + 61}
    assert rows[0].split()[0] == "60ms" and rows[-2].split()[0] == "0"
    assert any("TPOT 50ms" in row for row in rows)
    for streams in (8, 64):
        x = LEFT + at.cell(streams)
        assert any(row[x] == UNICODE.bullet for row in rows)
    assert rows[-1][LEFT + at.cell(136)] in "136" and rows[0][LEFT + at.cell(136)] == "╎"


def test_a_limit_far_above_what_is_seen_does_not_flatten_the_curve() -> None:
    at = axes(Drawing(curve=searching(0.0).curve), 60)
    rows = plain(tpot_rows(RESULT.levels, 0.5, at, None, 14, UNICODE))
    assert not any("TPOT" in row for row in rows) and rows[0].split()[0] == "40ms"


def test_before_the_first_level_and_in_ascii() -> None:
    at = axes(Drawing(), 60)
    rows = plain(to_ascii(row) for row in tpot_rows((), 0.05, at, None, 10, ASCII))
    assert len(rows) == 10 and "".join(rows).isascii() and "?" not in "".join(rows)


@pytest.mark.parametrize("size", [(160, 44), (200, 60)])
async def test_a_large_screen_says_all_of_it_and_many_levels_leave_room(
    settle: Settle, screen_text: Text, make_app: Callable[..., LlmtopApp], store: Store,
    now: float, size: tuple[int, int],
) -> None:  # fmt: skip
    state = searching(now - 200)
    many = tuple(level(streams) for streams in range(4, 28))
    store.search = replace(state, result=replace(state.result, levels=many))
    store.curves = tuple(earlier(now - 1000 * n, 0.8, 96) for n in range(8, 0, -1))
    app = make_app()
    async with app.run_test(size=size) as pilot:
        await pilot.press("s")
        await settle(pilot)
        text = screen_text(app)
        rows = text.splitlines()
        assert len(rows) == size[1] and {len(row) for row in rows} == {size[0]}
        for title in ("what it holds", "levels", "earlier searches", "99% in time"):
            assert title in text
        assert ("time per output token" in text) == (size == (200, 60))
        await pilot.press("g", "g")
        await settle(pilot)
        assert "earlier searches" not in screen_text(app)
