"""The saturation and the compare screen by their keys, against a control that only remembers."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import pytest
from textual.events import Paste
from textual.pilot import Pilot

from llmtop import LlmtopError
from llmtop.loadgen.experiments.slo import Slo
from llmtop.tui.app import LlmtopApp
from llmtop.tui.commands.experiment_requests import ComparisonPlan, SearchPlan
from llmtop.tui.screens.compare import CompareScreen
from llmtop.tui.screens.dashboard import Dashboard
from llmtop.tui.screens.experiment import ExperimentScreen
from llmtop.tui.screens.help import HelpScreen
from llmtop.tui.screens.saturation import SaturationScreen
from llmtop.tui.store.store import EngineTrack, Store
from llmtop.tui.widgets.canvas import Canvas
from llmtop.values import replace
from tests.fake_control import FakeControl
from tests.finding_states import comparing, earlier, searching
from tests.tiers import first

Make = Callable[..., LlmtopApp]
Text = Callable[[LlmtopApp], str]
Settle = Callable[[Pilot[None]], Awaitable[None]]
WIDE = (120, 40)
SIZES = [(80, 24), (120, 40), (200, 60), (60, 16)]


async def opened(pilot: Pilot[None], settle: Settle, key: str, *then: str) -> None:
    await pilot.press(key)
    await settle(pilot)
    if then:
        await pilot.press(*then)
        await settle(pilot)


async def test_enter_starts_the_search_that_the_form_says(
    settle: Settle, screen_text: Text, make_app: Make, control: FakeControl
) -> None:
    app = make_app()
    async with app.run_test(size=WIDE) as pilot:
        await opened(pilot, settle, "s")
        assert isinstance(app.screen, SaturationScreen)
        assert "ttft=500ms,tpot=50ms" in screen_text(app)
        assert "the running load is stopped first" in screen_text(app)
        await pilot.press("enter")
        await settle(pilot)
        plan = SearchPlan("llama", Slo(ttft=0.5, tpot=0.05), 1024, 8.0)
        assert control.calls == [("start_search", plan)]


async def test_what_is_pasted_goes_into_the_field_and_nowhere_else(
    settle: Settle, screen_text: Text, make_app: Make, control: FakeControl
) -> None:
    app = make_app()
    async with app.run_test(size=WIDE) as pilot:
        await opened(pilot, settle, "s")
        app.post_message(Paste("e2e=2s\rq\rX"))
        await settle(pilot)
        assert "e2e=2s_" in screen_text(app) and control.calls == []


async def test_what_is_typed_goes_into_the_field_and_nowhere_else(
    settle: Settle, make_app: Make, control: FakeControl
) -> None:
    app = make_app()
    async with app.run_test(size=WIDE) as pilot:
        keys = [*"e2e=2s", "down", *"64", "tab", *"2.5", "down", *"512", "down", *"100..200"]
        keys[3] = "equals_sign"
        keys = [{".": "full_stop"}.get(key, key) for key in keys]
        await opened(pilot, settle, "s", *keys, "backspace", "0", "up", "shift+tab")
        assert isinstance(app.screen, SaturationScreen)
        await opened(pilot, settle, "enter")
        ((name, plan),) = control.calls
        assert name == "start_search" and isinstance(plan, SearchPlan)
        assert (plan.slo, plan.top, plan.seconds) == (Slo(e2e=2.0), 64, 2.5)
        assert plan.prompts.prompt_tokens == (512, 512)
        assert plan.prompts.output_tokens == (100, 200)


@pytest.mark.parametrize(
    ("keys", "words"),
    [
        ((*"nonsense",), "is not a limit"),
        (("down", *"0"), "max streams"),
        (("down", "down", *"abc"), "seconds a level"),
        (("down", "down", "down", *"x"), "is not a length"),
    ],
)
async def test_what_cannot_be_meant_is_said_in_the_form(
    settle: Settle, screen_text: Text, make_app: Make, control: FakeControl,
    keys: tuple[str, ...], words: str,
) -> None:  # fmt: skip
    app = make_app()
    async with app.run_test(size=WIDE) as pilot:
        await opened(pilot, settle, "s", *keys, "enter")
        assert words in screen_text(app) and control.calls == []


async def test_no_limits_search_for_the_knee_alone(
    settle: Settle, make_app: Make, control: FakeControl
) -> None:
    async with make_app().run_test(size=WIDE) as pilot:
        await opened(pilot, settle, "s", "backspace", "enter")
        ((_, plan),) = control.calls
        assert isinstance(plan, SearchPlan) and plan.slo is None


async def test_another_machine_is_loaded_only_when_asked_twice(
    settle: Settle, screen_text: Text, make_app: Make, control: FakeControl, store: Store
) -> None:
    store.engines["llama"].url = "http://192.0.2.7:8000"
    app = make_app()
    async with app.run_test(size=WIDE) as pilot:
        await opened(pilot, settle, "s", "enter")
        assert "another machine" in screen_text(app) and control.calls == []
        await opened(pilot, settle, "enter")
        assert [call[0] for call in control.calls] == ["start_search"]


async def test_a_running_search_is_stopped_or_left_to_itself(
    settle: Settle, screen_text: Text, make_app: Make, control: FakeControl, store: Store,
    now: float,
) -> None:  # fmt: skip
    store.search = searching(now - 71, 6, over=False)
    app = make_app()
    async with app.run_test(size=WIDE) as pilot:
        await opened(pilot, settle, "s")
        text = screen_text(app)
        assert "level 7: 256 streams, measuring" in text and "about 1m04s left" in text
        assert "So far: Holds" in text and "searching" in text
        await opened(pilot, settle, "enter", "e")  # neither starts a second one
        assert control.calls == []
        await opened(pilot, settle, "x", "0")
        assert control.calls == [("stop_experiment",)] * 2
        await opened(pilot, settle, "escape")
        assert isinstance(app.screen, Dashboard)
        assert control.calls == [("stop_experiment",)] * 2
        await opened(pilot, settle, "s", "s")
        assert isinstance(app.screen, Dashboard)


async def test_the_end_says_the_sentence_and_the_knee(
    settle: Settle, screen_text: Text, make_app: Make, store: Store, now: float
) -> None:
    store.search = searching(now - 200)
    app = make_app()
    async with app.run_test(size=(200, 60)) as pilot:
        await opened(pilot, settle, "s")
        text = screen_text(app)
        assert "Holds TTFT <= 500ms and TPOT <= 50ms for 95% of requests up to 144 streams" in text
        assert "knee" in text and "x a worker used" in text and "▲" in text
        await opened(pilot, settle, "enter")
        assert "seconds a level" in screen_text(app)
        await opened(pilot, settle, "escape")
        assert "another search" in screen_text(app)
        await opened(pilot, settle, "e", "escape", "q")
        assert isinstance(app.screen, Dashboard)


async def test_g_goes_through_the_ghosts(
    settle: Settle, screen_text: Text, make_app: Make, store: Store, now: float
) -> None:
    store.search = searching(now - 200)
    store.curves = (earlier(now - 90_000, 0.6, 64), earlier(now - 7500, 0.8, 96))
    app = make_app()
    async with app.run_test(size=WIDE) as pilot:
        await opened(pilot, settle, "s")
        shown = []
        for _ in range(4):
            shown.append(screen_text(app))
            await opened(pilot, settle, "g")
        assert "2 earlier curves, newest 2h05m ago: max_num_seqs 96" in shown[0]
        assert "1 earlier curve, 2h05m ago" in shown[1]
        assert "earlier curves are hidden" in shown[2]
        assert shown[3] == shown[0] != shown[2]


@pytest.mark.parametrize(
    ("size", "words"),
    [((80, 24), "newest 2h05m ago: max_num_seqs 96"), ((60, 16), "newest 2h05m ago ")],
)
async def test_what_was_otherwise_leaves_whole_where_it_has_no_room(
    settle: Settle, screen_text: Text, make_app: Make, store: Store, now: float,
    size: tuple[int, int], words: str,
) -> None:  # fmt: skip
    store.search = searching(now - 200)
    store.curves = (earlier(now - 90_000, 0.6, 64), earlier(now - 7500, 0.8, 96))
    app = make_app()
    async with app.run_test(size=size) as pilot:
        await opened(pilot, settle, "s")
        assert f"2 earlier curves, {words}" in screen_text(app)


async def test_a_search_that_cannot_start_is_said_in_the_form_and_an_event(
    settle: Settle, screen_text: Text, make_app: Make, control: FakeControl, store: Store
) -> None:
    control.error = LlmtopError("llama is starting", "wait")
    app = make_app()
    async with app.run_test(size=WIDE) as pilot:
        await opened(pilot, settle, "s", "enter")
        assert "llama is starting: wait" in screen_text(app)
        assert store.events[-1].text == "llama is starting: wait"


async def test_enter_starts_the_comparison_that_the_form_says(
    settle: Settle, screen_text: Text, make_app: Make, control: FakeControl
) -> None:
    app = make_app()
    async with app.run_test(size=WIDE) as pilot:
        await opened(pilot, settle, "c")
        assert isinstance(app.screen, CompareScreen)
        await opened(pilot, settle, "down", "down", *"64", "down", *"16", "enter")
        plan = ComparisonPlan("llama", "max_num_seqs", 256, 64, level=16)
        assert control.calls == [("start_comparison", plan)]


async def test_left_and_right_choose_the_option_and_propose_its_values(
    settle: Settle, screen_text: Text, make_app: Make, control: FakeControl
) -> None:
    app = make_app()
    async with app.run_test(size=WIDE) as pilot:
        await opened(pilot, settle, "c", "right")
        assert "max_num_batched_tokens" in screen_text(app)
        await opened(pilot, settle, "enter")
        await opened(pilot, settle, "right", "right", "enter")
        plans = [call[1] for call in control.calls]
        assert [(p.option, p.a, p.b) for p in plans if isinstance(p, ComparisonPlan)] == [
            ("max_num_batched_tokens", 8192, 4096),
            ("async_scheduling", True, False),
        ]
        await opened(pilot, settle, "right", "enter")
        assert "gpu_memory_utilization needs a restart; `llmtop compare` does that" in screen_text(
            app
        )
        assert len(control.calls) == 2


@pytest.mark.parametrize(
    ("keys", "words"),
    [
        (("down", "down", *"9999"), "out of range"),
        (("down", "down", *"256"), "A and B are the same"),
        (("down", "down", "down", "down", *"5"), "pairs must be even"),
        (("down", *"many"), "whole number"),
    ],
)
async def test_what_cannot_be_compared_is_said_in_the_form(
    settle: Settle, screen_text: Text, make_app: Make, control: FakeControl,
    keys: tuple[str, ...], words: str,
) -> None:  # fmt: skip
    app = make_app()
    async with app.run_test(size=WIDE) as pilot:
        await opened(pilot, settle, "c", *keys, "enter")
        assert words in screen_text(app) and control.calls == []


async def test_engine_against_engine(
    settle: Settle, screen_text: Text, make_app: Make, control: FakeControl, store: Store,
    make_engine: Callable[..., EngineTrack],
) -> None:  # fmt: skip
    store.engines["second"] = make_engine("second", 8001)
    app = make_app()
    async with app.run_test(size=WIDE) as pilot:
        await opened(pilot, settle, "c", "left", "enter")
        assert "engine second" in screen_text(app)
        ((_, plan),) = control.calls
        assert isinstance(plan, ComparisonPlan) and (plan.engine, plan.other) == ("llama", "second")


async def test_a_running_comparison_is_stopped_or_left_to_itself(
    settle: Settle, screen_text: Text, make_app: Make, control: FakeControl, store: Store,
    now: float,
) -> None:  # fmt: skip
    store.comparison = comparing(now - 71, 5, over=False)
    app = make_app()
    async with app.run_test(size=WIDE) as pilot:
        await opened(pilot, settle, "c")
        assert "run 11 of 20 (pair 6 of 10): B, measuring" in screen_text(app)
        assert "n=3 pairs" in screen_text(app) and "about 1m04s left" in screen_text(app)
        await opened(pilot, settle, "x")
        assert control.calls == [("stop_experiment",)]
        await opened(pilot, settle, "c")
        assert isinstance(app.screen, Dashboard)


async def test_the_end_of_a_comparison_says_that_the_option_is_back(
    settle: Settle, screen_text: Text, make_app: Make, store: Store, now: float
) -> None:
    store.comparison = comparing(now - 300)
    app = make_app()
    async with app.run_test(size=WIDE) as pilot:
        await opened(pilot, settle, "c")
        text = screen_text(app)
        assert "max_num_seqs is 256 again" in text and "worse" in text
        assert "max_num_seqs=64 is worse in output tok/s" in text


@pytest.mark.parametrize(("key", "words"), [("s", "a search"), ("c", "a comparison")])
async def test_read_only_forbids_both_with_a_word(
    settle: Settle, make_app: Make, control: FakeControl, key: str, words: str
) -> None:
    app = make_app(readonly=True)
    async with app.run_test(size=WIDE) as pilot:
        await opened(pilot, settle, key)
        assert isinstance(app.screen, Dashboard) and control.calls == []
        (note,) = app._notifications
        assert note.message.startswith(f"read-only: {words}")


@pytest.mark.parametrize("size", first(1, SIZES))
@pytest.mark.parametrize("over", [False, True])
@pytest.mark.parametrize("done", first(1, [10, 4]))
async def test_the_sentence_of_a_comparison_is_whole_at_every_size(
    settle: Settle, screen_text: Text, make_app: Make, store: Store, now: float,
    size: tuple[int, int], done: int, over: bool,
) -> None:  # fmt: skip
    store.comparison = comparing(now - 300, done, over=over)
    app = make_app()
    async with app.run_test(size=size) as pilot:
        await opened(pilot, settle, "c")
        told = " ".join(" ".join(screen_text(app).splitlines()[1:3]).split())
        told = told.partition("╭")[0].strip()
        assert told.endswith((".", "...")) and "…" not in told
        if done > 4:
            assert "than" in told or "Cannot tell" in told


@pytest.mark.parametrize("size", first(1, SIZES))
@pytest.mark.parametrize("key", ["s", "c"])
@pytest.mark.parametrize("ascii", first(1, [False, True]))
async def test_every_row_fits_at_every_size(
    settle: Settle, screen_text: Text, make_app: Make, store: Store, now: float,
    key: str, size: tuple[int, int], ascii: bool,
) -> None:  # fmt: skip
    store.search, store.comparison = searching(now - 200), comparing(now - 300)
    store.curves = (earlier(now - 7500, 0.8, 96),)
    app = make_app(ascii=ascii)
    async with app.run_test(size=size) as pilot:
        for then in ((), ("e",)):
            await opened(pilot, settle, key if not then else "e")
            rows = screen_text(app).splitlines()
            assert len(rows) == size[1] and {len(row) for row in rows} == {size[0]}
            assert " ! " not in rows[0] and "esc back" in rows[-1]
            assert not ascii or screen_text(app).isascii()


async def test_below_the_smallest_size_one_line_says_so(
    settle: Settle, screen_text: Text, make_app: Make
) -> None:
    app = make_app()
    async with app.run_test(size=(50, 10)) as pilot:
        await opened(pilot, settle, "s")
        assert screen_text(app).split("\n")[5].strip() == "llmtop needs 60x16 or more"


@pytest.mark.parametrize("key", ["s", "c"])
async def test_hidden_it_does_no_work_and_nothing_new_paints_nothing(
    settle: Settle, make_app: Make, store: Store, now: float, monkeypatch: pytest.MonkeyPatch,
    key: str,
) -> None:  # fmt: skip
    store.search, store.comparison = searching(now - 200), comparing(now - 300)
    app = make_app(interval=0.01)
    async with app.run_test(size=WIDE) as pilot:
        await opened(pilot, settle, key)
        painted: list[object] = []
        monkeypatch.setattr(Canvas, "refresh", lambda self, *regions, **_: painted.append(regions))
        await pilot.pause(0.1)
        assert painted == []
        monkeypatch.undo()
        await opened(pilot, settle, "question_mark")
        assert isinstance(app.screen, HelpScreen)
        beats: list[int] = []
        monkeypatch.setattr(ExperimentScreen, "redraw", lambda self: beats.append(0))
        await pilot.pause(0.1)
        assert beats == []


async def test_a_level_more_paints_only_cells_that_changed(
    settle: Settle, make_app: Make, store: Store, now: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    store.search = searching(now - 60, 7, over=False)
    app = make_app()
    async with app.run_test(size=WIDE) as pilot:
        await opened(pilot, settle, "s")
        cells: list[int] = []
        state = store.search
        assert state.progress is not None

        def count(canvas: Canvas, *regions: object, **_: object) -> None:
            assert regions
            cells.append(sum(region.area for region in regions))  # type: ignore[attr-defined]

        monkeypatch.setattr(Canvas, "refresh", count)
        store.search = replace(state, progress=replace(state.progress, left_s=62.0))
        app.show_now()
        assert 0 < sum(cells) < 40


async def test_the_search_of_another_engine_is_not_this_ones(
    settle: Settle, screen_text: Text, make_app: Make, store: Store, now: float,
    make_engine: Callable[..., EngineTrack],
) -> None:  # fmt: skip
    store.engines["second"] = make_engine("second", 8001)
    store.search, store.selected = searching(now - 200), "second"
    app = make_app()
    async with app.run_test(size=WIDE) as pilot:
        await opened(pilot, settle, "s")
        assert "no search yet" in screen_text(app) and "up to 144" not in screen_text(app)
