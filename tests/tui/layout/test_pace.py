"""What is painted when, on a slow line."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from types import SimpleNamespace

import pytest
from textual.pilot import Pilot

from llmtop.tui.app import LlmtopApp
from llmtop.tui.layout.pace import RARE_CHART, Pace
from llmtop.tui.screens import dashboard
from llmtop.tui.screens.dashboard import Dashboard
from llmtop.tui.store.store import Event, Store
from llmtop.values import replace


def painted(panel: str, *, slow_line: bool) -> int:
    """How often in a minute of beats of a second, the first ten of them not counted."""
    pace = Pace(["ttft"])
    turns = [pace.due(panel, float(second), slow_line=slow_line) for second in range(70)]
    return sum(turns[10:])


def test_without_a_slow_line_everything_has_its_turn_at_every_beat() -> None:
    assert painted("ttft", slow_line=False) == painted("pulse", slow_line=False) == 60


def test_on_a_slow_line_numbers_come_more_often_than_charts_and_events_at_once() -> None:
    assert painted("ttft", slow_line=True) == 60 / RARE_CHART
    assert painted("ttft", slow_line=True) < painted("load", slow_line=True)
    assert painted("load", slow_line=True) < painted("pulse", slow_line=True) < 60
    assert painted("events", slow_line=True) == painted("options", slow_line=True) == 60


async def test_a_slow_screen_says_so_and_shows_events_at_once_and_charts_later(
    make_app: Callable[..., LlmtopApp],
    screen_text: Callable[[LlmtopApp], str],
    settle: Callable[[Pilot[None]], Awaitable[None]],
    store: Store,
    now: float,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # The time stands still: on a busy machine a chart's turn comes before the test looks.
    monkeypatch.setattr(dashboard, "time", SimpleNamespace(monotonic=lambda: 100.0))
    app = make_app(low_bandwidth=True)
    async with app.run_test(size=(120, 40)) as pilot:
        await pilot.pause()
        assert "low bandwidth" in screen_text(app)
        track = store.engines["llama"]
        assert track.sample is not None
        track.sample = replace(track.sample, kv_tokens_used=123_000)
        store.events.append(Event(now, "info", "something happened"))
        assert isinstance(app.screen, Dashboard)
        app.screen.redraw(whole=False)
        await pilot.pause()
        assert "something happened" in screen_text(app)
        assert "123k/920k tok" not in screen_text(app)  # the chart's turn has not come
        await pilot.press("plus")  # a hand on a key wants to see what it does
        await settle(pilot)
        assert "123k/920k tok" in screen_text(app)
