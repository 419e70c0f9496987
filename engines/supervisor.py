"""The supervisor: starts engines, adopts them, tells how they are, stops them, says why they died.

Synchronous and safe to call from several threads. Engines outlive it: it may end at any moment,
and the next one goes on from the state directory.
"""

from __future__ import annotations

import contextlib
import difflib
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path

from llmtop import LlmtopError, UsageError
from llmtop.engines import loans, logs
from llmtop.engines.adapter import Adapter
from llmtop.engines.anatomy import Anatomy, read_anatomy
from llmtop.engines.ending import end_wholly, remove_socket
from llmtop.engines.gpu_memory import GpuMemory, Held, chosen_gpus
from llmtop.engines.intents import Intents
from llmtop.engines.launch import LaunchFailed, prepare, start_engine, vacate
from llmtop.engines.origin import Origin, before_restart, surroundings
from llmtop.engines.postmortem import Postmortem
from llmtop.engines.probe import KeptProbe, Probe
from llmtop.engines.processes import Processes
from llmtop.engines.records import EngineRecord, EngineStatus, LaunchSpec, State
from llmtop.engines.redaction import secrets_in
from llmtop.engines.roster import Roster
from llmtop.engines.state import Problem, StateDirectory, check_name
from llmtop.engines.watch import Watch, identity
from llmtop.values import replace

GRACE_S = 10.0
LOCK_WAIT_S = 2.0
_BEAT_S = 0.2
_AT_ONCE_S = 2.0  # ready at the first look: so young that its age is its start-up time
_OVER = (State.STOPPED, State.FAILED, State.LOST)


class Supervisor:
    """The one owner of engine processes.

    state: where engines are remembered. adapters: by kind. environ: what engines inherit. probe:
    (url, seconds) -> HTTP status or None. clock: unix seconds; monotonic: for durations.
    gpu_memory: None where nobody looks at GPUs.
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
    ) -> None:
        self._state = state
        self._adapters = adapters
        self._environ = environ
        self._clock = clock
        self._monotonic = monotonic
        self._sleep = sleep
        self._processes = processes if processes is not None else Processes()
        self._probe = probe if probe is not None else KeptProbe()
        self._gpu_memory = gpu_memory
        self._roster = Roster(state, self._processes, clock)
        self.intents = Intents(state, self._processes, clock)
        self._watches: dict[str, Watch] = {}
        self._secrets: dict[str, tuple[str, ...]] = {}
        self._dead = Postmortem(
            self._roster,
            self._processes,
            adapters,
            self._secrets,
            clock=clock,
            monotonic=monotonic,
            sleep=sleep,
            holders=self._holders,
        )
        self._lock = threading.Lock()

    def records(self) -> list[EngineRecord]:
        """Every engine that is remembered, by name, whatever became of it."""
        return [self._roster.fresh(record) for record in self._state.scan()[0]]

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
            return self._roster.fresh(record)
        names = self.names
        near = difflib.get_close_matches(name, names, n=1)
        meant = f"did you mean {near[0]!r}? " if near else ""
        known = f"there are: {', '.join(names)}" if names else "start one with: llmtop run"
        raise UsageError(f"there is no engine named {name!r}", meant + known)

    def launch(
        self, spec: LaunchSpec, *, origin: Origin | None = None, replaces: str | None = None
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
            self.intents.end(spec.name)
            loans.drop(self._state, spec.name)
        return record

    def check(self, spec: LaunchSpec, origin: Origin | None = None) -> None:
        """Raise what ``launch`` would, as far as it can be told while the port is still taken."""
        prepare(spec, self.adapter(spec), self._state, *surroundings(origin, self._environ))

    def adapter(self, spec: LaunchSpec) -> Adapter:
        """The adapter of this kind. UsageError when there is none, or the name cannot be one."""
        check_name(spec.name)
        adapter = self._adapters.get(spec.kind)
        if adapter is None:
            raise UsageError(
                f"{logs.clean(spec.kind)!r} is not an engine that llmtop knows",
                f"it knows: {', '.join(sorted(self._adapters))}",
            )
        return adapter

    def origin(self, record: EngineRecord) -> Origin:
        """How an engine was really started; of one whose restart was cut short, the last good one.

        LlmtopError when its secrets cannot be had any more.
        """
        cut = None if self.ready(record) else self.intents.cut_short(record.name)
        return before_restart(record, cut, alive=self.alive(record))

    def alive(self, record: EngineRecord) -> bool:
        """Whether the very process that a record speaks of still runs."""
        return self._processes.alive(identity(record))

    def ready(self, record: EngineRecord) -> bool:
        """Whether it runs and was ready; who asks may have its record from before that."""
        return self.alive(record) and self._roster.fresh(record).ready_at is not None

    def expected_startup_s(self, record: EngineRecord) -> float | None:
        """How long a start of this engine takes, by its last one; None when none was timed."""
        known = record.startup_s or record.previous_startup_s
        return known or self._state.startup_s(record.spec.kind, record.spec.model)

    def rename(self, record: EngineRecord, name: str) -> EngineRecord:
        """Give a running engine the name of one that has ended. Its log and its record go along."""
        with (
            self._state.lock(name, wait_s=LOCK_WAIT_S),
            self._state.lock(record.name, wait_s=LOCK_WAIT_S),
        ):
            renamed = self._state.rename(self._state.load(record.name) or record, name)
        self._secrets[name] = self._secrets.pop(record.name, ())
        with self._lock:
            self._watches.pop(record.name, None)
        return renamed

    def forget(self, record: EngineRecord) -> None:
        """Let go of the record of an engine that has ended and that nobody will ask for again."""
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
        (it is then left as it is: whoever asked decides).
        """
        deadline = self._monotonic() + timeout_s
        told: tuple[State, str] | None = None
        while True:
            status = self.status(record)
            if on_phase is not None and told != (status.state, status.phase):
                told = (status.state, status.phase)
                on_phase(status)
            if status.state is State.READY:
                return status
            to_read = f"read its log: llmtop logs {record.name}"
            if status.state in _OVER:
                raise LaunchFailed(
                    f"{record.name!r} did not start: {status.phase or 'it was stopped'}",
                    status.record.advice or to_read,
                    self._dead.excerpt(status.record),
                )
            if self._monotonic() >= deadline:
                doing = f" ({status.phase})" if status.phase else ""
                raise LaunchFailed(
                    f"{record.name!r} is not ready after {timeout_s:.0f} s{doing}", to_read
                )
            self._sleep(_BEAT_S)

    def status(self, record: EngineRecord) -> EngineStatus:
        """What is true of an engine now; meant for once a second, takes about one at most.

        A death takes longer, once: its leftovers are ended and its log is read. Writes down what
        it finds: that it became ready, that it ended and why. Never raises for what an engine or
        its record file may be like.
        """
        return self.intents.told(self._look(record))

    def _look(self, record: EngineRecord) -> EngineStatus:
        record = self._roster.fresh(record)
        if record.pid == 0 and record.ended_at is None:
            return EngineStatus(record, State.STARTING, record.started_at, "being launched")
        watch = self._watch(record)
        with watch.lock:
            if record.ended_at is not None:
                return self._dead.verdict(record)
            seen = watch.look(record)
            if seen is None:
                return self._dead.examine(record, watch)
            state, words = seen
            if state is State.READY and record.ready_at is None:
                record = self._became_ready(record, watch)
            log = Path(record.log_path)
            if logs.outgrown(log):
                # Under the lock: two who cut the log at once would lose a part of it.
                with contextlib.suppress(LlmtopError), self._state.lock(record.name):
                    logs.rotate(log)
            steps = watch.steps if state is State.STARTING else ()
            return EngineStatus(record, state, watch.since, words, steps)

    def stop(
        self,
        record: EngineRecord,
        grace_s: float = GRACE_S,
        on_note: Callable[[str], None] | None = None,
    ) -> EngineRecord:
        """Stop an engine and return its record once no process of it is left.

        Its GPU memory is waited for too, some seconds at most; on_note: told when it stays away.

        SIGTERM, ``grace_s`` seconds, SIGKILL for all that remains. Stopping one that has ended
        cleans up behind it. StopFailed when even SIGKILL does not end a process. UsageError when
        the name belongs to another engine by now.
        """
        asked, record = record, self._roster.fresh(record)
        if asked.pid != 0 and identity(asked) != identity(record):
            raise UsageError(
                f"{record.name!r} is no longer the engine that was meant: it was started anew",
                "look again, then stop it",
            )
        self.intents.drop(record.name)
        leader = identity(record)
        if not self._processes.alive(leader) and record.stop_requested_at is None:
            record = self.status(record).record  # why it ended comes before who asked
        if record.ended_at is None and record.stop_requested_at is None:
            now = self._clock()
            record = self._roster.update(
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
        record = self._dead.verdict(self._dead.ended(record, self._clock())).record
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
        # Its flags alone: the command as a whole may need what only a launch has.
        told = adapter.launch_options(spec.args)
        share = told.get("gpu_memory_utilization")
        parts = told.get("tensor_parallel_size") or told.get("tp_size")
        wanted = chosen_gpus(spec, parts, self._environ)
        return self._gpu_memory.crowding(
            wanted, self.members, share if isinstance(share, float) else None
        )

    def learn(self, record: EngineRecord, version: str) -> EngineRecord:
        """Keep the version that a running engine told."""
        return self._roster.update(record, lambda r: replace(r, version=logs.clean(version)))

    def anatomy(self, record: EngineRecord) -> Anatomy | None:
        """What a running engine told of its GPU memory at its start; None when nothing is known.

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

    def _held(self, record: EngineRecord) -> Held | None:
        if self._gpu_memory is None or record.simulated:
            return None
        members = self._processes.members(identity(record), Path(record.log_path))
        return self._gpu_memory.before_stop([one.pid for one in members]) if members else None

    def _holders(self, record: EngineRecord) -> str:
        return "; ".join(self.crowding(record.spec))

    def _watch(self, record: EngineRecord) -> Watch:
        with self._lock:
            watch = self._watches.get(record.name)
            if watch is None or watch.leader != identity(record):
                adapter = self._adapters.get(record.spec.kind)
                watch = self._watches[record.name] = Watch(
                    record,
                    adapter.phases if adapter else (),
                    adapter.ready_path if adapter else "/health",
                    processes=self._processes,
                    probe=self._probe,
                    clock=self._clock,
                    monotonic=self._monotonic,
                    phases_before=self._state.startup_phases(record.spec.kind, record.spec.model),
                )
            return watch

    def _became_ready(self, record: EngineRecord, watch: Watch) -> EngineRecord:
        now = self._clock()
        # Only who saw it start knows how long that took: an adopted one may be ready for hours.
        age = self._processes.age_s(watch.leader)
        took = age if watch.seen_starting or age < _AT_ONCE_S else None
        if took is not None:
            timed = {step.word: step.took_s for step in watch.steps if step.took_s is not None}
            whole = len(timed) == len(watch.steps)
            self._state.remember_startup(
                record.spec.kind, record.spec.model, took, timed if whole else None
            )
        return self._roster.update(
            record, lambda r: r if r.ready_at else replace(r, ready_at=now, startup_s=took)
        )
