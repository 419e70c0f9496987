"""The steps of a canary rollout: each is a line for the caller and an event of its engines."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import Path

from llmtop.analysis.events import Event
from llmtop.fleet.canary import Judgement, Verdict
from llmtop.operations.posted_events import post

NAMED = 4  # number of engines that a sentence names; it counts the rest


class CanarySteps:
    """Reports each step and posts it as an event. everyone: names of all engines of the selection.

    say: receives the step as text. folder: returns an engine's folder by its name. wall: unix
    seconds.
    """

    def __init__(
        self,
        everyone: Sequence[str],
        say: Callable[[str], None],
        folder: Callable[[str], Path],
        wall: Callable[[], float] = time.time,
    ) -> None:
        self._everyone, self._say, self._folder, self._wall = everyone, say, folder, wall

    def report(self, words: str, *names: str, level: str = "info") -> None:
        """Report one step. names: its engines; without any, all engines of the selection.

        level: of the event.
        """
        event = Event(self._wall(), level, f"canary: {words}")
        for name in names or self._everyone:
            post(self._folder(name), event)
        self._say(words)

    def report_verdict(self, judgement: Judgement) -> None:
        """Report the verdict with its figures."""
        level = "info" if judgement.verdict is Verdict.NOT_WORSE else "warning"
        self.report(reason(judgement), level=level)


def reason(judgement: Judgement) -> str:
    """A verdict and its figures as text."""
    return f"{judgement.verdict.value}: {judgement.words}"


def named(names: Sequence[str]) -> str:
    """The names of engines; of many, the first NAMED and the number of the others."""
    shown = ", ".join(names[:NAMED])
    return shown if len(names) <= NAMED else f"{shown} and {len(names) - NAMED} more"
