"""Restarts in progress, recorded before the engine stops, so that none is lost with a llmtop.

``restart.json`` in an engine's folder contains the last good configuration and the process that
restarts it. It is removed when the restart has succeeded or failed. If that process is killed, the
file stays. The next llmtop reports it and can restore the last good configuration. It starts
nothing by itself: the operator may have wanted to free the GPU.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from os import getpid

import msgspec
from msgspec import Struct

from llmtop.engines.core.records import EngineStatus, LaunchSpec, State
from llmtop.engines.host.private_files import read_own
from llmtop.engines.host.processes import Identity, Processes
from llmtop.engines.host.redaction import redact
from llmtop.engines.state.state_directory import RECORD_BYTES, SCHEMA, NameBusy, StateDirectory
from llmtop.values import replace

FILE = "restart.json"


class RestartEntry(Struct, frozen=True):
    """A restart that has begun. good: the earlier configuration, secrets hidden. folder: its
    working directory. by: the llmtop that restarts. began_at: unix seconds. rolling: the old engine
    still runs.
    """

    good: LaunchSpec
    folder: str | None
    by: Identity
    began_at: float
    rolling: bool = False


class _RestartFile(msgspec.Struct):
    intent: RestartEntry
    schema: int = SCHEMA


_intent = msgspec.json.Decoder(_RestartFile).decode


class RestartJournal:
    """The restarts in progress of all llmtop processes."""

    def __init__(
        self, state: StateDirectory, processes: Processes, clock: Callable[[], float]
    ) -> None:
        self._state = state
        self._processes = processes
        self._clock = clock

    def begin(
        self, name: str, good: LaunchSpec, folder: str | None, *, rolling: bool = False
    ) -> None:
        """Record a restart. NameBusy: another llmtop restarts it. StateError: cannot be written."""
        self.refuse_second(name)
        entry = self._processes.entry(getpid())
        ticks = entry.start_ticks if entry is not None else 0
        shown = replace(good, program=redact(good.program), args=redact(good.args), environment=())
        by = Identity(getpid(), ticks, self._processes.boot_id)
        intent = RestartEntry(shown, folder, by, self._clock(), rolling)
        text = msgspec.json.format(msgspec.json.encode(_RestartFile(intent))).decode()
        self._state.write_file(name, FILE, text + "\n")

    def refuse_second(self, name: str) -> None:
        """NameBusy when another llmtop restarts this engine now."""
        found = self.of(name)
        if found is not None and found.by.pid != getpid() and self._processes.alive(found.by):
            raise NameBusy(
                f"another llmtop (pid {found.by.pid}) is restarting {name!r}",
                "wait until it is done: llmtop ps",
            )

    def starts_again(self, name: str) -> int | None:
        """Pid of another llmtop that will start this engine after its stop; normally None."""
        found = self.of(name)
        if found is None or found.rolling or found.by.pid == getpid():
            return None
        return found.by.pid if self._processes.alive(found.by) else None

    def end(self, name: str) -> None:
        """Remove the entry: the restart has ended, or is no longer needed."""
        with contextlib.suppress(OSError):
            (self._state.folder(name) / FILE).unlink()

    def drop(self, name: str) -> None:
        """Remove the entry of an interrupted restart; keep one in progress."""
        if self.cut_short(name) is not None:
            self.end(name)

    def of(self, name: str) -> RestartEntry | None:
        """The restart of this engine that has begun and not ended; normally None."""
        try:
            data = read_own(self._state.folder(name) / FILE, RECORD_BYTES)
            return _intent(data).intent
        except (OSError, msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            return None

    def cut_short(self, name: str) -> RestartEntry | None:
        """The interrupted restart whose llmtop has ended; None without one, or in progress."""
        found = self.of(name)
        return None if found is None or self._processes.alive(found.by) else found

    def annotate(self, status: EngineStatus) -> EngineStatus:
        """The status with a note on a restart that is in progress or was interrupted."""
        name, state = status.record.name, status.state
        found = self.of(name)
        if found is None or state is State.STARTING:
            return status
        up = state in (State.READY, State.UNRESPONSIVE)
        if self._processes.alive(found.by):
            return status if up else _with(status, f"llmtop (pid {found.by.pid}) restarts it")
        old = status.record.replaces
        if up and old is not None:
            return _with(
                status,
                f"llmtop exited before this replaced {old!r}: "
                f"stop one of the two, llmtop stop {old} or llmtop stop {name}",
            )
        if up:
            self.end(name)
            return status
        return _with(
            status,
            "llmtop exited during a restart: "
            f"`llmtop restart {name}` brings the last good configuration back",
        )


def _with(status: EngineStatus, words: str) -> EngineStatus:
    return replace(status, phase=f"{status.phase}; {words}" if status.phase else words)
