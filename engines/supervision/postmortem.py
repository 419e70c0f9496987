"""Finds once why and how an engine ended, and records it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from llmtop.engines.core.adapter import Adapter
from llmtop.engines.core.records import EngineRecord, EngineStatus, State
from llmtop.engines.gpu.memory_guard import about_memory
from llmtop.engines.host.log_reader import tail
from llmtop.engines.host.processes import Processes, identity
from llmtop.engines.host.redaction import hide
from llmtop.engines.host.termination import end_orphans, remove_socket
from llmtop.engines.logs.startup import run_lines
from llmtop.engines.supervision.health import Watch
from llmtop.engines.supervision.registry import EngineRegistry
from llmtop.values import replace

if TYPE_CHECKING:
    from llmtop.engines.failures.table import Explanation

_STOPPING_S = 30.0  # another llmtop has so long to finish its stop
_LAST_LINES = 5
_LINE_CHARS = 400  # of a line of an excerpt in a record
_UNSEEN = "it has ended while llmtop did not watch it"


class Postmortem:
    """Examines engines whose process has ended. secrets: by engine, never shown.

    holders: the processes that hold memory of an engine's GPUs now, in words.
    """

    def __init__(
        self,
        registry: EngineRegistry,
        processes: Processes,
        adapters: Mapping[str, Adapter],
        secrets: Mapping[str, Sequence[str]],
        *,
        clock: Callable[[], float],
        monotonic: Callable[[], float],
        sleep: Callable[[float], None],
        holders: Callable[[EngineRecord], str],
    ) -> None:
        self._holders = holders
        self._registry = registry
        self._processes = processes
        self._adapters = adapters
        self._secrets = secrets
        self._clock = clock
        self._monotonic = monotonic
        self._sleep = sleep

    def examine(self, record: EngineRecord, watch: Watch) -> EngineStatus:
        """Find the reason after the process has ended, and end its remaining children."""
        leader, log, now = watch.leader, Path(record.log_path), self._clock()
        asked = record.stop_requested_at
        if (
            asked is not None
            and abs(now - asked) < _STOPPING_S
            and self._processes.members(leader, log)
        ):
            return EngineStatus(record, State.STOPPING, asked)
        orphans = end_orphans(
            self._processes, leader, log, monotonic=self._monotonic, sleep=self._sleep
        )
        remove_socket(record.live_socket)
        if record.boot_id != self._processes.boot_id and asked is None:
            return EngineStatus(record, State.LOST, None, "the machine was restarted")
        if watch.lost:
            return EngineStatus(record, State.LOST, None, _UNSEEN)
        code = record.exit_code
        if code is None:
            code = self._processes.exit_code(leader)
        sudden = bool(orphans) and code is None
        found = self.explain(record, sudden=sudden) if asked is None else None
        if found is None and asked is None and sudden:
            found = _killed(orphans)
        if found is not None and about_memory((found.cause, *found.excerpt)):
            found = replace(
                found, advice="; ".join(w for w in (found.advice, self._holders(record)) if w)
            )
        witnessed = watch.seen or orphans or self._processes.exit_code(leader) is not None
        if not witnessed and asked is None and found is None:
            watch.lost = True
            return EngineStatus(record, State.LOST, None, _UNSEEN)
        return self.verdict(self.ended(record, now if witnessed else _written(log, now), found))

    def ended(
        self, record: EngineRecord, when: float, found: Explanation | None = None
    ) -> EngineRecord:
        """Record that an engine has ended, and when; the exit code if it was a child of ours."""
        code = self._processes.exit_code(identity(record))

        def change(newest: EngineRecord) -> EngineRecord:
            if newest.ended_at is None:
                newest = replace(newest, ended_at=when)
                if newest.stop_requested_at is None:
                    # With any code: vLLM exits with 0 when its engine core has died.
                    how = f"with exit code {code}" if code is not None else "unseen"
                    newest = replace(
                        newest,
                        cause=found.cause if found else f"it ended by itself {how}",
                        advice=found.advice if found else "",
                        excerpt=self._shown(newest, found),
                    )
            return newest if code is None else replace(newest, exit_code=code)

        record = self._registry.update(record, change)
        self._processes.forget(identity(record))
        return record

    def verdict(self, record: EngineRecord) -> EngineStatus:
        """The status of an engine whose end is recorded."""
        if record.ended_at is None:
            # A restart took the name during this examination: the next check examines the new one.
            state = State.STARTING if record.ready_at is None else State.READY
            return EngineStatus(record, state, record.ready_at or record.started_at)
        if record.exit_code is None and record.pid != 0:
            # Another llmtop recorded the end first. Only the parent knows the exit code.
            code = self._processes.exit_code(identity(record))
            if code is not None:
                record = self.ended(record, record.ended_at or self._clock())
        state = State.FAILED if record.stop_requested_at is None else State.STOPPED
        return EngineStatus(record, state, record.ended_at, record.cause or "")

    def explain(self, record: EngineRecord, *, sudden: bool = False) -> Explanation | None:
        """Why an engine ended, with the log lines around the cause; None without a report.

        sudden: as in ``failures.explain``.
        """
        from llmtop.engines.failures.table import explain  # long tables, needed only after an end

        exit_code = record.exit_code
        if exit_code is None:
            exit_code = self._processes.exit_code(identity(record))
        adapter = self._adapters.get(record.spec.kind)
        lines = run_lines(Path(record.log_path), record.started_at)
        # Engines print their own arguments.
        secrets = self._secrets.get(record.name, ())
        shown = (hide(line, secrets) for line in lines) if secrets else lines
        # Only an engine that served can have survived an error.
        sudden = sudden and record.ready_at is not None
        return explain(
            shown,
            adapter.failures if adapter else (),
            exit_code,
            sudden=sudden,
            pid=record.pid,
            words={
                **(adapter.failure_words if adapter else {}),
                "log": f"llmtop logs {record.name}",
            },
        )

    def _shown(self, record: EngineRecord, found: Explanation | None) -> tuple[str, ...]:
        """The log lines that explain the end best: around the cause, else the last ones."""
        lines = found.excerpt if found is not None else ()
        if not lines:
            secrets = self._secrets.get(record.name, ())
            last = tail(Path(record.log_path), _LAST_LINES)
            lines = tuple(hide(line, secrets) for line in last)
        return tuple(line[:_LINE_CHARS] for line in lines)


def _killed(left: int) -> Explanation:
    """The explanation for a main process with an unknown end whose children continued."""
    rest = "another process" if left == 1 else f"{left} other processes"
    from llmtop.engines.failures.table import Explanation

    return Explanation(
        f"its main process ended while {rest} of it continued (ended now): it was probably killed",
        "not by llmtop: dmesg shows whether the kernel killed it for lack of memory",
    )


def _written(log: Path, otherwise: float) -> float:
    """The time of the last write to a log: the best estimate of an unobserved end."""
    try:
        return log.stat().st_mtime
    except OSError:
        return otherwise
