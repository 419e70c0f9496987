"""How often each panel is painted: at every beat, or less often on a slow line. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Protocol, runtime_checkable

# Seconds between two paints on a slow line. The pulse is the most important panel, so it has the
# shortest interval within the budget of 1,000 bytes a second. Charts cost most and change slowly.
# Other panels change rarely and are painted on change.
RARE = {
    "state": 3.0,
    "beside-state": 3.0,
    "pulse": 3.0,
    "beside-pulse": 3.0,
    "engines": 3.0,
    "load": 5.0,
    "token": 5.0,
    "gpu": 5.0,
}
RARE_CHART = 10.0
SLACK_S = 0.2  # a beat may come this much early and still count


@runtime_checkable
class Redraws(Protocol):
    """A screen that paints at each beat, and at once when ``redraw`` is called."""

    @property
    def is_seen(self) -> bool:
        """Whether the screen is visible; a covered screen need not be painted."""

    def redraw(self) -> None:
        """Read the store and paint the changes."""


@runtime_checkable
class FollowsSteps(Protocol):
    """A screen that shows the newest steps of the selected engine."""

    def steps_read(self) -> None:
        """Repaint: new steps were read."""


class Pace:
    """Stores when each panel was painted. charts: the panels that are charts."""

    def __init__(self, charts: Iterable[str]) -> None:
        self._rare = {**RARE, "cost": RARE["token"], **dict.fromkeys(charts, RARE_CHART)}
        self._painted: dict[str, float] = {}

    def due(self, panel: str, now: float, *, slow_line: bool) -> bool:
        """Whether a panel is to be painted; if so, record it as painted.

        now: seconds of a monotonic clock. slow_line: the line is slow.
        """
        wait = self._rare.get(panel, 0.0) if slow_line else 0.0
        if now - self._painted.get(panel, float("-inf")) < wait - SLACK_S:
            return False
        self._painted[panel] = now
        return True
