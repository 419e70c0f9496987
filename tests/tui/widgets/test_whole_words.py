"""At the usual sizes no word on the dashboard is cut by an edge or by an ellipsis."""

from __future__ import annotations

import re
from collections.abc import Callable

import pytest
from textual.app import App

from llmtop.diagnosis.state_rules import Level, LoadState
from llmtop.engines.core.options import Option
from llmtop.engines.simulated.adapter import ADAPTER
from llmtop.engines.tuning.resolution import assemble
from llmtop.tui.app import LlmtopApp
from llmtop.tui.sources.load_state import EngineStates
from llmtop.tui.store.store import EngineTrack, Store
from llmtop.tui.widgets.canvas import Canvas
from tests.plain_rows import plain
from tests.tiers import first

SIZES = [(120, 40), (100, 34), (200, 60)]
# The longest reasons that the rules make, each with the numbers of a busy engine.
REASONS = (
    "batch limit 96 reached, KV 96%, 1.2k preemptions/min, 64 waiting",
    "KV full, 228 preemptions/min, 1,286 waiting",
    "queue grows 14.2/s",
    "1,020 waiting at 1,012 of 1,024 running, KV 64%",
    "twice the load adds ~7% tok/s",
    "prefill takes 59% of step time",
    "token budget 256 is too small",
    "1,024 running, 62 waiting, no number moved for 12s",
)


def check_whole(app: App[None]) -> None:
    """No word of what is shown is torn."""
    shown = [canvas for canvas in app.screen.query(Canvas) if canvas.size.height]
    lines = [line for canvas in shown for line in plain(canvas.rows)]
    assert lines
    for line in lines:
        for torn in re.findall(r"\S*…", line):
            assert torn == "max_num_seqs…", line  # a mark's name, where its values do not fit
        # A word that touches the right edge of a box or of the screen was cut by it.
        body = line.removesuffix("│")
        assert not re.search(r"[a-z]{3}$", body), line


@pytest.mark.parametrize("size", first(1, SIZES))
@pytest.mark.parametrize("keys", [[], ["o"], ["s"], ["c"], ["question_mark"], ["l"], ["q"]])
async def test_no_word_is_cut(
    make_app: Callable[..., LlmtopApp], size: tuple[int, int], keys: list[str]
) -> None:
    app = make_app()
    async with app.run_test(size=size) as pilot:
        await pilot.press(*keys)
        await pilot.pause()
        check_whole(app)


@pytest.mark.parametrize("size", SIZES[:2])
async def test_no_word_of_a_state_and_its_event_is_cut(
    make_app: Callable[..., LlmtopApp], store: Store, now: float, size: tuple[int, int]
) -> None:
    track = store.engines["llama"]
    states = EngineStates(store, lambda: now)
    app = make_app()
    async with app.run_test(size=size) as pilot:
        for reason in REASONS:
            for level in (Level.NEAR_KNEE, Level.SATURATED, Level.OVERLOADED):
                track.load_state = LoadState(level, (reason, "oldest 2.34s"))
                store.events.clear()
                states.report("llama", LoadState(Level.HEADROOM, ("no load",)))
                states.report("llama", track.load_state)
                app.dashboard.redraw()
                await pilot.pause()
                check_whole(app)


@pytest.mark.parametrize("size", SIZES[:2])
async def test_no_word_of_an_option_is_cut(
    make_app: Callable[..., LlmtopApp], store: Store, size: tuple[int, int]
) -> None:
    track: EngineTrack = store.engines["llama"]
    options: tuple[Option, ...] = assemble(ADAPTER.options, {"max_num_seqs": 96}, None)
    track.options = options
    app = make_app()
    async with app.run_test(size=size) as pilot:
        await pilot.press("o")
        for _ in options:
            await pilot.pause()
            check_whole(app)
            await pilot.press("down")
