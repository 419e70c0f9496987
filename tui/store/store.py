"""The store: the data from the sources, for the panels. Plain values, no widgets.

Sources write into it and panels read from it, on separate beats. Memory is bounded: every series
and list is a ring.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from typing import TYPE_CHECKING, TypeVar

from msgspec import Struct, field

from llmtop.analysis.events import Event
from llmtop.engines.core.records import State
from llmtop.loadgen.workload.plan import Prompts
from llmtop.tui.store.series import BRIEF, CAPACITY, Series

if TYPE_CHECKING:
    from llmtop.analysis.cost import Cost
    from llmtop.analysis.marks import Mark
    from llmtop.diagnosis.causes import Explanation, Knob
    from llmtop.diagnosis.state_rules import LoadState
    from llmtop.diagnosis.steps.history import StepHistory
    from llmtop.engines.core.conditions import Condition
    from llmtop.engines.core.options import Option
    from llmtop.engines.core.records import EngineStatus
    from llmtop.engines.core.samples import EngineSample, GpuSample
    from llmtop.engines.logs.memory_report import MemoryReport
    from llmtop.loadgen.core.results import LoadSnapshot
    from llmtop.operations.curves import Curve
    from llmtop.operations.shared_load import SharedLoad
    from llmtop.operations.slo.holders import HolderState
    from llmtop.tui.commands.experiment_requests import (
        ComparisonState,
        SearchState,
        TuneState,
    )
    from llmtop.tui.commands.forecast_requests import CurveForecast, EffectForecast

__all__ = ["CAPACITY", "EngineTrack", "Event", "Series", "Store"]

RUNNING = (State.STARTING, State.READY, State.UNRESPONSIVE, State.STOPPING)


_Item = TypeVar("_Item")
Point = tuple[str, float, float | None]  # a series, unix seconds, a value


class EngineTrack(Struct):
    """All facts of one engine. stale_since: unix seconds; None while its numbers are fresh.

    trouble: why its numbers are stale, in a few words. conditions: its present problems, the most
    severe first.
    """

    name: str
    kind: str
    title: str
    url: str
    owned: bool  # started by llmtop, so llmtop can stop it and show its log
    simulated: bool = False
    version: str | None = None
    model: str | None = None
    status: EngineStatus | None = None
    sample: EngineSample | None = None
    options: tuple[Option, ...] = ()
    options_note: str = ""  # why no option can be changed live; "" if some can
    stale_since: float | None = None
    trouble: str = ""
    conditions: tuple[Condition, ...] = ()
    log_tail: str = ""
    memory_report: MemoryReport | None = None  # the GPU memory that its start reported
    cost: Cost | None = None
    shared_load: SharedLoad | None = None  # the load of another llmtop process
    hold: HolderState | None = None  # the hold within latency limits; None: no hold
    load_state: LoadState | None = None  # None: there are no fresh numbers
    why: Explanation | None = None  # the causes of that state
    why_forecasts: tuple[Knob, ...] = ()  # the last forecast of the advised changes
    why_since: float | None = None  # unix seconds: start of the present main cause
    steps: StepHistory | None = None  # None: the engine does not show its steps
    steps_missing: str = ""  # why the engine does not show its steps
    series: dict[str, Series] = field(default_factory=dict)
    marks: deque[Mark] = field(default_factory=lambda: deque(maxlen=50))
    brief: bool = False  # no charts: keep only few points
    journal: list[Point] | None = None  # points for a recorder; None: no recorder

    def record(self, name: str, time: float, value: float | None) -> None:
        """Append a point to a series; create the series on first use. time: unix seconds."""
        series = self.series.get(name)
        if series is None:
            series = Series(BRIEF, day=False) if self.brief else Series()
            self.series[name] = series
        series.append(time, value)
        if self.journal is not None:
            self.journal.append((name, time, value))

    def take_journal(self) -> list[Point]:
        """The points since the last call. The first call starts the journal."""
        taken, self.journal = self.journal or [], []
        return taken

    @property
    def runs(self) -> bool:
        """Whether llmtop started it and it is not known to have ended."""
        return self.status is not None and self.status.state in RUNNING

    def is_on(self, gpu: GpuSample, gpus: Sequence[GpuSample]) -> bool:
        """Whether it is known to run on this GPU. gpus: all GPUs of the machine."""
        memory_report = self.memory_report
        if self.simulated or gpu.mig_of is not None:
            return False
        asked = self.status.record.spec.gpus if self.status is not None else ()
        if asked:
            named = gpu.index in asked
            return named and (memory_report is None or memory_report.is_on(gpu.processes))
        if memory_report is None:
            return False
        if len(gpus) > 1 and not (memory_report.pids and gpu.processes):
            return False  # on one of several GPUs, and it is not known which
        return memory_report.is_on(gpu.processes)


class Store(Struct):
    """All facts of one screen. missing: engines that do not answer yet; the reason by URL.

    load: the newest snapshot of the load on ``load_target``. loads: by engine, if a replay shows
    two recordings with one load each. prompts: of the screen's load. search, comparison, tune: the
    newest of each, running or over. curves: results of searches, also of earlier
    ones, oldest first.
    """

    engines: dict[str, EngineTrack] = field(default_factory=dict)
    missing: dict[str, str] = field(default_factory=dict)
    selected: str | None = None
    gpus: tuple[GpuSample, ...] = ()
    gpu_note: str = ""  # why there are no GPU numbers
    load: LoadSnapshot | None = None
    load_target: str | None = None
    loads: dict[str, LoadSnapshot] = field(default_factory=dict)
    prompts: Prompts = field(default_factory=Prompts)
    search: SearchState | None = None
    comparison: ComparisonState | None = None
    tune: TuneState | None = None
    curves: tuple[Curve, ...] = ()
    curve_forecast: CurveForecast | None = None  # of the engine of the search
    effect: EffectForecast | None = None  # of the value that is being typed or was set last
    recording: str = ""  # the file that is being written; "" for none
    events: deque[Event] = field(default_factory=lambda: deque(maxlen=500))

    @property
    def engine(self) -> EngineTrack | None:
        """The selected engine."""
        return self.engines.get(self.selected) if self.selected else None


def newer(ring: Sequence[_Item], last: _Item | None) -> list[_Item]:
    """The items of a ring after ``last``; all items if ``last`` is no longer in it."""
    found: list[_Item] = []
    for item in reversed(ring):
        if item is last:
            break
        found.append(item)
    return found[::-1]
