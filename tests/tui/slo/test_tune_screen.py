"""The tune screen: its form, what was tried, the verdict, and the settings that were found."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import pytest
from textual.app import App
from textual.pilot import Pilot

from llmtop.loadgen.experiments import slo
from llmtop.slo_control.search import Verdict
from llmtop.tui.app import LlmtopApp
from llmtop.tui.commands.experiment_requests import TunePlan
from llmtop.tui.screens.slo.tune import TuneScreen
from llmtop.tui.store.store import Store
from llmtop.values import replace
from tests.fake_control import FakeControl
from tests.tiers import first
from tests.tune_states import BEST, LINE, tuning

Make = Callable[..., LlmtopApp]
Text = Callable[[App[None]], str]
Settle = Callable[[Pilot[None]], Awaitable[None]]
SIZES = first(2, [(80, 24), (120, 40), (200, 60)])


@pytest.mark.parametrize("size", SIZES)
async def test_the_form_starts_a_tune_of_the_load_that_runs(
    make_app: Make, control: FakeControl, screen_text: Text, settle: Settle, size: tuple[int, int]
) -> None:
    async with make_app().run_test(size=size) as pilot:
        await pilot.press("T")
        await pilot.pause()
        text = screen_text(pilot.app)
        assert "ttft=1s,tpot=50ms_" in text and "358" in text and "streams" in text
        assert "the running load is stopped first" in text
        assert "dashboard." in text  # the end of the explanation
        await pilot.press("down", *"80", "down", "left", "down", "right", "right", "enter")
        await settle(pilot)
        (call,) = control.calls
        plan = call[1]
        assert call[0] == "start_tune" and isinstance(plan, TunePlan)
        assert (plan.engine, plan.level, plan.is_open) == ("llama", 80.0, True)
        assert plan.roles == ("batch_limit", "queue_limit")
        assert plan.slo == slo.parse("ttft=1s,tpot=50ms") and plan.most_s is None


@pytest.mark.parametrize(("typed", "seconds"), [("5m", 300.0), ("285", 285.0), ("none", None)])
async def test_the_form_takes_a_limit_of_time(
    make_app: Make, control: FakeControl, settle: Settle, typed: str, seconds: float | None
) -> None:
    async with make_app().run_test(size=(120, 40)) as pilot:
        await pilot.press("T", *["down"] * 5, *typed, "enter")
        await settle(pilot)
        plan = control.calls[0][1]
        assert isinstance(plan, TunePlan) and plan.most_s == seconds


@pytest.mark.parametrize(
    ("keys", "words"),
    [
        (["f", "a", "s", "t"], "not a limit"),
        (["down", "x"], "load"),
        (["down", "down", "down", "down", "1"], "2 to 3,600"),
        (["down", "down", "down", "down", "down", "9"], "is not 10s to 7d, or no limit"),
        (["down", "down", "down", "down", "down", *"soon"], "is not 10s to 7d, or no limit"),
        (["down", "down", "down", "down", *"25", "down", *"20s"], "a run of 25s and the restore"),
    ],
)
async def test_what_cannot_be_meant_is_said_in_the_form(
    make_app: Make,
    control: FakeControl,
    screen_text: Text,
    settle: Settle,
    keys: list[str],
    words: str,
) -> None:
    async with make_app().run_test(size=(120, 40)) as pilot:
        await pilot.press("T", *keys, "enter")
        await settle(pilot)
        assert words in screen_text(pilot.app) and control.calls == []


@pytest.mark.parametrize("size", SIZES)
async def test_while_it_runs_the_candidates_and_the_time_left_are_shown(
    make_app: Make,
    control: FakeControl,
    store: Store,
    screen_text: Text,
    settle: Settle,
    now: float,
    size: tuple[int, int],
) -> None:
    store.tune = tuning(now - 60, over=False)
    async with make_app().run_test(size=size) as pilot:
        await pilot.press("T")
        await settle(pilot)
        text = screen_text(pilot.app)
        assert "run 8: batch 128, queue 16" in text
        assert "about 1m04s left" in text and "14.0 (13.0..15.0)" in text
        row = next(line for line in text.splitlines() if "45.8 (44.0..47.0)" in line)
        assert "▸" in row and "128" in row and "46.0" in row
        await pilot.press("x")
        await settle(pilot)
        assert control.calls == [("stop_experiment",)]


@pytest.mark.parametrize(("over", "words"), [(False, "3m45s of 4m45s left"), (True, "limit 4m45s")])
@pytest.mark.parametrize("size", SIZES)
async def test_a_limit_of_time_shows_what_is_left_of_it(
    make_app: Make,
    store: Store,
    screen_text: Text,
    settle: Settle,
    now: float,
    size: tuple[int, int],
    over: bool,
    words: str,
) -> None:
    state = tuning(now - 60, over=over)
    store.tune = replace(state, plan=replace(state.plan, most_s=285.0))
    async with make_app().run_test(size=size) as pilot:
        await pilot.press("T")
        await settle(pilot)
        assert words in screen_text(pilot.app)


@pytest.mark.parametrize("size", SIZES)
async def test_the_verdict_has_the_settings_and_a_key_that_sets_them(
    make_app: Make,
    control: FakeControl,
    store: Store,
    screen_text: Text,
    settle: Settle,
    now: float,
    size: tuple[int, int],
) -> None:
    store.tune = tuning(now - 98)
    async with make_app().run_test(size=size) as pilot:
        await pilot.press("T")
        await settle(pilot)
        text = " ".join(screen_text(pilot.app).split())
        assert (
            "serves 3.30 times (2.90 to 3.80) as many requests within TTFT <= 1s and TPOT <= 50ms"
            in text
        )
        assert "llmtop set llama max_num_seqs=128 max_queued_requests=16" in text
        assert LINE in text and "your settings are in force again" in text
        assert "best" in text and "7 runs" in text
        await pilot.press("u")
        await settle(pilot)
        assert control.calls == [("set_option", "llama", *one, False) for one in BEST.items()]


async def test_without_a_gain_there_is_nothing_to_set(
    make_app: Make,
    control: FakeControl,
    store: Store,
    screen_text: Text,
    settle: Settle,
    now: float,
) -> None:
    store.tune = tuning(now - 98, verdict=Verdict.NOTHING)
    async with make_app().run_test(size=(120, 40)) as pilot:
        await pilot.press("T")
        await settle(pilot)
        text = screen_text(pilot.app)
        assert "nothing to gain" in text and "use these settings" not in text
        assert "llmtop set" not in text
        await pilot.press("u")
        await settle(pilot)
        assert control.calls == []


async def test_readonly_has_no_tune(
    make_app: Make, control: FakeControl, screen_text: Text, settle: Settle
) -> None:
    async with make_app(readonly=True).run_test(size=(200, 60)) as pilot:
        assert "T tune" not in screen_text(pilot.app)
        await pilot.press("T")
        await settle(pilot)
        assert not isinstance(pilot.app.screen, TuneScreen) and control.calls == []
