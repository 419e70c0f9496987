"""The screen as a whole, by its keys, against a control that only remembers being asked."""

from collections.abc import Callable
from dataclasses import replace
from datetime import UTC

import pytest
from textual.events import Key
from textual.pilot import Pilot

from llmtop import LlmtopError
from llmtop.engines.options import Outcome
from llmtop.engines.records import EngineStatus, State
from llmtop.tui.app import LlmtopApp
from llmtop.tui.control import FakeControl
from llmtop.tui.panels.events import EventsPanel
from llmtop.tui.panels.panel import Panel
from llmtop.tui.panels.pulse import Pulse
from llmtop.tui.screens.dashboard import Dashboard
from llmtop.tui.screens.help import HelpScreen
from llmtop.tui.screens.log import LogScreen
from llmtop.tui.screens.quit import QuitScreen
from llmtop.tui.series import SeriesName as S
from llmtop.tui.store import EngineTrack, Event, Store
from llmtop.tui.widgets.canvas import Canvas
from llmtop.tui.widgets.row import plain

Make = Callable[..., LlmtopApp]
WIDE = (120, 40)


@pytest.fixture
def control() -> FakeControl:
    return FakeControl([f"line {n}" for n in range(100)])


@pytest.fixture
def make_app(store: Store, control: FakeControl, now: float) -> Make:
    def make(**changes: object) -> LlmtopApp:
        given: dict[str, object] = {"clock": lambda: now, "zone": UTC, "interval": 3600.0}
        return LlmtopApp(store, control, **{**given, **changes})  # type: ignore[arg-type]

    return make


def screen_text(app: LlmtopApp) -> str:
    return "\n".join(
        "\n".join(plain(canvas.rows)) for canvas in app.screen.query(Canvas) if canvas.size.height
    )


async def settle(pilot: Pilot[None]) -> None:
    """Until commands are answered and what they changed is painted."""
    await pilot.app.workers.wait_for_complete()
    await pilot.pause()


@pytest.mark.parametrize(
    ("key", "call"),
    [
        ("plus", "more"),
        ("equals_sign", "more"),
        ("minus", "less"),
        ("space", "hold"),
        ("b", "burst"),
        ("0", "stop_load"),
    ],
)
async def test_a_key_of_the_load_reaches_the_control(
    make_app: Make, control: FakeControl, key: str, call: str
) -> None:
    async with make_app().run_test(size=WIDE) as pilot:
        await pilot.press(key)
        await settle(pilot)
        assert control.calls == [(call,)]


async def test_read_only_keeps_every_key_from_the_control(
    make_app: Make, control: FakeControl
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
    make_app: Make, control: FakeControl, store: Store
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


async def test_an_option_is_changed_on_its_row(
    make_app: Make, control: FakeControl, store: Store
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
    make_app: Make, control: FakeControl
) -> None:
    app = make_app()
    async with app.run_test(size=WIDE) as pilot:
        await pilot.pause()
        for key in ("o", "enter", "3", "0", "enter", "escape", "b"):
            app.post_message(Key(key, key if len(key) == 1 else None))
        await pilot.pause()
        await settle(pilot)
        assert control.calls == [
            ("set_option", "llama", "max_num_seqs", 30, False),
            ("burst",),
        ]


async def test_lowering_the_batch_asks_whether_to_evict(
    make_app: Make, control: FakeControl
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
    make_app: Make, control: FakeControl
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
    make_app: Make, control: FakeControl, keys: list[str], words: str
) -> None:
    app = make_app()
    async with app.run_test(size=WIDE) as pilot:
        await pilot.press("o", *keys)
        await settle(pilot)
        assert words in screen_text(app)
        assert control.calls == []


async def test_a_refusal_of_the_engine_is_said_where_the_change_was_made(
    make_app: Make, control: FakeControl
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


async def test_the_log_follows_and_can_be_scrolled(make_app: Make, control: FakeControl) -> None:
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
    make_app: Make, control: FakeControl
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
        assert screen_text(app) == before
        await pilot.press("end")
        app.screen.read()
        await settle(pilot)
        assert "another" in screen_text(app)


async def test_a_log_that_cannot_be_read_says_why(make_app: Make, control: FakeControl) -> None:
    control.error = LlmtopError("llmtop did not start this engine")
    app = make_app()
    async with app.run_test(size=(80, 24)) as pilot:
        await pilot.press("l")
        await settle(pilot)
        assert "llmtop did not start this engine" in screen_text(app)


async def test_help_names_every_key_of_the_dashboard(make_app: Make) -> None:
    app = make_app()
    async with app.run_test(size=(100, 60)) as pilot:
        await pilot.press("question_mark")
        await pilot.pause()
        assert isinstance(app.screen, HelpScreen)
        for key in ("+  -", "space", " b ", " 0 ", " o ", " l ", "n  tab", " t ", " ? ", " q "):
            assert key in screen_text(app)
        await pilot.press("escape")
        await pilot.pause()
        assert isinstance(app.screen, Dashboard)


async def test_help_scrolls_where_it_does_not_fit(make_app: Make) -> None:
    app = make_app()
    async with app.run_test(size=(80, 24)) as pilot:
        await pilot.press("question_mark")
        await pilot.pause()
        assert "more lines" in screen_text(app)
        await pilot.press(*["pagedown"] * 6)
        await pilot.pause()
        assert "more lines" not in screen_text(app) and "restart:" in screen_text(app)


@pytest.mark.parametrize(
    ("keys", "calls"),
    [
        (["q", "enter"], [("quit", False)]),
        (["ctrl+c", "enter"], [("quit", False)]),
        (["q", "S"], [("quit", True)]),
    ],
)
async def test_quitting_asks_what_becomes_of_the_engines(
    make_app: Make, control: FakeControl, keys: list[str], calls: list[object]
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


async def test_staying_is_possible(make_app: Make, control: FakeControl) -> None:
    app = make_app()
    async with app.run_test(size=(80, 24)) as pilot:
        await pilot.press("q", "escape")
        await settle(pilot)
        assert isinstance(app.screen, Dashboard) and control.calls == []


async def test_an_engine_that_cannot_be_stopped_keeps_the_screen(
    make_app: Make, control: FakeControl
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


async def test_the_next_engine(
    make_app: Make, control: FakeControl, store: Store, make_engine: Callable[..., EngineTrack]
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


async def test_a_theme_that_does_not_exist_is_a_notice(make_app: Make, store: Store) -> None:
    make_app(theme="pink")
    assert "no theme is called pink" in store.events[-1].text


async def test_a_panel_with_a_bug_is_blank_and_the_others_go_on(
    make_app: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object) -> None:
        raise KeyError("oops")

    monkeypatch.setattr(EventsPanel, "draw", broken)
    app = make_app()
    async with app.run_test(size=WIDE) as pilot:
        await pilot.pause()
        assert "! events: KeyError" in screen_text(app)
        assert "TTFT" in screen_text(app) and "max_num_seqs" in screen_text(app)


async def test_without_an_engine_the_screen_says_what_to_type(make_app: Make, now: float) -> None:
    app = LlmtopApp(Store(), FakeControl(), clock=lambda: now)
    async with app.run_test(size=(80, 24)) as pilot:
        await pilot.press("o", "l", "n")
        await pilot.pause()
        assert "llmtop run vllm MODEL" in screen_text(app)
        assert isinstance(app.screen, Dashboard)


async def test_an_engine_that_becomes_ready_brings_the_charts(
    make_app: Make, store: Store, now: float
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


async def test_resizing_goes_through_all_layouts(make_app: Make) -> None:
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


async def test_when_nothing_changed_nothing_is_painted(
    make_app: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    app = make_app()
    async with app.run_test(size=WIDE) as pilot:
        await pilot.pause()
        painted: list[object] = []
        monkeypatch.setattr(Canvas, "refresh", lambda self, *regions, **_: painted.append(regions))
        app.show_now()
        assert painted == []


async def test_a_new_sample_paints_the_cells_that_changed_and_no_others(
    make_app: Make, store: Store, now: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    app = make_app()
    async with app.run_test(size=WIDE) as pilot:
        await pilot.pause()
        cells: dict[str, int] = {}

        def count(panel: Panel, *regions: object, **_: object) -> None:
            assert regions, f"{panel.id} repaints whole"
            cells[str(panel.id)] = sum(region.area for region in regions)  # type: ignore[attr-defined]

        monkeypatch.setattr(Panel, "refresh", count)
        store.engines["llama"].record(S.RUNNING, now, 251.0)
        store.events.append(Event(now, "info", "one more"))
        app.show_now()
        assert set(cells) == {"queue", "pulse", "events"}
        assert sum(cells.values()) < 250


async def test_only_the_changed_cells_are_sent_to_the_terminal(make_app: Make) -> None:
    app = make_app()
    async with app.run_test(size=WIDE) as pilot:
        await pilot.pause()
        pulse = app.screen.query_one(Pulse)
        first, second = pulse.rows
        pulse.put([first, (*second[:-1], ("X", "text"))], app.look().glyphs)
        compositor = app.screen._compositor
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
        monkeypatch.setattr(Dashboard, "beat", lambda self: beats.append(0))
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


async def test_ascii_is_ascii_to_the_last_cell(make_app: Make) -> None:
    app = make_app(ascii=True)
    async with app.run_test(size=WIDE) as pilot:
        await pilot.pause()
        assert screen_text(app).isascii()
