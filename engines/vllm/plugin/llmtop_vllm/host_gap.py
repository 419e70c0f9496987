"""The host gap: how long the device was idle although there was work.

With synchronous scheduling, the gap lasts from the result of a step to the launch of the next step.
With asynchronous scheduling, vLLM launches the next step before it waits for the result of the
previous one. If the previous step still runs at the launch, the gap is 0. Otherwise the gap is
measured from the moment at which the plugin saw that step finished; this is a lower bound.
"""

from __future__ import annotations

import math
from typing import Any

CERTAIN_WAIT_S = 0.0003  # if the engine's thread waited this long for a result, the device was busy


class HostGap:
    """Measures the host gap of one engine core. All times are monotonic seconds.

    core: vLLM's engine core; while it is None, the gap is unknown. idle_s: total time without work.
    """

    def __init__(self) -> None:
        self.core: Any = None
        self.idle_s = 0.0
        self._free_since: float | None = None
        self._idle_before = 0.0
        self._gap_s = 0.0
        self._known = True
        self._submitted_at = 0.0  # when the engine's thread last submitted work to the device

    def take(self) -> float:
        """The gap since the last call, in seconds; NaN if it is unknown."""
        gap, known = self._gap_s, self._known and self.core is not None
        self._gap_s, self._known = 0.0, True
        return gap if known else math.nan

    def result(self, now: float) -> None:
        """The engine's thread has received the result of a step."""
        newest = self._newest()
        if newest is None:
            self._free(now)
        elif _is_over(newest) is None and now - self._submitted_at < CERTAIN_WAIT_S:
            # The result was ready before the thread waited for it. So it is unknown when the device
            # finished, and whether it was idle before the next launch.
            self._known = False

    def poll(self, now: float) -> None:
        """Check, between two steps, whether the device has finished."""
        if self._free_since is None:
            newest = self._newest()
            if newest is not None and _is_over(newest):
                self._free(now)

    def launch(self, now: float) -> None:
        """The engine's thread begins to launch the next step."""
        self.poll(now)
        if self._free_since is not None:
            idle = self.idle_s - self._idle_before
            self._gap_s += max(0.0, now - self._free_since - idle)
            self._free_since = None

    def launched(self, now: float) -> None:
        """The engine's thread has launched the step."""
        self._submitted_at = now

    def _free(self, now: float) -> None:
        self._free_since, self._idle_before = now, self.idle_s

    def _newest(self) -> Any:
        """The future of the last launched step; None if its result was already received."""
        queue = None if self.core is None else self.core.batch_queue
        return queue[0][0] if queue else None


def _is_over(future: Any) -> bool | None:
    """Whether the device has finished a step; None if this cannot be checked without waiting."""
    if future.done():
        return True
    output = getattr(future, "async_output", None)
    for name in ("async_copy_ready_event", "copy_event"):
        query = getattr(getattr(output, name, None), "query", None)
        if callable(query):
            return bool(query())
    return None  # no event that can be queried: on a CPU, or with several workers
