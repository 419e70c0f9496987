"""Runs virtual steps in real time on an absolute schedule, and reports the lag."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

MOST_LAG_S = 0.1
"""Lag above this is dropped with a warning: a burst of steps to catch up would distort the
simulation as much as the stall."""

WARN_EVERY_S = 10.0


class Pacer:
    """Ends each step at its scheduled time, independent of the lag of earlier steps.

    lag: seconds by which the last step ended too late. Below a millisecond this is the resolution
    of the timer, and the next step compensates for it. lost: seconds that were dropped from the
    schedule since the start. clock: monotonic seconds.
    """

    def __init__(
        self,
        clock: Callable[[], float],
        sleep: Callable[[float], Awaitable[None]],
        warn: Callable[[str], None],
    ) -> None:
        self._clock = clock
        self._sleep = sleep
        self._warn = warn
        self._due = clock()
        self._warned: float | None = None
        self.lag = 0.0
        self.lost = 0.0

    def restart(self) -> None:
        """Begin a new schedule now: the engine was idle."""
        self._due = self._clock()
        self.lag = 0.0

    async def step(self, seconds: float) -> None:
        """Wait until the scheduled end of a step, which is ``seconds`` after that of the last one.

        Yields to other tasks at least once, even if it is late.
        """
        self._due += seconds
        await self._sleep(max(0.0, self._due - self._clock()))
        now = self._clock()
        self.lag = max(0.0, now - self._due)
        if self.lag > MOST_LAG_S:
            self.lost += self.lag - MOST_LAG_S
            self._due = now - MOST_LAG_S
            self._warn_of_lag(now)

    def _warn_of_lag(self, now: float) -> None:
        if self._warned is not None and now - self._warned < WARN_EVERY_S:
            return
        self._warned = now
        self._warn(
            f"This machine is too slow for the simulation: {self.lag:.2f} s behind, "
            f"{self.lost:.2f} s dropped so far. The numbers show the speed of this machine, "
            "not of the virtual GPU."
        )
