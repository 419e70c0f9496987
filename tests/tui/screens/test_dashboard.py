"""The screen as a whole, by its keys, against a control that only remembers being asked."""

import time
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import pytest
from textual.events import Key
from textual.geometry import Region
from textual.pilot import Pilot
from textual.widgets._toast import Toast

from llmtop import LlmtopError
from llmtop.analysis.series import SeriesName as S
from llmtop.engines.core.records import EngineStatus, State
from llmtop.tui.app import LlmtopApp
from llmtop.tui.panels.events import EventsPanel
from llmtop.tui.panels.pulse import Pulse
from llmtop.tui.screens.dashboard import Dashboard
from llmtop.tui.screens.quit import QuitScreen
from llmtop.tui.store.store import EngineTrack, Event, Store
from llmtop.tui.textual_private.compositor import TightCompositor
from llmtop.tui.view.panel import Panel
from llmtop.tui.widgets.canvas import Canvas
from llmtop.values import replace
from tests.fake_control import FakeControl
from tests.plain_rows import plain

Make = Callable[..., LlmtopApp]
Text = Callable[[LlmtopApp], str]
Settle = Callable[[Pilot[None]], Awaitable[None]]
WIDE = (120, 40)


async def test_the_second_key_of_a_command_does_the_same(
    settle: Settle, make_app: Make, control: FakeControl
) -> None:
    """The first ones are pressed by ``tests/tui/panels/test_keys.py``."""
    async with make_app().run_test(size=WIDE) as pilot:
        await pilot.press("equals_sign")
        await settle(pilot)
        assert control.calls == [("more",)]


async def test_read_only_keeps_every_key_from_the_control(
    settle: Settle, screen_text: Text, make_app: Make, control: FakeControl
) -> None:
    app = make_app(readonly=True)
    async with app.run_test(size=WIDE) as pilot:
        await pilot.pause()
        assert "read-only" in screen_text(app)
        await pilot.press("plus", "minus", "space", "b", "0", "o", "enter", "6", "enter", "escape")
        await settle(pilot)
        assert control.calls == []
        await pilot.press("q", "S")
        await settle(pilot)
        assert isinstance(app.screen, QuitScreen)
        assert "stop them" not in screen_text(app)


async def test_what_a_command_cannot_do_is_an_event_and_not_the_end(
    settle: Settle, screen_text: Text, make_app: Make, control: FakeControl, store: Store
) -> None:
    control.error = LlmtopError("the engine does not answer", "look at its log")
    app = make_app()
    async with app.run_test(size=WIDE) as pilot:
        await pilot.press("plus")
        await settle(pilot)
        assert store.events[-1].level == "error"
        assert store.events[-1].text == "the engine does not answer: look at its log"
        assert "the engine does not answer" in screen_text(app)
        control.error = ZeroDivisionError("[red]\x1b[31mbug")
        await pilot.press("minus")
        await settle(pilot)
        assert store.events[-1].text == "ZeroDivisionError: [red]bug"
        assert app.is_running


@pytest.mark.parametrize(
    ("size", "hint", "toasts"),
    [
        (WIDE, "", 0),
        ((80, 24), "", 0),
        ((80, 24), "look at what its log says of the socket, then try it again from here", 1),
        ((60, 16), "", 1),
    ],
)
async def test_an_error_is_said_once_and_where_it_can_be_read(
    settle: Settle,
    screen_text: Text,
    make_app: Make,
    control: FakeControl,
    size: tuple[int, int],
    hint: str,
    toasts: int,
) -> None:
    control.error = LlmtopError("the engine does not answer", hint)
    app = make_app()
    async with app.run_test(size=size) as pilot:
        await pilot.press("minus")
        await settle(pilot)
        said = "does not answer" in screen_text(app)
        assert len(app._notifications) == toasts
        assert said or toasts


async def test_nothing_is_painted_while_the_terminal_is_the_shells(
    screen_text: Text, make_app: Make, store: Store, now: float
) -> None:
    app = make_app(interval=0.01)
    async with app.run_test(size=WIDE) as pilot:
        await pilot.pause()
        before = screen_text(app)
        app.app_suspend_signal.publish(app)
        store.events.append(Event(now, "info", "while away"))
        app.show_now()
        await pilot.pause(0.05)
        assert screen_text(app) == before
        app.app_resume_signal.publish(app)
        await pilot.pause(0.05)
        assert "while away" in screen_text(app)


async def test_the_next_engine(
    settle: Settle,
    make_app: Make,
    control: FakeControl,
    store: Store,
    make_engine: Callable[..., EngineTrack],
) -> None:
    store.engines["second"] = make_engine("second", 8001)
    async with make_app().run_test(size=WIDE) as pilot:
        await pilot.press("n")
        await settle(pilot)
        await pilot.press("tab")
        await settle(pilot)
        assert control.calls == [("select", "second")] * 2


async def test_t_goes_through_the_themes(make_app: Make) -> None:
    app = make_app()
    async with app.run_test(size=(80, 24)) as pilot:
        await pilot.pause()
        seen, looks = [app.theme], set()
        for _ in range(5):
            await pilot.press("t")
            await pilot.pause()
            seen.append(app.theme)
            looks.add(app.screen.query_one(Pulse).render_line(0)._segments[1].style)
        assert len(looks) == 5  # what is on screen has changed its colour
        assert seen[0] == seen[5] == "llmtop-dark"
        assert len(set(seen)) == 5


async def test_of_many_themes_only_the_newest_toast_stands(
    make_app: Make, settle: Settle, monkeypatch: pytest.MonkeyPatch
) -> None:
    app = make_app()
    notify = app.notify

    def lasting(message: str, **given: Any) -> None:
        notify(message, **{**given, "timeout": 600})  # on a busy machine 2 s pass before the end

    monkeypatch.setattr(app, "notify", lasting)
    async with app.run_test(size=WIDE, notifications=True) as pilot:
        app.notify("no picture saved: no space left on device", severity="error", markup=False)
        await pilot.press(*"tttttttttt")
        await settle(pilot)
        shown = app.theme.removeprefix("llmtop-")
        wanted = ["no picture saved: no space left on device", f"theme: {shown}"]
        deadline = time.monotonic() + 60
        while True:  # a toast is taken away behind the key that made it needless
            toasts = [str(toast.render()).strip() for toast in app.screen.query(Toast)]
            if toasts == wanted or time.monotonic() > deadline:
                break
            await pilot.pause()
        assert toasts == wanted


async def test_keys_that_come_faster_than_an_engine_is_chosen_all_count(
    settle: Settle,
    make_app: Make,
    control: FakeControl,
    store: Store,
    make_engine: Callable[..., EngineTrack],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for number in range(20):
        store.engines[f"e{number}"] = make_engine(f"e{number}", 9000 + number)
    names = list(store.engines)
    store.selected = names[0]

    async def select(engine: str) -> None:
        store.selected = engine

    monkeypatch.setattr(control, "select", select)
    app = make_app()
    async with app.run_test(size=WIDE) as pilot:
        await settle(pilot)
        for key in "nnnnnnnnnnnn":
            app.post_message(Key(key, key))
        await settle(pilot)
        assert store.selected == names[12]


async def test_a_theme_that_does_not_exist_is_a_notice(make_app: Make, store: Store) -> None:
    make_app(theme="pink")
    assert "no theme is called pink" in store.events[-1].text


async def test_a_panel_with_a_bug_is_blank_and_the_others_go_on(
    screen_text: Text, make_app: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object) -> None:
        raise KeyError("oops")

    monkeypatch.setattr(EventsPanel, "draw", broken)
    app = make_app()
    async with app.run_test(size=WIDE) as pilot:
        await pilot.pause()
        assert "! events: KeyError" in screen_text(app)
        assert "TTFT" in screen_text(app) and "max_num_seqs" in screen_text(app)


async def test_without_an_engine_the_screen_says_what_to_type(
    screen_text: Text, make_app: Make, now: float
) -> None:
    app = LlmtopApp(Store(), FakeControl(), clock=lambda: now)
    async with app.run_test(size=(80, 24)) as pilot:
        await pilot.press("o", "l", "n")
        await pilot.pause()
        assert "llmtop run vllm MODEL" in screen_text(app)
        assert isinstance(app.screen, Dashboard)


async def test_an_engine_that_becomes_ready_brings_the_charts(
    screen_text: Text, make_app: Make, store: Store, now: float
) -> None:
    track = store.engines["llama"]
    ready = track.status
    assert ready is not None
    track.status = replace(ready, state=State.STARTING, phase="capturing graphs")
    app = make_app()
    async with app.run_test(size=WIDE) as pilot:
        await pilot.pause()
        assert "capturing graphs" in screen_text(app) and "KV cache" not in screen_text(app)
        track.status = EngineStatus(ready.record, State.READY, now)
        app.show_now()
        await pilot.pause()
        assert "KV cache" in screen_text(app) and "capturing graphs" not in screen_text(app)


async def test_resizing_goes_through_all_layouts(screen_text: Text, make_app: Make) -> None:
    app = make_app()
    async with app.run_test(size=(80, 24)) as pilot:
        assert "inter-token latency" not in screen_text(app)
        await pilot.resize_terminal(200, 60)
        await pilot.pause()
        assert "inter-token latency" in screen_text(app)
        await pilot.resize_terminal(50, 10)
        await pilot.pause()
        assert "llmtop needs 60x16 or more" in screen_text(app)
        await pilot.resize_terminal(120, 40)
        await pilot.pause()
        widths = {len(line) for line in plain(app.screen.query_one(Pulse).rows)}
        assert widths == {120}


def watched(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, Sequence[Region]]]:
    """Whatever a canvas wants painted from now on, by its id; no cells: all of it."""
    painted: list[tuple[str, Sequence[Region]]] = []

    def refresh(canvas: Canvas, *cells: Region, **_: object) -> None:
        painted.append((str(canvas.id), cells))

    def mark(compositor: TightCompositor, canvas: Canvas, cells: Sequence[Region]) -> None:
        painted.append((str(canvas.id), cells))

    monkeypatch.setattr(Canvas, "refresh", refresh)
    monkeypatch.setattr(TightCompositor, "mark", mark)
    return painted


async def test_when_nothing_changed_nothing_is_painted(
    make_app: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    app = make_app()
    async with app.run_test(size=WIDE) as pilot:
        await pilot.pause()
        painted = watched(monkeypatch)
        app.show_now()
        assert painted == []


async def test_a_new_sample_paints_the_cells_that_changed_and_no_others(
    make_app: Make, store: Store, now: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    app = make_app()
    async with app.run_test(size=WIDE) as pilot:
        await pilot.pause()
        painted = watched(monkeypatch)
        store.engines["llama"].record(S.RUNNING, now, 251.0)
        store.events.append(Event(now, "info", "one more"))
        app.show_now()
        assert all(regions for _, regions in painted), "one repaints whole"
        cells = {name: sum(region.area for region in regions) for name, regions in painted}
        assert set(cells) == {"queue", "pulse", "events"}
        assert sum(cells.values()) < 250


async def test_only_the_changed_cells_are_sent_to_the_terminal(make_app: Make) -> None:
    app = make_app()
    async with app.run_test(size=WIDE) as pilot:
        await pilot.pause()
        pulse = app.screen.query_one(Pulse)
        (row,) = pulse.rows
        compositor = app.screen._compositor
        # What the first painting still owes (on a slow machine it may) is not this change's.
        compositor.update_widgets({pulse})
        compositor.render_partial_update()
        pulse.put([(*row[:-1], (row[-1][0][:-1] + "X", "text"))], app.current_view().glyphs)
        compositor.update_widgets({pulse})
        update = compositor.render_partial_update()
        assert update is not None
        sent = update.render_segments(app.console)
        assert sent.startswith("\x1b[2;120H") and len(sent) < 60


async def test_hidden_the_dashboard_does_no_work(
    make_app: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    app = make_app(interval=0.01)
    async with app.run_test(size=(80, 24)) as pilot:
        beats: list[float] = []
        await pilot.press("question_mark")
        await pilot.pause()
        monkeypatch.setattr(Dashboard, "redraw", lambda self: beats.append(0))
        await pilot.pause(0.1)
        assert beats == []


async def test_no_colour_leaves_only_greys(make_app: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_COLOR", "1")
    app = make_app()
    async with app.run_test(size=(80, 24)) as pilot:
        await pilot.pause()
        for strip in app.screen._compositor.render_strips():
            for segment in strip:
                colour = segment.style.color if segment.style else None
                if colour is not None and colour.triplet is not None:
                    assert len(set(colour.triplet)) == 1


async def test_ascii_is_ascii_to_the_last_cell(screen_text: Text, make_app: Make) -> None:
    app = make_app(ascii=True)
    async with app.run_test(size=WIDE) as pilot:
        await pilot.pause()
        assert screen_text(app).isascii()


async def test_what_a_panel_forgot_to_clean_still_never_reaches_the_terminal(
    make_app: Make, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    evil = "a\x1b[2Jb\u202ec\x07"
    monkeypatch.setattr(EventsPanel, "draw", lambda *_: [((evil, "text"),)])
    app = make_app()
    async with app.run_test(size=WIDE) as pilot:
        await pilot.pause()
        sent = "".join(strip.text for strip in app.screen._compositor.render_strips())
        assert "a?[2Jb?c?" in sent and "\x1b" not in sent and "\u202e" not in sent


async def test_two_engines_side_by_side_on_the_same_axes_and_back(
    settle: Settle,
    screen_text: Text,
    make_app: Make,
    make_engine: Callable[..., EngineTrack],
    store: Store,
    control: FakeControl,
    now: float,
) -> None:
    slow, third = make_engine("slow", 8001), make_engine("third", 8002)
    for second in range(60):
        slow.record(S.OUTPUT_TOKENS, now - 59 + second, 90.0)  # alone, its axis would end at 100
        slow.record(S.KV_USAGE, now - 59 + second, 0.11)
    store.engines |= {"slow": slow, "third": third}
    app = make_app()
    async with app.run_test(size=WIDE) as pilot:
        await pilot.press("v")
        await settle(pilot)
        twin = app.screen.query_one("#beside-tokens", Panel)
        one = app.screen.query_one("#tokens", Panel)
        assert "decode 90.0" in plain(twin.rows)[0]
        labels = [plain(panel.rows)[1][1:6] for panel in (one, twin)]
        assert labels == ["  8k "] * 2
        assert "slow" in "".join(plain(app.screen.query_one("#beside-state", Panel).rows))
        assert "▸ llama" in screen_text(app) and "· slow" in screen_text(app)
        store.selected = "third"
        app.show_now()
        await settle(pilot)
        # The next one after the last is the first.
        assert "llama" in "".join(plain(app.screen.query_one("#beside-state", Panel).rows))
        await pilot.press("v")
        await settle(pilot)
        assert not twin.size.height
        assert "· slow" not in screen_text(app)
        assert control.calls == []


@pytest.mark.parametrize(
    ("size", "engines", "why"),
    [(WIDE, 1, "only one engine"), ((80, 24), 2, "needs a terminal of 100x32")],
)
async def test_side_by_side_says_why_it_cannot_be(
    settle: Settle,
    make_app: Make,
    make_engine: Callable[..., EngineTrack],
    store: Store,
    size: tuple[int, int],
    engines: int,
    why: str,
) -> None:
    if engines > 1:
        store.engines["other"] = make_engine("other", 8001)
    app = make_app()
    async with app.run_test(size=size) as pilot:
        await pilot.press("v")
        await settle(pilot)
        assert [why in toast.message for toast in app._notifications] == [True]
        assert not app.screen.query("#beside-pulse")
