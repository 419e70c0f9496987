"""Runs forecasts on a thread, so that the screen stays responsive and can cancel them."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from typing import Any, TypeVar

from llmtop.forecast.twin import Run, simulate

_Found = TypeVar("_Found")
Draw = Callable[..., Run]


class Withdrawn(Exception):
    """The caller was cancelled; nobody needs the answer."""


async def on_thread(work: Callable[[Draw], _Found], draw: Draw = simulate) -> _Found:
    """Call ``work`` on a thread and return its result.

    ``work`` gets a function that simulates one draw. When the caller is cancelled, that function
    raises ``Withdrawn`` at the next draw; a draw takes about 50 ms.
    """
    withdrawn = threading.Event()

    def checked_draw(*args: Any, **kwargs: Any) -> Run:
        if withdrawn.is_set():
            raise Withdrawn
        return draw(*args, **kwargs)

    try:
        return await asyncio.to_thread(work, checked_draw)
    finally:
        withdrawn.set()
