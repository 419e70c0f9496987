"""Starts an engine: checks, log, process in its own session, record."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

from llmtop import LlmtopError
from llmtop.engines.core.adapter import Adapter
from llmtop.engines.core.records import EngineRecord, LaunchSpec
from llmtop.engines.host.log_reader import rotate
from llmtop.engines.host.processes import LOG_VARIABLE, Identity, Processes, identity
from llmtop.engines.host.redaction import redact
from llmtop.engines.host.termination import end, end_orphans, remove_socket
from llmtop.engines.logs.startup import write_start_line
from llmtop.engines.state.startup_times import startup_key
from llmtop.engines.state.state_directory import StateDirectory, StateError
from llmtop.engines.supervision.inheritance import check_folder, guarded, inherited
from llmtop.engines.supervision.preflight import (
    LaunchRefused,
    check_certificate,
    check_model,
    check_port,
    find_program,
)
from llmtop.values import replace

_LOG_FLAGS = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW


class LaunchFailed(LlmtopError):
    """The engine was started and did not become ready.

    excerpt: the log lines around the cause, safe to print; () for none.
    """

    def __init__(self, message: str, hint: str = "", excerpt: tuple[str, ...] = ()) -> None:
        super().__init__(message, hint)
        self.excerpt = excerpt


def base_url(host: str, port: int, *, secure: bool = False) -> str:
    """The address from which this machine reaches an engine that listens on ``host``."""
    scheme = "https" if secure else "http"
    reached = {"0.0.0.0": "127.0.0.1", "": "127.0.0.1", "::": "::1"}.get(host, host)
    where = f"[{reached}]" if ":" in reached else reached
    return f"{scheme}://{where}:{port}"


def start_engine(
    spec: LaunchSpec,
    adapter: Adapter,
    running: Iterable[EngineRecord],
    *,
    state: StateDirectory,
    processes: Processes,
    environ: Mapping[str, str],
    clock: Callable[[], float],
    folder: str | None = None,
    replaces: str | None = None,
) -> EngineRecord:
    """Start an engine and record it. The caller holds the lock of the name.

    folder: its working directory, None for the present one. replaces: the engine whose name it
    will take over.

    Raises LaunchRefused and UsageError before any change. After a later failure the process is
    ended and the record removed before the error is raised.
    """
    environ = inherited(environ, dict(spec.environment))
    running = tuple(running)
    spec, command = prepare(spec, adapter, state, environ, folder)
    check_port(spec, running)
    socket = state.socket_path(spec.name)
    for one in running:
        # An engine that took over a name keeps the socket of its earlier name.
        if one.live_socket == str(socket):
            raise LaunchRefused(
                f"the socket of {spec.name!r} belongs to the running engine {one.name!r}",
                "give this one another --name",
            )
    certificate = adapter.certificate(spec.args)
    if certificate:
        certificate = str(Path(folder or ".").absolute() / certificate)
    remove_socket(str(socket))
    # The log's final path: under the name that it takes over, if any.
    added = {LOG_VARIABLE: str(state.log_path(replaces or spec.name))}
    added |= _choice_of_gpus(spec, environ)
    added |= adapter.environment(spec, socket, {**environ, **added})
    log = state.make_folder(spec.name) / "engine.log"
    for name, text in adapter.files(spec).items():
        state.write_file(spec.name, name, text)
    rotate(log)
    record = EngineRecord(
        spec=replace(spec, program=redact(spec.program), args=redact(spec.args), environment=()),
        command=redact(command),
        env_names=tuple(sorted({*added, *dict(spec.environment)})),
        pid=0,
        start_ticks=0,
        boot_id=processes.boot_id,
        url=base_url(spec.host, spec.port, secure=bool(certificate)),
        certificate=certificate,
        log_path=str(log),
        live_socket=str(socket),
        started_at=clock(),
        simulated=adapter.simulated,
        previous_startup_s=state.startups.seconds(startup_key(spec)),
        replaces=replaces,
    )
    # Record before the start: a full disk fails before anything runs. If llmtop dies in between,
    # the record with its log is enough to find the engine again (``recover``).
    state.save(record)
    try:
        leader = _spawn(command, {**environ, **added}, record, processes, folder)
    except LlmtopError:
        state.discard(spec.name)
        raise
    record = replace(record, pid=leader.pid, start_ticks=leader.start_ticks)
    try:
        state.save(record)
    except BaseException:
        end(processes, leader, log, grace_s=0.0, monotonic=time.monotonic, sleep=time.sleep)
        processes.forget(leader)
        state.discard(spec.name)
        raise
    return record


def prepare(
    spec: LaunchSpec,
    adapter: Adapter,
    state: StateDirectory,
    environ: Mapping[str, str],
    folder: str | None = None,
) -> tuple[LaunchSpec, tuple[str, ...]]:
    """Check a launch without side effects. Returns the spec and its command."""
    spec = replace(check_model(spec, folder or ""), folder=str(state.folder(spec.name)))
    environ = {**environ, **dict(spec.environment)}
    command = adapter.command(spec)
    check_certificate(adapter.certificate(spec.args), folder or "")
    found = (find_program(adapter, command, environ), *command[1:])
    check_folder(found, Path(folder or "."))
    return spec, guarded(found)


def vacate(
    name: str,
    state: StateDirectory,
    processes: Processes,
    *,
    monotonic: Callable[[], float],
    sleep: Callable[[float], None],
) -> None:
    """Free a name and clean up after its earlier engine. LaunchRefused while that one runs.

    The caller holds the name's lock.
    """
    record = state.load(name)
    if record is not None and record.pid == 0:
        record = recover(record, state, processes)
    if record is None:
        return
    leader = identity(record)
    if processes.alive(leader):
        raise LaunchRefused(
            f"an engine named {name!r} is already running (pid {record.pid}, {record.url})",
            f"stop it with: llmtop stop {name}, or choose another --name",
        )
    end_orphans(processes, leader, Path(record.log_path), monotonic=monotonic, sleep=sleep)


def recover(
    record: EngineRecord, state: StateDirectory, processes: Processes
) -> EngineRecord | None:
    """The completed record of a start during which llmtop died. Its process is the writer of the
    log.

    None when nothing was started. The caller holds the lock of the name.
    """
    for one in processes.writers(Path(record.log_path)):
        entry = processes.entry(one.pid)
        if entry is not None and entry.session == one.pid:
            record = replace(record, pid=one.pid, start_ticks=one.start_ticks)
            state.save(record)
            return record
    return None


def _choice_of_gpus(spec: LaunchSpec, environ: Mapping[str, str]) -> dict[str, str]:
    """The variables by which an engine uses these GPUs and no other."""
    if not spec.gpus:
        return {}
    chosen = {"CUDA_VISIBLE_DEVICES": ",".join(str(index) for index in spec.gpus)}
    # By default CUDA numbers the fastest GPU first, unlike nvidia-smi and llmtop.
    if "CUDA_DEVICE_ORDER" not in environ:
        chosen["CUDA_DEVICE_ORDER"] = "PCI_BUS_ID"
    return chosen


def _spawn(
    command: tuple[str, ...],
    environ: Mapping[str, str],
    record: EngineRecord,
    processes: Processes,
    folder: str | None,
) -> Identity:
    try:
        log_fd = os.open(record.log_path, _LOG_FLAGS, 0o600)
    except OSError as error:
        raise _log_error(record, error) from error
    try:
        try:
            write_start_line(log_fd, record.started_at, record.command)
        except OSError as error:
            raise _log_error(record, error) from error
        try:
            return processes.start(command, environ, log_fd, folder)
        except (OSError, ValueError) as error:
            why = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
            raise LaunchFailed(
                f"{record.command[0]} could not be started: {why.lower()}",
                "check --bin or --python, and the arguments",
            ) from error
    finally:
        os.close(log_fd)


def _log_error(record: EngineRecord, error: OSError) -> StateError:
    return StateError(
        f"the log {record.log_path} cannot be written: {(error.strerror or str(error)).lower()}",
        "free some space, or set XDG_STATE_HOME to a folder that you can write to",
    )
