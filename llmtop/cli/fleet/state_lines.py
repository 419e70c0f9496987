"""Lines about engines that answer, do not answer or end, for commands without a screen."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from llmtop.engines.core.records import State
from llmtop.printable import clean

if TYPE_CHECKING:
    from llmtop.tui.store.store import EngineTrack

ANSWERS, SILENT = "answers", "does not answer"
MOST = 300  # characters of a line


class StateLines:
    """Says each change once. say: takes a line."""

    def __init__(self, say: Callable[[str], None]) -> None:
        self._say = say
        self._said: dict[str, str] = {}

    def observe(self, engines: Mapping[str, EngineTrack]) -> None:
        """Take one look in. That an engine answers is said only where it did not before."""
        for name, track in engines.items():
            words, before = state_words(track), self._said.get(name)
            if words and words != before:
                self._said[name] = words
                if before is not None or words != ANSWERS:
                    self._say(clean(f"{name} {words}", MOST))


def state_words(track: EngineTrack) -> str:
    """How an engine is, in the words of a line; "" while that is not known."""
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
