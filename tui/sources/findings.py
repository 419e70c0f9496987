"""Writes an engine's conditions to its track, and their start and end as events."""

from __future__ import annotations

from collections.abc import Callable

from llmtop.engines.core.conditions import HUNG_S, Condition, Name, gravest_first, unanswered
from llmtop.engines.core.samples import EngineSample
from llmtop.engines.host.safe_text import clean
from llmtop.tui.store.store import EngineTrack, Event, Store

AGAIN_S = 60.0  # a condition that comes and goes is reported at most this often
# The end of these is reported. The others come from the engine's configuration.
PASSING = frozenset({Name.NEEDS_KEY, Name.HUNG, Name.ASLEEP, Name.SEVERAL_SERVERS})


class EngineFindings:
    """Updates ``track.conditions``."""

    def __init__(self, track: EngineTrack, store: Store, now: Callable[[], float]) -> None:
        self._track, self._store, self._now = track, store, now
        self._reported_at: dict[Name, float] = {}

    def fresh(self, sample: EngineSample) -> bool:
        """Take the conditions of a new sample; return whether one is new."""
        found = sample.conditions
        stuck = self._unanswered(sample)
        if stuck is not None:
            found = gravest_first((*found, stuck))
        ended = {one.name for one in self._track.conditions} - {one.name for one in found}
        for name in sorted(ended & PASSING):
            self._reported_at.pop(name, None)
            self._report("info", f"no longer {name.value.replace('_', ' ')}")
        return self._set(found)

    def silent(self, found: Condition | None) -> bool:
        """Handle a failed sample; return whether its condition is new. found: None: unknown."""
        return self._set(() if found is None else (found,))

    def _set(self, found: tuple[Condition, ...]) -> bool:
        now, new = self._now(), False
        present = {one.name for one in self._track.conditions}
        for one in found:
            reported = self._reported_at.get(one.name)
            self._reported_at[one.name] = now
            if one.name not in present and (reported is None or now - reported >= AGAIN_S):
                new = True
                self._report("warning", one.message, one.hint)
        self._track.conditions = found
        return new

    def _report(self, level: str, *words: str) -> None:
        parts = tuple(clean(word) for word in (f"{self._track.name}: {words[0]}", *words[1:]))
        event = Event(self._now(), level, "; ".join(parts), parts if len(parts) > 1 else ())
        self._store.events.append(event)

    def _unanswered(self, sample: EngineSample) -> Condition | None:
        """Detect a hang that the engine's gauges do not show.

        Its core stopped before it received the requests that our load has in flight.
        """
        load = self._store.load
        if load is None or self._store.load_target != self._track.name or not load.in_flight:
            return None
        waits = load.oldest_wait_s or 0.0
        still = sample.still_s or 0.0
        if sample.running or sample.waiting or min(waits, still) < HUNG_S:
            return None
        return unanswered(load.in_flight, min(waits, still))
