"""The holds of the engines: reads, starts and ends them."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from itertools import groupby
from typing import TYPE_CHECKING

from llmtop.operations.slo.detached_holder import end, log_tail, start
from llmtop.operations.slo.holders import FILE, Action, HolderState, holder_of
from llmtop.printable import clean
from llmtop.tui.store.store import EngineTrack, Event, Store

if TYPE_CHECKING:
    from llmtop.operations.wiring import Wiring

EVERY_S = 1.0
ENDED = "the hold ended: "  # precedes the reason in the last message of a holder


class Holds:
    """A source that reads which engines are held. Each holder is a separate process.

    now: the screen's clock. wall: unix seconds, the clock that processes share.
    """

    def __init__(
        self,
        store: Store,
        now: Callable[[], float],
        wiring: Wiring,
        wall: Callable[[], float] = time.time,
    ) -> None:
        self._store, self._now, self._wiring, self._wall = store, now, wiring, wall
        self._due = 0.0
        self._shown: dict[str, float] = {}  # by engine: time of the newest action that was reported
        self._began = wall()
        self._ending: set[str] = set()  # engines whose hold this screen is ending

    async def sample(self) -> None:
        """Read the holds, at most once a second."""
        now = self._wall()
        if 0 <= self._due - now <= EVERY_S:
            return
        self._due = now + EVERY_S * 0.9
        for track in list(self._store.engines.values()):
            await self._observe(track)

    async def close(self) -> None:
        """Do nothing: the holders continue to run."""

    async def start(self, engine: str, slo: str) -> None:
        """Start a holder in the background; return when it holds. Raises LlmtopError."""
        await asyncio.to_thread(start, self._wiring, engine, slo)
        await self._refresh(engine)

    async def end(self, engine: str) -> None:
        """End the holder of an engine; the holder restores the operator's values."""
        self._ending.add(engine)
        try:
            await asyncio.to_thread(end, self._wiring, engine)
            await self._refresh(engine)
        finally:
            self._ending.discard(engine)

    async def _refresh(self, engine: str) -> None:
        track = self._store.engines.get(engine)
        if track is not None:
            await self._observe(track)

    async def _observe(self, track: EngineTrack) -> None:
        if not track.owned:
            return
        folder = self._wiring.state.folder(track.name)
        found = None
        # Usually there is no holder: this check needs no thread.
        if (folder / FILE).exists():
            found = await asyncio.to_thread(holder_of, folder)
        before, track.hold = track.hold, found
        if before is not None and (found is None or found.pid != before.pid):
            why = "" if track.name in self._ending else _reason(log_tail(folder))
            self._report("change" if not why else "warning", f"{track.name} is not held now{why}")
        if found is not None:
            if before is None or before.pid != found.pid:
                words = f"{track.name} is held for {found.slo} by {who(found)}"
                self._report("change", words)
            self._show(track, found)

    def _show(self, track: EngineTrack, found: HolderState) -> None:
        """Report each action of a holder once. Changes of options are reported elsewhere."""
        shown = self._shown.get(track.name, self._began)
        new = [action for action in found.recent if action.time > shown]
        # Not zero if the wall clock was stepped after the start of the screen.
        shift = self._now() - self._wall()
        for why, actions in groupby(new, lambda action: action.why):
            last = list(actions)[-1]
            self._shown[track.name] = last.time
            self._report(_level(last), f"{track.name} hold: {why}", last.time + shift)

    def _report(self, level: str, text: str, at: float | None = None) -> None:
        moment = self._now() if at is None else at
        self._store.events.append(Event(moment, level, clean(text, 300)))


def who(found: HolderState) -> str:
    """The holder, with its process id."""
    pid = f"pid {found.pid}"
    return found.who if pid in found.who else f"{found.who}, {pid}"


def _level(action: Action) -> str:
    return "info" if action.option else "warning"


def _reason(words: str) -> str:
    """Why a holder ended by itself; "" if it was asked to end."""
    _, found, why = words.partition(ENDED)
    return f": {why}" if found else ""
