"""The records of engines while several llmtops change them, and also while no disk takes them."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import replace

from llmtop import LlmtopError
from llmtop.engines.launch import recover
from llmtop.engines.processes import Processes
from llmtop.engines.records import EngineRecord
from llmtop.engines.state import NewerRecord, StateDirectory, StateError
from llmtop.engines.watch import identity

_LOCK_WAIT_S = 1.0


class Roster:
    """What is known of each engine now: the record on disk, or newer facts that found no room."""

    def __init__(
        self, state: StateDirectory, processes: Processes, clock: Callable[[], float]
    ) -> None:
        self._state = state
        self._processes = processes
        self._clock = clock
        self._unsaved: dict[str, EngineRecord] = {}
        self._lock = threading.Lock()

    def fresh(self, record: EngineRecord) -> EngineRecord:
        """The newest record of this name, whoever wrote it; the given one when there is none."""
        try:
            stored = self._state.load(record.name)
        except StateError:
            stored = None
        if stored is not None and stored.pid == 0 and stored.ended_at is None:
            stored = self._recovered(stored)
        with self._lock:
            unsaved = self._unsaved.get(record.name)
        newest = record if stored is None else stored
        if unsaved is None:
            return newest
        if identity(unsaved) != identity(newest) or newest.ended_at is not None:
            self.settle(record.name)
            return newest
        return self.update(newest, lambda _: unsaved)

    def update(
        self, record: EngineRecord, change: Callable[[EngineRecord], EngineRecord]
    ) -> EngineRecord:
        """Change the newest record of this very process and return it.

        When another engine has the name by now its record is returned unchanged. When nothing can
        be written the change is kept in memory and written at a later look.
        """
        try:
            with self._state.lock(record.name, wait_s=_LOCK_WAIT_S):
                stored = self._stored(record)
                if identity(stored) != identity(record):
                    return stored
                changed = change(stored)
                if changed != stored:
                    self._state.save(changed)
        except LlmtopError:
            changed = change(record)
            with self._lock:
                self._unsaved[record.name] = changed
        else:
            self.settle(record.name)
        return changed

    def settle(self, name: str) -> None:
        """Drop what was kept for a name: it has been written, or is about a former engine."""
        with self._lock:
            self._unsaved.pop(name, None)

    def _stored(self, record: EngineRecord) -> EngineRecord:
        try:
            return self._state.load(record.name) or record
        except NewerRecord:
            raise
        except StateError:
            # Damaged while the engine runs: what is known here is worth more.
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
                        cause="llmtop itself ended in the midst of starting it",
                        advice="start it again",
                    )
                    self._state.save(found)
                return found
        except LlmtopError:
            return record
