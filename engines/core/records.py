"""The record of a started engine: enough for another llmtop to take it over."""

from __future__ import annotations

from enum import StrEnum
from typing import ClassVar

from msgspec import Struct

from llmtop.engines.core.options import OptionValue
from llmtop.values import Secretive


class State(StrEnum):
    """The state of an engine."""

    STARTING = "starting"
    READY = "ready"
    UNRESPONSIVE = "unresponsive"  # alive, was ready, does not answer
    STOPPING = "stopping"
    STOPPED = "stopped"  # ended on request
    FAILED = "failed"  # ended by itself, or never became ready
    LOST = "lost"  # the record says running, the process is gone, its end was not observed


class LaunchSpec(Secretive, frozen=True):
    """The operator's request, before an adapter makes a command line of it.

    kind: the adapter's name. program: the executable and its first arguments, from ``--bin``, or
    from ``--python`` and the module. args: further flags, passed on unchanged.
    gpus: indices for CUDA_VISIBLE_DEVICES, () for all. folder: of the adapter's files for this
    engine; the launch sets it. environment: variables and values, which may be secrets and are
    never recorded. api_key_file: the file with the key that clients must send.
    """

    secret: ClassVar[tuple[str, ...]] = ("environment",)

    kind: str
    name: str
    model: str
    host: str
    port: int
    program: tuple[str, ...] = ()
    gpus: tuple[int, ...] = ()
    args: tuple[str, ...] = ()
    folder: str = ""
    environment: tuple[tuple[str, str], ...] = ()
    api_key_file: str = ""


class EngineRecord(Struct, frozen=True):
    """One engine in the state directory.

    start_ticks: field 22 of /proc/PID/stat, clock ticks after boot. With boot_id it identifies the
    process after a step of the wall clock and after the kernel reused the pid.
    env_names: names only, because values may be secrets. started_at, ready_at, stop_requested_at,
    ended_at: unix seconds. startup_s: duration of this start; previous_startup_s: of the one
    before. cause, advice: why it ended, in plain words, and what to try. excerpt: the log lines
    that show the cause, with secrets hidden. replaces: the engine that it replaces: this one takes
    its name when this one is ready and the other one is stopped; else None.
    certificate: its TLS certificate file, "" when it serves plain HTTP.
    """

    spec: LaunchSpec
    command: tuple[str, ...]
    env_names: tuple[str, ...]
    pid: int
    start_ticks: int
    boot_id: str
    url: str
    log_path: str
    live_socket: str | None
    started_at: float
    simulated: bool = False
    version: str | None = None
    ready_at: float | None = None
    startup_s: float | None = None
    previous_startup_s: float | None = None
    stop_requested_at: float | None = None
    ended_at: float | None = None
    exit_code: int | None = None
    cause: str | None = None
    advice: str | None = None
    excerpt: tuple[str, ...] = ()
    replaces: str | None = None
    certificate: str = ""

    @property
    def name(self) -> str:
        """The name that the operator gave to it."""
        return self.spec.name


class Step(Struct, frozen=True):
    """A phase that a start has reached. took_s: its duration, or its duration so far.

    before_s: its duration at this model's last start. None: unknown.
    """

    word: str
    took_s: float | None = None
    before_s: float | None = None


class Left(Struct, frozen=True):
    """An option that a killed llmtop left changed. work: the purpose of the change.

    by_restart: the engine was started with ``now``; else the option changed while it ran.
    """

    work: str
    option: str
    before: OptionValue
    now: OptionValue
    by_restart: bool = False


class EngineStatus(Struct, frozen=True):
    """A record and the present state of its engine.

    phase: the start-up phase or the reason in a few words, "" for none.
    steps: the phases of the start so far, the present one last; () after the start.
    since: unix seconds at which this state began, if known. left: options that a killed
    comparison or tour left changed.
    """

    record: EngineRecord
    state: State
    since: float | None = None
    phase: str = ""
    steps: tuple[Step, ...] = ()
    left: tuple[Left, ...] = ()
