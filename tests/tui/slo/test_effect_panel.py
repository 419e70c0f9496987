"""The options panel: what a typed value is expected to do, and what it then did."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import pytest
from textual.app import App
from textual.pilot import Pilot

from llmtop.operations.slo.ask import Asked, Forecast
from llmtop.operations.slo.fitted_engine import FittedEngine
from llmtop.tui.app import LlmtopApp
from llmtop.tui.commands.forecast_requests import EffectForecast, EffectQuestion, MeasuredEffect
from llmtop.tui.panels.options import OptionsPanel
from llmtop.tui.store.store import Store
from llmtop.values import replace
from tests.fake_control import FakeControl
from tests.inside_states import HELD, inside
from tests.tiers import first

Make = Callable[..., LlmtopApp]
Text = Callable[[App[None]], str]
Settle = Callable[[Pilot[None]], Awaitable[None]]
SIZES = first(2, [(80, 24), (120, 40), (200, 60)])
SLO = "ttft=1s,tpot=50ms"


def asked_of(control: FakeControl) -> list[object]:
    return [one.value if one is not None else None for one in control.expected]


async def test_each_value_that_can_be_meant_is_asked_about_once(
    make_app: Make, control: FakeControl, settle: Settle, store: Store
) -> None:
    async with make_app().run_test(size=(120, 40)) as pilot:
        await pilot.press("o", "enter")
        await settle(pilot)
        assert control.expected == []  # the value in force is no question
        await pilot.press("6", "4", "x", "backspace", "backspace")
        await settle(pilot)
        assert asked_of(control) == [6, 64, None, 64, 6]
        assert control.expected[0] == EffectQuestion("llama", "max_num_seqs", 6, SLO)
        await pilot.press("escape")
        await settle(pilot)
        assert asked_of(control)[-1] is None
        count = len(control.expected)
        await pilot.press("enter", "3", "enter")
        await settle(pilot)
        assert asked_of(control)[count:] == [3]  # which is set: it is to be measured
        store.engines["llama"].hold = HELD
        await pilot.press("enter", "5", "escape", "escape")
        await settle(pilot)
        assert control.expected[-2] is not None and control.expected[-2].slo == HELD.slo


async def test_a_pasted_value_is_asked_about(
    make_app: Make, control: FakeControl, settle: Settle
) -> None:
    async with make_app().run_test(size=(120, 40)) as pilot:
        await pilot.press("o", "enter")
        from textual.events import Paste

        pilot.app.screen.query_one(OptionsPanel).on_paste(Paste("64"))
        await settle(pilot)
        assert asked_of(control)[-1] == 64


@pytest.mark.parametrize("size", SIZES)
async def test_the_expected_effect_stands_below_the_value_and_then_the_measured_one(
    make_app: Make,
    store: Store,
    control: FakeControl,
    now: float,
    screen_text: Text,
    settle: Settle,
    known: FittedEngine,
    quick: Callable[..., Forecast],
    size: tuple[int, int],
) -> None:
    inside(store, control, now)
    async with make_app().run_test(size=size) as pilot:
        await pilot.press("o", "enter", "1", "2")
        question = EffectQuestion("llama", "max_num_seqs", 12, SLO)
        store.effect = EffectForecast(question)
        pilot.app.show_now()  # type: ignore[attr-defined]
        await settle(pilot)
        assert "expected …" in screen_text(pilot.app)
        found = quick(known, Asked({"max_num_seqs": "16"}), now=None)
        store.effect = replace(store.effect, forecast=found)
        pilot.app.show_now()  # type: ignore[attr-defined]
        await settle(pilot)
        text = screen_text(pilot.app)
        for words in ("TTFT p95", "TPOT p95", "tok/s", "in time/s", "step error", " to ", "12_"):
            assert words in text, words
        figures = {"ttft_p95": 7.7, "tpot_p95": 0.021, "output_tokens_per_s": 5432.0}
        store.effect = replace(
            store.effect, since=1.0, measured=MeasuredEffect(figures, (11.0, 12.0), 461, 10.0)
        )
        await pilot.press("escape")
        pilot.app.show_now()  # type: ignore[attr-defined]
        await settle(pilot)
        text = screen_text(pilot.app)
        for words in ("measured 7.7s", "measured 21ms", "measured 5,432", "measured 11.0 to 12.0"):
            assert words in text, words
        assert "n=461 in 10s" in text


async def test_a_refusal_says_why_and_another_option_shows_nothing_of_it(
    make_app: Make, store: Store, screen_text: Text, settle: Settle
) -> None:
    question = EffectQuestion("llama", "max_num_seqs", 16, SLO)
    store.effect = EffectForecast(question, trouble="only 12 steps were seen: send some load")
    async with make_app().run_test(size=(120, 40)) as pilot:
        await pilot.press("o", "enter", "1")
        await settle(pilot)
        assert "no forecast: only 12 steps were seen" in screen_text(pilot.app)
        await pilot.press("escape", "down")
        await settle(pilot)
        assert "no forecast" not in screen_text(pilot.app)
