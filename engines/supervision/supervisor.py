"""The supervisor: starts, adopts and stops engines, and reports their status and why they ended.

Synchronous and safe to call from several threads. Engines outlive it: it may end at any moment,
and the next one continues from the state directory.
"""

from __future__ import annotations

import difflib
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
from llmtop.engines.logs.memory_report import MemoryReport, read_anatomy
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
    """The one owner of engine processes.

    state: where engines are remembered. adapters: by kind. environ: what engines inherit. probe:
    (url, seconds) -> HTTP status or None. clock: unix seconds; monotonic: for durations.
    gpu_memory: None where nobody looks at GPUs. trusts: whom encrypted connections believe; each
    engine's own certificate is added. launched: called after each start of an engine.
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
        """Records that cannot be used: damaged, or a newer llmtop's. They are left as they are."""
        return self._state.scan()[1]

    @property
    def names(self) -> list[str]:
        """The names of all engines that are remembered."""
        return [record.name for record in self._state.scan()[0]]

    def find(self, name: str) -> EngineRecord:
        """The engine of this name. UsageError, naming those there are, when there is none."""
        check_name(name)
        record = self._state.load(name)
        if record is not None:
            return self._registry.fresh(record)
        names = self.names
        near = difflib.get_close_matches(name, names, n=1)
        meant = f"did you mean {near[0]!r}? " if near else ""
        known = f"there are: {', '.join(names)}" if names else "start one with: llmtop run"
        raise UsageError(f"there is no engine named {name!r}", meant + known)

    def launch(
        self, spec: LaunchSpec, *, origin: LaunchContext | None = None, replaces: str | None = None
    ) -> EngineRecord:
        """Start an engine; returns once it runs and is recorded, long before it is ready.

        origin: the engine that it is started instead of, whose environment and folder it gets.
        replaces: the engine whose name it will take over (``rename``).
        UsageError: unknown kind, bad name, port or model path. LaunchRefused: the name or the port
        is taken, or there is no such program. NameBusy: another llmtop is just starting that name.
        StateError: nothing can be written. LaunchFailed: it cannot be executed. After any of
        these nothing is left running.
        """
        adapter = self.adapter(spec)
        environ, folder = surroundings(origin, self._environ)
        # Who restarts an engine is watching it too, and holds the name for moments.
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
        """Raise what ``launch`` would, as far as is known while the port is still taken."""
        prepare(spec, self.adapter(spec), self._state, *surroundings(origin, self._environ))

    def adapter(self, spec: LaunchSpec) -> Adapter:
        """The adapter of this kind. UsageError when there is none, or the name cannot be one."""
        check_name(spec.name)
        adapter = self._adapters.get(spec.kind)
        if adapter is None:
            raise UsageError(
                f"{clean(spec.kind)!r} is not an engine that llmtop knows",
                f"it knows: {', '.join(sorted(self._adapters))}",
            )
        return adapter

    def origin(self, record: EngineRecord) -> LaunchContext:
        """How an engine was really started; of one whose restart was cut short, the last good one.

        LlmtopError when its secrets cannot be had any more.
        """
        cut = None if self.ready(record) else self.restart_journal.cut_short(record.name)
        return before_restart(record, cut, alive=self.alive(record))

    def alive(self, record: EngineRecord) -> bool:
        """Whether the very process that a record speaks of still runs."""
        return self._processes.alive(identity(record))

    def ready(self, record: EngineRecord) -> bool:
        """Whether it runs and was ready; who asks may have its record from before that."""
        return self.alive(record) and self._registry.fresh(record).ready_at is not None

    def expected_startup_s(self, record: EngineRecord) -> float | None:
        """How long a start of this engine takes, by its last one; None when none was timed."""
        known = record.startup_s or record.previous_startup_s
        return known or self._state.startups.seconds(startup_key(record.spec))

    def rename(self, record: EngineRecord, name: str) -> EngineRecord:
        """Give a running engine the name of one that has ended. Its log and its record go along."""
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

        LaunchFailed with the cause when it ends instead, or when ``timeout_s`` seconds are over
        (it then keeps running: the caller decides).
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
        """The status of an engine now. Call it once a second; takes one second at most.

        An end takes longer, once: remaining processes are ended and the log is read. Records what
        it finds: that it became ready, that it ended and why. Never raises for what an engine or
        its record file may be like.
        """
        return self.restart_journal.annotate(self._status.read(record))

    def stop(
        self,
        record: EngineRecord,
        grace_s: float = GRACE_S,
        on_note: Callable[[str], None] | None = None,
    ) -> EngineRecord:
        """Stop an engine and return its record once no process of it is left.

        Its GPU memory is waited for too, some seconds at most; on_note: called when it stays used.

        SIGTERM, ``grace_s`` seconds, SIGKILL for all that remains. Stopping one that has ended
        cleans up behind it. StopFailed when even SIGKILL does not end a process. UsageError when
        the name belongs to another engine by now.
        """
        asked, record = record, self._registry.fresh(record)
        if asked.pid != 0 and identity(asked) != identity(record):
            raise UsageError(
                f"{record.name!r} was started again: it is not the same engine any more",
                "check llmtop ps, then stop it",
            )
        leader = identity(record)
        refuse_foreign(record.name, leader, self._processes)
        self.restart_journal.drop(record.name)
        if not self._processes.alive(leader) and record.stop_requested_at is None:
            record = self.status(record).record  # why it ended comes before who asked
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
        """The name of the engine behind each pid of a living engine of llmtop."""
        return {
            one.pid: record.name
            for record in self.records()
            if self._processes.alive(identity(record))
            for one in self._processes.members(identity(record), Path(record.log_path))
        }

    def crowding(self, spec: LaunchSpec) -> tuple[str, ...]:
        """A sentence for each GPU of a launch whose memory is not free, naming who holds it."""
        adapter = self._adapters.get(spec.kind)
        if self._gpu_memory is None or adapter is None or adapter.simulated:
            return ()
        return crowding_before(self._gpu_memory, adapter, spec, self._environ, self.members)

    def learn(self, record: EngineRecord, version: str) -> EngineRecord:
        """Record the version that a running engine reports."""
        return self._registry.update(record, lambda r: replace(r, version=clean(version)))

    def anatomy(self, record: EngineRecord) -> MemoryReport | None:
        """What a running engine reported of its GPU memory at its start; None when unknown.

        Reads a few MiB of its log: once an engine is enough.
        """
        adapter, log = self._adapters.get(record.spec.kind), Path(record.log_path)
        if adapter is None:
            return None
        found = read_anatomy(log, record.started_at, adapter.memory, simulated=record.simulated)
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
