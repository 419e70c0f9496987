"""Log, help and the question on leaving, by their keys."""

from collections.abc import Awaitable, Callable

import pytest
from textual.events import Key
from textual.pilot import Pilot

from llmtop import LlmtopError
from llmtop.analysis.series import SeriesName as S
from llmtop.config.key_table import COMMANDS, Place
from llmtop.config.keymap import DEFAULT
from llmtop.engines.core.records import State
from llmtop.tui.app import LlmtopApp
from llmtop.tui.screens.dashboard import Dashboard
from llmtop.tui.screens.help import HelpScreen, help_rows
from llmtop.tui.screens.log import LogScreen
from llmtop.tui.store.store import Store
from llmtop.values import replace
from tests.fake_control import FakeControl
from tests.plain_rows import plain
from tests.tiers import first

Make = Callable[..., LlmtopApp]
Text = Callable[[LlmtopApp], str]
Settle = Callable[[Pilot[None]], Awaitable[None]]
WIDE = (120, 40)


async def test_the_log_follows_and_can_be_scrolled(
    settle: Settle, screen_text: Text, make_app: Make, control: FakeControl
) -> None:
    control.log[-1] = "ERROR \x1b]0;x\x07[bold]last\x1b[2J"
    app = make_app()
    async with app.run_test(size=(80, 24)) as pilot:
        await pilot.press("l")
        await settle(pilot)
        assert isinstance(app.screen, LogScreen)
        assert "ERROR [bold]last" in screen_text(app) and "following" in screen_text(app)
        await pilot.press("up", "up", "k")
        await pilot.pause()
        assert "3 lines below" in screen_text(app) and "ERROR" not in screen_text(app)
        await pilot.press("home")
        await pilot.pause()
        assert "line 0 " in screen_text(app)
        await pilot.press("end")
        await pilot.pause()
        assert "following" in screen_text(app)
        await pilot.press("escape")
        await pilot.pause()
        assert isinstance(app.screen, Dashboard)


async def test_a_log_that_grows_stays_put_for_who_scrolled_up(
    settle: Settle, screen_text: Text, make_app: Make, control: FakeControl
) -> None:
    app = make_app()
    async with app.run_test(size=(80, 24)) as pilot:
        await pilot.press("l")
        await settle(pilot)
        await pilot.press("up")
        await pilot.pause()
        before = screen_text(app)
        control.log.extend(["another"] * 5)
        assert isinstance(app.screen, LogScreen)
        app.screen.read()
        await settle(pilot)
        assert screen_text(app).splitlines()[1:] == before.splitlines()[1:]
        assert "1 lines below" in before and "6 lines below" in screen_text(app)
        await pilot.press("end")
        app.screen.read()
        await settle(pilot)
        assert "another" in screen_text(app)


async def test_a_log_that_cannot_be_read_says_why(
    settle: Settle, screen_text: Text, make_app: Make, control: FakeControl
) -> None:
    control.error = LlmtopError("llmtop did not start this engine")
    app = make_app()
    async with app.run_test(size=(80, 24)) as pilot:
        await pilot.press("l")
        await settle(pilot)
        assert "llmtop did not start this engine" in screen_text(app)


async def test_help_names_every_key_and_every_number(screen_text: Text, make_app: Make) -> None:
    app = make_app()
    async with app.run_test(size=(100, 300)) as pilot:
        await pilot.press("question_mark")
        await pilot.pause()
        assert isinstance(app.screen, HelpScreen)
        shown = [line[1:-1].strip() for line in screen_text(app).splitlines()]
        at = [shown.index(place.value) for place in Place] + [shown.index("Numbers")]
        for place, begin, end in zip(Place, at, at[1:], strict=False):
            section = "\n".join(shown[begin + 1 : end])
            for command in COMMANDS:
                if command.place is place:
                    assert DEFAULT.labels(command.id) in section, command.id
        numbers = shown[at[-1] + 1 :]
        for word in ("cap", "decode", "prefill", "in flight", "first token awaited", "lag"):
            assert any(line.startswith(word) for line in numbers), word
        await pilot.press("escape")
        await pilot.pause()
        assert isinstance(app.screen, Dashboard)


@pytest.mark.parametrize("width", [80, 120, 146, 160, 188, 200, 240])
@pytest.mark.parametrize("readonly", [False, True])
def test_help_says_the_same_at_any_width_and_in_full(width: int, readonly: bool) -> None:
    cells = width - 4
    rows = plain(help_rows(cells, DEFAULT, readonly=readonly))
    assert all(len(row.rstrip()) <= cells for row in rows)
    one = plain(help_rows(76, DEFAULT, readonly=readonly))
    assert sorted(" ".join(rows).split()) == sorted(" ".join(one).split())


async def test_a_wide_help_has_numbers_beside_two_columns_of_keys(
    screen_text: Text, make_app: Make
) -> None:
    app = make_app()
    async with app.run_test(size=(200, 60)) as pilot:
        await pilot.press("question_mark")
        await pilot.pause()
        lines = screen_text(app).splitlines()
        assert "The load" in lines[2] and "In " in lines[2] and "Numbers" in lines[2]
        assert all(word in screen_text(app) for word in ("The load", "The screen", "TPOT"))
        await pilot.press("end")
        await pilot.pause()
        assert "more lines" not in screen_text(app) and "restart:" in screen_text(app)


async def test_help_scrolls_where_it_does_not_fit(screen_text: Text, make_app: Make) -> None:
    app = make_app()
    async with app.run_test(size=(80, 24)) as pilot:
        await pilot.press("question_mark")
        await pilot.pause()
        assert "more lines" in screen_text(app)
        await pilot.press(*["pagedown"] * 14)
        await pilot.pause()
        assert "more lines" not in screen_text(app) and "restart:" in screen_text(app)


@pytest.mark.parametrize(
    ("keys", "calls"),
    [
        (["q", "enter"], [("quit", False)]),
        (["ctrl+c", "enter"], [("quit", False)]),
        (["ctrl+c", "ctrl+c"], [("quit", False)]),
        (["q", "ctrl+q"], [("quit", False)]),
        (["q", "S"], [("quit", True)]),
    ],
)
async def test_quitting_asks_what_becomes_of_the_engines(
    screen_text: Text, make_app: Make, control: FakeControl, keys: list[str], calls: list[object]
) -> None:
    app = make_app()
    async with app.run_test(size=(80, 24)) as pilot:
        await pilot.press(keys[0])
        await pilot.pause()
        assert "llama  pid 4242  port 8000" in screen_text(app)
        await pilot.press(keys[1])
        await pilot.pause()
    assert control.calls == calls
    assert not app.is_running


@pytest.mark.parametrize("late", first(2, ["q", "ctrl+c", "question_mark", "s", "c", "colon", "K"]))
async def test_what_is_typed_after_leaving_was_chosen_opens_nothing(
    make_app: Make, control: FakeControl, late: str
) -> None:
    app = make_app()
    async with app.run_test(size=(80, 24)) as pilot:
        await pilot.press("q")
        await pilot.pause()
        for key in ("enter", late):  # in one read: nothing is waited for between them
            app.post_message(Key(key, None))
        await pilot.pause()
    assert control.calls == [("quit", False)]
    assert app.return_code == 0


async def test_staying_is_possible(settle: Settle, make_app: Make, control: FakeControl) -> None:
    app = make_app()
    async with app.run_test(size=(80, 24)) as pilot:
        await pilot.press("q", "escape")
        await settle(pilot)
        assert isinstance(app.screen, Dashboard) and control.calls == []


async def test_an_engine_that_cannot_be_stopped_keeps_the_screen(
    settle: Settle, make_app: Make, control: FakeControl
) -> None:
    control.error = LlmtopError("llama does not end")
    app = make_app()
    async with app.run_test(size=(80, 24)) as pilot:
        await pilot.press("q", "S")
        await settle(pilot)
        assert app.is_running
        assert app.store.events[-1].text == "llama does not end"
        await pilot.press("q", "enter")  # but to leave it running is always possible
        await settle(pilot)
    assert not app.is_running


@pytest.mark.parametrize("key", ["q", "K", "R", "colon"])
async def test_the_numbers_behind_a_question_continue(
    settle: Settle, make_app: Make, store: Store, now: float, key: str
) -> None:
    app = make_app()
    async with app.run_test(size=(200, 60)) as pilot:
        await pilot.press(key)
        await settle(pilot)
        assert len(app.screen_stack) == 2
        assert "777" not in app.export_screenshot()
        store.engines["llama"].record(S.WAITING, now + 1, 777)
        app.show_now()
        await settle(pilot)
        # In the pulse, which no dialog covers at this size.
        assert "777" in app.export_screenshot()


async def test_a_question_shows_the_numbers_of_now(
    settle: Settle, screen_text: Text, make_app: Make, store: Store
) -> None:
    track, app = store.engines["llama"], make_app()
    async with app.run_test(size=(80, 24)) as pilot:
        await pilot.press("K")
        await settle(pilot)
        assert "358 requests are in it" in screen_text(app)
        assert track.sample is not None
        track.sample = replace(track.sample, running=3, waiting=0)
        app.show_now()
        await settle(pilot)
        assert "3 requests are in it" in screen_text(app)


async def test_an_engine_that_ended_is_not_offered_when_leaving(
    settle: Settle, screen_text: Text, make_app: Make, store: Store
) -> None:
    track, app = store.engines["llama"], make_app()
    async with app.run_test(size=(80, 24)) as pilot:
        await pilot.press("q")
        await settle(pilot)
        assert "pid 4242" in screen_text(app)
        assert track.status is not None
        track.status = replace(track.status, state=State.STOPPED)
        app.show_now()
        await settle(pilot)
        assert "pid 4242" not in screen_text(app)
