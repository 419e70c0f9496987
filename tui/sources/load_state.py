"""Determines the load state of every engine and its causes; reports changes as events."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, NamedTuple

from llmtop.analysis.marks import Mark
from llmtop.analysis.series import SeriesName
from llmtop.diagnosis.explanation import with_reasons
from llmtop.diagnosis.load_state import LoadStates
from llmtop.diagnosis.moments import Moment
from llmtop.diagnosis.state_rules import Level, LoadState
from llmtop.engines.core.conditions import Name
from llmtop.engines.core.records import State
from llmtop.tui.store.store import EngineTrack, Event, Store
from llmtop.values import replace

if TYPE_CHECKING:
    from llmtop.engines.core.options import Option
    from llmtop.operations.insight.engine_insight import EngineInsight


EXPLAIN_EVERY_S = 2.0  # between two explanations of the same state; they cover 5 s


class _Explained(NamedTuple):
    """The time and the inputs of an explanation."""

    at: float
    insight: EngineInsight
    level: Level
    limits: Sequence[str]
    options: Sequence[Option]


class EngineStates:
    """Writes ``load_state`` and ``why`` of every track; None while the engine gives no numbers.

    insight: the steps and latencies of an engine, by its name. The state is determined at each
    reading. The causes are determined when the state or an option changed, else every 2 s.
    """

    def __init__(
        self,
        store: Store,
        now: Callable[[], float],
        insight: Callable[[str], EngineInsight | None] = lambda name: None,
    ) -> None:
        self._store, self._now, self._insight = store, now, insight
        self._states: dict[str, LoadStates] = {}
        self._reported: dict[str, Level] = {}
        self._seen: dict[str, Mark] = {}
        self._causes: dict[str, _Explained] = {}

    def observe(self, track: EngineTrack) -> None:
        """Determine the state of an engine from the numbers that were just read."""
        name, moment = track.name, moment_of(track)
        insight = self._insight(name)
        if moment is None:
            track.load_state, track.why = None, None
            return
        if insight is not None:
            moment = replace(moment, marginal=insight.marginal())
        states = self._states.setdefault(name, LoadStates())
        mark = track.marks[-1] if track.marks else None
        if mark is not None and mark.effect and mark is not self._seen.get(name):
            self._seen[name] = mark
            states.changed()
        found = states.note(moment)
        if insight is not None:
            found = self._explained(track, found, insight, states.recent)
        track.load_state = found
        self.report(name, found)

    def explain(self, track: EngineTrack) -> None:
        """Update the causes after new steps; the state stays."""
        insight, states = self._insight(track.name), self._states.get(track.name)
        if insight is None or states is None or track.load_state is None or states.shown is None:
            return
        track.load_state = self._explained(track, states.shown, insight, states.recent)

    def _explained(
        self,
        track: EngineTrack,
        found: LoadState,
        insight: EngineInsight,
        moments: Sequence[Moment],
    ) -> LoadState:
        due = self._explain_is_due(track, found, insight)
        if track.why is not None and not due:
            return with_reasons(found, track.why)
        store = self._store
        gpus = [gpu for gpu in store.gpus if track.is_on(gpu, store.gpus)]
        ours = store.load_target in (None, track.name)
        why = insight.explain(
            found, moments, track.sample, track.options, gpus, track.memory_report,
            store.load if ours else None,
        )  # fmt: skip
        if track.why is None or track.why.main.cause is not why.main.cause:
            track.why_since = self._now()
        track.why = why
        return with_reasons(found, why)

    def _explain_is_due(self, track: EngineTrack, found: LoadState, insight: EngineInsight) -> bool:
        now, before = self._now(), self._causes.get(track.name)
        asked = _Explained(now, insight, found.level, found.limits, track.options)
        same = before is not None and before[1:] == asked[1:]
        if same and before is not None and 0 <= now - before.at < EXPLAIN_EVERY_S:
            return False
        self._causes[track.name] = asked
        return True

    def report(self, name: str, found: LoadState) -> None:
        """Report a change of state as an event."""
        before = self._reported.get(name)
        self._reported[name] = found.level
        silent = (before, Level.UNKNOWN, Level.HUNG)  # a hang has an event of its own, with a hint
        if before is None or found.level in silent:
            return
        words = state_words(name, found)
        parts = tuple(words.split(", "))
        event = Event(self._now(), "state", words, parts if len(parts) > 1 else ())
        self._store.events.append(event)


def state_words(name: str, found: LoadState) -> str:
    """A change of state in words: ``demo SATURATED: batch limit 128 reached, 62 waiting``."""
    return f"{name} {found.level.word}: {found.reasons[0]}"


def moment_of(track: EngineTrack) -> Moment | None:
    """The numbers of a track as the input of the state rules; None if they are not fresh."""
    sample = track.sample
    down = track.status is not None and track.status.state is not State.READY
    if sample is None or down or track.stale_since is not None:
        return None
    times = track.series.get(SeriesName.RUNNING)
    if times is None or times.newest is None:
        return None
    ttft = _last(track, SeriesName.CLIENT_TTFT_P95)
    preempted = sample.preemptions
    return Moment(
        times.newest,
        running=sample.running,
        waiting=sample.waiting,
        cap=_last(track, SeriesName.CAP),
        kv_usage=sample.kv_usage,
        preemptions_per_min=(
            None if preempted is None or not sample.window_s else preempted * 60 / sample.window_s
        ),
        tokens_per_s=sample.output_tokens_per_s,
        ttft=ttft if ttft is not None else _last(track, SeriesName.TTFT_MEAN),
        ttft_is="p95" if ttft is not None else "mean",
        oldest_wait=_last(track, SeriesName.OLDEST_WAIT),
        unchanged_s=sample.unchanged_s,
        hung=any(one.name is Name.HUNG for one in sample.conditions),
    )


def _last(track: EngineTrack, name: SeriesName) -> float | None:
    series = track.series.get(name)
    return series.last if series is not None else None
