"""The source that writes one engine's facts into the store."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path

from llmtop import LlmtopError
from llmtop.analysis.marks import Mark
from llmtop.analysis.series import engine_series
from llmtop.engines.core.conditions import Condition
from llmtop.engines.core.options import BATCH_LIMITS, Change, OptionValue, Outcome
from llmtop.engines.core.records import EngineRecord, EngineStatus, State
from llmtop.engines.core.samples import EngineSample
from llmtop.engines.host.log_reader import tail
from llmtop.engines.host.safe_text import clean
from llmtop.engines.logs.memory_report import MemoryReport
from llmtop.engines.metrics.exposition import ScrapeError
from llmtop.operations.session import EngineSession
from llmtop.tui.sources.findings import EngineFindings
from llmtop.tui.sources.history import ChangeHistory
from llmtop.tui.store.store import EngineTrack, Event, Store
from llmtop.values import replace
from llmtop.wording.sentences import left_words, mark_words, status_words

# The phases of a start are shorter than a beat, so the status is read more often.
STARTING_POLL_S = 0.2
STARTING_POLLS = 4
LIVE_EVERY_S = 2.0  # between two readings of the live options; after a change at once
LOG_LINES = 3  # last log lines to show, during a start or after a failure
LOG_CHARS = 500  # of each line: wider than any terminal

QUEUE_LIMIT = "max_queued_requests"

LEVELS = {State.FAILED: "error", State.LOST: "error", State.UNRESPONSIVE: "warning"}
ENDED = (State.STOPPED, State.FAILED, State.LOST)


class EngineSource:
    """Updates one engine's track: its state, its numbers, its options and their changes.

    status: reads the engine's status; None if llmtop did not start it. now: the screen's clock.
    learn: stores the version that the engine reports. repaint: called to paint before the next
    beat. memory_report: reads the report of the start. reopen: opens a new session when the record
    names another process, after a restart. seen: receives the problems of llmtop's engines, for
    other processes. wall: unix seconds, the clock of the engines' change times. judge: called after
    each reading to determine the load state.

    paused: read nothing, because another engine is taking over the name. expected: a restart from
    this screen is in progress; its caller reports the result. settled: set after the first sample,
    or when the engine has ended without one.
    """

    def __init__(
        self,
        session: EngineSession,
        track: EngineTrack,
        store: Store,
        status: Callable[[EngineRecord], EngineStatus] | None,
        now: Callable[[], float],
        learn: Callable[[EngineRecord, str], object] | None = None,
        repaint: Callable[[], None] = lambda: None,
        memory_report: Callable[[EngineRecord], MemoryReport | None] = lambda record: None,
        reopen: Callable[[EngineRecord], EngineSession] | None = None,
        seen: Callable[[EngineRecord, tuple[Condition, ...]], None] = lambda record, found: None,
        wall: Callable[[], float] = time.time,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
        judge: Callable[[EngineTrack], None] = lambda track: None,
    ) -> None:
        self._judge = judge
        self.session = session
        self.track = track
        self.paused = False
        self.expected = False
        self.settled = asyncio.Event()
        self._store = store
        self._status = status
        self._now = now
        self._learn = learn
        self._repaint = repaint
        self._memory_report = memory_report
        self._memory_report_pid: int | None = None
        self._reopen = reopen
        self._seen = seen
        self._noted = False
        self._sleep = sleep
        self._findings = EngineFindings(track, store, now)
        self._history = ChangeHistory(track, store, now, wall)
        self._live_due = now()
        self._urgent = False
        # Start of the state, on the screen's clock, if it began while the screen was open.
        self._began: float | None = None
        self._reported_missing = ""
        self._reported_disabled: str | None = None
        self._show = False
        self._fresh_at: float | None = None
        # A restart by another process: the options before it, and when it was last seen.
        self._restarted: tuple[dict[str, OptionValue], float] | None = None

    def refresh_options(self) -> None:
        """Read the live options at the next beat and paint at once, after a change."""
        self._urgent = True

    async def sample(self) -> None:
        """Read the status, and the numbers if the engine runs."""
        if self.paused:
            return
        # Reset first: a change during this beat is read at the next one.
        if self._urgent:
            self._urgent, self._show, self._live_due = False, True, self._now()
        await self._read()
        self._judge(self.track)
        if self._show:
            self._show = False
            self._repaint()

    async def _read(self) -> None:
        record = self.session.endpoint.record
        if self._status is not None and record is not None:
            state = await self._ask_status(self._status, record)
            await self._follow_restart()
            for _ in range(STARTING_POLLS):
                if state is not State.STARTING:
                    break
                await self._sleep(STARTING_POLL_S)
                state = await self._ask_status(self._status, record)
            if state is State.STARTING or state in ENDED:
                self._gap()
                return
            await self._read_memory_report()
        # Before the numbers, so that the charts show them with the batch limit in force.
        if self._now() >= self._live_due:
            self._live_due = self._now() + LIVE_EVERY_S
            await self._options()
        try:
            sample = await self.session.sample()
        except LlmtopError as error:
            self._stale(error)
            self._gap()
            return
        self._fresh(sample)
        self._note_missing()
        if record is not None and (self._noted or self.track.conditions):
            self._noted = bool(self.track.conditions)
            await asyncio.to_thread(self._seen, record, self.track.conditions)
        if self.track.version is None:
            await self._ask_version()

    async def close(self) -> None:
        """Close the session's sockets."""
        await self.session.close()

    async def _ask_status(
        self, ask: Callable[[EngineRecord], EngineStatus], record: EngineRecord
    ) -> State:
        def look() -> tuple[EngineStatus, str]:
            status = ask(record)
            wanted = status.state in (State.STARTING, State.FAILED)
            return status, log_end(Path(status.record.log_path)) if wanted else ""

        status, self.track.log_tail = await asyncio.to_thread(look)
        return self._note_status(status)

    async def _read_memory_report(self) -> None:
        """Read the memory report of the start, once for each process of the engine."""
        status = self.track.status
        if status is None or status.state is not State.READY:
            return
        if self._memory_report_pid != status.record.pid:
            self._memory_report_pid = status.record.pid
            self.track.memory_report = await asyncio.to_thread(self._memory_report, status.record)

    async def _follow_restart(self) -> None:
        """After a restart by any process, open a session on the new process."""
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
        self._live_due = self._now()
        self._gap()
        if self.expected:
            self._restarted = None
            self.track.marks.append(Mark(self._now(), "restart"))
        else:
            options = {option.name: option.value for option in self.track.options}
            self._restarted = options, self._last_seen()
        if before.url != record.url:
            words = f"{self.track.name} answers at {record.url} now, no longer at {before.url}"
            self._report("warning", words)
        await old.close()

    def _last_seen(self) -> float:
        return self._now() if self._fresh_at is None else self._fresh_at

    def _difference(self, before: Mapping[str, OptionValue]) -> str:
        """The options that a restart by another process changed, in words; else "restart"."""
        changes = [
            mark_words(Change(now.name, before[now.name], now.value, Outcome.APPLIED))
            for now in self.track.options
            if now.name in before and before[now.name] != now.value
        ]
        return clean(", ".join(changes)) or "restart"

    async def _ask_version(self) -> None:
        version = await self.session.version()
        self.track.version = version or ""
        record = self.session.endpoint.record
        if version and record is not None and self._learn is not None:
            await asyncio.to_thread(self._learn, record, version)

    def _note_status(self, status: EngineStatus) -> State:
        before = self.track.status
        known = before is not None and before.record.pid != 0  # 0: the launch is in progress
        if before is not None and known and _phase_of_life(before) != _phase_of_life(status):
            self._began = self._now()
        if self._began is not None:
            status = replace(status, since=self._began)
        self.track.status = status
        self.track.version = status.record.version or self.track.version
        if status.state in ENDED:
            self.settled.set()
        if status.left and (before is None or before.left != status.left):
            self._show = True
            self._report("warning", left_words(self.track.name, status.left))
        if before is not None and before.state is not status.state:
            self._show = True
            level = LEVELS.get(status.state, "info")
            self._report(level, status_words(self.track.name, status))
        return status.state

    def _stale(self, error: LlmtopError) -> None:
        if self.track.stale_since is None:
            self.track.stale_since = self._now()
        self.track.trouble = error.message
        found = error.condition if isinstance(error, ScrapeError) else None
        self._show = self._findings.silent(found) or self._show

    def _note_missing(self) -> None:
        """Report once, not at each beat, that some numbers are not available."""
        note = self.session.note
        if note and note != self._reported_missing:
            self._report("warning", f"{self.track.name}: {note}")
            self._reported_missing = note

    def _gap(self) -> None:
        """Write a gap into the engine's series. The load's series on the same charts continue."""
        now = self._now()
        for name, _ in engine_series(None):
            if name in self.track.series:
                self.track.record(name, now, None)

    def _fresh(self, sample: EngineSample) -> None:
        track, now = self.track, self._now()
        if track.stale_since is not None:
            age = now - track.stale_since
            if track.sample is not None and age > LIVE_EVERY_S:
                self._report("info", f"{track.name} answers again after {age:.0f}s")
        if sample.restarted:
            self._restarted = self._restarted or ({}, self._last_seen())
        if self._restarted is not None:
            (options, since), self._restarted = self._restarted, None
            track.marks.append(Mark(now, self._difference(options), effect=True, since=since))
        self._fresh_at = now
        self._show = self._show or track.sample is None
        track.stale_since, track.trouble, track.sample = None, "", sample
        track.model = track.model or sample.model
        self._show = self._findings.fresh(sample) or self._show
        # Each data-parallel rank has a batch of its own, and the sample counts all of them.
        cap = next((o.total for o in track.options if o.name in BATCH_LIMITS), None)
        queue = next((o.total for o in track.options if o.name == QUEUE_LIMIT), None)
        for name, value in engine_series(sample, cap, queue or None):  # 0: no limit
            track.record(name, now, value)
        self.settled.set()

    async def _options(self) -> None:
        track, found = self.track, await self.session.read_options()
        track.options, track.options_note = found.options, found.why_not
        if found.live is None:
            return
        disabled = found.live.disabled
        if disabled and disabled != self._reported_disabled:
            self._report("error", f"{track.name}: {found.why_not}")
        self._reported_disabled = disabled
        self._history.report(found.live.history, self.session.who)

    def _report(self, level: str, text: str) -> None:
        self._store.events.append(Event(self._now(), level, text))


def _phase_of_life(status: EngineStatus) -> tuple[State, int, int]:
    return status.state, status.record.pid, status.record.start_ticks


def log_end(path: Path) -> str:
    """The last non-empty lines of a log, without control characters, of bounded length."""
    lines = [line[:LOG_CHARS] for line in tail(path, 4 * LOG_LINES) if line.strip()]
    return "\n".join(lines[-LOG_LINES:])
