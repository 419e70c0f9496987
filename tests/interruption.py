"""Ctrl+C ends a run of the tests with its summary, and nothing that it started is left."""

from __future__ import annotations

import signal
import time
from types import FrameType

QUIET_S = 5.0  # an impatient second Ctrl+C, or one that make passes on, would take the summary

_interrupted_at = [-QUIET_S]


def listen() -> None:
    """Interrupt the run at SIGINT and SIGTERM; for a while after the first no other counts."""
    for signum in (signal.SIGINT, signal.SIGTERM):
        signal.signal(signum, _interrupt)


def _interrupt(signum: int, frame: FrameType | None) -> None:
    now = time.monotonic()
    if now - _interrupted_at[0] >= QUIET_S:
        _interrupted_at[0] = now
        raise KeyboardInterrupt
