"""The mouse: rows that are clicked, the wheel, and letting it go."""

from collections.abc import Awaitable, Callable

import pytest
from textual.events import MouseScrollDown, MouseScrollUp
from textual.pilot import Pilot

from llmtop.tui.app import LlmtopApp
from llmtop.tui.screens.dashboard import Dashboard
from llmtop.tui.screens.log import LogScreen
from llmtop.tui.screens.palette import PaletteScreen
from llmtop.tui.store.store import EngineTrack, Store
from tests.fake_control import FakeControl

Make = Callable[..., LlmtopApp]
Text = Callable[[LlmtopApp], str]
Settle = Callable[[Pilot[None]], Awaitable[None]]
WIDE = (120, 40)


async def test_a_click_on_an_option_takes_it_and_a_second_one_changes_it(
    settle: Settle, screen_text: Text, make_app: Make, control: FakeControl
) -> None:
    app = make_app()
    async with app.run_test(size=WIDE) as pilot:
        await pilot.click("#options", offset=(5, 2))
        await settle(pilot)
        assert "what max_num_batched_tokens limits" in screen_text(app)
        await pilot.click("#options", offset=(5, 4))
        await settle(pilot)
        assert "what async_scheduling limits" in screen_text(app)
        await pilot.click("#options", offset=(5, 4))
        await settle(pilot)
        assert control.calls == [("set_option", "llama", "async_scheduling", False, False)]
        await pilot.click("#options", offset=(5, 0))  # the border is no row
        await settle(pilot)
        assert len(control.calls) == 1


async def test_read_only_a_click_changes_nothing(
    settle: Settle, screen_text: Text, make_app: Make, control: FakeControl
) -> None:
    app = make_app(readonly=True)
    async with app.run_test(size=WIDE) as pilot:
        for _ in range(2):
            await pilot.click("#options", offset=(5, 4))
            await settle(pilot)
        assert control.calls == [] and "read-only" in screen_text(app)


async def test_a_click_on_an_engine_selects_it(
    settle: Settle,
    make_app: Make,
    control: FakeControl,
    store: Store,
    make_engine: Callable[..., EngineTrack],
) -> None:
    store.engines["second"] = make_engine("second", 8001)
    app = make_app()
    async with app.run_test(size=WIDE) as pilot:
        await pilot.click("#engines", offset=(5, 1))
        await settle(pilot)
        assert control.calls == [("select", "second")]


async def test_the_wheel_scrolls_log_help_and_palette(
    settle: Settle, screen_text: Text, make_app: Make
) -> None:
    app = make_app()
    async with app.run_test(size=(80, 24)) as pilot:
        await pilot.press("l")
        await settle(pilot)
        screen = app.screen
        assert isinstance(screen, LogScreen)
        await pilot._post_mouse_events([MouseScrollUp], "#log", offset=(3, 3))
        await settle(pilot)
        assert "3 lines below" in screen_text(app)
        await pilot._post_mouse_events([MouseScrollDown], "#log", offset=(3, 3))
        await settle(pilot)
        assert "following" in screen_text(app)
        await pilot.press("escape", "question_mark")
        await settle(pilot)
        before = screen_text(app)
        await pilot._post_mouse_events([MouseScrollDown], "#help", offset=(3, 3))
        await settle(pilot)
        assert screen_text(app) != before
        await pilot._post_mouse_events([MouseScrollUp], "#help", offset=(3, 3))
        await settle(pilot)
        assert screen_text(app) == before


async def test_a_click_in_the_palette_does_a_line_and_one_beside_it_leaves(
    settle: Settle, make_app: Make, control: FakeControl
) -> None:
    app = make_app()
    async with app.run_test(size=WIDE) as pilot:
        await pilot.press("ctrl+p")
        await settle(pilot)
        await pilot.click("#palette", offset=(10, 5))  # the fourth line
        await settle(pilot)
        await settle(pilot)
        assert control.calls == [("burst",)] and isinstance(app.screen, Dashboard)
        await pilot.press("ctrl+p")
        await settle(pilot)
        assert isinstance(app.screen, PaletteScreen)
        await pilot.click(offset=(3, 38))
        await settle(pilot)
        assert isinstance(app.screen, Dashboard) and len(control.calls) == 1


@pytest.mark.parametrize("mouse", [True, False])
async def test_the_state_of_the_mouse_is_said(
    settle: Settle, screen_text: Text, make_app: Make, mouse: bool
) -> None:
    app = make_app(mouse=mouse)
    async with app.run_test(size=(80, 24)) as pilot:
        await settle(pilot)
        assert ("mouse off" in screen_text(app)) == (not mouse)
        await pilot.press("m")
        await settle(pilot)
        assert ("mouse off" in screen_text(app)) == mouse
        said = [note.message for note in app._notifications]
        assert said == [
            "mouse off: the terminal selects text" if mouse else "mouse on: llmtop uses it"
        ]
