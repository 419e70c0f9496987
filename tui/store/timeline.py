"""The one clock of the screen."""

from __future__ import annotations

import time
from collections.abc import Callable


class Timeline:
    """The time axis of the charts: unix seconds that never run backwards.

    Taken once from the wall clock and then carried by the monotonic one, so that a stepped clock
    neither tears a gap into the charts nor rewrites them.
    """

    def __init__(
        self,
        wall: Callable[[], float] = time.time,
        steady: Callable[[], float] = time.monotonic,
    ) -> None:
        self._start, self._steady = wall() - steady(), steady

    def now(self) -> float:
        """Seconds on the charts' axis."""
        return self._start + self._steady()
