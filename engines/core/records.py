"""What is remembered of an engine that was started: enough for another llmtop to adopt it."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum

from msgspec import Struct

from llmtop.engines.core.options import OptionValue


class State(StrEnum):
    """An engine's state, in words."""

    STARTING = "starting"
    READY = "ready"
    UNRESPONSIVE = "unresponsive"  # alive, was ready, does not answer
    STOPPING = "stopping"
    STOPPED = "stopped"  # ended because it was asked to
    FAILED = "failed"  # ended by itself, or never became ready
    LOST = "lost"  # the record says running, the process is not there, nobody saw it end


@dataclass(frozen=True, slots=True)
class LaunchSpec:
    """What the operator asked for, before an adapter turns it into a command line.

    kind: the adapter's name. program: the executable and leading arguments that stand for the
    engine (a ``--bin``, or a ``--python`` and its module). args: further flags, passed on as they
    are. gpus: indices for CUDA_VISIBLE_DEVICES, () for all. folder: where the adapter's own files
    for this engine are; the launch fills it in. environment: variables and their values, which may
    be secrets: no record has them. api_key_file: where the key is that its clients must send.
    """

    kind: str
    name: str
    model: str
    host: str
    port: int
    program: tuple[str, ...] = ()
    gpus: tuple[int, ...] = ()
    args: tuple[str, ...] = ()
    folder: str = ""
    environment: tuple[tuple[str, str], ...] = field(default=(), repr=False)
    api_key_file: str = ""


class EngineRecord(Struct, frozen=True):
    """One engine, as the state directory keeps it.

    start_ticks: field 22 of /proc/PID/stat, clock ticks after boot; with boot_id it identifies the
    process even after the wall clock was stepped or the pid was used again.
    env_names: names only; values may be secrets. started_at, ready_at, stop_requested_at,
    ended_at: unix seconds. startup_s: how long this start took; previous_startup_s: the one before.
    cause, advice: why it ended, in plain words, and what to try; excerpt: the log lines that show
    it, their secrets hidden. replaces: the engine whose name it
    takes over once it is ready and that one is stopped; None for all others. certificate: the file
    of the one that it shows, "" when it serves plain HTTP.
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
        """The name that the operator gave it."""
        return self.spec.name


class Step(Struct, frozen=True):
    """A phase of a start that was reached. took_s: how long it took or has lasted so far.

    before_s: how long it took at this model's last start. None: not known.
    """

    word: str
    took_s: float | None = None
    before_s: float | None = None


class Left(Struct, frozen=True):
    """An option that a killed llmtop left changed. work: what it changed it for.

    by_restart: the engine was started with ``now``; else it was changed as it ran.
    """

    work: str
    option: str
    before: OptionValue
    now: OptionValue
    by_restart: bool = False


class EngineStatus(Struct, frozen=True):
    """A record and what is true of it now.

    phase: the start-up phase or the reason in a few words, "" when there is nothing to add.
    steps: the phases that a start has gone through, the present one last; () once it is over.
    since: unix seconds at which this state began, as far as is known. left: options that a killed
    comparison or tour left changed.
    """

    record: EngineRecord
    state: State
    since: float | None = None
    phase: str = ""
    steps: tuple[Step, ...] = ()
    left: tuple[Left, ...] = ()
