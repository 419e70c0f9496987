"""The timeline: what the sources found, kept for the panels. Plain values, no screen in here.

Sources write into it, panels read from it, on separate beats. Memory is bounded: every series and
list is a ring.
"""

from __future__ import annotations

import math
from array import array
from bisect import bisect_left
from collections import deque
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from msgspec import Struct, field

from llmtop.engines.records import State
from llmtop.loadgen.plan import Prompts

if TYPE_CHECKING:
    from llmtop.engines.anatomy import Anatomy
    from llmtop.engines.options import Option
    from llmtop.engines.records import EngineStatus
    from llmtop.engines.samples import EngineSample, GpuSample
    from llmtop.loadgen.results import LoadSnapshot
    from llmtop.tui.cost import Cost
    from llmtop.tui.curves import Curve
    from llmtop.tui.experiments import ComparisonState, SearchState
    from llmtop.tui.marks import Mark

RUNNING = (State.STARTING, State.READY, State.UNRESPONSIVE, State.STOPPING)
CAPACITY = 1200  # points kept of each series: 20 minutes at a beat of one second


class Series:
    """A ring of (unix seconds, value); a value of None is a gap.

    Packed: 16 bytes a point, where a tuple of two floats takes up to 112.
    """

    def __init__(self, capacity: int = CAPACITY) -> None:
        self._capacity = capacity
        self._times = array("d")  # each later than the one before
        self._values = array("d")  # NaN: a gap
        self.rewritten = 0  # points that were replaced: what was made of them is wrong by now

    def append(self, time: float, value: float | None) -> None:
        """Add a point; it replaces what is not older than itself (the clock was stepped back)."""
        while self._times and self._times[-1] >= time:
            self._times.pop()
            self._values.pop()
            self.rewritten += 1
        if len(self._times) == self._capacity:
            del self._times[0], self._values[0]  # 10 KiB to move, which is a microsecond
        self._times.append(time)
        self._values.append(math.nan if value is None else value)

    @property
    def last(self) -> float | None:
        """The newest value, None when there is none or it is a gap."""
        return _value(self._values[-1]) if self._values else None

    @property
    def newest(self) -> float | None:
        """When the newest point was, unix seconds; None when there is none."""
        return self._times[-1] if self._times else None

    def since(self, time: float) -> list[tuple[float, float | None]]:
        """The points at or after ``time``, oldest first."""
        first = bisect_left(self._times, time)
        return list(zip(self._times[first:], map(_value, self._values[first:]), strict=True))

    def __len__(self) -> int:
        return len(self._times)

    def __iter__(self) -> Iterator[tuple[float, float | None]]:
        return iter(self.since(-math.inf))


def _value(packed: float) -> float | None:
    return None if math.isnan(packed) else packed


class Event(Struct, frozen=True):
    """One line of the event list. level: info, change, effect, warning or error.

    text is already clean. parts: the same text in pieces, for a list too narrow for one line.
    """

    time: float
    level: str
    text: str
    parts: tuple[str, ...] = ()


class EngineTrack(Struct):
    """All that is known of one engine. stale_since: unix seconds; None while its numbers are fresh.

    trouble: why its numbers are stale, in a few words.
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
    log_tail: str = ""
    anatomy: Anatomy | None = None  # what its start told of its GPU memory
    cost: Cost | None = None
    series: dict[str, Series] = field(default_factory=dict)
    marks: deque[Mark] = field(default_factory=lambda: deque(maxlen=50))

    def record(self, name: str, time: float, value: float | None) -> None:
        """Append to the series called ``name``, making it on first use."""
        self.series.setdefault(name, Series()).append(time, value)

    @property
    def runs(self) -> bool:
        """Whether it is not known to have ended, of an engine that llmtop started."""
        return self.status is not None and self.status.state in RUNNING

    def is_on(self, gpu: GpuSample, gpus: Sequence[GpuSample]) -> bool:
        """Whether it runs on this one of the machine's GPUs, as far as can be told."""
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

    load: the newest snapshot of the load that ``load_target`` gets.

    prompts: what the screen's load asks. search, comparison: the newest of each, running or over.
    curves: those that searches have drawn, of this and of earlier sessions, oldest first.
    """

    engines: dict[str, EngineTrack] = field(default_factory=dict)
    missing: dict[str, str] = field(default_factory=dict)
    selected: str | None = None
    gpus: tuple[GpuSample, ...] = ()
    gpu_note: str = ""  # why there are no GPU numbers
    load: LoadSnapshot | None = None
    load_target: str | None = None
    prompts: Prompts = field(default_factory=Prompts)
    search: SearchState | None = None
    comparison: ComparisonState | None = None
    curves: tuple[Curve, ...] = ()
    events: deque[Event] = field(default_factory=lambda: deque(maxlen=500))

    @property
    def engine(self) -> EngineTrack | None:
        """The selected engine."""
        return self.engines.get(self.selected) if self.selected else None
