"""Detects a candidate of ``tune`` that breaks the SLO under real traffic, so that it is undone."""

from __future__ import annotations

from collections.abc import Iterable

from llmtop.slo_control.limits import Goal
from llmtop.slo_control.pressure import Pressure

UNDO_AFTER_S = 1.5
"""A candidate is undone when the limits are broken for so long. With a check every 0.4 s and the
time to change the options back, a violation lasts less than 3 s."""
MOST_SLOW = 0.2  # share of the ended requests above the TPOT limit that is allowed


class SloGuard:
    """Checks repeatedly whether an engine keeps the limits of ``goal``.

    A short violation is allowed, because a burst of requests causes one.
    """

    def __init__(self, goal: Goal) -> None:
        self._goal = goal
        self._since: float | None = None

    def broken(
        self, now: float, ranks: Iterable[Pressure], slow_share: float | None = None
    ) -> bool:
        """Whether the limits have been broken for ``UNDO_AFTER_S`` seconds.

        now: seconds on any clock. ranks: the pressure of each rank. slow_share: the share of the
        ended requests whose TPOT was above its limit, 0..1; None for unknown.
        """
        if not self.breaks(ranks, slow_share):
            self._since = None
            return False
        if self._since is None:
            self._since = now
        return now - self._since >= UNDO_AFTER_S

    def breaks(self, ranks: Iterable[Pressure], slow_share: float | None = None) -> bool:
        """Whether a limit is broken now, on any rank or by too many slow requests."""
        slow = self._goal.tpot_s is not None and (slow_share or 0.0) > MOST_SLOW
        return slow or any(self._breaks(seen) for seen in ranks)

    def _breaks(self, seen: Pressure) -> bool:
        """Whether one rank breaks a limit. The expected wait counts as well as the measured TTFT,
        because a request that still waits has no TTFT yet."""
        goal = self._goal
        if goal.ttft_s is not None:
            late = seen.ttft_s is not None and seen.ttft_s > goal.ttft_s
            if late or seen.wait_s > goal.ttft_s:
                return True
        return goal.tpot_s is not None and (seen.tpot_s or 0.0) > goal.tpot_s
