"""Waiting for what another process does."""

import time
from collections.abc import Callable

DEADLINE_S = 90.0  # generous: what is waited for comes at once on a machine that is not loaded


def until(true: Callable[[], object], what: str = "it", *, beat_s: float = 0.02) -> None:
    """Return once this is true. what: words for the failure."""
    deadline = time.monotonic() + DEADLINE_S
    while not true():
        assert time.monotonic() < deadline, f"{what} did not come in time"
        time.sleep(beat_s)
