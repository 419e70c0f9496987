"""The seam that an engine fits into: mostly tables, and two functions that build and read.

Adding an engine is one module that makes an ``Adapter`` and one line in ``catalog.ADAPTERS``.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from llmtop.engines.options import OptionSpec, OptionValue
from llmtop.engines.records import LaunchSpec
from llmtop.engines.samples import Reading


class MetricText(Protocol):
    """Exposition text, parsed: what an adapter's ``read`` looks names up in."""

    def value(self, name: str, **labels: str) -> float | None:
        """Sum over the series of a sample name whose labels match; None when there is none."""

    def series(self, name: str) -> Sequence[tuple[Mapping[str, str], float]]:
        """All series of a sample name with their labels."""


@dataclass(frozen=True, slots=True)
class Phase:
    """A step of an engine's start: its word on screen and the log line at which it begins."""

    word: str
    begins: re.Pattern[str]


@dataclass(frozen=True, slots=True)
class FailurePattern:
    """A log line that explains why an engine died, in plain words, and what to try.

    cause and advice may name groups of the pattern as ``{name}``. Patterns are tried in the order
    of the table over the whole log: the first pattern that matches anywhere wins.
    """

    pattern: re.Pattern[str]
    cause: str
    advice: str


def _tells_nothing(command: Sequence[str]) -> Mapping[str, OptionValue]:
    return {}


@dataclass(frozen=True, slots=True)
class Adapter:
    """All that llmtop knows about one kind of engine.

    command: the argument vector for a launch; it puts the engine's own subcommand behind
    ``LaunchSpec.program``. environment: what to add to the environment, given the path of the
    live-option socket and the environment that it will be added to.
    program: how the engine is called when nothing else is said. module: what stands for it behind
    ``PYTHON -m``, "" when it has none; ``--bin PATH`` makes the program (PATH,) and
    ``--python PATH`` makes it (PATH, "-m", module).
    prefixes: exposition lines that begin with one of these are worth parsing. read: (parsed text,
    unix seconds, monotonic seconds) -> Reading. min_version: the oldest that it was built for.
    options: each option that llmtop can show or change. launch_options: their launch values by
    name, as far as a command line tells them.
    """

    kind: str
    title: str
    default_port: int
    command: Callable[[LaunchSpec], tuple[str, ...]]
    environment: Callable[[LaunchSpec, Path, Mapping[str, str]], dict[str, str]]
    read: Callable[[MetricText, float, float], Reading]
    prefixes: tuple[str, ...]
    options: tuple[OptionSpec, ...]
    phases: tuple[Phase, ...] = ()
    failures: tuple[FailurePattern, ...] = ()
    ready_path: str = "/health"
    metrics_path: str = "/metrics"
    simulated: bool = False
    min_version: str = ""
    program: tuple[str, ...] = ()
    module: str = ""
    launch_options: Callable[[Sequence[str]], Mapping[str, OptionValue]] = _tells_nothing
