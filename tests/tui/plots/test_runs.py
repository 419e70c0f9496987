"""The runs of a comparison, one by one, as plain text."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import pytest
from textual.pilot import Pilot

from llmtop.loadgen.experiments.comparison import CompareResult
from llmtop.tui.app import LlmtopApp
from llmtop.tui.plots.runs import LEFT, runs_rows
from llmtop.tui.plots.whiskers import pair_rows
from llmtop.tui.store.store import Store
from llmtop.tui.widgets.glyphs import ASCII, UNICODE
from llmtop.tui.widgets.row import to_ascii
from llmtop.values import replace
from tests.finding_states import comparing, level
from tests.plain_rows import plain

Text = Callable[[LlmtopApp], str]
Settle = Callable[[Pilot[None]], Awaitable[None]]


def drawn(result: CompareResult, width: int = 40, height: int = 13) -> list[str]:
    rows = plain(runs_rows(result, 20, width, height, UNICODE))
    assert len(rows) == height and {len(row) for row in rows} == {width}
    return rows


def spoilt() -> CompareResult:
    result = comparing(0.0, 6).result
    bad = level(192, valid=False, cap=192)
    pair = replace(result.pairs[3], runs=(bad, result.pairs[3].runs[1]))
    return replace(result, pairs=(*result.pairs[:3], pair, *result.pairs[4:]), left_out=1)


def test_every_run_is_drawn_those_of_b_below_the_mean_of_a_where_b_gives_less() -> None:
    rows = drawn(comparing(0.0).result)[1:-2]
    middle = next(y for y, row in enumerate(rows) if row[LEFT - 1] == "A")
    assert sum(row.count("○") for row in rows) == 12 and sum(row.count("●") for row in rows) == 8
    assert all("●" not in row for row in rows[: middle + 1])
    assert rows[0].split()[1] == "+20.0%" and rows[-1].split()[1] == "-16.7%"


def test_runs_stand_in_their_order_and_those_to_come_have_their_room() -> None:
    rows = drawn(comparing(0.0, 5, over=False).result)
    at = [x for x in range(40) for row in rows[1:-2] if row[x] in "○●"]
    assert len(at) == 10 and max(at) < 40 * 3 // 4
    numbers = rows[-2][1:-1].split()
    assert numbers == ["1", "5", "10", "15", "20"]
    glyphs = [row[x] for x in sorted(at) for row in rows[1:-2] if row[x] in "○●"]
    assert "".join(glyphs) == "○○○○○●●○○●"  # A A, A A, A B, B A, A B


def test_before_a_pair_counts_runs_lie_around_the_mean_of_those_of_a() -> None:
    rows = drawn(comparing(0.0, 2, over=False).result)[1:-2]
    middle = next(y for y, row in enumerate(rows) if row[LEFT - 1] == "A")
    at = [y for y, row in enumerate(rows) if "○" in row]
    assert min(at) < middle < max(at)


def test_measures_leave_from_the_last_where_it_is_narrow() -> None:
    result = comparing(0.0).result
    assert "TPOT p50" in drawn(result, 200)[0]
    assert "TTFT p95" in drawn(result, 120)[0] and "TPOT" not in drawn(result, 120)[0]
    assert runs_rows(result, 20, 120, 6, UNICODE) == []


def test_a_run_that_the_client_spoilt_is_marked() -> None:
    rows = drawn(spoilt(), 60)
    assert "x not counted" in rows[0] and any("x" in row for row in rows[1:-2])


@pytest.mark.parametrize(
    ("width", "words"),
    [
        (78, "not counted: client-bound"),
        (118, "not counted"),
        (198, "not counted: client-bound, because a worker used 98 % of its core"),
    ],
)
def test_why_a_pair_does_not_count_is_never_torn(width: int, words: str) -> None:
    rows = plain(pair_rows(spoilt(), width, 10))
    assert {len(row) for row in rows} == {width}
    assert sum(row.rstrip().endswith(f"  {words}") for row in rows) == 1


@pytest.mark.parametrize(("width", "measures"), [(78, 2), (118, 3), (198, 4)])
def test_pairs_show_as_many_measures_as_have_room(width: int, measures: int) -> None:
    head = plain(pair_rows(comparing(0.0).result, width, 5))[0]
    assert head.count("B / A") == measures and "tok/s A" in head


def test_in_ascii() -> None:
    rows = (to_ascii(row) for row in runs_rows(spoilt(), 20, 160, 9, ASCII))
    text = "".join(plain(rows))
    assert text.isascii() and "?" not in text


@pytest.mark.parametrize(("size", "shown"), [((80, 24), False), ((120, 40), True)])
async def test_the_screen_shows_them_where_the_pairs_leave_room(
    settle: Settle, screen_text: Text, make_app: Callable[..., LlmtopApp], store: Store,
    now: float, size: tuple[int, int], shown: bool,
) -> None:  # fmt: skip
    store.comparison = comparing(now - 71, 5, over=False)
    app = make_app()
    async with app.run_test(size=size) as pilot:
        await pilot.press("c")
        await settle(pilot)
        text = screen_text(app)
        assert ("against the mean of A" in text) == shown
        assert "run 11 of 20" in text and "B, measuring" in text  # no word is torn
        assert "-14.3% .. -1.2%" in text


async def test_before_the_first_comparison_the_form_says_what_will_be_done(
    settle: Settle, screen_text: Text, make_app: Callable[..., LlmtopApp]
) -> None:
    app = make_app()
    async with app.run_test(size=(80, 24)) as pilot:
        await pilot.press("c")
        await settle(pilot)
        text = screen_text(app)
        assert "First A runs against A" in text and "the option is restored" in text
