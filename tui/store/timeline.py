"""The clock of the screen."""

from __future__ import annotations

import time
from collections.abc import Callable


class Timeline:
    """The time axis of the charts: unix seconds that never run backwards.

    It reads the wall clock once and then follows the monotonic clock. So a stepped wall clock
    causes neither a gap in the charts nor replaced points.
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
