"""A log as it is looked at: kept in bounds, filtered, searched, and its place held."""

import asyncio
from collections.abc import Awaitable, Callable

import pytest
from textual.events import Paste
from textual.pilot import Pilot

from llmtop.tui.app import LlmtopApp
from llmtop.tui.screens.log_window import Level, LogView
from tests.fake_control import FakeControl

Make = Callable[..., LlmtopApp]
Text = Callable[[LlmtopApp], str]
Settle = Callable[[Pilot[None]], Awaitable[None]]


def view(*lines: str, **bounds: int) -> LogView:
    made = LogView(**bounds)
    made.add(lines)
    return made


def texts(log: LogView, room: int) -> list[str]:
    return [line.text for line in log.window(room)]


async def held_down(key: str, times: int, pilot: Pilot[None]) -> None:
    """As fast as a terminal sends them: ``press`` would wait for each to be painted."""
    for _ in range(times):
        pilot.app.simulate_key(key)
    for pump in (pilot.app, pilot.app.screen, pilot.app):  # a key goes down, and up again
        handled = asyncio.Event()
        pump.call_later(handled.set)
        await asyncio.wait_for(handled.wait(), 60)
    await pilot.pause()


@pytest.mark.parametrize(
    ("lines", "levels"),
    [
        (["INFO all well", "INFO no ERROR seen"], [0, 2]),
        (["(EngineCore pid=3) WARNING 11-26 low memory"], [1]),
        (["[2026-11-26 08:00:00] ERROR: x", "UserWarning: y", "ValueError: z"], [2, 1, 2]),
        (["INFO " + "x" * 200 + " ERROR"], [0]),  # somebody's prompt
        (["the terrors of errors", "warned"], [0, 0]),
        (
            ["Traceback (most recent call last):", '  File "a.py"', "", "    go()",
             "torch.OutOfMemoryError: x", "  indented", "INFO y"],
            [2, 2, 2, 2, 2, 0, 0],
        ),
    ],
)  # fmt: skip
def test_the_level_is_what_the_line_says_of_itself(lines: list[str], levels: list[int]) -> None:
    assert [line.level for line in view(*lines).window(99)] == levels


def test_it_follows_until_one_scrolls_up_and_holds_its_place() -> None:
    log = view(*(str(n) for n in range(10)))
    assert texts(log, 3) == ["7", "8", "9"]
    log.scroll(2, 3)
    assert texts(log, 3) == ["5", "6", "7"] and log.below == 2
    log.add(["10", "11"])
    assert texts(log, 3) == ["5", "6", "7"] and log.below == 4
    log.scroll(-99, 3)
    log.add(["12"])
    assert texts(log, 3) == ["10", "11", "12"] and log.end is None
    log.scroll(99, 3)
    assert texts(log, 3) == ["0", "1", "2"]


def test_what_is_kept_is_bounded_by_lines_and_by_characters() -> None:
    log = view(keep_lines=100, keep_chars=1000)
    for number in range(1000):
        log.add([f"{number}"])
    assert log.kept == 100 and log.dropped == 900 and texts(log, 1) == ["999"]
    log.add(["x" * 600, "y" * 600])
    assert log.kept == 1 and texts(log, 5) == ["y" * 600]


def test_a_place_that_was_dropped_becomes_the_first_one_kept() -> None:
    log = view(*(str(n) for n in range(10)), keep_lines=10)
    log.scroll(99, 3)
    log.add(str(n) for n in range(10, 20))
    assert texts(log, 3) == ["10", "11", "12"]


def test_the_filter_shows_what_is_bad_enough_also_of_what_comes_later() -> None:
    log = view("INFO a", "WARNING b", "ERROR c")
    log.show(Level.WARNING)
    assert texts(log, 9) == ["WARNING b", "ERROR c"]
    log.add(["INFO d", "ERROR e"])
    assert texts(log, 9) == ["WARNING b", "ERROR c", "ERROR e"]
    log.show(Level.ERROR)
    assert texts(log, 9) == ["ERROR c", "ERROR e"] and (log.count, log.kept) == (2, 5)
    log.show(Level.PLAIN)
    assert log.count == 5


def test_a_search_goes_around_and_counts() -> None:
    log = view("Cat", "dog", "cat", "dog", "CAT")
    log.search("cat")
    assert log.hits == 3
    at = [log.jump(True, None)]
    for _ in range(3):
        at.append(log.jump(True, at[-1]))
    assert at == [0, 2, 4, 0] and [log.hit_number(n) for n in at] == [1, 2, 3, 1]
    assert log.jump(False, 0) == 4 and log.jump(False, 4) == 2
    log.search("CAT")  # capitals were typed, so they count
    assert log.hits == 1 and log.jump(True, None) == 4
    log.add(["CAT"])
    assert log.hits == 2
    log.show(Level.ERROR)
    assert log.hits == 0 and log.jump(True, 0) is None


def test_a_hit_that_was_dropped_is_counted_no_more() -> None:
    log = view("hit", "b", "hit", keep_lines=3)
    log.search("hit")
    log.add(["c", "d"])
    assert log.hits == 1 and log.jump(True, None) == 2


def test_a_letter_that_grows_when_it_is_made_small_does_not_shift_the_marks() -> None:
    log = view("İstanbul hit")
    log.search("hit")
    assert log.spans("İstanbul hit") == [(9, 12)]


def test_a_search_for_signs_is_no_pattern() -> None:
    log = view("a.c", "abc", "(((")
    log.search("a.c")
    assert log.hits == 1
    log.search("(((")
    assert log.hits == 1


async def test_a_line_of_a_megabyte_is_one_row_that_is_scrolled_sideways(
    settle: Settle, screen_text: Text, make_app: Make, control: FakeControl
) -> None:
    control.log = ["short", "0123456789" * 100_000]
    app = make_app()
    async with app.run_test(size=(80, 24)) as pilot:
        await pilot.press("l")
        await settle(pilot)
        row = next(line for line in screen_text(app).splitlines() if "01234" in line)
        assert len(row) == 80 and row.rstrip(" │").endswith("…")
        await pilot.press("right")
        await pilot.pause()
        assert "│ 6789012345" in screen_text(app) and "from column 17" in screen_text(app)
        await held_down("right", 400, pilot)
        assert "from column 3937" in screen_text(app)  # as far as the line goes, no further
        await held_down("left", 400, pilot)
        assert "from column" not in screen_text(app)


async def test_the_end_of_a_line_of_wide_characters_can_be_scrolled_to(
    settle: Settle, screen_text: Text, make_app: Make, control: FakeControl
) -> None:
    control.log = ["short", "雪" * 90 + "end"]
    app = make_app()
    async with app.run_test(size=(80, 24)) as pilot:
        await pilot.press("l")
        await settle(pilot)
        assert "end" not in screen_text(app)
        await held_down("right", 20, pilot)
        assert "end" in screen_text(app) and "from column 65" in screen_text(app)


async def test_a_search_is_typed_counted_and_ended(
    settle: Settle, screen_text: Text, make_app: Make, control: FakeControl
) -> None:
    control.log[10] = "the [red]needle"
    app = make_app()
    async with app.run_test(size=(80, 24)) as pilot:
        await pilot.press("l")
        await settle(pilot)
        await pilot.press("slash", *"nxx", "backspace", "backspace")
        await pilot.press(*"eedle")
        await pilot.pause()
        assert "search: needle_  1 lines" in screen_text(app)
        await pilot.press("enter")
        await pilot.pause()
        assert "▸the [red]needle" in screen_text(app) and "1 of 1" in screen_text(app)
        await pilot.press("escape")
        await pilot.pause()
        assert "1 of 1" not in screen_text(app) and "log" in screen_text(app)
        await pilot.press("slash", *"nothing", "enter")
        await pilot.pause()
        assert "no line has 'nothing'" in screen_text(app)


async def test_letters_typed_for_a_search_are_no_keys(
    settle: Settle, screen_text: Text, make_app: Make
) -> None:
    app = make_app()
    async with app.run_test(size=(80, 24)) as pilot:
        await pilot.press("l")
        await settle(pilot)
        theme = app.theme
        await pilot.press("slash", *"qlt", "colon", "question_mark")
        await pilot.pause()
        assert "search: qlt:?_" in screen_text(app) and app.theme == theme


async def test_a_word_that_is_pasted_is_searched_for(
    settle: Settle, screen_text: Text, make_app: Make, control: FakeControl
) -> None:
    control.log[10] = "the [red]needle"
    app = make_app()
    async with app.run_test(size=(80, 24)) as pilot:
        await pilot.press("l")
        await settle(pilot)
        app.post_message(Paste("line 3"))  # no word is being typed
        await pilot.press("slash")
        app.post_message(Paste("[red]\x1b[31mneed\rq"))
        await pilot.press("l")
        await pilot.pause()
        assert "search: [red]needl_  1 lines" in screen_text(app)


async def test_where_there_is_no_error_that_is_said(
    settle: Settle, screen_text: Text, make_app: Make
) -> None:
    app = make_app()
    async with app.run_test(size=(80, 24)) as pilot:
        await pilot.press("l")
        await settle(pilot)
        await pilot.press("e")
        await pilot.pause()
        assert "no error in 100 lines" in screen_text(app)
        await pilot.press("v")
        await pilot.pause()
        assert "none of 100 lines: warnings and errors are shown" in screen_text(app)


async def test_hidden_the_log_is_not_read(
    settle: Settle, make_app: Make, control: FakeControl
) -> None:
    app = make_app(interval=0.01)
    async with app.run_test(size=(80, 24)) as pilot:
        await pilot.press("l")
        await settle(pilot)
        log = app.screen
        await pilot.press("question_mark")
        await settle(pilot)
        reads: list[int] = []
        log.paint = lambda: reads.append(1)  # type: ignore[attr-defined]
        log.read()  # type: ignore[attr-defined]
        await settle(pilot)
        assert reads == []
