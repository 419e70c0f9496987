"""Reads a recording for a report: charts over time, marks, events, and the results in it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec

from llmtop.history.facts import EngineFact, EventFact, MarkFact, OutcomeFact, SeriesFact
from llmtop.history.recording_reader import Recording
from llmtop.printable import clean
from llmtop.report.runs import Run, kind_of
from llmtop.wording.format import duration, latency, rate

SUFFIX = ".llmtop"
POINTS = 400  # of a line at least, when it is downsampled: about one for every two pixels
MOST_EVENTS = 500
OUTCOME_LIMIT = 32
CHARTED = (
    "output_tokens_per_s", "ttft_p95_low", "ttft_p95_high", "client_ttft_p95", "running", "waiting",
    "kv_usage", "cap",
)  # fmt: skip


STATES = ("HEADROOM", "NEAR KNEE", "SATURATED", "OVERLOADED", "HUNG")  # from best to worst
MOST_NAMED = 3  # engines in the summary


class _EngineSummary:
    """Collects the figures of one engine and returns them as a part of a sentence."""

    def __init__(self) -> None:
        self._tokens = self._seconds = self._peak = 0.0
        self._ttft: float | None = None
        self._state = 0
        self._failed = ""

    def add(self, values: Mapping[str, float | None]) -> None:
        """Add one point of each series, by series name."""
        if (tokens := values.get("output_tokens_per_s")) is not None:
            self._tokens, self._seconds = self._tokens + tokens, self._seconds + 1
            self._peak = max(self._peak, tokens)
        found = [values.get(name) for name in ("client_ttft_p95", "ttft_p95_high")]
        self._ttft = max((one for one in (*found, self._ttft) if one is not None), default=None)

    def add_event(self, level: str, text: str) -> None:
        """Add an event of the engine. text: without the engine's name."""
        if level == "state":
            found = [at for at, word in enumerate(STATES) if text.startswith(word)]
            self._state = max([self._state, *found])
        elif level == "error":
            self._failed = clean(text, 160).partition(";")[0]

    def words(self) -> str:
        """``5,000 output tokens per second on average, …``."""
        parts = []
        if self._seconds:
            mean = rate(self._tokens / self._seconds)
            parts.append(
                f"{mean} output tokens per second on average and {rate(self._peak)} at most"
            )
        if self._ttft is not None:
            parts.append(f"TTFT p95 up to {latency(self._ttft)}")
        if self._state:
            parts.append(f"worst state {STATES[self._state]}")
        return ", ".join([*parts, *([self._failed] if self._failed else [])])


class _Downsampled:
    """Points of one series as (time, mean). Each time there are more than 2 * ``POINTS``, pairs of
    points are replaced by their mean."""

    def __init__(self) -> None:
        self.points: list[tuple[float, float | None]] = []
        self._every, self._held = 1, list[tuple[float, float | None]]()

    def add(self, time: float, value: float | None) -> None:
        """Add a point. Times must increase."""
        self._held.append((time, value))
        if len(self._held) < self._every:
            return
        self.points.append(_mean(self._held))
        self._held.clear()
        if len(self.points) > 2 * POINTS:
            self.points = [_mean(self.points[at : at + 2]) for at in range(0, 2 * POINTS, 2)]
            self._every *= 2


def _mean(points: list[tuple[float, float | None]]) -> tuple[float, float | None]:
    known = [value for _, value in points if value is not None]
    return points[0][0], sum(known) / len(known) if known else None


def read_recording(path: Path, label: str) -> list[Run]:
    """A run for the recording itself, then one for each result in it.

    Raises LlmtopError when the recording cannot be read.
    """
    series: dict[str, dict[str, _Downsampled]] = {}
    marks: list[dict[str, Any]] = []
    events: list[dict[str, Any]] = []
    outcomes: list[Run] = []
    summaries: dict[str, _EngineSummary] = {}
    with Recording(path) as recording:
        began = recording.began
        seen: set[tuple[float, str]] = set()
        last: dict[str, float] = {}
        for fact in recording.facts(kinds={"series", "mark", "event", "outcome"}):
            if isinstance(fact, SeriesFact) and fact.time > last.get(fact.name, 0.0):
                last[fact.name] = fact.time
                summaries.setdefault(fact.name, _EngineSummary()).add(fact.values)
                lines = series.setdefault(fact.name, {})
                for name in CHARTED:
                    if name in fact.values:
                        line = lines.setdefault(name, _Downsampled())
                        line.add(fact.time - began, fact.values[name])
            elif isinstance(fact, MarkFact):
                _add_once(seen, marks, fact.mark.time, f"{fact.name}: {fact.mark.label}", began)
            elif isinstance(fact, EventFact):
                name, _, text = fact.event.text.partition(" ")
                if name in summaries:
                    summaries[name].add_event(fact.event.level, text)
                _add_once(seen, events, fact.event.time, fact.event.text, began)
            elif isinstance(fact, OutcomeFact) and len(outcomes) < OUTCOME_LIMIT:
                outcomes += _outcome(fact, label, len(outcomes) + 1)
        engines = recording.engines()
        document = _document(recording, engines, series, marks, events, summaries)
    return [Run("recording", label, document), *outcomes]


def _add_once(
    seen: set[tuple[float, str]], into: list[dict[str, Any]], time: float, text: str, began: float
) -> None:
    """Add a mark or an event once. Each member of the file repeats the latest ones."""
    if (time, text) not in seen and len(into) < MOST_EVENTS:
        seen.add((time, text))
        into.append({"at_s": max(0.0, time - began), "text": clean(text)})


def _outcome(fact: OutcomeFact, label: str, number: int) -> list[Run]:
    try:
        document = msgspec.json.decode(fact.document)
    except (msgspec.DecodeError, RecursionError):
        return []
    kind = kind_of(document) if isinstance(document, dict) else None
    name = clean(f"{label}, {fact.command} {number}", 80)  # unique in a report of two recordings
    return [Run(kind, name, document)] if kind is not None else []


def _summary(seconds: float, shown: list[str], summaries: Mapping[str, _EngineSummary]) -> str:
    """The duration and the figures of each engine, in one sentence."""
    parts = [
        f"{name}: {words}"
        for name in shown[:MOST_NAMED]
        if name in summaries and (words := summaries[name].words())
    ]
    rest = len(shown) - MOST_NAMED
    more = f"; {rest} more engines" if rest > 0 else ""
    engines = "; ".join(parts) or ", ".join(shown[:4]) or "no engine"
    return f"{duration(seconds)} of {engines}{more}."


def _document(
    recording: Recording,
    engines: Mapping[str, EngineFact],
    series: Mapping[str, Mapping[str, _Downsampled]],
    marks: list[dict[str, Any]],
    events: list[dict[str, Any]],
    summaries: Mapping[str, _EngineSummary],
) -> dict[str, Any]:
    host = recording.head.host
    shown = [name for name in engines if name in series] or list(engines)
    first = engines.get(shown[0]) if shown else None
    return {
        "name": ", ".join(shown[:4]),
        "model": first.model if first is not None else None,
        "simulated": any(one.simulated for one in engines.values()),
        "summary": _summary(recording.duration_s, shown, summaries),
        "source": recording.head.source,
        "remark": recording.remark,
        "began": recording.began,
        "series": {
            engine: {name: [list(point) for point in one.points] for name, one in lines.items()}
            for engine, lines in series.items()
        },
        "marks": sorted(marks, key=lambda one: float(one["at_s"])),
        "events": sorted(events, key=lambda one: float(one["at_s"])),
        "setup": {
            "llmtop": recording.head.llmtop,
            "command": "",
            "host": {"cpu": host.system, "cores": host.cores, "memory_bytes": host.memory_bytes,
                     "load_average": None},
            "gpus": None,
            "engine": None
            if first is None
            else {
                "kind": first.engine,
                "version": first.version,
                "options": {
                    option.name: option.value
                    for option in first.options
                    if option.value is not None and option.value != option.default
                },
            },
            "load": {},
        },
    }  # fmt: skip
