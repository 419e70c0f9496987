"""Lines about engines that answer, do not answer or end, for commands without a screen."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from llmtop.engines.core.records import State
from llmtop.printable import clean

if TYPE_CHECKING:
    from llmtop.tui.store.store import EngineTrack

ANSWERS, SILENT = "answers", "does not answer"
MOST = 300  # longest line, in characters


class StateLines:
    """Reports each change of an engine's state once. report: receives a line."""

    def __init__(self, report: Callable[[str], None]) -> None:
        self._report = report
        self._last: dict[str, str] = {}

    def observe(self, engines: Mapping[str, EngineTrack]) -> None:
        """Compare the states with the last ones. A new engine that answers is not reported."""
        for name, track in engines.items():
            words, before = state_words(track), self._last.get(name)
            if words and words != before:
                self._last[name] = words
                if before is not None or words != ANSWERS:
                    self._report(clean(f"{name} {words}", MOST))


def state_words(track: EngineTrack) -> str:
    """The state of an engine as a predicate, such as "does not answer"; "" if unknown."""
    status = track.status
    if status is None:
        if track.stale_since is not None:
            return SILENT
        return ANSWERS if track.sample is not None else ""
    state, why = status.state, status.phase
    if state is State.READY:
        return ANSWERS
    if state is State.UNRESPONSIVE:
        return f"{SILENT}: {why}" if why else SILENT
    if state in (State.STARTING, State.STOPPING):
        return "starts" if state is State.STARTING else "is being stopped"
    why = why or status.record.cause or ""
    ended = "was stopped" if state is State.STOPPED else "has ended"
    return f"{ended}: {why}" if why and state is not State.STOPPED else ended
