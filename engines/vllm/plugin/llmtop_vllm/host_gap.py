"""How long the device had nothing to do although there was work.

Synchronous scheduling: from the result of one step to the launch of the next. Asynchronous
scheduling launches the next step before it waits for the result of the one before. There the gap is
zero where that one still runs at the launch, and else lasts at least since it was seen to be over.
"""

from __future__ import annotations

import math
from typing import Any

CERTAIN_WAIT_S = 0.0003  # the engine's thread waited so long for a result: the device was busy


class HostGap:
    """Follows the device of one engine core. All times are of one monotonic clock.

    core: vLLM's engine core, None until it is known; the gap is then unknown.
    """

    def __init__(self) -> None:
        self.core: Any = None
        self.idle_s = 0.0  # in all, in which the engine had no work
        self._free_since: float | None = None
        self._idle_before = 0.0
        self._gap_s = 0.0
        self._known = True
        self._acted = 0.0  # when the engine's thread last gave the device something

    def take(self) -> float:
        """The gap since the last call, in seconds; NaN where it is not known."""
        gap, known = self._gap_s, self._known and self.core is not None
        self._gap_s, self._known = 0.0, True
        return gap if known else math.nan

    def result(self, now: float) -> None:
        """The engine's thread has a step's result."""
        newest = self._newest()
        if newest is None:
            self._free(now)
        elif _is_over(newest) is None and now - self._acted < CERTAIN_WAIT_S:
            # The result was there before anybody waited for it. When it came is not known, nor
            # whether the step that was launched behind it has waited for its launch.
            self._known = False

    def look(self, now: float) -> None:
        """Between two steps: see whether the device is done."""
        if self._free_since is None:
            newest = self._newest()
            if newest is not None and _is_over(newest):
                self._free(now)

    def launch(self, now: float) -> None:
        """The next step is about to be launched."""
        self.look(now)
        if self._free_since is not None:
            idle = self.idle_s - self._idle_before
            self._gap_s += max(0.0, now - self._free_since - idle)
            self._free_since = None

    def launched(self, now: float) -> None:
        """It is."""
        self._acted = now

    def _free(self, now: float) -> None:
        self._free_since, self._idle_before = now, self.idle_s

    def _newest(self) -> Any:
        """The future of the step that was launched last and whose result is not taken yet."""
        queue = None if self.core is None else self.core.batch_queue
        return queue[0][0] if queue else None


def _is_over(future: Any) -> bool | None:
    """Whether the device is done with a step; None where it cannot be asked without waiting."""
    if future.done():
        return True
    output = getattr(future, "async_output", None)
    for name in ("async_copy_ready_event", "copy_event"):
        query = getattr(getattr(output, name, None), "query", None)
        if callable(query):
            return bool(query())
    return None  # a CPU has stand-ins for events, several workers have none here
