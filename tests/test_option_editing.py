"""Options changed on their rows, by keys, against a control that only remembers being asked."""

from collections.abc import Awaitable, Callable
from dataclasses import replace

import pytest
from textual.events import Key
from textual.pilot import Pilot

from llmtop import LlmtopError
from llmtop.engines.options import Outcome
from llmtop.tui.app import LlmtopApp
from llmtop.tui.control import FakeControl
from llmtop.tui.store import Store

Make = Callable[..., LlmtopApp]
Text = Callable[[LlmtopApp], str]
Settle = Callable[[Pilot[None]], Awaitable[None]]
WIDE = (120, 40)


async def test_an_option_is_changed_on_its_row(
    settle: Settle, screen_text: Text, make_app: Make, control: FakeControl, store: Store
) -> None:
    app = make_app()
    async with app.run_test(size=WIDE) as pilot:
        await pilot.press("o", "enter", "6", "4")
        await pilot.pause()
        assert "64_" in screen_text(app) and "was 256" in screen_text(app)
        await pilot.press("enter")
        await settle(pilot)
        assert control.calls == [("set_option", "llama", "max_num_seqs", 64, False)]
        assert "max_num_seqs = 64: applied after 12 ms" in screen_text(app)
        await pilot.press("escape", "plus")
        await settle(pilot)
        assert control.calls[-1] == ("more",)  # the dashboard has its keys back


async def test_keys_typed_ahead_reach_the_options_and_not_the_load(
    settle: Settle, make_app: Make, control: FakeControl
) -> None:
    app = make_app()
    async with app.run_test(size=WIDE) as pilot:
        await pilot.pause()
        for key in ("o", "enter", "3", "0", "enter", "escape", "b"):
            app.post_message(Key(key, key if len(key) == 1 else None))
        await pilot.pause()
        await settle(pilot)
        assert set(control.calls) == {
            ("set_option", "llama", "max_num_seqs", 30, False),
            ("burst",),
        }


async def test_lowering_the_batch_asks_whether_to_evict(
    settle: Settle, screen_text: Text, make_app: Make, control: FakeControl
) -> None:
    app = make_app()
    async with app.run_test(size=(80, 24)) as pilot:
        await pilot.press("o", "enter", "6", "4")
        await pilot.pause()
        assert "evict running requests: no" in screen_text(app)
        await pilot.press("e")
        await pilot.pause()
        assert "evict running requests: yes" in screen_text(app)
        await pilot.press("enter")
        await settle(pilot)
        assert control.calls == [("set_option", "llama", "max_num_seqs", 64, True)]
        await pilot.press("enter", "5", "1", "2")
        await pilot.pause()
        assert "evict" not in screen_text(app)


async def test_a_switch_is_switched_and_keys_typed_are_not_the_dashboards(
    settle: Settle, make_app: Make, control: FakeControl
) -> None:
    async with make_app().run_test(size=WIDE) as pilot:
        await pilot.press("o", "down", "down", "down", "enter")
        await settle(pilot)
        assert control.calls == [("set_option", "llama", "async_scheduling", False, False)]
        await pilot.press("up", "enter", "0", "b", "backspace", "escape", "escape")
        await settle(pilot)
        assert len(control.calls) == 1


@pytest.mark.parametrize(
    ("keys", "words"),
    [
        (["enter", "9", "9", "9", "9", "enter"], "max_num_seqs is at most 1,024 here"),
        (["enter", "0", "enter"], "max_num_seqs is at least 1"),
        (["enter", "x", "enter"], "max_num_seqs takes a whole number, not x"),
        (["enter", "backspace", "enter"], "max_num_seqs takes a whole number, not nothing"),
        (["down", "down", "down", "down", "enter"], "gpu_memory_utilization needs a restart"),
    ],
)
async def test_a_value_that_cannot_be_meant_is_refused_on_the_spot(
    settle: Settle,
    screen_text: Text,
    make_app: Make,
    control: FakeControl,
    keys: list[str],
    words: str,
) -> None:
    app = make_app()
    async with app.run_test(size=WIDE) as pilot:
        await pilot.press("o", *keys)
        await settle(pilot)
        assert words in screen_text(app)
        assert control.calls == []


async def test_a_refusal_of_the_engine_is_said_where_the_change_was_made(
    settle: Settle, screen_text: Text, make_app: Make, control: FakeControl
) -> None:
    control.outcome, control.reason = Outcome.REFUSED, "not \x1b[31marmed\x1b[0m at launch"
    app = make_app()
    async with app.run_test(size=WIDE) as pilot:
        await pilot.press("o", "down", "down", "enter", "2", "enter")
        await settle(pilot)
        assert "num_speculative_tokens: refused, not armed at launch" in screen_text(app)
        control.error = LlmtopError("the socket is gone")
        await pilot.press("enter", "1", "enter")
        await settle(pilot)
        assert "num_speculative_tokens stays as it is" in screen_text(app)


async def test_a_hostile_value_is_edited_as_text(
    screen_text: Text, make_app: Make, store: Store
) -> None:
    evil = "\x1b[31mred\x07\x1b]0;x\x07"
    first = store.engines["llama"].options[0]
    spec = replace(first.spec, name=evil + "name", kind=str, summary=evil)
    option = replace(first, spec=spec, value=evil, launch=evil)
    store.engines["llama"].options = (option, *store.engines["llama"].options[1:])
    app = make_app()
    async with app.run_test(size=WIDE) as pilot:
        await pilot.press("o", "enter")
        await pilot.pause()
        assert "red_" in screen_text(app)
        await pilot.press("x", "enter")
        await pilot.pause()
        assert "\x1b" not in screen_text(app) and "\x07" not in screen_text(app)
