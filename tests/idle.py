"""When a screen under test has done what was asked of it.

Textual's test pilot takes a program for idle when it uses little CPU time, and after a second in
any case. On a busy machine a program that waits for a core uses little too. Here it is also asked
that the event loop has nothing left to run.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable

import textual.app
import textual.pilot
from textual._wait import SLEEP_GRANULARITY, wait_for_idle

TURNS = 3  # of the loop, one after the other, with nothing in it but this look
LONGEST_S = 10.0  # a screen that paints without an end is looked at as it is


async def nothing_left(min_sleep: float = SLEEP_GRANULARITY, max_sleep: float = 1) -> None:
    """As Textual's own, and until the event loop is empty."""
    await wait_for_idle(min_sleep, max_sleep)
    ready = getattr(asyncio.get_running_loop(), "_ready", ())
    deadline, quiet = time.monotonic() + LONGEST_S, 0
    while quiet < TURNS and time.monotonic() < deadline:
        await asyncio.sleep(0)
        quiet = 0 if ready else quiet + 1


def use() -> None:
    """Make every pilot of this process wait like this."""
    wait: Callable[..., Awaitable[None]] = nothing_left
    for module in (textual.app, textual.pilot):
        assert hasattr(module, "wait_for_idle"), "Textual's pilot waits in another way now"
        vars(module)["wait_for_idle"] = wait
