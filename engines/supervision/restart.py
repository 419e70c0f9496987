"""Restarts an engine with other arguments, and restores the last good ones on failure.

In place: stop, then start with the same name and port. Rolling: the new engine starts beside the
old one, on another port. When it is ready, clients move to it, the old one stops, and the new one
takes over the name. The port stays the new one, because clients cannot be moved back.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Collection, Iterable, Mapping
from pathlib import Path
from typing import ClassVar

from msgspec import Struct, field

from llmtop import LlmtopError, UsageError
from llmtop.engines.core.adapter import Adapter
from llmtop.engines.core.options import OptionValue
from llmtop.engines.core.records import EngineRecord, EngineStatus, LaunchSpec
from llmtop.engines.core.samples import GpuSample
from llmtop.engines.host.ports import next_free
from llmtop.engines.supervision.launch import LaunchFailed
from llmtop.engines.supervision.launch_context import LaunchContext
from llmtop.engines.supervision.supervisor import GRACE_S, Supervisor
from llmtop.engines.tuning.argv_editor import with_flags, with_options, without_flags
from llmtop.values import Secretive, replace

READY_TIMEOUT_S = 1800.0

EMPTY_SHARE = 0.02  # the driver keeps some hundred MiB of an unused GPU

OnPhase = Callable[[EngineStatus], None]
HandOver = Callable[[EngineRecord], None]


class Wanted(Secretive, frozen=True):
    """The requested differences.

    changes: option values by name. flags: arguments that replace those of the same flags. gpus:
    other GPUs, () for the same. without: flags to remove, each with its values.
    """

    secret: ClassVar[tuple[str, ...]] = ("flags",)

    changes: Mapping[str, OptionValue] = field(default_factory=dict)
    flags: tuple[str, ...] = ()
    gpus: tuple[int, ...] = ()
    without: tuple[str, ...] = ()

    def spec(self, adapter: Adapter, origin: LaunchContext) -> LaunchSpec:
        """The new launch. UsageError if the engine's arguments cannot express it."""
        kept = without_flags(origin.spec.args, self.without, adapter.long_flag)
        args = with_options(adapter, kept, self.changes)
        gpus = self.gpus or origin.spec.gpus
        return replace(origin.spec, args=with_flags(args, self.flags), gpus=gpus)


def carry_out(
    supervisor: Supervisor,
    record: EngineRecord,
    wanted: Wanted,
    hand_over: HandOver | None = None,
    *,
    grace_s: float = GRACE_S,
    ready_timeout_s: float = READY_TIMEOUT_S,
    on_phase: OnPhase | None = None,
) -> Restarted:
    """Restart an engine with these differences; rolling with a ``hand_over``. Blocks."""
    origin = supervisor.origin(record)
    spec = wanted.spec(supervisor.adapter(origin.spec), origin)
    if hand_over is None:
        return restart(
            supervisor,
            record,
            spec,
            origin,
            grace_s=grace_s,
            ready_timeout_s=ready_timeout_s,
            on_phase=on_phase,
        )
    return roll(
        supervisor,
        record,
        spec,
        origin,
        hand_over,
        grace_s=grace_s,
        ready_timeout_s=ready_timeout_s,
        on_phase=on_phase,
    )


def room_beside(record: EngineRecord, gpus: Iterable[GpuSample]) -> tuple[int, ...] | None:
    """GPUs for a second engine beside this one: () if it needs none, None if none is free."""
    if record.simulated:
        return ()
    mine = record.spec.gpus
    free = tuple(
        gpu.index
        for gpu in gpus
        if gpu.index not in mine
        and gpu.mig_of is None
        and gpu.memory_total_bytes
        and gpu.memory_used_bytes is not None
        and gpu.memory_used_bytes < EMPTY_SHARE * gpu.memory_total_bytes
    )
    return free[: len(mine)] if mine and len(free) >= len(mine) else None


class RestartFailed(LlmtopError):
    """Neither the new configuration nor the last good one runs now."""


class Restarted(Struct, frozen=True):
    """The result of a restart after which an engine is ready.

    record: of the engine that is ready now. url_before: its earlier URL. failure, advice, excerpt:
    why the new configuration did not start, what to try, and the log lines around it; "" and ()
    when it runs. took_s: total seconds. down_s: seconds without an answering engine.
    """

    record: EngineRecord
    url_before: str
    took_s: float
    down_s: float
    failure: str = ""
    advice: str = ""
    excerpt: tuple[str, ...] = ()

    @property
    def rolled_back(self) -> bool:
        """Whether the earlier configuration runs again."""
        return bool(self.failure)


class _Failure(Struct, frozen=True):
    words: str
    advice: str
    excerpt: tuple[str, ...] = ()


def restart(
    supervisor: Supervisor,
    record: EngineRecord,
    spec: LaunchSpec,
    origin: LaunchContext,
    *,
    grace_s: float = GRACE_S,
    ready_timeout_s: float = READY_TIMEOUT_S,
    on_phase: OnPhase | None = None,
    monotonic: Callable[[], float] = time.monotonic,
) -> Restarted:
    """Stop an engine and start it with ``spec``, under its name and on its port.

    Errors in ``spec`` are raised before any change. If it does not become ready and the old one
    ran, the old one is started again with ``origin``. LaunchFailed: it did not run before and does
    not run now. RestartFailed: neither could be started.
    """
    supervisor.check(spec, origin)
    restart_journal = supervisor.restart_journal
    restart_journal.refuse_second(record.name)
    # After an interrupted restart the origin is the configuration before it.
    good = supervisor.ready(record) or restart_journal.cut_short(record.name) is not None
    begin = monotonic()
    if good:
        restart_journal.begin(record.name, origin.spec, origin.folder)
    try:
        supervisor.stop(record, grace_s)
        ready, failure = _start_or_go_back(
            supervisor, spec, origin, good, ready_timeout_s, on_phase
        )
    except Exception:
        restart_journal.end(record.name)
        raise
    # Not after Ctrl+C: then the last good configuration must be restored.
    restart_journal.end(record.name)
    took = monotonic() - begin
    return _outcome(ready, record, took, took, failure)


def _start_or_go_back(
    supervisor: Supervisor,
    spec: LaunchSpec,
    origin: LaunchContext,
    good: bool,
    ready_timeout_s: float,
    on_phase: OnPhase | None,
) -> tuple[EngineRecord, _Failure | None]:
    """Start with ``spec``; on failure with ``origin``, if that is known to be ``good``."""
    try:
        return _start(supervisor, spec, origin, ready_timeout_s, on_phase), None
    except _DidNotStart as error:
        failure = error.failure
        if not good:
            raise LaunchFailed(failure.words, failure.advice, failure.excerpt) from error
    try:
        return _start(supervisor, origin.spec, origin, ready_timeout_s, on_phase), failure
    except _DidNotStart as again:
        raise RestartFailed(
            f"the new configuration did not start ({failure.words}), and the last good one "
            f"did not start again: {again.failure.words}",
            again.failure.advice or f"read its log: llmtop logs {spec.name}",
        ) from again


def roll(
    supervisor: Supervisor,
    record: EngineRecord,
    spec: LaunchSpec,
    origin: LaunchContext,
    hand_over: HandOver,
    *,
    grace_s: float = GRACE_S,
    ready_timeout_s: float = READY_TIMEOUT_S,
    on_phase: OnPhase | None = None,
    monotonic: Callable[[], float] = time.monotonic,
) -> Restarted:
    """Start the new engine beside the old one, let clients move over, then stop the old one.

    hand_over: called when the new one is ready; the old one stops after it returns. If the new one
    does not start, the old one continues. UsageError if both need the same GPUs, or if the old one
    does not run.
    """
    if not supervisor.alive(record):
        raise UsageError(f"{record.name!r} does not run", "omit --rolling")
    shared = set(spec.gpus) & set(record.spec.gpus)
    if not record.simulated and (not spec.gpus or not record.spec.gpus or shared):
        raise UsageError(
            "a rolling restart needs separate GPUs for the new engine",
            "give free GPUs with --gpus, or omit --rolling",
        )
    taken = {one.spec.port for one in supervisor.records() if supervisor.alive(one)}
    beside = replace(
        spec,
        name=_second_name(record, supervisor.names),
        port=next_free(spec.host, spec.port + 1, taken),
    )
    supervisor.check(beside, origin)
    begin = monotonic()
    supervisor.restart_journal.begin(beside.name, origin.spec, origin.folder, rolling=True)
    try:
        try:
            ready = _start(supervisor, beside, origin, ready_timeout_s, on_phase, record.name)
        except _DidNotStart as error:
            return _outcome(record, record, monotonic() - begin, 0.0, error.failure)
        try:
            hand_over(ready)
        except BaseException:
            supervisor.stop(ready, grace_s)
            supervisor.forget(ready)
            raise
        supervisor.stop(record, grace_s)
        survivor = supervisor.rename(ready, record.name)
    finally:
        supervisor.restart_journal.end(beside.name)
    return _outcome(survivor, record, monotonic() - begin, 0.0, None)


def _second_name(record: EngineRecord, taken: Collection[str]) -> str:
    stem = record.name[:34]
    for number in itertools.count(1):
        name = f"{stem}-new{number if number > 1 else ''}"
        # If it took over its name itself, it still has the socket of its first name.
        mine = Path(record.live_socket or "").name.startswith(f"{name}.")
        if name not in taken and not mine:
            return name
    raise AssertionError("unreachable")


class _DidNotStart(Exception):
    def __init__(self, failure: _Failure) -> None:
        self.failure = failure


def _start(
    supervisor: Supervisor,
    spec: LaunchSpec,
    origin: LaunchContext,
    timeout_s: float,
    on_phase: OnPhase | None,
    replaces: str | None = None,
) -> EngineRecord:
    """Start and wait. If it does not become ready, end it; in a rolling restart also delete it."""
    try:
        record = supervisor.launch(spec, origin=origin, replaces=replaces)
    except LlmtopError as error:
        raise _DidNotStart(_Failure(error.message, error.hint)) from error
    try:
        return supervisor.wait_ready(record, timeout_s, on_phase).record
    except LlmtopError as error:
        if supervisor.find(record.name).stop_requested_at is not None:
            raise RestartFailed(
                f"{record.name!r} was stopped by another process while it started",
                f"start it again with: llmtop restart {record.name}",
            ) from error
        ended = supervisor.stop(record)
        excerpt = error.excerpt if isinstance(error, LaunchFailed) else ()
        words, advice = ended.cause or error.message, ended.advice or error.hint
        if replaces is not None:
            supervisor.forget(ended)
        raise _DidNotStart(_Failure(words, advice, excerpt)) from error
    except BaseException:
        # Ctrl+C: the old one still runs, so end the new one.
        if replaces is not None:
            supervisor.forget(supervisor.stop(record))
        raise


def _outcome(
    now: EngineRecord, before: EngineRecord, took: float, down: float, failure: _Failure | None
) -> Restarted:
    if failure is None:
        return Restarted(now, before.url, took, down)
    return Restarted(now, before.url, took, down, failure.words, failure.advice, failure.excerpt)
