"""The steps of a canary: each is a line for the caller and an event of the engines concerned."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import Path

from llmtop.analysis.events import Event
from llmtop.fleet.canary import Judgement, Verdict
from llmtop.operations.posted_events import post

NAMED = 4  # engines that a sentence names before it counts the rest


class CanarySteps:
    """Says each step and posts it. everyone: the names of all engines of the selection.

    say: takes the step in words. folder: of an engine by its name.
    """

    def __init__(
        self,
        everyone: Sequence[str],
        say: Callable[[str], None],
        folder: Callable[[str], Path],
        wall: Callable[[], float] = time.time,
    ) -> None:
        self._everyone, self._say, self._folder, self._wall = everyone, say, folder, wall

    def take(self, words: str, *names: str, level: str = "info") -> None:
        """One step. names: the engines that it concerns; none for all of the selection."""
        event = Event(self._wall(), level, f"canary: {words}")
        for name in names or self._everyone:
            post(self._folder(name), event)
        self._say(words)

    def judge(self, judgement: Judgement) -> None:
        """The verdict, with its figures."""
        level = "info" if judgement.verdict is Verdict.NOT_WORSE else "warning"
        self.take(reason(judgement), level=level)


def reason(judgement: Judgement) -> str:
    """A verdict and its figures in words."""
    return f"{judgement.verdict.value}: {judgement.words}"


def named(names: Sequence[str]) -> str:
    """Engines by name; of many, the first few and how many more there are."""
    shown = ", ".join(names[:NAMED])
    return shown if len(names) <= NAMED else f"{shown} and {len(names) - NAMED} more"
