"""What measures each candidate of ``tune`` under a load of our own."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from msgspec import Struct

from llmtop.cli.load.load_target import wait_a_beat
from llmtop.forecast.figures import Limits
from llmtop.loadgen.core.results import RequestRecord
from llmtop.loadgen.experiments.level import LoadClock
from llmtop.loadgen.experiments.slo import Slo
from llmtop.loadgen.workload.plan import Loop, Plan, Prompts
from llmtop.operations.slo.tune_candidates import warm_of
from llmtop.operations.slo.tune_runs import drain_s, in_time, next_length
from llmtop.operations.wiring import fresh_seed
from llmtop.slo_control.search import Measured
from llmtop.values import replace

if TYPE_CHECKING:
    from llmtop.loadgen.workers.load import Load as Generator

CUT_S = 5.0


class LoadOf(Struct, frozen=True):
    """The load of each run, as it was asked for."""

    rate: float | None
    streams: int | None
    shape: str | None
    is_open: bool
    seconds: float

    @property
    def open(self) -> bool:
        """The loop."""
        return self.rate is not None or (self.shape is not None and self.is_open)

    @property
    def text(self) -> str:
        """The shape."""
        if self.shape is not None:
            return self.shape
        return f"hold {self.rate or self.streams:g} for {self.seconds:g}s"

    @property
    def entry(self) -> dict[str, str]:
        """As a saved result describes it."""
        return {"loop": "open" if self.open else "closed", "shape": self.text}

    @property
    def duration_s(self) -> float:
        """How long a run sends."""
        if self.shape is None:
            return self.seconds
        from llmtop.loadgen.workload.shape import parse

        return parse(self.shape).duration or self.seconds

    def plan(self, arrivals: int) -> Plan:
        """A plan with new prompts, and the arrivals of a seed."""
        loop = Loop.OPEN if self.open else Loop.CLOSED
        return Plan(loop, self.text, fresh_seed(), arrivals=arrivals)


class LoadMeter:
    """One run under a load: it begins at an engine without requests, and ends with one."""

    load: Generator

    def __init__(self, asked: LoadOf, limits: Limits, clock: LoadClock, prompts: Prompts) -> None:
        self.asked, self._clock = asked, clock
        self._slo = Slo(limits.ttft, limits.tpot, limits.e2e)
        self._drain_s = drain_s(self._slo, prompts)
        self._seed = fresh_seed()
        self._records: list[RequestRecord] = []

    def first(
        self, told: Callable[[str], None], fits: Callable[[float], bool] = lambda seconds: True
    ) -> Measured:
        """A run with the operator's settings, made longer until it tells enough; so are the runs
        after it. told: what is to be shown. fits: whether there is time for a run of so many
        seconds."""
        told("a first run shows how the engine behaves")
        found = self(own=True, arrivals=0)
        while self.asked.shape is None and (s := next_length(found, self.asked.seconds)):
            if not fits(s):
                break
            self.asked = replace(self.asked, seconds=s)
            told(f"requests take long beside the run: once more, {s:g} s a run")
            found = self(own=True, arrivals=0)
        return found

    def take(self, record: RequestRecord) -> None:
        """A request has ended."""
        self._records.append(record)

    def __call__(self, *, own: bool, arrivals: int) -> Measured:  # own: measured alike
        """See ``tuner.Meter``."""
        self._records.clear()
        begun = self._clock.seconds()
        self.load.start(self.asked.plan(self._seed + arrivals))
        shape_s = self.asked.duration_s
        end = begun + shape_s
        while self._clock.seconds() < end:
            wait_a_beat(self.load)
        until = end + self._drain_s
        while not self.load.finished and self._clock.seconds() < until:
            wait_a_beat(self.load)
        self.load.stop(drain=False)
        until = self._clock.seconds() + CUT_S
        while not self.load.finished and self._clock.seconds() < until:
            wait_a_beat(self.load)
        since = begun + warm_of(shape_s)
        return in_time(self._records, self._slo, since, end, is_open=self.asked.open)
