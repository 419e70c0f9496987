"""A source that evaluates the alert rules: on a screen, and in `llmtop watch`."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from llmtop.alerts.ledger import Ledger
from llmtop.alerts.rules import Alert, Alerts, Rule
from llmtop.alerts.words import sentence
from llmtop.analysis.events import Event
from llmtop.tui.monitoring.seen import seen_of

if TYPE_CHECKING:
    from llmtop.alerts.delivery import Delivery
    from llmtop.tui.monitoring.watches import Watches


class AlertSource:
    """Evaluates the rules of every engine at each beat.

    show: called at once with each alert that begins or ends. delivery: commands and webhooks. If
    several processes see an alert, only the first that claims it in the ledger delivers it. wall:
    unix seconds. engines: the number of engines at the last beat.
    """

    def __init__(
        self,
        watches: Watches,
        rules: Sequence[Rule],
        delivery: Delivery,
        ledger: Ledger,
        show: Callable[[Alert], None],
        wall: Callable[[], float] = time.time,
    ) -> None:
        self._watches, self._delivery, self._ledger = watches, delivery, ledger
        self._show, self._wall = show, wall
        self._alerts = Alerts(rules, ledger.since)
        self.engines = 0

    async def sample(self) -> None:
        """Evaluate all rules on all engines once."""
        await self._watches.sample()
        seen = {track.name: seen_of(track, one) for track, one in self._watches.tracks()}
        self.engines = len(seen)
        for alert in self._alerts.evaluate(seen, self._wall()):
            self._show(alert)
            if await asyncio.to_thread(self._ledger.claim, alert):
                self._delivery.deliver(alert)
        if active := self._alerts.active:
            await asyncio.to_thread(self._ledger.keep, active)

    async def close(self) -> None:
        """Wait a short time for deliveries in progress."""
        await self._delivery.close()

    @property
    def active(self) -> int:
        """The number of active alerts."""
        return len(self._alerts.active)


def event(alert: Alert, time: float) -> Event:
    """An alert as a line of the event list."""
    level = "warning" if alert.begins else "info"
    return Event(time, level, f"alert {alert.rule.name}: {sentence(alert)}")
