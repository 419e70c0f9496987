"""The beat of a screen beside Textual's own painting, and beneath other screens."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest
from textual.messages import Update
from textual.screen import Screen

from llmtop.analysis.series import SeriesName as S
from llmtop.tui.app import LlmtopApp
from llmtop.tui.panels.pulse import Pulse
from llmtop.tui.screens.dashboard import Dashboard
from llmtop.tui.screens.help import HelpScreen
from llmtop.tui.screens.quit import QuitScreen
from llmtop.tui.store.store import Store
from llmtop.tui.textual_private.compositor import TightUpdate

Make = Callable[..., LlmtopApp]
DEADLINE_S = 30


async def test_what_waits_to_be_painted_is_not_forgotten_by_a_beat(
    make_app: Make, store: Store, now: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    app = make_app()
    async with app.run_test(size=(120, 40)) as pilot:
        await pilot.pause()
        screen, pulse = app.screen, app.screen.query_one(Pulse)
        assert isinstance(screen, Dashboard)
        async with asyncio.timeout(DEADLINE_S):
            while screen._layout_required or not screen._compositor.begun:
                await pilot.pause()
        sent: list[str] = []

        def display(shown: Screen[object], update: object) -> None:
            if isinstance(update, TightUpdate):
                sent.append(update.render_segments(app.console))

        monkeypatch.setattr(app, "_display", display)
        (row,) = pulse.rows
        pulse.put([(*row[:-1], (row[-1][0][:-1] + "X", "text"))], app.current_view().glyphs)
        await screen._on_update(Update(pulse))  # now its timer would, and the beat comes before it
        monkeypatch.setattr(pulse, "show", lambda view: None)
        store.engines["llama"].record(S.RUNNING, now, 251.0)
        app.show_now()
        assert any("\x1b[2;120H" in update and "X" in update for update in sent)


async def test_a_screen_that_covers_it_before_the_first_beat_holds_it_up(
    make_app: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    app = make_app()
    async with app.run_test(size=(120, 40)) as pilot:
        await pilot.pause()
        dashboard = app.screen
        assert isinstance(dashboard, Dashboard) and dashboard._beat is None
        await pilot.press("question_mark")
        assert isinstance(app.screen, HelpScreen)
        beats: list[float] = []
        monkeypatch.setattr(dashboard, "tick", lambda: beats.append(0))
        dashboard._beat_s = 0.01
        dashboard._begin()
        await pilot.pause(0.2)
        assert beats == []
        await pilot.press("escape")
        async with asyncio.timeout(DEADLINE_S):
            while not beats:
                await pilot.pause()


async def test_behind_a_question_it_continues(
    make_app: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    app = make_app()
    async with app.run_test(size=(120, 40)) as pilot:
        await pilot.pause()
        dashboard = app.screen
        assert isinstance(dashboard, Dashboard)
        dashboard._beat_s = 0.01
        dashboard._begin()
        await pilot.press("q")
        assert isinstance(app.screen, QuitScreen)
        beats: list[float] = []
        monkeypatch.setattr(dashboard, "tick", lambda: beats.append(0))
        async with asyncio.timeout(DEADLINE_S):
            while not beats:
                await pilot.pause()
