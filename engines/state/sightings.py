"""Recent observations of a watching llmtop, for commands that do not watch.

``ps`` reads no metrics, and detecting a hang takes seconds. So a watching llmtop writes
``hang.json`` into the engine's folder while the hang lasts.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable

import msgspec

from llmtop import LlmtopError
from llmtop.engines.core.conditions import STALE, Condition
from llmtop.engines.core.records import EngineRecord, EngineStatus, State
from llmtop.engines.host.private_files import read_own
from llmtop.engines.state.state_directory import StateDirectory
from llmtop.values import replace

FILE = "hang.json"
FRESH_S = 15.0  # the writer of an older file has ended
EVERY_S = 5.0
_MOST_BYTES = 8192


class _Sighting(msgspec.Struct, frozen=True):
    pid: int
    start_ticks: int
    message: str
    time: float  # unix seconds


class Sightings:
    """Writes and reads them. clock: unix seconds."""

    def __init__(self, state: StateDirectory, clock: Callable[[], float] = time.time) -> None:
        self._state = state
        self._clock = clock
        self._written: dict[str, float] = {}

    def note(self, record: EngineRecord, found: tuple[Condition, ...]) -> None:
        """Record a hang every few seconds, and remove the record when it is over."""
        stuck = next((one for one in found if one.name in STALE), None)
        now, name = self._clock(), record.name
        if stuck is None:
            if self._written.pop(name, None) is not None:
                with contextlib.suppress(OSError):
                    (self._state.folder(name) / FILE).unlink()
            return
        if 0 <= now - self._written.get(name, 0.0) < EVERY_S:
            return
        self._written[name] = now
        seen = _Sighting(record.pid, record.start_ticks, stuck.message, now)
        with contextlib.suppress(LlmtopError):  # with a full disk ``ps`` does not show it
            self._state.write_file(name, FILE, msgspec.json.encode(seen).decode() + "\n")

    def annotate(self, status: EngineStatus) -> EngineStatus:
        """The status; its words report a hang that an llmtop observes now."""
        record = status.record
        if status.state is not State.READY or status.phase:
            return status
        try:
            data = read_own(self._state.folder(record.name) / FILE, _MOST_BYTES)
            seen = msgspec.json.decode(data, type=_Sighting)
        except (OSError, msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            return status
        same = (seen.pid, seen.start_ticks) == (record.pid, record.start_ticks)
        if not same or not 0 <= self._clock() - seen.time <= FRESH_S:
            return status
        return replace(status, phase=seen.message)
