"""The timeline: the data from the sources, for the panels. Plain values, no screen in here.

Sources write into it, panels read from it, on separate beats. Memory is bounded: every series and
list is a ring.
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
    from llmtop.diagnosis.step_history import StepHistory
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
    """All that is known of one engine. stale_since: unix seconds; None while its numbers are fresh.

    trouble: why its numbers are stale, in a few words. conditions: what is wrong with it just now,
    the gravest first.
    """

    name: str
    kind: str
    title: str
    url: str
    owned: bool  # started by llmtop, so it can be stopped and logs can be shown
    simulated: bool = False
    version: str | None = None
    model: str | None = None
    status: EngineStatus | None = None
    sample: EngineSample | None = None
    options: tuple[Option, ...] = ()
    options_note: str = ""  # why no option can be changed live, "" when some can
    stale_since: float | None = None
    trouble: str = ""
    conditions: tuple[Condition, ...] = ()
    log_tail: str = ""
    anatomy: MemoryReport | None = None  # what its start reported of its GPU memory
    cost: Cost | None = None
    shared_load: SharedLoad | None = None  # that another llmtop sends
    hold: HolderState | None = None  # keeps it within latency limits; None: no hold
    load_state: LoadState | None = None  # None: there are no numbers of now
    why: Explanation | None = None  # the causes of that state
    why_forecasts: tuple[Knob, ...] = ()  # what its changes would bring, as it was forecast last
    why_since: float | None = None  # unix seconds: the main cause is the same since then
    steps: StepHistory | None = None  # None: the engine does not show its steps
    steps_missing: str = ""  # why it does not
    series: dict[str, Series] = field(default_factory=dict)
    marks: deque[Mark] = field(default_factory=lambda: deque(maxlen=50))
    brief: bool = False  # no charts: only present values are kept
    journal: list[Point] | None = None  # points for a recorder; None: no recorder

    def record(self, name: str, time: float, value: float | None) -> None:
        """Append to the series called ``name``, making it on first use."""
        series = self.series.get(name)
        if series is None:
            series = Series(BRIEF, day=False) if self.brief else Series()
            self.series[name] = series
        series.append(time, value)
        if self.journal is not None:
            self.journal.append((name, time, value))

    def take_journal(self) -> list[Point]:
        """What was recorded since this was last asked; from the first time on it is kept."""
        taken, self.journal = self.journal or [], []
        return taken

    @property
    def runs(self) -> bool:
        """Whether it is not known to have ended, of an engine that llmtop started."""
        return self.status is not None and self.status.state in RUNNING

    def is_on(self, gpu: GpuSample, gpus: Sequence[GpuSample]) -> bool:
        """Whether it runs on this one of the machine's GPUs, as far as is known."""
        anatomy = self.anatomy
        if self.simulated or gpu.mig_of is not None:
            return False
        asked = self.status.record.spec.gpus if self.status is not None else ()
        if asked:
            named = gpu.index in asked
            return named and (anatomy is None or anatomy.is_on(gpu.processes))
        if anatomy is None:
            return False
        if len(gpus) > 1 and not (anatomy.pids and gpu.processes):
            return False  # on one of several, and nothing says on which
        return anatomy.is_on(gpu.processes)


class Store(Struct):
    """The whole timeline. missing: URLs where an engine is wanted and none answers yet, with why.

    load: the newest snapshot of the load that ``load_target`` gets. loads: by engine, where a
    replay shows two recordings, each with its own.

    prompts: what the screen's load asks. search, comparison, tune: the newest of each, running or
    over. curves: those that searches have drawn, of this and of earlier sessions, oldest first.
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
    curve_forecast: CurveForecast | None = None  # of the engine that a search is about
    effect: EffectForecast | None = None  # of the value that is typed, or was set last
    recording: str = ""  # the file that is being written, "" for none
    events: deque[Event] = field(default_factory=lambda: deque(maxlen=500))

    @property
    def engine(self) -> EngineTrack | None:
        """The selected engine."""
        return self.engines.get(self.selected) if self.selected else None


def newer(ring: Sequence[_Item], last: _Item | None) -> list[_Item]:
    """What a ring holds after ``last``, which it held before; all of it when that is gone."""
    found: list[_Item] = []
    for item in reversed(ring):
        if item is last:
            break
        found.append(item)
    return found[::-1]
