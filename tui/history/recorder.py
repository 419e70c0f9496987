"""Keeps the recorder running while a screen is open. Reports once why it cannot."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from llmtop.printable import clean
from llmtop.tui.store.store import Event, Store

EVERY_S = 5.0


class RecorderSource:
    """tend: starts the recorder where none runs, blocking; the reason why there can be none.

    attached: notes the URL of an engine that llmtop did not start, for the recorder to read; None
    where the recorder cannot read the engines that are shown.
    """

    def __init__(
        self,
        store: Store,
        tend: Callable[[], str],
        now: Callable[[], float],
        attached: Callable[[str], None] | None = None,
    ) -> None:
        self._store, self._tend, self._now = store, tend, now
        self._attached = attached
        self._due = 0.0
        self._said = False

    async def sample(self) -> None:
        """Every few seconds, while there is an engine that can be recorded."""
        now = self._now()
        if 0 <= self._due - now <= EVERY_S:
            return
        self._due = now + EVERY_S
        tracks = list(self._store.engines.values())
        shown = [
            track.url
            for track in tracks
            if self._attached is not None and not track.owned and track.sample is not None
        ]
        if not shown and not any(track.owned and track.runs for track in tracks):
            return
        reason = await asyncio.to_thread(self._keep, shown)
        if reason and not self._said:
            self._said = True
            self._store.events.append(Event(now, "warning", clean(reason, 300)))

    def _keep(self, shown: list[str]) -> str:
        if self._attached is not None:
            for url in shown:
                self._attached(url)
        return self._tend()

    async def close(self) -> None:
        """The recorder runs on."""
