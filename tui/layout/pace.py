"""How often each panel is painted: at every beat, or rarely on a slow line. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Protocol, runtime_checkable

# Seconds between two paints on a slow line. The pulse is the most important panel, so it has the
# shortest interval within the budget of 1,000 bytes a second. Charts cost most and show minutes.
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
    """A screen that paints on a beat of its own, and at once when it is asked to."""

    @property
    def is_seen(self) -> bool:
        """Whether a person sees it: what is covered need not be painted."""

    def redraw(self) -> None:
        """One look at the store; what changed is painted."""


@runtime_checkable
class FollowsSteps(Protocol):
    """A screen that shows the newest steps of the selected engine."""

    def steps_read(self) -> None:
        """They were read just now."""


class Pace:
    """Remembers when each panel was painted. seldom: the line is slow."""

    def __init__(self, charts: Iterable[str]) -> None:
        self._rare = {**RARE, "cost": RARE["token"], **dict.fromkeys(charts, RARE_CHART)}
        self._painted: dict[str, float] = {}

    def due(self, panel: str, now: float, *, seldom: bool) -> bool:
        """Whether a panel's turn has come; it counts as painted then. now: a steady clock."""
        wait = self._rare.get(panel, 0.0) if seldom else 0.0
        if now - self._painted.get(panel, float("-inf")) < wait - SLACK_S:
            return False
        self._painted[panel] = now
        return True
