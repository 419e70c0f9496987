"""The screens about the inside of an engine, by their keys."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable

import pytest
from textual.app import App
from textual.pilot import Pilot

from llmtop import LlmtopError
from llmtop.engines.core.options import Applies
from llmtop.engines.core.requests import RequestTable
from llmtop.tui.app import LlmtopApp
from llmtop.tui.store.store import EngineTrack, Store
from llmtop.values import replace
from tests.fake_control import FakeControl
from tests.tiers import first

Make = Callable[..., LlmtopApp]
Text = Callable[[App[None]], str]
Settle = Callable[[Pilot[None]], Awaitable[None]]
SIZES = first(2, [(80, 24), (120, 40), (200, 60)])


def made(make_app: Make, now: float, **changes: object) -> LlmtopApp:
    return make_app(wall=lambda: now, **changes)


@pytest.mark.parametrize("size", SIZES)
async def test_the_state_line_names_the_option_and_the_key(
    make_app: Make, seen: EngineTrack, screen_text: Text, now: float, size: tuple[int, int]
) -> None:
    async with made(make_app, now).run_test(size=size) as pilot:
        await pilot.pause()
        line = screen_text(pilot.app).splitlines()[0]
        assert line.startswith(" SATURATED") and "batch limit 16 reached, 32 waiting" in line
        assert "y why" in line
        if size[0] >= 200:
            assert "max_num_seqs 16 -> 24: " in line


@pytest.mark.parametrize("size", SIZES)
async def test_why_shows_the_evidence_and_sets_the_option_after_a_question(
    make_app: Make,
    seen: EngineTrack,
    control: FakeControl,
    screen_text: Text,
    settle: Settle,
    now: float,
    size: tuple[int, int],
) -> None:
    async with made(make_app, now).run_test(size=size) as pilot:
        await pilot.press("y")
        await pilot.pause()
        text = screen_text(pilot.app)
        assert text.startswith(" SATURATED") and "since 1m12s" in text
        for words in ("batch: 16 of 16 running", "max_num_seqs 16 -> 24", "expected:", "not the"):
            assert words in text, words
        await pilot.press("enter")
        await pilot.pause()
        assert "max_num_seqs 16 -> 24" in screen_text(pilot.app)
        assert not control.calls
        await pilot.press("n")
        await settle(pilot)
        assert not control.calls
        await pilot.press("enter", "y")
        await settle(pilot)
        assert control.calls == [("set_option", "llama", "max_num_seqs", 24, False)]
        await pilot.press("escape")
        assert pilot.app.screen is pilot.app.screen_stack[0]


async def test_why_shows_a_forecast_in_the_place_of_the_estimate(
    make_app: Make, seen: EngineTrack, control: FakeControl, screen_text: Text, now: float
) -> None:
    assert seen.why is not None and seen.why.main.knob is not None
    told = {"ttft_p50_s": 0.321}
    other = replace(seen.why.main.knob, after=999, expected=told, basis="of another change")
    seen.why_forecasts = (other, replace(other, after=24, basis="forecast from its own steps"))
    async with made(make_app, now).run_test(size=(120, 40)) as pilot:
        await pilot.press("y")
        await pilot.pause()
        assert control.advised == ["llama"]
        for _ in range(2):  # on the page, and in the question
            text = screen_text(pilot.app)
            assert "expected: TTFT p50 ~321ms" in text and "forecast from its own steps" in text
            assert "of another change" not in text
            await pilot.press("enter")
            await pilot.pause()


async def test_readonly_has_neither_the_key_nor_the_change(
    make_app: Make, seen: EngineTrack, control: FakeControl, screen_text: Text, now: float
) -> None:
    async with made(make_app, now, readonly=True).run_test(size=(120, 40)) as pilot:
        await pilot.press("y")
        await pilot.pause()
        assert "set it" not in screen_text(pilot.app)
        await pilot.press("enter")
        await pilot.pause()
        await pilot.press("r")
        await pilot.pause()
        assert "abort" not in screen_text(pilot.app)
        await pilot.press("A", "Y")
        await pilot.pause()
        assert not control.calls


async def test_an_option_that_needs_a_restart_has_no_key(
    make_app: Make, seen: EngineTrack, control: FakeControl, screen_text: Text, now: float
) -> None:
    assert seen.why is not None and seen.why.main.knob is not None
    knob = replace(seen.why.main.knob, applies=Applies.RESTART)
    causes = tuple(replace(one, knob=knob) for one in seen.why.causes)
    seen.why = replace(seen.why, causes=causes)
    async with made(make_app, now).run_test(size=(120, 40)) as pilot:
        await pilot.press("y")
        await pilot.pause()
        text = screen_text(pilot.app)
        assert "needs a restart" in text and "set it" not in text
        await pilot.press("enter")
        await pilot.pause()
        assert not control.calls


@pytest.mark.parametrize("size", SIZES)
async def test_steps_show_time_tokens_and_a_histogram(
    make_app: Make, seen: EngineTrack, screen_text: Text, now: float, size: tuple[int, int]
) -> None:
    async with made(make_app, now).run_test(size=size) as pilot:
        await pilot.press("e")
        await pilot.pause()
        text = screen_text(pilot.app)
        assert re.search(r"this second \d+ steps  decode \d+%  prefill \d+%  host 0%", text)
        assert "time per step" in text and "tokens per step" in text
        assert re.search(r"p50 [\d.]+ms  p99 [\d.]+ms  n=[\d,]+", text)
        await pilot.press("y")
        await pilot.pause()
        assert "batch: 16 of 16 running" in screen_text(pilot.app)
        await pilot.press("e", "q")
        assert pilot.app.screen is pilot.app.screen_stack[0]


async def test_steps_that_were_read_are_painted_at_once(
    make_app: Make, seen: EngineTrack, screen_text: Text, now: float
) -> None:
    async with made(make_app, now).run_test(size=(120, 40)) as pilot:  # its beat is an hour
        await pilot.press("e")
        await pilot.pause()
        assert seen.steps is not None and "overwritten" not in screen_text(pilot.app)
        seen.steps.gaps.append(now - 1)
        pilot.app.steps_read("another engine")  # type: ignore[attr-defined]
        await pilot.pause()
        assert "overwritten" not in screen_text(pilot.app)
        pilot.app.steps_read(seen.name)  # type: ignore[attr-defined]
        await pilot.pause()
        assert "1 gaps: steps were overwritten before they were read" in screen_text(pilot.app)


async def test_without_steps_the_screens_say_why(
    make_app: Make, store: Store, control: FakeControl, screen_text: Text, settle: Settle
) -> None:
    store.engines["llama"].steps_missing = "only for engines started by llmtop"
    control.error = LlmtopError("requests are shown only for engines started by llmtop")
    async with make_app().run_test(size=(120, 40)) as pilot:
        await pilot.press("e")
        await pilot.pause()
        assert "only for engines started by llmtop" in screen_text(pilot.app)
        await pilot.press("escape", "r")
        await settle(pilot)
        assert "only for engines started by llmtop" in screen_text(pilot.app)


@pytest.mark.parametrize("size", SIZES)
async def test_requests_are_listed_sorted_filtered_and_detailed(
    make_app: Make,
    seen: EngineTrack,
    control: FakeControl,
    screen_text: Text,
    settle: Settle,
    size: tuple[int, int],
) -> None:
    async with make_app().run_test(size=size) as pilot:
        await pilot.press("r")
        await settle(pilot)
        text = screen_text(pilot.app)
        assert "running 128  waiting 62  the first 12 of 190" in text
        assert "cmpl-0000" in text and "decode" in text and "waiting" in text
        await pilot.press("k")
        await settle(pilot)
        assert control.sorts[-1] == "kv" and "sorted by KV blocks" in screen_text(pilot.app)
        await pilot.press("slash", *"wait", "enter")
        text = screen_text(pilot.app)
        assert "cmpl-0010" in text and "cmpl-0000" not in text
        await pilot.press("escape")
        assert "cmpl-0000" in screen_text(pilot.app)
        await pilot.press("up", "up", "enter")  # the cursor has stayed on cmpl-0010
        text = screen_text(pilot.app)
        assert "prompt tokens         1,821, cached 0" in text
        await pilot.press("escape", "escape")
        assert pilot.app.screen is pilot.app.screen_stack[0]


async def test_abort_asks_first_and_only_capital_y_is_a_yes(
    make_app: Make,
    seen: EngineTrack,
    control: FakeControl,
    screen_text: Text,
    settle: Settle,
) -> None:
    async with make_app().run_test(size=(120, 40)) as pilot:
        await pilot.press("r")
        await settle(pilot)
        await pilot.press("down", "A")
        await pilot.pause()
        text = screen_text(pilot.app)
        assert "cmpl-0001" in text and "decode, 11" in text
        await pilot.press("enter", "y")
        assert not control.calls
        await pilot.press("n")
        await settle(pilot)
        assert not control.calls
        await pilot.press("A", "Y")
        await settle(pilot)
        assert control.calls == [("abort", "llama", ("cmpl-0001",))]


async def test_the_cursor_stays_on_its_request(
    make_app: Make,
    seen: EngineTrack,
    control: FakeControl,
    table: RequestTable,
    screen_text: Text,
    settle: Settle,
) -> None:
    async with make_app().run_test(size=(120, 40)) as pilot:
        await pilot.press("r")
        await settle(pilot)
        await pilot.press("down", "down")
        control.table = replace(table, rows=table.rows[1:])
        pilot.app.screen.read()  # type: ignore[attr-defined]
        await settle(pilot)
        line = next(row for row in screen_text(pilot.app).splitlines() if row.startswith("▸"))
        assert "cmpl-0002" in line


async def test_the_large_layout_has_the_steps_and_the_small_ones_have_not(
    make_app: Make, seen: EngineTrack, screen_text: Text, now: float
) -> None:
    async with made(make_app, now).run_test(size=(200, 60)) as pilot:
        await pilot.pause()
        assert "time per step" in screen_text(pilot.app)
        await pilot.resize_terminal(120, 40)
        await pilot.pause()
        assert "time per step" not in screen_text(pilot.app)
