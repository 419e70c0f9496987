"""The supervisor starts, takes over and stops engines, and reports their status and their end.

It is synchronous and thread-safe. Engines outlive it: it may end at any moment, and the next one
continues from the state directory.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from pathlib import Path

from llmtop import UsageError
from llmtop.engines.core.adapter import Adapter
from llmtop.engines.core.records import EngineRecord, EngineStatus, LaunchSpec
from llmtop.engines.gpu.memory_guard import GpuMemory, HeldMemory
from llmtop.engines.host.processes import Processes, identity
from llmtop.engines.host.redaction import secrets_in
from llmtop.engines.host.safe_text import clean
from llmtop.engines.host.termination import end_wholly, refuse_foreign, remove_socket
from llmtop.engines.logs.memory_report import MemoryReport, read_memory_report
from llmtop.engines.state import temporary_changes
from llmtop.engines.state.restart_journal import RestartJournal
from llmtop.engines.state.startup_times import startup_key
from llmtop.engines.state.state_directory import Problem, StateDirectory, check_name
from llmtop.engines.supervision.crowding import crowding_before
from llmtop.engines.supervision.launch import prepare, start_engine, vacate
from llmtop.engines.supervision.launch_context import LaunchContext, before_restart, surroundings
from llmtop.engines.supervision.postmortem import Postmortem
from llmtop.engines.supervision.registry import EngineRegistry
from llmtop.engines.supervision.status import StatusReader, wait_ready
from llmtop.http_client.probe import KeptProbe, Probe
from llmtop.trust import Trusts
from llmtop.values import replace

GRACE_S = 10.0
LOCK_WAIT_S = 2.0


class Supervisor:
    """Controls engine processes. No other class does this.

    state: the store of records. adapters: by kind. environ: inherited by engines. probe: (url,
    seconds) -> HTTP status or None. clock: unix seconds; monotonic: for durations. gpu_memory: None
    to ignore GPUs. trusts: the certificates to trust; each engine's own certificate is added.
    launched: called after each start of an engine.
    """

    def __init__(
        self,
        state: StateDirectory,
        adapters: Mapping[str, Adapter],
        *,
        environ: Mapping[str, str],
        clock: Callable[[], float] = time.time,
        monotonic: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
        processes: Processes | None = None,
        probe: Probe | None = None,
        gpu_memory: GpuMemory | None = None,
        trusts: Trusts | None = None,
        launched: Callable[[], object] = lambda: None,
    ) -> None:
        self._state = state
        self._adapters = adapters
        self._environ = environ
        self._clock = clock
        self._monotonic = monotonic
        self._sleep = sleep
        self._launched = launched
        self._processes = processes if processes is not None else Processes()
        trusts = trusts if trusts is not None else Trusts()
        self._gpu_memory = gpu_memory
        self._registry = EngineRegistry(state, self._processes, clock)
        self.restart_journal = RestartJournal(state, self._processes, clock)
        self._secrets: dict[str, tuple[str, ...]] = {}
        self._postmortem = Postmortem(
            self._registry,
            self._processes,
            adapters,
            self._secrets,
            clock=clock,
            monotonic=monotonic,
            sleep=sleep,
            holders=self._holders,
        )
        self._status = StatusReader(
            state,
            self._registry,
            self._postmortem,
            adapters,
            processes=self._processes,
            probe=probe if probe is not None else KeptProbe(trusts=trusts),
            trusts=trusts,
            clock=clock,
            monotonic=monotonic,
        )

    def records(self) -> list[EngineRecord]:
        """The record of every known engine, by name, running or ended."""
        return [self._registry.fresh(record) for record in self._state.scan()[0]]

    def problems(self) -> list[Problem]:
        """Unusable records: damaged, or of a newer llmtop. They are not changed."""
        return self._state.scan()[1]

    @property
    def names(self) -> list[str]:
        """The names of all recorded engines."""
        return [record.name for record in self._state.scan()[0]]

    def find(self, name: str) -> EngineRecord:
        """The engine of this name. UsageError, which lists the known names, if there is none."""
        check_name(name)
        record = self._state.load(name)
        if record is not None:
            return self._registry.fresh(record)
        import difflib  # the recorder never needs it

        names = self.names
        near = difflib.get_close_matches(name, names, n=1)
        meant = f"did you mean {near[0]!r}? " if near else ""
        known = f"there are: {', '.join(names)}" if names else "start one with: llmtop run"
        raise UsageError(f"there is no engine named {name!r}", meant + known)

    def launch(
        self, spec: LaunchSpec, *, origin: LaunchContext | None = None, replaces: str | None = None
    ) -> EngineRecord:
        """Start an engine; returns once it runs and is recorded, long before it is ready.

        origin: the engine that it replaces; it gets the same environment and folder.
        replaces: the engine whose name it will take over (``rename``).
        UsageError: unknown kind, bad name, port or model path. LaunchRefused: the name or the port
        is taken, or the program does not exist. NameBusy: another llmtop starts that name now.
        StateError: nothing can be written. LaunchFailed: it cannot be executed. After each of
        these errors nothing is left running.
        """
        adapter = self.adapter(spec)
        environ, folder = surroundings(origin, self._environ)
        # A llmtop that restarts an engine also watches it, and holds the lock for moments.
        with self._state.lock(spec.name, wait_s=0.0 if origin is None else LOCK_WAIT_S):
            vacate(
                spec.name,
                self._state,
                self._processes,
                monotonic=self._monotonic,
                sleep=self._sleep,
            )
            record = start_engine(
                spec,
                adapter,
                [one for one in self._state.scan()[0] if self._processes.alive(identity(one))],
                state=self._state,
                processes=self._processes,
                environ=environ,
                clock=self._clock,
                folder=folder,
                replaces=replaces,
            )
        pairs = (f"{name}={value}" for name, value in spec.environment)
        self._secrets[spec.name] = secrets_in((*spec.program, *spec.args, *pairs))
        if origin is None:
            self.restart_journal.end(spec.name)
            temporary_changes.drop(self._state, spec.name)
        self._launched()
        return record

    def check(self, spec: LaunchSpec, origin: LaunchContext | None = None) -> None:
        """Raise the errors of ``launch`` that can be found while the port is still taken."""
        prepare(spec, self.adapter(spec), self._state, *surroundings(origin, self._environ))

    def adapter(self, spec: LaunchSpec) -> Adapter:
        """The adapter of this kind. UsageError for an unknown kind or an invalid name."""
        check_name(spec.name)
        adapter = self._adapters.get(spec.kind)
        if adapter is None:
            raise UsageError(
                f"{clean(spec.kind)!r} is not an engine that llmtop knows",
                f"it knows: {', '.join(sorted(self._adapters))}",
            )
        return adapter

    def origin(self, record: EngineRecord) -> LaunchContext:
        """The launch context of an engine; after an interrupted restart, the last good one.

        LlmtopError when its secrets are no longer available.
        """
        cut = None if self.ready(record) else self.restart_journal.cut_short(record.name)
        return before_restart(record, cut, alive=self.alive(record))

    def alive(self, record: EngineRecord) -> bool:
        """Whether the process of a record still runs."""
        return self._processes.alive(identity(record))

    def ready(self, record: EngineRecord) -> bool:
        """Whether it runs and was ready, even if the given record is older."""
        return self.alive(record) and self._registry.fresh(record).ready_at is not None

    def expected_startup_s(self, record: EngineRecord) -> float | None:
        """The duration of this engine's last start; None without one."""
        known = record.startup_s or record.previous_startup_s
        return known or self._state.startups.seconds(startup_key(record.spec))

    def rename(self, record: EngineRecord, name: str) -> EngineRecord:
        """Give a running engine the name of an ended one. Its log and record move too."""
        with (
            self._state.lock(name, wait_s=LOCK_WAIT_S),
            self._state.lock(record.name, wait_s=LOCK_WAIT_S),
        ):
            renamed = self._state.rename(self._state.load(record.name) or record, name)
        self._secrets[name] = self._secrets.pop(record.name, ())
        self._status.forget(record.name)
        return renamed

    def forget(self, record: EngineRecord) -> None:
        """Delete the record of an engine that has ended."""
        with self._state.lock(record.name, wait_s=LOCK_WAIT_S):
            self._state.discard(record.name)

    def wait_ready(
        self,
        record: EngineRecord,
        timeout_s: float,
        on_phase: Callable[[EngineStatus], None] | None = None,
    ) -> EngineStatus:
        """Wait until an engine is ready. on_phase: called with each new state or phase.

        LaunchFailed with the cause when it ends, or after ``timeout_s`` seconds (it then keeps
        running: the caller decides).
        """
        return wait_ready(
            record,
            self.status,
            timeout_s,
            on_phase,
            monotonic=self._monotonic,
            sleep=self._sleep,
        )

    def status(self, record: EngineRecord) -> EngineStatus:
        """The present status of an engine. Call it once a second; it takes at most a second.

        The end of an engine once takes longer: remaining processes are ended and the log is read.
        Records its findings: that it became ready, that it ended, and why. It never raises, for any
        state of an engine or its record file.
        """
        return self.restart_journal.annotate(self._status.read(record))

    def stop(
        self,
        record: EngineRecord,
        grace_s: float = GRACE_S,
        on_note: Callable[[str], None] | None = None,
    ) -> EngineRecord:
        """Stop an engine. Returns its record when no process of it is left.

        It also waits some seconds for its GPU memory. on_note: called when it stays in use.

        SIGTERM, ``grace_s`` seconds, SIGKILL for the remaining processes. For an ended engine it
        cleans up. StopFailed when a process survives SIGKILL. UsageError when the name now belongs
        to another engine.
        """
        asked, record = record, self._registry.fresh(record)
        if asked.pid != 0 and identity(asked) != identity(record):
            raise UsageError(
                f"{record.name!r} was started again: it is no longer the same engine",
                "check llmtop ps, then stop it",
            )
        leader = identity(record)
        refuse_foreign(record.name, leader, self._processes)
        self.restart_journal.drop(record.name)
        if not self._processes.alive(leader) and record.stop_requested_at is None:
            record = self.status(record).record  # record an earlier end before the stop
        if record.ended_at is None and record.stop_requested_at is None:
            now = self._clock()
            record = self._registry.update(
                record,
                lambda r: r if r.stop_requested_at else replace(r, stop_requested_at=now),
            )
        held = self._held(record)
        end_wholly(
            record.name,
            self._processes,
            leader,
            Path(record.log_path),
            grace_s=grace_s,
            monotonic=self._monotonic,
            sleep=self._sleep,
        )
        remove_socket(record.live_socket)
        record = self._postmortem.verdict(self._postmortem.ended(record, self._clock())).record
        if held is not None and self._gpu_memory is not None:
            still = self._gpu_memory.wait_back(held)
            if still and on_note is not None:
                on_note(f"{record.name}: {still}")
        return record

    def members(self) -> dict[int, str]:
        """The engine name of each pid of llmtop's running engines."""
        return {
            one.pid: record.name
            for record in self.records()
            if self._processes.alive(identity(record))
            for one in self._processes.members(identity(record), Path(record.log_path))
        }

    def crowding(self, spec: LaunchSpec) -> tuple[str, ...]:
        """A sentence for each GPU of a launch whose memory is not free, with the processes."""
        adapter = self._adapters.get(spec.kind)
        if self._gpu_memory is None or adapter is None or adapter.simulated:
            return ()
        return crowding_before(self._gpu_memory, adapter, spec, self._environ, self.members)

    def learn(self, record: EngineRecord, version: str) -> EngineRecord:
        """Record the version that a running engine reports."""
        return self._registry.update(record, lambda r: replace(r, version=clean(version)))

    def memory_report(self, record: EngineRecord) -> MemoryReport | None:
        """The GPU memory that a running engine reported at its start; None if unknown.

        Reads some MiB of its log, so call it once for each engine.
        """
        adapter, log = self._adapters.get(record.spec.kind), Path(record.log_path)
        if adapter is None:
            return None
        found = read_memory_report(
            log, record.started_at, adapter.memory, simulated=record.simulated
        )
        if found is None or self._gpu_memory is None or not self._gpu_memory.host_pids:
            return found
        pids = tuple(one.pid for one in self._processes.members(identity(record), log))
        return replace(found, pids=pids)

    def _held(self, record: EngineRecord) -> HeldMemory | None:
        if self._gpu_memory is None or record.simulated:
            return None
        members = self._processes.members(identity(record), Path(record.log_path))
        return self._gpu_memory.before_stop([one.pid for one in members]) if members else None

    def _holders(self, record: EngineRecord) -> str:
        return "; ".join(self.crowding(record.spec))
