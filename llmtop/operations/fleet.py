"""Starts several engines, waits until they are ready, and stops them, in parallel."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor

from msgspec import Struct

from llmtop import LlmtopError
from llmtop.engines.core.records import EngineRecord, EngineStatus, LaunchSpec, State
from llmtop.engines.host.ports import next_free
from llmtop.engines.host.redaction import redact
from llmtop.engines.registry import ADAPTERS
from llmtop.engines.supervision.placement import crowded
from llmtop.engines.supervision.supervisor import Supervisor
from llmtop.values import replace

POLL_S = 0.2
ALIVE = (State.STARTING, State.READY, State.UNRESPONSIVE)
OVER = (State.STOPPED, State.FAILED, State.LOST)


class Outcome(Struct, frozen=True):
    """The result for one engine.

    word: "started", "already running", "stopped", "not running" or "failed". status: the current
    one; None for an engine that was never started. reason, hint: why it failed and what to try.
    excerpt: the log lines that show why.
    """

    name: str
    word: str
    status: EngineStatus | None = None
    reason: str = ""
    hint: str = ""
    excerpt: tuple[str, ...] = ()

    @property
    def failed(self) -> bool:
        """Whether the request failed."""
        return self.word == "failed"


class Fleet:
    """Starts and stops engines by their descriptions. The supervisor owns their processes.

    say: receives each line of progress. gpu_count: returns the number of GPUs; called only when it
    is needed. monotonic, sleep: seconds.
    """

    def __init__(
        self,
        supervisor: Supervisor,
        say: Callable[[str], None],
        *,
        gpu_count: Callable[[], int] = lambda: 0,
        monotonic: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._supervisor = supervisor
        self._say = say
        self._gpu_count = gpu_count
        self._monotonic = monotonic
        self._sleep = sleep

    def up(
        self, names: Sequence[str], describe: Callable[[str], LaunchSpec], timeout_s: float
    ) -> list[Outcome]:
        """Start those that do not run, and wait until each is ready or has failed.

        describe: returns an engine's description by name; may raise LlmtopError. A failure of one
        engine does not affect the others. Running engines are not changed. The outcomes are in the
        order of ``names``.
        """
        found: dict[str, Outcome] = {}
        waiting: dict[str, EngineRecord] = {}
        for name in names:
            try:
                now = self.living(name)
                if now is None:
                    record = self._launch(describe(name))
                    found[name] = Outcome(name, "started")
                    self._say(f"{name}: pid {record.pid}, {record.url}, log {record.log_path}")
                else:
                    record = now.record
                    found[name] = Outcome(name, "already running")
                    changed = self._changed(record, describe)
                    self._say(f"{name}: already running, pid {record.pid}, {record.url}{changed}")
                waiting[name] = record
            except LlmtopError as error:
                found[name] = Outcome(name, "failed", None, error.message, error.hint)
                self._say(f"{name}: failed: {error.message}")
        for line in self.crowds():
            self._say(f"warning: {line}")
        found |= self._wait(found, waiting, timeout_s)
        return [found[name] for name in names]

    def down(self, names: Sequence[str], grace_s: float) -> list[Outcome]:
        """Stop those that run, all at the same time. The outcomes are in the order of ``names``.

        grace_s: seconds between SIGTERM and SIGKILL.
        """
        if not names:
            return []
        with ThreadPoolExecutor(max_workers=len(names)) as pool:
            return list(pool.map(lambda name: self._stop(name, grace_s), names))

    def living(self, name: str) -> EngineStatus | None:
        """The status of the engine of this name; None if it does not run or is being stopped."""
        if name not in self._supervisor.names:
            return None
        status = self._supervisor.status(self._supervisor.find(name))
        return status if status.state in ALIVE else None

    def crowds(self) -> tuple[str, ...]:
        """A warning for each set of running engines that share a GPU."""
        specs = [one.spec for one in self._supervisor.records() if one.ended_at is None]
        simulated = {kind for kind, adapter in ADAPTERS.items() if adapter.simulated}
        real = [spec for spec in specs if spec.kind not in simulated]
        count = self._gpu_count() if len(real) > 1 and not all(s.gpus for s in real) else 0
        return crowded(specs, simulated, count)

    def _changed(self, record: EngineRecord, describe: Callable[[str], LaunchSpec]) -> str:
        try:
            spec = describe(record.name)
        except LlmtopError:  # an invalid description does not affect a running engine
            return ""
        again = f"`llmtop down {record.name}` and `up` apply it"
        return f"; the file now differs: {again}" if differs(record, spec) else ""

    def _launch(self, spec: LaunchSpec) -> EngineRecord:
        if not spec.port:
            records = self._supervisor.records()
            taken = {record.spec.port for record in records if record.ended_at is None}
            spec = replace(spec, port=next_free(spec.host, ADAPTERS[spec.kind].default_port, taken))
        return self._supervisor.launch(spec)

    def _wait(
        self, found: dict[str, Outcome], waiting: dict[str, EngineRecord], timeout_s: float
    ) -> dict[str, Outcome]:
        deadline = self._monotonic() + timeout_s
        reported: dict[str, tuple[State, str]] = {}
        known = {name for name, outcome in found.items() if outcome.word == "already running"}
        done: dict[str, Outcome] = {}
        left = dict(waiting)
        while left:
            for name, record in list(left.items()):
                status = self._supervisor.status(record)
                ready = status.state is State.READY
                phase = (status.state, status.phase)
                if reported.get(name) != phase and not (ready and name in known):
                    reported[name] = phase
                    self._say(f"{name}: {status.phase or status.state.value}")
                if ready:
                    done[name] = replace(found[name], status=status)
                elif status.state in OVER:
                    done[name] = self._failed(status)
                elif self._monotonic() >= deadline:
                    doing = f" ({status.phase})" if status.phase else ""
                    words = f"it is not ready after {timeout_s:g} s{doing}"
                    hint = f"it is still starting; read its log: llmtop logs {name}"
                    done[name] = Outcome(name, "failed", status, words, hint)
                if name in done:
                    del left[name]
            if left:
                self._sleep(POLL_S)
        return done

    def _failed(self, status: EngineStatus) -> Outcome:
        name = status.record.name
        words = f"it did not start: {status.phase or 'it was stopped'}"
        hint = status.record.advice or f"read its log: llmtop logs {name}"
        return Outcome(name, "failed", status, words, hint, status.record.excerpt)

    def _stop(self, name: str, grace_s: float) -> Outcome:
        try:
            if name not in self._supervisor.names:
                return Outcome(name, "not running")
            record = self._supervisor.find(name)
            status = self._supervisor.status(record)
            if status.state in OVER:
                return Outcome(name, "not running", status)
            stopped = self._supervisor.stop(status.record, grace_s=grace_s)
            self._say(f"{name} is stopped")
            return Outcome(name, "stopped", self._supervisor.status(stopped))
        except LlmtopError as error:
            self._say(f"{name}: failed: {error.message}")
            return Outcome(name, "failed", None, error.message, error.hint)


def differs(record: EngineRecord, spec: LaunchSpec) -> bool:
    """Whether a running engine has other settings than its description has now.

    Values of variables are not compared, because records do not contain them. The program is not
    compared either, because one program may have several paths.
    """
    runs = record.spec
    wanted = (spec.kind, spec.model, spec.host, spec.gpus, redact(spec.args), spec.api_key_file)
    same = (runs.kind, runs.model, runs.host, runs.gpus, runs.args, runs.api_key_file) == wanted
    names = {name for name, _ in spec.environment} <= set(record.env_names)
    return not (same and names and spec.port in (0, runs.port))
