"""Shares this load's figures with other screens, and shows those of other processes."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from pathlib import Path

from llmtop.analysis.marks import Mark
from llmtop.operations import shared_load
from llmtop.operations.shared_load import Notice, SharedLoad
from llmtop.tui.store.store import EngineTrack, Event, Store

EVERY_S = 1.0


class SharedLoadSource:
    """Writes the load's figures into the folder of its engine, and reads those of other processes.

    folder: the state folder of an engine that llmtop started. wall: unix seconds, the clock that
    processes share.
    """

    def __init__(
        self,
        store: Store,
        now: Callable[[], float],
        folder: Callable[[str], Path],
        wall: Callable[[], float] = time.time,
    ) -> None:
        self._store, self._now, self._folder, self._wall = store, now, folder, wall
        self._due = 0.0
        self._own_folder: Path | None = None
        self._drawn: dict[str, float] = {}  # by engine: time of the figures drawn last
        self._shown: dict[str, float] = {}  # by engine: time of the newest notice shown

    async def sample(self) -> None:
        """Write and read the figures, at most once a second."""
        now = self._wall()
        if 0 <= self._due - now <= EVERY_S:
            return
        self._due = now + EVERY_S * 0.9
        await self._share(now)
        for track in list(self._store.engines.values()):
            await self._read_notice(track, now)

    async def close(self) -> None:
        """Remove the figures of our load, which ends with the screen."""
        if self._own_folder is not None:
            shared_load.drop(self._own_folder)

    async def _share(self, now: float) -> None:
        store = self._store
        track, load = store.engines.get(store.load_target or ""), store.load
        if track is None or load is None or not track.owned:
            return
        if not load.running and not load.in_flight:
            if self._own_folder is not None:
                shared_load.drop(self._own_folder)
                self._own_folder = None
            return
        self._own_folder = self._folder(track.name)
        events = [Notice(e.time, e.text) for e in store.events if e.text.startswith("load")]
        marks = [Notice(mark.time, mark.label) for mark in track.marks if mark.load]
        shared = shared_load.of(load, now, events, marks)
        await asyncio.to_thread(shared_load.write, self._own_folder, shared)

    async def _read_notice(self, track: EngineTrack, now: float) -> None:
        found = None
        # Usually there is no load: this check needs no thread.
        if track.owned and (self._folder(track.name) / shared_load.FILE).exists():
            found = await asyncio.to_thread(shared_load.read, self._folder(track.name), now)
        before, track.shared_load = track.shared_load, found
        if found is not None:
            self._report_notices(track, found)
            self._draw(track, found)
        elif before is not None and self._drawn.pop(track.name, None) is not None:
            self._gap(track, before)

    def _draw(self, track: EngineTrack, found: SharedLoad) -> None:
        """Draw the figures on the charts, unless this screen's load is drawn there."""
        if self._is_loaded(track) or self._drawn.get(track.name) == found.time:
            return
        self._drawn[track.name] = found.time
        now = self._now()
        for name, value in found.figures:
            track.record(name, now, value)

    def _gap(self, track: EngineTrack, before: SharedLoad) -> None:
        """Draw a gap at the end of a load, to separate it from the next one."""
        if not self._is_loaded(track):
            for name, _ in before.figures:
                track.record(name, self._now(), None)

    def _is_loaded(self, track: EngineTrack) -> bool:
        load = self._store.load
        ours = self._store.load_target == track.name and load is not None
        return ours and load is not None and (load.running or load.in_flight > 0)

    def _report_notices(self, track: EngineTrack, found: SharedLoad) -> None:
        """Report the load's events and marks, each once, also those from before this screen."""
        last_shown = self._shown.get(track.name, 0.0)
        notices = [*found.events, *found.marks]
        self._shown[track.name] = max((one.time for one in notices), default=last_shown)
        # Not zero if the wall clock was stepped after the start of the screen.
        shift = self._now() - self._wall()
        for one in found.events:
            if one.time > last_shown:
                words = shared_load.words(one, found.pid)
                self._store.events.append(Event(one.time + shift, "info", words))
        for one in found.marks:
            if one.time > last_shown:
                track.marks.append(Mark(one.time + shift, one.text[:40], load=True))
