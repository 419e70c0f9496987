"""Repeated checks of one running engine: alive, answering, and its start-up phase."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType

from llmtop.engines.core.adapter import Phase
from llmtop.engines.core.records import EngineRecord, State, Step
from llmtop.engines.host import ports
from llmtop.engines.host.log_reader import LogCursor
from llmtop.engines.host.processes import Identity, Processes, command_of, identity
from llmtop.engines.host.safe_text import brief
from llmtop.engines.logs.startup import StartupLog, run_start
from llmtop.http_client.probe import Probe

PROBE_TIMEOUT_S = 1.0
_LATE_S = 5.0  # llmtop checks its own starts within a second; a later first check missed the start
SILENCE_S = 3.0  # an engine that has not answered for longer is unresponsive
_FAMILY_S = 30.0  # a ready engine keeps its processes, and a scan of /proc is expensive
_MODELS = "/v1/models"
_THERE = (200, 401, 403)
_TITLE = 40  # characters of a process's title


class Watch:
    """The state of one engine between checks. One check at a time (``lock``).

    seen: it was observed alive. seen_starting: it was observed before it was ready, so the time of
    readiness is known. lost: it has ended in an unknown way.
    phases_before: duration of each phase at this model's last start, seconds.
    """

    def __init__(
        self,
        record: EngineRecord,
        phases: Sequence[Phase],
        ready_path: str,
        *,
        processes: Processes,
        probe: Probe,
        clock: Callable[[], float],
        monotonic: Callable[[], float],
        phases_before: Mapping[str, float] = MappingProxyType({}),
    ) -> None:
        self._phases_before = phases_before
        self.lock = threading.Lock()
        self.leader = identity(record)
        self.seen = False
        self.seen_starting = False
        self.lost = False
        self._ready_path = ready_path
        self._processes = processes
        self._probe = probe
        self._clock = clock
        self._monotonic = monotonic
        self._log = Path(record.log_path)
        self._startup = StartupLog(phases)
        self._cursor: LogCursor | None = None
        self._listener: ports.Listener | None = None
        self._answered_at: float | None = None
        self._family: list[Identity] = []
        self._counted_at: float | None = None
        self._state: State | None = None
        self._since: float | None = None

    def check(self, record: EngineRecord) -> tuple[State, str] | None:
        """Its present state and a note, None when its process has ended.

        READY with a record without ``ready_at`` means that it has just become ready.
        Takes as long as the probe, at most a second.
        """
        letter = self._processes.state(self.leader)
        if letter is None:
            return None
        self.seen = True
        state, words = self._judge(record, frozen=letter == "T")
        self.seen_starting = self.seen_starting or state is State.STARTING
        if state is not self._state:
            began = {
                State.STARTING: record.started_at,
                State.READY: record.ready_at,
                State.STOPPING: record.stop_requested_at,
            }.get(state)
            first = self._state is None
            self._since = began if first and began is not None else self._clock()
            self._state = state
        return state, words

    @property
    def since(self) -> float | None:
        """Unix seconds at which the state of the last check began, if known."""
        return self._since

    @property
    def steps(self) -> tuple[Step, ...]:
        """The observed phases of the start."""
        return self._startup.steps(self._clock(), self._phases_before)

    def _judge(self, record: EngineRecord, *, frozen: bool) -> tuple[State, str]:
        if record.stop_requested_at is not None:
            return State.STOPPING, ""
        if record.ready_at is None:
            late = False
            if self._cursor is None:
                start = run_start(self._log, record.started_at)
                self._cursor = LogCursor(self._log, start or 0)
                late = self._processes.age_s(self.leader) > _LATE_S
            self._startup.feed(self._cursor.read(), self._clock(), late=late)
            if frozen:
                return State.STARTING, "stopped by a signal (SIGSTOP)"
            if self._silence(record) is None:
                return State.READY, ""
            return State.STARTING, self._startup.phase
        held = "" if frozen else self._held_child()
        if frozen or held:
            return State.UNRESPONSIVE, f"{held}stopped by a signal (SIGSTOP)"
        silence = self._silence(record)
        patient = self._answered_at is not None and (
            self._monotonic() - self._answered_at <= SILENCE_S
        )
        if silence is None or patient:
            return State.READY, ""
        return State.UNRESPONSIVE, silence

    def _held_child(self) -> str:
        """A child process stopped by a signal, as the start of a sentence; "" for none.

        The front ends of vLLM and SGLang answer 200 while the engine process exists, even if it is
        stopped.
        """
        now = self._monotonic()
        if self._counted_at is None or now - self._counted_at >= _FAMILY_S:
            self._family = [
                one for one in self._processes.members(self.leader, self._log) if one != self.leader
            ]
            self._counted_at = now
        for one in self._family:
            if self._processes.state(one) == "T":
                title = brief(" ".join(command_of(one.pid)), _TITLE)
                return f"its process {title} (pid {one.pid}) is "
        return ""

    def _silence(self, record: EngineRecord) -> str | None:
        """Why it does not count as answering, None if it answers.

        Only its own process on its own port counts: another server could answer there.
        """
        port = record.spec.port
        if self._listener is None or not self._listener.held():
            self._listener = ports.listener(self._pids(), port)
        if self._listener is None:
            return f"it does not listen on port {port}"
        path = self._ready_path
        status = self._probe(record.url + path, PROBE_TIMEOUT_S)
        if status is None:
            return f"{path} does not answer within {PROBE_TIMEOUT_S:.0f} s"
        if status == 404 and self._probe(record.url + _MODELS, PROBE_TIMEOUT_S) in _THERE:
            status = 200  # a version without that path, which serves its models
        if status != 200:
            return f"{path} answers {status}"
        self._answered_at = self._monotonic()
        return None

    def _pids(self) -> Iterator[int]:
        # A generator, so that /proc is scanned only if a process listens on the port.
        for member in self._processes.members(self.leader, self._log):
            yield member.pid
