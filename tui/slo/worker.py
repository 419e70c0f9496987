"""Forecasts on a thread: the screen stays live, and a question can be withdrawn."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from typing import Any, TypeVar

from llmtop.forecast.twin import Run, simulate

_Found = TypeVar("_Found")
Draw = Callable[..., Run]


class Withdrawn(Exception):
    """Nobody waits for the answer any more."""


async def on_thread(work: Callable[[Draw], _Found], draw: Draw = simulate) -> _Found:
    """Call ``work`` on a thread with what makes its draws.

    When the caller is cancelled, the thread ends before its next draw: a draw takes some 50 ms.
    """
    withdrawn = threading.Event()

    def made(*given: Any, **named: Any) -> Run:
        if withdrawn.is_set():
            raise Withdrawn
        return draw(*given, **named)

    try:
        return await asyncio.to_thread(work, made)
    finally:
        withdrawn.set()
