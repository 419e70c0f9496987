"""The status of each engine, from its process, answers and log; waiting until one is ready."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Mapping
from pathlib import Path

from llmtop import LlmtopError
from llmtop.engines.core.adapter import Adapter
from llmtop.engines.core.records import EngineRecord, EngineStatus, State
from llmtop.engines.host import log_reader
from llmtop.engines.host.processes import Processes, identity
from llmtop.engines.state.startup_times import startup_key
from llmtop.engines.state.state_directory import StateDirectory
from llmtop.engines.supervision.health import Watch
from llmtop.engines.supervision.launch import LaunchFailed
from llmtop.engines.supervision.postmortem import Postmortem
from llmtop.engines.supervision.registry import EngineRegistry
from llmtop.http_client.probe import Probe
from llmtop.trust import Trusts
from llmtop.values import replace

_AT_ONCE_S = 2.0  # if ready at the first check and younger, its age is its start-up time
_BEAT_S = 0.2
_OVER = (State.STOPPED, State.FAILED, State.LOST)


class StatusReader:
    """Finds the status of engines and keeps one ``Watch`` for each between checks.

    registry: their records. postmortem: for ended engines. probe: (url, seconds) -> HTTP status or
    None. trusts: receives the certificate of each checked engine.
    """

    def __init__(
        self,
        state: StateDirectory,
        registry: EngineRegistry,
        postmortem: Postmortem,
        adapters: Mapping[str, Adapter],
        *,
        processes: Processes,
        probe: Probe,
        trusts: Trusts,
        clock: Callable[[], float],
        monotonic: Callable[[], float],
    ) -> None:
        self._state = state
        self._registry = registry
        self._postmortem = postmortem
        self._adapters = adapters
        self._processes = processes
        self._probe = probe
        self._trusts = trusts
        self._clock = clock
        self._monotonic = monotonic
        self._watches: dict[str, Watch] = {}
        self._lock = threading.Lock()

    def read(self, record: EngineRecord) -> EngineStatus:
        """The present status. Takes at most about a second; the end of an engine once takes longer.

        Records its findings: that the engine became ready, that it ended, and why.
        """
        record = self._registry.fresh(record)
        if record.pid == 0 and record.ended_at is None:
            return EngineStatus(record, State.STARTING, record.started_at, "being launched")
        watch = self._watch(record)
        with watch.lock:
            if record.ended_at is not None:
                return self._postmortem.verdict(record)
            seen = watch.check(record)
            if seen is None:
                return self._postmortem.examine(record, watch)
            state, words = seen
            if state is State.READY and record.ready_at is None:
                record = self._became_ready(record, watch)
            log = Path(record.log_path)
            if log_reader.outgrown(log):
                # Under the lock: two simultaneous rotations would lose a part of the log.
                with contextlib.suppress(LlmtopError), self._state.lock(record.name):
                    log_reader.rotate(log)
            steps = watch.steps if state is State.STARTING else ()
            return EngineStatus(record, state, watch.since, words, steps)

    def forget(self, name: str) -> None:
        """Drop the observations of this name; the next check starts without them."""
        with self._lock:
            self._watches.pop(name, None)

    def _watch(self, record: EngineRecord) -> Watch:
        with self._lock:
            watch = self._watches.get(record.name)
            if watch is None or watch.leader != identity(record):
                self._trusts.pin(record.url, record.certificate)
                adapter = self._adapters.get(record.spec.kind)
                watch = self._watches[record.name] = Watch(
                    record,
                    adapter.phases if adapter else (),
                    adapter.ready_path if adapter else "/health",
                    processes=self._processes,
                    probe=self._probe,
                    clock=self._clock,
                    monotonic=self._monotonic,
                    phases_before=self._state.startups.phases(startup_key(record.spec)),
                )
            return watch

    def _became_ready(self, record: EngineRecord, watch: Watch) -> EngineRecord:
        now = self._clock()
        # The start-up time is known only if the start was observed.
        age = self._processes.age_s(watch.leader)
        took = age if watch.seen_starting or age < _AT_ONCE_S else None
        if took is not None:
            timed = {step.word: step.took_s for step in watch.steps if step.took_s is not None}
            whole = len(timed) == len(watch.steps)
            key = startup_key(record.spec)
            self._state.startups.remember(key, took, timed if whole else None)
        return self._registry.update(
            record, lambda r: r if r.ready_at else replace(r, ready_at=now, startup_s=took)
        )


def wait_ready(
    record: EngineRecord,
    status_of: Callable[[EngineRecord], EngineStatus],
    timeout_s: float,
    on_phase: Callable[[EngineStatus], None] | None,
    *,
    monotonic: Callable[[], float],
    sleep: Callable[[float], None],
) -> EngineStatus:
    """Wait until an engine is ready; see ``Supervisor.wait_ready``."""
    deadline = monotonic() + timeout_s
    reported: tuple[State, str] | None = None
    while True:
        status = status_of(record)
        if on_phase is not None and reported != (status.state, status.phase):
            reported = (status.state, status.phase)
            on_phase(status)
        if status.state is State.READY:
            return status
        to_read = f"read its log: llmtop logs {record.name}"
        if status.state in _OVER:
            raise LaunchFailed(
                f"{record.name!r} did not start: {status.phase or 'it was stopped'}",
                status.record.advice or to_read,
                status.record.excerpt,
            )
        if monotonic() >= deadline:
            doing = f" ({status.phase})" if status.phase else ""
            raise LaunchFailed(
                f"{record.name!r} is not ready after {timeout_s:.0f} s{doing}", to_read
            )
        sleep(_BEAT_S)
