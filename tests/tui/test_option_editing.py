"""Options changed on their rows, by keys, against a control that only remembers being asked."""

from collections.abc import Awaitable, Callable

import pytest
from textual.events import Key, Paste
from textual.pilot import Pilot

from llmtop import LlmtopError
from llmtop.engines.core.options import Outcome, RankValue
from llmtop.tui.app import LlmtopApp
from llmtop.tui.screens.restart import RestartScreen
from llmtop.tui.store.store import Store
from llmtop.values import replace
from tests.fake_control import FakeControl

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


async def test_a_pasted_value_is_typed_and_nothing_else_of_it_is_done(
    settle: Settle, screen_text: Text, make_app: Make, control: FakeControl
) -> None:
    app = make_app()
    async with app.run_test(size=WIDE) as pilot:
        await pilot.press("o")
        app.post_message(Paste("99\r"))  # nothing is being typed
        await pilot.press("enter")
        app.post_message(Paste("\r\x1b[31m64\x1b[0m\rX\rK"))
        await pilot.pause()
        assert "64_" in screen_text(app) and control.calls == []
        await pilot.press("enter")
        await settle(pilot)
        assert control.calls == [("set_option", "llama", "max_num_seqs", 64, False)]


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
        (
            ["enter", "9", "9", "9", "9", "enter"],
            "9999 is out of range: this engine takes 1 to 1,024",
        ),
        (["enter", "0", "enter"], "0 is out of range: this engine takes 1 to 1,024"),
        (["enter", "x", "enter"], "max_num_seqs takes a whole number, not 'x'"),
        (["enter", "backspace", "enter"], "max_num_seqs takes a whole number, not ''"),
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


RESTART = ("o", "down", "down", "down", "down", "enter", "2", "enter")


@pytest.mark.parametrize(("key", "rolling"), [("y", False), ("r", True)])
async def test_a_restart_says_what_it_costs_and_asks(
    settle: Settle,
    screen_text: Text,
    make_app: Make,
    control: FakeControl,
    store: Store,
    key: str,
    rolling: bool,
) -> None:
    simulate(store)
    app = make_app()
    async with app.run_test(size=(80, 24)) as pilot:
        await pilot.press(*RESTART)
        await settle(pilot)
        asked = screen_text(app)
        assert "gpu_memory_utilization 0.92 -> 2" in asked
        assert "restart, about 98 s" in asked and "358 requests in flight are stopped" in asked
        assert "rolling restart, about 98 s" in asked and "no request is stopped" in asked
        await pilot.press("enter")  # typed once too often: no answer
        await settle(pilot)
        assert control.calls == []
        await pilot.press(key)
        await settle(pilot)
        assert control.calls == [("restart", "llama", {"gpu_memory_utilization": 2.0}, rolling)]
        assert "restarted in" in screen_text(app)


async def test_a_restart_that_is_not_wanted_is_not_done(
    settle: Settle, screen_text: Text, make_app: Make, control: FakeControl
) -> None:
    app = make_app()
    async with app.run_test(size=WIDE) as pilot:
        await pilot.press(*RESTART)
        await settle(pilot)
        # One GPU, and the engine has it: there is no room for a second engine.
        assert "rolling" not in screen_text(app)
        await pilot.press("r")
        await settle(pilot)
        assert control.calls == []
        await pilot.press("escape")
        await settle(pilot)
        assert "gpu_memory_utilization stays 0.92" in screen_text(app)
        assert control.calls == []


async def test_a_restart_that_was_rolled_back_says_why(
    settle: Settle, screen_text: Text, make_app: Make, control: FakeControl
) -> None:
    control.failure = "the KV cache does not fit"
    app = make_app()
    async with app.run_test(size=WIDE) as pilot:
        await pilot.press(*RESTART, "y")
        await settle(pilot)
        assert "rolled back: the KV cache does not fit" in screen_text(app)
        control.error = LlmtopError("neither starts", "read its log")
        await pilot.press("enter", "3", "enter", "y")
        await settle(pilot)
        assert "the restart of llama failed" in screen_text(app)
        assert store_text(app).endswith("neither starts: read its log")
        assert app.is_running


async def test_an_engine_that_is_not_ours_is_not_restarted(
    settle: Settle, screen_text: Text, make_app: Make, control: FakeControl, store: Store
) -> None:
    store.engines["llama"].owned = False
    app = make_app()
    async with app.run_test(size=WIDE) as pilot:
        await pilot.press(*RESTART[:6])
        await settle(pilot)
        assert "needs a restart; llmtop did not start this" in screen_text(app)
        assert control.calls == []


def simulate(store: Store) -> None:
    status = store.engines["llama"].status
    assert status is not None
    store.engines["llama"].status = replace(status, record=replace(status.record, simulated=True))


def store_text(app: LlmtopApp) -> str:
    return app.store.events[-1].text


async def test_the_words_that_set_takes_work_on_the_row_too(
    settle: Settle, make_app: Make, control: FakeControl, store: Store
) -> None:
    track = store.engines["llama"]
    track.options = tuple(
        replace(o, minimum=0) if o.name == "num_speculative_tokens" else o for o in track.options
    )
    async with make_app().run_test(size=WIDE) as pilot:
        await pilot.press("o", "down", "down", "enter", *"on", "enter")
        await settle(pilot)
        await pilot.press("enter", *"off", "enter")
        await settle(pilot)
    asked = [call[3] for call in control.calls]
    assert asked == [3, 0]


async def test_a_number_without_a_size_is_refused(
    settle: Settle, screen_text: Text, make_app: Make, control: FakeControl
) -> None:
    app = make_app()
    async with app.run_test(size=WIDE) as pilot:
        await pilot.press("o", *["down"] * 4, "enter", *"nan", "enter")
        await settle(pilot)
        assert "gpu_memory_utilization takes a number, not nan" in screen_text(app)
        assert not isinstance(app.screen, RestartScreen) and control.calls == []


async def test_keys_are_called_the_same_on_the_row_and_on_the_last_line(
    screen_text: Text, make_app: Make
) -> None:
    app = make_app()
    async with app.run_test(size=WIDE) as pilot:
        await pilot.press("o", "enter")
        await pilot.pause()
        app.show_now()
        await pilot.pause()
        assert screen_text(app).count("enter change  esc back") == 2


def with_cap(store: Store, **fields: object) -> None:
    """The selected engine's max_num_seqs, with other facts."""
    track = store.engines[store.selected or ""]
    track.options = tuple(
        replace(o, **fields) if o.name == "max_num_seqs" else o for o in track.options
    )


async def test_ranks_that_differ_stand_side_by_side_and_the_note_in_the_hint(
    screen_text: Text, make_app: Make, store: Store
) -> None:
    ranks = (RankValue(0, 16), RankValue(1, 99))
    with_cap(store, value=16, ranks=ranks, note="for each of 2 data-parallel ranks")
    app = make_app()
    async with app.run_test(size=(200, 60)) as pilot:
        await pilot.press("o")
        await pilot.pause()
        shown = screen_text(app)
        assert "16/99" in shown and "for each of 2 data-parallel ranks" in shown


async def test_a_frozen_engine_is_not_offered_a_restart_for_what_is_live(
    settle: Settle, screen_text: Text, make_app: Make, control: FakeControl, store: Store
) -> None:
    why = "it cannot be changed now: the socket did not answer within 2 s"
    with_cap(store, value=None, obstacle=why)
    app = make_app()
    async with app.run_test(size=(200, 60)) as pilot:
        await pilot.press("o", "enter", "6", "4", "enter")
        await settle(pilot)
        assert why.removesuffix("in 2 s") in screen_text(app)
        assert not isinstance(app.screen, RestartScreen) and control.calls == []


async def test_a_rank_that_did_not_take_it_is_said_on_the_row(
    settle: Settle, screen_text: Text, make_app: Make, control: FakeControl
) -> None:
    control.outcome, control.reason = Outcome.PARTIAL, "rank 1: it did not answer"
    app = make_app()
    async with app.run_test(size=(200, 60)) as pilot:
        await pilot.press("o", "enter", "6", "4", "enter")
        await settle(pilot)
        assert "max_num_seqs = 64: partial; rank 1: it did not answer" in screen_text(app)
