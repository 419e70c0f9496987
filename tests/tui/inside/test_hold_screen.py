"""``H``: an engine is held within latency limits, after a question."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import pytest
from textual.app import App
from textual.pilot import Pilot

from llmtop.config.file import Config
from llmtop.config.tables import ConfigTable, SloTable
from llmtop.tui.app import LlmtopApp
from llmtop.tui.screens.inside.hold import limits_in_force
from llmtop.tui.store.store import Store
from tests.fake_control import FakeControl
from tests.inside_states import HELD
from tests.tiers import first

Make = Callable[..., LlmtopApp]
Text = Callable[[App[None]], str]
Settle = Callable[[Pilot[None]], Awaitable[None]]
SIZES = first(2, [(80, 24), (120, 40), (200, 60)])


@pytest.mark.parametrize("size", SIZES)
async def test_h_asks_and_holds_within_what_is_typed(
    make_app: Make, control: FakeControl, screen_text: Text, settle: Settle, size: tuple[int, int]
) -> None:
    async with make_app().run_test(size=size) as pilot:
        await pilot.press("H")
        await pilot.pause()
        text = screen_text(pilot.app)
        assert "ttft=1s,tpot=50ms_" in text and "status 503" in text and "enter  hold it" in text
        await pilot.press("escape")
        await settle(pilot)
        assert not control.calls
        await pilot.press("H", *"ttft=2s", "enter")
        await settle(pilot)
        assert control.calls == [("start_hold", "llama", "ttft=2s")]


@pytest.mark.parametrize(
    ("typed", "words"),
    [("fast", "is not a limit"), ("e2e=3s", "e2e alone cannot be held"), ("@none", "an SLO")],
)
async def test_limits_that_cannot_be_held_are_refused_in_the_box(
    make_app: Make, control: FakeControl, screen_text: Text, settle: Settle, typed: str, words: str
) -> None:
    async with make_app().run_test(size=(120, 40)) as pilot:
        await pilot.press("H", *typed, "enter")
        await settle(pilot)
        assert words in screen_text(pilot.app)
        assert not control.calls


async def test_the_first_slo_of_the_file_that_can_be_held_is_proposed(
    make_app: Make, control: FakeControl, screen_text: Text, settle: Settle
) -> None:
    slos = {"whole": SloTable(e2e="10s"), "chat": SloTable(ttft="700ms", tpot="40ms")}
    app = make_app(config=Config(ConfigTable(slos=slos)))
    async with app.run_test(size=(120, 40)) as pilot:
        await pilot.press("H")
        await pilot.pause()
        assert "ttft=700ms,tpot=40ms_" in screen_text(pilot.app)
        await pilot.press("enter")
        await settle(pilot)
        assert control.calls == [("start_hold", "llama", "ttft=700ms,tpot=40ms")]


@pytest.mark.parametrize(
    ("held", "limits"),
    [
        ("ttft=2s,tpot=30ms", "ttft=2s,tpot=30ms"),
        ("@batch", "ttft=5000ms"),
        ("@elsewhere", "ttft=700ms"),
        ("", "ttft=700ms"),
    ],
)
def test_an_effect_is_judged_by_the_limits_that_are_held(held: str, limits: str) -> None:
    slos = {"chat": SloTable(ttft="700ms"), "batch": SloTable(ttft="5s")}
    assert limits_in_force(held, Config(ConfigTable(slos=slos))) == limits


@pytest.mark.parametrize("size", SIZES)
async def test_a_held_engine_is_marked_and_h_ends_the_hold_after_a_question(
    make_app: Make,
    store: Store,
    control: FakeControl,
    screen_text: Text,
    settle: Settle,
    size: tuple[int, int],
) -> None:
    store.engines["llama"].hold = HELD
    async with make_app().run_test(size=size) as pilot:
        await pilot.pause()
        assert "llama held" in screen_text(pilot.app).splitlines()[0]
        await pilot.press("H")
        await pilot.pause()
        text = screen_text(pilot.app)
        assert "held for ttft=1s,tpot=50ms by ann@pts/3" in text
        assert "max_num_seqs 64" in text and "your values: max_num_seqs 256" in text
        await pilot.press("n")
        await settle(pilot)
        assert not control.calls
        await pilot.press("H", "y")
        await settle(pilot)
        assert control.calls == [("end_hold", "llama")]


async def test_neither_readonly_nor_an_engine_of_others_can_be_held(
    make_app: Make, store: Store, control: FakeControl, screen_text: Text
) -> None:
    async with make_app(readonly=True).run_test(size=(120, 40)) as pilot:
        await pilot.press("H", "enter")
        await pilot.pause()
        assert "latency limits" not in screen_text(pilot.app)
        await pilot.press("question_mark")
        await pilot.pause()
        assert "keep the engine within" not in screen_text(pilot.app)
    store.engines["llama"].owned = False
    async with make_app().run_test(size=(120, 40)) as pilot:
        await pilot.press("H")
        await pilot.pause()
        assert "latency limits" not in screen_text(pilot.app)
    assert not control.calls
