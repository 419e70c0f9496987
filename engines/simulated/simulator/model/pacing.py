"""Runs virtual steps in real time on an absolute schedule, and reports the lag."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

MOST_LAG_S = 0.1
"""Lag beyond this is dropped with a warning: catching up with a burst of steps would be as wrong as
the stall."""

WARN_EVERY_S = 10.0


class Pacer:
    """Ends each step when it is due, not when the last one happened to end.

    lag: seconds that the latest step ended after it was due. lost: seconds of schedule given up
    since the start because this machine could not keep up. Below a millisecond, lag is the timer's
    grain and is made up for by the next step.
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
        """Return when a step of that length, begun when the last one was due, is due itself.

        Gives way to other tasks at least once, however late it is.
        """
        self._due += seconds
        await self._sleep(max(0.0, self._due - self._clock()))
        now = self._clock()
        self.lag = max(0.0, now - self._due)
        if self.lag > MOST_LAG_S:
            self.lost += self.lag - MOST_LAG_S
            self._due = now - MOST_LAG_S
            self._complain(now)

    def _complain(self, now: float) -> None:
        if self._warned is not None and now - self._warned < WARN_EVERY_S:
            return
        self._warned = now
        self._warn(
            f"This machine is too slow for the simulation: {self.lag:.2f} s behind, "
            f"{self.lost:.2f} s given up so far. The numbers are this machine's, "
            "not the virtual GPU's."
        )
