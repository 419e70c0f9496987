"""Changes of an engine's options, by any process, as events and marks."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable

from llmtop.analysis.marks import Mark
from llmtop.engines.core.options import Change, Outcome
from llmtop.tui.store.store import EngineTrack, Event, Store
from llmtop.wording.sentences import change_words, mark_words

GRACE_S = 1.0  # changes from longer before the start of the screen are not reported


class ChangeHistory:
    """Reports each change once: an event for all, a mark for those that came into force.

    now: the screen's clock. wall: the clock that engines stamp their changes with.
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

    def tell(self, history: Iterable[Change], me: str) -> None:
        """Tell what is new in an engine's history. me: who we are, who need not be named."""
        newest = self._newest
        for change in history:
            if change.time is None or change.time <= newest:
                continue
            self._newest = max(self._newest, change.time)
            # Where it lies on the screen's clock, whatever became of the wall clock since.
            moment = self._now() - max(0.0, self._wall() - change.time)
            refused = change.outcome is Outcome.REFUSED
            level = "warning" if refused else "change"
            self._store.events.append(Event(moment, level, change_words(change, me)))
            if not refused:
                applied = change.outcome is Outcome.APPLIED
                self._track.marks.append(Mark(moment, mark_words(change), effect=applied))
