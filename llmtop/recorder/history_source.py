"""Writes the values that are new in a store since the last sample to the history."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from llmtop.analysis.events import Event
from llmtop.analysis.marks import Mark
from llmtop.engines.core.options import OptionValue
from llmtop.history.database import HistoryError
from llmtop.history.history_writer import HistoryWriter, Identity
from llmtop.tui.store.store import EngineTrack, Store, newer

# The other sources have read their engines within this time, so their values are written in the
# same second. A killed recorder loses that second at most.
READ_S = 0.4


class HistorySource:
    """Writes new values of ``store`` to ``writer``. It is the last source of a sampling.

    now: the time in unix seconds. error: why nothing more can be written, None while it can.
    """

    def __init__(self, store: Store, writer: HistoryWriter, now: Callable[[], float]) -> None:
        self._store, self._writer, self._now = store, writer, now
        self.error: HistoryError | None = None
        self._marks: dict[str, Mark] = {}
        self._event: Event | None = None
        self._options: dict[tuple[str, str], OptionValue] = {}

    async def sample(self) -> None:
        """Write the new values, as one transaction."""
        if self.error is not None:
            return
        await asyncio.sleep(READ_S)
        try:
            for track in list(self._store.engines.values()):
                self._write_track(track)
            for event in newer(self._store.events, self._event):
                self._event = event
                self._writer.event(event)
            self._writer.commit(self._now())
        except HistoryError as error:
            self.error = error

    async def close(self) -> None:
        """Do nothing: the owner of the writer closes it."""

    def _write_track(self, track: EngineTrack) -> None:
        who = identity_of(track)
        points = track.take_journal()
        if points:
            values = {name: value for name, _, value in points}
            self._writer.add(who, max(time for _, time, _ in points), values)
        for mark in newer(track.marks, self._marks.get(track.name)):
            self._marks[track.name] = mark
            self._writer.mark(who, mark)
        for option in track.options:
            key = track.name, option.name
            if option.value is not None and self._options.get(key) != option.value:
                self._options[key] = option.value
                self._writer.option(who, self._now(), option.name, option.value)


def identity_of(track: EngineTrack) -> Identity:
    """The identity of an engine in the history."""
    return Identity(
        track.name,
        track.kind,
        track.title,
        track.url,
        track.model,
        track.version,
        track.simulated,
        track.owned,
    )
