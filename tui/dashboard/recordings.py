"""The recording of one screen. A key or an option starts it; a key or the exit ends it."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from llmtop import LlmtopError
from llmtop.printable import clean
from llmtop.tui.sources.sampling import Sampling
from llmtop.tui.store.store import Event, Store

if TYPE_CHECKING:
    from llmtop.engines.introspection.engine_inside import EngineInside
    from llmtop.operations.wiring import Wiring
    from llmtop.tui.history.recording import RecordingSource

STEPS_TIMEOUT_S = 1.0


class Recordings:
    """Starts and ends the recording of a screen.

    now: the screen's clock. wiring: finds engines whose steps the screen does not read, to read
    them; None: those steps are not recorded.
    """

    def __init__(
        self,
        store: Store,
        sampling: Sampling,
        now: Callable[[], float],
        wiring: Wiring | None = None,
    ) -> None:
        self._wiring = wiring
        self._store, self._sampling, self._now = store, sampling, now
        self.source: RecordingSource | None = None
        self.ended: list[str] = []  # messages to print after the screen has closed

    def begin(self, path: Path) -> RecordingSource:
        """Record into a new file. Raises UsageError if it cannot be created."""
        from llmtop.tui.history.recording import RecordingSource  # imported only for a recording

        self.source = RecordingSource(
            self._store, path, self._now, self._sampling.interval, self._inside
        )
        self._sampling.sources.append(self.source)
        self._store.recording = str(path)
        self._report("info", f"recording into {path}")
        return self.source

    def _inside(self, name: str) -> EngineInside | None:
        from llmtop.operations.inside import inside_of

        if self._wiring is None:
            return None
        return inside_of(self._wiring.owned(name), STEPS_TIMEOUT_S)

    def toggle(self) -> None:
        """Start a recording in the current folder, or end the running one. Raises LlmtopError."""
        if self.source is not None and self.source.running:
            self.end()
            return
        stamp = time.strftime("%Y%m%d-%H%M%S", time.localtime(self._now()))
        self.begin(Path.cwd() / f"llmtop-{stamp}.llmtop")

    def end(self) -> None:
        """End the running recording; none running is not an error."""
        source, self.source = self.source, None
        self._store.recording = ""
        if source is None:
            return
        if source in self._sampling.sources:
            self._sampling.sources.remove(source)
        words = f"recorded: llmtop replay {source.path}"
        try:
            source.stop()
        except LlmtopError as error:
            words = error.message
        self.ended.append(clean(source.trouble or words, 300))
        self._report("info", self.ended[-1])

    def _report(self, level: str, text: str) -> None:
        self._store.events.append(Event(self._now(), level, clean(text, 300)))
