"""One living engine, looked at again and again: is it up, does it answer, what is it doing?"""

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
_LATE_S = 5.0  # a start is looked at within a second; a later look did not see it begin
SILENCE_S = 3.0  # how long an engine may owe an answer before it counts as unresponsive
_FAMILY_S = 30.0  # an engine that is ready keeps its processes, and a scan of /proc is dear
_MODELS = "/v1/models"
_THERE = (200, 401, 403)
_TITLE = 40  # characters of a process's title


class Watch:
    """What this llmtop remembers of one engine from look to look. One look at a time (``lock``).

    seen: it was seen alive. seen_starting: it was seen before it was ready, so the moment at which
    it became ready is known. lost: it is known to be gone, and that nobody knows how.
    phases_before: seconds that each phase took at this model's last start.
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
        """Its state now and a few words on it, None when its process has ended.

        READY with a record that has no ``ready_at`` means: it has become ready just now.
        Takes as long as the probe, a second at most.
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
        """Unix seconds at which the state of the last look began, as far as is known."""
        return self._since

    @property
    def steps(self) -> tuple[Step, ...]:
        """The phases that the start has gone through, as far as it was watched."""
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
        """The child that a signal holds, as the beginning of a sentence; "" when none is held.

        The front end of vLLM and of SGLang answers 200 for as long as its engine process is there,
        whether or not that does anything.
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
        """Why it does not count as answering, None when it does.

        Only its own process on its own port counts: another server there would answer as well.
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
            status = 200  # a build without that path, and it serves its models
        if status != 200:
            return f"{path} answers {status}"
        self._answered_at = self._monotonic()
        return None

    def _pids(self) -> Iterator[int]:
        # A generator, so that /proc is scanned only once somebody listens on the port.
        for member in self._processes.members(self.leader, self._log):
            yield member.pid
