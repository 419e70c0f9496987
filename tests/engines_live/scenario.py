"""What the scenarios on real engines share: waiting, and who is still there."""

from __future__ import annotations

import time
from collections.abc import Callable

import psutil


def seen(what: Callable[[], bool], within_s: float) -> float:
    """Seconds until ``what`` held; fails when it does not within ``within_s``."""
    begun = time.monotonic()
    while not what():
        assert time.monotonic() - begun < within_s, f"not seen within {within_s:g} s"
        time.sleep(0.05)
    return time.monotonic() - begun


def family(pid: int) -> list[int]:
    """A process and all that descend from it."""
    return [pid, *(child.pid for child in psutil.Process(pid).children(recursive=True))]


def alive(pid: int) -> bool:
    """Whether a process still runs; one that only waits to be looked at by its parent does not."""
    try:
        return bool(psutil.Process(pid).status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False
