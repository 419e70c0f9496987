"""Writes the facts of a recording into a store, so that a screen shows the recorded state."""

from __future__ import annotations

from array import array
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

from msgspec import Struct, ValidationError, convert

from llmtop.diagnosis.steps.history import StepHistory
from llmtop.engines.core.options import Option, OptionSpec
from llmtop.history.facts import (
    CausesFact,
    EngineFact,
    EventFact,
    Fact,
    GpusFact,
    LoadFact,
    LogFact,
    MarkFact,
    OptionFact,
    OtherProcessesFact,
    SampleFact,
    SelectFact,
    SeriesFact,
    StateFact,
    StatusFact,
    StepsFact,
    SummaryFact,
)
from llmtop.history.load_rows import snapshot_of
from llmtop.operations.shared_load import SharedLoad
from llmtop.operations.slo.holders import HolderState
from llmtop.tui.history.step_facts import steps_of
from llmtop.tui.store.series import DAY, Series
from llmtop.tui.store.store import EngineTrack, Store

_Value = TypeVar("_Value")
LOG_LINES = 5000  # kept for each engine
MOST_ENGINES = 200
KEPT_STEPS = 16_384  # a minute at 270 a second; after a jump the charts have only these
_TYPES: dict[str, type[int] | type[float] | type[bool] | type[str]] = {
    "int": int, "float": float, "bool": bool, "str": str,
}  # fmt: skip


class Playback:
    """Applies facts to ``store`` in their order. logs: log lines by engine name."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self.logs: dict[str, deque[str]] = {}
        self._selected = False  # by the viewer; then the recorded selection is ignored
        self._apply: dict[type[Fact], Callable[[Fact], None]] = {
            EngineFact: self._engine,
            StatusFact: self._status,
            SampleFact: self._sample,
            SeriesFact: self._series,
            StateFact: self._state,
            StepsFact: self._steps,
            CausesFact: self._causes,
            OtherProcessesFact: self._other_processes,
            GpusFact: self._gpus,
            LoadFact: self._load,
            MarkFact: self._mark,
            EventFact: self._event,
            LogFact: self._log,
            SelectFact: self._select,
        }

    def apply(self, fact: Fact) -> None:
        """Write a fact into the store. Facts that no screen shows are ignored."""
        handler = self._apply.get(type(fact))
        if handler is not None:
            handler(fact)

    def reset(self) -> None:
        """Return to the state before the first fact. The selected engine stays selected."""
        store = self.store
        store.engines.clear()
        store.events.clear()
        store.gpus, store.gpu_note = (), ""
        store.load, store.load_target = None, None
        self.logs.clear()

    def select(self, name: str) -> None:
        """Select an engine for the viewer. The recorded selection is ignored from now on."""
        self._selected = True
        self.store.selected = name

    def begin_day_with(self, minutes: Minutes, until: float) -> None:
        """Insert the minutes before ``until`` (unix seconds) into the charts of a day."""
        for name, series in minutes.before(until).items():
            track = self.store.engines.get(name)
            if track is None:
                continue
            for label, columns in series.items():
                track.series.setdefault(label, Series()).begin_day_with(60, columns)

    def _track(self, name: str) -> EngineTrack:
        track = self.store.engines.get(name)
        if track is None:
            track = EngineTrack(name, "", "", "", owned=False)
            if len(self.store.engines) < MOST_ENGINES:
                self.store.engines[name] = track
            if self.store.selected is None:
                self.store.selected = name
        return track

    def _engine(self, fact: Fact) -> None:
        assert isinstance(fact, EngineFact)
        track = self._track(fact.name)
        track.kind, track.title, track.url = fact.engine, fact.title or fact.engine, fact.url
        track.owned, track.simulated = fact.owned, fact.simulated
        track.version, track.model = fact.version, fact.model
        track.options = tuple(map(option_of, fact.options))
        track.options_note = fact.options_note

    def _status(self, fact: Fact) -> None:
        assert isinstance(fact, StatusFact)
        self._track(fact.name).status = fact.status

    def _sample(self, fact: Fact) -> None:
        assert isinstance(fact, SampleFact)
        self._track(fact.name).sample = fact.sample

    def _series(self, fact: Fact) -> None:
        assert isinstance(fact, SeriesFact)
        track = self._track(fact.name)
        for name, value in fact.values.items():
            track.record(name, fact.time, value)

    def _state(self, fact: Fact) -> None:
        assert isinstance(fact, StateFact)
        track = self._track(fact.name)
        track.load_state, track.stale_since = fact.finding, fact.stale_since
        track.trouble, track.conditions = fact.trouble, fact.conditions
        track.log_tail, track.memory_report, track.cost = fact.log_tail, fact.memory, fact.cost

    def _steps(self, fact: Fact) -> None:
        assert isinstance(fact, StepsFact)
        track = self._track(fact.name)
        history = track.steps
        if history is None:
            history = track.steps = StepHistory(KEPT_STEPS)
        last = history.steps[-1].seq if history.steps else 0
        steps = steps_of(fact, last + 1)
        mixed = bool(history.steps and steps) and history.steps[-1].end > steps[0].end
        history.extend(steps)
        if mixed:  # a recording holds the steps of one rank after those of another
            ordered = sorted(history.steps, key=lambda step: step.end)
            history.steps.clear()
            history.steps.extend(ordered)
        history.time = fact.time + fact.read
        if fact.lost > 0:
            history.lost += fact.lost
            history.gaps.append(history.time)

    def _causes(self, fact: Fact) -> None:
        assert isinstance(fact, CausesFact)
        track = self._track(fact.name)
        track.why, track.why_since = fact.why, fact.since
        if fact.why is not None and not fact.why.causes:
            track.why = None  # not written by llmtop, which always writes a cause

    def _other_processes(self, fact: Fact) -> None:
        assert isinstance(fact, OtherProcessesFact)
        track = self._track(fact.name)
        track.hold = _converted(fact.hold, HolderState)
        track.shared_load = _converted(fact.shared_load, SharedLoad)
        track.steps_missing = fact.steps_missing

    def _gpus(self, fact: Fact) -> None:
        assert isinstance(fact, GpusFact)
        self.store.gpus, self.store.gpu_note = fact.gpus, fact.note

    def _load(self, fact: Fact) -> None:
        assert isinstance(fact, LoadFact)
        self.store.load, self.store.load_target = snapshot_of(fact.load), fact.target

    def _mark(self, fact: Fact) -> None:
        assert isinstance(fact, MarkFact)
        marks = self._track(fact.name).marks
        if fact.mark not in marks:
            marks.append(fact.mark)

    def _event(self, fact: Fact) -> None:
        assert isinstance(fact, EventFact)
        if fact.event not in self.store.events:
            self.store.events.append(fact.event)

    def _log(self, fact: Fact) -> None:
        assert isinstance(fact, LogFact)
        self.logs.setdefault(fact.name, deque(maxlen=LOG_LINES)).extend(fact.lines)

    def _select(self, fact: Fact) -> None:
        assert isinstance(fact, SelectFact)
        if not self._selected and fact.name is not None:
            self.store.selected = fact.name


def _converted(found: Mapping[str, Any] | None, kind: type[_Value]) -> _Value | None:
    """Decode a value; None if another version of llmtop wrote it in another form."""
    try:
        return convert(found, kind) if found is not None else None
    except ValidationError:
        return None


class Minutes(Struct):
    """The summaries of a recording's minutes, by engine and series.

    Each value is four arrays of equal length: start (unix seconds), low, mean, high.
    """

    columns: dict[str, dict[str, tuple[array[float], ...]]] = {}

    def add(self, fact: SummaryFact) -> None:
        """Add a minute; it is ignored unless it is later than those before."""
        series = self.columns.setdefault(fact.name, {})
        for name, one in fact.values.items():
            held = series.setdefault(name, tuple(array("d") for _ in range(4)))
            start = (fact.time - fact.span_s) // 60 * 60
            if held[0] and start <= held[0][-1]:
                continue
            for column, value in zip(held, (start, one.low, one.mean, one.high), strict=True):
                column.append(value)

    def before(self, until: float) -> dict[str, dict[str, Sequence[array[float]]]]:
        """The last day before ``until``, in unix seconds."""
        found: dict[str, dict[str, Sequence[array[float]]]] = {}
        for name, series in self.columns.items():
            for label, held in series.items():
                end = sum(1 for time in held[0] if time < until)
                first = max(0, end - DAY[60])
                found.setdefault(name, {})[label] = [column[first:end] for column in held]
        return found


def option_of(fact: OptionFact) -> Option:
    """Convert an option of a recording to the form that the screen uses."""
    spec = OptionSpec(
        fact.name, fact.flag, fact.summary, fact.applies, _TYPES.get(fact.type, str),
        choices=fact.choices, default=fact.default,
    )  # fmt: skip
    return Option(
        spec, fact.value, fact.launch, fact.minimum, fact.maximum, fact.applies, fact.pending,
        fact.note, fact.obstacle, fact.ranks,
    )  # fmt: skip
