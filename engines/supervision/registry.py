"""Engine records that several llmtop processes change, also while the disk is full."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable

from llmtop import LlmtopError
from llmtop.engines.core.records import EngineRecord
from llmtop.engines.host.processes import Identity, Processes, identity
from llmtop.engines.state.state_directory import (
    ForeignState,
    NewerRecord,
    StateDirectory,
    StateError,
)
from llmtop.engines.supervision.launch import recover
from llmtop.values import replace

_LOCK_WAIT_S = 1.0


Change = Callable[[EngineRecord], EngineRecord]


class EngineRegistry:
    """The newest facts on each engine: the record on disk, and changes that could not be written.

    Changes are functions of the newest record. They keep facts that another llmtop recorded first,
    so a change that could not be written can be repeated later.
    """

    def __init__(
        self, state: StateDirectory, processes: Processes, clock: Callable[[], float]
    ) -> None:
        self._state = state
        self._processes = processes
        self._clock = clock
        self._waiting: dict[Identity, list[Change]] = {}
        self._lock = threading.Lock()

    def fresh(self, record: EngineRecord) -> EngineRecord:
        """The newest record of this name, written by any llmtop; else the given one."""
        try:
            stored = self._state.load(record.name)
        except StateError:
            stored = None
        if stored is not None and stored.pid == 0 and stored.ended_at is None:
            stored = self._recovered(stored)
        newest = record if stored is None else stored
        return self.update(newest) if identity(newest) in self._waiting else newest

    def update(self, record: EngineRecord, *changes: Change) -> EngineRecord:
        """Change the newest record of this process and return it.

        If another engine has the name now, its record is returned unchanged. If writing fails, the
        change stays in memory and is written later.
        """
        who = identity(record)
        with self._lock:
            changes = (*self._waiting.get(who, ()), *changes)
        try:
            with self._state.lock(record.name, wait_s=_LOCK_WAIT_S):
                stored = self._stored(record)
                if identity(stored) != who:
                    changed = stored
                else:
                    changed = _changed(stored, changes)
                    if changed != stored:
                        self._state.save(changed)
        except LlmtopError:
            with self._lock:
                self._waiting[who] = list(changes)
            return _changed(record, changes)
        with self._lock:
            self._waiting.pop(who, None)
        return changed

    def _stored(self, record: EngineRecord) -> EngineRecord:
        try:
            return self._state.load(record.name) or record
        except (NewerRecord, ForeignState):
            raise
        except StateError:
            # Damaged while the engine runs: the facts in memory replace it.
            self._state.set_aside(record.name)
            return record

    def _recovered(self, record: EngineRecord) -> EngineRecord:
        try:
            with self._state.lock(record.name, wait_s=_LOCK_WAIT_S):
                again = self._state.load(record.name) or record
                if again.pid != 0:
                    return again
                found = recover(again, self._state, self._processes)
                if found is None:
                    found = replace(
                        again,
                        ended_at=self._clock(),
                        cause="llmtop exited while it started this engine",
                        advice="start it again",
                    )
                    self._state.save(found)
                return found
        except LlmtopError:
            return record


def _changed(record: EngineRecord, changes: Iterable[Change]) -> EngineRecord:
    for change in changes:
        record = change(record)
    return record
