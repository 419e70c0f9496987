"""Reads TensorRT-LLM from two sources: the queue of iterations, and Prometheus metrics.

Each read of the queue empties it, so only one llmtop may read it. That reader publishes its
numbers, and the user's other llmtops show these. The recorder of the history reads the queue only
while no other llmtop does.

The queue reports running and waiting requests, KV cache, speculation and tokens, step by step.
Prometheus reports latencies and how requests ended. The newest versions report everything in both;
the oldest have no Prometheus metrics. If both report a value, the queue is used: it describes the
last iteration, while Prometheus changes only when a request ends.
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

# An empty queue answers after 2 s. A reading does not wait that long. It keeps the request open,
# because a cancelled request would remove iterations from the queue, and they would be lost.
PATIENCE_S = 0.5
SHARED_S = 5.0  # seconds of steps for the other llmtops, which read them once a second

# Answers in succession without an iteration although requests ended: another reader receives them.
_STARVED = 2

_NOT_OURS = "another llmtop reads this engine's iterations"
_DRAINED = (
    "/metrics reports no iterations: enable_iter_perf_stats is off, another program reads them, "
    "or this version's own Prometheus page reads them first"
)
_NO_LATENCIES = (
    "no latencies: /prometheus/metrics does not exist "
    "(return_perf_metrics is off, or an old version)"
)


class _ContinuousCounter(Struct):
    """total: the continuous value. source, value: the source at the last read, and its value."""

    total: float
    source: str
    value: float


class ContinuousCounters:
    """Counters that stay continuous when the source of a counter changes.

    The two sources count from different starts. Without this class, a change of the source would
    look like a burst or like a restart of the engine.
    """

    def __init__(self) -> None:
        self._counters: dict[Counter, _ContinuousCounter] = {}

    def update(self, sources: Mapping[str, Mapping[Counter, float]]) -> dict[Counter, float]:
        """The continuous values. sources: counters by source, the preferred source first."""
        found: dict[Counter, float] = {}
        for source, counters in sources.items():
            for counter, value in counters.items():
                if counter not in found:
                    found[counter] = self._continue(counter, source, value)
        return found

    def _continue(self, counter: Counter, source: str, value: float) -> float:
        last = self._counters.get(counter)
        if last is None:
            last = self._counters[counter] = _ContinuousCounter(value, source, value)
        elif last.source == source:
            # A decrease means that the engine was restarted, and must remain visible.
            last.total = last.total + value - last.value if value >= last.value else value
        last.source, last.value = source, value
        return last.total


class TensorRtReader:
    """The ``Reader`` of one TensorRT-LLM server.

    get: HTTP GET of a text; its timeout should be at least 3 s. locks: see ``ExclusiveLock``.
    patience_s: how long a reading waits for the queue after Prometheus has answered. clock: unix
    seconds. monotonic: CLOCK_MONOTONIC seconds.
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
        self._lock = ExclusiveLock(locks, base)
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
        self._counters = ContinuousCounters()
        self._ended: float | None = None  # finished requests in Prometheus at the last queue answer
        self._starved = 0
        self._notes: tuple[str, ...] = ()
        self._name = ""  # new each time when this reader takes the lock

    def give_way(self) -> None:
        """Read the queue only while no other llmtop wants to."""
        self._lock.background = True

    @property
    def note(self) -> str:
        """What cannot be read now, with the reason; "" if everything can."""
        return "; ".join(self._notes)

    async def read(self) -> Reading:
        """The reading from both pages, or from the one that answers. ScrapeError if none does."""
        holds_lock = self._may_read()
        if holds_lock and self._pending is None:
            self._pending = asyncio.create_task(self._drain())
        page = await self._page()
        if self._pending is not None:
            # If Prometheus did not answer, only the queue shows whether the server answers.
            answered = isinstance(page, Reading) or page.status is not None
            await asyncio.wait((self._pending,), timeout=self._patience_s if answered else None)
        answer = self._answer()
        now, elapsed = self._clock(), self._monotonic()
        shared = None if holds_lock else decode(self._lock.published(), elapsed)
        if shared is not None and not self._lock.background:
            self._steps.take(shared.steps())
        if isinstance(page, ScrapeError):
            if isinstance(answer, ScrapeError):
                raise answer if page.status == 404 else page
            if not holds_lock and shared is None:
                raise ScrapeError(f"{_NOT_OURS}, and {page.message}", page.hint, page.status)
        if isinstance(answer, list):
            self._add(answer, page, elapsed)
        self._notes = tuple(self._problems(holds_lock or shared is not None, page, answer))
        if holds_lock and not isinstance(answer, ScrapeError) and self._starved < _STARVED:
            shared = self._numbers(elapsed)
            if not self._lock.background:  # in the background, no other llmtop waits for them
                self._lock.publish(encode(shared))
        return self._merge(page, shared, now, elapsed)

    def _may_read(self) -> bool:
        """Whether this reader holds the lock of the queue.

        In the background it releases the lock on demand, but not before a pending answer.
        """
        if self._lock.background and self._lock.held and self._lock.wanted():
            if self._pending is None:
                self._lock.release()
            return self._lock.held
        held_before = self._lock.held and self._name
        holds_lock = self._lock.take()
        if holds_lock and not held_before:  # iterations of another reader are not a gap
            self._iterations, self._name = queue.Iterations(), os.urandom(8).hex()
        return holds_lock

    def _numbers(self, elapsed: float) -> SharedIterations:
        totals = {name.value: value for name, value in self._iterations.totals(elapsed).items()}
        steps = rows_of(self._steps.since(self._clock() - SHARED_S))
        return SharedIterations(self._name, elapsed, self._iterations.occupancy(), totals, steps)

    @property
    def steps(self) -> Steps:
        """The last iterations that were read, as steps."""
        return self._steps.steps(self._clock())

    async def latencies(self, kept: int) -> Latencies:
        """Exact latencies of the requests that ended. kept: how many the server keeps.

        Raises LiveError if they cannot be read, or if some may be lost.
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
        """Release the queue, so that another llmtop can read it."""
        pending, self._pending = self._pending, None
        if pending is not None:
            pending.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await pending
        self._lock.release()

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

    def _add(self, records: list[Record], page: Reading | ScrapeError, elapsed: float) -> None:
        self._iterations.add(records, elapsed)
        if not self._lock.background:  # the history does not contain steps
            self._steps.add(records, self._clock())
        ended = _ended(page) if isinstance(page, Reading) else None
        if records:
            self._starved = 0
        elif ended is not None and self._ended is not None and ended > self._ended:
            self._starved += 1
        self._ended = ended

    def _problems(
        self,
        has_numbers: bool,
        page: Reading | ScrapeError,
        answer: _Answer | None,
    ) -> list[str]:
        notes = []
        if not has_numbers:
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
            # Only Prometheus reports how a request ended.
            steps.pop(Counter.REQUESTS_OK, None)
        source = "queue" if queue_ is None else f"queue of {queue_.reader}"
        counters = self._counters.update({source: steps, "prometheus": base.counters})
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
