"""A recording with shifted times, so that two recordings can be replayed side by side."""

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
    """The recording in ``path``, with all its times shifted so that it begins at ``begins_at``
    (unix seconds)."""

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
        """As in ``Recording``, in shifted times."""
        by = self._by
        early = steps_since - by if steps_since else 0.0
        for fact in super().facts(since - by, until - by, kinds, early):
            yield shifted(fact, by)

    def beginnings(self) -> Iterator[Fact]:
        """As in ``Recording``, in shifted times."""
        for fact in super().beginnings():
            yield shifted(fact, self._by)

    def start_before(self, time: float) -> float:
        """As in ``Recording``, in shifted times."""
        return super().start_before(time - self._by) + self._by


def shifted(fact: Fact, by: float) -> Fact:
    """The fact with ``by`` seconds added to all its times."""
    if isinstance(fact, SeriesFact | StepsFact):  # the most frequent kinds have only one time
        return replace(fact, time=fact.time + by)
    if isinstance(fact, SampleFact):
        sample = fact.sample
        if sample is not None:
            sample = replace(sample, time=sample.time + by)
        return replace(fact, time=fact.time + by, sample=sample)
    if isinstance(fact, OtherProcessesFact) and fact.hold is not None:
        hold = {key: _time(key, value, by) for key, value in fact.hold.items()}
        return replace(fact, time=fact.time + by, hold=hold)
    return _shifted(fact, by)


def _shifted(value: _Shifted, by: float) -> _Shifted:
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
        return _shifted(value, by)
    if isinstance(value, tuple) and value and isinstance(value[0], Struct):
        return tuple(_shifted(one, by) if isinstance(one, Struct) else one for one in value)
    return value
