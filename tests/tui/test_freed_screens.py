"""Every screen that is closed is freed, with the lines that were drawn for it."""

from __future__ import annotations

import asyncio
import gc
import sys
import weakref
from collections.abc import Callable

import pytest

from llmtop.tui.app import LlmtopApp
from tests.tiers import first

KEYS = ("question_mark", "ctrl+p", "s", "l", "c", "q", "K", "R")
TIMES = 8
DEADLINE_S = 20.0


@pytest.mark.parametrize("key", first(1, KEYS))
async def test_a_closed_screen_is_freed(make_app: Callable[..., LlmtopApp], key: str) -> None:
    """A screen that is held by anything is held each time, so a few times show it."""
    app = make_app(interval=0.2)
    async with app.run_test(size=(80, 24)) as pilot:
        await pilot.pause()
        opened: list[weakref.ref[object]] = []
        for _ in range(TIMES):
            await pilot.press(key)
            await pilot.pause()
            assert len(app.screen_stack) == 2
            opened.append(weakref.ref(app.screen))
            opened.append(weakref.ref(app.screen._styles_cache))  # holds its lines
            await pilot.press("escape")
            await pilot.pause()
        # Timers that were cancelled leave the event loop when they would have been due.
        for _ in range(round(DEADLINE_S / 0.1)):
            gc.collect()
            if not any(ref() for ref in opened):
                return
            await asyncio.sleep(0.1)
        pytest.fail(f"{sum(ref() is not None for ref in opened)} of {len(opened)} are left")


ROUNDS = 300  # each screen is opened so many times
MOST_BLOCKS = 5  # of memory for each opened screen; one that kept its lines left 1,500


@pytest.mark.more
@pytest.mark.parametrize("key", KEYS)
async def test_opening_a_screen_300_times_does_not_grow_the_heap(
    make_app: Callable[..., LlmtopApp], key: str
) -> None:
    app = make_app(interval=0.2)
    async with app.run_test(size=(80, 24)) as pilot:
        await pilot.pause()

        async def blocks(rounds: int) -> int:
            closed: list[weakref.ref[object]] = []
            for _ in range(rounds):
                await pilot.press(key)
                await pilot.pause()
                assert len(app.screen_stack) == 2
                closed.append(weakref.ref(app.screen))
                await pilot.press("escape")
                await pilot.pause()
            for _ in range(round(DEADLINE_S / 0.1)):
                gc.collect()
                if not any(ref() for ref in closed):
                    break
                await asyncio.sleep(0.1)
            return sys.getallocatedblocks()

        before = await blocks(5)
        grown = await blocks(ROUNDS) - before
        assert grown < MOST_BLOCKS * ROUNDS
