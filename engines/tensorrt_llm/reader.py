"""Reads TensorRT-LLM: the queue of iterations that one reader alone may empty, and Prometheus.

The reader of the queue publishes its numbers, and the other llmtops of this user show those. The
recorder of the history reads the queue only while no other llmtop does.

The two complete each other. The queue reports running, waiting, KV cache, speculation and tokens
step by step, Prometheus reports latencies and how requests ended; the newest versions report all
of it in both, the oldest have no Prometheus. Where both report a thing the queue
comes first: it is of the last iteration, while Prometheus moves only when a request ends.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import time
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import TypeVar

from msgspec import Struct

from llmtop.engines.core.latencies import Latencies
from llmtop.engines.core.live_protocol import LiveError
from llmtop.engines.core.samples import Counter, Latency, Reading
from llmtop.engines.core.steps import Steps
from llmtop.engines.host.exclusive_lock import ExclusiveLock
from llmtop.engines.metrics.exposition import Parser, ScrapeError
from llmtop.engines.tensorrt_llm import iteration_stats as queue
from llmtop.engines.tensorrt_llm import metrics as prometheus
from llmtop.engines.tensorrt_llm import request_latencies
from llmtop.engines.tensorrt_llm.iteration_steps import IterationSteps
from llmtop.engines.tensorrt_llm.record import Record
from llmtop.engines.tensorrt_llm.shared_iterations import (
    SharedIterations,
    decode,
    encode,
    rows_of,
)
from llmtop.values import replace

_T = TypeVar("_T")
_Answer = list[Record] | ScrapeError  # of the queue

# An empty queue answers after 2 s. The request stays under way meanwhile: given up, it would take
# iterations off the queue, which would be lost.
PATIENCE_S = 0.5
SHARED_S = 5.0  # of steps, for the other llmtops: they look once a second

# Two answers in a row without an iteration, although requests ended: another reader gets them.
_STARVED = 2

_NOT_OURS = "another llmtop reads this engine's iterations"
_DRAINED = (
    "/metrics reports no iterations: enable_iter_perf_stats is off, another program reads them, "
    "or this version's own Prometheus page takes them first"
)
_NO_LATENCIES = (
    "no latencies: /prometheus/metrics does not exist "
    "(return_perf_metrics is off, or an old version)"
)


class _Told(Struct):
    """A counter as it is passed on, and the number behind it at the last reading."""

    total: float
    source: str
    behind: float


class Totals:
    """Counters that go on where they were when another source takes over.

    The two sources count from different beginnings: passed on as they are, a change of source
    would look like a burst or like a restarted engine.
    """

    def __init__(self) -> None:
        self._told: dict[Counter, _Told] = {}

    def take(self, sources: Mapping[str, Mapping[Counter, float]]) -> dict[Counter, float]:
        """The counters now. sources: by name, the better one first."""
        found: dict[Counter, float] = {}
        for source, counters in sources.items():
            for counter, value in counters.items():
                if counter not in found:
                    found[counter] = self._go_on(counter, source, value)
        return found

    def _go_on(self, counter: Counter, source: str, value: float) -> float:
        told = self._told.get(counter)
        if told is None:
            told = self._told[counter] = _Told(value, source, value)
        elif told.source == source:
            # A fall is a restart, and is passed on as one.
            told.total = told.total + value - told.behind if value >= told.behind else value
        told.source, told.behind = source, value
        return told.total


class TensorRtReader:
    """The ``Reader`` of one TensorRT-LLM server.

    get: GET of a text; its time-out should be 3 s or more. locks: see ``ExclusiveLock``.
    patience_s: how long a reading waits for the queue when Prometheus has answered.
    """

    def __init__(
        self,
        base_url: str,
        get: Callable[[str], Awaitable[str]],
        locks: Path | None = None,
        *,
        patience_s: float = PATIENCE_S,
        clock: Callable[[], float] = time.time,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        base = base_url.rstrip("/")
        self._queue_url = base + queue.PATH
        self._prometheus_url = base + prometheus.PATH
        self._get = get
        self._claim = ExclusiveLock(locks, base)
        self._patience_s = patience_s
        self._clock = clock
        self._monotonic = monotonic
        self._parser = Parser(prometheus.PREFIXES)
        self._pending: asyncio.Task[_Answer] | None = None
        self._iterations = queue.Iterations()
        self._steps = IterationSteps()
        self._requests_url = base + request_latencies.PATH
        self._latencies = request_latencies.RequestLatencies()
        self._with_latency: float | None = None  # requests in the histogram of the last page
        self._totals = Totals()
        self._ended: float | None = None  # requests, from Prometheus at the last queue answer
        self._starved = 0
        self._notes: tuple[str, ...] = ()
        self._name = ""  # of what was read since the queue is this reader's

    def give_way(self) -> None:
        """Read the queue only while no other llmtop wants to."""
        self._claim.background = True

    @property
    def note(self) -> str:
        """What cannot be read just now and why, "" when all is well."""
        return "; ".join(self._notes)

    async def read(self) -> Reading:
        """One moment, as far as either page reports. Raises ScrapeError when neither does."""
        ours = self._may_read()
        if ours and self._pending is None:
            self._pending = asyncio.create_task(self._drain())
        page = await self._page()
        if self._pending is not None:
            # Without an answer from the other page, this one shows whether the server answers.
            answered = isinstance(page, Reading) or page.status is not None
            await asyncio.wait((self._pending,), timeout=self._patience_s if answered else None)
        answer = self._answer()
        now, elapsed = self._clock(), self._monotonic()
        shared = None if ours else decode(self._claim.published(), elapsed)
        if shared is not None and not self._claim.background:
            self._steps.take(shared.steps())
        if isinstance(page, ScrapeError):
            if isinstance(answer, ScrapeError):
                raise answer if page.status == 404 else page
            if not ours and shared is None:
                raise ScrapeError(f"{_NOT_OURS}, and {page.message}", page.hint, page.status)
        if isinstance(answer, list):
            self._take_in(answer, page, elapsed)
        self._notes = tuple(self._trouble(ours or shared is not None, page, answer))
        if ours and not isinstance(answer, ScrapeError) and self._starved < _STARVED:
            shared = self._own(elapsed)
            if not self._claim.background:  # else no other llmtop waits for it
                self._claim.publish(encode(shared))
        return self._merge(page, shared, now, elapsed)

    def _may_read(self) -> bool:
        """Whether the queue is this reader's. In the background it is given up on demand, but not
        before the answer that is under way."""
        if self._claim.background and self._claim.held and self._claim.wanted():
            if self._pending is None:
                self._claim.release()
            return self._claim.held
        goes_on = self._claim.held and self._name
        ours = self._claim.take()
        if ours and not goes_on:  # what another one read before is no hole in what this one reads
            self._iterations, self._name = queue.Iterations(), os.urandom(8).hex()
        return ours

    def _own(self, elapsed: float) -> SharedIterations:
        totals = {name.value: value for name, value in self._iterations.totals(elapsed).items()}
        steps = rows_of(self._steps.since(self._clock() - SHARED_S))
        return SharedIterations(self._name, elapsed, self._iterations.occupancy(), totals, steps)

    @property
    def steps(self) -> Steps:
        """The last iterations that were read, as steps."""
        return self._steps.steps(self._clock())

    async def latencies(self, kept: int) -> Latencies:
        """Exact latencies of the requests that ended. kept: so many the server keeps for us.

        Raises LiveError where they cannot be read, or some may be lost.
        """
        if not self._may_read():
            raise LiveError(_NOT_OURS)
        ended = self._with_latency
        try:
            records = queue.decode(await self._get(self._requests_url))
        except ScrapeError as error:
            raise LiveError(error.message, error.hint) from error
        self._latencies.add(records, kept, ended)
        return self._latencies.latencies(self._clock())

    async def close(self) -> None:
        """Let go of the queue, so that another llmtop can have it."""
        pending, self._pending = self._pending, None
        if pending is not None:
            pending.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await pending
        self._claim.release()

    async def _drain(self) -> _Answer:
        try:
            return queue.decode(await self._get(self._queue_url))
        except ScrapeError as error:
            return error

    async def _page(self) -> Reading | ScrapeError:
        try:
            text = self._parser.parse(await self._get(self._prometheus_url))
        except ScrapeError as error:
            return error
        found = prometheus.read(text, self._clock(), self._monotonic())
        if (whole := found.histograms.get(Latency.E2E)) is not None:
            self._with_latency = whole.counts[-1]
        return found

    def _answer(self) -> _Answer | None:
        if self._pending is None or not self._pending.done():
            return None
        pending, self._pending = self._pending, None
        return pending.result()

    def _take_in(self, records: list[Record], page: Reading | ScrapeError, elapsed: float) -> None:
        self._iterations.add(records, elapsed)
        if not self._claim.background:  # the history holds no steps
            self._steps.add(records, self._clock())
        ended = _ended(page) if isinstance(page, Reading) else None
        if records:
            self._starved = 0
        elif ended is not None and self._ended is not None and ended > self._ended:
            self._starved += 1
        self._ended = ended

    def _trouble(
        self,
        ours: bool,
        page: Reading | ScrapeError,
        answer: _Answer | None,
    ) -> list[str]:
        notes = []
        if not ours:
            notes.append(_NOT_OURS)
        elif isinstance(answer, ScrapeError):
            notes.append(answer.message)
        elif self._starved >= _STARVED:
            notes.append(_DRAINED)
        if isinstance(page, ScrapeError):
            notes.append(_NO_LATENCIES if page.status == 404 else page.message)
        return notes

    def _merge(
        self,
        page: Reading | ScrapeError,
        queue_: SharedIterations | None,
        now: float,
        elapsed: float,
    ) -> Reading:
        base = page if isinstance(page, Reading) else Reading(now, elapsed)
        steps = {} if queue_ is None else queue_.totals()
        if isinstance(page, Reading) or page.status != 404:
            # The queue does not report how a request ended, and Prometheus does.
            steps.pop(Counter.REQUESTS_OK, None)
        source = "queue" if queue_ is None else f"queue of {queue_.reader}"
        counters = self._totals.take({source: steps, "prometheus": base.counters})
        full = queue.Occupancy() if queue_ is None else queue_.occupancy
        return replace(
            base,
            time=now,
            elapsed=elapsed,
            running=_first(full.running, base.running),
            waiting=_first(full.waiting, base.waiting),
            kv_usage=_first(full.kv_usage, base.kv_usage),
            kv_tokens_total=_first(full.kv_tokens_total, base.kv_tokens_total),
            counters=counters,
            partial=not isinstance(page, Reading),
        )


def _ended(page: Reading) -> float:
    return page.counters.get(Counter.REQUESTS_OK, 0.0) + page.counters.get(
        Counter.REQUESTS_FAILED, 0.0
    )


def _first(one: _T | None, other: _T | None) -> _T | None:
    return one if one is not None else other
