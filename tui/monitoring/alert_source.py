"""A source that follows the alert rules: on a screen, and in `llmtop watch`."""

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
    """Looks at every engine once a beat. show: takes each alert that begins or ends here, at once.

    delivery: commands and webhooks. Of several processes that see an alert, one delivers it: the
    first that claims it in the ledger. wall: unix seconds.
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
        """One look at all engines and rules."""
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
        """Give what is under way a little time."""
        await self._delivery.close()

    @property
    def active(self) -> int:
        """How many alerts have begun and not ended."""
        return len(self._alerts.active)


def event(alert: Alert, time: float) -> Event:
    """An alert as a line of the event list."""
    level = "warning" if alert.begins else "info"
    return Event(time, level, f"alert {alert.rule.name}: {sentence(alert)}")
