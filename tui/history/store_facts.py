"""Converts a store into the facts of a recording: the changes, or the complete state."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TypeVar

from msgspec import to_builtins

from llmtop.analysis.events import Event
from llmtop.analysis.marks import Mark
from llmtop.analysis.thinning import Thinner
from llmtop.engines.core.options import Option
from llmtop.engines.core.records import EngineStatus
from llmtop.history.facts import (
    CausesFact,
    EngineFact,
    EventFact,
    Fact,
    GpusFact,
    LoadFact,
    MarkFact,
    OptionFact,
    OtherProcessesFact,
    SampleFact,
    SelectFact,
    SeriesFact,
    SeriesSummary,
    StateFact,
    StatusFact,
    SummaryFact,
)
from llmtop.history.load_rows import row_of
from llmtop.tui.store.store import EngineTrack, Store, newer
from llmtop.values import replace

_Item = TypeVar("_Item")
MEMBER_EVENTS = 200  # newest events, repeated at the beginning of each member


class StoreFacts:
    """Converts a store into facts.

    It empties the journals of the tracks, so a store has only one ``StoreFacts``.
    """

    def __init__(self, store: Store) -> None:
        self._store = store
        self._written: dict[tuple[str, str], Fact] = {}
        self._marks: dict[str, Mark] = {}
        self._event: Event | None = None
        self._begun = False
        self._minutes: dict[str, dict[str, Thinner]] = {}
        for track in store.engines.values():
            track.take_journal()

    def changes(self, time: float) -> Iterator[Fact]:
        """The changes since the last call. time: unix seconds, the time of all facts."""
        for fact in self._state(time):
            key = _key(fact)
            before = self._written.get(key)
            if before is None or replace(before, time=time) != fact:
                self._written[key] = fact
                yield fact
        for track in list(self._store.engines.values()):
            yield from self._points(track)
            for mark in newer(track.marks, self._marks.get(track.name)):
                self._marks[track.name] = mark
                yield MarkFact(time, track.name, mark)
        for event in newer(self._store.events, self._event):
            self._event = event
            yield EventFact(time, event)

    def all(self, time: float) -> Iterator[Fact]:
        """The complete state, for the start of a member, with a summary of the minute before."""
        for name, minutes in self._minutes.items():
            values = {
                series: SeriesSummary(found.low, found.mean, found.high, found.n)
                for series, thinner in minutes.items()
                if (found := thinner.take()) is not None and found.n
            }
            if values and self._begun:
                yield SummaryFact(time, name, values)
        self._begun = True  # there is no minute before the first member
        yield from self._state(time)
        for track in list(self._store.engines.values()):
            # Newer marks are left to ``changes``.
            for mark in _until(track.marks, self._marks.get(track.name)):
                yield MarkFact(time, track.name, mark)
        for event in _until(self._store.events, self._event)[-MEMBER_EVENTS:]:
            yield EventFact(time, event)

    def _state(self, time: float) -> Iterator[Fact]:
        """The present state. Default values are left out unless the fact was written before."""
        store = self._store
        for track in list(store.engines.values()):
            yield engine_fact(track, time)
            if track.status is not None:
                yield StatusFact(time, track.name, shareable(track.status))
            yield SampleFact(time, track.name, track.sample)
            yield StateFact(
                time,
                track.name,
                track.load_state,
                track.stale_since,
                track.trouble,
                track.conditions,
                track.log_tail,
                track.memory_report,
                track.cost,
            )
            causes = CausesFact(time, track.name, track.why, track.why_since)
            if causes != CausesFact(time, track.name) or self._has_written(causes):
                yield causes
            others = other_processes_fact(track, time)
            if others != OtherProcessesFact(time, track.name) or self._has_written(others):
                yield others
        yield GpusFact(time, store.gpus, store.gpu_note)
        if store.load is not None:
            yield LoadFact(time, row_of(store.load), store.load_target)
        yield SelectFact(time, store.selected)

    def _has_written(self, fact: Fact) -> bool:
        return _key(fact) in self._written

    def _points(self, track: EngineTrack) -> Iterator[Fact]:
        moments: dict[float, dict[str, float | None]] = {}
        minutes = self._minutes.setdefault(track.name, {})
        for name, time, value in track.take_journal():
            moments.setdefault(time, {})[str(name)] = value
            minutes.setdefault(str(name), Thinner(1e9)).add(time, value)
        for time in sorted(moments):
            yield SeriesFact(time, track.name, moments[time])


def _key(fact: Fact) -> tuple[str, str]:
    """The type of a fact and the engine that it belongs to; "" for facts of the whole screen."""
    about = "" if isinstance(fact, SelectFact) else getattr(fact, "name", "")
    return type(fact).__name__, about


def _until(ring: Sequence[_Item], last: _Item | None) -> list[_Item]:
    """The items of a ring up to ``last``, which was written already."""
    return [] if last is None else list(ring)[: len(ring) - len(newer(ring, last))]


def engine_fact(track: EngineTrack, time: float) -> EngineFact:
    """The identity of an engine, and its options."""
    return EngineFact(
        time,
        track.name,
        track.kind,
        track.title,
        track.url,
        track.owned,
        track.simulated,
        track.version,
        track.model,
        tuple(map(option_fact, track.options)),
        track.options_note,
    )


def other_processes_fact(track: EngineTrack, time: float) -> OtherProcessesFact:
    """The hold and the load of other processes on an engine, and why it shows no steps."""
    hold, load = track.hold, track.shared_load
    return OtherProcessesFact(
        time,
        track.name,
        to_builtins(hold) if hold is not None else None,
        to_builtins(load) if load is not None else None,
        track.steps_missing,
    )


def option_fact(option: Option) -> OptionFact:
    """Convert an option to the form of a recording."""
    spec = option.spec
    return OptionFact(
        option.name,
        option.value,
        option.launch,
        option.applies,
        spec.flag,
        spec.summary,
        spec.kind.__name__,
        spec.default,
        spec.choices,
        option.minimum,
        option.maximum,
        option.pending,
        option.note,
        option.obstacle,
        option.ranks,
    )


def shareable(status: EngineStatus) -> EngineStatus:
    """Remove the data from a status that concerns only this machine. It holds no secrets."""
    record = status.record
    spec = replace(record.spec, environment=(), api_key_file="", folder="")
    kept = replace(
        record, spec=spec, env_names=(), boot_id="", log_path="engine.log", live_socket=None
    )
    return replace(status, record=kept)


__all__ = ["StoreFacts", "engine_fact", "option_fact", "shareable"]
