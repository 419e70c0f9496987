"""The fleet's table, as it is seen and used."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import pytest

from llmtop.engines.core.samples import EngineSample
from llmtop.fleet.instances import Instance, State
from llmtop.fleet.observer import Table
from llmtop.tui.fleet.app import FleetApp
from llmtop.tui.fleet.listing import Choice
from llmtop.values import replace

Text = Callable[[FleetApp], str]
NOW = 1_800_000_000.0


def instance(name: str, state: State = State.READY, running: int = 1, **more: object) -> Instance:
    sample = EngineSample(time=NOW, window_s=60.0, running=running, waiting=0, kv_usage=0.25)
    found = Instance(
        instance=name,
        job="vllm",
        host=name.partition(":")[0],
        engine="vllm",
        model="llama",
        version=None,
        state=state,
        reason="" if state is State.READY else f"it is {state.value}",
        sample=None if state is State.GONE else sample,
        age_s=1.0,
    )
    return replace(found, **more)


ROWS = (
    instance("b:1", State.GONE),
    instance("c:1", State.HUNG, 7),
    instance("a:1", running=3),
    instance("d:1", running=90, model="qwen"),
)


def app_of(rows: Sequence[Instance], trouble: str = "", choice: Choice | None = None) -> FleetApp:
    async def ask() -> Table:
        return Table(NOW, tuple(rows), trouble, "check the URL" if trouble else "")

    return FleetApp(ask, "Prometheus at p:9090", 5.0, choice or Choice())


@pytest.mark.parametrize("size", [(80, 24), (120, 40), (200, 60)])
async def test_state_comes_first_and_groups_have_headings(
    size: tuple[int, int], screen_text: Text
) -> None:
    app = app_of(ROWS)
    async with app.run_test(size=size) as pilot:
        await pilot.pause()
        shown = screen_text(app)
        assert "1 gone" in shown and "1 hung" in shown and "2 ready" in shown
        lines = shown.splitlines()
        gone = next(line for line in lines if "b:1" in line)
        assert gone.split()[:2] == ["▸", "gone"]
        assert any("llama · vllm" in line and "run 3" in line for line in lines)
        assert any("qwen · vllm" in line and "run 90" in line for line in lines)
        assert all(len(line) <= size[0] for line in lines)


async def test_filter_sort_and_pin(screen_text: Text) -> None:
    app = app_of(ROWS)
    async with app.run_test(size=(120, 40)) as pilot:
        await pilot.press("slash", *"qwen", "enter")
        assert "d:1" in screen_text(app) and "a:1" not in screen_text(app)
        await pilot.press("escape", "s")
        lines = [line for line in screen_text(app).splitlines() if ":1" in line]
        assert "by requests" in screen_text(app)
        assert [line.replace("▸", "").split()[1] for line in lines[:2]] == ["c:1", "a:1"]
        await pilot.press("end", "p")
        lines = screen_text(app).splitlines()
        assert lines[2].strip() == "pinned" and "d:1" in lines[3]


async def test_enter_ends_the_table_with_what_was_chosen() -> None:
    app = app_of(ROWS)
    async with app.run_test(size=(120, 40)) as pilot:
        await pilot.pause()
        await pilot.press("down", "enter")
    assert app.opened is not None
    assert (app.opened[0].instance, app.opened[1]) == ("c:1", False)


async def test_a_prometheus_that_fails_is_shown_and_the_keys_work(screen_text: Text) -> None:
    app = app_of((), "cannot connect to Prometheus at p:9090")
    async with app.run_test(size=(120, 40)) as pilot:
        await pilot.pause()
        assert "cannot connect to Prometheus" in screen_text(app)
        assert "check the URL" in screen_text(app)
        await pilot.press("question_mark")
        assert "In the fleet" in screen_text(app)


@pytest.mark.parametrize("size", [(80, 24), (120, 40), (200, 60)])
@pytest.mark.parametrize("rows", [(), ROWS])
async def test_why_it_is_not_of_now_is_shown_at_each_size(
    rows: Sequence[Instance], size: tuple[int, int], screen_text: Text
) -> None:
    trouble = "the answer of Prometheus at 10.20.30.40:41707 is not that of a Prometheus"
    app = app_of(rows, trouble)
    async with app.run_test(size=size) as pilot:
        await pilot.pause()
        shown = screen_text(app)
        assert trouble in shown and "fleet" in shown.splitlines()[0]
        assert ("numbers of" in shown) == bool(rows)


async def test_hostile_labels_reach_no_terminal(screen_text: Text) -> None:
    app = app_of((instance("\x1b[31mred\x1b[0m:1", model="a\x07b"),))
    async with app.run_test(size=(120, 40)) as pilot:
        await pilot.pause()
        assert "\x1b" not in screen_text(app) and "\x07" not in screen_text(app)
