"""``tune`` on a real engine: applies settings, measures each, and restores the operator's
settings."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext, suppress
from typing import Protocol

from msgspec import Struct, field

from llmtop import LlmtopError
from llmtop.engines.core.options import Change
from llmtop.engines.state.temporary_changes import Purpose
from llmtop.operations.slo.limits import Names
from llmtop.operations.slo.tune_runs import InForce, TimeLimit
from llmtop.slo_control.search import Measured, Result, Search, Settings

TRIES = 3  # attempts to restore the options


class Setter(Protocol):
    """Changes options, and waits until they are in force."""

    def __call__(self, wanted: Mapping[str, int], purpose: Purpose) -> tuple[Change, ...]:
        """Change options. Raises LlmtopError when the engine does not answer."""


class Meter(Protocol):
    """Measures the settings in force."""

    def __call__(self, *, own: bool, arrivals: int) -> Measured | None:
        """Run once. Returns None if the run broke the SLO so clearly that it was stopped at once.

        own: the operator's settings are in force; they are never stopped. arrivals: runs with the
        same number are compared, and get the same arrivals if the meter can choose them.
        """


class Tried(Struct, frozen=True):
    """One candidate. expected: goodput by the forecast, None without one. measured: each run."""

    settings: Settings
    expected: float | None
    measured: tuple[Measured, ...]

    @property
    def goodput_per_s(self) -> tuple[float, ...]:
        """The goodput of each run, in requests per second."""
        return tuple(run.goodput_per_s for run in self.measured)


class TuneReport(Struct, frozen=True):
    """The result of a tune. own: the operator's settings by option name. result: None if it ended
    before a decision. seconds, runs: including the first run. restored: the operator's settings are
    in force again. stopped: by Ctrl+C. settings: the best ones by option name. time_up: it ended
    because no time was left for another run."""

    own: Mapping[str, int]
    result: Result | None
    tried: tuple[Tried, ...]
    seconds: float
    restored: bool
    runs: int = 0
    stopped: bool = False
    settings: Mapping[str, int] = field(default_factory=dict)
    time_up: bool = False


class Tuner:
    """Runs a search to its end.

    expected: goodput by candidate, without the operator's settings. began, runs: start time and
    number of runs, if a first run came before the search. on_run: called before each run with its
    number, the approximate number of runs left, and its settings. on_result: called after it.
    recover: called when a candidate was stopped and the operator's settings are in force again.
    restoring: context of the restore at the end; it may delay signals. limit: a run that would end
    later is not started, and the measurements so far decide.
    """

    def __init__(
        self,
        search: Search,
        names: Names,
        setter: Setter,
        meter: Meter,
        *,
        expected: Mapping[int, float] | None = None,
        began: float | None = None,
        runs: int = 0,
        on_run: Callable[[int, int, Mapping[str, int]], None] = lambda *args: None,
        on_result: Callable[[Mapping[str, int], Measured | None], None] = lambda *args: None,
        recover: Callable[[], None] = lambda: None,
        restoring: Callable[[], AbstractContextManager[None]] = nullcontext,
        limit: TimeLimit | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._recover, self._restoring = recover, restoring
        self._search, self._names, self._setter, self._meter = search, names, setter, meter
        self._expected = expected or {}
        self._on_run, self._on_result, self._clock = on_run, on_result, clock
        self._began, self._runs, self._limit = began, runs, limit or TimeLimit(None)
        self._own = names.of(search.candidates[0])
        self._in_force = InForce(self._own)

    def run(self) -> TuneReport:
        """Measure until there is a decision. The operator's settings are always restored.

        Raises LlmtopError when a change is refused or the engine does not answer.
        """
        began = self._clock() if self._began is None else self._began
        runs, stopped, time_up = self._runs, False, False
        try:
            while (index := self._search.next()) is not None:
                begun = self._clock()
                if time_up := not self._limit.fits(index, begun - began, runs):
                    self._search.finish()
                    break
                settings = self._names.of(self._search.candidates[index])
                self._on_run(runs + 1, self._search.left, settings)
                self._put(settings)
                found = self._meter(own=index == 0, arrivals=self._search.round)
                runs += 1
                self._limit.took(index, self._clock() - begun)
                self._on_result(settings, found)
                if found is None:
                    self._put(self._own)
                    self._recover()
                    self._search.drop()
                else:
                    self._search.take(found)
        except KeyboardInterrupt:
            stopped = True
        finally:
            self._restore()
        result = self._search.result
        return TuneReport(
            self._own,
            result,
            tuple(self._tried()),
            self._clock() - began,
            self._in_force.restored,
            runs,
            stopped,
            self._names.of(result.settings) if result is not None else {},
            time_up,
        )

    def _put(self, settings: Mapping[str, int]) -> None:
        if asked := self._in_force.ask(settings):
            self._in_force.answered(asked, self._setter(asked, self._in_force.purpose))

    def _restore(self) -> None:
        with (
            suppress(KeyboardInterrupt),  # the tune has ended, so there is nothing to interrupt
            self._restoring(),
        ):
            for _ in range(TRIES):
                with suppress(LlmtopError):
                    self._put(self._own)
                    break

    def _tried(self) -> list[Tried]:
        return [
            Tried(
                self._names.of(settings),
                self._expected.get(index),
                tuple(self._search.runs[index]),
            )
            for index, settings in enumerate(self._search.candidates)
            if self._search.runs[index]
        ]
