"""Reports what other processes do to an engine: option changes and steps of commands."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterable
from pathlib import Path

from llmtop.analysis.marks import Mark
from llmtop.engines.core.options import Change, Outcome
from llmtop.operations.posted_events import FILE, posted
from llmtop.tui.store.store import EngineTrack, Event, Store
from llmtop.values import replace
from llmtop.wording.sentences import change_words, mark_words

GRACE_S = 1.0  # changes from longer before the start of the screen are not reported
SAME_S = 60.0  # for which shown events are remembered, to show an event of several engines once


class ChangeHistory:
    """Reports each change once: an event for every change, a mark for those not refused.

    now: the screen's clock. wall: unix seconds, the clock of the engines' change times.
    """

    def __init__(
        self,
        track: EngineTrack,
        store: Store,
        now: Callable[[], float],
        wall: Callable[[], float] = time.time,
    ) -> None:
        self._track, self._store = track, store
        self._now, self._wall = now, wall
        self._newest = wall() - GRACE_S

    def report(self, history: Iterable[Change], me: str) -> None:
        """Report the new changes of a history. me: this process, which is not named."""
        newest = self._newest
        for change in history:
            if change.time is None or change.time <= newest:
                continue
            self._newest = max(self._newest, change.time)
            # Convert to the screen's clock, which ignores steps of the wall clock.
            moment = self._now() - max(0.0, self._wall() - change.time)
            refused = change.outcome is Outcome.REFUSED
            level = "warning" if refused else "change"
            self._store.events.append(Event(moment, level, change_words(change, me)))
            if not refused:
                applied = change.outcome is Outcome.APPLIED
                self._track.marks.append(Mark(moment, mark_words(change), effect=applied))


class PostedEvents:
    """A source that reads the events that commands post for llmtop's engines.

    An event of several engines is posted for each of them and shown once. now: the screen's clock.
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
        self._began = wall()
        self._seen: dict[str, tuple[int, int]] = {}  # by engine: size and change time of the file
        self._known: dict[str, set[tuple[float, str]]] = {}  # by engine: the events that were read
        self._shown: set[tuple[float, str]] = set()

    async def sample(self) -> None:
        """Read the files that have changed; report their new events."""
        found: list[Event] = []
        for track in list(self._store.engines.values()):
            if track.owned:
                found += await self._read(track.name)
        if not found:
            return
        # Not zero if the wall clock was stepped after the start of the screen.
        shift = self._now() - self._wall()
        for event in sorted(found, key=lambda one: one.time):
            if (event.time, event.text) not in self._shown:
                self._shown.add((event.time, event.text))
                self._store.events.append(replace(event, time=event.time + shift))
        newest = max(time for time, _ in self._shown)
        self._shown = {one for one in self._shown if one[0] > newest - SAME_S}

    async def close(self) -> None:
        """Do nothing: no resource is held."""

    async def _read(self, name: str) -> list[Event]:
        folder = self._folder(name)
        try:
            status = (folder / FILE).stat()
        except OSError:
            return []
        # Usually nothing is new: this check needs no thread.
        seen = status.st_size, status.st_mtime_ns
        if self._seen.get(name) == seen:
            return []
        self._seen[name] = seen
        known = self._known.get(name)
        found = {(one.time, one.text): one for one in await asyncio.to_thread(posted, folder)}
        if found:
            self._known[name] = set(found)
        # What is new in the file counts, not the time: the wall clock may be stepped back. A time
        # in the future is damaged; it would break the event list.
        latest = self._wall() + SAME_S
        return [
            one
            for key, one in found.items()
            if (one.time > self._began if known is None else key not in known)
            and 0 <= one.time <= latest
        ]
