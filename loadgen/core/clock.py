"""The load's clock: CLOCK_MONOTONIC in nanoseconds, and kernel receive stamps brought onto it."""

from __future__ import annotations

import time
from collections.abc import Callable

NS = 1_000_000_000
BRACKETS = 40  # readings per alignment; the narrowest wins, so a pre-empted one does not count
RETAKE_NS = (
    NS  # the wall clock is slewed by up to 500 ppm: 0.5 us in a millisecond, 0.5 ms in a second
)
_TOLERANCE_NS = 20_000  # a stamp further in the future is an alignment error
OLD_NS = 100_000_000  # an older stamp means a slow reader, or a clock that was set back
_TRUSTED_NS = 10_000_000  # a newer offset is still valid: slow readers have many old stamps


class StampClock:
    """Maps SO_TIMESTAMPNS stamps, which are CLOCK_REALTIME, to CLOCK_MONOTONIC.

    The offset comes from the narrowest of many brackets (monotonic, real, monotonic). It is
    measured every second, and at once when a stamp is in the future or very old, because the wall
    clock may have been stepped. monotonic, real: the two clocks, for tests.
    """

    def __init__(
        self,
        monotonic: Callable[[], int] = time.monotonic_ns,
        real: Callable[[], int] = time.time_ns,
    ) -> None:
        self._monotonic, self._real = monotonic, real
        self.offset_ns = 0  # add to a stamp to get monotonic time
        self.due_ns = 0  # time of the next alignment
        self.align()

    def align(self) -> None:
        """Measure the offset between the two clocks again."""
        best: tuple[int, int] | None = None
        for _ in range(BRACKETS):
            before = self._monotonic()
            real = self._real()
            after = self._monotonic()
            if best is None or after - before < best[0]:
                best = (after - before, (before + after) // 2 - real)
        assert best is not None
        self.offset_ns = best[1]  # its error is at most half of the bracket
        self.due_ns = self._monotonic() + RETAKE_NS

    def at(self, stamp_ns: int, now_ns: int) -> int:
        """Monotonic time of a stamp that was read at ``now_ns``; never later than that."""
        at = stamp_ns + self.offset_ns
        young = now_ns < self.due_ns - RETAKE_NS + _TRUSTED_NS
        if at > now_ns + _TOLERANCE_NS or (now_ns - at > OLD_NS and not young):
            self.align()
            at = stamp_ns + self.offset_ns
        return min(at, now_ns)
