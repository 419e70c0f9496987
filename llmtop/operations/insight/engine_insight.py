"""Reads the data for the diagnosis of one engine, and keeps them between reads."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Protocol

from llmtop import LlmtopError
from llmtop.diagnosis.explanation import explain
from llmtop.diagnosis.moments import Moment
from llmtop.diagnosis.observation import ClientView, FrontEnd, Observation
from llmtop.diagnosis.state_rules import LoadState
from llmtop.diagnosis.step_moments import kv_blocks_of, marginal
from llmtop.diagnosis.steps.history import WINDOW_S, StepHistory
from llmtop.engines.core.samples import EngineSample, GpuSample, Latency
from llmtop.operations.inside import ONLY_OURS

if TYPE_CHECKING:
    from llmtop.diagnosis.causes import Explanation
    from llmtop.engines.core.latencies import Latencies, LatencyHistogram
    from llmtop.engines.core.options import Option
    from llmtop.engines.core.requests import RequestSort, RequestTable
    from llmtop.engines.core.steps import Steps
    from llmtop.engines.introspection.exact_latencies import ExactLatencies
    from llmtop.engines.logs.memory_report import MemoryReport
    from llmtop.loadgen.core.results import LoadSnapshot

LATENCIES_S = 10.0  # window of exact latencies
TABLE_S = 5.0  # interval of reading the requests
FULL = 0.85  # KV cache usage from which the requests are read
LEAST_REQUESTS = 5  # requests that must have ended in the window, for the share of the front end
BIG_BYTES = 512 << 20  # GPU memory; a process that holds less is a monitor, not a load


class Inside(Protocol):
    """The part of ``introspection.EngineInside`` that is used here."""

    async def steps(self, newest: int = ...) -> Steps:
        """The steps since the last call."""

    async def latencies(self) -> Latencies:
        """Cumulative latencies."""

    async def requests(self, sort: RequestSort = ..., limit: int = ...) -> RequestTable:
        """The first ``limit`` requests in the order of ``sort``."""

    def close(self) -> None:
        """Cancel pending calls."""


class EngineInsight:
    """The steps, latencies and requests of one engine. inside: None for an attached engine.

    wall: unix seconds, the clock of the steps. exact: returns the reader that already reads the
    latencies each second; None: read them here. on_steps: receives the steps of each answer except
    the first, which contains earlier steps.
    """

    def __init__(
        self,
        inside: Inside | None,
        wall: Callable[[], float] = time.time,
        exact: Callable[[], ExactLatencies | None] = lambda: None,
        on_steps: Callable[[Steps], None] = lambda steps: None,
    ) -> None:
        self._inside, self._wall, self._exact, self._on_steps = inside, wall, exact, on_steps
        self._begun = False
        self.history = StepHistory()
        self.missing: dict[str, str] = {} if inside is not None else {"steps": ONLY_OURS}
        self.latencies: Latencies | None = None
        self._earlier: deque[Latencies] = deque(maxlen=40)
        self._table: RequestTable | None = None
        self._table_due = 0.0
        self._clock_highest: float | None = None

    async def read(self, kv_usage: float | None = None) -> None:
        """Read new data. ``missing`` has the reason for each kind that the engine does not return.

        kv_usage: 0..1. The requests are read only while the cache is nearly full.
        """
        inside = self._inside
        if inside is None:
            return
        try:
            found = await inside.steps()
        except LlmtopError as error:
            self.missing = {"steps": error.message}
            return
        self.missing = dict(found.missing)
        self.history.add(found)
        if self._begun:
            self._on_steps(found)
        self._begun = True
        if "latencies" not in self.missing:
            await self._read_latencies(inside)
        if "requests" not in self.missing and (kv_usage or 0.0) >= FULL:
            await self._read_table(inside)
        elif (kv_usage or 0.0) < FULL:
            self._table = None

    def close(self) -> None:
        """Cancel pending calls."""
        if self._inside is not None:
            self._inside.close()

    async def _read_latencies(self, inside: Inside) -> None:
        exact = self._exact()
        if exact is not None:
            found = exact.newest
            if found is None:
                self.latencies = None
                self._earlier.clear()
                if exact.trouble:
                    self.missing["latencies"] = exact.trouble
                return
            if found is self.latencies:
                return
            self.latencies = found
        else:
            try:
                self.latencies = await inside.latencies()
            except LlmtopError as error:
                self.missing["latencies"] = error.message
                return
        if self._earlier and self._earlier[-1].boots != self.latencies.boots:
            self._earlier.clear()
        self._earlier.append(self.latencies)
        while len(self._earlier) > 2 and self._earlier[1].time <= self.latencies.time - LATENCIES_S:
            self._earlier.popleft()

    async def _read_table(self, inside: Inside) -> None:
        if 0 <= self._table_due - self._wall() <= TABLE_S:
            return
        self._table_due = self._wall() + TABLE_S
        try:
            self._table = await inside.requests("kv", 50)
        except LlmtopError as error:
            self.missing["requests"] = error.message

    @property
    def shows_steps(self) -> bool:
        """Whether the engine returns its steps."""
        return self._begun and "steps" not in self.missing

    async def longest_wait_s(self) -> float | None:
        """Waiting time of the oldest request in the queue, in seconds; None if unknown.

        The engine searches its queue on the scheduler's thread, so call this rarely.
        """
        if self._inside is None or "requests" in self.missing:
            return None
        try:
            table = await self._inside.requests("wait", 1)
        except LlmtopError:
            return None
        waits = [row.waited_s for row in table.rows if row.state != "running"]
        return max((one for one in waits if one is not None), default=None)

    def recent(self, name: str) -> LatencyHistogram | None:
        """An exact distribution over the last LATENCIES_S seconds; None if unknown.

        After a single reading, it is over the time since the engine started.
        """
        if self.latencies is None or name not in self.latencies.histograms:
            return None
        now, first = self.latencies.histograms[name], self._earlier[0]
        before = first.histograms.get(name)
        return now.minus(before) if before is not None and first is not self.latencies else now

    def marginal(self) -> float | None:
        """The share of the time of recent steps that grows with the load; None if unknown."""
        now = self._wall()
        return marginal(self.history.since(now - WINDOW_S), self.history.fitted(now))

    def explain(
        self,
        finding: LoadState,
        moments: Sequence[Moment],
        sample: EngineSample | None,
        options: Sequence[Option],
        gpus: Sequence[GpuSample] = (),
        memory_report: MemoryReport | None = None,
        load: LoadSnapshot | None = None,
        missing: Mapping[str, str] | None = None,
    ) -> Explanation:
        """Explain the state of the engine from the data read so far and these arguments.

        gpus: those that the engine runs on. missing: further data that could not be read.
        """
        now, history = self._wall(), self.history
        kv_usage = sample.kv_usage if sample is not None else None
        for gpu in gpus:
            if gpu.sm_clock_mhz:
                self._clock_highest = max(self._clock_highest or 0.0, float(gpu.sm_clock_mhz))
        window = history.window(now)
        return explain(
            Observation(
                now,
                finding,
                moments,
                window,
                history.fitted(now),
                history.slowdown(now),
                sample,
                options,
                gpus,
                self._clock_highest,
                foreign_processes(gpus, memory_report),
                self._client(load, sample),
                self._front_end(),
                self._table,
                kv_usage,
                kv_blocks_of(window.steps, kv_usage) if window is not None else None,
                {**self.missing, **(missing or {})},
            )
        )

    def _front_end(self) -> FrontEnd | None:
        arrival, output, whole = (
            self.recent(name) for name in ("arrival_lag", "output_lag", "e2e")
        )
        if whole is None or whole.count < LEAST_REQUESTS or whole.mean_s is None:
            return None
        if arrival is None or arrival.mean_s is None:
            return None
        after = output.mean_s if output is not None else None
        return FrontEnd(arrival.mean_s, after or 0.0, whole.mean_s, whole.count)

    def _client(self, load: LoadSnapshot | None, sample: EngineSample | None) -> ClientView | None:
        if load is None or not (load.running or load.in_flight):
            return None
        bound = load.health.causes if load.health.word == "client-bound" else ()
        engine, exact = None, self.recent("ttft")
        if exact is not None and exact.count >= LEAST_REQUESTS:
            engine = exact.quantile(0.5)
        elif sample is not None and (found := sample.latencies.get(Latency.TTFT)) is not None:
            engine = found.p50.at_most if found.p50 is not None else None  # the upper bound
        return ClientView(
            in_flight=float(load.in_flight),
            ttft_s=load.ttft.p50,
            engine_ttft_s=engine,
            e2e_s=load.e2e.p50,
            bound=bound,
        )


def foreign_processes(
    gpus: Sequence[GpuSample], memory_report: MemoryReport | None
) -> tuple[str, ...]:
    """Other processes with much memory on the engine's GPUs; none if its own are unknown."""
    if memory_report is None or not memory_report.pids:
        return ()
    return tuple(
        f"process {process.pid}"
        for gpu in gpus
        if any(one.pid in memory_report.pids for one in gpu.processes)
        for process in gpu.processes
        if process.pid not in memory_report.pids and (process.memory_bytes or 0) >= BIG_BYTES
    )
