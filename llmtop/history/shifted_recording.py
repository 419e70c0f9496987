"""A recording on another one's clock, so that both are seen at the same time of their course."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any, TypeVar

from msgspec import Struct

from llmtop.history.facts import Fact, OtherProcessesFact, SampleFact, SeriesFact, StepsFact
from llmtop.history.recording_reader import Recording
from llmtop.values import replace

_TIMES = frozenset(
    {"time", "since", "stale_since", "kv_since", "started_at", "ready_at", "stop_requested_at",
     "ended_at"}
)  # fmt: skip

_Shifted = TypeVar("_Shifted", bound=Struct)


class ShiftedRecording(Recording):
    """The recording in ``path``, with all of its times moved so that it begins at ``begins_at``."""

    def __init__(self, path: Path, begins_at: float) -> None:
        super().__init__(path)
        self._by = begins_at - self.began
        self.began, self.ended = begins_at, self.ended + self._by

    def facts(
        self,
        since: float = 0.0,
        until: float = float("inf"),
        kinds: Collection[str] = (),
        steps_since: float = 0.0,
    ) -> Iterator[Fact]:
        """As of ``Recording``, in moved times."""
        by = self._by
        early = steps_since - by if steps_since else 0.0
        for fact in super().facts(since - by, until - by, kinds, early):
            yield moved(fact, by)

    def beginnings(self) -> Iterator[Fact]:
        """As of ``Recording``, in moved times."""
        for fact in super().beginnings():
            yield moved(fact, self._by)

    def start_before(self, time: float) -> float:
        """As of ``Recording``, in moved times."""
        return super().start_before(time - self._by) + self._by


def moved(fact: Fact, by: float) -> Fact:
    """A fact, so many seconds later."""
    if isinstance(fact, SeriesFact | StepsFact):  # most of them, and their time is the only one
        return replace(fact, time=fact.time + by)
    if isinstance(fact, SampleFact):
        sample = fact.sample
        if sample is not None:
            sample = replace(sample, time=sample.time + by)
        return replace(fact, time=fact.time + by, sample=sample)
    if isinstance(fact, OtherProcessesFact) and fact.hold is not None:
        hold = {key: _time(key, value, by) for key, value in fact.hold.items()}
        return replace(fact, time=fact.time + by, hold=hold)
    return _moved(fact, by)


def _moved(value: _Shifted, by: float) -> _Shifted:
    changes = {}
    for name in value.__struct_fields__:
        before = getattr(value, name)
        after = _time(name, before, by)
        if after is not before:
            changes[name] = after
    return replace(value, **changes) if changes else value


def _time(name: str, value: Any, by: float) -> Any:
    if name in _TIMES and isinstance(value, float | int) and not isinstance(value, bool):
        return value + by
    if isinstance(value, Struct):
        return _moved(value, by)
    if isinstance(value, tuple) and value and isinstance(value[0], Struct):
        return tuple(_moved(one, by) if isinstance(one, Struct) else one for one in value)
    return value
