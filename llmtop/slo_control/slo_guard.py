"""Whether a candidate of ``tune`` breaks the SLO under real traffic, so that it is taken back."""

from __future__ import annotations

from collections.abc import Iterable

from llmtop.slo_control.limits import Goal
from llmtop.slo_control.pressure import Pressure

TAKE_BACK_S = 1.5
"""Of broken limits. With a look each 0.4 s and the change back it stays below 3 s."""
MAY_BE_SLOW = 0.2  # of the requests that end: a candidate is given up above


class SloGuard:
    """Checks an engine repeatedly. A short violation is allowed: a burst causes one. goal: the
    limits that are to be kept."""

    def __init__(self, goal: Goal) -> None:
        self._goal = goal
        self._since: float | None = None

    def broken(
        self, now: float, ranks: Iterable[Pressure], slow_share: float | None = None
    ) -> bool:
        """Whether the limits have been broken for too long, by a rank or by too many requests that
        ended. now: seconds of any clock. slow_share: of those, above the limit of TPOT."""
        if not self.breaks(ranks, slow_share):
            self._since = None
            return False
        if self._since is None:
            self._since = now
        return now - self._since >= TAKE_BACK_S

    def breaks(self, ranks: Iterable[Pressure], slow_share: float | None = None) -> bool:
        """Whether a limit is broken at this moment."""
        slow = self._goal.tpot_s is not None and (slow_share or 0.0) > MAY_BE_SLOW
        return slow or any(self._breaks(seen) for seen in ranks)

    def _breaks(self, seen: Pressure) -> bool:
        """By the measured latencies, and by the time that a new request would wait: a first token
        that does not come is not measured."""
        goal = self._goal
        if goal.ttft_s is not None:
            late = seen.ttft_s is not None and seen.ttft_s > goal.ttft_s
            if late or seen.wait_s > goal.ttft_s:
                return True
        return goal.tpot_s is not None and (seen.tpot_s or 0.0) > goal.tpot_s
