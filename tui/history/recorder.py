"""Keeps the recorder running while a screen is open. Reports once why it cannot run."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from llmtop.printable import clean
from llmtop.tui.store.store import Event, Store

EVERY_S = 5.0


class RecorderSource:
    """Starts the recorder if there is an engine to record.

    start_recorder: starts the recorder if none runs; blocks; returns why it cannot run, or "". now:
    the screen's clock. attached: records the URL of an engine that llmtop did not start, for the
    recorder to read; None if the recorder cannot reach the engines of this screen.
    """

    def __init__(
        self,
        store: Store,
        start_recorder: Callable[[], str],
        now: Callable[[], float],
        attached: Callable[[str], None] | None = None,
    ) -> None:
        self._store, self._start_recorder, self._now = store, start_recorder, now
        self._attached = attached
        self._due = 0.0
        self._reported = False

    async def sample(self) -> None:
        """Check the recorder every few seconds, while there is an engine to record."""
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
        if reason and not self._reported:
            self._reported = True
            self._store.events.append(Event(now, "warning", clean(reason, 300)))

    def _keep(self, shown: list[str]) -> str:
        if self._attached is not None:
            for url in shown:
                self._attached(url)
        return self._start_recorder()

    async def close(self) -> None:
        """Do nothing: the recorder continues to run."""
