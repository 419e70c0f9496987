"""An engine's conditions in its track, and as events when they come and go."""

from __future__ import annotations

from collections.abc import Callable

from llmtop.engines.core.conditions import HUNG_S, Condition, Name, gravest_first, unanswered
from llmtop.engines.core.samples import EngineSample
from llmtop.engines.host.safe_text import clean
from llmtop.tui.store.store import EngineTrack, Event, Store

AGAIN_S = 60.0  # one that comes and goes is an event no more often than this
# Of these it is news that they are over; the others are facts of how the engine was set up.
PASSING = frozenset({Name.NEEDS_KEY, Name.HUNG, Name.ASLEEP, Name.SEVERAL_SERVERS})


class EngineFindings:
    """Keeps ``track.conditions``."""

    def __init__(self, track: EngineTrack, store: Store, now: Callable[[], float]) -> None:
        self._track, self._store, self._now = track, store, now
        self._reported_at: dict[Name, float] = {}

    def fresh(self, sample: EngineSample) -> bool:
        """What a new sample shows; whether there is something new to see."""
        found = sample.conditions
        stuck = self._unanswered(sample)
        if stuck is not None:
            found = gravest_first((*found, stuck))
        gone = {one.name for one in self._track.conditions} - {one.name for one in found}
        for name in sorted(gone & PASSING):
            self._reported_at.pop(name, None)
            self._report("info", f"no longer {name.value.replace('_', ' ')}")
        return self._set(found)

    def silent(self, found: Condition | None) -> bool:
        """It gave no numbers. found: what that means; None: nothing is known of it."""
        return self._set(() if found is None else (found,))

    def _set(self, found: tuple[Condition, ...]) -> bool:
        now, new = self._now(), False
        there = {one.name for one in self._track.conditions}
        for one in found:
            told = self._reported_at.get(one.name)
            self._reported_at[one.name] = now
            if one.name not in there and (told is None or now - told >= AGAIN_S):
                new = True
                self._report("warning", one.message, one.hint)
        self._track.conditions = found
        return new

    def _report(self, level: str, *words: str) -> None:
        parts = tuple(clean(word) for word in (f"{self._track.name}: {words[0]}", *words[1:]))
        event = Event(self._now(), level, "; ".join(parts), parts if len(parts) > 1 else ())
        self._store.events.append(event)

    def _unanswered(self, sample: EngineSample) -> Condition | None:
        """A hang that the engine's own gauges do not show: its core stopped before it heard of the
        requests that our load has in flight."""
        load = self._store.load
        if load is None or self._store.load_target != self._track.name or not load.in_flight:
            return None
        waits = load.oldest_wait_s or 0.0
        still = sample.still_s or 0.0
        if sample.running or sample.waiting or min(waits, still) < HUNG_S:
            return None
        return unanswered(load.in_flight, min(waits, still))
