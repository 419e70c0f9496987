"""Fills charts with the history from before this screen was opened, once for each engine."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from llmtop import LlmtopError
from llmtop.tui.store.series import CAPACITY, Series
from llmtop.tui.store.store import EngineTrack, Event, Store

if TYPE_CHECKING:
    from llmtop.history.history_reader import Past

SAME_S = 3.0  # closer marks with the same text are one change that was seen twice


class PastSource:
    """Fills new tracks from the history in ``folder``, each engine once. now: unix seconds."""

    def __init__(self, store: Store, folder: Path, now: Callable[[], float]) -> None:
        self._store, self._folder, self._now = store, folder, now
        self._known: set[str] = set()
        self._opened = now()
        self._first = True

    async def sample(self) -> None:
        """Read the history of engines that are new on the screen."""
        fresh = [one for name, one in self._store.engines.items() if name not in self._known]
        if not fresh:
            return
        self._known.update(one.name for one in fresh)
        if not self._folder.is_dir():
            return
        # An event names its engine only in its text, so events of unrelated engines cannot be
        # removed. They are read only for a screen with engines that llmtop started.
        first = self._first and any(track.owned for track in fresh)
        self._first = False
        try:
            found, events = await asyncio.to_thread(self._read, fresh, first)
        except LlmtopError as error:
            self._store.events.append(Event(self._now(), "warning", error.message))
            return
        for track, past in zip(fresh, found, strict=True):
            fill(track, past)
        if events:
            own = list(self._store.events)
            self._store.events.clear()
            self._store.events.extend([*events, *own])

    async def close(self) -> None:
        """Do nothing: no resource is held."""

    def _read(self, tracks: list[EngineTrack], first: bool) -> tuple[list[Past], list[Event]]:
        # Imported late: SQLite would delay the first screen.
        from llmtop.history.history_reader import HistoryReader

        with HistoryReader(self._folder) as reader:
            found = [
                reader.past(track.name, track.kind, self._opened, CAPACITY) for track in tracks
            ]
            return found, reader.events(self._opened) if first else []


def fill(track: EngineTrack, past: Past) -> None:
    """Insert the past before the points and marks that the track holds already."""
    for name, column in past.fine.items():
        track.series.setdefault(name, Series()).begin_with(*column)
    for span_s, series in past.thinned.items():
        for name, columns in series.items():
            track.series.setdefault(name, Series()).begin_day_with(span_s, columns)
    own = list(track.marks)
    older = [
        mark
        for mark in past.marks
        if not any(one.label == mark.label and abs(one.time - mark.time) < SAME_S for one in own)
    ]
    track.marks.clear()
    track.marks.extend([*older, *own])
