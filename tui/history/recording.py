"""Records a store into a file: a source for screens and for commands without a screen."""

from __future__ import annotations

import asyncio
import os
import platform
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from llmtop import LlmtopError, __version__
from llmtop.history.facts import Fact, Head, Host, LogFact
from llmtop.history.recording_writer import RecordingWriter
from llmtop.printable import clean
from llmtop.tui.history.step_facts import Inside, StepFacts
from llmtop.tui.history.store_facts import StoreFacts
from llmtop.tui.store.store import EngineTrack, Event, Store

if TYPE_CHECKING:
    from llmtop.engines.host.log_reader import LogFeed

LOG_LINES = 40  # log lines of an engine to record in one beat
LOG_BEFORE = 100  # log lines from before the recording


class RecordingSource:
    """Writes a recording of a store into ``path``. Raises UsageError if it cannot be created.

    now: the screen's clock. interval: seconds between samples, written to the head. inside: opens
    the connection that reads an engine's steps. ``stop`` or ``close`` ends the recording. A failure
    to write ends it with an event, and the screen continues.
    """

    def __init__(
        self,
        store: Store,
        path: Path,
        now: Callable[[], float],
        interval: float = 1.0,
        inside: Inside = lambda name: None,
    ) -> None:
        self.path = path
        self.began = now()
        self.trouble = ""
        self._store, self._now = store, now
        self._facts = StoreFacts(store)
        self._logs: dict[str, LogFeed] = {}
        self._steps = StepFacts(inside)
        head = Head(
            self.began, llmtop=__version__, began=self.began, interval=interval, host=host()
        )
        self._writer: RecordingWriter | None = RecordingWriter(path, head, self._facts.all)

    @property
    def running(self) -> bool:
        """Whether the recording still runs."""
        return self._writer is not None

    @property
    def bytes_written(self) -> int:
        """The size of the file so far, in bytes."""
        return self._writer.bytes_written if self._writer is not None else 0

    async def sample(self) -> None:
        """Write all changes since the last beat."""
        if self._writer is None:
            return
        more = await asyncio.to_thread(self._log_lines)
        for track in list(self._store.engines.values()):
            shows = track.owned or track.steps is not None
            if shows and track.sample is not None and track.stale_since is None:
                more += await self._steps.of(track, self._now())
        self.write(more)

    def write(self, more: list[Fact] | None = None) -> None:
        """Write all changes of the store, then the facts in ``more``."""
        if self._writer is None:
            return
        time = self._now()
        try:
            self._writer.write(time, [*self._facts.changes(time), *(more or [])])
        except LlmtopError as error:
            self._writer = None
            self.trouble = error.message
            words = clean(f"the recording ended: {error.message}", 300)
            self._store.events.append(Event(time, "error", words))

    def stop(self, reason: str = "") -> None:
        """Write the last changes and end the file. Raises LlmtopError if it is incomplete."""
        self.write()
        writer, self._writer = self._writer, None
        for track in self._store.engines.values():
            track.journal = None
        if writer is not None:
            writer.close(self._now(), reason)

    async def close(self) -> None:
        """End the recording with the screen."""
        try:
            self.stop()
        except LlmtopError as error:
            self.trouble = error.message

    def _log_lines(self) -> list[Fact]:
        """The log lines since the last beat, of engines that llmtop started."""
        found: list[Fact] = []
        for track in list(self._store.engines.values()):
            lines = self._log_of(track)
            if lines:
                found.append(LogFact(self._now(), track.name, tuple(lines)))
        return found

    def _log_of(self, track: EngineTrack) -> list[str]:
        if track.status is None or not track.owned:
            return []
        feed = self._logs.get(track.name)
        if feed is None:
            from llmtop.engines.host.log_reader import LogFeed

            def path() -> Path:
                status = track.status
                return Path(status.record.log_path) if status is not None else Path("/dev/null")

            feed = self._logs[track.name] = LogFeed(path, LOG_BEFORE)
        try:
            return feed.read()[-max(LOG_LINES, LOG_BEFORE) :]
        except (OSError, LlmtopError):
            return []


def host() -> Host:
    """The system, CPU cores and memory in bytes of this machine, without its name."""
    try:
        memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (OSError, ValueError):
        memory = 0
    system = f"{platform.system()} {platform.release()}"
    return Host(system, len(os.sched_getaffinity(0)), memory or None)
