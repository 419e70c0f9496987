"""The dashboard of an instance that is seen through a Prometheus: what it closes, and why."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from llmtop.tui.app import LlmtopApp
from tests.fake_control import FakeControl

Make = Callable[..., LlmtopApp]
Text = Callable[[LlmtopApp], str]


@pytest.fixture
def app(make_app: Make) -> LlmtopApp:
    made = make_app(readonly=True)
    made.elsewhere = "gpu-7"
    made.store.load = made.store.load_target = None
    return made


@pytest.mark.parametrize("size", [(80, 24), (120, 40)])
async def test_options_and_load_say_the_way_to_them(
    app: LlmtopApp, size: tuple[int, int], screen_text: Text
) -> None:
    async with app.run_test(size=size) as pilot:
        await pilot.pause()
        shown = screen_text(app)
        assert shown.count("only through ssh: q, then o") == 2
        assert "o options  + load  e steps" in shown.splitlines()[-1]
        assert "o to change" not in shown and "read-only" not in shown


@pytest.mark.parametrize("key", ["o", "plus", "e", "r", "H", "s", "c", "T", "l", "R", "K"])
async def test_a_key_that_is_closed_says_why(
    app: LlmtopApp, key: str, control: FakeControl
) -> None:
    async with app.run_test(size=(120, 40)) as pilot:
        await pilot.press(key)
        await pilot.pause()
        (note,) = app._notifications
        assert "this needs llmtop on gpu-7. q, then o in the table" in note.message
        assert len(app.screen_stack) == 1 and control.calls == []


async def test_q_leaves_without_a_question(app: LlmtopApp) -> None:
    async with app.run_test(size=(120, 40)) as pilot:
        await pilot.press("q")
    assert app.return_code in (0, None) and not app.is_running
