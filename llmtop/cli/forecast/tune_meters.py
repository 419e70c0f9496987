"""Measures each candidate of ``tune`` under a load that llmtop sends."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from msgspec import Struct

from llmtop.cli.load.load_target import poll_load
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

ABORT_S = 5.0  # longest wait for aborted requests


class LoadOf(Struct, frozen=True):
    """The load of each run: one of rate (requests per second), streams and shape.

    is_open: the levels of the shape are requests per second. seconds: length without a shape.
    """

    rate: float | None
    streams: int | None
    shape: str | None
    is_open: bool
    seconds: float

    @property
    def open(self) -> bool:
        """Whether the load is an open loop."""
        return self.rate is not None or (self.shape is not None and self.is_open)

    @property
    def text(self) -> str:
        """The load over time, as a shape."""
        if self.shape is not None:
            return self.shape
        return f"hold {self.rate or self.streams:g} for {self.seconds:g}s"

    @property
    def entry(self) -> dict[str, str]:
        """The load in the JSON document."""
        return {"loop": "open" if self.open else "closed", "shape": self.text}

    @property
    def duration_s(self) -> float:
        """Length of a run, in seconds, without the drain."""
        if self.shape is None:
            return self.seconds
        from llmtop.loadgen.workload.shape import parse

        return parse(self.shape).duration or self.seconds

    def plan(self, arrivals: int) -> Plan:
        """A plan with new prompts. arrivals: seed of the arrival times."""
        loop = Loop.OPEN if self.open else Loop.CLOSED
        return Plan(loop, self.text, fresh_seed(), arrivals=arrivals)


class LoadMeter:
    """Measures one run under a load. The engine has no requests of it before and after the run.

    load: set it before the first run.
    """

    load: Generator

    def __init__(self, asked: LoadOf, limits: Limits, clock: LoadClock, prompts: Prompts) -> None:
        self.asked, self._clock = asked, clock
        self._slo = Slo(limits.ttft, limits.tpot, limits.e2e)
        self._drain_s = drain_s(self._slo, prompts)
        self._seed = fresh_seed()
        self._records: list[RequestRecord] = []

    def first(
        self, show: Callable[[str], None], fits: Callable[[float], bool] = lambda seconds: True
    ) -> Measured:
        """Measure the operator's settings, with longer runs until enough requests have ended.

        Later runs have the same length. show: receives a line about the progress. fits: whether
        there is time for a run of this length, in seconds.
        """
        show("a first run measures your own settings")
        found = self(own=True, arrivals=0)
        while self.asked.shape is None and (s := next_length(found, self.asked.seconds)):
            if not fits(s):
                break
            self.asked = replace(self.asked, seconds=s)
            show(f"requests take long compared with the run: again, with {s:g} s per run")
            found = self(own=True, arrivals=0)
        return found

    def take(self, record: RequestRecord) -> None:
        """Keep the record of a request that has ended."""
        self._records.append(record)

    def __call__(self, *, own: bool, arrivals: int) -> Measured:
        """Run once; see ``tuner.Meter``. own: not used, all settings are measured alike."""
        self._records.clear()
        begun = self._clock.seconds()
        self.load.start(self.asked.plan(self._seed + arrivals))
        shape_s = self.asked.duration_s
        end = begun + shape_s
        while self._clock.seconds() < end:
            poll_load(self.load)
        until = end + self._drain_s
        while not self.load.finished and self._clock.seconds() < until:
            poll_load(self.load)
        self.load.stop(drain=False)
        until = self._clock.seconds() + ABORT_S
        while not self.load.finished and self._clock.seconds() < until:
            poll_load(self.load)
        since = begun + warm_of(shape_s)
        return in_time(self._records, self._slo, since, end, is_open=self.asked.open)
