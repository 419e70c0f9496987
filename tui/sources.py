"""Facts on their way up: each source keeps its part of the store true, on its own beat.

A source that fails marks its own part stale; it never takes another one, or the screen, with it.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterable
from typing import Protocol

from llmtop import LlmtopError
from llmtop.engines.anatomy import Anatomy
from llmtop.engines.gpu import Gpus
from llmtop.engines.live import LiveState
from llmtop.engines.options import Change, Outcome
from llmtop.engines.records import EngineRecord, EngineStatus, State
from llmtop.engines.samples import EngineSample, Latency, Quantiles
from llmtop.loadgen.pool import Load
from llmtop.tui.session import EngineSession
from llmtop.tui.store import EngineTrack, Event, Mark, Store
from llmtop.tui.words import change_words, mark_words

# A start ends between two beats, and its phases are short: it is looked at more often.
STARTING_LOOK_S = 0.2
STARTING_LOOKS = 4
LIVE_EVERY_S = 2.0  # the live-option socket is asked this often, and at once after a change
HISTORY_GRACE_S = 1.0  # changes older than this before we came are history, not news


class Source(Protocol):
    """Something that writes facts into the store."""

    async def beat(self) -> None:
        """Look once."""

    async def close(self) -> None:
        """Give back what it holds."""


class Timeline:
    """The time axis of the charts: unix seconds that never run backwards.

    Taken once from the wall clock and then carried by the monotonic one, so that a stepped clock
    neither tears a gap into the charts nor rewrites them.
    """

    def __init__(
        self,
        wall: Callable[[], float] = time.time,
        steady: Callable[[], float] = time.monotonic,
    ) -> None:
        self._start, self._steady = wall() - steady(), steady

    def now(self) -> float:
        """Seconds on the charts' axis."""
        return self._start + self._steady()


class EngineSource:
    """Keeps one engine's track: its state, its numbers, its options and who changed them.

    news: called when there is something that should be seen before the screen's next beat. reopen:
    makes the session anew when the record speaks of another process: it was restarted.
    """

    def __init__(
        self,
        session: EngineSession,
        track: EngineTrack,
        store: Store,
        status: Callable[[EngineRecord], EngineStatus] | None,
        now: Callable[[], float],
        learn: Callable[[EngineRecord, str], object] | None = None,
        news: Callable[[], None] = lambda: None,
        anatomy: Callable[[EngineRecord], Anatomy | None] = lambda record: None,
        reopen: Callable[[EngineRecord], EngineSession] | None = None,
    ) -> None:
        self.session = session
        self.resting = False  # nothing is looked at: another engine is just taking over the name
        self._reopen = reopen
        self.track = track
        self._store = store
        self._status = status
        self._learn = learn
        self._news = news
        self._anatomy = anatomy
        self._anatomy_of: int | None = None
        self._now = now
        self._live_due = 0.0
        self._seen: float | None = None
        self._urgent = False
        self._told_missing = ""
        self._began = time.time()
        self._show = False

    def look_again(self) -> None:
        """Ask the live-option socket at the next beat: something was changed."""
        self._live_due = 0.0
        self._urgent = True

    async def beat(self) -> None:
        """Status first; numbers only from an engine that can have some."""
        if self.resting:
            return
        await self._look()
        if self._show:
            self._show = False
            self._news()

    async def _look(self) -> None:
        record = self.session.endpoint.record
        if self._status is not None and record is not None:
            state = self._note_status(await asyncio.to_thread(self._status, record))
            await self._follow()
            for _ in range(STARTING_LOOKS):
                if state is not State.STARTING:
                    break
                await asyncio.sleep(STARTING_LOOK_S)
                state = self._note_status(await asyncio.to_thread(self._status, record))
            if state in (State.STARTING, State.STOPPED, State.FAILED, State.LOST):
                self._gap()
                return
            await self._dissect()
        try:
            sample = await self.session.sample()
        except LlmtopError as error:
            self._stale(error.message)
            self._gap()
        else:
            self._fresh(sample)
            self._note_missing()
            if self.track.version is None:
                await self._ask_version()
        if self._now() >= self._live_due:
            self._live_due = self._now() + LIVE_EVERY_S
            await self._options()

    async def close(self) -> None:
        """Close the session's sockets."""
        await self.session.close()

    async def _dissect(self) -> None:
        """Read what its start told of its memory, once for each process that it is."""
        status = self.track.status
        if status is None or status.state is not State.READY:
            return
        if self._anatomy_of != status.record.pid:
            self._anatomy_of = status.record.pid
            self.track.anatomy = await asyncio.to_thread(self._anatomy, status.record)

    async def _follow(self) -> None:
        """Whoever restarted it, here or elsewhere: another process, and maybe another port."""
        before, status = self.session.endpoint.record, self.track.status
        if self._reopen is None or before is None or status is None or status.record.pid == 0:
            return
        record = status.record
        if (before.pid, before.start_ticks) == (record.pid, record.start_ticks):
            return
        old, self.session = self.session, self._reopen(record)
        self.track.url, self.track.model = record.url, record.spec.model
        self.track.version = record.version
        self.track.sample, self.track.stale_since, self.track.trouble = None, None, ""
        self.look_again()
        self._gap()
        self.track.marks.append(Mark(self._now(), "restart"))
        if before.url != record.url:
            words = f"{self.track.name} answers at {record.url} now, no longer at {before.url}"
            self._store.events.append(Event(time.time(), "warning", words))
        await old.close()

    async def _ask_version(self) -> None:
        version = await self.session.version()
        self.track.version = version or ""
        record = self.session.endpoint.record
        if version and record is not None and self._learn is not None:
            await asyncio.to_thread(self._learn, record, version)

    def _note_status(self, status: EngineStatus) -> State:
        before = self.track.status
        self.track.status = status
        self.track.version = status.record.version or self.track.version
        if before is None or before.state is status.state:
            return status.state
        self._show = True
        level = {State.FAILED: "error", State.LOST: "error", State.UNRESPONSIVE: "warning"}.get(
            status.state, "info"
        )
        text = f"{self.track.name} is {status.state.value}"
        if status.state is State.FAILED and status.record.cause:
            text += f": {status.record.cause}"
            if status.record.advice:
                text += f"; {status.record.advice}"
        self._store.events.append(Event(time.time(), level, text))
        return status.state

    def _stale(self, why: str) -> None:
        if self.track.stale_since is None:
            self.track.stale_since = time.time()
        self.track.trouble = why

    def _note_missing(self) -> None:
        """Say once, not at each beat, that some of the numbers cannot be had."""
        note = self.session.note
        if note and note != self._told_missing:
            self._store.events.append(Event(time.time(), "warning", f"{self.track.name}: {note}"))
            self._told_missing = note

    def _gap(self) -> None:
        now = self._now()
        for series in self.track.series.values():
            series.append(now, None)

    def _fresh(self, sample: EngineSample) -> None:
        track, now = self.track, self._now()
        if track.stale_since is not None:
            age = time.time() - track.stale_since
            if track.sample is not None and age > LIVE_EVERY_S:
                self._store.events.append(
                    Event(time.time(), "info", f"{track.name} answers again after {age:.0f}s")
                )
        self._show = self._show or track.sample is None or self._urgent
        self._urgent = False
        track.stale_since, track.trouble, track.sample = None, "", sample
        track.model = track.model or sample.model
        if sample.restarted:
            track.marks.append(Mark(now, "restart"))
        cap = next((o.value for o in track.options if o.name == "max_num_seqs"), None)
        for name, value in (
            ("running", sample.running),
            ("waiting", sample.waiting),
            ("cap", cap if isinstance(cap, int) else None),
            ("kv_usage", sample.kv_usage),
            ("output_tokens_per_s", sample.output_tokens_per_s),
            ("prompt_tokens_per_s", sample.prompt_tokens_per_s),
            ("requests_per_s", sample.requests_per_s),
            ("ttft_p95", p95(sample.latencies.get(Latency.TTFT))),
            ("itl_p95", p95(sample.latencies.get(Latency.ITL))),
        ):
            track.record(name, now, value)

    async def _options(self) -> None:
        track = self.track
        if self.session.live is None:
            track.options = self.session.assemble(None)
            track.options_note = self.session.why_not_live
            return
        try:
            live = await self.session.live.get()
        except LlmtopError as error:
            track.options, track.options_note = self.session.assemble(None), error.message
            return
        was = track.options_note
        track.options = self.session.assemble(live)
        track.options_note = f"live options are off: {live.disabled}" if live.disabled else ""
        if live.disabled and was != track.options_note:
            self._store.events.append(Event(time.time(), "error", track.options_note))
        self._history(live)

    def _history(self, live: LiveState) -> None:
        """Turn changes that we have not seen, ours or another llmtop's, into events and marks."""
        newest = self._seen if self._seen is not None else self._began - HISTORY_GRACE_S
        for change in live.history:
            if change.time is None or change.time <= newest:
                continue
            self._seen = change.time
            self._tell(change)

    def _tell(self, change: Change) -> None:
        level = "warning" if change.outcome is Outcome.REFUSED else "change"
        stamp = change.time or time.time()
        self._store.events.append(Event(stamp, level, change_words(change, self.session.who)))
        if change.outcome is not Outcome.REFUSED:
            age = max(0.0, time.time() - stamp)
            self.track.marks.append(Mark(self._now() - age, mark_words(change)))


def p95(found: Quantiles | None) -> float | None:
    """The 95th percentile in seconds; an unresolved one as its bound, an absent one as a gap."""
    return found.p95.seconds if found is not None and found.p95 is not None else None


class GpuSource:
    """Keeps the GPUs. NVML can block, so it is read on a thread."""

    def __init__(self, gpus: Gpus, store: Store) -> None:
        self._gpus = gpus
        self._store = store

    async def beat(self) -> None:
        """Read all GPUs once."""
        self._store.gpus = await asyncio.to_thread(self._gpus.read)
        self._store.gpu_note = self._gpus.note

    async def close(self) -> None:
        """Let NVML go."""
        self._gpus.close()


class LoadSource:
    """Keeps the load's snapshot, and the client's figures on the loaded engine's charts."""

    def __init__(self, store: Store, now: Callable[[], float]) -> None:
        self.load: Load | None = None
        self._store = store
        self._now = now

    async def beat(self) -> None:
        """Take a snapshot, when there is a load."""
        if self.load is None:
            return
        snapshot = self.load.snapshot()
        self._store.load = snapshot
        track = self._store.engines.get(self._store.load_target or "")
        if track is None:
            return
        now = self._now()
        idle = not snapshot.running and snapshot.in_flight == 0
        for name, value in (
            ("client_ttft_p50", snapshot.ttft.p50),
            ("client_ttft_p95", snapshot.ttft.p95),
            ("client_ttft_p99", snapshot.ttft.p99),
            ("oldest_wait", snapshot.oldest_wait_s),
            ("asked", None if idle else snapshot.asked),
            ("in_flight", None if idle else float(snapshot.in_flight)),
        ):
            track.record(name, now, value)

    async def close(self) -> None:
        """End the load's workers."""
        if self.load is not None:
            await asyncio.to_thread(self.load.close)
            self.load = None


class Sampling:
    """Beats every source once an interval, on an absolute schedule, each on its own.

    A source that is still busy with its last beat is left alone, so a slow engine delays nobody.
    """

    def __init__(
        self,
        sources: Iterable[Source],
        interval: float = 1.0,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
        steady: Callable[[], float] = time.monotonic,
        on_fault: Callable[[Source, Exception], None] | None = None,
    ) -> None:
        self.sources = list(sources)
        self.interval = interval
        self._sleep = sleep
        self._steady = steady
        self._on_fault = on_fault
        self._busy: dict[int, asyncio.Task[None]] = {}

    async def run(self) -> None:
        """Beat until cancelled."""
        due = self._steady()
        while True:
            self.beat_all()
            due = max(due + self.interval, self._steady())
            await self._sleep(due - self._steady())

    def beat_all(self) -> None:
        """Start a beat of every source that is not still busy."""
        for source in self.sources:
            self.beat(source)

    def beat(self, source: Source) -> asyncio.Task[None]:
        """Start one source's beat, or give the one that is under way."""
        task = self._busy.get(id(source))
        if task is None or task.done():
            task = asyncio.create_task(self._guarded(source))
            self._busy[id(source)] = task
        return task

    async def _guarded(self, source: Source) -> None:
        try:
            await source.beat()
        except Exception as error:
            if self._on_fault is not None:
                self._on_fault(source, error)

    async def close(self) -> None:
        """Stop beating and close every source."""
        for task in self._busy.values():
            task.cancel()
        await asyncio.gather(*self._busy.values(), return_exceptions=True)
        for source in self.sources:
            await source.close()
